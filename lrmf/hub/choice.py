"""What is to be crawled: the benchmarks, the leaderboard's table, and the models."""

from collections.abc import Iterable

import pandas as pd

from ..data.schema import quote
from .cards import commit, normalised_id
from .client import Client
from .errors import CrawlError, Refusal
from .leaderboard import BENCHMARKS, MAX_TABLE_BYTES, TABLE_FILE, TABLE_REPO

LARGE = "mmlu_pro"  # nearly all of the bytes of the details


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


def fetch_table(client: Client, known: str | None = None) -> tuple[str, bytes | None]:
    """Commit of the leaderboard's table and its bytes; None if the commit is the known one."""
    try:
        sha = commit(client.json(f"api/datasets/{TABLE_REPO}", expand=["sha"]))
        if sha is None:
            raise CrawlError(f"{TABLE_REPO}: the Hub names no commit; try again later")
        if sha == known:
            return sha, None
        path = f"datasets/{TABLE_REPO}/resolve/{sha}/{TABLE_FILE}"
        return sha, client.content(path, max_bytes=MAX_TABLE_BYTES)
    except Refusal as refusal:
        raise CrawlError(f"{TABLE_REPO}: {refusal.reason}; try again later") from refusal


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
