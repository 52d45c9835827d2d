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

# Shares of the kinds and of the unscored models, found by repeated growth (see `simulate`).
SHARE_UNSCORED = 0.44
SHARE_PRETRAINED = 0.056
SHARE_MERGE, SHARE_QUANTIZED, SHARE_ADAPTER = 0.60, 0.03, 0.006
# In-degrees of merges as measured: 2, 3, 4, 5, 6, and a geometric tail from 7 on.
MERGE_DEGREE_SHARES = np.array([77, 32, 22, 13, 11, 38]) / 193
MERGE_DEGREE_TAIL = 0.2
# Popularity of the families: (rank + offset) ** -exponent.
POPULARITY_OFFSET, POPULARITY_EXPONENT = 9.0, 2.0
# How often the parent is the family's root; else it is drawn from the urn, recent entries first.
# Merges across families of like size tie families into components.
ROOT_AS_PARENT = {"merge": 0.08, "other": 0.57}
CROSS_FAMILY_MERGE = 0.45
RECENCY = 1.6
# Probability that a card names its parents, by (scored, merge), and how documentation runs in
# families: it is likelier where the parent is documented too.
RECORDED = {(True, False): 0.45, (True, True): 0.20, (False, False): 0.75, (False, True): 0.38}
RECORDED_LIKE_PARENT, RECORDED_UNLIKE_PARENT = 1.3, 0.88
MERGE_FULLY_RECORDED = {True: 0.36, False: 0.8}
GRANDPARENT_TOO = 0.35

# Over models, not families; sizes in billions of parameters.
SIZE_QUANTILES = np.array([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
SIZE_VALUES = np.array([0.1, 0.51, 6.7, 8.0, 12.2, 40, 140])
DATE_QUANTILES = np.array([0, 0.05, 0.25, 0.5, 0.75, 1])
DATES = pd.to_datetime(
    ["2022-03-02", "2023-07-01", "2024-05-25", "2024-09-20", "2024-12-15", "2025-03-10"]
)
LEADERBOARD_OPENS, LEADERBOARD_CLOSES = pd.to_datetime(["2024-06-08", "2025-03-13"])
ARCHITECTURES = np.array(
    ["Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Juniper", "Larch", "Maple", "Rowan"]
)


@dataclass(frozen=True)
class Population:
    """All models of the simulated Hub in order of creation, scored or not.

    Attributes
    ----------
    kind, family, depth, recorded : int array (n_nodes,)
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


def grow_population(n_models: int, rng: np.random.Generator) -> Population:
    """Let the Hub grow model by model until it holds ``n_models`` scored ones.

    Families are born over time with Zipf popularity; a new model joins a family by popularity and
    takes its parents there by preferential attachment (an urn in which models appear once at birth
    and once more for every child), which gives few models many children and most only one.
    """
    n_unscored = round(SHARE_UNSCORED * n_models)
    n_nodes = n_models + n_unscored
    scored = np.ones(n_nodes, dtype=bool)
    scored[rng.permutation(n_nodes)[:n_unscored]] = False
    n_families = max(4, round(SHARE_PRETRAINED * n_nodes))
    # Two roots open the Hub; later ones come rather early, as children need time to follow.
    birth = np.unique(np.append([0, 1], n_nodes * rng.random(n_families) ** 1.3).astype(int))
    popularity = (rng.permutation(len(birth)) + POPULARITY_OFFSET) ** -POPULARITY_EXPONENT
    size_b = _family_sizes(_expected_models(birth, popularity, n_nodes), rng)
    growth = _Growth(birth, popularity, size_b, scored, rng)
    for node in range(n_nodes):
        growth.add(node)
    growth.record_a_merge()
    return Population(
        kind=growth.kind,
        family=growth.family,
        depth=growth.depth,
        recorded=growth.recorded,
        scored=scored,
        parents=growth.parents,
        family_size_b=size_b,
        family_birth=birth,
    )


def _expected_models(birth: np.ndarray, popularity: np.ndarray, n_nodes: int) -> np.ndarray:
    """Expected number of models per family: its share of those alive, summed over time."""
    alive = np.cumsum(np.bincount(birth, weights=popularity, minlength=n_nodes))
    remaining = np.cumsum((1 / alive)[::-1])[::-1]
    return popularity * remaining[birth]


def _family_sizes(expected_models: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sizes whose distribution over models, not over families, has the measured quantiles."""
    order = rng.permutation(len(expected_models))
    share = expected_models[order] / expected_models.sum()
    quantile = np.cumsum(share) - share / 2
    size_b = np.empty(len(order))
    size_b[order] = np.exp(np.interp(quantile, SIZE_QUANTILES, np.log(SIZE_VALUES)))
    return size_b.round(3)


class _Growth:
    """State of the growing Hub: one urn of candidate parents per family."""

    def __init__(self, birth, popularity, size_b, scored, rng):
        n_nodes = len(scored)
        self.rng, self.scored, self.birth = rng, scored, birth
        self.kind = np.zeros(n_nodes, dtype=np.int64)
        self.family = np.zeros(n_nodes, dtype=np.int64)
        self.depth = np.zeros(n_nodes, dtype=np.int64)
        self.recorded = np.zeros(n_nodes, dtype=np.int64)
        self.parents = [np.zeros(0, dtype=np.int64)] * n_nodes
        self.cumulative = np.cumsum(popularity)
        self.urns = []
        self.by_size = np.argsort(size_b, kind="stable")
        self.size_rank = np.argsort(self.by_size, kind="stable")

    def add(self, node: int) -> None:
        """Let a root found its family, or a descendant join one."""
        n_families = len(self.urns)
        if n_families < len(self.birth) and self.birth[n_families] == node:
            self.family[node] = n_families
            self.urns.append([node] * 4)
            return
        mark = self.rng.random() * self.cumulative[n_families - 1]
        family = int(np.searchsorted(self.cumulative[:n_families], mark))
        kind = self._draw_kind()
        parents = self._merge_parents(family) if kind == MERGE else []
        if len(parents) < 2:
            kind = FINETUNE if kind == MERGE else kind
            parents = [self._draw_parent(family, ROOT_AS_PARENT["other"])]
        self.family[node], self.kind[node] = family, kind
        self.parents[node] = np.array(parents)
        self.depth[node] = 1 + max(self.depth[parent] for parent in parents)
        self.recorded[node] = self._draw_recorded(node)
        self.urns[family] += parents
        # Documented models are found and reused more; unscored ones are visible only as parents.
        copies = (3 if self.recorded[node] else 1) * (1 if self.scored[node] else 2)
        self.urns[family] += [node] * copies

    def record_a_merge(self) -> None:
        """Have at least one merge with all its parents on record, however small the Hub."""
        merges = np.flatnonzero(self.scored & (self.kind == MERGE))
        if not (self.recorded[merges] == RECORDED_ALL).any():
            self.recorded[merges[-1:]] = RECORDED_ALL

    def _draw_kind(self) -> int:
        bounds = np.cumsum([SHARE_MERGE, SHARE_QUANTIZED, SHARE_ADAPTER])
        place = int(np.searchsorted(bounds, self.rng.random(), side="right"))
        return (MERGE, QUANTIZED, ADAPTER, FINETUNE)[place]

    def _draw_parent(self, family: int, root_share: float) -> int:
        urn = self.urns[family]
        if self.rng.random() < root_share:
            return urn[0]
        return urn[int(len(urn) * (1 - self.rng.random() ** RECENCY))]

    def _merge_parents(self, family: int) -> list[int]:
        degree = 2 + int(self.rng.choice(6, p=MERGE_DEGREE_SHARES))
        if degree == 7:
            degree += int(self.rng.geometric(MERGE_DEGREE_TAIL)) - 1
        parents = {}
        if self.rng.random() < CROSS_FAMILY_MERGE:
            parents[self._draw_parent(self._neighbour(family), 0.5)] = None
        for _ in range(3 * degree):
            if len(parents) == degree:
                break
            parents[self._draw_parent(family, ROOT_AS_PARENT["merge"])] = None
        return list(parents)

    def _neighbour(self, family: int) -> int:
        """An existing family of nearly the same size, so that weights can be averaged at all."""
        rank = self.size_rank[family] + int(self.rng.choice([-2, -1, 1, 2]))
        other = int(self.by_size[rank % len(self.by_size)])
        return other if other < len(self.urns) else family

    def _draw_recorded(self, node: int) -> int:
        scored, merge = bool(self.scored[node]), self.kind[node] == MERGE
        like = self.recorded[self.parents[node][0]] != RECORDED_NONE
        factor = RECORDED_LIKE_PARENT if like else RECORDED_UNLIKE_PARENT
        chance, detail = self.rng.random(2)
        if chance >= RECORDED[scored, merge] * factor:
            return RECORDED_NONE
        if merge:
            return RECORDED_ALL if detail < MERGE_FULLY_RECORDED[scored] else RECORDED_FIRST
        return RECORDED_GRANDPARENT if detail < GRANDPARENT_TOO else RECORDED_ALL


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


def describe_models(population: Population, rng: np.random.Generator) -> pd.DataFrame:
    """What the cards say of every node: one row a node, null where cards are silent."""
    n_nodes, kind, family = population.n_nodes, population.kind, population.family
    created, evaluated = _dates(population, rng)
    merged = kind == MERGE
    moe = merged & (rng.random(n_nodes) < 0.04)
    params_b = population.family_size_b[family] * np.where(moe, 1.7, 1.0)
    types = _types(kind, rng)
    template_share = np.select(
        [types == "pretrained", types == "chat models (RLHF, DPO, IFT, ...)"], [0.1, 0.75], 0.5
    )
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


def _dates(population: Population, rng: np.random.Generator) -> tuple[pd.Series, pd.Series]:
    days = (DATES - DATES[0]).days.to_numpy()
    quantile = (np.arange(population.n_nodes) + 0.5) / population.n_nodes
    created = np.interp(quantile, DATE_QUANTILES, days).astype(int)
    for node, parents in enumerate(population.parents):
        if len(parents):
            created[node] = max(created[node], created[parents].max() + 1)
    opens, closes = ((day - DATES[0]).days for day in (LEADERBOARD_OPENS, LEADERBOARD_CLOSES))
    wait = np.floor(rng.lognormal(np.log(10), 1.9, population.n_nodes)).astype(int)
    earliest = np.maximum(created, opens)
    evaluated = np.maximum(np.minimum(earliest + wait, closes), earliest)
    as_text = [pd.Series(DATES[0] + pd.to_timedelta(d, unit="D")) for d in (created, evaluated)]
    return tuple(series.dt.strftime("%Y-%m-%d") for series in as_text)


def _types(kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    merge, tuned, chat, continued, pretrained = (
        "base merges and moerges",
        "fine-tuned on domain-specific datasets",
        "chat models (RLHF, DPO, IFT, ...)",
        "continuously pretrained",
        "pretrained",
    )
    draw = rng.random(len(kind))
    of_merges = np.select([draw < 0.63, draw < 0.87], [merge, tuned], chat)
    of_others = np.select([draw < 0.58, draw < 0.97], [tuned, chat], continued)
    return np.select([kind == PRETRAINED, kind == MERGE], [pretrained, of_merges], of_others)


def _architectures(population: Population, rng: np.random.Generator) -> np.ndarray:
    weights = 1 / np.arange(1, len(ARCHITECTURES) + 1)
    draws = rng.choice(len(weights), size=len(population.family_birth), p=weights / weights.sum())
    return (ARCHITECTURES[draws] + "ForCausalLM").astype(object)[population.family]


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
