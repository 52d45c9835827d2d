"""Figure about answers: how well few of them forecast, chosen and at random."""

import matplotlib.pyplot as plt
import numpy as np

from .layout import headline, label_ends, ticks_at
from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PAGE, PURPLE, SKY, VERMILLION

_LOOKS = (
    {"color": VERMILLION, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": BLUE, "marker": "^", "linestyle": "-"},
    {"color": GREEN, "marker": "D", "linestyle": "-."},
    {"color": PURPLE, "marker": "v", "linestyle": ":"},
    {"color": SKY, "marker": "x", "linestyle": "--"},
    {"color": BLACK, "marker": "+", "linestyle": "-"},
)


def chosen_answers(frame, *, finding):
    """Error and interval width of benchmark scores against the number of answers, by strategy.

    Parameters
    ----------
    frame : of `lrmf.decide.chosen.chosen_answers`
    finding : str, the title
    """
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.9), width_ratios=(3, 2))
    strategies = list(frame["strategy"].unique())
    looks = dict(zip(strategies, _LOOKS, strict=False))
    numbers = np.sort(frame["n_answers"].unique())
    for axes, column in zip(panels, ("mae", "width"), strict=True):
        ends = {}
        for strategy in strategies:
            line = frame[frame["strategy"] == strategy].sort_values("n_answers")
            if line[column].notna().all():
                axes.plot(line["n_answers"], line[column], **looks[strategy])
                ends[strategy] = line[column].iloc[-1]
        ticks_at(axes, numbers)
        axes.set(xlabel="answers", xlim=(0.9 * numbers[0], 1.1 * numbers[-1]), ylim=(0, None))
        if column == "mae":
            colors = {name: looks[name]["color"] for name in ends}
            label_ends(axes, ends, numbers[-1], colors=colors)
    coverage = frame.dropna(subset=["coverage"]).groupby("strategy", sort=False)["coverage"]
    low, high = (f"{100 * share:.0f}" for share in (coverage.min().min(), coverage.max().max()))
    panels[0].set_ylabel("mean absolute error, points")
    panels[1].set_ylabel("width of 90% intervals, points")
    panels[1].annotate(
        f"they cover {low} to {high}%", (0.98, 0.97), xycoords="axes fraction", ha="right",
        va="top", fontsize=7, color=GREY,
    )  # fmt: skip
    return headline(figure, f"{finding} ({int(frame['n_models'].max()):,} models)")
