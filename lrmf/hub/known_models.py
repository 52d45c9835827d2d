"""The models of a snapshot: cards and family trees from the Hub beside its own responses."""

import os

import pandas as pd

from ..data.ids import normalised_id
from ..data.schema import some
from ..data.snapshot import SnapshotError, load_snapshot
from .ancestry import Source, visits_by_id
from .edges import add_known, current_names
from .errors import CrawlError

_TYPES = {"params_b": "Float64", "likes": "Int64", "merged": "boolean"}  # the others are texts


class KnownModels(Source):
    """A snapshot; ``model_ids`` are its models and their relatives, where these are Hub ids."""

    def __init__(self, path: str | os.PathLike):
        try:
            self._known = load_snapshot(path)
        except SnapshotError as error:  # of this snapshot, not of the one that the crawl writes
            raise CrawlError(str(error)) from error
        lineage, own = self._known.lineage, self._known.models["model_id"]
        names = sorted({*own, *lineage["parent"], *lineage["child"]})
        self.model_ids = [name for name in names if normalised_id(name) == name]
        if not self.model_ids:
            raise CrawlError(f"{path}: has no model with an id of the Hub, as {some(names)}")

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """The snapshot with the facts and edges of the Hub.

        Models keep their ids, rows and responses; ``hub_id`` is the id that the Hub uses now where
        that is another. What the snapshot knows of a model stays, and so do its edges.
        """
        known, models = self._known, self._known.models.copy()
        # Ids that the Hub uses now, and of these back to the snapshot's own. Two rows may be one
        # model under its old and its new id: the new one has the relatives.
        current, there = current_names(visits), visits_by_id(visits)
        own = {current.get(name.casefold(), name): name for name in models["model_id"]}
        own |= {name: name for name in models["model_id"]}
        rows = []
        for name in models["model_id"]:
            now = current.get(name.casefold())
            facts = there[now].facts if now in there else {}
            rows.append({**facts, "hub_id": now if now in there and now != name else None})
        for name, column in pd.DataFrame(rows).items():
            column = column.astype(_TYPES.get(name, "string"))
            if name not in models:
                models[name] = column
            elif (gaps := models[name].isna() & column.notna()).any():
                models[name] = models[name].astype(object).where(~gaps, column).convert_dtypes()

        def spelling(name: str) -> str:
            return own.get(name) or own.get(now := current.get(name.casefold(), name), now)

        return {
            "tables": {
                "models": models,
                "items": known.items,
                "lineage": add_known(lineage, known.lineage, known.source, spelling),
                "responses": known.responses,
            },
            "about": known.note.rstrip(". ") or known.name,
            "source": known.source,
            "provenance": known.provenance,
        }
