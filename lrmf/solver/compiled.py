"""Compiled inner loops of the solver: likelihood statistics and batches of small linear systems.

Every likelihood kernel computes the three sums that a Newton step on the free states needs: the
log-loss, its gradient and its Hessian. The logits are S = R D', with free states R (n_rows, p + 1),
whose last column is 1, and fixed loadings D (n_columns, p + 1), whose last column is the intercept.
Derivatives are by the first p columns of R. A dense matrix is read in tiles for either side; a
sparse one is stored by rows and by columns.

Symmetric p x p matrices are stored packed, as the p (p + 1) / 2 entries of the upper triangle.
Results do not depend on the number of threads: each row block is summed by one thread in one order.
"""

import numpy as np
from numba import prange

from ..threads import njit

MISSING = 255
TILE_ROWS = 128
TILE_COLUMNS = 256
TILE_CANDIDATES = 1024  # of near-duplicates, whose sums stay in cache
_FACTORS_PER_LOG = 64  # sigmoid(|s|) >= 1/2: a product of 64 stays far above the float32 minimum
_GATHER = 256  # answers of a sparse row that are processed at once
_PADDING = 16  # rows whose distance is a power of two would compete for the same cache lines

_options = {"error_model": "numpy", "fastmath": {"contract"}}
_sums = _options | {"fastmath": {"contract", "reassoc"}}  # sums in vector lanes, a fixed order


@njit(inline="always", **_options)
def _half_tanh(logit):
    """tanh(logit / 2) to 3e-7 by a rational function, which vectorises, unlike exp."""
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
    """Replace a row of logits by residuals sigmoid(s) - z (0 where missing); accumulate the loss.

    -log p(z | s) = max(0, -t) - log sigmoid(|s|) with t = s if z = 1 else -s. The first term is
    added to `hinge`. The sigmoid of the second is multiplied into `product`, so that one logarithm
    serves many cells.
    """
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    for j in range(logits.shape[0]):
        s = logits[j]
        z = np.float32(answers[j])
        # A missing answer (255) has factor 0 in all that follows.
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
    """Replace a row of logits by the weights sigmoid'(s), in place (0 where missing)."""
    for j in range(logits.shape[0]):
        known = np.float32(answers[j] != MISSING)
        h = _half_tanh(logits[j])
        # sigmoid'(s) = (1 - tanh(s/2)^2) / 4.
        logits[j] = known * np.float32(0.25) * (np.float32(1) - h * h)


@njit(**_sums)
def _flush_loss(product, hinge, lanes_per_log):
    """Return the accumulated loss, sum(hinge) - log prod(product), and reset both."""
    loss = 0.0
    for start in range(0, product.shape[0], lanes_per_log):
        # One logarithm for `lanes_per_log` lanes.
        lanes = np.float32(1)
        for j in range(start, min(product.shape[0], start + lanes_per_log)):
            lanes *= product[j]
            loss += hinge[j]
            product[j] = 1.0
            hinge[j] = 0.0
        loss -= np.log(lanes)
    return loss


@njit(**_options)
def pack_products(loadings):
    """Packed outer products d d' (n, p (p + 1) / 2) of the rows d of `loadings` (n, p)."""
    n, p = loadings.shape
    products = np.empty((n, p * (p + 1) // 2), np.float32)
    for j in range(n):
        position = 0
        for a in range(p):
            for b in range(a, p):
                products[j, position] = loadings[j, a] * loadings[j, b]
                position += 1
    return products


@njit(inline="always", **_options)
def _span(tile, size, n):
    """First row of a tile and the row after its last, of n."""
    first = np.int64(tile) * size
    return first, min(n, first + size)


@njit(parallel=True, **_options)
def dense_gradient(answers, rows, columns, by_column, loss, gradient):
    """Log-loss and gradient sum_j (sigma_j - z_j) d_j of every row, or of every column.

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
    """Packed Hessian sum_j sigma_j (1 - sigma_j) d_j d_j', float32 (n_free, p (p + 1) / 2).

    Parameters are as in `dense_gradient`.
    """
    n_rows, n_columns = answers.shape
    products = pack_products(rows[:, :-1] if by_column else columns[:, :-1])
    n_other = -(-n_rows // TILE_ROWS) if by_column else -(-n_columns // TILE_COLUMNS)
    size = TILE_COLUMNS if by_column else TILE_ROWS
    for tile in prange(-(-hessian.shape[0] // size)):
        total = np.zeros((size, hessian.shape[1]), np.float32)
        for other in range(n_other):
            top, bottom = _span(other if by_column else tile, TILE_ROWS, n_rows)
            left, right = _span(tile if by_column else other, TILE_COLUMNS, n_columns)
            # Logits of a tile, then the weights sigma (1 - sigma) in place.
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
def _gather_logits(gathered, columns, loadings, row, cells):
    """Loadings (p + 1, n_answers) of the items that a row has answers to, and its logits.

    The loop goes component by component: reading the first component of all items brings their
    other components into the cache.
    """
    # Logits sum_a row_a d_a, one component at a time.
    cells[:] = 0
    for a in range(row.shape[0]):
        for k in range(cells.shape[0]):
            gathered[a, k] = loadings[columns[k], a]
            cells[k] += row[a] * gathered[a, k]


@njit(**_sums)
def _add_products(gathered, residual, weighted, gradient, hessian):
    """Add sum r d to the gradient and sum w d d' to the packed Hessian, w = |r| - r^2."""
    position = 0
    for a in range(gradient.shape[0]):
        # Gradient of component a, and w d_a for the Hessian: with r = p - z and a binary z,
        # |r| - r^2 = p (1 - p).
        total = np.float32(0)
        for k in range(residual.shape[0]):
            total += residual[k] * gathered[a, k]
            q = abs(residual[k])
            weighted[k] = (q - q * q) * gathered[a, k]
        gradient[a] += total
        # Row a of the upper triangle, sum w d_a d_b.
        for b in range(a, gradient.shape[0]):
            total = np.float32(0)
            for k in range(residual.shape[0]):
                total += weighted[k] * gathered[b, k]
            hessian[position] += total
            position += 1


@njit(parallel=True, **_options)
def sparse_statistics(pointers, columns, answers, rows, loadings, loss, gradient, hessian):
    """Log-loss by row, gradient and Hessian over compressed rows of 0/1 answers.

    Parameters
    ----------
    pointers, columns, answers : CSR (n_rows, n_columns)
    rows, loadings : float32 (n_rows, p + 1), (n_columns, p + 1)
    loss, gradient, hessian : outputs, float64 (n_rows,), float32 (n_rows, p) and packed
    """
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
            # Logits of these answers, residuals in place, then their share of the sums.
            _gather_logits(gathered, columns[start:stop], loadings, rows[row], cells[:size])
            _residual_row(cells[:size], answers[start:stop], product, hinge)
            row_loss += _flush_loss(product[:size], hinge[:size], _FACTORS_PER_LOG)
            _add_products(gathered, cells[:size], weighted, gradient[row], hessian[row])
        loss[row] = row_loss


@njit(parallel=True, **_options)
def expected_answers(logit, variance, probability, slope, noise):
    """E sigma(s) of s ~ N(logit, variance), its derivative by the logit, and the noise.

    p = E sigma(s) is approximated by sigma(E s / sqrt(1 + pi/8 Var s)) (MacKay, 1992). The variance
    of an answer is p (1 - p). The part that the uncertainty of s does not explain is the noise
    E sigma (1 - sigma) = p (1 - p) - slope^2 Var s.

    Parameters
    ----------
    logit, variance : float32 (n_rows, n_columns)
    probability, slope, noise : outputs of the same shape
    """
    one, half, factor = np.float32(1), np.float32(0.5), np.float32(np.pi / 8)
    for i in prange(logit.shape[0]):
        for j in range(logit.shape[1]):
            logit_variance = max(variance[i, j], np.float32(0))
            # Probit approximation: the more uncertain a logit, the more it is shrunk towards 0.
            shrinkage = one / np.sqrt(one + factor * logit_variance)
            h = _half_tanh(shrinkage * logit[i, j])
            # p and p (1 - p) from tanh(s / 2).
            p = half + half * h
            v = np.float32(0.25) * (one - h * h)
            probability[i, j] = p
            slope[i, j] = shrinkage * v
            noise[i, j] = v - logit_variance * slope[i, j] ** 2


@njit(parallel=True, **_options)
def mix_answers(pointers, candidates, weights, answers, forecast, mixed):
    """Weighted mean of the candidates' answers and the forecast p.

        mixed_ui = sum_v w_uv (z_vi, or p_ui where it is missing) + (1 - sum_v w_uv) p_ui

    Parameters
    ----------
    pointers, candidates, weights : CSR (n_rows, n_candidates)
    answers : uint8 (n_candidates, n_columns)
    forecast, mixed : float32 (n_rows, n_columns)
    """
    for i in prange(mixed.shape[0]):
        for tile in range(-(-mixed.shape[1] // TILE_COLUMNS)):
            left, right = _span(tile, TILE_COLUMNS, mixed.shape[1])
            # Weight of the candidates with a correct answer, and remaining weight of the forecast.
            correct = np.zeros(right - left, np.float32)
            rest = np.ones(right - left, np.float32)
            for k in range(pointers[i], pointers[i + 1]):
                weight, row = np.float32(weights[k]), answers[candidates[k], left:right]
                for j in range(row.shape[0]):
                    correct[j] += weight * np.float32(row[j] == 1)
                    rest[j] -= weight * np.float32(row[j] != MISSING)
            mixed[i, left:right] = correct + rest * forecast[i, left:right]


@njit(parallel=True, **_options)
def weigh_answers(pointers, columns, if_right, if_wrong, answers, total):
    """Log-likelihoods of a row's answers by candidate, summed over the items k of the row.

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
        # The sums of a tile of candidates stay in the cache over all items.
        is_right = np.empty(TILE_CANDIDATES, np.float32)
        is_wrong = np.empty(TILE_CANDIDATES, np.float32)
        for tile in range(-(-answers.shape[1] // TILE_CANDIDATES)):
            left, right = _span(tile, TILE_CANDIDATES, answers.shape[1])
            for k in range(pointers[i], pointers[i + 1]):
                row = answers[columns[k], left:right]
                for v in range(row.shape[0]):
                    is_right[v] = np.float32(row[v] == 1)
                    is_wrong[v] = np.float32(row[v] == 0)
                for e in range(if_right.shape[1]):
                    sums = total[i, e, left:right]
                    for v in range(row.shape[0]):
                        sums[v] += if_right[k, e] * is_right[v] + if_wrong[k, e] * is_wrong[v]


@njit(parallel=True, **_options)
def packed_matvec(matrices, vectors, out):
    """out[i] = matrices[i] @ vectors[i] for packed symmetric matrices."""
    n, p = vectors.shape
    for i in prange(n):
        x, y, matrix = vectors[i], out[i], matrices[i]
        y[:] = 0.0
        start = 0
        for a in range(p):
            # Diagonal entry, then row a of the upper triangle, which is also column a.
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
            # In a near-singular matrix a pivot can be all rounding error: bound it from below.
            minimum = 1e-7 * matrices[i, start] + 1e-6 * diagonal[i, a] + 1e-30
            pivot = np.sqrt(max(upper[start] + diagonal[i, a], minimum))
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
        # Forward substitution: U' y = right.
        for a in range(p):
            x[a] /= upper[start]
            for b in range(1, p - a):
                x[a + b] -= upper[start + b] * x[a]
            start += p - a
        # Back substitution: U x = y.
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
    """Messages of Gaussian belief propagation along `edges` (Weiss and Freeman, 2001).

    The message of an edge e has precision K (P + K)^-1 P and information K (P + K)^-1 h, with
    K = diag(coupling[e]), and (P, h) the sum of the sender's own evidence and all messages to it
    except the receiver's.

    Parameters
    ----------
    edges : int (n,), directed edges whose messages are computed
    source, reverse : int (n_edges,), sender and opposite edge of every edge
    coupling : (n_edges, p)
    total_precision, total_information : (n_nodes, p, p), (n_nodes, p), sums of all messages
    precision, information : (n_edges, p, p), (n_edges, p), the messages before
    new_precision, new_information : outputs (n, p, p), (n, p)
    """
    p = information.shape[1]
    for index in prange(edges.size):
        e = edges[index]
        system = np.empty((p, p))
        gain = np.empty((p, p))
        cavity = np.empty((p, p))
        # P, the total of the sender without the receiver's message, and P + K.
        for a in range(p):
            for b in range(p):
                cavity[a, b] = total_precision[source[e], a, b] - precision[reverse[e], a, b]
                system[a, b] = cavity[a, b]
            system[a, a] += coupling[e, a]
        _invert(system)
        # Gain K (P + K)^-1 and the information of the message, gain h.
        for a in range(p):
            value = 0.0
            for b in range(p):
                gain[a, b] = coupling[e, a] * system[a, b]
                h = total_information[source[e], b] - information[reverse[e], b]
                value += gain[a, b] * h
            new_information[index, a] = value
        # Precision of the message, gain P, made symmetric against rounding.
        for a in range(p):
            system[a] = 0.0
            for b in range(p):
                for c in range(p):
                    system[a, c] += gain[a, b] * cavity[b, c]
        for a in range(p):
            for b in range(p):
                new_precision[index, a, b] = 0.5 * (system[a, b] + system[b, a])
