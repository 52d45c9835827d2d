"""The committed notebooks and params/*.yaml fit together."""

from pathlib import Path

import pytest
from run import ParameterError, declared_parameters, resolve_parameters

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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("shots", "5 20", "must be list"),
        ("shots", "[5, many]", "must hold numbers, got 'many'"),
        ("baselines", "[MF, 2]", "must hold texts, got 2"),
    ],
)
def test_lists_hold_what_their_defaults_hold(name, text, message):
    with pytest.raises(ParameterError, match=message):
        resolve_parameters(ROOT / "notebooks" / "05_cold_start.ipynb", None, [(name, text)])
