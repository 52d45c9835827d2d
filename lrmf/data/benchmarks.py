"""The benchmarks of Open LLM Leaderboard v2, their tasks in lm-evaluation-harness, and metrics."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

PREFIX = "leaderboard_"  # of the tasks of these benchmarks
# Of several metrics of a task the first of these counts, then the first by name.
METRICS = "prompt_level_strict_acc acc_norm exact_match acc accuracy mc2 mc1 pass@1 em f1".split()
# Metrics of the harness that fall as models get better, also where a file does not say so.
LOWER_IS_BETTER = frozenset(
    "bits_per_byte brier brier_score byte_perplexity cer ece likelihood_diff loss mae mse "
    "pct_stereotype perplexity ppl rmse ter wer word_perplexity".split()
)


@dataclass(frozen=True)
class Benchmark:
    """A column of the leaderboard's table, the metric in samples, and the sizes of subtasks."""

    column: str
    metric: str
    subtasks: dict[str, int] = field(hash=False)

    @property
    def n_trials(self) -> int:
        """Number of questions."""
        return sum(self.subtasks.values())


BENCHMARKS = {
    str(name): Benchmark(
        rows["column"].iloc[0],
        rows["metric"].iloc[0],
        dict(zip(rows["subtask"], rows["n_questions"].tolist(), strict=True)),
    )
    for name, rows in pd.read_csv(Path(__file__).with_name("benchmarks.csv")).groupby(
        "benchmark", sort=False
    )
}
# Benchmark and subtask by the name of the task.
TASKS = {
    PREFIX + (name if subtask == name else f"{name}_{subtask}"): (name, subtask)
    for name, benchmark in BENCHMARKS.items()
    for subtask in benchmark.subtasks
}


def metric_rank(metric: str, task: str = "") -> int:
    """Place of a metric among those of a task or benchmark: its own, then those of `METRICS`."""
    benchmark = BENCHMARKS.get(TASKS.get(task, (task,))[0])
    if benchmark and metric == benchmark.metric:
        return -1
    return METRICS.index(metric) if metric in METRICS else len(METRICS)
