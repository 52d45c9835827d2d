"""The crawl: leaderboard, lineage and, if asked for, single answers, as one snapshot."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..data.lineage import Lineage
from ..data.snapshot import Snapshot, load_snapshot, save_snapshot
from . import details, leaderboard
from .ancestry import Crawler, Visit, establish_edges, read_file_claims, read_visit
from .choice import LARGE, chosen_benchmarks, fetch_table, model_ids, select_models
from .client import Client
from .details import TASKS, Answers, Repository, megabytes
from .errors import CrawlError
from .leaderboard import BENCHMARKS, TABLE_REPO
from .log import LOG_FOLDER, CrawlLog
from .publish import STATUS_FILE, publish, recover_log, tidy
from .workers import each

STATUSES = ("ok", "renamed", "gated", "missing", "disabled", "error")
MAX_DEPTH = 20
N_WORKERS = 8
_LEFT_OUT = {
    "benchmarks": None,
    "instances": False,
    "models": None,
    "max_models": None,
    "max_depth": MAX_DEPTH,
}
_FEATURES = (
    "revision params_b architecture precision type merged moe chat_template license likes "
    "created_at evaluated_at flagged other_evaluations"
).split()
_READERS = {
    "model": read_visit,
    "file": read_file_claims,
    "details": details.read_repository,
    "samples": details.read_answers,
    "keys": lambda entry: entry["keys"],
    "listing": lambda entry: entry["rows"],
    "table": lambda entry: entry["sha"],
    "overruled": lambda entry: entry["claims"],
    "options": lambda entry: entry["options"],
    "finished": lambda entry: True,
}


def crawl(
    out: str | os.PathLike,
    *,
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
    """Collect the Open LLM Leaderboard v2 and its models' lineage from the Hugging Face Hub.

    Every answer is appended to a log in ``out/.crawl`` as it arrives. An interrupted crawl that is
    resumed ends in the same tables as an undisturbed one; a new crawl into the same folder fetches
    what has changed since.

    Parameters
    ----------
    out : path of the folder to create or to bring up to date
    benchmarks : names, optional
        Keys of `leaderboard.BENCHMARKS`. Default: all; with ``instances``, all but MMLU-Pro.
    instances : bool
        Collect the answers to single questions instead of the benchmarks' scores.
    models : ids, optional
        Crawl these instead of the whole leaderboard. Those that are not on it become models
        without answers, if the Hub has them, and bring their evaluated ancestors along.
    max_models : int, optional
        Only the first so many models.
    max_depth : int
        Generations of ancestors to ask for.
    resume : bool
        Go on with the crawl that the log holds instead of starting a new one. Options that are left
        out here are those of that crawl.
    n_workers : int
        Requests under way at a time.
    client : Client, optional
        Used up by the crawl.
    say : callable
        Takes messages for the user.

    Returns
    -------
    Snapshot
        As written to ``out``, beside which `STATUS_FILE` has a status for every id asked for.

    Raises
    ------
    CrawlError
        If the crawl cannot go on; what was fetched is kept.
    KeyboardInterrupt
        Likewise.
    """
    out = Path(out).resolve()
    client = client or Client(say=say)
    options = {
        "benchmarks": benchmarks if benchmarks is None else list(benchmarks),
        "instances": instances,
        "models": models if models is None else model_ids(models),
        "max_models": max_models,
        "max_depth": max_depth,
    }
    chosen_benchmarks(options["benchmarks"], instances=instances)
    try:
        recover_log(out)
        _check_out(out)
        with CrawlLog(out / LOG_FOLDER, keep=_keep, redact=client.redact) as log:
            tidy(out)
            options = _begin(log, client, options, resume=resume, say=say)
            return _Study(client, log, out, n_workers=n_workers, say=say).run(**options)
    except OSError as error:
        reason = error.strerror or error
        raise CrawlError(
            f"{out}: cannot be read or written ({reason}); make room or choose another folder, "
            "then continue with --resume"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; what was fetched is kept: continue with --resume"
        ) from None
    finally:
        client.stopped.set()


def _keep(entry: dict) -> object:
    reader = _READERS.get(entry["kind"])
    return reader(entry) if reader else None


def _check_out(out: Path) -> None:
    """Refuse a folder that is not a crawl's own."""
    if out.exists() and not out.is_dir():
        raise CrawlError(f"{out}: is a file; choose a folder")
    if out.is_dir() and not (out / LOG_FOLDER).is_dir() and any(out.iterdir()):
        raise CrawlError(f"{out}: holds other files; choose an empty or new folder")


def _begin(log: CrawlLog, client: Client, options: dict, *, resume: bool, say: Callable) -> dict:
    """Begin a crawl or go on with the one there is; returns its options."""
    known = (log.find("options", "") if resume else None) or {}
    answered = any(kind != "options" for kind, _ in chain(log.answers, log.earlier))
    before = log.header if answered else None
    if before is not None and before.get("endpoint") != client.endpoint:
        raise CrawlError(
            f"the folder holds a crawl of {before.get('endpoint')}, not of {client.endpoint}; "
            "choose another folder"
        )
    if before is not None and not resume and not log.find("finished", ""):
        say("an unfinished crawl is there; what has not changed since is not fetched again")
    if before is None or not resume:  # there may be nothing to resume
        log.begin(endpoint=client.endpoint)
    options |= {name: value for name, value in known.items() if options[name] == _LEFT_OUT[name]}
    if options != log.find("options", ""):
        log.append("options", "", options=options)
    return options


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere: ``advance(n_added, n_done)``."""
    with tqdm(desc=what, total=0, unit=" id", disable=None, leave=False) as bar:

        def advance(n_added: int, n_done: int) -> None:
            bar.total += n_added
            bar.update(n_done)

        yield advance


class _Study:
    """One crawl in its steps: choose models, trace lineage, collect answers, write."""

    def __init__(self, client, log, out, *, n_workers, say):
        self.client, self.log, self.out = client, log, out
        self.n_workers, self.say = n_workers, say
        self.visits: dict[str, Visit] = {}
        self.repositories: dict[str, Repository] = {}
        self.counts: dict[str, object] = {}

    def run(self, *, benchmarks, instances, models, max_models, max_depth) -> Snapshot:
        """All steps, with the options of `crawl`."""
        self.benchmarks = chosen_benchmarks(benchmarks, instances=instances)
        self.choose_models(models, max_models)
        self.trace_lineage(max_depth)
        return self.write(*(self.collect_answers() if instances else self.scores()))

    def choose_models(self, models: Iterable[str] | None, max_models: int | None) -> None:
        """Read the leaderboard's table, from its recorded commit."""
        content = self._table()
        self.evaluations, skipped = leaderboard.read_table(content, self.benchmarks)
        if skipped:
            self.say(f"{len(skipped)} evaluations name no model and are left out: {skipped[0]}")
        self.n_skipped = len(skipped)
        self.chosen, self.others = select_models(self.evaluations["model_id"], models, max_models)

    def _table(self) -> bytes:
        self.revision = self.log.find("table", TABLE_REPO)
        known = self.revision or self.log.earlier.get(("table", TABLE_REPO))
        path = self.out / LOG_FOLDER / f"table-{known}.parquet"
        if self.revision and path.is_file():
            return path.read_bytes()
        self.revision, content = fetch_table(self.client, known if path.is_file() else None)
        if content is None:
            content = path.read_bytes()
        else:
            leaderboard.read_table(content, self.benchmarks)  # refuse to keep what is damaged
            path.unlink(missing_ok=True)
            _write(self.out / LOG_FOLDER / f"table-{self.revision}.parquet", content)
        self.log.append("table", TABLE_REPO, sha=self.revision)
        return content

    def trace_lineage(self, max_depth: int) -> None:
        """Visit the models and their ancestors, and name everything as the Hub does now."""
        frame = self.evaluations
        crawler = Crawler(
            self.client,
            self.log,
            merged=set(frame["model_id"][frame["merged"].fillna(False)]),
            bases=leaderboard.claimed_bases(frame),
            n_workers=self.n_workers,
        )
        with _progress("models") as advance:
            roots = [*self.chosen, *self.others]
            self.visits = crawler.visit_all(roots, max_depth=max_depth, advance=advance)
        self.counts["n_failed_files"] = crawler.n_failed_files
        self.lineage, self.overruled = establish_edges(self.visits)
        for child, claims in self.overruled.items():
            if self.log.find("overruled", child) != claims:
                self.log.append("overruled", child, claims=claims)
        self.models = self._models()

    def _models(self) -> pd.DataFrame:
        """One row a model under its current id, sorted; scores of the benchmarks included."""
        frame = leaderboard.one_evaluation_each(self._chosen_evaluations(), self.benchmarks)
        columns = ["model_id", "leaderboard_id", *_FEATURES, *self.benchmarks]
        known, rows = set(frame["model_id"]), {}
        for asked in self.others:
            visit = self.visits[asked]
            if visit.resolved and visit.resolved not in known:
                rows[visit.resolved] = {"revision": visit.sha, **visit.facts}
        if rows:
            more = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model_id")
            more = more.reset_index().reindex(columns=columns)
            frame = pd.concat([frame[columns], more.astype(frame[columns].dtypes.to_dict())])
        return frame[columns].sort_values("model_id", ignore_index=True)

    def _chosen_evaluations(self) -> pd.DataFrame:
        """Evaluations of the models chosen, and of what the others are or descend from."""
        current = {asked: visit.resolved or asked for asked, visit in self.visits.items()}
        folded = {name.casefold(): name for name in current.values()}
        folded |= {asked.casefold(): name for asked, name in current.items()}
        parents = self.lineage.groupby("child")["parent"].agg(list).to_dict()
        kin, pending = set(), [current[asked] for asked in self.others]
        while pending:
            if (name := pending.pop()) not in kin:
                kin.add(name)
                pending += parents.get(name, [])
        wanted = kin.union(current[asked] for asked in self.chosen)
        frame = self.evaluations.rename(columns={"model_id": "leaderboard_id"})
        names = [current.get(n) or folded.get(n.casefold()) for n in frame["leaderboard_id"]]
        frame.insert(0, "model_id", pd.array(names, dtype="string"))
        frame["renamed"] = frame["model_id"] != frame["leaderboard_id"]
        return frame[frame["model_id"].isin(list(wanted))].reset_index(drop=True)

    def scores(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Items and responses at the level of benchmarks."""
        names = pd.array(self.benchmarks, dtype="string")
        items = pd.DataFrame({"item_id": names, "benchmark": names, "subtask": names})
        items["n_trials"] = [BENCHMARKS[name].n_trials for name in self.benchmarks]
        if self.models.empty and self.others:
            first = self.others[0]
            found = f"{self.visits[first].status} ({self.visits[first].reason})"
            raise CrawlError(f"{first}: {found}; check the id, and the token if it is private")
        responses = self.models[self.benchmarks].to_numpy(dtype=np.float32)
        if np.isnan(responses).all():
            raise CrawlError(
                "none of the models has a score on the leaderboard, nor has an ancestor of theirs; "
                "add an evaluated model, such as a relative of theirs"
            )
        return items, responses

    def collect_answers(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Items and responses at the level of questions."""
        names = self.models["leaderboard_id"].dropna()
        repos = {details.repository_of(name): name for name in names}
        with _progress("details") as advance:
            advance(len(repos), 0)
            for repo, found in self._each(self._repository, list(repos)):
                self.repositories[repo] = found
                advance(0, 1)
        self._announce()
        current = dict(zip(self.models["leaderboard_id"], self.models["model_id"], strict=True))
        answers = {
            (current[repos[repo]], task): found
            for (repo, task), found in self._answers()
            if found is not None and found.n_answers
        }
        self._count_answers(answers.values())
        known = self.log.earlier | self.log.answers
        keys = {key: kept for (kind, key), kept in known.items() if kind == "keys"}
        return details.build_matrix(answers, keys, list(self.models["model_id"]))

    def _count_answers(self, answers: Iterable[Answers]) -> None:
        """Note what was left out, and refuse to go on with nothing."""
        gated = [repo for repo, found in self.repositories.items() if found.status == "gated"]
        if gated and not answers:
            raise CrawlError(details.gated_message(self.client, gated[0]))
        counts = Counter(found.status for found in self.repositories.values())
        self.counts |= {
            "details_statuses": {name: counts[name] for name in STATUSES},
            "n_repeated_answers": sum(found.n_repeated for found in answers),
            "n_unusable_answers": sum(found.n_unusable for found in answers),
        }

    def _answers(self) -> Iterator[tuple[tuple[str, str], Answers | None]]:
        tasks = [
            (repo, task)
            for repo, repository in sorted(self.repositories.items())
            for task in TASKS
            if TASKS[task][0] in self.benchmarks and details.runs_of(repository, task)
        ]
        with _progress("files") as advance:
            advance(len(tasks), 0)
            for task, found in self._each(self._task, tasks):
                yield task, found
                advance(0, 1)

    def _task(self, task: tuple[str, str]) -> Answers | None:
        repo, name = task
        return details.fetch_task(self.client, self.log, repo, self.repositories[repo], name)

    def _repository(self, repo: str) -> Repository:
        known = self.log.find("details", repo)
        if known is not None and known.status != "error":
            return known
        earlier = self.log.earlier.get(("details", repo))
        values = details.ask_repository(self.client, repo, known=earlier and earlier.sha)
        if values is None:
            return self.log.confirm("details", repo)
        return self.log.append("details", repo, **values)

    def _announce(self) -> None:
        """Say how much is going to be downloaded, and what is left out."""
        n_bytes: Counter = Counter()
        for repository in self.repositories.values():
            for task, (benchmark, _) in TASKS.items():
                runs = details.runs_of(repository, task)
                n_bytes[benchmark] += runs[0].n_bytes if runs else 0
        chosen = sum(n_bytes[name] for name in self.benchmarks)
        found = sum(repository.status == "ok" for repository in self.repositories.values())
        text = f"details of {found} of {len(self.repositories)} models: {megabytes(chosen)}"
        if LARGE not in self.benchmarks:
            text += f"; {LARGE} left out, {megabytes(n_bytes[LARGE])} (--benchmarks ... {LARGE})"
        self.say(text)

    def _each(self, function: Callable, tasks: list) -> Iterator[tuple]:
        return each(function, tasks, n_workers=self.n_workers, stopped=self.client.stopped)

    def write(self, items: pd.DataFrame, responses: np.ndarray) -> Snapshot:
        """Put the snapshot and the statuses in place."""
        status = self._status_table()
        counts = status[status["kind"] == "model"]["status"].value_counts()
        dropped = Lineage.from_edges(self.lineage, self.models["model_id"]).dropped
        started = self.log.header["time"]
        provenance = {
            "endpoint": self.client.endpoint,
            "crawled_at": started,
            "revisions": {TABLE_REPO: self.revision},
            "statuses": {name: int(counts.get(name, 0)) for name in STATUSES},
            "n_disagreements": len(self.overruled),
            "n_cycles": int((dropped["reason"] == "cycle").sum()),
            "n_unidentified_evaluations": self.n_skipped,
            **self.counts,
        }
        note = (
            f"Open LLM Leaderboard v2 at commit {self.revision}; lineage from the metadata of the "
            f"models on the Hub, {started[:10]}. The licences are those of the authors."
        )
        staging = self.out / LOG_FOLDER / "snapshot"
        _clear(staging)
        save_snapshot(
            staging,
            models=self.models.drop(columns=self.benchmarks),
            items=items,
            lineage=self.lineage,
            responses=responses,
            name=self.out.name,
            source="hub",
            note=note,
            provenance=provenance,
        )
        status.to_parquet(staging / STATUS_FILE, index=False)
        publish(staging, self.out)
        self.log.append("finished", "")
        return load_snapshot(self.out, verify_checksums=False)

    def _status_table(self) -> pd.DataFrame:
        """One row for every id asked for."""
        rows = [
            ("model", asked, v.status, v.resolved, v.gated, v.sha, v.time, v.reason)
            for asked, v in self.visits.items()
        ]
        rows += [
            ("details", repo, r.status, None, None, r.sha, r.time, r.reason)
            for repo, r in sorted(self.repositories.items())
        ]
        columns = ["kind", "id", "status", "resolved_id", "gated", "sha", "time", "reason"]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype("string").assign(gated=pd.array(frame["gated"], dtype="boolean"))


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _clear(staging: Path) -> None:
    """Remove what an interrupted crawl left in the way."""
    for path in [staging, *staging.parent.glob(f".{staging.name}.*")]:
        shutil.rmtree(path, ignore_errors=True)
