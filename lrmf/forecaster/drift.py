"""Drift: how models later than the training models differ from what the earlier ones forecast."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.features import date_column, read_dates


@dataclass(frozen=True)
class DriftConfig:
    """Which training models show drift, and which models are later ones.

    Attributes
    ----------
    late_share : float
        Share of the dated training models, the latest, that are forecast from the earlier ones.
    later_than : float
        Share of the dated training models that a later model is later than.
    fewest : int
        Models behind a mean error; a third of the dated models that drift is learned from at all.
    """

    late_share: float = 0.2
    later_than: float = 0.98
    fewest: int = 40


@dataclass(frozen=True)
class TemporalDrift:
    """A shift of the states and a widening of the intervals of later models.

    Attributes
    ----------
    column : str
        Of the models table, the date that tells; "" if no model is a later one.
    later_than : str
        The date (ISO 8601) after which a model is a later one.
    shift : (2, p)
        Mean of what later states have over their forecasts, shrunk towards 0; by whether a model
        has evaluated relatives.
    widening : (n_benchmarks,)
        Factor >= 1 on the deviations of later models' scores.
    """

    column: str
    later_than: str
    shift: np.ndarray
    widening: np.ndarray

    @classmethod
    def none(cls, n_components, n_benchmarks):
        """Without dates there are no later models."""
        return cls("", "", np.zeros((2, n_components)), np.ones(n_benchmarks))

    def is_later(self, models):
        """Which models of a table are later ones (n_models,)."""
        if not self.column or models is None:
            return np.zeros(0 if models is None else len(models), bool)
        dates = pd.Series(pd.NaT, index=models.index, dtype="datetime64[ns, UTC]")
        for column in (self.column, "created_at"):  # of models that nobody has evaluated yet
            if column in models:
                dates = dates.fillna(read_dates(models[column]))
        return (dates > pd.Timestamp(self.later_than)).to_numpy()


def late_models(models, evaluated, config):
    """Mask of the latest training models, the column of their dates, and when later ones begin.

    Parameters
    ----------
    models : DataFrame or None
    evaluated : bool (n_models,)
    config : DriftConfig

    Returns
    -------
    late : bool (n_models,), column, later_than : str; or None if hardly any model is dated
    """
    column = None if models is None else date_column(models, evaluated)
    if column is None:
        return None
    # Dated training models; a third of them must be enough for an estimate.
    dates = read_dates(models[column])
    dated = dates[dates.notna() & evaluated]
    if len(dated) < 3 * config.fewest:
        return None
    late = evaluated & (dates > dated.quantile(1 - config.late_share)).to_numpy()
    if not (late.any() and (evaluated & ~late).any()):
        return None
    return late, column, dated.quantile(config.later_than).isoformat()


def shrunken_mean(offsets, gram, *, fewest):
    """Mean (p,) of offsets (n, p), shrunk towards 0 in the metric of `gram`; 0 for a few.

    Source: James and Stein (1961), "Estimation with quadratic loss".
    """
    n, p = offsets.shape
    if n < fewest:
        return np.zeros(p)
    # Positive-part James-Stein: shrink by the share of the mean that is noise.
    mean = offsets.mean(axis=0)
    noise = np.trace(gram @ np.atleast_2d(np.cov(offsets, rowvar=False))) / n
    return max(0.0, 1 - noise / max(mean @ gram @ mean, 1e-30)) * mean
