"""Verdicts on frames in which one can see them."""

import pandas as pd
import pytest

from lrmf.evaluation.bootstrap import COMPARISON, judge_leads
from lrmf.report.claims import KEPT, MISSED, NARROW, OPEN, REACHED, WIDE, assess_claims

BETTER, LEVEL, WORSE = "better", "no clear difference", "worse"
LABELS = ["density", "k", "variant", "stratum", "level", "known", "family"]
NOTHING = pd.DataFrame(columns=[*COMPARISON, *LABELS])
QUALITY = pd.DataFrame(columns=["predictor", "k", "benchmark", "metric", "value", "n"])


def row(predictor, value, difference=0.0, *, metric="pearson", width=0.01, **labels):
    """A row as `bootstrap` makes it, with intervals of this half-width."""
    bounds = {"lower": value - width, "upper": value + width, "difference": difference}
    bounds |= {"difference_lower": difference - width, "difference_upper": difference + width}
    return {"predictor": predictor, "metric": metric, "value": value} | bounds | labels


def lead(rows, reference="LRMF", protocol="zero-shot"):
    """Rows as `leads` makes them."""
    return judge_leads(pd.DataFrame(rows)).assign(reference=reference, protocol=protocol)


def assess(*, leads=NOTHING, intervals=QUALITY, dates=NOTHING, **frames):
    names = ("zero_shot", "random_holdout", "few_shot", "variants", "ingredients", "gains")
    late = ("release", "within", "extrapolation")
    given, later = (
        [pd.DataFrame(frames[name]) if name in frames else NOTHING for name in part]
        for part in (names, late)
    )
    return assess_claims(leads, *given, intervals, pd.DataFrame(dates), *later)


def verdicts(table, claim):
    """Verdict by setting of the rows about a claim."""
    return table.loc[[claim]].set_index("setting")["verdict"].to_dict()


def test_without_results_nothing_is_claimed():
    assert assess().empty


@pytest.mark.parametrize(
    ("ahead", "first", "published"),
    [(0.3, REACHED, REACHED), (0.1, REACHED, MISSED), (0.065, OPEN, MISSED), (0.0, MISSED, MISSED)],
)
def test_both_claims_about_the_size_of_the_lead_have_a_row(ahead, first, published):
    table = assess(leads=lead([row("MF + features", 0.5, ahead)]))
    kind = "above factorization with model features"
    assert verdicts(table, f"LRMF 7 to 10 points of r {kind}") == {"zero-shot": first}
    assert verdicts(table, f"LRMF 15 to 30 points of r {kind}") == {"zero-shot": published}


def test_a_loss_is_called_one_in_every_setting():
    frame = [row("MF", 0.5, ahead, density=d) for ahead, d in ((0.2, 0.02), (-0.04, 0.1))]
    table = assess(leads=lead(frame, protocol="random hold-out"))
    found = verdicts(table, "LRMF against factorization")
    assert found == {"2% of cells": BETTER, "10% of cells": WORSE}
    assert table["measured"].tolist() == ["+20 [19, 21]", "-4 [-5, -3]"]


def test_baselines_that_cannot_tell_models_apart_are_left_out():
    zero = row("MF", 0.0, 0.8)
    assert assess(leads=lead([zero]), zero_shot=[row("lineage average, multi-hop", 0, 0.8)]).empty


@pytest.mark.parametrize(("ahead", "expected"), [(0.04, BETTER), (0.005, LEVEL), (-0.04, WORSE)])
def test_the_forecaster_is_compared_in_every_setting(ahead, expected):
    trees = "boosting on relatives"
    rows = [row("Forecaster", 0.8), row(trees, 0.8 - ahead, ahead), row("LRMF", 0.9, -0.1)]
    table = assess(
        zero_shot=rows,
        few_shot=[part | {"k": k} for k in (0, 5) for part in rows],
        random_holdout=[part | {"density": 0.1} for part in rows],
        dates=rows,
    )
    settings = ["zero-shot", "5 known", "10% of cells", "later models"]
    assert verdicts(table, f"Forecaster against {trees}") == dict.fromkeys(settings, expected)
    assert set(verdicts(table, "Forecaster against LRMF").values()) == {WORSE}
    best = table.loc[["Forecaster against the best baseline"]]
    assert best["measured"].str.endswith(f"({trees})").all()


def test_release_families_and_extrapolation_are_settings_of_their_own():
    rows = [row("Forecaster", 0.6), row("LRMF, untuned", 0.5, 0.1), row("parents' mean", 0.7, -0.1)]
    table = assess(
        release=[part | {"known": "as at release"} for part in rows[:2]]
        + [part | {"known": "all relatives"} for part in rows[:2]],
        within=[part | {"family": name} for part in rows for name in ("0", "mean")],
        extrapolation=rows[:2],
    )
    settings = ["as at release", "inside families", "better than all seen"]
    found = verdicts(table, "Forecaster against LRMF")
    assert found == dict.fromkeys(settings, BETTER)
    assert table.loc["Forecaster against LRMF", "measured"].str.endswith("(LRMF, untuned)").all()
    parents = verdicts(table, "Forecaster against parents' mean")
    assert parents == {"inside families": WORSE}


def test_the_better_mean_of_the_direct_relatives_counts():
    averages = [row("lineage average, 1 hop", 0.6, 0.1)]
    averages += [row("lineage average, 1 hop, raw", 0.7, 0.0)]
    claim = "Forecaster against the mean of direct relatives"
    assert verdicts(assess(zero_shot=averages[:1]), claim) == {"zero-shot": BETTER}
    assert verdicts(assess(zero_shot=averages), claim) == {"zero-shot": LEVEL}


def test_shuffling_tells_whether_lineage_is_the_cause():
    for difference, expected in ((0.12, BETTER), (0.0, LEVEL)):
        frame = [row("LRMF", 0.7, variant="all of it")]
        # The intervals overlap; what counts is that of the paired difference.
        wide = {"lower": 0.5, "upper": 0.8}
        frame += [row("LRMF", 0.58, difference, variant="shuffled lineage") | wide]
        found = verdicts(assess(variants=frame), "LRMF against LRMF on shuffled lineage")
        assert found == {"zero-shot": expected}


def test_what_lineage_adds_to_the_forecaster():
    far = {"stratum": "distance", "level": "2 hops", "metric": "mae"}
    table = assess(
        ingredients=[row("Forecaster", 0.79), row("without lineage", 0.75, 0.04)],
        gains=[row("Forecaster", 5.0, **far), row("without lineage", 8.0, -3.0, **far)],
    )
    assert set(verdicts(table, "Forecaster against Forecaster without lineage").values()) == {
        BETTER
    }
    assert "3.0 [3.0, 3.0] points of MAE saved" in table["measured"].tolist()


@pytest.mark.parametrize(("share", "expected"), [(0.9, KEPT), (0.75, NARROW), (0.97, WIDE)])
def test_intervals_are_judged_by_their_coverage(share, expected):
    rows = [("Forecaster", k, "all", "coverage", share, 100) for k in (0, 5)]
    own = row("Forecaster", share, metric="coverage")
    table = assess(
        intervals=pd.DataFrame(rows, columns=QUALITY.columns),
        random_holdout=[own | {"density": 0.005}],
        dates=[own],
    )
    settings = ["zero-shot", "5 known", "0.5% of cells", "later models"]
    assert verdicts(table, "90% intervals of Forecaster") == dict.fromkeys(settings, expected)
