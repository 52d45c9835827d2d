"""Small snapshots that the tests share."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from lrmf.data.lineage import Lineage
from lrmf.data.response_kinds import kind_of
from lrmf.data.responses import MISSING, benchmark_scores
from lrmf.data.snapshot import Snapshot, save_snapshot
from lrmf.simulation.simulate import simulate

MODELS = [
    # model_id, params_b, architecture, precision, type, merged, chat_template
    ("lab/alpha-chat", 7.2, "LlamaForCausalLM", "bfloat16", "chat", False, True),
    ("lab/alpha-code", 7.2, "LlamaForCausalLM", "bfloat16", "finetuned", False, False),
    ("user/alpha-chat-dpo", 7.2, "LlamaForCausalLM", "float16", "chat", False, True),
    ("user/alpha-merge", 7.2, "LlamaForCausalLM", "bfloat16", "merge", True, False),
    ("quant/alpha-chat-gptq", 7.2, "LlamaForCausalLM", "4bit", "chat", False, True),
    ("user/alpha-lora", None, "LlamaForCausalLM", "bfloat16", "finetuned", False, None),
    ("lab/beta-chat", 13.0, "MistralForCausalLM", "bfloat16", "chat", False, True),
    ("lab/beta-math", 13.0, "MistralForCausalLM", "bfloat16", "finetuned", False, False),
    ("user/beta-merge", 13.0, "MistralForCausalLM", "float16", "merge", True, False),
    ("user/beta-merge-dpo", 13.0, "MistralForCausalLM", "float16", "chat", True, True),
    ("solo/gamma", 70.0, None, "bfloat16", "pretrained", False, False),
    ("gpt2", 0.124, "GPT2LMHeadModel", "float16", "pretrained", False, False),
]
EDGES = [
    ("base/alpha", "lab/alpha-chat", "finetune"),
    ("base/alpha", "lab/alpha-code", "finetune"),
    ("lab/alpha-chat", "user/alpha-chat-dpo", "finetune"),
    ("lab/alpha-chat", "user/alpha-merge", "merge"),
    ("lab/alpha-code", "user/alpha-merge", "merge"),
    ("lab/alpha-chat", "quant/alpha-chat-gptq", "quantized"),
    ("lab/alpha-code", "user/alpha-lora", "adapter"),
    ("base/beta", "lab/beta-chat", "finetune"),
    ("base/beta", "lab/beta-math", "finetune"),
    ("lab/beta-chat", "user/beta-merge", "merge"),
    ("lab/beta-math", "user/beta-merge", "merge"),
    ("user/beta-merge", "user/beta-merge-dpo", "finetune"),
]
UNSCORED = ("base/alpha", "base/beta")
FAMILY = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3])
# benchmark, subtask, number of instances
SUBTASKS = [
    ("arc", "arc", 14),
    ("bbh", "logic", 6),
    ("bbh", "dates", 6),
    ("bbh", "snarks", 4),
    ("math", "algebra", 6),
    ("math", "geometry", 4),
]
WITHOUT_MATH = [1, 5, 8, 10]


def tiny_tables(*, binary: bool = True, seed: int = 0) -> dict:
    """Arguments of `save_snapshot`: 12 models, 2 unscored ancestors, 40 items of 3 benchmarks.

    Two families of six and four models, two loners, a merge in either family; one benchmark is
    missing for four models, and a few cells at random. Without ``binary`` there is a column of
    proportions for each of the six subtasks.
    """
    rng = np.random.default_rng(seed)
    items = _items(binary)
    ability = np.array([0.5, -0.3, 1.2, -1.5])[FAMILY] + rng.normal(0, 0.4, len(MODELS))
    logit = ability[:, None] - rng.normal(0, 1, len(items))
    probability = 1 / (1 + np.exp(-logit))
    n_trials = items["n_trials"].to_numpy()
    correct = rng.binomial(n_trials, probability)
    missing = rng.random(correct.shape) < 0.05
    missing[np.ix_(WITHOUT_MATH, np.flatnonzero(items["benchmark"] == "math"))] = True
    if binary:
        responses = np.where(missing, MISSING, correct).astype(np.uint8)
    else:
        responses = np.where(missing, np.nan, correct / n_trials).astype(np.float32)
    return {
        "models": _models(),
        "items": items,
        "lineage": pd.DataFrame(EDGES, columns=["parent", "child", "relation"]),
        "responses": responses,
        "name": "tiny",
        "source": "simulated",
    }


def tiny_snapshot(path: Path | None = None, *, binary: bool = True, seed: int = 0) -> Snapshot:
    """The snapshot of `tiny_tables`: in memory, or written to ``path`` and loaded from there."""
    tables = tiny_tables(binary=binary, seed=seed)
    if path is None:
        return Snapshot(**tables, note="")
    return save_snapshot(path, **tables)


def tiny_lineage(**options) -> Lineage:
    """The lineage of `tiny_tables`; options as of `Lineage.from_edges`."""
    return Lineage.from_edges(EDGES, [model[0] for model in MODELS], **options)


@cache
def simulated_scores() -> tuple[Lineage, pd.DataFrame]:
    """Lineage of a small simulated Hub, and its scores (n_models, n_benchmarks): read-only."""
    hub = simulate(n_models=300, n_items=60, seed=1)
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    return lineage, benchmark_scores(hub.responses, hub.items)


def missing(responses: np.ndarray) -> float:
    """The value of a missing response in such a matrix."""
    return kind_of(responses).missing


def _models() -> pd.DataFrame:
    columns = ["model_id", "params_b", "architecture", "precision", "type"]
    columns += ["merged", "chat_template"]
    models = pd.DataFrame(MODELS, columns=columns)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(30 * np.arange(len(models)), unit="D")
    return models.assign(
        moe=False,
        created_at=day.strftime("%Y-%m-%d"),
        evaluated_at=(day + pd.Timedelta(days=20)).strftime("%Y-%m-%d"),
    )


def _items(binary: bool) -> pd.DataFrame:
    rows = []
    for benchmark, subtask, n_instances in SUBTASKS:
        if binary:
            ids = [f"{benchmark}/{subtask}/{number}" for number in range(n_instances)]
            rows += [(item_id, benchmark, subtask, 1) for item_id in ids]
        else:
            rows.append((f"{benchmark}/{subtask}", benchmark, subtask, 25 * n_instances))
    return pd.DataFrame(rows, columns=["item_id", "benchmark", "subtask", "n_trials"])
