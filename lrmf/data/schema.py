"""What a valid snapshot is: the columns, the ids, the values, and how to say what is wrong.

Schema version 1, as `lrmf.data.snapshot` describes it. Nothing here reads or writes a file.
"""

import math
import re
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np
import pandas as pd

from .response_kinds import ANSWERS, kind_of
from .responses import MISSING, observed, row_blocks

SCHEMA_VERSION = 1
MOST_TRIALS = 10**9  # questions behind a score; the sum over all items is then a 64-bit integer
UNKNOWN_TRIALS = 1000  # questions behind a score where nobody states them, as the solver assumes
RELATIONS = ("finetune", "merge", "adapter", "quantized")

MANIFEST_FILE = "snapshot.json"
RESPONSES_FILE = "responses.npy"
TABLE_FILES = {
    "models": "models.parquet",
    "items": "items.parquet",
    "lineage": "lineage.parquet",
}
DESCRIPTION_FILE = "croissant.json"  # which a snapshot may lack
DATA_FILES = (*TABLE_FILES.values(), RESPONSES_FILE)

_N_EXAMPLES = 3
# Marks that are letters to Unicode but show nothing, beside what `str.isprintable` finds.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_JOINERS = str.maketrans("", "", "\u200c\u200d\ufe0f")  # of Persian words and of emoji
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")


def is_count(value: object) -> bool:
    """Whether a value is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: object) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def _is_finite_number(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


# Rules: tests of a value in order, each with what is wrong with a value that fails it.
_ID = (
    (is_text, "null or not a text (name every row)"),
    (str.strip, "empty (name every row)"),
    (lambda text: text == text.strip(), "with spaces around (strip them)"),
    (
        lambda text: text.isprintable() and not INVISIBLE.search(text),
        "with invisible or control characters (remove them)",
    ),
    (
        lambda text: not _ABSOLUTE.match(text) and ".." not in re.split(r"[/\\]", text),
        "like a file path (use org/name)",
    ),
)
_LABEL = (*_ID[:3], (lambda text: text.translate(_JOINERS).isprintable(), _ID[3][1]), *_ID[4:])
_TRIALS = "no positive integer (1 for an instance, the number of questions for a whole benchmark)"
_NUMBER = ((_is_finite_number, "no finite number (unknown is null)"),)
_FLAG = ((lambda value: isinstance(value, bool | np.bool), "not true or false (unknown is null)"),)
_TEXT = ((is_text, "not a text (unknown is null)"),)
_COLUMNS = {
    "models": {
        "model_id": _ID,
        **dict.fromkeys(("params_b", "likes"), _NUMBER),
        **dict.fromkeys(("merged", "moe", "chat_template"), _FLAG),
        **dict.fromkeys(("revision", "architecture", "precision", "type", "license"), _TEXT),
    },
    "items": {
        "item_id": _ID,
        **dict.fromkeys(("benchmark", "subtask"), _LABEL),
        "n_trials": (
            (lambda value: is_count(value) and value > 0, _TRIALS),
            (lambda value: value <= MOST_TRIALS, f"above {MOST_TRIALS} (count the questions)"),
        ),
    },
    "lineage": {
        **dict.fromkeys(("parent", "child"), _ID),
        "relation": (
            (
                lambda value: is_text(value) and value in RELATIONS,
                f"unknown (use {', '.join(RELATIONS)})",
            ),
        ),
    },
}
# Columns of the models other than the id may be absent, and null where unknown.
_REQUIRED = {
    "models": ["model_id"],
    "items": list(_COLUMNS["items"]),
    "lineage": list(_COLUMNS["lineage"]),
}
KEYS = {"models": ["model_id"], "items": ["item_id"], "lineage": ["parent", "child"]}


def find_problems(
    models: pd.DataFrame,
    items: pd.DataFrame,
    lineage: pd.DataFrame,
    responses: np.ndarray,
) -> list[str]:
    """Everything that keeps these tables and responses from being a valid snapshot.

    Returns
    -------
    list of str
        Empty if all is well. Each entry names the file and the column or id, and says what to do;
        long lists of culprits are abbreviated. Self-loops, duplicate edges, cycles and children
        without a row in models are no problem: the lineage builder reports them.

    Examples
    --------
    >>> models = pd.DataFrame({"model_id": ["org/a", "org/a"]})
    >>> items = pd.DataFrame({"item_id": ["q1"], "benchmark": "x", "subtask": "x", "n_trials": 1})
    >>> lineage = pd.DataFrame(columns=["parent", "child", "relation"])
    >>> answers = np.array([[1], [7]], dtype=np.uint8)
    >>> for problem in find_problems(models, items, lineage, answers):
    ...     print(problem.partition(";")[0])
    models.parquet: column 'model_id': 1 id(s) appear more than once: 'org/a'
    responses.npy: 1 value(s) not 0, 1 or 255, first 7 at model_id 'org/a', item_id 'q1'
    """
    tables, problems = {"models": models, "items": items, "lineage": lineage}, []
    for table, frame in tables.items():
        if not isinstance(frame, pd.DataFrame):
            kind = type(frame).__name__
            problems.append(f"{TABLE_FILES[table]}: expected a pandas DataFrame, got {kind}")
            tables[table] = None
    if not isinstance(responses, np.ndarray):
        kind = type(responses).__name__
        problems.append(f"{RESPONSES_FILE}: expected a NumPy array, got {kind}")
        responses = None
    return problems + content_problems(tables, responses)


def content_problems(tables: dict, responses: np.ndarray | None) -> list[str]:
    """Problems of the tables and responses that could be read (None = could not)."""
    known = {table: frame for table, frame in tables.items() if frame is not None}
    problems = [problem for name in known for problem in _table_problems(name, known[name])]
    if responses is None:
        return problems
    malformed = _matrix_problems(responses, tables)
    return problems + (malformed or _value_problems(responses, tables))


def _table_problems(table: str, frame: pd.DataFrame) -> list[str]:
    file, problems = TABLE_FILES[table], []
    if repeated := [str(c) for c in frame.columns[frame.columns.duplicated()].unique()]:
        problems.append(f"{file}: repeats column {some(repeated)}; keep one of each")
    if missing := [column for column in _REQUIRED[table] if column not in frame]:
        problems.append(f"{file}: lacks column {some(missing)}; add it")
    if not problems and not len(frame) and table != "lineage":
        problems.append(f"{file}: has no rows; a snapshot needs at least one")
    present = [] if problems else [column for column in _COLUMNS[table] if column in frame]
    return problems + [p for column in present for p in _column_problems(table, frame, column)]


def check_card(card, name="card") -> None:
    """Raise a ValueError that names the first field whose value a models table could not have.

    Parameters
    ----------
    card : mapping of field to value
        A model without a name has the id "". Fields that the table does not know may be anything.
    name : str, of the card in the message
    """
    for field, value in card.items():
        is_null = pd.api.types.is_scalar(value) and pd.isna(value) or value in ("", None)
        for holds, fault in () if is_null else _COLUMNS["models"].get(field, ()):
            if not holds(value):
                raise ValueError(f"{name}: {field} is {fault}: {value!r}")


def _column_problems(table: str, frame: pd.DataFrame, column: str) -> list[str]:
    """Values that break a rule of their column, gathered by fault; repeated ids."""
    values, keys = frame[column], KEYS[table]
    may_be_null = column not in _REQUIRED[table]
    culprits: dict[str, list[str]] = {}
    for row, (value, is_null) in enumerate(zip(values.tolist(), values.isna(), strict=True)):
        if may_be_null and is_null:
            continue
        fault = next((fault for holds, fault in _COLUMNS[table][column] if not holds(value)), None)
        if fault:
            place = f"{quote(value)} in row {row}"
            if column not in keys:
                place += f" ({' -> '.join(quote(frame[key].iloc[row]) for key in keys)})"
            culprits.setdefault(fault, []).append(place)
    where = f"{TABLE_FILES[table]}: column '{column}'"
    problems = [
        f"{where}: {len(places)} {fault}: {some(places, show=str)}"
        for fault, places in culprits.items()
    ]
    if keys == [column] and not problems and values.duplicated().any():
        repeated = values[values.duplicated()].unique()
        problems.append(
            f"{where}: {len(repeated)} id(s) appear more than once: {some(repeated)}; "
            "keep one row of each"
        )
    return problems


def _matrix_problems(responses: np.ndarray, tables: dict) -> list[str]:
    problems = []
    if responses.dtype not in (np.uint8, np.float32):
        problems.append(
            f"{RESPONSES_FILE}: expected uint8 answers (0, 1, {MISSING}) or float32 proportions, "
            f"got {responses.dtype}; write answers as uint8, {MISSING} where there is none, and "
            "proportions as float32"
        )
    if responses.ndim != 2:
        problems.append(
            f"{RESPONSES_FILE}: expected a matrix (n_models, n_items), got shape {responses.shape}"
        )
        return problems
    for size, axis, table in zip(responses.shape, ("rows", "columns"), tables, strict=False):
        n_rows = size if tables[table] is None else len(tables[table])
        if size != n_rows:
            problems.append(
                f"{RESPONSES_FILE}: has {size} {axis}, but {TABLE_FILES[table]} has {n_rows} rows; "
                "they must agree, in the same order"
            )
    return problems


def _value_problems(responses: np.ndarray, tables: dict) -> list[str]:
    """Values outside {0, 1, 255} or [0, 1], or no value at all; looked for in row blocks."""
    n_bad, first, any_observed = 0, None, False
    for start, block in row_blocks(responses):
        if kind_of(block) is ANSWERS:
            # 255 wraps to 0, so the three legal values become 0, 1 and 2.
            bad = block + np.uint8(1) > 2
        else:
            bad = ~((block >= 0) & (block <= 1) | np.isnan(block))
        any_observed = any_observed or bool(observed(block).any())
        n_bad += int(np.count_nonzero(bad))
        if first is None and n_bad:
            row, column = np.argwhere(bad)[0]
            first = (start + row, column, block[row, column])
    if n_bad:
        legal = f"0, 1 or {MISSING}" if kind_of(responses) is ANSWERS else "in [0, 1] or NaN"
        where = _cell(first[0], first[1], tables)
        problem = f"{n_bad} value(s) not {legal}, first {first[2]} at {where}"
        return [f"{RESPONSES_FILE}: {problem}; correct them or mark them as not evaluated"]
    if responses.size and not any_observed:
        return [f"{RESPONSES_FILE}: every value is missing; at least one answer is needed"]
    return []


def _cell(row: int, column: int, tables: dict) -> str:
    """Model and item of a cell, by id where the tables could be read."""
    names = []
    for table, index in (("models", row), ("items", column)):
        frame, key = tables[table], KEYS[table][0]
        is_named = frame is not None and key in frame
        names.append(
            f"{key} {quote(frame[key].iloc[index])}" if is_named else f"{table} row {index}"
        )
    return ", ".join(names)


def quote(value: object) -> str:
    """A value as a message shows it, cut short if long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(text: object, longest: int = 200) -> str:
    """A text without line breaks and terminal controls, cut short if long."""
    shown = "".join(mark if mark.isprintable() else " " for mark in str(text))
    return " ".join(shown.split())[:longest]


def some(values: Iterable, *, show: Callable[[object], str] = quote) -> str:
    """Name the first few values, and say how many more there are."""
    values = list(values)
    rest = len(values) - _N_EXAMPLES
    shown = ", ".join(show(value) for value in values[:_N_EXAMPLES])
    return f"{shown} and {rest} more" if rest > 0 else shown


def is_id(value: object) -> bool:
    """Whether a value can be the id of a model, an item or a benchmark."""
    return all(holds(value) for holds, _ in _ID)
