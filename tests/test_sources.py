"""Simulated or opened: the snapshot that a run analyses."""

import pytest
from builders import tiny_snapshot, tiny_tables
from helpers import get_snapshot

from lrmf.data.snapshot import SnapshotError, save_snapshot

SMALL = {"n_models": 40, "n_items": 30, "seed": 3}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_simulates_what_is_asked_for_and_the_same_again(tmp_path):
    place = tmp_path / "simulated"
    snapshot = get_snapshot("simulate", place, **SMALL)
    assert (snapshot.n_models, snapshot.n_items) == (40, 30)
    first = contents(place)
    get_snapshot("simulate", place, **SMALL)
    assert contents(place) == first


def test_another_seed_replaces_the_simulated_snapshot(tmp_path):
    get_snapshot("simulate", tmp_path / "simulated", **SMALL)
    other = get_snapshot("simulate", tmp_path / "simulated", **SMALL | {"seed": 4})
    assert other.provenance["simulation"]["seed"] == 4


def test_opens_what_is_there(tmp_path):
    tiny_snapshot(tmp_path / "tiny")
    assert get_snapshot("open", tmp_path / "tiny", **SMALL).n_models == 12
    with pytest.raises(SnapshotError, match="does not exist"):
        get_snapshot("open", tmp_path / "nowhere", **SMALL)


def test_never_replaces_collected_data(tmp_path):
    place = tmp_path / "hub"
    save_snapshot(place, **tiny_tables() | {"source": "hub"})
    before = contents(place)
    with pytest.raises(SnapshotError, match="must not replace"):
        get_snapshot("simulate", place, **SMALL)
    assert contents(place) == before


def test_never_replaces_a_damaged_snapshot(tmp_path):
    place = tmp_path / "hub"
    save_snapshot(place, **tiny_tables() | {"source": "hub"})
    (place / "models.parquet").unlink()
    with pytest.raises(SnapshotError, match="damaged"):
        get_snapshot("simulate", place, **SMALL)


def test_unknown_source(tmp_path):
    with pytest.raises(ValueError, match="unknown source 'guess'; use 'simulate' or 'crawl'"):
        get_snapshot("guess", tmp_path, **SMALL)
