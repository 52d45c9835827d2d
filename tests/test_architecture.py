"""The modules stand in floors: a file imports from floors below its own, and README lists them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    "kernels schema style paths outputs threads parallel",
    "snapshot prior",
    "lineage bernoulli gaussian metrics scores",
    "features checks new_model",
    "forecasts",
    "factorization",
    "averaging cards memory simulation_check",
    "irt tree_baselines tuned tuning",
    "baselines forecaster simulated_items simulated_hub description",
    "saved_fit",
    "simulate hub evaluation family_tree spectrum kinship",
    "sources comparison tables",
    "plotting",
    "figures lineage_figures",
    "cli",
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
FILES = {}  # by module, a package with all of its files
for path in sorted((ROOT / "lrmf").rglob("*.py")):
    name = path.relative_to(ROOT / "lrmf").parts[0].removesuffix(".py")
    if not name.startswith("__"):
        FILES.setdefault(name, []).append(path)
MODULES = sorted(FILES)


def imported_modules(name):
    for path in FILES[name]:
        depth = len(path.relative_to(ROOT / "lrmf").parts)  # dots that lead out to lrmf
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
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
