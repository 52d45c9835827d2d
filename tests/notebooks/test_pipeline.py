"""The notebooks, one after another, on a tiny simulated Hub in a checkout of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

pytestmark = pytest.mark.slow  # kernels run whole notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("0*.ipynb"))
TINY = {"01_crawl": ["-p", "n_models", "80", "-p", "n_items", "150"]}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the notebooks need, after all of them ran."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("lrmf", "notebooks", "params"):
        shutil.copytree(ROOT / part, folder / part)  # with compiled kernels, if there are any
    environment = os.environ | {"PYTHONPATH": str(folder)}
    for name in NOTEBOOKS:
        command = [sys.executable, "notebooks/run.py", f"notebooks/{name}.ipynb"]
        command += [f"executed/{name}.ipynb", "--params", "params/smoke.yaml", *TINY.get(name, [])]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return folder


def outputs_of(checkout):
    for name in NOTEBOOKS:
        notebook = nbformat.read(checkout / "executed" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                yield name, output


def test_there_are_eight_notebooks():
    assert [name[:2] for name in NOTEBOOKS] == [f"{number:02d}" for number in range(8)]


def test_nothing_is_printed_to_stderr_and_no_path_is_shown(checkout):
    for name, output in outputs_of(checkout):
        assert output.get("name") != "stderr", (name, output["text"])
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        assert str(checkout) not in text and str(ROOT) not in text, name
        assert " object at 0x" not in text, name


def test_each_figure_comes_as_pdf_png_and_csv(checkout):
    folder = checkout / "figures" / "smoke"
    names, vector, numbers = (
        {path.stem for path in folder.glob(f"*{suffix}")} for suffix in (".png", ".pdf", ".csv")
    )
    assert names == vector
    assert numbers - names == {"extrapolation"}  # of claims, which no figure shows
    assert names <= numbers
    assert {"zero_shot", "zero_shot_forecasts", "few_shot", "random_holdout"} <= names
    assert {"ablation", "calibration", "relatives", "scores", "lineage_structure"} <= names


def test_tables_and_numbers_are_those_of_the_results(checkout):
    tables = checkout / "figures" / "smoke" / "tables"
    zero_shot = pd.read_csv(checkout / "build" / "smoke" / "zero_shot.csv")
    r = zero_shot.query("predictor == 'LRMF' and metric == 'pearson'")["value"].item()
    accuracy = pd.read_csv(tables / "accuracy.csv", index_col="predictor")
    assert accuracy.loc["LRMF", "r [95% interval]"].split()[0] == f"{r:.2f}"
    numbers = (tables / "numbers.tex").read_text()
    assert rf"\newcommand{{\SmokeZeroShotLRMFPearson}}{{{f'{r:.2f}'}}}" in numbers
    assert {path.suffix for path in tables.iterdir()} == {".csv", ".tex"}


def test_notebook_05_goes_on_from_the_forecasts_of_04(checkout):
    build = checkout / "build" / "smoke"
    zero_shot = pd.read_csv(build / "zero_shot.csv").set_index(["predictor", "metric"])["value"]
    few_shot = pd.read_csv(build / "few_shot.csv")
    start = few_shot[few_shot["k"] == 0].set_index(["predictor", "metric"])["value"]
    assert (start - zero_shot[start.index]).abs().max() < 1e-5
    assert few_shot["k"].nunique() > 1
