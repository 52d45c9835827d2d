"""A Gaussian process over the nodes as the `Prior` of a factorization."""

import numpy as np
from scipy import linalg

from .gaussians import Gaussians
from .prior import Marginals
from .process import Process


class ProcessPrior:
    r"""The `Prior` with any covariance K of the nodes: t_k ~ N(0, variance_k K), k = 1 .. p.

    K = (ridge I + strength L)^-1 gives `LineagePrior`. The covariance that a `StatePrior` has
    learned, with its noise on the diagonal, lets a factorization use cards and names as well. The
    cost is O(n_nodes^3) once and O(n_nodes^2 p) for each product, so it is meant for some thousands
    of nodes.

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
        """The prior itself, as its mean is 0 whatever the states."""
        return self

    def marginals(self, evidence) -> Marginals:
        """Posterior, leave-one-out prior and evidence of every node.

        Components divided by variance_k^1/2 have the same prior, which no rotation changes. They
        are rotated so that the mean precision of the evidence is diagonal. Each rotated component
        is then treated as a separate process; off-diagonal evidence of single nodes is integrated
        out. The result is exact if one rotation makes the evidence of all nodes diagonal.

        Parameters
        ----------
        evidence : Gaussians (n_nodes)

        Returns
        -------
        Marginals
        """
        # Outputs of the process: states scaled and rotated, t = outputs @ to_states.
        scale, prior_variance = np.sqrt(self.variance), np.diagonal(self.covariance)
        _, rotation = np.linalg.eigh(scale[:, None] * evidence.precision.mean(axis=0) * scale)
        to_states = (scale[:, None] * rotation).T  # (p, p)
        precision = to_states @ evidence.precision @ to_states.T
        information = evidence.information @ to_states.T
        # Values and noise of the outputs. With C the posterior covariance under N(0, level I), the
        # evidence of an output is that of a value (mean) / (1 - C / level) with this noise.
        level, p = prior_variance.mean(), len(scale)
        posterior = np.linalg.inv(precision + np.eye(p) / level)
        gain = np.maximum(1 - np.einsum("nkk->nk", posterior) / level, 1e-12)
        values = np.einsum("nkl,nl->nk", posterior, information) / gain
        noise = level * (1 - gain) / gain
        # Leave-one-out forecasts of nodes with evidence; forecasts of the rest from all of these.
        known = np.flatnonzero(evidence.precision.any(axis=(1, 2)))
        rest = np.setdiff1d(np.arange(len(prior_variance)), known)
        mean = np.zeros((len(prior_variance), p))
        variance = np.repeat(prior_variance[:, None], p, axis=1)
        if known.size:
            process = Process(
                lambda a, b: self.covariance[np.ix_(known[a], known[b])],
                prior_variance[known], noise[known], values[known], exact=np.inf,
            )  # fmt: skip
            mean[known], variance[known] = process.leave_one_out(np.arange(known.size))
            cross = self.covariance[np.ix_(rest, known)]
            mean[rest], variance[rest] = process.forecast(cross, prior_variance[rest])
        # Back to states: precision F diag(1 / variance) F' with F = to_states^-1.
        from_states = np.linalg.inv(to_states)
        leave_one_out = Gaussians(
            np.einsum("ik,nk,jk->nij", from_states, 1 / variance, from_states),
            np.einsum("ik,nk->ni", from_states, mean / variance),
        )
        return Marginals(leave_one_out * evidence, leave_one_out, evidence)

    def leaf(self, marginals, parents, weights):
        """Prior of a new node, N(mean of the parents, covariance + `node_variance`), Gaussians (1).

        The mean and the covariance of the parents are averages weighted by `weights`, as if the
        errors of all parents were equal; this is an upper bound of the covariance. Without parents
        the prior is that of the average node.

        Parameters
        ----------
        marginals : Marginals
        parents : sequence of int, nodes
        weights : sequence of float

        Returns
        -------
        Gaussians (1)
        """
        covariance = np.diagonal(self.covariance).mean() * np.diag(self.variance)
        mean = np.zeros(len(covariance))
        if len(parents):
            share = np.asarray(weights, float) / np.sum(weights)
            posterior = marginals.posterior[np.asarray(parents)]
            mean = share @ posterior.mean
            covariance = np.einsum("n,nij->ij", share, posterior.covariance)
            covariance = covariance + self.node_variance * np.diag(self.variance)
        precision = np.linalg.inv(covariance)[None]
        return Gaussians(precision, (precision[0] @ mean)[None])
