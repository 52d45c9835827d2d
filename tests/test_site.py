"""The static site: complete, without dead links, readable offline and on a phone."""

import base64
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from chromium import chromium, find_chromium
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from website import figures, home, render
from website.build import Site, SiteError, main, write

pytestmark = pytest.mark.slow  # the whole site is rendered

ROOT = Path(__file__).resolve().parents[1]
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
RUNS = sorted(folder.parent.name for folder in (ROOT / "figures").glob("*/tables"))
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder with the site of this checkout."""
    target = tmp_path_factory.mktemp("site") / "site"
    write(Site(explorer=home.simulated_explorer()).build(), target)
    return target


@pytest.fixture(scope="module")
def soups(site):
    """Parsed pages by address."""
    return {
        str(path.relative_to(site)): BeautifulSoup(path.read_text(), "html.parser")
        for path in site.rglob("*.html")
    }


@pytest.fixture
def checkout(tmp_path):
    """A repository of a README, a document and a notebook with a figure."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    (root / "code.py").write_text('"""A module."""\n\nanswer = 42\n')
    (root / "README.md").write_text("# Title\n\n[line](code.py#L3) [there](other.md#a-heading)\n")
    (root / "other.md").write_text(
        "# Other\n\n## A `heading`\n\n[notebook](notebooks/01_a.ipynb)\n"
    )
    figure = new_output("display_data", data={"image/png": PIXEL})
    cells = [new_markdown_cell("## Result\n\nIt rises."), new_code_cell("plot()", outputs=[figure])]
    nbformat.write(new_notebook(cells=cells), root / "notebooks" / "01_a.ipynb")
    return root


def test_every_notebook_is_a_page_with_all_its_figures_and_outputs(soups):
    assert len(NOTEBOOKS) >= 6
    for name in NOTEBOOKS:
        cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        soup = soups[f"notebooks/{name.removesuffix('.ipynb')}.html"]
        images = [o for o in outputs if "image/png" in o.get("data", {})]
        assert len(soup.select('img[src^="data:image/png"]')) == len(images)
        for output in outputs:
            if output.output_type == "stream":
                assert output.text.rstrip() in soup.get_text()


@pytest.mark.parametrize("run", RUNS)
def test_a_run_shows_each_of_its_figures_and_tables_once(soups, run):
    folder, soup = ROOT / "figures" / run, soups[f"figures/{run}/index.html"]
    shown = [Path(image["src"]).stem for image in soup("img")]
    assert sorted(shown) == sorted(path.stem for path in folder.glob("*.png"))
    tables = [heading["id"] for heading in soup.select('h3[id^="table-"]')]
    assert sorted(tables) == sorted(f"table-{p.stem}" for p in folder.glob("tables/*.csv"))
    assert all(len(figure.figcaption.get_text()) > 40 for figure in soup("figure"))


def test_tables_hold_the_numbers_of_their_files(soups):
    soup = soups["figures/simulated/index.html"]
    rows = soup.find(id="table-strength").find_next("table")("tr")
    shown = [[cell.get_text() for cell in row(["td", "th"])] for row in rows]
    lines = (ROOT / "figures/simulated/tables/strength.csv").read_text().splitlines()
    assert [row[0] for row in shown] == [line.split(",")[0] for line in lines]
    assert all(value in line for row, line in zip(shown, lines, strict=True) for value in row)


def test_figures_stand_under_a_link_to_the_notebook_that_draws_them(soups):
    figure = soups["figures/openllm-v2/index.html"].find(id="few_shot")
    assert figure.find_previous("h2").a["href"] == "../../notebooks/05_cold_start.html"


def test_figures_of_one_cell_have_a_caption_each(tmp_path):
    run = tmp_path / "figures" / "simulated"
    (run / "tables").mkdir(parents=True)
    (run / "tables" / "numbers.tex").write_text("% By 06_figures.ipynb. Simulated.\n")
    for name in ("a", "b"):
        (run / f"{name}.png").write_bytes(base64.b64decode(PIXEL))
    cells = [
        new_markdown_cell("# Both\n\nWhy.\n\n**First.** One.\n\n**Gone.** None.\n\n**Second.** 2."),
        new_code_cell('draw(f, name="a")\ndraw(g, name="gone")\ndraw(h, name="b")'),
    ]
    soup = BeautifulSoup(figures.page(run, {"01_a.ipynb": cells}, drawings={"b"}), "html.parser")
    captions = {figure["id"]: figure.figcaption.p.get_text() for figure in soup("figure")}
    assert captions == {"a": "First. One.", "b": "Second. 2."}
    assert [image["src"] for image in soup("img")] == ["a.png", "b.svg"]
    assert [heading.a["href"] for heading in soup("h2")] == ["../../notebooks/01_a.ipynb"]


def test_relative_links_lead_to_files_and_anchors_of_the_site(site, soups):
    for address, soup in soups.items():
        for tag in soup(["a", "img", "link"]):
            parts = urlsplit(tag.get("href") or tag.get("src"))
            if parts.scheme:
                continue
            target = (site / address).parent / unquote(parts.path) if parts.path else site / address
            assert target.is_file(), f"{address}: {parts.geturl()}"
            # The fragment of the explorer is its state, not an anchor.
            if parts.fragment and parts.path != home.EXPLORER:
                other = soups[str(target.resolve().relative_to(site.resolve()))]
                assert other.find(id=parts.fragment), f"{address}: {parts.geturl()}"


def test_nothing_is_loaded_from_elsewhere(site, soups):
    assert "//" not in (site / "style.css").read_text()
    for address, soup in soups.items():
        if address != home.EXPLORER:  # has a script, and a policy of its own
            assert not soup(["script", "object", "embed"]), address
        frames = [home.EXPLORER] if address == "index.html" else []
        found = soup("iframe")
        assert [frame["src"] for frame in found if frame.has_attr("src")] == frames, address
        # The explorer of notebook 02 stands in the page itself.
        assert all(frame["sandbox"] for frame in found if frame.has_attr("srcdoc")), address
        for tag in soup(["img", "link", "source"]):
            assert urlsplit(tag.get("href") or tag["src"]).scheme in ("", "data"), address


def test_every_image_says_what_it_shows(soups):
    texts = [image.get("alt", "") for soup in soups.values() for image in soup("img")]
    assert len(texts) > 80
    assert all(20 < len(text) <= render.MAX_ALT + 4 for text in texts)


def test_the_same_sources_give_the_same_bytes(checkout):
    assert Site(checkout).build() == Site(checkout).build()


def test_links_between_sources_become_links_between_pages(checkout):
    files = Site(checkout).build()
    hrefs = [a["href"] for a in BeautifulSoup(files["overview.html"], "html.parser").main("a")]
    assert hrefs == ["code.py.html#L3", "other.html#a-heading"]
    code = BeautifulSoup(files["code.py.html"], "html.parser")
    assert code.find(id="L3").get_text() == "answer = 42"
    image = BeautifulSoup(files["notebooks/01_a.html"], "html.parser").img
    assert image["alt"] == "Result. It rises."


def test_all_problems_are_reported_at_once(checkout):
    text = "[a](gone.md) [b](../outside.md) [c](other.md#nowhere) ![](figure.png)\n"
    (checkout / "README.md").write_text(text)
    (checkout / "figure.png").touch()
    with pytest.raises(SiteError) as caught:
        Site(checkout).build()
    assert sorted(str(caught.value).splitlines()) == [
        "README.md: an image has no alternative text",
        "README.md: links to ../outside.md, which does not exist",
        "README.md: links to gone.md, which does not exist",
        "README.md: other.html has no anchor #nowhere",
    ]


def test_home_shows_findings_and_what_each_notebook_answers(checkout):
    text = "# Title\n\nIt forecasts.\n\n<!-- findings: made -->\n\n1. It works.\n\n"
    (checkout / "README.md").write_text(text + "<!-- end of findings -->\n\nMore.\n")
    cells = [
        new_markdown_cell("# 01 Does it?\n\n**Question.** Does it rise?\n\nSee."),
        new_code_cell(
            "say()", outputs=[new_output("stream", text="**Answer.** It rises by 3.\n\nn = 7")]
        ),
    ]
    nbformat.write(new_notebook(cells=cells), checkout / "notebooks" / "01_a.ipynb")
    nbformat.write(new_notebook(cells=cells[:1]), checkout / "notebooks" / "02_b.ipynb")
    files = Site(checkout, explorer=b"page").build()
    soup = BeautifulSoup(files["index.html"], "html.parser")
    assert soup.h1.get_text() == "Title" and "It forecasts." in soup.main.p
    assert soup.find("ol").get_text(strip=True) == "It works."
    cards = [(card.a["href"], card.p.get_text()) for card in soup.select(".cards li")]
    assert cards == [
        ("notebooks/01_a.html", "It rises by 3."),
        ("notebooks/02_b.html", "Does it rise?"),
    ]
    assert soup.iframe["src"] in files
    assert "iframe" not in Site(checkout).build()["index.html"].decode()


def test_notebooks_of_real_runs_stand_beside_the_simulated_ones(checkout):
    said = [new_output("stream", text="**Answer.** It falls by 2.\n")]
    cells = [new_markdown_cell("# 01 Does it?"), new_code_cell("say()", outputs=said)]
    folder = checkout / "notebooks" / "executed" / "v1"
    folder.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells), folder / "01_a.ipynb")
    files = Site(checkout).build()
    card = BeautifulSoup(files["index.html"], "html.parser").select_one(".cards li")
    assert "It falls by 2." in card.details.p.get_text()
    assert card.details.a["href"] == "notebooks/executed/v1/01_a.html"
    page = BeautifulSoup(files[card.details.a["href"]], "html.parser")
    versions = page.find("nav", attrs={"aria-label": "Data"})("a")
    assert [(a.get_text(), a["href"]) for a in versions] == [
        ("simulated", "../../01_a.html"),
        ("v1", "01_a.html"),
    ]


def test_an_image_is_described_by_what_its_cell_prints():
    printed = new_output("stream", text="LRMF is best.\nn = 3\n")
    figure = new_output("display_data", data={"image/png": PIXEL})
    cells = [new_markdown_cell("Above."), new_code_cell("draw()", outputs=[printed, figure])]
    html = render.notebook(new_notebook(cells=cells))
    assert BeautifulSoup(html, "html.parser").img["alt"] == "LRMF is best."


def test_long_descriptions_end_with_a_sentence():
    text = "First sentence with *r* = 0.5. " + "word " * 60 + "end."
    assert render.alternative_text(text) == "First sentence with r = 0.5."
    assert render.alternative_text("word " * 60).endswith("word ...")


def test_formulas_become_mathml():
    html = render.markdown("Let $L = D - A$ and\n\n$$\\min_t t^\\top L t$$\n")
    assert html.count("<math") == 2 and 'display="block"' in html and "$" not in html
    assert "script" not in html


def test_columns_of_words_are_told_from_numbers():
    soup = BeautifulSoup(render.table('a,b,c\nx,"-0.1 [0, 1]",<i>\n'), "html.parser")
    assert [cell.get("class") for cell in soup("td")] == [["text"], None, ["text"]]
    assert soup("td")[2].get_text() == "<i>"


def test_a_folder_that_is_no_site_is_left_alone(tmp_path, checkout):
    files = Site(checkout).build()
    (tmp_path / "mine").mkdir()
    with pytest.raises(SiteError, match="is no site"):
        write(files, tmp_path / "mine")
    write(files, tmp_path / "new")
    (tmp_path / "new" / "stale.html").touch()
    write(files, tmp_path / "new")
    found = {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*")}
    assert found == set(files) | {"notebooks"}


def test_command_says_why_it_failed(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main([str(tmp_path / "mine")]) == 1
    assert "is no site" in capsys.readouterr().err


@pytest.mark.skipif(not find_chromium(), reason="neither Chromium nor Chrome is installed")
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_in_a_browser(site, soups, tmp_path, width):
    pages = [address for address in soups if not address.endswith((".py.html", ".yaml.html"))]
    measures = """JSON.stringify({
        width: document.documentElement.scrollWidth,
        broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80)),
    })"""
    with chromium(tmp_path) as tab:
        for address in [*pages, "lrmf/solver/factorization.py.html"]:
            tab.open((site / address).as_uri(), width=width, dark=width == 390)
            measured = json.loads(tab.evaluate(measures))
            assert measured == {"width": width, "broken": []}, address
            assert tab.errors == [], address
            assert {urlsplit(url).scheme for url in tab.requests} <= {"file", "data"}, address


def test_images_of_one_cell_are_described_by_their_own_findings():
    text = "a: A rises.\nn = 3.\nb: skipped, no results.\nc: C falls.\nn = 3.\n"
    figure = new_output("display_data", data={"image/png": PIXEL})
    outputs = [
        new_output("stream", text=text),
        figure,
        new_output("display_data", data=figure.data),
    ]
    code = 'draw(f, name="a")\ndraw(g, name="b")\ndraw(h, name="c")'
    html = render.notebook(new_notebook(cells=[new_code_cell(code, outputs=outputs)]))
    images = BeautifulSoup(html, "html.parser")("img")
    assert [image["alt"] for image in images] == ["a: A rises.", "c: C falls."]
