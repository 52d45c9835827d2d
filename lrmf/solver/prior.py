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

_N_SIMILAR = 10  # neighbours of an item in the graph of similar items


@dataclass(frozen=True)
class Marginals:
    """Marginal distributions of every node under a prior and Gaussian evidence.

    Attributes
    ----------
    posterior : Gaussians (n_nodes)
        Given all evidence, relative to the mean of the prior.
    leave_one_out : Gaussians (n_nodes)
        Leave-one-out prior, given the evidence at all other nodes: the forecast of each node
        without its own responses.
    evidence : Gaussians (n_nodes)
        The evidence at the node itself.
    """

    posterior: Gaussians
    leave_one_out: Gaussians
    evidence: Gaussians


class Prior(Protocol):
    """A Gaussian prior over the states t (n_nodes, p): what solver and forecasts need of it.

    Attributes
    ----------
    diagonal : (n_nodes, p)
        Diagonal of the prior precision, for preconditioning; an approximation is enough.
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

    The preconditioner is the block diagonal of the system: H plus the diagonal of the prior
    precision.

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
        F, covariates of the models, from their cards.
    feature_ridge : float
    node_variance : float
        Variance of a node's own change e, which no relative shares. Evidence is about F w + s and
        includes e in its noise. Leave-one-out priors and leaves are of t and include it, too.

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
        # F' Q_k F + feature_ridge I by component, whose inverse integrates the weights out.
        gram = np.multiply.outer(self.ridge, self.features.T @ self.features)
        smooth = self.laplacian @ self.features
        gram += np.multiply.outer(self.strength, self.features.T @ smooth)
        gram += feature_ridge * np.eye(self.features.shape[1])
        self._gram_inverse = np.linalg.inv(gram)  # (p, n_features, n_features)

    def _smooth(self, states):
        """Q t = ridge t + strength L t, by component."""
        return states * self.ridge + (self.laplacian @ states) * self.strength

    def multiply(self, states):
        """Prior precision times states (n_nodes, p), component by component."""
        # Q t - Q F (F'QF + feature_ridge I)^-1 F'Q t.
        smooth = self._smooth(states)
        if not self.features.shape[1]:
            return smooth
        return smooth - self._smooth(self.features @ self._weights(smooth))

    def _weights(self, smooth):
        """Most likely weights (F'QF + feature_ridge I)^-1 F' (Q t), given Q t."""
        return np.einsum("kfg,gk->fk", self._gram_inverse, self.features.T @ smooth)

    def precision(self, component):
        """Precision of s_k, ridge_k I + strength_k L, sparse (n_nodes, n_nodes)."""
        identity = sparse.eye_array(self.laplacian.shape[0])
        return (
            self.strength[component] * self.laplacian + self.ridge[component] * identity
        ).tocsr()

    def at(self, states):
        """The prior with its mean F w fixed at the most likely weights given the states."""
        fixed = copy.copy(self)
        fixed.mean = self.features @ self._weights(self._smooth(states))
        return fixed

    def marginals(self, evidence):
        """Posterior, leave-one-out prior and evidence of every node, by belief propagation.

        A node's leave-one-out prior is its posterior divided by its own evidence. It costs no extra
        fit.

        Parameters
        ----------
        evidence : Gaussians (n_nodes)

        Returns
        -------
        Marginals
        """
        # Belief propagation is about s = t - F w: shift the evidence, then the results back.
        centred = evidence.shift(-self.mean)
        posterior = self.propagate(centred)
        return Marginals(
            posterior, (posterior / centred).widen(self.node_variance).shift(self.mean), evidence
        )

    def propagate(self, evidence, *, tolerance=1e-5, max_rounds=300):
        """Marginals of s at all nodes given Gaussian evidence at each, by belief propagation.

        The marginals are exact on forests. Merges of relatives close loops; the means are then
        still exact, and the variances slightly too small (Weiss and Freeman, 2001). A round costs
        O(n_edges p^3). A `ConvergenceWarning` is issued if the messages still change after
        `max_rounds`.

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
        # Local factor of each node: its evidence times the ridge prior N(0, I / ridge).
        local = Gaussians(evidence.precision + np.diag(self.ridge), evidence.information)
        edges, total = np.arange(source.size), local
        for _ in range(max_rounds):
            if not edges.size:
                break
            new = Gaussians(
                np.empty_like(sent.precision[edges]), np.empty_like(sent.information[edges])
            )
            # The message of an edge: all that reached the sender except from the receiver.
            kernels.send_messages(
                edges, source, reverse, coupling, total.precision, total.information,
                sent.precision, sent.information, new.precision, new.information,
            )  # fmt: skip
            # Update messages and totals; only nodes with changed input send again.
            changed = self._changed(sent[edges], new, tolerance)
            sent.precision[edges], sent.information[edges] = new.precision, new.information
            total = local * _sum_by_target(sent, target, len(local.information))
            edges = _next_to_send(edges[changed], source, target, reverse)
        if edges.size:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"the marginals of {np.unique(target[edges]).size} nodes still changed after "
                f"{max_rounds} rounds; their intervals are unreliable: lower lineage_strength",
                ConvergenceWarning,
                stacklevel=4,
            )
        return total

    def _changed(self, old, new, tolerance):
        """Which messages changed by more than `tolerance` in precision or mean."""
        # Changes are relative to the precision of ridge and message.
        level = self.ridge + np.diagonal(new.precision, axis1=1, axis2=2)
        change = np.abs(np.diagonal(new.precision - old.precision, axis1=1, axis2=2)) / level
        shift = np.abs(new.information - old.information) / level
        return np.maximum(change, shift).max(axis=1) > tolerance

    def leaf(self, marginals, parents, weights):
        """Prior of a new node with edges of these weights to its parents.

        Each parent v with posterior (P, h) contributes precision K (P + K)^-1 P and information
        K (P + K)^-1 h with K = weight * diag(strength). The ridge is added once. The mean F w is
        the average over the parents, or over all models if there are none.

        Parameters
        ----------
        marginals : Marginals
        parents : sequence of int, nodes
        weights : sequence of float

        Returns
        -------
        Gaussians (1)
        """
        posterior = marginals.posterior
        precision, information = np.diag(self.ridge), np.zeros(self.ridge.size)
        for node, weight in zip(parents, weights, strict=True):
            # The message of the parent along the edge, as in `propagate`.
            coupling = np.diag(weight * self.strength)
            gain = coupling @ np.linalg.inv(posterior.precision[node] + coupling)
            precision = precision + gain @ posterior.precision[node]
            information = information + gain @ posterior.information[node]
        # Average mean F w of the parents, or of all models.
        mean = self.mean[parents] if len(parents) else self.mean[: self.n_models]
        leaf = Gaussians(precision[None], information[None]).widen(self.node_variance)
        return leaf.shift(mean.mean(axis=0)[None])


def _directed_edges(adjacency):
    """Both directions of every edge as (source, target, weight), sorted by source, then target."""
    edges = adjacency.tocoo()
    # In this order, sorting by target, then source, gives the reverse of every edge.
    order = np.lexsort((edges.col, edges.row))
    return edges.row[order], edges.col[order], edges.data[order]


def _sum_by_target(messages, target, n_nodes):
    """Product of all messages to each node: sums of precision and information."""
    # A sparse 0/1 matrix (n_nodes, n_edges) sums the messages with the same target.
    order = np.argsort(target, kind="stable")
    pointers = np.searchsorted(target[order], np.arange(n_nodes))
    gather = sparse.csr_array(
        (np.ones(order.size), order, np.append(pointers, order.size)), shape=(n_nodes, order.size)
    )
    p = messages.information.shape[1]
    precision = gather @ messages.precision.reshape(-1, p * p)
    return Gaussians(precision.reshape(n_nodes, p, p), gather @ messages.information)


def _next_to_send(changed, source, target, reverse):
    """Edges whose sender received a changed message from a node other than the receiver."""
    # Changed messages to each edge's sender, without the one from the edge's receiver.
    n_changed = np.bincount(target[changed], minlength=source.max() + 1)[source]
    from_receiver = np.zeros(source.size, bool)
    from_receiver[reverse[changed]] = True
    return np.flatnonzero(n_changed - from_receiver > 0)


@dataclass(frozen=True)
class ItemGraph:
    """Adjacency and combinatorial Laplacian (n_items, n_items) of a graph of items."""

    adjacency: sparse.csr_array
    laplacian: sparse.csr_array

    @property
    def n_models(self):
        """Number of nodes, all of which a `LineagePrior` averages over."""
        return self.adjacency.shape[0]


def similar_items(factors: np.ndarray) -> ItemGraph:
    """Link each item with the ten of largest cosine similarity between factors.

    Parameters
    ----------
    factors : (n_items, rank)
        Of a first fit, as a snapshot has no texts of the items.

    Returns
    -------
    ItemGraph
    """
    from sklearn.neighbors import NearestNeighbors

    # The nearest by cosine are the nearest by Euclidean distance among unit vectors.
    length = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = factors / np.maximum(length, 1e-12)
    n_neighbors = min(_N_SIMILAR, len(factors) - 1)
    if n_neighbors < 1:
        links = sparse.csr_array((len(factors),) * 2)
    else:
        links = NearestNeighbors(n_neighbors=n_neighbors).fit(directions).kneighbors_graph()
    # Links are made symmetric; L = degree - adjacency.
    adjacency = sparse.csr_array(((links + links.T) > 0).astype(np.float64))
    degree = sparse.diags_array(adjacency.sum(axis=1)).tocsr()
    return ItemGraph(adjacency, sparse.csr_array(degree - adjacency))
