"""One new model: its scores, the items to ask next, and updates by answers and scores."""

import copy
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import pandas as pd

from ..data.response_kinds import PROPORTIONS, to_arcsine
from ..data.responses import observed
from ..solver import prediction
from ..solver.gaussians import Gaussians
from ..solver.prediction import check_level, revealed_row
from ..solver.scores import chance_above, interval
from ..threads import threads
from .explanation import explain
from .selection import JointResponses, mixture_of

_N_LINEARISATIONS = 10  # iterations of `with_scores`
_SCORE_RANGE = 1e-4, 1 - 1e-4  # where derivatives on the arcsine scale are finite
_MIN_SCORE_VARIANCE = 1e-4  # sampling variance of a known score on the arcsine scale
ROUNDING = 2e-3  # difference of scores that hardly shows in points with one decimal


class NewModel(prediction.NewModel):
    """The forecast of one model, as `Forecaster.fold_in` returns it; it is immutable.

    Parameters
    ----------
    forecasts : Forecaster, with this model as its only row
    parents : int (n_parents,), the evaluated parents as rows of the fit
    before : NewModel, optional, the same model before any update
    known_scores : dict of benchmark to its score, optional
    unscored : Forecaster, with this model as its only row and without the evidence of these scores
    """

    def __init__(self, forecasts, parents=(), before=None, known_scores=None, unscored=None):
        super().__init__(forecasts)
        self.parents, self._before = np.asarray(parents, int), before
        self.known_scores, self._unscored = known_scores or {}, unscored or forecasts

    @property
    def notes(self):
        """Warnings on the model, such as an implausible size or an unknown parent."""
        return self.forecasts.notes_

    @property
    def before(self):
        """The same model before any `update`."""
        return self._before or self

    @property
    def answers(self):
        """The revealed responses (n_items,), missing where unknown."""
        return self.forecasts.responses_[0]

    @cached_property
    def _row(self):
        """The only row of the forecasts."""
        return np.zeros(1, int)

    @cached_property
    def _states(self):
        """Posterior of the state, Gaussians (1)."""
        with threads(1):
            return self.forecasts._states(self._row, None)

    @cached_property
    def _forecast(self):
        """Score, calibrated deviation and number observed (n_benchmarks,) each."""
        fit, given = self.forecasts, self.forecasts.responses_
        with threads(1):
            _, score, deviation = fit._moments(self._row, None, given, None)
            share = fit.scores_.open_share(given)
            deviation = fit._calibrated(score, deviation, self._row, given, share)
        # A known score has no uncertainty.
        for name, known in self.known_scores.items():
            column = fit.scores_.number(name)
            score[0, column], deviation[0, column] = known, 0.0
        return score[0], deviation[0], fit.scores_.n_observed(given)[0]

    def scores(self, *, level=0.9):
        """Forecast of every benchmark, as a fraction of its questions.

        Parameters
        ----------
        level : float
            Nominal coverage of [lower, upper].

        Returns
        -------
        DataFrame
            benchmark, score, lower, upper, n_observed, parents_best (highest score of an evaluated
            parent, NaN without any), p_better (probability of a higher score than that), relatives
            (number of evaluated models with a score within two steps of the lineage), extrapolates
            (whether the score is above all scores of the fit, or evaluated models explain less
            than a fifth of the variance of every score before any answer)
        """
        check_level(level)
        fit = self.forecasts
        score, deviation, n_observed = self._forecast
        lower, upper = interval(score, deviation, level)
        # The parents' best score, relatives with a score, and scores above all of the fit.
        best = _best(fit.trained_scores_[self.parents])
        better = chance_above(score, deviation, best)
        related = np.isfinite(fit.trained_scores_[fit._relatedness_to(self._row)[0] >= 2])
        above = score > np.nan_to_num(_best(fit.trained_scores_), nan=np.inf) + ROUNDING
        return pd.DataFrame({
            "benchmark": fit.scores_.names, "score": score, "lower": lower, "upper": upper,
            "n_observed": n_observed, "parents_best": best, "p_better": better,
            "relatives": related.sum(axis=0),
            "extrapolates": above | self.explanation["is_far"],
        })  # fmt: skip

    def mean_score(self, *, level=0.9):
        """Mean of all benchmark scores with its interval: (score, lower, upper).

        The correlations between benchmarks are those that the state implies.
        """
        check_level(level)
        mean, covariance = self._forecast[0].mean(), self._joint().covariance()
        return mean, *interval(mean, self._mean_deviation(covariance), level)

    def _mean_deviation(self, covariance):
        """Calibrated standard deviation of the mean score if the scores have this covariance.

        With s_b the ratio of the calibrated to the present standard deviation of score b, it is
        sqrt(s' covariance s) / n_benchmarks.
        """
        before = np.sqrt(np.maximum(np.diag(self._joint().covariance()), 1e-12))
        scale = self._forecast[1] / before
        return np.sqrt(max(scale @ covariance @ scale, 0.0)) / len(scale)

    @cached_property
    def explanation(self):
        """What the forecast before any answer is based on, as a dict; see `explain`."""
        if self._before is not None:
            return self._before.explanation
        fit = self.forecasts
        with threads(1):
            return explain(fit.prior_, fit.other_, fit._relatedness_to(self._row))[0]

    def update(self, answers):
        """The forecast given more answers, the same as by `Forecaster.fold_in` with all of them.

        They may have been chosen, as by `next_items`. Calibration is learned from random answers;
        how well intervals cover after chosen ones is measured in `lrmf.decide.chosen`.

        Parameters
        ----------
        answers : mapping of item_id to response, as in `Forecaster.fold_in`

        Returns
        -------
        NewModel : a new object, computed in milliseconds
        """
        given = self.answers[None]
        row = revealed_row(answers, self.forecasts.columns_, given.dtype)
        given = np.where(observed(row), row, given)
        self._check_known(self.known_scores, given)
        new, unscored = copy.copy(self.forecasts), copy.copy(self._unscored)
        new.responses_ = unscored.responses_ = given
        return NewModel(new, self.parents, self._before or self, self.known_scores, unscored)

    def with_scores(self, scores):
        """The forecast given scores of whole benchmarks, but not their answers.

        On the arcsine scale y a score is y(t) + noise. With g the gradient of y(t), linearised at
        the posterior mean, and v its sampling and unexplained variance, the evidence has precision
        g g' / v and information g (y_actual - y(m) + g' m) / v. It is linearised again ten times.

        Parameters
        ----------
        scores : mapping of benchmark to score in [0, 1]
            A benchmark that has a score already gets this one instead.

        Returns
        -------
        NewModel

        Raises
        ------
        ValueError
            If a benchmark is unknown, a score is out of range, or a benchmark has answers as well.
        """
        fit = self._unscored
        scores = dict(scores)
        for name, score in scores.items():
            if not 0 <= score <= 1:
                raise ValueError(f"the score of {name} must be within [0, 1], got {score!r}")
        columns = [fit.scores_.number(name) for name in scores]
        # If items are benchmarks, scores are answers.
        items = [np.flatnonzero(fit.scores_.weights[:, column]) for column in columns]
        if fit.kind_ is PROPORTIONS and all(part.size == 1 for part in items):
            ids = [fit.item_ids_[part[0]] for part in items]
            return self.update(dict(zip(ids, scores.values(), strict=True)))
        self._check_known(scores, self.answers[None])
        # All known scores from the prior without any, so that none counts twice.
        scores = self.known_scores | scores
        columns = [fit.scores_.number(name) for name in scores]
        # Shares of the items in these scores, and the variance that states do not explain.
        new = copy.copy(fit)
        prior = fit._prior_of(self._row)
        actual = to_arcsine(np.array(list(scores.values())))
        likelihood, weights = fit.likelihood_, fit.scores_.weights[:, columns]
        weights = weights / weights.sum(axis=0)
        unexplained = fit.calibration_.unexplained[0, fit.lacks_relatives_.astype(int)][0, columns]
        states = prior
        with threads(1):
            for _ in range(_N_LINEARISATIONS):
                # Score, its gradient g and its variance v at the current posterior mean.
                mean = states.mean
                expected, slope, noise = likelihood.forecast(mean, states.covariance)
                score = np.clip(expected[0] @ weights, *_SCORE_RANGE)
                unit = np.sqrt(score * (1 - score))
                slope = (weights.T * slope[0]) @ likelihood.loadings / unit[:, None]
                variance = (weights.T**2 @ noise[0]) / unit**2 + unexplained + _MIN_SCORE_VARIANCE
                # Posterior = prior times the linearised evidence.
                gain = slope.T / variance
                target = actual - to_arcsine(score) + slope @ mean[0]
                states = prior * Gaussians((gain @ slope)[None], (gain @ target)[None])
        new._cached_priors = states.shift(-fit._drift_shift(self._row))
        return NewModel(new, self.parents, self._before or self, scores, fit)

    def _check_known(self, scores, given):
        """Raise a ValueError if a benchmark has both a score and answers, `given` (1, n_items)."""
        fit = self.forecasts
        for name in scores:
            if fit.scores_.n_observed(given)[0, fit.scores_.number(name)]:
                raise ValueError(f"{name} has both a score and answers; give one of them")

    def next_items(self, n, *, benchmarks=None, cost=None):
        """Ids of the items whose responses reduce the variance of the scores most.

        Parameters
        ----------
        n : int
            Number of items; with costs, their maximum total.
        benchmarks : sequence of str, optional
            Benchmarks whose scores count, all by default. Items of others may be chosen.
        cost : mapping of item_id, or of benchmark, to a cost > 0, optional
            The default is 1; infinity excludes an item.

        Returns
        -------
        list of item_id
            In the order of choice; column numbers if the fit had no items table.
        """
        if not n >= 0:
            raise ValueError(f"n must be at least 0, got {n!r}")
        if benchmarks is not None:
            benchmarks = [benchmarks] if isinstance(benchmarks, str) else list(benchmarks)
            if not benchmarks:
                raise ValueError("benchmarks is empty; name some, or None for all")
        chosen, _ = self._choose(n, benchmarks=benchmarks, cost=cost)
        return [self.forecasts.item_ids_[column] for column in chosen]

    def items_until(self, half_width, *, most=None, cost=None, level=0.9):
        """Ids of the items after whose responses the mean score's interval should be this narrow.

        Parameters
        ----------
        half_width : float
            Expected half-width of the interval of `mean_score`.
        most : int, optional
            Maximum number of items, or their maximum total cost.
        cost, level : as in `next_items`, `scores`

        Returns
        -------
        list of item_id, as in `next_items`
        """
        if not half_width >= 0:
            raise ValueError(f"half_width must be at least 0, got {half_width!r}")
        chosen, _ = self._choose(
            np.inf if most is None else most, cost=cost,
            until=lambda covariance: self.half_width_after(covariance, level=level) <= half_width,
        )  # fmt: skip
        return [self.forecasts.item_ids_[column] for column in chosen]

    def half_width_after(self, covariance, *, level=0.9):
        """Half-width of the mean score's interval if the scores have this covariance."""
        check_level(level)
        mean = self._forecast[0].mean()
        lower, upper = interval(mean, self._mean_deviation(covariance), level)
        return (upper - lower) / 2

    def expected_covariance(self, columns):
        """Covariance (n_benchmarks, n_benchmarks) of the scores once these items are answered."""
        allowed = np.zeros(len(self.answers), bool)
        allowed[columns] = True
        with threads(1):
            return self._joint().choose(np.inf, allowed=allowed)[1]

    def _choose(self, n, *, benchmarks=None, cost=None, until=None):
        """Columns and expected covariance, as of `JointResponses.choose`, of unknown items."""
        price = None if cost is None else self._prices(cost)
        # Items of a known score are not asked: their answers would count twice.
        allowed = ~observed(self.answers) & ~self._has_known_score
        if price is not None:
            allowed &= np.isfinite(price)
        with threads(1):
            joint = self._joint(benchmarks)
            return joint.choose(n, cost=price, allowed=allowed, until=until)

    @property
    def _has_known_score(self):
        """Whether an item belongs to a benchmark whose score is known, bool (n_items,)."""
        known = np.isin(self.forecasts.scores_.names, list(self.known_scores))
        return (self.forecasts.scores_.weights[:, known] > 0).any(axis=1)

    def _joint(self, benchmarks=None):
        """`JointResponses` of the items without a response; those of all benchmarks are cached."""
        if benchmarks is None:
            return self._joint_of_all
        return self._joint_of(benchmarks)

    @cached_property
    def _joint_of_all(self):
        """`JointResponses` of all benchmarks."""
        with threads(1):
            return self._joint_of(None)

    def _joint_of(self, benchmarks):
        """`JointResponses` whose scores are these benchmarks, or all."""
        # Shares of the items in the scores; 0 for revealed items and known scores.
        fit = self.forecasts
        weights = fit.scores_.weights / fit.scores_.weights.sum(axis=0)
        weights = np.where(observed(self.answers)[:, None], 0, weights)
        weights[:, [fit.scores_.number(name) for name in self.known_scores]] = 0
        if benchmarks is not None:
            weights = weights[:, [fit.scores_.number(name) for name in benchmarks]]
        mixture = None
        if fit.near_duplicates_ is not None:
            candidates = fit._candidate_weights(self._row, self._states, fit.responses_)
            mixture = mixture_of(candidates, fit.near_duplicates_.answers)
        return JointResponses.of(fit.likelihood_, self._states, weights, mixture)

    def _prices(self, cost):
        """Cost of every item, float32 (n_items,); ValueError for an unknown name or a cost <= 0."""
        items, names = self.forecasts.items_, self.forecasts.scores_.names
        if not isinstance(cost, Mapping | pd.Series):
            raise ValueError(
                f"cost must map items or benchmarks to costs, got {type(cost).__name__}"
            )
        cost = dict(cost)
        unknown = cost.keys() - self.forecasts.columns_.keys() - set(names)
        if unknown:
            raise ValueError(f"cost of {min(unknown, key=str)!r}: neither an item nor a benchmark")
        if wrong := [name for name, value in cost.items() if not value > 0]:
            raise ValueError(f"cost of {wrong[0]!r} must be above 0, got {cost[wrong[0]]!r}")
        benchmarks = names * len(self.answers) if items is None else items["benchmark"]
        pairs = zip(self.forecasts.item_ids_, benchmarks, strict=False)
        return np.array([cost.get(item, cost.get(name, 1.0)) for item, name in pairs], float)


def _best(scores):
    """Highest score of each benchmark (n_benchmarks,), NaN without any score."""
    best = np.where(np.isnan(scores), -np.inf, scores).max(axis=0, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)
