"""Gaussian priors over model states: the interface, and the Markov random field on the lineage."""

import copy
import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from . import kernels
from .gaussians import Gaussians
from .linear import conjugate_gradients

_N_SIMILAR = 10  # links of an item


@dataclass(frozen=True)
class Marginals:
    """What a prior and Gaussian evidence say of every node.

    Attributes
    ----------
    posterior : Gaussians (n_nodes)
        Given all evidence, without the prior's mean.
    leave_one_out : Gaussians (n_nodes)
        Given the evidence at all other nodes: each node's forecast without its own responses.
    evidence : Gaussians (n_nodes)
        The evidence at the node itself.
    """

    posterior: Gaussians
    leave_one_out: Gaussians
    evidence: Gaussians


class Prior(Protocol):
    """A Gaussian prior over the states t (n_nodes, p): all that solver and forecasts ask of it.

    Attributes
    ----------
    diagonal : (n_nodes, p)
        Diagonal of the prior precision, at least approximately: it preconditions.
    """

    diagonal: np.ndarray

    def multiply(self, states):
        """Prior precision times states (n_nodes, p)."""

    def marginals(self, evidence) -> Marginals:
        """Posterior and leave-one-out marginals given Gaussian evidence at every node."""

    def leaf(self, marginals, parents, weights) -> Gaussians:
        """Prior of the state of a new node that descends from `parents`, Gaussians (1)."""


def penalty(prior, states):
    """-log prior density of the states (n_nodes, p), up to a constant: 1/2 t' Q t."""
    return 0.5 * np.sum(states * prior.multiply(states))


def solve(prior, hessian, right, *, rtol, max_iterations=500):
    """Solve (blockdiag(H) + prior precision) x = right by conjugate gradients.

    The preconditioner is the block diagonal of the system: H plus the diagonal of the prior.

    Parameters
    ----------
    prior : Prior
    hessian : (n_nodes, p (p + 1) / 2), packed blocks
    right : float64 (n_nodes, p)
    rtol, max_iterations : as in `conjugate_gradients`

    Returns
    -------
    solution : float64 (n_nodes, p)
    iterations : int
    """
    factors = np.empty_like(hessian)
    kernels.cholesky(hessian, prior.diagonal, factors)

    def multiply(states):
        product = np.empty_like(states)
        kernels.packed_matvec(hessian, states, product)
        return product + prior.multiply(states)

    def precondition(residual):
        solution = np.empty_like(residual)
        kernels.cholesky_solve(factors, residual, solution)
        return solution

    return conjugate_gradients(
        multiply, precondition, right, rtol=rtol, max_iterations=max_iterations
    )


class LineagePrior:
    """The `Prior` on a lineage: independent components t_k = F w_k + s_k + e_k over its nodes.

    s_k ~ N(0, (ridge_k I + strength_k L)^-1) and w_k ~ N(0, I / feature_ridge). The weights w are
    integrated out: with Q = ridge I + strength L the precision of t is
    Q - Q F (F'QF + feature_ridge I)^-1 F'Q.

    Parameters
    ----------
    lineage : Lineage
        L is its combinatorial Laplacian.
    ridge, strength : float (p,)
        Precision towards zero and along edges, by component.
    features : float (n_nodes, n_features), optional
        F, what is known of a model besides its relatives.
    feature_ridge : float
    node_variance : float
        Variance of a node's own change e, which no relative shares. Evidence is about F w + s, and
        counts e as noise; leave-one-out priors and leaves are of t, and add it.

    Attributes
    ----------
    mean : float (n_nodes, p)
        F w, zero until `at` fixes the weights.
    """

    def __init__(
        self, lineage, ridge, strength, *, features=None, feature_ridge=10.0, node_variance=0.0
    ):
        self.laplacian = lineage.laplacian
        self.adjacency = lineage.adjacency
        self.n_models, self.node_variance = lineage.n_models, node_variance
        self.ridge = np.asarray(ridge, np.float64)
        self.strength = np.asarray(strength, np.float64)
        n_nodes = self.laplacian.shape[0]
        self.features = np.zeros((n_nodes, 0)) if features is None else np.asarray(features, float)
        self.mean = np.zeros((n_nodes, self.ridge.size))
        self.diagonal = self.ridge + np.outer(self.laplacian.diagonal(), self.strength)
        # F' Q_k F + feature_ridge I by component: what integrating the weights out needs.
        plain, smooth = self.features.T @ self.features, self.laplacian @ self.features
        gram = np.multiply.outer(self.ridge, plain)
        gram += np.multiply.outer(self.strength, self.features.T @ smooth)
        gram += feature_ridge * np.eye(self.features.shape[1])
        self._gram_inverse = np.linalg.inv(gram)  # (p, n_features, n_features)

    def _smooth(self, states):
        return states * self.ridge + (self.laplacian @ states) * self.strength

    def multiply(self, states):
        """Prior precision times states (n_nodes, p), component by component."""
        # Q t, less what the weights of the features explain.
        smooth = self._smooth(states)
        if not self.features.shape[1]:
            return smooth
        return smooth - self._smooth(self.features @ self._weights(smooth))

    def _weights(self, smooth):
        return np.einsum("kfg,gk->fk", self._gram_inverse, self.features.T @ smooth)

    def precision(self, component):
        """Precision of s_k, ridge_k I + strength_k L, sparse (n_nodes, n_nodes)."""
        identity = sparse.eye_array(self.laplacian.shape[0])
        return (
            self.strength[component] * self.laplacian + self.ridge[component] * identity
        ).tocsr()

    def at(self, states):
        """The same prior with its mean F w fixed at the most likely weights given the states."""
        fixed = copy.copy(self)
        fixed.mean = self.features @ self._weights(self._smooth(states))
        return fixed

    def marginals(self, evidence):
        """Posterior, leave-one-out prior and evidence of every node, by belief propagation.

        A node's leave-one-out prior is its posterior divided by its own evidence: the forecast
        without its responses, at no extra fit.

        Parameters
        ----------
        evidence : Gaussians (n_nodes)

        Returns
        -------
        Marginals
        """
        # Belief propagation is about s: without the mean that features give.
        centred = evidence.shift(-self.mean)
        posterior = self.propagate(centred)
        return Marginals(
            posterior, (posterior / centred).widen(self.node_variance).shift(self.mean), evidence
        )

    def propagate(self, evidence, *, tolerance=1e-5, max_rounds=300):
        """Marginals of s at all nodes given Gaussian evidence at each, by belief propagation.

        Exact on forests; where merges of relatives close loops the means are still exact and the
        variances slightly too small (Weiss and Freeman, 2001), once the messages have settled; a
        `ConvergenceWarning` says if they have not. Cost: O(n_edges p^3) a round.

        Parameters
        ----------
        evidence : Gaussians (n_nodes)

        Returns
        -------
        Gaussians (n_nodes)
        """
        source, target, weight = _directed_edges(self.adjacency)
        reverse = np.lexsort((source, target))
        coupling = np.outer(weight, self.strength)
        sent = Gaussians(np.zeros((source.size, *evidence.precision.shape[1:])),
                         np.zeros((source.size, self.ridge.size)))  # fmt: skip
        # Before any message a node knows its evidence and its ridge.
        own = Gaussians(evidence.precision + np.diag(self.ridge), evidence.information)
        edges, total = np.arange(source.size), own
        for _ in range(max_rounds):
            if not edges.size:
                break
            new = Gaussians(
                np.empty_like(sent.precision[edges]), np.empty_like(sent.information[edges])
            )
            # Each sender tells what it knows from all but the receiver, through the edge.
            kernels.send_messages(
                edges, source, reverse, coupling, total.precision, total.information,
                sent.precision, sent.information, new.precision, new.information,
            )  # fmt: skip
            # Only nodes that heard something new send again.
            moved = self._moved(sent[edges], new, tolerance)
            sent.precision[edges], sent.information[edges] = new.precision, new.information
            total = own * _sum_by_target(sent, target, len(own.information))
            edges = _next_to_send(edges[moved], source, target, reverse)
        if edges.size:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"beliefs about {np.unique(target[edges]).size} nodes still changed after "
                f"{max_rounds} rounds; their intervals are unreliable: lower lineage_strength",
                ConvergenceWarning,
                stacklevel=4,
            )
        return total

    def _moved(self, old, new, tolerance):
        """Which messages changed by more than `tolerance` in precision or mean."""
        # Change of precision and mean relative to the precision of the message.
        level = self.ridge + np.diagonal(new.precision, axis1=1, axis2=2)
        change = np.abs(np.diagonal(new.precision - old.precision, axis1=1, axis2=2)) / level
        shift = np.abs(new.information - old.information) / level
        return np.maximum(change, shift).max(axis=1) > tolerance

    def leaf(self, marginals, parents, weights):
        """Prior of a new node that hangs on `parents` (node indices) by edges of `weights`.

        Each parent v with posterior (P, h) contributes precision K (P + K)^-1 P and information
        K (P + K)^-1 h with K = weight * diag(strength); the ridge is the leaf's own. Its mean is
        that of its parents, or of all models without any.

        Parameters
        ----------
        marginals : Marginals

        Returns
        -------
        Gaussians (1)
        """
        posterior = marginals.posterior
        precision, information = np.diag(self.ridge), np.zeros(self.ridge.size)
        for node, weight in zip(parents, weights, strict=True):
            # The edge as a spring in series with what is known of the parent.
            coupling = np.diag(weight * self.strength)
            gain = coupling @ np.linalg.inv(posterior.precision[node] + coupling)
            precision = precision + gain @ posterior.precision[node]
            information = information + gain @ posterior.information[node]
        # What features say of the parents, or of all models without any.
        mean = self.mean[parents] if len(parents) else self.mean[: self.n_models]
        leaf = Gaussians(precision[None], information[None]).widen(self.node_variance)
        return leaf.shift(mean.mean(axis=0)[None])


def _directed_edges(adjacency):
    """Both directions of every edge as (source, target, weight), sorted by source, then target."""
    edges = adjacency.tocoo()
    # Sorted, so that the reverse of every edge is found by sorting the other way.
    order = np.lexsort((edges.col, edges.row))
    return edges.row[order], edges.col[order], edges.data[order]


def _sum_by_target(messages, target, n_nodes):
    # Messages of one target stand together: a sparse 0/1 matrix adds them up.
    order = np.argsort(target, kind="stable")
    at = np.searchsorted(target[order], np.arange(n_nodes))
    gather = sparse.csr_array(
        (np.ones(order.size), order, np.append(at, order.size)), shape=(n_nodes, order.size)
    )
    p = messages.information.shape[1]
    precision = gather @ messages.precision.reshape(-1, p * p)
    return Gaussians(precision.reshape(n_nodes, p, p), gather @ messages.information)


def _next_to_send(moved, source, target, reverse):
    """Edges whose sender heard something new from anyone but the receiver."""
    # News that reached each edge's sender,
    heard = np.bincount(target[moved], minlength=source.max() + 1)[source]
    # less what came from the receiver itself.
    from_receiver = np.zeros(source.size, bool)
    from_receiver[reverse[moved]] = True
    return np.flatnonzero(heard - from_receiver > 0)


@dataclass(frozen=True)
class ItemGraph:
    """Adjacency and combinatorial Laplacian (n_items, n_items) of the graph."""

    adjacency: sparse.csr_array
    laplacian: sparse.csr_array

    @property
    def n_models(self):
        """Number of nodes that a `LineagePrior` averages over."""
        return self.adjacency.shape[0]


def similar_items(factors: np.ndarray) -> ItemGraph:
    """Link each item with the ten whose answers go along with its own most.

    The texts of the items are not part of a snapshot; what is alike is read off the factors of a
    first fit, by their cosine.

    Parameters
    ----------
    factors : (n_items, rank)
    """
    from sklearn.neighbors import NearestNeighbors

    # Cosine neighbours are Euclidean neighbours of unit vectors.
    length = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = factors / np.maximum(length, 1e-12)
    n_neighbors = min(_N_SIMILAR, len(factors) - 1)
    if n_neighbors < 1:
        links = sparse.csr_array((len(factors),) * 2)
    else:
        links = NearestNeighbors(n_neighbors=n_neighbors).fit(directions).kneighbors_graph()
    # A link in either direction is a link.
    adjacency = sparse.csr_array(((links + links.T) > 0).astype(np.float64))
    degree = sparse.diags_array(adjacency.sum(axis=1)).tocsr()
    return ItemGraph(adjacency, sparse.csr_array(degree - adjacency))
