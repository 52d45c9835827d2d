"""Comparison of forecasts: intervals, differences, strata, and protocols a snapshot lacks."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot

from lrmf import Lineage
from lrmf.baselines.averages import ItemMean, LineageMean
from lrmf.evaluation import bootstrap as comparison
from lrmf.evaluation.evaluate import add_strata, choices, run_protocol
from lrmf.evaluation.metrics import (
    calibration_bins,
    interval_quality,
    score_ceiling,
    score_forecasts,
)
from lrmf.evaluation.splits import date_split, zero_shot
from lrmf.report import tables


def made_up_forecasts(*, n_models=60, n_families=12, seed=0):
    """Forecasts of a good and a poor predictor, two benchmarks, two seeds, two folds."""
    rng = np.random.default_rng(seed)
    actual = rng.uniform(0.2, 0.8, (n_models, 2))
    rows = []
    for number in (0, 1):
        for predictor, noise in (("Forecaster", 0.05), ("MF", 0.3)):
            predicted = np.clip(actual + noise * rng.standard_normal(actual.shape), 0, 1)
            for model, benchmark in np.ndindex(actual.shape):
                rows.append(
                    {
                        "protocol": "zero_shot",
                        "predictor": predictor,
                        "seed": number,
                        "fold": model % 2,
                        "model_id": f"m{model:02d}",
                        "benchmark": "ab"[benchmark],
                        "actual": actual[model, benchmark],
                        "predicted": predicted[model, benchmark],
                        "expected": 0.5,
                        "lower": predicted[model, benchmark] - 0.1,
                        "upper": predicted[model, benchmark] + 0.1,
                        "n_items": 10,
                        "log_loss": np.nan,
                        "brier": np.nan,
                        "relation": ["finetune", "merge", "sibling"][model % 3],
                        "n_relatives": model % 30,
                        "hops": 1 + model % 2,
                        "family": model % n_families,
                    }
                )
    return pd.DataFrame(rows)


def value_of(frame, predictor, metric, column="value"):
    return frame.set_index(["predictor", "metric"]).loc[(predictor, metric), column]


def test_bootstrap_of_two_predictors_equals_a_direct_computation():
    forecasts = made_up_forecasts()
    frame = comparison.bootstrap(forecasts, metrics=["mae"], n_boot=300)
    error = 100 * (forecasts["predicted"] - forecasts["actual"]).abs()
    by_model = error.groupby([forecasts["predictor"], forecasts["model_id"]]).mean()
    family = forecasts.groupby("model_id")["family"].first()
    rng = np.random.default_rng(0)
    draws = rng.multinomial(12, np.full(12, 1 / 12), size=300)[:, family]
    difference = (draws @ (by_model["Forecaster"] - by_model["MF"])) / draws.sum(axis=1)
    bounds = np.quantile(difference, [0.025, 0.975])
    assert value_of(frame, "MF", "mae") == pytest.approx(by_model["MF"].mean())
    assert value_of(frame, "MF", "mae", "difference_lower") == pytest.approx(bounds[0])
    assert value_of(frame, "MF", "mae", "difference_upper") == pytest.approx(bounds[1])
    assert (frame["n_models"] == 60).all() and (frame["n_clusters"] == 12).all()


def test_bootstrap_intervals_hold_the_value_and_the_reference_differs_by_nothing_from_itself():
    frame = comparison.bootstrap(made_up_forecasts(), n_boot=200)
    assert (frame["lower"] <= frame["value"]).all() and (frame["value"] <= frame["upper"]).all()
    own = frame[frame["predictor"] == "Forecaster"]
    assert (own[["difference", "difference_lower", "difference_upper"]] == 0).all(axis=None)


def test_bootstrap_by_groups_equals_each_group_alone():
    forecasts = made_up_forecasts()
    both = pd.concat([forecasts.assign(k=0), forecasts[forecasts["family"] < 8].assign(k=1)])
    frame = comparison.bootstrap(both, by=["k"], n_boot=100)
    alone = comparison.bootstrap(forecasts[forecasts["family"] < 8], n_boot=100)
    pd.testing.assert_frame_equal(
        frame[frame["k"] == 1].drop(columns="k").reset_index(drop=True), alone
    )


def test_bootstrap_of_a_benchmark_and_without_the_reference():
    forecasts = made_up_forecasts()
    one = comparison.bootstrap(forecasts, benchmark="a", metrics=["mae"], n_boot=50)
    assert value_of(one, "MF", "mae") == pytest.approx(
        score_forecasts(forecasts, by=["predictor", "seed"])
        .query("predictor == 'MF' and metric == 'mae' and benchmark == 'a'")["value"]
        .mean()
    )
    without = comparison.bootstrap(forecasts[forecasts["predictor"] == "MF"], n_boot=50)
    assert without["difference"].isna().all() and without["lower"].notna().all()


def test_too_few_families_give_no_interval():
    forecasts = made_up_forecasts(n_families=4)
    frame = comparison.bootstrap(forecasts, n_boot=50)
    assert frame["lower"].isna().all() and frame["value"].notna().all()
    singles = comparison.bootstrap(forecasts, n_boot=50, cluster=None)
    assert singles["lower"].notna().all() and (singles["n_clusters"] == 60).all()


def test_spread_is_the_deviation_over_folds_and_seeds():
    forecasts = made_up_forecasts()
    spread = comparison.spread_over_folds(forecasts).set_index(["predictor", "benchmark", "metric"])
    values = score_forecasts(forecasts, by=["predictor", "seed", "fold"])
    chosen = values.query("predictor == 'MF' and benchmark == 'all' and metric == 'pearson'")
    assert spread.loc[("MF", "all", "pearson"), "sd"] == pytest.approx(chosen["value"].std())
    assert spread.loc[("MF", "all", "pearson"), "n_splits"] == 4


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"),
    [
        (0.01, 0.30, "better"),
        (-0.01, 0.30, "no clear difference"),
        (-0.30, -0.01, "worse"),
        (np.nan, np.nan, "no clear difference"),
    ],
)
def test_the_verdict_is_that_of_the_interval(lower, upper, verdict):
    frame = pd.DataFrame(
        {
            "predictor": ["MF", "MF", "item mean"],
            "metric": ["pearson", "mae", "pearson"],
            "difference_lower": lower,
            "difference_upper": upper,
        }
    )
    assert comparison.judge_leads(frame)["verdict"].tolist() == [verdict]


def test_leads_are_those_of_each_reference_with_the_same_draws():
    forecasts = made_up_forecasts()
    leads = comparison.leads(forecasts, ["Forecaster", "MF"], n_boot=20)
    assert set(leads["reference"]) == {"Forecaster", "MF"}
    own = leads.query("reference == 'Forecaster' and predictor == 'MF'").iloc[0]
    whole = comparison.bootstrap(forecasts, n_boot=20)
    same = whole.query("metric == 'pearson' and predictor == 'MF'").iloc[0]
    for name in ("difference", "difference_lower", "difference_upper"):
        assert own[name] == same[name]
    assert comparison.leads(forecasts, ["left out", "Forecaster"], n_boot=20).equals(
        comparison.leads(forecasts, ["Forecaster"], n_boot=20)
    )
    nothing = comparison.leads(pd.DataFrame(), ["Forecaster"], by=["density"])
    assert nothing.empty and {"density", "reference", "verdict"} <= set(nothing.columns)


def test_strata_split_the_models():
    forecasts = add_strata(made_up_forecasts())
    strata = comparison.by_stratum(forecasts, n_boot=20)
    for name in ("distance", "relation", "relatives"):
        chosen = strata.query("stratum == @name and predictor == 'Forecaster' and metric == 'mae'")
        sizes = forecasts.groupby(name)["model_id"].nunique()
        assert chosen.set_index("level")["n_models"].to_dict() == sizes[sizes >= 10].to_dict()
    assert set(forecasts["relatives"]) == {"none", "1", "2-4", "5-19", "20 or more"}
    levels = strata[(strata["stratum"] == "relatives") & (strata["metric"] == "mae")]
    assert "none" not in set(levels["level"])  # two models only


def test_accuracy_within_families_is_that_of_a_hand_made_example():
    """Two families that r tells apart but for which one forecast is right and one upside down."""
    up, down = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.6, 0.7, 0.8, 0.9])
    frame = made_up_forecasts(n_models=8, n_families=2).query(
        "predictor == 'Forecaster' and seed == 0 and benchmark == 'a'"
    )
    actual = np.empty(8)
    actual[0::2], actual[1::2] = up, down
    predicted = actual.copy()
    predicted[1::2] = down[::-1]
    frame = frame.assign(actual=actual, predicted=predicted)
    within = comparison.within_families(frame, min_models=4, n_boot=50)
    r = within.query("metric == 'pearson'").set_index("family")["value"]
    assert r.to_dict() == pytest.approx({"0": 1.0, "1": -1.0, "mean": 0.0})
    mae = within.query("metric == 'mae'").set_index("family")["value"]
    assert mae.to_dict() == pytest.approx({"0": 0.0, "1": 20.0, "mean": 10.0})
    assert comparison.bootstrap(frame, n_boot=0)["value"].iloc[0] > 0.7
    assert comparison.within_families(frame, min_models=5).empty


def test_families_are_resampled_for_the_mean_over_families():
    frame = made_up_forecasts(n_models=72, n_families=6)
    within = comparison.within_families(frame, min_models=12, n_boot=100)
    assert set(within["family"]) == {*"012345", "mean"}
    single = within[within["family"] != "mean"]
    alone = comparison.bootstrap(frame, by=["family"], cluster=None, n_boot=0)
    np.testing.assert_allclose(single["value"], alone["value"])
    assert (within["lower"] <= within["value"]).all() and (within["value"] <= within["upper"]).all()
    mean = within[within["family"] == "mean"].set_index(["predictor", "metric"])
    for key, row in mean.iterrows():
        values = single[(single["predictor"] == key[0]) & (single["metric"] == key[1])]["value"]
        assert row["value"] == pytest.approx(values.mean())
        assert row["n_clusters"] == 6 and row["n_models"] == 72


@pytest.mark.parametrize(
    ("hops", "level"),
    [(-1, "none"), (1, "1 hop"), (2, "2 hops"), (3, "3 hops or more"), (7, "3 hops or more")],
)
def test_distance_is_that_to_the_nearest_relative(hops, level):
    forecasts = made_up_forecasts(n_models=6).assign(hops=hops)
    assert set(add_strata(forecasts)["distance"]) == {level}


def test_choices_are_counted_by_fold_and_not_by_forecast():
    forecasts = made_up_forecasts().query("predictor == 'MF'").assign(seed=0)
    folds = [
        forecasts.assign(fold=fold, chosen=json.dumps({"rank": rank, "use_features": True}))
        for fold, rank in enumerate((8, 16, 16.0))
    ]
    chosen = choices(pd.concat(folds))
    assert len(chosen) == 6
    table = tables.choices_table(chosen)
    assert table["chosen (fits)"].tolist() == ["16 (2), 8 (1)", "True (3)"]
    nothing = choices(forecasts.assign(fold=0, chosen="{}"))
    assert nothing.empty and tables.choices_table(nothing).empty
    assert choices(pd.DataFrame()).empty and tables.choices_table(pd.DataFrame()).empty


def test_calibration_bins_are_equally_large_and_average_to_the_mean():
    forecasts = made_up_forecasts()
    bins = calibration_bins(forecasts, n_bins=8)
    assert bins.groupby("predictor")["n"].agg(np.ptp).max() <= 1
    own = bins[bins["predictor"] == "MF"]
    total = forecasts[forecasts["predictor"] == "MF"]
    for column in ("predicted", "actual"):
        skill = (total[column] - total["expected"]).mean()
        assert np.average(own[column], weights=own["n"]) == pytest.approx(skill)
    assert own["predicted"].is_monotonic_increasing


def test_interval_quality_counts_the_intervals_that_hold():
    forecasts = made_up_forecasts().assign(k=3)
    quality = interval_quality(forecasts).set_index(["benchmark", "metric"])["value"]
    own = forecasts[(forecasts["predictor"] == "Forecaster") & (forecasts["benchmark"] == "a")]
    inside = own["actual"].between(own["lower"], own["upper"]).mean()
    assert quality["a", "coverage"] == pytest.approx(inside)
    assert quality["all", "width"] == pytest.approx(20)


@pytest.fixture(scope="module")
def tiny():
    data = tiny_snapshot()
    lineage = Lineage.from_edges(data.lineage, data.models["model_id"])
    return data, lineage, {"items": data.items, "models": data.models, "truth": data.responses}


def test_protocols_run_and_keep_to_the_first_folds(tiny):
    data, lineage, shared = tiny
    predictors = {"1 hop": LineageMean(shrinkage=1.0), "item mean": ItemMean()}
    protocol = partial(zero_shot, data.responses, lineage, n_folds=3)
    results, forecasts = run_protocol(
        "Zero-shot", predictors, protocol, lineage, max_folds=2, **shared
    )
    assert set(forecasts["fold"]) == {0, 1} and set(forecasts["predictor"]) == set(predictors)
    assert not results.empty


def test_protocols_a_snapshot_cannot_serve_are_named_and_empty(tiny, capsys):
    data, _, shared = tiny
    alone = Lineage.from_edges([], data.models["model_id"])
    mean = {"item mean": ItemMean()}
    protocol = partial(zero_shot, data.responses, alone, n_folds=3)
    for frame in run_protocol("Zero-shot", mean, protocol, alone, **shared):
        assert frame.empty
    assert capsys.readouterr().out.startswith("Zero-shot: not on this snapshot (3 folds need")
    undated = data.models.drop(columns=["created_at", "evaluated_at"])
    protocol = partial(date_split, data.responses, undated)
    run_protocol("By date", mean, protocol, alone, **shared)
    assert "no dates to split by" in capsys.readouterr().out
    run_protocol("Parts", {}, protocol, alone, **shared)
    assert capsys.readouterr().out == (
        "Parts: not on this snapshot (no predictor applies to it).\n"
    )


def test_errors_of_a_fit_are_not_taken_for_a_missing_protocol(tiny):
    data, lineage, shared = tiny
    protocol = partial(zero_shot, data.responses, lineage, n_folds=3)
    wrong = {"7 hops": LineageMean(hops=7)}
    with pytest.raises(ValueError, match="hops must be"):
        run_protocol("Zero-shot", wrong, protocol, lineage, **shared)


def test_emptiness_is_passed_on():
    empty = pd.DataFrame()
    assert comparison.bootstrap(empty, by=["k"]).empty
    assert "k" in comparison.bootstrap(empty, by=["k"])
    assert comparison.spread_over_folds(empty).empty
    assert comparison.within_families(empty).empty
    assert comparison.by_stratum(add_strata(empty)).empty
    assert calibration_bins(empty).empty
    assert interval_quality(empty).empty
    assert comparison.judge_leads(comparison.bootstrap(empty)).empty


@pytest.mark.parametrize("binary", [True, False])
def test_score_ceiling_lies_between_0_and_1_for_every_benchmark(binary):
    data = tiny_snapshot(binary=binary)
    ceiling = score_ceiling(data)
    assert ceiling["benchmark"].tolist() == ["arc", "bbh", "math"]
    assert ceiling["ceiling"].between(0, 1).all()
