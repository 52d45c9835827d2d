"""What the notebooks read off forecasts: intervals of every predictor, differences, strata.

All frames are those of `lrmf.evaluation.evaluate`. Where a snapshot cannot serve a protocol (no
dates, no lineage, no instances) the frames are empty, and everything here passes emptiness on.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ..baselines.registry import FORECASTER, LEADS, shown_in
from ..data.statistics import percentile_interval, resample_weights
from .metrics import METRICS, _Table, mean_of_finite, score_forecasts

BOOTSTRAP_BLOCK = 250
MIN_CLUSTERS = 5  # below that resampling says little
CLAIM = (0.07, 0.10)
COMPARISON = ["predictor", "metric", "benchmark", "value", "lower", "upper"]
COMPARISON += ["difference", "difference_lower", "difference_upper", "n_models", "n_clusters"]


def bootstrap(
    forecasts: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    reference: str = FORECASTER.label,
    metrics: Sequence[str] = ("pearson", "mae"),
    benchmark: str = "all",
    n_boot: int = 2000,
    seed: int = 0,
    cluster: str | None = "family",
) -> pd.DataFrame:
    """Metrics of every predictor with percentile intervals, and the reference minus each of them.

    Models are resampled in whole clusters, the same draws for all predictors, so the differences
    are paired; several seeds are averaged within a resample. With fewer than 5 clusters the bounds
    are NaN.

    Parameters
    ----------
    forecasts : of one protocol, in each group of `by` every predictor over the same models.
    reference : predictor; without forecasts of it the differences are NaN.
    cluster : column whose values are resampled whole; None resamples single models.

    Returns
    -------
    DataFrame : columns of `by`, then predictor, metric, benchmark, value, lower, upper, difference,
        difference_lower, difference_upper, n_models, n_clusters.

    Raises
    ------
    ValueError
        If a metric or the benchmark is unknown, or predictors forecast different models.
    """
    _check_names(forecasts, metrics, benchmark)
    if forecasts.empty:
        return pd.DataFrame(columns=[*by, *COMPARISON])
    parts = []
    groups = forecasts.groupby(list(by), sort=False, dropna=False) if by else [((), forecasts)]
    for key, group in groups:
        resamples = {"n_boot": n_boot, "seed": seed, "cluster": cluster}
        draws, counts = _draws(group, metrics, benchmark, **resamples)
        rows = [(*key, *row) for row in _interval_rows(draws, benchmark, reference)]
        counted = {"n_models": len(counts), "n_clusters": counts.nunique()}
        parts.append(pd.DataFrame(rows, columns=[*by, *COMPARISON[:-2]]).assign(**counted))
    return pd.concat(parts, ignore_index=True)


def within_families(
    forecasts: pd.DataFrame,
    *,
    min_models: int = 15,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """`bootstrap` inside each family of at least `min_models` forecast models, and their mean.

    Inside a family single models are resampled. *mean* is the mean over these families; its
    intervals resample families and, inside each, models.

    Returns
    -------
    DataFrame : family (its number in `Lineage.families`, or "mean") and the columns of `bootstrap`;
        for the mean n_models counts the models of all families, and n_clusters the families.
    """
    sizes = forecasts.groupby("family")["model_id"].nunique() if len(forecasts) else pd.Series()
    large = sizes.index[sizes >= min_models]
    if large.empty:
        return pd.DataFrame(columns=["family", *COMPARISON])
    resamples, parts, rows = {"n_boot": n_boot, "cluster": None}, [], []
    for family in large:
        group = forecasts[forecasts["family"] == family]
        metrics, seeds = ("pearson", "mae"), [seed, int(family)]
        draws, _ = _draws(group, metrics, "all", seed=seeds, **resamples)
        parts.append(draws)
        rows += [(str(family), *row, sizes[family], sizes[family]) for row in _interval_rows(draws)]
    # Every family counts once in the value, and as often as it is drawn in a resample.
    rng, n = np.random.default_rng([seed, 2]), len(large)
    weights = resample_weights(np.arange(n), n_boot if n >= MIN_CLUSTERS else 0, rng) / n
    means = {
        key: (weights * np.stack([draws[key][: len(weights)] for draws in parts], 1)).sum(axis=1)
        for key in parts[0]
    }
    rows += [("mean", *row, sizes[large].sum(), n) for row in _interval_rows(means)]
    return pd.DataFrame(rows, columns=["family", *COMPARISON])


def _draws(forecasts, metrics, benchmark, **resamples) -> tuple[dict, pd.Series]:
    """Each metric of each predictor in the same resamples, and the cluster of each model."""
    _check_pairs(forecasts)
    weights, clusters = _resamples(forecasts, **resamples)
    draws = {}
    for name, frame in forecasts.groupby("predictor", sort=False):
        drawn = _draw(frame, metrics, benchmark, weights, clusters.index)
        draws |= {(name, metric): values for metric, values in drawn.items()}
    return draws, clusters


def _check_names(forecasts, metrics, benchmark):
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; choose one of {', '.join(METRICS)}")
    known = ["all", "average", *(forecasts["benchmark"].unique() if len(forecasts) else ())]
    if len(forecasts) and benchmark not in known:
        raise ValueError(f"unknown benchmark {benchmark!r}; choose {', '.join(known)}")


def _check_pairs(forecasts):
    """Differences are paired: every predictor must forecast the same models and benchmarks."""
    keys = ["seed", "model_id", "benchmark"]
    cell = forecasts.groupby(keys, sort=False).ngroup()
    cells = {name: set(own) for name, own in cell.groupby(forecasts["predictor"], sort=False)}
    first, *others = cells
    for name in others:
        if cells[name] != cells[first]:
            raise ValueError(
                f"{first!r} and {name!r} forecast different models or benchmarks; compare "
                "forecasts of the same splits"
            )


def _resamples(forecasts, *, n_boot, seed, cluster) -> tuple[np.ndarray, pd.Series]:
    """Weights (1 + n_boot, n_models), the first row all ones, and the cluster of each model."""
    models = forecasts.drop_duplicates("model_id").set_index("model_id")
    codes = np.arange(len(models)) if cluster is None else pd.factorize(models[cluster])[0]
    n_boot = n_boot if codes.max() + 1 >= MIN_CLUSTERS else 0
    weights = resample_weights(codes, n_boot, np.random.default_rng(seed))
    return weights, pd.Series(codes, index=models.index)


def _draw(forecasts, metrics, benchmark, weights, models) -> dict[str, np.ndarray]:
    """Each metric of a predictor in each resample, averaged over seeds."""
    values = {metric: [] for metric in metrics}
    for seed, frame in forecasts.groupby("seed"):
        where = f"seed {seed}; name the labels that tell forecasts apart in `by`"
        table = _Table(frame, where, models)
        blocks = np.array_split(weights, np.ceil(len(weights) / BOOTSTRAP_BLOCK))
        for metric in metrics:
            # A benchmark of which a resample holds no value does not count in it.
            with np.errstate(invalid="ignore", divide="ignore"):
                columns = np.concatenate([METRICS[metric](table, block) for block in blocks])
            if benchmark == "all":
                values[metric].append(mean_of_finite(columns[:, :-1]))
            else:
                place = [*table.benchmarks, "average"].index(benchmark)
                values[metric].append(columns[:, place])
    return {metric: np.mean(drawn, axis=0) for metric, drawn in values.items()}


def _interval_rows(draws, benchmark="all", reference=FORECASTER.label) -> Iterator[tuple]:
    """For each predictor and metric: the value and the difference, with their intervals."""
    for (name, metric), own in draws.items():
        difference = draws.get((reference, metric), np.full_like(own, np.nan)) - own
        row = [name, metric, benchmark]
        for values in (own, difference):
            row += [values[0], *percentile_interval(values[1:])]
        yield tuple(row)


def spread_over_folds(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of the metrics over folds and seeds, each scored on its own.

    Returns the columns predictor, benchmark, metric, sd, n_splits.
    """
    keys = ["predictor", "benchmark", "metric"]
    if forecasts.empty:
        return pd.DataFrame(columns=[*keys, "sd", "n_splits"])
    splits = [name for name in ("seed", "fold") if name in forecasts]
    values = score_forecasts(forecasts, by=["predictor", *splits])
    grouped = values.groupby(keys, sort=False)["value"]
    return grouped.agg(sd="std", n_splits="size").reset_index()


BETTER, LEVEL, WORSE = "better", "no clear difference", "worse"


def verdict(lower, upper):
    """What the interval of a difference says: better above 0, worse below, else no clear one."""
    return np.select([np.asarray(lower) > 0, np.asarray(upper) < 0], [BETTER, WORSE], LEVEL)


def judge_leads(comparison: pd.DataFrame) -> pd.DataFrame:
    """The rows of `bootstrap` about r and baselines of the claim, with the `verdict` of each."""
    frame = comparison[
        (comparison["metric"] == "pearson") & comparison["predictor"].isin(shown_in(LEADS))
    ]
    bounds = frame["difference_lower"], frame["difference_upper"]
    return frame.assign(verdict=verdict(*bounds))


def leads(
    forecasts: pd.DataFrame, references: Sequence[str], *, by: Sequence[str] = (), **options
) -> pd.DataFrame:
    """The differences in r of each `reference` to the baselines: the frames of `judge_leads`.

    Parameters
    ----------
    references : predictors; those without forecasts are left out.
    forecasts, by, options : as in `bootstrap`
    """
    options |= {"by": by, "metrics": ["pearson"]}
    parts = [judge_leads(bootstrap(forecasts[:0], **options)).assign(reference="")]
    for reference in references if not forecasts.empty else ():
        if (forecasts["predictor"] == reference).any():
            chosen = forecasts[forecasts["predictor"].isin([reference, *shown_in(LEADS)])]
            compared = bootstrap(chosen, reference=reference, **options)
            parts.append(judge_leads(compared).assign(reference=reference))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def by_stratum(
    forecasts: pd.DataFrame,
    columns: Sequence[str] = ("distance", "relation", "relatives"),
    *,
    min_models: int = 10,
    **options,
) -> pd.DataFrame:
    """`bootstrap` within each value of each column, as columns `stratum` and `level`.

    Levels with fewer than `min_models` models are left out.
    """
    parts = []
    for column in columns if not forecasts.empty else ():
        sizes = forecasts.groupby(column)["model_id"].nunique()
        enough = forecasts[forecasts[column].isin(sizes.index[sizes >= min_models])]
        if len(enough):
            frame = bootstrap(enough, by=[column], **options)
            parts.append(frame.rename(columns={column: "level"}).assign(stratum=column))
    if not parts:
        return pd.DataFrame(columns=["stratum", "level", *COMPARISON])
    frame = pd.concat(parts, ignore_index=True)
    return frame[["stratum", "level", *COMPARISON]]
