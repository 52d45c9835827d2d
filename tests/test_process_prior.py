"""A Gaussian process as the prior of a factorization, against the lineage field."""

import numpy as np
import pytest
from builders import tiny_lineage, tiny_snapshot
from draws import random_lineage
from test_prior import assert_equal, dense_posterior, random_evidence

from lrmf import LRMF, Forecaster, Lineage
from lrmf.solver.gaussians import Gaussians
from lrmf.solver.prior import LineagePrior
from lrmf.solver.process_prior import ProcessPrior

P = 3
VARIANCE = np.array([0.5, 1.0, 2.0])


def pair(n_models=20, *, seed=0):
    """The same prior as a field on a forest, and as a process with its covariance."""
    lineage = random_lineage(n_models, seed=seed, n_unscored=3)
    precision = np.eye(lineage.n_nodes) + 3.0 * lineage.laplacian.toarray()
    field = LineagePrior(lineage, 1 / VARIANCE, 3.0 / VARIANCE)
    return field, ProcessPrior(np.linalg.inv(precision), VARIANCE), lineage


def diagonal_evidence(n, *, seed=0):
    rng = np.random.default_rng(seed)
    strength = rng.gamma(1.0, 2.0, (n, P)) * (rng.random(n) < 0.7)[:, None]
    return Gaussians(strength[:, :, None] * np.eye(P), strength * rng.standard_normal((n, P)))


class TestProcessPrior:
    def test_lineage_is_the_special_case_with_the_inverse_of_its_field(self):
        field, process, lineage = pair()
        states = np.random.default_rng(1).standard_normal((lineage.n_nodes, P))
        assert process.multiply(states) == pytest.approx(field.multiply(states))
        assert process.diagonal == pytest.approx(field.diagonal)

    @pytest.mark.parametrize("seed", range(3))
    def test_marginals_are_those_of_belief_propagation(self, seed):
        field, process, lineage = pair(seed=seed)
        evidence = diagonal_evidence(lineage.n_nodes, seed=seed)
        found, wanted = process.marginals(evidence), field.marginals(evidence)
        for name in ("posterior", "leave_one_out"):
            expected = getattr(wanted, name)
            assert_equal(getattr(found, name), expected.mean, expected.covariance, tolerance=1e-3)

    def test_evidence_off_the_diagonal_is_integrated_out(self):
        _, process, lineage = pair(seed=4)
        evidence = random_evidence(lineage.n_nodes, P, seed=4)
        precision = np.linalg.inv(process.covariance)
        mean, covariance = dense_posterior(np.stack([precision / v for v in VARIANCE]), evidence)
        found = process.marginals(evidence).posterior
        own = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        assert np.abs((found.mean - mean) / own).mean() < 0.25

    def test_a_leaf_is_the_mean_of_its_parents_and_less_certain(self):
        _, process, lineage = pair()
        marginals = process.marginals(diagonal_evidence(lineage.n_nodes))
        leaf = process.leaf(marginals, [0, 1], [1.0, 1.0])
        parents = marginals.posterior[np.array([0, 1])]
        assert leaf.mean[0] == pytest.approx(parents.mean.mean(axis=0))
        mean_variance = np.diagonal(parents.covariance.mean(axis=0))
        assert (np.diagonal(leaf.covariance[0]) > mean_variance).all()
        assert not process.leaf(marginals, [], []).mean.any()

    def test_a_covariance_that_is_not_positive_definite_is_refused(self):
        with pytest.raises(ValueError, match="positive definite"):
            ProcessPrior(np.array([[1.0, 2.0], [2.0, 1.0]]), VARIANCE)


class TestFactorization:
    def test_any_prior_serves_the_factorization(self):
        """With the process of the lineage LRMF finds what it finds with the field."""
        data, lineage = tiny_snapshot(), tiny_lineage()

        def process(lineage, p):
            precision = np.eye(lineage.n_nodes) + 3.0 * lineage.laplacian.toarray()
            return ProcessPrior(np.linalg.inv(precision), np.ones(p))

        rows = np.arange(5)
        settings = {"rank": 2, "tolerance": 1e-6, "seed": 0}
        field = LRMF(lineage_strength=3.0, **settings).fit(data.responses, lineage)
        other = LRMF(prior=process, **settings).fit(data.responses, lineage)
        assert other.predict_proba(rows) == pytest.approx(field.predict_proba(rows), abs=0.02)
        parents = [(lineage.node_ids[0], "finetune")]
        assert 0 < other.fold_in(parents=parents).scores()["score"][0] < 1

    def test_the_learned_covariance_is_a_prior_as_well(self, simulated_hub):
        """It reads names and cards, so models without relatives are told apart."""
        snapshot, lineage = simulated_hub
        fitted = Forecaster(seed=0).fit(
            snapshot.responses, lineage, items=snapshot.items, models=snapshot.models
        )
        model = fitted.model_
        own = LRMF(**model.get_params() | {"prior": fitted.prior_.of_nodes})
        own.fit(snapshot.responses, model.lineage_, items=snapshot.items)
        rows = np.flatnonzero(lineage.adjacency.sum(axis=1)[: lineage.n_models] == 0)
        mean = own.leave_one_out(rows).mean
        assert np.ptp(mean, axis=0).min() > 0.01
        with pytest.raises(ValueError, match="stranger"):
            fitted.prior_.of_nodes(Lineage.from_edges([], ["stranger"]), 1)
