"""What a valid snapshot is: the columns, the ids, the values, and how to say what is wrong.

Schema version 1, as `lrmf.data.snapshot` describes it. Nothing here reads or writes a file.
"""

import math
import re
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np
import pandas as pd

from .responses import MISSING, observed, row_blocks

SCHEMA_VERSION = 1
RELATIONS = ("finetune", "merge", "adapter", "quantized")

MANIFEST_FILE = "snapshot.json"
RESPONSES_FILE = "responses.npy"
TABLE_FILES = {
    "models": "models.parquet",
    "items": "items.parquet",
    "lineage": "lineage.parquet",
}
DATA_FILES = (*TABLE_FILES.values(), RESPONSES_FILE)
REQUIRED_COLUMNS = {
    "models": ("model_id",),
    "items": ("item_id", "benchmark", "subtask", "n_trials"),
    "lineage": ("parent", "child", "relation"),
}
MODEL_FLAGS = ("merged", "moe", "chat_template")
MODEL_NUMBERS = ("params_b", "likes")
MODEL_TEXTS = ("revision", "architecture", "precision", "type", "license")

_N_EXAMPLES = 3
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")


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
    problems = []
    tables = {"models": models, "items": items, "lineage": lineage}
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
    checks = {
        "models": _model_problems,
        "items": _item_problems,
        "lineage": _lineage_problems,
    }
    problems = []
    for table, frame in tables.items():
        if frame is not None:
            missing = _column_problems(table, frame)
            problems += missing or checks[table](frame.reset_index(drop=True))
    if responses is None:
        return problems
    malformed = _matrix_problems(responses, tables)
    return problems + (malformed or _value_problems(responses, tables))


def _column_problems(table: str, frame: pd.DataFrame) -> list[str]:
    file = TABLE_FILES[table]
    problems = []
    repeated = [str(column) for column in frame.columns[frame.columns.duplicated()].unique()]
    if repeated:
        problems.append(f"{file}: repeats column {some(repeated)}; keep one of each")
    missing = [column for column in REQUIRED_COLUMNS[table] if column not in frame.columns]
    if missing:
        problems.append(f"{file}: lacks column {some(missing)}; add it")
    return problems


def _model_problems(models: pd.DataFrame) -> list[str]:
    file = TABLE_FILES["models"]
    if not len(models):
        return [f"{file}: has no rows; a snapshot needs at least one model"]
    problems = _id_problems(file, models["model_id"], unique=True)
    for column in MODEL_NUMBERS:
        if column in models:
            problems += _number_problems(file, models[column])
    for column in MODEL_FLAGS:
        if column in models:
            bad = [
                value for value in models[column].dropna() if not isinstance(value, np.bool | bool)
            ]
            problems += _type_problem(file, column, bad, "true, false or null")
    for column in MODEL_TEXTS:
        if column in models:
            bad = [value for value in models[column].dropna() if not isinstance(value, str)]
            problems += _type_problem(file, column, bad, "texts or null")
    return problems


def _item_problems(items: pd.DataFrame) -> list[str]:
    file = TABLE_FILES["items"]
    if not len(items):
        return [f"{file}: has no rows; a snapshot needs at least one item"]
    problems = _id_problems(file, items["item_id"], unique=True)
    for column in ("benchmark", "subtask"):
        problems += _id_problems(file, items[column], unique=False)
    trials = items["n_trials"]
    if not pd.api.types.is_integer_dtype(trials.dtype):
        problems.append(
            f"{file}: column 'n_trials' must hold integers, got {trials.dtype}; "
            "1 for an instance, the number of questions for a whole benchmark"
        )
    else:
        bad = items["item_id"][~(trials.fillna(0) > 0)].tolist()
        if bad:
            problems.append(
                f"{file}: column 'n_trials' must be positive, but is not for {some(bad)}; "
                "1 for an instance, the number of questions for a whole benchmark"
            )
    return problems


def _lineage_problems(lineage: pd.DataFrame) -> list[str]:
    file = TABLE_FILES["lineage"]
    problems = []
    for column in ("parent", "child"):
        problems += _id_problems(file, lineage[column], unique=False)
    relations = lineage["relation"].tolist()
    bad = [
        (row, quote(relation))
        for row, relation in enumerate(relations)
        if not (isinstance(relation, str) and relation in RELATIONS)
    ]
    if bad:
        edge = lineage.iloc[bad[0][0]]
        unknown = dict.fromkeys(relation for _, relation in bad)
        problems.append(
            f"{file}: column 'relation': {len(bad)} unknown, {some(unknown, show=str)}, first "
            f"at {quote(edge['parent'])} -> {quote(edge['child'])}; use {', '.join(RELATIONS)}"
        )
    return problems


def _id_problems(file: str, column: pd.Series, *, unique: bool) -> list[str]:
    culprits: dict[str, list[str]] = {}
    values = column.tolist()
    for row, value in enumerate(values):
        fault = _id_fault(value)
        if fault:
            culprits.setdefault(fault, []).append(f"{quote(value)} in row {row}")
    problems = [
        f"{file}: column '{column.name}': {len(places)} {fault}: {some(places, show=str)}"
        for fault, places in culprits.items()
    ]
    if unique and not culprits:
        repeated = column[column.duplicated()].drop_duplicates().tolist()
        if repeated:
            problems.append(
                f"{file}: column '{column.name}': {len(repeated)} id(s) appear more than once: "
                f"{some(repeated)}; keep one row of each"
            )
    return problems


def _id_fault(value: object) -> str | None:
    """Why a value cannot name a model, item, benchmark or subtask, with the way out."""
    if not isinstance(value, str):
        return "null or not a text (name every row)"
    if not value.strip():
        return "empty (name every row)"
    if value != value.strip():
        return "with spaces around (strip them)"
    if _CONTROL.search(value):
        return "with control characters (remove them)"
    if _ABSOLUTE.match(value) or ".." in re.split(r"[/\\]", value):
        return "like a file path (use org/name)"
    return None


def _number_problems(file: str, column: pd.Series) -> list[str]:
    bad = [value for value in column.dropna().tolist() if not _is_finite_number(value)]
    return _type_problem(file, column.name, bad, "finite numbers or null")


def _is_finite_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _type_problem(file: str, column: str, bad: list, wanted: str) -> list[str]:
    if not bad:
        return []
    return [f"{file}: column '{column}' must hold {wanted}, got {some(bad)}; unknown is null"]


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
    for axis, table in enumerate(("models", "items")):
        frame = tables[table]
        if frame is not None and responses.shape[axis] != len(frame):
            problems.append(
                f"{RESPONSES_FILE}: has {responses.shape[axis]} {('rows', 'columns')[axis]}, but "
                f"{TABLE_FILES[table]} has {len(frame)} rows; they must agree, in the same order"
            )
    return problems


def _value_problems(responses: np.ndarray, tables: dict) -> list[str]:
    """Values outside {0, 1, 255} or [0, 1], or no value at all; looked for in row blocks."""
    n_bad, first, any_observed = 0, None, False
    for start, block in row_blocks(responses):
        if block.dtype == np.uint8:
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
        legal = f"0, 1 or {MISSING}" if responses.dtype == np.uint8 else "in [0, 1] or NaN"
        where = _cell(first[0], first[1], tables)
        problem = f"{n_bad} value(s) not {legal}, first {first[2]} at {where}"
        return [f"{RESPONSES_FILE}: {problem}; correct them or mark them as not evaluated"]
    if responses.size and not any_observed:
        return [f"{RESPONSES_FILE}: every value is missing; at least one answer is needed"]
    return []


def _cell(row: int, column: int, tables: dict) -> str:
    """Model and item of a cell by id where the tables know them."""
    names = []
    for table, key, index in (
        ("models", "model_id", row),
        ("items", "item_id", column),
    ):
        frame = tables[table]
        known = frame is not None and key in frame and index < len(frame)
        names.append(f"{key} {quote(frame[key].iloc[index])}" if known else f"{table} row {index}")
    return ", ".join(names)


def is_count(value: object) -> bool:
    """Whether a value read from JSON is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def quote(value: object) -> str:
    """A value as a message shows it, cut short if long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def some(values: Iterable, *, show: Callable[[object], str] = quote) -> str:
    """Name the first few values, and say how many more there are."""
    values = list(values)
    rest = len(values) - _N_EXAMPLES
    shown = ", ".join(show(value) for value in values[:_N_EXAMPLES])
    return f"{shown} and {rest} more" if rest > 0 else shown
