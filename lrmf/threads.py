"""Compiled kernels, and their threads and those of BLAS, set for a while and given back."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numba
from threadpoolctl import ThreadpoolController


def njit(**options):
    """`numba.njit` that keeps its code on disk, or compiles anew where no folder can be written."""

    def compile_lazily(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except (RuntimeError, OSError):  # raised for want of a place
            warnings.warn(
                "compiled code cannot be kept: compiling anew, about 20 s; set NUMBA_CACHE_DIR to "
                "a writable folder",
                stacklevel=2,
            )
            return numba.njit(**options)(function)

    return compile_lazily


@cache
def _blas():
    return ThreadpoolController()  # finding the libraries takes longer than a fold-in


@contextmanager
def threads(n_threads):
    """One BLAS thread (kernels thread over blocks), `n_threads` for kernels; restored after."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads or before, numba.config.NUMBA_NUM_THREADS))
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def in_threads(work, parts):
    """Results of `work` on each part, as many at once as kernels have threads."""
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        return list(pool.map(work, parts))
