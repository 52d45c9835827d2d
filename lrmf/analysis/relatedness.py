"""Relatedness: families, scores of parents and children, distances between fitted states."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..data.lineage import Lineage
from ..data.schema import RELATIONS
from ..data.statistics import pearson, percentile_interval, resample_weights

AVERAGE = "average"
ANY_RELATION = "any"
_MIN_PAIRS = 5  # for a correlation
_MIN_FAMILIES = 10  # for its interval
_FEW_PARENTS = 4  # of the example that the figures show


def lineage_counts(lineage: Lineage) -> pd.DataFrame:
    """Distributions of family size, generation, number of children and number of merged parents.

    Returns
    -------
    DataFrame
        ``quantity, value, count``: members of a family (of two or more), generations above a node
        that has a parent, children of a parent, and parents of a merge.

    Examples
    --------
    >>> edges = [("base", "chat", "finetune"), ("base", "code", "finetune")]
    >>> edges += [("chat", "mix", "merge"), ("code", "mix", "merge")]
    >>> lineage = Lineage.from_edges(edges, ["base", "chat", "code", "mix"])
    >>> print(lineage_counts(lineage).to_string(index=False))
                quantity  value  count
     members of a family      4      1
       generations above      1      2
       generations above      2      1
    children of a parent      1      2
    children of a parent      2      1
      parents of a merge      2      1
    """
    sizes = np.bincount(lineage.families)
    children = np.bincount(lineage.parent_index)
    is_merge = lineage.edges["relation"].to_numpy() == "merge"
    merged = np.bincount(lineage.child_index[is_merge])
    quantities = {
        "members of a family": sizes[sizes > 1],
        "generations above": lineage.depth[lineage.depth > 0],
        "children of a parent": children[children > 0],
        "parents of a merge": merged[merged > 0],
    }
    counts = {
        name: pd.Series(values).value_counts().sort_index() for name, values in quantities.items()
    }
    return pd.concat(counts, names=["quantity", "value"]).rename("count").reset_index()


def family_table(lineage: Lineage, average: pd.Series) -> pd.DataFrame:
    """Size and scores of the families of two or more, the largest first.

    Parameters
    ----------
    lineage : Lineage
    average : Series (n_models,)
        From `average_scores`.

    Returns
    -------
    DataFrame
        ``family, n_nodes, n_models, generations, mean, sd, best_connected``: mean and standard
        deviation of the models' averages, and the member with most parents and children.
    """
    n_links = np.bincount(lineage.parent_index, minlength=lineage.n_nodes)
    n_links += np.bincount(lineage.child_index, minlength=lineage.n_nodes)
    nodes = pd.DataFrame(
        {
            "family": lineage.families,
            "depth": lineage.depth,
            "is_scored": lineage.is_scored,
            "average": np.append(average, np.full(lineage.n_nodes - lineage.n_models, np.nan)),
            "node_id": lineage.node_ids,
        }
    )
    by_links = nodes.iloc[np.argsort(-n_links, kind="stable")[: np.count_nonzero(n_links)]]
    table = by_links.groupby("family").agg(
        n_nodes=("depth", "size"),
        n_models=("is_scored", "sum"),
        generations=("depth", "max"),
        mean=("average", "mean"),
        sd=("average", "std"),
        best_connected=("node_id", "first"),
    )
    return table.reset_index()


def average_scores(scores: pd.DataFrame) -> pd.Series:
    """Mean of a model's standardised scores, in standard deviations above the average model.

    Standardising each benchmark first makes models comparable that were evaluated on different
    ones.

    Parameters
    ----------
    scores : DataFrame (n_models, n_benchmarks), shares of correct answers, NaN = not evaluated

    Examples
    --------
    >>> average_scores(pd.DataFrame({"math": [0.1, 0.3], "code": [0.8, None]})).round(2).tolist()
    [-1.0, 1.0]
    """
    return _standardised(scores).mean(axis=1)


def _standardised(scores):
    deviation = scores.std(ddof=0)
    return (scores - scores.mean()) / deviation.where(deviation > 0)


def parent_child_pairs(lineage: Lineage, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of every child beside the mean of its scored parents, by relation and benchmark.

    Parameters
    ----------
    lineage : Lineage
    scores : DataFrame (n_models, n_benchmarks)

    Returns
    -------
    DataFrame
        ``child, relation, benchmark, n_parents, parent_score, child_score, family``. Benchmark
        "average" is the mean standardised score over the benchmarks that both have.

    Examples
    --------
    >>> edges = [("base", "chat", "finetune"), ("base", "code", "finetune")]
    >>> edges += [("chat", "mix", "merge"), ("code", "mix", "merge")]
    >>> lineage = Lineage.from_edges(edges, ["base", "chat", "code", "mix"])
    >>> pairs = parent_child_pairs(lineage, pd.DataFrame({"math": [0.1, 0.2, 0.4, 0.3]}))
    >>> pairs[pairs["benchmark"] == "math"].iloc[:, [0, 3, 4, 5]]
      child  n_parents  parent_score  child_score
    0  chat          1           0.1          0.2
    1  code          1           0.1          0.4
    2   mix          2           0.3          0.3
    """
    parent, child = lineage.parent_index, lineage.child_index
    is_scored = (parent < lineage.n_models) & (child < lineage.n_models)
    parent, child = parent[is_scored], child[is_scored]
    edges = lineage.edges.loc[is_scored, ["child", "relation"]]
    edges["family"] = lineage.families[child]
    # Benchmarks that both ends have; the average is over these.
    both = np.isfinite(scores.to_numpy()[parent]) & np.isfinite(scores.to_numpy()[child])
    standard = _standardised(scores)
    ends = {}
    for name, end in (("parent_score", parent), ("child_score", child)):
        ends[name] = scores.iloc[end].where(both)
        ends[name][AVERAGE] = standard.iloc[end].where(both).mean(axis=1)
    frames = []
    for benchmark in [*scores.columns, AVERAGE]:
        columns = {name: end[benchmark].to_numpy() for name, end in ends.items()}
        pairs = edges.assign(benchmark=benchmark, **columns).dropna(subset=["parent_score"])
        # One row for each child and relation: the mean of its scored parents.
        by_child = pairs.groupby(["child", "relation", "benchmark"]).agg(
            n_parents=("parent_score", "size"),
            parent_score=("parent_score", "mean"),
            child_score=("child_score", "first"),
            family=("family", "first"),
        )
        frames.append(by_child.reset_index())
    return pd.concat(frames, ignore_index=True)


def parent_child_correlations(
    pairs: pd.DataFrame, *, seed: int, n_resamples: int = 1000
) -> pd.DataFrame:
    """Pearson r of child and parents for each relation and benchmark, with 95% intervals.

    Intervals are percentiles over resampled families: relatives are not independent.

    Parameters
    ----------
    pairs : DataFrame from `parent_child_pairs`
    seed : int
    n_resamples : int

    Returns
    -------
    DataFrame
        ``relation, benchmark, n, r, lower, upper``; relation "any" is all of them together. Groups
        of fewer than five pairs are left out, and intervals from fewer than ten families NaN.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for relation in [ANY_RELATION, *RELATIONS]:
        chosen = pairs if relation == ANY_RELATION else pairs[pairs["relation"] == relation]
        for benchmark, group in chosen.groupby("benchmark", sort=False):
            if len(group) >= _MIN_PAIRS:
                r, lower, upper = _correlate_families(group, rng, n_resamples)
                rows.append((relation, benchmark, len(group), r, lower, upper))
    columns = ["relation", "benchmark", "n", "r", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)


def _correlate_families(group, rng, n_resamples):
    """Correlation of parents and children, and its interval over resampled families."""
    family = pd.factorize(group["family"])[0]
    x, y = group["parent_score"].to_numpy(), group["child_score"].to_numpy()
    if family.max() + 1 < _MIN_FAMILIES:
        return pearson(x, y), np.nan, np.nan
    weights = resample_weights(family, n_resamples, rng)[1:]
    return pearson(x, y), *percentile_interval(pearson(x, y, weights))


def principal_coordinates(
    states: np.ndarray, loadings: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate model states to the axes along which predicted responses vary most.

    Factors are defined up to a rotation only; the matrix ``states @ loadings.T`` of predictions is
    not. Its principal axes over the models in ``rows`` are the coordinates: distances between rows
    are root mean square differences over the items.

    Parameters
    ----------
    states : array (n_nodes, p)
        Model factors, and biases if there are any.
    loadings : array (n_items, p)
        Of the items, and a column of ones for the biases.
    rows : int array
        Models that define centre and axes.

    Returns
    -------
    coordinates : array (n_nodes, p)
        Centred; positive where the mean prediction is high.
    shares : array (p,)
        Share of the variance over ``rows`` by coordinate.
    """
    # With loadings = Q R, |states @ loadings.T| = |states @ R.T|: so few columns are enough.
    root = np.linalg.qr(np.asarray(loadings, dtype=float) / np.sqrt(len(loadings)), mode="r")
    scaled = (states - states[rows].mean(axis=0)) @ root.T
    _, std, axes = np.linalg.svd(scaled[rows], full_matrices=False)
    mean_prediction = (states - states[rows].mean(axis=0)) @ np.mean(loadings, axis=0)
    coordinates = scaled @ axes.T
    sign = np.where(mean_prediction[rows] @ coordinates[rows] < 0, -1.0, 1.0)
    return coordinates * sign, std**2 / np.sum(std**2)


def pair_distances(
    lineage: Lineage, coordinates: np.ndarray, rows: np.ndarray, *, seed: int, n_pairs: int = 2000
) -> pd.DataFrame:
    """Distances between the coordinates of relatives and of random models.

    Parameters
    ----------
    lineage : Lineage
    coordinates : array (n_nodes, p)
    rows : int array
        The models compared.
    seed : int
    n_pairs : int
        At most so many pairs of a kind, drawn at random.

    Returns
    -------
    DataFrame
        ``kind, distance``, one row a pair. Kinds: the relations (child and parent), "siblings"
        (children of one parent), "same family" and "random" (any two).
    """
    rng = np.random.default_rng(seed)
    is_compared = np.isin(np.arange(lineage.n_nodes), rows)
    frames = []
    for kind, pairs in _kinds_of_pairs(lineage, np.sort(rows), n_pairs, rng):
        pairs = pairs[is_compared[pairs].all(axis=1) & (pairs[:, 0] != pairs[:, 1])]
        if len(pairs) > n_pairs:
            pairs = pairs[np.sort(rng.permutation(len(pairs))[:n_pairs])]
        distance = np.linalg.norm(coordinates[pairs[:, 0]] - coordinates[pairs[:, 1]], axis=1)
        frames.append(pd.DataFrame({"kind": kind, "distance": distance}))
    return pd.concat(frames, ignore_index=True)


def _kinds_of_pairs(lineage, rows, n_pairs, rng):
    links = np.column_stack([lineage.parent_index, lineage.child_index])
    relation = lineage.edges["relation"].to_numpy()
    for name in pd.unique(relation):
        yield name, links[relation == name]
    shape = (lineage.n_nodes, lineage.n_nodes)
    has_parent = sp.coo_array((np.ones(len(links)), (links[:, 1], links[:, 0])), shape).tocsr()
    siblings = sp.triu(has_parent @ has_parent.T, k=1).tocoo()
    yield "siblings", np.column_stack(siblings.coords)
    yield "same family", rows[_same_family_pairs(lineage.families[rows], n_pairs, rng)]
    yield "random", rows[rng.integers(0, len(rows), size=(n_pairs, 2))]


def _same_family_pairs(families, n_pairs, rng):
    """Pairs drawn uniformly from all pairs of different rows within a family."""
    order = np.argsort(families, kind="stable")
    sizes = np.bincount(families)
    starts = np.cumsum(sizes) - sizes
    weight = (sizes[families] - 1).astype(float)
    if not weight.any():
        return np.empty((0, 2), dtype=int)
    one = rng.choice(order, size=n_pairs, p=weight[order] / weight.sum())
    family = families[one]
    place = np.empty(len(order), dtype=int)
    place[order] = np.arange(len(order))
    step = rng.integers(1, sizes[family])
    other = order[starts[family] + (place[one] - starts[family] + step) % sizes[family]]
    return np.column_stack([one, other])


def example_model(lineage: Lineage, scores: pd.DataFrame) -> str | None:
    """Pick a model to show a forecast of, without looking at how good that forecast is.

    Among the models with a parent that has all their benchmarks, the first by: most benchmarks;
    four parents or fewer, all of which have these benchmarks; most scored relatives within two
    hops; id. None if no model has such a parent.

    Parameters
    ----------
    lineage : Lineage
    scores : DataFrame (n_models, n_benchmarks)
    """
    evaluated = np.zeros((lineage.n_nodes, scores.shape[1]), dtype=bool)
    evaluated[: lineage.n_models] = scores.notna()
    parent, child = lineage.parent_index, lineage.child_index
    covers = evaluated[child].any(axis=1) & ~(evaluated[child] & ~evaluated[parent]).any(axis=1)
    n_parents = np.bincount(child, minlength=lineage.n_nodes)
    n_covering = np.bincount(child[covers], minlength=lineage.n_nodes)
    candidates = np.flatnonzero(n_covering)
    if not len(candidates):
        return None
    near = lineage.adjacency[candidates]
    near = (near + near @ lineage.adjacency)[:, np.flatnonzero(evaluated.any(axis=1))]
    simple = (n_covering == n_parents) & (n_parents <= _FEW_PARENTS)
    ids = lineage.node_ids[candidates].astype(str)
    keys = (ids, -(near > 0).sum(axis=1), ~simple[candidates], -evaluated[candidates].sum(axis=1))
    return lineage.node_ids[candidates[np.lexsort(keys)[0]]]


def example_forecast(model, lineage: Lineage, scores: pd.DataFrame, example: str) -> pd.DataFrame:
    """Forecast of a held-out model beside its own scores, its parents' and the average model's.

    Parameters
    ----------
    model : LRMF
        Fitted with an items table and without the example's responses.
    lineage : Lineage
    scores : DataFrame (n_models, n_benchmarks)
        The example's own scores included.
    example : str

    Returns
    -------
    DataFrame
        ``model_id, benchmark, kind, source, score, lower, upper`` over the benchmarks the example
        was evaluated on. Kinds: "forecast" (with its 90% interval), "actual", "parent" (source is
        the parent's id) and "benchmark mean".
    """
    row = lineage.index_of(example)
    known = scores.columns[scores.iloc[row].notna()]
    own = model.predict([row]).scores.set_index("benchmark").loc[known, ["score", "lower", "upper"]]
    others = scores[np.arange(len(scores)) != row]
    series = {("forecast", example): own["score"], ("actual", example): scores.iloc[row][known]}
    for parent in lineage.parents(example):
        node = lineage.index_of(parent)
        if node < lineage.n_models:
            series["parent", parent] = scores.iloc[node][known].dropna()
    series["benchmark mean", ""] = others[known].mean()
    table = pd.concat(series, names=["kind", "source", "benchmark"]).rename("score").reset_index()
    table = table[["benchmark", "kind", "source", "score"]]
    is_forecast = table["kind"] == "forecast"
    for end in ("lower", "upper"):
        table.loc[is_forecast, end] = own[end].to_numpy()
    table.insert(0, "model_id", example)
    return table
