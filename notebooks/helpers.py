"""What the notebooks share: where a run keeps its parts, and where its snapshot comes from."""

import os
from pathlib import Path

from lrmf.data.schema import MANIFEST_FILE
from lrmf.data.snapshot import Snapshot, SnapshotError, load_snapshot
from lrmf.hub import crawl
from lrmf.simulation.simulate import write_simulated

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("simulate", "crawl", "open")


def build_folder(run):
    """build/<run>: what the notebooks of a run hand to each other."""
    return _folder("build", run)


def figure_folder(run):
    """figures/<run>: figures and tables with the numbers behind them."""
    return _folder("figures", run)


def snapshot_folder(snapshot):
    """The snapshot's directory; a relative path counts from the repository.

    Examples
    --------
    >>> snapshot_folder("data/simulated").relative_to(ROOT).as_posix()
    'data/simulated'
    >>> snapshot_folder("/somewhere/else").as_posix()
    '/somewhere/else'
    """
    return ROOT / snapshot


def _folder(kind, run):
    if not run or Path(run).name != run:
        raise ValueError(f"run must be a plain name, got {run!r}")
    folder = ROOT / kind / run
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get_snapshot(
    source: str, path: str | os.PathLike, *, n_models: int, n_items: int, seed: int
) -> Snapshot:
    """Provide the snapshot at ``path``.

    Parameters
    ----------
    source : {"simulate", "crawl", "open"}
        Simulate it anew (equal parameters give equal bytes); open what was crawled from the Hub, or
        crawl, or go on with a crawl, if there is no finished snapshot; or open and check what is
        there.
    path : path of the snapshot's directory
    n_models, n_items, seed : int
        Size and seed of a simulation; not used when opened.

    Returns
    -------
    Snapshot
        With memory-mapped responses.

    Raises
    ------
    ValueError
        If the source is unknown or a parameter of the simulation is out of range.
    SnapshotError
        If the snapshot cannot be read or written; a snapshot that was not simulated is never
        replaced by a simulated one.
    CrawlError
        If the crawl cannot go on; what it has stays and is used by the next attempt.

    Examples
    --------
    >>> get_snapshot("guess", "data/simulated", n_models=60, n_items=90, seed=0)
    Traceback (most recent call last):
        ...
    ValueError: unknown source 'guess'; use 'simulate' or 'crawl' or 'open'
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}; use {' or '.join(map(repr, SOURCES))}")
    exists = (Path(path) / MANIFEST_FILE).exists()
    if source == "open" or (source == "crawl" and exists):
        return load_snapshot(path)
    if source == "crawl":
        return crawl(path, resume=True)
    if exists:
        _check_replaceable(path)
    return write_simulated(path, n_models=n_models, n_items=n_items, seed=seed, overwrite=True)


def _check_replaceable(path):
    try:
        existing = load_snapshot(path, verify_checksums=False)
    except SnapshotError:
        existing = None
    if existing is None or existing.source != "simulated":
        what = "a damaged snapshot" if existing is None else f"snapshot {existing.name!r}"
        raise SnapshotError(
            f"holds {what}, which a simulation must not replace; "
            "use source 'open', give another path, or delete it",
            path,
        )
