"""Importers: result files as others publish them become a snapshot.

An importer is a module with one function, ``read(files, results)``, and one entry of `IMPORTERS`.
It hands what it understands of the files to `results.Results`, which chooses among several runs,
lists what is left out, and makes the tables.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from ..data.snapshot import Snapshot, check_target, save_snapshot
from . import atlas, every_eval_ever, lm_eval, mteb
from .results import Results, files_in

IMPORTERS = {
    "lm-eval": lm_eval,
    "every-eval-ever": every_eval_ever,
    "mteb": mteb,
    "atlas": atlas,
}


def import_files(
    source: str,
    paths: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    proportions: bool = False,
) -> tuple[Snapshot, list[tuple[str, str]]]:
    """Read files of results and write them as a snapshot.

    The same files give the same bytes, in whatever order and place they are given.

    Parameters
    ----------
    source : key of `IMPORTERS`
    paths : files, folders (searched through) and archives (.zip, .whl)
    out : path of the snapshot to create
    proportions : take scores where there are scores and single answers

    Returns
    -------
    snapshot : Snapshot
        As written to ``out``. Its provenance names source, licence, citation and the files' digest.
    left_out : list of (place, reason)
        What could not be used: files, and parts of files.

    Raises
    ------
    ValueError
        If nothing can be used; `SnapshotError`, one of these, if the snapshot cannot be written.
    """
    if source not in IMPORTERS:
        raise ValueError(f"unknown source {source!r}; use {', '.join(IMPORTERS)}")
    check_target(out)
    importer, results = IMPORTERS[source], Results()
    digests = _digests(files_in(paths, results), results)
    importer.read(tqdm(digests, source, unit=" file", disable=None, leave=False), results)
    tables = results.snapshot_tables(proportions=proportions)
    imported = {
        "n_files": len(digests),
        "sha256": hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest(),
        "versions": sorted(results.versions),
        "n_left_out": len(results.left_out),
        "n_repeated_runs": results.n_repeated,
    }
    provenance = {"imported": imported, "license": importer.LICENSE, "cite_as": importer.CITATION}
    about = {"name": Path(out).resolve().name, "source": source, "note": importer.NOTE}
    provenance = {key: value for key, value in provenance.items() if value}
    return save_snapshot(out, **tables, **about, provenance=provenance), results.left_out


def _digests(files: list, results: Results) -> dict:
    """SHA-256 of the contents of each file that can be read; the others are left out."""
    digests = {}
    for file in files:
        with results.reading(file), file.open("rb") as stream:
            digests[file] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests
