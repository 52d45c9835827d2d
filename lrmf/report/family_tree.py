"""A family as a picture: which members to show, and a place for each of them."""

from collections.abc import Iterable
from itertools import zip_longest

import networkx as nx
import numpy as np
import pandas as pd

from ..data.lineage import Lineage
from ..data.schema import RELATIONS

_SWEEPS = 12


def family_picture(
    lineage: Lineage, values: Iterable[float], *, family: int = 0, max_nodes: int = 50
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose some members of a family and lay them out by generation.

    The backbone, two fifths of ``max_nodes``, grows from the member with most children: the
    neighbour with most children joins. The other places go in turn to the relations: children of
    the backbone by that relation, scored ones first, then those with fewest other links. Other
    relatives come in if there are places left.

    Depth, from left to right, is the longest path from a root within the picture; a root stands one
    generation before its first child. Each member hangs below a parent of the generation before
    it, and subtrees are ordered to shorten the remaining links.

    Parameters
    ----------
    lineage : Lineage
    values : n_models numbers
        What the picture colours; NaN = unknown.
    family : int
        Label in ``lineage.families``; 0 is the largest.
    max_nodes : int

    Returns
    -------
    nodes : DataFrame
        ``node_id, label, x, y, value, scored, n_relatives, n_hidden, n_family``: generation,
        vertical place (one unit a leaf), parents and children in the family, and how many of these
        are not shown.
    edges : DataFrame
        ``parent, child, relation`` between the nodes shown.

    Examples
    --------
    >>> edges = [("base", "chat", "finetune"), ("base", "code", "finetune")]
    >>> edges += [("chat", "mix", "merge"), ("code", "mix", "merge")]
    >>> lineage = Lineage.from_edges(edges, ["base", "chat", "code", "mix"])
    >>> nodes, edges = family_picture(lineage, [0.1, 0.2, 0.4, 0.3])
    >>> nodes[["node_id", "x", "y"]]
      node_id  x    y
    0    base  0  0.5
    1    chat  1  0.0
    2    code  1  1.0
    3     mix  2  0.0
    """
    members = np.flatnonzero(lineage.families == family)
    graph = _graph(lineage, members)
    start = min(graph, key=lambda node: (-graph.out_degree(node), node))
    chosen = _grow(graph, {start}, 2 * max_nodes // 5)
    chosen = _with_children(graph, chosen, lineage.n_models, max_nodes)
    shown = graph.subgraph(_grow(graph, chosen, max_nodes))
    generation = _generations(shown)
    height = _heights(shown, generation)
    values = np.append(np.asarray(list(values), dtype=float), np.full(lineage.n_nodes, np.nan))
    rows = [
        {
            "node_id": lineage.node_ids[node],
            "label": lineage.node_ids[node].rpartition("/")[2],
            "x": generation[node],
            "y": height[node],
            "value": values[node] if node < lineage.n_models else np.nan,
            "scored": node < lineage.n_models,
            "n_relatives": graph.degree(node),
            "n_hidden": graph.degree(node) - shown.degree(node),
            "n_family": len(members),
        }
        for node in sorted(shown, key=lambda node: (generation[node], height[node]))
    ]
    edges = lineage.edges[["parent", "child", "relation"]]
    is_drawn = np.isin([lineage.parent_index, lineage.child_index], list(shown)).all(axis=0)
    return pd.DataFrame(rows), edges[is_drawn].reset_index(drop=True)


def family_layout(lineage: Lineage, family: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place all members of a family, as `family_picture` places those that it shows.

    Returns
    -------
    members : int (n,), nodes
    generation : int (n,)
    height : float (n,)
    """
    members = np.flatnonzero(lineage.families == family)
    if members.size == 1:
        return members, np.zeros(1, int), np.zeros(1)
    graph = _graph(lineage, members)
    generation = _generations(graph)
    height = _heights(graph, generation)
    return members, *(
        np.array([part[m] for m in members.tolist()]) for part in (generation, height)
    )


def _graph(lineage, members):
    """The family as a graph over node numbers."""
    graph = nx.DiGraph()
    graph.add_nodes_from(members.tolist())
    is_inside = np.isin(lineage.child_index, members)
    parents, children = lineage.parent_index[is_inside], lineage.child_index[is_inside]
    relations = lineage.edges["relation"].to_numpy()[is_inside]
    for edge in zip(parents.tolist(), children.tolist(), relations, strict=True):
        graph.add_edge(*edge[:2], relation=edge[2])
    return graph


def _grow(graph, chosen, n_nodes):
    """Add neighbours, those with most children first, until there are so many nodes."""
    chosen = set(chosen)
    while len(chosen) < n_nodes:
        border = nx.node_boundary(graph.to_undirected(as_view=True), chosen)
        if not border:
            break
        chosen.add(min(border, key=lambda n: (-graph.out_degree(n), graph.in_degree(n), n)))
    return chosen


def _with_children(graph, backbone, n_models, n_nodes):
    """Add children of the backbone, the relations taking turns."""
    children = {}
    for parent in sorted(backbone):
        for child in graph.successors(parent):
            if child not in backbone:
                children.setdefault(graph.edges[parent, child]["relation"], set()).add(child)
    queues = [
        sorted(children[name], key=lambda node: (node >= n_models, graph.degree(node), node))
        for name in RELATIONS
        if name in children
    ]
    in_turn = [node for turn in zip_longest(*queues) for node in turn if node is not None]
    return set(list(dict.fromkeys([*backbone, *in_turn]))[: max(n_nodes, len(backbone))])


def _generations(graph):
    """Longest path from a root; a root stands one generation before its first child."""
    generation = {}
    for number, nodes in enumerate(nx.topological_generations(graph)):
        generation |= dict.fromkeys(nodes, number)
    for node in graph:
        if graph.out_degree(node) and not graph.in_degree(node):
            generation[node] = min(generation[child] for child in graph.successors(node)) - 1
    return generation


def _heights(graph, generation):
    """Vertical places: leaves one below the other, parents amid their children."""
    tree = nx.DiGraph()
    tree.add_nodes_from(sorted(graph))
    for node in sorted(graph):
        parents = [p for p in graph.predecessors(node) if generation[p] == generation[node] - 1]
        if parents:
            tree.add_edge(max(parents, key=lambda p: (graph.out_degree(p), -p)), node)
    roots = [node for node in tree if not tree.in_degree(node)]
    children = {node: list(tree.successors(node)) for node in tree}
    best = height = _place(roots, children)
    for _ in range(_SWEEPS):
        # Each subtree moves towards what it is linked to; the shortest links so far are kept.
        pull = {node: _pull(graph, node, tree, height) for node in graph}
        for siblings in [roots, *children.values()]:
            siblings.sort(key=lambda node: (pull[node], node))
        height = _place(roots, children)
        best = min(best, height, key=lambda places: _link_length(graph, places))
    return best


def _place(roots, children):
    """Leaves in order of a depth-first walk, parents halfway between first and last child."""
    forest = nx.DiGraph([(node, child) for node in children for child in children[node]])
    height, n_leaves = {}, 0
    for root in roots:
        order = nx.dfs_postorder_nodes(forest, root) if root in forest else [root]
        for node in order:
            if children[node]:
                height[node] = (height[children[node][0]] + height[children[node][-1]]) / 2
            else:
                height[node] = float(n_leaves)
                n_leaves += 1
    return height


def _link_length(graph, height):
    return sum(abs(height[parent] - height[child]) for parent, child in graph.edges)


def _pull(graph, node, tree, height):
    """Mean height of what the subtree of a node is linked to outside itself."""
    subtree = {node} | nx.descendants(tree, node)
    outside = [
        height[other]
        for member in subtree
        for other in nx.all_neighbors(graph, member)
        if other not in subtree
    ]
    return float(np.mean(outside)) if outside else height[node]
