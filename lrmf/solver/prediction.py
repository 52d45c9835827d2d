"""From model states to forecasts: the methods that `LRMF` and `Forecaster` share."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
import pandas as pd

from ..data.response_kinds import kind_of
from ..data.schema import RELATIONS
from ..estimator import check_is_fitted
from ..threads import in_threads, threads
from .scores import interval
from .validation import check_cells, check_rows

BLOCK = 256  # models forecast at once


class Forecasts:
    """Forecasts of the models of a fit, from Gaussian posteriors of their states.

    A subclass has the attributes `responses_`, `likelihood_`, `scores_` and `n_threads`, and
    implements `_states` (the posteriors), `_calibrated` (standard deviations of scores after
    calibration) and, if expected responses depend on more than the states, `_refined`.
    """

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Expected responses: the probability of a correct answer, or the expected proportion.

        Parameters
        ----------
        rows, items : int arrays, optional
            Models and items (all by default), by their places in the tables.
        revealed : (len(rows), n_items), optional
            The only responses of these models that the forecast uses (few-shot), each row by
            itself. By default all of their training responses.

        Returns
        -------
        float32 (len(rows), len(items))
        """
        # Blocks of models bound the memory: no array (n_models, n_items) is in double precision.
        rows = self._check_request(rows, revealed=revealed)
        n_items = self.responses_.shape[1]
        chosen = check_rows(items, n_items, name="item", table="items")
        items = slice(None) if items is None else chosen
        out = np.empty((rows.size, chosen.size), np.float32)
        with threads(self.n_threads):
            for block, revealed_block in self._blocks(rows, revealed):
                states = self._states(rows[block], revealed_block)
                expected = self.likelihood_.forecast(states.mean, states.covariance, items)[0]
                out[block] = self._refined(rows[block], revealed_block, states, expected, items)
        return out

    def predict(self, rows=None, *, revealed=None, target=None, level=0.9):
        """Forecast the benchmark scores and the single responses of some models.

        Parameters
        ----------
        rows, revealed : as in `predict_proba`
        target : bool (len(rows), n_items), optional
            Score these cells only, all as forecasts; by default every item of the benchmark. A
            benchmark without target cells has score NaN.
        level : float
            Nominal coverage of [lower, upper]. Standard deviations are calibrated on forecasts of
            training models that did not use their answers.

        Returns
        -------
        Forecast

        Raises
        ------
        ValueError
            If rows, revealed, target or level are not valid.
        """
        rows = self._check_request(rows, revealed=revealed, target=target)
        check_level(level)
        return Forecast(self, rows, revealed, target, level)

    def predict_scores(self, rows=None, **options):
        """The scores of `predict` with these options, without the forecast around them."""
        return self.predict(rows, **options).scores

    def _score(self, rows, revealed, target, level):
        """Expected responses; score, lower, upper and number observed (4, n_rows, n_benchmarks)."""
        # The forecast uses the training responses of each model, or only the revealed ones.
        given = self.responses_[rows] if revealed is None else revealed
        expected, score, deviation = self._moments(rows, revealed, given, target)
        # Calibration concerns only the share of a score that is forecast.
        share = 1.0 if target is not None else self.scores_.open_share(given)
        deviation = self._calibrated(score, deviation, rows, given, share)
        bounds = interval(score, deviation, level)
        return expected, np.stack([score, *bounds, self.scores_.n_observed(given)])

    def _moments(self, rows, revealed, given, target):
        """Expected responses, expected score and its standard deviation before calibration."""
        states = self._states(rows, revealed)
        forecast = self.likelihood_.forecast(states.mean, states.covariance)
        # Near-duplicates change the expected responses; the deviation is that of the states.
        expected = self._refined(rows, revealed, states, forecast[0], slice(None))
        deviation = self.scores_.deviation(
            self.likelihood_, states, given, target, forecast=forecast
        )
        return expected, self.scores_.expected(expected, given, target), deviation

    def _refined(self, rows, revealed, states, expected, items):
        """Expected responses given more than the states; here just those of the states."""
        return expected

    def _blocks(self, rows, revealed):
        """Slices of the rows, each with its part of `revealed`."""
        for start in range(0, rows.size, BLOCK):
            block = slice(start, start + BLOCK)
            yield block, None if revealed is None else revealed[block]

    def _check_request(self, rows, *, revealed=None, target=None):
        """The rows as integers; ValueError if an argument is not valid for the fit."""
        if hasattr(self, "fit"):
            check_is_fitted(self)
        n_models, n_items = self.responses_.shape
        rows = check_rows(rows, n_models)
        kind = kind_of(self.responses_)
        check_cells((rows.size, n_items), kind, revealed=revealed, target=target)
        return rows


@dataclass(frozen=True, eq=False)
class Forecast:
    """A forecast of some models; each part is computed when it is first asked for.

    Attributes
    ----------
    fit : Forecasts
    rows : int (n,)
    revealed, target, level : as in `Forecasts.predict`
    """

    fit: Forecasts
    rows: np.ndarray
    revealed: np.ndarray | None
    target: np.ndarray | None
    level: float

    @cached_property
    def scores(self):
        """Expected benchmark scores with intervals; observed items count as observed.

        Returns
        -------
        DataFrame : row, benchmark, score, lower, upper (fractions), n_observed
        """
        return self._scores()

    @cached_property
    def items(self):
        """Expected responses, as by `Forecasts.predict_proba`: float32 (n, n_items)."""
        expected = np.empty((self.rows.size, self.fit.responses_.shape[1]), np.float32)
        # The scores come with them, and are kept.
        self.__dict__["scores"] = self._scores(out=expected)
        return expected

    def average(self, benchmarks=None):
        r"""Mean of the benchmark scores, with its interval.

        Calibration changes the standard deviation of each score from sigma_b to sigma'_b and keeps
        the correlations between benchmarks that the states imply: the result is that of
        `BenchmarkScores.average_deviation` with f_b = (sigma'_b / sigma_b) / n_benchmarks.

        Parameters
        ----------
        benchmarks : sequence of str, optional, all by default

        Returns
        -------
        DataFrame : row, score, lower, upper, deviation

        Raises
        ------
        ValueError
            If a benchmark is unknown, or only target cells are scored.
        """
        fit, names = self.fit, self.fit.scores_.names
        if self.target is not None:
            raise ValueError("the average is over whole benchmarks; forecast without target")
        benchmarks = names if benchmarks is None else list(benchmarks)
        if not benchmarks:
            raise ValueError("benchmarks is empty; name some, or None for all")
        chosen = np.zeros(len(names), bool)
        chosen[[fit.scores_.number(name) for name in benchmarks]] = True
        parts = [np.empty((2, 0))]  # score and deviation of each block
        with threads(fit.n_threads):
            for block, revealed in fit._blocks(self.rows, self.revealed):
                rows = self.rows[block]
                given = fit.responses_[rows] if revealed is None else revealed
                states = fit._states(rows, revealed)
                forecast = fit.likelihood_.forecast(states.mean, states.covariance)
                expected = fit._refined(rows, revealed, states, forecast[0], slice(None))
                # Standard deviation of each score, before and after calibration.
                score = fit.scores_.expected(expected, given, None)
                posterior = fit.likelihood_, states, given
                raw = fit.scores_.deviation(*posterior, None, forecast=forecast)
                factor = fit._calibrated(score, raw, rows, given, fit.scores_.open_share(given))
                # f_b = sigma'_b / sigma_b / n_benchmarks, 0 for benchmarks that do not count.
                factor = factor * chosen / chosen.sum()
                factor = np.divide(factor, raw, out=np.zeros_like(raw), where=raw > 0)
                deviation = fit.scores_.average_deviation(*posterior, factor, forecast=forecast)
                parts.append(np.stack([score[:, chosen].mean(axis=1), deviation]))
        score, deviation = np.concatenate(parts, axis=1)
        lower, upper = interval(score, deviation, self.level)
        frame = {"row": self.rows, "score": score, "lower": lower, "upper": upper}
        return pd.DataFrame(frame | {"deviation": deviation})

    def _scores(self, out=None):
        """The frame of `scores`; `out` takes the expected responses."""
        fit, names = self.fit, self.fit.scores_.names

        def score(part):
            """Score, lower, upper and number observed of a block, (4, n_rows, n_benchmarks)."""
            block, revealed = part
            target = None if self.target is None else self.target[block]
            expected, scores = fit._score(self.rows[block], revealed, target, self.level)
            if out is not None:
                out[block] = expected
            return scores

        # Blocks of models bound the memory. The first one fills the caches of the fit.
        with threads(fit.n_threads):
            first, *rest = [*fit._blocks(self.rows, self.revealed)] or [(slice(0), self.revealed)]
            parts = [score(first), *in_threads(score, rest)]
        # One row for each model and benchmark.
        score, lower, upper, n_observed = np.concatenate(parts, axis=1)
        frame = {"row": np.repeat(self.rows, len(names)), "benchmark": names * self.rows.size}
        frame |= {"score": score.ravel(), "lower": lower.ravel(), "upper": upper.ravel()}
        return pd.DataFrame(frame | {"n_observed": n_observed.ravel().astype(int)})


class NewModel:
    """The forecast of one model, as `LRMF.fold_in` returns it.

    Parameters
    ----------
    forecasts : Forecasts, of a single row
    """

    def __init__(self, forecasts):
        self.forecasts = forecasts

    def __repr__(self):
        scores = self.scores()
        forecasts = ", ".join(
            f"{row.benchmark}: {row.score:.3f} [{row.lower:.3f}, {row.upper:.3f}]"
            for row in scores.itertuples()
        )
        return f"{type(self).__name__}({forecasts}; {scores['n_observed'].sum()} observed)"

    def predict_proba(self, items=None):
        """Expected responses, float32 (n_items,)."""
        return self.forecasts.predict_proba(items=items)[0]

    def scores(self, *, level=0.9):
        """Benchmark scores with intervals, as in `Forecast.scores`.

        Returns
        -------
        DataFrame : benchmark, score, lower, upper, n_observed
        """
        return self.forecasts.predict(level=level).scores.drop(columns="row")

    def predict_scores(self, *, level=0.9):
        """The same as `scores`, by the name that fitted models have for it."""
        return self.scores(level=level)


def check_level(level):
    """Raise a ValueError unless this is the nominal coverage of an interval."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")


def read_parents(parents, lineage):
    """Pairs (id, relation) from one id, several ids, or pairs; the default is "finetune".

    Ids may be URLs of the Hub or have an ``@revision``, as `Lineage.id_of` reads them.

    Raises
    ------
    ValueError
        If a relation is unknown.
    """
    parents = [parents] if isinstance(parents, str) else parents
    parents = [(p, None) if isinstance(p, str) else tuple(p) for p in parents]
    parents = [(lineage.id_of(p), "finetune" if how is None else how) for p, how in parents]
    if unknown := sorted({relation for _, relation in parents} - set(RELATIONS)):
        raise ValueError(f"unknown relation {unknown[0]!r}; use {', '.join(RELATIONS)}")
    return parents


def column_of(items, n_items):
    """Dict of item id to column; without an items table the ids are the column numbers."""
    ids = range(n_items) if items is None else items["item_id"]
    return {item: column for column, item in enumerate(ids)}


def leaf_weights(lineage, relations):
    """Edge weights (n_parents,) of a new model with parents by these relations."""
    # The same weights as in the lineage of the fit.
    weights = np.array([lineage.relation_weights[relation] for relation in relations])
    if lineage.split_merges:
        # The edges of a merge together have the weight of one edge, for any number of parents.
        is_merge = np.array(relations) == "merge"
        weights[is_merge] /= is_merge.sum()
    return weights


def revealed_row(answers, columns, dtype):
    """Answers by item id as one row (1, n_items) of responses.

    Parameters
    ----------
    answers : mapping of item id to response
    columns : mapping of item id to column
    dtype : of the responses

    Raises
    ------
    ValueError
        If an item is not a column or an answer is out of range.
    """
    if not isinstance(answers, Mapping | pd.Series):
        raise ValueError(f"answers must map item ids to responses, got {answers!r}")
    kind = kind_of(dtype)
    # All items are missing except those answered.
    row = np.full((1, len(columns)), kind.missing, dtype)
    for item, answer in answers.items():
        if item not in columns:
            raise ValueError(f"answer to {item!r}: not an item of the snapshot")
        is_number = isinstance(answer, Real | np.bool)
        if not is_number or not kind.is_legal(answer):
            raise ValueError(f"answer to {item!r} must be {kind.legal}, got {answer!r}")
        row[0, columns[item]] = answer
    return row
