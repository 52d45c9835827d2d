"""Merge plans, their back-test by time, and the benchmarks to run first."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from lrmf import Forecaster, Lineage
from lrmf.cli import program
from lrmf.decide import backtest
from lrmf.decide.backtest import backtest_merges, cite, plan_quality, recorded_hub
from lrmf.decide.benchmarks import (
    _family_state,
    benchmarks_first,
    first_quality,
    measure_first,
    scores_of,
)
from lrmf.decide.plans import backtest_line, plan_file, plan_text
from lrmf.forecaster.merges import EvaluatedModels, MergeConfig

CONFIG = MergeConfig()


@pytest.fixture(scope="module")
def hub():
    """A simulated Hub whose merges have parents on record, as scores of benchmarks."""
    return scores_of(recorded_hub(260, 60))


@pytest.fixture(scope="module")
def fitted(hub):
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    return Forecaster(seed=0).fit(hub.responses, lineage, items=hub.items, models=hub.models)


@pytest.fixture(scope="module")
def plans(fitted):
    return fitted.plan_merges(60, top=1000)


@pytest.fixture(scope="module")
def of_answers(simulated_hub):
    """A fit to answers: near-duplicates take part in its forecasts."""
    hub, lineage = simulated_hub
    fit = Forecaster(seed=0).fit(hub.responses, lineage, items=hub.items, models=hub.models)
    return hub, fit


def merge_of(parents):
    return [(parent, "merge") for parent in parents]


@pytest.mark.parametrize("n_parents", [2, 3])
def test_a_plan_is_what_fold_in_says_of_the_merge(fitted, n_parents):
    found = fitted.plan_merges(25, n_parents, top=8)
    for row in found.itertuples():
        alone = fitted.fold_in(parents=merge_of(row.parents)).forecasts.predict().average()
        scores = fitted.fold_in(parents=merge_of(row.parents)).scores()["score"]
        assert row.score == pytest.approx(scores.mean(), abs=1e-5)
        for column in ("score", "lower", "upper"):
            assert getattr(row, column) == pytest.approx(alone[column][0], abs=1e-5)


def test_a_plan_of_answers_is_what_fold_in_says_too(of_answers):
    _, fit = of_answers
    found = fit.plan_merges(20, top=4)
    assert len(found)
    for row in found.itertuples():
        scores = fit.fold_in(parents=merge_of(row.parents)).scores()["score"]
        assert row.score == pytest.approx(scores.mean(), abs=1e-5)


def test_the_average_of_one_benchmark_is_its_score(fitted):
    scores = fitted.predict([0, 5], revealed=np.full((2, 6), np.nan, np.float32)).scores
    for name, own in scores.groupby("benchmark", sort=False):
        revealed = np.full((2, 6), np.nan, np.float32)
        average = fitted.predict([0, 5], revealed=revealed).average([name])
        for column in ("score", "lower", "upper"):
            np.testing.assert_allclose(average[column], own[column], atol=1e-6)


def test_the_average_is_surer_than_its_benchmarks_but_not_as_if_they_were_independent(fitted):
    blank = np.full((20, 6), np.nan, np.float32)
    average = fitted.predict(np.arange(20), revealed=blank).average()["deviation"].to_numpy()
    each = np.stack(
        [
            fitted.predict(np.arange(20), revealed=blank).average([name])["deviation"]
            for name in fitted.scores_.names
        ]
    )
    assert (average <= each.mean(axis=0) + 1e-9).all()
    assert (average >= np.sqrt((each**2).sum(axis=0)) / 6).mean() > 0.9


def test_plans_are_ranked_and_say_how_good_their_parents_are(fitted, plans):
    assert plans["score"].is_monotonic_decreasing
    assert plans["p_better"].between(0, 1).all() and plans["diversity"].dropna().between(0, 1).all()
    models = EvaluatedModels(fitted)
    models.complete(np.arange(len(models.ids)))
    scores = pd.Series(models.scores, models.ids)
    for row in plans.head(5).itertuples():
        assert row.parents_best == pytest.approx(max(scores[list(row.parents)]))
        # The chance is above one half just where more than the best parent's score is expected.
        assert (row.p_better > 0.5) == (row.score > row.parents_best)
        assert row.p_best_of_size <= row.p_better + 1e-9


def test_what_cannot_be_merged_is_left_out_with_the_reason(hub, fitted):
    models = EvaluatedModels(fitted)
    everyone = np.arange(len(models.ids))
    found = fitted.plan_merges(len(everyone), top=10**6)
    left_out = found.attrs["left_out"]
    assert {"different architectures", "different sizes", "quantized weights"} <= left_out.keys()
    n = len(everyone)
    assert found.attrs["n_sets"] == n * (n - 1) // 2
    assert len(found) == found.attrs["n_exact"] == CONFIG.n_exact
    cards = hub.models.set_index("model_id")
    merges = hub.lineage[hub.lineage["relation"] == "merge"].groupby("child")["parent"].agg(set)
    for parents in found["parents"]:
        own = cards.loc[list(parents)]
        assert own["architecture"].dropna().nunique() <= 1
        assert own["params_b"].max() <= CONFIG.same_size * own["params_b"].min() or (
            own["params_b"].isna().any()
        )
        assert set(parents) not in list(merges)
        assert not (own["precision"] == "GPTQ").any()


def test_the_screen_keeps_the_best_plans(fitted):
    models = EvaluatedModels(fitted)
    chosen = models.choose(60, None, CONFIG)
    sets = np.array([(a, b) for a in range(60) for b in range(a + 1, 60)])
    sets = sets[models.obstacles(chosen, sets, CONFIG)[1] < 0]
    exact = models.forecast(chosen[sets])["score"].to_numpy()
    promise = models.forecast(chosen[:, None])["score"].to_numpy()[sets].mean(axis=1)
    best, screened = np.argsort(-exact)[:10], np.argsort(-promise)[: len(sets) // 4]
    assert set(best) <= set(screened)


def test_three_parents_and_one_benchmark(fitted):
    triples = fitted.plan_merges(15, 3, objective="bbh", top=3)
    assert all(len(set(parents)) == 3 for parents in triples["parents"])
    scores = fitted.fold_in(parents=merge_of(triples["parents"][0])).scores()
    expected = scores.set_index("benchmark")["score"]["bbh"]
    assert triples["score"][0] == pytest.approx(expected, abs=1e-5)


def test_only_models_of_a_size(fitted, plans):
    size = plans["size_b"].iloc[-1]
    found = fitted.plan_merges(60, size=size, top=50)
    assert (np.abs(np.log(found["size_b"] / size)) <= np.log(CONFIG.same_size) + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"candidates": ["sim-org-000/nobody", "x"]}, "sim-org-000/nobody"),
        ({"candidates": 1}, "candidates"),
        ({"n_parents": 4}, "4"),
        ({"objective": "chess"}, "chess"),
        ({"top": 0}, "top"),
        ({"size": 1000}, "got 0 of about 1000 B"),
    ],
)
def test_bad_arguments_name_the_culprit(fitted, arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        fitted.plan_merges(**arguments)


def test_diversity_of_answers_is_the_share_of_errors_that_only_one_makes(of_answers):
    hub, fit = of_answers
    models = EvaluatedModels(fit)
    got = models.diversity(np.array([3, 8, 20]), np.array([[0, 1], [1, 2]]))
    for value, (a, b) in zip(got, [(3, 8), (8, 20)], strict=True):
        x, y = models.responses[a].astype(int), models.responses[b].astype(int)
        both = (x != 255) & (y != 255)
        either = both & ((x == 0) | (y == 0))
        apart = (both & (x != y)).sum() / either.sum() if both.any() else np.nan
        assert value == pytest.approx(apart, nan_ok=True)


def test_models_without_errors_are_alike(of_answers):
    models = EvaluatedModels(of_answers[1])
    models.responses = np.ones_like(models.responses)
    assert models.diversity(np.array([3, 8]), np.array([[0, 1]])) == 0


def test_what_is_unknown_of_a_plan_is_a_dash(plans):
    unknown = plans.head(1).assign(size_b=np.nan, p_best_of_size=np.nan, diversity=np.nan)
    unknown.attrs = plans.attrs
    row = plan_text(unknown).splitlines()[1].split()
    assert row.count("-") == 3 and "nan" not in row


def test_models_without_a_name_are_called_like_their_parents(fitted):
    describer, covariance = fitted.prior_.describer, fitted.prior_.covariance_
    parent = describer.ids[0]
    nameless = pd.DataFrame({"model_id": ["", "abc/zzz"]})
    edges = [(parent, "", "merge"), (parent, "abc/zzz", "merge")]
    described, _ = describer.describe(nameless, edges)
    own = fitted.prior_.nodes[[0]]
    alike = covariance.terms(described, own)["card and name"][:, 0]
    assert alike[0] > alike[1]
    np.testing.assert_allclose((described.grams[[0]] @ own.grams.T).toarray(), 1, atol=1e-5)


# ---- the back-test


@pytest.fixture(scope="module")
def tested(hub):
    return backtest_merges(hub, n_cutoffs=2, quantiles=(0.5, 0.7))


def test_forecasts_are_made_from_what_was_there(hub, tested, monkeypatch):
    dates = hub.models.set_index("model_id")["evaluated_at"]
    assert (dates[tested["model_id"]].to_numpy() >= tested["cutoff"].to_numpy()).all()
    seen = []
    fit = Forecaster.fit

    def spy(self, responses, lineage, *, items=None, models=None):
        seen.append((models, lineage))
        return fit(self, responses, lineage, items=items, models=models)

    monkeypatch.setattr(backtest.Forecaster, "fit", spy)
    again = backtest_merges(hub, n_cutoffs=1, quantiles=(0.5, 0.5))
    (models, lineage), cutoff = seen[0], again["cutoff"][0]
    assert (models["evaluated_at"] < cutoff).all()
    later = set(hub.models["model_id"]) - set(models["model_id"])
    assert not later & set(lineage.edges["child"])


def perfect(n=40):
    """Merges of which the Forecaster knows everything, and the best parent nothing."""
    rng = np.random.default_rng(0)
    actual = rng.uniform(0.2, 0.8, n)
    frame = pd.DataFrame({"cutoff": np.repeat(["a", "b"], n // 2), "actual": actual})
    frame["model_id"] = frame["cluster"] = [f"m{row}" for row in range(n)]
    frame["size_class"], frame["parents_best"] = 1, 0.5
    for planner in backtest.PLANNERS:
        frame[f"value {planner}"] = actual if planner == "Forecaster" else rng.random(n)
        frame[f"p_better {planner}"] = (actual > 0.5) * 1.0 if planner == "Forecaster" else 0.5
    return frame


def test_a_planner_that_knows_the_outcome_is_better_in_everything():
    quality = plan_quality(perfect()).set_index(["planner", "metric"])
    own = quality.loc["Forecaster", "value"]
    assert own["tau"] == 1 and own["regret"] == pytest.approx(0) and own["brier"] == 0
    baselines = quality[quality.index.get_level_values("planner") != "Forecaster"]
    assert (baselines["verdict"] == "better").all()


def test_a_planner_is_not_told_apart_from_itself():
    frame = perfect()
    for planner in backtest.PLANNERS:
        for column in ("value", "p_better"):
            frame[f"{column} {planner}"] = frame[f"{column} Forecaster"]
    quality = plan_quality(frame).query("planner == 'best parent'")
    assert (quality["verdict"] == "no clear difference").all()


def test_rank_correlation_compares_merges_of_a_size_only():
    frame = perfect(8)
    frame["size_class"] = np.arange(8) // 2
    frame["value Forecaster"] = 10 * frame["size_class"] - frame["actual"]
    quality = plan_quality(frame).set_index(["planner", "metric"])["value"]
    assert quality["Forecaster", "tau"] == -1
    frame["size_class"] = np.arange(8)
    quality = plan_quality(frame).set_index(["planner", "metric"])["value"]
    assert np.isnan(quality["Forecaster", "tau"])


def test_no_dates_no_back_test(hub):
    bare = hub.models.drop(columns=["created_at", "evaluated_at"])
    with pytest.raises(ValueError, match="date"):
        backtest_merges(type(hub)(**{**vars(hub), "models": bare}))


def test_what_is_cited_is_what_was_found(tested, tmp_path, monkeypatch):
    cited = cite("mine", "", tested)
    quality = plan_quality(tested).set_index(["metric", "planner"])["value"]
    got = cited["tau"]["Forecaster"]["value"]
    assert got == pytest.approx(quality["tau", "Forecaster"], abs=1e-3)
    path = tmp_path / "cited.json"
    path.write_text(json.dumps([cited]))
    monkeypatch.setattr("lrmf.decide.plans.CITED", path)
    assert f"{got:.2f}" in backtest_line() and "mine" in backtest_line()


# ---- the command


@pytest.fixture(scope="module")
def fit_file(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "fit.npz"
    fitted.save(path)
    return str(path)


def test_the_command_prints_plans_and_ends_with_the_back_test(fit_file, plans, tmp_path):
    out = tmp_path / "plan.csv"
    result = CliRunner().invoke(
        program, ["plan", "--model", fit_file, "--top", "60", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[-1] == backtest_line()
    assert all(parent in lines[1] for parent in plans["parents"][0])
    table = pd.read_csv(out)
    assert table["parents"][0].split(",") == list(plans["parents"][0])
    np.testing.assert_allclose(table["score"], plans["score"], atol=1e-4)
    assert plan_file(plans).decode().splitlines()[0] == ",".join(table.columns)


def test_named_models_are_planned_with(fit_file, plans):
    names = plans["parents"][0]
    arguments = ["plan", "--model", fit_file, "--from", ",".join(names)]
    lines = CliRunner().invoke(program, arguments).output.splitlines()
    assert len(lines) == 3 and all(name in lines[1] for name in names)


def test_urls_and_revisions_name_models_too(fit_file, plans):
    first, second = plans["parents"][0]
    names = f"https://huggingface.co/{first}/tree/main,{second}@main"
    outputs = [
        CliRunner().invoke(program, ["plan", "--model", fit_file, "--from", given]).output
        for given in (f"{first},{second}", names)
    ]
    assert outputs[0] == outputs[1]


def test_models_and_their_number_cannot_both_be_given(fit_file):
    arguments = ["plan", "--model", fit_file, "--from", "a,b", "--top", "9"]
    assert CliRunner().invoke(program, arguments).exit_code == 2


def test_nothing_to_merge_is_said(fitted):
    models = EvaluatedModels(fitted)
    other = np.flatnonzero(models.architecture != models.architecture[0])[0]
    found = fitted.plan_merges([models.ids[0], models.ids[other]])
    assert found.empty and "different architectures" in plan_text(found)


# ---- benchmarks


def test_each_benchmark_comes_once_and_the_first_leaves_least(fitted):
    order = benchmarks_first(fitted)
    names = fitted.scores_.names
    assert len(order) == len(names) - 1 and order["benchmark"].is_unique
    assert set(order["benchmark"]) <= set(names) and order["left"].between(0, 1).all()
    # The first by brute force: the variance of the others' mean score, given one of them.
    precision, evidence, slopes = _family_state(fitted)
    means = [np.delete(slopes, b, axis=0).mean(axis=0) for b in range(len(names))]
    left = [g @ np.linalg.inv(precision + e) @ g for g, e in zip(means, evidence, strict=True)]
    assert order["benchmark"][0] == names[int(np.argmin(left))]


def test_only_the_benchmarks_named_are_chosen(fitted):
    names = fitted.scores_.names[:3]
    assert set(benchmarks_first(fitted, benchmarks=names)["benchmark"]) < set(names)
    with pytest.raises(ValueError, match="chess"):
        benchmarks_first(fitted, benchmarks=["chess"])
    with pytest.raises(ValueError, match="one benchmark"):
        benchmarks_first(fitted, benchmarks=names[:1])


def test_benchmarks_of_many_answers_are_ordered_too(of_answers):
    _, fit = of_answers
    assert len(benchmarks_first(fit, 3)) == 3


def test_benchmarks_that_were_run_leave_less_to_forecast(hub):
    n_benchmarks = hub.items["benchmark"].nunique()
    measured = measure_first(hub, n=n_benchmarks + 1, n_random=1)
    assert measured["n_run"].max() == n_benchmarks - 1  # one is always left
    quality = first_quality(measured, n_boot=200).set_index(["error", "strategy", "n_run"])["value"]
    assert quality["rest", "greedy", 0] == pytest.approx(quality["rest", "random", 0])
    for strategy in ("greedy", "random"):
        assert quality["average", strategy, 3] < quality["average", strategy, 0]
    assert quality["rest", "greedy", 3] < quality["rest", "random", 3]
