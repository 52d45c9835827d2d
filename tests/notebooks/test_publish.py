"""Executed notebooks of a real run are published without any model of its snapshot."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import publish
import pytest
from builders import EDGES, MODELS, tiny_tables
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lrmf.data.snapshot import save_snapshot

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = '# Parameters\nrun = "mine"\nsnapshot = "{}"'


@pytest.fixture
def snapshot(tmp_path):
    save_snapshot(tmp_path / "mine", **tiny_tables() | {"name": "mine", "source": "elsewhere"})
    return tmp_path / "mine"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a notebook whose second code cell shows single models."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    cells = [code("count()"), code("family()", tags=[publish.TAG])]
    nbformat.write(new_notebook(cells=cells), root / "notebooks" / "01_a.ipynb")
    monkeypatch.setattr(publish, "ROOT", root)
    return root


def code(source, *texts, tags=()):
    outputs = [new_output("stream", text=text) for text in texts]
    return new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


def execute(tmp_path, snapshot, *cells):
    """The folder of a run whose notebook has these cells, after its parameters."""
    folder = tmp_path / "build" / "mine" / "notebooks"
    folder.mkdir(parents=True)
    first = code(PARAMETERS.format(snapshot), tags=[publish.INJECTED])
    notebook = new_notebook(cells=[first, *cells], metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, folder / "01_a.ipynb")
    return folder


def run_publish(folder, snapshot, out):
    return CliRunner().invoke(publish.publish, [str(folder), str(snapshot), "--out", str(out)])


def test_single_models_are_left_out_and_the_rest_is_kept(tmp_path, checkout, snapshot):
    cells = [code("count()", "n = 12\n"), code("family()", f"{MODELS[0][0]} 0.5\n")]
    links = "[code](../lrmf/cli.py) [this](01_a.ipynb) [next](02_b.ipynb) [start](00.ipynb)"
    link = new_markdown_cell(links)
    folder = execute(tmp_path, snapshot, link, *cells)
    (folder / "00.ipynb").touch()  # is not published
    done = run_publish(folder, snapshot, tmp_path / "out")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "mine" / "01_a.ipynb").read_text()
    assert MODELS[0][0] not in text and str(tmp_path) not in text
    parameters, link, count, family = nbformat.reads(text, as_version=4).cells
    assert parameters.source == PARAMETERS.format("data/mine")
    assert link.source == (
        "[code](../../../lrmf/cli.py) [this](01_a.ipynb) [next](../../02_b.ipynb) "
        "[start](../../00.ipynb)"
    )
    assert [count.outputs[0].text, family.outputs[0].text] == ["n = 12\n", publish.LEFT_OUT]
    again = run_publish(folder, snapshot, tmp_path / "again")
    assert again.exit_code == 0
    assert (tmp_path / "again" / "mine" / "01_a.ipynb").read_text() == text


@pytest.mark.parametrize(
    "said",
    [
        f"best: {MODELS[3][0]}.",
        "<td>gpt2</td>",
        f"parent {EDGES[0][0]}",
        "alpha-chat-dpo2 0.3",
        "user/alpha-chat-d...  0.4",
    ],
)
def test_nothing_is_written_while_an_output_names_a_model(tmp_path, checkout, snapshot, said):
    cells = [code("count()", said), code("family()")]
    done = run_publish(execute(tmp_path, snapshot, *cells), snapshot, tmp_path / "out")
    is_model = "dpo2" not in said  # which no model is called
    assert (done.exit_code == 1) == is_model
    assert (tmp_path / "out").exists() != is_model
    assert ("count()" in done.output) == is_model


@pytest.mark.parametrize("source", ["family(2)", "count()"])
def test_notebooks_of_another_version_are_refused(tmp_path, checkout, snapshot, source):
    done = run_publish(execute(tmp_path, snapshot, code(source)), snapshot, tmp_path / "out")
    assert done.exit_code == 1 and "another version" in done.output


def test_figures_become_small_and_stand_alone(tmp_path, checkout, snapshot):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "<Figure>"}
    table = {"text/html": "<table></table>", "text/plain": "a"}
    outputs = [new_output("display_data", data=given) for given in (data, table)]
    cells = [new_code_cell("count()", outputs=outputs), code("family()")]
    run_publish(execute(tmp_path, snapshot, *cells), snapshot, tmp_path / "out")
    cells = nbformat.read(tmp_path / "out" / "mine" / "01_a.ipynb", as_version=4).cells
    figure, table = (output.data for output in cells[1].outputs)
    assert list(table) == ["text/html"] and list(figure) == ["image/png"]
    assert len(figure["image/png"]) < 0.6 * len(data["image/png"])
    shown = Image.open(io.BytesIO(base64.b64decode(figure["image/png"])))
    assert shown.size == (80, 80) and shown.mode == "P"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks" / "executed").glob("*/*.ipynb")), ids=lambda p: p.stem
)
def test_published_notebooks_show_what_the_notebooks_compute(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell for cell in cells if publish.INJECTED in cell.metadata.get("tags", [])][1:]
    left_out = [cell for cell in cells if publish.TAG in cell.metadata.get("tags", [])]
    shown = [output for cell in left_out for output in cell.outputs]
    assert all(output.get("text") == publish.LEFT_OUT for output in shown)
