"""The lineage: which model was made from which, as a graph with a Laplacian.

Nodes are the scored models, in the order of the responses, and then the unscored ancestors (and any
other id that only the edges know), sorted. Edges run from parent to child. What cannot be part of a
family tree is dropped and reported: self-loops, duplicates, and the edges that close a cycle.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra

from .ids import normalised_id
from .schema import RELATIONS

if TYPE_CHECKING:
    import networkx as nx

EDGE_COLUMNS = ("parent", "child", "relation")


class Lineage:
    """Directed acyclic graph of models with its symmetric adjacency and Laplacian.

    With A the symmetric weighted adjacency and D = diag(A 1), the combinatorial Laplacian is
    ``L = D - A``, so that ``t^T L t = sum over edges of w_pc (t_p - t_c)^2``. Weights are 1 unless
    chosen otherwise. Build it with `from_edges`.

    Attributes
    ----------
    node_ids : ndarray of object, (n_nodes,)
        The models first, in the given order, then the unscored nodes in sorted order.
    n_models, n_nodes : int
    edges : DataFrame
        ``parent, child, relation, weight`` of the edges kept, sorted by child, then parent.
    parent_index, child_index : ndarray of int, (n_edges,)
        Nodes of the rows of ``edges``.
    dropped : DataFrame
        ``parent, child, relation, reason`` with reason "self-loop", "duplicate" or "cycle".
    adjacency, laplacian : csr_array of float64, (n_nodes, n_nodes)
    families : ndarray of int, (n_nodes,)
        Connected component of each node; 0 is the largest, ties go to the smallest id.
    depth : ndarray of int, (n_nodes,)
        Edges on the longest path from a root.

    Notes
    -----
    Families, depth, hops and relatives follow every kept edge, also one of weight 0.

    Examples
    --------
    >>> edges = [
    ...     ("lab/base", "lab/chat", "finetune"),
    ...     ("lab/chat", "me/mix", "merge"),
    ...     ("lab/code", "me/mix", "merge"),
    ...     ("me/mix", "me/mix", "finetune"),
    ... ]
    >>> lineage = Lineage.from_edges(edges, ["lab/base", "lab/chat", "me/mix"])
    >>> lineage
    Lineage(n_models=3, n_nodes=4, n_edges=3, n_dropped=1)
    >>> lineage.dropped["reason"].tolist()
    ['self-loop']
    >>> lineage.ancestors("me/mix")  # lab/code was never evaluated
    ['lab/chat', 'lab/code', 'lab/base']
    >>> lineage.laplacian.toarray()
    array([[ 1., -1.,  0.,  0.],
           [-1.,  2., -1.,  0.],
           [ 0., -1.,  2., -1.],
           [ 0.,  0., -1.,  1.]])
    """

    def __init__(
        self,
        node_ids: np.ndarray,
        n_models: int,
        links: pd.DataFrame,
        dropped: pd.DataFrame,
        *,
        relation_weights: Mapping[str, float] | None = None,
        split_merges: bool = False,
    ):
        self.node_ids = node_ids
        self.n_models = n_models
        self.dropped = dropped
        self.relation_weights = _checked_weights(relation_weights)
        self.split_merges = split_merges
        # Edges as numbers: nodes of parent and child, position of the relation in RELATIONS.
        self._links = _in_id_order(links, node_ids).reset_index(drop=True)
        self.parent_index = self._links["parent"].to_numpy()
        self.child_index = self._links["child"].to_numpy()
        weight = self._edge_weights()
        self.edges = _named(self._links, node_ids).assign(weight=weight)
        self.adjacency = self._symmetric(weight)

    @classmethod
    def from_edges(
        cls,
        edges: pd.DataFrame | Iterable[tuple[str, str, str]],
        model_ids: Iterable[str],
        *,
        relation_weights: Mapping[str, float] | None = None,
        split_merges: bool = False,
    ) -> "Lineage":
        """Build the graph over the models and every other id that the edges mention.

        Parameters
        ----------
        edges : DataFrame with columns parent, child, relation, or an iterable of such triples
            May be empty. Of several relations between one parent and child the first in
            ``RELATIONS`` (finetune, merge, adapter, quantized) is kept. Within each cycle the back
            edges of a depth-first search in the order of ids are dropped. Neither depends on the
            order of edges or models.
        model_ids : iterable of str
            Scored models, in the order of the rows of the responses.
        relation_weights : mapping of relation to weight >= 0, optional
            1 for every relation left out.
        split_merges : bool
            Divide the weight of each of a model's n merge edges by n.

        Raises
        ------
        ValueError
            For a repeated or missing id, an unknown relation, or a weight that is none.
        """
        model_ids = _checked_model_ids(model_ids)
        table = _edge_table(edges)
        is_loop = table["parent"] == table["child"]
        loops, table = table[is_loop], table[~is_loop]
        node_ids, links = _index_nodes(model_ids, table)
        links, duplicates = _without_duplicates(links)
        links, cycles = _without_cycles(links, node_ids)
        reasons = {"self-loop": loops}
        reasons |= {"duplicate": _named(duplicates, node_ids), "cycle": _named(cycles, node_ids)}
        dropped = pd.concat([part.assign(reason=reason) for reason, part in reasons.items()])
        return cls(
            node_ids,
            len(model_ids),
            links,
            dropped.sort_values(["child", "parent", "relation", "reason"], ignore_index=True),
            relation_weights=relation_weights,
            split_merges=split_merges,
        )

    def __repr__(self) -> str:
        return (
            f"Lineage(n_models={self.n_models}, n_nodes={self.n_nodes}, "
            f"n_edges={len(self.edges)}, n_dropped={len(self.dropped)})"
        )

    @property
    def n_nodes(self) -> int:
        """Number of nodes, scored or not."""
        return len(self.node_ids)

    @property
    def n_edges(self) -> int:
        """Number of edges kept."""
        return len(self.edges)

    @property
    def n_families(self) -> int:
        """Number of connected components; a model without relatives is one of its own."""
        return int(self.families.max()) + 1

    @property
    def is_scored(self) -> np.ndarray:
        """Mask of the nodes that are models of the responses."""
        return np.arange(self.n_nodes) < self.n_models

    @cached_property
    def laplacian(self) -> sp.csr_array:
        """Combinatorial Laplacian D - A, (n_nodes, n_nodes)."""
        degree = self.adjacency.sum(axis=1)
        return sp.csr_array(sp.diags_array(degree) - self.adjacency)

    @cached_property
    def families(self) -> np.ndarray:
        """Connected component of each node, numbered from the largest."""
        n_families, label = connected_components(self._undirected, directed=False)
        sizes = np.bincount(label, minlength=n_families)
        smallest = np.full(n_families, self.n_nodes)
        np.minimum.at(smallest, label, _id_rank(self.node_ids))
        order = np.lexsort([smallest, -sizes])
        new_label = np.empty(n_families, dtype=int)
        new_label[order] = np.arange(n_families)
        return new_label[label]

    @cached_property
    def depth(self) -> np.ndarray:
        """Number of edges on the longest path from a root to each node."""
        depth = np.zeros(self.n_nodes, dtype=int)
        # One generation a pass, until no path grows.
        while True:
            longer = depth.copy()
            np.maximum.at(longer, self.child_index, depth[self.parent_index] + 1)
            if np.array_equal(longer, depth):
                return depth
            depth = longer

    def index_of(self, node_id: str) -> int:
        """Position of an id among the nodes; ValueError if it is not one."""
        try:
            return self._positions[node_id]
        except (KeyError, TypeError):
            raise ValueError(
                f"{node_id!r} is not a node of the lineage; add it as an unscored model or drop "
                "the edge"
            ) from None

    def id_of(self, text: str) -> str:
        """The id of the node that a text names, else the id in the text, as in `normalised_id`.

        Where no id is the same, that of the only node that differs in case alone.
        """
        if text in self._positions:
            return text
        name = normalised_id(text) or text
        nodes = () if name in self._positions else self._by_lower.get(str(name).lower(), ())
        return nodes[0] if len(nodes) == 1 else name

    @cached_property
    def _by_lower(self) -> dict[str, list[str]]:
        """Nodes by their ids in lower case."""
        nodes = {}
        for name in self.node_ids:
            nodes.setdefault(str(name).lower(), []).append(name)
        return nodes

    def parents(self, node_id: str) -> list[str]:
        """Ids of the parents, sorted."""
        return sorted(self._graph.predecessors(self._checked(node_id)))

    def children(self, node_id: str) -> list[str]:
        """Ids of the children, sorted."""
        return sorted(self._graph.successors(self._checked(node_id)))

    def siblings(self, node_id: str) -> list[str]:
        """Ids of the other children of any of its parents, sorted."""
        families = map(self.children, self.parents(node_id))
        return sorted(set(chain.from_iterable(families)) - {node_id})

    def ancestors(self, node_id: str, hops: int | None = None) -> list[str]:
        """Ids of the nodes above it, at most ``hops`` generations up; nearest first."""
        return self._within_reach(self._graph.reverse(copy=False), node_id, hops)

    def descendants(self, node_id: str, hops: int | None = None) -> list[str]:
        """Ids of the nodes below it, at most ``hops`` generations down; nearest first."""
        return self._within_reach(self._graph, node_id, hops)

    def hops_to(self, mask: np.ndarray) -> np.ndarray:
        """Undirected distance in edges from each node to the nearest node of ``mask``.

        Parameters
        ----------
        mask : ndarray of bool, (n_nodes,)

        Returns
        -------
        ndarray of int, (n_nodes,)
            0 on the mask itself, -1 where no node of the mask can be reached.

        Examples
        --------
        >>> edges = [("base", "chat", "finetune"), ("chat", "mix", "merge")]
        >>> lineage = Lineage.from_edges(edges, ["base", "chat", "mix", "other"])
        >>> lineage.hops_to(lineage.node_ids == "mix").tolist()
        [2, 1, 0, -1]
        """
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.n_nodes,):
            raise ValueError(
                f"mask must be a boolean array over the {self.n_nodes} nodes, got {mask.dtype} of "
                f"shape {mask.shape}"
            )
        if not mask.any():
            return np.full(self.n_nodes, -1)
        sources = np.flatnonzero(mask)
        distance = dijkstra(self._undirected, indices=sources, unweighted=True, min_only=True)
        return np.where(np.isfinite(distance), distance, -1).astype(int)

    def shuffled(self, seed: int | np.random.Generator) -> "Lineage":
        """The same graph with the models' places in it permuted at random: the control.

        Models with relatives exchange places among themselves, so that each of them still has
        relatives, only not its own. Unscored nodes, and models without relatives, stay in place.
        """
        linked = np.unique(np.concatenate([self.parent_index, self.child_index]))
        linked = linked[linked < self.n_models]
        place = np.arange(self.n_nodes)
        place[linked] = np.random.default_rng(seed).permutation(linked)
        links = self._links.copy()
        links[["parent", "child"]] = place[links[["parent", "child"]].to_numpy()]
        return self._with_links(links)

    def rewired(self, seed: int | np.random.Generator) -> "Lineage":
        """Random edges between the same nodes, each with as many parents and children as before.

        The children of the edges of each relation exchange their parents at random. Edges that
        come out double, cyclic or from a node to itself are left out.
        """
        rng = np.random.default_rng(seed)
        links = self._links.copy()
        for edges in links.groupby("relation", sort=True).indices.values():
            parents = links["parent"].to_numpy()[edges]
            links.iloc[edges, links.columns.get_loc("parent")] = rng.permutation(parents)
        links, _ = _without_duplicates(links[links["parent"] != links["child"]])
        links, _ = _without_cycles(links, self.node_ids)
        return self._with_links(_in_id_order(links, self.node_ids))

    def drop_edges(
        self, drop: np.ndarray | float, *, seed: int | np.random.Generator | None = None
    ) -> "Lineage":
        """The lineage without some of its edges; the nodes stay.

        Parameters
        ----------
        drop : ndarray of bool, (n_edges,), or float in [0, 1]
            The rows of ``edges`` to remove, or the share of them to remove at random.
        seed : int or Generator
            Needed with a share.

        Examples
        --------
        >>> edges = [("base", "chat", "finetune"), ("chat", "mix", "merge")]
        >>> lineage = Lineage.from_edges(edges, ["base", "chat", "mix"])
        >>> lineage.drop_edges(lineage.edges["relation"].to_numpy() == "merge").n_edges
        1
        >>> lineage.drop_edges(1.0, seed=0).n_edges
        0
        """
        if np.ndim(drop) == 0 and not isinstance(drop, bool | np.bool):
            drop = self._random_edges(float(drop), seed)
        drop = np.asarray(drop)
        if drop.dtype != bool or drop.shape != (self.n_edges,):
            raise ValueError(
                f"drop must be a share in [0, 1] or a boolean array over the {self.n_edges} edges, "
                f"got {drop.dtype} of shape {drop.shape}"
            )
        return self._with_links(self._links[~drop])

    def to_networkx(self) -> "nx.DiGraph":
        """NetworkX graph; nodes carry ``scored``, edges ``relation`` and ``weight``."""
        import networkx as nx

        graph = nx.DiGraph()
        scored = zip(self.node_ids, self.is_scored.tolist(), strict=True)
        graph.add_nodes_from((node_id, {"scored": is_scored}) for node_id, is_scored in scored)
        edges = self.edges.itertuples(index=False, name=None)
        graph.add_edges_from((p, c, {"relation": r, "weight": w}) for p, c, r, w in edges)
        return graph

    def _edge_weights(self) -> np.ndarray:
        relation = self._links["relation"].to_numpy()
        weight = np.array([self.relation_weights[name] for name in RELATIONS])[relation]
        if self.split_merges:
            is_merge = relation == RELATIONS.index("merge")
            children = self.child_index[is_merge]
            weight[is_merge] /= np.bincount(children)[children] if len(children) else 1
        return weight

    def _symmetric(self, weight: np.ndarray) -> sp.csr_array:
        rows = np.concatenate([self.parent_index, self.child_index])
        columns = np.concatenate([self.child_index, self.parent_index])
        shape = (self.n_nodes, self.n_nodes)
        matrix = sp.coo_array((np.concatenate([weight, weight]), (rows, columns)), shape).tocsr()
        matrix.eliminate_zeros()
        return matrix

    @cached_property
    def _undirected(self) -> sp.csr_array:
        """Symmetric 0/1 matrix of all kept edges, whatever their weight."""
        return self._symmetric(np.ones(self.n_edges))

    @cached_property
    def _graph(self) -> "nx.DiGraph":
        return self.to_networkx()

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {node_id: index for index, node_id in enumerate(self.node_ids)}

    def _checked(self, node_id: str) -> str:
        return self.node_ids[self.index_of(node_id)]

    def _within_reach(self, graph: "nx.DiGraph", node_id: str, hops: int | None) -> list[str]:
        """Nodes that can be reached from one of them, by distance, then id."""
        if hops is not None and hops < 0:
            raise ValueError(f"hops must be at least 0 or None, got {hops}")
        source = self._checked(node_id)
        import networkx as nx

        distance = nx.single_source_shortest_path_length(graph, source, cutoff=hops)
        return sorted(distance.keys() - {source}, key=lambda other: (distance[other], other))

    def _random_edges(self, share: float, seed: int | np.random.Generator | None) -> np.ndarray:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of edges to drop must be in [0, 1], got {share}")
        if seed is None:
            raise ValueError("dropping a share of the edges needs a seed")
        chosen = np.random.default_rng(seed).permutation(self.n_edges)
        drop = np.zeros(self.n_edges, dtype=bool)
        drop[chosen[: round(share * self.n_edges)]] = True
        return drop

    def _with_links(self, links: pd.DataFrame) -> "Lineage":
        return Lineage(
            self.node_ids,
            self.n_models,
            links,
            self.dropped,
            relation_weights=self.relation_weights,
            split_merges=self.split_merges,
        )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _checked_model_ids(model_ids: Iterable[str]) -> np.ndarray:
    if isinstance(model_ids, pd.DataFrame):
        raise ValueError('model_ids is a table; give its column of ids, models["model_id"]')
    index = pd.Index(np.asarray(list(model_ids), dtype=object))
    if not len(index):
        raise ValueError("model_ids is empty; a lineage needs at least one model")
    if faulty := [model_id for model_id in index if not _is_id(model_id)]:
        raise ValueError(f"model_ids must be texts, got {faulty[0]!r}; name every model")
    repeated = index[index.duplicated()]
    if len(repeated):
        raise ValueError(f"model_ids repeats {repeated[0]!r}; keep one row of each model")
    return index.to_numpy()


def _edge_table(edges: pd.DataFrame | Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    """Edges with three object columns, checked for types and relations."""
    if not isinstance(edges, pd.DataFrame):
        triples = [tuple(edge) for edge in edges]
        if wrong := [edge for edge in triples if len(edge) != len(EDGE_COLUMNS)]:
            raise ValueError(f"edge {wrong[0]!r} is not a triple (parent, child, relation)")
        edges = pd.DataFrame(triples, columns=list(EDGE_COLUMNS))
    if missing := [column for column in EDGE_COLUMNS if column not in edges]:
        raise ValueError(f"edges lack column {missing[0]!r}; they need {', '.join(EDGE_COLUMNS)}")
    table = edges[list(EDGE_COLUMNS)].astype(object).reset_index(drop=True)
    for column in ("parent", "child"):
        if faulty := [row for row, value in enumerate(table[column]) if not _is_id(value)]:
            row, value = faulty[0], table[column][faulty[0]]
            raise ValueError(f"edge {row} has the {column} {value!r}; name it or drop the edge")
    unknown = table[~table["relation"].isin(RELATIONS)]
    if len(unknown):
        parent, child, relation = unknown.iloc[0]
        raise ValueError(
            f"unknown relation {relation!r} of {child!r} to {parent!r}; use {', '.join(RELATIONS)}"
        )
    return table


def _checked_weights(relation_weights: Mapping[str, float] | None) -> dict[str, float]:
    weights = dict.fromkeys(RELATIONS, 1.0)
    for relation, weight in (relation_weights or {}).items():
        if relation not in weights:
            what = f"relation_weights names the unknown relation {relation!r}"
            raise ValueError(f"{what}; use {', '.join(RELATIONS)}")
        if not np.isscalar(weight) or not np.isreal(weight) or not 0 <= weight < np.inf:
            what = f"the weight of {relation!r} must be finite and at least 0"
            raise ValueError(f"{what}, got {weight!r}")
        weights[relation] = float(weight)
    return weights


def _index_nodes(model_ids: np.ndarray, table: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Node ids, and the edges as integers: node of parent and child, index of the relation."""
    mentioned = {*table["parent"], *table["child"]}
    node_ids = np.array([*model_ids, *sorted(mentioned.difference(model_ids))], dtype=object)
    nodes, relations = pd.Index(node_ids, dtype=object), pd.Index(RELATIONS, dtype=object)
    links = {end: nodes.get_indexer(table[end]) for end in ("parent", "child")}
    links["relation"] = relations.get_indexer(table["relation"])
    return node_ids, pd.DataFrame(links)


def _id_rank(node_ids: np.ndarray) -> np.ndarray:
    rank = np.empty(len(node_ids), dtype=int)
    rank[np.argsort(node_ids)] = np.arange(len(node_ids))
    return rank


def _in_id_order(links: pd.DataFrame, node_ids: np.ndarray) -> pd.DataFrame:
    rank = _id_rank(node_ids)
    order = np.lexsort([rank[links["parent"].to_numpy()], rank[links["child"].to_numpy()]])
    return links.iloc[order]


def _named(links: pd.DataFrame, node_ids: np.ndarray) -> pd.DataFrame:
    columns = {
        "parent": node_ids[links["parent"].to_numpy()],
        "child": node_ids[links["child"].to_numpy()],
        "relation": np.array(RELATIONS, dtype=object)[links["relation"].to_numpy()],
    }
    return pd.DataFrame(columns)


def _without_duplicates(links: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One edge for each parent and child, of the first relation in RELATIONS."""
    links = links.sort_values("relation", kind="stable")
    is_duplicate = links.duplicated(["parent", "child"])
    return links[~is_duplicate], links[is_duplicate]


def _without_cycles(links: pd.DataFrame, node_ids: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop the back edges of a depth-first search, component by component, in order of ids."""
    parent, child = links["parent"].to_numpy(), links["child"].to_numpy()
    shape = (len(node_ids), len(node_ids))
    graph = sp.coo_array((np.ones(len(links)), (parent, child)), shape).tocsr()
    n_components, component = connected_components(graph, connection="strong")
    if n_components == len(node_ids):
        return links, links.iloc[:0]
    links = _in_id_order(links, node_ids)
    is_within = component[links["parent"]] == component[links["child"]]
    back = _back_edges(links.loc[is_within, ["parent", "child"]], node_ids)
    is_back = pd.MultiIndex.from_frame(links[["parent", "child"]]).isin(back)
    return links[~is_back], links[is_back]


def _back_edges(links: pd.DataFrame, node_ids: np.ndarray) -> list[tuple[int, int]]:
    """Edges that lead to a node still on the path of the search; edges come in order of ids."""
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(sorted(links["parent"].unique(), key=lambda node: node_ids[node]))
    graph.add_edges_from(links.itertuples(index=False, name=None))
    back, on_path = [], set()
    for parent, child, step in nx.dfs_labeled_edges(graph):
        if step == "forward":
            on_path.add(child)
        elif step == "reverse":
            on_path.remove(child)
        elif child in on_path:
            back.append((parent, child))
    return back


def lacks_evaluated_relatives(
    lineage: Lineage, evaluated: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Whether no other model of a row's family has been evaluated.

    Parameters
    ----------
    evaluated : bool (n_models,)
    rows : int (n,)
    """
    family = lineage.families
    is_evaluated = np.zeros(lineage.n_nodes)
    is_evaluated[: lineage.n_models] = evaluated
    n_evaluated = np.bincount(family, weights=is_evaluated)
    return n_evaluated[family[rows]] - is_evaluated[rows] <= 0


def without_edges(lineage: Lineage | None, responses: np.ndarray) -> Lineage:
    """The same models, no edges."""
    n_models = len(responses)
    names = [str(row) for row in range(n_models)] if lineage is None else lineage.node_ids
    return Lineage.from_edges([], names[:n_models])
