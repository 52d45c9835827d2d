"""Splits of the responses without leakage: which cells are trained on, revealed, forecast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from ..data.features import DATE_COLUMNS, model_dates
from ..data.lineage import Lineage
from ..data.response_kinds import kind_of
from ..data.responses import (
    benchmark_scores,
    has_responses,
    observed,
    random_places,
    reveal,
    without,
)


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
    lineage : None, or the lineage that every predictor gets instead of the whole one.
    """

    protocol: str
    seed: int
    train: np.ndarray
    rows: np.ndarray
    revealed: np.ndarray | None
    target: np.ndarray
    label: dict = field(default_factory=dict)
    lineage: Lineage | None = None


def random_holdout(
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
    scored = np.flatnonzero(has_responses(responses))
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.permutation(scored)[:max_rows])
        for density in densities:
            train, spared = _thin(responses, density, max(densities), rows, seed)
            yield Split("random_holdout", seed, train, rows, None, spared, {"density": density})


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
    for seed, fold, rows, _ in _cold_start_folds(responses, lineage, n_folds, seeds, max_hops):
        yield _hold_out("zero_shot", seed, responses, rows, {"fold": fold})


def as_at_release(
    responses: np.ndarray,
    lineage: Lineage,
    models: pd.DataFrame,
    *,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    max_hops: int = 2,
    n_periods: int = 4,
) -> Iterator[Split]:
    """Zero-shot forecasts of the models of `zero_shot` from what was there when they came out.

    With dates, the models of `zero_shot` are parted into `n_periods` + 1 equally large groups by
    date. Nothing comes before the first group; each other one is a period with a split of its own,
    which forecasts the models of the period and trains on models dated before the period begins.
    Models without a date are neither forecast nor trained on. There are no folds and no draws, so
    only the first seed is used. Without a single date, the splits are the folds of `zero_shot`,
    with the same models.

    Each split hides

    - the responses of the models that it forecasts, and of all their descendants, also through
      nodes without responses;
    - with dates, the responses of everything dated in the period or later;
    - every edge to a model that is neither forecast, nor trained on, nor an ancestor of such a
      model: later merges connect nothing;
    - every edge from a forecast model to its children. If these are forecast as well, or have
      forecast descendants, they hang below a copy of the model instead, which has the same parents
      and no responses.

    What is not hidden: names and cards of hidden models stay in the models table. A merge that is
    forecast connects its parents, so those that read the tree as undirected (LRMF, averages over
    many hops) may learn from it by way of a common ancestor; a covariance by parents, as that of
    the Forecaster, does not. Dates are those of `date_split`.
    """
    scored = has_responses(responses)
    dates = model_dates(models, scored)
    dated = _related(scored, lineage, max_hops) & dates.notna().to_numpy()
    if dated.any():
        periods = _periods(dates, dated, n_periods)
        groups = [
            (seeds[0], number, rows, scored & (dates < start).to_numpy())
            for number, (start, rows) in enumerate(periods)
        ]
    else:
        folds = zero_shot(responses, lineage, n_folds=n_folds, seeds=seeds, max_hops=max_hops)
        groups = [(split.seed, split.label["fold"], split.rows, scored) for split in folds]
    for seed, number, rows, before in groups:
        trained = before & ~_reached(lineage, rows)[: lineage.n_models]
        if len(rows) and trained.any():
            known, label = _as_released(lineage, rows, trained), {"fold": number}
            yield _hold_out("as_at_release", seed, responses, rows, label, ~trained, known)


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
        ks = kind_of(responses).n_revealed
    for seed, fold, rows, rng in _cold_start_folds(responses, lineage, n_folds, seeds, max_hops):
        train = without(responses, rows)
        seen = observed(responses[rows])
        place = random_places(seen, rng)
        for k in ks:
            enough = seen.sum(axis=1) > k
            if not enough.any():
                continue
            shown = (place < k)[enough]
            target = seen[enough] & ~shown
            label = {"k": k, "fold": fold}
            revealed = reveal(responses[rows[enough]], shown) if k else None
            yield Split("few_shot", seed, train, rows[enough], revealed, target, label)


def homogeneous(
    responses: np.ndarray,
    lineage: Lineage,
    *,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    max_hops: int = 2,
) -> Iterator[Split]:
    """Zero-shot within the family with most scored models, trained on it only and on all."""
    families = lineage.families[: lineage.n_models]
    family = int(np.bincount(families[has_responses(responses)]).argmax())
    members_only = without(responses, np.flatnonzero(families != family))
    for seed in seeds:
        folds = list(_cold_start_folds(members_only, lineage, n_folds, [seed], max_hops))
        for training, source in (("one family", members_only), ("all families", responses)):
            for _, fold, rows, _ in folds:
                label = {"training": training, "fold": fold}
                yield _hold_out("homogeneous", seed, source, rows, label)


def date_split(
    responses: np.ndarray,
    models: pd.DataFrame,
    *,
    cutoff: str | None = None,
    quantiles: Sequence[float] = (0.8,),
    lineage: Lineage | None = None,
    max_hops: int = 2,
) -> list[Split]:
    """For each cutoff, train on models dated before it, forecast the models dated on or after it.

    Dates are `evaluated_at` where known, else `created_at`; the cutoffs default to these quantiles
    of the dates. Models without a date are in neither part: they might be from after the cutoff.
    With a `lineage`, only models with an earlier scored relative within `max_hops` are scored, and
    edges are hidden as in `as_at_release`: later models have parents, but no children.
    """
    scored = has_responses(responses)
    dates = model_dates(models, scored)
    dated = dates[scored & dates.notna().to_numpy()]
    if dated.empty:
        raise ValueError(
            f"no dates to split by: models has no value in {' or '.join(DATE_COLUMNS)}; "
            "use zero_shot, or fill in the dates"
        )
    cuts = dated.quantile(list(quantiles)) if cutoff is None else pd.to_datetime([cutoff], utc=True)
    found = []
    for cut in pd.DatetimeIndex(cuts).unique():
        early = scored & (dates < cut).to_numpy()
        late = scored & (dates >= cut).to_numpy()
        known = None
        if lineage is not None:
            known = _as_released(lineage, np.flatnonzero(late), early)
            late &= np.diff(relatives_within(known, early, max_hops).indptr) > 0
            known = _as_released(lineage, np.flatnonzero(late), early)
        if not early.any() or not late.any():
            raise ValueError(
                f"cutoff {cut.date()} leaves {early.sum()} models to train on and {late.sum()} to "
                f"forecast; dates run from {dated.min().date()} to {dated.max().date()}"
            )
        rows, label = np.flatnonzero(late), {"cutoff": str(cut.date())}
        found.append(_hold_out("date", 0, responses, rows, label, ~early, known))
    return found


def evaluated_by_others(responses: np.ndarray, models: pd.DataFrame) -> list[Split]:
    """Train on the models of the evaluator with the most models, and forecast those of the others.

    The evaluator is the column `evaluated_by`. Models that were not submitted to a leaderboard are
    not selected by how they do there.

    Raises
    ------
    ValueError
        If there are no models of a second evaluator.
    """
    evaluator = models.get("evaluated_by", pd.Series(index=models.index, dtype=object))
    evaluator = evaluator.where(has_responses(responses))
    others = (evaluator.notna() & (evaluator != evaluator.mode().get(0))).to_numpy()
    if not others.any():
        raise ValueError("the column evaluated_by of models has no second evaluator")
    rows = np.flatnonzero(others)
    return [_hold_out("evaluated_by_others", 0, responses, rows, {"fold": 0})]


def extrapolation(
    responses: np.ndarray,
    items: pd.DataFrame,
    lineage: Lineage,
    *,
    quantile: float = 0.9,
    max_hops: int = 2,
) -> list[Split]:
    """Train on the models below a quantile of the average score, forecast those above it.

    So every forecast model is better than every model that the fit has seen. Few models of a
    snapshot are that when they come out, so an out-of-time split has too few of them. The average
    of a model is the mean over its benchmarks of the score, each minus the mean of all models.
    Only models with a scored relative within `max_hops` below the quantile are forecast.
    """
    # Each benchmark centred, so that a model's average does not depend on which it was tested on.
    scores = benchmark_scores(responses, items)
    average = (scores - scores.mean()).mean(axis=1).to_numpy()
    scored = has_responses(responses)
    low = scored & (average < np.quantile(average[scored], quantile))
    high = scored & ~low & (np.diff(relatives_within(lineage, low, max_hops).indptr) > 0)
    if not low.any() or not high.any():
        raise ValueError(
            f"quantile {quantile:g} leaves {low.sum()} models to train on and {high.sum()} with a "
            "relative among them to forecast"
        )
    rows, label = np.flatnonzero(high), {"quantile": quantile}
    return [_hold_out("extrapolation", 0, responses, rows, label, ~low)]


def _hold_out(protocol, seed, responses, rows, label, hidden=None, lineage=None) -> Split:
    """Forecast all responses of some models; train without those, or without all `hidden` ones."""
    train = without(responses, rows if hidden is None else hidden)
    target = observed(responses[rows])
    return Split(protocol, seed, train, rows, None, target, label, lineage)


def _thin(
    responses: np.ndarray, density: float, spared_from: float, rows: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training copy at a density, and the target cells of `rows`; draws depend on the seed only."""
    rng = np.random.default_rng(seed)
    train = np.full(responses.shape, kind_of(responses).missing, dtype=responses.dtype)
    target = np.zeros((len(rows), responses.shape[1]), dtype=bool)
    position = np.full(len(responses), -1)
    position[rows] = np.arange(len(rows))
    for row, answers in enumerate(responses):
        draw = rng.random(len(answers), dtype=np.float32)
        train[row, draw < density] = answers[draw < density]
        if position[row] >= 0:
            target[position[row]] = observed(answers) & (draw >= spared_from)
    return train, target


def relatives_within(lineage: Lineage, scored: np.ndarray, max_hops: int) -> sparse.csr_array:
    """(n_models, n_models) pattern: the scored models within `max_hops` undirected steps."""
    n_nodes, edges = lineage.n_nodes, (lineage.parent_index, lineage.child_index)
    step = sparse.coo_array((np.ones(len(edges[0]), np.float32), edges), (n_nodes, n_nodes)).tocsr()
    step = step + step.T + sparse.eye_array(n_nodes, dtype=np.float32, format="csr")
    # One step more in each round: who is within reach, not by how many paths.
    reach = step[: lineage.n_models]
    for _ in range(max_hops - 1):
        reach = (reach @ step).sign()
    reach = reach[:, : lineage.n_models].tocoo()
    keep = (reach.row != reach.col) & scored[reach.col]
    cells = (np.ones(keep.sum(), dtype=bool), (reach.row[keep], reach.col[keep]))
    return sparse.csr_array(cells, shape=(lineage.n_models, lineage.n_models))


def _periods(dates: pd.Series, dated: np.ndarray, n_periods: int) -> list[tuple]:
    """Start of each period, at a quantile of the dates, and the dated models in it."""
    starts = dates[dated].quantile(np.arange(1, n_periods + 1) / (n_periods + 1)).unique()
    period = np.searchsorted(starts, dates.to_numpy(), side="right")
    return [
        (start, np.flatnonzero(dated & (period == number)))
        for number, start in enumerate(starts, start=1)
    ]


def _related(scored: np.ndarray, lineage: Lineage, max_hops: int) -> np.ndarray:
    """(n_models,) mask of the scored models with another scored one within reach."""
    return scored & (np.diff(relatives_within(lineage, scored, max_hops).indptr) > 0)


def _reached(lineage: Lineage, sources: np.ndarray, *, upwards: bool = False) -> np.ndarray:
    """(n_nodes,) mask of the sources and all their descendants, or all their ancestors."""
    if not len(sources):
        return np.zeros(lineage.n_nodes, dtype=bool)
    # Whatever a directed path leads to from any source is at a finite distance.
    ends = lineage.parent_index, lineage.child_index
    cells = (np.ones(lineage.n_edges), ends[::-1] if upwards else ends)
    graph = sparse.csr_array(cells, shape=(lineage.n_nodes,) * 2)
    return np.isfinite(dijkstra(graph, indices=sources, unweighted=True, min_only=True))


def _as_released(lineage: Lineage, rows: np.ndarray, trained: np.ndarray) -> Lineage:
    """The edges that lead to rows, models trained on and their ancestors; rows have no children."""
    known = np.concatenate([rows, np.flatnonzero(trained)])
    exists = _reached(lineage, known, upwards=True)
    edges = lineage.edges.loc[exists[lineage.child_index], ["parent", "child", "relation"]]
    # A row with children is a parent under another name, which inherits from the same parents.
    is_parent = np.intersect1d(lineage.node_ids[rows], edges["parent"])
    copies = {node_id: f"{node_id}@parent" for node_id in is_parent}
    twins = edges[edges["child"].isin(is_parent)].replace({"child": copies})
    edges = pd.concat([edges, twins]).replace({"parent": copies})
    return Lineage.from_edges(
        edges,
        lineage.node_ids[: lineage.n_models],
        relation_weights=lineage.relation_weights,
        split_merges=lineage.split_merges,
    )


def _cold_start_folds(
    responses: np.ndarray, lineage: Lineage, n_folds: int, seeds: Sequence[int], max_hops: int
) -> Iterator[tuple]:
    """Seed, number, rows and generator of folds over scored models with a relative within reach.

    The folds of a seed are disjoint, and cover all models that have a scored relative.
    """
    scored = has_responses(responses)
    relatives = relatives_within(lineage, scored, max_hops)
    eligible = np.flatnonzero(scored & (np.diff(relatives.indptr) > 0))
    if n_folds < 2 or len(eligible) < n_folds:
        raise ValueError(
            f"{n_folds} folds need at least 2 folds and as many scored models with a scored "
            f"relative within {max_hops} hops; there are {len(eligible)} such models"
        )
    for seed in seeds:
        rng = np.random.default_rng(seed)
        fold = np.full(len(scored), -1)
        fold[rng.permutation(eligible)] = np.arange(len(eligible)) % n_folds
        # A model whose relatives are all in its own fold moves to the next one.
        for row in eligible:
            near = relatives.indices[relatives.indptr[row] : relatives.indptr[row + 1]]
            if (fold[near] == fold[row]).all():
                # No relative of this model lies in another fold, so the move strands none of them.
                fold[row] = (fold[row] + 1) % n_folds
        for number in range(n_folds):
            yield seed, number, np.flatnonzero(fold == number), rng
