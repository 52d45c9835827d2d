"""The Forecaster: a prior over model states from lineage, cards and names, updated by answers."""

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
from ..data.schema import check_card
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
from ..threads import in_threads, threads
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
from .new_model import ROUNDING, NewModel
from .saved_fit import load_fit, save_fit
from .state_prior import StatePrior

_MODELS_PER_FACTOR = 15  # minimum number of evaluated models, and of items, for each factor
_N_CACHED = 5000  # number of rows up to which their leave-one-out priors are cached


@dataclass(frozen=True)
class CrossFitConfig:
    """Constants of cross-fitting, from which near-duplicates and calibration are learned.

    Attributes
    ----------
    min_models : int
        Minimum number of models with more responses than are revealed, for each number revealed.
    most : int
        Maximum number of models with evaluated relatives, and of models without, in the sample.
    most_cells, most_cells_if_few : int
        Maximum number of cells of either group where responses are revealed; the second where
        answers are few.
    enough_answers : int
        Answers per item parameter below which answers are few and item parameters overfit, so that
        residuals of models used in the fit are too small. A second fit then leaves the sampled
        models out, and calibration is by half of each model's answers.
    """

    min_models: int = 40
    most: int = 400
    most_cells: int = 2_000_000
    most_cells_if_few: int = 6_000_000
    enough_answers: int = 50


class Forecaster(Forecasts, Estimator):
    """Forecast of a model from its lineage, card and name, and from its answers, if any.

    The stages are objects that are fitted and then called:

    1. `LRMF` fits the items, and gives the evidence of each model's responses about its state.
    2. `StatePrior`, a Gaussian process over lineage, card and name, gives the prior of a state.
    3. The likelihood folds in revealed answers.
    4. `NearDuplicates` mixes in the answers of models of which this one may be a copy.
    5. `IntervalCalibration` scales standard deviations so that intervals have nominal coverage.
    6. `TemporalDrift` shifts and widens forecasts of later models.

    No stage is learned from responses that its forecasts are compared with.

    Parameters
    ----------
    rank, lineage_strength : optional
        Parameters of `LRMF`. None is the default for the kind of responses; for answers the rank is
        then at most one factor for every 15 evaluated models and for every 15 items.
    use_lineage, use_cards, use_names, use_near_duplicates : bool
        Whether to use the lineage, the fields of cards (dates mark later models in any case), names
        and organizations, and near-duplicates.
    n_threads : int, optional
    seed : int

    Attributes
    ----------
    model_ : LRMF, of the evaluated models
    prior_ : StatePrior
    near_duplicates_ : NearDuplicates or None
    calibration_ : IntervalCalibration
    drift_ : TemporalDrift
    notes_ : list of str
        Warnings on the models to forecast, such as implausible sizes and unknown parents.

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
    >>> before = forecaster.predict([2, 5]).scores["score"]
    >>> bool(before[0] > before[1])
    True
    >>> shown = np.array([[1, 1] + [255] * 18], dtype=np.uint8)
    >>> bool(forecaster.predict([5], revealed=shown).scores["score"][0] > before[1])
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
        """Fit all stages to the models that have responses.

        Parameters
        ----------
        responses, lineage, items : as in `LRMF.fit`
            The responses are not copied: to change them in place changes the forecasts.
        models : DataFrame, optional
            The models table, with the ids of the lineage in the same order.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data are not valid, or no response is observed.
        """
        # Check all input before the first stage is fitted.
        responses = unmasked(responses)
        LRMF(seed=self.seed, n_threads=self.n_threads).check(responses, lineage, items, models)
        lineage = self._used_lineage(lineage)
        rng = np.random.default_rng([self.seed, 11])
        evaluated = has_responses(responses)
        if not evaluated.any():
            raise ValueError("responses has no observed cell; there is nothing to learn from")
        with threads(self.n_threads):
            # Descriptions of all models from cards, names and lineage.
            describer = Describer(self._shown(models), lineage, evaluated, use_names=self.use_names)
            training = responses if evaluated.all() else responses[evaluated]
            self.trained_edges_ = lineage.edges
            self.trained_ids_ = np.array(describer.ids[: describer.n_evaluated], dtype=object)
            # Fit the items to the evaluated models, with the lineage above these.
            is_above = lineage.edges["child"].isin(describer.above)
            among = Lineage.from_edges(lineage.edges[is_above], self.trained_ids_)
            table = None if models is None else models[evaluated].reset_index(drop=True)
            model = LRMF(**self._parameters(responses)).fit(training, among, items=items)
            self._set_items(model)
            # Fit the prior of the states to the evidence of the responses.
            self.prior_ = StatePrior(seed=self.seed).fit(model.evidence_, model.gram, describer)
            self.trained_responses_, self.evidence_ = training, model.evidence_
            blocks = (block for _, block in row_blocks(training, bytes_per_cell=8))
            self.trained_scores_ = np.concatenate(
                [self.scores_.actual(block, observed(block)) for block in blocks]
            )
            # Learn near-duplicates, calibration and drift with the training models as rows, then
            # take all models as rows.
            self._set_rows(training, among, table)
            self._learn_from_training_models(model, describer, rng, table)
            if not evaluated.all():
                self._set_rows(responses, lineage, models)
        return self

    def adapt(self, responses, lineage, *, models=None):
        """The same fit with the models of another snapshot as rows; no stage is fitted again.

        Parameters
        ----------
        responses, lineage, models : as in `fit`, over the same items in the same order
            Forecasts of a model use its responses.

        Returns
        -------
        Forecaster

        Raises
        ------
        ValueError
            If the data are not valid, or the items or the kind of responses differ.
        """
        check_is_fitted(self)
        responses = unmasked(responses)
        LRMF().check(responses, lineage, None, models)
        kind, n_items = kind_of(responses), responses.shape[1]
        if (n_items, kind) != (self.responses_.shape[1], self.kind_):
            raise ValueError(
                f"the fit has {self.responses_.shape[1]} items of {self.kind_.name}; this snapshot "
                f"has {n_items} of {kind.name}"
            )
        new = copy.copy(self)
        with threads(self.n_threads):
            new._set_rows(responses, self._used_lineage(lineage), models)
        return new

    def fold_in(self, *, parents=(), card=None, answers=None):
        """Forecast a new model, as if it were a row of the snapshot.

        A model of the fit, by its id, is forecast without the responses that the fit has of it,
        with a note.

        Parameters
        ----------
        parents : sequence of ids, also as URLs of the Hub, or (id, relation)
            Evaluated or not. A parent that is not in the lineage is ignored, with a note.
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
            If a relation is unknown, an item not a column, an answer out of range, a field of the
            card of another type than in a models table, or the model its own ancestor.
        """
        check_is_fitted(self)
        parents = read_parents(() if parents is None else parents, self._relatedness.lineage)
        card = _named(card, "")
        new = copy.copy(self)
        answers = {} if answers is None else answers
        new.responses_ = revealed_row(answers, self.columns_, self.responses_.dtype)
        new.n_threads = 1
        with threads(1):
            new._set_new_rows([card], [parents if self.use_lineage else []])
            new._prior_of(np.zeros(1, int))  # caches the prior for all updates
        known = pd.Index(self.trained_ids_).get_indexer([parent for parent, _ in parents])
        return NewModel(new, known[known >= 0])

    def fold_in_each(self, parents, cards=None):
        """Forecast several new models without responses, each as by `fold_in`.

        Parameters
        ----------
        parents : sequence, for each model a sequence of ids or (id, relation)
        cards : sequence of mappings, optional, one for each model, with different model_id

        Returns
        -------
        Forecasts : a row for each model

        Raises
        ------
        ValueError
            As by `fold_in`; also without any model, or if cards repeat a model_id or are fewer or
            more than the models.
        """
        check_is_fitted(self)
        lineage = self._relatedness.lineage
        parents = [read_parents(() if pairs is None else pairs, lineage) for pairs in parents]
        cards = [None] * len(parents) if cards is None else list(cards)
        if not parents or len(cards) != len(parents):
            raise ValueError(f"parents is of {len(parents)} models and cards of {len(cards)}; give "
                             "both of the same models, at least one")  # fmt: skip
        # Distinct ids, whose organization is that of no model, and whose names are empty.
        cards = [_named(card, f"new model {n}/") for n, card in enumerate(cards)]
        ids = pd.Index([card["model_id"] for card in cards])
        if ids.has_duplicates:
            raise ValueError(f"cards repeat the model_id {ids[ids.duplicated()][0]!r}; give every "
                             "model its own, or none")  # fmt: skip
        new = copy.copy(self)
        kind = kind_of(self.responses_)
        shape = len(parents), self.responses_.shape[1]
        new.responses_ = np.full(shape, kind.missing, self.responses_.dtype)
        with threads(self.n_threads):
            new._set_new_rows(cards, parents if self.use_lineage else [[] for _ in parents])
        return new

    def plan_merges(self, candidates=None, n_parents=2, *, objective="mean", top=20, size=None):
        """Which evaluated models to merge next; see `lrmf.forecaster.merges.plan_merges`."""
        check_is_fitted(self)
        return plan_merges(self, candidates, n_parents, objective=objective, top=top, size=size)

    def explain(self, rows=None):
        """What the forecasts of some models without their own responses are based on.

        Parameters
        ----------
        rows : int array, optional, all models by default

        Returns
        -------
        DataFrame : row, nearest, relatedness, lineage, card_and_name (see
            `lrmf.forecaster.explanation.explain`), extrapolates (evaluated models explain less
            than a fifth of the variance, or a forecast is above every score of the fit)
        """
        rows = self._check_request(rows)
        if not rows.size:
            return self.explain([0])[:0]
        # Forecasts without responses that are above the best score of the fit.
        blank = reveal(self.responses_[rows], False)
        scores = self.predict(rows, revealed=blank).scores["score"].to_numpy()
        best = np.nanmax(self.trained_scores_, axis=0) + ROUNDING
        above = (scores.reshape(len(rows), -1) > best).any(axis=1)
        # Training models and other models, in blocks.
        place, parts = self.place_[rows], []
        for group in (np.flatnonzero(place >= 0), np.flatnonzero(place < 0)):
            for part in np.array_split(group, -(-group.size // BLOCK)) if group.size else ():
                described = (
                    self.prior_.nodes[place[part]] if place[part[0]] >= 0
                    else self.prior_.filled(self.other_[self._other_row[rows[part]]])
                )  # fmt: skip
                explained = explain(self.prior_, described, self._relatedness_to(rows[part]))
                parts.append(pd.DataFrame(explained, index=part))
        frame = pd.concat(parts).sort_index()
        frame["nearest"] = [", ".join(self.trained_ids_[near]) for near in frame["nearest"]]
        return frame.assign(row=rows, extrapolates=frame.pop("is_far") | above)

    def save(self, path):
        """Write the fit to an .npz file with a checksum, without pickle."""
        check_is_fitted(self)
        with output(Path(path)) as file:
            save_fit(file, self)

    @classmethod
    def load(cls, path):
        """Load the fit of a file from `save`; its rows are the models of the fit.

        Raises
        ------
        SavedFitError
            If the file is damaged, of another version, or not a fit.
        """
        return load_fit(path, cls)

    def __reduce_ex__(self, protocol):
        """The parameters for pickle; a fit is a file of `save`, from which `load` runs no code."""
        if hasattr(self, "prior_"):
            raise TypeError(
                "a fitted Forecaster is not pickled; write it with save(path) and read it with "
                "Forecaster.load(path)"
            )
        return super().__reduce_ex__(protocol)

    def __copy__(self):
        new = type(self).__new__(type(self))
        new.__dict__ |= self.__dict__
        return new

    def __deepcopy__(self, memo):
        memo[id(self)] = new = copy.copy(self)
        new.__dict__ = copy.deepcopy(self.__dict__, memo)
        return new

    @property
    def reads_cards(self):
        """Whether forecasts depend on model cards."""
        return bool({"size", "type", "architecture"} & set(self.prior_.covariance_.parameters))

    @property
    def reads_sizes(self):
        """Whether forecasts depend on the sizes on model cards."""
        return self.use_cards and "size" in self.prior_.covariance_.parameters

    @property
    def chosen_(self):
        """How near forecasts are drawn to the parents, the one parameter chosen from a grid."""
        return {"reach": self.prior_.reach}

    @property
    def stats_(self):
        """Statistics of the fit of the items, and the learned parameters of the covariance."""
        parameters = self.prior_.covariance_.parameters
        learned = {name: float(f"{value:.3g}") for name, value in parameters.items()}
        return self.model_.stats_ | {"covariance": learned}

    def _parameters(self, responses):
        """Parameters of `LRMF`: the given ones, and the defaults for the kind of responses."""
        given = {"rank": self.rank, "lineage_strength": self.lineage_strength}
        given = {name: value for name, value in given.items() if value is not None}
        parameters = LIKELIHOODS[kind_of(responses)].defaults | {"use_features": False} | given
        if self.rank is None and kind_of(responses) is ANSWERS:
            # Few models or items determine few factors.
            smaller = min(has_responses(responses).sum(), responses.shape[1])
            parameters["rank"] = min(parameters["rank"], max(1, smaller // _MODELS_PER_FACTOR))
        parameters["rank"] = min(parameters["rank"], responses.shape[1])
        return parameters | {"seed": self.seed, "n_threads": self.n_threads}

    def _used_lineage(self, lineage):
        """The lineage, without its edges if `use_lineage` is False."""
        return lineage if self.use_lineage else lineage.drop_edges(np.ones(lineage.n_edges, bool))

    def _shown(self, models):
        """The models table, or None if `use_cards` is False."""
        return models if self.use_cards else None

    def _set_items(self, model):
        """Take the fitted items of `model`, before near-duplicates and drift are learned."""
        self.model_, self.likelihood_, self.scores_ = model, model.likelihood_, model.scores_
        self.items_, self.kind_ = model.items_, model.kind_
        self.columns_ = column_of(self.items_, len(self.likelihood_.loadings))
        self.item_ids_ = list(self.columns_)
        self.near_duplicates_ = None
        self.drift_ = TemporalDrift.none(
            self.likelihood_.loadings.shape[1], len(self.scores_.names)
        )

    # Rows: the models to forecast.

    def _set_rows(self, responses, lineage, models):
        """Take these models as the rows. Models of the fit are recognised by their ids."""
        # Position of each row among the training models, -1 for other models.
        self.responses_, self._cached_priors = responses, None
        ids = lineage.node_ids[: lineage.n_models]
        self.place_ = pd.Index(self.trained_ids_).get_indexer(ids)
        # The lineage of rows and fit together: first the rows, then the other training models.
        edges = pd.concat([lineage.edges, self.trained_edges_]).drop_duplicates(["parent", "child"])
        rest = self.trained_ids_[~pd.Index(self.trained_ids_).isin(ids)]
        self.lineage_ = Lineage.from_edges(edges, [*ids, *rest])
        is_trained = np.concatenate([self.place_ >= 0, np.ones(len(rest), bool)])
        self.lacks_relatives_ = lacks_evaluated_relatives(
            self.lineage_, is_trained, np.arange(len(ids))
        )
        # Descriptions of the rows that are not training models.
        table = pd.DataFrame({"model_id": ids}) if models is None else models
        self.later_ = self.drift_.is_later(table)
        others = np.flatnonzero(self.place_ < 0)
        self.other_, self.notes_ = None, []
        if others.size:
            fields = table if self.use_cards else table[["model_id"]]
            self.other_, self.notes_ = self.prior_.describer.describe(
                fields.iloc[others], self.lineage_.edges
            )
        # Rows with the same responses as in the fit, whose evidence is known.
        self._is_unchanged = self.place_ >= 0
        if responses is not self.trained_responses_:
            for row in np.flatnonzero(self._is_unchanged):
                known = self.trained_responses_[self.place_[row]]
                self._is_unchanged[row] = np.array_equal(responses[row], known, equal_nan=True)
        self._itself = np.full(len(ids), -1)
        self._other_row = np.full(len(ids), -1)
        self._other_row[others] = np.arange(others.size)
        candidates = pd.Index(self.lineage_.node_ids).get_indexer(self.trained_ids_)
        self._relatedness = Relatedness(self.lineage_, candidates)

    def _set_new_rows(self, cards, parents):
        """Take new models as the rows.

        Parameters
        ----------
        cards : sequence of mappings, with model_id
        parents : sequence of lists of (id, relation)
        """
        # Edges from the parents that are nodes of the lineage.
        table = pd.DataFrame(cards)
        fields = table if self.use_cards else table[["model_id"]]
        known = pd.Index(self._relatedness.lineage.node_ids)
        nodes = [known.get_indexer([parent for parent, _ in pairs]) for pairs in parents]
        edges = [
            (parent, name, relation)
            for name, pairs, found in zip(table["model_id"], parents, nodes, strict=True)
            for (parent, relation), node in zip(pairs, found, strict=True) if node >= 0
        ]  # fmt: skip
        # Descriptions of the new models; none has responses of the fit.
        n = len(table)
        self.place_, self._other_row, self._cached_priors = np.full(n, -1), np.arange(n), None
        self._is_unchanged = np.zeros(n, bool)
        other, self.notes_ = self.prior_.describer.describe(fields, edges)
        self.other_ = self.prior_.filled(other)
        self.later_ = self.drift_.is_later(table)
        unknown = [
            parent for pairs, found in zip(parents, nodes, strict=True)
            for (parent, _), node in zip(pairs, found, strict=True) if node < 0
        ]  # fmt: skip
        self.notes_ += [
            f"the parent {parent} is not known; the forecast goes on without it"
            for parent in dict.fromkeys(unknown)
        ]
        # Relatedness to the training models, which replaces that of rows in the lineage. A model
        # that is one of them is forecast without its own responses.
        relatedness = np.concatenate(
            [self._relatedness.of_leaf(found[found >= 0]) for found in nodes]
        )
        self._itself = pd.Index(self.trained_ids_).get_indexer(table["model_id"])
        evaluated = np.flatnonzero(self._itself >= 0)
        relatedness[evaluated, self._itself[evaluated]] = -1
        self.notes_ += [
            f"{name} has been evaluated; the forecast does without its own scores"
            for name in table["model_id"].iloc[evaluated]
        ]
        self._relatedness_to = lambda rows: relatedness[rows]
        self.lacks_relatives_ = ~(relatedness > 0).any(axis=1)

    def _relatedness_to(self, rows):
        """Relatedness of the training models to the rows, int8 (n, n_trained)."""
        return self._relatedness.of(rows)

    def _prior_of(self, rows):
        """Leave-one-out priors of the rows' states, shifted by temporal drift."""
        # Up to 5,000 rows are computed once and cached.
        if self._cached_priors is None and len(self.place_) <= _N_CACHED:
            self._cached_priors = self._leave_one_out_priors(np.arange(len(self.place_)))
        prior = (
            self._leave_one_out_priors(rows)
            if self._cached_priors is None
            else self._cached_priors[rows]
        )
        return prior.shift(self._drift_shift(rows))

    def _drift_shift(self, rows):
        """Shift (n, p) of the rows' states by temporal drift, 0 for models that are not later."""
        return self.drift_.shift[self.lacks_relatives_[rows].astype(int)] * self.later_[rows, None]

    def _leave_one_out_priors(self, rows):
        """Leave-one-out priors of training models, priors of other models, Gaussians (n)."""
        place, other_row = self.place_[rows], self._other_row[rows]
        is_trained = place >= 0
        return self._combined(
            len(rows),
            (is_trained, lambda: self.prior_.leave_one_out(place[is_trained])),
            (
                ~is_trained,
                lambda: self.prior_.forecast(
                    self.other_[other_row[~is_trained]], left_out=self._itself[rows[~is_trained]]
                ),
            ),
        )

    def _combined(self, n, *parts):
        """Gaussians (n) from (mask, function that returns the Gaussians of these rows) pairs."""
        p = self.likelihood_.loadings.shape[1]
        combined = Gaussians(np.empty((n, p, p)), np.empty((n, p)))
        for mask, compute in parts:
            if mask.any():
                part = compute()
                combined.precision[mask] = part.precision
                combined.information[mask] = part.information
        return combined

    # Learning from training models that are forecast as if they were new.

    def _learn_from_training_models(self, model, describer, rng, models):
        """Learn near-duplicates, interval calibration and temporal drift."""
        rows, zero_shot = self._choose(rng)
        # The first two are learned from models that are forecast as if they were new.
        cross_fitted = self._cross_fitted(rows, model, describer)
        cross_fitted._learn_from_revealed(rows, zero_shot, rng)
        self.calibration_ = cross_fitted.calibration_
        if cross_fitted.near_duplicates_ is not None:
            weights = cross_fitted.near_duplicates_.mixture_weights
            self.near_duplicates_ = NearDuplicates(self.responses_, weights)
        self._learn_drift(models)

    def _choose(self, rng):
        """Samples of training models with and without evaluated relatives, for cross-fitting.

        Returns
        -------
        rows : int (n,), of which responses are revealed
        zero_shot : int (m,), these and others, whose forecasts without responses cost less
        """
        groups = [
            rng.permutation(np.flatnonzero(self.lacks_relatives_ == group))
            for group in (False, True)
        ]
        # Up to `most` of either group; where responses are revealed, fewer if there are many items.
        config, are_few = self._config, self._answers_are_few()
        size = (config.most_cells_if_few if are_few else config.most_cells) // len(self.columns_)
        size = np.clip(size, config.min_models, config.most)
        rows, zero_shot = (
            np.sort(np.concatenate([group[:most] for group in groups]))
            for most in (size, config.most)
        )
        # Where answers are few, items are fitted without the sample, which has to be small.
        return rows, rows if are_few else zero_shot

    def _answers_are_few(self):
        """Whether there are too few answers per item parameter to neglect overfitting."""
        n_parameters = self.likelihood_.loadings.size
        n_answers = observed_counts(self.responses_).sum()
        return self.kind_ is ANSWERS and n_answers < self._config.enough_answers * n_parameters

    def _cross_fitted(self, rows, model, describer):
        """A forecaster whose items were fitted without these models' answers (cross-fitting).

        Item parameters overfit when items have few answers, so residuals of models used in the fit
        are too small. With many answers the effect is small, and `self` is returned; so it is if no
        more than half of the models would remain to fit the items to.
        """
        if not (self._answers_are_few() and 2 * rows.size < len(self.responses_)):
            return self
        # Fit items without these models' answers, then states of all models given these items.
        among = model.lineage_
        other = LRMF(**model.get_params())
        other.fit(without(self.responses_, rows), among, items=self.items_)
        other = other.adapt(self.responses_, among)
        new = copy.copy(self)
        new._set_items(other)
        new.evidence_ = other.evidence_
        new.prior_ = StatePrior(covariance=self.prior_.covariance_, seed=self.seed)
        new.prior_.fit(other.evidence_, other.gram, describer)
        new._cached_priors = None
        return new

    def _learn_from_revealed(self, chosen, zero_shot, rng):
        """Learn near-duplicates and calibration, as if models had few responses, or none.

        Parameters
        ----------
        chosen, zero_shot : as `_choose` returns them
        rng : numpy Generator, draws the responses that are revealed
        """
        given = self.responses_[chosen]
        is_observed = observed(given)
        # A random order of each model's responses, of which the first k are revealed.
        order = random_places(is_observed, rng)
        # Numbers k for which enough models have more responses than k.
        n_observed = is_observed.sum(axis=1)
        levels = [
            k for k in self.kind_.n_revealed_calibration
            if (n_observed > k).sum() >= self._config.min_models
        ]  # fmt: skip
        revealed = {k: reveal(given, order < k) for k in levels}
        if self.kind_ is ANSWERS and self.use_near_duplicates and chosen.size:
            self.near_duplicates_ = NearDuplicates(self.responses_)
            for k in CONFIG.n_revealed:
                if k in revealed:
                    # Mixture weights from the likelihood of the revealed answers.
                    answers = RevealedAnswers(revealed[k])
                    states = self._states(chosen, revealed[k])
                    expected = self._sequential_forecasts(chosen, states, answers)
                    self.near_duplicates_.learn(
                        k,
                        self._relatedness_of_block(chosen),
                        self.lacks_relatives_[chosen],
                        expected,
                        answers,
                    )
        if self._answers_are_few():
            # Half of each model's answers, so that enough of them are left to be forecast.
            half = n_observed // 2
            revealed = {max(1, round(half.mean())): reveal(given, order < half[:, None])}
        # Calibration from forecasts of the responses that are not revealed, k = 0 included.
        others = self.responses_[zero_shot]
        at_start = self._scored(zero_shot, others, reveal(others, False))
        scored = in_threads(lambda part: self._scored(chosen, given, part), [*revealed.values()])
        forecasts = {0: at_start} | dict(zip(revealed, scored, strict=True))
        self.calibration_ = IntervalCalibration.fit(forecasts)

    def _scored(self, rows, given, revealed):
        """`ScoredForecasts` of training models with only some of their responses revealed."""
        shape = rows.size, len(self.scores_.names)
        score, deviation, actual, n_target, excess = (np.full(shape, np.nan) for _ in range(5))

        def score_block(block_and_part):
            block, part = block_and_part
            target = observed(given[block]) & ~observed(part)
            expected, score[block], deviation[block] = self._moments(
                rows[block], part, part, target
            )
            actual[block] = self.scores_.actual(given[block], target)
            n_target[block] = self.scores_.n_observed(reveal(given[block], target))
            if self.kind_ is ANSWERS:
                excess[block] = self.scores_.answer_excess(expected, given[block], target)

        # The first block fills the caches of the fit.
        blocks = [*self._blocks(rows, revealed)]
        in_threads(score_block, blocks[:1])
        in_threads(score_block, blocks[1:])
        return ScoredForecasts(
            score,
            deviation,
            actual,
            n_target.astype(int),
            self.lacks_relatives_[rows],
            excess if self.kind_ is ANSWERS else None,
        )

    def _learn_drift(self, models):
        """Learn shift and widening of later models from an out-of-time split.

        The latest fifth of the training models is forecast from the earlier ones. The items are
        those of the fit.
        """
        # Without enough dates there is no drift.
        config = DriftConfig()
        split = late_models(models, np.ones(len(self.responses_), bool), config)
        if split is None:
            return
        late, column, later_than = split
        rows = np.flatnonzero(late)
        prior = self.prior_.leave_set_out(rows)
        is_trained = np.zeros(self.lineage_.n_models, bool)
        is_trained[: len(late)] = ~late
        lacks_relatives = lacks_evaluated_relatives(self.lineage_, is_trained, rows).astype(int)
        # Shift: mean of (posterior mean - prior mean) in either group, shrunk towards 0.
        offsets = (prior * self.model_.evidence(rows)).mean - prior.mean
        groups = [offsets[lacks_relatives == group] for group in (0, 1)]
        gram, min_models = self.model_.gram, config.min_models
        shift = np.stack([shrunken_mean(part, gram, min_models=min_models) for part in groups])
        # Widening: factor at which calibrated intervals of the shifted forecasts cover the errors.
        errors = self._errors(prior.shift(shift[lacks_relatives]), rows, lacks_relatives)
        widening = np.maximum(coverage_scale(errors), 1.0)
        self.drift_ = TemporalDrift(column, later_than, shift, widening)
        self.later_ = self.drift_.is_later(models)

    def _errors(self, prior, rows, lacks_relatives):
        """Standardised errors of zero-shot score forecasts, after calibration, (n, n_benchmarks).

        Parameters
        ----------
        prior : Gaussians (n), states of these models
        rows : int (n,)
        lacks_relatives : int (n,), 1 for models without evaluated relatives
        """
        unexplained = self.calibration_.unexplained[0, lacks_relatives]
        errors = [
            self.scores_.errors(
                self.likelihood_, prior[part], self.responses_[rows[part]],
                unexplained=unexplained[part],
            )
            for part in np.array_split(np.arange(rows.size), -(-rows.size // BLOCK))
        ]  # fmt: skip
        return np.concatenate(errors) / self.calibration_.scale[0, lacks_relatives]

    # The methods that `Forecasts` requires of a subclass.

    def _sequential_forecasts(self, rows, states, answers):
        """Sequential forecasts (n_cells,) of revealed answers, as in `forecast_in_turn`."""
        if not answers.cells.nnz:
            return np.zeros(0, np.float32)
        before = self.likelihood_.forecast_at(self._prior_of(rows), answers.cells)
        left_out = self.likelihood_.left_out(states, answers.cells)
        return forecast_in_turn(before, left_out, answers)

    def _states(self, rows, revealed):
        """Posterior of the rows' states given their own responses, or only the revealed ones."""
        prior = self._prior_of(rows)
        given = self.responses_[rows] if revealed is None else revealed
        # Prior times the evidence of the fit for unchanged responses; fold in others, if any.
        is_kept = self._is_unchanged[rows] if revealed is None else np.zeros(len(rows), bool)
        is_new = ~is_kept & observed(given).any(axis=1)
        return self._combined(
            len(rows),
            (is_kept, lambda: prior[is_kept] * self.evidence_[self.place_[rows[is_kept]]]),
            (is_new, lambda: self.likelihood_.fold_in(prior[is_new], given[is_new])),
            (~is_kept & ~is_new, lambda: prior[~is_kept & ~is_new]),
        )

    def _refined(self, rows, revealed, states, expected, items):
        """Expected responses blended with the answers of near-duplicates."""
        # Models with all responses revealed have nothing to forecast.
        given = self.responses_[rows] if revealed is None else revealed
        part = np.flatnonzero(~observed(given).all(axis=1))
        if self.near_duplicates_ is None or not part.size:
            return expected
        weights = self._candidate_weights(rows[part], states[part], given[part])
        refined = expected.copy()
        refined[part] = self.near_duplicates_.blend(weights, expected[part], items)
        return refined

    def _candidate_weights(self, rows, states, given):
        """Posterior weights of the training models of which these may be near-duplicates."""
        answers = RevealedAnswers(given)
        expected = self._sequential_forecasts(rows, states, answers)
        return self.near_duplicates_.weights(
            self._relatedness_of_block(rows), self.lacks_relatives_[rows], expected, answers
        )

    def _relatedness_of_block(self, rows):
        """Function of a slice of the rows, their relatedness to the training models."""
        return lambda block: self._relatedness_to(rows[block])

    def _calibrated(self, score, deviation, rows, given, share=1.0):
        """Calibrated standard deviations, those of later models widened."""
        lacks_relatives = self.lacks_relatives_[rows]
        deviation = self.calibration_(
            score, deviation, observed_counts(given), lacks_relatives, share
        )
        return deviation * np.where(self.later_[rows][:, None], self.drift_.widening, 1.0)


def _named(card, name):
    """A card, checked, with this model_id if it has none."""
    card = {} if card is None else dict(card)
    check_card(card)
    given = card.get("model_id")
    return card | {"model_id": given if isinstance(given, str) and given else name}
