"""Claims against frames whose verdicts one can see."""

import pandas as pd
import pytest

from lrmf.evaluation.bootstrap import COMPARISON, judge_claim
from lrmf.report.claims import HOLDS, NOT, OPEN, PARTLY, assess_claims

NOTHING = pd.DataFrame(columns=[*COMPARISON, "density", "k", "variant", "stratum", "level"])
QUALITY = pd.DataFrame(columns=["predictor", "k", "benchmark", "metric", "value", "n"])


def row(predictor, value, difference=0.0, *, metric="pearson", width=0.01, **labels):
    """A row as `bootstrap` makes it, with intervals of this half-width."""
    bounds = {"lower": value - width, "upper": value + width, "difference": difference}
    bounds |= {"difference_lower": difference - width, "difference_upper": difference + width}
    return {"predictor": predictor, "metric": metric, "value": value} | bounds | labels


def lead(rows, reference="Forecaster", protocol="zero-shot"):
    """Rows as `leads` makes them."""
    return judge_claim(pd.DataFrame(rows)).assign(reference=reference, protocol=protocol)


def assess(*, leads=NOTHING, intervals=QUALITY, dates=NOTHING, **frames):
    names = ("zero_shot", "random_holdout", "few_shot", "variants", "ingredients", "gains")
    given = [pd.DataFrame(frames[name]) if name in frames else NOTHING for name in names]
    return assess_claims(leads, *given, intervals, pd.DataFrame(dates))


def verdict(table, part):
    [found] = [row.verdict for row in table.itertuples() if part in row.Index]
    return found


def test_without_results_nothing_is_claimed():
    assert assess().empty


@pytest.mark.parametrize(
    ("lead_in_r", "expected"),
    [(0.3, HOLDS), (0.08, HOLDS), (0.04, PARTLY), (0.005, NOT), (-0.1, NOT)],
)
def test_a_lead_is_measured_against_seven_points(lead_in_r, expected):
    table = assess(leads=lead([row("MF", 0.7 - lead_in_r, lead_in_r)]))
    assert verdict(table, "above factorization") == expected


def test_a_lead_in_some_settings_holds_partly():
    frame = [row("kNN", 0.5, ahead, density=d) for ahead, d in ((0.2, 0.01), (0.0, 0.1))]
    table = assess(leads=lead(frame, protocol="random hold-out"))
    assert verdict(table, "collaborative filtering") == PARTLY
    [text] = table["measured"]
    assert "+20 [19, 21] at 1%" in text and "0 [-1, 1] at 10%" in text


def test_leads_of_the_factorization_and_of_the_forecaster_are_told_apart():
    core = lead([row("MF", 0.5, 0.0)], "LRMF")
    table = assess(leads=pd.concat([core, lead([row("MF", 0.5, 0.2)])]))
    assert table["verdict"].to_dict() == {
        "zero-shot, r of LRMF 7 to 10 points above factorization": NOT,
        "zero-shot, r of Forecaster 7 to 10 points above factorization": HOLDS,
    }


def test_models_nobody_has_evaluated():
    table = assess(zero_shot=[row("Forecaster", 0.7), row("Forecaster", 5, metric="mae")])
    assert verdict(table, "can be forecast") == HOLDS


def test_lineage_is_the_cause_if_shuffling_takes_the_correlation_away():
    for value, expected in ((0.02, HOLDS), (0.7, NOT)):
        frame = [row("LRMF", 0.7, variant="all of it")]
        frame += [row("LRMF", value, variant="shuffled lineage")]
        assert verdict(assess(variants=frame), "shuffling") == expected


@pytest.mark.parametrize(("lead", "expected"), [(0.04, HOLDS), (0.005, OPEN), (-0.04, NOT)])
def test_the_forecaster_without_lineage_is_part_of_the_answer(lead, expected):
    frame = [row("Forecaster", 0.79), row("without lineage", 0.79 - lead, lead)]
    assert verdict(assess(ingredients=frame), "adds to cards") == expected


@pytest.mark.parametrize(
    ("ahead", "measured", "expected"),
    [(0.1, "-10 [-11, -9]", NOT), (0.005, "0 [-2, 0]", PARTLY), (-0.02, "+2 [1, 3]", HOLDS)],
)
def test_few_shot_compares_with_the_best_rival_at_each_k(ahead, measured, expected):
    rivals = {5: -0.1, 50: ahead}  # how far the best one is ahead
    frame = [row("Forecaster", 0.8, k=k) for k in rivals]
    frame += [row("kNN", 0.8 + ahead, -ahead, k=k) for k, ahead in rivals.items()]
    frame += [row("MF", 0.5, 0.3, k=k) for k in rivals]
    frame += [row("LRMF", 0.99, -0.19, k=k) for k in rivals]  # no rival
    table = assess(few_shot=frame)
    assert verdict(table, "few answers") == expected
    assert f"0.80 (+10 [9, 11]) at 5, 0.80 ({measured}) at 50" in table["measured"].iloc[0]


@pytest.mark.parametrize(
    ("shares", "expected"), [((0.9, 0.91), HOLDS), ((0.9, 0.85), PARTLY), ((0.9, 0.7), NOT)]
)
def test_intervals_are_judged_by_their_coverage(shares, expected):
    rows = [("Forecaster", k, "all", "coverage", share, 100) for k, share in enumerate(shares)]
    assert verdict(assess(intervals=pd.DataFrame(rows, columns=QUALITY.columns)), "90%") == expected


@pytest.mark.parametrize(("share", "expected"), [(0.9, HOLDS), (0.85, PARTLY), (0.6, NOT)])
def test_intervals_are_judged_where_entries_are_held_out_at_random_too(share, expected):
    frame = [row("Forecaster", value, metric="coverage", density=0.1) for value in (share,)]
    table = assess(random_holdout=frame)
    assert verdict(table, "random hold-out") == expected
    assert table["measured"].iloc[0] == f"coverage {share:.2f} at 10%"


@pytest.mark.parametrize(("saved", "expected"), [(3, HOLDS), (0.005, OPEN), (-3, NOT)])
def test_distant_relatives(saved, expected):
    far = {"stratum": "distance", "level": "2 hops", "metric": "mae"}
    gains = [row("Forecaster", 5.0, **far), row("without lineage", 5.0 + saved, -saved, **far)]
    table = assess(gains=gains)
    assert verdict(table, "two steps away") == expected
    if saved == 3:
        text = "3.0 [3.0, 3.0] points of MAE saved: 5.0, 8.0 without lineage"
        assert table["measured"].iloc[0] == text


def test_averages():
    averages = [row("lineage average, 1 hop", 0.6, 0.1)]
    averages += [row("lineage average, 1 hop, raw", 0.7, 0.0)]
    assert verdict(assess(zero_shot=averages[:1]), "average of the relatives") == HOLDS
    table = assess(zero_shot=averages)  # against the better of the two
    assert verdict(table, "average of the relatives") == NOT
    assert table["measured"].iloc[0] == "0 [-1, 1] over 1 hop"


@pytest.mark.parametrize(("lead", "expected"), [(0.01, HOLDS), (-0.005, PARTLY), (-0.02, NOT)])
def test_trees_are_compared_with_in_every_setting(lead, expected):
    trees, ahead = "boosting on relatives", row("boosting on relatives", 0.5, 0.2)
    last = [
        row("Forecaster", 0.7),
        row(trees, 0.7 - lead, lead),
        row("Forecaster", 5, metric="mae"),
    ]
    table = assess(
        zero_shot=[ahead],
        few_shot=[ahead | {"k": k} for k in (0, 5)],
        random_holdout=[ahead | {"density": 0.1}],
        dates=last,
    )
    assert verdict(table, "boosted trees") == expected
    text = table["measured"]["no worse than boosted trees that read relatives and cards"]
    found = [text.index(name) for name in ("zero-shot", "given 5", "at 10%", "later models")]
    assert found == sorted(found) and "given 0" not in text


@pytest.mark.parametrize(("share", "expected"), [(0.9, HOLDS), (0.85, PARTLY), (0.6, NOT)])
def test_later_models_have_rows_of_their_own(share, expected):
    frame = [row("Forecaster", 0.8), row("Forecaster", 4.7, metric="mae")]
    table = assess(dates=[*frame, row("Forecaster", share, metric="coverage")])
    assert verdict(table, "from earlier ones") == HOLDS
    assert verdict(table, "90%, later models") == expected
    assert table["measured"].iloc[0] == "r 0.80 [0.79, 0.81], MAE 4.7 points"
