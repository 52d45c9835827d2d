"""What a model's metadata says about its parents: pure functions from raw answers to claims.

Model cards are written by hand. Nothing here trusts a type, a spelling or a size; whatever cannot
be read as the id of a Hub repository is left out.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import yaml

from ..data.schema import RELATIONS

# From the most to the least authoritative. The Hub derives baseModels from the card and keeps it
# up to date through renames; tags and card are the author's words; then the files that made the
# model; last the leaderboard's own column.
MERGE_FILES = ("mergekit_config.yml", "mergekit_moe_config.yml", "merge.yml", "README.md")
ADAPTER_FILE = "adapter_config.json"
DECLARED = ("baseModels", "tags", "card")
SOURCES = (*DECLARED, *MERGE_FILES, ADAPTER_FILE, "leaderboard")

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,126}[A-Za-z0-9_\-])?"
_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")
_HOSTS = ("huggingface.co", "hf.co")
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
    if (path := _without_host(text)) is None:
        return None
    name = path.split("@")[0].rstrip("/").removesuffix(".git")
    if not _ID.fullmatch(name) or ".." in name or name.split("/")[0] in _NO_MODEL:
        return None
    return name


def _without_host(text: str) -> str | None:
    """Repository part of a URL of the Hub; the text itself if it is none; None for other URLs."""
    bare = re.fullmatch(r"(?:www\.)?(?:huggingface\.co|hf\.co)/(.*)", text, re.IGNORECASE)
    if bare:
        text = f"https://huggingface.co/{bare[1]}"
    if text.lower().startswith("hf://"):
        text = f"https://huggingface.co/{text[5:]}"
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or host not in _HOSTS:
        return None
    segments = [segment for segment in unquote(parts.path).split("/") if segment]
    if segments[:1] == ["models"]:
        segments = segments[1:]
    return "/".join(segments[:2])


def normalised_relation(text: object) -> str | None:
    """One of the four relations, or None."""
    return _RELATION_WORDS.get(text.strip().lower()) if isinstance(text, str) else None


def declared_claims(answer: dict) -> list[Claim]:
    """Parents in ``baseModels``, in the tags and in the card, as `model_info` answers."""
    return [*_base_models(answer), *_tag_claims(answer), *_card_claims(answer)]


def _base_models(answer: dict) -> Iterator[Claim]:
    found = answer.get("baseModels")
    relation = normalised_relation(found.get("relation")) if isinstance(found, dict) else None
    for text in _names(found.get("models") if isinstance(found, dict) else found):
        if parent := normalised_id(text):
            yield Claim(parent, relation, "baseModels")


def _tag_claims(answer: dict) -> Iterator[Claim]:
    """Tags come in pairs, with and without the relation."""
    relations: dict[str, str | None] = {}
    for tag in tags_of(answer):
        if not tag.startswith("base_model:"):
            continue
        text = tag.removeprefix("base_model:")
        relation, _, rest = text.partition(":")
        if normalised_relation(relation) and rest:
            parent, relation = normalised_id(rest), normalised_relation(relation)
        else:
            parent, relation = normalised_id(text), None
        if parent:
            relations[parent] = relation or relations.get(parent)
    for parent, relation in relations.items():
        yield Claim(parent, relation, "tags")


def _card_claims(answer: dict) -> Iterator[Claim]:
    card = answer.get("cardData")
    if not isinstance(card, dict):
        return
    relation = card_relation(answer)
    for text in _names(card.get("base_model")):
        if parent := normalised_id(text):
            yield Claim(parent, relation, "card")


def card_relation(answer: dict) -> str | None:
    """The card's ``base_model_relation``, which overrides every inferred relation."""
    card = answer.get("cardData")
    return normalised_relation(card.get("base_model_relation")) if isinstance(card, dict) else None


def tags_of(answer: dict) -> list[str]:
    """The tags that are texts."""
    tags = answer.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def inferred_relation(answer: dict, n_parents: int) -> str:
    """What the Hub infers where no source names the relation."""
    if answer.get("library_name") == "peft" or ADAPTER_FILE in (files_of(answer) or ()):
        return "adapter"
    if n_parents > 1 or is_merge(answer):
        return "merge"
    if _QUANTIZED_TAGS.intersection(tag.lower() for tag in tags_of(answer)):
        return "quantized"
    return "finetune"


def is_merge(answer: dict) -> bool:
    """Whether tags or relation say that the model was merged."""
    if any(claim.relation == "merge" for claim in declared_claims(answer)):
        return True
    return bool(_MERGE_TAGS.intersection(tag.lower() for tag in tags_of(answer)))


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

    Parameters
    ----------
    merged : bool
        Whether somebody else (the leaderboard) calls the model a merge.
    own_ids : set of str
        Ids of the model itself, which are no parents.
    """
    parents = {claim.parent for claim in declared_claims(answer)} - own_ids
    present = files_of(answer)
    wanted: list[str] = []
    if len(parents) < 2 and (merged or is_merge(answer)):
        wanted += MERGE_FILES
    if not parents and (answer.get("library_name") == "peft" or ADAPTER_FILE in (present or ())):
        wanted.append(ADAPTER_FILE)
    return [name for name in wanted if present is None or name in present]


def file_claims(name: str, content: bytes) -> list[Claim]:
    """Parents that a file of a model's repository names."""
    text = content.decode("utf-8", errors="replace")
    if name == ADAPTER_FILE:
        return [Claim(parent, "adapter", name) for parent in _adapter_parents(text)]
    documents = _yaml_blocks(text) if name == "README.md" else [text]
    parents: dict[str, None] = {}
    for document in documents:
        parents |= dict.fromkeys(_mergekit_parents(document))
    return [Claim(parent, "merge", name) for parent in parents]


def _yaml_blocks(text: str) -> list[str]:
    """The blocks fenced as YAML, where mergekit writes its configuration."""
    blocks: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside and line[3:].strip().lower() in ("yaml", "yml")
            if inside:
                blocks.append([])
        elif inside:
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks]


class _Loader(yaml.SafeLoader):
    """Plain values only, and no merge keys (`<<`), which a few lines can nest into gigabytes."""

    def flatten_mapping(self, node):
        pass


def _adapter_parents(text: str) -> list[str]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return []
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    parent = normalised_id(name)
    return [parent] if parent else []


def _mergekit_parents(text: str) -> list[str]:
    """Everything that was merged, and what it was merged into."""
    try:
        config = yaml.load(text, _Loader)
    # Beside YAMLError, dates and numbers that look right and are not raise ValueError and others.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError):
        return []
    if not isinstance(config, dict):
        return []
    named: list[object] = []
    for row in _rows(config.get("models")):
        named.append(row.get("model"))
    for piece in _rows(config.get("slices"))[:_MAX_SLICES]:
        named += [row.get("model") for row in _rows(piece.get("sources"))]
    for row in _rows(config.get("experts")):
        named.append(row.get("source_model"))
    if not named:
        return []
    named.append(config.get("base_model"))
    # `model+lora` applies an adapter before merging; the model is the parent.
    texts = [text.split("+")[0] for name in named[:_MAX_NODES] for text in _names(name)]
    return list(dict.fromkeys(parent for text in texts if (parent := normalised_id(text))))


def _rows(value: object) -> list[dict]:
    rows = value[:_MAX_NODES] if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _names(value: object) -> Iterator[str]:
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
