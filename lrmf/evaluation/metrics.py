"""Metrics over held-out models.

Everything here reads the tidy frame of forecasts that `lrmf.evaluation.evaluate` makes: for each
predictor, split, model and benchmark the actual and the predicted mean over the target cells.
A metric is written once, for weighted models: weights of one score the forecasts, multinomial
weights are a bootstrap resample.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from ..baselines.registry import FORECASTER
from ..data.responses import benchmark_scores, observed
from ..data.snapshot import Snapshot
from ..data.statistics import SAME_VALUE, pearson

INTERVAL_LEVEL = 0.9
INTERVALS = ["coverage", "width", "interval_score"]


def score_forecasts(forecasts: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """All metrics that the forecasts allow, for every group of `by`.

    Returns the columns of `by`, then benchmark, metric, value and n (models).

    pearson, spearman : over models, between `predicted - expected` and `actual - expected`.
        Where all models share their target cells this is the correlation of the means
        themselves; where they do not (few-shot, random hold-out), easy target cells no longer
        pass for a good model. 0 for a forecast that is the same for all models of every fold, as
        it ranks nobody. "average" is the model's mean over its benchmarks, each centred over the
        models.
    mae, bias, width, interval_score : points (0-100); the bias is the mean error, below 0 where
        forecasts are too low; the interval score is Winkler's, at 90%.
    coverage : share of the actual values inside the interval.
    log_loss, brier : mean over target cells; probabilities clipped at 1e-6 for the logarithm.

    Raises
    ------
    ValueError : a model occurs twice in a group (several seeds or k, say: add them to `by`).

    Examples
    --------
    >>> forecasts = pd.DataFrame(
    ...     {
    ...         "predictor": "mine",
    ...         "model_id": ["a", "b", "c"],
    ...         "benchmark": "math",
    ...         "actual": [0.2, 0.4, 0.9],
    ...         "predicted": [0.3, 0.4, 0.8],
    ...         "expected": 0.5,
    ...         **dict.fromkeys(["lower", "upper", "log_loss", "brier"], np.nan),
    ...         "n_items": 10,
    ...     }
    ... )
    >>> scores = score_forecasts(forecasts, by=["predictor"])
    >>> of_math = scores[scores["benchmark"] == "math"].set_index("metric")
    >>> of_math.loc[["pearson", "mae"], "value"].round(3).tolist()
    [0.996, 6.667]
    """
    rows = []
    for key, group in forecasts.groupby(list(by), dropna=False, sort=False):
        table = _Table(group, f"{list(by)} = {list(key)}")
        everyone = np.ones((1, table.n_models))
        for metric in METRICS:
            values = METRICS[metric](table, everyone)[0]
            counts = table.count(metric)
            named = zip([*table.benchmarks, "average"], values, counts, strict=True)
            rows += [(*key, name, metric, value, n) for name, value, n in named if n]
            if counts.any():
                mean = float(mean_of_finite(values[:-1]))
                rows.append((*key, "all", metric, mean, table.n_models))
    return pd.DataFrame(rows, columns=[*by, "benchmark", "metric", "value", "n"])


class _Table:
    """Forecasts of one predictor as arrays (n_models, n_benchmarks + 1), "average" last."""

    def __init__(self, forecasts: pd.DataFrame, where: str, models=None):
        if forecasts.duplicated(["model_id", "benchmark"]).any():
            raise ValueError(f"a model has several forecasts of one benchmark where {where}")
        self.benchmarks = list(forecasts["benchmark"].unique())
        self.models = forecasts["model_id"].unique() if models is None else models
        self.n_models = len(self.models)
        # Row and column of each forecast.
        self._cells = (
            pd.Index(self.models).get_indexer(forecasts["model_id"]),
            pd.Index(self.benchmarks).get_indexer(forecasts["benchmark"]),
        )
        self.actual = self._wide(forecasts["actual"])
        self.error = self._wide(forecasts["predicted"] - forecasts["actual"])
        self.error[:, -1] = mean_of_finite(self.error[:, :-1])
        actual_skill = forecasts["actual"] - forecasts["expected"]
        self.skills = self._wide(_flatten_constants(forecasts)), self._wide(actual_skill)
        for skill in self.skills:
            skill[:, -1] = mean_of_finite(skill[:, :-1] - mean_of_finite(skill[:, :-1].T))
        self.lower, self.upper = self._wide(forecasts["lower"]), self._wide(forecasts["upper"])
        self.n_items = self._wide(forecasts["n_items"])
        self.losses = {key: self._wide(forecasts[key]) for key in ("log_loss", "brier")}

    def _wide(self, values: pd.Series) -> np.ndarray:
        wide = np.full((self.n_models, len(self.benchmarks) + 1), np.nan)
        wide[self._cells] = values
        return wide

    def count(self, metric: str) -> np.ndarray:
        """Models that have a value, by column."""
        if metric in self.losses:
            return np.isfinite(self.losses[metric]).sum(axis=0)
        return np.isfinite(self.lower if metric in INTERVALS else self.error).sum(axis=0)


def _flatten_constants(forecasts: pd.DataFrame) -> pd.Series:
    """Predicted minus expected, made equal over folds where it is equal within each fold.

    The training mean of a fold is low exactly where the held-out models are good, which would
    give a constant forecast a correlation of about -0.1.
    """
    predicted = forecasts["predicted"] - forecasts["expected"]
    folds = ["benchmark", "fold"] if "fold" in forecasts else ["benchmark"]
    in_fold = predicted.groupby([forecasts[key] for key in folds])
    value_range = in_fold.max() - in_fold.min()
    constant = value_range.groupby("benchmark").max() < SAME_VALUE
    mean = predicted.groupby(forecasts["benchmark"]).transform("mean")
    return predicted.where(~forecasts["benchmark"].map(constant), mean)


def mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Mean of the finite values over the last axis, NaN where there is none.

    Examples
    --------
    >>> mean_of_finite(np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]]))
    array([ 2., nan])
    """
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(finite, values, 0).sum(axis=-1) / finite.sum(axis=-1)


def _weighted_mean(values: np.ndarray, weights: np.ndarray, cells=1.0) -> np.ndarray:
    """Mean over the finite rows of (n_models, n_columns), for each row of `weights`."""
    mass = np.isfinite(values) * cells
    mass = np.where(np.isfinite(mass), mass, 0)
    with np.errstate(invalid="ignore"):
        return weights @ (np.where(np.isfinite(values), values, 0) * mass) / (weights @ mass)


def _by_column(correlate: Callable, table: _Table, weights: np.ndarray) -> np.ndarray:
    columns = []
    for predicted, actual in zip(*(skill.T for skill in table.skills), strict=True):
        valid = np.isfinite(predicted) & np.isfinite(actual)
        columns.append(correlate(predicted[valid], actual[valid], weights[:, valid]))
    return np.stack(columns, axis=1)


def _spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if len(x) and np.ptp(x) < SAME_VALUE:
        x = np.zeros_like(x)
    return pearson(_ranks(x, weights), _ranks(y, weights), weights)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks of the values in each resample given by a row of `weights`."""
    distinct, which = np.unique(values, return_inverse=True)
    of_value = sparse.csr_array(
        (np.ones(len(which)), (np.arange(len(which)), which)), shape=(len(which), len(distinct))
    )
    # The mid-rank of a value: all below it, and half of those equal to it.
    counts = weights @ of_value
    return (counts.cumsum(axis=1) - counts / 2)[:, which]


def _interval_score(table: _Table) -> np.ndarray:
    below = np.maximum(table.lower - table.actual, 0)
    above = np.maximum(table.actual - table.upper, 0)
    return 100 * (table.upper - table.lower + 2 / (1 - INTERVAL_LEVEL) * (below + above))


def _covered(table: _Table) -> np.ndarray:
    inside = (table.lower <= table.actual) & (table.actual <= table.upper)
    return np.where(np.isfinite(table.lower), inside, np.nan)


METRICS: dict[str, Callable[[_Table, np.ndarray], np.ndarray]] = {
    "pearson": lambda table, weights: _by_column(pearson, table, weights),
    "spearman": lambda table, weights: _by_column(_spearman, table, weights),
    "mae": lambda table, weights: _weighted_mean(100 * np.abs(table.error), weights),
    "bias": lambda table, weights: _weighted_mean(100 * table.error, weights),
    "log_loss": lambda t, weights: _weighted_mean(t.losses["log_loss"], weights, t.n_items),
    "brier": lambda t, weights: _weighted_mean(t.losses["brier"], weights, t.n_items),
    "coverage": lambda table, weights: _weighted_mean(_covered(table), weights),
    "width": lambda t, weights: _weighted_mean(100 * (t.upper - t.lower), weights),
    "interval_score": lambda table, weights: _weighted_mean(_interval_score(table), weights),
}


def noise_ceiling(scores: pd.DataFrame, n_trials) -> pd.Series:
    """Correlation with its score that a model's true accuracy has, by benchmark.

    A score of n_trials questions drawn at random has binomial noise p (1 - p) / n_trials, so no
    forecast can be expected to do better than sqrt(reliability), with
    reliability = 1 - mean noise variance / variance of the scores (Spearman, 1904). For answers to
    the same questions this is too low; use `split_half_ceiling`.

    Parameters
    ----------
    scores : (n_models, n_benchmarks) in [0, 1], NaN where unknown.
    n_trials : questions behind a score: a number, one per benchmark, or one per score.

    Examples
    --------
    Fifty questions rank models of widely different accuracy well, three do not:

    >>> scores = pd.DataFrame({"math": [0.2, 0.4, 0.6, 0.8]})
    >>> [round(float(noise_ceiling(scores, n)["math"]), 2) for n in (50, 3)]
    [0.97, 0.0]
    """
    noise = (scores * (1 - scores) / n_trials).mean()
    return np.sqrt((1 - noise / scores.var()).clip(lower=0))


def split_half_ceiling(
    responses: np.ndarray, items: pd.DataFrame, *, n_splits: int = 20, seed: int = 0
) -> pd.Series:
    """sqrt(reliability) of each benchmark's score from the answers to its instances.

    Reliability is 2 r / (1 + r) with r the correlation over models between the scores of two
    random halves of the instances (Spearman, 1910; Brown, 1910), averaged over splits. NaN for
    benchmarks of a single column.

    Examples
    --------
    >>> from lrmf.simulation.simulate import simulate
    >>> hub = simulate(n_models=60, n_items=90, seed=0)
    >>> ceiling = split_half_ceiling(hub.responses, hub.items)
    >>> bool(ceiling["mmlu_pro"] > 0.9)  # the benchmark with most items
    True
    """
    rng = np.random.default_rng(seed)
    ceilings = {}
    for benchmark, columns in items.groupby("benchmark", sort=False).indices.items():
        answers = np.asarray(responses[:, columns])
        values = []
        for _ in range(n_splits if len(columns) > 1 else 0):
            order = rng.permutation(len(columns))
            halves = [_mean_answer(answers[:, half]) for half in np.array_split(order, 2)]
            both = np.isfinite(halves).all(axis=0)
            r = pearson(*(half[both] for half in halves))
            r = max(r, 0.0) if np.isfinite(r) else 0.0  # a constant half ranks nobody
            values.append(2 * r / (1 + r))  # Spearman and Brown: both halves together
        ceilings[benchmark] = np.sqrt(np.mean(values)) if values else np.nan
    return pd.Series(ceilings, name="ceiling")


def _mean_answer(answers: np.ndarray) -> np.ndarray:
    seen = observed(answers)
    with np.errstate(invalid="ignore"):
        return np.where(seen, answers, 0).sum(axis=1) / seen.sum(axis=1)


def interval_quality(forecasts: pd.DataFrame, *, predictor: str = FORECASTER.label) -> pd.DataFrame:
    """Coverage, width and score of a predictor's 90% intervals by k and benchmark.

    Averaged over seeds. The interval score is the width and 20 times the distance of the actual
    score from the interval, if outside, in points (Gneiting and Raftery, 2007): less is better.

    Returns predictor, k, benchmark, metric, value, n.
    """
    keys = ["predictor", "k", "benchmark", "metric"]
    if forecasts.empty:
        return pd.DataFrame(columns=[*keys, "value", "n"])
    own = forecasts[forecasts["predictor"] == predictor]
    values = score_forecasts(own, by=["predictor", "seed", "k"])
    values = values[values["metric"].isin(INTERVALS)]
    grouped = values.groupby(keys, sort=False)
    return grouped.agg(value=("value", "mean"), n=("n", "max")).reset_index()


def calibration_bins(forecasts: pd.DataFrame, *, n_bins: int = 10) -> pd.DataFrame:
    """Mean predicted and actual skill of equally large groups of forecasts, by predictor.

    Skill is the score less the expected one, the mean of the training models on the same items.
    Pooled scores would show how far apart benchmarks are.

    Returns predictor, bin, predicted, actual, n.
    """
    columns = ["predictor", "bin", "predicted", "actual", "n"]
    if forecasts.empty:
        return pd.DataFrame(columns=columns)
    skill = {name: forecasts[name] - forecasts["expected"] for name in ("predicted", "actual")}
    frame = forecasts.assign(**skill)
    rank = frame.groupby("predictor")["predicted"].rank(method="first", pct=True)
    frame["bin"] = np.ceil(rank * n_bins).astype(int)
    grouped = frame.groupby(["predictor", "bin"], sort=False)
    means = grouped[["predicted", "actual"]].mean().assign(n=grouped.size())
    return means.reset_index().sort_values(["predictor", "bin"], ignore_index=True)[columns]


def score_ceiling(snapshot: Snapshot, *, n_splits: int = 5, seed: int = 0) -> pd.DataFrame:
    """The r with the observed score that even a model's true accuracy would reach, by benchmark.

    From split halves of the answers, or from the binomial noise of proportions.
    """
    if snapshot.is_binary:
        ceiling = split_half_ceiling(
            snapshot.responses, snapshot.items, n_splits=n_splits, seed=seed
        )
    else:
        n_trials = snapshot.items.groupby("benchmark", sort=False)["n_trials"].sum()
        scores = benchmark_scores(snapshot.responses, snapshot.items)
        ceiling = noise_ceiling(scores, n_trials)
    return ceiling.rename_axis("benchmark").rename("ceiling").reset_index()
