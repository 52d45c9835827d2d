from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from builders import tiny_snapshot
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.metrics import log_loss, roc_auc_score

from lrmf.baselines.averages import ItemMean, LineageMean
from lrmf.baselines.factorization import MatrixFactorization
from lrmf.baselines.knn import KNN
from lrmf.data.lineage import Lineage
from lrmf.data.responses import MISSING, benchmark_scores, observed
from lrmf.data.snapshot import load_snapshot
from lrmf.data.statistics import item_means
from lrmf.evaluation import evaluate as evaluation
from lrmf.evaluation import metrics
from lrmf.evaluation import splits as splits_module
from lrmf.evaluation.bootstrap import bootstrap
from lrmf.simulation.simulate import simulate

QUICK = {
    "item mean": ItemMean(),
    "lineage": LineageMean(hops=None, shrinkage=0.3),
    "knn": KNN(n_neighbors=5),
}
PROTOCOLS = {
    "zero_shot": lambda r, lineage, models: splits_module.zero_shot(r, lineage, n_folds=3),
    "few_shot": lambda r, lineage, models: splits_module.few_shot(
        r, lineage, n_folds=3, ks=(0, 1, 3)
    ),
    "homogeneous": lambda r, lineage, models: splits_module.homogeneous(r, lineage, n_folds=2),
    "random": lambda r, lineage, models: splits_module.random_holdout(r, densities=(0.2, 0.5)),
    "date": lambda r, lineage, models: splits_module.date_split(r, models, lineage=lineage),
    "as_at_release": lambda r, lineage, models: splits_module.as_at_release(
        r, lineage, models, n_periods=2
    ),
    "as_at_release, no dates": lambda r, lineage, models: splits_module.as_at_release(
        r, lineage, models[["model_id"]], n_folds=3
    ),
}
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def without(responses, rows):
    train = responses.copy()
    train[rows] = MISSING if responses.dtype == np.uint8 else np.nan
    return train


def in_proportions(hub):
    """The models of a hub with one column of proportions a benchmark."""
    responses, lineage, items, models = hub
    scores = benchmark_scores(responses, items)
    items = pd.DataFrame({"item_id": scores.columns, "benchmark": scores.columns, "n_trials": 50})
    return scores.to_numpy(dtype=np.float32), lineage, items, models


def compared(forecasts, a, b, *, metric="pearson", **options):
    """Metric of b, and a minus b, with intervals."""
    frame = bootstrap(forecasts, reference=a, metrics=[metric], **options)
    return frame[frame["predictor"] == b].iloc[0]


@pytest.fixture(scope="module")
def hub():
    snapshot = simulate(n_models=300, n_items=200, seed=4)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    return snapshot.responses, lineage, snapshot.items, snapshot.models


def splits_of(protocol, hub):
    responses, lineage, _, models = hub
    return list(PROTOCOLS[protocol](responses, lineage, models))


def run(hub, splits, predictors=QUICK, **options):
    responses, lineage, items, models = hub
    return evaluation.evaluate(
        predictors, splits, lineage, items=items, models=models, truth=responses, **options
    )


@pytest.fixture(scope="module")
def tiny_forecasts():
    """Lineage, scores of proportions, and what the item mean forecasts zero-shot."""
    snapshot = tiny_snapshot(binary=False)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    _, forecasts = evaluation.evaluate(
        {"item mean": ItemMean()},
        splits_module.zero_shot(snapshot.responses, lineage, n_folds=2),
        lineage,
        items=snapshot.items,
        truth=snapshot.responses,
    )
    scores = benchmark_scores(snapshot.responses, snapshot.items)
    return lineage, scores.set_axis(snapshot.models["model_id"]), forecasts


@pytest.fixture(scope="module")
def zero_shot(hub):
    return run(hub, splits_module.zero_shot(hub[0], hub[1], n_folds=3, seeds=(0, 1)))


class Oracle(BaseEstimator):
    """Forecasts a given matrix; reports bounds around it, as LRMF does."""

    def __init__(self, forecast, half_width=None):
        self.forecast = forecast
        self.half_width = half_width

    def fit(self, responses, lineage, *, items=None, models=None):
        self.items_ = items
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        return self.forecast[rows].astype(np.float32)

    def predict(self, rows=None, *, revealed=None, target=None):
        parts = []
        for benchmark, columns in self.items_.groupby("benchmark").indices.items():
            part = pd.DataFrame({"row": rows, "benchmark": benchmark})
            cells = np.where(target[:, columns], self.forecast[np.ix_(rows, columns)], np.nan)
            with np.errstate(invalid="ignore"):
                score = np.nansum(cells, axis=1) / target[:, columns].sum(axis=1)
            parts.append(part.assign(lower=score - self.half_width, upper=score + self.half_width))
        items = self.predict_proba(rows)
        return SimpleNamespace(items=items, scores=pd.concat(parts))


class Witness(BaseEstimator):
    """Keeps what it was shown."""

    seen = []

    def fit(self, responses, lineage, *, items=None, models=None):
        self.train_ = np.array(responses)
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        Witness.seen.append((self.train_, rows, revealed))
        return np.full((len(rows), self.train_.shape[1]), 0.5, dtype=np.float32)


def point(results, **where):
    for column, value in where.items():
        results = results[results[column] == value]
    assert len(results) == 1
    return results["value"].item()


@every_protocol
@pytest.mark.parametrize("binary", [True, False], ids=["answers", "proportions"])
def test_targets_are_observed_hidden_from_training_and_not_revealed(protocol, binary, hub):
    data = hub if binary else in_proportions(hub)
    splits = splits_of(protocol, data)
    assert splits
    for split in splits:
        truth = data[0][split.rows]
        assert split.target.any()
        assert observed(truth)[split.target].all()
        assert not observed(split.train[split.rows])[split.target].any()
        kept = observed(split.train)
        np.testing.assert_array_equal(split.train[kept], data[0][kept])
        if split.revealed is not None:
            shown = observed(split.revealed)
            assert not (shown & split.target).any()
            np.testing.assert_array_equal(split.revealed[shown], truth[shown])
            assert (shown.sum(axis=1) == split.label["k"]).all()
            np.testing.assert_array_equal(shown | split.target, observed(truth))
            assert split.revealed.dtype == data[0].dtype


@every_protocol
def test_the_truth_of_target_cells_changes_no_forecast(protocol, hub):
    responses, lineage, items, models = hub
    for split in splits_of(protocol, hub)[:3]:
        for predictor in QUICK.values():
            fitted = predictor.fit(split.train, lineage, items=items, models=models)
            before = fitted.predict_proba(split.rows, revealed=split.revealed)
            changed = responses.copy()
            rows, columns = np.nonzero(split.target)
            changed[split.rows[rows], columns] = 1 - changed[split.rows[rows], columns]
            again = [s for s in splits_of(protocol, (changed, lineage, items, models))]
            twin = next(s for s in again if s.label == split.label)
            fitted = predictor.fit(twin.train, lineage, items=items, models=models)
            after = fitted.predict_proba(twin.rows, revealed=twin.revealed)
            np.testing.assert_array_equal(before, after)


def test_evaluate_shows_predictors_nothing_but_the_split(hub):
    Witness.seen = []
    splits = splits_of("few_shot", hub)
    run(hub, splits, {"witness": Witness()})
    assert len(Witness.seen) == len(splits)
    for split, (train, rows, revealed) in zip(splits, Witness.seen, strict=True):
        np.testing.assert_array_equal(train, split.train)
        assert not observed(train[rows]).any()
        assert revealed is split.revealed
    assert len({id(train) for train, _, _ in Witness.seen}) == 3  # one fit a fold


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_disjoint_cover_all_related_models_and_strand_none(hub, seed):
    responses, lineage, *_ = hub
    splits = list(splits_module.zero_shot(responses, lineage, n_folds=2, seeds=(seed,)))
    rows = np.concatenate([split.rows for split in splits])
    assert len(np.unique(rows)) == len(rows)
    scored = np.zeros(lineage.n_nodes, dtype=bool)
    scored[: lineage.n_models] = observed(responses).any(axis=1)
    related = []
    for row in np.flatnonzero(scored):
        others = scored.copy()
        others[row] = False
        related.append(0 < lineage.hops_to(others)[row] <= 2)
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(scored)[related])
    for split in splits:
        trained = np.zeros(lineage.n_nodes, dtype=bool)
        trained[: lineage.n_models] = observed(split.train).any(axis=1)
        assert (np.abs(lineage.hops_to(trained)[split.rows] - 1.5) == 0.5).all()


def test_more_revealed_answers_include_the_fewer_and_models_stay_the_same(hub):
    responses, lineage, *_ = hub
    splits = list(splits_module.few_shot(responses, lineage, n_folds=2, ks=(1, 5)))
    few, many = splits[0], splits[1]
    assert few.train is many.train
    same = np.isin(few.rows, many.rows)
    assert (observed(responses[few.rows[~same]]).sum(axis=1) <= 5).all()
    np.testing.assert_array_equal(few.rows[same], many.rows)
    assert not (observed(few.revealed[same]) & ~observed(many.revealed)).any()
    zero = next(iter(splits_module.zero_shot(responses, lineage, n_folds=2)))
    np.testing.assert_array_equal(zero.rows, few.rows)


def test_models_with_no_answer_left_to_forecast_are_dropped():
    snapshot = tiny_snapshot(binary=False)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    counts = observed(snapshot.responses).sum(axis=1)
    splits = list(splits_module.few_shot(snapshot.responses, lineage, ks=(4,), n_folds=2))
    rows = np.concatenate([split.rows for split in splits])
    assert (counts[rows] > 4).all()
    assert (counts <= 4).any()


def test_random_holdout_keeps_the_density_and_one_target_for_all(hub):
    responses = hub[0]
    low, high = splits_module.random_holdout(responses, densities=(0.1, 0.6), max_rows=40)
    n_observed = observed(responses).sum()
    for split in (low, high):
        share = observed(split.train).sum() / n_observed
        assert share == pytest.approx(split.label["density"], abs=0.01)
    assert len(low.rows) == 40
    np.testing.assert_array_equal(low.target, high.target)
    assert not (observed(low.train) & ~observed(high.train)).any()


def test_homogeneous_trains_on_one_family_and_forecasts_the_same_models(hub):
    responses, lineage, *_ = hub
    splits = splits_of("homogeneous", hub)
    one = [split for split in splits if split.label["training"] == "one family"]
    everyone = [split for split in splits if split.label["training"] == "all families"]
    for narrow, wide in zip(one, everyone, strict=True):
        np.testing.assert_array_equal(narrow.rows, wide.rows)
        family = lineage.families[narrow.rows[0]]
        members = lineage.families[: lineage.n_models] == family
        assert members[narrow.rows].all()
        assert not observed(narrow.train[~members]).any()
        np.testing.assert_array_equal(narrow.train[members], wide.train[members])
        assert observed(wide.train[~members]).any()


def test_date_split_trains_before_the_cutoff():
    snapshot = tiny_snapshot()
    models = snapshot.models.copy()
    models.loc[2, "evaluated_at"] = None
    (split,) = splits_module.date_split(snapshot.responses, models, cutoff="2024-09-01")
    dates = models["evaluated_at"]
    assert (dates[split.rows] >= "2024-09-01").all()
    trained = observed(split.train).any(axis=1)
    assert (dates[trained] < "2024-09-01").all()
    assert not trained[2]
    assert 2 not in split.rows
    lineage = Lineage.from_edges(snapshot.lineage, models["model_id"])
    (related,) = splits_module.date_split(
        snapshot.responses, models, cutoff="2024-09-01", lineage=lineage
    )
    assert set(models["model_id"][related.rows]) == {"user/beta-merge", "user/beta-merge-dpo"}
    # What later models are parents of was not there yet.
    assert not related.lineage.edges["parent"].isin(models["model_id"][related.rows]).any()


def test_models_of_a_second_evaluator_are_forecast_from_those_of_the_first():
    snapshot = tiny_snapshot()
    models = snapshot.models.assign(evaluated_by="leaderboard")
    models.loc[[1, 3], "evaluated_by"] = "somebody"
    (split,) = splits_module.evaluated_by_others(snapshot.responses, models)
    assert split.rows.tolist() == [1, 3]
    assert not observed(split.train[[1, 3]]).any()
    others = np.setdiff1d(np.arange(len(models)), [1, 3])
    np.testing.assert_array_equal(split.train[others], snapshot.responses[others])
    np.testing.assert_array_equal(split.target, observed(snapshot.responses[[1, 3]]))
    for alone in (snapshot.models, models.assign(evaluated_by="leaderboard")):
        with pytest.raises(ValueError, match="second evaluator"):
            splits_module.evaluated_by_others(snapshot.responses, alone)


def test_date_split_has_a_split_for_each_cutoff():
    snapshot = tiny_snapshot()
    quantiles = (0.3, 0.6)
    dated = pd.to_datetime(snapshot.models["evaluated_at"], utc=True)
    splits = splits_module.date_split(snapshot.responses, snapshot.models, quantiles=quantiles)
    assert [split.label["cutoff"] for split in splits] == [
        str(date.date()) for date in dated.quantile(list(quantiles))
    ]
    first, second = splits
    assert set(second.rows) < set(first.rows)


def descendants_of(lineage, rows):
    """Positions of all models below any of the rows."""
    below = {name for row in rows for name in lineage.descendants(lineage.node_ids[row])}
    return np.flatnonzero(np.isin(lineage.node_ids[: lineage.n_models], sorted(below)))


RELEASED = ["as_at_release", "as_at_release, no dates"]


@pytest.mark.parametrize("protocol", RELEASED)
def test_as_at_release_trains_on_no_descendant_and_connects_nothing_later(protocol, hub):
    lineage = hub[1]
    splits = splits_of(protocol, hub)
    with_descendants = 0
    for split in splits:
        trained = observed(split.train).any(axis=1)
        below = descendants_of(lineage, split.rows)
        with_descendants += len(below)
        assert trained.any() and not trained[below].any()
        known, ids = split.lineage, lineage.node_ids
        assert list(known.node_ids[: known.n_models]) == list(ids[: lineage.n_models])
        for row in split.rows:
            assert known.parents(ids[row]) or not lineage.parents(ids[row])
            assert not known.children(ids[row])
        # What is neither forecast nor trained on has edges only as an ancestor of what is.
        for node in np.setdiff1d(np.arange(known.n_nodes), [*split.rows, *np.flatnonzero(trained)]):
            name = known.node_ids[node]
            if known.parents(name) or known.children(name):
                below = set(known.descendants(name))
                assert below & set(ids[: lineage.n_models][trained]) or below & set(ids[split.rows])
    assert with_descendants


def test_as_at_release_trains_on_nothing_dated_in_the_period_or_later(hub):
    responses, lineage, _, models = hub
    dates = pd.to_datetime(models["evaluated_at"], utc=True)
    splits = splits_of("as_at_release", hub)
    for split in splits:
        trained = observed(split.train).any(axis=1)
        assert dates[trained].max() < dates[split.rows].min()
    forecast = np.concatenate([split.rows for split in splits])
    related = np.concatenate([s.rows for s in splits_module.zero_shot(responses, lineage)])
    start = dates[related].quantile(1 / 3)
    assert sorted(forecast) == sorted(related[(dates[related] >= start).to_numpy()])


def test_as_at_release_without_dates_forecasts_the_models_of_zero_shot(hub):
    released = splits_of("as_at_release, no dates", hub)
    for split, twin in zip(released, splits_of("zero_shot", hub), strict=True):
        np.testing.assert_array_equal(split.rows, twin.rows)
        np.testing.assert_array_equal(split.target, twin.target)
        assert not (observed(split.train) & ~observed(twin.train)).any()


def test_a_forecast_as_at_release_ignores_the_other_parents_of_later_merges():
    """a and c are parents of b; with b forecast as well, what c answered says nothing about a."""
    ids = ["a", "b", "c", "root"]
    edges = [("a", "b", "merge"), ("c", "b", "merge"), ("root", "a", "finetune")]
    lineage = Lineage.from_edges(edges, ids)
    trained = np.array([False, False, True, True])
    known = splits_module._as_released(lineage, np.array([0, 1]), trained)
    others = known.drop_edges(known.edges["parent"].to_numpy() == "root")
    assert others.families[others.index_of("a")] != others.families[others.index_of("c")]
    assert set(known.ancestors("a")) == {"root"}
    assert set(known.ancestors("b")) == {"a@parent", "c", "root"}


def test_predictors_get_the_lineage_of_a_split(hub):
    responses, lineage, *_ = hub
    splits = splits_of("as_at_release", hub)
    _, told = run(hub, splits, {"lineage": LineageMean()})
    unrelated = Lineage.from_edges([], lineage.node_ids[: lineage.n_models])
    _, alone = run(
        hub, [replace(split, lineage=unrelated) for split in splits], {"lineage": LineageMean()}
    )
    np.testing.assert_allclose(alone["predicted"], alone["expected"], atol=1e-6)
    assert (told["predicted"] - told["expected"]).abs().max() > 0.01


def test_extrapolation_forecasts_models_better_than_all_it_trains_on(hub):
    responses, lineage, items, _ = hub
    for data in (hub, in_proportions(hub)):
        responses, lineage, items, _ = data
        (split,) = splits_module.extrapolation(responses, items, lineage, quantile=0.8)
        scores = benchmark_scores(responses, items)
        average = (scores - scores.mean()).mean(axis=1)
        trained = observed(split.train).any(axis=1)
        assert average[split.rows].min() > average[trained].max()
        assert trained.mean() == pytest.approx(0.8, abs=0.02)
        assert not observed(split.train[split.rows]).any()
    with pytest.raises(ValueError, match="0 with a relative"):
        alone = Lineage.from_edges([], lineage.node_ids[: lineage.n_models])
        splits_module.extrapolation(responses, items, alone)


def test_the_parents_mean_is_that_of_the_parents_trained_on(tiny_forecasts):
    lineage, scores, forecasts = tiny_forecasts
    mean = evaluation.parents_mean(forecasts, lineage, scores)
    fold = forecasts.set_index("model_id")["fold"].groupby(level=0).first()
    for row in mean.itertuples():
        parents = [p for p in lineage.parents(row.model_id) if p in scores.index]
        known = [scores.loc[p, row.benchmark] for p in parents if fold.get(p) != row.fold]
        known = [score for score in known if np.isfinite(score)]
        assert row.predicted == pytest.approx(np.mean(known) if known else row.expected)
    assert (mean["predicted"] != mean["expected"]).any()


def test_protocols_say_what_is_wrong_with_their_input(hub):
    responses, lineage, _, models = hub
    with pytest.raises(ValueError, match="no dates to split by"):
        splits_module.date_split(responses, models[["model_id"]])
    with pytest.raises(ValueError, match="0 to forecast|0 models to train"):
        splits_module.date_split(responses, models, cutoff="2100-01-01")
    with pytest.raises(ValueError, match="0 such models"):
        list(splits_module.zero_shot(responses, Lineage.from_edges([], models["model_id"])))
    with pytest.raises(ValueError, match="between 0 and 1"):
        list(splits_module.random_holdout(responses, densities=(1.0,)))


def test_metrics_equal_those_of_scipy_and_scikit_learn(hub):
    responses, lineage, items, _ = hub
    rng = np.random.default_rng(0)
    forecast = rng.beta(2, 1, responses.shape).astype(np.float32)
    forecast = 0.5 * forecast + 0.5 * np.where(observed(responses), responses, 0.5)
    (split,) = splits_module.date_split(responses, hub[3])
    results, forecasts = run(hub, [split], {"oracle": Oracle(forecast, 0.05)})
    truth, guess = responses[split.rows], forecast[split.rows].astype(np.float32)
    benchmark = items["benchmark"].value_counts().index[0]
    cells = split.target & (items["benchmark"] == benchmark).to_numpy()
    by_row = [np.flatnonzero(row) for row in cells]
    keep = [row for row, columns in enumerate(by_row) if len(columns)]
    actual = np.array([truth[row, by_row[row]].mean() for row in keep])
    predicted = np.array([guess[row, by_row[row]].mean() for row in keep])
    means = item_means(split.train, items)
    expected = np.array([means[by_row[row]].mean() for row in keep])

    def value(metric):
        return point(results, benchmark=benchmark, metric=metric)

    skills = predicted - expected, actual - expected
    assert value("pearson") == pytest.approx(stats.pearsonr(*skills)[0], abs=1e-5)
    assert value("spearman") == pytest.approx(stats.spearmanr(*skills)[0], abs=1e-3)
    assert value("mae") == pytest.approx(100 * np.abs(predicted - actual).mean(), rel=1e-4)
    flat, answers = guess[cells].astype(float), truth[cells]
    assert value("log_loss") == pytest.approx(log_loss(answers, flat), rel=1e-4)
    assert value("brier") == pytest.approx(((flat - answers) ** 2).mean(), rel=1e-4)
    assert value("auc") == pytest.approx(roc_auc_score(answers, flat), abs=1e-3)
    error = np.abs(predicted - actual)
    assert value("coverage") == pytest.approx((error <= 0.05).mean())
    assert value("width") == pytest.approx(10, rel=1e-4)
    winkler = 10 + 100 * 20 * np.maximum(error - 0.05, 0).mean()
    assert value("interval_score") == pytest.approx(winkler, rel=1e-3)
    mine = forecasts[forecasts["benchmark"] == benchmark]
    np.testing.assert_allclose(mine["actual"], actual, rtol=1e-5)
    np.testing.assert_allclose(mine["expected"], expected, rtol=1e-5)


def test_all_is_the_mean_over_benchmarks(zero_shot):
    results, _ = zero_shot
    chosen = results[(results["predictor"] == "knn") & (results["seed"] == 0)]
    for metric in ("mae", "auc", "pearson"):
        wide = chosen[chosen["metric"] == metric].set_index("benchmark")["value"]
        parts = wide.drop(["all", "average"], errors="ignore")
        assert wide["all"] == pytest.approx(parts.mean())


def test_columns_of_proportions_are_weighted_by_their_questions(tiny_forecasts):
    _, scores, forecasts = tiny_forecasts
    mine = forecasts[forecasts["model_id"] == "lab/beta-chat"].set_index("benchmark")["actual"]
    np.testing.assert_allclose(mine, scores.loc["lab/beta-chat", mine.index], rtol=1e-5)


def test_a_missing_benchmark_does_not_count_against_a_models_average():
    rng = np.random.default_rng(0)
    skill = rng.normal(0, 0.1, 40)
    rows = []
    for model in range(40):
        for benchmark, level in (("easy", 0.8), ("hard", 0.3)):
            if benchmark == "hard" or model % 2:
                rows.append((f"m{model}", benchmark, level + skill[model], level + skill[model]))
    forecasts = pd.DataFrame(rows, columns=["model_id", "benchmark", "actual", "predicted"])
    forecasts = forecasts.assign(predictor="p", lower=np.nan, upper=np.nan, expected=0.0)
    forecasts = forecasts.assign(log_loss=np.nan, brier=np.nan, n_items=1)
    results = metrics.score_forecasts(forecasts, by=["predictor"])
    assert point(results, benchmark="average", metric="pearson") > 0.9
    assert not results["metric"].isin(["coverage", "log_loss"]).any()


def test_a_forecast_that_ranks_nobody_has_correlation_zero(zero_shot):
    results, forecasts = zero_shot
    constant = results[(results["predictor"] == "item mean")]
    correlations = constant[constant["metric"].isin(["pearson", "spearman"])]["value"]
    np.testing.assert_array_equal(correlations, 0.0)
    folds = forecasts[forecasts["predictor"] == "item mean"].groupby(["seed", "benchmark"])
    assert folds["predicted"].nunique().max() > 1  # although the forecast differs between folds


def test_item_difficulty_does_not_pass_for_skill(hub):
    splits = splits_module.few_shot(hub[0], hub[1], n_folds=2, ks=(20,))
    results, forecasts = run(hub, splits, {"item mean": ItemMean()})
    raw = forecasts.groupby("benchmark")[["actual", "predicted"]].corr().iloc[::2, 1]
    assert np.abs(raw).max() > 0.1
    assert point(results, benchmark="all", metric="pearson") == 0


def test_the_same_model_twice_in_a_group_is_an_error(zero_shot):
    _, forecasts = zero_shot
    with pytest.raises(ValueError, match="several forecasts"):
        metrics.score_forecasts(forecasts, by=["predictor"])


def test_forecasts_that_are_not_finite_are_refused(hub):
    forecast = np.full(hub[0].shape, np.nan)
    with pytest.raises(ValueError, match="predictor 'broken'"):
        run(hub, splits_of("zero_shot", hub), {"broken": Oracle(forecast, 0.1)})


@pytest.mark.slow  # starts two processes
def test_results_do_not_depend_on_jobs_and_repeat(hub, zero_shot):
    options = {"n_folds": 3, "seeds": (0, 1)}
    again = run(hub, splits_module.zero_shot(hub[0], hub[1], **options), n_jobs=2)
    for first, second in zip(zero_shot, again, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_lineage_ranks_cold_models_and_shuffled_lineage_does_not(hub, zero_shot):
    results, _ = zero_shot
    splits = splits_module.zero_shot(hub[0], hub[1], n_folds=3, seeds=(0, 1))
    control, _ = run(hub, splits, {"lineage": QUICK["lineage"]}, shuffle_lineage=True)
    assert set(control["protocol"]) == {"zero_shot-shuffled"}
    where = {"predictor": "lineage", "benchmark": "average", "metric": "pearson"}
    for seed in (0, 1):
        assert point(results, seed=seed, **where) > 0.4
        assert point(control, seed=seed, **where) < point(results, seed=seed, **where) - 0.3


def test_a_predictor_can_be_given_another_lineage_on_the_same_splits(hub, zero_shot):
    _, forecasts = zero_shot
    responses, lineage, *_ = hub
    predictors = {name: QUICK["lineage"] for name in ("lineage", "no edges")}
    none = {"no edges": lineage.drop_edges(1.0, seed=0)}
    splits = splits_module.zero_shot(responses, lineage, n_folds=3, seeds=(0, 1))
    _, both = run(hub, splits, predictors, lineages=none)
    own = both[both["predictor"] == "lineage"].reset_index(drop=True)
    expected = forecasts[forecasts["predictor"] == "lineage"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, expected)
    without = both[both["predictor"] == "no edges"].reset_index(drop=True)
    np.testing.assert_allclose(without["predicted"], without["expected"], atol=1e-6)
    same = ["model_id", "benchmark", "actual", "hops", "relation", "family"]
    pd.testing.assert_frame_equal(without[same], own[same])


def test_another_lineage_for_a_predictor_that_is_not_there_is_an_error(hub):
    splits = splits_of("zero_shot", hub)
    with pytest.raises(ValueError, match="lineages names typo"):
        run(hub, splits, {"lineage": QUICK["lineage"]}, lineages={"typo": hub[1]})


def test_seeds_reach_the_predictors_and_the_bootstrap_averages_over_them(hub):
    splits = list(splits_module.zero_shot(hub[0], hub[1], n_folds=2, seeds=(0, 7)))
    results, forecasts = run(hub, splits, {"mf": MatrixFactorization(rank=2)})
    where = {"benchmark": "all", "metric": "mae"}
    values = [point(results, seed=seed, **where) for seed in (0, 7)]
    row = compared(forecasts, "mf", "mf", metric="mae")
    assert values[0] != values[1] and row["value"] == pytest.approx(np.mean(values))
    assert ((forecasts["lower"] <= forecasts["upper"]) & forecasts["lower"].notna()).all()


def test_annotations_name_the_nearest_training_relatives():
    snapshot = tiny_snapshot()
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    trained = np.zeros(12, dtype=bool)
    trained[[lineage.index_of(i) for i in ("lab/alpha-chat", "user/beta-merge", "gpt2")]] = True
    forecasts = pd.DataFrame({"model_id": lineage.node_ids[:12]})
    notes = evaluation.annotate_forecasts(forecasts, lineage, trained).set_index("model_id")
    expected = {
        "lab/alpha-code": ("sibling", 1, 2),  # the merge between them was not trained on
        "user/alpha-chat-dpo": ("finetune", 1, 1),
        "user/alpha-merge": ("merge", 1, 1),
        "quant/alpha-chat-gptq": ("quantized", 1, 1),
        "user/alpha-lora": ("distant", 0, 3),
        "lab/beta-chat": ("parent", 1, 1),
        "user/beta-merge-dpo": ("finetune", 1, 1),
        "solo/gamma": ("none", 0, -1),
    }
    for model, values in expected.items():
        row = notes.loc[model]
        assert (row["relation"], row["n_relatives"], row["hops"]) == values
    assert notes.loc["gpt2", "hops"] == 0
    assert notes.loc["lab/alpha-chat", "relation"] == "distant"  # itself is no relative
    assert notes["family"].tolist() == lineage.families[:12].tolist()


@pytest.mark.parametrize("cluster", ["family", None])
def test_bootstrap_excludes_zero_for_a_clear_difference(zero_shot, cluster):
    results, forecasts = zero_shot
    found = compared(
        forecasts, "lineage", "item mean", metric="mae", benchmark="average", cluster=cluster
    )
    assert found["difference_upper"] < 0
    assert found["difference_lower"] < found["difference"] < found["difference_upper"]
    assert found["n_clusters"] <= found["n_models"]
    values = results[(results["benchmark"] == "average") & (results["metric"] == "mae")]
    means = values.groupby("predictor")["value"].mean()
    assert found["difference"] == pytest.approx(means["lineage"] - means["item mean"])
    again = compared(
        forecasts, "lineage", "item mean", metric="mae", benchmark="average", cluster=cluster
    )
    pd.testing.assert_series_equal(again, found)


def test_bootstrap_of_noise_contains_zero_and_has_the_standard_error_of_theory():
    rng = np.random.default_rng(1)
    actual = rng.random(300)
    frames = []
    for predictor in ("a", "b"):
        frame = pd.DataFrame({"model_id": [f"m{row}" for row in range(300)], "actual": actual})
        noise = rng.normal(0, 0.1, 300)
        frames.append(frame.assign(predictor=predictor, predicted=actual + noise))
    forecasts = pd.concat(frames).assign(seed=0, benchmark="one", expected=0.0, n_items=1)
    forecasts = forecasts.assign(lower=np.nan, upper=np.nan, log_loss=np.nan, brier=np.nan)
    found = compared(forecasts, "a", "b", metric="mae", cluster=None)
    assert found["difference_lower"] < 0 < found["difference_upper"]
    errors = [np.abs(frame["predicted"] - actual).to_numpy() for frame in frames]
    standard_error = 100 * np.std(errors[0] - errors[1]) / np.sqrt(300)
    width = found["difference_upper"] - found["difference_lower"]
    assert width == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_bootstrap_resamples_equal_a_direct_computation():
    rng = np.random.default_rng(0)
    forecasts = pd.DataFrame({"model_id": [f"m{row}" for row in range(25)]})
    forecasts["actual"] = rng.random(25).round(1)
    forecasts["predicted"] = rng.random(25).round(1)
    forecasts = forecasts.assign(benchmark="one", expected=0.0, n_items=1, lower=0.0, upper=1.0)
    forecasts = forecasts.assign(log_loss=0.1, brier=0.1)
    table = metrics._Table(forecasts, "")
    draw = rng.integers(25, size=25)
    weights = np.bincount(draw, minlength=25)[None].astype(float)
    for metric, reference in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        value = metrics.METRICS[metric](table, weights)[0, 0]
        sample = forecasts.iloc[draw]
        assert value == pytest.approx(reference(sample["predicted"], sample["actual"])[0])


def test_comparisons_refuse_what_cannot_be_compared(zero_shot):
    _, forecasts = zero_shot
    with pytest.raises(ValueError, match="unknown metric"):
        compared(forecasts, "knn", "lineage", metric="auc")
    with pytest.raises(ValueError, match="unknown benchmark"):
        compared(forecasts, "knn", "lineage", benchmark="mmlu")
    shorter = forecasts.drop(forecasts.index[forecasts["predictor"] == "knn"][0])
    with pytest.raises(ValueError, match="same splits"):
        compared(shorter, "knn", "lineage")


def test_noise_ceilings_match_the_reliability_of_simulated_scores():
    rng = np.random.default_rng(0)
    ability = rng.beta(6, 4, (4000, 1))
    answers = (rng.random((4000, 100)) < ability).astype(np.uint8)
    scores = pd.DataFrame({"one": answers.mean(axis=1)})
    reached = np.corrcoef(scores["one"], ability[:, 0])[0, 1]
    assert metrics.noise_ceiling(scores, 100)["one"] == pytest.approx(reached, abs=0.01)
    items = pd.DataFrame({"benchmark": ["one"] * 100})
    ceiling = metrics.split_half_ceiling(answers, items, n_splits=5)
    assert ceiling["one"] == pytest.approx(reached, abs=0.01)
    noise = pd.DataFrame({"none": rng.binomial(10, 0.5, 500) / 10})
    assert metrics.noise_ceiling(noise, 5)["none"] == 0


@pytest.mark.parametrize("name", ["openllm-v2", "openllm-v1-items"])
def test_lineage_beats_the_mean_on_real_models(real_data, name):
    snapshot = load_snapshot(real_data / name)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    splits = splits_module.zero_shot(snapshot.responses, lineage)
    data = snapshot.responses, lineage, snapshot.items, snapshot.models
    results, forecasts = run(data, splits, {"mean": ItemMean(), "lineage": LineageMean(hops=None)})
    assert point(results, predictor="lineage", benchmark="all", metric="pearson") > 0.6
    found = compared(forecasts, "lineage", "mean", metric="mae")
    assert found["difference_upper"] < 0
