"""Hyperparameters of LRMF by inner cross-validation over the nodes of the lineage."""

import numpy as np
import pandas as pd

from .factorization import LRMF
from .forecasts import BLOCK, has_responses, is_isolated
from .snapshot import observed

GRIDS = {
    True: {"lineage_strength": (1.0, 3.0, 10.0, 30.0), "use_features": (False, True)},
    False: {
        "use_features": (True, False),
        "lineage_strength": (1.0, 3.0, 10.0, 30.0),
        "node_ridge": (0.1, 0.3, 1.0),
        "jump": (0.02, 0.05, 0.15),
    },
}  # by whether responses are answers
DEFAULTS = {
    True: {"rank": 16, "lineage_strength": 10.0, "use_features": False},
    False: {"rank": 16, "lineage_strength": 3.0, "node_ridge": 0.3, "use_features": True},
}
_ITEMS = 1000  # columns that inner fits see
_MODELS = 400  # models that inner forecasts are scored on
_LEAST = 20  # models with relatives, below which all models count
_WORTH = 0.002  # relative gain below which a default stays


def tune(responses, lineage, *, items, models, fixed, seed=0, n_threads=None):
    """Choose hyperparameters one after the other, each by what it does to leave-one-out forecasts.

    One fit serves all left-out models: belief propagation gives the prior of each without its own
    responses (item parameters and feature weights have seen them, as have all candidates'). Models
    with relatives are scored, since for others most parameters do not matter: answers by log-loss,
    proportions by the squared error on the standardised arcsine scale.

    Parameters
    ----------
    responses, lineage, items, models : as in `LRMF.fit`
    fixed : dict, parameters that are not to be tuned

    Returns
    -------
    parameters : dict
    curve : DataFrame, columns parameter, value, loss, chosen
    """
    is_binary = responses.dtype == np.uint8
    parameters = DEFAULTS[is_binary] | {"seed": seed, "n_threads": n_threads} | fixed
    parameters["rank"] = min(parameters["rank"], responses.shape[1])
    columns, rows = _sample(responses, lineage, np.random.default_rng([seed, 7]))
    inner = np.ascontiguousarray(responses[:, columns])
    known = None if items is None else items.iloc[columns]

    def loss(**changed):
        model = LRMF(**parameters | changed | {"rank": min(parameters["rank"], columns.size)})
        return _loss(model.fit(inner, lineage, items=known, models=models), rows)

    curve = []
    for name, grid in GRIDS[is_binary].items():
        if name in fixed or (name == "use_features" and models is None):
            continue
        if not lineage.n_edges and name == "lineage_strength":
            continue
        losses = {value: loss(**{name: value}) for value in grid}
        best = min(losses, key=losses.get)
        default = parameters.get(name, LRMF().get_params()[name])
        if default in losses and losses[best] > (1 - _WORTH) * losses[default]:
            best = default
        parameters[name] = best
        curve += [(name, value, losses[value], value == best) for value in grid]
    return parameters, pd.DataFrame(curve, columns=["parameter", "value", "loss", "chosen"])


def _sample(responses, lineage, rng):
    """Columns to fit on and models to score on, each at random."""
    columns = np.sort(rng.permutation(responses.shape[1])[:_ITEMS])
    evaluated = has_responses(responses[:, columns])
    rows = np.flatnonzero(evaluated)
    related = rows[~is_isolated(lineage, evaluated, rows)]
    rows = related if related.size >= _LEAST else rows
    return columns, np.sort(rng.permutation(rows)[:_MODELS])


def _loss(model, rows):
    """Mean loss of the leave-one-out forecasts of the rows' responses."""
    total = count = 0.0
    for top in range(0, rows.size, BLOCK):
        block = rows[top : top + BLOCK]
        given, belief = model.responses_[block], model.leave_one_out(block)
        expected = model.likelihood_.forecast(belief.mean, belief.covariance)[0]
        seen = observed(given)
        if model.is_binary_:
            chance = np.clip(np.where(given == 1, expected, 1 - expected)[seen], 1e-6, 1)
            total -= np.log(chance).sum(dtype=np.float64)
        else:
            y, mean = (2 * np.arcsin(np.sqrt(np.clip(p, 0, 1))) for p in (given, expected))
            total += (((y - mean) / model.likelihood_.scale)[seen] ** 2).sum()
        count += seen.sum()
    return float(total / max(count, 1))
