"""Kernels against float64 NumPy; tolerances are those of float32 sums over the cells of a row.

Arguments have the types and layouts that the library gives them: others would be compiled apart.
"""

import numba
import numpy as np
import pytest
from draws import log_loss, sigmoid
from scipy.sparse import csr_array, random_array

from lrmf.data.statistics import compress, count_answers, count_columns, read_only
from lrmf.solver import kernels
from lrmf.solver.gaussians import pack, unpack
from lrmf.solver.kernels import MISSING, TILE_COLUMNS, TILE_ROWS

ROUNDING = 2e-6  # relative to the sum of absolute summands


def problem(n_rows, n_columns, p, *, seed=0, logit=3.0, missing=0.2):
    """Answers, rows [R | 1] and design [D | offset] with logits of about the given size."""
    rng = np.random.default_rng(seed)
    rows = np.ones((n_rows, p + 1), np.float32)
    rows[:, :-1] = rng.standard_normal((n_rows, p))
    design = rng.standard_normal((n_columns, p + 1)).astype(np.float32)
    design *= logit / np.sqrt(p + 1)
    answers = rng.integers(0, 2, (n_rows, n_columns)).astype(np.uint8)
    answers[rng.random(answers.shape) < missing] = MISSING
    return answers, rows, design


def reference(answers, rows, design, columns=slice(None)):
    """Loss, gradient and Hessian over `columns` in float64, each with the sum of absolute terms."""
    rows, design = rows.astype(float), design.astype(float)
    logits = rows @ design.T
    known = answers != MISSING
    residual = np.where(known, sigmoid(logits) - (answers == 1), 0)
    weight = np.where(known, sigmoid(logits) * sigmoid(-logits), 0)[:, columns]
    free = design[:, :-1]
    products = np.einsum("ja,jb->jab", free, free)[columns]
    return {
        "loss": log_loss(logits, answers),
        "gradient": residual @ free,
        "gradient_size": known @ np.abs(free),
        "hessian": np.einsum("ij,jab->iab", weight, products),
        "hessian_size": np.einsum("ij,jab->iab", 1.0 * known[:, columns], np.abs(products)),
    }


def dense(answers, rows, design, sample=None):
    """Run the dense kernels; the Hessian over the sampled columns (all by default)."""
    n_rows, n_columns = answers.shape
    p = rows.shape[1] - 1
    sample = np.arange(n_columns) if sample is None else sample
    answers, chosen = read_only(answers), read_only(answers[:, sample])
    loss = np.empty(-(-n_rows // TILE_ROWS))
    gradient = np.empty((n_rows, p), np.float32)
    hessian = np.empty((n_rows, p * (p + 1) // 2), np.float32)
    kernels.dense_gradient(answers, rows, design, False, loss, gradient)
    kernels.dense_hessian(chosen, rows, design[sample], False, hessian)
    return loss.sum(), gradient, hessian


def dense_by_column(answers, rows, design):
    """The same of a matrix whose columns are the free ones."""
    n_rows, p = answers.shape[0], rows.shape[1] - 1
    transposed = read_only(answers.T)
    loss = np.empty(-(-n_rows // TILE_COLUMNS))
    gradient = np.empty((n_rows, p), np.float32)
    hessian = np.empty((n_rows, p * (p + 1) // 2), np.float32)
    kernels.dense_gradient(transposed, design, rows, True, loss, gradient)
    kernels.dense_hessian(transposed, design, rows, True, hessian)
    return loss.sum(), gradient, hessian


def sparse(answers, rows, design):
    p = rows.shape[1] - 1
    loss = np.empty(len(answers))
    gradient = np.empty((len(answers), p), np.float32)
    hessian = np.empty((len(answers), p * (p + 1) // 2), np.float32)
    known = compress(answers)
    parts = known.indptr, known.indices, known.data
    kernels.sparse_statistics(*parts, rows, design, loss, gradient, hessian)
    return loss.sum(), gradient, hessian


def assert_statistics(found, expected):
    loss, gradient, hessian = found
    assert loss == pytest.approx(expected["loss"], rel=ROUNDING, abs=1e-6)
    gradient_error = np.abs(gradient - expected["gradient"])
    assert (gradient_error <= ROUNDING * expected["gradient_size"] + 1e-7).all()
    hessian_error = np.abs(unpack(hessian, gradient.shape[1]) - expected["hessian"])
    assert (hessian_error <= ROUNDING * expected["hessian_size"] + 1e-7).all()


SHAPES = [
    (1, 1, 1),
    (2, 3, 4),
    (33, 40, 3),
    (TILE_ROWS, TILE_COLUMNS, 2),
    (TILE_ROWS + 1, TILE_COLUMNS - 1, 5),
    (TILE_ROWS - 1, TILE_COLUMNS + 1, 1),
    (40, 3 * TILE_COLUMNS + 7, 9),
    (2 * TILE_ROWS + 31, 70, 17),
]


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_equal_the_reference(kernel, shape):
    arguments = problem(*shape)
    assert_statistics(kernel(*arguments), reference(*arguments))


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
@pytest.mark.parametrize("missing", [0.0, 0.97])
def test_statistics_at_any_density(kernel, missing):
    arguments = problem(70, 600, 4, missing=missing)
    assert_statistics(kernel(*arguments), reference(*arguments))


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
def test_rows_and_columns_without_answers_add_nothing(kernel):
    answers, rows, design = problem(40, 90, 3)
    answers[5], answers[:, 7] = MISSING, MISSING
    loss, gradient, hessian = kernel(answers, rows, design)
    assert_statistics((loss, gradient, hessian), reference(answers, rows, design))
    assert not gradient[5].any() and not hessian[5].any()
    design[7] = 1e3
    again = kernel(answers, rows, design)
    assert again[0] == loss and np.array_equal(again[1], gradient)


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
def test_separable_rows_and_extreme_logits(kernel):
    """All right at logit +30, all wrong at logit +30, and the same at -30."""
    n_columns = 2 * TILE_COLUMNS + 3
    design = np.column_stack([np.ones(n_columns), np.zeros(n_columns)]).astype(np.float32)
    rows = np.ones((4, 2), np.float32)
    rows[:, 0] = [30, 30, -30, -30]
    answers = np.repeat(np.array([[1], [0], [0], [1]], np.uint8), n_columns, axis=1)
    loss, gradient, hessian = kernel(answers, rows, design)
    assert loss == pytest.approx(2 * 30 * n_columns, rel=1e-6)
    assert gradient[:, 0] == pytest.approx(n_columns * np.array([0, 1, 0, -1]), abs=1e-3)
    assert hessian[:, 0] == pytest.approx(np.zeros(4), abs=1e-3)
    assert (np.abs(hessian) < 1e-3).all()


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
def test_logits_of_all_sizes(kernel):
    arguments = problem(60, 700, 3, logit=30.0)
    assert_statistics(kernel(*arguments), reference(*arguments))


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
def test_gradient_equals_finite_differences_of_the_loss(kernel):
    answers, rows, design = problem(3, 80, 4)
    _, gradient, _ = kernel(answers, rows, design)
    step = 1e-4
    for row, free in np.ndindex(gradient.shape):
        losses = []
        for sign in (-1, 1):
            moved = rows.astype(float)
            moved[row, free] += sign * step
            losses.append(log_loss(moved @ design.T.astype(float), answers))
        slope = (losses[1] - losses[0]) / (2 * step)
        assert gradient[row, free] == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("n_sampled", [1, TILE_COLUMNS, TILE_COLUMNS + 37])
def test_hessian_over_sampled_columns_only(n_sampled):
    answers, rows, design = problem(TILE_ROWS + 30, 4 * TILE_COLUMNS + 100, 3)
    sample = np.sort(np.random.default_rng(1).permutation(answers.shape[1])[:n_sampled])
    expected = reference(answers, rows, design, sample)
    assert_statistics(dense(answers, rows, design, sample), expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (130, 2 * TILE_COLUMNS + 1)])
def test_counts_of_rows_and_columns(shape):
    answers, _, _ = problem(*shape, 1)
    for count, axis in ((count_answers, 1), (count_columns, 0)):
        correct, observed = count(answers)
        assert np.array_equal(correct, (answers == 1).sum(axis=axis))
        assert np.array_equal(observed, (answers != MISSING).sum(axis=axis))


def test_a_row_with_a_value_that_is_no_answer_is_told():
    answers, _, _ = problem(4, 30, 1)
    answers[-1, -1] = 7
    _, observed = count_answers(answers)
    assert observed[-1] == -1 and (observed[:-1] >= 0).all()


@pytest.mark.parametrize("kernel", [dense, dense_by_column, sparse])
def test_same_bytes_for_any_number_of_threads(kernel):
    arguments = problem(3 * TILE_ROWS, 900, 5)
    before = numba.get_num_threads()
    found = []
    try:
        for n_threads in (1, numba.config.NUMBA_NUM_THREADS, 1):
            numba.set_num_threads(n_threads)
            found.append(kernel(*arguments))
    finally:
        numba.set_num_threads(before)
    for other in found[1:]:
        for left, right in zip(found[0], other, strict=True):
            assert np.array_equal(left, right)


def spd_batch(n, p, dtype, *, seed=0):
    """Symmetric positive semi-definite matrices (n, p, p) and diagonals that make them definite."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, p, max(1, p - 1)))
    matrices = factors @ factors.transpose(0, 2, 1)
    return matrices.astype(dtype), rng.uniform(0.5, 2.0, (n, p))


BATCH = [(7, 1, np.float64), (50, 9, np.float64), (50, 9, np.float32), (3, 65, np.float32)]


@pytest.mark.parametrize(("n", "p", "dtype"), BATCH)
def test_pack_and_unpack_are_inverse(n, p, dtype):
    matrices, _ = spd_batch(n, p, dtype)
    packed = pack(matrices)
    assert packed.shape == (n, p * (p + 1) // 2) and packed.dtype == dtype
    assert np.array_equal(unpack(packed, p), matrices)
    rows = np.random.default_rng(1).standard_normal((n, p)).astype(np.float32)
    outer = rows[:, :, None] * rows[:, None, :]
    assert np.array_equal(unpack(kernels.pack_products(rows), p), outer)


@pytest.mark.parametrize(("n", "p", "dtype"), BATCH)
def test_matvec_equals_numpy(n, p, dtype):
    matrices, _ = spd_batch(n, p, dtype)
    vectors = np.random.default_rng(2).standard_normal((n, p))
    out = np.empty_like(vectors)
    kernels.packed_matvec(pack(matrices), vectors, out)
    assert out == pytest.approx(np.einsum("nij,nj->ni", matrices, vectors), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("n", "p", "dtype"), BATCH)
def test_cholesky_equals_numpy(n, p, dtype):
    matrices, diagonal = spd_batch(n, p, dtype)
    factors = np.empty_like(pack(matrices))
    kernels.cholesky(pack(matrices), diagonal, factors)
    full = matrices.astype(float) + np.einsum("ni,ij->nij", diagonal, np.eye(p))
    upper = np.triu(unpack(factors, p))
    expected = np.linalg.cholesky(full).transpose(0, 2, 1)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    assert upper == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("n", "p", "dtype"), BATCH)
def test_cholesky_solve_equals_numpy(n, p, dtype):
    matrices, diagonal = spd_batch(n, p, dtype)
    factors = np.empty_like(pack(matrices))
    kernels.cholesky(pack(matrices), diagonal, factors)
    right = np.random.default_rng(3).standard_normal((n, p))
    solution = np.empty_like(right)
    kernels.cholesky_solve(factors, right, solution)
    full = matrices.astype(float) + np.einsum("ni,ij->nij", diagonal, np.eye(p))
    expected = np.linalg.solve(full, right[..., None])[..., 0]
    assert solution == pytest.approx(expected, abs=1e-9 if dtype == np.float64 else 1e-3)


def test_cholesky_of_a_singular_sum_stays_finite():
    """A float32 sum of outer products in few directions, with next to nothing on the diagonal."""
    row = np.random.default_rng(4).standard_normal((1, 6)).astype(np.float32)
    matrices = (1e4 * row[:, :, None] * row[:, None, :]).astype(np.float32)
    factors = np.empty_like(pack(matrices))
    kernels.cholesky(pack(matrices), np.full((1, 6), 1e-6), factors)
    solution = np.empty((1, 6))
    kernels.cholesky_solve(factors, np.ones((1, 6)), solution)
    assert np.isfinite(factors).all() and np.isfinite(solution).all()


@pytest.mark.parametrize("silent", [False, True])
def test_message_is_the_marginal_of_the_sender_across_the_edge(silent):
    """K (P + K)^-1 P and K (P + K)^-1 h, P and h without what the receiver told the sender."""
    rng = np.random.default_rng(5)
    p = 4
    total, told = (definite(rng, p) for _ in range(2))
    total = total + told
    coupling = np.zeros((2, p)) if silent else rng.uniform(0.1, 5, (2, p))
    precision = np.stack([np.zeros((p, p)), told])
    information = rng.standard_normal((2, p))
    heard = rng.standard_normal((2, p))
    new_precision, new_information = np.empty((1, p, p)), np.empty((1, p))
    kernels.send_messages(
        np.array([0]), np.array([0, 1]), np.array([1, 0]), coupling,
        np.stack([total, total]), heard, precision, information,
        new_precision, new_information,
    )  # fmt: skip
    gain = np.diag(coupling[0]) @ np.linalg.inv(total - told + np.diag(coupling[0]))
    assert new_precision[0] == pytest.approx(gain @ (total - told), abs=1e-9)
    assert new_information[0] == pytest.approx(gain @ (heard[0] - information[1]), abs=1e-9)


def definite(rng, p):
    factors = rng.standard_normal((p, p))
    return factors @ factors.T + np.eye(p)


def test_mixed_answers_are_weighted_means_with_the_forecast_for_the_rest():
    rng = np.random.default_rng(0)
    answers = rng.choice(np.array([0, 1, MISSING], np.uint8), (7, 300))
    weights = random_array((5, 7), density=0.6, format="csr", dtype=np.float32, rng=rng)
    weights = csr_array(weights / 7).astype(np.float32)
    forecast = rng.random((5, 300), dtype=np.float32)
    mixed = np.empty_like(forecast)
    parts = weights.indptr, weights.indices.astype(np.int64), weights.data
    kernels.mix_answers(*parts, answers, forecast, mixed)
    dense, known = weights.toarray(), answers != MISSING
    expected = dense @ (answers == 1) + (1 - dense @ known) * forecast
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_answers_weigh_candidates_by_what_these_answered():
    rng = np.random.default_rng(1)
    answers = rng.choice(np.array([0, 1, MISSING], np.uint8), (9, 13))  # items x candidates
    asked = csr_array(random_array((4, 9), density=0.5, format="csr", rng=rng))
    right, wrong = rng.normal(size=(2, asked.nnz, 3)).astype(np.float32)
    total = np.full((4, 3, 13), np.nan, np.float32)
    cells = asked.indptr.astype(np.int64), asked.indices.astype(np.int64)
    kernels.weigh_answers(*cells, right, wrong, answers, total)
    expected = np.zeros(total.shape)
    for cell, (row, item) in enumerate(zip(*asked.tocoo().coords, strict=True)):
        expected[row] += np.outer(right[cell], answers[item] == 1)
        expected[row] += np.outer(wrong[cell], answers[item] == 0)
    np.testing.assert_allclose(total, expected, atol=1e-5)


def test_expected_answers_are_those_of_the_formula():
    rng = np.random.default_rng(4)
    logit = (6 * rng.normal(size=(7, 50))).astype(np.float32)
    variance = (4 * rng.random((7, 50)) - 0.5).astype(np.float32)  # rounding can make it negative
    probability, slope, noise = (np.empty_like(logit) for _ in range(3))
    kernels.expected_answers(logit, variance, probability, slope, noise)
    spread = np.maximum(variance, 0).astype(float)
    shrink = 1 / np.sqrt(1 + np.pi / 8 * spread)
    expected = sigmoid(shrink * logit)
    by_logit = shrink * expected * (1 - expected)
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    np.testing.assert_allclose(slope, by_logit, atol=1e-6)
    np.testing.assert_allclose(noise, expected * (1 - expected) - by_logit**2 * spread, atol=1e-6)
