"""The prior covariance of the states of two models, from their cards, names and lineage."""

from dataclasses import dataclass, field, replace

import numpy as np

from ..data.descriptions import Descriptions
from ..solver.linear import inverse
from ..threads import in_threads

_BLOCK = 256  # rows computed by one thread at a time
_ATOMS = 16  # quantiles over which an unknown size or date is averaged
LEAST_NOISE = 1e-3  # jitter on the diagonal, as duplicates make a matrix singular
_SIZE_TOLERANCE = 0.004  # difference of log sizes that rounding explains


@dataclass(frozen=True)
class LearningConfig:
    """Constants of learning the parameters of a covariance.

    Attributes
    ----------
    n_models : int
        Maximum number of evaluated models in the likelihood.
    n_steps : int
        Maximum number of evaluations of the likelihood.
    least_share : float
        Share of an output's variance that responses must explain on average for it to be used.
    n_groups : int
        Groups of outputs with common noise while parameters are learned.
    prior_std : float
        Standard deviation of the log parameters about their defaults, of the normal prior.
    """

    n_models: int = 800
    n_steps: int = 20
    least_share: float = 1 / 3
    n_groups: int = 2
    prior_std: float = 1.5


DEFAULTS = {
    "card and name": 1.0, "lineage": 0.2, "base": 0.1, "constant": 0.1, "size, linear": 0.1,
    "date, linear": 0.1, "size and date, linear": 0.05, "noise": 0.1, "size": 1.0, "date": 0.3,
    "grams": 1.0, "tokens": 1.0, "organization": 0.5, "architecture": 0.5, "type": 0.3,
    "chat_template": 0.3,
}  # fmt: skip
_LINEAR = ("size, linear", "date, linear", "size and date, linear")


@dataclass(frozen=True)
class Covariance:
    r"""Covariance of the states of two models, from their `Descriptions`.

        k(u, v) =  w_card prod_g exp(-d_g(u, v) / l_g)        card and name, all fields together
                 + w_lineage (A C A')_uv                      lineage (`Describer`)
                 + w_base 1[same architecture and size]       a common base model is likely
                 + w_0 + w_s s s' + w_d d d' + w_sd (s d)(s' d')

    in units of the variance of an output. The distances d_g are |log size - log size'|,
    sqrt |date - date'|, 1[differs] for organization and card categories, and 1 - cosine of the
    n-grams and words of the names; s and d are standardised log size and date. Where a field is
    unknown, its factor is averaged over the evaluated models. The prior variance stays as it is, so
    an unknown field widens the forecast of a model and does not shift it.

    Attributes
    ----------
    parameters : dict of name to float
        The weights w, the inverse lengths 1/l_g, and "noise", the variance on the diagonal that no
        other model shares.
    atoms : dict of "size" and "date" to float32 (16,)
        Quantiles of the evaluated models.
    change : (n_nodes,)
        Diagonal of C, the variance of the change at every node of the lineage.
    """

    parameters: dict
    atoms: dict = field(default_factory=dict)
    change: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def default(cls, nodes: Descriptions, change):
        """The covariance with default parameters.

        Parameters
        ----------
        nodes : Descriptions (n), of the evaluated models
        change : as in the attributes
        """
        # Quantiles of the known sizes and dates, at the middles of 16 equal shares.
        atoms = {}
        for name in ("size", "date"):
            known = getattr(nodes, name)
            known = known[np.isfinite(known)]
            if known.size:
                levels = (np.arange(_ATOMS) + 0.5) / _ATOMS
                atoms[name] = np.quantile(known, levels).astype(np.float32)
        # Fields that no evaluated model has get no parameters.
        unused = {"size", "date", "architecture", "type", "chat_template"}
        unused -= {*atoms, *nodes.levels}
        unused |= {name for name in _LINEAR if any(part in name for part in unused)}
        if "size" not in atoms:
            unused.add("base")
        names = {name: value for name, value in DEFAULTS.items() if name not in unused}
        return cls(names, atoms, change)

    def __call__(self, a: Descriptions, b: Descriptions):
        """Covariances k, float32 (len(a), len(b)), without the noise on the diagonal."""
        # One thread for each block of rows; the result does not depend on their number.
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(a), _BLOCK)]
        matrix = np.empty((len(a), len(b)), np.float32)

        def fill(block):
            matrix[block] = sum(self.terms(a[block], b).values())

        in_threads(fill, blocks)
        return matrix

    def with_parameters(self, parameters):
        """The covariance with other parameters."""
        return replace(self, parameters=parameters)

    def without(self, fields):
        """The covariance with the parameters of some fields of cards set to 0."""
        names = [*fields, *(n for n in _LINEAR if any(field in n for field in fields))]
        zeros = dict.fromkeys(set(names) & set(self.parameters), 0.0)
        return replace(self, parameters=self.parameters | zeros)

    def variance(self, a: Descriptions):
        """Prior variances k(u, u) + noise (len(a),)."""
        # On the diagonal every distance is 0, and every model has the same base as itself.
        w = self.parameters
        shared = sum(w.get(name, 0) for name in ("card and name", "base", "constant", "noise"))
        linear = sum(w.get(name, 0) * row**2 for name, row in self._linear(a).items())
        return shared + w["lineage"] * a.variance + linear

    def terms(self, a, b):
        """The terms of k by the name of their weight, float32 (len(a), len(b)) each."""
        return Distances(self, a, b).terms(self.parameters)

    def _linear(self, a):
        """Standardised size and date and their product, 0 where unknown, (len(a),) each."""
        rows = {}
        for name in ("size", "date"):
            if name in self.atoms:
                atoms = self.atoms[name]
                standard = (getattr(a, name) - atoms.mean()) / (atoms.std() + 1e-6)
                rows[name] = np.nan_to_num(standard)
        if len(rows) == 2:
            rows["size and date"] = rows["size"] * rows["date"]
        return {f"{name}, linear": row for name, row in rows.items()}


class Distances:
    """The distances between two sets of models, from which `Covariance` computes its terms.

    They do not depend on the parameters, so they are computed once while these are learned.

    Parameters
    ----------
    covariance : Covariance
    a, b : Descriptions
    """

    def __init__(self, covariance: Covariance, a: Descriptions, b: Descriptions):
        # Probability that two models have the same category of each field.
        shape = len(a), len(b)
        self.same = {name: a.levels[name] @ b.levels[name].T for name in a.levels}
        known = (a.organization >= 0)[:, None]
        shared = (a.organization[:, None] == b.organization) & known
        self.same["organization"] = shared.astype(np.float32)
        # 1 - cosine of the n-grams and words of the names.
        self.distances = {
            name: np.maximum(1 - (getattr(a, name) @ getattr(b, name).T).toarray(), 0)
            for name in ("grams", "tokens")
        }
        self.numbers = {
            name: _Number(getattr(a, name), getattr(b, name), atoms, rooted=name == "date")
            for name, atoms in covariance.atoms.items()
        }
        # Lineage A C A', with C diagonal.
        self.ancestry = ((a.ancestry * covariance.change) @ b.ancestry.T).toarray()
        self.ancestry = self.ancestry.astype(np.float32)
        # Same architecture and size, and the linear terms.
        self.base = np.zeros(shape, np.float32)
        if "size" in self.numbers:
            self.base[np.abs(a.size[:, None] - b.size) < _SIZE_TOLERANCE] = 1
            self.base *= self.same.get("architecture", 1)
        left, right = covariance._linear(a), covariance._linear(b)
        self.linear = {name: np.outer(left[name], right[name]) for name in left}

    def terms(self, parameters, slopes=None):
        """The terms of k by the name of their weight.

        Parameters
        ----------
        parameters : dict, as in `Covariance`
        slopes : dict, optional
            Filled with d log(product) / d log(1/l_g) for every field g, (len(a), len(b)) each.
        """
        # Product of the factors of all fields, then the additive terms, each times its weight.
        card = None
        for factor in self._factors(parameters, slopes):
            card = factor if card is None else card * factor
        terms = {"card and name": card, "lineage": self.ancestry, "base": self.base}
        terms["constant"] = np.ones_like(card)
        terms |= self.linear
        return {
            name: np.float32(parameters[name]) * term
            for name, term in terms.items()
            if name in parameters
        }

    def _factors(self, parameters, slopes):
        """Yield exp(-d_g / l_g) for every field g, averaged where it is unknown."""
        # Categories: 1 where they are the same, exp(-rate) where they differ.
        for name, same in self.same.items():
            rate = np.float32(parameters[name])
            if_different = np.exp(-rate)
            factor = if_different + (1 - if_different) * same
            if slopes is not None:
                slopes[name] = -rate * if_different * (1 - same) / np.maximum(factor, 1e-30)
            yield factor
        # Names: exp(-rate (1 - cosine)).
        for name, distance in self.distances.items():
            exponent = -np.float32(parameters[name]) * distance
            if slopes is not None:
                slopes[name] = exponent
            yield np.exp(exponent)
        # Size and date.
        for name, number in self.numbers.items():
            factor, slope = number.factor(np.float32(parameters[name]))
            if slopes is not None:
                slopes[name] = slope
            yield factor


class _Number:
    """The factor of a number, exp(-rate d), averaged over the atoms where x or y is unknown.

    Parameters
    ----------
    x, y : (n,), (m,), NaN where unknown
    atoms : (16,)
    rooted : bool
        Whether d is sqrt |x - y| rather than |x - y|.
    """

    def __init__(self, x, y, atoms, *, rooted):
        self.unknown = np.flatnonzero(np.isnan(x)), np.flatnonzero(np.isnan(y))
        x, y = np.nan_to_num(x), np.nan_to_num(y)
        root = np.sqrt if rooted else np.asarray
        self.distance = root(np.abs(x[:, None] - y))
        self.to_atoms = root(np.abs(x[:, None] - atoms)), root(np.abs(y[:, None] - atoms))
        self.between_atoms = root(np.abs(atoms[:, None] - atoms))

    def factor(self, rate):
        """The factor and its derivative by log(rate), divided by the factor, (n, m) each."""
        slope = -rate * self.distance
        factor = np.exp(slope)
        rows, columns = self.unknown
        if rows.size or columns.size:
            # Averages over one unknown number, then over two.
            (of_x, d_of_x), (of_y, d_of_y) = (
                _averaged(rate, part, axis=1) for part in self.to_atoms
            )
            of_none, d_of_none = _averaged(rate, self.between_atoms, axis=None)
            factor[rows], slope[rows] = of_y, d_of_y
            factor[:, columns], slope[:, columns] = of_x[:, None], d_of_x[:, None]
            factor[np.ix_(rows, columns)], slope[np.ix_(rows, columns)] = of_none, d_of_none
        return factor, slope


def _averaged(rate, distance, *, axis):
    """Mean of exp(-rate d) over the atoms, and its derivative by log(rate) over itself."""
    exponent = -rate * distance
    value = np.exp(exponent)
    mean = value.mean(axis=axis)
    return mean, (value * exponent).mean(axis=axis) / mean


def learn(covariance, nodes, outputs, noise, *, seed, config=None):
    r"""Maximise the marginal likelihood over all parameters.

    The outputs y_k ~ N(0, K + N), N = diag(noise_k), are independent and share K:

        log p = -1/2 sum_k [log |K + N| + y_k' (K + N)^-1 y_k]  (+ constant)

    (Rasmussen and Williams, 2006, 5.4.1). The prior of each log parameter is
    N(log default, prior_std^2). The weight of lineage does not fall below its default.

    Parameters
    ----------
    covariance : Covariance
    nodes : Descriptions (n)
    outputs : (n, q), y
    noise : (n, q)
        Outputs of which the responses explain less than a third of the variance are not used.
    seed : int, of the sample of models
    config : LearningConfig, optional

    Returns
    -------
    Covariance
    """
    from scipy.optimize import minimize  # imported here, as forecasts do not need it

    # A random sample of models bounds the cost, O(n^3) for each evaluation.
    config = config or LearningConfig()
    rows = np.random.default_rng([seed, 3]).permutation(len(nodes))[: config.n_models]
    rows = np.sort(rows)
    groups = _groups(outputs[rows], noise[rows], config)
    distances = Distances(covariance, nodes[rows], nodes[rows])
    names = list(covariance.parameters)
    start = np.log([covariance.parameters[name] for name in names])

    def objective(logs):
        """-log posterior / n and its gradient at these log parameters."""
        parameters = covariance.parameters | dict(zip(names, np.exp(logs), strict=True))
        slopes = {}
        terms = distances.terms(parameters, slopes)
        matrix = sum(terms.values()).astype(np.float64)
        value, outer = _marginal_likelihood(matrix, parameters["noise"], groups)
        # Chain rule: sum_uv dL/dK_uv dK_uv / d log parameter.
        outer32 = outer.astype(np.float32)
        inner = outer32 * terms["card and name"]
        slope = [
            parameters["noise"] * np.trace(outer) if name == "noise"
            else np.vdot(inner, slopes[name]) if name in slopes
            else np.vdot(outer32, terms[name])
            for name in names
        ]  # fmt: skip
        # The normal prior of the log parameters.
        prior_gradient = (logs - start) / config.prior_std**2
        penalty = 0.5 * np.sum(prior_gradient * (logs - start))
        n = len(rows)
        return (value + penalty) / n, (np.array(slope, np.float64) + prior_gradient) / n

    # Parameters are positive: minimise over their logarithms, within a factor e^6 of the defaults.
    # Most children are close to their parents, and a few are far away. The few dominate a Gaussian
    # likelihood and make the weight of lineage too small for the many: it does not fall.
    least = [log if name == "lineage" else log - 6 for name, log in zip(names, start, strict=True)]
    optimum = minimize(
        objective, start, jac=True, method="L-BFGS-B",
        bounds=list(zip(least, start + 6, strict=True)),
        options={"maxiter": config.n_steps, "maxfun": config.n_steps},
    )  # fmt: skip
    learned = dict(zip(names, np.exp(optimum.x).tolist(), strict=True))
    return replace(covariance, parameters=covariance.parameters | learned)


def _marginal_likelihood(matrix, shared_noise, groups):
    """-log p of all groups of outputs, up to a constant, and its derivative by K (n, n).

    With N the noise of a group and a_k = (K + N)^-1 y_k,

        dL/dK = 1/2 sum_k [(K + N)^-1 - a_k a_k'].

    Parameters
    ----------
    matrix : (n, n), K without noise
    shared_noise : float, the parameter "noise"
    groups : list from `_groups`
    """
    diagonal = np.arange(len(matrix))

    def of_group(group):
        """The outputs of a group share (K + N)^-1 and its determinant."""
        _, y, group_noise = group
        full = matrix.copy()
        full[diagonal, diagonal] += shared_noise + group_noise + LEAST_NOISE
        precision, log_det = inverse(full)
        solved = precision @ y
        value = 0.5 * (y.shape[1] * log_det + np.sum(y * solved))
        return value, 0.5 * (y.shape[1] * precision - solved @ solved.T)

    values, slopes = zip(*in_threads(of_group, groups), strict=True)
    return sum(values), sum(slopes)


def _groups(outputs, noise, config):
    """Groups of informative outputs as (columns, values, noise): (q_g,), (n, q_g), (n,).

    Values have variance 1. This includes the noise of the median model, which is learned as part of
    the parameter "noise"; only noise in excess of the median counts as known.

    Parameters
    ----------
    outputs, noise : (n, q)
    config : LearningConfig
    """
    # Share of each output's variance that responses explain; the informative outputs by this share.
    explained = 1 / (1 + noise)
    mean = explained.mean(axis=0)
    informative = mean >= min(config.least_share, mean.max())
    order = np.flatnonzero(informative)[np.argsort(-mean[informative], kind="stable")]
    groups = []
    for columns in np.array_split(order, min(config.n_groups, len(order))):
        # All outputs of a group get its mean explained share; values are rescaled accordingly.
        group_share = explained[:, columns].mean(axis=1)
        y = outputs[:, columns] * explained[:, columns] / group_share[:, None]
        scale = np.maximum(y.std(axis=0), 1e-9)
        group_noise = (1 - group_share) / group_share
        excess_noise = np.maximum(group_noise - np.median(group_noise), 0)
        groups.append((columns, y / scale, excess_noise / np.mean(scale**2)))
    return groups
