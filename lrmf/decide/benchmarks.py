"""Which benchmarks to run first: the few that forecast the rest best, given the family."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ..data.lineage import Lineage
from ..data.responses import benchmark_scores, observed, reveal
from ..data.snapshot import Snapshot
from ..evaluation.splits import zero_shot
from ..forecaster.forecaster import Forecaster

_N_TYPICAL = 400  # models whose uncertainty is averaged
GREEDY, RANDOM = "greedy", "random"


def benchmarks_first(forecaster, n=None, *, benchmarks=None) -> pd.DataFrame:
    r"""Order the benchmarks by what they say of the others' scores, one after another.

    A model of a known family has the state t ~ N(m, C), with C the mean leave-one-out covariance of
    the evaluated models that have relatives. The benchmarks S, once run, leave

        C_S = (C^-1 + sum_{b in S} E_b)^-1,    E_b = sum_{i in b} slope_i^2 d_i d_i' / noise_i,

    and of the mean score of the rest, g' t with g the mean of its slopes g_b, the variance
    g' C_S g. Each step takes the benchmark that leaves least: p^3 operations for each candidate,
    p the components. (Single benchmarks of the rest are forecast no better, on average, if their
    mean variance is the criterion, and their mean is forecast worse.)

    Parameters
    ----------
    forecaster : Forecaster, fitted
    n : int, optional
        Benchmarks to choose, all but one by default.
    benchmarks : sequence of str, optional
        Those that may be chosen and count; all by default.

    Returns
    -------
    DataFrame : step, benchmark, left (share of the variance of the rest's mean)

    Raises
    ------
    ValueError
        If there is only one benchmark, or one is unknown.
    """
    names = np.array(forecaster.scores_.names, object)
    if unknown := [name for name in benchmarks or () if name not in names]:
        raise ValueError(f"{unknown[0]!r} is not a benchmark of the fit; it has {names[0]}, ...")
    rest = np.ones(len(names), bool) if benchmarks is None else np.isin(names, benchmarks)
    if rest.sum() < 2:
        raise ValueError("one benchmark alone has no rest to forecast; name two or more")
    n = rest.sum() - 1 if n is None else min(n, rest.sum() - 1)
    precision, evidence, slopes = _typical(forecaster)
    before, rows = np.linalg.inv(precision), []
    for step in range(1, n + 1):
        # Covariances after each candidate, and the variance of the mean of all others.
        able = np.flatnonzero(rest)
        after = np.linalg.inv(precision + evidence[able])
        others = (slopes[able].sum(axis=0) - slopes[able]) / (able.size - 1)
        variance = np.einsum("cp,cpq,cq->c", others, after, others)
        chosen = variance.argmin()
        start = others[chosen] @ before @ others[chosen]
        rows.append((step, names[able[chosen]], variance[chosen] / start))
        precision, rest[able[chosen]] = precision + evidence[able[chosen]], False
    return pd.DataFrame(rows, columns=["step", "benchmark", "left"])


def _typical(forecaster):
    """Precision (p, p) of a model's state given its family; E_b (B, p, p), slopes g_b (B, p)."""
    prior, likelihood, scores = forecaster.prior_, forecaster.likelihood_, forecaster.scores_
    children = np.flatnonzero(np.diff(prior.nodes.parents.indptr))
    rows = children if children.size else np.arange(len(prior.nodes))
    rows = rows[np.linspace(0, rows.size - 1, min(rows.size, _N_TYPICAL)).astype(int)]
    covariance = prior.leave_one_out(rows).covariance.mean(axis=0)
    _, slope, noise = likelihood.forecast(prior.centre[None], covariance[None])
    loadings = slope[0][:, None] * likelihood.loadings
    share = scores.weights / scores.weights.sum(axis=0)
    evidence = [
        loadings[own].T @ (loadings[own] / np.maximum(noise[0, own], 1e-9)[:, None])
        for own in (scores.weights > 0).T
    ]
    return np.linalg.inv(covariance), np.stack(evidence), share.T @ loadings


def measure_first(snapshot, *, n=5, n_folds=2, n_random=3, seed=0, **options) -> pd.DataFrame:
    """Errors of forecasts for held-out models that have run the first benchmarks, or random ones.

    Whole models are held out, the order is chosen from the others. A model that lacks a benchmark
    of the order is given the next one that it has. What is left to forecast depends on what was
    run; errors of the average compare like with like.

    Parameters
    ----------
    snapshot : Snapshot
        Answers count as the scores of whole benchmarks: `scores_of`.
    n : int
        Benchmarks run, at most; one is always left.
    n_folds, seed : of the held-out models, as in `zero_shot`
    n_random : int
        Draws of random benchmarks, which are averaged.
    options : of `Forecaster`

    Returns
    -------
    DataFrame : strategy, n_run, fold, row, rest (mean absolute error of the benchmarks not run),
        average (absolute error of the mean over all benchmarks of the model), both in points
    """
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    snapshot, parts = scores_of(snapshot), []
    for split in zero_shot(snapshot.responses, lineage, n_folds=n_folds, seeds=[seed]):
        fitted = Forecaster(seed=seed, **options).fit(
            split.train, lineage, items=snapshot.items, models=snapshot.models
        )
        given, scores = np.asarray(snapshot.responses[split.rows]), fitted.scores_
        actual = scores.actual(given, observed(given))
        has, names = np.isfinite(actual), pd.Index(scores.names)
        # The order, then the benchmarks that it leaves last; random orders beside it.
        first = names.get_indexer(benchmarks_first(fitted, min(len(names) - 1, 60))["benchmark"])
        place = np.full(len(names), len(names), float)
        place[first] = np.arange(len(first))
        rng = np.random.default_rng([seed, 17, split.label["fold"]])
        draws = [(GREEDY, np.broadcast_to(place, has.shape))]
        draws += [(RANDOM, rng.random(has.shape)) for _ in range(n_random)]
        for strategy, order in draws:
            rank = np.argsort(np.argsort(np.where(has, order, np.inf), axis=1), axis=1)
            for n_run in range(n + 1):
                rows = np.flatnonzero(has.sum(axis=1) > n_run)
                if not rows.size:
                    break  # no model has so many benchmarks
                run = (rank < n_run)[rows] & has[rows]
                shown = reveal(given[rows], run @ (scores.weights > 0).T)
                found = fitted.predict_scores(split.rows[rows], revealed=shown)["score"]
                error = 100 * (found.to_numpy().reshape(len(rows), -1) - actual[rows])
                rest, average = _errors(error, run, has[rows])
                label = {"strategy": strategy, "n_run": n_run, "fold": split.label["fold"]}
                frame = pd.DataFrame({"row": split.rows[rows], "rest": rest, "average": average})
                parts.append(frame.assign(**label))
    keys = ["strategy", "n_run", "fold", "row"]
    return pd.concat(parts).groupby(keys, sort=False).mean().reset_index()


def scores_of(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the scores of benchmarks in place of single answers."""
    if not snapshot.is_binary:
        return snapshot
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    n_trials = snapshot.items.groupby("benchmark", sort=False)["n_trials"].sum()[scores.columns]
    names = {name: scores.columns for name in ("item_id", "benchmark", "subtask")}
    items = pd.DataFrame(names | {"n_trials": n_trials.to_numpy()})
    return replace(snapshot, responses=scores.to_numpy(np.float32), items=items)


def _errors(error, run, has):
    """Mean absolute error of the benchmarks not run, and absolute error of the average."""
    rest = has & ~run
    mean = np.where(rest, np.abs(error), 0).sum(axis=1) / rest.sum(axis=1)
    # Benchmarks that were run are known: their error is none.
    return mean, np.abs(np.where(rest, error, 0).sum(axis=1) / has.sum(axis=1))


def first_quality(measured: pd.DataFrame, *, n_boot=1000, seed=0) -> pd.DataFrame:
    """Mean errors by strategy and number of benchmarks run, with 95% intervals over models.

    Parameters
    ----------
    measured : of `measure_first`

    Returns
    -------
    DataFrame : strategy, n_run, error ("rest" or "average"), value, lower, upper, difference
        (greedy minus this strategy, paired), difference_lower, difference_upper, n_models
    """
    rng, rows = np.random.default_rng(seed), []
    for n_run, part in measured.groupby("n_run"):
        for error in ("rest", "average"):
            wide = part.pivot(index="row", columns="strategy", values=error)
            n = len(wide)
            weights = rng.multinomial(n, np.full(n, 1 / n), size=n_boot) / n
            for strategy in wide:
                lead = wide[GREEDY] - wide[strategy]
                values = []
                for column in (wide[strategy], lead):
                    bounds = np.quantile(weights @ column.to_numpy(), [0.025, 0.975])
                    values += [column.mean(), *bounds]
                rows.append((strategy, n_run, error, *values, n))
    columns = ["strategy", "n_run", "error", "value", "lower", "upper"]
    columns += ["difference", "difference_lower", "difference_upper", "n_models"]
    return pd.DataFrame(rows, columns=columns)
