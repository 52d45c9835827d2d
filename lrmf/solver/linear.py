"""Conjugate gradients: the one iterative solver for symmetric positive definite systems."""

import numpy as np
from scipy import linalg

_BLOCK = 256  # columns copied at once


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
        Whether the p columns are separate systems, each with its own step, or one system.

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
    # The squared norm r' M^-1 r decides when to stop.
    squared_norm = inner(residual, preconditioned)
    target = rtol**2 * squared_norm
    for iteration in range(max_iterations):
        if np.all(squared_norm <= target):
            return solution, iteration
        # The step r' M^-1 r / d' A d minimises the quadratic along the direction d.
        product = multiply(direction)
        step = _divided(squared_norm, inner(direction, product))
        solution += step * direction
        residual -= step * product
        # The next direction is conjugate (d' A d_k = 0) to all earlier ones.
        preconditioned = precondition(residual)
        squared_norm, previous = inner(residual, preconditioned), squared_norm
        direction = preconditioned + _divided(squared_norm, previous) * direction
    return solution, max_iterations


def _divided(numerator, denominator):
    """Quotient, 0 where the denominator is not positive, so that solved columns do not change."""
    if np.ndim(numerator) == 0:
        return numerator / denominator if denominator > 0 else numerator.dtype.type(0)
    out = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def inverse(matrix):
    """Inverse and log determinant of a positive definite matrix (n, n), by Cholesky.

    If rounding has made the matrix indefinite, its diagonal is raised by 1e-6 of its mean, then by
    ten times as much until the factorization succeeds.

    Raises
    ------
    LinAlgError
        If the matrix has entries that are not finite.
    """
    # Cholesky factor, with the least jitter on the diagonal at which it exists.
    jitter = 0.0
    while True:
        try:
            lower = linalg.cholesky(matrix, lower=True, check_finite=False)
            break
        except linalg.LinAlgError:
            if not np.isfinite(matrix).all():
                raise
            increment = max(9 * jitter, 1e-6 * np.trace(matrix) / len(matrix))
            matrix = matrix + increment * np.eye(len(matrix))
            jitter += increment
    # The log determinant from the factor, and the inverse, whose lower half LAPACK fills.
    log_det = 2 * np.log(np.diagonal(lower)).sum()
    precision, _ = linalg.lapack.get_lapack_funcs("potri", (lower,))(lower, lower=1)
    for start in range(0, len(precision), _BLOCK):
        block = slice(start, start + _BLOCK)
        square = precision[block, block]
        square[:] = np.tril(square) + np.tril(square, -1).T
        precision[block, start + _BLOCK :] = precision[start + _BLOCK :, block].T
    return precision, log_det
