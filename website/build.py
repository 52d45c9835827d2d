"""Build the static site from the files of this checkout: `python -m website.build build/site`.

The home page is index.html. Any other page stands where its source does: README.md becomes
overview.html, notebooks/03_fit.ipynb becomes notebooks/03_fit.html and lrmf/cli.py becomes
lrmf/cli.py.html. The pages of `NAVIGATION`, the notebooks, the runs and all that these link to are
part of the site; a link that leads nowhere is an error.
"""

import argparse
import ast
import posixpath
import re
import sys
from collections import Counter
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import jinja2
import nbformat
from bs4 import BeautifulSoup

from lrmf.files import output_folder

from . import figures, home, render

ROOT = Path(__file__).resolve().parents[1]
NAVIGATION = {  # by title; what does not exist (the paper, before it is typeset) is left out
    "Home": "index.html",  # made of the others, not a file
    "Overview": "README.md",
    "Notebooks": "notebooks",
    "Figures": "figures",
    "Paper": "paper/main.pdf",
    "Data": "data",
    "Code": "lrmf",
    "Troubleshooting": "docs/troubleshooting.md",
    "Changes": "CHANGELOG.md",
}
COPIED = {".csv", ".pdf", ".png", ".svg"}
LISTED = {".bib", ".css", ".html", ".ipynb", ".md", ".mplstyle", ".py", ".tex", ".yaml"}
HOME = PurePosixPath("index.html")
MARKER = ".nojekyll"  # asks GitHub Pages to serve the files as they are; no other folder has it


class SiteError(Exception):
    """Sources that do not make a site; the message lists all problems."""


class Site:
    """Files of the site by address, made from sources in the order in which they are met.

    Parameters
    ----------
    root : path of the checkout
    explorer : bytes, optional, the explorer's page
    """

    def __init__(self, root=ROOT, *, explorer=None):
        self._root = Path(root)
        self._template = jinja2.Template(
            Path(__file__).with_name("page.html").read_text(encoding="utf-8"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )
        self._queue = []
        self._anchors = {}  # ids by address
        self._claims = []  # (source, address, anchor) to check
        self._problems = []
        self.files = {MARKER: b"", "style.css": _style()}
        if explorer:
            self.files[home.EXPLORER] = explorer

    def build(self) -> dict[str, bytes]:
        """All files; raises SiteError."""
        executed = [other for run in self._executed() for other in self._notebooks(run)]
        for source in [*NAVIGATION.values(), *self._notebooks(), *executed, *self._runs()]:
            if self._exists(source):
                self._address(PurePosixPath(source))
        for source in self._queue:  # grows while pages are made
            self.files[_place(self._root, source)] = self._content(source)
        for source, address, anchor in self._claims:
            if address in self._anchors and anchor not in self._anchors[address]:
                self._problems.append(f"{source}: {address} has no anchor #{anchor}")
        if self._problems:
            raise SiteError("\n".join(self._problems))
        return self.files

    def _exists(self, source):
        return PurePosixPath(source) == HOME or (self._root / source).exists()

    def _notebooks(self, folder="notebooks"):
        return sorted(f"{folder}/{path.name}" for path in self._root.glob(f"{folder}/0*.ipynb"))

    def _executed(self):
        """Folders of notebooks executed on real data, one a run."""
        return sorted(f"{home.EXECUTED}/{p.name}" for p in self._root.glob(f"{home.EXECUTED}/*"))

    def _runs(self):
        folders = sorted(path for path in self._root.glob("figures/*") if figures.is_run(path))
        return [f"figures/{folder.name}" for folder in folders]

    def _address(self, source) -> str:
        """Address of a source, which becomes part of the site."""
        if (self._root / source / "README.md").is_file():
            source /= "README.md"
        if source not in self._queue:
            self._queue.append(source)
        return _place(self._root, source)

    def _content(self, source) -> bytes:
        path = self._root / source
        if source == HOME:
            has_explorer = home.EXPLORER in self.files
            body = home.page(
                self._root, self._notebooks(), self._executed(), has_explorer=has_explorer
            )
            return home.with_explorer(self._linked(source, BeautifulSoup(body, "html.parser")))
        if source.suffix in COPIED:
            return path.read_bytes()
        if path.is_dir():
            body = self._run(source) if figures.is_run(path) else self._folder(source)
        elif source.suffix == ".ipynb":
            body = render.notebook(nbformat.read(path, as_version=4))
        elif source.suffix == ".md":
            body = render.markdown(path.read_text(encoding="utf-8"))
        else:
            return self._code(source, path.read_text(encoding="utf-8"))
        return self._linked(source, BeautifulSoup(body, "html.parser"))

    def _run(self, source) -> str:
        paths = [self._root / name for name in self._notebooks()]
        notebooks = {path.name: nbformat.read(path, as_version=4).cells for path in paths}
        drawings = figures.drawings(self._root / source)
        self.files |= {f"{source}/{name}.svg": drawing for name, drawing in drawings.items()}
        return figures.page(self._root / source, notebooks, drawings=set(drawings))

    def _folder(self, source) -> str:
        rows = []
        for path in sorted((self._root / source).iterdir()):
            if path.suffix in LISTED or (path / "__init__.py").is_file():
                summary = render.markdown(_summary(path))
                rows.append(f'<dt><a href="{path.name}">{path.name}</a></dt><dd>{summary}</dd>')
        return f"<h1>{source}</h1><dl>{''.join(rows)}</dl>"

    def _code(self, source, text) -> bytes:
        lines = range(1, len(text.splitlines()) + 1)
        self._anchors[_place(self._root, source)] = {f"L{n}" for n in lines}
        return self._page(source, source, f"<h1>{source}</h1>{render.code(text, source.name)}")

    def _linked(self, source, soup) -> bytes:
        """The page of a document, whose links lead to pages."""
        _number_headings(soup)
        self._anchors[_place(self._root, source)] = {tag["id"] for tag in soup(id=True)}
        for tag, name in [*((a, "href") for a in soup("a")), *((i, "src") for i in soup("img"))]:
            tag[name] = self._relink(source, tag[name])
        for image in soup("img"):
            if not image.get("alt", "").strip():
                self._problems.append(f"{source}: an image has no alternative text")
        _tidy(soup)
        title = soup.h1.get_text() if soup.h1 else source.name
        return self._page(source, title, str(soup))

    def _page(self, source, title, body) -> bytes:
        page = self._template.render(
            title=title,
            menus=[
                ("Site", self._menu(source, NAVIGATION.items())),
                ("Section", self._menu(source, self._siblings(source))),
                ("Data", self._menu(source, self._versions(source))),
            ],
            home=_way(_place(self._root, source), "."),
            body=body,
        )
        return page.encode()

    def _siblings(self, source):
        """Title and source of the pages beside a notebook or the page of a run."""
        folder = source.parent if source.suffix else source
        groups = {"notebooks": lambda: self._notebooks(folder), "figures": self._runs}
        group = groups.get(source.parts[0], list)()
        return [(PurePosixPath(other).stem, other) for other in group]

    def _versions(self, source):
        """Title and source of the same notebook with the outputs of each run."""
        folders = self._executed() if source.suffix == ".ipynb" else []
        versions = {"simulated": "notebooks"} | {PurePosixPath(run).name: run for run in folders}
        return [(name, f"{run}/{source.name}") for name, run in versions.items() if folders]

    def _menu(self, source, entries):
        """Links from a page, as (title, href, whether it leads to this very page)."""
        here = _place(self._root, source)
        menu = []
        for title, other in entries:
            if self._exists(other):
                address = self._address(PurePosixPath(other))
                menu.append((title, _way(here, address), address == here))
        return menu

    def _relink(self, source, reference) -> str:
        parts = urlsplit(reference)
        if parts.scheme or parts.netloc:
            return reference
        here = address = _place(self._root, source)
        if parts.path:
            base = source if (self._root / source).is_dir() else source.parent
            target = PurePosixPath(posixpath.normpath(base / parts.path))
            if str(target) in self.files:  # made of others
                return _way(here, str(target))
            if ".." in target.parts or not (self._root / target).exists():
                self._problems.append(f"{source}: links to {reference}, which does not exist")
                return reference
            address = self._address(target)
        anchor = re.sub(r"^(L\d+)-L\d+$", r"\1", parts.fragment)  # of some lines the first
        if anchor:
            self._claims.append((source, address, anchor))
            return f"{_way(here, address)}#{anchor}"
        return _way(here, address)


def check_target(target):
    """Raise SiteError if something else than a site is there."""
    if target.exists() and not (target / MARKER).exists():
        raise SiteError(f"{target} exists and is no site; move it away or choose another folder")


def write(files, target):
    """Replace the site in `target`; raises SiteError if that holds anything else."""
    check_target(target)
    with output_folder(target) as folder:
        for address, content in files.items():
            (folder / address).parent.mkdir(parents=True, exist_ok=True)
            (folder / address).write_bytes(content)


def main(arguments=None) -> int:
    """Build the site in the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Build the static site of this checkout.")
    parser.add_argument("target", type=Path, help="folder to write, usually build/site")
    target = parser.parse_args(arguments).target
    try:
        check_target(target)
        files = Site(explorer=home.simulated_explorer()).build()
        write(files, target)
    except SiteError as error:
        print(f"website: {error}", file=sys.stderr)
        return 1
    pages = sum(address.endswith(".html") for address in files)
    print(f"{pages} pages, {sum(map(len, files.values())) / 1e6:.0f} MB: {target}/index.html")
    return 0


def _style() -> bytes:
    own = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return (own + render.code_styles()).encode()


def _place(root, source) -> str:
    """Address of the page made from a source."""
    if source == HOME or source.suffix in COPIED:
        return str(source)
    if source == PurePosixPath("README.md"):
        return "overview.html"
    if source.name == "README.md":
        return str(source.with_name("index.html"))
    if (root / source).is_dir():
        return str(source / "index.html")
    if source.suffix in (".md", ".ipynb"):
        return str(source.with_suffix(".html"))
    return f"{source}.html"


def _way(here, there) -> str:
    """Relative link between two addresses."""
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def _summary(path) -> str:
    """What a file is for, in a line."""
    if path.is_dir():
        return _summary(path / "__init__.py")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    if path.suffix == ".ipynb":
        text = nbformat.reads(text, as_version=4).cells[0].source
    return text.partition("\n")[0].lstrip("# ") if path.suffix in (".ipynb", ".md") else ""


def _number_headings(soup):
    """Give headings the anchors of GitHub, which numbers equal ones."""
    seen = Counter()
    for heading in soup(["h1", "h2", "h3", "h4"]):
        anchor = render.slug(heading.get_text())
        heading["id"] = heading.get("id") or anchor + (f"-{seen[anchor]}" if seen[anchor] else "")
        seen[anchor] += 1


def _tidy(soup):
    """Tables scroll by themselves and look alike."""
    for style in soup("style"):
        style.decompose()
    for table in soup("table"):
        del table["border"]
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))


if __name__ == "__main__":
    sys.exit(main())
