r"""Tables of the paper: tidy frames in, frames of text out, written as LaTeX and CSV.

Numbers that the text quotes become macros (``\newcommand``), so nothing is typed by hand. Equal
input gives equal bytes.
"""

import re
from pathlib import Path

import pandas as pd

from ..baselines.registry import FORECASTER, STRATA, labels, shown_in
from ..evaluation.bootstrap import verdict
from ..evaluation.evaluate import DISTANCES, RELATIVES
from ..files import write_text

DECIMALS = {
    "pearson": 2, "spearman": 2, "mae": 1, "bias": 1, "log_loss": 3, "brier": 3, "auc": 3,
    "coverage": 2, "width": 1, "interval_score": 1, "tau": 2, "regret": 2, "r": 2, "shift": 1,
}  # fmt: skip
HEADINGS = {
    "pearson": "r", "spearman": "Spearman", "mae": "MAE", "bias": "bias", "log_loss": "log-loss",
    "brier": "Brier", "auc": "AUC", "coverage": "coverage", "width": "width",
}  # fmt: skip
NONE = "-"
VALUE, LEAD = ["value", "lower", "upper"], ["difference", "difference_lower", "difference_upper"]
MOST_BENCHMARKS = 10  # shown one by one
LEVELS = [*DISTANCES, "finetune", "merge", "adapter", "quantized", "parent", "sibling", "distant"]
LEVELS += [*RELATIVES, "none"]
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_DIGITS = dict(enumerate("Zero One Two Three Four Five Six Seven Eight Nine".split()))


def accuracy_table(
    results: pd.DataFrame, comparison: pd.DataFrame, spread: pd.DataFrame
) -> pd.DataFrame:
    """One row a predictor: r with its interval and its spread, and the other metrics.

    Parameters
    ----------
    results : of `evaluate`, one protocol and one label; averaged over seeds.
    comparison : of `bootstrap`, for the interval of r.
    spread : of `spread_over_folds`.
    """
    if results.empty:
        return pd.DataFrame()
    means = results.groupby(["predictor", "benchmark", "metric"])["value"].mean()
    deviations = spread.set_index(["predictor", "benchmark", "metric"])["sd"]
    r = _wide(rows_of(comparison, metric="pearson"), "predictor", "metric")["pearson"]
    rows = {}
    for name in order_predictors(r.index):
        row = {"r [95% interval]": r[name]}
        row["sd over folds"] = number(deviations.get((name, "all", "pearson")), 2)
        row["r of average"] = number(means.get((name, "average", "pearson")), 2)
        for metric in ("spearman", "mae", "log_loss", "brier", "auc"):
            row[HEADINGS[metric]] = number(means.get((name, "all", metric)), DECIMALS[metric])
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")
    return table.loc[:, (table != NONE).any()]


def difference_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """The Forecaster minus every other predictor, with intervals; one column a metric."""
    if comparison.empty:
        return pd.DataFrame()
    others = comparison[comparison["predictor"] != FORECASTER.label]
    table = _wide(others, "predictor", "metric", LEAD).rename(columns=HEADINGS)
    table.columns += f": {FORECASTER.label} minus it"
    return table.loc[order_predictors(table.index)]


def benchmark_table(results: pd.DataFrame, *, ceiling: pd.DataFrame | None = None) -> pd.DataFrame:
    """R by predictor and benchmark, the mean over all benchmarks last.

    Of more than ten benchmarks those with most models have a column. Below, the ceiling, if given,
    and of how many models.

    Parameters
    ----------
    results : of `evaluate`, one protocol and one label; averaged over seeds.
    ceiling : columns benchmark, ceiling; its order of benchmarks is kept.
    """
    if results.empty:
        return pd.DataFrame()
    chosen = results[(results["metric"] == "pearson") & (results["benchmark"] != "average")]
    means = chosen.groupby(["predictor", "benchmark"], sort=False)["value"].mean()
    benchmarks = [name for name in chosen["benchmark"].unique() if name != "all"]
    if has_ceiling := ceiling is not None and not ceiling.empty:
        benchmarks = [name for name in ceiling["benchmark"] if name in benchmarks]
    wide = means.unstack().reindex(columns=[*benchmarks, "all"]).rename(columns={"all": "mean"})
    wide = wide.reindex(order_predictors(wide.index))
    if has_ceiling:
        limits = ceiling.set_index("benchmark")["ceiling"].reindex(benchmarks)
        wide.loc["noise ceiling"] = [*limits, limits.mean()]
    text = wide.map(number, decimals=2)
    counts = chosen.groupby("benchmark")["n"].max()[benchmarks]
    text.loc["models"] = [*counts.map("{:,.0f}".format), NONE]
    text = text[[*most_evaluated(counts), "mean"]]
    return text.rename_axis("predictor").rename_axis(columns=None)


def curve_table(comparison: pd.DataFrame, label: str) -> pd.DataFrame:
    """R by predictor and value of a label (k, density, ...)."""
    if comparison.empty:
        return pd.DataFrame()
    wide = rows_of(comparison, metric="pearson").pivot(
        index="predictor", columns=label, values="value"
    )
    wide = wide.reindex(order_predictors(wide.index))
    wide.columns = [f"{value:g}" if not isinstance(value, str) else value for value in wide]
    return wide.map(number, decimals=2)


def interval_table(
    comparison: pd.DataFrame, rows: str, *, metrics=("pearson", "mae")
) -> pd.DataFrame:
    """Metrics with their intervals, one row a value of the column `rows`."""
    if comparison.empty:
        return pd.DataFrame()
    return _wide(comparison, rows, "metric")[list(metrics)].rename(columns=HEADINGS)


def release_table(release: pd.DataFrame) -> pd.DataFrame:
    """R and MAE of each predictor with all relatives known and as at release, with intervals.

    Parameters
    ----------
    release : of `bootstrap` by `known`
    """
    if release.empty:
        return pd.DataFrame()
    parts = [
        interval_table(group, "predictor").add_suffix(f", {known}")
        for known, group in release.groupby("known", sort=False)
    ]
    table = pd.concat(parts, axis=1).rename_axis("predictor")
    columns = [name for metric in ("r", "MAE") for name in table if name.startswith(metric)]
    return table.loc[order_predictors(table.index), columns]


def family_table(within: pd.DataFrame) -> pd.DataFrame:
    """R of each predictor inside each family, with its interval; the mean last.

    Parameters
    ----------
    within : of `within_families`
    """
    if within.empty:
        return pd.DataFrame()
    chosen = rows_of(within, metric="pearson")
    is_mean = chosen["family"] == "mean"
    names = ("family " + chosen["family"].astype(str)).mask(is_mean, "mean")
    return _wide_with_counts(
        chosen.assign(family=names), "family", order_predictors(chosen["predictor"])
    )


def claim_table(claim: pd.DataFrame) -> pd.DataFrame:
    """The lead in r of each method over each baseline, by setting, and the verdict of `leads`."""
    if claim.empty:
        return pd.DataFrame()
    columns = {"reference": "method", "predictor": "baseline"}
    table = claim.rename(columns=columns).assign(lead=_texts(claim, LEAD))
    return table.set_index("setting")[["method", "baseline", "lead", "verdict"]]


def estimate(
    comparison: pd.DataFrame, metric: str = "pearson", *, predictor: str = FORECASTER.label, **where
) -> str:
    """'0.73 [0.70, 0.76]': a metric of one predictor, where other columns have these values.

    Parameters
    ----------
    comparison : of `bootstrap`
    """
    return _texts(_one_row(comparison, metric=metric, predictor=predictor, **where))[0]


def lead(comparison: pd.DataFrame, predictor: str, *, metric: str = "pearson", **where) -> str:
    """'0.03 [0.01, 0.05] (better)': the reference minus a predictor, and the verdict.

    Parameters
    ----------
    comparison : of `bootstrap`
    """
    row = _one_row(comparison, metric=metric, predictor=predictor, **where)
    _, lower, upper = row[LEAD].iloc[0]
    said = "no interval"
    if pd.notna(lower):
        sign = 1 if metric in ("pearson", "spearman", "auc") else -1
        said = verdict(*sorted((sign * lower, sign * upper)))
    return f"{_texts(row, LEAD)[0]} ({said})"


def _one_row(comparison, **where):
    chosen = rows_of(comparison, **where)
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen)} rows of the comparison have {where}; expected one")
    return chosen


def _texts(frame, columns=VALUE):
    """Values of these columns with their intervals, to the decimals of each row's metric."""
    rows = frame[[*columns, "metric"]].itertuples(index=False)
    return [interval(*bounds, DECIMALS[metric]) for *bounds, metric in rows]


def _wide(frame, rows, columns, values=VALUE):
    """Values with intervals by two columns, both in order of appearance."""
    text = frame.assign(text=_texts(frame, values)).pivot(index=rows, columns=columns)["text"]
    # `pivot` sorts; the order of the frame says more.
    text = text.reindex(index=frame[rows].unique(), columns=frame[columns].unique())
    return text.rename_axis(columns=None)


def _wide_with_counts(frame, rows, predictors):
    """Values with intervals by row and predictor, after the number of models of the row."""
    table = _wide(frame, rows, "predictor").reindex(columns=predictors)
    table = table.astype(object).fillna(NONE)
    counts = frame.groupby(rows)["n_models"].first().map("{:,}".format)
    table.insert(0, "models", counts)
    return table


def _groups(strata, predictors):
    """Rows about MAE and some predictors, in the order of `LEVELS`, with a column `group`."""
    chosen = strata[(strata["metric"] == "mae") & strata["predictor"].isin(predictors)]
    chosen = chosen.sort_values("level", key=_place, kind="stable")
    return chosen.assign(group=chosen["stratum"] + ": " + chosen["level"].astype(str))


def _place(levels):
    return levels.astype(str).map(LEVELS.index)


def stratum_table(strata: pd.DataFrame) -> pd.DataFrame:
    """MAE with its interval by stratum and predictor, and the number of models.

    Parameters
    ----------
    strata : of `by_stratum`
    """
    if strata.empty:
        return pd.DataFrame()
    return _wide_with_counts(_groups(strata, shown_in(STRATA)), "group", shown_in(STRATA))


def gain_table(strata: pd.DataFrame, without: str) -> pd.DataFrame:
    """What the Forecaster gains over itself without something, by stratum: MAE with intervals.

    Parameters
    ----------
    strata : of `by_stratum`
    without : name of that predictor
    """
    if strata.empty:
        return pd.DataFrame()
    chosen = _groups(strata, [without])
    columns = {
        "models": chosen["n_models"].map("{:,}".format),
        f"MAE {without}": chosen["value"].map(number, decimals=DECIMALS["mae"]),
        f"MAE: {FORECASTER.label} minus {without}": _texts(chosen, LEAD),
    }
    return pd.DataFrame(columns).set_index(chosen["group"])


def metric_table(results: pd.DataFrame, predictor: str, metrics) -> pd.DataFrame:
    """Metrics of one predictor by benchmark, averaged over seeds; then *all* and *average*.

    Of more than ten benchmarks those with most models have a row.

    Parameters
    ----------
    results : of `evaluate`, one protocol and one label
    """
    if results.empty:
        return pd.DataFrame()
    own = results[(results["predictor"] == predictor) & results["metric"].isin(metrics)]
    last = ["all", "average"]
    counts = own[~own["benchmark"].isin(last)].groupby("benchmark", sort=False)["n"].max()
    own = own[own["benchmark"].isin([*most_evaluated(counts), *last])]
    wide = own.groupby(["benchmark", "metric"], sort=False)["value"].mean().unstack()
    last = [name for name in last if name in wide.index]
    wide = wide.reindex([*wide.index.drop(last), *last])[list(metrics)]
    return _rounded(wide).rename(columns=HEADINGS)


def choices_table(choices: pd.DataFrame) -> pd.DataFrame:
    """Values that predictors chose, the most frequent first, with the number of fits.

    Parameters
    ----------
    choices : of `evaluate.choices`
    """
    if choices.empty:
        return pd.DataFrame()
    rows = []
    for name in order_predictors(choices["predictor"]):
        own = choices[choices["predictor"] == name]
        for parameter, values in own.groupby("parameter", sort=False)["value"]:
            counts = values.value_counts(sort=False).sort_values(ascending=False, kind="stable")
            chosen = ", ".join(f"{value} ({n})" for value, n in counts.items())
            rows.append((name, parameter, chosen))
    frame = pd.DataFrame(rows, columns=["predictor", "parameter", "chosen (fits)"])
    return frame.set_index("predictor")


def covariance_table(covariance: pd.DataFrame) -> pd.DataFrame:
    """Parameters of the Forecaster's covariance before and after learning, to one digit.

    Further digits depend on the machine: where the likelihood is flat, rounding errors decide where
    learning stops.

    Parameters
    ----------
    covariance : parameter, default, learned
    """
    if covariance.empty:
        return pd.DataFrame()
    table = covariance.set_index("parameter")[["default", "learned"]]
    return table.map(lambda value: f"{value:.1g}")


def card_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and intervals of the Forecaster by what cards say; errors in points.

    Parameters
    ----------
    summary : of `incomplete_cards`
    """
    if summary.empty:
        return pd.DataFrame()
    own = rows_of(summary, predictor=FORECASTER.label).set_index("variant").rename_axis("card")
    table = _rounded(own[["r", "mae", "shift", "coverage", "width"]])
    return table.rename(columns={"mae": "MAE", "shift": "mean shift"})


def quality_table(intervals: pd.DataFrame) -> pd.DataFrame:
    """Coverage, width and score of intervals by k, averaged over benchmarks."""
    if intervals.empty:
        return pd.DataFrame()
    return _rounded(
        rows_of(intervals, benchmark="all").pivot(index="k", columns="metric", values="value")
    )


def _rounded(frame):
    """Text of the metrics that are its columns."""
    text = {name: frame[name].map(number, decimals=DECIMALS[name]) for name in frame}
    return pd.DataFrame(text, index=frame.index)


def rows_of(frame, **wanted):
    """The rows whose columns have the wanted values."""
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def most_evaluated(counts: pd.Series) -> list[str]:
    """The ten benchmarks with most models, in the order given; all if there are no more.

    Parameters
    ----------
    counts : number of models by benchmark
    """
    kept = counts.nlargest(MOST_BENCHMARKS).index
    return [name for name in counts.index if name in kept]


def out_of(shown, known) -> str:
    """' (10 of 347 benchmarks)' where only some are shown."""
    return f" ({len(shown)} of {known} benchmarks)" if len(shown) < known else ""


def order_predictors(names) -> list[str]:
    """Predictors in the order of the registry, unknown ones last."""
    known = [name for name in labels() if name in set(names)]
    return list(dict.fromkeys([*known, *names]))


def number(value, decimals: int) -> str:
    """Rounded text; a dash for what is unknown, never a negative zero."""
    if value is None or pd.isna(value):
        return NONE
    return f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def interval(value, lower, upper, decimals: int) -> str:
    """'0.73 [0.70, 0.76]', or only the value where the bounds are unknown.

    A bound that is rounded to zero from below keeps its sign, -0.00: zero is inside then.
    """
    if pd.isna(value) or pd.isna(lower) or pd.isna(upper):
        return number(value, decimals)
    return f"{number(value, decimals)} {_bounds(lower, upper, decimals)}"


def _bounds(lower, upper, decimals) -> str:
    bounds = (f"{round(float(bound), 6) + 0.0:.{decimals}f}" for bound in (lower, upper))
    return f"[{', '.join(bounds)}]"


def escape(text) -> str:
    """Text with LaTeX's special characters escaped, numbers with a proper minus sign."""
    text = "".join(_LATEX.get(letter, letter) for letter in str(text))
    return re.sub(r"(?<![\w.\\}])-(?=\d)", "$-$", text)


def to_latex(frame: pd.DataFrame, *, note: str = "") -> str:
    """A booktabs tabular: the index left, the columns right-aligned, the note as a comment."""
    table = frame.rename_axis(frame.index.name or "").reset_index().map(escape)
    table.columns = map(escape, table.columns)
    comment = "".join(f"% {line}\n" for line in note.splitlines())
    columns = "l" + "r" * len(frame.columns)
    return comment + table.style.hide(axis="index").to_latex(hrules=True, column_format=columns)


def write_table(frame: pd.DataFrame, name: str, *, folder, note: str = "") -> Path | None:
    """Write `name`.tex (booktabs) and `name`.csv; nothing, and one printed line, if it is empty.

    Returns the path of the LaTeX file, or None.
    """
    if frame.empty:
        return skip(name, (".csv", ".tex"), folder=folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.csv", frame.to_csv())
    write_text(folder / f"{name}.tex", to_latex(frame, note=note))
    return folder / f"{name}.tex"


def skip(name: str, suffixes: tuple[str, ...], *, folder) -> None:
    """Say that there are no results of this name, and remove those of an earlier run."""
    print(f"{name}: skipped, this snapshot has no such results.")
    for suffix in suffixes:
        Path(folder, f"{name}{suffix}").unlink(missing_ok=True)


def macro_name(*words) -> str:
    r"""A name that LaTeX accepts, letters only: ("v2", "r at k=5") gives VTwoRAtKFive."""
    parts = re.findall(r"[A-Za-z]+|\d", " ".join(map(str, words)))
    return "".join(
        _DIGITS[int(part)] if part.isdigit() else part[0].upper() + part[1:] for part in parts
    )


def macros_of(comparison: pd.DataFrame, *words, by: str | None = None) -> dict[str, str]:
    """Macros for every value of a comparison, its interval, and the lead of Forecaster.

    Names are made of the words, the value of `by`, predictor and metric, and end in nothing,
    "Interval" or "Lead".
    """
    macros = {}
    for row in comparison.to_dict("records"):
        label = [f"{by} {row[by]:g}"] if by else []
        name = macro_name(*words, *label, row["predictor"], row["metric"])
        decimals = DECIMALS[row["metric"]]
        macros[name] = number(row["value"], decimals)
        if pd.notna(row["lower"]):
            macros[name + "Interval"] = _bounds(row["lower"], row["upper"], decimals)
        if row["predictor"] != FORECASTER.label and pd.notna(row["difference"]):
            macros[name + "Lead"] = interval(*(row[key] for key in LEAD), decimals)
    return macros


def write_macros(values: dict[str, str], path, *, note: str = "") -> Path:
    r"""Write ``\newcommand`` for each name and text; names as `macro_name` makes them.

    Raises
    ------
    ValueError
        If a name has other characters than letters, or two names are equal but for spelling.
    """
    path = Path(path)
    lines = [f"% {line}" for line in note.splitlines()]
    for name, text in values.items():
        if not re.fullmatch("[A-Za-z]+", name):
            raise ValueError(f"macro {name!r} must consist of letters; use macro_name")
        lines.append(rf"\newcommand{{\{name}}}{{{escape(text)}}}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
    return path


def write_frames(folder, **frames: pd.DataFrame) -> list[str]:
    """Write each frame to `folder`/name.csv; an empty one removes what an earlier run left there.

    Returns the names written.
    """
    folder = Path(folder)
    for name, frame in frames.items():
        path = folder / f"{name}.csv"
        if frame.empty:
            path.unlink(missing_ok=True)
        else:
            write_text(path, frame.to_csv(index=False, float_format="%.6g"))
    return [name for name, frame in frames.items() if not frame.empty]


def read_frame(folder, name: str) -> pd.DataFrame:
    """The frame that `write_frames` wrote, or an empty one if there is none."""
    path = Path(folder) / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
