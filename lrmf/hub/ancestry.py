"""From the leaderboard's models up through their parents: visits, and the edges they establish."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import pandas as pd
from tqdm import tqdm

from . import cards
from .cards import DECLARED, FILES, SOURCES, Claim, normalised_id
from .client import Client, each
from .errors import Refusal
from .leaderboard import claimed_bases
from .log import CrawlLog

EXPAND = (
    "baseModels cardData config createdAt disabled gated lastModified library_name likes "
    "safetensors sha siblings tags"
).split()
MAX_FILE = 2**20
_CONFIG = ("architectures", "model_type")
_UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_MIN_LISTED = 2  # models of one author from which on a listing is cheaper than asking for each
_LOGGED_ROWS, _LOGGED_LENGTH = 20, 300


@dataclass(slots=True)
class Visit:
    """What is kept of the answer for one id.

    ``status`` is ok, renamed, gated, missing, disabled or error; ``resolved`` is the id that the
    Hub answered with, None without an answer; ``inferred`` is the relation to one parent and to
    several; ``files`` are those to read for parents, and those to read if the leaderboard calls the
    model a merge. ``facts`` describe the model for a snapshot.
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
        kept["config"] = {key: config[key] for key in _CONFIG if key in config}
    if (files := cards.files_of(kept)) is not None:
        relevant = files.intersection(FILES)
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
    read_files = partial(cards.files_to_read, answer, own_ids=own_ids)
    visit.resolved = answer["id"]
    visit.sha = cards.commit(answer)
    visit.last_modified = _text(answer.get("lastModified"))
    visit.gated = bool(answer.get("gated"))
    visit.claims = cards.declared_claims(answer)
    visit.relation = cards.card_relation(answer)
    visit.inferred = (cards.inferred_relation(answer, 1), cards.inferred_relation(answer, 2))
    visit.files = (read_files(merged=False), read_files(merged=True))
    visit.facts = _facts(answer)
    return visit


def _facts(answer: dict) -> dict:
    """What the Hub knows of a model that the leaderboard has not evaluated."""
    architectures = cards.mapping(answer, "config").get("architectures")
    if not isinstance(architectures, list):
        architectures = []
    n_parameters, likes = cards.mapping(answer, "safetensors").get("total"), answer.get("likes")
    return {
        "architecture": _text(next(iter(architectures), None)),
        "params_b": n_parameters / 1e9 if _is_count(n_parameters) and n_parameters else None,
        "license": _text(cards.mapping(answer, "cardData").get("license")),
        "likes": likes if _is_count(likes) else None,
        "created_at": (_text(answer.get("createdAt")) or "")[:10] or None,
        "merged": True if cards.is_merge(answer) else None,
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 200 else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**62


class Crawler:
    """Visit models and their ancestors, each id once, and write down every answer.

    Answers found in the log are not asked for again. The evaluations say which models are merges
    and which base models the leaderboard names. ``n_failed_files`` counts the files that may name
    parents and could not be fetched.
    """

    def __init__(self, client: Client, log: CrawlLog, evaluations: pd.DataFrame, *, n_workers: int):
        self._client, self._log = client, log
        self._each = partial(each, n_workers=n_workers)
        self._merged = set(evaluations["model_id"][evaluations["merged"].fillna(False)])
        self._bases = claimed_bases(evaluations)
        self._unchanged: set[str] = set()
        self.n_failed_files = 0

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
            known = {visit.resolved for visit in visits.values()}.union(visits)
            parents = {claim.parent for asked in level for claim in visits[asked].claims}
            level = sorted(parents - known)
            if not level:
                break
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
        claims = (self._log.recall if visit.sha else self._log.find)("file", key)
        if claims is None:
            path = f"{visit.resolved}/resolve/{revision}/{name}"
            try:
                content = self._client.content(path, max_bytes=MAX_FILE)
                values = {"status": "ok", "name": name, "text": content.decode(errors="replace")}
            except Refusal as refusal:
                values = {"status": refusal.status, "reason": refusal.reason, "name": name}
                self.n_failed_files += refusal.status == "error"
            claims = self._record("file", key, values)
        return claims or []

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


def read_file_claims(entry: dict) -> list[Claim] | None:
    """Read a log entry of kind ``file``; None if the file has to be asked for again."""
    if entry["status"] == "error":
        return None
    return cards.file_claims(entry["name"], entry["text"].encode()) if "text" in entry else []


def establish_edges(visits: dict[str, Visit]) -> tuple[pd.DataFrame, dict[str, list[dict]]]:
    """Turn the claims of all sources into edges between the ids that the Hub uses now.

    Of the sources in the order of `cards.SOURCES` the first that names a parent decides. Parents
    that only a lower declared source names are kept if they have been deleted or made private (the
    Hub's own tree cannot list these), and the files of an incomplete merge add theirs. The relation
    is the card's ``base_model_relation``, else that of the first source which states one, else
    inferred as the Hub does.

    Returns the edges (parent, child, relation, and as evidence the sources that name the parent),
    sorted, and by child the claims that were overruled (parent, relation, source).
    """
    current = {asked: visit.resolved or asked for asked, visit in visits.items()}
    names: dict[str, list[str]] = {}  # under which a model was asked for, the current one first
    for asked in sorted(visits, key=lambda asked: (current[asked] != asked, asked)):
        names.setdefault(current[asked], []).append(asked)
    gone = {asked for asked, visit in visits.items() if visit.status == "missing"}
    # A name without owner that the Hub does not resolve is nobody's id.
    resolved = {asked for asked, visit in visits.items() if visit.resolved}
    edges, overruled = [], {}
    for child, asked in sorted(names.items()):
        claims = dict.fromkeys(
            claim._replace(parent=current.get(claim.parent, claim.parent))
            for name in asked
            for claim in visits[name].claims
            if "/" in claim.parent or claim.parent in resolved
        )
        claims = [claim for claim in claims if claim.parent not in (child, *asked)]
        found, rest = _decide(claims, visits[asked[0]], gone)
        edges += [(parent, child, relation, evidence) for parent, relation, evidence in found]
        if rest:
            overruled[child] = [claim._asdict() for claim in rest]
    lineage = pd.DataFrame(sorted(edges), columns=["parent", "child", "relation", "evidence"])
    return lineage.astype("string"), overruled


def _decide(
    claims: list[Claim], visit: Visit, gone: set[str]
) -> tuple[list[tuple[str, str, str]], list[Claim]]:
    """Parents of one model with relation and evidence, and the claims not followed."""
    claims = sorted(claims, key=lambda claim: SOURCES.index(claim.source))
    parents = {
        claim.parent: None
        for claim in claims
        if claim.source == claims[0].source
        or claim.source in FILES
        or (claim.source in DECLARED and claim.parent in gone)
    }
    found, followed = [], set()
    for parent in parents:
        own = [claim for claim in claims if claim.parent == parent]
        declared = any(claim.source in DECLARED for claim in own)
        stated = [visit.relation if declared else None, *(claim.relation for claim in own)]
        relation = next(filter(None, stated), visit.inferred[len(parents) > 1])
        evidence = ",".join(dict.fromkeys(claim.source for claim in own))
        found.append((parent, relation, evidence))
        followed.update(claim for claim in own if claim.relation in (None, relation))
    return found, [claim for claim in claims if claim not in followed]
