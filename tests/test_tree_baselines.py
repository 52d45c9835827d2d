import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from predictor_contract import PredictorContract

from lrmf.baselines.boosting import BoostedTrees, relatives_scores
from lrmf.baselines.components import Components
from lrmf.data.lineage import Lineage
from lrmf.data.responses import MISSING, benchmark_scores, without
from lrmf.data.statistics import item_means

both_kinds = pytest.mark.parametrize("binary", [True, False], ids=["answers", "proportions"])


def tiny(binary=True):
    snapshot = tiny_snapshot(binary=binary)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


class TestBoostingOnFeatures(PredictorContract):
    estimator = BoostedTrees(neighbours=False, max_iter=10, min_samples_leaf=2)
    row_tolerance = 5e-3  # shifts of all rows stop together, once the largest step is small
    permutation_tolerance = None  # trees sample features, folds sample models


class TestBoostingOnRelatives(TestBoostingOnFeatures):
    estimator = BoostedTrees(max_iter=10, min_samples_leaf=2)


def test_relatives_scores_by_hand():
    _, lineage = tiny()
    scores = np.arange(24.0).reshape(12, 2)
    merge, chat = lineage.index_of("user/alpha-merge"), lineage.index_of("lab/alpha-chat")
    code, gamma = lineage.index_of("lab/alpha-code"), lineage.index_of("solo/gamma")
    scores[code, 1] = np.nan
    inputs = relatives_scores(scores, lineage)
    parents, nearest, counts, hops = np.split(inputs, [2, 4, 6], axis=1)
    assert parents[merge] == pytest.approx([scores[[chat, code], 0].mean(), scores[chat, 1]])
    assert nearest[merge] == pytest.approx(parents[merge])  # both at one hop
    assert counts[merge] == pytest.approx(np.log1p([2, 2]))
    assert hops[merge] == 1
    assert np.isnan(inputs[gamma, [0, 1, 2, 3, 6]]).all()
    lora = lineage.index_of("user/alpha-lora")
    # Its only neighbour lacks benchmark 1: the next ring is its parent's other child.
    assert nearest[lora] == pytest.approx([scores[code, 0], scores[merge, 1]])
    beta, math = lineage.index_of("lab/beta-chat"), lineage.index_of("lab/beta-math")
    scores[lineage.index_of("user/beta-merge")] = np.nan
    inputs = relatives_scores(scores, lineage)
    dpo = lineage.index_of("user/beta-merge-dpo")
    assert inputs[dpo, 2:4] == pytest.approx(scores[[beta, math]].mean(axis=0))
    assert inputs[dpo, 6] == 2


def test_no_model_sees_its_own_score():
    _, lineage = tiny()
    scores = np.random.default_rng(0).random((12, 3))
    before = relatives_scores(scores, lineage)
    for row in range(12):
        changed = scores.copy()
        changed[row] += 100
        np.testing.assert_array_equal(relatives_scores(changed, lineage)[row], before[row])


def test_item_probabilities_average_to_the_forecast_score(simulated_hub):
    snapshot, lineage = simulated_hub
    cold = np.arange(0, 150, 5)
    for neighbours in (True, False):
        model = BoostedTrees(neighbours=neighbours, max_iter=30)
        model.fit(
            without(snapshot.responses, cold), lineage, items=snapshot.items, models=snapshot.models
        )
        wanted = np.sin(model.forecast(cold) / 2) ** 2
        means = model.predict_proba(cold) @ model.member_ / model.member_.sum(axis=0)
        np.testing.assert_allclose(means, wanted, atol=2e-3)


def test_the_order_in_which_answers_are_added_changes_nothing(simulated_hub):
    """Processors add in different orders; trees split between values that should be equal."""
    snapshot, lineage = simulated_hub
    cold = np.arange(0, 150, 5)
    order = {name: i for i, name in enumerate(snapshot.items["benchmark"].unique())}
    shuffled = snapshot.items.sample(frac=1, random_state=0)
    shuffled = shuffled.sort_values("benchmark", kind="stable", key=lambda names: names.map(order))
    forecasts = []
    for items in (snapshot.items, shuffled):
        model = BoostedTrees(max_iter=30)
        responses = without(snapshot.responses[:, items.index], cold)
        model.fit(responses, lineage, items=items, models=snapshot.models)
        forecasts.append(model.forecast(cold))
    np.testing.assert_allclose(*forecasts, atol=1e-6)


def test_features_rank_cold_models_and_relatives_rank_them_better(simulated_hub):
    snapshot, lineage = simulated_hub
    families = lineage.families[:150]
    related = np.flatnonzero(np.bincount(families)[families] > 2)
    truth = benchmark_scores(snapshot.responses, snapshot.items).mean(axis=1)
    r = []
    for neighbours in (False, True):
        forecast = np.full(len(truth), np.nan)
        for cold in (related[part::4] for part in range(4)):
            train = without(snapshot.responses, cold)
            model = BoostedTrees(neighbours=neighbours, use_names=False)
            model.fit(train, lineage, items=snapshot.items, models=snapshot.models)
            forecast[cold] = model.predict_proba(cold).mean(axis=1)
        r.append(np.corrcoef(forecast[related], truth[related])[0, 1])
    assert 0.3 < r[0] < r[1]


@both_kinds
def test_revealed_responses_move_a_forecast_towards_them(simulated_hub, binary):
    snapshot, lineage = simulated_hub
    items, responses = snapshot.items, snapshot.responses
    if not binary:
        responses = benchmark_scores(responses, items).to_numpy(dtype=np.float32)
        items = None
    model = BoostedTrees(max_iter=50).fit(without(responses, [7]), lineage, items=items)
    before = model.predict_proba([7])
    revealed = without(responses[[7]], [0])
    shown = np.arange(responses.shape[1]) % 2 == 0
    means = []
    for value in (0, 1):
        revealed[0, shown] = value
        means.append(model.predict_proba([7], revealed=revealed)[0, ~shown].mean())
    assert means[0] < before[0, ~shown].mean() - 0.02
    assert means[1] > before[0, ~shown].mean() + 0.02


def test_a_benchmark_nobody_was_evaluated_on_gets_the_overall_mean():
    snapshot, lineage = tiny()
    train = snapshot.responses.copy()
    is_math = (snapshot.items["benchmark"] == "math").to_numpy()
    train[:, is_math] = MISSING
    model = BoostedTrees(neighbours=False, min_samples_leaf=2)
    model.fit(train, lineage, items=snapshot.items, models=snapshot.models)
    means = item_means(train, snapshot.items)
    np.testing.assert_allclose(model.predict_proba([0])[0, is_math], means[is_math], atol=1e-3)


def low_rank_scores(seed=0, n_models=120, n_benchmarks=40):
    """Scores of rank two, and the same with a third missing in blocks."""
    rng = np.random.default_rng(seed)
    abilities, loadings = rng.normal(size=(n_models, 2)), rng.normal(size=(n_benchmarks, 2))
    scores = 1 / (1 + np.exp(-0.5 * abilities @ loadings.T - rng.normal(size=n_benchmarks)))
    gaps = scores.copy()
    gaps[:40, :20] = gaps[80:, 20:] = np.nan
    return scores, gaps


def test_components_fill_gaps_and_know_nothing_of_models_without_scores():
    scores, gaps = low_rank_scores()
    gaps[7] = np.nan
    components = Components(4).fit(gaps)
    assert np.isnan(components.scores_[7]).all()
    hidden = np.isnan(gaps) & (np.arange(len(gaps)) != 7)[:, None]
    error = components.restore(components.scores_) - scores
    assert np.abs(error[hidden]).mean() < 0.5 * scores.std(axis=0).mean()


def test_many_benchmarks_are_forecast_and_updated():
    scores, gaps = low_rank_scores()
    parents = [f"m/{row - row % 4}" for row in range(120)]  # families of four with similar scores
    scores, gaps = np.repeat(scores[::4], 4, axis=0), np.repeat(gaps[::4], 4, axis=0)
    models = [f"m/{row}" for row in range(120)]
    edges = [(p, m, "finetune") for p, m in zip(parents, models, strict=True) if p != m]
    edges = pd.DataFrame(edges, columns=["parent", "child", "relation"])
    lineage = Lineage.from_edges(edges, models)
    cold = np.arange(3, 120, 12)
    train = without(gaps.astype(np.float32), cold)
    model = BoostedTrees(max_iter=30, n_components=5).fit(train, lineage)
    forecast, truth = model.predict_proba(cold), scores[cold]
    r = [np.corrcoef(*pair)[0, 1] for pair in zip(forecast.T, truth.T, strict=True)]
    assert np.mean(r) > 0.6
    revealed = without(scores[cold].astype(np.float32), range(len(cold)))
    revealed[:, ::4] = scores[cold][:, ::4]
    hidden = np.arange(40) % 4 != 0
    updated = model.predict_proba(cold, revealed=revealed)
    before, after = (np.abs(one - truth)[:, hidden].mean() for one in (forecast, updated))
    assert after < before
