"""What cards, names and family tree say of models: inheritance, doubt, the tree's covariance."""

import numpy as np
import pandas as pd
import pytest
from builders import tiny_lineage, tiny_snapshot
from draws import random_lineage
from scipy import sparse

from lrmf import Lineage
from lrmf.data.descriptions import NODE_VARIANCES, Describer

LLAMA, MISTRAL = "LlamaForCausalLM", "MistralForCausalLM"
# Two models of 8 B and 70 B, whose descendants say little; "base/z" is evaluated by nobody.
CARDS = {
    "lab/small": (8.0, LLAMA),
    "lab/large": (70.0, MISTRAL),
    "me/ft": (None, None),
    "me/merge": (None, None),
    "me/merge-of-unscored": (None, None),
    "kid/one": (3.0, LLAMA),
    "kid/two": (3.0, LLAMA),
    "solo/alone": (None, None),
}
EDGES = [
    ("lab/small", "me/ft", "finetune"),
    ("lab/small", "me/merge", "merge"),
    ("lab/large", "me/merge", "merge"),
    ("lab/large", "base/mid", "finetune"),
    ("base/mid", "base/low", "quantized"),
    ("base/low", "me/merge-of-unscored", "merge"),
    ("base/z", "kid/one", "finetune"),
    ("base/z", "kid/two", "finetune"),
]


def table(cards=CARDS):
    rows = [(name, *card) for name, card in cards.items()]
    return pd.DataFrame(rows, columns=["model_id", "params_b", "architecture"])


def described(cards=CARDS, edges=EDGES, **options):
    lineage = Lineage.from_edges(edges, list(cards))
    return Describer(table(cards), lineage, np.ones(len(cards), bool), **options)


def one(describer, name):
    """The description of one node, as if it were alone."""
    return describer.nodes[np.array([describer.ids.index(name)])]


def size(described):
    return float(np.exp(described.size[0]))


def architecture(describer, described):
    """The most likely level, None if it is open."""
    probabilities = described.levels["architecture"][0]
    assert probabilities.sum() == pytest.approx(1)
    if described.open["architecture"][0]:
        return None
    return describer.levels["architecture"][probabilities.argmax()]


class TestInheritance:
    def test_a_model_takes_what_its_parent_has(self):
        describer = described()
        child = one(describer, "me/ft")
        assert size(child) == pytest.approx(8) and architecture(describer, child) == LLAMA
        assert not child.open["size"][0]

    def test_a_merge_takes_the_mean_of_its_parents(self):
        describer = described()
        merge = one(describer, "me/merge")
        assert merge.size[0] == pytest.approx(np.log([8, 70]).mean(), rel=1e-5)
        np.testing.assert_allclose(merge.levels["architecture"][0], 0.5)

    def test_ancestors_that_nobody_has_evaluated_pass_it_on(self):
        describer = described()
        for name in ("base/mid", "base/low", "me/merge-of-unscored"):
            node = one(describer, name)
            assert size(node) == pytest.approx(70, rel=1e-5)
            assert architecture(describer, node) == MISTRAL

    def test_an_ancestor_without_a_card_takes_what_its_children_have(self):
        describer = described()
        root = one(describer, "base/z")
        assert size(root) == pytest.approx(3) and architecture(describer, root) == LLAMA
        # So does a new child, of which nothing else is said.
        new = pd.DataFrame({"model_id": ["kid/three"]})
        found, notes = describer.describe(new, [("base/z", "kid/three", "finetune")])
        assert size(found) == pytest.approx(3) and architecture(describer, found) == LLAMA
        assert notes == []

    def test_what_neither_card_nor_relatives_tell_stays_open(self):
        alone = one(described(), "solo/alone")
        assert np.isnan(alone.size[0]) and alone.open["size"][0] and alone.open["architecture"][0]
        # A distribution over what the evaluated models have: 3 of 4 are of this architecture.
        np.testing.assert_allclose(alone.levels["architecture"][0], [0.75, 0.25])

    def test_own_cards_come_first(self):
        describer = described(CARDS | {"me/ft": (7.0, MISTRAL)})
        child = one(describer, "me/ft")
        assert size(child) == pytest.approx(7) and architecture(describer, child) == MISTRAL

    def test_types_and_dates_are_nobody_else_s(self):
        dates = ["2024-02-01", "2024-03-01", *[None] * 6]
        types = ["chat", "pretrained", *[None] * 6]
        models = table().assign(created_at=dates, type=types)
        lineage = Lineage.from_edges(EDGES, models["model_id"])
        describer = Describer(models, lineage, np.ones(len(models), bool))
        child = one(describer, "me/ft")
        assert np.isnan(child.date[0]) and child.open["type"][0]


class TestDoubt:
    @pytest.mark.parametrize("wrong", [0.008, 8 / 6.1, 8 * 6, 8000, 8e9])
    def test_a_size_far_from_the_parents_is_unknown_and_a_note_says_why(self, wrong):
        describer = described()
        card = pd.DataFrame({"model_id": ["me/new"], "params_b": [wrong]})
        found, notes = describer.describe(card, [("lab/small", "me/new", "finetune")])
        assert size(found) == pytest.approx(8)
        assert len(notes) == 1 and "me/new" in notes[0]
        is_possible = 0.3 < wrong < 700  # without these parents
        why = "of these parents (credible: 2 B to 32 B)" if is_possible else "every size of the fit"
        assert why in notes[0]

    @pytest.mark.parametrize("right", [8.03, 4.5, 16])
    def test_a_size_of_the_parents_order_is_believed(self, right):
        card = pd.DataFrame({"model_id": ["me/new"], "params_b": [right]})
        found, notes = described().describe(card, [("lab/small", "me/new", "quantized")])
        assert size(found) == pytest.approx(right) and notes == []

    def test_a_merge_may_be_as_large_as_all_its_parents(self):
        edges = [(parent, "me/new", "merge") for parent in ("lab/small", "lab/large")]
        for own, is_believed in ((78.0, True), (1.0, False)):
            card = pd.DataFrame({"model_id": ["me/new"], "params_b": [own]})
            found, notes = described().describe(card, edges)
            assert (size(found) == pytest.approx(own)) == is_believed == (notes == [])

    def test_a_level_that_no_evaluated_model_has_is_noted_once(self):
        card = pd.DataFrame({"model_id": ["me/new", "me/newer"], "architecture": ["Foo", "Foo"]})
        found, (note,) = described().describe(card, [])
        assert "architecture Foo" in note and "unlike" in note
        assert not found.levels["architecture"].any()
        for known in ({"architecture": LLAMA}, {"architecture": None}, {"type": "odd"}):
            card = pd.DataFrame({"model_id": ["me/new"]}).assign(**known)
            assert described().describe(card, [])[1] == []

    def test_a_size_against_the_name_is_unknown_where_there_are_no_parents(self):
        card = pd.DataFrame({"model_id": ["me/new-70b", "me/other-8b"], "params_b": [0.07, 8.0]})
        found, notes = described().describe(card, [])
        np.testing.assert_allclose(np.exp(found.size), [70, 8], rtol=1e-4)
        (note,) = notes
        assert note.startswith("me/new-70b: a size of 0.07 B contradicts the 70 B of the name")

    def test_without_parents_and_name_a_size_beyond_all_others_is_unknown(self):
        card = pd.DataFrame({"model_id": ["me/new", "me/fine"], "params_b": [4e9, 100.0]})
        found, notes = described().describe(card, [])
        assert np.isnan(found.size[0]) and found.open["size"][0]
        assert len(notes) == 1 and "far from every size of the fit" in notes[0]
        assert np.exp(found.size[1]) == pytest.approx(100)

    @pytest.mark.parametrize("nonsense", [0.0, -7.0, np.nan, np.inf])
    def test_no_size_at_all(self, nonsense):
        card = pd.DataFrame({"model_id": ["me/new"], "params_b": [nonsense]})
        found, _ = described().describe(card, [("lab/small", "me/new", "finetune")])
        assert size(found) == pytest.approx(8)

    def test_doubt_reaches_models_of_the_population(self):
        describer = described(CARDS | {"me/ft": (0.008, LLAMA)})
        assert size(one(describer, "me/ft")) == pytest.approx(8)


def test_levels_that_no_evaluated_model_has_are_like_no_other():
    describer = described()
    card = pd.DataFrame({"model_id": ["me/new"], "architecture": ["MambaForCausalLM"]})
    found, _ = describer.describe(card, [])
    assert not found.levels["architecture"].any() and not found.open["architecture"][0]
    assert np.isnan(found.size[0])


def test_a_new_organization_is_shared_with_nobody():
    describer = described()
    names = pd.DataFrame({"model_id": ["new/a", "lab/b", "nameless"]})
    found, _ = describer.describe(names, [])
    assert found.organization[0] < 0 and found.organization[2] < 0
    assert found.organization[1] == one(describer, "lab/small").organization[0]


def by_hand(ids, edges):
    """(I - S)^-1 C (I - S)^-T, S the mean over the parents and C the variances of the changes."""
    at = {name: row for row, name in enumerate(ids)}
    step, node_variances = np.zeros((len(ids), len(ids))), {}
    for parent, child, relation in edges:
        step[at[child], at[parent]] += 1
        node_variances.setdefault(child, []).append(NODE_VARIANCES[relation])
    step /= np.maximum(step.sum(axis=1, keepdims=True), 1)
    change = np.diag([np.mean(node_variances.get(name, [1.0])) for name in ids])
    inverse = np.linalg.inv(np.eye(len(ids)) - step)
    return inverse @ change @ inverse.T


def of_tree(described, change):
    ancestry = described.ancestry.toarray()
    return ancestry * change @ ancestry.T


class TestTree:
    @pytest.mark.parametrize("seed", range(3))
    def test_covariance_is_that_of_means_of_parents_and_own_changes(self, seed):
        lineage = random_lineage(40, seed=seed, n_unscored=4, n_loops=8)
        evaluated = np.random.default_rng(seed).random(40) < 0.7
        describer = Describer(None, lineage, evaluated)
        edges = lineage.edges[["parent", "child", "relation"]].to_numpy()
        expected = by_hand(describer.ids, edges)
        nodes = describer.nodes
        np.testing.assert_allclose(of_tree(nodes, describer.change), expected, atol=1e-6)
        np.testing.assert_allclose(nodes.variance, np.diag(expected), atol=1e-6)

    def test_a_long_chain_of_ancestors_adds_up_all_their_changes(self):
        names = [f"base/{number}" for number in range(300)] + ["lab/a"]
        edges = [(*pair, "finetune") for pair in zip(names, names[1:], strict=False)]
        edges.append(("base/0", "lab/a", "merge"))
        lineage = Lineage.from_edges(edges, ["lab/a"])
        describer = Describer(None, lineage, np.ones(1, bool))
        expected = by_hand(describer.ids, edges)
        np.testing.assert_allclose(of_tree(describer.nodes, describer.change), expected, rtol=1e-12)

    def test_new_models_are_described_as_if_they_were_nodes(self):
        """A grandchild and its parent, of which no one has heard, and a merge of old and new."""
        new = [
            ("me/merge", "new/parent", "finetune"),
            ("new/parent", "new/child", "quantized"),
            ("new/parent", "new/merge", "merge"),
            ("base/low", "new/merge", "merge"),
            ("new/ghost", "new/orphan", "finetune"),
        ]
        names = ["new/child", "new/merge", "new/orphan"]
        old = described()
        cards = pd.DataFrame({"model_id": names, "params_b": [30.0, None, None]})
        found, notes = old.describe(cards, new)
        assert notes == []
        ids = [*CARDS, *names]
        lineage = Lineage.from_edges([*EDGES, *new], ids)
        models = pd.concat([table(), cards], ignore_index=True)
        whole = Describer(models, lineage, np.arange(len(ids)) < len(CARDS))
        rows = np.array([whole.ids.index(name) for name in names])
        expected = whole.nodes[rows]
        for name in ("size", "date", "variance"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
        for name in ("grams", "tokens", "parents"):
            np.testing.assert_allclose(
                getattr(found, name).toarray(), getattr(expected, name).toarray(), atol=1e-6
            )
        np.testing.assert_array_equal(found.organization < 0, expected.organization < 0)
        for field, levels in found.levels.items():
            np.testing.assert_allclose(levels, expected.levels[field], atol=1e-6)
            np.testing.assert_array_equal(found.open[field], expected.open[field])
        # Covariances with the evaluated models, whatever the order of the nodes.
        evaluated = np.arange(len(CARDS))
        cross = [
            ((a.ancestry * change) @ b.ancestry.T).toarray()
            for a, b, change in (
                (found, old.nodes[evaluated], old.change[: len(old.ids)]),
                (expected, whole.nodes[evaluated], whole.change),
            )
        ]
        np.testing.assert_allclose(*cross, atol=1e-6)

    def test_parents_are_the_evaluated_ones_with_equal_weights(self):
        describer = described()
        parents = one(describer, "me/merge").parents.toarray()[0]
        chosen = [describer.ids[place] for place in np.flatnonzero(parents)]
        assert set(chosen) == {"lab/small", "lab/large"}
        np.testing.assert_allclose(parents[parents > 0], 0.5)
        assert not one(describer, "me/merge-of-unscored").parents.nnz

    def test_unknown_parents_are_no_evaluated_relatives(self):
        found, _ = described().describe(
            pd.DataFrame({"model_id": ["new/a"]}), [("who/knows", "new/a", "finetune")]
        )
        assert not found.parents.nnz
        assert not (found.ancestry != 0).sum() and np.isnan(found.size[0])


def test_order_of_models_does_not_matter():
    data, lineage = tiny_snapshot(), tiny_lineage()
    order = np.random.default_rng(0).permutation(len(data.models))
    models = data.models.iloc[order].reset_index(drop=True)
    other = Lineage.from_edges(data.lineage, models["model_id"])
    everything = np.ones(len(models), bool)
    one, two = Describer(data.models, lineage, everything), Describer(models, other, everything)
    rows = np.array([two.ids.index(name) for name in one.ids])
    np.testing.assert_allclose(two.nodes.size[rows], one.nodes.size, rtol=1e-6)
    np.testing.assert_allclose(
        of_tree(two.nodes[rows], two.change), of_tree(one.nodes, one.change), atol=1e-6
    )


def test_without_names_the_size_in_a_name_is_not_read():
    cards = CARDS | {"solo/alone-13b": (None, None), "solo/tiny-7b": (0.01, None)}
    assert size(one(described(cards), "solo/alone-13b")) == pytest.approx(13)
    assert size(one(described(cards), "solo/tiny-7b")) == pytest.approx(7)
    nameless = described(cards, use_names=False)
    assert np.isnan(one(nameless, "solo/alone-13b").size[0])
    assert size(one(nameless, "solo/tiny-7b")) == pytest.approx(0.01, rel=1e-3)


def test_without_names_nothing_is_read_from_them():
    describer = described(use_names=False)
    assert not describer.nodes.grams.nnz and not describer.nodes.tokens.nnz
    assert (describer.nodes.organization < 0).all()


def test_rows_can_be_taken_and_tables_replaced():
    nodes = described().nodes
    part = nodes[np.array([1, 0])]
    assert len(part) == 2 and sparse.issparse(part.grams)
    np.testing.assert_array_equal(part.size, nodes.size[[1, 0]])
    replaced = part.replace({"size": np.array([[1.0], [2.0]])})
    np.testing.assert_array_equal(replaced.size, [1, 2])
    np.testing.assert_array_equal(replaced.date, part.date)
    np.testing.assert_array_equal(part.size, nodes.size[[1, 0]])  # the other is as it was


def test_sizes_are_not_doubted_where_no_evaluated_model_tells_its_own():
    describer = described({name: (None, card[1]) for name, card in CARDS.items()})
    new = pd.DataFrame({"model_id": ["somebody/else"], "params_b": [7.0]})
    found, notes = describer.describe(new, [])
    assert notes == []
    assert np.isclose(np.exp(found.size[0]), 7.0)
