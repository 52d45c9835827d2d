"""The modules stand in floors: a file imports from floors below its own, and README lists them."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    "kernels schema style paths outputs threads parallel item_graph names",
    "snapshot prior",
    "lineage bernoulli gaussian metrics scores",
    "features checks new_model",
    "forecasts",
    "factorization",
    "averaging cards memory simulation_check",
    "irt tree_baselines tuned tuning",
    "baselines stacking simulated_items simulated_hub description",
    "forecaster",
    "saved_fit",
    "simulate hub evaluation family_tree spectrum kinship",
    "sources comparison tables",
    "plotting claims",
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


SOLVER = "kernels prior bernoulli gaussian factorization"
KNOWN_TO_SOLVER = {"numba", "numpy", "pandas", "scipy", "sklearn", "threadpoolctl"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, [node.module] if node.module else [n.name for n in node.names]
        elif isinstance(node, ast.Import):
            yield 0, [alias.name for alias in node.names]


def imported_modules(name):
    for path in FILES[name]:
        depth = len(path.relative_to(ROOT / "lrmf").parts)  # dots that lead out to lrmf
        for level, modules in imports(path):
            assert level <= depth, f"{path} imports from outside of lrmf"
            if level == depth:
                yield from (module.partition(".")[0] for module in modules)


def outside_packages(path):
    return {module.partition(".")[0] for level, modules in imports(path) if not level
            for module in modules}  # fmt: skip


def test_every_module_has_a_floor():
    assert sorted(FLOOR_OF) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name):
    above = [other for other in imported_modules(name) if FLOOR_OF[other] >= FLOOR_OF[name]]
    assert not above, f"{name} imports {above} from its own floor or above"


@pytest.mark.parametrize("name", MODULES)
def test_imports_within_the_package_are_relative(name):
    assert not any("lrmf" in outside_packages(path) for path in FILES[name])


@pytest.mark.parametrize("name", SOLVER.split())
def test_the_solver_knows_no_files_plots_or_printing(name):
    [path] = FILES[name]
    third_party = outside_packages(path) - sys.stdlib_module_names
    assert third_party <= KNOWN_TO_SOLVER
    assert not outside_packages(path) & {"io", "logging", "os", "pathlib", "shutil", "sys"}
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {"open", "print"} & {getattr(call.func, "id", None) for call in calls}


@pytest.mark.parametrize("name", MODULES)
def test_the_first_line_of_a_module_says_what_it_is_for(name):
    for path in FILES[name]:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        line, _, rest = text.partition("\n")
        assert len(line) > 20 and not rest.partition("\n")[0], f"{path}: {line}"


@pytest.mark.parametrize("name", MODULES)
def test_the_readme_says_what_a_module_is_for(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
