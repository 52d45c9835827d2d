"""Compiled loops over answers, which `statistics` imports when they are first needed."""

import numpy as np
from numba import prange

from ..threads import njit
from .responses import MISSING

TILE_COLUMNS = 256  # columns that one thread counts at a time

_OPTIONS = {"error_model": "numpy"}


@njit(parallel=True, **_OPTIONS)
def count_rows(answers, correct, observed):
    """Correct and observed answers of each row; observed is -1 with an illegal value."""
    for i in prange(answers.shape[0]):
        ones, missing, other = 0, 0, 0
        for j in range(answers.shape[1]):
            ones += answers[i, j] == 1
            missing += answers[i, j] == MISSING
            other += answers[i, j] > 1
        correct[i] = ones
        observed[i] = answers.shape[1] - missing if other == missing else -1


@njit(parallel=True, **_OPTIONS)
def count_columns(answers, correct, observed):
    """Correct and observed answers of each column."""
    for tile in prange(-(-answers.shape[1] // TILE_COLUMNS)):
        left = tile * TILE_COLUMNS
        right = min(left + TILE_COLUMNS, answers.shape[1])
        ones, known = np.zeros((2, TILE_COLUMNS), np.int32)
        for i in range(answers.shape[0]):
            row = answers[i, left:right]
            for j in range(row.shape[0]):
                ones[j] += np.int32(row[j] == 1)
                known[j] += np.int32(row[j] != MISSING)
        correct[left:right] = ones[: right - left]
        observed[left:right] = known[: right - left]


@njit(parallel=True, **_OPTIONS)
def compress(answers, pointers, columns, values):
    """Columns and values of the observed answers, row by row."""
    for i in prange(answers.shape[0]):
        position = pointers[i]
        for j in range(answers.shape[1]):
            if answers[i, j] != MISSING:
                columns[position] = j
                values[position] = answers[i, j]
                position += 1
