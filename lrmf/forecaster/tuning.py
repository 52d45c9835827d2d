"""Hyperparameters of LRMF by inner cross-validation over the nodes of the lineage."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from ..data.lineage import lacks_evaluated_relatives
from ..data.response_kinds import ANSWERS, PROPORTIONS, kind_of
from ..data.responses import has_responses, observed, random_places, reveal, without
from ..solver.factorization import LIKELIHOODS, LRMF
from .card_correction import correct


@dataclass(frozen=True)
class TuningConfig:
    """How much of the data the inner cross-validation sees, and when a choice is worth it.

    Attributes
    ----------
    n_items : int
        Columns that the inner fits see, at most.
    rank : int
        Rank of inner fits, at most, but where the rank itself is chosen (in one fold).
    n_folds : int
    fewest : int
        Models with relatives, below which all models count, and models below which none is tuned.
    gain : float
        Relative gain below which a default stays.
    """

    n_items: int = 500
    rank: int = 8
    n_folds: int = 3
    fewest: int = 20
    gain: float = 0.005


CONFIG = TuningConfig()


def tune(
    responses, lineage, *, items, models, fixed, cards=None, use_names=True, seed=0, n_threads=None
):
    """Choose hyperparameters one after the other, each by what it does to inner forecasts.

    Models with relatives are forecast, since for others most parameters do not matter, in three
    folds, once without any of their responses and once with a few shown; the two losses are added.
    Answers: log-loss; the models are hidden from the fit, as leave-one-out forecasts from a fit of
    everything flatter parameters that let items learn a model's answers by heart. Proportions:
    squared error on the standardised arcsine scale, once a `CardCorrection` has read the cards.
    A default stays unless another value lowers the loss by the share `TuningConfig.gain`, and if
    fewer than twenty models have responses. All values of a parameter are fitted from the same
    start, the fit with what was chosen before; the rank, whose fits take longest, is chosen in the
    first fold, from no start.

    Parameters
    ----------
    responses, lineage, items, models : as in `LRMF.fit`
    fixed : dict, parameters that are not to be tuned
    cards, use_names : models table of that `CardCorrection`, if it reads cards; whether names, too

    Returns
    -------
    parameters : dict
    curve : DataFrame, columns parameter, value, loss, chosen
    """
    likelihood = LIKELIHOODS[kind_of(responses)]
    parameters = likelihood.defaults | fixed
    inner = _InnerFolds(
        responses, lineage, items=items, models=models, cards=cards, use_names=use_names,
        seed=seed, n_threads=n_threads,
    )  # fmt: skip
    useless = {"use_features": models is None, "lineage_strength": not lineage.n_edges}
    curve = []
    for name, grid in likelihood.grid.items() if inner.rows.size >= CONFIG.fewest else ():
        if name in fixed or useless.get(name):
            continue
        parameters[name], losses = inner.choose(name, grid, parameters)
        curve += [(name, value, loss, value == parameters[name]) for value, loss in losses.items()]
    parameters["rank"] = min(parameters["rank"], responses.shape[1])
    parameters |= {"seed": seed, "n_threads": n_threads}
    return parameters, pd.DataFrame(curve, columns=["parameter", "value", "loss", "chosen"])


@dataclass(frozen=True, eq=False)
class _Fold:
    rows: np.ndarray
    train: np.ndarray  # all responses but theirs
    given: np.ndarray  # theirs
    shown: np.ndarray  # a few of these
    target: np.ndarray  # the others


class _InnerFolds:
    """Models with relatives in folds, each hidden from the fits that forecast it."""

    def __init__(self, responses, lineage, *, items, models, cards, use_names, seed, n_threads):
        rng = np.random.default_rng([seed, 7])
        self.kind = kind_of(responses)
        self.lineage, self.fixed = lineage, {"seed": seed, "n_threads": n_threads}
        self.read = partial(correct, models=cards, use_names=use_names, seed=seed)
        columns = np.sort(rng.permutation(responses.shape[1])[: CONFIG.n_items])
        self.data = {"items": None if items is None else items.iloc[columns], "models": models}
        inner = np.ascontiguousarray(responses[:, columns])
        self.rows = _models_with_relatives(inner, lineage, rng)
        self.folds = [_hide(inner, rows, rng) for rows in np.array_split(self.rows, CONFIG.n_folds)]
        self.settled = None  # fits with what has been chosen so far

    def choose(self, name, grid, parameters):
        """The best value, or the one that there is if that is about as good; all losses."""
        if self.settled is None:
            self.settled = self._try(parameters, None)
        trials = {value: self._try(parameters | {name: value}, name) for value in grid}
        # Keep what there is unless another value is clearly better.
        losses = {value: self._loss(trial) for value, trial in trials.items()}
        best = min(losses, key=losses.get)
        if losses[best] > (1 - CONFIG.gain) * losses[parameters[name]]:
            best = parameters[name]
        if name != "rank":
            self.settled = trials[best]
        return best, losses

    def _try(self, parameters, name):
        """Model, prior belief about the fold's models and trust in it, by fold."""
        trust = parameters["few_shot_trust"]
        if name == "few_shot_trust":
            return [(model, belief, trust) for model, belief, _ in self.settled]
        # Inner fits have a small rank, but where the rank is what is chosen.
        largest = parameters["rank"] if name == "rank" else CONFIG.rank
        rank = min(parameters["rank"], largest, self.folds[0].train.shape[1])
        starts = [None] * CONFIG.n_folds
        if self.settled and name != "rank":
            starts = [model for model, _, _ in self.settled]
        trial = []
        n_folds = 1 if name == "rank" else CONFIG.n_folds
        for fold, start in zip(self.folds[:n_folds], starts, strict=False):
            model = LRMF(**parameters | self.fixed | {"rank": rank})
            model.fit(fold.train, self.lineage, **self.data, start=start)
            if self.kind is ANSWERS:
                belief = model.leave_one_out(fold.rows)
            else:
                belief = self.read(model)[0][fold.rows]
            trial.append((model, belief, trust))
        return trial

    def _loss(self, trial):
        """Mean loss of the hidden responses, without the shown ones and with them, added."""
        loss = _log_loss if self.kind is ANSWERS else _squared_error
        losses = []
        for (model, belief, trust), fold in zip(trial, self.folds, strict=False):
            actual = None
            if self.kind is PROPORTIONS:
                actual = model.likelihood_.fold_in(belief, fold.given)
            # Zero-shot, and with a few responses revealed.
            informed = model.likelihood_.fold_in(belief.temper(trust), fold.shown)
            losses.append(loss(model.likelihood_, belief, actual, fold.given))
            losses.append(loss(model.likelihood_, informed, actual, fold.target))
        return float(np.sum(losses) / len(trial))


def _log_loss(likelihood, states, _, target):
    expected = likelihood.forecast(states.mean, states.covariance)[0]
    chance = np.where(target == 1, expected, 1 - expected)[observed(target)]
    return -np.log(np.clip(chance, 1e-6, 1)).mean(dtype=np.float64)


def _squared_error(likelihood, states, actual, target):
    """Of the standardised scores, their sampling noise smoothed away."""
    error = (actual.mean - states.mean) @ likelihood.loadings.T
    return (error[observed(target)] ** 2).mean()


def _models_with_relatives(responses, lineage, rng):
    """In random order; all models with responses if hardly any has relatives."""
    evaluated = has_responses(responses)
    rows = np.flatnonzero(evaluated)
    related = rows[~lacks_evaluated_relatives(lineage, evaluated, rows)]
    return rng.permutation(related if related.size >= CONFIG.fewest else rows)


def _hide(responses, rows, rng):
    """A fold of these models."""
    given = responses[rows]
    seen = observed(given)
    # At most half of a model's responses are revealed, so that some are left to forecast.
    n_revealed = np.minimum(kind_of(responses).n_revealed_inner, seen.sum(axis=1) // 2)
    is_shown = random_places(seen, rng) < n_revealed[:, None]
    return _Fold(
        rows, without(responses, rows), given, reveal(given, is_shown), reveal(given, ~is_shown)
    )
