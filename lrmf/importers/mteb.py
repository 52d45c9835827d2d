"""MTEB: a checkout of ``embeddings-benchmark/results`` and the metadata of the package ``mteb``.

Results are ``<model>/<revision>/<task>.json`` with ``org__name`` for the model. The package (its
wheel or its folder; nothing of it is run) says what the models are adapted from, which splits of a
task count, how many samples they have, and which score was the main one before version 1.11.
Source: `mteb.TaskResult` of version 2.26.
"""

import ast
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable

from ..data.metadata import EARLIEST, count, day, mapping, number, text
from ..data.schema import MOST_TRIALS
from .results import Results, Unreadable, known_id, load_json

LICENSE = "CC0-1.0"
CITATION = "Muennighoff et al. (2023), MTEB, arXiv:2210.07316; Enevoldsen et al. (2025), MMTEB"
NOTE = (
    "MTEB: main score of each task, the mean over its splits and subsets; negative scores are 0. "
    "Models that lack a usual subset of a task have no score of it."
)
# Of scores that mteb wrote by kind before 1.11, the beginnings of their later names.
_KINDS = {"cos_sim": "cosine"} | {
    kind: kind for kind in ("dot", "euclidean", "manhattan", "max", "similarity", "v_measures")
}


def read(files: Iterable, results: Results) -> None:
    """Read the package first: it says which splits, scores and revisions count."""
    models, tasks, sizes, found = {}, {}, {}, defaultdict(list)
    rest = []
    for file in files:
        with results.reading(file):
            if file.name.endswith(".py"):
                _read_code(file, models, tasks)
            elif "descriptive_stats" in str(file):
                sizes[file.name.removesuffix(".json")] = _sizes(load_json(file))
            elif file.name.endswith(".json") and ".whl" not in str(file):
                rest.append(file)
    for model_id, facts in models.items():
        results.add_edge(facts.pop("adapted_from", None), model_id, "finetune", "adapted_from")
        results.add_model(model_id, order=(1,), **facts)
    for file in rest:
        with results.reading(file):
            # <model>/<revision>/experiments/<settings>/<task>.json: mteb leaves these out, too.
            if (name := file.parent.parent.name) == "experiments":
                raise Unreadable("is of an experiment with other settings of the model")
            model_id = known_id(name.replace("__", "/", 1))
            content = load_json(file)
            if file.name == "model_meta.json":
                facts = _facts(content)
                results.add_edge(facts.pop("adapted_from"), model_id, "finetune", "adapted_from")
                results.add_model(model_id, order=(0, facts["revision"] or ""), **facts)
                continue
            task = content.get("task_name") or file.name.removesuffix(".json")
            scores = _main_scores(content, *tasks.get(task, (None, None)))
            # 1.12 is later than 1.9, and whatever is stated later than nothing.
            version = [*map(int, re.findall(r"\d+", str(content.get("mteb_version"))))]
            usual = file.parent.name == models.get(model_id, {}).get("revision")
            found[task].append((file, model_id, scores, (usual, version, file.parent.name)))
    for task, runs in found.items():
        _add_task(task, runs, sizes.get(task, {}), results)


def _add_task(task: str, runs: list, sizes: dict, results: Results) -> None:
    """Mean over the splits and subsets that most models have; a run that lacks one is left out."""
    counts = Counter(tuple(sorted(scores)) for _, _, scores, _ in runs)
    usual = max(counts, key=lambda keys: (counts[keys], len(keys), keys))
    n_trials = sum(sizes.get(split, 0) for split in {split for split, _ in usual})
    for file, model_id, scores, order in runs:
        with results.reading(file):
            if missing := [key for key in usual if key not in scores]:
                raise Unreadable(f"lacks {len(missing)} of the {len(usual)} usual subsets")
            mean = max(0.0, sum(scores[key] for key in usual) / len(usual))
            results.add(file, model_id, (task, task), mean, n_trials=n_trials, order=order)


def _main_scores(
    content: dict, wanted: list | None, main: str | None
) -> dict[tuple[str, str], float]:
    """Main score by split and subset, of the splits that count."""
    is_old = "mteb_dataset_name" in content and "scores" not in content
    scores = _old_scores(content, main) if is_old else mapping(content, "scores")
    kept = [split for split in scores if not wanted or split in wanted] or list(scores)
    found = {
        (split, str(row["hf_subset"])): number(row.get("main_score"))
        for split in kept
        for row in scores[split]
    }
    if not found:
        raise Unreadable("is no result of mteb: it has no scores")
    if None in found.values():
        unknown = "; before mteb 1.11 it is looked up in the package (.whl)" if is_old else ""
        raise Unreadable("has no main_score" + unknown)
    return found


def _old_scores(content: dict, main: str | None) -> dict[str, list[dict]]:
    """Scores of mteb before 1.11 as it writes them now: rows by split, one for each subset."""
    splits = {split: rows for split, rows in content.items() if isinstance(rows, dict)}
    names = {name for rows in splits.values() for name in rows if mapping(rows, name)}
    scores = defaultdict(list)
    for split, rows in splits.items():
        for subset, row in rows.items() if names - _KINDS.keys() else [("default", rows)]:
            if isinstance(row, dict):  # else it is a time
                by_kind = ((new, mapping(row, old)) for old, new in _KINDS.items())
                row |= {f"{kind}_{name}": each[name] for kind, each in by_kind for name in each}
                value = row.get("main_score", row.get(main))
                scores[split].append({"hf_subset": subset, "main_score": value})
    return scores


def _sizes(content: dict) -> dict[str, int]:
    """Queries, or else samples, of each split."""
    found = {split: row.get("num_queries") or row["num_samples"] for split, row in content.items()}
    if any(count(size, MOST_TRIALS) is None for size in found.values()):
        raise Unreadable("has sizes that are no numbers of samples")
    return found


def _facts(stated: dict) -> dict:
    numbers = {name: number(stated.get(name)) for name in ("n_parameters", "embed_dim")}
    texts = {name: text(stated.get(name)) for name in ("adapted_from", "revision", "license")}
    return texts | numbers | {"created_at": day(stated.get("release_date"), after=EARLIEST)}


def _read_code(file, models: dict, tasks: dict) -> None:
    """Literal arguments of ``ModelMeta(...)`` and ``TaskMetadata(...)``; the code is never run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strings that Python would read otherwise
        tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        stated = {word.arg: _literal(word.value) for word in node.keywords}
        if not isinstance(name := stated.get("name"), str):
            continue
        if node.func.id == "ModelMeta":
            models[name] = _facts(stated)
        elif node.func.id == "TaskMetadata":
            splits = stated.get("eval_splits")
            splits = splits if isinstance(splits, list) else None
            tasks[name] = splits, text(stated.get("main_score"))


def _literal(node: ast.expr) -> object:
    """The value of a literal, of products and sums of numbers, and of int() of them; or None."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "int" and node.args:
        value = number(_literal(node.args[0]))
        return None if value is None else int(value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Add):
        left, right = number(_literal(node.left)), number(_literal(node.right))
        if left is None or right is None:
            return None
        return left * right if isinstance(node.op, ast.Mult) else left + right
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
