"""What import-linter cannot check: docstrings of modules, a solver without files and prints."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "lrmf").rglob("*.py"))
SOLVER = sorted((ROOT / "lrmf" / "solver").glob("*.py"))


def name_of(path):
    return path.relative_to(ROOT / "lrmf").as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_within_the_package_are_relative(path):
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    assert not [node.module for node in nodes if (node.module or "").startswith("lrmf")]


@pytest.mark.parametrize("path", SOLVER, ids=name_of)
def test_the_solver_opens_no_file_and_prints_nothing(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {"open", "print"} & {getattr(call.func, "id", None) for call in calls}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_first_line_of_a_module_says_what_it_is_for(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line, _, rest = text.partition("\n")
    assert len(line) > 20 and not rest.partition("\n")[0], line
