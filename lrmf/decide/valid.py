r"""Intervals that hold whatever the forecast is worth: answers drawn with known probabilities.

Each item i enters the sample on its own with probability pi_i (Poisson sampling), which is larger
where its answer is less certain, and the forecast p_i stands in for the rest. With w_i the item's
share in a score,

    estimate = sum_i w_i p_i + sum_{i drawn} w_i (z_i - p_i) / pi_i

is unbiased for any p: the difference (or AIPW, prediction-powered) estimator of a finite
population. Its variance, sum_i w_i^2 (1 - pi_i) / pi_i (z_i - p_i)^2, is estimated from the draw in
the same way, and the quantile is Student's t with as many degrees of freedom as that estimate has.

Source: Cassel, Saerndal and Wretman (1976), "Some results on generalized difference estimation";
Angelopoulos et al. (2023), "Prediction-powered inference"; FAQ (2601.20251).
"""

import numpy as np
import pandas as pd

from ..data.response_kinds import PROPORTIONS
from ..data.responses import observed
from .answers import AnswersError
from .ask import aligned

LEVEL = 0.95
_EVEN = 0.3  # share of the probabilities that does not depend on the forecast
_LEAST_DRAWN = 8  # answers behind an interval
COLUMNS = ("item_id", "probability", "forecast")


def probabilities(uncertainty, budget):
    """Probabilities that add up to the budget, in proportion to the uncertainty, none above 1.

    Parameters
    ----------
    uncertainty : (n_items,), not negative
    budget : float, the expected number of items
    """
    size = (1 - _EVEN) * uncertainty / max(uncertainty.sum(), 1e-12) + _EVEN / len(uncertainty)
    size, certain = size / size.sum(), np.zeros(len(size), bool)
    # Items that would be drawn more than once are taken for sure, and the rest share what is left.
    for _ in range(len(size)):
        rest = max(budget - certain.sum(), 0) / max(size[~certain].sum(), 1e-12)
        above = ~certain & (size * rest >= 1)
        if not above.any():
            break
        certain |= above
    return np.where(certain, 1.0, np.minimum(size * rest, 1.0))


def draw(new, budget, *, seed=0):
    """Draw items of a new model to be answered.

    Returns
    -------
    DataFrame : item_id, probability, forecast, of the drawn items

    Raises
    ------
    ValueError
        If the fit has scores only, or the model has answers that were not drawn.
    """
    fit = new.forecasts
    if fit.kind_ is PROPORTIONS:
        raise ValueError("--valid draws single questions, and this fit has scores of benchmarks")
    if observed(new.answers).any():
        raise ValueError("--valid draws before any answer is known; leave --answers out")
    forecast = new.predict_proba().astype(float)
    # Every benchmark's score matters the same: items count by their share in it.
    weight = (fit.scores_.weights / fit.scores_.weights.sum(axis=0)).sum(axis=1)
    chance = probabilities(weight * np.sqrt(forecast * (1 - forecast)), budget)
    drawn = np.random.default_rng([seed, 7]).random(len(chance)) < chance
    return pd.DataFrame(
        {
            "item_id": np.array(fit.item_ids_, dtype=object)[drawn],
            "probability": chance[drawn],
            "forecast": forecast[drawn],
        }
    )


def estimate(forecast_score, weights, forecast, chance, answers, *, level=LEVEL):
    """Estimates and intervals of scores from a draw.

    Parameters
    ----------
    forecast_score : (n_scores,), sum_i w_i p_i over all items
    weights : (n_drawn, n_scores), w of the drawn items
    forecast, chance, answers : (n_drawn,), p, pi and z
    level : float

    Returns
    -------
    score, lower, upper : (n_scores,); NaN bounds for a score with hardly any answer
    """
    from scipy.stats import t as student

    error = weights * (answers - forecast)[:, None] / chance[:, None]
    score = forecast_score + error.sum(axis=0)
    squares = (1 - chance)[:, None] * error**2
    variance = squares.sum(axis=0)
    # Degrees of freedom, after Satterthwaite: squares of n normal errors have E (sum)^2 / sum of
    # squares = n / 3.
    freedom = 3 * variance**2 / np.maximum((squares**2).sum(axis=0), 1e-300)
    n_drawn = ((weights > 0) & (chance < 1)[:, None]).sum(axis=0)
    half = student.ppf(0.5 + level / 2, np.maximum(freedom, 2)) * np.sqrt(variance)
    half[n_drawn < _LEAST_DRAWN] = np.nan
    return score, np.maximum(score - half, 0), np.minimum(score + half, 1)


def intervals(drawn, new, *, level=LEVEL):
    """Valid intervals of all benchmarks and their mean from a draw and its answers.

    Parameters
    ----------
    drawn : DataFrame from `draw`; every item of it has its answer in `new`
    new : NewModel, with the answers
    level : float

    Returns
    -------
    DataFrame : benchmark, score, lower, upper, n_drawn; the last row is the mean of all
    """
    fit = new.forecasts
    columns = np.array([fit.columns_[item] for item in drawn["item_id"]], int)
    answers = new.answers[columns]
    if missing := drawn["item_id"][~observed(answers)].tolist():
        raise ValueError(f"{len(missing)} of {len(drawn)} drawn items have no answer: "
                         f"{', '.join(missing[:3])}; intervals hold if all of them do")  # fmt: skip
    before = new.before.predict_proba().astype(float)
    weights = fit.scores_.weights / fit.scores_.weights.sum(axis=0)
    weights = np.column_stack([weights, weights.mean(axis=1)])
    numbers = drawn[["forecast", "probability"]].to_numpy(float).T
    found = estimate(before @ weights, weights[columns], *numbers, answers, level=level)
    frame = pd.DataFrame(dict(zip(("score", "lower", "upper"), found, strict=True)))
    frame.insert(0, "benchmark", [*fit.scores_.names, "average"])
    return frame.assign(n_drawn=(weights[columns] > 0).sum(axis=0))


def read_draw(path, new):
    """A draw that was kept; AnswersError if it is none, or one of another model or fit."""
    try:
        drawn = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no CSV file"
        raise AnswersError(f"{path}: {reason}; give a <out>.draw.csv of next --valid") from error
    if not set(COLUMNS) <= set(drawn):
        raise AnswersError(f"{path}: lacks {', '.join(sorted(set(COLUMNS) - set(drawn)))}; give a "
                           "<out>.draw.csv of next --valid")  # fmt: skip
    if unknown := [item for item in drawn["item_id"] if item not in new.forecasts.columns_]:
        raise AnswersError(f"{path}: {unknown[0]} is not an item of the fit")
    columns = [new.forecasts.columns_[item] for item in drawn["item_id"]]
    if not np.allclose(new.before.predict_proba()[columns], drawn["forecast"], atol=1e-4):
        raise AnswersError(f"{path}: was drawn for another model or fit; give the same --parents, "
                           "--name and --size")  # fmt: skip
    return drawn


def as_text(drawn, new):
    """Valid intervals beside the forecast's, to read; in points."""
    rows = intervals(drawn, new).to_dict("records")
    frame = new.scores(level=LEVEL).to_dict("records")
    mean = dict(zip(("score", "lower", "upper"), new.mean_score(level=LEVEL), strict=True))
    lines = [["benchmark", "estimate", "valid 95% interval", "answers", "forecast", "95% interval"]]
    for row, own in zip(rows, [*frame, mean], strict=True):
        valid = "too few answers" if np.isnan(row["lower"]) else _range(row)
        score = f"{100 * np.clip(row['score'], 0, 1):.1f}"  # unbiased, and so not always within
        lines.append([row["benchmark"], score, valid, str(row["n_drawn"]),
                      f"{100 * own['score']:.1f}", _range(own)])  # fmt: skip
    return "\n".join([
        "Valid intervals hold for 95% of draws whether or not the forecast is right (in points):",
        "", *aligned(lines),
    ])  # fmt: skip


def _range(row):
    return f"{100 * row['lower']:.1f} to {100 * row['upper']:.1f}"
