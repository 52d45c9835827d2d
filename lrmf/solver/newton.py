"""Alternating Newton steps on model states and item parameters, monotone in the objective."""

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
        Longest step of a row, in logits, root mean square over its cells.
    rounding : float
        Relative rounding error of the objective: a rise below it is none.
    shortest_step : float
        Share of a Newton step below which it is taken back.
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

    A half-step is a damped Newton step: exact gradient, (sub-sampled) Hessian, conjugate gradients
    over the lineage for models, independent systems for items. A step that raised F, which the
    next evaluation shows, is shortened until it does not.

    Parameters
    ----------
    answers : DenseAnswers or SparseAnswers
    prior : Prior
        Over the model states t_u = [m_u, b_u].
    item_ridge, intercept_ridge : float
    item_prior : Prior, optional
        Over the item states [x_i, c_i], in place of the two ridges: links similar items.
    config : NewtonConfig, optional
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
            # Loss and derivatives at the current point; a step that raised F is undone here.
            gradient, hessian = self._evaluate(MODEL_SIDE)
            history.append(self._objective)
            self.stats["loss"].append(self._loss)
            # Two sweeps together: the first ones can cross a saddle.
            if sweep > 1 and history[-3] - history[-1] <= tolerance * abs(history[-1]):
                break
            if sweep == max_sweeps:
                _warn_unsettled(max_sweeps, tolerance)
                break
            self._step(MODEL_SIDE, self._model_direction(gradient, hessian))
            self.stats["seconds_models"].append(perf_counter() - started)
            # The items, given the models: independent systems.
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
        """Gradient and Hessian at the current point, the last step shortened if it raised F.

        Where no step lowers F by more than its rounding error, the step is taken back.
        """
        while True:
            point = _split(self.models, self.items, self.answers.shape[0], side)
            loss, gradient, hessian = self.answers.statistics(side, *point)
            loss = loss.sum()
            # F = loss + 1/2 t' Q t + 1/2 x' R x.
            objective = loss + penalty(self.prior, self.models)
            objective += 0.5 * np.sum(self.items * self._item_precision_times(self.items))
            # The last step did not raise F: go on from here.
            if self._undo is None or objective <= self._objective * (1 + self.config.rounding):
                self._loss, self._objective = loss, objective
                return gradient, hessian
            # Otherwise try a quarter of it, and in the end none of it.
            stepped, start, direction, size = self._undo
            if size == 0:
                return gradient, hessian
            self.stats["backtracks"] += 1
            shorter = size / 4 if size > self.config.shortest_step else 0.0
            self._step(stepped, direction, start=start, size=shorter)

    def _step(self, side, direction, *, start=None, size=1.0):
        if start is None:
            start = self.models, self.items
        states = list(start)
        if size:
            states[side] = states[side] + size * direction
        self.models, self.items = states
        self._undo = (side, start, direction, size)
        if side == ITEM_SIDE and size:
            # The objective allows for shifts and rotations: take those of least penalty.
            self._centre()
            self._balance()

    def _model_direction(self, gradient, hessian):
        n_nodes, n_models = self.models.shape[0], gradient.shape[0]
        # Nodes without responses have no Hessian of their own, only the prior.
        full = np.zeros((n_nodes, hessian.shape[1]), np.float32)
        full[:n_models] = hessian
        # Solve (H + Q) d = -(gradient + Q t).
        right = -self.prior.multiply(self.models)
        right[:n_models] -= gradient
        direction, iterations = solve(self.prior, full, right, rtol=self.config.cg_tolerance)
        self.stats["cg_iterations"].append(iterations)
        return self._trust(full, direction)

    def _item_precision_times(self, items):
        if self.item_prior is None:
            return self.item_ridge * items
        return self.item_prior.multiply(items)

    def _item_direction(self, gradient, hessian):
        if self.item_prior is not None:
            # Similar items are linked: one system over all of them.
            right = -(gradient + self.item_prior.multiply(self.items))
            rtol = self.config.cg_tolerance
            return self._trust(hessian, solve(self.item_prior, hessian, right, rtol=rtol)[0])
        # (H_i + R) d_i = -(gradient_i + R x_i), item by item.
        factors = np.empty_like(hessian)
        ridge = np.broadcast_to(self.item_ridge, self.items.shape)
        kernels.cholesky(hessian, ridge, factors)
        direction = np.empty_like(self.items)
        kernels.cholesky_solve(factors, -(gradient + ridge * self.items), direction)
        return self._trust(hessian, direction)

    def _trust(self, hessian, direction):
        """Shorten each row d of a step to `longest_step`: delta^2 = d' H d / sum(w)."""
        product = np.empty_like(direction)
        kernels.packed_matvec(hessian, direction, product)
        squared = np.sum(direction * product, axis=1) / np.maximum(hessian[:, -1], 1e-30)
        length = np.maximum(np.sqrt(np.maximum(squared, 0)), 1e-30)
        return direction * np.minimum(1.0, self.config.longest_step / length)[:, None]

    def _centre(self):
        """Move what all states share into biases and intercepts, to the least penalty."""
        k, ridge = self.rank, self.item_ridge[-1]
        # Moving every state by the same delta costs delta' diag(shared) delta on the model side
        shared = self.prior.multiply(np.ones_like(self.models))
        loadings = np.column_stack([self.items[:, :k], np.ones(len(self.items))])
        # and changes the intercepts by loadings . delta on the item side: least squares in delta.
        # and changes the intercepts by design . delta on the item side: least squares in delta.
        system = np.diag(shared.sum(axis=0)) + ridge * loadings.T @ loadings
        right = np.sum(shared * self.models, axis=0) - ridge * loadings.T @ self.items[:, k]
        shift = np.linalg.solve(system, right)
        self.models = self.models - shift
        self.items = self.items.copy()
        self.items[:, k] += loadings @ shift

    def _balance(self):
        """Move to the factors of least penalty among those with the same logits.

        M <- M S, X <- X S^-T with SS' = T the geometric mean that solves T P T = Q for
        P = M' (prior precision) M and Q = X' (item precision) X. A common ridge on P and Q keeps
        vanishing factors as they are, and cannot make T raise the penalty.
        """
        k = self.rank
        factors, loadings = self.models[:, :k], self.items[:, :k]
        # P = M' Q M and Q = X' R X: penalties of the factors, by pair of factors.
        p = factors.T @ self.prior.multiply(self.models)[:, :k]
        q = loadings.T @ self._item_precision_times(self.items)[:, :k]
        size_p, size_q = np.trace(p), np.trace(q)
        if min(size_p, size_q) < 1e-20:
            return
        # Normalised to trace 1, so that one small ridge suits both.
        floor = 1e-7 * np.eye(k)
        # T = P^-1/2 (P^1/2 Q P^1/2)^1/2 P^-1/2, and S with S S' = T from its eigenvectors.
        root, inverse = _powers((p + p.T) / (2 * size_p) + floor)
        middle, _ = _powers(root @ (q / size_q + floor) @ root)
        values, vectors = np.linalg.eigh(inverse @ middle @ inverse)
        scale = vectors * np.sqrt(values * np.sqrt(size_q / size_p))
        # M S and X S^-T: the logits stay as they are.
        self.models[:, :k] = factors @ scale
        self.items[:, :k] = loadings @ (scale / np.sum(scale**2, axis=0))


def _split(models, items, n_models, side):
    """Free states, loadings and intercept of either side: logits = free . loadings + intercept."""
    ones = np.ones
    if side == MODEL_SIDE:
        return (
            models[:n_models],
            np.column_stack([items[:, :-1], ones(len(items))]),
            items[:, -1],
        )
    scored = models[:n_models]
    return items, np.column_stack([scored[:, :-1], ones(n_models)]), scored[:, -1]


def _powers(matrix):
    """Square root and inverse square root of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 1e-300))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _warn_unsettled(max_sweeps, tolerance):
    from sklearn.exceptions import ConvergenceWarning

    warnings.warn(
        f"LRMF stopped after {max_sweeps} sweeps before its objective settled to "
        f"{tolerance:g}; raise max_sweeps or tolerance",
        ConvergenceWarning,
        stacklevel=4,
    )
