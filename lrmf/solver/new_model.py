"""A model that is not part of the fit: what is said about it, and its forecast."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from ..data.snapshot import MISSING, RELATIONS
from .prior import Gaussians
from .scores import BenchmarkScores, interval


@dataclass(frozen=True, repr=False)
class NewModel:
    """The forecast of one model; `LRMF.fold_in` makes it.

    Attributes
    ----------
    likelihood : Bernoulli or Gaussian
    scores : BenchmarkScores
    states : Gaussians (1), posterior of the model's state
    revealed : (1, n_items), the answers it was given
    width : (n_benchmarks,), factor on the deviations of the scores
    """

    likelihood: object
    scores: BenchmarkScores
    states: Gaussians
    revealed: np.ndarray
    width: np.ndarray

    def __repr__(self):
        scores = self.predict_scores()
        forecasts = ", ".join(
            f"{row.benchmark}: {row.score:.3f} [{row.lower:.3f}, {row.upper:.3f}]"
            for row in scores.itertuples()
        )
        return f"NewModel({forecasts}; {scores['n_observed'].sum()} observed)"

    def predict_proba(self, items=None):
        """Expected responses, float32 (n_items,)."""
        items = slice(None) if items is None else np.asarray(items)
        forecast = self.likelihood.forecast(self.states.mean, self.states.covariance, items)
        return forecast[0][0].astype(np.float32)

    def predict_scores(self, *, level=0.9):
        """DataFrame: benchmark, score, lower, upper, n_observed."""
        forecast = self.likelihood.forecast(self.states.mean, self.states.covariance)
        score = self.scores.expected(forecast[0], self.revealed, None)
        deviation = self.scores.deviation(
            self.likelihood, self.states, self.revealed, None, forecast=forecast
        )
        lower, upper = interval(score, deviation * self.width, level)
        columns = {"score": score, "lower": lower, "upper": upper}
        columns["n_observed"] = self.scores.n_observed(self.revealed)
        frame = {name: values[0] for name, values in columns.items()}
        return pd.DataFrame({"benchmark": self.scores.names} | frame)


def leaf_weights(lineage, relations):
    """Edge weights of a new model with parents by these relations (None counts as a finetune)."""
    relations = ["finetune" if relation is None else relation for relation in relations]
    unknown = sorted(set(relations) - set(RELATIONS))
    if unknown:
        raise ValueError(f"unknown relation {unknown[0]!r}; use {', '.join(RELATIONS)}")
    weights = np.array([lineage.relation_weights[relation] for relation in relations])
    if lineage.split_merges:
        is_merge = np.array(relations) == "merge"
        weights[is_merge] /= is_merge.sum()
    return weights


def revealed_row(answers, columns, dtype):
    """Answers by item id as a row (1, n_items) of responses.

    Parameters
    ----------
    answers : mapping of item id to response
    columns : mapping of item id to column
    dtype : of the responses
    """
    if not isinstance(answers, Mapping):
        raise ValueError(f"answers must map item ids to responses, got {answers!r}")
    is_binary = np.dtype(dtype) == np.uint8
    row = np.full((1, len(columns)), MISSING if is_binary else np.nan, dtype)
    for item, answer in answers.items():
        if item not in columns:
            raise ValueError(f"answer to {item!r}: not an item of the snapshot")
        is_number = isinstance(answer, Real | np.bool)
        if not is_number or not (answer in (0, 1) if is_binary else 0 <= answer <= 1):
            wanted = "0 or 1" if is_binary else "in [0, 1]"
            raise ValueError(f"answer to {item!r} must be {wanted}, got {answer!r}")
        row[0, columns[item]] = answer
    return row
