"""The response matrix (n_models, n_items): what is observed, and the scores by benchmark.

Responses are of one of two kinds, which their type tells apart: ``uint8`` answers, 0 or 1, with
`MISSING` where a model was not evaluated, or ``float32`` proportions in [0, 1] with NaN there.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .response_kinds import ANSWERS, kind_of

MISSING = ANSWERS.missing
_BLOCK_BYTES = 2**23


def observed(responses: np.ndarray) -> np.ndarray:
    """Mask of the evaluated cells, for both kinds of responses and any shape.

    Examples
    --------
    >>> observed(np.array([[0, 1, MISSING]], dtype=np.uint8))
    array([[ True,  True, False]])
    """
    responses = np.asarray(unmasked(responses))
    if np.issubdtype(responses.dtype, np.floating):
        return ~np.isnan(responses)
    return responses != MISSING


def unmasked(responses: np.ndarray) -> np.ndarray:
    """The same array, with the masked cells of a NumPy masked array missing.

    Examples
    --------
    >>> unmasked(np.ma.masked_array(np.array([[0, 1]], np.uint8), mask=[[False, True]]))
    array([[  0, 255]], dtype=uint8)
    """
    if not isinstance(responses, np.ma.MaskedArray):
        return responses
    if responses.dtype != np.uint8 and not np.issubdtype(responses.dtype, np.floating):
        responses = responses.astype(np.float64)  # only floats have a NaN
    return responses.filled(kind_of(responses.dtype).missing)


def without(responses: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy in memory with all responses of some models missing.

    Examples
    --------
    >>> without(np.array([[0, 1], [1, 1]], dtype=np.uint8), rows=[1])
    array([[  0,   1],
           [255, 255]], dtype=uint8)
    """
    rest = np.array(responses)
    rest[rows] = kind_of(responses).missing
    return rest


def reveal(responses: np.ndarray, is_revealed: np.ndarray) -> np.ndarray:
    """Responses (n, n_items) with all cells missing but the revealed ones."""
    revealed = np.where(is_revealed, responses, kind_of(responses).missing)
    return revealed.astype(responses.dtype)


def observed_counts(responses: np.ndarray) -> np.ndarray:
    """Number of observed responses of each model (n_models,)."""
    counts = [observed(block).sum(axis=1) for _, block in row_blocks(responses)]
    return np.concatenate([np.zeros(0, int), *counts])


def has_responses(responses: np.ndarray) -> np.ndarray:
    """Whether each model has any response (n_models,)."""
    return observed_counts(responses) > 0


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


def row_blocks(
    responses: np.ndarray, *, bytes_per_cell: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Position of the first row and content of consecutive blocks of rows.

    Blocks are a few megabytes large, with ``bytes_per_cell`` of working copies. A memory map is
    read one block at a time.
    """
    cell = bytes_per_cell or responses.dtype.itemsize
    step = max(1, _BLOCK_BYTES // max(1, responses.shape[1] * cell))
    for start in range(0, len(responses), step):
        yield start, np.asarray(responses[start : start + step])


def benchmark_scores(responses: np.ndarray, items: pd.DataFrame) -> pd.DataFrame:
    """Score of each model on each benchmark over the items it was evaluated on.

    ``score[u, b] = sum_i n_i z_ui / sum_i n_i`` over the observed items i of benchmark b, where n_i
    is the number of trials behind column i. Computed in row blocks: a memory-mapped matrix is never
    copied as a whole.

    Parameters
    ----------
    responses : ndarray of shape (n_models, n_items)
    items : DataFrame with n_items rows and columns ``benchmark`` and ``n_trials``

    Returns
    -------
    DataFrame of shape (n_models, n_benchmarks)
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
    weights, benchmarks = _benchmark_weights(responses, items, items["n_trials"].to_numpy())
    scores = np.full((len(responses), len(benchmarks)), np.nan)
    for start, block in row_blocks(responses, bytes_per_cell=8):
        seen = observed(block)
        earned = np.where(seen, block, 0).astype(weights.dtype) @ weights
        possible = seen.astype(weights.dtype) @ weights
        part = scores[start : start + len(block)]
        np.divide(earned, possible, out=part, where=possible > 0, dtype=float)
    return pd.DataFrame(scores, columns=benchmarks)


def observed_by_benchmark(responses: np.ndarray, items: pd.DataFrame) -> np.ndarray:
    """Number of observed items, (n_models, n_benchmarks)."""
    weights, _ = _benchmark_weights(responses, items, np.ones(len(items)))
    blocks = row_blocks(responses, bytes_per_cell=8)
    counts = [observed(block).astype(weights.dtype) @ weights for _, block in blocks]
    return np.rint(np.concatenate(counts)).astype(np.int64)


def _benchmark_weights(
    responses: np.ndarray, items: pd.DataFrame, weight: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Matrix (n_items, n_benchmarks) that sums weighted columns by benchmark."""
    if responses.ndim != 2 or responses.shape[1] != len(items):
        raise ValueError(
            f"responses of shape {responses.shape} do not match {len(items)} items; pass all "
            "columns, in the order of the items table"
        )
    codes, benchmarks = pd.factorize(items["benchmark"])
    # float32 sums answers exactly while the totals stay below 2**24, and is twice as fast.
    exact = kind_of(responses) is ANSWERS and weight.sum() < 2**24
    weights = np.zeros((len(items), len(benchmarks)), dtype=np.float32 if exact else np.float64)
    weights[np.arange(len(items)), codes] = weight
    return weights, list(benchmarks)
