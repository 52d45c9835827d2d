"""All data of the page as one JSON document: layout, scores, and what new forecasts need."""

import base64

import numpy as np
import pandas as pd

from ..data.descriptions import LARGEST, NODE_VARIANCES, SMALLEST
from ..data.features import UNKNOWN, levels
from ..data.lineage import EDGE_COLUMNS, Lineage
from ..data.response_kinds import ANSWERS
from ..data.responses import observed, reveal
from ..data.schema import RELATIONS
from ..forecaster.covariance import LEAST_NOISE
from ..forecaster.near_duplicates import CONFIG, NOISE
from ..report.family_tree import family_layout

CARD = ("type", "architecture", "precision", "license", "created_at", "evaluated_at")
_SCORE_SCALE = 10_000  # scores are stored as whole numbers of 1 / 10,000
_MAX_ITEMS_16_BIT = 5000  # number of items up to which loadings have 16 bits rather than 8


def bake(snapshot, forecaster, *, plans=None) -> dict:
    """The data of the page from a snapshot and a forecaster, as a dict for JSON.

    Models are all nodes of the lineage, evaluated or not, and all have forecasts. Arrays are stored
    as base64 of their bytes, with their type.

    Parameters
    ----------
    snapshot : Snapshot
    forecaster : Forecaster
        Fitted, over the same items.
    plans : DataFrame, optional
        Merge plans: parents (a sequence of ids) and any other columns.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the forecaster was fitted to other items.
    """
    # Lineage of the snapshot and of the fit.
    snapshot_lineage = snapshot.lineage[list(EDGE_COLUMNS)]
    edges = pd.concat([snapshot_lineage, forecaster.trained_edges_[list(EDGE_COLUMNS)]])
    known = Lineage.from_edges(edges, snapshot.models["model_id"])
    # All nodes of the lineage, and further models of the fit, become rows without responses.
    rest = [name for name in forecaster.prior_.describer.ids if name not in set(known.node_ids)]
    ids = [*known.node_ids, *rest]
    lineage = Lineage.from_edges(edges, ids)
    models = snapshot.models.set_index(snapshot.models["model_id"]).reindex(ids)
    models["model_id"] = ids
    models = models.reset_index(drop=True)
    responses = np.full((len(ids), snapshot.n_items), forecaster.kind_.missing)
    responses = responses.astype(snapshot.responses.dtype)
    responses[: snapshot.n_models] = snapshot.responses
    rows = forecaster.adapt(responses, lineage, models=models)
    return {
        "title": snapshot.name,
        "source": snapshot.source,
        "note": snapshot.note,
        "benchmarks": [str(name) for name in forecaster.scores_.names],
        "models": _models(ids, models, lineage) | _scores(rows, responses),
        "edges": _edges(lineage, snapshot.lineage),
        "relations": list(RELATIONS),
        "ask": _ask(forecaster, pd.Index(ids)),
        "plans": _plans(plans),
    }


def _array(values, dtype):
    """An array in the format that the page decodes: type, and little-endian bytes in base64."""
    array = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
    return {"dtype": np.dtype(dtype).str.lstrip("<>|="), "bytes": base64.b64encode(array).decode()}


def _categories(values):
    """Names of the categories, and the position of each value among them, -1 if unknown."""
    named = levels(pd.Series(list(values)))
    names = sorted(set(named) - {UNKNOWN})
    return {"levels": names, "code": _array(pd.Index(names).get_indexer(named), "i2")}


def _models(ids, models, lineage):
    """Ids, cards, families and positions in the layout of the models."""
    places = np.zeros((2, len(ids)))
    for family in range(lineage.n_families):
        members, generation, height = family_layout(lineage, family)
        places[:, members] = generation, height
    size = pd.to_numeric(models.get("params_b"), errors="coerce")
    size = np.full(len(ids), np.nan) if "params_b" not in models else size
    return {
        "id": ids,
        "family": _array(lineage.families, "i4"),
        "x": _array(places[0], "i2"),
        "y": _array(places[1], "f4"),
        "size": _array(size, "f4"),
        "card": {name: _categories(models[name]) for name in CARD if name in models},
    }


def _scores(rows, responses):
    """Scores and forecasts with intervals, (n, n_benchmarks) each.

    If a score is observed, its forecast is the one without the model's responses. Otherwise the
    forecast is the one given all responses.
    """
    now = rows.predict().scores
    before = rows.predict(revealed=reveal(responses, False)).scores
    n_items = rows.scores_.n_observed(np.zeros((1, responses.shape[1]), responses.dtype))
    count = now["n_observed"].to_numpy().reshape(len(responses), -1)
    # 0 forecast, 1 partly observed, 2 observed.
    state = (count > 0) + 1 * (count == n_items)
    is_observed = state.ravel() == 2
    # Forecasts for display, as whole numbers; -1 if there is none.
    columns = {"score": now["score"].to_numpy()}
    for name, column in (("forecast", "score"), ("lower", "lower"), ("upper", "upper")):
        columns[name] = np.where(is_observed, before[column], now[column])
    points = {
        name: _array(np.round(_SCORE_SCALE * np.nan_to_num(values, nan=-1 / _SCORE_SCALE)), "i2")
        for name, values in columns.items()
    }
    return points | {"observed": _array(state, "u1")}


def _edges(lineage, table):
    """Parents, children and relations of the edges, and their evidence if the table has it."""
    baked = {
        "parent": _array(lineage.parent_index, "i4"),
        "child": _array(lineage.child_index, "i4"),
        "relation": _array([RELATIONS.index(r) for r in lineage.edges["relation"]], "u1"),
    }
    if "evidence" in table:
        merged = lineage.edges.merge(
            table.drop_duplicates(list(EDGE_COLUMNS)), how="left", on=list(EDGE_COLUMNS)
        )
        baked["evidence"] = _categories(merged["evidence"])
    return baked


def _plans(plans):
    """Merge plans as a list of dicts, with parents as lists of ids."""
    if plans is None:
        return []
    table = plans.copy()
    parents = table.pop("parents")
    table = table.round(5).astype(object).where(table.notna(), None)
    rows = table.to_dict("records")
    return [{"parents": list(names)} | row for names, row in zip(parents, rows, strict=True)]


# What a forecast of a new model needs: the prior, the items, the calibration.


def _ask(forecaster, nodes):
    """Data with which the page forecasts new models."""
    return {
        "level": 0.9,
        "uses": {
            "lineage": forecaster.use_lineage,
            "cards": forecaster.use_cards,
            "names": forecaster.use_names,
        },
        "cards": _descriptions(forecaster.prior_, nodes),
        "process": _process(forecaster.prior_),
        "items": _items(forecaster),
        "calibration": {
            "n_revealed": forecaster.calibration_.n_revealed.tolist(),
            "unexplained": forecaster.calibration_.unexplained.tolist(),
            "scale": forecaster.calibration_.scale.tolist(),
        },
        "copies": _copies(forecaster),
    }


def _descriptions(prior, nodes):
    """Data of `Descriptions` for every node of the fit, evaluated models first."""
    describer = prior.describer
    parents = [describer._parents.get(node, ((), ()))[0] for node in range(len(describer.ids))]
    values, known = describer.values, describer.known
    baked = {
        "n_evaluated": describer.n_evaluated,
        "node": _array(nodes.get_indexer(describer.ids), "i4"),
        "n_parents": _array([len(found) for found in parents], "u2"),
        "parents": _array(np.concatenate([*map(np.array, parents), []]), "i4"),
        "change": _array(describer.change, "f4"),
        "node_variances": NODE_VARIANCES,
        "credible": [SMALLEST, LARGEST],
        "range": [None if np.isnan(end) else end for end in describer.range],
        "able": prior.known_fields,
        "fields": {},
    }
    # Each field of cards: numbers, or the distinct rows of category probabilities with codes.
    for column, field in enumerate(describer.parts):
        is_known, part = known[:, column], values[:, describer.parts[field]]
        if field not in describer.levels:
            baked[field] = _array(np.where(is_known, part[:, 0], np.nan), "f4")
            continue
        # The rows repeat. The first is that of models whose field is unknown.
        rows, code = np.unique(part[is_known].astype(np.float32), axis=0, return_inverse=True)
        codes = np.zeros(len(part))
        codes[is_known] = 1 + code.ravel()
        baked["fields"][field] = {
            "levels": describer.levels[field],
            "rows": _array(np.vstack([describer.frequency[column], rows]), "f4"),
            "code": _array(codes, "u2"),
        }
    return baked


def _process(prior):
    """The Gaussian process: parameters, outputs, and the solutions P y."""
    process, covariance = prior.process_, prior.covariance_
    n, q = process.outputs.shape
    exact = process.groups[0].precision is not None
    solved = np.zeros((n, q))
    if exact:
        for group in process.groups:
            solved[:, group.outputs] = group.solved
    return {
        "parameters": dict(sorted(covariance.parameters.items())),
        "atoms": {name: atoms.tolist() for name, atoms in covariance.atoms.items()},
        "tree_variance": _array(prior.nodes.variance, "f4"),
        "least_noise": LEAST_NOISE,
        "neighbours": process.neighbours,
        "exact": exact,
        "groups": [
            {
                "outputs": group.outputs.tolist(),
                "noise": _array(group.noise, "f4"),
                # diag(P): the page selects by it the models on which a variance depends most.
                "precision": _array(np.diagonal(group.precision), "f4") if exact else None,
            }
            for group in process.groups
        ],
        "solved": _array(solved if exact else [], "f4"),
        # Needed if the process is not exact, or forecasts are shrunk towards the parents.
        "outputs": _array(process.outputs if prior.reach or not exact else [], "f4"),
        "reach": prior.reach,
        "variances": prior.variances.tolist(),
        "to_states": prior.to_states.tolist(),
        "scatter": prior.scatter.tolist(),
        "centre": prior.centre.tolist(),
    }


def _items(forecaster):
    """Parameters of the items; those of answers are rounded to 16 bits, or 8 if there are many."""
    likelihood, weights = forecaster.likelihood_, forecaster.scores_.weights
    n_items = len(weights)
    baked = {
        "kind": forecaster.kind_.name,
        "benchmark": _array(weights.argmax(axis=1), "u2"),
        "n_trials": _array(weights.max(axis=1), "f4"),
    }
    if forecaster.kind_ is not ANSWERS:
        for name in ("loadings", "mean", "scale", "noise"):
            baked[name] = _array(getattr(likelihood, name), "f4")
        return baked
    table = np.column_stack([likelihood.loadings, likelihood.intercept])
    dtype = np.int16 if n_items <= _MAX_ITEMS_16_BIT else np.int8
    step = np.maximum(np.abs(table).max(axis=0), 1e-9) / np.iinfo(dtype).max
    return baked | {"table": _array(np.round(table / step), dtype), "step": step.tolist()}


def _copies(forecaster):
    """Near-duplicate mixture of a new model before any answer: weights and candidates' scores."""
    mixture = forecaster.near_duplicates_
    learned = mixture and mixture.mixture_weights.get((CONFIG.zero_shot_level, False))
    if not learned:
        return None
    weights, base_weight = learned
    trained = forecaster.trained_responses_
    answered = observed(trained)
    n_answered = answered.astype(np.float32) @ forecaster.scores_.weights
    actual = np.nan_to_num(forecaster.scores_.actual(trained, answered))
    return {
        "shares": weights.tolist(),
        "alone": float(base_weight),
        "noise": NOISE.tolist(),
        "n_kept": CONFIG.n_kept,
        "score": _array(np.round(_SCORE_SCALE * actual), "i2"),
        "answered": _array(n_answered / forecaster.scores_.weights.sum(axis=0), "f4"),
    }
