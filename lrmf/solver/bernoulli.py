"""Answers (0/1): the Bernoulli likelihood and its alternating Newton solver."""

from itertools import pairwise

import numpy as np
from scipy.special import expit

from ..data.response_kinds import ANSWERS
from . import kernels
from .answers import MODEL_SIDE, AnswersOfOne, SparseAnswers
from .gaussians import Gaussians, unpack

_LEAST_LEFT = 0.05  # of the precision of a logit, once an answer's own evidence has left it


class Bernoulli:
    """P(z_ui = 1) = sigma(t_u . d_i + c_i) with loadings d_i = [x_i, 1] and intercept c_i.

    Class attributes
    ----------------
    kind : ResponseKind
    grid : dict of parameter of `LRMF` to the values that tuning tries, in the order of choosing
    defaults : dict of parameter of `LRMF` to its value where nothing is tuned
    array_names : tuple, the arrays that a saved fit keeps
    """

    kind = ANSWERS
    grid = {
        "lineage_strength": (1.0, 3.0, 10.0, 30.0),
        "use_features": (False, True),
        "item_ridge": (3.0, 10.0, 30.0),
        "node_ridge": (0.3, 1.0, 3.0),
        "rank": (8, 16, 24),
        "prior_temperature": (0.5, 0.7, 1.0, 1.5),
    }
    defaults = {
        "rank": 16,
        "lineage_strength": 10.0,
        "use_features": False,
        "item_ridge": 10.0,
        "node_ridge": 1.0,
        "prior_temperature": 1.0,
    }
    array_names = ("loadings", "intercept")
    node_variance = 0.0

    def __init__(self, loadings, intercept):
        self.loadings = np.ascontiguousarray(loadings, np.float32)
        self.intercept = np.ascontiguousarray(intercept, np.float32)
        # Packed so that (packed covariance) . (packed product) = d' C d: off-diagonals count twice.
        p = self.loadings.shape[1]
        upper = np.triu_indices(p)
        self._upper = upper
        self._twice = np.where(upper[0] == upper[1], 1.0, 2.0)

    @staticmethod
    def regularized(part, n_components):
        """Which components of a state the lineage regularizes: "both", "bias" or "factors"."""
        is_bias = np.arange(n_components) == n_components - 1
        return {"both": np.ones(n_components, bool), "bias": is_bias, "factors": ~is_bias}[part]

    @property
    def item_factors(self):
        """x_i (n_items, rank)."""
        return self.loadings[:, :-1]

    @property
    def item_intercept(self):
        """c_i (n_items,)."""
        return self.intercept

    @staticmethod
    def split(states):
        """Model factors (n, rank) and biases (n,) of states."""
        return states[:, :-1], states[:, -1]

    def evidence(self, answers, states, *, node_variance=0.0):
        """Laplace evidence of each row about its state: precision H and information H t - g.

        Parameters
        ----------
        answers : DenseAnswers or SparseAnswers, n rows
        states : (n, p), the states at which the likelihood is expanded

        Returns
        -------
        Gaussians (n)
        """
        # Second-order expansion at the states: exact gradient and Hessian.
        _, gradient, hessian = answers.statistics(
            MODEL_SIDE, states, self.loadings, self.intercept, exact=True
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
        answers = (AnswersOfOne if len(revealed) == 1 else SparseAnswers)(revealed)
        states, step, lowest = mean.copy(), np.zeros_like(mean), np.full(len(mean), np.inf)
        hessian = precision.copy()
        # Newton steps of all rows at once; a row whose objective rose gets a quarter of its step.
        for _ in range(max_steps):
            trial = states + step
            loss, gradient, packed = answers.statistics(
                MODEL_SIDE, trial, self.loadings, self.intercept
            )
            # Gradient and value of the prior at the trial point.
            pull = np.einsum("nij,nj->ni", precision, trial - mean)
            objective = loss + 0.5 * np.sum(pull * (trial - mean), axis=1)
            # Rows that went down keep the trial point and its Hessian.
            lower = objective <= lowest + 1e-6 * np.abs(lowest)
            lowest[lower], states[lower] = objective[lower], trial[lower]
            hessian[lower] = (precision + unpack(packed.astype(np.float64), mean.shape[1]))[lower]
            # d = -(P + H)^-1 (gradient + pull).
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
        loadings = self.loadings[items]
        logit = mean.astype(np.float32) @ loadings.T + self.intercept[items]
        if len(mean) == 1:
            product = loadings @ covariance[0].astype(np.float32)
            return _expected(logit, np.einsum("ip,ip->i", product, loadings)[None])
        # d' C d for all items at once: packed covariances times packed d d'.
        packed = (covariance[:, self._upper[0], self._upper[1]] * self._twice).astype(np.float32)
        return _expected(logit, packed @ kernels.pack_products(loadings).T)

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
        # v' = v / (1 - w v), kept finite where one answer is nearly all that is known.
        variance /= np.maximum(1 - weight * variance, _LEAST_LEFT)
        return _expected(logit - variance * (cells.data - probability), variance)[0][0]

    def _logits_at(self, states, cells):
        """Means and variances, float32 (1, n_cells), of the logits."""
        mean, covariance = states.mean, states.covariance
        logit, variance = np.empty((2, 1, cells.nnz), np.float32)
        for row, (top, end) in enumerate(pairwise(cells.indptr)):
            items = cells.indices[top:end]
            loadings = self.loadings[items]
            logit[0, top:end] = loadings @ mean[row] + self.intercept[items]
            variance[0, top:end] = np.sum(loadings @ covariance[row] * loadings, axis=1)
        return logit, variance


def _expected(logit, variance):
    """Expected answers, slopes by the logit and noise; see `kernels.expected_answers`."""
    if len(logit) == 1:  # compiled kernels take half a second to start
        spread = np.maximum(variance, 0)
        shrink = 1 / np.sqrt(1 + np.float32(np.pi / 8) * spread)
        probability = expit(shrink * logit)
        own = probability * (1 - probability)
        slope = shrink * own
        return probability, slope, own - spread * slope**2
    probability, slope, noise = (np.empty_like(logit) for _ in range(3))
    kernels.expected_answers(logit, variance, probability, slope, noise)
    return probability, slope, noise


def _laplace(packed, gradient, states):
    precision = unpack(packed.astype(np.float64), states.shape[1])
    return Gaussians(precision, np.einsum("nij,nj->ni", precision, states) - gradient)
