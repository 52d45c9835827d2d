"""Matrices of 0/1 answers, dense or compressed: the likelihood sums that Newton steps need."""

import numpy as np
from scipy.special import expit

from ..data.response_kinds import ANSWERS
from ..data.statistics import compress, count_answers, count_columns, read_only
from . import kernels
from .gaussians import pack

DENSE_ABOVE = 0.08  # share of observed answers above which dense tiles are faster
_HESSIAN_SAMPLE = 1024  # rows of the fixed side that estimate a Hessian
MODEL_SIDE, ITEM_SIDE = 0, 1


class DenseAnswers:
    """A dense uint8 matrix; Hessians are estimated from a sample of the fixed side.

    Parameters
    ----------
    answers : uint8 (n_models, n_items), 0/1/255
    rng : numpy Generator, draws the samples

    Attributes
    ----------
    correct : (n_items,)
        Number of correct answers to each item.
    observed : ((n_models,), (n_items,))
        Number of observed answers of each model and to each item.
    """

    def __init__(self, answers, rng):
        self.shape = answers.shape
        self._matrix = read_only(answers)
        self.correct, by_item = count_columns(answers)
        self.observed = count_answers(answers)[1], by_item
        self._rng = rng

    def statistics(self, side, free, loadings, intercept, *, exact=False):
        """Log-loss, gradient and Hessian of the `free` side, the other side fixed.

        With logits s_ab = f_a . d_b + c_b, probabilities p = sigma(s) and sums over observed
        answers z,

            gradient_a = sum_b (p_ab - z_ab) d_b,    hessian_a = sum_b p_ab (1 - p_ab) d_b d_b'.

        Parameters
        ----------
        side : MODEL_SIDE or ITEM_SIDE
        free : (n_free, p), the states f
        loadings, intercept : (n_fixed, p), (n_fixed,), d and c
        exact : bool
            Whether to sum the Hessian over all of the fixed side rather than a sample.

        Returns
        -------
        loss : (n_tiles,)
        gradient : float32 (n_free, p)
        hessian : float32 (n_free, p (p + 1) / 2), packed
        """
        # A constant column makes each intercept one more product: s = [f, 1] . [d, c].
        free, fixed = _extend(free, 1.0), _extend(loadings, intercept)
        n_free, p = len(free), free.shape[1] - 1
        by_item = side == ITEM_SIDE
        tile = kernels.TILE_COLUMNS if by_item else kernels.TILE_ROWS
        loss = np.empty(-(-n_free // tile))
        gradient = np.empty((n_free, p), np.float32)
        hessian = np.empty((n_free, p * (p + 1) // 2), np.float32)
        pair = (fixed, free) if by_item else (free, fixed)
        # The gradient is exact: its zero is the solution.
        kernels.dense_gradient(self._matrix, *pair, by_item, loss, gradient)
        matrix = self._matrix
        if not exact and len(fixed) > 2 * _HESSIAN_SAMPLE:
            # The Hessian only scales the step: a sample of the fixed side is enough.
            sample = np.sort(self._rng.permutation(len(fixed))[:_HESSIAN_SAMPLE])
            matrix = read_only(matrix.take(sample, axis=1 - side))
            pair = (fixed[sample], free) if by_item else (free, fixed[sample])
        kernels.dense_hessian(matrix, *pair, by_item, hessian)
        sampled = (count_columns if by_item else count_answers)(matrix)[1]
        # Scale each Hessian by (observed answers) / (sampled answers).
        hessian *= (self.observed[side] / np.maximum(sampled, 1))[:, None]
        return loss, gradient, hessian


class SparseAnswers:
    """Compressed rows and columns of the observed answers.

    The interface is that of `DenseAnswers`. All sums are exact, whatever `exact` says.
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
        """Log-loss (n_free,), gradient and packed Hessian, as in `DenseAnswers.statistics`."""
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
    """The answers of one model, in NumPy, as compiled kernels take half a second to start.

    The interface is that of `SparseAnswers`, for the model side only.
    """

    def __init__(self, answers):
        self.shape = answers.shape
        self._items = np.flatnonzero(answers[0] != ANSWERS.missing)
        self._correct = answers[0, self._items].astype(np.float64)

    def statistics(self, side, free, loadings, intercept, *, exact=True):
        """Log-loss (1,), gradient (1, p) and packed Hessian of the state `free` (1, p)."""
        # Probabilities of the items that the model has answered.
        loadings = loadings[self._items].astype(np.float64)
        logit = loadings @ free[0] + intercept[self._items]
        probability = expit(logit)
        # -log p(z | s) = log(1 + e^s) - z s.
        loss = np.logaddexp(0, logit) - self._correct * logit
        # Gradient sum (p - z) d and Hessian sum p (1 - p) d d'.
        gradient = (probability - self._correct) @ loadings
        hessian = (loadings.T * (probability * (1 - probability))) @ loadings
        return loss.sum()[None], gradient[None], pack(hessian[None])


def lay_out(answers, rng):
    """Return `DenseAnswers` or `SparseAnswers`, whichever is faster at this share of answers.

    Parameters
    ----------
    answers : uint8 (n_models, n_items), 0/1/255, possibly memory-mapped
    rng : numpy Generator, draws the samples that estimate Hessians
    """
    plain = read_only(answers)
    dense = count_answers(plain)[1].sum() > DENSE_ABOVE * answers.size
    return DenseAnswers(plain, rng) if dense else SparseAnswers(plain)


def _extend(states, last):
    """States in float32 with the column `last` appended."""
    extended = np.empty((states.shape[0], states.shape[1] + 1), np.float32)
    extended[:, :-1] = states
    extended[:, -1] = last
    return extended
