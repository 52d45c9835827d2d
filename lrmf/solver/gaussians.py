"""Batches of Gaussians in natural parameters."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussians:
    """A batch of Gaussians over states s in information form, exp(h's - s'Ps / 2) each.

    The product of two densities has the sums of their precisions and of their information vectors.
    Evidence need not be normalisable: P = 0 is no evidence.

    Attributes
    ----------
    precision : (n, p, p), P
    information : (n, p), h = P mean
    """

    precision: np.ndarray
    information: np.ndarray

    def __getitem__(self, rows):
        return Gaussians(self.precision[rows], self.information[rows])

    def __mul__(self, other):
        return Gaussians(self.precision + other.precision, self.information + other.information)

    def __truediv__(self, other):
        return Gaussians(self.precision - other.precision, self.information - other.information)

    @property
    def mean(self):
        """P^-1 h (n, p)."""
        return np.linalg.solve(self.precision, self.information[..., None])[..., 0]

    @property
    def covariance(self):
        """P^-1 (n, p, p)."""
        return np.linalg.inv(self.precision)

    def shift(self, offset):
        """The Gaussians with `offset` (n, p) added to their means: h + P offset."""
        change = np.einsum("nij,nj->ni", self.precision, offset)
        return Gaussians(self.precision, self.information + change)

    def widen(self, variance):
        """Add independent noise of this variance to every component: C + variance I."""
        if not variance:
            return self
        # Covariances add, so the sum is formed in covariance form and inverted back.
        noise = variance * np.eye(self.information.shape[1])
        precision = np.linalg.inv(self.covariance + noise)
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, self.mean))

    def temper(self, factor):
        """Multiply the precision by `factor`, a number or one for each row; means stay."""
        # (factor P, factor h) has the mean P^-1 h and the covariance P^-1 / factor.
        factor = np.broadcast_to(factor, len(self.information))[:, None]
        return Gaussians(factor[..., None] * self.precision, factor * self.information)

    def pad(self, n):
        """Append Gaussians with P = 0, no evidence, up to n rows."""
        n_missing = n - len(self.information)
        return Gaussians(
            np.pad(self.precision, ((0, n_missing), (0, 0), (0, 0))),
            np.pad(self.information, ((0, n_missing), (0, 0))),
        )


def pack(matrices):
    """Packed upper triangles (n, p (p + 1) / 2), row by row, of symmetric matrices (n, p, p)."""
    # Row r of every matrix from its diagonal on, side by side.
    return np.concatenate(
        [matrix[:, row:] for row, matrix in enumerate(matrices.swapaxes(0, 1))], 1
    )


def unpack(packed, p):
    """Symmetric matrices (n, p, p) of packed upper triangles; the inverse of `pack`."""
    full = np.empty((packed.shape[0], p, p), packed.dtype)
    start = 0
    # Row r of the upper triangle is also column r of the lower one.
    for row in range(p):
        part = packed[:, start : start + p - row]
        full[:, row, row:] = full[:, row:, row] = part
        start += p - row
    return full
