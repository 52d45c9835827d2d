"""Other sources than the leaderboard: the models of a snapshot, and Community Evals."""

import json
from multiprocessing.pool import ThreadPool

import numpy as np
import pandas as pd
import pytest
from builders import tiny_tables
from hub_server import Hub, serve
from hub_world import backwards, client, edges_of
from huggingface_hub import HfApi
from importer_contract import cells

from lrmf import cli
from lrmf.data.snapshot import load_snapshot, save_snapshot
from lrmf.hub import CrawlError, crawl

pytestmark = pytest.mark.usefixtures("anonymous")


def evidence_of(snapshot):
    return dict(
        zip(
            zip(snapshot.lineage["parent"], snapshot.lineage["child"], strict=True),
            snapshot.lineage["evidence"],
            strict=True,
        )
    )


class TestLineageOf:
    @pytest.fixture
    def known(self, tmp_path):
        """A snapshot of twelve models, some with a size, and some edges."""
        tables = tiny_tables()
        tables["models"] = tables["models"].drop(columns=["merged", "created_at"])
        return save_snapshot(tmp_path / "known", **tables, provenance={"imported": {"n_files": 3}})

    @pytest.fixture
    def hub(self):
        hub = Hub()
        hub.add_model("base/alpha", cardData={"license": "mit"})
        hub.add_model("root/alpha")
        hub.models["base/alpha"]["cardData"] |= {"base_model": "root/alpha"}
        hub.add_model("lab/alpha-chat", cardData={"base_model": "base/alpha", "license": "mit"})
        hub.add_model("new/gamma", createdAt="2024-02-03T00:00:00.000Z")
        hub.renamed["solo/gamma"] = "new/gamma"
        card = {"base_model": ["solo/gamma", "lab/beta-chat"]}
        hub.add_model("user/alpha-lora", cardData=card, tags=["merge"])
        return hub

    def test_the_scores_stay_and_the_family_tree_grows(self, tmp_path, known, hub):
        with serve(hub) as served:
            found = crawl(tmp_path / "out", lineage_of=tmp_path / "known", client=client(served))
        pd.testing.assert_frame_equal(found.items, known.items)
        np.testing.assert_array_equal(found.responses, known.responses)
        assert found.models["model_id"].tolist() == known.models["model_id"].tolist()
        new = {
            ("root/alpha", "base/alpha", "finetune"),
            ("solo/gamma", "user/alpha-lora", "merge"),
            ("lab/beta-chat", "user/alpha-lora", "merge"),
        }
        assert edges_of(found) == edges_of(known) | new
        assert evidence_of(found)["base/alpha", "lab/alpha-chat"] == "card,simulated"
        assert evidence_of(found)["base/alpha", "lab/alpha-code"] == "simulated"
        assert found.source == known.source
        assert found.provenance["imported"] == {"n_files": 3}
        assert found.provenance["statuses"]["renamed"] == 1

    def test_cards_fill_what_is_not_known(self, tmp_path, known, hub):
        with serve(hub) as served:
            crawl(tmp_path / "out", lineage_of=tmp_path / "known", client=client(served))
        models = load_snapshot(tmp_path / "out").models.set_index("model_id")
        before = known.models.set_index("model_id")
        assert models.loc["user/alpha-lora", "params_b"] == 7.0  # was null
        assert models.loc["lab/alpha-chat", "params_b"] == 7.2  # is the snapshot's
        assert models["architecture"]["solo/gamma"] == "LlamaForCausalLM"
        assert models["architecture"]["lab/beta-chat"] == before["architecture"]["lab/beta-chat"]
        assert models.loc["lab/alpha-chat", "license"] == "mit"
        assert models.loc["solo/gamma", "created_at"] == "2024-02-03"
        assert models.loc["solo/gamma", "hub_id"] == "new/gamma"
        assert pd.isna(models.loc["gpt2", "license"])

    def test_two_rows_may_be_one_model_of_the_hub(self, tmp_path, hub):
        tables = tiny_tables()
        ids = tables["models"]["model_id"].replace({"gpt2": "new/gamma"})
        tables["models"]["model_id"] = ids
        save_snapshot(tmp_path / "known", **tables)
        with serve(hub) as served:
            found = crawl(tmp_path / "out", lineage_of=tmp_path / "known", client=client(served))
        assert ("new/gamma", "user/alpha-lora", "merge") in edges_of(found)
        assert found.n_models == 12

    def test_revisions_and_quantizations_of_models(self, tmp_path, hub):
        """A revision is the model, a quantization set in the arguments its child."""
        tables = tiny_tables()
        own = ["base/alpha@step1", "base/alpha@step2", "lab/alpha-chat@26a66f0@load_in_4bit"]
        own += ["solo/gamma@26a66f0", "lab/nobody@main", "my runs/final"]
        tables["models"] = tables["models"].iloc[:6].assign(model_id=own, license=pd.NA)
        tables["responses"] = tables["responses"][:6]
        made = [["lab/alpha-chat", own[2], "quantized"]]
        tables["lineage"] = pd.DataFrame(made, columns=["parent", "child", "relation"])
        save_snapshot(tmp_path / "known", **tables)
        told = []
        with serve(hub) as served:
            options = {"lineage_of": tmp_path / "known", "client": client(served)}
            found = crawl(tmp_path / "out", say=told.append, **options)
        assert edges_of(found) == {
            ("root/alpha", "base/alpha@step1", "finetune"),
            ("root/alpha", "base/alpha@step2", "finetune"),
            ("base/alpha@step2", "lab/alpha-chat", "finetune"),
            ("lab/alpha-chat", own[2], "quantized"),
        }
        models = found.models.set_index("model_id")
        assert models["license"].eq("mit").fillna(False).tolist() == [True] * 3 + [False] * 3
        ids = ["base/alpha", "base/alpha", "lab/alpha-chat", "new/gamma", None, None]
        assert models["hub_id"].fillna("").tolist() == [name or "" for name in ids]
        (message,) = told
        assert "1 of 7 models and relatives" in message and "'my runs/final'" in message

    def test_a_row_of_the_model_itself_has_its_children(self, tmp_path, known, hub):
        tables = tiny_tables()
        names = {"gpt2": "base/alpha@step1", "user/beta-merge": "base/alpha"}
        tables["models"]["model_id"] = tables["models"]["model_id"].replace(names)
        save_snapshot(tmp_path / "pinned", **tables)
        with serve(hub) as served:
            options = {"lineage_of": tmp_path / "pinned", "client": client(served)}
            found = edges_of(crawl(tmp_path / "out", **options))
        assert ("base/alpha", "lab/alpha-chat", "finetune") in found
        children = {child for parent, child, _ in found if parent == "root/alpha"}
        assert children == {"base/alpha", "base/alpha@step1"}

    def test_an_interrupted_crawl_goes_on(self, tmp_path, known, hub, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with serve(hub) as served:
            whole = crawl(tmp_path / "a", lineage_of=tmp_path / "known", client=client(served))
            served.hub.fault_kinds, served.hub.faults, served.hub.most_faults = ("500",), 0.7, 99
            with pytest.raises(CrawlError):
                options = {"tries": 2, "failures": 2}
                crawl(
                    tmp_path / "b",
                    lineage_of=tmp_path / "known",
                    client=client(served, **options),
                    n_workers=1,
                )
            served.hub.faults = 0.0
            resumed = crawl(tmp_path / "b", resume=True, client=client(served))
        assert edges_of(resumed) == edges_of(whole)
        pd.testing.assert_frame_equal(resumed.models, whole.models)

    def test_on_the_command_line(self, tmp_path, known, hub, monkeypatch, capsys):
        with serve(hub) as served:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
            argv = ["crawl", str(tmp_path / "out"), "--lineage-of", str(tmp_path / "known")]
            assert cli.main(argv) == 0
            assert "15 merge" not in capsys.readouterr().out
            assert cli.main([*argv[:1], str(tmp_path / "c"), *argv[2:], "--instances"]) == 2
            assert "--instances" in capsys.readouterr().err
            nowhere = ["crawl", str(tmp_path / "d"), "--lineage-of", str(tmp_path / "nowhere")]
            assert cli.main(nowhere) == 1
            assert "nowhere" in capsys.readouterr().err and not (tmp_path / "d").exists()
            community = [*argv[:1], str(tmp_path / "e"), *argv[2:], "--source", "community"]
            assert cli.main(community) == 2 and "--source" in capsys.readouterr().err


def listed(model_id, value, **fields):
    row = {
        "rank": 1,
        "modelId": model_id,
        "value": value,
        "filename": ".eval_results/gpqa.yaml",
        "verified": False,
        "author": {"_id": "1", "name": "org", "fullname": "Org", "type": "org", "avatarUrl": ""},
    }
    return row | fields


def stated(dataset, task, value, **fields):
    data = {"dataset": {"id": dataset, "task_id": task}, "value": value} | fields
    return {"filename": ".eval_results/x.yaml", "data": data}


class TestCommunityEvals:
    GPQA, HLE = "lab/gpqa", "lab/hle"

    @pytest.fixture
    def hub(self):
        hub = Hub()
        source = {"url": "https://example.org/run", "name": "Logs", "org": "lab"}
        results = {
            "org/a": [
                stated(self.GPQA, "diamond", 0.41, date="2025-01-02", source=source),
                stated(self.GPQA, "diamond", 0.38, date="2025-03-01", notes="no tools"),
                stated(self.HLE, "default", 20.5),
            ],
            "org/b": [
                stated(self.GPQA, "diamond", 0.0),
                stated(self.HLE, "default", 0.5),
                stated("other/set", "x", 0.5),
            ],
            "user/c": [
                stated(self.GPQA, "diamond", 0.7, verifyToken="jwt", date="2024-01-01"),
                stated(self.GPQA, "diamond", 0.1, date="2025-01-01"),
                {"error": "invalid", "filename": "y.yaml"},
                {"data": {"value": 3}},
            ],
        }
        for name, rows in results.items():
            hub.add_model(name, evalResults=rows)
        hub.models["user/c"]["cardData"] = {"base_model": "org/a"}
        hub.add_model("org/d", evalResults=None)
        hub.leaderboards = {
            self.GPQA: [
                listed("org/a", 0.41, verified=True, pullRequest=7),
                listed("org/b", 0.0),
                listed("user/c", 0.7, verified=True),
                listed("org/d", 0.33, source={"url": "https://example.org/d"}),
                {"rank": 5},
            ],
            self.HLE: [listed("org/a", 20.5), listed("org/b", 0.5)],
        }
        return hub

    @pytest.fixture
    def found(self, hub, tmp_path):
        with serve(hub) as served:
            snapshot = crawl(tmp_path / "out", source="community", client=client(served))
        return snapshot, pd.read_parquet(tmp_path / "out/score_sources.parquet"), served

    def test_scores_of_all_official_benchmarks(self, found):
        assert cells(found[0]) == {
            ("org/a", "lab/gpqa/diamond"): 0.41,  # verified, though another is later
            ("org/b", "lab/gpqa/diamond"): 0.0,
            ("org/d", "lab/gpqa/diamond"): 0.33,  # on the leaderboard only
            ("user/c", "lab/gpqa/diamond"): 0.7,
            ("org/a", "lab/hle/default"): 0.205,
        }
        assert edges_of(found[0]) == {("org/a", "user/c", "finetune")}
        assert found[0].models.set_index("model_id").loc["org/a", "params_b"] == 7.0

    def test_every_score_keeps_its_provenance(self, found):
        sources = found[1].set_index(["model_id", "value"])
        first = sources.loc["org/a", 0.41]
        assert first["used"] and first["verified"]
        assert first["source_url"] == "https://example.org/run" and first["source_org"] == "lab"
        assert first["date"] == "2025-01-02" and first["pull_request"] == 7
        other = sources.loc["org/a", 0.38]
        assert not other["used"] and other["notes"] == "no tools"
        assert sources.loc["org/d", 0.33]["source_url"] == "https://example.org/d"

    def test_what_cannot_be_used_is_listed(self, found):
        sources = found[1]
        reasons = sources[sources["reason"].notna()].set_index("model_id")["reason"]
        assert "percent" in reasons["org/b"]  # 0.5 beside 20.5
        assert len(reasons.loc[["user/c"]]) == 2
        assert len(reasons.loc[[self.GPQA]]) == 1

    def test_answers_in_another_order_give_the_same_bytes(self, hub, tmp_path, monkeypatch):
        hub.models["org/d"]["evalResults"] = [{"error": "invalid"}]  # as a row of user/c
        with serve(hub) as served:
            crawl(tmp_path / "a", source="community", client=client(served))
            monkeypatch.setattr(ThreadPool, "imap_unordered", backwards)
            crawl(tmp_path / "b", source="community", client=client(served))
        first, again = (tmp_path / name / "score_sources.parquet" for name in "ab")
        assert again.read_bytes() == first.read_bytes()

    def test_requests_are_those_of_the_installed_client(self, hub, found):
        ours = set(found[2].record.requests)
        with serve(hub) as served:
            api = HfApi(endpoint=served.url, token=False)
            official = api.list_datasets(benchmark="official", limit=1000)
            assert {row.id for row in official} == {self.GPQA, self.HLE}
            entries = api.get_dataset_leaderboard(self.HLE, base_model_only=False)
            assert {entry.model_id for entry in entries} == {"org/a", "org/b"}
            info = api.model_info("org/a", expand=["evalResults"])
            assert [entry.value for entry in info.eval_results] == [0.41, 0.38, 20.5]
            assert set(served.record.requests) <= ours

    def test_datasets_and_models_can_be_chosen(self, hub, tmp_path):
        with serve(hub) as served:
            options = {"source": "community", "client": client(served)}
            snapshot = crawl(tmp_path / "a", datasets=[self.HLE], **options)
            assert set(cells(snapshot)) == {("org/a", "lab/hle/default")}
            options["client"] = client(served)
            snapshot = crawl(tmp_path / "b", models=["org/b"], datasets=[self.GPQA], **options)
            assert set(cells(snapshot)) == {("org/b", "lab/gpqa/diamond")}
            options["client"] = client(served)
            with pytest.raises(CrawlError, match="nobody/set|Community Evals"):
                crawl(tmp_path / "c", datasets=["nobody/set"], **options)

    def test_rows_of_any_shape_are_read_or_listed(self, hub, found, tmp_path):
        odd = [stated(self.GPQA, "diamond", value) for value in ("many", True, [0.5], {}, 7e400)]
        odd += [7, None, [], {"data": 7}, stated(self.GPQA, 7, 0.5), stated(7, "x", 0.5)]
        odd += [stated(self.GPQA, "diamond", 0.41, date=2025, notes=["x"], source="me")]
        hub.models["org/a"]["evalResults"] += odd
        hub.models["org/d"]["evalResults"] = 7
        hub.leaderboards[self.GPQA] += [listed("org/e", 0.5, pullRequest="x", notes=7), None, 3]
        with serve(hub) as served:
            snapshot = crawl(tmp_path / "odd", source="community", client=client(served))
        assert cells(snapshot) == cells(found[0]) | {("org/e", "lab/gpqa/diamond"): 0.5}
        reasons = pd.read_parquet(tmp_path / "odd/score_sources.parquet").set_index("model_id")
        assert reasons.loc[["org/a"], "reason"].notna().sum() >= len(odd) - 2

    @pytest.mark.parametrize(
        ("earlier", "later"),
        [
            ("2025-01-16T01:00:00Z", "2025-01-15T23:00:00-08:00"),
            ("2025-01-16T08:00:00+09:00", "2025-01-16"),
            ("last week", "2024-12-01"),
            ("31.12.2025", "2025-01-16T00:00:00.5Z"),
        ],
    )
    def test_the_later_of_two_scores_counts(self, hub, tmp_path, earlier, later):
        dates = {0.1: earlier, 0.2: None, 0.05: later}
        rows = [stated(self.GPQA, "diamond", value, date=date) for value, date in dates.items()]
        hub.models["org/d"]["evalResults"] = rows
        hub.leaderboards = {self.GPQA: [listed("org/d", 0.1)]}
        with serve(hub) as served:
            snapshot = crawl(tmp_path / "out", source="community", client=client(served))
        assert cells(snapshot) == {("org/d", "lab/gpqa/diamond"): 0.05}
        dates_kept = pd.read_parquet(tmp_path / "out/score_sources.parquet")["date"]
        assert set(dates_kept.dropna()) == {earlier, later}

    def test_renamed_models_are_one(self, hub, tmp_path):
        hub.models["new/a"] = hub.models.pop("org/a") | {"id": "new/a"}
        hub.renamed["org/a"] = "new/a"
        with serve(hub) as served:
            snapshot = crawl(tmp_path / "out", source="community", client=client(served))
        assert ("new/a", "lab/hle/default") in cells(snapshot)
        assert edges_of(snapshot) == {("new/a", "user/c", "finetune")}

    def test_faults_on_the_way_change_nothing(self, hub, found, tmp_path):
        hub.fault_kinds, hub.faults, hub.most_faults = ("429", "500", "truncated", "html"), 0.3, 2
        with serve(hub) as served:
            again = crawl(tmp_path / "again", source="community", client=client(served))
            assert sum(served.record.n_faults.values())
        assert cells(again) == cells(found[0])

    def test_on_the_command_line(self, hub, tmp_path, monkeypatch, capsys):
        with serve(hub) as served:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
            argv = ["crawl", str(tmp_path / "out"), "--source", "community"]
            assert cli.main([*argv, "--datasets", self.GPQA, self.HLE]) == 0
            assert cli.main(["validate", str(tmp_path / "out")]) == 0
            assert cli.main([*argv, "--instances"]) == 2
            assert cli.main(["crawl", str(tmp_path / "x"), "--datasets", self.GPQA]) == 2
            manifest = json.loads((tmp_path / "out/snapshot.json").read_text())
            assert manifest["source"] == "hub" and manifest["endpoint"] == served.url
