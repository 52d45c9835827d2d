"""What importers have in common: finding files, gathering what they say, making tables."""

import json
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from ..data.ids import normalised_id
from ..data.metadata import MOST_PARAMETERS, count, number
from ..data.runs import Runs
from ..data.schema import MOST_TRIALS, is_id, quote

ARCHIVES = (".zip", ".whl")
_FEWEST_PARAMETERS = 1000  # smaller numbers are billions, or a mistake
_FACTS = "model_id revision params_b precision license created_at evaluated_at".split()


class Unreadable(ValueError):
    """Why a file, or part of one, cannot be used."""


def files_in(paths: Iterable[str | os.PathLike], results: "Results") -> list:
    """All files in files, folders and archives, sorted, without hidden ones; each once.

    Links come after what is beside them, so that a file or folder keeps its own name.
    """
    found, visited, pending = {}, set(), sorted(map(Path, paths), key=_links_last, reverse=True)
    while pending:
        path = pending.pop()
        if (key := os.path.realpath(str(path))) in visited:
            continue
        visited.add(key)
        with results.reading(path):
            if path.is_dir():
                entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
                pending += sorted(entries, key=_links_last, reverse=True)
            elif not path.exists():
                raise Unreadable("does not exist")
            elif not path.is_file():
                raise Unreadable("is neither a file nor a folder")
            elif isinstance(path, Path) and path.suffix in ARCHIVES:
                pending += zipfile.Path(path).iterdir()
            else:
                found[key] = path
    return [found[key] for key in sorted(found)]


def _links_last(path) -> tuple[bool, str]:
    return os.path.islink(str(path)), str(path)


def load_json(file) -> dict:
    """The JSON object in a file; raises Unreadable."""
    try:
        content = json.loads(file.read_bytes())  # in any encoding of JSON
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise Unreadable(f"expected a JSON object, got {type(content).__name__}")
    return content


def known_id(text: object) -> str:
    """The id of a model as a snapshot may have it; raises Unreadable."""
    name = normalised_id(text) or (text.strip() if isinstance(text, str) else text)
    if not is_id(name):
        raise Unreadable(f"{quote(text)} is not the id of a model")
    return name


class Results(Runs):
    """Runs, models and edges as importers find them; `snapshot_tables` makes a snapshot of them.

    ``versions`` are those of the programs or schemas that the files name.
    """

    def __init__(self):
        super().__init__()
        self.versions: set[str] = set()
        self._facts: list[tuple] = []
        self._edges: set[tuple[str, str, str, str]] = set()

    @contextmanager
    def reading(self, file) -> Iterator[None]:
        """Leave a file out, with the reason, if reading it fails."""
        try:
            yield
        except Unreadable as error:
            self.leave_out(file, str(error))
        except MemoryError:
            raise
        except Exception as error:  # whatever a foreign file makes a parser do
            self.leave_out(file, f"is not as expected ({type(error).__name__}: {error})")

    def add_model(
        self, model_id: str, *, order: tuple = (), n_parameters: object = None, **facts
    ) -> None:
        """Note what is known of a model; where files disagree, the last in ``order`` counts."""
        size = number(n_parameters) or 0
        facts["params_b"] = size / 1e9 if _FEWEST_PARAMETERS <= size <= MOST_PARAMETERS else None
        known = {name: value for name, value in facts.items() if value is not None}
        self._facts.append((order, repr(known), model_id, known))

    def add_edge(self, parent: object, child: str, relation: str, evidence: str) -> None:
        """Note a parent, if it is the id of a model on the Hub."""
        if (parent := normalised_id(parent)) and parent.casefold() != child.casefold():
            self._edges.add((parent, child, relation, evidence))

    def add(
        self,
        file,
        model_id: str,
        task: tuple[str, str],
        values: float | Mapping[str, int],
        *,
        n_trials: object = None,
        **merits,
    ) -> None:
        """Add a run: a proportion of ``n_trials`` questions, or answers by question.

        The item of a proportion is ``benchmark/subtask``. ``merits`` are those of `Runs.add_run`.

        Raises
        ------
        Unreadable
            If a proportion is not within [0, 1], there cannot be so many questions, or a name
            cannot be that of an item or of a metric.
        """
        dtype, (benchmark, subtask) = np.uint8, task
        if not isinstance(values, Mapping):
            if number(values) is None or not 0 <= values <= 1:
                raise Unreadable(f"{quote(values)} is not within 0 and 1")
            values, dtype = {"" if subtask == benchmark else subtask: values}, np.float32
        names = [f"{benchmark}/{name}".rstrip("/") for name in values]
        for name in (*task, *names, merits.get("variant") or benchmark):
            if not is_id(name):
                raise Unreadable(f"{quote(name)} cannot be the name of an item or of a metric")
        items, cells = self.places(task, values), np.array(list(values.values()), dtype)
        if isinstance(n_trials, int) and n_trials > MOST_TRIALS:
            raise Unreadable("states more questions than there can be")
        n_trials = count(n_trials) or 0
        self.add_run(model_id, task, items, cells, place=str(file), n_trials=n_trials, **merits)

    def snapshot_tables(self, *, proportions: bool = False) -> dict:
        """Arguments of `save_snapshot`, rows and columns sorted; raises ValueError without any."""
        try:
            ids, items, responses, spelling = self.tables(proportions=proportions)
        except ValueError as error:
            place, reason = ([*self.left_out, ("no file", "holds results")])[0]
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            raise ValueError(
                f"nothing can be imported: {place}: {reason}{more}; check the source and the files"
            ) from error
        names = items[["benchmark", "subtask", "item_id"]].itertuples(index=False, name=None)
        keys = [([*map(_natural, name)], name) for name in names]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        facts: dict[str, dict] = defaultdict(dict)
        for *_, model_id, known in sorted(self._facts, key=lambda fact: fact[:3]):
            facts[spelling.get(model_id.casefold())].update(known)
        models = pd.DataFrame([{"model_id": name} | facts[name] for name in ids])
        first = [name for name in _FACTS if name in models]
        return {
            "models": models[[*first, *sorted(models.columns.difference(first))]].convert_dtypes(),
            "items": items.iloc[order].reset_index(drop=True),
            "lineage": self._lineage(ids, spelling),
            "responses": np.ascontiguousarray(responses[:, order]),
        }

    def _lineage(self, ids: list[str], spelling: dict) -> pd.DataFrame:
        """Edges of the models and of their ancestors."""
        for name in sorted(edge[0] for edge in self._edges):
            spelling.setdefault(name.casefold(), name)
        edges = {
            (*(spelling.get(name.casefold(), name) for name in edge[:2]), *edge[2:])
            for edge in self._edges
        }
        graph = nx.DiGraph(edge[:2] for edge in edges)
        wanted = set(ids).union(*(nx.ancestors(graph, name) for name in ids if name in graph))
        kept = sorted(edge for edge in edges if edge[1] in wanted)
        frame = pd.DataFrame(kept, columns=["parent", "child", "relation", "evidence"])
        return frame.drop_duplicates(["parent", "child"], ignore_index=True).astype("string")


def _natural(text: str) -> list:
    """Sorts texts with numbers in them as people do."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
