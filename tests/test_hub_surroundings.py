"""Refusals name their cause, metadata is checked, and what cannot be read is listed."""

import json
import os
import subprocess
import sys
import time

import hub_server
import numpy as np
import pandas as pd
import pytest
from hub_server import TABLE, TABLE_PATH, serve
from hub_world import World, add_details, make_world, table_row

from lrmf import cli
from lrmf.data.ids import normalised_id
from lrmf.data.metadata import day, sizes
from lrmf.data.samples import read_samples
from lrmf.data.snapshot import load_snapshot
from lrmf.hub import Client, CrawlError, crawl, unread_files
from lrmf.hub import client as client_module
from lrmf.hub.edges import read_file
from lrmf.hub.errors import Refusal

A, B, C = "alpha/a-7b", "beta/b-7b", "gamma/c-7b"
MERGE = f"models:\n  - model: {A}\n  - model: {B}\nmerge_method: linear\n"
INDENTED = "".join(f"   {line}\n" for line in MERGE.splitlines())
MERGE_FILES = {
    "several documents": f"name: one\n{MERGE}---\nmodels:\n - model: one\n - model: {C}\n",
    "shared experts": f"base_model: {A}\nexperts:\n - source_model: {B}\n"
    f"shared_experts:\n - source_model: {C}\n",
    "modules": f"modules:\n  text:\n    slices:\n    - sources: [{{model: {A}}}, {{model: {B}}}]\n"
    f"  vision:\n    models:\n    - model: {C}\n",
    "merges in modules": f"modules:\n  text:\n    merge:\n      models: [{{model: {A}}}]\n"
    f"      base_model: {B}\n  vision: {{merge: {{base_model: {C}}}}}\n",
    "a list of stages": f"- models: [{{model: {A}}}]\n- slices: [{{sources: [{{model: {B}}}]}}]\n"
    f"- base_model: {C}\n",
    "no-break spaces": f"models:\n - model: {A}\u00a0\n - model: \u00a0{B}\nbase_model:\u00a0{C}\n",
    "merge keys": f"x: &x {{weight: 1}}\ny: &y {{<<: *x, model: {C}}}\n"
    f"models:\n - {{<<: *x, model: {A}}}\n - {{<<: [*x], model: {B}}}\n - <<: *y\n",
    "texts": f"models: [{A}, {B}, {C}]\nmethod: slerp\n",
    "genome": f"genome:\n  models: [{A}, {B}]\n  base_model: {C}\n",
    "adapters and revisions": f"models:\n - model: {A}+me/lora\n - model: {B}@main\n"
    f" - model: {{model: {{path: {C}, revision: x}}, lora: {{path: me/lora}}}}\n",
    "cache paths": f"models:\n - model: D:\\hub\\models--alpha--a-7b\\snapshots\\{'0' * 40}\n"
    f" - model: /home/me/.cache/models--beta--b-7b/snapshots/{'0' * 40}/\n - model: {C}\n",
}
FENCES = {
    "tildes": f"~~~yaml\n{MERGE}~~~",
    "long": f"````yml\n{MERGE}````",
    "attributes": f"```yaml title=merge.yml\n{MERGE}```",
    "class": f"```{{.YAML .numbered}}\n{MERGE}```",
    "in a list": f"1. so:\n\n   ```yaml\n{INDENTED}   ```",
    "tildes in a list": f"1. so:\n\n   ~~~~ yaml\n{INDENTED}   ~~~~",
    "in HTML": f"<details><summary>Recipe</summary>\n```yaml\n{MERGE}```\n</details>",
    "JSON": '```json\n{"models": [{"model": "' + A + '"}, {"model": "' + B + '"}]}\n```',
    "in a quotation": "> ```yaml\n"
    + "".join(f"> {line}\n" for line in MERGE.splitlines())
    + "> ```",
    "not closed": f"```yaml\n{MERGE}",
    "no language": f"```\n{MERGE}```",
    "text": f"```text\n{MERGE}```",
    "plain text": f"```plaintext\n{MERGE}```",
    "preformatted": f"<pre><code class='language-yaml'>\n{MERGE}</code></pre>",
    "preformatted with entities": "<pre>\n{&quot;models&quot;: [&#34;"
    + f"{A}&#x22;, &#39;{B}&apos;]}}\n</pre>",
    "indented code": "text\n\n" + "".join(f"    {line}\n" for line in MERGE.splitlines()),
}


@pytest.mark.parametrize("text", MERGE_FILES.values(), ids=MERGE_FILES)
def test_merge_files_as_people_write_them(text):
    assert {claim.parent for claim in read_file("mergekit_config.yml", text.encode())[0]} == {
        A,
        B,
        C,
    }


@pytest.mark.parametrize("text", FENCES.values(), ids=FENCES)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_fences_of_all_kinds(text, codec):
    content = f"---\ntags: [merge]\ntags: [twice]\n---\n# Title\n\n{text}\n".replace("\n", "\r\n")
    found = {claim.parent for claim in read_file("README.md", content.encode(codec))[0]}
    assert found == {A, B}


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_marks_of_byte_order(codec):
    adapter = json.dumps({"base_model_name_or_path": A}).encode(codec)
    assert [claim.parent for claim in read_file("adapter_config.json", adapter)[0]] == [A]
    assert {claim.parent for claim in read_file("merge.yml", MERGE.encode(codec))[0]} == {A, B}


@pytest.mark.parametrize(
    "mark", ["\u200b", "\u200d", "\ufeff", "\u00ad", "\u2060", "\ufe0f", "\u3164", "\U000e0100"]
)
def test_ids_copied_from_a_web_page(mark):
    assert normalised_id(f"{mark}alpha/{mark}a-7b\u00a0") == A


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("merge.yml", "models: ["),
        ("README.md", "```yaml\na: b: c\n```"),
        ("merge.yml", "hello"),
        ("adapter_config.json", "{"),
        ("adapter_config.json", '{"base_model_name_or_path": null}'),
    ],
)
def test_what_cannot_be_read_is_said(name, text):
    claims, problem = read_file(name, text.encode())
    assert claims == [] and problem


def test_a_local_parent_among_those_of_the_hub_is_said():
    claims, problem = read_file("merge.yml", MERGE.replace(B, "./out/b").encode())
    assert [claim.parent for claim in claims] == [A] and "./out/b" in problem


def safetensors(total=7_000_000_000, **parameters):
    return {"total": total, "parameters": parameters or {"BF16": total}}


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        ({"safetensors": safetensors()}, 7),
        ({"safetensors": safetensors(F8_E4M3=7_000_000_000)}, 7),
        ({"safetensors": safetensors(BF16=7_000_000_000, I64=4096)}, 7),
        ({"safetensors": safetensors(), "config": {"quantization_config": {"bits": 8}}}, 7),
        ({"safetensors": safetensors(2 * 10**7), "library_name": "peft"}, None),
        ({"safetensors": safetensors(), "siblings": [{"rfilename": "adapter_model.bin"}]}, None),
        ({"safetensors": safetensors(), "tags": ["base_model:adapter:a/b"]}, None),
        ({"safetensors": safetensors(), "config": {"peft": {"task_type": "CAUSAL_LM"}}}, None),
        ({"safetensors": safetensors(10**9, I32=8 * 10**8, F16=2 * 10**8)}, None),
        ({"safetensors": safetensors(4 * 10**9, U8=3 * 10**9, BF16=10**9)}, None),
        ({"safetensors": safetensors(), "tags": ["4-bit"]}, None),
        (
            {
                "safetensors": safetensors(),
                "config": {"quantization_config": {"load_in_4bit": True}},
            },
            None,
        ),
        ({"safetensors": safetensors(), "config": {"quantization": {"bits": 4}}}, None),
        ({"safetensors": {"total": 0}}, None),
        *[({"safetensors": {"total": total}}, None) for total in (True, "7B", 7e9, -7)],
        ({"safetensors": {"total": 10**16}}, None),
        ({"safetensors": [7]}, None),
    ],
)
def test_sizes_that_are_the_models(answer, size):
    assert sizes(answer)[0] == size


@pytest.mark.parametrize(
    "text", ["2022-03-02T23:29:04.000Z", "2022-03-02", "1970-01-01", "0001-01-01", "9999-12-31",
             "2100-01-01", "2024-02-30", "0000-00-00", "2024-5-1", "yesterday", "", None, 7,
             1714521600000, 20240501, float("nan"), {}],
)  # fmt: skip
def test_dates_that_stand_for_unknown(text):
    assert day(text) is None
    assert day("2024-05-01T12:00:00.000Z") == day(pd.Timestamp("2024-05-01")) == "2024-05-01"


def line(doc_id, value):
    return json.dumps({"doc_id": doc_id, "doc_hash": f"h{doc_id}", "acc": value})


VALUES = ["True", "False", 1, 0.0, "np.True_", [1.0], True, "0.0", "np.float64(1.0)", [0.0], "1.00"]
LINES = [line(number, value) for number, value in enumerate(VALUES)]
PRETTY = json.dumps([json.loads(text) for text in LINES], indent=2)


@pytest.mark.parametrize(
    "text", ["\n".join(LINES), f"[{','.join(LINES)}]", "[\n" + ",\n".join(LINES) + "\n]", PRETTY,
             "\ufeff" + "\r\n".join(LINES), "\n\n".join(LINES) + "\n"],
    ids=["lines", "array", "array of lines", "indented array", "Windows", "empty lines"],
)  # fmt: skip
def test_samples_of_all_versions(text):
    found = read_samples(text.encode().split(b"\n"), "acc")
    assert found.values == [True, False, True, False, True, True, True, False, True, False, True]
    assert found.n_unusable == found.n_repeated == 0


@pytest.mark.parametrize(
    "value", [None, [], [1, 0], {"v": 1}, "", "yes", "nan", 0.5, "np.float64(2)"]
)
def test_values_that_are_no_answer(value):
    found = read_samples([line(0, value).encode(), line(1, 1).encode()], "acc")
    assert found.values == [True] and found.n_unusable == 1


@pytest.mark.parametrize("doc_hash", [None, 7, "", "a\u200b", "a/../b", "a\nb", "\u3164"])
def test_a_hash_that_is_none_names_no_question(doc_hash):
    row = {"doc_id": 0, "doc_hash": doc_hash, "acc": 1}
    assert read_samples([json.dumps(row).encode()], "acc").keys == [[0, ""]]


def test_a_torn_array_is_not_lost_in_silence():
    found = read_samples([f"[{','.join(LINES)}"[:-5].encode()], "acc")
    assert len(found.values) == len(LINES) - 1 and found.n_unusable == 1


@pytest.fixture(autouse=True)
def _anonymous(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))


@pytest.fixture
def session(monkeypatch):
    """A function that starts a session of its own in changed surroundings."""
    import huggingface_hub.utils._http as http

    def client(url, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(client_module, "get_session", http._GLOBAL_CLIENT_FACTORY)
        return Client(url, backoff=0.01, timeout=2)

    return client


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
        ({"https_proxy": "socks://me:s3cr3t@127.0.0.1:9"}, "https_proxy"),
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "HTTP_PROXY"),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE=/nowhere/ca.pem"),
        ({"SSL_CERT_FILE": __file__}, f"SSL_CERT_FILE={__file__}"),
    ],
)
def test_surroundings_that_prevent_a_crawl_are_named(session, environment, named):
    with pytest.raises(CrawlError) as caught:
        session("http://127.0.0.1:1", NO_PROXY="", **environment).json("api/models/org/a")
    assert named in str(caught.value) and "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["hub.example", "localhost:8080", "", "ftp://x", "https://", "https://me:s3cr3t@hub.example"],
)
def test_an_endpoint_that_is_none_or_holds_a_password(endpoint):
    with pytest.raises(CrawlError, match="HF_ENDPOINT.*https://") as caught:
        Client(endpoint)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [("HF_ENDPOINT", "http://hub.example:99999"), ("HF_HUB_ETAG_TIMEOUT", "x")]
)
def test_a_setting_that_cannot_be_read_is_named(tmp_path, name, value):
    command = [sys.executable, "-m", "lrmf", "crawl", str(tmp_path / "hub")]
    done = subprocess.run(command, env=os.environ | {name: value}, capture_output=True, text=True)
    assert done.returncode == 1
    assert name in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_switch_that_is_on_is_named(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(name, "1")
    with pytest.raises(CrawlError, match=f"unset {name}"):
        Client("http://127.0.0.1:9").json("api/models/org/a")


def test_a_token_that_expires_in_mid_crawl(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    world = make_world(40)
    with serve(world.hub) as served:
        real = hub_server._Api.route

        def expiring(handler):
            if len(served.record.requests) > 15 and handler.token() == "hf_old":
                handler.refuse(401, 'User Access Token "laptop" is expired')
            else:
                real(handler)

        monkeypatch.setattr(hub_server._Api, "route", expiring)
        with pytest.raises(CrawlError, match="token of HF_TOKEN.*expired.*--resume"):
            crawl(tmp_path / "out", client=Client(served.url, backoff=0.01))
        log = (tmp_path / "out" / ".crawl" / "log.jsonl").read_text()
        assert "expired" not in log
        monkeypatch.setenv("HF_TOKEN", "hf_new")
        snapshot = crawl(tmp_path / "out", client=Client(served.url, backoff=0.01), resume=True)
    edges = snapshot.lineage[["parent", "child", "relation"]].itertuples(index=False, name=None)
    assert set(edges) == world.edges


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_by_the_storage_is_not_the_tokens_fault(tmp_path, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    world, real = small_world("org/a"), hub_server._Api.route
    with serve(world.hub) as served, serve(world.hub) as storage:

        def leading_away(handler):
            if handler.served is storage:
                handler.refuse(status, "Request has expired")
            elif handler.path.startswith("/org/a/"):
                handler.answer(302, b"", {"Location": f"{storage.url}{handler.path}"})
            else:
                real(handler)

        monkeypatch.setattr(hub_server._Api, "route", leading_away)
        with pytest.raises(Refusal, match=f"HTTP {status}"):
            Client(served.url).content("org/a/resolve/1/f", max_bytes=10)


@pytest.mark.parametrize(
    ("storage", "host"), [("http://localhost:9", "localhost:9"), ("http://[bad", "bad")]
)
def test_a_storage_that_cannot_be_reached_costs_its_files_alone(tmp_path, storage, host):
    world = small_world("org/a", "org/b", "org/c")
    world.hub.large = 50_000  # more than the table
    for model_id, model in world.hub.models.items():
        model["tags"] = ["merge"]
        world.hub.add_file(model_id, "merge.yml", f"{MERGE}{'#' * 60_000}".encode())
    options = {"backoff": 0.01, "failures": 2}
    with serve(world.hub) as served:
        working, served.storage_url = served.storage_url, storage
        for resume in (False, True):
            found = crawl(tmp_path / "out", client=Client(served.url, **options), resume=resume)
            assert found.n_edges == 0 and found.provenance["n_failed_files"] == 3
            reasons = unread_files(tmp_path / "out")
            assert len(reasons) == 3
            assert all(host in text and "cannot be reached" in text for text in reasons)
        world.hub.large = 0
        with pytest.raises(CrawlError, match=rf"contents: .*{host} cannot be reached"):
            crawl(tmp_path / "other", client=Client(served.url, **options))
        served.storage_url = working
        found = crawl(tmp_path / "out", client=Client(served.url, **options), resume=True)
    assert set(found.lineage["parent"]) == {A, B} and found.n_edges == 6


def test_single_answers_whose_storage_cannot_be_reached(tmp_path):
    world = small_world("org/a")
    world.scores |= dict.fromkeys(world.hub.models)
    add_details(world, {"leaderboard_ifeval": 541})
    world.hub.large = 50_000
    with serve(world.hub) as served:
        served.storage_url = "http://localhost:9"
        with pytest.raises(CrawlError, match="localhost:9 cannot be reached.*--resume"):
            options = {"instances": True, "benchmarks": ["ifeval"]}
            crawl(tmp_path / "out", client=Client(served.url, backoff=0.01), **options)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "-5"},
        {"Retry-After": "0.01"},
        {"Retry-After": "soon, please"},
        {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"RateLimit": "api;r=0;t=99"},
        {"RateLimit": '"api";r=-1;t=x', "RateLimit-Policy": "q=0;w=0"},
        {"RateLimit": '"api";r=0;t=0, "files";r=9;t=300', "RateLimit-Policy": '"api";q=;w='},
    ],
)
def test_a_429_with_odd_headers_is_tried_again(monkeypatch, headers):
    world, real = small_world("org/a"), hub_server._Api.route
    with serve(world.hub) as served:

        def refusing(handler):
            first = len(served.record.requests) == 1
            handler.answer(429, b"{}", headers) if first else real(handler)

        monkeypatch.setattr(hub_server._Api, "route", refusing)
        answer = Client(served.url, backoff=0.01).json("api/models/org/a")
    assert answer["id"] == "org/a" and len(served.record.requests) == 2


def small_world(*names):
    world = World()
    for number, name in enumerate(names):
        world.hub.add_model(name)
        world.rows.append(table_row(name, [0.1 * (number + 1)] * 6))
    world.publish_table()
    return world


def test_a_table_in_several_files(tmp_path):
    world = small_world("org/a", "org/b")
    files = world.hub.files
    del files[f"datasets/{TABLE}", TABLE_PATH]
    for number, row in enumerate(world.rows):
        content = pd.DataFrame([row])[list(row)[:: 1 - 2 * number]].to_parquet()
        files[f"datasets/{TABLE}", f"data/train-0000{number}-of-00002.parquet"] = content
    with serve(world.hub) as served:
        assert crawl(tmp_path / "out", client=Client(served.url)).n_models == 2
        assert crawl(tmp_path / "out", client=Client(served.url), resume=True).n_models == 2
        del files[f"datasets/{TABLE}", "data/train-00000-of-00002.parquet"]
        with pytest.raises(CrawlError, match="1 of 2 files"):
            crawl(tmp_path / "less", client=Client(served.url))
        odd = pd.DataFrame([{"fullname": [1, 2], "Precision": 7}]).to_parquet()
        files[f"datasets/{TABLE}", "data/train-00000-of-00002.parquet"] = odd
        with pytest.raises(CrawlError, match="no readable Parquet table"):
            crawl(tmp_path / "odd", client=Client(served.url))


def test_ids_that_differ_in_case_are_one_model(tmp_path):
    world = small_world("user/Base", "me/child", "me/other")
    world.hub.models["me/child"]["cardData"] = {"base_model": "USER/BASE"}
    world.hub.models["me/other"]["cardData"] = {"base_model": ["org/gone", "ORG/Gone"]}
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=Client(served.url))
    assert set(snapshot.lineage["parent"]) == {"user/Base", "ORG/Gone"}
    assert snapshot.n_edges == 2
    assert snapshot.provenance["statuses"]["missing"] == 2


def test_files_that_cannot_be_read_are_listed(tmp_path, monkeypatch, capsys):
    world = small_world("org/a", "org/b", "org/c")
    for name, content in (("org/a", b"models: ["), ("org/b", b"x" * 3000)):
        world.hub.models[name]["tags"] = ["merge"]
        world.hub.add_file(name, "merge.yml", content)
    readme = f"# x\n```yaml\n{MERGE}```\n![x](data:image/png;base64,{'A' * 1_200_000})\n"
    world.hub.models["org/c"]["tags"] = ["merge"]
    world.hub.add_file("org/c", "README.md", readme.encode())
    monkeypatch.setattr("lrmf.hub.ancestry.MAX_FILE", 2000)
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        assert cli.main(["crawl", str(tmp_path / "out")]) == 0
        text = capsys.readouterr().out
        for culprit in ("org/a: merge.yml", "org/b: merge.yml", "org/c: README.md"):
            assert culprit in text
        assert "--resume" not in text
        monkeypatch.undo()
        snapshot = crawl(tmp_path / "whole", client=Client(served.url))
    assert set(snapshot.lineage["parent"]) == {A, B}
    assert [line.split(":")[0] for line in unread_files(tmp_path / "whole")] == ["org/a", "org/b"]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("merge.yml", 'models: ["/home/me/a", ./out/b, "C:\\\\models\\\\c"]', "only local paths"),
        ("README.md", "```yaml\nmodels:\n\t- model: ~/a\n\t- model: ../b\n```", "only local paths"),
        ("adapter_config.json", '{"base_model_name_or_path": "/data/a"}', "only local paths"),
        ("merge.yml", "models:\n\t  - model: [", "YAML"),
        ("adapter_config.json", '{"base_model_name_or_path": "org/a"', "JSON"),
    ],
)
def test_files_that_give_no_parent_are_listed_with_the_reason(
    tmp_path, monkeypatch, capsys, name, content, named
):
    world = small_world("org/a")
    world.hub.models["org/a"]["tags"] = ["merge"]
    world.hub.add_file("org/a", name, content.encode())
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        assert cli.main(["crawl", str(tmp_path / "out")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "not read" in line]
    assert f"org/a: {name}" in line and named in line


def test_unusable_samples_are_listed(tmp_path):
    world = small_world("org/a", "org/b")
    world.scores |= dict.fromkeys(world.hub.models)
    add_details(world, {"leaderboard_ifeval": 541})
    key = next(key for key in world.hub.files if "org__b" in key[0])
    world.hub.add_file(*key, world.hub.files[key][:-300])
    with serve(world.hub) as served:
        crawl(tmp_path / "out", client=Client(served.url), instances=True, benchmarks=["ifeval"])
    (told,) = unread_files(tmp_path / "out")
    assert "org__b" in told and key[1] in told and "unusable" in told


def test_sizes_and_dates_of_a_crawl(tmp_path):
    world = small_world("org/a", "org/b")
    world.rows[0] |= {"#Params (B)": 0.02, "Upload To Hub Date": "2022-03-02"}
    world.rows[1] |= {"#Params (B)": 7e9, "Hub ❤️": -1}
    world.hub.models["org/a"] |= {"library_name": "peft", "safetensors": safetensors(2 * 10**7)}
    world.publish_table()
    with serve(world.hub) as served:
        models = crawl(tmp_path / "out", client=Client(served.url)).models
    assert models["params_b"].isna().all() and models["created_at"].isna().tolist() == [True, False]
    assert models["likes"].isna().tolist() == [False, True]


def test_benchmarks_between_commas(tmp_path, monkeypatch, capsys):
    world = small_world("org/a")
    with serve(world.hub) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        for number, words in enumerate((["bbh,ifeval"], ["bbh,", "ifeval"], ["bbh", "ifeval"])):
            out = tmp_path / str(number)
            assert cli.main(["crawl", str(out), "--benchmarks", *words]) == 0
            assert load_snapshot(out).benchmarks == ["ifeval", "bbh"]
    for words in (["bbh,nonsense"], [","]):
        assert cli.main(["crawl", str(tmp_path / "x"), "--benchmarks", *words]) == 2


def test_what_the_server_says_last_holds(tmp_path, monkeypatch):
    """A refusal that says when to come back is believed, whatever was said before."""
    world, real, refused = make_world(12), hub_server._Api.route, set()

    def refusing(handler):
        number = len(handler.served.record.requests)
        if number % 10 == 0 and number not in refused:
            refused.add(number)
            handler.answer(429, b"{}", {"RateLimit": '"api";r=0;t=1'})
        else:
            real(handler)

    monkeypatch.setattr(hub_server._Api, "route", refusing)
    start = time.monotonic()
    with serve(world.hub) as served:
        snapshot = crawl(tmp_path / "out", client=Client(served.url, backoff=0.01))
    assert snapshot.n_models == 12 and 2 <= len(refused)
    assert time.monotonic() - start < 3 * len(refused) + 5


def test_masked_cells_are_missing(tmp_path):
    from lrmf.data.responses import observed, unmasked

    values = np.ma.masked_array(np.array([[0, 1]], np.uint8), mask=[[False, True]])
    assert observed(values).tolist() == [[True, False]]
    proportions = np.ma.masked_array(np.array([[0.5, 1]], np.float32), mask=[[True, False]])
    assert np.isnan(unmasked(proportions)).tolist() == [[True, False]]
