"""The crawl: scores, lineage and, if asked for, single answers, as one snapshot."""

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

import pandas as pd

from .. import files
from ..data.lineage import Lineage
from ..data.snapshot import Snapshot, SnapshotError, load_snapshot, save_snapshot
from .ancestry import Crawler, Work, count_statuses
from .client import Client, each
from .community import SOURCES_FILE, Community
from .edges import establish_edges
from .errors import CrawlError
from .known_models import KnownModels
from .leaderboard import Leaderboard, chosen_benchmarks, model_ids
from .log import LOG_FOLDER, CrawlLog

STATUS_FILE = "crawl_status.parquet"
MAX_DEPTH = 20
N_WORKERS = 8
_STATUS_FIELDS = "status resolved gated sha time reason".split()


def crawl(
    out: str | os.PathLike,
    *,
    source: str = "leaderboard",
    lineage_of: str | os.PathLike | None = None,
    datasets: Iterable[str] | None = None,
    benchmarks: Iterable[str] | None = None,
    instances: bool = False,
    models: Iterable[str] | None = None,
    max_models: int | None = None,
    max_depth: int = MAX_DEPTH,
    resume: bool = False,
    n_workers: int = N_WORKERS,
    client: Client | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Snapshot:
    """Collect a leaderboard, or a snapshot's models, and their lineage from the Hugging Face Hub.

    Every answer is appended to a log in ``out/.crawl`` as it arrives. An interrupted crawl that is
    resumed ends in the same tables as an undisturbed one; a new crawl into the same folder fetches
    what has changed since.

    Parameters
    ----------
    out : path of the folder to create or to bring up to date
    source : ``leaderboard`` is the Open LLM Leaderboard v2, ``community`` are Community Evals
    lineage_of : path of a snapshot: instead of scores, fetch cards and family trees of its models,
        and keep its items and responses
    datasets : of Community Evals, ids of benchmark datasets; default: the Hub's official ones
    benchmarks : keys of `BENCHMARKS`; default: all, or with ``instances`` all but
        MMLU-Pro
    instances : collect the answers to single questions instead of the benchmarks' scores
    models : ids to crawl instead of the whole leaderboard. Those that are not on it become models
        without answers, if the Hub has them, and bring their evaluated ancestors along.
    max_models : only the first so many models
    max_depth : generations of ancestors to ask for
    resume : go on with the crawl that the log holds instead of starting a new one, with its options
        where none are given here
    n_workers : requests under way at a time
    client : used up by the crawl
    say : takes messages for the user

    Returns
    -------
    Snapshot
        As written to ``out``, beside which `STATUS_FILE` has a status for every id asked for.

    Raises
    ------
    CrawlError, KeyboardInterrupt
        If the crawl cannot go on; what was fetched is kept.
    """
    out = Path(out).resolve()
    client = client or Client(say=say)
    options = {
        "source": source,
        "lineage_of": lineage_of and os.fspath(Path(lineage_of).resolve()),
        "datasets": None if datasets is None else model_ids(datasets),
        "benchmarks": benchmarks if benchmarks is None else list(benchmarks),
        "instances": instances,
        "models": models if models is None else model_ids(models),
        "max_models": max_models,
        "max_depth": max_depth,
    }
    # What cannot be is refused before a folder is made, whose log would keep it for --resume.
    chosen_benchmarks(options["benchmarks"], instances=instances)
    if lineage_of:
        load_snapshot(lineage_of)
    try:
        if out.exists() and not out.is_dir():
            raise CrawlError(f"{out}: is a file; choose a folder")
        if out.is_dir() and not (out / LOG_FOLDER).is_dir() and any(out.iterdir()):
            raise CrawlError(f"{out}: holds other files; choose an empty or new folder")
        with closing(CrawlLog(out / LOG_FOLDER, redact=client.redact)) as log:
            options = _begin(log, client, options, resume=resume, say=say)
            work = Work(client, log, partial(each, n_workers=n_workers), say)
            snapshot = _write(out, *_run(work, options))
            log.append("finished", "")
            return snapshot
    except (OSError, files.OutputError, SnapshotError) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, OSError):
            raise
        raise CrawlError(
            f"{out}: cannot be read or written ({cause.strerror or cause}); "
            "make room or choose another folder, then continue with --resume"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; what was fetched is kept: continue with --resume"
        ) from None
    finally:
        client.stopped.set()


def unread_files(out: str | os.PathLike) -> list[str]:
    """Files that the crawl in a folder could not read: "id: file: reason"."""
    with (Path(out) / STATUS_FILE).open("rb") as file:  # Arrow takes no path that is not UTF-8
        status = pd.read_parquet(file)
    found = status[status["kind"] == "file"]
    return [f"{name}: {reason}" for name, reason in zip(found["id"], found["reason"], strict=True)]


def _begin(log: CrawlLog, client: Client, options: dict, *, resume: bool, say: Callable) -> dict:
    """Begin a crawl or go on with the one there is; returns its options."""
    known = log.find("options", "") if resume else None
    before = log.header if log.is_begun() else None
    if before and before.get("endpoint") != client.endpoint:
        raise CrawlError(
            f"the folder holds a crawl of {before.get('endpoint')}, not of {client.endpoint}; "
            "choose another folder"
        )
    if before and not resume and not log.find("finished", ""):
        say("an unfinished crawl is there; what has not changed since is not fetched again")
    if not (before and resume):  # there may be nothing to resume
        log.append("crawl", "", endpoint=client.endpoint)
    if known:
        left_out = crawl.__kwdefaults__
        options = {
            name: value if value != left_out[name] else known["options"].get(name)
            for name, value in options.items()
        }
    return log.append("options", "", options=options)["options"]


def _run(work: Work, options: dict) -> tuple[dict, pd.DataFrame]:
    """Choose models, trace their lineage, collect what they scored: what `_write` takes."""
    client, log, *_ = work
    scores = Community if options["source"] == "community" else Leaderboard
    source = (KnownModels if options["lineage_of"] else scores)(work, options)
    crawler = Crawler(work, source)
    visits = crawler.visit_all(options["max_depth"])
    lineage, overruled = establish_edges(visits)
    for child, claims in overruled.items():
        if (log.find("overruled", child) or {}).get("claims") != claims:
            log.append("overruled", child, claims=claims)
    found = source.tables(visits, lineage)
    tables = found["tables"]
    dropped = Lineage.from_edges(tables["lineage"], tables["models"]["model_id"]).dropped
    found["provenance"] = {
        **found.get("provenance", {}),
        "endpoint": client.endpoint,
        "crawled_at": log.header["time"],
        "statuses": count_statuses(visits.values()),
        "n_cycles": int((dropped["reason"] == "cycle").sum()),
        "n_failed_files": crawler.n_failed_files,
        "n_disagreements": len(overruled),
    }
    return found, _status_table(visits, found.get("repositories", {}))


def _write(out: Path, found: dict, status: pd.DataFrame) -> Snapshot:
    """Put the snapshot, the statuses and further tables in place."""
    note = (
        f"{found['about']}; lineage from the metadata of the models on the Hub, "
        f"{found['provenance']['crawled_at'][:10]}. The licences are those of the authors."
    )
    # Whoever dies while folders change places leaves copies of this crawl's files behind.
    files.remove_partial_folders(out)
    snapshot = save_snapshot(
        out,
        **found["tables"],
        name=os.fsencode(out.name).decode(errors="replace") or "hub",
        source=found.get("source", "hub"),
        note=note,
        provenance=found["provenance"],
        keep_others=True,
    )
    (out / SOURCES_FILE).unlink(missing_ok=True)  # of an earlier crawl
    for name, table in ({STATUS_FILE: status} | found.get("more", {})).items():
        files.write_bytes(out / name, table.to_parquet(index=False))
    return snapshot


def _status_table(visits: dict, repositories: dict) -> pd.DataFrame:
    """One row for every id asked for, and for every file that could not be read."""
    rows, unread = [], []
    for kind, found in (("model", visits), ("details", repositories)):
        for name, one in found.items():
            about = (getattr(one, field, None) for field in _STATUS_FIELDS)
            rows.append((kind, name, *about))
            name = getattr(one, "resolved", name)
            files_left = [f"{file}: {reason}" for file, reason in sorted(one.unread.items())]
            unread += [("file", name, "error", reason) for reason in files_left]
    frame = pd.DataFrame(rows, columns=["kind", "id", *_STATUS_FIELDS])
    frame = pd.concat([frame, pd.DataFrame(unread, columns=["kind", "id", "status", "reason"])])
    frame = frame.astype({name: "boolean" if name == "gated" else "string" for name in frame})
    return frame.rename(columns={"resolved": "resolved_id"})
