"""Answers and scores of a new model from files, and items as questions of lm-eval."""

import csv
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data.benchmarks import BENCHMARKS, METRICS, PREFIX, metric_rank
from ..data.samples import read_samples_file

_SAMPLES = re.compile(r"samples_(.+?)(_\d{4}-\d\d-\d\dT[\d\-:.]+)?\.jsonl")
_NUMBER = re.compile(r"(?:doc-)?(\d+)")


class AnswersError(ValueError):
    """A file of answers cannot be used; the message names it and the remedy."""


class Questions:
    """The items of a fit as tasks and document numbers of lm-eval.

    The id of an item is its task's name and a number, such as ``bbh/snarks/12`` of the task
    ``leaderboard_bbh_snarks``. If an id does not end in a number, the number is its position among
    the items of its task.

    Parameters
    ----------
    item_ids : list
    benchmarks : set of str

    Attributes
    ----------
    places : dict of item_id to (task, document number)
    items : dict of (task without prefix, document number) to item_id
    """

    def __init__(self, item_ids, benchmarks):
        self.item_ids = [str(item) for item in item_ids]
        self.prefix = PREFIX if benchmarks <= BENCHMARKS.keys() else ""

    @cached_property
    def places(self):
        """Dict of item_id to (task, document number)."""
        # Number in the id, or position within the task.
        tasks = [item.rpartition("/")[0] or item for item in self.item_ids]
        names = {task: self._task(task) for task in dict.fromkeys(tasks)}
        numbers = [_NUMBER.fullmatch(item.rpartition("/")[2]) for item in self.item_ids]
        count, places = dict.fromkeys(names, 0), {}
        for item, task, number in zip(self.item_ids, tasks, numbers, strict=True):
            places[item] = names[task], int(number[1]) if number else count[task]
            count[task] += 1
        return places

    @cached_property
    def items(self):
        """Dict of (task without the leaderboard's prefix, document number) to item_id."""
        return {(_plain(task), number): item for item, (task, number) in self.places.items()}

    def _task(self, path):
        """lm-eval's name of a task from the path in an item id."""
        parts = path.split("/")
        return self.prefix + (parts[0] if len(set(parts)) == 1 else "_".join(parts))

    def samples(self, item_ids):
        """Document numbers of the items by task, for lm-eval's ``--samples``.

        Parameters
        ----------
        item_ids : sequence

        Returns
        -------
        dict of task to sorted list of int
        """
        chosen = {}
        for item in item_ids:
            task, number = self.places[str(item)]
            chosen.setdefault(task, []).append(number)
        return {task: sorted(numbers) for task, numbers in sorted(chosen.items())}


def _plain(task):
    """The task without the leaderboard's prefix."""
    return task.removeprefix(PREFIX)


@dataclass
class Found:
    """Content of files on a model.

    Attributes
    ----------
    answers : dict of item_id to response
    scores : dict of benchmark to score in [0, 1]
    notes : list of str, on what was skipped
    """

    answers: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def read_answers(path, questions: Questions, benchmarks) -> Found:
    """Read answers from a CSV ``item_id,answer``, or samples or a results file of lm-eval.

    Parameters
    ----------
    path : path
        A file, or a folder with files ``samples_<task>_<time>.jsonl``.
    questions : Questions
    benchmarks : list of str

    Returns
    -------
    Found

    Raises
    ------
    AnswersError
        If the file is damaged, or has no answer to an item of the fit.
    """
    # The kind of file follows from its name.
    path, found = Path(path), Found()
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("samples_*.jsonl"))
            if not files:
                raise AnswersError(f"{path}: has no samples_*.jsonl; run lm_eval --log_samples")
            for file in files:  # in order of time: a later run of a task overwrites an earlier one
                _read_samples(file, questions, found)
        elif path.suffix == ".jsonl":
            _read_samples(path, questions, found)
        elif path.suffix == ".json":
            _read_results(path, questions, benchmarks, found)
        else:
            _read_table(path, questions, found)
    except OSError as error:
        raise AnswersError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise AnswersError(f"{path}: is damaged ({' '.join(str(error).split())})") from error
    if not (found.answers or found.scores):
        raise AnswersError(f"{path}: has no answer to an item of the fit, such as "
                           f"{', '.join(questions.item_ids[:2])}")  # fmt: skip
    return found


def _read_table(path, questions, found):
    """Add the answers of a CSV to `found`."""
    known = set(questions.item_ids)
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not {"item_id", "answer"} <= set(reader.fieldnames or ()):
            raise AnswersError(f"{path}: the first line must be item_id,answer")
        for row in reader:
            item, text = row["item_id"], (row["answer"] or "").strip()
            if item not in known:
                raise AnswersError(f"{path}, line {reader.line_num}: {item!r} is not an item of "
                                   f"the fit, such as {questions.item_ids[0]}")  # fmt: skip
            if text == "":
                continue  # not answered yet
            try:
                value = float(text)
            except ValueError:
                value = np.nan
            if not 0 <= value <= 1:
                raise AnswersError(f"{path}, line {reader.line_num}: the answer to {item} must be "
                                   f"a number from 0 to 1, got {text!r}")  # fmt: skip
            if found.answers.get(item, value) != value:
                raise AnswersError(f"{path}, line {reader.line_num}: {item} has two different "
                                   "answers; keep one of them")  # fmt: skip
            found.answers[item] = int(value) if value in (0, 1) else value


def _read_samples(path, questions, found):
    """Add the answers of a file ``samples_<task>_<time>.jsonl`` to `found`."""
    match = _SAMPLES.fullmatch(path.name)
    task = match[1] if match else ""
    try:
        samples, _ = read_samples_file(path, task, strict=True)
    except ValueError as error:
        raise AnswersError(f"{path}: is damaged ({error})") from error
    unknown = samples.n_unusable
    for (number, name), value in zip(samples.keys, samples.values, strict=True):
        # An item is identified by the hash of its question, or by its document number.
        item = f"{_plain(task).replace('_', '/', 1)}/{name}"
        item = item if item in questions.places else questions.items.get((_plain(task), number))
        unknown += item is None
        if item is not None:
            found.answers[item] = int(value)
    if unknown:
        found.notes.append(f"{path.name}: {unknown} lines are not right or wrong answers to items "
                           "of the fit")  # fmt: skip


def _read_results(path, questions, benchmarks, found):
    """Add the scores of a results file of lm-eval to `found`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise AnswersError(f"{path}: is not a results file of lm-eval: it has no 'results'")
    skipped = []
    for task, row in results.items():
        # The preferred metric of the task, whichever filter comes first.
        metrics = {}
        for key, value in row.items() if isinstance(row, dict) else ():
            metrics.setdefault(key.partition(",")[0], value)
        names = [name for name in METRICS if name in metrics]
        metric = min(names, key=lambda name: metric_rank(name, task), default=None)
        value, name = metrics.get(metric), _plain(task)
        # A benchmark of the fit, or an item that is a benchmark.
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            skipped.append(task)
        elif name in benchmarks:
            found.scores[name] = float(value)
        elif (item := questions.items.get((name, 0))) and questions.places[item][0] == item:
            found.answers[item] = float(value)
        else:
            skipped.append(task)
    if skipped and (found.scores or found.answers):
        found.notes.append(f"{path.name}: not a benchmark of the fit: {', '.join(skipped)}")
