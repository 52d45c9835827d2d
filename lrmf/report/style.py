"""How figures look and where they go: one style, one look for each predictor, one way to save."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import Formatter, LogFormatterMathtext

from ..baselines.registry import find
from ..files import output

SIMULATED = "Simulated"  # how the label of made-up data begins
COLUMN, PAGE = 3.35, 6.9  # inches: one column and the full width of the paper

# Okabe and Ito (2008); every colour comes with a marker and a line of its own.
PALETTE = {
    "blue": "#0072B2", "vermillion": "#D55E00", "green": "#009E73", "purple": "#CC79A7",
    "orange": "#E69F00", "sky": "#56B4E9", "black": "#000000", "grey": "#767676",
}  # fmt: skip
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY = PALETTE.values()
RELATIONS = {
    "finetune": {"color": BLUE, "linestyle": "-"},
    "merge": {"color": VERMILLION, "linestyle": "--"},
    "adapter": {"color": GREEN, "linestyle": "-."},
    "quantized": {"color": PURPLE, "linestyle": ":"},
}
BENCHMARKS = {
    "arc": "ARC", "gsm8k": "GSM8K", "hellaswag": "HellaSwag", "truthfulqa": "TruthfulQA",
    "winogrande": "Winogrande", "ifeval": "IFEval", "bbh": "BBH", "math": "MATH", "gpqa": "GPQA",
    "musr": "MuSR", "mmlu_pro": "MMLU-Pro",
}  # fmt: skip


def use_style():
    """Apply `lrmf.mplstyle` to all figures that follow."""
    plt.style.use(Path(__file__).with_name("lrmf.mplstyle"))


def predictor_style(name):
    """Colour, marker and line of a predictor by its registry entry; unknown names are grey."""
    entry = find(name)
    color = PALETTE[entry.color]
    return {"color": color, "marker": entry.marker, "linestyle": entry.linestyle}


def benchmark_name(benchmark):
    """What the papers call a benchmark; others keep their name."""
    return BENCHMARKS.get(benchmark, benchmark)


def data_label(snapshot):
    """What data a figure shows, in one line: 'Simulated: 2,934 models, 21,606 items'."""
    source = SIMULATED if snapshot.source == "simulated" else snapshot.name
    return f"{source}: {snapshot.n_models:,} models, {snapshot.n_items:,} items"


def note_data(figure, label):
    """Write the data label small at the bottom right of a figure."""
    figure.supxlabel(label, x=0.995, ha="right", fontsize=7, color=GREY)
    _label_in_plain_text(figure)


class _PlainPowers(Formatter):
    """Another formatter's labels without formulas: 10⁻² instead of TeX."""

    _RAISED = str.maketrans("-−0123456789.", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹·")

    def __init__(self, formatter):
        self.set_locs, self._label = formatter.set_locs, formatter

    def __call__(self, x, pos=None):
        text = self._label(x, pos).replace(r"\times", "×").replace(r"\mathdefault", "")
        base, _, power = text.strip("$").replace("{", "").replace("}", "").partition("^")
        return base + power.translate(self._RAISED)


def _label_in_plain_text(figure):
    """Label logarithmic axes without formulas: in all text, a dollar sign is a dollar sign."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for which in ("major", "minor"):
                formatter = getattr(axis, f"get_{which}_formatter")()
                if isinstance(formatter, LogFormatterMathtext):
                    getattr(axis, f"set_{which}_formatter")(_PlainPowers(formatter))


def save_figure(figure, frame, name, *, folder):
    """Write `name`.pdf, .png and the numbers behind it, .csv; the same input gives the same bytes.

    Parameters
    ----------
    figure : matplotlib Figure
    frame : DataFrame, what the figure shows; None writes no CSV
    name : str
    folder : path, created if need be

    Returns
    -------
    Path of the PDF
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _label_in_plain_text(figure)
    writers = {
        ".csv": lambda file: frame.to_csv(file, mode="wb", index=False, float_format="%.6g"),
        ".png": lambda file: figure.savefig(file, format="png", metadata={"Software": None}),
        ".pdf": lambda file: figure.savefig(file, format="pdf", metadata={"CreationDate": None}),
    }
    if frame is None:
        del writers[".csv"]
    for suffix, write in writers.items():
        with output(folder / f"{name}{suffix}") as file:
            write(file)
    return folder / f"{name}.pdf"
