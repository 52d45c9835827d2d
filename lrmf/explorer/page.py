"""The page: one HTML file with its style, script and data."""

import base64
import hashlib
import html
import json
from importlib.resources import files


def render(data) -> str:
    """The HTML page for the data of `bake`.

    The page loads nothing from elsewhere. Its content security policy forbids it, and allows only
    the style and the script with their checksums.

    Parameters
    ----------
    data : dict, from `bake`

    Returns
    -------
    str
    """
    # Style and script: all JavaScript files in one function.
    sources = files(__package__) / "page"
    style = (sources / "style.css").read_text(encoding="utf-8")
    modules = sorted(path.name for path in sources.iterdir() if path.name.endswith(".js"))
    code = "\n".join((sources / name).read_text(encoding="utf-8") for name in modules)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    policy = (
        f"default-src 'none'; script-src {_checksum(script)}; style-src {_checksum(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    # "<" is escaped, as it could end the element with the data.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # The page is ASCII, so that checksums are right in any encoding of a surrounding page.
    title = html.escape(data["title"]).encode("ascii", "xmlcharrefreplace").decode()
    parts = {
        "policy": policy, "title": title, "style": style, "script": script,
        "data": text.replace("<", "\\u003c"),
    }  # fmt: skip
    # Fill the fields {{ name }} of the template; inserted text is not searched for fields.
    page = (sources / "page.html").read_text(encoding="utf-8")
    pieces = page.split("{{ ")
    for number, piece in enumerate(pieces[1:], 1):
        name, _, rest = piece.partition(" }}")
        pieces[number] = parts[name] + rest
    return "".join(pieces)


def _checksum(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
