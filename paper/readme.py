"""What README and docs say of the results: ``python -m paper.readme``.

Findings and the table of README.md, the table of docs/claims.md, and figures/claims.json, all from
the committed results. `check` compares instead of writing.
"""

import json
import sys
import textwrap
from pathlib import Path

import pandas as pd

from lrmf.baselines.registry import BOOSTING, FORECASTER, LRMF, MULTI_HOP, find
from lrmf.files import OutputError, write_text
from lrmf.report.tables import interval, number

from .results import ROOT, PaperError, Results, listed
from .results import RUNS as FOLDERS

RUNS = {"simulated": "sim", "v1": "v1", "v2": "v2", "mteb": "mteb"}
READS = {  # what each predictor reads of a model that has no answers, from nothing to everything
    "item mean": "nothing",
    "boosting on features": "card",
    MULTI_HOP.label: "tree",
    LRMF.label: "tree, card if it helps",
    BOOSTING.label: "card, name, tree",
    FORECASTER.label: "card, name, tree",
}


class _Run(Results):
    """The CSVs of a run, and what README and docs quote of them."""

    def claims(self) -> pd.DataFrame:
        return self.read("tables/claims", keep_default_na=False)

    def claim(self, claim, setting="zero-shot"):
        """The row about a claim in a setting."""
        rows = self.claims()
        return rows[(rows["claim"] == claim) & (rows["setting"] == setting)].iloc[0]

    def value(self, frame, metric="pearson", predictor=FORECASTER.label, **labels):
        """Row of a frame as `bootstrap` makes it."""
        rows = self.read(frame)
        for name, value in {"metric": metric, "predictor": predictor, **labels}.items():
            rows = rows[rows[name] == value]
        return rows.iloc[0]

    def r(self, frame="zero_shot", **labels):
        return interval(*self.value(frame, **labels)[["value", "lower", "upper"]], 2)

    def mae(self, frame="zero_shot", **labels):
        return number(self.value(frame, "mae", **labels)["value"], 1)


def findings(root: Path = ROOT) -> str:
    """What the real data say, in sentences that hold whatever the numbers are."""
    v1, v2, mteb = (_Run(root, short) for short in ("v1", "v2", "mteb"))
    runs = v1, v2, mteb
    n_models = [f"{run.value('zero_shot')['n_models']:,}" for run in runs]
    against = "LRMF against factorization with model features"
    claimed = {
        setting: listed([run.claim(against, setting).measured for run in (v1, v2)])
        for setting in ("zero-shot", "2% of cells", "10% of cells")
    }
    added = {
        name: listed([_points(run, "ingredients", f"without {part}") for run in runs])
        for name, part in {"tree": "lineage", "card": "cards", "name": "names"}.items()
    }
    texts = [
        "**A family tree, a model card and a name are enough to forecast a model that nobody has "
        f"evaluated.** On {listed(n_models)} held-out models of the Open LLM Leaderboards v1 and "
        "v2 and of the text embedding benchmark MTEB, forecasts correlate with the actual scores "
        f"at r = {listed([run.r() for run in runs])}; the mean absolute errors are "
        f"{listed([run.mae() for run in runs])} points. The improvement in r over boosted trees "
        f"that read the same data is {listed([_judged(run) for run in runs])}.",
        "**Forecasts are less accurate in the settings where decisions are made.** As at a model's "
        "release (descendants hidden; on v2 and MTEB also everything dated later), r is "
        f"{_released(v1)} on v1, {_released(v2)} on v2 and {_released(mteb)} on MTEB. For models "
        f"later than all training models, it is {v2.r('later_models')} on v2 and "
        f"{mteb.r('later_models')} on MTEB; within a family, where one picks a base model, "
        f"{v1.r('within_families', family='mean')} on v1 ({_families(v1)}) and "
        f"{v2.r('within_families', family='mean')} on v2 ({_families(v2)}). "
        f"{_by_others(root)} For models better than "
        f"every training model, the errors are {_best(v1, 'MAE')} and {_best(v2, 'MAE')} points, "
        f"and 90% intervals cover {_best(v1, 'coverage')} and {_best(v2, 'coverage')}.",
        "**Tree, card and name are largely redundant, and on v1 a few dozen answers are worth as "
        f"much as all three.** Leaving out the tree costs {added['tree']} points of r on v1, v2 "
        f"and MTEB, the card {added['card']}, the name {added['name']}. Lineage changes the r of a "
        f"factorization that reads cards by {claimed['zero-shot']} points zero-shot (the original "
        f"authors report 7 to 10, then 15 to 30), by {claimed['2% of cells']} with a random 2% "
        f"of all cells, and by {claimed['10% of cells']} with 10%. On v1, kNN, which reads none of "
        f"the three, reaches r = {_curve(v1, (50,), 'kNN')} from 50 answers of a model, the "
        f"Forecaster {_curve(v1, (50,))}. With 20 answers chosen one at a time by `lrmf next`, the "
        f"Forecaster's error is {_chosen(v1, 'chosen')} points, with 20 random answers "
        f"{_chosen(v1, 'random')} ({_asked(v1)} models).",
    ]
    wrapped = [
        textwrap.fill(f"{n}. {text}", 115, subsequent_indent="   ", break_on_hyphens=False)
        for n, text in enumerate(texts, 1)
    ]
    return "\n".join(wrapped)


def _judged(run) -> str:
    """Improvement of the Forecaster over boosted trees in points of r, and the verdict."""
    row = run.claim(f"Forecaster against {BOOSTING.label}")
    return f"{row.measured} points ({row.verdict})"


def _chosen(run, how, n=20) -> str:
    """Error with n answers, chosen or random, forecast with lineage."""
    rows = run.read("chosen_answers").set_index(["strategy", "n_answers"])
    return number(rows["mae"][f"{how}, with lineage", n], 1)


def _asked(run) -> str:
    """How many held-out models `_chosen` is an average over."""
    return f"{run.read('chosen_answers')['n_models'].max():,}"


def _families(run) -> str:
    """Over how many families the results inside families are averaged."""
    return f"mean of {run.value('within_families', family='mean')['n_clusters']} families"


def _released(run) -> str:
    """Correlation as at release, and that of the same models with all relatives."""
    now = run.value("as_at_release", known="as at release")
    before = number(run.value("as_at_release", known="all relatives")["value"], 2)
    return f"{interval(*now[['value', 'lower', 'upper']], 2)} (with all relatives {before})"


def _points(run, frame, predictor) -> str:
    """Difference in r of the Forecaster to a predictor, in points with its interval."""
    row = run.value(frame, predictor=predictor)
    bounds = row[["difference", "difference_lower", "difference_upper"]]
    return interval(*(100 * bounds), 0)


def _by_others(root) -> str:
    """Forecasts of models that a second evaluator added to v2, and the scores of their parents."""
    table = pd.read_csv(root / "bench" / "results" / "ablation_openllm-v2-derived.csv")
    table = table[table["benchmark"] == "all"].set_index(["predictor", "metric"])
    own, parents = (
        [number(table["value"][name, metric], n) for metric, n in (("pearson", 2), ("mae", 1))]
        for name in (FORECASTER.label, "parents' mean")
    )
    bounds = table.loc[(FORECASTER.label, "pearson"), ["value", "lower", "upper"]]
    return (
        f"For {table['n_models'].max():,} models of {table['n_clusters'].max():,} families that "
        f"others evaluated later ([data](data/README.md)), r is {interval(*bounds, 2)} and the "
        f"error {own[1]} points; the scores of their parents, taken as the forecast, give "
        f"{parents[0]} and {parents[1]}."
    )


def _best(run, metric) -> str:
    """Accuracy of forecasts of models that are better than every training model."""
    table = run.read("tables/extrapolation").set_index("predictor")
    return table[metric][FORECASTER.label].split(" ")[0]


def _curve(run, steps, predictor=FORECASTER.label) -> str:
    chosen = {"predictor": predictor}
    return listed([number(run.value("few_shot", k=k, **chosen)["value"], 2) for k in steps])


def results_table(root: Path = ROOT) -> str:
    """Markdown: r with its interval and MAE by predictor, a column a run."""
    lines = [("the forecast reads", "predictor", *RUNS), ("---",) * (2 + len(RUNS))]
    for label, reads in READS.items():
        cells = []
        for short in RUNS.values():
            run = _Run(root, short)
            r = run.r(predictor=label)
            r = r if not r.startswith("0.00") else "0"
            cells.append(f"{r} · {run.mae(predictor=label)}")
        lines.append((reads, f"**{label}**" if find(label) is FORECASTER else label, *cells))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def claims_table(root: Path = ROOT) -> str:
    """Markdown of all claims and settings, a column a run: what was measured and the verdict."""
    columns = {}
    for title, short in RUNS.items():
        table = _Run(root, short).claims().set_index(["claim", "setting"])
        columns[title] = table["measured"] + ": **" + table["verdict"] + "**"
    frame = pd.concat(columns, axis=1, sort=False).fillna("")
    frame = frame.loc[sorted(frame.index, key=_place(columns))]
    lines = [("claim", "setting", *frame.columns), ("---",) * (2 + len(columns))]
    lines += [(*index, *cells) for index, cells in zip(frame.index, frame.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _place(columns):
    """Key that keeps the claims in their order, and the settings within each from few to many."""
    claims = list(dict.fromkeys(claim for column in columns.values() for claim, _ in column.index))

    def key(index):
        claim, setting = index
        head = setting.split(" ")[0].rstrip("%")
        is_number = head.replace(".", "", 1).isdigit()
        later = ["later models", "as at release", "inside families", "better than all seen"]
        group = ("known" in setting) + 2 * ("cells" in setting)
        group += 3 + later.index(setting) if setting in later else 0
        return claims.index(claim), group, float(head) if is_number else 0.0

    return key


def claims_json(root: Path = ROOT) -> str:
    """All claims of all runs, for programs: run, claim, setting, verdict, value, lower, upper."""
    rows = [
        {"run": FOLDERS[short], **{key: _typed(key, value) for key, value in row.items()}}
        for short in RUNS.values()
        for row in _Run(root, short).claims().to_dict("records")
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _typed(key, value):
    """A cell of a table of texts: a number where the column holds numbers, None where empty."""
    if value == "":
        return None
    return float(value) if key in ("value", "lower", "upper") else value


def _filled(text: str, name: str, content: str) -> str:
    """A document with what stands between the two marks of this name made anew."""
    start, end = f"<!-- {name}: python -m paper.readme -->", f"<!-- end of {name} -->"
    before, _, rest = text.partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"needs a line {start} and a line {end}")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Every document that quotes results, as it should be."""
    readme, claims = root / "README.md", root / "docs" / "claims.md"
    text = _filled(readme.read_text(encoding="utf-8"), "findings", findings(root))
    return {
        readme: _filled(text, "results", results_table(root)),
        claims: _filled(claims.read_text(encoding="utf-8"), "claims", claims_table(root)),
        root / "figures" / "claims.json": claims_json(root),
    }


if __name__ == "__main__":
    try:
        for path, text in documents().items():
            write_text(path, text)
    except (OSError, ValueError, PaperError, OutputError) as reason:
        sys.exit(f"paper.readme: {reason}")
