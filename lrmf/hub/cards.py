"""What a model's metadata says about its parents: pure functions from raw answers to claims.

Model cards are written by hand. Nothing here trusts a type, a spelling or a size; whatever cannot
be read as the id of a Hub repository is left out.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple
from urllib.parse import unquote

import yaml

from ..data.schema import RELATIONS

# From the most to the least authoritative. The Hub derives baseModels from the card and keeps it
# up to date through renames; tags and card are the author's words; then the files that made the
# model; last the leaderboard's own column.
MERGE_FILES = ("mergekit_config.yml", "mergekit_moe_config.yml", "merge.yml", "README.md")
ADAPTER_FILE = "adapter_config.json"
DECLARED = ("baseModels", "tags", "card")
FILES = (*MERGE_FILES, ADAPTER_FILE)
SOURCES = (*DECLARED, *FILES, "leaderboard")

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,126}[A-Za-z0-9_\-])?"
_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")
_HOST = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(.*)", re.IGNORECASE
)
_MARKDOWN = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NO_MODEL = {"datasets", "spaces", "api", "collections", "papers", "docs", "blog"}
_RELATION_WORDS = {
    "finetuned": "finetune",
    "fine-tune": "finetune",
    "fine-tuned": "finetune",
    "merged": "merge",
    "lora": "adapter",
    "peft": "adapter",
    "quantization": "quantized",
    "quantize": "quantized",
    **{relation: relation for relation in RELATIONS},
}
_MERGE_TAGS = {"merge", "mergekit", "lazymergekit", "moerge", "mergekit-moe"}
_QUANTIZED_TAGS = {"gguf", "gptq", "awq", "exl2", "bitsandbytes-quantized"}
_NAME_KEYS = ("name", "id", "model", "model_name", "base_model", "path", "repo_id", "source_model")
_YAML_BLOCK = re.compile(r"^```[ \t]*ya?ml[ \t]*\r?\n(.*?)(?:^```|\Z)", re.IGNORECASE | re.M | re.S)
_MAX_DEPTH, _MAX_NODES, _MAX_SLICES, _MAX_NAMES = 12, 5000, 500, 200


class Claim(NamedTuple):
    """One source's statement that a model descends from ``parent``; the relation may be open."""

    parent: str
    relation: str | None
    source: str


def normalised_id(text: object) -> str | None:
    """``org/name`` or a bare ``name``, or None if the text cannot be the id of a model.

    Spaces, quotes, URLs of the Hub, Markdown links, trailing slashes, ``@revision`` and ``.git``
    are taken off. Local paths, other hosts' URLs, datasets and anything but a text give None.
    """
    if not isinstance(text, str) or len(text) > 500:
        return None
    text = text.strip().strip("'\"`").strip()
    if link := _MARKDOWN.fullmatch(text):
        text = link[1]
    if url := _HOST.fullmatch(text):  # the page of a model, or one below it
        segments = [part for part in unquote(re.split("[?#]", url[1])[0]).split("/") if part]
        text = "/".join(segments[segments[:1] == ["models"] :][:2])
    elif "://" in text:
        return None
    name = text.split("@")[0].rstrip("/").removesuffix(".git")
    if not _ID.fullmatch(name) or ".." in name or name.split("/")[0] in _NO_MODEL:
        return None
    return name


def normalised_relation(text: object) -> str | None:
    """One of the four relations, or None."""
    return _RELATION_WORDS.get(text.strip().lower()) if isinstance(text, str) else None


def mapping(answer: dict, key: str) -> dict:
    """The value of a key if it is a dictionary, else an empty one."""
    return value if isinstance(value := answer.get(key), dict) else {}


def declared_claims(answer: dict) -> list[Claim]:
    """Parents in ``baseModels``, in the tags and in the card, as `model_info` answers."""
    bases, card = answer.get("baseModels"), mapping(answer, "cardData")
    relation = normalised_relation(mapping(answer, "baseModels").get("relation"))
    models = bases.get("models") if isinstance(bases, dict) else bases
    claims = [Claim(parent, relation, "baseModels") for parent in _ids(models)]

    # Tags come in pairs, with and without the relation.
    relations: dict[str, str | None] = {}
    for tag in tags_of(answer):
        if not (text := tag.removeprefix("base_model:")) or text == tag:
            continue
        word, _, rest = text.partition(":")
        relation = normalised_relation(word) if rest else None
        if parent := normalised_id(rest if relation else text):
            relations[parent] = relation or relations.get(parent)
    claims += [Claim(parent, relation, "tags") for parent, relation in relations.items()]

    relation = card_relation(answer)
    return claims + [Claim(parent, relation, "card") for parent in _ids(card.get("base_model"))]


def card_relation(answer: dict) -> str | None:
    """The card's ``base_model_relation``, which overrides every inferred relation."""
    return normalised_relation(mapping(answer, "cardData").get("base_model_relation"))


def tags_of(answer: dict) -> list[str]:
    """The tags that are texts."""
    tags = answer.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def inferred_relation(answer: dict, n_parents: int) -> str:
    """What the Hub infers where no source names the relation."""
    if _is_adapter(answer):
        return "adapter"
    if n_parents > 1 or is_merge(answer):
        return "merge"
    if _QUANTIZED_TAGS.intersection(map(str.lower, tags_of(answer))):
        return "quantized"
    return "finetune"


def _is_adapter(answer: dict) -> bool:
    return answer.get("library_name") == "peft" or ADAPTER_FILE in (files_of(answer) or ())


def is_merge(answer: dict) -> bool:
    """Whether tags or relation say that the model was merged."""
    tagged = not _MERGE_TAGS.isdisjoint(map(str.lower, tags_of(answer)))
    return tagged or any(claim.relation == "merge" for claim in declared_claims(answer))


def commit(answer: object) -> str | None:
    """The commit that an answer about a repository names, or None."""
    sha = answer.get("sha") if isinstance(answer, dict) else None
    return sha if isinstance(sha, str) and re.fullmatch(r"[A-Za-z0-9]{1,64}", sha) else None


def files_of(answer: dict) -> set[str] | None:
    """Names of the repository's files; None if the answer does not list them."""
    siblings = answer.get("siblings")
    if not isinstance(siblings, list):
        return None
    names = (row.get("rfilename") for row in siblings if isinstance(row, dict))
    return {name for name in names if isinstance(name, str)}


def files_to_read(answer: dict, *, merged: bool, own_ids: set[str]) -> list[str]:
    """Files that may name parents which the metadata do not.

    A merge that declares fewer than two parents is incomplete; so is an adapter without any.
    ``merged`` is whether the leaderboard calls the model a merge; its ``own_ids`` are no parents.
    """
    parents = {claim.parent for claim in declared_claims(answer)} - own_ids
    present, wanted = files_of(answer), []
    if len(parents) < 2 and (merged or is_merge(answer)):
        wanted += MERGE_FILES
    if not parents and _is_adapter(answer):
        wanted.append(ADAPTER_FILE)
    return [name for name in wanted if present is None or name in present]


def file_claims(name: str, content: bytes) -> list[Claim]:
    """Parents that a file of a model's repository names."""
    text = content.decode("utf-8", errors="replace")
    if name == ADAPTER_FILE:
        try:
            named = json.loads(text)["base_model_name_or_path"]
        except (ValueError, RecursionError, TypeError, LookupError):
            return []
        return [Claim(parent, "adapter", name) for parent in [normalised_id(named)] if parent]
    # In a README mergekit writes its configuration into a block fenced as YAML.
    documents = _YAML_BLOCK.findall(text) if name == "README.md" else [text]
    parents = dict.fromkeys(chain.from_iterable(map(_mergekit_parents, documents)))
    return [Claim(parent, "merge", name) for parent in parents]


class _Loader(yaml.SafeLoader):
    """Plain values only, and no merge keys (`<<`), which a few lines can nest into gigabytes."""

    def flatten_mapping(self, node):
        pass


def _mergekit_parents(text: str) -> list[str]:
    """Everything that was merged, and what it was merged into."""
    try:
        config = yaml.load(text, _Loader)
    # Beside YAMLError, dates and numbers that look right and are not raise ValueError and others.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError):
        return []
    if not isinstance(config, dict):
        return []
    named = [row.get("model") for row in _rows(config, "models")]
    for piece in _rows(config, "slices")[:_MAX_SLICES]:
        named += [row.get("model") for row in _rows(piece, "sources")]
    named += [row.get("source_model") for row in _rows(config, "experts")]
    if not named:
        return []
    named.append(config.get("base_model"))
    # `model+lora` applies an adapter before merging; the model is the parent.
    return [
        parent
        for name in named[:_MAX_NODES]
        for text in _texts(name)
        if (parent := normalised_id(text.split("+")[0]))
    ]


def _rows(config: dict, key: str) -> list[dict]:
    value = config.get(key)
    rows = value[:_MAX_NODES] if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _ids(value: object) -> Iterator[str]:
    return filter(None, map(normalised_id, _texts(value)))


def _texts(value: object) -> Iterator[str]:
    """Texts in a value of any shape, each once; bounded, as YAML can nest a value in itself."""
    pending, n_seen, seen = [(value, 0)], 0, set()
    while pending and n_seen < _MAX_NODES and len(seen) < _MAX_NAMES:
        value, depth = pending.pop()
        n_seen += 1
        if isinstance(value, str):
            if value not in seen:
                seen.add(value)
                yield value
        elif depth < _MAX_DEPTH:
            if isinstance(value, dict):
                value = [value[key] for key in _NAME_KEYS if key in value][:1]
            if isinstance(value, list):
                pending += [(item, depth + 1) for item in reversed(value[:_MAX_NODES])]
