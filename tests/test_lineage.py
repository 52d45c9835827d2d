import itertools
import os
import pickle
from itertools import pairwise

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from builders import EDGES, MODELS, UNSCORED, tiny_lineage, tiny_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmf.data.lineage import Lineage
from lrmf.data.schema import RELATIONS
from lrmf.data.snapshot import load_snapshot

MODEL_IDS = [model[0] for model in MODELS]


def as_dense(lineage):
    """Adjacency as a table by id, so that lineages with other orders of nodes compare."""
    dense = pd.DataFrame(lineage.adjacency.toarray(), lineage.node_ids, lineage.node_ids)
    return dense.sort_index().sort_index(axis=1)


def by_id(lineage, values):
    return dict(zip(lineage.node_ids, np.asarray(values).tolist(), strict=True))


# `make test-all` raises the number of examples.
N_EXAMPLES = int(os.environ.get("LRMF_EXAMPLES", 30))
reproducible = settings(deadline=None, derandomize=True, max_examples=N_EXAMPLES)
NAMES = [f"n{number:02d}" for number in range(12)]
edge_lists = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(RELATIONS)),
    max_size=40,
)


def test_nodes_are_the_models_then_the_unscored_ancestors():
    lineage = tiny_lineage()
    assert lineage.node_ids.tolist() == [*MODEL_IDS, *sorted(UNSCORED)]
    assert (lineage.n_models, lineage.n_nodes, lineage.n_edges) == (12, 14, 12)
    assert lineage.is_scored.sum() == 12
    for node, node_id in enumerate(lineage.node_ids):
        assert lineage.index_of(node_id) == node
    assert len(lineage.dropped) == 0
    np.testing.assert_array_equal(lineage.node_ids[lineage.parent_index], lineage.edges["parent"])
    np.testing.assert_array_equal(lineage.node_ids[lineage.child_index], lineage.edges["child"])


@reproducible
@given(edges=edge_lists, split=st.booleans(), weight=st.floats(0, 5))
def test_laplacian_is_symmetric_positive_semidefinite_with_zero_row_sums(edges, split, weight):
    lineage = Lineage.from_edges(
        edges, NAMES[:6], relation_weights={"merge": weight}, split_merges=split
    )
    laplacian = lineage.laplacian.toarray()
    assert laplacian.dtype == np.float64
    np.testing.assert_array_equal(laplacian, laplacian.T)
    np.testing.assert_allclose(laplacian.sum(axis=1), 0, atol=1e-12)
    assert np.linalg.eigvalsh(laplacian).min() > -1e-10
    t = np.random.default_rng(0).normal(size=lineage.n_nodes)
    difference = t[lineage.parent_index] - t[lineage.child_index]
    energy = (lineage.edges["weight"] * difference**2).sum()
    assert t @ lineage.laplacian @ t == pytest.approx(energy)


@reproducible
@given(edges=edge_lists, n_models=st.integers(1, 12))
def test_any_edges_become_a_dag_and_every_edge_is_accounted_for(edges, n_models):
    lineage = Lineage.from_edges(edges, NAMES[:n_models])
    graph = lineage.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert not lineage.edges.duplicated(["parent", "child"]).any()
    columns = ["parent", "child", "relation"]
    accounted = pd.concat([lineage.edges[columns], lineage.dropped[columns]])
    assert sorted(accounted.itertuples(index=False, name=None)) == sorted(edges)
    for parent, child, _, reason in lineage.dropped.itertuples(index=False):
        if reason == "self-loop":
            assert parent == child
        elif reason == "duplicate":
            kept_or_cyclic = pd.concat([lineage.edges, lineage.dropped.query("reason == 'cycle'")])
            assert ((kept_or_cyclic["parent"] == parent) & (kept_or_cyclic["child"] == child)).any()
        else:
            assert reason == "cycle"
            assert nx.has_path(graph, child, parent)


@reproducible
@given(edges=edge_lists, seed=st.integers(0, 99))
def test_order_of_edges_and_models_changes_nothing(edges, seed):
    rng = np.random.default_rng(seed)
    lineage = Lineage.from_edges(edges, NAMES[:7])
    mixed_edges = [edges[place] for place in rng.permutation(len(edges))]
    mixed = Lineage.from_edges(mixed_edges, rng.permutation(NAMES[:7]).tolist())
    pd.testing.assert_frame_equal(mixed.edges, lineage.edges)
    pd.testing.assert_frame_equal(mixed.dropped, lineage.dropped)
    pd.testing.assert_frame_equal(as_dense(mixed), as_dense(lineage))
    assert by_id(mixed, mixed.depth) == by_id(lineage, lineage.depth)
    assert by_id(mixed, mixed.families) == by_id(lineage, lineage.families)


@reproducible
@given(edges=edge_lists, n_models=st.integers(1, 12))
def test_structure_agrees_with_networkx(edges, n_models):
    lineage = Lineage.from_edges(edges, NAMES[:n_models])
    graph = lineage.to_networkx()
    undirected = graph.to_undirected()
    components = list(nx.connected_components(undirected))
    assert lineage.n_families == len(components)
    ordered = sorted(components, key=lambda members: (-len(members), min(members)))
    for label, members in enumerate(ordered):
        assert set(lineage.node_ids[lineage.families == label]) == members
    depth = by_id(lineage, lineage.depth)
    for node_id in graph:
        above = nx.ancestors(graph, node_id)
        assert set(lineage.ancestors(node_id)) == above
        assert set(lineage.descendants(node_id)) == nx.descendants(graph, node_id)
        near = nx.single_source_shortest_path_length(graph.reverse(), node_id, cutoff=2)
        assert set(lineage.ancestors(node_id, hops=2)) == set(near) - {node_id}
        assert lineage.parents(node_id) == sorted(graph.predecessors(node_id))
        assert lineage.children(node_id) == sorted(graph.successors(node_id))
        longest = nx.dag_longest_path_length(graph.subgraph(above | {node_id}), weight=None)
        assert depth[node_id] == longest


@reproducible
@given(edges=edge_lists, mask=st.lists(st.booleans(), min_size=12, max_size=12))
def test_hops_agree_with_networkx(edges, mask):
    lineage = Lineage.from_edges(edges, NAMES, relation_weights={"merge": 0, "adapter": 7})
    sources = {name for name, chosen in zip(NAMES, mask, strict=True) if chosen}
    hops = by_id(lineage, lineage.hops_to(np.array(mask)))
    undirected = lineage.to_networkx().to_undirected()
    for name in NAMES:
        distance = nx.single_source_shortest_path_length(undirected, name)
        assert hops[name] == min((distance[s] for s in sources & set(distance)), default=-1)


def test_relatives_in_the_tiny_family():
    lineage = tiny_lineage()
    assert lineage.parents("user/alpha-merge") == ["lab/alpha-chat", "lab/alpha-code"]
    assert lineage.siblings("quant/alpha-chat-gptq") == ["user/alpha-chat-dpo", "user/alpha-merge"]
    assert lineage.siblings("base/alpha") == []
    assert lineage.ancestors("user/beta-merge-dpo", hops=1) == ["user/beta-merge"]
    assert lineage.ancestors("user/beta-merge-dpo") == [
        "user/beta-merge",
        "lab/beta-chat",
        "lab/beta-math",
        "base/beta",
    ]
    assert lineage.ancestors("user/beta-merge-dpo", hops=0) == []
    assert lineage.depth[lineage.index_of("user/beta-merge-dpo")] == 3
    assert np.bincount(lineage.families).tolist() == [7, 5, 1, 1]
    with pytest.raises(ValueError, match="hops must be at least 0"):
        lineage.ancestors("gpt2", hops=-1)


def test_an_unknown_id_names_the_way_out():
    for unknown in ("z", None, ["z"]):
        with pytest.raises(ValueError, match="is not a node of the lineage; add it as an unscored"):
            tiny_lineage().index_of(unknown)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/a", "org/a"),
        ("org/a@main", "org/a"),
        ("https://huggingface.co/org/a/tree/main", "org/a"),
        ("org/a@awq", "org/a@awq"),  # as imported models are called
        ("hf.co/org/b", "org/b"),
        ("./local", "./local"),
        ("hf.co/ORG/A", "org/a"),
        ("ORG/c", "ORG/c"),  # which of the two is unknown
        ("org/C", "org/C"),
    ],
)
def test_the_node_that_a_text_names(text, expected):
    lineage = Lineage.from_edges([], ["org/a", "org/a@awq", "org/c", "org/C"])
    assert lineage.id_of(text) == expected


def test_self_loops_duplicates_and_cycles_are_reported():
    edges = [
        ("a", "b", "merge"),
        ("a", "b", "finetune"),
        ("a", "b", "merge"),
        ("b", "a", "finetune"),
        ("c", "c", "adapter"),
        ("lost", "lost", "adapter"),
    ]
    lineage = Lineage.from_edges(edges, ["c", "b", "a"])
    assert lineage.edges["relation"].tolist() == ["finetune"]
    assert lineage.node_ids.tolist() == ["c", "b", "a"]
    assert lineage.dropped.to_dict("list") == {
        "parent": ["b", "a", "a", "c", "lost"],
        "child": ["a", "b", "b", "c", "lost"],
        "relation": ["finetune", "merge", "merge", "adapter", "adapter"],
        "reason": ["cycle", "duplicate", "duplicate", "self-loop", "self-loop"],
    }


def test_a_cycle_loses_only_the_edge_back_to_its_smallest_id():
    for order in itertools.permutations("abcd"):
        ring = [(first, second, "finetune") for first, second in ["ab", "bc", "cd", "da"]]
        lineage = Lineage.from_edges(ring, order)
        assert lineage.dropped[["parent", "child"]].to_numpy().tolist() == [["d", "a"]]
        assert lineage.depth[lineage.index_of("d")] == 3


def test_a_long_chain_and_a_long_cycle_need_no_recursion():
    names = [f"m{number:05d}" for number in range(20_000)]
    ring = zip(names, names[1:] + names[:1], ["finetune"] * 20_000, strict=True)
    lineage = Lineage.from_edges(ring, names)
    assert lineage.dropped["child"].tolist() == ["m00000"]
    assert lineage.depth.max() == 19_999
    assert lineage.hops_to(np.arange(20_000) == 0)[-1] == 19_999
    assert len(lineage.ancestors(names[-1])) == 19_999


def test_relation_weights_and_split_merges():
    lineage = tiny_lineage(relation_weights={"merge": 3, "adapter": 0}, split_merges=True)
    weight = lineage.edges.groupby("relation")["weight"].unique().to_dict()
    assert weight == {"finetune": [1], "merge": [1.5], "adapter": [0], "quantized": [1]}
    lora, code = lineage.index_of("user/alpha-lora"), lineage.index_of("lab/alpha-code")
    assert lineage.adjacency[lora, code] == 0
    assert lineage.families[lora] == lineage.families[code]
    assert (tiny_lineage().edges["weight"] == 1).all()


def test_splitting_counts_only_the_parents_that_are_kept():
    edges = [("a", "m", "merge"), ("b", "m", "merge"), ("m", "m", "merge"), ("a", "m", "merge")]
    lineage = Lineage.from_edges(edges, ["m"], split_merges=True)
    assert lineage.edges["weight"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"relation_weights": {"cousin": 1}}, "unknown relation 'cousin'"),
        ({"relation_weights": {"merge": -1}}, "weight of 'merge'"),
        ({"relation_weights": {"merge": np.nan}}, "weight of 'merge'"),
        ({"relation_weights": {"merge": np.inf}}, "weight of 'merge'"),
        ({"relation_weights": {"merge": "1"}}, "weight of 'merge'"),
        ({"relation_weights": {"merge": None}}, "weight of 'merge'"),
        ({"edges": [("a", "b", "cousin")]}, "unknown relation 'cousin' of 'b' to 'a'"),
        ({"edges": [("a", "b")]}, "is not a triple"),
        ({"edges": [("a", None, "merge")]}, "edge 0 has the child None"),
        ({"edges": [("a", np.nan, "merge")]}, "edge 0 has the child nan"),
        ({"edges": [("", "b", "merge")]}, "edge 0 has the parent ''"),
        ({"edges": pd.DataFrame({"parent": ["a"], "child": ["b"]})}, "lack column 'relation'"),
        ({"model_ids": ["a", "b", "a"]}, "repeats 'a'"),
        ({"model_ids": ["a", None]}, "must be texts, got"),
        ({"model_ids": [1, 2]}, "must be texts, got 1"),
        ({"model_ids": []}, "model_ids is empty"),
    ],
)
def test_bad_input_is_named(options, word):
    with pytest.raises(ValueError, match=word):
        Lineage.from_edges(**{"edges": EDGES, "model_ids": MODEL_IDS} | options)


def test_no_lineage_and_a_single_model_are_legal():
    empty = tiny_tables()["lineage"].iloc[:0]
    for edges in ([], empty, pd.DataFrame({"parent": [], "child": [], "relation": []})):
        lineage = Lineage.from_edges(edges, ["only"])
        assert (lineage.n_nodes, lineage.n_edges, lineage.n_families) == (1, 0, 1)
        assert lineage.laplacian.shape == (1, 1)
        assert lineage.depth.tolist() == [0]
        assert lineage.hops_to(np.array([False])).tolist() == [-1]
        assert lineage.shuffled(0).n_edges == 0
        assert lineage.drop_edges(0.5, seed=0).n_edges == 0


def test_shuffling_keeps_the_graph_and_moves_the_models():
    lineage = tiny_lineage()
    shuffled = lineage.shuffled(3)
    np.testing.assert_array_equal(shuffled.node_ids, lineage.node_ids)
    same = nx.vf2pp_is_isomorphic(
        shuffled.to_networkx(), lineage.to_networkx(), node_label="scored"
    )
    assert same
    assert not shuffled.edges.equals(lineage.edges)
    loners = [lineage.index_of("gpt2"), lineage.index_of("solo/gamma")]
    assert (np.diff(shuffled.adjacency.indptr)[loners] == 0).all()
    assert (np.diff(shuffled.adjacency.indptr)[:10] > 0).all()
    for unscored in UNSCORED:
        assert len(shuffled.children(unscored)) == len(lineage.children(unscored))
    pd.testing.assert_frame_equal(lineage.shuffled(3).edges, shuffled.edges)
    assert not lineage.shuffled(4).edges.equals(shuffled.edges)


def test_dropping_edges_keeps_the_nodes():
    lineage = tiny_lineage(split_merges=True)
    is_merge = (lineage.edges["relation"] == "merge").to_numpy()
    without = lineage.drop_edges(is_merge)
    assert "merge" not in set(without.edges["relation"])
    np.testing.assert_array_equal(without.node_ids, lineage.node_ids)
    one_left = lineage.drop_edges((lineage.edges["parent"] == "lab/alpha-chat").to_numpy())
    assert one_left.edges.query("child == 'user/alpha-merge'")["weight"].tolist() == [1]
    assert lineage.drop_edges(0.5, seed=0).n_edges == 6
    assert lineage.drop_edges(1, seed=0).n_edges == 0
    assert lineage.drop_edges(0.0, seed=0).edges.equals(lineage.edges)
    for bad, seed, word in [
        (1.5, 0, r"must be in \[0, 1\]"),
        (np.nan, 0, r"must be in \[0, 1\]"),
        (0.5, None, "needs a seed"),
        (is_merge[1:], None, "boolean array over the 12 edges"),
        (True, None, "boolean array over the 12 edges"),
        (np.arange(12), None, "boolean array over the 12 edges"),
    ]:
        with pytest.raises(ValueError, match=word):
            lineage.drop_edges(bad, seed=seed)


def test_masks_of_the_wrong_kind_are_refused():
    for mask in (np.ones(12, dtype=bool), np.ones(14), [True]):
        with pytest.raises(ValueError, match="boolean array over the 14 nodes"):
            tiny_lineage().hops_to(mask)


def test_a_lineage_survives_pickling():
    lineage = tiny_lineage(relation_weights={"merge": 2})
    again = pickle.loads(pickle.dumps(lineage))
    pd.testing.assert_frame_equal(as_dense(again), as_dense(lineage))
    assert again.index_of("gpt2") == 11


def test_networkx_export_carries_relations():
    graph = tiny_lineage().to_networkx()
    assert graph.edges["lab/alpha-code", "user/alpha-lora"] == {"relation": "adapter", "weight": 1}
    assert [node for node, scored in graph.nodes(data="scored") if not scored] == list(UNSCORED)


@pytest.mark.slow
def test_a_hundred_thousand_models_build():
    rng = np.random.default_rng(0)
    n_models, n_edges = 100_000, 120_000
    names = np.array([f"org/{number}" for number in range(n_models)], dtype=object)
    child = rng.integers(0, n_models, n_edges)
    parent = rng.integers(0, n_models, n_edges)
    edges = pd.DataFrame({"parent": names[parent], "child": names[child], "relation": "finetune"})
    lineage = Lineage.from_edges(edges, names)
    assert lineage.n_edges + len(lineage.dropped) == n_edges
    assert (lineage.depth[lineage.child_index] > lineage.depth[lineage.parent_index]).all()


@pytest.mark.parametrize(
    ("name", "n_models", "largest"), [("openllm-v1-items", 4318, 252), ("openllm-v2", 2198, 330)]
)
def test_real_lineages(real_data, name, n_models, largest):
    snapshot = load_snapshot(real_data / name)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    assert lineage.n_models == n_models
    assert lineage.n_edges + len(lineage.dropped) == snapshot.n_edges
    assert (lineage.families == 0).sum() == largest


def test_rewiring_keeps_the_degrees_by_relation():
    edges = [(f"p{n % 7}", f"m{n}", "merge" if n % 3 else "finetune") for n in range(60)]
    lineage = Lineage.from_edges(edges, [f"m{n}" for n in range(60)])
    rewired = lineage.rewired(3)
    assert list(rewired.node_ids) == list(lineage.node_ids)
    for end in ("parent", "child"):
        before = lineage.edges.groupby(["relation", end]).size()
        pd.testing.assert_series_equal(rewired.edges.groupby(["relation", end]).size(), before)
    assert not rewired.edges.equals(lineage.edges)
    assert rewired.edges.equals(lineage.rewired(3).edges)


def test_rewiring_makes_no_cycles():
    chain = [f"m{number}" for number in range(40)]
    lineage = Lineage.from_edges([(a, b, "finetune") for a, b in pairwise(chain)], chain)
    rewired = lineage.rewired(0)
    assert 0 < rewired.n_edges < lineage.n_edges
    assert nx.is_directed_acyclic_graph(rewired.to_networkx())
