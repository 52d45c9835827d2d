"""Calibration of intervals: deviations of scores that cover as often as they say."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .scores import coverage_scale, standardised_error, unexplained_variance, widened


class ScoredForecasts(NamedTuple):
    """Forecasts of scores made without the responses that they are compared with.

    Attributes
    ----------
    score, deviation, actual : (n, n_benchmarks), NaN where there is none
    n_target : (n, n_benchmarks)
        Responses behind each actual score.
    isolated : bool (n,)
        Models without evaluated relatives.
    """

    score: np.ndarray
    deviation: np.ndarray
    actual: np.ndarray
    n_target: np.ndarray
    isolated: np.ndarray


@dataclass(frozen=True)
class IntervalCalibration:
    """Widen deviations of scores until the nominal share of intervals covers.

        deviation'^2 = scale^2 (deviation^2 + unexplained s (1 - s))

    with tables by the number of responses revealed (interpolated in log(1 + n)), by whether a model
    has evaluated relatives, and by benchmark.

    Attributes
    ----------
    n_revealed : int (n_levels,)
    unexplained, scale : (n_levels, 2, n_benchmarks)
        The second index is 1 for models without evaluated relatives.
    """

    n_revealed: np.ndarray
    unexplained: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, forecasts, *, single=False, explain=True, fewest=10):
        """Tables from forecasts of training models with some of their responses revealed.

        Parameters
        ----------
        forecasts : dict of n_revealed to ScoredForecasts
        single : bool
            Whether responses are single answers, so that a score of a few has few values.
        explain : bool
            Whether to add the variance that the states leave unexplained, before the scale.
        fewest : int
            Answers behind a score below which its error does not count.
        """
        n_benchmarks = next(iter(forecasts.values())).score.shape[1]
        shape = len(forecasts), 2, n_benchmarks
        unexplained, scale = np.zeros(shape), np.ones(shape)
        for level, one in enumerate(forecasts.values()):
            for group in (False, True):
                own = one.isolated == group
                if not own.any():
                    continue
                # Models with and without evaluated relatives err differently.
                score, deviation, actual, n_target = (part[own] for part in one[:4])
                at = level, int(group)
                # First the variance that the states leave unexplained,
                if explain:
                    share = 1 - 1 / np.maximum(n_target, 1) if single else None
                    unexplained[at] = unexplained_variance(score, deviation, actual, share)
                # then the factor that makes the nominal share of errors covered.
                wide = widened(score, deviation, unexplained[at])
                errors = standardised_error(score, wide, actual)
                if single and explain:
                    errors[n_target < fewest] = np.nan
                scale[at] = coverage_scale(errors)
        return cls(np.array(list(forecasts)), unexplained, scale)

    def __call__(self, score, deviation, n_revealed, isolated, share=1.0):
        """Calibrated deviations (n, n_benchmarks).

        Parameters
        ----------
        score, deviation : (n, n_benchmarks)
        n_revealed : int (n,)
        isolated : bool (n,)
        share : (n, n_benchmarks)
            Of each score that is forecast, not observed: only that can be unexplained. Its variance
            falls with the share, not with the square, as the state has been told by the same model.
        """
        group = isolated.astype(int)
        # Linear interpolation between the levels in log(1 + n).
        place = np.interp(
            np.log1p(n_revealed), np.log1p(self.n_revealed), np.arange(len(self.n_revealed))
        )
        below = np.minimum(place.astype(int), len(self.n_revealed) - 1)
        above = np.minimum(below + 1, len(self.n_revealed) - 1)
        between = (place - below)[:, None]
        unexplained, scale = (
            (1 - between) * table[below, group] + between * table[above, group]
            for table in (self.unexplained, self.scale)
        )
        return widened(score, deviation, unexplained * share) * scale
