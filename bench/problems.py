"""Matrices of answers drawn from the model over a lineage, kept on disk for all solvers alike."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import cg
from scipy.special import expit

from lrmf import Lineage
from lrmf.data.responses import MISSING
from lrmf.files import output_folder

EDGES_PER_MODEL = 1.26
SHARE_ROOTS = 0.2
SHARE_UNSCORED = 0.05
SPARSE_BELOW = 0.08  # cells are drawn one by one
INTERCEPT_SD, LOADING_SD = 1.2, 0.7
_BLOCK = 256


@dataclass(frozen=True)
class Spec:
    """A problem: sizes, and the penalties of all fits, which are the defaults of `LRMF`.

    Model states are drawn from the prior with `node_ridge` and `lineage_strength`.
    """

    name: str
    n_models: int
    n_items: int
    density: float = 1.0
    rank: int = 8
    node_ridge: float = 1.0
    lineage_strength: float = 3.0
    item_ridge: float = 10.0
    intercept_ridge: float = 0.01
    n_test: int = 200_000
    n_validation: int = 100_000
    seed: int = 0

    @property
    def penalties(self):
        names = ("node_ridge", "lineage_strength", "item_ridge", "intercept_ridge")
        return {name: getattr(self, name) for name in names}

    @property
    def n_observed(self):
        """Answers to learn from; where cells are drawn one by one, about as many."""
        return round(self.density * self.n_models * self.n_items) - self.n_test - self.n_validation


@dataclass(frozen=True)
class Cells:
    """Answers kept out of training."""

    rows: np.ndarray
    columns: np.ndarray
    answers: np.ndarray
    probability: np.ndarray  # they were drawn with

    def __getitem__(self, part):
        return Cells(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Problem:
    spec: Spec
    responses: np.ndarray  # uint8 (n_models, n_items), memory-mapped; 255 = missing
    lineage: Lineage
    test: Cells
    validation: Cells
    compressed: sparse.csr_array | None  # of the observed answers, if they are few


def draw_edges(n_models, rng):
    """Parent and child (n_edges,) of a family tree with merges; some parents are unscored.

    Nodes are numbered in the order of their making, older ones having more children.
    """
    n_nodes = n_models + int(SHARE_UNSCORED * n_models)
    child = np.arange(1, n_nodes)[rng.random(n_nodes - 1) > SHARE_ROOTS]
    n_merges = max(0, int(EDGES_PER_MODEL * n_models) - child.size)
    child = np.concatenate([child, rng.integers(1, n_nodes, n_merges)])
    parent = np.floor(child * rng.random(child.size) ** 2).astype(np.int64)
    return parent, child, n_nodes


def draw_lineage(n_models, rng):
    """A `Lineage` over models "m0", "m1", ..., nodes "u..." of it being unscored ancestors."""
    parent, child, n_nodes = draw_edges(n_models, rng)
    leaf = np.setdiff1d(np.arange(n_nodes), parent)
    unscored = rng.permutation(np.setdiff1d(np.arange(n_nodes), leaf))[: n_nodes - n_models]
    scored = np.setdiff1d(np.arange(n_nodes), unscored)
    names = np.array([f"u{number}" for number in range(n_nodes)], dtype=object)
    names[scored[:n_models]] = model_names(n_models)
    edges = pd.DataFrame({"parent": names[parent], "child": names[child], "relation": "finetune"})
    return Lineage.from_edges(edges.drop_duplicates(), model_names(n_models))


def model_names(n_models):
    return [f"m{number}" for number in range(n_models)]


def draw_states(lineage, spec, rng):
    """(n_nodes, rank + 1) exact draws from N(0, Q^-1), Q = ridge I + strength L.

    With L = B'B and standard normal z, y the draw is Q^-1 (sqrt(ridge) z + sqrt(strength) B'y).
    """
    n_nodes, n_edges = lineage.n_nodes, lineage.parent_index.size
    ends = np.concatenate([lineage.parent_index, lineage.child_index])
    signs = np.repeat([1.0, -1.0], n_edges)
    edges = np.tile(np.arange(n_edges), 2)
    incidence = sparse.csr_array((signs, (edges, ends)), shape=(n_edges, n_nodes))
    precision = spec.node_ridge * sparse.eye_array(n_nodes, format="csr")
    precision = precision + spec.lineage_strength * lineage.laplacian
    states = np.empty((n_nodes, spec.rank + 1), np.float32)
    for k in range(spec.rank + 1):
        noise = np.sqrt(spec.node_ridge) * rng.standard_normal(n_nodes)
        noise += np.sqrt(spec.lineage_strength) * (incidence.T @ rng.standard_normal(n_edges))
        states[:, k] = cg(precision, noise, rtol=1e-6)[0]
    return states


def draw_blocks(spec, lineage, rng):
    """Yield (top, flat cells, answers, probabilities) of the observed cells by blocks of rows."""
    states = draw_states(lineage, spec, rng)
    items = LOADING_SD * rng.standard_normal((spec.n_items, spec.rank), dtype=np.float32)
    intercept = INTERCEPT_SD * rng.standard_normal(spec.n_items, dtype=np.float32)
    for top in range(0, spec.n_models, _BLOCK):
        block = states[top : min(top + _BLOCK, spec.n_models)]
        n_cells = len(block) * spec.n_items
        if spec.density < SPARSE_BELOW:
            cells = np.unique(rng.integers(n_cells, size=rng.poisson(spec.density * n_cells)))
            row, column = np.divmod(cells, spec.n_items)
            logit = np.einsum("ck,ck->c", block[row, :-1], items[column])
            logit += block[row, -1] + intercept[column]
        else:
            logit = (block[:, :-1] @ items.T + block[:, -1:] + intercept).ravel()
            cells = np.arange(n_cells)
            if spec.density < 1:
                cells = np.flatnonzero(rng.random(n_cells, dtype=np.float32) < spec.density)
                logit = logit[cells]
        probability = expit(logit)
        answers = rng.random(cells.size, dtype=np.float32) < probability
        yield top, cells, answers.astype(np.uint8), probability


def draw_problem(spec, responses=None):
    """Draw the answers of a `Spec`; the same spec gives the same problem.

    Parameters
    ----------
    spec : Spec
    responses : uint8 (n_models, n_items), optional
        Filled if given (a memory map, for instance).

    Returns
    -------
    Problem
    """
    rng = np.random.default_rng(spec.seed)
    lineage = draw_lineage(spec.n_models, rng)
    if responses is None:
        responses = np.empty((spec.n_models, spec.n_items), np.uint8)
    n_held = spec.n_test + spec.n_validation
    share = 1.1 * n_held / (spec.density * responses.size)  # a cell may be drawn twice
    if share > 0.5:
        raise ValueError(f"{n_held} held-out cells are more than half of those observed")
    held = []
    for top, cells, answers, probability in draw_blocks(spec, lineage, rng):
        block = responses[top : top + _BLOCK].reshape(-1)
        block[:] = MISSING
        block[cells] = answers
        out = rng.choice(cells.size, int(np.ceil(share * cells.size)), replace=False, shuffle=False)
        row, column = np.divmod(cells[out], spec.n_items)
        held.append((top + row, column, answers[out], probability[out]))
        block[cells[out]] = MISSING
    held = Cells(*(np.concatenate(part) for part in zip(*held, strict=True)))
    order = rng.permutation(held.rows.size)
    test, validation = held[order[: spec.n_test]], held[order[spec.n_test : n_held]]
    return Problem(spec, responses, lineage, test, validation, compress(responses, spec))


def compress(responses, spec):
    """CSR of the observed answers of a sparse problem (data 0/1), None for a dense one."""
    if spec.density >= SPARSE_BELOW:
        return None
    columns, answers, sizes = [], [], []
    for top in range(0, spec.n_models, _BLOCK):
        row, column = np.nonzero(responses[top : top + _BLOCK] != MISSING)
        columns.append(column.astype(np.int32))
        answers.append(responses[top : top + _BLOCK][row, column])
        sizes.append(np.bincount(row, minlength=min(_BLOCK, spec.n_models - top)))
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    parts = (np.concatenate(answers), np.concatenate(columns), pointers)
    return sparse.csr_array(parts, shape=responses.shape)


def save_problem(spec, root):
    """Draw a problem into `root`/name unless it is there already; return the folder."""
    folder = Path(root) / spec.name
    wanted = json.dumps(asdict(spec))
    if (folder / "spec.json").exists() and (folder / "spec.json").read_text() == wanted:
        return folder
    shape = (spec.n_models, spec.n_items)
    with output_folder(folder) as partial:
        responses = np.lib.format.open_memmap(partial / "responses.npy", "w+", np.uint8, shape)
        problem = draw_problem(spec, responses)
        responses.flush()
        for name in ("test", "validation"):
            np.savez(partial / f"{name}.npz", **asdict(getattr(problem, name)))
        problem.lineage.edges.to_parquet(partial / "edges.parquet")
        if problem.compressed is not None:
            for name in ("data", "indices", "indptr"):
                np.save(partial / f"{name}.npy", getattr(problem.compressed, name))
        (partial / "spec.json").write_text(wanted)
    return folder


def load_problem(folder):
    """The `Problem` in a folder, its large arrays memory-mapped."""
    folder = Path(folder)
    spec = Spec(**json.loads((folder / "spec.json").read_text()))
    edges = pd.read_parquet(folder / "edges.parquet", columns=["parent", "child", "relation"])
    cells = [Cells(**np.load(folder / f"{name}.npz")) for name in ("test", "validation")]
    responses = np.load(folder / "responses.npy", mmap_mode="r")
    compressed = None
    if (folder / "indptr.npy").exists():
        parts = [np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("data", "indices", "indptr")]
        compressed = sparse.csr_array(tuple(parts), shape=responses.shape)
    lineage = Lineage.from_edges(edges, model_names(spec.n_models))
    return Problem(spec, responses, lineage, *cells, compressed)
