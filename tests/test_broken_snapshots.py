"""Broken snapshots are refused, of answers and of proportions, whatever is damaged."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from test_snapshot import refresh_manifest

from lrmf import cli
from lrmf.data.schema import DATA_FILES, MANIFEST_FILE

MODELS, ITEMS, LINEAGE, RESPONSES = (
    next(name for name in DATA_FILES if name.startswith(kind))
    for kind in ("models", "items", "lineage", "responses")
)


def manifest(change):
    """Damage to the manifest's content."""

    def spoil(folder):
        content = json.loads((folder / MANIFEST_FILE).read_text())
        change(content)
        (folder / MANIFEST_FILE).write_text(json.dumps(content))

    return spoil


def listed(name):
    """A file that the manifest should not name."""
    return manifest(
        lambda content: content["files"].update({name: {"bytes": 1, "sha256": "0" * 64}})
    )


def bytes_of(name, change, *, refresh=True):
    """Damage to the bytes of a file; with ``refresh`` size and checksum agree with it."""

    def spoil(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        if refresh:
            refresh_manifest(folder)

    return spoil


def table(name, column, value):
    """Another value in the second row of a table."""

    def spoil(folder):
        frame = pd.read_parquet(folder / name)
        frame.loc[1, column] = frame.loc[0, column] if value == "that of the first row" else value
        frame.to_parquet(folder / name)
        refresh_manifest(folder)

    return spoil


def responses(change):
    def spoil(folder):
        np.save(folder / RESPONSES, change(np.load(folder / RESPONSES)), allow_pickle=True)
        refresh_manifest(folder)

    return spoil


def out_of_range(values):
    values[3, 2] = 2
    return values


DAMAGE = {
    "no manifest": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "a manifest that breaks off": bytes_of(MANIFEST_FILE, lambda text: text[:-9], refresh=False),
    "a manifest that is a list": bytes_of(MANIFEST_FILE, lambda _: b"[1]", refresh=False),
    "no version": manifest(lambda content: content.pop("schema_version")),
    "another version": manifest(lambda content: content.update(schema_version=99)),
    "another number of models": manifest(lambda content: content.update(n_models=3)),
    "a file outside of the folder": listed("../models.parquet"),
    "a file that the format does not know": listed("weights.bin"),
    **{f"no {name}": lambda folder, name=name: (folder / name).unlink() for name in DATA_FILES},
    "a flipped bit": bytes_of(RESPONSES, lambda b: b[:-1] + bytes([b[-1] ^ 1]), refresh=False),
    "models that break off": bytes_of(MODELS, lambda content: content[: len(content) // 2]),
    "responses that break off": bytes_of(RESPONSES, lambda content: content[:-7]),
    "pickled responses": responses(lambda values: values.astype(object)),
    "a model twice": table(MODELS, "model_id", "that of the first row"),
    "a model without id": table(MODELS, "model_id", None),
    "an id that leads out of the folder": table(MODELS, "model_id", "../x"),
    "an item twice": table(ITEMS, "item_id", "that of the first row"),
    "an item without benchmark": table(ITEMS, "benchmark", None),
    "an item without questions": table(ITEMS, "n_trials", 0),
    "an unknown relation": table(LINEAGE, "relation", "cousin"),
    "an edge without parent": table(LINEAGE, "parent", None),
    "a model without responses": responses(lambda values: values[1:]),
    "a value that is none": responses(out_of_range),
}


@pytest.fixture(scope="module", params=[True, False], ids=["answers", "proportions"])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "snapshot"
    tiny_snapshot(folder, binary=request.param)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_snapshot_is_refused(whole, damage, tmp_path, command):
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)
    DAMAGE[damage](folder)
    assert_refused(*command("validate", folder))


def test_nothing_is_forecast_from_a_broken_snapshot(whole, tmp_path, command):
    folder, out = tmp_path / "broken", tmp_path / "forecast.csv"
    shutil.copytree(whole, folder)
    next(iter(DAMAGE.values()))(folder)
    assert_refused(*command("predict", folder, "--out", out))
    assert not out.exists()


def assert_refused(code, out, err):
    assert code == 1 and out == ""
    assert "error:" in err and "Traceback" not in err


@pytest.mark.parametrize("refresh", [False, True])
def test_the_whole_one_is_accepted(whole, tmp_path, refresh):
    """Damage is refused for what it is, not for how the test does it."""
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    if refresh:
        responses(lambda values: values)(folder)
        frame = pd.read_parquet(folder / MODELS)
        frame.to_parquet(folder / MODELS)
        refresh_manifest(folder)
    assert cli.main(["validate", str(folder)]) == 0
