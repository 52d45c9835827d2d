"""Ids and relations of models, read from whatever people write for them."""

import re
import unicodedata
from urllib.parse import unquote

from .schema import INVISIBLE, RELATIONS

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,126}[A-Za-z0-9_\-])?"
_ID = re.compile(rf"{_NAME}(?:/{_NAME})?")
_HOST = re.compile(  # also with the account with which git clones it
    r"(?:(?:https?://)?(?:www\.|[^/@\s]*@)?(?:huggingface\.co|hf\.co)[/:]|hf://)(.*)", re.IGNORECASE
)
_QUOTES = "'\"`<>*\u201c\u201d\u2018\u2019,;"  # around an id, or behind it
_MARKDOWN = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NO_MODEL = {"datasets", "spaces", "api", "collections", "papers", "docs", "blog"}
_NOBODY = {"n/a", "na", "none", "null", "nan", "unknown", "tbd"}  # written where there is no parent
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


def normalised_id(text: object) -> str | None:
    """``org/name`` or a bare ``name``, or None if the text cannot be the id of a model.

    Spaces, invisible characters, quotes, URLs of the Hub, Markdown links, paths into the Hub's
    cache, trailing slashes, ``@revision`` and ``.git`` are taken off. Local paths, other hosts'
    URLs, datasets, words for nothing and anything but a text give None.
    """
    if not isinstance(text, str) or len(text) > 500:
        return None
    text = "".join(mark for mark in text if unicodedata.category(mark) != "Cf")
    text = INVISIBLE.sub("", text)
    text = text.strip().strip(_QUOTES).strip()
    if link := _MARKDOWN.fullmatch(text):
        text = link[1]
    if cached := [part for part in re.split(r"[/\\]", text) if part.startswith("models--")]:
        text = cached[-1].removeprefix("models--").replace("--", "/")
    elif url := _HOST.fullmatch(text):  # the page of a model, or one below it
        segments = [part for part in unquote(re.split("[?#:]", url[1])[0]).split("/") if part]
        text = "/".join(segments[segments[:1] == ["models"] :][:2])
    elif "://" in text:
        return None
    name = text.split("@")[0].rstrip("/").removesuffix(".git")
    is_none = name.split("/")[0] in _NO_MODEL or name.casefold() in _NOBODY
    return None if is_none or ".." in name or not _ID.fullmatch(name) else name


def normalised_relation(text: object) -> str | None:
    """One of the four relations, or None."""
    return _RELATION_WORDS.get(text.strip().lower()) if isinstance(text, str) else None
