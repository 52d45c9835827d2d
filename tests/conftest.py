"""Fixtures that more than one test file needs."""

import os
from dataclasses import dataclass
from pathlib import Path

# Test processes share the cores: threads that wait must not spin, and BLAS gets no extra threads.
# Set before NumPy and numba start their threads; test processes and subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest
from builders import missing, tiny_snapshot
from sklearn.base import BaseEstimator, clone

from lrmf import Forecaster, Lineage
from lrmf.data.responses import benchmark_scores, without
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


@pytest.fixture(scope="session")
def saved_fit(simulated_hub, tmp_path_factory) -> Path:
    """File of a forecaster fitted to the small simulated hub without its last twenty models."""
    snapshot, lineage = simulated_hub
    train = without(snapshot.responses, np.arange(130, 150))
    forecaster = Forecaster(rank=4, seed=0)
    forecaster.fit(train, lineage, items=snapshot.items, models=snapshot.models)
    path = tmp_path_factory.mktemp("saved_fit") / "fit.npz"
    forecaster.save(path)
    return path


@pytest.fixture(scope="session")
def saved_proportions(tmp_path_factory) -> Path:
    """File of a forecaster fitted to a small simulated hub of benchmark scores."""
    snapshot = simulate(n_models=150, n_items=200, seed=3)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    trials = snapshot.items.groupby("benchmark", sort=False)["n_trials"].sum()
    items = pd.DataFrame({"item_id": scores.columns, "benchmark": scores.columns})
    items["n_trials"] = trials[scores.columns].to_numpy()
    path = tmp_path_factory.mktemp("saved_proportions") / "fit.npz"
    forecaster = Forecaster(seed=0)
    values = scores.to_numpy(np.float32)
    forecaster.fit(values, lineage, items=items, models=snapshot.models).save(path)
    return path


@pytest.fixture
def command(capsys):
    """Run a command line in this process: exit code, standard output and error."""

    def run(*argv):
        from lrmf import cli

        code = cli.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def figure_style():
    """The style of the figures, for one test, whose figures are closed at its end."""
    import matplotlib.pyplot as plt

    from lrmf.report.style import use_style

    with plt.style.context("default"):
        use_style()
        yield
    plt.close("all")


@pytest.fixture
def anonymous(monkeypatch, tmp_path):
    """No token of whoever runs the tests is found."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
