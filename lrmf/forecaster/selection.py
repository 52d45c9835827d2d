"""Which answers say most about the scores: greedy choice under a Gaussian with few factors."""

from dataclasses import dataclass

import numpy as np

_LEAST_WEIGHT = 1e-3  # of a candidate of the near-duplicate mixture that has a factor of its own
_LEAST_VARIANCE = 1e-9  # of a response; one of less is as good as known


@dataclass(frozen=True)
class JointResponses:
    """First and second moments of a model's responses, given all that is known of it.

    Responses z = p + L f + e with f ~ N(0, I) and independent e_i ~ (0, n_i); the scores are W'z.

    Attributes
    ----------
    loadings : float32 (n_items, n_factors), L
    noise : float32 (n_items,), n
    weights : (n_items, n_benchmarks), W: shares of the items in the scores; 0 where known
    """

    loadings: np.ndarray
    noise: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, likelihood, states, weights, mixture=None):
        """Moments under Gaussian states and a mixture of near-duplicates.

        With C the states' covariance and s_i the slope of the expected response, states give the
        factors s_i d_i' C^1/2. A mixture of responses q_k with weights w_k, the forecast p among
        them, adds one factor for each component, w_k^1/2 (q_k - mean).

        Parameters
        ----------
        likelihood : Bernoulli or ArcsineGaussian
        states : Gaussians (1)
        weights : (n_items, n_benchmarks)
        mixture : (w, answers), optional
            Weights (n,) and answers uint8 (n, n_items) of models that this one may be a copy of.
        """
        covariance = states.covariance
        forecast = likelihood.forecast(states.mean, covariance)
        expected, slope, noise = (part[0].astype(np.float32) for part in forecast)
        root = np.linalg.cholesky(covariance[0]).astype(np.float32)
        loadings = (slope[:, None] * likelihood.loadings.astype(np.float32)) @ root
        if mixture is None:
            return cls(loadings, noise, weights)
        share, answers = mixture
        own = 1 - share.sum()
        is_known = answers <= 1
        # What each component forecasts, and the mean of all.
        parts = np.vstack([np.where(is_known, answers, expected), expected[None]])
        parts = parts.astype(np.float32)
        share = np.append(share, own).astype(np.float32)
        between = np.sqrt(share)[:, None] * (parts - share @ parts)
        # An exact copy has no noise of its own.
        noise = noise * (own + share[:-1] @ ~is_known)
        return cls(np.hstack([np.sqrt(own) * loadings, between.T]), noise, weights)

    def covariance(self):
        """Covariance (n_benchmarks, n_benchmarks) of the scores."""
        factors = self.loadings.T @ self.weights
        return factors.T @ factors + (self.weights.T * self.noise) @ self.weights

    def choose(self, n, *, cost=None, allowed=None, until=None):
        """The items that lower the summed variance of the scores most, one after another.

        Observing z_j lowers it by sum_b Cov(score_b, z_j)^2 / Var z_j; then all moments are
        conditioned on z_j, so that the next item adds to what the former tell.

        Parameters
        ----------
        n : int
            Number of items; with costs their total, at most.
        cost : (n_items,), optional
            The gain counts by cost.
        allowed : bool (n_items,), optional
        until : function of the scores' covariance that says when it is small enough, optional

        Returns
        -------
        int (n_chosen,), in the order of the choice
        (n_benchmarks, n_benchmarks), the scores' covariance that is to be expected then
        """
        loadings, weights = self.loadings, self.weights.astype(np.float32)
        remaining = np.eye(loadings.shape[1], dtype=np.float32)  # covariance of f
        # Cov(z_i, score_b) and Var z_i.
        shared = loadings @ (loadings.T @ weights) + self.noise[:, None] * weights
        variance = np.sum(loadings**2, axis=1) + self.noise
        price = np.ones(len(loadings), np.float32) if cost is None else cost
        left_over = self.covariance()
        open_ = np.ones(len(loadings), bool) if allowed is None else allowed.copy()
        chosen, left = [], n
        while True:
            able = open_ & (price <= left) & (variance > _LEAST_VARIANCE)
            if not able.any() or (until is not None and until(left_over)):
                return np.array(chosen, int), left_over
            gain = np.sum(shared**2, axis=1) / np.maximum(variance, _LEAST_VARIANCE)
            best = int(np.argmax(np.where(able, gain / price, -1)))
            chosen.append(best)
            open_[best], left = False, left - price[best]
            # Condition on the response of the item.
            direction, own = remaining @ loadings[best], variance[best]
            along = loadings @ direction
            left_over = left_over - np.outer(shared[best], shared[best]) / own
            shared = shared - np.outer(along, shared[best] / own)
            variance = variance - along**2 / own
            remaining = remaining - np.outer(direction, direction) / own


def mixture_of(weights, answers):
    """Weights and answers of the candidates that weigh enough; None if there are none.

    Parameters
    ----------
    weights : CSR (1, n_candidates), from `NearDuplicates.weights`
    answers : uint8 (n_candidates, n_items)
    """
    kept = weights.data > _LEAST_WEIGHT
    return (weights.data[kept], answers[weights.indices[kept]]) if kept.any() else None
