"""Model cards correct forecasts where they say something, and only there."""

import numpy as np
import pandas as pd
import pytest
from draws import draw_proportions, random_lineage

from lrmf import LRMF, Forecaster
from lrmf.forecaster.card_correction import CardCorrection, correct
from lrmf.solver.gaussians import Gaussians

N, P = 300, 3
ALIKE = np.zeros((N, 4))  # no parents by any relation


def forecasts(seed=0):
    """Unbiased beliefs, errors that depend on the card's first column, and near-copies."""
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal((N, P))
    root = 0.3 * rng.standard_normal((P, P)) + np.eye(P)
    covariance = np.broadcast_to(root @ root.T, (N, P, P))
    precision = np.linalg.inv(covariance)
    belief = Gaussians(precision, np.einsum("nij,nj->ni", precision, mean))
    cards = rng.integers(0, 3, (N, 2)).astype(float)
    size = np.where(cards[:, 1] == 0, 0.2, 1.0)[:, None]  # copies differ by a fifth
    noise = size * (rng.standard_normal((N, P)) @ root.T)
    return belief, cards, mean + 2 * (cards[:, [0]] - 1) + noise


def exactly(states):
    """Posteriors of models whose responses leave nothing open."""
    precision = np.broadcast_to(1e6 * np.eye(states.shape[1]), (*states.shape, states.shape[1]))
    return Gaussians(precision, 1e6 * states)


def test_a_shift_that_cards_explain_is_taken_out():
    belief, cards, states = forecasts()
    correction = CardCorrection(np.eye(P)).fit(belief, exactly(states), cards, ALIKE)
    assert correction.weight > 0.7
    new_belief, new_cards, new_states = forecasts(seed=1)
    corrected = correction.correct(new_belief, new_cards, ALIKE)
    before = np.mean((new_states - new_belief.mean) ** 2)
    assert np.mean((new_states - corrected.mean) ** 2) < 0.6 * before


def test_widths_tell_near_copies_from_others():
    belief, cards, states = forecasts()
    correction = CardCorrection(np.eye(P)).fit(belief, exactly(states), cards, ALIKE)
    new_belief, new_cards, _ = forecasts(seed=1)
    spread = np.trace(correction.correct(new_belief, new_cards, ALIKE).covariance, axis1=1, axis2=2)
    copies = new_cards[:, 1] == 0
    assert np.median(spread[copies]) < 0.5 * np.median(spread[~copies])


def test_widths_tell_relations_that_jump_from_those_that_do_not():
    belief, cards, states = forecasts()
    relations = np.column_stack([cards[:, 1] > 0, cards[:, 1] == 0]).astype(float)
    correction = CardCorrection(np.eye(P)).fit(belief, exactly(states), cards[:, :1], relations)
    new_belief, new_cards, _ = forecasts(seed=1)
    spread = [
        np.trace(
            correction.correct(new_belief, new_cards[:, :1], np.tile(kind, (N, 1))).covariance,
            axis1=1, axis2=2,
        )
        for kind in ([1.0, 0.0], [0.0, 1.0])
    ]  # fmt: skip
    assert np.median(spread[1]) < 0.5 * np.median(spread[0])


def test_cards_that_say_nothing_change_little():
    belief, _, _ = forecasts()
    rng = np.random.default_rng(5)
    root = np.linalg.cholesky(belief.covariance)
    states = belief.mean + np.einsum("nij,nj->ni", root, rng.standard_normal((N, P)))
    correction = CardCorrection(np.eye(P)).fit(belief, exactly(states), rng.random((N, 4)), ALIKE)
    assert correction.weight < 0.2
    ratio = np.trace(correction.corrected.covariance, axis1=1, axis2=2)
    ratio /= np.trace(belief.covariance, axis1=1, axis2=2)
    assert 0.5 < np.median(ratio) < 2


def test_without_cards_means_stay():
    belief, cards, states = forecasts()
    correction = CardCorrection(np.eye(P), use_cards=False).fit(
        belief, exactly(states), cards, ALIKE
    )
    np.testing.assert_allclose(
        correction.correct(belief, cards, ALIKE).mean, belief.mean, atol=1e-9
    )


def test_the_order_of_components_does_not_matter():
    belief, cards, states = forecasts()
    swap = np.array([2, 0, 1])
    swapped = Gaussians(belief.precision[:, swap][:, :, swap], belief.information[:, swap])
    gram = np.diag([1.0, 2.0, 3.0])
    one = CardCorrection(gram, use_cards=False).fit(belief, exactly(states), cards[:, :0], ALIKE)
    other = CardCorrection(gram[swap][:, swap], use_cards=False)
    other.fit(swapped, exactly(states[:, swap]), cards[:, :0], ALIKE)
    np.testing.assert_allclose(one.corrected.mean[:, swap], other.corrected.mean, atol=1e-9)


def test_models_that_say_nothing_of_themselves_keep_the_forecast():
    """Their posterior is the forecast: the width must stay, not shrink to nothing."""
    belief, cards, _ = forecasts()
    correction = CardCorrection(np.eye(P)).fit(belief, belief, cards, ALIKE)
    np.testing.assert_allclose(correction.corrected.mean, belief.mean, atol=1e-6)
    np.testing.assert_allclose(correction.corrected.covariance, belief.covariance, rtol=0.02)


@pytest.fixture(scope="module")
def fitted():
    lineage = random_lineage(150, seed=2)
    proportions = draw_proportions(
        lineage, 4, seed=2, ridge=1.0, strength=3.0, jump=0.1, n_trials=500
    )
    proportions[140:] = np.nan
    models = pd.DataFrame({
        "model_id": lineage.node_ids[:150], "params_b": np.where(np.arange(150) % 2, 7.0, 70.0)
    })  # fmt: skip
    model = LRMF(4, 3.0).fit(proportions, lineage)
    return model, models


def test_every_model_gets_a_belief(fitted):
    model, models = fitted
    belief, correction = correct(model, models)
    assert belief.mean.shape == (150, 4) and np.isfinite(belief.mean).all()
    assert (np.linalg.eigvalsh(belief.covariance) > 0).all()
    assert correction.corrected.mean.shape == (140, 4)


def test_a_single_column_is_enough():
    lineage = random_lineage(120, seed=2)
    proportions = draw_proportions(
        lineage, 1, seed=2, ridge=1.0, strength=3.0, jump=0.1, n_trials=500
    )
    dates = pd.date_range("2024-01-01", periods=120).strftime("%Y-%m-%d")
    models = pd.DataFrame({"model_id": lineage.node_ids[:120], "evaluated_at": dates})
    scores = Forecaster(tuned=False).fit(proportions, lineage, models=models).predict_scores()
    assert scores[["score", "lower", "upper"]].notna().all(axis=None)


def test_too_few_models_are_left_as_they_are():
    lineage = random_lineage(20, seed=3)
    proportions = draw_proportions(
        lineage, 3, seed=3, ridge=1.0, strength=3.0, jump=0.1, n_trials=500
    )
    model = LRMF(3, 3.0).fit(proportions, lineage)
    belief, correction = correct(model, None)
    assert correction is None
    np.testing.assert_array_equal(belief.mean, model.leave_one_out(np.arange(20)).mean)
