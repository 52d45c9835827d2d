"""The response matrix: what is observed, in blocks, by model, item and benchmark."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

MISSING = 255
_BLOCK_BYTES = 2**23


def observed(responses: np.ndarray) -> np.ndarray:
    """Mask of the evaluated cells, for ``uint8``/255 and float/NaN responses of any shape.

    Examples
    --------
    >>> observed(np.array([[0, 1, MISSING]], dtype=np.uint8))
    array([[ True,  True, False]])
    """
    responses = np.asarray(responses)
    if np.issubdtype(responses.dtype, np.floating):
        return ~np.isnan(responses)
    return responses != MISSING


def observed_counts(responses: np.ndarray) -> np.ndarray:
    """Number of observed responses of each model (n_models,), in blocks of rows."""
    blocks = [responses[top : top + 1024] for top in range(0, len(responses), 1024)]
    return np.concatenate([observed(block).sum(axis=1) for block in blocks])


def random_places(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Place of every cell in a random order of its row, the observed cells first.

    Examples
    --------
    >>> seen = np.array([[True, False, True, True]])
    >>> places = random_places(seen, np.random.default_rng(0))
    >>> sorted(places[seen].tolist()), places[~seen].tolist()
    ([0, 1, 2], [3])
    """
    order = np.where(seen, rng.random(seen.shape), np.inf).argsort(axis=1)
    places = np.empty(order.shape, np.int32)
    np.put_along_axis(places, order, np.arange(order.shape[1], dtype=np.int32)[None], axis=1)
    return places


def rows_per_block(responses: np.ndarray, bytes_per_cell: int) -> int:
    """Rows of which a working copy stays at a few megabytes."""
    return max(1, _BLOCK_BYTES // max(1, responses.shape[1] * bytes_per_cell))


def row_blocks(responses: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and content of consecutive blocks of rows; a memory map is read one at a time."""
    step = rows_per_block(responses, responses.dtype.itemsize)
    for start in range(0, len(responses), step):
        yield start, np.asarray(responses[start : start + step])


def benchmark_scores(
    responses: np.ndarray, items: pd.DataFrame, rows: np.ndarray | None = None
) -> pd.DataFrame:
    """Score of each model on each benchmark over the items it was evaluated on.

    ``score[u, b] = sum_i n_i z_ui / sum_i n_i`` over the observed items i of benchmark b, where n_i
    is the number of trials behind column i. Computed in row blocks: a memory-mapped matrix is never
    copied as a whole.

    Parameters
    ----------
    responses : ndarray of shape (n_models, n_items)
    items : DataFrame with n_items rows and columns ``benchmark`` and ``n_trials``
    rows : array of int or bool, optional
        Models to score; all by default.

    Returns
    -------
    DataFrame of shape (len(rows), n_benchmarks)
        Benchmarks in order of first appearance, indexed by row of ``responses``; NaN where no item
        of the benchmark was observed.

    Examples
    --------
    >>> items = pd.DataFrame({"benchmark": ["math", "math", "code"], "n_trials": 1})
    >>> answers = np.array([[1, 0, 1], [1, MISSING, MISSING]], dtype=np.uint8)
    >>> benchmark_scores(answers, items)
       math  code
    0   0.5   1.0
    1   1.0   NaN
    """
    weights, benchmarks = _benchmark_weights(responses, items, by_trials=True)
    rows = _row_indices(rows, len(responses))
    earned = np.zeros((len(rows), len(benchmarks)))
    possible = np.zeros_like(earned)
    for block, seen, part in _blocks_with_mask(responses, rows):
        earned[part] = np.where(seen, block, 0).astype(weights.dtype) @ weights
        possible[part] = seen.astype(weights.dtype) @ weights
    with np.errstate(invalid="ignore"):
        scores = earned / possible
    return pd.DataFrame(scores, index=rows, columns=benchmarks)


def _blocks_with_mask(
    responses: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, slice]]:
    step = rows_per_block(responses, 8)
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        block = np.asarray(responses[rows[part]])
        yield block, observed(block), part


def _row_indices(rows: np.ndarray | None, n_models: int) -> np.ndarray:
    if rows is None:
        return np.arange(n_models)
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)


def _benchmark_weights(
    responses: np.ndarray, items: pd.DataFrame, *, by_trials: bool
) -> tuple[np.ndarray, list[str]]:
    """Matrix (n_items, n_benchmarks) that sums columns by benchmark, weighted by trials or not."""
    if responses.ndim != 2 or responses.shape[1] != len(items):
        raise ValueError(
            f"responses of shape {responses.shape} do not match {len(items)} items; pass all "
            "columns, in the order of the items table"
        )
    codes, benchmarks = pd.factorize(items["benchmark"])
    trials = items["n_trials"].to_numpy() if by_trials else np.ones(len(items))
    # float32 sums answers exactly while the totals stay below 2**24, and is twice as fast.
    exact = responses.dtype == np.uint8 and trials.sum() < 2**24
    weights = np.zeros((len(items), len(benchmarks)), dtype=np.float32 if exact else np.float64)
    weights[np.arange(len(items)), codes] = trials
    return weights, list(benchmarks)


def observed_by_benchmark(responses: np.ndarray, items: pd.DataFrame) -> np.ndarray:
    """Number of observed items, (n_models, n_benchmarks)."""
    weights, benchmarks = _benchmark_weights(responses, items, by_trials=False)
    counts = np.zeros((len(responses), len(benchmarks)), dtype=np.int64)
    for _, seen, part in _blocks_with_mask(responses, np.arange(len(responses))):
        counts[part] = np.rint(seen.astype(weights.dtype) @ weights)
    return counts


def has_responses(responses):
    """Whether each model has any response (n_models,)."""
    return observed_counts(responses) > 0
