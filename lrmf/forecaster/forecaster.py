"""The Forecaster: LRMF, tuned, with model cards, near-duplicates and calibrated intervals."""

import json
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..data.lineage import lacks_evaluated_relatives
from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import (
    has_responses,
    observed,
    observed_counts,
    random_places,
    reveal,
    without,
)
from ..solver.calibration import IntervalCalibration, ScoredForecasts
from ..solver.factorization import LIKELIHOODS, LRMF
from ..solver.prediction import BLOCK, Forecasts
from ..solver.scores import coverage_scale
from ..threads import threads
from .card_correction import correct
from .drift import DriftConfig, TemporalDrift, late_models, shrunken_mean
from .near_duplicates import CONFIG, NearDuplicates, RevealedAnswers, forecast_in_turn
from .stacking import Stacking
from .tuning import tune


@dataclass(frozen=True)
class CrossFitConfig:
    """Which training models the mixture of near-duplicates and the calibration learn from.

    Attributes
    ----------
    fewest : int
        Models with enough responses that a number of revealed responses needs to be calibrated.
    most : int
        Models with relatives, and as many without, that are forecast as if they were new,
    most_cells : int
        or as many as have this number of cells.
    enough_answers : int
        Answers per parameter of an item. With fewer, item parameters overfit, and residuals of
        models used in the fit are too small: a second fit leaves these models out.
    """

    fewest: int = 40
    most: int = 400
    most_cells: int = 2_000_000
    enough_answers: int = 50


class Forecaster(Forecasts, BaseEstimator):
    """The best forecast of a model from its lineage, its card and the answers known.

    On top of `LRMF`: its hyperparameters by inner cross-validation (`tune`), the errors of its
    leave-one-out forecasts explained by model cards (`CardCorrection`), stacking with
    gradient-boosted trees (`Stacking`), a mixture with near-duplicates for answers
    (`NearDuplicates`), and intervals widened so that training models, forecast as if k of their
    responses were known, are covered. Nothing is learned from a response that a forecast is
    scored on.

    Parameters
    ----------
    rank, lineage_strength, use_features : optional
        Parameters of `LRMF`; None leaves the choice to the inner cross-validation.
        ``use_features=False`` leaves model cards out, but for the dates that tell later models.
    use_lineage, use_cards, use_names, use_trees, use_near_duplicates : bool
        Leave an ingredient out: the family tree, what cards say of the errors, what the names on
        them say, boosted trees, near-duplicates.
    tuned : bool
        False takes the default of every parameter of `LRMF` that is not given: quicker.
    n_threads : int, optional
    seed : int

    Attributes
    ----------
    model_ : LRMF
    tuning_ : DataFrame, columns parameter, value, loss, chosen
    cards_ : CardCorrection, or None if there are too few models to learn it from
    trees_ : Stacking or None
    near_duplicates_ : NearDuplicates or None

    Examples
    --------
    Two families of three, of which "a3" and "b3" have no answers yet; then two answers of "b3":

    >>> import numpy as np
    >>> from lrmf import Forecaster, Lineage
    >>> edges = [("a1", "a2", "finetune"), ("a1", "a3", "merge"), ("b1", "b2", "finetune"),
    ...          ("b1", "b3", "merge")]
    >>> lineage = Lineage.from_edges(edges, ["a1", "a2", "a3", "b1", "b2", "b3"])
    >>> a, b, unknown = [1, 1, 1, 0] * 5, [0, 0, 1, 0] * 5, [255] * 20
    >>> responses = np.array([a, a, unknown, b, b, unknown], dtype=np.uint8)
    >>> forecaster = Forecaster(rank=1).fit(responses, lineage)
    >>> before = forecaster.predict_scores([2, 5])["score"]
    >>> bool(before[0] > before[1])
    True
    >>> shown = np.array([[1, 1] + [255] * 18], dtype=np.uint8)
    >>> bool(forecaster.predict_scores([5], revealed=shown)["score"][0] > before[1])
    True
    """

    _config = CrossFitConfig()

    def __init__(
        self,
        rank=None,
        lineage_strength=None,
        *,
        use_features=None,
        use_lineage=True,
        use_cards=True,
        use_names=True,
        use_trees=True,
        use_near_duplicates=True,
        tuned=True,
        n_threads=None,
        seed=0,
    ):
        self.rank = rank
        self.lineage_strength = lineage_strength
        self.use_features = use_features
        self.use_lineage = use_lineage
        self.use_cards = use_cards
        self.use_names = use_names
        self.use_trees = use_trees
        self.use_near_duplicates = use_near_duplicates
        self.tuned = tuned
        self.n_threads = n_threads
        self.seed = seed

    def fit(self, responses, lineage, *, items=None, models=None):
        """Choose parameters, fit, and learn the corrections; arguments as in `LRMF.fit`."""
        # Bad input is refused before anything is fitted.
        lineage = self._known(lineage)
        LRMF(seed=self.seed, n_threads=self.n_threads).check(responses, lineage, items)
        # What the caller fixed, what is left to tuning, and the fit with the result.
        fixed = {name: getattr(self, name) for name in ("rank", "lineage_strength", "use_features")}
        fixed = {name: value for name, value in fixed.items() if value is not None}
        if not self.tuned:
            fixed = LIKELIHOODS[kind_of(responses)].defaults | fixed
        parameters, self.tuning_ = tune(
            responses, lineage, items=items, models=models, cards=self._shown(models),
            use_names=self.use_names, fixed=fixed, seed=self.seed, n_threads=self.n_threads,
        )  # fmt: skip
        model = LRMF(**parameters).fit(responses, lineage, items=items, models=models)
        return self._learn(model, models)

    def adapt(self, responses, lineage, *, models=None):
        """A forecaster for another snapshot with the same items, which stay as fitted."""
        new = type(self)(**self.get_params())
        new.tuning_ = getattr(self, "tuning_", None)
        model = self.model_.adapt(responses, self._known(lineage), models=models)
        return new._learn(model, models)

    def to_arrays(self):
        """What `adapt` needs, as named arrays that `numpy.savez` takes without pickle."""
        return self.model_.to_arrays() | {"forecaster": np.array(json.dumps(self.get_params()))}

    @classmethod
    def from_arrays(cls, arrays):
        """A fit from `to_arrays`; `adapt` gives a forecaster for a snapshot."""
        new = cls(**json.loads(str(arrays["forecaster"])))
        new.model_ = LRMF.from_arrays(arrays)
        return new

    def fold_in(self, *, parents=(), answers=None):
        """Forecast a model nobody has evaluated from the lineage and answers alone.

        As `LRMF.fold_in`: quick, and without what cards, trees and near-duplicates add; for these,
        give the model a row in the snapshot.
        """
        check_is_fitted(self)
        return self.model_.fold_in(parents=parents, answers=answers)

    @property
    def reads_cards(self):
        """Whether model cards have any part in the forecasts."""
        return self._reads_cards or self.model_.features_ is not None

    @property
    def chosen_(self):
        """The parameters that the inner cross-validation looked into, as chosen."""
        if self.tuning_ is None:
            return {}
        chosen = self.tuning_[self.tuning_["chosen"].astype(bool)]
        return dict(zip(chosen["parameter"], chosen["value"].tolist(), strict=True))

    @property
    def stats_(self):
        """Statistics of the fit, and the chosen parameters with the curve of the choice."""
        curve = [] if self.tuning_ is None else json.loads(self.tuning_.to_json(orient="records"))
        return self.model_.stats_ | {"tuning": curve}

    def _known(self, lineage):
        return lineage if self.use_lineage else lineage.drop_edges(np.ones(lineage.n_edges, bool))

    def _learn(self, model, models):
        rng = np.random.default_rng([self.seed, 11])
        with threads(self.n_threads):
            self._set_fit(model, models)
            rows = self._choose(rng)
            # Near-duplicates and intervals are learned from models forecast as if they were new.
            cross_fitted = self._cross_fitted(rows, models)
            cross_fitted._learn_few_shot(rows, rng)
            self.near_duplicates_, self.calibration_ = (
                cross_fitted.near_duplicates_,
                cross_fitted.calibration_,
            )
            self._learn_drift(models)
        return self

    def _set_fit(self, model, models):
        """The fit, and beliefs without own responses, corrected by cards and boosted trees."""
        self.model_, self.likelihood_, self.scores_ = model, model.likelihood_, model.scores_
        self.responses_, self.lineage_, self.items_ = model.responses_, model.lineage_, model.items_
        self.kind_, self.evaluated_ = model.kind_, has_responses(self.responses_)
        # Leave-one-out priors, corrected by cards and moved by the stacked trees.
        self.trees_ = None
        self._reads_cards = self._shown(models) is not None
        self._leave_one_out, self.cards_ = self._read_cards(model, models)
        if self.use_trees and self.cards_ is not None:
            self.trees_ = Stacking(use_names=self.use_names, seed=self.seed)
            self.trees_.fit(model, self._leave_one_out, self._shown(models))
            self._leave_one_out = self.trees_.stacked
        self._reads_cards &= self.cards_ is not None

    def _read_cards(self, model, models):
        return correct(model, self._shown(models), use_names=self.use_names, seed=self.seed)

    def _shown(self, models):
        """The models table, if cards are to be read."""
        return models if self.use_cards and self.use_features is not False else None

    def _choose(self, rng):
        """Training models with and without relatives, for cross-fitting."""
        rows = np.flatnonzero(self.evaluated_)
        isolated = lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows)
        # Up to `most` of either group, fewer where a model has many cells.
        groups = [rng.permutation(rows[isolated == group]) for group in (False, True)]
        size = self._config.most_cells // self.responses_.shape[1]
        size = np.clip(size, self._config.fewest, self._config.most)
        return np.sort(np.concatenate([group[:size] for group in groups]))

    def _cross_fitted(self, rows, models):
        """A forecaster whose items were fitted without these models' answers (cross-fitting).

        Item parameters overfit when items have few answers, so residuals of models used in the fit
        are too small. With many answers the effect is small, and this forecaster will do, as it
        must where too few models would be left to fit items to.
        """
        # Answers per parameter of an item decide whether overfitting matters.
        n_answers = observed_counts(self.responses_).sum() / self.responses_.shape[1]
        is_few = n_answers < self._config.enough_answers * (self.model_.rank + 1)
        if not (self.kind_ is ANSWERS and is_few and 2 * rows.size < self.evaluated_.sum()):
            return self
        # Items without these models' answers, then states of all models given these items.
        rest = without(self.responses_, rows)
        model = LRMF(**self.model_.get_params())
        model.fit(rest, self.lineage_, items=self.items_, models=models)
        other = type(self)(**self.get_params())
        other._set_fit(model.adapt(self.responses_, self.lineage_, models=models), models)
        return other

    def _learn_few_shot(self, chosen, rng):
        """Forecast these models as if few of their responses were known; learn from it."""
        given = self.responses_[chosen]
        seen = observed(given)
        place = random_places(seen, rng)
        # Numbers of revealed responses that enough models can spare.
        n_left = seen.sum(axis=1)
        levels = [
            k for k in self.kind_.n_revealed_calibration
            if (n_left > k).sum() >= self._config.fewest
        ]  # fmt: skip
        shown = {k: reveal(given, place < k) for k in levels}
        self.near_duplicates_ = None
        if self.kind_ is ANSWERS and self.use_near_duplicates and chosen.size:
            self.near_duplicates_ = NearDuplicates(self.responses_, self.lineage_, seed=self.seed)
            for k in CONFIG.n_revealed:
                if k in shown:
                    answers = RevealedAnswers(shown[k])
                    # Expected answers as they would have been when each one came in.
                    expected = self._in_turn(chosen, self._states(chosen, shown[k]), answers)
                    self.near_duplicates_.learn(k, chosen, expected, answers)
        shown = {0: reveal(given, False)} | shown
        forecasts = {k: self._scored(chosen, given, revealed) for k, revealed in shown.items()}
        self.calibration_ = IntervalCalibration.fit(forecasts, single=self.kind_ is ANSWERS)

    def _scored(self, rows, given, revealed):
        """`ScoredForecasts` of training models with only some of their responses revealed."""
        target = observed(given) & ~observed(revealed)
        score, deviation = (np.full((rows.size, len(self.scores_.names)), np.nan) for _ in "ab")
        for block, part in self._blocks(rows, revealed):
            _, score[block], deviation[block] = self._belief(rows[block], part, part, target[block])
        return ScoredForecasts(
            score,
            deviation,
            self.scores_.actual(given, target),
            self.scores_.n_observed(reveal(given, target)),
            lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows),
        )

    def _learn_drift(self, models):
        """Shift and widen forecasts of later models by the errors on the latest training models.

        The latest fifth is forecast from the earlier models, the items as fitted.
        """
        # Without enough dates there is no drift.
        config, n_components = DriftConfig(), self._leave_one_out.information.shape[1]
        self.drift_ = TemporalDrift.none(
            len(self.responses_), n_components, len(self.scores_.names)
        )
        found = late_models(models, self.evaluated_, config)
        if found is None:
            return
        late, is_later = found
        rows, earlier = np.flatnonzero(late), without(self.responses_, late)
        model = self.model_.adapt(earlier, self.lineage_, models=models)
        belief = self._read_cards(model, models)[0][rows]
        if self.trees_ is not None:
            belief = self.trees_.stack(model, belief, self._shown(models), rows)
        # What the latest models' own responses move their states by, given the earlier models.
        isolated = lacks_evaluated_relatives(self.lineage_, model.evaluated_, rows).astype(int)
        moved = self._states(rows, None).mean - belief.mean
        shift = np.stack(
            [shrunken_mean(moved[isolated == g], model.gram, fewest=config.fewest) for g in (0, 1)]
        )
        errors = self._errors(belief.shift(shift[isolated]), rows, isolated)
        self.drift_ = TemporalDrift(is_later, shift, np.maximum(coverage_scale(errors), 1.0))
        # Later models are moved by what the latest training models had over their forecasts.
        later = np.flatnonzero(is_later)
        offset = np.zeros(self._leave_one_out.information.shape)
        offset[later] = shift[
            lacks_evaluated_relatives(self.lineage_, self.evaluated_, later).astype(int)
        ]
        self._leave_one_out = self._leave_one_out.shift(offset)

    def _errors(self, belief, rows, isolated):
        """Errors of zero-shot forecasts of these models' scores in calibrated deviations."""
        unexplained = self.calibration_.unexplained[0, isolated]
        errors = [
            self.scores_.errors(
                self.likelihood_, belief[part], self.responses_[rows[part]],
                unexplained=unexplained[part],
            )
            for part in np.array_split(np.arange(rows.size), -(-rows.size // BLOCK))
        ]  # fmt: skip
        return np.concatenate(errors) / self.calibration_.scale[0, isolated]

    def _in_turn(self, rows, states, answers):
        """Expected answers, each given some of the others: what candidates compete with."""
        # Before any answer, and given all others.
        before = self.likelihood_.forecast_at(self._leave_one_out[rows], answers.cells)
        left_out = self.likelihood_.left_out(states, answers.cells)
        return forecast_in_turn(before, left_out, answers)

    def _states(self, rows, revealed):
        belief = self._leave_one_out[rows]
        if revealed is None:
            return belief * self.model_.evidence(rows)
        # Temper the prior only where responses were revealed.
        trust = np.where(observed(revealed).any(axis=1), self.model_.few_shot_trust, 1.0)
        return self.likelihood_.fold_in(belief.temper(trust), revealed)

    def _refined(self, rows, revealed, states, expected, items):
        if self.near_duplicates_ is None:
            return expected
        # Own training answers, or only the revealed ones.
        answers = RevealedAnswers(self.responses_[rows] if revealed is None else revealed)
        weights = self.near_duplicates_.weights(rows, self._in_turn(rows, states, answers), answers)
        return self.near_duplicates_.blend(weights, expected, items)

    def _calibrated(self, score, deviation, rows, given):
        isolated = lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows)
        deviation = self.calibration_(score, deviation, observed_counts(given), isolated)
        return deviation * self.drift_.factors(rows)
