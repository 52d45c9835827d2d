"""ATLAS: matrices of answers of Open LLM Leaderboard v1 models, one CSV a benchmark.

The header has the items' numbers, a row the model's id and 0 or 1 for each. Source:
``experiments/baseline_compare/tinybenchmark_calibration/response_matrices.zip`` of the repository
Peiyu-Georgia-Li/ATLAS (arXiv 2511.04689), on the items of tinyBenchmarks (arXiv 2402.14992).
"""

import csv
import io
import re
from collections.abc import Iterable

from .results import Results, Unreadable, known_id

LICENSE = ""  # the repository states none
CITATION = (
    "Li et al. (2025), Adaptive Testing for LLM Evaluation, arXiv:2511.04689; "
    "Polo et al. (2024), tinyBenchmarks, arXiv:2402.14992"
)
NOTE = (
    "Open LLM Leaderboard v1: answers of its models to single questions, as ATLAS publishes them."
)
_PARTS = re.compile(r"gaussian_sampled_|cleaned?_|response_matrix|_(?:train|test|val)$|^tiny")
_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # in small letters
_MISSING = {"", "na", "nan"}


def read(files: Iterable, results: Results) -> None:
    """Read every matrix; the benchmark is what its file name says beside ``response_matrix``."""
    for file in files:
        with results.reading(file):
            if not file.name.endswith(".csv"):
                raise Unreadable("is no matrix of answers (.csv)")
            text = file.read_bytes().decode("utf-8-sig")
            rows = csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
            _read_matrix(file, rows, results)


def _read_matrix(file, rows, results: Results) -> None:
    benchmark = file.name.removesuffix(".csv")
    while (shorter := _PARTS.sub("", benchmark).strip("_")) != benchmark:
        benchmark = shorter
    # Numbers of lines are those of the file, in which some may be blank.
    stripped = ([*map(str.strip, row)] for row in rows)
    lines = [(line, row) for line, row in enumerate(stripped, 1) if any(row)]
    header = lines[0][1] if lines else []
    # R writes numbers as names of columns with an X in front.
    items = [re.sub(r"^X(?=\d)", "", name) for name in header[1:]]
    if not items or not all(map(str.isdecimal, items)) or len(set(items)) < len(items):
        raise Unreadable("is no matrix of answers: its header has no item numbers")
    for line, row in lines[1:]:
        try:
            answers = zip(items, map(str.lower, row[1:]), strict=True)
            known = {item: _VALUES[value] for item, value in answers if value not in _MISSING}
            results.add(file, known_id(row[0]), (benchmark, benchmark), known)
        except (Unreadable, ValueError, LookupError) as error:
            reason = error if isinstance(error, Unreadable) else "not one 0 or 1 for each item"
            results.leave_out(file, f"row {line}: {reason}")
