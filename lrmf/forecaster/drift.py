"""Drift: how models later than the training models differ from what the earlier ones forecast."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.features import model_dates, read_dates


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
    is_later : bool (n_models,)
    shift : (2, p)
        Mean of what later states have over their forecasts, shrunk towards 0; by whether a model
        has evaluated relatives.
    widening : (n_benchmarks,)
        Factor >= 1 on the deviations of later models' scores.
    """

    is_later: np.ndarray
    shift: np.ndarray
    widening: np.ndarray

    @classmethod
    def none(cls, n_models, n_components, n_benchmarks):
        """Without dates there are no later models."""
        return cls(np.zeros(n_models, bool), np.zeros((2, n_components)), np.ones(n_benchmarks))

    def factors(self, rows):
        """Factors on the deviations of scores (n, n_benchmarks)."""
        return np.where(self.is_later[rows][:, None], self.widening, 1.0)


def late_models(models, evaluated, config):
    """Masks of the latest training models, and of all models later than nearly all of these.

    Parameters
    ----------
    models : DataFrame or None
    evaluated : bool (n_models,)
    config : DriftConfig

    Returns
    -------
    late, is_later : bool (n_models,), or None if hardly any training model is dated
    """
    # Dated training models; a third of them must be enough for an estimate.
    dates = pd.Series() if models is None else model_dates(models, evaluated)
    dated = dates[dates.notna() & evaluated] if len(dates) else dates
    if len(dated) < 3 * config.fewest:
        return None
    late = evaluated & (dates > dated.quantile(1 - config.late_share)).to_numpy()
    if not (late.any() and (evaluated & ~late).any()):
        return None
    if "created_at" in models:  # models that nobody has evaluated yet
        dates = dates.fillna(read_dates(models["created_at"]))
    return late, (dates > dated.quantile(config.later_than)).to_numpy()


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
