"""Counts, means and residuals of the responses, by model and by item.

Answers (``uint8``) are counted by compiled kernels over all threads, without a copy.
"""

import numpy as np
import pandas as pd
from scipy import sparse

from .response_kinds import ANSWERS, kind_of
from .responses import observed, row_blocks

MIN_VALUES = 3  # below that a correlation means nothing
SAME_VALUE = 1e-5  # values closer than 0.001 points count as equal


def count_answers(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correct and observed answers by row; observed is -1 in a row with an illegal value."""
    from . import counting  # with numba, which takes a third of a second to import

    correct, observed = np.empty((2, answers.shape[0]), np.int64)
    counting.count_rows(read_only(answers), correct, observed)
    return correct, observed


def count_columns(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correct and observed answers by column."""
    from . import counting

    correct, observed = np.empty((2, answers.shape[1]), np.int64)
    counting.count_columns(read_only(answers), correct, observed)
    return correct, observed


def compress(answers: np.ndarray) -> sparse.csr_array:
    """Observed answers as a sparse matrix; a wrong answer is an explicit zero."""
    from . import counting

    pointers = np.concatenate([[0], np.cumsum(count_answers(answers)[1])])
    columns, values = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.uint8)
    counting.compress(read_only(answers), pointers, columns, values)
    return sparse.csr_array((values, columns, pointers), shape=answers.shape)


def item_means(
    responses: np.ndarray, items: pd.DataFrame | None = None, *, smoothing: float = 1.0
) -> np.ndarray:
    """Mean response of each item, shrunk towards its benchmark's: float32 (n_items,).

    (sum_u z_ui + s g_b) / (n_i + s), where g_b is the mean over the benchmark's observed cells
    (over all cells without `items`), and 1/2 if nothing at all is observed.
    """
    total, count = _column_sums(responses)
    overall = total.sum() / count.sum() if count.any() else 0.5
    group = benchmark_codes(items, responses.shape[1])
    group_count = np.bincount(group, weights=count)
    group_mean = np.full(len(group_count), overall)
    np.divide(np.bincount(group, total), group_count, out=group_mean, where=group_count > 0)
    smoothed = (total + smoothing * group_mean[group]) / (count + smoothing)
    return smoothed.astype(np.float32)


def benchmark_codes(items: pd.DataFrame | None, n_items: int) -> np.ndarray:
    """Number of each column's benchmark; all 0 without a table."""
    return np.zeros(n_items, int) if items is None else pd.factorize(items["benchmark"])[0]


def residuals(responses: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responses minus item means, 0 where missing, and the observed mask; both float32."""
    seen = observed(responses)
    return np.where(seen, responses - means, np.float32(0)), seen.astype(np.float32)


def column_std(responses: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Standard deviation of each column of proportions, at least 0.001."""
    values, seen = residuals(responses, means)
    variance = (values**2).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.sqrt(np.maximum(variance, 1e-6))


def read_only(answers: np.ndarray) -> np.ndarray:
    """A plain read-only view, as of a memory map: one compiled kernel serves every caller."""
    view = np.ascontiguousarray(answers).view()
    view.flags.writeable = False
    return view


def _column_sums(responses):
    """Sum and number of the observed responses of each column."""
    if kind_of(responses) is ANSWERS:
        return count_columns(responses)
    total, count = np.zeros(responses.shape[1]), np.zeros(responses.shape[1], np.int64)
    for _, block in row_blocks(responses):
        seen = observed(block)
        total += np.where(seen, block, 0).sum(axis=0, dtype=np.float64)
        count += seen.sum(axis=0)
    return total, count


def pearson(x, y, weights=None):
    """Weighted correlation of x and y for each row of `weights`; a single number without weights.

    0 where x is constant, as it ranks nobody; NaN where y is, or with fewer than three values.

    Parameters
    ----------
    x, y : (n,) arrays, or (n_rows, n) with values of their own for each row of `weights`
    weights : (n_rows, n) array, such as multinomial counts of a bootstrap
    """
    if weights is None:
        return float(pearson(x, y, np.ones((1, len(x))))[0])
    if len(x.T) < MIN_VALUES:
        return np.full(len(weights), np.nan)
    total = weights.sum(axis=1)
    x, y = x - x.mean(), y - y.mean()  # nothing is lost in the differences below
    moments = (_sums(values, weights) / total for values in (x, y, x * x, y * y, x * y))
    mean_x, mean_y, square_x, square_y, product = moments
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    smallest = SAME_VALUE**2
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (product - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
    return np.where(variance_y <= smallest, np.nan, np.where(variance_x <= smallest, 0.0, r))


def resample_weights(
    clusters: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Weights (1 + n_resamples, n) of a bootstrap of whole clusters; all ones in the first row.

    ``clusters`` (n,) are numbered from 0. How often one is drawn is the weight of all its members.
    """
    n = clusters.max() + 1
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return np.concatenate([np.ones((1, len(clusters))), counts[:, clusters]])


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """Bounds of the middle 95% of the finite values; NaN if there are none."""
    finite = resampled[np.isfinite(resampled)]
    return tuple(np.quantile(finite, [0.025, 0.975])) if finite.size else (np.nan, np.nan)


def _sums(values, weights):
    return weights @ values if values.ndim == 1 else (weights * values).sum(axis=1)
