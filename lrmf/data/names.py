"""Name similarity: mean scores of the models with similar names."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

_NEAREST = 50  # names that count as neighbours
_POWER = 4  # of the similarity: near-duplicates of a name outweigh the many that share a syllable
_SAME_ORGANIZATION = 4  # factor of the weight
_PRIOR_WEIGHT = 0.01  # of the mean over all models
_BLOCK = 512  # names compared with all others at a time
_DECIMALS = 9  # of a cosine: which names are nearest must not depend on the last bits of its sum


def similar_names(ids: Sequence[str], values: np.ndarray, known: np.ndarray) -> np.ndarray:
    r"""Means of the values of similarly named models.

    Similar names hint at a common origin that no card declares. With c_uv the cosine similarity of
    two names' character n-grams (2 to 4, TF-IDF; the 50 most similar names count) and m the mean of
    all known values y,

        near_u = (sum_v w_uv y_v + 0.01 m) / (sum_v w_uv + 0.01),
        w_uv = c_uv^4, four times that if u and v are of the same organization,

    over known v != u: a model's own value enters through m alone. Only the 50 most similar names
    count: from a mean over a whole organization, which is one sum for all its models but for their
    own values, trees would learn those values.

    Parameters
    ----------
    ids : n_models strings, ``org/name``
    values : (n_known, n_values), of the models `known`, NaN where missing
    known : (n_known,) integer array, rows of these models, each once

    Returns
    -------
    float (n_models, n_values + 2)
        near, the similarity of the most similar name, log(1 + number of the organization's other
        known models).

    Examples
    --------
    >>> ids = ["a/llama-chat", "b/llama-chat-v2", "b/gemma"]
    >>> near, similarity, others = similar_names(ids, np.array([[0.6], [0.2]]), np.array([0, 2])).T
    >>> near.round(2).tolist(), similarity.round(2).tolist(), np.expm1(others).round().tolist()
    ([0.4, 0.59, 0.4], [0.02, 0.69, 0.02], [0.0, 1.0, 0.0])
    """
    ids, is_known = tuple(ids), np.zeros(len(ids))
    is_known[known] = 1
    placed, is_seen = np.zeros((2, len(ids), values.shape[1]))
    placed[known], is_seen[known] = np.nan_to_num(values), ~np.isnan(values)
    mean = placed.sum(axis=0) / np.maximum(is_seen.sum(axis=0), 1)
    similarity, weight, member = _neighbours(ids)
    near = (weight @ placed + _PRIOR_WEIGHT * mean) / (weight @ is_seen + _PRIOR_WEIGHT)
    closest = (similarity @ sparse.diags_array(is_known)).max(axis=1).toarray().ravel()
    others = member @ (member.T @ is_known) - is_known
    return np.column_stack([near, closest, np.log1p(others)])


@lru_cache(maxsize=2)
def _neighbours(ids: tuple[str, ...]) -> tuple[sparse.csr_array, ...]:
    """Similarity and weight (n, n), and of which organization each model is (n, n_orgs)."""
    parts = [identifier.rpartition("/") for identifier in ids]
    similarity = _similarity([name or organization for organization, _, name in parts])
    code, _ = pd.factorize(np.array([part[0] or part[2] for part in parts], dtype=object))
    member = sparse.csr_array((np.ones(len(ids)), (np.arange(len(ids)), code)))
    pairs = similarity.tocoo()
    is_own = code[pairs.row] == code[pairs.col]
    weight = pairs.data**_POWER * np.where(is_own, _SAME_ORGANIZATION, 1)
    return similarity, sparse.csr_array((weight, (pairs.row, pairs.col)), pairs.shape), member


def _similarity(names: list[str]) -> sparse.csr_array:
    """Cosines of the names' n-grams (n, n): the nearest of each row, nothing on the diagonal."""
    ngrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    rows = sparse.csr_array(ngrams.fit_transform(names))
    columns, n_kept = rows.T.tocsr(), min(_NEAREST, len(names))
    blocks = []
    for start in range(0, len(names), _BLOCK):
        cosine = (rows[start : start + _BLOCK] @ columns).toarray().round(_DECIMALS)
        block = np.arange(len(cosine))
        cosine[block, start + block] = 0
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :n_kept]
        kept = np.take_along_axis(cosine, nearest, axis=1)
        cells = kept.ravel(), (np.repeat(block, n_kept), nearest.ravel())
        blocks.append(sparse.csr_array(cells, shape=cosine.shape))
    return sparse.vstack(blocks, format="csr")
