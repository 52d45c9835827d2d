"""Matrix factorization without lineage."""

import numpy as np

from ..data.lineage import without_edges
from ..solver.factorization import LRMF


class MatrixFactorization(LRMF):
    """Plain matrix factorization: LRMF without lineage, for answers and proportions alike.

    A model without answers gets the item intercepts; revealed answers are folded in.
    """

    def __init__(self, rank=16, item_ridge=10.0, seed=0):
        super().__init__(rank=rank, lineage_strength=0.0, item_ridge=item_ridge, seed=seed)

    def fit(self, responses, lineage=None, *, items=None, models=None):
        """Learn factors from the observed responses (n_models, n_items)."""
        alone = without_edges(lineage, responses)
        return super().fit(responses, alone, items=items, models=models)


class MFWithFeatures(MatrixFactorization):
    """Matrix factorization whose model factors have a mean linear in the model's features.

    Size, architecture, type and precision forecast the factors of a model nobody has evaluated;
    revealed answers are folded in on top. Without a models table this is plain factorization.
    """

    def __init__(self, rank=16, item_ridge=10.0, seed=0):
        super().__init__(rank=rank, item_ridge=item_ridge, seed=seed)
        self.use_features = True

    def factors(self, rows, revealed=None) -> np.ndarray:
        """Model states (n_rows, p) given their training answers, or only the revealed ones."""
        return self._states(rows, revealed).mean
