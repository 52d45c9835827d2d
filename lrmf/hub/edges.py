"""Where an edge of the lineage comes from: the sources, what they claim, and who is believed.

Sources, from the most to the least authoritative, are `SOURCES`:

1. ``baseModels``: the Hub's own tree, derived from the card and kept up to date through renames;
2. ``tags`` and 3. ``card``: the author's words;
4. the files that made a model, read where these are incomplete: `MERGE_FILES` and `ADAPTER_FILE`;
5. ``leaderboard``: the leaderboard's own column.

`declared_claims` reads 1 to 3, `read_file` reads 4, `claimed_bases` reads 5, and `establish_edges`
decides; the edges of an imported snapshot are added by `add_known`. Cards are written by hand:
nothing here trusts a type, a spelling or a size, and whatever cannot be read as the id of a
repository is left out.
"""

import html
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import NamedTuple

import json5
import pandas as pd
import yaml

from ..data.ids import normalised_id, normalised_relation
from ..data.metadata import ADAPTER_FILES, files_of, is_adapter, mapping, tags_of
from ..data.schema import some

MERGE_FILES = ("mergekit_config.yml", "mergekit_moe_config.yml", "merge.yml", "README.md")
ADAPTER_FILE = ADAPTER_FILES[0]
DECLARED = ("baseModels", "tags", "card")
FILES = (*MERGE_FILES, ADAPTER_FILE)
SOURCES = (*DECLARED, *FILES, "leaderboard")

# What answers and files of any content may raise where they are read.
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_MERGE_TAGS = {"merge", "mergekit", "lazymergekit", "moerge", "mergekit-moe"}
_QUANTIZED_TAGS = {"gguf", "gptq", "awq", "exl2", "bitsandbytes-quantized"}
_NAME_KEYS = "model source_model model_id model_name base_model repo_id id path name".split()
_NESTED = "models slices sources modules experts shared_experts genome merge".split()
_KEYS = {*_NAME_KEYS, *_NESTED}
_PLAIN = ("", "text", "txt", "plaintext", "plain")  # fences that do not say what is in them
_SPACES = str.maketrans("\u00a0\u3000", "  ", "\u200b")  # which PyYAML takes for something else
_MAX_DEPTH, _MAX_NODES, _MAX_NAMES = 12, 5000, 200
_MAX_YAML, _MAX_README, _MAX_LINE = 2**18, 2**18, 10_000  # characters; pictures are longer lines
_MAX_JSON5 = 2**14  # characters, which take up to a second


class Claim(NamedTuple):
    """One source's statement that a model descends from ``parent``; the relation may be open."""

    parent: str
    relation: str | None
    source: str


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

    stated = map(normalised_relation, _texts(card.get("base_model_relation")))
    relation = next(filter(None, stated), None)
    return claims + [Claim(parent, relation, "card") for parent in _ids(card.get("base_model"))]


def inferred_relation(answer: dict) -> str:
    """What the Hub infers of a model with one parent where no source names the relation."""
    if is_adapter(answer):
        return "adapter"
    if is_merge(answer):
        return "merge"
    if _QUANTIZED_TAGS.intersection(map(str.lower, tags_of(answer))):
        return "quantized"
    return "finetune"


def is_merge(answer: dict) -> bool:
    """Whether tags or relation say that the model was merged."""
    tagged = not _MERGE_TAGS.isdisjoint(map(str.lower, tags_of(answer)))
    return tagged or any(claim.relation == "merge" for claim in declared_claims(answer))


def files_to_read(answer: dict, *, merged: bool, own_ids: set[str]) -> list[str]:
    """Files that may name parents which the metadata do not.

    A merge that declares fewer than two parents is incomplete; so is an adapter without any.
    ``merged`` is whether the leaderboard calls the model a merge; its ``own_ids`` are no parents.
    """
    parents = {claim.parent for claim in declared_claims(answer)} - own_ids
    present, wanted = files_of(answer), []
    if len(parents) < 2 and (merged or is_merge(answer)):
        wanted += MERGE_FILES
    if not parents and is_adapter(answer):
        wanted.append(ADAPTER_FILE)
    return [name for name in wanted if present is None or name in present]


def read_file(name: str, content: bytes) -> tuple[list[Claim], str]:
    """Parents that a file names, and why it could not be read (or nothing)."""
    text = content.decode(json.detect_encoding(content), errors="replace").removeprefix("\ufeff")
    blocks, problem = [(text, True)], ""
    if name == "README.md":
        text = "".join(line for line in text.splitlines(keepends=True) if len(line) < _MAX_LINE)
        if len(text) > _MAX_README:
            problem = f"is longer than {_MAX_README} characters; its middle was not read"
            text = f"{text[: _MAX_README // 2]}\n\n{text[-_MAX_README // 2 :]}"
        blocks = _code_blocks(text)
    names: dict[str, None] = {}
    of_adapter = name == ADAPTER_FILE
    for block, is_config in blocks:
        try:
            names |= dict.fromkeys(_adapted(block) if of_adapter else _merged(block))
        except (yaml.YAMLError, *UNREADABLE) as error:
            place = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", 0)) else ""
            if is_config:
                kind = "JSON" if of_adapter else "YAML"
                problem = f"is no valid {kind} ({type(error).__name__}{place})"
    parents = dict.fromkeys(filter(None, map(normalised_id, names)))
    if name == "README.md" and parents:
        problem = ""  # its other examples may be anything
    elif lost := [text for text in names if not normalised_id(text)]:
        problem = f"names {'' if parents else 'only '}local paths or other places: {some(lost)}"
    elif not (parents or problem or name == "README.md"):
        problem = "names no model"
    relation = "adapter" if of_adapter else "merge"
    return [Claim(parent, relation, name) for parent in parents], problem


@cache
def _markdown():
    from markdown_it import MarkdownIt  # takes a fifth of a second

    return MarkdownIt("commonmark").disable(["inline", "reference"])


def _code_blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Code blocks of a README that may be YAML, such as mergekit's, and whether they say so."""
    if text.lstrip().startswith("---"):  # the card's metadata
        text = text.partition("\n---")[2] or text
    for token in _markdown().parse(text):
        if token.type in ("fence", "code_block"):
            language = re.split(r"\W", token.info.strip(" {."), maxsplit=1)[0].lower()
            if language in (*_PLAIN, "yaml", "yml", "json"):
                yield token.content, language not in _PLAIN
        elif token.type == "html_block":  # tags without an empty line between them and a fence
            if (inner := re.sub("<[^>]*>", "", token.content)) != token.content:
                yield html.unescape(inner), False  # as in <pre>
                yield from _code_blocks(inner)


def _documents(text: str) -> list:
    """Documents of YAML or JSON, also with tabs, comments and commas at the end; or YAMLError."""
    if len(text) > _MAX_YAML:
        raise yaml.YAMLError("too long")
    for load in (json.loads, json5.loads)[: 1 + (len(text) < _MAX_JSON5)]:
        with suppress(ValueError):
            return [load(text)]
    text = text.translate(_SPACES).expandtabs(2)
    return [_plain(node, {}) for node in yaml.compose_all(text, Loader=yaml.SafeLoader)]


def _adapted(text: str) -> Iterator[str]:
    """What was adapted, by PEFT's key or that of the library `adapters`."""
    found = mapping(dict(enumerate(_documents(text))), 0)
    return _texts(found.get("base_model_name_or_path") or found.get("model_name"))


def _merged(text: str) -> list[str]:
    """Everything that was merged, and what it was merged into."""
    merged, bases, stages = [], [], set()
    for document in _documents(text):
        for key, value in _naming(document, set()):
            (bases if key == "base_model" else merged).append(value)
        # Documents are stages, which name each other.
        stages.update(_texts(mapping({"": document}, "").get("name")))
    named = list(_texts(merged))
    names = [*named, *_texts(bases)] if named else []  # a base alone is no merge
    # Of `model+lora`, the model is the parent.
    return [name.split("+")[0] for name in names if name not in stages]


def _naming(config: object, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Bases and lists of what is merged, at any depth; a ``model`` elsewhere may donate a token."""
    if id(config) in seen or not isinstance(config, dict | list):
        return
    seen.add(id(config))
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if key == "base_model" or (key in _NESTED and isinstance(value, list)):
            yield key, value
        yield from _naming(value, seen)


def _plain(node: yaml.Node, known: dict[int, object]) -> object:
    """A YAML node as texts, lists and dictionaries, with its merge keys (`<<`) resolved.

    No tag is constructed, each node is read once, and a merge brings no other keys than those that
    can name a model, so that neither tags nor aliases can do harm.
    """
    if not isinstance(node, yaml.CollectionNode):
        return node.value if node and node.tag == "tag:yaml.org,2002:str" else None
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.SequenceNode):
        known[id(node)] = items = []
        items += [_plain(item, known) for item in node.value]
        return items
    known[id(node)] = found = {}
    for name, value in node.value:
        value = _plain(value, known)
        if name.tag == "tag:yaml.org,2002:merge":
            for other in value if isinstance(value, list) else [value]:
                keys = _KEYS.intersection(other) if isinstance(other, dict) else ()
                found.update({key: other[key] for key in keys if key not in found})
        elif isinstance(name, yaml.ScalarNode):
            found[name.value] = value
    return found


def _ids(value: object) -> Iterator[str]:
    """Ids in a value of any shape, also several in one text between commas."""
    texts = (part for text in _texts(value) for part in re.split(r"[,\n]", text))
    return islice(filter(None, map(normalised_id, texts)), _MAX_NAMES)


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


def claimed_bases(evaluations: pd.DataFrame) -> dict[str, Claim]:
    """Parents in the leaderboard's column `Base Model`, by model.

    The model itself, "X (Merge)" (which does not name the parents) and "Removed" are no parents;
    nor is anything else that is no id with an owner.
    """
    relations = pd.Series("finetune", evaluations.index)
    relations[evaluations["merged"].fillna(False)] = "merge"
    relations[evaluations["weight_type"].str.lower().eq("adapter").fillna(False)] = "adapter"
    bases, columns = {}, (evaluations["model_id"], evaluations["base_model"], relations)
    for model_id, base, relation in zip(*columns, strict=True):
        parent = normalised_id(base) or ""
        if "/" in parent and parent.casefold() != model_id.casefold():
            bases[model_id] = Claim(parent, relation, "leaderboard")
    return bases


def current_names(visits: dict) -> dict[str, str]:
    """The id that the Hub uses now, by spellings in small letters.

    Ids that differ in case only are one model: of several that the Hub answers for, or of none, the
    first in order.
    """
    names: dict[str, str] = {}
    resolved = [visit.resolved for visit in visits.values() if visit.resolved]
    for name in sorted(resolved):
        names.setdefault(name.casefold(), name)
    for asked, visit in sorted(visits.items(), key=lambda item: (not item[1].resolved, item[0])):
        current = visit.resolved or asked
        names.setdefault(asked.casefold(), names.get(current.casefold(), current))
    return names


def establish_edges(visits: dict) -> tuple[pd.DataFrame, dict[str, list[dict]]]:
    """Turn the claims of all sources into edges between the ids that the Hub uses now.

    Of the sources in the order of `SOURCES` the first that names a parent decides. Parents that
    only a lower declared source names are kept if they have been deleted or made private (the Hub's
    own tree cannot list these), and the files of an incomplete merge add theirs. The relation is
    the card's ``base_model_relation``, else that of the first source which states one, else
    inferred as the Hub does.

    Parameters
    ----------
    visits : dict of id asked for to `ancestry.Visit`

    Returns
    -------
    lineage : DataFrame
        parent, child, relation, and as evidence the sources that name the parent; sorted.
    overruled : dict of child to list of dict
        Claims that were not followed (parent, relation, source).
    """
    current = current_names(visits)
    names: dict[str, list[str]] = {}  # under which a model was asked for, the current one first
    for asked in sorted(visits, key=lambda asked: (current[asked.casefold()] != asked, asked)):
        names.setdefault(current[asked.casefold()], []).append(asked)
    # A name without owner that the Hub does not resolve is nobody's id.
    resolved = {current[asked.casefold()] for asked, visit in visits.items() if visit.resolved}
    gone = {current[asked.casefold()] for asked, v in visits.items() if v.status == "missing"}
    gone -= resolved
    edges, overruled = [], {}
    for child, asked in sorted(names.items()):
        claims = dict.fromkeys(
            claim._replace(parent=current.get(claim.parent.casefold(), claim.parent))
            for name in asked
            for claim in visits[name].claims
        )
        claims = [c for c in claims if c.parent in resolved or "/" in c.parent]
        claims = [claim for claim in claims if claim.parent != child]
        found, rest = _decide(claims, visits[asked[0]].inferred, gone)
        edges += [(parent, child, relation, evidence) for parent, relation, evidence in found]
        if rest:
            overruled[child] = [claim._asdict() for claim in rest]
    lineage = pd.DataFrame(sorted(edges), columns=["parent", "child", "relation", "evidence"])
    return lineage.astype("string"), overruled


def _decide(claims: list[Claim], inferred: str, gone: set[str]) -> tuple[list[tuple], list[Claim]]:
    """Parents of one model with relation and evidence, and the claims not followed."""
    claims = sorted(claims, key=lambda claim: SOURCES.index(claim.source))
    parents = {
        claim.parent: None
        for claim in claims
        if claim.source == claims[0].source
        or claim.source in FILES
        or (claim.source in DECLARED and claim.parent in gone)
    }
    on_card = [claim.relation for claim in claims if claim.source == "card"]
    several = "merge" if len(parents) > 1 and inferred != "adapter" else inferred
    found, followed = [], set()
    for parent in parents:
        own = [claim for claim in claims if claim.parent == parent]
        declared = any(claim.source in DECLARED for claim in own)
        stated = [*(on_card if declared else ()), *(claim.relation for claim in own)]
        relation = next(filter(None, stated), several)
        evidence = ",".join(dict.fromkeys(claim.source for claim in own))
        found.append((parent, relation, evidence))
        followed.update(claim for claim in own if claim.relation in (None, relation))
    return found, [claim for claim in claims if claim not in followed]


def add_known(
    lineage: pd.DataFrame, known: pd.DataFrame, source: str, spelling: Callable[[str], str]
) -> pd.DataFrame:
    """The Hub's edges and those of a snapshot, whose evidence is its ``source`` if it gives none.

    Of an edge that both know the Hub's relation counts.
    """
    known = known.reindex(columns=lineage.columns).astype("string")
    edges = pd.concat([lineage, known.fillna({"evidence": source})], ignore_index=True)
    for end in ("parent", "child"):
        edges[end] = edges[end].map(spelling)
    edges = edges[edges["parent"] != edges["child"]]
    how = {"relation": "first", "evidence": lambda texts: ",".join(dict.fromkeys(texts))}
    return edges.groupby(["parent", "child"], as_index=False).agg(how).astype("string")
