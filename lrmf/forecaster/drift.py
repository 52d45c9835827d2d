"""Temporal drift: models released later differ from their forecasts in mean and variance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.features import date_column, read_dates


@dataclass(frozen=True)
class DriftConfig:
    """Constants of the out-of-time split that drift is learned from.

    Attributes
    ----------
    late_share : float
        Share of the dated training models, the latest ones, that are forecast from the others.
    later_than : float
        Quantile of the training dates after which a model counts as later.
    min_models : int
        Minimum number of models for a mean error. Drift needs three times as many dated models.
    """

    late_share: float = 0.2
    later_than: float = 0.98
    min_models: int = 40


@dataclass(frozen=True)
class TemporalDrift:
    """A shift of the states and a widening of the intervals of later models.

    Attributes
    ----------
    column : str
        Date column of the models table; "" if no model counts as later.
    later_than : str
        The date (ISO 8601) after which a model counts as later.
    shift : (2, p)
        Mean of (posterior mean - forecast mean) of the states of later models, shrunk towards 0.
        The first index is 1 for models without evaluated relatives.
    widening : (n_benchmarks,)
        Factor >= 1 on the standard deviations of later models' scores.
    """

    column: str
    later_than: str
    shift: np.ndarray
    widening: np.ndarray

    @classmethod
    def none(cls, n_components, n_benchmarks):
        """No drift: the shift is 0, the widening 1, and no model counts as later."""
        return cls("", "", np.zeros((2, n_components)), np.ones(n_benchmarks))

    def is_later(self, models):
        """Mask (n_models,) of the later models of a table."""
        if not self.column or models is None:
            return np.zeros(0 if models is None else len(models), bool)
        # Models without an evaluation date are dated by "created_at".
        dates = pd.Series(pd.NaT, index=models.index, dtype="datetime64[ns, UTC]")
        for column in (self.column, "created_at"):
            if column in models:
                dates = dates.fillna(read_dates(models[column]))
        return (dates > pd.Timestamp(self.later_than)).to_numpy()


def late_models(models, evaluated, config):
    """The out-of-time split: latest training models, their date column, and the later-than date.

    Parameters
    ----------
    models : DataFrame or None
    evaluated : bool (n_models,)
    config : DriftConfig

    Returns
    -------
    late : bool (n_models,)
    column, later_than : str
        As in `TemporalDrift`. None in place of all three if too few models are dated.
    """
    column = None if models is None else date_column(models, evaluated)
    if column is None:
        return None
    # Dated training models; the late ones and both groups of them must be large enough.
    dates = read_dates(models[column])
    dated = dates[dates.notna() & evaluated]
    if len(dated) < 3 * config.min_models:
        return None
    late = evaluated & (dates > dated.quantile(1 - config.late_share)).to_numpy()
    if not (late.any() and (evaluated & ~late).any()):
        return None
    return late, column, dated.quantile(config.later_than).isoformat()


def shrunken_mean(offsets, gram, *, min_models):
    """Positive-part James-Stein estimate (p,) of the mean of offsets (n, p).

        mean * max(0, 1 - tr(G S / n) / mean' G mean)

    with S the covariance of the offsets. It is 0 if there are fewer than `min_models`.

    Parameters
    ----------
    offsets : (n, p)
    gram : (p, p), G, the metric
    min_models : int

    Source: James and Stein (1961), "Estimation with quadratic loss".
    """
    n, p = offsets.shape
    if n < min_models:
        return np.zeros(p)
    # Shrink by the expected share of noise in the squared mean.
    mean = offsets.mean(axis=0)
    noise = np.trace(gram @ np.atleast_2d(np.cov(offsets, rowvar=False))) / n
    return max(0.0, 1 - noise / max(mean @ gram @ mean, 1e-30)) * mean
