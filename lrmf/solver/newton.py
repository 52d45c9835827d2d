"""Alternating damped Newton steps on model states and item parameters; the objective falls."""

import warnings
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from . import kernels
from .answers import ITEM_SIDE, MODEL_SIDE
from .prior import penalty, solve


@dataclass(frozen=True)
class NewtonConfig:
    """Constants of the alternating Newton iteration.

    Attributes
    ----------
    longest_step : float
        Maximum length of a row's step: root mean square change of its logits.
    rounding : float
        Relative rounding error of the objective; smaller increases are accepted.
    shortest_step : float
        Fraction of a Newton step below which the step is undone.
    cg_tolerance : float
        Relative tolerance of the conjugate gradients of a half-step.
    """

    longest_step: float = 1.5
    rounding: float = 1e-7
    shortest_step: float = 1e-3
    cg_tolerance: float = 5e-2


class AlternatingNewton:
    """Minimise the LRMF objective for answers, one side of the factorization at a time.

        F = sum_observed logloss(z_ui, sigma(m_u . x_i + b_u + c_i))
            + prior penalty of [m, b] + 1/2 item_ridge |X|^2 + 1/2 intercept_ridge |c|^2

    A half-step is a damped Newton step with the exact gradient and a (sub-sampled) Hessian. The
    system of the models is solved by conjugate gradients over the lineage, those of the items one
    by one. If the next evaluation shows that a step raised F, the step is shortened until it no
    longer does.

    Parameters
    ----------
    answers : DenseAnswers or SparseAnswers
    prior : Prior
        Over the model states t_u = [m_u, b_u].
    item_ridge, intercept_ridge : float
    item_prior : Prior, optional
        Over the item states [x_i, c_i], in place of the two ridges.
    config : NewtonConfig, optional

    Attributes
    ----------
    stats : dict
        Objective and loss by sweep, conjugate-gradient iterations, sweeps, backtracks, seconds.
    """

    def __init__(
        self, answers, prior, *, item_ridge, intercept_ridge, item_prior=None, config=None
    ):
        self.answers, self.prior, self.item_prior = answers, prior, item_prior
        self.factor_ridge, self.intercept_ridge = item_ridge, intercept_ridge
        self.config = config or NewtonConfig()
        self.stats = {"objective": [], "loss": [], "cg_iterations": []}
        self.stats |= {"sweeps": 0, "backtracks": 0}
        self.stats |= {"seconds_models": [], "seconds_items": []}
        self._undo = None

    def fit(self, models, items, *, max_sweeps, tolerance, free_items=True):
        """Sweep until two sweeps together lower F by less than `tolerance` times F.

        A `ConvergenceWarning` is issued if `max_sweeps` end first.

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
            # Loss and derivatives at the current point; a step that raised F is undone here.
            gradient, hessian = self._evaluate(MODEL_SIDE)
            history.append(self._objective)
            self.stats["loss"].append(self._loss)
            # Two sweeps are compared because F hardly falls in one that crosses a saddle point.
            if sweep > 1 and history[-3] - history[-1] <= tolerance * abs(history[-1]):
                break
            if sweep == max_sweeps:
                _warn_unconverged(max_sweeps, tolerance)
                break
            self._step(MODEL_SIDE, self._model_direction(gradient, hessian))
            self.stats["seconds_models"].append(perf_counter() - started)
            # Then the items, given the models.
            if free_items:
                started = perf_counter()
                self._step(ITEM_SIDE, self._item_direction(*self._evaluate(ITEM_SIDE)))
                self.stats["seconds_items"].append(perf_counter() - started)
            self.stats["sweeps"] = sweep + 1
        return self.models, self.items

    @property
    def rank(self):
        """Number of factors, from the items' states [x, c]."""
        return self.items.shape[1] - 1

    @property
    def item_ridge(self):
        """Ridge on the components of an item's state (rank + 1,)."""
        return np.append(np.full(self.rank, self.factor_ridge), self.intercept_ridge)

    def _evaluate(self, side):
        """Gradient and Hessian at the current point, after backtracking on the last step.

        A step that raised F is divided by 4, and undone if it is still too long at
        `shortest_step`.
        """
        while True:
            point = _split(self.models, self.items, self.answers.shape[0], side)
            loss, gradient, hessian = self.answers.statistics(side, *point)
            loss = loss.sum()
            # F = loss + 1/2 t' Q t + 1/2 x' R x.
            objective = loss + penalty(self.prior, self.models)
            objective += 0.5 * np.sum(self.items * self._item_precision_times(self.items))
            # Accept the last step if it did not raise F.
            if self._undo is None or objective <= self._objective * (1 + self.config.rounding):
                self._loss, self._objective = loss, objective
                return gradient, hessian
            # Otherwise backtrack: a quarter of the step, and at last size 0.
            stepped, start, direction, size = self._undo
            if size == 0:
                return gradient, hessian
            self.stats["backtracks"] += 1
            shorter = size / 4 if size > self.config.shortest_step else 0.0
            self._step(stepped, direction, start=start, size=shorter)

    def _step(self, side, direction, *, start=None, size=1.0):
        """Move one side by `size * direction`, and keep what `_evaluate` needs to shorten this."""
        if start is None:
            start = self.models, self.items
        states = list(start)
        if size:
            states[side] = states[side] + size * direction
        self.models, self.items = states
        self._undo = (side, start, direction, size)
        if side == ITEM_SIDE and size:
            # Shifts and linear maps of the factors that keep all logits: take the least penalty.
            self._centre()
            self._balance()

    def _model_direction(self, gradient, hessian):
        """Newton direction of all nodes, (blockdiag(H) + Q) d = -(gradient + Q t)."""
        n_nodes, n_models = self.models.shape[0], gradient.shape[0]
        # Nodes without responses have H = 0: only the prior determines them.
        full = np.zeros((n_nodes, hessian.shape[1]), np.float32)
        full[:n_models] = hessian
        right = -self.prior.multiply(self.models)
        right[:n_models] -= gradient
        direction, iterations = solve(self.prior, full, right, rtol=self.config.cg_tolerance)
        self.stats["cg_iterations"].append(iterations)
        return self._limit_step(full, direction)

    def _item_precision_times(self, items):
        """R x, the prior precision of the items times their states."""
        if self.item_prior is None:
            return self.item_ridge * items
        return self.item_prior.multiply(items)

    def _item_direction(self, gradient, hessian):
        """Newton direction of all items, (blockdiag(H) + R) d = -(gradient + R x)."""
        if self.item_prior is not None:
            # R links similar items: one system over all of them.
            right = -(gradient + self.item_prior.multiply(self.items))
            rtol = self.config.cg_tolerance
            return self._limit_step(hessian, solve(self.item_prior, hessian, right, rtol=rtol)[0])
        # R is diagonal: one small system for each item, by Cholesky.
        factors = np.empty_like(hessian)
        ridge = np.broadcast_to(self.item_ridge, self.items.shape)
        kernels.cholesky(hessian, ridge, factors)
        direction = np.empty_like(self.items)
        kernels.cholesky_solve(factors, -(gradient + ridge * self.items), direction)
        return self._limit_step(hessian, direction)

    def _limit_step(self, hessian, direction):
        """Shorten each row d of a step to the length `longest_step`.

        The length is the root mean square change of the logits, weighted by w = p (1 - p):
        sqrt(d' H d / sum w). The last diagonal entry of H is sum w, as the last loading is 1.
        """
        product = np.empty_like(direction)
        kernels.packed_matvec(hessian, direction, product)
        squared = np.sum(direction * product, axis=1) / np.maximum(hessian[:, -1], 1e-30)
        length = np.maximum(np.sqrt(np.maximum(squared, 0)), 1e-30)
        return direction * np.minimum(1.0, self.config.longest_step / length)[:, None]

    def _centre(self):
        """Shift all model states by the same delta, and the intercepts so that logits stay.

        With D the loadings and t - delta for every t, intercepts become c + D delta. The penalty is
        quadratic in delta, and its minimum is a linear system of p equations.
        """
        k, ridge = self.rank, self.item_ridge[-1]
        # Q 1 by component: the penalty of a shift of all states.
        shared = self.prior.multiply(np.ones_like(self.models))
        loadings = np.column_stack([self.items[:, :k], np.ones(len(self.items))])
        # (diag(1' Q 1) + ridge D'D) delta = 1' Q t - ridge D' c.
        system = np.diag(shared.sum(axis=0)) + ridge * loadings.T @ loadings
        right = np.sum(shared * self.models, axis=0) - ridge * loadings.T @ self.items[:, k]
        shift = np.linalg.solve(system, right)
        self.models = self.models - shift
        self.items = self.items.copy()
        self.items[:, k] += loadings @ shift

    def _balance(self):
        """Replace the factors by those of least penalty among all with the same logits.

        M <- M S and X <- X S^-T with S S' = T, where T solves T P T = Q for P = M' (prior
        precision) M and Q = X' (item precision) X, so T is the matrix geometric mean of P^-1 and Q.
        A common small ridge on P and Q leaves vanishing factors unchanged and cannot raise the
        penalty.
        """
        k = self.rank
        factors, loadings = self.models[:, :k], self.items[:, :k]
        # Penalties of the factors on either side, by pair of factors.
        p = factors.T @ self.prior.multiply(self.models)[:, :k]
        q = loadings.T @ self._item_precision_times(self.items)[:, :k]
        trace_p, trace_q = np.trace(p), np.trace(q)
        if min(trace_p, trace_q) < 1e-20:
            return
        # Both are scaled to trace 1, so that the same ridge suits them.
        ridge = 1e-7 * np.eye(k)
        # T = P^-1/2 (P^1/2 Q P^1/2)^1/2 P^-1/2, and S with S S' = T from its eigenvectors.
        root, inverse = _powers((p + p.T) / (2 * trace_p) + ridge)
        middle, _ = _powers(root @ (q / trace_q + ridge) @ root)
        values, vectors = np.linalg.eigh(inverse @ middle @ inverse)
        scale = vectors * np.sqrt(values * np.sqrt(trace_q / trace_p))
        # M S and X S^-T have the same logits as M and X.
        self.models[:, :k] = factors @ scale
        self.items[:, :k] = loadings @ (scale / np.sum(scale**2, axis=0))


def _split(models, items, n_models, side):
    """Free states, loadings and intercept of a side: logits = free . loadings + intercept.

    For models [m, b] the loadings are [x, 1] and the intercept is c; for items [x, c] they are
    [m, 1] and b.
    """
    models = models[:n_models]
    free, fixed = (models, items) if side == MODEL_SIDE else (items, models)
    return free, np.column_stack([fixed[:, :-1], np.ones(len(fixed))]), fixed[:, -1]


def _powers(matrix):
    """Square root and inverse square root of a symmetric positive definite matrix (k, k)."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 1e-300))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _warn_unconverged(max_sweeps, tolerance):
    """Issue a `ConvergenceWarning`."""
    from sklearn.exceptions import ConvergenceWarning

    warnings.warn(
        f"LRMF stopped after {max_sweeps} sweeps before its objective settled to "
        f"{tolerance:g}; raise max_sweeps or tolerance",
        ConvergenceWarning,
        stacklevel=4,
    )
