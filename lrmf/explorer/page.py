"""The page itself: one HTML file that holds its style, its script and its data."""

import base64
import hashlib
import html
import json
from importlib.resources import files


def render(data, *, introduction="") -> str:
    """The page for the document of `bake`.

    Nothing is loaded from elsewhere, and the page's policy forbids it: only the style and the
    script with these checksums run.

    Parameters
    ----------
    data : dict, from `bake`
    introduction : str
        HTML above the families, of the caller's own making.
    """
    sources = files(__package__) / "page"
    style = (sources / "style.css").read_text(encoding="utf-8")
    modules = sorted(path.name for path in sources.iterdir() if path.name.endswith(".js"))
    code = "\n".join((sources / name).read_text(encoding="utf-8") for name in modules)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    policy = (
        f"default-src 'none'; script-src {_checksum(script)}; style-src {_checksum(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    # A "<" could end the element that holds the data.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # All ASCII: a checksum holds whatever encoding a page around this one has.
    title = html.escape(data["title"]).encode("ascii", "xmlcharrefreplace").decode()
    parts = {
        "policy": policy, "title": title, "style": style, "script": script,
        "introduction": introduction, "data": text.replace("<", "\\u003c"),
    }  # fmt: skip
    page = (sources / "page.html").read_text(encoding="utf-8")
    pieces = page.split("{{ ")
    for number, piece in enumerate(pieces[1:], 1):
        name, _, rest = piece.partition(" }}")
        pieces[number] = parts[name] + rest
    return "".join(pieces)


def _checksum(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
