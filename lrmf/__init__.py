"""Lineage-regularized matrix factorization: forecast language models from their family tree.

Examples
--------
A model that nobody has evaluated, forecast from its parent:

>>> from lrmf import LRMF, Lineage
>>> from lrmf.simulation.simulate import simulate
>>> hub = simulate(n_models=60, n_items=90, seed=0)
>>> lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
>>> model = LRMF(rank=2, seed=0).fit(hub.responses, lineage, items=hub.items)
>>> parent = hub.models["model_id"][0]
>>> forecast = model.fold_in(parents=[(parent, "finetune")]).scores()
>>> list(forecast.columns)
['benchmark', 'score', 'lower', 'upper', 'n_observed']
>>> bool((forecast["lower"] < forecast["score"]).all())
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data.lineage import Lineage
    from .data.snapshot import Snapshot, SnapshotError, load_snapshot, save_snapshot
    from .forecaster.forecaster import Forecaster
    from .solver.factorization import LRMF

__all__ = ["LRMF", "Forecaster", "Lineage", "Snapshot", "SnapshotError"]
__all__ += ["load_snapshot", "save_snapshot"]

_MODULES = {
    "LRMF": "solver.factorization",
    "Forecaster": "forecaster.forecaster",
    "Lineage": "data.lineage",
}  # the others are of data.snapshot


def __getattr__(name: str):
    # Importing the solver takes a second, which `lrmf --help` should not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'data.snapshot')}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
