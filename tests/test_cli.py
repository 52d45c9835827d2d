"""The command line: what it writes, what it says, and that bad input ends in one message."""

import errno
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import pytest
from builders import EDGES, MODELS, tiny_snapshot, tiny_tables

import lrmf
from lrmf import cli, hub
from lrmf import files as outputs
from lrmf.data.responses import MISSING, benchmark_scores, observed
from lrmf.data.snapshot import load_snapshot, save_snapshot
from lrmf.forecaster import export
from lrmf.forecaster.saved_fit import SavedFitError

COLUMNS = ["model_id", "benchmark", "score", "lower", "upper", "n_observed"]
BENCHMARKS = ["arc", "bbh", "math"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(command):
    return lambda *argv: Result(*command(*argv))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Several would only wait for each other on matrices this small."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def answers(folder):
    tiny_snapshot(folder / "answers")
    return folder / "answers"


@pytest.fixture(scope="module")
def proportions(folder):
    tiny_snapshot(folder / "proportions", binary=False)
    return folder / "proportions"


@pytest.fixture(scope="module", params=["answers", "proportions"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def saved(answers, folder):
    """A fit of `answers`."""
    assert cli.main(["fit", str(answers), "--model", str(folder / "fit.npz")]) == 0
    return folder / "fit.npz"


def start(*argv, **options):
    """Start a command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lrmf", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def assert_refused(result, *words, code=1):
    """One message, with these words, and nothing else."""
    assert result.code == code, result
    assert result.out == ""
    assert re.match(r"lrmf( \w+)?: error: ", result.err)
    assert result.err.count("\n") == 1
    for word in words:
        assert str(word) in result.err


def variant(path, tables, **changes):
    save_snapshot(path, **{**tables, **changes})
    return path


def with_new_models(path, source, new_models, edges=(), known=None):
    """The snapshot of a user who added rows to models and edges to lineage."""
    old = load_snapshot(source)
    rows = np.full((len(new_models), old.n_items), MISSING, np.uint8)
    for row, answers in enumerate(known or []):
        rows[row, : len(answers)] = answers
    return variant(
        path,
        {"name": "mine", "source": "simulated"},
        models=pd.concat([old.models, pd.DataFrame({"model_id": new_models})], ignore_index=True),
        items=old.items,
        lineage=pd.concat(
            [old.lineage, pd.DataFrame(list(edges), columns=["parent", "child", "relation"])],
            ignore_index=True,
        ),
        responses=np.vstack([old.responses, rows]),
    )


def read(path):
    return pd.read_csv(path).pivot(index="model_id", columns="benchmark")


# The program itself.


def test_help_lists_the_commands_and_their_defaults(run):
    result = run("--help")
    assert result.code == 0 and result.err == ""
    for name in ("simulate", "validate", "fit", "predict"):
        assert re.search(rf"^ +{name} ", result.out, re.MULTILINE)
        assert run(name, "--help").code == 0
    assert "default: 2934" in run("simulate", "--help").out
    text = "".join(run("fit", "--help").out.split())
    assert "default:(16)" in text and "--cards/--no-cards" in text and "default:(cards)" in text


def test_version_is_the_installed_one(run):
    assert run("--version").out == f"lrmf {metadata.version('lrmf')}\n"


def test_help_needs_none_of_the_heavy_packages():
    code = "import sys, lrmf.cli; lrmf.cli.main(['fit', '--help']); print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    heavy = {"numpy", "pandas", "scipy", "sklearn", "numba", "matplotlib", "networkx"}
    assert "click" in modules and not heavy & set(modules)


def test_package_still_offers_its_names():
    for name in lrmf.__all__:
        assert getattr(lrmf, name).__name__ == name
        assert name in dir(lrmf)
    with pytest.raises(AttributeError, match="nothing"):
        lrmf.nothing  # noqa: B018


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], ["Missing command"]),
        (["crowl"], ["'crowl'", "'crawl'"]),
        (["validate"], ["SNAPSHOT"]),
        (["fit", "s"], ["--model"]),
        (["fit", "s", "--model"], ["--model", "lrmf fit"]),
        (["predict", "s"], ["--out"]),
        (["fit", "s", "--model", "m", "--rank", "0"], ["--rank", "0", "1<=x<=1024"]),
        (["fit", "s", "--model", "m", "--rank", "2.5"], ["--rank", "integer", "'2.5'"]),
        (["fit", "s", "--model", "m", "--rank", "many"], ["--rank", "'many'"]),
        (["fit", "s", "--model", "m", "--lineage-strength", "-1"], ["--lineage-strength", "-1.0"]),
        (["fit", "s", "--model", "m", "--lineage-strength", "nan"], ["'nan'"]),
        (
            ["predict", "s", "--out", "o", "--lineage-strength", "inf"],
            ["--lineage-strength", "inf"],
        ),
        (["predict", "s", "--out", "o", "--seed", "-1"], ["--seed", "-1"]),
        (["predict", "s", "--out", "o", "--lineage", "3"], ["--lineage"]),  # no guessing
        (["predict", "s", "--out", "o", "--model", "m", "--rank", "3"], ["--rank", "--model"]),
        (["simulate", "s", "--models", "few"], ["--models", "'few'"]),
        (["simulate", "s", "--models", "3"], ["--models", "30", "got 3"]),
        (["simulate", "s", "--items", "0"], ["--items", "got 0"]),
        (["simulate", "s", "--seed", "-1"], ["--seed", "got -1"]),
    ],
)
def test_misuse_is_refused(run, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*argv), *words, code=2)
    assert not list(tmp_path.iterdir())


def test_one_option_takes_several_benchmarks(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("lrmf.hub.estimate", lambda **options: asked.append(options) or "cheap")
    for argv in (["bbh", "math", "--instances"], ["bbh", "--benchmarks", "math", "--instances"]):
        assert run("crawl", tmp_path / "hub", "--dry-run", "--benchmarks", *argv).out == "cheap\n"
    assert [options["benchmarks"] for options in asked] == [["bbh", "math"]] * 2
    assert all(options["instances"] for options in asked)
    result = run("crawl", tmp_path / "hub", "--benchmarks", "bbh", "arc")
    assert_refused(result, "--benchmarks", "'arc'", "bbh", code=2)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, ["No such file"]),
        (b"# mine\n\n", ["holds no id"]),
        (b"\xff\xfe\x00", ["is not a text file"]),
    ],
)
def test_lists_of_models_that_cannot_be_used(run, tmp_path, content, words):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    result = run("crawl", tmp_path / "hub", "--models-from", tmp_path / "ids")
    assert_refused(result, "--models-from", tmp_path / "ids", *words, code=2)
    assert not (tmp_path / "hub").exists()


# simulate and validate


def test_simulate_writes_a_snapshot_that_validates(run, tmp_path):
    argv = ("--models", 40, "--items", 30, "--seed", 5)
    assert run("simulate", tmp_path / "a", *argv) == (0, "", "")
    assert run("simulate", tmp_path / "b", *argv).code == 0
    snapshot = load_snapshot(tmp_path / "a")
    assert snapshot.responses.shape == (40, 30)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    result = run("validate", tmp_path / "a")
    assert result.code == 0 and result.err == ""


def test_simulate_replaces_nothing(run, answers):
    before = (answers / "snapshot.json").read_bytes()
    assert_refused(run("simulate", answers, "--models", 30, "--items", 6), answers, "exists")
    assert (answers / "snapshot.json").read_bytes() == before


def test_validate_summarises(run, either):
    result = run("validate", either)
    assert result.code == 0 and result.err == ""
    text = " ".join(result.out.split())
    snapshot = load_snapshot(either)
    for said in (
        "tiny (simulated)",
        f"models {len(MODELS)} 12 of them evaluated",
        f"items {snapshot.n_items}",
        "answers, 3 benchmarks" if snapshot.is_binary else "proportions, 3 benchmarks",
        f"observed {observed(snapshot.responses).mean():.1%}",
        f"edges {len(EDGES)} 6 finetune, 4 merge, 1 adapter, 1 quantized",
        "dropped 0 none",
        "with parents 83.3% 10 models; 2 of their relatives",
        "families 2 7 members in the largest; 2 models without relatives",
    ):
        assert said in text
    rows = [line.split()[0] for line in result.out.splitlines()[-3:]]
    assert rows == BENCHMARKS
    assert len({len(line) for line in result.out.splitlines()[-4:]}) == 1


def test_validate_reports_what_the_lineage_drops(run, tmp_path):
    edges = [
        *EDGES,
        ("gpt2", "gpt2", "merge"),
        EDGES[0],
        ("user/alpha-merge", "base/alpha", "merge"),
    ]
    lineage = pd.DataFrame(edges, columns=["parent", "child", "relation"])
    result = run("validate", variant(tmp_path / "s", tiny_tables(), lineage=lineage))
    assert result.code == 0
    for said in ("1 self-loops", "1 duplicates", "1 closing a cycle"):
        assert said in result.out


def test_validate_lists_every_problem(run, tmp_path):
    tiny_snapshot(tmp_path / "s")
    (tmp_path / "s" / "lineage.parquet").unlink()
    (tmp_path / "s" / "responses.npy").write_bytes(b"nothing")
    result = run("validate", tmp_path / "s")
    assert result.code == 1 and result.out == ""
    assert result.err.startswith(f"lrmf: error: {tmp_path / 's'}: ")
    assert "lineage.parquet: is missing" in result.err
    assert "responses.npy: " in result.err


# fit and predict


def test_predict_answers_for_every_model_and_benchmark(run, either, tmp_path):
    assert run("predict", either, "--out", tmp_path / "p.csv") == (0, "", "")
    frame = pd.read_csv(tmp_path / "p.csv")
    snapshot = load_snapshot(either)
    assert list(frame) == COLUMNS
    expected = [(m, b) for m in snapshot.models["model_id"] for b in BENCHMARKS]
    assert list(zip(frame["model_id"], frame["benchmark"], strict=True)) == expected
    assert frame["score"].between(frame["lower"], frame["upper"]).all()
    assert frame[["lower", "upper"]].stack().between(0, 1).all()
    seen = pd.DataFrame(observed(snapshot.responses)).T.groupby(snapshot.items["benchmark"]).sum()
    assert (frame["n_observed"] == seen.T[BENCHMARKS].to_numpy().ravel()).all()
    assert re.search(r"^lab/alpha-chat,arc,0\.\d{6},0\.\d{6},\d\.\d{6},\d+$", *lines(tmp_path))


def lines(folder):
    return (folder / "p.csv").read_text(), re.MULTILINE


def test_fully_observed_scores_are_the_actual_ones(run, either, tmp_path):
    run("predict", either, "--out", tmp_path / "p.csv")
    frame = pd.read_csv(tmp_path / "p.csv")
    snapshot = load_snapshot(either)
    n_items = frame["benchmark"].map(snapshot.items["benchmark"].value_counts())
    complete = frame["n_observed"] == n_items
    assert complete.any() and not complete.all()
    actual = benchmark_scores(snapshot.responses, snapshot.items).to_numpy().ravel()
    chosen = frame[complete]
    for column in ("score", "lower", "upper"):
        np.testing.assert_allclose(chosen[column], actual[complete], atol=1e-6)
    assert (frame["upper"] > frame["lower"])[~complete].all()


def test_item_probabilities_are_the_estimator_s(run, either, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_BLOCK", 5)
    matrix = tmp_path / "probabilities.npy"
    argv = ("--out", tmp_path / "p.csv", "--item-probabilities", matrix)
    assert run("predict", either, *argv).code == 0
    snapshot = load_snapshot(either)
    probabilities = np.load(matrix, allow_pickle=False)
    assert probabilities.dtype == np.float32 and probabilities.shape == snapshot.responses.shape
    lineage = lrmf.Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    model = lrmf.Forecaster()
    model.fit(snapshot.responses, lineage, items=snapshot.items, models=snapshot.models)
    np.testing.assert_allclose(probabilities, model.predict_proba(), atol=1e-6)
    scores = pd.read_csv(tmp_path / "p.csv")["score"]
    np.testing.assert_allclose(scores, model.predict().scores["score"], atol=1e-6)


def test_repeats_are_identical(run, either, tmp_path):
    for copy in ("a", "b"):
        place = tmp_path / copy
        place.mkdir()
        run("fit", either, "--model", place / "m.npz")
        run("predict", either, "--out", place / "p.csv", "--item-probabilities", place / "p.npy")
        run("predict", either, "--out", place / "q.csv", "--model", place / "m.npz")
    files = sorted((tmp_path / "a").iterdir())
    assert [file.name for file in files] == ["m.npz", "p.csv", "p.npy", "q.csv"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_options_reach_the_fit(run, either, tmp_path):
    argv = ["--rank", 2, "--lineage-strength", 0.5, "--no-cards", "--seed", 7]
    stats = tmp_path / "stats.json"
    assert run("fit", either, "--model", tmp_path / "m.npz", "--stats", stats, *argv).code == 0
    content = json.loads(stats.read_text())
    parameters = content["parameters"]
    assert parameters["rank"] == 2 and parameters["lineage_strength"] == 0.5
    assert parameters["seed"] == 7
    assert content["n_models"] == 12 and content["n_edges"] == 12 and content["n_nodes"] == 14
    assert content["cg_iterations"]
    model = lrmf.Forecaster.load(tmp_path / "m.npz")
    assert model.use_cards is False and not model.reads_cards
    used = model.model_.get_params()
    assert all(used[name] == parameters[name] for name in ("rank", "lineage_strength", "seed"))
    run("predict", either, "--out", tmp_path / "a.csv", *argv)
    run("predict", either, "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() != (tmp_path / "b.csv").read_bytes()


def test_saved_fit_predicts_as_a_fresh_one(run, either, tmp_path):
    run("fit", either, "--model", tmp_path / "m.npz")
    run("predict", either, "--out", tmp_path / "fresh.csv")
    assert run("predict", either, "--out", tmp_path / "p.csv", "--model", tmp_path / "m.npz") == (
        (0, "", "")
    )
    fresh, again = pd.read_csv(tmp_path / "fresh.csv"), pd.read_csv(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(fresh, again, atol=2e-6, rtol=0)


@pytest.mark.parametrize("with_model", [False, True])
def test_new_models_are_forecast_from_their_parents(run, answers, saved, tmp_path, with_model):
    edges = [
        ("lab/alpha-chat", "me/alpha", "merge"),
        ("user/alpha-chat-dpo", "me/alpha", "merge"),
        ("user/beta-merge", "me/beta", "finetune"),
    ]
    mine = with_new_models(tmp_path / "mine", answers, ["me/alpha", "me/beta"], edges)
    model = ("--model", saved) if with_model else ()
    assert run("predict", mine, "--out", tmp_path / "p.csv", *model) == (0, "", "")
    forecast = read(tmp_path / "p.csv")
    assert (forecast["n_observed"].loc[["me/alpha", "me/beta"]] == 0).all(axis=None)
    # The alpha family was drawn stronger than the beta family.
    score = forecast["score"]
    parents = {"me/alpha": ["lab/alpha-chat", "user/alpha-chat-dpo"], "me/beta": "user/beta-merge"}
    for child, own in parents.items():
        average = score.loc[own].to_numpy().mean()
        assert abs(score.loc[child].mean() - average) < 0.15
    assert score.loc["me/alpha"].mean() > score.loc["me/beta"].mean()
    assert (forecast["upper"] - forecast["lower"]).loc["me/alpha"].between(0.05, 0.95).all()


def test_few_answers_move_the_forecast(run, answers, saved, tmp_path):
    parent = [("lab/alpha-chat", child, "finetune") for child in ("me/good", "me/bad")]
    known = [np.ones(8), np.zeros(8)]  # of the 14 items of arc
    mine = with_new_models(tmp_path / "mine", answers, ["me/good", "me/bad"], parent, known)
    assert run("predict", mine, "--out", tmp_path / "p.csv", "--model", saved).code == 0
    forecast = read(tmp_path / "p.csv")
    assert forecast["n_observed"].loc["me/good"].to_list() == [8, 0, 0]
    score = forecast["score"]
    assert score.loc["me/good", "arc"] > 8 / 14 and score.loc["me/bad", "arc"] < 6 / 14
    assert score.loc["me/good", "bbh"] > score.loc["me/bad", "bbh"]


def test_models_that_nothing_is_known_of_are_named(run, answers, proportions, tmp_path):
    names = [f"me/new{number}" for number in range(5)]
    edges = [("lab/alpha-chat", "me/new0", "finetune"), ("me/new1", "me/new2", "finetune")]
    mine = with_new_models(tmp_path / "mine", answers, names, edges)
    result = run("predict", mine, "--out", tmp_path / "p.csv")
    assert result.code == 0 and result.err.count("\n") == 1
    assert "4 of 17 models" in result.err and "cards and names" in result.err
    assert "me/new1, me/new2, me/new3, ..." in result.err and "me/new0" not in result.err
    score = read(tmp_path / "p.csv")["score"]
    np.testing.assert_allclose(score.loc["me/new3"], score.loc["me/new4"], atol=0.02)

    tables = tiny_tables(binary=False)
    tables["responses"][10] = np.nan  # solo/gamma
    argv = ("predict", variant(tmp_path / "s", tables), "--out", tmp_path / "q.csv", "--no-cards")
    result = run(*argv)
    assert "1 of 12 models" in result.err and "names: solo/gamma\n" in result.err
    assert "cards" not in result.err


def test_a_parent_misspelt_is_named(run, answers, saved, tmp_path):
    edges = [("lab/alpha-caht", "me/new", "finetune"), ("far/away", "me/other", "finetune")]
    mine = with_new_models(tmp_path / "mine", answers, ["me/new", "me/other"], edges)
    result = run("predict", mine, "--model", saved, "--out", tmp_path / "p.csv")
    assert (
        "parent lab/alpha-caht of me/new is not known; did you mean lab/alpha-chat?" in result.err
    )
    assert "far/away" not in result.err


def test_no_lineage_works_and_is_said(run, tmp_path):
    tables = tiny_tables()
    empty = variant(tmp_path / "s", tables, lineage=tables["lineage"].iloc[:0])
    assert "no model has a known relative" in run("validate", empty).out
    result = run("predict", empty, "--out", tmp_path / "p.csv")
    assert result.code == 0 and result.err.count("\n") == 1
    assert "no lineage" in result.err
    assert len(pd.read_csv(tmp_path / "p.csv")) == 36


@pytest.mark.parametrize("binary", [True, False])
def test_a_single_model_is_enough(run, tmp_path, binary):
    tables = tiny_tables(binary=binary)
    one = {"models": tables["models"].iloc[:1], "responses": tables["responses"][:1]}
    path = variant(tmp_path / "s", tables, **one)
    assert run("validate", path).code == 0
    assert run("predict", path, "--out", tmp_path / "p.csv").code == 0
    frame = pd.read_csv(tmp_path / "p.csv")
    assert len(frame) == 3 and frame.notna().all(axis=None)


def test_outputs_replace_older_ones_and_leave_nothing_else(run, answers, tmp_path):
    (tmp_path / "p.csv").write_text("old")
    (tmp_path / "link.npy").symlink_to("target.npy")
    argv = ("--out", tmp_path / "p.csv", "--item-probabilities", tmp_path / "link.npy")
    assert run("predict", answers, *argv).code == 0
    assert (tmp_path / "p.csv").read_text().startswith("model_id,")
    assert (tmp_path / "link.npy").is_symlink() and (tmp_path / "target.npy").is_file()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(run, answers, tmp_path, monkeypatch):
    fit = lrmf.LRMF.fit

    def doubtful_fit(self, *args, **options):
        warnings.warn("not settled; raise max_sweeps", stacklevel=1)
        return fit(self, *args, **options)

    monkeypatch.setattr(lrmf.LRMF, "fit", doubtful_fit)
    result = run("predict", answers, "--out", tmp_path / "p.csv")
    assert result == (0, "", "lrmf: warning: not settled; raise max_sweeps\n")


# Bad input


@pytest.fixture
def no_long_work(monkeypatch):
    """Fail if anything is computed."""
    for name in ("fit", "adapt"):
        monkeypatch.setattr(lrmf.LRMF, name, lambda *_, **__: pytest.fail("began the long work"))


@pytest.mark.parametrize("name", ["validate", "fit", "predict"])
def test_missing_snapshot(run, tmp_path, no_long_work, name):
    where = {"validate": [], "fit": ["--model"], "predict": ["--out"]}[name]
    where += [tmp_path / "output"] * len(where)
    result = run(name, tmp_path / "nowhere", *where)
    assert_refused(result, tmp_path / "nowhere", "does not exist")
    (tmp_path / "nowhere").write_text("a file")
    assert_refused(run(name, tmp_path / "nowhere", *where), "is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["nowhere"]


def test_nothing_observed(run, answers, tmp_path, no_long_work):
    tiny_snapshot(tmp_path / "s")
    file = tmp_path / "s" / "responses.npy"
    np.save(file, np.full_like(np.load(file), MISSING))
    result = run("predict", tmp_path / "s", "--out", tmp_path / "p.csv")
    assert result.code == 1 and "every value is missing" in result.err
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("option", ["--out", "--item-probabilities", "--model", "--stats"])
@pytest.mark.parametrize(
    "place, words",
    [
        ("folder", ["is a folder"]),
        ("missing/file", ["there is no folder", "missing"]),
        ("afile/file", ["afile"]),
        ("x" * 300, ["cannot be written"]),
        ("pipe", ["not a regular file"]),
        ("/proc/file", ["/proc/file", "cannot be written"]),
    ],
)
def test_unwritable_places_are_found_first(
    run, answers, tmp_path, no_long_work, option, place, words
):
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    (tmp_path / "folder").mkdir()
    (tmp_path / "afile").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    name = "predict" if option in ("--out", "--item-probabilities") else "fit"
    argv = {"--out" if name == "predict" else "--model": tmp_path / "fine"}
    argv[option] = tmp_path / place
    assert_refused(run(name, answers, *sum(argv.items(), ())), *words)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(run, answers, tmp_path, no_long_work):
    tmp_path.chmod(0o500)
    result = run("predict", answers, "--out", tmp_path / "p.csv")
    assert_refused(result, tmp_path / "p.csv", "Permission denied")


def test_no_output_replaces_an_input_or_another(run, answers, saved, tmp_path, no_long_work):
    before = saved.read_bytes(), (answers / "responses.npy").read_bytes()
    same = tmp_path / "same"
    for argv in (
        ["predict", answers, "--out", same, "--item-probabilities", same],
        ["predict", answers, "--out", saved, "--model", saved],
        ["predict", answers, "--out", tmp_path, "--item-probabilities", answers / "responses.npy"],
        ["fit", answers, "--model", same, "--stats", tmp_path / "." / "same"],
        ["fit", answers, "--model", answers / ".." / "answers" / "models.parquet"],
    ):
        argv = [same.with_name("out") if argument == tmp_path else argument for argument in argv]
        assert_refused(run(*argv), "would replace", code=2)
    assert before == (saved.read_bytes(), (answers / "responses.npy").read_bytes())
    assert not list(tmp_path.iterdir())


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def write_foreign(kind, path, saved):
    content = dict(np.load(saved))
    if kind == "missing":
        return
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("model")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "truncated":
        path.write_bytes(saved.read_bytes()[:-200])
    elif kind == "plain array":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        changes = {
            "objects": {"prior_centre": np.array([Bomb()], dtype=object)},
            "other keys": None,
            "other shapes": {"prior_centre": content["prior_centre"][:-1]},
            "not finite": {"prior_centre": content["prior_centre"] * np.nan},
            "not numbers": {"prior_centre": content["model_id"]},
            "other header": {"header": np.array('{"depth": 3}')},
            "no header": {"header": np.array("[]")},
        }[kind]
        content = {"weights": np.ones(3)} if changes is None else content | changes
        np.savez(path, **content)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "text",
        "pickle",
        "truncated",
        "plain array",
        "objects",
        "other keys",
        "other shapes",
        "not finite",
        "not numbers",
        "other header",
        "no header",
    ],
)
def test_foreign_model(run, answers, saved, tmp_path, kind):
    path = tmp_path / "model.npz"
    write_foreign(kind, path, saved)
    result = run("predict", answers, "--model", path, "--out", tmp_path / "p.csv")
    assert_refused(result, path, "check the path" if kind == "missing" else "fit it anew")
    assert {file.name for file in tmp_path.iterdir()} <= {"model.npz"}


def test_damaged_models_are_refused_or_harmless(saved, tmp_path):
    rng = np.random.default_rng(0)
    content = np.frombuffer(saved.read_bytes(), np.uint8)
    path = tmp_path / "model.npz"
    n_refused = 0
    for _ in range(100):
        damaged = content.copy()
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged[: rng.integers(len(content))] if rng.random() < 0.2 else damaged)
        try:
            lrmf.Forecaster.load(path)
        except SavedFitError as error:
            n_refused += 1
            assert str(path) in str(error)
    assert n_refused > 50


def test_model_of_other_items(run, answers, proportions, saved, tmp_path):
    tables = tiny_tables()
    renamed = tables["items"].assign(item_id=lambda t: t["item_id"].replace("arc/arc/3", "arc/x"))
    other = variant(tmp_path / "other", tables, items=renamed)
    fewer = variant(
        tmp_path / "fewer", tables, items=renamed[:3], responses=tables["responses"][:, :3]
    )
    for path, words in (
        (other, ["item 3", "'arc/arc/3'", "'arc/x'"]),
        (fewer, ["item 3", "'arc/arc/3'", "None"]),
        (proportions, ["item 0", "'arc/arc/0'", "'arc/arc'"]),
    ):
        result = run("predict", path, "--model", saved, "--out", tmp_path / "p.csv")
        assert_refused(result, saved, "other items", *words)
    assert not (tmp_path / "p.csv").exists()


def test_model_of_the_other_kind_of_responses(run, answers, saved, tmp_path):
    tables = tiny_tables()
    responses = np.where(observed(tables["responses"]), tables["responses"], np.nan)
    path = variant(tmp_path / "s", tables, responses=responses.astype(np.float32))
    result = run("predict", path, "--model", saved, "--out", tmp_path / "p.csv")
    assert_refused(result, "answers", "proportions")


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_full_disk(run, answers, tmp_path, monkeypatch, name):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.os, name, no_space)
    argv = ("--out", tmp_path / "p.csv", "--item-probabilities", tmp_path / "p.npy")
    assert_refused(run("predict", answers, *argv), tmp_path, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_matrix_that_will_not_fit_on_the_disk(run, answers, tmp_path, monkeypatch, no_long_work):
    usage = outputs.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: usage)
    argv = ("--out", tmp_path / "p.csv", "--item-probabilities", tmp_path / "p.npy")
    assert_refused(run("predict", answers, *argv), tmp_path / "p.npy", "GB left")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_writes_that_fail_halfway_name_the_file(answers, saved, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    argv = ("--out", tmp_path / "p.csv", "--item-probabilities", tmp_path / "p.npy")
    process = start("predict", answers, "--model", saved, *argv, preexec_fn=small_files)
    out, err = process.communicate()
    assert_refused(Result(process.returncode, out, err), tmp_path / "p.npy", "too large")
    assert not list(tmp_path.iterdir())


def test_out_of_memory(run, answers, tmp_path, monkeypatch):
    def too_much(*_, **__):
        raise MemoryError

    monkeypatch.setattr(lrmf.LRMF, "fit", too_much)
    assert_refused(run("predict", answers, "--out", tmp_path / "p.csv"), "out of memory")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "argv"),
    [
        ("lrmf.data.snapshot._read_table", ["validate", "{answers}"]),
        ("numpy.load", ["ask", "--model", "{saved}", "--name", "org/new"]),
        ("lrmf.importers.lm_eval.load_json", ["import", "lm-eval", "{results}", "--out", "{out}"]),
    ],
)
def test_files_are_not_blamed_for_too_little_memory(
    run, answers, saved, tmp_path, monkeypatch, where, argv
):
    def too_much(*_, **__):
        raise MemoryError

    (tmp_path / "results_2025-01-01T10-00-00.000000.json").touch()
    places = {"answers": answers, "saved": saved, "results": tmp_path, "out": tmp_path / "out"}
    monkeypatch.setattr(where, too_much)
    assert_refused(run(*(argument.format(**places) for argument in argv)), "out of memory")


def test_a_fit_is_not_called_damaged_for_an_error_of_the_program(saved, monkeypatch):
    def wrong(*_, **__):
        raise AttributeError("no such name")

    monkeypatch.setattr("lrmf.forecaster.saved_fit.Describer", wrong)
    with pytest.raises(AttributeError, match="no such name"):
        lrmf.Forecaster.load(saved)


# Processes of their own


@pytest.fixture(scope="module")
def large(folder):
    """Takes many seconds to fit."""
    rng = np.random.default_rng(0)
    n_models, n_items = 3000, 3000
    save_snapshot(
        folder / "large",
        models=pd.DataFrame({"model_id": [f"org/{number}" for number in range(n_models)]}),
        items=pd.DataFrame({"item_id": [f"item{number}" for number in range(n_items)]}).assign(
            benchmark="all", subtask="all", n_trials=1
        ),
        lineage=pd.DataFrame({"parent": [], "child": [], "relation": []}, dtype=str),
        responses=rng.integers(0, 2, (n_models, n_items), dtype=np.uint8),
        name="large",
        source="simulated",
    )
    return folder / "large"


@pytest.mark.slow
@pytest.mark.parametrize(
    "delay, number", [(0, signal.SIGINT), (0.7, signal.SIGTERM), (3, signal.SIGINT)]
)
def test_interruption_leaves_nothing(large, tmp_path, delay, number):
    # A shell's background jobs ignore SIGINT, and so would the process that they start.
    process = start(
        *("predict", large, "--rank", 64, "--out", tmp_path / "p.csv"),
        *("--item-probabilities", tmp_path / "p.npy"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "lrmf: error: interrupted, nothing was written\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv", [["--help"], ["validate", "{answers}"]])
def test_reader_that_stops_reading(answers, argv):
    process = start(*(argument.format(answers=answers) for argument in argv))
    process.stdout.close()
    with process.stderr as messages:
        assert messages.read() == ""
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_that_is_full(answers):
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "lrmf", "validate", answers]
        result = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert_refused(Result(result.returncode, "", result.stderr), "No space left")


def test_standard_output_is_not_blamed_for_the_error_of_a_command(run, tmp_path, monkeypatch):
    def no_room(**_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(hub, "estimate", no_room)
    result = run("crawl", tmp_path / "out", "--dry-run")
    assert_refused(result, "No usable temporary directory")
    assert "standard output" not in result.err


@pytest.mark.slow
def test_names_that_the_terminal_lacks(tmp_path):
    tables = tiny_tables()
    items = tables["items"].assign(benchmark=lambda t: t["benchmark"].replace("arc", "C-Eval 中文"))
    path = variant(tmp_path / "s", tables, items=items)
    process = start("validate", path, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "C-Eval" in out


@pytest.mark.slow
def test_closed_standard_error(answers, tmp_path):
    line = '"$0" -m lrmf "$@" 2>&-'
    for argv, code in ((["validate", tmp_path], 1), (["simulate", "s", "--models", "3"], 2)):
        argv = ["sh", "-c", line, sys.executable, *map(str, argv)]
        result = subprocess.run(argv, capture_output=True, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (code, b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_installed_program(answers, run, tmp_path):
    program = Path(sys.executable).with_name("lrmf")
    if not program.exists():
        pytest.skip("lrmf is not installed beside this Python")
    argv = [program, "predict", answers, "--out", tmp_path / "p.csv"]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    run("predict", answers, "--out", tmp_path / "q.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "q.csv").read_bytes()


@pytest.mark.slow
def test_real_snapshot(run, real_data, tmp_path):
    path = real_data / "openllm-v2"
    assert run("predict", path, "--out", tmp_path / "p.csv") == (0, "", "")
    snapshot = load_snapshot(path)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert len(frame) == snapshot.n_models * len(snapshot.benchmarks)
    actual = benchmark_scores(snapshot.responses, snapshot.items).to_numpy().ravel()
    np.testing.assert_allclose(frame["score"], actual, atol=1e-6)
