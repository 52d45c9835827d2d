"""The lineage prior against dense linear algebra on small graphs."""

import numpy as np
import pytest
from draws import random_lineage

from lrmf import Lineage
from lrmf.solver.gaussians import Gaussians, pack
from lrmf.solver.prior import LineagePrior, Marginals, penalty, solve

RIDGE = np.array([0.5, 1.0, 2.0])
STRENGTH = np.array([3.0, 0.0, 10.0])
P = len(RIDGE)
EXACT = 1e-13  # tolerance of belief propagation where the answer is compared to more digits


def forest(n_models=20, *, seed=0, n_loops=0):
    return random_lineage(n_models, seed=seed, n_unscored=3, n_loops=n_loops)


def field(lineage, ridge=RIDGE, strength=STRENGTH):
    """Q_k = ridge_k I + strength_k L, (p, n_nodes, n_nodes)."""
    laplacian = lineage.laplacian.toarray()
    return np.stack(
        [r * np.eye(lineage.n_nodes) + s * laplacian for r, s in zip(ridge, strength, strict=True)]
    )


def joint_precision(blocks, evidence=None):
    """One matrix over (node, component) from a precision for each component, plus evidence."""
    p, n = blocks.shape[:2]
    joint = np.zeros((n, p, n, p))
    for k, block in enumerate(blocks):
        joint[:, k, :, k] = block
    if evidence is not None:
        for node, precision in enumerate(evidence.precision):
            joint[node, :, node, :] += precision
    return joint.reshape(n * p, n * p)


def dense_posterior(blocks, evidence):
    """Means (n, p) and covariances (n, p, p) of the nodes by inverting the joint precision."""
    p, n = blocks.shape[:2]
    covariance = np.linalg.inv(joint_precision(blocks, evidence))
    mean = (covariance @ evidence.information.ravel()).reshape(n, p)
    node = np.arange(n)
    return mean, covariance.reshape(n, p, n, p)[node, :, node, :]


def random_evidence(n, p=P, *, seed=0, share=0.6):
    """Evidence of rank p - 1 about a share of the nodes, none about the others."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, p, max(1, p - 1))) * rng.choice([0.3, 3.0], (n, 1, 1))
    factors *= (rng.random(n) < share)[:, None, None]
    precision = factors @ factors.transpose(0, 2, 1)
    mean = rng.standard_normal((n, p))
    return Gaussians(precision, np.einsum("nij,nj->ni", precision, mean))


def assert_equal(gaussians, mean, covariance, tolerance=1e-8):
    assert gaussians.mean == pytest.approx(mean, abs=tolerance)
    assert gaussians.covariance == pytest.approx(covariance, abs=tolerance)


class TestGaussians:
    def test_product_and_quotient_are_inverse(self):
        one, other = random_evidence(4, seed=1), random_evidence(4, seed=2)
        back = one * other / other
        assert back.precision == pytest.approx(one.precision)
        assert back.information == pytest.approx(one.information)

    def test_shift_moves_the_mean_only(self):
        proper = random_evidence(4) * Gaussians(np.eye(P)[None], np.zeros((1, P)))
        offset = np.arange(4.0 * P).reshape(4, P)
        assert_equal(proper.shift(offset), proper.mean + offset, proper.covariance)

    def test_widen_adds_variance_and_temper_divides_it(self):
        proper = random_evidence(4) * Gaussians(np.eye(P)[None], np.ones((1, P)))
        assert_equal(proper.widen(0.3), proper.mean, proper.covariance + 0.3 * np.eye(P))
        assert_equal(proper.widen(0.0), proper.mean, proper.covariance)
        assert_equal(proper.temper(0.5), proper.mean, proper.covariance / 0.5)

    def test_pad_appends_rows_that_say_nothing(self):
        evidence = random_evidence(3)
        padded = evidence.pad(5)
        assert np.array_equal(padded.precision[:3], evidence.precision)
        assert padded.information.shape == (5, P) and not padded[np.array([3, 4])].precision.any()


class TestPrecision:
    @pytest.mark.parametrize("n_features", [0, 1, 4])
    def test_multiply_is_the_precision_with_weights_integrated_out(self, n_features):
        """Q - Q F (F'QF + rho)^-1 F'Q, which is the inverse of Q^-1 + F F' / rho."""
        lineage = forest(n_loops=3)
        rng = np.random.default_rng(3)
        features = rng.standard_normal((lineage.n_nodes, n_features))
        prior = LineagePrior(lineage, RIDGE, STRENGTH, features=features, feature_ridge=7.0)
        states = rng.standard_normal((lineage.n_nodes, P))
        for k, q in enumerate(field(lineage)):
            gram = features.T @ q @ features + 7.0 * np.eye(n_features)
            precision = q - q @ features @ np.linalg.inv(gram) @ features.T @ q
            assert prior.multiply(states)[:, k] == pytest.approx(precision @ states[:, k])
            marginal = np.linalg.inv(q) + features @ features.T / 7.0
            assert precision == pytest.approx(np.linalg.inv(marginal), abs=1e-8)

    def test_penalty_is_the_least_over_the_weights(self):
        lineage = forest()
        rng = np.random.default_rng(4)
        features = rng.standard_normal((lineage.n_nodes, 2))
        prior = LineagePrior(lineage, RIDGE, STRENGTH, features=features, feature_ridge=5.0)
        states = rng.standard_normal((lineage.n_nodes, P))
        least, mean = 0.0, np.zeros_like(states)
        for k, q in enumerate(field(lineage)):
            gram = features.T @ q @ features + 5.0 * np.eye(2)
            weights = np.linalg.solve(gram, features.T @ q @ states[:, k])
            mean[:, k] = features @ weights
            rest = states[:, k] - mean[:, k]
            least += 0.5 * (rest @ q @ rest + 5.0 * weights @ weights)
        assert penalty(prior, states) == pytest.approx(least)
        assert prior.at(states).mean == pytest.approx(mean)

    def test_penalty_without_features_is_ridge_and_differences_along_edges(self):
        lineage = forest()
        states = np.random.default_rng(5).standard_normal((lineage.n_nodes, P))
        changes = states[lineage.parent_index] - states[lineage.child_index]
        expected = 0.5 * np.sum(RIDGE * states**2) + 0.5 * np.sum(STRENGTH * changes**2)
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        assert penalty(prior, states) == pytest.approx(expected)
        assert not prior.at(states).mean.any()

    def test_multiply_is_the_gradient_of_the_penalty(self):
        lineage = forest()
        rng = np.random.default_rng(6)
        features = rng.standard_normal((lineage.n_nodes, 2))
        prior = LineagePrior(lineage, RIDGE, STRENGTH, features=features)
        states, direction = rng.standard_normal((2, lineage.n_nodes, P))
        rise = penalty(prior, states + 1e-4 * direction) - penalty(prior, states - 1e-4 * direction)
        assert rise / 2e-4 == pytest.approx(np.sum(prior.multiply(states) * direction))


class TestSolve:
    @pytest.mark.parametrize("n_features", [0, 3])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_equals_a_dense_solve(self, n_features, dtype):
        lineage = forest(30, n_loops=5)
        n = lineage.n_nodes
        rng = np.random.default_rng(7)
        features = rng.standard_normal((n, n_features))
        prior = LineagePrior(lineage, RIDGE, STRENGTH, features=features, feature_ridge=2.0)
        evidence = random_evidence(n)
        hessian = pack(evidence.precision.astype(dtype))
        right = rng.standard_normal((n, P))
        solution, iterations = solve(prior, hessian, right, rtol=1e-10)
        blocks = []
        for q in field(lineage):
            gram = features.T @ q @ features + 2.0 * np.eye(n_features)
            blocks.append(q - q @ features @ np.linalg.inv(gram) @ features.T @ q)
        joint = joint_precision(np.stack(blocks), Gaussians(evidence.precision, right))
        expected = np.linalg.solve(joint, right.ravel()).reshape(n, P)
        assert solution == pytest.approx(expected, abs=1e-7 if dtype == np.float64 else 1e-4)
        assert 0 < iterations < n * P

    def test_nothing_on_the_right_gives_nothing(self):
        lineage = forest()
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        nothing = np.zeros((lineage.n_nodes, P))
        hessian = pack(random_evidence(lineage.n_nodes).precision)
        solution, iterations = solve(prior, hessian, nothing, rtol=1e-2)
        assert not solution.any() and iterations == 0

    def test_gives_up_after_max_iterations(self):
        lineage = forest()
        prior = LineagePrior(lineage, RIDGE, 1e6 * STRENGTH)
        hessian = pack(random_evidence(lineage.n_nodes).precision)
        right = np.ones((lineage.n_nodes, P))
        _, iterations = solve(prior, hessian, right, rtol=1e-15, max_iterations=2)
        assert iterations == 2


class TestPropagate:
    @pytest.mark.parametrize("seed", range(8))
    def test_equals_the_dense_inverse_on_forests(self, seed):
        lineage = forest(25, seed=seed)
        evidence = random_evidence(lineage.n_nodes, seed=seed, share=[0.1, 0.6, 1.0][seed % 3])
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        marginals = prior.propagate(evidence, tolerance=EXACT)
        assert_equal(marginals, *dense_posterior(field(lineage), evidence))
        rough = prior.propagate(evidence)
        assert_equal(rough, marginals.mean, marginals.covariance, tolerance=1e-4)

    @pytest.mark.parametrize("weights", [{"merge": 0.2}, {"finetune": 4.0, "merge": 0.0}])
    def test_knows_the_weights_of_edges(self, weights):
        edges = [("a", "b", "finetune"), ("c", "b", "merge"), ("b", "d", "finetune")]
        lineage = Lineage.from_edges(edges, list("bcd"), relation_weights=weights)
        evidence = random_evidence(lineage.n_nodes, share=1.0)
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        marginals = prior.propagate(evidence, tolerance=EXACT)
        assert_equal(marginals, *dense_posterior(field(lineage), evidence))

    @pytest.mark.parametrize("seed", range(4))
    def test_loops_keep_the_means_and_shrink_the_variances(self, seed):
        lineage = forest(25, seed=seed, n_loops=8)
        evidence = random_evidence(lineage.n_nodes, seed=seed)
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        marginals = prior.propagate(evidence, tolerance=EXACT)
        mean, covariance = dense_posterior(field(lineage), evidence)
        assert marginals.mean == pytest.approx(mean, abs=1e-7)
        ratio = np.diagonal(marginals.covariance, axis1=1, axis2=2)
        ratio = ratio / np.diagonal(covariance, axis1=1, axis2=2)
        assert (ratio <= 1 + 1e-7).all() and (ratio > 0.5).all() and (ratio < 0.999).any()

    def test_one_marginal_less_its_own_evidence_leaves_the_node_out(self):
        lineage = forest(25, seed=3)
        evidence = random_evidence(lineage.n_nodes, seed=3)
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        left_out = prior.propagate(evidence, tolerance=EXACT) / evidence
        for node in range(lineage.n_nodes):
            others = np.arange(lineage.n_nodes) != node
            mean, covariance = dense_posterior(
                field(lineage),
                Gaussians(
                    evidence.precision * others[:, None, None],
                    evidence.information * others[:, None],
                ),
            )
            assert_equal(left_out[[node]], mean[[node]], covariance[[node]])

    def test_agrees_with_solve(self):
        lineage = forest(40, n_loops=6)
        evidence = random_evidence(lineage.n_nodes)
        prior = LineagePrior(lineage, RIDGE, STRENGTH)
        solution, _ = solve(prior, pack(evidence.precision), evidence.information, rtol=1e-10)
        assert prior.propagate(evidence).mean == pytest.approx(solution, abs=1e-4)

    @pytest.mark.parametrize("strength", [0.0, 1e-6, 1e3])
    def test_chains_and_stars(self, strength):
        names = [f"m{number:02}" for number in range(40)]
        chain = [(a, b, "finetune") for a, b in zip(names, names[1:], strict=False)]
        star = [(names[0], name, "finetune") for name in names[1:]]
        for edges in (chain, star):
            lineage = Lineage.from_edges(edges, names)
            evidence = random_evidence(40, p=2, share=0.2)
            ridge, strengths = np.ones(2), np.full(2, strength)
            prior = LineagePrior(lineage, ridge, strengths)
            expected = dense_posterior(field(lineage, ridge, strengths), evidence)
            assert_equal(prior.propagate(evidence, tolerance=EXACT), *expected, tolerance=1e-6)

    def test_no_edges_at_all(self):
        lineage = Lineage.from_edges([], ["a", "b"])
        evidence = random_evidence(2, share=1.0)
        marginals = LineagePrior(lineage, RIDGE, STRENGTH).propagate(evidence)
        assert_equal(marginals, *dense_posterior(field(lineage), evidence))

    def test_a_node_without_evidence_gets_the_shrunk_mean_of_its_neighbours(self):
        """strength sum_v w_v t_v / (ridge + strength sum_v w_v), its neighbours being certain."""
        edges = [("a", "x", "merge"), ("b", "x", "merge"), ("x", "c", "finetune")]
        weights = {"merge": 0.5}
        lineage = Lineage.from_edges(edges, ["a", "b", "c", "x"], relation_weights=weights)
        states = np.random.default_rng(8).standard_normal((4, P))
        certain = 1e9 * np.array([1, 1, 1, 0])
        evidence = Gaussians(certain[:, None, None] * np.eye(P), certain[:, None] * states)
        marginal = LineagePrior(lineage, RIDGE, STRENGTH).propagate(evidence)
        total = 0.5 * states[0] + 0.5 * states[1] + states[2]
        assert marginal.mean[3] == pytest.approx(STRENGTH * total / (RIDGE + 2 * STRENGTH))


class TestAttach:
    @pytest.mark.parametrize("n_parents", [0, 1, 2])
    def test_equals_adding_the_node_to_the_graph(self, n_parents):
        """A leaf on one parent, or on parents in different trees: the graph stays a forest."""
        left, right = [("a", "b"), ("b", "c")], [("u", "v"), ("u", "w")]
        edges = [(*edge, "finetune") for edge in left + right]
        parents, weights = [("b", 1.0), ("w", 0.4)][:n_parents], {"merge": 0.4}
        old = Lineage.from_edges(edges, list("abcuvw"), relation_weights=weights)
        leaf = [("b", "new", "finetune"), ("w", "new", "merge")][:n_parents]
        ids = [*"abcuvw", "new"]
        new = Lineage.from_edges(edges + leaf, ids, relation_weights=weights)
        evidence = random_evidence(6, share=1.0)
        prior = LineagePrior(old, RIDGE, STRENGTH)
        marginals = prior.propagate(evidence, tolerance=EXACT)
        nodes = [old.index_of(parent) for parent, _ in parents]
        attached = prior.leaf(
            Marginals(marginals, marginals, evidence), nodes, [weight for _, weight in parents]
        )
        mean, covariance = dense_posterior(field(new), evidence.pad(7))
        assert_equal(attached, mean[6:], covariance[6:])

    def test_parents_of_one_family_are_taken_as_independent(self):
        """Close to the graph with the node in it: the mean is between, the variance too small."""
        edges = [("a", "b", "finetune"), ("a", "c", "finetune")]
        old = Lineage.from_edges(edges, list("abc"))
        merge = [("b", "d", "merge"), ("c", "d", "merge")]
        new = Lineage.from_edges(edges + merge, list("abcd"))
        evidence = random_evidence(3, share=1.0)
        prior = LineagePrior(old, RIDGE, STRENGTH)
        marginals = prior.propagate(evidence, tolerance=EXACT)
        attached = prior.leaf(Marginals(marginals, marginals, evidence), [1, 2], [1.0, 1.0])
        _, covariance = dense_posterior(field(new), evidence.pad(4))
        variance, exact = np.diag(attached.covariance[0]), np.diag(covariance[3])
        assert (variance <= exact + 1e-9).all() and (variance > 0.4 * exact).all()
