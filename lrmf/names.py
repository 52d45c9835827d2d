"""Model names: which resemble each other, and what the models that bear such names are like."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

_NEAREST = 50  # names that a name is compared with, once the nearest are known
_POWER = 4  # of the similarity: near-copies of a name outweigh the many that share a syllable
_DOUBT = 0.01  # weight of the mean over all models
_BLOCK = 512


def namesakes(ids: Sequence[str], values: np.ndarray, known: np.ndarray) -> np.ndarray:
    r"""Means of the values of similarly named models and of those of the same organization.

    Names tell of a common origin that no lineage declares. With c_uv the cosine similarity of the
    names' character n-grams (2 to 4, TF-IDF) over the 50 most similar names, and m the mean of all
    known values y,

        near_u = (sum_v c_uv^4 y_v + 0.01 m) / (sum_v c_uv^4 + 0.01)
        own_u  = (sum_{v of u's organization} y_v + m) / (their number + 1)

    over v != u that are known: no model's means hold its own value.

    Parameters
    ----------
    ids : n_models strings, ``org/name``
    values : (n_known, n_values), of the models `known`
    known : (n_known,) integer array, rows of these models, each once

    Returns
    -------
    float (n_models, 2 n_values + 2)
        near, own, the similarity of the most similar name, log(1 + number of the organization's
        other models).

    Examples
    --------
    >>> ids = ["a/llama-chat", "b/llama-chat-v2", "b/gemma"]
    >>> near, own, similarity, others = namesakes(ids, np.array([[0.6], [0.2]]), np.array([0, 2])).T
    >>> near.round(2).tolist(), similarity.round(2).tolist()
    ([0.4, 0.59, 0.4], [0.02, 0.69, 0.02])
    """
    ids = tuple(ids)
    n_models, mean = len(ids), values.mean(axis=0)
    is_known = np.zeros(n_models)
    is_known[known] = 1
    placed = np.zeros((n_models, values.shape[1]))
    placed[known] = values
    similarity = _similarity(ids) @ sparse.diags_array(is_known)
    weight = similarity.power(_POWER)
    near = (weight @ placed + _DOUBT * mean) / (weight.sum(axis=1) + _DOUBT)[:, None]
    closest = similarity.max(axis=1).toarray().ravel()
    organizations = pd.Series(ids).str.rpartition("/")[0]
    code, _ = pd.factorize(organizations)
    member = sparse.csr_array((np.ones(n_models), (np.arange(n_models), code)))
    others = member @ (member.T @ is_known) - is_known
    own = (member @ (member.T @ placed) - placed + mean) / (others + 1)[:, None]
    return np.column_stack([near, own, closest, np.log1p(others)])


@lru_cache(maxsize=2)
def _similarity(ids: tuple[str, ...]) -> sparse.csr_array:
    """Cosines of the names' n-grams: (n, n), the nearest of each row, nothing on the diagonal."""
    names = [identifier.rpartition("/")[2] or identifier for identifier in ids]
    ngrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    rows = sparse.csr_array(ngrams.fit_transform(names))
    columns, n_models, n_kept = rows.T.tocsr(), len(ids), min(_NEAREST, len(ids))
    blocks = []
    for start in range(0, n_models, _BLOCK):
        cosine = (rows[start : start + _BLOCK] @ columns).toarray()
        block = np.arange(len(cosine))
        cosine[block, start + block] = 0
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :n_kept]
        kept = np.take_along_axis(cosine, nearest, axis=1)
        cells = kept.ravel(), (np.repeat(block, n_kept), nearest.ravel())
        blocks.append(sparse.csr_array(cells, shape=cosine.shape))
    return sparse.vstack(blocks, format="csr")
