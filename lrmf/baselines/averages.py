"""Baselines that average other models' responses: item means, lineage averaging, kNN."""

from numbers import Real

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import splu
from sklearn.base import BaseEstimator

from ..data.lineage import Lineage
from ..data.schema import row_blocks
from ..data.snapshot import observed, observed_counts
from ..solver import kernels

BLOCK_MODELS = 256  # forecast at once
BLOCK_CELLS = 4_000_000  # cells of a float32 working array
FACTORIZED_COLUMNS = 32  # columns with the same fixed cells that are worth a factorization
ITERATED_COLUMNS = 128  # as many as stay in cache


def item_means(
    responses: np.ndarray, items: pd.DataFrame | None = None, *, smoothing: float = 1.0
) -> np.ndarray:
    """Mean response of each item, smoothed towards its benchmark: float32 (n_items,).

    (sum_u z_ui + s g_b) / (n_i + s), where g_b is the mean over the benchmark's observed cells
    (over all cells without `items`), and 1/2 if nothing at all is observed.
    """
    n_items = responses.shape[1]
    total, count = _column_sums(responses)
    overall = total.sum() / count.sum() if count.any() else 0.5
    group = benchmark_codes(items, n_items)
    group_count = np.bincount(group, weights=count)
    group_mean = np.full(len(group_count), overall)
    np.divide(np.bincount(group, total), group_count, out=group_mean, where=group_count > 0)
    smoothed = (total + smoothing * group_mean[group]) / (count + smoothing)
    return smoothed.astype(np.float32)


def _column_sums(responses):
    """Sum and number of the observed responses of each column."""
    count = np.zeros(responses.shape[1], np.int64)
    if responses.dtype == np.uint8:
        total = np.zeros_like(count)
        kernels.count_columns(np.asarray(responses), total, count)
        return total, count
    total = np.zeros(responses.shape[1])
    for _, block in row_blocks(responses):
        seen = observed(block)
        total += np.where(seen, block, 0).sum(axis=0, dtype=np.float64)
        count += seen.sum(axis=0)
    return total, count


def benchmark_codes(items: pd.DataFrame | None, n_items: int) -> np.ndarray:
    """Number of each column's benchmark; all 0 without a table."""
    return np.zeros(n_items, int) if items is None else pd.factorize(items["benchmark"])[0]


def residuals(responses: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responses minus item means, 0 where missing, and the observed mask; both float32."""
    seen = observed(responses)
    return np.where(seen, responses - means, np.float32(0)), seen.astype(np.float32)


def spread(responses: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Standard deviation of each column of proportions, at least 0.001."""
    values, seen = residuals(responses, means)
    variance = (values**2).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.sqrt(np.maximum(variance, 1e-6))


class ForecastInBlocks(BaseEstimator):
    """A baseline whose `_forecast_block(rows, columns, revealed)` forecasts some models at once."""

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of `rows` (default all) for `items` (default all): float32, in [0, 1]."""
        n_models, n_items = self.responses_.shape
        rows = np.arange(n_models) if rows is None else np.asarray(rows)
        columns = np.arange(n_items) if items is None else np.asarray(items)
        forecast = np.empty((len(rows), len(columns)), np.float32)
        for start in range(0, len(rows), BLOCK_MODELS):
            block = slice(start, start + BLOCK_MODELS)
            shown = None if revealed is None else revealed[block]
            forecast[block] = self._forecast_block(rows[block], columns, shown)
        return forecast


class _Baseline(BaseEstimator):
    """Item means plus the residual a subclass forecasts."""

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Learn from the observed responses (n_models, n_items)."""
        self.responses_ = responses
        self.item_means_ = item_means(responses, items)
        self._fit(lineage)
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of `rows` (default all) for `items` (default all): float32, in [0, 1]."""
        n_models, n_items = self.responses_.shape
        rows = np.arange(n_models) if rows is None else np.asarray(rows)
        columns = np.arange(n_items) if items is None else np.asarray(items)
        if revealed is not None and revealed.shape != (len(rows), n_items):
            raise ValueError(
                f"revealed must have one row per forecast model and one column per item, "
                f"({len(rows)}, {n_items}), got {revealed.shape}"
            )
        forecast = np.empty((len(rows), len(columns)), dtype=np.float32)
        forecast[:] = self.item_means_[columns]
        if len(rows):
            self._add_residual(forecast, rows, columns, revealed)
        return np.clip(forecast, 0, 1, out=forecast)

    def _fit(self, lineage):
        pass

    def _add_residual(self, forecast, rows, columns, revealed):
        pass


def without_edges(lineage: Lineage | None, responses: np.ndarray) -> Lineage:
    """The same models, no edges."""
    n_models = len(responses)
    names = [str(row) for row in range(n_models)] if lineage is None else lineage.node_ids
    return Lineage.from_edges([], names[:n_models])


class ItemMean(_Baseline):
    """Every model gets the mean of the item (the benchmark, for proportions)."""


class LineageMean(_Baseline):
    r"""Average of the relatives' responses, item by item.

    With residuals e = z - item mean and A the adjacency of the lineage:

    - ``hops=1``: e_u = sum_v A_uv e_v / (shrinkage + sum_v A_uv) over scored parents and children
      that have the item; ``shrinkage=0`` is the raw mean.
    - ``hops=None``: harmonic extension over the whole family, unscored models included. Observed
      cells are fixed, and (shrinkage I + L) e = 0 at all others, solved exactly.

    A model without a scored relative gets the item means. Revealed answers are not used: they say
    nothing about another item here.

    Parameters
    ----------
    hops : 1 or None
    shrinkage : float >= 0 (> 0 for ``hops=None``)
        `lrmf.baselines.tuned` chooses it by inner splits.
    """

    def __init__(self, hops=1, shrinkage=1.0):
        self.hops = hops
        self.shrinkage = shrinkage

    def _fit(self, lineage):
        if self.hops not in (1, None):
            raise ValueError(f"hops must be 1 or None (the whole family), got {self.hops!r}")
        if self.hops is None and self.shrinkage == 0:
            raise ValueError("shrinkage must be positive with hops=None: a family may be unscored")
        if not isinstance(self.shrinkage, Real) or not self.shrinkage >= 0:
            raise ValueError(f"shrinkage must be a number of at least 0, got {self.shrinkage!r}")
        self.lineage_ = without_edges(lineage, self.responses_) if lineage is None else lineage

    def _add_residual(self, forecast, rows, columns, revealed):
        step = max(1, BLOCK_CELLS // self.lineage_.n_nodes)
        for start in range(0, len(columns), step):
            block = slice(start, start + step)
            forecast[:, block] += self._extend(rows, columns[block])

    def _extend(self, rows, columns) -> np.ndarray:
        """Residuals of `rows` for `columns`."""
        if self.hops == 1:
            return self._neighbour_mean(rows, columns)
        families = self.lineage_.families
        concerned = np.isin(families, families[rows])
        concerned &= np.diff(self.lineage_.adjacency.indptr) > 0
        nodes = np.flatnonzero(concerned)
        scored = nodes[nodes < len(self.responses_)]
        known = np.zeros((len(nodes), len(columns)), dtype=np.float32)
        fixed = np.zeros(known.shape, dtype=np.float32)
        known[: len(scored)], fixed[: len(scored)] = self._known(scored, columns)
        extended = harmonic_extension(
            self.lineage_.laplacian[nodes][:, nodes], known, fixed, ridge=self.shrinkage
        )
        place = np.searchsorted(nodes, rows).clip(max=max(0, len(nodes) - 1))
        found = np.zeros(len(rows), bool) if not len(nodes) else nodes[place] == rows
        result = np.zeros((len(rows), len(columns)), dtype=np.float32)
        result[found] = extended[place[found]]
        return result

    def _neighbour_mean(self, rows, columns) -> np.ndarray:
        weights = self.lineage_.adjacency[rows][:, : len(self.responses_)].astype(np.float32)
        neighbours = np.unique(weights.indices)
        values, seen = self._known(neighbours, columns)
        weights = weights[:, neighbours]
        mass = weights @ seen + np.float32(self.shrinkage)
        return np.divide(weights @ values, mass, out=np.zeros_like(mass), where=mass > 0)

    def _known(self, rows, columns):
        return residuals(self.responses_[np.ix_(rows, columns)], self.item_means_[columns])


def harmonic_extension(
    laplacian, values: np.ndarray, fixed: np.ndarray, *, ridge: float, rtol: float = 1e-5
) -> np.ndarray:
    """Solve (ridge I + L) f = 0 on the free cells, f = values on the fixed ones, by columns.

    Columns with the same fixed cells (whole benchmarks, as a rule) share a sparse factorization;
    the others go through conjugate gradients together.

    Parameters
    ----------
    laplacian : sparse (n_nodes, n_nodes)
    values, fixed : float32 (n_nodes, n_columns); `fixed` is 0 or 1.
    """
    n_nodes, n_columns = values.shape
    if not n_nodes or fixed.all():
        return values
    matrix = (laplacian + ridge * sparse.eye_array(n_nodes)).tocsr().astype(np.float32)
    packed = np.packbits(fixed.astype(bool), axis=0).T
    group, _ = pd.factorize(np.array([column.tobytes() for column in packed], dtype=object))
    sizes = np.bincount(group)
    solution = np.empty_like(values)
    for number in np.flatnonzero(sizes >= FACTORIZED_COLUMNS):
        columns = np.flatnonzero(group == number)
        solution[:, columns] = _solve_directly(matrix, values[:, columns], fixed[:, columns[0]])
    rest = np.flatnonzero(sizes[group] < FACTORIZED_COLUMNS)
    for start in range(0, len(rest), ITERATED_COLUMNS):
        columns = rest[start : start + ITERATED_COLUMNS]
        solution[:, columns] = _solve_iteratively(
            matrix, values[:, columns], fixed[:, columns], rtol
        )
    return solution


def _solve_directly(matrix, values, fixed) -> np.ndarray:
    """Harmonic extension of columns that share their fixed nodes."""
    free = np.flatnonzero(fixed == 0)
    solution = values.copy()
    solution[free] = 0
    if len(free):
        right = -(matrix[free] @ solution)
        factors = splu(matrix[free][:, free].tocsc().astype(np.float64))
        solution[free] = factors.solve(right.astype(np.float64))
    return solution


def _solve_iteratively(matrix, values, fixed, rtol) -> np.ndarray:
    """Harmonic extension of columns by conjugate gradients, Jacobi-preconditioned."""
    inverse = (1 / matrix.diagonal()).astype(np.float32)[:, None]
    free = 1 - fixed
    solution = values * fixed
    residual = -free * (matrix @ solution)
    direction = inverse * residual
    energy = np.einsum("ui,ui->i", residual, direction)
    enough = rtol**2 * energy
    for _ in range(2 * len(values)):
        if (energy <= enough).all():
            break
        product = free * (matrix @ direction)
        curvature = np.einsum("ui,ui->i", direction, product)
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=curvature > 0)
        solution += step * direction
        residual -= step * product
        preconditioned = inverse * residual
        energy, previous = np.einsum("ui,ui->i", residual, preconditioned), energy
        ratio = np.divide(energy, previous, out=np.zeros_like(energy), where=previous > 0)
        direction = preconditioned + ratio * direction
    return solution


class KNN(_Baseline):
    r"""Collaborative filtering: weighted mean of the residuals of the most similar models.

    Similarity of u and v over the n items both answered, with residuals e = z - item mean:

    - answers: max(0, cosine of e_u and e_v) * n / (n + significance);
    - proportions, where a handful of benchmarks has no angle to speak of: the inverse of
      0.1 + their mean squared distance, standardised by benchmark (2 for unrelated models).

    The most similar models count: as many as it takes for a typical item to have `n_neighbors`
    answers, and all that tie with the last (one revealed answer gives the mean of all models that
    agree). For answers one more neighbour, as similar as the nearest and with residual 0, keeps
    forecasts off 0 and 1. Revealed answers, or else the model's own training answers, are what
    similarity is computed from; a model without any gets the item means.

    Parameters
    ----------
    n_neighbors : int or None
        None takes 20 for answers, 15 for proportions; from 20 to 100 forecasts differ little.
    significance : float
        Common answers at which a similarity counts half (Herlocker et al., 1999).
    """

    def __init__(self, n_neighbors=None, significance=50.0):
        self.n_neighbors = n_neighbors
        self.significance = significance

    def _fit(self, lineage):
        self.is_binary_ = self.responses_.dtype == np.uint8
        wanted = self.n_neighbors or (20 if self.is_binary_ else 15)
        counts = observed_counts(self.responses_)
        density = counts.sum() / max(1, np.count_nonzero(counts) * self.responses_.shape[1])
        self.n_neighbors_ = round(wanted / max(density, 1e-9))
        self.scale_ = np.ones(self.responses_.shape[1], dtype=np.float32)
        if not self.is_binary_:
            self.scale_ = spread(self.responses_, self.item_means_)

    def _add_residual(self, forecast, rows, columns, revealed):
        known = np.asarray(self.responses_[rows]) if revealed is None else revealed
        weights = self._weights(known, rows)
        if not weights.any():
            return
        for block in _column_blocks(columns, len(self.responses_)):
            values, seen = residuals(
                self.responses_[:, columns[block]], self.item_means_[columns[block]]
            )
            mass = weights @ seen
            if self.is_binary_:
                mass += weights.max(axis=1, keepdims=True)
            zero = np.zeros_like(mass)
            forecast[:, block] += np.divide(weights @ values, mass, out=zero, where=mass > 0)

    def _weights(self, known, rows) -> np.ndarray:
        """Similarity of each row to its nearest training models: float32 (n_rows, n_models)."""
        product, own, other, common = self._products(known)
        if self.is_binary_:
            length = np.sqrt(np.maximum(own * other, 1e-12))
            similarity = product / length * common / (common + np.float32(self.significance))
        else:
            distance = (own + other - 2 * product).clip(min=0) / np.maximum(common, 1)
            similarity = np.where(common > 0, 1 / (distance + np.float32(0.1)), 0)
        similarity[np.arange(len(rows)), rows] = 0
        similarity = similarity.clip(min=0)
        if self.n_neighbors_ < similarity.shape[1]:
            last = -np.partition(-similarity, self.n_neighbors_ - 1, axis=1)
            # Rounding must not break ties between equally similar models.
            similarity[similarity < last[:, [self.n_neighbors_ - 1]] * (1 - 1e-5)] = 0
        return similarity

    def _products(self, known) -> list[np.ndarray]:
        """e_u.e_v, |e_u|^2, |e_v|^2 and n over the items that row u and model v both answered."""
        sums = [np.zeros((len(known), len(self.responses_)), np.float32) for _ in range(4)]
        columns = np.flatnonzero(observed(known).any(axis=0))
        for block in _column_blocks(columns, len(self.responses_)):
            chosen = columns[block]
            means, scale = self.item_means_[chosen], self.scale_[chosen]
            mine, have = residuals(known[:, chosen], means)
            theirs, had = residuals(self.responses_[:, chosen], means)
            mine, theirs = mine / scale, theirs / scale
            pairs = ((mine, theirs), (mine**2, had), (have, theirs**2), (have, had))
            for total, (left, right) in zip(sums, pairs, strict=True):
                total += left @ right.T
        return sums


def _column_blocks(columns: np.ndarray, n_rows: int) -> list[slice]:
    step = max(1, BLOCK_CELLS // max(1, n_rows))
    return [slice(start, start + step) for start in range(0, len(columns), step)]
