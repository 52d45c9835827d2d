"""The README's table of claims, and what was aimed at: ``python -m paper.readme``.

Both come from the committed results.
"""

import sys
import textwrap
from pathlib import Path

import pandas as pd

from lrmf.files import OutputError, write_text
from lrmf.report.tables import interval

from .generate import ROOT, Results, aims, is_earlier, listed

RUNS = {"simulated": "simulated", "simulated, tuned": "full"}
RUNS |= {"v1": "openllm-v1-items", "v2": "openllm-v2"}
START, END = "<!-- claims: python -m paper.readme -->", "<!-- end of claims -->"


def claims_block(root: Path = ROOT) -> str:
    """Markdown of the claims, a column a run: the verdict and what was measured."""
    columns = {}
    for title, run in RUNS.items():
        path = root / "figures" / run / "tables" / "claims.csv"
        table = pd.read_csv(path, index_col="claim", keep_default_na=False)
        columns[title] = "**" + table["verdict"] + "**: " + table["measured"]
    frame = pd.DataFrame(columns).fillna("not tested")
    by_length = sorted(columns.values(), key=len, reverse=True)  # the longest has them in order
    frame = frame.loc[list(dict.fromkeys(name for column in by_length for name in column.index))]
    lines = [("claim", *frame.columns), ("---",) * (1 + len(frame.columns)), *frame.itertuples()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def earlier_results(root: Path = ROOT) -> str:
    """A paragraph: which columns an earlier forecaster has made; empty if none."""
    earlier = [title for title, run in RUNS.items() if is_earlier(root / "figures" / run)]
    if not earlier:
        return ""
    titles = listed([f"*{title}*" for title in earlier])
    text = (
        f"*Forecaster* in {titles} is still an earlier version: LRMF corrected by random forests "
        "over cards, averaged with boosted trees."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n\n"


SETTINGS = {
    "zero shot": "zero-shot",
    "average": "zero-shot, average over benchmarks",
    "later": "later models",
    "few shot 1": "1 benchmark revealed",
    "few shot 2": "2 revealed",
    "few shot 4": "4 revealed",
}


def results_beside_aims(root: Path = ROOT) -> str:
    """A paragraph: r aimed at and reached on v2, and what intervals of later models cover."""
    results = Results(root, "v2")
    rows = aims(results)
    said = [
        f"{SETTINGS[name]} {row.aim}, reached {row.reached} (best rival {row.rival})"
        for name, row in zip(rows.index, rows.itertuples(), strict=True)
    ]
    met = [float(row.reached) >= float(row.aim) for row in rows.itertuples()]
    later = results.read("later_models").query("predictor == 'Forecaster' and metric == 'coverage'")
    covered = interval(*later[["value", "lower", "upper"]].iloc[0], 2)
    text = (
        f"What we had aimed at on v2 in r: {'; '.join(said)}. This meets {sum(met) or 'none'} of "
        f"the {len(met)} aims; the paper says in section 6 what the data allow, and in Appendix B "
        f"what was tried and left out. Nominal 90% intervals of later models cover {covered}."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def with_claims(text: str, root: Path = ROOT) -> str:
    """The README with what stands between its two marks made anew."""
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"README.md needs a line {START} and a line {END}")
    paragraphs = earlier_results(root) + results_beside_aims(root)
    return f"{before}{START}\n\n{claims_block(root)}\n\n{paragraphs}\n\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    try:
        write_text(readme, with_claims(readme.read_text(encoding="utf-8")))
    except (OSError, ValueError, OutputError) as reason:
        sys.exit(f"paper.readme: {reason}")
