"""From the leaderboard's models up through their parents: who is asked about, and what was said."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from ..data import metadata
from ..data.ids import normalised_id
from . import edges
from .client import Client, each
from .edges import ADAPTER_FILE, DECLARED, MERGE_FILES, Claim
from .errors import Refusal, TooLarge
from .leaderboard import claimed_bases
from .log import CrawlLog

EXPAND = (
    "baseModels cardData config createdAt disabled gated lastModified library_name likes "
    "safetensors sha siblings tags"
).split()
MAX_FILE = 32 * 2**20  # some READMEs hold their pictures
_UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_MIN_LISTED = 2  # models of one author from which on a listing is cheaper than asking for each
_LOGGED_ROWS, _LOGGED_LENGTH = 20, 300


@dataclass(slots=True)
class Visit:
    """What is kept of the answer for one id.

    ``status`` is ok, renamed, gated, missing, disabled or error; ``resolved`` is the id that the
    Hub answered with, None without an answer; ``inferred`` is the relation to one parent and to
    several; ``files`` are those to read for parents, and those to read if the leaderboard calls the
    model a merge. ``facts`` describe the model for a snapshot; ``false_size`` is what the
    Hub says of a size and is not the model's. ``unread`` has why files could not be read.
    """

    status: str
    reason: str
    time: str
    resolved: str | None = None
    sha: str | None = None
    last_modified: str | None = None
    gated: bool = False
    claims: list[Claim] = field(default_factory=list)
    relation: str | None = None
    inferred: tuple[str, str] = ("finetune", "merge")
    files: tuple[list[str], list[str]] = ((), ())
    facts: dict = field(default_factory=dict)
    false_size: float | None = None
    unread: dict[str, str] = field(default_factory=dict)


def ask_model(client: Client, asked: str) -> dict:
    """Ask the Hub for a model: the values of its log entry."""
    try:
        answer = client.json(f"api/models/{asked}", expand=EXPAND)
    except Refusal as refusal:
        return {"status": refusal.status, "reason": refusal.reason}
    resolved = answer.get("id") if isinstance(answer, dict) else None
    if resolved is None or normalised_id(resolved) != resolved:
        return {"status": "error", "reason": "the answer has no usable id"}
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
    return {"status": status, "reason": "", "answer": kept}


def read_visit(entry: dict) -> Visit:
    """Read a log entry of kind ``model``."""
    visit = Visit(entry["status"], entry.get("reason", ""), entry["time"])
    answer = entry.get("answer")
    if not isinstance(answer, dict):
        return visit
    own_ids = {entry["key"], answer["id"]}
    read_files = partial(edges.files_to_read, answer, own_ids=own_ids)
    visit.resolved = answer["id"]
    visit.sha = metadata.commit(answer)
    visit.last_modified = metadata.text(answer.get("lastModified"))
    visit.gated = bool(answer.get("gated"))
    visit.claims = edges.declared_claims(answer)
    visit.relation = edges.card_relation(answer)
    visit.inferred = (edges.inferred_relation(answer, 1), edges.inferred_relation(answer, 2))
    visit.files = (read_files(merged=False), read_files(merged=True))
    visit.facts = metadata.facts(answer) | {"merged": edges.is_merge(answer) or None}
    visit.false_size = metadata.sizes(answer)[1]
    return visit


class Crawler:
    """Visit models and their ancestors, each id once, and write down every answer.

    Answers found in the log are not asked for again. The evaluations say which models are merges
    and which base models the leaderboard names. Ids that differ in
    case only from one that was answered for are not visited.
    """

    def __init__(self, client: Client, log: CrawlLog, evaluations: pd.DataFrame, *, n_workers: int):
        self._client, self._log = client, log
        self._each = partial(each, n_workers=n_workers)
        self._merged = set(evaluations["model_id"][evaluations["merged"].fillna(False)])
        self._bases = claimed_bases(evaluations)
        self._unchanged: set[str] = set()
        self.n_failed_files = 0  # that another attempt may bring

    def visit_all(self, roots: Iterable[str], max_depth: int, bar: tqdm) -> dict[str, Visit]:
        """Visit the roots, then breadth first their ancestors up to ``max_depth`` steps away.

        The same answers give the same visits, by id asked for, in any order of arrival.
        """
        self._find_unchanged(bar)
        visits: dict[str, Visit] = {}
        level = sorted(set(roots))
        for _ in range(max_depth + 1):
            bar.total += len(level)
            for asked, visit in self._each(self._visit, level):
                visits[asked] = visit
                bar.update()
            answered = [(asked, v.resolved) for asked, v in visits.items() if v.resolved]
            known = {name.casefold(): names[1] for names in answered for name in names}
            parents = {claim.parent for asked in level for claim in visits[asked].claims}
            level = sorted(p for p in parents.difference(visits) if p.casefold() not in known)
            if not level:
                break
        for asked, visit in visits.items():  # a spelling that this Hub does not redirect
            if not visit.resolved and (name := known.get(asked.casefold())):
                visits[asked] = replace(visit, status="renamed", resolved=name)
        return dict(sorted(visits.items()))

    def _visit(self, asked: str) -> Visit:
        visit = self._log.find("model", asked)
        if visit is None or visit.status == "error":
            if asked in self._unchanged:
                visit = self._log.confirm("model", asked)
            else:
                visit = self._record("model", asked, ask_model(self._client, asked))
        merged = not self._merged.isdisjoint((asked, visit.resolved))
        claims = [claim for claim in visit.claims if claim.source in DECLARED]
        visit.unread = {}
        # The files repeat each other; the first that names parents will do.
        found = (self._file_claims(visit, name) for name in visit.files[merged])
        claims += next(filter(None, found), [])
        if base := self._bases.get(asked) or self._bases.get(visit.resolved):
            claims.append(Claim(*base, "leaderboard"))
        visit.claims = claims
        return visit

    def _file_claims(self, visit: Visit, name: str) -> list[Claim]:
        """Parents in a file at the commit visited; a commit's file never changes."""
        revision = visit.sha or "main"
        key = f"{visit.resolved}@{revision}/{name}"
        known = (self._log.recall if visit.sha else self._log.find)("file", key)
        if known is None or known.again:
            path = f"{visit.resolved}/resolve/{revision}/{name}"
            values = {"status": "ok", "reason": "", "name": name, "parents": []}
            try:
                content = self._client.content(path, max_bytes=MAX_FILE)
            except Refusal as refusal:
                is_final = isinstance(refusal, TooLarge)
                status = "unread" if is_final else refusal.status
                values |= {"status": status, "reason": refusal.reason}
            else:
                try:
                    claims, values["reason"] = edges.read_file(name, content)
                    values["parents"] = [claim.parent for claim in claims]
                except _UNREADABLE as error:
                    values["reason"] = f"cannot be read ({type(error).__name__})"
            known = self._record("file", key, values)
        if known.problem:
            visit.unread[name] = known.problem
            self.n_failed_files += known.again
        return known.claims

    def _record(self, kind: str, key: str, values: dict) -> object:
        """Write an answer down; one that cannot be read must not end the crawl."""
        try:
            return self._log.append(kind, key, **values)
        except _UNREADABLE as error:
            reason = f"the answer cannot be read ({type(error).__name__})"
            return self._log.append(kind, key, status="error", reason=reason)

    def _find_unchanged(self, bar: tqdm) -> None:
        """Learn from listings by author which models are as an earlier crawl found them."""
        visits: dict[str, dict[str, Visit]] = {}
        for (kind, asked), visit in self._log.earlier.items():
            if kind == "model" and visit.resolved and visit.sha:
                visits.setdefault(visit.resolved.split("/")[0], {})[asked] = visit
        known = {a: found for a, found in sorted(visits.items()) if len(found) >= _MIN_LISTED}
        bar.total += len(known)
        for (_, found), rows in self._each(self._listing, known.items()):
            bar.update()
            for asked, visit in found.items():
                if rows.get(visit.resolved) == [visit.sha, visit.last_modified, visit.gated]:
                    self._unchanged.add(asked)

    def _listing(self, known: tuple[str, dict[str, Visit]]) -> dict[str, list]:
        """Commit, time and gating of the known models of an author.

        There may be thousands of others: the listing is given up after as many pages as there are
        models to look for, as asking for each of them costs no more.
        """
        author, visits = known
        rows = self._log.find("listing", author)
        if rows is not None:
            return rows
        wanted = {visit.resolved for visit in visits.values()}
        rows, malformed, reason = {}, [], ""
        fields = ["sha", "lastModified", "gated"]
        pages = self._client.pages("api/models", author=author, expand=fields, limit=1000)
        try:
            for row in chain.from_iterable(islice(pages, len(wanted))):
                try:
                    if row["id"] in wanted:
                        gated = bool(row.get("gated"))
                        rows[row["id"]] = [row["sha"], row.get("lastModified"), gated]
                except (TypeError, LookupError):
                    malformed.append(repr(row)[:_LOGGED_LENGTH])
                if len(rows) == len(wanted):
                    break
        except Refusal as refusal:
            reason = refusal.reason
        return self._log.append(
            "listing", author, rows=rows, reason=reason, malformed=malformed[:_LOGGED_ROWS]
        )


class FileClaims(NamedTuple):
    """What a file says of the parents, why it could not be read, and whether to ask again."""

    claims: list[Claim]
    problem: str
    again: bool


def read_file_claims(entry: dict) -> FileClaims:
    """Read a log entry of kind ``file``."""
    status, name = entry["status"], entry.get("name")
    relation = "adapter" if name == ADAPTER_FILE else "merge"
    claims = [Claim(parent, relation, name) for parent in entry.get("parents", ())]
    is_old = status == "ok" and "parents" not in entry  # of an earlier version of this program
    problem = "" if status == "missing" else entry.get("reason", "")
    return FileClaims(claims, problem, again=status == "error" or is_old)
