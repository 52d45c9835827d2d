"""A new snapshot takes the place of the old one at one stroke, whatever happens."""

import os
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from lrmf.data.snapshot import load_snapshot, save_snapshot
from lrmf.hub import publish as module
from lrmf.hub.log import LOG_FOLDER
from lrmf.hub.publish import STATUS_FILE, publish, recover_log, tidy

N_STEPS = 12


class Killed(BaseException):
    """Nothing handles this, as nothing handles SIGKILL."""


def stage(out, number):
    """A complete snapshot whose name, model and value tell its number, ready to be published."""
    staging = out / LOG_FOLDER / "snapshot"
    model_id = pd.array([f"org/model-{number:03d}"], dtype="string")
    name = pd.array(["bbh"], dtype="string")
    save_snapshot(
        staging,
        models=pd.DataFrame({"model_id": model_id}),
        items=pd.DataFrame({"item_id": name, "benchmark": name, "subtask": name, "n_trials": 1}),
        lineage=pd.DataFrame({"parent": [], "child": [], "relation": []}, dtype="string"),
        responses=np.full((1, 1), number / 1000, dtype=np.float32),
        name=str(number),
        source="hub",
    )
    (staging / STATUS_FILE).write_text(str(number))
    return staging


def number_of(snapshot):
    number = int(snapshot.name)
    assert list(snapshot.models["model_id"]) == [f"org/model-{number:03d}"]
    assert snapshot.responses[0, 0] == np.float32(number / 1000)
    return number


@pytest.fixture
def out(tmp_path):
    """A folder with the log of a crawl, its snapshot 1, and a file of the user's."""
    out = tmp_path / "out"
    (out / LOG_FOLDER).mkdir(parents=True)
    (out / LOG_FOLDER / "log.jsonl").write_text("log")
    publish(stage(out, 1), out)
    (out / "notes.txt").write_text("mine")
    return out


def assert_whole(out):
    assert (out / LOG_FOLDER / "log.jsonl").read_text() == "log"
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_later_snapshot_replaces_the_earlier_and_nothing_else(out):
    publish(stage(out, 2), out)
    assert number_of(load_snapshot(out)) == 2
    assert (out / STATUS_FILE).read_text() == "2"
    assert_whole(out)


def test_a_reader_sees_the_old_or_the_new(out):
    seen, ended, failures = [], threading.Event(), []

    def read():
        try:
            while not ended.is_set():
                seen.append(number_of(load_snapshot(out)))
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(2, 16):
        publish(stage(out, number), out)
    ended.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(set(seen)) > 2


@pytest.mark.parametrize("n_steps", range(N_STEPS))
def test_killed_at_any_step(out, monkeypatch, n_steps):
    staging, real_exchange = stage(out, 2), module._exchange
    done = []

    def dying(function):
        def run(*arguments, **options):
            if len(done) == n_steps:
                raise Killed
            done.append(function)
            return function(*arguments, **options)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(module, "_exchange", dying(real_exchange))
        for name in ("rename", "unlink", "rmdir"):
            patched.setattr(module.os, name, dying(getattr(os, name)))
        for name in ("unlink", "rmdir"):
            patched.setattr(module.Path, name, dying(getattr(module.Path, name)))
        try:
            publish(staging, out)
        except Killed:
            assert len(done) == n_steps
        else:
            assert n_steps == N_STEPS - 1, "every step is tried, and all of them"
    exchanged = any(function is real_exchange for function in done)
    assert number_of(load_snapshot(out)) == (2 if exchanged else 1)
    recover_log(out)
    tidy(out)
    assert number_of(load_snapshot(out)) == (2 if exchanged else 1)
    assert_whole(out)
    shutil.rmtree(staging, ignore_errors=True)
    publish(stage(out, 3), out)
    assert number_of(load_snapshot(out)) == 3
    assert_whole(out)


def test_where_folders_cannot_be_exchanged(out, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(module, "_exchange", refuse)
    publish(stage(out, 2), out)
    assert number_of(load_snapshot(out)) == 2
    assert_whole(out)


def test_from_within_the_folder(out, monkeypatch):
    monkeypatch.chdir(out)
    publish(stage(out, 2), out)
    assert number_of(load_snapshot(".")) == 2
    assert_whole(out)


def test_what_stands_in_both_folders_is_not_deleted(out):
    retired = out.with_name(f".{out.name}.old")
    retired.mkdir()
    (retired / "notes.txt").write_text("other")
    publish(stage(out, 2), out)
    tidy(out)
    assert number_of(load_snapshot(out)) == 2
    assert (out / "notes.txt").read_text() == "mine"
    assert (retired / "notes.txt").read_text() == "other"
