"""The clock of a solver, stopped while its current fit is judged."""

from time import perf_counter, process_time

import numpy as np
from sklearn.linear_model import LogisticRegression

from .objective import Objective, count, log_loss, log_odds, logits


class Watch:
    """Checkpoints (CPU and wall seconds, held-out log-loss, objective) of one fit.

    Parameters
    ----------
    problem : Problem
    bound : float
        CPU seconds after which `enough` says so.
    target_loss, target_objective : float
        `enough` says so once both are reached.
    """

    def __init__(self, problem, *, bound, target_loss=0.0, target_objective=0.0):
        self.problem, self.bound = problem, bound
        self.target_loss, self.target_objective = target_loss, target_objective
        self.checkpoints, self._objective = [], Objective(problem)
        self._cpu = self._wall = 0.0
        self._next = 0.0

    def restart(self):
        """Set the clock to zero and start it."""
        self._cpu = self._wall = 0.0
        self.__enter__()

    def __enter__(self):
        self._since = process_time(), perf_counter()
        return self

    def __exit__(self, *exception):
        self._pause()

    def _pause(self):
        self._cpu += process_time() - self._since[0]
        self._wall += perf_counter() - self._since[1]

    @property
    def cpu(self):
        """CPU seconds so far, of all threads of this process."""
        return self._cpu + process_time() - self._since[0]

    def due(self):
        """Whether 7% more time than at the last checkpoint has gone by."""
        return self.cpu >= self._next

    def checkpoint(self, states, items):
        """Judge [m, b] (n_nodes, rank + 1) and [x, c] (n_items, rank + 1); whether to go on."""
        self._pause()
        test = self.problem.test
        loss = log_loss(logits(states, items, test), test.answers)
        return self._record(loss, self._objective(states, items)[0])

    def checkpoint_scores(self, score):
        """Judge `score(rows, columns)`, calibrated on the validation cells; whether to go on."""
        self._pause()
        return self._record(calibrated_loss(self.problem, score), np.nan)

    def _record(self, loss, objective):
        names = ("cpu", "wall", "loss", "objective")
        values = (self._cpu, self._wall, float(loss), float(objective))
        self.checkpoints.append(dict(zip(names, values, strict=True)))
        self._next = 1.07 * self._cpu
        reached = loss <= self.target_loss and not objective > self.target_objective
        self.__enter__()
        return not reached and self._cpu < self.bound


def calibrated_loss(problem, score):
    """Held-out log-loss of scores that are no probabilities.

    A logistic regression on the score and the log-odds of item and model, fitted on the validation
    cells, turns them into probabilities.
    """
    odds = [log_odds(*count(problem, axis=axis)) for axis in (0, 1)]

    def loadings(cells):
        parts = [score(cells.rows, cells.columns), odds[0][cells.columns], odds[1][cells.rows]]
        return np.column_stack(parts)

    validation, test = loadings(problem.validation), loadings(problem.test)
    centre, scale = validation.mean(axis=0), validation.std(axis=0) + 1e-12
    regression = LogisticRegression(C=100.0, max_iter=1000)
    regression.fit((validation - centre) / scale, problem.validation.answers)
    logit = regression.decision_function((test - centre) / scale)
    return log_loss(logit, problem.test.answers)
