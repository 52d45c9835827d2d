"""A Gaussian process as the `Prior` of a factorization."""

import numpy as np
from scipy import linalg

from .gaussians import Gaussians
from .prior import Marginals
from .process import Process


class ProcessPrior:
    r"""The `Prior` with any covariance K of the nodes: t_k ~ N(0, variance_k K), k = 1 .. p.

    With K = (ridge I + strength L)^-1 it is `LineagePrior`; with the covariance that a `StatePrior`
    has learned (plus its noise, on the diagonal) a factorization reads cards and names as well.
    Costs O(n_nodes^3) once and O(n_nodes^2 p) a product: for some thousands of nodes.

    Parameters
    ----------
    covariance : (n_nodes, n_nodes), K, positive definite
    variance : (p,)
    node_variance : float
        Variance, in units of `variance`, by which a new node departs from the mean of its parents.

    Raises
    ------
    ValueError
        If K is not positive definite.
    """

    def __init__(self, covariance, variance, *, node_variance=0.3):
        self.covariance = np.asarray(covariance, np.float64)
        self.variance, self.node_variance = np.asarray(variance, np.float64), node_variance
        try:
            factor = linalg.cho_factor(self.covariance, lower=True)
        except linalg.LinAlgError as error:
            raise ValueError("covariance is not positive definite; add noise to it") from error
        self._precision = linalg.cho_solve(factor, np.eye(len(self.covariance)))
        self.diagonal = np.outer(np.diagonal(self._precision), 1 / self.variance)

    def multiply(self, states):
        """Prior precision times states (n_nodes, p): K^-1 t_k / variance_k."""
        return self._precision @ states / self.variance

    def at(self, states):
        """The prior itself: it has no mean to be fixed."""
        return self

    def marginals(self, evidence) -> Marginals:
        """Posterior, leave-one-out prior and evidence of every node.

        Scaled by variance_k^-1/2 the components are alike a priori, and may be rotated: to where
        the evidence of the average node is diagonal. There each component is a process of its own;
        what the evidence of single nodes has off the diagonal is integrated out. Exact for evidence
        that is diagonal in one rotation.

        Parameters
        ----------
        evidence : Gaussians (n_nodes)

        Returns
        -------
        Marginals
        """
        scale, own = np.sqrt(self.variance), np.diagonal(self.covariance)
        _, rotation = np.linalg.eigh(scale[:, None] * evidence.precision.mean(axis=0) * scale)
        to_states = (scale[:, None] * rotation).T  # (p, p), t = outputs @ to_states
        precision = to_states @ evidence.precision @ to_states.T
        information = evidence.information @ to_states.T
        # Values and noise of the outputs: the evidence normalised by the prior variance of a node.
        level, p = own.mean(), len(scale)
        left = np.linalg.inv(precision + np.eye(p) / level)
        gain = np.maximum(1 - np.einsum("nkk->nk", left) / level, 1e-12)
        values = np.einsum("nkl,nl->nk", left, information) / gain
        noise = level * (1 - gain) / gain
        # Nodes with evidence from all others with evidence, the rest from all of them.
        known = np.flatnonzero(evidence.precision.any(axis=(1, 2)))
        rest = np.setdiff1d(np.arange(len(own)), known)
        mean, variance = np.zeros((len(own), p)), np.repeat(own[:, None], p, axis=1)
        if known.size:
            process = Process(
                lambda a, b: self.covariance[np.ix_(known[a], known[b])],
                own[known], noise[known], values[known], exact=np.inf,
            )  # fmt: skip
            mean[known], variance[known] = process.leave_one_out(np.arange(known.size))
            cross = self.covariance[np.ix_(rest, known)]
            mean[rest], variance[rest] = process.forecast(cross, own[rest])
        from_states = np.linalg.inv(to_states)
        leave_one_out = Gaussians(
            np.einsum("ik,nk,jk->nij", from_states, 1 / variance, from_states),
            np.einsum("ik,nk->ni", from_states, mean / variance),
        )
        return Marginals(leave_one_out * evidence, leave_one_out, evidence)

    def leaf(self, marginals, parents, weights):
        """Prior of a new node, N(mean of the parents, covariance + `node_variance`), Gaussians (1).

        Parents count by `weights` and as if their errors were the same, which they are at most.
        Without parents it is that of the average node.
        """
        own = np.diagonal(self.covariance).mean() * np.diag(self.variance)
        mean, covariance = np.zeros(len(own)), own
        if len(parents):
            share = np.asarray(weights, float) / np.sum(weights)
            posterior = marginals.posterior[np.asarray(parents)]
            mean = share @ posterior.mean
            covariance = np.einsum("n,nij->ij", share, posterior.covariance)
            covariance = covariance + self.node_variance * np.diag(self.variance)
        precision = np.linalg.inv(covariance)[None]
        return Gaussians(precision, (precision[0] @ mean)[None])
