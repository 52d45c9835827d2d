"""How alike relatives are: small lineages whose answers are known, and invariances."""

import numpy as np
import pandas as pd
import pytest
from builders import simulated_scores, tiny_lineage, tiny_snapshot

from lrmf import LRMF, Lineage
from lrmf.analysis import relatedness
from lrmf.data.responses import benchmark_scores


def test_averages_are_comparable_across_benchmarks():
    scores = pd.DataFrame({"easy": [0.8, 0.9, np.nan], "hard": [np.nan, 0.1, 0.3]})
    np.testing.assert_allclose(relatedness.average_scores(scores), [-1, 0, 1], atol=1e-12)
    flat = pd.DataFrame({"easy": [0.5, 0.5], "hard": [0.1, 0.3]})
    np.testing.assert_allclose(relatedness.average_scores(flat), [-1, 1])


def test_counts_add_up():
    lineage, _ = simulated_scores()
    counts = relatedness.lineage_counts(lineage).set_index("quantity")
    total = (counts["value"] * counts["count"]).groupby("quantity").sum()
    n_linked = len({*lineage.edges["parent"], *lineage.edges["child"]})
    assert total["members of a family"] == n_linked
    assert total["children of a parent"] == lineage.n_edges
    assert total["parents of a merge"] == (lineage.edges["relation"] == "merge").sum()
    assert relatedness.lineage_counts(Lineage.from_edges([], ["a", "b"])).empty


def test_family_table_of_the_tiny_snapshot():
    snapshot = tiny_snapshot()
    lineage = tiny_lineage()
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    average = relatedness.average_scores(scores)
    table = relatedness.family_table(lineage, average)
    assert table["n_nodes"].tolist() == [7, 5]
    assert table["n_models"].tolist() == [6, 4]
    assert table["best_connected"].tolist() == ["lab/alpha-chat", "user/beta-merge"]
    assert table["mean"][0] == pytest.approx(average[:6].mean())


def test_pairs_take_the_mean_of_scored_parents():
    edges = [("a", "m", "merge"), ("b", "m", "merge"), ("unknown", "m", "merge")]
    lineage = Lineage.from_edges([*edges, ("a", "c", "finetune")], ["a", "b", "c", "m"])
    scores = pd.DataFrame({"x": [0.2, 0.4, np.nan, 0.5], "y": [0.1, np.nan, 0.3, np.nan]})
    pairs = relatedness.parent_child_pairs(lineage, scores).set_index(["benchmark", "child"])
    assert pairs.loc[("x", "m"), "n_parents"] == 2
    assert pairs.loc[("x", "m"), "parent_score"] == pytest.approx(0.3)
    assert pairs.loc[("x", "m"), "child_score"] == 0.5
    assert set(pairs.index) == {("x", "m"), ("y", "c"), ("average", "m"), ("average", "c")}
    standard = (0.5 - scores["x"].mean()) / scores["x"].std(ddof=0)
    assert pairs.loc[("average", "m"), "child_score"] == pytest.approx(standard)


def test_correlations_are_those_of_numpy():
    lineage, scores = simulated_scores()
    pairs = relatedness.parent_child_pairs(lineage, scores)
    table = relatedness.parent_child_correlations(pairs, seed=0, n_resamples=200)
    for row in table.itertuples():
        group = pairs[pairs["benchmark"] == row.benchmark]
        if row.relation != "any":
            group = group[group["relation"] == row.relation]
        assert row.n == len(group)
        assert row.r == pytest.approx(
            np.corrcoef(group["parent_score"], group["child_score"])[0, 1]
        )
    known = table.dropna()
    assert ((known["lower"] <= known["r"]) & (known["r"] <= known["upper"])).mean() > 0.9
    pd.testing.assert_frame_equal(
        table, relatedness.parent_child_correlations(pairs, seed=0, n_resamples=200)
    )


def test_no_pairs_no_correlations():
    lineage = Lineage.from_edges([], ["a", "b"])
    scores = pd.DataFrame({"x": [0.2, 0.4]})
    pairs = relatedness.parent_child_pairs(lineage, scores)
    assert pairs.empty
    assert relatedness.parent_child_correlations(pairs, seed=0).empty


def test_coordinates_keep_the_differences_of_predictions():
    rng = np.random.default_rng(0)
    states, loadings = rng.normal(size=(20, 3)), rng.normal(size=(40, 3)) * [3, 1, 0.2] + 0.5
    rows = np.arange(5, 20)
    coordinates, shares = relatedness.principal_coordinates(states, loadings, rows)
    predictions = states @ loadings.T
    for one, other in [(0, 1), (7, 19), (3, 12)]:
        expected = np.sqrt(np.mean((predictions[one] - predictions[other]) ** 2))
        assert np.linalg.norm(coordinates[one] - coordinates[other]) == pytest.approx(expected)
    np.testing.assert_allclose(coordinates[rows].mean(axis=0), 0, atol=1e-12)
    assert shares.sum() == pytest.approx(1) and (np.diff(shares) <= 0).all()
    assert np.corrcoef(coordinates[rows, 0], predictions[rows].mean(axis=1))[0, 1] > 0


def test_coordinates_do_not_depend_on_the_rotation_of_the_factors():
    rng = np.random.default_rng(0)
    states, loadings = rng.normal(size=(20, 3)), rng.normal(size=(40, 3))
    mixing = rng.normal(size=(3, 3))
    expected, _ = relatedness.principal_coordinates(states, loadings, np.arange(20))
    rotated = relatedness.principal_coordinates(
        states @ mixing, loadings @ np.linalg.inv(mixing).T, np.arange(20)
    )
    np.testing.assert_allclose(rotated[0], expected, atol=1e-9)


def test_distances_by_kind_of_pair():
    lineage = Lineage.from_edges(
        [("p", "a", "finetune"), ("p", "b", "merge"), ("q", "b", "merge")], list("pqabz")
    )
    coordinates = np.array([[0.0], [10.0], [1.0], [4.0], [100.0]])
    distances = relatedness.pair_distances(lineage, coordinates, np.arange(5), seed=0, n_pairs=500)
    found = distances.groupby("kind")["distance"].agg(lambda values: sorted(set(values)))
    assert found["finetune"] == [1]
    assert found["merge"] == [4, 6]
    assert found["siblings"] == [3]
    assert found["same family"] == [1, 3, 4, 6, 9, 10]
    assert max(found["random"]) == 100 and min(found["random"]) > 0
    without_b = relatedness.pair_distances(lineage, coordinates, np.array([0, 1, 2, 4]), seed=0)
    assert "siblings" not in set(without_b["kind"])


def test_distances_without_lineage_are_those_of_random_pairs():
    lineage = Lineage.from_edges([], list("abc"))
    distances = relatedness.pair_distances(lineage, np.eye(3), np.arange(3), seed=0, n_pairs=10)
    assert set(distances["kind"]) == {"random"}


def test_example_has_a_parent_with_the_same_benchmarks():
    edges = [("a", "b", "finetune"), ("a", "c", "finetune"), ("x", "d", "finetune")]
    lineage = Lineage.from_edges(edges, list("abcd"))
    scores = pd.DataFrame({"x": [0.1, 0.2, 0.3, 0.4], "y": [np.nan, 0.2, np.nan, 0.4]})
    assert relatedness.example_model(lineage, scores) == "c"
    assert relatedness.example_model(Lineage.from_edges([], list("abcd")), scores) is None


def test_example_forecast_tells_forecast_actual_and_parents_apart():
    snapshot = tiny_snapshot()
    lineage = tiny_lineage()
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    example = relatedness.example_model(lineage, scores)
    row = lineage.index_of(example)
    responses = snapshot.responses.copy()
    responses[row] = 255
    model = LRMF(rank=2).fit(responses, lineage, items=snapshot.items)
    table = relatedness.example_forecast(model, lineage, scores, example)
    assert set(table["kind"]) == {"forecast", "actual", "parent", "benchmark mean"}
    forecast = table[table["kind"] == "forecast"].set_index("benchmark")
    assert (forecast["lower"] <= forecast["score"]).all()
    assert (forecast["score"] <= forecast["upper"]).all()
    actual = table[table["kind"] == "actual"].set_index("benchmark")["score"]
    np.testing.assert_allclose(actual, scores.loc[row, actual.index])
