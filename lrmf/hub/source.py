"""What a crawl starts from: models, and what is known of them before the Hub is asked."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pandas as pd

from .client import Client
from .edges import Claim
from .log import CrawlLog

STATUSES = ("ok", "renamed", "gated", "missing", "disabled", "error")


class Work(NamedTuple):
    """What each step of a crawl works with.

    ``each(what, function, tasks)`` runs a function in the crawl's workers; ``say`` takes a message
    for the user.
    """

    client: Client
    log: CrawlLog
    each: Callable
    say: Callable[[str], None]


class Source:
    """Models to crawl; each kind of source has its own `tables`.

    Attributes
    ----------
    model_ids : list of str
    merged : set of str
        Models that the source calls merges.
    bases : dict
        The parent that the source names, by model.
    counts : dict
        What the provenance of the snapshot is to say.
    repositories : dict
        Those that were asked for beside the models, by name; each has a status.
    """

    def __init__(self):
        self.model_ids: list[str] = []
        self.merged: set[str] = set()
        self.bases: dict[str, Claim] = {}
        self.counts: dict[str, object] = {}
        self.repositories: dict = {}

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """The snapshot, from what the source has and the Hub says of the models.

        Returns
        -------
        dict
            ``tables`` (arguments of `save_snapshot`) and ``about`` (a note); where a source has
            them, ``source``, ``provenance``, and ``more`` (further tables by file name).
        """
        raise NotImplementedError


def count_statuses(found: Iterable) -> dict[str, int]:
    """How many of the visits or repositories have each status."""
    statuses = [one.status for one in found]
    return {name: statuses.count(name) for name in STATUSES}
