"""Evaluation without leakage: splits, metrics over held-out models, paired comparisons.

A protocol is a generator of `Split` objects; `evaluate` fits every predictor on the training
responses of each split and scores its forecasts on the target cells, and on nothing else. What
comes out are tidy frames: `forecasts` (one row a predictor, split, model and benchmark) and
`results` (one row a predictor, benchmark and metric).

Metrics look at models, not cells: pooled over cells the item difficulties alone reach a
correlation of about .7, which says nothing about which model is better.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, groupby

import numpy as np
import pandas as pd
from joblib import delayed
from scipy import sparse
from sklearn.base import clone

from ..data.lineage import Lineage
from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import has_responses
from ..data.schema import RELATIONS
from ..data.statistics import item_means
from .metrics import mean_of_finite, score_forecasts
from .parallel import run
from .splits import Split, relatives_within

AUC_BINS = 4096
ROW_KEYS = ["protocol", "predictor", "seed"]
RELATIVES = {"1": (1, 1), "2-4": (2, 4), "5-19": (5, 19), "20 or more": (20, np.inf)}
DISTANCES = ["1 hop", "2 hops", "3 hops or more"]


def evaluate(
    predictors: dict[str, object],
    splits: Iterable[Split],
    lineage: Lineage,
    *,
    items: pd.DataFrame,
    truth: np.ndarray,
    models: pd.DataFrame | None = None,
    lineages: Mapping[str, Lineage] | None = None,
    shuffle_lineage: bool = False,
    n_jobs: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit and score every predictor on every split.

    Predictors are cloned for each split, take its seed if they have a `seed` parameter, and are
    fitted once for consecutive splits with the same training array. The predictors that `lineages`
    names get that lineage instead, and all of a split with a `lineage` of its own get that one,
    while splits and annotations stay. With `shuffle_lineage` all
    get `lineage.shuffled(seed)`: the control that shows what lineage is worth (protocol name with
    "-shuffled" appended).

    Returns
    -------
    results : protocol, predictor, seed, labels but fold, benchmark ("all": mean over benchmarks,
        "average": the models' average over benchmarks), metric, value, n. A metric pools the
        forecasts of all folds of a seed.
    forecasts : protocol, predictor, seed, labels, model_id, benchmark, actual, predicted, lower,
        upper, expected, n_items, log_loss, brier, chosen and the columns of `annotate_forecasts`.
        Actual, predicted and expected (the item means of the training responses) are means over the
        target cells, weighted by n_trials. Chosen are the parameters that the predictor chose from
        the training responses (its `chosen_`), as a JSON object.
    """
    others = lineages or {}
    if unknown := sorted(others.keys() - predictors.keys()):
        raise ValueError(f"lineages names {', '.join(unknown)}, but predictors does not")
    groups = (list(group) for _, group in groupby(splits, key=lambda split: id(split.train)))
    tasks = (
        delayed(_evaluate_group)(
            name, predictor, group, lineage, known, items, models, truth, shuffle_lineage
        )
        for group in groups
        for name, predictor in predictors.items()
        for known in [others.get(name, lineage)]
    )
    work = run(tasks, n_jobs)
    parts = [part for group in work for part in group]
    if not parts:
        raise ValueError("nothing to evaluate: no predictors or no splits")
    forecasts = pd.concat([forecast for forecast, _ in parts], ignore_index=True)
    labels = {key: None for _, (label, _) in parts for key in label if key != "fold"}
    keys = ROW_KEYS + [key for key in labels if key not in ROW_KEYS]
    results = [score_forecasts(forecasts, by=keys)]
    if kind_of(truth) is ANSWERS:
        results.append(_pooled_auc(parts, keys, list(items["benchmark"].unique())))
    results = pd.concat(results, ignore_index=True)
    return results.sort_values([*keys, "metric"], kind="stable", ignore_index=True), forecasts


def _evaluate_group(
    name, predictor, group, lineage, known, items, models, truth, shuffle_lineage
) -> list[tuple[pd.DataFrame, tuple[dict, np.ndarray]]]:
    """Forecast frame, label and AUC histogram of a predictor on each split of a group."""
    first = group[0]
    train_mask, expected = has_responses(first.train), item_means(first.train, items)
    known = known if first.lineage is None else first.lineage
    known = known.shuffled(first.seed) if shuffle_lineage else known
    fitted = seeded(predictor, first.seed).fit(first.train, known, items=items, models=models)
    chosen = json.dumps(getattr(fitted, "chosen_", {}))
    parts = []
    for split in group:
        protocol = split.protocol + ("-shuffled" if shuffle_lineage else "")
        label = {"protocol": protocol, "predictor": name, "seed": split.seed, **split.label}
        frame, histogram = forecast_split(fitted, split, expected, lineage, items, truth, label)
        frame = annotate_forecasts(frame.assign(chosen=chosen), lineage, train_mask)
        parts.append((frame, (label, histogram)))
    return parts


def seeded(predictor, seed: int):
    """A clone with this seed, if it has one."""
    fresh = clone(predictor)
    return fresh.set_params(seed=seed) if "seed" in fresh.get_params(deep=False) else fresh


def forecast_split(
    fitted, split, expected, lineage, items, truth, label: dict
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Mean forecast and actual mean over the target cells, by model and benchmark, labelled."""
    predicted, scores = _predict(fitted, split)
    if predicted.shape != split.target.shape or not np.isfinite(predicted).all():
        raise ValueError(
            f"predictor '{label['predictor']}' returned shape {predicted.shape} for "
            f"{split.target.shape} cells, or values that are not finite"
        )
    benchmarks = list(items["benchmark"].unique())
    member = (items["benchmark"].to_numpy()[:, None] == np.array(benchmarks)).astype(np.float32)
    sums, histogram = _cell_sums(truth, predicted, split, expected, member, items["n_trials"])
    position, column = np.nonzero(sums["n_items"])
    ids = lineage.node_ids[split.rows][position]
    frame = pd.DataFrame({"model_id": ids, "benchmark": np.array(benchmarks)[column]})
    for key in ("actual", "predicted", "expected"):
        frame[key] = (sums[key] / np.maximum(sums["weight"], 1))[position, column]
    for bound in ("lower", "upper"):
        wide = pd.DataFrame(index=split.rows, columns=benchmarks, dtype=float)
        if scores is not None:
            wide = scores.pivot(index="row", columns="benchmark", values=bound).reindex_like(wide)
        frame[bound] = wide.to_numpy()[position, column]
    frame["n_items"] = sums["n_items"][position, column].astype(int)
    for key in ("log_loss", "brier"):
        total = sums.get(key, np.full_like(sums["n_items"], np.nan))
        frame[key] = total[position, column] / frame["n_items"]
    for place, (key, value) in enumerate(label.items()):
        frame.insert(place, key, value)
    return frame, histogram


def _cell_sums(
    truth, predicted, split, expected, member, n_trials
) -> tuple[dict, np.ndarray | None]:
    """Sums over target cells by model and benchmark, and the AUC histogram of the answers."""
    kind, n_benchmarks = kind_of(truth), member.shape[1]
    weighted = member * n_trials.to_numpy(dtype=np.float32)[:, None]
    parts, histogram = [], np.zeros((n_benchmarks, 2, AUC_BINS)) if kind is ANSWERS else None
    step = max(1, 4_000_000 // predicted.shape[1])
    for start in range(0, len(predicted), step):
        target = split.target[start : start + step]
        forecast = predicted[start : start + step].astype(np.float32)
        actual = np.where(target, truth[split.rows[start : start + step]], 0).astype(np.float32)
        part = {
            "n_items": target.astype(np.float32) @ member,
            "weight": target.astype(np.float32) @ weighted,
            "actual": actual @ weighted,
            "predicted": np.where(target, forecast, 0) @ weighted,
            "expected": target.astype(np.float32) @ (weighted * expected[:, None]),
        }
        if histogram is not None:
            error = forecast - actual
            part["log_loss"] = np.where(target, kind.losses(error), 0) @ member
            part["brier"] = np.where(target, error**2, 0) @ member
            histogram += _histogram(forecast, actual, target, member)
        parts.append(part)
    sums = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {key: value.astype(np.float64) for key, value in sums.items()}, histogram


def _histogram(forecast, actual, target, member) -> np.ndarray:
    """(n_benchmarks, 2, AUC_BINS) counts of target cells by actual answer and forecast bin."""
    n_benchmarks = member.shape[1]
    # One number for benchmark, answer and bin, so that a single count does it.
    bins = (forecast * (AUC_BINS - 1) + 0.5).astype(np.int32)
    bins += AUC_BINS * (actual.astype(np.int32) + 2 * member.argmax(axis=1).astype(np.int32))
    counts = np.bincount(bins[target], minlength=2 * n_benchmarks * AUC_BINS)
    return counts.reshape(n_benchmarks, 2, AUC_BINS)


def _pooled_auc(parts, keys, benchmarks) -> pd.DataFrame:
    """AUC over the target cells of all folds, by benchmark, and its mean over benchmarks."""
    pooled, rows = {}, []
    for _, (label, histogram) in parts:
        key = tuple(label.get(name, np.nan) for name in keys)
        pooled[key] = pooled.get(key, 0) + histogram
    for key, counts in pooled.items():
        wrong, right = counts[:, 0], counts[:, 1]
        # The share of pairs of a wrong and a right answer that the forecasts rank right; ties half.
        below = wrong.cumsum(axis=1) - wrong / 2
        n_cells = wrong.sum(axis=1), right.sum(axis=1)
        with np.errstate(invalid="ignore"):
            area = (right * below).sum(axis=1) / (n_cells[0] * n_cells[1])
        n_cells = (n_cells[0] + n_cells[1]).astype(int)
        values = dict(zip(benchmarks, zip(area, n_cells, strict=True), strict=True))
        values["all"] = (float(mean_of_finite(area)), n_cells.sum())
        rows += [(*key, name, "auc", value, n) for name, (value, n) in values.items() if n]
    return pd.DataFrame(rows, columns=[*keys, "benchmark", "metric", "value", "n"])


def _predict(fitted, split) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Forecast of every item, and of scores from predictors that offer intervals."""
    cells = {"revealed": split.revealed, "target": split.target}
    if hasattr(fitted, "predict"):
        forecast = fitted.predict(split.rows, **cells)
        return forecast.items, forecast.scores
    return fitted.predict_proba(split.rows, revealed=split.revealed), None


def annotate_forecasts(
    forecasts: pd.DataFrame, lineage: Lineage, train_mask: np.ndarray
) -> pd.DataFrame:
    """Add what the lineage knows about each forecast model, given the models trained on.

    Adds `hops` (to the nearest model trained on; 0 itself, -1 none), `n_relatives` (trained on,
    within two hops), `family`, and `relation`: how the model was made from a parent trained on
    (finetune, merge, adapter, quantized); else `parent` if only children were trained on, `sibling`
    if only a model with a parent in common, `distant` if anything farther, `none`.

    Parameters
    ----------
    train_mask : (n_models,) boolean array, models with training responses.
    """
    trained = np.zeros(lineage.n_nodes, dtype=bool)
    trained[: lineage.n_models] = train_mask
    hops = lineage.hops_to(trained)
    relation = np.where(hops < 0, "none", "distant").astype(object)
    parents, children = lineage.parent_index, lineage.child_index
    made_from = sparse.csr_array(
        (np.ones(len(parents), dtype=np.int32), (children, parents)), shape=(lineage.n_nodes,) * 2
    )
    # Models trained on with a parent in common; each shares its parents with itself, too.
    sharing = made_from @ (made_from.T @ trained.astype(np.int32))
    own = made_from.sum(axis=1) * trained
    relation[sharing > own] = "sibling"
    relation[parents[trained[children]]] = "parent"
    kinds = lineage.edges["relation"].to_numpy()
    for kind in RELATIONS[::-1]:
        relation[children[trained[parents] & (kinds == kind)]] = kind
    n_relatives = np.diff(relatives_within(lineage, train_mask, 2).indptr)
    row = pd.Index(lineage.node_ids[: lineage.n_models]).get_indexer(forecasts["model_id"])
    return forecasts.assign(
        relation=relation[row],
        n_relatives=n_relatives[row],
        hops=hops[row],
        family=lineage.families[row],
    )


def parents_mean(forecasts: pd.DataFrame, lineage: Lineage, scores: pd.DataFrame) -> pd.DataFrame:
    """Forecasts of *parents' mean* beside those of one predictor: the mean score of the parents.

    Only parents that are not held out in the same fold count. A model without such a parent gets
    what is expected of any model.

    Parameters
    ----------
    forecasts : of `evaluate`, protocol zero_shot, one predictor
    scores : (n_models, n_benchmarks), of `benchmark_scores`
    """
    scores = scores.set_axis(lineage.node_ids[: lineage.n_models]).rename_axis("parent")
    known = scores.melt(var_name="benchmark", value_name="score", ignore_index=False).dropna()
    parents = lineage.edges[["parent", "child"]].rename(columns={"child": "model_id"})
    pairs = forecasts[["seed", "fold", "model_id", "benchmark"]].merge(parents, on="model_id")
    pairs = pairs.merge(known.reset_index(), on=["parent", "benchmark"])
    # Parents of the same fold are hidden, too.
    held_out = pd.MultiIndex.from_frame(forecasts[["seed", "fold", "model_id"]])
    pairs = pairs[~pd.MultiIndex.from_frame(pairs[["seed", "fold", "parent"]]).isin(held_out)]
    keys = ["seed", "model_id", "benchmark"]
    mean = pairs.groupby(keys)["score"].mean().reindex(pd.MultiIndex.from_frame(forecasts[keys]))
    predicted = np.where(mean.notna(), mean, forecasts["expected"])
    unknown = dict.fromkeys(["lower", "upper", "log_loss", "brier"], np.nan)
    return forecasts.assign(predictor="parents' mean", predicted=predicted, **unknown)


def run_protocol(
    name: str,
    predictors: dict[str, object],
    protocol: Callable[[], Iterable[Split]],
    lineage: Lineage,
    *,
    max_folds: int | None = None,
    score: Callable = evaluate,
    **options,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`evaluate` on a protocol's splits; where the snapshot has none, one line and empty frames.

    Parameters
    ----------
    name : what the printed line calls the protocol.
    protocol : makes the splits, such as ``partial(zero_shot, responses, lineage)``.
    max_folds : evaluate only so many folds of each seed.
    score : `evaluate`, or what takes its arguments and returns two frames (`incomplete_cards`).
    """
    why, first = "it has no models to forecast", None
    try:
        splits = iter(protocol())
        if max_folds is not None:
            splits = (split for split in splits if split.label["fold"] < max_folds)
        first = next(splits, None)
    except ValueError as reason:
        why = str(reason)
    if not predictors:
        first, why = None, "no predictor applies to it"
    if first is None:
        print(f"{name}: not on this snapshot ({why}).")
        return pd.DataFrame(), pd.DataFrame()
    return score(predictors, chain([first], splits), lineage, **options)


def choices(forecasts: pd.DataFrame) -> pd.DataFrame:
    """What each predictor chose from a grid (`chosen_`), in each fit: one row a fit and parameter.

    Returns
    -------
    DataFrame : columns predictor, seed, fold, parameter, value (text)
    """
    keys = ["predictor", "seed", "fold"]
    if forecasts.empty:
        return pd.DataFrame(columns=[*keys, "parameter", "value"])
    fits = forecasts[[*keys, "chosen"]].drop_duplicates().itertuples(index=False)
    rows = [
        (*fit, name, f"{value:g}" if isinstance(value, float) else str(value))
        for *fit, chosen in fits
        for name, value in json.loads(chosen).items()
    ]
    return pd.DataFrame(rows, columns=[*keys, "parameter", "value"])


def add_strata(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Columns `distance` ("1 hop", ...) and `relatives`, how many were trained on within two."""
    if forecasts.empty:
        return forecasts
    hops, number = forecasts["hops"], forecasts["n_relatives"]
    distance = np.select([hops == 1, hops == 2, hops > 2], DISTANCES, "none")
    within = [number.between(*bounds) for bounds in RELATIVES.values()]
    return forecasts.assign(distance=distance, relatives=np.select(within, list(RELATIVES), "none"))
