"""Single answers of lm-evaluation-harness, and what its names of tasks and models mean."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import PurePath

import networkx as nx

from ..data.samples import read_samples
from ..hub.details import TASKS
from ..hub.leaderboard import BENCHMARKS
from .results import METRICS, Results, Unreadable, known_id, rank_of


def named_model(text: object) -> str:
    """An id; of a local path its last two parts; of a folder ``org__name`` or its details."""
    text = str(text).removesuffix("-details")
    try:
        return known_id(text if "/" in text else text.replace("__", "/", 1))
    except Unreadable:
        return known_id("/".join(PurePath(text.strip("~./\\")).parts[-2:]))


def place_of(task: str, groups: nx.DiGraph) -> tuple[str, str]:
    """Benchmark and subtask: the outermost group of a task, or the task itself."""
    above = nx.ancestors(groups, task) if task in groups else ()
    outermost = min((group for group in above if not groups.in_degree(group)), default=task)
    return TASKS.get(task, (outermost, task))


def rank_in(task: str, metric: str) -> int:
    """Place of a metric among those of a task; the leaderboard's own is first."""
    usual = BENCHMARKS[TASKS[task][0]].metric if task in TASKS else None
    return -1 if metric == usual else rank_of(metric)


def read_answers(files: list, results: Results, models: dict, groups: nx.DiGraph) -> None:
    """Answers by question, known by its hash, or by its number where no file has a hash."""
    found, hashes = [], defaultdict(Counter)
    for file, task, time in files:
        with results.reading(file):
            folder = str(file.parent)
            model_id = models.get((folder, time)) or models.get((folder, ""))
            model_id, metric = model_id or named_model(file.parent.name), _metric_of(file, task)
            samples = read_samples(_lines(file), metric)
            if not samples.keys:
                raise Unreadable(f"has no answer of 0 or 1 by {metric}")
            if samples.n_unusable:
                results.leave_out(file, f"{samples.n_unusable} lines without 0 or 1 by {metric}")
            hashes[task].update((doc_id, name) for doc_id, name in samples.keys if name)
            options = {"variant": metric, "rank": rank_in(task, metric), "order": (time,)}
            found.append((file, model_id, task, samples, options))
    for file, model_id, task, samples, options in found:
        usual = dict(key for key, _ in sorted(hashes[task].items(), key=lambda vote: vote[::-1]))
        place, answers, turns = place_of(task, groups), {}, Counter()
        for (doc_id, name), value in zip(samples.keys, samples.values, strict=True):
            name = name or usual.get(doc_id, f"doc-{doc_id}")
            turns[name] += 1  # the second of two questions with one hash is told by its turn
            name = f"{name}-{turns[name]}" if turns[name] > 1 else name
            answers[f"{place[1]}/{name}"] = int(value)
        with results.reading(file):
            results.add(file, model_id, place, answers, **options)


def _lines(file) -> Iterator[bytes]:
    """Lines of a samples file; harness 0.4.1 wrote one JSON array instead."""
    with file.open("rb") as stream:
        first = next(filter(bytes.strip, stream), b"").removeprefix(b"\xef\xbb\xbf")
        if first.lstrip().startswith(b"["):
            with suppress(ValueError, RecursionError):
                rows = json.loads(first + stream.read())
                yield from (
                    json.dumps(row if isinstance(row, dict) else {}).encode() for row in rows
                )
                return
            stream.seek(0)
            next(filter(bytes.strip, stream))
            first = b"{}\n"  # a line that is no sample
        yield from chain([first], stream)


def _metric_of(file, task: str) -> str:
    """The usual metric of the task, or the first of `METRICS`, or what the lines list."""
    for line in _lines(file):
        try:
            row = json.loads(line)
            names = [name for name in (*row.get("metrics", ()), *METRICS) if name in row]
            return min(names, key=lambda name: (rank_in(task, name), name))
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    raise Unreadable("has no line that names a metric")
