"""Collaborative filtering by the most similar models."""

import numpy as np
from scipy import sparse

from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import observed, observed_counts
from ..data.statistics import column_std, residuals
from .base import BLOCK_CELLS, _Baseline

FEW = 0.05  # share of cells other than 0 up to which sparse products are faster than dense ones


class KNN(_Baseline):
    r"""Collaborative filtering: weighted mean of the residuals of the most similar models.

    Similarity of u and v over the n items both answered, with residuals e = z - item mean:

    - answers: max(0, cosine of e_u and e_v) * n / (n + significance);
    - proportions, where a handful of benchmarks has no angle to speak of: the inverse of
      0.1 + their mean squared distance, standardised by benchmark (2 for unrelated models).

    The most similar models count: as many as it takes for a typical item to have `n_neighbors`
    answers, and all that tie with the last (one revealed answer gives the mean of all models that
    agree). For answers one more neighbour, as similar as the nearest and with residual 0, keeps
    forecasts off 0 and 1. Revealed answers, or else the model's own training answers, are what
    similarity is computed from; a model without any gets the item means.

    Parameters
    ----------
    n_neighbors : int or None
        None takes 20 for answers, 15 for proportions; from 20 to 100 forecasts differ little.
    significance : float
        Common answers at which a similarity counts half (Herlocker et al., 1999).
    """

    def __init__(self, n_neighbors=None, significance=50.0):
        self.n_neighbors = n_neighbors
        self.significance = significance

    def _fit(self, lineage):
        answers = kind_of(self.responses_) is ANSWERS
        self.similarity_ = self._shrunken_cosine if answers else _inverse_distance
        self.n_mean_neighbors_ = int(answers)  # neighbours that answer like the item means
        wanted = self.n_neighbors or (20 if answers else 15)
        counts = observed_counts(self.responses_)
        density = counts.sum() / max(1, np.count_nonzero(counts) * self.responses_.shape[1])
        self.n_neighbors_ = round(wanted / max(density, 1e-9))
        self.scale_ = np.ones(self.responses_.shape[1], dtype=np.float32)
        if not answers:
            self.scale_ = column_std(self.responses_, self.item_means_)

    def _add_residual(self, forecast, rows, columns, revealed):
        known = np.asarray(self.responses_[rows]) if revealed is None else revealed
        weights = self._weights(known, rows)
        if not weights.any():
            return
        nearest = weights.max(axis=1, keepdims=True)
        neighbors = np.flatnonzero(weights.any(axis=0))
        weights = _thin(weights[:, neighbors])
        for block in _column_blocks(columns, len(neighbors)):
            values, seen = residuals(
                self.responses_[np.ix_(neighbors, columns[block])], self.item_means_[columns[block]]
            )
            mass = weights @ seen + self.n_mean_neighbors_ * nearest
            zero = np.zeros_like(mass)
            forecast[:, block] += np.divide(weights @ values, mass, out=zero, where=mass > 0)

    def _weights(self, known, rows) -> np.ndarray:
        """Similarity of each row to its nearest training models: float32 (n_rows, n_models)."""
        similarity = self.similarity_(*self._products(known))
        similarity[np.arange(len(rows)), rows] = 0
        similarity = similarity.clip(min=0)
        if self.n_neighbors_ < similarity.shape[1]:
            last = -np.partition(-similarity, self.n_neighbors_ - 1, axis=1)
            # Rounding must not break ties between equally similar models.
            similarity[similarity < last[:, [self.n_neighbors_ - 1]] * (1 - 1e-5)] = 0
        return similarity

    def _shrunken_cosine(self, product, own, other, common) -> np.ndarray:
        """Cosine of the residuals, shrunk where few items are in common."""
        length = np.sqrt(np.maximum(own * other, 1e-12))
        return product / length * common / (common + np.float32(self.significance))

    def _products(self, known) -> list[np.ndarray]:
        """e_u.e_v, |e_u|^2, |e_v|^2 and n over the items that row u and model v both answered."""
        sums = [np.zeros((len(known), len(self.responses_)), np.float32) for _ in range(4)]
        columns = np.flatnonzero(observed(known).any(axis=0))
        for block in _column_blocks(columns, len(self.responses_)):
            chosen = columns[block]
            means, scale = self.item_means_[chosen], self.scale_[chosen]
            mine, have = residuals(known[:, chosen], means)
            theirs, had = residuals(self.responses_[:, chosen], means)
            mine, theirs = mine / scale, theirs / scale
            pairs = ((mine, theirs), (mine**2, had), (have, theirs**2), (have, had))
            for total, (left, right) in zip(sums, pairs, strict=True):
                total += _thin(left) @ right.T
        return sums


def _thin(matrix: np.ndarray):
    """The matrix, as a sparse one if few of its cells are other than 0."""
    return sparse.csr_array(matrix) if np.count_nonzero(matrix) < FEW * matrix.size else matrix


def _inverse_distance(product, own, other, common) -> np.ndarray:
    """1 / (0.1 + mean squared distance) over the columns in common, 0 without any."""
    distance = (own + other - 2 * product).clip(min=0) / np.maximum(common, 1)
    return np.where(common > 0, 1 / (distance + np.float32(0.1)), 0)


def _column_blocks(columns: np.ndarray, n_rows: int) -> list[slice]:
    step = max(1, BLOCK_CELLS // max(1, n_rows))
    return [slice(start, start + step) for start in range(0, len(columns), step)]
