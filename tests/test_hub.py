"""Whole crawls against a local Hub: they find the truth, whatever happens on the way."""

import errno
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hub_server import TABLE, TABLE_PATH, serve, sha
from hub_world import World, client, edges_of, make_world, table_row
from test_hub_cards import WALL

from lrmf import cli, files
from lrmf.data.snapshot import load_snapshot
from lrmf.hub import STATUS_FILE, Client, CrawlError, ancestry, crawl, estimate
from lrmf.hub.edges import Claim, claimed_bases
from lrmf.hub.leaderboard import BENCHMARKS, one_evaluation_each, read_table

FAULTS = ("429", "500", "502", "503", "reset", "truncated", "malformed", "html", "slow")
TABLES = ("models.parquet", "items.parquet", "lineage.parquet", "responses.npy")
ODD_FIELDS = [
    *[("tags", value) for value in (None, 7, "base_model:org/b", {}, [1, None, ["base_model:x"]])],
    *[("siblings", value) for value in (None, 3, ["README.md"], [{"rfilename": 7}, None])],
    *[("baseModels", value) for value in (None, 3, [], {"models": 7}, {"models": [{"id": None}]})],
    *[("config", value) for value in (None, [], {"architectures": 7}, {"architectures": []})],
    *[("safetensors", value) for value in (None, 7, {"total": "many"}, {"total": -1})],
    *[("likes", value) for value in (None, "few", 10**30)],
    *[("createdAt", value) for value in (None, 7, "yesterday")],
    *[("sha", value) for value in (None, 7)],
    *[("gated", value) for value in (None, "auto", 7)],
    *[("library_name", value) for value in (None, 7, ["peft"])],
    ("lastModified", {}),
]
TOKEN = "hf_" + "s3cr3t" * 5


pytestmark = pytest.mark.usefixtures("anonymous")


def statuses_in(out):
    status = pd.read_parquet(out / STATUS_FILE)
    return status[status["kind"] == "model"].set_index("id")


def tables_in(out):
    return {name: (out / name).read_bytes() for name in TABLES}


def assert_true(out, snapshot, world):
    assert edges_of(snapshot) == world.edges
    assert list(snapshot.models["model_id"]) == sorted(world.scores)
    scores = np.array([world.scores[name] for name in sorted(world.scores)], dtype=np.float32)
    np.testing.assert_array_equal(snapshot.responses, scores)
    assert list(snapshot.items["n_trials"]) == [541, 5761, 1324, 1192, 756, 12032]
    found = statuses_in(out)["status"].to_dict()
    assert found == {name: world.statuses[name] for name in found}
    assert set(found) >= set(world.scores)
    counts = snapshot.provenance["statuses"]
    assert sum(counts.values()) == len(found) and counts["error"] == 0


def test_a_clean_crawl_finds_the_truth(tmp_path):
    world = make_world(150)
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    assert_true(tmp_path / "out", snapshot, world)
    assert served.record.most_at_once <= 8
    found = statuses_in(tmp_path / "out")
    n_redirected = (found["status"] == "renamed").sum()
    assert len(served.asked("/api/models/")) == len(found) + n_redirected
    assert set(found["status"]) == {"ok", "renamed", "gated", "missing"}
    renamed = found[found["status"] == "renamed"]["resolved_id"]
    assert renamed.to_dict() == {old: world.hub.renamed[old] for old in renamed.index}
    assert found["time"].notna().all()
    assert (found["sha"].notna() == (found["status"] != "missing")).all()
    assert snapshot.lineage["evidence"].str.len().gt(0).all()
    assert snapshot.provenance["revisions"] == {TABLE: world.hub.datasets[TABLE]["sha"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crawl_over_a_bad_line_finds_the_truth(tmp_path, seed):
    world = make_world(80, seed=seed)
    hub = world.hub
    hub.faults, hub.fault_kinds, hub.seed = 0.35, FAULTS, seed
    with serve(hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    assert_true(tmp_path / "out", snapshot, world)
    assert set(served.record.n_faults) == set(FAULTS)


def start_crawl(served, out, *options, **popen):
    environment = os.environ | {"HF_ENDPOINT": served.url, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lrmf", "crawl", str(out), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **popen)


def wait_for_requests(served, process, n_requests):
    deadline = time.monotonic() + 60
    while len(served.record.requests) < n_requests and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_ten_kills_later_the_snapshot_is_the_same(tmp_path):
    world, rng = make_world(150, seed=3), random.Random(3)
    with serve(world.hub) as served:
        crawl(tmp_path / "undisturbed", client=client(served))
        n_requests = len(served.record.requests)
        served.record.requests.clear()
        for moment in sorted(rng.sample(range(1, n_requests), 10)):
            world.hub.hold_from = moment
            process = start_crawl(served, tmp_path / "out", "--resume")
            wait_for_requests(served, process, moment)
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
            process.communicate()
            assert not (tmp_path / "out" / "snapshot.json").exists()
        world.hub.hold_from = None
        process = start_crawl(served, tmp_path / "out", "--resume")
        assert process.wait() == 0, process.communicate()
        process.communicate()
    assert tables_in(tmp_path / "out") == tables_in(tmp_path / "undisturbed")
    # Only what was under way in a killed crawl was asked again.
    assert len(served.record.requests) <= n_requests + 10 * 8


def test_interrupted_by_the_user(tmp_path):
    world = make_world(60)
    world.hub.hold_from = 20
    with serve(world.hub) as served:
        # A shell's background jobs ignore SIGINT, and so would the process that they start.
        process = start_crawl(
            served,
            tmp_path / "out",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_for_requests(served, process, 20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert err == "lrmf: error: interrupted; what was fetched is kept: continue with --resume\n"
        world.hub.hold_from = None
        snapshot = crawl(tmp_path / "out", client=client(served), resume=True)
    assert_true(tmp_path / "out", snapshot, world)


def test_a_full_disk(tmp_path):
    world = make_world(60)

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    with serve(world.hub) as served:
        process = start_crawl(served, tmp_path / "out", preexec_fn=small_files)
        _, err = process.communicate()
        assert process.returncode == 1
        assert err.count("\n") == 1 and "make room" in err and "continue with --resume" in err
        assert not (tmp_path / "out" / "snapshot.json").exists()
        snapshot = crawl(tmp_path / "out", client=client(served), resume=True)
    assert_true(tmp_path / "out", snapshot, world)


def test_a_torn_log_is_mended(tmp_path):
    world = make_world(30)
    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=client(served))
        before, log = tables_in(tmp_path / "out"), tmp_path / "out" / ".crawl" / "log.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        lines[10] = b"\x00garbage\n"
        lines[12] = b'{"kind": "model", "key": "x"}\n'
        log.write_bytes(b"".join(lines[:-5]) + lines[-5][:30])
        served.record.requests.clear()
        crawl(tmp_path / "out", client=client(served), resume=True)
    assert tables_in(tmp_path / "out") == before
    assert 0 < len(served.record.requests) < 15


def test_failing_while_the_snapshot_is_put_in_place(tmp_path, monkeypatch):
    world = make_world(20)

    def failing(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=client(served))
        before = tables_in(tmp_path / "out")
        with monkeypatch.context() as patched:
            patched.setattr(files, "_swap_in", failing)
            with pytest.raises(CrawlError, match="continue with --resume"):
                crawl(tmp_path / "out", client=client(served), resume=True)
        assert load_snapshot(tmp_path / "out").n_models == 20
        served.record.requests.clear()
        crawl(tmp_path / "out", client=client(served), resume=True)
    assert tables_in(tmp_path / "out") == before
    assert served.record.requests == []


def test_a_second_crawl_fetches_what_changed(tmp_path):
    world = make_world(120)
    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=client(served))
        served.record.requests.clear()
        first = edges_of(crawl(tmp_path / "out", client=client(served)))
        asked = served.asked("/api/models/")
        assert first == world.edges and not served.asked("/datasets/")
        assert len(asked) <= 30, "ancestors that are missing or their author's only model"

        changed = world.hub.models["user5/Model-5"]
        changed["sha"], changed["lastModified"] = sha("new"), "2024-07-01T12:00:00.000Z"
        changed["cardData"] = {"base_model": "base1/Root-1"}
        changed["baseModels"], changed["tags"] = None, []
        world.hub.models["user6/Model-46"] = {"id": 7}
        served.record.requests.clear()
        snapshot = crawl(tmp_path / "out", client=client(served))
    again = {path.split("?")[0] for path in served.asked("/api/models/") if path not in asked}
    again = {path.replace("/old-", "/") for path in again}
    assert again == {"/api/models/user5/Model-5", "/api/models/user6/Model-46"}
    kept = {edge for edge in world.edges if edge[1] not in ("user5/Model-5", "user6/Model-46")}
    expected = kept | {("base1/Root-1", "user5/Model-5", "finetune")}
    assert edges_of(snapshot) == expected
    assert snapshot.provenance["statuses"]["error"] == 1


def test_every_kind_of_repository(tmp_path):
    world = World()
    hub = world.hub
    for name in ("lab/gated", "lab/off", "org/base", "openai-community/gpt2"):
        hub.add_model(name)
    hub.models["lab/gated"]["gated"] = "auto"
    hub.models["lab/off"]["disabled"] = True
    hub.disabled.add("lab/blocked")
    hub.renamed |= {
        "gpt2": "openai-community/gpt2",
        "ORG/Base": "org/base",
        "org/loop": "org/loop2",
        "org/loop2": "org/loop",
    }
    hub.models["lab/odd"] = ["not", "a", "model"]
    hub.models["lab/escape"] = {"id": "../../evil", "tags": []}
    parents = "lab/gated lab/off lab/blocked lab/gone org/loop lab/odd lab/escape gpt2 ORG/Base"
    hub.add_model("me/child", cardData={"base_model": [*parents.split(), "llama-13b"]})
    world.rows = [table_row("me/child", [0.5] * 6)]
    world.publish_table()
    with serve(hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    found = statuses_in(tmp_path / "out")
    assert found["status"].to_dict() == {
        "me/child": "ok",
        "lab/gated": "gated",
        "lab/off": "disabled",
        "lab/blocked": "disabled",
        "lab/gone": "missing",
        "llama-13b": "missing",
        "org/loop": "error",
        "lab/odd": "error",
        "lab/escape": "error",
        "gpt2": "renamed",
        "ORG/Base": "renamed",
    }
    assert found.loc["org/loop", "reason"] and found.loc["lab/escape", "reason"]
    assert set(snapshot.lineage["parent"]) == {
        *parents.split()[:7],
        "openai-community/gpt2",
        "org/base",
    }
    assert not list(tmp_path.rglob("*evil*"))


def test_a_wall_of_pathological_cards(tmp_path):
    world = World()
    expected = {}
    for number, (_, card, parents) in enumerate(WALL):
        child = f"wall/m{number}"
        world.hub.add_model(child, cardData=card)
        world.rows.append(table_row(child, [0.5] * 6))
        if parents is not None:
            expected[child] = set(parents)
    for number, (field, value) in enumerate(ODD_FIELDS):
        world.hub.add_model(f"odd/m{number}", **{field: value})
        world.rows.append(table_row(f"odd/m{number}", [0.5] * 6))
        expected[f"odd/m{number}"] = set()
    for name in ("org/parent", "org/b"):
        world.hub.add_model(name)
    world.hub.add_model("openai-community/gpt2")
    world.hub.renamed["gpt2"] = "openai-community/gpt2"
    world.publish_table()
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    found = snapshot.lineage.groupby("child")["parent"].agg(set).to_dict()
    for child, parents in expected.items():
        renamed = {world.hub.renamed.get(parent, parent) for parent in parents}
        assert found.get(child, set()) == renamed, child
    assert statuses_in(tmp_path / "out").loc[list(expected), "status"].isin(["ok", "gated"]).all()
    assert len(served.asked("/api/models/")) < 600, "one card must not keep the crawl busy"


def test_an_answer_that_cannot_be_read_is_an_error_of_that_id(tmp_path, monkeypatch):
    world = make_world(20)

    def stumbling(entry, *merged, read=ancestry.read_visit):
        if entry["key"] == "user3/Model-3" and "answer" in entry:
            raise OverflowError
        return read(entry, *merged)

    monkeypatch.setattr(ancestry, "read_visit", stumbling)
    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=client(served))
    found = statuses_in(tmp_path / "out")
    assert found["status"].value_counts()["error"] == 1
    assert found.loc["user3/Model-3", "reason"] == "the answer cannot be read (OverflowError)"


def test_cycles_and_disagreements_are_reported(tmp_path):
    world = World()
    hub = world.hub
    for name in "abc":
        world.rows.append(table_row(f"x/{name}", [0.1] * 6))
    for child, parent in ("ab", "bc", "ca"):
        hub.add_model(f"x/{child}", cardData={"base_model": f"x/{parent}"})
    hub.models["x/a"]["baseModels"] = {"relation": "merge", "models": [{"id": "x/b"}]}
    hub.models["x/a"]["cardData"] = {"base_model": ["x/b", "x/c"]}
    hub.models["x/a"]["tags"] = ["base_model:adapter:x/b"]
    world.publish_table()
    with serve(hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    assert snapshot.n_edges == 3 and snapshot.provenance["n_cycles"] == 1
    assert ("x/b", "x/a", "merge") in edges_of(snapshot)
    assert snapshot.provenance["n_disagreements"] == 1
    log = (tmp_path / "out" / ".crawl" / "log.jsonl").read_text().splitlines()
    (line,) = [entry for entry in map(json.loads, log) if entry["kind"] == "overruled"]
    assert {(claim["parent"], claim["source"]) for claim in line["claims"]} == {
        ("x/b", "tags"),
        ("x/c", "card"),
    }


def test_depth_is_capped(tmp_path):
    world = World()
    for number in range(8):
        card = {"base_model": f"x/{number + 1}"} if number < 7 else {}
        world.hub.add_model(f"x/{number}", cardData=card)
    world.rows = [table_row("x/0", [0.1] * 6)]
    world.publish_table()
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served), max_depth=3)
    assert len(served.asked("/api/models/")) == 4
    assert snapshot.n_edges == 4


def test_facts_of_the_table_are_not_parents():
    link = '<a href="https://huggingface.co/lab/from-html">lab/from-html</a>'
    rows = [
        table_row("lab/a", [0.1, 0.2, None, 1.5, -0.1, float("nan")], **{"#Params (B)": -1.0}),
        table_row("lab/b", [0.5] * 6, **{"Base Model": "lab/b (Merge)", "Merged": True}),
        table_row("lab/c", [0.5] * 6, **{"Base Model": "Removed", "Architecture": "?"}),
        table_row("lab/d", [0.5] * 6, **{"Base Model": "org/base", "Weight type": "Adapter"}),
        table_row("x", [0.5] * 6, fullname=None, Model=link, eval_name="html"),
        table_row("x", [0.5] * 6, fullname="", Model="<b>?</b>", eval_name="nobody"),
    ]
    world = World(rows=rows)
    world.publish_table()
    content = world.hub.files[f"datasets/{TABLE}", TABLE_PATH]
    frame, skipped = read_table(content, list(BENCHMARKS))
    assert skipped == ["nobody"]
    assert list(frame["model_id"]) == ["lab/a", "lab/b", "lab/c", "lab/d", "lab/from-html"]
    assert frame["params_b"].isna().tolist() == [True, False, False, False, False]
    assert frame["architecture"].isna().tolist() == [False, False, True, False, False]
    assert frame.loc[0, list(BENCHMARKS)].notna().tolist() == [True, True] + [False] * 4
    assert frame["type"][0] == "fine-tuned on domain-specific datasets"
    assert claimed_bases(frame) == {"lab/d": Claim("org/base", "adapter", "leaderboard")}


def test_one_precision_is_kept_and_the_others_are_named():
    def rows():
        yield "float16", "2024-08-01", [0.1] * 6
        yield "bfloat16", "2024-06-01", [0.2] * 6
        yield "bfloat16", "2024-07-01", [0.3] * 6
        yield "bfloat16", "2024-09-01", [0.4] * 5 + [None]

    world = World(
        rows=[
            table_row("a/b", scores, Precision=name, eval_name=day, **{"Submission Date": day})
            for name, day, scores in rows()
        ]
    )
    world.publish_table()
    content = world.hub.files[f"datasets/{TABLE}", TABLE_PATH]
    frame, _ = read_table(content, list(BENCHMARKS))
    for shuffled in (frame, frame.iloc[::-1].reset_index(drop=True)):
        kept = one_evaluation_each(shuffled, list(BENCHMARKS))
        assert list(kept["evaluation"]) == ["2024-07-01"]
        assert list(kept["other_evaluations"]) == ["2024-06-01; 2024-08-01; 2024-09-01"]


def test_a_model_evaluated_under_two_names_is_one(tmp_path):
    world = World()
    world.hub.add_model("new/name")
    world.hub.renamed["old/name"] = "new/name"
    world.hub.add_model("me/child", cardData={"base_model": "old/name"})
    world.rows = [table_row("old/name", [0.1] * 6), table_row("me/child", [0.3] * 6)]
    world.publish_table()
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "one", client=client(served))
        assert list(snapshot.models["model_id"]) == ["me/child", "new/name"]
        assert list(snapshot.models["leaderboard_id"]) == ["me/child", "old/name"]
        assert edges_of(snapshot) == {("new/name", "me/child", "finetune")}
        world.rows.append(table_row("new/name", [0.2] * 6))
        world.publish_table()
        snapshot = crawl(tmp_path / "two", client=client(served))
    assert list(snapshot.models["leaderboard_id"]) == ["me/child", "new/name"]
    assert snapshot.responses[1, 0] == np.float32(0.2)


def test_models_from_a_list(tmp_path):
    world = make_world(40)
    world.hub.add_model("me/new", cardData={"base_model": "user3/Model-3"})
    models = ["https://huggingface.co/USER3/model-3", "me/new", "me/nowhere"]
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served), models=models)
        for text in ("../x", "/etc/passwd", "a\x00b", "x" * 10**5, "org/\u00fc", "a/b/c", "~/m"):
            with pytest.raises(CrawlError, match="is not the id of a model") as caught:
                crawl(tmp_path / "odd", client=client(served), models=[text])
            assert len(str(caught.value)) < 150
        assert not (tmp_path / "odd").exists()
        with pytest.raises(CrawlError, match="me/nowhere: missing .*; check the id"):
            crawl(tmp_path / "lonely", client=client(served), models=["me/nowhere"])
        world.hub.add_model("me/lonely")
        with pytest.raises(CrawlError, match="none of the models has a score"):
            crawl(tmp_path / "lonely", client=client(served), models=["me/lonely"])
    assert list(snapshot.models["model_id"]) == ["me/new", "user3/Model-3"]
    assert np.isnan(snapshot.responses[0]).all() and not np.isnan(snapshot.responses[1]).any()
    assert snapshot.models["params_b"].tolist() == [7.0, 7.2]
    assert ("user3/Model-3", "me/new", "finetune") in edges_of(snapshot)
    assert statuses_in(tmp_path / "out").loc["me/nowhere", "status"] == "missing"


def test_a_model_of_ones_own_brings_its_evaluated_ancestors(tmp_path):
    world = World()
    hub = world.hub
    for name in "abcd":
        world.rows.append(table_row(f"lab/{name}", [0.1 + ord(name) / 1000] * 6))
        hub.add_model(f"lab/{name}")
    hub.models["lab/b"]["cardData"] = {"base_model": "org/unscored"}
    hub.add_model("org/unscored", cardData={"base_model": "LAB/A"})  # case is the Hub's matter
    hub.renamed |= {"LAB/A": "lab/a", "me/formerly-c": "lab/c"}
    hub.add_model("me/new", cardData={"base_model": "lab/b"})
    world.publish_table()
    with serve(hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served), models=["me/new"])
        assert list(snapshot.models["model_id"]) == ["lab/a", "lab/b", "me/new"]
        assert np.isnan(snapshot.responses).all(axis=1).tolist() == [False, False, True]
        more = crawl(tmp_path / "more", client=client(served), models=["me/new", "lab/b", "lab/d"])
        assert list(more.models["model_id"]) == ["lab/a", "lab/b", "lab/d", "me/new"]
        renamed = crawl(tmp_path / "old", client=client(served), models=["me/formerly-c"])
        assert list(renamed.models["leaderboard_id"]) == ["lab/c"]
        assert not np.isnan(renamed.responses).any()
        chosen = crawl(tmp_path / "own", client=client(served), models=["lab/b"])
        assert list(chosen.models["model_id"]) == ["lab/b"], "named, so nothing else is added"


@pytest.mark.slow
def test_a_forecast_for_a_model_of_ones_own(tmp_path, monkeypatch, capsys):
    world = make_world(60)
    world.hub.add_model("me/new", cardData={"base_model": "user3/Model-3"})
    (tmp_path / "ids").write_text("me/new\n")
    hub, mine, fit, out = (str(tmp_path / name) for name in ("hub", "mine", "fit.npz", "out.csv"))
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        assert cli.main(["crawl", hub]) == 0
        assert cli.main(["crawl", mine, "--models-from", str(tmp_path / "ids")]) == 0
    assert cli.main(["validate", hub]) == cli.main(["validate", mine]) == 0
    assert cli.main(["fit", hub, "--model", fit, "--rank", "2"]) == 0
    for options in ([], ["--model", fit]):
        assert cli.main(["predict", mine, "--out", out, *options]) == 0
        scores = pd.read_csv(out).query("model_id == 'me/new'")
        assert list(scores["benchmark"]) == list(BENCHMARKS) and (scores["n_observed"] == 0).all()
        assert (scores["lower"] < scores["score"]).all() and (
            scores["score"] < scores["upper"]
        ).all()
    assert "neither answers nor an evaluated relative" not in capsys.readouterr().err


def test_parents_that_only_the_leaderboard_names_are_traced(tmp_path):
    world = World()
    world.hub.add_model("me/child")
    world.hub.add_model("org/parent", cardData={"base_model": "org/grandparent"})
    world.hub.renamed["org/old-parent"] = "org/parent"
    world.rows = [table_row("me/child", [0.5] * 6, **{"Base Model": "org/old-parent"})]
    world.publish_table()
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    assert edges_of(snapshot) == {
        ("org/parent", "me/child", "finetune"),
        ("org/grandparent", "org/parent", "finetune"),
    }
    statuses = {"me/child": "ok", "org/old-parent": "renamed", "org/grandparent": "missing"}
    assert statuses_in(tmp_path / "out")["status"].to_dict() == statuses


def test_a_hub_that_keeps_failing_ends_the_crawl(tmp_path):
    world = make_world(80)
    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=client(served), max_models=1)
        hub = world.hub
        hub.faults, hub.fault_kinds, hub.most_faults = 1.0, ("503",), 10**6
        with pytest.raises(CrawlError, match="HTTP 503.*--resume"):
            crawl(tmp_path / "out", client=client(served, tries=2), resume=True, max_models=80)
        hub.faults = 0
        snapshot = crawl(tmp_path / "out", client=client(served), resume=True)
    assert_true(tmp_path / "out", snapshot, world)


def test_a_file_that_failed_is_asked_for_again(tmp_path):
    world = World()
    world.hub.add_model("me/merge", tags=["merge"])
    text = b"models:\n- model: org/a\n- model: org/b\n"
    world.hub.add_file("me/merge", "mergekit_config.yml", text)
    world.rows = [table_row("me/merge", [0.5] * 6)]
    world.publish_table()
    world.hub.broken = {"me/merge"}
    with serve(world.hub) as served:
        assert crawl(tmp_path / "out", client=client(served, tries=2)).n_edges == 0
        world.hub.broken = set()
        snapshot = crawl(tmp_path / "out", client=client(served), resume=True)
    assert set(snapshot.lineage["parent"]) == {"org/a", "org/b"}


def test_the_token_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    world = make_world(30)
    world.hub.tokens = {TOKEN}
    world.hub.add_model("user1/Model-1", description=TOKEN, cardData={"note": f"Bearer {TOKEN}"})
    with serve(world.hub) as served:
        process = start_crawl(served, tmp_path / "out")
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert served.record.leaked == []
        known = re.compile(r"/api/(models|datasets)/|/(datasets/)?[^/]+/[^/]+/resolve/|storage:")
        assert all(known.match(path) for path in served.record.requests)
        assert any(path.startswith("storage:") for path in served.record.requests)
    assert TOKEN not in out + err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert "<token>" in (tmp_path / "out" / ".crawl" / "log.jsonl").read_text()


def test_foreign_folders_and_other_hubs_are_left_alone(tmp_path):
    world = make_world(10)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    with serve(world.hub) as served:
        for name in ("notes", "file"):
            with pytest.raises(CrawlError, match="choose"):
                crawl(tmp_path / name, client=client(served))
        with pytest.raises(CrawlError, match="cannot be reached"):
            crawl(tmp_path / "out", client=Client("http://127.0.0.1:9", backoff=0.01))
        crawl(tmp_path / "out", client=client(served))
        with pytest.raises(CrawlError, match="holds a crawl of"):
            crawl(tmp_path / "out", client=Client("http://127.0.0.1:9"))
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_two_crawls_at_once_are_refused(tmp_path):
    world = make_world(20)
    world.hub.hold_from = 3
    with serve(world.hub) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(crawl, tmp_path / "out", client=client(served))
        while len(served.record.requests) < 3:
            time.sleep(0.002)
        with pytest.raises(CrawlError, match="another crawl is writing there"):
            crawl(tmp_path / "out", client=client(served))
        world.hub.hold_from = None
        assert first.result().n_models == 20


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_of_models_as_people_write_them(tmp_path, monkeypatch, codec):
    world, page = make_world(30), "https://huggingface.co/user2/Model-2#usage"
    text = f"# mine\r\nuser1/Model-1  # the first\r\n\t# or\r\n\r\n{page}\t#2\r\n"
    (tmp_path / "ids").write_bytes(text.encode(codec))
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        argv = ["crawl", str(tmp_path / "out"), "--models-from", str(tmp_path / "ids")]
        assert cli.main(argv) == 0
    models = load_snapshot(tmp_path / "out").models["model_id"]
    assert models.tolist() == ["user1/Model-1", "user2/Model-2"]


def test_a_dry_run_is_cheap_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    world = make_world(100)
    with serve(world.hub) as served:
        cost = estimate(client=client(served))
        assert len(served.record.requests) < 20
        served.record.requests.clear()
        crawl(tmp_path / "out", client=client(served))
        n_asked = len([path for path in served.record.requests if "storage" not in path])
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        assert cli.main(["crawl", str(tmp_path / "dry"), "--dry-run"]) == 0
    assert 0.7 < (cost.n_api + cost.n_files) / n_asked < 1.3
    text = capsys.readouterr().out
    assert "requests   about 126 to the API" in text and "anonymous" in text
    assert not (tmp_path / "dry").exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    world = make_world(30)
    (tmp_path / "ids").write_text("# mine\nuser1/Model-1\n\nuser2/Model-2\n")
    out = tmp_path / "out"
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        options = ["--benchmarks", "bbh", "ifeval", "--models-from", str(tmp_path / "ids")]
        assert cli.main(["crawl", str(out), *options]) == 0
        assert "ids asked for:" in capsys.readouterr().out
        assert cli.main(["crawl", str(out), "--models-from", str(tmp_path / "nothing")]) == 2
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert cli.main(["crawl", str(tmp_path / "off")]) == 1
        assert "unset HF_HUB_OFFLINE" in capsys.readouterr().err
    snapshot = load_snapshot(out)
    assert snapshot.benchmarks == ["ifeval", "bbh"] and snapshot.n_models == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_answers(tmp_path):
    world = make_world(400)
    for model in world.hub.models.values():
        model["cardData"] = {**model["cardData"], "model-index": ["x" * 40] * 1000}
    with serve(world.hub) as served:
        tracemalloc.start()
        try:
            crawl(tmp_path / "out", client=client(served))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    log = tmp_path / "out" / ".crawl" / "log.jsonl"
    assert log.stat().st_size > 16e6
    assert peak < 8e6


@pytest.mark.slow
def test_five_thousand_models(tmp_path):
    world = make_world(5000, seed=5)
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=client(served))
    assert_true(tmp_path / "out", snapshot, world)
    assert served.record.most_at_once <= 8
