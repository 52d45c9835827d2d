"""croissant.json: what data catalogues read of a snapshot, checked by their own library."""

import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from builders import tiny_tables

from lrmf.data.snapshot import load_snapshot, save_snapshot


@pytest.fixture(scope="module")
def croissant():
    with warnings.catch_warnings():  # of its own dependencies
        warnings.simplefilter("ignore")
        import mlcroissant

        return mlcroissant


def described(folder):
    return json.loads((folder / "croissant.json").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("binary", [True, False])
def test_the_standard_s_library_reads_every_table(croissant, tmp_path, binary):
    tables = tiny_tables(binary=binary)
    tables["models"]["an odd: column/é"] = np.arange(len(tables["models"]))
    tables["models"]["nothing known"] = pd.array([None] * len(tables["models"]), dtype="string")
    provenance = {"license": "CC0-1.0", "cite_as": "Somebody (2025)", "crawled_at": "2025-01-02"}
    about = {"name": "tiny data $x", "note": "A note\nin “two” lines.", "provenance": provenance}
    snapshot = save_snapshot(tmp_path / "tiny", **tables | about)
    dataset = croissant.Dataset(jsonld=str(tmp_path / "tiny/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    for table in ("models", "items", "lineage"):
        frame = getattr(snapshot, table)
        records = list(dataset.records(table))
        assert len(records) == len(frame)
        first = next(iter(frame))
        names = [record[f"{table}/{first}"].decode() for record in records]
        assert names == frame[first].tolist()
    assert records[0].keys() == {f"lineage/{column}" for column in snapshot.lineage}


def test_it_states_files_and_what_the_manifest_knows(tmp_path):
    save_snapshot(tmp_path / "tiny", **tiny_tables() | {"source": "hub", "note": "From the Hub."})
    content = described(tmp_path / "tiny")
    for entry in content["distribution"]:
        file = (tmp_path / "tiny" / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(file).hexdigest()
    assert {entry["name"] for entry in content["distribution"]} == {
        "models.parquet",
        "items.parquet",
        "lineage.parquet",
        "responses.npy",
    }
    assert "From the Hub." in content["description"]
    assert {key for key in content if key.startswith("rai:")} >= {
        "rai:dataCollection",
        "rai:dataCollectionMissingData",
        "rai:dataBiases",
        "rai:dataLimitations",
    }
    assert "license" not in content  # nothing is known of it


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_snapshot(tmp_path / name, **tiny_tables())
    one, other = ((tmp_path / name / "croissant.json").read_bytes() for name in ("a", "b"))
    assert one == other


@pytest.mark.parametrize("content", [None, b"{broken"])
def test_a_snapshot_loads_without_it_and_can_be_replaced(tmp_path, content):
    save_snapshot(tmp_path / "tiny", **tiny_tables())
    path = tmp_path / "tiny/croissant.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert load_snapshot(tmp_path / "tiny").n_models == 12
    save_snapshot(tmp_path / "tiny", **tiny_tables(), overwrite=True)
    assert described(tmp_path / "tiny")["name"] == "tiny"
