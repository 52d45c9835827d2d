"""Files and folders that appear complete or not at all."""

import errno
import os
import stat

import pytest

from lrmf.files import OutputError, output, output_folder, write_bytes, write_text


def test_a_failed_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "scores.csv"
    write_text(path, "old\n")
    with pytest.raises(KeyboardInterrupt), output(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_files_keep_their_permissions(tmp_path):
    path = tmp_path / "shared.csv"
    write_bytes(path, b"old")
    path.chmod(0o664)
    write_text(path, "né")
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert path.read_bytes() == "né".encode()


@pytest.mark.parametrize("name", ["x" * 250, "é" * 125, "it's $x [1]"])
def test_any_name_that_the_file_system_takes(tmp_path, name):
    write_bytes(tmp_path / name, b"content")
    with output_folder(tmp_path / "folders" / name) as folder:
        (folder / name).touch()
    assert (tmp_path / name).read_bytes() == b"content"
    assert (tmp_path / "folders" / name / name).exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="no folder .*nowhere"):
        write_text(tmp_path / "nowhere" / "a.txt", "")


def test_folders_are_replaced_as_a_whole(tmp_path):
    place = tmp_path / "site"
    for name in ("one", "two"):
        with output_folder(place) as folder:
            (folder / name).mkdir()
            (folder / name / "page").write_text(name)
    with pytest.raises(ValueError, match="nothing"), output_folder(place) as folder:
        (folder / "three").touch()
        raise ValueError("nothing to write")
    assert [path.name for path in place.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [place]


def test_file_systems_that_cannot_sync_folders(tmp_path, monkeypatch):
    fsync = os.fsync

    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with output_folder(tmp_path / "site") as folder:
        (folder / "page").touch()
    assert (tmp_path / "site" / "page").exists()
