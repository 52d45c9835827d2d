"""One function per solver: prepare its data (off the clock), fit, and let a `Watch` judge it."""

import warnings
from contextlib import suppress
from time import perf_counter, process_time

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from lrmf import LRMF

from .objective import Objective, count, start
from .problems import SPARSE_BELOW, Spec, draw_problem

CORES = 2


def ours(problem, watch):
    """LRMF.fit, layout of the matrix included; then again with 1, 2, ... sweeps as checkpoints."""
    spec = problem.spec
    parameters = spec.penalties | {"rank": spec.rank, "n_threads": CORES}
    warm_up(spec.density, parameters)
    began = process_time(), perf_counter()
    model = LRMF(**parameters).fit(problem.responses, problem.lineage)
    cpu, wall = process_time() - began[0], perf_counter() - began[1]
    yield {"fit_cpu": cpu, "fit_wall": wall}
    for sweeps in range(1, len(model.stats_["objective"])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            watch.restart()
            fitted = LRMF(**parameters | {"max_sweeps": sweeps, "tolerance": 0.0})
            fitted.fit(problem.responses, problem.lineage)
        items = np.column_stack([fitted.item_factors_, fitted.item_intercept_])
        watch.checkpoint(fitted.states_, items.astype(np.float64))


def warm_up(density, parameters):
    """Load (or compile) all kernels on a problem of the same kind, but small."""
    density = 1.0 if density >= SPARSE_BELOW else 0.05
    small = draw_problem(Spec("warm-up", 100, 400, density, n_test=10, n_validation=10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        LRMF(**parameters | {"max_sweeps": 3}).fit(small.responses, small.lineage)


def lbfgs(problem, watch):
    """L-BFGS-B of SciPy over all parameters; compiled gradient in float32, state in float64."""
    objective, (states, items) = Objective(problem), start(problem)
    n_states = states.size

    def split(z):
        return z[:n_states].reshape(states.shape), z[n_states:].reshape(items.shape)

    def value(z):
        loss, by_states, by_items = objective(*split(z))
        return loss, np.concatenate([by_states.ravel(), by_items.ravel()])

    def judge(z):
        if watch.due() and not watch.checkpoint(*split(z)):
            raise StopIteration

    z = np.concatenate([states.ravel(), items.ravel()])
    objective(states, items)
    yield {}
    with watch:
        options = {"maxiter": 10**5, "maxfun": 10**5, "ftol": 0.0, "gtol": 0.0, "maxcor": 10}
        done = minimize(value, z, jac=True, method="L-BFGS-B", callback=judge, options=options)
        watch.checkpoint(*split(done.x))


def adam_full(problem, watch):
    """torch Adam on the whole objective: learning rate 0.1."""
    import torch

    model = _TorchModel(problem)
    optimiser = torch.optim.Adam(model.parameters, lr=0.1)
    blocks = list(model.blocks())
    yield {}
    with watch:
        while not watch.due() or watch.checkpoint(*model.numpy()):
            optimiser.zero_grad()
            for block in blocks:
                model.loss(*block).backward()
            model.penalty().backward()
            optimiser.step()


def adam_mini(problem, watch):
    """torch Adam on random parts: 512 models x 4,096 items, or 65,536 observed cells a step.

    Learning rate 0.05, falling as 1 / sqrt(1 + step / 300).
    """
    import torch

    model = _TorchModel(problem)
    optimiser = torch.optim.Adam(model.parameters, lr=0.05)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + step / 300) ** -0.5)
    rng = np.random.default_rng(problem.spec.seed)
    yield {}
    with watch:
        while not watch.due() or watch.checkpoint(*model.numpy()):
            optimiser.zero_grad()
            block, share = model.draw(rng)
            (model.loss(*block) / share + model.penalty()).backward()
            optimiser.step()
            rate.step()


class _TorchModel:
    """The objective in torch: logits [m, b, 1] [x, 1, c]' over blocks of cells."""

    rows_per_block, columns_per_draw, rows_per_draw = 256, 4096, 512
    cells_per_block, cells_per_draw = 2**20, 2**16

    def __init__(self, problem):
        import torch

        torch.set_num_threads(CORES)
        self.torch, self.spec = torch, problem.spec
        states, items = (torch.tensor(part, dtype=torch.float32) for part in start(problem))
        self.states, self.items = states.requires_grad_(), items.requires_grad_()
        self.parameters = [self.states, self.items]
        lineage = problem.lineage
        self.parent, self.child = map(torch.tensor, (lineage.parent_index, lineage.child_index))
        self.is_dense = problem.compressed is None
        if self.is_dense:
            self.answers = torch.tensor(np.asarray(problem.responses))
            self.n_cells = self.answers.numel()
        else:
            coo = problem.compressed.tocoo()
            self.rows, self.columns = (torch.tensor(part.astype(np.int64)) for part in coo.coords)
            self.data = torch.tensor(coo.data.astype(np.float32))
            self.n_cells = coo.nnz

    def blocks(self):
        """Arguments of `loss` that together are all cells."""
        if self.is_dense:
            for top in range(0, len(self.answers), self.rows_per_block):
                yield slice(top, top + self.rows_per_block), slice(None)
        else:
            for first in range(0, self.n_cells, self.cells_per_block):
                yield (slice(first, first + self.cells_per_block),)

    def draw(self, rng):
        """Arguments of `loss` for a random part of the cells, and its share of all."""
        if not self.is_dense:
            if not hasattr(self, "_order") or self._next + self.cells_per_draw > self.n_cells:
                self._order, self._next = self.torch.tensor(rng.permutation(self.n_cells)), 0
            part = self._order[self._next : self._next + self.cells_per_draw]
            self._next += self.cells_per_draw
            return (part,), part.numel() / self.n_cells
        n_rows, n_columns = self.answers.shape
        rows = rng.permutation(n_rows)[: self.rows_per_draw]
        columns = rng.permutation(n_columns)[: self.columns_per_draw]
        share = rows.size * columns.size / self.n_cells
        return (self.torch.tensor(rows), self.torch.tensor(columns)), share

    def loss(self, rows, columns=None):
        """Summed log-loss of a block of the matrix, or of a list of cells."""
        torch = self.torch
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        if self.is_dense:
            answers = self.answers[rows]
            answers = answers if isinstance(columns, slice) else answers[:, columns]
            states, items = self.states[: self.spec.n_models][rows], self.items[columns]
            logit = torch.addmm(items[:, -1], states[:, :-1], items[:, :-1].T) + states[:, -1:]
            return loss(logit, answers.float(), weight=(answers < 2).float(), reduction="sum")
        answers, columns, rows = self.data[rows], self.columns[rows], self.rows[rows]
        states, items = self.states.index_select(0, rows), self.items.index_select(0, columns)
        logit = (states[:, :-1] * items[:, :-1]).sum(1) + states[:, -1] + items[:, -1]
        return loss(logit, answers, reduction="sum")

    def penalty(self):
        spec = self.spec
        step = self.states[self.parent] - self.states[self.child]
        penalty = spec.node_ridge * self.states.square().sum()
        penalty = penalty + spec.lineage_strength * step.square().sum()
        penalty = penalty + spec.item_ridge * self.items[:, :-1].square().sum()
        return 0.5 * (penalty + spec.intercept_ridge * self.items[:, -1].square().sum())

    def numpy(self):
        return tuple(part.detach().numpy().astype(np.float64) for part in self.parameters)


def cmfrec(problem, watch):
    """Collective matrix factorization, ALS on squared loss with biases, 10 iterations.

    The ridge is the item ridge over the curvature of the log-loss, about 1/4 of the squared one's.
    """
    from cmfrec import CMF

    spec = problem.spec
    if problem.compressed is None:
        data = np.asarray(problem.responses).astype(np.float32)
        data[data > 1] = np.nan
    else:
        data = problem.compressed.tocoo().astype(np.float32)
    model = CMF(
        k=spec.rank,
        lambda_=4 * spec.item_ridge,
        niter=10,
        use_float=True,
        nthreads=CORES,
        precompute_for_predictions=False,
        verbose=False,
    )
    yield {}
    with watch:
        model.fit(data)
        watch.checkpoint_scores(_bilinear(model.A_, model.B_, model.user_bias_, model.item_bias_))


def implicit(problem, watch):
    """Alternating least squares for one class; wrong answers count as confident zeros.

    Confidence 1 + alpha of an observed answer with alpha = 10; 15 iterations.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    data = _signed(problem)
    model = AlternatingLeastSquares(
        factors=problem.spec.rank,
        regularization=problem.spec.item_ridge,
        alpha=10.0,
        iterations=15,
        num_threads=CORES,
        random_state=0,
    )

    def judge(iteration, *_):
        if not watch.checkpoint_scores(_bilinear(model.user_factors, model.item_factors)):
            raise StopIteration

    yield {}
    with watch, suppress(StopIteration):
        model.fit(data, show_progress=False, callback=judge)


def truncated_svd(problem, watch):
    """scikit-learn's randomized SVD of the answers less the item means, 0 where missing."""
    from sklearn.decomposition import TruncatedSVD

    data = _centred(problem)
    model = TruncatedSVD(n_components=problem.spec.rank, random_state=0)
    yield {}
    with watch:
        left = model.fit_transform(data)
        watch.checkpoint_scores(_bilinear(left, model.components_.T))


def nmf(problem, watch):
    """scikit-learn's NMF of the correct answers, coordinate descent; item means where missing."""
    from sklearn.decomposition import NMF

    if problem.compressed is None:
        data = _filled(problem)
    else:
        data = sparse.csr_matrix(problem.compressed.astype(np.float32))
        data.eliminate_zeros()
    model = NMF(n_components=problem.spec.rank, init="nndsvda", max_iter=50, random_state=0)
    yield {}
    with watch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        left = model.fit_transform(data)
        watch.checkpoint_scores(_bilinear(left, model.components_.T))


def _bilinear(left, right, left_bias=None, right_bias=None):
    def score(rows, columns):
        value = np.einsum("ck,ck->c", left[rows], right[columns])
        if left_bias is not None:
            value = value + left_bias[rows] + right_bias[columns]
        return value

    return score


def _item_means(problem):
    correct, observed = count(problem, axis=0)
    return ((correct + 0.5) / (observed + 1)).astype(np.float32)


def _filled(problem):
    means = _item_means(problem)
    data = np.asarray(problem.responses).astype(np.float32)
    for row in data:
        missing = row > 1
        row[missing] = means[missing]
    return data


def _centred(problem):
    means = _item_means(problem)
    if problem.compressed is None:
        return _filled(problem) - means
    data = sparse.csr_matrix(problem.compressed.astype(np.float32))
    data.data -= means[data.indices]
    return data


def _signed(problem):
    """CSR with +1 for correct and -1 for wrong answers."""
    if problem.compressed is not None:
        data = sparse.csr_matrix(problem.compressed.astype(np.float32))
    else:
        data = sparse.vstack([_observed(block) for block in _row_blocks(problem)], format="csr")
    data.data = 2 * data.data - 1
    return data


def _row_blocks(problem):
    for top in range(0, problem.spec.n_models, 256):
        yield problem.responses[top : top + 256]


def _observed(block):
    row, column = np.nonzero(block < 2)
    values = block[row, column].astype(np.float32)
    return sparse.csr_matrix((values, (row, column.astype(np.int32))), shape=block.shape)


SOLVERS = {
    "LRMF": ours,
    "L-BFGS": lbfgs,
    "Adam, full batch": adam_full,
    "Adam, mini-batch": adam_mini,
    "cmfrec": cmfrec,
    "implicit": implicit,
    "TruncatedSVD": truncated_svd,
    "NMF": nmf,
}
