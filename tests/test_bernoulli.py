"""The likelihood of answers and its alternating Newton solver."""

import numpy as np
import pytest
from draws import (
    draw_answers,
    log_loss,
    log_odds,
    objective,
    objective_gradient,
    random_lineage,
    sigmoid,
)
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from lrmf import Lineage
from lrmf.data.statistics import compress
from lrmf.solver import answers as answers_module
from lrmf.solver.answers import lay_out
from lrmf.solver.bernoulli import Bernoulli
from lrmf.solver.gaussians import Gaussians, unpack
from lrmf.solver.kernels import MISSING, TILE_COLUMNS
from lrmf.solver.newton import AlternatingNewton
from lrmf.solver.prior import LineagePrior

MODELS, ITEMS = 0, 1
DENSE, SPARSE = 0.0, 1.0  # values of DENSE_ABOVE that choose the layout


@pytest.fixture(params=[DENSE, SPARSE], ids=["dense", "sparse"])
def layout(request, monkeypatch):
    monkeypatch.setattr(answers_module, "DENSE_ABOVE", request.param)
    return request.param


def laid_out(answers, *, seed=0):
    return lay_out(answers, np.random.default_rng(seed))


def newton(answers, lineage, *, rank=3, strength=3.0, ridge=1.0, item_ridge=2.0,
           intercept_ridge=0.01, features=None):  # fmt: skip
    p = rank + 1
    prior = LineagePrior(lineage, np.full(p, ridge), np.full(p, strength), features=features)
    return AlternatingNewton(
        laid_out(answers), prior, item_ridge=item_ridge, intercept_ridge=intercept_ridge
    )


def solve(solver, answers, *, seed=0, max_sweeps=400, tolerance=1e-10, **options):
    n_items, n_components = answers.shape[1], solver.prior.diagonal.shape[1]
    items = np.zeros((n_items, n_components))
    rng = np.random.default_rng(seed)
    items[:, :-1] = 0.3 * rng.standard_normal((n_items, n_components - 1))
    items[:, -1] = log_odds(answers)
    states = np.zeros((solver.prior.laplacian.shape[0], n_components))
    return solver.fit(states, items, max_sweeps=max_sweeps, tolerance=tolerance, **options)


def assert_never_rises(history):
    history = np.array(history)
    assert np.isfinite(history).all()
    assert (np.diff(history) <= 1e-6 * np.abs(history[:-1])).all()


class TestAnswers:
    @pytest.mark.parametrize("side", [MODELS, ITEMS])
    @pytest.mark.parametrize("shape", [(9, 5), (300, 2 * TILE_COLUMNS + 9)])
    def test_statistics_come_back_in_the_given_order(self, layout, side, shape):
        rng = np.random.default_rng(1)
        answers = rng.integers(0, 2, shape).astype(np.uint8)
        answers[rng.random(shape) < 0.3] = MISSING
        n_free, n_fixed = shape if side == MODELS else shape[::-1]
        free, loadings = rng.standard_normal((n_free, 3)), rng.standard_normal((n_fixed, 3))
        intercept = rng.standard_normal(n_fixed)
        loss, gradient, hessian = laid_out(answers).statistics(
            side, free, loadings, intercept, exact=True
        )
        cells = answers if side == MODELS else answers.T
        logits = free @ loadings.T + intercept
        known = cells != MISSING
        assert loss.sum() == pytest.approx(log_loss(logits, cells), rel=2e-6)
        residual = np.where(known, sigmoid(logits) - (cells == 1), 0)
        assert gradient == pytest.approx(residual @ loadings, abs=5e-6 * n_fixed)
        weight = np.where(known, sigmoid(logits) * sigmoid(-logits), 0)
        full = np.einsum("ij,ja,jb->iab", weight, loadings, loadings)
        assert unpack(hessian, 3) == pytest.approx(full, abs=5e-6 * n_fixed)

    def test_sampled_hessian_is_unbiased_and_the_rest_exact(self, monkeypatch):
        monkeypatch.setattr(answers_module, "DENSE_ABOVE", DENSE)
        rng = np.random.default_rng(2)
        shape = (20, 9 * TILE_COLUMNS + 100)
        answers = rng.integers(0, 2, shape).astype(np.uint8)
        loadings, intercept = rng.standard_normal((shape[1], 2)), rng.standard_normal(shape[1])
        free = rng.standard_normal((20, 2))
        found = laid_out(answers)
        exact = found.statistics(MODELS, free, loadings, intercept, exact=True)
        sampled = [found.statistics(MODELS, free, loadings, intercept) for _ in range(10)]
        for loss, gradient, hessian in sampled:
            assert np.array_equal(loss, exact[0]) and np.array_equal(gradient, exact[1])
            assert hessian[:, [0, 2]] == pytest.approx(exact[2][:, [0, 2]], rel=0.35)
        mean = np.mean([hessian for _, _, hessian in sampled], axis=0)
        assert np.abs(mean - exact[2]).max() < 0.05 * exact[2].max()


class TestAlternatingNewton:
    @pytest.mark.parametrize("strength", [0.0, 3.0, 1e4])
    def test_objective_is_the_stated_one_and_never_rises(self, layout, strength):
        lineage = random_lineage(12, seed=1, n_unscored=2, n_loops=1)
        answers, _ = draw_answers(lineage, 40, seed=1, density=0.8)
        solver = newton(answers, lineage, strength=strength)
        states, items = solve(solver, answers, tolerance=1e-7)
        stated = objective(
            states, items, answers, lineage.laplacian,
            strength=strength, ridge=1.0, item_ridge=2.0, intercept_ridge=0.01,
        )  # fmt: skip
        assert solver.stats["objective"][-1] == pytest.approx(stated, rel=1e-6)
        assert solver.stats["sweeps"] == len(solver.stats["objective"]) - 1
        for name in ("cg_iterations", "seconds_models", "seconds_items"):
            assert len(solver.stats[name]) == solver.stats["sweeps"]
        assert_never_rises(solver.stats["objective"])

    def test_solution_is_stationary(self, layout):
        """Gradients of the start are of order 10; a float32 sum over 40 cells is good to 1e-5."""
        lineage = random_lineage(12, seed=2, n_unscored=2)
        answers, _ = draw_answers(lineage, 40, seed=2, density=0.9)
        solver = newton(answers, lineage)
        states, items = solve(solver, answers)
        options = {"strength": 3.0, "ridge": 1.0, "item_ridge": 2.0, "intercept_ridge": 0.01}
        for gradient in objective_gradient(states, items, answers, lineage.laplacian, **options):
            assert np.abs(gradient).max() < 0.02
        assert np.linalg.norm(states[:, :-1]) > 1, "factors are in use"

    def test_stated_gradient_equals_finite_differences(self):
        """What the previous test relies on."""
        lineage = random_lineage(12, seed=3, n_unscored=2)
        answers, _ = draw_answers(lineage, 20, seed=3, density=0.9)
        rng = np.random.default_rng(3)
        states, items = rng.standard_normal((lineage.n_nodes, 4)), rng.standard_normal((20, 4))
        options = {"strength": 3.0, "ridge": 1.0, "item_ridge": 2.0, "intercept_ridge": 0.01}
        gradients = objective_gradient(states, items, answers, lineage.laplacian, **options)
        for gradient, moved in zip(gradients, (states, items), strict=True):
            direction = rng.standard_normal(moved.shape)
            ends = []
            for step in (1e-5, -2e-5):
                moved += step * direction
                ends.append(objective(states, items, answers, lineage.laplacian, **options))
            moved += 1e-5 * direction
            assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5)

    @pytest.mark.parametrize("strength", [0.0, 3.0])
    def test_a_generic_optimiser_finds_nothing_lower(self, strength):
        """L-BFGS from our solution and from elsewhere; the latter may end in a worse optimum."""
        lineage = random_lineage(12, seed=4, n_unscored=2)
        answers, _ = draw_answers(lineage, 40, seed=4, item_scale=1.5)
        options = {"strength": strength, "ridge": 1.0, "item_ridge": 1.0, "intercept_ridge": 0.01}
        solver = newton(answers, lineage, strength=strength, item_ridge=1.0)
        ours = [solve(solver, answers, seed=seed) for seed in range(3)]
        size = ours[0][0].size

        def parts(x):
            return x[:size].reshape(-1, 4), x[size:].reshape(-1, 4)

        def value_and_gradient(x):
            arguments = *parts(x), answers, lineage.laplacian
            gradient = objective_gradient(*arguments, **options)
            return objective(*arguments, **options), np.concatenate([g.ravel() for g in gradient])

        best = min(value_and_gradient(np.concatenate([s.ravel(), i.ravel()]))[0] for s, i in ours)
        rng = np.random.default_rng(4)
        starts = [np.concatenate([s.ravel(), i.ravel()]) for s, i in ours]
        starts += [0.5 * rng.standard_normal(starts[0].size) for _ in range(6)]
        limits = {"maxiter": 5000, "maxfun": 20000}
        found = [
            minimize(value_and_gradient, x, jac=True, method="L-BFGS-B", options=limits).fun
            for x in starts
        ]
        assert min(found) >= best * (1 - 1e-4)
        for (states, items), after in zip(ours, found, strict=False):
            before = objective(states, items, answers, lineage.laplacian, **options)
            assert after == pytest.approx(before, rel=1e-5)

    def test_features_lower_the_objective_which_never_rises(self):
        """Weights on features make a common shift of all states cheap; centring must know."""
        lineage = random_lineage(12, seed=5, n_unscored=2)
        answers, _ = draw_answers(lineage, 40, seed=5)
        rng = np.random.default_rng(5)
        features = np.column_stack([np.ones(lineage.n_nodes), rng.normal(2, 1, lineage.n_nodes)])
        plain = newton(answers, lineage)
        helped = newton(answers, lineage, features=3 * features)
        for solver in (plain, helped):
            solve(solver, answers, tolerance=1e-7)
            assert_never_rises(solver.stats["objective"])
        assert helped.stats["objective"][-1] < plain.stats["objective"][-1]

    @pytest.mark.parametrize("intercept_ridge", [1e-9, 1.0, 100.0, 1e9])
    def test_any_ridge_on_the_intercepts(self, intercept_ridge):
        lineage = random_lineage(12, seed=6)
        answers, _ = draw_answers(lineage, 40, seed=6)
        solver = newton(answers, lineage, intercept_ridge=intercept_ridge)
        states, items = solve(solver, answers, tolerance=1e-6)
        assert_never_rises(solver.stats["objective"])
        gradient, _ = objective_gradient(
            states, items, answers, lineage.laplacian,
            strength=3.0, ridge=1.0, item_ridge=2.0, intercept_ridge=intercept_ridge,
        )  # fmt: skip
        assert np.abs(gradient).max() < 0.5

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3), (3, 2000)])
    @pytest.mark.parametrize("rank", [0, 1, 20])
    def test_ends_on_problems_of_any_shape(self, layout, shape, rank):
        """Down to where no step lowers the objective by more than its rounding error."""
        rng = np.random.default_rng(7)
        answers = rng.integers(0, 2, shape).astype(np.uint8)
        lineage = random_lineage(shape[0], seed=7, n_unscored=1)
        solver = newton(answers, lineage, rank=rank)
        states, items = solve(solver, answers, tolerance=1e-9)
        assert np.isfinite(states).all() and np.isfinite(items).all()
        assert_never_rises(solver.stats["objective"])

    @pytest.mark.parametrize("answer", [0, 1])
    def test_all_answers_alike(self, layout, answer):
        lineage = random_lineage(12, seed=8)
        answers = np.full((12, 40), answer, np.uint8)
        solver = newton(answers, lineage)
        states, items = solve(solver, answers, tolerance=1e-8)
        assert (np.sign(items[:, -1]) == 2 * answer - 1).all()
        assert np.abs(items[:, -1]).max() < 20 and np.isfinite(states).all()

    def test_superfluous_factors_vanish(self):
        """Nothing but noise under a strong ridge: all factors go to zero, far below any floor."""
        rng = np.random.default_rng(9)
        answers = rng.integers(0, 2, (12, 40)).astype(np.uint8)
        lineage = random_lineage(12, seed=9)
        solver = newton(answers, lineage, rank=16, item_ridge=1e3)
        states, items = solve(solver, answers, tolerance=1e-12)
        assert np.abs(states[:, :-1]).max() < 1e-3 and np.isfinite(items).all()
        assert_never_rises(solver.stats["objective"])

    def test_rows_with_few_answers_among_full_ones(self, monkeypatch):
        """Few of their answers fall into the sampled tiles of the Hessian, often none."""
        monkeypatch.setattr(answers_module, "DENSE_ABOVE", DENSE)
        lineage = random_lineage(60, seed=10)
        answers, _ = draw_answers(lineage, 6 * TILE_COLUMNS, seed=10)
        rng = np.random.default_rng(10)
        for row in range(20):
            answers[row, rng.permutation(answers.shape[1])[3 + row :]] = MISSING
        solver = newton(answers, lineage, item_ridge=1.0)
        states, _ = solve(solver, answers, tolerance=1e-5)
        assert_never_rises(solver.stats["objective"])
        assert len(solver.stats["objective"]) < 40 and np.abs(states).max() < 20

    def test_fixed_items_stay_and_models_reach_the_optimum(self, layout):
        lineage = random_lineage(12, seed=11)
        answers, _ = draw_answers(lineage, 40, seed=11)
        solver = newton(answers, lineage)
        items = np.random.default_rng(11).standard_normal((40, 4))
        start = np.zeros((lineage.n_nodes, 4))
        states, after = solver.fit(start, items, max_sweeps=100, tolerance=1e-10, free_items=False)
        assert np.array_equal(after, items)
        by_states, _ = objective_gradient(
            states, items, answers, lineage.laplacian,
            strength=3.0, ridge=1.0, item_ridge=2.0, intercept_ridge=0.01,
        )  # fmt: skip
        assert np.abs(by_states).max() < 5e-3

    def test_warns_with_the_remedy(self):
        lineage = random_lineage(12, seed=12)
        answers, _ = draw_answers(lineage, 40, seed=12)
        solver = newton(answers, lineage)
        with pytest.warns(ConvergenceWarning, match="raise max_sweeps or tolerance"):
            solve(solver, answers, max_sweeps=2)


class TestLikelihood:
    def drawn(self, *, n_items=60, p=4, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        loadings = np.column_stack(
            [scale * rng.standard_normal((n_items, p - 1)), np.ones(n_items)]
        )
        return Bernoulli(loadings, rng.standard_normal(n_items))

    def test_evidence_is_the_expansion_of_the_log_likelihood(self, layout):
        likelihood = self.drawn()
        rng = np.random.default_rng(1)
        answers = rng.integers(0, 2, (5, 60)).astype(np.uint8)
        answers[rng.random(answers.shape) < 0.3] = MISSING
        answers[3] = MISSING
        states = rng.standard_normal((5, 4))
        evidence = likelihood.evidence(laid_out(answers), states)
        logits = states @ likelihood.loadings.T + likelihood.intercept
        known = answers != MISSING
        weight = np.where(known, sigmoid(logits) * sigmoid(-logits), 0)
        residual = np.where(known, sigmoid(logits) - (answers == 1), 0)
        hessian = np.einsum("ij,ja,jb->iab", weight, likelihood.loadings, likelihood.loadings)
        expected = np.einsum("iab,ib->ia", hessian, states) - residual @ likelihood.loadings
        assert evidence.precision == pytest.approx(hessian, abs=1e-4)
        assert evidence.information == pytest.approx(expected, abs=1e-4)
        assert not evidence.precision[3].any() and not evidence.information[3].any()

    @pytest.mark.parametrize("n_revealed", [0, 1, 5, 60])
    @pytest.mark.parametrize("precision", [1e-2, 1.0, 100.0])
    def test_fold_in_finds_the_mode_and_its_curvature(self, n_revealed, precision):
        """Far from the prior's mean and under a weak prior, too, where plain Newton cycles."""
        likelihood = self.drawn(scale=3.0, seed=2)
        rng = np.random.default_rng(n_revealed)
        n, p = 12, 4
        mean = 4 * rng.standard_normal((n, p))
        prior = Gaussians(np.tile(precision * np.eye(p), (n, 1, 1)), precision * mean)
        revealed = np.full((n, 60), MISSING, np.uint8)
        for row in revealed:
            row[rng.permutation(60)[:n_revealed]] = rng.integers(0, 2, n_revealed)
        posterior = likelihood.fold_in(prior, revealed)
        loadings = likelihood.loadings.astype(float)
        for row in range(n):
            known = revealed[row] != MISSING

            def value(t, row=row, known=known):
                logits = loadings @ t + likelihood.intercept
                pull = 0.5 * precision * np.sum((t - mean[row]) ** 2)
                return log_loss(logits[known], revealed[row, known]) + pull

            mode = posterior.mean[row]
            best = min(minimize(value, start, method="BFGS").fun for start in (mode, mean[row]))
            assert value(mode) <= best + 1e-5 * (1 + abs(best))
            weight = known * sigmoid(loadings @ mode + likelihood.intercept)
            weight *= sigmoid(-(loadings @ mode + likelihood.intercept))
            curvature = loadings.T * weight @ loadings + precision * np.eye(p)
            assert posterior.precision[row] == pytest.approx(curvature, abs=1e-3)

    def test_forecast_is_close_to_the_integral(self):
        """MacKay's approximation of E sigma(s), s normal, is good to about 0.02."""
        likelihood = self.drawn(n_items=30)
        rng = np.random.default_rng(3)
        factors = rng.standard_normal((6, 4, 4))
        covariance = factors @ factors.transpose(0, 2, 1) / 4
        mean = 2 * rng.standard_normal((6, 4))
        probability, slope, noise = likelihood.forecast(mean, covariance)
        loadings = likelihood.loadings.astype(float)
        centre = mean @ loadings.T + likelihood.intercept
        spread = np.sqrt(np.einsum("ia,nab,ib->ni", loadings, covariance, loadings))
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        chance = sigmoid(centre[..., None] + spread[..., None] * nodes)
        weights = weights / np.sqrt(2 * np.pi)
        assert np.abs(probability - chance @ weights).max() < 0.025
        error = np.abs(noise - (chance * (1 - chance)) @ weights)
        assert error.max() < 0.045
        assert error.mean() < 0.3 * np.mean(probability * (1 - probability) - noise)
        moved = Bernoulli(loadings, likelihood.intercept + 1e-2)
        by_logit = (moved.forecast(mean, covariance)[0] - probability) / 1e-2
        assert slope == pytest.approx(by_logit, abs=2e-3)

    def test_forecast_of_chosen_items(self):
        likelihood = self.drawn()
        mean, covariance = np.ones((2, 4)), np.tile(np.eye(4), (2, 1, 1))
        chosen = np.array([5, 3, 3])
        for full, part in zip(
            likelihood.forecast(mean, covariance),
            likelihood.forecast(mean, covariance, chosen),
            strict=True,
        ):
            assert part == pytest.approx(full[:, chosen], abs=1e-6)

    @pytest.mark.parametrize("n_revealed", [5, 60])
    def test_an_answer_left_out_does_not_forecast_itself(self, n_revealed):
        """As if the state had been inferred without it, but for a small error of the expansion."""
        likelihood = self.drawn()
        rng = np.random.default_rng(n_revealed)
        n, p = 8, 4
        mean = rng.standard_normal((n, p))
        prior = Gaussians(np.tile(np.eye(p), (n, 1, 1)), mean)
        revealed = np.full((n, 60), MISSING, np.uint8)
        for row in revealed:
            row[rng.permutation(60)[:n_revealed]] = rng.integers(0, 2, n_revealed)
        posterior = likelihood.fold_in(prior, revealed)
        cells = compress(revealed)
        left_out = likelihood.left_out(posterior, cells)
        with_own = likelihood.forecast_at(posterior, cells)
        everywhere = likelihood.forecast(posterior.mean, posterior.covariance)[0]
        np.testing.assert_allclose(with_own, everywhere[revealed != MISSING], atol=1e-6)
        exact = []
        for row, item in np.argwhere(revealed != MISSING):
            others = revealed[[row]].copy()
            others[0, item] = MISSING
            states = likelihood.fold_in(prior[[row]], others)
            exact.append(likelihood.forecast(states.mean, states.covariance)[0][0, item])
        error, naive = (np.abs(np.array(exact) - p).mean() for p in (left_out, with_own))
        assert error < 0.02 and error < 0.2 * naive

    @pytest.mark.parametrize("logit", [-1e4, -200.0, 200.0, 1e4])
    def test_forecast_of_extreme_logits(self, logit):
        likelihood = Bernoulli(np.ones((3, 1)), np.full(3, logit))
        probability, slope, noise = likelihood.forecast(np.zeros((1, 1)), np.zeros((1, 1, 1)))
        assert probability == pytest.approx(np.full((1, 3), float(logit > 0)), abs=1e-6)
        assert np.isfinite(slope).all() and (noise >= 0).all()


def test_a_relative_without_answers_follows_a_stranger_does_not():
    lineage = Lineage.from_edges([("a", "b", "finetune")], ["a", "b", "c"])
    answers = np.full((3, 30), MISSING, np.uint8)
    answers[0] = 1
    answers[2] = np.arange(30) % 2
    solver = newton(answers, lineage, rank=1)
    states, _ = solve(solver, answers, tolerance=1e-8)
    lean = states[:, -1] - states[2, -1]
    assert lean[0] > lean[1] > 0.1
    assert states[1] == pytest.approx(3 / (1 + 3) * states[0], abs=1e-3)
