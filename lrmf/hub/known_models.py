"""The models of a snapshot: cards and family trees from the Hub beside its own responses."""

import os

import pandas as pd

from ..data.ids import normalised_id
from ..data.schema import some
from ..data.snapshot import load_snapshot
from .ancestry import Visit
from .errors import CrawlError

_TYPES = {"params_b": "Float64", "likes": "Int64", "merged": "boolean"}  # the others are texts


class KnownModels:
    """A snapshot; ``model_ids`` are its models and their relatives, where these are Hub ids."""

    def __init__(self, path: str | os.PathLike):
        self._known = load_snapshot(path)
        lineage, own = self._known.lineage, self._known.models["model_id"]
        names = sorted({*own, *lineage["parent"], *lineage["child"]})
        self.model_ids = [name for name in names if normalised_id(name) == name]
        if not self.model_ids:
            raise CrawlError(f"{path}: has no model with an id of the Hub, as {some(names)}")

    def tables(self, visits: dict[str, Visit], lineage: pd.DataFrame) -> dict:
        """The snapshot with the facts and edges of the Hub: arguments of the study's `_write`.

        Models keep their ids, rows and responses; ``hub_id`` is the id that the Hub uses now where
        that is another. What the snapshot knows of a model stays, and so do its edges.
        """
        known, models = self._known, self._known.models.copy()
        found = {name: visits[name] for name in models["model_id"] if name in visits}
        facts = {
            name: visit.facts | {"hub_id": visit.resolved if visit.resolved != name else None}
            for name, visit in found.items()
        }
        facts = pd.DataFrame([facts.get(name, {}) for name in models["model_id"]])
        for name in facts:
            column = facts[name].astype(_TYPES.get(name, "string"))
            if name not in models:
                models[name] = column
            elif (gaps := models[name].isna() & column.notna()).any():
                models[name] = models[name].astype(object).where(~gaps, column).convert_dtypes()
        # Ids that the Hub uses now, and of these back to the snapshot's own. Two rows may be one
        # model under its old and its new id: the new one has the relatives.
        current = {name: visit.resolved for name, visit in visits.items() if visit.resolved}
        own = {current[name]: name for name in found if name in current}
        own |= {name: name for name in models["model_id"]}
        before = known.lineage.reindex(columns=lineage.columns).astype("string")
        before["evidence"] = before["evidence"].fillna(known.source)
        edges = pd.concat([lineage, before], ignore_index=True)
        for end in ("parent", "child"):
            edges[end] = [
                own.get(name) or own.get(current.get(name)) or current.get(name, name)
                for name in edges[end]
            ]
        # Of an edge that both know the Hub's relation counts.
        edges = edges[edges["parent"] != edges["child"]]
        how = {"relation": "first", "evidence": lambda texts: ",".join(dict.fromkeys(texts))}
        edges = edges.groupby(["parent", "child"], as_index=False).agg(how).astype("string")
        tables = {"models": models, "items": known.items, "responses": known.responses}
        return {
            "tables": tables | {"lineage": edges},
            "about": known.note.rstrip(". ") or known.name,
            "source": known.source,
            "provenance": known.provenance,
        }
