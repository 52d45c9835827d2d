"""The documents quote the program as it is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lrmf import load_snapshot
from lrmf.simulation.simulate import write_simulated
from paper.readme import documents

ROOT = Path(__file__).resolve().parents[1]
CODE = [ROOT / "Makefile"]
CODE += [path for folder in ("lrmf", "paper", "website") for path in (ROOT / folder).rglob("*.py")]
FOREIGN = (
    "RuntimeError: cannot cache function",
    "Could not find a version",
    "lrmf: command",
)  # Numba's, pip's, a shell's


def quoted_messages():
    """What stands in backticks in a bold lead or at the head of a list item, if it is a message."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    leads = re.findall(r"\*\*(.+?)\*\*|^- (`.+?`)", text, flags=re.DOTALL | re.MULTILINE)
    quoted = [
        " ".join(span.split()) for lead in leads for span in re.findall("`(.+?)`", "".join(lead))
    ]
    return [span for span in quoted if span.count(" ") > 1]


@pytest.fixture(scope="module")
def code():
    """The sources with the pieces of each message put together."""
    text = " ".join(path.read_text(encoding="utf-8") for path in CODE)
    return " ".join(re.sub(r'"\s*\\?\s*f?"', "", text).split())


def test_troubleshooting_quotes_messages_as_they_are(code):
    messages = [text for text in quoted_messages() if not text.startswith(FOREIGN)]
    assert len(messages) >= 8
    for message in messages:
        for part in message.removeprefix("ConvergenceWarning: ").split("..."):
            assert part.strip() in code, message


def test_the_example_of_a_snapshot_of_ones_own_runs(tmp_path, monkeypatch):
    write_simulated(tmp_path / "data" / "simulated", n_models=60, n_items=90, seed=0)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.+?)```", text, flags=re.DOTALL)
    exec(compile(example, "data/README.md", "exec"), {})
    mine = load_snapshot(tmp_path / "data" / "mine")
    assert mine.n_models == 62 and mine.responses[61, :4].tolist() == [1, 0, 1, 255]


def test_the_changelog_leads_up_to_the_version_of_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    released = yaml.safe_load((ROOT / "CITATION.cff").read_text()).get("date-released")
    assert versions[0] == "Unreleased"
    assert len(versions) > 1 or not released
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= kinds


def test_the_documents_say_what_the_committed_results_say():
    for path, text in documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m paper.readme"


def test_claims_for_programs_hold_numbers_or_null():
    claims = json.loads((ROOT / "figures" / "claims.json").read_text(encoding="utf-8"))
    for claim in claims:
        for key in ("value", "lower", "upper"):
            assert claim[key] is None or isinstance(claim[key], float)
        if claim["lower"] is not None:
            assert claim["lower"] <= claim["value"] <= claim["upper"]


@pytest.mark.slow
def test_the_first_example_of_the_readme_prints_what_it_shows(tmp_path):
    """The commands of the first block, in order, and every line of the table below them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("    $ lrmf")
    block = re.match(r"(?:    .*\n|\n)+", text[start:])[0]
    commands = re.findall(r"^    \$ (.+?)(?:  +#.*)?$", block.replace("\\\n", " "), re.MULTILINE)
    table = [line.strip() for line in block.splitlines() if line.startswith("    ")][-8:]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300,
        )  # fmt: skip
        assert not done.returncode, done.stderr
    printed = [line.strip() for line in done.stdout.splitlines()]
    assert len(commands) == 3 and [line for line in table if line not in printed] == []


def test_the_documents_say_of_the_solver_what_the_bench_measured():
    summary = pd.read_csv(ROOT / "bench/results/summary.csv").query("problem == 'full'")
    summary = summary.set_index("solver")
    text = " ".join((ROOT / "docs" / "cost.md").read_text(encoding="utf-8").split())
    assert f"a fit at paper scale takes {summary.loc['LRMF', 'fit_cpu']:.1f} CPU seconds" in text
    ratios = summary["ratio_loss"].round().astype(int)
    own = summary.loc["LRMF", "cpu_to_loss"]
    assert f"held-out log-loss it ends with, it needs {own:.1f}, L-BFGS with the same" in text
    assert f"compiled gradient {ratios['L-BFGS']} times as long" in text
    assert f"Adam {ratios['Adam, full batch']} times" in text


def test_a_readme_without_the_marks_of_the_table_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("no table here")
    (tmp_path / "docs").mkdir()
    for name in ("figures", "bench"):
        (tmp_path / name).symlink_to(ROOT / name)
    with pytest.raises(ValueError, match="needs a line <!-- findings"):
        documents(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_code_cells_have_up_to_30_lines(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}
    assert {name: n for name, text in code.items() if (n := len(text.splitlines())) > 30} == {}


def test_each_figure_is_drawn_once_and_shown_where_it_is_saved():
    drawn = []
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            names = re.findall(r'\bname="(\w+)"', source) if "draw(" in source else []
            images = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
            assert len(images) == len(names), (path.name, cell["id"])
            drawn += names
    saved = sorted(path.stem for path in (ROOT / "figures" / "simulated").glob("*.png"))
    assert sorted(drawn) == saved


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda p: p.stem
)
def test_a_notebook_links_to_its_code_and_to_the_next(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        assert (path.parent / link).exists(), link
    modules = [name.replace(".", "/") for name in re.findall(r"`(lrmf\.[\w.]+)`", text)]
    assert modules
    assert all(f"../{name}.py" in links for name in modules)
    following = sorted(path.parent.glob("0*.ipynb"))
    following = following[following.index(path) + 1 :]
    assert not following or links[-1] == following[0].name
