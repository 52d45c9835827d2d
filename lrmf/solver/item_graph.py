"""A graph of similar items, for formulations that regularize items as well as models."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

_NEIGHBOURS = 10


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
