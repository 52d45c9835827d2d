r"""Numbers, tables and the first figure of the paper, from the committed results and the code.

Writes `paper/generated/`: `numbers.tex`, a macro for every number that the text quotes, and
`table_*.tex`. Nothing in it is typed by hand, equal input gives equal bytes, and nothing is in it
that the text does not use.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.run import full_plan
from lrmf.baselines import boosting as tree_baselines
from lrmf.baselines.registry import FORECASTER
from lrmf.data import descriptions
from lrmf.evaluation import bootstrap
from lrmf.files import output_folder
from lrmf.forecaster import covariance, drift, near_duplicates
from lrmf.report import tables
from lrmf.report.claims import PUBLISHED_CLAIM
from lrmf.report.knowledge_figure import knowledge, knowledge_figure
from lrmf.report.style import save_figure, use_style
from lrmf.solver import prior, process

from .results import (
    BRIEF,
    PAPER,
    REAL,
    RUNS,
    TITLES,
    PaperError,
    Results,
    bench_summary,
    called,
    ceiling_of,
    check_documented,
    counts_of,
    defaults_of,
    documented_data,
    listed,
    points,
    settings_of,
)
from .tabular import all_tables

GENERATED = PAPER / "generated"


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
    "training": Frame("one_family", level="training", optional=True),
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


def facts_of(root, results) -> dict[str, str]:
    """Numbers of a run that are no row of a comparison."""
    zero_shot = results.read("zero_shot")
    counts = counts_of(results)
    facts = {name: f"{counts[name]:,}" for name in ("models", "items", "edges")}
    facts["hidden models"] = f"{zero_shot['n_models'].iloc[0]:,}"
    facts["hidden families"] = f"{zero_shot['n_clusters'].iloc[0]:,}"
    facts["ceiling"] = tables.number(ceiling_of(results), 2)
    if results.short not in BRIEF:
        facts |= _measured(root, results)
    return {tables.macro_name(results.short, name): str(text) for name, text in facts.items()}


def _measured(root, results) -> dict[str, str]:
    """What else notebooks 02 to 07 measured."""
    relatives = results.read("relatives").drop_duplicates("level").set_index("level")["n_models"]
    facts = {"child closest": f"{relatives['parent']:,}"}
    facts |= relatedness_of(results) | coverage_of(results)
    for name in ("random_holdout", "few_shot"):
        facts[f"{name} models"] = f"{results.read(name)['n_models'].iloc[0]:,}"
    facts["few shot last step"] = f"{results.read('few_shot')['k'].max():g}"
    one_family = results.read("one_family", optional=True)
    if one_family is not None:
        facts["one family models"] = f"{one_family['n_models'].iloc[0]:,}"
    later = results.read("later_models", optional=True)
    if later is not None:
        facts["later cutoff"] = later["cutoff"].iloc[0].split(" ")[0]
        facts["later models"] = f"{later['n_models'].iloc[0]:,}"
        facts["later families"] = f"{later['n_clusters'].iloc[0]:,}"
    asked = results.read("chosen_answers", optional=True)
    if asked is not None:
        facts["asked models"] = f"{asked['n_models'].max():,}"
    plans = results.read("merge_plans", optional=True)
    if plans is not None:
        facts["merges"] = f"{plans['n_merges'].iloc[0]:,}"
    cards = results.read("tables/incomplete_cards", optional=True)
    for row in cards.to_dict("records") if cards is not None else ():
        facts |= {f"card {row['card']} {name}": row[name] for name in ("r", "coverage")}
    release = results.read("as_at_release", optional=True)
    if release is not None:
        before = release.query("known == 'all relatives' and metric == 'pearson'")
        own = before.set_index("predictor").loc[FORECASTER.label]
        facts["release models"] = f"{own['n_models']:,}"
        facts["release before"] = tables.number(own["value"], 2)
    claims = results.read("tables/claims", keep_default_na=False)
    for row in claims.itertuples():
        facts[f"claim {row.claim} {row.setting}"] = row.measured.split(" (")[0].lstrip("+")
    settings = settings_of(root, results.short, "04_baselines")
    facts["folds"], facts["resamples"] = settings["n_folds"], f"{settings['n_boot']:,}"
    if results.short in REAL:
        facts |= documented_facts(root, results)
    return facts


def relatedness_of(results) -> dict[str, str]:
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
    macros |= {
        f"node variance {relation}": f"{variance:g}"
        for relation, variance in descriptions.NODE_VARIANCES.items()
    }
    macros["lineage weight"] = f"{covariance.DEFAULTS['lineage']:g}"
    return {tables.macro_name(words): text for words, text in macros.items()}


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


# ---- the first figure


def draw_knowledge(root, folder) -> pd.DataFrame:
    """Draw what each source of knowledge is worth in all runs; returns the numbers behind it."""
    use_style()
    frames = {}
    for short, title in TITLES.items():
        run = Results(root, short)
        zero_shot, ingredients = run.read("zero_shot"), run.read("ingredients")
        frames[title] = knowledge(zero_shot, ingredients, ceiling_of(run))
    numbers = pd.concat(frames, names=["data"]).reset_index("data")
    figure = knowledge_figure(frames)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    save_figure(figure, numbers, "knowledge", folder=folder)
    return numbers
