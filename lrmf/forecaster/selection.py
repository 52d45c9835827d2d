"""Greedy choice of the items whose responses reduce the variance of the scores most."""

from dataclasses import dataclass

import numpy as np

_MIN_WEIGHT = 1e-3  # of a candidate of the near-duplicate mixture with a separate factor
_MIN_VARIANCE = 1e-9  # of a response; below it the response counts as known
_ROUNDING = 1e-9  # of a budget: ten costs of 0.1 are 1


@dataclass(frozen=True)
class JointResponses:
    """First and second moments of a model's responses, given its revealed responses.

    Responses are z = p + L f + e with f ~ N(0, I) and independent e_i of mean 0 and variance n_i.
    The scores are W'z.

    Attributes
    ----------
    loadings : float32 (n_items, n_factors), L
    noise : float32 (n_items,), n
    weights : (n_items, n_benchmarks), W
        Shares of the items in the scores; 0 for revealed items.
    """

    loadings: np.ndarray
    noise: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, likelihood, states, weights, mixture=None):
        """Moments under Gaussian states and a mixture of near-duplicates.

        With C the covariance of the state and s_i the slope of the expected response, the rows of L
        are s_i d_i' C^1/2. A mixture of responses q_k with weights w_k, the forecast p among them,
        adds one factor for each component, w_k^1/2 (q_k - mean).

        Parameters
        ----------
        likelihood : Bernoulli or ArcsineGaussian
        states : Gaussians (1)
        weights : (n_items, n_benchmarks)
        mixture : (w, answers), optional
            Weights (n,) and answers uint8 (n, n_items) of models that this one may be a copy of.

        Returns
        -------
        JointResponses
        """
        # Factors of the state, by the delta method.
        covariance = states.covariance
        forecast = likelihood.forecast(states.mean, covariance)
        expected, slope, noise = (part[0].astype(np.float32) for part in forecast)
        root = np.linalg.cholesky(covariance[0]).astype(np.float32)
        loadings = (slope[:, None] * likelihood.loadings.astype(np.float32)) @ root
        if mixture is None:
            return cls(loadings, noise, weights)
        mixture_weights, answers = mixture
        base_weight = 1 - mixture_weights.sum()
        is_known = answers <= 1
        # Expected responses of each component, and their deviations from the mixture's mean.
        parts = np.vstack([np.where(is_known, answers, expected), expected[None]])
        parts = parts.astype(np.float32)
        mixture_weights = np.append(mixture_weights, base_weight).astype(np.float32)
        between = np.sqrt(mixture_weights)[:, None] * (parts - mixture_weights @ parts)
        # A copied answer has no noise.
        noise = noise * (base_weight + mixture_weights[:-1] @ ~is_known)
        return cls(np.hstack([np.sqrt(base_weight) * loadings, between.T]), noise, weights)

    def covariance(self):
        """Covariance W' (L L' + diag(n)) W (n_benchmarks, n_benchmarks) of the scores."""
        factors = self.loadings.T @ self.weights
        return factors.T @ factors + (self.weights.T * self.noise) @ self.weights

    def choose(self, n, *, cost=None, allowed=None, until=None):
        """Choose the items that reduce the sum of the scores' variances most, one after another.

        Observing z_j reduces it by sum_b Cov(score_b, z_j)^2 / Var z_j. All moments are then
        conditioned on z_j, so that the next choice accounts for it.

        Parameters
        ----------
        n : int
            Maximum number of items, or their maximum total cost.
        cost : (n_items,), optional
            The reduction is divided by it.
        allowed : bool (n_items,), optional
            Items that may be chosen.
        until : function of the scores' covariance, optional
            Choosing ends when it returns True.

        Returns
        -------
        chosen : int (n_chosen,), in the order of choice
        covariance : (n_benchmarks, n_benchmarks)
            Covariance of the scores once these responses are observed.
        """
        loadings, weights = self.loadings, self.weights.astype(np.float32)
        factor_covariance = np.eye(loadings.shape[1], dtype=np.float32)  # covariance of f
        # Cov(z_i, score_b) and Var z_i.
        shared = loadings @ (loadings.T @ weights) + self.noise[:, None] * weights
        variance = np.sum(loadings**2, axis=1) + self.noise
        price = np.ones(len(loadings)) if cost is None else cost
        score_covariance = self.covariance()
        open_items = np.ones(len(loadings), bool) if allowed is None else allowed.copy()
        chosen, budget = [], n
        while True:
            gain = np.sum(shared**2, axis=1) / np.maximum(variance, _MIN_VARIANCE)
            eligible = open_items & (variance > _MIN_VARIANCE) & (gain > 0)
            eligible &= price <= budget * (1 + _ROUNDING)
            if not eligible.any() or (until is not None and until(score_covariance)):
                return np.array(chosen, int), score_covariance
            # The largest reduction of variance for its cost.
            best = int(np.argmax(np.where(eligible, gain / price, -1)))
            chosen.append(best)
            open_items[best], budget = False, budget - price[best]
            # Condition on z_j: rank-one updates by c c' / Var z_j, c the covariances with z_j.
            direction, pivot = factor_covariance @ loadings[best], variance[best]
            with_best = loadings @ direction
            score_covariance = score_covariance - np.outer(shared[best], shared[best]) / pivot
            shared = shared - np.outer(with_best, shared[best] / pivot)
            variance = variance - with_best**2 / pivot
            factor_covariance = factor_covariance - np.outer(direction, direction) / pivot


def mixture_of(weights, answers):
    """Weights and answers of the candidates with enough weight; None if there are none.

    Parameters
    ----------
    weights : CSR (1, n_candidates), from `NearDuplicates.weights`
    answers : uint8 (n_candidates, n_items)
    """
    kept = weights.data > _MIN_WEIGHT
    return (weights.data[kept], answers[weights.indices[kept]]) if kept.any() else None
