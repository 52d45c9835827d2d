"""Claims against frames whose verdicts one can see."""

import pandas as pd
import pytest

from lrmf.claims import HOLDS, NOT, PARTLY, assess_claims
from lrmf.comparison import COMPARISON

NOTHING = pd.DataFrame(columns=[*COMPARISON, "density", "k", "variant", "stratum", "level"])
QUALITY = pd.DataFrame(columns=["predictor", "k", "benchmark", "metric", "value", "n"])


def row(predictor, value, difference=0.0, *, metric="pearson", width=0.01, **labels):
    """A row as `bootstrap` makes it, with intervals of this half-width."""
    bounds = {"lower": value - width, "upper": value + width, "difference": difference}
    bounds |= {"difference_lower": difference - width, "difference_upper": difference + width}
    return {"predictor": predictor, "metric": metric, "value": value} | bounds | labels


def assess(*, intervals=QUALITY, **frames):
    names = ("zero_shot", "random_missing", "few_shot", "variants", "ingredients", "strata")
    given = [pd.DataFrame(frames[name]) if name in frames else NOTHING for name in names]
    return assess_claims(*given, intervals)


def verdict(table, part):
    [found] = [row.verdict for row in table.itertuples() if part in row.Index]
    return found


def test_without_results_nothing_is_claimed():
    assert assess().empty


@pytest.mark.parametrize(
    ("lead", "expected"), [(0.3, HOLDS), (0.08, HOLDS), (0.04, PARTLY), (0.005, NOT), (-0.1, NOT)]
)
def test_a_lead_is_measured_against_seven_points(lead, expected):
    frame = [row("LRMF", 0.7), row("LRMF", 5, metric="mae"), row("MF", 0.7 - lead, lead)]
    table = assess(zero_shot=frame)
    assert verdict(table, "above factorization") == expected
    assert verdict(table, "can be forecast") == HOLDS


def test_a_lead_in_some_settings_holds_partly():
    frame = [row("kNN", 0.5, lead, density=d) for lead, d in ((0.2, 0.01), (0.0, 0.1))]
    table = assess(random_missing=frame)
    assert verdict(table, "collaborative filtering") == PARTLY
    [text] = table["measured"]
    assert "+20 [19, 21] at 1%" in text and "0 [-1, 1] at 10%" in text


def test_lineage_is_the_cause_if_shuffling_takes_the_correlation_away():
    for value, expected in ((0.02, HOLDS), (0.7, NOT)):
        frame = [row("LRMF", 0.7, variant="all of it")]
        frame += [row("LRMF", value, variant="shuffled lineage")]
        assert verdict(assess(variants=frame), "cause") == expected


@pytest.mark.parametrize(("lead", "expected"), [(0.04, HOLDS), (0.005, PARTLY), (-0.04, NOT)])
def test_the_forecaster_without_lineage_is_part_of_the_answer(lead, expected):
    frame = [row("LRMF", 0.79), row("without lineage", 0.79 - lead, lead)]
    assert verdict(assess(ingredients=frame), "adds to cards") == expected


def test_few_shot_compares_with_the_best_rival_at_each_k():
    rivals = {5: -0.1, 50: 0.1}  # how far the best one is ahead
    frame = [row("LRMF", 0.8, k=k) for k in rivals]
    frame += [row("kNN", 0.8 + ahead, -ahead, k=k) for k, ahead in rivals.items()]
    frame += [row("MF", 0.5, 0.3, k=k) for k in rivals]
    table = assess(few_shot=frame)
    assert verdict(table, "few answers") == PARTLY
    assert "0.80 (+10 [9, 11]) at 5, 0.80 (-10 [-11, -9]) at 50" in table["measured"].iloc[0]


@pytest.mark.parametrize(
    ("shares", "expected"), [((0.9, 0.91), HOLDS), ((0.9, 0.85), PARTLY), ((0.9, 0.7), NOT)]
)
def test_intervals_are_judged_by_their_coverage(shares, expected):
    rows = [("LRMF", k, "all", "coverage", share, 100) for k, share in enumerate(shares)]
    assert verdict(assess(intervals=pd.DataFrame(rows, columns=QUALITY.columns)), "90%") == expected


@pytest.mark.parametrize(("share", "expected"), [(0.9, HOLDS), (0.85, PARTLY), (0.6, NOT)])
def test_intervals_are_judged_where_entries_are_missing_at_random_too(share, expected):
    frame = [row("LRMF", value, metric="coverage", density=0.1) for value in (share,)]
    table = assess(random_missing=frame)
    assert verdict(table, "missing at random") == expected
    assert table["measured"].iloc[0] == f"coverage {share:.2f} at 10%"


def test_distant_relatives_and_averages():
    far = {"stratum": "distance", "level": "2 hops or more"}
    strata = [
        row("LRMF", 5.0, metric="mae", **far),
        row("item mean", 8.0, -3.0, metric="mae", **far),
    ]
    average = [row("lineage average, 1 hop", 0.6, 0.1), row("boosting on relatives", 0.7, 0.0)]
    table = assess(strata=strata, zero_shot=average)
    assert verdict(table, "two or more steps") == HOLDS
    assert verdict(table, "average of the relatives") == HOLDS
    assert verdict(table, "boosted trees") == HOLDS
