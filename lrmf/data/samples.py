"""Answers to single questions as versions of lm-evaluation-harness write them."""

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import NamedTuple

from .benchmarks import LOWER_IS_BETTER, METRICS, metric_rank

_WRITTEN = {"true": 1, "true_": 1, "false": 0, "false_": 0}


class Samples(NamedTuple):
    """Answers of one file, sorted by doc_id, and how many lines were left out.

    Of the unusable lines ``n_graded`` have a number, but another than 0 or 1, or several. ``keys``
    holds ``[doc_id, hash]`` of each answer, ``filters`` the names of all filters that answers went
    through, "" for ``none``, and ``lacks`` what the unusable lines lack.
    """

    keys: list[list]
    values: list[bool]
    n_repeated: int
    n_unusable: int
    n_graded: int
    filters: list[str]
    lacks: str


def read_samples(
    lines: Iterable[bytes], metric: str, *, strict: bool = False, only: str | None = None
) -> Samples:
    """Read a samples file, of which id, hash and metric are kept: JSON Lines, or one JSON array.

    Where a question was scored through several filters, the filter ``none`` counts, or the first by
    name; or ``only`` this filter, if one is given. Lines that repeat a question are counted and
    left out; so are lines that are no JSON object, have no number as id, or no 0/1 value of the
    metric. If ``strict``, text that is no JSON raises ValueError.
    """
    chosen: dict[int, tuple[str, bool, str]] = {}
    filters, lacking = set(), set()
    n_repeated = n_unusable = n_graded = 0
    for row in _rows(lines, strict=strict):
        doc_id, value = _whole(row.get("doc_id")), _truth(row.get(metric))
        if doc_id is None or value is None:
            n_unusable += 1
            n_graded += _is_grade(row.get(metric))
            by = f"0 or 1 by {metric or 'any metric'}"
            lacking.add(by if value is None else "a number as doc_id")
            continue
        name, doc_hash = row.get("filter"), row.get("doc_hash")
        rank = "" if name in (None, "none") else str(name)
        filters.add(rank)
        if only not in (None, rank):
            continue
        n_repeated += doc_id in chosen and chosen[doc_id][0] == rank
        if doc_id not in chosen or rank < chosen[doc_id][0]:
            is_hash = isinstance(doc_hash, str) and doc_hash.isascii() and doc_hash.isalnum()
            doc_hash = doc_hash[:16] if is_hash else ""  # it becomes part of an item's id
            chosen[doc_id] = (rank, value, doc_hash)
    ordered = sorted(chosen.items())
    keys = [[doc_id, doc_hash] for doc_id, (_, _, doc_hash) in ordered]
    values = [value for _, (_, value, _) in ordered]
    lacks = " or ".join(sorted(lacking))
    return Samples(keys, values, n_repeated, n_unusable, n_graded, sorted(filters), lacks)


def read_samples_file(path, task: str, **options) -> tuple[Samples, str | None]:
    """The answers in a file, and the metric of its task by which they are right.

    ``options`` are those of `read_samples`.
    """
    with path.open("rb") as file:
        metric = metric_of(file, task)
    with path.open("rb") as file:
        return read_samples(file, metric, **options), metric


def metric_of(lines: Iterable[bytes], task: str) -> str | None:
    """The metric of a samples file: the first by `metric_rank` that its first line of any has."""
    for row in _rows(lines):
        listed = row.get("metrics")
        names = [*METRICS, *(listed if isinstance(listed, list) else [])]
        names = {name for name in names if isinstance(name, str) and name in row}
        if names := names - LOWER_IS_BETTER:
            return min(names, key=lambda name: (metric_rank(name, task), name))
    return None


def name_questions(
    lists: Mapping[Hashable, list[list]], n_files: Mapping[Hashable, int]
) -> dict[Hashable, list[str]]:
    """Name each question of a task the same in all lists of keys ``[doc_id, hash]``.

    A question is known by its hash, since versions of the harness number them differently; the
    second of two questions with one hash is told by its turn. Without hashes, questions are taken
    to be numbered as in most files: ``n_files`` is how many have a list.
    """
    votes: Counter = Counter()
    for place, n in n_files.items():
        votes.update({(doc_id, text): n for doc_id, text in lists[place] if text})
    usual: dict[int, str] = {}
    for (doc_id, doc_hash), _ in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
        usual.setdefault(doc_id, doc_hash)
    named = {}
    for place in n_files:
        names, turns = [], Counter()
        for doc_id, doc_hash in lists[place]:
            name = doc_hash or usual.get(doc_id, f"doc-{doc_id}")
            turns[name] += 1
            names.append(name if turns[name] == 1 else f"{name}-{turns[name]}")
        named[place] = names
    return named


def _rows(lines: Iterable[bytes], *, strict: bool = False) -> Iterator[dict]:
    """The objects of JSON Lines or of one JSON array; an empty one for what is none."""
    decode, rest, in_array, is_first = json.JSONDecoder().raw_decode, "", False, True
    for number, line in enumerate(lines, 1):
        text = line.decode("utf-8", "strict" if strict else "surrogateescape")
        if not (text := text.removeprefix("\ufeff").strip()):
            continue
        if is_first:
            is_first, in_array = False, text.startswith("[")
            text = text[in_array:]
        before, rest = rest, f"{rest}\n{text}" if rest else text
        while rest := rest.lstrip(" \t\r\n," if in_array else None):
            try:
                row, end = decode(rest)
            except (ValueError, RecursionError) as error:
                # In an array an object may go on in the next line, unless a sample begins there.
                if in_array and not (before and text.startswith('{"doc_id"')):
                    break
                if strict:
                    raise ValueError(f"line {number} is no JSON") from error
                yield {}
                before, rest = "", text if in_array else ""
                continue
            yield row if isinstance(row, dict) else {}
            rest = rest[end:]
    if rest and rest != "]":
        if strict:
            raise ValueError("the list of samples breaks off")
        yield {}


def _whole(value: object) -> int | None:
    """A whole number, also as 12.0 or "12", as data frames and databases write it; else None."""
    if isinstance(value, str | float) and re.fullmatch(r"\d{1,9}(\.0)?", str(value).strip()):
        return int(float(value))
    return value if type(value) is int else None


def _truth(value: object) -> bool | None:
    """0 or 1, also as a text, as versions of lm-evaluation-harness wrote it; else None."""
    number = _number(value)
    return bool(number) if number in (0, 1) else None


def _is_grade(value: object) -> bool:
    """Whether a value is a number other than 0 and 1, or several."""
    number = _number(value)
    if number is None:
        return isinstance(value, list) and len(value) > 1
    return -inf < number < inf and number not in (0, 1)


def _number(value: object) -> float | None:
    """A number, also in a list of one or as a text, or None."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):  # also `np.True_` and `np.float64(1.0)`, as NumPy 2 writes them
        text = value.strip().lower().removeprefix("np.").removesuffix(")").rpartition("(")[2]
        with suppress(ValueError):
            value = _WRITTEN[text] if text in _WRITTEN else float(text)
    return value if isinstance(value, int | float) else None
