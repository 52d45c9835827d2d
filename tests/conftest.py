"""Fixtures that more than one test file needs."""

import os
from dataclasses import dataclass
from pathlib import Path

# Test processes share the cores: threads that wait must not spin, and BLAS gets no extra threads.
# Set before NumPy and numba start their threads; test processes and subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from builders import missing, tiny_snapshot
from sklearn.base import BaseEstimator, clone

from lrmf import Lineage
from lrmf.data.responses import without
from lrmf.data.snapshot import Snapshot
from lrmf.simulation.simulate import simulate


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the snapshots `openllm-v2` and `openllm-v1-items`."""
    if not (folder := os.environ.get("LRMF_REAL_DATA")):
        pytest.skip("LRMF_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def simulated_hub() -> tuple[Snapshot, Lineage]:
    """A small simulated hub: 150 models, 200 items."""
    snapshot = simulate(n_models=150, n_items=200, seed=3)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


@dataclass(frozen=True, eq=False)
class Fit:
    """A predictor fitted to the tiny snapshot without two models and without one item."""

    estimator: BaseEstimator  # as the subclass of `PredictorContract` names it, never fitted
    model: BaseEstimator
    returned: object  # by `fit`
    snapshot: Snapshot
    lineage: Lineage
    train: np.ndarray
    before: np.ndarray  # a copy of `train` from before the fit
    hidden: np.ndarray  # rows of the models without responses

    def revealed(self, n_rows: int) -> np.ndarray:
        """Revealed responses that reveal nothing yet."""
        return np.full((n_rows, self.train.shape[1]), missing(self.train), self.train.dtype)


@pytest.fixture(scope="class", params=["answers", "proportions"])
def contract(request) -> Fit:
    """The fit that all tests of a `PredictorContract` share."""
    snapshot = tiny_snapshot(binary=request.param == "answers")
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    hidden = np.array([3, 10])
    train = without(snapshot.responses, hidden)
    train[:, 2] = missing(train)
    before, model = train.copy(), clone(request.cls.estimator)
    returned = model.fit(train, lineage, items=snapshot.items, models=snapshot.models)
    return Fit(request.cls.estimator, model, returned, snapshot, lineage, train, before, hidden)
