"""What every importer must do: a mixin for test classes, each of which writes files of its kind."""

import json
import random

import numpy as np
import pytest

from lrmf import cli
from lrmf.data.responses import observed
from lrmf.data.snapshot import load_snapshot

MODELS = ["org/alpha-7b", "org/beta-7b", "user/gamma-7b", "user/delta-13b"]


def write(path, content):
    """A file of text, bytes, an object as JSON or a list of objects as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    elif isinstance(content, list):
        content = "".join(f"{json.dumps(row)}\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(snapshot):
    """The responses that are there, by model and item."""
    known = observed(snapshot.responses)
    ids, items = snapshot.models["model_id"], snapshot.items["item_id"]
    return {
        (ids[row], items[column]): round(float(snapshot.responses[row, column]), 6)
        for row, column in np.argwhere(known)
    }


class ImporterContract:
    """Properties of all importers.

    A subclass names its ``source``; ``write_files(folder)`` writes results of `MODELS` and returns
    the cells expected; ``bad`` are files by name that cannot be read.
    """

    source = ""
    bad: dict[str, object] = {}

    @pytest.fixture
    def run(self, tmp_path, capsys):
        """Import paths, in a snapshot of a given name; returns exit code, snapshot and messages."""

        def run(*paths, out="imported", options=()):
            place = tmp_path / out
            argv = ["import", self.source, *map(str, paths), "--out", str(place), *options]
            capsys.readouterr()
            code = cli.main(argv)
            return code, load_snapshot(place) if code == 0 else None, capsys.readouterr().err

        return run

    def test_values_are_those_of_the_files(self, run, tmp_path):
        expected = self.write_files(tmp_path / "files")
        code, snapshot, messages = run(tmp_path / "files")
        assert code == 0
        assert cells(snapshot) == expected
        assert list(snapshot.models["model_id"]) == sorted(MODELS)

    def test_the_snapshot_validates_and_can_be_forecast(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        run(tmp_path / "files")
        place, scores = tmp_path / "imported", tmp_path / "scores.csv"
        assert cli.main(["validate", str(place)]) == 0
        assert cli.main(["predict", str(place), "--out", str(scores)]) == 0
        assert scores.read_text().count("\n") > len(MODELS)

    def test_neither_order_nor_place_of_the_files_matters(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        first = run(tmp_path / "files", out="a/imported")[1]
        (tmp_path / "files").rename(tmp_path / "elsewhere")
        files = [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
        random.Random(0).shuffle(files)
        code, second, _ = run(*files, *files[:2], out="b/imported")
        assert code == 0
        for one in (tmp_path / "a/imported").iterdir():
            assert one.read_bytes() == (tmp_path / "b/imported" / one.name).read_bytes()
        assert first.provenance == second.provenance

    def test_the_manifest_says_where_the_data_are_from(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        snapshot = run(tmp_path / "files")[1]
        assert snapshot.source == self.source
        n_files = sum(path.is_file() for path in (tmp_path / "files").rglob("*"))
        assert snapshot.provenance["imported"]["n_files"] == n_files
        digest = snapshot.provenance["imported"]["sha256"]
        write(tmp_path / "files/more.json", {})
        assert run(tmp_path / "files", out="b")[1].provenance["imported"]["sha256"] != digest

    def test_files_that_cannot_be_read_are_named_and_the_others_are_imported(self, run, tmp_path):
        expected = self.write_files(tmp_path / "files")
        for name, content in self.bad.items():
            write(tmp_path / "files" / name, content)
        missing = tmp_path / "nowhere.json"
        code, snapshot, messages = run(tmp_path / "files", missing)
        assert code == 0
        assert cells(snapshot) == expected
        for name in (*self.bad, missing.name):
            assert name.rpartition("/")[2] in messages
        assert "Traceback" not in messages

    def test_nothing_to_read_is_one_error(self, run, tmp_path):
        (tmp_path / "empty").mkdir()
        assert run(tmp_path / "empty")[0] == 1
        for name, content in self.bad.items():
            code, _, messages = run(write(tmp_path / "alone" / name, content))
            assert code == 1
            assert messages.startswith("lrmf: error: ") and messages.count("\n") == 1
            assert name.rpartition("/")[2] in messages
        assert not (tmp_path / "imported").exists()

    def test_what_is_there_is_not_replaced(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        write(tmp_path / "imported/precious.txt", "data")
        code, _, messages = run(tmp_path / "files")
        assert code == 1 and "imported" in messages
        assert (tmp_path / "imported/precious.txt").read_text() == "data"
