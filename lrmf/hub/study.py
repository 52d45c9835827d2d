"""The crawl: leaderboard, lineage and, if asked for, single answers, as one snapshot."""

import glob
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import files
from ..data.benchmarks import BENCHMARKS, TASKS
from ..data.lineage import Lineage
from ..data.snapshot import Snapshot, SnapshotError, save_snapshot
from . import community, details, known_models, leaderboard
from .ancestry import Crawler, read_file_claims, read_visit
from .client import Client, each
from .details import Answers, Repository, megabytes
from .edges import current_names, establish_edges
from .errors import CrawlError
from .leaderboard import LARGE, TABLE_REPO
from .log import LOG_FOLDER, CrawlLog

STATUS_FILE = "crawl_status.parquet"
STATUSES = ("ok", "renamed", "gated", "missing", "disabled", "error")
MAX_DEPTH = 20
N_WORKERS = 8
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
    "scores": lambda entry: entry["rows"],
    "listing": lambda entry: entry["rows"],
    "table": lambda entry: entry["sha"],
    "overruled": lambda entry: entry["claims"],
    "options": lambda entry: entry["options"],
    "finished": lambda entry: True,
}


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
        "lineage_of": None if lineage_of is None else os.fspath(Path(lineage_of).resolve()),
        "datasets": None if datasets is None else leaderboard.model_ids(datasets),
        "benchmarks": benchmarks if benchmarks is None else list(benchmarks),
        "instances": instances,
        "models": models if models is None else leaderboard.model_ids(models),
        "max_models": max_models,
        "max_depth": max_depth,
    }
    leaderboard.chosen_benchmarks(options["benchmarks"], instances=instances)
    try:
        _check_out(out)
        with closing(CrawlLog(out / LOG_FOLDER, keep=_keep, redact=client.redact)) as log:
            options = _begin(log, client, options, resume=resume, say=say)
            return _Study(client, log, out, n_workers=n_workers, say=say).run(**options)
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


def _keep(entry: dict) -> object:
    return _READERS.get(entry["kind"], lambda _: None)(entry)


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
        log.append("crawl", "", endpoint=client.endpoint)
    left_out = crawl.__kwdefaults__
    options |= {name: value for name, value in known.items() if options[name] == left_out[name]}
    if options != log.find("options", ""):
        log.append("options", "", options=options)
    return options


class _Study:
    """One crawl in its steps: choose models, trace lineage, collect answers, write."""

    def __init__(self, client, log, out, *, n_workers, say):
        self.client, self.log, self.out = client, log, out
        self.n_workers, self.say = n_workers, say
        self.repositories: dict[str, Repository] = {}
        self.counts: dict[str, object] = {}

    def run(
        self, *, source, lineage_of, datasets, benchmarks, instances, models, max_models, max_depth
    ) -> Snapshot:
        """All steps, with the options of `crawl`."""
        if lineage_of:
            return self._follow(known_models.KnownModels(lineage_of), max_depth)
        if source == "community":
            options = {"datasets": datasets, "models": models, "max_models": max_models}
            evals = community.Community(self.client, self.log, self._each, **options)
            return self._follow(evals, max_depth)
        self.benchmarks = leaderboard.chosen_benchmarks(benchmarks, instances=instances)
        self.evaluations, skipped = leaderboard.read_table(self._table(), self.benchmarks)
        if skipped:
            self.say(f"{len(skipped)} evaluations name no model and are left out: {skipped[0]}")
        self.counts["n_unidentified_evaluations"] = len(skipped)
        self.chosen, self.others = leaderboard.select_models(
            self.evaluations["model_id"], models, max_models
        )
        self._trace_lineage(max_depth)
        self.models = self._models()
        items, responses = self._answers() if instances else self._scores()
        models = self.models.drop(columns=self.benchmarks)
        return self._write(
            {"models": models, "items": items, "lineage": self.lineage, "responses": responses},
            about=f"Open LLM Leaderboard v2 at commit {self.revision}",
            provenance={"revisions": {TABLE_REPO: self.revision}},
        )

    def _follow(self, scores, max_depth: int) -> Snapshot:
        """Trace the lineage of models that another source than the leaderboard names."""
        self.chosen, self.others = scores.model_ids, []
        self.evaluations = leaderboard.no_evaluations()
        self._trace_lineage(max_depth)
        return self._write(**scores.tables(self.visits, self.lineage))

    def _table(self) -> bytes:
        """The leaderboard's table at the commit recorded in the log, or now."""
        self.revision = self.log.find("table", TABLE_REPO)
        known = self.revision or self.log.earlier.get(("table", TABLE_REPO))
        path = self.out / LOG_FOLDER / f"table-{known}.parquet"
        if self.revision and path.is_file():
            return path.read_bytes()
        known = known if path.is_file() else None
        self.revision, content = leaderboard.fetch_table(self.client, known)
        if content is None:
            content = path.read_bytes()
        else:
            leaderboard.read_table(content, self.benchmarks)  # refuse to keep what is damaged
            path.unlink(missing_ok=True)
            with files.output(path.with_name(f"table-{self.revision}.parquet")) as file:
                file.write(content)
        self.log.append("table", TABLE_REPO, sha=self.revision)
        return content

    def _trace_lineage(self, max_depth: int) -> None:
        """Visit the models and their ancestors, and name everything as the Hub does now."""
        crawler = Crawler(self.client, self.log, self.evaluations, n_workers=self.n_workers)
        with tqdm(desc="models", total=0, unit=" id", disable=None, leave=False) as bar:
            self.visits = crawler.visit_all([*self.chosen, *self.others], max_depth, bar)
        self.counts["n_failed_files"] = crawler.n_failed_files
        self.lineage, overruled = establish_edges(self.visits)
        self.counts["n_disagreements"] = len(overruled)
        for child, claims in overruled.items():
            if self.log.find("overruled", child) != claims:
                self.log.append("overruled", child, claims=claims)

    def _models(self) -> pd.DataFrame:
        """One row a model under its current id, sorted; scores of the benchmarks included."""
        frame = leaderboard.one_evaluation_each(self._chosen_evaluations(), self.benchmarks)
        columns = ["model_id", "leaderboard_id", *_FEATURES, *self.benchmarks]
        known, rows = set(frame["model_id"]), {}
        for visit in filter(None, map(self.visits.get, self.others)):
            if visit.resolved and visit.resolved not in known:
                rows[visit.resolved] = {"revision": visit.sha, **visit.facts}
        if rows:
            more = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model_id")
            more = more.reset_index().reindex(columns=columns)
            frame = pd.concat([frame[columns], more.astype(frame[columns].dtypes.to_dict())])
        # A number that the Hub gives for an adapter or for packed weights is no size.
        false = {visit.resolved: visit.false_size for visit in self.visits.values()}
        false = frame["model_id"].map(false).astype("Float64")
        is_false = ((frame["params_b"] - false).abs() < 0.05 * false + 0.01).fillna(False)
        frame["params_b"] = frame["params_b"].mask(is_false)
        return frame[columns].sort_values("model_id", ignore_index=True)

    def _chosen_evaluations(self) -> pd.DataFrame:
        """Evaluations of the models chosen, and of what the others are or descend from."""
        current = current_names(self.visits)
        graph = nx.from_pandas_edgelist(self.lineage, "parent", "child", create_using=nx.DiGraph)
        wanted = {current[asked.casefold()] for asked in [*self.chosen, *self.others]}
        for asked in self.others:
            if (name := current[asked.casefold()]) in graph:
                wanted |= nx.ancestors(graph, name)
        frame = self.evaluations.rename(columns={"model_id": "leaderboard_id"})
        names = [current.get(name.casefold()) for name in frame["leaderboard_id"]]
        frame.insert(0, "model_id", pd.array(names, dtype="string"))
        frame["renamed"] = frame["model_id"] != frame["leaderboard_id"]
        return frame[frame["model_id"].isin(list(wanted))].reset_index(drop=True)

    def _scores(self) -> tuple[pd.DataFrame, np.ndarray]:
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

    def _answers(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Items and responses at the level of questions."""
        evaluated = self.models.dropna(subset=["leaderboard_id"])
        repos = map(details.repository_of, evaluated["leaderboard_id"])
        models = dict(zip(repos, evaluated["model_id"], strict=True))
        fetch = partial(details.fetch_repository, self.client, self.log)
        self.repositories = dict(self._each("details", fetch, list(models)))
        self._announce()
        tasks = [
            (repo, task)
            for repo, repository in sorted(self.repositories.items())
            for task in TASKS
            if TASKS[task][0] in self.benchmarks and details.runs_of(repository, task)
        ]
        answers = {
            (models[repo], task): found
            for (repo, task), found in self._each("files", self._task, tasks)
            if found is not None and found.n_answers
        }
        # Say what was left out, and refuse to go on with nothing.
        gated = [repo for repo, found in self.repositories.items() if found.status == "gated"]
        if gated and not answers:
            raise CrawlError(details.gated_message(self.client, gated[0]))
        statuses = Counter(found.status for found in self.repositories.values())
        self.counts |= {
            "details_statuses": {name: statuses[name] for name in STATUSES},
            "n_repeated_answers": sum(found.n_repeated for found in answers.values()),
            "n_unusable_answers": sum(found.n_unusable for found in answers.values()),
        }
        known = self.log.earlier | self.log.answers
        keys = {key: kept for (kind, key), kept in known.items() if kind == "keys"}
        return details.build_matrix(answers, keys, list(self.models["model_id"]))

    def _each(self, what: str, function: Callable, tasks: list) -> Iterator[tuple]:
        """Results of the workers as they come, with a progress bar on a terminal."""
        results = each(function, tasks, n_workers=self.n_workers)
        return tqdm(results, what, total=len(tasks), unit=" id", disable=None, leave=False)

    def _task(self, task: tuple[str, str]) -> Answers | None:
        repo, name = task
        return details.fetch_task(self.client, self.log, repo, self.repositories[repo], name)

    def _announce(self) -> None:
        """Say how much is going to be downloaded, and what is left out."""
        n_bytes = sum(map(details.sizes_of, self.repositories.values()), Counter())
        chosen = sum(n_bytes[name] for name in self.benchmarks)
        found = sum(repository.status == "ok" for repository in self.repositories.values())
        text = f"details of {found} of {len(self.repositories)} models: {megabytes(chosen)}"
        if LARGE not in self.benchmarks:
            text += f"; {LARGE} left out, {megabytes(n_bytes[LARGE])} (--benchmarks ... {LARGE})"
        self.say(text)

    def _write(
        self,
        tables: dict,
        *,
        about: str,
        provenance: dict,
        source: str = "hub",
        more: dict[str, pd.DataFrame] | None = None,
    ) -> Snapshot:
        """Put the snapshot, the statuses and further tables in place."""
        status = self._status_table()
        counts = status[status["kind"] == "model"]["status"].value_counts()
        dropped = Lineage.from_edges(tables["lineage"], tables["models"]["model_id"]).dropped
        started = self.log.header["time"]
        provenance = {
            **provenance,
            "endpoint": self.client.endpoint,
            "crawled_at": started,
            "statuses": {name: int(counts.get(name, 0)) for name in STATUSES},
            "n_cycles": int((dropped["reason"] == "cycle").sum()),
            **self.counts,
        }
        note = (
            f"{about}; lineage from the metadata of the models on the Hub, {started[:10]}. "
            "The licences are those of the authors."
        )
        # Whoever dies while folders change places leaves copies of this crawl's files behind.
        for folder in (self.out.parent, self.out):
            for path in folder.glob(f".{glob.escape(self.out.name[:40])}.????????.partial"):
                shutil.rmtree(path, ignore_errors=True)
        snapshot = save_snapshot(
            self.out,
            **tables,
            name=os.fsencode(self.out.name).decode(errors="replace") or "hub",
            source=source,
            note=note,
            provenance=provenance,
            keep_others=True,
        )
        (self.out / community.SOURCES_FILE).unlink(missing_ok=True)  # of an earlier crawl
        for name, table in ({STATUS_FILE: status} | (more or {})).items():
            files.write_bytes(self.out / name, table.to_parquet(index=False))
        self.log.append("finished", "")
        return snapshot

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
        told = [(visit.resolved, visit.unread) for visit in self.visits.values()]
        told += [(repo, found.unread) for repo, found in sorted(self.repositories.items())]
        rows += [
            ("file", name, "error", None, None, None, None, f"{file}: {reason}")
            for name, unread in told
            for file, reason in unread.items()
        ]
        columns = ["kind", "id", "status", "resolved_id", "gated", "sha", "time", "reason"]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype("string").assign(gated=pd.array(frame["gated"], dtype="boolean"))
