import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_snapshot, tiny_tables
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from lrmf import Lineage, files
from lrmf.data import responses as responses_module
from lrmf.data import snapshot as snapshot_module
from lrmf.data.responses import MISSING, benchmark_scores, observed
from lrmf.data.schema import DATA_FILES, MANIFEST_FILE, find_problems
from lrmf.data.snapshot import SnapshotError, load_snapshot, save_snapshot
from lrmf.simulation.simulate import simulate


def content(tables):
    return [tables[key] for key in ("models", "items", "lineage", "responses")]


def file_bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def refresh_manifest(folder):
    """Make the manifest agree with the files again, so that only their content is at fault."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    for file in DATA_FILES:
        if (folder / file).is_file():
            entry = {"bytes": (folder / file).stat().st_size}
            manifest["files"][file] = entry | {"sha256": snapshot_module._sha256(folder / file)}
    path.write_text(json.dumps(manifest))


def assert_refused(path, *words, verify_checksums=True):
    with pytest.raises(SnapshotError) as caught:
        load_snapshot(path, verify_checksums=verify_checksums)
    for word in words:
        assert word in str(caught.value)
    return caught.value.problems


@pytest.mark.parametrize("binary", [True, False])
def test_a_saved_snapshot_loads_as_it_was(tmp_path, binary):
    tables = tiny_tables(binary=binary)
    provenance = {"endpoint": "https://example.org", "revisions": {"b": "1", "a": "2"}}
    save_snapshot(tmp_path / "tiny", **tables, note="a note", provenance=provenance)
    loaded = load_snapshot(tmp_path / "tiny")
    for table in ("models", "items", "lineage"):
        pd.testing.assert_frame_equal(getattr(loaded, table), tables[table], check_dtype=False)
    assert isinstance(loaded.responses, np.memmap)
    assert loaded.responses.dtype == tables["responses"].dtype
    np.testing.assert_array_equal(loaded.responses, tables["responses"])
    assert (loaded.name, loaded.source, loaded.note) == ("tiny", "simulated", "a note")
    assert loaded.provenance == provenance
    assert loaded.is_binary == binary
    assert (loaded.n_models, loaded.n_edges) == (12, 12)
    assert loaded.benchmarks == ["arc", "bbh", "math"]
    assert "tiny" in repr(loaded)


def test_loaded_responses_cannot_be_changed(tmp_path):
    responses = tiny_snapshot(tmp_path / "tiny").responses
    with pytest.raises(ValueError, match="read-only"):
        responses[0, 0] = 1


@pytest.mark.parametrize("binary", [True, False])
def test_same_content_gives_the_same_bytes(tmp_path, binary):
    tables = tiny_tables(binary=binary)
    save_snapshot(tmp_path / "one", **tables, provenance={"b": 1, "a": 2})
    tables["models"] = tables["models"].set_axis(range(5, 17))
    tables["items"] = tables["items"].astype({"benchmark": "category"})
    tables["responses"] = np.asfortranarray(tables["responses"])
    save_snapshot(tmp_path / "two", **tables, provenance={"a": 2, "b": 1})
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "two")


def test_saving_what_was_loaded_changes_nothing(tmp_path):
    first = tiny_snapshot(tmp_path / "one")
    parts = {key: getattr(first, key) for key in ("models", "items", "lineage", "responses")}
    save_snapshot(tmp_path / "two", **parts, name=first.name, source=first.source)
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "two")


def test_a_part_has_the_rows_of_its_models_and_the_edges_between_them():
    hub = simulate(n_models=60, n_items=90, seed=0)
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    part = hub.of_models(lineage.node_ids[lineage.families == 0])
    assert part.models["model_id"].isin(hub.models["model_id"]).all()
    rows = hub.models.index[hub.models["model_id"].isin(part.models["model_id"])]
    assert (part.responses == hub.responses[rows]).all()
    own = Lineage.from_edges(part.lineage, part.models["model_id"])
    assert own.n_families == 1 and set(own.node_ids) == set(lineage.node_ids[lineage.families == 0])
    assert hub.of_models([]).n_models == hub.of_models([]).n_edges == 0


def test_observed_knows_both_kinds_of_missing():
    np.testing.assert_array_equal(
        observed(np.array([[0, 1, MISSING]], dtype=np.uint8)), [[True, True, False]]
    )
    np.testing.assert_array_equal(observed(np.float32([0, np.nan, 1])), [True, False, True])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 1000, 2**23])
def test_benchmark_scores_are_weighted_means_of_observed_items(monkeypatch, binary, block_bytes):
    monkeypatch.setattr(responses_module, "_BLOCK_BYTES", block_bytes)
    snapshot = tiny_snapshot(binary=binary)
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    assert scores.shape == (12, 3)
    for row in range(12):
        for benchmark in snapshot.benchmarks:
            columns = (snapshot.items["benchmark"] == benchmark).to_numpy()
            z = snapshot.responses[row, columns].astype(float)
            seen = observed(snapshot.responses[row, columns])
            weights = snapshot.items["n_trials"].to_numpy()[columns]
            expected = np.average(z[seen], weights=weights[seen]) if seen.any() else np.nan
            assert scores.loc[row, benchmark] == pytest.approx(expected, nan_ok=True)
    assert scores["math"].isna().sum() == 4


def test_benchmark_scores_of_scattered_columns():
    snapshot = tiny_snapshot()
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    order = np.random.default_rng(0).permutation(snapshot.n_items)
    mixed = benchmark_scores(snapshot.responses[:, order], snapshot.items.iloc[order])
    pd.testing.assert_frame_equal(mixed[scores.columns], scores)
    with pytest.raises(ValueError, match="do not match 39 items"):
        benchmark_scores(snapshot.responses, snapshot.items.iloc[1:])


def test_summary_counts(tmp_path):
    snapshot = tiny_snapshot(tmp_path / "tiny")
    summary = snapshot.summary()
    mask = observed(snapshot.responses)
    assert summary["n_observed"] == mask.sum()
    assert summary["density"] == pytest.approx(mask.mean())
    assert summary["n_with_parent"] == 10
    assert summary["share_with_parent"] == pytest.approx(10 / 12)
    assert summary["n_unscored_ancestors"] == 2
    assert summary["n_unobserved_models"] == 0
    by_benchmark = summary["by_benchmark"].set_index("benchmark")
    assert by_benchmark["n_items"].to_dict() == {"arc": 14, "bbh": 16, "math": 10}
    assert by_benchmark.loc["math", "n_models"] == 8
    is_math = (snapshot.items["benchmark"] == "math").to_numpy()
    assert by_benchmark.loc["math", "density"] == pytest.approx(mask[:, is_math].mean())
    by_relation = summary["by_relation"].set_index("relation")["n_edges"].to_dict()
    assert by_relation == {"finetune": 6, "merge": 4, "adapter": 1, "quantized": 1}


def set_value(table, column, row, value):
    def change(tables):
        frame = tables[table].astype({column: object})
        frame.loc[row, column] = value
        tables[table] = frame

    return change


def set_response(value, kind=np.uint8):
    def change(tables):
        tables["responses"] = tables["responses"].astype(kind)
        tables["responses"][3, 5] = value

    return change


def replace(key, function):
    def change(tables):
        tables[key] = function(tables[key])

    return change


def proportion(value):
    def change(tables):
        tables["responses"] = np.full((12, 40), 0.5, dtype=np.float32)
        tables["responses"][3, 5] = value

    return change


FAULTS = {
    "duplicate model": (set_value("models", "model_id", 1, "gpt2"), "models.parquet", "'gpt2'"),
    "empty model": (set_value("models", "model_id", 4, ""), "'model_id'", "row 4"),
    "null model": (set_value("models", "model_id", 4, None), "'model_id'", "row 4"),
    "number as model": (set_value("models", "model_id", 4, 7), "'model_id'", "7 in row 4"),
    "control character": (set_value("models", "model_id", 4, "a/b\n"), "'a/b\\n'"),
    "inner control": (set_value("models", "model_id", 4, "a/\x1bb"), "control characters"),
    "parent folder": (set_value("models", "model_id", 4, "a/../b"), "file path"),
    "absolute path": (set_value("models", "model_id", 4, "/etc/x"), "file path"),
    "drive": (set_value("models", "model_id", 4, "C:\\x"), "file path"),
    "size as text": (set_value("models", "params_b", 4, "7B"), "'params_b'", "'7B'"),
    "infinite size": (set_value("models", "params_b", 4, np.inf), "'params_b'"),
    "flag as text": (set_value("models", "merged", 4, "yes"), "'merged'", "'yes'"),
    "architecture number": (set_value("models", "architecture", 4, 3), "'architecture'", "3"),
    "duplicate item": (set_value("items", "item_id", 1, "arc/arc/0"), "items.parquet", "arc/arc/0"),
    "null benchmark": (set_value("items", "benchmark", 1, None), "'benchmark'", "row 1"),
    "zero trials": (replace("items", lambda t: t.assign(n_trials=[0] + 39 * [1])), "'arc/arc/0'"),
    "too many trials": (replace("items", lambda t: t.assign(n_trials=2**62)), "'arc/arc/0'"),
    "lone surrogate": (
        replace("models", lambda t: t.astype({"model_id": object}).replace("gpt2", "\udcff")),
        "'\\udcff' in row",
    ),
    "float trials": (
        replace("items", lambda t: t.assign(n_trials=1.0)),
        "'n_trials'",
        "1.0 in row 0",
    ),
    "text trials": (replace("items", lambda t: t.assign(n_trials="1")), "'n_trials'"),
    "unknown relation": (set_value("lineage", "relation", 2, "cousin"), "'cousin'", "finetune"),
    "null relation": (set_value("lineage", "relation", 2, None), "'relation'", "None"),
    "list as relation": (set_value("lineage", "relation", 2, ("a",)), "'relation'"),
    "null parent": (set_value("lineage", "parent", 2, None), "'parent'", "row 2"),
    "null child": (set_value("lineage", "child", 2, None), "'child'", "row 2"),
    "no model column": (replace("models", lambda t: t.drop(columns="model_id")), "'model_id'"),
    "no trials": (replace("items", lambda t: t.drop(columns="n_trials")), "'n_trials'", "lacks"),
    "no relation": (replace("lineage", lambda t: t.drop(columns="relation")), "'relation'"),
    "twice a column": (replace("models", lambda t: pd.concat([t, t], axis=1)), "repeats column"),
    "no models": (replace("models", lambda t: t.iloc[:0]), "models.parquet: has no rows"),
    "no items": (replace("items", lambda t: t.iloc[:0]), "items.parquet: has no rows"),
    "not a table": (replace("lineage", lambda t: t.to_dict()), "lineage.parquet", "dict"),
    "not an array": (replace("responses", lambda z: z.tolist()), "responses.npy", "list"),
    "answer 2": (set_response(2), "2 at model_id 'user/alpha-merge', item_id 'arc/arc/5'"),
    "doubles": (replace("responses", lambda z: z.astype(float)), "float64"),
    "integers": (replace("responses", lambda z: z.astype(int)), "int64"),
    "above one": (proportion(1.5), "in [0, 1]", "1.5"),
    "below zero": (proportion(-0.1), "in [0, 1]"),
    "infinite": (proportion(np.inf), "in [0, 1]", "inf"),
    "all missing": (replace("responses", lambda z: np.full_like(z, MISSING)), "every value"),
    "too few rows": (replace("responses", lambda z: z[1:]), "11 rows", "12 rows"),
    "too few columns": (replace("responses", lambda z: z[:, 1:]), "39 columns"),
    "flat": (replace("responses", np.ravel), "(480,)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nothing_is_written(tmp_path, fault):
    change, *words = FAULTS[fault]
    tables = tiny_tables()
    change(tables)
    problems = find_problems(*content(tables))
    assert problems
    for word in words:
        assert any(word in problem for problem in problems), problems
    with pytest.raises(SnapshotError) as caught:
        save_snapshot(tmp_path / "tiny", **tables)
    assert caught.value.problems == problems
    assert not list(tmp_path.iterdir())


def test_periods_are_refused_rather_than_stored_as_integers(tmp_path):
    tables = tiny_tables()
    months = pd.period_range("2024-01", periods=len(tables["models"]), freq="M")
    tables["models"] = tables["models"].assign(created_at=months)
    with pytest.raises(SnapshotError, match="'created_at'.*periods"):
        save_snapshot(tmp_path / "tiny", **tables)
    assert not list(tmp_path.iterdir())


def test_all_problems_are_reported_at_once():
    tables = tiny_tables()
    for fault in ("duplicate model", "null benchmark", "unknown relation", "answer 2"):
        FAULTS[fault][0](tables)
    problems = find_problems(*content(tables))
    files = [problem.split(":")[0] for problem in problems]
    assert files == ["models.parquet", "items.parquet", "lineage.parquet", "responses.npy"]
    error = SnapshotError(problems, "here")
    assert all(problem in str(error) for problem in problems)
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, str(again)) == (problems, str(error))


def test_long_lists_of_culprits_are_abbreviated():
    tables = tiny_tables()
    tables["models"]["model_id"] = ""
    (problem,) = find_problems(*content(tables))
    assert "12 empty" in problem
    assert "and 9 more" in problem
    assert len(problem) < 200


def test_odd_but_legal_content_is_no_problem(tmp_path):
    tables = tiny_tables()
    odd = [
        ("gpt2", "gpt2", "finetune"),
        ("base/alpha", "lab/alpha-chat", "finetune"),
        ("lab/alpha-chat", "base/alpha", "merge"),
        ("nobody/a", "nobody/b", "adapter"),
    ]
    lineage = tables["lineage"]
    tables["lineage"] = pd.concat([lineage, pd.DataFrame(odd, columns=lineage.columns)])
    tables["models"] = tables["models"].assign(likes=None, license=None, params_b=-1.0, extra="x")
    tables["responses"][4] = MISSING
    assert save_snapshot(tmp_path / "odd", **tables).n_edges == 16
    tables["lineage"] = lineage.iloc[:0]
    assert save_snapshot(tmp_path / "none", **tables).summary()["share_with_parent"] == 0


def test_a_bad_header_is_refused(tmp_path):
    tables = tiny_tables()
    for bad in ({"name": ""}, {"name": "a\ud800"}, {"source": None}):
        with pytest.raises(SnapshotError, match=r"snapshot\.json"):
            save_snapshot(tmp_path / "tiny", **tables | bad)
    for provenance in ({"files": {}}, {"time": object()}, {1: 2, "a": 3}, ["a"], {"x": np.nan}):
        with pytest.raises(SnapshotError, match=r"snapshot\.json"):
            save_snapshot(tmp_path / "tiny", **tables, provenance=provenance)
    with pytest.raises(SnapshotError, match=r"models\.parquet.*no single type"):
        mixed = tables["models"].assign(extra=[1, "a", *10 * [None]])
        save_snapshot(tmp_path / "tiny", **tables | {"models": mixed})
    assert not list(tmp_path.iterdir())


def test_what_is_no_snapshot_directory_is_refused(tmp_path):
    assert_refused(tmp_path / "nowhere", "does not exist")
    assert_refused(tmp_path, MANIFEST_FILE, "responses.npy: is missing")
    assert_refused(tmp_path / ("x" * 5000), "name too long")
    file = tmp_path / "file"
    file.write_text("")
    assert_refused(file, "is a file")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "not valid JSON"),
        (b'{"name": "\xff\xfe"}', "not valid JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "lacks 'schema_version'"),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path, text, word):
    tiny_snapshot(tmp_path / "tiny")
    (tmp_path / "tiny" / MANIFEST_FILE).write_bytes(text)
    assert_refused(tmp_path / "tiny", MANIFEST_FILE, word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"schema_version": True}, "schema_version is True"),
        ({"name": 3}, "name is 3"),
        ({"n_models": 13}, "n_models is 13, but models.parquet has 12"),
        ({"n_edges": "12"}, "n_edges is '12'"),
        ({"n_items": -1}, "n_items is -1"),
        ({"files": []}, "files is []"),
        ({"files": {}}, "lacks bytes and sha256 of models.parquet"),
        ({"extra": float("nan")}, "cannot be stored as JSON"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, change, word):
    tiny_snapshot(tmp_path / "tiny")
    path = tmp_path / "tiny" / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(tmp_path / "tiny", MANIFEST_FILE, word)


@pytest.mark.parametrize("file", DATA_FILES)
def test_damaged_files_are_refused(tmp_path, file):
    source = tmp_path / "tiny"
    tiny_snapshot(source)
    whole = (source / file).read_bytes()
    damages = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "noise": bytes(range(256)) * 10,
        "pickle": pickle.dumps({"a": 1}),
    }
    for damaged in damages.values():
        (source / file).write_bytes(damaged)
        assert_refused(source, f"{file}: has ", f"{file}: cannot be read")
        refresh_manifest(source)
        assert_refused(source, f"{file}: cannot be read")
    (source / file).unlink()
    assert_refused(source, f"{file}: is missing")
    (source / file).mkdir()
    assert_refused(source, f"{file}: is not a file")


def test_a_wrong_checksum_is_found_unless_skipped(tmp_path):
    tiny_snapshot(tmp_path / "tiny")
    path = tmp_path / "tiny" / "responses.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] = 1 - raw[-1] if raw[-1] < 2 else 0
    path.write_bytes(raw)
    (problem,) = assert_refused(tmp_path / "tiny", "responses.npy: its sha256")
    assert "write the snapshot anew" in problem
    load_snapshot(tmp_path / "tiny", verify_checksums=False)


class Explosive:
    """Touches a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path):
    tiny_snapshot(tmp_path / "tiny")
    path, trace = tmp_path / "tiny" / "responses.npy", tmp_path / "trace"
    bomb = np.full((12, 40), Explosive(trace), dtype=object)
    np.save(path, bomb, allow_pickle=True)
    refresh_manifest(tmp_path / "tiny")
    assert_refused(tmp_path / "tiny", "responses.npy: cannot be read")
    path.write_bytes(pickle.dumps(Explosive(trace)))
    assert_refused(tmp_path / "tiny", "responses.npy", verify_checksums=False)
    np.savez(tmp_path / "archive.npz", np.zeros((12, 40), dtype=np.uint8))
    shutil.copy(tmp_path / "archive.npz", path)
    assert_refused(tmp_path / "tiny", "responses.npy", verify_checksums=False)
    assert not trace.exists()


@pytest.mark.parametrize("shape", [(0, 40), (12, 0), (12,), ()])
def test_empty_or_flat_responses_are_refused(tmp_path, shape):
    tiny_snapshot(tmp_path / "tiny")
    np.save(tmp_path / "tiny" / "responses.npy", np.zeros(shape, dtype=np.uint8))
    refresh_manifest(tmp_path / "tiny")
    assert_refused(tmp_path / "tiny", "responses.npy")


def test_parquet_oddities_are_read_or_refused(tmp_path):
    tiny_snapshot(tmp_path / "tiny")
    path = tmp_path / "tiny" / "models.parquet"
    table = pq.read_table(path)
    coded = table.set_column(0, "model_id", table["model_id"].dictionary_encode())
    pq.write_table(coded, path)
    refresh_manifest(tmp_path / "tiny")
    assert load_snapshot(tmp_path / "tiny").models["model_id"].tolist()[-1] == "gpt2"
    nested = pa.array([[1, 2]] * 12)
    for column in ("params_b", "merged", "architecture", "model_id"):
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, nested), path)
        refresh_manifest(tmp_path / "tiny")
        assert_refused(tmp_path / "tiny", "models.parquet", column)
    wrong_text = pa.array([b"\xff\xfe"] * 12).cast(pa.string(), safe=False)
    pq.write_table(table.append_column("bad", wrong_text), path)
    refresh_manifest(tmp_path / "tiny")
    assert_refused(tmp_path / "tiny", "models.parquet: cannot be read")


bad_values = st.sampled_from([None, "", " ", "a\x00", "../x", "/x", -1, 0, 2.5, np.inf, True, "z"])


@st.composite
def damaged_snapshots(draw):
    """A function that spoils the files of a valid snapshot in one of many ways."""
    file = draw(st.sampled_from([MANIFEST_FILE, *DATA_FILES]))
    kind = draw(st.sampled_from(["cut", "flip", "replace", "append", "remove", "table"]))
    where, value = draw(st.floats(0, 0.999)), draw(st.integers(1, 255))
    noise = draw(st.binary(max_size=50))
    table = draw(st.sampled_from(["models", "items", "lineage"]))
    bad, way = (
        draw(bad_values),
        draw(st.sampled_from(["cell", "column", "repeat", "row", "rename"])),
    )

    def spoil(folder):
        if kind == "table":
            spoil_table(folder / f"{table}.parquet", way, where, bad)
            return
        path = folder / file
        raw = bytearray(path.read_bytes())
        place = int(where * len(raw))
        if kind == "flip":
            raw[place] ^= value
        new = {"cut": raw[:place], "flip": raw, "replace": noise, "append": raw + noise}
        path.unlink()
        if kind != "remove":
            path.write_bytes(new[kind])

    return spoil


def spoil_table(path, way, where, bad):
    frame = pq.read_table(path).to_pandas()
    row, column = int(where * len(frame)), frame.columns[int(where * frame.shape[1])]
    if way == "cell":
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = bad
    elif way == "column":
        frame[column] = bad
    elif way == "repeat":
        frame = pd.concat([frame, frame.iloc[[row]]])
    elif way == "row":
        frame = frame.drop(index=row)
    else:
        frame = frame.rename(columns={column: "other"})
    try:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    except (pa.ArrowException, TypeError):
        frame[column] = frame[column].astype(str)
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "tiny"
    tiny_snapshot(folder)
    return folder


@fuzz(300)
@given(spoil=damaged_snapshots(), refresh=st.booleans(), verify=st.booleans())
def test_a_damaged_snapshot_ends_in_a_snapshot_error_or_is_valid(
    pristine, tmp_path, spoil, refresh, verify
):
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder)
    before = file_bytes(folder)
    spoil(folder)
    if refresh and file_bytes(folder).get(MANIFEST_FILE) == before[MANIFEST_FILE]:
        refresh_manifest(folder)
    try:
        loaded = load_snapshot(folder, verify_checksums=verify)
    except SnapshotError as error:
        named = (MANIFEST_FILE, *DATA_FILES)
        assert error.problems
        assert all(problem.startswith(named) for problem in error.problems)
        assert len(str(error)) < 20_000
    else:
        parts = (loaded.models, loaded.items, loaded.lineage, loaded.responses)
        assert find_problems(*parts) == []
        loaded.summary()


def fail_with(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["_write_table", "_write_responses", "_sync", "_swap_in"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_save_leaves_everything_as_it_was(tmp_path, monkeypatch, error, step, existing):
    target = tmp_path / "tiny"
    if existing:
        tiny_snapshot(target)
    before = file_bytes(target) if existing else None
    module = snapshot_module if hasattr(snapshot_module, step) else files
    monkeypatch.setattr(module, step, fail_with(error))
    expected = SnapshotError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save_snapshot(target, **tiny_tables(seed=1), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == (["tiny"] if existing else [])
    if existing:
        assert file_bytes(target) == before


@pytest.mark.parametrize("call", [1, 2])
def test_a_failed_swap_puts_the_old_snapshot_back(tmp_path, monkeypatch, call):
    target = tmp_path / "tiny"
    tiny_snapshot(target)
    before = file_bytes(target)
    rename, calls = os.rename, []

    def fail_once(source, destination):
        calls.append(source)
        if len(calls) == call:
            raise OSError(5, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_once)
    monkeypatch.setattr(files, "_exchange", fail_with(OSError(22, "Invalid argument")))
    with pytest.raises(SnapshotError, match="Input/output error"):
        save_snapshot(target, **tiny_tables(seed=1), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert file_bytes(target) == before


def test_overwriting_must_be_asked_for_and_replaces_only_snapshots(tmp_path):
    target = tmp_path / "tiny"
    target.mkdir()
    first = tiny_snapshot(target)
    with pytest.raises(SnapshotError, match="already exists"):
        save_snapshot(target, **tiny_tables(seed=1))
    tables = tiny_tables(seed=1) | {"responses": first.responses}
    again = save_snapshot(target, **tables, overwrite=True)
    np.testing.assert_array_equal(again.responses, first.responses)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(SnapshotError, match=r"'thesis\.tex'"):
        save_snapshot(target, **tables, overwrite=True)
    with pytest.raises(SnapshotError, match="'tiny', so it is not only a snapshot"):
        save_snapshot(tmp_path, **tables, overwrite=True)
    with pytest.raises(SnapshotError, match="is an existing file"):
        save_snapshot(target / "thesis.tex", **tables, overwrite=True)
    assert (target / "thesis.tex").exists()


def test_an_unwritable_place_is_one_clear_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match="cannot be written") as caught:
        save_snapshot(tmp_path / "file" / "tiny", **tiny_tables())
    assert "choose a writable folder" in str(caught.value)
    with pytest.raises(SnapshotError, match="cannot be written"):
        save_snapshot(tmp_path / ("x" * 5000), **tiny_tables())


def test_blocks_do_not_change_what_is_found(monkeypatch):
    tables = tiny_tables()
    set_response(7)(tables)
    whole = find_problems(*content(tables))
    monkeypatch.setattr(responses_module, "_BLOCK_BYTES", 1)
    assert find_problems(*content(tables)) == whole


@pytest.mark.parametrize(
    ("name", "shape", "n_edges"),
    [("openllm-v1-items", (4318, 493), 657), ("openllm-v2", (2198, 6), 1311)],
)
def test_the_real_snapshots_load(real_data, name, shape, n_edges):
    snapshot = load_snapshot(real_data / name)
    assert snapshot.responses.shape == shape
    assert snapshot.n_edges == n_edges
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    assert scores.min().min() >= 0
    assert scores.max().max() <= 1
