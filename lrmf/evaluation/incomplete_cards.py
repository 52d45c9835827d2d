"""The protocol "incomplete cards": what a forecast loses where the card of a model is not whole.

A card that says less should make a forecast less sharp and its interval wider, but not move the
forecasts of all models up or down. A size in the wrong unit should do no more harm than none.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pandas as pd
from joblib import delayed

from ..data.lineage import Lineage
from ..data.responses import has_responses
from ..data.statistics import item_means
from .evaluate import annotate_forecasts, forecast_split, seeded
from .metrics import score_forecasts
from .parallel import run
from .splits import Split

COMPLETE = "complete"
SINGLE_FIELDS = ("params_b", "architecture", "type", "chat_template", "created_at")
WRONG_UNITS = (1000, 6)  # bytes for kilobytes; a file of packed 4-bit weights and their scales
METRICS = {"pearson": "r", "mae": "mae", "coverage": "coverage", "width": "width"}
SUMMARY = ["predictor", "variant", "r", "mae", "shift", "coverage", "width", "n_models"]


def card_variants(
    models: pd.DataFrame, rows: np.ndarray, *, seed: int = 0
) -> dict[str, Callable[[], pd.DataFrame]]:
    """The models table by the name of a variant, with the cards of `rows` changed.

    Parameters
    ----------
    models : DataFrame, the models table; model_id stays whatever the variant
    rows : integer array, the models whose cards are changed
    seed : int, of the random half of the fields, another half for each model

    Returns
    -------
    dict of functions that make a table: one of them at a time is enough
    """
    fields = [name for name in models if name != "model_id"]
    known = [name for name in fields if models[name].iloc[rows].notna().any()]
    # Each model keeps a random half of its fields: those of the lowest random numbers.
    place = np.random.default_rng([seed, 17]).random((len(rows), len(fields))).argsort(axis=1)
    half = dict(zip(fields, (place < len(fields) / 2).T, strict=True))
    keeping = partial(_keep, models, rows)
    variants = {COMPLETE: lambda: models}
    if "params_b" in known:
        variants["only the size"] = partial(keeping, {"params_b": True})
    variants |= {"nothing": partial(keeping, {}), "half of the fields": partial(keeping, half)}
    for field in SINGLE_FIELDS:
        if field in known:
            others = {name: name != field for name in fields}
            label = "the size" if field == "params_b" else field
            variants[f"without {label}"] = partial(keeping, others)
    if "params_b" in known:
        for factor in WRONG_UNITS:
            variants[f"size / {factor}"] = partial(_divide, models, rows, factor)
    return variants


def _keep(models, rows, kept):
    """The table with those fields of `rows` unknown that are not kept."""
    table = models.copy()
    for name in table.columns.drop("model_id"):
        stays = np.ones(len(table), bool)
        stays[rows] = kept.get(name, False)
        table[name] = table[name].astype(object).where(stays, None)
    return table


def _divide(models, rows, factor):
    """The table with the sizes of `rows` divided."""
    divisor = np.where(np.isin(np.arange(len(models)), rows), factor, 1)
    size = pd.to_numeric(models["params_b"], errors="coerce").to_numpy(float, na_value=np.nan)
    return models.assign(params_b=size / divisor)


def incomplete_cards(
    predictors: dict[str, object],
    splits: Iterable[Split],
    lineage: Lineage,
    *,
    items: pd.DataFrame,
    truth: np.ndarray,
    models: pd.DataFrame,
    n_jobs: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forecast the hidden models of each split with their cards complete, in parts, and wrong.

    A predictor is fitted once for a split, without the hidden models' responses and cards; then
    its `adapt` is given each of `card_variants`. So variants differ by the cards of the hidden
    models alone.

    Parameters
    ----------
    predictors : dict of name to estimator with `adapt(responses, lineage, models=)`
    splits, lineage, items, truth, models, n_jobs : as in `evaluate`

    Returns
    -------
    summary : of `summarize`
    forecasts : those of `evaluate`, with a column variant
    """
    tasks = (
        delayed(_forecast_variants)(name, predictor, split, lineage, items, truth, models)
        for split in splits
        for name, predictor in predictors.items()
    )
    parts = run(tasks, n_jobs)
    if not parts:
        raise ValueError("nothing to evaluate: no predictors or no splits")
    forecasts = pd.concat(parts, ignore_index=True)
    return summarize(forecasts), forecasts


def _forecast_variants(name, predictor, split, lineage, items, truth, models) -> pd.DataFrame:
    """The forecasts of one fit for each variant of the hidden models' cards."""
    variants = card_variants(models, split.rows, seed=split.seed)
    fitted = seeded(predictor, split.seed)
    fitted.fit(split.train, lineage, items=items, models=variants["nothing"]())
    expected, frames = item_means(split.train, items), []
    for variant, make in variants.items():
        adapted = fitted.adapt(split.train, lineage, models=make())
        label = {"protocol": "incomplete_cards", "predictor": name, "seed": split.seed}
        label |= split.label | {"variant": variant}
        frames.append(forecast_split(adapted, split, expected, lineage, items, truth, label)[0])
    frame = pd.concat(frames, ignore_index=True)
    return annotate_forecasts(frame, lineage, has_responses(split.train))


def summarize(forecasts: pd.DataFrame) -> pd.DataFrame:
    """One row a predictor and variant: accuracy, shift, coverage and width.

    All are means over benchmarks, and over seeds. The shift is the mean over models of the forecast
    minus that from the complete card, in points; r, MAE, coverage and width are those of
    `score_forecasts`.

    Returns
    -------
    DataFrame : predictor, variant, r, mae, shift, coverage, width, n_models
    """
    if forecasts.empty:
        return pd.DataFrame(columns=SUMMARY)
    keys = ["predictor", "variant"]
    scores = score_forecasts(forecasts, by=[*keys, "seed"])
    scores = scores[(scores["benchmark"] == "all") & scores["metric"].isin(METRICS)]
    table = scores.groupby([*keys, "metric"], sort=False)["value"].mean().unstack("metric")
    table = table.reindex(columns=list(METRICS)).rename(columns=METRICS).rename_axis(columns=None)
    # The same models and benchmarks, forecast from complete cards.
    same = ["predictor", "seed", "model_id", "benchmark"]
    whole = forecasts[forecasts["variant"] == COMPLETE].set_index(same)["predicted"]
    moved = forecasts.set_index(same)["predicted"] - whole.reindex(forecasts.set_index(same).index)
    moved = forecasts.assign(shift=100 * moved.to_numpy())
    by_benchmark = moved.groupby([*keys, "benchmark"], sort=False)["shift"].mean()
    table["shift"] = by_benchmark.groupby(level=keys, sort=False).mean()
    table["n_models"] = forecasts.groupby(keys, sort=False)["model_id"].nunique()
    order = forecasts[keys].drop_duplicates()
    return table.loc[pd.MultiIndex.from_frame(order)].reset_index()[SUMMARY]
