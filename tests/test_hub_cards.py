"""Model cards: everything people write there is read as an id or left out, and nothing fails."""

import pytest

from lrmf.hub.ancestry import Visit, read_visit
from lrmf.hub.edges import (
    Claim,
    declared_claims,
    establish_edges,
    files_to_read,
    normalised_id,
    read_file,
)

IDS = [
    ("org/name", "org/name"),
    ("  org/name \n", "org/name"),
    ("'org/name'", "org/name"),
    ("`org/name`", "org/name"),
    ("org/name/", "org/name"),
    ("gpt2", "gpt2"),
    ("https://huggingface.co/org/name", "org/name"),
    ("http://www.huggingface.co/org/name/", "org/name"),
    ("https://huggingface.co/org/name/tree/main", "org/name"),
    ("https://huggingface.co/org/name/blob/main/README.md#usage", "org/name"),
    ("https://huggingface.co/org/name?library=transformers", "org/name"),
    ("https://huggingface.co/models/org/name", "org/name"),
    ("https://huggingface.co/gpt2", "gpt2"),
    ("huggingface.co/org/name", "org/name"),
    ("https://hf.co/org/name", "org/name"),
    ("hf://org/name", "org/name"),
    ("https://huggingface.co/org/name.git", "org/name"),
    ("org/name@main", "org/name"),
    ("[org/name](https://huggingface.co/org/name)", "org/name"),
    ("org/na.me-7B_v0.1", "org/na.me-7B_v0.1"),
    ("<https://huggingface.co/org/name>", "org/name"),
    ("\u201corg/name\u201d", "org/name"),
    ("**org/name**", "org/name"),
    ("org/name,", "org/name"),
    ("git@hf.co:org/name", "org/name"),
    ("https://me:hf_token@huggingface.co/org/name", "org/name"),
]
NO_IDS = [
    "",
    "   ",
    "/workspace/models/llama",
    "./checkpoint-500",
    "../model",
    "~/models/llama",
    "C:\\models\\llama",
    "models\\llama",
    "a/b/c",
    "org/..",
    "../../etc/passwd",
    "org/../../evil",
    "https://example.com/org/name",
    "https://huggingface.co.evil.org/org/name",
    "https://huggingface.co/datasets/org/name",
    "https://huggingface.co/",
    "file:///etc/passwd",
    "https://[broken/org/name",
    "org/name and org/other",
    "org/name\x00",
    "org/ñame",
    "-org/name",
    "org/name?x",
    "N/A",
    "none",
    "x" * 600,
    None,
    7,
    7.5,
    True,
    [],
    {},
    b"org/name",
]
P = "org/parent"
WALL = [  # kind, card data, parents
    ("text", {"base_model": P}, [P]),
    ("list", {"base_model": [P, "org/b"]}, [P, "org/b"]),
    ("none", {"base_model": None}, []),
    ("empty text", {"base_model": ""}, []),
    ("empty list", {"base_model": []}, []),
    ("number", {"base_model": 7}, []),
    ("float", {"base_model": float("nan")}, []),
    ("flag", {"base_model": True}, []),
    ("dictionary", {"base_model": {"name": P}}, [P]),
    ("dictionary of junk", {"base_model": {"foo": P}}, []),
    ("list of dictionaries", {"base_model": [{"id": P}, {"model": "org/b"}]}, [P, "org/b"]),
    ("list of lists", {"base_model": [[P], [["org/b"]]]}, [P, "org/b"]),
    ("list of everything", {"base_model": [None, 1, {}, [], P, True]}, [P]),
    ("repeated", {"base_model": [P, P, f" {P}"]}, [P, P]),
    ("URL", {"base_model": f"https://huggingface.co/{P}/tree/main"}, [P]),
    ("Markdown", {"base_model": f"[x](https://huggingface.co/{P})"}, [P]),
    ("spaces", {"base_model": f"  {P}  "}, [P]),
    ("slash at the end", {"base_model": f"{P}/"}, [P]),
    ("local path", {"base_model": "/home/me/model"}, []),
    ("relative path", {"base_model": "./outputs/model"}, []),
    ("Windows path", {"base_model": "C:\\model"}, []),
    ("upwards", {"base_model": "../../etc/passwd"}, []),
    ("bare name", {"base_model": "gpt2"}, ["gpt2"]),
    ("control characters", {"base_model": "org/na\x1bme"}, []),
    ("long", {"base_model": "o/" + "x" * 10**5}, []),
    ("many", {"base_model": [f"org/m{n}" for n in range(10**5)]}, None),
    ("deep", {"base_model": __import__("json").loads("[" * 900 + "]" * 900)}, []),
    ("between commas", {"base_model": f"{P}, org/b"}, [P, "org/b"]),
    ("on lines", {"base_model": [f"{P}\norg/b\n"]}, [P, "org/b"]),
    ("no parent", {"base_model": ["N/A", "None", "unknown"]}, []),
    ("relation is a list", {"base_model": P, "base_model_relation": ["merge"]}, [P]),
    ("relation unknown", {"base_model": P, "base_model_relation": "cousin"}, [P]),
    ("relation in capitals", {"base_model": P, "base_model_relation": " Merge "}, [P]),
    ("a key called self", {"self": 1, "base_model": P}, [P]),
    ("card is a list", [P], []),
    ("card is a text", P, []),
    ("card is missing", None, []),
]


@pytest.mark.parametrize(("text", "expected"), IDS)
def test_spellings_of_an_id(text, expected):
    assert normalised_id(text) == expected


@pytest.mark.parametrize("value", NO_IDS, ids=lambda value: repr(value)[:30])
def test_what_is_no_id(value):
    assert normalised_id(value) is None


@pytest.mark.parametrize(("kind", "card", "expected"), WALL, ids=[kind for kind, *_ in WALL])
def test_pathological_cards(kind, card, expected):
    parents = [claim.parent for claim in declared_claims({"id": "org/child", "cardData": card})]
    if expected is None:
        assert 0 < len(parents) <= 10_000
    else:
        assert parents == expected


@pytest.mark.parametrize("tags", [None, 7, "base_model:org/a", {"base_model": P}, [1, None, ["x"]]])
def test_tags_of_any_type(tags):
    assert declared_claims({"tags": tags}) == []


def test_tags_come_in_pairs_with_and_without_relation():
    tags = [f"base_model:{P}", f"base_model:quantized:{P}", "base_model:org/b", "base_model:"]
    assert declared_claims({"tags": tags}) == [
        Claim(P, "quantized", "tags"),
        Claim("org/b", None, "tags"),
    ]


@pytest.mark.parametrize(
    "found",
    [None, 3, "x", [], {}, {"models": None}, {"relation": 5, "models": [None, {"_id": "org/a"}]}],
)
def test_base_models_of_any_shape(found):
    assert [c for c in declared_claims({"baseModels": found}) if c.parent != "x"] == []


def test_base_models():
    answer = {"baseModels": {"relation": "merge", "models": [{"_id": "1", "id": P}, {"id": "o/b"}]}}
    assert declared_claims(answer) == [
        Claim(P, "merge", "baseModels"),
        Claim("o/b", "merge", "baseModels"),
    ]


MERGEKIT = {
    "models": "models:\n - model: org/a\n - model: org/b\nbase_model: org/c\n",
    "slices": "slices:\n - sources:\n   - model: org/a\n     layer_range: [0, 8]\n"
    "   - model: org/b\n - sources:\n   - model: org/c\n",
    "experts": "base_model: org/a\nexperts:\n - source_model: org/b\n - source_model: org/c\n",
    "tabs": "models:\n - model: org/a\t# the first\n - model: org/b\t\nbase_model: org/c\n",
    "tabs as indentation": "models:\n\t- model: org/a\n\t\tparameters:\n\t\t\tweight: 1\n"
    "\t- model: org/b\nbase_model: org/c\n",
    "JSON with a comma at the end": '{\n\t"models": [{"model": "org/a"}, {"model": "org/b"},],\n'
    '\t"base_model": "org/c",\n}',
    "JSON with comments": '{\n// first\n"models": [{"model": "org/a"}, // second\n'
    '{"model": "org/b"}],\n/* third */ "base_model": "org/c"}',
    "further names": "experts: [{name: x, model_id: org/a}, {path: org/b}, {name: org/c}]\n",
    "donors of tokens": "models: [org/a, org/b, org/c]\n"
    "tokenizer: {source: {model: org/t}, tokens: {x: {source: {model: org/u}}}}\n",
    "lora": "models:\n - model: org/a+org/lora\n - model: org/b\n"
    " - model: {model: {path: org/c}}\n",
}


@pytest.mark.parametrize("text", MERGEKIT.values(), ids=MERGEKIT)
def test_merge_files(text):
    claims = read_file("mergekit_config.yml", text.encode())[0]
    assert {claim.parent for claim in claims} == {"org/a", "org/b", "org/c"}
    assert {claim.relation for claim in claims} == {"merge"}


def test_readme_counts_only_in_its_yaml_blocks():
    text = (
        f"---\nbase_model: x/y\n---\n# T\n```yaml\n{MERGEKIT['models']}```\n```py\nmodels:\n```\n"
    )
    found = {claim.parent for claim in read_file("README.md", text.encode())[0]}
    assert found == {"org/a", "org/b", "org/c"}


BOMB = "a: &a [org/x, org/x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}, *{chr(97 + n)}]\n"
    for n in range(20)
)
MERGE_KEYS = "a: &a {x: 1}\n" + "".join(
    f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(12)
)
HOSTILE = {
    "object": "!!python/object/apply:os.system ['touch pwned']",
    "aliases": BOMB + "models:\n - model: *u\n",
    "merge keys": MERGE_KEYS + "models:\n - model: *b11\n",
    "self-reference": "models: &m\n - model: *m\n",
    "list": "- models\n",
    "nothing": "",
    "text": "hello",
    "date": "models:\n - model: 2024-99-99\n",
    "deep": "[" * 700,
    "binary": "\x00\xff\x1b",
    "models a text": "models: org/a\nslices: 7\nexperts: {a: 1}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_names_no_parents(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parents = {claim.parent for claim in read_file("merge.yml", text.encode())[0]}
    assert parents <= {"org/x"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"base_model_name_or_path": "org/a"}', ["org/a"]),
        ('{"base_model_name_or_path": "/data/llama"}', []),
        ('{"base_model_name_or_path": null}', []),
        ('{"model_name": "org/a", "config": {}}', ["org/a"]),
        ('{\n\t"r": 8,\n\t"base_model_name_or_path": "org/a",\n}', ["org/a"]),
        ('{// base\n"base_model_name_or_path": "org/a" /* of 2024 */}', ["org/a"]),
        ("[]", []),
        ("[" * 10**5, []),
        ("{", []),
    ],
)
def test_adapter_file(text, expected):
    claims = read_file("adapter_config.json", text.encode())[0]
    assert [claim.parent for claim in claims] == expected


def test_what_somebody_asks_a_server_for_is_no_parent():
    text = '```json\n{"model": "org/a", "messages": [{"content": "model: org/b"}]}\n```\n'
    assert read_file("README.md", text.encode())[0] == []


def test_a_relation_in_a_list_counts():
    card = {"base_model": P, "base_model_relation": ["Quantized"]}
    (claim,) = declared_claims({"id": "org/child", "cardData": card})
    assert claim.relation == "quantized"


def test_files_are_read_only_where_parents_are_missing():
    siblings = [{"rfilename": name} for name in ("README.md", "merge.yml", "adapter_config.json")]
    merge = {"id": "a/b", "tags": ["merge"], "siblings": siblings}
    wanted = ["merge.yml", "README.md", "adapter_config.json"]
    assert files_to_read(merge, merged=False, own_ids={"a/b"}) == wanted
    declared = merge | {"cardData": {"base_model": ["org/a", "org/b"]}}
    assert files_to_read(declared, merged=False, own_ids={"a/b"}) == []
    itself = merge | {"cardData": {"base_model": ["a/b", "org/b"]}}
    assert files_to_read(itself, merged=False, own_ids={"a/b"}) == ["merge.yml", "README.md"]
    plain = {"id": "a/b", "siblings": siblings[:2]}
    assert files_to_read(plain, merged=False, own_ids=set()) == []
    assert files_to_read(plain, merged=True, own_ids=set()) == ["merge.yml", "README.md"]


@pytest.mark.parametrize(
    ("answer", "of_one", "of_two"),
    [
        ({}, "finetune", "merge"),
        ({"tags": ["mergekit"]}, "merge", "merge"),
        ({"library_name": "peft"}, "adapter", "adapter"),
        ({"siblings": [{"rfilename": "adapter_config.json"}]}, "adapter", "adapter"),
        ({"tags": ["GGUF"]}, "quantized", "merge"),
    ],
)
def test_inferred_relation(answer, of_one, of_two):
    for parents, expected in ((["org/a"], of_one), (["org/a", "org/b"], of_two)):
        content = answer | {"id": "org/child", "cardData": {"base_model": parents}}
        entry = {"kind": "model", "key": "org/child", "time": "", "status": "ok"}
        found, _ = edges({"org/child": read_visit(entry | {"answer": content})})
        assert {relation for _, _, relation, _ in found} == {expected}


@pytest.mark.parametrize("value", [None, [], {}, "x\ud800", "x" * 10**4, -1, 10**400, float("nan")])
def test_facts_of_any_type(value):
    names = "createdAt likes sha lastModified gated library_name config safetensors cardData tags"
    answer = dict.fromkeys(names.split(), value) | {"id": "org/a"}
    nested = {
        "config": {"architectures": [value]},
        "safetensors": {"total": value},
        "cardData": {"license": value, "base_model": value, "base_model_relation": value},
    }
    for fields in (answer, answer | nested):
        found = read_visit(
            {"kind": "model", "key": "org/a", "time": "", "status": "ok", "answer": fields}
        )
        facts = {name: fact for name, fact in found.facts.items() if fact is not None}
        assert not facts and found.claims == [] and found.sha is None


def visit(claims=(), *, status="ok", resolved="org/child", **rest):
    return Visit(status, "", "", resolved=resolved, claims=list(claims), **rest)


def edges(visits):
    lineage, overruled = establish_edges(visits)
    return [tuple(row) for row in lineage.itertuples(index=False)], overruled


def test_the_better_source_decides_and_the_other_is_kept():
    claims = [
        Claim("org/a", "merge", "baseModels"),
        Claim("org/b", None, "card"),
        Claim("org/a", "finetune", "tags"),
    ]
    visits = {"org/child": visit(claims)}
    visits |= {name: visit(resolved=name) for name in ("org/a", "org/b")}
    found, overruled = edges(visits)
    assert found == [("org/a", "org/child", "merge", "baseModels,tags")]
    assert {(c["parent"], c["source"]) for c in overruled["org/child"]} == {
        ("org/a", "tags"),
        ("org/b", "card"),
    }


def test_a_deleted_parent_that_the_hub_no_longer_lists_stays():
    claims = [Claim("org/a", "merge", "baseModels"), Claim("org/gone", None, "card")]
    visits = {
        "org/a": visit(resolved="org/a"),
        "org/child": visit(claims),
        "org/gone": visit(status="missing", resolved=None),
    }
    found, overruled = edges(visits)
    assert [(parent, relation) for parent, _, relation, _ in found] == [
        ("org/a", "merge"),
        ("org/gone", "merge"),
    ]
    assert not overruled


def test_the_cards_relation_overrides():
    claims = [Claim("org/a", "finetune", "baseModels"), Claim("org/a", "quantized", "card")]
    visits = {"org/child": visit(claims), "org/a": visit(resolved="org/a")}
    found, overruled = edges(visits)
    assert found == [("org/a", "org/child", "quantized", "baseModels,card")]
    assert [claim["source"] for claim in overruled["org/child"]] == ["baseModels"]


def test_old_names_bare_names_and_selves():
    claims = [
        Claim("old/a", "finetune", "card"),  # of org/a
        Claim("org/child", "finetune", "card"),
        Claim("former/child", "finetune", "card"),  # of the child itself
        Claim("gpt2", "finetune", "card"),
        Claim("llama-7b", "finetune", "card"),  # which nobody has
    ]
    visits = {
        "former/child": visit(claims, status="renamed"),
        "gpt2": visit(status="renamed", resolved="openai-community/gpt2"),
        "llama-7b": visit(status="missing", resolved=None),
        "old/a": visit(status="renamed", resolved="org/a"),
        "org/child": visit(claims),
    }
    found, _ = edges(visits)
    assert [parent for parent, *_ in found] == ["openai-community/gpt2", "org/a"]


def test_the_leaderboards_column_comes_last():
    base = Claim("org/z", "finetune", "leaderboard")
    visits = {"org/child": visit([base]), "org/a": visit(resolved="org/a")}
    assert edges(visits)[0] == [("org/z", "org/child", "finetune", "leaderboard")]
    visits["org/child"].claims.append(Claim("org/a", None, "card"))
    found, overruled = edges(visits)
    assert found == [("org/a", "org/child", "finetune", "card")]
    assert [claim["parent"] for claim in overruled["org/child"]] == ["org/z"]


def test_what_is_known_under_two_names_is_known_of_one_model():
    visits = {
        "old/child": visit([Claim("org/z", "merge", "leaderboard")], status="renamed"),
        "org/child": visit(),
        "org/z": visit(resolved="org/z"),
    }
    assert edges(visits)[0] == [("org/z", "org/child", "merge", "leaderboard")]
