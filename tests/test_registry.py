"""The registry of predictors: one entry is enough to be fitted, tabulated and drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from test_figures import curve_at, lines_of

from lrmf import Lineage
from lrmf.baselines import registry
from lrmf.baselines.averages import ItemMean
from lrmf.baselines.registry import Predictor, Tuned, all_baselines, find, register, shown_in
from lrmf.data.response_kinds import ANSWERS, PROPORTIONS
from lrmf.evaluation.bootstrap import bootstrap
from lrmf.evaluation.evaluate import evaluate
from lrmf.evaluation.splits import zero_shot
from lrmf.report import forecast_figures as figures
from lrmf.report import tables
from lrmf.report.style import GREEN, predictor_style


class Guess(ItemMean):
    """A baseline that nobody has seen before."""


@pytest.fixture
def newcomer(monkeypatch):
    monkeypatch.setattr(registry, "PREDICTORS", dict(registry.PREDICTORS))
    entry = Predictor(
        "guess", "a guess", "other", "green", "H", ":", "guess",
        build=lambda study: Guess(), shown_in=frozenset({registry.CURVES, registry.LEADS}),
    )  # fmt: skip
    yield register(entry)
    plt.close("all")


def test_one_entry_adds_a_baseline_to_tables_and_figures(newcomer):
    data = tiny_snapshot()
    lineage = Lineage.from_edges(data.lineage, data.models["model_id"])
    known = all_baselines(ANSWERS, tuned=False)
    predictors = {"Forecaster": known["lineage average, 1 hop"], "a guess": known["a guess"]}
    assert type(predictors["a guess"]) is Guess
    _, forecasts = evaluate(
        predictors,
        zero_shot(data.responses, lineage, n_folds=2),
        lineage,
        items=data.items,
        models=data.models,
        truth=data.responses,
    )
    table = tables.difference_table(bootstrap(forecasts, n_boot=20))
    assert list(table.index) == ["a guess"]
    curve = curve_at("k", [0, 5], {"Forecaster": [0.7, 0.8], "a guess": [0.2, 0.4]}, unit="answers")
    axes = figures.few_shot_curve(curve).axes[0]
    np.testing.assert_allclose(lines_of(axes)["a guess"], [[0, 0.2], [5, 0.4]])
    assert "guess" in [text.get_text() for text in axes.texts]
    assert predictor_style("a guess") == {"color": GREEN, "marker": "H", "linestyle": ":"}
    assert tables.order_predictors(["?", "a guess", "Forecaster"]) == ["Forecaster", "a guess", "?"]


def test_an_id_or_a_label_is_taken_once(newcomer):
    for again in (Predictor("guess", "other", "x"), Predictor("other", "a guess", "x")):
        with pytest.raises(ValueError, match="already a predictor"):
            register(again)


def test_baselines_are_told_from_our_own_predictors_by_their_entry():
    names = ["Forecaster", "LRMF", "LRMF, untuned", "MF", "nobody knows it"]
    assert registry.baselines_among(names) == ["MF", "nobody knows it"]
    assert find("nobody knows it").color == "grey"
    assert set(shown_in(registry.LEADS)) < set(registry.labels())


@pytest.mark.parametrize("kind", [ANSWERS, PROPORTIONS], ids=lambda kind: kind.name)
def test_every_baseline_with_a_grid_is_tuned(kind):
    tuned, plain = (all_baselines(kind, rank=3, tuned=t) for t in (True, False))
    assert list(tuned) == list(plain)
    for label, estimator in tuned.items():
        assert isinstance(estimator, Tuned) == (find(label).grid is not None)
        assert not isinstance(plain[label], Tuned)
    ranks = {label: one.get_params().get("rank") for label, one in plain.items()}
    assert pd.Series(ranks).dropna().eq(3).all()
