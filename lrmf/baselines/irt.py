"""Baselines from item response theory: one ability a model, alone or smooth over the lineage."""

from numbers import Real

import numpy as np

from ..data.lineage import without_edges
from ..data.response_kinds import ANSWERS, kind_of
from ..solver.answers import lay_out
from ..solver.arcsine import ArcsineGaussian
from ..solver.bernoulli import Bernoulli
from ..solver.gaussians import Gaussians, pack
from ..solver.newton import AlternatingNewton
from ..solver.prior import LineagePrior, solve
from .base import ForecastInBlocks

INTERCEPT_RIDGE, SLOPE_RIDGE = 0.01, 1.0
PINNED = 1e6  # ridge that keeps a component at zero
MAX_SWEEPS, TOLERANCE = 100, 1e-4


class ItemResponse(ForecastInBlocks):
    r"""Rasch and two-parameter logistic (2PL) models of one ability theta_u.

    Answers:     P(z_ui = 1) = sigma(c_i + a_i theta_u), with a_i = 1 for Rasch,
    proportions: y_ui = c_i + a_i theta_u + noise_i on the standardised arcsine scale (one common
                 factor; a_i the same for all columns for Rasch),

    and theta ~ N(0, (I / ability_sd^2 + lineage_strength L)^-1) over the nodes of the lineage, L
    its Laplacian; strength 0 is the independent N(0, ability_sd^2) of textbook IRT. Abilities and
    items are fitted jointly at their posterior mode, with vague Gaussian priors on c and a. Joint
    modes are the fit that scales: packages for marginal likelihood either take hours at 10^7
    answers (py-irt) or know neither missing answers nor related abilities (girth).

    A model without answers gets the harmonic extension of its relatives' abilities, and revealed
    answers update that prior; the forecast integrates over what remains unknown of the ability.

    Parameters
    ----------
    slopes : bool
        True: 2PL, a slope for each item. False: Rasch.
    lineage_strength : float >= 0
    ability_sd : float > 0
    seed : int

    Attributes
    ----------
    ability_ : (n_nodes,)
    slope_, intercept_ : (n_items,)

    References
    ----------
    Rasch (1960); Birnbaum (1968), in Lord and Novick, Statistical theories of mental test scores.
    """

    def __init__(self, slopes=True, lineage_strength=0.0, ability_sd=1.0, seed=0):
        self.slopes = slopes
        self.lineage_strength = lineage_strength
        self.ability_sd = ability_sd
        self.seed = seed

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Fit abilities and items to the observed responses (n_models, n_items)."""
        for name, lowest in (("lineage_strength", 0), ("ability_sd", 1e-3)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not lowest <= value < np.inf:
                raise ValueError(f"{name} must be a number of at least {lowest}, got {value!r}")
        if lineage is None or not self.lineage_strength:
            lineage = without_edges(lineage, responses)
        self.responses_, self.n_nodes_ = responses, lineage.n_nodes
        if kind_of(responses) is ANSWERS:
            own = self._fit_answers(lineage)
        else:
            own = self._fit_proportions(lineage, items)
        self.marginals_ = self.prior_.marginals(own.pad(self.n_nodes_))
        return self

    def _make_prior(self, lineage, *, pinned):
        """Prior of the ability, and of a model bias that is kept at zero if `pinned`."""
        ridge, strength = [self.ability_sd**-2], [self.lineage_strength]
        if pinned:
            ridge, strength = [*ridge, PINNED], [*strength, 0.0]
        self.prior_ = LineagePrior(lineage, ridge, strength)

    def _fit_answers(self, lineage):
        """Joint mode of abilities and items; the evidence of each model's answers."""
        answers = lay_out(self.responses_, np.random.default_rng(self.seed))
        rank = int(self.slopes)
        self._make_prior(lineage, pinned=self.slopes)
        wrong = answers.observed[1] - answers.correct
        start = np.ones((self.responses_.shape[1], rank + 1))  # all slopes 1
        start[:, -1] = np.log((answers.correct + 0.5) / (wrong + 0.5))
        newton = AlternatingNewton(
            answers, self.prior_, item_ridge=SLOPE_RIDGE, intercept_ridge=INTERCEPT_RIDGE
        )
        states, fitted = newton.fit(
            np.zeros((self.n_nodes_, rank + 1)), start, max_sweeps=MAX_SWEEPS, tolerance=TOLERANCE
        )
        self.slope_ = fitted[:, 0] if self.slopes else np.ones(len(fitted))
        self.ability_, self.intercept_ = states[:, 0], fitted[:, -1]
        loadings = np.column_stack([fitted[:, :-1], np.ones(len(fitted))])
        self.likelihood_ = Bernoulli(loadings, self.intercept_)
        return self.likelihood_.evidence(answers, states[: len(self.responses_)])

    def _fit_proportions(self, lineage, items):
        """One common factor from the items' correlation; the evidence of each model."""
        n_trials = None if items is None else items["n_trials"].to_numpy()
        factor = ArcsineGaussian.fit(self.responses_, n_trials=n_trials, rank=1, node_variance=0.0)
        if not self.slopes:
            common = np.full_like(factor.loadings, np.sqrt(np.mean(factor.loadings**2)))
            rest = factor.noise + (factor.loadings**2 - common**2)[:, 0]
            factor.loadings, factor.noise = common, np.maximum(rest, 1e-6)
        self._make_prior(lineage, pinned=False)
        self.likelihood_ = factor
        own = factor.evidence(self.responses_, node_variance=0.0)
        full = own.pad(self.n_nodes_)
        states, _ = solve(self.prior_, pack(full.precision), full.information, rtol=1e-8)
        self.ability_, self.slope_ = states[:, 0], factor.loadings[:, 0]
        self.intercept_ = factor.mean
        return own

    def _forecast_block(self, rows, columns, revealed):
        states = self._states(rows, revealed)
        return self.likelihood_.forecast(states.mean, states.covariance, columns)[0]

    def _states(self, rows, revealed) -> Gaussians:
        """Posterior of the rows' abilities given their own answers, or only the revealed ones."""
        if revealed is None:
            return self.marginals_.leave_one_out[rows] * self.marginals_.evidence[rows]
        return self.likelihood_.fold_in(self.marginals_.leave_one_out[rows], revealed)
