"""Figures are checked by their numbers and texts, never by their pixels."""

import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from matplotlib.path import Path

from lrmf import Lineage
from lrmf.analysis import relatedness
from lrmf.analysis.spectrum import spectral_energy
from lrmf.data.responses import benchmark_scores
from lrmf.report import lineage_figures as figures
from lrmf.report.family_tree import family_picture
from lrmf.report.style import COLUMN, PAGE, RELATIONS, note_data
from lrmf.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("figure_style")


@pytest.fixture(scope="module")
def simulated():
    snapshot = simulate(n_models=500, n_items=60, seed=1)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    return lineage, benchmark_scores(snapshot.responses, snapshot.items)


def title(figure):
    return figure.get_suptitle().replace("\n", " ")


def long(scores):
    return scores.reset_index(names="model_id").melt(
        "model_id", var_name="benchmark", value_name="score"
    )


def check_size(figure, width):
    """Drawn at final width, with nothing reaching over the edge."""
    note_data(figure, "Simulated: 500 models, 60 items")
    assert figure.get_figwidth() == pytest.approx(width)
    figure.canvas.draw()
    inside = figure.get_tightbbox()
    assert inside.x0 > -0.01 and inside.x1 < width + 0.01
    assert inside.y0 > -0.01 and inside.y1 < figure.get_figheight() + 0.01


def test_score_distributions():
    scores = pd.DataFrame({"wide": [0.0, 0.5, 1.0], "narrow": [0.5, 0.52, np.nan]})
    figure = figures.score_distributions(long(scores))
    assert title(figure) == "Scores spread most on wide (sd 41 points) and least on narrow (1)"
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["wide (3)", "narrow (2)"]
    check_size(figure, COLUMN)


def test_one_benchmark_with_one_score():
    scores = pd.DataFrame({"model_id": ["a"], "benchmark": ["only"], "score": [0.5]})
    assert title(figures.score_distributions(scores)) == "Scores spread most on only (sd 0 points)"


def test_missing_blocks():
    patterns = pd.DataFrame(
        {
            "pattern": [0, 1, 0, 1],
            "n_models": [30, 10, 30, 10],
            "benchmark": ["x", "x", "y", "y"],
            "evaluated": [True, True, True, False],
        }
    )
    figure = figures.missing_blocks(patterns)
    assert title(figure) == "75% of the models were evaluated on all 2 benchmarks"
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [10, 30, 30]
    check_size(figure, COLUMN)


def test_size_against_score():
    rng = np.random.default_rng(0)
    size = np.exp(rng.normal(2, 1, 400))
    sizes = pd.DataFrame({"params_b": size, "average": np.log(size) - 2})
    figure = figures.size_against_score(sizes)
    assert "explains 100% of the variance" in title(figure) and "n = 400" in title(figure)
    check_size(figure, COLUMN)


def test_lineage_structure(simulated):
    counts = relatedness.lineage_counts(simulated[0])
    figure = figures.lineage_structure(counts)
    sizes = counts[counts["quantity"] == "members of a family"]
    assert f"{sizes['count'].sum()} families" in title(figure)
    assert f"largest has {sizes['value'].max()}" in title(figure)
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[0] == 1
    assert line.get_ydata()[-1] == pytest.approx(sizes["count"].iloc[-1] / sizes["count"].sum())
    check_size(figure, PAGE)


def test_family_picture_tells_relations_apart_without_overlaps(simulated):
    lineage, scores = simulated
    nodes, edges = family_picture(lineage, relatedness.average_scores(scores), max_nodes=30)
    figure = figures.family_picture(nodes, edges)
    assert f"30 of its {nodes['n_family'].iloc[0]} members" in title(figure)
    axes = figure.axes[0]
    styles = {(patch.get_edgecolor()[:3], patch.get_linestyle()) for patch in axes.patches}
    assert len(axes.patches) == len(edges)
    assert len(styles) == edges["relation"].nunique()
    figure.set_dpi(300)  # as saved: hinting makes text wider on coarser screens
    check_size(figure, PAGE)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(nodes)
    links = [patch.get_transform().transform_path(patch.get_path()) for patch in axes.patches]
    lines = [Path(line) for link in links for line in link.to_polygons(closed_only=False)]
    assert len(lines) == len(edges)
    lines += [Path(axes.transData.transform(line.get_xydata())) for line in axes.lines]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(line.intersects_bbox(box, filled=False) for line in lines)


@pytest.mark.parametrize(
    ("n_letters", "expected"),
    [
        (40, "Llama-3.1-8B-Instruct-Zeus"),
        (20, "Llama-3.1-8B-…Zeus"),
        (13, "Llama-…Zeus"),
        (8, "Llama-…"),
        (4, "Lla…"),
    ],
)
def test_names_are_cut_between_words(n_letters, expected):
    assert figures._shorten("Llama-3.1-8B-Instruct-Zeus", n_letters) == expected


def test_family_picture_of_unscored_members():
    snapshot = tiny_snapshot()
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    nodes, edges = family_picture(lineage, np.full(lineage.n_models, np.nan))
    figure = figures.family_picture(nodes, edges)
    assert "all members: 3 generations, tied together by 1 merge" in title(figure)
    assert len(figure.axes) == 1  # no colour bar
    check_size(figure, PAGE)


def test_parents_and_children(simulated):
    pairs = relatedness.parent_child_pairs(*simulated)
    average = pairs[pairs["benchmark"] == "average"]
    r = np.corrcoef(average["parent_score"], average["child_score"])[0, 1]
    figure = figures.parent_child_scatter(pairs)
    assert f"r = {r:.2f}" in title(figure)
    [dots] = figure.axes[0].collections
    assert len(dots.get_offsets()) == len(average)
    check_size(figure, COLUMN)


def test_correlations_name_the_extremes_and_leave_out_small_groups():
    correlations = pd.DataFrame(
        [
            ("any", "x", 40, 0.9, 0.8, 0.95),
            ("any", "y", 12, 0.3, np.nan, np.nan),
            ("any", "average", 40, 0.99, 0.9, 1.0),
            ("finetune", "x", 30, 0.8, 0.7, 0.9),
            ("merge", "x", 10, -0.5, -0.9, 0.1),
        ],
        columns=["relation", "benchmark", "n", "r", "lower", "upper"],
    )
    figure = figures.parent_child_correlation(correlations)
    assert "0.30 (y) to 0.90 (x)" in title(figure)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["all", "finetune"]
    check_size(figure, COLUMN)


def test_spectral_energy(simulated):
    spectrum = spectral_energy(*simulated, seed=0, n_shuffles=5)
    figure = figures.spectral_energy(spectrum)
    overall = spectrum[(spectrum["benchmark"] == "all") & (spectrum["part"] == "all frequencies")]
    quarter = overall[overall["frequencies"] == 0.25].iloc[0]
    assert f"{quarter['energy']:.0%} of the energy" in title(figure)
    assert f"{quarter['shuffled']:.0%} on shuffled lineage" in title(figure)
    assert len(figure.axes[0].lines) == simulated[1].shape[1] + 3
    check_size(figure, PAGE)


@pytest.mark.parametrize(
    ("values", "finding"), [([8, 4, 2, 1.9], "never rises"), ([8, 4, 4.5, 4], "rises 1 time:")]
)
def test_convergence(values, finding):
    figure = figures.convergence(pd.DataFrame({"sweep": range(4), "objective": values}))
    assert finding in title(figure) and "after 3 sweeps" in title(figure)
    check_size(figure, COLUMN)


def factor_frame(families):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"family": families, "share_1": 0.5, "share_2": 0.25})
    center = frame["family"].map({"a": 10.0, "b": -10.0}).fillna(0)
    return frame.assign(factor_1=center, factor_2=rng.normal(0, 0.01, len(frame)))


def test_factors_by_family():
    figure = figures.factors_by_family(factor_frame(["a"] * 5 + ["b"] * 9 + [None] * 20))
    assert "2 largest families explains 100%" in title(figure)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["other models (20)", "b (9)", "a (5)"]
    lines = figure.axes[0].lines
    assert len({line.get_marker() for line in lines[1:]}) == 2
    assert len({line.get_color() for line in lines}) == 3
    check_size(figure, COLUMN)


def test_factors_without_families():
    figure = figures.factors_by_family(factor_frame([None] * 5))
    assert title(figure) == "Two directions hold 75% of the variance"


def test_factor_distances():
    distances = pd.DataFrame(
        {
            "kind": ["finetune"] * 5 + ["merge"] * 2 + ["random"] * 7,
            "distance": [1.0] * 7 + [3.0] * 7,
            "unit": "logits",
        }
    )
    figure = figures.factor_distances(distances)
    assert "3.00 between any two models, 1.00 between child and parent" in title(figure)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["finetune and parent (5)", "any two (7)"]
    check_size(figure, COLUMN)
    alone = figures.factor_distances(distances[distances["kind"] == "random"])
    assert title(alone) == "Median distance 3.00 between any two models"


def test_every_relation_has_a_name_for_its_pairs():
    assert set(RELATIONS) < set(figures._PAIRS)


def test_example_forecast():
    rows = [("x", "actual", "m", 0.5), ("y", "actual", "m", 0.2), ("x", "parent", "p", 0.3)]
    rows += [("y", "parent", "p", 0.3), ("x", "benchmark mean", "", 0.4)]
    rows += [("x", "forecast", "m", 0.45), ("y", "forecast", "m", 0.3)]
    forecast = pd.DataFrame(rows, columns=["benchmark", "kind", "source", "score"])
    is_forecast = forecast["kind"] == "forecast"
    forecast.loc[is_forecast, "lower"] = [0.4, 0.25]
    forecast.loc[is_forecast, "upper"] = [0.6, 0.35]
    figure = figures.example_forecast(forecast)
    assert "1 of 2 scores" in title(figure)
    assert "mean error 7.5 points (parents' mean: 15.0)" in title(figure)
    check_size(figure, COLUMN)
