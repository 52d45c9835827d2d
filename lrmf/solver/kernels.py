"""Compiled inner loops of the solver: likelihood statistics and batches of small linear systems.

Every likelihood kernel computes, for logits S = R D' with *free* rows R (n_rows, p + 1) and a fixed
design D (n_columns, p + 1) whose last column is an offset (R's last column is 1), the three sums a
Newton step on R needs: the log-loss, its gradient and its Hessian w.r.t. the p free columns. A
dense matrix is read by tiles for either side; a sparse one is kept both ways.

Symmetric p x p matrices are stored packed, as the p (p + 1) / 2 entries of the upper triangle.
Results do not depend on the number of threads: each row block is summed by one thread in one order.
"""

import numpy as np
from numba import prange

from ..threads import njit

MISSING = 255
TILE_ROWS = 128
TILE_COLUMNS = 256
_FACTORS_PER_LOG = 64  # sigmoid(|s|) >= 1/2: a product of 64 stays far above the float32 minimum
_GATHER = 256
_PADDING = 16  # rows a power of two apart would share few cache lines

_options = {"error_model": "numpy", "fastmath": {"contract"}}
_sums = _options | {"fastmath": {"contract", "reassoc"}}  # sums in vector lanes, a fixed order


@njit(inline="always", **_options)
def _half_tanh(logit):
    """tanh(logit / 2) to 3e-7 by a rational function, which vectorises where exp does not."""
    x = np.float32(0.5) * logit
    # Beyond +-8 the function is 1 to float32.
    x = min(max(x, np.float32(-8.0)), np.float32(8.0))
    y = x * x
    # Numerator and denominator by Horner's rule in x^2: the function is odd.
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
        # A missing answer (255) multiplies all that follows by zero.
        known = one if z < np.float32(2) else zero
        h = _half_tanh(s)
        # t = s for a correct answer, -s for a wrong one.
        t = s * (z + z - one)
        # sigmoid(|s|) = 1/2 + |tanh(s/2)| / 2.
        product[j] *= one + known * (half * abs(h) - half)
        hinge[j] += known * max(-t, zero)
        logits[j] = known * (half + half * h - z)


@njit(**_options)
def _weight_row(logits, answers):
    """Turn one row of logits into sigmoid'(s) in place (0 where missing)."""
    for j in range(logits.shape[0]):
        known = np.float32(answers[j] != MISSING)
        h = _half_tanh(logits[j])
        # sigmoid'(s) = (1 - tanh(s/2)^2) / 4.
        logits[j] = known * np.float32(0.25) * (np.float32(1) - h * h)


@njit(**_sums)
def _flush_loss(product, hinge, lanes_per_log):
    """The loss gathered so far; its parts are reset."""
    loss = 0.0
    for start in range(0, product.shape[0], lanes_per_log):
        folded = np.float32(1)
        for j in range(start, min(product.shape[0], start + lanes_per_log)):
            folded *= product[j]
            loss += hinge[j]
            product[j] = 1.0
            hinge[j] = 0.0
        loss -= np.log(folded)
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


@njit(inline="always", **_options)
def _span(tile, size, n):
    first = np.int64(tile) * size
    return first, min(n, first + size)


@njit(parallel=True, **_options)
def dense_gradient(answers, rows, columns, by_column, loss, gradient):
    """Log-loss and gradient of every row (or column) against fixed columns (or rows).

    Parameters
    ----------
    answers : uint8 (n_rows, n_columns), 0/1 or 255 = missing
    rows, columns : float32 (n_rows, p + 1), (n_columns, p + 1)
        The logits are rows @ columns.T; the last column of the free ones is 1.
    by_column : bool
        Whether the columns are free.
    loss, gradient : outputs, float64 (n_tiles,) and float32 (n_free, p)
    """
    n_rows, n_columns = answers.shape
    p = gradient.shape[1]
    n_other = -(-n_rows // TILE_ROWS) if by_column else -(-n_columns // TILE_COLUMNS)
    for tile in prange(loss.shape[0]):
        product = np.ones(TILE_COLUMNS, np.float32)
        hinge = np.zeros(TILE_COLUMNS, np.float32)
        total = np.zeros((TILE_COLUMNS if by_column else TILE_ROWS, p + 1), np.float32)
        tile_loss = 0.0
        for other in range(n_other):
            top, bottom = _span(other if by_column else tile, TILE_ROWS, n_rows)
            left, right = _span(tile if by_column else other, TILE_COLUMNS, n_columns)
            # Logits of a tile by one matrix product, then residuals in place.
            cells = np.dot(rows[top:bottom], columns[left:right].T)
            for i in range(bottom - top):
                _residual_row(cells[i], answers[top + i, left:right], product, hinge)
                if (i + 1) % _FACTORS_PER_LOG == 0 or top + i + 1 == bottom:
                    tile_loss += _flush_loss(product, hinge, 1)
            # Gradient sum_j (sigma - z)_j d_j: residuals times the fixed side.
            if by_column:
                total[: right - left] += np.dot(cells.T, rows[top:bottom])
            else:
                total[: bottom - top] += np.dot(cells, columns[left:right])
        loss[tile] = tile_loss
        first, last = _span(tile, total.shape[0], gradient.shape[0])
        gradient[first:last] = total[: last - first, :p]


@njit(parallel=True, **_options)
def dense_hessian(answers, rows, columns, by_column, hessian):
    """Packed Hessian, float32 (n_free, p (p + 1) / 2), the rest as in `dense_gradient`."""
    n_rows, n_columns = answers.shape
    products = pack_products(rows[:, :-1] if by_column else columns[:, :-1])
    n_other = -(-n_rows // TILE_ROWS) if by_column else -(-n_columns // TILE_COLUMNS)
    size = TILE_COLUMNS if by_column else TILE_ROWS
    for tile in prange(-(-hessian.shape[0] // size)):
        total = np.zeros((size, hessian.shape[1]), np.float32)
        for other in range(n_other):
            top, bottom = _span(other if by_column else tile, TILE_ROWS, n_rows)
            left, right = _span(tile if by_column else other, TILE_COLUMNS, n_columns)
            # Logits of a tile again, then the weights sigma(1 - sigma) in place.
            cells = np.dot(rows[top:bottom], columns[left:right].T)
            for i in range(bottom - top):
                _weight_row(cells[i], answers[top + i, left:right])
            # Hessian sum_j w_j d_j d_j', as one product with the packed d d'.
            if by_column:
                total[: right - left] += np.dot(cells.T, products[top:bottom])
            else:
                total[: bottom - top] += np.dot(cells, products[left:right])
        first, last = _span(tile, size, hessian.shape[0])
        hessian[first:last] = total[: last - first]


@njit(**_sums)
def _gather_logits(gathered, columns, design, row, cells):
    """The rows of `design` that a row has answers to, as columns, and the logits.

    Column by column: the reads of the first one, all at once, bring the others into the cache.
    """
    # Logits of the row, one component of the design at a time.
    cells[:] = 0
    for a in range(row.shape[0]):
        for k in range(cells.shape[0]):
            gathered[a, k] = design[columns[k], a]
            cells[k] += row[a] * gathered[a, k]


@njit(**_sums)
def _add_products(gathered, residual, weighted, gradient, hessian):
    """Add sum r d to the gradient and sum w d d' to the packed Hessian, w = |r| - r^2."""
    position = 0
    for a in range(gradient.shape[0]):
        # Gradient of component a, and the weighted component for the Hessian.
        total = np.float32(0)
        for k in range(residual.shape[0]):
            total += residual[k] * gathered[a, k]
            q = abs(residual[k])
            weighted[k] = (q - q * q) * gathered[a, k]
        gradient[a] += total
        # Row a of the upper triangle.
        for b in range(a, gradient.shape[0]):
            total = np.float32(0)
            for k in range(residual.shape[0]):
                total += weighted[k] * gathered[b, k]
            hessian[position] += total
            position += 1


@njit(parallel=True, **_options)
def sparse_statistics(pointers, columns, answers, rows, design, loss, gradient, hessian):
    """Log-loss (by row), gradient and exact Hessian over compressed rows of 0/1 answers."""
    gradient[:] = 0
    hessian[:] = 0
    for row in prange(pointers.shape[0] - 1):
        row_loss = 0.0
        product = np.ones(_GATHER, np.float32)
        hinge = np.zeros(_GATHER, np.float32)
        gathered = np.empty((rows.shape[1], _GATHER + _PADDING), np.float32)
        cells, weighted = np.empty(_GATHER, np.float32), np.empty(_GATHER, np.float32)
        for start in range(pointers[row], pointers[row + 1], _GATHER):
            stop = min(start + _GATHER, pointers[row + 1])
            size = stop - start
            _gather_logits(gathered, columns[start:stop], design, rows[row], cells[:size])
            _residual_row(cells[:size], answers[start:stop], product, hinge)
            row_loss += _flush_loss(product[:size], hinge[:size], _FACTORS_PER_LOG)
            _add_products(gathered, cells[:size], weighted, gradient[row], hessian[row])
        loss[row] = row_loss


@njit(parallel=True, **_options)
def expected_answers(logit, variance, probability, slope, noise):
    """E sigma(s) of s ~ N(logit, variance), its slope by the logit, and the answer's own noise.

    p = E sigma(s) is sigma(E s / sqrt(1 + pi/8 Var s)) (MacKay, 1992). Of the answer's variance,
    p (1 - p), the noise E sigma (1 - sigma) does not come from s: p (1 - p) - slope^2 Var s. All
    are float32 (n_rows, n_columns), the last three outputs.
    """
    one, half, share = np.float32(1), np.float32(0.5), np.float32(np.pi / 8)
    for i in prange(logit.shape[0]):
        for j in range(logit.shape[1]):
            spread = max(variance[i, j], np.float32(0))
            # Probit approximation: an uncertain logit is drawn towards 0.
            shrink = one / np.sqrt(one + share * spread)
            h = _half_tanh(shrink * logit[i, j])
            p = half + half * h
            v = np.float32(0.25) * (one - h * h)
            probability[i, j] = p
            slope[i, j] = shrink * v
            noise[i, j] = v - spread * slope[i, j] ** 2


@njit(parallel=True, **_options)
def mix_answers(pointers, candidates, weights, answers, forecast, mixed):
    """Weighted mean of answers and a forecast, which also stands in for missing answers.

    mixed_ui = sum_v w_uv (z_vi, or p_ui if missing) + (1 - sum_v w_uv) p_ui

    Parameters
    ----------
    pointers, candidates, weights : CSR (n_rows, n_candidates)
    answers : uint8 (n_candidates, n_columns)
    forecast, mixed : float32 (n_rows, n_columns)
    """
    for i in prange(mixed.shape[0]):
        for tile in range(-(-mixed.shape[1] // TILE_COLUMNS)):
            left, right = _span(tile, TILE_COLUMNS, mixed.shape[1])
            # Weight of the candidates that answered correctly; weight left for the forecast.
            copied = np.zeros(right - left, np.float32)
            rest = np.ones(right - left, np.float32)
            for k in range(pointers[i], pointers[i + 1]):
                weight, theirs = np.float32(weights[k]), answers[candidates[k], left:right]
                for j in range(theirs.shape[0]):
                    copied[j] += weight * np.float32(theirs[j] == 1)
                    rest[j] -= weight * np.float32(theirs[j] != MISSING)
            mixed[i, left:right] = copied + rest * forecast[i, left:right]


@njit(parallel=True, **_options)
def weigh_answers(pointers, columns, if_right, if_wrong, answers, total):
    """Sums over the answers of a row, chosen by what each candidate answered to the same item.

    total_uev = sum_k (if_right_ke where candidate v is right, if_wrong_ke where wrong, else 0)

    Parameters
    ----------
    pointers, columns : CSR (n_rows, n_columns) without its data
    if_right, if_wrong : float32 (n_cells, n_kinds)
    answers : uint8 (n_columns, n_candidates)
    total : float32 (n_rows, n_kinds, n_candidates)
    """
    for i in prange(total.shape[0]):
        total[i] = 0
        for k in range(pointers[i], pointers[i + 1]):
            theirs = answers[columns[k]]
            for e in range(if_right.shape[1]):
                right, wrong, sums = if_right[k, e], if_wrong[k, e], total[i, e]
                for v in range(theirs.shape[0]):
                    sums[v] += right * np.float32(theirs[v] == 1)
                    sums[v] += wrong * np.float32(theirs[v] == 0)


@njit(parallel=True, **_options)
def packed_matvec(matrices, vectors, out):
    """out[i] = matrices[i] @ vectors[i] for packed symmetric matrices."""
    n, p = vectors.shape
    for i in prange(n):
        x, y, matrix = vectors[i], out[i], matrices[i]
        y[:] = 0.0
        start = 0
        for a in range(p):
            # Diagonal entry, then row a of the triangle serves rows and columns alike.
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
            # What earlier rows left of the pivot is rounding error in a near-singular sum.
            least = 1e-7 * matrices[i, start] + 1e-6 * diagonal[i, a] + 1e-30
            pivot = np.sqrt(max(upper[start] + diagonal[i, a], least))
            upper[start] = pivot
            # Scale row a, then subtract its outer product from the rows below.
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
        # Forward substitution with U', then back substitution with U.
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
                # What the sender knows from everybody but the receiver.
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
