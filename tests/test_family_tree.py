"""Which members of a family are drawn, and where."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot

from lrmf import Lineage
from lrmf.report.family_tree import family_picture
from lrmf.simulation.simulate import simulate


@pytest.fixture(scope="module")
def lineage():
    snapshot = simulate(n_models=600, n_items=6, seed=2)
    return Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


def picture(lineage, **options):
    return family_picture(lineage, np.arange(lineage.n_models), **options)


def test_a_small_family_is_drawn_whole():
    snapshot = tiny_snapshot()
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    nodes, edges = picture(lineage)
    assert set(nodes["node_id"]) == {*snapshot.models["model_id"][:6], "base/alpha"}
    assert len(edges) == 7
    assert (nodes["n_hidden"] == 0).all() and (nodes["n_family"] == 7).all()
    places = nodes.set_index("node_id")
    assert places.loc["base/alpha", "x"] == 0 and not places.loc["base/alpha", "scored"]
    assert np.isnan(places.loc["base/alpha", "value"])
    assert places.loc["user/alpha-merge", "x"] == 2
    assert places.loc["user/alpha-merge", "value"] == 3
    assert places.loc["user/alpha-merge", "label"] == "alpha-merge"


@pytest.mark.parametrize("max_nodes", [1, 2, 10, 40])
def test_a_large_family_is_pruned_to_a_connected_part(lineage, max_nodes):
    nodes, edges = picture(lineage, max_nodes=max_nodes)
    assert len(nodes) == max_nodes
    graph = nx.from_pandas_edgelist(edges, "parent", "child")
    graph.add_nodes_from(nodes["node_id"])
    assert nx.is_connected(graph)
    shown = dict(graph.degree)
    n_shown = nodes["node_id"].map(shown)
    assert (nodes["n_relatives"] - n_shown == nodes["n_hidden"]).all()


def test_all_edges_between_members_shown_are_drawn(lineage):
    nodes, edges = picture(lineage, max_nodes=40)
    shown = set(nodes["node_id"])
    inside = lineage.edges["parent"].isin(shown) & lineage.edges["child"].isin(shown)
    expected = lineage.edges.loc[inside, ["parent", "child", "relation"]]
    pd.testing.assert_frame_equal(edges, expected.reset_index(drop=True))


def test_children_stand_to_the_right_and_nobody_on_another(lineage):
    for family in range(5):
        nodes, edges = picture(lineage, family=family)
        places = nodes.set_index("node_id")
        rightwards = edges["child"].map(places["x"]) - edges["parent"].map(places["x"])
        assert (rightwards >= 1).all()
        assert nodes["x"].min() == 0
        for _, generation in nodes.groupby("x"):
            assert (np.diff(np.sort(generation["y"])) >= 1 - 1e-9).all()


def test_every_relation_of_the_backbones_children_gets_a_place():
    relations = ["finetune"] * 40 + ["merge"] * 10 + ["adapter", "quantized"]
    edges = [("hub", f"child{number:02d}", name) for number, name in enumerate(relations)]
    lineage = Lineage.from_edges(edges, ["hub", *(child for _, child, _ in edges)])
    _, drawn = picture(lineage, max_nodes=12)
    assert set(drawn["relation"]) == {"finetune", "merge", "adapter", "quantized"}


def test_the_picture_does_not_depend_on_the_order_of_edges():
    snapshot = tiny_snapshot()
    shuffled = snapshot.lineage.sample(frac=1, random_state=0)
    ids = snapshot.models["model_id"]
    one, other = (Lineage.from_edges(edges, ids) for edges in (snapshot.lineage, shuffled))
    for frame, again in zip(picture(one), picture(other), strict=True):
        pd.testing.assert_frame_equal(frame, again)


def test_a_model_without_relatives_is_a_picture_of_one():
    nodes, edges = picture(Lineage.from_edges([], ["a", "b"]))
    assert nodes["node_id"].tolist() == ["a"] and edges.empty
