r"""Numbers, tables and switches of the paper, from the committed CSVs and the code itself.

Writes `paper/generated/`: `numbers.tex` (a macro for every number of the text), `switches.tex`
(what the data decide, so that the text can say it either way: see `\Compare` in `main.tex`), and
`table_*.tex`. Nothing in it is typed by hand, and equal input gives equal bytes.
"""

import inspect
import re
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
    baselines_among,
    find,
    labels,
)
from lrmf.baselines.registry import LRMF as LRMF_ENTRY
from lrmf.data import descriptions
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.evaluation import bootstrap as comparison
from lrmf.files import output_folder
from lrmf.forecaster import covariance, drift, near_duplicates
from lrmf.report import tables
from lrmf.report.claims import PUBLISHED_CLAIM
from lrmf.report.style import benchmark_name
from lrmf.simulation.items import SUBTASK_ITEMS
from lrmf.simulation.population import ADAPTER, FINETUNE, MERGE, QUANTIZED
from lrmf.simulation.simulate import AnswerConfig
from lrmf.solver import prior, process
from notebooks.run import declared_parameters, resolve_parameters

ROOT = Path(__file__).resolve().parents[1]
GENERATED = Path(__file__).resolve().parent / "generated"
RUNS = {"sim": "simulated", "v1": "openllm-v1-items", "v2": "openllm-v2"}
TITLES = {"sim": "simulated", "v1": "v1", "v2": "v2"}
REAL = ["v1", "v2"]
BETTER = {"pearson": 1, "mae": -1}  # the sign of a difference that favours the reference
LEFT_OUT = labels(lambda entry: BODY not in entry.shown_in)  # of the tables of the body
NEAR = 0.03  # a coverage within this of the nominal one counts as kept
NOMINAL = 0.9
NONE = r"\textendash"


class PaperError(Exception):
    """Something the paper needs is not there; the message names it and the way out."""


def generate(root: Path, folder: Path) -> list[str]:
    """Write all files of `folder` anew from the results under `root`; returns their names."""
    facts, files = Facts(), {}
    for short in RUNS:
        describe_run(Results(root, short), facts)
    names = {facts.macros[tables.macro_name(s, "zero shot rival pearson name")] for s in REAL}
    facts.switch("same rival", value=len(names) == 1)
    describe_code(root, facts)
    files |= data_tables(root, facts) | result_tables(root) | code_tables(root)
    files |= describe_bench(root, facts)
    switches = [rf"\SetSwitch{{{name}}}{{{value}}}" for name, value in facts.switches.items()]
    files["switches"] = "\n".join(switches) + "\n"
    with output_folder(folder) as new:
        tables.write_macros(facts.macros, new / "numbers.tex")
        for name, text in files.items():
            (new / f"{name}.tex").write_text(text, encoding="utf-8", newline="\n")
    return sorted(path.name for path in folder.iterdir())


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


class Facts:
    """Macros (name: text) and switches (name: 1, 0 or -1) collected from frames."""

    def __init__(self):
        self.macros, self.switches = {}, {}

    def add(self, *words, text):
        """One macro, named by the words."""
        self.macros[tables.macro_name(*words)] = str(text)

    def switch(self, *words, value):
        """One switch, named by the words."""
        self.switches[tables.macro_name(*words)] = int(value)

    def compare(self, frame, *words):
        """Values, intervals and leads of a frame as `bootstrap` makes it, and who is ahead.

        A switch is 1 if the 95% interval of the difference favours Forecaster, -1 if it favours the
        other, and 0 if it holds zero or is unknown.
        """
        self.macros |= tables.macros_of(frame, *words)
        for row in frame.itertuples():
            if row.predictor != FORECASTER.label and row.metric in BETTER:
                self.switch(*words, row.predictor, row.metric, value=who_is_ahead(row))

    def compare_all(self, frame, *words):
        """`compare`, and the same for the best rival by each metric, whichever that is."""
        self.compare(frame, *words)
        for name in frame["predictor"].unique():
            self.add("has", name, text="")
        rivals = frame[frame["predictor"].isin(baselines_among(frame["predictor"]))]
        for metric, sign in BETTER.items():
            own = rivals[rivals["metric"] == metric]
            if len(own):
                best = own.loc[[(sign * own["value"]).idxmax()]]
                self.add(*words, "rival", metric, "name", text=called(best["predictor"].iloc[0]))
                self.compare(best.assign(predictor="rival"), *words)
        self.add(*words, "models", text=f"{frame['n_models'].iloc[0]:,}")
        self.add(*words, "families", text=f"{frame['n_clusters'].iloc[0]:,}")


def who_is_ahead(row) -> int:
    """1 for the reference, -1 for the other, 0 where the interval does not tell."""
    sign = BETTER[row.metric]
    if row.difference_lower > 0:
        return sign
    return -sign if row.difference_upper < 0 else 0


def called(name: str) -> str:
    """How text and tables call a predictor or a benchmark."""
    return find(name).short_label or benchmark_name(name)


def listed(names, word="and") -> str:
    """Names in a sentence."""
    *others, last = list(names) or ["none"]
    return f"{', '.join(others)} {word} {last}" if others else last


# ---- what the results say


def describe_run(results, facts):
    """All macros and switches of one run."""
    describe_counts(results, facts)
    facts.compare_all(results.read("zero_shot"), results.short, "zero shot")
    describe_steps(results, facts, "few_shot", "k")
    describe_steps(results, facts, "random_holdout", "density")
    describe_worth(results.read("few_shot"), facts, results.short)
    describe_holdout_coverage(results.read("random_holdout"), facts, results.short)
    describe_ablation(results.read("ablation"), facts, results.short)
    describe_ingredients(results.read("ingredients"), facts, results.short, "ingredients")
    facts.switch(results.short, "earlier forecaster", value=is_earlier(results.folder))
    given = results.read("ingredients_few_shot")
    describe_ingredients(given, facts, results.short, "ingredients given")
    describe_gains(results.read("lineage_gain"), facts, results.short)
    describe_calibration(results.read("calibration"), facts, results.short)
    describe_kinship(results, facts)
    describe_claims(results.table("claim"), facts, results.short)
    for level, group in results.read("relatives").groupby("level", sort=False):
        facts.compare(group, results.short, "relatives", level)
        facts.add(
            results.short, "relatives", level, "models", text=f"{group['n_models'].iloc[0]:,}"
        )
    training = results.read("one_family")
    facts.macros |= tables.macros_of(
        training.assign(predictor=training["training"], difference=None), results.short
    )
    facts.add(results.short, "one family models", text=f"{training['n_models'].iloc[0]:,}")
    later = results.read("later_models", optional=True)
    if later is not None:
        facts.compare_all(later, results.short, "later")
        facts.add(results.short, "later cutoff", text=later["cutoff"].iloc[0])
        covered = later[later["metric"] == "coverage"].set_index("predictor")["value"]
        for name, share in covered.dropna().items():
            facts.add(results.short, "later", name, "covers", text=f"{100 * share:.0f}%")


def describe_counts(results, facts):
    """Models, items, edges, families."""
    short = results.short
    for quantity, count in counts_of(results).items():
        facts.add(short, quantity, text=f"{count:,}")
    benchmarks = results.table("benchmarks", index_col="predictor")
    facts.add(short, "ceiling", text=benchmarks.loc["noise ceiling", "mean"])
    models = benchmarks.loc["models"].drop("mean").str.replace(",", "").astype(int)
    for end, count in {"fewest": models.min(), "most": models.max()}.items():
        facts.add(short, "zero shot", end, "models", text=f"{count:,}")


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


def describe_steps(results, facts, name, column):
    """Comparisons at each step of a curve, and once more for the first, a middle and the last."""
    frame, words = results.read(name), name.replace("_", " ")
    steps = sorted(frame[column].unique())
    for step in steps:
        group = frame[frame[column] == step]
        facts.compare_all(group, results.short, words, f"{step:g}")
    middle = steps[len(steps) // 2]
    for place, step in {"first": steps[0], "middle": middle, "last": steps[-1]}.items():
        group = frame[frame[column] == step]
        facts.compare_all(group, results.short, words, place)
        text = f"{step:.3g}" if column == "k" else f"{100 * step:g}%"
        facts.add(results.short, words, place, "step", text=text)


def describe_worth(curve, facts, short):
    """How many answers make up for a missing family tree, and where Forecaster falls behind."""
    r = curve[curve["metric"] == "pearson"]
    start = r[(r["predictor"] == FORECASTER.label) & (r["k"] == 0)]["value"].iloc[0]
    there = r[~r["predictor"].map(lambda name: find(name).reads_lineage)]
    facts.add(short, "without lineage", text=listed(map(called, there["predictor"].unique())))
    there = there[there["value"] >= start]
    passed = r[r["predictor"].isin(baselines_among(r["predictor"])) & (r["difference_upper"] < 0)]
    for word, found in {"worth": there, "overtaken": passed}.items():
        found = found.sort_values(["k", "value"], ascending=[True, False])
        first = found.iloc[0] if len(found) else None
        facts.switch(short, word, value=first is not None)
        earlier = [] if first is None else [k for k in curve["k"].unique() if k < first["k"]]
        facts.add(short, word, "previous", text=f"{max(earlier):g}" if earlier else "0")
        facts.add(short, word, text="" if first is None else f"{first['k']:g}")
        facts.add(short, word, "name", text="" if first is None else called(first["predictor"]))


def describe_ablation(frame, facts, short):
    """r and MAE by strength and by variant; what each variant costs."""
    strengths = frame[frame["strength"].notna()]
    r = strengths[strengths["metric"] == "pearson"].set_index("strength")["value"]
    facts.add(short, "strengths", text=f"{r.index[r.index > 0].min():g} to {r.index.max():g}")
    mae = strengths[strengths["metric"] == "mae"].set_index("strength")["value"]
    for words, values, scale, digits in (("plateau", r, 100, 0), ("plateau mae", mae, 1, 1)):
        values = scale * values[values.index > 0]
        facts.add(short, words, text=tables.number(values.max() - values.min(), digits))
    variants = frame[frame["variant"].notna()]
    named = variants.assign(predictor=variants["variant"].str.replace("%", " percent"))
    facts.macros |= tables.macros_of(named.assign(difference=None), short, "variant")
    r = named[named["metric"] == "pearson"].set_index("predictor")
    whole = r.loc["all of it"]
    for name, row in r.drop("all of it").iterrows():
        worse, better = row["upper"] < whole["lower"], row["lower"] > whole["upper"]
        facts.switch(short, "variant", name, value=1 if worse else -1 if better else 0)


def describe_claims(claims, facts, short):
    """How often the claimed lead is found at random, and each lead of LRMF there."""
    claims = claims[claims["setting"].str.startswith("random")]
    for method, rows in claims.groupby("method", sort=False):
        words = f"random {method} claims"
        low, _ = comparison.CLAIM
        held = sum(sign_of(lead) > 0 and float(lead.split()[0]) >= low for lead in rows["lead"])
        facts.add(short, words, text=len(rows))
        facts.add(short, words, "held", text=held)
    own = claims[claims["method"] == LRMF_ENTRY.label]
    settings = list(own["setting"].unique())
    for place, index in {"first": 0, "middle": len(settings) // 2, "last": -1}.items():
        for row in own[own["setting"] == settings[index]].itertuples():
            facts.add(short, "LRMF random", place, row.rival, text=row.lead)
            facts.switch(short, "LRMF random", place, row.rival, value=sign_of(row.lead))


def sign_of(lead: str) -> int:
    """1 if an interval, as text, lies above zero, -1 below, 0 around it or where there is none.

    Bounds keep their sign, so that a zero without one is at least zero.
    """
    bounds = re.search(r"\[(.+), (.+)\]", lead)
    if bounds is None or {bounds[1], bounds[2]} == {"0.00"}:
        return 0
    return -1 if bounds[2].startswith("-") else int(not bounds[1].startswith("-"))


def describe_calibration(frame, facts, short):
    """Coverage (percent) and width (points) of the 90% intervals, first, last and extreme."""
    frame = frame[frame["predictor"] == FORECASTER.label].sort_values("k")
    single = frame[(frame["benchmark"] != "all") & (frame["metric"] == "coverage")]
    for end in ("lowest", "highest") if len(single) else ():
        value = single["value"]
        row = single.loc[value.idxmin() if end == "lowest" else value.idxmax()]
        facts.add(short, "single coverage", end, text=f"{100 * row['value']:.0f}%")
        facts.add(short, "single coverage", end, "name", text=called(row["benchmark"]))
        facts.add(short, "single coverage", end, "step", text=f"{row['k']:g}")
    frame = frame[frame["benchmark"] == "all"]
    coverage = frame[frame["metric"] == "coverage"].set_index("k")["value"]
    width = frame[frame["metric"] == "width"].set_index("k")["value"]
    for place, index in {"first": 0, "last": -1}.items():
        facts.add(short, "coverage", place, text=f"{100 * coverage.iloc[index]:.0f}%")
    facts.add(short, "width first", text=tables.number(width.iloc[0], 1))
    score = frame[frame["metric"] == "interval_score"].set_index("k")["value"]
    for place, index in {"first": 0, "last": -1}.items():
        facts.add(short, "interval score", place, text=tables.number(score.iloc[index], 1))
    facts.add(short, "coverage lowest", text=f"{100 * coverage.min():.0f}%")
    facts.add(short, "coverage highest", text=f"{100 * coverage.max():.0f}%")
    facts.switch(short, "coverage", value=kept(coverage))


def describe_holdout_coverage(frame, facts, short):
    """Coverage (percent) of the 90% intervals in the random hold-out, and extremes."""
    own = frame[(frame["predictor"] == FORECASTER.label) & (frame["metric"] == "coverage")]
    share = own.set_index("density")["value"].sort_index()
    ends = {"first": share.iloc[0], "last": share.iloc[-1]}
    ends |= {"lowest": share.min(), "highest": share.max()}
    for end, value in ends.items():
        facts.add(short, "random coverage", end, text=f"{100 * value:.0f}%")
    facts.switch(short, "random coverage", value=kept(share))


def kept(share) -> int:
    """Whether coverage stays near the nominal one: -1 if it falls below, 0 if it lies above."""
    return -1 if share.min() < NOMINAL - NEAR else int(share.max() <= NOMINAL + NEAR)


def describe_ingredients(frame, facts, short, words):
    """The forecaster without each ingredient, and the one whose absence costs most of r."""
    facts.compare(frame, short, words)
    cost = frame[(frame["metric"] == "pearson") & (frame["predictor"] != FORECASTER.label)]
    most = cost.loc[[cost["difference"].idxmax()]]
    name = most["predictor"].iloc[0].removeprefix("without ")
    facts.add(short, words, "most name", text=name)
    facts.compare(most.assign(predictor="most"), short, words)


def is_earlier(folder: Path) -> bool:
    """Whether results are those of the forecaster that was a stack of forests and boosted trees."""
    predictors = pd.read_csv(folder / "ingredients.csv", usecols=["predictor"])["predictor"]
    return bool(predictors.eq("without trees").any())


def describe_gains(frame, facts, short):
    """What lineage takes off the error of Forecaster, in points, by distance, and the switch."""
    for row in frame[frame["predictor"] == "without lineage"].itertuples():
        if row.stratum == "distance":
            saved = -row.difference, -row.difference_upper, -row.difference_lower
            facts.add(short, "gain", row.level, text=tables.interval(*saved, 1))
            facts.add(short, "gain", row.level, "models", text=f"{row.n_models:,}")
            facts.switch(short, "gain", row.level, value=who_is_ahead(row))


def describe_kinship(results, facts):
    """How much children take after parents, and how much energy is in low frequencies."""
    pairs = results.read("parent_child")
    own = pairs[pairs["relation"] == "any"].set_index("benchmark")["r"]
    facts.add(results.short, "parent child", text=tables.number(own["average"], 2))
    pairs = pairs[pairs["relation"] == "any"].set_index("benchmark")["n"]
    facts.add(results.short, "parent child models", text=f"{pairs['average']:,}")
    single = own.drop("average")
    for end, name in {"lowest": single.idxmin(), "highest": single.idxmax()}.items():
        facts.add(results.short, "parent child", end, text=tables.number(single[name], 2))
        facts.add(results.short, "parent child", end, "name", text=called(name))
    energy = results.read("spectrum").query("frequencies == 0.25 and benchmark == 'all'")
    energy = energy.set_index("part")
    for part, words in {"all frequencies": "energy", "within families": "energy within"}.items():
        facts.add(results.short, words, text=f"{100 * energy.loc[part, 'energy']:.0f}%")
        facts.add(
            results.short, words, "shuffled", text=f"{100 * energy.loc[part, 'shuffled']:.0f}%"
        )


# ---- what the code says


def describe_code(root, facts):
    """Settings of the study, defaults of the estimator, and the claim that is tested."""
    for short in RUNS:
        settings = settings_of(root, short, "04_baselines")
        for name in ("n_folds", "n_seeds", "n_boot", "ablation_folds"):
            if name not in settings:
                raise PaperError(
                    f"notebooks/04_baselines.ipynb has no parameter {name} any more, which the "
                    "paper quotes; change describe_code and the text"
                )
            facts.add(short, name.replace("_", " "), text=f"{settings[name]:,}")
        n_seeds = settings["n_seeds"]
        facts.add(short, "seeds", text="one seed" if n_seeds == 1 else f"{n_seeds} seeds")
    for words, claim in {"claim": comparison.CLAIM, "published claim": PUBLISHED_CLAIM}.items():
        for end, points in zip(("low", "high"), claim, strict=True):
            facts.add(words, end, text=f"{100 * points:.0f}")
    facts.add("near", text=f"{100 * NEAR:.0f}")
    describe_constants(facts)


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


def describe_constants(facts):
    """Constants of the method, as the code has them."""
    for words, (module, name) in CONSTANTS.items():
        if not hasattr(module, name):
            place = getattr(module, "__name__", type(module).__name__)
            raise PaperError(
                f"{place} has no {name} any more, which the paper quotes; change "
                "CONSTANTS in paper/generate.py and the text"
            )
        value = getattr(module, name)
        scale = 100 if words in SHARES else 1
        values = [f"{scale * one:,g}" for one in np.atleast_1d(value)]
        facts.add(words, text=listed(values, "or"))
    facts.add("feature ridge", text=f"{defaults_of(prior.LineagePrior)['feature_ridge']:g}")
    for relation, jump in descriptions.JUMPS.items():
        facts.add("jump", relation, text=f"{jump:g}")


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


def data_tables(root, facts) -> dict[str, str]:
    """What the data are: counted from the results, checked against data/README.md."""
    columns, documented = {}, documented_data(root)
    for short in RUNS:
        results = Results(root, short)
        counts = counts_of(results)
        patterns = results.read("missing_blocks")
        share = (patterns["n_models"] * patterns["evaluated"]).sum() / patterns["n_models"].sum()
        columns[short] = {
            "models": f"{counts['models']:,}",
            "columns": f"{counts['items']:,}",
            "benchmarks": str(patterns["benchmark"].nunique()),
            "models per benchmark": f"{100 * share:.0f}%",
            "lineage edges": f"{counts['edges']:,}",
            "families of two or more": f"{counts['families']:,}",
            "largest family, nodes": f"{counts['largest family']:,}",
        }
        if short in REAL:
            check_documented(short, counts, documented[short])
            known = documented[short]["models with a known parent"]
            facts.add(short, "known parent", text=re.search(r"\((\d+%)\)", known)[1])
            facts.add(short, "unscored", text=documented[short]["unscored ancestors"])
            columns[short]["models with a known parent"] = known
            for relation in ("finetune", "merge", "adapter", "quantized"):
                count = re.search(rf"([\d,]+) {relation}", documented[short]["edges"])[1]
                facts.add(short, relation, text=count)
    frame = pd.DataFrame(columns).rename(columns=TITLES)[["v1", "v2", "simulated"]]
    frame.index.name = ""
    return {"table_data": tabular(frame)}


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


def result_tables(root) -> dict[str, str]:
    """Tables of results: real snapshots side by side, simulated ones on their own."""
    runs = {short: Results(root, short) for short in RUNS}
    files = {}
    for name, shorts in {"": REAL, "_sim": ["sim"]}.items():
        chosen = {short: runs[short] for short in shorts}
        zero_shot = {s: leads(r.read("zero_shot")) for s, r in chosen.items()}
        files[f"table_zero_shot{name}"] = joined(zero_shot)
        for table in ("few_shot", "random_holdout"):
            curves = {s: curve(r, table) for s, r in chosen.items()}
            files[f"table_{table}{name}"] = joined(curves)
            if table == "random_holdout":
                short = {
                    s: frame.drop(index=LEFT_OUT, errors="ignore") for s, frame in curves.items()
                }
                files[f"table_{table}_short{name}"] = joined(short)
        files[f"table_variant{name}"] = joined(
            {s: r.table("variant", index_col=0)[["r"]] for s, r in chosen.items()}, name="lineage"
        )
    files["table_ingredients"] = joined(
        {s: ingredients(runs[s].read("ingredients")) for s in REAL}, name="forecaster"
    )
    given = {s: ingredients(runs[s].read("ingredients_few_shot")) for s in REAL}
    files["table_ingredients_given"] = joined(given, name="forecaster")
    for short, results in runs.items():
        files[f"table_claim_{short}"] = claim_table(results.table("claim"))
        for table in ("accuracy", "benchmarks", "strata", "strength", "training"):
            files[f"table_{table}_{short}"] = tabular(shortened(results.table(table, index_col=0)))
        if short in REAL:
            frame = shortened(results.table("choices", index_col=0))
            frame.index = frame.index.where(~frame.index.duplicated(), "")
            files[f"table_choices_{short}"] = tabular(frame)
        later = results.read("later_models", optional=True)
        if later is not None:
            files[f"table_dates_{short}"] = tabular(shortened(leads(later)))
            by_benchmark = shortened(results.table("later_benchmarks", index_col=0))
            files[f"table_later_benchmarks_{short}"] = tabular(by_benchmark)
    return files


def claim_table(claims) -> str:
    """The leads of LRMF and of Forecaster side by side, with verdicts."""
    parts = {}
    for method, rows in claims.groupby("method", sort=False):
        rows = shortened(rows.set_index("setting"))
        rows = rows.rename(columns={"rival": "predictor"}).set_index("predictor", append=True)
        parts[method] = rows[["lead", "verdict"]]
    wide = pd.concat(parts, axis=1).reset_index("predictor")
    wide.columns = ["rival", *(f"{column}|{method}" for method, column in wide.columns[1:])]
    wide.index = wide.index.where(~wide.index.duplicated(), "")
    return tabular(wide, groups=[("", 1), *((method, 2) for method in parts)])


def leads(frame) -> pd.DataFrame:
    """r with its interval, the lead of Forecaster, and the MAE, by predictor that ranks models."""
    r = frame[frame["metric"] == "pearson"].set_index("predictor")
    r = r.drop(index=LEFT_OUT, errors="ignore")
    r = r[(r["lower"] != 0) | (r["upper"] != 0)]
    mae = frame[frame["metric"] == "mae"].set_index("predictor")["value"]
    lead = [
        tables.NONE
        if name == FORECASTER.label
        else tables.interval(row.difference, row.difference_lower, row.difference_upper, 2)
        for name, row in r.iterrows()
    ]
    return pd.DataFrame(
        {
            "r [95% interval]": [
                tables.interval(*row, 2) for row in r[["value", "lower", "upper"]].to_numpy()
            ],
            "lead of Forecaster in r": lead,
            "MAE": [tables.number(mae.get(name), 1) for name in r.index],
        },
        index=r.index,
    )


def ingredients(frame) -> pd.DataFrame:
    """r, and what leaving an ingredient out costs of it."""
    r = frame[frame["metric"] == "pearson"].set_index("predictor")
    cost = [
        tables.NONE
        if row.Index == FORECASTER.label
        else tables.interval(row.difference, row.difference_lower, row.difference_upper, 2)
        for row in r.itertuples()
    ]
    return pd.DataFrame({"r": r["value"].map("{:.2f}".format), "cost in r": cost})


def curve(results, name) -> pd.DataFrame:
    """r by predictor and step; shares in percent."""
    frame = results.table(name, index_col=0)
    if name == "random_holdout":
        return frame.rename(columns=lambda share: f"{100 * float(share):g}%")
    return frame


def shortened(frame) -> pd.DataFrame:
    """The same with names and settings short enough for a column."""
    frame = frame.rename(index=called, columns=called)
    frame.index = frame.index.str.replace(
        r"random hold-out, (.*) observed", r"hold-out, \1", regex=True
    )
    if "rival" in frame:
        frame["rival"] = frame["rival"].map(called)
    return frame


def code_tables(root) -> dict[str, str]:
    """Defaults of estimator and baselines, parameters of the study, items of the simulation."""
    rows = {name: _plain(value) for name, value in defaults_of(LRMF).items()}
    files = {"table_defaults": _listing(rows, "parameter", "default")}
    rows = {}
    built = [entry.build(Study(ANSWERS)) for entry in PREDICTORS.values() if entry.build]
    for kind in sorted({Tuned, *map(type, built)}, key=lambda kind: kind.__name__):
        known = defaults_of(kind)
        rows[kind.__name__] = (
            ", ".join(f"{k}={_plain(v)}" for k, v in known.items() if k != "seed") or "none"
        )
    files["table_baselines"] = _wrapped(_listing(rows, "class", "defaults"))
    rows = {}
    for notebook in ("04_baselines", "05_cold_start"):
        simulated, real = (settings_of(root, short, notebook) for short in ("sim", "v1"))
        for name in simulated.keys() - {"run", "snapshot", "seed", "n_jobs"}:
            rows[name] = {"simulated": _plain(simulated[name]), "real": _plain(real[name])}
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_index().rename_axis("parameter")
    files["table_settings"] = _wrapped(tabular(frame))
    rank = settings_of(root, "v1", "04_baselines")["rank"]
    columns = {"answers (v1)": grids(ANSWERS, rank), "scores (v2)": grids(PROPORTIONS, rank)}
    frame = pd.DataFrame(columns).rename(index=called).rename_axis("predictor")
    files["table_grids"] = _wrapped(tabular(frame))
    items = {called(name): parts for name, parts in SUBTASK_ITEMS.items()}
    rows = {name: f"{sum(parts.values()):,} in {len(parts)}" for name, parts in items.items()}
    files["table_items"] = _listing(rows, "benchmark", "items in subtasks")
    names = {FINETUNE: "finetune", MERGE: "merge", ADAPTER: "adapter", QUANTIZED: "quantized"}
    kept = {
        names[kind]: {"a": f"{a:g}", "b": f"{b:g}", "mean": tables.number(a / (a + b), 2)}
        for kind, (a, b) in AnswerConfig().retention.items()
    }
    frame = pd.DataFrame.from_dict(kept, orient="index").rename_axis("descent")
    files["table_retention"] = tabular(frame)
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


# ---- the solver beside its peers, where it was measured


def describe_bench(root, facts) -> dict[str, str]:
    """Table and macros of bench/results; without these the paper leaves the paragraph out."""
    folder = root / "bench" / "results"
    facts.switch("bench", value=(folder / "summary.csv").exists())
    if not (folder / "summary.csv").exists():
        return {}
    summary = pd.read_csv(folder / "summary.csv")
    needed = {"problem", "solver", "fit_cpu", "cpu_to_loss", "ratio_loss", "loss", "peak_mb"}
    if missing := sorted(needed - set(summary.columns)):
        raise PaperError(f"bench/results/summary.csv lacks {missing[0]}; run `make bench`")
    frames = {}
    for spec in full_plan().problems:
        facts.add("bench", spec.name, "models", text=f"{spec.n_models:,}")
        facts.add("bench", spec.name, "items", text=f"{spec.n_items:,}")
        facts.add("bench", spec.name, "density", text=f"{100 * spec.density:g}%")
    for problem, rows in summary.groupby("problem", sort=False):
        rows = rows.set_index("solver")
        ratio = [_ratio(row) for row in rows.to_dict("records")]
        frames[problem] = pd.DataFrame(
            {
                f"fit, s|{problem}": rows["fit_cpu"].map("{:.2f}".format),
                f"to loss, s|{problem}": [_seconds(one) for one in rows["cpu_to_loss"]],
                f"ratio|{problem}": ratio,
                f"MB|{problem}": rows["peak_mb"].map("{:.0f}".format),
            }
        )
        own = rows.loc["LRMF"]
        facts.add("bench", problem, "seconds", text=tables.number(own["fit_cpu"], 1))
        facts.add("bench", problem, "seconds to loss", text=tables.number(own["cpu_to_loss"], 1))
        facts.add("bench", problem, "memory", text=f"{own['peak_mb']:.0f}")
        same = rows[rows["excess"].notna()].drop(index="LRMF") if "excess" in rows else rows[:0]
        if len(same):
            facts.add("bench", problem, "nearest", text=f"{same['ratio_loss'].min():.2g}")
            facts.add("bench", problem, "nearest name", text=same["ratio_loss"].idxmin())
    wide = pd.concat(frames.values(), axis=1).rename_axis("solver")
    groups = [(problem, 4) for problem in frames]
    return {"table_bench": tabular(wide, groups=groups)}


def _seconds(value) -> str:
    return tables.number(value, 2) if value < 100 else tables.number(value, 0)


def _ratio(row) -> str:
    """CPU seconds to the log-loss of LRMF, over those of LRMF; a bound where it was not reached."""
    if pd.isna(row["cpu_to_loss"]):
        return "never" if pd.isna(row.get("excess")) else f"> {row['ratio_loss']:.3g}"
    return f"{row['ratio_loss']:.3g}"
