r"""Intervals that are valid whether or not the forecast is right, from a probability sample.

Each item i is drawn independently with probability pi_i (Poisson sampling), which is larger where
its answer is less certain. The forecast p_i replaces the other answers. With w_i the share of the
item in a score,

    estimate = sum_i w_i p_i + sum_{i drawn} w_i (z_i - p_i) / pi_i

is unbiased for any p. It is the difference (or AIPW, prediction-powered) estimator of a finite
population. Its variance, sum_i w_i^2 (1 - pi_i) / pi_i (z_i - p_i)^2, is estimated from the draw in
the same way. The quantile is that of Student's t with the degrees of freedom of this estimate
(Satterthwaite, 1946).

Source: Cassel, Saerndal and Wretman (1976), "Some results on generalized difference estimation";
Angelopoulos et al. (2023), "Prediction-powered inference"; FAQ (2601.20251).
"""

import numpy as np
import pandas as pd

from ..data.describe import aligned
from ..data.response_kinds import PROPORTIONS
from ..data.responses import observed
from .answers import AnswersError

LEVEL = 0.95
_UNIFORM_SHARE = 0.3  # share of the probabilities that is equal for all items
_MIN_DRAWN = 8  # minimum number of answers for an interval
COLUMNS = ("item_id", "probability", "forecast")


def probabilities(uncertainty, budget):
    """Inclusion probabilities that sum to the budget, proportional to the uncertainty, at most 1.

    A share of 0.3 is equal for all items.

    Parameters
    ----------
    uncertainty : (n_items,), not negative
    budget : float, the expected number of items

    Returns
    -------
    (n_items,)
    """
    size = (1 - _UNIFORM_SHARE) * uncertainty / max(
        uncertainty.sum(), 1e-12
    ) + _UNIFORM_SHARE / len(uncertainty)
    size, certain = size / size.sum(), np.zeros(len(size), bool)
    # Items whose probability would exceed 1 are certain; the others share the remaining budget.
    for _ in range(len(size)):
        rest = max(budget - certain.sum(), 0) / max(size[~certain].sum(), 1e-12)
        above = ~certain & (size * rest >= 1)
        if not above.any():
            break
        certain |= above
    return np.where(certain, 1.0, np.minimum(size * rest, 1.0))


def draw(new, budget, *, seed=0):
    """Draw items of a new model to be answered.

    Parameters
    ----------
    new : NewModel, without answers and known scores
    budget : float, expected number of items
    seed : int

    Returns
    -------
    DataFrame : item_id, probability, forecast, of the drawn items

    Raises
    ------
    ValueError
        If the fit has scores of benchmarks only, or the model has answers or scores already.
    """
    fit = new.forecasts
    if fit.kind_ is PROPORTIONS:
        raise ValueError("--valid draws single questions, and this fit has scores of benchmarks")
    if observed(new.answers).any() or new.known_scores:
        raise ValueError(
            "--valid draws before any answer or score is known; leave --answers and --score out"
        )
    forecast = new.predict_proba().astype(float)
    # Uncertainty w_i sqrt(p_i (1 - p_i)), with w_i the sum of the item's shares in all scores.
    weight = (fit.scores_.weights / fit.scores_.weights.sum(axis=0)).sum(axis=1)
    probability = probabilities(weight * np.sqrt(forecast * (1 - forecast)), budget)
    drawn = np.random.default_rng([seed, 7]).random(len(probability)) < probability
    return pd.DataFrame(
        {
            "item_id": np.array(fit.item_ids_, dtype=object)[drawn],
            "probability": probability[drawn],
            "forecast": forecast[drawn],
        }
    )


def estimate(forecast_score, weights, forecast, chance, answers, *, level=LEVEL):
    """Estimates and intervals of scores from a draw, as in the docstring of the module.

    Parameters
    ----------
    forecast_score : (n_scores,), sum_i w_i p_i over all items
    weights : (n_drawn, n_scores), w of the drawn items
    forecast, chance, answers : (n_drawn,), p, pi and z
    level : float

    Returns
    -------
    score, lower, upper : (n_scores,)
        Bounds are NaN for a score with fewer than 8 drawn items.
    """
    from scipy.stats import t as student

    # Estimate sum w p + sum w (z - p) / pi, and its variance sum (1 - pi) (w (z - p) / pi)^2.
    error = weights * (answers - forecast)[:, None] / chance[:, None]
    score = forecast_score + error.sum(axis=0)
    squares = (1 - chance)[:, None] * error**2
    variance = squares.sum(axis=0)
    # Degrees of freedom (Satterthwaite): for the squares q of n normal errors,
    # E (sum q)^2 / E sum q^2 is about n / 3.
    freedom = 3 * variance**2 / np.maximum((squares**2).sum(axis=0), 1e-300)
    n_drawn = ((weights > 0) & (chance < 1)[:, None]).sum(axis=0)
    half = student.ppf(0.5 + level / 2, np.maximum(freedom, 2)) * np.sqrt(variance)
    half[n_drawn < _MIN_DRAWN] = np.nan
    return score, np.maximum(score - half, 0), np.minimum(score + half, 1)


def intervals(drawn, new, *, level=LEVEL):
    """Valid intervals of all benchmarks and their mean, from a draw and its answers.

    Parameters
    ----------
    drawn : DataFrame from `draw`, all of whose items have answers in `new`
    new : NewModel, with the answers
    level : float

    Returns
    -------
    DataFrame : benchmark, score, lower, upper, n_drawn; the last row is the mean, if of several
        A score all of whose items are drawn is exact: lower and upper equal it.

    Raises
    ------
    ValueError
        If a drawn item has no answer.
    """
    fit = new.forecasts
    columns = np.array([fit.columns_[item] for item in drawn["item_id"]], int)
    answers = new.answers[columns]
    if missing := drawn["item_id"][~observed(answers)].tolist():
        raise ValueError(f"{len(missing)} of {len(drawn)} drawn items have no answer: "
                         f"{', '.join(missing[:3])}; intervals need all of them")  # fmt: skip
    # The forecast before any answer, and the shares of the items in all scores and their mean.
    before = new.before.predict_proba().astype(float)
    weights = fit.scores_.weights / fit.scores_.weights.sum(axis=0)
    names = list(fit.scores_.names)
    if len(names) > 1:
        names.append("average")
        weights = np.column_stack([weights, weights.mean(axis=1)])
    numbers = drawn[["forecast", "probability"]].to_numpy(float).T
    estimates = estimate(before @ weights, weights[columns], *numbers, answers, level=level)
    # A score all of whose items are drawn is known: estimate and bounds are the score itself.
    is_known = (weights[columns] > 0).sum(axis=0) == (weights > 0).sum(axis=0)
    estimates = np.where(is_known, answers @ weights[columns], estimates)
    frame = pd.DataFrame(dict(zip(("score", "lower", "upper"), estimates, strict=True)))
    frame.insert(0, "benchmark", names)
    return frame.assign(n_drawn=(weights[columns] > 0).sum(axis=0))


def read_draw(path, new):
    """Read a draw from a CSV of `draw`.

    Parameters
    ----------
    path : path
    new : NewModel, the model that it was drawn for

    Raises
    ------
    AnswersError
        If the file cannot be read, holds no draw or values that no draw has, or is a draw for
        another model or fit.
    """
    try:
        drawn = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not a CSV file"
        raise AnswersError(f"{path}: {reason}; give a <out>.draw.csv of next --valid") from error
    if not set(COLUMNS) <= set(drawn):
        raise AnswersError(f"{path}: lacks {', '.join(sorted(set(COLUMNS) - set(drawn)))}; give a "
                           "<out>.draw.csv of next --valid")  # fmt: skip
    if unknown := [item for item in drawn["item_id"] if item not in new.forecasts.columns_]:
        raise AnswersError(f"{path}: {unknown[0]} is not an item of the fit")
    _check_draw(path, drawn)
    columns = [new.forecasts.columns_[item] for item in drawn["item_id"]]
    # The forecasts of the draw identify model and fit.
    if not np.allclose(new.before.predict_proba()[columns], drawn["forecast"], atol=1e-4):
        raise AnswersError(f"{path}: was drawn for another model or fit; give the same --parents, "
                           "--name and --size")  # fmt: skip
    return drawn


def _check_draw(path, drawn):
    """AnswersError for a draw without rows, with repeated items or with impossible numbers."""
    if drawn.empty:
        raise AnswersError(f"{path}: has no rows, as nothing was drawn; draw anew with a larger "
                           "--budget")  # fmt: skip
    if (repeated := drawn["item_id"].duplicated()).any():
        raise AnswersError(f"{path}: {drawn['item_id'][repeated].iloc[0]} appears more than once; "
                           "keep one row of each item")  # fmt: skip
    # Texts become NaN, which is in no range.
    probability, forecast = (
        pd.to_numeric(drawn[name], errors="coerce") for name in ("probability", "forecast")
    )
    is_legal = probability.gt(0) & probability.le(1) & forecast.between(0, 1)
    if not is_legal.all():
        item = drawn["item_id"][~is_legal].iloc[0]
        raise AnswersError(f"{path}: {item} needs a probability in (0, 1] and a forecast in "
                           "[0, 1]; give the file as next --valid wrote it")  # fmt: skip


def as_text(drawn, new):
    """Valid intervals and those of the forecast as text, in points."""
    rows = intervals(drawn, new).to_dict("records")
    frame = new.scores(level=LEVEL).to_dict("records")
    if len(rows) > 1:
        mean = new.mean_score(level=LEVEL)
        frame.append(dict(zip(("score", "lower", "upper"), mean, strict=True)))
    lines = [["benchmark", "estimate", "valid 95% interval", "answers", "forecast", "95% interval"]]
    for row, own in zip(rows, frame, strict=True):
        valid = "too few answers" if np.isnan(row["lower"]) else _range(row)
        score = f"{100 * np.clip(row['score'], 0, 1):.1f}"  # unbiased, so possibly out of [0, 1]
        lines.append([row["benchmark"], score, valid, str(row["n_drawn"]),
                      f"{100 * own['score']:.1f}", _range(own)])  # fmt: skip
    return "\n".join([
        "Valid intervals hold for 95% of draws whether or not the forecast is right (in points):",
        "", *aligned(lines),
    ])  # fmt: skip


def _range(row):
    return f"{100 * row['lower']:.1f} to {100 * row['upper']:.1f}"
