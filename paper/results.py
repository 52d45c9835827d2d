"""The committed results that the paper, README and docs quote: read, counted, checked."""

import inspect
import re
from pathlib import Path

import pandas as pd

from lrmf.baselines.registry import find
from lrmf.report import tables
from lrmf.report.knowledge_figure import CEILING
from lrmf.report.style import benchmark_name
from notebooks.run import declared_parameters, resolve_parameters

ROOT = Path(__file__).resolve().parents[1]
PAPER = Path(__file__).resolve().parent
RUNS = {"sim": "full", "v1": "openllm-v1-items", "v2": "openllm-v2", "mteb": "mteb"}
# In the order of tables and figures.
TITLES = {"v1": "v1", "v2": "v2", "mteb": "MTEB", "sim": "simulated"}
BRIEF = {"mteb"}  # runs that may lack what notebook 05 measures
REAL = ["v1", "v2"]  # the leaderboards that the text is about


class PaperError(Exception):
    """Something the paper needs is not there; the message names it and the way out."""


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
        if optional or self.short in BRIEF:
            return None
        run = "full" if self.short == "sim" else f"snapshot SNAPSHOT=path/to/{self.run}"
        raise PaperError(
            f"figures/{self.run}/{name}.csv is missing; run `make reproduce RUN={run}`, or "
            "restore it with `git checkout figures`"
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


def points(*bounds) -> str:
    """A difference in r with its interval, in points: hundredths of r."""
    return tables.interval(*(100 * bound for bound in bounds), 0)


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


def documented_data(root) -> dict[str, dict[str, str]]:
    """The table of the two leaderboard snapshots in data/README.md, by run and row."""
    lines = (root / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[c.strip().strip("`") for c in line.split("|")[1:-1]] for line in lines if "|" in line]
    head = next((row for row in rows if row[1:] and set(RUNS.values()) >= set(row[1:])), None)
    if head is None:
        raise PaperError("data/README.md has no table of the two leaderboard snapshots any more")
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


def settings_of(root, short, notebook) -> dict:
    """Parameters that a notebook has in the run behind the committed figures."""
    path = root / "notebooks" / f"{notebook}.ipynb"
    params = root / "params" / f"{RUNS[short]}.yaml"
    if not params.exists():
        params = root / "params" / "snapshot.yaml"
    return declared_parameters(path) | resolve_parameters(path, params)


def defaults_of(thing) -> dict:
    """Keyword defaults of a class's constructor."""
    parameters = inspect.signature(thing.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def bench_summary(root) -> pd.DataFrame:
    """What `make bench` measured."""
    path = root / "bench" / "results" / "summary.csv"
    summary = pd.read_csv(path) if path.exists() else pd.DataFrame()
    needed = {"problem", "solver", "fit_cpu", "cpu_to_loss", "ratio_loss", "excess", "peak_mb"}
    if missing := sorted(needed - set(summary.columns)):
        raise PaperError(f"bench/results/summary.csv lacks {missing[0]}; run `make bench`")
    return summary
