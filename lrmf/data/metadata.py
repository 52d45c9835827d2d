"""What the Hub says of a model, checked before it is believed: whatever cannot be true is null."""

import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Real

# Files that make a repository an adapter; the first one may name what it adapts.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# Kept of a model's configuration, which may hold chat templates of any length.
CONFIG_KEYS = ("architectures", "model_type", "quantization_config", "quantization", "peft")

EARLIEST = date(2000, 1, 1)  # of what can be true elsewhere
_STAND_IN = date(2022, 3, 2)  # what the Hub gives for every repository that is older
MOST_PARAMETERS = 10**14
# Elements of these types hold several packed weights each (8-bit integers hold one).
_PACKED_TYPES = {"U8", "U16", "U32", "U64", "I16", "I32", "I64", "F4"}
_PACKED_SHARE = 0.05  # of the elements; less are buffers
_PACKED_METHODS = {"gptq", "awq", "aqlm", "hqq", "quip", "mxfp4", "higgs", "vptq", "bitnet"}
_PACKED_TAGS = {*_PACKED_METHODS, "exl2", "exl3", "nf4", *(f"{bits}-bit" for bits in range(1, 8))}
_BITS = {"bits", "w_bit", "nbits", "num_bits", "weight_bits"}
_ADAPTER_TAGS = {"peft", "lora", "qlora", "adapter", "adapter-transformers"}
_ADAPTER_LIBRARIES = {"peft", "adapter-transformers", "adapters"}


def mapping(answer: object, key: str) -> dict:
    """The value of a key if it is a dictionary, else an empty one."""
    value = answer.get(key) if isinstance(answer, dict) else None
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """A short text without control characters, or None."""
    return value if isinstance(value, str) and value.isprintable() and len(value) < 200 else None


def tags_of(answer: dict) -> list[str]:
    """The tags that are texts."""
    tags = answer.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def files_of(answer: dict) -> set[str] | None:
    """Names of the repository's files; None if the answer does not list them."""
    siblings = answer.get("siblings")
    if not isinstance(siblings, list):
        return None
    names = (row.get("rfilename") for row in siblings if isinstance(row, dict))
    return {name for name in names if isinstance(name, str)}


def commit(answer: object) -> str | None:
    """The commit that an answer about a repository names, or None."""
    sha = answer.get("sha") if isinstance(answer, dict) else None
    return sha if isinstance(sha, str) and re.fullmatch(r"[A-Za-z0-9]{1,64}", sha) else None


def is_adapter(answer: dict) -> bool:
    """Whether a repository holds an adapter instead of a model's weights."""
    is_one = text(answer.get("library_name")) in _ADAPTER_LIBRARIES
    return is_one or not (files_of(answer) or set()).isdisjoint(ADAPTER_FILES)


def day(value: object, *, after: date = _STAND_IN) -> str | None:
    """YYYY-MM-DD if something can be of that day (``after`` which the Hub dates it), or None."""
    written = str(value).strip()[:10]
    try:
        found = date.fromisoformat(written)
    except ValueError:
        return None
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    return written if after < found <= tomorrow and found.isoformat() == written else None


def count(value: object, most: int = 2**62) -> int | None:
    """A whole number from 0 to ``most``, or None."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
    return value if is_one else None


def number(value: object) -> float | None:
    """A finite number that is no bool, or None."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    with suppress(OverflowError, ValueError):
        return float(value) if math.isfinite(float(value)) else None


def sizes(answer: dict) -> tuple[float | None, float | None]:
    """Billions of parameters of the model, and the Hub's number if it is not the model's.

    The total of an adapter's file is the adapter's own, that of a 4-bit file counts packed numbers.
    """
    total = count(mapping(answer, "safetensors").get("total"), MOST_PARAMETERS)
    if not total:
        return None, None
    is_part = is_adapter(answer) or bool(mapping(mapping(answer, "config"), "peft"))
    tags = {tag.lower() for tag in tags_of(answer)}
    is_part |= any(tag.startswith("base_model:adapter:") for tag in tags)
    is_part |= not tags.isdisjoint(_ADAPTER_TAGS) or _is_packed(answer, tags)
    return (None, total / 1e9) if is_part else (total / 1e9, None)


def _is_packed(answer: dict, tags: set[str]) -> bool:
    """Whether an element of the weights' file holds several weights."""
    elements = mapping(mapping(answer, "safetensors"), "parameters")
    elements = {kind: n for kind, n in elements.items() if count(n)}
    n_packed = sum(n for kind, n in elements.items() if str(kind).upper() in _PACKED_TYPES)
    if n_packed > _PACKED_SHARE * sum(elements.values()) or not tags.isdisjoint(_PACKED_TAGS):
        return True
    config = mapping(answer, "config")
    pending = [mapping(config, "quantization_config"), mapping(config, "quantization")]
    while pending:
        found = pending.pop()
        pending += [value for value in found.values() if isinstance(value, dict)]
        bits = [found.get(key) for key in _BITS]
        if any(isinstance(n, int | float) and 0 < n < 8 for n in bits):
            return True
        is_given = any(count(n) for n in bits) or found.get("load_in_8bit") is True
        method = str(found.get("quant_method")).lower()
        if found.get("load_in_4bit") is True or (method in _PACKED_METHODS and not is_given):
            return True
    return False


def facts(answer: dict) -> dict:
    """What the Hub knows of a model that the leaderboard has not evaluated."""
    architectures = mapping(answer, "config").get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return {
        "architecture": text(first),
        "params_b": sizes(answer)[0],
        "license": text(mapping(answer, "cardData").get("license")),
        "likes": count(answer.get("likes")),
        "created_at": day(answer.get("createdAt")),
    }
