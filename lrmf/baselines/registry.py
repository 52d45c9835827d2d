"""Baselines: what a forecast is worth without LRMF.

All share one interface (scikit-learn conventions):

    fit(responses, lineage, *, items=None, models=None) -> self
    predict_proba(rows=None, items=None, *, revealed=None) -> float32 (n_rows, n_columns)

`responses` are answers (uint8, 0/1, 255 missing) or proportions (float32, NaN missing); models
without any response are the held-out ones. `revealed` holds the few known answers of each row; a
forecast then treats the row as a new model with these answers. Forecasts are probabilities of a
correct answer, or expected proportions, in [0, 1].
"""

from .averages import ItemMean, LineageMean
from .boosting import BoostedTrees
from .factorization import MatrixFactorization, MFWithFeatures
from .irt import ItemResponse
from .knn import KNN
from .ncf import NCF
from .tuned import Tuned

__all__ = [
    "KNN",
    "NCF",
    "BoostedTrees",
    "ItemMean",
    "ItemResponse",
    "LineageMean",
    "MFWithFeatures",
    "MatrixFactorization",
    "Tuned",
    "all_baselines",
]


def all_baselines(
    *, is_binary: bool, rank: int = 16, ncf_cells: int = 300_000, tuned: bool = True
) -> dict:
    """Every baseline by its name in the tables, each to be tuned by the same inner splits.

    Parameters
    ----------
    is_binary : bool
        Answers, or else proportions.
    rank : int
        Number of factors; with `tuned` a quarter of it, it, and half as many again are tried.
    ncf_cells : int
        Training cells of NCF.
    tuned : bool
        False takes their default parameters instead, and `rank`: quicker, and not as fair.
    """
    factors = {"rank": sorted({max(1, rank // 4), rank, rank + rank // 2})}
    neighbors = {"n_neighbors": (5, 10, 20, 40)}
    if is_binary:
        factors |= {"item_ridge": (10.0, 50.0, 200.0)}
        neighbors = {"n_neighbors": (10, 20, 40), "significance": (10.0, 50.0, 200.0)}
    shrinkage = {"shrinkage": (0.03, 0.1, 0.3, 1.0, 3.0)}
    spread = {"ability_sd": (0.25, 0.5, 1.0, 2.0)}
    smooth = {"ability_sd": (0.5, 1.0, 2.0, 4.0), "lineage_strength": (3.0, 10.0, 30.0)}
    trees = [
        {"max_iter": (50, 150, 400), "min_samples_leaf": (20,)},
        {"max_iter": (150,), "min_samples_leaf": (5,)},
    ]
    predictors = {
        "item mean": ItemMean(),
        "lineage average, 1 hop, raw": LineageMean(shrinkage=0.0),
        "lineage average, 1 hop": Tuned(LineageMean(), shrinkage),
        "lineage average, multi-hop": Tuned(LineageMean(hops=None), shrinkage),
        "MF": Tuned(MatrixFactorization(), factors),
        "MF + features": Tuned(MFWithFeatures(), factors),
        "Rasch": Tuned(ItemResponse(slopes=False), spread),
        "2PL": Tuned(ItemResponse(), spread),
        "Rasch + lineage": Tuned(ItemResponse(slopes=False), smooth),
        "2PL + lineage": Tuned(ItemResponse(), smooth),
        "kNN": Tuned(KNN(), neighbors),
        "boosting on features": Tuned(BoostedTrees(neighbours=False), trees, ks=(0,)),
        "boosting on relatives": Tuned(BoostedTrees(), trees, ks=(0,)),
        "NCF": Tuned(NCF(rank, n_cells=ncf_cells), {"n_epochs": (4, 8, 16)}, n_splits=1),
    }
    if tuned:
        return predictors
    return {name: _plain(predictor, rank) for name, predictor in predictors.items()}


def _plain(predictor, rank):
    predictor = predictor.estimator if isinstance(predictor, Tuned) else predictor
    has_rank = "rank" in predictor.get_params(deep=False)
    return predictor.set_params(rank=rank) if has_rank else predictor
