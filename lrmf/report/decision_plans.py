"""Figures about decisions: how merge plans turned out, and which benchmarks to run first."""

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from ..baselines.registry import FORECASTER
from ..evaluation.bootstrap import LEVEL
from .layout import band, dot, headline, vertical
from .style import BLACK, GREEN, GREY, ORANGE, PAGE, SKY, benchmark_name, predictor_style
from .tables import rows_of

_PANELS = {
    "tau": "rank correlation (more is better)",
    "brier": "Brier score (less is better)",
    "regret": "regret of the top 10, points",
}
_LOOKS = {
    "Forecaster with card": {"color": SKY, "marker": "D"},
    "parents' mean": {"color": ORANGE, "marker": "s"},
    "best parent": {"color": GREEN, "marker": "^"},
    "base rate": {"color": GREY, "marker": "x"},
}
_VERDICTS = {"better": "better than", "worse": "worse than", LEVEL: f"{LEVEL} from"}


def merge_plans(quality):
    """How well planners ranked merges that were made later.

    Parameters
    ----------
    quality : of `lrmf.decide.backtest.plan_quality`
    """
    planners = list(quality["planner"].unique())[::-1]
    figure, panels = plt.subplots(
        1, len(_PANELS), figsize=(PAGE, 0.95 + 0.2 * len(planners)), sharey=True
    )
    for axes, (metric, label) in zip(panels, _PANELS.items(), strict=True):
        for entry in rows_of(quality, metric=metric).itertuples():
            look = _LOOKS.get(entry.planner) or predictor_style(entry.planner)
            row = planners.index(entry.planner)
            dot(axes, row, entry.value, entry.lower, entry.upper, look)
        axes.set(xlabel=label, ylim=(-0.6, len(planners) - 0.4))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    vertical(panels[0], 0, "chance", ha="left")
    panels[0].set_yticks(range(len(planners)), planners)
    n_merges, n_cutoffs = quality[["n_merges", "n_cutoffs"]].iloc[0]
    tau = rows_of(quality, metric="tau").set_index("planner")
    baselines = tau.drop(index=[FORECASTER.label, "Forecaster with card"], errors="ignore")
    best = baselines["value"].idxmax()
    return headline(
        figure,
        f"Forecasts ranked {n_merges:,} later merges ({n_cutoffs} cutoffs) with a rank correlation "
        f"of {tau.loc[FORECASTER.label, 'value']:.2f}: {_VERDICTS[baselines['verdict'][best]]} the "
        f"{best} ({baselines.loc[best, 'value']:.2f})",
    )


def benchmarks_to_run(quality, order):
    """Error of the benchmarks not run, against the number of those that were.

    Parameters
    ----------
    quality : of `lrmf.decide.benchmarks.first_quality`
    order : of `lrmf.decide.benchmarks.benchmarks_first`, for the names
    """
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.3))
    looks = {
        "greedy": predictor_style(FORECASTER.label) | {"label": "chosen, given the family"},
        "random": {"color": GREY, "marker": "s", "linestyle": "--", "label": "random"},
    }
    labels = {"rest": "MAE of the rest", "average": "MAE of the average"}
    for axes, (error, label) in zip(panels, labels.items(), strict=True):
        for strategy, look in looks.items():
            line = rows_of(quality, strategy=strategy, error=error).sort_values("n_run")
            band(axes, line, "n_run", look["color"])
            axes.plot(line["n_run"], line["value"], **look)
        axes.set(xlabel="benchmarks run", ylabel=f"{label}, points", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(loc="lower left")
    for step, name in enumerate(order["benchmark"].head(3)):
        panels[1].annotate(
            f"{step + 1} {benchmark_name(name)}", (0.98, 0.95 - 0.11 * step), color=BLACK,
            xycoords="axes fraction", ha="right", va="top", fontsize=7,
        )  # fmt: skip
    one = rows_of(quality, error="rest").set_index(["strategy", "n_run"])["value"]
    n_run = max(n for _, n in one.index if n <= 2)
    return headline(
        figure,
        f"{n_run} chosen benchmark{'s' * (n_run > 1)} take the MAE of the rest from "
        f"{one['greedy', 0]:.1f} to {one['greedy', n_run]:.1f} points, random ones to "
        f"{one['random', n_run]:.1f}; {quality['n_models'].max():,} models",
    )


def planning_answer(quality) -> str:
    """What the back-test of merge plans says, as Markdown; a loss is called one.

    Parameters
    ----------
    quality : as in `merge_plans`
    """
    at = quality.set_index(["metric", "planner"])
    n_merges, n_cutoffs = quality[["n_merges", "n_cutoffs"]].iloc[0]
    lines = [f"{n_merges} later merges, {n_cutoffs} cutoffs."]
    parents = ["parents' mean", "best parent"]
    metrics = {
        "tau": ("rank correlation", parents),
        "brier": ("Brier score", [*parents, "base rate"]),
    }
    for metric, (name, baselines) in metrics.items():
        found = [
            f"{_VERDICTS[row.verdict]} the {baseline} ({row.value:.3f}; difference "
            f"{row.difference:+.3f} [{row.difference_lower:+.3f}, {row.difference_upper:+.3f}])"
            for baseline, row in at.loc[metric].loc[baselines].iterrows()
        ]
        value = at["value"][metric, FORECASTER.label]
        lines.append(f"The forecast's {name} is {value:.3f}: {'; '.join(found)}.")
    if not (at.loc[(list(metrics), parents), "verdict"] == "better").any():
        lines.append(
            "So far the forecast does not plan merges better than the scores of the "
            "parents do; what it adds is the interval, and the chance for merges whose "
            "parents differ."
        )
    return " ".join(lines)
