"""What each source of knowledge is worth: zero-shot r, from nothing to everything, by run."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..baselines.registry import BOOSTING, FORECASTER, LRMF, MULTI_HOP
from .layout import dot, headline
from .style import GREY, PAGE, predictor_style
from .tables import number

SOURCES = {  # predictor: what it reads of a model without answers, and how it forecasts
    "item mean": ("nothing", "benchmark mean"),
    "boosting on features": ("card", "boosted trees"),
    MULTI_HOP.label: ("tree", "lineage average"),
    LRMF.label: ("tree, card", "LRMF"),
    "without lineage": ("card, name", FORECASTER.label),
    "without cards": ("tree, name", FORECASTER.label),
    "without names": ("tree, card", FORECASTER.label),
    BOOSTING.label: ("tree, card, name", "boosted trees"),
    FORECASTER.label: ("tree, card, name", FORECASTER.label),
}
SINGLE = ("card", "tree")
CEILING = "noise ceiling"


def knowledge(zero_shot, ingredients, ceiling) -> pd.DataFrame:
    """One run's zero-shot r by what a forecast reads; the noise ceiling last.

    Parameters
    ----------
    zero_shot, ingredients : of `bootstrap`, Forecaster with and without an ingredient in the second
    ceiling : float, mean noise ceiling

    Returns
    -------
    DataFrame : reads, forecast_by, predictor, value, lower, upper, n_models; an ablation that was
        measured on other models than the rest is left out.
    """
    frame = pd.concat([zero_shot, ingredients]).drop_duplicates(["predictor", "metric"])
    frame = frame[frame["metric"] == "pearson"].set_index("predictor")
    frame = frame[frame["n_models"] == frame.loc[FORECASTER.label, "n_models"]]
    rows = [
        (*SOURCES[name], name, *frame.loc[name, ["value", "lower", "upper", "n_models"]])
        for name in SOURCES
        if name in frame.index
    ]
    n_models = frame.loc[FORECASTER.label, "n_models"]
    rows.append((CEILING, "", CEILING, ceiling, np.nan, np.nan, n_models))
    columns = ["reads", "forecast_by", "predictor", "value", "lower", "upper", "n_models"]
    return pd.DataFrame(rows, columns=columns).astype({"n_models": int})


def knowledge_figure(frames: Mapping[str, pd.DataFrame]):
    """Zero-shot r by what a forecast reads, a panel a run.

    Parameters
    ----------
    frames : of `knowledge`, by the title of the run
    """
    known = set(pd.concat(frames.values())["predictor"])
    shown = [name for name in SOURCES if name in known] + [CEILING]
    place = {name: -row for row, name in enumerate(shown)}
    figure, panels = plt.subplots(
        1, len(frames), figsize=(PAGE, 0.75 + 0.175 * len(shown)), sharey=True, squeeze=False
    )
    for axes, (title, frame) in zip(panels[0], frames.items(), strict=True):
        _panel(axes, frame.set_index("predictor"), place)
        axes.set_title(f"{title} ({frame['n_models'].iloc[0]:,})", fontweight="normal")
        axes.set(xlim=(-0.03, 1.02), xlabel="mean r")
    labels = [": ".join(SOURCES.get(name, [name])) for name in shown]
    panels[0, 0].set_yticks(list(place.values()), labels)
    panels[0, 0].set_ylim(0.6 - len(shown), 0.6)
    figure.get_layout_engine().set(w_pad=0.12)
    return headline(figure, _finding(frames))


def _panel(axes, frame, place):
    """Values with intervals, their numbers at the right, the noise ceiling as a line."""
    axes.axvline(frame.loc[CEILING, "value"], color=GREY, lw=0.8, ls="--")
    for name, row in place.items():
        if name not in frame.index:
            continue
        value, lower, upper = frame.loc[name, ["value", "lower", "upper"]]
        style = predictor_style(name)
        if name.startswith("without"):
            style = predictor_style(FORECASTER.label) | {"mfc": "white"}
        if name != CEILING:
            dot(axes, row, value, lower, upper, style)
        axes.annotate(
            number(value, 2), (1.04, row), xycoords=axes.get_yaxis_transform(), va="center",
            fontsize=7, fontweight="bold" if name == FORECASTER.label else "normal",
            annotation_clip=False,
        )  # fmt: skip


def _finding(frames) -> str:
    single, both = [], []
    for frame in frames.values():
        single.append(number(frame.loc[frame["reads"].isin(SINGLE), "value"].max(), 2))
        both.append(number(frame.set_index("predictor").loc[FORECASTER.label, "value"], 2))
    return (
        f"Card or tree alone forecast unseen models at r = {', '.join(single)} at best; "
        f"card, tree and name together, by Forecaster, at {', '.join(both)}"
    )
