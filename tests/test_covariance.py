"""The covariance of models' states: a covariance, averaged over the unknown, and learned."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import tiny_lineage, tiny_snapshot

from lrmf import Lineage
from lrmf.data.descriptions import Describer
from lrmf.forecaster.covariance import (
    LEAST_NOISE,
    Covariance,
    LearningConfig,
    learn,
)
from lrmf.simulation.simulate import simulate

FIELDS = ["size", "date", "architecture", "type", "chat_template"]


@pytest.fixture(scope="module")
def population():
    """Models of which a third say nothing of one field or another, and their covariance."""
    hub = simulate(n_models=200, n_items=30, seed=2)
    rng = np.random.default_rng(0)
    models = hub.models.copy()
    for name in ("params_b", "created_at", "architecture", "type", "chat_template"):
        models[name] = models[name].where(rng.random(len(models)) > 0.3)
    lineage = Lineage.from_edges(hub.lineage, models["model_id"])
    describer = Describer(models, lineage, np.ones(len(models), bool))
    nodes = describer.nodes[np.arange(describer.n_evaluated)]
    # Names tell the sizes that cards leave open; here some do not.
    size = np.where(rng.random(len(nodes)) < 0.2, np.float32(np.nan), nodes.size)
    nodes = replace(nodes, size=size, open=nodes.open | {"size": np.isnan(size)})
    return nodes, Covariance.default(nodes, describer.change)


def is_positive(matrix):
    matrix = matrix.astype(float)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    return np.linalg.eigvalsh(matrix).min() > -1e-4 * np.trace(matrix) / len(matrix)


def test_matrix_is_a_covariance(population):
    nodes, covariance = population
    assert np.isnan(nodes.size).any() and nodes.open["type"].any()
    matrix = covariance(nodes, nodes) + np.diag(np.full(len(nodes), LEAST_NOISE))
    own = covariance.variance(nodes)
    # What a field leaves open is averaged between models, but not in a model's own variance.
    assert (own >= np.diag(matrix) - 1e-3).all()
    np.fill_diagonal(matrix, own)
    assert is_positive(matrix)


def test_every_term_is_a_covariance(population):
    nodes, covariance = population
    for name, term in covariance.terms(nodes, nodes).items():
        assert is_positive(term), name
        assert term.dtype == np.float32


def test_parts_are_those_of_the_whole(population):
    """Blocks, threads and rows taken apart change no number."""
    nodes, covariance = population
    whole = covariance(nodes, nodes)
    rows, columns = np.array([5, 170, 3]), np.arange(50, 90)
    part = covariance(nodes[rows], nodes[columns])
    np.testing.assert_allclose(part, whole[np.ix_(rows, columns)], atol=1e-6)


def test_diagonal_of_known_models_is_their_variance(population):
    nodes, covariance = population
    known = np.isfinite(nodes.size) & np.isfinite(nodes.date)
    known &= ~np.any([mask for mask in nodes.open.values()], axis=0)
    known &= (nodes.organization >= 0) & (nodes.levels["architecture"].max(axis=1) == 1)
    known = nodes[np.flatnonzero(known)]
    assert len(known) > 5
    shared = np.diag(covariance(known, known)) + covariance.parameters["noise"]
    np.testing.assert_allclose(shared, covariance.variance(known), rtol=1e-3)


def card_term(covariance, a, b):
    return covariance.terms(a, b)["card and name"]


@pytest.mark.parametrize("name", ["size", "date"])
def test_over_an_unknown_number_the_covariance_is_averaged(population, name):
    nodes, covariance = population
    atoms = covariance.atoms[name]
    one, others = nodes[np.array([0])], nodes[np.flatnonzero(np.isfinite(getattr(nodes, name)))]
    unknown = replace(one, **{name: np.array([np.nan], np.float32)})
    found = card_term(covariance, unknown, others)
    each = [
        card_term(covariance, replace(one, **{name: np.array([atom], np.float32)}), others)
        for atom in atoms
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-5)
    # Between two unknown ones over both.
    among = [
        card_term(covariance, replace(one, **{name: np.array([a], np.float32)}),
                  replace(one, **{name: np.array([b], np.float32)}))
        for a in atoms for b in atoms
    ]  # fmt: skip
    np.testing.assert_allclose(card_term(covariance, unknown, unknown), np.mean(among), atol=1e-5)


@pytest.mark.parametrize("name", ["architecture", "type", "chat_template"])
def test_over_an_unknown_category_the_covariance_is_averaged(population, name):
    nodes, covariance = population
    row = int(np.flatnonzero(nodes.open[name])[0])
    open_one = nodes[np.array([row])]
    probabilities = open_one.levels[name][0]
    assert probabilities.sum() == pytest.approx(1) and (probabilities > 0).sum() > 1
    each = [
        probability * card_term(covariance, open_one.replace({name: level[None]}), nodes)
        for probability, level in zip(
            probabilities, np.eye(probabilities.size, dtype=np.float32), strict=True
        )
    ]
    found = card_term(covariance, open_one, nodes)
    np.testing.assert_allclose(found, np.sum(each, axis=0), atol=1e-5)


def test_what_is_unknown_does_not_narrow_a_model_s_own_variance(population):
    nodes, covariance = population
    one = nodes[np.flatnonzero(np.isfinite(nodes.size))[:1]]
    unknown = replace(one, size=np.array([np.nan], np.float32))
    for name in covariance._linear(one):
        covariance = covariance.without([name])  # the trend of known sizes adds to their variance
    np.testing.assert_allclose(covariance.variance(unknown), covariance.variance(one), rtol=1e-5)


@pytest.mark.parametrize("name", FIELDS)
def test_without_a_field_it_does_not_matter(population, name):
    nodes, covariance = population
    blind = covariance.without([name] + (["base"] if name in ("size", "architecture") else []))
    rng = np.random.default_rng(1)
    other = nodes.replace({name: rng.permutation(nodes.table(name))})
    np.testing.assert_allclose(blind(other, nodes), blind(nodes, nodes), atol=1e-6)
    assert np.abs(covariance(other, nodes) - covariance(nodes, nodes)).max() > 0.01
    np.testing.assert_allclose(blind.variance(other), blind.variance(nodes), rtol=1e-6)


def test_closer_models_are_more_alike(population):
    nodes, covariance = population
    one = nodes[np.flatnonzero(np.isfinite(nodes.size))[:1]]
    further = [
        covariance.terms(replace(one, size=one.size + np.float32(step)), one)["card and name"]
        for step in (0, 0.1, 1, 3)
    ]
    assert (np.diff(np.ravel(further)) < 0).all()


def test_models_without_cards_need_no_card_parameters():
    describer = Describer(None, tiny_lineage(), np.ones(12, bool))
    covariance = Covariance.default(describer.nodes, describer.change)
    assert not {*FIELDS, "base", "size, linear"} & set(covariance.parameters)
    nodes = describer.nodes
    matrix = covariance(nodes, nodes)
    np.fill_diagonal(matrix, covariance.variance(nodes))
    assert is_positive(matrix)


def draw(covariance, nodes, *, n_outputs=4, seed=0):
    """Outputs drawn from this covariance, scaled to variance 1."""
    matrix = covariance(nodes, nodes).astype(float)
    matrix[np.diag_indices_from(matrix)] += covariance.parameters["noise"] + LEAST_NOISE
    rng = np.random.default_rng(seed)
    outputs = np.linalg.cholesky(matrix) @ rng.standard_normal((len(nodes), n_outputs))
    return outputs / outputs.std(axis=0)


def penalised(covariance, nodes, outputs, *, about, spread):
    """The objective of `learn`, written down densely."""
    matrix = covariance(nodes, nodes).astype(float)
    matrix[np.diag_indices_from(matrix)] += covariance.parameters["noise"] + LEAST_NOISE
    _, log_det = np.linalg.slogdet(matrix)
    value = outputs.shape[1] * log_det + np.sum(outputs * np.linalg.solve(matrix, outputs))
    away = [np.log(value / about.parameters[name]) for name, value in covariance.parameters.items()]
    return 0.5 * value + 0.5 * np.sum(np.square(away)) / spread**2


class TestLearning:
    def test_learning_raises_the_marginal_likelihood(self, population):
        nodes, default = population
        truth = {"size": 0.2, "organization": 2.0, "noise": 0.4, "card and name": 0.5}
        outputs = draw(default.with_parameters(default.parameters | truth), nodes)
        learned = learn(default, nodes, outputs, np.zeros(outputs.shape), seed=0)
        spread = LearningConfig().prior_std
        before, after = (
            penalised(c, nodes, outputs, about=default, spread=spread) for c in (default, learned)
        )
        assert after < before - 5
        assert set(learned.parameters) == set(default.parameters)

    def test_what_is_learned_is_a_maximum(self, population):
        """Steps away from the learned parameters, up and down, raise the objective."""
        nodes, default = population
        nodes = nodes[np.arange(80)]
        outputs, config = draw(default, nodes, seed=1), LearningConfig(n_steps=200)
        learned = learn(default, nodes, outputs, np.zeros(outputs.shape), seed=0, config=config)
        least = penalised(learned, nodes, outputs, about=default, spread=config.prior_std)
        for name, value in learned.parameters.items():
            if name == "lineage":
                continue
            for factor in (0.7, 1.4):
                other = learned.with_parameters(learned.parameters | {name: factor * value})
                found = penalised(other, nodes, outputs, about=default, spread=config.prior_std)
                assert found > least - 0.02, (name, factor)

    def test_fields_that_say_nothing_are_learned_to_matter_less(self, population):
        nodes, default = population
        matters = default.with_parameters(default.parameters | {"organization": 3.0})
        does_not = default.with_parameters(default.parameters | {"organization": 1e-4})
        noise = np.zeros((len(nodes), 8))
        rates = [
            learn(default, nodes, draw(truth, nodes, n_outputs=8), noise, seed=0)
            .parameters["organization"]
            for truth in (does_not, matters)
        ]  # fmt: skip
        assert rates[0] < 0.3 < 1 < rates[1]

    def test_a_seed_determines_what_is_learned(self, population):
        nodes, default = population
        outputs, noise = draw(default, nodes), np.zeros((len(nodes), 4))
        config = LearningConfig(n_models=100, n_steps=5)
        one, again = (
            learn(default, nodes, outputs, noise, seed=3, config=config) for _ in range(2)
        )
        assert one.parameters == again.parameters

    def test_two_models_are_enough(self):
        data = tiny_snapshot()
        models = data.models.iloc[:2]
        lineage = Lineage.from_edges([], models["model_id"])
        nodes = Describer(models, lineage, np.ones(2, bool)).nodes
        default = Covariance.default(nodes, np.ones(2))
        learned = learn(default, nodes, np.array([[1.0], [-1.0]]), np.zeros((2, 1)), seed=0)
        assert np.isfinite(list(learned.parameters.values())).all()

    def test_extreme_outputs_leave_parameters_finite(self, population):
        """All alike, and nothing but noise: parameters run to where their prior holds them."""
        nodes, default = population
        rng = np.random.default_rng(0)
        for outputs in (np.zeros((len(nodes), 3)), 1e3 * rng.standard_normal((len(nodes), 3))):
            learned = learn(default, nodes, outputs, np.zeros(outputs.shape), seed=0)
            values = np.array(list(learned.parameters.values()))
            assert np.isfinite(values).all() and (values > 0).all()

    @pytest.mark.parametrize("weight", [1e-3, 3.0])
    def test_the_weight_of_lineage_rises_but_never_falls(self, population, weight):
        nodes, default = population
        truth = default.parameters | {"lineage": weight, "card and name": 0.2, "noise": 0.01}
        outputs = draw(default.with_parameters(truth), nodes, n_outputs=30)
        learned = learn(default, nodes, outputs, np.zeros(outputs.shape), seed=0)
        least = default.parameters["lineage"]
        if weight < least:
            assert learned.parameters["lineage"] == pytest.approx(least)
        else:
            assert learned.parameters["lineage"] > 2 * least


def test_duplicates_are_alike_but_for_the_noise():
    models = pd.DataFrame({"model_id": ["lab/a", "lab/b"], "params_b": 7.0})
    lineage = Lineage.from_edges([], models["model_id"])
    nodes = Describer(models, lineage, np.ones(2, bool), use_names=False).nodes
    covariance = Covariance.default(nodes, np.ones(2))
    matrix = covariance(nodes, nodes)
    card = covariance.terms(nodes, nodes)["card and name"]
    # Without names and organizations only these tell them apart.
    rates = sum(covariance.parameters[name] for name in ("grams", "tokens", "organization"))
    assert card[0, 1] == pytest.approx(np.exp(-rates), rel=1e-4)
    assert is_positive(matrix)
