"""Figures of forecasts: the numbers drawn, their labels and titles, never pixels."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from test_tables import compared

from lrmf.baselines.registry import CURVES, labels, shown_in
from lrmf.evaluation.bootstrap import by_stratum
from lrmf.evaluation.evaluate import add_strata
from lrmf.report import forecast_figures as figures
from lrmf.report import layout as plotting
from lrmf.report.style import predictor_style

matplotlib.use("agg")
pytestmark = pytest.mark.usefixtures("figure_style")
DRAWN = shown_in(CURVES)
WITHOUT_LINEAGE = labels(lambda entry: not entry.reads_lineage)
ZERO_SHOT = {
    "Forecaster": (0.76, 0.70, 0.80),
    "lineage average, multi-hop": (0.71, 0.63, 0.75),
    "MF": (0.0, 0.0, 0.0),
    "item mean": (0.0, 0.0, 0.0),
}


def curve_at(name, points, values, **columns):
    """A frame by label: predictor -> values at the points; one value only means the first."""
    parts = []
    for place, point in enumerate(points):
        here = {who: r[place] for who, r in values.items() if place < len(r)}
        shown = {who: (value, value - 0.05, value + 0.05) for who, value in here.items()}
        parts.append(compared(shown, **{name: point}, **columns))
    return pd.concat(parts, ignore_index=True)


def lines_of(axes):
    """Label of a line -> its points."""
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def dots_of(axes):
    """Row -> value of the single markers."""
    points = [line.get_xydata()[0] for line in axes.lines if line.get_linestyle() == "None"]
    return {int(y): x for x, y in points}


def test_zero_shot_comparison_draws_r_and_the_lead_by_falling_r():
    ceiling = pd.DataFrame({"benchmark": ["a", "b"], "ceiling": [0.9, 1.0]})
    figure = figures.zero_shot_comparison(compared(ZERO_SHOT), ceiling)
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[::-1][:2] == ["Forecaster", "lineage average, multi-hop"]
    drawn = {names[row]: value for row, value in dots_of(left).items()}
    assert drawn == {name: pytest.approx(value[0]) for name, value in ZERO_SHOT.items()}
    leads = {names[row]: value for row, value in dots_of(right).items()}
    assert leads == {
        name: pytest.approx(0.76 - value[0])
        for name, value in ZERO_SHOT.items()
        if name != "Forecaster"
    }
    assert 0.95 in [line.get_xdata()[0] for line in left.lines]
    assert figure.get_suptitle() == (
        "Forecaster ranks held-out models best (r = 0.76), ahead of lineage average, multi-hop "
        "(0.71)"
    )


def test_title_does_not_flatter_the_forecaster():
    values = {"Forecaster": (0.6, 0.5, 0.7), "NCF": (0.65, 0.6, 0.7)}
    title = figures.zero_shot_comparison(compared(values)).get_suptitle()
    assert re.search(r"NCF.* 0\.65.*Forecaster.* \(0\.60\)", title)
    close = {"Forecaster": (0.66, 0.5, 0.7), "NCF": (0.65, 0.5, 0.7)}
    assert "not surely ahead of NCF" in figures.zero_shot_comparison(compared(close)).get_suptitle()


def test_predicted_against_actual_draws_every_model_in_percent():
    rng = np.random.default_rng(0)
    forecasts = pd.DataFrame(
        {
            "predictor": "Forecaster",
            "seed": np.repeat([0, 1], 20),
            "model_id": np.tile(np.repeat([f"m{i}" for i in range(10)], 2), 2),
            "benchmark": np.tile(["a", "b"], 20),
            "actual": rng.uniform(0.2, 0.8, 40),
            "predicted": rng.uniform(0.2, 0.8, 40),
        }
    ).assign(lower=0.1, upper=0.7)
    results = pd.DataFrame(
        {"predictor": "Forecaster", "metric": "pearson", "seed": 0, "benchmark": ["a", "b", "all"]}
    ).assign(value=[0.3, 0.5, 0.4])
    figure = figures.predicted_against_actual(forecasts, results)
    first = forecasts[(forecasts["seed"] == 0) & (forecasts["benchmark"] == "b")]
    drawn = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, 100 * first[["actual", "predicted"]])
    inside = first["actual"].between(first["lower"], first["upper"]).mean()
    assert figure.axes[0].get_title("left") == f"b: r = 0.50, {inside:.0%} inside"
    assert "b is forecast best (r = 0.50) and a worst (0.30); 10 models" in figure.get_suptitle()


def test_few_shot_curve_draws_and_names_every_predictor():
    values = {
        "Forecaster": [0.7, 0.75, 0.8],
        "kNN": [0.0, 0.5, 0.72],
        "MF": [0.0, 0.4, 0.6],
        "lineage average, multi-hop": [0.65],
    }
    frame = curve_at("k", [0, 1, 10], values, unit="answers")
    figure = figures.few_shot_curve(frame)
    left = figure.axes[0]
    np.testing.assert_allclose(lines_of(left)["kNN"], [[0, 0], [1, 0.5], [10, 0.72]])
    assert set(texts_of(left)) == {"Forecaster", "kNN", "MF", "multi-hop average"}
    assert 0.65 in [line.get_ydata()[0] for line in left.lines]
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "1", "10"]
    assert re.search(r"r = 0\.70 .*kNN.* 10 answers", figure.get_suptitle())
    weaker = frame[frame["predictor"] != "kNN"]
    title = figures.few_shot_curve(weaker).get_suptitle()
    assert "kNN" not in title and "10 answers" in title


def test_curves_show_one_predictor_of_a_kind_and_whom_the_title_names():
    values = {"Forecaster": [0.7, 0.8], "2PL": [0.0, 0.75], "Rasch": [0.0, 0.6], "LRMF": [0.6, 0.7]}
    figure = figures.few_shot_curve(curve_at("k", [0, 10], values, unit="answers"))
    assert "2PL with 10 answers" in figure.get_suptitle()
    assert set(texts_of(figure.axes[0])) == {"Forecaster", "2PL"}


@pytest.mark.parametrize("baseline", sorted(set(WITHOUT_LINEAGE) - set(DRAWN)))
def test_curves_differ_in_hue_and_in_dashes(baseline):
    looks = [predictor_style(name) for name in DRAWN]
    for part in ("color", "marker", "linestyle"):
        assert len({look[part] for look in looks}) == len(looks)
    assert predictor_style(baseline)["color"] not in {look["color"] for look in looks}


def test_names_at_line_ends_do_not_overlap():
    values = {name: [0.5, 0.5 + place / 1000] for place, name in enumerate(DRAWN)}
    figure = figures.few_shot_curve(curve_at("k", [0, 5], values, unit="answers"))
    figure.canvas.draw()
    texts = figure.axes[0].texts
    boxes = [Text.get_window_extent(text) for text in texts]  # without the arrow
    boxes = sorted(boxes, key=lambda box: box.y0)
    assert len(boxes) == len(DRAWN)
    overlaps = [low.y1 - high.y0 for low, high in zip(boxes, boxes[1:], strict=False)]
    assert max(overlaps) < 3  # pixels at 150 dpi; boxes include room for descenders


def test_random_holdout_curve_has_one_tick_a_density():
    frame = curve_at(
        "density", [0.002, 0.2], {"Forecaster": [0.5, 0.9], "MF + features": [0.4, 0.95]}
    )
    figure = figures.random_holdout_curve(frame)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["0.2%", "20%"]
    np.testing.assert_allclose(lines_of(figure.axes[1])["MF + features"], [[0.002, 4], [0.2, 9.5]])
    assert "0.2% observed Forecaster reaches r = 0.50, the best without lineage 0.40" in (
        figure.get_suptitle()
    )


def test_lineage_ablation():
    strength = curve_at("strength", [10.0, 0.0, 1.0], {"LRMF": [0.8, 0.1, 0.7]})
    variants = curve_at("variant", ["all of it", "shuffled lineage"], {"LRMF": [0.8, -0.02]})
    figure = figures.lineage_ablation(strength, variants)
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [[0, 0.1], [1, 0.7], [10, 0.8]])
    names = [label.get_text() for label in right.get_yticklabels()]
    rows = dict(zip(right.get_yticks().tolist(), names, strict=True))
    drawn = {rows[row]: value for row, value in dots_of(right).items()}
    assert drawn == {"all of it": pytest.approx(0.8), "shuffled lineage": pytest.approx(-0.02)}
    assert " ".join(figure.get_suptitle().split()) == (
        "LRMF: r is 0.10 without lineage and at most 0.80 with it (strength 10); shuffled "
        "lineage gives -0.02"
    )


def test_error_by_relatives_has_a_row_for_every_level():
    values = {"Forecaster": [0.4, 0.5], "item mean": [0.8, 0.9], "MF": [0.7, 0.7]}
    strata = pd.concat(
        [
            curve_at("level", ["2 hops", "1 hop"], values, stratum="distance"),
            curve_at("level", ["merge", "finetune"], values, stratum="relation"),
        ]
    )
    figure = figures.error_by_relatives(strata)
    assert [axes.get_title("right") for axes in figure.axes] == [
        "nearest scored relative",
        "closest relation",
    ]
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert names == ["finetuned from (50)", "merged from (50)"]
    drawn = lines_of(figure.axes[1])
    np.testing.assert_allclose(sorted(drawn["Forecaster"][:, 0]), [4, 5])
    assert "MF" not in drawn
    assert (
        figure.get_suptitle() == "Forecaster errs by 5.0 points at 1 hop and 4.0 points at 2 hops"
    )


def test_lineage_gain_is_the_error_saved_on_the_same_models():
    rng = np.random.default_rng(0)
    models = pd.DataFrame({"model_id": [f"m{i}" for i in range(40)], "actual": 0.5})
    models = models.assign(family=models.index, relation="finetune", n_relatives=1, n_items=1)
    models["hops"] = np.where(models.index < 20, 1, 2)
    models = models.assign(benchmark="a", seed=0, lower=0.0, upper=1.0, expected=0.5)
    models = models.assign(log_loss=np.nan, brier=np.nan)
    noise = rng.uniform(0, 0.1, 40)
    saved = np.where(models["hops"] == 1, 0.06, 0.02)
    forecasts = pd.concat(
        [
            models.assign(predictor="Forecaster", predicted=0.5 + noise),
            models.assign(predictor="without lineage", predicted=0.5 + noise + saved),
        ]
    )
    strata = by_stratum(add_strata(forecasts), metrics=["mae"], n_boot=50)
    figure = figures.lineage_gain(strata)
    drawn = lines_of(figure.axes[0])["without lineage"]
    np.testing.assert_allclose(drawn, [[6, 0], [2, -1]])
    [intervals] = figure.axes[0].collections
    for value, segment in zip([6, 2], intervals.get_segments(), strict=True):
        np.testing.assert_allclose(segment[:, 0], value)  # every model saves the same
    assert (
        figure.get_suptitle()
        == "Lineage saves Forecaster 6.0 points at 1 hop and 2.0 points at 2 hops"
    )


def test_a_gain_that_may_be_none_is_called_so():
    bounds = {"1 hop": (-0.9, 0.1), "2 hops": (0.1, 0.7)}
    rows = [
        {"stratum": "distance", "level": level, "difference_lower": low, "difference_upper": high,
         "difference": (low + high) / 2, "predictor": "without lineage", "metric": "mae"}
        for level, (low, high) in bounds.items()
    ]  # fmt: skip
    figure = figures.lineage_gain(pd.DataFrame(rows).assign(n_models=50, n_clusters=9))
    title = " ".join(figure.get_suptitle().split())
    assert title == (
        "Lineage saves Forecaster 0.4 points at 1 hop (the interval includes 0) and -0.4 points at "
        "2 hops"
    )


def test_calibration_draws_groups_coverage_and_width():
    bins = pd.DataFrame(
        {"predictor": "Forecaster", "predicted": [0.2, 0.6], "actual": [0.25, 0.55]}
    )
    rows = [
        ("Forecaster", k, benchmark, metric, value)
        for k, (coverage, width) in {0: (0.9, 20), 5: (0.84, 12)}.items()
        for benchmark, shift in (("a", 0.01), ("b", -0.01), ("all", 0), ("average", 0.3))
        for metric, value in (("coverage", coverage + shift), ("width", width + shift))
    ]
    intervals = pd.DataFrame(rows, columns=["predictor", "k", "benchmark", "metric", "value"])
    figure = figures.calibration(bins, intervals.assign(unit="answers", n=9))
    groups, coverage, width = figure.axes
    np.testing.assert_allclose(groups.lines[1].get_xydata(), [[20, 25], [60, 55]])
    means = [line.get_xydata() for line in coverage.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, [[[0, 90], [5, 84]]])
    assert set(texts_of(width)) == {"a", "b", "mean"}
    assert figure.get_suptitle() == (
        "90% intervals cover 90% of the actual scores before any answer and 84% after 5 answers"
    )


def test_one_family_and_later_models():
    training = curve_at("training", ["one family", "all families"], {"LRMF": [0.5, 0.45]})
    figure = figures.one_family_or_all(training)
    assert dots_of(figure.axes[0]) == {1: pytest.approx(0.5), 0: pytest.approx(0.45)}
    title = " ".join(figure.get_suptitle().split())
    assert title == "LRMF: training on all families, not on one, changes r by -0.05 (50 models)"
    figure = figures.later_models(compared(ZERO_SHOT, cutoff="2024-11-09"))
    title = " ".join(figure.get_suptitle().split())
    assert title.startswith("Models from 2024-11-09 on (50): Forecaster is best (r = 0.76), ")


def test_as_at_release_draws_both_values_of_each_predictor():
    lower = {who: tuple(value - 0.1 for value in r) for who, r in ZERO_SHOT.items()}
    release = pd.concat(
        [compared(ZERO_SHOT, known="all relatives"), compared(lower, known="as at release")]
    )
    axes = figures.as_at_release(release).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert dots_of(axes)[names.index("Forecaster")] == pytest.approx(0.66)
    hollow = lines_of(axes)[figures.RELEASE_LABEL]
    assert dict(zip(names, hollow[:, 0], strict=True))["Forecaster"] == pytest.approx(0.76)


def test_inside_families_draws_the_mean_and_every_family():
    others = {who: tuple(value / 2 for value in r) for who, r in ZERO_SHOT.items()}
    within = pd.concat([compared(ZERO_SHOT, family="0"), compared(others, family="1")])
    within = pd.concat([within, compared(ZERO_SHOT, family="mean")])
    axes = figures.inside_families(within).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert any(np.allclose(bar, [0.76, 0.38]) for bar in bars if len(bar) == 2)
    assert len(names) == len(ZERO_SHOT)


def test_saved_figures_hide_names_and_say_what_they_show(tmp_path, capsys):
    frame = compared(ZERO_SHOT).assign(model_id="org/secret")
    for _ in range(2):
        plotting.draw(
            figures.zero_shot_comparison, frame, name="zero", label="Toy: 3 models", folder=tmp_path
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zero.csv", "zero.pdf", "zero.png"]
    assert "secret" not in (tmp_path / "zero.csv").read_text()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "zero.csv")["value"], frame["value"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("zero: Forecaster ranks held-out models best")
    assert printed[1] == "Toy: 3 models; n = 50 models of 9 families."


def test_saving_twice_gives_the_same_bytes(tmp_path):
    frame = curve_at("k", [0, 5], {"Forecaster": [0.5, 0.6], "MF": [0.1, 0.5]}, unit="answers")
    for folder in ("first", "second"):
        plotting.draw(
            figures.few_shot_curve, frame, name="few", label="Toy", folder=tmp_path / folder
        )
    for suffix in ("csv", "pdf", "png"):
        first, second = (tmp_path / f / f"few.{suffix}" for f in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_what_a_snapshot_lacks_is_skipped_with_one_line(tmp_path, capsys):
    plotting.draw(figures.later_models, pd.DataFrame(), name="later", label="Toy", folder=tmp_path)
    assert capsys.readouterr().out == "later: skipped, this snapshot has no such results.\n"
    assert not plt.get_fignums() and not list(tmp_path.iterdir())


def test_figures_carry_the_data_label_and_fit_a_column_or_the_page(tmp_path):
    frame = compared(ZERO_SHOT, cutoff="2024")
    options = {"name": "later", "label": "Toy: 3 models", "folder": tmp_path}
    plotting.draw(figures.later_models, frame, **options)
    figure = plt.gcf()
    assert figure.get_supxlabel() == "Toy: 3 models"
    assert figure.get_figwidth() == pytest.approx(figures.COLUMN)
