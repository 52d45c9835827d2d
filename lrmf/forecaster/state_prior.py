"""The prior of model states: a Gaussian process over what cards, names and lineage say."""

import numpy as np
import pandas as pd
from scipy import sparse

from ..solver.gaussians import Gaussians
from ..solver.process import EXACT, Process
from ..solver.process_prior import ProcessPrior
from .covariance import LEAST_NOISE, Covariance, choose_share, learn

_REACHES = (0.0, 0.25, 0.5)
_FEWEST = 20  # children that the reach is chosen by
_SCATTERED = 2000  # models that the scatter is of, at most
_ROUNDS = 10  # of expectation maximisation
_FIELD_NOISE = 0.1  # of levels of cards, where they are forecast
_FEW = 1000  # models up to which every output has noise of its own
_ALIKE = 1.4  # ratio of mean shares up to which outputs have common noise where models are many
_MANY = 50  # models whose fields are forecast at once, from which on covariances are kept
_LEAST_SHARE = 0.05  # below this outputs are all alike
_NOTHING = 1e6  # noise of what is not known
_DEGREES = 4  # of freedom of the t distribution that scatters are those of


class StatePrior:
    r"""Forecast the states of models without own responses, each output of them by one process.

    States count by what they do to responses: z = G^1/2 t, G = D'D / n_items the Gram matrix of the
    items. The outputs are the principal components of z over the evaluated models, scaled to
    variance 1. Gaussian evidence about a model's state, normalised by the population N(m, Lambda),
    gives each output a value and a noise: with C the posterior variance in units of the prior's,

        y = (posterior mean) / (1 - C),     noise = C / (1 - C)

    (with more than 1,000 models 1 - C is averaged over outputs where it is about the same).

    Most models stay near their parents, a few move far away: a jump with heavy tails, which no
    Gaussian covariance describes. So a forecast m is drawn to the mean p of the evaluated parents'
    outputs, the less the farther they lie apart in standard deviations,

        m += 1/2 (p - m) / (1 + (d / reach)^2),

    with the largest reach that does not raise the absolute errors of leave-one-out forecasts.

    A forecast with mean m_u and variance v_u (by output) becomes the belief N(m_u, v^1/2 S v^1/2)
    with S the scatter of the standardised leave-one-out errors over the outputs.

    Parameters
    ----------
    covariance : Covariance, optional
        Take its parameters instead of learning them.
    seed : int

    Attributes
    ----------
    covariance_ : Covariance, learned or given
    process_ : Process
    to_states : (q, p), scatter : (q, q)
    centre : (p,)
    reach : float
    """

    array_names = ("centre", "variances", "to_states", "scatter")

    def __init__(self, *, covariance=None, seed=0):
        self.covariance, self.seed = covariance, seed

    def fit(self, evidence: Gaussians, gram, describer):
        """Learn from the evidence of the evaluated models.

        Parameters
        ----------
        evidence : Gaussians (n)
        gram : (p, p), G
        describer : Describer, of the same models
        """
        self._describe(describer)
        values, noise = self._outputs(evidence, gram)
        covariance = Covariance.default(self.nodes, describer.change)
        if self.covariance is None:
            covariance = self._learn(covariance, values, noise)
        else:
            covariance = covariance.with_parameters(self.covariance.parameters)
        self.condition(covariance, values, noise)
        self.reach = self._choose_reach()
        self._scatter(evidence)
        return self

    def _describe(self, describer):
        self.describer = describer
        self.nodes = describer.nodes[np.arange(describer.n_evaluated)]
        # Fields that are known of some model.
        self.able = [name for name, mask in self.nodes.open.items() if not mask.all()]
        self._kept = None, None  # fields, and the covariances that do not look at these

    def condition(self, covariance, values, noise, *, solved=None):
        """Condition the process on these outputs, or take up what was saved of one."""
        self.covariance_ = covariance
        self.process_ = Process(
            lambda a, b: covariance(self.nodes[a], self.nodes[b]),
            covariance.variance(self.nodes) + LEAST_NOISE, noise, values, solved=solved,
        )  # fmt: skip

    def _outputs(self, evidence, gram):
        """Values and noise (n, q) of the outputs."""
        # The population of states by expectation maximisation.
        n, p = evidence.information.shape
        centre, spread = np.zeros(p), np.eye(p)
        for _ in range(_ROUNDS):
            precision = np.linalg.inv(spread)
            posterior = evidence * Gaussians(
                np.broadcast_to(precision, (n, p, p)), np.broadcast_to(precision @ centre, (n, p))
            )
            mean, covariance = posterior.mean, posterior.covariance
            centre = mean.mean(axis=0)
            spread = (mean - centre).T @ (mean - centre) / n + covariance.mean(axis=0)
        # Principal components of z = G^1/2 t over the population.
        values, vectors = np.linalg.eigh(gram)
        root = vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))
        total, rotation = np.linalg.eigh(root.T @ spread @ root)
        total = np.maximum(total, 1e-9 * total.max())
        self.centre, self.variances = centre, total
        to_outputs = root @ rotation / np.sqrt(total)
        self.to_states = np.linalg.inv(to_outputs)
        # Evidence normalised by the population.
        mean = (mean - centre) @ to_outputs
        left = np.einsum("pk,npq,qk->nk", to_outputs, covariance, to_outputs)
        share = _shared(np.clip(1 - left, 1e-3, 1 - 1e-6))
        return mean / share, (1 - share) / share

    def _learn(self, covariance, values, noise):
        covariance = learn(covariance, self.nodes, values, noise, seed=self.seed)
        return choose_share(
            covariance, self.nodes, values, noise, np.sqrt(self.variances), seed=self.seed
        )

    def of_nodes(self, lineage, p):
        """The covariance learned as a prior of p independent components, for ``LRMF(prior=...)``.

        Parameters
        ----------
        lineage : Lineage of the models of this prior
        p : int

        Returns
        -------
        ProcessPrior

        Raises
        ------
        ValueError
            If a node of the lineage is not known here, or p is not the number of outputs.
        """
        place = pd.Index(self.describer.ids).get_indexer(lineage.node_ids)
        if (place < 0).any():
            unknown = np.asarray(lineage.node_ids)[place < 0][0]
            raise ValueError(f"{unknown!r} is not among the models that the prior was fitted to")
        if p != len(self.centre):
            raise ValueError(f"the prior has {len(self.centre)} components, not {p}")
        nodes = self.describer.nodes[place]
        covariance = self.covariance_(nodes, nodes).astype(np.float64)
        covariance[np.diag_indices_from(covariance)] = (
            self.covariance_.variance(nodes) + LEAST_NOISE
        )
        return ProcessPrior(covariance, np.sum(self.to_states**2, axis=0))

    def _choose_reach(self):
        children = np.flatnonzero(np.diff(self.nodes.parents.indptr))
        if children.size < _FEWEST:
            return 0.0
        mean, variance = self.process_.leave_one_out(children)
        values, noise = self.process_.outputs[children], self.process_.noise[children]
        weight = np.sqrt(self.variances) / (1 + noise)

        def loss(reach):
            drawn = self._drawn(mean, variance, self.nodes.parents[children], reach)
            return np.sum(weight * np.abs(values - drawn))

        without = loss(0.0)
        return max(reach for reach in _REACHES if loss(reach) <= without)

    def _drawn(self, mean, variance, parents, reach):
        """Means drawn to those of the evaluated parents."""
        process = self.process_
        has_parents = np.diff(parents.indptr) > 0
        if not (reach and has_parents.any()):
            return mean
        # What is known of the parents, as far as their own responses tell.
        outputs = process.outputs / (1 + process.noise)
        gap = np.where(has_parents[:, None], parents @ outputs - mean, 0)
        share = self.variances / self.variances.sum()
        distance = np.sum(gap**2 / variance * share, axis=1, keepdims=True)
        return mean + 0.5 * gap / (1 + distance / reach**2)

    def _scatter(self, evidence):
        """Scatter of the standardised errors of leave-one-out forecasts over the outputs."""
        rows = np.random.default_rng([self.seed, 5]).permutation(len(self.nodes))[:_SCATTERED]
        mean, variance = self.process_.leave_one_out(rows)
        mean = self._drawn(mean, variance, self.nodes.parents[rows], self.reach)
        q = mean.shape[1]
        self.scatter = np.eye(q)
        scale, back = np.sqrt(variance), np.linalg.inv(self.to_states)
        for _ in range(3):
            posterior = self._beliefs(mean, variance) * evidence[rows]
            error = ((posterior.mean - self.centre) @ back - mean) / scale
            left = back.T @ posterior.covariance @ back / (scale[:, :, None] * scale[:, None, :])
            size = np.einsum("ni,ij,nj->n", error, np.linalg.inv(self.scatter), error)
            weight = (_DEGREES + q) / (_DEGREES + size)
            self.scatter = (error * weight[:, None]).T @ error / len(error) + left.mean(axis=0)

    def leave_one_out(self, rows):
        """Beliefs about the states of evaluated models without their own responses."""
        mean, variance = self.process_.leave_one_out(rows)
        mean = self._drawn(mean, variance, self.nodes.parents[rows], self.reach)
        return self._beliefs(mean, variance)

    def leave_set_out(self, rows):
        """Beliefs about these models' states without the responses of any of them."""
        mean, variance = self.process_.leave_set_out(rows)
        parents = self.nodes.parents[rows].tocsc()
        others = np.ones(parents.shape[1])
        others[rows] = 0
        parents = (parents @ sparse.diags_array(others)).tocsr()
        total = np.asarray(parents.sum(axis=1)).ravel()
        parents = sparse.csr_array(sparse.diags_array(1 / np.maximum(total, 1e-9)) @ parents)
        parents.eliminate_zeros()
        return self._beliefs(self._drawn(mean, variance, parents, self.reach), variance)

    def forecast(self, described):
        """Beliefs about the states of other models, from their `Descriptions`."""
        covariance = self.covariance_
        described = self.filled(described)
        cross = covariance(described, self.nodes)
        mean, variance = self.process_.forecast(cross, covariance.variance(described))
        return self._beliefs(self._drawn(mean, variance, described.parents, self.reach), variance)

    def filled(self, described):
        """What neither card nor relatives tell is forecast from all else that is known."""
        fields = [name for name, mask in described.open.items() if mask.any() and name in self.able]
        if not fields:
            return described
        masks = np.stack([described.open[name] for name in fields], axis=1)
        filled = {name: described.table(name).copy() for name in fields}
        for pattern in np.unique(masks[masks.any(axis=1)], axis=0):
            rows = np.flatnonzero((masks == pattern).all(axis=1))
            unknown = [name for name, is_open in zip(fields, pattern, strict=True) if is_open]
            # As any output, by a covariance that does not look at these fields.
            blind = self.covariance_.without(unknown)
            between = self._between(blind, tuple(unknown), rows.size)
            known = np.hstack([self.nodes.table(name) for name in unknown])
            typical = np.nanmean(known, axis=0)
            process = Process(
                between, blind.variance(self.nodes) + _FIELD_NOISE,
                np.isnan(known) * _NOTHING, np.nan_to_num(known - typical), exact=0,
            )  # fmt: skip
            cross = blind(described[rows], self.nodes)
            table = typical + process.forecast(cross, np.ones(len(rows)))[0]
            widths = np.cumsum([filled[name].shape[1] for name in unknown])[:-1]
            for name, part in zip(unknown, np.split(table, widths, axis=1), strict=True):
                if name in described.levels:
                    part = np.clip(part, 0, 1)
                    part = part / np.maximum(part.sum(axis=1, keepdims=True), 1e-9)
                filled[name][rows] = part
        return described.replace(filled)

    def _between(self, covariance, unknown, n):
        """Covariances of the evaluated models, by their rows, for forecasts of n models."""
        if n <= _MANY or len(self.nodes) > EXACT:
            return lambda a, b: covariance(self.nodes[a], self.nodes[b])
        # For many forecasts, and those that follow, all of them at once.
        if self._kept[0] != unknown:
            self._kept = unknown, covariance(self.nodes, self.nodes)
        matrix = self._kept[1]
        return lambda a, b: matrix[np.ix_(a, b)]

    def _beliefs(self, mean, variance):
        scale = np.sqrt(variance)
        covariance = scale[:, :, None] * self.scatter * scale[:, None, :]
        covariance = self.to_states.T @ covariance @ self.to_states
        precision = np.linalg.inv(covariance)
        states = mean @ self.to_states + self.centre
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, states))


def _shared(share):
    """Shares (n, q), where models are many averaged over outputs of about the same mean share."""
    if len(share) <= _FEW:
        return share
    mean = np.maximum(share.mean(axis=0), _LEAST_SHARE)
    averaged, group, top = share.copy(), [], None
    for output in [*np.argsort(-mean, kind="stable"), None]:
        if top is None or output is None or mean[output] < top / _ALIKE:
            if group:
                averaged[:, group] = share[:, group].mean(axis=1, keepdims=True)
            group, top = [], None if output is None else mean[output]
        group.append(output)
    return averaged
