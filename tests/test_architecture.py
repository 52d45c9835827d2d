"""The modules stand in floors: a file imports from floors below its own, and README lists them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    "kernels schema style paths outputs",
    "snapshot prior",
    "lineage bernoulli gaussian metrics",
    "features",
    "factorization",
    "averaging simulation_check",
    "baselines simulated_items simulated_hub saved_fit description",
    "simulate evaluation family_tree kinship",
    "sources comparison tables",
    "plotting",
    "figures lineage_figures",
    "cli",
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
MODULES = sorted(
    path.stem for path in (ROOT / "lrmf").glob("*.py") if not path.stem.startswith("__")
)


def imported_modules(name):
    tree = ast.parse((ROOT / "lrmf" / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def test_every_module_has_a_floor():
    assert sorted(FLOOR_OF) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name):
    above = [other for other in imported_modules(name) if FLOOR_OF[other] >= FLOOR_OF[name]]
    assert not above, f"{name} imports {above} from its own floor or above"


@pytest.mark.parametrize("name", MODULES)
def test_the_readme_says_what_a_module_is_for(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
