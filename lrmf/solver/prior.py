"""The lineage prior: a Gaussian Markov random field on the family tree, and algebra with it."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

from . import kernels
from .gaussians import Gaussians

_NEIGHBOURS = 10


class LineagePrior:
    """Independent components t_k = F w_k + s_k over the nodes of a lineage.

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
    """

    def __init__(self, lineage, ridge, strength, *, features=None, feature_ridge=10.0):
        self.laplacian = lineage.laplacian
        self.adjacency = lineage.adjacency
        self.ridge = np.asarray(ridge, np.float64)
        self.strength = np.asarray(strength, np.float64)
        n_nodes = self.laplacian.shape[0]
        self.features = np.zeros((n_nodes, 0)) if features is None else np.asarray(features, float)
        self._diagonal = self.ridge + np.outer(self.laplacian.diagonal(), self.strength)
        plain, smooth = self.features.T @ self.features, self.laplacian @ self.features
        gram = np.multiply.outer(self.ridge, plain)
        gram += np.multiply.outer(self.strength, self.features.T @ smooth)
        gram += feature_ridge * np.eye(self.features.shape[1])
        self._gram_inverse = np.linalg.inv(gram)  # (p, n_features, n_features)

    def _smooth(self, states):
        return states * self.ridge + (self.laplacian @ states) * self.strength

    def multiply(self, states):
        """Prior precision times states (n_nodes, p), component by component."""
        smooth = self._smooth(states)
        if not self.features.shape[1]:
            return smooth
        return smooth - self._smooth(self.features @ self._weights(smooth))

    def _weights(self, smooth):
        return np.einsum("kfg,gk->fk", self._gram_inverse, self.features.T @ smooth)

    def mean(self, states):
        """F w at the most likely weights given the states (n_nodes, p)."""
        return self.features @ self._weights(self._smooth(states))

    def penalty(self, states):
        """-log prior density of the states (n_nodes, p), up to a constant."""
        return 0.5 * np.sum(states * self.multiply(states))

    def solve(self, hessian, right, *, rtol, max_iterations=500):
        """Solve (blockdiag(H) + prior precision) x = right by conjugate gradients.

        Parameters
        ----------
        hessian : (n_nodes, p (p + 1) / 2), packed blocks
        right : float64 (n_nodes, p)
        rtol : float
            Stop when the preconditioned residual has shrunk by this factor.

        Returns
        -------
        solution : float64 (n_nodes, p)
        iterations : int
        """
        factors = np.empty_like(hessian)
        kernels.cholesky(hessian, self._diagonal, factors)
        solution, residual = np.zeros_like(right), right.copy()
        preconditioned, product = np.empty_like(right), np.empty_like(right)
        kernels.cholesky_solve(factors, residual, preconditioned)
        direction = preconditioned.copy()
        energy = initial = np.sum(residual * preconditioned)
        for iteration in range(max_iterations):
            if energy <= rtol**2 * initial:
                return solution, iteration
            kernels.packed_matvec(hessian, direction, product)
            product += self.multiply(direction)
            step = energy / np.sum(direction * product)
            solution += step * direction
            residual -= step * product
            kernels.cholesky_solve(factors, residual, preconditioned)
            energy, previous = np.sum(residual * preconditioned), energy
            direction = preconditioned + (energy / previous) * direction
        return solution, max_iterations

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
        own = Gaussians(evidence.precision + np.diag(self.ridge), evidence.information)
        edges, total = np.arange(source.size), own
        for _ in range(max_rounds):
            if not edges.size:
                break
            new = Gaussians(
                np.empty_like(sent.precision[edges]), np.empty_like(sent.information[edges])
            )
            kernels.send_messages(
                edges, source, reverse, coupling, total.precision, total.information,
                sent.precision, sent.information, new.precision, new.information,
            )  # fmt: skip
            moved = self._moved(sent[edges], new, tolerance)
            sent.precision[edges], sent.information[edges] = new.precision, new.information
            total = own * _sum_by_target(sent, target, len(own.information))
            edges = _next_to_send(edges[moved], source, target, reverse)
        if edges.size:
            warnings.warn(
                f"beliefs about {np.unique(target[edges]).size} nodes still changed after "
                f"{max_rounds} rounds; their intervals are unreliable: lower lineage_strength",
                ConvergenceWarning,
                stacklevel=4,
            )
        return total

    def _moved(self, old, new, tolerance):
        """Which messages changed by more than `tolerance` in precision or mean."""
        level = self.ridge + np.diagonal(new.precision, axis1=1, axis2=2)
        change = np.abs(np.diagonal(new.precision - old.precision, axis1=1, axis2=2)) / level
        shift = np.abs(new.information - old.information) / level
        return np.maximum(change, shift).max(axis=1) > tolerance

    def attach(self, marginals, neighbours, weights):
        """Prior of a new leaf s that hangs on `neighbours` (node indices) by edges of `weights`.

        Each neighbour v with marginal (P, h) contributes precision K (P + K)^-1 P and information
        K (P + K)^-1 h with K = weight * diag(strength); the ridge is the leaf's own.

        Returns
        -------
        Gaussians (1)
        """
        precision, information = np.diag(self.ridge), np.zeros(self.ridge.size)
        for node, weight in zip(neighbours, weights, strict=True):
            coupling = np.diag(weight * self.strength)
            gain = coupling @ np.linalg.inv(marginals.precision[node] + coupling)
            precision = precision + gain @ marginals.precision[node]
            information = information + gain @ marginals.information[node]
        return Gaussians(precision[None], information[None])


def _directed_edges(adjacency):
    """Both directions of every edge as (source, target, weight), sorted by source, then target."""
    edges = adjacency.tocoo()
    order = np.lexsort((edges.col, edges.row))
    return edges.row[order], edges.col[order], edges.data[order]


def _sum_by_target(messages, target, n_nodes):
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
    heard = np.bincount(target[moved], minlength=source.max() + 1)[source]
    from_receiver = np.zeros(source.size, bool)
    from_receiver[reverse[moved]] = True
    return np.flatnonzero(heard - from_receiver > 0)


@dataclass(frozen=True)
class ItemGraph:
    """Adjacency and combinatorial Laplacian (n_items, n_items) of the graph."""

    adjacency: sparse.csr_array
    laplacian: sparse.csr_array


def similar_items(factors: np.ndarray) -> ItemGraph:
    """Link each item with the ten whose answers go along with its own most.

    The texts of the items are not part of a snapshot; what is alike is read off the factors of a
    first fit, by their cosine.

    Parameters
    ----------
    factors : (n_items, rank)
    """
    length = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = factors / np.maximum(length, 1e-12)
    n_neighbors = min(_NEIGHBOURS, len(factors) - 1)
    if n_neighbors < 1:
        links = sparse.csr_array((len(factors),) * 2)
    else:
        links = NearestNeighbors(n_neighbors=n_neighbors).fit(directions).kneighbors_graph()
    adjacency = sparse.csr_array(((links + links.T) > 0).astype(np.float64))
    degree = sparse.diags_array(adjacency.sum(axis=1)).tocsr()
    return ItemGraph(adjacency, sparse.csr_array(degree - adjacency))
