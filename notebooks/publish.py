"""Write the executed notebooks of a real run to notebooks/executed: what `make publish` calls.

    python notebooks/publish.py build/openllm-v2/notebooks ../shared/data/openllm-v2

Only aggregates are published. A cell with the tag `single-models` shows single models of the
snapshot: its outputs are left out. An output that still names a model is an error, and nothing is
written. Figures are reduced to 256 colours; no warnings, no widgets, and no text beside what is
shown instead.
"""

import base64
import html
import io
import json
import re
import sys
from pathlib import Path

import click
import nbformat
from nbformat.v4 import new_output
from PIL import Image
from run import ROOT, without_volatile_metadata

from lrmf.data.snapshot import load_snapshot
from lrmf.files import output_folder

TAG = "single-models"
LEFT_OUT = "Left out here: it shows single models.\n"
INJECTED = "injected-parameters"
PUBLISHED = "0[1-9]*.ipynb"  # 00 makes data of its own
TELLING = 8  # characters of a model's name that no other text has by chance
SHOWN = ("image/png", "text/html", "text/markdown", "text/plain")  # the first that there is


class PublishError(ValueError):
    """Notebooks that cannot be published; the message names the culprit."""


@click.command()
@click.argument("executed", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("snapshot", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "notebooks" / "executed")
def publish(executed, snapshot, out):
    """Write the notebooks of build/RUN/notebooks, run on SNAPSHOT, to notebooks/executed/RUN."""
    run = executed.resolve().parent.name
    try:
        ids = model_ids(load_snapshot(snapshot))
        notebooks = {
            path.name: published(path, snapshot, ids)
            for path in sorted(executed.glob(PUBLISHED))
            if not path.name.endswith(".failed.ipynb")
        }
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not notebooks:
        raise click.ClickException(f"{executed} holds no executed notebooks")
    with output_folder(out / run) as folder:
        for name, text in notebooks.items():
            (folder / name).write_text(text, encoding="utf-8")
    size = sum(map(len, notebooks.values())) / 1e6
    print(f"{len(notebooks)} notebooks, {size:.1f} MB: {out / run}")


def model_ids(snapshot) -> set[str]:
    """Ids of all models, evaluated or not, and their names where these are telling."""
    lineage = snapshot.lineage
    ids = {*snapshot.models["model_id"], *lineage["parent"], *lineage["child"]}
    names = {model_id.rpartition("/")[2] for model_id in ids}
    return ids | {name for name in names if len(name) >= TELLING and re.search(r"\d", name)}


def published(path, snapshot, ids) -> str:
    """Text of an executed notebook as it may be published; raises PublishError."""
    notebook = nbformat.read(path, as_version=4)
    tagged = _tagged(ROOT / "notebooks" / path.name)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            cell.source = _moved(cell.source, path.parent)
            continue
        if INJECTED in cell.metadata.get("tags", []):
            cell.source = _without_place(cell.source)
        if cell.source in tagged:
            tagged.remove(cell.source)
            cell.outputs = [new_output("stream", text=LEFT_OUT)] if cell.outputs else []
        # Warnings tell of places on the machine that ran it.
        cell.outputs = [_plain(one) for one in cell.outputs if one.get("name") != "stderr"]
        if named := named_models(cell.outputs, ids):
            raise PublishError(
                f"{path}: the output of this cell names {', '.join(named[:3])}; tag the cell "
                f"{TAG!r} in notebooks/{path.name}:\n{cell.source}"
            )
        if places := [str(p) for p in (snapshot.resolve(), ROOT) if str(p) in json.dumps(cell)]:
            raise PublishError(f"{path}: this cell tells of {places[0]}:\n{cell.source}")
    if tagged:
        raise PublishError(
            f"{path} was executed from another version of notebooks/{path.name}: it lacks the cell"
            f" tagged {TAG!r}\n{min(tagged)}"
        )
    notebook.metadata.pop("widgets", None)
    return nbformat.writes(without_volatile_metadata(notebook)) + "\n"


def named_models(outputs, ids) -> list[str]:
    """The models that these outputs name, also where a table has cut an id short."""
    text = html.unescape(_text(outputs))
    found = [one for one in ids if one in text and re.search(_alone(one), text)]
    cut = {start for start in re.findall(r"([\w.-]+/[\w./-]+?)(?:\.\.\.|…)", text)}
    return sorted(found) + sorted(s for s in cut if any(one.startswith(s) for one in ids))


def _alone(name) -> str:
    """Pattern of a name that is not part of a longer word."""
    return rf"(?<![\w/-]){re.escape(name)}(?![\w/-])"


def _text(outputs) -> str:
    texts = []
    for output in outputs:
        texts.append(output.get("text", ""))
        texts += [value for kind, value in output.get("data", {}).items() if "image" not in kind]
    return "\n".join(texts)


def _tagged(path) -> set[str]:
    """Code of the cells that show single models, as the notebook in `notebooks/` marks them."""
    cells = nbformat.read(path, as_version=4).cells
    return {cell.source for cell in cells if TAG in cell.metadata.get("tags", [])}


def _moved(text, executed) -> str:
    """Markdown two folders further down: links lead up, but for those to notebooks of this run."""

    def lead(link):
        other = executed / link[1]
        return link[0] if other.match(PUBLISHED) and other.exists() else f"](../../{link[1]})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", lead, text)


def _without_place(source) -> str:
    """Injected parameters; of the snapshot's place only the name, as under `data/`."""
    return re.sub(r'^(snapshot = ").*?([^/"]+)/*"$', r'\1data/\2"', source, flags=re.MULTILINE)


def _plain(output):
    """An output with nothing but what is shown of it."""
    if "data" not in output:
        return output
    kind = next((kind for kind in SHOWN if kind in output.data), None)
    output.data = {kind: output.data[kind]} if kind else {}
    if kind == "image/png":
        output.data[kind] = _small(output.data[kind])
    output.metadata = {}
    return output


def _small(png) -> str:
    """A PNG with the 256 colours that fit it best."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    small = io.BytesIO()
    page.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode() + "\n"


if __name__ == "__main__":
    sys.exit(publish())
