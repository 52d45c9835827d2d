"""The page of a run: figures and tables in the order and with the captions of notebooks 06, 07."""

import re
import shutil
import subprocess

from . import render

_FILES = {"figures": "{}.png", "tables": "tables/{}.csv"}
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


def page(folder, cells, *, drawings=frozenset()) -> str:
    """HTML of `figures/<run>`, with the captions that stand above the figures in these cells.

    Parameters
    ----------
    folder : path of the run's figures
    cells : list of notebook cells
    drawings : set of str, names of the figures that are shown as SVG
    """
    parts = [f"<h1>{folder.name}</h1>", render.markdown(_introduction(folder))]
    for kind, text, names in _sections(folder, cells):
        if kind == "heading":
            parts.append(render.markdown(text))
        elif kind == "figures":
            kinds = [(name, "svg" if name in drawings else "png") for name in names]
            parts += [_figure(folder, name, text, kind) for name, kind in kinds]
        else:
            parts += [render.markdown(text), *(_table(folder, name) for name in names)]
    return "\n".join(parts)


def _introduction(folder) -> str:
    note = (folder / "tables" / "numbers.tex").read_text(encoding="utf-8").splitlines()[0]
    label = note.rpartition("ipynb. ")[2]
    return (
        f"**{label}** All figures and tables were written by "
        "notebooks [06](../../notebooks/06_figures.ipynb) and "
        "[07](../../notebooks/07_decisions.ipynb); "
        "[where the data come from](../../data/README.md)."
    )


def _sections(folder, cells):
    """Yield (kind, Markdown, names of files): headings, captioned figures and tables."""
    headings, text = [], ""
    for cell in cells:
        if cell.cell_type == "markdown":
            headings += re.findall(r"^##+ .*$", cell.source, flags=re.MULTILINE)
            text = re.sub(r"^#+ .*$", "", cell.source, flags=re.MULTILINE).strip()
            continue
        kind, names = _files(cell.source)
        captions = re.split(r"\n\s*\n(?=\*\*)", text)
        if kind == "tables" or len(captions) != len(names):  # one text for all of them
            captions, names = [text], [names]
        else:
            names = [[name] for name in names]
        for caption, group in zip(captions, names, strict=True):
            if group := [name for name in group if (folder / _FILES[kind].format(name)).exists()]:
                yield from (("heading", heading, []) for heading in headings)
                yield kind, _relinked(caption, folder.parents[1] / "notebooks"), group
                headings = []


def _files(code) -> tuple[str, list[str]]:
    """Names of the figures that a cell draws, or else of the tables that it may write."""
    if drawn := re.findall(r'\bname="(\w+)"', code):
        return "figures", drawn
    written = re.findall(r'"(\w+)"', code) if "write(" in code else []
    return "tables", list(dict.fromkeys(written))


def _relinked(text, notebooks) -> str:
    """A caption on the page of a run: its links start elsewhere, and notebooks are linked."""
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
