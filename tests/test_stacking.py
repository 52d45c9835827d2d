"""Boosted trees as a second opinion: followed as far as they have been right."""

import numpy as np
import pandas as pd
import pytest
from draws import draw_answers, draw_proportions, random_lineage

from lrmf import LRMF
from lrmf.data.response_kinds import from_arcsine
from lrmf.forecaster.stacking import Stacking, _covariance

N = 240


@pytest.fixture(scope="module", params=["answers", "proportions"])
def fitted(request):
    """A fit without the size of the models, on which their scores depend."""
    lineage = random_lineage(N, seed=6)
    size = np.where(np.random.default_rng(1).random(N) < 0.5, 7.0, 70.0)
    rng = np.random.default_rng(2)
    if request.param == "answers":
        truth, _ = draw_answers(lineage, 60, seed=6, density=1.0, ridge=0.5, strength=3.0)
        flips = rng.random(truth.shape) < 0.5 * (size > 10)[:, None]
        responses = np.where(flips, 1, truth).astype(np.uint8)
        benchmark = np.repeat(["one", "two"], 30)
        items = pd.DataFrame(
            {"item_id": np.arange(60).astype(str), "benchmark": benchmark, "n_trials": 1}
        )
    else:
        truth = draw_proportions(
            lineage, 4, seed=6, ridge=1.0, strength=3.0, jump=0.1, n_trials=400
        )
        responses = np.where((size > 10)[:, None], 1 - 0.5 * (1 - truth), truth)
        responses, items = responses.astype(np.float32), None
    models = pd.DataFrame({"model_id": lineage.node_ids[:N], "params_b": size})
    model = LRMF(3, 3.0).fit(responses, lineage, items=items)
    return model, model.leave_one_out(np.arange(N)), models


def errors(model, belief):
    expected = model.likelihood_.forecast(belief.mean, belief.covariance)[0]
    return np.mean((expected.mean(axis=1) - model.responses_.mean(axis=1)) ** 2)


def test_scores_that_trees_explain_are_forecast_better(fitted):
    model, belief, models = fitted
    stacking = Stacking().fit(model, belief, models)
    assert stacking.weight > 0.3
    assert errors(model, stacking.stacked) < 0.8 * errors(model, belief)


def test_trees_without_anything_to_go_by_change_little(fitted):
    model, belief, models = fitted
    shuffled = models.assign(params_b=np.random.default_rng(0).permutation(models["params_b"]))
    stacking = Stacking().fit(model, belief, shuffled)
    assert errors(model, stacking.stacked) == pytest.approx(errors(model, belief), rel=0.1)


def test_widths_stay(fitted):
    model, belief, models = fitted
    stacking = Stacking().fit(model, belief, models)
    np.testing.assert_array_equal(stacking.stacked.precision, belief.precision)


def test_a_step_moves_the_scores_as_a_measurement_would(fitted):
    """With the weight 1: z + S (S + R)^-1 (y - z), S the covariance of the scores, by hand."""
    model, belief, models = fitted
    stacking = Stacking().fit(model, belief, models)
    trees = stacking._grow(model, models)
    row, forecast = np.array([3]), from_arcsine(trees.forecast(np.array([3])))
    score, moved, offset = stacking._steps(model, belief[row], trees, forecast)
    step = 1e-4
    slope = []
    for component in np.eye(offset.shape[1]):
        up, down = (belief[row].shift(sign * step * component[None]) for sign in (1, -1))
        high, low = (stacking._steps(model, part, trees, forecast)[0] for part in (up, down))
        slope.append((high - low)[0] / (2 * step))
    slope, covariance = np.array(slope).T, belief[row].covariance[0]
    spread = slope @ covariance @ slope.T
    gap = np.linalg.solve(spread + stacking.noise, (forecast - score)[0])
    np.testing.assert_allclose(moved[0], spread @ gap, atol=0.02)
    np.testing.assert_allclose(offset[0], covariance @ slope.T @ gap, rtol=0.15, atol=0.02)


def test_scores_that_are_never_known_together_are_no_exact_measurements(fitted):
    errors = np.random.default_rng(0).normal(scale=0.1, size=(90, 3))
    errors[np.arange(90), np.arange(90) % 3] = np.nan
    errors[:, 2] = np.nan
    noise = _covariance(errors)
    assert np.diag(noise)[:2] == pytest.approx(0.01, rel=0.5) and noise[2, 2] == 1
    assert (np.linalg.eigvalsh(noise) > 0).all()


def test_models_of_another_fit_are_moved_by_the_weight_learned(fitted):
    model, belief, models = fitted
    stacking = Stacking().fit(model, belief, models)
    rows = np.array([0, 5])
    moved = stacking.stack(model, belief[rows], models, rows)
    assert moved.mean.shape == (2, belief.mean.shape[1])
    stacking.weight = 0.0
    still = stacking.stack(model, belief[rows], models, rows)
    np.testing.assert_allclose(still.mean, belief[rows].mean)
