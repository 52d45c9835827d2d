"""Everything that the page shows or computes with, as one JSON document: places and numbers."""

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
_POINTS = 10_000  # scores are baked as whole numbers of this part of 1
_FINE = 5000  # items up to which loadings have 16 bits; the more items, the less each one counts
_EVIDENCE = ("evidence", "source", "field")  # columns of the lineage that say where an edge is from


def bake(snapshot, forecaster, *, plans=None) -> dict:
    """All that the page needs of a snapshot and a forecaster, ready for JSON.

    Models are the nodes of the family tree, evaluated or not; all have forecasts. Arrays are
    base64 of their bytes, with their type.

    Parameters
    ----------
    snapshot : Snapshot
    forecaster : Forecaster
        Fitted, over the same items.
    plans : DataFrame, optional
        The planner's merges: parents (a list of ids, or ids joined by commas) and any columns.

    Raises
    ------
    ValueError
        If the forecaster is of other items.
    """
    snapshot_lineage = snapshot.lineage[list(EDGE_COLUMNS)]
    edges = pd.concat([snapshot_lineage, forecaster.trained_edges_[list(EDGE_COLUMNS)]])
    known = Lineage.from_edges(edges, snapshot.models["model_id"])
    # Every node of the family tree, and what else the fit knows, becomes a row without responses.
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
    """An array as the page decodes it: little-endian bytes in base64."""
    array = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
    return {"dtype": np.dtype(dtype).str.lstrip("<>|="), "bytes": base64.b64encode(array).decode()}


def _categories(values):
    found = levels(pd.Series(list(values)))
    names = sorted(set(found) - {UNKNOWN})
    return {"levels": names, "code": _array(pd.Index(names).get_indexer(found), "i2")}


def _models(ids, models, lineage):
    """Ids, cards, families and places."""
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
    """Scores (n, n_benchmarks), and forecasts with intervals.

    A score that is observed stands beside the forecast made without the model's responses; any
    other score is the forecast given all responses.
    """
    now = rows.predict_scores()
    before = rows.predict_scores(revealed=reveal(responses, False))
    n_items = rows.scores_.n_observed(np.zeros((1, responses.shape[1]), responses.dtype))
    count = now["n_observed"].to_numpy().reshape(len(responses), -1)
    # 0 forecast, 1 partly observed, 2 observed.
    state = (count > 0) + 1 * (count == n_items)
    is_observed = state.ravel() == 2
    columns = {"score": now["score"].to_numpy()}
    for name, column in (("forecast", "score"), ("lower", "lower"), ("upper", "upper")):
        columns[name] = np.where(is_observed, before[column], now[column])
    points = {
        name: _array(np.round(_POINTS * np.nan_to_num(values, nan=-1 / _POINTS)), "i2")
        for name, values in columns.items()
    }
    return points | {"observed": _array(state, "u1")}


def _edges(lineage, table):
    baked = {
        "parent": _array(lineage.parent_index, "i4"),
        "child": _array(lineage.child_index, "i4"),
        "relation": _array([RELATIONS.index(r) for r in lineage.edges["relation"]], "u1"),
    }
    said = [column for column in _EVIDENCE if column in table]
    if said:
        merged = lineage.edges.merge(
            table.drop_duplicates(list(EDGE_COLUMNS)), how="left", on=list(EDGE_COLUMNS)
        )
        baked["evidence"] = _categories(merged[said[0]])
    return baked


def _plans(plans):
    if plans is None:
        return []
    table = plans.copy()
    parents = table.pop("parents")
    table = table.round(5).astype(object).where(table.notna(), None)
    split = [p.split(",") if isinstance(p, str) else [str(one) for one in p] for p in parents]
    rows = table.to_dict("records")
    return [{"parents": own} | row for own, row in zip(split, rows, strict=True)]


# What a forecast of a new model needs: the prior, the items, the calibration.


def _ask(forecaster, nodes):
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
    """What `Descriptions` are made of, for every node that the fit knows, the evaluated first."""
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
    for column, field in enumerate(describer.parts):
        is_known, part = known[:, column], values[:, describer.parts[field]]
        if field not in describer.levels:
            baked[field] = _array(np.where(is_known, part[:, 0], np.nan), "f4")
            continue
        # Few different rows; the first is that of models whose field is unknown.
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
    """The Gaussian process: parameters, outputs, and what it has solved."""
    process, covariance = prior.process_, prior.covariance_
    n, q = process.outputs.shape
    exact = process.groups[0].precision is not None
    solved = np.zeros((n, q))
    if exact:
        for group in process.groups:
            solved[:, group.outputs] = group.solved
    return {
        "parameters": covariance.parameters,
        "atoms": {name: atoms.tolist() for name, atoms in covariance.atoms.items()},
        "tree_variance": _array(prior.nodes.variance, "f4"),
        "least_noise": LEAST_NOISE,
        "neighbours": process.neighbours,
        "exact": exact,
        "groups": [
            {
                "outputs": group.outputs.tolist(),
                "noise": _array(group.noise, "f4"),
                # Precisions of single models: which of them a variance depends on most.
                "precision": _array(np.diagonal(group.precision), "f4") if exact else None,
            }
            for group in process.groups
        ],
        "solved": _array(solved if exact else [], "f4"),
        # Read where the process is not exact, and where a forecast is drawn to the parents.
        "outputs": _array(process.outputs if prior.reach or not exact else [], "f4"),
        "reach": prior.reach,
        "variances": prior.variances.tolist(),
        "to_states": prior.to_states.tolist(),
        "scatter": prior.scatter.tolist(),
        "centre": prior.centre.tolist(),
    }


def _items(forecaster):
    """The items: loadings and intercept of each; rounded where there are thousands of them."""
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
    dtype = np.int16 if n_items <= _FINE else np.int8
    step = np.maximum(np.abs(table).max(axis=0), 1e-9) / np.iinfo(dtype).max
    return baked | {"table": _array(np.round(table / step), dtype), "step": step.tolist()}


def _copies(forecaster):
    """The mixture of near-duplicates as it is before any answer of a new model is known."""
    copies = forecaster.near_duplicates_
    found = copies and copies.mixture_weights.get((CONFIG.zero_shot_level, False))
    if not found:
        return None
    shares, alone = found
    trained = forecaster.trained_responses_
    answered = observed(trained)
    n_answered = answered.astype(np.float32) @ forecaster.scores_.weights
    actual = np.nan_to_num(forecaster.scores_.actual(trained, answered))
    return {
        "shares": shares.tolist(),
        "alone": float(alone),
        "noise": NOISE.tolist(),
        "n_kept": CONFIG.n_kept,
        "score": _array(np.round(_POINTS * actual), "i2"),
        "answered": _array(n_answered / forecaster.scores_.weights.sum(axis=0), "f4"),
    }
