"""Validation of the parameters, responses, rows and matrices that estimators are given."""

from numbers import Integral

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.lineage import Lineage
from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import observed
from ..data.schema import MOST_TRIALS, check_card, quote
from ..data.statistics import count_answers


def check_parameters(estimator, rules) -> None:
    """Raise a ValueError for a parameter of another type or out of range.

    Parameters
    ----------
    estimator : object with the parameters as attributes
    rules : dict of name to (type, lowest value, highest value)
    """
    for name, (kind, low, high) in rules.items():
        value = getattr(estimator, name)
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
            expected = "an integer" if kind is Integral else "a number"
            raise ValueError(f"{name} must be {expected} in [{low}, {high}], got {value!r}")


def check_responses(responses, lineage, items) -> None:
    """Raise a ValueError for data that `fit` cannot use, which names the first fault.

    Parameters
    ----------
    responses, lineage, items : as in `LRMF.fit`
    """
    if sparse.issparse(responses):
        raise ValueError(
            f"responses is a sparse {type(responses).__name__}, whose empty cells are zeros; pass "
            "an array in which missing responses are 255 (answers) or NaN (proportions)"
        )
    # Type and shape of the responses, then agreement of lineage and items with them.
    dtype = getattr(responses, "dtype", None)
    is_known = dtype == np.uint8 or getattr(dtype, "kind", None) == "f"
    if getattr(responses, "ndim", None) != 2 or not is_known:
        raise ValueError(
            "responses must be a matrix of uint8 answers (0, 1, 255 = missing) or float "
            f"proportions (NaN = missing), got {type(responses).__name__} "
            f"{getattr(responses, 'dtype', '')} {getattr(responses, 'shape', '')}"
        )
    n_models, n_items = responses.shape
    if not isinstance(lineage, Lineage):
        raise ValueError(
            f"lineage must be a Lineage, got {type(lineage).__name__}; build it with "
            "Lineage.from_edges(edges, model_ids), with no edges if none are known"
        )
    if lineage.n_models != n_models:
        raise ValueError(f"the lineage has {lineage.n_models} models, responses {n_models} rows")
    if items is not None:
        _check_items(items, n_items)
    # The pass that counts observed responses also checks every value.
    if not count_observed(responses, "responses"):
        raise ValueError("no response is observed: there is nothing to fit")


def _check_items(items, n_items):
    """ValueError for an items table of another length, or with values that give no scores."""
    missing = [c for c in ("item_id", "benchmark", "n_trials") if c not in items]
    if missing:
        raise ValueError(f"items lacks column {missing[0]!r}")
    if len(items) != n_items:
        raise ValueError(f"items has {len(items)} rows, responses {n_items} columns")
    n_trials = pd.to_numeric(items["n_trials"], errors="coerce").to_numpy(float, na_value=np.nan)
    is_count = (n_trials > 0) & (n_trials <= MOST_TRIALS)
    faults = [
        ("item_id", items["item_id"].isna(), "name every item"),
        ("item_id", items["item_id"].duplicated(), "an earlier row has this id, keep one"),
        ("benchmark", items["benchmark"].isna(), "name the benchmark of every item"),
        ("n_trials", ~is_count, f"give the number of questions, at most {MOST_TRIALS}"),
    ]
    for column, is_wrong, remedy in faults:
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            value = quote(items[column].tolist()[row])
            raise ValueError(f"items: {column} of row {row} is {value}; {remedy}")


def check_models(models, lineage) -> None:
    """Raise a ValueError for a models table of other models, or with values of another type.

    Parameters
    ----------
    models : DataFrame or None
    lineage : Lineage
    """
    if models is None:
        return
    if "model_id" not in models:
        raise ValueError("models lacks column 'model_id'; add the ids as a column")
    ids = lineage.node_ids[: lineage.n_models]
    if len(models) != len(ids):
        raise ValueError(f"models has {len(models)} rows, the lineage {len(ids)} models")
    for row, (own, expected) in enumerate(zip(models["model_id"], ids, strict=True)):
        if not isinstance(own, str) or own != expected:
            raise ValueError(
                f"models: model_id of row {row} is {own!r}, and the lineage has {expected!r} "
                "there; use the same models in the same order"
            )
    for row, card in enumerate(models.drop(columns="model_id").to_dict("records")):
        check_card(card, f"models, row {row}")


def count_observed(responses, name):
    """Number of observed cells; ValueError for the first value that is not a response."""
    # `count_answers` returns -1 for a row with a value that is not an answer.
    if kind_of(responses) is ANSWERS:
        counts = count_answers(responses)[1]
        faulty = np.flatnonzero(counts < 0)
    else:
        # NaN is missing, and neither below 0 nor above 1.
        counts = (~np.isnan(responses)).sum(axis=1)
        faulty = np.flatnonzero(((responses < 0) | (responses > 1)).any(axis=1))
    if faulty.size:
        # Name the first cell at fault.
        values = responses[faulty[0]]
        column = np.flatnonzero(((values < 0) | (values > 1)) & observed(values))[0]
        raise ValueError(
            f"{name}[{faulty[0]}, {column}] is {values[column]}, neither missing nor "
            f"{kind_of(responses).legal}"
        )
    return counts.sum()


def check_rows(rows, n: int, *, name="row", table="models"):
    """Row numbers of a table as an integer array, all by default; ValueError for what is none."""
    if rows is None:
        return np.arange(n)
    rows = np.atleast_1d(np.asarray(rows))
    if rows.size and (rows.dtype.kind not in "iu" or rows.ndim != 1):
        raise ValueError(
            f"{name}s must be integers, got {rows.dtype} of shape {rows.shape}; give the places of "
            f"the ids in the {table} table"
        )
    # Negative numbers are refused, as indexing would count them from the end.
    wrong = rows[(rows < 0) | (rows >= n)]
    if wrong.size:
        raise ValueError(f"{name} {wrong[0]} is not one of the {n} {table}")
    return rows.astype(int)


def check_cells(shape, kind, *, revealed=None, target=None) -> None:
    """Raise a ValueError for a matrix over (rows, all items) of another shape or type.

    Parameters
    ----------
    shape : (n_rows, n_items)
    kind : ResponseKind, of `revealed`
    revealed : of the type of the responses, optional
    target : bool, optional
    """
    matrices = {
        "revealed": (revealed, kind.name, kind.type_code),
        "target": (target, "booleans", "b"),
    }
    for name, (matrix, expected, type_code) in matrices.items():
        if matrix is None:
            continue
        if isinstance(matrix, np.ma.MaskedArray):
            raise ValueError(f"{name} is a masked array; pass `lrmf.data.responses.unmasked` of it")
        dtype = getattr(matrix, "dtype", np.dtype(object))
        if np.shape(matrix) != shape or not dtype.str[1:].startswith(type_code):
            raise ValueError(
                f"{name} must be {expected} of shape {shape}, got {dtype} of {np.shape(matrix)}"
            )
        if name == "revealed":
            count_observed(matrix, name)
