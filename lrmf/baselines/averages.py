"""Baselines that average other models' responses: item means, lineage averaging, kNN."""

from numbers import Real

import numpy as np
import pandas as pd
from scipy.sparse.linalg import splu

from ..data.lineage import without_edges
from ..data.statistics import residuals
from ..solver.linear import conjugate_gradients
from ..solver.prior import LineagePrior
from .base import BLOCK_CELLS, _Baseline

FACTORIZED_COLUMNS = 32  # columns with the same fixed cells that are worth a factorization
ITERATED_COLUMNS = 128  # as many as stay in cache


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
        self.precision_ = LineagePrior(self.lineage_, [self.shrinkage], [1.0]).precision(0)

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
        is_linked = np.diff(self.lineage_.adjacency.indptr) > 0
        nodes = np.flatnonzero(np.isin(families, families[rows]) & is_linked)
        scored = nodes[nodes < len(self.responses_)]
        known = np.zeros((len(nodes), len(columns)), dtype=np.float32)
        fixed = np.zeros(known.shape, dtype=np.float32)
        known[: len(scored)], fixed[: len(scored)] = self._known(scored, columns)
        result = np.zeros((len(rows), len(columns)), dtype=np.float32)
        found = np.isin(rows, nodes)
        wanted = np.searchsorted(nodes, rows[found])
        precision = self.precision_[nodes][:, nodes]
        result[found] = harmonic_extension(precision, known, fixed, rows=wanted)
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
    precision, values: np.ndarray, fixed: np.ndarray, *, rows=None, rtol: float = 1e-5
) -> np.ndarray:
    """Solve Q f = 0 on the free cells, f = values on the fixed ones, by columns.

    This is the mean of a Gaussian with precision Q given the fixed cells.

    Columns with the same fixed cells (whole benchmarks, as a rule) share a sparse factorization;
    the others go through conjugate gradients together.

    Parameters
    ----------
    precision : sparse (n_nodes, n_nodes), such as `LineagePrior.precision`
    values, fixed : float32 (n_nodes, n_columns); `fixed` is 0 or 1.
    rows : int (n_rows,), optional, the nodes whose values are wanted; all by default

    Returns
    -------
    float32 (n_rows, n_columns)
    """
    n_nodes = len(values)
    rows = np.arange(n_nodes) if rows is None else rows
    if not n_nodes or fixed.all():
        return values[rows]
    matrix = precision.tocsr().astype(np.float32)
    packed = np.packbits(fixed.astype(bool), axis=0).T
    group, _ = pd.factorize(np.array([column.tobytes() for column in packed], dtype=object))
    sizes = np.bincount(group)
    solution = np.empty((len(rows), values.shape[1]), np.float32)
    for number in np.flatnonzero(sizes >= FACTORIZED_COLUMNS):
        columns = np.flatnonzero(group == number)
        part = values[:, columns], fixed[:, columns[0]]
        solution[:, columns] = _solve_directly(matrix, *part, rows)
    rest = np.flatnonzero(sizes[group] < FACTORIZED_COLUMNS)
    for start in range(0, len(rest), ITERATED_COLUMNS):
        own = rest[start : start + ITERATED_COLUMNS]
        solution[:, own] = _solve_iteratively(matrix, values[:, own], fixed[:, own], rtol)[rows]
    return solution


def _solve_directly(matrix, values, fixed, rows) -> np.ndarray:
    """Harmonic extension, at these rows, of columns that share their fixed nodes."""
    free, known = np.flatnonzero(fixed == 0), np.flatnonzero(fixed)
    solution, wanted = values[rows], np.flatnonzero(fixed[rows] == 0)
    if wanted.size:
        # f_w = -(A_ff^-1)_w A_fk values_k: one solve for each wanted row, whatever the columns.
        factors = splu(matrix[free][:, free].tocsc().astype(np.float64))
        unit = np.zeros((free.size, wanted.size))
        unit[np.searchsorted(free, rows[wanted]), np.arange(wanted.size)] = 1
        weights = -(matrix[known][:, free] @ factors.solve(unit)).T
        solution[wanted] = weights.astype(np.float32) @ values[known]
    return solution


def _solve_iteratively(matrix, values, fixed, rtol) -> np.ndarray:
    """Harmonic extension of columns by conjugate gradients, Jacobi-preconditioned."""
    free, known = 1 - fixed, values * fixed
    inverse = (1 / matrix.diagonal()).astype(np.float32)[:, None]
    # On the free cells, A f = -A known; the fixed cells are projected out of every product.
    extension, _ = conjugate_gradients(
        lambda direction: free * (matrix @ direction),
        lambda residual: inverse * residual,
        -free * (matrix @ known),
        rtol=rtol,
        max_iterations=2 * len(values),
        by_column=True,
    )
    return known + extension
