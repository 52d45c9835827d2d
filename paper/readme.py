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
SEES = {  # what each predictor reads of a model that has no answers, from nothing to everything
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
    trees = [run.claim(f"Forecaster against {BOOSTING.label}") for run in (v1, v2)]
    kind = "above factorization with model features"
    claimed = [run.claim(f"LRMF 7 to 10 points of r {kind}") for run in (v1, v2)]
    published = [run.claim(f"LRMF 15 to 30 points of r {kind}") for run in (v1, v2)]
    few = [run.claim("90% intervals of Forecaster", "2% of cells") for run in (v1, v2)]
    covered = [row.measured.removeprefix("coverage ") for row in few]
    n_models = [int(run.value("zero_shot")["n_models"]) for run in (v1, v2)]
    added = {
        name: listed([_points(run, "ingredients", f"without {part}") for run in (v1, v2)])
        for name, part in {"tree": "lineage", "card": "cards", "name": "names"}.items()
    }
    texts = [
        "**A family tree, a card and a name forecast a model that nobody has evaluated.** For "
        f"{n_models[0]} held-out models of Open LLM Leaderboard v1 and {n_models[1]} of v2, "
        f"forecast and actual scores correlate {v1.r()} and {v2.r()}, with mean absolute errors of "
        f"{v1.mae()} and {v2.mae()} points.",
        "**At release, later and inside families, less is certain.** From what was available at a "
        "model's release (no descendant of it and, on v2, nothing that came later), the "
        f"correlation is {_released(v1)} on v1 and {_released(v2)} on v2; for models of v2 that "
        f"came later than all the fit has seen, {v2.r('later_models')}, with an error of "
        f"{v2.mae('later_models')} points. Inside a family, where one picks what to build on, it "
        f"is {v1.r('within_families', family='mean')} ({_families(v1)} of v1) and "
        f"{v2.r('within_families', family='mean')} ({_families(v2)} of v2). Models better than all "
        f"that the fit has seen are missed by {_best(v1)} and {_best(v2)} points.",
        "**Tree, card and name say much the same.** Beside the other two, the tree is worth "
        f"{added['tree']} points of r on v1 and v2, the card {added['card']}, the name "
        f"{added['name']}. The lead over boosted trees that read all three is {trees[0].measured} "
        f"and {trees[1].measured}. Over a factorization that reads cards, lineage is worth "
        f"{claimed[0].measured} and {claimed[1].measured} points: the 7 to 10 points first claimed "
        f"for it are {claimed[0].verdict} on v1 and {claimed[1].verdict} on v2, the 15 to 30 "
        f"points published are {published[0].verdict} on v1 and {published[1].verdict} on v2.",
        "**A few dozen answers say as much.** kNN, which reads none of the three, correlates "
        f"{_curve(v1, (20, 50), 'kNN')} on v1 with 20 and 50 answers of a model known, and "
        f"{_curve(v2, (4,), 'kNN')} on v2 with four of the six benchmarks; together with the "
        f"three, {_curve(v1, (20, 50))}, and {_curve(v2, (4,))}. Answers count for more when "
        f"`lrmf next` chooses them: 20 chosen ones leave an error of {_chosen(v1, 'chosen')} "
        f"points, 20 random ones {_chosen(v1, 'random')} ({_asked(v1)} models of v1). Where 2% of "
        f"the cells of all models are known at random, 90% intervals cover {covered[0]} on v1 and "
        f"{covered[1]} on v2.",
        "**Text embedding models are another test.** For "
        f"{int(mteb.value('zero_shot')['n_models'])} held-out models of MTEB the correlation is "
        f"{mteb.r()}, the error {mteb.mae()} points; the lead over boosted trees is "
        f"{_judged(mteb, 'zero-shot')}. Where 10% of the cells of all models are known at random, "
        f"it is {_judged(mteb, '10% of cells')}; the errors are "
        f"{mteb.mae('random_holdout', density=0.1)} points with {FORECASTER.label} and "
        f"{mteb.mae('random_holdout', density=0.1, predictor=BOOSTING.label)} with the trees.",
    ]
    wrapped = [
        textwrap.fill(f"{n}. {text}", 100, subsequent_indent="   ", break_on_hyphens=False)
        for n, text in enumerate(texts, 1)
    ]
    return "\n".join(wrapped)


def _judged(run, setting) -> str:
    """Lead of the Forecaster over boosted trees in points of r, and the verdict."""
    row = run.claim(f"Forecaster against {BOOSTING.label}", setting)
    return f"{row.measured} points of r ({row.verdict})"


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
    """Correlation as at release, that of the same models with all relatives, and their number."""
    now = run.value("as_at_release", known="as at release")
    before = number(run.value("as_at_release", known="all relatives")["value"], 2)
    r = interval(*now[["value", "lower", "upper"]], 2)
    return f"{r} ({now['n_models']} models; with all relatives {before})"


def _points(run, frame, predictor) -> str:
    """Difference in r of the Forecaster to a predictor, in points with its interval."""
    row = run.value(frame, predictor=predictor)
    bounds = row[["difference", "difference_lower", "difference_upper"]]
    return interval(*(100 * bounds), 0)


def _best(run) -> str:
    """Error of forecasts of the models that are better than all that the fit has seen."""
    table = run.read("tables/extrapolation").set_index("predictor")
    return table["MAE"][FORECASTER.label].split(" ")[0]


def _curve(run, steps, predictor=FORECASTER.label) -> str:
    chosen = {"predictor": predictor}
    return listed([number(run.value("few_shot", k=k, **chosen)["value"], 2) for k in steps])


def results_table(root: Path = ROOT) -> str:
    """Markdown: r with its interval and MAE by predictor, a column a run."""
    lines = [("the forecast reads", "predictor", *RUNS), ("---",) * (2 + len(RUNS))]
    for label, seen in SEES.items():
        cells = []
        for short in RUNS.values():
            run = _Run(root, short)
            known = set(run.read("zero_shot")["predictor"])
            chosen = {"predictor": label}
            r = run.r(**chosen) if label in known else ""
            r = r if not r.startswith("0.00") else "0"
            cells.append(f"{r} · {run.mae(**chosen)}" if r else "not in this run")
        lines.append((seen, f"**{label}**" if find(label) is FORECASTER else label, *cells))
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
        {"run": FOLDERS[short], **{k: v if v != "" else None for k, v in row.items()}}
        for short in RUNS.values()
        for row in _Run(root, short).claims().to_dict("records")
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


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
