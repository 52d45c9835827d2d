"""Which answers to collect next, as lm-eval's ``--samples`` takes them, and what they should bring.

The loop in Python, for any harness that can be asked question by question::

    new = forecaster.fold_in(parents=parents)
    while half_width(new) > 0.02:
        new = new.update({item: ask(item) for item in new.next_items(10)})
"""

import csv
import json

import numpy as np

from ..data.response_kinds import PROPORTIONS
from .answers import AnswersError, Questions
from .ask import aligned

BUDGET = 50  # answers, where nothing is asked for


def half_width(new, level=0.9):
    """Half the width of the mean score's interval, as a fraction."""
    _, lower, upper = new.mean_score(level=level)
    return (upper - lower) / 2


def choose(new, *, budget=None, precision=None, benchmarks=None, cost=None):
    """Ids of the items to ask next.

    Parameters
    ----------
    new : NewModel
    budget : int, optional
        Answers, or with costs what they may cost together; 50 by default.
    precision : float, optional
        Half-width of the mean score's 90% interval, as a fraction, that they should lead to.
    benchmarks : list of str, optional
    cost : mapping, optional, as in `NewModel.next_items`
    """
    if precision is not None:
        return new.items_until(precision, most=budget, cost=cost)
    return new.next_items(budget or BUDGET, benchmarks=benchmarks, cost=cost)


def read_costs(path):
    """Costs by item_id, or by task or benchmark, from a CSV.

    Raises
    ------
    AnswersError
        If a line is no cost.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            keys = {"item_id", "task"} & set(reader.fieldnames or ())
            if len(keys) != 1 or "cost" not in reader.fieldnames:
                raise AnswersError(f"{path}: needs a first line item_id,cost or task,cost")
            key, costs = keys.pop(), {}
            for row in reader:
                try:
                    costs[row[key]] = float(row["cost"])
                except (TypeError, ValueError):
                    costs[row[key]] = np.nan
                if not costs[row[key]] > 0:
                    raise AnswersError(
                        f"{path}, line {reader.line_num}: the cost of {row[key]} must be a number "
                        f"above 0, got {row['cost']!r}"
                    )
    except OSError as error:
        raise AnswersError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise AnswersError(f"{path}: is no text file, item_id,cost or task,cost") from error
    return costs


def costs_of(costs, new, questions):
    """Costs by item_id or benchmark, where they were given by lm-eval's tasks."""
    known = new.forecasts.columns_.keys() | set(new.forecasts.scores_.names)
    if not costs or costs.keys() <= known:
        return costs or None
    by_task = {}
    for item, (task, _) in questions.places.items():
        by_task.setdefault(task, []).append(item)
    spread = {}
    for name, cost in costs.items():
        if name not in known and name not in by_task:
            raise ValueError(
                f"cost of {name!r}: neither an item, a task nor a benchmark of the fit"
            )
        spread |= dict.fromkeys([name] if name in known else by_task[name], cost)
    return spread


def expected(new, item_ids):
    """What the answers should bring: the scores' intervals before, and their widths after.

    Returns
    -------
    list of dict : benchmark, n (answers to collect), score, lower, upper, and half_width, that of
        the 90% interval before and after; the last one is the mean score
    """
    fit, frame = new.forecasts, new.scores()
    columns = [fit.columns_[item] for item in item_ids]
    before, after = new._joint().covariance(), new.expected_covariance(columns)
    share = np.sqrt(np.maximum(np.diag(after), 0) / np.maximum(np.diag(before), 1e-12))
    rows = [
        {"benchmark": row.benchmark, "n": int((fit.scores_.weights[columns, number] > 0).sum()),
         "score": row.score, "lower": row.lower, "upper": row.upper,
         "half_width": [half, half * min(1.0, share[number])]}
        for number, row in enumerate(frame.itertuples()) for half in [(row.upper - row.lower) / 2]
    ]  # fmt: skip
    mean, lower, upper = new.mean_score()
    half = [(upper - lower) / 2, new.half_width_after(after)]
    rows.append({"benchmark": "average", "n": len(columns), "score": mean, "lower": lower,
                 "upper": upper, "half_width": half})  # fmt: skip
    return rows


def as_text(new, item_ids, questions: Questions):
    """The plan to read: answers by benchmark and the intervals before and after, in points."""
    if not item_ids:
        return "Nothing is left to ask: the scores are as certain as they can be."
    if new.forecasts.kind_ is PROPORTIONS:
        return _order_of_benchmarks(new, item_ids)
    rows = expected(new, item_ids)
    heads = ["benchmark", "forecast", "90% now", "90% then", "answers"]
    lines = [
        [row["benchmark"], f"{100 * row['score']:.1f}",
         *(f"± {100 * half:.1f}" for half in row["half_width"]), str(row["n"])]
        for row in rows if row["n"] or row["benchmark"] == "average" or len(rows) < 20
    ]  # fmt: skip
    tasks = [[task, _listed(numbers)] for task, numbers in questions.samples(item_ids).items()]
    return "\n".join([
        f"The {len(item_ids)} answers that say most about the scores (in points), with what is "
        "known now:", "", *aligned([heads, *lines]),
        "", *aligned([["task", "questions"], *tasks], n_left=2),
    ])  # fmt: skip


def _order_of_benchmarks(new, item_ids):
    columns = [new.forecasts.columns_[item] for item in item_ids]
    lines = [["benchmark", "average score then"]]
    for n, item in enumerate(item_ids, start=1):
        half = new.half_width_after(new.expected_covariance(columns[:n]))
        lines.append([str(item), f"± {100 * half:.1f}"])
    return "\n".join([
        "Benchmarks to run, those first that say most about the scores (in points); the average "
        f"is known to ± {100 * half_width(new):.1f} now:", "", *aligned(lines),
    ])  # fmt: skip


def _listed(numbers, most=12):
    rest = len(numbers) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {rest} more" if rest > 0 else "")


def as_samples(new, item_ids, questions: Questions):
    """Text of a file for lm-eval's ``--samples``; of benchmarks as items a list in their order."""
    if new.forecasts.kind_ is PROPORTIONS:
        return json.dumps([str(item) for item in item_ids], indent=1) + "\n"
    return json.dumps(questions.samples(item_ids)) + "\n"
