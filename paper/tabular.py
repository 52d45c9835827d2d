"""The tables of the paper, as LaTeX, from the committed results and the code."""

import re

import numpy as np
import pandas as pd

from lrmf import LRMF
from lrmf.baselines.registry import BODY, FORECASTER, PREDICTORS, Study, Tuned, labels
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.report import tables
from lrmf.simulation.items import SUBTASK_ITEMS
from lrmf.simulation.population import ADAPTER, FINETUNE, MERGE, QUANTIZED
from lrmf.simulation.simulate import AnswerConfig

from .results import (
    REAL,
    RUNS,
    TITLES,
    Results,
    bench_summary,
    called,
    counts_of,
    defaults_of,
    documented_data,
    points,
    settings_of,
)

LEFT_OUT = labels(lambda entry: BODY not in entry.shown_in)  # of the tables of the body
NONE = r"\textendash"


def all_tables(root) -> dict[str, str]:
    """Every table, by the name that the text reads it by."""
    runs = {short: Results(root, short) for short in RUNS}
    real = {short: runs[short] for short in REAL}
    zero_shot = {short: leads(run.read("zero_shot")) for short, run in runs.items()}
    files = {"data": data_table(root, runs)}
    files["zero_shot"] = joined({short: zero_shot[short] for short in [*REAL, "mteb"]})
    files["zero_shot_sim"] = joined({"sim": zero_shot["sim"]})
    few = {short: run.table("few_shot", index_col=0) for short, run in real.items()}
    files["few_shot"] = joined(few)
    files["random_holdout"] = joined({short: shares(run) for short, run in real.items()})
    variants = {s: run.table("variant", index_col=0)[["r"]] for s, run in real.items()}
    files["variant"] = joined(variants, name="lineage")
    frames = {short: ingredients(run) for short, run in real.items()}
    files["ingredients"] = joined(frames, name="Forecaster")
    files["dates_v2"] = tabular(shortened(leads(runs["v2"].read("later_models"))))
    for short, run in real.items():
        for table in ("accuracy", "benchmarks"):
            frame = ranking(run.table(table, index_col=0))
            files[f"{table}_{short}"] = tabular(shortened(frame))
        frame = shortened(run.table("choices", index_col=0))
        frame.index = frame.index.where(~frame.index.duplicated(), "")
        files[f"choices_{short}"] = tabular(frame)
    return files | code_tables(root) | {"bench": bench_table(root)}


def data_table(root, runs) -> str:
    """What the data are: counted from the results, checked against data/README.md."""
    columns, documented = {}, documented_data(root)
    for short in [*REAL, "sim"]:
        title, counts = TITLES[short], counts_of(runs[short])
        patterns = runs[short].read("missing_blocks")
        share = (patterns["n_models"] * patterns["evaluated"]).sum() / patterns["n_models"].sum()
        columns[title] = {
            "models": f"{counts['models']:,}",
            "columns": f"{counts['items']:,}",
            "benchmarks": str(patterns["benchmark"].nunique()),
            "models per benchmark": f"{100 * share:.0f}%",
            "lineage edges": f"{counts['edges']:,}",
            "families of two or more": f"{counts['families']:,}",
            "largest family, nodes": f"{counts['largest family']:,}",
        }
        if short in REAL:
            known = documented[short]["models with a known parent"]
            columns[title]["models with a known parent"] = known
    return tabular(pd.DataFrame(columns).rename_axis(""))


def ranking(frame) -> pd.DataFrame:
    """A table without the predictors that tell no models apart, but for the item mean."""
    r = frame["r" if "r" in frame else "r [95% interval]" if "mean" not in frame else "mean"]
    return frame[~r.str.match(r"0\.00( \[0\.00|$)") | (frame.index == "item mean")]


def leads(frame) -> pd.DataFrame:
    """r with its interval, the lead of Forecaster in points of r, and the MAE, by predictor."""
    r = frame[frame["metric"] == "pearson"].set_index("predictor")
    r = r.drop(index=LEFT_OUT, errors="ignore")
    r = r[(r["lower"] != 0) | (r["upper"] != 0)]
    mae = frame[frame["metric"] == "mae"].set_index("predictor")["value"]
    lead = [
        tables.NONE
        if name == FORECASTER.label
        else points(row.difference, row.difference_lower, row.difference_upper)
        for name, row in r.iterrows()
    ]
    return pd.DataFrame(
        {
            "r [95% interval]": [
                tables.interval(*row, 2) for row in r[["value", "lower", "upper"]].to_numpy()
            ],
            "lead": lead,
            "MAE": [tables.number(mae.get(name), 1) for name in r.index],
        },
        index=r.index,
    )


def ingredients(results) -> pd.DataFrame:
    """What leaving an ingredient out costs in points of r: zero-shot, and with most revealed."""
    costs = {}
    for column, name in {"zero-shot": "ingredients", "few-shot": "ingredients_few_shot"}.items():
        r = results.read(name).query("metric == 'pearson'").set_index("predictor")
        bounds = r.drop(FORECASTER.label).filter(like="difference")
        costs[column] = bounds.apply(lambda row: points(*row), axis=1)
    return pd.DataFrame(costs)


def shares(results) -> pd.DataFrame:
    """r in the random hold-out by the share of cells observed, of predictors of the body."""
    frame = results.table("random_holdout", index_col=0).drop(index=LEFT_OUT, errors="ignore")
    return frame.rename(columns=lambda share: f"{100 * float(share):g}%")


def shortened(frame) -> pd.DataFrame:
    """The same with names and settings short enough for a column."""
    frame = frame.rename(index=called, columns=called)
    return frame


def code_tables(root) -> dict[str, str]:
    """Defaults of estimator and baselines, parameters of the study, items of the simulation."""
    rows = {name: _plain(value) for name, value in defaults_of(LRMF).items()}
    files = {"defaults": _listing(rows, "parameter", "default")}
    rows = {}
    built = [entry.build(Study(ANSWERS)) for entry in PREDICTORS.values() if entry.build]
    for kind in sorted({Tuned, *map(type, built)}, key=lambda kind: kind.__name__):
        known = defaults_of(kind)
        rows[kind.__name__] = (
            ", ".join(f"{k}={_plain(v)}" for k, v in known.items() if k != "seed") or "none"
        )
    files["baselines"] = _wrapped(_listing(rows, "class", "defaults"))
    rows = {}
    for notebook in ("04_baselines", "05_cold_start"):
        simulated, real = (settings_of(root, short, notebook) for short in ("sim", "v1"))
        for name in simulated.keys() - {"run", "snapshot", "seed", "n_jobs"}:
            rows[name] = {"simulated": _plain(simulated[name]), "real": _plain(real[name])}
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_index().rename_axis("parameter")
    files["settings"] = _wrapped(tabular(frame))
    rank = settings_of(root, "v1", "04_baselines")["rank"]
    columns = {"answers (v1)": grids(ANSWERS, rank), "scores (v2)": grids(PROPORTIONS, rank)}
    frame = pd.DataFrame(columns).rename(index=called).rename_axis("predictor")
    files["grids"] = _wrapped(tabular(frame))
    items = {called(name): parts for name, parts in SUBTASK_ITEMS.items()}
    rows = {name: f"{sum(parts.values()):,} in {len(parts)}" for name, parts in items.items()}
    files["items"] = _listing(rows, "benchmark", "items in subtasks")
    names = {FINETUNE: "finetune", MERGE: "merge", ADAPTER: "adapter", QUANTIZED: "quantized"}
    kept = {
        names[kind]: {"a": f"{a:g}", "b": f"{b:g}", "mean": tables.number(a / (a + b), 2)}
        for kind, (a, b) in AnswerConfig().retention.items()
    }
    frame = pd.DataFrame.from_dict(kept, orient="index").rename_axis("descent")
    files["retention"] = tabular(frame)
    return files


def grids(kind, rank) -> dict[str, str]:
    """Values that inner splits choose from, by predictor."""
    study = Study(kind, rank)
    tuned = {entry.label: entry.candidates(study) for entry in PREDICTORS.values() if entry.grid}
    said = {}
    for name, grid in tuned.items():
        parts = [
            ", ".join(
                f"{parameter} {'/'.join(map(_plain, values))}" for parameter, values in one.items()
            )
            for one in (grid if isinstance(grid, list) else [grid])
        ]
        said[name] = " or ".join(parts)
    return said


def _listing(rows, name, value) -> str:
    return tabular(pd.DataFrame({value: rows}).rename_axis(name))


def _wrapped(table) -> str:
    """The same with long cells broken into lines, all columns but the first of one width."""
    column = r">{\raggedright\arraybackslash}p{\valuewidth}"
    form = re.compile(r"(?<=\{@\{\}l)[lr]+(?=@\{\}\})")
    return form.sub(lambda found: column * len(found.group()), table, count=1)


def _plain(value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "-"
    return str(value) if value not in ("", None) else "default" if value == "" else "none"


def bench_table(root) -> str:
    """Time, time to the loss of LRMF, and memory of every solver, by problem."""
    frames = {}
    for problem, rows in bench_summary(root).groupby("problem", sort=False):
        rows = rows.set_index("solver")
        frames[problem] = pd.DataFrame(
            {
                f"fit, s|{problem}": rows["fit_cpu"].map("{:.2f}".format),
                f"to loss, s|{problem}": [_seconds(one) for one in rows["cpu_to_loss"]],
                f"ratio|{problem}": [_ratio(row) for row in rows.to_dict("records")],
                f"MB|{problem}": rows["peak_mb"].map("{:.0f}".format),
            }
        )
    wide = pd.concat(frames.values(), axis=1).rename_axis("solver")
    return tabular(wide, groups=[(problem, 4) for problem in frames])


def _seconds(value) -> str:
    return tables.number(value, 2) if value < 100 else tables.number(value, 0)


def _ratio(row) -> str:
    """CPU seconds to the log-loss of LRMF, over those of LRMF; a bound where it was not reached."""
    if pd.isna(row["cpu_to_loss"]):
        return "never" if pd.isna(row.get("excess")) else f"> {row['ratio_loss']:.3g}"
    return f"{row['ratio_loss']:.3g}"


def tabular(frame: pd.DataFrame, *, groups=()) -> str:
    """A booktabs tabular; `groups` are (title, number of columns) above the columns.

    The index is the first column. Cells are escaped unless they begin with a backslash.
    """
    columns = "".join("r" if has_numbers(frame[name]) else "l" for name in frame)
    lines = [rf"\begin{{tabular}}[t]{{@{{}}l{columns}@{{}}}}", r"\toprule"]
    if groups:
        titles = [rf"\multicolumn{{{n}}}{{c}}{{{cell(title)}}}" for title, n in groups]
        lines.append(" & ".join(["", *titles]) + r" \\")
        starts = 2 + np.cumsum([0, *(n for _, n in groups)])
        spans = zip(groups, starts[:-1], starts[1:], strict=True)
        rules = [rf"\cmidrule(lr){{{a}-{b - 1}}}" for (title, _), a, b in spans if title]
        lines.append(" ".join(rules))
    header = [str(frame.index.name or ""), *(str(c).split("|")[0] for c in frame.columns)]
    titles = [re.sub(r"\br\b", "$r$", cell(title)) for title in header]
    lines += [" & ".join(titles) + r" \\", r"\midrule"]
    for name, *row in frame.itertuples():
        lines.append(" & ".join(map(cell, [name, *row])) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def has_numbers(column) -> bool:
    """Whether any cell begins like a number; text is aligned to the left."""
    return column.astype(str).str.match(r"-?\d").any()


def cell(text) -> str:
    """One cell: what is unknown or a single dash becomes an en dash."""
    text = NONE if pd.isna(text) or text == tables.NONE else str(text)
    return text if text.startswith("\\") else tables.escape(text)


def joined(frames: dict[str, pd.DataFrame], **options) -> str:
    """Frames by run side by side, grouped under the runs' titles, over the union of their rows."""
    order = tables.order_predictors(
        pd.unique(pd.concat([f.index.to_series() for f in frames.values()]))
    )
    wide = pd.concat(
        [frame.rename(columns=lambda c, s=s: f"{c}|{s}") for s, frame in frames.items()], axis=1
    ).reindex(order)
    wide.index = pd.Index(
        [called(name) for name in wide.index], name=options.pop("name", "predictor")
    )
    groups = [(TITLES[short], len(frame.columns)) for short, frame in frames.items()]
    return tabular(wide, groups=groups, **options)
