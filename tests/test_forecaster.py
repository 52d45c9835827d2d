"""The forecaster: what its ingredients may and may not do, over answers and proportions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import missing
from draws import draw_answers, draw_proportions, random_lineage
from predictor_contract import PredictorContract

from lrmf import LRMF, Forecaster
from lrmf.data.response_kinds import kind_of
from lrmf.data.responses import MISSING, observed, without
from lrmf.forecaster.forecaster import CrossFitConfig
from lrmf.forecaster.tuning import tune
from lrmf.solver.bernoulli import Bernoulli
from lrmf.solver.calibration import IntervalCalibration
from lrmf.solver.factorization import LIKELIHOODS
from lrmf.solver.scores import standardised_error

N_MODELS, N_HIDDEN = 200, 40


def columns(n_items, n_trials):
    benchmark = ["even", "odd"] * (n_items // 2)
    ids = [f"i{number}" for number in range(n_items)]
    return pd.DataFrame({"item_id": ids, "benchmark": benchmark, "n_trials": n_trials})


def cards(lineage):
    size = np.where(np.arange(N_MODELS) % 3, 7.0, 70.0)
    days = pd.date_range("2024-01-01", periods=N_MODELS).strftime("%Y-%m-%d")
    ids = lineage.node_ids[:N_MODELS]
    return pd.DataFrame({"model_id": ids, "params_b": size, "evaluated_at": days})


@pytest.fixture(scope="module", params=["answers", "proportions"])
def problem(request):
    lineage = random_lineage(N_MODELS, seed=4, n_unscored=5, n_loops=5)
    if request.param == "answers":
        truth, _ = draw_answers(lineage, 60, seed=4, density=0.9, ridge=0.2, strength=3.0)
        items = columns(60, 1)
    else:
        truth = draw_proportions(
            lineage, 4, seed=4, ridge=1.0, strength=3.0, jump=0.1, n_trials=400
        )
        items = columns(4, 400)
    hidden = np.sort(np.random.default_rng(0).permutation(N_MODELS)[:N_HIDDEN])
    train = without(truth, hidden)
    return lineage, truth, train, hidden, items, cards(lineage)


@pytest.fixture(scope="module")
def fitted(problem):
    """With the default parameters: only `TestTuning` is about tuned ones."""
    lineage, _, train, _, items, models = problem
    return Forecaster(tuned=False).fit(train, lineage, items=items, models=models)


@pytest.fixture(scope="module")
def tuned(problem):
    """A forecaster of which three parameters are given, the others tuned."""
    lineage, _, train, _, items, models = problem
    model = Forecaster(rank=2, lineage_strength=5.0, use_features=False)
    return model.fit(train, lineage, items=items, models=models)


class TestForecaster(PredictorContract):
    estimator = Forecaster(rank=2, tuned=False)


def mean_error(forecast, truth):
    seen = observed(truth)
    return np.mean((forecast - truth)[seen] ** 2)


def test_hidden_models_are_forecast_at_least_as_well_as_by_lrmf_alone(problem, fitted):
    lineage, truth, train, hidden, items, models = problem
    alone = LRMF(**fitted.model_.get_params()).fit(train, lineage, items=items, models=models)
    own, other = fitted.predict_proba(hidden), alone.predict_proba(hidden)
    assert mean_error(own, truth[hidden]) < 1.03 * mean_error(other, truth[hidden])
    flat = np.broadcast_to(np.nanmean(np.where(observed(train), train, np.nan), axis=0), own.shape)
    assert mean_error(own, truth[hidden]) < 0.97 * mean_error(flat, truth[hidden])


def test_revealed_responses_help(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    revealed = truth[hidden].copy()
    revealed[:, truth.shape[1] // 2 :] = missing(truth)
    target = observed(truth[hidden]) & ~observed(revealed)
    without = fitted.predict_proba(hidden)
    with_them = fitted.predict_proba(hidden, revealed=revealed)
    error = [((p - truth[hidden])[target] ** 2).mean() for p in (without, with_them)]
    assert error[1] < error[0]


def test_scores_are_means_of_the_expected_responses(problem, fitted):
    _, truth, _, hidden, items, _ = problem
    scores = fitted.predict_scores(hidden)
    expected = pd.DataFrame(fitted.predict_proba(hidden).T).groupby(items["benchmark"]).mean()
    wide = scores.pivot(index="row", columns="benchmark", values="score")
    np.testing.assert_allclose(wide[["even", "odd"]].to_numpy(), expected.T, atol=1e-6)
    assert (scores["lower"] <= scores["score"]).all() and (scores["score"] <= scores["upper"]).all()
    assert (scores["n_observed"] == 0).all()


def test_intervals_cover_hidden_models(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    target = observed(truth[hidden])
    scores = fitted.predict_scores(hidden, target=target)
    actual = fitted.scores_.actual(truth[hidden], target).ravel()
    inside = (scores["lower"] <= actual) & (actual <= scores["upper"])
    assert 0.8 <= inside.mean() <= 0.99


def test_intervals_narrow_with_what_is_revealed(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    widths = []
    for known in (0, 1, 3):
        revealed = truth[hidden].copy()
        revealed[:, known * truth.shape[1] // 4 :] = missing(truth)
        scores = fitted.predict_scores(hidden, revealed=revealed)
        widths.append((scores["upper"] - scores["lower"]).mean())
    assert widths[0] > widths[1] > widths[2]


def forecast_of_the_latest(problem, better, *, share, **parameters):
    """Scores of the last model, with dates and without, if late models got `better` at columns."""
    lineage, truth, _, _, items, models = problem
    late = np.flatnonzero(np.arange(N_MODELS) >= int(0.8 * N_MODELS))
    changed = truth.copy()
    raised = np.random.default_rng(3).random((late.size, truth.shape[1])) < share
    changed[late] = np.where(raised & observed(truth[late]), better(late)[:, None], truth[late])
    hidden = np.array([N_MODELS - 1])
    changed[hidden] = missing(truth)
    return [
        Forecaster(tuned=False, **parameters)
        .fit(changed, lineage, items=items, models=table)
        .predict_scores(hidden)
        .eval("width = upper - lower")
        .mean(numeric_only=True)
        for table in (models, models.drop(columns="evaluated_at"))
    ]


def test_forecasts_of_later_models_move_with_the_drift(problem):
    dated, undated = forecast_of_the_latest(problem, lambda late: np.full(late.size, 1), share=0.5)
    assert dated["score"] > undated["score"] + 0.03


def test_a_model_that_nobody_has_evaluated_is_later_by_its_creation(problem, fitted):
    lineage, truth, train, hidden, items, models = problem
    new = hidden[-1]
    dates = models["evaluated_at"].where(models.index != new)
    for created, is_later in (("2030-01-01", True), ("2020-01-01", False), (None, False)):
        table = models.assign(
            evaluated_at=dates, created_at=pd.Series({new: created}, dtype=object)
        )
        model = Forecaster(rank=2, tuned=False, use_features=False, use_trees=False)
        model.fit(train, lineage, items=items, models=table)
        assert model.drift_.is_later[new] == is_later


def test_later_models_have_wider_intervals_where_late_ones_scatter(problem):
    dated, undated = forecast_of_the_latest(
        problem, lambda late: late % 2, share=0.5, use_trees=False
    )
    assert dated["width"] > 1.05 * undated["width"]
    assert abs(dated["score"] - undated["score"]) < 0.1


def test_a_saved_forecaster_forecasts_the_same(problem, fitted):
    lineage, _, train, hidden, _, models = problem
    loaded = Forecaster.from_arrays(fitted.to_arrays())
    assert loaded.get_params() == fitted.get_params()
    again = loaded.adapt(train, lineage, models=models)
    np.testing.assert_allclose(again.predict_proba(hidden), fitted.predict_proba(hidden), atol=0.02)


def test_same_bytes_on_repeat_and_for_any_number_of_threads(problem, fitted):
    lineage, _, train, _, items, models = problem
    again = Forecaster(tuned=False, n_threads=1).fit(train, lineage, items=items, models=models)
    assert again.predict_proba().tobytes() == fitted.predict_proba().tobytes()
    assert again.predict_scores().equals(fitted.predict_scores())


def test_without_lineage_relatives_do_not_matter(problem):
    lineage, _, train, hidden, items, models = problem
    forecasts = [
        Forecaster(use_lineage=False, tuned=False)
        .fit(train, known, items=items, models=models)
        .predict_proba(hidden)
        for known in (lineage, lineage.shuffled(1))
    ]
    np.testing.assert_array_equal(*forecasts)


def test_without_cards_the_models_table_does_not_matter(problem):
    lineage, _, train, hidden, items, models = problem
    other = models.assign(params_b=models["params_b"].to_numpy()[::-1])
    forecasts = [
        Forecaster(use_features=False, tuned=False)
        .fit(train, lineage, items=items, models=table)
        .predict_proba(hidden)
        for table in (models, other)
    ]
    np.testing.assert_array_equal(*forecasts)


def test_answers_of_hidden_models_are_never_seen(problem, fitted):
    """A response that is missing in the training matrix has no way into the forecast."""
    lineage, truth, train, hidden, items, models = problem
    revealed = np.full(truth[hidden].shape, missing(truth), truth.dtype)
    np.testing.assert_allclose(
        fitted.predict_proba(hidden, revealed=revealed), fitted.predict_proba(hidden), atol=1e-6
    )


def test_less_trust_in_the_prior_follows_the_answers_sooner(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    is_binary = truth.dtype == np.uint8
    revealed = np.full((1, truth.shape[1]), MISSING if is_binary else np.nan, truth.dtype)
    revealed[0, : truth.shape[1] // 2] = 1
    rows, model, means = hidden[:1], fitted.model_, []
    own = model.few_shot_trust
    for trust in (10.0, 1.0, 0.1):
        model.set_params(few_shot_trust=trust)
        states = fitted._states(rows, revealed)
        expected = fitted.likelihood_.forecast(states.mean, states.covariance)[0]
        means.append(expected[observed(revealed)].mean())
    model.set_params(few_shot_trust=own)
    assert means[0] < means[1] < means[2]


class TestTuning:
    def test_the_curve_shows_the_choice(self, problem):
        lineage, _, train, _, items, models = problem
        parameters, curve = tune(train, lineage, items=items, models=models, fixed={})
        chosen = curve[curve["chosen"]].set_index("parameter")
        assert (curve.groupby("parameter")["chosen"].sum() == 1).all()
        for name, row in chosen.iterrows():
            assert parameters[name] == row["value"]
        best = curve.groupby("parameter")["loss"].min()
        assert (chosen["loss"] <= 1.01 * best.reindex(chosen.index) + 1e-12).all()

    def test_the_right_lineage_forecasts_better_than_a_shuffled_one(self, problem):
        lineage, _, train, _, items, models = problem
        fixed = dict(LIKELIHOODS[kind_of(train)].defaults, rank=4)
        del fixed["lineage_strength"]
        losses = [
            tune(train, known, items=items, models=models, fixed=fixed)[1]["loss"].min()
            for known in (lineage, lineage.shuffled(2))
        ]
        assert losses[0] < losses[1]

    def test_what_is_chosen_is_what_is_used(self, problem, tuned):
        """Every parameter of the grid but those that are given."""
        grid = LIKELIHOODS[kind_of(problem[1])].grid
        assert set(tuned.chosen_) == set(grid) - {"rank", "lineage_strength", "use_features"}
        used = tuned.model_.get_params()
        assert used["rank"] == 2 and used["lineage_strength"] == 5.0 and not used["use_features"]
        assert tuned.chosen_ == {name: used[name] for name in tuned.chosen_}

    @pytest.mark.slow
    def test_a_forecaster_without_given_parameters_is_the_same_on_repeat(self, problem):
        lineage, _, train, _, items, models = problem
        one, other = (
            Forecaster(n_threads=n_threads).fit(train, lineage, items=items, models=models)
            for n_threads in (None, 1)
        )
        grid, n_items = LIKELIHOODS[kind_of(problem[1])].grid, train.shape[1]
        assert set(one.chosen_) == set(grid)
        used = one.model_.get_params() | {"rank": one.chosen_.get("rank")}
        assert one.chosen_ == {name: used[name] for name in grid}
        assert one.model_.rank == min(one.chosen_.get("rank", n_items), n_items)
        pd.testing.assert_frame_equal(one.tuning_, other.tuning_)
        assert one.predict_proba().tobytes() == other.predict_proba().tobytes()

    def test_many_factors_are_chosen_only_where_there_are_many(self):
        """Answers by one ability and by twelve: the second needs the larger rank."""
        lineage = random_lineage(300, seed=2)
        ranks = []
        for n_factors in (1, 12):
            rng = np.random.default_rng(n_factors)
            state = rng.standard_normal((300, n_factors))
            logit = 6 / np.sqrt(n_factors) * state @ rng.standard_normal((n_factors, 400))
            answers = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
            fixed = {"lineage_strength": 0.0, "item_ridge": 3.0, "node_ridge": 1.0}
            parameters, _ = tune(answers, lineage, items=None, models=None, fixed=fixed)
            ranks.append(parameters["rank"])
        assert ranks[0] < ranks[1]

    @pytest.mark.parametrize("n_answers", [1, 2, 6])
    def test_a_few_answers_of_each_model_are_enough(self, n_answers):
        lineage = random_lineage(300, seed=4, n_unscored=5)
        answers, _ = draw_answers(lineage, 100, seed=4, density=1.0, ridge=0.2, strength=3.0)
        place = np.random.default_rng(0).random(answers.shape).argsort(axis=1).argsort(axis=1)
        few = np.where(place < n_answers, answers, MISSING)
        _, curve = tune(few, lineage, items=None, models=None, fixed={"rank": 2})
        assert np.isfinite(curve["loss"]).all() and (curve["loss"] > 0).all()

    def test_few_models_keep_the_defaults(self, problem):
        lineage, _, train, _, items, models = problem
        few = without(train, np.arange(10, N_MODELS))
        parameters, curve = tune(few, lineage, items=items, models=models, fixed={"rank": 2})
        assert curve.empty and parameters["rank"] == 2


def test_bad_input_is_refused_before_anything_is_fitted(problem):
    lineage, _, train, _, items, _ = problem
    with pytest.raises(ValueError, match="the lineage has"):
        Forecaster().fit(train[:5], lineage, items=items)
    with pytest.raises(ValueError, match="no response is observed"):
        Forecaster().fit(np.full_like(train, missing(train)), lineage, items=items)


def test_widths_between_calibrated_numbers_of_responses_are_interpolated():
    """Linearly in log(1 + n): here the j-th calibrated number has the factor j + 1."""
    levels = np.array([0, 5, 20])
    scale = np.ones((3, 2, 2)) * (1 + np.arange(3))[:, None, None]
    calibration = IntervalCalibration(levels, np.zeros_like(scale), scale)
    between = np.arange(30)
    half = np.full((between.size, 2), 0.5)
    factor = calibration(half, 0.1 * half, between, np.zeros(between.size, bool)) / (0.1 * half)
    expected = np.interp(np.log1p(between), np.log1p(levels), 1 + np.arange(3))
    np.testing.assert_allclose(factor, np.column_stack([expected, expected]))


def test_standardised_errors_are_in_deviations():
    score, deviation = np.array([[0.5]]), np.array([[0.05]])
    error = standardised_error(score, deviation, np.array([[0.55]]))
    assert error[0, 0] == pytest.approx(1.0, rel=0.01)


def test_choosing_parameters_finds_nothing_in_coin_flips():
    """Hidden models' answers are in no fit: their loss cannot be below that of a coin."""
    lineage = random_lineage(N_MODELS, seed=4)
    answers = np.random.default_rng(0).integers(0, 2, (N_MODELS, 200)).astype(np.uint8)
    answers[np.random.default_rng(1).random(answers.shape) < 0.9] = MISSING
    fixed = {"rank": 8, "lineage_strength": 1.0}
    _, curve = tune(answers, lineage, items=None, models=cards(lineage), fixed=fixed)
    assert set(curve["parameter"]) == set(Bernoulli.grid) - set(fixed)
    assert (curve["loss"] > 2 * np.log(2)).all()  # without answers, and with some


def test_intervals_allow_for_what_the_states_of_a_model_leave_out():
    """Every model is better or worse at a benchmark than its one factor can say."""
    rng = np.random.default_rng(0)
    n_models, per_benchmark, names = 600, 200, ["a", "b", "c"]
    benchmark = np.repeat(names, per_benchmark)
    own = rng.standard_normal((n_models, 3)).repeat(per_benchmark, axis=1)
    logit = rng.standard_normal((n_models, 1)) + own + rng.standard_normal(benchmark.size)
    answers = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    seen = rng.random(logit.shape) < 0.1
    lineage = random_lineage(n_models, seed=1)
    items = pd.DataFrame({"item_id": np.arange(benchmark.size), "benchmark": benchmark})
    model = Forecaster(rank=1, tuned=False, use_near_duplicates=False)
    model.fit(np.where(seen, answers, MISSING), lineage, items=items.assign(n_trials=1))
    scores = model.predict_scores()
    actual = np.stack([answers[:, benchmark == name].mean(axis=1) for name in names], axis=1)
    inside = (scores["lower"] <= actual.ravel()) & (actual.ravel() <= scores["upper"])
    assert 0.85 < inside.mean() < 0.95


def sparse_problem(monkeypatch, *, n_models=600, n_items=200):
    """8 answers an item, and few enough models to calibrate on that the others can do without."""
    monkeypatch.setattr(Forecaster, "_config", CrossFitConfig(most_cells=40 * n_items))
    lineage = random_lineage(n_models, seed=7, n_unscored=5, n_loops=5)
    answers, _ = draw_answers(lineage, n_items, seed=7, density=1.0, ridge=0.2, strength=3.0)
    given = np.random.default_rng(8).random(answers.shape) < 8 / n_models
    return lineage, answers, np.where(given, answers, MISSING), columns(n_items, 1)


def test_intervals_cover_where_items_have_few_answers(monkeypatch):
    """Items learn 8 answers by heart: who calibrates on these sees hardly an error."""
    lineage, answers, train, items = sparse_problem(monkeypatch)
    forecaster = Forecaster(rank=4, tuned=False, use_near_duplicates=False)
    covered = {}
    for known_by_heart in (0, 50):
        config = replace(Forecaster._config, enough_answers=known_by_heart)
        monkeypatch.setattr(Forecaster, "_config", config)
        scores = forecaster.fit(train, lineage, items=items).predict_scores(target=~observed(train))
        hidden = np.where(observed(train), MISSING, answers)
        actual = forecaster.scores_.actual(hidden, observed(hidden)).ravel()
        covered[known_by_heart] = scores["lower"].le(actual) & scores["upper"].ge(actual)
    assert covered[50].mean() > covered[0].mean() + 0.03
    assert covered[50].mean() > 0.8


def test_who_calibrates_is_unknown_to_the_items(monkeypatch):
    lineage, _, train, items = sparse_problem(monkeypatch)
    forecaster = Forecaster(rank=2, tuned=False, use_near_duplicates=False).fit(
        train, lineage, items=items
    )
    rows = forecaster._choose(np.random.default_rng([0, 11]))
    cross_fitted = forecaster._cross_fitted(rows, None)
    flipped = train.copy()
    flipped[rows] = np.where(observed(train[rows]), 1 - train[rows], MISSING)
    other = Forecaster(rank=2, tuned=False, use_near_duplicates=False).fit(
        flipped, lineage, items=items
    )
    again = other._cross_fitted(rows, None)
    np.testing.assert_array_equal(cross_fitted.model_.item_factors_, again.model_.item_factors_)
    assert not np.array_equal(forecaster.model_.item_factors_, other.model_.item_factors_)
