"""The home page: what this is, the explorer of a simulated Hub, what was found, the notebooks."""

import html
import re

import nbformat

from lrmf import Forecaster, Lineage, explorer
from lrmf.simulation.simulate import simulate

from . import render

EXECUTED = "notebooks/executed"  # notebooks executed on real data, a folder each run
EXPLORER = "explorer.html"
MARK = "<!-- explorer -->"
_SIZES = {"n_models": 1200, "n_items": 1800, "seed": 0}  # of the Hub that the site's explorer shows
_FRAME = f"""
<p class="actions"><a class="button" href="{EXPLORER}">Explore a simulated Hub</a>
<a class="button" href="{EXPLORER}#view=ask">Forecast a model of your own</a></p>
<iframe class="explorer" src="{EXPLORER}" title="Explorer of a simulated Hub" loading="lazy">
</iframe>
"""


def simulated_explorer() -> bytes:
    """The explorer's page of a small simulated Hub, fitted here and now."""
    hub = simulate(**_SIZES)
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    fit = Forecaster(seed=0).fit(hub.responses, lineage, items=hub.items, models=hub.models)
    return explorer.explore(hub, fit).encode()


def page(root, notebooks, executed=(), *, has_explorer) -> str:
    """HTML of the home page, its links as from the root of the repository.

    The explorer is not a file of the repository, so `with_explorer` puts it in the place of `MARK`
    once links have been checked.

    Parameters
    ----------
    root : path of the checkout
    notebooks : list of str, their places in it
    executed : list of str, folders of the same notebooks, executed on real data
    has_explorer : bool
    """
    readme = (root / "README.md").read_text(encoding="utf-8")
    title, introduction = _beginning(readme)
    parts = [f"<h1>{title}</h1>", introduction, MARK if has_explorer else ""]
    # What `python -m paper.readme` writes into README from the committed results.
    if found := re.search("<!-- findings.*?-->(.+?)<!-- end of findings -->", readme, re.DOTALL):
        parts += ["<h2>What was found</h2>", render.markdown(found[1])]
    if notebooks:
        cards = "".join(_card(root, address, executed) for address in notebooks)
        parts += ["<h2>The notebooks and their answers</h2>", f'<ul class="cards">{cards}</ul>']
    return "\n".join(parts)


def with_explorer(content: bytes) -> bytes:
    """The finished page with the explorer in it."""
    return content.replace(MARK.encode(), _FRAME.encode())


def _beginning(readme):
    """Title and first paragraph of README as HTML, without its links."""
    title = re.search(r"^# (.+)$", readme, flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", readme[title.end() :].strip() if title else readme)
    # What README shows after a colon stands elsewhere on this page.
    introduction = html.escape(re.sub(":$", ".", render.plain(paragraphs[0])))
    return html.escape(title[1] if title else "LRMF"), f"<p>{introduction}</p>"


def _card(root, address, executed) -> str:
    """Title of a notebook, and the answer that it gives, else its question; then on real data."""
    cells = nbformat.read(root / address, as_version=4).cells
    text = cells[0].source if cells else ""
    title = html.escape(text.partition("\n")[0].lstrip("# "))
    said = _answer(cells) or _paragraph("Question", text)
    others = [root / folder / address.rpartition("/")[2] for folder in executed]
    real = "".join(_on_real_data(root, other) for other in others if other.exists())
    return f'<li><h3><a href="{address}">{title}</a></h3>{render.markdown(said)}{real}</li>'


def _on_real_data(root, path) -> str:
    """The answer of an executed notebook, behind the name of its run."""
    said = render.markdown(_answer(nbformat.read(path, as_version=4).cells))
    link = f'<a href="{path.relative_to(root).as_posix()}">The notebook of this run</a>'
    return f"<details><summary>On {path.parent.name}</summary>{said}<p>{link}</p></details>"


def _answer(cells) -> str:
    """The answer under the heading "Answer", else the first one, as Markdown; empty without any."""
    closing = [n for n, cell in enumerate(cells) if cell.source.strip() == "## Answer"]
    for cell in cells[closing[-1] :] if closing else cells:
        outputs = [
            output.get("text", "") or output.get("data", {}).get("text/markdown", "")
            for output in cell.get("outputs", [])
        ]
        for text in (cell.source if cell.cell_type == "markdown" else "", *outputs):
            if found := _paragraph("Answer", text):
                return found
    return ""


def _paragraph(name, text) -> str:
    """What follows a bold lead such as **Answer.** up to the end of the paragraph."""
    found = re.search(rf"\*\*{name}\.?\*\*\.?\s*(.+?)(?:\n\s*\n|\Z)", text, flags=re.DOTALL)
    return found[1] if found else ""
