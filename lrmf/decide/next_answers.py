"""Which answers to collect next, for lm-eval's ``--samples``, and their expected effect.

The loop in Python, for any harness that runs single questions::

    new = forecaster.fold_in(parents=parents)
    while half_width(new) > 0.02:
        new = new.update({item: ask(item) for item in new.next_items(10)})
"""

import csv
import json

import numpy as np

from ..data.describe import aligned
from ..data.response_kinds import PROPORTIONS
from .answers import AnswersError, Questions

BUDGET = 50  # number of answers by default


def half_width(new, level=0.9):
    """Half-width of the mean score's interval, as a fraction.

    Parameters
    ----------
    new : NewModel
    level : float, nominal coverage
    """
    _, lower, upper = new.mean_score(level=level)
    return (upper - lower) / 2


def choose(new, *, budget=None, precision=None, benchmarks=None, cost=None):
    """Ids of the items to ask next.

    Parameters
    ----------
    new : NewModel
    budget : int, optional
        Maximum number of answers, or their maximum total cost; 50 by default.
    precision : float, optional
        Half-width of the mean score's 90% interval, as a fraction, to be reached.
    benchmarks, cost : optional, as in `NewModel.next_items`

    Returns
    -------
    list of item_id
    """
    if precision is not None:
        return new.items_until(precision, most=budget, cost=cost)
    return new.next_items(budget or BUDGET, benchmarks=benchmarks, cost=cost)


def read_costs(path):
    """Read costs from a CSV ``item_id,cost`` or ``task,cost``.

    Returns
    -------
    dict of item_id, task or benchmark to cost

    Raises
    ------
    AnswersError
        If the file cannot be read, or a cost is not a number above 0.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            keys = {"item_id", "task"} & set(reader.fieldnames or ())
            if len(keys) != 1 or "cost" not in reader.fieldnames:
                raise AnswersError(f"{path}: the first line must be item_id,cost or task,cost")
            key, costs = keys.pop(), {}
            for row in reader:
                name = (row[key] or "").strip()
                try:
                    cost = float(row["cost"])
                except (TypeError, ValueError):
                    cost = np.nan
                if not cost > 0:
                    raise AnswersError(
                        f"{path}, line {reader.line_num}: the cost of {name} must be a number "
                        f"above 0, got {row['cost']!r}"
                    )
                if costs.setdefault(name, cost) != cost:
                    raise AnswersError(
                        f"{path}, line {reader.line_num}: {name} has two different costs"
                    )
    except OSError as error:
        raise AnswersError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnswersError(f"{path}: is not a text file of item_id,cost or task,cost") from error
    return costs


def costs_of(costs, new, questions):
    """Costs by item_id or benchmark, from costs that may be by tasks of lm-eval.

    Parameters
    ----------
    costs : dict from `read_costs`, or None
    new : NewModel
    questions : Questions

    Raises
    ------
    ValueError
        If a name is not an item, a task or a benchmark of the fit.
    """
    known = new.forecasts.columns_.keys() | set(new.forecasts.scores_.names)
    if not costs or costs.keys() <= known:
        return costs or None
    by_task = {}
    for item, (task, _) in questions.places.items():
        by_task.setdefault(task, []).append(item)
    # The cost of a task is that of each of its items.
    by_item = {}
    for name, cost in costs.items():
        if name not in known and name not in by_task:
            raise ValueError(
                f"cost of {name!r}: neither an item, a task nor a benchmark of the fit"
            )
        by_item |= dict.fromkeys([name] if name in known else by_task[name], cost)
    return by_item


def expected(new, item_ids):
    """Intervals of the scores now, and their expected half-widths with these answers.

    Parameters
    ----------
    new : NewModel
    item_ids : list

    Returns
    -------
    list of dict : benchmark, n (answers to collect), score, lower, upper, half_width (of the 90%
        interval, before and after); the last row is the mean score, if of several benchmarks
    """
    # Ratio of the scores' standard deviations after and before.
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
    if len(rows) == 1:
        return rows
    mean, lower, upper = new.mean_score()
    half = [(upper - lower) / 2, new.half_width_after(after)]
    rows.append({"benchmark": "average", "n": len(columns), "score": mean, "lower": lower,
                 "upper": upper, "half_width": half})  # fmt: skip
    return rows


def as_text(new, item_ids, questions: Questions, *, is_drawn=False):
    """The plan as text: answers by benchmark, and half-widths before and after, in points.

    Parameters
    ----------
    new : NewModel
    item_ids : list
    questions : Questions
    is_drawn : bool, whether the items were drawn at random rather than chosen
    """
    if not item_ids and is_drawn:
        return "Nothing was drawn, as happens by chance with few answers; raise --budget."
    if not item_ids:
        return (
            f"Nothing to ask: the average is known to ± {100 * half_width(new):.1f} points, and no "
            "answer is needed, left, or within the budget that would say more."
        )
    if new.forecasts.kind_ is PROPORTIONS:
        return _order_of_benchmarks(new, item_ids)
    rows = expected(new, item_ids)
    heads = ["benchmark", "forecast", "90% now", "90% then", "answers"]
    lines = [
        [row["benchmark"], f"{100 * row['score']:.1f}",
         *(f"± {100 * half:.1f}" for half in row["half_width"]), str(row["n"])]
        for row in rows if row["n"] or row["benchmark"] == "average" or len(rows) < 20
    ]  # fmt: skip
    tasks = [[task, _listed(numbers)] for task, numbers in questions.by_task(item_ids).items()]
    title = (
        f"{len(item_ids)} answers, drawn at random (their number, too, is random)" if is_drawn
        else f"The {len(item_ids)} answers that say most about the scores"
    )  # fmt: skip
    return "\n".join([
        f"{title}, in points, with what is known now:", "", *aligned([heads, *lines]),
        "", *aligned([["task", "questions"], *tasks], n_left=2),
    ])  # fmt: skip


def _order_of_benchmarks(new, item_ids):
    """Text of the order in which to run benchmarks, if items are benchmarks."""
    columns = [new.forecasts.columns_[item] for item in item_ids]
    lines = [["benchmark", "average score then"]]
    for n, item in enumerate(item_ids, start=1):
        half = new.half_width_after(new.expected_covariance(columns[:n]))
        lines.append([str(item), f"± {100 * half:.1f}"])
    return "\n".join([
        "Benchmarks to run, those first that say most about the scores (in points); the average "
        f"is known to ± {100 * half_width(new):.1f} now:", "", *aligned(lines),
    ])  # fmt: skip


def _listed(numbers):
    """The first twelve numbers, and how many more there are."""
    rest = len(numbers) - 12
    return ", ".join(map(str, numbers[:12])) + (f" and {rest} more" if rest > 0 else "")


def as_samples(new, item_ids, questions: Questions):
    """Text of a file for lm-eval's ``--samples``, or a list in order if items are benchmarks."""
    if new.forecasts.kind_ is PROPORTIONS:
        return json.dumps([str(item) for item in item_ids], indent=1) + "\n"
    return json.dumps(questions.samples(item_ids)) + "\n"


def how_to_run(new, out):
    """What to do with the file of `as_samples`, as text."""
    if new.forecasts.kind_ is PROPORTIONS:
        return "run these benchmarks in this order; then --score or --answers with what came out"
    return f"lm_eval ... --log_samples --samples {out}; then --answers with its output folder"
