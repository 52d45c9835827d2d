"""Answers to single questions: the leaderboard's per-model details, streamed and packed."""

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.benchmarks import BENCHMARKS, TASKS
from ..data.metadata import commit
from ..data.responses import MISSING
from ..data.samples import Samples, name_questions, read_samples
from .client import CORRUPT, Client
from .errors import CrawlError, Refusal
from .leaderboard import DETAILS_OWNER
from .log import CrawlLog

MAX_SAMPLES = 2 * 2**30
_CHECKSUM_TRIES = 3
_FILE = re.compile(
    r"(?:^|/)samples_(?P<task>leaderboard_\w+?)_(?P<time>\d{4}-\d\d-\d\dT[\d\-:.]+)\.jsonl?$"
)


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
    """Details of one model: commit and the runs of the tasks; without them, the reason.

    ``unread`` has why files, or lines of files, could not be read.
    """

    status: str
    reason: str
    time: str
    sha: str | None = None
    runs: tuple[Run, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Answers:
    """Packed answers of one run to the questions whose list has the digest ``keys``."""

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
        pages = client.pages(f"api/datasets/{repo}/tree/{sha}", recursive="true")
        runs = sorted(run for page in pages for row in page if (run := _run(row)))
    except Refusal as refusal:
        return {"status": refusal.status, "reason": refusal.reason}
    return {"status": "ok", "reason": "", "sha": sha, "runs": runs}


def _run(row: object) -> Run | None:
    """A samples file in a row of the tree, or None."""
    if not isinstance(row, dict) or not isinstance(path := row.get("path"), str):
        return None
    match, size, lfs = _FILE.search(path), row.get("size"), row.get("lfs")
    if not match or match["task"] not in TASKS or ".." in path.split("/"):
        return None
    if not isinstance(size, int) or not 0 < size <= MAX_SAMPLES:
        return None
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
        sha256 = None
    return Run(match["task"], match["time"], path, size, str(row.get("oid")), sha256)


def fetch_repository(client: Client, log: CrawlLog, repo: str) -> Repository:
    """Details of one model: from the log, or asked for and written there."""
    known = log.find("details", repo)
    if known is not None and known.status != "error":
        return known
    earlier = log.earlier.get(("details", repo))
    values = ask_repository(client, repo, known=earlier and earlier.sha)
    if values is None:
        return log.confirm("details", repo)
    return log.append("details", repo, **values)


def read_repository(entry: dict) -> Repository:
    """Read a log entry of kind ``details``."""
    runs = tuple(Run(*run) for run in entry.get("runs", ()))
    reason = entry.get("reason", "")
    return Repository(entry["status"], reason, entry["time"], entry.get("sha"), runs)


def runs_of(repository: Repository, task: str) -> list[Run]:
    """The runs of a task, latest first."""
    runs = [run for run in repository.runs if run.task == task]
    return sorted(runs, key=lambda run: (run.time, run.path), reverse=True)


def sizes_of(repository: Repository) -> Counter:
    """Bytes of the latest runs by benchmark."""
    sizes: Counter = Counter()
    for task, (benchmark, _) in TASKS.items():
        sizes[benchmark] += sum(run.n_bytes for run in runs_of(repository, task)[:1])
    return sizes


def fetch_task(
    client: Client, log: CrawlLog, repo: str, repository: Repository, task: str
) -> Answers | None:
    """Answers of the most complete run of a task, the latest of several; None without any.

    Runs are read from the latest on, until one has all the questions of the task.
    """
    benchmark, subtask = TASKS[task]
    found = []
    for run in runs_of(repository, task):
        if answers := _fetch_run(client, log, repo, repository, run):
            found.append(answers)
            if answers.n_answers >= BENCHMARKS[benchmark].subtasks[subtask]:
                break
    return max(found, key=lambda answers: answers.n_answers, default=None)


def _fetch_run(
    client: Client, log: CrawlLog, repo: str, repository: Repository, run: Run
) -> Answers | None:
    """Answers of one run: from the log, or streamed and written there."""
    key = f"{repo}:{run.path}:{run.oid}"
    if known := log.recall("samples", key):
        _note_unusable(repository, run, known)
        return known
    path = f"datasets/{repo}/resolve/{repository.sha}/{run.path}"
    try:
        samples = _stream_run(client, path, run)
    except Refusal as refusal:
        if refusal.status == "gated" and not client.has_token:
            raise CrawlError(gated_message(client, repo)) from refusal
        if refusal.status == "gated":
            repository.status, repository.reason = "gated", refusal.reason
        log.append("refused", key, status=refusal.status, reason=refusal.reason)
        repository.unread[run.path] = refusal.reason
        return None
    # Most files of a task list the same questions, so the log has each list once.
    text = json.dumps(samples.keys, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if log.recall("keys", digest) is None:
        log.append("keys", digest, keys=samples.keys)
    bits = base64.b64encode(np.packbits(np.array(samples.values, dtype=bool)).tobytes()).decode()
    answers = log.append(
        "samples",
        key,
        keys=digest,
        bits=bits,
        n_answers=len(samples.values),
        n_repeated=samples.n_repeated,
        n_unusable=samples.n_unusable,
    )
    _note_unusable(repository, run, answers)
    return answers


def _note_unusable(repository: Repository, run: Run, answers: Answers) -> None:
    if answers.n_unusable:
        n_lines = answers.n_unusable + answers.n_answers + answers.n_repeated
        repository.unread[run.path] = f"{answers.n_unusable} of {n_lines} samples are unusable"


def _stream_run(client: Client, path: str, run: Run) -> Samples:
    metric = BENCHMARKS[TASKS[run.task][0]].metric
    for attempt in range(_CHECKSUM_TRIES):
        try:
            return read_samples(client.lines(path, n_bytes=run.n_bytes, sha256=run.sha256), metric)
        except Refusal as refusal:
            if refusal.reason != CORRUPT or attempt == _CHECKSUM_TRIES - 1:
                raise


def read_answers(entry: dict) -> Answers:
    """Read a log entry of kind ``samples``."""
    bits = base64.b64decode(entry["bits"], validate=True)
    counts = (entry["n_answers"], entry["n_repeated"], entry["n_unusable"])
    if len(bits) != -(-counts[0] // 8):
        raise ValueError("bits and answers do not match")
    return Answers(entry["keys"], bits, *counts)


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


def build_matrix(
    answers: dict[tuple[str, str], Answers], keys: dict[str, list], model_ids: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Items and responses (n_models x n_items) from the answers of all models.

    ``answers`` are by (model_id, task), ``keys`` are lists of ``[doc_id, hash]`` by digest.
    """
    rows = {model_id: row for row, model_id in enumerate(model_ids)}
    blocks, parts = [], []
    for task, (benchmark, subtask) in TASKS.items():
        own = {rows[model]: found for (model, name), found in answers.items() if name == task}
        if not own:
            continue
        n_files = Counter(found.keys for found in own.values())
        names = name_questions(keys, n_files)
        # A question's place is its doc_id in the most common list that has it.
        places: dict[str, int] = {}
        for digest in sorted(n_files, key=lambda digest: (-n_files[digest], digest)):
            for (doc_id, _), name in zip(keys[digest], names[digest], strict=True):
                places.setdefault(name, doc_id)
        questions = pd.Index(sorted(places, key=lambda name: (places[name], name)))
        columns = {digest: questions.get_indexer(own_names) for digest, own_names in names.items()}
        block = np.full((len(model_ids), len(questions)), MISSING, dtype=np.uint8)
        for row, found in own.items():
            bits = np.unpackbits(np.frombuffer(found.bits, np.uint8), count=found.n_answers)
            block[row, columns[found.keys]] = bits
        ids = f"{benchmark}/{subtask}/" + questions
        parts.append(pd.DataFrame({"item_id": ids, "benchmark": benchmark, "subtask": subtask}))
        blocks.append(block)
    if not blocks:
        raise CrawlError("none of the models has details; crawl without --instances")
    items = pd.concat(parts, ignore_index=True).astype("string").assign(n_trials=1)
    return items, np.hstack(blocks)
