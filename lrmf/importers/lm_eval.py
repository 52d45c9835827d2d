"""lm-evaluation-harness 0.4: folders with ``results_*.json`` and ``samples_<task>_*.jsonl``.

Source: `lm_eval.loggers.EvaluationTracker` and `lm_eval.evaluator` of version 0.4.13.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

import networkx as nx

from ..data.benchmarks import LOWER_IS_BETTER, TASKS
from ..data.metadata import EARLIEST, count, day, mapping, number, text
from ..data.samples import name_questions, read_samples_file
from .results import Results, Unreadable, known_id, load_json

LICENSE = ""
CITATION = "Gao et al. (2024), The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602"
NOTE = "Results of lm-evaluation-harness."
_FILE = re.compile(
    r"(?:samples_(?P<task>.+?)|.*?)(?:_(?P<time>\d{4}-\d\d-\d\dT[\d\-:.]+?))?\.jsonl?"
)
_ADAPTERS = ("peft", "lora_local_path")
_NAMES = (*_ADAPTERS, "delta", "pretrained", "model", "path", "engine")  # as lm-eval looks for them
# Settings that make another model of the same name, and values that do not: the last five read
# weights that are quantized already.
_SETTINGS = ("revision", "subfolder", "gguf_file", "quantization", "load_in_4bit", "load_in_8bit")
_UNUSED = {"", "main", "none", "false", "0"}
_UNUSED |= {"awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors"}
_LABELS = {"alias", "name", " ", "sample_len", "sample_count"}  # of a group without a score
_PACKED = re.compile(r"load_in_[48]bit|gptq|awq|gguf|uint8", re.IGNORECASE)  # no sizes of models


class _File(NamedTuple):
    """What a results file says of a model (as its arguments name it) and of its scores."""

    file: object
    time: str
    name: str
    settings: str
    parent: tuple[object, str] | None  # and the relation
    facts: dict
    shots: dict  # by task
    scores: list[tuple[str, float, dict]]  # task, value, options of `Results.add`


def read(files: Iterable, results: Results) -> None:
    """Read results first: they name the models and the groups of the samples beside them."""
    found, samples, groups = [], [], nx.DiGraph()
    for file in files:
        with results.reading(file):
            if not (match := _FILE.fullmatch(file.name)):
                raise Unreadable("is neither .json nor .jsonl")
            if match["task"]:
                samples.append((file, match["task"], match["time"] or ""))
            else:
                found.append(_read_results(file, match["time"], results, groups))
    paths = {_parts(each.name) for each in found}
    ends = Counter(parts[-n:] for parts in paths for n in range(1, len(parts) + 1))
    beside, known = defaultdict(list), defaultdict(list)
    for task, value, options in (score for each in found for score in each.scores):
        known[task, options["variant"]].append(value)
    # Of these a value up to 1 is no proportion either.
    percentages = {metric for metric, values in known.items() if median(values) > 1}
    for file, time, name, settings, parent, facts, shots, scores in found:
        with results.reading(file):
            model_id = _named(name, ends) + settings
            beside[str(file.parent)].append((time, model_id, shots))
            results.add_model(model_id, order=(time,), **facts)
            if parent:
                results.add_edge(parent[0], model_id, parent[1], "model_args")
            for task, value, options in scores:
                with results.reading(file):
                    if value > 1 or (task, options["variant"]) in percentages:
                        raise Unreadable(f"{task}: {options['variant']} is no score from 0 to 1")
                    place = _place_of(task, groups)
                    results.add(file, model_id, place, value, order=(time,), **options)
    _add_answers(samples, beside, groups, results)


def _add_answers(samples: list[tuple], beside: dict, groups: nx.DiGraph, results: Results) -> None:
    """Add the answers of samples files, of each filter as a run of its own."""
    answers = defaultdict(list)
    for file, task, time in samples:
        with results.reading(file):
            known = beside[str(file.parent)]
            known = [run for run in known if run[0] == time] or known
            ids = {model_id for _, model_id, _ in known} or {_named(file.parent.name)}
            if len(ids) > 1:
                raise Unreadable("the results beside it do not say which model it is of")
            shots = {run_shots.get(task) for *_, run_shots in known}
            n_shots = shots.pop() if len(shots) == 1 else None
            for metric, name, found in _read_samples(file, task, results):
                options = {"variant": _variant(metric, name, n_shots), "order": (time,)}
                answers[task].append((file, *ids, metric, found, options))
    for task, runs in answers.items():
        # A metric that grades answers of one model has single answers of none.
        graded = {metric for *_, metric, found, _ in runs if found.n_graded}
        for file, metric in dict.fromkeys((str(run[0]), run[2]) for run in runs):
            if metric in graded:
                reason = "also other values than 0 and 1 (--proportions takes the scores)"
                results.leave_out(file, f"{task}: {metric} has {reason}")
        runs = [run for run in runs if run[2] not in graded]
        place = _place_of(task, groups)
        lists = {at: found.keys for at, (*_, found, _) in enumerate(runs)}
        names = name_questions(lists, dict.fromkeys(lists, 1))
        for at, (file, model_id, _, found, options) in enumerate(runs):
            questions = [f"{place[1]}/{name}" for name in names[at]]
            with results.reading(file):
                known = dict(zip(questions, map(int, found.values), strict=True))
                results.add(file, model_id, place, known, **options)


def _read_samples(file, task: str, results: Results) -> list[tuple]:
    """Metric, filter, and answers of 0 or 1 of each filter in a samples file, or graded ones."""
    found, metric = read_samples_file(file, task)
    names = found.filters
    if found.n_graded:
        return [(metric, "", found)]
    if not found.keys:
        raise Unreadable(f"has no line with {found.lacks or 'an answer'}")
    if found.n_unusable:
        results.leave_out(file, f"{found.n_unusable} lines without {found.lacks}")
    if len(names) == 1:
        return [(metric, *names, found)]
    return [(metric, name, read_samples_file(file, task, only=name)[0]) for name in names]


def _read_results(file, time: str | None, results: Results, groups: nx.DiGraph) -> _File:
    if file.name.endswith(".jsonl") and file.read_bytes().lstrip().startswith(b"["):
        raise Unreadable("has samples, named as by lm-eval before 0.4.3: not samples_<task>_<time>")
    content = load_json(file)
    if not isinstance(rows := content.get("results"), dict):
        raise Unreadable("is no results file of lm-eval: it has no 'results'")
    if "config_general" in content:
        raise Unreadable("is a results file of lighteval, not of lm-eval")
    rows = {task: mapping(rows, task) or {task: None} for task in rows}
    if not time and (date := number(content.get("date"))):
        with suppress(ValueError, OverflowError, OSError):  # seconds
            time = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H-%M-%S")
    model, shots = _read_model(content, file, time or ""), mapping(content, "n-shot")
    results.versions.add(text(content.get("lm_eval_version")) or "unknown")
    rising = mapping(content, "higher_is_better")
    values = {task: _values(row, mapping(rising, task)) for task, row in rows.items()}
    # A group with a score of its own is the mean of its tasks, one without is a list of benchmarks.
    parts = mapping(content, "group_subtasks").items()
    own = nx.DiGraph((group, task) for group, found in parts if values.get(group) for task in found)
    groups.update(own)
    scores = []
    for task, found in values.items():
        # Of groups that contain each other neither is the mean of the other.
        if task in own:
            below = nx.descendants(own, task) - nx.ancestors(own, task)
            if not below.isdisjoint(rows):
                continue
        if not found and set(rows[task]) - _LABELS:
            results.leave_out(
                file, f"{task}: has no score, a number from 0 of which more is better"
            )
        n_trials = mapping(mapping(content, "n-samples"), task).get("effective")
        for (metric, name), value in found.items():
            variant = _variant(metric, name, shots.get(task))
            scores.append((task, value, {"n_trials": n_trials, "variant": variant}))
    return _File(file, time or "", *model, shots, scores)


def _values(row: dict, rising: dict) -> dict[tuple[str, str], float]:
    """Scores by metric and filter, of metrics that rise as models get better; also percentages."""
    values = {}
    for key, value in row.items():
        metric, _, name = key.partition(",")
        rises = rising.get(metric, metric not in LOWER_IS_BETTER) is not False
        is_score = rises and not metric.endswith("_stderr") and metric not in _LABELS
        if is_score and (value := number(value)) is not None and value >= 0:
            values[metric, name] = value
    return values


def _variant(metric: str, name: str, n_shots: object) -> str:
    """Metric, filter and number of shots: scores are comparable if they agree in all three."""
    shots = "" if count(n_shots) is None else f"{n_shots}-shot"
    return ":".join(part for part in (metric, name, shots) if part not in ("", "none"))


def _read_model(content: dict, file, time: str) -> tuple:
    """Name, settings, parent with its relation, and facts of a model, as its arguments say."""
    config = mapping(content, "config")
    given = config.get("model_args")
    if isinstance(given, str):
        given = dict(pair.strip().partition("=")[::2] for pair in given.split(","))
    stated = mapping({"": given}, "").items()
    stated = {name: value for name, value in stated if str(value).lower() not in _UNUSED}
    named = next((stated[name] for name in _NAMES if name in stated), content.get("model_name"))
    named = str(named or file.parent.name).removesuffix("-details")
    used = [name for name in _SETTINGS if name in stated]
    parts = [name if name.startswith("load_in") else str(stated[name]) for name in used]
    # The Hub has no id with @, so none is mistaken for another model.
    settings = "".join("@" + re.sub(r"[^\w.\-]+", "-", part, flags=re.ASCII) for part in parts)
    parent = None
    if not stated.keys().isdisjoint(_ADAPTERS):
        parent = stated.get("pretrained"), "adapter"
    elif set(used) - {"revision", "subfolder"}:
        parent = named, "quantized"
    dtype = (text(config.get("model_dtype")) or "").removeprefix("torch.")
    facts = {"revision": text(config.get("model_sha")) or None, "precision": dtype or None}
    facts["evaluated_at"] = day(time, after=EARLIEST)
    if not _PACKED.search(f"{given} {dtype}"):
        facts["n_parameters"] = config.get("model_num_parameters")
    if "chat_template" in content:
        facts["chat_template"] = bool(content["chat_template"])
    return named, settings, parent, facts


def _named(name: str, ends: Counter | None = None) -> str:
    """An id; of a folder ``org__name`` or its details; of a local path the last two parts, or more.

    As many as no other path ends with: ``ends`` counts the paths by their ends.
    """
    name = name.removesuffix("-details").removeprefix("./")
    try:
        return known_id(name if "/" in name else name.replace("__", "/", 1))
    except Unreadable:
        parts = _parts(name)
        lengths = range(2, len(parts))
        n = next((n for n in lengths if not ends or ends[parts[-n:]] < 2), len(parts))
        return known_id("/".join(parts[-n:]))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(re.split(r"[/\\]+", path.strip("~./\\")))


def _place_of(task: str, groups: nx.DiGraph) -> tuple[str, str]:
    """Benchmark and subtask: the outermost group of a task, or the task itself."""
    above = nx.ancestors(groups, task) if task in groups else ()
    outermost = min((group for group in above if not groups.in_degree(group)), default=task)
    return TASKS.get(task, (outermost, task))
