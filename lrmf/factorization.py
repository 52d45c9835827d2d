"""LRMF: matrix factorization whose model factors are smooth over the models' family tree."""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Integral, Real

import numba
import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import BaseEstimator
from threadpoolctl import ThreadpoolController

from .bernoulli import AlternatingNewton, Bernoulli, count_answers, lay_out
from .features import model_features
from .gaussian import Gaussian
from .lineage import Lineage
from .prior import Gaussians, LineagePrior, pack
from .snapshot import MISSING, RELATIONS, observed

_BLOCK = 256  # models forecast at once
_CALIBRATION_MODELS = 400  # leave-one-out forecasts behind the width of the intervals


@dataclass(frozen=True)
class _Beliefs:
    marginals: Gaussians  # of what every node passes on, given all responses
    centre: np.ndarray  # (n_nodes, p) prior mean by features
    prior: Gaussians  # of every node's state, without its own responses
    own: Gaussians  # evidence of its own responses


class LRMF(BaseEstimator):
    """Lineage-regularized matrix factorization.

    Answers z_ui in {0, 1} of model u to item i, with model states t_u = [m_u, b_u]:

        min  sum_observed logloss(z_ui, sigma(c_i + b_u + m_u . x_i))
             + 1/2 sum_k t_k' (node_ridge I + lineage_strength L) t_k
             + 1/2 item_ridge |X|^2 + 1/2 intercept_ridge |c|^2

    over all nodes of the lineage (models, whether evaluated or not, and unscored ancestors), L its
    combinatorial Laplacian. Proportions: the same prior with a Gaussian likelihood on the
    standardised arcsine scale and the items' correlation in place of X (see `Gaussian`).

    A model without answers gets the harmonic extension of its lineage; without a scored relative
    its forecast is what its features (if used) or the item means say.

    Parameters
    ----------
    rank : int
        Number of factors (at most n_items for proportions).
    lineage_strength : float
        Precision lambda >= 0 along lineage edges; 0 is plain matrix factorization.
    node_ridge, item_ridge, intercept_ridge : float
        Ridge on model states, item factors and item intercepts, > 0.
    jump : float
        Variance of a model's own change that its lineage does not explain (proportions).
    regularize : {"both", "bias", "factors"}
        Which part of the model state the lineage regularizes (answers).
    use_features : bool
        Whether `fit` uses the models table as the prior mean of the states.
    few_shot_trust : float
        Tempering tau of the lineage prior when answers are folded in: N(t_u, S_u / tau).
    max_sweeps, tolerance : int, float
        Stop when two sweeps lower the objective by less than `tolerance`, relatively.
    n_threads : int, optional
        Threads of the compiled kernels; results do not depend on it.
    seed : int

    Attributes
    ----------
    model_factors_, model_bias_ : (n_nodes, rank), (n_nodes,)
    item_factors_, item_intercept_ : (n_items, rank), (n_items,)
    stats_ : dict
        Objective by sweep, conjugate-gradient iterations, seconds.
    """

    def __init__(
        self,
        rank=16,
        lineage_strength=3.0,
        *,
        node_ridge=1.0,
        item_ridge=10.0,
        intercept_ridge=0.01,
        jump=0.05,
        regularize="both",
        use_features=False,
        few_shot_trust=1.0,
        max_sweeps=100,
        tolerance=1e-3,
        n_threads=None,
        seed=0,
    ):
        self.rank = rank
        self.lineage_strength = lineage_strength
        self.node_ridge = node_ridge
        self.item_ridge = item_ridge
        self.intercept_ridge = intercept_ridge
        self.jump = jump
        self.regularize = regularize
        self.use_features = use_features
        self.few_shot_trust = few_shot_trust
        self.max_sweeps = max_sweeps
        self.tolerance = tolerance
        self.n_threads = n_threads
        self.seed = seed

    def fit(self, responses, lineage, *, items=None, models=None):
        """Fit model states and item parameters.

        Parameters
        ----------
        responses : (n_models, n_items), uint8 0/1/255 or float proportions with NaN
        lineage : Lineage over the same models
        items : DataFrame, optional
            item_id, benchmark and n_trials of the columns; without it one benchmark, "all".
        models : DataFrame, optional
            The models table, read when `use_features`.

        Returns
        -------
        self
        """
        self._prepare(responses, lineage, items, models)
        rng = np.random.default_rng(self.seed)
        with _threads(self.n_threads):
            if self.is_binary_:
                self._fit_answers(rng)
            else:
                n_trials = None if items is None else items["n_trials"].to_numpy()
                self.likelihood_ = Gaussian.fit(
                    responses, n_trials=n_trials, rank=self.rank, jump=self.jump
                )
                self._solve_proportions()
        return self

    def _check_parameters(self):
        rules = {
            "rank": (Integral, 1, 1024), "lineage_strength": (Real, 0, 1e9),
            "node_ridge": (Real, 1e-6, 1e9), "item_ridge": (Real, 1e-9, 1e9),
            "intercept_ridge": (Real, 1e-9, 1e9), "jump": (Real, 0, 1e3),
            "few_shot_trust": (Real, 1e-6, 1e6), "max_sweeps": (Integral, 1, 10**6),
            "tolerance": (Real, 0, 1), "seed": (Integral, 0, 2**63),
        }  # fmt: skip
        if self.n_threads is not None:
            rules["n_threads"] = (Integral, 1, 4096)
        for name, (kind, low, high) in rules.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
                wanted = "an integer" if kind is Integral else "a number"
                raise ValueError(f"{name} must be {wanted} in [{low}, {high}], got {value!r}")
        if self.regularize not in ("both", "bias", "factors"):
            raise ValueError(
                f"regularize must be 'both', 'bias' or 'factors', got {self.regularize!r}"
            )

    def _prepare(self, responses, lineage, items, models):
        self._check_parameters()
        _check_responses(responses, lineage, items)
        self.responses_, self.lineage_, self.items_ = responses, lineage, items
        self.is_binary_ = responses.dtype == np.uint8
        self.n_models_, self.n_items_ = responses.shape
        self.features_ = None
        if self.use_features and models is not None:
            self.features_ = model_features(models, lineage).to_numpy()
        for name in dir(type(self)):
            if isinstance(getattr(type(self), name), cached_property):
                self.__dict__.pop(name, None)  # what an earlier fit has cached

    def _prior(self, p):
        strength = np.full(p, float(self.lineage_strength))
        if self.is_binary_ and self.regularize == "bias":
            strength[:-1] = 0
        elif self.is_binary_ and self.regularize == "factors":
            strength[-1] = 0
        return LineagePrior(
            self.lineage_, np.full(p, float(self.node_ridge)), strength, features=self.features_
        )

    def _fit_answers(self, rng):
        self._answers = lay_out(self.responses_, rng)
        items = np.zeros((self.n_items_, self.rank + 1))
        items[:, :-1] = 0.3 * rng.standard_normal((self.n_items_, self.rank))
        wrong = self._answers.observed[1] - self._answers.correct
        items[:, -1] = np.log((self._answers.correct + 0.5) / (wrong + 0.5))
        self._solve_answers(items, free_items=True)

    def _solve_answers(self, items, *, free_items):
        self.prior_ = self._prior(items.shape[1])
        newton = AlternatingNewton(
            self._answers,
            self.prior_,
            item_ridge=self.item_ridge,
            intercept_ridge=self.intercept_ridge,
        )
        start = np.zeros((self.lineage_.n_nodes, items.shape[1]))
        self.states_, items = newton.fit(
            start,
            items,
            max_sweeps=self.max_sweeps,
            tolerance=self.tolerance,
            free_items=free_items,
        )
        self.stats_ = newton.stats
        design = np.column_stack([items[:, :-1], np.ones(len(items))])
        self.likelihood_ = Bernoulli(design, items[:, -1])

    def _solve_proportions(self):
        likelihood = self.likelihood_
        self.prior_ = self._prior(likelihood.design.shape[1])
        evidence = likelihood.evidence(self.responses_, jump=likelihood.jump)
        evidence = evidence.pad(self.lineage_.n_nodes)
        self.states_, iterations = self.prior_.solve(
            pack(evidence.precision), evidence.information, rtol=1e-8, max_iterations=2000
        )
        self.stats_ = {"cg_iterations": [iterations]}

    def adapt(self, responses, lineage, *, models=None):
        """Solve for the models of another snapshot, keeping the fitted items as they are.

        The problem is convex and small next to `fit`: this is how a saved fit serves new models.

        Parameters
        ----------
        responses, lineage, models : as in `fit`, over the same items in the same order

        Returns
        -------
        LRMF : a new estimator
        """
        new = type(self)(**self.get_params())
        new._prepare(responses, lineage, self.items_, models)
        if new.n_items_ != self.n_items_ or new.is_binary_ != self.is_binary_:
            raise ValueError(
                f"the model was fitted on {self.n_items_} items of "
                f"{'answers' if self.is_binary_ else 'proportions'}; this snapshot has "
                f"{new.n_items_} of {'answers' if new.is_binary_ else 'proportions'}"
            )
        new.likelihood_ = self.likelihood_
        with _threads(self.n_threads):
            if new.is_binary_:
                new._answers = lay_out(responses, np.random.default_rng(self.seed))
                items = np.column_stack([self.item_factors_, self.item_intercept_])
                new._solve_answers(items.astype(np.float64), free_items=False)
            else:
                new._solve_proportions()
        return new

    def to_arrays(self):
        """What `adapt` needs of a fit, as named arrays that `numpy.savez` takes without pickle."""
        arrays = {"params": np.array(json.dumps(self.get_params(), sort_keys=True, default=_plain))}
        if self.items_ is not None:
            arrays |= {f"items_{c}": self.items_[c].to_numpy() for c in ("n_trials",)}
            arrays |= {f"items_{c}": self.items_[c].to_numpy(str) for c in ("item_id", "benchmark")}
        return arrays | {name: getattr(self.likelihood_, name) for name in self._item_arrays}

    @classmethod
    def from_arrays(cls, arrays):
        """The fitted items from `to_arrays`; `adapt` gives an estimator for a snapshot."""
        model = cls(**json.loads(str(arrays["params"])))
        model.is_binary_ = "offset" in arrays
        parameters = {name: np.asarray(arrays[name]) for name in model._item_arrays}
        model.likelihood_ = (Bernoulli if model.is_binary_ else Gaussian)(**parameters)
        columns = ("item_id", "benchmark", "n_trials")
        model.n_items_ = len(model.likelihood_.design)
        model.items_ = None
        if "items_item_id" in arrays:
            model.items_ = pd.DataFrame({c: arrays[f"items_{c}"] for c in columns})
        return model

    @property
    def _item_arrays(self):
        binary = ("design", "offset")
        return binary if self.is_binary_ else ("design", "centre", "scale", "noise", "jump")

    @property
    def model_factors_(self):
        """Model factors m_u of all nodes (n_nodes, rank)."""
        return self.states_[:, :-1] if self.is_binary_ else self.states_

    @property
    def model_bias_(self):
        """Model biases b_u of all nodes (n_nodes,); zero for proportions."""
        return self.states_[:, -1] if self.is_binary_ else np.zeros(len(self.states_))

    @property
    def item_factors_(self):
        """Item factors x_i (n_items, rank)."""
        return self.likelihood_.design[:, :-1] if self.is_binary_ else self.likelihood_.design

    @property
    def item_intercept_(self):
        """Item intercepts c_i (n_items,); for proportions the mean on the arcsine scale."""
        return self.likelihood_.offset if self.is_binary_ else self.likelihood_.centre

    def _evidence(self, jump):
        """What each model's own responses say of its state."""
        if self.is_binary_:
            return self.likelihood_.evidence(self._answers, self.states_[: self.n_models_])
        return self.likelihood_.evidence(self.responses_, jump=jump)

    @cached_property
    def _beliefs(self):
        """Marginals of what nodes inherit, each node's prior without its own responses, those.

        The prior of a scored model is its leave-one-out forecast, at no extra fit.
        """
        jump, n_nodes = self.likelihood_.jump, self.lineage_.n_nodes
        with _threads(self.n_threads):
            centre = self.prior_.mean(self.states_)
            own = self._evidence(jump)
            inherited = own.shift(-centre[: self.n_models_]).pad(n_nodes)
            marginals = self.prior_.propagate(inherited)
            prior = (marginals / inherited).widen(jump).shift(centre)
            if jump:
                own = self._evidence(0.0)
        return _Beliefs(marginals, centre, prior, own.pad(n_nodes))

    def _states(self, rows, revealed):
        """Posterior of the rows' states given their own responses, or only the revealed ones."""
        prior, own = self._beliefs.prior[rows], self._beliefs.own[rows]
        if revealed is None:
            return prior * own
        trust = np.where(observed(revealed).any(axis=1), self.few_shot_trust, 1.0)
        return self.likelihood_.fold_in(prior.temper(trust), revealed)

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Expected responses: the probability of a correct answer, or the expected proportion.

        Parameters
        ----------
        rows, items : int arrays, optional
            Models and items (all by default).
        revealed : (len(rows), n_items), optional
            The only responses of these models to be used, each as a model of its own (few-shot);
            by default their training responses.

        Returns
        -------
        float32 (len(rows), len(items))
        """
        rows = self._rows(rows)
        self._check_cells(rows, revealed=revealed)
        items = slice(None) if items is None else np.asarray(items)
        n_columns = np.arange(self.n_items_)[items].size
        out = np.empty((rows.size, n_columns), np.float32)
        with _threads(self.n_threads):
            for block, states in self._blocks(rows, revealed):
                forecast = self.likelihood_.forecast(states.mean, states.covariance, items)
                out[block] = forecast[0]
        return out

    def predict_scores(self, rows=None, *, revealed=None, target=None, level=0.9):
        """Benchmark scores with intervals: expected accuracy, observed items counted as observed.

        Parameters
        ----------
        rows, revealed : as in `predict_proba`
        target : bool (len(rows), n_items), optional
            Score only these cells, all as forecasts; by default every item of the benchmark. NaN
            for a benchmark without any.
        level : float
            Nominal coverage of [lower, upper], from the Laplace posterior scaled so that
            leave-one-out forecasts of the training models are covered.

        Returns
        -------
        DataFrame : row, benchmark, score, lower, upper, n_observed
        """
        rows = self._rows(rows)
        self._check_cells(rows, revealed=revealed, target=target)
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level!r}")
        benchmarks = self._benchmarks
        parts = [np.empty((3, 0, len(benchmarks)))]
        with _threads(self.n_threads):
            for block, states in self._blocks(rows, revealed):
                given = self.responses_[rows[block]] if revealed is None else revealed[block]
                wanted = None if target is None else target[block]
                parts.append(np.stack(self._score(states, given, wanted)))
            scale = self._interval_scales[self._isolated(rows).astype(int)]
        score, deviation, n_observed = np.concatenate(parts, axis=1)
        lower, upper = _interval(score, deviation * scale, level)
        frame = {"row": np.repeat(rows, len(benchmarks)), "benchmark": benchmarks * rows.size}
        frame |= {"score": score.ravel(), "lower": lower.ravel(), "upper": upper.ravel()}
        return pd.DataFrame(frame | {"n_observed": n_observed.ravel().astype(int)})

    def _blocks(self, rows, revealed):
        for top in range(0, rows.size, _BLOCK):
            block = slice(top, top + _BLOCK)
            yield block, self._states(rows[block], None if revealed is None else revealed[block])

    def _rows(self, rows):
        if rows is None:
            return np.arange(self.n_models_)
        rows = np.atleast_1d(np.asarray(rows))
        if rows.size and (rows.dtype.kind not in "iu" or rows.ndim != 1):
            raise ValueError(f"rows must be integers, got {rows.dtype} of shape {rows.shape}")
        wrong = rows[(rows < 0) | (rows >= self.n_models_)]
        if wrong.size:
            raise ValueError(f"row {wrong[0]} is not one of the {self.n_models_} models")
        return rows.astype(int)

    def _check_cells(self, rows, **matrices):
        """Matrices over (rows, all items): revealed is like the responses, target is boolean."""
        for name, matrix in matrices.items():
            if matrix is None:
                continue
            wanted, kind = ("uint8 answers", "u1") if self.is_binary_ else ("proportions", "f")
            if name == "target":
                wanted, kind = "booleans", "b"
            shape, dtype = (rows.size, self.n_items_), getattr(matrix, "dtype", np.dtype(object))
            if np.shape(matrix) != shape or not dtype.str[1:].startswith(kind):
                raise ValueError(
                    f"{name} must be {wanted} of shape {shape}, got {dtype} of {np.shape(matrix)}"
                )
            if name == "revealed":
                _count_observed(matrix, name)

    @property
    def _benchmarks(self):
        return ["all"] if self.items_ is None else list(pd.unique(self.items_["benchmark"]))

    @cached_property
    def _weights(self):
        """(n_items, n_benchmarks) number of questions a column stands for in its benchmark."""
        if self.items_ is None:
            return np.ones((self.n_items_, 1), np.float32)
        codes = pd.factorize(self.items_["benchmark"])[0]
        weights = np.zeros((self.n_items_, codes.max() + 1), np.float32)
        weights[np.arange(self.n_items_), codes] = self.items_["n_trials"]
        return weights

    def _score(self, states, given, target):
        """Mean, standard deviation and number observed, each (n_rows, n_benchmarks)."""
        mean, covariance = states.mean, states.covariance
        expected, slope, noise = self.likelihood_.forecast(mean, covariance)
        weights, design = self._weights, self.likelihood_.design
        known = observed(given)
        forecast = (~known if target is None else target).astype(np.float32)
        score, total = (expected * forecast) @ weights, forecast @ weights
        if target is None:
            score += np.where(known, given, 0).astype(np.float32) @ weights
            total = np.broadcast_to(weights.sum(axis=0), total.shape)
        variance = ((noise * forecast) @ weights**2).astype(np.float64)
        slope = slope * forecast
        for b in range(weights.shape[1]):
            column = np.flatnonzero(weights[:, b])
            gradient = slope[:, column] @ (design[column] * weights[column, b, None])
            variance[:, b] += np.einsum("ni,nij,nj->n", gradient, covariance, gradient)
        total = np.where(total > 0, total, np.nan).astype(np.float64)
        n_observed = (known.astype(np.float32) @ (weights > 0)).astype(int)
        return score / total, np.sqrt(np.maximum(variance, 0)) / total, n_observed

    def _isolated(self, rows):
        """Whether a model has no other model with responses in its family."""
        family = self.lineage_.families
        with_data = np.zeros(self.lineage_.n_nodes)
        with_data[: self.n_models_] = self._has_responses
        per_family = np.bincount(family, weights=with_data)
        return per_family[family[rows]] - with_data[rows] <= 0

    @cached_property
    def _has_responses(self):
        blocks = range(0, self.n_models_, 1024)
        return np.concatenate([observed(self.responses_[b : b + 1024]).any(axis=1) for b in blocks])

    @cached_property
    def _interval_scales(self):
        """Factors (2, n_benchmarks) on interval widths, for models with and without relatives.

        The 90% quantile of |actual - leave-one-out forecast| over that of the Laplace posterior.
        """
        rows = np.flatnonzero(self._has_responses)
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(rows)[: 4 * _CALIBRATION_MODELS])
        isolated = self._isolated(rows)
        scales = np.ones((2, len(self._benchmarks)))
        for group in (False, True):
            chosen = rows[isolated == group][:_CALIBRATION_MODELS]
            errors = [
                self._leave_one_out(chosen[b : b + _BLOCK]) for b in range(0, chosen.size, _BLOCK)
            ]
            if chosen.size:
                scales[int(group)] = _coverage_scale(np.concatenate(errors))
        return scales

    def _leave_one_out(self, rows):
        """Standardised errors (n_rows, n_benchmarks) of forecasts without the rows' responses."""
        given = self.responses_[rows]
        target = observed(given)
        mean, deviation, _ = self._score(self._beliefs.prior[rows], given, target)
        weights = self._weights
        total = target @ weights
        total[total == 0] = np.nan
        actual = np.where(target, given, 0) @ weights / total
        error = np.abs(_arcsine(actual) - _arcsine(mean))
        return error / np.maximum(_arcsine_deviation(mean, deviation), 1e-12)

    def fold_in(self, *, parents=(), answers=None):
        """Forecast a model nobody has evaluated, from its parents and a few answers, if any.

        Uses the whole lineage (through the parents' marginals) at a cost that does not depend on
        the number of models, and leaves the fit as it is.

        Parameters
        ----------
        parents : sequence of ids or (id, relation)
            Nodes of the lineage, scored or not.
        answers : mapping of item_id to response, optional
            Keys are column numbers if the fit was given no items table.

        Returns
        -------
        NewModel

        Raises
        ------
        ValueError
            If a parent is not a node, an item not a column, or an answer out of range.
        """
        parents = [parents] if isinstance(parents, str) else parents
        parents = [(p, None) if isinstance(p, str) else tuple(p) for p in parents]
        nodes = [self.lineage_.index_of(parent) for parent, _ in parents]
        weights = _leaf_weights(self.lineage_, [relation for _, relation in parents])
        revealed = self._revealed_row(answers or {})
        beliefs = self._beliefs
        with _threads(1):
            prior = self.prior_.attach(beliefs.marginals, nodes, weights)
            prior = prior.widen(self.likelihood_.jump)
            centre = beliefs.centre[nodes or slice(self.n_models_)]
            prior = prior.shift(centre.mean(axis=0, keepdims=True))
            if answers:
                prior = prior.temper(self.few_shot_trust)
            states = self.likelihood_.fold_in(prior, revealed)
        isolated = not np.isin(self.lineage_.families[nodes], self._scored_families).any()
        return NewModel(self, states, revealed, isolated)

    @cached_property
    def _scored_families(self):
        return np.unique(self.lineage_.families[: self.n_models_][self._has_responses])

    def _revealed_row(self, answers):
        if not isinstance(answers, Mapping):
            raise ValueError(f"answers must map item ids to responses, got {answers!r}")
        dtype, missing = (np.uint8, MISSING) if self.is_binary_ else (np.float32, np.nan)
        row = np.full((1, self.n_items_), missing, dtype)
        for item, answer in answers.items():
            if item not in self._column_of:
                raise ValueError(f"answer to {item!r}: not an item of the snapshot")
            is_number = isinstance(answer, Real | np.bool)
            if not is_number or not (answer in (0, 1) if self.is_binary_ else 0 <= answer <= 1):
                wanted = "0 or 1" if self.is_binary_ else "in [0, 1]"
                raise ValueError(f"answer to {item!r} must be {wanted}, got {answer!r}")
            row[0, self._column_of[item]] = answer
        return row

    @cached_property
    def _column_of(self):
        ids = range(self.n_items_) if self.items_ is None else self.items_["item_id"]
        return {item: column for column, item in enumerate(ids)}


@dataclass(frozen=True)
class NewModel:
    """The forecast of one model that is not part of the fit; see `LRMF.fold_in`."""

    model: LRMF
    states: Gaussians
    revealed: np.ndarray
    isolated: bool

    def predict_proba(self, items=None):
        """Expected responses, float32 (n_items,)."""
        items = slice(None) if items is None else np.asarray(items)
        forecast = self.model.likelihood_.forecast(self.states.mean, self.states.covariance, items)
        return forecast[0][0].astype(np.float32)

    def predict_scores(self, *, level=0.9):
        """DataFrame: benchmark, score, lower, upper, n_observed."""
        model = self.model
        score, deviation, n_observed = model._score(self.states, self.revealed, None)
        scale = model._interval_scales[int(self.isolated)]
        lower, upper = _interval(score, deviation * scale, level)
        frame = {"benchmark": model._benchmarks, "score": score[0]}
        return pd.DataFrame(
            frame | {"lower": lower[0], "upper": upper[0], "n_observed": n_observed[0]}
        )


def _plain(number):
    """A NumPy scalar as JSON knows it."""
    return number.item()


def _leaf_weights(lineage, relations):
    """Edge weights of a new model with parents by these relations (None counts as a finetune)."""
    relations = ["finetune" if relation is None else relation for relation in relations]
    unknown = sorted(set(relations) - set(RELATIONS))
    if unknown:
        raise ValueError(f"unknown relation {unknown[0]!r}; use {', '.join(RELATIONS)}")
    weights = np.array([lineage.relation_weights[relation] for relation in relations])
    if lineage.split_merges:
        is_merge = np.array(relations) == "merge"
        weights[is_merge] /= is_merge.sum()
    return weights


def _arcsine(score):
    return 2 * np.arcsin(np.sqrt(np.clip(score, 0, 1)))


def _arcsine_deviation(score, deviation):
    """Standard deviation on the arcsine scale, where it depends least on the score."""
    return deviation / np.sqrt(np.clip(score * (1 - score), 1e-4, None))


def _interval(score, deviation, level):
    half = norm.ppf(0.5 + level / 2) * _arcsine_deviation(score, deviation)
    y = _arcsine(score)
    lower, upper = np.clip(y - half, 0, np.pi), np.clip(y + half, 0, np.pi)
    # At no width the score itself, which sin^2 and arcsin miss by a rounding error.
    return np.minimum(np.sin(lower / 2) ** 2, score), np.maximum(np.sin(upper / 2) ** 2, score)


def _coverage_scale(errors, *, level=0.9, n_least=20):
    """The factor that makes `level` of the standardised errors (n, b) covered, by column."""
    scales = np.ones(errors.shape[1])
    for b, column in enumerate(errors.T):
        column = column[np.isfinite(column)]
        if column.size >= n_least:
            rank = min(1.0, level * (1 + 1 / column.size))  # as in split conformal prediction
            scales[b] = np.quantile(column, rank) / norm.ppf(0.5 + level / 2)
    return scales


@cache
def _blas():
    return ThreadpoolController()  # finding the libraries takes longer than a fold-in


@contextmanager
def _threads(n_threads):
    """One BLAS thread (kernels thread over blocks), `n_threads` for kernels; restored after."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads or before, numba.config.NUMBA_NUM_THREADS))
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


def _check_responses(responses, lineage, items):
    dtype = getattr(responses, "dtype", None)
    is_known = dtype == np.uint8 or getattr(dtype, "kind", None) == "f"
    if getattr(responses, "ndim", None) != 2 or not is_known:
        raise ValueError(
            "responses must be a matrix of uint8 answers (0, 1, 255 = missing) or float "
            f"proportions (NaN = missing), got {type(responses).__name__} "
            f"{getattr(responses, 'dtype', '')} {getattr(responses, 'shape', '')}"
        )
    n_models, n_items = responses.shape
    if not isinstance(lineage, Lineage):
        raise ValueError(
            f"lineage must be a Lineage, got {type(lineage).__name__}; build it with "
            "Lineage.from_edges(edges, model_ids), with no edges if none are known"
        )
    if lineage.n_models != n_models:
        raise ValueError(f"the lineage has {lineage.n_models} models, responses {n_models} rows")
    if items is not None:
        missing = [c for c in ("item_id", "benchmark", "n_trials") if c not in items]
        if missing:
            raise ValueError(f"items lacks column {missing[0]!r}")
        if len(items) != n_items:
            raise ValueError(f"items has {len(items)} rows, responses {n_items} columns")
    if not _count_observed(responses, "responses"):
        raise ValueError("no response is observed: there is nothing to fit")


def _count_observed(responses, name):
    """How many cells are observed, once every value is known to be a response."""
    if responses.dtype == np.uint8:
        counts = count_answers(responses)[1]
        faulty = np.flatnonzero(counts < 0)
    else:
        counts = (~np.isnan(responses)).sum(axis=1)
        faulty = np.flatnonzero(((responses < 0) | (responses > 1)).any(axis=1))
    if faulty.size:
        values = responses[faulty[0]]
        column = np.flatnonzero(((values < 0) | (values > 1)) & observed(values))[0]
        raise ValueError(
            f"{name}[{faulty[0]}, {column}] is {values[column]}, neither missing nor "
            f"{'0 or 1' if responses.dtype == np.uint8 else 'within [0, 1]'}"
        )
    return counts.sum()
