"""`lrmf ask` and what stands behind it: one model that is in no snapshot."""

import copy
import gc
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from lrmf import Forecaster, Lineage
from lrmf.data.responses import MISSING
from lrmf.decide.answers import Questions, read_answers
from lrmf.decide.ask import answer as report_on
from lrmf.decide.ask import as_text, fold_in

COLUMNS = ["benchmark", "score", "lower", "upper", "n_observed", "parents_best", "p_better",
           "relatives", "extrapolates"]  # fmt: skip


@pytest.fixture(scope="session")
def forecaster(saved_fit):
    return Forecaster.load(saved_fit)


@pytest.fixture(scope="session")
def parents(forecaster):
    """The two models with the highest average score, evaluated on everything."""
    order = np.argsort(-forecaster.trained_scores_.mean(axis=1))  # NaN comes last
    return [str(name) for name in forecaster.trained_ids_[order[:2]]]


@pytest.fixture(scope="session")
def new(forecaster, parents):
    return forecaster.fold_in(parents=[(parent, "merge") for parent in parents])


def some_answers(forecaster, n, answer=1):
    return dict.fromkeys(forecaster.item_ids_[:n], answer)


class TestNewModel:
    def test_scores_stand_beside_those_of_the_best_parent(self, forecaster, parents, new):
        scores = new.scores()
        assert list(scores.columns) == COLUMNS
        rows = np.isin(forecaster.trained_ids_, parents)
        best = np.nanmax(forecaster.trained_scores_[rows], axis=0)
        np.testing.assert_allclose(scores["parents_best"], best)
        assert ((scores["score"] > scores["parents_best"]) == (scores["p_better"] > 0.5)).all()
        assert (scores["lower"] < scores["score"]).all()
        assert (scores["score"] < scores["upper"]).all()
        narrow = new.scores(level=0.5)
        assert (narrow["upper"] - narrow["lower"] < scores["upper"] - scores["lower"]).all()

    def test_a_row_of_the_snapshot_and_a_new_model_have_one_forecast(
        self, simulated_hub, forecaster
    ):
        snapshot, lineage = simulated_hub
        child = lineage.edges["child"].map({n: r for r, n in enumerate(lineage.node_ids)})
        row = int(child[child.between(130, 149)].iloc[0])
        edges = lineage.edges[child == row]
        one = forecaster.fold_in(
            parents=list(zip(edges["parent"], edges["relation"], strict=True)),
            card=snapshot.models.iloc[row].to_dict(),
        )
        train = np.array(snapshot.responses)
        train[130:] = MISSING
        rows = forecaster.adapt(train, lineage, models=snapshot.models).predict([row]).scores
        for column in ("score", "lower", "upper"):
            np.testing.assert_allclose(one.scores()[column], rows[column], atol=1e-4)

    def test_nothing_beats_a_parent_that_has_everything_right(self, forecaster, parents):
        fit = copy.copy(forecaster)
        fit.trained_scores_ = np.ones_like(forecaster.trained_scores_)
        said = report_on(fit.fold_in(parents=parents), parents=parents, relation="merge")
        assert [row["p_better"] for row in said["scores"]] == [0] * len(said["scores"])
        rows = as_text(said).split("\n\n")[1].splitlines()[1:-1]
        assert {row.split()[-1] for row in rows} == {"0%"}

    def test_above_all_scores_is_by_more_than_rounding(self, forecaster, parents, new):
        score = new.scores()["score"].to_numpy()
        for margin, is_above in ((0.0015, False), (0.003, True)):
            fit = copy.copy(forecaster)
            fit.trained_scores_ = np.tile(score - margin, (len(forecaster.trained_ids_), 1))
            model = fit.fold_in(parents=[(parent, "merge") for parent in parents])
            assert (model.scores()["extrapolates"] == is_above).all()

    def test_updates_add_up_and_leave_the_first_model_as_it_was(self, forecaster, new):
        before = new.scores()
        answers = some_answers(forecaster, 12)
        halves = [dict(list(answers.items())[:6]), dict(list(answers.items())[6:])]
        twice = new.update(halves[0]).update(halves[1])
        pd.testing.assert_frame_equal(twice.scores(), new.update(answers).scores())
        pd.testing.assert_frame_equal(new.scores(), before)
        assert twice.scores()["n_observed"].sum() == 12

    def test_updates_are_those_of_a_fold_in_with_the_answers(self, forecaster, parents, new):
        answers = some_answers(forecaster, 8, answer=0)
        other = forecaster.fold_in(parents=[(p, "merge") for p in parents], answers=answers)
        pd.testing.assert_frame_equal(new.update(answers).scores(), other.scores())

    def test_one_answer_widens_no_interval_much(self, forecaster, new):
        low, high = (new.mean_score()[n] for n in (1, 2))
        for answer in (0, 1):
            _, lower, upper = new.update(some_answers(forecaster, 1, answer=answer)).mean_score()
            assert upper - lower < 1.1 * (high - low)

    def test_a_score_is_known_where_it_is_given_and_moves_the_others(self, new):
        first, second = new.scores()["benchmark"][:2]
        low, high = (new.with_scores({first: score}).scores() for score in (0.05, 0.95))
        assert low.loc[0, ["score", "lower", "upper"]].tolist() == pytest.approx([0.05] * 3)
        assert (low["score"] < high["score"]).all()
        assert second in set(low["benchmark"])

    def test_scores_replace_earlier_ones(self, new):
        first, second = new.scores()["benchmark"][:2]
        once = new.with_scores({first: 0.4, second: 0.6})
        again = new.with_scores({first: 0.9}).with_scores({second: 0.6}).with_scores({first: 0.4})
        np.testing.assert_allclose(again.scores()["score"], once.scores()["score"], atol=1e-9)

    def test_scores_and_answers_go_together_in_any_order(self, forecaster, new):
        last = new.scores()["benchmark"].iloc[-1]
        answers = some_answers(forecaster, 5)
        one = new.update(answers).with_scores({last: 0.6}).scores()
        other = new.with_scores({last: 0.6}).update(answers).scores()
        pd.testing.assert_frame_equal(one, other)
        item = forecaster.items_.query("benchmark == @last")["item_id"].iloc[0]
        for both in (
            lambda: new.with_scores({last: 0.6}).update({item: 1}),
            lambda: new.update({item: 1}).with_scores({last: 0.6}),
        ):
            with pytest.raises(ValueError, match=last):
                both()

    def test_all_answers_leave_nothing_open(self, forecaster, new):
        scores = new.update(some_answers(forecaster, len(forecaster.item_ids_))).scores()
        assert (scores[["score", "lower", "upper"]] == 1).all(axis=None)

    def test_a_series_of_answers_is_a_mapping(self, forecaster, new):
        answers = some_answers(forecaster, 5)
        series = forecaster.fold_in(answers=pd.Series(answers))
        pd.testing.assert_frame_equal(series.scores(), forecaster.fold_in(answers=answers).scores())

    @pytest.mark.parametrize(
        ("field", "value"), [("params_b", "8B"), ("merged", "yes"), ("model_id", "../x")]
    )
    def test_a_card_that_no_table_could_hold_is_refused(self, forecaster, field, value):
        with pytest.raises(ValueError, match=f"card: {field} is .*{value}"):
            forecaster.fold_in(card={field: value})

    @pytest.mark.parametrize("value", [None, float("nan"), pd.NA])
    def test_null_is_unknown(self, forecaster, value):
        nothing, null = (forecaster.fold_in(card=card) for card in ({}, {"params_b": value}))
        pd.testing.assert_frame_equal(nothing.scores(), null.scores())

    def test_a_model_is_not_its_own_parent(self, forecaster, parents):
        with pytest.raises(ValueError, match=f"own ancestor: .*{parents[0]}"):
            forecaster.fold_in(parents=parents[:1], card={"model_id": parents[0]})

    @pytest.mark.parametrize("answers", [{"nothing": 1}, {"{first}": 2}, ["{first}"]])
    def test_answers_that_cannot_be_are_refused(self, forecaster, new, answers):
        first = forecaster.item_ids_[0]
        if isinstance(answers, dict):
            answers = {name.format(first=first): value for name, value in answers.items()}
        with pytest.raises(ValueError):
            new.update(answers)

    def test_asking_again_and_again_leaks_nothing(self, forecaster, parents):
        def ask(n):
            for number in range(n):
                model = forecaster.fold_in(parents=[parents[0]], card={"model_id": f"me/{number}"})
                model.update(some_answers(forecaster, 3)).scores()

        ask(2)
        gc.collect()
        tracemalloc.start()
        ask(2)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        ask(12)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 50_000


class TestAsk:
    def test_the_table_names_every_benchmark_and_the_parents(
        self, command, saved_fit, parents, new
    ):
        code, out, err = command("ask", "--model", saved_fit, "--parents", ",".join(parents))
        assert (code, err) == (0, "")
        for benchmark in new.scores()["benchmark"]:
            assert f"\n{benchmark} " in out
        assert f"{100 * new.scores()['score'][0]:.1f}" in out
        assert "merge" in out and all(parent in out for parent in parents)

    def test_json_is_what_python_says(self, command, saved_fit, parents, new):
        code, out, _ = command(
            "ask", "--model", saved_fit, "--parents", ",".join(parents), "--json"
        )
        said = json.loads(out)
        assert code == 0 and said["relation"] == "merge"
        np.testing.assert_allclose([row["score"] for row in said["scores"]], new.scores()["score"])
        assert said["average"]["lower"] < said["average"]["score"] < said["average"]["upper"]
        assert [parent["model_id"] for parent in said["parents"]] == parents
        assert 0 < said["basis"]["lineage"] + said["basis"]["card_and_name"] <= 1
        assert len(said["basis"]["nearest"]) == 3

    def test_a_misspelt_parent_is_noted_with_its_spelling(self, command, saved_fit, parents):
        options = ("--parents", f"{parents[0]}x", "--json")
        code, out, _ = command("ask", "--model", saved_fit, *options)
        (note,) = [note for note in json.loads(out)["notes"] if f"{parents[0]}x" in note]
        assert code == 0 and parents[0] in note.replace(f"{parents[0]}x", "")

    def test_a_parent_that_was_never_evaluated_is_noted(self):
        """With its relatives, or as one without any."""
        edges = [("org/base", "org/a", "finetune"), ("org/other", "org/lone", "finetune")]
        lineage = Lineage.from_edges(edges, ["org/a", "org/b", "org/lone"])
        responses = np.array([[1, 0] * 5, [1, 1] * 5, [MISSING] * 10], np.uint8)
        fit = Forecaster(rank=1).fit(responses, lineage)
        for parent, said in (
            ("org/base", "org/base was never evaluated; the forecast uses its relatives"),
            ("org/other", "neither the parent org/other nor any of its relatives"),
        ):
            notes = report_on(fit.fold_in(parents=[parent]), parents=[parent])["notes"]
            assert any(said in note for note in notes)

    def test_urls_and_revisions_name_parents_too(self, command, saved_fit, forecaster, parents):
        urls = f"https://huggingface.co/{parents[0]}", f"hf.co/{parents[0]}/tree/main"
        for verb in ("ask", "next"):
            outputs = [
                command(verb, "--model", saved_fit, "--parents", f"{first},{second}")
                for first, second in (
                    parents, (urls[0], f"{parents[1]}@main"), (urls[1], parents[1])
                )
            ]  # fmt: skip
            assert outputs[0] == outputs[1] == outputs[2] and outputs[0][0] == 0
        separate = command("ask", "--model", saved_fit, "--parents", parents[0], "--parents",
                           parents[1])  # fmt: skip
        assert separate == command("ask", "--model", saved_fit, "--parents", *parents)
        assert separate == command("ask", "--model", saved_fit, "--parents", ",".join(parents))
        one, same = (fold_in(forecaster, given)[0] for given in (parents[:1], urls[0]))
        pd.testing.assert_frame_equal(one.scores(), same.scores())
        twice = command("ask", "--model", saved_fit, "--parents", f"{urls[0]},{parents[0]}")
        assert twice[0] == 1 and parents[0] in twice[2]

    def test_a_parent_in_another_case_is_the_known_one(self, command, saved_fit, parents):
        first, other = parents[0], parents[0].upper()
        right, wrong = (
            json.loads(command("ask", "--model", saved_fit, "--parents", name, "--json")[1])
            for name in (first, other)
        )
        (note,) = [note for note in wrong.pop("notes") if note not in right["notes"]]
        del right["notes"]
        assert wrong == right and first in note and other in note
        code, _, err = command("ask", "--model", saved_fit, "--parents", first, other)
        assert code == 1 and "given twice" in err

    def test_known_scores_are_in_points(self, command, saved_fit, parents, new):
        name = new.scores()["benchmark"][0]
        options = ("--parents", parents[0], "--score", f"{name}=48.1", "--json")
        code, out, _ = command("ask", "--model", saved_fit, *options)
        assert code == 0 and json.loads(out)["scores"][0]["score"] == pytest.approx(0.481)

    def test_a_score_that_looks_like_a_fraction_is_noted(self, command, saved_fit):
        for verb in ("ask", "next"):
            model = verb, "--model", saved_fit, "--name", "x"
            _, out, _ = command(*model, "--score", "mmlu_pro=0.4")
            assert "mmlu_pro is 0.4 points" in out and "did you mean 40?" in out
            _, out, _ = command(*model, "--score", "mmlu_pro=40")
            assert "did you mean" not in out

    def test_little_is_known_of_a_model_that_the_fit_does_not_explain(
        self, parents, new, monkeypatch
    ):
        """The note says so, and not that no similar model is known: its parents are."""
        monkeypatch.setitem(new.explanation, "is_far", True)
        notes = report_on(new, parents=parents, relation="merge")["notes"]
        assert any("less than a fifth" in note for note in notes)
        assert not any("no similar model" in note for note in notes)

    def test_a_model_without_parents_is_forecast_too(self, command, saved_fit):
        code, out, _ = command("ask", "--model", saved_fit, "--size", "7", "--name", "me/x-7b")
        assert code == 0 and "me/x-7b" in out and "beats" not in out

    def test_a_size_that_the_fit_does_without_is_noted(self, simulated_hub, forecaster):
        snapshot, lineage = simulated_hub
        tables = {"items": snapshot.items, "models": snapshot.models}
        without = Forecaster(rank=1, use_cards=False).fit(snapshot.responses, lineage, **tables)
        for fit, options, is_noted in (
            (without, {"size": 7}, True), (without, {"name": "x"}, False),
            (forecaster, {"size": 7}, False),
        ):  # fmt: skip
            _, notes = fold_in(fit, **options)
            assert any("size is not used" in note for note in notes) == is_noted

    def test_proportions(self, command, saved_proportions):
        name = Forecaster.load(saved_proportions).scores_.names[0]
        options = ("--name", "me/x-7b", "--score", f"{name}=30", "--json")
        code, out, _ = command("ask", "--model", saved_proportions, *options)
        said = json.loads(out)
        assert code == 0 and said["scores"][0]["score"] == pytest.approx(0.3)
        assert said["known"]["scores"] == 1

    @pytest.mark.parametrize(
        ("options", "culprit"),
        [
            ((), "--parents"),
            (("--relation", "merge", "--name", "x"), "merge"),
            (("--parents", "a,b", "--relation", "finetune"), "finetune"),
            (("--parents", "a,,b"), "a,,b"),
            (("--parents", "a,a"), "a"),
            (("--parents",), "--parents"),
            (("--name", "x", "--score", "bbh"), "bbh"),
            (("--name", "x", "--score", "bbh=101"), "bbh=101"),
            (("--name", "x", "--score", "bbh=1", "bbh=2"), "bbh"),
            (("--name", "x", "--score", "nothing=1"), "nothing"),
            (("--size", "0"), "0"),
            (("--size", "nan"), "nan"),
            (("--size", "7B"), "number"),
            (("--name", "x", "--answers", "/nowhere"), "/nowhere"),
        ],
    )
    def test_options_that_contradict_end_in_one_sentence(
        self, command, saved_fit, options, culprit
    ):
        code, out, err = command("ask", "--model", saved_fit, *options)
        assert code in (1, 2) and out == "" and err.count("\n") == 1 and culprit in err

    def test_a_score_and_answers_of_one_benchmark_contradict(
        self, command, saved_fit, forecaster, tmp_path
    ):
        item = forecaster.item_ids_[0]
        (tmp_path / "a.csv").write_text(f"item_id,answer\n{item},1\n")
        benchmark = forecaster.items_["benchmark"].iloc[0]
        options = ("--name", "x", "--answers", tmp_path / "a.csv", "--score", f"{benchmark}=3")
        code, _, err = command("ask", "--model", saved_fit, *options)
        assert code == 1 and str(benchmark) in err

    @pytest.mark.slow
    def test_neither_scikit_learn_nor_numba_is_waited_for(self, saved_fit, parents):
        """They take most of the two seconds that an answer may take."""
        code = (
            "import sys, lrmf.cli; "
            f"lrmf.cli.main(['ask', '--model', {str(saved_fit)!r}, '--parents', {parents[0]!r}]); "
            "assert not {'numba', 'sklearn'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


class TestAnswers:
    """Files of answers, read for the items of a fit."""

    items = [f"bbh/snarks/{n}" for n in (0, 2, 5)] + ["ifeval/ifeval/7", "math/algebra/abc"]
    questions = Questions(items, {"bbh", "ifeval", "math"})

    def read(self, path):
        return read_answers(path, self.questions, ["bbh", "ifeval", "math"])

    def test_a_table(self, tmp_path):
        path = tmp_path / "answers.csv"
        path.write_text(
            "item_id,answer,why\n bbh/snarks/2 , 1 ,\nifeval/ifeval/7,0,x\nbbh/snarks/0,,\n"
        )
        assert self.read(path).answers == {"bbh/snarks/2": 1, "ifeval/ifeval/7": 0}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a,b\n1,2\n",
            "item_id,answer\nx,1\n",
            "item_id,answer\nbbh/snarks/2,yes\n",
            "item_id,answer\nbbh/snarks/2,1\nbbh/snarks/2,0\n",
        ],
    )
    def test_a_table_that_is_none(self, tmp_path, text):
        path = tmp_path / "answers.csv"
        path.write_text(text)
        with pytest.raises(ValueError, match="answers.csv"):
            self.read(path)

    def test_half_an_answer_is_refused_by_its_line(self, command, saved_fit, forecaster, tmp_path):
        path = tmp_path / "answers.csv"
        path.write_text(f"item_id,answer\n{forecaster.item_ids_[0]},0.5\n")
        code, _, err = command("ask", "--model", saved_fit, "--name", "x", "--answers", path)
        assert code == 1 and "answers.csv, line 2" in err and "must be 0 or 1, got '0.5'" in err

    def test_a_samples_folder(self, tmp_path):
        folder = tmp_path / "me__x"
        folder.mkdir()
        rows = [
            {"doc_id": 2, "filter": "none", "acc_norm": 1.0},
            {"doc_id": 5, "filter": "strict", "acc_norm": 0.0},
            {"doc_id": 5, "filter": "flexible", "acc_norm": 1.0},
            {"doc_id": 99, "filter": "none", "acc_norm": 1.0},
        ]
        name = "samples_leaderboard_bbh_snarks_2024-06-01T00-00-00.000.jsonl"
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = self.read(tmp_path)
        assert found.answers == {"bbh/snarks/2": 1, "bbh/snarks/5": 1}
        assert any("1" in note for note in found.notes)

    def test_samples_as_one_array(self, tmp_path):
        for name in ("samples_leaderboard_bbh_snarks.jsonl", "samples_leaderboard_bbh_snarks.json"):
            path = tmp_path / name.rpartition(".")[2] / name
            path.parent.mkdir()
            path.write_text(json.dumps([{"doc_id": 2, "acc_norm": "True"}], indent=1))
            assert self.read(path).answers == self.read(path.parent).answers == {"bbh/snarks/2": 1}

    def test_samples_that_do_not_name_their_task(self, tmp_path):
        path = tmp_path / "snarks.jsonl"
        path.write_text(json.dumps({"doc_id": 2, "acc_norm": 1}))
        with pytest.raises(ValueError, match="task"):
            self.read(path)

    def test_numbers_of_questions_as_text(self, tmp_path):
        path = tmp_path / "samples_leaderboard_bbh_snarks.jsonl"
        ids = ["2", " 5 ", 0.0, "q7", None]
        path.write_text("".join(json.dumps({"doc_id": n, "acc_norm": 1}) + "\n" for n in ids))
        found = self.read(path)
        assert found.answers == dict.fromkeys(self.items[:3], 1)
        assert any("2" in note and "doc_id" in note for note in found.notes)
        path.write_text(json.dumps({"doc_id": "q7", "acc_norm": 1}))
        with pytest.raises(ValueError, match="doc_id"):
            self.read(path)

    @pytest.mark.parametrize("tail", ["{torn", "\0", "\udcff", "[" * 10**5])
    def test_damaged_samples(self, tmp_path, tail):
        path = tmp_path / "samples_leaderboard_bbh_snarks.jsonl"
        line = json.dumps({"doc_id": 2, "acc_norm": 1.0})
        path.write_bytes(f"{line}\n{tail}\n".encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match=r"snarks\.jsonl: is damaged"):
            self.read(tmp_path)

    def test_a_results_file(self, tmp_path):
        path = tmp_path / "results.json"
        rows = {
            "leaderboard_bbh": {"acc_norm,none": 0.42, "alias": "bbh"},
            "other": {"acc,none": 1},
        }
        path.write_text(json.dumps({"results": rows}))
        found = self.read(path)
        assert found.scores == {"bbh": 0.42} and "other" in found.notes[0]
        path = tmp_path / "RESULTS.JSON"
        path.write_bytes(json.dumps({"results": rows}).encode("utf-16"))
        assert self.read(path).scores == found.scores

    @pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', '{"results": {"x": {}}}', "\0"])
    def test_a_results_file_that_is_none(self, tmp_path, text):
        path = tmp_path / "results.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"results\.json"):
            self.read(path)

    def test_questions_known_by_their_hash_are_never_taken_by_number(self, tmp_path):
        hashes = ["b" * 16, "a" * 16]  # of questions 0 and 1; the items are in order of hash
        items = [f"arc/arc/{name}" for name in sorted(hashes)]
        questions, path = Questions(items, {"arc"}), tmp_path / "samples_arc.jsonl"
        rows = [{"doc_id": n, "doc_hash": f"{name}xyz", "acc": 1 - n, "filter": "none"}
                for n, name in enumerate([*hashes, "c" * 16])]  # fmt: skip
        path.write_text("\n".join(json.dumps(row) for row in rows[:2]))
        found = read_answers(path, questions, ["arc"])
        assert found.answers == {f"arc/arc/{hashes[0]}": 1, f"arc/arc/{hashes[1]}": 0}
        path.write_text(json.dumps(rows[2]))
        with pytest.raises(ValueError, match=r"samples_arc\.jsonl"):
            read_answers(path, questions, ["arc"])
        with pytest.raises(ValueError, match="a{16}"):
            questions.samples(items)

    def test_one_answer_is_no_score_of_a_whole_benchmark(self, tmp_path):
        path = tmp_path / "samples_leaderboard_ifeval.jsonl"
        path.write_text(json.dumps({"doc_id": 0, "prompt_level_strict_acc": True}))
        with pytest.raises(ValueError, match="whole benchmarks"):
            read_answers(path, Questions(["ifeval", "bbh"], {"ifeval", "bbh"}), ["ifeval", "bbh"])

    def test_a_folder_has_one_model_and_its_latest_run_counts(self, tmp_path):
        def write(folder, time, right):
            path = tmp_path / folder / f"samples_arc_{time}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"doc_id": 24, "acc": right}))

        questions = Questions(["arc/24"], {"arc"})
        write("z/org__a", "2024-06-01T12-00-00.1", 0.0)
        write("a/org__a", "2025-06-01T12-00-00.1", 1.0)
        assert read_answers(tmp_path, questions, ["arc"]).answers == {"arc/24": 1}
        write("a/org__b", "2025-06-01T12-00-00.1", 1.0)
        with pytest.raises(ValueError, match="org__a.*org__b"):
            read_answers(tmp_path, questions, ["arc"])

    @pytest.mark.parametrize("value", [30.0, True, float("nan"), "0.3"])
    def test_a_score_that_is_no_proportion_is_named(self, tmp_path, value):
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"results": {"leaderboard_bbh": {"acc_norm,none": value}}}))
        with pytest.raises(ValueError, match=f"leaderboard_bbh.*acc_norm={value!r}"):
            read_answers(path, Questions(["bbh/snarks/1"], {"bbh"}), ["bbh"])

    def test_an_id_without_a_number_stands_for_its_position(self):
        assert self.questions.places["math/algebra/abc"] == ("leaderboard_math_algebra", 0)
        assert self.questions.places["bbh/snarks/5"] == ("leaderboard_bbh_snarks", 5)
        assert Questions(["arc/24"], {"arc"}).places == {"arc/24": ("arc", 24)}


def test_lineage_is_what_tells_two_models_apart(forecaster, parents):
    assert isinstance(forecaster.lineage_, Lineage)
    order = np.argsort(forecaster.trained_scores_.mean(axis=1))
    worst = str(forecaster.trained_ids_[order[0]])
    best, least = (
        forecaster.fold_in(parents=[parent]).scores()["score"].mean()
        for parent in (parents[0], worst)
    )
    assert best > least
