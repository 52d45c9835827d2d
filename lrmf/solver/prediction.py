"""From model states to forecasts: what `LRMF` and `Forecaster` have in common."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ..data.snapshot import observed_counts
from ..threads import threads
from .scores import interval
from .validation import check_cells, check_rows

BLOCK = 256  # models forecast at once


class Forecasts:
    """Forecasts of the models of a fit, from Gaussian beliefs about their states.

    A subclass has `responses_`, `likelihood_`, `scores_`, `n_threads`, and says what it believes:
    `_states`, how sure it really is: `_calibrated`, and whether anything else than the states
    speaks of the answers: `_refined`.
    """

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Expected responses: the probability of a correct answer, or the expected proportion.

        Parameters
        ----------
        rows, items : int arrays, optional
            Models and items (all by default).
        revealed : (len(rows), n_items), optional
            The only responses of these models to be used, each as a model of its own (few-shot);
            by default their training responses.

        Returns
        -------
        float32 (len(rows), len(items))
        """
        rows = self._checked(rows, revealed=revealed)
        items = slice(None) if items is None else np.asarray(items)
        n_columns = np.arange(self.responses_.shape[1])[items].size
        out = np.empty((rows.size, n_columns), np.float32)
        with threads(self.n_threads):
            for block, shown in self._blocks(rows, revealed):
                states = self._states(rows[block], shown)
                expected = self.likelihood_.forecast(states.mean, states.covariance, items)[0]
                out[block] = self._refined(rows[block], shown, states, expected, items)
        return out

    def predict_scores(self, rows=None, *, revealed=None, target=None, level=0.9):
        """Benchmark scores with intervals: expected accuracy, observed items counted as observed.

        Parameters
        ----------
        rows, revealed : as in `predict_proba`
        target : bool (len(rows), n_items), optional
            Score only these cells, all as forecasts; by default every item of the benchmark. NaN
            for a benchmark without any.
        level : float
            Nominal coverage of [lower, upper], from the Laplace posterior scaled so that
            forecasts of training models, made without their answers, are covered.

        Returns
        -------
        DataFrame : row, benchmark, score, lower, upper, n_observed
        """
        rows = self._checked(rows, revealed=revealed, target=target)
        return self._scores_of(rows, revealed, target, level)

    def predict_both(self, rows=None, *, revealed=None, target=None, level=0.9):
        """Expected responses of all items and benchmark scores, in the time of one of them.

        Parameters
        ----------
        rows, revealed, target, level : as in `predict_scores`

        Returns
        -------
        float32 (len(rows), n_items), DataFrame : as `predict_proba` and `predict_scores`
        """
        rows = self._checked(rows, revealed=revealed, target=target)
        expected = np.empty((rows.size, self.responses_.shape[1]), np.float32)
        return expected, self._scores_of(rows, revealed, target, level, out=expected)

    def _scores_of(self, rows, revealed, target, level, out=None):
        """The frame of `predict_scores`; `out` takes the expected responses."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level!r}")
        parts = [np.empty((4, 0, len(self.scores_.names)))]
        with threads(self.n_threads):
            for block, shown in self._blocks(rows, revealed):
                wanted = None if target is None else target[block]
                expected, part = self._score(rows[block], shown, wanted, level)
                parts.append(part)
                if out is not None:
                    out[block] = expected
        score, lower, upper, n_observed = np.concatenate(parts, axis=1)
        n_benchmarks = len(self.scores_.names)
        frame = {"row": np.repeat(rows, n_benchmarks), "benchmark": self.scores_.names * rows.size}
        frame |= {"score": score.ravel(), "lower": lower.ravel(), "upper": upper.ravel()}
        return pd.DataFrame(frame | {"n_observed": n_observed.ravel().astype(int)})

    def _score(self, rows, revealed, target, level):
        """Expected responses; score, lower, upper and number observed (4, n_rows, n_benchmarks)."""
        given = self.responses_[rows] if revealed is None else revealed
        expected, score, deviation = self._belief(rows, revealed, given, target)
        deviation = self._calibrated(score, deviation, rows, given)
        bounds = interval(score, deviation, level)
        return expected, np.stack([score, *bounds, self.scores_.n_observed(given)])

    def _belief(self, rows, revealed, given, target):
        """Expected responses, expected score and its standard deviation before calibration."""
        states = self._states(rows, revealed)
        forecast = self.likelihood_.forecast(states.mean, states.covariance)
        expected = self._refined(rows, revealed, states, forecast[0], slice(None))
        deviation = self.scores_.deviation(
            self.likelihood_, states, given, target, forecast=forecast
        )
        return expected, self.scores_.expected(expected, given, target), deviation

    def _refined(self, rows, revealed, states, expected, items):
        return expected

    def _blocks(self, rows, revealed):
        for top in range(0, rows.size, BLOCK):
            block = slice(top, top + BLOCK)
            yield block, None if revealed is None else revealed[block]

    def _checked(self, rows, *, revealed=None, target=None):
        check_is_fitted(self)
        n_models, n_items = self.responses_.shape
        rows = check_rows(rows, n_models)
        is_binary = self.responses_.dtype == np.uint8
        check_cells((rows.size, n_items), is_binary=is_binary, revealed=revealed, target=target)
        return rows


def has_responses(responses):
    """Whether each model has any response (n_models,)."""
    return observed_counts(responses) > 0


def is_isolated(lineage, evaluated, rows):
    """Whether no other model of a row's family has been evaluated.

    Parameters
    ----------
    evaluated : bool (n_models,)
    rows : int (n,)
    """
    family = lineage.families
    with_data = np.zeros(lineage.n_nodes)
    with_data[: lineage.n_models] = evaluated
    per_family = np.bincount(family, weights=with_data)
    return per_family[family[rows]] - with_data[rows] <= 0
