"""Answers (0/1): the Bernoulli likelihood and its alternating Newton solver."""

from itertools import pairwise

import numpy as np
from scipy.special import expit

from ..data.response_kinds import ANSWERS
from . import kernels
from .answers import MODEL_SIDE, AnswersOfOne, SparseAnswers
from .gaussians import Gaussians, unpack

_MIN_PRECISION_SHARE = 0.05  # of a logit that stays when one answer is left out


class Bernoulli:
    """P(z_ui = 1) = sigma(t_u . d_i + c_i) with loadings d_i = [x_i, 1] and intercept c_i.

    Parameters
    ----------
    loadings : (n_items, p), d
    intercept : (n_items,), c

    Class attributes
    ----------------
    kind : ResponseKind
    grid : dict
        Parameters of `LRMF` in the order of tuning, each with the values to try.
    defaults : dict
        Parameters of `LRMF` with their values where nothing is tuned.
    array_names : tuple of str
        Attributes that a saved fit keeps.
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
        # For packed symmetric matrices d' C d = sum_ab weight_ab C_ab (d d')_ab over the upper
        # triangle, where entries off the diagonal count twice.
        p = self.loadings.shape[1]
        upper = np.triu_indices(p)
        self._upper = upper
        self._packed_weight = np.where(upper[0] == upper[1], 1.0, 2.0)

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

        g and H are gradient and Hessian of the log-loss at the state t.

        Parameters
        ----------
        answers : DenseAnswers or SparseAnswers, n rows
        states : (n, p), t

        Returns
        -------
        Gaussians (n)
        """
        # The second-order expansion of the log-likelihood at t is that of a Gaussian.
        _, gradient, packed = answers.statistics(
            MODEL_SIDE, states, self.loadings, self.intercept, exact=True
        )
        precision = unpack(packed.astype(np.float64), states.shape[1])
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, states) - gradient)

    def fold_in(self, prior, revealed, *, max_steps=100):
        """Laplace approximation of the posterior of states given revealed answers.

        The mean is the mode of logloss(t) + 1/2 (t - m)' P (t - m), found by damped Newton steps,
        and the precision is the Hessian there, for a prior N(m, P^-1).

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
        # Newton steps of all rows at once. A row whose objective rose gets a quarter of its step.
        for _ in range(max_steps):
            trial = states + step
            loss, gradient, packed = answers.statistics(
                MODEL_SIDE, trial, self.loadings, self.intercept
            )
            # The prior adds P (t - m) to the gradient and 1/2 (t - m)' P (t - m) to the objective.
            prior_gradient = np.einsum("nij,nj->ni", precision, trial - mean)
            objective = loss + 0.5 * np.sum(prior_gradient * (trial - mean), axis=1)
            # Rows whose objective fell accept the trial point and its Hessian.
            accepted = objective <= lowest + 1e-6 * np.abs(lowest)
            lowest[accepted], states[accepted] = objective[accepted], trial[accepted]
            trial_hessian = precision + unpack(packed.astype(np.float64), mean.shape[1])
            hessian[accepted] = trial_hessian[accepted]
            # Step -(P + H)^-1 (g + P (t - m)).
            newton = np.linalg.solve(hessian, -(gradient + prior_gradient)[..., None])[..., 0]
            step = np.where(accepted[:, None], newton, step / 4)
            if np.abs(step).max(initial=0.0) < 1e-5:
                break
        return Gaussians(hessian, np.einsum("nij,nj->ni", hessian, states))

    def forecast(self, mean, covariance, items=slice(None)):
        """Expected answers to `items` under t ~ N(mean, covariance), slopes and noise.

        E sigma(s) is approximated by sigma(E s / sqrt(1 + pi/8 Var s)) (MacKay, 1992).

        Parameters
        ----------
        mean, covariance : (n, p), (n, p, p)
        items : the columns, all by default

        Returns
        -------
        probability, slope, noise : float32 (n, n_items)
            The slope is the derivative by the mean logit; noise is E sigma (1 - sigma), the
            variance of the answer given its probability.
        """
        loadings = self.loadings[items]
        logit = mean.astype(np.float32) @ loadings.T + self.intercept[items]
        if len(mean) == 1:
            product = loadings @ covariance[0].astype(np.float32)
            return _expected(logit, np.einsum("ip,ip->i", product, loadings)[None])
        # d' C d for all items at once: packed covariances times packed d d'.
        packed = (covariance[:, self._upper[0], self._upper[1]] * self._packed_weight).astype(
            np.float32
        )
        return _expected(logit, packed @ kernels.pack_products(loadings).T)

    def forecast_at(self, states, cells):
        """Expected answers, float32 (n_cells,), as in `forecast`, for some cells of each row.

        Parameters
        ----------
        states : Gaussians (n)
        cells : CSR (n, n_items) of answers
        """
        return _expected(*self._logits_at(states, cells))[0][0]

    def left_out(self, states, cells):
        """Leave-one-out forecasts, float32 (n_cells,): each given all other answers of its row.

        The answer's own Laplace evidence is divided out of the posterior of its logit,
        s ~ N(mu, v). With g = z - p and w = p (1 - p) at mu,

            v' = v / (1 - w v),    mu' = mu - v' g.

        Parameters
        ----------
        states : Gaussians (n), the posterior given the answers
        cells : CSR (n, n_items) of answers, all or some
        """
        logit, variance = self._logits_at(states, cells)
        probability = expit(logit)
        weight = probability * (1 - probability)
        # v' = v / (1 - w v), kept finite where one answer has nearly all the evidence.
        variance /= np.maximum(1 - weight * variance, _MIN_PRECISION_SHARE)
        return _expected(logit - variance * (cells.data - probability), variance)[0][0]

    def _logits_at(self, states, cells):
        """Means d . m + c and variances d' C d of the logits, float32 (1, n_cells) each."""
        mean, covariance = states.mean, states.covariance
        logit, variance = np.empty((2, 1, cells.nnz), np.float32)
        for row, (start, stop) in enumerate(pairwise(cells.indptr)):
            items = cells.indices[start:stop]
            loadings = self.loadings[items]
            logit[0, start:stop] = loadings @ mean[row] + self.intercept[items]
            variance[0, start:stop] = np.sum(loadings @ covariance[row] * loadings, axis=1)
        return logit, variance


def _expected(logit, variance):
    """Expected answers, slopes by the logit and noise; see `kernels.expected_answers`."""
    if len(logit) == 1:  # compiled kernels take half a second to start
        variance = np.maximum(variance, 0)
        shrinkage = 1 / np.sqrt(1 + np.float32(np.pi / 8) * variance)
        probability = expit(shrinkage * logit)
        total = probability * (1 - probability)
        slope = shrinkage * total
        return probability, slope, total - variance * slope**2
    probability, slope, noise = (np.empty_like(logit) for _ in range(3))
    kernels.expected_answers(logit, variance, probability, slope, noise)
    return probability, slope, noise
