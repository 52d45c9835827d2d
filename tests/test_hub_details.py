"""Answers to single questions: runs, filters, hashes, and crawls that collect them."""

import base64
import json
import os
import subprocess
import sys
import time
from multiprocessing.pool import ThreadPool

import numpy as np
import pandas as pd
import pytest
from helpers import get_snapshot
from hub_server import serve
from hub_world import add_details, backwards, make_world, samples

from lrmf.data.benchmarks import BENCHMARKS, TASKS
from lrmf.data.responses import MISSING
from lrmf.data.samples import read_samples
from lrmf.hub import STATUS_FILE, Client, CrawlError, crawl, estimate
from lrmf.hub.details import build_matrix

IFEVAL, SNARKS, ALGEBRA = (
    "leaderboard_ifeval",
    "leaderboard_bbh_snarks",
    "leaderboard_math_algebra_hard",
)
PRO = "leaderboard_mmlu_pro"
SIZES = {IFEVAL: 541, SNARKS: 178, ALGEBRA: 307}


@pytest.fixture(autouse=True)
def _anonymous(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))


def client(served, **options):
    return Client(served.url, **{"backoff": 0.01, "timeout": 5, **options})


def repo_of(name):
    return f"datasets/open-llm-leaderboard/{name.replace('/', '__')}-details"


def path_of(name, task, day=17, suffix="json"):
    return f"{name.replace('/', '__')}/samples_{task}_2024-06-{day}T17-37-25.144953.{suffix}"


def answers_to(snapshot, name, subtask):
    row = snapshot.models["model_id"].tolist().index(name)
    return snapshot.responses[row, (snapshot.items["subtask"] == subtask).to_numpy()].tolist()


def assert_true(snapshot, world, sizes):
    assert snapshot.n_items == sum(sizes.values()) and snapshot.is_binary
    assert (snapshot.items["n_trials"] == 1).all()
    for (name, task), answers in world.answers.items():
        if task in sizes:
            assert answers_to(snapshot, name, TASKS[task][1]) == answers


def test_the_instances_of_the_six_benchmarks():
    counts = {name: benchmark.n_trials for name, benchmark in BENCHMARKS.items()}
    assert list(counts.values()) == [541, 5761, 1324, 1192, 756, 12032]
    assert len(TASKS) == 39 and sum(counts.values()) == 21606


@pytest.mark.parametrize("faults", [0.0, 0.3])
def test_answers_are_those_of_the_server(tmp_path, faults):
    world = make_world(12)
    add_details(world, SIZES | {PRO: 100})
    world.hub.faults, world.hub.fault_kinds = faults, ("500", "reset", "truncated", "html", "429")
    said = []
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served), say=said.append)
    assert_true(snapshot, world, SIZES)
    assert snapshot.benchmarks == ["ifeval", "bbh", "math"]
    (announced,) = said
    assert "details of 12 of 12 models" in announced and "mmlu_pro left out" in announced
    assert not served.asked("storage:/datasets%2Fopen-llm-leaderboard%2Fuser1__Model-1-details/pro")
    assert not [path for path in served.record.requests if PRO in path]
    left = {path.name for path in (tmp_path / "o" / ".crawl").iterdir()}
    assert {name.split("-")[0] for name in left} == {"log.jsonl", "table"}, "raw files are left"


def test_chosen_benchmarks(tmp_path):
    world = make_world(4)
    add_details(world, {IFEVAL: 541, PRO: 150})
    with serve(world.hub) as served:
        options = {"instances": True, "benchmarks": ["mmlu_pro"], "client": client(served)}
        snapshot = crawl(tmp_path / "o", **options)
    assert_true(snapshot, world, {PRO: 150})


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    world = make_world(10, seed=4)
    add_details(world, SIZES)
    tables = ("models.parquet", "items.parquet", "lineage.parquet", "responses.npy")
    with serve(world.hub) as served:
        crawl(tmp_path / "undisturbed", instances=True, client=client(served))
        n_requests = len(served.record.requests)
        served.record.requests.clear()
        command = [sys.executable, "-m", "lrmf", "crawl", str(tmp_path / "o")]
        environment = os.environ | {"HF_ENDPOINT": served.url}
        for moment in (n_requests // 2, 3 * n_requests // 4):
            world.hub.hold_from = moment
            options = ["--instances", "--resume"]
            process = subprocess.Popen(command + options, env=environment, stderr=-3)
            while len(served.record.requests) < moment and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            assert process.wait() < 0
        world.hub.hold_from = None
        crawl(tmp_path / "o", instances=True, resume=True, client=client(served))
    assert len(served.record.requests) <= n_requests + 2 * 8 * 2
    for name in tables:
        assert (tmp_path / "o" / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes()


def test_the_hub_run_goes_on_with_what_was_begun_and_opens_what_is_done(tmp_path, monkeypatch):
    world = make_world(6)
    add_details(world, {IFEVAL: 541, SNARKS: 178})
    size = {"n_models": 1, "n_items": 1, "seed": 0}
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        world.hub.closed = {repo_of(name) for name in world.scores}
        options = {"instances": True, "benchmarks": ["bbh"], "models": ["user1/Model-1"]}
        nobody = Client("http://127.0.0.1:9", backoff=0.01)
        with pytest.raises(CrawlError, match="cannot be reached"):
            crawl(tmp_path / "o", client=nobody, **options)
        with pytest.raises(CrawlError, match="gated"):
            crawl(tmp_path / "o", client=client(served), resume=True)
        with pytest.raises(CrawlError, match="gated"):
            crawl(tmp_path / "o", client=client(served), **options)
        world.hub.closed = set()
        snapshot = get_snapshot("crawl", tmp_path / "o", **size)
        assert list(snapshot.models["model_id"]) == ["user1/Model-1"]
        assert snapshot.benchmarks == ["bbh"]
        found = answers_to(snapshot, "user1/Model-1", "snarks")
        assert found == world.answers["user1/Model-1", SNARKS]
        served.record.requests.clear()
        assert get_snapshot("crawl", tmp_path / "o", **size).is_binary
    assert served.record.requests == []


def test_the_most_complete_run_counts_and_of_these_the_latest(tmp_path):
    world = make_world(3)
    add_details(world, {SNARKS: 178})
    names = sorted(world.scores)
    hub = world.hub
    longer = [1] * 178
    # An earlier run, a later but incomplete one, and a later complete one of another suffix.
    hub.add_file(repo_of(names[0]), path_of(names[0], SNARKS, 10), samples(SNARKS, longer))
    hub.add_file(repo_of(names[1]), path_of(names[1], SNARKS, 20), samples(SNARKS, longer[:50]))
    hub.add_file(repo_of(names[2]), path_of(names[2], SNARKS, 20, "jsonl"), samples(SNARKS, longer))
    with serve(hub) as served:
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served))
    assert answers_to(snapshot, names[0], "snarks") == world.answers[names[0], SNARKS]
    assert answers_to(snapshot, names[1], "snarks") == world.answers[names[1], SNARKS]
    assert answers_to(snapshot, names[2], "snarks") == longer
    assert not [path for path in served.record.requests if "2024-06-10" in path]


def test_models_without_details_have_no_answers(tmp_path):
    world = make_world(4)
    add_details(world, {SNARKS: 178})
    name = sorted(world.scores)[0]
    del world.hub.datasets[repo_of(name).removeprefix("datasets/")]
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served))
    assert set(answers_to(snapshot, name, "snarks")) == {MISSING}
    status = pd.read_parquet(tmp_path / "o" / STATUS_FILE).set_index("id")["status"]
    assert status[repo_of(name).removeprefix("datasets/")] == "missing"


@pytest.mark.parametrize("token", [None, "hf_x"])
def test_gated_details(tmp_path, monkeypatch, token):
    world = make_world(3)
    add_details(world, {SNARKS: 178})
    world.hub.gated = {repo_of(name) for name in world.scores}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with serve(world.hub) as served:
        if token:
            assert_true(
                crawl(tmp_path / "o", instances=True, client=client(served)), world, {SNARKS: 178}
            )
        else:
            with pytest.raises(CrawlError, match="gated and there is no token.*HF_TOKEN"):
                crawl(tmp_path / "o", instances=True, client=client(served))


def test_details_gated_for_one_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    world = make_world(3)
    add_details(world, {SNARKS: 178})
    names = sorted(world.scores)
    with serve(world.hub) as served:
        world.hub.closed = {repo_of(names[0])}
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served))
        assert set(answers_to(snapshot, names[0], "snarks")) == {MISSING}
        assert snapshot.provenance["details_statuses"]["gated"] == 1
        world.hub.closed = {repo_of(name) for name in names}
        with pytest.raises(CrawlError, match="account has no access; accept the terms"):
            crawl(tmp_path / "p", instances=True, client=client(served))


def test_a_second_crawl_downloads_only_new_files(tmp_path):
    world = make_world(5)
    add_details(world, {SNARKS: 178})
    name = sorted(world.scores)[2]
    with serve(world.hub) as served:
        crawl(tmp_path / "o", instances=True, client=client(served))
        served.record.requests.clear()
        assert_true(
            crawl(tmp_path / "o", instances=True, client=client(served)), world, {SNARKS: 178}
        )
        assert not served.asked("storage:")
        assert not [path for path in served.record.requests if "/tree/" in path]
        world.hub.add_file(repo_of(name), path_of(name, SNARKS, 28), samples(SNARKS, [1] * 178))
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served))
    assert len(served.asked("storage:")) == 1
    assert len([path for path in served.record.requests if "/tree/" in path]) == 1
    assert answers_to(snapshot, name, "snarks") == [1] * 178


def test_unread_files_are_listed_in_the_same_order(tmp_path, monkeypatch):
    world = make_world(3)
    add_details(world, {SNARKS: 178, IFEVAL: 541})
    for repo, path in world.hub.files:
        world.hub.files[repo, path] += b"{\n" if "/samples_" in path else b""
    with serve(world.hub) as served:
        crawl(tmp_path / "a", instances=True, client=client(served))
        monkeypatch.setattr(ThreadPool, "imap_unordered", backwards)
        crawl(tmp_path / "b", instances=True, client=client(served))
    first, again = (pd.read_parquet(tmp_path / name / STATUS_FILE) for name in "ab")
    pd.testing.assert_frame_equal(first.drop(columns="time"), again.drop(columns="time"))
    assert (again["kind"] == "file").sum() >= 2 * len(world.scores)


def test_a_corrupt_file_is_left_out_and_said(tmp_path):
    world = make_world(3)
    add_details(world, {SNARKS: 178})
    name = sorted(world.scores)[0]
    with serve(world.hub) as served:
        content = world.hub.files[repo_of(name), path_of(name, SNARKS)]
        rows = [{"type": "file", "path": path_of(name, SNARKS), "size": len(content), "oid": "1"}]
        rows[0]["lfs"] = {"oid": "0" * 64}

        def tree(self, repo, query):
            assert repo == repo_of(name).removeprefix("datasets/")
            self.page(rows, query)

        handler = served.server.RequestHandlerClass
        original = handler.tree
        handler.tree = lambda self, repo, query: (
            tree if repo_of(name).endswith(repo) else original
        )(self, repo, query)
        snapshot = crawl(tmp_path / "o", instances=True, client=client(served))
    assert set(answers_to(snapshot, name, "snarks")) == {MISSING}
    log = (tmp_path / "o" / ".crawl" / "log.jsonl").read_text().splitlines()
    (refused,) = [
        entry
        for entry in map(json.loads, log)
        if entry["kind"] == "samples" and entry.get("status") == "error"
    ]
    assert refused["reason"] == "its checksum does not match"


def line(doc_id, value, doc_hash="h", **rest):
    return json.dumps({"doc_id": doc_id, "acc": value, "doc_hash": doc_hash, **rest}).encode()


def test_lines_of_a_samples_file():
    lines = [
        line(2, 0.0, "c"),
        line(0, 1, "a"),
        b"",
        line(1, True, "b" * 64),
        line(1, False, "b"),  # again
        line(3, None),
        line(4, 0.5),
        line("five", 1),
        line(True, 1),
        b"[1]",
        b"{",
        b"\xff\xfe",
        b"[" * 10**5,
    ]
    found = read_samples(lines, "acc")
    assert found.keys == [[0, "a"], [1, "b" * 16], [2, "c"]]
    assert found.values == [True, True, False]
    assert (found.n_repeated, found.n_unusable) == (1, 8)


def test_one_filter_a_question():
    lines = [
        line(0, 0, filter="strict"),
        line(0, 1, filter="none"),
        line(1, 1, filter="b"),
        line(1, 0, filter="a"),
    ]
    for ordered in (lines, lines[::-1]):
        found = read_samples(ordered, "acc")
        assert found.values == [True, False] and found.n_repeated == 0


def packed(keys, values):
    bits = np.packbits(np.array(values, dtype=bool)).tobytes()
    return {"keys": keys, "bits": base64.b64encode(bits).decode(), "n_answers": len(values)}


def test_questions_are_matched_by_hash():
    keys = {
        "usual": [[0, "a"], [1, "b"], [2, "b"], [3, "c"]],  # two questions with one hash
        "renumbered": [[0, "c"], [1, "a"], [2, "b"], [3, "b"]],
        "unhashed": [[0, ""], [3, ""], [9, ""]],
    }
    answers = {
        ("m/1", SNARKS): packed("usual", [1, 0, 1, 0]),
        ("m/2", SNARKS): packed("usual", [0, 0, 1, 1]),
        ("m/3", SNARKS): packed("renumbered", [0, 1, 1, 0]),
        ("m/4", SNARKS): packed("unhashed", [1, 1, 1]),
    }
    items, responses = build_matrix(answers, keys, ["m/0", "m/1", "m/2", "m/3", "m/4"])
    expected = ["a", "b", "b-2", "c", "doc-9"]
    assert list(items["item_id"]) == [f"bbh/snarks/{name}" for name in expected]
    none = MISSING
    assert responses.tolist() == [
        [none] * 5,
        [1, 0, 1, 0, none],
        [0, 0, 1, 1, none],
        [1, 1, 0, 0, none],
        [1, none, none, 1, 1],
    ]


def test_a_dry_run_says_what_mmlu_pro_would_add():
    world = make_world(20)
    add_details(world, {SNARKS: 178, PRO: 400})
    with serve(world.hub) as served:
        cost = estimate(instances=True, client=client(served))
        more = estimate(instances=True, benchmarks=list(BENCHMARKS), client=client(served))
    assert "mmlu_pro is left out" in str(cost) and "mmlu_pro is left out" not in str(more)
    content = sum(len(text) for (_, path), text in world.hub.files.items() if PRO in path)
    assert more.n_bytes - cost.n_bytes == pytest.approx(content, rel=0.1)
