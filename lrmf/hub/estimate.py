"""What a crawl will cost, from the leaderboard's table and the details of a few models."""

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ..data.benchmarks import TASKS
from .ancestry import Work
from .client import Client, each
from .details import LARGE, megabytes, repository_of
from .leaderboard import Leaderboard, model_ids
from .limiter import SHARE
from .log import CrawlLog

# Per 5 minutes: requests to the API, downloads.
QUOTAS = {"anonymous": (500, 3000), "with a free account's token": (1000, 5000)}
_N_SAMPLED = 4
_SMALL = 4000  # bytes of an answer about a model, or of a file that names parents
# Ids beside the models: ancestors, and old names of either. Measured on the leaderboard of 2024:
# 346 ancestors of 2,198 models; rounded up.
_FURTHER_IDS = 0.25


@dataclass
class Cost:
    """Models, requests and bytes of a crawl, and a remark for the user."""

    n_models: int
    n_api: int
    n_files: int
    n_bytes: float
    remark: str = ""

    def __str__(self) -> str:
        lines = [
            f"models     {self.n_models:,}",
            f"requests   about {self.n_api:,} to the API and {self.n_files:,} downloads",
            f"bytes      about {megabytes(self.n_bytes)}",
        ]
        for name, (n_api, n_files) in QUOTAS.items():
            minutes = 5 * max(self.n_api / n_api, self.n_files / n_files) / SHARE
            text = "less than a minute" if minutes < 1 else f"about {minutes:,.0f} min"
            lines.append(f"time       {text} {name} (80% of the quota; downloads come on top)")
        return "\n".join([*lines, self.remark]).rstrip()


def estimate(
    *,
    benchmarks: Iterable[str] | None = None,
    instances: bool = False,
    models: Iterable[str] | None = None,
    max_models: int | None = None,
    client: Client | None = None,
) -> Cost:
    """Requests, bytes and time of a crawl with these options; nothing is kept.

    Fetches the leaderboard's table and lists details of a few of its models, from which the rest is
    extrapolated. Takes the options of `crawl` and raises the same errors.
    """
    client = client or Client()
    models = models if models is None else model_ids(models)
    options = {"benchmarks": benchmarks, "instances": instances}
    options |= {"models": models, "max_models": max_models}
    with (
        TemporaryDirectory() as folder,
        closing(CrawlLog(Path(folder), redact=client.redact)) as log,
    ):
        source = Leaderboard(Work(client, log, partial(each, n_workers=1), str), options)
        n_models = len(source.model_ids)
        n_merged = len(source.merged.intersection(source.model_ids))
        n_api, n_files = 1 + n_models + round(_FURTHER_IDS * n_models), 1 + n_merged
        n_bytes = client.n_bytes + _SMALL * (n_api + n_merged)
        cost = Cost(n_models, n_api, n_files, n_bytes)
        if instances:
            _add_details(cost, source)
    return cost


def _add_details(cost: Cost, source: Leaderboard) -> None:
    """Add files and bytes of all details, from those of a few models."""
    step = max(1, len(source.model_ids) // _N_SAMPLED)
    sample = source.model_ids[::step][:_N_SAMPLED]
    sizes = source.details.find([repository_of(model_id) for model_id in sample])
    found = list(source.details.repositories.values())
    if all(repository.reason for repository in found):
        reason = found[0].reason if found else "no models"
        cost.remark = f"details    cannot be listed: {reason}"
        return
    factor, names = len(source.model_ids) / len(found), source.benchmarks
    n_runs = Counter(TASKS[task][0] for repository in found for task in repository.runs)
    cost.n_api += 2 * len(source.model_ids)
    cost.n_files += round(factor * sum(n_runs[name] for name in names))
    cost.n_bytes += factor * sum(sizes[name] for name in names)
    by_size = ", ".join(f"{name} {megabytes(factor * size)}" for name, size in sizes.items())
    cost.remark = f"details    about {by_size}"
    if LARGE not in names:
        cost.remark += f"; {LARGE} is left out, --benchmarks ... {LARGE} takes it in"
