"""Answers (0/1): the Bernoulli likelihood and its alternating Newton solver."""

import warnings
from itertools import pairwise
from time import perf_counter

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from . import kernels
from .prior import Gaussians, unpack

DENSE_ABOVE = 0.08  # share of observed answers from which tiles beat compressed rows
_SAMPLE = 1024  # columns behind a sub-sampled Hessian
_LONGEST_STEP = 1.5  # logits, root mean square over a row
_LEAST_LEFT = 0.05  # of the precision of a logit, once an answer's own evidence has left it
_SLACK = 1e-7  # relative rounding error of the objective
_MODELS, _ITEMS = 0, 1


class DenseAnswers:
    """The uint8 matrix, read either way; Hessians from a sample of the other side's members.

    Attributes
    ----------
    correct : (n_items,), correct answers to each item
    observed : ((n_models,), (n_items,)), observed answers of each
    """

    def __init__(self, answers, rng):
        self.shape = answers.shape
        self._matrix = _read_only(answers)
        self.correct, by_item = count_columns(answers)
        self.observed = count_answers(answers)[1], by_item
        self._rng = rng

    def statistics(self, side, free, design, offset, *, exact=False):
        """Loss (by tile), gradient and packed Hessian of `free`, (design, offset) fixed."""
        free, fixed = _extend(free, 1.0), _extend(design, offset)
        n_free, p = len(free), free.shape[1] - 1
        by_item = side == _ITEMS
        tile = kernels.TILE_COLUMNS if by_item else kernels.TILE_ROWS
        loss = np.empty(-(-n_free // tile))
        gradient = np.empty((n_free, p), np.float32)
        hessian = np.empty((n_free, p * (p + 1) // 2), np.float32)
        pair = (fixed, free) if by_item else (free, fixed)
        kernels.dense_gradient(self._matrix, *pair, by_item, loss, gradient)
        matrix = self._matrix
        if not exact and len(fixed) > 2 * _SAMPLE:
            sample = np.sort(self._rng.permutation(len(fixed))[:_SAMPLE])
            matrix = _read_only(matrix.take(sample, axis=1 - side))
            pair = (fixed[sample], free) if by_item else (free, fixed[sample])
        kernels.dense_hessian(matrix, *pair, by_item, hessian)
        sampled = (count_columns if by_item else count_answers)(matrix)[1]
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
        self._matrices = compressed, transposed
        self.observed = np.diff(compressed.indptr), np.diff(transposed.indptr)
        self.correct = np.bincount(compressed.indices, compressed.data, minlength=self.shape[1])

    def statistics(self, side, free, design, offset, *, exact=False):
        """Loss (by row), gradient and packed Hessian of `free`, (design, offset) fixed."""
        matrix = self._matrices[side]
        n_rows, p = free.shape
        loss = np.empty(n_rows)
        gradient = np.empty((n_rows, p), np.float32)
        hessian = np.empty((n_rows, p * (p + 1) // 2), np.float32)
        kernels.sparse_statistics(
            matrix.indptr, matrix.indices, matrix.data, _extend(free, 1.0),
            _extend(design, offset), loss, gradient, hessian,
        )  # fmt: skip
        return loss, gradient, hessian


def lay_out(answers, rng):
    """`DenseAnswers` or `SparseAnswers`, by the share of observed answers.

    Parameters
    ----------
    answers : uint8 (n_models, n_items), 0/1/255, possibly memory-mapped
    rng : numpy Generator, draws the samples behind the Hessians
    """
    plain = _read_only(answers)
    dense = count_answers(plain)[1].sum() > DENSE_ABOVE * answers.size
    return DenseAnswers(plain, rng) if dense else SparseAnswers(plain)


def count_answers(answers):
    """Correct and observed answers by row; observed is -1 in a row with a value that is none."""
    correct, observed = np.empty((2, answers.shape[0]), np.int64)
    kernels.count_answers(_read_only(answers), correct, observed)
    return correct, observed


def count_columns(answers):
    """Correct and observed answers by column."""
    correct, observed = np.empty((2, answers.shape[1]), np.int64)
    kernels.count_columns(_read_only(answers), correct, observed)
    return correct, observed


def compress(answers):
    """CSR of the observed answers; the data are 0/1 (explicit zeros are answers, too)."""
    pointers = np.concatenate([[0], np.cumsum(count_answers(answers)[1])])
    columns, values = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.uint8)
    kernels.compress(_read_only(answers), pointers, columns, values)
    return sparse.csr_array((values, columns, pointers), shape=answers.shape)


def _read_only(answers):
    """A plain read-only view, as of a memory map: one compiled kernel serves every caller."""
    view = np.ascontiguousarray(answers).view()
    view.flags.writeable = False
    return view


def _extend(states, last):
    """float32 states with one more column."""
    extended = np.empty((states.shape[0], states.shape[1] + 1), np.float32)
    extended[:, :-1] = states
    extended[:, -1] = last
    return extended


class AlternatingNewton:
    """Minimise the LRMF objective for answers, one side of the factorization at a time.

        F = sum_observed logloss(z_ui, sigma(m_u . x_i + b_u + c_i))
            + prior penalty of [m, b] + 1/2 item_ridge |X|^2 + 1/2 intercept_ridge |c|^2

    A half-step is a damped Newton step: exact gradient, (sub-sampled) Hessian, conjugate gradients
    over the lineage for models, independent systems for items. A step that raised F, which the
    next evaluation shows, is shortened until it does not.

    Parameters
    ----------
    answers : DenseAnswers or SparseAnswers
    prior : LineagePrior
        Over the model states t_u = [m_u, b_u].
    item_ridge, intercept_ridge : float
    item_prior : LineagePrior, optional
        Over the item states [x_i, c_i], in place of the two ridges: items alike pull at each other.
    """

    def __init__(self, answers, prior, *, item_ridge, intercept_ridge, item_prior=None):
        self.answers, self.prior, self.item_prior = answers, prior, item_prior
        self.rank = prior.ridge.size - 1
        self.item_ridge = np.append(np.full(self.rank, item_ridge), intercept_ridge)
        self.stats = {"objective": [], "loss": [], "cg_iterations": []}
        self.stats |= {"sweeps": 0, "backtracks": 0}
        self.stats |= {"seconds_models": [], "seconds_items": []}
        self._undo = None

    def fit(self, models, items, *, max_sweeps, tolerance, free_items=True):
        """Sweep until two sweeps together lower F by less than `tolerance`, relatively.

        Parameters
        ----------
        models, items : float64 (n_nodes, rank + 1), (n_items, rank + 1)
            Starting [m, b] and [x, c].
        free_items : bool
            False keeps the items as they are and solves for the models only.

        Returns
        -------
        models, items : the fitted states
        """
        self.models, self.items = models, items
        history = self.stats["objective"]
        for sweep in range(max_sweeps + 1):
            started = perf_counter()
            gradient, hessian = self._evaluate(_MODELS)
            history.append(self._objective)
            self.stats["loss"].append(self._loss)
            if sweep > 1 and history[-3] - history[-1] <= tolerance * abs(history[-1]):
                break
            if sweep == max_sweeps:
                _warn_unsettled(max_sweeps, tolerance)
                break
            self._step(_MODELS, self._model_direction(gradient, hessian))
            self.stats["seconds_models"].append(perf_counter() - started)
            if free_items:
                started = perf_counter()
                self._step(_ITEMS, self._item_direction(*self._evaluate(_ITEMS)))
                self.stats["seconds_items"].append(perf_counter() - started)
            self.stats["sweeps"] = sweep + 1
        return self.models, self.items

    def _evaluate(self, side):
        """Gradient and Hessian at the current point, the last step shortened if it raised F.

        Where no step lowers F by more than its rounding error, the step is taken back.
        """
        while True:
            point = _split(self.models, self.items, self.answers.shape[0], side)
            loss, gradient, hessian = self.answers.statistics(side, *point)
            loss = loss.sum()
            objective = loss + self.prior.penalty(self.models)
            objective += 0.5 * np.sum(self.items * self._item_precision_times(self.items))
            if self._undo is None or objective <= self._objective * (1 + _SLACK):
                self._loss, self._objective = loss, objective
                return gradient, hessian
            stepped, start, direction, size = self._undo
            if size == 0:
                return gradient, hessian
            self.stats["backtracks"] += 1
            self._step(stepped, direction, start=start, size=size / 4 if size > 1e-3 else 0.0)

    def _step(self, side, direction, *, start=None, size=1.0):
        if start is None:
            start = self.models, self.items
        states = list(start)
        if size:
            states[side] = states[side] + size * direction
        self.models, self.items = states
        self._undo = (side, start, direction, size)
        if side == _ITEMS and size:
            self._centre()
            self._balance()

    def _model_direction(self, gradient, hessian):
        n_nodes, n_models = self.models.shape[0], gradient.shape[0]
        full = np.zeros((n_nodes, hessian.shape[1]), np.float32)
        full[:n_models] = hessian
        right = -self.prior.multiply(self.models)
        right[:n_models] -= gradient
        direction, iterations = self.prior.solve(full, right, rtol=5e-2)
        self.stats["cg_iterations"].append(iterations)
        return _trust(full, direction)

    def _item_precision_times(self, items):
        if self.item_prior is None:
            return self.item_ridge * items
        return self.item_prior.multiply(items)

    def _item_direction(self, gradient, hessian):
        if self.item_prior is not None:
            right = -(gradient + self.item_prior.multiply(self.items))
            return _trust(hessian, self.item_prior.solve(hessian, right, rtol=5e-2)[0])
        factors = np.empty_like(hessian)
        ridge = np.broadcast_to(self.item_ridge, self.items.shape)
        kernels.cholesky(hessian, ridge, factors)
        direction = np.empty_like(self.items)
        kernels.cholesky_solve(factors, -(gradient + ridge * self.items), direction)
        return _trust(hessian, direction)

    def _centre(self):
        """Move what all states share into biases and intercepts, to the least penalty."""
        k, ridge = self.rank, self.item_ridge[-1]
        shared = self.prior.multiply(np.ones_like(self.models))
        design = np.column_stack([self.items[:, :k], np.ones(len(self.items))])
        system = np.diag(shared.sum(axis=0)) + ridge * design.T @ design
        right = np.sum(shared * self.models, axis=0) - ridge * design.T @ self.items[:, k]
        shift = np.linalg.solve(system, right)
        self.models = self.models - shift
        self.items = self.items.copy()
        self.items[:, k] += design @ shift

    def _balance(self):
        """Move to the factors of least penalty among those with the same logits.

        M <- M S, X <- X S^-T with SS' = T the geometric mean that solves T P T = Q for
        P = M' (prior precision) M and Q = X' (item precision) X. A common ridge on P and Q keeps
        vanishing factors as they are, and cannot make T raise the penalty.
        """
        k = self.rank
        factors, loadings = self.models[:, :k], self.items[:, :k]
        p = factors.T @ self.prior.multiply(self.models)[:, :k]
        q = loadings.T @ self._item_precision_times(self.items)[:, :k]
        size_p, size_q = np.trace(p), np.trace(q)
        if min(size_p, size_q) < 1e-20:
            return
        floor = 1e-7 * np.eye(k)
        root, inverse = _powers((p + p.T) / (2 * size_p) + floor)
        middle, _ = _powers(root @ (q / size_q + floor) @ root)
        values, vectors = np.linalg.eigh(inverse @ middle @ inverse)
        scale = vectors * np.sqrt(values * np.sqrt(size_q / size_p))
        self.models[:, :k] = factors @ scale
        self.items[:, :k] = loadings @ (scale / np.sum(scale**2, axis=0))


def _split(models, items, n_models, side):
    """(free states, design, offset) of logits = free . design + offset for either side."""
    ones = np.ones
    if side == _MODELS:
        return (
            models[:n_models],
            np.column_stack([items[:, :-1], ones(len(items))]),
            items[:, -1],
        )
    scored = models[:n_models]
    return items, np.column_stack([scored[:, :-1], ones(n_models)]), scored[:, -1]


def _trust(hessian, direction):
    """Shorten each row of a step to at most `_LONGEST_STEP` logits, root mean square."""
    product = np.empty_like(direction)
    kernels.packed_matvec(hessian, direction, product)
    squared = np.sum(direction * product, axis=1) / np.maximum(hessian[:, -1], 1e-30)
    length = np.sqrt(np.maximum(squared, 0))
    return direction * np.minimum(1.0, _LONGEST_STEP / np.maximum(length, 1e-30))[:, None]


def _powers(matrix):
    """Square root and inverse square root of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 1e-300))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _warn_unsettled(max_sweeps, tolerance):
    warnings.warn(
        f"LRMF stopped after {max_sweeps} sweeps before its objective settled to "
        f"{tolerance:g}; raise max_sweeps or tolerance",
        ConvergenceWarning,
        stacklevel=4,
    )


class Bernoulli:
    """P(z_ui = 1) = sigma(t_u . d_i + c_i) with design d_i = [x_i, 1] and intercept c_i."""

    jump = 0.0

    def __init__(self, design, offset):
        self.design = np.ascontiguousarray(design, np.float32)
        self.offset = np.ascontiguousarray(offset, np.float32)
        # Packed so that (packed covariance) . (packed product) = d' C d: off-diagonals count twice.
        p = self.design.shape[1]
        upper = np.triu_indices(p)
        self._upper = upper
        self._twice = np.where(upper[0] == upper[1], 1.0, 2.0)

    def evidence(self, answers, states):
        """Laplace evidence of each row about its state: precision H and information H t - g.

        Parameters
        ----------
        answers : DenseAnswers or SparseAnswers, n rows
        states : (n, p), the states at which the likelihood is expanded

        Returns
        -------
        Gaussians (n)
        """
        _, gradient, hessian = answers.statistics(
            _MODELS, states, self.design, self.offset, exact=True
        )
        return _laplace(hessian, gradient, states)

    def fold_in(self, prior, revealed, *, max_steps=100):
        """Posterior (mode and Laplace precision) of states given revealed answers.

        Parameters
        ----------
        prior : Gaussians (n)
        revealed : uint8 (n, n_items), 255 where not revealed

        Returns
        -------
        Gaussians (n)
        """
        mean, precision = prior.mean, prior.precision
        answers = SparseAnswers(revealed)
        states, step, lowest = mean.copy(), np.zeros_like(mean), np.full(len(mean), np.inf)
        hessian = precision.copy()
        for _ in range(max_steps):
            trial = states + step
            loss, gradient, packed = answers.statistics(_MODELS, trial, self.design, self.offset)
            pull = np.einsum("nij,nj->ni", precision, trial - mean)
            objective = loss + 0.5 * np.sum(pull * (trial - mean), axis=1)
            lower = objective <= lowest + 1e-6 * np.abs(lowest)
            lowest[lower], states[lower] = objective[lower], trial[lower]
            hessian[lower] = (precision + unpack(packed.astype(np.float64), mean.shape[1]))[lower]
            newton = np.linalg.solve(hessian, -(gradient + pull)[..., None])[..., 0]
            step = np.where(lower[:, None], newton, step / 4)
            if np.abs(step).max(initial=0.0) < 1e-5:
                break
        return Gaussians(hessian, np.einsum("nij,nj->ni", hessian, states))

    def forecast(self, mean, covariance, items=slice(None)):
        """Expected answers to `items` under N(mean, covariance) and their slopes by the logit.

        E sigma(s) is approximated by sigma(E s / sqrt(1 + pi/8 Var s)) (MacKay, 1992).

        Returns
        -------
        probability, slope, noise : float32 (n, n_items)
            noise is the variance of the answer given its chance, E sigma (1 - sigma).
        """
        logit = mean.astype(np.float32) @ self.design[items].T + self.offset[items]
        packed = (covariance[:, self._upper[0], self._upper[1]] * self._twice).astype(np.float32)
        return _expected(logit, packed @ kernels.pack_products(self.design[items]).T)

    def forecast_at(self, states, cells):
        """Expected answers, float32 (n_cells,), as in `forecast`, to some items of each row.

        Parameters
        ----------
        states : Gaussians (n)
        cells : CSR (n, n_items) of answers
        """
        return _expected(*self._logits_at(states, cells))[0][0]

    def left_out(self, states, cells):
        """Expected answers, float32 (n_cells,), each given all *other* answers of its row.

        With g = z - p and w = p (1 - p) at the mean of s, an answer's own evidence leaves the
        posterior of its logit s ~ N(mu, v): v' = v / (1 - w v), mu' = mu - v' g.

        Parameters
        ----------
        states : Gaussians (n), the posterior given the answers
        cells : CSR (n, n_items) of answers, all or some
        """
        logit, variance = self._logits_at(states, cells)
        probability = expit(logit)
        weight = probability * (1 - probability)
        variance /= np.maximum(1 - weight * variance, _LEAST_LEFT)
        return _expected(logit - variance * (cells.data - probability), variance)[0][0]

    def _logits_at(self, states, cells):
        """Means and variances, float32 (1, n_cells), of the logits."""
        mean, covariance = states.mean, states.covariance
        logit, variance = np.empty((2, 1, cells.nnz), np.float32)
        for row, (top, end) in enumerate(pairwise(cells.indptr)):
            items = cells.indices[top:end]
            design = self.design[items]
            logit[0, top:end] = design @ mean[row] + self.offset[items]
            variance[0, top:end] = np.sum(design @ covariance[row] * design, axis=1)
        return logit, variance


def _expected(logit, variance):
    probability, slope, noise = (np.empty_like(logit) for _ in range(3))
    kernels.expected_answers(logit, variance, probability, slope, noise)
    return probability, slope, noise


def _laplace(packed, gradient, states):
    precision = unpack(packed.astype(np.float64), states.shape[1])
    return Gaussians(precision, np.einsum("nij,nj->ni", precision, states) - gradient)
