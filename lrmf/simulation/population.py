"""The simulated Hub's population: families of models, who descends from whom, and what is recorded.

Every name is invented: ``sim-org-012/family-03-8b-ft-0412`` is no real model. A model's true
parents always exist, but as on the real Hub most are recorded nowhere: some model cards name all
parents, some only the first, and some name a grandparent as well.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

PRETRAINED, FINETUNE, MERGE, ADAPTER, QUANTIZED = range(5)
RELATION_OF_KIND = np.array(["none", "finetune", "merge", "adapter", "quantized"], dtype=object)
RECORDED_NONE, RECORDED_FIRST, RECORDED_ALL, RECORDED_GRANDPARENT = range(4)

CHAT = "chat models (RLHF, DPO, IFT, ...)"  # a type of the leaderboard
ARCHITECTURES = "Alder Birch Cedar Elm Fir Hazel Juniper Larch Maple Rowan".split()


@dataclass(frozen=True)
class PopulationConfig:
    """Shares, sizes and dates of the population.

    Sizes, dates and the numbers of parents of merges are measured on the real Hub; the other values
    were found by repeated growth (see `lrmf.simulation.simulate`). Pairs are of scored and of
    unscored models.
    """

    unscored: float = 0.44  # unscored models for each scored one
    pretrained: float = 0.056  # of all models; the following of all others, the rest are finetunes
    merge: float = 0.60
    quantized: float = 0.03
    adapter: float = 0.006
    # Numbers of merges of 2, 3, 4, 5, 6 parents, and of 7 or more, with a geometric tail.
    merge_degrees: tuple = (77, 32, 22, 13, 11, 38)
    merge_degree_tail: float = 0.2
    # Popularity of the families: (rank + offset) ** -exponent.
    popularity_offset: float = 9.0
    popularity_exponent: float = 2.0
    # How often the parent is the family's root; else it comes from the urn, recent entries first.
    root_as_parent: float = 0.57
    root_as_merge_parent: float = 0.08
    recency: float = 1.6
    cross_family_merge: float = 0.45  # merges across families of like size tie them into components
    # Probability that a card names the parents; it is larger if the parent's own card does.
    recorded: tuple = (0.45, 0.75)
    recorded_merge: tuple = (0.20, 0.38)
    recorded_like_parent: float = 1.3
    recorded_unlike_parent: float = 0.88
    merge_fully_recorded: tuple = (0.36, 0.8)  # else the card names the first parent only
    grandparent_too: float = 0.35
    # Quantiles over models, not families: of the size in billions of parameters, of the creation.
    sizes_b: tuple = (0.1, 0.51, 6.7, 8.0, 12.2, 40, 140)
    size_quantiles: tuple = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    created: tuple = (
        "2022-03-02", "2023-07-01", "2024-05-25", "2024-09-20", "2024-12-15", "2025-03-10",
    )  # fmt: skip
    creation_quantiles: tuple = (0, 0.05, 0.25, 0.5, 0.75, 1)
    leaderboard: tuple = ("2024-06-08", "2025-03-13")  # first and last day of evaluations


@dataclass(frozen=True)
class Population:
    """All models of the simulated Hub in order of creation, scored or not.

    Attributes
    ----------
    kind, family, depth, recorded : int array (n_nodes,); see the constants of this module
    scored : bool array (n_nodes,)
    parents : list of int arrays, the true parents, earlier nodes, most influential first
    family_size_b : float array (n_families,), billions of parameters
    family_birth : int array (n_families,), node of the pretrained root
    """

    kind: np.ndarray
    family: np.ndarray
    depth: np.ndarray
    recorded: np.ndarray
    scored: np.ndarray
    parents: list[np.ndarray]
    family_size_b: np.ndarray
    family_birth: np.ndarray

    @property
    def n_nodes(self) -> int:
        """Number of models, scored or not."""
        return len(self.kind)


def grow_population(
    n_models: int, rng: np.random.Generator, config: PopulationConfig = PopulationConfig()
) -> Population:
    """Let the Hub grow model by model until it holds ``n_models`` scored ones.

    Families are born over time with Zipf popularity; a new model joins a family by popularity and
    takes its parents there by preferential attachment (an urn in which models appear once at birth
    and once more for every child), which gives few models many children and most only one.
    """
    n_unscored = round(config.unscored * n_models)
    n_nodes = n_models + n_unscored
    scored = np.ones(n_nodes, dtype=bool)
    scored[rng.permutation(n_nodes)[:n_unscored]] = False
    n_families = max(4, round(config.pretrained * n_nodes))
    # Two roots open the Hub; later ones come rather early, as children need time to follow.
    birth = np.unique(np.append([0, 1], n_nodes * rng.random(n_families) ** 1.3).astype(int))
    rank = rng.permutation(len(birth))
    popularity = (rank + config.popularity_offset) ** -config.popularity_exponent
    population = Population(
        *np.zeros((4, n_nodes), dtype=np.int64),
        scored=scored,
        parents=[np.zeros(0, dtype=np.int64)] * n_nodes,
        family_size_b=_family_sizes(_expected_models(birth, popularity, n_nodes), rng, config),
        family_birth=birth,
    )
    growth = _Growth(population, popularity, rng, config)
    for node in range(n_nodes):
        growth.add(node)
    # At least one merge has all its parents on record, however small the Hub.
    merges = np.flatnonzero(scored & (population.kind == MERGE))
    if not (population.recorded[merges] == RECORDED_ALL).any():
        population.recorded[merges[-1:]] = RECORDED_ALL
    return population


def _expected_models(birth: np.ndarray, popularity: np.ndarray, n_nodes: int) -> np.ndarray:
    """Expected number of models per family: its share of those alive, summed over time."""
    alive = np.cumsum(np.bincount(birth, weights=popularity, minlength=n_nodes))
    remaining = np.cumsum((1 / alive)[::-1])[::-1]
    return popularity * remaining[birth]


def _family_sizes(
    expected_models: np.ndarray, rng: np.random.Generator, config: PopulationConfig
) -> np.ndarray:
    """Sizes whose distribution over models, not over families, has the measured quantiles."""
    order = rng.permutation(len(expected_models))
    share = expected_models[order] / expected_models.sum()
    quantile = np.cumsum(share) - share / 2
    size_b = np.empty(len(order))
    size_b[order] = np.exp(np.interp(quantile, config.size_quantiles, np.log(config.sizes_b)))
    return size_b.round(3)


class _Growth:
    """Fills in a population node by node, with an urn of candidate parents for each family."""

    def __init__(self, population, popularity, rng, config):
        self.hub, self.rng, self.config = population, rng, config
        self.cumulative = np.cumsum(popularity)
        self.urns = []
        self.by_size = np.argsort(population.family_size_b, kind="stable")
        self.size_rank = np.argsort(self.by_size, kind="stable")

    def add(self, node: int) -> None:
        """Let a root found its family, or a descendant join one."""
        hub, n_families = self.hub, len(self.urns)
        if n_families < len(hub.family_birth) and hub.family_birth[n_families] == node:
            hub.family[node] = n_families
            self.urns.append([node] * 4)
            return
        mark = self.rng.random() * self.cumulative[n_families - 1]
        family = int(np.searchsorted(self.cumulative[:n_families], mark))
        kind = self._draw_kind()
        parents = self._merge_parents(family) if kind == MERGE else []
        if len(parents) < 2:
            kind = FINETUNE if kind == MERGE else kind
            parents = [self._draw_parent(family, self.config.root_as_parent)]
        hub.family[node], hub.kind[node] = family, kind
        hub.parents[node] = np.array(parents)
        hub.depth[node] = 1 + hub.depth[parents].max()
        hub.recorded[node] = self._draw_recorded(node)
        self.urns[family] += parents
        # Documented models are found and reused more; unscored ones are visible only as parents.
        copies = (3 if hub.recorded[node] else 1) * (1 if hub.scored[node] else 2)
        self.urns[family] += [node] * copies

    def _draw_kind(self) -> int:
        bounds = np.cumsum([self.config.merge, self.config.quantized, self.config.adapter])
        place = int(np.searchsorted(bounds, self.rng.random(), side="right"))
        return (MERGE, QUANTIZED, ADAPTER, FINETUNE)[place]

    def _draw_parent(self, family: int, root_share: float) -> int:
        urn = self.urns[family]
        if self.rng.random() < root_share:
            return urn[0]
        return urn[int(len(urn) * (1 - self.rng.random() ** self.config.recency))]

    def _merge_parents(self, family: int) -> list[int]:
        weights = np.array(self.config.merge_degrees)
        degree = 2 + int(self.rng.choice(len(weights), p=weights / weights.sum()))
        if degree == 1 + len(weights):
            degree += int(self.rng.geometric(self.config.merge_degree_tail)) - 1
        parents = []
        if self.rng.random() < self.config.cross_family_merge:
            parents.append(self._draw_parent(self._neighbour(family), 0.5))
        for _ in range(3 * degree):
            if len(parents) < degree:
                parent = self._draw_parent(family, self.config.root_as_merge_parent)
                parents += [parent] * (parent not in parents)
        return parents

    def _neighbour(self, family: int) -> int:
        """An existing family of nearly the same size, so that weights can be averaged at all."""
        rank = self.size_rank[family] + int(self.rng.choice([-2, -1, 1, 2]))
        other = int(self.by_size[rank % len(self.by_size)])
        return other if other < len(self.urns) else family

    def _draw_recorded(self, node: int) -> int:
        hub, config, unscored = self.hub, self.config, int(not self.hub.scored[node])
        is_merge = hub.kind[node] == MERGE
        probability = (config.recorded_merge if is_merge else config.recorded)[unscored]
        is_like = hub.recorded[hub.parents[node][0]] != RECORDED_NONE
        factor = config.recorded_like_parent if is_like else config.recorded_unlike_parent
        chance, detail = self.rng.random(2)
        if chance >= probability * factor:
            return RECORDED_NONE
        if is_merge:
            fully = detail < config.merge_fully_recorded[unscored]
            return RECORDED_ALL if fully else RECORDED_FIRST
        return RECORDED_GRANDPARENT if detail < config.grandparent_too else RECORDED_ALL


def recorded_edges(population: Population) -> pd.DataFrame:
    """The part of the lineage that model cards name, as node numbers.

    Only what is visible from scored models is kept: a crawl starts there and climbs to the parents.
    A merge of which one parent is named appears as a finetune, as the Hub infers it.

    Returns
    -------
    DataFrame with columns parent, child (int) and relation, ordered by child
    """
    visible = population.scored.copy()
    rows = []
    for child in range(population.n_nodes - 1, -1, -1):
        if not visible[child] or population.recorded[child] == RECORDED_NONE:
            continue
        parents = population.parents[child].tolist()
        kind = population.kind[child]
        if population.recorded[child] == RECORDED_FIRST:
            parents, kind = parents[:1], FINETUNE
        elif population.recorded[child] == RECORDED_GRANDPARENT:
            parents += [p for p in population.parents[parents[0]][:1] if p not in parents]
        visible[parents] = True
        rows += [(parent, child, RELATION_OF_KIND[kind]) for parent in parents]
    return pd.DataFrame(rows[::-1], columns=["parent", "child", "relation"])


def describe_models(
    population: Population,
    rng: np.random.Generator,
    config: PopulationConfig = PopulationConfig(),
) -> pd.DataFrame:
    """What the cards say of every node: one row a node, null where cards are silent."""
    n_nodes, kind, family = population.n_nodes, population.kind, population.family
    created, evaluated = _dates(population, rng, config)
    merged = kind == MERGE
    moe = merged & (rng.random(n_nodes) < 0.04)
    params_b = population.family_size_b[family] * np.where(moe, 1.7, 1.0)
    types = _types(kind, rng)
    template_share = np.select([types == "pretrained", types == CHAT], [0.1, 0.75], 0.5)
    template = rng.random(n_nodes) < template_share
    copied = rng.random(n_nodes) < 0.5
    for node, parents in enumerate(population.parents):
        if len(parents) and copied[node] and kind[parents[0]] != PRETRAINED:
            template[node] = template[parents[0]]
    licenses = np.array(["apache-2.0", "other", "mit", "cc-by-nc-4.0", None], dtype=object)
    family_license = rng.choice(4, size=len(population.family_birth), p=[0.6, 0.25, 0.1, 0.05])
    frame = pd.DataFrame(
        {
            "model_id": _model_ids(population, params_b, rng),
            "revision": None,
            "params_b": np.where(rng.random(n_nodes) < 0.01, np.nan, params_b.round(3)),
            "architecture": _architectures(population, rng),
            "precision": rng.choice(["bfloat16", "float16"], size=n_nodes, p=[0.77, 0.23]),
            "type": types,
            "merged": merged,
            "moe": moe,
            "chat_template": template,
            "license": licenses[np.where(rng.random(n_nodes) < 0.23, 4, family_license[family])],
            "likes": np.floor(rng.lognormal(0.7, 1.7, n_nodes) * np.where(kind, 1, 20)).astype(int),
            "created_at": created.where(rng.random(n_nodes) > 0.076, None),
            "evaluated_at": evaluated,
        }
    )
    return frame.astype({"revision": "string", "license": "string"})


def _dates(
    population: Population, rng: np.random.Generator, config: PopulationConfig
) -> tuple[pd.Series, pd.Series]:
    """Days of creation and evaluation: children follow their parents."""
    days = pd.to_datetime(config.created)
    place = (np.arange(population.n_nodes) + 0.5) / population.n_nodes
    created = np.interp(place, config.creation_quantiles, (days - days[0]).days).astype(int)
    for node, parents in enumerate(population.parents):
        if len(parents):
            created[node] = max(created[node], created[parents].max() + 1)
    opens, closes = (pd.to_datetime(config.leaderboard) - days[0]).days
    wait = np.floor(rng.lognormal(np.log(10), 1.9, population.n_nodes)).astype(int)
    earliest = np.maximum(created, opens)
    evaluated = np.maximum(np.minimum(earliest + wait, closes), earliest)
    return tuple(
        pd.Series(days[0] + pd.to_timedelta(day, unit="D")).dt.strftime("%Y-%m-%d")
        for day in (created, evaluated)
    )


def _types(kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    merge, tuned = "base merges and moerges", "fine-tuned on domain-specific datasets"
    chat, continued, pretrained = CHAT, "continuously pretrained", "pretrained"
    draw = rng.random(len(kind))
    of_merges = np.select([draw < 0.63, draw < 0.87], [merge, tuned], chat)
    of_others = np.select([draw < 0.58, draw < 0.97], [tuned, chat], continued)
    return np.select([kind == PRETRAINED, kind == MERGE], [pretrained, of_merges], of_others)


def _architectures(population: Population, rng: np.random.Generator) -> np.ndarray:
    weights = 1 / np.arange(1, len(ARCHITECTURES) + 1)
    draws = rng.choice(len(weights), size=len(population.family_birth), p=weights / weights.sum())
    return (np.array(ARCHITECTURES, dtype=object) + "ForCausalLM")[draws][population.family]


def _model_ids(population: Population, params_b: np.ndarray, rng: np.random.Generator) -> list[str]:
    n_orgs = max(3, population.n_nodes // 4)
    weights = 1 / (np.arange(n_orgs) + 3.0)
    orgs = rng.choice(n_orgs, size=population.n_nodes, p=weights / weights.sum())
    tags = np.array(["base", "ft", "merge", "lora", "quant"], dtype=object)[population.kind]
    return [
        f"sim-org-{org:03d}/family-{family:02d}-{size:.3g}b-{tag}-{node:04d}"
        for node, (org, family, size, tag) in enumerate(
            zip(orgs, population.family, params_b, tags, strict=True)
        )
    ]
