"""Hyperparameters of LRMF by inner cross-validation over the nodes of the lineage."""

from functools import cache, partial

import numpy as np
import pandas as pd

from .cards import correct
from .factorization import LRMF
from .forecasts import has_responses, is_isolated
from .snapshot import MISSING, observed

GRIDS = {
    True: {"lineage_strength": (1.0, 3.0, 10.0, 30.0), "use_features": (False, True)},
    False: {
        "use_features": (True, False),
        "lineage_strength": (1.0, 3.0, 10.0),
        "node_ridge": (0.1, 0.3, 1.0),
        "jump": (0.05, 0.15),
    },
}  # by whether responses are answers
DEFAULTS = {
    True: {"rank": 16, "lineage_strength": 10.0, "use_features": False},
    False: {
        "rank": 16, "lineage_strength": 3.0, "node_ridge": 0.3, "jump": 0.05, "use_features": True,
    },
}  # fmt: skip
_ITEMS = 500  # columns that inner fits see
_RANK = 8  # of inner fits, at most, for the time they take
_FOLDS = 3
_LEAST = 20  # models with relatives, below which all models count, and models at all
_WORTH = {True: 0.02, False: 0.01}  # relative gain below which a default stays


def tune(
    responses, lineage, *, items, models, fixed, cards=None, use_names=True, seed=0, n_threads=None
):
    """Choose hyperparameters one after the other, each by what it does to inner forecasts.

    Models with relatives are forecast, since for others most parameters do not matter, in three
    folds. Answers: by log-loss; the models are hidden from the fit, as leave-one-out forecasts from
    a fit of everything flatter parameters that let items learn a model's answers by heart.
    Proportions: by the squared error on the standardised arcsine scale that is left after a
    `CardCorrection`. A default stays unless another value is clearly better (`_WORTH`), and if
    fewer than twenty models have responses.

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
    is_binary = responses.dtype == np.uint8
    parameters = DEFAULTS[is_binary] | {"seed": seed, "n_threads": n_threads} | fixed
    rank = min(parameters["rank"], responses.shape[1])
    columns, rows = _sample(responses, lineage, np.random.default_rng([seed, 7]))
    parameters["rank"] = min(rank, columns.size, _RANK)
    inner = np.ascontiguousarray(responses[:, columns])
    data = {"items": None if items is None else items.iloc[columns], "models": models}
    read = partial(correct, models=cards, use_names=use_names, seed=seed)
    measure = _loss_of_answers if is_binary else partial(_loss_of_proportions, read=read)

    @cache
    def loss(**parameters):
        return measure(LRMF(**parameters), inner, lineage, rows, data)

    curve = []
    for name, grid in GRIDS[is_binary].items() if rows.size >= _LEAST else ():
        useless = models is None if name == "use_features" else not lineage.n_edges
        if name in fixed or useless:
            continue
        losses = {value: loss(**parameters | {name: value}) for value in grid}
        best = min(losses, key=losses.get)
        if losses[best] > (1 - _WORTH[is_binary]) * losses[parameters[name]]:
            best = parameters[name]
        parameters[name] = best
        curve += [(name, value, losses[value], value == best) for value in grid]
    parameters["rank"] = rank
    return parameters, pd.DataFrame(curve, columns=["parameter", "value", "loss", "chosen"])


def _sample(responses, lineage, rng):
    """Columns to fit on, and the models with relatives in random order."""
    columns = np.sort(rng.permutation(responses.shape[1])[:_ITEMS])
    evaluated = has_responses(responses[:, columns])
    rows = np.flatnonzero(evaluated)
    related = rows[~is_isolated(lineage, evaluated, rows)]
    return columns, rng.permutation(related if related.size >= _LEAST else rows)


def _folds(responses, rows):
    """Yield rows and a copy of the responses without theirs."""
    for fold in np.array_split(rows, _FOLDS):
        train = np.array(responses)
        train[fold] = MISSING if responses.dtype == np.uint8 else np.nan
        yield fold, train


def _loss_of_answers(model, responses, lineage, rows, data):
    """Log-loss of the rows' answers, in folds hidden from the fit."""
    losses = []
    for fold, train in _folds(responses, rows):
        given = responses[fold]
        expected = model.fit(train, lineage, **data).predict_proba(fold)
        chance = np.where(given == 1, expected, 1 - expected)[observed(given)]
        losses.append(-np.log(np.clip(chance, 1e-6, 1)))
    return float(np.concatenate(losses).mean(dtype=np.float64))


def _loss_of_proportions(model, responses, lineage, rows, data, *, read):
    """Squared error of the rows' states, in folds, once trees have read their cards."""
    errors = []
    for fold, train in _folds(responses, rows):
        model.fit(train, lineage, **data)
        belief = read(model)[0]
        states = model.likelihood_.fold_in(belief[fold], responses[fold]).mean
        errors.append((states - belief[fold].mean) @ model.likelihood_.design.T)
    return float(np.mean(np.concatenate(errors) ** 2))
