"""The forecaster: what its ingredients may and may not do, over answers and proportions."""

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import missing
from draws import draw_answers, draw_proportions, random_lineage
from predictor_contract import PredictorContract
from scipy import sparse
from sklearn.base import clone

from lrmf import LRMF, Forecaster, Lineage
from lrmf.data.responses import MISSING, benchmark_scores, observed, without
from lrmf.data.snapshot import load_snapshot
from lrmf.evaluation.splits import zero_shot
from lrmf.forecaster.forecaster import CrossFitConfig
from lrmf.forecaster.saved_fit import SavedFitError
from lrmf.simulation.simulate import simulate
from lrmf.solver.calibration import IntervalCalibration
from lrmf.solver.scores import standardised_error

N_MODELS, N_HIDDEN = 200, 40


def columns(n_items, n_trials):
    benchmark = ["even", "odd"] * (n_items // 2)
    ids = [f"i{number}" for number in range(n_items)]
    return pd.DataFrame({"item_id": ids, "benchmark": benchmark, "n_trials": n_trials})


def cards(lineage):
    size = np.where(np.arange(N_MODELS) % 3, 7.0, 70.0)
    days = pd.date_range("2024-01-01", periods=N_MODELS).strftime("%Y-%m-%d")
    ids = lineage.node_ids[:N_MODELS]
    return pd.DataFrame({"model_id": ids, "params_b": size, "evaluated_at": days})


@pytest.fixture(scope="module", params=["answers", "proportions"])
def problem(request):
    lineage = random_lineage(N_MODELS, seed=4, n_unscored=5, n_loops=5)
    if request.param == "answers":
        truth, _ = draw_answers(lineage, 60, seed=4, density=0.9, ridge=0.2, strength=3.0)
        items = columns(60, 1)
    else:
        truth = draw_proportions(
            lineage, 4, seed=4, ridge=1.0, strength=3.0, node_variance=0.1, n_trials=400
        )
        items = columns(4, 400)
    hidden = np.sort(np.random.default_rng(0).permutation(N_MODELS)[:N_HIDDEN])
    train = without(truth, hidden)
    return lineage, truth, train, hidden, items, cards(lineage)


@pytest.fixture(scope="module")
def fitted(problem):
    lineage, _, train, _, items, models = problem
    return Forecaster().fit(train, lineage, items=items, models=models)


class TestForecaster(PredictorContract):
    estimator = Forecaster(rank=2)


def mean_error(forecast, truth):
    seen = observed(truth)
    return np.mean((forecast - truth)[seen] ** 2)


def test_hidden_models_are_forecast_at_least_as_well_as_by_lrmf_alone(problem, fitted):
    lineage, truth, train, hidden, items, models = problem
    alone = LRMF(**fitted.model_.get_params()).fit(train, lineage, items=items, models=models)
    own, other = fitted.predict_proba(hidden), alone.predict_proba(hidden)
    assert mean_error(own, truth[hidden]) < 1.03 * mean_error(other, truth[hidden])
    flat = np.broadcast_to(np.nanmean(np.where(observed(train), train, np.nan), axis=0), own.shape)
    assert mean_error(own, truth[hidden]) < 0.97 * mean_error(flat, truth[hidden])


def test_revealed_responses_help(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    revealed = truth[hidden].copy()
    revealed[:, truth.shape[1] // 2 :] = missing(truth)
    target = observed(truth[hidden]) & ~observed(revealed)
    without = fitted.predict_proba(hidden)
    with_them = fitted.predict_proba(hidden, revealed=revealed)
    error = [((p - truth[hidden])[target] ** 2).mean() for p in (without, with_them)]
    assert error[1] < error[0]


def test_scores_are_means_of_the_expected_responses(problem, fitted):
    _, truth, _, hidden, items, _ = problem
    scores = fitted.predict(hidden).scores
    expected = pd.DataFrame(fitted.predict_proba(hidden).T).groupby(items["benchmark"]).mean()
    wide = scores.pivot(index="row", columns="benchmark", values="score")
    np.testing.assert_allclose(wide[["even", "odd"]].to_numpy(), expected.T, atol=1e-6)
    assert (scores["lower"] <= scores["score"]).all() and (scores["score"] <= scores["upper"]).all()
    assert (scores["n_observed"] == 0).all()


def test_intervals_cover_hidden_models(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    target = observed(truth[hidden])
    scores = fitted.predict(hidden, target=target).scores
    actual = fitted.scores_.actual(truth[hidden], target).ravel()
    inside = (scores["lower"] <= actual) & (actual <= scores["upper"])
    assert 0.8 <= inside.mean() <= 0.99


def test_intervals_narrow_with_what_is_revealed(problem, fitted):
    _, truth, _, hidden, _, _ = problem
    widths = []
    for known in (0, 1, 3):
        revealed = truth[hidden].copy()
        revealed[:, known * truth.shape[1] // 4 :] = missing(truth)
        scores = fitted.predict(hidden, revealed=revealed).scores
        widths.append((scores["upper"] - scores["lower"]).mean())
    assert widths[0] > widths[1] > widths[2]


def forecast_of_the_latest(problem, better, *, share, **parameters):
    """Scores of the last model, with dates and without, if late models got `better` at columns."""
    lineage, truth, _, _, items, models = problem
    late = np.flatnonzero(np.arange(N_MODELS) >= int(0.8 * N_MODELS))
    changed = truth.copy()
    raised = np.random.default_rng(3).random((late.size, truth.shape[1])) < share
    changed[late] = np.where(raised & observed(truth[late]), better(late)[:, None], truth[late])
    hidden = np.array([N_MODELS - 1])
    changed[hidden] = missing(truth)
    return [
        Forecaster(**parameters)
        .fit(changed, lineage, items=items, models=table)
        .predict(hidden)
        .scores.eval("width = upper - lower")
        .mean(numeric_only=True)
        for table in (models, models.drop(columns="evaluated_at"))
    ]


def test_forecasts_of_later_models_move_with_the_drift(problem):
    dated, undated = forecast_of_the_latest(problem, lambda late: np.full(late.size, 1), share=0.5)
    assert dated["score"] > undated["score"] + 0.03


def test_a_model_that_nobody_has_evaluated_is_later_by_its_creation(problem, fitted):
    lineage, truth, train, hidden, items, models = problem
    new = hidden[-1]
    dates = models["evaluated_at"].where(models.index != new)
    for created, is_later in (("2030-01-01", True), ("2020-01-01", False), (None, False)):
        table = models.assign(
            evaluated_at=dates, created_at=pd.Series({new: created}, dtype=object)
        )
        model = Forecaster(rank=2)
        model.fit(train, lineage, items=items, models=table)
        assert model.later_[new] == is_later


def test_later_models_have_wider_intervals_where_late_ones_scatter(problem):
    dated, undated = forecast_of_the_latest(problem, lambda late: late % 2, share=0.5)
    assert dated["width"] > 1.05 * undated["width"]
    assert abs(dated["score"] - undated["score"]) < 0.1


def test_same_bytes_on_repeat_and_for_any_number_of_threads(problem, fitted):
    lineage, _, train, _, items, models = problem
    again = Forecaster(n_threads=1).fit(train, lineage, items=items, models=models)
    assert again.predict_proba().tobytes() == fitted.predict_proba().tobytes()
    assert again.predict().scores.equals(fitted.predict().scores)


def test_without_lineage_relatives_do_not_matter(problem):
    lineage, _, train, hidden, items, models = problem
    forecasts = [
        Forecaster(use_lineage=False)
        .fit(train, known, items=items, models=models)
        .predict_proba(hidden)
        for known in (lineage, lineage.shuffled(1))
    ]
    np.testing.assert_array_equal(*forecasts)


def test_without_cards_the_models_table_does_not_matter(problem):
    lineage, _, train, hidden, items, models = problem
    other = models.assign(params_b=models["params_b"].to_numpy()[::-1])
    forecasts = [
        Forecaster(use_cards=False)
        .fit(train, lineage, items=items, models=table)
        .predict_proba(hidden)
        for table in (models, other)
    ]
    np.testing.assert_array_equal(*forecasts)


def test_answers_of_hidden_models_are_never_seen(problem, fitted):
    """A response that is missing in the training matrix has no way into the forecast."""
    lineage, truth, train, hidden, items, models = problem
    revealed = np.full(truth[hidden].shape, missing(truth), truth.dtype)
    np.testing.assert_allclose(
        fitted.predict_proba(hidden, revealed=revealed), fitted.predict_proba(hidden), atol=1e-6
    )


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "fit.npz"
    fitted.save(path)
    return path


class TestSaving:
    def test_a_loaded_fit_forecasts_the_same(self, problem, fitted, saved):
        lineage, truth, train, hidden, _, models = problem
        loaded = Forecaster.load(saved)
        assert loaded.get_params() == fitted.get_params()
        again = loaded.adapt(train, lineage, models=models)
        np.testing.assert_allclose(again.predict_proba(), fitted.predict_proba(), atol=1e-6)
        revealed = truth[hidden].copy()
        revealed[:, 2:] = missing(truth)
        pd.testing.assert_frame_equal(
            again.predict(hidden, revealed=revealed).scores,
            fitted.predict(hidden, revealed=revealed).scores,
            atol=1e-6,
            check_exact=False,
        )

    def test_rows_of_a_loaded_fit_are_the_evaluated_models(self, problem, fitted, saved):
        train = problem[2]
        evaluated = np.flatnonzero(observed(train).any(axis=1))
        np.testing.assert_allclose(
            Forecaster.load(saved).predict_proba(), fitted.predict_proba(evaluated), atol=1e-6
        )

    def test_equal_fits_give_equal_bytes(self, problem, saved, tmp_path):
        lineage, _, train, _, items, models = problem
        again = Forecaster(n_threads=None).fit(train, lineage, items=items, models=models)
        again.save(tmp_path / "again.npz")
        assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()
        Forecaster.load(saved).save(tmp_path / "loaded.npz")
        assert (tmp_path / "loaded.npz").read_bytes() == saved.read_bytes()

    def test_unfitted_forecasters_are_not_saved(self, tmp_path):
        with pytest.raises(ValueError, match="not fitted"):
            Forecaster().save(tmp_path / "fit.npz")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("damage", ["truncated", "bit", "foreign", "version", "swapped"])
    def test_damaged_and_foreign_files_are_refused(self, saved, tmp_path, damage):
        path = tmp_path / "fit.npz"
        content = saved.read_bytes()
        with np.load(saved, allow_pickle=False) as archive:
            arrays = dict(archive)
        if damage == "truncated":
            path.write_bytes(content[: len(content) * 2 // 3])
        elif damage == "bit":
            place = content.index(arrays["process_outputs"].tobytes()[:64]) + 9
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        elif damage == "foreign":
            np.savez(path, loadings=np.ones(3))
        else:
            if damage == "version":
                header = json.loads(str(arrays["header"]))
                arrays["header"] = np.array(json.dumps(header | {"version": 1}))
            else:  # an archive that is whole, but whose responses are not those of the fit
                arrays["responses"] = arrays["responses"][::-1]
            np.savez(path, **arrays)
        with pytest.raises(SavedFitError, match="fit.npz"):
            Forecaster.load(path)

    def test_a_fit_is_not_adapted_to_other_items(self, problem, saved):
        lineage, _, train, _, _, _ = problem
        with pytest.raises(ValueError, match="items"):
            Forecaster.load(saved).adapt(train[:, :-1], lineage)


NEW = {
    "parents": [("lab/m003", "finetune"), ("base/b1", "merge"), ("lab/m050", "merge")],
    "card": {"model_id": "lab/m-new-7b", "params_b": 7.0, "evaluated_at": "2024-03-01"},
}


def folded_and_inside(problem, fitted, parents, card, n_answers, *, refit):
    """Forecasts of a new model: folded in, and as a row of a wider snapshot."""
    lineage, truth, train, hidden, items, models = problem
    answers = {}
    row = np.full((1, train.shape[1]), missing(train), train.dtype)
    for column in range(n_answers):
        row[0, column] = 1 - column % 2
        answers[f"i{column}"] = row[0, column]
    new = fitted.fold_in(parents=parents, card=card, answers=answers)
    folded = new.predict_proba(), new.scores()
    edges = pd.DataFrame(
        [(parent, card["model_id"], relation) for parent, relation in parents],
        columns=["parent", "child", "relation"],
    )
    table = pd.concat([models, pd.DataFrame([card])], ignore_index=True)
    wider = Lineage.from_edges(
        pd.concat([lineage.edges[["parent", "child", "relation"]], edges]), table["model_id"]
    )
    wide = np.vstack([train, np.full_like(row, missing(train))])
    if refit:
        inside = Forecaster().fit(wide, wider, items=items, models=table)
    else:
        inside = fitted.adapt(wide, wider, models=table)
    rows = np.array([N_MODELS])
    return folded, (
        inside.predict_proba(rows, revealed=row)[0], inside.predict(rows, revealed=row).scores
    )  # fmt: skip


def assert_alike(folded, inside, tolerance):
    np.testing.assert_allclose(folded[0], inside[0], atol=tolerance)
    columns = ["score", "lower", "upper", "n_observed"]
    np.testing.assert_allclose(folded[1][columns], inside[1][columns], atol=tolerance)


class TestFoldIn:
    @pytest.mark.parametrize("n_answers", [0, 3])
    def test_equals_a_row_that_the_fit_is_adapted_to(self, problem, fitted, n_answers):
        new = NEW["parents"], NEW["card"], n_answers
        assert_alike(*folded_and_inside(problem, fitted, *new, refit=False), 1e-5)

    @pytest.mark.parametrize("n_answers", [0, 3])
    def test_equals_a_row_of_the_snapshot_that_is_fitted(self, problem, fitted, n_answers):
        """The answers of nobody but the evaluated models make a difference."""
        new = NEW["parents"][:1], NEW["card"], n_answers
        assert_alike(*folded_and_inside(problem, fitted, *new, refit=True), 1e-4)

    def test_equals_a_merge_of_the_snapshot_that_is_fitted(self, problem, fitted):
        """Unless the merge tells more of how others are related, which shares are learned from."""
        new = NEW["parents"], NEW["card"], 3
        assert_alike(*folded_and_inside(problem, fitted, *new, refit=True), 3e-3)

    def test_equals_a_row_without_parents_and_without_a_card(self, problem, fitted):
        new = [], {"model_id": "who/knows"}, 0
        assert_alike(*folded_and_inside(problem, fitted, *new, refit=True), 1e-4)

    def test_equals_a_row_whose_parent_is_not_evaluated_either(self, problem, fitted):
        parent = problem[0].node_ids[problem[3][0]]
        new = [(parent, "adapter")], NEW["card"], 1
        assert_alike(*folded_and_inside(problem, fitted, *new, refit=True), 1e-4)

    def test_unknown_parents_are_noted_and_say_nothing(self, fitted):
        known = fitted.fold_in(parents=["lab/m003"], card={"model_id": "me/new"})
        stranger = fitted.fold_in(parents=["no/one"], card={"model_id": "me/new"})
        without = fitted.fold_in(card={"model_id": "me/new"})
        # The state's mean is the same; a change from an unknown model only adds to its variance.
        priors = [new.forecasts._prior_of(np.array([0])) for new in (stranger, without)]
        np.testing.assert_allclose(priors[0].mean, priors[1].mean, atol=1e-3)
        np.testing.assert_allclose(stranger.predict_proba(), without.predict_proba(), atol=0.03)
        assert np.abs(known.predict_proba() - without.predict_proba()).max() > 1e-3
        assert any("no/one" in note for note in stranger.forecasts.notes_)
        assert not known.forecasts.notes_ and not without.forecasts.notes_

    @pytest.mark.parametrize("n_answers", [0, 2])
    def test_a_model_of_the_fit_is_forecast_without_its_own_responses(
        self, problem, fitted, n_answers
    ):
        lineage, truth, _, hidden, items, models = problem
        # An evaluated child that has no children of its own, which only the fit would know.
        is_candidate = ~np.isin(lineage.node_ids, lineage.edges["parent"])
        is_candidate &= np.isin(lineage.node_ids, fitted.trained_ids_)
        edges = lineage.edges[lineage.edges["child"].isin(lineage.node_ids[is_candidate])]
        name = edges["child"].iloc[0]
        edges, row = edges[edges["child"] == name], int(lineage.index_of(name))
        revealed = truth[[row]].copy()
        revealed[0, n_answers:] = missing(truth)
        answers = dict(zip(items["item_id"][:n_answers], revealed[0, :n_answers], strict=True))
        new = fitted.fold_in(
            parents=list(zip(edges["parent"], edges["relation"], strict=True)),
            card=models[models["model_id"] == name].iloc[0].dropna().to_dict(), answers=answers,
        )  # fmt: skip
        expected = fitted.predict_proba([row], revealed=revealed)[0]
        np.testing.assert_allclose(new.predict_proba(), expected, atol=1e-3)
        assert any(name in note for note in new.forecasts.notes_)
        assert row not in hidden and name not in new.forecasts.explain()["nearest"].iloc[0]

    @pytest.mark.parametrize("wrong", [None, float("nan"), 7e6, 0.007, -1.0])
    def test_an_absurd_size_is_an_unknown_one(self, fitted, wrong):
        unknown, absurd = (
            fitted.fold_in(parents=["lab/m003"], card={"model_id": "me/new"} | size)
            for size in ({}, {"params_b": wrong})
        )
        np.testing.assert_allclose(absurd.predict_proba(), unknown.predict_proba(), atol=1e-6)
        is_number = wrong is not None and wrong > 0
        assert any("me/new" in note for note in absurd.forecasts.notes_) == is_number

    def test_a_field_that_no_card_has_does_not_matter(self, fitted):
        one, other = (
            fitted.fold_in(card={"model_id": "me/new"} | more)
            for more in ({}, {"license": "mit", "type": "chat", "chat_template": True})
        )
        np.testing.assert_allclose(one.predict_proba(), other.predict_proba(), atol=1e-6)

    def test_items_are_numbers(self, fitted):
        new = fitted.fold_in(parents=["lab/m003"])
        np.testing.assert_allclose(new.predict_proba([2, 0]), new.predict_proba()[[2, 0]])
        for wrong in (["i2", "i0"], "i2", [0.5], [True, False], [-1], [len(fitted.items_)]):
            for forecasts in (new, fitted):
                with pytest.raises(ValueError, match="items?"):
                    forecasts.predict_proba(items=wrong)

    def test_answers_move_it_and_the_fit_stays(self, problem, fitted):
        before = fitted.predict_proba()
        scores = []
        for value in (0, 1):
            answers = {f"i{column}": value for column in range(2)}
            new = fitted.fold_in(parents=["lab/m003"], card=NEW["card"], answers=answers)
            scores.append(new.scores()["score"].mean())
        assert scores[0] < scores[1]
        np.testing.assert_array_equal(fitted.predict_proba(), before)

    def test_wrong_arguments_are_named(self, fitted):
        with pytest.raises(ValueError, match="not an item"):
            fitted.fold_in(answers={"i-unknown": 1})
        with pytest.raises(ValueError, match="must be"):
            fitted.fold_in(answers={"i0": 7})
        with pytest.raises(ValueError, match="relation"):
            fitted.fold_in(parents=[("lab/m003", "friendship")])

    def test_nobody_as_parent_and_no_id_are_allowed(self, fitted):
        expected = fitted.fold_in().predict_proba()
        for new in (fitted.fold_in(parents=None), fitted.fold_in(card={"model_id": None})):
            np.testing.assert_array_equal(new.predict_proba(), expected)


class TestFoldInEach:
    def test_equals_fold_in_with_and_without_ids(self, fitted):
        parents, sizes = [["lab/m003"], None], [{"params_b": 7.0}, {"params_b": 70.0}]
        for named in ([{}, {}], [{"model_id": "me/a"}, {"model_id": "me/b"}]):
            cards = [card | size for card, size in zip(named, sizes, strict=True)]
            found = fitted.fold_in_each(parents, cards).predict_proba()
            for row, (names, card) in enumerate(zip(parents, cards, strict=True)):
                alone = fitted.fold_in(parents=names, card=card).predict_proba()
                np.testing.assert_allclose(found[row], alone, atol=1e-5)

    def test_models_that_cannot_be_told_apart_are_refused(self, fitted):
        with pytest.raises(ValueError, match="'me/x'"):
            fitted.fold_in_each([["lab/m003"], []], [{"model_id": "me/x"}] * 2)
        for parents, cards in (([], None), ([[]], []), ([[], []], [{"model_id": "me/x"}])):
            with pytest.raises(ValueError, match="cards of"):
                fitted.fold_in_each(parents, cards)
        with pytest.raises(ValueError, match="'70B'"):
            fitted.fold_in_each([[]], [{"params_b": "70B"}])


def test_no_rows_are_explained_by_an_empty_frame(fitted):
    frame = fitted.explain([])
    assert not len(frame) and list(frame) == list(fitted.explain([0]))


@pytest.mark.parametrize("size", [-8, 0, np.nan, "8"])
def test_merges_of_an_impossible_size_are_refused(fitted, size):
    with pytest.raises(ValueError, match="size"):
        fitted.plan_merges(size=size)


def test_a_fit_is_copied_but_not_pickled(fitted):
    new = fitted.fold_in()
    np.testing.assert_array_equal(copy.deepcopy(new).predict_proba(), new.predict_proba())
    expected = fitted.predict_proba([0])
    for copied in (copy.copy(fitted), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(copied.predict_proba([0]), expected)
    for whole in (fitted, new):
        with pytest.raises(TypeError, match="save"):
            pickle.dumps(whole)
    unfitted = clone(fitted)
    assert pickle.loads(pickle.dumps(unfitted)).get_params() == fitted.get_params()


def hidden_errors(hub, n_revealed, **options):
    """Mean absolute errors of hidden models' scores in points, by number of revealed answers."""
    lineage = Lineage.from_edges(hub.lineage, hub.models["model_id"])
    rng = np.random.default_rng(1)
    hidden = np.sort(rng.permutation(len(hub.models))[: len(hub.models) // 4])
    train = without(hub.responses, hidden)
    forecaster = Forecaster(**options).fit(train, lineage, items=hub.items, models=hub.models)
    truth, found = hub.responses[hidden], {}
    place = rng.random(truth.shape).argsort(axis=1).argsort(axis=1)
    target = observed(truth) & (place >= max(n_revealed))
    actual = forecaster.scores_.actual(truth, target).ravel()
    for k in n_revealed:
        revealed = np.where(observed(truth) & (place < k), truth, MISSING)
        scores = forecaster.predict(hidden, revealed=revealed, target=target).scores["score"]
        found[k] = np.nanmean(np.abs(scores - actual)) * 100
    return found


@pytest.mark.slow  # three fits, and forecasts with five numbers of answers
def test_errors_do_not_grow_with_what_is_revealed():
    """Of the same cells, averaged over 180 models of three hubs: 0.15 points are chance."""
    levels = (0, 1, 3, 10, 30)
    hubs = [simulate(n_models=240, n_items=150, seed=seed) for seed in (4, 5, 6)]
    errors = np.mean([list(hidden_errors(hub, levels).values()) for hub in hubs], axis=0)
    assert (np.diff(errors) < 0.15).all(), errors
    assert errors[-1] < 0.95 * errors[0]


def dropped(table, *names):
    return table.drop(columns=[name for name in names if name in table])


@pytest.mark.parametrize(
    "case",
    ["no cards", "no lineage", "no dates", "one benchmark", "duplicates", "30 models", "1 item",
     "one family", "no names"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["answers", "proportions"])
def test_whatever_is_missing_intervals_are_finite(case, kind):
    snapshot = simulate(n_models=30 if case == "30 models" else 120, n_items=48, seed=8)
    models, items = snapshot.models, snapshot.items
    responses, edges, options = snapshot.responses, snapshot.lineage, {}
    if kind == "proportions":
        groups = items.groupby(["benchmark", "subtask"], sort=False).indices
        part = np.where(observed(responses), responses, np.nan)
        frame = pd.DataFrame({name: pd.DataFrame(part[:, c]).mean(axis=1) for name, c in
                              groups.items()})  # fmt: skip
        responses = frame.to_numpy(np.float32, copy=True)
        # Whole blocks of models were not asked some of it.
        responses[20:60, : responses.shape[1] // 3] = np.nan
        items = pd.DataFrame([
            {"item_id": subtask, "benchmark": benchmark, "n_trials": len(c)}
            for (benchmark, subtask), c in groups.items()
        ])  # fmt: skip
    if case == "no cards":
        models = None
    elif case == "no lineage":
        edges = edges.iloc[:0]
    elif case == "no dates":
        models = dropped(models, "created_at", "evaluated_at")
    elif case == "one benchmark":
        items = items.assign(benchmark="all")
    elif case == "duplicates":
        copies = models.iloc[:10].assign(model_id=[f"copy/{number}" for number in range(10)])
        models = pd.concat([models, copies], ignore_index=True)
        responses = np.vstack([responses, responses[:10]])
    elif case == "1 item":
        items, responses = items.iloc[:1], responses[:, -1:]
    elif case == "one family":
        ids = models["model_id"]
        edges = [(ids[0], child, "finetune") for child in ids[1:]]
    elif case == "no names":
        options = {"use_names": False}
    ids = snapshot.models["model_id"] if models is None else models["model_id"]
    lineage = Lineage.from_edges(edges, ids)
    hidden = np.arange(0, len(ids), 7)
    forecaster = Forecaster(**options).fit(
        without(responses, hidden), lineage, items=items, models=models
    )
    shown = responses[hidden].copy()
    shown[:, 1:] = missing(responses)
    for revealed in (None, shown):
        scores = forecaster.predict(hidden, revealed=revealed).scores
        assert np.isfinite(scores[["score", "lower", "upper"]].to_numpy()).all()
        assert (scores["lower"] <= scores["score"]).all()
        assert (scores["score"] <= scores["upper"]).all()
        assert scores[["lower", "upper"]].stack().between(0, 1).all()


def test_bad_input_is_refused_before_anything_is_fitted(problem):
    lineage, _, train, _, items, _ = problem
    with pytest.raises(ValueError, match="the lineage has"):
        Forecaster().fit(train[:5], lineage, items=items)
    with pytest.raises(ValueError, match="no response is observed"):
        Forecaster().fit(np.full_like(train, missing(train)), lineage, items=items)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [({"n_trials": 0}, "n_trials"), ({"n_trials": np.nan}, "n_trials"),
     ({"n_trials": 2**40}, "n_trials"), ({"item_id": "i0"}, "'i0'"), ({"item_id": None}, "item_id"),
     ({"benchmark": None}, "benchmark")],
)  # fmt: skip
@pytest.mark.parametrize("estimator", [Forecaster, LRMF])
def test_items_that_give_no_scores_are_refused(problem, estimator, values, culprit):
    lineage, _, train, _, items, _ = problem
    with pytest.raises(ValueError, match=f"items: .*{culprit}"):
        estimator().fit(train, lineage, items=items.assign(**values))


def test_a_models_table_of_other_models_is_refused(problem, fitted):
    lineage, _, train, _, items, models = problem
    tables = {
        "row 1 ": models.iloc[[0, 2, 1, *range(3, N_MODELS)]],
        f"'org/x'.*{models['model_id'][0]}": models.assign(model_id="org/x"),
        "rows": models[:12],
        "lacks column 'model_id'": models.drop(columns="model_id"),
        "row 0: params_b.*'70B'": models.assign(params_b="70B"),
        "row 3: merged.*'yes'": models.assign(merged=[None] * 3 + ["yes"] * (N_MODELS - 3)),
        "row 0: architecture.*7": models.assign(architecture=7),
    }
    for culprit, table in tables.items():
        for estimator in (Forecaster, LRMF):
            with pytest.raises(ValueError, match=culprit):
                estimator().fit(train, lineage, items=items, models=table)
        with pytest.raises(ValueError, match=culprit):
            fitted.adapt(train, lineage, models=table)


@pytest.mark.parametrize("estimator", [Forecaster, LRMF])
def test_sparse_responses_are_refused(problem, estimator):
    lineage, _, train, *_ = problem
    with pytest.raises(ValueError, match="sparse"):
        estimator().fit(sparse.csr_array(np.nan_to_num(train)), lineage)


def test_widths_between_calibrated_numbers_of_responses_are_interpolated():
    """Linearly in log(1 + n): here the j-th calibrated number has the factor j + 1."""
    levels = np.array([0, 5, 20])
    scale = np.ones((3, 2, 2)) * (1 + np.arange(3))[:, None, None]
    calibration = IntervalCalibration(levels, np.zeros_like(scale), scale)
    between = np.arange(30)
    half = np.full((between.size, 2), 0.5)
    factor = calibration(half, 0.1 * half, between, np.zeros(between.size, bool)) / (0.1 * half)
    expected = np.interp(np.log1p(between), np.log1p(levels), 1 + np.arange(3))
    np.testing.assert_allclose(factor, np.column_stack([expected, expected]))


def test_standardised_errors_are_in_deviations():
    score, deviation = np.array([[0.5]]), np.array([[0.05]])
    error = standardised_error(score, deviation, np.array([[0.55]]))
    assert error[0, 0] == pytest.approx(1.0, rel=0.01)


def test_intervals_allow_for_what_the_states_of_a_model_leave_out():
    """Every model is better or worse at a benchmark than its one factor can say."""
    rng = np.random.default_rng(0)
    n_models, per_benchmark, names = 600, 200, ["a", "b", "c"]
    benchmark = np.repeat(names, per_benchmark)
    own = rng.standard_normal((n_models, 3)).repeat(per_benchmark, axis=1)
    logit = rng.standard_normal((n_models, 1)) + own + rng.standard_normal(benchmark.size)
    answers = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    seen = rng.random(logit.shape) < 0.1
    lineage = random_lineage(n_models, seed=1)
    items = pd.DataFrame({"item_id": np.arange(benchmark.size), "benchmark": benchmark})
    model = Forecaster(rank=1, use_near_duplicates=False)
    model.fit(np.where(seen, answers, MISSING), lineage, items=items.assign(n_trials=1))
    scores = model.predict().scores
    actual = np.stack([answers[:, benchmark == name].mean(axis=1) for name in names], axis=1)
    inside = (scores["lower"] <= actual.ravel()) & (actual.ravel() <= scores["upper"])
    assert 0.85 < inside.mean() < 0.95


def sparse_problem(monkeypatch, *, n_models=600, n_items=200):
    """8 answers an item, and few enough models to calibrate on that the others can do without."""
    monkeypatch.setattr(Forecaster, "_config", CrossFitConfig(most_cells_if_few=40 * n_items))
    lineage = random_lineage(n_models, seed=7, n_unscored=5, n_loops=5)
    answers, _ = draw_answers(lineage, n_items, seed=7, density=1.0, ridge=0.2, strength=3.0)
    given = np.random.default_rng(8).random(answers.shape) < 8 / n_models
    return lineage, answers, np.where(given, answers, MISSING), columns(n_items, 1)


@pytest.mark.slow
def test_intervals_cover_where_items_have_few_answers(monkeypatch):
    """Items learn 8 answers by heart: who calibrates on these sees hardly an error."""
    lineage, answers, train, items = sparse_problem(monkeypatch, n_items=600)
    forecaster = Forecaster(rank=4, use_near_duplicates=False)
    covered = {}
    for known_by_heart in (0, 50):
        config = replace(Forecaster._config, enough_answers=known_by_heart)
        monkeypatch.setattr(Forecaster, "_config", config)
        scores = forecaster.fit(train, lineage, items=items).predict(target=~observed(train)).scores
        hidden = np.where(observed(train), MISSING, answers)
        actual = forecaster.scores_.actual(hidden, observed(hidden)).ravel()
        covered[known_by_heart] = scores["lower"].le(actual) & scores["upper"].ge(actual)
    assert covered[50].mean() > covered[0].mean() + 0.03
    assert covered[50].mean() > 0.88


@pytest.mark.slow
def test_who_calibrates_is_unknown_to_the_items(monkeypatch):
    lineage, _, train, items = sparse_problem(monkeypatch)
    train[~observed(train).any(axis=1), 0] = 1  # the rows are then the models of the fit
    forecaster = Forecaster(rank=2, use_near_duplicates=False).fit(train, lineage, items=items)
    rows, zero_shot = forecaster._choose(np.random.default_rng([0, 11]))
    np.testing.assert_array_equal(rows, zero_shot)
    cross_fitted = forecaster._cross_fitted(rows, forecaster.model_, forecaster.prior_.describer)
    flipped = train.copy()
    flipped[rows] = np.where(observed(train[rows]), 1 - train[rows], MISSING)
    other = Forecaster(rank=2, use_near_duplicates=False).fit(flipped, lineage, items=items)
    again = other._cross_fitted(rows, other.model_, other.prior_.describer)
    np.testing.assert_array_equal(cross_fitted.model_.item_factors_, again.model_.item_factors_)
    assert not np.array_equal(forecaster.model_.item_factors_, other.model_.item_factors_)


def test_zero_shot_intervals_are_calibrated_on_more_models(simulated_hub, monkeypatch):
    """Many items leave few models whose answers are revealed; without answers more are cheap."""
    snapshot, lineage = simulated_hub
    config, fitted = CrossFitConfig(50, most_cells=0, enough_answers=0), IntervalCalibration.fit
    monkeypatch.setattr(Forecaster, "_config", config)
    calibrated = {}
    monkeypatch.setattr(
        IntervalCalibration,
        "fit",
        lambda forecasts: calibrated.update(forecasts) or fitted(forecasts),
    )
    forecaster = Forecaster(rank=2).fit(snapshot.responses, lineage, items=snapshot.items)
    rows, zero_shot = forecaster._choose(np.random.default_rng(0))
    assert {k: len(scored.score) for k, scored in calibrated.items()} == {
        k: len(rows if k else zero_shot) for k in calibrated
    }
    assert set(rows) < set(zero_shot)
    for group in (False, True):
        number = (forecaster.lacks_relatives_ == group).sum()
        assert (forecaster.lacks_relatives_[rows] == group).sum() == min(50, number)
        assert (forecaster.lacks_relatives_[zero_shot] == group).sum() == min(config.most, number)


ARTEFACTS = ["moe", "merged", "chat_template", "flagged"]  # that a cast made of missing values


@pytest.mark.slow
class TestRealModels:
    def test_cards_with_nothing_but_a_size_move_no_mean(self, real_data):
        """What is unknown widens forecasts, and on average moves none."""
        snapshot = load_snapshot(real_data / "openllm-v2")
        lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
        split = next(iter(zero_shot(snapshot.responses, lineage)))
        forecaster = Forecaster().fit(
            split.train, lineage, items=snapshot.items, models=snapshot.models
        )
        bare = snapshot.models.copy()
        kept = ["model_id", "params_b"]
        for column in bare.columns.difference(kept):
            bare[column] = bare[column].astype(object)
            bare.loc[split.rows, column] = None
        found, without_cards = (
            one.predict(split.rows).scores.groupby("benchmark")["score"].mean() * 100
            for one in (forecaster, forecaster.adapt(split.train, lineage, models=bare))
        )
        assert (found - without_cards).abs().mean() < 0.5, found - without_cards

    def test_declared_children_are_forecast_better_than_by_their_parents(self, real_data):
        """Models of another evaluator, of which little is known but their parents."""
        snapshot = load_snapshot(real_data / "openllm-v2-derived")
        models = snapshot.models.copy()
        is_theirs = (models["evaluated_by"] == "proteus").to_numpy()
        source = models["lineage_source"].astype(object).fillna("")
        declared = np.flatnonzero(is_theirs & source.str.startswith("tags").to_numpy())
        assert declared.size == 474
        for column in ARTEFACTS:
            models[column] = models[column].astype(object).where(~is_theirs, None)
        lineage = Lineage.from_edges(snapshot.lineage, models["model_id"])
        train = without(snapshot.responses, np.flatnonzero(is_theirs))
        forecaster = Forecaster().fit(train, lineage, items=snapshot.items, models=models)
        forecasts = forecaster.predict(declared).scores
        forecasts = forecasts.pivot(index="row", columns="benchmark", values="score")
        scores = benchmark_scores(snapshot.responses, snapshot.items)
        actual = scores.iloc[declared][forecasts.columns].to_numpy()
        known = scores[forecasts.columns].to_numpy()
        own = np.full(actual.shape, np.nan)
        for place, row in enumerate(declared):
            parents = [lineage.index_of(name) for name in lineage.parents(lineage.node_ids[row])]
            parents = [node for node in parents if node < len(models) and not is_theirs[node]]
            if parents:
                own[place] = known[parents].mean(axis=0)
        both = np.isfinite(own) & np.isfinite(actual)
        assert both.any(axis=1).sum() > 200
        guesses = forecasts.to_numpy(), own
        errors = [np.abs(guess - actual)[both].mean() * 100 for guess in guesses]
        assert errors[0] < errors[1], errors


def test_a_forecast_says_what_it_rests_on(problem, fitted):
    lineage, truth, _, hidden, _, _ = problem
    said = fitted.explain(hidden)
    assert said["row"].tolist() == hidden.tolist()
    evaluated = set(lineage.node_ids[:N_MODELS]) - set(lineage.node_ids[hidden])
    for row in said.itertuples():
        near = row.nearest.split(", ")
        assert set(near) <= evaluated
        assert 0 <= row.lineage <= 1 and 0 <= row.card_and_name <= 1
    # A model with an evaluated parent says so, and is not its own relative.
    hops = lineage.hops_to(
        np.isin(np.arange(lineage.n_nodes), np.setdiff1d(range(N_MODELS), hidden))
    )
    assert (said["relatedness"][hops[hidden] == 1] == "one step").all()
    own = fitted.explain([0])
    assert lineage.node_ids[0] not in own["nearest"][0].split(", ")
