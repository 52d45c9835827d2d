"""What a crawl will cost, from the leaderboard's table and a small sample of the models."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..data.benchmarks import TASKS
from .ancestry import ask_model
from .client import Client
from .details import LARGE, ask_repository, megabytes, read_repository, repository_of
from .leaderboard import (
    chosen_benchmarks,
    fetch_table,
    model_ids,
    read_table,
    select_models,
    table_commit,
)
from .limiter import SHARE

# Per 5 minutes: requests to the API, downloads.
QUOTAS = {"anonymous": (500, 3000), "with a free account's token": (1000, 5000)}
_WINDOW = 300
_N_SAMPLED, _N_SAMPLED_DETAILS = 10, 4
# Ids beside the models: ancestors, and old names of either. Measured on the leaderboard of 2024:
# 346 ancestors of 2,198 models; rounded up.
_FURTHER_IDS = 0.25


@dataclass(frozen=True)
class Cost:
    """Requests and bytes of a crawl, the quotas the server reported, and remarks for the user."""

    n_models: int
    n_api: int
    n_files: int
    n_bytes: float
    quotas: dict[str, tuple[int, float]]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"models     {self.n_models:,}",
            f"requests   about {self.n_api:,} to the API and {self.n_files:,} downloads",
            f"bytes      about {megabytes(self.n_bytes)}",
        ]
        quotas = {name: (*quota, _WINDOW) for name, quota in QUOTAS.items()}
        if "api" in self.quotas:
            n_api, window = self.quotas["api"]
            n_files = self.quotas.get("files", (n_api, window))[0]
            quotas["at the quota reported now"] = (n_api, n_files, window)
        for name, (n_api, n_files, window) in quotas.items():
            n_windows = max(self.n_api / n_api, self.n_files / n_files) / SHARE
            minutes = n_windows * window / 60
            text = "less than a minute" if minutes < 1 else f"about {minutes:,.0f} min"
            lines.append(f"time       {text} {name} (80% of the quota; downloads come on top)")
        return "\n".join([*lines, *self.remarks])


def estimate(
    *,
    benchmarks: Iterable[str] | None = None,
    instances: bool = False,
    models: Iterable[str] | None = None,
    max_models: int | None = None,
    client: Client | None = None,
) -> Cost:
    """Requests, bytes and time of a crawl with these options; nothing is written.

    Fetches the leaderboard's table and asks for a few of its models, from which the rest is
    extrapolated. Takes the options of `crawl` and raises the same errors.
    """
    client = client or Client()
    names = chosen_benchmarks(benchmarks, instances=instances)
    models = models if models is None else model_ids(models)
    table = fetch_table(client, table_commit(client))
    evaluations, _ = read_table(table, names)
    listed, others = select_models(evaluations["model_id"], models, max_models)
    ids = [*listed, *others]
    merged = evaluations["model_id"][evaluations["merged"].fillna(False)]
    n_merged = merged[merged.isin(listed)].nunique()

    sample, before = _spread(ids, _N_SAMPLED), client.n_bytes
    for asked in sample:
        ask_model(client, asked)
    mean = (client.n_bytes - before) / max(1, len(sample))
    n_api = 1 + len(ids) + round(_FURTHER_IDS * len(ids))
    n_files, n_bytes = 1 + n_merged, len(table) + mean * n_api + 4000 * n_merged
    remarks: tuple[str, ...] = ()
    if instances:
        n_runs, size, remarks = _details_cost(client, listed, names)
        n_api, n_files, n_bytes = n_api + 2 * len(listed), n_files + n_runs, n_bytes + size
    return Cost(len(ids), n_api, n_files, n_bytes, client.limiter.quotas(), remarks)


def _details_cost(
    client: Client, ids: list[str], names: list[str]
) -> tuple[int, float, tuple[str, ...]]:
    """Files and bytes of all details, from those of a few models."""
    repos = [repository_of(model_id) for model_id in _spread(ids, _N_SAMPLED_DETAILS)]
    found = [read_repository(repo, ask_repository(client, repo)) for repo in repos]
    if all(repository.reason for repository in found):
        reason = found[0].reason if found else "no models"
        return 0, 0, (f"details    cannot be listed: {reason}",)
    factor = len(ids) / len(found)
    sizes = sum((repository.sizes() for repository in found), Counter())
    tasks = [task for repository in found for task in {run.task for run in repository.runs}]
    n_runs = sum(TASKS[task][0] in names for task in tasks)
    by_size = ", ".join(f"{name} {megabytes(factor * size)}" for name, size in sizes.items())
    remarks = [f"details    about {by_size}"]
    if LARGE not in names:
        remarks.append(f"           {LARGE} is left out; --benchmarks ... {LARGE} takes it in")
    chosen = factor * sum(sizes[name] for name in names)
    return round(factor * n_runs), chosen, tuple(remarks)


def _spread(ids: list[str], n: int) -> list[str]:
    """Up to ``n`` of the ids, evenly spread."""
    step = max(1, len(ids) // n)
    return ids[::step][:n]
