"""Answers and scores of a new model from files, and items as questions of lm-eval."""

import csv
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data.benchmarks import BENCHMARKS, METRICS, PREFIX, metric_rank
from ..data.response_kinds import PROPORTIONS
from ..data.samples import name_questions, read_samples_file

_SAMPLES = re.compile(r"samples_(.+?)(_\d{4}-\d\d-\d\dT[\d\-:.]+)?\.jsonl?")
_NUMBER = re.compile(r"(?:doc-)?(\d{1,9})")
_HASH = re.compile(r"[0-9a-z]{16}(-\d+)?")  # of a question, as imported samples have it


class AnswersError(ValueError):
    """A file of answers cannot be used; the message names it and the remedy."""


class Questions:
    """The items of a fit as tasks and document numbers of lm-eval.

    The id of an item is its task's name and a number, such as ``bbh/snarks/12`` of the task
    ``leaderboard_bbh_snarks``. If an id ends in neither a number nor the hash of a question, the
    number is its position among the items of its task. An id without a task is a whole benchmark.

    Parameters
    ----------
    item_ids : list
    benchmarks : set of str

    Attributes
    ----------
    places : dict of item_id to (task, document number, None if it is named by a hash)
    items : dict of (task without prefix, document number or hash) to item_id
    wholes : dict of task without prefix to item_id, of whole benchmarks
    """

    def __init__(self, item_ids, benchmarks):
        self.item_ids = [str(item) for item in item_ids]
        self.prefix = PREFIX if benchmarks <= BENCHMARKS.keys() else ""

    @cached_property
    def places(self):
        """Dict of item_id to (task, document number or None)."""
        # Number in the id, or position within the task.
        tasks = [item.rpartition("/")[0] or item for item in self.item_ids]
        names = {task: self._task(task) for task in dict.fromkeys(tasks)}
        count, places = dict.fromkeys(names, 0), {}
        for item, task in zip(self.item_ids, tasks, strict=True):
            name = item.rpartition("/")[2]
            number = _NUMBER.fullmatch(name)
            if number or not _HASH.fullmatch(name):
                number = int(number[1]) if number else count[task]
            places[item] = names[task], number
            count[task] += 1
        return places

    @cached_property
    def items(self):
        """Dict of (task without the leaderboard's prefix, document number or hash) to item_id."""
        return {
            (_plain(task), item.rpartition("/")[2] if number is None else number): item
            for item, (task, number) in self.places.items() if "/" in item
        }  # fmt: skip

    @cached_property
    def wholes(self):
        """Dict of task without the leaderboard's prefix to the item that is a whole benchmark."""
        return {_plain(item): item for item in self.item_ids if "/" not in item}

    def _task(self, path):
        """lm-eval's name of a task from the path in an item id."""
        parts = path.split("/")
        return self.prefix + (parts[0] if len(set(parts)) == 1 else "_".join(parts))

    def by_task(self, item_ids):
        """Document numbers of the items by task, or names of those whose number is not known."""
        chosen = {}
        for item in map(str, item_ids):
            task, number = self.places[item]
            chosen.setdefault(task, []).append(
                item.rpartition("/")[2] if number is None else number
            )
        return {
            task: sorted(names, key=lambda name: (isinstance(name, str), name))
            for task, names in sorted(chosen.items())
        }

    def samples(self, item_ids):
        """Document numbers of the items by task, for lm-eval's ``--samples``.

        Parameters
        ----------
        item_ids : sequence

        Returns
        -------
        dict of task to sorted list of int

        Raises
        ------
        AnswersError
            If the number of an item is not known.
        """
        for item in map(str, item_ids):
            task, number = self.places[item]
            if number is None:
                raise AnswersError(
                    f"{item} is named by the hash of its question, and its number in {task} is not "
                    "known: lm-eval cannot be asked for it alone; run the task without --samples"
                )
        return {task: sorted(numbers) for task, numbers in self.by_task(item_ids).items()}


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


def read_answers(path, questions: Questions, benchmarks, kind=PROPORTIONS) -> Found:
    """Read answers from a CSV ``item_id,answer``, or samples or a results file of lm-eval.

    Parameters
    ----------
    path : path
        A file, or a folder with files ``samples_<task>_<time>.jsonl``.
    questions : Questions
    benchmarks : list of str
    kind : ResponseKind, of the fit

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
            for file in _samples_in(path):  # a later run of a task overwrites an earlier one
                _read_samples(file, questions, found)
        elif not path.is_file() and path.exists():
            raise AnswersError(f"{path}: is neither a file nor a folder")
        elif path.suffix == ".jsonl" or _SAMPLES.fullmatch(path.name):
            _read_samples(path, questions, found)
        elif path.suffix.lower() == ".json":
            _read_results(path, questions, benchmarks, found)
        else:
            _read_table(path, questions, kind, found)
    except OSError as error:
        raise AnswersError(f"{path}: cannot be read ({error.strerror})") from error
    except AnswersError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise AnswersError(f"{path}: is damaged ({' '.join(str(error).split())})") from error
    if not (found.answers or found.scores):
        why = f" ({found.notes[0]})" if found.notes else ""
        raise AnswersError(f"{path}: has no answer to an item of the fit, such as "
                           f"{', '.join(questions.item_ids[:2])}{why}")  # fmt: skip
    return found


def _samples_in(folder):
    """The samples files in a folder with the output of one model, in order of time."""
    files = [file for file in folder.rglob("samples_*.json*")
             if _SAMPLES.fullmatch(file.name) and file.is_file()]  # fmt: skip
    if not files:
        raise AnswersError(f"{folder}: has no samples_*.jsonl; run lm_eval --log_samples, or give "
                           "its results_*.json")  # fmt: skip
    # lm-eval writes the output of org/name into a folder org__name.
    models = sorted({file.parent.name for file in files if "__" in file.parent.name})
    if len(models) > 1:
        names = ", ".join(models[:3])
        raise AnswersError(f"{folder}: has samples of {len(models)} models ({names}); give the "
                           "folder of one of them")  # fmt: skip
    times = {file: _SAMPLES.fullmatch(file.name)[2] or "" for file in files}
    return sorted(files, key=lambda file: (times[file], file))


def _read_table(path, questions, kind, found):
    """Add the answers of a CSV to `found`."""
    known = set(questions.item_ids)
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not {"item_id", "answer"} <= set(reader.fieldnames or ()):
            raise AnswersError(f"{path}: the first line must be item_id,answer")
        for row in reader:
            item, text = ((row[name] or "").strip() for name in ("item_id", "answer"))
            if item not in known:
                raise AnswersError(f"{path}, line {reader.line_num}: {item!r} is not an item of "
                                   f"the fit, such as {questions.item_ids[0]}")  # fmt: skip
            if text == "":
                continue  # not answered yet
            try:
                value = float(text)
            except ValueError:
                value = np.nan
            if not kind.is_legal(value):
                raise AnswersError(f"{path}, line {reader.line_num}: the answer to {item} must be "
                                   f"{kind.legal}, got {text!r}")  # fmt: skip
            if found.answers.get(item, value) != value:
                raise AnswersError(f"{path}, line {reader.line_num}: {item} has two different "
                                   "answers; keep one of them")  # fmt: skip
            found.answers[item] = int(value) if value in (0, 1) else value


def _read_samples(path, questions, found):
    """Add the answers of a file ``samples_<task>_<time>.jsonl`` to `found`."""
    if not (match := _SAMPLES.fullmatch(path.name)):
        raise AnswersError(f"{path}: does not name its task; call it samples_<task>.jsonl, as "
                           "lm-eval does")  # fmt: skip
    try:
        samples, _ = read_samples_file(path, match[1], strict=True)
    except ValueError as error:
        raise AnswersError(f"{path}: is damaged ({error})") from error
    task = _plain(match[1])
    if task in questions.wholes:
        raise AnswersError(f"{path}: has single answers, and the fit the scores of whole "
                           "benchmarks; give the results_*.json of the same run")  # fmt: skip
    unknown, (names,) = 0, name_questions({0: samples.keys}, {0: 1}).values()
    for (number, _), name, value in zip(samples.keys, names, samples.values, strict=True):
        # An item is identified by the hash of its question, or by its document number.
        item = questions.items.get((task, name)) or questions.items.get((task, number))
        unknown += item is None
        if item is not None:
            found.answers[item] = int(value)
    if samples.n_unusable:
        found.notes.append(f"{path.name}: {samples.n_unusable} lines without {samples.lacks}")
    if unknown:
        found.notes.append(f"{path.name}: {unknown} answers are not to items of the fit")


def _read_results(path, questions, benchmarks, found):
    """Add the scores of a results file of lm-eval to `found`."""
    content = json.loads(path.read_bytes())  # in any encoding of JSON
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
        if name not in benchmarks and name not in questions.wholes:
            skipped.append(task)
        elif type(value) not in (int, float) or not 0 <= value <= 1:
            said = ", ".join(f"{key}={number!r}"[:40] for key, number in metrics.items())
            found.notes.append(
                f"{path.name}: {task} has no score from 0 to 1 by a known metric, but {said}"
            )
        elif name in benchmarks:
            found.scores[name] = float(value)
        else:
            found.answers[questions.wholes[name]] = float(value)
    if skipped:
        found.notes.append(f"{path.name}: not a benchmark of the fit: {', '.join(skipped)}")
