from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from predictor_contract import PredictorContract
from sklearn.base import BaseEstimator, clone

from lrmf.baselines.averages import LineageMean
from lrmf.baselines.knn import KNN
from lrmf.baselines.tuned import Tuned, inner_splits
from lrmf.data.lineage import Lineage
from lrmf.data.responses import MISSING, observed
from lrmf.data.statistics import item_means
from lrmf.solver.factorization import LRMF

both_kinds = pytest.mark.parametrize("binary", [True, False], ids=["answers", "proportions"])


def tiny(binary=True):
    snapshot = tiny_snapshot(binary=binary)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


class TestTuned(PredictorContract):
    estimator = Tuned(LineageMean(), {"shrinkage": (0.1, 1.0)})


@dataclass
class Biased(BaseEstimator):
    """Item means plus a constant: the best constant is known."""

    bias: float = 0.0
    seed: int = 0

    def fit(self, responses, lineage=None, *, items=None, models=None):
        self.means_ = item_means(responses, items)
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        return np.tile(self.means_ + np.float32(self.bias), (len(rows), 1))


@both_kinds
def test_an_inner_split_hides_whole_models_and_keeps_the_truth(binary):
    snapshot, lineage = tiny(binary)
    before = snapshot.responses.copy()
    splits = list(inner_splits(snapshot.responses, lineage, n_splits=2, seed=1))
    np.testing.assert_array_equal(snapshot.responses, before)
    assert len(splits) == 2
    assert not set(splits[0].rows) & set(splits[1].rows)
    for split in splits:
        assert not observed(split.train[split.rows]).any()
        kept = np.setdiff1d(np.arange(12), split.rows)
        truth = snapshot.responses[:, split.columns]
        np.testing.assert_array_equal(split.train[kept], truth[kept])
        np.testing.assert_array_equal(split.truth, truth[split.rows])
        assert set(lineage.families[split.rows]) <= {0, 1}  # the loners say nothing of lineage


@both_kinds
def test_revealed_and_target_cells_share_out_what_is_observed(binary):
    snapshot, lineage = tiny(binary)
    split = next(inner_splits(snapshot.responses, lineage))
    assert split.revealed(0) is None
    before = np.zeros(split.truth.shape, bool)
    for k in (1, 3):
        shown = observed(split.revealed(k))
        assert (shown.sum(axis=1) == k).all()
        assert (shown | before == shown).all()
        np.testing.assert_array_equal(shown ^ split.target(k), observed(split.truth))
        np.testing.assert_array_equal(split.revealed(k)[shown], split.truth[shown])
        before = shown


def test_the_best_candidate_is_chosen_and_fitted_on_everything():
    snapshot, lineage = tiny()
    model = Tuned(Biased(), {"bias": [-0.3, 0.0, 0.4]}, seed=3)
    model.fit(snapshot.responses, lineage, items=snapshot.items)
    assert model.chosen_ == {"bias": 0.0}
    assert model.estimator_.seed == 3
    assert list(model.curve_["bias"]) == [-0.3, 0.0, 0.4]
    assert model.curve_["loss"].idxmin() == 1
    np.testing.assert_array_equal(
        model.predict_proba([0])[0], item_means(snapshot.responses, snapshot.items)
    )


def test_shrinkage_is_high_where_lineage_says_nothing_and_low_where_it_tells_all(simulated_hub):
    snapshot, lineage = simulated_hub
    grid = {"shrinkage": (0.1, 1.0, 10.0)}
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, snapshot.responses.shape).astype(np.uint8)
    family = rng.integers(0, 2, (lineage.families.max() + 1, snapshot.responses.shape[1])).astype(
        np.uint8
    )
    copies = family[lineage.families[:150]]
    chosen = [
        Tuned(LineageMean(), grid).fit(responses, lineage).chosen_["shrinkage"]
        for responses in (noise, copies)
    ]
    assert chosen == [10.0, 0.1]


def test_responses_hidden_from_the_fit_do_not_move_the_choice(simulated_hub):
    snapshot, lineage = simulated_hub
    train = snapshot.responses.copy()
    train[::5] = MISSING
    model = Tuned(LineageMean(), {"shrinkage": (0.1, 1.0)}).fit(train, lineage)
    assert not set(np.arange(0, 150, 5)) & {
        row for split in inner_splits(train, lineage) for row in split.rows
    }
    again = Tuned(LineageMean(), {"shrinkage": (0.1, 1.0)}).fit(train, lineage)
    pd.testing.assert_frame_equal(model.curve_, again.curve_)


@pytest.mark.parametrize("n_models", [1, 2, 3])
def test_a_handful_of_models_is_enough(n_models):
    responses = np.ones((n_models, 4), np.uint8)
    model = clone(Tuned(Biased(), {"bias": [0.0, 0.1]})).fit(responses)
    assert model.chosen_["bias"] in (0.0, 0.1)
    assert model.predict_proba([0]).shape == (1, 4)


def test_intervals_are_those_of_the_best_candidate_if_it_has_any():
    snapshot, lineage = tiny()
    assert not hasattr(Tuned(KNN(), {}), "predict")
    model = Tuned(LRMF(rank=2), {"item_ridge": (5.0, 10.0)}, n_splits=1)
    model.fit(snapshot.responses, lineage, items=snapshot.items)
    scores = model.predict([0, 3]).scores
    pd.testing.assert_frame_equal(scores, model.estimator_.predict([0, 3]).scores)


def test_of_two_with_equally_wrong_means_the_one_that_ranks_models_is_chosen():
    rng = np.random.default_rng(0)
    skill = rng.choice([0.3, 0.7], 60)
    responses = (rng.random((60, 400)) < skill[:, None]).astype(np.uint8)

    class Ranking(Biased):
        """0.2 off for every model: 0.5 for all, or too high by `bias`."""

        def predict_proba(self, rows=None, items=None, *, revealed=None):
            forecast = np.where(self.bias, skill[rows] + self.bias, 0.5)
            return np.tile(forecast[:, None], (1, len(self.means_))).astype(np.float32)

    model = Tuned(Ranking(), {"bias": [0.0, 0.2]}, ks=(0,)).fit(responses)
    assert model.chosen_ == {"bias": 0.2}
