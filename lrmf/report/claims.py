"""What was claimed or asked, in every setting, and the verdict of the measurement: one row each."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..baselines.registry import (
    BOOSTING,
    CLAIMED,
    FORECASTER,
    LRMF,
    LRMF_UNTUNED,
    MULTI_HOP,
    ONE_HOP,
    ONE_HOP_RAW,
    baselines_among,
    find,
)
from ..evaluation.bootstrap import CLAIM, verdict
from .tables import interval, number, rows_of

PUBLISHED_CLAIM = (0.15, 0.30)  # of r, in the published version; `CLAIM` is the first preprint's
REACHED, OPEN, MISSED = "reached", "not told apart", "not reached"
KEPT, NARROW, WIDE = "kept", "too narrow", "too wide"
PARENTS = "parents' mean"
COVERAGE = (0.88, 0.92)  # of 90% intervals that keep what they promise
COLUMNS = ["claim", "setting", "measured", "verdict", "value", "lower", "upper"]


def assess_claims(
    leads: pd.DataFrame,
    zero_shot: pd.DataFrame,
    random_holdout: pd.DataFrame,
    few_shot: pd.DataFrame,
    variants: pd.DataFrame,
    ingredients: pd.DataFrame,
    gains: pd.DataFrame,
    intervals: pd.DataFrame,
    dates: pd.DataFrame,
    release: pd.DataFrame,
    within: pd.DataFrame,
    extrapolation: pd.DataFrame,
) -> pd.DataFrame:
    """Verdicts on the frames that notebooks 04 and 05 write.

    A comparison is *better*, *worse* or *no clear difference* by the 95% interval of the paired
    difference. How large the lead of LRMF was claimed to be is *reached* if the interval lies above
    the lower end of the claim, *not reached* if below, else *not told apart*. 90% intervals are
    *kept* where they cover 88% to 92%, else *too narrow* or *too wide*. Baselines with r = 0 by
    construction are left out, and so is what the data cannot test. Where LRMF was run with fixed
    settings only, these stand in for it, and the row says so.

    Parameters
    ----------
    leads : of `leads`, with the labels ``protocol`` and, for the random hold-out, ``density``
    zero_shot, random_holdout, few_shot, variants, ingredients : of `bootstrap`, with the labels
        none, ``density``, ``k``, ``variant``, none
    gains : of `by_stratum`, Forecaster with and without lineage
    intervals : of `interval_quality`
    dates, extrapolation : of `bootstrap`, later models and those better than all seen
    release : of `bootstrap`, label ``known``
    within : of `within_families`

    Returns
    -------
    DataFrame, index claim : setting, measured, verdict, value, lower, upper (of the difference in
        r, of coverage, or of points of MAE)
    """
    settings = {"zero-shot": _rows_of(zero_shot)}
    settings |= {f"{k:g} known": _rows_of(few_shot, k=k) for k in _steps(few_shot, "k")}
    settings |= {
        f"{100 * share:g}% of cells": _rows_of(random_holdout, density=share)
        for share in _steps(random_holdout, "density")
    }
    settings["later models"] = _rows_of(dates)
    settings["as at release"] = _rows_of(release, known="as at release")
    settings["inside families"] = _rows_of(within, family="mean")
    settings["better than all seen"] = _rows_of(extrapolation)
    settings = {  # too few families give no interval, and so no verdict
        name: found.dropna(subset="difference_lower")
        for name, found in settings.items()
        if len(found)
    }
    rows = [
        *_published(leads),
        *_leads_of_lrmf(leads),
        *_comparisons(settings),
        *_cause(variants),
        *_worth_of_lineage(ingredients),
        *_distant_relatives(gains),
        *_coverage(intervals, random_holdout, dates),
    ]
    return pd.DataFrame(rows, columns=COLUMNS).set_index("claim")


def _rows_of(frame, metric="pearson", **labels) -> pd.DataFrame:
    """Rows of a metric with these labels, by predictor; none if there is no such frame."""
    if frame.empty:
        return pd.DataFrame()
    return rows_of(frame, metric=metric, **labels).set_index("predictor")


def _steps(frame, label) -> list:
    """Values of a label but 0, which is another protocol; none if there is no such frame."""
    return sorted(set(frame[label]) - {0}) if len(frame) else []


def _says_something(rows) -> pd.Series:
    """Rows whose baseline has an r that is not 0 by construction."""
    return rows["value"].abs() > 1e-9


def _published(leads) -> Iterator[tuple]:
    """The lead of LRMF, zero-shot, against what was claimed of it."""
    if leads.empty:
        return
    rows = leads[(leads["protocol"] == "zero-shot") & (leads["reference"] == LRMF.label)]
    rows = rows[_says_something(rows)]
    for claimed in (CLAIM, PUBLISHED_CLAIM):
        low, high = claimed
        for row in rows.itertuples():
            kind = find(row.predictor).kind
            if kind in CLAIMED:
                bounds = row.difference_lower > low, row.difference_upper < low
                said = REACHED if bounds[0] else MISSED if bounds[1] else OPEN
                claim = f"LRMF {100 * low:.0f} to {100 * high:.0f} points of r above {kind}"
                yield _compared(claim, "zero-shot", row, said)


def _leads_of_lrmf(leads) -> Iterator[tuple]:
    """LRMF against each kind of baseline that the claim names, in every setting."""
    if leads.empty:
        return
    rows = leads[(leads["reference"] == LRMF.label) & _says_something(leads)]
    kinds = rows["predictor"].map(lambda name: find(name).kind)
    for kind in CLAIMED:
        for row in rows[kinds == kind].itertuples():
            share = getattr(row, "density", np.nan)
            setting = row.protocol if pd.isna(share) else f"{100 * share:g}% of cells"
            yield _compared(f"LRMF against {kind}", setting, row)


def _comparisons(settings) -> Iterator[tuple]:
    """The Forecaster against LRMF, boosted trees, averages, and whichever baseline is best."""
    for baseline in (LRMF.label, BOOSTING.label, MULTI_HOP.label, PARENTS):
        for setting, rows in settings.items():
            found = next((name for name in _called(baseline) if name in rows.index), None)
            if found and rows.loc[found, "value"]:
                name = found if found != baseline else ""
                yield _compared(
                    f"Forecaster against {baseline}", setting, rows.loc[found], name=name
                )
    for setting, rows in settings.items():
        direct = rows.loc[rows.index.isin([ONE_HOP.label, ONE_HOP_RAW.label])]
        if len(direct):
            best = direct.loc[direct["value"].idxmax()]
            yield _compared("Forecaster against the mean of direct relatives", setting, best)
    for setting, rows in settings.items():
        others = rows.loc[baselines_among(rows.index)]
        if FORECASTER.label in rows.index and len(others):
            best = others.loc[others["value"].idxmax()]
            yield _compared("Forecaster against the best baseline", setting, best, name=best.name)


def _called(baseline) -> list[str]:
    """Names of a baseline: some protocols have LRMF with fixed settings only."""
    return [baseline, LRMF_UNTUNED.label] if baseline == LRMF.label else [baseline]


def _cause(variants) -> Iterator[tuple]:
    """LRMF on the true lineage against LRMF on a shuffled one."""
    rows = _rows_of(variants, variant="shuffled lineage")
    if LRMF.label in rows.index:
        yield _compared("LRMF against LRMF on shuffled lineage", "zero-shot", rows.loc[LRMF.label])


def _worth_of_lineage(ingredients) -> Iterator[tuple]:
    rows = _rows_of(ingredients)
    if {FORECASTER.label, "without lineage"} <= set(rows.index):
        claim = "Forecaster against Forecaster without lineage"
        yield _compared(claim, "zero-shot", rows.loc["without lineage"])


def _distant_relatives(gains) -> Iterator[tuple]:
    """What lineage saves for models whose nearest evaluated relative is two steps away."""
    mae = _rows_of(gains, "mae", stratum="distance", level="2 hops")
    if {FORECASTER.label, "without lineage"} <= set(mae.index):
        other = mae.loc["without lineage"]
        saved = [-other[f"difference{end}"] for end in ("", "_upper", "_lower")]
        yield (
            "Forecaster against Forecaster without lineage", "relatives two steps away",
            f"{interval(*saved, 1)} points of MAE saved", str(verdict(*saved[1:])), *saved,
        )  # fmt: skip


def _coverage(intervals, random_holdout, dates) -> Iterator[tuple]:
    """What share of the scores the 90% intervals of the Forecaster cover."""
    shares = {}
    if len(intervals):
        own = intervals.query("metric == 'coverage' and benchmark == 'all'")
        for k, share in zip(own["k"], own["value"], strict=True):
            shares["zero-shot" if k == 0 else f"{k:g} known"] = share
    for name, frame, label in (("% of cells", random_holdout, "density"), ("", dates, None)):
        rows = _rows_of(frame, "coverage")
        for _, row in rows.loc[rows.index == FORECASTER.label].iterrows():
            setting = f"{100 * row[label]:g}{name}" if label else "later models"
            shares[setting] = row["value"]
    for setting, share in shares.items():
        low, high = COVERAGE
        said = NARROW if round(share, 2) < low else WIDE if round(share, 2) > high else KEPT
        text = f"coverage {number(share, 2)}"
        yield "90% intervals of Forecaster", setting, text, said, share, np.nan, np.nan


def _compared(claim, setting, row, said=None, *, name=None) -> tuple:
    """A row of the difference in r, in points."""
    bounds = row.difference, row.difference_lower, row.difference_upper
    said = said or str(verdict(*bounds[1:]))
    return claim, setting, _points(bounds) + (f" ({name})" if name else ""), said, *bounds


def _value(row) -> str:
    return interval(row["value"], row["lower"], row["upper"], 2)


def _points(bounds) -> str:
    """The difference in r in points, with its interval."""
    difference, *ends = (100 * bound for bound in bounds)
    sign = "+" if difference >= 0.5 else ""
    return sign + interval(difference, *ends, 0)
