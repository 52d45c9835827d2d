"""What mutants of core formulas survived before: each test here names the term that it guards."""

import numpy as np
import pandas as pd
import pytest
from builders import tiny_tables
from draws import draw_answers, draw_proportions, random_lineage
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score

from lrmf import LRMF, Lineage
from lrmf.data.lineage import lacks_evaluated_relatives
from lrmf.evaluation.evaluate import evaluate
from lrmf.evaluation.splits import zero_shot
from lrmf.solver.answers import lay_out
from lrmf.solver.arcsine import ArcsineGaussian
from lrmf.solver.newton import AlternatingNewton
from lrmf.solver.prior import LineagePrior
from lrmf.solver.scores import (
    coverage_scale,
    unexplained_by_pairs,
    unexplained_variance,
    widened,
)


class Coarse(BaseEstimator):
    """Forecasts of three values only, so that most pairs of cells are tied."""

    def fit(self, responses, lineage, *, items, models=None):
        self.n_items_ = responses.shape[1]
        return self

    def predict_proba(self, rows, *, revealed=None):
        return np.add.outer(rows, np.arange(self.n_items_)) % 3 / 4 + 0.25


def test_auc_counts_tied_cells_half():
    tables = tiny_tables()
    lineage = Lineage.from_edges(tables["lineage"], tables["models"]["model_id"])
    splits = list(zero_shot(tables["responses"], lineage, n_folds=2))
    results, _ = evaluate(
        {"coarse": Coarse()}, splits, lineage, items=tables["items"], truth=tables["responses"]
    )
    auc = results[results["metric"] == "auc"].set_index("benchmark")["value"]
    forecast = Coarse().fit(tables["responses"], lineage, items=None).predict_proba
    for benchmark, columns in tables["items"].groupby("benchmark").indices.items():
        cells = [
            (
                tables["responses"][np.ix_(split.rows, columns)][split.target[:, columns]],
                forecast(split.rows)[:, columns][split.target[:, columns]],
            )
            for split in splits
        ]
        expected = roc_auc_score(*map(np.concatenate, zip(*cells, strict=True)))
        np.testing.assert_allclose(auc[benchmark], expected, rtol=1e-12)


def test_components_of_proportions_have_signs_that_do_not_depend_on_lapack():
    proportions = np.random.default_rng(0).uniform(0.1, 0.9, size=(30, 5))
    fitted = ArcsineGaussian.fit(proportions, n_trials=None, rank=3, node_variance=0.1)
    assert (fitted.loadings.sum(axis=0) >= 0).all()


def test_factors_share_their_penalty_evenly_between_models_and_items():
    """Of all factors with these logits the least penalty has M' (prior precision) M = r X'X."""
    lineage = random_lineage(20, seed=3)
    answers, _ = draw_answers(lineage, 50, seed=3)
    prior = LineagePrior(lineage, np.full(3, 1.0), np.full(3, 3.0))
    layout = lay_out(answers, np.random.default_rng(0))
    solver = AlternatingNewton(layout, prior, item_ridge=2.0, intercept_ridge=0.01)
    rng = np.random.default_rng(0)
    solver.models, solver.items = rng.normal(size=(lineage.n_nodes, 3)), rng.normal(size=(50, 3))
    logits = solver.models[:, :2] @ solver.items[:, :2].T
    solver._balance()
    of_models = solver.models[:, :2].T @ prior.multiply(solver.models)[:, :2]
    of_items = 2.0 * solver.items[:, :2].T @ solver.items[:, :2]
    np.testing.assert_allclose(of_models, of_items, atol=1e-4 * np.trace(of_items))
    np.testing.assert_allclose(solver.models[:, :2] @ solver.items[:, :2].T, logits, atol=1e-9)


@pytest.mark.parametrize("binary", [True, False])
def test_the_posterior_of_a_model_without_answers_are_its_fitted_state(binary):
    """Features and lineage add up to the same in the fit and in the message passing."""
    lineage = random_lineage(40, seed=5)
    if binary:
        responses, _ = draw_answers(lineage, 60, seed=5)
    else:
        options = {"ridge": 1.0, "strength": 3.0, "node_variance": 0.1, "n_trials": 200}
        responses = draw_proportions(lineage, 5, seed=5, **options)
    silent = np.array([4, 9])
    responses[silent] = 255 if binary else np.nan
    ids = lineage.node_ids[: lineage.n_models]
    sizes = np.exp(np.random.default_rng(0).standard_normal(len(ids)))
    models = pd.DataFrame({"model_id": ids, "params_b": sizes})
    model = LRMF(rank=2, use_features=True, tolerance=1e-12, max_sweeps=500)
    model.fit(responses, lineage, models=models)
    assert np.abs(model.prior_.at(model.states_).mean[silent]).max() > 0.01
    np.testing.assert_allclose(
        model.leave_one_out(silent).mean, model.states_[silent], atol=0.01, rtol=0.01
    )


def test_intervals_cover_a_new_model_as_split_conformal_prediction_does():
    """Of n errors the ceil(0.9 (n + 1))-th is covered, one more than 90% of n would need."""
    errors = np.arange(1.0, 30.0)[:, None]
    assert coverage_scale(errors)[0] * norm.ppf(0.95) >= errors[np.ceil(0.9 * 30).astype(int) - 1]
    assert coverage_scale(errors[:19]) == 1


def test_a_model_is_no_relative_of_its_own():
    edges = [("a", "b", "finetune")]
    lineage = Lineage.from_edges(edges, ["a", "b", "alone", "silent"])
    evaluated = np.array([True, False, True, False])
    assert lacks_evaluated_relatives(lineage, evaluated, np.arange(4)).tolist() == [
        True,
        False,
        True,
        True,
    ]


def test_variance_beyond_chance_is_told_from_chance():
    """Scores of 40 answers whose chances have a variance of 0.02 on the arcsine scale, or none."""
    rng = np.random.default_rng(0)
    score = rng.uniform(0.2, 0.8, (20_000, 1))
    chance = np.sqrt(score * (1 - score) / 40)
    for variance in (0.0, 0.02):
        y = 2 * np.arcsin(np.sqrt(score)) + np.sqrt(variance) * rng.standard_normal(score.shape)
        actual = rng.binomial(40, np.sin(np.clip(y, 0, np.pi) / 2) ** 2) / 40
        found = unexplained_variance(score, chance, actual)
        assert found[0] == pytest.approx(variance, abs=0.002)
        assert unexplained_variance(score[:19], chance[:19], actual[:19]) == 0
        spread = widened(score, chance, found)
        assert np.var((actual - score) / spread) == pytest.approx(1, abs=0.1)


def pairs(answers, expected):
    """Arguments of `unexplained_by_pairs` for scores of n answers with these expectations."""
    n = answers.shape[-1]
    score, actual = expected.mean(axis=-1), answers.mean(axis=-1)
    noise = (expected * (1 - expected)).sum(axis=-1) / n**2
    excess = ((answers - expected) ** 2).sum(axis=-1) / n**2 - noise
    return score, np.sqrt(noise), (actual - score) ** 2 - excess, np.full(score.shape, n)


@pytest.mark.parametrize("n", [2, 3, 40])
def test_variance_beyond_chance_from_single_answers(n):
    """Of one answer nothing can be told, of two as much as their product says."""
    rng = np.random.default_rng(1)
    expected = np.broadcast_to(rng.uniform(0.3, 0.7, (400_000 // n, 1, 1)), (400_000 // n, 1, n))
    y = 2 * np.arcsin(np.sqrt(expected)) + 0.2 * rng.standard_normal((len(expected), 1, 1))
    answers = rng.random(expected.shape) < np.sin(np.clip(y, 0, np.pi) / 2) ** 2
    found = unexplained_by_pairs(*pairs(answers, expected))
    assert found[0] == pytest.approx(0.2**2, abs=0.006)
    score, deviation, squared, n_target = pairs(answers[..., :1], expected[..., :1])
    assert unexplained_by_pairs(score, deviation, squared, n_target) == 0


def test_variance_beyond_chance_does_not_count_overfitted_answers():
    """Residuals that items learned by heart are small one by one: no variance is hidden by that."""
    rng = np.random.default_rng(3)
    expected = np.full((20_000, 1, 10), 0.5)
    y = np.pi / 2 + 0.3 * rng.standard_normal((20_000, 1, 1))
    answers = rng.random(expected.shape) < np.sin(y / 2) ** 2
    learned = expected + 0.3 * (answers - np.sin(y / 2) ** 2)
    score, deviation, *_ = pairs(answers, learned)
    actual = answers.mean(axis=-1)
    total = unexplained_variance(score, deviation, actual)
    by_pairs = unexplained_by_pairs(*pairs(answers, learned))
    assert by_pairs[0] == pytest.approx(0.3**2, rel=0.2)
    assert total[0] < by_pairs[0] - 0.01


def test_variance_beyond_chance_of_a_benchmark_with_little_to_say_is_near_the_mean():
    """Of three benchmarks, one with 2 answers a model: its own moment is worth little."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(40):
        y = np.pi / 2 + np.sqrt(0.02) * rng.standard_normal((100, 3, 1))
        columns = []
        for b, n in enumerate((500, 500, 2)):
            expected = np.full((100, 1, n), 0.5)
            answers = rng.random(expected.shape) < np.sin(y[:, [b]] / 2) ** 2
            columns.append(pairs(answers, expected))
        found.append(
            unexplained_by_pairs(*(np.hstack(part) for part in zip(*columns, strict=True)))
        )
    means, spread = np.mean(found, axis=0), np.std(found, axis=0)
    assert means[:2] == pytest.approx(0.02, abs=0.005)
    assert 0.01 < means[2] < 0.06
    # Alone, 100 products of two answers would say the variance only to within 0.1.
    assert spread[2] < 0.06
