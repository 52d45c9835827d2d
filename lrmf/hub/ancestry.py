"""From the models of a source up through their parents: who is asked about, and what was said."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import pandas as pd

from ..data import metadata
from ..data.ids import normalised_id
from . import edges
from .client import Client
from .edges import MERGE_FILES, Claim
from .errors import Refusal
from .log import CrawlLog

EXPAND = (
    "baseModels cardData config createdAt disabled gated lastModified library_name likes "
    "safetensors sha siblings tags"
).split()
MAX_FILE = 32 * 2**20  # some READMEs hold their pictures
STATUSES = ("ok", "renamed", "gated", "missing", "disabled", "error")


class Work(NamedTuple):
    """What each step of a crawl works with; ``each(what, function, tasks)`` runs in its workers."""

    client: Client
    log: CrawlLog
    each: Callable
    say: Callable[[str], None]  # to the user


class Source:
    """Models to crawl, and what is known of them before the Hub is asked."""

    model_ids: list[str]
    merged: AbstractSet[str] = frozenset()  # models that the source calls merges
    bases: Mapping[str, Claim] = {}  # the parent that the source names, by model

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """The snapshot, from what the source has and the Hub says of the models.

        Returns
        -------
        dict
            ``tables`` (arguments of `save_snapshot`) and ``about`` (a note); where a source has
            them, ``source``, ``provenance``, ``repositories`` asked for beside the models, by
            name, each with a status, and ``more`` (further tables by file name).
        """
        raise NotImplementedError


@dataclass(slots=True)
class Visit:
    """What is kept of the answer for one id.

    ``resolved`` is the id that the Hub answered with; ``inferred`` is the relation to one parent
    that states none; ``files`` are those to read for parents; ``false_size`` is what the Hub says
    of a size and is not the model's; ``unread`` has why files could not be read.
    """

    status: str
    reason: str
    time: str
    resolved: str | None = None
    sha: str | None = None
    gated: bool = False
    claims: list[Claim] = field(default_factory=list)
    inferred: str = "finetune"
    files: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    false_size: float | None = None
    unread: dict[str, str] = field(default_factory=dict)


def count_statuses(found: Iterable) -> dict[str, int]:
    """How many of the visits or repositories have each status."""
    statuses = [one.status for one in found]
    return {name: statuses.count(name) for name in STATUSES}


def visits_by_id(visits: dict[str, Visit]) -> dict[str, Visit]:
    """The visits of all models that there are, by the id that the Hub uses now."""
    return {visit.resolved: visit for visit in visits.values() if visit.resolved}


def ask_model(client: Client, asked: str) -> dict:
    """Ask the Hub for a model: the values of its log entry; raises Refusal."""
    answer = client.json(f"api/models/{asked}", expand=EXPAND)
    resolved = answer.get("id") if isinstance(answer, dict) else None
    if resolved is None or normalised_id(resolved) != resolved:
        raise Refusal("error", "the answer has no usable id")
    kept = {key: answer[key] for key in ("id", *EXPAND) if key in answer}
    # Chat templates and lists of checkpoints can be of any length.
    if isinstance(config := kept.get("config"), dict):
        kept["config"] = {key: config[key] for key in metadata.CONFIG_KEYS if key in config}
    if (files := metadata.files_of(kept)) is not None:
        relevant = files.intersection((*MERGE_FILES, *metadata.ADAPTER_FILES))
        kept["siblings"] = [{"rfilename": name} for name in sorted(relevant)]
    status = "gated" if kept.get("gated") else "ok"
    if resolved != asked:
        status = "renamed"
    if kept.get("disabled") is True:
        status = "disabled"
    return {"status": status, "answer": kept}


def read_visit(entry: dict, merged: AbstractSet[str] = frozenset()) -> Visit:
    """Read a log entry of kind ``model``; ``merged`` are known to be merges."""
    visit = Visit(entry["status"], entry.get("reason", ""), entry["time"])
    if answer := entry.get("answer"):
        names = {entry["key"], answer["id"]}
        visit.resolved = answer["id"]
        visit.sha = metadata.commit(answer)
        visit.gated = bool(answer.get("gated"))
        visit.claims = edges.declared_claims(answer)
        visit.inferred = edges.inferred_relation(answer)
        known = not merged.isdisjoint(names)
        visit.files = edges.files_to_read(answer, merged=known, own_ids=names)
        visit.facts = metadata.facts(answer) | {"merged": edges.is_merge(answer) or None}
        visit.false_size = metadata.sizes(answer)[1]
    return visit


class Crawler:
    """Visit models and their ancestors, each id once, and write down every answer.

    Answers found in the log are not asked for again. Ids that differ in case only from one that was
    answered for are not visited.
    """

    def __init__(self, work: Work, source: Source):
        self._client, self._log, self._each, _ = work
        self._source = source
        self._unchanged: set[str] = set()
        self.n_failed_files = 0  # that another attempt may bring

    def visit_all(self, max_depth: int) -> dict[str, Visit]:
        """Visit the source's models, then breadth first ancestors up to ``max_depth`` steps away.

        The same answers give the same visits, by id asked for, in any order of arrival.
        """
        self._find_unchanged()
        visits: dict[str, Visit] = {}
        level = sorted(set(self._source.model_ids))
        for _ in range(max_depth + 1):
            visits.update(self._each("models", self._visit, level))
            known = edges.current_names({a: v for a, v in visits.items() if v.resolved})
            parents = {claim.parent for asked in level for claim in visits[asked].claims}
            level = sorted(p for p in parents.difference(visits) if p.casefold() not in known)
            if not level:
                break
        for asked, visit in visits.items():  # a spelling that this Hub does not redirect
            if not visit.resolved and (name := known.get(asked.casefold())):
                visits[asked] = replace(visit, status="renamed", resolved=name)
        return dict(sorted(visits.items()))

    def _visit(self, asked: str) -> Visit:
        ask = partial(ask_model, self._client, asked)
        entry = self._log.ask("model", asked, (lambda: None) if asked in self._unchanged else ask)
        try:
            visit = read_visit(entry, self._source.merged)
        except edges.UNREADABLE as error:  # one answer must not end the crawl
            reason = f"the answer cannot be read ({type(error).__name__})"
            visit = read_visit(self._log.append("model", asked, status="error", reason=reason))
        # The files repeat each other; the first that names parents will do.
        found = (self._file_claims(visit, name) for name in visit.files)
        visit.claims += next(filter(None, found), [])
        bases = self._source.bases
        if base := bases.get(asked) or bases.get(visit.resolved):
            visit.claims.append(base)
        return visit

    def _file_claims(self, visit: Visit, name: str) -> list[Claim]:
        """Parents in a file at the commit visited; a commit's file never changes."""
        revision = visit.sha or "main"

        def ask() -> dict:
            path = f"{visit.resolved}/resolve/{revision}/{name}"
            content = self._client.content(path, max_bytes=MAX_FILE)
            return dict(zip(("claims", "reason"), edges.read_file(name, content), strict=True))

        key = f"{visit.resolved}@{revision}/{name}"
        entry = self._log.ask("file", key, ask, lasting=bool(visit.sha))
        if entry["reason"] and entry["status"] != "missing":
            visit.unread[name] = entry["reason"]
            self.n_failed_files += entry["status"] == "error"
        return [Claim(*claim) for claim in entry.get("claims", ())]

    def _find_unchanged(self) -> None:
        """Learn from listings by author which models are as an earlier crawl found them."""
        authors: dict[str, dict[str, list]] = defaultdict(dict)
        for asked in self._log.earlier_keys("model"):
            answer = self._log.find_earlier("model", asked).get("answer")
            if answer and metadata.commit(answer):
                authors[answer["id"].split("/")[0]][asked] = _state(answer)
        several = [(author, known) for author, known in sorted(authors.items()) if len(known) > 1]
        for (_, known), rows in self._each("authors", self._listing, several):
            self._unchanged.update(asked for asked, state in known.items() if state in rows)

    def _listing(self, author_and_known: tuple[str, dict[str, list]]) -> list[list]:
        """States of the known models of an author."""
        author, known = author_and_known

        def ask() -> dict:
            wanted = {state[0] for state in known.values()}
            fields = ["sha", "lastModified", "gated"]
            # There may be thousands of others; more pages cost more than asking for each of these.
            pages = self._client.pages("api/models", author=author, expand=fields, limit=1000)
            rows = (row for page in islice(pages, len(wanted)) for row in page)
            states = (_state(row) for row in rows if isinstance(row, dict))
            return {"rows": [state for state in states if str(state[0]) in wanted]}

        return self._log.ask("listing", author, ask).get("rows", [])


def _state(answer: dict) -> list:
    """What differs as soon as a model has changed."""
    return [*map(answer.get, ("id", "sha", "lastModified")), bool(answer.get("gated"))]
