"""Proportions: a Gaussian likelihood on the arcsine scale, with closed-form posteriors."""

import numpy as np

from ..data.response_kinds import PROPORTIONS, to_arcsine
from .gaussians import Gaussians

_SHRINKAGE = 0.05  # weight of the identity in the correlation of the items
_PAIRS = 50  # models that the mean correlation of all pairs of items counts as
_DEFAULT_TRIALS = 1000  # behind a proportion, where the number is unknown


class ArcsineGaussian:
    """y_u = D t_u + sampling noise, with y = 2 asin sqrt(proportion) standardised by item.

    D D' is the (shrunk) correlation of the items, so that a model's components are independent. A
    model's state is t_u = s_u + e_u: what its lineage explains, and a change
    e_u ~ N(0, v I) of its own, with v the `node_variance`. The sampling variance of y is
    1 / n_trials (Anscombe, 1948).

    Attributes
    ----------
    mean, scale : (n_items,)
        Mean and standard deviation of y.
    loadings : (n_items, p)
        D.
    noise : (n_items,)
        Sampling variance of the standardised y, plus what a rank below n_items leaves out.
    node_variance : float

    `kind`, `grid`, `defaults` and `array_names` are those of `Bernoulli`.
    """

    kind = PROPORTIONS
    grid = {
        "use_features": (True, False),
        "lineage_strength": (1.0, 3.0, 10.0),
        "node_ridge": (0.1, 0.3, 1.0),
        "node_variance": (0.05, 0.15),
        "prior_temperature": (0.5, 0.7, 1.0, 1.5),
    }
    defaults = {
        "rank": 16,
        "lineage_strength": 3.0,
        "node_ridge": 0.3,
        "node_variance": 0.05,
        "use_features": True,
        "prior_temperature": 1.0,
    }
    array_names = ("loadings", "mean", "scale", "noise", "node_variance")

    def __init__(self, loadings, *, mean, scale, noise, node_variance):
        self.loadings = np.asarray(loadings, np.float64)
        self.mean, self.scale = np.asarray(mean), np.asarray(scale)
        self.noise = np.asarray(noise)
        self.node_variance = float(node_variance)

    @classmethod
    def fit(cls, proportions, *, n_trials, rank, node_variance):
        """Estimate the parameters of the items.

        A pair of items with n models in common has the correlation r_ij, that of all pairs is c:

            r'_ij = (n r_ij + 50 c) / (n + 50)

        so that few models cannot make two items copies of each other (the constant correlation of
        Ledoit and Wolf, 2004, as target). The result is shrunk towards the identity; D holds its
        first `rank` principal components, and what these leave out of each item's variance is
        noise.

        Parameters
        ----------
        proportions : (n_models, n_items), NaN where missing
        n_trials : (n_items,) or None
            Questions behind a proportion, 1,000 where unknown.
        rank : int
        node_variance : float

        Returns
        -------
        ArcsineGaussian
        """
        # Mean and standard deviation of every item over the models observed on it.
        y = np.asarray(to_arcsine(proportions), np.float64)
        known = ~np.isnan(y)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, y, 0).sum(axis=0) / count
        mean[~known.any(axis=0)] = mean[known.any(axis=0)].mean()  # an item without data
        deviation = np.where(known, y - mean, 0.0)
        scale = np.sqrt((deviation**2).sum(axis=0) / count)
        scale = np.where(scale > 1e-6, scale, 1.0)
        # Correlations over pairs of items observed together, shrunk towards their mean, the fewer
        # models have both the more.
        deviation /= scale
        is_known = known.astype(np.float64)
        products, n_common = deviation.T @ deviation, is_known.T @ is_known
        is_pair = ~np.eye(len(scale), dtype=bool)
        typical = products[is_pair].sum() / max(n_common[is_pair].sum(), 1.0)
        correlation = (products + _PAIRS * typical) / (n_common + _PAIRS)
        np.fill_diagonal(correlation, 1.0)
        correlation = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(scale))
        # Factor D D' of the correlation: the top `rank` principal components.
        values, vectors = np.linalg.eigh(correlation)
        top = np.argsort(values)[::-1][: min(rank, len(values))]
        loadings = vectors[:, top] * np.sqrt(np.maximum(values[top], 0))
        loadings *= np.where(loadings.sum(axis=0) < 0, -1.0, 1.0)  # a fixed sign
        # Noise: the variance that the components leave out, and the sampling variance 1 / n of
        # the arcsine scale, in standardised units.
        omitted = np.maximum(np.diag(correlation) - (loadings**2).sum(axis=1), 0)
        trials = np.full(len(scale), _DEFAULT_TRIALS) if n_trials is None else n_trials
        noise = 1 / (np.asarray(trials, np.float64) * scale**2) + omitted + 1e-6
        return cls(loadings, mean=mean, scale=scale, noise=noise, node_variance=node_variance)

    @staticmethod
    def regularized(part, n_components):
        """Which components the lineage regularizes: all, as proportions have no separate bias."""
        return np.ones(n_components, bool)

    @property
    def item_factors(self):
        """D (n_items, p)."""
        return self.loadings

    @property
    def item_intercept(self):
        """Mean of y (n_items,)."""
        return self.mean

    @staticmethod
    def split(states):
        """Model factors (n, p) and biases (n,), which are zero."""
        return states, np.zeros(len(states))

    def evidence(self, proportions, states=None, *, node_variance=0.0):
        """Evidence of each row: precision D_o' R^-1 D_o, information D_o' R^-1 y_o.

        R = v D_o D_o' + diag(noise) over the observed items o, with v the `node_variance`: with the
        model's own this is evidence about s_u, with 0 about t_u.

        Returns
        -------
        Gaussians (n)
        """
        y = (to_arcsine(np.asarray(proportions, np.float64)) - self.mean) / self.scale
        known = ~np.isnan(y)
        p = self.loadings.shape[1]
        precision, information = np.zeros((len(y), p, p)), np.zeros((len(y), p))
        # Models with the same missing items share one small system.
        patterns, member = np.unique(known, axis=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            rows = np.flatnonzero(member.ravel() == index)
            loadings = self.loadings[pattern]
            # R = node_variance D D' + diag(noise) over the observed items.
            covariance = node_variance * loadings @ loadings.T + np.diag(self.noise[pattern])
            gain = np.linalg.solve(covariance, loadings)
            precision[rows] = loadings.T @ gain
            information[rows] = y[np.ix_(rows, np.flatnonzero(pattern))] @ gain
        return Gaussians(precision, information)

    def fold_in(self, prior, revealed):
        """Posterior of the states given revealed proportions: prior times evidence.

        Parameters
        ----------
        prior : Gaussians (n)
        revealed : (n, n_items), NaN where not revealed

        Returns
        -------
        Gaussians (n)
        """
        return prior * self.evidence(revealed, node_variance=0.0)

    def forecast(self, mean, covariance, items=slice(None)):
        """Expected proportions of `items` under t ~ N(mean, covariance), slopes and noise.

        E sin^2(y / 2) = (1 - cos(E y) exp(-Var y / 2)) / 2.

        Parameters
        ----------
        mean, covariance : (n, p), (n, p, p)
        items : the columns, all by default

        Returns
        -------
        proportion, slope, noise : (n, n_items)
            The slope is the derivative by d . t; noise is the sampling variance.
        """
        loadings, scale = self.loadings[items], self.scale[items]
        # Mean of y from its standardised value D t, and Var(d . t) = d' C d of every item.
        y = np.clip(self.mean[items] + scale * (mean @ loadings.T), 0, np.pi)
        variance = np.einsum("ip,npq,iq->ni", loadings, covariance, loadings, optimize=True)
        # Uncertainty shrinks the cosine; the delta method gives slope and noise.
        damping = np.exp(-0.5 * variance * scale**2)
        slope = 0.5 * np.sin(y) * scale
        return 0.5 * (1 - np.cos(y) * damping), slope, slope**2 * self.noise[items]
