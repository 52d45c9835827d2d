"""The figure, from the tables of a run."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from lrmf.report import style

LOOKS = {
    "LRMF": {"color": style.BLUE, "marker": "o", "linestyle": "-"},
    "L-BFGS": {"color": style.VERMILLION, "marker": "s", "linestyle": "-"},
    "Adam, full batch": {"color": style.GREEN, "marker": ">", "linestyle": "-."},
    "Adam, mini-batch": {"color": style.ORANGE, "marker": "v", "linestyle": "--"},
    "cmfrec": {"color": style.PURPLE, "marker": "P", "linestyle": ":"},
    "implicit": {"color": style.SKY, "marker": "X", "linestyle": "-."},
    "TruncatedSVD": {"color": style.BLACK, "marker": "D", "linestyle": "--"},
    "NMF": {"color": style.GREY, "marker": "*", "linestyle": (0, (4, 1, 1, 1, 1, 1))},
}
SAME_OBJECTIVE = ("LRMF", "L-BFGS", "Adam, full batch", "Adam, mini-batch")
OTHER_OBJECTIVES = ("LRMF", "cmfrec", "implicit", "TruncatedSVD", "NMF")
BOUND = {"marker": "^", "linestyle": "", "markersize": 5, "markerfacecolor": "white"}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def draw_figure(folder, sizes, figures):
    """Draw what the tables in a folder say, as solver.pdf and .png.

    Parameters
    ----------
    folder, figures : path, where the tables are and where the figure goes
    sizes : dict, observed answers by problem
    """
    names = ("checkpoints", "summary", "scaling", "exponents", "targets")
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    style.use_style()
    style.save_figure(draw(**tables, sizes=sizes), None, "solver", folder=figures)


def draw(checkpoints, summary, scaling, exponents, targets, *, sizes):
    """Three rows: quality against time, cost against size with peers, cost of a sweep of LRMF."""
    figure = plt.figure(figsize=(style.PAGE, 6.3), layout="constrained")
    races, costs, sweeps = figure.subfigures(3, 1, height_ratios=[1.3, 1.1, 0.9])
    targets = targets.set_index("problem")
    panels = np.ravel(races.subplots(1, len(targets)))
    for (problem, target), axes in zip(targets.iterrows(), panels, strict=True):
        points = checkpoints[(checkpoints["problem"] == problem) & (checkpoints["round"] == 0)]
        draw_race(axes, points, target)
        axes.set_title(problem)
    panels[0].set_ylabel("held-out log-loss")
    handles = [plt.Line2D([], [], markersize=4, **LOOKS[solver], label=solver)
               for solver in LOOKS if solver in set(checkpoints["solver"])]  # fmt: skip
    races.legend(handles=handles, loc="outside lower center", ncols=4)

    panels = costs.subplots(1, 2, sharey=True)
    titles = ("same objective", "other objectives")
    for axes, title, solvers in zip(
        panels, titles, (SAME_OBJECTIVE, OTHER_OBJECTIVES), strict=True
    ):
        draw_cost(axes, summary[summary["solver"].isin(solvers)], sizes)
        axes.set_title(title)
    panels[0].set_ylabel("CPU seconds to the log-loss")
    bound = plt.Line2D([], [], color=style.BLACK, **BOUND, label="not reached by then")
    panels[0].legend(handles=[bound], loc="lower left")

    groups = scaling["axis"].str.split(",").str[0].unique()
    panels = np.ravel(sweeps.subplots(1, len(groups), sharey=True))
    for group, axes in zip(groups, panels, strict=True):
        draw_sweep(axes, scaling[scaling["axis"].str.startswith(group)], exponents)
        axes.set_xlabel(group)
    panels[0].set_ylabel("CPU seconds\nper sweep, LRMF")
    style.note_data(figure, "Drawn from the model, see bench/README.md")
    return figure


def draw_race(axes, points, target):
    """Log-loss over CPU seconds of every solver, and the log-loss that counts as equal."""
    for solver, path in points.groupby("solver", sort=False):
        path = path[path["cpu"] > 0.02]
        every = 0.25 if len(path) > 4 else 1
        axes.plot(path["cpu"], path["loss"], **LOOKS[solver], markevery=every, markersize=3.5,
                  linewidth=1, alpha=0.9)  # fmt: skip
    axes.axhline(target["loss_to_reach"], color=style.GREY, linewidth=0.6)
    axes.set(xscale="log", xlabel="CPU seconds")
    axes.set_ylim(target["truth"] - 0.004, target["loss"] + 0.11)
    few = np.ptp(np.log10(axes.get_xlim())) < 2
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw_cost(axes, summary, sizes):
    """CPU seconds to the log-loss over observed answers; an open triangle is a lower bound.

    Who did not reach the log-loss, stopped or not, is shown at the seconds of its fit. At each size
    solvers stand side by side.
    """
    ends = {}
    for number, (solver, rows) in enumerate(summary.groupby("solver", sort=False)):
        aside = 1.06 ** (number - (summary["solver"].nunique() - 1) / 2)
        rows = rows.assign(size=rows["problem"].map(sizes) * aside).sort_values("size")
        bound = rows["cpu_to_loss"].isna()
        seconds = rows["cpu_to_loss"].fillna(rows["fit_cpu"])
        look = LOOKS[solver] | {"markersize": 4}
        axes.plot(rows["size"], seconds, **look, markevery=list(np.flatnonzero(~bound)))
        axes.plot(rows["size"][bound], seconds[bound], color=look["color"], **BOUND)
        ends[solver] = rows["size"].iloc[-1], seconds.iloc[-1], look["color"]
    axes.set(xscale="log", yscale="log", xlabel="observed answers")
    known = sorted((sizes[problem], problem) for problem in summary["problem"].unique())
    axes.xaxis.set_major_locator(FixedLocator([size for size, _ in known]))
    axes.set_xticklabels([f"{size / 1e6:.3g} million\n{problem}" for size, problem in known])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PLAIN)
    label_ends(axes, ends)


def draw_sweep(axes, points, exponents):
    """CPU seconds per sweep over what varies; the lines end in their exponents."""
    slopes = exponents.set_index("axis")["exponent"]
    looks = [("o", style.BLUE, "-"), ("s", style.VERMILLION, "--")]
    ends = {}
    for (axis, rows), (marker, color, line) in zip(
        points.groupby("axis", sort=False), looks, strict=False
    ):
        median = rows.groupby("value")["cpu_per_sweep"].median()
        kind = axis.split(", ")[1] + ":" if ", " in axis else "exponent"
        axes.plot(median.index, median, marker=marker, color=color, linestyle=line, markersize=3.5)
        ends[f"{kind} {slopes[axis]:.2f}"] = median.index[-1], median.iloc[-1], color
    axes.set(xscale="log", yscale="log")
    values = np.unique(points["value"])
    axes.xaxis.set_major_locator(FixedLocator(values[[0, -1]]))
    axes.xaxis.set_minor_locator(FixedLocator(values))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
    label_ends(axes, ends)


def label_ends(axes, ends):
    """Names beside the last points (x, y, colour) of lines, from below moved apart."""
    lowest = -np.inf
    low, high = np.log(axes.get_ylim())
    gap = 8 / 72 / 1.1 * (high - low)  # 8 pt on an axis of about an inch
    for name, (x, y, color) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(np.log(y), lowest + gap)
        axes.annotate(
            name, (x, np.exp(lowest)), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=7, color=color, annotation_clip=False,
        )  # fmt: skip
