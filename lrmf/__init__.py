"""Lineage-regularized matrix factorization: forecast language models from their family tree."""

from .factorization import LRMF
from .lineage import Lineage
from .snapshot import Snapshot, SnapshotError, load_snapshot, save_snapshot

__all__ = ["LRMF", "Lineage", "Snapshot", "SnapshotError", "load_snapshot", "save_snapshot"]
