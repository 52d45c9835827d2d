"""Answers to single questions: the leaderboard's per-model details, streamed and packed."""

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from ..data.benchmarks import BENCHMARKS, TASKS
from ..data.metadata import commit
from ..data.responses import MISSING
from ..data.samples import name_questions, read_samples
from .client import Client
from .errors import Corrupt, CrawlError, Refusal
from .source import Work, count_statuses

OWNER = "open-llm-leaderboard"
LARGE = "mmlu_pro"  # nearly all of the bytes
MAX_SAMPLES = 2 * 2**30
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

    name: str
    status: str
    reason: str
    time: str
    sha: str | None = None
    runs: tuple[Run, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)

    def runs_of(self, task: str) -> list[Run]:
        """The runs of a task, latest first."""
        runs = [run for run in self.runs if run.task == task]
        return sorted(runs, key=lambda run: (run.time, run.path), reverse=True)

    def sizes(self) -> Counter:
        """Bytes of the latest runs by benchmark."""
        sizes: Counter = Counter()
        for task, (benchmark, _) in TASKS.items():
            sizes[benchmark] += sum(run.n_bytes for run in self.runs_of(task)[:1])
        return sizes


def repository_of(model_id: str) -> str:
    """Name of the details dataset of a model."""
    return f"{OWNER}/{model_id.replace('/', '__')}-details"


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
        return refusal.entry
    return {"status": "ok", "reason": "", "sha": sha, "runs": runs}


def read_repository(repo: str, entry: dict) -> Repository:
    """Read a log entry of kind ``details``."""
    runs = tuple(Run(*run) for run in entry.get("runs", ()))
    return Repository(
        repo, entry["status"], entry["reason"], entry.get("time", ""), entry.get("sha"), runs
    )


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


class Details:
    """The answers of some models to the questions of some benchmarks.

    After `collect`, ``repositories`` and ``counts`` say what was found.
    """

    def __init__(self, work: Work, benchmarks: list[str]):
        self._client, self._log, self._each, self._say = work
        self._benchmarks = benchmarks
        self.repositories: dict[str, Repository] = {}
        self.counts: dict[str, object] = {}

    def collect(
        self, models: dict[str, str], model_ids: list[str]
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Items and responses (n_models x n_items); ``models`` are by name of the repository."""
        self.repositories = dict(sorted(self._each("details", self._repository, list(models))))
        self._announce()
        tasks = [
            (repo, task)
            for repo, repository in self.repositories.items()
            for task, (benchmark, _) in TASKS.items()
            if benchmark in self._benchmarks and repository.runs_of(task)
        ]
        answers = {
            (models[repo], task): found
            for (repo, task), found in self._each("files", self._task, tasks)
            if found["n_answers"]
        }
        # Say what was left out, and refuse to go on with nothing.
        gated = [repo for repo, found in self.repositories.items() if found.status == "gated"]
        if gated and not answers:
            raise CrawlError(_gated_message(self._client, gated[0]))
        self.counts = {
            "details_statuses": count_statuses(self.repositories.values()),
            "n_repeated_answers": sum(found["n_repeated"] for found in answers.values()),
            "n_unusable_answers": sum(found["n_unusable"] for found in answers.values()),
        }
        digests = {found["keys"] for found in answers.values()}
        find, find_earlier = self._log.find, self._log.find_earlier
        keys = {name: find("keys", name) or find_earlier("keys", name) for name in digests}
        keys = {name: entry["keys"] for name, entry in keys.items()}
        return build_matrix(answers, keys, model_ids)

    def _repository(self, repo: str) -> Repository:
        known = self._log.find_earlier("details", repo).get("sha")
        ask = partial(ask_repository, self._client, repo, known=known)
        return read_repository(repo, self._log.ask("details", repo, ask))

    def _announce(self) -> None:
        """Say how much is going to be downloaded, and what is left out."""
        n_bytes = sum((found.sizes() for found in self.repositories.values()), Counter())
        chosen = sum(n_bytes[name] for name in self._benchmarks)
        found = sum(repository.status == "ok" for repository in self.repositories.values())
        text = f"details of {found} of {len(self.repositories)} models: {megabytes(chosen)}"
        if LARGE not in self._benchmarks:
            text += f"; {LARGE} left out, {megabytes(n_bytes[LARGE])} (--benchmarks ... {LARGE})"
        self._say(text)

    def _task(self, repo_and_task: tuple[str, str]) -> dict:
        """Answers of the most complete run of a task, the latest of several.

        Runs are read from the latest on, until one has all the questions of the task.
        """
        repo, task = repo_and_task
        benchmark, subtask = TASKS[task]
        best = {"n_answers": 0}
        for run in self.repositories[repo].runs_of(task):
            found = self._run(self.repositories[repo], run)
            best = max(best, found, key=lambda answers: answers["n_answers"])
            if best["n_answers"] >= BENCHMARKS[benchmark].subtasks[subtask]:
                break
        return best

    def _run(self, repository: Repository, run: Run) -> dict:
        """Answers of one run, as the log has them: packed, with the digest of their keys."""
        key = f"{repository.name}:{run.path}:{run.oid}"
        ask = partial(self._ask_run, repository, run)
        found = self._log.ask("samples", key, ask, lasting=True)
        if found["n_unusable"]:
            n_lines = found["n_unusable"] + found["n_answers"] + found["n_repeated"]
            repository.unread[run.path] = f"{found['n_unusable']} of {n_lines} samples are unusable"
        return found

    def _ask_run(self, repository: Repository, run: Run) -> dict:
        """Stream a run: the values of its log entry."""
        path = f"datasets/{repository.name}/resolve/{repository.sha}/{run.path}"
        metric = BENCHMARKS[TASKS[run.task][0]].metric
        again = Retrying(
            retry=retry_if_exception_type(Corrupt), stop=stop_after_attempt(3), reraise=True
        )
        try:
            samples = again(
                lambda: read_samples(
                    self._client.lines(path, n_bytes=run.n_bytes, sha256=run.sha256), metric
                )
            )
        except Refusal as refusal:
            if refusal.status == "gated" and not self._client.has_token:
                raise CrawlError(_gated_message(self._client, repository.name)) from refusal
            if refusal.status == "gated":
                repository.status, repository.reason = "gated", refusal.reason
            repository.unread[run.path] = refusal.reason
            counts = dict.fromkeys(("n_answers", "n_repeated", "n_unusable"), 0)
            return {"status": "error", "reason": refusal.reason, **counts}
        # Most files of a task list the same questions, so the log has each list once.
        text = json.dumps(samples.keys, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._log.ask("keys", digest, lambda: {"keys": samples.keys}, lasting=True)
        bits = np.packbits(np.array(samples.values, dtype=bool)).tobytes()
        return {
            "keys": digest,
            "bits": base64.b64encode(bits).decode(),
            "n_answers": len(samples.values),
            "n_repeated": samples.n_repeated,
            "n_unusable": samples.n_unusable,
        }


def megabytes(n_bytes: float) -> str:
    """A size for people."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def _gated_message(client: Client, repo: str) -> str:
    terms = f"accept the terms at {client.endpoint}/datasets/{repo}"
    if client.has_token:
        return f"{repo}: the token's account has no access; {terms}, then continue with --resume"
    return (
        f"{repo}: the details are gated and there is no token; {terms}, set HF_TOKEN or run "
        "`hf auth login`, then continue with --resume"
    )


def build_matrix(
    answers: dict[tuple[str, str], dict], keys: dict[str, list], model_ids: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Items and responses (n_models x n_items) from the answers of all models.

    ``answers`` are log entries by (model_id, task), ``keys`` lists of ``[doc_id, hash]`` by digest.
    """
    rows = {model_id: row for row, model_id in enumerate(model_ids)}
    blocks, parts = [], []
    for task, (benchmark, subtask) in TASKS.items():
        own = {rows[model]: found for (model, name), found in answers.items() if name == task}
        if not own:
            continue
        n_files = Counter(found["keys"] for found in own.values())
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
            bits = np.frombuffer(base64.b64decode(found["bits"]), np.uint8)
            block[row, columns[found["keys"]]] = np.unpackbits(bits, count=found["n_answers"])
        ids = f"{benchmark}/{subtask}/" + questions
        parts.append(pd.DataFrame({"item_id": ids, "benchmark": benchmark, "subtask": subtask}))
        blocks.append(block)
    if not blocks:
        raise CrawlError("none of the models has details; crawl without --instances")
    items = pd.concat(parts, ignore_index=True).astype("string").assign(n_trials=1)
    return items, np.hstack(blocks)
