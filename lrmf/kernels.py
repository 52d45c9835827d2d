"""Compiled inner loops of the solver: likelihood statistics and batches of small linear systems.

Every likelihood kernel computes, for logits S = R D' with *free* rows R (n_rows, p + 1) and a fixed
design D (n_columns, p + 1) whose last column is an offset (R's last column is 1), the three sums a
Newton step on R needs: the log-loss, its gradient and its Hessian w.r.t. the p free columns. Models
against items and items against models are the same call with the matrix transposed.

Symmetric p x p matrices are stored packed, as the p (p + 1) / 2 entries of the upper triangle.
Results do not depend on the number of threads: each row block is summed by one thread in one order.
"""

import numpy as np
from numba import njit, prange

MISSING = 255
TILE_ROWS = 256
TILE_COLUMNS = 512
_ROWS_PER_LOG = 32  # sigmoid(|s|) >= 1/2, so a product of 32 stays far above the float32 minimum
_GATHER = 256

_options = {"cache": True, "error_model": "numpy"}


@njit(inline="always", **_options)
def _half_tanh(logit):
    """tanh(logit / 2) to 3e-7 by a rational function, which vectorises where exp does not."""
    x = np.float32(0.5) * logit
    x = min(max(x, np.float32(-8.0)), np.float32(8.0))
    y = x * x
    numerator = np.float32(2.30306182e-11)
    numerator = numerator * y - np.float32(1.45187833e-08)
    numerator = numerator * y + np.float32(9.8161048e-06)
    numerator = numerator * y + np.float32(2.97887349e-03)
    numerator = numerator * y + np.float32(1.29726376e-01)
    numerator = numerator * y + np.float32(9.99999913e-01)
    denominator = np.float32(2.36246636e-04)
    denominator = denominator * y + np.float32(2.39990846e-02)
    denominator = denominator * y + np.float32(4.63059353e-01)
    denominator = denominator * y + np.float32(1.0)
    return x * numerator / denominator


@njit(**_options)
def _residual_row(logits, answers, product, hinge):
    """Turn one row of logits into sigmoid(s) - z in place (0 where missing); gather the loss.

    -log p(z | s) = max(0, -t) - log sigmoid(|s|) with t = s if z = 1 else -s: the first part is
    added to `hinge`, the second multiplied into `product`, one logarithm for many cells.
    """
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    for j in range(logits.shape[0]):
        s = logits[j]
        z = np.float32(answers[j])
        known = one if z < np.float32(2) else zero
        h = _half_tanh(s)
        t = s * (z + z - one)
        product[j] *= one + known * (half * abs(h) - half)
        hinge[j] += known * max(-t, zero)
        logits[j] = known * (half + half * h - z)


@njit(**_options)
def _weight_row(logits, known):
    """Turn logits into known * sigmoid'(s) in place."""
    for j in range(logits.shape[0]):
        h = _half_tanh(logits[j])
        logits[j] = known[j] * np.float32(0.25) * (np.float32(1) - h * h)


@njit(**_options)
def _flush_loss(product, hinge):
    loss = 0.0
    for j in range(product.shape[0]):
        loss += hinge[j] - np.log(product[j])
        product[j] = 1.0
        hinge[j] = 0.0
    return loss


@njit(**_options)
def pack_products(design):
    """(n, p (p + 1) / 2) packed outer products d d' of the rows of `design` (n, p)."""
    n, p = design.shape
    products = np.empty((n, p * (p + 1) // 2), np.float32)
    for j in range(n):
        position = 0
        for a in range(p):
            for b in range(a, p):
                products[j, position] = design[j, a] * design[j, b]
                position += 1
    return products


@njit(parallel=True, **_options)
def dense_gradient(answers, rows, design, loss, gradient):
    """Log-loss and gradient of every row against a fixed design.

    Parameters
    ----------
    answers : uint8 (n_rows, n_columns), 0/1 or 255 = missing
    rows, design : float32 (n_rows, p + 1), (n_columns, p + 1)
    loss, gradient : outputs, float64 (n_row_tiles,) and float32 (n_rows, p)
    """
    n_rows, n_columns = answers.shape
    p = gradient.shape[1]
    for tile in prange(loss.shape[0]):
        top, bottom = tile * TILE_ROWS, min(n_rows, (tile + 1) * TILE_ROWS)
        height = bottom - top
        block = rows[top:bottom]
        total = np.zeros((height, p + 1), np.float32)
        product = np.ones(TILE_COLUMNS, np.float32)
        hinge = np.zeros(TILE_COLUMNS, np.float32)
        tile_loss = 0.0
        for left in range(0, n_columns, TILE_COLUMNS):
            right = min(n_columns, left + TILE_COLUMNS)
            width = right - left
            columns = design[left:right]
            cells = np.dot(block, columns.T)
            for i in range(height):
                _residual_row(
                    cells[i], answers[top + i, left:right], product[:width], hinge[:width]
                )
                if i % _ROWS_PER_LOG == _ROWS_PER_LOG - 1 or i == height - 1:
                    tile_loss += _flush_loss(product[:width], hinge[:width])
            total += np.dot(cells, columns)
        loss[tile] = tile_loss
        gradient[top:bottom] = total[:, :p]


@njit(parallel=True, **_options)
def dense_hessian(answers, sample, rows, design, hessian, observed):
    """Packed Hessian of every row over a sample of columns.

    Parameters
    ----------
    answers, rows : as in `dense_gradient`
    sample : int64 (n_sampled,), columns
    design : float32 (n_sampled, p + 1), of the sampled columns
    hessian, observed : outputs, float32 (n_rows, p (p + 1) / 2) and int64 (n_rows,), how many
        sampled answers are observed
    """
    n_rows, p = answers.shape[0], rows.shape[1] - 1
    products = pack_products(design[:, :p])
    for tile in prange(-(-n_rows // TILE_ROWS)):
        top, bottom = tile * TILE_ROWS, min(n_rows, (tile + 1) * TILE_ROWS)
        total = np.zeros((bottom - top, hessian.shape[1]), np.float32)
        counts = np.zeros(bottom - top, np.int64)
        known = np.empty(TILE_COLUMNS, np.float32)
        for left in range(0, sample.size, TILE_COLUMNS):
            right = min(sample.size, left + TILE_COLUMNS)
            cells = np.dot(rows[top:bottom], design[left:right].T)
            for i in range(bottom - top):
                answered = 0
                for j in range(left, right):
                    seen = answers[top + i, sample[j]] != MISSING
                    known[j - left] = seen
                    answered += seen
                counts[i] += answered
                _weight_row(cells[i], known)
            total += np.dot(cells, products[left:right])
        hessian[top:bottom] = total
        observed[top:bottom] = counts


@njit(parallel=True, **_options)
def sparse_statistics(pointers, columns, answers, rows, design, loss, gradient, hessian):
    """Log-loss (by row), gradient and exact Hessian over compressed rows of 0/1 answers."""
    p = gradient.shape[1]
    for row in prange(pointers.shape[0] - 1):
        row_loss = 0.0
        product = np.ones(_GATHER, np.float32)
        hinge = np.zeros(_GATHER, np.float32)
        gathered = np.empty((_GATHER, p + 1), np.float32)
        scaled = np.empty((_GATHER, p + 1), np.float32)
        sums = np.zeros((p + 1, p + 1), np.float32)  # [sum w d d'; sum r d'] in one product
        for start in range(pointers[row], pointers[row + 1], _GATHER):
            stop = min(start + _GATHER, pointers[row + 1])
            size = stop - start
            for k in range(size):
                gathered[k] = design[columns[start + k]]
            cells = np.dot(gathered[:size], rows[row])
            _residual_row(cells, answers[start:stop], product[:size], hinge[:size])
            row_loss += _flush_loss(product[:size], hinge[:size])
            for k in range(size):
                q = abs(cells[k])
                weight = q - q * q
                for a in range(p):
                    scaled[k, a] = weight * gathered[k, a]
                scaled[k, p] = cells[k]
            sums += np.dot(scaled[:size].T, gathered[:size])
        loss[row] = row_loss
        gradient[row] = sums[p, :p]
        position = 0
        for a in range(p):
            for b in range(a, p):
                hessian[row, position] = sums[a, b]
                position += 1


@njit(parallel=True, **_options)
def compress(answers, pointers, columns, values):
    """Fill the columns and 0/1 values of the observed answers of every row (CSR)."""
    for i in prange(answers.shape[0]):
        position = pointers[i]
        for j in range(answers.shape[1]):
            if answers[i, j] != MISSING:
                columns[position] = j
                values[position] = answers[i, j]
                position += 1


@njit(parallel=True, **_options)
def transpose(matrix, out):
    """Transpose a uint8 matrix into `out`, in blocks that fit the cache."""
    n_rows, n_columns = matrix.shape
    for tile in prange(-(-n_columns // 64)):
        left, right = tile * 64, min(n_columns, tile * 64 + 64)
        for top in range(0, n_rows, 64):
            for j in range(left, right):
                for i in range(top, min(n_rows, top + 64)):
                    out[j, i] = matrix[i, j]


@njit(parallel=True, **_options)
def count_answers(answers, correct, observed):
    """Correct and observed answers of every row, int64 (n_rows,); observed is -1 if one is none."""
    for i in prange(answers.shape[0]):
        ones, missing, other = 0, 0, 0
        for j in range(answers.shape[1]):
            ones += answers[i, j] == 1
            missing += answers[i, j] == MISSING
            other += answers[i, j] > 1
        correct[i] = ones
        observed[i] = answers.shape[1] - missing if other == missing else -1


@njit(parallel=True, **_options)
def packed_matvec(matrices, vectors, out):
    """out[i] = matrices[i] @ vectors[i] for packed symmetric matrices."""
    n, p = vectors.shape
    for i in prange(n):
        x, y, matrix = vectors[i], out[i], matrices[i]
        y[:] = 0.0
        start = 0
        for a in range(p):
            total = matrix[start] * x[a]
            for b in range(1, p - a):
                total += matrix[start + b] * x[a + b]
                y[a + b] += matrix[start + b] * x[a]
            y[a] += total
            start += p - a


@njit(parallel=True, **_options)
def cholesky(matrices, diagonal, factors):
    """Packed upper factors U, U'U = matrices[i] + diag(diagonal[i]), batched."""
    n, p = diagonal.shape
    for i in prange(n):
        upper = factors[i]
        upper[:] = matrices[i]
        start = 0
        for a in range(p):
            size = p - a
            # What earlier rows left of the pivot can round below zero in a near-singular sum.
            pivot = upper[start] + diagonal[i, a]
            pivot = np.sqrt(max(pivot, 1e-6 * diagonal[i, a] + 1e-30))
            upper[start] = pivot
            for b in range(1, size):
                upper[start + b] /= pivot
            below = start + size
            for b in range(1, size):
                value = upper[start + b]
                for c in range(b, size):
                    upper[below + c - b] -= value * upper[start + c]
                below += size - b
            start += size


@njit(parallel=True, **_options)
def cholesky_solve(factors, right, out):
    """out[i] = (U_i'U_i)^-1 right[i] with packed factors from `cholesky`."""
    n, p = right.shape
    for i in prange(n):
        upper, x = factors[i], out[i]
        x[:] = right[i]
        start = 0
        for a in range(p):
            x[a] /= upper[start]
            for b in range(1, p - a):
                x[a + b] -= upper[start + b] * x[a]
            start += p - a
        for a in range(p - 1, -1, -1):
            start -= p - a
            value = x[a]
            for b in range(1, p - a):
                value -= upper[start + b] * x[a + b]
            x[a] = value / upper[start]


@njit(**_options)
def _invert(matrix):
    """Inverse of a symmetric positive definite matrix, in place (Gauss-Jordan)."""
    p = matrix.shape[0]
    for k in range(p):
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for b in range(p):
            matrix[k, b] *= pivot
        for a in range(p):
            if a != k:
                factor = matrix[a, k]
                matrix[a, k] = 0.0
                for b in range(p):
                    matrix[a, b] -= factor * matrix[k, b]


@njit(parallel=True, **_options)
def send_messages(
    edges,
    source,
    reverse,
    coupling,
    total_precision,
    total_information,
    precision,
    information,
    new_precision,
    new_information,
):
    """Messages of belief propagation along `edges`.

    K (P + K)^-1 P and K (P + K)^-1 h, with P, h the sender's belief less what the receiver told
    it, and K = diag(coupling[e]).
    """
    p = information.shape[1]
    for index in prange(edges.size):
        e = edges[index]
        system = np.empty((p, p))
        gain = np.empty((p, p))
        belief = np.empty((p, p))
        for a in range(p):
            for b in range(p):
                belief[a, b] = total_precision[source[e], a, b] - precision[reverse[e], a, b]
                system[a, b] = belief[a, b]
            system[a, a] += coupling[e, a]
        _invert(system)
        for a in range(p):
            value = 0.0
            for b in range(p):
                gain[a, b] = coupling[e, a] * system[a, b]
                heard = total_information[source[e], b] - information[reverse[e], b]
                value += gain[a, b] * heard
            new_information[index, a] = value
        for a in range(p):
            system[a] = 0.0
            for b in range(p):
                for c in range(p):
                    system[a, c] += gain[a, b] * belief[b, c]
        for a in range(p):
            for b in range(p):
                new_precision[index, a, b] = 0.5 * (system[a, b] + system[b, a])
