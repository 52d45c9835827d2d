"""A random Hub with a leaderboard, and the truth about it that a crawl has to find."""

import io
import json
import random
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from hub_server import TABLE, TABLE_PATH, Hub, sha

from lrmf.hub import Client
from lrmf.hub.leaderboard import BENCHMARKS

STATED = ("all", "tags", "card", "old name")
IN_FILES = ("mergekit_config.yml", "mergekit_moe_config.yml", "merge.yml", "README.md")


@dataclass
class World:
    """``edges`` are (parent, child, relation); ``scores`` and ``answers`` are by model."""

    hub: Hub = field(default_factory=Hub)
    edges: set[tuple[str, str, str]] = field(default_factory=set)
    statuses: dict[str, str] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def publish_table(self) -> None:
        frame = pd.DataFrame(self.rows)
        sink = io.BytesIO()
        frame.to_parquet(sink)
        self.hub.files[f"datasets/{TABLE}", TABLE_PATH] = sink.getvalue()
        self.hub.datasets[TABLE] = {"sha": sha(TABLE, str(len(self.rows)))}


def table_row(model_id: str, scores: list[float], **changes) -> dict:
    link = f'<a target="_blank" href="https://huggingface.co/{model_id}">{model_id}</a>'
    row = {
        "eval_name": f"{model_id.replace('/', '_')}_bfloat16",
        "Precision": "bfloat16",
        "Type": "🔶 fine-tuned on domain-specific datasets",
        "T": "🔶",
        "Weight type": "Original",
        "Architecture": "LlamaForCausalLM",
        "Model": f"{link} <a href='https://huggingface.co/datasets/x/y-details'>📑</a>",
        "fullname": model_id,
        "Model sha": sha(model_id, "1"),
        "Average ⬆️": 10.0,
        "Hub License": "apache-2.0",
        "Hub ❤️": 3,
        "#Params (B)": 7.2,
        "Available on the hub": True,
        "MoE": False,
        "Flagged": False,
        "Chat Template": True,
        "CO₂ cost (kg)": 1.5,
        "Merged": False,
        "Official Providers": False,
        "Upload To Hub Date": "2024-05-01",
        "Submission Date": "2024-06-09",
        "Generation": 1,
        "Base Model": model_id,
    }
    columns = [benchmark.column for benchmark in BENCHMARKS.values()]
    return row | dict(zip(columns, scores, strict=True)) | changes


def make_world(n_models: int, *, seed: int = 0) -> World:
    """A leaderboard of ``n_models``; most descend from others or from unscored ancestors."""
    rng = random.Random(seed)
    world = World()
    ancestors = [f"base{number % 7}/Root-{number}" for number in range(max(3, n_models // 10))]
    for position, name in enumerate(ancestors):
        if position % 9 == 8:
            world.statuses[name] = "missing"
            continue
        gated = "manual" if position % 5 == 4 else False
        world.hub.add_model(name, gated=gated)
        world.statuses[name] = "gated" if gated else "ok"
    done: list[str] = []
    for number in range(n_models):
        name = f"user{number % 40}/Model-{number}"
        world.hub.add_model(name)
        world.statuses[name] = "ok"
        scores = [round(rng.random(), 4) for _ in BENCHMARKS]
        world.scores[name] = scores
        world.rows.append(table_row(name, scores))
        if rng.random() < 0.75:
            _give_parents(world, name, done + ancestors, rng)
        done.append(name)
    world.publish_table()
    return world


def _give_parents(world: World, child: str, candidates: list[str], rng: random.Random) -> None:
    kind = rng.choice([*STATED, *STATED, "mergekit", "adapter"])
    relation = rng.choice(["finetune", "merge", "quantized", "adapter"])
    if kind == "mergekit":
        relation = "merge"
    elif kind == "adapter":
        relation = "adapter"
    n_parents = min(len(candidates), rng.randint(2, 3)) if relation == "merge" else 1
    parents = rng.sample(candidates, n_parents)
    world.edges.update((parent, child, relation) for parent in parents)
    hub, model = world.hub, world.hub.models[child]
    if kind == "mergekit":
        model["tags"] = ["transformers", "mergekit", "merge"]
        _merge_file(hub, child, parents, rng.choice(IN_FILES))
    elif kind == "adapter":
        model["library_name"] = "peft"
        config = json.dumps({"base_model_name_or_path": parents[0]})
        hub.add_file(child, "adapter_config.json", config.encode())
    else:
        _state(world, model, parents, relation, kind, rng)


def _state(world, model: dict, parents: list, relation: str, kind: str, rng) -> None:
    named = list(parents)
    if kind == "old name":
        named = [_old_name(world, parent) for parent in parents]
    if kind in ("all", "tags", "old name"):
        tags = [f"base_model:{name}" for name in named]
        model["tags"] = ["transformers", *tags, *(f"base_model:{relation}:{n}" for n in named)]
    if kind in ("all", "card", "old name"):
        text = named[0] if len(named) == 1 and rng.random() < 0.5 else named
        model["cardData"] = {"base_model": text, "base_model_relation": relation}
    if kind in ("all", "old name"):
        living = [
            {"_id": sha(name)[:24], "id": name} for name in parents if name in world.hub.models
        ]
        if living:
            model["baseModels"] = {"relation": relation, "models": living}


def _old_name(world: World, parent: str) -> str:
    if parent not in world.hub.models:
        return parent
    old = f"old-{parent}"
    world.hub.renamed[old] = parent
    world.statuses[old] = "renamed"
    return old


def _merge_file(hub: Hub, child: str, parents: list[str], name: str) -> None:
    if name == "mergekit_moe_config.yml":
        rows = "\n".join(f"  - source_model: {parent}" for parent in parents)
        text = f"base_model: {parents[0]}\nexperts:\n{rows}\n"
    else:
        rows = "\n".join(f"  - model: {parent}" for parent in parents)
        text = f"models:\n{rows}\nmerge_method: linear\ndtype: bfloat16\n"
    if name == "README.md":
        text = f"---\ntags: [merge]\n---\n# {child}\n\n```yaml\n{text}\n```\n\n```python\nx\n```\n"
    hub.add_file(child, name, text.encode())


def add_details(world: World, tasks: dict[str, int], *, seed: int = 0) -> None:
    """Samples files for every model of the table: ``tasks`` gives the questions of each task."""
    rng = np.random.default_rng(seed)
    for name in world.scores:
        folder = name.replace("/", "__")
        repo = f"datasets/open-llm-leaderboard/{folder}-details"
        for task, n_questions in tasks.items():
            answers = rng.integers(0, 2, n_questions).tolist()
            world.answers[name, task] = answers
            path = f"{folder}/samples_{task}_2024-06-17T17-37-25.144953.json"
            world.hub.add_file(repo, path, samples(task, answers))


def samples(task: str, answers: list, *, first: int = 0, **fields) -> bytes:
    """Lines of a samples file; the hash of a question depends on its position only."""
    metric = BENCHMARKS[task.removeprefix("leaderboard_").split("_")[0].replace("mmlu", "mmlu_pro")]
    lines = [
        json.dumps(
            {
                "doc_id": first + number,
                "doc": {"question": f"Which\u2028line {number}?"},
                "target": "A",
                "resps": [["x" * 20]],
                "doc_hash": sha(task, str(number)) + "0" * 24,
                metric.metric: answer,
                **fields,
            },
            ensure_ascii=False,
        )
        for number, answer in enumerate(answers)
    ]
    return ("\n".join(lines) + "\n").encode()


def client(served, **options) -> Client:
    """A client of a served Hub that does not wait long."""
    return Client(served.url, **{"backoff": 0.01, "timeout": 5, **options})


def backwards(_pool, function, tasks) -> list:
    """What `ThreadPool.imap_unordered` may yield: the results of the last task come first."""
    return [function(task) for task in reversed(tasks)]


def edges_of(snapshot) -> set[tuple[str, str, str]]:
    columns = snapshot.lineage[["parent", "child", "relation"]]
    return set(columns.itertuples(index=False, name=None))
