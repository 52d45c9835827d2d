"""What the paper claims, what was measured, and whether it holds: one row a claim."""

from collections.abc import Iterator

import pandas as pd

from ..baselines.registry import (
    BOOSTING,
    CLAIMED,
    FORECASTER,
    LRMF,
    MULTI_HOP,
    ONE_HOP,
    ONE_HOP_RAW,
    baselines_among,
    find,
)
from ..evaluation.bootstrap import CLAIM
from .tables import interval, number

HOLDS, PARTLY, OPEN, NOT = "holds", "partly", "not shown", "does not hold"
MARGIN = 0.01  # of r, by which a forecast may be worse and still be called no worse
COVERAGE = (0.88, 0.92)  # of 90% intervals, to be called right
NEARLY = (0.84, 0.96)


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
) -> pd.DataFrame:
    """Claims of the paper against the frames that notebooks 04 and 05 write.

    A lead of 7 to 10 points *holds* if `judge_claim` finds it as claimed or larger, *partly* if it
    is smaller but above 0; a claim about several settings holds if it does in all of them, partly
    if in some. It is judged of *LRMF*, tuned like the baselines where these are; the lead of the
    *Forecaster*, which reads cards as well, has rows of its own. The Forecaster is *no worse* than
    a baseline where the interval of the difference in r excludes a loss of more than a point in
    every setting; *partly* where it leaves that open in some, *not* where it is worse beyond doubt
    in any. Other claims hold if the 95% interval says so; what lineage adds is *not
    shown* where the interval includes 0. The text of each row says what was compared. Claims that
    the data cannot test are left out.

    Parameters
    ----------
    leads : of `leads`, with the labels ``protocol`` and, for the random hold-out, ``density``
    zero_shot, random_holdout, few_shot, variants, ingredients : of `bootstrap`, with the labels
        none, ``density``, ``k``, ``variant``, none
    gains : of `by_stratum`, Forecaster with and without lineage
    intervals : of `interval_quality`
    dates : of `bootstrap`, later models

    Returns
    -------
    DataFrame, index claim : measured, verdict
    """
    rows = [
        *_forecasts_at_all(zero_shot),
        *_leads(leads),
        *_beyond_averaging(zero_shot),
        *_beside_boosting(zero_shot, few_shot, random_holdout, dates),
        *_cause(variants),
        *_worth_of_lineage(ingredients),
        *_distant_relatives(gains),
        *_few_shot(few_shot),
        *_later(dates),
        *_intervals(intervals),
        *_intervals_of_holdout(random_holdout),
        *_intervals_later(dates),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"]).set_index("claim")


def _rows_of(frame, metric="pearson", **labels) -> pd.DataFrame:
    """Rows of a metric with these labels, by predictor; none if there is no such frame."""
    if frame.empty:
        return pd.DataFrame()
    frame = frame[frame["metric"] == metric]
    for label, value in labels.items():
        frame = frame[frame[label] == value]
    return frame.set_index("predictor")


def _forecasts_at_all(zero_shot) -> Iterator[tuple]:
    r, mae = _rows_of(zero_shot), _rows_of(zero_shot, "mae")
    if FORECASTER.label in r.index:
        own = r.loc[FORECASTER.label]
        text = f"r {_value(own)}, MAE {number(mae.loc[FORECASTER.label, 'value'], 1)} points"
        yield (
            "models nobody has evaluated can be forecast",
            text,
            HOLDS if own["lower"] > 0 else NOT,
        )


def _leads(leads) -> Iterator[tuple]:
    """The lead over each kind of baseline that the claim names, in every setting."""
    low, high = (f"{100 * points:.0f}" for points in CLAIM)
    keys = ["protocol", "reference"]
    for (protocol, method), rows in leads.groupby(keys, sort=False) if len(leads) else ():
        kinds = rows["predictor"].map(lambda name: find(name).kind)
        for kind in CLAIMED:
            chosen = rows[kinds == kind]
            shares = chosen.get("density", pd.Series(index=chosen.index, dtype=float))
            texts = [
                _points(row) + (f" at {100 * share:g}%" if pd.notna(share) else "")
                for row, share in zip(chosen.itertuples(), shares, strict=True)
            ]
            if texts:
                as_much = chosen["verdict"].isin(["as claimed", "larger than claimed"])
                some = chosen["verdict"] != "no advantage"
                claim = f"{protocol}, r of {method} {low} to {high} points above {kind}"
                yield claim, ", ".join(texts), _verdict(as_much, some)


def _beyond_averaging(zero_shot) -> Iterator[tuple]:
    """Over the direct relatives, plain or shrunk, whichever is better, and over all of them."""
    r = _rows_of(zero_shot)
    kinds = {"1 hop": [ONE_HOP.label, ONE_HOP_RAW.label], "multi-hop": [MULTI_HOP.label]}
    known = {kind: r.loc[r.index.isin(names)] for kind, names in kinds.items()}
    best = {kind: rows.loc[rows["value"].idxmax()] for kind, rows in known.items() if len(rows)}
    ahead = pd.Series([row["difference_lower"] > 0 for row in best.values()])
    text = ", ".join(f"{_points(row)} over {kind}" for kind, row in best.items())
    if best:
        yield "more than the average of the relatives", text, _verdict(ahead, ahead)


def _beside_boosting(zero_shot, few_shot, random_holdout, dates) -> Iterator[tuple]:
    """In every setting in which the trees were run."""
    settings = {"zero-shot": _rows_of(zero_shot)}
    settings |= {f"given {k}": _rows_of(few_shot, k=k) for k in _steps(few_shot, "k")}
    settings |= {
        f"at {100 * density:g}%": _rows_of(random_holdout, density=density)
        for density in _steps(random_holdout, "density")
    }
    settings["later models"] = _rows_of(dates)
    trees = BOOSTING.label
    found = {name: rows.loc[trees] for name, rows in settings.items() if trees in rows.index}
    if found:
        text = ", ".join(f"{_points(row)} {setting}" for setting, row in found.items())
        claim = "no worse than boosted trees that read relatives and cards"
        yield claim, text, _no_worse(found.values())


def _steps(frame, label) -> list:
    """Values of a label but 0, which is another protocol; none if there is no such frame."""
    return sorted(set(frame[label]) - {0}) if len(frame) else []


def _cause(variants) -> Iterator[tuple]:
    """Whether either interval leaves out the other's value."""
    r = {name: _rows_of(variants, variant=name) for name in ("all of it", "shuffled lineage")}
    if all(LRMF.label in frame.index for frame in r.values()):
        true, shuffled = (frame.loc[LRMF.label] for frame in r.values())
        text = f"r {_value(true)}, {_value(shuffled)} on shuffled lineage"
        apart = shuffled["upper"] < true["value"] and shuffled["value"] < true["lower"]
        yield "shuffling the lineage costs LRMF accuracy", text, HOLDS if apart else NOT


def _worth_of_lineage(ingredients) -> Iterator[tuple]:
    """Whether the forecaster needs lineage beside cards, names and near-duplicates."""
    r = _rows_of(ingredients)
    if {FORECASTER.label, "without lineage"} <= set(r.index):
        row = r.loc["without lineage"]
        whole, value = (number(r.loc[name, "value"], 2) for name in (FORECASTER.label, row.name))
        text = f"{_points(row)}: r {whole}, {value} without lineage"
        verdict = _gain(row["difference_lower"], row["difference_upper"])
        yield "lineage adds to cards and names, in Forecaster", text, verdict


def _distant_relatives(gains) -> Iterator[tuple]:
    """Whether models whose nearest relative is two steps away gain from the lineage."""
    mae = _rows_of(gains, "mae", stratum="distance", level="2 hops")
    if {FORECASTER.label, "without lineage"} <= set(mae.index):
        own, other = mae.loc[FORECASTER.label], mae.loc["without lineage"]
        saved = [-other[f"difference{end}"] for end in ("", "_upper", "_lower")]
        values = f"{number(own['value'], 1)}, {number(other['value'], 1)} without lineage"
        text = f"{interval(*saved, 1)} points of MAE saved: {values}"
        yield "relatives two steps away help", text, _gain(*saved[1:])


def _few_shot(few_shot) -> Iterator[tuple]:
    """Against whichever other predictor is best at each number of answers."""
    texts, best_ones = [], []
    for k in _steps(few_shot, "k"):
        r = _rows_of(few_shot, k=k)
        others = r.loc[baselines_among(r.index)]
        if FORECASTER.label in r.index and len(others):
            best = others.loc[others["value"].idxmax()]
            texts.append(f"{number(r.loc[FORECASTER.label, 'value'], 2)} ({_points(best)}) at {k}")
            best_ones.append(best)
    if texts:
        text = "r (lead over the best rival): " + ", ".join(texts)
        yield "few answers or benchmarks suffice; no rival is better", text, _no_worse(best_ones)


def _later(dates) -> Iterator[tuple]:
    r, mae = _rows_of(dates), _rows_of(dates, "mae")
    if FORECASTER.label in r.index:
        own = r.loc[FORECASTER.label]
        text = f"r {_value(own)}, MAE {number(mae.loc[FORECASTER.label, 'value'], 1)} points"
        verdict = HOLDS if own["lower"] > 0 else NOT
        yield "later models can be forecast from earlier ones", text, verdict


def _intervals(intervals) -> Iterator[tuple]:
    if intervals.empty:
        return
    share = intervals.query("metric == 'coverage' and benchmark == 'all'")["value"]
    text = f"coverage {number(share.min(), 2)} to {number(share.max(), 2)}, by answers known"
    yield "90% intervals cover 90%", text, _coverage_verdict(share)


def _intervals_of_holdout(random_holdout) -> Iterator[tuple]:
    rows = _rows_of(random_holdout, "coverage")
    if FORECASTER.label in rows.index:
        own = rows.loc[[FORECASTER.label]]
        texts = [
            f"{number(share, 2)} at {100 * density:g}%"
            for share, density in zip(own["value"], own["density"], strict=True)
        ]
        claim = "90% intervals cover 90%, random hold-out"
        yield claim, f"coverage {', '.join(texts)}", _coverage_verdict(own["value"])


def _intervals_later(dates) -> Iterator[tuple]:
    rows = _rows_of(dates, "coverage")
    if FORECASTER.label in rows.index:
        share = rows.loc[[FORECASTER.label], "value"]
        text = f"coverage {number(share.iloc[0], 2)}"
        yield "90% intervals cover 90%, later models", text, _coverage_verdict(share)


def _no_worse(rows) -> str:
    """Of differences in r: whether a loss of more than `MARGIN` is excluded in every row."""
    lower, upper = ([row[f"difference_{end}"] for row in rows] for end in ("lower", "upper"))
    return NOT if min(upper) < 0 else HOLDS if min(lower) > -MARGIN else PARTLY


def _gain(lower, upper) -> str:
    """From the interval of what lineage adds; open where that includes 0 or is unknown."""
    return HOLDS if lower > 0 else NOT if upper < 0 else OPEN


def _coverage_verdict(share) -> str:
    right, nearly = (share.round(2).between(*bounds) for bounds in (COVERAGE, NEARLY))
    return HOLDS if right.all() else PARTLY if nearly.all() else NOT


def _verdict(everywhere, somewhere) -> str:
    return HOLDS if everywhere.all() else PARTLY if somewhere.any() else NOT


def _value(row) -> str:
    return interval(row["value"], row["lower"], row["upper"], 2)


def _points(row) -> str:
    """The difference in r in points, with its interval."""
    difference, *bounds = (
        100 * getattr(row, f"difference{end}") for end in ("", "_lower", "_upper")
    )
    sign = "+" if difference >= 0.5 else ""
    return sign + interval(difference, *bounds, 0)
