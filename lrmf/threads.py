"""Threads of BLAS and of the compiled kernels, set for a while and given back."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numba
from threadpoolctl import ThreadpoolController


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
