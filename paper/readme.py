"""The README's table of claims, from the committed results: ``python -m paper.readme``."""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
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
    frame = frame.loc[list(dict.fromkeys(name for c in columns.values() for name in c.index))]
    lines = [("claim", *frame.columns), ("---",) * (1 + len(frame.columns)), *frame.itertuples()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def with_claims(text: str, root: Path = ROOT) -> str:
    """The README with the table between its two marks made anew."""
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"README.md needs a line {START} and a line {END}")
    return f"{before}{START}\n\n{claims_block(root)}\n\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    try:
        text = with_claims(readme.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        sys.exit(f"paper.readme: {reason}")
    readme.write_text(text, encoding="utf-8", newline="\n")
