"""Community Evals: scores that models state in ``.eval_results``, by benchmark dataset.

``api/datasets/<id>/leaderboard`` lists the models of a benchmark (`HfApi.get_dataset_leaderboard`),
``api/models/<id>?expand=evalResults`` the results of a model (`HfApi.model_info`). The rows of both
are read by the client's own parsers, one by one.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.hf_api import DatasetLeaderboardEntry

from ..data.ids import normalised_id
from ..data.metadata import count
from ..data.schema import UNKNOWN_TRIALS, is_id, is_text
from .ancestry import Source, Work, visits_by_id
from .edges import current_names
from .errors import CrawlError

SOURCES_FILE = "score_sources.parquet"
_TEXTS = (
    "date source_url source_name source_user source_org notes dataset_revision filename"
).split()
_COLUMNS = ["model_id", "benchmark", "subtask", "value", *_TEXTS, "verified", "pull_request"]


class Community(Source):
    """The models with Community Evals of some datasets, and every score with where it is from.

    The datasets are by default the official benchmarks of the Hub, the models all on their
    leaderboards; ``options`` are those of `crawl`.
    """

    def __init__(self, work: Work, options: dict):
        self._client, self._log, each, _ = work
        self._left_out: list[dict] = []
        datasets, models = options["datasets"], options["models"]
        if datasets is None:
            rows = self._rows("api/datasets", filter="benchmark:official", limit=1000)
            datasets = [row["id"] for row in rows if isinstance(row, dict) and "id" in row]
        boards = dict(each("benchmarks", self._listed, sorted(set(datasets))))
        listed = [row for name in sorted(boards) for row in boards[name]]
        models = sorted({row["model_id"] for row in listed}) if models is None else models
        self.model_ids = models[: options["max_models"]]
        answers = dict(each("results", self._stated, self.model_ids))
        stated = [row for name in sorted(answers) for row in answers[name]]
        stated = [row for row in stated if row["benchmark"] in boards]
        listed = [row for row in listed if row["model_id"] in answers]
        self._scores = stated + _further(listed, stated)
        if not self._scores:
            raise CrawlError(
                "no Community Evals are there for these benchmarks and models; name others with "
                "--datasets or --models-from"
            )

    def _listed(self, dataset: str) -> list[dict]:
        """Scores on the leaderboard of a dataset; it names no task."""

        def read(row: dict) -> dict:
            entry = DatasetLeaderboardEntry(**row)
            if normalised_id(entry.model_id) != entry.model_id:
                raise ValueError("no id of a model")
            source = {f"source_{key}": value for key, value in (entry.source or {}).items()}
            return vars(entry) | source | {"benchmark": dataset}

        rows = self._rows(f"api/datasets/{dataset}/leaderboard", base_model="false")
        return self._read(dataset, read, rows)

    def _stated(self, model_id: str) -> list[dict]:
        """Scores in the results of a model."""

        def read(row: dict) -> dict:
            if "error" in row:
                raise ValueError("the Hub found the file invalid")
            (entry,) = parse_eval_result_entries([row])
            place = {"benchmark": entry.dataset_id, "subtask": entry.task_id}
            if not all(map(is_id, place.values())):
                raise ValueError("no name of a task")
            return vars(entry) | place | {"model_id": model_id}

        rows = self._rows(f"api/models/{model_id}", expand=["evalResults"])
        return self._read(model_id, read, rows)

    def _rows(self, path: str, **parameters) -> list:
        """Rows of an answer; if there is none, the reason is listed."""

        def ask() -> dict:
            if path == "api/datasets":
                pages = self._client.pages(path, **parameters)
                return {"rows": [row for page in pages for row in page]}
            answer = self._client.json(path, **parameters)
            rows = answer.get("evalResults") if isinstance(answer, dict) else answer
            return {"rows": rows if isinstance(rows, list) else []}

        entry = self._log.ask("scores", path, ask)
        if entry["reason"]:
            self._left_out.append({"model_id": path, "reason": entry["reason"]})
        return entry.get("rows", [])

    def _read(self, place: str, read: Callable, rows: list) -> list[dict]:
        """Scores of the rows that have one; the others are listed."""
        scores = []
        for row in rows:
            try:
                score = read(row)
                if isinstance(score["value"], bool) or not np.isfinite(float(score["value"])):
                    raise ValueError("no number")
                score = {name: score.get(name) for name in _COLUMNS}
                texts = {name: score[name] if is_text(score[name]) else None for name in _TEXTS}
                checked = {"value": float(score["value"]), "verified": score["verified"] is True}
                checked["pull_request"] = count(score["pull_request"])
                scores.append(score | texts | checked)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                reason = f"{str(row)[:200]}: {type(error).__name__} {error}"
                self._left_out.append({"model_id": place, "reason": reason})
        return scores

    def tables(self, visits: dict, lineage: pd.DataFrame) -> dict:
        """Models, items and responses of the scores.

        Of several scores of a model the verified one counts, then the latest. A table beside the
        snapshot has every score as stated, with where it is from and whether it is used.
        """
        frame, current = pd.DataFrame(self._scores, columns=_COLUMNS), current_names(visits)
        frame["model_id"] = [current[name.casefold()] for name in frame["model_id"]]
        frame.insert(1, "item_id", frame["benchmark"] + "/" + frame["subtask"])
        frame["score"], frame["reason"] = _as_proportions(frame)
        order = ["model_id", "item_id", "verified", "date", "value"]
        frame = frame.sort_values(order, na_position="first", ignore_index=True, key=_instants)
        used = frame.dropna(subset="score").drop_duplicates(order[:2], keep="last")
        if used.empty:
            raise CrawlError("none of the scores is a proportion or a percentage; name others")
        frame["used"] = frame.index.isin(used.index)
        matrix = used.pivot(index="model_id", columns="item_id", values="score")
        items = used[["item_id", "benchmark", "subtask"]].drop_duplicates().sort_values("item_id")
        there = visits_by_id(visits)
        facts = {name: {"revision": visit.sha, **visit.facts} for name, visit in there.items()}
        models = pd.DataFrame([{"model_id": name} | facts.get(name, {}) for name in matrix.index])
        # The workers find what is left out in any order.
        left_out = sorted(self._left_out, key=lambda row: (row["model_id"], row["reason"]))
        sources = pd.concat([frame, pd.DataFrame(left_out)], ignore_index=True)
        numbers = ["value", "score", "verified", "used", "pull_request"]
        texts = dict.fromkeys(sources.columns.difference(numbers), "string")
        return {
            "tables": {
                "models": models.convert_dtypes(),
                "items": items.astype("string").assign(n_trials=UNKNOWN_TRIALS),
                "lineage": lineage,
                "responses": np.ascontiguousarray(matrix, dtype=np.float32),
            },
            "about": "Community Evals, as authors of the models and others state them",
            "provenance": {"n_scores": len(frame), "n_scores_used": len(used)},
            "more": {SOURCES_FILE: sources.astype(texts)},
        }


def _further(listed: list[dict], stated: list[dict]) -> list[dict]:
    """Scores that only a leaderboard has; what it says of stated ones is added to these."""
    tasks, results = defaultdict(set), defaultdict(list)
    for row in stated:
        tasks[row["benchmark"]].add(row["subtask"])
        results[row["model_id"], row["benchmark"], row["value"]].append(row)
    further = []
    for row in listed:
        same = results[row["model_id"], row["benchmark"], row["value"]]
        for result in same:
            result.update((key, value) for key, value in row.items() if value is not None)
        if not same:  # a leaderboard does not name the task
            known = tasks[row["benchmark"]]
            further.append(row | {"subtask": next(iter(known)) if len(known) == 1 else "default"})
    return further


def _instants(column: pd.Series) -> pd.Series:
    """Dates as instants, null where they are none; other columns as they are."""
    if column.name != "date":
        return column
    return pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)


def _as_proportions(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Scores from 0 to 1, and why a value has none.

    An item with a value over 1 is in percent; there a value up to 1 may be either.
    """
    percent = frame.groupby("item_id")["value"].transform("max") > 1
    score = frame["value"] / np.where(percent, 100, 1)
    unclear = percent & (frame["value"] > 0) & (frame["value"] <= 1)
    reason = pd.Series(pd.NA, frame.index, dtype="string")
    reason[~score.between(0, 1)] = "neither a proportion nor a percentage"
    reason[unclear] = "a proportion or a percentage: others of the item are in percent"
    return score.where(reason.isna()), reason
