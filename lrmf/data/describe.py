"""A snapshot in a screenful of text, for `lrmf validate`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .lineage import Lineage
from .schema import one_line
from .snapshot import Snapshot


def describe(snapshot: Snapshot, lineage: Lineage) -> str:
    """Counts of models, items, responses, edges and families, and a table by benchmark.

    Examples
    --------
    >>> from lrmf.simulation.simulate import simulate
    >>> hub = simulate(n_models=60, n_items=90, seed=0)
    >>> text = describe(hub, Lineage.from_edges(hub.lineage, hub.models["model_id"]))
    >>> print(*text.splitlines()[2:6], sep=chr(10))
    models             60  60 of them evaluated
    items              90  answers, 6 benchmarks
    observed        63.0%  3,402 answers
    edges              25  19 finetune, 5 merge, 1 quantized
    """
    counts = snapshot.summary()
    title = f"{one_line(snapshot.name)} ({one_line(snapshot.source)})"
    lines = [f"{name:<12}  {value:>7}  {rest}" for name, value, rest in _facts(counts, lineage)]
    return "\n".join([title, "", *lines, "", _by_benchmark(counts["by_benchmark"])])


def _facts(counts: dict, lineage: Lineage) -> list[tuple[str, str, str]]:
    """Name, value and explanation."""
    relations = counts["by_relation"].set_index("relation")["n_edges"]
    dropped = lineage.dropped["reason"].value_counts()
    reasons = {"self-loop": "self-loops", "duplicate": "duplicates", "cycle": "closing a cycle"}
    sizes = np.bincount(lineage.families)
    n_evaluated = counts["n_models"] - counts["n_unobserved_models"]
    n_benchmarks = len(counts["by_benchmark"])
    n_families, n_alone = (sizes > 1).sum(), (sizes == 1).sum()
    families = "no model has a known relative"
    if n_families:
        families = f"{sizes[0]:,} members in the largest; {n_alone:,} models without relatives"
    of_parents = (
        f"{counts['n_with_parent']:,} models; {counts['n_unscored_ancestors']:,} of their "
        "relatives are not among the models"
    )
    return [
        ("models", f"{counts['n_models']:,}", f"{n_evaluated:,} of them evaluated"),
        ("items", f"{counts['n_items']:,}", f"{counts['responses']}, {n_benchmarks} benchmarks"),
        ("observed", f"{counts['density']:.1%}", f"{counts['n_observed']:,} {counts['responses']}"),
        ("edges", f"{counts['n_edges']:,}", _listed(relations)),
        ("dropped", f"{len(lineage.dropped):,}", _listed(dropped.rename(reasons))),
        ("with parents", f"{counts['share_with_parent']:.1%}", of_parents),
        ("families", f"{n_families:,}", families),
    ]


def _listed(counts: pd.Series) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _by_benchmark(frame: pd.DataFrame) -> str:
    percent, whole = "{:.1%}".format, "{:,}".format
    columns = {
        "benchmark": ("benchmark", one_line),
        "n_items": ("items", whole),
        "n_trials": ("questions", whole),
        "n_models": ("models", whole),
        "density": ("observed", percent),
        "mean_score": ("mean score", lambda score: "-" if np.isnan(score) else percent(score)),
    }
    texts = [[header, *frame[key].map(write)] for key, (header, write) in columns.items()]
    return "\n".join(aligned([*zip(*texts, strict=True)]))


def aligned(rows: list[Sequence[str]], n_left: int = 1) -> list[str]:
    """Lines of a table, the first `n_left` columns aligned to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < n_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
