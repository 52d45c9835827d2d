"""Runs of evaluations, gathered from files or from the Hub, as items and responses."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from .benchmarks import metric_rank
from .responses import MISSING
from .schema import UNKNOWN_TRIALS, one_line


class Run(NamedTuple):
    """One evaluation of a model on a task: items by their places, their values, and its merits."""

    model_id: str
    task: tuple[str, str]
    place: str
    items: np.ndarray
    values: np.ndarray
    n_trials: int
    variant: str
    rank: int
    order: tuple

    @property
    def merit(self) -> tuple:
        """Of several runs the greatest counts: most complete, then the order given."""
        return self.items.size, self.n_trials, self.order, self.values.tobytes(), self.place


class Runs:
    """Answers (by question) and proportions (by task), of which `tables` takes one kind.

    Attributes
    ----------
    left_out : list of (place, reason)
        What could not be used, in the order in which it was met.
    n_repeated : int
        Runs that a more complete or later run of the same model and task replaces.
    """

    def __init__(self):
        self.left_out: list[tuple[str, str]] = []
        self.n_repeated = 0
        self._items: dict[tuple[str, str, str], int] = {}
        self._runs: dict[bool, list[Run]] = {True: [], False: []}

    def leave_out(self, place, reason: str) -> None:
        """Note that a file, or part of it, was not used."""
        self.left_out.append((str(place), one_line(reason, 300)))

    def places(self, task: tuple[str, str], names: Iterable[str]) -> np.ndarray:
        """Places of a task's items, in the order in which they are first asked for.

        ``task`` is benchmark and subtask. The item of an answer is ``benchmark/name``; without a
        name it is the benchmark itself.
        """
        known = self._items
        return np.array([known.setdefault((*task, name), len(known)) for name in names], np.int32)

    def add_run(
        self,
        model_id: str,
        task: tuple[str, str],
        items: np.ndarray,
        values: np.ndarray,
        *,
        place: str = "",
        n_trials: int = 0,
        variant: str = "",
        order: tuple = (),
    ) -> None:
        """Add answers (uint8), or a proportion (float32) of ``n_trials`` questions.

        ``variant`` names the metric (and after colons filter and number of shots); ``order`` tells
        earlier runs from later ones.
        """
        rank = metric_rank(variant.partition(":")[0], task[0])
        run = Run(model_id, task, place, items, values, n_trials, variant, rank, order)
        self._runs[values.dtype == np.uint8].append(run)

    def tables(
        self, *, proportions: bool = False
    ) -> tuple[list[str], pd.DataFrame, np.ndarray, dict[str, str]]:
        """Sorted ids, items, responses (n_models, n_items), and spellings of ids by small letters.

        Answers if there are any and ``proportions`` are not wanted instead, else proportions. Ids
        that differ in case only are one model. Raises ValueError if there are no runs.
        """
        answers = bool(self._runs[True]) and not (proportions and self._runs[False])
        if not (runs := self._runs[answers]):
            raise ValueError("there are no runs")
        covered = {(run.model_id, run.task) for run in runs}
        for run in self._runs[not answers]:
            if (run.model_id, run.task) not in covered:
                what = "a score without single answers (--proportions takes it)"
                what = what if answers else "single answers without a score"
                self.leave_out(run.place, f"{run.task[1]}: {what}")
        # The most common spelling of an id counts.
        counts = Counter(run.model_id for run in runs)
        spelling = {n.casefold(): n for n in sorted(counts, key=lambda n: (counts[n], n))}
        chosen = self._chosen(runs, spelling)
        ids = sorted({model_id for model_id, _ in chosen})
        used = np.unique(np.concatenate([run.items for run in chosen.values()]))
        columns = np.full(len(self._items), -1)
        columns[used] = np.arange(len(used))
        fill = np.uint8(MISSING) if answers else np.float32(np.nan)
        responses, rows = np.full((len(ids), len(used)), fill), {n: i for i, n in enumerate(ids)}
        for (model_id, _), run in chosen.items():
            responses[rows[model_id], columns[run.items]] = run.values
        names = list(self._items)
        items = _item_table([names[item] for item in used], chosen, answers)
        return ids, items, responses, spelling

    def _chosen(self, runs: list[Run], spelling: dict) -> dict[tuple, Run]:
        """By model and task the run that counts, all by the variant that most models have."""
        runs = [run._replace(model_id=spelling[run.model_id.casefold()]) for run in runs]
        models: dict[tuple, set] = defaultdict(set)
        for run in runs:
            models[run.task, run.rank, run.variant].add(run.model_id)
        order = sorted(models, key=lambda key: (-len(models[key]), *key[1:]))
        usual = {task: variant for task, _, variant in reversed(order)}
        chosen, usable = {}, set()
        for run in sorted(runs, key=lambda run: (*run.task, run.merit)):
            if run.variant == usual[run.task]:
                self.n_repeated += (run.model_id, run.task) in chosen
                chosen[run.model_id, run.task] = run
                usable.add((run.place, run.model_id, run.task))
        for run in runs:
            if (run.place, run.model_id, run.task) not in usable:
                reason = f"measured by {run.variant}, others by {usual[run.task]}"
                self.leave_out(run.place, f"{run.task[1]}: {reason}")
        return chosen


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
