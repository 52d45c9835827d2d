"""The prior of states: what a model's own responses, parents and open fields may move."""

import numpy as np
import pandas as pd
import pytest
from draws import draw_states, random_lineage

from lrmf import Lineage
from lrmf.data.descriptions import Describer
from lrmf.forecaster.state_prior import StatePrior
from lrmf.solver.gaussians import Gaussians

N, P = 150, 3


@pytest.fixture(scope="module")
def lineage():
    return random_lineage(N, seed=6, n_unscored=5, n_loops=5)


@pytest.fixture(scope="module")
def states(lineage):
    return draw_states(lineage, ridge=0.3, strength=5.0, p=P, seed=6)[:N]


def table(lineage, n=N):
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "model_id": lineage.node_ids[:n],
        "params_b": np.exp(rng.normal(2, 0.3, n)),
        "type": rng.choice(["chat", "base"], n),
    })  # fmt: skip


def evidence_of(states, *, precision=20.0):
    """What very many answers would say of these states."""
    n, p = states.shape
    return Gaussians(np.broadcast_to(precision * np.eye(p), (n, p, p)), precision * states)


def prior_of(states, lineage, *, evaluated=None, models=None, covariance=None, precision=20.0):
    evaluated = np.ones(N, bool) if evaluated is None else evaluated
    models = table(lineage) if models is None else models
    describer = Describer(models, lineage, evaluated)
    gram = np.diag([1.0, 0.5, 2.0])
    prior = StatePrior(covariance=covariance)
    return prior.fit(evidence_of(states[evaluated], precision=precision), gram, describer)


@pytest.fixture(scope="module")
def fitted(states, lineage):
    return prior_of(states, lineage)


def changed(fitted, outputs=None, *, reach=None):
    """The same prior with other outputs of the evaluated models, or another reach."""
    other = StatePrior()
    vars(other).update(vars(fitted))
    if outputs is not None:
        other.condition(fitted.covariance_, outputs, fitted.process_.noise)
    other.reach = fitted.reach if reach is None else reach
    return other


def errors(belief, states):
    return np.mean((belief.mean - states) ** 2)


def test_leave_one_out_priors_of_models_come_close_to_their_states(fitted, states):
    belief = fitted.leave_one_out(np.arange(N))
    assert errors(belief, states) < 0.8 * np.mean((states - states.mean(axis=0)) ** 2)
    assert (np.linalg.eigvalsh(belief.covariance) > 0).all()


def test_leave_one_out_priors_are_as_wide_as_their_errors(fitted, states):
    belief = fitted.leave_one_out(np.arange(N))
    deviation = np.sqrt(np.diagonal(belief.covariance, axis1=1, axis2=2))
    standard = (belief.mean - states) / deviation
    assert 0.6 < np.sqrt(np.mean(standard**2)) < 1.5


def test_own_responses_do_not_move_the_own_belief(states, lineage, fitted):
    """Covariance and outputs' scales are fixed: the process alone is conditioned anew."""
    row = 40
    before = fitted.leave_one_out(np.array([row]))
    outputs = fitted.process_.outputs.copy()
    outputs[row] += 3
    other = changed(fitted, outputs)
    after = other.leave_one_out(np.array([row]))
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-3)
    np.testing.assert_allclose(after.covariance, before.covariance, rtol=1e-4, atol=1e-6)
    # The priors of its nearest relatives move.
    near = np.flatnonzero(lineage.adjacency[[row]].toarray()[0, :N])
    if near.size:
        moved = other.leave_one_out(near).mean - fitted.leave_one_out(near).mean
        assert np.abs(moved).max() > 0.05


def test_leaving_one_out_is_leaving_a_set_of_one_out(fitted):
    one, alone = fitted.leave_one_out(np.array([12])), fitted.leave_set_out(np.array([12]))
    np.testing.assert_allclose(alone.mean, one.mean, atol=1e-3)
    np.testing.assert_allclose(alone.covariance, one.covariance, rtol=1e-3, atol=1e-5)


def test_a_set_left_out_knows_nothing_of_its_members(fitted):
    """Other outputs of the whole set change no belief about it, parents in it included."""
    rows = np.arange(30, 70)
    outputs = fitted.process_.outputs.copy()
    outputs[rows] += np.random.default_rng(0).normal(0, 3, outputs[rows].shape)
    before = changed(fitted, reach=0.25).leave_set_out(rows)
    after = changed(fitted, outputs, reach=0.25).leave_set_out(rows)
    np.testing.assert_allclose(after.mean, before.mean, atol=5e-3)


def test_hidden_models_are_forecast_as_if_left_out(states, lineage):
    """The others the same, a model without evidence is believed what it is when left out."""
    evaluated = np.ones(N, bool)
    hidden = 25
    evaluated[hidden] = False
    everything = prior_of(states, lineage)
    covariance = everything.covariance_
    without = prior_of(states, lineage, evaluated=evaluated, covariance=covariance)
    describer = without.describer
    row = describer.ids.index(lineage.node_ids[hidden])
    forecast = without.forecast(describer.nodes[np.array([row])]).mean
    left_out = everything.leave_one_out(np.array([hidden])).mean
    spread = np.sqrt(np.mean((states - states.mean(axis=0)) ** 2))
    assert np.abs(forecast - left_out).max() < 0.15 * spread


def test_without_parents_nothing_is_drawn_to_them(states, lineage):
    alone = Lineage.from_edges([], lineage.node_ids[:N])
    prior = prior_of(states, alone)
    assert prior.reach == 0
    rows = np.arange(N)
    mean, variance = prior.process_.leave_one_out(rows)
    np.testing.assert_allclose(
        prior._shrunk_to_parents(mean, variance, prior.nodes.parents, 0.5), mean, atol=1e-12
    )


def test_copies_are_drawn_to_their_parents_and_strangers_are_not():
    """Children that are their parents but for a few that are anything else."""
    rng = np.random.default_rng(3)
    n_families = 75
    ids = [f"lab/{side}{number}" for side in "pc" for number in range(n_families)]
    edges = [(f"lab/p{k}", f"lab/c{k}", "finetune") for k in range(n_families)]
    parents = rng.standard_normal((n_families, P))
    children = parents + 0.05 * rng.standard_normal(parents.shape)
    jumped = np.arange(n_families) % 4 == 0
    children[jumped] = rng.standard_normal((jumped.sum(), P))
    states = np.vstack([parents, children])
    lineage = Lineage.from_edges(edges, ids)
    prior = prior_of(states, lineage, precision=200.0)
    assert prior.reach > 0
    rows = np.arange(n_families, 2 * n_families)
    undrawn, drawn = (
        np.abs(one.leave_one_out(rows).mean - children)[~jumped].mean()
        for one in (changed(prior, reach=0.0), prior)
    )
    assert drawn < 0.95 * undrawn


def test_models_without_parents_are_not_drawn_anywhere(fitted):
    roots = np.flatnonzero(np.diff(fitted.nodes.parents.indptr) == 0)
    means = [changed(fitted, reach=reach).leave_one_out(roots).mean for reach in (0.0, 0.5)]
    np.testing.assert_array_equal(*means)


def test_a_stranger_is_an_average_model_with_all_their_variance(fitted, states):
    found, _ = fitted.describer.describe(pd.DataFrame({"model_id": ["xx/yy"]}), [])
    stranger = fitted.forecast(found)
    scale = states.std(axis=0)
    assert (np.abs(stranger.mean[0] - states.mean(axis=0)) < 0.7 * scale).all()
    one = fitted.leave_one_out(np.flatnonzero(np.diff(fitted.nodes.parents.indptr))[:20])
    # Of what it would be told by relatives it knows nothing.
    width = np.trace(stranger.covariance[0])
    assert width > np.trace(one.covariance.mean(axis=0))


def test_open_fields_are_forecast_from_the_rest(states, lineage):
    """The type follows the organization of the name, and the states follow the type."""
    rng = np.random.default_rng(4)
    kind = rng.random(N) < 0.5
    ids = [f"{'chatty' if k else 'basic'}/m{number}" for number, k in enumerate(kind)]
    alone = Lineage.from_edges([], ids)
    models = pd.DataFrame({"model_id": ids, "type": np.where(kind, "chat", "base")})
    follows = np.where(kind[:, None], 1.0, -1.0) + 0.3 * rng.standard_normal((N, P))
    prior = prior_of(follows, alone, models=models)
    new = pd.DataFrame({"model_id": ["chatty/new", "basic/new"], "type": [None, None]})
    found, _ = prior.describer.describe(new, [])
    assert found.open["type"].all()
    filled = prior.filled(found)
    chat = prior.describer.levels["type"].index("chat")
    share = filled.levels["type"][:, chat]
    assert share[0] > 0.6 > 0.4 > share[1]
    np.testing.assert_allclose(filled.levels["type"].sum(axis=1), 1, rtol=1e-5)
    mean = prior.forecast(found).mean
    assert (mean[0] > mean[1] + 0.5).all()


def test_a_seed_determines_the_prior(states, lineage, fitted):
    again = prior_of(states, lineage)
    rows = np.arange(N)
    assert again.covariance_.parameters == fitted.covariance_.parameters
    np.testing.assert_array_equal(again.leave_one_out(rows).mean, fitted.leave_one_out(rows).mean)
