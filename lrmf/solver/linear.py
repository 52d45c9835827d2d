"""Conjugate gradients: the one iterative solver for symmetric positive definite systems."""

import numpy as np
from scipy import linalg


def conjugate_gradients(multiply, precondition, right, *, rtol, max_iterations, by_column=False):
    """Solve A x = right by preconditioned conjugate gradients.

    Parameters
    ----------
    multiply : callable, x -> A x
    precondition : callable, r -> M^-1 r
        M is an approximation of A that is easy to invert.
    right : (n, p)
    rtol : float
        Stop when the preconditioned residual norm sqrt(r' M^-1 r) has shrunk by this factor.
    max_iterations : int
    by_column : bool
        Whether the p columns are systems of their own, each with its own step, or one system.

    Returns
    -------
    solution : (n, p), of the type of `right`
    iterations : int

    Notes
    -----
    Hestenes and Stiefel (1952), "Methods of conjugate gradients for solving linear systems".
    """

    def inner(left, other):
        return np.einsum("ni,ni->i", left, other) if by_column else np.sum(left * other)

    solution, residual = np.zeros_like(right), right.copy()
    preconditioned = precondition(residual)
    direction = preconditioned.copy()
    energy = inner(residual, preconditioned)
    enough = rtol**2 * energy
    for iteration in range(max_iterations):
        if np.all(energy <= enough):
            return solution, iteration
        # The step that minimises the quadratic along the direction.
        product = multiply(direction)
        step = _divided(energy, inner(direction, product))
        solution += step * direction
        residual -= step * product
        # The next direction is conjugate to all before it.
        preconditioned = precondition(residual)
        energy, previous = inner(residual, preconditioned), energy
        direction = preconditioned + _divided(energy, previous) * direction
    return solution, max_iterations


def _divided(numerator, denominator):
    """Quotient, 0 where the denominator is not positive: a column that is solved stays."""
    if np.ndim(numerator) == 0:
        return numerator / denominator if denominator > 0 else numerator.dtype.type(0)
    out = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def inverse(matrix):
    """Inverse and log determinant of a positive definite matrix.

    Where rounding has made it indefinite, as little as is needed is added to its diagonal, in steps
    of a factor of ten from 1e-6 of the mean.
    """
    extra = 0.0
    while True:
        try:
            lower = linalg.cholesky(matrix, lower=True, check_finite=False)
            break
        except linalg.LinAlgError:
            if not np.isfinite(matrix).all():
                raise
            more = max(9 * extra, 1e-6 * np.trace(matrix) / len(matrix))
            matrix = matrix + more * np.eye(len(matrix))
            extra += more
    log_det = 2 * np.log(np.diagonal(lower)).sum()
    precision, _ = linalg.lapack.get_lapack_funcs("potri", (lower,))(lower, lower=1)
    upper = np.triu_indices(len(precision), 1)
    precision[upper] = precision.T[upper]
    return precision, log_det
