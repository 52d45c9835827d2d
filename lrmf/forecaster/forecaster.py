"""The Forecaster: one prior over model states from lineage, cards and names, then answers."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.descriptions import Describer
from ..data.lineage import Lineage, lacks_evaluated_relatives
from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import (
    has_responses,
    observed,
    observed_counts,
    random_places,
    reveal,
    row_blocks,
    unmasked,
    without,
)
from ..estimator import Estimator, check_is_fitted
from ..files import output
from ..solver.calibration import IntervalCalibration, ScoredForecasts
from ..solver.factorization import LIKELIHOODS, LRMF
from ..solver.gaussians import Gaussians
from ..solver.prediction import (
    BLOCK,
    Forecasts,
    column_of,
    read_parents,
    revealed_row,
)
from ..solver.scores import coverage_scale
from ..threads import threads
from .drift import DriftConfig, TemporalDrift, late_models, shrunken_mean
from .explanation import explain
from .merges import plan_merges
from .near_duplicates import (
    CONFIG,
    NearDuplicates,
    Relatedness,
    RevealedAnswers,
    forecast_in_turn,
)
from .new_model import NewModel
from .saved_fit import load_fit, save_fit
from .state_prior import StatePrior

_PER_FACTOR = 15  # models or items that a factor needs
_AT_ONCE = 5000  # rows up to which all beliefs are kept


@dataclass(frozen=True)
class CrossFitConfig:
    """Which training models the mixture of near-duplicates and the calibration learn from.

    Attributes
    ----------
    min_models : int
        Models with enough responses that a number of revealed responses needs to be calibrated.
    most : int
        Models with relatives, and as many without, that are forecast as if they were new,
    most_cells : int
        or as many as have this number of cells.
    enough_answers : int
        Answers per parameter of an item. With fewer, item parameters overfit, and residuals of
        models used in the fit are too small: a second fit leaves these models out.
    """

    min_models: int = 40
    most: int = 400
    most_cells: int = 2_000_000
    enough_answers: int = 50


class Forecaster(Forecasts, Estimator):
    """The best forecast of a model from its lineage, its card, its name and the answers known.

    In stages, each an object that is fitted and then called: `LRMF` gives the items and what each
    model's responses say of its state; `StatePrior`, one Gaussian process over lineage, card and
    name, forecasts the states of models without responses; answers are folded in; `NearDuplicates`
    mixes in the answers of models that this one may be a copy of; `IntervalCalibration` makes
    intervals cover; `TemporalDrift` moves forecasts of later models. Nothing is learned from a
    response that a forecast is scored on.

    Parameters
    ----------
    rank, lineage_strength : optional
        Parameters of `LRMF`; None is the default for the kind of responses, and of answers no
        more than one factor for every 15 evaluated models or items.
    use_lineage, use_cards, use_names, use_near_duplicates : bool
        Leave an ingredient out: the family tree, the fields of cards (dates still tell later
        models), names and organizations, near-duplicates.
    n_threads : int, optional
    seed : int

    Attributes
    ----------
    model_ : LRMF, of the evaluated models
    prior_ : StatePrior
    near_duplicates_ : NearDuplicates or None
    calibration_ : IntervalCalibration
    drift_ : TemporalDrift
    notes_ : list of str, what is not believed of the models to forecast

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
        use_lineage=True,
        use_cards=True,
        use_names=True,
        use_near_duplicates=True,
        n_threads=None,
        seed=0,
    ):
        self.rank = rank
        self.lineage_strength = lineage_strength
        self.use_lineage = use_lineage
        self.use_cards = use_cards
        self.use_names = use_names
        self.use_near_duplicates = use_near_duplicates
        self.n_threads = n_threads
        self.seed = seed

    def fit(self, responses, lineage, *, items=None, models=None):
        """Learn everything from the models that have responses; arguments as in `LRMF.fit`."""
        # Bad input is refused before anything is fitted.
        responses = unmasked(responses)
        LRMF(seed=self.seed, n_threads=self.n_threads).check(responses, lineage, items)
        lineage = self._known(lineage)
        rng = np.random.default_rng([self.seed, 11])
        evaluated = has_responses(responses)
        if not evaluated.any():
            raise ValueError("responses has no observed cell; there is nothing to learn from")
        with threads(self.n_threads):
            describer = Describer(self._shown(models), lineage, evaluated, use_names=self.use_names)
            training = responses if evaluated.all() else responses[evaluated]
            self.trained_edges_ = lineage.edges
            self.trained_ids_ = np.array(describer.ids[: describer.n_evaluated], dtype=object)
            # Items are fitted without the models that nobody has evaluated.
            is_above = lineage.edges["child"].isin(describer.above)
            among = Lineage.from_edges(lineage.edges[is_above], self.trained_ids_)
            table = None if models is None else models[evaluated].reset_index(drop=True)
            model = LRMF(**self._parameters(responses)).fit(training, among, items=items)
            self._set_items(model)
            self.prior_ = StatePrior(seed=self.seed).fit(model.evidence_, model.gram, describer)
            self.trained_responses_, self.evidence_ = training, model.evidence_
            blocks = (block for _, block in row_blocks(training, bytes_per_cell=8))
            self.trained_scores_ = np.concatenate(
                [self.scores_.actual(block, observed(block)) for block in blocks]
            )
            self._attach(training, among, table)
            self._learn(model, describer, rng, table)
            if not evaluated.all():
                self._attach(responses, lineage, models)
        return self

    def adapt(self, responses, lineage, *, models=None):
        """The same fit for the models of another snapshot with the same items; learns nothing.

        Parameters
        ----------
        responses, lineage, models : as in `fit`, over the same items in the same order
            The responses are those that each model's own forecast is given.

        Returns
        -------
        Forecaster
        """
        check_is_fitted(self)
        responses = unmasked(responses)
        LRMF().check(responses, lineage, None)
        kind, n_items = kind_of(responses), responses.shape[1]
        if (n_items, kind) != (self.responses_.shape[1], self.kind_):
            raise ValueError(
                f"the fit has {self.responses_.shape[1]} items of {self.kind_.name}; this snapshot "
                f"has {n_items} of {kind.name}"
            )
        new = copy.copy(self)
        with threads(self.n_threads):
            new._attach(responses, self._known(lineage), models)
        return new

    def fold_in(self, *, parents=(), card=None, answers=None):
        """Forecast a model nobody has evaluated, as if it had a row in the snapshot.

        Parameters
        ----------
        parents : sequence of ids or (id, relation)
            Evaluated or not. One that nobody has heard of says nothing, and a note says so.
        card : mapping, optional
            Columns of a models table: model_id, params_b, architecture, created_at ...
        answers : mapping of item_id to response, optional
            Keys are column numbers if the fit was given no items table.

        Returns
        -------
        NewModel

        Raises
        ------
        ValueError
            If a relation is unknown, an item not a column, or an answer out of range.
        """
        check_is_fitted(self)
        parents = read_parents(parents)
        card = {"model_id": ""} | dict(card or {})
        new = copy.copy(self)
        new.responses_ = revealed_row(answers or {}, self.columns_, self.responses_.dtype)
        new.n_threads = 1
        with threads(1):
            new._attach_leaves([card], [parents if self.use_lineage else []])
            new._belief_of(np.zeros(1, int))  # once for all updates
        known = pd.Index(self.trained_ids_).get_indexer([parent for parent, _ in parents])
        return NewModel(new, known[known >= 0])

    def fold_in_each(self, parents, cards=None):
        """Forecasts of models without responses, each as `fold_in` makes it, all at once.

        Parameters
        ----------
        parents : sequence, for each model a sequence of ids or (id, relation)
        cards : sequence of mappings, optional, one for each model, with different model_id

        Returns
        -------
        Forecasts : a row for each model
        """
        check_is_fitted(self)
        parents = [read_parents(own) for own in parents]
        new = copy.copy(self)
        kind = kind_of(self.responses_)
        shape = len(parents), self.responses_.shape[1]
        new.responses_ = np.full(shape, kind.missing, self.responses_.dtype)
        # Ids tell the models apart; no model is of this organization, and the names are empty.
        cards = cards or [{"model_id": f"new model {n}/"} for n in range(len(parents))]
        with threads(self.n_threads):
            new._attach_leaves(cards, parents if self.use_lineage else [[] for _ in parents])
        return new

    def plan_merges(self, candidates=None, n_parents=2, *, objective="mean", top=20, size=None):
        """Which evaluated models to merge next; see `lrmf.forecaster.merges.plan_merges`."""
        check_is_fitted(self)
        return plan_merges(self, candidates, n_parents, objective=objective, top=top, size=size)

    def explain(self, rows=None):
        """What the forecasts of some models without own responses rest on; see `explain`.

        Returns
        -------
        DataFrame : row, nearest, relatedness, lineage, card_and_name, extrapolates
        """
        rows = self._check_request(rows)
        blank = reveal(self.responses_[rows], False)
        scores = self.predict_scores(rows, revealed=blank)["score"].to_numpy()
        above = (scores.reshape(len(rows), -1) > np.nanmax(self.trained_scores_, axis=0)).any(1)
        place, parts = self.place_[rows], []
        for own in (np.flatnonzero(place >= 0), np.flatnonzero(place < 0)):
            for part in np.array_split(own, -(-own.size // BLOCK)) if own.size else ():
                described = (
                    self.prior_.nodes[place[part]] if place[part[0]] >= 0
                    else self.prior_.filled(self.other_[self._number[rows[part]]])
                )  # fmt: skip
                found = explain(self.prior_, described, self._kin(rows[part]))
                parts.append(pd.DataFrame(found, index=part))
        found = pd.concat(parts).sort_index()
        found["nearest"] = [", ".join(self.trained_ids_[near]) for near in found["nearest"]]
        return found.assign(row=rows, extrapolates=found.pop("is_far") | above)

    def save(self, path):
        """Write everything that forecasting needs to a .npz file: no pickle, with a checksum."""
        check_is_fitted(self)
        with output(Path(path)) as file:
            save_fit(file, self)

    @classmethod
    def load(cls, path):
        """The fit of a file from `save`; its rows are the models of the fit.

        Raises
        ------
        SavedFitError
            If the file is damaged, of another version, or no fit.
        """
        return load_fit(path, cls)

    @property
    def reads_cards(self):
        """Whether model cards have any part in the forecasts."""
        return bool({"size", "type", "architecture"} & set(self.prior_.covariance_.parameters))

    @property
    def chosen_(self):
        """The parameters learned from the responses: weights, inverse lengths and noise."""
        parameters = self.prior_.covariance_.parameters
        return {name: float(f"{value:.3g}") for name, value in parameters.items()}

    @property
    def stats_(self):
        """Statistics of the fit of the items, and the learned parameters of the covariance."""
        return self.model_.stats_ | {"covariance": self.chosen_}

    def _parameters(self, responses):
        given = {"rank": self.rank, "lineage_strength": self.lineage_strength}
        given = {name: value for name, value in given.items() if value is not None}
        parameters = LIKELIHOODS[kind_of(responses)].defaults | {"use_features": False} | given
        if self.rank is None and kind_of(responses) is ANSWERS:
            # Few answers determine few factors.
            smaller = min(has_responses(responses).sum(), responses.shape[1])
            parameters["rank"] = min(parameters["rank"], max(1, smaller // _PER_FACTOR))
        parameters["rank"] = min(parameters["rank"], responses.shape[1])
        return parameters | {"seed": self.seed, "n_threads": self.n_threads}

    def _known(self, lineage):
        return lineage if self.use_lineage else lineage.drop_edges(np.ones(lineage.n_edges, bool))

    def _shown(self, models):
        """The models table, if cards are to be read."""
        return models if self.use_cards else None

    def _set_items(self, model):
        self.model_, self.likelihood_, self.scores_ = model, model.likelihood_, model.scores_
        self.items_, self.kind_ = model.items_, model.kind_
        # Column by item_id, or by its own number if the fit had no items table.
        self.columns_ = column_of(self.items_, len(self.likelihood_.loadings))
        self.item_ids_ = list(self.columns_)
        self.near_duplicates_ = None
        self.drift_ = TemporalDrift.none(
            self.likelihood_.loadings.shape[1], len(self.scores_.names)
        )

    # Rows: the models that forecasts are asked of.

    def _attach(self, responses, lineage, models):
        """Take these models as the rows, those of the fit among them by their ids."""
        self.responses_, self._beliefs = responses, None
        ids = lineage.node_ids[: lineage.n_models]
        self.place_ = pd.Index(self.trained_ids_).get_indexer(ids)
        # The lineage of the rows and of the fit, the rows first, then the rest of the fit.
        edges = pd.concat([lineage.edges, self.trained_edges_]).drop_duplicates(["parent", "child"])
        rest = self.trained_ids_[~pd.Index(self.trained_ids_).isin(ids)]
        self.lineage_ = Lineage.from_edges(edges, [*ids, *rest])
        is_trained = np.concatenate([self.place_ >= 0, np.ones(len(rest), bool)])
        self.isolated_ = lacks_evaluated_relatives(self.lineage_, is_trained, np.arange(len(ids)))
        # Descriptions of the rows that the fit does not know.
        table = pd.DataFrame({"model_id": ids}) if models is None else models
        self.later_ = self.drift_.is_later(table)
        others = np.flatnonzero(self.place_ < 0)
        self.other_, self.notes_ = None, []
        if others.size:
            shown = table if self.use_cards else table[["model_id"]]
            self.other_, self.notes_ = self.prior_.describer.describe(
                shown.iloc[others], self.lineage_.edges
            )
        # Rows whose responses are those that the fit knows.
        self._is_unchanged = self.place_ >= 0
        if responses is not self.trained_responses_:
            for row in np.flatnonzero(self._is_unchanged):
                known = self.trained_responses_[self.place_[row]]
                self._is_unchanged[row] = np.array_equal(responses[row], known, equal_nan=True)
        self._number = np.full(len(ids), -1)
        self._number[others] = np.arange(others.size)
        candidates = pd.Index(self.lineage_.node_ids).get_indexer(self.trained_ids_)
        self._kinship = Relatedness(self.lineage_, candidates)

    def _attach_leaves(self, cards, parents):
        """Take new models as the rows: their cards, and pairs (id, relation) of each."""
        table = pd.DataFrame(cards)
        shown = table if self.use_cards else table[["model_id"]]
        kinship = self._kinship
        known = pd.Index(kinship.lineage.node_ids)
        nodes = [known.get_indexer([parent for parent, _ in own]) for own in parents]
        edges = [
            (parent, name, relation)
            for name, own, places in zip(table["model_id"], parents, nodes, strict=True)
            for (parent, relation), node in zip(own, places, strict=True) if node >= 0
        ]  # fmt: skip
        n = len(table)
        self.place_, self._number, self._beliefs = np.full(n, -1), np.arange(n), None
        self._is_unchanged = np.zeros(n, bool)
        other, self.notes_ = self.prior_.describer.describe(shown, edges)
        self.other_ = self.prior_.filled(other)
        self.later_ = self.drift_.is_later(table)
        unknown = [
            parent for own, places in zip(parents, nodes, strict=True)
            for (parent, _), node in zip(own, places, strict=True) if node < 0
        ]  # fmt: skip
        self.notes_ += [
            f"the parent {parent} is not known; the forecast goes on without it"
            for parent in dict.fromkeys(unknown)
        ]
        kin = np.concatenate([kinship.of_leaf(places[places >= 0]) for places in nodes])
        self._kin = lambda rows: kin[rows]
        self.isolated_ = ~(kin > 0).any(axis=1)

    def _kin(self, rows):
        return self._kinship.of(rows)

    def _belief_of(self, rows):
        """Beliefs about the rows' states without their own responses."""
        if self._beliefs is None and len(self.place_) <= _AT_ONCE:
            self._beliefs = self._beliefs_of(np.arange(len(self.place_)))
        belief = self._beliefs_of(rows) if self._beliefs is None else self._beliefs[rows]
        return belief.shift(self._offset(rows))

    def _offset(self, rows):
        """Later models are moved by what the latest training models had over their forecasts."""
        return self.drift_.shift[self.isolated_[rows].astype(int)] * self.later_[rows, None]

    def _beliefs_of(self, rows):
        place, number = self.place_[rows], self._number[rows]
        p = self.likelihood_.loadings.shape[1]
        belief = Gaussians(np.empty((len(rows), p, p)), np.empty((len(rows), p)))
        is_trained = place >= 0
        for own, forecast in (
            (is_trained, lambda: self.prior_.leave_one_out(place[is_trained])),
            (~is_trained, lambda: self.prior_.forecast(self.other_[number[~is_trained]])),
        ):
            if own.any():
                part = forecast()
                belief.precision[own], belief.information[own] = part.precision, part.information
        return belief

    # Learning from training models that are forecast as if they were new.

    def _learn(self, model, describer, rng, models):
        rows = self._choose(rng)
        # Near-duplicates and intervals are learned from models forecast as if they were new.
        cross_fitted = self._cross_fitted(rows, model, describer)
        cross_fitted._learn_few_shot(rows, rng)
        self.calibration_ = cross_fitted.calibration_
        if cross_fitted.near_duplicates_ is not None:
            weights = cross_fitted.near_duplicates_.mixture_weights
            self.near_duplicates_ = NearDuplicates(self.responses_, weights)
        self._learn_drift(models)

    def _choose(self, rng):
        """Training models with and without relatives, for cross-fitting."""
        rows = np.arange(len(self.responses_))
        # Up to `most` of either group, fewer where a model has many cells.
        groups = [rng.permutation(rows[self.isolated_ == group]) for group in (False, True)]
        size = self._config.most_cells // self.responses_.shape[1]
        size = np.clip(size, self._config.min_models, self._config.most)
        return np.sort(np.concatenate([group[:size] for group in groups]))

    def _cross_fitted(self, rows, model, describer):
        """A forecaster whose items were fitted without these models' answers (cross-fitting).

        Item parameters overfit when items have few answers, so residuals of models used in the fit
        are too small. With many answers the effect is small, and this forecaster will do, as it
        must where too few models would be left to fit items to.
        """
        # Answers per parameter of an item decide whether overfitting matters.
        n_answers = observed_counts(self.responses_).sum() / self.responses_.shape[1]
        is_few = n_answers < self._config.enough_answers * (model.rank + 1)
        if not (self.kind_ is ANSWERS and is_few and 2 * rows.size < len(self.responses_)):
            return self
        # Items without these models' answers, then states of all models given these items.
        among = model.lineage_
        other = LRMF(**model.get_params())
        other.fit(without(self.responses_, rows), among, items=self.items_)
        other = other.adapt(self.responses_, among)
        new = copy.copy(self)
        new._set_items(other)
        new.evidence_ = other.evidence_
        new.prior_ = StatePrior(covariance=self.prior_.covariance_, seed=self.seed)
        new.prior_.fit(other.evidence_, other.gram, describer)
        new._beliefs = None
        return new

    def _learn_few_shot(self, chosen, rng):
        """Forecast these models as if few of their responses were known; learn from it."""
        given = self.responses_[chosen]
        seen = observed(given)
        place = random_places(seen, rng)
        # Numbers of revealed responses that enough models can spare.
        n_left = seen.sum(axis=1)
        levels = [
            k for k in self.kind_.n_revealed_calibration
            if (n_left > k).sum() >= self._config.min_models
        ]  # fmt: skip
        shown = {k: reveal(given, place < k) for k in levels}
        if self.kind_ is ANSWERS and self.use_near_duplicates and chosen.size:
            self.near_duplicates_ = NearDuplicates(self.responses_)
            for k in CONFIG.n_revealed:
                if k in shown:
                    answers = RevealedAnswers(shown[k])
                    # Expected answers as they would have been when each one came in.
                    expected = self._in_turn(chosen, self._states(chosen, shown[k]), answers)
                    self.near_duplicates_.learn(
                        k, self._kin_of(chosen), self.isolated_[chosen], expected, answers
                    )
        shown = {0: reveal(given, False)} | shown
        forecasts = {k: self._scored(chosen, given, revealed) for k, revealed in shown.items()}
        self.calibration_ = IntervalCalibration.fit(forecasts, single=self.kind_ is ANSWERS)

    def _scored(self, rows, given, revealed):
        """`ScoredForecasts` of training models with only some of their responses revealed."""
        target = observed(given) & ~observed(revealed)
        score, deviation = (np.full((rows.size, len(self.scores_.names)), np.nan) for _ in "ab")
        for block, part in self._blocks(rows, revealed):
            _, score[block], deviation[block] = self._moments(
                rows[block], part, part, target[block]
            )
        return ScoredForecasts(
            score,
            deviation,
            self.scores_.actual(given, target),
            self.scores_.n_observed(reveal(given, target)),
            self.isolated_[rows],
        )

    def _learn_drift(self, models):
        """Shift and widen forecasts of later models by the errors on the latest training models.

        The latest fifth is forecast from the earlier models, the items as fitted.
        """
        # Without enough dates there is no drift.
        config = DriftConfig()
        found = late_models(models, np.ones(len(self.responses_), bool), config)
        if found is None:
            return
        late, column, later_than = found
        rows = np.flatnonzero(late)
        belief = self.prior_.leave_set_out(rows)
        # What the latest models' own responses move their states by, given the earlier models.
        is_trained = np.zeros(self.lineage_.n_models, bool)
        is_trained[: len(late)] = ~late
        isolated = lacks_evaluated_relatives(self.lineage_, is_trained, rows).astype(int)
        moved = (belief * self.model_.evidence(rows)).mean - belief.mean
        gram = self.model_.gram
        shift = np.stack(
            [
                shrunken_mean(moved[isolated == g], gram, min_models=config.min_models)
                for g in (0, 1)
            ]
        )
        errors = self._errors(belief.shift(shift[isolated]), rows, isolated)
        widening = np.maximum(coverage_scale(errors), 1.0)
        self.drift_ = TemporalDrift(column, later_than, shift, widening)
        self.later_ = self.drift_.is_later(models)

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

    # What `Forecasts` asks of a subclass.

    def _in_turn(self, rows, states, answers):
        """Expected answers, each given some of the others: what candidates compete with."""
        if not answers.cells.nnz:
            return np.zeros(0, np.float32)
        # Before any answer, and given all others.
        before = self.likelihood_.forecast_at(self._belief_of(rows), answers.cells)
        left_out = self.likelihood_.left_out(states, answers.cells)
        return forecast_in_turn(before, left_out, answers)

    def _states(self, rows, revealed):
        belief = self._belief_of(rows)
        given = self.responses_[rows] if revealed is None else revealed
        states = Gaussians(belief.precision.copy(), belief.information.copy())
        # What the fit has made of a model's responses, or what is revealed, if anything.
        is_kept = self._is_unchanged[rows] if revealed is None else np.zeros(len(rows), bool)
        is_new = ~is_kept & observed(given).any(axis=1)
        for own, update in (
            (is_kept, lambda: belief[is_kept] * self.evidence_[self.place_[rows[is_kept]]]),
            (is_new, lambda: self.likelihood_.fold_in(belief[is_new], given[is_new])),
        ):
            if own.any():
                part = update()
                states.precision[own], states.information[own] = part.precision, part.information
        return states

    def _refined(self, rows, revealed, states, expected, items):
        # Own training answers, or only the revealed ones; nothing is left to learn where all are.
        given = self.responses_[rows] if revealed is None else revealed
        part = np.flatnonzero(~observed(given).all(axis=1))
        if self.near_duplicates_ is None or not part.size:
            return expected
        weights = self._candidate_weights(rows[part], states[part], given[part])
        refined = expected.copy()
        refined[part] = self.near_duplicates_.blend(weights, expected[part], items)
        return refined

    def _candidate_weights(self, rows, states, given):
        """Weights of the models that these may be near-duplicates of, given their answers."""
        answers = RevealedAnswers(given)
        in_turn = self._in_turn(rows, states, answers)
        return self.near_duplicates_.weights(
            self._kin_of(rows), self.isolated_[rows], in_turn, answers
        )

    def _kin_of(self, rows):
        return lambda block: self._kin(rows[block])

    def _calibrated(self, score, deviation, rows, given, share=1.0):
        isolated = self.isolated_[rows]
        deviation = self.calibration_(score, deviation, observed_counts(given), isolated, share)
        return deviation * np.where(self.later_[rows][:, None], self.drift_.widening, 1.0)
