"""The estimator: what lineage does to a fit, what forecasts may use, and what it refuses."""

import io
import re

import numba
import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from draws import draw_answers, draw_proportions, objective_gradient, random_lineage
from predictor_contract import PredictorContract
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from lrmf import LRMF, Lineage
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.data.responses import MISSING
from lrmf.solver import answers as answers_module
from lrmf.solver.prior import similar_items


class TestLRMF(PredictorContract):
    estimator = LRMF(rank=2)


class TestLRMFWithFeatures(PredictorContract):
    estimator = LRMF(rank=2, use_features=True)


TIGHT = {"tolerance": 1e-9, "max_sweeps": 500}


def benchmark_items(n_items, n_trials=1):
    """Items of two benchmarks of unequal size."""
    benchmark = np.where(np.arange(n_items) < n_items // 3, "small", "large")
    ids = [f"item/{number}" for number in range(n_items)]
    return pd.DataFrame({"item_id": ids, "benchmark": benchmark, "n_trials": n_trials})


def hold_out(responses, rows):
    train = responses.copy()
    train[rows] = MISSING if train.dtype == np.uint8 else np.nan
    return train


def nothing(model, n_rows):
    """Revealed responses that reveal nothing."""
    dtype, value = (np.uint8, MISSING) if model.kind_ is ANSWERS else (np.float32, np.nan)
    return np.full((n_rows, model.n_items_), value, dtype)


@pytest.fixture(scope="module", params=[True, False], ids=["answers", "proportions"])
def problem(request):
    """Forty models of which ten are held out, a few cells missing; a forest with roots unscored."""
    lineage = random_lineage(40, seed=1, n_unscored=3)
    if request.param:
        truth, _ = draw_answers(lineage, 90, seed=1, density=0.95)
    else:
        truth = draw_proportions(
            lineage,
            6,
            seed=1,
            ridge=1.0,
            strength=5.0,
            node_variance=0.05,
            n_trials=100,
            missing=0.05,
        )
    rows = np.arange(3, 40, 4)
    items = benchmark_items(truth.shape[1], 1 if request.param else 100)
    return lineage, truth, rows, items


@pytest.fixture(scope="module")
def fitted(problem):
    lineage, truth, rows, items = problem
    return LRMF(rank=3).fit(hold_out(truth, rows), lineage, items=items)


def fit_answers(lineage, answers, **parameters):
    return LRMF(**{"rank": 3, "item_ridge": 2.0, **parameters}).fit(answers, lineage)


class TestLineage:
    @pytest.mark.parametrize("binary", [True, False])
    def test_strength_zero_is_plain_factorization(self, binary):
        snapshot = tiny_snapshot(binary=binary)
        ids = snapshot.models["model_id"]
        model = LRMF(rank=3, lineage_strength=0, **TIGHT)
        alone = Lineage.from_edges([], ids)
        known = Lineage.from_edges(snapshot.lineage, ids)
        scored = known.drop_edges(known.parent_index >= known.n_models)
        plain = clone(model).fit(snapshot.responses, alone).predict_proba()
        for lineage in (known, scored):
            ignored = clone(model).fit(snapshot.responses, lineage).predict_proba()
            assert ignored == pytest.approx(plain, abs=2e-3)

    def test_strength_zero_is_stationary_for_the_plain_objective(self):
        snapshot = tiny_snapshot()
        lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
        model = LRMF(rank=3, lineage_strength=0, item_ridge=1.0, **TIGHT)
        model.fit(snapshot.responses, lineage)
        states = np.column_stack([model.model_factors_, model.model_bias_])
        items = np.column_stack([model.item_factors_, model.item_intercept_])
        gradients = objective_gradient(
            states, items, snapshot.responses, lineage.laplacian,
            strength=0.0, ridge=1.0, item_ridge=1.0, intercept_ridge=0.01,
        )  # fmt: skip
        assert max(np.abs(gradient).max() for gradient in gradients) < 0.02

    @pytest.mark.parametrize("binary", [True, False])
    def test_permuting_models_permutes_the_forecasts(self, binary):
        snapshot = tiny_snapshot(binary=binary)
        order = np.random.default_rng(2).permutation(snapshot.n_models)
        ids = snapshot.models["model_id"].to_numpy()
        model = LRMF(rank=3, item_ridge=1.0, **TIGHT)
        found = clone(model).fit(snapshot.responses, Lineage.from_edges(snapshot.lineage, ids))
        lineage = Lineage.from_edges(snapshot.lineage, ids[order])
        permuted = clone(model).fit(snapshot.responses[order], lineage)
        assert permuted.predict_proba() == pytest.approx(found.predict_proba()[order], abs=5e-3)

    def test_permuting_edges_changes_nothing(self):
        snapshot = tiny_snapshot()
        ids = snapshot.models["model_id"]
        shuffled = snapshot.lineage.sample(frac=1, random_state=3)
        both = [
            LRMF(rank=3).fit(snapshot.responses, Lineage.from_edges(edges, ids)).predict_proba()
            for edges in (snapshot.lineage, shuffled)
        ]
        assert np.array_equal(*both)

    @pytest.mark.parametrize("weights", [None, {"merge": 0.3}])
    def test_an_unscored_node_lands_on_the_shrunk_average_of_its_neighbours(self, problem, weights):
        """strength sum_v w_v t_v / (ridge + strength sum_v w_v): ancestors and held-out models."""
        old, truth, rows, _ = problem
        edges = [*old.edges[["parent", "child", "relation"]].itertuples(index=False)]
        edges += [("lab/m000", "lab/m039", "merge"), ("lab/m001", "lab/m039", "merge")]
        ids = old.node_ids[: old.n_models]
        lineage = Lineage.from_edges(edges, ids, relation_weights=weights)
        model = LRMF(rank=3, lineage_strength=2.0, node_ridge=0.5, **TIGHT)
        model.fit(hold_out(truth, rows), lineage)
        states = np.column_stack([model.model_factors_, model.model_bias_])
        unscored = np.r_[rows, lineage.n_models : lineage.n_nodes]
        weight = lineage.adjacency[unscored]
        total = weight.sum(axis=1)[:, None]
        expected = 2.0 * (weight @ states) / (0.5 + 2.0 * total)
        assert states[unscored] == pytest.approx(expected, abs=1e-3)

    def test_with_a_small_ridge_it_tends_to_the_weighted_mean_of_its_parents(self):
        edges = [("a", "x", "merge"), ("b", "x", "finetune")]
        lineage = Lineage.from_edges(edges, list("abx"), relation_weights={"merge": 0.5})
        answers = np.random.default_rng(4).integers(0, 2, (3, 60)).astype(np.uint8)
        answers[0, :50] = 1
        answers[2] = MISSING
        gaps = []
        for node_ridge in (1.0, 1e-2, 1e-4):
            model = LRMF(rank=2, node_ridge=node_ridge, **TIGHT).fit(answers, lineage)
            states = np.column_stack([model.model_factors_, model.model_bias_])
            mean = (0.5 * states[0] + states[1]) / 1.5
            gaps.append(np.abs(states[2] - mean).max() / (np.abs(states).max() + 1e-9))
        assert gaps[2] < 1e-3 and gaps[2] < gaps[1] < gaps[0]

    def test_a_model_without_scored_relatives_is_forecast_like_the_item_means(self, problem):
        _, truth, _, items = problem
        lineage = Lineage.from_edges(
            [("lab/m000", "lab/m001", "finetune"), ("nobody/x", "lab/m039", "finetune")],
            [f"lab/m{number:03}" for number in range(40)],
        )
        model = LRMF(rank=3).fit(hold_out(truth, [39]), lineage, items=items)
        train = np.where(truth == MISSING, np.nan, truth) if model.kind_ is ANSWERS else truth
        means = np.nanmean(train[:39].astype(float), axis=0)
        forecast = model.predict_proba([39])[0]
        assert np.corrcoef(forecast, means)[0, 1] > 0.95
        assert np.abs(forecast - means).mean() < 0.06

    def test_relatives_matter_and_strangers_do_not(self):
        snapshot = tiny_snapshot()
        lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
        train = hold_out(snapshot.responses, [2, 10])
        base = LRMF(rank=3, **TIGHT).fit(train, lineage).predict(level=0.5).scores
        changed = train.copy()
        changed[0, changed[0] != MISSING] = 1
        better = LRMF(rank=3, **TIGHT).fit(changed, lineage).predict(level=0.5).scores
        gain = better["score"] - base["score"]
        assert gain[base["row"] == 2].iloc[0] > 0.05

    @pytest.mark.parametrize("part", ["bias", "factors"])
    def test_regularize_chooses_what_follows_the_lineage(self, part):
        lineage = random_lineage(12, seed=5)
        answers, _ = draw_answers(lineage, 60, seed=5, item_scale=1.5)
        leaf = next(i for i in range(12) if lineage.parents(lineage.node_ids[i]))
        model = fit_answers(lineage, hold_out(answers, [leaf]), regularize=part, **TIGHT)
        bias, factors = abs(model.model_bias_[leaf]), np.abs(model.model_factors_[leaf]).max()
        followed, free = (bias, factors) if part == "bias" else (factors, bias)
        assert followed > 0.05
        # What the lineage leaves free stays where the common shift of all states puts it.
        assert free < 0.02


class TestForecasts:
    def test_are_probabilities_of_the_right_shape(self, fitted, problem):
        lineage, _, rows, _ = problem
        everything = fitted.predict_proba()
        assert everything.dtype == np.float32
        assert everything.shape == (lineage.n_models, fitted.n_items_)
        assert ((everything >= 0) & (everything <= 1)).all()
        # BLAS may round products of other shapes otherwise.
        assert fitted.predict_proba(rows) == pytest.approx(everything[rows], abs=1e-6)
        chosen = fitted.predict_proba(rows[::-1], [4, 0, 4])
        assert chosen == pytest.approx(everything[np.ix_(rows[::-1], [4, 0, 4])], abs=1e-6)
        assert fitted.predict_proba([]).shape == (0, fitted.n_items_)
        assert fitted.predict_proba(7).shape == (1, fitted.n_items_)

    def test_rows_do_not_depend_on_their_company(self, problem):
        """More rows than fit in a block, and one of them alone."""
        lineage = random_lineage(300, seed=6)
        answers, _ = draw_answers(lineage, 30, seed=6)
        model = fit_answers(lineage, answers)
        everything = model.predict_proba()
        assert everything.shape == (300, 30)
        assert model.predict_proba([299]) == pytest.approx(everything[[299]], abs=1e-6)
        scores = model.predict().scores
        assert np.array_equal(scores["row"], np.arange(300))

    def test_both_forecasts_at_once_are_the_same(self, fitted, problem):
        _, truth, rows, _ = problem
        revealed, target = nothing(fitted, rows.size), np.ones((rows.size, truth.shape[1]), bool)
        target[:, ::3] = False
        forecast = fitted.predict(rows, revealed=revealed, target=target)
        assert np.array_equal(forecast.items, fitted.predict_proba(rows, revealed=revealed))
        alone = fitted.predict(rows, revealed=revealed, target=target).scores
        pd.testing.assert_frame_equal(forecast.scores, alone)
        with pytest.raises(ValueError, match="target"):
            forecast.average()
        with pytest.raises(ValueError, match="nothing"):
            fitted.predict(rows).average(["nothing"])
        short = fitted.predict_scores(rows, revealed=revealed, target=target)
        pd.testing.assert_frame_equal(forecast.scores, short)

    def test_own_answers_count(self, problem):
        """A scored model's forecast is closer to its answers than the forecast without them."""
        lineage, truth, rows, items = problem
        model = LRMF(rank=3).fit(truth, lineage, items=items)
        known = (truth[rows] != MISSING) & ~np.isnan(truth[rows].astype(float))
        actual = np.where(known, truth[rows], 0)
        with_own = model.predict_proba(rows)
        without = model.predict_proba(rows, revealed=nothing(model, rows.size))
        error, blind = (((p - actual)[known] ** 2).mean() for p in (with_own, without))
        assert error < blind

    def test_leave_one_out_is_close_to_a_refit(self, problem):
        lineage, truth, rows, items = problem
        model = LRMF(rank=3, **TIGHT).fit(truth, lineage, items=items)
        for row in rows[:3]:
            refit = LRMF(rank=3, **TIGHT).fit(hold_out(truth, [row]), lineage, items=items)
            left_out = model.predict_proba([row], revealed=nothing(model, 1))
            assert np.abs(left_out - refit.predict_proba([row])).mean() < 0.05

    def test_few_shot_uses_what_is_revealed_and_nothing_else(self, fitted, problem):
        """Other cells of the truth may be anything: nothing revealed or fitted tells them."""
        lineage, truth, rows, items = problem
        revealed = nothing(fitted, rows.size)
        revealed[:, :3] = truth[rows, :3]
        other = truth.copy()
        other[rows, 3:] = 1 - truth[rows, 3:] if fitted.kind_ is PROPORTIONS else 1
        again = LRMF(rank=3).fit(hold_out(other, rows), lineage, items=items)
        shown = nothing(fitted, rows.size)
        shown[:, :3] = other[rows, :3]
        one, two = (
            m.predict_proba(rows, revealed=r) for m, r in ((fitted, revealed), (again, shown))
        )
        assert np.array_equal(one, two)
        assert not np.array_equal(one, fitted.predict_proba(rows))

    def test_revealed_rows_are_models_of_their_own(self, fitted, problem):
        """What one row reveals does not reach another, not even its relative."""
        _, truth, rows, _ = problem
        together = fitted.predict_proba(rows, revealed=truth[rows])
        for place, row in enumerate(rows[:3]):
            alone = fitted.predict_proba([row], revealed=truth[[row]])
            assert alone == pytest.approx(together[[place]], abs=1e-6)

    def test_revealing_the_training_answers_gives_them_back(self, fitted, problem):
        """A scored model whose own responses are revealed: the in-graph posterior."""
        lineage, truth, rows, _ = problem
        scored = np.setdiff1d(np.arange(lineage.n_models), rows)[:6]
        again = fitted.predict_proba(scored, revealed=truth[scored])
        assert again == pytest.approx(fitted.predict_proba(scored), abs=0.01)

    def test_more_answers_come_closer_to_the_truth_with_narrower_intervals(self):
        lineage = random_lineage(60, seed=7)
        truth, probability = draw_answers(lineage, 300, seed=7)
        rows = np.arange(0, 60, 3)
        model = fit_answers(lineage, hold_out(truth, rows))
        rng = np.random.default_rng(7)
        order = np.array([rng.permutation(200) for _ in rows])
        errors, widths = [], []
        target = np.zeros((rows.size, 300), bool)
        target[:, 200:] = True
        for k in (0, 5, 30, 200):
            revealed = nothing(model, rows.size)
            for place, row in enumerate(rows):
                revealed[place, order[place, :k]] = truth[row, order[place, :k]]
            forecast = model.predict_proba(rows, revealed=revealed)[:, 200:]
            errors.append(np.abs(forecast - probability[rows, 200:]).mean())
            scores = model.predict(rows, revealed=revealed, target=target).scores
            widths.append((scores["upper"] - scores["lower"]).mean())
        assert errors[0] > errors[1] > errors[2] > errors[3]
        assert widths[0] > widths[1] > widths[2] > widths[3]

    def test_less_trust_in_the_lineage_follows_the_answers_sooner(self):
        lineage = random_lineage(12, seed=8)
        truth, _ = draw_answers(lineage, 60, seed=8)
        revealed = np.full((1, 60), MISSING, np.uint8)
        revealed[0, :10] = 1
        means = []
        for temperature in (10.0, 1.0, 0.1):
            model = fit_answers(lineage, hold_out(truth, [5]), prior_temperature=temperature)
            means.append(model.predict_proba([5], np.arange(10), revealed=revealed).mean())
        assert means[0] < means[1] < means[2]

    def test_features_forecast_models_without_relatives(self):
        rng = np.random.default_rng(9)
        models = pd.DataFrame({"model_id": [f"m{i:03}" for i in range(80)]})
        models["params_b"] = np.exp(rng.normal(2, 1, 80))
        ability = 1.5 * (np.log(models["params_b"]) - 2).to_numpy()
        logit = ability[:, None] + rng.normal(0, 1, 100)
        truth = (rng.random((80, 100)) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
        rows = np.arange(20)
        lineage = Lineage.from_edges([], models["model_id"])
        found = {}
        for use_features in (False, True):
            model = LRMF(rank=2, use_features=use_features)
            model.fit(hold_out(truth, rows), lineage, models=models)
            found[use_features] = model.predict(rows).scores["score"]
        assert np.ptp(found[False]) < 1e-3
        assert np.corrcoef(found[True], truth[rows].mean(axis=1))[0, 1] > 0.9


class TestScores:
    def test_observed_answers_count_as_observed(self, problem):
        """Where everything is observed the score is the actual one, without any interval."""
        lineage, truth, rows, items = problem
        full = np.where(truth == MISSING, 0, truth) if truth.dtype == np.uint8 else truth
        full = np.nan_to_num(full)
        train = hold_out(full, rows)
        model = LRMF(rank=3).fit(train, lineage, items=items)
        scores = model.predict().scores.set_index(["row", "benchmark"])
        assert scores.columns.tolist() == ["score", "lower", "upper", "n_observed"]
        for benchmark in ("small", "large"):
            columns = np.flatnonzero(items["benchmark"] == benchmark)
            scored = scores.xs(benchmark, level="benchmark")
            known = np.setdiff1d(np.arange(40), rows)
            actual = full[np.ix_(known, columns)].mean(axis=1)
            assert scored.loc[known, "score"].to_numpy() == pytest.approx(actual, abs=1e-6)
            assert scored.loc[known, "lower"].to_numpy() == pytest.approx(actual, abs=1e-6)
            assert scored.loc[known, "upper"].to_numpy() == pytest.approx(actual, abs=1e-6)
            assert (scored.loc[known, "n_observed"] == columns.size).all()
            assert (scored.loc[rows, "n_observed"] == 0).all()
            forecast = model.predict_proba(rows, columns).mean(axis=1)
            assert scored.loc[rows, "score"].to_numpy() == pytest.approx(forecast, abs=1e-5)

    def test_score_mixes_observed_answers_and_forecasts(self, problem):
        lineage, truth, rows, items = problem
        train = hold_out(truth, rows)
        train[rows, 0] = np.nan_to_num(truth[rows, 0], nan=0.5) if truth.dtype != np.uint8 else 1
        items = items.assign(n_trials=np.arange(1, len(items) + 1))
        model = LRMF(rank=3).fit(train, lineage, items=items)
        columns = np.flatnonzero(items["benchmark"] == "small")
        values = model.predict_proba(rows, columns).astype(float)
        values[:, 0] = train[rows, 0]
        weights = items["n_trials"].to_numpy()[columns]
        scores = model.predict(rows).scores
        scores = scores[scores["benchmark"] == "small"]
        assert scores["score"].to_numpy() == pytest.approx(values @ weights / weights.sum())
        assert (scores["n_observed"] == 1).all()

    def test_bounds_are_ordered_and_within_zero_and_one(self, fitted, problem):
        _, _, rows, _ = problem
        widths = []
        for level in (0.5, 0.9, 0.999):
            scores = fitted.predict(level=level).scores
            assert (0 <= scores["lower"]).all() and (scores["upper"] <= 1).all()
            assert (scores["lower"] <= scores["score"]).all()
            assert (scores["score"] <= scores["upper"]).all()
            width = scores["upper"] - scores["lower"]
            widths.append(width[scores["row"].isin(rows)].mean())
        assert 0 < widths[0] < widths[1] < widths[2]

    def test_target_cells_are_forecast_whatever_is_observed(self, fitted, problem):
        _, _, rows, items = problem
        some = np.r_[rows[:2], 0, 1]
        target = np.zeros((4, len(items)), bool)
        target[:, [0, 1]] = True
        scores = fitted.predict(some, target=target).scores
        small = scores[scores["benchmark"] == "small"]["score"].to_numpy()
        expected = fitted.predict_proba(some, [0, 1]).mean(axis=1)
        assert small == pytest.approx(expected, abs=1e-6)

    def test_a_benchmark_without_target_cells_has_no_score(self, fitted, problem):
        target = np.zeros((1, fitted.n_items_), bool)
        target[0, 0] = True
        scores = fitted.predict([0], target=target).scores.set_index("benchmark")
        assert scores.loc["large", ["score", "lower", "upper"]].isna().all()
        assert scores.loc["small", ["score", "lower", "upper"]].notna().all()

    def test_without_items_there_is_one_benchmark(self, problem):
        lineage, truth, rows, _ = problem
        scores = LRMF(rank=2).fit(hold_out(truth, rows), lineage).predict(rows).scores
        assert (scores["benchmark"] == "all").all() and len(scores) == rows.size

    def test_no_rows_no_scores(self, fitted):
        scores = fitted.predict([]).scores
        assert scores.empty
        assert list(scores) == ["row", "benchmark", "score", "lower", "upper", "n_observed"]

    @pytest.mark.parametrize("k", [0, 10])
    def test_intervals_for_answers_drawn_from_the_model_cover(self, k):
        """Nominal 90% over 180 held-out scores: a standard error of about 3 points by family."""
        lineage = random_lineage(300, seed=10, share_roots=0.15)
        truth, _ = draw_answers(lineage, 150, seed=10)
        rows = np.arange(0, 300, 3)
        items = benchmark_items(150)
        model = LRMF(rank=3, item_ridge=1.5).fit(hold_out(truth, rows), lineage, items=items)
        rng = np.random.default_rng(10)
        revealed, target = nothing(model, rows.size), np.ones((rows.size, 150), bool)
        for place, row in enumerate(rows):
            shown = rng.permutation(150)[:k]
            revealed[place, shown] = truth[row, shown]
            target[place, shown] = False
        scores = model.predict(rows, revealed=revealed, target=target).scores
        assert 0.82 <= coverage(scores, truth[rows], target, items) <= 0.97

    def test_intervals_for_proportions_drawn_from_the_model_cover(self):
        lineage = random_lineage(300, seed=11, share_roots=0.15)
        truth = draw_proportions(
            lineage, 5, seed=11, ridge=1.0, strength=5.0, node_variance=0.05, n_trials=200
        )
        rows = np.arange(0, 300, 3)
        items = benchmark_items(5, n_trials=200)
        model = LRMF(rank=5, lineage_strength=5.0).fit(hold_out(truth, rows), lineage, items=items)
        target = np.ones((rows.size, 5), bool)
        scores = model.predict(rows).scores
        assert 0.82 <= coverage(scores, truth[rows], target, items) <= 0.97


def coverage(scores, truth, target, items):
    member = np.stack([1.0 * (items["benchmark"] == b) for b in scores["benchmark"].unique()], 1)
    actual = (np.where(target, truth, 0) @ member) / (target @ member)
    inside = (scores["lower"] <= actual.ravel()) & (actual.ravel() <= scores["upper"])
    return inside.mean()


class TestFoldIn:
    def test_zero_shot_equals_the_model_in_the_graph(self, problem):
        """A held-out leaf of a tree against the same leaf folded into a fit without it."""
        lineage, truth, _, items = problem
        leaf, parent = "lab/new", "lab/m007"
        edges = [*lineage.edges[["parent", "child", "relation"]].itertuples(index=False)]
        ids = [*lineage.node_ids[: lineage.n_models], leaf]
        with_leaf = Lineage.from_edges([*edges, (parent, leaf, "finetune")], ids)
        grown = hold_out(np.concatenate([truth, truth[:1]]), [40])
        inside = LRMF(rank=3, **TIGHT).fit(grown, with_leaf, items=items)
        outside = LRMF(rank=3, **TIGHT).fit(truth, lineage, items=items)
        new = outside.fold_in(parents=[parent])
        # For answers a leaf in the graph adds its ridge to the mode of its parent.
        tolerance = 0.02 if outside.kind_ is ANSWERS else 1e-4
        assert new.predict_proba() == pytest.approx(inside.predict_proba([40])[0], abs=tolerance)
        assert new.predict_proba([5, 1]) == pytest.approx(new.predict_proba()[[5, 1]])

    def test_several_parents_relations_and_answers(self, fitted, problem):
        _, _, _, items = problem
        plain = fitted.fold_in(parents=["lab/m000", "lab/m001"])
        related = fitted.fold_in(parents=[("lab/m000", "merge"), ("lab/m001", "merge")])
        assert np.array_equal(plain.predict_proba(), related.predict_proba())
        answered = fitted.fold_in(parents=["lab/m000"], answers={"item/2": 1, "item/3": 1})
        before = fitted.fold_in(parents=["lab/m000"])
        assert (answered.predict_proba([2, 3]) > before.predict_proba([2, 3])).all()
        scores = answered.scores()
        assert list(scores) == ["benchmark", "score", "lower", "upper", "n_observed"]
        assert scores["n_observed"].sum() == 2
        assert ((scores["lower"] <= scores["score"]) & (scores["score"] <= scores["upper"])).all()

    def test_relation_weights_and_split_merges_apply(self, problem):
        old, truth, rows, _ = problem
        edges = old.edges[["parent", "child", "relation"]]
        ids = old.node_ids[: old.n_models]
        lineage = Lineage.from_edges(edges, ids, relation_weights={"merge": 0.25, "adapter": 0.25})
        split = Lineage.from_edges(edges, ids, relation_weights={"merge": 0.5}, split_merges=True)
        both = ["lab/m000", "lab/m001"]
        by_merge, by_adapter = (
            LRMF(rank=3).fit(truth, lineage).fold_in(parents=[(p, relation) for p in both])
            for relation in ("merge", "adapter")
        )
        assert np.array_equal(by_merge.predict_proba(), by_adapter.predict_proba())
        divided = LRMF(rank=3).fit(truth, split).fold_in(parents=[(p, "merge") for p in both])
        assert divided.predict_proba() == pytest.approx(by_merge.predict_proba(), abs=1e-6)

    def test_without_parents_it_is_the_average_model(self, fitted, problem):
        _, truth, rows, _ = problem
        train = hold_out(truth, rows).astype(float)
        if fitted.kind_ is ANSWERS:
            train[train == MISSING] = np.nan
        means = np.nanmean(train, axis=0)
        stranger = fitted.fold_in()
        assert re.fullmatch(r"NewModel\((.+: \d.\d{3} \[.+\])+; 0 observed\)", repr(stranger))
        assert np.abs(stranger.predict_proba() - means).mean() < 0.08
        relative = fitted.fold_in(parents=["lab/m000"])
        width = [(s["upper"] - s["lower"]).mean() for s in
                 (stranger.scores(), relative.scores())]  # fmt: skip
        assert width[0] > width[1]

    def test_agrees_with_revealed_rows_of_the_graph(self, fitted, problem):
        """A model without relatives and the same answers, in the graph and folded in."""
        lineage, truth, rows, items = problem
        alone = Lineage.from_edges([], lineage.node_ids[: lineage.n_models])
        model = LRMF(rank=3, prior_temperature=0.5).fit(hold_out(truth, rows), alone, items=items)
        value = 1 if model.kind_ is ANSWERS else 0.9
        revealed = nothing(model, 1)
        revealed[0, [1, 2]] = value
        inside = model.predict_proba(rows[:1], revealed=revealed)[0]
        outside = model.fold_in(answers={"item/1": value, "item/2": value}).predict_proba()
        assert outside == pytest.approx(inside, abs=1e-5)

    def test_leaves_the_fit_as_it_is(self, fitted):
        before = fitted.predict_proba()
        fitted.fold_in(parents=["lab/m000"], answers={"item/0": 0})
        assert np.array_equal(fitted.predict_proba(), before)

    def test_columns_are_numbers_without_an_items_table(self, problem):
        lineage, truth, rows, _ = problem
        model = LRMF(rank=2).fit(hold_out(truth, rows), lineage)
        assert model.fold_in(answers={0: 1, 3: 0}).scores()["n_observed"][0] == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"parents": ["lab/unknown"]}, "'lab/unknown' is not a node of the lineage"),
            ({"parents": "lab/unknown"}, "'lab/unknown' is not a node"),
            ({"parents": [("lab/m000", "cousin")]}, "unknown relation 'cousin'"),
            ({"answers": {"item/999": 1}}, "'item/999': not an item"),
            ({"answers": {"item/0": 2}}, "'item/0' must be"),
            ({"answers": {"item/0": float("nan")}}, "'item/0' must be"),
            ({"answers": {"item/0": "right"}}, "'item/0' must be .* got 'right'"),
            ({"answers": ["item/0"]}, "answers must map item ids"),
        ],
    )
    def test_errors_name_the_culprit(self, fitted, arguments, message):
        with pytest.raises(ValueError, match=message):
            fitted.fold_in(**arguments)

    def test_a_share_is_no_answer(self):
        lineage = random_lineage(12, seed=12)
        answers, _ = draw_answers(lineage, 20, seed=12)
        with pytest.raises(ValueError, match="answer to 3 must be 0 or 1, got 0.5"):
            fit_answers(lineage, answers).fold_in(answers={3: 0.5})


class TestStart:
    def test_a_fit_goes_on_from_another_and_ends_where_it_would(self):
        lineage = random_lineage(60, seed=3)
        answers, _ = draw_answers(lineage, 80, seed=3)
        first = fit_answers(lineage, answers, rank=1, lineage_strength=3.0, **TIGHT)
        cold = fit_answers(lineage, answers, rank=1, lineage_strength=5.0, **TIGHT)
        model = LRMF(rank=1, item_ridge=2.0, lineage_strength=5.0, **TIGHT)
        before = first.states_.copy()
        warm = model.fit(answers, lineage, start=first)
        np.testing.assert_array_equal(first.states_, before)
        assert warm.stats_["objective"][-1] == pytest.approx(cold.stats_["objective"][-1], rel=1e-4)
        assert warm.stats_["objective"][0] < cold.stats_["objective"][0]
        assert warm.stats_["sweeps"] < cold.stats_["sweeps"]

    def test_a_start_of_another_shape_is_refused(self):
        lineage = random_lineage(30, seed=3)
        answers, _ = draw_answers(lineage, 40, seed=3)
        start = fit_answers(lineage, answers, rank=2)
        with pytest.raises(ValueError, match=r"rank 2; this fit has 30, 40 and 3"):
            LRMF(rank=3).fit(answers, lineage, start=start)


class TestReproducibility:
    def test_same_bytes_for_any_number_of_threads_and_on_repeat(self, problem):
        lineage, truth, rows, items = problem
        found = []
        for n_threads in (1, 2, 1, None):
            model = LRMF(rank=3, n_threads=n_threads)
            model.fit(hold_out(truth, rows), lineage, items=items)
            found.append((model.predict_proba(), model.predict().scores))
        for probability, scores in found[1:]:
            assert np.array_equal(probability, found[0][0])
            pd.testing.assert_frame_equal(scores, found[0][1], check_exact=True)

    def test_same_bytes_with_many_tiles(self):
        lineage = random_lineage(600, seed=13)
        answers, _ = draw_answers(lineage, 2500, seed=13, density=0.3)
        found = [
            fit_answers(lineage, answers, n_threads=n, tolerance=1e-2).predict_proba()
            for n in (1, 2)
        ]
        assert np.array_equal(*found)

    def test_threads_are_given_back(self, fitted, problem):
        lineage, truth, _, items = problem

        def counts():
            blas = [pool["num_threads"] for pool in threadpool_info()]
            return numba.get_num_threads(), sorted(blas)

        before = counts()
        model = LRMF(rank=2, n_threads=1).fit(truth, lineage, items=items)
        model.predict_proba()
        assert len(model.predict().scores)
        model.fold_in()
        assert counts() == before
        with pytest.raises(ValueError, match="rank"):
            LRMF(rank=0).fit(truth, lineage)
        assert counts() == before

    def test_seeds_differ_by_local_optima_only(self):
        lineage = random_lineage(40, seed=14)
        answers, _ = draw_answers(lineage, 100, seed=14)
        models = [fit_answers(lineage, answers, seed=seed, **TIGHT) for seed in range(3)]
        ends = [model.stats_["objective"][-1] for model in models]
        assert max(ends) < min(ends) * 1.002
        for model in models[1:]:
            gap = np.abs(model.predict_proba() - models[0].predict_proba()).mean()
            assert gap < 0.03

    def test_dense_and_sparse_layouts_agree(self, monkeypatch):
        lineage = random_lineage(40, seed=15, n_unscored=2)
        answers, _ = draw_answers(lineage, 150, seed=15, density=0.5)
        found = []
        for dense_above in (0.0, 1.0):
            monkeypatch.setattr(answers_module, "DENSE_ABOVE", dense_above)
            model = fit_answers(lineage, answers, **TIGHT)
            found.append((model.stats_["objective"][-1], model.predict_proba()))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        assert found[0][1] == pytest.approx(found[1][1], abs=5e-3)

    def test_the_objective_never_rises(self):
        lineage = random_lineage(60, seed=16, n_unscored=2, n_loops=5)
        answers, _ = draw_answers(lineage, 3000, seed=16, density=0.4)
        for strength in (0.0, 3.0, 1e3):
            model = fit_answers(lineage, answers, lineage_strength=strength, tolerance=1e-6)
            history = np.array(model.stats_["objective"])
            assert (np.diff(history) <= 1e-6 * history[:-1]).all()

    def test_memory_maps_and_any_order_of_the_array(self, problem, tmp_path):
        lineage, truth, rows, _ = problem
        train = hold_out(truth, rows)
        plain = LRMF(rank=2).fit(train, lineage).predict_proba()
        np.save(tmp_path / "responses.npy", train)
        mapped = np.load(tmp_path / "responses.npy", mmap_mode="r")
        for responses in (mapped, np.asfortranarray(train), np.repeat(train, 2, axis=1)[:, ::2]):
            model = LRMF(rank=2).fit(responses, lineage)
            assert np.array_equal(model.predict_proba(), plain)
            assert len(model.predict().scores)


class TestEstimator:
    def test_parameters_are_those_of_scikit_learn(self):
        model = LRMF(rank=5, lineage_strength=2.0, regularize="bias", seed=3)
        copy = clone(model)
        assert copy.get_params() == model.get_params() and copy is not model
        assert copy.set_params(rank=7).rank == 7
        assert set(model.get_params()) >= {"rank", "lineage_strength", "node_variance", "n_threads"}
        assert "rank=5" in repr(model)

    def test_fit_leaves_parameters_and_responses_alone(self, problem):
        lineage, truth, rows, items = problem
        train = hold_out(truth, rows)
        before = train.copy()
        model = LRMF(rank=2)
        parameters = model.get_params()
        assert model.fit(train, lineage, items=items) is model
        assert model.get_params() == parameters
        assert np.array_equal(train, before, equal_nan=train.dtype != np.uint8)

    def test_a_second_fit_forgets_the_first(self, problem):
        lineage, truth, rows, items = problem

        class Renamed(LRMF):
            pass

        for kind in (LRMF, Renamed):
            model = kind().set_params(rank=2).fit(truth, lineage, items=items)
            assert len(model.predict().scores)
            train = hold_out(truth, rows)
            model.fit(train, lineage, items=items)
            fresh = LRMF(rank=2).fit(train, lineage, items=items)
            assert np.array_equal(model.predict_proba(), fresh.predict_proba())
            pd.testing.assert_frame_equal(model.predict().scores, fresh.predict().scores)

    def test_attributes(self, fitted, problem):
        lineage, _, _, items = problem
        rank = 3
        assert fitted.model_factors_.shape == (lineage.n_nodes, rank)
        assert fitted.model_bias_.shape == (lineage.n_nodes,)
        assert fitted.item_factors_.shape == (len(items), rank)
        assert fitted.item_intercept_.shape == (len(items),)
        assert len(fitted.stats_["cg_iterations"]) > 0

    def test_arrays_round_trip_without_pickle(self, fitted, problem):
        lineage, truth, rows, _ = problem
        file = io.BytesIO()
        np.savez(file, **fitted.to_arrays())
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            loaded = LRMF.from_arrays(arrays)
        assert loaded.get_params() == fitted.get_params()
        again = loaded.adapt(hold_out(truth, rows), lineage)
        assert again.predict_proba() == pytest.approx(fitted.predict_proba(), abs=0.01)
        assert again.item_factors_ == pytest.approx(fitted.item_factors_)
        assert list(again.predict().scores["benchmark"].unique()) == ["small", "large"]

    def test_parameters_of_numpy_types_round_trip(self, problem):
        lineage, truth, _, _ = problem
        model = LRMF(rank=np.int64(2), lineage_strength=np.float32(2), seed=np.int32(1))
        arrays = model.fit(truth, lineage).to_arrays()
        assert LRMF.from_arrays(arrays).get_params()["rank"] == 2

    def test_adapt_serves_new_models(self, problem):
        """Fitted without three models, adapted to all: as good as a fit to all."""
        lineage, truth, rows, items = problem
        ids = lineage.node_ids[: lineage.n_models]
        new = [38, 39, 37]
        kept = np.setdiff1d(np.arange(40), new)
        edges = lineage.edges[["parent", "child", "relation"]]
        edges = edges[~edges[["parent", "child"]].isin(ids[new]).any(axis=1)]
        first = LRMF(rank=3).fit(truth[kept], Lineage.from_edges(edges, ids[kept]), items=items)
        before = first.predict_proba()
        adapted = first.adapt(truth, lineage)
        whole = LRMF(rank=3).fit(truth, lineage, items=items)
        assert np.abs(adapted.predict_proba() - whole.predict_proba()).mean() < 0.05
        assert np.array_equal(first.predict_proba(), before)
        assert adapted.n_models_ == 40

    def test_adapt_refuses_other_items(self, fitted, problem):
        lineage, truth, _, _ = problem
        with pytest.raises(ValueError, match="items"):
            fitted.adapt(truth[:, :-1], lineage)
        wrong = np.zeros(truth.shape, np.float32 if fitted.kind_ is ANSWERS else np.uint8)
        with pytest.raises(ValueError, match="fitted on"):
            fitted.adapt(wrong, lineage)


EXTREMES = [
    {"lineage_strength": 0},
    {"lineage_strength": 1e6},
    {"rank": 1},
    {"rank": 64},
    {"node_ridge": 1e-4, "item_ridge": 1e-3},
    {"node_ridge": 1e6},
    {"item_ridge": 1e6, "intercept_ridge": 1e6},
    {"node_variance": 0.0},
    {"regularize": "bias", "lineage_strength": 1e3},
]


def assert_sound(model):
    """Finite forecasts and ordered intervals, for rows in the graph and for a new one."""
    probability = model.predict_proba()
    assert np.isfinite(probability).all() and ((probability >= 0) & (probability <= 1)).all()
    scores = model.predict().scores
    for found in (scores, model.fold_in(parents=[model.lineage_.node_ids[0]]).scores()):
        assert np.isfinite(found[["score", "lower", "upper"]]).all().all()
        assert (found["lower"] <= found["score"]).all() and (found["score"] <= found["upper"]).all()


class TestExtremes:
    @pytest.mark.filterwarnings("ignore:the marginals of:sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("parameters", EXTREMES, ids=str)
    def test_parameters(self, binary, parameters):
        snapshot = tiny_snapshot(binary=binary)
        lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
        model = LRMF(**{"rank": 3, "max_sweeps": 1000, **parameters})
        assert_sound(model.fit(snapshot.responses, lineage, items=snapshot.items))

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (3, 2), (5, 4)])
    @pytest.mark.parametrize("related", [True, False])
    def test_shapes(self, binary, shape, related):
        rng = np.random.default_rng(17)
        responses = rng.random(shape).astype(np.float32)
        if binary:
            responses = (responses < 0.5).astype(np.uint8)
        lineage = random_lineage(shape[0], seed=17, n_unscored=1, share_roots=0 if related else 1)
        if not related:
            lineage = lineage.drop_edges(np.ones(lineage.n_edges, bool))
        assert_sound(LRMF(rank=4).fit(responses, lineage))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    @pytest.mark.parametrize("value", [0, 1])
    def test_all_responses_alike(self, dtype, value):
        lineage = random_lineage(12, seed=18, n_unscored=2)
        model = LRMF(rank=3).fit(np.full((12, 30), value, dtype), lineage)
        assert_sound(model)
        assert np.abs(model.predict_proba() - value).max() < 0.1

    def test_rows_of_all_right_and_all_wrong_answers(self):
        lineage = random_lineage(12, seed=19)
        answers, _ = draw_answers(lineage, 60, seed=19)
        answers[3], answers[4] = 0, 1
        model = fit_answers(lineage, answers)
        assert_sound(model)
        means = model.predict_proba().mean(axis=1)
        assert means[3] == means.min() and means[4] == means.max()

    def test_empty_rows_and_columns(self, problem):
        lineage, truth, _, items = problem
        train = hold_out(truth, [0, 5, 6])
        train[:, [1, -1]] = train[0, 0]
        assert_sound(LRMF(rank=3).fit(train, lineage, items=items))

    def test_one_answer_in_all(self):
        lineage = random_lineage(12, seed=20)
        answers = np.full((12, 30), MISSING, np.uint8)
        answers[4, 7] = 1
        model = LRMF(rank=3).fit(answers, lineage)
        assert_sound(model)
        assert model.predict_proba([4], [7])[0, 0] > 0.5

    def test_one_large_family_and_loops(self):
        lineage = random_lineage(60, seed=21, share_roots=0, n_loops=40)
        answers, _ = draw_answers(lineage, 40, seed=21)
        assert lineage.n_families == 1
        for strength in (3.0, 1e6):
            assert_sound(fit_answers(lineage, answers, lineage_strength=strength))

    def test_far_too_few_sweeps_warn_with_the_remedy(self):
        lineage = random_lineage(12, seed=22)
        answers, _ = draw_answers(lineage, 60, seed=22)
        with pytest.warns(ConvergenceWarning, match="raise max_sweeps or tolerance"):
            model = fit_answers(lineage, answers, max_sweeps=1)
        assert_sound(model)


BAD_PARAMETERS = [
    ({"rank": 0}, "rank must be an integer"),
    ({"rank": 2.5}, "rank must be an integer"),
    ({"rank": True}, "rank must be an integer"),
    ({"lineage_strength": -1}, "lineage_strength"),
    ({"lineage_strength": float("nan")}, "lineage_strength"),
    ({"lineage_strength": "3"}, "lineage_strength must be a number"),
    ({"lineage_strength": float("inf")}, "lineage_strength"),
    ({"node_ridge": 0}, "node_ridge"),
    ({"item_ridge": 0.0}, "item_ridge"),
    ({"intercept_ridge": -0.1}, "intercept_ridge"),
    ({"node_variance": -0.1}, "node_variance"),
    ({"prior_temperature": 0}, "prior_temperature"),
    ({"regularize": "items"}, "regularize must be 'both', 'bias' or 'factors', got 'items'"),
    ({"max_sweeps": 0}, "max_sweeps"),
    ({"tolerance": 2}, "tolerance"),
    ({"n_threads": 0}, "n_threads"),
    ({"n_threads": "two"}, "n_threads"),
    ({"seed": -1}, "seed"),
    ({"seed": None}, "seed"),
]


class TestBadInput:
    @pytest.mark.parametrize(("parameters", "message"), BAD_PARAMETERS, ids=str)
    def test_parameters(self, problem, parameters, message):
        lineage, truth, _, _ = problem
        with pytest.raises(ValueError, match=message):
            LRMF(**parameters).fit(truth, lineage)

    @pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, object, "U1"])
    def test_dtypes(self, dtype):
        with pytest.raises(ValueError, match="responses must be a matrix of uint8"):
            LRMF().fit(np.ones((12, 5), dtype), random_lineage(12, seed=0))

    @pytest.mark.parametrize("responses", [[[0, 1]], np.ones(12, np.uint8), None])
    def test_responses_that_are_no_matrix(self, responses):
        with pytest.raises(ValueError, match="responses must be a matrix"):
            LRMF().fit(responses, random_lineage(12, seed=0))

    @pytest.mark.parametrize("lineage", [None, pd.DataFrame({"parent": [], "child": []})])
    def test_a_lineage_that_is_none(self, lineage):
        with pytest.raises(ValueError, match="Lineage.from_edges"):
            LRMF().fit(np.ones((12, 5), np.uint8), lineage)

    def test_shapes_that_disagree(self, problem):
        lineage, truth, _, items = problem
        with pytest.raises(ValueError, match="40 models, responses 39 rows"):
            LRMF().fit(truth[1:], lineage)
        with pytest.raises(ValueError, match="items has .* rows, responses .* columns"):
            LRMF().fit(truth, lineage, items=items[1:])
        with pytest.raises(ValueError, match="items lacks column 'benchmark'"):
            LRMF().fit(truth, lineage, items=items.drop(columns="benchmark"))

    @pytest.mark.parametrize("value", [-0.1, 1.5, np.inf])
    def test_proportions_out_of_range(self, value):
        proportions = np.full((12, 5), 0.5, np.float32)
        proportions[3, 2] = value
        with pytest.raises(ValueError, match=r"responses\[3, 2\] is .* within \[0, 1\]"):
            LRMF().fit(proportions, random_lineage(12, seed=0))

    def test_answers_that_are_none(self):
        answers = np.ones((12, 5), np.uint8)
        answers[3, 2], answers[5] = 7, MISSING
        with pytest.raises(ValueError, match=r"responses\[3, 2\] is 7, neither missing nor 0 or 1"):
            LRMF().fit(answers, random_lineage(12, seed=0))

    @pytest.mark.parametrize(("dtype", "missing"), [(np.uint8, MISSING), (np.float32, np.nan)])
    def test_nothing_observed(self, dtype, missing):
        with pytest.raises(ValueError, match="no response is observed"):
            LRMF().fit(np.full((12, 5), missing, dtype), random_lineage(12, seed=0))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([40], "row 40 is not one of the 40 models"),
            ([-1], "row -1 is not one of the 40 models"),
            (np.ones(40, bool), "rows must be integers, got bool"),
            ([0.5], "rows must be integers, got float64"),
            (["lab/m000"], "rows must be integers"),
        ],
    )
    def test_rows(self, fitted, rows, message):
        for call in (fitted.predict_proba, fitted.predict):
            with pytest.raises(ValueError, match=message):
                call(rows)

    def test_revealed_and_target(self, fitted):
        good = nothing(fitted, 2)
        for call in (fitted.predict_proba, fitted.predict):
            with pytest.raises(ValueError, match="revealed must be .* of shape"):
                call([0, 1, 2], revealed=good)
            with pytest.raises(ValueError, match="revealed must be"):
                call([0, 1], revealed=good.astype(np.int64 if fitted.kind_ is ANSWERS else bool))
            wrong = good.copy()
            wrong[1, 2] = 7
            with pytest.raises(ValueError, match=r"revealed\[1, 2\] is 7"):
                call([0, 1], revealed=wrong)
        with pytest.raises(ValueError, match="target must be booleans"):
            fitted.predict([0], target=np.ones((1, fitted.n_items_)))
        with pytest.raises(ValueError, match="target must be booleans"):
            fitted.predict([0, 1], target=np.ones((1, fitted.n_items_), bool))

    @pytest.mark.parametrize("level", [0, 1, 90, -0.1, float("nan")])
    def test_level(self, fitted, level):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            fitted.predict(level=level)


class TestItemGraph:
    """The ablation that regularizes items by their similarity, too."""

    def test_laplacian_is_symmetric_psd_with_zero_row_sums(self):
        factors = np.random.default_rng(0).standard_normal((40, 3))
        laplacian = similar_items(factors).laplacian.toarray()
        np.testing.assert_allclose(laplacian, laplacian.T)
        np.testing.assert_allclose(laplacian.sum(axis=1), 0, atol=1e-12)
        assert np.linalg.eigvalsh(laplacian).min() > -1e-9

    def test_strength_draws_similar_items_together(self, problem):
        lineage, answers = problem[:2]
        if answers.dtype != np.uint8:
            pytest.skip("proportions have no items to draw together")
        roughness = []
        for strength in (1e-6, 1e3):
            model = LRMF(rank=3, item_strength=strength).fit(answers, lineage)
            laplacian = similar_items(LRMF(rank=3).fit(answers, lineage).item_factors_).laplacian
            x = model.item_factors_
            roughness.append(np.sum(x * (laplacian @ x)) / np.sum(x * x))
        assert roughness[1] < 0.5 * roughness[0]
        objective = model.stats_["objective"]
        assert (np.diff(objective) <= 1e-6 * np.abs(objective[:-1])).all()

    def test_one_item_has_no_neighbours(self):
        assert similar_items(np.ones((1, 2))).laplacian.nnz == 0
