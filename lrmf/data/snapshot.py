"""The snapshot: the one data format that everything reads and writes.

A snapshot is a directory with four data files and a manifest (schema version 1):

``snapshot.json``
    Schema version, name, source, note, counts, and bytes and SHA-256 of every file.
``models.parquet``
    One row a model: ``model_id`` and whatever is known of it; unknown is null.
``items.parquet``
    One row a column of the responses: ``item_id``, ``benchmark``, ``subtask``, ``n_trials``.
``lineage.parquet``
    ``parent``, ``child``, ``relation``. Parents without a row in models are unscored ancestors.
``responses.npy``
    ``(n_models, n_items)``: ``uint8`` answers 0/1 with 255 = not evaluated, or ``float32``
    proportions in [0, 1] with NaN = not evaluated.

``croissant.json`` beside them describes the same to data catalogues; nothing here reads it.

Loading reports all problems at once; saving is atomic and its bytes depend on the content only.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import output_folder
from .croissant import CROISSANT_FILE, describe_as_croissant
from .response_kinds import ANSWERS, kind_of
from .responses import benchmark_scores, observed_by_benchmark, row_blocks, unmasked
from .schema import (
    DATA_FILES,
    DESCRIPTION_FILE,
    MANIFEST_FILE,
    RELATIONS,
    RESPONSES_FILE,
    SCHEMA_VERSION,
    TABLE_FILES,
    content_problems,
    find_problems,
    is_count,
    is_text,
    one_line,
    quote,
    some,
)

_COUNTS = {"n_models": "models", "n_items": "items", "n_edges": "lineage"}
_DAMAGED = "the file was damaged or changed: restore it or write the snapshot anew"
# Keys of the manifest: a test of the value, and what the value must be.
_MANIFEST = {
    "schema_version": (
        lambda value: is_count(value) and value == SCHEMA_VERSION,
        f"{SCHEMA_VERSION} for this version of lrmf; update lrmf or write the snapshot anew",
    ),
    **dict.fromkeys(
        ("name", "source"),
        (lambda value: is_text(value) and value.strip(), "a text that is not empty"),
    ),
    "note": (is_text, "a text"),
    **dict.fromkeys(_COUNTS, (is_count, "a whole number")),
    "files": (lambda value: isinstance(value, dict), "an object {name: {bytes, sha256}}"),
}


class SnapshotError(ValueError):
    """A snapshot that cannot be read, or data that cannot become one.

    Attributes
    ----------
    problems : list of str
        Every problem found; each names the file, the column or id, and the way out.

    Examples
    --------
    >>> try:
    ...     load_snapshot("nowhere")
    ... except SnapshotError as error:
    ...     print(error)
    nowhere: does not exist; create a snapshot with `lrmf simulate`, or check the path
    """

    def __init__(self, problems: list[str] | str, where: str | os.PathLike | None = None):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.where = None if where is None else os.fspath(where)
        super().__init__(self.problems, self.where)

    def __str__(self) -> str:
        prefix = "" if self.where is None else f"{self.where}: "
        if len(self.problems) == 1:
            return prefix + self.problems[0]
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{prefix}{len(self.problems)} problems{listed}"


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """Models, items, lineage and responses of one simulated or collected leaderboard.

    Attributes
    ----------
    name, source, note : str
        What it is, where it comes from (``simulated``, ``hub``, ``public-leaderboard``, ...), and
        anything a reader of its results should know.
    models : DataFrame, n_models rows
    items : DataFrame, n_items rows
    lineage : DataFrame, n_edges rows
        As recorded: `lrmf.Lineage` removes self-loops, duplicates and cycles and reports them.
    responses : ndarray of shape (n_models, n_items)
        ``uint8`` (255 = not evaluated) or ``float32`` (NaN = not evaluated); a read-only
        memory map when loaded.
    provenance : dict
        Further keys of the manifest, such as a crawl's endpoint, revisions and time.

    Examples
    --------
    >>> from lrmf.simulation.simulate import simulate
    >>> hub = simulate(n_models=60, n_items=90, seed=0)
    >>> hub
    Snapshot('simulated', source='simulated', n_models=60, n_items=90, n_edges=25)
    >>> hub.benchmarks
    ['ifeval', 'bbh', 'math', 'gpqa', 'musr', 'mmlu_pro']
    >>> hub.summary()["n_with_parent"]
    18
    """

    name: str
    source: str
    note: str
    models: pd.DataFrame
    items: pd.DataFrame
    lineage: pd.DataFrame
    responses: np.ndarray
    provenance: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Snapshot({self.name!r}, source={self.source!r}, n_models={self.n_models}, "
            f"n_items={self.n_items}, n_edges={self.n_edges})"
        )

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.models)

    @property
    def n_items(self) -> int:
        """Number of columns of the responses."""
        return len(self.items)

    @property
    def n_edges(self) -> int:
        """Number of recorded edges."""
        return len(self.lineage)

    @property
    def is_binary(self) -> bool:
        """Whether the responses are 0/1 answers rather than proportions."""
        return kind_of(self.responses) is ANSWERS

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks in the order in which the columns first mention them."""
        return list(dict.fromkeys(self.items["benchmark"]))

    def of_models(self, model_ids) -> "Snapshot":
        """The part about some models: their rows, and the edges between these ids.

        Parameters
        ----------
        model_ids : sequence of str
            Ids of unscored ancestors keep their edges; other ids are ignored.

        Examples
        --------
        >>> from lrmf.simulation.simulate import simulate
        >>> hub = simulate(n_models=60, n_items=90, seed=0)
        >>> hub.of_models(hub.models["model_id"][:20])
        Snapshot('simulated', source='simulated', n_models=20, n_items=90, n_edges=1)
        """
        rows = np.flatnonzero(self.models["model_id"].isin(model_ids))
        has_both = self.lineage[["parent", "child"]].isin(list(model_ids)).all(axis=1)
        return replace(
            self,
            models=self.models.iloc[rows].reset_index(drop=True),
            lineage=self.lineage[has_both].reset_index(drop=True),
            responses=np.asarray(self.responses[rows]),
        )

    def summary(self) -> dict:
        """Counts that describe the snapshot, as plain values and small frames.

        Returns
        -------
        dict
            ``name, source, note, responses`` ("answers" or "proportions"); ``n_models, n_items,
            n_edges, n_observed``; ``density`` (share of cells observed); ``n_unobserved_models``;
            ``n_with_parent, share_with_parent`` (models with at least one known parent);
            ``n_unscored_ancestors`` (lineage ids without a row in models); ``by_benchmark``
            (DataFrame: benchmark, n_items, n_trials, n_models observed at all, density, mean score
            over those models); ``by_relation`` (DataFrame: relation, n_edges, n_children).
        """
        model_ids = set(self.models["model_id"])
        linked = self.lineage[self.lineage["parent"] != self.lineage["child"]]
        n_with_parent = len(model_ids.intersection(linked["child"]))
        outside = {*self.lineage["parent"], *self.lineage["child"]} - model_ids
        counts = observed_by_benchmark(self.responses, self.items)
        n_observed = int(counts.sum())
        return {
            "name": self.name,
            "source": self.source,
            "note": self.note,
            "responses": kind_of(self.responses).name,
            "n_models": self.n_models,
            "n_items": self.n_items,
            "n_edges": self.n_edges,
            "n_observed": n_observed,
            "density": n_observed / (self.n_models * self.n_items),
            "n_unobserved_models": int((counts.sum(axis=1) == 0).sum()),
            "n_with_parent": n_with_parent,
            "share_with_parent": n_with_parent / self.n_models,
            "n_unscored_ancestors": len(outside),
            "by_benchmark": self._by_benchmark(counts),
            "by_relation": self._by_relation(),
        }

    def _by_benchmark(self, counts: np.ndarray) -> pd.DataFrame:
        groups = self.items.groupby("benchmark", sort=False, observed=True)
        n_items = groups.size().to_numpy()
        scores = benchmark_scores(self.responses, self.items)
        return pd.DataFrame(
            {
                "benchmark": self.benchmarks,
                "n_items": n_items,
                "n_trials": groups["n_trials"].sum().to_numpy(),
                "n_models": (counts > 0).sum(axis=0),
                "density": counts.sum(axis=0) / (n_items * self.n_models),
                "mean_score": scores.mean().to_numpy(),
            }
        )

    def _by_relation(self) -> pd.DataFrame:
        children = self.lineage.groupby("relation")["child"]
        frame = children.agg(n_edges="size", n_children="nunique")
        frame = frame.reindex(list(RELATIONS), fill_value=0).astype(int)
        return frame.rename_axis("relation").reset_index()


def load_snapshot(path: str | os.PathLike, *, verify_checksums: bool = True) -> Snapshot:
    """Read and check a snapshot; the responses stay on disk as a read-only memory map.

    Parameters
    ----------
    path : path of the snapshot's directory
    verify_checksums : bool
        Compare the SHA-256 of every file with the manifest. Sizes are always compared.

    Raises
    ------
    SnapshotError
        With every problem found in the manifest, the files, the ids and the values.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            what = "is a file; give the directory that holds snapshot.json"
            if not folder.exists():
                what = "does not exist; create a snapshot with `lrmf simulate`, or check the path"
            raise SnapshotError(what, path)
        # Load again if another snapshot took the place meanwhile: never half of each.
        while True:
            before = _identity(folder)
            try:
                snapshot = _load(folder, verify_checksums=verify_checksums)
            except (SnapshotError, OSError):
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return snapshot
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise SnapshotError(f"{what}; check the path", path) from error


def _identity(folder: Path) -> tuple | None:
    """Tells one manifest from another that has taken its place; None without any."""
    try:
        status = (folder / MANIFEST_FILE).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _load(folder: Path, *, verify_checksums: bool) -> Snapshot:
    manifest, problems = _read_manifest(folder / MANIFEST_FILE)
    problems += _file_problems(folder, manifest, verify_checksums=verify_checksums)
    tables = {
        table: _read_or_report(_read_table, folder / file, problems)
        for table, file in TABLE_FILES.items()
    }
    # Unlike np.load this opens nothing but a plain array: no pickle, no archive.
    open_array = partial(np.lib.format.open_memmap, mode="r")
    responses = _read_or_report(open_array, folder / RESPONSES_FILE, problems)
    problems += content_problems(tables, responses)
    for count, table in _COUNTS.items():
        frame, said = tables[table], manifest.get(count)
        if frame is not None and is_count(said) and said != len(frame):
            problems.append(
                f"{MANIFEST_FILE}: {count} is {said}, but {TABLE_FILES[table]} has {len(frame)} "
                "rows; write the snapshot anew"
            )
    if problems:
        raise SnapshotError(problems, folder)
    return Snapshot(
        name=manifest["name"],
        source=manifest["source"],
        note=manifest["note"],
        responses=responses,
        provenance={key: manifest[key] for key in manifest if key not in _MANIFEST},
        **tables,
    )


def save_snapshot(
    path: str | os.PathLike,
    *,
    models: pd.DataFrame,
    items: pd.DataFrame,
    lineage: pd.DataFrame,
    responses: np.ndarray,
    name: str,
    source: str,
    note: str = "",
    provenance: dict | None = None,
    overwrite: bool = False,
    keep_others: bool = False,
) -> Snapshot:
    """Check the data and write them as a snapshot: completely, or not at all.

    Everything is written to a hidden directory beside ``path`` and renamed when complete, so an
    error or Ctrl-C leaves neither a partial snapshot nor a damaged old one. The same content gives
    the same bytes.

    Parameters
    ----------
    path : path of the directory to create
    models, items, lineage : DataFrame
    responses : ndarray of shape (n_models, n_items), ``uint8`` or ``float32``, may be memory-mapped
    name, source, note : str
    provenance : dict, optional
        Further manifest keys, JSON-serialisable.
    overwrite : bool
        Replace an existing snapshot at ``path``. Anything else at ``path`` is never replaced;
        hidden files beside the snapshot stay.
    keep_others : bool
        Write into the folder at ``path`` whatever it holds; other files stay.

    Returns
    -------
    Snapshot
        The written snapshot, memory-mapped from its new place.

    Raises
    ------
    SnapshotError
        If the data are not a valid snapshot or the place cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from lrmf.simulation.simulate import simulate
    >>> hub = simulate(n_models=60, n_items=90, seed=0)
    >>> tables = {"models": hub.models, "items": hub.items, "lineage": hub.lineage}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = f"{folder}/mine"
    ...     _ = save_snapshot(place, **tables, responses=hub.responses, name="mine", source="own")
    ...     load_snapshot(place)
    Snapshot('mine', source='own', n_models=60, n_items=90, n_edges=25)
    """
    manifest = {"schema_version": SCHEMA_VERSION, "name": name, "source": source, "note": note}
    provenance = {} if provenance is None else provenance
    problems = _provenance_problems(provenance)
    if not problems:
        manifest |= dict(sorted(provenance.items()))
    problems += _manifest_problems(manifest)
    responses = unmasked(responses)
    problems += find_problems(models, items, lineage, responses)
    tables = {"models": models, "items": items, "lineage": lineage}
    try:
        target = Path(path).resolve()
        if not keep_others:
            problems += _target_problems(target, overwrite=overwrite)
        if problems:
            raise SnapshotError(problems, path)
        manifest |= {count: len(tables[table]) for count, table in _COUNTS.items()}
        with output_folder(target, last=MANIFEST_FILE, keep_others=True) as folder:
            _write_files(folder, manifest, tables, responses)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise SnapshotError(f"{what}; choose a writable folder with enough space", path) from error
    return load_snapshot(path, verify_checksums=False)


def _read_manifest(path: Path) -> tuple[dict, list[str]]:
    try:
        text = path.read_bytes().decode("utf-8")
        manifest = json.loads(text, object_pairs_hook=_without_repeats)
    except OSError as error:
        reason = error.strerror or error
        return {}, [f"{path.name}: cannot be read ({reason}); is this a snapshot directory?"]
    except (ValueError, RecursionError) as error:
        return {}, [f"{path.name}: is not valid JSON ({error}); restore the file"]
    if not isinstance(manifest, dict):
        kind = type(manifest).__name__
        return {}, [f"{path.name}: expected a JSON object, got {kind}; restore the file"]
    problems = _manifest_problems(manifest)
    if missing := [key for key in _MANIFEST if key not in manifest]:
        problems.append(f"{MANIFEST_FILE}: lacks {some(missing)}; restore the file")
    return manifest, problems


def _without_repeats(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object repeats a key")
    return found


def _manifest_problems(manifest: dict) -> list[str]:
    problems = [
        f"{MANIFEST_FILE}: {key} is {quote(manifest[key])}, but must be {wanted}"
        for key, (is_legal, wanted) in _MANIFEST.items()
        if key in manifest and not is_legal(manifest[key])
    ]
    try:
        json.dumps(manifest, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        problems.append(
            f"{MANIFEST_FILE}: cannot be stored as JSON ({error}); use plain texts, numbers, lists"
        )
    return problems


def _provenance_problems(provenance: dict) -> list[str]:
    if not isinstance(provenance, dict) or not all(isinstance(key, str) for key in provenance):
        return [f"{MANIFEST_FILE}: provenance must be a dict with texts as keys"]
    if reserved := [key for key in provenance if key in _MANIFEST]:
        return [f"{MANIFEST_FILE}: provenance must not set {some(reserved)}; use another key"]
    return []


def _file_problems(folder: Path, manifest: dict, *, verify_checksums: bool) -> list[str]:
    """Existence, size and checksum of the data files."""
    listed, problems = manifest.get("files"), []
    is_listed = isinstance(listed, dict)
    if unknown := sorted({*listed} - {*DATA_FILES, DESCRIPTION_FILE}) if is_listed else []:
        what = f"files names {some(unknown)}, which is no file of a snapshot; remove it"
        problems.append(f"{MANIFEST_FILE}: {what}")
    for file in DATA_FILES:
        path = folder / file
        if not path.is_file():
            what = "is not a file" if path.exists() else "is missing"
            problems.append(f"{file}: {what}; restore it or write the snapshot anew")
        elif is_listed:
            try:
                problems += _integrity_problems(path, listed.get(file), verify_checksums)
            except OSError as error:
                problems.append(f"{file}: cannot be read ({error.strerror or error})")
    return problems


def _integrity_problems(path: Path, entry: object, verify_checksums: bool) -> list[str]:
    known = entry if isinstance(entry, dict) else {}
    if not is_count(known.get("bytes")) or not is_text(known.get("sha256")):
        return [f"{MANIFEST_FILE}: files lacks bytes and sha256 of {path.name}"]
    size, expected = path.stat().st_size, known["bytes"]
    if size != expected:
        return [f"{path.name}: has {size} bytes, {MANIFEST_FILE} says {expected}; {_DAMAGED}"]
    if verify_checksums and _sha256(path) != known["sha256"].lower():
        return [f"{path.name}: its sha256 is not the one in {MANIFEST_FILE}; {_DAMAGED}"]
    return []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_or_report(read, path: Path, problems: list[str]):
    """What ``read`` returns, or None and a problem; a missing file is reported elsewhere."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except MemoryError:
        raise
    # Damaged files make the parsers raise nearly anything, from OverflowError to SyntaxError.
    except Exception as error:
        reason = f"cannot be read ({one_line(error)})"
        problems.append(f"{path.name}: {reason}; restore it or write the snapshot anew")
        return None


def _read_table(path: Path) -> pd.DataFrame:
    # Through a buffer: an Arrow file handle would keep the file open and its errors name the path.
    # Small tables need no threads, and Arrow's can abort a process that ends while they start.
    file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
    table = file.read(use_threads=False)
    table.validate(full=True)
    # The pandas metadata describe the writer's index, which means nothing here.
    frame = table.to_pandas(ignore_metadata=True, use_threads=False)
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].astype(frame[column].cat.categories.dtype)
    return frame


def check_target(path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Refuse a place where `save_snapshot` would write nothing; `SnapshotError` says why."""
    if problems := _target_problems(Path(path).resolve(), overwrite=overwrite):
        raise SnapshotError(problems, path)


def _target_problems(target: Path, *, overwrite: bool) -> list[str]:
    """Why ``target`` must not be replaced: it exists unasked, or is not a snapshot."""
    if not target.exists():
        return []
    if not target.is_dir():
        return ["is an existing file; choose another folder"]
    entries = {entry.name for entry in target.iterdir()}
    if not entries:
        return []
    if not overwrite:
        what = "choose another folder, delete it, or pass overwrite=True in Python"
        return [f"already exists; {what}"]
    entries_of_others = entries - {MANIFEST_FILE, CROISSANT_FILE, *DATA_FILES}
    foreign = sorted(name for name in entries_of_others if not name.startswith("."))
    if foreign or MANIFEST_FILE not in entries:
        what = f"holds {some(foreign)}" if foreign else f"has no {MANIFEST_FILE}"
        return [f"{what}, so it is not only a snapshot and is not overwritten; move it away"]
    return []


def _write_files(folder: Path, manifest: dict, tables: dict, responses: np.ndarray) -> None:
    for table, file in TABLE_FILES.items():
        _write_table(folder / file, tables[table])
    _write_responses(folder / RESPONSES_FILE, responses)
    files = {}
    for file in DATA_FILES:
        path = folder / file
        files[file] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = _write_json(folder / MANIFEST_FILE, {**manifest, "files": files})
    described = describe_as_croissant(manifest, files, tables, responses)
    _write_json(folder / CROISSANT_FILE, described)


def _write_json(path: Path, content: dict) -> dict:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    """Parquet whose bytes depend on the values only: no index, no pandas or Arrow metadata."""
    columns = {}
    for name in frame:
        try:
            if isinstance(frame[name].dtype, pd.PeriodDtype):
                raise TypeError("periods would become integers; convert them to texts or dates")
            array = pa.array(frame[name], from_pandas=True)
            if isinstance(array, pa.ChunkedArray):
                array = array.combine_chunks()
            if pa.types.is_large_string(array.type):
                array = array.cast(pa.string())
            pq.write_table(pa.table({name: array[:1]}), pa.BufferOutputStream())
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise SnapshotError(
                f"{path.name}: column {quote(name)} has no single type that Parquet can hold "
                f"({one_line(error)}); use one type and null"
            ) from error
        columns[name] = array
    with path.open("wb") as file:  # Arrow takes no path that is not UTF-8
        pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False)


def _write_responses(path: Path, responses: np.ndarray) -> None:
    header = {"descr": responses.dtype.str, "fortran_order": False, "shape": responses.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, block in row_blocks(responses):
            file.write(np.ascontiguousarray(block).data)
