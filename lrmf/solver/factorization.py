"""LRMF: matrix factorization whose model states vary smoothly over the lineage of the models."""

import json
from dataclasses import replace
from functools import cached_property
from numbers import Integral, Real

import numpy as np
import pandas as pd

from ..data.features import model_features
from ..data.lineage import lacks_evaluated_relatives
from ..data.response_kinds import ANSWERS, PROPORTIONS, kind_of
from ..data.responses import has_responses, observed, observed_counts, unmasked
from ..estimator import Estimator, check_is_fitted
from ..threads import threads
from .answers import lay_out
from .arcsine import ArcsineGaussian
from .bernoulli import Bernoulli
from .calibration import IntervalCalibration, ScoredForecasts
from .gaussians import pack
from .newton import AlternatingNewton
from .prediction import (
    BLOCK,
    Forecasts,
    NewModel,
    column_of,
    leaf_weights,
    read_parents,
    revealed_row,
)
from .prior import LineagePrior, similar_items, solve
from .scores import BenchmarkScores
from .validation import check_models, check_parameters, check_responses

_N_CALIBRATION = 400  # leave-one-out forecasts of either group that calibrate the intervals
LIKELIHOODS = {ANSWERS: Bernoulli, PROPORTIONS: ArcsineGaussian}


class LRMF(Forecasts, Estimator):
    """Lineage-regularized matrix factorization.

    Answers z_ui in {0, 1} of model u to item i, with model states t_u = [m_u, b_u]:

        min  sum_observed logloss(z_ui, sigma(c_i + b_u + m_u . x_i))
             + 1/2 sum_k t_k' (node_ridge I + lineage_strength L) t_k
             + 1/2 item_ridge |X|^2 + 1/2 intercept_ridge |c|^2
             [+ 1/2 item_strength sum_k x_k' L_items x_k]

    over all nodes of the lineage (models, whether evaluated or not, and unscored ancestors), L its
    combinatorial Laplacian. Proportions: the same prior with a Gaussian likelihood on the
    standardised arcsine scale and the items' correlation in place of X (see `ArcsineGaussian`).

    The state of a model without answers is the harmonic extension of its relatives' states. Without
    an evaluated relative its forecast depends on its features, if used, and the item parameters.

    Parameters
    ----------
    rank : int
        Number of factors (at most n_items for proportions).
    lineage_strength : float
        Precision lambda >= 0 along lineage edges; 0 is plain matrix factorization.
    node_ridge, item_ridge, intercept_ridge : float
        Ridge on model states, item factors and item intercepts, > 0.
    item_strength : float
        Precision along the edges of a graph of similar items (answers; see `similar_items`), as in
        formulations that regularize both sides; 0, the default, is none.
    node_variance : float
        Variance of a model's own change that its lineage does not explain (proportions).
    regularize : {"both", "bias", "factors"}
        Which part of the model state the lineage regularizes (answers).
    use_features : bool
        Whether `fit` uses the models table as the prior mean of the states.
    prior : function of (lineage, p), optional
        Makes the `Prior` of the p components over the nodes, such as a `ProcessPrior`, in place of
        the field above; it is not kept by `to_arrays`.
    prior_temperature : float
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

    Examples
    --------
    Two families of three, of which "a3" and "b3" have no answers yet:

    >>> import numpy as np
    >>> from lrmf import LRMF, Lineage
    >>> edges = [("a1", "a2", "finetune"), ("a1", "a3", "merge"), ("b1", "b2", "finetune"),
    ...          ("b1", "b3", "merge")]
    >>> lineage = Lineage.from_edges(edges, ["a1", "a2", "a3", "b1", "b2", "b3"])
    >>> a, b, unknown = [1, 1, 1, 0] * 5, [0, 0, 1, 0] * 5, [255] * 20
    >>> responses = np.array([a, a, unknown, b, b, unknown], dtype=np.uint8)
    >>> model = LRMF(rank=1, seed=0).fit(responses, lineage)
    >>> forecast = model.predict([2, 5]).scores
    >>> bool(forecast["score"][0] > forecast["score"][1])
    True
    """

    def __init__(
        self,
        rank=16,
        lineage_strength=3.0,
        *,
        node_ridge=1.0,
        item_ridge=10.0,
        intercept_ridge=0.01,
        item_strength=0.0,
        node_variance=0.05,
        regularize="both",
        use_features=False,
        prior=None,
        prior_temperature=1.0,
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
        self.item_strength = item_strength
        self.node_variance = node_variance
        self.regularize = regularize
        self.use_features = use_features
        self.prior = prior
        self.prior_temperature = prior_temperature
        self.max_sweeps = max_sweeps
        self.tolerance = tolerance
        self.n_threads = n_threads
        self.seed = seed

    def fit(self, responses, lineage, *, items=None, models=None, start=None):
        """Fit model states and item parameters.

        Parameters
        ----------
        responses : (n_models, n_items), uint8 0/1/255 or float proportions with NaN
        lineage : Lineage over the same models
        items : DataFrame, optional
            item_id, benchmark and n_trials of the columns; without it one benchmark, "all".
        models : DataFrame, optional
            The models table, read when `use_features`.
        start : LRMF, optional
            A fit with the same numbers of nodes, items and factors, whose states and items are the
            starting point. Proportions ignore it: their solution does not depend on one.

        Returns
        -------
        self
        """
        self._prepare(responses, lineage, items, models)
        rng = np.random.default_rng(self.seed)
        with threads(self.n_threads):
            if self.kind_ is ANSWERS:
                self._fit_answers(rng, start)
            else:
                n_trials = None if items is None else items["n_trials"].to_numpy()
                self.likelihood_ = ArcsineGaussian.fit(
                    self.responses_,
                    n_trials=n_trials,
                    rank=self.rank,
                    node_variance=self.node_variance,
                )
                self._solve_proportions()
        return self

    def _check_parameters(self):
        """ValueError if a parameter has another type or is out of range."""
        rules = {
            "rank": (Integral, 1, 1024), "lineage_strength": (Real, 0, 1e9),
            "node_ridge": (Real, 1e-6, 1e9), "item_ridge": (Real, 1e-9, 1e9),
            "intercept_ridge": (Real, 1e-9, 1e9), "item_strength": (Real, 0, 1e9),
            "node_variance": (Real, 0, 1e3),
            "prior_temperature": (Real, 1e-6, 1e6), "max_sweeps": (Integral, 1, 10**6),
            "tolerance": (Real, 0, 1), "seed": (Integral, 0, 2**63),
        }  # fmt: skip
        if self.n_threads is not None:
            rules["n_threads"] = (Integral, 1, 4096)
        check_parameters(self, rules)
        if self.regularize not in ("both", "bias", "factors"):
            raise ValueError(
                f"regularize must be 'both', 'bias' or 'factors', got {self.regularize!r}"
            )

    def check(self, responses, lineage, items=None, models=None):
        """Raise a ValueError for parameters or data that `fit` cannot use.

        Parameters
        ----------
        responses, lineage, items, models : as in `fit`
        """
        self._check_parameters()
        check_responses(responses, lineage, items)
        check_models(models, lineage)

    def _prepare(self, responses, lineage, items, models):
        """Check the data, store them, and compute the features."""
        responses = unmasked(responses)
        self.check(responses, lineage, items, models)
        self.responses_, self.lineage_, self.items_ = responses, lineage, items
        self.kind_ = kind_of(responses)
        self.n_models_, self.n_items_ = responses.shape
        self.scores_ = BenchmarkScores(items, self.n_items_)
        # The covariates F of the prior mean F w.
        self.features_ = None
        if self.use_features and models is not None:
            self.features_ = model_features(models, lineage).to_numpy()
        # Drop what an earlier fit has cached.
        for name in dir(type(self)):
            if isinstance(getattr(type(self), name), cached_property):
                self.__dict__.pop(name, None)

    def _prior(self, p, node_variance=0.0):
        """The `Prior` of p components: the one given, or node_ridge I + lineage_strength L."""
        if self.prior is not None:
            return self.prior(self.lineage_, p)
        # Components that the lineage does not regularize have only the ridge.
        regularized = LIKELIHOODS[self.kind_].regularized(self.regularize, p)
        strength = np.where(regularized, float(self.lineage_strength), 0.0)
        return LineagePrior(
            self.lineage_,
            np.full(p, float(self.node_ridge)),
            strength,
            features=self.features_,
            node_variance=node_variance,
        )

    def _fit_answers(self, rng, start):
        """Fit states and items to answers, from `start` or from random factors."""
        self._data = lay_out(self.responses_, rng)
        if start is None:
            self._solve_answers(self._initial_items(rng), free_items=True)
        else:
            self._check_start(start)
            states = start.states_.copy()
            self._solve_answers(start._item_parameters, free_items=True, states=states)
        if self.item_strength:
            # Similar items are known only from a first fit without the item graph.
            self._regularize_items()

    def _initial_items(self, rng):
        """Initial item states [x, c], (n_items, rank + 1)."""
        # Zero factors are a saddle point; small random ones break the symmetry.
        items = np.zeros((self.n_items_, self.rank + 1))
        items[:, :-1] = 0.3 * rng.standard_normal((self.n_items_, self.rank))
        # Intercepts start at the log-odds of each item, with half a count added to either side.
        wrong = self._data.observed[1] - self._data.correct
        items[:, -1] = np.log((self._data.correct + 0.5) / (wrong + 0.5))
        return items

    def _check_start(self, start):
        """ValueError if `start` has other numbers of nodes, items or factors."""
        states, items = start.states_, start._item_parameters
        expected = (self.lineage_.n_nodes, self.rank + 1), (self.n_items_, self.rank + 1)
        if (states.shape, items.shape) != expected:
            raise ValueError(
                f"start has {len(states)} nodes, {len(items)} items and rank "
                f"{items.shape[1] - 1}; this fit has {self.lineage_.n_nodes}, "
                f"{self.n_items_} and {self.rank}"
            )

    def _regularize_items(self):
        """Continue the fit with L_items, the graph of similar items, in the prior of the items."""
        # Precision item_ridge I + item_strength L_items of factors; intercepts have only a ridge.
        ridge = np.append(np.full(self.rank, self.item_ridge), self.intercept_ridge)
        strength = np.append(np.full(self.rank, self.item_strength), 0.0)
        prior = LineagePrior(similar_items(self.item_factors_), ridge, strength)
        self._solve_answers(self._item_parameters, free_items=True, item_prior=prior)

    def _solve_answers(self, items, *, free_items, states=None, item_prior=None):
        """Minimise the objective from these item states; sets states, likelihood and stats."""
        self.prior_ = self._prior(items.shape[1])
        # Block coordinate descent on model states and item parameters.
        newton = AlternatingNewton(
            self._data,
            self.prior_,
            item_ridge=self.item_ridge,
            intercept_ridge=self.intercept_ridge,
            item_prior=item_prior,
        )
        if states is None:
            states = np.zeros((self.lineage_.n_nodes, items.shape[1]))
        self.states_, items = newton.fit(
            states,
            items,
            max_sweeps=self.max_sweeps,
            tolerance=self.tolerance,
            free_items=free_items,
        )
        self.stats_ = newton.stats
        # Logits are t . [x, 1] + c: a bias is a factor whose loading is 1.
        loadings = np.column_stack([items[:, :-1], np.ones(len(items))])
        self.likelihood_ = Bernoulli(loadings, items[:, -1])

    def _solve_proportions(self):
        """Posterior means of the states given the parameters of the items."""
        likelihood, self._data = self.likelihood_, self.responses_
        self.prior_ = self._prior(likelihood.loadings.shape[1], likelihood.node_variance)
        # Gaussian evidence (precision P_u, information h_u) of every model, then one linear system
        # over the lineage: (blockdiag(P) + Q) t = h.
        evidence = likelihood.evidence(self._data, node_variance=likelihood.node_variance)
        evidence = evidence.pad(self.lineage_.n_nodes)
        self.states_, iterations = solve(
            self.prior_, pack(evidence.precision), evidence.information,
            rtol=1e-8, max_iterations=2000,
        )  # fmt: skip
        self.stats_ = {"cg_iterations": [iterations]}

    def adapt(self, responses, lineage, *, models=None):
        """Solve for the states of another snapshot's models, with the item parameters fixed.

        The problem is convex and much cheaper than `fit`.

        Parameters
        ----------
        responses, lineage, models : as in `fit`, over the same items in the same order

        Returns
        -------
        LRMF : a new estimator

        Raises
        ------
        ValueError
            If the items or the kind of responses differ from those of the fit.
        """
        # A new estimator with the data of the snapshot, which must fit the items.
        new = type(self)(**self.get_params())
        new._prepare(responses, lineage, self.items_, models)
        if new.n_items_ != self.n_items_ or new.kind_ is not self.kind_:
            raise ValueError(
                f"the model was fitted on {self.n_items_} items of {self.kind_.name}; this "
                f"snapshot has {new.n_items_} of {new.kind_.name}"
            )
        # Solve for the states only.
        new.likelihood_ = self.likelihood_
        with threads(self.n_threads):
            if new.kind_ is ANSWERS:
                new._data = lay_out(new.responses_, np.random.default_rng(self.seed))
                new._solve_answers(self._item_parameters, free_items=False)
            else:
                new._solve_proportions()
        return new

    def to_arrays(self):
        """The fitted items as named arrays, which `numpy.savez` writes without pickle.

        Returns
        -------
        dict of name to array
        """
        parameters = self.get_params() | {"prior": None}
        arrays = {"params": np.array(json.dumps(parameters, sort_keys=True, default=_plain))}
        if self.items_ is not None:
            arrays |= {f"items_{c}": self.items_[c].to_numpy() for c in ("n_trials",)}
            arrays |= {f"items_{c}": self.items_[c].to_numpy(str) for c in ("item_id", "benchmark")}
        # The likelihood lists the arrays that restore it.
        names = self.likelihood_.array_names
        return arrays | {name: getattr(self.likelihood_, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays):
        """Restore the items of `to_arrays`; `adapt` then solves for the models of a snapshot."""
        # Parameters and likelihood; only answers have an intercept.
        model = cls(**json.loads(str(arrays["params"])))
        model.kind_ = ANSWERS if "intercept" in arrays else PROPORTIONS
        likelihood = LIKELIHOODS[model.kind_]
        model.likelihood_ = likelihood(**{n: np.asarray(arrays[n]) for n in likelihood.array_names})
        columns = ("item_id", "benchmark", "n_trials")
        model.n_items_ = len(model.likelihood_.loadings)
        model.items_ = None
        if "items_item_id" in arrays:
            model.items_ = pd.DataFrame({c: arrays[f"items_{c}"] for c in columns})
        model.scores_ = BenchmarkScores(model.items_, model.n_items_)
        return model

    @property
    def model_factors_(self):
        """Model factors m_u of all nodes (n_nodes, rank)."""
        return self.likelihood_.split(self.states_)[0]

    @property
    def model_bias_(self):
        """Model biases b_u of all nodes (n_nodes,); zero for proportions."""
        return self.likelihood_.split(self.states_)[1]

    @property
    def item_factors_(self):
        """Item factors x_i (n_items, rank)."""
        return self.likelihood_.item_factors

    @property
    def item_intercept_(self):
        """Item intercepts c_i (n_items,); for proportions the mean on the arcsine scale."""
        return self.likelihood_.item_intercept

    @property
    def _item_parameters(self):
        """[x_i, c_i] of answers, float64 (n_items, rank + 1)."""
        return np.column_stack([self.item_factors_, self.item_intercept_]).astype(np.float64)

    @property
    def gram(self):
        """Gram matrix D'D / n_items (p, p): t' G t is the mean square of the logits D t."""
        loadings = self.likelihood_.loadings.astype(np.float64)
        return loadings.T @ loadings / len(loadings)

    def _evidence(self, node_variance):
        """Evidence of each model's own responses about its state."""
        return self.likelihood_.evidence(
            self._data, self.states_[: self.n_models_], node_variance=node_variance
        )

    @cached_property
    def evidence_(self):
        """Gaussian evidence of each model's responses about its state, Gaussians (n_models)."""
        return self._evidence(0.0)

    @cached_property
    def _prior_at_mode(self):
        """The prior with its mean F w fixed at the fitted states."""
        return self.prior_.at(self.states_)

    @cached_property
    def marginals_(self):
        """Marginals of all nodes: posterior, leave-one-out prior and evidence.

        The leave-one-out prior of a scored model is its forecast without its own responses, at no
        extra fit. For proportions, lineage explains s_u and a model adds e_u of variance
        `node_variance`: evidence about s_u counts e_u as noise, and forecasts of t_u = s_u + e_u
        add it again.
        """
        node_variance = self.likelihood_.node_variance
        # Belief propagation on s_u, whose evidence includes the node variance as noise.
        with threads(self.n_threads):
            evidence = self._evidence(node_variance) if node_variance else self.evidence_
            marginals = self._prior_at_mode.marginals(evidence.pad(self.lineage_.n_nodes))
        return replace(marginals, evidence=self.evidence_)

    def leave_one_out(self, rows):
        """Leave-one-out priors of the states of `rows`: without their own responses.

        Parameters
        ----------
        rows : int (n,), models

        Returns
        -------
        Gaussians (len(rows))
        """
        return self.marginals_.leave_one_out[rows]

    def evidence(self, rows):
        """Gaussian evidence of the responses of `rows` about their states.

        Parameters
        ----------
        rows : int (n,), models

        Returns
        -------
        Gaussians (len(rows))
        """
        return self.evidence_[rows]

    def _states(self, rows, revealed):
        """Posterior of the rows' states given their own responses, or only the revealed ones."""
        # Posterior = leave-one-out prior times evidence, of all responses or of the revealed ones.
        prior = self.leave_one_out(rows)
        if revealed is None:
            return prior * self.evidence(rows)
        # Tempering weighs the prior against answers, so it applies only where answers are revealed.
        temperature = np.where(observed(revealed).any(axis=1), self.prior_temperature, 1.0)
        return self.likelihood_.fold_in(prior.temper(temperature), revealed)

    def _calibrated(self, score, deviation, rows, given, share=1.0):
        """Standard deviations after calibration (n, n_benchmarks)."""
        lacks_relatives = lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows)
        return self.calibration_(score, deviation, observed_counts(given), lacks_relatives, share)

    @cached_property
    def evaluated_(self):
        """Whether each model has any response (n_models,)."""
        return has_responses(self.responses_)

    @cached_property
    def calibration_(self):
        """Interval calibration from leave-one-out forecasts of training models.

        The scale of either group, models with and without evaluated relatives, is the 90% quantile
        of the standardised errors over that of a normal distribution.
        """
        rows = np.random.default_rng(self.seed).permutation(np.flatnonzero(self.evaluated_))
        # A random sample of training models, with and without evaluated relatives.
        rows = np.sort(rows[: 4 * _N_CALIBRATION])
        lacks_relatives = lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows)
        groups = [rows[lacks_relatives == group][:_N_CALIBRATION] for group in (False, True)]
        # Their forecasts without their own responses, in blocks that bound the memory.
        blocks = [part[b : b + BLOCK] for part in groups for b in range(0, part.size, BLOCK)]
        forecasts = [self._leave_one_out_scores(block) for block in blocks]
        columns = [np.concatenate(parts) for parts in zip(*forecasts, strict=True)]
        return IntervalCalibration.fit({0: ScoredForecasts(*columns)}, explain=False)

    def _leave_one_out_scores(self, rows):
        """Fields of `ScoredForecasts` of training models from their leave-one-out priors."""
        given, states = self.responses_[rows], self.leave_one_out(rows)
        target = observed(given)
        forecast = self.likelihood_.forecast(states.mean, states.covariance)
        return (
            self.scores_.expected(forecast[0], given, target),
            self.scores_.deviation(self.likelihood_, states, given, target, forecast=forecast),
            self.scores_.actual(given, target),
            self.scores_.n_observed(given),
            lacks_evaluated_relatives(self.lineage_, self.evaluated_, rows),
        )

    def fold_in(self, *, parents=(), answers=None):
        """Forecast a new model from its parents and its answers, if any.

        The prior is that of a new leaf of the lineage, given the parents' marginals. The cost does
        not depend on the number of models, and the fit is unchanged.

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
        check_is_fitted(self)
        parents = read_parents(parents, self.lineage_)
        # The parents of the new leaf and the weights of its edges.
        nodes = [self.lineage_.index_of(parent) for parent, _ in parents]
        weights = leaf_weights(self.lineage_, [relation for _, relation in parents])
        revealed = revealed_row(answers or {}, self._column_of, self.responses_.dtype)
        marginals = self.marginals_
        # Prior of the leaf, then its posterior given the answers.
        with threads(1):
            prior = self._prior_at_mode.leaf(marginals, nodes, weights)
            if answers:
                prior = prior.temper(self.prior_temperature)
            states = self.likelihood_.fold_in(prior, revealed)
        # Calibration differs for models without evaluated relatives.
        lacks_relatives = not np.isin(self.lineage_.families[nodes], self._scored_families).any()
        return NewModel(_Leaf(self, states, revealed, bool(lacks_relatives)))

    @cached_property
    def _column_of(self):
        """Dict of item id to column."""
        return column_of(self.items_, self.n_items_)

    @cached_property
    def _scored_families(self):
        """Families with an evaluated model."""
        return np.unique(self.lineage_.families[: self.n_models_][self.evaluated_])


class _Leaf(Forecasts):
    """Forecasts of one folded-in model."""

    def __init__(self, model, states, revealed, lacks_relatives):
        self.likelihood_, self.scores_ = model.likelihood_, model.scores_
        self.n_threads, self.responses_ = 1, revealed
        self._posterior, self._lacks_relatives = states, np.array([lacks_relatives])
        self._calibration = model.calibration_

    def _states(self, rows, revealed):
        """Posterior of the state, Gaussians (1)."""
        return self._posterior

    def _calibrated(self, score, deviation, rows, given, share=1.0):
        """Standard deviations after calibration (1, n_benchmarks)."""
        return self._calibration(
            score, deviation, observed_counts(given), self._lacks_relatives, share
        )


def _plain(number):
    """The Python number of a NumPy scalar, for JSON."""
    return number.item()
