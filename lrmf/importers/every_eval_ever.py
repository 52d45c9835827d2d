"""Every Eval Ever: one JSON file an evaluation, and JSON Lines of single answers.

Source: ``eval.schema.json`` and ``instance_level_eval.schema.json`` of the package
``every-eval-ever`` 0.3.0 (arXiv 2606.14516).
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from ..data.benchmarks import LOWER_IS_BETTER
from ..data.metadata import mapping, number, text
from ..data.schema import is_id, is_text
from .results import Results, Unreadable, known_id, load_json

LICENSE = ""  # that of each evaluation's source
CITATION = "Every Eval Ever (2026), arXiv:2606.14516"
NOTE = "Evaluations in the schema of Every Eval Ever."
# Names of means, after the name of the benchmark; or that name alone.
_MEANS = {"average", "overall", "mean", "meanscore", "meanwinrate", "averagescore", "macroaverage"}
_MEANS |= {""}
_SIZES = {"num_parameters": 1, "params_billions": 1e9, "size_billions_parameters": 1e9}
_KEYS = ("evaluation_result_id", "evaluation_name")  # by which answers may find their row


def read(files: Iterable, results: Results) -> None:
    """Read aggregates (.json) first: they name the metrics of the single answers (.jsonl)."""
    answers, metrics = [], defaultdict(set)
    for file in files:
        with results.reading(file):
            if file.name.endswith(".jsonl"):
                answers.append(file)
            elif file.name.endswith(".json"):
                _read_scores(file, metrics, results)
            else:
                raise Unreadable("is neither .json nor .jsonl")
    for file in answers:
        with results.reading(file):
            _read_answers(file, metrics, results)


def _read_scores(file, metrics: dict, results: Results) -> None:
    content = load_json(file)
    rows, info = content.get("evaluation_results"), mapping(content, "model_info")
    if not isinstance(rows, list) or not info or not is_text(whole := content.get("evaluation_id")):
        raise Unreadable("is no evaluation: it lacks evaluation_results, model_info or its id")
    model_id, time = known_id(info.get("id")), _time(whole)
    results.add_model(model_id, order=time, **_facts(mapping(info, "additional_details")))
    results.versions.add(text(content.get("schema_version")) or "unknown")
    benchmark = whole.partition("/")[0]  # benchmark/model/time
    rows = [mapping({"": row}, "") for row in rows]
    named = [_named(row) for row in rows]
    several = len({str(name) for name, _ in named}) > 1
    for row, (name, variant) in zip(rows, named, strict=True):
        for key in filter(is_text, map(row.get, _KEYS)):
            metrics[whole, key].add((name, variant))
        try:
            if several and _plain(name).removeprefix(_plain(benchmark)) in _MEANS:
                raise Unreadable("the mean of the other rows")
            value = _proportion(row, mapping(row, "metric_config"), variant.partition(":")[0])
            if named.count((name, variant)) > 1:
                raise Unreadable("several rows of one metric, which nothing tells apart")
            n_trials = mapping(mapping(row, "score_details"), "uncertainty").get("num_samples")
            options = {"n_trials": n_trials, "variant": variant, "order": time}
            results.add(file, model_id, (benchmark, name), value, **options)
        except (Unreadable, TypeError) as error:
            results.leave_out(file, f"{name}: {error}")


def _facts(details: dict) -> dict:
    """Size, precision and architecture of a model; numbers may be written as texts."""
    facts = {name: text(details.get(name)) for name in ("precision", "architecture")}
    facts = {name: value for name, value in facts.items() if str(value).lower() != "unknown"}
    for name, unit in _SIZES.items():
        if re.fullmatch(r"[0-9]{1,20}(\.[0-9]+)?", size := str(details.get(name))):
            facts["n_parameters"] = float(size) * unit
    return facts


def _named(row: dict) -> tuple[str, str]:
    """Name of an evaluation and its metric, with filter (lm-eval) or split (HELM) after a colon."""
    config, name = mapping(row, "metric_config"), row.get("evaluation_name")
    stated = map(config.get, ("metric_id", "metric_name", "evaluation_description"))
    metric = re.sub(r" \(filter: (.+)\)$", r":\1", next(filter(is_id, stated), ""))
    # Elsewhere the id of a result may also hold the model or the run.
    result = str(row.get("evaluation_result_id"))
    metric = result if metric and result.startswith(f"{metric}:") else metric
    _, colon, filtered = metric.partition(":")
    return name.removesuffix(f"/{filtered}") if colon and is_text(name) else name, metric


def _proportion(row: dict, metric: dict, name: str) -> float:
    """The score on a scale from 0 (worst) to 1 (best); raises Unreadable where that is unknown."""
    score = number(mapping(row, "score_details").get("score"))
    low, high = number(metric.get("min_score")), number(metric.get("max_score"))
    if metric.get("score_type") == "binary":
        low, high = 0, 1
    elif {low, high} & {None}:
        unit = {"proportion": (0, 1), "percent": (0, 100)}.get(metric.get("metric_unit"))
        low, high = unit or (None, None)
    if score is None or (metric.get("has_unknown_level") and score == -1):
        raise Unreadable("the score is not known")
    falls = metric.get("lower_is_better")
    if falls or (falls is None and name in LOWER_IS_BETTER):
        raise Unreadable("lower is better")
    if low is None or high is None or not low < high:
        raise Unreadable("the scale has no bounds")
    return (score - low) / (high - low)


def _read_answers(file, metrics: dict, results: Results) -> None:
    """Answers by evaluation and question; of several lines of a question the first counts."""
    runs, n_unusable = defaultdict(lambda: defaultdict(dict)), 0
    with file.open("rb") as stream:
        for line in filter(bytes.strip, stream):
            try:
                row = json.loads(line)
                known, whole = row["evaluation"]["is_correct"], row["evaluation_id"]
                result, name = map(row.get, _KEYS)
                found = metrics.get((whole, result)) or metrics.get((whole, name)) or {(name, "")}
                # Of several metrics of a name it is not said which one decides on its answers.
                name, metric = min(found)
                key = (known_id(row["model_id"]), whole, name, metric if len(found) == 1 else "")
                question = f"{name}/{row['sample_id'] or ''}"
                if not isinstance(known, bool) or not is_id(question) or question.endswith("/"):
                    raise ValueError("is_correct is neither true nor false, or no name of a sample")
                runs[key][result].setdefault(question, int(known))
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                n_unusable += 1
    if not runs:
        raise Unreadable("has no line that is an answer of a model to a sample")
    if n_unusable:
        results.leave_out(file, f"{n_unusable} lines: no answer of a model to a sample")
    for (model_id, whole, name, metric), by_result in runs.items():
        options = {"variant": metric, "order": _time(whole)}
        with results.reading(file):
            if len(by_result) > 1:
                raise Unreadable(f"{name}: by several metrics; import the evaluation's .json, too")
            (answers,) = by_result.values()
            task = (str(whole).partition("/")[0], name)
            results.add(file, model_id, task, answers, **options)


def _time(evaluation_id: object) -> tuple[float, str]:
    last = str(evaluation_id).rpartition("/")[2]
    return (float(last) if re.fullmatch(r"\d+(\.\d+)?", last) else 0.0, str(evaluation_id))


def _plain(text: object) -> str:
    return re.sub(r"\W|_", "", str(text)).casefold()
