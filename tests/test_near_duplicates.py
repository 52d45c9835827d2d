"""Near-duplicates: a mixture over candidates by relatedness and by the answers revealed."""

from dataclasses import replace

import numpy as np
import pytest
from draws import draw_answers, random_lineage

from lrmf.data.responses import MISSING
from lrmf.forecaster import near_duplicates as module
from lrmf.forecaster.near_duplicates import (
    CONFIG,
    NearDuplicates,
    Relatedness,
    RevealedAnswers,
    forecast_in_turn,
)

N_MODELS, N_ITEMS = 120, 150


@pytest.fixture(scope="module")
def copies():
    """Answers of models of which every child is its parent, but for a tenth of the answers."""
    rng = np.random.default_rng(1)
    lineage = random_lineage(N_MODELS, seed=1)
    answers, probability = draw_answers(lineage, N_ITEMS, seed=1, strength=0.01)
    for child in np.argsort(lineage.depth[:N_MODELS], kind="stable"):
        for parent in lineage.parents(lineage.node_ids[child])[:1]:
            answers[child] = answers[lineage.index_of(parent)]
            redrawn = rng.random(N_ITEMS) < 0.1
            answers[child, redrawn] = rng.random(redrawn.sum()) < 0.5
    expected = np.tile(answers.mean(axis=0, dtype=np.float32), (len(answers), 1))
    return lineage, answers, expected


def revealed(answers, k, seed=0):
    rng = np.random.default_rng(seed)
    order = rng.random(answers.shape).argsort(axis=1).argsort(axis=1)
    return np.where(order < k, answers, MISSING).astype(np.uint8)


def at(expected, shown):
    """The forecasts of the answers shown."""
    cells = shown.cells.tocoo()
    return expected[cells.coords]


def relations(lineage, rows):
    """Relatedness of the candidates (all models) to these rows, and which have no relatives."""
    kin = Relatedness(lineage, np.arange(N_MODELS)).of(rows)
    return (lambda block: kin[block]), ~(kin > 0).any(axis=1)


def learned(lineage, answers, expected):
    mixture = NearDuplicates(answers)
    kin, lacks_relatives = relations(lineage, np.arange(len(answers)))
    for k in CONFIG.n_revealed:
        shown = RevealedAnswers(revealed(answers, k))
        mixture.learn(k, kin, lacks_relatives, at(expected, shown), shown)
    return mixture


def weigh(mixture, lineage, rows, expected, answers):
    """Weights for the rows of a matrix of revealed answers."""
    shown = RevealedAnswers(answers)
    return mixture.weights(*relations(lineage, rows), at(expected, shown), shown)


def log_loss(probability, answers, cells):
    chance = np.where(answers == 1, probability, 1 - probability)[cells]
    return -np.log(np.clip(chance, 1e-6, 1)).mean()


@pytest.fixture(scope="module")
def mixture(copies):
    return learned(*copies)


def test_relatives_forecast_a_copy_before_any_answer(copies, mixture):
    lineage, answers, expected = copies
    rows = np.flatnonzero(np.diff(lineage.adjacency.indptr)[:N_MODELS] > 0)
    nothing = np.full((len(rows), N_ITEMS), MISSING, np.uint8)
    weights = weigh(mixture, lineage, rows, expected[rows], nothing)
    mixed = mixture.blend(weights, expected[rows])
    everywhere = np.ones(mixed.shape, bool)
    assert log_loss(mixed, answers[rows], everywhere) < 0.8 * log_loss(
        expected[rows], answers[rows], everywhere
    )


def test_answers_single_out_the_parent(copies, mixture):
    lineage, answers, expected = copies
    rows = np.array(
        [child for child in range(N_MODELS) if lineage.parents(lineage.node_ids[child])]
    )
    weights = weigh(mixture, lineage, rows, expected[rows], revealed(answers, 100)[rows]).toarray()
    heaviest = weights.argmax(axis=1)
    near = lineage.adjacency[rows][:, :N_MODELS].toarray() > 0
    assert near[np.arange(len(rows)), heaviest].mean() > 0.8


def test_answers_find_copies_without_any_lineage(copies):
    lineage, answers, expected = copies
    mixture = learned(lineage.drop_edges(1.0, seed=0), answers, expected)
    rows = np.arange(N_MODELS)
    losses = []
    for k in (0, 20, 100):
        shown = revealed(answers, k)
        mixed = mixture.blend(weigh(mixture, lineage, rows, expected, shown), expected)
        losses.append(log_loss(mixed, answers, shown == MISSING))
    assert losses[0] > losses[1] > losses[2]


def test_a_forecast_that_learned_from_the_answers_needs_no_copies():
    """Without copies the truth, once LRMF knows it from many answers, is not traded for them."""
    lineage = random_lineage(N_MODELS, seed=3)
    answers, probability = draw_answers(lineage, 400, seed=3, strength=1.0)
    before = np.tile(answers.mean(axis=0, dtype=np.float32), (len(answers), 1))
    rows, shown = np.arange(N_MODELS), RevealedAnswers(revealed(answers, 200))
    before, truth = at(before, shown), at(probability.astype(np.float32), shown)
    in_turn = forecast_in_turn(before, truth, shown)
    share = {}
    for name, expected in {"before": before, "in turn": in_turn}.items():
        mixture = NearDuplicates(answers)
        mixture.learn(200, *relations(lineage, rows), expected, shown)
        share[name] = mixture.weights(*relations(lineage, rows), expected, shown).sum(axis=1).mean()
    assert share["in turn"] < 0.05 < 2 * share["before"]


def test_weights_are_a_share_of_the_forecast(copies, mixture):
    lineage, answers, expected = copies
    weights = weigh(mixture, lineage, np.arange(N_MODELS), expected, revealed(answers, 20))
    total = weights.sum(axis=1)
    assert (weights.data >= 0).all() and (total <= 1 + 1e-5).all()
    mixed = mixture.blend(weights, expected)
    assert mixed.dtype == np.float32 and (mixed >= 0).all() and (mixed <= 1 + 1e-6).all()


def test_a_model_is_no_candidate_for_itself(copies, mixture):
    lineage, answers, expected = copies
    weights = weigh(mixture, lineage, np.arange(N_MODELS), expected, answers).toarray()
    own = np.eye(N_MODELS, dtype=bool)
    assert (weights[own] == 0).all()


def test_answers_that_are_not_revealed_do_not_count(copies, mixture):
    lineage, answers, expected = copies
    row, shown = np.array([5]), revealed(answers, 20)[[5]]
    before = weigh(mixture, lineage, row, expected[row], shown)
    changed = answers.copy()
    changed[5] = np.where(shown[0] == MISSING, 1 - answers[5], answers[5])
    other = NearDuplicates(changed, mixture.mixture_weights)
    after = weigh(other, lineage, row, expected[row], shown)
    np.testing.assert_array_equal(after.toarray(), before.toarray())


def test_cells_a_copy_was_not_asked_fall_back(copies):
    lineage, answers, expected = copies
    thin = answers.copy()
    thin[:, :10] = MISSING
    mixture = learned(lineage, thin, expected)
    weights = weigh(mixture, lineage, np.arange(4), expected[:4], revealed(thin, 20)[:4])
    mixed = mixture.blend(weights, expected[:4])
    np.testing.assert_allclose(mixed[:, :10], expected[:4, :10], atol=1e-6)
    columns = np.array([3, 60, 149])
    np.testing.assert_array_equal(
        mixture.blend(weights, expected[:4][:, columns], columns), mixed[:, columns]
    )


def test_models_with_nothing_to_go_by_are_left_alone(copies, mixture):
    lineage, _, expected = copies
    loners = np.flatnonzero(np.diff(lineage.adjacency.indptr)[:N_MODELS] == 0)
    assert len(loners)
    nothing = np.full((len(loners), N_ITEMS), MISSING, np.uint8)
    weights = weigh(mixture, lineage, loners, expected[loners], nothing)
    np.testing.assert_array_equal(mixture.blend(weights, expected[loners]), expected[loners])


def test_without_learning_the_forecast_stays(copies):
    lineage, answers, expected = copies
    mixture = NearDuplicates(answers)
    weights = weigh(mixture, lineage, np.arange(3), expected[:3], revealed(answers, 20)[:3])
    np.testing.assert_array_equal(mixture.blend(weights, expected[:3]), expected[:3])


def test_every_answer_shown_counts_whatever_the_others_of_the_block_were_asked(copies, mixture):
    """Models forecast together are asked different items, more of them than weigh any one."""
    lineage, answers, expected = copies
    rows, shown = np.arange(40), revealed(answers, 20)[:40]
    together = weigh(mixture, lineage, rows, expected[rows], shown).toarray()
    for row in (0, 17, 39):
        alone = weigh(mixture, lineage, rows[[row]], expected[[row]], shown[[row]]).toarray()
        np.testing.assert_allclose(together[[row]], alone, rtol=1e-5, atol=1e-7)


class TestShownAnswers:
    def test_all_of_them_if_they_are_few(self, copies):
        shown = RevealedAnswers(revealed(copies[1], 20))
        assert (shown.n_revealed == 20).all() and shown.cells.nnz == 20 * N_MODELS

    def test_an_even_sample_if_they_are_many(self, copies, monkeypatch):
        config = replace(CONFIG, most_revealed=7)
        monkeypatch.setattr(module, "CONFIG", config)
        answers = revealed(copies[1], 100)
        answers[0], answers[1, 3:] = MISSING, MISSING
        shown = RevealedAnswers(answers)
        kept = np.diff(shown.cells.indptr)
        assert shown.n_revealed[:3].tolist() == [0, (answers[1] != MISSING).sum(), 100]
        np.testing.assert_array_equal(kept, np.minimum(shown.n_revealed, 7))
        cells = shown.cells.tocoo()
        np.testing.assert_array_equal(cells.data, answers[cells.coords])
        known = np.flatnonzero(answers[2] != MISSING)
        gaps = np.diff(np.searchsorted(known, shown.cells[[2]].indices))
        assert gaps.min() >= 14 and gaps.max() <= 15


class TestForecastInTurn:
    """Between the forecast before any answer and that given all others, nearer to the latter."""

    def in_turn(self, n, before=0.6, last=0.9, *, answer=1):
        shown = RevealedAnswers(np.full((1, n), answer, np.uint8))
        before, last = (
            np.full(min(n, CONFIG.most_revealed), p, np.float32) for p in (before, last)
        )
        return forecast_in_turn(before, last, shown)

    def test_a_single_answer_is_forecast_from_lineage(self):
        assert self.in_turn(1, 0.2, 0.2) == pytest.approx(0.2)
        assert 0.2 <= self.in_turn(1, 0.2, 0.8) < 0.22

    def test_more_answers_bring_it_nearer_to_all_others(self):
        gaps = [abs(self.in_turn(n)[0] - 0.9) for n in (3, 30, 300, 30_000)]
        assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.01

    def test_wrong_answers_mirror_correct_ones(self):
        wrong = self.in_turn(30, 1 - 0.6, 1 - 0.9, answer=0)
        np.testing.assert_allclose(wrong, 1 - self.in_turn(30), atol=1e-6)

    def test_mean_log_chance_is_that_of_learning_step_by_step(self):
        n, n0 = 200, 20
        shares = 1 / (1 + np.arange(n) / n0)
        expected = np.exp(np.mean(shares * np.log(0.6) + (1 - shares) * np.log(0.9)))
        assert self.in_turn(n)[0] == pytest.approx(expected, rel=0.01)
