"""Merge plans as text and as a file, with the results of the back-test."""

import json
from pathlib import Path

import pandas as pd

from ..forecaster.merges import plan_merges

__all__ = ["backtest_line", "plan_file", "plan_merges", "plan_text"]

CITED = Path(__file__).with_name("backtest.json")  # of `lrmf.decide.backtest`
_COMPARED = "Forecaster", "parents' mean", "best parent"
_HEADINGS = {
    "size_b": "size B", "score": "expected", "interval": "90% interval",
    "parents_best": "best parent", "p_better": "beats it", "p_best_of_size": "best of size",
    "diversity": "diversity", "parents": "parents",
}  # fmt: skip


def plan_text(plans: pd.DataFrame, *, n=20) -> str:
    """The best plans in points, the sets that were left out by reason, and the back-test.

    Parameters
    ----------
    plans : DataFrame from `plan_merges`
    n : int, maximum number of plans in the text
    """
    lines = _table(plans.head(n)) if len(plans) else ["No set of these models can be merged."]
    n_sets, left_out = plans.attrs["n_sets"], plans.attrs["left_out"]
    n_left_out, n_exact = sum(left_out.values()), plans.attrs["n_exact"]
    if n_left_out:
        reasons = ", ".join(
            f"{n:,} {reason}" for reason, n in sorted(left_out.items(), key=lambda x: -x[1])
        )
        lines.append(f"Left out: {n_left_out:,} of {n_sets:,} sets of parents ({reasons}).")
    if n_exact < n_sets - n_left_out:
        lines.append(
            f"Forecast: the {n_exact:,} most promising of the other {n_sets - n_left_out:,}."
        )
    return "\n".join([*lines, backtest_line()])


def _table(plans):
    """Lines of the table of plans, with the names of the parents last."""
    frame = plans.assign(
        size_b=plans["size_b"].map("{:.3g}".format),
        parents=plans["parents"].map(" + ".join),
        interval=[
            f"{100 * low:.1f} to {100 * high:.1f}"
            for low, high in zip(plans["lower"], plans["upper"], strict=True)
        ],
        **{name: (100 * plans[name]).map("{:.1f}".format) for name in ("score", "parents_best")},
        **{name: plans[name].map("{:.0%}".format) for name in ("p_better", "p_best_of_size")},
        diversity=plans["diversity"].map("{:.3f}".format),
    )
    frame = frame[list(_HEADINGS)].replace(["nan", "nan%"], "-")
    cells = [list(_HEADINGS.values()), *frame.to_numpy()]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS) - 1)]
    lines = []
    for row in cells:
        numbers = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("  ".join([*numbers, row[-1]]))
    return lines


def plan_file(plans: pd.DataFrame) -> bytes:
    """The plans as CSV, with parents joined by commas as for `lrmf ask --parents`."""
    frame = plans.assign(parents=plans["parents"].map(",".join))
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode()


def backtest_line() -> str:
    """One sentence on how well plans have ranked later merges, from the file `CITED`."""
    parts = []
    for test in json.loads(CITED.read_text(encoding="utf-8")):
        tau, brier = ({who: row["value"] for who, row in test[k].items()} for k in ("tau", "brier"))
        values = ", ".join(f"{name} {tau[name]:.2f}" for name in _COMPARED)
        parts.append(
            f"{test['n_merges']} later merges of {test['note'] or test['name']}: rank correlation "
            f"{values}; Brier score {brier['Forecaster']:.3f}, base rate {brier['base rate']:.3f}; "
            f"{_verdict(test)}"
        )
    return f"Back-test: {'. '.join(parts)}."


def _verdict(test):
    """The Forecaster against both heuristics in rank correlation and Brier score, in words."""
    by_verdict = {}
    for metric, name in (("tau", "rank correlation"), ("brier", "Brier score")):
        for planner in _COMPARED[1:]:
            verdict = test[metric][planner]["verdict"]
            by_verdict.setdefault(verdict, []).append(f"{planner} ({name})")
    if set(by_verdict) == {"no clear difference"}:
        return "no clear difference from planning by the parents' mean or the best parent"
    names = {"better": "better than", "worse": "worse than"}
    names["no clear difference"] = "no clear difference from"
    return ", ".join(f"{names[verdict]} {' and '.join(who)}" for verdict, who in by_verdict.items())
