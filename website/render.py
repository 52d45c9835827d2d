"""Sources as HTML: Markdown with formulas as MathML, notebooks, code and tables of numbers."""

import csv
import html
import re

from bs4 import BeautifulSoup
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

STYLES = {"light": "xcode", "dark": "github-dark"}  # of code, by colour scheme
MAX_ALT = 240  # characters


class _Renderer(IPythonRenderer):
    """Formulas become MathML, which browsers show without a script."""

    def inline_math(self, body):
        return mathml(body)

    def block_math(self, body):
        return mathml(body.strip(), display="block")

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def markdown(text) -> str:
    """Markdown as GitHub and JupyterLab read it."""
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(text)


def notebook(cells) -> str:
    """Cells with their committed outputs; each image says what it shows."""
    _describe_images(cells.cells)
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True
    )
    exporter.register_filter("markdown2html", markdown)
    body, _ = exporter.from_notebook_node(cells)
    return body


def code(text, name) -> str:
    """Highlighted source whose lines have the anchors that GitHub gives them: #L12."""
    try:
        lexer = get_lexer_for_filename(name, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    lines = highlight(text, lexer, HtmlFormatter(nowrap=True)).splitlines()
    numbered = "\n".join(f'<span id="L{n}">{line}</span>' for n, line in enumerate(lines, 1))
    return f'<div class="highlight source"><pre>{numbered}</pre></div>'


def code_styles() -> str:
    """CSS of highlighted code in both colour schemes."""
    sheets = []
    for scheme, style in STYLES.items():
        rules = HtmlFormatter(style=style).get_style_defs(".highlight")
        rules = "\n".join(rule for rule in rules.splitlines() if rule.startswith(".highlight"))
        sheets.append(f"@media (prefers-color-scheme: {scheme}) {{\n{rules}\n}}\n")
    return "".join(sheets)


def table(text) -> str:
    """A CSV of formatted numbers; the first column names the rows."""
    header, *rows = csv.reader(text.splitlines())
    kinds = [
        ' class="text"' if any(re.match("[^-0-9]", value) for value in column[1:]) else ""
        for column in zip(header, *rows, strict=True)
    ]
    lines = [_row("th", header, kinds), *(_row("td", row, kinds) for row in rows)]
    lines[0] = f"<thead>{lines[0]}</thead>"
    return f'<table class="numbers">{"".join(lines)}</table>'


def _row(tag, values, kinds) -> str:
    cells = zip(kinds, map(html.escape, values), strict=True)
    return f"<tr>{''.join(f'<{tag}{kind}>{value}</{tag}>' for kind, value in cells)}</tr>"


def plain(text) -> str:
    """Markdown without its marks, on one line."""
    text = BeautifulSoup(markdown(text), "html.parser").get_text()
    return " ".join(text.split())


def slug(heading) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def alternative_text(text) -> str:
    """As many of the first sentences as an image's alternative text should have."""
    shown = plain(re.sub(r"^#+ (.*)$", r"\1.", text, flags=re.MULTILINE))
    if len(shown) <= MAX_ALT:
        return shown
    sentences = re.match(rf".{{1,{MAX_ALT}}}[.!?:](?= )", shown)
    return sentences[0] if sentences else shown[:MAX_ALT].rsplit(" ", 1)[0] + " ..."


def _describe_images(cells):
    """Alternative text: the finding that the cell prints, else what the text above it says."""
    above = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            above = cell.source
        said, findings = above, []
        drawn = re.findall(r'\bname="(\w+)"', cell.source)
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.text.strip():
                lines = output.text.splitlines()
                said = lines[0]
                # One line each, if the cell draws several figures; some may have been skipped.
                findings = [line for line in lines if line.partition(":")[0] in drawn]
                findings = [line for line in findings if ": skipped," not in line]
            elif "image/png" in output.get("data", {}):
                said = findings.pop(0) if findings else said
                output.metadata["image/png"] = {"alt": alternative_text(said)}
