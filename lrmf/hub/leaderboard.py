"""The Open LLM Leaderboard v2: its results table as models and responses."""

import html
import re
from collections.abc import Callable, Iterable

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import files
from ..data.benchmarks import BENCHMARKS
from ..data.ids import normalised_id
from ..data.metadata import commit, day, number
from ..data.schema import is_text, quote
from .ancestry import Source, Work, visits_by_id
from .client import Client
from .details import LARGE, Details, repository_of
from .edges import claimed_bases, current_names
from .errors import CrawlError, Refusal

TABLE_REPO = "open-llm-leaderboard/contents"
MAX_TABLE_BYTES = 200 * 2**20
_LARGEST = 1e5  # billions of parameters
# Of several evaluations of one model the one closest to the released weights is kept.
PRECISIONS = ("bfloat16", "float16", "float32", "8bit", "4bit", "GPTQ")

_UNKNOWN = {"", "?", "unknown", "none", "nan", "null"}
# As `datasets` names files, now and formerly, and as the Hub converts them.
_SHARD = re.compile(r"(?:.*/)?(?:train-)?(\d{4,5})(?:-of-(\d{5}))?(?:-[0-9a-f]+)?\.parquet")
_LINK = re.compile(r"href=[\"']?https?://[^/\"']+/([^\"'>\s?#]+)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")


def _text(value: object) -> str | None:
    """A text without the emoji in front and surrounding spaces; null if it says nothing."""
    if not isinstance(value, str):
        return None
    text = re.sub(r"^[^\w(\[<]+", "", value.strip()).strip()
    return None if text.lower() in _UNKNOWN else text


def _flag(value: object) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool) else None


# Columns of a snapshot's models: the table's own names, how they are read, and their types.
_FEATURES = {
    "revision": ("Model sha", _text, "string"),
    "params_b": ("#Params (B)", number, "Float64"),
    "architecture": ("Architecture", _text, "string"),
    "precision": ("Precision", _text, "string"),
    "type": ("Type", _text, "string"),
    "merged": ("Merged", _flag, "boolean"),
    "moe": ("MoE", _flag, "boolean"),
    "chat_template": ("Chat Template", _flag, "boolean"),
    "license": ("Hub License", _text, "string"),
    "likes": ("Hub ❤️", number, "Float64"),
    "created_at": ("Upload To Hub Date", day, "string"),
    "evaluated_at": ("Submission Date", day, "string"),
    "flagged": ("Flagged", _flag, "boolean"),
}
_FURTHER = {
    "weight_type": ("Weight type", _text, "string"),
    "base_model": ("Base Model", _text, "string"),
    "evaluation": ("eval_name", _text, "string"),
}


class Leaderboard(Source):
    """The leaderboard's models, or those of a list with their evaluated ancestors.

    ``options`` are those of `crawl`.
    """

    def __init__(self, work: Work, options: dict):
        self.benchmarks = chosen_benchmarks(options["benchmarks"], instances=options["instances"])
        self.details = Details(work, self.benchmarks) if options["instances"] else None
        try:  # without the table there is no crawl
            self._evaluations, skipped = self._table(work)
        except Refusal as refusal:
            hint = {"error": "try again later", "missing": "check HF_ENDPOINT"}
            hint = hint.get(refusal.status, "accept its terms, or ask its owners")
            raise CrawlError(f"{TABLE_REPO}: {refusal.reason}; {hint}") from refusal
        if skipped:
            work.say(f"{len(skipped)} evaluations name no model and are left out: {skipped[0]}")
        self._n_skipped = len(skipped)
        names = self._evaluations["model_id"]
        chosen, self._others = select_models(names, options["models"], options["max_models"])
        self.model_ids = [*chosen, *self._others]
        self.merged = set(names[self._evaluations["merged"].fillna(False)])
        self.bases = claimed_bases(self._evaluations)

    def _table(self, work: Work) -> tuple[pd.DataFrame, list[str]]:
        """The leaderboard's table, which is kept beside the log; raises Refusal."""
        client, log, *_ = work
        known = log.find("table", TABLE_REPO)
        known = known or log.append("table", TABLE_REPO, sha=table_commit(client))
        self._revision = known["sha"]
        path = log.folder / f"table-{self._revision}.parquet"
        if path.is_file():
            return read_table(path.read_bytes(), self.benchmarks)
        content = fetch_table(client, self._revision)
        found = read_table(content, self.benchmarks)  # refuse to keep what is damaged
        for former in log.folder.glob("table-*.parquet"):
            former.unlink(missing_ok=True)
        files.write_bytes(path, content)
        return found

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """Models under their current ids, sorted, with scores or answers."""
        models = self._models(visits, lineage)
        if self.details:
            evaluated = models.dropna(subset=["leaderboard_id"])
            repos = map(repository_of, evaluated["leaderboard_id"])
            repos = dict(zip(repos, evaluated["model_id"], strict=True))
            items, responses, counts = self.details.collect(repos, list(models["model_id"]))
        else:
            items, responses, counts = *self._scores(models, visits), {}
        counts["n_unidentified_evaluations"] = self._n_skipped
        tables = {"models": models.drop(columns=self.benchmarks), "items": items}
        return {
            "tables": tables | {"lineage": lineage, "responses": responses},
            "about": f"Open LLM Leaderboard v2 at commit {self._revision}",
            "provenance": {"revisions": {TABLE_REPO: self._revision}, **counts},
            "repositories": self.details.repositories if self.details else {},
        }

    def _scores(self, models: pd.DataFrame, visits: dict) -> tuple[pd.DataFrame, np.ndarray]:
        """Items and responses at the level of benchmarks."""
        if models.empty and self._others:
            first = visits[self._others[0]]
            raise CrawlError(
                f"{self._others[0]}: {first.status} ({first.reason}); check the id, and the token "
                "if it is private"
            )
        names = pd.array(self.benchmarks, dtype="string")
        items = pd.DataFrame({"item_id": names, "benchmark": names, "subtask": names})
        items["n_trials"] = [BENCHMARKS[name].n_trials for name in self.benchmarks]
        responses = models[self.benchmarks].to_numpy(dtype=np.float32)
        if np.isnan(responses).all():
            raise CrawlError(
                "none of the models has a score on the leaderboard, nor has an ancestor of theirs; "
                "add an evaluated model, such as a relative of theirs"
            )
        return items, responses

    def _models(self, visits: dict, lineage: pd.DataFrame) -> pd.DataFrame:
        """One row a model, scores of the benchmarks included."""
        # Evaluations of the models chosen, and of what the others are or descend from.
        current = current_names(visits)
        graph = nx.from_pandas_edgelist(lineage, "parent", "child", create_using=nx.DiGraph)
        wanted = {current[asked.casefold()] for asked in self.model_ids}
        others = {current[asked.casefold()] for asked in self._others}
        wanted = wanted.union(*(nx.ancestors(graph, name) for name in others if name in graph))
        frame = self._evaluations.rename(columns={"model_id": "leaderboard_id"})
        names = [current.get(name.casefold()) for name in frame["leaderboard_id"]]
        frame.insert(0, "model_id", pd.array(names, dtype="string"))
        frame["renamed"] = frame["model_id"] != frame["leaderboard_id"]
        frame = frame[frame["model_id"].isin(list(wanted))].reset_index(drop=True)
        columns = ["model_id", "leaderboard_id", *_FEATURES, "other_evaluations", *self.benchmarks]
        frame = one_evaluation_each(frame, self.benchmarks)[columns]
        # Others that were not evaluated have a row without scores, if the Hub has them.
        there = visits_by_id(visits)
        others = sorted(others.intersection(there).difference(frame["model_id"]))
        found = [(name, there[name]) for name in others]
        rows = [{"model_id": name, "revision": one.sha, **one.facts} for name, one in found]
        if rows:
            more = pd.DataFrame(rows).reindex(columns=columns).astype(frame.dtypes.to_dict())
            frame = pd.concat([frame, more])
        # A number that the Hub gives for an adapter or for packed weights is no size.
        false = frame["model_id"].map({name: visit.false_size for name, visit in there.items()})
        false = false.astype("Float64")
        is_false = ((frame["params_b"] - false).abs() < 0.05 * false + 0.01).fillna(False)
        frame["params_b"] = frame["params_b"].mask(is_false)
        return frame.sort_values("model_id", ignore_index=True)


def chosen_benchmarks(benchmarks: Iterable[str] | None, *, instances: bool) -> list[str]:
    """Names of the benchmarks to collect, in the leaderboard's order; raises CrawlError."""
    if benchmarks is None:
        return [name for name in BENCHMARKS if not (instances and name == LARGE)]
    benchmarks = list(benchmarks)
    if unknown := [name for name in benchmarks if name not in BENCHMARKS]:
        raise CrawlError(f"unknown benchmark {unknown[0]!r}; use {', '.join(BENCHMARKS)}")
    if not benchmarks:
        raise CrawlError("no benchmark is chosen; name at least one")
    return [name for name in BENCHMARKS if name in benchmarks]


def model_ids(texts: Iterable[str]) -> list[str]:
    """Ids as the Hub spells them, each once; raises CrawlError for what is none."""
    names = {}
    for text in texts:
        if not (name := normalised_id(text)):
            raise CrawlError(f"{quote(text)} is not the id of a model; use org/name")
        names.setdefault(name.casefold(), name)
    return list(names.values())


def select_models(
    listed: pd.Series, models: list[str] | None, max_models: int | None
) -> tuple[list[str], list[str]]:
    """Ids on the leaderboard to crawl, and others."""
    if models is None:
        return list(listed.drop_duplicates().iloc[:max_models]), []
    wanted = {name.casefold(): name for name in models[:max_models]}
    folded = listed.str.casefold()
    others = [wanted[name] for name in sorted(set(wanted) - set(folded))]
    return list(listed[folded.isin(list(wanted))].drop_duplicates()), others


def table_commit(client: Client) -> str:
    """The commit of the leaderboard's table; raises Refusal."""
    if sha := commit(client.json(f"api/datasets/{TABLE_REPO}", expand=["sha"])):
        return sha
    raise Refusal("error", "the Hub names no commit")


def fetch_table(client: Client, sha: str) -> bytes:
    """The leaderboard's table at a commit, all its files as one; raises Refusal."""
    pages = client.pages(f"api/datasets/{TABLE_REPO}/tree/{sha}", recursive="true")
    paths = [row.get("path") for page in pages for row in page if isinstance(row, dict)]
    shards = {path: _SHARD.fullmatch(path) for path in sorted(filter(is_text, paths))}
    shards = {path: match for path, match in shards.items() if match}
    n_files = max((int(match[2] or 1) for match in shards.values()), default=1)
    if (n_found := len({match[1] for match in shards.values()})) < n_files:
        raise Refusal("error", f"has {n_found} of {n_files} files")
    base = f"datasets/{TABLE_REPO}/resolve/{sha}"
    parts = [client.content(f"{base}/{path}", max_bytes=MAX_TABLE_BYTES) for path in shards]
    sink = pa.BufferOutputStream()
    pq.write_table(_parquet(parts), sink)
    return sink.getvalue().to_pybytes()


def _parquet(parts: list[bytes]) -> pa.Table:
    try:
        tables = [pq.read_table(pa.BufferReader(part)) for part in parts]
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = f"holds no readable Parquet table ({type(error).__name__})"
        raise Refusal("error", reason) from error


def read_table(content: bytes, benchmarks: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read the leaderboard's Parquet file for the benchmarks.

    Returns
    -------
    evaluations : DataFrame
        One row an evaluation: ``model_id``, the columns of a snapshot's models that the table
        knows, ``weight_type, base_model, evaluation``, and the raw accuracies, one column a
        benchmark. Unknown is null; an accuracy outside [0, 1] is unknown.
    skipped : list of str
        Evaluations whose model cannot be identified.

    Raises
    ------
    Refusal, CrawlError
        If it is damaged, or of another format.
    """
    table = _parquet([content]).to_pandas(ignore_metadata=True)
    wanted = [BENCHMARKS[benchmark].column for benchmark in benchmarks]
    missing = [name for name in wanted if name not in table]
    if missing or not {"fullname", "Model"}.intersection(table):
        lacking = ", ".join(missing) or "fullname"
        raise CrawlError(
            f"{TABLE_REPO}: the table lacks {lacking}; its format has changed, this version of "
            "lrmf cannot read it"
        )

    def read(column: str, reader: Callable, dtype: str) -> pd.Series:
        values = table[column] if column in table else [None] * len(table)
        return pd.Series([reader(value) for value in values], dtype=dtype)

    # The id is `fullname`, or else in the link or the text of the HTML in `Model`.
    ids = read("fullname", normalised_id, "string")
    frame = pd.DataFrame({"model_id": ids.fillna(read("Model", _id_in_markup, "string"))})
    scores = {n: (c, number, "float64") for n, c in zip(benchmarks, wanted, strict=True)}
    for name, how in (_FEATURES | _FURTHER | scores).items():
        frame[name] = read(*how)
    frame["params_b"] = frame["params_b"].where(frame["params_b"].between(1e-9, _LARGEST))
    frame["likes"] = frame["likes"].where(frame["likes"] >= 0)
    scores = frame[benchmarks]
    frame[benchmarks] = scores.where((scores >= 0) & (scores <= 1))
    known = frame["model_id"].notna()
    skipped = [str(name) for name in frame["evaluation"][~known]]
    # Files of a table may repeat rows.
    return frame[known].drop_duplicates(ignore_index=True), skipped


def one_evaluation_each(evaluations: pd.DataFrame, benchmarks: list[str]) -> pd.DataFrame:
    """Keep one evaluation a model, and name the others in ``other_evaluations``.

    The rule: the most benchmarks scored, then precision in the order of `PRECISIONS`, then the
    latest submission, then the name of the evaluation. Models that a column ``renamed`` marks as
    evaluated under an old name come last. Rows are sorted by ``model_id``, which is unique.
    """
    rank = {precision: position for position, precision in enumerate(PRECISIONS)}
    order = evaluations[["model_id"]].assign(
        renamed=evaluations.get("renamed", False),
        n_unscored=evaluations[benchmarks].isna().sum(axis=1),
        precision=evaluations["precision"].map(rank).fillna(len(rank)).astype(float),
        age=-pd.to_numeric(evaluations["evaluated_at"].str.replace("-", "")).fillna(0),
        evaluation=evaluations["evaluation"].fillna(""),
    )
    ranked = evaluations.loc[order.sort_values(list(order), kind="stable").index]
    first = ~ranked["model_id"].duplicated()
    kept = ranked[first].reset_index(drop=True)
    others = ranked[~first].fillna({"evaluation": "?"}).groupby("model_id")["evaluation"]
    kept["other_evaluations"] = kept["model_id"].map(others.agg("; ".join)).astype("string")
    return kept


def _id_in_markup(markup: object) -> str | None:
    if not isinstance(markup, str):
        return None
    if (link := _LINK.search(markup)) and (name := normalised_id(html.unescape(link[1]))):
        return name
    return normalised_id(html.unescape(_TAG.sub("", markup)))
