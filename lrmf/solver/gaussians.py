"""Batches of Gaussians in natural parameters."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussians:
    """A batch of Gaussians over states, in information form: exp(h's - s'Ps / 2) each.

    Evidence need not be normalisable (P = 0 says nothing). Multiplying densities adds both parts.
    """

    precision: np.ndarray  # P, (n, p, p)
    information: np.ndarray  # h = P mean, (n, p)

    def __getitem__(self, rows):
        return Gaussians(self.precision[rows], self.information[rows])

    def __mul__(self, other):
        return Gaussians(self.precision + other.precision, self.information + other.information)

    def __truediv__(self, other):
        return Gaussians(self.precision - other.precision, self.information - other.information)

    @property
    def mean(self):
        """(n, p)."""
        return np.linalg.solve(self.precision, self.information[..., None])[..., 0]

    @property
    def covariance(self):
        """(n, p, p)."""
        return np.linalg.inv(self.precision)

    def shift(self, offset):
        """The same Gaussians moved by `offset` (n, p)."""
        moved = np.einsum("nij,nj->ni", self.precision, offset)
        return Gaussians(self.precision, self.information + moved)

    def widen(self, variance):
        """Add independent noise of this variance to every component."""
        if not variance:
            return self
        # Covariances add: back and forth between information and covariance form.
        noise = variance * np.eye(self.information.shape[1])
        precision = np.linalg.inv(self.covariance + noise)
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, self.mean))

    def temper(self, factor):
        """The same means with `factor` (a number or one a row) times the precision."""
        factor = np.broadcast_to(factor, len(self.information))[:, None]
        return Gaussians(factor[..., None] * self.precision, factor * self.information)

    def pad(self, n):
        """Append rows that say nothing, up to n."""
        more = n - len(self.information)
        return Gaussians(
            np.pad(self.precision, ((0, more), (0, 0), (0, 0))),
            np.pad(self.information, ((0, more), (0, 0))),
        )


def pack(matrices):
    """Packed upper triangles (n, p (p + 1) / 2) of symmetric matrices (n, p, p)."""
    return np.concatenate(
        [matrix[:, row:] for row, matrix in enumerate(matrices.swapaxes(0, 1))], 1
    )


def unpack(packed, p):
    """Inverse of `pack`."""
    full = np.empty((packed.shape[0], p, p), packed.dtype)
    top = 0
    for row in range(p):
        part = packed[:, top : top + p - row]
        full[:, row, row:] = full[:, row:, row] = part
        top += p - row
    return full
