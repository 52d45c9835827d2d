"""What importers have in common: finding files, gathering runs, and making tables of them."""

import json
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np
import pandas as pd

from ..data.benchmarks import metric_rank
from ..data.ids import normalised_id
from ..data.metadata import mapping
from ..data.responses import MISSING
from ..data.schema import UNKNOWN_TRIALS, is_id, quote

__all__ = ["Results", "Unreadable", "files_in", "known_id", "load_json", "mapping", "number"]

ARCHIVES = (".zip", ".whl")
_FACTS = "revision params_b precision license created_at evaluated_at".split()


class Unreadable(ValueError):
    """Why a file, or part of one, cannot be used."""


class Run(NamedTuple):
    """One evaluation of a model on a task: codes of the items, their values, and its merits."""

    model_id: str
    task: tuple[str, str]
    place: str
    codes: np.ndarray
    values: np.ndarray
    n_trials: int
    variant: str
    rank: int
    order: tuple

    @property
    def merit(self) -> tuple:
        """Of several runs the greatest counts: most complete, then the importer's order."""
        return self.codes.size, self.n_trials, self.order, self.values.tobytes(), self.place


def files_in(paths: Iterable[str | os.PathLike], results: "Results") -> list:
    """All files in files, folders and archives, sorted, without hidden ones; each once."""
    found, pending = {}, [Path(path) for path in paths]
    while pending:
        path = pending.pop()
        with results.reading(path):
            if path.is_dir():
                pending += [entry for entry in path.iterdir() if not entry.name.startswith(".")]
            elif not path.exists():
                raise Unreadable("does not exist")
            elif isinstance(path, Path) and path.suffix in ARCHIVES:
                pending += zipfile.Path(path).iterdir()
            else:
                found[os.path.realpath(str(path))] = path
    return [found[key] for key in sorted(found)]


def load_json(file) -> dict:
    """The JSON object in a file; raises Unreadable."""
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise Unreadable(f"expected a JSON object, got {type(content).__name__}")
    return content


def number(value: object) -> float | None:
    """A finite number that is no bool, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else None


def known_id(text: object) -> str:
    """The id of a model as a snapshot may have it; raises Unreadable."""
    name = normalised_id(text) or (text.strip() if isinstance(text, str) else text)
    if not is_id(name):
        raise Unreadable(f"{quote(text)} is not the id of a model")
    return name


class Results:
    """Runs, models and edges as importers find them; `tables` makes a snapshot of them.

    Attributes
    ----------
    left_out : list of (place, reason)
        What could not be used, in the order in which it was met.
    versions : set of str
        Versions of the programs or schemas that the files name.
    n_repeated : int
        Runs that a more complete or later run of the same model and task replaces.
    """

    def __init__(self):
        self.left_out: list[tuple[str, str]] = []
        self.versions: set[str] = set()
        self.n_repeated = 0
        self._items: dict[tuple[str, str, str], int] = {}
        self._runs: dict[bool, list[Run]] = {True: [], False: []}
        self._facts: list[tuple] = []
        self._edges: set[tuple[str, str, str, str]] = set()

    @contextmanager
    def reading(self, file) -> Iterator[None]:
        """Leave a file out, with the reason, if reading it fails."""
        try:
            yield
        except Unreadable as error:
            self.leave_out(file, str(error))
        except Exception as error:  # whatever a foreign file makes a parser do
            self.leave_out(file, f"is not as expected ({type(error).__name__}: {error})")

    def leave_out(self, file, reason: str) -> None:
        """Note that a file, or part of it, was not used."""
        self.left_out.append((str(file), " ".join(reason.split())[:300]))

    def add_model(self, model_id: str, *, order: tuple = (), **facts) -> None:
        """Note what is known of a model; where files disagree, the last in ``order`` counts."""
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
        variant: str = "",
        order: tuple = (),
    ) -> None:
        """Add a run: a proportion of ``n_trials`` questions, or answers by question.

        ``task`` is benchmark and subtask. The item of an answer is ``benchmark/question``, that of
        a score ``benchmark/subtask``. ``variant`` names the metric (and after a colon the filter);
        ``order`` tells earlier runs from later ones.

        Raises
        ------
        Unreadable
            If a proportion is not within [0, 1], or a name cannot be that of an item.
        """
        is_answers, (benchmark, subtask) = isinstance(values, Mapping), task
        if not is_answers:
            if number(values) is None or not 0 <= values <= 1:
                raise Unreadable(f"{quote(values)} is not within 0 and 1")
            values = {"" if subtask == benchmark else subtask: values}
        for name in values:
            if (*task, name) not in self._items:
                if not all(map(is_id, (*task, f"{benchmark}/{name}".rstrip("/")))):
                    raise Unreadable(f"{quote(f'{benchmark}/{name}')} cannot be an item")
                self._items[(*task, name)] = len(self._items)
        codes = np.array([self._items[*task, name] for name in values], np.int32)
        cells = np.array(list(values.values()), np.uint8 if is_answers else np.float32)
        trials = n_trials if isinstance(n_trials, int) and n_trials > 0 else 0
        rank = metric_rank(variant.partition(":")[0], benchmark)
        run = Run(model_id, task, str(file), codes, cells, trials, variant, rank, order)
        self._runs[is_answers].append(run)

    def tables(self, *, proportions: bool = False) -> dict:
        """Models, items, lineage and responses: arguments of `save_snapshot`.

        Answers if there are any and ``proportions`` are not wanted instead, else proportions. Rows
        and columns are sorted by id. Raises ValueError without any.
        """
        answers = bool(self._runs[True]) and not (proportions and self._runs[False])
        if not (runs := self._runs[answers]):
            place, reason = ([*self.left_out, ("no file", "holds results")])[0]
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            raise ValueError(
                f"nothing can be imported: {place}: {reason}{more}; check the source and the files"
            )
        covered = {(run.model_id, run.task) for run in runs}
        for run in self._runs[not answers]:
            if (run.model_id, run.task) not in covered:
                what = "a score without single answers (--proportions takes it)"
                what = what if answers else "single answers without a score"
                self.leave_out(run.place, f"{run.task[1]}: {what}")
        # Ids that differ in case only are one model, under the most common spelling.
        counts = Counter(run.model_id for run in runs)
        spelling = {n.casefold(): n for n in sorted(counts, key=lambda n: (counts[n], n))}
        chosen = self._chosen(runs, spelling)
        names, ids = list(self._items), sorted({model_id for model_id, _ in chosen})
        used = np.unique(np.concatenate([run.codes for run in chosen.values()])).tolist()
        used.sort(key=lambda code: ([_natural(part) for part in names[code]], names[code]))
        columns = np.full(len(names), -1)
        columns[used] = np.arange(len(used))
        fill = np.uint8(MISSING) if answers else np.float32(np.nan)
        responses, rows = np.full((len(ids), len(used)), fill), {n: i for i, n in enumerate(ids)}
        for (model_id, _), run in chosen.items():
            responses[rows[model_id], columns[run.codes]] = run.values
        return {
            "models": self._models(ids, spelling),
            "items": _item_table([names[code] for code in used], chosen, answers),
            "lineage": self._lineage(ids, spelling),
            "responses": responses,
        }

    def _chosen(self, runs: list[Run], spelling: dict) -> dict[tuple, Run]:
        """By model and task the run that counts, all by the metric that most models have."""
        runs = [run._replace(model_id=spelling[run.model_id.casefold()]) for run in runs]
        models: dict[tuple, set] = defaultdict(set)
        for run in runs:
            models[run.task, run.rank, run.variant].add(run.model_id)
        order = sorted(models, key=lambda key: (-len(models[key]), *key[1:]))
        usual = {task: variant for task, _, variant in reversed(order)}
        chosen: dict[tuple, Run] = {}
        for run in sorted(runs, key=lambda run: (*run.task, run.merit)):
            if run.variant == usual[run.task]:
                self.n_repeated += (run.model_id, run.task) in chosen
                chosen[run.model_id, run.task] = run
        for run in runs:
            if (run.model_id, run.task) not in chosen:
                reason = f"measured by {run.variant}, others by {usual[run.task]}"
                self.leave_out(run.place, f"{run.task[1]}: {reason}")
        return chosen

    def _models(self, ids: list[str], spelling: dict) -> pd.DataFrame:
        facts: dict[str, dict] = defaultdict(dict)
        for *_, model_id, known in sorted(self._facts, key=lambda fact: fact[:3]):
            facts[spelling.get(model_id.casefold())].update(known)
        frame = pd.DataFrame([{"model_id": name} | facts[name] for name in ids])
        return frame.reindex(columns=sorted(frame, key=_column_order)).convert_dtypes()

    def _lineage(self, ids: list[str], spelling: dict) -> pd.DataFrame:
        """Edges of the models and of their ancestors."""
        edges = {
            (*(spelling.get(name.casefold(), name) for name in edge[:2]), *edge[2:])
            for edge in self._edges
        }
        graph = nx.DiGraph(edge[:2] for edge in edges)
        wanted = set(ids).union(*(nx.ancestors(graph, name) for name in ids if name in graph))
        kept = sorted(edge for edge in edges if edge[1] in wanted)
        frame = pd.DataFrame(kept, columns=["parent", "child", "relation", "evidence"])
        return frame.drop_duplicates(["parent", "child"], ignore_index=True).astype("string")


def _item_table(names: list[tuple], chosen: dict, answers: bool) -> pd.DataFrame:
    """One row an item; the number of questions behind a score is what most runs state."""
    trials, metrics = defaultdict(Counter), {}
    for (_, task), run in chosen.items():
        trials[task][run.n_trials] += 1
        metrics[task] = run.variant or None
    frame = pd.DataFrame(names, columns=["benchmark", "subtask", "item_id"], dtype="string")
    frame["item_id"] = (frame["benchmark"] + "/" + frame["item_id"]).str.rstrip("/")
    tasks = [tuple(name[:2]) for name in names]
    # The most common count that somebody states, the larger of two.
    usual = {t: max(c, key=lambda n: (n > 0, c[n], n)) or UNKNOWN_TRIALS for t, c in trials.items()}
    frame["n_trials"] = 1 if answers else [usual[task] for task in tasks]
    frame["metric"] = pd.array([metrics[task] for task in tasks], dtype="string")
    return frame[["item_id", "benchmark", "subtask", "n_trials", "metric"]]


def _column_order(name: str) -> tuple:
    known = ["model_id", *_FACTS]
    return (known.index(name) if name in known else len(known), name)


def _natural(text: str) -> list:
    """Sorts texts with numbers in them as people do."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
