"""Figures about forecasts: how predictors compare, what lineage is worth, how far to trust it.

============================================  ==========================
notebook, ``figures/<run>/``                  function
============================================  ==========================
04 ``zero_shot``                              `zero_shot_comparison`
04 ``zero_shot_forecasts``                    `predicted_against_actual`
04 ``random_holdout``                         `random_holdout_curve`
05 ``few_shot``                               `few_shot_curve`
05 ``calibration``                            `calibration`
05 ``ablation``                               `lineage_ablation`
05 ``ingredients``, ``ingredients_few_shot``  `ingredient_ablation`
05 ``lineage_gain``                           `lineage_gain`
05 ``relatives``                              `error_by_relatives`
05 ``within_families``                        `inside_families`
05 ``one_family``                             `one_family_or_all`
05 ``as_at_release``                          `as_at_release`
05 ``later_models``                           `later_models`
============================================  ==========================

Every function takes tidy frames (of `lrmf.evaluation.bootstrap`, but for the forecasts) and returns
a Figure at its final size. Titles say what the frame shows, so they hold for any data.
"""

import matplotlib.pyplot as plt
import numpy as np

from ..baselines.registry import (
    CURVES,
    FORECASTER,
    LRMF,
    STRATA,
    baselines_among,
    find,
    labels,
    shown_in,
)
from ..evaluation.bootstrap import CLAIM
from .layout import band, curves, dot, headline, label_ends, percent_limits, ticks_at, vertical
from .style import BLACK, COLUMN, GREY, PAGE, SKY, benchmark_name, predictor_style
from .tables import LEVELS, most_evaluated, number, out_of, rows_of

LIGHT = "#D9D9D9"
LONGEST_NAME = 12  # of a benchmark, beside its results
AXIS_LABELS = {"pearson": "r, mean over benchmarks", "mae": "mean absolute error, points"}
STRATUM_TITLES = {
    "distance": "nearest scored relative",
    "relation": "closest relation",
    "relatives": "relatives within 2 hops",
}
RELEASE_LABEL = "all relatives known"
LEVEL_NAMES = {
    "parent": "parent of", "sibling": "sibling of", "distant": "more distant",
    "finetune": "finetuned from", "merge": "merged from", "adapter": "adapter of",
    "quantized": "quantized from",
}  # fmt: skip


def zero_shot_comparison(comparison, ceiling=None):
    """Correlation of each predictor's zero-shot forecasts, and the lead of Forecaster over it.

    Parameters
    ----------
    comparison : of `bootstrap`, metric pearson among others
    ceiling : columns benchmark, ceiling; its mean is drawn if given
    """
    frame = comparison[comparison["metric"] == "pearson"].sort_values("value", kind="stable")
    figure, panels = plt.subplots(
        1, 2, figsize=(PAGE, 0.95 + 0.19 * len(frame)), sharey=True, width_ratios=(3, 2)
    )
    _dots(panels[0], frame, "predictor")
    for row, entry in enumerate(frame.itertuples()):
        if entry.predictor != FORECASTER.label:
            bounds = entry.difference_lower, entry.difference_upper
            dot(panels[1], row, entry.difference, *bounds, predictor_style(entry.predictor))
    panels[0].set_xlabel(f"correlation {AXIS_LABELS['pearson']}")
    panels[0].set_xlim(min(-0.03, frame["lower"].min() - 0.03), 1)
    if ceiling is not None and len(ceiling):
        vertical(panels[0], ceiling["ceiling"].mean(), "noise ceiling", ha="right")
    panels[1].axvspan(*CLAIM, color=LIGHT, lw=0, zorder=0)
    panels[1].axvline(0, color=BLACK, lw=0.6)
    panels[1].set(xlabel="lead in r (band: 0.07 to 0.10)")
    return headline(figure, _best_title(frame.set_index("predictor")))


def predicted_against_actual(forecasts, results):
    """Forecast and actual score of each held-out model, with 90% intervals, by benchmark.

    Parameters
    ----------
    forecasts, results : of `evaluate`, one protocol; the first seed is drawn
    """
    own = {"predictor": FORECASTER.label, "seed": forecasts["seed"].min()}
    chosen, scores = rows_of(forecasts, **own), rows_of(results, metric="pearson", **own)
    r = scores.set_index("benchmark")["value"]
    counts = chosen.groupby("benchmark", sort=False).size()
    benchmarks = list(r[most_evaluated(counts)].sort_values(ascending=False).index)
    n_columns = min(3, len(benchmarks))
    n_rows = -(-len(benchmarks) // n_columns)
    figure, panels = plt.subplots(
        n_rows, n_columns, figsize=(PAGE, 0.5 + 2.0 * n_rows), squeeze=False
    )
    for axes in panels.flat[len(benchmarks) :]:
        axes.remove()
    for axes, benchmark in zip(panels.flat, benchmarks, strict=False):
        group = chosen[chosen["benchmark"] == benchmark]
        _scatter_with_intervals(axes, group, predictor_style(FORECASTER.label)["color"])
        inside = (group["lower"] <= group["actual"]) & (group["actual"] <= group["upper"])
        end = ":\n" if len(benchmark_name(benchmark)) > LONGEST_NAME else ": "
        title = f"{benchmark_name(benchmark)}{end}r = {number(r[benchmark], 2)}"
        axes.set_title(f"{title}, {inside.mean():.0%} inside", fontweight="normal")
    figure.supylabel(f"{FORECASTER.label} forecast, points", fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("actual score, points")
    best, worst = r[benchmarks].idxmax(), r[benchmarks].idxmin()
    return headline(
        figure,
        f"Before any answer, {benchmark_name(best)} is forecast best (r = {number(r[best], 2)}) "
        f"and {benchmark_name(worst)} worst ({number(r[worst], 2)}); "
        f"{chosen['model_id'].nunique():,} models{out_of(benchmarks, len(counts))}",
    )


def random_holdout_curve(comparison):
    """Accuracy against the share of cells observed, in the random hold-out.

    Parameters
    ----------
    comparison : of `bootstrap` by density, metrics pearson and mae
    """
    frame = rows_of(comparison, metric="pearson")
    low = frame[frame["density"] == frame["density"].min()].set_index("predictor")["value"]
    baseline = low[_without_lineage(low.index)].idxmax()
    figure, panels = _curves_of_both_metrics(comparison, "density", baseline)
    for axes in panels:
        ticks_at(axes, comparison["density"], write=lambda share: f"{100 * share:g}%")
        axes.set_xlabel("share of the cells that were observed")
    return headline(
        figure,
        f"With {100 * frame['density'].min():g}% observed Forecaster reaches r = "
        f"{number(low[FORECASTER.label], 2)}, the best without lineage {number(low[baseline], 2)} "
        f"({baseline})",
    )


def few_shot_curve(comparison):
    """Accuracy against the number of revealed answers (or benchmarks).

    Parameters
    ----------
    comparison : of `bootstrap` by k, metrics pearson and mae, with a column `unit` that says what
        was revealed
    """
    unit = comparison["unit"].iloc[0]
    r = rows_of(comparison, metric="pearson").pivot(index="k", columns="predictor", values="value")
    baseline, enough = _first_without_lineage(r)
    figure, panels = _curves_of_both_metrics(comparison, "k", baseline)
    for axes in panels:
        ticks_at(axes, comparison["k"], scale="symlog")
        axes.set(xlabel=f"{unit} revealed", xlim=(-0.1, 1.12 * comparison["k"].max()))
    start = f"Forecaster reaches r = {number(r[FORECASTER.label].iloc[0], 2)} before any answer"
    if baseline is None:
        end = f"none without lineage with {r.index.max():g} {unit}"
    else:
        end = f"{baseline} with {enough:g} {unit}"
    return headline(figure, f"{start}, {end}")


def lineage_ablation(strength, variants):
    """What lineage contributes: r by its strength, and with parts of it left out or shuffled.

    Parameters
    ----------
    strength : of `bootstrap` by strength, of LRMF
    variants : of `bootstrap` by variant, the same
    """
    strength = rows_of(strength, metric="pearson", predictor=LRMF.label).sort_values("strength")
    variants = rows_of(variants, metric="pearson", predictor=LRMF.label)
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.3), width_ratios=(4, 3))
    style = predictor_style(LRMF.label)
    band(panels[0], strength, "strength", style["color"])
    panels[0].plot(x := strength["strength"], strength["value"], **style)
    ticks_at(panels[0], x, scale="symlog")
    panels[0].set(xlabel="lineage strength", ylabel=AXIS_LABELS["pearson"])
    panels[0].set_xlim(-0.15, x.max() * 1.3)
    _dots(panels[1], variants[::-1], "variant")
    panels[1].axvline(0, color=BLACK, lw=0.6)
    return headline(figure, _ablation_title(strength, variants.set_index("variant")["value"]))


def ingredient_ablation(ingredients):
    """The forecaster with one ingredient left out at a time: r and mean absolute error.

    Parameters
    ----------
    ingredients : of `bootstrap`, Forecaster and the variants as predictors
    """
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 1.7), sharey=True)
    variants = [name for name in ingredients["predictor"].unique() if name != FORECASTER.label]
    for axes, metric in zip(panels, ("pearson", "mae"), strict=True):
        frame = rows_of(ingredients, metric=metric).set_index("predictor")
        frame = frame.loc[[*variants, FORECASTER.label]].rename({FORECASTER.label: "all of it"})
        frame = frame.rename_axis("name").reset_index().assign(predictor=FORECASTER.label)
        _dots(axes, frame, "name", metric)
    r = rows_of(ingredients, metric="pearson").set_index("predictor")["value"]
    worst = r.drop(FORECASTER.label).idxmin()
    said = "Most is lost" if len(variants) > 1 else FORECASTER.label
    return headline(
        figure,
        f"{said} {worst}: r = {number(r[worst], 2)} instead of {number(r[FORECASTER.label], 2)}",
    )


def error_by_relatives(strata):
    """Mean absolute error by how a model is related to the models trained on.

    Parameters
    ----------
    strata : of `by_stratum`, metric mae among others
    """
    frame = strata[(strata["metric"] == "mae") & strata["predictor"].isin(shown_in(STRATA))]
    looks = {name: predictor_style(name) for name in shown_in(STRATA)}
    figure, panels = _stratum_panels(frame, looks, row_height=0.27)
    panels[0].set_xlim(0, 1.05 * frame[["upper", "value"]].max(axis=None))
    for axes in panels:
        axes.set_xlabel("MAE, points")
    handles, names = panels[0].get_legend_handles_labels()
    texts = [find(name).short_label or name for name in names]
    style = {"ncols": len(looks), "handlelength": 1.2, "columnspacing": 1.2}
    figure.legend(handles, texts, loc="outside lower left", **style)
    of_lrmf = rows_of(frame, predictor=FORECASTER.label)
    return headline(figure, f"Forecaster errs by {_by_distance(of_lrmf)}")


def lineage_gain(strata):
    """By how much lineage lowers the error of Forecaster, by how a model is related to others.

    Mean absolute error without lineage minus that with it, over the same models: paired.

    Parameters
    ----------
    strata : of `by_stratum`, metric mae, of Forecaster and of one predictor "without lineage"
    """
    frame = rows_of(strata, metric="mae", predictor="without lineage")
    lower, upper = -frame["difference_upper"], -frame["difference_lower"]
    frame = frame.assign(value=-frame["difference"], lower=lower, upper=upper)
    looks = {"without lineage": predictor_style(FORECASTER.label)}
    figure, panels = _stratum_panels(frame, looks, row_height=0.17)
    for axes in panels:
        axes.axvline(0, color=BLACK, lw=0.6)
        axes.set_xlabel("MAE saved, points")
    return headline(figure, f"Lineage saves Forecaster {_by_distance(frame)}")


def calibration(bins, intervals):
    """Forecasts against actual scores in groups, and coverage and width of the 90% intervals.

    Parameters
    ----------
    bins : of `calibration_bins`
    intervals : of `evaluate`, metrics coverage and width by k and benchmark, one seed or averaged,
        with a column `unit`
    """
    bins = rows_of(bins, predictor=FORECASTER.label)
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, 2.35))
    color = predictor_style(FORECASTER.label)["color"]
    panels[0].axline((0, 0), slope=1, color=GREY, lw=0.6)
    panels[0].plot(100 * bins["predicted"], 100 * bins["actual"], "o", color=color)
    panels[0].set(xlabel="forecast less mean, points", ylabel="actual less mean, points")
    intervals = rows_of(intervals, predictor=FORECASTER.label)
    single = intervals[~intervals["benchmark"].isin(["all", "average"])]
    shown = most_evaluated(single.groupby("benchmark", sort=False)["n"].max())
    intervals = intervals[intervals["benchmark"].isin([*shown, "all", "average"])]
    extreme = intervals.groupby("metric")["value"].agg(["min", "max"])
    lowest, widest = 100 * extreme["min"]["coverage"] - 2, 1.05 * extreme["max"]["width"]
    panels[1].set(ylabel="actual scores inside, %", ylim=(min(70, lowest), 100))
    panels[1].axhline(90, color=BLACK, lw=0.6, ls="--")
    panels[2].set(ylabel="width of intervals, points", ylim=(0, widest))
    for axes, metric, scale in ((panels[1], "coverage", 100), (panels[2], "width", 1)):
        _lines_by_benchmark(axes, intervals[intervals["metric"] == metric], scale, color)
        axes.set_xlabel(f"{intervals['unit'].iloc[0]} revealed")
    mean = rows_of(intervals, benchmark="all", metric="coverage").set_index("k")["value"]
    return headline(
        figure,
        f"90% intervals cover {100 * mean.iloc[0]:.0f}% of the actual scores before any answer and "
        f"{100 * mean.iloc[-1]:.0f}% after {mean.index[-1]:g} {intervals['unit'].iloc[0]}",
    )


def one_family_or_all(training):
    """LRMF on models of one family, trained on that family only or on all.

    Parameters
    ----------
    training : of `bootstrap` by training
    """
    frame = rows_of(training, metric="pearson", predictor=LRMF.label)
    figure, axes = plt.subplots(figsize=(COLUMN, 1.5))
    _dots(axes, frame[::-1], "training")
    axes.set_ylabel("trained on")
    r = frame.set_index("training")["value"]
    return headline(
        figure,
        f"LRMF: training on all families, not on one, changes r by "
        f"{r['all families'] - r['one family']:+.2f} ({frame['n_models'].max():,} models)",
    )


def later_models(dates):
    """Correlation of each predictor's forecasts of models dated from a cutoff on.

    Parameters
    ----------
    dates : of `bootstrap`, with a column `cutoff`
    """
    frame = rows_of(dates, metric="pearson").sort_values("value", kind="stable")
    figure, axes = plt.subplots(figsize=(COLUMN, 1.05 + 0.2 * len(frame)))
    _dots(axes, frame, "predictor")
    best = frame.iloc[-1]
    return headline(
        figure,
        f"Models from {best['cutoff']} on ({best['n_models']:,}): {best['predictor']} is best "
        f"{_standing(frame.set_index('predictor'))}",
    )


def as_at_release(release):
    """Correlation of each predictor with all relatives known, and as at release.

    Parameters
    ----------
    release : of `bootstrap` by `known`, which is "all relatives" or "as at release"
    """
    frame = rows_of(release, metric="pearson")
    now = rows_of(frame, known="as at release").sort_values("value", kind="stable")
    before = rows_of(frame, known="all relatives").set_index("predictor").loc[now["predictor"]]
    figure, axes = plt.subplots(figsize=(COLUMN, 1.3 + 0.22 * len(now)))
    axes.plot(before["value"], range(len(now)), "o", mfc="none", color=GREY, label=RELEASE_LABEL)
    _dots(axes, now, "predictor")
    axes.set_xlabel(f"{axes.get_xlabel()}\nhollow: {RELEASE_LABEL}")
    r = now.set_index("predictor")["value"]
    return headline(
        figure,
        f"As at release {FORECASTER.label} reaches r = {number(r[FORECASTER.label], 2)}, with all "
        f"relatives known {number(before['value'][FORECASTER.label], 2)} "
        f"({now['n_models'].max():,} models)",
    )


def inside_families(within):
    """Correlation inside the largest families: each family a small dot, their mean a large one.

    Parameters
    ----------
    within : of `within_families`
    """
    frame = rows_of(within, metric="pearson")
    mean = rows_of(frame, family="mean").sort_values("value", kind="stable")
    figure, axes = plt.subplots(figsize=(COLUMN, 1.05 + 0.22 * len(mean)))
    for row, predictor in enumerate(mean["predictor"]):
        single = frame[(frame["predictor"] == predictor) & (frame["family"] != "mean")]
        axes.plot(single["value"], [row - 0.25] * len(single), "|", color=GREY, ms=4)
    _dots(axes, mean, "predictor")
    axes.axvline(0, color=BLACK, lw=0.6)
    r = mean.set_index("predictor")["value"]
    return headline(
        figure,
        f"Inside {mean['n_clusters'].max()} families {FORECASTER.label} reaches a mean r of "
        f"{number(r[FORECASTER.label], 2)}, the best other predictor "
        f"{number(r.drop(FORECASTER.label).max(), 2)} ({r.drop(FORECASTER.label).idxmax()})",
    )


def _dots(axes, frame, names, metric="pearson"):
    """Values of a metric with intervals, a row each from the bottom up, named by a column."""
    for row, entry in enumerate(frame.itertuples()):
        style = predictor_style(entry.predictor)
        dot(axes, row, entry.value, entry.lower, entry.upper, style)
    axes.set_yticks(range(len(frame)), frame[names])
    axes.set(xlabel=AXIS_LABELS[metric], ylim=(-0.6, len(frame) - 0.4))


def _curves_of_both_metrics(comparison, x, baseline):
    """R and error against x: what the registry shows in curves, and the baseline of the title."""
    drawn = comparison[comparison["predictor"].isin([*shown_in(CURVES), baseline])]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.7))
    for axes, metric in zip(panels, ("pearson", "mae"), strict=True):
        curves(axes, drawn[drawn["metric"] == metric], x)
        axes.set_ylabel(AXIS_LABELS[metric])
    return figure, panels


def _scatter_with_intervals(axes, group, color):
    actual, forecast = 100 * group["actual"], 100 * group["predicted"]
    axes.vlines(
        actual, 100 * group["lower"], 100 * group["upper"], color=SKY, lw=0.5, alpha=0.25,
        rasterized=True,
    )  # fmt: skip
    axes.plot(actual, forecast, "o", ms=1.8, mec="none", color=color, rasterized=True)
    low, high = percent_limits(group[["actual", "predicted"]])
    axes.plot([low, high], [low, high], color=BLACK, lw=0.6)
    axes.set(xlim=(low, high), ylim=(low, high))


def _stratum_panels(frame, looks, *, row_height):
    """Values with intervals by level, a panel a stratum; `looks` are the styles by predictor."""
    names = [name for name in STRATUM_TITLES if name in set(frame["stratum"])]
    counts = [frame.loc[frame["stratum"] == name, "level"].nunique() for name in names]
    size = PAGE, 1.4 + row_height * max(counts)
    figure, panels = plt.subplots(1, len(names), figsize=size, sharex=True, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.08)  # titles end with their panel, not with the page
    for axes, name in zip(panels[0], names, strict=True):
        _stratum_panel(axes, frame[frame["stratum"] == name], looks)
        axes.set_title(STRATUM_TITLES[name], fontweight="normal", loc="right")
    return figure, panels[0]


def _stratum_panel(axes, frame, looks):
    levels = [level for level in LEVELS if level in set(frame["level"].astype(str))]
    rows = {level: -row for row, level in enumerate(levels)}
    offsets = np.linspace(0.27, -0.27, len(looks)) if len(looks) > 1 else [0]
    for offset, (name, style) in zip(offsets, looks.items(), strict=True):
        group = frame[frame["predictor"] == name]
        y = [rows[str(level)] + offset for level in group["level"]]
        axes.hlines(y, group["lower"], group["upper"], color=style["color"], lw=0.9)
        marker = "|" if style["marker"] == "_" else style["marker"]
        look = {"marker": marker, "color": style["color"], "ls": "", "ms": 3.6}
        axes.plot(group["value"], y, label=name, **look)
    counts = frame.groupby("level")["n_models"].max()
    counts.index = counts.index.astype(str)
    names = [f"{LEVEL_NAMES.get(level, level)} ({counts[level]:,})" for level in levels]
    axes.set_yticks([rows[level] for level in levels], names)
    axes.set_ylim(-len(levels) + 0.5, 0.5)


def _lines_by_benchmark(axes, frame, scale, color):
    """The mean over benchmarks as a line, the benchmarks as thin ones, short names at their end."""
    ends = {}
    for benchmark, line in frame[frame["benchmark"] != "average"].groupby("benchmark"):
        line = line.sort_values("k")
        name = "mean" if benchmark == "all" else benchmark_name(benchmark)
        look = {"color": GREY, "lw": 0.6}
        if name == "mean":
            look = {"color": color, "lw": 1.6, "marker": "o", "zorder": 3}
        axes.plot(line["k"], scale * line["value"], **look)
        if len(name) <= LONGEST_NAME:
            ends[name] = scale * line["value"].iloc[-1]
    ticks_at(axes, frame["k"], scale="symlog")
    colors = dict.fromkeys(ends, GREY) | {"mean": color}
    label_ends(axes, ends, frame["k"].max(), colors=colors)


def _best_title(frame) -> str:
    best = frame["value"].idxmax()
    return f"{best} ranks held-out models best {_standing(frame)}"


def _standing(frame) -> str:
    """The highest r, and whether it is surely ahead of Forecaster, or of the best baseline."""
    best, own = frame["value"].idxmax(), FORECASTER.label
    r = {name: number(frame.loc[name, "value"], 2) for name in frame.index}
    other, sure = own, frame.loc[best, "difference_upper"] < 0
    if best == own:
        baselines = frame["value"][baselines_among(frame.index)]
        if baselines.empty:
            return f"(r = {r[own]})"
        other = baselines.idxmax()
        sure = frame.loc[other, "difference_lower"] > 0
    verdict = "ahead of" if sure else "not surely ahead of"
    return f"(r = {r[best]}), {verdict} {other} ({r[other]})"


def _without_lineage(names) -> list[str]:
    """The predictors among these that do not read lineage."""
    return [name for name in labels(lambda entry: not entry.reads_lineage) if name in set(names)]


def _first_without_lineage(r) -> tuple:
    """The predictor without lineage that first reaches the zero-shot r of Forecaster, and its k."""
    best = r[_without_lineage(r.columns)]
    enough = r.index[best.max(axis=1) >= r[FORECASTER.label].iloc[0]]
    return (best.loc[enough[0]].idxmax(), enough[0]) if len(enough) else (None, None)


def _ablation_title(strength, variants) -> str:
    values = strength.set_index("strength")["value"]
    title = (
        f"LRMF: r is {number(values.iloc[0], 2)} without lineage and at most "
        f"{number(values.max(), 2)} with it (strength {values.idxmax():g})"
    )
    shuffled = variants.get("shuffled lineage")
    return title if shuffled is None else f"{title}; shuffled lineage gives {number(shuffled, 2)}"


def _by_distance(frame) -> str:
    rows = rows_of(frame, stratum="distance").set_index("level")
    said = []
    for level in filter(rows.index.__contains__, LEVELS):
        value, lower, upper = rows.loc[level, ["value", "lower", "upper"]]
        unsure = " (the interval includes 0)" if lower <= 0 <= upper else ""
        said.append(f"{number(value, 1)} points at {level}{unsure}")
    return " and ".join(said)
