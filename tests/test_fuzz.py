"""Whatever stands in cards, merge files, samples and results: read, or left out by name."""

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from fuzzing import damaged, fuzz, json_values
from hypothesis import given
from hypothesis import strategies as st
from importer_contract import cells

from lrmf.data.ids import normalised_id
from lrmf.data.schema import RELATIONS
from lrmf.data.snapshot import load_snapshot
from lrmf.hub import edges
from lrmf.hub.ancestry import read_visit
from lrmf.importers import IMPORTERS, import_files

pytestmark = pytest.mark.slow

ID = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,12}[a-z0-9]/[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}[a-z0-9]"
ids = st.from_regex(ID, fullmatch=True).filter(lambda text: normalised_id(text) == text)

# Kinds of files that people publish; what public reports found unreadable is among them.
CONFIGURATIONS = (
    "merge_method: slerp\nbase_model: a/base\nmodels:\n  - model: a/one\n  - model: b/two\n",
    "slices:\n  - sources:\n      - model: a/one\n        layer_range: [0, 32]\n"
    "      - model: b/two+c/lora\n        layer_range: [0, 32]\n",
    "name: first\nmodels:\n- model: a/one\nmerge_method: linear\n---\nname: second\n"
    "models:\n- model: b/two@main\nbase_model: first\nmerge_method: ties\n",
    "base_model: a/base\nexperts:\n  - source_model: a/one\n    positive_prompts: [x]\n"
    "shared_experts:\n  - source_model: b/shared\n",
    "defaults: &same\n  parameters: {weight: 0.5}\nmodels:\n  - <<: *same\n    model: a/one\n"
    "  - <<: *same\n    model: b/two\nmerge_method: linear\n",
    "method: slerp\nmodels:\n  - a/one\n  - b/two\n",
    "modules:\n  text:\n    slices:\n      - sources:\n          - model: {model: {path: a/one}}\n",
    "models:\n  - model: /home/me/.cache/huggingface/hub/models--a--one/snapshots/0123456789ab\n",
    "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nmodels: [*c, *c, *c]\n",
)
FENCES = ("```yaml\n{}```\n", "~~~yaml\n{}~~~\n", "````yml\n{}````\n", "  ```yaml\n{}  ```\n")
READMES = tuple(
    f"---\nlicense: mit\nbase_model:\n- a/one\n---\n# Merge\n\n{fence.format(text)}\nText.\n"
    for fence in FENCES
    for text in CONFIGURATIONS[:2]
)
ADAPTERS = (
    '{"base_model_name_or_path": "a/base", "peft_type": "LORA"}',
    '\ufeff{"base_model_name_or_path": "https://huggingface.co/a/base"}',
    '{"base_model_name_or_path": "/models/base"}',
)
FILES = {
    name: READMES if name == "README.md" else ADAPTERS if "adapter" in name else CONFIGURATIONS
    for name in edges.FILES
}
ANSWER = {
    "id": "a/model",
    "sha": "0" * 40,
    "createdAt": "2022-03-02T23:29:04.000Z",
    "cardData": {"base_model": ["a/one", "b/two"], "base_model_relation": "merge"},
    "baseModels": {"relation": "merge", "models": [{"_id": "1", "id": "a/one"}]},
    "tags": ["base_model:a/one", "base_model:merge:a/one", "mergekit"],
    "siblings": [{"rfilename": "README.md"}, {"rfilename": "mergekit_config.yml"}],
    "config": {"architectures": ["LlamaForCausalLM"]},
    "safetensors": {"parameters": {"F16": 7}, "total": 7 * 10**9},
    "library_name": "transformers",
    "likes": 3,
    "gated": False,
}


def assert_claims(claims):
    for claim in claims:
        assert normalised_id(claim.parent) == claim.parent
        assert claim.relation in (*RELATIONS, None)


@fuzz(200)
@given(
    changes=st.dictionaries(st.sampled_from([*ANSWER]), json_values("a/one", " b/two "), max_size=4)
)
def test_a_card_of_any_shape_is_read(changes):
    answer = ANSWER | changes | {"id": "a/model"}
    entry = {"kind": "model", "key": "a/model", "time": "2025-01-01T00:00:00Z", "status": "ok"}
    visit = read_visit(json.loads(json.dumps(entry | {"answer": answer})))
    assert_claims(visit.claims)
    lineage, _ = edges.establish_edges({"a/model": visit})
    assert set(lineage["child"]) <= {"a/model"}
    assert visit.facts["params_b"] is None or visit.facts["params_b"] > 0


@fuzz(120)
@given(
    parents=st.lists(ids, min_size=1, max_size=3, unique=True),
    shape=st.sampled_from(
        [list, lambda names: [[name] for name in names], lambda n: [{"name": x} for x in n]]
    ),
    quotes=st.sampled_from(
        ["{}", " {} ", "https://huggingface.co/{}", "[x](https://hf.co/{})", "{}/"]
    ),
)
def test_parents_in_a_card_are_found_however_they_are_written(parents, shape, quotes):
    card = {"base_model": shape([quotes.format(name) for name in parents])}
    claims = edges.declared_claims({"cardData": card})
    assert [claim.parent for claim in claims] == parents


@fuzz(250)
@given(data=st.data(), name=st.sampled_from(edges.FILES))
def test_a_merge_file_of_any_content_is_read(data, name):
    assert_claims(edges.read_file(name, data.draw(damaged(FILES[name])))[0])


LAYOUTS = {
    "models": lambda names: {"models": [{"model": name} for name in names]},
    "texts": lambda names: {"method": "slerp", "models": names},
    "slices": lambda names: {"slices": [{"sources": [{"model": name} for name in names]}]},
    "modules": lambda names: {"modules": {"text": LAYOUTS["slices"](names)}},
    "experts": lambda names: {
        "base_model": names[0],
        "experts": [{"source_model": name} for name in names],
    },
    "shared": lambda names: {
        "experts": [{"source_model": names[0]}],
        "shared_experts": [{"source_model": name} for name in names],
    },
    "adapters": lambda names: {"models": [{"model": f"{name}+x/lora"} for name in names]},
    "revisions": lambda names: {"models": [{"model": f"{name}@main"} for name in names]},
    "cached": lambda names: {
        "models": [
            {"model": f"/home/me/.cache/hub/models--{name.replace('/', '--')}/snapshots/{'0' * 40}"}
            for name in names
            if "--" not in name
        ]
    },
    "base": lambda names: {"base_model": names[0], "models": [{"model": name} for name in names]},
}


def in_one_document(names, layout, flow):
    return yaml.safe_dump(LAYOUTS[layout](names), default_flow_style=flow, allow_unicode=True)


def in_documents(names, layout, flow):
    return "---\n".join(in_one_document([name], layout, flow) for name in names)


@fuzz(120)
@given(
    parents=st.lists(
        ids.filter(lambda name: "--" not in name), min_size=1, max_size=4, unique=True
    ),
    layout=st.sampled_from(sorted(LAYOUTS)),
    flow=st.sampled_from([None, True, False]),
    write=st.sampled_from([in_one_document, in_documents]),
    fence=st.sampled_from([None, *FENCES]),
)
def test_parents_in_a_merge_file_are_found(parents, layout, flow, write, fence):
    text = write(parents, layout, flow)
    if fence and "---" not in text:
        indent = fence[: len(fence) - len(fence.lstrip())]
        text = "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))
        claims = edges.read_file("README.md", f"# Merge\n\n{fence.format(text)}".encode())[0]
    else:
        claims = edges.read_file("mergekit_config.yml", text.encode())[0]
    assert {claim.parent for claim in claims} == set(parents)


def sample(doc_id, value, **fields):
    row = {"doc_id": doc_id, "doc_hash": f"{doc_id:016x}", "metrics": ["acc"], "acc": value}
    return row | fields


good_lines = st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 0.0, 1.0, True, False]))
bad_lines = st.one_of(
    st.text(min_size=1, max_size=12).filter(lambda text: not text.isspace()),
    json_values().map(json.dumps),
    st.sampled_from([None, "perhaps", "", float("nan")]).map(lambda v: json.dumps(sample(1, v))),
    st.sampled_from([None, "x", 1.5, [0]]).map(lambda i: json.dumps({"doc_id": i, "acc": 1})),
).map(lambda text: " ".join(text.split("\n")))


@fuzz(40)
@given(lines=st.lists(st.one_of(good_lines, bad_lines), min_size=1, max_size=12))
def test_every_line_of_samples_is_an_answer_a_repeat_or_counted(lines):
    answers = {}
    for line in lines:
        if isinstance(line, tuple):
            answers.setdefault(f"arc/arc/{line[0]:016x}", int(line[1]))
    texts = [json.dumps(sample(*line)) if isinstance(line, tuple) else line for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        for model, text in [("org__a", "\n".join(texts)), ("org__b", json.dumps(sample(0, 1)))]:
            path = Path(folder, model, "samples_arc_2025-01-01T00-00-00.0.jsonl")
            path.parent.mkdir()
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        snapshot, left_out = import_files("lm-eval", [folder], Path(folder, "out"))
        found = {item: v for (model, item), v in cells(snapshot).items() if model == "org/a"}
    assert found == answers
    assert bool(left_out) == any(isinstance(line, str) for line in lines)


RESULTS = {
    "lm-eval": {
        "org__a/results_2025-01-01T00-00-00.0.json": json.dumps(
            {
                "results": {"arc": {"acc,none": 0.0, "acc_stderr,none": 0.1}, "g": {"acc,none": 1}},
                "group_subtasks": {"g": ["arc"]},
                "config": {"model_args": "pretrained=org/a,dtype=auto", "model_num_parameters": 7},
                "n-samples": {"arc": {"effective": 3}},
                "higher_is_better": {"arc": {"acc": True}},
                "date": 1.7e9,
            }
        ),
        "org__a/samples_arc_2025-01-01T00-00-00.0.jsonl": "\n".join(
            json.dumps(sample(n, value)) for n, value in enumerate([1, 0.0, "True", 0])
        ),
        "org__a/samples_gsm8k.json": json.dumps([sample(1, 1), sample(2, 0)], indent=1),
    },
    "every-eval-ever": {
        "data/b/a/x.json": json.dumps(
            {
                "schema_version": "0.3.0",
                "evaluation_id": "bench/org_a/1.5",
                "model_info": {"name": "a", "id": "org/a", "additional_details": {}},
                "evaluation_results": [
                    {
                        "evaluation_name": "law",
                        "metric_config": {
                            "lower_is_better": False,
                            "min_score": 0,
                            "max_score": 100.0,
                        },
                        "score_details": {"score": 25, "uncertainty": {"num_samples": 9}},
                    }
                ],
            }
        ),
        "data/b/a/x_samples.jsonl": json.dumps(
            {
                "evaluation_id": "bench/org_a/1.5",
                "model_id": "org/a",
                "evaluation_name": "law",
                "sample_id": "1",
                "evaluation": {"score": 1.0, "is_correct": True},
            }
        ),
    },
    "mteb": {
        "results/org__a/rev/Task.json": json.dumps(
            {
                "task_name": "Task",
                "mteb_version": "2.1",
                "scores": {"test": [{"hf_subset": "en", "main_score": 0.5}]},
            }
        ),
        "results/org__a/rev/model_meta.json": json.dumps(
            {
                "name": "org/a",
                "n_parameters": 3,
                "adapted_from": "org/b",
                "release_date": "2024-01-01",
            }
        ),
        "mteb/models/code.py": 'm = ModelMeta(name="org/a", n_parameters=int(1 * 1e9))\n',
        "mteb/descriptive_stats/Task.json": json.dumps({"test": {"num_samples": 5}}),
    },
    "atlas": {"response_matrix_tinyarc.csv": '"","1","2"\n"org/a",1,0\n"org/b",0,1\n'},
}


@pytest.mark.parametrize("source", sorted(IMPORTERS))
@fuzz(60)
@given(data=st.data())
def test_a_damaged_file_of_results_is_read_or_named(source, data):
    name = data.draw(st.sampled_from(sorted(RESULTS[source])))
    content = data.draw(damaged([RESULTS[source][name]]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            snapshot, _ = import_files(source, [path], Path(folder, "out"))
        except ValueError as error:
            assert "nothing can be imported" in str(error) and "\n" not in str(error)
        else:
            load_snapshot(Path(folder, "out"))
            assert snapshot.n_models
