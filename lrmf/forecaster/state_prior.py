"""The prior of model states: a Gaussian process over lineage, cards and names."""

import numpy as np
import pandas as pd
from scipy import sparse

from ..solver.gaussians import Gaussians
from ..solver.process import EXACT, Process
from ..solver.process_prior import ProcessPrior
from .covariance import LEAST_NOISE, Covariance, learn

_REACHES = (0.0, 0.25, 0.5, 1.0)
_REACH_COST = 1.05  # ratio of errors to those of reach 0 that a larger reach may cost
_MIN_CHILDREN = 20  # number of children below which the reach is 0
_N_SCATTER = 2000  # maximum number of models for the scatter
_N_ROUNDS = 10  # of expectation maximisation
_FIELD_NOISE = 0.1  # noise variance of known fields of cards when unknown ones are forecast
_UNKNOWN_NOISE = 1e6  # noise variance that gives an unknown field of a card no weight
_N_EXACT_NOISE = 1000  # number of models up to which every output has separate noise
_NOISE_RATIO = 1.4  # ratio of mean explained shares up to which outputs get common noise
_MIN_SHARE = 0.05  # mean explained share below which outputs count as equal
_N_CACHED = 50  # number of models with unknown fields from which covariances are cached
_DEGREES = 4  # degrees of freedom of the t distribution for the scatter


class StatePrior:
    r"""Prior of the states of models without their own responses, by a Gaussian process.

    States are measured by their effect on responses: z = G^1/2 t, with G = D'D / n_items the Gram
    matrix of the items. The outputs of the process are the principal components of z over the
    evaluated models, scaled to variance 1. The Gaussian evidence about a model's state gives each
    output a value and a noise. With C the posterior variance of the output under the population
    N(m, Lambda), in units of its prior variance,

        y = (posterior mean) / (1 - C),     noise = C / (1 - C).

    (With more than 1,000 models, 1 - C is averaged over outputs for which it is similar.)

    Most models are close to their parents, and a few are far away. No Gaussian covariance describes
    these heavy tails. So the mean m of a forecast is shrunk towards the mean p of the evaluated
    parents' outputs, less the larger their distance d in standard deviations is:

        m += 1/2 (p - m) / (1 + (d / reach)^2),

    with the largest reach of at most 1 that raises the absolute errors of leave-one-out forecasts
    by no more than 5%. Children that were submitted to a leaderboard differ more from their parents
    than models that others evaluated later, whose errors fall (`bench/ablation.py`).

    A forecast with mean m_u and variances v_u of the outputs becomes the Gaussian
    N(m_u, v_u^1/2 S v_u^1/2), with S the scatter of the standardised leave-one-out errors.

    Parameters
    ----------
    covariance : Covariance, optional
        Take its parameters instead of learning them.
    seed : int

    Attributes
    ----------
    covariance_ : Covariance, learned or given
    process_ : Process
    to_states : (q, p), state = outputs @ to_states + centre
    scatter : (q, q), S
    centre : (p,), mean of the states
    variances : (q,), of the principal components of z
    reach : float
    known_fields : list of str, fields of cards that are known of some evaluated model
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

        Returns
        -------
        self
        """
        self._describe(describer)
        values, noise = self._outputs(evidence, gram)
        covariance = Covariance.default(self.nodes, describer.change)
        if self.covariance is None:
            covariance = learn(covariance, self.nodes, values, noise, seed=self.seed)
        else:
            covariance = covariance.with_parameters(self.covariance.parameters)
        self.condition(covariance, values, noise)
        self.reach = self._choose_reach()
        self._scatter(evidence)
        return self

    def _describe(self, describer):
        """Take the descriptions of the evaluated models."""
        self.describer = describer
        self.nodes = describer.nodes[np.arange(describer.n_evaluated)]
        self.known_fields = [name for name, mask in self.nodes.open.items() if not mask.all()]
        self._cached = None, None  # unknown fields, and the covariances without these

    def condition(self, covariance, values, noise, *, solved=None):
        """Condition the process on these outputs.

        Parameters
        ----------
        covariance : Covariance
        values, noise : (n, q)
        solved : list, optional, as in `Process`, of a saved fit
        """
        self.covariance_ = covariance
        self.process_ = Process(
            lambda a, b: covariance(self.nodes[a], self.nodes[b]),
            covariance.variance(self.nodes) + LEAST_NOISE, noise, values, solved=solved,
        )  # fmt: skip

    def _outputs(self, evidence, gram):
        """Values and noise (n, q) of the outputs; sets `centre`, `variances` and `to_states`."""
        # The population N(centre, population) of the states by expectation maximisation:
        # E step, posteriors of all states; M step, their mean and total covariance.
        n, p = evidence.information.shape
        centre, population = np.zeros(p), np.eye(p)
        for _ in range(_N_ROUNDS):
            precision = np.linalg.inv(population)
            posterior = evidence * Gaussians(
                np.broadcast_to(precision, (n, p, p)), np.broadcast_to(precision @ centre, (n, p))
            )
            mean, covariance = posterior.mean, posterior.covariance
            centre = mean.mean(axis=0)
            population = (mean - centre).T @ (mean - centre) / n + covariance.mean(axis=0)
        # Principal components of z = G^1/2 t over the population.
        values, vectors = np.linalg.eigh(gram)
        root = vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))
        variances, rotation = np.linalg.eigh(root.T @ population @ root)
        variances = np.maximum(variances, 1e-9 * variances.max())
        self.centre, self.variances = centre, variances
        to_outputs = root @ rotation / np.sqrt(variances)
        self.to_states = np.linalg.inv(to_outputs)
        # y = mean / (1 - C) and noise = C / (1 - C), with C the posterior variance of an output.
        mean = (mean - centre) @ to_outputs
        posterior_variance = np.einsum("pk,npq,qk->nk", to_outputs, covariance, to_outputs)
        share = _averaged_shares(np.clip(1 - posterior_variance, 1e-3, 1 - 1e-6))
        return mean / share, (1 - share) / share

    def of_nodes(self, lineage, p):
        """The learned covariance as the prior of p independent components, for `LRMF`.

        ``LRMF(prior=state_prior.of_nodes)`` fits a factorization with it.

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
            If a node of the lineage is not a model of this prior, or p is not its number of
            components.
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
        """The largest reach at which absolute leave-one-out errors of children hardly rise."""
        children = np.flatnonzero(np.diff(self.nodes.parents.indptr))
        if children.size < _MIN_CHILDREN:
            return 0.0
        mean, variance = self.process_.leave_one_out(children)
        values, noise = self.process_.outputs[children], self.process_.noise[children]
        weight = np.sqrt(self.variances) / (1 + noise)

        def loss(reach):
            shrunk = self._shrunk_to_parents(mean, variance, self.nodes.parents[children], reach)
            return np.sum(weight * np.abs(values - shrunk))

        most = _REACH_COST * loss(0.0)
        return max(reach for reach in _REACHES if loss(reach) <= most)

    def _shrunk_to_parents(self, mean, variance, parents, reach):
        """Means shrunk towards those of the evaluated parents.

        Parameters
        ----------
        mean, variance : (m, q), of forecasts
        parents : CSR (m, n), weights of the evaluated parents, with sum 1 in each row that has any
        reach : float
        """
        process = self.process_
        has_parents = np.diff(parents.indptr) > 0
        if not (reach and has_parents.any()):
            return mean
        # Posterior means of the parents' outputs, y (1 - C) = y / (1 + noise).
        outputs = process.outputs / (1 + process.noise)
        # m += 1/2 (p - m) / (1 + (d / reach)^2), d^2 weighted by the variances of the outputs.
        gap = np.where(has_parents[:, None], parents @ outputs - mean, 0)
        share = self.variances / self.variances.sum()
        distance = np.sum(gap**2 / variance * share, axis=1, keepdims=True)
        return mean + 0.5 * gap / (1 + distance / reach**2)

    def _scatter(self, evidence):
        """Estimate S, the scatter (q, q) of the standardised leave-one-out errors.

        The errors have a t distribution with 4 degrees of freedom, whose scatter is estimated by
        expectation maximisation (Lange, Little and Taylor, 1989). The true states are known up to
        their posterior covariance, which is added.

        Parameters
        ----------
        evidence : Gaussians (n), of the evaluated models
        """
        # Leave-one-out forecasts of a random sample of models.
        rows = np.random.default_rng([self.seed, 5]).permutation(len(self.nodes))[:_N_SCATTER]
        mean, variance = self.process_.leave_one_out(rows)
        mean = self._shrunk_to_parents(mean, variance, self.nodes.parents[rows], self.reach)
        q = mean.shape[1]
        self.scatter = np.eye(q)
        scale, back = np.sqrt(variance), np.linalg.inv(self.to_states)
        for _ in range(3):
            # Posterior errors of the forecasts in standard deviations, and their uncertainty.
            posterior = self._to_states(mean, variance) * evidence[rows]
            error = ((posterior.mean - self.centre) @ back - mean) / scale
            uncertainty = back.T @ posterior.covariance @ back
            uncertainty = uncertainty / (scale[:, :, None] * scale[:, None, :])
            # E step: large errors get small weights. M step: weighted covariance of the errors.
            squared = np.einsum("ni,ij,nj->n", error, np.linalg.inv(self.scatter), error)
            weight = (_DEGREES + q) / (_DEGREES + squared)
            weighted = (error * weight[:, None]).T @ error / len(error)
            self.scatter = weighted + uncertainty.mean(axis=0)

    def leave_one_out(self, rows):
        """Leave-one-out priors of evaluated models: without their own responses.

        Parameters
        ----------
        rows : int (n,), evaluated models

        Returns
        -------
        Gaussians (n), of the states
        """
        mean, variance = self.process_.leave_one_out(rows)
        mean = self._shrunk_to_parents(mean, variance, self.nodes.parents[rows], self.reach)
        return self._to_states(mean, variance)

    def leave_set_out(self, rows):
        """Priors of evaluated models without the responses of any of them.

        Parameters
        ----------
        rows : int (n,), evaluated models

        Returns
        -------
        Gaussians (n), of the states
        """
        mean, variance = self.process_.leave_set_out(rows)
        # Weights of the parents that are not in the set, rescaled to sum 1.
        parents = self.nodes.parents[rows].tocsc()
        others = np.ones(parents.shape[1])
        others[rows] = 0
        parents = (parents @ sparse.diags_array(others)).tocsr()
        total = np.asarray(parents.sum(axis=1)).ravel()
        parents = sparse.csr_array(sparse.diags_array(1 / np.maximum(total, 1e-9)) @ parents)
        parents.eliminate_zeros()
        return self._to_states(
            self._shrunk_to_parents(mean, variance, parents, self.reach), variance
        )

    def forecast(self, described, *, left_out=None):
        """Priors of other models.

        Parameters
        ----------
        described : Descriptions (n)
        left_out : int (n,), optional
            The evaluated model that a prior does without, -1 for none.

        Returns
        -------
        Gaussians (n), of the states
        """
        covariance = self.covariance_
        described = self.filled(described)
        cross = covariance(described, self.nodes)
        mean, variance = self.process_.forecast(
            cross, covariance.variance(described), left_out=left_out
        )
        return self._to_states(
            self._shrunk_to_parents(mean, variance, described.parents, self.reach), variance
        )

    def filled(self, described):
        """Forecast unknown fields of cards from the known ones, lineage and names.

        Each field is an output of a Gaussian process with the covariance without these fields.

        Parameters
        ----------
        described : Descriptions (n)

        Returns
        -------
        Descriptions (n)
        """
        fields = [
            name
            for name, mask in described.open.items()
            if mask.any() and name in self.known_fields
        ]
        if not fields:
            return described
        masks = np.stack([described.open[name] for name in fields], axis=1)
        filled = {name: described.table(name).copy() for name in fields}
        # One process for all models with the same unknown fields.
        for pattern in np.unique(masks[masks.any(axis=1)], axis=0):
            rows = np.flatnonzero((masks == pattern).all(axis=1))
            unknown = [name for name, is_open in zip(fields, pattern, strict=True) if is_open]
            # Values of the evaluated models, about their mean; unknown values have no weight.
            covariance = self.covariance_.without(unknown)
            between = self._between(covariance, tuple(unknown), rows.size)
            known = np.hstack([self.nodes.table(name) for name in unknown])
            mean = np.nanmean(known, axis=0)
            process = Process(
                between, covariance.variance(self.nodes) + _FIELD_NOISE,
                np.isnan(known) * _UNKNOWN_NOISE, np.nan_to_num(known - mean), exact=0,
            )  # fmt: skip
            cross = covariance(described[rows], self.nodes)
            table = mean + process.forecast(cross, np.ones(len(rows)))[0]
            # Write the forecasts field by field; probabilities of levels are made to sum to 1.
            widths = np.cumsum([filled[name].shape[1] for name in unknown])[:-1]
            for name, part in zip(unknown, np.split(table, widths, axis=1), strict=True):
                if name in described.levels:
                    part = np.clip(part, 0, 1)
                    part = part / np.maximum(part.sum(axis=1, keepdims=True), 1e-9)
                filled[name][rows] = part
        return described.replace(filled)

    def _between(self, covariance, unknown, n):
        """Covariances of the evaluated models as a function of two arrays of rows.

        Parameters
        ----------
        covariance : Covariance, without the fields `unknown`
        unknown : tuple of str
        n : int, number of models to forecast
        """
        if n <= _N_CACHED or len(self.nodes) > EXACT:
            return lambda a, b: covariance(self.nodes[a], self.nodes[b])
        # For many forecasts all covariances are computed once and cached.
        if self._cached[0] != unknown:
            self._cached = unknown, covariance(self.nodes, self.nodes)
        matrix = self._cached[1]
        return lambda a, b: matrix[np.ix_(a, b)]

    def _to_states(self, mean, variance):
        """Gaussians of the states from means and variances (n, q) of the outputs."""
        # Covariance v^1/2 S v^1/2 of the outputs, then t = outputs @ to_states + centre.
        scale = np.sqrt(variance)
        covariance = scale[:, :, None] * self.scatter * scale[:, None, :]
        covariance = self.to_states.T @ covariance @ self.to_states
        precision = np.linalg.inv(covariance)
        states = mean @ self.to_states + self.centre
        return Gaussians(precision, np.einsum("nij,nj->ni", precision, states))


def _averaged_shares(share):
    """Explained shares 1 - C (n, q), averaged over similar outputs if there are many models.

    Outputs with the same noise share one precision matrix in `Process`.
    """
    if len(share) <= _N_EXACT_NOISE:
        return share
    mean = np.maximum(share.mean(axis=0), _MIN_SHARE)
    # Outputs by falling mean share; a group ends where it falls by the ratio 1.4.
    averaged, group, highest = share.copy(), [], None
    for output in [*np.argsort(-mean, kind="stable"), None]:
        if highest is None or output is None or mean[output] < highest / _NOISE_RATIO:
            if group:
                averaged[:, group] = share[:, group].mean(axis=1, keepdims=True)
            group, highest = [], None if output is None else mean[output]
        group.append(output)
    return averaged
