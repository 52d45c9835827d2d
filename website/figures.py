"""The page of a run: its figures and tables in the order and with the captions of the notebooks."""

import re
import shutil
import subprocess

from . import render

LARGEST = 300_000  # bytes of an SVG; a figure of thousands of dots stays a PNG
DOTS_PER_PIXEL = 2.31  # of the PNGs, at 300 dpi; text of 8 pt is then read at 10.8 pt


def is_run(folder) -> bool:
    """Whether notebook 06 wrote this folder."""
    return (folder / "tables").is_dir()


def drawings(folder) -> dict[str, bytes]:
    """Figures of a run as SVG by name, made of their PDFs; none without the program pdftocairo."""
    if not (program := shutil.which("pdftocairo")):
        return {}
    made = {
        path.stem: subprocess.run([program, "-svg", path, "-"], capture_output=True).stdout
        for path in sorted(folder.glob("*.pdf"))
    }
    return {name: drawing for name, drawing in made.items() if 0 < len(drawing) <= LARGEST}


def page(folder, notebooks, *, drawings=frozenset()) -> str:
    """HTML of `figures/<run>`: figures and tables under the notebook that makes them.

    Parameters
    ----------
    folder : path of the run's figures
    notebooks : dict, names of notebooks and their cells
    drawings : set of str, names of the figures that are shown as SVG
    """
    parts = [f"<h1>{folder.name}</h1>", render.markdown(_introduction(folder))]
    for name, cells in notebooks.items():
        if shown := list(_shown(folder, cells, drawings)):
            title = cells[0].source.partition("\n")[0].lstrip("# ")
            parts += [render.markdown(f"## [{title}](../../notebooks/{name})"), *shown]
    return "\n".join(parts)


def _introduction(folder) -> str:
    note = (folder / "tables" / "numbers.tex").read_text(encoding="utf-8").splitlines()[0]
    label = note.rpartition("ipynb. ")[2]
    return f"**{label}** [Where the data come from](../../data/README.md)."


def _shown(folder, cells, drawings):
    """Figures and tables of the cells that draw or write them, and what the text above says.

    A figure's caption is one paragraph: of a cell that draws several, the last paragraphs above.
    """
    text = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^#+ .*$", "", cell.source, flags=re.MULTILINE).strip()
            text = _relinked(text, folder.parents[1] / "notebooks")
        elif "draw(" in cell.source:
            names = re.findall(r'\bname="(\w+)"', cell.source)
            captions = re.split(r"\n\s*\n", text)[-len(names) :]
            for name, caption in zip(names, captions, strict=True):
                if (folder / f"{name}.png").exists():
                    yield _figure(folder, name, caption, "svg" if name in drawings else "png")
        elif "write(" in cell.source:
            names = dict.fromkeys(re.findall(r'"(\w+)"', cell.source))
            if names := [name for name in names if (folder / f"tables/{name}.csv").exists()]:
                yield render.markdown(text)
                yield from (_table(folder, name) for name in names)
                text = ""


def _relinked(text, notebooks) -> str:
    """A text on the page of a run: its links start elsewhere, and notebooks are linked."""
    for path in sorted(notebooks.glob("0*.ipynb")):
        mention = rf"(?<!\[)\b([Nn]otebook {path.name[:2]})\b"
        text = re.sub(mention, rf"[\1]({path.name})", text)
    return re.sub(r"\]\((?![a-z]+:)", "](../../notebooks/", text)


def _figure(folder, name, caption, kind) -> str:
    width, height = (round(n / DOTS_PER_PIXEL) for n in _size(folder / f"{name}.png"))
    alt = render.html.escape(render.alternative_text(caption))
    files = _links(folder, name, {"pdf": "PDF", "csv": "numbers (CSV)"})
    return (
        f'<figure id="{name}"><a href="{name}.{kind}"><img src="{name}.{kind}" width="{width}" '
        f'height="{height}" alt="{alt}"></a>'
        f"<figcaption>{render.markdown(caption)}<p>{files}</p></figcaption></figure>"
    )


def _table(folder, name) -> str:
    text = (folder / "tables" / f"{name}.csv").read_text(encoding="utf-8")
    title = name.replace("_", " ").capitalize()
    files = _links(folder, f"tables/{name}", {"csv": "CSV", "tex": "LaTeX"})
    return f'<h3 id="table-{name}">{title}</h3>{render.table(text)}<p>{files}</p>'


def _links(folder, name, kinds) -> str:
    there = {kind: title for kind, title in kinds.items() if (folder / f"{name}.{kind}").exists()}
    return " · ".join(f'<a href="{name}.{kind}">{title}</a>' for kind, title in there.items())


def _size(png) -> tuple[int, int]:
    header = png.read_bytes()[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])
