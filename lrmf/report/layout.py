"""What the figures share: titles, dots with intervals, labelled lines, drawing and saving."""

from functools import lru_cache

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import NullLocator

from ..baselines.registry import FORECASTER, find
from .style import GREY, SIMULATED, note_data, predictor_style, save_figure
from .tables import order_predictors, skip

NAMES = ["model_id", "child"]
LAYOUT_DPI = 90  # at which text is measured


def draw(plot, *frames, name, label, folder, data=None, single_models=False, **options):
    """Draw a figure, save it with the numbers behind it, and print its finding, n and data.

    A notebook shows it, too. If a frame is empty, one printed line says so. Names of models that
    the figure does not show are left out of the CSV. A frame with scores of single models is saved
    for simulated data only: it would repeat part of a real snapshot.

    Parameters
    ----------
    plot : callable
        Makes the figure from the frames and the other options.
    name : str
        Of the files.
    label : str
        Which data the figure shows.
    folder : path
    data : DataFrame, optional
        What goes into the CSV; the first frame by default.
    single_models : bool
        Whether that holds scores of single models.
    """
    if any(frame.empty for frame in frames):
        return skip(name, (".pdf", ".png", ".csv"), folder=folder)
    figure = plot(*frames, **options)
    note_data(figure, label)
    _lay_out(figure)
    frame = frames[0] if data is None else data
    numbers = frame.drop(columns=NAMES, errors="ignore")
    if single_models and not label.startswith(SIMULATED):
        numbers = None
    save_figure(figure, numbers, name, folder=folder)
    finding = " ".join(figure.get_suptitle().split())
    print(f"{name}: {finding}.\n{label}{_sample_size(frame)}.")


def _lay_out(figure):
    """Place everything once for PDF, PNG and screen, whatever the resolution of the screen."""
    if engine := figure.get_layout_engine():
        screen_dpi = figure.get_dpi()
        figure.set_dpi(LAYOUT_DPI)
        engine.execute(figure)
        figure.set_layout_engine("none")
        figure.set_dpi(screen_dpi)


def _sample_size(frame) -> str:
    if "level" in frame:  # every level has its own
        return ""
    if "n_models" in frame and "n_clusters" in frame:
        largest = frame.sort_values("n_models").dropna(subset=["n_models"]).iloc[-1]
        n_models, n_clusters = int(largest["n_models"]), int(largest["n_clusters"])
        families = f" of {n_clusters:,} families" if n_clusters < n_models else ""
        return f"; n = {n_models:,} models{families}"
    if "model_id" in frame and frame["model_id"].nunique() > 1:
        return f"; n = {frame['model_id'].nunique():,} models"
    return ""


def headline(figure, text):
    """Write the finding above all panels, in as many lines as it needs; return the figure."""
    room = 72 * figure.get_figwidth() - 9
    lines = _wrapped(text, room)
    for share in np.arange(0.95, 0.5, -0.05):
        narrower = _wrapped(text, share * room)
        if len(narrower) > len(lines):
            break
        lines = narrower
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8, fontweight="bold")
    return figure


def _wrapped(text, room):
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, 8, weight="bold") > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache(maxsize=2048)
def text_width(text, size, **font):
    """Width of a line of text, in points."""
    font = FontProperties(size=size, **font)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def dot(axes, row, value, lower, upper, style):
    """A value with its interval, in a row."""
    axes.plot([lower, upper], [row, row], color=style["color"], lw=1)
    if style["marker"] == "_":  # would vanish in a horizontal line
        style = style | {"marker": "|"}
    face = style.get("mfc", style["color"])
    axes.plot(value, row, color=style["color"], mfc=face, ls="", ms=5, marker=style["marker"])


def vertical(axes, x, text, *, ha):
    """A dashed line across, named at its foot."""
    axes.axvline(x, color=GREY, lw=0.8, ls="--")
    offset = (-2, 2) if ha == "right" else (2, 2)
    axes.annotate(
        text, (x, 0), xycoords=("data", "axes fraction"), xytext=offset, color=GREY,
        textcoords="offset points", fontsize=7, ha=ha, va="bottom",
    )  # fmt: skip


def curves(axes, frame, x):
    """One line a predictor with its name at the end; the interval of Forecaster as a band.

    A predictor with a single value is one that does not depend on x.
    """
    ends = {}
    for name in order_predictors(frame["predictor"])[::-1]:
        line = frame[frame["predictor"] == name].sort_values(x)
        style = predictor_style(name)
        if name == FORECASTER.label:
            band(axes, line, x, style["color"])
        if len(line) > 1:
            axes.plot(line[x], line["value"], label=name, **style)
        else:
            axes.axhline(line["value"].iloc[0], **(style | {"marker": ""}))
        ends[name] = line["value"].iloc[-1]
    label_ends(axes, ends, frame[x].max(), colors={n: predictor_style(n)["color"] for n in ends})


def band(axes, line, x, color):
    """The interval around a line."""
    axes.fill_between(line[x], line["lower"], line["upper"], color=color, alpha=0.15, lw=0)


def label_ends(axes, ends, x, *, colors, size=7):
    """Names at the right end of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 1.17 * size / 72 / (0.62 * axes.figure.get_figheight()) * (high - low)
    names = sorted(ends, key=ends.get)
    places = np.array([ends[name] for name in names])
    for _ in range(200):
        overlap = np.maximum(0, gap - np.diff(places))
        places[1:] += overlap / 2
        places[:-1] -= overlap / 2
    places -= max(0, places[-1] - high)
    for name, place in zip(names, places + max(0, low - places[0]), strict=True):
        axes.annotate(
            find(name).short_label or name, (x, ends[name]), xytext=(1.08, place), va="center",
            fontsize=size, annotation_clip=False, textcoords=axes.get_yaxis_transform(),
            color=colors[name],
            arrowprops={
                "arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip
    axes.set_ylim(low, high)


def ticks_at(axes, values, *, scale="log", write="{:g}".format):
    """A logarithmic x axis with ticks at these values; "symlog" holds zero, too."""
    values = sorted(set(values))
    axes.set_xscale(scale, **({"linthresh": 1, "linscale": 0.5} if scale == "symlog" else {}))
    axes.set_xticks(values, map(write, values))
    axes.xaxis.set_minor_locator(NullLocator())


def percent_limits(frame):
    """Limits of an axis in percent that shows all these shares, within 0 and 100."""
    values = 100 * frame.to_numpy()
    margin = 0.04 * np.ptp(values) + 0.5
    return max(0, values.min() - margin), min(100, values.max() + margin)
