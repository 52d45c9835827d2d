r"""Whether comparisons that the paper puts into words still are what the committed results say.

`sentences.csv` has one row a check: the label of ``\checked{label}``, which stands after the
sentence, the run, the file under ``figures/<run>/``, a query (of `pandas.DataFrame.query`) for rows
of it, and what they must say:

- *better*, *no clear difference*, *worse*: the 95% interval of the paired difference, Forecaster
  minus the row, or the column *verdict* of the file, which may also say *reached* or *kept*;
- *above* or *below* what stands in the column *than*, a number or a query of the same file: the
  column *value* of the rows, or *mae* or *r* where there is none.
"""

from pathlib import Path

import pandas as pd

from lrmf.evaluation.bootstrap import verdict

from .results import PAPER, RUNS, Results

SMALLER_IS_BETTER = {"mae", "regret", "brier"}
TABLE = PAPER / "sentences.csv"


def checks(path: Path = TABLE) -> pd.DataFrame:
    """All rows of the table."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def contradictions(root: Path, table: pd.DataFrame) -> list[str]:
    """One line for each check that the results under `root` contradict; rewrite those sentences."""
    found = []
    for row in table.itertuples():
        frame = Results(root, row.run).read(row.file, keep_default_na=row.file != "tables/claims")
        rows = frame.query(row.query)
        said = what_they_say(frame, rows, row)
        if said != {row.expected}:
            found.append(
                f"{row.sentence}: {RUNS[row.run]}, {row.query}: expected {row.expected} "
                f"{row.than}, found {', '.join(sorted(said)) or 'no such row'}"
            )
    return found


def what_they_say(frame, rows, check) -> set[str]:
    """Verdicts on the rows, as a set: of one element if they agree."""
    if rows.empty:
        return set()
    if check.than:
        limit = _limit(frame, check.than)
        return {"above" if value > limit else "below" for value in _values(rows)}
    if "verdict" in rows and rows["verdict"].notna().all():
        return set(rows["verdict"])
    sign = rows["metric"].map(lambda name: -1 if name in SMALLER_IS_BETTER else 1)
    bounds = rows[["difference_lower", "difference_upper"]].mul(sign, axis=0)
    return set(verdict(bounds.min(axis=1), bounds.max(axis=1)))


def _limit(frame, than) -> float:
    """A number, or the value of the one row that a query selects."""
    try:
        return float(than)
    except ValueError:
        [value] = _values(frame.query(than))
        return value


def _values(rows) -> pd.Series:
    return rows[next(name for name in ("value", "mae", "r") if name in rows)]
