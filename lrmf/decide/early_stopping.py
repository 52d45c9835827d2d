"""Early stopping for Inspect: run the samples that inform the scores most, skip the others."""

from .next_answers import choose, half_width

_RIGHT = {"C": 1, "I": 0, "correct": 1, "incorrect": 0, True: 1, False: 0}


class EarlyStopping:
    """Inspect's protocol of the same name: ``Task(..., early_stopping=EarlyStopping(new))``.

    The samples to run are chosen when a task starts. Once the interval of the mean score is narrow
    enough, the remaining ones are skipped as well. Inspect schedules each sample once, so the
    choice is not revised as answers arrive.

    Parameters
    ----------
    new : NewModel, of a fit of single answers
    item_of : function of a sample's id, optional
        Returns its item_id; by default they are the same.
    budget, precision : as in `lrmf.decide.next_answers.choose`
    score : str, optional
        Name of the scorer whose value is the answer; the first by default.

    Attributes
    ----------
    new : NewModel, updated by the answers so far

    Source: ``inspect_ai.util.EarlyStopping``, 0.3.
    """

    def __init__(self, new, *, item_of=str, budget=None, precision=None, score=None):
        self.new, self.item_of, self.score = new, item_of, score
        self.budget, self.precision = budget, precision
        self._planned, self._n_skipped, self._n_unread = set(), 0, 0

    async def start_task(self, task, samples, epochs):
        """Choose the samples to run, and return the name of this manager."""
        # Items of other tasks have infinite cost.
        columns = self.new.forecasts.columns_
        in_task = {item for sample in samples if (item := self.item_of(sample.id)) in columns}
        if not in_task:
            raise ValueError("no sample of the task is an item of the fit; map them with item_of")
        cost = dict.fromkeys(columns.keys() - in_task, float("inf"))
        self._planned = set(
            choose(self.new, budget=self.budget, precision=self.precision, cost=cost or None)
        )
        return "lrmf"

    async def schedule_sample(self, id, epoch):
        """Return None to run the sample, or Inspect's ``EarlyStop`` to skip it."""
        reason = None
        if self.item_of(id) not in self._planned or epoch > 1:
            reason = "not among the most informative samples"
        elif self.precision is not None and self._is_precise():
            reason = "the interval of the mean score is narrow enough"
        if reason is None:
            return None
        from inspect_ai.util import EarlyStop

        self._n_skipped += 1
        return EarlyStop(id=id, epoch=epoch, reason=reason)

    async def complete_sample(self, id, epoch, scores):
        """Update the forecast by the answer."""
        # Inspect passes a score, or an object that holds one.
        score = scores.get(self.score) if self.score else next(iter(scores.values()), None)
        value = getattr(getattr(score, "score", score), "value", None)
        value = _RIGHT.get(value) if isinstance(value, int | float | str | bool) else None
        if value is None:
            self._n_unread += 1
        else:
            self.new = self.new.update({self.item_of(id): value})

    async def complete_task(self):
        """Numbers of skipped and unread samples and the mean score, for the log."""
        mean, lower, upper = map(float, self.new.mean_score())
        return {"skipped": self._n_skipped, "unread": self._n_unread, "mean_score": mean,
                "lower": lower, "upper": upper}  # fmt: skip

    def _is_precise(self):
        """Whether the half-width of the mean score's interval is at most `precision`."""
        return half_width(self.new) <= self.precision
