"""Figures about the data, the lineage and one fit, and the notebook that draws each.

==================================  ===========================
notebook, ``figures/<run>/``        function
==================================  ===========================
01 ``scores``                       `score_distributions`
01 ``missing_blocks``               `missing_blocks`
01 ``size``                         `size_against_score`
02 ``lineage_structure``            `lineage_structure`
02 ``family``                       `family_picture`
02 ``parent_child``                 `parent_child_correlation`
02 ``parent_child_pairs``           `parent_child_scatter`
02 ``spectrum``                     `spectral_energy`
03 ``convergence`` (answers only)   `convergence`
03 ``factors``                      `factors_by_family`
03 ``factor_distances``             `factor_distances`
03 ``example_forecast``             `example_forecast`
==================================  ===========================

Every function returns a Figure at its final size; `lrmf.report.layout.draw` adds which data it
shows, and saves it.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from .layout import headline, text_width
from .style import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PAGE,
    PURPLE,
    RELATIONS,
    SKY,
    VERMILLION,
    benchmark_name,
)
from .tables import most_evaluated, out_of

LIGHT = "#C4C4C4"
SHUFFLED = "shuffled lineage (band: range)"
_RELATION_MARKERS = {"any": "*", "finetune": "o", "merge": "s", "adapter": "^", "quantized": "D"}
_FAMILY_MARKERS = ["o", "s", "^", "D", "v", "X"]
_FAMILY_COLORS = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, BLACK]
_LEGEND = {"handletextpad": 0.4, "columnspacing": 1.0, "borderaxespad": 0.2}
_BENCHMARK_LETTERS = 20
_MIN_PAIRS_SHOWN, _MIN_DISTANCES_SHOWN = 20, 5
# The family picture, in inches: height of a row, marker to name to link, between two lanes.
_ROW, _TO_NAME, _TO_LINK, _MIN_GAP, _MAX_GAP = 0.14, 0.08, 0.05, 0.34, 1.2
_NAME_SIZE, _NAME_LENGTHS = 6.5, range(60, 5, -2)  # points, letters
_FEW_LETTERS, _MAX_CONFINED = range(12, 5, -1), 24
_PAIRS = {
    "finetune": "finetune and parent",
    "merge": "merge and a parent",
    "adapter": "adapter and parent",
    "quantized": "quantized and parent",
    "siblings": "two siblings",
    "same family": "two of a family",
    "random": "any two",
}


def score_distributions(scores):
    """Distribution of the models' scores on each benchmark, with quartiles.

    Parameters
    ----------
    scores : DataFrame model_id, benchmark, score (share of correct answers)
    """
    scores = scores.dropna(subset=["score"]).assign(percent=100 * scores["score"])
    counts = _groups(scores, "benchmark").size()
    scores = scores[scores["benchmark"].isin(most_evaluated(counts))]
    groups = _groups(scores, "benchmark")["percent"]
    figure, axes = plt.subplots(figsize=(COLUMN, 0.9 + 0.28 * len(groups)))
    sns.violinplot(
        scores, x="percent", y="benchmark", ax=axes, cut=0, width=0.85, density_norm="width",
        color=SKY, saturation=1, linecolor=BLUE, linewidth=0.6, alpha=0.7,
        inner="box",
        inner_kws={"color": BLACK, "box_width": 1.6, "whis_width": 0},
    )  # fmt: skip
    axes.plot(groups.median(), range(len(groups)), "o", ms=4, mfc="white", mec=BLACK)
    names = [
        f"{_shorten(benchmark_name(name), _BENCHMARK_LETTERS)} ({size:,})"
        for name, size in groups.size().items()
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="score of a model, points", ylabel="", xlim=(0, 100))
    axes.grid(axis="y", visible=False)
    spread = groups.std(ddof=0)
    widest, narrowest = spread.idxmax(), spread.idxmin()
    title = f"Scores spread most on {benchmark_name(widest)} (sd {spread[widest]:.0f} points)"
    if widest != narrowest:
        title += f" and least on {benchmark_name(narrowest)} ({spread[narrowest]:.0f})"
    return headline(figure, title + out_of(groups, len(counts)))


def missing_blocks(patterns):
    """Which benchmarks models were evaluated on: one block for each combination, by frequency.

    Parameters
    ----------
    patterns : DataFrame pattern, n_models, benchmark, evaluated
    """
    benchmarks = list(dict.fromkeys(patterns["benchmark"]))
    wide = patterns.pivot(index="pattern", columns="benchmark", values="evaluated")[benchmarks]
    counts = patterns.groupby("pattern")["n_models"].first()[wide.index]
    counts, seen = counts.to_numpy(), wide.to_numpy(bool)
    start = np.cumsum(counts) - counts
    figure, axes = plt.subplots(figsize=(COLUMN, 1.0 + 0.2 * len(benchmarks)))
    for row in range(len(benchmarks)):
        own = seen[:, row]
        style = {"height": 0.8, "color": BLUE, "edgecolor": "white", "linewidth": 0.3}
        axes.barh(np.full(own.sum(), row), counts[own], left=start[own], **style)
    shares = seen.T @ counts / counts.sum()
    names = [_shorten(benchmark_name(name), _BENCHMARK_LETTERS) for name in benchmarks]
    labels = [f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)]
    axes.set_yticks(range(len(benchmarks)), labels)
    axes.set(xlabel="models (blue: evaluated)", xlim=(0, counts.sum()))
    axes.invert_yaxis()
    axes.grid(visible=False)
    complete = counts[seen.all(axis=1)].sum() / counts.sum()
    return headline(
        figure, f"{complete:.0%} of the models were evaluated on all {len(benchmarks)} benchmarks"
    )


def size_against_score(sizes):
    """Size of the models against their average score, with medians of ten groups by size.

    Parameters
    ----------
    sizes : DataFrame model_id, params_b, average (mean standardised score)
    """
    size, average = sizes["params_b"].to_numpy(), sizes["average"].to_numpy()
    figure, axes = plt.subplots(figsize=(COLUMN, 2.5))
    axes.plot(size, average, "o", ms=1.6, mec="none", color=SKY, alpha=0.6, rasterized=True)
    for group in np.array_split(np.argsort(size, kind="stable"), min(10, len(size))):
        low, middle, high = np.quantile(average[group], [0.25, 0.5, 0.75])
        place = np.exp(np.log(size[group]).mean())
        axes.plot([place, place], [low, high], color=BLUE, lw=1)
        axes.plot(place, middle, "o", color=BLUE, ms=4.5)
    axes.set(xscale="log", xlabel="size, billions of parameters")
    axes.set_ylabel("average standardised score")
    axes.xaxis.set_major_formatter("{x:g}")
    r = np.corrcoef(np.log(size), average)[0, 1]
    return headline(
        figure,
        f"Log size explains {r * r:.0%} of the variance of the average score "
        f"(r = {r:.2f}, n = {len(sizes):,})",
    )


def lineage_structure(counts):
    """How families, depth, offspring and merges are distributed: share of at least so many.

    Parameters
    ----------
    counts : DataFrame quantity, value, count
    """
    groups = list(_groups(counts, "quantity"))
    figure, panels = plt.subplots(1, len(groups), figsize=(PAGE, 2.0), sharey=True, squeeze=False)
    for axes, (quantity, group) in zip(panels[0], groups, strict=True):
        group = group.sort_values("value")
        at_least = group["count"][::-1].cumsum()[::-1] / group["count"].sum()
        axes.plot(group["value"], at_least, "o-", ms=3, color=BLUE)
        axes.set(xlabel=quantity, yscale="log")
        axes.yaxis.set(major_formatter=_percent, minor_locator=NullLocator())
        if group["value"].max() > 20:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set(major_formatter="{x:g}", minor_locator=NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[0][0].set_ylabel("at least so many")
    _, first = groups[0]
    sizes = np.repeat(first["value"], first["count"])
    return headline(
        figure,
        f"Half of the {len(sizes):,} families have at most {np.median(sizes):.0f} members, "
        f"the largest has {sizes.max():,}",
    )


def family_picture(nodes, edges):
    """Part of a family by generation, from left to right; relations by colour and line style.

    Every member has a row and every generation a lane of its own. Links change rows between lanes
    only, and cross lanes in the row of the child; names end where a link crosses their row. So no
    link and no name crosses a name, whatever the family.

    Parameters
    ----------
    nodes, edges : DataFrames of `lrmf.report.family_tree.family_picture`
    """
    nodes = _with_places(nodes, edges)
    figure, axes = plt.subplots(figsize=(PAGE, 1.3 + _ROW * len(nodes)))
    axes.set(xlim=(0, PAGE - 0.1), ylim=(len(nodes) - 0.5, -0.5))
    axes.set_axis_off()
    _draw_links(axes, nodes, edges)
    _draw_members(figure, axes, nodes)
    handles = _family_handles(edges, nodes["value"].notna())
    _legend_above(axes, handles, ncols=8, handlelength=2.6)
    n_family, n_merges = nodes["n_family"].iloc[0], edges[edges["relation"] == "merge"]["child"]
    shown = "all" if len(nodes) == n_family else f"{len(nodes)} of its {n_family:,}"
    tied = f", tied together by {_counted(n_merges.nunique(), 'merge')}" if len(n_merges) else ""
    generations = _counted(nodes["generation"].max() + 1, "generation")
    return headline(figure, f"The largest family, {shown} members: {generations}{tied}")


def _with_places(nodes, edges):
    """Columns generation (from 0), row, text, and in inches: x, name_end, lane_end, gap."""
    nodes = nodes.sort_values(["y", "x"], kind="stable", ignore_index=True)
    generation = (nodes["x"] - nodes["x"].min()).round().astype(int)
    nodes = nodes.assign(generation=generation, row=range(len(nodes)))
    free = nodes["node_id"].map(_free_until(nodes, edges))
    start, end, gap = _lanes(nodes[free == generation])
    nodes = nodes.assign(x=generation.map(start), lane_end=generation.map(end), gap=gap)
    room = free.map(end) - nodes["x"] - _TO_NAME - _TO_LINK
    # The longest form of each name that fits, or the shortest one.
    names = [[_name(node, n) for n in _NAME_LENGTHS] for node in nodes.itertuples()]
    texts = [
        next((name for name in forms if _name_width(name) < width + 1e-6), forms[-1])
        for forms, width in zip(names, room, strict=True)
    ]
    widths = np.array([_name_width(text) for text in texts])
    return nodes.assign(text=texts, name_end=nodes["x"] + _TO_NAME + widths)


def _free_until(nodes, edges):
    """The generation after which a link first crosses the row of each member, or the last one."""
    place = nodes.set_index("node_id")[["generation", "row"]]
    parents, children = place.loc[edges["parent"]], place.loc[edges["child"]]["row"].to_numpy()
    # A link leaves the lane of its parent and crosses all rows up to that of its child.
    after = parents["generation"].to_numpy()
    low, high = np.sort([parents["row"].to_numpy(), children], axis=0)
    return {
        name: after[(after >= node["generation"]) & (low <= node["row"]) & (node["row"] <= high)]
        .min(initial=place["generation"].max())
        for name, node in place.iterrows()
    }  # fmt: skip


def _lanes(confined):
    """Start and end of each generation's lane, and the gap between two.

    The names that must end with their lane are cut short: all to the same few letters, then, the
    best connected members first, to as many as there is room for.
    """
    n_lanes = confined["generation"].max() + 1
    spare = PAGE - 0.25 - _MIN_GAP * (n_lanes - 1)
    members = confined.sort_values("n_relatives", ascending=False, kind="stable")
    for few in _FEW_LETTERS:
        width = [_member_width(node, few) for node in members.itertuples()]
        width = pd.Series(width, members.index)
        if _widest(width, members).sum() <= spare:
            break
    for node in members.itertuples():
        for n_letters in range(_MAX_CONFINED, few, -2):
            longer = width.where(members.index != node.Index, _member_width(node, n_letters))
            if _widest(longer, members).sum() <= spare:
                width = longer
                break
    lanes = _widest(width, members).reindex(range(n_lanes), fill_value=0.1)
    gap = min(_MAX_GAP, _MIN_GAP + (spare - lanes.sum()) / max(1, n_lanes - 1))
    end = 0.07 + lanes.cumsum() + gap * np.arange(n_lanes)
    return end - lanes, end, gap


def _member_width(node, n_letters):
    return _TO_NAME + _name_width(_name(node, n_letters)) + _TO_LINK


def _widest(width, members):
    return width.groupby(members["generation"]).max()


def _name(node, n_letters):
    return _shorten(node.label, n_letters) + (f" +{node.n_hidden}" if node.n_hidden else "")


def _name_width(name):
    return text_width(name, _NAME_SIZE) / 72


def _draw_links(axes, nodes, edges):
    nodes = nodes.set_index("node_id")
    for (relation, child), group in edges.groupby(["relation", "child"], sort=False):
        style = RELATIONS[relation] | {"lw": 0.9, "alpha": 0.8}
        curves = [_link(nodes.loc[parent], nodes.loc[child]) for parent in group["parent"]]
        for curve in curves:
            axes.add_patch(PathPatch(curve, fill=False, capstyle="butt", **style))
        start = min(curve.vertices[-1, 0] for curve in curves)
        end, row = nodes.loc[child, ["x", "row"]]
        axes.plot([start, end], [row, row], **style)  # once, or dashes would fill each other's gaps


def _link(parent, child):
    """From the end of the parent's name to the child's row, right of the parent's lane."""
    left, right = parent["lane_end"], parent["lane_end"] + parent["gap"] - 0.06
    middle, above, below = (left + right) / 2, parent["row"], child["row"]
    points = [(parent["name_end"] + _TO_LINK, above), (left, above)]
    points += [(middle, above), (middle, below), (right, below)]
    return Outline(points, [Outline.MOVETO, Outline.LINETO, *[Outline.CURVE4] * 3])


def _draw_members(figure, axes, nodes):
    known, other = nodes[nodes["value"].notna()], nodes[nodes["value"].isna()]
    axes.scatter(other["x"], other["row"], s=22, c="white", ec=GREY, lw=0.8, zorder=3)
    if len(known):
        style = {"s": 30, "edgecolors": BLACK, "linewidths": 0.5, "zorder": 3}
        drawn = axes.scatter(known["x"], known["row"], c=known["value"], **style)
        style = {"location": "bottom", "shrink": 0.4, "aspect": 40, "anchor": (0.02, 0)}
        bar = figure.colorbar(drawn, ax=axes, pad=0.01, **style)
        hidden = " (+n: relatives not shown)" if nodes["n_hidden"].any() else ""
        bar.set_label(f"average standardised score{hidden}", loc="left")
    for node in nodes.itertuples():
        axes.text(node.x + _TO_NAME, node.row, node.text, fontsize=_NAME_SIZE, va="center_baseline")


def _family_handles(edges, known):
    counts = edges["relation"].value_counts()
    handles = [
        Line2D([], [], label=f"{relation} ({counts[relation]})", **style)
        for relation, style in RELATIONS.items()
        if relation in counts
    ]
    for label, face, edge in (("evaluated", "#21918C", BLACK), ("not evaluated", "white", GREY)):
        if (known if label == "evaluated" else ~known).any():
            style = {"marker": "o", "ls": "", "mfc": face, "mec": edge, "mew": 0.6}
            handles.append(Line2D([], [], label=label, **style))
    return handles


def parent_child_scatter(pairs):
    """Average score of the children against that of their parents.

    Parameters
    ----------
    pairs : DataFrame of `lrmf.analysis.relatedness.parent_child_pairs`
    """
    average = pairs[pairs["benchmark"] == "average"]
    x, y = average["parent_score"], average["child_score"]
    counts = average["relation"].value_counts()
    names = {name: f"{name} ({counts[name]})" for name in RELATIONS if name in counts}
    figure, axes = plt.subplots(figsize=(COLUMN, 3.0))
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color=GREY, lw=0.8)
    relation = average["relation"].map(names).rename(None)
    sns.scatterplot(
        x=x, y=y, hue=relation, style=relation, hue_order=names.values(), ax=axes, s=9, alpha=0.8,
        palette={text: RELATIONS[name]["color"] for name, text in names.items()},
        markers={text: _RELATION_MARKERS[name] for name, text in names.items()},
    )  # fmt: skip
    axes.set(xlabel="parents' average standardised score", ylabel="child's")
    sns.move_legend(axes, "lower left", bbox_to_anchor=(0, 1), ncols=2, title="", **_LEGEND)
    r = np.corrcoef(x, y)[0, 1]
    near = np.mean(np.abs(x - y) < 0.25)
    return headline(
        figure,
        f"Child and parents correlate at r = {r:.2f}; {near:.0%} of children are within 0.25 sd",
    )


def parent_child_correlation(correlations):
    """Correlation of child and parents by benchmark and relation; bars are 95% intervals.

    Parameters
    ----------
    correlations : DataFrame of `lrmf.analysis.relatedness.parent_child_correlations`; relations
        with fewer than 20 pairs are not drawn
    """
    counts = correlations.query("relation == 'any' and benchmark != 'average'")
    counts = counts.set_index("benchmark")["n"]
    is_shown = (correlations["n"] >= _MIN_PAIRS_SHOWN) | (correlations["relation"] == "any")
    is_shown &= correlations["benchmark"].isin([*most_evaluated(counts), "average"])
    shown = correlations[is_shown]
    benchmarks = list(dict.fromkeys(shown["benchmark"]))
    groups = list(_groups(shown, "relation"))
    row = max(0.2, 0.085 * len(groups))
    figure, axes = plt.subplots(figsize=(COLUMN, 1.1 + row * len(benchmarks)))
    styles = {"any": {"color": BLACK}} | RELATIONS
    for step, (relation, group) in enumerate(groups):
        place = np.array([benchmarks.index(name) for name in group["benchmark"]])
        place = place + (step - (len(groups) - 1) / 2) * 0.8 / len(groups)
        color = styles[relation]["color"]
        marker = _RELATION_MARKERS[relation]
        axes.hlines(place, group["lower"], group["upper"], color=color, lw=1)
        label = "all" if relation == "any" else relation
        axes.plot(group["r"], place, marker, color=color, ms=4, label=label)
    axes.set_yticks(range(len(benchmarks)), map(benchmark_name, benchmarks))
    axes.set(xlabel="r of child and parents", ylim=(len(benchmarks) - 0.5, -0.5))
    axes.set_xlim(min(0, np.nanmin(shown[["r", "lower"]])), 1)
    axes.grid(axis="y", visible=False)
    for edge in range(1, len(benchmarks)):
        axes.axhline(edge - 0.5, color="0.9", lw=0.4)
    _legend_above(axes, ncols=5)
    single = shown[(shown["relation"] == "any") & (shown["benchmark"] != "average")]
    best, worst = single.loc[single["r"].idxmax()], single.loc[single["r"].idxmin()]
    return headline(
        figure,
        f"How much a child takes after its parents: r from {worst['r']:.2f} "
        f"({benchmark_name(worst['benchmark'])}) to {best['r']:.2f} "
        f"({benchmark_name(best['benchmark'])}){out_of(single, len(counts))}",
    )


def spectral_energy(spectrum):
    """Cumulative energy of the scores over the lineage's frequencies, and of shuffled scores.

    Parameters
    ----------
    spectrum : DataFrame of `lrmf.analysis.spectrum.spectral_energy`
    """
    parts = list(_groups(spectrum, "part"))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.7), sharey=True)
    for axes, (part, group) in zip(panels, parts, strict=False):
        mean = group[group["benchmark"] == "all"]
        x, single = mean["frequencies"], group[group["benchmark"] != "all"]
        axes.plot(x, mean["energy"], color=BLUE, lw=1.8, label="lineage, mean of benchmarks")
        for _, one in _groups(single, "benchmark"):
            (line,) = axes.plot(one["frequencies"], one["energy"], color=SKY, lw=0.7, zorder=1.9)
        line.set_label("each benchmark")
        axes.fill_between(x, mean["lower"], mean["upper"], color=LIGHT, lw=0)
        axes.plot(x, mean["shuffled"], "--", color=VERMILLION, label=SHUFFLED)
        axes.plot([0, 1], [0, 1], color=BLACK, ls=":", lw=0.9, label="uniform")
        axes.set_title(part, fontweight="normal")
        axes.set(xlabel="share of frequencies, lowest first", xlim=(0, 1), ylim=(0, 1.01))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in panels[len(parts) :]:
        axes.set_axis_off()
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("share of the energy")
    panels[0].legend(loc="lower right")
    at_quarter = (spectrum["benchmark"] == "all") & np.isclose(spectrum["frequencies"], 0.25)
    quarter = spectrum[at_quarter].iloc[0]
    return headline(
        figure,
        f"The lowest quarter of the frequencies holds {quarter['energy']:.0%} of the energy of "
        f"performance, and {quarter['shuffled']:.0%} on shuffled lineage",
    )


def convergence(objective):
    """Objective by sweep, above its final value.

    Parameters
    ----------
    objective : DataFrame sweep, objective
    """
    values = objective["objective"].to_numpy()
    figure, axes = plt.subplots(figsize=(COLUMN, 2.2))
    axes.plot(objective["sweep"][:-1], values[:-1] / values[-1] - 1, "o-", color=BLUE)
    axes.set(xlabel="sweep", ylabel="above the final value", yscale="log")
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    n_sweeps, n_rises = len(values) - 1, int((np.diff(values) > 0).sum())
    sweeps = _counted(n_sweeps, "sweep")
    rises = "never rises" if n_rises == 0 else f"rises {_counted(n_rises, 'time')}"
    return headline(
        figure,
        f"The objective {rises}: {1 - values[-1] / values[0]:.0%} lower after {sweeps}, "
        f"{1 - values[-1] / values[-2]:.2%} of it in the last",
    )


def factors_by_family(factors):
    """Models in the two directions in which predictions differ most; large families told apart.

    Parameters
    ----------
    factors : DataFrame model_id, family (empty for the others), factor_1, factor_2, share_1,
        share_2 (of the variance)
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 3.6))
    others = factors[factors["family"].isna()]
    style = {"ls": "", "mew": 0.3, "mec": "white", "rasterized": True}
    label = f"other models ({len(others):,})"
    axes.plot(others["factor_1"], others["factor_2"], "o", c=LIGHT, ms=2, label=label, **style)
    named = factors.dropna(subset=["family"])
    size = named.groupby("family")["family"].transform("size")
    named = named.loc[size.sort_values(ascending=False, kind="stable").index]
    looks = zip(_FAMILY_COLORS, _FAMILY_MARKERS, strict=True)
    for (family, group), (color, marker) in zip(_groups(named, "family"), looks, strict=False):
        label = f"{_shorten(family, 18)} ({len(group):,})"
        x, y = group["factor_1"], group["factor_2"]
        axes.plot(x, y, marker, color=color, ms=4, label=label, **style)
    for axis, share in (("x", "share_1"), ("y", "share_2")):
        text = f"direction {share[-1]} ({factors[share].iloc[0]:.0%} of the variance)"
        axes.set(**{f"{axis}label": text})
    _legend_above(axes, ncols=2, fontsize=6)
    title = (
        f"Two directions hold {sum(factors[['share_1', 'share_2']].iloc[0]):.0%} of the variance"
    )
    if len(named):
        values = named[["factor_1", "factor_2"]]
        within = values - values.groupby(named["family"]).transform("mean")
        explained = 1 - within.pow(2).sum().sum() / (values - values.mean()).pow(2).sum().sum()
        title = f"Membership in the {named['family'].nunique()} largest families explains "
        title += f"{explained:.0%} of the variance in these directions"
    return headline(figure, title)


def factor_distances(distances):
    """How far apart the states of relatives are; boxes are quartiles, whiskers 5% and 95%.

    Parameters
    ----------
    distances : DataFrame kind, distance, unit
    """
    values = {name: group["distance"].to_numpy() for name, group in _groups(distances, "kind")}
    groups = {name: group for name, group in values.items() if len(group) >= _MIN_DISTANCES_SHOWN}
    figure, axes = plt.subplots(figsize=(COLUMN, 0.9 + 0.26 * len(groups)))
    # Not by seaborn, which calls Matplotlib's box plot in a way that is deprecated.
    drawn = axes.boxplot(
        list(groups.values()), positions=range(len(groups)), orientation="horizontal",
        whis=(5, 95), showfliers=False, widths=0.6, patch_artist=True,
        medianprops={"color": BLACK, "lw": 1.5},
    )  # fmt: skip
    for box, name in zip(drawn["boxes"], groups, strict=True):
        box.set(facecolor=SKY if name in RELATIONS else "white", linewidth=0.7)
    axes.invert_yaxis()
    ticks = [f"{_PAIRS[name]} ({len(group):,})" for name, group in groups.items()]
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set(xlabel=f"distance, {distances['unit'].iloc[0]}", xlim=(0, None))
    axes.grid(axis="y", visible=False)
    medians = {name: np.median(group) for name, group in groups.items()}
    children = [group for name, group in values.items() if name in RELATIONS]
    title = f"Median distance {medians['random']:.2f} between any two models"
    if children:
        title += f", {np.median(np.concatenate(children)):.2f} between child and parent"
    return headline(figure, title)


def example_forecast(forecast):
    """One held-out model: its forecast with 90% interval, its own scores and its parents'.

    Parameters
    ----------
    forecast : DataFrame model_id, benchmark, kind (forecast, actual, parent, benchmark mean),
        source (the parent's id), score, lower, upper (shares of correct answers)
    """
    counts = _groups(forecast, "benchmark").size()
    benchmarks = most_evaluated(counts)
    forecast = forecast[forecast["benchmark"].isin(benchmarks)]
    place = {name: column for column, name in enumerate(benchmarks)}
    kinds = dict(iter(_groups(forecast, "kind")))
    figure, axes = plt.subplots(figsize=(COLUMN, 2.8))
    n_parents = kinds["parent"]["source"].nunique()
    looks = {
        "benchmark mean": ("_", GREY, 0.3, "average model"),
        "parent": ("^", VERMILLION, -0.2, "parent" if n_parents == 1 else f"{n_parents} parents"),
        "actual": ("X", BLACK, 0.15, "actual score"),
        "forecast": ("o", BLUE, 0.0, "forecast, 90% interval"),
    }
    for kind, (marker, color, shift, label) in looks.items():
        x = kinds[kind]["benchmark"].map(place) + shift
        if kind == "parent":  # side by side, as their scores may be equal
            x += 0.12 * (
                pd.factorize(kinds[kind]["source"])[0] / n_parents - (1 - 1 / n_parents) / 2
            )
        score, lower, upper = 100 * kinds[kind][["score", "lower", "upper"]].to_numpy(float).T
        edge = {"mec": color, "mew": 1.2} if marker == "_" else {"mec": "white", "mew": 0.4}
        axes.plot(x, score, marker, color=color, ms=4.5, label=label, **edge)
        axes.vlines(x, lower, upper, color=color)  # only forecasts have bounds
    names = [_shorten(benchmark_name(name), _BENCHMARK_LETTERS) for name in benchmarks]
    n_letters = len("".join(names))
    axes.set_xticks(range(len(names)), names, fontsize=6 if n_letters > 32 else 7)
    if n_letters > 60:
        axes.tick_params(axis="x", labelrotation=90)
        figure.set_figheight(3.6)
    axes.set(ylabel="score, points")
    axes.grid(axis="x", visible=False)
    _legend_above(axes, ncols=2)
    actual, own = (kinds[kind].set_index("benchmark") for kind in ("actual", "forecast"))
    inside = actual["score"].between(own["lower"], own["upper"])
    error = 100 * (actual["score"] - own["score"]).abs().mean()
    parents = kinds["parent"].groupby("benchmark")["score"].mean()
    parent_error = 100 * (actual["score"] - parents).abs().mean()
    return headline(
        figure,
        f"{inside.sum()} of {len(inside)} scores are within the interval; mean error "
        f"{error:.1f} points (parents' mean: {parent_error:.1f}){out_of(benchmarks, len(counts))}",
    )


def _percent(share, _):
    return f"{100 * share:g}%"


def _counted(number, noun):
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _groups(frame, column):
    """Groups in order of appearance."""
    return frame.groupby(column, sort=False)


def _legend_above(axes, handles=None, **style):
    """A legend between the headline and the axes."""
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), **(_LEGEND | style))


def _shorten(text, n_letters):
    """Leave out words amid a long name, or after its start if its last word is long."""
    if len(text) <= n_letters:
        return text
    words = re.findall(r"[^-_ ]+[-_ ]*", text)
    end = words.pop() if len(words[0]) + len(words[-1]) < n_letters else ""
    while len(words) > 1 and len("".join(words)) + len(end) >= n_letters:
        words.pop()
    return "".join(words)[: n_letters - 1 - len(end)] + "…" + end
