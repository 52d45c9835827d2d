"""lm-evaluation-harness 0.4: folders with ``results_*.json`` and ``samples_<task>_*.jsonl``.

Source: `lm_eval.loggers.EvaluationTracker` and `lm_eval.evaluator` of version 0.4.13.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePath

import networkx as nx

from ..data.benchmarks import TASKS
from ..data.metadata import EARLIEST, day, text
from ..data.samples import Samples, name_questions, read_samples_file
from .results import Results, Unreadable, known_id, load_json, mapping, number

LICENSE = ""
CITATION = "Gao et al. (2024), The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602"
NOTE = "Results of lm-evaluation-harness."
_FILE = re.compile(
    r"(?:samples_(?P<task>.+?)|.*?)(?:_(?P<time>\d{4}-\d\d-\d\dT[\d\-:.]+?))?\.jsonl?"
)
_NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")  # as lm-eval looks for them
_LABELS = {"alias", "name", " ", "sample_len", "sample_count"}  # of a group without a score
_PACKED = re.compile(r"load_in_[48]bit|gptq|awq|gguf|uint8", re.IGNORECASE)  # no sizes of models


def read(files: Iterable, results: Results) -> None:
    """Read results first: they name the models and the groups of the samples beside them."""
    models, groups, scores, answers = {}, nx.DiGraph(), [], defaultdict(list)
    samples = []
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match and match["task"]:
            samples.append((file, match["task"], match["time"] or ""))
        else:
            with results.reading(file):
                scores += _read_scores(file, match and match["time"], results, models, groups)
    for file, model_id, task, value, options in scores:
        with results.reading(file):
            results.add(file, model_id, _place_of(task, groups), value, **options)
    for file, task, time in samples:
        with results.reading(file):
            folder = str(file.parent)
            model_id = models.get((folder, time)) or models.get((folder, ""))
            found, metric = _read_samples(file, task, results)
            options = {"variant": metric, "order": (time,)}
            answers[task].append((file, model_id or _named(file.parent.name), found, options))
    for task, runs in answers.items():
        place = _place_of(task, groups)
        lists = {str(file): found.keys for file, _, found, _ in runs}
        names = name_questions(lists, dict.fromkeys(lists, 1))
        for file, model_id, found, options in runs:
            questions = [f"{place[1]}/{name}" for name in names[str(file)]]
            with results.reading(file):
                known = dict(zip(questions, map(int, found.values), strict=True))
                results.add(file, model_id, place, known, **options)


def _read_samples(file, task: str, results: Results) -> tuple[Samples, str]:
    """Answers of 0 or 1 in a samples file, and their metric."""
    found, metric = read_samples_file(file, task)
    if not found.keys:
        raise Unreadable(f"has no answer of 0 or 1 by {metric or 'any metric'}")
    if found.n_unusable:
        results.leave_out(file, f"{found.n_unusable} lines without 0 or 1 by {metric}")
    return found, metric


def _read_scores(file, time: str | None, results: Results, models: dict, groups) -> list[tuple]:
    """Scores of a results file: arguments of `Results.add`, with the task's own name."""
    content = load_json(file)
    if not isinstance(rows := content.get("results"), dict):
        raise Unreadable("is no results file of lm-eval: it has no 'results'")
    if not time and (date := number(content.get("date"))):
        with suppress(ValueError, OverflowError, OSError):  # seconds
            time = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H-%M-%S")
    model_id = _read_model(content, file, time or "", results)
    models[str(file.parent), time or ""] = models[str(file.parent), ""] = model_id
    rising = mapping(content, "higher_is_better")
    values = {task: _values(row, mapping(rising, task)) for task, row in rows.items()}
    # A group with a score of its own is the mean of its tasks, one without is a list of benchmarks.
    parts = mapping(content, "group_subtasks").items()
    own = nx.DiGraph((group, task) for group, found in parts if values.get(group) for task in found)
    groups.update(own)
    scores = []
    for task, found in values.items():
        if task in own and not nx.descendants(own, task).isdisjoint(rows):
            continue
        if not found and set(rows[task]) - _LABELS:
            results.leave_out(file, f"{task}: has no score from 0 to 1, the higher the better")
        n_trials = mapping(mapping(content, "n-samples"), task).get("effective")
        for metric, (_, value) in found.items():
            options = {"n_trials": n_trials, "variant": metric, "order": (time or "",)}
            scores.append((file, model_id, task, value, options))
    return scores


def _values(row: dict, rising: dict) -> dict[str, tuple[str, float]]:
    """Filter and score by metric: of several filters ``none``, or the first by name."""
    values: dict[str, tuple[str, float]] = {}
    for key, value in row.items():
        metric, _, name = key.partition(",")
        value = None if metric.endswith("_stderr") or metric in _LABELS else number(value)
        if value is not None and 0 <= value <= 1 and rising.get(metric) is not False:
            choice = ("" if name == "none" else name, value)
            values[metric] = min(values.get(metric, choice), choice)
    return values


def _read_model(content: dict, file, time: str, results: Results) -> str:
    """Id of the model, from the arguments of the harness; what else they tell goes to results."""
    config = mapping(content, "config")
    stated = config.get("model_args") or {}
    if isinstance(stated, str):
        stated = dict(pair.strip().partition("=")[::2] for pair in stated.split(","))
    named = next((stated[name] for name in _NAMES if stated.get(name)), content.get("model_name"))
    model_id = _named(named or file.parent.name)
    if stated.get("peft"):
        results.add_edge(stated.get("pretrained"), model_id, "adapter", "model_args")
    dtype = (text(config.get("model_dtype")) or "").removeprefix("torch.")
    facts = {"revision": text(config.get("model_sha")) or None, "precision": dtype or None}
    facts["evaluated_at"] = day(time, after=EARLIEST)
    if not _PACKED.search(f"{stated} {dtype}"):
        facts["n_parameters"] = config.get("model_num_parameters")
    if "chat_template" in content:
        facts["chat_template"] = bool(content["chat_template"])
    results.add_model(model_id, order=(time,), **facts)
    results.versions.add(str(content.get("lm_eval_version", "unknown")))
    return model_id


def _named(name: object) -> str:
    """An id; of a local path its last two parts; of a folder ``org__name`` or its details."""
    name = str(name).removesuffix("-details")
    try:
        return known_id(name if "/" in name else name.replace("__", "/", 1))
    except Unreadable:
        return known_id("/".join(PurePath(name.strip("~./\\")).parts[-2:]))


def _place_of(task: str, groups: nx.DiGraph) -> tuple[str, str]:
    """Benchmark and subtask: the outermost group of a task, or the task itself."""
    above = nx.ancestors(groups, task) if task in groups else ()
    outermost = min((group for group in above if not groups.in_degree(group)), default=task)
    return TASKS.get(task, (outermost, task))
