"""Baselines by gradient boosting on benchmark scores: model cards, and relatives' scores."""

from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict
from threadpoolctl import threadpool_limits

from ..data.features import creation_days, model_features
from ..data.lineage import Lineage, without_edges
from ..data.names import similar_names
from ..data.response_kinds import ANSWERS, from_arcsine, kind_of, to_arcsine
from ..data.responses import observed
from ..data.statistics import benchmark_codes, item_means, residuals
from .averages import ItemMean, LineageMean
from .base import BLOCK_MODELS, ForecastInBlocks
from .components import Components

MAX_HOPS = 4
FEWEST_MODELS = 5  # with scores, for trees to be grown
MOST_BENCHMARKS = 30  # that get trees of their own
MATCH_STEPS, LONGEST_STEP = 12, 2.0  # Newton's, in logits
LAST_STEP = 0.03  # converges quadratically: what is left is of the order of its square
FEW_SHOT_STEPS = 4
SURE = 0.005  # forecasts are kept this far from 0 and 1 before they are shifted
NONE = -1.0  # input where there is no such relative; below all real ones
UNSEEN = 1e6  # variance of a score nobody revealed
KEPT_CORRELATION = 0.95
MAX_LEAVES, MAX_FEATURES = 8, 0.3  # of a tree; share of the inputs that a split may choose from
SHRINKAGE = 0.3  # of the lineage average behind item probabilities
DECIMALS = 9  # of inputs and targets: ties must not depend on the last bits of a sum


class BoostedTrees(ForecastInBlocks):
    r"""Gradient boosting of benchmark scores on what is known of a model and its relatives.

    One histogram gradient boosting (scikit-learn) for each benchmark, or column of proportions,
    forecasts y_ub = 2 asin sqrt(score_ub) from the model's features (`model_features`), its day of
    creation and, with `neighbours`, from scores on all benchmarks of relatives (the mean over its
    parents, the mean over the nearest scored models up to 4 hops, by benchmark, how many they are
    and how far) and of `similar_names`. These are leave-one-out: no model's relatives hold its own
    score.

    Of more than 30 benchmarks, `Components` (principal components that allow for missing scores)
    take the place of y, as inputs and as what trees forecast; forecasts are mapped back.

    Answers: a score is the mean residual from the item means plus the benchmark mean. A forecast
    score becomes item probabilities sigma(l_ui + d_ub), with the shift d that makes their mean the
    forecast score; l are the logits of the item means, or with `neighbours` of the multi-hop
    lineage average (`LineageMean`).

    Revealed responses, or else the model's own training responses, update y through the covariance
    S of out-of-fold residuals between benchmarks:

    - proportions: y += S_.o S_oo^-1 (y_o - forecast), with o the revealed columns;
    - answers: the mode of y under N(forecast, S) and the Bernoulli likelihood of the revealed
      answers, each benchmark's answers linearised in its shift d. Beyond the benchmark level a
      revealed answer says nothing about another item here.

    A training row's own responses have shaped the trees, too, and so count slightly more than once.

    Parameters
    ----------
    neighbours, use_names : bool
        Whether scores of relatives are inputs, and with them those of similarly named models.
    max_iter, min_samples_leaf : of `HistGradientBoostingRegressor`.
    n_components : int, of more than 30 benchmarks.
    seed : int
    """

    def __init__(
        self,
        neighbours=True,
        use_names=True,
        max_iter=100,
        min_samples_leaf=10,
        n_components=40,
        seed=0,
    ):
        self.neighbours = neighbours
        self.use_names = use_names
        self.max_iter = max_iter
        self.min_samples_leaf = min_samples_leaf
        self.n_components = n_components
        self.seed = seed

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Grow the trees on the scores of the observed responses (n_models, n_items)."""
        for cached in ("_covariance", "out_of_fold"):
            self.__dict__.pop(cached, None)
        self.responses_, is_answers = responses, kind_of(responses) is ANSWERS
        lineage = without_edges(lineage, responses) if lineage is None else lineage
        n_models, n_items = responses.shape
        self.codes_ = benchmark_codes(items, n_items) if is_answers else np.arange(n_items)
        self.item_means_ = item_means(responses, items)
        self.member_ = (self.codes_[:, None] == np.unique(self.codes_)).astype(np.float32)
        self.y_ = self.targets_ = self._arcsine_scores(n_prior=int(is_answers))
        self.components_ = None
        if self.y_.shape[1] > MOST_BENCHMARKS:
            self.components_ = Components(self.n_components).fit(self.y_)
            self.targets_ = self.components_.scores_
        inputs = [np.zeros((n_models, 1))]
        if models is not None:
            inputs += [model_features(models).to_numpy(), creation_days(models)]
        if self.neighbours:
            inputs.append(np.nan_to_num(relatives_scores(self.targets_, lineage), nan=NONE))
        if self.neighbours and self.use_names and models is not None:
            inputs.append(self._scores_by_name(models))
        self.inputs_ = np.column_stack(inputs).round(DECIMALS)
        profile = LineageMean(None, SHRINKAGE) if self.neighbours else ItemMean()
        self.profile_ = profile.fit(responses, lineage, items=items) if is_answers else None
        self.trees_ = [self._grow(column) for column in self.targets_.T]
        return self

    def _scores_by_name(self, models) -> np.ndarray:
        known = np.flatnonzero(np.isfinite(self.targets_).any(axis=1))
        return similar_names(models["model_id"], self.targets_[known], known)

    def _arcsine_scores(self, *, n_prior) -> np.ndarray:
        """2 asin sqrt(score): float (n_models, n_benchmarks), NaN where nothing was observed.

        Scores are shrunk as by `n_prior` more responses at the item mean.
        """
        total, count = np.zeros((2, len(self.responses_), self.member_.shape[1]))
        member = self.member_.astype(np.float64)
        for start in range(0, len(self.responses_), BLOCK_MODELS):
            block = slice(start, start + BLOCK_MODELS)
            values, seen = residuals(self.responses_[block], self.item_means_)
            total[block], count[block] = values @ member, seen @ member
        self.benchmark_means_ = self.item_means_ @ member / member.sum(axis=0)
        residual = total / np.maximum(count + n_prior, 1)
        scores = np.where(count > 0, self.benchmark_means_ + residual, np.nan)
        return to_arcsine(scores).round(DECIMALS)

    def _booster(self):
        return HistGradientBoostingRegressor(
            max_iter=self.max_iter,
            min_samples_leaf=self.min_samples_leaf,
            max_leaf_nodes=MAX_LEAVES,
            max_features=MAX_FEATURES,
            early_stopping=False,
            random_state=self.seed,
        )

    def _grow(self, y):
        """Trees for one benchmark or component; None if hardly any model has a score."""
        seen = np.isfinite(y)
        if seen.sum() < FEWEST_MODELS:
            return None
        with threadpool_limits(1):  # more threads only cost on so little data
            return self._booster().fit(self.inputs_[seen], y[seen])

    @cached_property
    def out_of_fold(self) -> np.ndarray:
        """Forecasts of y (n_models, n_benchmarks), of models with a score by trees without it."""
        forecast = self._forecast_targets(np.arange(len(self.y_)))
        folds = KFold(3, shuffle=True, random_state=self.seed)
        for b, tree in enumerate(self.trees_):
            seen = np.isfinite(self.targets_[:, b])
            if tree is not None:
                inputs, target = self.inputs_[seen], self.targets_[seen, b]
                with threadpool_limits(1):
                    forecast[seen, b] = cross_val_predict(self._booster(), inputs, target, cv=folds)
        return self._restore(forecast)

    def _errors(self) -> np.ndarray:
        """Out-of-fold residuals of y, NaN where unknown; components fill the gaps."""
        if self.components_ is not None:
            y = np.where(np.isfinite(self.y_), self.y_, self._restore(self.targets_))
            return y - self.out_of_fold
        grown = np.array([tree is not None for tree in self.trees_])
        return np.where(grown, self.y_ - self.out_of_fold, np.nan)

    @cached_property
    def _covariance(self) -> np.ndarray:
        """Covariance of out-of-fold residuals between benchmarks, without sampling noise."""
        errors = pd.DataFrame(self._errors())
        covariance = errors.cov(min_periods=FEWEST_MODELS).fillna(0.0).to_numpy()
        variance = np.maximum(np.diag(covariance), 1e-4)
        covariance = KEPT_CORRELATION * covariance
        if self.profile_ is not None:
            # The noise of the revealed answers does not carry over to others.
            of_items, of_scores = (p * (1 - p) for p in (self.item_means_, self.benchmark_means_))
            noise = of_items @ self.member_ / self.member_.sum(axis=0) ** 2 / of_scores
            variance = np.maximum(variance - noise, 0.2 * variance)
            shrink = np.sqrt(variance / np.maximum(np.diag(covariance), variance))
            covariance = covariance * np.outer(shrink, shrink)
        np.fill_diagonal(covariance, variance)
        return covariance

    def _forecast_block(self, rows, columns, revealed):
        y = self.forecast(rows)
        known = self.responses_[rows] if revealed is None else revealed
        if self.profile_ is None:
            return self._update_proportions(y, known)[:, columns]
        return self._update_answers(y, known, self.profile_.predict_proba(rows))[:, columns]

    def forecast(self, rows) -> np.ndarray:
        """Forecast y (n_rows, n_benchmarks) from the inputs alone."""
        return self._restore(self._forecast_targets(rows))

    def _forecast_targets(self, rows) -> np.ndarray:
        """What the trees say of each benchmark or component; where there are none, its mean."""
        means = to_arcsine(self.benchmark_means_)
        means = means if self.components_ is None else np.zeros(len(self.trees_))
        forecast = np.tile(means, (len(rows), 1))
        with threadpool_limits(1):
            for column, tree in zip(forecast.T, self.trees_, strict=True):
                if tree is not None:
                    column[:] = tree.predict(self.inputs_[rows])
        return forecast

    def _restore(self, targets) -> np.ndarray:
        return targets if self.components_ is None else self.components_.restore(targets)

    def _update_proportions(self, y, known) -> np.ndarray:
        seen = observed(known)
        if seen.any():
            step = np.where(seen, to_arcsine(np.where(seen, known, 0)) - y, 0)
            y = y + self._condition(step, np.where(seen, 0, UNSEEN))
        return from_arcsine(y)

    def _update_answers(self, y, known, profile) -> np.ndarray:
        profile = logit(np.clip(profile, SURE, 1 - SURE))
        probability, shift = self._match(profile, y)
        seen = observed(known).astype(np.float32)
        if not seen.any():
            return probability
        start = y
        for _ in range(FEW_SHOT_STEPS):
            variance = probability * (1 - probability)
            gain = (seen * (known - probability)) @ self.member_
            evidence = np.maximum((seen * variance) @ self.member_, 1e-9)
            slope = variance @ self.member_ / self.member_.sum(axis=0)  # of the score, by the shift
            slope /= np.maximum(np.sin(y) / 2, 0.02)  # of y, by the shift
            measured = y - start + slope * gain / evidence
            y = start + self._condition(measured, slope**2 / evidence)
            probability, shift = self._match(profile, y, shift)
        return probability

    def _condition(self, measured, noise) -> np.ndarray:
        """E of residuals N(0, S), measured with independent noise of these variances, by row."""
        covariance = self._covariance
        # S (S + noise)^-1 measured, for every row at once.
        system = covariance + noise[:, :, None] * np.eye(len(covariance))
        return np.linalg.solve(system, measured[..., None])[..., 0] @ covariance

    def _match(self, profile, y, shift=0.0):
        """Probabilities whose mean over each benchmark is the score that y stands for.

        Also the shifts of the profile by benchmark that give them, a start for a similar y.
        """
        wanted = np.clip(from_arcsine(y), SURE, 1 - SURE)
        shift = np.full(wanted.shape, shift, np.float32)
        for _ in range(MATCH_STEPS):
            probability = self._probability(profile, shift)
            # A Newton step of each benchmark's shift towards the wanted mean probability.
            slope = (probability * (1 - probability)) @ self.member_
            missing = wanted * self.member_.sum(axis=0) - probability @ self.member_
            step = np.clip(missing / np.maximum(slope, 1e-9), -LONGEST_STEP, LONGEST_STEP)
            shift += step.astype(np.float32)
            if np.abs(step).max(initial=0.0) < LAST_STEP:
                break
        return self._probability(profile, shift), shift

    def _probability(self, profile, shift):
        """sigma(profile + shift of the benchmark), by NumPy's exp, which is faster than expit."""
        exponent = np.negative(shift)[:, self.codes_]
        exponent -= profile
        np.exp(exponent, out=exponent)
        exponent += 1
        return np.reciprocal(exponent, out=exponent)


def relatives_scores(scores: np.ndarray, lineage: Lineage) -> np.ndarray:
    """Mean scores of a model's parents and of its nearest scored relatives, without its own.

    Parameters
    ----------
    scores : (n_models, n_benchmarks), NaN where unknown
    lineage : Lineage over the same models

    Returns
    -------
    float (n_models, 2 n_benchmarks + 3)
        Parents' means, their number; means over the models at the fewest hops (at most
        `MAX_HOPS`) that have the benchmark, that number of hops to any score, and how many there
        are. NaN where there are none.
    """
    n_models = lineage.n_models
    known = np.isfinite(scores)
    values, any_known = np.where(known, scores, 0), known.any(axis=1).astype(float)
    edges = (np.ones(lineage.n_edges), (lineage.child_index, lineage.parent_index))
    parents = sparse.csr_array(edges, shape=(lineage.n_nodes,) * 2)[:n_models, :n_models]
    nearest = np.full(scores.shape, np.nan)
    hops, number = np.full(n_models, np.nan), np.zeros(n_models)
    for hop, ring in enumerate(_rings(lineage), start=1):
        found = ring @ any_known
        first = np.isnan(hops) & (found > 0)
        hops[first], number[first] = hop, found[first]
        nearest = np.where(np.isnan(nearest), _mean(ring, values, known), nearest)
    counts = np.log1p(np.column_stack([parents @ any_known, number]))
    return np.column_stack([_mean(parents, values, known), nearest, counts, hops])


def _rings(lineage):
    """For 1, 2, ... hops: 0/1 (n_models, n_models), the models at exactly that distance."""
    n_models = lineage.n_models
    step = (lineage.adjacency != 0).astype(np.float64)
    front = within = sparse.eye_array(lineage.n_nodes, format="csr")
    for _ in range(MAX_HOPS):
        front = ((front @ step) > 0).astype(np.float64)
        front = front - front.multiply(within)
        front.eliminate_zeros()
        within = within + front
        yield front[:n_models, :n_models]


def _mean(weights, values, known) -> np.ndarray:
    """Weighted means of the known values, NaN where there is none."""
    mass = weights @ known.astype(float)
    return np.divide(weights @ values, mass, out=np.full(mass.shape, np.nan), where=mass > 0)
