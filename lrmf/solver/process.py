"""Gaussian-process regression: outputs share one covariance; noise differs by model and output."""

from dataclasses import dataclass

import numpy as np

from ..threads import in_threads
from .linear import inverse

EXACT = 5000  # number of models up to which forecasts are conditioned on all models
NEIGHBOURS = 150  # models that a forecast is conditioned on beyond that number
_BLOCK = 256  # rows of a working array


@dataclass(frozen=True)
class _Group:
    """Outputs with the same noise share one precision matrix P = (K + N)^-1.

    Attributes
    ----------
    outputs : int (n_outputs,), columns of y
    noise : (n,)
    precision : float32 (n, n) or None, P; None if there are too many models
    solved : (n, n_outputs) or None, P y
    """

    outputs: np.ndarray
    noise: np.ndarray
    precision: np.ndarray | None
    solved: np.ndarray | None


class Process:
    r"""Outputs y_k = f_k + e_k with f_k ~ N(0, K) and e_uk ~ N(0, N_uk), observed at n models.

    With P = (K + N)^-1 and a = P y, the leave-one-out forecast of f for model u is

        mean_u = y_u - a_u / P_uu,     variance_u = 1 / P_uu - N_uu,

    and that of a set of models has the block of P in place of P_uu (Rasmussen and Williams, 2006,
    5.4.2). Above 5,000 models each forecast is conditioned on the 150 models of largest covariance
    instead (nearest-neighbour Gaussian process; Datta et al., 2016). States depend mostly on
    similar models, and a low-rank approximation of K forecasts worse.

    Parameters
    ----------
    between : function of two arrays of rows
        Covariances K, float32 (len(a), len(b)).
    prior_variance : (n,)
        Diagonal of K, including variance that no other model shares.
    noise : (n, q), N
    outputs : (n, q), y
    exact : int
        Number of models up to which forecasts are conditioned on all models.
    neighbours : int
        Number of models that a forecast is conditioned on beyond that.
    solved : list of (precision, solved), optional
        P and P y by group of outputs, from an earlier process.
    """

    def __init__(
        self,
        between,
        prior_variance,
        noise,
        outputs,
        *,
        exact=EXACT,
        neighbours=NEIGHBOURS,
        solved=None,
    ):
        self.between, self.prior_variance, self.outputs = between, prior_variance, outputs
        self.noise = np.broadcast_to(noise, outputs.shape)
        self.neighbours = neighbours
        # One precision matrix for each group of outputs with the same noise.
        rows, groups = np.arange(len(prior_variance)), _equal_noise(self.noise)
        if solved is None and len(rows) > exact:
            solved = [(None, None)] * len(groups)
        elif solved is None:
            matrix = between(rows, rows)
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
        """P = (K + N)^-1 of a group, float32 (n, n)."""
        full = matrix.astype(np.float64)
        np.fill_diagonal(full, self.prior_variance + self.noise[:, outputs[0]])
        return inverse(full)[0].astype(np.float32)

    def _solved(self, precision, outputs):
        """P y of a group, a product in double precision, block by block."""
        y = self.outputs[:, outputs]
        starts = range(0, len(precision), _BLOCK)
        return np.concatenate([precision[i : i + _BLOCK].astype(np.float64) @ y for i in starts])

    def leave_one_out(self, rows):
        """Mean and variance (len(rows), q) of f for each of these models, given all others."""
        mean, variance = np.empty((2, len(rows), self.outputs.shape[1]))
        if self.groups[0].precision is None:
            # Too many models: condition on the nearest ones, with the model itself left out.
            for start in range(0, len(rows), _BLOCK):
                block = slice(start, start + _BLOCK)
                part = rows[block]
                cross = self.between(part, np.arange(len(self.prior_variance)))
                cross[np.arange(len(part)), part] = -np.inf
                mean[block], variance[block] = self._from_neighbours(
                    cross, self.prior_variance[part]
                )
            return mean, variance
        # mean = y - a / P_uu, variance = 1 / P_uu - N_uu.
        for group in self.groups:
            diagonal = np.diagonal(group.precision)[rows].astype(np.float64)
            values = self.outputs[np.ix_(rows, group.outputs)]
            mean[:, group.outputs] = values - group.solved[rows] / diagonal[:, None]
            variance[:, group.outputs] = (1 / diagonal - group.noise[rows])[:, None]
        return mean, np.maximum(variance, 1e-6)

    def leave_set_out(self, rows):
        """Mean and variance (len(rows), q) of f for these models, given all not in `rows`."""
        if self.groups[0].precision is None:
            cross = self.between(rows, np.arange(len(self.prior_variance)))
            cross[:, rows] = -np.inf
            return self._from_neighbours(cross, self.prior_variance[rows])
        # mean = y - B a, variance = diag(B) - N with B = (P_rows,rows)^-1.
        mean, variance = np.empty((2, len(rows), self.outputs.shape[1]))
        for group in self.groups:
            block = group.precision[np.ix_(rows, rows)].astype(np.float64)
            block, _ = inverse(block)
            values = self.outputs[np.ix_(rows, group.outputs)]
            mean[:, group.outputs] = values - block @ group.solved[rows]
            variance[:, group.outputs] = (np.diagonal(block) - group.noise[rows])[:, None]
        return mean, np.maximum(variance, 1e-6)

    def forecast(self, cross, prior_variance, *, left_out=None):
        """Mean and variance (m, q) of f for other models.

        With c the covariances of a model with those observed, mean = c P y and
        variance = prior variance - c P c'. Lowering c_i by (c P)_i / P_ii gives model i no weight,
        which is the forecast given all others.

        Parameters
        ----------
        cross : float32 (m, n), c
        prior_variance : (m,)
        left_out : int (m,), optional
            The observed model that a forecast does without, -1 for none.
        """
        left_out = np.full(len(cross), -1) if left_out is None else left_out
        rows = np.flatnonzero(left_out >= 0)
        cells = rows, left_out[rows]
        if self.groups[0].precision is None:
            if rows.size:
                cross = cross.copy()
                cross[cells] = -np.inf
            return self._from_neighbours(cross, prior_variance)
        mean, variance = np.empty((2, len(cross), self.outputs.shape[1]))
        for group in self.groups:
            c = cross.copy() if rows.size else cross
            weight = np.einsum("mn,nm->m", c[rows], group.precision[:, cells[1]])
            c[cells] -= weight / np.diagonal(group.precision)[cells[1]]
            mean[:, group.outputs] = c @ group.solved
            explained = np.einsum("mn,mn->m", c @ group.precision, c)
            variance[:, group.outputs] = (prior_variance - explained)[:, None]
        return mean, np.maximum(variance, 1e-6)

    def _from_neighbours(self, cross, prior_variance):
        """As `forecast`, each row given the models of its largest covariances only."""
        mean, variance = np.empty((2, len(cross), self.outputs.shape[1]))
        n_near = min(self.neighbours, cross.shape[1])
        # Equal covariances are common. Rounding makes ties exact, and the first models win them.
        nearest = np.argsort(-np.round(cross, 6), axis=1, kind="stable")[:, :n_near]
        for row, near in enumerate(np.sort(nearest, axis=1)):
            near = near[np.isfinite(cross[row, near])]
            among, right = self.between(near, near).astype(np.float64), cross[row, near]
            # gain = c (K + N)^-1 over the neighbours.
            for group in self.groups:
                np.fill_diagonal(among, self.prior_variance[near] + group.noise[near])
                gain = np.linalg.solve(among, right.astype(np.float64))
                mean[row, group.outputs] = gain @ self.outputs[np.ix_(near, group.outputs)]
                variance[row, group.outputs] = prior_variance[row] - gain @ right
        return mean, np.maximum(variance, 1e-6)


def _equal_noise(noise):
    """Groups of outputs whose noise is the same for every model."""
    groups = {}
    for output, column in enumerate(np.ascontiguousarray(noise.T)):
        groups.setdefault(column.tobytes(), []).append(output)
    return [np.array(group) for group in groups.values()]
