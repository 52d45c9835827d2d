"""Matrices of 0/1 answers, dense in tiles or compressed: likelihood sums for Newton steps."""

import numpy as np
from scipy.special import expit

from ..data.response_kinds import ANSWERS
from ..data.statistics import compress, count_answers, count_columns, read_only
from . import kernels
from .gaussians import pack

DENSE_ABOVE = 0.08  # share of observed answers from which tiles beat compressed rows
_SAMPLE = 1024  # columns behind a sub-sampled Hessian
MODEL_SIDE, ITEM_SIDE = 0, 1


class DenseAnswers:
    """The uint8 matrix, read either way; Hessians from a sample of the other side's members.

    Attributes
    ----------
    correct : (n_items,), correct answers to each item
    observed : ((n_models,), (n_items,)), observed answers of each
    """

    def __init__(self, answers, rng):
        self.shape = answers.shape
        self._matrix = read_only(answers)
        self.correct, by_item = count_columns(answers)
        self.observed = count_answers(answers)[1], by_item
        self._rng = rng

    def statistics(self, side, free, loadings, intercept, *, exact=False):
        """Loss (by tile), gradient and packed Hessian of `free`, (loadings, intercept) fixed."""
        free, fixed = _extend(free, 1.0), _extend(loadings, intercept)
        n_free, p = len(free), free.shape[1] - 1
        by_item = side == ITEM_SIDE
        tile = kernels.TILE_COLUMNS if by_item else kernels.TILE_ROWS
        loss = np.empty(-(-n_free // tile))
        gradient = np.empty((n_free, p), np.float32)
        hessian = np.empty((n_free, p * (p + 1) // 2), np.float32)
        pair = (fixed, free) if by_item else (free, fixed)
        # The gradient is exact: it decides where the iteration ends.
        kernels.dense_gradient(self._matrix, *pair, by_item, loss, gradient)
        matrix = self._matrix
        if not exact and len(fixed) > 2 * _SAMPLE:
            # The Hessian only shapes the step: a sample of the other side, rescaled, will do.
            sample = np.sort(self._rng.permutation(len(fixed))[:_SAMPLE])
            matrix = read_only(matrix.take(sample, axis=1 - side))
            pair = (fixed[sample], free) if by_item else (free, fixed[sample])
        kernels.dense_hessian(matrix, *pair, by_item, hessian)
        sampled = (count_columns if by_item else count_answers)(matrix)[1]
        # Rescale each row from its sampled answers to all it has.
        hessian *= (self.observed[side] / np.maximum(sampled, 1))[:, None]
        return loss, gradient, hessian


class SparseAnswers:
    """Compressed rows and columns of the observed answers; everything exact.

    One interface with `DenseAnswers`, so that nobody need ask how the answers are laid out: `exact`
    is accepted and changes nothing.
    """

    def __init__(self, answers):
        self.shape = answers.shape
        compressed = compress(answers)
        transposed = compressed.T.tocsr()
        # Rows for the model side, columns for the item side.
        self._matrices = compressed, transposed
        self.observed = np.diff(compressed.indptr), np.diff(transposed.indptr)
        self.correct = np.bincount(compressed.indices, compressed.data, minlength=self.shape[1])

    def statistics(self, side, free, loadings, intercept, *, exact=False):
        """Loss (by row), gradient and packed Hessian of `free`, (loadings, intercept) fixed."""
        matrix = self._matrices[side]
        n_rows, p = free.shape
        loss = np.empty(n_rows)
        gradient = np.empty((n_rows, p), np.float32)
        hessian = np.empty((n_rows, p * (p + 1) // 2), np.float32)
        kernels.sparse_statistics(
            matrix.indptr, matrix.indices, matrix.data, _extend(free, 1.0),
            _extend(loadings, intercept), loss, gradient, hessian,
        )  # fmt: skip
        return loss, gradient, hessian


class AnswersOfOne:
    """The answers of a single model, in NumPy: compiled kernels take half a second to start.

    The model side of `SparseAnswers`, exact.
    """

    def __init__(self, answers):
        self.shape = answers.shape
        self._items = np.flatnonzero(answers[0] != ANSWERS.missing)
        self._correct = answers[0, self._items].astype(np.float64)

    def statistics(self, side, free, loadings, intercept, *, exact=True):
        """Loss (1,), gradient (1, p) and packed Hessian of the state `free` (1, p)."""
        loadings = loadings[self._items].astype(np.float64)
        logit = loadings @ free[0] + intercept[self._items]
        chance = expit(logit)
        # -log p(z | s) = log(1 + e^s) - z s.
        loss = np.logaddexp(0, logit) - self._correct * logit
        gradient = (chance - self._correct) @ loadings
        hessian = (loadings.T * (chance * (1 - chance))) @ loadings
        return loss.sum()[None], gradient[None], pack(hessian[None])


def lay_out(answers, rng):
    """`DenseAnswers` or `SparseAnswers`, by the share of observed answers.

    Parameters
    ----------
    answers : uint8 (n_models, n_items), 0/1/255, possibly memory-mapped
    rng : numpy Generator, draws the samples behind the Hessians
    """
    plain = read_only(answers)
    dense = count_answers(plain)[1].sum() > DENSE_ABOVE * answers.size
    return DenseAnswers(plain, rng) if dense else SparseAnswers(plain)


def _extend(states, last):
    """float32 states with one more column."""
    extended = np.empty((states.shape[0], states.shape[1] + 1), np.float32)
    extended[:, :-1] = states
    extended[:, -1] = last
    return extended
