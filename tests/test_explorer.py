"""The explorer: its page forecasts as Python does, needs nothing but itself, and can be used."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
import pytest
from chromium import chromium, find_chromium

from lrmf import Forecaster, Lineage, explorer
from lrmf.cli import main
from lrmf.data.responses import benchmark_scores, reveal
from lrmf.data.snapshot import Snapshot
from lrmf.simulation.simulate import simulate, write_simulated

NODE = shutil.which("node")
AXE = Path(__file__).resolve().parents[1] / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = "lab/<img src=x onerror=document.title='broken'></script>&quot;"
needs_node = pytest.mark.skipif(not NODE, reason="Node.js is not installed")
SOURCES = files("lrmf.explorer") / "page"


def snapshot_of(kind):
    """A simulated Hub with some unknown fields: single answers, or the scores of benchmarks."""
    hub = simulate(n_models=220, n_items=120, seed=5)
    models, rng = hub.models.copy(), np.random.default_rng(0)
    models.loc[rng.permutation(220)[:30], "params_b"] = np.nan
    responses = hub.responses.copy()
    responses[[7, 8]] = 255
    names, lineage = {models["model_id"][9]: HOSTILE}, hub.lineage
    models["model_id"] = models["model_id"].replace(names)
    lineage = lineage.assign(**{c: lineage[c].replace(names) for c in ("parent", "child")})
    items = hub.items
    if kind == "proportions":
        responses = benchmark_scores(responses, items).to_numpy(np.float32)
        benchmarks = list(benchmark_scores(hub.responses, hub.items).columns)
        trials = items.groupby("benchmark")["n_trials"].sum().loc[benchmarks].to_numpy()
        items = pd.DataFrame({"item_id": benchmarks, "benchmark": benchmarks})
        items = items.assign(subtask=benchmarks, n_trials=trials)
    tables = {"models": models, "items": items, "lineage": lineage, "responses": responses}
    return Snapshot(**tables, name=f"small {kind}", source="simulated", note="")


@dataclass(frozen=True)
class Baked:
    """A snapshot, its forecaster, and the page of both."""

    snapshot: Snapshot
    forecaster: Forecaster
    plans: pd.DataFrame
    data: dict
    page: str


@cache
def baked(kind):
    snapshot = snapshot_of(kind)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    forecaster = Forecaster(seed=0).fit(
        snapshot.responses, lineage, items=snapshot.items, models=snapshot.models
    )
    ids = snapshot.models["model_id"]
    plans = pd.DataFrame(
        {"parents": [[ids[0], ids[1]], [ids[9], ids[20]]], "score": [0.51, 0.5], "p_better": 0.7}
    )
    data = explorer.bake(snapshot, forecaster, plans=plans)
    return Baked(snapshot, forecaster, plans, data, explorer.render(data))


@pytest.fixture(params=["proportions", "answers"])
def both(request):
    return baked(request.param)


@pytest.fixture
def proportions():
    return baked("proportions")


def run_node(*arguments, code):
    done = subprocess.run([NODE, "-", *map(str, arguments)], input=code, **CAPTURED)
    assert done.returncode == 0, done.stderr
    return done.stdout


CAPTURED = {"capture_output": True, "text": True, "timeout": 120}


def questions(forecaster):
    """What one may ask: any number of parents, names, sizes that cannot be, nothing at all."""
    ids = list(forecaster.trained_ids_)
    parents = sorted(set(forecaster.trained_edges_["parent"]))
    unscored = [name for name in parents if name not in set(ids)]
    merge = {"relation": "merge"}
    return [
        {"parents": [parents[0]]},
        {"parents": unscored[:1], "card": {"size": 8}},
        {"parents": [HOSTILE, ids[3]]} | merge,
        {"parents": ids[20:24], "card": {"size": 3, "name": "me/Super-Llama-chat"}} | merge,
        {"parents": [parents[1]], "relation": "quantized", "card": {"name": parents[1] + "-gguf"}},
        {"parents": [parents[2]], "card": {"size": 1e6}},
        {"card": {"name": "nobody/some-7b-model"}},
        {},
    ]


def as_fold_in(question):
    card = dict(question.get("card", {}))
    table = {"model_id": card.get("name", "")}
    if "size" in card:
        table["params_b"] = card["size"]
    relation = question.get("relation", "finetune")
    parents = [(parent, relation) for parent in question.get("parents", ())]
    return {"parents": parents, "card": table, "answers": question.get("scores")}


ASK = """
const fs = require("fs");
const read = (path) => JSON.parse(fs.readFileSync(path, "utf8"));
const [data, questions] = process.argv.slice(2, 4).map(read);
const forecaster = new Forecaster(decode(data));
const answers = questions.map(({ parents = [], relation, card, scores = {} }) =>
  forecaster.ask({
    parents: parents.map((id) => data.models.id.indexOf(id)), relation, card,
    scores: new Map(Object.entries(scores).map(([b, x]) => [data.benchmarks.indexOf(b), x])),
  })[process.argv[4]]).map((found) =>
  [found].flat().map(({ score, lower, upper }) => [score, lower, upper]));
console.log(JSON.stringify(answers));
"""


def asked(path, data, given, *, what="rows"):
    """Scores, lower and upper bounds (n_questions, n_benchmarks, 3) as the page computes them."""
    (path / "data.json").write_text(json.dumps(data))
    (path / "questions.json").write_text(json.dumps(given))
    modules = sorted(p.name for p in SOURCES.iterdir() if re.match(r"[123]0_.*js$", p.name))
    code = "\n".join((SOURCES / name).read_text(encoding="utf-8") for name in modules) + ASK
    files = path / "data.json", path / "questions.json"
    return np.array(json.loads(run_node(*files, what, code=code)))


def expected(forecaster, given):
    return np.array(
        [
            forecaster.fold_in(**as_fold_in(question)).scores()[["score", "lower", "upper"]]
            for question in given
        ]
    )


@needs_node
def test_the_page_forecasts_as_fold_in_does(both, tmp_path):
    given = questions(both.forecaster)
    difference = asked(tmp_path, both.data, given) - expected(both.forecaster, given)
    assert 100 * np.abs(difference).max() < 0.1  # points


@pytest.mark.slow
@needs_node
def test_forecasts_agree_where_the_page_looks_at_some_models_only(tmp_path):
    hub = simulate(n_models=1500, n_items=120, seed=2)
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    fit = Forecaster(seed=0).fit(hub.responses, lineage, items=hub.items, models=hub.models)
    given = questions(fit)
    difference = asked(tmp_path, explorer.bake(hub, fit), given) - expected(fit, given)
    assert 100 * np.abs(difference).max() < 0.1


@needs_node
def test_known_scores_condition_a_forecast_as_answers_do(proportions, tmp_path):
    parent = proportions.forecaster.trained_edges_["parent"].iloc[0]
    first, second = proportions.data["benchmarks"][:2]
    given = [
        {"parents": [parent], "scores": {first: 0.4}},
        {"card": {"size": 7}, "scores": {first: 0.7, second: 0.55}},
    ]
    shown, wanted = (
        asked(tmp_path, proportions.data, given),
        expected(proportions.forecaster, given),
    )
    assert 100 * np.abs(shown - wanted).max() < 0.1


@needs_node
def test_scores_of_answers_count_as_with_scores_has_them(tmp_path):
    answers = baked("answers")
    first, _, third = answers.data["benchmarks"][:3]
    parent = answers.forecaster.trained_edges_["parent"].iloc[0]
    given = [
        {"parents": [parent], "scores": {first: 0.6}},
        {"card": {"size": 7}, "scores": {first: 0.3, third: 0.4}},
    ]
    for question, shown in zip(given, asked(tmp_path, answers.data, given), strict=True):
        new = answers.forecaster.fold_in(**as_fold_in(question) | {"answers": None})
        wanted = new.with_scores(question["scores"]).scores()[["score", "lower", "upper"]]
        assert 100 * np.abs(shown - wanted.to_numpy()).max() < 0.1


@needs_node
def test_the_mean_has_the_interval_of_mean_score(both, tmp_path):
    given = questions(both.forecaster)
    shown = asked(tmp_path, both.data, given, what="average")[:, 0]
    wanted = [both.forecaster.fold_in(**as_fold_in(question)).mean_score() for question in given]
    assert 100 * np.abs(shown - wanted).max() < 0.1


@needs_node
def test_the_page_says_what_lrmf_ask_says(proportions, tmp_path, capsys):
    fit, parents = str(tmp_path / "fit.npz"), list(proportions.forecaster.trained_ids_[[1, 40]])
    proportions.forecaster.save(fit)
    first = proportions.data["benchmarks"][0]
    question = {"parents": parents, "relation": "merge", "scores": {first: 0.4}}
    question["card"] = {"size": 4, "name": "me/mixed-4b"}
    options = ["--parents", ",".join(parents), "--size", "4", "--name", "me/mixed-4b"]
    assert main(["ask", "--model", fit, *options, "--score", f"{first}=40", "--json"]) == 0
    said = pd.DataFrame(json.loads(capsys.readouterr().out)["scores"])
    (shown,) = asked(tmp_path, proportions.data, [question])
    assert 100 * np.abs(shown - said[["score", "lower", "upper"]].to_numpy()).max() < 0.1


@needs_node
def test_the_script_is_sound(proportions, tmp_path):
    (script,) = re.findall("<script>(.*?)</script>", proportions.page, flags=re.DOTALL)
    (tmp_path / "page.js").write_text(script)
    assert subprocess.run([NODE, "--check", tmp_path / "page.js"]).returncode == 0


def test_baked_scores_are_those_of_predict(both):
    data, n = both.data["models"], both.snapshot.n_models
    benchmarks = both.data["benchmarks"]

    def shown(name, kind="<i2"):
        numbers = np.frombuffer(base64.b64decode(data[name]["bytes"]), kind)
        return numbers.reshape(-1, len(benchmarks))[:n]

    hidden = reveal(both.snapshot.responses, False)
    now, before = (
        frame.pivot(index="row", columns="benchmark")
        for frame in (
            both.forecaster.predict().scores,
            both.forecaster.predict(revealed=hidden).scores,
        )
    )
    is_observed = shown("observed", "u1") == 2
    assert is_observed.any() and not is_observed.all()
    assert np.allclose(shown("score") / 1e4, now["score"][benchmarks], atol=6e-5)
    # Beside an observed score stands the forecast without it.
    for name, column in [("forecast", "score"), ("lower", "lower"), ("upper", "upper")]:
        wanted = np.where(is_observed, before[column][benchmarks], now[column][benchmarks])
        assert np.allclose(shown(name) / 1e4, wanted, atol=6e-5), name


def test_every_node_of_the_family_tree_has_a_place(both):
    data = both.data["models"]
    lineage = Lineage.from_edges(both.snapshot.lineage, both.snapshot.models["model_id"])
    assert set(data["id"]) == set(lineage.node_ids)
    x, y = (
        np.frombuffer(base64.b64decode(data[k]["bytes"]), t)
        for k, t in [("x", "<i2"), ("y", "<f4")]
    )
    place = {name: (*at,) for name, at in zip(data["id"], zip(x, y, strict=True), strict=True)}
    for family in set(lineage.families):
        members = lineage.node_ids[lineage.families == family]
        assert len({place[name] for name in members}) == len(members)
    for parent, child in lineage.edges[["parent", "child"]].itertuples(index=False):
        assert place[parent][0] < place[child][0]


def test_a_page_runs_and_loads_nothing_but_itself(both):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', both.page)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", both.page, flags=re.DOTALL)
        checksum = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{checksum}'" in policy
    assert not re.search(r"<(link|img|script|iframe)[^>]+(src|href)=\"(?!data:)", both.page)
    data = re.search(r'id="data">(.*?)</script>', both.page, flags=re.DOTALL)[1]
    assert "<" not in data
    assert HOSTILE in json.loads(data)["models"]["id"]


def test_equal_fits_give_equal_pages(proportions):
    page = explorer.explore(proportions.snapshot, proportions.forecaster, plans=proportions.plans)
    assert page == proportions.page


def test_command_writes_the_page(tmp_path, capsys):
    write_simulated(tmp_path / "hub", n_models=60, n_items=60, seed=0)
    fit, out = tmp_path / "fit.npz", tmp_path / "page.html"
    assert main(["fit", str(tmp_path / "hub"), "--model", str(fit)]) == 0
    assert main(["explore", str(tmp_path / "hub"), "--model", str(fit), "--out", str(out)]) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    # A fit of other items is refused in one line.
    write_simulated(tmp_path / "other", n_models=60, n_items=90, seed=0)
    capsys.readouterr()
    again = ["explore", str(tmp_path / "other"), "--model", str(fit), "--out", str(tmp_path / "no")]
    assert main(again) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_page_of_the_papers_size_has_less_than_3_mb():
    hub = simulate(n_models=2934, n_items=1200, seed=0)
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    fit = Forecaster(seed=0).fit(hub.responses, lineage, items=hub.items, models=hub.models)
    assert len(explorer.explore(hub, fit)) < 3e6


# In a browser.


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser's tab; `tab.address` is the page of the proportions."""
    if not find_chromium():
        pytest.skip("neither Chromium nor Chrome is installed")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(baked("proportions").page, encoding="utf-8")
    with chromium(folder) as opened:
        opened.address = (folder / "page.html").as_uri()
        yield opened


def visit(tab, fragment="", width=1440, **options):
    tab.open("about:blank", width=width)
    tab.open(f"{tab.address}#{fragment}", width=width, **options)


def until(tab, expression):
    """The value of an expression as soon as it is not empty."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if value := tab.evaluate(expression):
            return value
        time.sleep(0.05)
    raise AssertionError(f"never came true: {expression}")


def press(tab, key):
    tab.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        f"{{key: {json.dumps(key)}, bubbles: true, cancelable: true}}))"
    )


def type_into(tab, selector, text):
    tab.evaluate(
        f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.focus();"
        f" field.value = {json.dumps(text)};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


CHOSEN = "new URLSearchParams(location.hash.slice(1)).get('model')"
FORECAST = """(() => {
  const rows = [...document.querySelectorAll('.answer[aria-busy=false] tr[data-benchmark]')];
  return rows.length && JSON.stringify(rows.map((row) => [
    row.querySelector('[data-value]').dataset.value,
    row.querySelector('[data-lower]').dataset.lower,
    row.querySelector('[data-upper]').dataset.upper,
  ].map(Number)));
})()"""


@pytest.mark.slow
def test_search_finds_a_model_by_any_part_of_its_id(tab):
    visit(tab)
    type_into(tab, "#search", "onerror=document")
    press(tab, "Enter")
    assert until(tab, CHOSEN) == HOSTILE
    assert until(tab, "document.querySelector('#panel h2').textContent") == HOSTILE
    assert "broken" not in tab.evaluate("document.title")
    assert not tab.evaluate("document.querySelectorAll('img').length")


@pytest.mark.slow
def test_the_tree_is_walked_by_pointer_and_keys(tab, proportions):
    edge = proportions.forecaster.trained_edges_.iloc[0]
    parents = proportions.forecaster.trained_edges_.query("child == @edge.child")["parent"]
    visit(tab, f"view=tree&model={quote(edge.child)}")
    until(tab, "document.querySelector('.node.chosen') && 1")
    tab.evaluate("document.querySelector('.node.chosen').focus()")
    press(tab, "ArrowLeft")
    assert until(tab, CHOSEN) in set(parents)
    node = proportions.data["models"]["id"].index(edge.child)
    # The tree is drawn anew around the parent before the child's place counts.
    until(tab, f"document.querySelector('.node.chosen:not([data-node=\"{node}\"])') && 1")
    box = until(
        tab,
        f"""(() => {{
        const node = document.querySelector('.node[data-node="{node}"]');
        const box = node && node.getBoundingClientRect();
        return box && JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]);
    }})()""",
    )
    x, y = json.loads(box)
    for kind in ("mousePressed", "mouseReleased"):
        tab._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert until(tab, f"{CHOSEN} === {json.dumps(edge.child)}")
    tab.evaluate("history.back()")
    assert until(tab, f"{CHOSEN} !== {json.dumps(edge.child)}")


@pytest.mark.slow
def test_asking_in_the_page_equals_fold_in(tab, proportions):
    question = {"parents": list(proportions.forecaster.trained_ids_[[2, 30]]), "relation": "merge"}
    visit(tab, "view=ask")
    for parent in question["parents"]:
        type_into(tab, "#parent", parent)
        press(tab, "Enter")
    type_into(tab, "#ask input[type=number]", "3")
    question["card"] = {"size": 3}
    # The forecast of the last state, not one of those before.
    until(tab, "document.querySelector('.answer h2')?.textContent.includes('3 billion')")
    shown = np.array(json.loads(until(tab, FORECAST)))
    assert 100 * np.abs(shown - expected(proportions.forecaster, [question])[0]).max() < 0.1
    # The address is enough to see the same again.
    fragment = tab.evaluate("location.hash.slice(1)")
    visit(tab, fragment)
    assert np.array_equal(shown, json.loads(until(tab, FORECAST)))


@pytest.mark.slow
def test_plans_are_filtered_and_lead_to_their_forecast(tab, proportions):
    visit(tab, "view=plan")
    type_into(tab, "#plan input", "img src=x")
    assert until(tab, "document.querySelectorAll('.plans tbody tr').length === 1")
    tab.evaluate("document.querySelector('.plans .link').click()")
    until(tab, FORECAST)
    parents = tab.evaluate("new URLSearchParams(location.hash.slice(1)).getAll('parent').join('|')")
    assert parents == "|".join(proportions.plans["parents"][1])


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440, 3840])
def test_views_fit_the_window_without_errors_or_requests(tab, proportions, width, dark):
    child = quote(proportions.forecaster.trained_edges_["child"].iloc[0])
    for fragment in ("", f"view=tree&model={child}", f"view=ask&parent={child}", "view=plan"):
        visit(tab, fragment, width=width, dark=dark)
        if "ask" in fragment:
            until(tab, FORECAST)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, fragment
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") != dark
        assert tab.errors == [], fragment
        assert {urlsplit(url).scheme for url in tab.requests} <= {"file", "data", "about"}
        if AXE.exists():
            tab.evaluate(AXE.read_text(encoding="utf-8"))
            tab.evaluate("axe.run().then((found) => { window.found = found.violations })")
            faults = "JSON.stringify(window.found && found.map(({id, impact}) => [id, impact]))"
            found = json.loads(until(tab, faults))
            assert not [fault for fault in found if fault[1] in ("serious", "critical")]


@pytest.mark.slow
def test_a_notebook_shows_the_page_in_a_frame(tab, proportions, tmp_path):
    shown = explorer.show(proportions.snapshot, proportions.forecaster).data
    assert 'sandbox="allow-scripts ' in shown  # which also keeps this test from looking into it
    open_frame = shown.replace(" sandbox=", " data-sandbox=")
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html>{open_frame}", encoding="utf-8")
    tab.open((tmp_path / "notebook.html").as_uri(), width=1440)
    until(tab, "frames[0].document.querySelectorAll('.family').length")
    tab.evaluate("frames[0].document.querySelector('.family').click()")
    until(tab, "frames[0].document.querySelectorAll('.node').length")
    assert tab.errors == []
    assert {urlsplit(url).scheme for url in tab.requests} <= {"file", "data", "about"}


@pytest.mark.slow
def test_the_theme_can_be_chosen(tab):
    visit(tab)
    tab.evaluate("document.querySelector('.theme').click()")
    assert until(tab, "getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert "theme=dark" in tab.evaluate("location.hash")
