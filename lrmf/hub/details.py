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
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from ..data.benchmarks import BENCHMARKS, TASKS
from ..data.metadata import commit, count, mapping
from ..data.responses import MISSING
from ..data.runs import Runs
from ..data.samples import Samples, name_questions, read_samples
from .ancestry import Work, count_statuses
from .errors import Corrupt, CrawlError, Refusal, Unreachable

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
    """Details of one model: commit and, by task, its runs, latest first; or the reason for none.

    ``unread`` has why files, or lines of files, could not be read.
    """

    name: str
    status: str
    reason: str
    time: str
    sha: str | None = None
    runs: dict[str, list[Run]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def sizes(self) -> Counter:
        """Bytes of the latest runs by benchmark."""
        sizes: Counter = Counter()
        for task, runs in self.runs.items():
            sizes[TASKS[task][0]] += runs[0].n_bytes
        return sizes


def repository_of(model_id: str) -> str:
    """Name of the details dataset of a model."""
    return f"{OWNER}/{model_id.replace('/', '__')}-details"


def _samples_file(row: object) -> Run | None:
    """A samples file in a row of the tree, or None."""
    if not isinstance(row, dict) or not isinstance(path := row.get("path"), str):
        return None
    match, size = _FILE.search(path), row.get("size")
    if not match or match["task"] not in TASKS or ".." in path.split("/"):
        return None
    if not count(size, MAX_SAMPLES):
        return None
    sha256 = re.fullmatch("[0-9a-f]{64}", str(mapping(row, "lfs").get("oid")))
    oid, sha256 = str(row.get("oid")), sha256 and sha256[0]
    return Run(match["task"], match["time"], path, size, oid, sha256)


class Details:
    """The answers of some models to some benchmarks; ``repositories`` say what was found."""

    def __init__(self, work: Work, benchmarks: list[str]):
        self._client, self._log, self._each, self._say = work
        self._benchmarks = benchmarks
        self.repositories: dict[str, Repository] = {}

    def collect(
        self, models: dict[str, str], model_ids: list[str]
    ) -> tuple[pd.DataFrame, np.ndarray, dict]:
        """Items, responses (n_models x n_items), counts; ``models`` are by repository."""
        sizes = self.find(list(models))
        self._say(self.announcement(sizes))
        tasks = [
            (repository, task)
            for repository in self.repositories.values()
            for task in repository.runs
            if TASKS[task][0] in self._benchmarks
        ]
        answers = {
            (models[repository.name], task): found
            for (repository, task), found in self._each("files", self._task, tasks)
            if found.get("n_answers")
        }
        # Say what was left out, and refuse to go on with nothing.
        gated = [repo for repo, found in self.repositories.items() if found.status == "gated"]
        if gated and not answers:
            raise CrawlError(self._gated_message(gated[0]))
        counts = {
            "details_statuses": count_statuses(self.repositories.values()),
            "n_repeated_answers": sum(found["n_repeated"] for found in answers.values()),
            "n_unusable_answers": sum(found["n_unusable"] for found in answers.values()),
        }
        digests = {found["keys"] for found in answers.values()}
        known = {name: self._log.ask("keys", name, dict, lasting=True) for name in digests}
        keys = {name: entry["keys"] for name, entry in known.items()}
        return *build_matrix(answers, keys, model_ids), counts

    def find(self, names: list[str]) -> Counter:
        """Fill ``repositories``; returns the bytes of their latest runs by benchmark."""
        self.repositories = dict(sorted(self._each("details", self._repository, names)))
        return sum((found.sizes() for found in self.repositories.values()), Counter())

    def announcement(self, sizes: Counter) -> str:
        """How much is going to be downloaded, and what is left out."""
        n_found = sum(repository.status == "ok" for repository in self.repositories.values())
        chosen = megabytes(sum(sizes[name] for name in self._benchmarks))
        text = f"details of {n_found} of {len(self.repositories)} models: {chosen}"
        if LARGE not in self._benchmarks:
            text += f"; {LARGE} left out, {megabytes(sizes[LARGE])} (--benchmarks ... {LARGE})"
        return text

    def _repository(self, repo: str) -> Repository:
        """The commit of a details dataset and its runs."""

        def ask() -> dict | None:
            sha = commit(self._client.json(f"api/datasets/{repo}", expand=["sha"]))
            if sha is None:
                raise Refusal("error", "the answer has no commit")
            if sha == self._log.find_earlier("details", repo).get("sha"):
                return None
            pages = self._client.pages(f"api/datasets/{repo}/tree/{sha}", recursive="true")
            runs = sorted(run for page in pages for row in page if (run := _samples_file(row)))
            return {"sha": sha, "runs": runs}

        entry = self._log.ask("details", repo, ask)
        about = [entry[name] for name in ("status", "reason", "time")]
        repository = Repository(repo, *about, entry.get("sha"))
        runs = [Run(*run) for run in entry.get("runs", ())]
        for run in sorted(runs, key=lambda run: (run.time, run.path), reverse=True):
            repository.runs.setdefault(run.task, []).append(run)
        return repository

    def _task(self, repository_and_task: tuple[Repository, str]) -> dict:
        """Answers of the latest run that has all questions of a task, else the most of them."""
        repository, task = repository_and_task
        benchmark, subtask = TASKS[task]
        best: dict = {}
        for run in repository.runs[task]:
            found = self._run(repository, run)
            best = max(best, found, key=lambda answers: answers.get("n_answers", 0))
            if best.get("n_answers", 0) >= BENCHMARKS[benchmark].subtasks[subtask]:
                break
        return best

    def _run(self, repository: Repository, run: Run) -> dict:
        """Answers of one run, as the log has them: packed, with the digest of their keys."""

        def ask() -> dict:
            try:
                samples = self._stream(repository, run)
            except Unreachable as error:  # all answers are there
                raise CrawlError(
                    f"{error.reason}; check the connection, then continue with --resume"
                ) from error
            except Refusal as refusal:
                if refusal.status == "gated" and not self._client.has_token:
                    raise CrawlError(self._gated_message(repository.name)) from refusal
                if refusal.status == "gated":
                    repository.status, repository.reason = "gated", refusal.reason
                raise Refusal("error", refusal.reason) from refusal  # access may be given later
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

        key = f"{repository.name}:{run.path}:{run.oid}"
        found = self._log.ask("samples", key, ask, lasting=True)
        if found["reason"]:
            repository.unread[run.path] = found["reason"]
        elif n_unusable := found["n_unusable"]:
            n_lines = n_unusable + found["n_answers"] + found["n_repeated"]
            repository.unread[run.path] = f"{n_unusable} of {n_lines} samples are unusable"
        return found

    @retry(retry=retry_if_exception_type(Corrupt), stop=stop_after_attempt(3), reraise=True)
    def _stream(self, repository: Repository, run: Run) -> Samples:
        path = f"datasets/{repository.name}/resolve/{repository.sha}/{run.path}"
        lines = self._client.lines(path, n_bytes=run.n_bytes, sha256=run.sha256)
        return read_samples(lines, BENCHMARKS[TASKS[run.task][0]].metric)

    def _gated_message(self, repo: str) -> str:
        terms = f"accept the terms at {self._client.endpoint}/datasets/{repo}"
        if self._client.has_token:
            return f"{repo}: the token's account has no access; {terms}, then use --resume"
        return (
            f"{repo}: the details are gated and there is no token; {terms}, set HF_TOKEN or run "
            "`hf auth login`, then continue with --resume"
        )


def megabytes(n_bytes: float) -> str:
    """A size for people."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def build_matrix(
    answers: dict[tuple[str, str], dict], keys: dict[str, list], model_ids: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Items and responses (n_models x n_items) from the answers of all models.

    ``answers`` are log entries by (model_id, task), ``keys`` lists of ``[doc_id, hash]`` by digest.
    """
    runs = Runs()
    for task, place in TASKS.items():
        own = {model: found for (model, name), found in answers.items() if name == task}
        n_files = Counter(found["keys"] for found in own.values())
        names = name_questions(keys, n_files)
        # Questions stand as in the most common list; those that only others have come after.
        places = {
            digest: runs.places(place, [f"{place[1]}/{name}" for name in names[digest]])
            for digest in sorted(n_files, key=lambda digest: (-n_files[digest], digest))
        }
        for model_id, found in own.items():
            bits = np.frombuffer(base64.b64decode(found["bits"]), np.uint8)
            values = np.unpackbits(bits, count=found["n_answers"])
            runs.add_run(model_id, place, places[found["keys"]], values)
    if not answers:
        raise CrawlError("none of the models has details; crawl without --instances")
    ids, items, responses, _ = runs.tables()
    responses = pd.DataFrame(responses, ids).reindex(model_ids, fill_value=MISSING)
    return items.drop(columns="metric"), responses.to_numpy(np.uint8)
