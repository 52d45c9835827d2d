"""Calibration of intervals: scale standard deviations so that nominal coverage holds."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .scores import (
    coverage_scale,
    standardised_error,
    unexplained_by_pairs,
    unexplained_variance,
    widened,
)


class ScoredForecasts(NamedTuple):
    """Forecasts of scores, and the actual scores over responses that the forecasts did not use.

    Attributes
    ----------
    score, deviation, actual : (n, n_benchmarks)
        Expected score, its standard deviation, and the actual score, NaN where there is none.
    n_target : (n, n_benchmarks)
        Number of responses in each actual score.
    lacks_relatives : bool (n,)
        Models without evaluated relatives.
    answer_excess : (n, n_benchmarks), optional
        For single answers z with forecasts p, in excess of its expectation, the part of the squared
        error of a score that each answer has alone, sum_i w_i^2 ((z_i - p_i)^2 - p_i (1 - p_i)),
        divided by the squared sum of the weights.
    """

    score: np.ndarray
    deviation: np.ndarray
    actual: np.ndarray
    n_target: np.ndarray
    lacks_relatives: np.ndarray
    answer_excess: np.ndarray | None = None


@dataclass(frozen=True)
class IntervalCalibration:
    """Scale standard deviations of scores so that intervals have their nominal coverage.

        deviation'^2 = scale^2 (deviation^2 + unexplained s (1 - s))

    `unexplained` and `scale` are tables by the number of revealed responses n, by whether a model
    has evaluated relatives, and by benchmark. They are interpolated linearly in log(1 + n).

    Attributes
    ----------
    n_revealed : int (n_levels,)
        Numbers of revealed responses at which the tables are learned.
    unexplained : (n_levels, 2, n_benchmarks)
        Variance on the arcsine scale that the states do not explain.
    scale : (n_levels, 2, n_benchmarks)
        Factor on the standard deviation.
        The second index is 1 for models without evaluated relatives.
    """

    n_revealed: np.ndarray
    unexplained: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, forecasts, *, explain=True, fewest=20):
        """Learn the tables from forecasts of training models with some responses revealed.

        Parameters
        ----------
        forecasts : dict of n_revealed to ScoredForecasts
        explain : bool
            Whether to estimate `unexplained`; it is 0 otherwise.
        fewest : int
            Scores of fewer answers do not count for `scale`, as they are discrete.

        Returns
        -------
        IntervalCalibration
        """
        n_benchmarks = next(iter(forecasts.values())).score.shape[1]
        shape = len(forecasts), 2, n_benchmarks
        unexplained, scale = np.zeros(shape), np.ones(shape)
        for level, scored in enumerate(forecasts.values()):
            # Models with and without evaluated relatives have errors of different size.
            for group in (False, True):
                in_group = scored.lacks_relatives == group
                if not in_group.any():
                    continue
                score, deviation, actual, n_target = (part[in_group] for part in scored[:4])
                at, single = (level, int(group)), scored.answer_excess is not None
                # First the variance that the states do not explain.
                if explain and single:
                    squared = (actual - score) ** 2 - scored.answer_excess[in_group]
                    unexplained[at] = unexplained_by_pairs(score, deviation, squared, n_target)
                elif explain:
                    unexplained[at] = unexplained_variance(score, deviation, actual)
                # Then the factor at which the nominal share of errors is covered.
                total_deviation = widened(score, deviation, unexplained[at])
                errors = standardised_error(score, total_deviation, actual)
                if single:
                    errors[n_target < fewest] = np.nan
                scale[at] = coverage_scale(errors)
        return cls(np.array(list(forecasts)), unexplained, scale)

    def __call__(self, score, deviation, n_revealed, lacks_relatives, share=1.0):
        """Calibrated standard deviations (n, n_benchmarks).

        Parameters
        ----------
        score, deviation : (n, n_benchmarks)
        n_revealed : int (n,)
        lacks_relatives : bool (n,), models without evaluated relatives
        share : (n, n_benchmarks)
            Share of each score that is forecast rather than observed. The unexplained variance is
            proportional to it, and not to its square, as observed responses of a model have also
            informed its state.
        """
        group = lacks_relatives.astype(int)
        # Linear interpolation between the levels in log(1 + n).
        position = np.interp(
            np.log1p(n_revealed), np.log1p(self.n_revealed), np.arange(len(self.n_revealed))
        )
        below = np.minimum(position.astype(int), len(self.n_revealed) - 1)
        above = np.minimum(below + 1, len(self.n_revealed) - 1)
        fraction = (position - below)[:, None]
        unexplained, scale = (
            (1 - fraction) * table[below, group] + fraction * table[above, group]
            for table in (self.unexplained, self.scale)
        )
        return widened(score, deviation, unexplained * share) * scale
