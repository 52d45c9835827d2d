"""Benchmark scores: from states to expected accuracies, with intervals that cover."""

from difflib import get_close_matches

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from ..data.response_kinds import to_arcsine
from ..data.responses import observed

LEVEL = 0.9  # of the intervals that are calibrated
_LEAST = 20  # errors that a calibration needs
_ROUNDS = 10  # of reweighting
_CERTAIN = 1e-5  # variance of a score below which all are weighed alike


class BenchmarkScores:
    """Means over the columns of each benchmark, each column as heavy as it has questions.

    Attributes
    ----------
    names : list of str
    weights : float32 (n_items, n_benchmarks)
        Number of questions a column stands for in its benchmark.

    Parameters
    ----------
    items : DataFrame or None
        item_id, benchmark and n_trials of the columns; without it one benchmark, "all".
    n_items : int
    """

    def __init__(self, items, n_items: int):
        if items is None:
            self.names, self.weights = ["all"], np.ones((n_items, 1), np.float32)
            return
        codes, names = pd.factorize(items["benchmark"])
        self.names = list(names)
        self.weights = np.zeros((n_items, len(names)), np.float32)
        self.weights[np.arange(n_items), codes] = items["n_trials"]

    def number(self, name):
        """Position of a benchmark; ValueError if it is none."""
        if name not in self.names:
            close = get_close_matches(str(name), self.names, n=1) or self.names[:5]
            raise ValueError(f"{name!r} is not a benchmark of the fit; it has {', '.join(close)}")
        return self.names.index(name)

    def actual(self, given, target):
        """Score over the target cells (n, n_benchmarks), NaN for a benchmark without any."""
        total = target.astype(np.float32) @ self.weights
        total[total == 0] = np.nan
        return np.where(target, given, 0).astype(np.float32) @ self.weights / total

    def expected(self, expected, given, target):
        """Expected score (n, n_benchmarks) from expected responses (n, n_items).

        Parameters
        ----------
        given : (n, n_items) responses known; they count as observed where there is no target
        target : bool (n, n_items) or None
            Score these cells only, all as forecasts.
        """
        # Without a target, observed responses count as they are and all others as forecast.
        known = observed(given)
        forecast = (~known if target is None else target).astype(np.float32)
        score, total = (expected * forecast) @ self.weights, forecast @ self.weights
        if target is None:
            score += np.where(known, given, 0).astype(np.float32) @ self.weights
            total = np.broadcast_to(self.weights.sum(axis=0), total.shape)
        return score / np.where(total > 0, total, np.nan).astype(np.float64)

    def deviation(self, likelihood, states, given, target, *, forecast=None):
        """Standard deviation of the score under Gaussian states, and the sampling noise.

        Parameters
        ----------
        likelihood : Bernoulli or ArcsineGaussian
        states : Gaussians (n)
        given, target : as in `expected`
        forecast : result of ``likelihood.forecast`` for the states, if at hand
        """
        covariance = states.covariance
        if forecast is None:
            forecast = likelihood.forecast(states.mean, covariance)
        _, slope, noise = forecast
        free = (~observed(given) if target is None else target).astype(np.float32)
        total = free @ self.weights if target is not None else self.weights.sum(axis=0)[None]
        # Sampling noise of the items is independent,
        variance = ((noise * free) @ self.weights**2).astype(np.float64)
        # the uncertainty of the state is shared: g' C g with g the slope of the score.
        slope = slope * free
        for b in range(self.weights.shape[1]):
            column = np.flatnonzero(self.weights[:, b])
            gradient = slope[:, column] @ (
                likelihood.loadings[column] * self.weights[column, b, None]
            )
            variance[:, b] += np.einsum("ni,nij,nj->n", gradient, covariance, gradient)
        total = np.where(total > 0, total, np.nan).astype(np.float64)
        return np.sqrt(np.maximum(variance, 0)) / total

    def average_deviation(self, likelihood, states, given, factor, *, forecast):
        r"""Standard deviation (n,) of a weighted sum of scores, sum_b f_b s_b, and the noise.

        With g_b the slope of score b and C the covariance of the state, shared by all benchmarks,

            Var = g' C g + noise,    g = sum_b f_b g_b.

        Parameters
        ----------
        likelihood, states, given, forecast : as in `deviation`
        factor : (n, n_benchmarks), f
        """
        _, slope, noise = forecast
        free = (~observed(given)).astype(np.float32)
        gradient, variance = np.zeros(states.information.shape), np.zeros(len(given))
        for b, weights in enumerate(self.weights.T):
            column = np.flatnonzero(weights)
            share = weights[column] / weights.sum()
            own = (slope * free)[:, column] @ (likelihood.loadings[column] * share[:, None])
            gradient += factor[:, [b]] * own
            variance += factor[:, b] ** 2 * ((noise * free)[:, column] @ share**2)
        variance += np.einsum("ni,nij,nj->n", gradient, states.covariance, gradient)
        return np.sqrt(np.maximum(variance, 0))

    def errors(self, likelihood, states, given, *, unexplained=0.0):
        """`standardised_error` of forecasts of all observed responses (n, n_benchmarks).

        Parameters
        ----------
        likelihood : Bernoulli or ArcsineGaussian
        states : Gaussians (n), beliefs without the responses
        given : (n, n_items), the responses
        unexplained : (n, n_benchmarks), as in `widened`
        """
        target = observed(given)
        forecast = likelihood.forecast(states.mean, states.covariance)
        deviation = self.deviation(likelihood, states, given, target, forecast=forecast)
        score = self.expected(forecast[0], given, target)
        deviation = widened(score, deviation, unexplained)
        return standardised_error(score, deviation, self.actual(given, target))

    def open_share(self, given):
        """Share of each score that is not observed (n, n_benchmarks)."""
        return (~observed(given)).astype(np.float32) @ self.weights / self.weights.sum(axis=0)

    def n_observed(self, given):
        """Number of observed columns (n, n_benchmarks)."""
        return (observed(given).astype(np.float32) @ (self.weights > 0)).astype(int)


def interval(score, deviation, level):
    """Bounds (lower, upper) of equal tails on the arcsine scale, within [0, 1]."""
    half = ndtri(0.5 + level / 2) * arcsine_deviation(score, deviation)
    y = to_arcsine(score)
    lower, upper = np.clip(y - half, 0, np.pi), np.clip(y + half, 0, np.pi)
    # At no width the score itself, which sin^2 and arcsin miss by a rounding error.
    return np.minimum(np.sin(lower / 2) ** 2, score), np.maximum(np.sin(upper / 2) ** 2, score)


def chance_above(score, deviation, bar):
    """Probability that the score turns out above `bar`, normal on the arcsine scale."""
    gap = to_arcsine(score) - to_arcsine(bar)
    return ndtr(gap / np.maximum(arcsine_deviation(score, deviation), 1e-12))


def standardised_error(score, deviation, actual):
    """|actual - score| in standard deviations, on the arcsine scale."""
    error = np.abs(to_arcsine(actual) - to_arcsine(score))
    return error / np.maximum(arcsine_deviation(score, deviation), 1e-12)


def unexplained_variance(score, deviation, actual, shown=None):
    r"""Variance of scores that neither chance nor ignorance of the states explains (n_benchmarks,).

    On the arcsine scale: v >= 0 such that E (actual - score)^2 = deviation^2 + v u, with
    u = score (1 - score) shown. By least squares with the inverse variances of the left side as
    weights; moments, unlike quantiles, tell the unexplained from chance where hardly any answer is
    known. For answers each benchmark's own solution s_b, whose variance is 2 / I_b, is shrunk
    towards the v of all benchmarks, as by a prior with standard deviation v:

        v_b = (s_b I_b / 2 + 1 / v) / (I_b / 2 + 1 / v^2).

    0 for a benchmark of fewer than 20 models.

    Parameters
    ----------
    score, deviation, actual : (n, n_benchmarks), NaN where there is none
    shown : (n, n_benchmarks), optional
        Share of the unexplained variance that scores of answers show: 1 - 1/n for n of them, as one
        alone has the same variance whether its chance was known or not. None for proportions.
    """
    # What the squared error has beyond the variance of the forecast.
    excess = (actual - score) ** 2 - deviation**2
    known = np.isfinite(excess)
    excess, explained = np.where(known, excess, 0.0), np.where(known, deviation**2, 1.0)
    unit = np.where(known, _unit(score) * (1.0 if shown is None else shown), 0.0)
    variances = np.zeros(score.shape[1])
    # Reweighted least squares: the weights depend on the variance that is sought.
    for _ in range(_ROUNDS):
        weight = unit / (explained + variances * unit + _CERTAIN) ** 2
        moment = np.sum(weight * excess, axis=0)
        information = np.maximum(np.sum(weight * unit, axis=0), 1e-30)
        variances = np.maximum(moment / information, 0)
        if shown is not None:
            # Few answers behind each benchmark: shrink towards what all of them show.
            common = max(0.0, moment.sum() / information.sum())
            variances = np.maximum(moment * common**2 / 2 + common, 0)
            variances /= information * common**2 / 2 + 1
    return np.where(known.sum(axis=0) >= _LEAST, variances, 0)


def widened(score, deviation, unexplained):
    """Deviation of the score with a variance (on the arcsine scale) in addition."""
    return np.sqrt(deviation**2 + unexplained * _unit(score))


def coverage_scale(errors):
    """Factors (n_benchmarks,) on deviations that make 90% of the errors (n, n_benchmarks) covered.

    The quantile is that of split conformal prediction; 1 for a benchmark of fewer than 20 errors.
    """
    scales = np.ones(errors.shape[1])
    for b, column in enumerate(errors.T):
        column = column[np.isfinite(column)]
        if column.size >= _LEAST:
            rank = min(1.0, LEVEL * (1 + 1 / column.size))
            scales[b] = np.quantile(column, rank) / ndtri(0.5 + LEVEL / 2)
    return scales


def arcsine_deviation(score, deviation):
    """Standard deviation on the arcsine scale, where it depends least on the score."""
    return deviation / np.sqrt(_unit(score))


def _unit(score):
    """Variance of the score that is 1 on the arcsine scale."""
    return np.clip(score * (1 - score), 1e-4, None)
