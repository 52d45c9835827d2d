"""The modules stand in floors: a file imports from floors below its own, and README lists them."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {  # as README has them; what stands before a comma is below what follows
    "foundations": "kernels schema style paths outputs threads parallel",
    "data": "snapshot names, lineage, features",
    "model": "prior item_graph averaging, bernoulli gaussian scores tree_baselines, "
    "checks new_model, forecasts, factorization, cards memory stacking, tuning, forecaster, "
    "saved_fit",
    "the Hub": "hub",
    "simulated Hub": "simulated_hub simulation_check, simulated_items, simulate",
    "comparison": "metrics irt tuned kinship spectrum family_tree, baselines evaluation, "
    "comparison",
    "presentation": "tables description sources, claims plotting, figures lineage_figures, cli",
}
HUB = "errors cards workers, limiter log leaderboard, client publish, choice ancestry details, "
HUB += "estimate study"


def heights(text):
    return {name: n for n, names in enumerate(text.split(",")) for name in names.split()}


FLOOR_OF = heights(",".join(FLOORS.values()))
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


def imported_from_package(path):
    """Modules of its own package that a file of a package imports."""
    for level, modules in imports(path):
        if level == 1:
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


def test_imports_run_downwards_within_the_crawl():
    floor_of = heights(HUB)
    files = {path.stem: path for path in FILES["hub"] if path.stem != "__init__"}
    assert sorted(floor_of) == sorted(files)
    for name, path in files.items():
        above = [o for o in imported_from_package(path) if floor_of[o] >= floor_of[name]]
        assert not above, f"hub.{name} imports {above} from its own floor or above"


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


def test_the_readme_lists_the_floors():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| (`.+) \|$", text.partition("| floor | modules |")[2], re.M)
    listed = {floor: re.findall(r"`(\w+)`", re.sub(r"\(.+?\)", "", cell)) for floor, cell in rows}
    assert list(listed) == list(FLOORS)
    for floor, names in FLOORS.items():
        assert sorted(listed[floor]) == sorted(heights(names)), floor
