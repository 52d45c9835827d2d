"""Benchmark scores: expected accuracies with their standard deviations and intervals."""

from difflib import get_close_matches

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from ..data.response_kinds import to_arcsine
from ..data.responses import observed

LEVEL = 0.9  # nominal coverage at which intervals are calibrated
_MIN_ERRORS = 20  # number of errors below which nothing is calibrated
_N_ROUNDS = 10  # of reweighted least squares
_MIN_VARIANCE = 1e-5  # of a score; smaller ones have the same weight
_HIGHEST = 1 - 1e-6  # score that counts as 1, but for rounding


class BenchmarkScores:
    """Scores of benchmarks: means over their columns, weighted by the number of questions.

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
        """Position of a benchmark in `names`; ValueError if there is none of this name."""
        if name not in self.names:
            by_lower_case = {known.lower(): known for known in self.names}
            close = get_close_matches(str(name).lower(), by_lower_case, n=1)
            names = [by_lower_case[known] for known in close] or self.names[:5]
            more = ", ..." if not close and len(self.names) > 5 else ""
            raise ValueError(
                f"{name!r} is not a benchmark of the fit; it has {', '.join(names)}{more}"
            )
        return self.names.index(name)

    def actual(self, given, target):
        """Score over the target cells (n, n_benchmarks), NaN for a benchmark without any.

        Parameters
        ----------
        given : (n, n_items), responses
        target : bool (n, n_items)
        """
        total = target.astype(np.float32) @ self.weights
        total[total == 0] = np.nan
        return np.where(target, given, 0).astype(np.float32) @ self.weights / total

    def expected(self, expected, given, target):
        """Expected score (n, n_benchmarks) from expected responses (n, n_items).

        Parameters
        ----------
        expected : (n, n_items), forecasts of the responses
        given : (n, n_items), revealed responses
        target : bool (n, n_items) or None
            Score these cells only, all as forecasts. None scores all items, observed responses as
            they are and the others as forecasts.
        """
        # Weighted sum of forecasts, then of observed responses, over the sum of weights.
        known = observed(given)
        forecast = (~known if target is None else target).astype(np.float32)
        score, total = (expected * forecast) @ self.weights, forecast @ self.weights
        if target is None:
            score += np.where(known, given, 0).astype(np.float32) @ self.weights
            total = np.broadcast_to(self.weights.sum(axis=0), total.shape)
        return score / np.where(total > 0, total, np.nan).astype(np.float64)

    def deviation(self, likelihood, states, given, target, *, forecast=None):
        """Standard deviation (n, n_benchmarks) of the score under Gaussian states.

        With C the covariance of the state and g_b = sum_i w_ib slope_i d_i the gradient of the
        score (delta method),

            Var_b = g_b' C g_b + sum_i w_ib^2 noise_i,

        divided by the squared sum of the weights of all scored items. The sums are over the items
        that are forecast.

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
        # The sampling noise is independent between items.
        variance = ((noise * free) @ self.weights**2).astype(np.float64)
        # The uncertainty of the state is shared by all items: g' C g.
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
        r"""Standard deviation (n,) of a weighted sum of scores, sum_b f_b s_b.

        With g_b the gradient and n_b the sampling variance of score b, and C the covariance of the
        state, shared by all benchmarks,

            Var = g' C g + sum_b f_b^2 n_b,    g = sum_b f_b g_b.

        Parameters
        ----------
        likelihood, states, given, forecast : as in `deviation`
        factor : (n, n_benchmarks), f
        """
        _, slope, noise = forecast
        free = (~observed(given)).astype(np.float32)
        gradient, variance = np.zeros(states.information.shape), np.zeros(len(given))
        # Sum gradients and noise over the benchmarks.
        for b, weights in enumerate(self.weights.T):
            column = np.flatnonzero(weights)
            share = weights[column] / weights.sum()
            score_gradient = (slope * free)[:, column] @ (
                likelihood.loadings[column] * share[:, None]
            )
            gradient += factor[:, [b]] * score_gradient
            variance += factor[:, b] ** 2 * ((noise * free)[:, column] @ share**2)
        variance += np.einsum("ni,nij,nj->n", gradient, states.covariance, gradient)
        return np.sqrt(np.maximum(variance, 0))

    def errors(self, likelihood, states, given, *, unexplained=0.0):
        """`standardised_error` of forecasts of scores over all observed responses.

        Parameters
        ----------
        likelihood : Bernoulli or ArcsineGaussian
        states : Gaussians (n), given other data than these responses
        given : (n, n_items), the responses
        unexplained : (n, n_benchmarks), as in `widened`

        Returns
        -------
        (n, n_benchmarks)
        """
        target = observed(given)
        forecast = likelihood.forecast(states.mean, states.covariance)
        deviation = self.deviation(likelihood, states, given, target, forecast=forecast)
        score = self.expected(forecast[0], given, target)
        deviation = widened(score, deviation, unexplained)
        return standardised_error(score, deviation, self.actual(given, target))

    def answer_excess(self, expected, given, target):
        """`answer_excess` of `ScoredForecasts` (n, n_benchmarks) over the target answers.

        Parameters
        ----------
        expected : (n, n_items), forecasts of the answers
        given, target : as in `actual`
        """
        total = target.astype(np.float32) @ self.weights
        excess = (given - expected) ** 2 - expected * (1 - expected)
        total = np.where(total > 0, total, np.nan)
        return np.where(target, excess, 0) @ self.weights**2 / total**2

    def open_share(self, given):
        """Share of each score that is not observed (n, n_benchmarks)."""
        return (~observed(given)).astype(np.float32) @ self.weights / self.weights.sum(axis=0)

    def n_observed(self, given):
        """Number of observed columns (n, n_benchmarks)."""
        return (observed(given).astype(np.float32) @ (self.weights > 0)).astype(int)


def interval(score, deviation, level):
    """Equal-tailed interval (lower, upper), normal on the arcsine scale, within [0, 1].

    With y = 2 asin sqrt(score), the bounds are sin^2((y -+ z deviation / sqrt(s (1 - s))) / 2).

    Parameters
    ----------
    score, deviation : arrays of the same shape
    level : float, nominal coverage
    """
    half = ndtri(0.5 + level / 2) * arcsine_deviation(score, deviation)
    y = to_arcsine(score)
    lower, upper = np.clip(y - half, 0, np.pi), np.clip(y + half, 0, np.pi)
    # The bounds enclose the score despite rounding errors.
    return np.minimum(np.sin(lower / 2) ** 2, score), np.maximum(np.sin(upper / 2) ** 2, score)


def chance_above(score, deviation, bar):
    """Probability that the actual score is above `bar`, normal on the arcsine scale.

    Nothing is above the highest score of all.
    """
    gap = to_arcsine(score) - to_arcsine(bar)
    chance = ndtr(gap / np.maximum(arcsine_deviation(score, deviation), 1e-12))
    return np.where(np.asarray(bar) > _HIGHEST, 0.0, chance)


def standardised_error(score, deviation, actual):
    """|actual - score| / standard deviation, both on the arcsine scale."""
    error = np.abs(to_arcsine(actual) - to_arcsine(score))
    return error / np.maximum(arcsine_deviation(score, deviation), 1e-12)


def unexplained_variance(score, deviation, actual):
    r"""Variance of scores that neither sampling noise nor the states' uncertainty explains.

    On the arcsine scale, v >= 0 such that E (actual - score)^2 = deviation^2 + v u, with
    u = score (1 - score). It is estimated by least squares, weighted by the inverse variance of the
    squared error. A moment estimate, unlike one from quantiles, separates v from sampling noise
    even where a score has few questions. It is 0 for a benchmark with fewer than 20 models.

    Parameters
    ----------
    score, deviation, actual : (n, n_benchmarks), NaN where there is none

    Returns
    -------
    (n_benchmarks,)
    """
    # Squared error in excess of the forecast's variance; its expectation is v u.
    excess = (actual - score) ** 2 - deviation**2
    known = np.isfinite(excess)
    excess, explained = np.where(known, excess, 0.0), np.where(known, deviation**2, 1.0)
    unit = np.where(known, _unit(score), 0.0)
    variances = np.zeros(score.shape[1])
    # Iteratively reweighted least squares, as the weights depend on v.
    for _ in range(_N_ROUNDS):
        weight = unit / (explained + variances * unit + _MIN_VARIANCE) ** 2
        information = np.maximum(np.sum(weight * unit, axis=0), 1e-30)
        variances = np.maximum(np.sum(weight * excess, axis=0) / information, 0)
    return np.where(known.sum(axis=0) >= _MIN_ERRORS, variances, 0)


def unexplained_by_pairs(score, deviation, squared, n_target):
    r"""`unexplained_variance` of scores that are means of single answers.

    Answers are noisy, and models that items were fitted to have smaller residuals than p (1 - p).
    What two different answers of a model have in common shows neither. So `squared` leaves out what
    each answer has alone, and for a mean of n answers

        E squared = deviation^2 + v u,    u = score (1 - score) (1 - 1/n).

    The sums over models, of squared - deviation^2 and of u, are weighted by n^2, so that all pairs
    of answers count alike. The ratio s_b of each benchmark, with sampling variance e_b^2, is shrunk
    towards the mean c of their positive parts, as by a prior N(c, c^2):

        v_b = (s_b / e_b^2 + 1 / c) / (1 / e_b^2 + 1 / c^2),    at least 0.

    It is 0 for a benchmark with fewer than 20 models.

    Parameters
    ----------
    score, deviation : (n, n_benchmarks), NaN where there is none
    squared : (n, n_benchmarks)
        (actual - score)^2 less the `answer_excess` of `ScoredForecasts`.
    n_target : int (n, n_benchmarks)
        Number of answers in each score.

    Returns
    -------
    (n_benchmarks,)
    """
    excess, n_target = squared - deviation**2, n_target.astype(np.float64)
    known = np.isfinite(excess) & (n_target > 1)
    excess, weight = np.where(known, excess, 0.0), np.where(known, n_target**2, 0.0)
    unit = np.where(known, _unit(score) * (1 - 1 / np.maximum(n_target, 1)), 0.0)
    # Ratio of the weighted sums and its sampling variance.
    information = np.maximum(np.sum(weight * unit, axis=0), 1e-30)
    ratio = np.sum(weight * excess, axis=0) / information
    noise = np.sum((weight * (excess - ratio * unit)) ** 2, axis=0) / information**2
    # Shrink to the mean of the positive parts.
    enough = known.sum(axis=0) >= _MIN_ERRORS
    common = np.maximum(ratio, 0)[enough].mean() if enough.any() else 0.0
    noise = np.maximum(noise, 1e-12)
    shrunk = (ratio * common**2 + common * noise) / (common**2 + noise)
    return np.where(enough, np.maximum(shrunk, 0), 0)


def widened(score, deviation, unexplained):
    """sqrt(deviation^2 + unexplained s (1 - s)): a variance on the arcsine scale is added."""
    return np.sqrt(deviation**2 + unexplained * _unit(score))


def coverage_scale(errors):
    """Factors on standard deviations at which 90% intervals cover 90% of the errors.

    The factor is the quantile of split conformal prediction (Lei et al., 2018) of the standardised
    errors, over that of a normal distribution. It is 1 for a benchmark with fewer than 20 errors.

    Parameters
    ----------
    errors : (n, n_benchmarks), as of `standardised_error`, NaN where there is none

    Returns
    -------
    (n_benchmarks,)
    """
    scales = np.ones(errors.shape[1])
    for b, column in enumerate(errors.T):
        column = column[np.isfinite(column)]
        # The rank 0.9 (1 + 1/n) accounts for the finite sample.
        if column.size >= _MIN_ERRORS:
            rank = min(1.0, LEVEL * (1 + 1 / column.size))
            scales[b] = np.quantile(column, rank) / ndtri(0.5 + LEVEL / 2)
    return scales


def arcsine_deviation(score, deviation):
    """Standard deviation on the arcsine scale, deviation / sqrt(s (1 - s)) (delta method)."""
    return deviation / np.sqrt(_unit(score))


def _unit(score):
    """Variance s (1 - s) of a score whose variance on the arcsine scale is 1."""
    return np.clip(score * (1 - score), 1e-4, None)
