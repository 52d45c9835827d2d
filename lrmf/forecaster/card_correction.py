"""Model cards: what size, type, date and name say where the lineage forecast errs."""

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor

from ..data.features import card_codes
from ..data.names import similar_names
from ..data.responses import observed_counts
from ..data.schema import RELATIONS
from ..solver.gaussians import Gaussians

_LEAST = 40  # models that a correction is learned from
_LEARNERS = 4000  # the same, at most
_TREES = 60  # of each forest

_NARROWEST, _WIDEST = 0.05, 20.0  # range of a model's own factor on the variance


class CardCorrection:
    r"""Shift and width of lineage forecasts of model states, learned from their errors.

    With N(mean_u, Sigma_u) the forecast of a training model's state t_u without its own responses
    and G^1/2 the root of the items' Gram matrix D'D / n_items, which measures states by what they
    do to responses,

        r_u = G^1/2 (t_u - mean_u)  ~  f(x_u) + s_u^1/2 Sigma_u^1/2 C^1/2 N(0, I)

    f is a forest of extremely randomized trees (Geurts et al., 2006) over x_u: the card, the
    forecast, its variance, number of relatives, the states of `similar_names`. Another forest, that
    sees by which relations parents are linked, too, gives the factor s_u: it tells near-copies from
    models that may be anything. C is the covariance that is left. s and C are fitted to what
    out-of-bag forecasts of f leave, and f is shrunk by the weight that these call for (least
    squares), 0 if cards do not help.

    Attributes
    ----------
    root : (p, p), G^1/2
    weight : float in [0, 1], of the shift
    corrected : Gaussians (n), out-of-bag forecasts of the training models
    """

    def __init__(self, gram, *, use_cards=True, seed=0):
        values, vectors = np.linalg.eigh(gram)
        values = np.maximum(values, 1e-6 * values.max())
        self.root = (vectors * np.sqrt(values)) @ vectors.T
        self._inverse = (vectors / np.sqrt(values)) @ vectors.T
        self.use_cards, self.seed = use_cards, seed

    def fit(self, forecast: Gaussians, posterior: Gaussians, cards, relations):
        """Learn from training models.

        What a model's responses leave open of its state counts as error, too: where responses are
        few, the mean of the posterior hardly moves off the forecast, however wrong that is.

        Parameters
        ----------
        forecast : Gaussians (n), of states without own responses
        posterior : Gaussians (n), of the same models with their responses
        cards : (n, n_columns)
        relations : (n, n_relations), numbers of parents
        """
        # Errors of the forecasts in units of what they do to responses.
        error = (posterior.mean - forecast.mean) @ self.root
        inputs = self._inputs(forecast, cards)
        shift, self.weight = np.zeros_like(error), 0.0
        if self.use_cards:
            target = error if error.shape[1] > 1 else error.ravel()
            self._shift = self._forest().fit(inputs, target)
            shift = self._shift.oob_prediction_.reshape(error.shape)
            self.weight = _slope(shift, error)
        # Whiten what the shift leaves, and count the posterior variance as error.
        inverse = np.linalg.inv(self._cholesky(forecast))
        whitened = np.einsum("nij,nj->ni", inverse, error - self.weight * shift)
        spread = inverse @ (self.root @ posterior.covariance @ self.root)
        moment = whitened[:, :, None] * whitened[:, None, :] + spread @ inverse.swapaxes(1, 2)
        # A second forest explains how large the errors are.
        size = np.log(np.trace(moment, axis1=1, axis2=2) / moment.shape[1] + 1e-3)
        self._size = self._forest(min_samples_leaf=10).fit(np.hstack([inputs, relations]), size)
        factor = self._factor(self._size.oob_prediction_)
        self._covariance = np.mean(moment / factor[:, None, None], axis=0)
        self.corrected = self._corrected(forecast, shift, factor)
        return self

    def correct(self, forecast: Gaussians, cards, relations) -> Gaussians:
        """Forecasts of other models with the shift and the width that their cards call for."""
        if not len(cards):
            return forecast
        inputs = self._inputs(forecast, cards)
        shift = np.zeros_like(forecast.mean)
        if self.use_cards:
            shift = self._shift.predict(inputs).reshape(shift.shape)
        size = self._size.predict(np.hstack([inputs, relations]))
        return self._corrected(forecast, shift, self._factor(size))

    def _corrected(self, forecast, shift, factor):
        mean = forecast.mean + self.weight * shift @ self._inverse
        root = self._inverse @ self._cholesky(forecast)
        covariance = np.einsum("nij,jk,nlk->nil", root, self._covariance, root)
        precision = np.linalg.inv(factor[:, None, None] * covariance)
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, mean))

    def _cholesky(self, forecast):
        return np.linalg.cholesky(self.root @ forecast.covariance @ self.root)

    def _inputs(self, forecast, cards):
        spread = np.log(np.einsum("ij,njk,ki->n", self.root, forecast.covariance, self.root))
        return np.column_stack([cards, forecast.mean @ self.root, spread])

    def _factor(self, log_size):
        return np.clip(np.exp(log_size), _NARROWEST, _WIDEST)

    def _forest(self, *, min_samples_leaf=2):
        return ExtraTreesRegressor(
            _TREES, max_features=0.5, min_samples_leaf=min_samples_leaf, bootstrap=True,
            oob_score=True, random_state=self.seed,
        )  # fmt: skip


def correct(model, models, *, use_names=True, seed=0):
    """Beliefs about all models of a fit without their own responses, corrected by their cards.

    Parameters
    ----------
    model : LRMF, fitted
    models : DataFrame, the models table, or None if cards are not to be read
    use_names : bool, whether the names on them are

    Returns
    -------
    belief : Gaussians (n_models), out of bag for the models that the correction is learned from
    correction : CardCorrection, or None if there are too few models to learn it from
    """
    everyone, rows = np.arange(len(model.responses_)), _learners(model)
    belief = model.leave_one_out(everyone)
    if rows.size < _LEAST:
        return belief, None
    use_cards = models is not None
    correction = CardCorrection(model.gram, use_cards=use_cards, seed=seed)
    posterior = belief[rows] * model.evidence(rows)
    inputs = np.column_stack(_relatives(model))
    if use_cards:
        inputs = np.column_stack([card_codes(models), inputs])
    if use_cards and use_names:
        states = posterior.mean @ correction.root
        inputs = np.column_stack([inputs, similar_names(models["model_id"], states, rows)])
    relations = _parents_by_relation(model.lineage_)
    correction.fit(belief[rows], posterior, inputs[rows], relations[rows])
    others = np.setdiff1d(everyone, rows)
    corrected = Gaussians(belief.precision.copy(), belief.information.copy())
    of_others = correction.correct(belief[others], inputs[others], relations[others])
    for place, part in ((rows, correction.corrected), (others, of_others)):
        corrected.precision[place] = part.precision
        corrected.information[place] = part.information
    return corrected, correction


def _learners(model):
    """Models with about as many responses as is usual: others say little of their states."""
    counts = observed_counts(model.responses_)
    rows = np.flatnonzero(counts >= 0.5 * np.median(counts[counts > 0]))
    return np.sort(np.random.default_rng([model.seed, 11]).permutation(rows)[:_LEARNERS])


def _relatives(model):
    """Logarithms of the numbers of evaluated neighbours and family members."""
    lineage = model.lineage_
    n, family = lineage.n_models, lineage.families
    evaluated = np.zeros(lineage.n_nodes)
    evaluated[:n] = model.evaluated_
    near = lineage.adjacency.astype(bool).astype(float) @ evaluated
    members = np.bincount(family, weights=evaluated)[family] - evaluated
    return np.log1p(near[:n]), np.log1p(members[:n])


def _parents_by_relation(lineage):
    """Number of parents linked by each relation, (n_models, n_relations)."""
    relation = pd.Index(RELATIONS).get_indexer(lineage.edges["relation"])
    parents = np.zeros((lineage.n_nodes, len(RELATIONS)))
    np.add.at(parents, (lineage.child_index, relation), 1)
    return parents[: lineage.n_models]


def _slope(shift, error):
    """Weight in [0, 1] of the shift that leaves the least squared error."""
    return float(np.clip(np.sum(shift * error) / max(np.sum(shift**2), 1e-30), 0, 1))
