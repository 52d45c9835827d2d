"""Answers to single questions: the leaderboard's per-model details, streamed and packed."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.responses import MISSING
from .cards import commit
from .client import CORRUPT, Client
from .errors import CrawlError, Refusal
from .leaderboard import BENCHMARKS, DETAILS_OWNER
from .log import CrawlLog

MAX_SAMPLES = 2 * 2**30
_CHECKSUM_TRIES = 3
_FILE = re.compile(
    r"(?:^|/)samples_(?P<task>leaderboard_\w+?)_(?P<time>\d{4}-\d\d-\d\dT[\d\-:.]+)\.jsonl?$"
)
TASKS = {
    "leaderboard_" + (benchmark if subtask == benchmark else f"{benchmark}_{subtask}"): (
        benchmark,
        subtask,
    )
    for benchmark, properties in BENCHMARKS.items()
    for subtask in properties.subtasks
}


class Run(NamedTuple):
    """One samples file of a model: a task evaluated once."""

    task: str
    time: str
    path: str
    n_bytes: int
    oid: str
    sha256: str | None


@dataclass(slots=True)
class Repository:
    """Details of one model: commit and the runs of the tasks; without them, the reason."""

    status: str
    reason: str
    time: str
    sha: str | None = None
    runs: tuple[Run, ...] = ()


@dataclass(slots=True)
class Answers:
    """Packed answers of one run to the questions listed under ``keys``."""

    keys: str
    bits: bytes
    n_answers: int
    n_repeated: int
    n_unusable: int


def repository_of(model_id: str) -> str:
    """Name of the details dataset of a model."""
    return f"{DETAILS_OWNER}/{model_id.replace('/', '__')}-details"


def ask_repository(client: Client, repo: str, *, known: str | None = None) -> dict | None:
    """Find the commit of a details dataset and the sizes of its runs.

    Returns the values of a log entry, or None if the commit is the one already known.
    """
    try:
        sha = commit(client.json(f"api/datasets/{repo}", expand=["sha"]))
        if sha is None:
            raise Refusal("error", "the answer has no commit")
        if sha == known:
            return None
        runs = []
        for page in client.pages(f"api/datasets/{repo}/tree/{sha}", recursive=True):
            runs += [run for run in map(_run, page) if run]
    except Refusal as refusal:
        return {"status": refusal.status, "reason": refusal.reason}
    return {"status": "ok", "reason": "", "sha": sha, "runs": sorted(runs)}


def _run(row: object) -> Run | None:
    """A samples file in a row of the tree, or None."""
    if not isinstance(row, dict) or not isinstance(path := row.get("path"), str):
        return None
    match, size = _FILE.search(path), row.get("size")
    if not match or match["task"] not in TASKS or ".." in path.split("/"):
        return None
    if not isinstance(size, int) or not 0 < size <= MAX_SAMPLES:
        return None
    lfs = row.get("lfs")
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
        sha256 = None
    return Run(match["task"], match["time"], path, size, str(row.get("oid")), sha256)


def read_repository(entry: dict) -> Repository:
    """Read a log entry of kind ``details``."""
    runs = tuple(Run(*run) for run in entry.get("runs", ()))
    reason = entry.get("reason", "")
    return Repository(entry["status"], reason, entry["time"], entry.get("sha"), runs)


def runs_of(repository: Repository, task: str) -> list[Run]:
    """The runs of a task, latest first."""
    runs = [run for run in repository.runs if run.task == task]
    return sorted(runs, key=lambda run: (run.time, run.path), reverse=True)


def fetch_task(client: Client, log: CrawlLog, repo: str, repository: Repository, task: str):
    """Answers of the most complete run of a task, the latest of several; None without any.

    Runs are read from the latest on, until one has all the questions of the task.
    """
    benchmark, subtask = TASKS[task]
    n_questions = BENCHMARKS[benchmark].subtasks[subtask]
    best = None
    for run in runs_of(repository, task):
        answers = _fetch_run(client, log, repo, repository, run)
        if answers is not None and (best is None or answers.n_answers > best.n_answers):
            best = answers
        if best is not None and best.n_answers >= n_questions:
            break
    return best


def _fetch_run(
    client: Client, log: CrawlLog, repo: str, repository: Repository, run: Run
) -> Answers | None:
    """Answers of one run: from the log, or streamed and written there."""
    key = f"{repo}:{run.path}:{run.oid}"
    known = log.find("samples", key)
    if known is None and (log.earlier.get(("samples", key))):
        known = log.confirm("samples", key)
    if known is not None:
        return known
    try:
        path = f"datasets/{repo}/resolve/{repository.sha}/{run.path}"
        samples = _stream_run(client, path, run)
    except Refusal as refusal:
        if refusal.status == "gated" and not client.has_token:
            raise CrawlError(gated_message(client, repo)) from refusal
        if refusal.status == "gated":
            repository.status, repository.reason = "gated", refusal.reason
        log.append("refused", key, status=refusal.status, reason=refusal.reason)
        return None
    text = json.dumps(samples.keys, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if log.find("keys", digest) is None and ("keys", digest) not in log.earlier:
        log.append("keys", digest, keys=samples.keys)
    bits = base64.b64encode(np.packbits(np.array(samples.values, dtype=bool)).tobytes())
    counts = {"n_repeated": samples.n_repeated, "n_unusable": samples.n_unusable}
    n_answers = len(samples.values)
    return log.append(
        "samples", key, keys=digest, bits=bits.decode(), n_answers=n_answers, **counts
    )


def _stream_run(client: Client, path: str, run: Run) -> "Samples":
    metric = BENCHMARKS[TASKS[run.task][0]].metric
    for attempt in range(_CHECKSUM_TRIES):
        try:
            return read_samples(client.lines(path, n_bytes=run.n_bytes, sha256=run.sha256), metric)
        except Refusal as refusal:
            if refusal.reason != CORRUPT or attempt == _CHECKSUM_TRIES - 1:
                raise


def megabytes(n_bytes: float) -> str:
    """A size for people."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def gated_message(client: Client, repo: str) -> str:
    """What to do about details that are gated."""
    terms = f"accept the terms at {client.endpoint}/datasets/{repo}"
    if client.has_token:
        return f"{repo}: the token's account has no access; {terms}, then continue with --resume"
    return (
        f"{repo}: the details are gated and there is no token; {terms}, set HF_TOKEN or run "
        "`hf auth login`, then continue with --resume"
    )


def read_answers(entry: dict) -> Answers:
    """Read a log entry of kind ``samples``."""
    bits = base64.b64decode(entry["bits"], validate=True)
    counts = (entry["n_answers"], entry["n_repeated"], entry["n_unusable"])
    if len(bits) != -(-counts[0] // 8):
        raise ValueError("bits and answers do not match")
    return Answers(entry["keys"], bits, *counts)


class Samples(NamedTuple):
    """Answers of one file, in order of doc_id, and how many lines were left out.

    ``keys`` holds ``[doc_id, hash]`` of each answer.
    """

    keys: list[list]
    values: list[bool]
    n_repeated: int
    n_unusable: int


def read_samples(lines: Iterable[bytes], metric: str) -> Samples:
    """Read a samples file: one JSON object a line, of which id, hash and metric are kept.

    Where a question was scored through several filters, the filter ``none`` counts, or the first by
    name. Lines that repeat a question are counted and left out; so are lines that are no JSON
    object, have no id, or no 0/1 value of the metric.
    """
    chosen: dict[int, tuple[str, bool, str]] = {}
    n_repeated = n_unusable = 0
    for line in lines:
        if not line.strip():
            continue
        sample = _sample(line, metric)
        if sample is None:
            n_unusable += 1
            continue
        doc_id, rank, value, doc_hash = sample
        if doc_id not in chosen:
            chosen[doc_id] = (rank, value, doc_hash)
            continue
        n_repeated += chosen[doc_id][0] == rank
        if rank < chosen[doc_id][0]:
            chosen[doc_id] = (rank, value, doc_hash)
    ordered = sorted(chosen.items())
    keys = [[doc_id, doc_hash] for doc_id, (_, _, doc_hash) in ordered]
    return Samples(keys, [value for _, (_, value, _) in ordered], n_repeated, n_unusable)


def _sample(line: bytes, metric: str) -> tuple[int, str, bool, str] | None:
    """doc_id, rank of the filter, value and short hash of a line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    doc_id, value, doc_hash = row.get("doc_id"), row.get(metric), row.get("doc_hash")
    if not isinstance(doc_id, int) or isinstance(doc_id, bool) or value not in (0, 1):
        return None
    name = row.get("filter")
    rank = "" if name in (None, "none") else str(name)
    return doc_id, rank, bool(value), doc_hash[:16] if isinstance(doc_hash, str) else ""


def build_matrix(
    answers: dict[tuple[str, str], Answers], keys: dict[str, list], model_ids: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Items and responses from the answers of all models.

    A question is known by its hash, since versions of the harness number them differently; the
    second of two questions with one hash is told by its turn. Questions of a file without hashes
    are taken to be numbered as in most files.

    Parameters
    ----------
    answers : dict of Answers by (model_id, task)
    keys : dict
        Lists of ``[doc_id, hash]`` by digest.
    model_ids : list of str

    Returns
    -------
    items : DataFrame, one row a question
    responses : uint8 array of shape (n_models, n_items), 255 where not answered
    """
    rows = {model_id: row for row, model_id in enumerate(model_ids)}
    blocks, parts = [], []
    for task, (benchmark, subtask) in TASKS.items():
        own = {rows[model]: found for (model, name), found in answers.items() if name == task}
        used = Counter(found.keys for found in own.values())
        if not used:
            continue
        names = _question_names(used, keys)
        numbers = _numbering(names, used, keys)
        order = sorted(numbers, key=lambda name: (numbers[name], name))
        column = {name: position for position, name in enumerate(order)}
        block = np.full((len(model_ids), len(order)), MISSING, dtype=np.uint8)
        for row, found in own.items():
            columns = [column[name] for name in names[found.keys]]
            bits = np.unpackbits(np.frombuffer(found.bits, np.uint8), count=found.n_answers)
            block[row, columns] = bits
        ids = [f"{benchmark}/{subtask}/{name}" for name in order]
        parts.append(pd.DataFrame({"item_id": ids, "benchmark": benchmark, "subtask": subtask}))
        blocks.append(block)
    if not blocks:
        raise CrawlError("none of the models has details; crawl without --instances")
    items = pd.concat(parts, ignore_index=True).astype("string").assign(n_trials=1)
    return items, np.hstack(blocks)


def _question_names(used: Counter, keys: dict[str, list]) -> dict[str, list[str]]:
    """For each list of keys, a name for each question that is the same in all lists."""
    hashes = _majority_hashes(used, keys)
    names = {}
    for digest in used:
        turns: Counter = Counter()
        names[digest] = []
        for doc_id, doc_hash in keys[digest]:
            name = doc_hash or hashes.get(doc_id) or f"doc-{doc_id}"
            turns[name] += 1
            names[digest].append(name if turns[name] == 1 else f"{name}-{turns[name]}")
    return names


def _majority_hashes(used: Counter, keys: dict[str, list]) -> dict[int, str]:
    """The hash under which most files have a doc_id; ties go to the smaller hash."""
    votes: dict[int, Counter] = {}
    for digest, n_files in used.items():
        for doc_id, doc_hash in keys[digest]:
            if doc_hash:
                votes.setdefault(doc_id, Counter())[doc_hash] += n_files
    return {doc: min(count, key=lambda h: (-count[h], h)) for doc, count in votes.items()}


def _numbering(names: dict, used: Counter, keys: dict[str, list]) -> dict[str, int]:
    """Position of each question: its doc_id in the most common list that has it."""
    numbers: dict[str, int] = {}
    for digest in sorted(used, key=lambda digest: (-used[digest], digest)):
        for name, (doc_id, _) in zip(names[digest], keys[digest], strict=True):
            numbers.setdefault(name, doc_id)
    return numbers
