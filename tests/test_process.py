"""Gaussian-process regression against the textbook: dense formulas and fits without the models."""

import numpy as np
import pytest

from lrmf.solver.linear import inverse
from lrmf.solver.process import Process

N = 60
OWN = 1.3  # prior variance of every model, 0.3 of it shared with nobody
OUTPUTS = np.random.default_rng(1).standard_normal((N, 4))


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform(0, 4, (N + 7, 2))


def kernel(a, b):
    return np.exp(-0.5 * np.sum((a[:, None] - b) ** 2, axis=-1)).astype(np.float32)


def process(points, rows=None, *, noise, **options):
    """The process of the first N points, or of some of them."""
    rows = np.arange(N) if rows is None else rows
    known = points[:N][rows]
    return Process(
        lambda a, b: kernel(known[a], known[b]), np.full(len(rows), OWN), noise[rows],
        OUTPUTS[rows], **options,
    )  # fmt: skip


def textbook(points, chosen, others, *, noise):
    """Mean and variance of the chosen models' states given the outputs of the others."""
    mean, variance = np.empty((2, len(chosen), 4))
    noise = np.broadcast_to(noise, (N, 4))
    for k in range(4):
        matrix = kernel(points[others], points[others]).astype(float)
        np.fill_diagonal(matrix, OWN + noise[others, k])
        cross = kernel(points[chosen], points[others]).astype(float)
        mean[:, k] = cross @ np.linalg.solve(matrix, OUTPUTS[others, k])
        explained = np.einsum("mn,nm->m", cross, np.linalg.solve(matrix, cross.T))
        variance[:, k] = OWN - explained
    return mean, variance


def same_noise():
    return np.random.default_rng(2).uniform(0.1, 0.5, (N, 1))


def two_kinds_of_noise():
    """Outputs 0 and 2 are well known, 1 and 3 hardly at all."""
    noise = np.repeat(same_noise(), 4, axis=1)
    noise[:, [1, 3]] += 9
    return noise


def assert_same(found, expected, tolerance=1e-4):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.fixture(params=[same_noise, two_kinds_of_noise], ids=lambda noise: noise.__name__)
def noise(request):
    return request.param()


def test_forecasts_are_those_of_the_textbook(points, noise):
    new, known = np.arange(N, N + 7), np.arange(N)
    found = process(points, noise=noise).forecast(
        kernel(points[new], points[known]), np.full(7, OWN)
    )
    assert_same(found, textbook(points, new, known, noise=noise))


def test_leaving_one_out_is_the_process_without_it(points, noise):
    rows = np.array([3, 17, 58])
    found = process(points, noise=noise).leave_one_out(rows)
    for place, row in enumerate(rows):
        rest = np.delete(np.arange(N), row)
        alone = process(points, rest, noise=noise).forecast(
            kernel(points[[row]], points[rest]), np.array([OWN])
        )
        assert_same([part[[place]] for part in found], alone)


def test_leaving_a_set_out_is_the_process_without_the_set(points, noise):
    rows = np.array([50, 2, 9, 31])
    rest = np.setdiff1d(np.arange(N), rows)
    found = process(points, noise=noise).leave_set_out(rows)
    alone = process(points, rest, noise=noise).forecast(
        kernel(points[rows], points[rest]), np.full(4, OWN)
    )
    assert_same(found, alone)


def test_a_set_of_one_is_a_model_left_out(points, noise):
    whole = process(points, noise=noise)
    assert_same(whole.leave_set_out(np.array([5])), whole.leave_one_out(np.array([5])))


def test_all_models_as_neighbours_are_exact(points, noise):
    exact = process(points, noise=noise)
    near = process(points, noise=noise, exact=0, neighbours=N)
    rows, new = np.array([4, 40, 12]), np.arange(N, N + 7)
    cross = kernel(points[new], points[:N])
    assert_same(near.leave_one_out(rows), exact.leave_one_out(rows))
    assert_same(near.leave_set_out(rows), exact.leave_set_out(rows))
    assert_same(near.forecast(cross, np.full(7, OWN)), exact.forecast(cross, np.full(7, OWN)))


@pytest.mark.parametrize("options", [{}, {"exact": 0, "neighbours": N}], ids=["exact", "near"])
def test_a_forecast_can_do_without_a_model(points, noise, options):
    whole = process(points, noise=noise, **options)
    new, left_out = np.arange(N, N + 3), np.array([7, -1, 31])
    found = whole.forecast(kernel(points[new], points[:N]), np.full(3, OWN), left_out=left_out)
    for row, model in enumerate(left_out):
        others = np.delete(np.arange(N), model) if model >= 0 else np.arange(N)
        expected = textbook(points, new[[row]], others, noise=noise)
        assert_same([part[[row]] for part in found], expected)


def test_fewer_neighbours_are_an_approximation_with_wider_variances(points, noise):
    new = np.arange(N, N + 7)
    cross, own = kernel(points[new], points[:N]), np.full(7, OWN)
    exact = process(points, noise=noise).forecast(cross, own)
    near = process(points, noise=noise, exact=0, neighbours=20).forecast(cross, own)
    assert (near[1] >= exact[1] - 1e-4).all()
    assert np.abs(near[0] - exact[0]).mean() < 0.1 < np.abs(exact[0]).mean()


def test_outputs_of_different_noise_are_factorised_apart(points):
    groups = [set(g.outputs) for g in process(points, noise=two_kinds_of_noise()).groups]
    assert groups == [{0, 2}, {1, 3}]
    assert len(process(points, noise=same_noise()).groups) == 1


def test_what_a_model_says_itself_does_not_move_what_the_others_say_of_it(points, noise):
    whole, other = process(points, noise=noise), process(points, noise=noise)
    changed = other.outputs.copy()
    changed[7] += 5
    again = Process(other.between, other.prior_variance, other.noise, changed)
    rows = np.array([7, 8])
    before, after = whole.leave_one_out(rows)[0], again.leave_one_out(rows)[0]
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)
    near = np.argsort(-kernel(points[[7]], points[:N])[0])[1]
    moved = again.leave_one_out(np.array([near]))[0] - whole.leave_one_out(np.array([near]))[0]
    assert np.abs(moved).max() > 0.05


def test_what_was_saved_gives_the_same_process(points, noise):
    whole = process(points, noise=noise)
    again = process(
        points, noise=noise, solved=[(group.precision, group.solved) for group in whole.groups]
    )
    rows = np.array([1, 2, 3])
    assert_same(again.leave_set_out(rows), whole.leave_set_out(rows), tolerance=0)


@pytest.mark.parametrize("n", [0, 1, 5, 300])
@pytest.mark.parametrize("order", ["C", "F"])
def test_inverse_and_log_determinant_are_those_of_numpy(n, order):
    root = np.random.default_rng(n).standard_normal((n, n + 2))
    matrix = np.asarray(root @ root.T + np.eye(n), order=order)
    before = matrix.copy()
    precision, log_det = inverse(matrix)
    np.testing.assert_allclose(precision, np.linalg.inv(matrix), rtol=1e-8, atol=1e-10)
    assert log_det == pytest.approx(np.linalg.slogdet(matrix)[1])
    np.testing.assert_array_equal(precision, precision.T)
    np.testing.assert_array_equal(matrix, before)


def test_a_singular_matrix_is_inverted_with_the_least_jitter():
    precision, _ = inverse(np.ones((4, 4)))
    np.testing.assert_allclose(
        precision @ (np.ones((4, 4)) + 1e-6 * np.eye(4)), np.eye(4), atol=1e-3
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_has_no_inverse(value):
    matrix = np.eye(3)
    matrix[2, 1] = matrix[1, 2] = value
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        inverse(matrix)
