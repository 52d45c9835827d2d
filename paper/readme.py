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
from lrmf.evaluation.bootstrap import BETTER, LEVEL
from lrmf.files import OutputError, write_text
from lrmf.report.tables import interval, number

from .results import ROOT, PaperError, Results, is_earlier, listed
from .results import RUNS as FOLDERS

RUNS = {"simulated": "sim", "v1": "v1", "v2": "v2"}
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
    v1, v2 = _Run(root, "v1"), _Run(root, "v2")
    added = [run.claim("Forecaster against Forecaster without lineage") for run in (v1, v2)]
    trees = [run.claim(f"Forecaster against {BOOSTING.label}") for run in (v1, v2)]
    kind = "above factorization with model features"
    claimed = [run.claim(f"LRMF 7 to 10 points of r {kind}") for run in (v1, v2)]
    published = [run.claim(f"LRMF 15 to 30 points of r {kind}") for run in (v1, v2)]
    few = [run.claim("90% intervals of Forecaster", "2% of cells") for run in (v1, v2)]
    covered = [row.measured.removeprefix("coverage ") for row in few]
    n_models = [int(run.value("zero_shot")["n_models"]) for run in (v1, v2)]
    released = {"known": "as at release"}
    texts = [
        "**A family tree, a card and a name forecast a model that nobody has evaluated.** For "
        f"{n_models[0]} held-out models of Open LLM Leaderboard v1 and {n_models[1]} of v2, "
        f"forecast and actual scores correlate {v1.r()} and {v2.r()}, with mean absolute errors of "
        f"{v1.mae()} and {v2.mae()} points.",
        "**With less to go by it is harder.** From what was there at a model's release (no "
        "descendant of it and, on v2, nothing that came later), the correlation is "
        f"{v1.r('as_at_release', **released)} and {v2.r('as_at_release', **released)}; for models "
        f"of v2 that came later than all the fit has seen, {v2.r('later_models')}, with an error "
        f"of {v2.mae('later_models')} points. Inside a family, where one picks what to build on, "
        f"it is {v1.r('within_families', family='mean')} ({_families(v1)} of v1) and "
        f"{v2.r('within_families', family='mean')} ({_families(v2)} of v2).",
        "**Tree, card and name say much the same.** Beside the other two, the tree is worth "
        f"{added[0].measured} points of r on v1 and {added[1].measured} on v2. Boosted trees "
        f"that read all three are {_gap(trees[0])} on v1 and {_gap(trees[1])} on v2. Over a "
        f"factorization that reads cards, lineage is worth {claimed[0].measured} and "
        f"{claimed[1].measured} points: the 7 to 10 points first claimed for it are "
        f"{claimed[0].verdict} on v1 and {claimed[1].verdict} on v2, the 15 to 30 points "
        f"published are {published[0].verdict} and {published[1].verdict}.",
        "**A few answers replace all of it.** With 5, 20 and 50 answers of a model known, "
        f"forecasts on v1 correlate {_curve(v1, (5, 20, 50))}; with 1, 2 and 4 of the six "
        f"benchmarks of v2, {_curve(v2, (1, 2, 4))}. Answers count for more when `lrmf next` "
        f"chooses them: 20 chosen ones leave an error of {_chosen(v1, 'chosen')} points on v1, 20 "
        f"random ones {_chosen(v1, 'random')}. Where 2% of the cells of all models are "
        f"known at random, 90% intervals cover {covered[0]} on v1 and {covered[1]} on v2.",
    ]
    wrapped = [
        textwrap.fill(f"{n}. {text}", 100, subsequent_indent="   ", break_on_hyphens=False)
        for n, text in enumerate(texts, 1)
    ]
    return "\n".join(wrapped) + earlier_results(root)


def _chosen(run, how, n=20) -> str:
    """Error with n answers, chosen or random, forecast with lineage."""
    rows = run.read("chosen_answers").set_index(["strategy", "n_answers"])
    return number(rows["mae"][f"{how}, with lineage", n], 1)


def _families(run) -> str:
    """Over how many families the results inside families are averaged."""
    return f"mean of {run.value('within_families', family='mean')['n_clusters']} families"


def _gap(row) -> str:
    """Where a baseline stands, from the Forecaster's difference to it."""
    if row.verdict == LEVEL:
        return f"level with it ({row.measured})"
    return f"{'behind' if row.verdict == BETTER else 'ahead'} by {row.measured.lstrip('+-')}"


def _curve(run, steps) -> str:
    return listed([number(run.value("few_shot", k=k)["value"], 2) for k in steps])


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
        group = ("known" in setting) + 2 * ("cells" in setting) + 3 * (setting == "later models")
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


def earlier_results(root: Path = ROOT) -> str:
    """A sentence: which columns an earlier forecaster has made; empty if none."""
    earlier = [title for title, s in RUNS.items() if is_earlier(root / "figures" / FOLDERS[s])]
    if not earlier:
        return ""
    return f"\n\n*Forecaster* in {listed(earlier)} is still an earlier version."


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
