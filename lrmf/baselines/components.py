"""Principal components of scores with gaps: few numbers that stand for many benchmarks."""

import numpy as np

N_SWEEPS = 30  # of expectation maximisation
SAME = 1e-9  # standard deviation of scores that are all the same
LEAST_NOISE = 0.01  # share of a benchmark's variance that is always its own


class Components:
    r"""Factor analysis of the scores Y (n_models, n_benchmarks), NaN where missing.

    With each benchmark standardised, z_u = m + W t_u + noise of variance psi_b, and t_u ~ N(0, I).
    Expectation maximisation fits m, W and psi to the observed scores alone; m is the mean over all
    models, not only over those that have the benchmark. The axes of t are then
    turned to the principal ones of the forecasts W t, the leading one first.

    Parameters
    ----------
    n_components : int
        At most the number of benchmarks, and of models with scores.

    Attributes
    ----------
    scores_ : (n_models, n_components)
        E[t_u | observed], NaN for models without scores.
    loadings_ : (n_benchmarks, n_components), in units of Y
    """

    def __init__(self, n_components):
        self.n_components = n_components

    def fit(self, y):
        """Fit to the observed scores."""
        seen = np.isfinite(y)
        counts = np.maximum(seen.sum(axis=0), 1)
        means = np.where(seen, y, 0).sum(axis=0) / counts
        z = np.where(seen, y - means, 0)
        scale = np.sqrt((z**2).sum(axis=0) / counts)
        scale[scale < SAME] = 1.0
        z, any_seen, seen = z / scale, seen.any(axis=1), seen.astype(float)
        n = min(self.n_components, y.shape[1], max(1, any_seen.sum()))
        _, s, v = np.linalg.svd(z, full_matrices=False)
        loadings = np.zeros((y.shape[1], n + 1))  # the last column is the intercept
        loadings[:, :n] = (s[:n, None] * v[:n]).T / np.sqrt(len(y))
        noise = np.full(y.shape[1], 0.5)
        for _ in range(N_SWEEPS):
            t, covariance = _expect(z, seen, loadings, noise)
            loadings, noise = _maximise(z, seen, t, covariance)
        t, _ = _expect(z, seen, loadings, noise)
        self.means_ = means + scale * loadings[:, n]
        loadings = scale[:, None] * loadings[:, :n]
        axes = np.linalg.svd(loadings, full_matrices=False)[2].T
        self.loadings_ = loadings @ axes
        self.scores_ = np.where(any_seen[:, None], t @ axes, np.nan)
        return self

    def restore(self, scores) -> np.ndarray:
        """Benchmark scores (n_rows, n_benchmarks) that component scores stand for."""
        return self.means_ + scores @ self.loadings_.T


def _expect(z, seen, loadings, noise):
    """Mean and covariance of each model's t given what is observed of it."""
    loadings, intercept = loadings[:, :-1], loadings[:, -1]
    n, scaled = loadings.shape[1], loadings / noise[:, None]
    pairs = (scaled[:, :, None] * loadings[:, None]).reshape(-1, n * n)
    covariance = np.linalg.inv(np.eye(n) + (seen @ pairs).reshape(-1, n, n))
    return np.einsum("uij,uj->ui", covariance, (seen * (z - intercept)) @ scaled), covariance


def _maximise(z, seen, t, covariance):
    """Loadings, under a prior N(0, 1), and noise of each benchmark; intercepts come last."""
    n = t.shape[1] + 1
    t = np.column_stack([t, np.ones(len(t))])
    second = t[:, :, None] * t[:, None]
    second[:, :-1, :-1] += covariance
    moments = (seen.T @ second.reshape(-1, n * n)).reshape(-1, n, n)
    cross = z.T @ t
    loadings = np.linalg.solve(moments + np.eye(n), cross[..., None])[..., 0]
    left = (z**2).sum(axis=0) - (cross * loadings).sum(axis=1)
    return loadings, np.maximum(left / np.maximum(seen.sum(axis=0), 1), LEAST_NOISE)
