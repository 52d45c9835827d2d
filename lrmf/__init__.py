"""Lineage-regularized matrix factorization: forecast language models from their family tree."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .factorization import LRMF
    from .forecaster import Forecaster
    from .lineage import Lineage
    from .snapshot import Snapshot, SnapshotError, load_snapshot, save_snapshot

__all__ = ["LRMF", "Forecaster", "Lineage", "Snapshot", "SnapshotError"]
__all__ += ["load_snapshot", "save_snapshot"]

_MODULES = {"LRMF": "factorization", "Forecaster": "forecaster", "Lineage": "lineage"}


def __getattr__(name: str):
    # Importing the solver takes a second, which `lrmf --help` should not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'snapshot')}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
