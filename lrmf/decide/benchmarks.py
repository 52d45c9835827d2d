"""Which benchmarks to run first: the few that forecast the others best, given the family."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ..data.lineage import Lineage
from ..data.responses import benchmark_scores, observed, reveal
from ..data.snapshot import Snapshot
from ..data.statistics import percentile_interval, resample_weights
from ..evaluation.splits import zero_shot
from ..forecaster.forecaster import Forecaster

_N_AVERAGED = 400  # models over which the leave-one-out covariance is averaged
GREEDY, RANDOM = "greedy", "random"


def benchmarks_first(forecaster, n=None, *, benchmarks=None) -> pd.DataFrame:
    r"""Order the benchmarks by how much their answers reduce the variance of the others' mean.

    A model of a known family has the state t ~ N(m, C), with C the mean leave-one-out covariance of
    evaluated models with parents. Once the benchmarks S are run, its covariance is

        C_S = (C^-1 + sum_{b in S} E_b)^-1,    E_b = sum_{i in b} slope_i^2 d_i d_i' / noise_i,

    and the variance of the mean score of the others is g' C_S g, with g the mean of their
    gradients g_b. Each step takes the benchmark with the least variance. It costs O(p^3) for each
    candidate, with p the number of components. (With the mean of the others' variances as the
    criterion, single benchmarks are forecast no better, and their mean is forecast worse.)

    Parameters
    ----------
    forecaster : Forecaster, fitted
    n : int, optional
        Number of benchmarks to choose, all but one by default.
    benchmarks : sequence of str, optional
        Benchmarks that may be chosen and count; all by default.

    Returns
    -------
    DataFrame : step, benchmark, left (remaining share of the variance of the others' mean)

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
        raise ValueError("with one benchmark there is no other to forecast; name two or more")
    n = rest.sum() - 1 if n is None else min(n, rest.sum() - 1)
    precision, evidence, slopes = _family_state(forecaster)
    before, rows = np.linalg.inv(precision), []
    for step in range(1, n + 1):
        # Covariances after each candidate, and the variance of the mean of all others.
        candidates = np.flatnonzero(rest)
        after = np.linalg.inv(precision + evidence[candidates])
        others = (slopes[candidates].sum(axis=0) - slopes[candidates]) / (candidates.size - 1)
        variance = np.einsum("cp,cpq,cq->c", others, after, others)
        chosen = variance.argmin()
        start = others[chosen] @ before @ others[chosen]
        rows.append((step, names[candidates[chosen]], variance[chosen] / start))
        precision, rest[candidates[chosen]] = precision + evidence[candidates[chosen]], False
    return pd.DataFrame(rows, columns=["step", "benchmark", "left"])


def _family_state(forecaster):
    """The state of a model of a known family, and the benchmarks' evidence and gradients.

    Returns
    -------
    precision : (p, p), C^-1
    evidence : (n_benchmarks, p, p), E_b
    gradients : (n_benchmarks, p), g_b
    """
    # Mean leave-one-out covariance of models with parents, or of all models if there are none.
    prior, likelihood, scores = forecaster.prior_, forecaster.likelihood_, forecaster.scores_
    children = np.flatnonzero(np.diff(prior.nodes.parents.indptr))
    rows = children if children.size else np.arange(len(prior.nodes))
    rows = rows[np.linspace(0, rows.size - 1, min(rows.size, _N_AVERAGED)).astype(int)]
    covariance = prior.leave_one_out(rows).covariance.mean(axis=0)
    # Items by their slopes at the mean state; E_b and g_b are sums over the items.
    _, slope, noise = likelihood.forecast(prior.centre[None], covariance[None])
    loadings = slope[0][:, None] * likelihood.loadings
    share = scores.weights / scores.weights.sum(axis=0)
    evidence = [
        loadings[in_benchmark].T
        @ (loadings[in_benchmark] / np.maximum(noise[0, in_benchmark], 1e-9)[:, None])
        for in_benchmark in (scores.weights > 0).T
    ]
    return np.linalg.inv(covariance), np.stack(evidence), share.T @ loadings


def measure_first(snapshot, *, n=5, n_folds=2, n_random=3, seed=0, **options) -> pd.DataFrame:
    """Errors of forecasts for held-out models after the first benchmarks, or random ones.

    Whole models are held out, and the order is chosen from the others. If a model lacks a benchmark
    of the order, the next one that it has takes its place. The benchmarks that remain to be
    forecast depend on the order; errors of the average over all benchmarks are comparable.

    Parameters
    ----------
    snapshot : Snapshot
        Answers are replaced by scores of benchmarks, as by `scores_of`.
    n : int
        Maximum number of benchmarks run; at least one remains.
    n_folds, seed : of the held-out models, as in `zero_shot`
    n_random : int
        Number of random orders, whose errors are averaged.
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
        # The greedy order, with benchmarks that it lacks at the end, and random orders.
        first = names.get_indexer(benchmarks_first(fitted, min(len(names) - 1, 60))["benchmark"])
        place = np.full(len(names), len(names), float)
        place[first] = np.arange(len(first))
        rng = np.random.default_rng([seed, 17, split.label["fold"]])
        draws = [(GREEDY, np.broadcast_to(place, has.shape))]
        draws += [(RANDOM, rng.random(has.shape)) for _ in range(n_random)]
        for strategy, order in draws:
            # Rank of each benchmark among those that the model has.
            rank = np.argsort(np.argsort(np.where(has, order, np.inf), axis=1), axis=1)
            for n_run in range(n + 1):
                rows = np.flatnonzero(has.sum(axis=1) > n_run)
                if not rows.size:
                    break  # no model has so many benchmarks
                # Reveal the first benchmarks and forecast all, in points.
                run = (rank < n_run)[rows] & has[rows]
                revealed = reveal(given[rows], run @ (scores.weights > 0).T)
                score = fitted.predict(split.rows[rows], revealed=revealed).scores["score"]
                error = 100 * (score.to_numpy().reshape(len(rows), -1) - actual[rows])
                rest, average = _errors(error, run, has[rows])
                label = {"strategy": strategy, "n_run": n_run, "fold": split.label["fold"]}
                frame = pd.DataFrame({"row": split.rows[rows], "rest": rest, "average": average})
                parts.append(frame.assign(**label))
    keys = ["strategy", "n_run", "fold", "row"]
    return pd.concat(parts).groupby(keys, sort=False).mean().reset_index()


def scores_of(snapshot: Snapshot) -> Snapshot:
    """The snapshot with scores of benchmarks in place of single answers."""
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
    # The error of a benchmark that was run is 0.
    return mean, np.abs(np.where(rest, error, 0).sum(axis=1) / has.sum(axis=1))


def first_quality(measured: pd.DataFrame, *, n_boot=1000, seed=0) -> pd.DataFrame:
    """Mean errors by strategy and number of benchmarks run, with 95% intervals over models.

    Parameters
    ----------
    measured : DataFrame from `measure_first`
    n_boot : int, number of resamples of models
    seed : int

    Returns
    -------
    DataFrame : strategy, n_run, error ("rest" or "average"), value, lower, upper, difference
        (greedy minus this strategy, paired), difference_lower, difference_upper, n_models
    """
    rng, rows = np.random.default_rng(seed), []
    for n_run, part in measured.groupby("n_run"):
        for error in ("rest", "average"):
            # Errors (n_models, n_strategies), and bootstrap weights of the models.
            wide = part.pivot(index="row", columns="strategy", values=error)
            n = len(wide)
            weights = resample_weights(np.arange(n), n_boot, rng)[1:] / n
            for strategy in wide:
                values = []
                for column in (wide[strategy], wide[GREEDY] - wide[strategy]):
                    values += [column.mean(), *percentile_interval(weights @ column.to_numpy())]
                rows.append((strategy, n_run, error, *values, n))
    columns = ["strategy", "n_run", "error", "value", "lower", "upper"]
    columns += ["difference", "difference_lower", "difference_upper", "n_models"]
    return pd.DataFrame(rows, columns=columns)
