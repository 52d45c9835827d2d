"""What mutants of core formulas survived before: each test here names the term that it guards."""

import numpy as np
from builders import tiny_tables
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score

from lrmf import Lineage
from lrmf.evaluation import evaluate, zero_shot
from lrmf.gaussian import Gaussian


class Coarse(BaseEstimator):
    """Forecasts of three values only, so that most pairs of cells are tied."""

    def fit(self, responses, lineage, *, items, models=None):
        self.n_items_ = responses.shape[1]
        return self

    def predict_proba(self, rows, *, revealed=None):
        return np.add.outer(rows, np.arange(self.n_items_)) % 3 / 4 + 0.25


def test_auc_counts_tied_cells_half():
    tables = tiny_tables()
    lineage = Lineage.from_edges(tables["lineage"], tables["models"]["model_id"])
    splits = list(zero_shot(tables["responses"], lineage, n_folds=2))
    results, _ = evaluate(
        {"coarse": Coarse()}, splits, lineage, items=tables["items"], truth=tables["responses"]
    )
    auc = results[results["metric"] == "auc"].set_index("benchmark")["value"]
    forecast = Coarse().fit(tables["responses"], lineage, items=None).predict_proba
    for benchmark, columns in tables["items"].groupby("benchmark").indices.items():
        cells = [
            (
                tables["responses"][np.ix_(split.rows, columns)][split.target[:, columns]],
                forecast(split.rows)[:, columns][split.target[:, columns]],
            )
            for split in splits
        ]
        expected = roc_auc_score(*map(np.concatenate, zip(*cells, strict=True)))
        np.testing.assert_allclose(auc[benchmark], expected, rtol=1e-12)


def test_components_of_proportions_have_signs_that_do_not_depend_on_lapack():
    proportions = np.random.default_rng(0).uniform(0.1, 0.9, size=(30, 5))
    fitted = Gaussian.fit(proportions, n_trials=None, rank=3, jump=0.1)
    assert (fitted.design.sum(axis=0) >= 0).all()
