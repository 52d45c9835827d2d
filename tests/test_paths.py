"""Folders of a run."""

import helpers as paths
import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_folders_of_a_run_are_made_in_the_repository(root):
    assert paths.build_folder("smoke") == root / "build" / "smoke"
    assert paths.figure_folder("smoke") == root / "figures" / "smoke"
    assert (root / "build" / "smoke").is_dir() and (root / "figures" / "smoke").is_dir()


@pytest.mark.parametrize("run", ["", "../elsewhere", "a/b", "/tmp"])
def test_a_run_cannot_lead_out_of_its_folder(root, run):
    with pytest.raises(ValueError, match="run must be a plain name"):
        paths.build_folder(run)
    assert list(root.iterdir()) == []


def test_snapshots_count_from_the_repository(root, tmp_path):
    assert paths.snapshot_folder("data/hub") == root / "data" / "hub"
    assert paths.snapshot_folder(tmp_path / "mine") == tmp_path / "mine"
