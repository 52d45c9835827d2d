"""Hyperparameters by inner splits of the training models: the same care for every baseline."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid
from sklearn.utils.metaestimators import available_if

from ..data.lineage import without_edges
from ..data.response_kinds import kind_of
from ..data.responses import observed, observed_counts, random_places, reveal, without
from ..data.statistics import benchmark_codes, pearson

HIDDEN_SHARE = 0.2  # of the related models, in each inner split
MAX_HIDDEN = 200
MAX_ITEMS = 1024
SMALLEST_LOSS = 1e-9


@dataclass(frozen=True, eq=False)
class InnerSplit:
    """Training responses with some models hidden, and the truth about these.

    Attributes
    ----------
    train : (n_models, n_columns), the training responses of `columns` without those of `rows`
    rows, columns : integer arrays
    truth : (n_rows, n_columns), the hidden responses
    order : (n_rows, n_columns), in which order they would be revealed; first the observed ones
    """

    train: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    truth: np.ndarray
    order: np.ndarray

    def revealed(self, k: int) -> np.ndarray | None:
        """The first k responses of each hidden model; None for k = 0."""
        return reveal(self.truth, self.order < k) if k else None

    def target(self, k: int) -> np.ndarray:
        """The observed cells left to forecast once k are revealed."""
        return observed(self.truth) & (self.order >= k)


def inner_splits(responses, lineage=None, *, n_splits=2, seed=0) -> Iterator[InnerSplit]:
    """Hide disjoint fifths of the training models that have relatives; for a sample of items.

    Relatives: other models with responses in the family. With fewer than ten such models all
    models with responses take part. At most `MAX_HIDDEN` models and `MAX_ITEMS` items a split.
    """
    rng = np.random.default_rng(seed)
    lineage = without_edges(lineage, responses) if lineage is None else lineage
    counts = observed_counts(responses)
    scored, families = np.flatnonzero(counts), lineage.families[: len(responses)]
    sizes = np.bincount(families[scored], minlength=families.max() + 1)
    related = scored[sizes[families[scored]] > 1]
    chosen = rng.permutation(related if len(related) >= 10 else scored)
    n_hidden = min(MAX_HIDDEN, int(np.ceil(HIDDEN_SHARE * len(chosen))))
    if len(scored) <= n_hidden:
        return  # nothing would be left to learn from
    n_items = responses.shape[1]
    for start in range(0, min(n_splits * n_hidden, len(chosen)), n_hidden):
        rows = np.sort(chosen[start : start + n_hidden])
        columns = np.sort(rng.permutation(n_items)[:MAX_ITEMS])
        train = responses[:, columns] if len(columns) < n_items else responses
        truth = train[rows]
        places = random_places(observed(truth), rng)
        yield InnerSplit(without(train, rows), rows, columns, truth, places)


class Tuned(BaseEstimator):
    r"""An estimator whose hyperparameters are those that forecast hidden training models best.

    For each candidate of the grid and each inner split, the estimator is fitted without the hidden
    models and forecasts them zero-shot and from k revealed responses. The loss of a candidate is

        sum_k log(loss of cells) + log(squared error of means) + log(1 - r^2),

    with the log-loss of answers or the squared error of proportions, the models' means of their
    hidden cells by benchmark, and the correlation r of these over models; averaged over splits
    inside the logarithms. These are what evaluations report. The first alone would shrink scores
    too much, the second cells too little, and neither minds ranks. The best candidate is refitted
    on everything.

    Parameters
    ----------
    estimator : with the interface of `lrmf.baselines.registry`
    grid : dict of parameter name to values, or a list of such dicts
    ks : tuple of int, optional
        (0, 5, 50) for answers, (0, 1, 2) for proportions by default.
    n_splits : int
    seed : int

    Attributes
    ----------
    estimator_ : the fitted estimator
    chosen_ : dict
    curve_ : DataFrame, one row a candidate: its parameters and its loss
    """

    def __init__(self, estimator, grid, *, ks=None, n_splits=3, seed=0):
        self.estimator = estimator
        self.grid = grid
        self.ks = ks
        self.n_splits = n_splits
        self.seed = seed

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Choose by inner splits, then fit on all of `responses` (n_models, n_items)."""
        ks = self.ks or kind_of(responses).n_revealed_tuning
        candidates = list(ParameterGrid(self.grid))
        errors = np.zeros((len(candidates), len(ks), 3))
        if len(candidates) > 1:
            for split in inner_splits(responses, lineage, n_splits=self.n_splits, seed=self.seed):
                some = None if items is None else items.iloc[split.columns].reset_index(drop=True)
                for candidate, own in zip(candidates, errors, strict=True):
                    fitted = self._with(candidate)
                    fitted.fit(split.train, lineage, items=some, models=models)
                    own += [_losses(fitted, split, some, k) for k in ks]
        losses = np.log(np.maximum(errors / self.n_splits, SMALLEST_LOSS)).sum(axis=(1, 2))
        self.curve_ = pd.DataFrame(candidates).assign(loss=losses)
        # A candidate without a loss, such as one that diverged, is not chosen.
        self.chosen_ = candidates[int(np.nan_to_num(losses, nan=np.inf).argmin())]
        self.estimator_ = self._with(self.chosen_)
        self.estimator_.fit(responses, lineage, items=items, models=models)
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of the best candidate: float32, in [0, 1]."""
        return self.estimator_.predict_proba(rows, items, revealed=revealed)

    @available_if(lambda self: hasattr(self.estimator, "predict"))
    def predict(self, rows=None, **options):
        """Benchmark scores with intervals, of estimators that have them."""
        return self.estimator_.predict(rows, **options)

    def _with(self, parameters):
        estimator = clone(self.estimator).set_params(**parameters)
        if "seed" in estimator.get_params(deep=False):
            estimator.set_params(seed=self.seed)
        return estimator


def _losses(fitted, split, items, k) -> tuple[float, float, float]:
    """Mean loss of the target cells; squared error and 1 - r^2 of the models' means of them."""
    forecast = fitted.predict_proba(split.rows, revealed=split.revealed(k))
    target = split.target(k)
    truth = np.where(target, split.truth, 0).astype(np.float32)
    error = np.where(target, forecast - truth, 0)
    cells = kind_of(split.truth).losses(error)
    codes = benchmark_codes(items, len(split.columns))
    member = (codes[:, None] == np.unique(codes)).astype(np.float32)
    counts = target.astype(np.float32) @ member
    actual, missed = (part @ member / np.maximum(counts, 1) for part in (truth, error))
    squared = (missed[counts > 0] ** 2).mean() if counts.any() else 0.0
    columns = zip(actual.T, (actual + missed).T, counts.T > 0, strict=True)
    r = np.nan_to_num([pearson(other[valid], one[valid]) for one, other, valid in columns])
    unexplained = 1 - np.maximum(r, 0) ** 2  # nothing is explained by forecasts that are constant
    return cells.sum() / max(1, target.sum()), squared, np.mean(unexplained)
