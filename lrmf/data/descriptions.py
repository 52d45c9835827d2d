"""Descriptions of models: what card, name and family tree say before anyone has asked a question.

A field that a card leaves open is unknown, not a level of its own. It is inherited: an unscored
ancestor takes what most of its evaluated children have, a model takes what its parents have, and so
it does with the name if it has none. What remains open is a distribution over what the evaluated
models have.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from graphlib import CycleError, TopologicalSorter

import numpy as np
import pandas as pd
from scipy import sparse

from .features import UNKNOWN, levels, log_sizes, read_dates
from .lineage import Lineage
from .terms import Terms, grams, words

FIELDS = ("architecture", "type", "chat_template")  # categories of a card
CARD_COLUMNS = ("params_b", "created_at", "evaluated_at", *FIELDS)  # that are read
NODE_VARIANCES = {"finetune": 0.3, "merge": 0.05, "quantized": 0.1, "adapter": 0.3}
SPLITS = {"grams": grams, "tokens": words}  # of names
_INHERITED = ("size", "architecture")
SMALLEST, LARGEST = 1 / 4, 4.0  # credible sizes, in those of the parents
_RANGE = 10.0  # the same without parents, beyond the evaluated models
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")
_EPOCH, _YEAR = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta(days=365.25)


@dataclass(frozen=True)
class Descriptions:
    """Descriptions of n models, as covariances read them.

    Attributes
    ----------
    levels : dict of field to float32 (n, n_levels)
        Probabilities of the levels that evaluated models have; 0 for a level that none has.
    size, date : float32 (n,)
        Logarithm of the billions of parameters, years from 2024; NaN where unknown.
    organization : int (n,)
        Who publishes it; -1 and below are shared with nobody.
    grams, tokens : csr float32 (n, n_terms)
        TF-IDF of the name's character n-grams and words, rows of length 1 (or 0).
    ancestry : csr (n, n_nodes)
        Share of each node's own change in the model: A C A' is the covariance of the tree, with C
        the variances of the changes.
    variance : (n,)
        Diagonal of that covariance.
    parents : csr (n, n_evaluated)
        Weights of the evaluated parents, equal and of sum 1.
    open : dict of field to bool (n,)
        Where neither card nor relatives tell.
    """

    levels: dict
    size: np.ndarray
    date: np.ndarray
    organization: np.ndarray
    grams: sparse.csr_array
    tokens: sparse.csr_array
    ancestry: sparse.csr_array
    variance: np.ndarray
    parents: sparse.csr_array
    open: dict

    def __len__(self):
        return len(self.size)

    def __getitem__(self, rows):
        taken = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in taken.items():
            is_table = isinstance(value, dict)
            taken[name] = {k: v[rows] for k, v in value.items()} if is_table else value[rows]
        return Descriptions(**taken)

    def table(self, name):
        """A field as columns (n, n_columns): a number, or the probabilities of levels."""
        return self.levels[name] if name in self.levels else getattr(self, name)[:, None]

    def replace(self, tables):
        """The same with values where some fields were open, by their `table`."""
        levels = self.levels | {name: tables[name] for name in self.levels if name in tables}
        numbers = {name: tables[name][:, 0] for name in ("size", "date") if name in tables}
        is_open = {name: mask & (name not in tables) for name, mask in self.open.items()}
        return replace(self, levels=levels, open=is_open, **numbers)


class Describer:
    r"""Describe models as an evaluated population sees them.

    Levels, terms and organizations are those of the evaluated models. In the family tree a model is
    the mean of its parents plus a change of its own,

        t_u = mean_{p in parents(u)} t_p + e_u,

    with Var e_u the mean of `NODE_VARIANCES` over its relations, and 1 for a model without parents:
    the additive relationship of animal breeding.

    Parameters
    ----------
    models : DataFrame or None, the models table; without it cards and dates are unknown
    lineage : Lineage
    evaluated : bool (n_models,)
    terms : dict of "grams" and "tokens" to `Terms`, optional
        Of an earlier fit to the same models.

    Attributes
    ----------
    ids : list of str, the evaluated models, then all other nodes of the lineage
    above : list of str, the evaluated models and all their ancestors
    nodes : Descriptions of `ids`
    change : (n_nodes,), C, variances of the nodes' own changes

    Source: Henderson (1976), "A simple method for computing the inverse of a numerator relationship
    matrix used in prediction of breeding values".
    """

    def __init__(
        self, models, lineage: Lineage, evaluated: np.ndarray, *, use_names=True, terms=None
    ):
        self.use_names = use_names
        table = _table(models, lineage.node_ids[: lineage.n_models])
        is_evaluated = np.zeros(lineage.n_nodes, bool)
        is_evaluated[: lineage.n_models] = evaluated
        self.n_evaluated = int(is_evaluated.sum())
        order = np.argsort(~is_evaluated, kind="stable")
        self.ids = list(lineage.node_ids[order])
        # Whatever has evaluated descendants, and they themselves.
        is_above = is_evaluated.copy()
        for edge in np.argsort(-lineage.depth[lineage.child_index], kind="stable"):
            is_above[lineage.parent_index[edge]] |= is_above[lineage.child_index[edge]]
        is_above = is_above[order]
        self.above = [name for name, above in zip(self.ids, is_above, strict=True) if above]
        self.position = {name: row for row, name in enumerate(self.ids)}
        self.table = table = _with_levels(table.reindex(self.ids))
        self._learn(table.iloc[: self.n_evaluated], terms)
        parents, order = _pedigree(self.ids, self.position, lineage.edges)
        values, known = self._read(table)
        self._children = {}
        for node, (found, _) in parents.items():
            for parent in found:
                if parent >= self.n_evaluated and is_above[node]:
                    self._children.setdefault(parent, ([], []))[0].append(node)
        self._parents = parents
        self.values, self.known, _ = self._inherit(
            self.ids, values, known, parents, order, self._children
        )
        self._ancestry, self.change = _ancestry(parents, order, sparse.csr_array((0, 0)))
        rows = np.arange(len(self.ids))
        self.nodes = self._describe(
            rows, self.ids, self.values, self.known, self._ancestry, self.change, parents
        )

    def describe(self, models, edges) -> tuple[Descriptions, list[str]]:
        """Descriptions of models that need not be known, and notes on what is not believed.

        Parameters
        ----------
        models : DataFrame with model_id and any columns of a models table
        edges : DataFrame or triples (parent, child, relation)
            Of these models and of others above them.
        """
        ids = models["model_id"].tolist()
        edges = pd.DataFrame(edges, columns=["parent", "child", "relation"])
        # These models and their ancestors, as far as the population does not know them.
        by_child = {child: part["parent"].tolist() for child, part in edges.groupby("child")}
        new = dict.fromkeys(name for name in ids if not self._is_known(name))
        queue = list(new)
        while queue:
            for parent in by_child.get(queue.pop(), ()):
                if parent not in self.position and parent not in new:
                    new[parent] = None
                    queue.append(parent)
        n, new = len(self.ids), list(new)
        position = {**self.position, **{name: n + row for row, name in enumerate(new)}}
        rows = np.array([position[name] for name in ids], int)
        parents, order = _pedigree(new, position, edges[np.isin(edges["child"], new)])
        parents = {n + row: found for row, found in parents.items()}
        # What the cards say comes before what is known of an ancestor.
        table = _with_levels(_table(models, ids))
        values = np.vstack([self.values, np.zeros((len(new), self.values.shape[1]))])
        known = np.vstack([self.known, np.zeros((len(new), self.known.shape[1]), bool)])
        said, is_said = self._read(table)
        for column, part in enumerate(self.parts.values()):
            own = is_said[:, column]
            values[rows[own], part], known[rows[own], column] = said[own, part], True
        names = [*self.ids, *new]
        # Ancestors of the population are seen once more, with the cards that they have now.
        seen = np.concatenate([rows[rows < n], n + order])
        values, known, notes = self._inherit(
            names, values, known, self._parents | parents, seen, self._children
        )
        ancestry, change = _ancestry(parents, n + order, self._ancestry)
        change = np.concatenate([self.change, change])
        found = self._describe(
            rows, ids, values[rows], known[rows], ancestry[rows], change, self._parents | parents
        )
        found = self._with_names(found, rows, ids, parents)
        notes = [note for name, note in notes if name in set(ids)]
        return found, [*notes, *self._unseen(table)]

    def _unseen(self, table):
        """Yield a sentence on each level of a card that no evaluated model has."""
        for field, found in self.levels.items():
            for level in sorted({*table.get(field, ())} - {*found, UNKNOWN}):
                yield (
                    f"no evaluated model has the {field.replace('_', ' ')} {level}, which counts "
                    "as unlike all others"
                )

    def _with_names(self, found, rows, ids, parents):
        """A model without a name is called like its parents, on average."""
        nameless = [n for n, name in enumerate(ids) if not str(name).rpartition("/")[2]]
        cells = [
            (n, parent) for n in nameless for parent in parents.get(rows[n], ((), ()))[0]
            if parent < len(self.ids)
        ]  # fmt: skip
        if not cells:
            return found
        places = tuple(np.array(cells).T)
        weights = sparse.csr_array((np.ones(len(cells)), places), (len(ids), len(self.ids)))
        names = {}
        for field in ("grams", "tokens"):
            mean = weights @ getattr(self.nodes, field)
            length = np.maximum(sparse.linalg.norm(mean, axis=1), 1e-9)
            mean = sparse.diags_array(1 / length) @ mean
            names[field] = sparse.csr_array(getattr(found, field) + mean, dtype=np.float32)
        return replace(found, **names)

    def _is_known(self, name):
        """Whether a model is in the family tree, but not evaluated."""
        return self.position.get(name, -1) >= self.n_evaluated

    def _learn(self, table, terms):
        """Levels, terms, organizations, and the spread of sizes and dates."""
        self.levels = {}
        for field in FIELDS:
            found = sorted({*table.get(field, ())} - {UNKNOWN})
            if len(found) > 1:
                self.levels[field] = found
        widths = [1, 1, *(len(found) for found in self.levels.values())]
        ends = np.cumsum(widths)
        names = ["size", "date", *self.levels]
        self.parts = {
            name: slice(end - width, end)
            for name, width, end in zip(names, widths, ends, strict=True)
        }
        self.range = np.full(2, np.nan)
        values, known = self._read(table)
        if known[:, 0].any():
            sizes = values[known[:, 0], 0]
            self.range = np.array([sizes.min(), sizes.max()])
        self.frequency = [
            values[known[:, column], part].sum(axis=0) / max(known[:, column].sum(), 1)
            for column, part in enumerate(self.parts.values())
        ]
        organizations, names = names_of(table.index)
        self.organizations = {name: row for row, name in enumerate(dict.fromkeys(organizations))}
        self.terms = terms or {name: Terms.fit(split, names) for name, split in SPLITS.items()}

    def _read(self, table):
        """Size, date and levels side by side (n, n_columns), 0 where unknown; which are known."""
        values = np.full((len(table), max(part.stop for part in self.parts.values())), np.nan)
        if "params_b" in table:
            values[:, 0] = log_sizes(table)
        if "created_at" in table:
            values[:, 1] = (read_dates(table["created_at"]) - _EPOCH) / _YEAR
        for field, found in self.levels.items():
            if field in table:
                # A level that no evaluated model has is known, but is none of the columns.
                level, part = table[field].to_numpy(object), self.parts[field]
                is_known = level != UNKNOWN
                values[is_known, part] = level[is_known, None] == np.array(found, object)
        known = ~np.isnan(values[:, [part.start for part in self.parts.values()]])
        return np.nan_to_num(values), known

    def _inherit(self, names, values, known, parents, order, children):
        """Unknown fields, and sizes that are not credible, are those of relatives, on average.

        Of the parents; of an ancestor that nobody has evaluated, of its children first.
        """
        notes = []
        for relatives, nodes, kin in (
            (children, order[::-1], "parent of these children"),
            (parents, order, "child of these parents"),
        ):
            for node in nodes:
                found = relatives.get(node, ((), ()))[0]
                found, name = np.array(found, int), names[node]
                if known[node, 0] and (doubt := self._doubt(name, values, known, node, found, kin)):
                    known[node, 0] = False
                    notes.append((name, f"{name}: {doubt}, and was taken as unknown"))
                if found.size:
                    self._average(values, known, node, found)
        for node in order:
            named = self._size_in_name(names[node])
            if not known[node, 0] and named:
                values[node, 0], known[node, 0] = np.log(named), True
        return values, known, notes

    def _size_in_name(self, name):
        """The function of this name; None if names are not to be used."""
        return _size_in_name(name) if self.use_names else None

    def _doubt(self, name, values, known, node, relatives, kin):
        """Why a size is not credible: it is far from the relatives' sizes, or from the name's."""
        sizes, why = values[relatives[known[relatives, 0]], 0], f"is not that of a {kin}"
        named = self._size_in_name(name)
        if not sizes.size and named:
            sizes, why = np.log([named]), f"contradicts the {named:g} B of the name"
        if sizes.size:
            low, high = sizes.min() + np.log(SMALLEST), np.logaddexp.reduce(sizes) + np.log(LARGEST)
        else:
            # Where no evaluated model tells its size there is nothing to doubt one by.
            why, margin = "is far from every size of the fit", np.log([1 / _RANGE, _RANGE])
            low, high = np.nan_to_num(self.range, nan=values[node, 0]) + margin
        if low <= values[node, 0] <= high:
            return None
        size, low, high = (f"{np.exp(x):.3g} B" for x in (values[node, 0], low, high))
        return f"a size of {size} {why} (credible: {low} to {high})"

    def _average(self, values, known, node, others):
        for column, (field, part) in enumerate(self.parts.items()):
            if field in _INHERITED and not known[node, column]:
                able = others[known[others, column]]
                if able.size:
                    values[node, part] = values[able, part].mean(axis=0)
                    known[node, column] = True

    def _describe(self, rows, ids, values, known, ancestry, change, parents):
        numbers = np.where(known[:, :2], values[:, :2], np.nan).astype(np.float32)
        tables, is_open = {}, {}
        for column, field in enumerate(self.parts):
            is_open[field] = ~known[:, column]
            if field in self.levels:
                part = values[:, self.parts[field]]
                table = np.where(known[:, [column]], part, self.frequency[column])
                tables[field] = table.astype(np.float32)
        organizations, names = names_of(ids, self.use_names)
        code = [self.organizations.get(o, -1) if o else -1 for o in organizations]
        variance = np.asarray((ancestry * change).multiply(ancestry).sum(axis=1)).ravel()
        return Descriptions(
            tables, *numbers.T, np.array(code, int), *(self.terms[name](names) for name in SPLITS),
            ancestry[:, : len(self.ids)], variance, self._evaluated_parents(rows, parents), is_open,
        )  # fmt: skip

    def _evaluated_parents(self, rows, parents):
        cells = [
            (row, parent)
            for row, node in enumerate(rows)
            for parent in parents.get(node, ((), ()))[0]
            if parent < self.n_evaluated
        ]
        places = np.array(cells, int).reshape(-1, 2).T
        share = 1 / np.bincount(places[0], minlength=len(rows))[places[0]]
        return sparse.csr_array((share, tuple(places)), shape=(len(rows), self.n_evaluated))


def _table(models, ids):
    if models is None:
        return pd.DataFrame(index=pd.Index(ids))
    return models.set_index(pd.Index(models["model_id"]))


def _with_levels(table):
    """The table with its categories as `levels`."""
    return table.assign(**{name: levels(table[name]).array for name in FIELDS if name in table})


def _pedigree(ids, position, edges):
    """Parents (rows) and node variances of every node that has any; the nodes from the roots on."""
    parents, own = {}, {name: row for row, name in enumerate(ids)}
    for child, parent, relation in zip(
        edges["child"], edges["parent"], edges["relation"], strict=True
    ):
        found, variances = parents.setdefault(own[child], ([], []))
        found.append(position[parent])
        variances.append(NODE_VARIANCES[relation or "finetune"])
    # From the roots on, over the nodes among themselves.
    rows = {position[name]: row for name, row in own.items()}
    above = {
        row: [rows[p] for p in parents.get(row, ((),))[0] if p in rows] for row in range(len(ids))
    }
    try:
        return parents, np.array(list(TopologicalSorter(above).static_order()), int)
    except CycleError as error:
        names = " <- ".join(str(ids[row]) for row in error.args[1])
        raise ValueError(f"a model cannot be its own ancestor: {names}") from error


def _ancestry(parents, order, above):
    """Shares of all own changes in every node, the known nodes first; variances of the new ones."""
    n_known, n = above.shape[0], above.shape[0] + len(order)
    change, cells = np.ones(len(order)), []
    for node in order:
        found, variances = parents.get(node, ((), ()))
        cells += [(node, parent, 1 / len(found)) for parent in found]
        if found:
            change[node - n_known] = np.mean(variances)
    # A model is the mean of its parents: S holds the share of each.
    *places, shares = np.array(cells).reshape(-1, 3).T
    step = sparse.csr_array((shares, tuple(np.array(places, int))), shape=(n, n))
    known = sparse.block_diag([above, sparse.eye_array(len(order))], format="csr")
    # Generation by generation: A = (I + S + S^2 + ...) of what is known.
    generations = [known.tocoo()]
    while generations[-1].nnz:
        generations.append((step @ generations[-1].tocsr()).tocoo())
    # Add them up at once: a sum of two for each generation is slow for a long chain of ancestors.
    shares = np.concatenate([part.data for part in generations])
    places = [np.concatenate([part.coords[axis] for part in generations]) for axis in (0, 1)]
    return sparse.csr_array((shares, tuple(places)), shape=known.shape), change


def _size_in_name(name):
    """Billions of parameters that a name like "llama-3-8b" or "bge-110m" tells; None if none."""
    found = _SIZE.findall(name.rpartition("/")[2].lower())
    return float(found[-1][0]) * {"b": 1, "m": 1e-3}[found[-1][1]] if len(found) == 1 else None


def names_of(ids: Iterable[str], use_names=True) -> tuple[list[str], list[str]]:
    """Organizations and names of the ids, in lower case; empty if they are not to be used."""
    parts = [str(name if use_names else "").lower().rpartition("/") for name in ids]
    return [organization for organization, _, _ in parts], [name for _, _, name in parts]
