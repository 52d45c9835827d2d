"""Intervals that hold whatever the forecast is worth."""

import numpy as np
import pandas as pd
import pytest

from lrmf import Forecaster, Lineage
from lrmf.decide.answers import AnswersError
from lrmf.decide.valid import draw, estimate, intervals, probabilities, read_draw


@pytest.fixture(scope="session")
def new(saved_fit):
    forecaster = Forecaster.load(saved_fit)
    return forecaster.fold_in(parents=[str(forecaster.trained_ids_[0])])


def simulated_coverage(bias, budget, *, n_items=1500, n_draws=1000, seed=0):
    """Share of draws whose interval holds the score, and how far estimates are off on average."""
    rng = np.random.default_rng(seed)
    weights, inside, error = np.full((n_items, 1), 1 / n_items), 0, 0.0
    for _ in range(n_draws):
        logit = rng.normal(0.5, 2, n_items)
        forecast = 1 / (1 + np.exp(-logit))
        truth = 1 / (1 + np.exp(-(logit + bias + rng.normal(0, bias, n_items))))
        answers = (rng.random(n_items) < truth).astype(float)
        chance = probabilities(np.sqrt(forecast * (1 - forecast)), budget)
        drawn = rng.random(n_items) < chance
        score, lower, upper = estimate(
            forecast @ weights, weights[drawn], forecast[drawn], chance[drawn], answers[drawn]
        )
        inside += lower[0] <= answers.mean() <= upper[0]
        error += score[0] - answers.mean()
    return inside / n_draws, error / n_draws


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("budget", [100, 300])
def test_intervals_cover_whether_or_not_the_forecast_is_right(bias, budget):
    coverage, error = simulated_coverage(bias, budget)
    assert 0.93 <= coverage <= 0.97
    assert abs(error) < 0.005


@pytest.mark.parametrize("budget", [1, 20, 90, 100])
def test_probabilities_add_up_to_the_budget(budget):
    uncertainty = np.random.default_rng(0).gamma(0.3, size=100)
    chance = probabilities(uncertainty, budget)
    assert chance.sum() == pytest.approx(budget) and 0 < chance.min() and chance.max() <= 1
    order = np.argsort(uncertainty)
    assert (np.diff(chance[order]) >= -1e-12).all()


def test_a_draw_can_be_repeated_and_keeps_its_probabilities(new):
    first, again, other = draw(new, 40, seed=1), draw(new, 40, seed=1), draw(new, 40, seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert set(first["item_id"]) != set(other["item_id"])
    assert first["probability"].between(0, 1).all()
    sizes = [len(draw(new, 40, seed=seed)) for seed in range(60)]
    assert np.mean(sizes) == pytest.approx(40, abs=2.5)


def test_intervals_need_all_the_answers_that_were_drawn(new):
    drawn = draw(new, 40)
    with pytest.raises(ValueError, match="no answer"):
        intervals(drawn, new)
    answered = new.update(dict.fromkeys(drawn["item_id"], 1))
    found = intervals(drawn, answered)
    assert found["benchmark"].iloc[-1] == "average" and len(found) == 1 + len(new.scores())
    with pytest.raises(ValueError, match="before any answer"):
        draw(answered, 10)


def test_nothing_is_drawn_for_a_model_of_which_a_score_is_known(command, saved_fit, tmp_path):
    options = ("--name", "x", "--score", "bbh=30", "--valid", "--out", tmp_path / "samples.json")
    code, out, err = command("next", "--model", saved_fit, *options)
    assert code == 1 and out == "" and err.count("\n") == 1 and "--score" in err
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_nothing_is_drawn_or_asked(command, saved_fit, new, tmp_path):
    seed = next(seed for seed in range(60) if draw(new, 1, seed=seed).empty)
    options = ("--parents", new.forecasts.trained_ids_[0], "--out", tmp_path / "samples.json")
    for more in (("--valid", "--budget", 1, "--seed", seed), ("--precision", 99)):
        code, out, _ = command("next", "--model", saved_fit, *options, *more)
        assert code == 0 and out.startswith("Nothing") and "Wrote" not in out
        assert not list(tmp_path.iterdir())


def test_one_benchmark_has_no_average_beside_it(command, tmp_path):
    path, out, answers = (tmp_path / name for name in ("fit.npz", "samples.json", "answers.csv"))
    data = np.random.default_rng(0).integers(0, 2, (20, 30), np.uint8)
    items = pd.DataFrame({"item_id": [f"arc/{n}" for n in range(30)], "benchmark": "arc"})
    lineage = Lineage.from_edges([], [f"o/m{n}" for n in range(20)])
    Forecaster(rank=1).fit(data, lineage, items=items.assign(n_trials=1)).save(path)
    options = ("next", "--model", path, "--name", "x")
    for more in ((), ("--valid", "--out", out)):
        code, text, _ = command(*options, "--budget", "20", *more)
        assert code == 0 and "\narc " in text and "average" not in text
    drawn = pd.read_csv(f"{out}.draw.csv")
    drawn.assign(answer=1)[["item_id", "answer"]].to_csv(answers, index=False)
    again = ("--drawn", f"{out}.draw.csv", "--answers", answers)
    code, text, _ = command(*options, *again)
    assert code == 0 and "\narc " in text and "average" not in text


def test_all_answers_give_the_score_itself(new):
    forecaster = new.forecasts
    drawn = draw(new, len(forecaster.item_ids_))
    truth = np.random.default_rng(0).integers(0, 2, len(forecaster.item_ids_))
    answered = new.update(dict(zip(forecaster.item_ids_, truth.tolist(), strict=True)))
    found = intervals(drawn, answered)
    actual = answered.scores()["score"]
    np.testing.assert_allclose(found["score"][:-1], actual, atol=1e-5)
    assert (found["lower"] == found["score"]).all() and (found["upper"] == found["score"]).all()


def test_a_benchmark_drawn_as_a_whole_is_exact_and_the_others_are_not(new):
    scores = new.forecasts.scores_
    whole = scores.weights[:, 0] > 0
    items = np.array(new.forecasts.item_ids_, dtype=object)
    drawn = pd.DataFrame({"item_id": items[whole], "probability": 1.0, "forecast": 0.5})
    found = intervals(drawn, new.update(dict.fromkeys(drawn["item_id"], 1)))
    np.testing.assert_allclose(found.loc[0, ["score", "lower", "upper"]].astype(float), 1)
    assert found["lower"][1:].isna().all()


@pytest.mark.parametrize("column", ["probability", "forecast"])
@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5, np.inf, "often"])
def test_a_draw_with_impossible_numbers_is_refused_by_file_and_item(new, tmp_path, column, value):
    path = tmp_path / "draw.csv"
    drawn = draw(new, 40).astype({column: object})
    drawn.loc[1, column] = value
    drawn.to_csv(path, index=False)
    with pytest.raises(AnswersError, match=rf"draw\.csv.*{drawn['item_id'][1]}"):
        read_draw(path, new)


def test_a_draw_of_probability_zero_without_rows_or_with_repeated_rows_is_refused(new, tmp_path):
    path, drawn = tmp_path / "draw.csv", draw(new, 40)
    faulty = {
        "zero": drawn.assign(probability=0.0), "empty": drawn[:0],
        "repeated": pd.concat([drawn, drawn[:1]]),
    }  # fmt: skip
    for frame in faulty.values():
        frame.to_csv(path, index=False)
        with pytest.raises(AnswersError, match=r"draw\.csv"):
            read_draw(path, new)
    drawn.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_draw(path, new), drawn)


def test_the_command_draws_and_reads_the_draw_back(command, saved_fit, new, tmp_path):
    out, answers = tmp_path / "samples.json", tmp_path / "answers.csv"
    model = ("--model", saved_fit, "--parents", new.forecasts.trained_ids_[0])
    code, _, err = command("next", *model, "--valid", "--budget", "60", "--out", out)
    assert (code, err) == (0, "")
    drawn = pd.read_csv(f"{out}.draw.csv")
    drawn.assign(answer=1)[["item_id", "answer"]].to_csv(answers, index=False)
    again = ("--drawn", f"{out}.draw.csv", "--answers", answers)
    code, text, _ = command("next", *model, *again)
    assert code == 0 and "average" in text
    code, _, err = command("next", *model, "--size", "400", "--name", "me/other-70b", *again)
    assert code == 1 and "drawn for another" in err
