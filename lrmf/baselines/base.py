"""What baselines share: forecasts in blocks, item means plus a residual."""

import numpy as np
from sklearn.base import BaseEstimator

from ..data.responses import unmasked
from ..data.statistics import item_means

BLOCK_MODELS = 256  # forecast at once
BLOCK_CELLS = 4_000_000  # cells of a float32 working array


class ForecastInBlocks(BaseEstimator):
    """A baseline whose `_forecast_block(rows, columns, revealed)` forecasts some models at once."""

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of `rows` (default all) for `items` (default all): float32, in [0, 1]."""
        rows, columns = cells_asked(self.responses_.shape, rows, items, revealed)
        forecast = np.empty((len(rows), len(columns)), np.float32)
        for start in range(0, len(rows), BLOCK_MODELS):
            block = slice(start, start + BLOCK_MODELS)
            shown = None if revealed is None else revealed[block]
            forecast[block] = self._forecast_block(rows[block], columns, shown)
        return forecast


class _Baseline(BaseEstimator):
    """Item means plus the residual a subclass forecasts."""

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Learn from the observed responses (n_models, n_items)."""
        self.responses_ = responses = unmasked(responses)
        self.item_means_ = item_means(responses, items)
        self._fit(lineage)
        return self

    def predict_proba(self, rows=None, items=None, *, revealed=None):
        """Forecast of `rows` (default all) for `items` (default all): float32, in [0, 1]."""
        rows, columns = cells_asked(self.responses_.shape, rows, items, revealed)
        forecast = np.empty((len(rows), len(columns)), dtype=np.float32)
        forecast[:] = self.item_means_[columns]
        if len(rows):
            self._add_residual(forecast, rows, columns, revealed)
        return np.clip(forecast, 0, 1, out=forecast)

    def _fit(self, lineage):
        pass

    def _add_residual(self, forecast, rows, columns, revealed):
        pass


def cells_asked(shape, rows, items, revealed):
    """Rows and columns to forecast, all by default; refuses revealed responses of another shape."""
    n_models, n_items = shape
    rows = np.arange(n_models) if rows is None else np.asarray(rows)
    columns = np.arange(n_items) if items is None else np.asarray(items)
    wanted = len(rows), n_items
    if revealed is not None and revealed.shape != wanted:
        raise ValueError(
            f"revealed must have one row per forecast model and one column per item, {wanted}, "
            f"got {revealed.shape}"
        )
    return rows, columns
