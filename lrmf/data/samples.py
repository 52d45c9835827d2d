"""Answers to single questions as versions of lm-evaluation-harness write them."""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_WRITTEN = {"true": 1, "true_": 1, "1": 1, "1.0": 1, "false": 0, "false_": 0, "0": 0, "0.0": 0}


class Samples(NamedTuple):
    """Answers of one file, sorted by doc_id, and how many lines were left out.

    ``keys`` holds ``[doc_id, hash]`` of each answer.
    """

    keys: list[list]
    values: list[bool]
    n_repeated: int
    n_unusable: int


def read_samples(lines: Iterable[bytes], metric: str) -> Samples:
    """Read a samples file, of which id, hash and metric are kept: JSON Lines, or one JSON array.

    Where a question was scored through several filters, the filter ``none`` counts, or the first by
    name. Lines that repeat a question are counted and left out; so are lines that are no JSON
    object, have no id, or no 0/1 value of the metric.
    """
    chosen: dict[int, tuple[str, bool, str]] = {}
    n_repeated = n_unusable = 0
    for row in _rows(lines):
        doc_id, value = row.get("doc_id"), _truth(row.get(metric))
        if type(doc_id) is not int or value is None:
            n_unusable += 1
            continue
        name, doc_hash = row.get("filter"), row.get("doc_hash")
        rank = "" if name in (None, "none") else str(name)
        n_repeated += doc_id in chosen and chosen[doc_id][0] == rank
        if doc_id not in chosen or rank < chosen[doc_id][0]:
            doc_hash = doc_hash[:16] if isinstance(doc_hash, str) else ""
            chosen[doc_id] = (rank, value, doc_hash)
    ordered = sorted(chosen.items())
    keys = [[doc_id, doc_hash] for doc_id, (_, _, doc_hash) in ordered]
    return Samples(keys, [value for _, (_, value, _) in ordered], n_repeated, n_unusable)


def _rows(lines: Iterable[bytes]) -> Iterator[dict]:
    """The objects of JSON Lines or of one JSON array; an empty one for what is none."""
    decode, rest, in_array, is_first = json.JSONDecoder().raw_decode, "", False, True
    for line in filter(bytes.strip, lines):
        text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
        if is_first:
            is_first, in_array = False, text.startswith("[")
            text = text[in_array:]
        before, rest = rest, f"{rest}\n{text}" if rest else text
        while rest := rest.lstrip(" \t\r\n," if in_array else None):
            try:
                row, end = decode(rest)
            except (ValueError, RecursionError):
                if not in_array:
                    yield {}
                    rest = ""
                elif before and text.startswith('{"doc_id"'):
                    yield {}  # a sample begins: what stood before it is none
                    before, rest = "", text
                    continue
                break  # in an array an object may go on in the next line
            yield row if isinstance(row, dict) else {}
            rest = rest[end:]
    if rest and rest != "]":
        yield {}


def _truth(value: object) -> bool | None:
    """0 or 1, also as a text, as versions of lm-evaluation-harness wrote it; else None."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = _WRITTEN.get(value.strip().lower().removeprefix("np."))
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None
