"""The objective of LRMF and its gradient, by blocks in float32: L-BFGS uses it, and `Watch`."""

import numba
import numpy as np
from numba import njit, prange

from lrmf.solver.kernels import _FACTORS_PER_LOG, _flush_loss, _residual_row

_ROWS, _COLUMNS = 256, 512
_GATHER = 256


class Objective:
    """F and dF over states (n_nodes, rank + 1) = [m, b] and items (n_items, rank + 1) = [x, c]."""

    def __init__(self, problem):
        self.spec, self.laplacian = problem.spec, problem.lineage.laplacian
        self.compressed = problem.compressed
        self.responses = np.asarray(problem.responses).view()
        self.responses.flags.writeable = False
        self.item_ridge = np.full(self.spec.rank + 1, self.spec.item_ridge)
        self.item_ridge[-1] = self.spec.intercept_ridge

    def __call__(self, states, items):
        """F, dF/dstates, dF/ditems."""
        left, right = extend(states[: self.spec.n_models], items)
        n_parts = numba.get_num_threads()
        loss = np.zeros(n_parts)
        by_left, by_right = np.zeros_like(left), np.zeros((n_parts, *right.shape), np.float32)
        if self.compressed is None:
            _dense(self.responses, left, right, loss, by_left, by_right)
        else:
            matrix = self.compressed
            arrays = (_plain(a) for a in (matrix.indptr, matrix.indices, matrix.data))
            _sparse(*arrays, left, right, loss, by_left, by_right)
        smooth = self.spec.node_ridge * states
        smooth = smooth + self.spec.lineage_strength * (self.laplacian @ states)
        value = loss.sum() + 0.5 * np.sum(states * smooth)
        value += 0.5 * np.sum(self.item_ridge * items**2)
        smooth[: self.spec.n_models] += by_left[:, :-1]
        by_items = self.item_ridge * items
        by_items += np.delete(by_right.sum(axis=0), self.spec.rank, axis=1)
        return value, smooth, by_items


def start(problem):
    """Where all solvers of this objective start: [m, b] = 0, x small and random, c the log-odds."""
    spec = problem.spec
    items = np.empty((spec.n_items, spec.rank + 1))
    items[:, :-1] = 0.3 * np.random.default_rng(spec.seed).standard_normal(items[:, :-1].shape)
    items[:, -1] = log_odds(*count(problem, axis=0))
    return np.zeros((problem.lineage.n_nodes, spec.rank + 1)), items


def count(problem, *, axis):
    """Correct and observed answers by item (axis 0) or by model (axis 1)."""
    if problem.compressed is not None:
        known = problem.compressed.copy()
        known.data = np.ones(known.nnz, np.int64)
        correct = known.copy()
        correct.data = np.asarray(problem.compressed.data, np.int64)
        return correct.sum(axis=axis), known.sum(axis=axis)
    tops = range(0, problem.spec.n_models, _ROWS)
    blocks = [problem.responses[top : top + _ROWS] for top in tops]
    pairs = [((block == 1).sum(axis=axis), (block < 2).sum(axis=axis)) for block in blocks]
    join = np.sum if axis == 0 else np.concatenate
    return tuple(join(part, axis=0) for part in zip(*pairs, strict=True))


def log_odds(correct, observed):
    return np.log((correct + 0.5) / (observed - correct + 0.5))


def logits(states, items, cells):
    """Of held-out `Cells`."""
    left, right = extend(states, items)
    return np.einsum("ck,ck->c", left[cells.rows], right[cells.columns])


def log_loss(logit, answers):
    """Mean over cells."""
    return np.logaddexp(0, np.where(answers == 1, -logit, logit)).mean()


def extend(states, items):
    """[m, b, 1] and [x, 1, c] in float32, the product of which are the logits."""
    left = np.ones((len(states), states.shape[1] + 1), np.float32)
    left[:, :-1] = states
    right = np.ones((len(items), items.shape[1] + 1), np.float32)
    right[:, :-2], right[:, -1] = items[:, :-1], items[:, -1]
    return left, right


def _plain(array):
    """As a read-only array: one compiled kernel serves memory maps and arrays."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@njit(parallel=True, cache=True, error_model="numpy")
def _dense(answers, left, right, loss, by_left, by_right):
    n_rows, n_columns = answers.shape
    n_parts = loss.size
    n_tiles = -(-n_rows // _ROWS)
    for part in prange(n_parts):
        product, hinge = np.ones(_COLUMNS, np.float32), np.zeros(_COLUMNS, np.float32)
        for tile in range(part, n_tiles, n_parts):
            top, bottom = tile * _ROWS, min(n_rows, (tile + 1) * _ROWS)
            rows = left[top:bottom]
            for start in range(0, n_columns, _COLUMNS):
                stop = min(n_columns, start + _COLUMNS)
                columns = right[start:stop]
                cells = np.dot(rows, columns.T)
                for i in range(bottom - top):
                    _residual_row(cells[i], answers[top + i, start:stop], product, hinge)
                    if (i + 1) % _FACTORS_PER_LOG == 0 or top + i + 1 == bottom:
                        loss[part] += _flush_loss(product, hinge, 1)
                by_left[top:bottom] += np.dot(cells, columns)
                by_right[part, start:stop] += np.dot(cells.T, rows)


@njit(parallel=True, cache=True, error_model="numpy")
def _sparse(pointers, columns, answers, left, right, loss, by_left, by_right):
    n_rows, width = left.shape
    n_parts = loss.size
    for part in prange(n_parts):
        product, hinge = np.ones(_GATHER, np.float32), np.zeros(_GATHER, np.float32)
        gathered = np.empty((_GATHER, width), np.float32)
        for row in range(part * n_rows // n_parts, (part + 1) * n_rows // n_parts):
            for start in range(pointers[row], pointers[row + 1], _GATHER):
                size = min(pointers[row + 1] - start, _GATHER)
                for k in range(size):
                    gathered[k] = right[columns[start + k]]
                cells = np.dot(gathered[:size], left[row])
                _residual_row(cells, answers[start : start + size], product[:size], hinge[:size])
                loss[part] += _flush_loss(product[:size], hinge[:size], _FACTORS_PER_LOG)
                by_left[row] += np.dot(cells, gathered[:size])
                for k in range(size):
                    column, residual = columns[start + k], cells[k]
                    for a in range(width):
                        by_right[part, column, a] += residual * left[row, a]
