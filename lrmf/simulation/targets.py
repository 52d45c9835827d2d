"""How real the simulated Hub is: measured statistics of real leaderboards, side by side with it.

The targets are aggregates over the Open LLM Leaderboard. Version 2 (six benchmarks; 4,576 models,
of which 2,198 were evaluated before 2024-12-15) gives scores, sizes and lineage; version 1 (five
benchmarks, about 100 items of each) gives single answers, which version 2 publishes per model only.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from ..data.lineage import Lineage
from ..data.responses import benchmark_scores, observed
from ..data.snapshot import Snapshot

BENCHMARKS = ("ifeval", "bbh", "math", "gpqa", "musr", "mmlu_pro")
SCORE_SD = np.array([0.200, 0.111, 0.106, 0.038, 0.044, 0.124])
# ifeval-bbh, ifeval-math, ..., musr-mmlu_pro.
BENCHMARK_CORRELATION = np.array(
    [0.64, 0.45, 0.45, 0.32, 0.65, 0.69, 0.84, 0.70, 0.96, 0.70, 0.54, 0.72, 0.68, 0.83, 0.67]
)

# The tolerance covers the standard deviation over seeds, which is large where few pairs or a single
# family decide (a known parent is scored in 60% of the edges, and both ends were evaluated on the
# same benchmark in 40% of those), and the uncertainty of the target. Families and the largest
# counts grow with the table, more slowly than it.
TARGETS = pd.read_csv(Path(__file__).with_name("targets.csv"), index_col="statistic")

_ITEMS_PER_BENCHMARK = 200
_RANDOM_PAIRS = 1500


def simulation_check(snapshot: Snapshot) -> pd.DataFrame:
    """Compare the statistics of a simulated snapshot with those measured on real leaderboards.

    Meant for the paper's scale (2,934 models): counts do not carry over to small snapshots, where
    many statistics have next to no pairs. A statistic that cannot be computed is NaN.

    Parameters
    ----------
    snapshot : Snapshot
        Binary, with the six benchmarks of `BENCHMARKS`, simulated in memory or loaded.

    Returns
    -------
    DataFrame
        ``statistic, target, tolerance, simulated, within``, where within means
        ``|simulated - target| <= tolerance``.

    Raises
    ------
    ValueError
        For a snapshot without answers or with other benchmarks.

    Examples
    --------
    >>> from lrmf.simulation.simulate import simulate
    >>> check = simulation_check(simulate(n_models=300, n_items=600, seed=0))
    >>> list(check.columns)
    ['statistic', 'target', 'tolerance', 'simulated', 'within']
    """
    if not snapshot.is_binary or set(snapshot.benchmarks) != set(BENCHMARKS):
        raise ValueError(
            f"snapshot '{snapshot.name}' cannot be compared with the targets: simulation_check "
            f"needs answers (0/1) on {', '.join(BENCHMARKS)}; make it with `lrmf simulate`"
        )
    scores = benchmark_scores(snapshot.responses, snapshot.items)[list(BENCHMARKS)]
    with np.errstate(invalid="ignore", divide="ignore"):
        simulated = {
            **_lineage_statistics(snapshot),
            **_score_statistics(snapshot, scores),
            **_inheritance_statistics(snapshot, scores.to_numpy()),
            **_answer_statistics(snapshot),
        }
    table = TARGETS[["target", "tolerance"]].copy()
    table["simulated"] = pd.Series(simulated, dtype=float).reindex(table.index)
    table["within"] = (table["simulated"] - table["target"]).abs() <= table["tolerance"]
    return table.reset_index()


def _lineage_statistics(snapshot: Snapshot) -> dict[str, float]:
    models = snapshot.models
    lineage = Lineage.from_edges(snapshot.lineage, models["model_id"])
    if not len(lineage.edges):
        return {}
    is_child = np.isin(np.arange(lineage.n_models), lineage.child_index)
    is_unscored = lineage.parent_index >= lineage.n_models
    merged = models["merged"].to_numpy(dtype=bool)
    families = np.bincount(lineage.families)
    families = families[families > 1]
    children = np.unique(lineage.parent_index, return_counts=True)[1]
    depth = pd.Series(lineage.depth[: lineage.n_models][is_child])
    relation = lineage.edges["relation"].to_numpy()
    degrees = pd.Series(lineage.child_index[relation == "merge"]).value_counts()
    return {
        "lineage: share of models with a known parent": is_child.mean(),
        "lineage: share of merged models": merged.mean(),
        "lineage: share of merged models with a known parent": is_child[merged].mean(),
        "lineage: edges per model": len(relation) / snapshot.n_models,
        "lineage: share of finetunes among edges": (relation == "finetune").mean(),
        "lineage: share of edges from unscored parents": is_unscored.mean(),
        "lineage: families": len(families),
        "lineage: models in a family, 90% quantile": np.quantile(families, 0.9),
        "lineage: models in the largest family": families.max(),
        "lineage: children of a parent, mean": children.mean(),
        "lineage: parents with exactly one child": (children == 1).mean(),
        "lineage: children of a parent, most": children.max(),
        "lineage: children at depth 1": (depth == 1).mean(),
        "lineage: children at depth 2": (depth == 2).mean(),
        "lineage: children at depth 4 or more": (depth >= 4).mean(),
        "lineage: merges of exactly two": (degrees == 2).mean(),
        "lineage: merges of seven or more": (degrees >= 7).mean(),
    }


def _score_statistics(snapshot: Snapshot, scores: pd.DataFrame) -> dict[str, float]:
    size_b = snapshot.models["params_b"].to_numpy(dtype=float)
    average = scores.to_numpy().mean(axis=1)
    correlation = scores.corr().to_numpy()[np.triu_indices(len(BENCHMARKS), k=1)]
    logits = logit(scores.dropna().clip(0.005, 0.995).to_numpy())
    components = np.full(len(BENCHMARKS), np.nan)
    if len(logits) > 2 and logits.std(axis=0).min() > 0:
        components = np.linalg.eigvalsh(np.corrcoef(logits.T)) / len(BENCHMARKS)
    return {
        "size: median, billions": np.nanmedian(size_b),
        "size: sd of log size": np.nanstd(np.log(size_b)),
        "size: r with the average score": _pearson(np.log(size_b), average),
        "score: largest relative error of six sds": (scores.std(ddof=0) / SCORE_SD - 1).abs().max(),
        "score: largest error of 15 correlations": np.abs(
            correlation - BENCHMARK_CORRELATION
        ).max(),
        "score: variance on the first of six components": components[-1],
    }


def _inheritance_statistics(snapshot: Snapshot, scores: np.ndarray) -> dict[str, float]:
    """Scores of children against the mean of their parents' over the pairs both evaluated."""
    statistics = {}
    for relation in ("finetune", "merge"):
        pairs = _scored_pairs(snapshot, relation)
        mean = pd.DataFrame(scores[pairs[:, 0]]).groupby(pairs[:, 1]).mean()
        parent, child = mean.to_numpy(), scores[mean.index]
        change = child - parent
        r = [_pearson(parent[:, b], child[:, b]) for b in range(len(BENCHMARKS))]
        average_r = _pearson(parent.mean(axis=1), child.mean(axis=1))
        statistics |= {f"parent-child r, {relation}: {b}": r[i] for i, b in enumerate(BENCHMARKS)}
        statistics[f"parent-child r, {relation}: mean of six benchmarks"] = np.mean(r)
        statistics[f"parent-child r, {relation}: average score"] = average_r
        frame = pd.DataFrame(change)
        sd, iqr = frame.std(ddof=0), frame.quantile(0.75) - frame.quantile(0.25)
        statistics[f"change, {relation}: sd over score sd"] = (sd / SCORE_SD).mean()
        statistics[f"change, {relation}: IQR over a normal's"] = (iqr / 1.349 / sd).mean()
    parent, child = _scored_pairs(snapshot, "finetune").T
    is_pretrained = snapshot.models["type"].to_numpy()[parent] == "pretrained"
    gain = pd.Series((scores[child, 0] - scores[parent, 0])[is_pretrained])
    statistics["change, finetune: ifeval gain over a pretrained parent"] = gain.mean()
    logits = logit(np.clip(scores, 0.005, 0.995))
    change = logits[child] - logits[parent]
    for names, one, other in (("bbh and mmlu_pro", 1, 5), ("ifeval and math", 0, 2)):
        name = f"change, finetune: correlation of {names}"
        statistics[name] = _pearson(change[:, one], change[:, other])
    return statistics


def _answer_statistics(snapshot: Snapshot) -> dict[str, float]:
    columns, benchmark = _balanced_columns(snapshot.items)
    answers = np.asarray(snapshot.responses[:, columns])
    seen = observed(answers)
    item_means = np.where(seen, answers, 0).sum(axis=0) / seen.sum(axis=0)
    by_benchmark = [benchmark == b for b in range(len(BENCHMARKS))]
    means = [item_means[own] for own in by_benchmark]
    # The largest possible standard deviation is that of items that all or no models solve.
    std = [mean.std() / np.sqrt(mean.mean() * (1 - mean.mean())) for mean in means]
    shares = [seen[:, own].mean() for own in by_benchmark]
    residuals = np.where(seen, answers - item_means, np.nan).astype(np.float32)
    for own in by_benchmark:
        residuals[:, own] -= residuals[:, own].mean(axis=1, keepdims=True)
    statistics = {
        "answers: sd of item means over the largest possible": np.mean(std),
        "answers: models observed on every benchmark": seen.all(axis=1).mean(),
        "answers: cells observed, mean of benchmarks": np.mean(shares),
    }
    for name, pairs in _pairs_to_compare(snapshot):
        agreement, residual_r = _compare_answers(answers, residuals, pairs)
        statistics[f"answers: agreement {name}"] = agreement.mean()
        statistics[f"answers: residual r {name}"] = residual_r.mean()
        statistics[f"answers: residual r {name}, sd"] = residual_r.std(ddof=0)
    shares = _component_shares(answers[seen.all(axis=1)])
    statistics["answers: variance on the first component"] = shares[:1].sum()
    statistics["answers: variance on components 2 to 8"] = shares[1:8].sum()
    return statistics


def _balanced_columns(items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Equally many columns of each benchmark, evenly spaced, as the real answers were drawn."""
    codes = pd.Categorical(items["benchmark"], categories=BENCHMARKS).codes
    chosen = []
    for b in range(len(BENCHMARKS)):
        own = np.flatnonzero(codes == b)
        n_chosen = min(len(own), _ITEMS_PER_BENCHMARK)
        chosen.append(own[np.linspace(0, len(own) - 1, n_chosen).astype(int)])
    columns = np.concatenate(chosen)
    return columns, codes[columns]


def _pairs_to_compare(snapshot: Snapshot) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    random = rng.integers(0, snapshot.n_models, size=(_RANDOM_PAIRS, 2))
    yield "of random pairs", random[random[:, 0] != random[:, 1]]
    yield "with a finetune's parent", _scored_pairs(snapshot, "finetune")
    yield "with a merge's parents", _scored_pairs(snapshot, "merge")
    yield "with a quantized model's parent", _scored_pairs(snapshot, "quantized")


def _scored_pairs(snapshot: Snapshot, relation: str) -> np.ndarray:
    """Rows (parent, child) of the edges of one relation whose two ends were both scored."""
    ids = pd.Index(snapshot.models["model_id"])
    edges = snapshot.lineage[snapshot.lineage["relation"] == relation]
    pairs = np.column_stack([ids.get_indexer(edges["parent"]), ids.get_indexer(edges["child"])])
    return pairs[(pairs >= 0).all(axis=1)]


def _compare_answers(
    answers: np.ndarray, residuals: np.ndarray, pairs: np.ndarray
) -> tuple[pd.Series, pd.Series]:
    """Share of equal answers and correlation of residuals, per pair with a common benchmark."""
    agreement, residual_r = [], []
    for one, other in pairs:
        common = np.isfinite(residuals[one]) & np.isfinite(residuals[other])
        if common.sum() > 2:
            agreement.append(np.mean(answers[one, common] == answers[other, common]))
            residual_r.append(_pearson(residuals[one, common], residuals[other, common]))
    return pd.Series(agreement, dtype=float), pd.Series(residual_r, dtype=float)


def _component_shares(answers: np.ndarray) -> np.ndarray:
    """Shares of the variance of complete 0/1 answers on their principal components, descending."""
    if len(answers) < 2:
        return np.full(1, np.nan)
    centred = answers - answers.mean(axis=0, dtype=np.float32)
    if len(centred) < centred.shape[1]:
        centred = centred.T
    variances = np.linalg.eigvalsh((centred.T @ centred).astype(float))[::-1]
    return variances / variances.sum()


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Over the places where both are known; NaN for fewer than three, or a constant."""
    return pd.Series(one).corr(pd.Series(other), min_periods=3)
