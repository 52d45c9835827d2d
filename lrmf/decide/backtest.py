"""Back-test of merge plans on an out-of-time split: forecasts of later merges and heuristics.

``python -m lrmf.decide.backtest [SNAPSHOT ...]`` writes the aggregates that `lrmf plan` cites, for
simulated Hubs and the named snapshots.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.features import model_dates
from ..data.lineage import Lineage
from ..data.responses import has_responses, observed
from ..data.snapshot import Snapshot, load_snapshot
from ..data.statistics import percentile_interval, resample_weights
from ..evaluation.bootstrap import verdict
from ..evaluation.metrics import mean_of_finite
from ..files import output
from ..forecaster.forecaster import Forecaster
from ..forecaster.merges import EvaluatedModels
from ..simulation.population import PopulationConfig
from ..simulation.simulate import simulate
from ..solver.scores import chance_above
from .plans import CITED

FORECAST, MEAN, BEST = "Forecaster", "parents' mean", "best parent"
WITH_CARD = "Forecaster with card"
PLANNERS = FORECAST, WITH_CARD, MEAN, BEST
HIGHER_IS_BETTER = ("tau", "auc")
_N_TOP = 10  # plans of a planner in `regret`
_LOG_CLASS_WIDTH = 2 * np.log(1.25)  # width of a size class on the log scale
_ERROR_PRIOR = (5, 0.05)  # number and size of pseudo-observations of a heuristic's errors


def backtest_merges(snapshot: Snapshot, *, n_cutoffs=5, quantiles=(0.4, 0.9), **options):
    """Forecast merges from the models and lineage before them, at several cutoffs.

    At each cutoff the Forecaster is fitted to the models dated before it and to their lineage. It
    forecasts every later merge of two or more of these models from its parents only, as neither the
    name nor the card of a merge is known when it is planned. A second forecast uses both, to
    measure what they add.

    Parameters
    ----------
    snapshot : Snapshot, with dates
    n_cutoffs : int
    quantiles : (float, float)
        The cutoffs are `n_cutoffs` evenly spaced quantiles of the dates in this range.
    options : of `Forecaster`

    Returns
    -------
    DataFrame
        cutoff, model_id, size_class, cluster (the first parent), actual (mean of the benchmarks),
        parents_best, and for each planner ``value PLANNER``, ``deviation PLANNER`` and ``p_better
        PLANNER``. Bias and deviation of the heuristics are estimated from merges before the cutoff.

    Raises
    ------
    ValueError
        If models have no dates, or no merge is later than a cutoff.
    """
    evaluated = has_responses(snapshot.responses)
    dates = model_dates(snapshot.models, evaluated)
    if not (dated := dates[evaluated].dropna()).size:
        raise ValueError("no dates to test plans by: models has no evaluated_at or created_at")
    cutoffs = dated.quantile(np.linspace(*quantiles, n_cutoffs)).dt.normalize().unique()
    parts = [_at_cutoff(snapshot, dates, evaluated, cutoff, options) for cutoff in cutoffs]
    tested = pd.concat(parts, ignore_index=True)
    if tested.empty:
        raise ValueError(
            f"no merge of two evaluated models is later than {cutoffs[0].date()}; plans need a "
            "snapshot with merges and dates"
        )
    return tested


def _at_cutoff(snapshot, dates, evaluated, cutoff, options):
    """The rows of `backtest_merges` for one cutoff."""
    models, edges = snapshot.models, snapshot.lineage
    before = evaluated & (dates < cutoff).to_numpy()
    later = evaluated & (dates >= cutoff).to_numpy()
    # The training data: models before the cutoff, without edges to later models.
    training = models[before].reset_index(drop=True)
    lineage = edges[~edges["child"].isin(models["model_id"][evaluated & ~before])]
    lineage = Lineage.from_edges(lineage, training["model_id"])
    fitted = Forecaster(**options).fit(
        snapshot.responses[before], lineage, items=snapshot.items, models=training
    )
    # All merges with their training parents: those before the cutoff, and those to plan.
    merges = edges[(edges["relation"] == "merge") & edges["parent"].isin(training["model_id"])]
    merges = merges.groupby("child")["parent"].agg(sorted)
    merges = merges[merges.map(len) > 1]
    past = merges[merges.index.isin(training["model_id"])]
    planned = merges[merges.index.isin(models["model_id"][later])]
    if planned.empty:
        return pd.DataFrame()
    # Actual scores of the planned merges, and the value of each planner.
    rows = pd.Index(models["model_id"]).get_indexer(planned.index)
    actual = _averages(fitted, snapshot.responses[rows])
    frame = pd.DataFrame({"cutoff": str(cutoff.date()), "model_id": planned.index})
    frame["cluster"], frame["actual"] = [parents[0] for parents in planned], actual
    _add_planners(frame, fitted, planned, past, models.iloc[rows].to_dict("records"))
    return frame[np.isfinite(frame["actual"])]


def _add_planners(frame, fitted, planned, past, cards):
    """Add size class and best score of the parents, and value and deviation of each planner."""
    evaluated = EvaluatedModels(fitted)
    evaluated.complete(np.arange(len(evaluated.ids)))
    scores = pd.Series(evaluated.scores, evaluated.ids)
    size = pd.Series(evaluated.size, evaluated.ids)
    logs = np.array([np.log(size[parents]).mean() for parents in planned])
    frame["size_class"] = np.floor(np.nan_to_num(logs, nan=-99) / _LOG_CLASS_WIDTH).astype(int)
    frame["parents_best"] = [scores[parents].max() for parents in planned]
    # Heuristics, with bias and deviation of their errors on the merges before the cutoff.
    past_scores = scores.reindex(past.index).to_numpy()
    for planner, summary in ((MEAN, np.mean), (BEST, np.max)):
        value, before = (
            np.array([summary(scores[parents]) for parents in group]) for group in (planned, past)
        )
        _add(frame, planner, *_heuristic(value, past_scores - before))
    # The Forecaster, without and with names and cards of the merges.
    parents = [[(parent, "merge") for parent in names] for names in planned]
    for planner, of_merges in ((FORECAST, None), (WITH_CARD, cards)):
        forecast = fitted.fold_in_each(parents, of_merges).predict().average()
        _add(frame, planner, forecast["score"].to_numpy(), forecast["deviation"].to_numpy())


def _averages(fitted, responses):
    """Mean benchmark scores (n,), NaN unless all benchmarks are observed."""
    return fitted.scores_.actual(responses, observed(responses)).mean(axis=1)


def _heuristic(value, errors):
    """A heuristic's value plus its mean past error, and the standard deviation of these errors.

    Parameters
    ----------
    value : (n,)
    errors : (n_past,)
    """
    # Mean and variance, with pseudo-observations of errors.
    n_prior, scale = _ERROR_PRIOR
    n = len(errors) + n_prior
    bias = errors.sum() / n
    variance = (np.sum((errors - bias) ** 2) + n_prior * scale**2) / n
    return value + bias, np.full(len(value), np.sqrt(variance))


def _add(frame, planner, value, deviation):
    """Add the columns of a planner."""
    frame[f"value {planner}"], frame[f"deviation {planner}"] = value, deviation
    frame[f"p_better {planner}"] = chance_above(value, deviation, frame["parents_best"].to_numpy())


def plan_quality(tested: pd.DataFrame, *, n_boot=1000, seed=0) -> pd.DataFrame:
    r"""How well each planner ranks merges, with 95% intervals and paired differences.

    tau : Kendall's rank correlation of value and actual score, over all pairs of merges of one
        cutoff and one class of sizes (a factor of 1.56).
    regret : mean actual score of the ten best merges minus that of the planner's ten best, in
        points, mean over cutoffs. With fewer than 20 merges it is half of them in place of ten.
    mae : mean absolute error of the value, in points.
    brier, auc : of the probability of a higher score than the best parent's. The Brier score of the
        base rate is added as a planner.

    Intervals are from a bootstrap of clusters, merges with the same first parent. All planners have
    the same resamples, so differences are paired.

    Parameters
    ----------
    tested : DataFrame from `backtest_merges`
    n_boot : int, number of resamples
    seed : int

    Returns
    -------
    DataFrame : planner, metric, value, lower, upper, difference (Forecaster minus planner),
        difference_lower, difference_upper, verdict, n_merges, n_cutoffs
    """
    # Every metric of every planner on the data and on all resamples, (1 + n_boot,) each.
    clusters = pd.factorize(tested["cluster"])[0]
    weights = resample_weights(clusters, n_boot, np.random.default_rng(seed))
    draws = {
        (planner, metric): measure(tested, planner, weights)
        for planner in PLANNERS for metric, measure in _MEASURES.items()
    }  # fmt: skip
    beats = (tested["actual"] > tested["parents_best"]).to_numpy(float)
    rate = weights @ beats / weights.sum(axis=1)
    draws["base rate", "brier"] = rate * (1 - rate)
    # Estimates with their intervals, and differences of the Forecaster from the planner.
    rows = []
    for (planner, metric), values in draws.items():
        difference = draws[FORECAST, metric] - values
        interval, bounds = map(percentile_interval, (values[1:], difference[1:]))
        gain = bounds if metric in HIGHER_IS_BETTER else (-bounds[1], -bounds[0])
        found = "" if planner == FORECAST else str(verdict(*gain))
        row = planner, metric, values[0], *interval, difference[0], *bounds, found
        rows.append(row)
    columns = ["planner", "metric", "value", "lower", "upper", "difference"]
    columns += ["difference_lower", "difference_upper", "verdict"]
    counts = {"n_merges": tested["model_id"].nunique(), "n_cutoffs": tested["cutoff"].nunique()}
    return pd.DataFrame(rows, columns=columns).assign(**counts)


def _tau(tested, planner, weights):
    """Kendall's tau, sum_ij w_i w_j sign sign / sum_ij w_i w_j within cutoff and size class."""
    value, actual = tested[f"value {planner}"].to_numpy(), tested["actual"].to_numpy()
    agree, n_pairs = 0.0, 0.0
    for rows in tested.groupby(["cutoff", "size_class"]).indices.values():
        w = weights[:, rows]
        signs = np.sign(value[rows, None] - value[rows]) * np.sign(
            actual[rows, None] - actual[rows]
        )
        agree = agree + np.sum(w @ signs * w, axis=1)
        n_pairs = n_pairs + w.sum(axis=1) ** 2 - np.sum(w**2, axis=1)
    return agree / np.where(n_pairs > 0, n_pairs, np.nan)


def _regret(tested, planner, weights):
    """Points between the mean actual scores of the best merges and of the planner's best."""
    value, actual = tested[f"value {planner}"].to_numpy(), tested["actual"].to_numpy()
    regrets = []
    for rows in tested.groupby("cutoff").indices.values():
        w, scores = weights[:, rows], actual[rows]
        n_top = np.minimum(_N_TOP, w.sum(axis=1) / 2)
        best, chosen = (
            _top_mean(scores[order], w[:, order], n_top)
            for order in (np.argsort(-scores), np.argsort(-value[rows], kind="stable"))
        )
        regrets.append(100 * (best - chosen))
    return mean_of_finite(np.stack(regrets, axis=1))


def _top_mean(ordered, weights, n_top):
    """Mean of the first `n_top` (b,) values, in the given order, of each resample."""
    before = np.cumsum(weights, axis=1) - weights
    taken = np.clip(n_top[:, None] - before, 0, weights)
    return taken @ ordered / np.where(n_top > 0, n_top, np.nan)


def _mae(tested, planner, weights):
    """Mean absolute error of the value, in points."""
    error = 100 * np.abs(tested[f"value {planner}"] - tested["actual"]).to_numpy()
    return weights @ error / weights.sum(axis=1)


def _brier(tested, planner, weights):
    """Brier score of the probability of a higher score than the best parent's."""
    beats = (tested["actual"] > tested["parents_best"]).to_numpy(float)
    error = (tested[f"p_better {planner}"].to_numpy() - beats) ** 2
    return weights @ error / weights.sum(axis=1)


def _auc(tested, planner, weights):
    """Area under the ROC curve of the same probability; ties count one half."""
    beats = (tested["actual"] > tested["parents_best"]).to_numpy()
    p = tested[f"p_better {planner}"].to_numpy()
    above = (np.sign(p[beats][:, None] - p[~beats]) + 1) / 2
    wins = np.sum(weights[:, beats] @ above * weights[:, ~beats], axis=1)
    pairs = weights[:, beats].sum(axis=1) * weights[:, ~beats].sum(axis=1)
    return wins / np.where(pairs > 0, pairs, np.nan)


_MEASURES = {"tau": _tau, "regret": _regret, "mae": _mae, "brier": _brier, "auc": _auc}


def cite(name, note, tested) -> dict:
    """Aggregates of a back-test for the file `CITED`.

    Parameters
    ----------
    name, note : str, of the data
    tested : DataFrame from `backtest_merges`
    """
    quality = plan_quality(tested)
    keys = ["value", "difference", "difference_lower", "difference_upper", "verdict"]
    rows = quality.set_index(["metric", "planner"])[keys]
    table = {
        metric: {planner: _rounded(rows.loc[metric, planner]) for planner in part["planner"]}
        for metric, part in quality.groupby("metric", sort=False)
    }
    counts = {key: int(quality[key].iloc[0]) for key in ("n_merges", "n_cutoffs")}
    beats = float((tested["actual"] > tested["parents_best"]).mean())
    return {"name": name, "note": note, **counts, "share_better": round(beats, 3), **table}


def _rounded(row):
    return {k: v if isinstance(v, str) else round(float(v), 3) for k, v in row.items()}


def main(argv=None) -> None:
    """Run the back-tests and write their aggregates; see the docstring of the module."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("snapshots", nargs="*", help="folders, beside the simulated Hub")
    parser.add_argument("--cutoffs", type=int, default=5)
    parser.add_argument("--hubs", type=int, default=4, help="simulated ones")
    parser.add_argument("--out", default=CITED, help="file to write (.json)")
    options = parser.parse_args(argv)
    hubs = {seed: recorded_hub(1000, 300, seed) for seed in range(options.hubs)}
    note = f"{options.hubs} simulated Hubs that record all parents"
    sources = [("simulated", note, hubs)]
    sources += [(Path(path).name, "", {"": load_snapshot(path)}) for path in options.snapshots]
    cited = []
    for name, note, snapshots in sources:
        parts = []
        for key, snapshot in snapshots.items():
            part = backtest_merges(snapshot, n_cutoffs=options.cutoffs)
            labels = ["cutoff", "model_id", "cluster"]
            parts.append(part.assign(**{label: f"{key} " + part[label] for label in labels}))
        tested = pd.concat(parts, ignore_index=True)
        cited.append(cite(name, note, tested))
        print(plan_quality(tested).round(3).to_string(), flush=True)
    with output(options.out) as file:
        file.write(f"{json.dumps(cited, indent=1)}\n".encode())


def recorded_hub(n_models, n_items, seed=0) -> Snapshot:
    """A simulated Hub in which the cards of all merges name all parents, most of them evaluated.

    On the real Hub, and by the defaults of `simulate`, few merges have two recorded, evaluated
    parents.

    Parameters
    ----------
    n_models, n_items, seed : as in `simulate`
    """
    recorded = PopulationConfig(
        recorded=(1, 1), recorded_merge=(1, 1), merge_fully_recorded=(1, 1), grandparent_too=0,
        unscored=0.1,
    )  # fmt: skip
    return simulate(n_models=n_models, n_items=n_items, seed=seed, population=recorded)


if __name__ == "__main__":
    main()
