import numpy as np
import pytest
from builders import tiny_snapshot
from predictor_contract import PredictorContract
from scipy.optimize import minimize
from scipy.special import expit

from lrmf.baselines.irt import INTERCEPT_RIDGE, SLOPE_RIDGE, ItemResponse
from lrmf.data.lineage import Lineage
from lrmf.data.responses import MISSING, observed

both_kinds = pytest.mark.parametrize("binary", [True, False], ids=["answers", "proportions"])
both_models = pytest.mark.parametrize("slopes", [True, False], ids=["2PL", "Rasch"])


def tiny(binary=True):
    snapshot = tiny_snapshot(binary=binary)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


class TestRasch(PredictorContract):
    estimator = ItemResponse(slopes=False)


class TestTwoParametersWithLineage(PredictorContract):
    estimator = ItemResponse(lineage_strength=3.0)
    permutation_tolerance = 5e-3


def drawn(*, n_models=1000, n_items=80, seed=0, slopes=True):
    """Simulated answers of a 2PL (or Rasch) model, a third missing, and the truth."""
    rng = np.random.default_rng(seed)
    ability, intercept = rng.normal(size=n_models), rng.normal(size=n_items)
    slope = rng.uniform(0.3, 2.0, n_items) if slopes else np.ones(n_items)
    probability = expit(intercept + np.outer(ability, slope))
    answers = (rng.random(probability.shape) < probability).astype(np.uint8)
    answers[rng.random(answers.shape) < 0.33] = MISSING
    return answers, ability, slope, intercept


@both_models
def test_parameters_are_recovered_from_simulated_answers(slopes):
    answers, ability, slope, intercept = drawn(slopes=slopes)
    model = ItemResponse(slopes=slopes).fit(answers)
    assert np.corrcoef(model.ability_, ability)[0, 1] > 0.93
    assert np.corrcoef(model.intercept_, intercept)[0, 1] > 0.97
    if slopes:
        assert np.corrcoef(model.slope_, slope)[0, 1] > 0.9
    else:
        assert (model.slope_ == 1).all()


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_rasch_is_the_joint_mode(strength):
    snapshot, lineage = tiny()
    seen = observed(snapshot.responses)
    laplacian = strength * lineage.laplacian.toarray()
    precision = laplacian + np.eye(lineage.n_nodes) / 0.7**2

    def objective(x):
        ability, intercept = x[: lineage.n_nodes], x[lineage.n_nodes :]
        logits = ability[:12, None] + intercept
        loss = np.logaddexp(0, logits) - np.where(seen, snapshot.responses, 0) * logits
        ridge = INTERCEPT_RIDGE * intercept @ intercept
        return loss[seen].sum() + (ability @ precision @ ability + ridge) / 2

    n_items = snapshot.responses.shape[1]
    best = minimize(objective, np.zeros(lineage.n_nodes + n_items), tol=1e-8)
    model = ItemResponse(slopes=False, lineage_strength=strength, ability_sd=0.7)
    model.fit(snapshot.responses, lineage)
    n_fitted = lineage.n_nodes if strength else 12
    fitted = np.concatenate([model.ability_[:n_fitted], model.intercept_])
    expected = np.delete(best.x, np.arange(n_fitted, lineage.n_nodes))
    np.testing.assert_allclose(fitted, expected, atol=0.03)


def test_2pl_is_stationary_in_its_own_objective():
    answers, *_ = drawn(n_models=60, n_items=30)
    model = ItemResponse(ability_sd=1.5).fit(answers)
    seen = observed(answers)
    logits = model.intercept_ + np.outer(model.ability_, model.slope_)
    error = np.where(seen, expit(logits) - answers, 0)
    by_ability = error @ model.slope_ + model.ability_ / 1.5**2
    by_slope = error.T @ model.ability_ + SLOPE_RIDGE * model.slope_
    by_intercept = error.sum(axis=0) + INTERCEPT_RIDGE * model.intercept_
    for gradient in (by_ability, by_slope, by_intercept):
        assert np.abs(gradient).max() < 0.25  # answers count 1 each; dozens a row or column


@both_kinds
@both_models
def test_few_shot_moves_towards_the_answers_and_lineage_towards_relatives(slopes, binary):
    snapshot, lineage = tiny(binary)
    cold = lineage.index_of("lab/beta-chat")
    family = np.flatnonzero(lineage.families[:12] == lineage.families[cold])
    train = snapshot.responses.copy()
    train[family] = 0
    train[cold] = MISSING if binary else np.nan
    alone = ItemResponse(slopes=slopes).fit(train, lineage, items=snapshot.items)
    related = ItemResponse(slopes=slopes, lineage_strength=3.0)
    related.fit(train, lineage, items=snapshot.items)
    lone, kin = (model.predict_proba([cold]).mean() for model in (alone, related))
    assert kin < lone - 0.05
    revealed = np.full((1, train.shape[1]), MISSING if binary else np.nan, train.dtype)
    revealed[0, ::2] = 1
    for model, before in ((alone, lone), (related, kin)):
        assert model.predict_proba([cold], revealed=revealed).mean() > before + 0.05


def test_without_lineage_strength_the_lineage_plays_no_part():
    snapshot, lineage = tiny()
    alone = ItemResponse().fit(snapshot.responses).predict_proba()
    shuffled = ItemResponse().fit(snapshot.responses, lineage.shuffled(0)).predict_proba()
    np.testing.assert_array_equal(alone, shuffled)


@pytest.mark.parametrize("options", [{"lineage_strength": -1}, {"ability_sd": 0}])
def test_unusable_parameters_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ItemResponse(**options).fit(np.ones((2, 2), np.uint8))
