"""Chosen against random answers: how well few answers forecast the scores of held-out models."""

from itertools import pairwise

import numpy as np
import pandas as pd

from ..baselines.irt import ItemResponse
from ..baselines.knn import KNN
from ..data.responses import MISSING, observed, reveal, without
from ..solver.scores import interval

NUMBERS = (5, 10, 20, 50, 100)  # of answers
CHOSEN, CHOSEN_ALONE = "chosen, with lineage", "chosen, without lineage"
RANDOM, RIDGE, NEIGHBOURS = "random, with lineage", "random, ridge regression", "random, kNN"
ADAPTIVE = "adaptive, 2PL"
STRATEGIES = (CHOSEN, CHOSEN_ALONE, RANDOM, RIDGE, NEIGHBOURS, ADAPTIVE)
_RIDGE = 30.0  # penalty on standardised answers, as good as any from 10 to 100
_LEFT = 50  # answers that a model has beyond the largest number


def chosen_answers(forecaster, responses, lineage, rows, *, models=None, numbers=NUMBERS,
                   strategies=STRATEGIES, level=0.9, seed=0):  # fmt: skip
    """Errors of the scores of held-out models after so many answers, by strategy.

    Parameters
    ----------
    forecaster : Forecaster, fitted without the answers of the rows
    responses : uint8 (n_models, n_items), the truth
    lineage : Lineage, over the same models
    rows : int (n_rows,), the held-out models; those with too few answers are left out
    models : DataFrame, optional, the models table
    numbers : sequence of int
    strategies : sequence of str, among `STRATEGIES`
    level : float, nominal coverage
    seed : int, of the random answers

    Returns
    -------
    DataFrame : strategy, n_answers, mae (of benchmark scores, points), mae_average (of each model's
        average score), r (mean over benchmarks), coverage, width (points; NaN for strategies
        without intervals), n_models
    """
    frame = forecasts(forecaster, responses, lineage, rows, models=models, numbers=numbers,
                      strategies=strategies, level=level, seed=seed)  # fmt: skip
    return summarise(frame)


def summarise(frame):
    """The rows of `chosen_answers` from those of `forecasts`."""
    rows = []
    for (strategy, n), part in frame.groupby(["strategy", "n_answers"], sort=False):
        error, by_model = part["score"] - part["actual"], part.groupby("row")
        average = by_model["score"].mean() - by_model["actual"].mean()
        inside = part["actual"].between(part["lower"], part["upper"])
        has = part["lower"].notna()
        rows.append({
            "strategy": strategy, "n_answers": n, "mae": 100 * error.abs().mean(),
            "mae_average": 100 * average.abs().mean(),
            "r": part.groupby("benchmark")[["score", "actual"]].apply(_correlation).mean(),
            "coverage": inside[has].mean() if has.any() else np.nan,
            "width": 100 * (part["upper"] - part["lower"]).mean(), "n_models": len(by_model),
        })  # fmt: skip
    return pd.DataFrame(rows)


def forecasts(forecaster, responses, lineage, rows, *, models=None, numbers=NUMBERS,
              strategies=STRATEGIES, level=0.9, seed=0):  # fmt: skip
    """Forecasts behind `chosen_answers`; arguments as there.

    Scores are over the items that the model has answered, those asked counted as observed.

    Returns
    -------
    DataFrame : strategy, n_answers, row, benchmark, score, lower, upper, actual
    """
    rows = np.asarray(rows)
    truth = np.asarray(responses[rows])
    enough = observed(truth).sum(axis=1) >= max(numbers) + _LEFT
    rows, truth = rows[enough], truth[enough]
    if not rows.size:
        raise ValueError(f"no held-out model has {max(numbers) + _LEFT} answers; use fewer")
    task = _Task(forecaster, responses, lineage, rows, truth, models, tuple(numbers), level, seed)
    return pd.concat([task.run(strategy) for strategy in strategies], ignore_index=True)


def answers_for(frame, strategy, mae):
    """Answers that a strategy needs for this error, interpolated in log n; NaN if never reached.

    Parameters
    ----------
    frame : DataFrame of `chosen_answers`
    strategy : str
    mae : float, points
    """
    own = frame[frame["strategy"] == strategy].sort_values("n_answers")
    lowest = own["mae"].cummin().to_numpy()  # the error falls with every answer, chance aside
    if mae > lowest[0] or mae < lowest[-1]:
        return np.nan
    return float(np.exp(np.interp(-mae, -lowest, np.log(own["n_answers"]))))


def _correlation(pair):
    constant = pair.nunique().min() < 2
    return np.nan if constant else np.corrcoef(pair["score"], pair["actual"])[0, 1]


class _Task:
    """One evaluation: the held-out models and all that strategies need."""

    def __init__(self, forecaster, responses, lineage, rows, truth, models, numbers, level, seed):
        self.forecaster, self.rows, self.truth = forecaster, rows, truth
        self.numbers, self.level = numbers, level
        self.scores, self.seen = forecaster.scores_, observed(truth)
        self.train = without(responses, rows)
        self.actual = self.scores.actual(truth, self.seen)
        ids = lineage.node_ids[rows]
        edges = lineage.edges[lineage.edges["child"].isin(ids)].groupby("child")
        self.parents = [
            list(edges.get_group(i)[["parent", "relation"]].itertuples(index=False, name=None))
            if i in edges.groups else [] for i in ids
        ]  # fmt: skip
        table = pd.DataFrame({"model_id": ids}) if models is None else models.iloc[rows]
        self.cards = table.to_dict("records")
        # A random order of each model's answers, the same for all strategies that draw.
        rng = np.random.default_rng([seed, 13])
        self.order = np.where(self.seen, rng.random(truth.shape), 2).argsort(axis=1)

    def run(self, strategy):
        if strategy in (CHOSEN, CHOSEN_ALONE, RANDOM):
            return self._forecaster(strategy)
        if strategy == RIDGE:
            return self._frame(strategy, {n: self._ridge(n) for n in self.numbers})
        if strategy == NEIGHBOURS:
            knn = KNN().fit(self.train, items=self.forecaster.items_)
            shown = {n: self._revealed(self.order[:, :n]) for n in self.numbers}
            found = {n: knn.predict_proba(self.rows, revealed=part) for n, part in shown.items()}
            return self._frame(strategy, {n: self._scored(found[n], shown[n]) for n in found})
        return self._frame(strategy, self._adaptive())

    def _revealed(self, items):
        is_shown = np.zeros(self.truth.shape, bool)
        np.put_along_axis(is_shown, items, True, axis=1)
        return reveal(self.truth, is_shown & self.seen)

    def _scored(self, expected, revealed):
        """Scores over the answers there are: those revealed as they are, the rest as forecast."""
        return self.scores.actual(np.where(observed(revealed), revealed, expected), self.seen)

    def _frame(self, strategy, scores, lower=None, upper=None):
        parts = []
        for n, score in scores.items():
            row, benchmark = np.nonzero(np.isfinite(self.actual))
            cells = row, benchmark
            parts.append(pd.DataFrame({
                "strategy": strategy, "n_answers": n, "row": self.rows[row],
                "benchmark": np.array(self.scores.names, dtype=object)[benchmark],
                "score": score[cells],
                "lower": lower[n][cells] if lower else np.nan,
                "upper": upper[n][cells] if upper else np.nan,
                "actual": self.actual[cells],
            }))  # fmt: skip
        return pd.concat(parts)

    def _forecaster(self, strategy):
        bounds = {n: np.empty((3, *self.actual.shape)) for n in self.numbers}
        for place, (parents, card) in enumerate(zip(self.parents, self.cards, strict=True)):
            new = self.forecaster.fold_in(
                parents=[] if strategy == CHOSEN_ALONE else parents, card=card
            )
            for done, n in pairwise((0, *self.numbers)):
                items = self._next(new, place, done, n, strategy)
                answers = self.truth[place, items].tolist()
                ids = [self.forecaster.item_ids_[item] for item in items]
                new = new.update(dict(zip(ids, answers, strict=True)))
                bounds[n][:, place] = self._with_interval(new, place)
        return self._frame(strategy, *({n: b[i] for n, b in bounds.items()} for i in range(3)))

    def _next(self, new, place, done, n, strategy):
        if strategy == RANDOM:
            return self.order[place, done:n]
        ids = self.forecaster.item_ids_
        missing = {ids[item]: np.inf for item in np.flatnonzero(~self.seen[place])}
        chosen = new.next_items(n - done, cost=missing or None)
        return np.array([self.forecaster.columns_[item] for item in chosen], int)

    def _with_interval(self, new, place):
        """Score, lower and upper over the items that the model has answered."""
        known, deviation = observed(new.answers), new._forecast[1]
        filled = np.where(known, new.answers, new.predict_proba())
        score = self.scores.actual(filled[None], self.seen[[place]])[0]
        return np.stack([score, *interval(score, deviation, self.level)])

    def _ridge(self, n):
        """Scores by ridge regression on n random answers, one regression a model."""
        scores = np.empty_like(self.actual)
        known = self.forecaster.trained_scores_
        for place, items in enumerate(self.order[:, :n]):
            answers = self.forecaster.trained_responses_[:, items].astype(float)
            answers[answers == MISSING] = np.nan
            mean, std = np.nanmean(answers, axis=0), np.nanstd(answers, axis=0) + 0.05
            x = np.nan_to_num((answers - mean) / std)
            mine = (self.truth[place, items] - mean) / std
            for b in range(known.shape[1]):
                has = np.isfinite(known[:, b])
                centre = x[has].mean(axis=0)
                own, y = x[has] - centre, known[has, b]
                slope = np.linalg.solve(own.T @ own + _RIDGE * np.eye(n), own.T @ (y - y.mean()))
                scores[place, b] = np.clip(y.mean() + (mine - centre) @ slope, 0, 1)
        return scores

    def _adaptive(self):
        """Scores by a 2PL model for each benchmark, items of most information asked in turn."""
        weights, n_rows, most = self.scores.weights, len(self.rows), max(self.numbers)
        columns = [np.flatnonzero(weights[:, b]) for b in range(weights.shape[1])]
        fits = [ItemResponse().fit(np.ascontiguousarray(self.train[:, own])) for own in columns]
        asked, count = np.zeros((n_rows, most), int), np.zeros(n_rows, int)
        shown = np.zeros(self.truth.shape, bool)
        while (count < most).any():
            before = count.copy()
            for own, fit in zip(columns, fits, strict=True):
                revealed = reveal(self.truth[:, own], shown[:, own])
                ability = fit._states(self.rows, revealed).mean[:, :1]
                logit = fit.intercept_ + ability * fit.slope_
                # Fisher information a^2 p (1 - p) of the answers that are left.
                information = fit.slope_**2 / (2 + np.exp(logit) + np.exp(-logit))
                information[~self.seen[:, own] | shown[:, own]] = -1
                best = information.argmax(axis=1)
                able = (information.max(axis=1) >= 0) & (count < most)
                asked[able, count[able]] = own[best[able]]
                shown[able, own[best[able]]] = True
                count += able
            if (count == before).all():
                break
        scores = {}
        for n in self.numbers:
            revealed = self._revealed(asked[:, :n])
            expected = np.empty(self.truth.shape, np.float32)
            for own, fit in zip(columns, fits, strict=True):
                expected[:, own] = fit.predict_proba(self.rows, revealed=revealed[:, own])
            scores[n] = self._scored(expected, revealed)
        return scores
