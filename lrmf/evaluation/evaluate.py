"""Evaluation without leakage: splits, metrics over held-out models, paired comparisons.

A protocol is a generator of `Split` objects; `evaluate` fits every predictor on the training
responses of each split and scores its forecasts on the target cells, and on nothing else. What
comes out are tidy frames: `forecasts` (one row a predictor, split, model and benchmark) and
`results` (one row a predictor, benchmark and metric).

Metrics look at models, not cells: pooled over cells the item difficulties alone reach a
correlation of about .7, which says nothing about which model is better.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.base import clone

from ..baselines.averages import item_means
from ..data.features import DATE_COLUMNS, model_dates
from ..data.lineage import Lineage
from ..data.snapshot import MISSING, RELATIONS, observed, random_places
from .metrics import (
    mean_of_finite,
    noise_ceiling,
    paired_bootstrap,
    score_forecasts,
    split_half_ceiling,
    summarise,
)
from .parallel import workers

__all__ = [
    "Split",
    "annotate_forecasts",
    "date_split",
    "evaluate",
    "few_shot",
    "homogeneous",
    "noise_ceiling",
    "paired_bootstrap",
    "random_missing",
    "score_forecasts",
    "split_half_ceiling",
    "summarise",
    "zero_shot",
]

LOG_LOSS_CLIP = 1e-6
AUC_BINS = 4096
ROW_KEYS = ["protocol", "predictor", "seed"]


@dataclass(frozen=True, eq=False)
class Split:
    """Training responses, and the cells of some models to forecast from them.

    Attributes
    ----------
    train : (n_models, n_items) array, the responses with everything held out set to missing.
    rows : (n_rows,) integer array, the models to forecast.
    revealed : None, or (n_rows, n_items) array with only the revealed answers observed.
    target : (n_rows, n_items) boolean array, the cells scored: observed in the truth, missing in
        `train`, not revealed.
    label : what tells this split from others of the same protocol and seed (k, density, fold).
    """

    protocol: str
    seed: int
    train: np.ndarray
    rows: np.ndarray
    revealed: np.ndarray | None
    target: np.ndarray
    label: dict = field(default_factory=dict)


def random_missing(
    responses: np.ndarray,
    *,
    densities: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8),
    seeds: Sequence[int] = (0,),
    max_rows: int = 400,
) -> Iterator[Split]:
    """Keep each observed cell for training with probability `density`; forecast others.

    The target is the same for all densities of a seed, and so are the draws: the cells that not
    even the largest density keeps, of at most `max_rows` models drawn at random.
    """
    if not densities or not all(0 < density < 1 for density in densities):
        raise ValueError(f"densities must lie strictly between 0 and 1, got {list(densities)}")
    scored = np.flatnonzero(_scored(responses))
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.permutation(scored)[:max_rows])
        for density in densities:
            train, spared = _thin(responses, density, max(densities), rows, seed)
            yield Split("random_missing", seed, train, rows, None, spared, {"density": density})


def zero_shot(
    responses: np.ndarray,
    lineage: Lineage,
    *,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    max_hops: int = 2,
) -> Iterator[Split]:
    """Cross-validation over whole models that have a scored relative within `max_hops`.

    All answers of a fold's models are hidden together. Each model keeps at least one relative
    within `max_hops` outside its own fold, so lineage always has something to say about it.
    """
    for seed in seeds:
        rng = np.random.default_rng(seed)
        folds = _cold_start_folds(responses, lineage, n_folds=n_folds, max_hops=max_hops, rng=rng)
        for fold, rows in enumerate(folds):
            train = _without(responses, rows)
            target = observed(responses[rows])
            yield Split("zero_shot", seed, train, rows, None, target, {"fold": fold})


def few_shot(
    responses: np.ndarray,
    lineage: Lineage,
    *,
    ks: Sequence[int] | None = None,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    max_hops: int = 2,
) -> Iterator[Split]:
    """The held-out models of `zero_shot`, with k random answers of each revealed.

    The answers revealed at a smaller k are among those at a larger one. Models without an answer
    left to forecast are dropped at that k. The splits of a fold share one `train` array, so
    `evaluate` fits once for all k. `ks` defaults to 1, 3, 5, 10, 20, 50 answers, and to 1, 2, 4
    columns (whole benchmarks, as a rule) for proportions; k = 0 is zero-shot.
    """
    if ks is None:
        ks = (1, 3, 5, 10, 20, 50) if responses.dtype == np.uint8 else (1, 2, 4)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        folds = _cold_start_folds(responses, lineage, n_folds=n_folds, max_hops=max_hops, rng=rng)
        for fold, rows in enumerate(folds):
            train = _without(responses, rows)
            seen = observed(responses[rows])
            place = random_places(seen, rng)
            for k in ks:
                enough = seen.sum(axis=1) > k
                if not enough.any():
                    continue
                shown = (place < k)[enough]
                revealed = np.where(shown, responses[rows[enough]], _missing(responses))
                target = seen[enough] & ~shown
                label = {"k": k, "fold": fold}
                revealed = revealed.astype(responses.dtype) if k else None
                yield Split("few_shot", seed, train, rows[enough], revealed, target, label)


def homogeneous(
    responses: np.ndarray,
    lineage: Lineage,
    *,
    family: int | None = None,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    max_hops: int = 2,
) -> Iterator[Split]:
    """Zero-shot within one family, trained on that family only and on all families.

    `family` is a label of `lineage.families`; None takes the family with most scored models.
    """
    families = lineage.families[: lineage.n_models]
    if family is None:
        family = int(np.bincount(families[_scored(responses)]).argmax())
    members_only = _without(responses, np.flatnonzero(families != family))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        folds = _cold_start_folds(
            members_only, lineage, n_folds=n_folds, max_hops=max_hops, rng=rng
        )
        for training, source in (("one family", members_only), ("all families", responses)):
            for fold, rows in enumerate(folds):
                train, target = _without(source, rows), observed(responses[rows])
                label = {"training": training, "fold": fold}
                yield Split("homogeneous", seed, train, rows, None, target, label)


def date_split(
    responses: np.ndarray,
    models: pd.DataFrame,
    *,
    cutoff: str | None = None,
    quantile: float = 0.8,
    column: str | None = None,
    lineage: Lineage | None = None,
    max_hops: int = 2,
) -> list[Split]:
    """Train on models dated before the cutoff, forecast the models dated on or after it.

    `column` defaults to `evaluated_at` where known, else `created_at`; `cutoff` to that quantile of
    the dates. Models without a date are in neither part: they might be from after the cutoff.
    With a `lineage`, only models with an earlier scored relative within `max_hops` are scored.
    """
    scored = _scored(responses)
    dates = model_dates(models, scored, column=column)
    dated = dates[scored & dates.notna().to_numpy()]
    if dated.empty:
        names = [column] if column else DATE_COLUMNS
        raise ValueError(
            f"no dates to split by: models has no value in {' or '.join(names)}; "
            "use zero_shot, or fill in the dates"
        )
    cut = dated.quantile(quantile) if cutoff is None else pd.to_datetime(cutoff, utc=True)
    early = scored & (dates < cut).to_numpy()
    late = scored & (dates >= cut).to_numpy()
    if lineage is not None:
        late &= np.diff(_relatives(lineage, early, max_hops).indptr) > 0
    if not early.any() or not late.any():
        raise ValueError(
            f"cutoff {cut.date()} leaves {early.sum()} models to train on and {late.sum()} to "
            f"forecast; dates run from {dated.min().date()} to {dated.max().date()}"
        )
    rows = np.flatnonzero(late)
    train = _without(responses, np.flatnonzero(~early))
    target = observed(responses[rows])
    return [Split("date", 0, train, rows, None, target, {"cutoff": str(cut.date())})]


def _missing(responses: np.ndarray):
    return MISSING if responses.dtype == np.uint8 else np.nan


def _scored(responses: np.ndarray) -> np.ndarray:
    """Models with at least one observed response."""
    return np.array([observed(row).any() for row in responses])


def _without(responses: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy in memory with these models' responses missing."""
    train = np.array(responses)
    train[rows] = _missing(responses)
    return train


def _thin(
    responses: np.ndarray, density: float, spared_from: float, rows: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training copy at a density, and the target cells of `rows`; draws depend on the seed only."""
    rng = np.random.default_rng(seed)
    train = np.full(responses.shape, _missing(responses), dtype=responses.dtype)
    target = np.zeros((len(rows), responses.shape[1]), dtype=bool)
    position = np.full(len(responses), -1)
    position[rows] = np.arange(len(rows))
    for row, answers in enumerate(responses):
        draw = rng.random(len(answers), dtype=np.float32)
        train[row, draw < density] = answers[draw < density]
        if position[row] >= 0:
            target[position[row]] = observed(answers) & (draw >= spared_from)
    return train, target


def _relatives(lineage: Lineage, scored: np.ndarray, max_hops: int) -> sparse.csr_array:
    """(n_models, n_models) pattern: the scored models within `max_hops` undirected steps."""
    n_nodes, edges = lineage.n_nodes, (lineage.parent_index, lineage.child_index)
    step = sparse.coo_array((np.ones(len(edges[0]), np.float32), edges), (n_nodes, n_nodes)).tocsr()
    step = step + step.T + sparse.eye_array(n_nodes, dtype=np.float32, format="csr")
    reach = step[: lineage.n_models]
    for _ in range(max_hops - 1):
        reach = (reach @ step).sign()
    reach = reach[:, : lineage.n_models].tocoo()
    keep = (reach.row != reach.col) & scored[reach.col]
    cells = (np.ones(keep.sum(), dtype=bool), (reach.row[keep], reach.col[keep]))
    return sparse.csr_array(cells, shape=(lineage.n_models, lineage.n_models))


def _cold_start_folds(
    responses: np.ndarray, lineage: Lineage, *, n_folds: int, max_hops: int, rng
) -> list[np.ndarray]:
    """Disjoint folds that cover all scored models with a scored relative within reach."""
    scored = _scored(responses)
    relatives = _relatives(lineage, scored, max_hops)
    eligible = np.flatnonzero(scored & (np.diff(relatives.indptr) > 0))
    if n_folds < 2 or len(eligible) < n_folds:
        raise ValueError(
            f"{n_folds} folds need at least 2 folds and as many scored models with a scored "
            f"relative within {max_hops} hops; there are {len(eligible)} such models"
        )
    fold = np.full(len(scored), -1)
    fold[rng.permutation(eligible)] = np.arange(len(eligible)) % n_folds
    for row in eligible:
        near = relatives.indices[relatives.indptr[row] : relatives.indptr[row + 1]]
        if (fold[near] == fold[row]).all():
            # No relative of this model lies in any other fold, so the move strands none of them.
            fold[row] = (fold[row] + 1) % n_folds
    return [np.flatnonzero(fold == number) for number in range(n_folds)]


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
    names get that lineage instead, while splits and annotations stay. With `shuffle_lineage` all
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
    if unknown := sorted(set(others) - set(predictors)):
        raise ValueError(f"lineages names {', '.join(unknown)}, but predictors does not")
    with workers(n_jobs):
        work = Parallel()(
            delayed(_evaluate_group)(
                name, predictor, group, lineage, known, items, models, truth, shuffle_lineage
            )
            for group in _by_training_array(splits)
            for name, predictor in predictors.items()
            for known in [others.get(name, lineage)]
        )
    parts = [part for group in work for part in group]
    if not parts:
        raise ValueError("nothing to evaluate: no predictors or no splits")
    forecasts = pd.concat([forecast for forecast, _ in parts], ignore_index=True)
    labels = {key: None for _, (label, _) in parts for key in label if key != "fold"}
    keys = ROW_KEYS + [key for key in labels if key not in ROW_KEYS]
    results = [score_forecasts(forecasts, by=keys)]
    if truth.dtype == np.uint8:
        results.append(_pooled_auc(parts, keys, list(items["benchmark"].unique())))
    results = pd.concat(results, ignore_index=True)
    return results.sort_values([*keys, "metric"], kind="stable", ignore_index=True), forecasts


def _by_training_array(splits: Iterable[Split]) -> Iterator[list[Split]]:
    for _, group in groupby(splits, key=lambda split: id(split.train)):
        yield list(group)


def _evaluate_group(
    name, predictor, group, lineage, known, items, models, truth, shuffle_lineage
) -> list[tuple[pd.DataFrame, tuple[dict, np.ndarray]]]:
    """Forecast frame, label and AUC histogram of a predictor on each split of a group."""
    first = group[0]
    train_mask, expected = _scored(first.train), item_means(first.train, items)
    known = known.shuffled(first.seed) if shuffle_lineage else known
    fitted = clone(predictor)
    if "seed" in fitted.get_params(deep=False):
        fitted.set_params(seed=first.seed)
    fitted.fit(first.train, known, items=items, models=models)
    chosen = json.dumps(getattr(fitted, "chosen_", {}))
    parts = []
    for split in group:
        protocol = split.protocol + ("-shuffled" if shuffle_lineage else "")
        label = {"protocol": protocol, "predictor": name, "seed": split.seed, **split.label}
        frame, histogram = _forecast(fitted, split, expected, items, truth, name)
        frame.insert(0, "model_id", lineage.node_ids[split.rows][frame.pop("position")])
        frame["chosen"] = chosen
        for place, (key, value) in enumerate(label.items()):
            frame.insert(place, key, value)
        parts.append((annotate_forecasts(frame, lineage, train_mask), (label, histogram)))
    return parts


def _forecast(
    fitted, split, expected, items, truth, name
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Mean forecast and actual mean over the target cells, by model and benchmark."""
    predicted, scores = _predict(fitted, split)
    if predicted.shape != split.target.shape or not np.isfinite(predicted).all():
        raise ValueError(
            f"predictor '{name}' returned shape {predicted.shape} for {split.target.shape} cells, "
            "or values that are not finite"
        )
    benchmarks = list(items["benchmark"].unique())
    member = (items["benchmark"].to_numpy()[:, None] == np.array(benchmarks)).astype(np.float32)
    sums, histogram = _cell_sums(truth, predicted, split, expected, member, items["n_trials"])
    lower, upper = _intervals(scores, split.rows, benchmarks)
    position, column = np.nonzero(sums["n_items"])
    frame = pd.DataFrame({"position": position, "benchmark": np.array(benchmarks)[column]})
    for key in ("actual", "predicted", "expected"):
        frame[key] = (sums[key] / np.maximum(sums["weight"], 1))[position, column]
    frame["lower"], frame["upper"] = lower[position, column], upper[position, column]
    frame["n_items"] = sums["n_items"][position, column].astype(int)
    for key in ("log_loss", "brier"):
        total = sums.get(key, np.full_like(sums["n_items"], np.nan))
        frame[key] = total[position, column] / frame["n_items"]
    return frame, histogram


def _cell_sums(
    truth, predicted, split, expected, member, n_trials
) -> tuple[dict, np.ndarray | None]:
    """Sums over target cells by model and benchmark, and the AUC histogram of the answers."""
    n_benchmarks, is_binary = member.shape[1], truth.dtype == np.uint8
    weighted = member * n_trials.to_numpy(dtype=np.float32)[:, None]
    parts, histogram = [], np.zeros((n_benchmarks, 2, AUC_BINS)) if is_binary else None
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
        if is_binary:
            chance = np.clip(np.abs(1 - actual - forecast), LOG_LOSS_CLIP, 1)
            part["log_loss"] = np.where(target, -np.log(chance), 0) @ member
            part["brier"] = np.where(target, (1 - chance) ** 2, 0) @ member
            histogram += _histogram(forecast, actual, target, member)
        parts.append(part)
    sums = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {key: value.astype(np.float64) for key, value in sums.items()}, histogram


def _histogram(forecast, actual, target, member) -> np.ndarray:
    """(n_benchmarks, 2, AUC_BINS) counts of target cells by actual answer and forecast bin."""
    n_benchmarks = member.shape[1]
    bins = (forecast * (AUC_BINS - 1) + 0.5).astype(np.int32)
    bins += AUC_BINS * (actual.astype(np.int32) + 2 * member.argmax(axis=1).astype(np.int32))
    counts = np.bincount(bins[target], minlength=2 * n_benchmarks * AUC_BINS)
    return counts.reshape(n_benchmarks, 2, AUC_BINS)


def _pooled_auc(parts, keys, benchmarks) -> pd.DataFrame:
    """AUC over the target cells of all folds, by benchmark, and its mean over benchmarks."""
    pooled = {}
    for _, (label, histogram) in parts:
        key = tuple(label.get(name, np.nan) for name in keys)
        pooled[key] = pooled.get(key, 0) + histogram
    rows = []
    for key, counts in pooled.items():
        wrong, right = counts[:, 0], counts[:, 1]
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
    given = {"revealed": split.revealed}
    if hasattr(fitted, "predict_both"):
        return fitted.predict_both(split.rows, target=split.target, **given)
    expected, scores = fitted.predict_proba(split.rows, **given), None
    if hasattr(fitted, "predict_scores"):
        scores = fitted.predict_scores(split.rows, target=split.target, **given)
    return expected, scores


def _intervals(scores, rows, benchmarks) -> tuple[np.ndarray, np.ndarray]:
    """Bounds by row and benchmark; NaN where there are none."""
    if scores is None:
        return (np.full((len(rows), len(benchmarks)), np.nan),) * 2
    wide = scores.pivot(index="row", columns="benchmark", values=["lower", "upper"])
    wide = wide.reindex(index=rows)
    return tuple(wide[bound].reindex(columns=benchmarks).to_numpy() for bound in ("lower", "upper"))


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
    sharing = made_from @ (made_from.T @ trained.astype(np.int32))
    own = made_from.sum(axis=1) * trained
    relation[sharing > own] = "sibling"
    relation[parents[trained[children]]] = "parent"
    kinds = lineage.edges["relation"].to_numpy()
    for kind in RELATIONS[::-1]:
        relation[children[trained[parents] & (kinds == kind)]] = kind
    n_relatives = np.diff(_relatives(lineage, train_mask, 2).indptr)
    row = pd.Index(lineage.node_ids[: lineage.n_models]).get_indexer(forecasts["model_id"])
    return forecasts.assign(
        relation=relation[row],
        n_relatives=n_relatives[row],
        hops=hops[row],
        family=lineage.families[row],
    )
