"""Metrics against plain NumPy and SciPy."""

import warnings

import numpy as np
import pandas as pd
import pytest

from lrmf.evaluation import metrics


def test_a_benchmark_that_tells_no_models_apart_has_no_reliability():
    items = pd.DataFrame({"benchmark": ["same", "same", "some", "some", "alone"]})
    rng = np.random.default_rng(0)
    some = np.repeat(rng.integers(0, 2, size=(30, 1)), 2, axis=1)
    answers = np.column_stack([np.ones((30, 2)), some, some[:, 0]]).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ceiling = metrics.split_half_ceiling(answers, items, n_splits=3)
    assert ceiling["same"] == 0
    assert ceiling["some"] == pytest.approx(1)
    assert np.isnan(ceiling["alone"])


def forecasts(*, model, benchmark, actual, predicted, expected=0.0):
    """A frame of forecasts of one predictor, without intervals or losses."""
    frame = {"predictor": "mine", "seed": 0, "model_id": model, "benchmark": benchmark}
    frame |= {"actual": actual, "predicted": predicted, "expected": expected, "n_items": 10}
    empty = dict.fromkeys(["lower", "upper", "log_loss", "brier"], np.nan)
    return pd.DataFrame(frame | empty)


def value(scores, benchmark, metric):
    chosen = scores[(scores["benchmark"] == benchmark) & (scores["metric"] == metric)]
    return chosen["value"].item()


def test_the_average_does_not_reward_being_evaluated_on_an_easy_benchmark():
    models = list("abcdef")
    scores = metrics.score_forecasts(
        forecasts(
            model=models,
            benchmark=["easy"] * 3 + ["hard"] * 3,
            actual=[0.9, 0.8, 0.7, 0.3, 0.2, 0.1],
            predicted=[0.3, 0.2, 0.1, 0.9, 0.8, 0.7],
        ),
        by=["predictor"],
    )
    assert value(scores, "easy", "pearson") == pytest.approx(1)
    assert value(scores, "average", "pearson") == pytest.approx(1)
    assert value(scores, "average", "mae") == pytest.approx(60)


def test_skill_is_what_exceeds_the_expectation_of_the_target_cells():
    """Forecasts that only know how easy a model's cells are rank nobody."""
    rng = np.random.default_rng(0)
    easiness, skill = rng.uniform(0.2, 0.8, 40), rng.uniform(-0.1, 0.1, 40)
    models = [f"m{n}" for n in range(40)]
    frame = forecasts(
        model=models,
        benchmark="math",
        actual=easiness + skill,
        predicted=easiness + 0.5 * skill,
        expected=easiness,
    )
    scores = metrics.score_forecasts(frame, by=["predictor"])
    assert value(scores, "math", "pearson") == pytest.approx(1)
    blind = metrics.score_forecasts(frame.assign(predicted=easiness), by=["predictor"])
    assert value(blind, "math", "pearson") == 0


def test_interval_metrics_of_misses_on_either_side():
    frame = forecasts(
        model=list("abc"), benchmark="math", actual=[0.1, 0.5, 0.9], predicted=[0.4, 0.5, 0.6]
    ).assign(lower=[0.3, 0.4, 0.5], upper=[0.5, 0.6, 0.7])
    scores = metrics.score_forecasts(frame, by=["predictor"])
    assert value(scores, "math", "coverage") == pytest.approx(1 / 3)
    assert value(scores, "math", "width") == pytest.approx(20)
    # Winkler (1972) at 90%: the width, and 2 / 0.1 times what the interval misses.
    expected = 100 * np.mean([0.2 + 20 * 0.2, 0.2, 0.2 + 20 * 0.2])
    assert value(scores, "math", "interval_score") == pytest.approx(expected)


def test_a_constant_forecast_ranks_nobody_though_it_differs_between_folds():
    """A fold's training mean is low where its held-out models are good."""
    frame = forecasts(
        model=list("abcdef"),
        benchmark="math",
        actual=[0.8, 0.7, 0.9, 0.2, 0.3, 0.1],
        predicted=[0.4] * 3 + [0.6] * 3,
        expected=0.5,
    ).assign(fold=[0] * 3 + [1] * 3)
    scores = metrics.score_forecasts(frame, by=["predictor"])
    assert value(scores, "math", "pearson") == 0
    assert value(scores, "math", "spearman") == 0
    ranked = frame.assign(predicted=frame["predicted"] + [0, 0, 0.1, 0, 0, 0])
    assert value(metrics.score_forecasts(ranked, by=["predictor"]), "math", "pearson") < 0
