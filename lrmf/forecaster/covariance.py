"""How alike two models are before either has answered anything: the covariance of their states."""

from dataclasses import dataclass, field, replace

import numpy as np

from ..data.descriptions import Descriptions
from ..solver.linear import inverse
from ..threads import in_threads

_BLOCK = 256  # rows
_ATOMS = 16  # quantiles that stand for an unknown size or date
LEAST_NOISE = 1e-3  # keeps duplicates from making a matrix singular
_SAME_SIZE = 0.004  # relative difference of sizes that rounding explains


@dataclass(frozen=True)
class LearningConfig:
    """How the parameters of a covariance are learned.

    Attributes
    ----------
    n_models : int
        Evaluated models that the likelihood is of, at most.
    n_linked : int
        Models with relatives that the lineage share is chosen by, at most;
    fewest : int
        and children among them, below which the default stays.
    n_steps : int
        Evaluations of the likelihood, at most.
    least_share : float
        What responses must tell of an output, as a share of its variance, on average.
    n_groups : int
        Groups of outputs with common noise, while parameters are learned.
    spread : float
        Standard deviation of the logarithms of the parameters about their defaults.
    shares : tuple of float
        Lineage shares that leave-one-out errors choose from.
    """

    n_models: int = 800
    n_linked: int = 1500
    fewest: int = 20
    n_steps: int = 20
    least_share: float = 1 / 3
    n_groups: int = 2
    spread: float = 1.5
    shares: tuple = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


DEFAULTS = {
    "card and name": 1.0, "lineage": 0.3, "base": 0.1, "constant": 0.1, "size, linear": 0.1,
    "date, linear": 0.1, "size and date, linear": 0.05, "noise": 0.1, "size": 1.0, "date": 0.3,
    "grams": 1.0, "tokens": 1.0, "organization": 0.5, "architecture": 0.5, "type": 0.3,
    "chat_template": 0.3,
}  # fmt: skip
_LINEAR = ("size, linear", "date, linear", "size and date, linear")


@dataclass(frozen=True)
class Covariance:
    r"""Covariance of the states of two models, from their `Descriptions`, in units of their spread.

        k(u, v) =  w_card prod_g exp(-d_g(u, v) / l_g)        card and name: all alike
                 + w_lineage (A C A')_uv                      the tree (`Describer`)
                 + w_base 1[same architecture and size]       fingerprint of a common base model
                 + w_0 + w_s s s' + w_d d d' + w_sd (s d)(s' d')

    with d_g: |log size|, sqrt |date|, 1[differs] of organization and card categories, 1 - cosine of
    the names' n-grams and words. Over an unknown field the covariance is averaged: such a model is
    as like any other as the average model is, and its own variance stays, so that what is unknown
    widens a forecast and does not move it.

    Attributes
    ----------
    parameters : dict of name to float
        The weights w, the inverse lengths 1/l_g, and the variance "noise" of what no other model
        shares, on the diagonal.
    atoms : dict of "size" and "date" to float32 (16,), quantiles of the evaluated models
    """

    parameters: dict
    atoms: dict = field(default_factory=dict)
    change: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def default(cls, nodes: Descriptions, change):
        """Before anything is learned from the responses of the evaluated models `nodes`."""
        atoms = {}
        for name in ("size", "date"):
            known = getattr(nodes, name)
            known = known[np.isfinite(known)]
            if known.size:
                places = (np.arange(_ATOMS) + 0.5) / _ATOMS
                atoms[name] = np.quantile(known, places).astype(np.float32)
        unused = {"size", "date", "architecture", "type", "chat_template"}
        unused -= {*atoms, *nodes.levels}
        unused |= {name for name in _LINEAR if any(part in name for part in unused)}
        if "size" not in atoms:
            unused.add("base")
        names = {name: value for name, value in DEFAULTS.items() if name not in unused}
        return cls(names, atoms, change)

    def __call__(self, a: Descriptions, b: Descriptions):
        """Covariances, float32 (len(a), len(b)); without noise."""
        # Blocks of rows side by side: one thread each, the same numbers whatever their number.
        blocks = [slice(top, top + _BLOCK) for top in range(0, len(a), _BLOCK)]
        matrix = np.empty((len(a), len(b)), np.float32)

        def fill(block):
            matrix[block] = sum(self.terms(a[block], b).values())

        in_threads(fill, blocks)
        return matrix

    def with_parameters(self, parameters):
        """The same covariance with parameters that were learned elsewhere."""
        return replace(self, parameters=parameters)

    def without(self, fields):
        """The same covariance, blind to some fields of cards."""
        blind = [*fields, *(n for n in _LINEAR if any(field in n for field in fields))]
        blind = dict.fromkeys(set(blind) & set(self.parameters), 0.0)
        return replace(self, parameters=self.parameters | blind)

    def variance(self, a: Descriptions):
        """Prior variances (len(a),), noise included."""
        w = self.parameters
        shared = sum(w.get(name, 0) for name in ("card and name", "base", "constant", "noise"))
        linear = sum(w.get(name, 0) * row**2 for name, row in self._linear(a).items())
        return shared + w["lineage"] * a.variance + linear

    def terms(self, a, b):
        """The terms of the sum by the name of their weight, float32 (len(a), len(b)) each."""
        return Distances(self, a, b).terms(self.parameters)

    def _linear(self, a):
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
    """Everything about two sets of models that a `Covariance` needs, whatever its parameters."""

    def __init__(self, covariance: Covariance, a: Descriptions, b: Descriptions):
        shape = len(a), len(b)
        self.same = {name: a.levels[name] @ b.levels[name].T for name in a.levels}
        known = (a.organization >= 0)[:, None]
        shared = (a.organization[:, None] == b.organization) & known
        self.same["organization"] = shared.astype(np.float32)
        self.far = {
            name: np.maximum(1 - (getattr(a, name) @ getattr(b, name).T).toarray(), 0)
            for name in ("grams", "tokens")
        }
        self.numbers = {
            name: _Number(getattr(a, name), getattr(b, name), atoms, rooted=name == "date")
            for name, atoms in covariance.atoms.items()
        }
        self.ancestry = ((a.ancestry * covariance.change) @ b.ancestry.T).toarray()
        self.ancestry = self.ancestry.astype(np.float32)
        self.base = np.zeros(shape, np.float32)
        if "size" in self.numbers:
            self.base[np.abs(a.size[:, None] - b.size) < _SAME_SIZE] = 1
            self.base *= self.same.get("architecture", 1)
        left, right = covariance._linear(a), covariance._linear(b)
        self.linear = {name: np.outer(left[name], right[name]) for name in left}

    def terms(self, parameters, slopes=None):
        """The terms of the sum; `slopes` takes d log(product) / d log(1/l_g) for every field."""
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
        for name, same in self.same.items():
            rate = np.float32(parameters[name])
            least = np.exp(-rate)
            factor = least + (1 - least) * same
            if slopes is not None:
                slopes[name] = -rate * least * (1 - same) / np.maximum(factor, 1e-30)
            yield factor
        for name, far in self.far.items():
            exponent = -np.float32(parameters[name]) * far
            if slopes is not None:
                slopes[name] = exponent
            yield np.exp(exponent)
        for name, number in self.numbers.items():
            factor, slope = number.factor(np.float32(parameters[name]))
            if slopes is not None:
                slopes[name] = slope
            yield factor


class _Number:
    """exp(-rate |x - y|), or of the root, averaged over the atoms where x or y is unknown."""

    def __init__(self, x, y, atoms, *, rooted):
        self.unknown = np.flatnonzero(np.isnan(x)), np.flatnonzero(np.isnan(y))
        x, y = np.nan_to_num(x), np.nan_to_num(y)
        root = np.sqrt if rooted else np.asarray
        self.distance = root(np.abs(x[:, None] - y))
        self.to_atoms = root(np.abs(x[:, None] - atoms)), root(np.abs(y[:, None] - atoms))
        self.among = root(np.abs(atoms[:, None] - atoms))

    def factor(self, rate):
        slope = -rate * self.distance
        factor = np.exp(slope)
        rows, columns = self.unknown
        if rows.size or columns.size:
            (left, d_left), (right, d_right) = (
                _averaged(rate, part, axis=1) for part in self.to_atoms
            )
            both, d_both = _averaged(rate, self.among, axis=None)
            factor[rows], slope[rows] = right, d_right
            factor[:, columns], slope[:, columns] = left[:, None], d_left[:, None]
            factor[np.ix_(rows, columns)], slope[np.ix_(rows, columns)] = both, d_both
        return factor, slope


def _averaged(rate, distance, *, axis):
    """Mean of exp(-rate d), and its logarithmic slope."""
    exponent = -rate * distance
    value = np.exp(exponent)
    mean = value.mean(axis=axis)
    return mean, (value * exponent).mean(axis=axis) / mean


def learn(covariance, nodes, outputs, noise, *, seed, config=None):
    r"""Parameters of highest marginal likelihood, the lineage share aside.

    The outputs y_k ~ N(0, K + diag(noise)) are independent and share K:

        log p = -1/2 sum_k [log |K + N| + y_k' (K + N)^-1 y_k]

    The logarithms of the parameters have N(log default, spread^2) as their prior.

    Parameters
    ----------
    covariance : Covariance
    nodes : Descriptions (n)
    outputs : (n, q)
    noise : (n, q), what the responses leave open; outputs of which they tell less than a third
        do not count
    """
    from scipy.optimize import minimize  # forecasts do without

    config = config or LearningConfig()
    rows = np.random.default_rng([seed, 3]).permutation(len(nodes))[: config.n_models]
    rows = np.sort(rows)
    groups = _groups(outputs[rows], noise[rows], config)
    distances = Distances(covariance, nodes[rows], nodes[rows])
    names = [name for name in covariance.parameters if name != "lineage"]
    start = np.log([covariance.parameters[name] for name in names])
    diagonal = np.arange(len(rows))

    def objective(logs):
        parameters = covariance.parameters | dict(zip(names, np.exp(logs), strict=True))
        slopes = {}
        terms = distances.terms(parameters, slopes)
        matrix = sum(terms.values()).astype(np.float64)
        value, outer = 0.0, np.zeros_like(matrix)
        for _, y, own in groups:
            full = matrix.copy()
            full[diagonal, diagonal] += parameters["noise"] + own + LEAST_NOISE
            precision, log_det = inverse(full)
            solved = precision @ y
            value += 0.5 * (y.shape[1] * log_det + np.sum(y * solved))
            # dL/dK, then the chain rule: one pass over the matrix for every parameter.
            outer += 0.5 * (y.shape[1] * precision - solved @ solved.T)
        outer32 = outer.astype(np.float32)
        inner = outer32 * terms["card and name"]
        slope = [
            parameters["noise"] * np.trace(outer) if name == "noise"
            else np.vdot(inner, slopes[name]) if name in slopes
            else np.vdot(outer32, terms[name])
            for name in names
        ]  # fmt: skip
        away = (logs - start) / config.spread**2
        penalty = 0.5 * np.sum(away * (logs - start))
        n = len(rows)
        return (value + penalty) / n, (np.array(slope, np.float64) + away) / n

    found = minimize(
        objective, start, jac=True, method="L-BFGS-B",
        bounds=[(log - 6, log + 6) for log in start],
        options={"maxiter": config.n_steps, "maxfun": config.n_steps},
    )  # fmt: skip
    learned = dict(zip(names, np.exp(found.x).tolist(), strict=True))
    return replace(covariance, parameters=covariance.parameters | learned)


def choose_share(covariance, nodes, outputs, noise, weights, *, seed, config=None):
    """The weight of lineage by the absolute errors of leave-one-out forecasts of children.

    A Gaussian likelihood fears the rare large jump, and trusts lineage too little for the many
    near-copies; absolute errors do not.

    Parameters
    ----------
    covariance, nodes, outputs, noise, seed : as in `learn`
    weights : (q,), of the errors of the outputs
    """
    config = config or LearningConfig()
    # Models with relatives first, children among them.
    rng = np.random.default_rng([seed, 4])
    shared = np.asarray(nodes.ancestry.sum(axis=0)).ravel()
    linked = (nodes.ancestry @ (shared > 1 + 1e-9)) > 0
    order = rng.permutation(len(nodes))
    rows = np.sort(order[np.argsort(~linked[order], kind="stable")][: config.n_linked])
    children = nodes.variance[rows] != 1
    if children.sum() < config.fewest:
        return covariance
    terms = covariance.terms(nodes[rows], nodes[rows])
    tree = terms.pop("lineage") / covariance.parameters["lineage"]
    others = sum(terms.values()) + np.diag(
        np.full(len(rows), covariance.parameters["noise"] + LEAST_NOISE, np.float32)
    )
    groups = _groups(outputs[rows], noise[rows], config)
    losses = dict.fromkeys(config.shares, 0.0)
    for share in config.shares:
        matrix = (others + share * tree).astype(np.float64)
        for columns, y, own in groups:
            precision, _ = inverse(matrix + np.diag(own))
            errors = precision @ y / np.diagonal(precision)[:, None]
            certain = (weights[columns] / (1 + own[:, None]))[children]
            losses[share] += np.sum(certain * np.abs(errors[children]))
    share = min(losses, key=losses.get)
    return replace(covariance, parameters=covariance.parameters | {"lineage": share})


def _groups(outputs, noise, config):
    """Columns, values and noise of outputs about which the responses tell enough, a few groups.

    Values have variance 1, what typical models leave open included: that is learned with the noise
    that no model shares, and only what others leave open beyond it counts as known noise.
    """
    share = 1 / (1 + noise)
    mean = share.mean(axis=0)
    enough = mean >= min(config.least_share, mean.max())
    order = np.flatnonzero(enough)[np.argsort(-mean[enough], kind="stable")]
    groups = []
    for columns in np.array_split(order, min(config.n_groups, len(order))):
        own = share[:, columns].mean(axis=1)
        y = outputs[:, columns] * share[:, columns] / own[:, None]
        scale = np.maximum(y.std(axis=0), 1e-9)
        more = np.maximum((1 - own) / own - np.median((1 - own) / own), 0)
        groups.append((columns, y / scale, more / np.mean(scale**2)))
    return groups
