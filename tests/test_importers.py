"""Importers: what they read of each format, and what they say of the rest."""

import json
import os
import zipfile

import numpy as np
import pytest
from importer_contract import MODELS, ImporterContract, cells, write

from lrmf import cli
from lrmf.data.responses import MISSING
from lrmf.importers import IMPORTERS, import_files
from lrmf.importers.results import Results, files_in

TIME = "2025-01-0{}T10-00-00.000000"
LATE = TIME.format(9)


def results_file(model, scores, *, day=1, **content):
    """What lm-eval writes beside the samples; scores are rows of metrics by task."""
    return {
        "results": scores,
        "group_subtasks": {},
        "higher_is_better": {},
        "n-samples": {task: {"original": 50, "effective": 50} for task in scores},
        "config": {"model": "hf", "model_args": f"pretrained={model},dtype=bfloat16"},
        "date": 1735725600.0 + 86400 * (day - 1),
        "lm_eval_version": "0.4.13",
    } | content


def sample_lines(values, *, metric="acc", name="none", **fields):
    """Lines of a samples file; the hash of a question depends on its number only."""
    rows = [
        {"doc_id": n, "doc_hash": f"{n:016x}", "filter": name, "metrics": [metric], metric: value}
        for n, value in enumerate(values)
    ]
    return [row | fields for row in rows]


def lm_eval_folder(folder, model):
    return folder / model.replace("/", "__")


class TestScoresOfLmEval(ImporterContract):
    source = "lm-eval"
    bad = {
        "org__bad/results_2025-01-01T10-00-00.000000.json": "{broken",
        "org__bad/results_2025-01-02T10-00-00.000000.json": [],
        "org__bad/samples_arc_2025-01-02T10-00-00.000000.jsonl": "no json\n",
        "org__bad/config.json": {"architectures": ["LlamaForCausalLM"]},
        "org__bad/notes.txt": "notes",
    }

    def write_files(self, folder):
        for number, model in enumerate(MODELS):
            scores = {
                "arc_easy": {"alias": "arc", "acc,none": 0.1 * number, "acc_stderr,none": 0.01},
                "gsm8k": {"exact_match,flexible-extract": 0.5, "exact_match,strict-match": 0.4},
            }
            file = results_file(model, scores)
            write(lm_eval_folder(folder, model) / f"results_{TIME.format(1)}.json", file)
        scores = {(model, "arc_easy"): round(0.1 * n, 6) for n, model in enumerate(MODELS)}
        return scores | {(model, "gsm8k"): 0.5 for model in MODELS}

    @pytest.fixture
    def run_all(self, run, tmp_path):
        """Import results of one task, each file with its own arguments of the model and fields."""

        def run_all(*files):
            for day, (arguments, row, fields) in enumerate(files, 1):
                content = results_file("", {"arc": row}, day=day, **fields)
                content["config"]["model_args"] = arguments
                write(tmp_path / f"files/{day}/results.json", content)
            return run(tmp_path / "files")[1:]

        return run_all

    @pytest.mark.parametrize(
        "arguments, model_ids",
        [
            (
                ["org/a", "org/a,revision=main", "org/a,revision=refs/pr/1", "org/a,revision=b"],
                ["org/a", "org/a@b", "org/a@refs-pr-1"],
            ),
            (
                ["/me/one/run/final", "/me/two/run/final", "/me/other"],
                ["me/other", "one/run/final", "two/run/final"],
            ),
            (
                ["org/a,gguf_file=a.Q2.gguf", "org/a,gguf_file=a.Q8.gguf"],
                ["org/a@a.Q2.gguf", "org/a@a.Q8.gguf"],
            ),
            (
                [
                    "org/a,lora_local_path=/me/lora",
                    "org/a,load_in_4bit=True",
                    "org/a,quantization=awq",
                ],
                ["me/lora", "org/a", "org/a@load_in_4bit"],
            ),
        ],
    )
    def test_weights_that_differ_are_models_of_their_own(self, run_all, arguments, model_ids):
        files = [(f"pretrained={text}", {"acc,none": 0.5}, {}) for text in arguments]
        snapshot, messages = run_all(*files)
        assert snapshot.models["model_id"].tolist() == model_ids
        assert messages == ""
        edges = dict(zip(snapshot.lineage["child"], snapshot.lineage["relation"], strict=True))
        assert edges.get("me/lora", "adapter") == "adapter"
        assert edges.get("org/a@load_in_4bit", "quantized") == "quantized"
        if "me/lora" in model_ids:
            assert edges.keys() == {"me/lora", "org/a@load_in_4bit"}

    def test_all_models_are_compared_by_one_number_of_shots(self, run_all):
        snapshot, messages = run_all(
            ("pretrained=org/a", {"acc,none": 0.3}, {"n-shot": {"arc": 25}}),
            ("pretrained=org/a", {"acc,none": 0.1}, {"n-shot": {"arc": 0}}),
            ("pretrained=org/b", {"acc,none": 0.4}, {"n-shot": {"arc": 25}}),
            ("pretrained=org/c", {"acc,none": 0.2}, {"n-shot": {"arc": 0}}),
        )
        # With as many models each, the first by name counts.
        assert cells(snapshot) == {("org/a", "arc"): 0.1, ("org/c", "arc"): 0.2}
        assert messages.count("25-shot, others by") == 2

    def test_all_models_are_compared_by_one_filter(self, run_all):
        both = {"exact_match,strict": 0.2, "exact_match,flexible": 0.4}
        snapshot, messages = run_all(
            ("pretrained=org/a", both, {}),
            ("pretrained=org/b", {"exact_match,strict": 0.1}, {}),
            ("pretrained=org/c", {"exact_match,other": 0.9}, {}),
        )
        assert cells(snapshot) == {("org/a", "arc"): 0.2, ("org/b", "arc"): 0.1}
        assert snapshot.items["metric"].tolist() == ["exact_match:strict"]
        assert messages.count("arc:") == 1

    @pytest.mark.parametrize("metric", ["bits_per_byte", "brier_score", "acc_stderr"])
    def test_what_falls_as_models_get_better_is_no_score(self, run_all, metric):
        row = {f"{metric},none": 0.9}
        snapshot, messages = run_all(
            ("pretrained=org/a", {"acc,none": 0.5} | row, {}), ("pretrained=org/b", row, {})
        )
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert messages.count("arc:") == 1

    def test_groups_that_contain_each_other_are_tasks(self, run_all):
        scores = {task: {"acc,none": 0.5} for task in ("x", "y", "arc")}
        groups = {"x": ["y"], "y": ["x"], "arc": ["arc"]}
        fields = {"results": scores, "group_subtasks": groups}
        snapshot, messages = run_all(("pretrained=org/a", {}, fields))
        assert list(cells(snapshot)) == [("org/a", task) for task in ("arc", "x", "y")]
        assert messages == ""

    def test_groups_are_not_counted_beside_their_tasks(self, run, tmp_path):
        scores = {
            "mmlu": {"acc,none": 0.5},
            "mmlu_stem": {"acc,none": 0.4},
            "mmlu_physics": {"acc,none": 0.3},
            "mmlu_law": {"acc,none": 0.6},
            "lonely": {"acc,none": 0.7, "sample_len": 1},
            "suite": {"alias": "suite", "name": "suite", "sample_len": 1},
        }
        groups = {"mmlu": ["mmlu_stem", "mmlu_law"], "mmlu_stem": ["mmlu_physics"], "lonely": []}
        content = results_file(
            "org/a", scores, group_subtasks=groups | {"suite": ["mmlu", "lonely"]}
        )
        _, snapshot, messages = run(write(tmp_path / "x/results.json", content))
        assert messages == ""
        assert {item: value for (_, item), value in cells(snapshot).items()} == {
            "lonely": 0.7,
            "mmlu/mmlu_law": 0.6,
            "mmlu/mmlu_physics": 0.3,
        }
        assert snapshot.benchmarks == ["lonely", "mmlu"]

    def test_a_number_of_questions_that_cannot_be(self, run_all):
        fields = {"n-samples": {"arc": {"effective": 10**30}}}
        snapshot, messages = run_all(
            ("pretrained=org/a", {"acc,none": 0.5}, {}),
            ("pretrained=org/b", {"acc,none": 0.5}, fields),
        )
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert "2/results.json" in messages

    def test_a_group_counts_where_its_tasks_are_not_told(self, run, tmp_path):
        content = results_file("org/a", {"mmlu": {"acc,none": 0.5}})
        content["group_subtasks"] = {"mmlu": ["mmlu_law"]}
        snapshot = run(write(tmp_path / "results.json", content))[1]
        assert cells(snapshot) == {("org/a", "mmlu"): 0.5}

    def test_tasks_of_the_leaderboard_are_named_as_in_a_crawl(self, run, tmp_path):
        task = "leaderboard_bbh_navigate"
        content = results_file("org/a", {task: {"acc_norm,none": 0.5, "acc,none": 0.1}})
        snapshot = run(write(tmp_path / "results.json", content))[1]
        assert list(snapshot.items["benchmark"]) == ["bbh"]
        assert cells(snapshot) == {("org/a", "bbh/navigate"): 0.5}

    def test_zero_is_a_score_and_noise_and_losses_are_none(self, run, tmp_path):
        scores = {
            "a": {"acc,none": 0.0, "acc_stderr,none": 0.5},
            "b": {"word_perplexity,none": 12.0, "acc,none": "N/A"},
            "c": {"brier_score,none": 0.2},
            "d": {"acc,none": True, "f1,none": float("nan")},
        }
        content = results_file("org/a", scores, higher_is_better={"c": {"brier_score": False}})
        _, snapshot, messages = run(write(tmp_path / "results.json", content))
        assert cells(snapshot) == {("org/a", "a"): 0.0}
        assert all(f"{task}: has no score" in messages for task in "bcd")

    def test_what_is_no_row_or_no_name_is_left_out_alone(self, run_all):
        bad = {"x": 0.5, "y": None, "z": {"acc\ud800,none": 0.5}}
        fields = {"results": bad | {"arc": {"acc,none": 0.5}}, "lm_eval_version": "\ud800"}
        snapshot, messages = run_all(("pretrained=org/a", {}, fields))
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert "x:" in messages and "y:" in messages and "ud800" in messages

    def test_a_percentage_up_to_one_is_no_proportion(self, run_all):
        files = [(f"pretrained=org/{n}", {"bleu,none": n}, {}) for n in (0.8, 25.0, 30.0)]
        files.append(("pretrained=org/a", {"acc,none": 0.5}, {}))
        snapshot, messages = run_all(*files)
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert messages.count("bleu") == 3

    def test_results_of_another_program_and_other_encodings(self, run, tmp_path):
        content = results_file("org/a", {"arc": {"acc,none": 0.5}})
        other = {"config_general": {"model_name": "org/b"}, "results": {"all": {"acc": 0.5}}}
        write(tmp_path / "files/other/results.json", other)
        write(tmp_path / "files/results.json", json.dumps(content).encode("utf-16"))
        write(tmp_path / "files/results.json.gz", b"\x1f\x8b\x08")
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert "other/results.json" in messages and "results.json.gz" in messages

    def test_the_most_complete_run_counts_then_the_latest(self, run, tmp_path):
        for day, effective, score in [(1, 50, 0.1), (2, 50, 0.2), (3, 10, 0.3)]:
            content = results_file("org/a", {"arc": {"acc,none": score}}, day=day)
            content["n-samples"]["arc"]["effective"] = effective
            write(tmp_path / f"files/results_{TIME.format(day)}.json", content)
        snapshot = run(tmp_path / "files")[1]
        assert cells(snapshot) == {("org/a", "arc"): 0.2}
        assert snapshot.provenance["imported"]["n_repeated_runs"] == 2

    def test_all_models_are_compared_by_one_metric(self, run, tmp_path):
        for name, row in [
            ("org/a", {"acc,none": 0.1, "acc_norm,none": 0.2}),
            ("org/b", {"acc,none": 0.3, "acc_norm,none": 0.4}),
            ("org/c", {"acc,none": 0.5}),
        ]:
            path = lm_eval_folder(tmp_path / "files", name) / "results.json"
            write(path, results_file(name, {"arc": row}))
        snapshot = run(tmp_path / "files")[1]
        assert list(snapshot.items["metric"]) == ["acc"]
        assert sorted(cells(snapshot).values()) == [0.1, 0.3, 0.5]

    @pytest.mark.parametrize(
        "arguments, model_id",
        [
            ("pretrained=org/a,dtype=auto", "org/a"),
            ({"pretrained": "org/a", "revision": "main"}, "org/a"),
            ("dtype=auto,pretrained=https://huggingface.co/org/a", "org/a"),
            ("pretrained=org/base,peft=org/a", "org/a"),
            ("pretrained=/home/me/runs/llama/step-10", "llama/step-10"),
            ("pretrained=./runs/llama", "runs/llama"),
            (r"pretrained=C:\runs\llama\step-10", "llama/step-10"),
            ("pretrained=org/a,peft=None", "org/a"),
            (["pretrained=org/a"], "org/named"),
            ("model=gpt-4o", "gpt-4o"),
            ("", "org/named"),
            (None, "org/named"),
        ],
    )
    def test_the_id_of_the_model(self, run, tmp_path, arguments, model_id):
        content = results_file("", {"arc": {"acc,none": 0.5}}, model_name="org/named")
        content["config"]["model_args"] = arguments
        snapshot = run(write(tmp_path / "x__y/results.json", content))[1]
        assert list(snapshot.models["model_id"]) == [model_id]
        assert snapshot.n_edges == ("peft=org" in str(arguments))
        if snapshot.n_edges:
            assert snapshot.lineage.iloc[0, :3].tolist() == ["org/base", "org/a", "adapter"]

    @pytest.mark.parametrize(
        "date", [None, 0, -1e18, 1.7357e12, 1e300, "2025", "0001-01-01", "2100-01-01"]
    )
    def test_dates_that_cannot_be_are_unknown(self, run, tmp_path, date):
        content = results_file("org/a", {"arc": {"acc,none": 0.5}}) | {"date": date}
        name = f"results_{date}T10-00-00.0.json" if isinstance(date, str) else "results.json"
        snapshot = run(write(tmp_path / name, content))[1]
        assert cells(snapshot) == {("org/a", "arc"): 0.5}
        assert snapshot.models.reindex(columns=["evaluated_at"]).isna().all(axis=None)

    def test_ids_that_differ_in_case_are_one_model(self, run, tmp_path):
        for number, name in enumerate(["org/Model", "Org/model", "org/Model"]):
            content = results_file(name, {f"task{number}": {"acc,none": 0.5}})
            write(tmp_path / f"files/{number}/results.json", content)
        assert list(run(tmp_path / "files")[1].models["model_id"]) == ["org/Model"]

    def test_what_the_harness_knows_of_a_model(self, run, tmp_path):
        for name, dtype in [("org/a", "torch.bfloat16"), ("org/packed", "torch.uint8")]:
            content = results_file(name, {"arc": {"acc,none": 0.5}}, chat_template="{{x}}")
            content["config"] |= {"model_num_parameters": 7 * 10**9, "model_dtype": dtype}
            write(tmp_path / f"files/{name}/results.json", content)
        for number, size in enumerate(["7B", 0, -7, 7, True, 10**30, float("inf")]):
            content = results_file(f"odd/{number}", {"arc": {"acc,none": 0.5}})
            content["config"] |= {"model_num_parameters": size, "model_sha": size}
            write(tmp_path / f"files/odd{number}/results.json", content)
        models = run(tmp_path / "files")[1].models.set_index("model_id")
        assert models["params_b"].notna().sum() == 1
        assert models.loc["org/a", "params_b"] == 7.0
        assert models.loc["org/a", "precision"] == "bfloat16"
        assert models.loc["org/a", "chat_template"]
        assert models.loc["org/a", "evaluated_at"] == "2025-01-01"
        assert np.isnan(models["params_b"].astype(float)["org/packed"])


class TestAnswersOfLmEval(ImporterContract):
    source = "lm-eval"
    bad = {
        f"org__bad/samples_arc_{LATE}.jsonl": "no json\n",
        f"org__bad/samples_f1only_{LATE}.jsonl": sample_lines([0.3, 0.7], metric="f1"),
        f"org__bad/samples_array_{LATE}.json": "[[[",
    }

    def write_files(self, folder):
        expected = {}
        for number, model in enumerate(MODELS):
            place = lm_eval_folder(folder, model)
            answers = [number % 2, 1, 0.0, 1.0]
            write(place / f"samples_arc_{TIME.format(1)}.jsonl", sample_lines(answers))
            scores = {"arc": {"acc,none": sum(answers) / 4}}
            write(place / f"results_{TIME.format(1)}.json", results_file(model, scores))
            for doc_id, value in enumerate(answers):
                expected[model, f"arc/arc/{doc_id:016x}"] = float(value)
        return expected

    def answers_of(self, run, path, rows):
        write(path, rows)
        return list(cells(run(path)[1]).values())

    def test_one_filter_counts_for_all_models(self, run, tmp_path):
        strict = sample_lines([0, 0, 1], name="strict")
        name = f"samples_gsm8k_{TIME.format(1)}.jsonl"
        path = tmp_path / f"files/org__a/{name}"
        assert self.answers_of(run, path, sample_lines([1, 0], name="flexible") + strict) == [1, 0]
        write(tmp_path / f"files/org__b/{name}", strict)
        write(tmp_path / f"files/org__c/{name}", sample_lines([1, 1, 1], name="other"))
        _, snapshot, messages = run(tmp_path / "files", out="several")
        assert snapshot.responses.tolist() == [[0, 0, 1], [0, 0, 1]]
        assert messages.count("org__c") == messages.count("gsm8k:") == 1

    def test_answers_are_of_the_model_with_results_of_their_time_or_of_the_only_one(
        self, run, tmp_path
    ):
        for folder, days in [("one", [1, 2]), ("two", [1, 2, 3])]:
            for day in days:
                model = f"org/{folder}{day}" if folder == "two" else "org/one"
                content = results_file(model, {"arc": {"acc,none": 0.5}})
                write(tmp_path / f"files/{folder}/results_{TIME.format(day)}.json", content)
            for day in (2, 9):
                name = f"files/{folder}/samples_arc_{TIME.format(day)}.jsonl"
                write(tmp_path / name, sample_lines([1, day == 9]))
        _, snapshot, messages = run(tmp_path / "files")
        assert snapshot.models["model_id"].tolist() == ["org/one", "org/two2"]
        assert snapshot.responses.tolist() == [[1, 1], [1, 0]]
        assert f"two/samples_arc_{LATE}.jsonl" in messages

    def test_questions_without_hashes_are_numbered_as_in_other_files(self, run, tmp_path):
        named = sample_lines([1, 0])
        bare = [{k: v for k, v in row.items() if k != "doc_hash"} for row in sample_lines([0, 0])]
        write(tmp_path / "files/org__a/samples_arc.jsonl", named)
        write(tmp_path / "files/org__b/samples_arc.jsonl", bare)
        assert run(tmp_path / "files")[1].n_items == 2

    def test_samples_alone_are_enough(self, run, tmp_path):
        path = tmp_path / "org__a-details/samples_hellaswag_2025-01-01T10-00-00.1.jsonl"
        rows = sample_lines([1, 0, 1])
        write(path, rows)
        snapshot = run(path)[1]
        assert snapshot.models["model_id"].tolist() == ["org/a"]
        assert snapshot.benchmarks == ["hellaswag"]
        assert snapshot.responses.tolist() == [[1, 0, 1]]

    def test_an_array_instead_of_lines(self, run, tmp_path):
        rows = sample_lines([1, 0, 1])
        path = write(tmp_path / "org__a/samples_arc.json", json.dumps(rows, indent=1))
        assert list(cells(run(path)[1]).values()) == [1, 0, 1]

    def test_the_most_complete_run_counts_then_the_latest(self, run, tmp_path):
        for day, answers in [(1, [0, 0]), (2, [1, 1]), (3, [0])]:
            rows = sample_lines(answers)
            write(tmp_path / f"files/org__a/samples_arc_{TIME.format(day)}.jsonl", rows)
        assert list(cells(run(tmp_path / "files")[1]).values()) == [1, 1]

    def test_scores_without_answers_are_named_or_taken_instead(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        content = results_file("org/late", {"arc": {"acc,none": 0.3}})
        write(tmp_path / "files/org__late/results.json", content)
        code, snapshot, messages = run(tmp_path / "files")
        assert snapshot.is_binary and "org__late" in messages
        snapshot = run(tmp_path / "files", out="scores", options=["--proportions"])[1]
        assert not snapshot.is_binary
        assert cells(snapshot)["org/late", "arc"] == pytest.approx(0.3)
        assert snapshot.n_models == len(MODELS) + 1

    def test_lines_that_cannot_be_used_are_counted(self, run, tmp_path):
        rows = sample_lines([1, 0, 1])
        lines = [json.dumps(row) for row in rows]
        values = (float("nan"), "perhaps", [])
        lines[1:1] = ["{broken", "[]", *(json.dumps({"doc_id": 9, "acc": v}) for v in values)]
        path = write(tmp_path / "org__a/samples_arc.jsonl", "\n".join(lines))
        _, snapshot, messages = run(path)
        assert snapshot.responses.tolist() == [[1, 0, 1]]
        assert "5 lines" in messages

    @pytest.mark.parametrize("values", [[1, 0.25, 0], [[1.0, 0.0], 1, 0], [0.5, 0.5, 0.5]])
    def test_metrics_that_grade_have_no_single_answers(self, run, tmp_path, values):
        expected = self.write_files(tmp_path / "files")
        for model, graded in [(MODELS[0], values), (MODELS[1], [1, 0, 1])]:
            place = lm_eval_folder(tmp_path / "files", model)
            write(place / f"samples_qa_{TIME.format(1)}.jsonl", sample_lines(graded))
            scores = {"arc": {"acc,none": 0.5}, "qa": {"acc,none": 0.25}}
            write(place / f"results_{TIME.format(1)}.json", results_file(model, scores))
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == expected
        assert messages.count("qa: acc has also other values than 0 and 1 (--proportions") == 2
        snapshot = run(tmp_path / "files", out="scores", options=["--proportions"])[1]
        assert [cells(snapshot)[model, "qa"] for model in MODELS[:2]] == [0.25, 0.25]

    def test_samples_named_as_by_the_first_versions(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        rows = json.dumps(sample_lines([0, 1]))
        write(tmp_path / "files/pretrained__org__a_arc.jsonl", rows)
        assert "org__a_arc.jsonl: has samples, named as by" in run(tmp_path / "files")[2]

    def test_numbers_of_questions_as_text(self, run, tmp_path):
        rows = sample_lines([1, 0, 1])
        for number, row in enumerate(rows):
            row["doc_id"] = str(number)
        write(tmp_path / "files/org__a/samples_arc.jsonl", rows)
        rows = [row | {"doc_id": f"q{row['doc_id']}"} for row in rows]
        write(tmp_path / "files/org__b/samples_arc.jsonl", rows)
        _, snapshot, messages = run(tmp_path / "files")
        assert snapshot.responses.tolist() == [[1, 0, 1]]
        (line,) = [line for line in messages.splitlines() if "org__b" in line]
        assert "doc_id" in line and "0 or 1" not in line


class TestScoresOfEveryEvalEver(ImporterContract):
    source = "every-eval-ever"
    bad = {
        "data/bench/broken.json": "{",
        "data/bench/other.json": {"schema_version": "0.3.0"},
        "data/bench/unnamed.json": {"model_info": {"id": "org/x"}, "evaluation_results": []},
        "data/bench/rows.jsonl": [{"sample_id": "1"}],
        "data/bench/paper.pdf": b"%PDF",
    }

    @staticmethod
    def evaluation(model, rows, *, benchmark="bench", time=1):
        return {
            "schema_version": "0.3.0",
            "evaluation_id": f"{benchmark}/{model.replace('/', '_')}/{time}.5",
            "retrieved_timestamp": f"{time}.5",
            "source_metadata": {
                "source_type": "evaluation_run",
                "source_organization_name": "lab",
                "evaluator_relationship": "third_party",
            },
            "eval_library": {"name": "lm_eval", "version": "0.4.13"},
            "model_info": {"name": model, "id": model, "additional_details": {}},
            "evaluation_results": rows,
        }

    @staticmethod
    def row(name, score, *, low=0.0, high=1.0, n=20, **metric):
        return {
            "evaluation_name": name,
            "source_data": {"dataset_name": "bench", "source_type": "url", "url": ["x"]},
            "metric_config": {
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": low,
                "max_score": high,
            }
            | metric,
            "score_details": {"score": score, "uncertainty": {"num_samples": n}},
        }

    def write_files(self, folder):
        expected = {}
        for number, model in enumerate(MODELS):
            rows = [self.row("Bench", 0.9), self.row("law", 0.2 * number)]
            rows.append(self.row("code", 10.0 * number, high=100.0))
            write(folder / f"data/bench/{model}/{number}.json", self.evaluation(model, rows))
            expected[model, "bench/law"] = round(0.2 * number, 6)
            expected[model, "bench/code"] = round(0.1 * number, 6)
        return expected

    def test_scores_are_brought_to_one_scale_or_named(self, run, tmp_path):
        rows = [
            self.row("percent", 25.0, low=None, high=None, metric_unit="percent"),
            self.row("proportion", 0.5, low=None, high=None, metric_unit="proportion"),
            self.row("shifted", 3.0, low=1.0, high=5.0),
            self.row("zero", 0.0),
            self.row("unsaid", 0.5, lower_is_better=None),
            self.row("loss", 0.5, lower_is_better=None, metric_id="brier_score"),
            self.row("elo", 1200.0, low="-Infinity", high="Infinity"),
            self.row("error", 0.2, lower_is_better=True),
            self.row("unknown", -1, has_unknown_level=True),
            self.row("beyond", 1.5),
        ]
        path = write(tmp_path / "a.json", self.evaluation("org/a", rows))
        _, snapshot, messages = run(path)
        assert {item: value for (_, item), value in cells(snapshot).items()} == {
            "bench/percent": 0.25,
            "bench/proportion": 0.5,
            "bench/shifted": 0.5,
            "bench/unsaid": 0.5,
            "bench/zero": 0.0,
        }
        assert snapshot.items["n_trials"].tolist() == [20] * 5
        assert all(f"{name}:" in messages for name in ("elo", "error", "loss", "unknown", "beyond"))

    def by(self, metric, score, name="bench", **fields):
        """A row as converters write it: only a description names the metric."""
        return self.row(name, score, evaluation_description=metric) | fields

    def test_metrics_and_filters_of_one_evaluation_are_not_counted_twice(self, run, tmp_path):
        rows = [self.by("acc", 0.7), self.by("acc_norm", 0.6)]
        write(tmp_path / "files/a.json", self.evaluation("org/a", rows))
        rows = [
            self.by(f"exact_match (filter: {name})", score, f"gen/{name}")
            for name, score in [("strict", 0.1), ("flexible", 0.2)]
        ]
        write(tmp_path / "files/b.json", self.evaluation("org/a", rows, benchmark="gen"))
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == {("org/a", "bench"): 0.6, ("org/a", "gen"): 0.2}
        assert snapshot.items["metric"].tolist() == ["acc_norm", "exact_match:flexible"]
        assert messages == ""

    def test_all_models_are_compared_by_one_metric(self, run, tmp_path):
        for model, scores in {"a": {"acc": 0.9}, "b": {"acc": 0.25, "acc_norm": 0.8}}.items():
            rows = [self.by(metric, score) for metric, score in scores.items()]
            write(tmp_path / f"files/{model}.json", self.evaluation(f"org/{model}", rows))
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == {("org/a", "bench"): 0.9, ("org/b", "bench"): 0.25}
        assert messages == ""

    def test_the_result_without_a_filter_is_no_mean_of_those_with_one(self, run, tmp_path):
        plain = self.by("exact_match", 0.4, "gsm")
        strict = self.by("exact_match (filter: strict)", 0.2, "gsm/strict")
        for model, rows in {"a": [plain, strict], "b": [plain]}.items():
            content = self.evaluation(f"org/{model}", rows, benchmark="gsm")
            write(tmp_path / f"files/{model}.json", content)
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == {("org/a", "gsm"): 0.4, ("org/b", "gsm"): 0.4}
        assert messages == ""

    def test_the_id_of_a_result_may_hold_the_model(self, run, tmp_path):
        for score, model in enumerate(MODELS):
            row = self.row("bench", score / 4, metric_name="Accuracy", evaluation_description="x")
            row["evaluation_result_id"] = f"bench/{model}/1#accuracy"
            write(tmp_path / f"files/{score}.json", self.evaluation(model, [row]))
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == {(model, "bench"): n / 4 for n, model in enumerate(MODELS)}
        assert snapshot.items["metric"].tolist() == ["Accuracy"]
        assert messages == ""

    def test_rows_that_nothing_tells_apart_are_left_out(self, run, tmp_path):
        rows = [self.by("acc", 0.2, "x"), self.by("acc", 0.4, "x"), self.row("y", 0.5)]
        rows += [self.by("f1", 0.3, "z", evaluation_result_id=f"f1:{n}") for n in ("test", "valid")]
        _, snapshot, messages = run(write(tmp_path / "a.json", self.evaluation("org/a", rows)))
        assert cells(snapshot) == {("org/a", "bench/y"): 0.5, ("org/a", "bench/z"): 0.3}
        assert messages.count("x: several rows of one metric") == messages.count("a.json") == 2

    def test_the_overall_score_is_not_counted_beside_its_parts(self, run, tmp_path):
        names = ["MMLU-Pro (overall)", "MMLU-Pro (law)", "MMLU-Pro (math)"]
        rows = [self.row(name, n / 4) for n, name in enumerate(names, 1)]
        write(tmp_path / "all.json", self.evaluation("org/a", rows, benchmark="mmlu-pro"))
        write(tmp_path / "one.json", self.evaluation("org/b", rows[:1], benchmark="mmlu-pro"))
        _, snapshot, messages = run(tmp_path / "all.json", tmp_path / "one.json")
        assert [cells(snapshot)["org/a", f"mmlu-pro/{name}"] for name in names[1:]] == [0.5, 0.75]
        assert ("org/a", f"mmlu-pro/{names[0]}") not in cells(snapshot)
        assert messages.count("the mean of the other rows") == 1

    @pytest.mark.parametrize(
        "details, size",
        [
            ({"num_parameters": "7000000000"}, 7.0),
            ({"params_billions": 7.242}, 7.242),
            ({"params_billions": "7.242"}, 7.242),
            ({"size_billions_parameters": "32"}, 32.0),
            *[({"params_billions": size}, None) for size in (-1, 0, "7B", True, 7e9, None)],
        ],
    )
    def test_facts_of_models(self, run, tmp_path, details, size):
        content = self.evaluation("org/a", [self.row("law", 0.5)])
        details = details | {"precision": "bfloat16", "architecture": "LlamaForCausalLM"}
        content["model_info"]["additional_details"] = details
        models = run(write(tmp_path / "a.json", content))[1].models
        assert models.reindex(columns=["params_b"]).iloc[0].dropna().tolist() == [size] * bool(size)
        assert models.loc[0, ["precision", "architecture"]].tolist() == [
            "bfloat16",
            "LlamaForCausalLM",
        ]

    def test_rows_without_a_name_are_left_out_alone(self, run, tmp_path):
        nameless = {key: value for key, value in self.row("x", 0.5).items() if "name" not in key}
        rows = [7, nameless, self.row(["x"], 0.5), self.row("law", 0.5)]
        rows += [self.row("odd", 0.5, low=None, metric_unit=["percent"])]
        _, snapshot, messages = run(write(tmp_path / "a.json", self.evaluation("org/a", rows)))
        assert cells(snapshot) == {("org/a", "bench/law"): 0.5}
        assert messages.count("a.json: None") == 2 and "['x']" in messages
        assert "odd:" in messages

    def test_the_latest_of_several_evaluations_counts(self, run, tmp_path):
        for time, score in [(10, 0.1), (9, 0.2)]:
            rows = [self.row("law", score)]
            write(tmp_path / f"files/{time}.json", self.evaluation("org/a", rows, time=time))
        assert list(cells(run(tmp_path / "files")[1]).values()) == [0.1]


class TestAnswersOfEveryEvalEver(ImporterContract):
    source = "every-eval-ever"
    bad = {"data/bench/rows.jsonl": [{"sample_id": "1"}], "data/bench/text.jsonl": "text\n"}

    @staticmethod
    def answer(model, sample, known, **fields):
        return {
            "schema_version": "instance_level_eval_0.3.0",
            "evaluation_id": f"bench/{model.replace('/', '_')}/7",
            "model_id": model,
            "evaluation_name": "law",
            "sample_id": f"law_{sample}",
            "interaction_type": "single_turn",
            "input": {"raw": "?", "reference": ["A"]},
            "evaluation": {"score": float(known or 0), "is_correct": known},
        } | fields

    def write_files(self, folder):
        expected = {}
        for number, model in enumerate(MODELS):
            answers = [True, number % 2 == 0, False]
            rows = [self.answer(model, n, known) for n, known in enumerate(answers)]
            write(folder / f"data/bench/{model}/x_samples.jsonl", rows)
            expected |= {(model, f"bench/law/law_{n}"): float(a) for n, a in enumerate(answers)}
        return expected

    def test_lines_that_repeat_or_miss_an_answer(self, run, tmp_path):
        rows = [self.answer("org/a", 1, True), self.answer("org/a", 1, False)]
        rows += [self.answer("org/a", 2, False), self.answer("org/a", 3, None)]
        rows += [self.answer("org/a", 4, True, sample_id=name) for name in (None, "", "../x", "\n")]
        _, snapshot, messages = run(write(tmp_path / "rows.jsonl", rows))
        assert list(cells(snapshot).values()) == [1.0, 0.0]
        assert "5 lines" in messages

    def test_the_metric_of_answers_is_that_of_their_row(self, run, tmp_path):
        of = TestScoresOfEveryEvalEver
        for model in MODELS[:2]:
            rows, answers = [], []
            for metric, known in [("acc", True), ("f1", False)]:
                result = {"evaluation_result_id": f"bench/{model}/7#{metric}"}
                rows.append(of.row("law", 0.5, metric_id=metric) | result)
                answers.append(self.answer(model, 1, known) | result)
            content = of.evaluation(model, rows) | {"evaluation_id": answers[0]["evaluation_id"]}
            write(tmp_path / f"files/answers/{model}.jsonl", answers)
            write(tmp_path / f"files/scores/{model}.json", content)
        _, snapshot, messages = run(tmp_path / "files")
        assert snapshot.responses.tolist() == [[1], [1]]
        assert snapshot.items["metric"].tolist() == ["acc"]
        assert messages == ""
        code, _, messages = run(tmp_path / "files/answers", out="alone")
        assert code == 1 and "import the evaluation's .json" in messages

    def test_answers_with_ids_of_their_own_need_no_other_file(self, run, tmp_path):
        for model in MODELS[:2]:
            answer = self.answer(model, 1, True, evaluation_result_id=f"{model}#acc")
            write(tmp_path / f"files/{model}.jsonl", [answer])
        assert run(tmp_path / "files")[1].responses.tolist() == [[1], [1]]


class TestMteb(ImporterContract):
    source = "mteb"
    bad = {
        "results/org__bad/rev/Broken.json": "{",
        "results/org__bad/rev/Old.json": {"mteb_version": "1.0", "test": {"accuracy": 0.5}},
        "results/org__bad/rev/Null.json": {"scores": {"test": [{"hf_subset": "a"}]}},
    }

    @staticmethod
    def result(task, scores, **content):
        rows = {
            split: [
                {"hf_subset": name, "languages": ["eng-Latn"], "main_score": s} for name, s in row
            ]
            for split, row in scores.items()
        }
        return {"task_name": task, "mteb_version": "2.1.0", "scores": rows} | content

    def write_files(self, folder):
        expected = {}
        for number, model in enumerate(MODELS):
            place = folder / f"results/{model.replace('/', '__')}/rev1"
            scores = {"test": [("de", 0.2), ("en", 0.2 * number)]}
            write(place / "Bitext.json", self.result("Bitext", scores))
            expected[model, "Bitext"] = round(0.1 + 0.1 * number, 6)
            if number:  # whole blocks are missing
                write(place / "STS.json", self.result("STS", {"test": [("default", -0.1)]}))
                expected[model, "STS"] = 0.0
            meta = {"name": model, "release_date": "2024-05-01", "n_parameters": 33 * 10**6}
            write(place / "model_meta.json", meta | {"adapted_from": "org/base"})
        return expected

    def wheel(self, path):
        code = """
from mteb.models.model_meta import ModelMeta
raise SystemExit("this code must not be run")
a = ModelMeta(name="org/alpha-7b", revision="rev2", n_parameters=int(1.5 * 1e9),
              adapted_from="org/beta-7b", loader=Loader, license="mit")
b = ModelMeta(name="org/beta-7b", revision="r", adapted_from="/local/path")
c = TaskMetadata(name="Bitext", eval_splits=["test"], dataset={"path": "x"})
d = TaskMetadata(name="STS22", eval_splits=["test"], main_score="cosine_spearman")
"""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mteb/models/some_models.py", code)
            archive.writestr("mteb/models/odd.py", "def broken(:\n")
            sizes = {"test": {"num_samples": 70}, "train": {"num_samples": 1000}}
            archive.writestr("mteb/descriptive_stats/X/Bitext.json", json.dumps(sizes))
        return path

    def test_cards_and_parents_come_with_the_results(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        snapshot = run(tmp_path / "files")[1]
        edges = set(
            snapshot.lineage[["parent", "child", "relation"]].itertuples(index=False, name=None)
        )
        assert edges == {("org/base", model, "finetune") for model in MODELS}
        assert set(snapshot.models["created_at"]) == {"2024-05-01"}
        assert snapshot.models["params_b"].tolist() == pytest.approx([0.033] * len(MODELS))

    def test_parents_that_differ_in_case_are_one_model(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        first = next((tmp_path / "files").rglob("model_meta.json"))
        write(first, json.loads(first.read_text()) | {"adapted_from": "Org/Base", "revision": "r"})
        snapshot = run(tmp_path / "files")[1]
        assert set(snapshot.lineage["parent"]) == {"Org/Base"}
        assert snapshot.models["revision"].count() == 1

    def test_the_package_knows_parents_sizes_and_splits(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        for path in (tmp_path / "files").rglob("model_meta.json"):
            path.unlink()
        scores = {"test": [("de", 0.4), ("en", 0.6)], "train": [("de", 1.0), ("en", 1.0)]}
        path = tmp_path / "files/results/org__alpha-7b/rev2/Bitext.json"
        write(path, self.result("Bitext", scores))
        wheel = self.wheel(tmp_path / "mteb-2-py3-none-any.whl")
        _, snapshot, messages = run(tmp_path / "files", wheel)
        assert snapshot.lineage.iloc[:, :3].values.tolist() == [
            ["org/beta-7b", "org/alpha-7b", "finetune"]
        ]
        models = snapshot.models.set_index("model_id")
        assert models.loc["org/alpha-7b", "params_b"] == 1.5
        assert models.loc["org/alpha-7b", "license"] == "mit"
        # The revision that the package names counts, by its own split.
        assert cells(snapshot)["org/alpha-7b", "Bitext"] == pytest.approx(0.5)
        assert snapshot.items.set_index("item_id").loc["Bitext", "n_trials"] == 70
        assert "odd.py" in messages

    def test_results_before_version_1_11(self, run, tmp_path):
        old = {"mteb_dataset_name": "x", "mteb_version": "1.0.1", "dataset_revision": None}
        similar = {"cos_sim": {"pearson": 0.1, "spearman": 0.6}, "max": {"ap": 0.2}}
        files = {
            "org__a/1/STS22": {"test": {"en": similar, "de": similar, "evaluation_time": 4.1}},
            "org__a/1/STSB": {"test": {"main_score": 0.3, "f1": 0.4}, "train": {"main_score": 1}},
            "org__a/1/Flat": {"test": similar | {"evaluation_time": 1}},
            "org__b/1/STS22": {"test": {"en": similar, "de": {"cos_sim": {"pearson": 0.1}}}},
        }
        for name, content in files.items():
            write(tmp_path / f"files/{name}.json", old | content)
        scores = {"test": [("en", 0.5), ("de", 0.3)]}
        write(tmp_path / "files/org__c/1/STS22.json", self.result("STS22", scores))
        _, snapshot, messages = run(tmp_path / "files", self.wheel(tmp_path / "mteb.whl"))
        expected = {("org/a", "STS22"): 0.6, ("org/a", "STSB"): 0.65, ("org/c", "STS22"): 0.4}
        assert cells(snapshot) == expected
        for name in ("org__a/1/Flat", "org__b/1/STS22"):
            assert f"{name}.json: has no main_score; before mteb 1.11 it is looked up" in messages

    def test_experiments_are_no_models(self, run, tmp_path):
        expected = self.write_files(tmp_path / "files")
        place = tmp_path / "files/results/org__alpha-7b/rev1/experiments/embed_dim_64"
        write(place / "Bitext.json", self.result("Bitext", {"test": [("de", 0.9), ("en", 0.9)]}))
        write(place / "model_meta.json", {"name": "org/alpha-7b", "n_parameters": 10**9})
        _, snapshot, messages = run(tmp_path / "files")
        assert cells(snapshot) == expected
        assert snapshot.models["params_b"].tolist() == pytest.approx([0.033] * len(MODELS))
        assert messages.count("embed_dim_64/") == messages.count("is of an experiment") == 2

    def test_the_latest_version_counts(self, run, tmp_path):
        for score, version in [(0.1, None), (0.2, "1.12.75"), (0.3, "1.9.0")]:
            path = tmp_path / f"files/org__a/rev{score}/STS.json"
            content = self.result("STS", {"test": [("default", score)]}, mteb_version=version)
            write(path, content)
        assert cells(run(tmp_path / "files")[1]) == {("org/a", "STS"): 0.2}

    def test_a_model_without_a_usual_subset_has_no_score(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        path = tmp_path / "files/results/org__few/rev/Bitext.json"
        write(path, self.result("Bitext", {"test": [("en", 0.9)]}))
        path = tmp_path / "files/results/org__more/rev/Bitext.json"
        more = [("fr", 0.9), ("de", 0.1), ("en", 0.3)]
        write(path, self.result("Bitext", {"test": more}))
        _, snapshot, messages = run(tmp_path / "files")
        assert "org/few" not in snapshot.models["model_id"].tolist() and "org__few" in messages
        assert cells(snapshot)["org/more", "Bitext"] == pytest.approx(0.2)


class TestAtlas(ImporterContract):
    source = "atlas"
    bad = {
        "response_matrix_bad.csv": "model,score\norg/a,0.5\n",
        "empty.csv": "",
        "binary.csv": b"\xff\xfe\x00",
        "readme.md": "# data",
    }

    def write_files(self, folder):
        expected = {}
        for benchmark, items in [("arc", [10, 9, 101]), ("gsm8k", [1, 2])]:
            lines = ['"",' + ",".join(f'"{item}"' for item in items)]
            for number, model in enumerate(MODELS):
                answers = [(number + item) % 2 for item in items]
                lines.append(f'"{model}",' + ",".join(map(str, answers)))
                for item, value in zip(items, answers, strict=True):
                    expected[model, f"{benchmark}/{item}"] = float(value)
            write(folder / f"response_matrix_tiny{benchmark}.csv", "\n".join(lines) + "\n")
        return expected

    def test_items_are_sorted_by_number(self, run, tmp_path):
        self.write_files(tmp_path / "files")
        items = run(tmp_path / "files")[1].items["item_id"].tolist()
        assert items == ["arc/9", "arc/10", "arc/101", "gsm8k/1", "gsm8k/2"]

    def test_the_archive_as_published(self, run, tmp_path):
        expected = self.write_files(tmp_path / "files")
        archive = tmp_path / "response_matrices.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted((tmp_path / "files").iterdir()):
                packed.write(path, path.name)
        assert cells(run(archive)[1]) == expected

    def test_missing_answers_and_odd_rows(self, run, tmp_path):
        text = '"X","X1","X2"\norg/a,1,NA\norg/b,0\norg/c,2,1\n,1,1\norg/d,0,0\n'
        _, snapshot, messages = run(
            write(tmp_path / "gaussian_sampled_arc_response_matrix.csv", text)
        )
        assert snapshot.responses.tolist() == [[1, MISSING], [0, 0]]
        assert snapshot.items["item_id"].tolist() == ["arc/1", "arc/2"]
        assert all(f"row {number}:" in messages for number in (3, 4, 5))

    def test_spaces_blank_lines_and_any_case(self, run, tmp_path):
        text = '\nmodel, 1, "2"\norg/a, 1 ,False\n\n , \norg/b,True,nan\norg/c,2,1\n\n'
        _, snapshot, messages = run(write(tmp_path / "arc.csv", text))
        assert snapshot.responses.tolist() == [[1, 0], [1, MISSING]]
        assert messages.count("row") == messages.count("row 7:") == 1


def test_the_command_line_offers_every_importer(tmp_path):
    (argument,) = (p for p in cli.program.commands["import"].params if p.name == "source")
    assert list(argument.type.choices) == list(IMPORTERS)
    with pytest.raises(ValueError, match="helm"):
        import_files("helm", [], tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_links_to_folders_above_end_and_pipes_are_refused(tmp_path):
    results = Results()
    file = write(tmp_path / "files/run/results.json", {})
    for name in ("a", "current", "latest"):
        (file.parent / name).symlink_to(tmp_path / "files", target_is_directory=True)
    os.mkfifo(tmp_path / "pipe")
    assert files_in([tmp_path / "files", tmp_path / "pipe"], results) == [file]
    assert [place for place, _ in results.left_out] == [str(tmp_path / "pipe")]


def test_a_broken_archive_is_named(tmp_path):
    results = Results()
    path = write(tmp_path / "broken.zip", b"PK no archive")
    assert files_in([path], results) == []
    assert results.left_out[0][0] == str(path)


@pytest.mark.parametrize("damage", ["flipped byte", "encrypted", "Deflate64"])
def test_what_an_archive_does_not_give_back_is_left_out(tmp_path, damage):
    archive = tmp_path / "matrices.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("arc.csv", "model,1\norg/a,1\n")
        packed.writestr("notes.txt", "notes")
    content = bytearray(archive.read_bytes())
    place, entry = content.index(b"notes.txt") - 30, content.rindex(b"notes.txt") - 46
    if damage == "flipped byte":
        content[content.index(b"notes", place + 39)] ^= 1
    for flags in (place + 6, entry + 8):  # then the method of compression
        content[flags] |= damage == "encrypted"
        content[flags + 2] = 9 if damage == "Deflate64" else content[flags + 2]
    archive.write_bytes(content)
    snapshot, left_out = import_files("atlas", [archive], tmp_path / "out")
    assert cells(snapshot) == {("org/a", "arc/1"): 1.0}
    assert [file for file, _ in left_out] == [f"{archive}/notes.txt"]
    assert snapshot.provenance["imported"]["n_files"] == 1
