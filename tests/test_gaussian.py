"""The likelihood of proportions against dense Gaussian algebra."""

import numpy as np
import pytest
from draws import draw_proportions, random_lineage

from lrmf import LRMF
from lrmf.solver.arcsine import ArcsineGaussian
from lrmf.solver.gaussians import Gaussians

RIDGE, STRENGTH, NODE_VARIANCE = 0.7, 3.0, 0.1


def proportions(n_models=30, n_items=5, *, seed=0, missing=0.2):
    lineage = random_lineage(n_models, seed=seed, n_unscored=2)
    drawn = draw_proportions(
        lineage, n_items, seed=seed, ridge=1.0, strength=3.0, node_variance=0.05, n_trials=100,
        missing=missing,
    )  # fmt: skip
    return lineage, drawn


def arcsine(values):
    return 2 * np.arcsin(np.sqrt(values.astype(float)))


def shrunk_correlation(z):
    """(n r + 50 c) / (n + 50) for every pair, c the correlation of all pairs; 5% of identity."""
    known = ~np.isnan(z)
    z = np.where(known, z, 0)
    result = np.eye(z.shape[1])
    pairs = [(i, j) for i, j in np.ndindex(result.shape) if i != j]
    n = {(i, j): (known[:, i] & known[:, j]).sum() for i, j in pairs}
    common = sum((z[:, i] * z[:, j]).sum() for i, j in pairs) / sum(n.values())
    for i, j in pairs:
        result[i, j] = 0.95 * ((z[:, i] * z[:, j]).sum() + 50 * common) / (n[i, j] + 50)
    return result


class TestMoments:
    def test_without_missing_cells_they_are_those_of_numpy(self):
        _, drawn = proportions(missing=0)
        fitted = ArcsineGaussian.fit(drawn, n_trials=np.full(5, 50), rank=5, node_variance=0.0)
        y = arcsine(drawn)
        assert fitted.mean == pytest.approx(y.mean(axis=0), abs=1e-6)
        assert fitted.scale == pytest.approx(y.std(axis=0), abs=1e-6)
        correlation = fitted.loadings @ fitted.loadings.T
        expected = shrunk_correlation((y - fitted.mean) / fitted.scale)
        assert correlation == pytest.approx(expected, abs=1e-6)
        assert fitted.noise == pytest.approx(1 / (50 * fitted.scale**2), abs=1e-5)

    def test_missing_cells_are_left_out(self):
        _, drawn = proportions(200, missing=0.3)
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.0)
        y = arcsine(drawn)
        assert fitted.mean == pytest.approx(np.nanmean(y, axis=0), abs=1e-6)
        assert fitted.scale == pytest.approx(np.nanstd(y, axis=0), abs=1e-6)
        correlation = fitted.loadings @ fitted.loadings.T
        assert np.diag(correlation) == pytest.approx(np.ones(5), abs=1e-6)
        expected = shrunk_correlation((y - fitted.mean) / fitted.scale)
        assert correlation == pytest.approx(expected, abs=1e-6)

    def test_few_models_make_no_two_columns_copies(self):
        """With a tenth of the cells any two of 60 columns have about three models in common."""
        rng = np.random.default_rng(3)
        y = 1.5 + 0.3 * rng.standard_normal((300, 1)) + 0.2 * rng.standard_normal((300, 60))
        drawn = np.where(rng.random(y.shape) < 0.1, np.sin(y / 2) ** 2, np.nan)
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=16, node_variance=0.0)
        whole = ArcsineGaussian.fit(np.sin(y / 2) ** 2, n_trials=None, rank=16, node_variance=0.0)
        few, all_of_them = (one.loadings @ one.loadings.T for one in (fitted, whole))
        pairs = ~np.eye(60, dtype=bool)
        assert np.abs(few - all_of_them)[pairs].mean() < 0.15

    @pytest.mark.parametrize("rank", [1, 3])
    def test_what_a_lower_rank_leaves_out_is_noise(self, rank):
        _, drawn = proportions(missing=0)
        full = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.0)
        part = ArcsineGaussian.fit(drawn, n_trials=None, rank=rank, node_variance=0.0)
        assert part.loadings.shape == (5, rank)
        left_out = (full.loadings**2).sum(axis=1) - (part.loadings**2).sum(axis=1)
        assert part.noise == pytest.approx(full.noise + left_out, abs=1e-9)
        assert (left_out > 0).all()

    @pytest.mark.parametrize("constant", [0.0, 0.4, 1.0])
    def test_constant_columns_stay_finite_and_are_forecast(self, constant):
        _, drawn = proportions()
        drawn[:, 2] = constant
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.05)
        for name in ("loadings", "mean", "scale", "noise"):
            assert np.isfinite(getattr(fitted, name)).all()
        expected, _, _ = fitted.forecast(np.zeros((1, 5)), np.zeros((1, 5, 5)))
        assert expected[0, 2] == pytest.approx(constant, abs=1e-5)

    def test_a_column_nobody_has_met_is_like_the_average_column(self):
        _, drawn = proportions()
        drawn[:, 1] = np.nan
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.05)
        others = np.delete(fitted.mean, 1)
        assert fitted.mean[1] == pytest.approx(others.mean())
        z = (arcsine(drawn) - fitted.mean) / fitted.scale
        correlation = fitted.loadings @ fitted.loadings.T
        assert correlation[1] == pytest.approx(shrunk_correlation(z)[1], abs=1e-6)
        assert np.ptp(np.delete(correlation[1], 1)) < 1e-9

    def test_one_model(self):
        fitted = ArcsineGaussian.fit(
            np.array([[0.2, np.nan]]), n_trials=None, rank=2, node_variance=0.05
        )
        assert np.isfinite(fitted.loadings).all() and (fitted.scale == 1).all()


class TestEvidence:
    @pytest.mark.parametrize("node_variance", [0.0, 0.3])
    @pytest.mark.parametrize("rank", [2, 5])
    def test_equals_the_likelihood_of_the_observed_cells(self, node_variance, rank):
        """D_o' R^-1 D_o and D_o' R^-1 y_o with R = node_variance D_o D_o' + noise, row by row."""
        _, drawn = proportions()
        drawn[3] = np.nan
        fitted = ArcsineGaussian.fit(
            drawn, n_trials=np.full(5, 100), rank=rank, node_variance=node_variance
        )
        evidence = fitted.evidence(drawn, node_variance=node_variance)
        for row, values in enumerate(drawn):
            known = ~np.isnan(values)
            loadings = fitted.loadings[known]
            spread = node_variance * loadings @ loadings.T + np.diag(fitted.noise[known])
            y = (arcsine(values[known]) - fitted.mean[known]) / fitted.scale[known]
            inverse = np.linalg.inv(spread)
            assert evidence.precision[row] == pytest.approx(loadings.T @ inverse @ loadings)
            assert evidence.information[row] == pytest.approx(loadings.T @ inverse @ y)
        assert not evidence.precision[3].any() and not evidence.information[3].any()

    def test_fold_in_multiplies_the_prior_by_the_evidence(self):
        _, drawn = proportions()
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.3)
        prior = Gaussians(np.tile(2 * np.eye(5), (30, 1, 1)), np.ones((30, 5)))
        posterior = fitted.fold_in(prior, drawn)
        evidence = fitted.evidence(drawn, node_variance=0.0)
        assert posterior.precision == pytest.approx(prior.precision + evidence.precision)
        assert posterior.information == pytest.approx(1 + evidence.information)


class TestForecast:
    def test_equals_the_integral(self):
        """E sin^2(y / 2) under the normal state, by quadrature."""
        _, drawn = proportions()
        fitted = ArcsineGaussian.fit(drawn, n_trials=np.full(5, 100), rank=5, node_variance=0.0)
        rng = np.random.default_rng(1)
        factors = rng.standard_normal((6, 5, 5))
        covariance = factors @ factors.transpose(0, 2, 1) / 10
        mean = 0.5 * rng.standard_normal((6, 5))
        expected, slope, noise = fitted.forecast(mean, covariance)
        y = fitted.mean + fitted.scale * (mean @ fitted.loadings.T)
        assert y.min() > 0 and y.max() < np.pi
        variance = np.einsum("ia,nab,ib->ni", fitted.loadings, covariance, fitted.loadings)
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        spread = (np.sqrt(variance) * fitted.scale)[..., None] * nodes
        exact = np.sin((y[..., None] + spread) / 2) ** 2 @ weights / np.sqrt(2 * np.pi)
        assert expected == pytest.approx(exact, abs=1e-9)
        point, _, _ = fitted.forecast(mean, 0 * covariance)
        variance_of_a_share = point * (1 - point) / 100
        assert noise == pytest.approx(variance_of_a_share, rel=0.02, abs=1e-6)
        assert slope**2 == pytest.approx(point * (1 - point) * fitted.scale**2)

    def test_stays_a_proportion_far_out(self):
        _, drawn = proportions()
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=5, node_variance=0.0)
        for sign in (-100, 100):
            expected, slope, noise = fitted.forecast(
                sign * np.ones((1, 5)), np.tile(0.1 * np.eye(5), (1, 1, 1))
            )
            assert ((expected >= 0) & (expected <= 1)).all()
            assert np.isfinite(slope).all() and (noise >= 0).all()

    def test_of_chosen_items(self):
        _, drawn = proportions()
        fitted = ArcsineGaussian.fit(drawn, n_trials=None, rank=3, node_variance=0.0)
        mean, covariance = np.ones((2, 3)), np.tile(np.eye(3), (2, 1, 1))
        chosen = np.array([4, 0, 0])
        parts = fitted.forecast(mean, covariance, chosen)
        for full, part in zip(fitted.forecast(mean, covariance), parts, strict=True):
            assert part == pytest.approx(full[:, chosen])


def gaussian_process(model, lineage, drawn, *, leave_out=None):
    """Posterior of the states under the kernel ((ridge I + strength L)^-1 + v I) x D D'.

    Means (n_nodes, p) and covariances (n_nodes, p, p), by one dense solve over all observed cells.
    """
    likelihood, n, p = model.likelihood_, lineage.n_nodes, model.likelihood_.loadings.shape[1]
    field = RIDGE * np.eye(n) + STRENGTH * lineage.laplacian.toarray()
    kernel = np.kron(np.linalg.inv(field) + NODE_VARIANCE * np.eye(n), np.eye(p))
    y = (arcsine(drawn) - likelihood.mean) / likelihood.scale
    if leave_out is not None:
        y[leave_out] = np.nan
    cells = np.argwhere(~np.isnan(y))
    read = np.zeros((len(cells), n, p))
    read[np.arange(len(cells)), cells[:, 0]] = likelihood.loadings[cells[:, 1]]
    read = read.reshape(len(cells), n * p)
    spread = read @ kernel @ read.T + np.diag(likelihood.noise[cells[:, 1]])
    gain = kernel @ read.T @ np.linalg.inv(spread)
    covariance = (kernel - gain @ read @ kernel).reshape(n, p, n, p)
    node = np.arange(n)
    return (gain @ y[tuple(cells.T)]).reshape(n, p), covariance[node, :, node, :]


@pytest.fixture(scope="module")
def fitted():
    """A model, its lineage (a forest) and responses; rows 5 and 11 have none."""
    lineage, drawn = proportions(16, 4, missing=0.3)
    drawn[5], drawn[11] = np.nan, np.nan
    model = LRMF(rank=4, lineage_strength=STRENGTH, node_ridge=RIDGE, node_variance=NODE_VARIANCE)
    return model.fit(drawn, lineage), lineage, drawn


class TestWholeModel:
    def test_forecasts_are_those_of_gaussian_process_regression(self, fitted):
        model, lineage, drawn = fitted
        mean, covariance = gaussian_process(model, lineage, drawn)
        rows = slice(lineage.n_models)
        expected, _, _ = model.likelihood_.forecast(mean[rows], covariance[rows])
        assert model.predict_proba() == pytest.approx(expected, abs=1e-5)

    def test_scores_of_rows_without_responses_too(self, fitted):
        """Interval bounds on the arcsine scale: mean -+ 1.645 deviations, before scaling."""
        model, lineage, drawn = fitted
        mean, covariance = gaussian_process(model, lineage, drawn)
        expected, slope, noise = model.likelihood_.forecast(mean[[5]], covariance[[5]])
        target = np.eye(4, dtype=bool)[[2]]
        scores = model.predict([5], target=target).scores
        assert scores["score"][0] == pytest.approx(expected[0, 2], abs=1e-6)
        gradient = slope[0, 2] * model.likelihood_.loadings[2]
        deviation = np.sqrt(gradient @ covariance[5] @ gradient + noise[0, 2])
        deviation /= np.sqrt(expected[0, 2] * (1 - expected[0, 2]))
        half = 1.6449 * deviation  # of a sample too small for the scale to differ from 1
        bounds = arcsine(scores[["lower", "upper"]].to_numpy()[0])
        assert bounds == pytest.approx(arcsine(expected[0, 2]) + half * np.array([-1, 1]), abs=1e-4)

    def test_revealed_proportions_are_conditioned_on(self, fitted):
        """The row's own responses are replaced by what is revealed, the rest stays."""
        model, lineage, drawn = fitted
        revealed = np.full((2, 4), np.nan, np.float32)
        revealed[:, 1] = [0.9, 0.1]
        for place, row in enumerate([5, 0]):
            changed = drawn.copy()
            changed[row] = revealed[place]
            mean, covariance = gaussian_process(model, lineage, changed)
            expected, _, _ = model.likelihood_.forecast(mean[[row]], covariance[[row]])
            found = model.predict_proba([row], revealed=revealed[[place]])
            assert found == pytest.approx(expected, abs=1e-5)

    def test_leave_one_out_needs_no_refit(self, fitted):
        """With nothing revealed a scored model is forecast as if it had never been scored."""
        model, lineage, drawn = fitted
        nothing = np.full((1, 4), np.nan, np.float32)
        for row in (0, 3, 8):
            mean, covariance = gaussian_process(model, lineage, drawn, leave_out=row)
            expected, _, _ = model.likelihood_.forecast(mean[[row]], covariance[[row]])
            assert model.predict_proba([row], revealed=nothing) == pytest.approx(expected, abs=1e-5)

    def test_states_are_the_posterior_means(self, fitted):
        """`model_factors_` are what lineage explains: without the models' own changes."""
        model, lineage, drawn = fitted
        unscored = slice(lineage.n_models, None)
        mean, _ = gaussian_process(model, lineage, drawn)
        assert model.model_factors_[unscored] == pytest.approx(mean[unscored], abs=1e-6)
        assert not model.model_bias_.any()
