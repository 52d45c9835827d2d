"""`lrmf next`: the answers that say most about the scores."""

import asyncio
import json
import sys
from copy import copy
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lrmf import Forecaster
from lrmf.decide import chosen
from lrmf.decide.early_stopping import EarlyStopping
from lrmf.decide.next_answers import expected, half_width
from lrmf.forecaster.selection import JointResponses


@pytest.fixture(scope="session")
def forecaster(saved_fit):
    return Forecaster.load(saved_fit)


@pytest.fixture(scope="session")
def new(forecaster):
    return forecaster.fold_in(parents=[str(forecaster.trained_ids_[0])])


def random_joint(seed, n_items=12, n_factors=3, n_benchmarks=2):
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_items, n_benchmarks))
    weights[np.arange(n_items), np.arange(n_items) % n_benchmarks] = n_benchmarks / n_items
    loadings = rng.normal(size=(n_items, n_factors)).astype(np.float32)
    return JointResponses(loadings, rng.uniform(0.1, 1, n_items).astype(np.float32), weights)


class TestJointResponses:
    @pytest.mark.parametrize("seed", range(3))
    def test_each_choice_lowers_the_variance_most(self, seed):
        """Against conditioning on every candidate by the Gaussian formula, one after another."""
        joint = random_joint(seed)
        covariance = joint.loadings @ joint.loadings.T + np.diag(joint.noise)
        covariance = covariance.astype(float)
        chosen_, left = joint.choose(4)
        for pick in chosen_:
            total = [
                np.trace(joint.weights.T @ condition(covariance, item) @ joint.weights)
                for item in range(12)
            ]
            assert total[pick] == pytest.approx(min(total), abs=1e-5)
            covariance = condition(covariance, pick)
        np.testing.assert_allclose(joint.weights.T @ covariance @ joint.weights, left, atol=1e-5)

    def test_costs_and_what_is_not_allowed(self):
        joint, cost, allowed = random_joint(5), np.full(12, 3.0, np.float32), np.ones(12, bool)
        free, _ = joint.choose(4)
        allowed[free[0]] = False
        picked, _ = joint.choose(6, cost=cost, allowed=allowed)
        assert len(picked) == 2 and free[0] not in picked
        cost[free[-1]] = 0.01
        assert joint.choose(3, cost=cost)[0][0] == free[-1]

    def test_it_stops_when_the_scores_are_certain_enough(self):
        joint = random_joint(7)
        few, left = joint.choose(12, until=lambda scores: np.trace(scores) < 0.1)
        assert 0 < len(few) < 12 and np.trace(left) < 0.1
        assert np.trace(joint.choose(len(few) - 1)[1]) >= 0.1


def condition(covariance, item):
    """Covariance once an item is observed."""
    column = covariance[:, item]
    return covariance - np.outer(column, column) / max(covariance[item, item], 1e-9)


class TestNextItems:
    def test_the_same_item_is_never_asked_twice(self, forecaster, new):
        items = new.next_items(10)
        assert len(set(items)) == 10
        after = new.update(dict.fromkeys(items, 1))
        assert not set(after.next_items(10)) & set(items)
        assert len(after.next_items(10**6)) == len(forecaster.item_ids_) - 10

    def test_only_a_benchmark_asked_for_counts(self, forecaster, new):
        table = forecaster.items_.astype({"item_id": object, "benchmark": object})
        of = dict(zip(table["item_id"], table["benchmark"], strict=True))
        name = forecaster.scores_.names[1]
        share = [np.mean([of[item] == name for item in new.next_items(10, **options)])
                 for options in ({"benchmarks": [name]}, {})]  # fmt: skip
        assert share[0] > share[1]
        with pytest.raises(ValueError, match="nothing"):
            new.next_items(3, benchmarks=["nothing"])

    def test_what_costs_too_much_is_left(self, forecaster, new):
        dear = new.next_items(5)
        cheap = new.next_items(5, cost=dict.fromkeys(dear, np.inf))
        assert not set(dear) & set(cheap) and len(cheap) == 5
        for cost in ({"nothing": 1}, {dear[0]: 0}, {dear[0]: float("nan")}):
            with pytest.raises(ValueError, match=str(next(iter(cost)))):
                new.next_items(3, cost=cost)

    @pytest.mark.parametrize(
        "options",
        [
            {"n": -1},
            {"n": 2, "cost": np.ones(3)},
            {"n": 2, "benchmarks": ["nothing"]},
            {"n": 2, "benchmarks": []},
        ],
    )
    def test_what_cannot_be_chosen_from_is_refused(self, new, options):
        with pytest.raises(ValueError):
            new.next_items(**options)

    def test_ten_answers_at_a_tenth_cost_one(self, forecaster, new):
        cost = dict.fromkeys(forecaster.scores_.names, 0.1)
        assert new.next_items(1, cost=cost) == new.next_items(10)

    def test_nothing_is_asked_where_all_scores_are_known(self, forecaster, new):
        known = new.with_scores(dict.fromkeys(forecaster.scores_.names, 0.5))
        assert known.next_items(3) == []

    def test_no_item_of_a_known_score_is_asked(self, forecaster, new):
        name, other = forecaster.scores_.names[:2]
        known = new.with_scores({name: 0.5})
        assert known.next_items(5, benchmarks=[name]) == []
        for options in ({}, {"benchmarks": [other]}, {"benchmarks": [name, other]}):
            items = known.next_items(10**6, **options)
            assert items and known.update(dict.fromkeys(items, 1)).known_scores == {name: 0.5}

    def test_one_benchmark_needs_no_list(self, new):
        name = new.scores()["benchmark"][1]
        assert new.next_items(3, benchmarks=name) == new.next_items(3, benchmarks=[name])

    def test_precision_is_reached_with_fewer_answers_the_coarser_it_is(self, new):
        fine, coarse = (new.items_until(half_width(new) * share) for share in (0.3, 0.6))
        assert 0 < len(coarse) < len(fine)
        assert new.items_until(2 * half_width(new)) == []
        rows = expected(new, coarse)
        assert rows[-1]["half_width"][1] <= 0.6 * rows[-1]["half_width"][0] * 1.001

    def test_the_posterior_is_updated_after_each_batch(self, simulated_hub, forecaster):
        """Of chosen answers only: random ones are the same however they come."""
        snapshot, lineage = simulated_hub
        by_batch = [
            chosen.forecasts(
                forecaster, snapshot.responses, lineage, [140, 141], models=snapshot.models,
                numbers=(4, 12), strategies=(chosen.CHOSEN, chosen.RANDOM), batch=batch,
            ).set_index(["strategy", "n_answers"])["score"]
            for batch in (4, 12)
        ]  # fmt: skip
        one, other = by_batch
        for same in ((chosen.RANDOM, 4), (chosen.RANDOM, 12), (chosen.CHOSEN, 4)):
            np.testing.assert_array_equal(one.loc[same], other.loc[same])
        assert (one.loc[chosen.CHOSEN, 12] != other.loc[chosen.CHOSEN, 12]).any()

    def test_ridge_takes_nothing_from_items_that_no_training_model_has_answered(
        self, simulated_hub, forecaster
    ):
        """Without any training answers its forecasts are the means of the training scores."""
        snapshot, lineage = simulated_hub
        for step in (2, 1):
            fitted = copy(forecaster)
            fitted.trained_responses_ = np.array(forecaster.trained_responses_)
            fitted.trained_responses_[:, ::step] = 255
            frame = chosen.forecasts(
                fitted, snapshot.responses, lineage, [140, 141], numbers=(20,),
                strategies=(chosen.RIDGE,),
            )  # fmt: skip
            assert len(frame) and frame["score"].notna().all()
        means = dict(zip(fitted.scores_.names, np.nanmean(fitted.trained_scores_, 0), strict=True))
        np.testing.assert_allclose(frame["score"], frame["benchmark"].map(means), atol=1e-6)

    @pytest.mark.slow
    def test_chosen_answers_forecast_better_than_random_ones(self, simulated_hub, forecaster):
        snapshot, lineage = simulated_hub
        frame = chosen.chosen_answers(
            forecaster, snapshot.responses, lineage, np.arange(130, 150), models=snapshot.models,
            numbers=(10, 40),
        ).set_index(["strategy", "n_answers"])  # fmt: skip
        assert set(frame.index.get_level_values(0)) == set(chosen.STRATEGIES)
        for n in (10, 40):
            assert frame.loc[(chosen.CHOSEN, n), "mae"] < frame.loc[(chosen.RIDGE, n), "mae"]
        assert frame.loc[(chosen.CHOSEN, 40), "mae"] < frame.loc[(chosen.RANDOM, 40), "mae"]
        assert frame.loc[(chosen.CHOSEN, 40), "mae"] < frame.loc[(chosen.CHOSEN, 10), "mae"]


class TestCommand:
    def test_the_file_is_what_lm_eval_takes(self, command, saved_fit, forecaster, new, tmp_path):
        out = tmp_path / "samples.json"
        options = ("--parents", forecaster.trained_ids_[0], "--budget", "12", "--out", out)
        code, text, err = command("next", "--model", saved_fit, *options)
        assert (code, err) == (0, "") and "12" in text
        samples = json.loads(out.read_text())
        found = {
            f"{task.removeprefix('leaderboard_')}/{number}"
            for task, numbers in samples.items() for number in numbers
        }  # fmt: skip
        wanted = {
            f"{a if a == b else f'{a}_{b}'}/{n}"
            for a, b, n in (item.split("/") for item in new.next_items(12))
        }
        assert found == wanted

    def test_answers_come_back_and_it_goes_on(self, command, saved_fit, forecaster, new, tmp_path):
        first, path = new.next_items(5), tmp_path / "answers.csv"
        pd.DataFrame({"item_id": first, "answer": 1}).to_csv(path, index=False)
        options = ("--parents", forecaster.trained_ids_[0], "--answers", path)
        out = tmp_path / "samples.json"
        code, text, _ = command(
            "next", "--model", saved_fit, *options, "--budget", "5", "--out", out
        )
        assert code == 0
        n = sum(len(numbers) for numbers in json.loads(out.read_text()).values())
        assert n == 5
        (average,) = [line.split() for line in text.splitlines() if line.startswith("average")]
        now = new.update(dict.fromkeys(first, 1))
        assert float(average[1]) == pytest.approx(100 * now.mean_score()[0], abs=0.06)

    def test_nothing_to_ask_is_said_where_the_score_is_known(self, command, saved_fit):
        options = ("--name", "x", "--score", "bbh=50", "--benchmarks", "bbh")
        code, out, _ = command("next", "--model", saved_fit, *options)
        assert code == 0 and out.startswith("Nothing to ask")

    def test_lists_may_have_spaces_behind_commas(self, command, saved_fit, forecaster):
        first, second = forecaster.trained_ids_[:2]
        for plain, spaced in (
            (["--parents", f"{first},{second}"], ["--parents", f"{first},", second]),
            (["--parents", f"{first},{second}"], [f"--parents={first},", f"{second},"]),
            (["--parents", first, "--benchmarks", "bbh,math"],
             ["--parents", first, "--benchmarks", " bbh,", "math,"]),
            (["--name", "x", "--score", "bbh=30", "math=20"],
             ["--name", "x", "--score", "bbh=30,", "math=20"]),
        ):  # fmt: skip
            outputs = [command("next", "--model", saved_fit, *given) for given in (plain, spaced)]
            assert outputs[0] == outputs[1] and outputs[0][0] == 0

    def test_no_input_is_overwritten(self, command, saved_fit, tmp_path):
        before = Path(saved_fit).read_bytes()
        code, _, err = command("next", "--model", saved_fit, "--name", "x", "--out", saved_fit)
        assert code == 2 and "--out" in err and Path(saved_fit).read_bytes() == before

    @pytest.mark.parametrize("text", ["bbh,1\nbbh,2\n", "bbh,0\n", 'bbh,"' + "1" * 200_000])
    def test_costs_that_cannot_be_name_the_file(self, command, saved_fit, tmp_path, text):
        path = tmp_path / "costs.csv"
        path.write_text(f"item_id,cost\n{text}")
        options = ("--name", "x", "--budget", "3", "--cost", path)
        code, out, err = command("next", "--model", saved_fit, *options)
        assert code == 1 and out == "" and err.count("\n") == 1 and "costs.csv" in err

    def test_costs_by_task(self, command, saved_fit, tmp_path):
        path, out = tmp_path / "costs.csv", tmp_path / "samples.json"
        path.write_text("task,cost\nleaderboard_ifeval,1000\n")
        options = ("--name", "x", "--cost", path, "--budget", "6", "--out", out)
        code, _, err = command("next", "--model", saved_fit, *options)
        assert (code, err) == (0, "") and "leaderboard_ifeval" not in json.loads(out.read_text())

    def test_benchmarks_are_the_items_where_there_are_only_scores(
        self, command, saved_proportions, tmp_path
    ):
        out, fit = tmp_path / "order.json", Forecaster.load(saved_proportions)
        options = ("--name", "x", "--budget", "3", "--out", out)
        code, _, _ = command("next", "--model", saved_proportions, *options)
        order = json.loads(out.read_text())
        assert code == 0 and len(set(order) & set(fit.scores_.names)) == 3

    @pytest.mark.parametrize(
        ("options", "culprit"),
        [
            (("--budget", "3", "--precision", "2"), "--precision"),
            (("--budget", "0"), "0"),
            (("--precision", "-1"), "-1"),
            (("--benchmarks", "nothing"), "nothing"),
            (("--benchmarks", ","), "names no benchmark"),
            (("--parents", ","), "names no model"),
            (("--seed", "3", "over"), "'over' belongs to no option"),
            (("--cost", "/nowhere.csv"), "/nowhere.csv"),
            (("--valid", "--precision", "2"), "--valid"),
            (("--drawn", "x.csv"), "--answers"),
            (("--drawn", "x.csv", "--answers", "y.csv", "--budget", "3"), "--drawn"),
            (("--out", "/nowhere/x.json"), "/nowhere"),
        ],
    )
    def test_what_cannot_be_ends_in_one_sentence(self, command, saved_fit, options, culprit):
        code, out, err = command("next", "--model", saved_fit, "--name", "x", *options)
        assert code in (1, 2) and out == "" and err.count("\n") == 1 and culprit in err


class Sample:
    def __init__(self, id):
        self.id = id


class EarlyStop(Sample):
    def __init__(self, id, epoch, reason):
        super().__init__(id)
        self.epoch, self.reason = epoch, reason


@pytest.fixture
def inspect_ai(monkeypatch):
    """Inspect's module of this name, with the one class that is returned to it."""
    module = ModuleType("inspect_ai")
    module.util = ModuleType("inspect_ai.util")
    module.util.EarlyStop = EarlyStop
    monkeypatch.setitem(sys.modules, "inspect_ai", module)
    monkeypatch.setitem(sys.modules, "inspect_ai.util", module.util)


class TestEarlyStopping:
    def run_task(self, manager, items, answer):
        async def run():
            assert await manager.start_task(None, [Sample(item) for item in items], 1)
            asked = []
            for item in items:
                if await manager.schedule_sample(item, 1) is None:
                    asked.append(item)
                    await manager.complete_sample(item, 1, {"match": SimpleNamespace(value=answer)})
            return asked, await manager.complete_task()

        return asyncio.run(run())

    def test_it_runs_what_says_most(self, forecaster, new, inspect_ai):
        manager = EarlyStopping(new, budget=8)
        asked, told = self.run_task(manager, forecaster.item_ids_, "C")
        assert set(asked) == set(new.next_items(8))
        assert told["skipped"] == len(forecaster.item_ids_) - 8
        assert manager.new.scores()["n_observed"].sum() == 8
        assert told["lower"] < told["mean_score"] < told["upper"]

    def test_it_stops_when_the_score_is_known(self, forecaster, new, inspect_ai):
        wanted = 0.6 * half_width(new)
        manager = EarlyStopping(new, precision=wanted)
        asked, _ = self.run_task(manager, forecaster.item_ids_, "I")
        assert 0 < len(asked) <= len(new.items_until(wanted))

    def test_samples_of_another_fit_are_refused(self, new, inspect_ai):
        with pytest.raises(ValueError, match="item_of"):
            self.run_task(EarlyStopping(new), ["a", "b"], "C")
