"""Lineages and responses drawn from the model itself, and its objective written down densely."""

import numpy as np

from lrmf import Lineage
from lrmf.data.responses import MISSING


def sigmoid(logit):
    return 0.5 * (1 + np.tanh(0.5 * logit))


def random_lineage(n_models, *, seed, n_unscored=0, n_loops=0, share_roots=0.2):
    """A forest over the models, some of its roots below unscored nodes; `n_loops` merges close."""
    rng = np.random.default_rng(seed)
    ids = [f"lab/m{number:03}" for number in range(n_models)]
    edges = []
    for child in range(1, n_models):
        if rng.random() > share_roots:
            edges.append((ids[rng.integers(child)], ids[child], "finetune"))
        elif n_unscored:
            edges.append((f"base/b{rng.integers(n_unscored)}", ids[child], "finetune"))
    for _ in range(n_loops):
        parent, child = np.sort(rng.choice(n_models, 2, replace=False))
        edges.append((ids[parent], ids[child], "merge"))
    return Lineage.from_edges(edges, ids)


def draw_states(lineage, *, ridge, strength, p, seed):
    """(n_nodes, p) states from N(0, (ridge I + strength L)^-1)."""
    rng = np.random.default_rng(seed)
    precision = ridge * np.eye(lineage.n_nodes) + strength * lineage.laplacian.toarray()
    root = np.linalg.cholesky(precision)
    return np.linalg.solve(root.T, rng.standard_normal((lineage.n_nodes, p)))


def draw_answers(
    lineage, n_items, *, seed, rank=3, ridge=1.0, strength=3.0, item_scale=0.8, density=1.0
):
    """0/1/255 answers of the models, and the probabilities they were drawn from."""
    rng = np.random.default_rng(seed)
    states = draw_states(lineage, ridge=ridge, strength=strength, p=rank + 1, seed=seed)
    states = states[: lineage.n_models]
    items = item_scale * rng.standard_normal((n_items, rank))
    logit = states[:, :-1] @ items.T + states[:, -1:] + rng.standard_normal(n_items)
    probability = sigmoid(logit)
    answers = (rng.random(logit.shape) < probability).astype(np.uint8)
    answers[rng.random(logit.shape) >= density] = MISSING
    return answers, probability


def draw_proportions(
    lineage, n_items, *, seed, ridge, strength, node_variance, n_trials, missing=0.0
):
    """float32 proportions whose arcsine scale follows the lineage, items being correlated."""
    rng = np.random.default_rng(seed)
    states = draw_states(lineage, ridge=ridge, strength=strength, p=n_items, seed=seed)
    states = states[: lineage.n_models]
    states = states + np.sqrt(node_variance) * rng.standard_normal(states.shape)
    mixing = np.eye(n_items) + 0.5 * rng.standard_normal((n_items, n_items))
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    y = np.pi / 2 + 0.6 * states @ mixing.T
    expected = np.sin(np.clip(y, 0, np.pi) / 2) ** 2
    proportions = (rng.binomial(n_trials, expected) / n_trials).astype(np.float32)
    proportions[rng.random(proportions.shape) < missing] = np.nan
    return proportions


def log_loss(logits, answers):
    """Sum over the observed cells, in float64."""
    known = answers != MISSING
    sign = np.where(answers == 1, 1.0, -1.0)
    return np.logaddexp(0, -sign * logits)[known].sum()


def log_odds(answers):
    """Smoothed log-odds of a correct answer, by item."""
    correct, wrong = (answers == 1).sum(axis=0), (answers == 0).sum(axis=0)
    return np.log((correct + 0.5) / (wrong + 0.5))


def objective(states, items, answers, laplacian, *, strength, ridge, item_ridge, intercept_ridge):
    """The objective of `LRMF` for states (n_nodes, rank + 1) and items (n_items, rank + 1)."""
    scored = states[: len(answers)]
    logits = scored[:, :-1] @ items[:, :-1].T + scored[:, -1:] + items[:, -1]
    penalty = ridge * np.sum(states**2) + np.sum(strength * states * (laplacian @ states))
    penalty += item_ridge * np.sum(items[:, :-1] ** 2) + intercept_ridge * np.sum(items[:, -1] ** 2)
    return log_loss(logits, answers) + 0.5 * penalty


def objective_gradient(states, items, answers, laplacian, *, strength, ridge, item_ridge,
                       intercept_ridge):  # fmt: skip
    """Derivatives of `objective` by states and items."""
    scored = states[: len(answers)]
    logits = scored[:, :-1] @ items[:, :-1].T + scored[:, -1:] + items[:, -1]
    residual = np.where(answers == MISSING, 0, sigmoid(logits) - (answers == 1))
    by_states = ridge * states + strength * (laplacian @ states)
    by_states[: len(answers)] += np.column_stack([residual @ items[:, :-1], residual.sum(axis=1)])
    by_items = np.column_stack([residual.T @ scored[:, :-1], residual.sum(axis=0)])
    return by_states, by_items + items * np.append(
        np.full(items.shape[1] - 1, item_ridge), intercept_ridge
    )
