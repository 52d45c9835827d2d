"""A simulated Hub: models, items, lineage and answers that look like the Open LLM Leaderboard's.

It exists so that everything can be run and checked offline at the paper's scale. It is calibrated
to aggregate statistics of the real leaderboards (`lrmf.simulation.targets` lists and compares
them), and it is deliberately **not** the model that LRMF fits:

- most true parents are unknown, many known ones were never evaluated, some cards skip a generation;
- changes from parent to child are a scale mixture: near-copies and large changes;
- a child also inherits its parents' idiosyncratic right and wrong answers, item by item, and a
  merge takes each of them from one of its parents, which no low-rank matrix of factors expresses;
- skills differ in how fast they are lost, finetuning shifts some of them, and the link is probit.

Model
-----
Node u of the true lineage has six skills in units of one standard deviation,
``y_u = L (f_u + s_u) + shifts``, with ``L L^T`` the correlations of the benchmarks. The family part
f is passed on (averaged over the parents, weights w); the own part s is partly redrawn::

    s_u = k_u * (w s_parents) + sqrt(1 - k_u^2) * eps_u,      k_uk = c_u ** sensitivity_k,

where the retention c_u of the step has a Beta distribution for each kind of descent and eps_u is
heavy-tailed. Eight minor factors m_u follow the same scheme. Item i of benchmark b is answered
correctly if

    h_b + difficulty_i + slope_i y_ub + x_i . m_u + sd_b g_ui > 0,

where g_ui is standard normal and inherited with correlation c_u from one parent per item.

Constants
---------
h_b and the mean slope are solved for in each draw so that means and sds of the scores are right,
difficulties from the standard deviation of item means, L and the in-degrees of merges are measured
values. The other values of `AnswerConfig`, `PopulationConfig` and `ItemConfig` were found by
repeated simulation, lowering the misfit that `simulation_check` shows over eight seeds.

Not matched: the skewness of abilities on version 1 (0.92), which the scores of version 2 do not
have. Models whose base was removed from the Hub (10.6%) are among those without a known parent.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial.distance import squareform
from scipy.special import ndtri

from ..data.responses import MISSING
from ..data.snapshot import Snapshot, check_target, save_snapshot
from .items import ItemConfig, draw_curves, make_items
from .population import (
    ADAPTER,
    FINETUNE,
    MERGE,
    PRETRAINED,
    QUANTIZED,
    Population,
    PopulationConfig,
    describe_models,
    grow_population,
    recorded_edges,
)
from .targets import BENCHMARK_CORRELATION, BENCHMARKS

NOTE = (
    "Simulated data: every model, item and answer is invented. Aggregate statistics follow the "
    "Open LLM Leaderboard; results on this snapshot say nothing about real models."
)
MIN_MODELS, MIN_ITEMS = 30, len(BENCHMARKS)
RANGES = ((MIN_MODELS, 100_000), (MIN_ITEMS, 1_000_000), (0, 2**63 - 1))  # the seed's last

_BLOCK_CELLS = 2**22


@dataclass(frozen=True)
class AnswerConfig:
    """How skills are inherited and which benchmarks are observed.

    Tuples are over the benchmarks, in the order of `BENCHMARKS`, except for `family_share` and
    `sensitivity`. Skills are built up from the one that descendants keep best; the others add their
    own part to it.
    """

    stickiness: tuple = (5, 1, 4, 3, 2, 0)  # benchmarks, the one that descendants keep best first
    # In that order: the variance that is passed on for good, and the sensitivity of the rest.
    family_share: tuple = (0.62, 0.3, 0.2, 0.2, 0.0, 0.0)
    sensitivity: tuple = (0.36, 0.6, 2.5, 10.0, 40.0, 50.0)
    # By kind of descent: Beta distribution of the retention, and a factor of the sensitivity.
    retention: Mapping = field(
        default_factory=lambda: {
            FINETUNE: (0.7, 0.45), MERGE: (1.0, 0.11), ADAPTER: (3, 0.8), QUANTIZED: (60, 1)
        }
    )  # fmt: skip
    sensitivity_factor: Mapping = field(
        default_factory=lambda: {FINETUNE: 1.0, MERGE: 0.4, ADAPTER: 0.7, QUANTIZED: 0.7}
    )
    # Redraws are small or large; the large ones make up for it, so that the variance stays 1.
    small_redraw: float = 0.55
    share_large: float = 0.2
    # Skills correlate more than the scores, which the bent curve and few items attenuate.
    attenuation: tuple = (1.0, 1.0, 0.94, 0.975, 0.985, 1.0)
    size_effect: float = 0.86  # correlation of the first family skill with log size
    time_effect: float = 0.35  # and with the date of birth
    # Any descent from a pretrained model teaches it to follow instructions and costs a little else.
    tuning_shift: tuple = (0.85, 0.0, -0.25, -0.2, -0.15, -0.15)
    chat_template_shift: tuple = (0.6, 0.0, -0.4, 0.0, 0.0, 0.0)
    minor_family_share: float = 0.4
    minor_sensitivity: float = 0.7
    # Benchmarks are missing as wholes: share observed, and the correlation of what decides it.
    observed_share: tuple = (0.76, 0.61, 0.61, 0.76, 0.66, 0.56)
    observed_together: float = 0.62

    @property
    def skill_mixing(self) -> np.ndarray:
        """L with L L^T the benchmarks' correlations and the stickiest skill first."""
        correlation = squareform(BENCHMARK_CORRELATION) / np.outer(
            self.attenuation, self.attenuation
        )
        np.fill_diagonal(correlation, 1)
        order = list(self.stickiness)
        mixing = np.zeros_like(correlation)
        mixing[order] = np.linalg.cholesky(correlation[np.ix_(order, order)])
        return mixing


def simulate(
    *,
    n_models: int = 2934,
    n_items: int = 21606,
    seed: int = 0,
    population: PopulationConfig | None = None,
) -> Snapshot:
    """Draw a simulated Hub; see the module's docstring for the model.

    Parameters
    ----------
    n_models : int, 30 to 100,000
        Scored models. Unscored ancestors come on top, in the lineage only.
    n_items : int, 6 to 1,000,000
        Instances, divided among the benchmarks and subtasks in the real proportions, at least one
        for each benchmark. The default is the real number.
    seed : int, at least 0
        Equal seeds give equal bytes.
    population : PopulationConfig, optional
        Shares of merges, of recorded parents and the like.

    Returns
    -------
    Snapshot
        In memory. ``responses`` is ``uint8`` of shape (n_models, n_items); a model is either
        evaluated on a whole benchmark or not at all (255), and on one benchmark at least.

    Raises
    ------
    ValueError
        If a parameter is not a whole number in its range.

    Examples
    --------
    >>> hub = simulate(n_models=60, n_items=90, seed=0)
    >>> hub.responses.shape, hub.responses.dtype
    ((60, 90), dtype('uint8'))
    >>> simulate(n_models=2)
    Traceback (most recent call last):
        ...
    ValueError: n_models must be a whole number from 30 to 100000, got 2
    """
    sizes = {"n_models": n_models, "n_items": n_items, "seed": seed}
    for (name, value), (low, high) in zip(sizes.items(), RANGES, strict=True):
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not is_whole or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    config, item_config = AnswerConfig(), ItemConfig()
    rng = np.random.default_rng(seed)
    settings = PopulationConfig() if population is None else population
    population = grow_population(n_models, rng, settings)
    cards = describe_models(population, rng, settings)
    edges = recorded_edges(population)
    items = make_items(n_items)
    retention = _draw_retention(population.kind, rng, config)
    skills, minor = _draw_abilities(population, cards, retention, rng, config, item_config.n_minor)
    rows = np.flatnonzero(population.scored)
    rows = rows[np.argsort(cards["model_id"].to_numpy(dtype=str)[rows])]
    curves = draw_curves(items, skills[rows], rng, item_config)
    evaluated = _draw_evaluated(len(rows), rng, config)
    responses = np.full((n_models, n_items), MISSING, dtype=np.uint8)
    traits = np.hstack([skills, minor])[rows]
    for columns, inherited in _inherited_noise(population, retention, n_items, rng):
        part = curves.columns(columns)
        correct = part.intercept + traits @ part.loadings + part.noise_sd * inherited[rows] > 0
        responses[:, columns] = np.where(evaluated[:, part.benchmark], correct, MISSING)
    ids = cards["model_id"].to_numpy()
    lineage = edges.assign(parent=ids[edges["parent"]], child=ids[edges["child"]])
    return Snapshot(
        name="simulated",
        source="simulated",
        note=NOTE,
        models=cards.iloc[rows].reset_index(drop=True),
        items=items,
        lineage=lineage,
        responses=responses,
        provenance={"simulation": {name: int(value) for name, value in sizes.items()}},
    )


def write_simulated(
    path: str | os.PathLike,
    *,
    n_models: int = 2934,
    n_items: int = 21606,
    seed: int = 0,
    overwrite: bool = False,
) -> Snapshot:
    """Write `simulate(n_models=..., n_items=..., seed=...)` as a snapshot directory.

    Returns
    -------
    Snapshot
        As loaded from ``path``, with memory-mapped responses.

    Raises
    ------
    ValueError
        If a parameter is not a whole number in its range.
    SnapshotError
        If the place cannot be written; ``overwrite`` allows to replace an older snapshot.
    """
    check_target(path, overwrite=overwrite)
    simulated = simulate(n_models=n_models, n_items=n_items, seed=seed)
    return save_snapshot(path, **vars(simulated), overwrite=overwrite)


def _draw_retention(kind: np.ndarray, rng: np.random.Generator, config: AnswerConfig) -> np.ndarray:
    """Draw c_u in [0, 1], how much of its parents a model keeps; 0 for the pretrained."""
    retention = np.zeros(len(kind))
    for descent, (a, b) in config.retention.items():
        own = kind == descent
        retention[own] = rng.beta(a, b, size=own.sum())
    return retention


def _draw_abilities(
    population: Population,
    cards: pd.DataFrame,
    retention: np.ndarray,
    rng: np.random.Generator,
    config: AnswerConfig,
    n_minor: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Skills (n_nodes, 6) with mean 0 and sd 1 over the scored models, and minor factors."""
    n_nodes, n_families = population.n_nodes, len(population.family_birth)
    factor = np.array([config.sensitivity_factor.get(kind, 1.0) for kind in population.kind])
    is_large = rng.random(n_nodes) < config.share_large
    # Scales of the two parts of the mixture, such that its variance is 1.
    small, share_large = config.small_redraw, config.share_large
    large = np.sqrt((1 - (1 - share_large) * small**2) / share_large)
    tuned = population.kind != PRETRAINED
    scale = np.select([~tuned, is_large], [1.0, large], small)[:, None]
    family_share = np.array(config.family_share)
    skills = _descend(
        population,
        family=_draw_family_skills(population, rng, config) * np.sqrt(family_share),
        own=rng.standard_normal((n_nodes, len(BENCHMARKS))) * scale * np.sqrt(1 - family_share),
        kept=retention[:, None] ** (np.array(config.sensitivity) * factor[:, None]),
    )
    share = config.minor_family_share
    minor = _descend(
        population,
        family=rng.standard_normal((n_families, n_minor)) * np.sqrt(share),
        own=rng.standard_normal((n_nodes, n_minor)) * np.sqrt(1 - share),
        kept=retention[:, None] ** config.minor_sensitivity,
    )
    chat = tuned & cards["chat_template"].to_numpy()
    skills = skills @ config.skill_mixing.T
    skills += np.outer(tuned, config.tuning_shift) + np.outer(chat, config.chat_template_shift)
    return _recorrelate(skills, population.scored, config), minor


def _draw_family_skills(
    population: Population, rng: np.random.Generator, config: AnswerConfig
) -> np.ndarray:
    """Draw f of the roots: uncorrelated, unit variance over models; the first follows size, time.

    The few large families would otherwise make every seed a different leaderboard, so the draws are
    whitened with the families' numbers of models as weights, where there are families enough.
    """
    n_families, n_skills = len(population.family_birth), len(BENCHMARKS)
    size, birth = np.log(population.family_size_b), population.family_birth
    quality, others = (
        rng.gamma(2.0, size=n_families),
        rng.standard_normal((n_families, n_skills - 1)),
    )
    draws = np.column_stack([size, birth, quality, others])
    weight = np.bincount(population.family[population.scored], minlength=n_families)
    weight = (weight + 1e-3) / (weight + 1e-3).sum()
    draws -= weight @ draws
    covariance = (draws.T * weight) @ draws
    if n_families >= 8 * draws.shape[1]:
        draws = np.linalg.solve(np.linalg.cholesky(covariance), draws.T).T
    else:
        draws /= np.sqrt(np.diag(covariance))
    size, birth, quality = draws[:, :3].T
    rest = np.sqrt(1 - config.size_effect**2 - config.time_effect**2)
    first = config.size_effect * size + config.time_effect * birth + rest * quality
    return np.column_stack([first, draws[:, 3:]])


def _descend(
    population: Population, *, family: np.ndarray, own: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """Pass the family part on as it is and the own part with retention ``kept``, root to leaf."""
    weights = _parent_weights(population)
    inherited = family[population.family]
    own = own.copy()
    for depth in range(1, population.depth.max() + 1):
        level = np.flatnonzero(population.depth == depth)
        inherited[level] = weights[level] @ inherited
        fresh = np.sqrt(1 - kept[level] ** 2) * own[level]
        own[level] = kept[level] * (weights[level] @ own) + fresh
    return inherited + own


def _parent_weights(population: Population) -> sp.csr_array:
    """Rows sum to one; the first parent of a merge weighs most, as in the mosaic of the noise."""
    parents = population.parents
    n_parents = np.array([len(row) for row in parents])
    weights = np.concatenate([np.diff(np.sqrt(np.linspace(0, 1, n + 1))) for n in n_parents if n])
    child = np.repeat(np.arange(len(parents)), n_parents)
    shape = (len(parents), len(parents))
    return sp.csr_array((weights, (child, np.concatenate(parents))), shape=shape)


def _recorrelate(skills: np.ndarray, scored: np.ndarray, config: AnswerConfig) -> np.ndarray:
    """Standardise, and correct the correlations that chance and the shifts have changed."""
    order = list(config.stickiness)
    skills = skills - skills[scored].mean(axis=0)
    covariance = np.cov(skills[scored], rowvar=False)
    in_order = np.linalg.cholesky(covariance[np.ix_(order, order)])
    white = np.linalg.solve(in_order, skills[:, order].T).T
    return white @ config.skill_mixing.T


def _draw_evaluated(n_models: int, rng: np.random.Generator, config: AnswerConfig) -> np.ndarray:
    """Which benchmarks each model was evaluated on: correlated thresholds, one at the least."""
    share = config.observed_together
    common = np.sqrt(share) * rng.standard_normal((n_models, 1))
    own = np.sqrt(1 - share) * rng.standard_normal((n_models, len(BENCHMARKS)))
    margin = common + own - ndtri(1 - np.array(config.observed_share))
    return (margin > 0) | (margin == margin.max(axis=1, keepdims=True))


def _inherited_noise(
    population: Population, retention: np.ndarray, n_items: int, rng: np.random.Generator
) -> Iterator[tuple[slice, np.ndarray]]:
    """Draw g in blocks of columns: standard normal, correlated with one parent's by retention.

    Yields
    ------
    columns : slice
    noise : float32 array (n_nodes, width), overwritten by the next block
    """
    n_parents = np.array([len(row) for row in population.parents])
    first = np.concatenate([[0], np.cumsum(n_parents)[:-1]])
    parents = np.concatenate(population.parents)
    kept = retention.astype(np.float32)[:, None]
    fresh = np.sqrt(1 - kept**2)
    levels = [np.flatnonzero(population.depth == d) for d in range(population.depth.max() + 1)]
    width = int(np.clip(_BLOCK_CELLS // population.n_nodes, 16, 1024))
    for start in range(0, n_items, width):
        columns = slice(start, min(start + width, n_items))
        noise = rng.standard_normal((population.n_nodes, columns.stop - start), dtype=np.float32)
        for level in levels[1:]:
            single, merged = level[n_parents[level] == 1], level[n_parents[level] > 1]
            noise[single] = fresh[single] * noise[single]
            noise[single] += kept[single] * noise[parents[first[single]]]
            # The square of a uniform draw favours the first parents, as `_parent_weights` does.
            draw = rng.random((len(merged), noise.shape[1]), dtype=np.float32) ** 2
            place = (draw * n_parents[merged, None].astype(np.float32)).astype(np.int64)
            source = parents[first[merged, None] + place]
            drawn = np.take_along_axis(noise, source, axis=0) if len(merged) else draw
            noise[merged] = kept[merged] * drawn + fresh[merged] * noise[merged]
        yield columns, noise
