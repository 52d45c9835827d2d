"""How figures are drawn: files, bytes, what is printed, what real data may hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lrmf.baselines.registry import PREDICTORS
from lrmf.report import layout as plotting
from lrmf.report import style

SIMULATED = "Simulated: 3 models, 2 items"
REAL = "openllm: 3 models, 2 items"


@pytest.fixture(autouse=True)
def look(figure_style):
    plt.rcParams["figure.dpi"] = 50


@pytest.fixture
def frame():
    return pd.DataFrame({"model_id": ["a", "b", "c"], "score": [0.1, 0.2, 0.3]})


def scatter(frame):
    figure, axes = plt.subplots(figsize=(style.COLUMN, 2), layout="constrained")
    axes.plot(frame["score"])
    figure.suptitle("Scores\nrise")
    return figure


def test_a_saved_figure_comes_with_its_numbers_and_its_finding(tmp_path, frame, capsys):
    plotting.draw(scatter, frame, name="rise", label=SIMULATED, folder=tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "rise.csv",
        "rise.pdf",
        "rise.png",
    ]
    assert list(pd.read_csv(tmp_path / "new" / "rise.csv")) == ["score"]
    assert capsys.readouterr().out == f"rise: Scores rise.\n{SIMULATED}; n = 3 models.\n"


def test_scores_of_single_real_models_stay_out_of_the_repository(tmp_path, frame):
    options = {"name": "rise", "folder": tmp_path, "single_models": True}
    plotting.draw(scatter, frame, label=REAL, **options)
    assert not (tmp_path / "rise.csv").exists()
    plotting.draw(scatter, frame, label=SIMULATED, **options)
    assert (tmp_path / "rise.csv").exists()


def test_the_same_figure_has_the_same_bytes_whatever_the_screen(tmp_path, frame):
    for folder, dpi in (("one", 60), ("two", 200)):
        plt.rcParams["figure.dpi"] = dpi
        plotting.draw(scatter, frame, name="rise", label=SIMULATED, folder=tmp_path / folder)
    for name in ("rise.csv", "rise.pdf", "rise.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_empty_frame_is_one_line_and_no_file_also_of_an_earlier_run(tmp_path, frame, capsys):
    plotting.draw(scatter, frame, name="rise", label=SIMULATED, folder=tmp_path)
    capsys.readouterr()
    plotting.draw(scatter, frame[:0], name="rise", label=SIMULATED, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == "rise: skipped, this snapshot has no such results.\n"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"n_models": [30.0, np.nan], "n_clusters": [4.0, np.nan]},
            "; n = 30 models of 4 families",
        ),
        ({"n_models": [30, 20], "n_clusters": [30, 20]}, "; n = 30 models"),
        ({"n_models": [30, 20], "n_clusters": [4, 3], "level": ["x", "y"]}, ""),
        ({"r": [0.1, 0.2]}, ""),
    ],
)
def test_sample_sizes_are_those_of_the_largest_group(tmp_path, capsys, columns, expected):
    frame = pd.DataFrame(columns).assign(score=0.5)
    plotting.draw(scatter, frame, name="size", label=REAL, folder=tmp_path)
    assert capsys.readouterr().out == f"size: Scores rise.\n{REAL}{expected}.\n"


def test_labels_say_whether_the_data_are_made_up():
    hub = type("Snapshot", (), {"source": "hub", "name": "openllm", "n_models": 1234, "n_items": 6})
    assert style.data_label(hub) == "openllm: 1,234 models, 6 items"
    hub.source = "simulated"
    assert style.data_label(hub).startswith(style.SIMULATED + ":")


@pytest.mark.parametrize("width", [style.COLUMN, style.PAGE])
def test_headlines_fit_the_figure_and_leave_no_word_alone(width):
    text = "Before any answer, TruthfulQA is forecast best (r = 0.85) and Winogrande worst (0.72)"
    for n_more in range(6):
        figure = plt.figure(figsize=(width, 2))
        plotting.headline(figure, text + "; 396 models" * n_more)
        lines = figure.get_suptitle().split("\n")
        lengths = [plotting.text_width(line, 8, weight="bold") for line in lines]
        assert max(lengths) < 72 * width
        assert min(lengths) > 0.5 * max(lengths)


def test_benchmarks_have_names_for_readers():
    assert style.benchmark_name("mmlu_pro") == "MMLU-Pro"
    assert style.benchmark_name("another") == "another"


def test_predictors_can_be_told_apart():
    looks = [(entry.color, entry.marker) for entry in PREDICTORS.values()]
    assert len(set(looks)) == len(looks)
    assert style.predictor_style("another one")["color"] == style.GREY
