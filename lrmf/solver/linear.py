"""Conjugate gradients: the one iterative solver for symmetric positive definite systems."""

import ctypes
from functools import cache

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
    if not np.isfinite(matrix).all():
        raise linalg.LinAlgError("the matrix has entries that are not finite")
    # Cholesky factor, with the least jitter on the diagonal at which it exists.
    jitter = 0.0
    while _lapack("dpotrf", lower := np.array(matrix, np.float64, order="C")):
        increment = max(9 * jitter, 1e-6 * np.trace(matrix) / len(matrix))
        matrix = matrix + increment * np.eye(len(matrix))
        jitter += increment
    # The log determinant from the factor, and the inverse, whose lower half LAPACK fills.
    log_det = 2 * np.log(np.diagonal(lower)).sum()
    _lapack("dpotri", precision := lower)
    for start in range(0, len(precision), _BLOCK):
        block = slice(start, start + _BLOCK)
        square = precision[block, block]
        square[:] = np.tril(square) + np.tril(square, -1).T
        precision[block, start + _BLOCK :] = precision[start + _BLOCK :, block].T
    return precision, log_det


def _lapack(name, matrix):
    """Replace the lower half of a float64 matrix (n, n) by that of LAPACK's result.

    The functions of `scipy.linalg.lapack` keep other threads waiting; called by address, they run
    in several threads at once.

    Returns
    -------
    int : 0, or the order of the leading minor that is not positive definite
    """
    n, stride, info = ctypes.c_int(len(matrix)), ctypes.c_int(max(len(matrix), 1)), ctypes.c_int()
    # What is the lower half by rows is the upper half by columns, as Fortran has it.
    _function(name)(b"U", n, matrix.ctypes.data, stride, info)
    return info.value


@cache
def _function(name):
    """A function of LAPACK with the parameters of POTRF: half, order, matrix, stride, info."""
    from numba.extending import get_cython_function_address

    integer = ctypes.POINTER(ctypes.c_int)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p, integer, ctypes.c_void_p, integer, integer)
    return prototype(get_cython_function_address("scipy.linalg.cython_lapack", name))
