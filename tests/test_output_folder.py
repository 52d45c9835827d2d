"""A new snapshot takes the place of the old one at one stroke, whatever happens."""

import errno
import os
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from lrmf import files
from lrmf.data.snapshot import load_snapshot, save_snapshot

N_STEPS = 8


class Killed(BaseException):
    """Nothing handles this, as nothing handles SIGKILL."""


def save(out, number, **options):
    """A snapshot whose name, model and value tell its number."""
    model_id = pd.array([f"org/model-{number:03d}"], dtype="string")
    name = pd.array(["bbh"], dtype="string")
    options = options or {"keep_others": True}
    save_snapshot(
        out,
        models=pd.DataFrame({"model_id": model_id}),
        items=pd.DataFrame({"item_id": name, "benchmark": name, "subtask": name, "n_trials": 1}),
        lineage=pd.DataFrame({"parent": [], "child": [], "relation": []}, dtype="string"),
        responses=np.full((1, 1), number / 1000, dtype=np.float32),
        name=str(number),
        source="hub",
        **options,
    )


def number_of(snapshot):
    number = int(snapshot.name)
    assert list(snapshot.models["model_id"]) == [f"org/model-{number:03d}"]
    assert snapshot.responses[0, 0] == np.float32(number / 1000)
    return number


@pytest.fixture
def out(tmp_path):
    """A folder with the log of a crawl, its snapshot 1, and files of the user's."""
    out = tmp_path / "out"
    (out / ".crawl").mkdir(parents=True)
    (out / ".crawl" / "log.jsonl").write_text("log")
    save(out, 1)
    (out / "notes.txt").write_text("mine")
    (out / "link").symlink_to("nowhere")
    (out / "snapshot.json").chmod(0o664)
    return out


def assert_whole(out):
    assert (out / ".crawl" / "log.jsonl").read_text() == "log"
    assert (out / "notes.txt").read_text() == "mine"
    assert os.readlink(out / "link") == "nowhere"
    assert (out / "snapshot.json").stat().st_mode & 0o777 == 0o664
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert not list(out.glob(".*.partial"))


def refuse(code):
    def refusing(*_, **__):
        raise OSError(code, os.strerror(code))

    return refusing


def within(out, monkeypatch):
    monkeypatch.chdir(out)


def no_exchange(out, monkeypatch):
    monkeypatch.setattr(files, "_exchange", refuse(errno.EINVAL))


def no_links(out, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))


def mount_point(out, monkeypatch):
    """Folders cannot be renamed, and nothing can be written beside this one."""
    mkdir = files.Path.mkdir

    def mkdir_within(self, *arguments, **options):
        if self.parent == out.parent and self != out:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(files.Path, "mkdir", mkdir_within)


def plain(out, monkeypatch):
    pass


@pytest.mark.parametrize("place", [plain, within, no_exchange, no_links, mount_point])
def test_the_new_takes_the_place_of_the_old_and_nothing_else_goes(out, monkeypatch, place):
    with monkeypatch.context() as patched:
        place(out, patched)
        save(out, 2)
    assert number_of(load_snapshot(out)) == 2
    assert_whole(out)


@pytest.mark.parametrize("place", [plain, within, no_exchange, mount_point])
def test_overwriting_keeps_hidden_files(out, monkeypatch, place):
    for name in ("notes.txt", "link"):
        (out / name).unlink()
    (out / ".git").mkdir()
    with monkeypatch.context() as patched:
        place(out, patched)
        save(out, 2, overwrite=True)
    assert number_of(load_snapshot(out)) == 2
    assert {".crawl", ".git"} == {path.name for path in out.iterdir() if path.name[0] == "."}


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
        save(out, number)
    ended.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(set(seen)) > 2


@pytest.mark.parametrize("n_steps", range(N_STEPS))
def test_killed_at_any_step(out, monkeypatch, n_steps):
    exchange, done = files._exchange, []

    def dying(function):
        def run(*arguments, **options):
            if len(done) >= n_steps:
                raise Killed
            done.append(function)
            return function(*arguments, **options)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(files, "_exchange", dying(exchange))
        patched.setattr(files.Path, "mkdir", dying(files.Path.mkdir))
        patched.setattr(shutil, "rmtree", dying(shutil.rmtree))
        patched.setattr(os, "link", dying(os.link))
        try:
            save(out, 2)
        except Killed:
            assert len(done) == n_steps
        else:
            assert n_steps == N_STEPS - 1, "every step is tried, and all of them"
    assert number_of(load_snapshot(out)) == (2 if exchange in done else 1)
    assert (out / ".crawl" / "log.jsonl").read_text() == "log"
    assert (out / "notes.txt").read_text() == "mine"


def test_partial_folders_of_other_outputs_are_left_alone(tmp_path):
    """Also of those whose names begin with the same forty characters."""
    mine, other = (tmp_path / f"{'a' * 40} 2025-{month}" for month in ("08", "09"))
    with files.output_folder(other) as partial, files.output_folder(mine) as left:
        (partial / "page").touch()
        files.remove_partial_folders(mine)
        assert (partial / "page").exists() and not left.exists()
        left.mkdir()
    assert (other / "page").exists()


def test_a_failing_clean_up_does_not_hide_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files.Path, "unlink", refuse(errno.EIO))
    with pytest.raises(KeyError, match="first"), files.output(tmp_path / "a.csv"):
        raise KeyError("first")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_disks_that_cannot_sync(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refuse(code))
    files.write_text(tmp_path / "a.csv", "written")
    assert (tmp_path / "a.csv").read_text() == "written"


def test_a_file_that_is_a_mount_point(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("old and longer")
    monkeypatch.setattr(os, "replace", refuse(errno.EBUSY))
    files.write_text(tmp_path / "a.csv", "new")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_full_disk_is_no_reason_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(files.OutputError, match="a.csv"):
        files.write_text(tmp_path / "a.csv", "lost")
    assert not list(tmp_path.iterdir())
