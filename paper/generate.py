r"""Numbers, tables and the first figure of the paper, from the committed results and the code.

Writes `paper/generated/`: `numbers.tex`, a macro for every number that the text quotes, and
`table_*.tex`. Nothing in it is typed by hand, equal input gives equal bytes, and nothing is in it
that the text does not use.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.run import full_plan
from lrmf import LRMF
from lrmf.baselines import boosting as tree_baselines
from lrmf.baselines.registry import (
    BODY,
    FORECASTER,
    PREDICTORS,
    Study,
    Tuned,
    find,
    labels,
)
from lrmf.data import descriptions
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.evaluation import bootstrap
from lrmf.files import output_folder
from lrmf.forecaster import covariance, drift, near_duplicates
from lrmf.report import tables
from lrmf.report.claims import PUBLISHED_CLAIM
from lrmf.report.knowledge_figure import CEILING, knowledge, knowledge_figure
from lrmf.report.style import benchmark_name, save_figure, use_style
from lrmf.simulation.items import SUBTASK_ITEMS
from lrmf.simulation.population import ADAPTER, FINETUNE, MERGE, QUANTIZED
from lrmf.simulation.simulate import AnswerConfig
from lrmf.solver import prior, process
from notebooks.run import declared_parameters, resolve_parameters

ROOT = Path(__file__).resolve().parents[1]
PAPER = Path(__file__).resolve().parent
GENERATED = PAPER / "generated"
RUNS = {"sim": "simulated", "v1": "openllm-v1-items", "v2": "openllm-v2"}
TITLES = {"v1": "v1", "v2": "v2", "sim": "simulated"}  # in the order of tables and figures
REAL = ["v1", "v2"]
LEFT_OUT = labels(lambda entry: BODY not in entry.shown_in)  # of the tables of the body
NONE = r"\textendash"


class PaperError(Exception):
    """Something the paper needs is not there; the message names it and the way out."""


def generate(root: Path, folder: Path) -> list[str]:
    """Write all files of `folder` anew from the results under `root`; returns their names."""
    text = source_text()
    used = set(re.findall(r"\\generated\{(\w+)\}", text))
    files = {name: table for name, table in all_tables(root).items() if name in used}
    if missing := sorted(used - set(files)):
        raise PaperError(f"the text reads table {missing[0]}, which no result gives")
    with output_folder(folder) as new:
        tables.write_macros(used_macros(text, all_macros(root)), new / "numbers.tex")
        for name, table in files.items():
            path = new / f"table_{name}.tex"
            path.write_text(table, encoding="utf-8", newline="\n")
    return sorted(path.name for path in folder.iterdir())


def source_text() -> str:
    """All LaTeX of the paper, without comments."""
    paths = [PAPER / "main.tex", *sorted(PAPER.glob("sections/*.tex"))]
    return "\n".join(re.sub(r"(?<!\\)%.*", "", p.read_text(encoding="utf-8")) for p in paths)


def used_macros(text: str, macros: dict[str, str]) -> dict[str, str]:
    r"""The macros that the text quotes, in its order.

    What stands in ``\When{macro}{...}`` is left out with it where no result gives that macro.

    Raises
    ------
    PaperError
        If the text quotes a number that no result gives.
    """
    kept, _, rest = text.partition(r"\When{")
    while rest:
        guard, _, rest = rest.partition("}")
        if guard not in macros:
            rest = rest[closing_brace(rest) :]
        before, _, rest = rest.partition(r"\When{")
        kept += rf"\{guard if guard in macros else ''} {before}"
    runs = "|".join(map(tables.macro_name, RUNS))
    names = re.findall(r"\\([A-Za-z]+)", kept)
    names = [name for name in names if name in macros or re.match(rf"({runs})[A-Z]", name)]
    if missing := [name for name in names if name not in macros]:
        raise PaperError(
            f"the text quotes \\{missing[0]}, which no committed result gives; change the text, or "
            "restore the result with `make reproduce` or `git checkout figures`"
        )
    return {name: macros[name] for name in names}


def closing_brace(text: str) -> int:
    """Length of the group in braces that the text begins with."""
    depths = np.cumsum([(letter == "{") - (letter == "}") for letter in text])
    return int(np.argmax(depths == 0)) + 1


class Results:
    """The CSVs of one run under figures/."""

    def __init__(self, root, short):
        self.short, self.run = short, RUNS[short]
        self.folder = root / "figures" / self.run

    def read(self, name, *, optional=False, **options) -> pd.DataFrame | None:
        """Frame of figures/<run>/<name>.csv; None if it may be missing and is."""
        path = self.folder / f"{name}.csv"
        if path.exists():
            return pd.read_csv(path, **options)
        if optional:
            return None
        how = "" if self.short == "sim" else f" RUN=snapshot SNAPSHOT=path/to/{self.run}"
        raise PaperError(
            f"figures/{self.run}/{name}.csv is missing; run `make reproduce{how}`, or restore it "
            "with `git checkout figures`"
        )

    def table(self, name, **options) -> pd.DataFrame:
        """A table as the notebooks wrote it, every cell as text."""
        return self.read(f"tables/{name}", dtype=str, keep_default_na=False, **options)


def called(name: str) -> str:
    """How text and tables call a predictor or a benchmark."""
    return find(name).short_label or benchmark_name(name)


def listed(names, word="and") -> str:
    """Names in a sentence."""
    *others, last = list(names) or ["none"]
    return f"{', '.join(others)} {word} {last}" if others else last


def is_earlier(folder: Path) -> bool:
    """Whether results are those of the forecaster that was a stack of forests and boosted trees."""
    predictors = pd.read_csv(folder / "ingredients.csv", usecols=["predictor"])["predictor"]
    return bool(predictors.eq("without trees").any())


# ---- macros


def all_macros(root: Path) -> dict[str, str]:
    """Every number that the text may quote."""
    macros = constants()
    for short in RUNS:
        results = Results(root, short)
        macros |= notebook_macros(results) | result_macros(results) | facts_of(root, results)
    return macros | bench_macros(root)


def notebook_macros(results) -> dict[str, str]:
    """The macros that notebook 06 wrote, with the short name of the run in front."""
    path = results.folder / "tables" / "numbers.tex"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    start, short = tables.macro_name(results.run), tables.macro_name(results.short)
    found = re.findall(rf"\\newcommand\{{\\{start}(\w+)\}}\{{(.*)\}}$", text, re.MULTILINE)
    return {short + name: value.replace("$-$", "-") for name, value in found}


@dataclass(frozen=True)
class Frame:
    """A file of results and how its macros are named.

    Attributes
    ----------
    file : name of the CSV
    by : column of numbers that the names hold
    level : column whose values stand before the predictor's
    optional : whether some runs may lack it
    """

    file: str
    by: str | None = None
    level: str | None = None
    optional: bool = False


FRAMES = {  # by the words that names begin with
    "zero shot": Frame("zero_shot"),
    "few shot": Frame("few_shot", by="k"),
    "random": Frame("random_holdout", by="density"),
    "ingredients": Frame("ingredients"),
    "given": Frame("ingredients_few_shot"),
    "later": Frame("later_models", optional=True),
    "gain": Frame("lineage_gain", level="level"),
    "variant": Frame("ablation", level="variant"),
    "training": Frame("one_family", level="training"),
    "intervals": Frame("calibration", by="k"),
    "plans": Frame("merge_plans", optional=True),
    "chosen": Frame("chosen_answers", by="n_answers", optional=True),
}
COMPARED = ["predictor", "metric", "value", "lower", "upper"]
COMPARED += ["difference", "difference_lower", "difference_upper"]


def result_macros(results) -> dict[str, str]:
    r"""Macros of all `FRAMES`, as `tables.macros_of` makes them, and differences in points of r.

    The latter end in *Points*, as in ``\VOneZeroShotLRMFPearsonPoints``: 5 [1, 8].
    """
    macros = {}
    for words, spec in FRAMES.items():
        frame = results.read(spec.file, optional=spec.optional)
        if frame is None:
            continue
        frame = tidy(frame, spec)
        macros |= tables.macros_of(frame, results.short, words, by=spec.by)
        r = frame[(frame["metric"] == "pearson") & frame["difference"].notna()]
        for row in r.to_dict("records"):
            label = [f"{spec.by} {row[spec.by]:g}"] if spec.by else []
            name = tables.macro_name(results.short, words, *label, row["predictor"], "pearson")
            bounds = [row[f"difference{end}"] for end in ("", "_lower", "_upper")]
            macros[f"{name}Points"] = points(*bounds)
            macros[f"{name}Added"] = tables.number(bounds[0], 2)
    return macros


def tidy(frame, spec) -> pd.DataFrame:
    """A frame of results with the columns that `tables.macros_of` reads."""
    frame = frame.rename(columns={"planner": "predictor", "strategy": "predictor"})
    if "metric" not in frame:
        measured = [name for name in ("mae", "coverage", "width") if name in frame]
        frame = frame.melt(["predictor", spec.by], measured, "metric")
    if "benchmark" in frame:
        frame = frame[frame["benchmark"] == "all"]
    if spec.level:
        frame = frame[frame[spec.level].notna()]
        level = frame[spec.level].str.replace("%", " percent")
        frame = frame.assign(predictor=level + " " + frame["predictor"])
    if spec.by:
        frame = frame[frame[spec.by].notna()]
    return frame.reindex(columns=[*COMPARED, *([spec.by] if spec.by else [])])


def points(*bounds) -> str:
    """A difference in r with its interval, in points: hundredths of r."""
    return tables.interval(*(100 * bound for bound in bounds), 0)


def facts_of(root, results) -> dict[str, str]:
    """Numbers of a run that are no row of a comparison."""
    zero_shot = results.read("zero_shot")
    counts = counts_of(results)
    facts = {name: f"{counts[name]:,}" for name in ("models", "items", "edges")}
    facts["hidden models"] = f"{zero_shot['n_models'].iloc[0]:,}"
    facts["hidden families"] = f"{zero_shot['n_clusters'].iloc[0]:,}"
    facts["ceiling"] = tables.number(ceiling_of(results), 2)
    relatives = results.read("relatives").drop_duplicates("level").set_index("level")["n_models"]
    facts["child closest"] = f"{relatives['parent']:,}"
    facts["one family models"] = f"{results.read('one_family')['n_models'].iloc[0]:,}"
    facts |= kinship_of(results) | coverage_of(results)
    for name in ("random_holdout", "few_shot"):
        facts[f"{name} models"] = f"{results.read(name)['n_models'].iloc[0]:,}"
    facts["few shot last step"] = f"{results.read('few_shot')['k'].max():g}"
    later = results.read("later_models", optional=True)
    if later is not None:
        facts["later cutoff"] = later["cutoff"].iloc[0]
        facts["later models"] = f"{later['n_models'].iloc[0]:,}"
        facts["later families"] = f"{later['n_clusters'].iloc[0]:,}"
    plans = results.read("merge_plans", optional=True)
    if plans is not None:
        facts["merges"] = f"{plans['n_merges'].iloc[0]:,}"
    cards = results.read("tables/incomplete_cards", optional=True)
    for row in cards.to_dict("records") if cards is not None else ():
        facts |= {f"card {row['card']} {name}": row[name] for name in ("r", "coverage")}
    if is_earlier(results.folder):
        facts["earlier forecaster"] = ""
    claims = results.read("tables/claims", keep_default_na=False)
    for row in claims.itertuples():
        facts[f"claim {row.claim} {row.setting}"] = row.measured.split(" (")[0].lstrip("+")
    settings = settings_of(root, results.short, "04_baselines")
    facts["folds"], facts["resamples"] = settings["n_folds"], f"{settings['n_boot']:,}"
    if results.short in REAL:
        facts |= documented_facts(root, results)
    return {tables.macro_name(results.short, name): str(text) for name, text in facts.items()}


def counts_of(results) -> dict[str, int]:
    """Numbers of models, items, edges, families of two or more, and members of the largest."""
    path = results.folder / "tables" / "numbers.tex"
    label = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r": ([\d,]+) models, ([\d,]+) items", label)
    if not found:
        raise PaperError(f"figures/{results.run}/tables/numbers.tex does not say how many models")
    models, items = (int(text.replace(",", "")) for text in found.groups())
    structure = results.read("lineage_structure")
    members = structure[structure["quantity"] == "members of a family"]
    children = structure[structure["quantity"] == "children of a parent"]
    return {
        "models": models,
        "items": items,
        "edges": int((children["value"] * children["count"]).sum()),
        "families": int(members["count"].sum()),
        "largest family": int(members["value"].max()),
    }


def ceiling_of(results) -> float:
    """Mean noise ceiling of r."""
    return float(results.table("benchmarks", index_col="predictor").loc[CEILING, "mean"])


def kinship_of(results) -> dict[str, str]:
    """How much children take after parents, and how much energy is in low frequencies."""
    pairs = results.read("parent_child").query("relation == 'any'").set_index("benchmark")
    r = pairs["r"].drop("average")
    energy = results.read("spectrum").query("frequencies == 0.25 and benchmark == 'all'")
    within = energy.set_index("part").loc["within families"]
    facts = {"parent child": tables.number(pairs.loc["average", "r"], 2)}
    facts |= {"energy within": f"{100 * within['energy']:.0f}%"}
    facts |= {"energy shuffled": f"{100 * within['shuffled']:.0f}%"}
    for end, name in {"lowest": r.idxmin(), "highest": r.idxmax()}.items():
        facts[f"parent child {end}"] = tables.number(r[name], 2)
        facts[f"parent child {end} name"] = called(name)
    return facts


def coverage_of(results) -> dict[str, str]:
    """Least and greatest coverage of single benchmarks, over all numbers of answers."""
    frame = results.read("calibration")
    frame = frame[(frame["predictor"] == FORECASTER.label) & (frame["metric"] == "coverage")]
    single = frame[~frame["benchmark"].isin(["all", "average"])].sort_values("k")
    facts = {}
    for end, row in {"least": single["value"].idxmin(), "most": single["value"].idxmax()}.items():
        facts[f"coverage {end}"] = tables.number(single.loc[row, "value"], 2)
        facts[f"coverage {end} name"] = called(single.loc[row, "benchmark"])
    return facts


def documented_facts(root, results) -> dict[str, str]:
    """What data/README.md says of a snapshot, checked against its results."""
    documented = documented_data(root)[results.short]
    check_documented(results.short, counts_of(results), documented)
    facts = {
        "known parent": re.search(r"\((\d+%)\)", documented["models with a known parent"])[1],
        "unscored": documented["unscored ancestors"],
    }
    for relation in ("finetune", "merge", "adapter", "quantized"):
        facts[relation] = re.search(rf"([\d,]+) {relation}", documented["edges"])[1]
    return facts


def documented_data(root) -> dict[str, dict[str, str]]:
    """The table of the two real snapshots in data/README.md, by run and row."""
    lines = (root / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[c.strip().strip("`") for c in line.split("|")[1:-1]] for line in lines if "|" in line]
    head = next((row for row in rows if row[1:] and set(RUNS.values()) >= set(row[1:])), None)
    if head is None:
        raise PaperError("data/README.md has no table of the two real snapshots any more")
    shorts = {run: short for short, run in RUNS.items()}
    own = [row for row in rows[rows.index(head) + 1 :] if len(row) == len(head)]
    return {
        shorts[run]: {row[0]: row[column] for row in own}
        for column, run in enumerate(head)
        if run in shorts
    }


def check_documented(short, counts, documented):
    """Refuse to print numbers that the results contradict."""
    for row, quantity in {"models": "models", "columns": "items", "edges": "edges"}.items():
        said = int(re.match(r"[\d,]+", documented[row])[0].replace(",", ""))
        if said != counts[quantity]:
            raise PaperError(
                f"data/README.md says {said:,} {row} of {RUNS[short]}, its results "
                f"{counts[quantity]:,}; correct the one that is wrong"
            )


# ---- what the code says

CONSTANTS = {  # what the appendix quotes: words of the macro, module, name
    "copy noise": (near_duplicates.CONFIG, "noise"),
    "copy shots": (near_duplicates.CONFIG, "n_revealed"),
    "copies kept": (near_duplicates.CONFIG, "n_kept"),
    "copy answers": (near_duplicates.CONFIG, "most_revealed"),
    "worth of lineage": (near_duplicates.CONFIG, "lineage_answers"),
    "trees hops": (tree_baselines, "MAX_HOPS"),
    "latest": (drift.DriftConfig, "later_than"),
    "learning models": (covariance.LearningConfig, "n_models"),
    "learning linked": (covariance.LearningConfig, "n_linked"),
    "lineage shares": (covariance.LearningConfig, "shares"),
    "exact models": (process, "EXACT"),
    "neighbours": (process, "NEIGHBOURS"),
    "smallest size": (descriptions, "SMALLEST"),
    "largest size": (descriptions, "LARGEST"),
}
SHARES = {"copy noise", "latest"}  # in percent
QUOTED = {  # what others report, in points: arXiv 2606.24020 (median) and 2509.20645 (mean)
    "quoted benchpress error": "4.6",
    "quoted precog error": "9.9",
}


def constants() -> dict[str, str]:
    """What the text quotes of the code, and the sizes of the lead that was claimed."""
    macros = QUOTED | {"feature ridge": f"{defaults_of(prior.LineagePrior)['feature_ridge']:g}"}
    for words, (module, name) in CONSTANTS.items():
        if not hasattr(module, name):
            place = getattr(module, "__name__", type(module).__name__)
            raise PaperError(
                f"{place} has no {name} any more, which the paper quotes; change "
                "CONSTANTS in paper/generate.py and the text"
            )
        scale = 100 if words in SHARES else 1
        values = [f"{scale * one:,g}" for one in np.atleast_1d(getattr(module, name))]
        macros[words] = listed(values, "or")
    for words, claim in {"claim": bootstrap.CLAIM, "published claim": PUBLISHED_CLAIM}.items():
        for end, value in zip(("low", "high"), claim, strict=True):
            macros[f"{words} {end}"] = f"{100 * value:.0f}"
    macros |= {f"jump {relation}": f"{jump:g}" for relation, jump in descriptions.JUMPS.items()}
    return {tables.macro_name(words): text for words, text in macros.items()}


def settings_of(root, short, notebook) -> dict:
    """Parameters that a notebook has in the run behind the committed figures."""
    path = root / "notebooks" / f"{notebook}.ipynb"
    params = root / "params" / f"{'simulated' if short == 'sim' else 'snapshot'}.yaml"
    return declared_parameters(path) | resolve_parameters(path, params)


def defaults_of(thing) -> dict:
    """Keyword defaults of a class's constructor."""
    parameters = inspect.signature(thing.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


# ---- tables


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


def all_tables(root) -> dict[str, str]:
    """Every table, by the name that the text reads it by."""
    runs = {short: Results(root, short) for short in RUNS}
    real = {short: runs[short] for short in REAL}
    zero_shot = {short: leads(run.read("zero_shot")) for short, run in runs.items()}
    files = {"data": data_table(root, runs)}
    files["zero_shot"] = joined({short: zero_shot[short] for short in REAL})
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


def ranking(frame) -> pd.DataFrame:
    """A table without the predictors that tell no models apart, but for the item mean."""
    r = frame["r" if "r" in frame else "r [95% interval]" if "mean" not in frame else "mean"]
    return frame[~r.str.match(r"0\.00( \[0\.00|$)") | (frame.index == "item mean")]


def data_table(root, runs) -> str:
    """What the data are: counted from the results, checked against data/README.md."""
    columns, documented = {}, documented_data(root)
    for short, title in TITLES.items():
        counts = counts_of(runs[short])
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
    tuned = {entry.label: entry.grid(study) for entry in PREDICTORS.values() if entry.grid}
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
    return str(value) if value not in ("", None) else "default" if value == "" else "none"


# ---- the solver beside its peers


def bench_summary(root) -> pd.DataFrame:
    """What `make bench` measured."""
    path = root / "bench" / "results" / "summary.csv"
    summary = pd.read_csv(path) if path.exists() else pd.DataFrame()
    needed = {"problem", "solver", "fit_cpu", "cpu_to_loss", "ratio_loss", "excess", "peak_mb"}
    if missing := sorted(needed - set(summary.columns)):
        raise PaperError(f"bench/results/summary.csv lacks {missing[0]}; run `make bench`")
    return summary


def bench_macros(root) -> dict[str, str]:
    """The problem at paper scale, and how LRMF and the nearest solver of its objective do there."""
    [spec] = [spec for spec in full_plan().problems if spec.name == "full"]
    rows = bench_summary(root).query("problem == 'full'").set_index("solver")
    same = rows.loc[rows["excess"].notna(), "ratio_loss"].drop("LRMF")
    facts = {
        "models": f"{spec.n_models:,}",
        "items": f"{spec.n_items:,}",
        "density": f"{100 * spec.density:g}%",
        "seconds": tables.number(rows.loc["LRMF", "fit_cpu"], 1),
        "memory": f"{rows.loc['LRMF', 'peak_mb']:.0f}",
        "nearest": f"{same.min():.2g}",
        "nearest name": same.idxmin(),
    }
    return {tables.macro_name("bench full", words): text for words, text in facts.items()}


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


# ---- the first figure


def draw_knowledge(root, folder) -> pd.DataFrame:
    """Draw what each source of knowledge is worth in all runs; returns the numbers behind it."""
    use_style()
    frames = {}
    for short, title in TITLES.items():
        run = Results(root, short)
        frame = knowledge(run.read("zero_shot"), run.read("ingredients"), ceiling_of(run))
        frames[title] = frame
    numbers = pd.concat(frames, names=["data"]).reset_index("data")
    figure = knowledge_figure(frames)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    save_figure(figure, numbers, "knowledge", folder=folder)
    return numbers
