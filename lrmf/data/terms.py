"""TF-IDF of models' names by n-grams and words, in a form that a saved fit can keep."""

import re
from collections import Counter
from functools import cached_property

import numpy as np
from scipy import sparse

_WORDS = re.compile(r"[a-z]+|\d+\.?\d*")
_LENGTHS = (2, 3, 4)  # of n-grams


def words(name: str) -> list[str]:
    """Runs of letters, and numbers."""
    return _WORDS.findall(name)


def grams(name: str) -> list[str]:
    """Character n-grams of every word with a space on either side; a shorter word is one gram."""
    found = []
    for word in name.split():
        word = f" {word} "
        for length in _LENGTHS:
            found += [word[at : at + length] for at in range(max(1, len(word) - length + 1))]
            if len(word) <= length:
                break
    return found


class Terms:
    """Sublinear TF-IDF, rows of length 1: (1 + log tf) (1 + log((1 + n) / (1 + df))).

    Terms of a single name are left out: a new name has none of its own either, so on average it is
    about as close to the n names as these are to each other. What it shares with only one of them
    is lost.

    Parameters
    ----------
    split : function of a name, a list of terms
    vocabulary : (n_terms,) of str
    weights : float32 (n_terms,), 1 + log((1 + n) / (1 + df))
    rows : csr float32 (n_names, n_terms), optional
    names : list of str, optional
        Names whose rows are at hand.
    """

    def __init__(self, split, vocabulary, weights, rows=None, names=()):
        self.split, self.vocabulary, self.weights = split, vocabulary, weights
        self.rows, self.names = rows, names

    @classmethod
    def fit(cls, split, names):
        """Terms and weights of these names."""
        counts = Counter(term for name in names for term in set(split(name)))
        vocabulary = np.array(sorted(term for term, df in counts.items() if df > 1), str)
        number = np.array([counts[term] for term in vocabulary.tolist()])
        weights = np.log((1 + len(names)) / (1 + number)) + 1
        return cls(split, vocabulary, weights.astype(np.float32))

    @cached_property
    def _column(self):
        return {term: column for column, term in enumerate(self.vocabulary.tolist())}

    def __call__(self, names):
        """TF-IDF, csr float32 (n, n_terms); a name without a known term is a row of zeros."""
        if names == self.names:
            return self.rows
        parts, columns, values = [], [], []
        for name in names:
            found = Counter(self.split(name))
            known = sorted(
                (self._column[t], count) for t, count in found.items() if t in self._column
            )
            places, counts = np.array(known, np.int32).reshape(-1, 2).T
            value = (1 + np.log(counts, dtype=np.float32)) * self.weights[places]
            parts.append(len(known))
            columns.append(places)
            values.append(value / max(np.sqrt(value @ value), 1e-30))
        pointers = np.concatenate([[0], np.cumsum(parts)])
        shape = len(names), max(1, len(self.vocabulary))
        empty = np.zeros(0, np.float32)
        cells = np.concatenate([empty, *values]), np.concatenate([empty.astype(int), *columns])
        return sparse.csr_array((*cells, pointers), shape)
