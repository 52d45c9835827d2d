"""The Open LLM Leaderboard v2: its benchmarks, and its results table as models and responses."""

import html
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .cards import normalised_id
from .errors import CrawlError

TABLE_REPO = "open-llm-leaderboard/contents"
TABLE_FILE = "data/train-00000-of-00001.parquet"
DETAILS_OWNER = "open-llm-leaderboard"
MAX_TABLE_BYTES = 200 * 2**20

_BBH = dict.fromkeys(
    (
        "boolean_expressions date_understanding disambiguation_qa formal_fallacies "
        "geometric_shapes hyperbaton logical_deduction_five_objects "
        "logical_deduction_seven_objects logical_deduction_three_objects movie_recommendation "
        "navigate object_counting reasoning_about_colored_objects ruin_names "
        "salient_translation_error_detection sports_understanding temporal_sequences "
        "tracking_shuffled_objects_five_objects tracking_shuffled_objects_seven_objects "
        "tracking_shuffled_objects_three_objects web_of_lies"
    ).split(),
    250,
) | {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
_MATH = {
    "algebra_hard": 307,
    "counting_and_prob_hard": 123,
    "geometry_hard": 132,
    "intermediate_algebra_hard": 280,
    "num_theory_hard": 154,
    "prealgebra_hard": 193,
    "precalculus_hard": 135,
}


@dataclass(frozen=True)
class Benchmark:
    """One of the six: its column of the table, its metric in the details, its subtasks' sizes."""

    column: str
    metric: str
    subtasks: dict[str, int] = field(hash=False)

    @property
    def n_trials(self) -> int:
        """Number of questions."""
        return sum(self.subtasks.values())


BENCHMARKS = {
    "ifeval": Benchmark("IFEval Raw", "prompt_level_strict_acc", {"ifeval": 541}),
    "bbh": Benchmark("BBH Raw", "acc_norm", _BBH),
    "math": Benchmark("MATH Lvl 5 Raw", "exact_match", _MATH),
    "gpqa": Benchmark("GPQA Raw", "acc_norm", {"diamond": 198, "extended": 546, "main": 448}),
    "musr": Benchmark(
        "MUSR Raw",
        "acc_norm",
        {"murder_mysteries": 250, "object_placements": 256, "team_allocation": 250},
    ),
    "mmlu_pro": Benchmark("MMLU-PRO Raw", "acc", {"mmlu_pro": 12032}),
}
# Of several evaluations of one model the one closest to the released weights is kept.
PRECISIONS = ("bfloat16", "float16", "float32", "8bit", "4bit", "GPTQ")

_TEXTS = {
    "revision": "Model sha",
    "architecture": "Architecture",
    "precision": "Precision",
    "type": "Type",
    "license": "Hub License",
    "weight_type": "Weight type",
    "base_model": "Base Model",
    "evaluation": "eval_name",
}
_NUMBERS = {"params_b": "#Params (B)", "likes": "Hub ❤️"}
_FLAGS = {
    "moe": "MoE",
    "merged": "Merged",
    "chat_template": "Chat Template",
    "flagged": "Flagged",
}
_DATES = {"created_at": "Upload To Hub Date", "evaluated_at": "Submission Date"}
_UNKNOWN = {"", "?", "unknown", "none", "nan", "null"}
_LINK = re.compile(r"href=[\"']?https?://[^/\"']+/([^\"'>\s?#]+)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")


def read_table(content: bytes, benchmarks: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read the leaderboard's Parquet file.

    Parameters
    ----------
    content : bytes of the file
    benchmarks : names, keys of `BENCHMARKS`

    Returns
    -------
    evaluations : DataFrame
        One row an evaluation: ``model_id``, the columns of a snapshot's models that the table
        knows, ``weight_type, base_model, evaluation``, and the raw accuracies, one column a
        benchmark. Unknown is null; an accuracy outside [0, 1] is unknown.
    skipped : list of str
        Evaluations whose model cannot be identified.

    Raises
    ------
    CrawlError
        If the file is no Parquet table or lacks columns.
    """
    try:
        table = pq.read_table(pa.BufferReader(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise CrawlError(
            f"{TABLE_REPO}: {TABLE_FILE} is no readable Parquet table ({type(error).__name__}); "
            "try again later"
        ) from error
    wanted = [BENCHMARKS[benchmark].column for benchmark in benchmarks]
    missing = [name for name in wanted if name not in table]
    if missing or not {"fullname", "Model"}.intersection(table):
        lacking = ", ".join(missing) or "fullname"
        raise CrawlError(
            f"{TABLE_REPO}: the table lacks {lacking}; its format has changed, this version of "
            "lrmf cannot read it"
        )
    ids = [_model_id(row) for row in _columns(table, ["fullname", "Model"])]
    frame = pd.DataFrame({"model_id": pd.array(ids, dtype="string")})
    for name, column in _TEXTS.items():
        frame[name] = pd.array([_text(value) for value in _column(table, column)], dtype="string")
    for name, column in _NUMBERS.items():
        frame[name] = pd.array([_number(value) for value in _column(table, column)], "Float64")
    frame["params_b"] = frame["params_b"].where(frame["params_b"] > 0)
    for name, column in _FLAGS.items():
        frame[name] = pd.array([_flag(value) for value in _column(table, column)], "boolean")
    for name, column in _DATES.items():
        frame[name] = pd.array([_date(value) for value in _column(table, column)], dtype="string")
    for benchmark, column in zip(benchmarks, wanted, strict=True):
        frame[benchmark] = np.array([_accuracy(v) for v in table[column]], dtype=np.float32)
    known = frame["model_id"].notna()
    skipped = [str(name) for name in frame["evaluation"][~known]]
    return frame[known].reset_index(drop=True), skipped


def one_evaluation_each(evaluations: pd.DataFrame, benchmarks: list[str]) -> pd.DataFrame:
    """Keep one evaluation a model, and name the others in ``other_evaluations``.

    The rule: the most benchmarks scored, then precision in the order bfloat16, float16, float32,
    8bit, 4bit, GPTQ, others, then the latest submission, then the name of the evaluation. Where a
    column ``renamed`` tells models evaluated under an old name, these come last.

    Returns
    -------
    DataFrame sorted by ``model_id``, which is unique
    """
    rank = {precision: position for position, precision in enumerate(PRECISIONS)}
    order = pd.DataFrame(
        {
            "model_id": evaluations["model_id"],
            "renamed": evaluations.get("renamed", False),
            "unscored": evaluations[benchmarks].isna().sum(axis=1),
            "precision": evaluations["precision"].map(rank).fillna(len(rank)).astype(float),
            "age": -pd.to_numeric(evaluations["evaluated_at"].str.replace("-", "")).fillna(0),
            "evaluation": evaluations["evaluation"].fillna(""),
        }
    )
    order = order.sort_values(list(order), kind="stable").index
    ranked = evaluations.loc[order]
    first = ~ranked["model_id"].duplicated()
    kept = ranked[first].reset_index(drop=True)
    others = (
        ranked[~first]
        .groupby("model_id")["evaluation"]
        .agg(lambda names: "; ".join(names.fillna("?")))
    )
    kept["other_evaluations"] = kept["model_id"].map(others).astype("string")
    return kept


def claimed_bases(evaluations: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Parents and relations in the column `Base Model`, by model."""
    columns = evaluations[["model_id", "base_model", "weight_type", "merged"]]
    bases = {row["model_id"]: claimed_base(row) for row in columns.to_dict("records")}
    return {model_id: base for model_id, base in bases.items() if base}


def claimed_base(row: dict) -> tuple[str, str] | None:
    """Parent and relation in the column `Base Model`, or None.

    The model itself, "X (Merge)" (which does not name the parents) and "Removed" are no parents.
    """
    base = row["base_model"]
    if pd.isna(base) or base.strip().lower() in ("removed", "base") or "(" in base:
        return None
    parent = normalised_id(base)
    if parent is None or "/" not in parent or parent.casefold() == row["model_id"].casefold():
        return None
    if row["weight_type"] is not pd.NA and str(row["weight_type"]).lower() == "adapter":
        return parent, "adapter"
    return parent, "merge" if row["merged"] is not pd.NA and row["merged"] else "finetune"


def _columns(table: pd.DataFrame, names: list[str]):
    return zip(*(_column(table, name) for name in names), strict=True)


def _column(table: pd.DataFrame, name: str) -> list:
    return table[name].tolist() if name in table else [None] * len(table)


def _model_id(names: tuple) -> str | None:
    """From ``fullname``, or from the link or the text of the HTML in ``Model``."""
    fullname, markup = names
    if name := normalised_id(fullname):
        return name
    if not isinstance(markup, str):
        return None
    if (link := _LINK.search(markup)) and (name := normalised_id(html.unescape(link[1]))):
        return name
    return normalised_id(html.unescape(_TAG.sub("", markup)))


def _text(value: object) -> str | None:
    """A text without the emoji in front and surrounding spaces; null if it says nothing."""
    if not isinstance(value, str):
        return None
    text = re.sub(r"^[^\w(\[<]+", "", value.strip()).strip()
    return None if text.lower() in _UNKNOWN else text


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if np.isfinite(value) else None


def _flag(value: object) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool) else None


def _date(value: object) -> str | None:
    """YYYY-MM-DD, or null."""
    text = value.strip() if isinstance(value, str) else str(value)
    return text[:10] if re.match(r"\d{4}-\d\d-\d\d(?!\d)", text) else None


def _accuracy(value: object) -> float:
    number = _number(value)
    return np.nan if number is None or not 0 <= number <= 1 else number
