"""Averages, plain factorizations, nearest neighbours and NCF; the contract of all predictors."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import missing, tiny_snapshot
from predictor_contract import PredictorContract
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from lrmf.baselines.averages import ItemMean, LineageMean, harmonic_extension
from lrmf.baselines.factorization import MatrixFactorization, MFWithFeatures
from lrmf.baselines.knn import KNN
from lrmf.baselines.ncf import NCF
from lrmf.baselines.registry import all_baselines
from lrmf.baselines.tuned import Tuned
from lrmf.data.lineage import Lineage
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.data.responses import MISSING, benchmark_scores, observed, without
from lrmf.data.statistics import item_means
from lrmf.solver.factorization import LRMF
from lrmf.solver.prior import LineagePrior

both_kinds = pytest.mark.parametrize("binary", [True, False], ids=["answers", "proportions"])


def tiny(binary=True):
    snapshot = tiny_snapshot(binary=binary)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


def fit(predictor, snapshot, lineage, responses=None):
    responses = snapshot.responses if responses is None else responses
    predictor = clone(predictor)
    return predictor.fit(responses, lineage, items=snapshot.items, models=snapshot.models)


def in_proportions(snapshot, lineage):
    """The same models with one column of proportions a benchmark."""
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    n_trials = snapshot.items.groupby("benchmark")["n_trials"].sum()
    items = pd.DataFrame({"item_id": scores.columns, "benchmark": scores.columns})
    items["n_trials"] = n_trials[scores.columns].to_numpy()
    responses = scores.to_numpy(dtype=np.float32)
    return replace(snapshot, items=items, responses=responses), lineage


class TestItemMean(PredictorContract):
    estimator = ItemMean()


class TestMeanOfNeighbours(PredictorContract):
    estimator = LineageMean()


class TestHarmonicMean(PredictorContract):
    estimator = LineageMean(hops=None)


class TestMatrixFactorization(PredictorContract):
    estimator = MatrixFactorization(rank=2)


class TestMFWithFeatures(PredictorContract):
    estimator = MFWithFeatures(rank=2)


class TestKNN(PredictorContract):
    estimator = KNN(n_neighbors=3)


class TestNCF(PredictorContract):
    estimator = NCF(rank=2, hidden=(8, 4), n_cells=2000, n_epochs=2)
    permutation_tolerance = None


@both_kinds
def test_grids_of_the_registry_hold_parameters_of_their_predictors(binary):
    for name, predictor in all_baselines(ANSWERS if binary else PROPORTIONS).items():
        if isinstance(predictor, Tuned):
            known = predictor.estimator.get_params()
            candidates = list(ParameterGrid(predictor.grid))
            assert len(candidates) > 1, name
            assert all(set(candidate) <= set(known) for candidate in candidates), name


@both_kinds
@pytest.mark.parametrize("tuned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_baseline_of_the_registry_forecasts(binary, tuned):
    snapshot, lineage = tiny(binary)
    train = without(snapshot.responses, [3, 10])
    predictors = all_baselines(
        ANSWERS if binary else PROPORTIONS, rank=2, ncf_cells=500, tuned=tuned
    )
    for name, predictor in predictors.items():
        forecast = fit(predictor, snapshot, lineage, train).predict_proba([3, 10])
        assert forecast.shape == (2, train.shape[1]), name
        assert ((forecast >= 0) & (forecast <= 1)).all(), name


@both_kinds
def test_item_means_are_weighed_with_the_benchmark_mean(binary):
    snapshot, _ = tiny(binary)
    responses = snapshot.responses.copy()
    responses[:, 1] = missing(responses)
    benchmarks = snapshot.items["benchmark"].to_numpy()
    means = item_means(responses, snapshot.items, smoothing=2.0)
    for item in (0, 1, 5):
        same = responses[:, benchmarks == benchmarks[item]].astype(float)
        benchmark_mean = same[observed(responses[:, benchmarks == benchmarks[item]])].mean()
        own = responses[observed(responses[:, item]), item].astype(float)
        expected = (own.sum() + 2 * benchmark_mean) / (len(own) + 2)
        assert means[item] == pytest.approx(expected, rel=1e-5)
    assert item_means(np.full((3, 2), MISSING, np.uint8)) == pytest.approx([0.5, 0.5])


def test_one_hop_mean_by_hand():
    snapshot, lineage = tiny()
    child = lineage.index_of("user/alpha-merge")
    parents = [lineage.index_of("lab/alpha-chat"), lineage.index_of("lab/alpha-code")]
    train = without(snapshot.responses, [child])
    train[parents[0], 0], train[parents[1], 0] = 1, 0
    train[parents[0], 1], train[parents[1], 1] = 1, MISSING
    train[parents[0], 2], train[parents[1], 2] = MISSING, MISSING
    raw = fit(LineageMean(shrinkage=0), snapshot, lineage, train).predict_proba([child])[0]
    means = item_means(train, snapshot.items)
    assert raw[:3] == pytest.approx([0.5, 1.0, means[2]])
    shrunk = fit(LineageMean(shrinkage=1.0), snapshot, lineage, train).predict_proba([child])[0]
    expected = [means[0] + (1 - 2 * means[0]) / 3, means[1] + (1 - means[1]) / 2, means[2]]
    assert shrunk[:3] == pytest.approx(expected, abs=1e-6)


@both_kinds
@pytest.mark.parametrize("hops", [1, None])
def test_without_a_scored_relative_a_cold_model_gets_the_item_means(hops, binary):
    snapshot, lineage = tiny(binary)
    loner = lineage.index_of("solo/gamma")
    family = np.flatnonzero(lineage.families[:12] == lineage.families[0])
    train = without(snapshot.responses, [loner, *family])
    forecast = fit(LineageMean(hops=hops), snapshot, lineage, train).predict_proba([loner, 0])
    means = item_means(train, snapshot.items)
    np.testing.assert_allclose(forecast, np.tile(means, (2, 1)), atol=1e-6)


@pytest.mark.parametrize("n_columns", [3, 40], ids=["own gaps each", "shared gaps"])
def test_harmonic_extension_equals_the_dense_solution(n_columns):
    _, lineage = tiny()
    rng = np.random.default_rng(0)
    fixed = rng.random((lineage.n_nodes, 1 if n_columns == 40 else n_columns)) < 0.5
    fixed = np.broadcast_to(fixed, (lineage.n_nodes, n_columns)).astype(np.float32)
    values = rng.normal(size=fixed.shape).astype(np.float32) * fixed
    extended = harmonic_extension(
        LineagePrior(lineage, [0.3], [1.0]).precision(0), values, fixed, rtol=1e-7
    )
    matrix = lineage.laplacian.toarray() + 0.3 * np.eye(lineage.n_nodes)
    for column in range(n_columns):
        free = fixed[:, column] == 0
        expected = values[:, column].astype(float)
        right = -matrix[np.ix_(free, ~free)] @ expected[~free]
        expected[free] = np.linalg.solve(matrix[np.ix_(free, free)], right)
        np.testing.assert_allclose(extended[:, column], expected, atol=2e-6)


@both_kinds
def test_harmonic_forecast_passes_through_unscored_ancestors(binary):
    snapshot, lineage = tiny(binary)
    sibling, cold = lineage.index_of("lab/beta-chat"), lineage.index_of("lab/beta-math")
    others = np.flatnonzero(lineage.families[:12] == lineage.families[cold])
    train = without(snapshot.responses, np.setdiff1d(others, [sibling]))
    train[sibling] = 1
    harmonic = fit(LineageMean(hops=None), snapshot, lineage, train).predict_proba([cold])[0]
    one_hop = fit(LineageMean(hops=1), snapshot, lineage, train).predict_proba([cold])[0]
    means = item_means(train, snapshot.items)
    np.testing.assert_allclose(one_hop, means, atol=1e-6)
    below_one = means < 0.99
    assert (harmonic[below_one] > means[below_one]).all()


@pytest.mark.parametrize(
    "options",
    [{"hops": 2}, {"hops": None, "shrinkage": 0}, {"shrinkage": -1}, {"shrinkage": "a"}],
)
def test_lineage_mean_refuses_unusable_parameters(options):
    snapshot, lineage = tiny()
    with pytest.raises(ValueError, match="hops|shrinkage"):
        fit(LineageMean(**options), snapshot, lineage)


@both_kinds
def test_knn_recovers_a_copy_of_a_model(binary):
    rng = np.random.default_rng(0)
    responses = rng.integers(0, 2, (40, 300)).astype(np.uint8)
    if not binary:
        responses = rng.random((40, 300)).astype(np.float32)
    copied, copy = 7, 21
    shown = rng.random(300) < 0.5
    train = without(responses, [copy])
    revealed = np.where(shown, responses[copied], missing(responses)).astype(responses.dtype)
    forecast = KNN(n_neighbors=1).fit(train).predict_proba([copy], revealed=revealed[None])[0]
    error = np.abs(forecast - responses[copied])[~shown]
    elsewhere = np.abs(item_means(train) - responses[copied])[~shown]
    assert error.mean() < (0.6 if binary else 0.05) * elsewhere.mean()
    if binary:
        np.testing.assert_array_equal(forecast[~shown] > 0.5, responses[copied][~shown] == 1)


def test_knn_with_one_answer_averages_all_models_that_agree():
    rng = np.random.default_rng(0)
    responses = rng.integers(0, 2, (30, 6)).astype(np.uint8)
    responses[0] = MISSING
    revealed = np.full((1, 6), MISSING, dtype=np.uint8)
    revealed[0, 2] = 1
    model = KNN(n_neighbors=2).fit(responses)
    agree = responses[1:][responses[1:, 2] == 1]
    residual = (agree - model.item_means_).sum(axis=0) / (len(agree) + 1)
    expected = (model.item_means_ + residual)[[0, 1, 3, 4, 5]]
    forecast = model.predict_proba([0], revealed=revealed)[0, [0, 1, 3, 4, 5]]
    np.testing.assert_allclose(forecast, np.clip(expected, 0, 1), atol=1e-5)


def test_knn_without_answers_gives_item_means_and_ignores_the_model_itself():
    snapshot, lineage = tiny()
    train = without(snapshot.responses, [4])
    model = fit(KNN(), snapshot, lineage, train)
    np.testing.assert_array_equal(model.predict_proba([4])[0], model.item_means_)
    flipped = train.copy()
    seen = observed(train[0])
    flipped[0, seen] = 1 - flipped[0, seen]
    revealed = train[[0]]
    model = KNN(n_neighbors=1).fit(train)
    other = KNN(n_neighbors=1).fit(flipped)
    # What the fit knows of the row itself moves item means only, not the neighbours.
    moved = other.predict_proba([0], revealed=revealed) - model.predict_proba(
        [0], revealed=revealed
    )
    assert np.abs(moved).max() <= 2 * np.abs(other.item_means_ - model.item_means_).max() + 0.01


@both_kinds
def test_plain_factorization_is_lrmf_without_strength(binary):
    snapshot, lineage = tiny(binary)
    plain = fit(MatrixFactorization(rank=2, seed=1), snapshot, lineage).predict_proba()
    lrmf = fit(LRMF(rank=2, lineage_strength=0.0, seed=1), snapshot, lineage).predict_proba()
    np.testing.assert_allclose(plain, lrmf, atol=1e-3)
    shuffled = fit(MatrixFactorization(rank=2, seed=1), snapshot, lineage.shuffled(0))
    np.testing.assert_array_equal(plain, shuffled.predict_proba())


@pytest.mark.parametrize("predictor", [MFWithFeatures(rank=4), NCF(rank=4, n_cells=20_000)])
def test_features_tell_cold_models_apart(simulated_hub, predictor):
    snapshot, lineage = simulated_hub
    size = snapshot.models["params_b"].to_numpy(dtype=float)
    cold = np.flatnonzero(np.isfinite(size))[::4]
    train = without(snapshot.responses, cold)
    model = fit(predictor, snapshot, lineage, train)
    forecast = model.predict_proba(cold).mean(axis=1)
    truth = np.array([row[observed(row)].mean() for row in snapshot.responses[cold]])
    assert np.corrcoef(forecast, truth)[0, 1] > 0.3
    plain = fit(MatrixFactorization(rank=4), snapshot, lineage, train).predict_proba(cold)
    assert np.ptp(plain.mean(axis=1)) < 1e-4


@both_kinds
@pytest.mark.parametrize(
    "predictor",
    [
        MatrixFactorization(rank=2),
        MFWithFeatures(rank=2),
        KNN(n_neighbors=3),
        NCF(rank=4, hidden=(32, 16), n_cells=60_000, n_epochs=10),
    ],
    ids=lambda predictor: type(predictor).__name__,
)
def test_revealed_answers_move_a_forecast_towards_them(predictor, binary, simulated_hub):
    snapshot, lineage = simulated_hub if binary else in_proportions(*simulated_hub)
    row = int(np.argmax([np.count_nonzero(observed(answers)) for answers in snapshot.responses]))
    model = fit(predictor, snapshot, lineage, without(snapshot.responses, [row]))
    shape, dtype = (1, snapshot.responses.shape[1]), snapshot.responses.dtype
    revealed = np.full(shape, missing(snapshot.responses), dtype=dtype)
    revealed[0, : shape[1] // 2] = 1
    good = model.predict_proba([row], revealed=revealed).mean()
    revealed[0, : shape[1] // 2] = 0
    assert good > model.predict_proba([row], revealed=revealed).mean() + 0.02


def test_ncf_forecast_is_the_network_applied_to_every_cell(simulated_hub):
    snapshot, lineage = simulated_hub
    model = fit(NCF(rank=3, hidden=(6, 5), n_cells=5000, n_epochs=1), snapshot, lineage)
    rows, items = np.array([5, 2]), np.array([1, 7, 3])
    states = model.factors_.factors(rows)
    known = observed(snapshot.responses[rows]).sum(axis=1)
    inputs = model._model_inputs(rows, states, known)
    product = states @ model.factors_.likelihood_.loadings[items].T
    product = product + model.factors_.item_intercept_[items]
    forecast = model.predict_proba(rows, items)
    for row in range(2):
        for column, item in enumerate(items):
            cell = np.concatenate([inputs[row], model.item_inputs_[item], [product[row, column]]])
            for layer, (weights, bias) in enumerate(
                zip(model.weights_, model.biases_, strict=True)
            ):
                cell = np.maximum(cell, 0) if layer else cell
                cell = cell @ weights + bias
            assert forecast[row, column] == pytest.approx(1 / (1 + np.exp(-cell[0])), abs=1e-4)
