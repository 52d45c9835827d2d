"""Chosen and random answers compared: errors of score forecasts for held-out models."""

from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from ..baselines.irt import ItemResponse
from ..baselines.knn import KNN
from ..data.responses import observed, reveal, without
from ..solver.scores import interval

NUMBERS = (5, 10, 20, 50, 100)  # of revealed answers
CHOSEN, CHOSEN_ALONE = "chosen, with lineage", "chosen, without lineage"
RANDOM, RIDGE, NEIGHBOURS = "random, with lineage", "random, ridge regression", "random, kNN"
ADAPTIVE = "adaptive, 2PL"
STRATEGIES = (CHOSEN, CHOSEN_ALONE, RANDOM, RIDGE, NEIGHBOURS, ADAPTIVE)
_RIDGE = 30.0  # penalty on standardised answers; values from 10 to 100 are about as good
_N_UNUSED = 50  # minimum number of answers of a model beyond the largest number revealed


def chosen_answers(forecaster, responses, lineage, rows, *, models=None, numbers=NUMBERS,
                   strategies=STRATEGIES, batch=1, level=0.9, seed=0):  # fmt: skip
    """Errors of forecast scores of held-out models by strategy and number of answers.

    Parameters
    ----------
    forecaster : Forecaster, fitted without the answers of the rows
    responses : uint8 (n_models, n_items), the truth
    lineage : Lineage, over the same models
    rows : int (n_rows,)
        The held-out models; models with too few answers are omitted.
    models : DataFrame, optional, the models table
    numbers : sequence of int
    strategies : sequence of str, among `STRATEGIES`
    batch : int
        Number of answers that the Forecaster chooses at a time; the answers then update it.
    level : float, nominal coverage
    seed : int, of the random answers

    Returns
    -------
    DataFrame : strategy, n_answers, mae (of benchmark scores, points), mae_average (of each model's
        average score), r (correlation with actual scores, mean over benchmarks), coverage and
        width of intervals (width in points; NaN for strategies without intervals), n_models

    Raises
    ------
    ValueError
        If no held-out model has enough answers.
    """
    frame = forecasts(forecaster, responses, lineage, rows, models=models, numbers=numbers,
                      strategies=strategies, batch=batch, level=level, seed=seed)  # fmt: skip
    return summarise(frame)


def summarise(frame):
    """The DataFrame of `chosen_answers` from that of `forecasts`."""
    rows = []
    for (strategy, n), part in frame.groupby(["strategy", "n_answers"], sort=False):
        # Errors by benchmark, of each model's average, and coverage where there are intervals.
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
              strategies=STRATEGIES, batch=1, level=0.9, seed=0):  # fmt: skip
    """The forecasts that `chosen_answers` summarises, with the same parameters.

    Scores are over the items that the model has answered; revealed answers count as observed.

    Returns
    -------
    DataFrame : strategy, n_answers, row, benchmark, score, lower, upper, actual
    """
    rows = np.asarray(rows)
    truth = np.asarray(responses[rows])
    enough = observed(truth).sum(axis=1) >= max(numbers) + _N_UNUSED
    rows, truth = rows[enough], truth[enough]
    if not rows.size:
        raise ValueError(f"no held-out model has {max(numbers) + _N_UNUSED} answers; use fewer")
    task = _Task(
        forecaster, responses, lineage, rows, truth, models, tuple(numbers), batch, level, seed
    )
    return pd.concat([task.run(strategy) for strategy in strategies], ignore_index=True)


def answers_for(frame, strategy, mae):
    """Number of answers at which a strategy reaches an error, interpolated in log n.

    Parameters
    ----------
    frame : DataFrame from `chosen_answers`
    strategy : str
    mae : float, points

    Returns
    -------
    float : NaN if the error is outside the range of the strategy
    """
    rows = frame[frame["strategy"] == strategy].sort_values("n_answers")
    # The running minimum removes increases of the error that are due to chance.
    lowest = rows["mae"].cummin().to_numpy()
    if mae > lowest[0] or mae < lowest[-1]:
        return np.nan
    return float(np.exp(np.interp(-mae, -lowest, np.log(rows["n_answers"]))))


def _correlation(pair):
    constant = pair.nunique().min() < 2
    return np.nan if constant else np.corrcoef(pair["score"], pair["actual"])[0, 1]


class _Task:
    """One evaluation: the held-out models and the data that strategies use."""

    def __init__(
        self, forecaster, responses, lineage, rows, truth, models, numbers, batch, level, seed
    ):
        self.forecaster, self.rows, self.truth = forecaster, rows, truth
        self.numbers, self.batch, self.level = numbers, batch, level
        # Actual scores over the observed answers, and the responses without held-out models.
        self.scores, self.is_observed = forecaster.scores_, observed(truth)
        self.train = without(responses, rows)
        self.actual = self.scores.actual(truth, self.is_observed)
        # Parents and cards of the held-out models.
        ids = lineage.node_ids[rows]
        edges = lineage.edges[lineage.edges["child"].isin(ids)].groupby("child")
        self.parents = [
            list(edges.get_group(i)[["parent", "relation"]].itertuples(index=False, name=None))
            if i in edges.groups else [] for i in ids
        ]  # fmt: skip
        table = pd.DataFrame({"model_id": ids}) if models is None else models.iloc[rows]
        self.cards = table.to_dict("records")
        # A random order of each model's answers, the same for all strategies with random answers.
        rng = np.random.default_rng([seed, 13])
        self.order = np.where(self.is_observed, rng.random(truth.shape), 2).argsort(axis=1)

    def run(self, strategy):
        """The rows of `forecasts` for a strategy."""
        if strategy in (CHOSEN, CHOSEN_ALONE, RANDOM):
            return self._forecaster(strategy)
        if strategy == RIDGE:
            return self._frame(strategy, {n: self._ridge(n) for n in self.numbers})
        if strategy == NEIGHBOURS:
            knn = KNN().fit(self.train, items=self.forecaster.items_)
            scores = {}
            for n in self.numbers:
                revealed = self._revealed(self.order[:, :n])
                scores[n] = self._scored(knn.predict_proba(self.rows, revealed=revealed), revealed)
            return self._frame(strategy, scores)
        return self._frame(strategy, self._adaptive())

    def _revealed(self, items):
        """The answers with only those to `items` (n_rows, n) revealed."""
        is_revealed = np.zeros(self.truth.shape, bool)
        np.put_along_axis(is_revealed, items, True, axis=1)
        return reveal(self.truth, is_revealed & self.is_observed)

    def _scored(self, expected, revealed):
        """Scores over the observed answers: revealed ones as they are, the others as forecast."""
        filled = np.where(observed(revealed), revealed, expected)
        return self.scores.actual(filled, self.is_observed)

    def _frame(self, strategy, scores, lower=None, upper=None):
        """DataFrame of `forecasts` from dicts of n to (n_rows, n_benchmarks)."""
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
        """Forecasts by the Forecaster, model by model, updated after each batch of answers."""
        # Random answers are revealed all at once: the order does not matter.
        steps = set(self.numbers)
        if strategy != RANDOM:
            steps |= set(range(self.batch, max(self.numbers), self.batch))
        bounds = {n: np.empty((3, *self.actual.shape)) for n in self.numbers}
        for place, (parents, card) in enumerate(zip(self.parents, self.cards, strict=True)):
            new = self.forecaster.fold_in(
                parents=[] if strategy == CHOSEN_ALONE else parents, card=card
            )
            for done, n in pairwise((0, *sorted(steps))):
                items = self._next(new, place, done, n, strategy)
                answers = self.truth[place, items].tolist()
                ids = [self.forecaster.item_ids_[item] for item in items]
                new = new.update(dict(zip(ids, answers, strict=True)))
                if n in bounds:
                    bounds[n][:, place] = self._with_interval(new, place)
        return self._frame(strategy, *({n: b[i] for n, b in bounds.items()} for i in range(3)))

    def _next(self, new, place, done, n, strategy):
        """Columns of the next n - done answers of a model, random or chosen."""
        if strategy == RANDOM:
            return self.order[place, done:n]
        # Items that the model has not answered cannot be chosen.
        ids = self.forecaster.item_ids_
        missing = {ids[item]: np.inf for item in np.flatnonzero(~self.is_observed[place])}
        chosen = new.next_items(n - done, cost=missing or None)
        return np.array([self.forecaster.columns_[item] for item in chosen], int)

    def _with_interval(self, new, place):
        """Score, lower and upper over the items that the model has answered."""
        known, deviation = observed(new.answers), new._forecast[1]
        filled = np.where(known, new.answers, new.predict_proba())
        score = self.scores.actual(filled[None], self.is_observed[[place]])[0]
        return np.stack([score, *interval(score, deviation, self.level)])

    def _ridge(self, n):
        """Scores by ridge regression on n random answers, separately for each model.

        slope = (X'X + ridge I)^-1 X'y over the training models, with standardised answers X to the
        same items and scores y of a benchmark.
        """
        scores = np.full_like(self.actual, np.nan)
        trained = self.forecaster.trained_responses_
        for place, items in enumerate(self.order[:, :n]):
            # An item that no training model has answered says nothing: its column is 0.
            answers = trained[:, items]
            answers = np.ma.masked_array(answers.astype(float), ~observed(answers))
            mean, std = answers.mean(axis=0).filled(0), answers.std(axis=0).filled(0) + 0.05
            x, new_x = ((answers - mean) / std).filled(0), (self.truth[place, items] - mean) / std
            for b, y in enumerate(self.forecaster.trained_scores_.T):
                if (has_score := np.isfinite(y)).any():
                    fit = Ridge(alpha=_RIDGE).fit(x[has_score], y[has_score])
                    scores[place, b] = np.clip(fit.predict(new_x[None])[0], 0, 1)
        return scores

    def _adaptive(self):
        """Scores by adaptive testing with a 2PL model for each benchmark.

        Benchmarks take turns. Each turn asks the item with the largest Fisher information,
        a^2 p (1 - p), at the ability estimated so far.
        """
        weights, n_rows, n_most = self.scores.weights, len(self.rows), max(self.numbers)
        # One 2PL model for each benchmark, fitted to the training models.
        benchmarks = [np.flatnonzero(weights[:, b]) for b in range(weights.shape[1])]
        fits = [ItemResponse().fit(np.ascontiguousarray(self.train[:, c])) for c in benchmarks]
        asked, count = np.zeros((n_rows, n_most), int), np.zeros(n_rows, int)
        is_revealed = np.zeros(self.truth.shape, bool)
        while (count < n_most).any():
            before = count.copy()
            for columns, fit in zip(benchmarks, fits, strict=True):
                revealed = reveal(self.truth[:, columns], is_revealed[:, columns])
                ability = fit._states(self.rows, revealed).mean[:, :1]
                logit = fit.intercept_ + ability * fit.slope_
                # p (1 - p) = 1 / (2 + e^s + e^-s); answers that are missing or revealed have none.
                information = fit.slope_**2 / (2 + np.exp(logit) + np.exp(-logit))
                information[~self.is_observed[:, columns] | is_revealed[:, columns]] = -1
                best = information.argmax(axis=1)
                can_ask = (information.max(axis=1) >= 0) & (count < n_most)
                asked[can_ask, count[can_ask]] = columns[best[can_ask]]
                is_revealed[can_ask, columns[best[can_ask]]] = True
                count += can_ask
            if (count == before).all():
                break
        # Scores after the first n answers.
        scores = {}
        for n in self.numbers:
            revealed = self._revealed(asked[:, :n])
            expected = np.empty(self.truth.shape, np.float32)
            for columns, fit in zip(benchmarks, fits, strict=True):
                expected[:, columns] = fit.predict_proba(self.rows, revealed=revealed[:, columns])
            scores[n] = self._scored(expected, revealed)
        return scores
