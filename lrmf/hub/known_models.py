"""The models of a snapshot: cards and family trees from the Hub beside its own responses."""

import re

import pandas as pd

from ..data.ids import normalised_id
from ..data.schema import some
from ..data.snapshot import SnapshotError, load_snapshot
from .ancestry import Source, Work, visits_by_id
from .edges import add_known, current_names
from .errors import CrawlError

_TYPES = {"params_b": "Float64", "likes": "Int64", "merged": "boolean"}  # the others are texts


class KnownModels(Source):
    """A snapshot; ``model_ids`` are its models and their relatives, where these are Hub ids.

    A revision or a quantization of a model, ``org/name@step1000``, is asked for as the model.
    """

    def __init__(self, work: Work, options: dict):
        path = options["lineage_of"]
        try:
            self._known = load_snapshot(path)
        except SnapshotError as error:  # of this snapshot, not of the one that the crawl writes
            raise CrawlError(str(error)) from error
        lineage, own = self._known.lineage, self._known.models["model_id"]
        names = sorted({*own, *lineage["parent"], *lineage["child"]})
        others = [name for name in names if normalised_id(name) != _model_of(name)]
        self.model_ids = sorted(set(map(_model_of, names)) - set(map(_model_of, others)))
        if not self.model_ids:
            raise CrawlError(f"{path}: has no model with an id of the Hub, as {some(names)}")
        if others:
            n_others = f"{len(others)} of {len(names)} models and relatives"
            work.say(f"{n_others} have no id of the Hub and are not asked for: {some(others)}")

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """The snapshot with the facts and edges of the Hub.

        Models keep their ids, rows and responses; ``hub_id`` is the id that the Hub uses now where
        that is another. What the snapshot knows of a model stays, and so do its edges.
        """
        known, own_ids = self._known, self._known.models["model_id"]
        current, there = current_names(visits), visits_by_id(visits)

        def now(name: str) -> str:
            return current.get((model := _model_of(name)).casefold(), model)

        # Rows that are one model, by the id that the Hub uses now: all have the parents of the
        # model, and the one with that very id, or else the last, has the children. What the
        # snapshot calls a child of the model, such as a quantization, is not the model.
        pairs = zip(known.lineage["parent"], known.lineage["child"], strict=True)
        made = {child for parent, child in pairs if child != _model_of(child) == parent}
        same: dict[str, list[str]] = {}
        for name in own_ids[~own_ids.isin(list(made))]:
            same.setdefault(now(name), []).append(name)
        own = {model: names[-1] for model, names in same.items()}
        own |= {name: name for name in [*own_ids, *made]}
        lineage = lineage.assign(child=[same.get(name, [name]) for name in lineage["child"]])
        lineage = lineage.explode("child").astype("string")
        rows = []
        for name, model in zip(own_ids, map(now, own_ids), strict=True):
            facts = there[model].facts if model in there else {}
            rows.append({**facts, "hub_id": model if model in there and model != name else None})

        def spelling(name: str) -> str:
            return own.get(name) or own.get(now(name), now(name))

        return {
            "tables": {
                "models": _filled(known.models, pd.DataFrame(rows)),
                "items": known.items,
                "lineage": add_known(lineage, known.lineage, known.source, spelling),
                "responses": known.responses,
            },
            "about": known.note.rstrip(". ") or known.name,
            "source": known.source,
            "provenance": known.provenance,
        }


def _model_of(name: str) -> str:
    """The id without the revision and settings that the importer of lm-eval writes behind it."""
    return re.sub(r"(@[\w.\-]+)+$", "", name)


def _filled(models: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """The models with facts where they have none."""
    models = models.copy()
    for name, column in facts.items():
        column = column.astype(_TYPES.get(name, "string"))
        if name not in models:
            models[name] = column
        elif (gaps := models[name].isna() & column.notna()).any():
            models[name] = models[name].astype(object).where(~gaps, column).convert_dtypes()
    return models
