"""lm-evaluation-harness 0.4: folders with ``results_*.json`` and ``samples_<task>_*.jsonl``.

Source: `lm_eval.loggers.EvaluationTracker` and `lm_eval.evaluator` of version 0.4.13.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import PurePath

from ..hub.details import TASKS, read_samples
from ..hub.leaderboard import BENCHMARKS
from .results import METRICS, Results, Unreadable, known_id, load_json, mapping, number, rank_of

LICENSE = ""
CITATION = "Gao et al. (2024), The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602"
NOTE = "Results of lm-evaluation-harness."
_FILE = re.compile(
    r"(?:samples_(?P<task>.+?)|.*?)(?:_(?P<time>\d{4}-\d\d-\d\dT[\d\-:.]+?))?\.jsonl?"
)
_NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")  # as lm-eval looks for them
_PACKED = re.compile(r"load_in_[48]bit|gptq|awq|gguf|uint8", re.IGNORECASE)  # no sizes of models


def read(files: list, results: Results) -> None:
    """Read results first: they name the models and the groups of the samples beside them."""
    models, groups, scores, samples = {}, defaultdict(set), [], []
    for file in files:
        match = _FILE.fullmatch(file.name)
        if match and match["task"]:
            samples.append((file, match["task"], match["time"] or ""))
        elif match:
            with results.reading(file):
                scores += _read_scores(file, match["time"], results, models, groups)
        else:
            results.leave_out(file, "is neither results_*.json nor samples_*.jsonl")
    for file, model_id, task, value, options in scores:
        results.add(file, model_id, _place(task, groups), value, **options)
    _read_samples(samples, results, models, groups)


def _read_scores(file, time: str | None, results: Results, models: dict, groups: dict) -> list:
    """Scores of a results file: arguments of `Results.add`, with the task's own name."""
    content = load_json(file)
    if not isinstance(rows := content.get("results"), dict):
        raise Unreadable("is no results file of lm-eval: it has no 'results'")
    if not time and (date := number(content.get("date"))):
        time = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H-%M-%S")
    model_id, order = _read_model(content, file, time, results), (time or "",)
    models[str(file.parent), time or ""] = models[str(file.parent), ""] = model_id
    children = {group: set(found) for group, found in mapping(content, "group_subtasks").items()}
    for group, task in ((group, task) for group, found in children.items() for task in found):
        groups[task].add(group)
    scores = []
    for task, row in rows.items():
        if not _below(task, children).isdisjoint(rows):
            continue  # the mean of other rows
        n_trials = mapping(mapping(content, "n-samples"), task).get("effective")
        rises, values = mapping(mapping(content, "higher_is_better"), task), {}
        for key, value in row.items():
            metric, _, name = key.partition(",")
            noise = metric.endswith("_stderr") or metric in ("sample_len", "samples")
            if not noise and rises.get(metric) is not False and 0 <= (number(value) or 0) <= 1:
                if number(value) is not None:
                    values.setdefault(metric, {})["" if name == "none" else name] = value
        if not values and set(row) - {"alias", " "}:
            results.leave_out(file, f"{task}: has no score from 0 to 1, the higher the better")
        for metric, filters in values.items():
            options = {"n_trials": n_trials, "variant": metric, "rank": _rank(task, metric)}
            scores.append((file, model_id, task, filters[min(filters)], options | {"order": order}))
    return scores


def _below(group: str, children: dict) -> set[str]:
    """Tasks in a group and in the groups within it."""
    pending, found = [group], set()
    while pending:
        for name in children.get(pending.pop(), set()) - found - {group}:
            found.add(name)
            pending.append(name)
    return found


def _read_model(content: dict, file, time: str | None, results: Results) -> str:
    """Id of the model, from the arguments of the harness; what else they tell goes to results."""
    config = mapping(content, "config")
    stated = config.get("model_args") or {}
    if isinstance(stated, str):
        stated = dict(pair.strip().partition("=")[::2] for pair in stated.split(","))
    named = next((stated[name] for name in _NAMES if stated.get(name)), content.get("model_name"))
    model_id = _model_id(named or file.parent.name)
    if stated.get("peft"):
        results.add_edge(stated.get("pretrained"), model_id, "adapter", "model_args")
    size, dtype = number(config.get("model_num_parameters")), str(config.get("model_dtype") or "")
    known = size and size > 0 and not _PACKED.search(f"{stated} {dtype}")
    facts = {"params_b": size / 1e9 if known else None, "revision": config.get("model_sha") or None}
    if "chat_template" in content:
        facts["chat_template"] = bool(content["chat_template"])
    facts["precision"] = dtype.removeprefix("torch.") or None
    results.add_model(
        model_id, order=(time or "",), evaluated_at=(time or "")[:10] or None, **facts
    )
    results.versions.add(str(content.get("lm_eval_version", "unknown")))
    return model_id


def _model_id(text: object) -> str:
    """An id; of a local path its last two parts; of a folder ``org__name`` or its details."""
    text = str(text).removesuffix("-details")
    try:
        return known_id(text if "/" in text else text.replace("__", "/", 1))
    except Unreadable:
        return known_id("/".join(PurePath(text.strip("~./\\")).parts[-2:]))


def _place(task: str, groups: dict) -> tuple[str, str]:
    """Benchmark and subtask: the outermost group of a task, or the task itself."""
    outermost, seen = task, {task}
    while above := groups.get(outermost, set()) - seen:
        outermost = min(above)
        seen.add(outermost)
    return TASKS.get(task, (outermost, task))


def _rank(task: str, metric: str) -> int:
    usual = BENCHMARKS[TASKS[task][0]].metric if task in TASKS else None
    return -1 if metric == usual else rank_of(metric)


def _read_samples(files: list, results: Results, models: dict, groups: dict) -> None:
    """Answers by question, known by its hash, or by its number where no file has a hash."""
    found, hashes = [], defaultdict(Counter)
    for file, task, time in files:
        with results.reading(file):
            folder = str(file.parent)
            model_id = models.get((folder, time)) or models.get((folder, ""))
            model_id, metric = model_id or _model_id(file.parent.name), _metric_of(file, task)
            samples = read_samples(_lines(file), metric)
            if not samples.keys:
                raise Unreadable(f"has no answer of 0 or 1 by {metric}")
            if samples.n_unusable:
                results.leave_out(file, f"{samples.n_unusable} lines without 0 or 1 by {metric}")
            hashes[task].update((doc_id, name) for doc_id, name in samples.keys if name)
            found.append((file, model_id, task, metric, time, samples))
    for file, model_id, task, metric, time, samples in found:
        usual = dict(key for key, _ in sorted(hashes[task].items(), key=lambda vote: vote[::-1]))
        place, answers, turns = _place(task, groups), {}, Counter()
        for (doc_id, name), value in zip(samples.keys, samples.values, strict=True):
            name = name or usual.get(doc_id, f"doc-{doc_id}")
            turns[name] += 1  # the second of two questions with one hash is told by its turn
            turn = f"-{turns[name]}" if turns[name] > 1 else ""
            answers[f"{place[1]}/{name}{turn}"] = int(value)
        options = {"variant": metric, "rank": _rank(task, metric), "order": (time,)}
        results.add(file, model_id, place, answers, **options)


def _lines(file) -> Iterator[bytes]:
    """Lines of a samples file; harness 0.4.1 wrote one JSON array instead."""
    with file.open("rb") as stream:
        first = next(filter(bytes.strip, stream), b"").removeprefix(b"\xef\xbb\xbf")
        if first.lstrip().startswith(b"["):
            with suppress(ValueError, RecursionError):
                yield from (json.dumps(row).encode() for row in json.loads(first + stream.read()))
                return
            stream.seek(0)
            first = b""
        yield from chain([first], stream)


def _metric_of(file, task: str) -> str:
    """The usual metric of the task, or the first of `METRICS`, or what the lines list."""
    for line in _lines(file):
        try:
            row = json.loads(line)
            names = [name for name in (*row.get("metrics", ()), *METRICS) if name in row]
            return min(names, key=lambda name: (_rank(task, name), name))
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    raise Unreadable("has no line that names a metric")
