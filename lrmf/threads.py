"""Compilation of kernels, and the numbers of threads of kernels and BLAS."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


def njit(**options):
    """`numba.njit` with a cache on disk; without one if no folder is writable.

    Parameters
    ----------
    options : of `numba.njit`
    """
    import numba

    def compile_lazily(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except (RuntimeError, OSError):  # raised if no folder for the cache is writable
            warnings.warn(
                "compiled code cannot be cached: compiling takes about 20 s; set NUMBA_CACHE_DIR "
                "to a writable folder",
                stacklevel=2,
            )
            return numba.njit(**options)(function)

    return compile_lazily


@cache
def _blas():
    """The controller of BLAS threads."""
    return ThreadpoolController()  # finding the libraries takes longer than a fold-in


@contextmanager
def threads(n_threads):
    """Context with one BLAS thread and `n_threads` threads of kernels, which work on blocks.

    Parameters
    ----------
    n_threads : int or None
        None keeps the present number.
    """
    # Without numba there are no kernels yet, and importing it takes a third of a second.
    if n_threads == 1 and "numba" not in sys.modules:
        with _blas().limit(limits=1, user_api="blas"):
            yield
        return
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads or before, numba.config.NUMBA_NUM_THREADS))
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def in_threads(work, parts):
    """Results of `work` on each part, in as many threads as kernels have.

    Parameters
    ----------
    work : function of a part
    parts : sequence

    Returns
    -------
    list
    """
    if len(parts) < 2:
        return [work(part) for part in parts]
    import numba

    # Threads do not inherit the number of threads of kernels.
    n_threads = numba.get_num_threads()
    with ThreadPoolExecutor(
        n_threads, initializer=lambda: numba.set_num_threads(n_threads)
    ) as pool:
        return list(pool.map(work, parts))
