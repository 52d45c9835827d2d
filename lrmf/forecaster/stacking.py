"""Stacking: boosted trees' forecasts of benchmark scores move the beliefs about states."""

import numpy as np
import pandas as pd

from ..baselines.boosting import BoostedTrees
from ..data.response_kinds import from_arcsine
from ..solver.prediction import BLOCK

_TREES = {"learning_rate": 0.15, "max_iter": 60}
_FEWEST = 20  # models behind a covariance
_UNKNOWN = 1.0  # variance of a score's error where there are fewer
_LARGEST = 2.0  # weight: what the trees know may be more than their errors suggest


class Stacking:
    r"""Beliefs moved towards the benchmark scores that boosted trees forecast.

    Trees read the same facts as the lineage model in another way, so the two err differently
    (stacked generalization; Wolpert, 1992; Breiman, 1996). With z_u the scores expected of the
    belief N(m_u, Sigma_u), J_u their slopes by the state, y_u the trees' scores (out of fold for
    the models that they learn from) and R the covariance of the trees' errors,

        m_u += a Sigma_u J_u' (J_u Sigma_u J_u' + R)^-1 (y_u - z_u),

    as if y_u were a measurement of z_u, but for the weight a: the errors of trees and belief are
    not independent. It minimises the squared error of the training models' scores.

    Parameters
    ----------
    use_names : bool, whether trees see the scores of `similar_names`
    seed : int

    Attributes
    ----------
    weight : float in [0, 2], a
    noise : (n_benchmarks, n_benchmarks), R
    stacked : Gaussians (n_models)
    """

    def __init__(self, *, use_names=True, seed=0):
        self.use_names, self.seed = use_names, seed

    def fit(self, model, belief, models):
        """Learn weight and noise.

        Parameters
        ----------
        model : LRMF, fitted
        belief : Gaussians (n_models), without the models' own responses
        models : DataFrame or None, the models table
        """
        trees = self._grow(model, models)
        forecast, actual = from_arcsine(trees.out_of_fold), from_arcsine(trees.y_)
        self.noise = _covariance(actual - forecast)
        score, moved, offset = self._steps(model, belief, trees, forecast)
        # Least squares of the remaining error on the full step.
        error = actual - score
        known = np.isfinite(error)
        weight = np.sum(moved[known] * error[known]) / max(np.sum(moved[known] ** 2), 1e-30)
        self.weight = float(np.clip(weight, 0, _LARGEST))
        self.stacked = belief.shift(self.weight * offset)
        return self

    def stack(self, model, belief, models, rows):
        """Beliefs about some models of another fit, in which they have no responses.

        Parameters
        ----------
        model, models : as in `fit`
        belief : Gaussians (n_rows)
        rows : int (n_rows,)
        """
        trees = self._grow(model, models)
        offset = self._steps(model, belief, trees, from_arcsine(trees.forecast(rows)))[2]
        return belief.shift(self.weight * offset)

    def _grow(self, model, models):
        trees = BoostedTrees(use_names=self.use_names, seed=self.seed, **_TREES)
        return trees.fit(model.responses_, model.lineage_, items=model.items_, models=models)

    def _steps(self, model, belief, trees, forecast):
        """Expected scores, how far the full step moves them, and that step in the states."""
        columns = [np.flatnonzero(member) for member in trees.member_.T]
        score, moved, offset = [], [], []
        for top in range(0, len(forecast), BLOCK):
            block = slice(top, top + BLOCK)
            expected, slope, covariance = _scores(model.likelihood_, belief[block], columns)
            # Kalman gain: Sigma J' (J Sigma J' + R)^-1.
            gain = covariance @ slope.swapaxes(1, 2)
            spread = slope @ gain
            gap = (forecast[block] - expected)[..., None]
            towards = np.linalg.solve(spread + self.noise, gap)
            score.append(expected)
            moved.append((spread @ towards)[..., 0])
            offset.append((gain @ towards)[..., 0])
        return np.concatenate(score), np.concatenate(moved), np.concatenate(offset)


def _covariance(errors):
    """Over pairs of known errors, NaN where unknown; positive definite."""
    covariance = pd.DataFrame(errors).cov(min_periods=_FEWEST).to_numpy()
    variance = np.diag(covariance)
    covariance = np.nan_to_num(covariance) + np.diag(np.where(np.isnan(variance), _UNKNOWN, 0))
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-6)) @ vectors.T


def _scores(likelihood, belief, columns):
    """Expected scores (n, n_benchmarks), their slopes by the state, and its covariance."""
    covariance = belief.covariance
    expected, slope, _ = likelihood.forecast(belief.mean, covariance)
    loadings = likelihood.loadings
    score = np.stack([expected[:, own].mean(axis=1) for own in columns], axis=1)
    slopes = [slope[:, own] @ loadings[own] / len(own) for own in columns]
    return score.astype(np.float64), np.stack(slopes, axis=1).astype(np.float64), covariance
