"""The committed notebooks and params/*.yaml fit together."""

from pathlib import Path

import pytest
from run import declared_parameters, resolve_parameters

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
RUNS = sorted((ROOT / "params").glob("*.yaml"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_run_knows_its_parameters(notebook):
    for params in RUNS:
        resolve_parameters(notebook, params)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_simulated_run_is_the_default(notebook):
    declared = declared_parameters(notebook)
    assert {"run", "snapshot", "seed"} <= set(declared)
    assert declared == declared | resolve_parameters(notebook, ROOT / "params" / "simulated.yaml")
