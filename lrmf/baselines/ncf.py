"""Neural collaborative filtering."""

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..data.features import model_features
from ..data.response_kinds import ANSWERS, kind_of
from ..data.responses import has_responses, observed, reveal
from ..data.statistics import benchmark_codes, column_std, item_means
from .base import BLOCK_CELLS, cells_asked
from .factorization import MFWithFeatures

COLD_SHARE = 0.3  # training episodes without any answer
MAX_EPISODES = 10  # per model
BATCH_CELLS = 1024


class NCF(BaseEstimator):
    r"""Neural collaborative filtering with model factors (He et al., 2017; Zhang et al., 2024).

    A perceptron of two hidden layers forecasts a cell from the model (features, family, factors and
    how many answers these rest on), the item (factors, intercept, benchmark) and the forecast that
    the factors give, which plays the part of the bilinear branch of NeuMF. Factors come from
    `MFWithFeatures`.

    It is trained as it is used: for each training episode a model's factors are folded in from a
    random subset of its answers, often empty, and the loss is on its other answers. Without this
    the network overfits factors fitted to the very cells it learns from, and fails on new models.

    Parameters
    ----------
    hidden : tuple of int, two layers
    n_cells : int
        Training cells drawn; `n_epochs` passes over them.
    min_family : int
        Families with at least so many scored models have an indicator of their own.
    """

    def __init__(
        self, rank=16, hidden=(64, 32), n_cells=300_000, n_epochs=8, min_family=10, seed=0
    ):
        self.rank = rank
        self.hidden = hidden
        self.n_cells = n_cells
        self.n_epochs = n_epochs
        self.min_family = min_family
        self.seed = seed

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Fit the factors, then the network on a sample of the observed cells."""
        rng = np.random.default_rng(self.seed)
        self.factors_ = MFWithFeatures(rank=self.rank, seed=self.seed)
        self.factors_.fit(responses, lineage, items=items, models=models)
        self.responses_, self.item_means_ = responses, item_means(responses, items)
        self.descriptions_ = self._describe(lineage, models)
        loadings, intercept = self.factors_.item_factors_, self.factors_.item_intercept_
        codes = benchmark_codes(items, len(loadings))
        self.item_inputs_ = np.column_stack(
            [loadings, intercept, codes[:, None] == np.unique(codes)]
        )
        output = _AnswerOutput if kind_of(responses) is ANSWERS else _ProportionOutput
        self.output_ = output(self)
        self.network_ = self.output_.network(
            hidden_layer_sizes=self.hidden, learning_rate_init=3e-3, random_state=self.seed
        )
        self._train(*self._episodes(rng))
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of `rows` (default all) for `items` (default all): float32, in [0, 1]."""
        rows, columns = cells_asked(self.responses_.shape, rows, items, revealed)
        if self.network_ is None:
            return self.factors_.predict_proba(rows, items, revealed=revealed)
        known = observed(self.responses_[rows] if revealed is None else revealed)
        states = self.factors_.factors(rows, revealed)
        # The first layer is linear: the parts of model and item are computed once, and added.
        of_model, of_item, of_product = np.split(self.weights_[0], self._parts)
        models = self._model_inputs(rows, states, known.sum(axis=1)) @ of_model + self.biases_[0]
        of_items = self.item_inputs_[columns] @ of_item
        forecast = np.empty((len(rows), len(columns)), dtype=np.float32)
        step = max(1, BLOCK_CELLS // (self.hidden[0] * max(1, len(columns))))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            hidden = models[block, None] + of_items
            hidden += self._product(states[block], columns)[..., None] * of_product
            forecast[block] = self._upper_layers(hidden, columns)
        return np.clip(forecast, 0, 1, out=forecast)

    def _upper_layers(self, hidden, columns) -> np.ndarray:
        """Probabilities or proportions from the first layer, before its rectifier."""
        for weights, bias in zip(self.weights_[1:], self.biases_[1:], strict=True):
            hidden = np.maximum(hidden, 0, out=hidden) @ weights + bias
        return self.output_.forecast(hidden[..., 0], columns)

    def _describe(self, lineage, models) -> np.ndarray:
        """Features and indicators of the larger families: float32 (n_models, n_columns)."""
        columns = [np.zeros((len(self.responses_), 0))]
        if models is not None:
            columns.append(model_features(models).to_numpy())
        if lineage is not None:
            family = lineage.families[: len(self.responses_)]
            sizes = np.bincount(family[has_responses(self.responses_)])
            columns.append(family[:, None] == np.flatnonzero(sizes >= self.min_family))
        return np.column_stack(columns).astype(np.float32)

    def _model_inputs(self, rows, states, n_known) -> np.ndarray:
        inputs = (self.descriptions_[rows], states, np.log1p(n_known)[:, None])
        return np.column_stack(inputs).astype(np.float32)

    def _product(self, states, columns) -> np.ndarray:
        """What the factors alone forecast, on their own scale: float32 (n_rows, n_columns)."""
        likelihood = self.factors_.likelihood_
        product = states.astype(np.float32) @ likelihood.loadings[columns].T.astype(np.float32)
        return product + self.output_.intercept[columns]

    def _episodes(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and answers of cells whose model shows a random subset of its other answers."""
        scored = np.flatnonzero(has_responses(self.responses_))
        n_items = self.responses_.shape[1]
        per_model = min(n_items, max(1, self.n_cells // len(scored)))
        repeats = int(np.clip(self.n_cells // (per_model * len(scored)), 1, MAX_EPISODES))
        step = max(1, BLOCK_CELLS // n_items)
        parts = [
            self._episode(scored[start : start + step], per_model, rng)
            for _ in range(repeats)
            for start in range(0, len(scored), step)
        ]
        return tuple(map(np.concatenate, zip(*parts, strict=True)))

    def _episode(self, rows, per_model, rng) -> tuple[np.ndarray, np.ndarray]:
        answers = np.asarray(self.responses_[rows])
        seen = observed(answers)
        n_seen = seen.sum(axis=1, keepdims=True)
        # From one answer to all of them, evenly on the logarithmic scale; often none.
        share = n_seen ** (rng.random(n_seen.shape) - 1.0)
        share[rng.random(n_seen.shape) < COLD_SHARE] = 0
        draw = rng.random(seen.shape, dtype=np.float32)
        shown = seen & (draw < share)
        target = seen & ~shown & (draw >= 1 - per_model / n_seen)
        states = self.factors_.factors(rows, reveal(answers, shown))
        row, column = np.nonzero(target)
        models = self._model_inputs(rows, states, shown.sum(axis=1))[row]
        product = np.einsum("cp,cp->c", states[row], self.factors_.likelihood_.loadings[column])
        product = product + self.output_.intercept[column]
        wanted = self.output_.target(answers[row, column], column)
        inputs = np.column_stack([models, self.item_inputs_[column], product])
        return inputs.astype(np.float32), wanted

    def _train(self, inputs, answers):
        """Train on standardised inputs; keep weights that take the inputs as they are."""
        if not len(inputs):
            self.network_ = None
            return
        mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
        scale[scale < 1e-6] = 1
        inputs -= mean
        inputs /= scale
        self.network_.set_params(batch_size=min(BATCH_CELLS, len(inputs)))
        epochs = []
        for _ in range(self.n_epochs):
            self.network_.partial_fit(inputs, answers, **self.output_.fit_options)
            layers = (*self.network_.coefs_, *self.network_.intercepts_)
            epochs.append([weights.astype(np.float32) for weights in layers])
        # The average over the second half of the passes stands in for a decaying step size.
        last = epochs[self.n_epochs // 2 :]
        averaged = [np.mean(layer, axis=0) for layer in zip(*last, strict=True)]
        self.weights_, self.biases_ = averaged[:3], averaged[3:]
        self.weights_[0] /= scale[:, None]
        self.biases_[0] = self.biases_[0] - mean @ self.weights_[0]
        n_items_inputs = self.item_inputs_.shape[1]
        self._parts = [inputs.shape[1] - n_items_inputs - 1, inputs.shape[1] - 1]


class _AnswerOutput:
    """A classifier: its output is the logit of a correct answer."""

    network, fit_options = MLPClassifier, {"classes": [0, 1]}

    def __init__(self, ncf):
        self.intercept = ncf.factors_.item_intercept_

    def target(self, answers, columns):
        return answers

    def forecast(self, output, columns):
        return expit(output)


class _ProportionOutput:
    """A regression: its output is the residual from the item mean, in standard deviations."""

    network, fit_options = MLPRegressor, {}

    def __init__(self, ncf):
        self.mean = ncf.item_means_
        self.std = column_std(ncf.responses_, self.mean)
        self.intercept = np.zeros(len(self.mean), np.float32)

    def target(self, proportions, columns):
        return (proportions - self.mean[columns]) / self.std[columns]

    def forecast(self, output, columns):
        return self.mean[columns] + self.std[columns] * output
