"""The forecaster: LRMF with tuned parameters, model cards, memory and calibrated intervals."""

import json

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..data.features import model_dates, read_dates
from ..data.lineage import is_isolated
from ..data.responses import MISSING, has_responses, observed, observed_counts, random_places
from ..solver.factorization import LRMF
from ..solver.prediction import BLOCK, Forecasts
from ..solver.scores import coverage_scale, standardised_error, unexplained_variance, widened
from ..threads import threads
from .card_correction import correct
from .near_duplicates import SHOTS, Memory, ShownAnswers, forecast_in_turn
from .stacking import Stacking
from .tuning import DEFAULTS, tune

_LEAST = 40  # models behind a calibration, at least
_LATE = 0.2  # share of the training models, the latest, that show what drift does
_LATEST = 0.98  # share of the training models that a later model is later than
_SIMULATED = 400  # models with and without relatives behind memory and intervals, each, or
_CELLS = 2_000_000  # as many as have so many cells
_WELL_KNOWN = 50  # answers per parameter of an item; fewer, and items know answers by heart
_SMOOTH = 10  # answers behind a score, below which its error has but a few values
_REVEALED = {True: (5, *SHOTS), False: (1, 2, 4)}  # responses, by whether they are answers


class Forecaster(Forecasts, BaseEstimator):
    """The best forecast of a model from its lineage, its card and the answers known.

    On top of `LRMF`: its hyperparameters by inner cross-validation (`tune`), the errors of its
    leave-one-out forecasts explained by model cards (`CardCorrection`), boosted trees as a second
    opinion on benchmark scores (`Stacking`), a memory of near-copies for answers (`Memory`), and
    intervals widened so that training models, forecast as if k of their responses were known, are
    covered. Nothing is learned from a response that a forecast is scored on.

    Parameters
    ----------
    rank, lineage_strength, use_features : optional
        Parameters of `LRMF`; None leaves the choice to the inner cross-validation.
        ``use_features=False`` leaves model cards out, but for the dates that tell later models.
    use_lineage, use_cards, use_names, use_trees, use_memory : bool
        Leave an ingredient out: the family tree, what cards say of the errors, what the names on
        them say, boosted trees, the memory.
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
    memory_ : Memory or None

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
        use_memory=True,
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
        self.use_memory = use_memory
        self.tuned = tuned
        self.n_threads = n_threads
        self.seed = seed

    def fit(self, responses, lineage, *, items=None, models=None):
        """Choose parameters, fit, and learn the corrections; arguments as in `LRMF.fit`."""
        lineage = self._known(lineage)
        LRMF(seed=self.seed, n_threads=self.n_threads).check(responses, lineage, items)
        fixed = {name: getattr(self, name) for name in ("rank", "lineage_strength", "use_features")}
        fixed = {name: value for name, value in fixed.items() if value is not None}
        if not self.tuned:
            fixed = DEFAULTS[responses.dtype == np.uint8] | fixed
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

        As `LRMF.fold_in`: quick, and without what cards, trees and memory add; for these, give the
        model a row in the snapshot.
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
            self._take(model, models)
            rows = self._choose(rng)
            rehearsal = self._rehearsal(rows, models)
            rehearsal._simulate(rows, rng)
            self.memory_, self._shots = rehearsal.memory_, rehearsal._shots
            self._unexplained, self._scales = rehearsal._unexplained, rehearsal._scales
            self._mind_drift(models)
        return self

    def _take(self, model, models):
        """The fit, and beliefs without own responses, corrected by cards and boosted trees."""
        self.model_, self.likelihood_, self.scores_ = model, model.likelihood_, model.scores_
        self.responses_, self.lineage_, self.items_ = model.responses_, model.lineage_, model.items_
        self.is_binary_, self.evaluated_ = model.is_binary_, has_responses(self.responses_)
        self.trees_ = None
        self._reads_cards = self._shown(models) is not None
        self._belief_without, self.cards_ = self._read_cards(model, models)
        if self.use_trees and self.cards_ is not None:
            self.trees_ = Stacking(use_names=self.use_names, seed=self.seed)
            self.trees_.fit(model, self._belief_without, self._shown(models))
            self._belief_without = self.trees_.stacked
        self._reads_cards &= self.cards_ is not None

    def _read_cards(self, model, models):
        return correct(model, self._shown(models), use_names=self.use_names, seed=self.seed)

    def _shown(self, models):
        """The models table, if cards are to be read."""
        return models if self.use_cards and self.use_features is not False else None

    def _choose(self, rng):
        """Training models with and without relatives, to rehearse on."""
        rows = np.flatnonzero(self.evaluated_)
        isolated = is_isolated(self.lineage_, self.evaluated_, rows)
        groups = [rng.permutation(rows[isolated == group]) for group in (False, True)]
        size = np.clip(_CELLS // self.responses_.shape[1], _LEAST, _SIMULATED)
        return np.sort(np.concatenate([group[:size] for group in groups]))

    def _rehearsal(self, rows, models):
        """A forecaster whose items do not know these models' answers, as if they were new.

        Items learn the few answers they have by heart, which makes forecasts of these look better
        than those of others. With many answers they hardly do: this forecaster is good enough, as
        it is where too few models would be left to fit items to.
        """
        n_answers = observed_counts(self.responses_).sum() / self.responses_.shape[1]
        is_few = n_answers < _WELL_KNOWN * (self.model_.rank + 1)
        if not (self.is_binary_ and is_few and 2 * rows.size < self.evaluated_.sum()):
            return self
        rest = self._without(rows)
        model = LRMF(**self.model_.get_params())
        model.fit(rest, self.lineage_, items=self.items_, models=models)
        other = type(self)(**self.get_params())
        other._take(model.adapt(self.responses_, self.lineage_, models=models), models)
        return other

    def _simulate(self, chosen, rng):
        """Forecast these models as if few of their responses were known; learn from it."""
        given = self.responses_[chosen]
        seen = observed(given)
        place = random_places(seen, rng)
        shots = [k for k in _REVEALED[self.is_binary_] if (seen.sum(axis=1) > k).sum() >= _LEAST]
        shown = {k: np.where(place < k, given, self._missing).astype(given.dtype) for k in shots}
        self.memory_ = None
        if self.is_binary_ and self.use_memory and chosen.size:
            self.memory_ = Memory(self.responses_, self.lineage_, seed=self.seed)
            for k in SHOTS:
                if k in shown:
                    answers = ShownAnswers(shown[k])
                    expected = self._in_turn(chosen, self._states(chosen, shown[k]), answers)
                    self.memory_.learn(k, chosen, expected, answers)
        nothing = np.full(given.shape, self._missing, given.dtype)
        self._calibrate(chosen, given, {0: nothing} | shown)

    def _calibrate(self, rows, given, shown):
        """What intervals need, (n_shots, 2, n_benchmarks) for models with and without relatives.

        First the variance that states leave unexplained, then the factor that makes 90% cover.
        """
        isolated = is_isolated(self.lineage_, self.evaluated_, rows)
        self._shots = np.array(list(shown))
        self._scales = np.ones((len(shown), 2, len(self.scores_.names)))
        self._unexplained = np.zeros(self._scales.shape)
        for place, revealed in enumerate(shown.values()):
            target = observed(given) & ~observed(revealed)
            score, deviation = (np.full((rows.size, len(self.scores_.names)), np.nan) for _ in "ab")
            for block, part in self._blocks(rows, revealed):
                _, score[block], deviation[block] = self._belief(
                    rows[block], part, part, target[block]
                )
            actual = self.scores_.actual(given, target)
            n = self.scores_.n_observed(np.where(target, given, self._missing))
            for group in (False, True):
                own = isolated == group
                if own.any():
                    at = place, int(group)
                    self._unexplained[at], self._scales[at] = self._widening(
                        score[own], deviation[own], actual[own], n[own]
                    )

    def _widening(self, score, deviation, actual, n):
        """Unexplained variance, and factors that cover, by scores of n responses each."""
        share = 1 - 1 / np.maximum(n, 1) if self.is_binary_ else None
        unexplained = unexplained_variance(score, deviation, actual, share)
        errors = standardised_error(score, widened(score, deviation, unexplained), actual)
        if self.is_binary_:
            errors[n < _SMOOTH] = np.nan
        return unexplained, coverage_scale(errors)

    def _mind_drift(self, models):
        """Learn from the latest fifth how later models differ, and how much wider they vary.

        That fifth is forecast from the earlier models, the items as fitted. Forecasts of models
        later than these are moved by its mean error.
        """
        self._drift = np.ones(len(self.scores_.names))
        self._is_later = np.zeros(len(self.responses_), bool)
        dates = pd.Series() if models is None else model_dates(models, self.evaluated_)
        dated = dates[dates.notna() & self.evaluated_] if len(dates) else dates
        if len(dated) < 3 * _LEAST:
            return
        late = self.evaluated_ & (dates > dated.quantile(1 - _LATE)).to_numpy()
        early = self.evaluated_ & ~late
        if not (late.any() and early.any()):
            return
        if "created_at" in models:  # models that nobody has evaluated yet
            dates = dates.fillna(read_dates(models["created_at"]))
        self._is_later = (dates > dated.quantile(_LATEST)).to_numpy()
        rows, model = np.flatnonzero(late), self._fit_without(late, models)
        belief = self._read_cards(model, models)[0][rows]
        if self.trees_ is not None:
            belief = self.trees_.stack(model, belief, self._shown(models), rows)
        isolated = is_isolated(self.lineage_, model.evaluated_, rows).astype(int)
        moved = self._states(rows, None).mean - belief.mean
        later = np.flatnonzero(self._is_later)
        is_alone = is_isolated(self.lineage_, self.evaluated_, later).astype(int)
        progress = np.stack([_shrunken_mean(moved[isolated == g], model.gram) for g in (0, 1)])
        errors = self._errors(belief.shift(progress[isolated]), rows, isolated)
        self._drift = np.maximum(coverage_scale(errors), 1.0)
        offset = np.zeros(self._belief_without.information.shape)
        offset[later] = progress[is_alone]
        self._belief_without = self._belief_without.shift(offset)

    def _fit_without(self, hidden, models):
        """The fit with the responses of these models hidden, the items as they are."""
        return self.model_.adapt(self._without(hidden), self.lineage_, models=models)

    def _without(self, hidden):
        """The responses without those of some models."""
        rest = np.array(self.responses_)
        rest[hidden] = self._missing
        return rest

    @property
    def _missing(self):
        return MISSING if self.is_binary_ else np.nan

    def _errors(self, belief, rows, isolated):
        """Errors of zero-shot forecasts of these models' scores in calibrated deviations."""
        unexplained = self._unexplained[0, isolated]
        errors = [
            self.scores_.errors(
                self.likelihood_, belief[part], self.responses_[rows[part]],
                unexplained=unexplained[part],
            )
            for part in np.array_split(np.arange(rows.size), -(-rows.size // BLOCK))
        ]  # fmt: skip
        return np.concatenate(errors) / self._scales[0, isolated]

    def _in_turn(self, rows, states, answers):
        """Expected answers, each given some of the others: what candidates compete with."""
        before = self.likelihood_.forecast_at(self._belief_without[rows], answers.cells)
        left_out = self.likelihood_.left_out(states, answers.cells)
        return forecast_in_turn(before, left_out, answers)

    def _states(self, rows, revealed):
        belief = self._belief_without[rows]
        if revealed is None:
            return belief * self.model_.evidence(rows)
        trust = np.where(observed(revealed).any(axis=1), self.model_.few_shot_trust, 1.0)
        return self.likelihood_.fold_in(belief.temper(trust), revealed)

    def _refined(self, rows, revealed, states, expected, items):
        if self.memory_ is None:
            return expected
        answers = ShownAnswers(self.responses_[rows] if revealed is None else revealed)
        weights = self.memory_.weights(rows, self._in_turn(rows, states, answers), answers)
        return self.memory_.blend(weights, expected, items)

    def _calibrated(self, score, deviation, rows, given):
        """Deviations that cover, between the numbers of responses that were simulated."""
        n_known = np.log1p(observed(given).sum(axis=1))
        isolated = is_isolated(self.lineage_, self.evaluated_, rows).astype(int)
        place = np.interp(n_known, np.log1p(self._shots), np.arange(len(self._shots)))
        below = np.minimum(place.astype(int), len(self._shots) - 1)
        above = np.minimum(below + 1, len(self._shots) - 1)
        share = (place - below)[:, None]
        unexplained, scale = (
            (1 - share) * table[below, isolated] + share * table[above, isolated]
            for table in (self._unexplained, self._scales)
        )
        drift = np.where(self._is_later[rows][:, None], self._drift, 1.0)
        return widened(score, deviation, unexplained) * scale * drift


def _shrunken_mean(offsets, gram):
    """Mean (p,) of offsets (n, p), shrunk towards 0 (James and Stein) in the metric of `gram`."""
    n, p = offsets.shape
    if n < _LEAST:
        return np.zeros(p)
    mean = offsets.mean(axis=0)
    noise = np.trace(gram @ np.atleast_2d(np.cov(offsets, rowvar=False))) / n
    return max(0.0, 1 - noise / max(mean @ gram @ mean, 1e-30)) * mean
