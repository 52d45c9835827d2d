"""Gaussian-process regression with one covariance for all outputs and noise by model and output."""

from dataclasses import dataclass

import numpy as np

from ..threads import in_threads
from .linear import inverse

EXACT = 5000  # models up to which everything is conditioned on all of them
NEIGHBOURS = 150  # that a forecast is conditioned on above that
_BLOCK = 256


@dataclass(frozen=True)
class _Group:
    """Outputs with the same noise: one precision matrix (K + N)^-1 for all of them."""

    outputs: np.ndarray
    noise: np.ndarray  # (n,)
    precision: np.ndarray | None  # (n, n) float32, None beyond `EXACT` models
    solved: np.ndarray | None  # (n, n_outputs), precision @ y


class Process:
    r"""Outputs y_k = f_k + e_k with f_k ~ N(0, K) and e_uk ~ N(0, N_uk), given at n models.

    With P = (K + N)^-1 and a = P y the forecasts of a model from all others are at hand,

        mean_u = y_u - a_u / P_uu,     variance_u = 1 / P_uu - N_uu,

    and so are those of a set of models from the rest, with the block of P in place of P_uu
    (Rasmussen and Williams, 2006, 5.4.2). Above 5,000 models each forecast is conditioned on the
    150 models of largest covariance instead (nearest-neighbour process; Datta et al., 2016): a
    model's state depends on its like, and low rank loses more.

    Parameters
    ----------
    between : function of two arrays of rows, covariances float32 (len(a), len(b))
    own : (n,), prior variances, with what no other model shares
    noise : (n, q), of the outputs, in addition to `own`
    outputs : (n, q)
    solved : list of (precision, solved), optional
        Of the groups, from an earlier process.
    """

    def __init__(
        self, between, own, noise, outputs, *, exact=EXACT, neighbours=NEIGHBOURS, solved=None
    ):
        self.between, self.own, self.outputs = between, own, outputs
        self.noise = np.broadcast_to(noise, outputs.shape)
        self.neighbours = neighbours
        rows, groups = np.arange(len(own)), _alike(self.noise)
        if solved is None:
            matrix = between(rows, rows) if len(own) <= exact else None
            precisions = in_threads(lambda group: self._precision(matrix, group), groups)
            solved = [
                (precision, self._solved(precision, group))
                for precision, group in zip(precisions, groups, strict=True)
            ]
        self.groups = [
            _Group(group, self.noise[:, group[0]], *pair)
            for group, pair in zip(groups, solved, strict=True)
        ]

    def _precision(self, matrix, outputs):
        if matrix is None:
            return None
        full = matrix.astype(np.float64)
        np.fill_diagonal(full, self.own + self.noise[:, outputs[0]])
        return inverse(full)[0].astype(np.float32)

    def _solved(self, precision, outputs):
        if precision is None:
            return None
        # A product in double precision, block by block.
        blocks = range(0, len(precision), _BLOCK)
        solved = [
            precision[top : top + _BLOCK].astype(np.float64) @ self.outputs[:, outputs]
            for top in blocks
        ]
        return np.concatenate(solved)

    def leave_one_out(self, rows):
        """Mean and variance (len(rows), q) of the models' own states, given all others."""
        mean, variance = np.empty((2, len(rows), self.outputs.shape[1]))
        if self.groups[0].precision is None:
            for top in range(0, len(rows), _BLOCK):
                part = rows[top : top + _BLOCK]
                near = self.between(part, np.arange(len(self.own)))
                near[np.arange(len(part)), part] = -np.inf
                place = slice(top, top + _BLOCK)
                mean[place], variance[place] = self._from_neighbours(near, self.own[part])
            return mean, variance
        for group in self.groups:
            diagonal = np.diagonal(group.precision)[rows].astype(np.float64)
            values = self.outputs[np.ix_(rows, group.outputs)]
            mean[:, group.outputs] = values - group.solved[rows] / diagonal[:, None]
            variance[:, group.outputs] = (1 / diagonal - group.noise[rows])[:, None]
        return mean, np.maximum(variance, 1e-6)

    def leave_set_out(self, rows):
        """The same given the models that are not in the set."""
        if self.groups[0].precision is None:
            near = self.between(rows, np.arange(len(self.own)))
            near[:, rows] = -np.inf
            return self._from_neighbours(near, self.own[rows])
        mean, variance = np.empty((2, len(rows), self.outputs.shape[1]))
        for group in self.groups:
            block = group.precision[np.ix_(rows, rows)].astype(np.float64)
            block, _ = inverse(block)
            left = self.outputs[np.ix_(rows, group.outputs)] - block @ group.solved[rows]
            mean[:, group.outputs] = left
            variance[:, group.outputs] = (np.diagonal(block) - group.noise[rows])[:, None]
        return mean, np.maximum(variance, 1e-6)

    def forecast(self, cross, own):
        """Mean and variance (m, q) of other models.

        Parameters
        ----------
        cross : float32 (m, n), covariances with the given models
        own : (m,), prior variances
        """
        if self.groups[0].precision is None:
            return self._from_neighbours(cross, own)
        mean, variance = np.empty((2, len(cross), self.outputs.shape[1]))
        for group in self.groups:
            mean[:, group.outputs] = cross @ group.solved
            explained = np.einsum("mn,mn->m", cross @ group.precision, cross)
            variance[:, group.outputs] = (own - explained)[:, None]
        return mean, np.maximum(variance, 1e-6)

    def _from_neighbours(self, cross, own):
        mean, variance = np.empty((2, len(cross), self.outputs.shape[1]))
        n_near = min(self.neighbours, cross.shape[1])
        # Many models are alike: ties, but for rounding errors, go to the first ones.
        nearest = np.argsort(-np.round(cross, 6), axis=1, kind="stable")[:, :n_near]
        for row, near in enumerate(np.sort(nearest, axis=1)):
            near = near[np.isfinite(cross[row, near])]
            among, right = self.between(near, near).astype(np.float64), cross[row, near]
            for group in self.groups:
                np.fill_diagonal(among, self.own[near] + group.noise[near])
                gain = np.linalg.solve(among, right.astype(np.float64))
                mean[row, group.outputs] = gain @ self.outputs[np.ix_(near, group.outputs)]
                variance[row, group.outputs] = own[row] - gain @ right
        return mean, np.maximum(variance, 1e-6)


def _alike(noise):
    """Groups of outputs with the same noise."""
    groups = {}
    for output, column in enumerate(np.ascontiguousarray(noise.T)):
        groups.setdefault(column.tobytes(), []).append(output)
    return [np.array(group) for group in groups.values()]
