"""The predictors of the study: one entry each, from which tables, figures and claims are made.

All share one interface (scikit-learn conventions):

    fit(responses, lineage, *, items=None, models=None) -> self
    predict_proba(rows=None, items=None, *, revealed=None) -> float32 (n_rows, n_columns)

`responses` are answers (uint8, 0/1, 255 missing) or proportions (float32, NaN missing); models
without any response are the held-out ones. `revealed` holds the few known answers of each row; a
forecast then treats the row as a new model with these answers. Forecasts are probabilities of a
correct answer, or expected proportions, in [0, 1].

A new baseline is one module beside this one and one entry in `PREDICTORS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sklearn.base import BaseEstimator

from ..data.response_kinds import ANSWERS, ResponseKind
from ..solver.factorization import LIKELIHOODS
from ..solver.factorization import LRMF as LineageFactorization
from .averages import ItemMean, LineageMean
from .boosting import MOST_BENCHMARKS, BoostedTrees
from .factorization import MatrixFactorization, MFWithFeatures
from .irt import ItemResponse
from .knn import KNN
from .ncf import NCF
from .tuned import Tuned

# The paper's claim is about these kinds of baselines.
FACTORIZATION = "factorization"
FACTORIZATION_WITH_FEATURES = "factorization with model features"
COLLABORATIVE = "collaborative filtering"
CLAIMED = (FACTORIZATION, FACTORIZATION_WITH_FEATURES, COLLABORATIVE)
OURS, AVERAGE, TREES, NETWORK = "ours", "average", "boosted trees", "neural network"
ITEM_RESPONSE = "item response model"
# Where a predictor is shown: curves of a figure, strata by relatives, leads against the claim, and
# the short tables in the body of the paper.
CURVES, STRATA, LEADS, BODY = "curves", "strata", "leads", "body"


@dataclass(frozen=True)
class Study:
    """What baselines and their tuning grids depend on.

    Attributes
    ----------
    kind : of the responses
    rank : number of factors; with tuning a quarter of it, it, and half as many again are tried
    ncf_cells : training cells of NCF
    n_benchmarks : beyond `boosting.MOST_BENCHMARKS` boosted trees choose a number of components
    """

    kind: ResponseKind
    rank: int = 16
    ncf_cells: int = 300_000
    n_benchmarks: int = 1


@dataclass(frozen=True)
class Predictor:
    """One predictor of the study.

    Attributes
    ----------
    id : name in code
    label : name in frames, tables and figures
    kind : "ours", or what the claims call such baselines
    color : name in `lrmf.report.style.PALETTE`
    marker, linestyle : of matplotlib
    short_label : where the label is too long; the label by default
    build : Study -> estimator; None where the notebooks configure it
    grid : values that inner splits choose from, or Study -> these; None if nothing is to be tuned
    tuning : other arguments of `Tuned`
    reads_lineage, reads_cards : what it learns from beside responses
    shown_in : of CURVES, STRATA, LEADS and BODY
    """

    id: str
    label: str
    kind: str
    color: str = "grey"
    marker: str = "."
    linestyle: str | tuple = "-"
    short_label: str = ""
    build: Callable[[Study], BaseEstimator] | None = None
    grid: Callable[[Study], dict | list] | dict | list | None = None
    tuning: dict = field(default_factory=dict)
    reads_lineage: bool = False
    reads_cards: bool = False
    shown_in: frozenset = frozenset({BODY})

    def estimator(self, study: Study, *, tuned: bool = True) -> BaseEstimator:
        """The estimator, wrapped in `Tuned` if there is something to tune."""
        estimator = self.build(study)
        if self.grid is None or not tuned:
            return estimator
        return Tuned(estimator, self.candidates(study), **self.tuning)

    def candidates(self, study: Study) -> dict | list:
        """The values that inner splits choose from."""
        return self.grid(study) if callable(self.grid) else self.grid


def _factors(study):
    ranks = {"rank": sorted({max(1, study.rank // 4), study.rank, study.rank + study.rank // 2})}
    return ranks | ({"item_ridge": (10.0, 50.0, 200.0)} if study.kind is ANSWERS else {})


def _lineage_factorization(study):
    defaults = LIKELIHOODS[study.kind].defaults
    return LineageFactorization(**defaults | {"rank": study.rank})


def _lineage_factors(study):
    """Every strength of lineage, then other values of one parameter; with and without features."""
    grid, defaults = LIKELIHOODS[study.kind].grid, LIKELIHOODS[study.kind].defaults
    names = [name for name in grid if name != "rank"]
    unset = LineageFactorization().get_params() | defaults
    start = {name: (unset[name],) for name in names} | {"use_features": (False, True)}
    others = {
        name: tuple(value for value in grid[name] if value != unset[name])
        for name in names
        if name not in ("lineage_strength", "use_features")
    }
    strengths = start | {"lineage_strength": grid["lineage_strength"]}
    return [strengths, *(start | {name: values} for name, values in others.items())]


def _neighbours(study):
    if study.kind is ANSWERS:
        return {"n_neighbors": (10, 20, 40), "significance": (10.0, 50.0, 200.0)}
    return {"n_neighbors": (5, 10, 20, 40)}


_SHRINKAGE = {"shrinkage": (0.03, 0.1, 0.3, 1.0, 3.0)}
_ABILITIES = {"ability_sd": (0.25, 0.5, 1.0, 2.0)}
_RELATED_ABILITIES = {"ability_sd": (0.5, 1.0, 2.0, 4.0), "lineage_strength": (3.0, 10.0, 30.0)}


def _trees(study):
    grid = [
        {"max_iter": (50, 150, 400), "min_samples_leaf": (20,)},
        {"max_iter": (150,), "min_samples_leaf": (5,)},
    ]
    if study.n_benchmarks > MOST_BENCHMARKS:
        return [values | {"n_components": (10, 40)} for values in grid]
    return grid


PREDICTORS: dict[str, Predictor] = {}


def register(predictor: Predictor) -> Predictor:
    """Add an entry after those that are there: the order of the tables.

    Raises
    ------
    ValueError
        If an entry has this id or this label.
    """
    if predictor.id in PREDICTORS or predictor.label in labels():
        raise ValueError(f"{predictor.id!r} ({predictor.label!r}) is already a predictor")
    PREDICTORS[predictor.id] = predictor
    return predictor


def find(label: str) -> Predictor:
    """The entry with this label; for unknown labels one that reads nothing, in grey."""
    known = {entry.label: entry for entry in PREDICTORS.values()}
    return known.get(label) or Predictor(label, label, "other")


def labels(chosen: Callable[[Predictor], bool] = lambda _: True) -> list[str]:
    """Labels of the entries for which `chosen` holds, in the order of the tables."""
    return [entry.label for entry in PREDICTORS.values() if chosen(entry)]


def shown_in(place: str) -> list[str]:
    """Labels of what a place shows (CURVES, STRATA, LEADS, BODY)."""
    return labels(lambda entry: place in entry.shown_in)


def baselines_among(names: Iterable[str]) -> list[str]:
    """The names that are not our own predictors."""
    return [name for name in names if find(name).kind != OURS]


def all_baselines(
    kind: ResponseKind,
    *,
    rank: int = 16,
    ncf_cells: int = 300_000,
    n_benchmarks: int = 1,
    tuned: bool = True,
) -> dict[str, BaseEstimator]:
    """Every baseline by its label, each to be tuned by the same inner splits; none of our own.

    Parameters
    ----------
    kind, rank, ncf_cells, n_benchmarks : of `Study`
    tuned : bool
        False takes their default parameters instead, and `rank`: quicker, and not as fair.
    """
    study = Study(kind, rank, ncf_cells, n_benchmarks)
    return {
        entry.label: entry.estimator(study, tuned=tuned)
        for entry in PREDICTORS.values()
        if entry.build is not None and entry.kind != OURS
    }


FORECASTER = register(
    Predictor(
        "forecaster", "Forecaster", OURS, "blue", "o",
        reads_lineage=True, reads_cards=True, shown_in=frozenset({CURVES, STRATA, BODY}),
    )
)  # fmt: skip
LRMF = register(
    Predictor(
        "lrmf", "LRMF", OURS, "blue", "8", (0, (3, 1)),
        build=_lineage_factorization, grid=_lineage_factors,
        reads_lineage=True, reads_cards=True,
    )
)  # fmt: skip
LRMF_UNTUNED = register(
    Predictor("lrmf_untuned", "LRMF, untuned", OURS, "blue", "h", (0, (1, 1)), reads_lineage=True)
)
BOOSTING = register(
    Predictor(
        "boosting_on_relatives", "boosting on relatives", TREES, "vermillion", "*", (0, (5, 1)),
        build=lambda _: BoostedTrees(), grid=_trees, tuning={"ks": (0,)},
        reads_lineage=True, reads_cards=True, shown_in=frozenset({CURVES, LEADS, BODY}),
    )
)  # fmt: skip
MULTI_HOP = register(
    Predictor(
        "multi_hop", "lineage average, multi-hop", AVERAGE, "green", "^", (0, (8, 3)),
        "multi-hop average", lambda _: LineageMean(hops=None), _SHRINKAGE,
        reads_lineage=True, shown_in=frozenset({CURVES, STRATA, BODY}),
    )
)  # fmt: skip
ONE_HOP = register(
    Predictor(
        "one_hop", "lineage average, 1 hop", AVERAGE, "sky", "v", ":",
        "one-hop average", lambda _: LineageMean(), _SHRINKAGE,
        reads_lineage=True, shown_in=frozenset({STRATA, BODY}),
    )
)  # fmt: skip
ONE_HOP_RAW = register(
    Predictor(
        "one_hop_raw", "lineage average, 1 hop, raw", AVERAGE, "sky", "1", "-",
        "one-hop average, raw", lambda _: LineageMean(shrinkage=0.0),
        reads_lineage=True, shown_in=frozenset(),
    )
)  # fmt: skip
for _predictor in (
    Predictor(
        "2pl_lineage", "2PL + lineage", ITEM_RESPONSE, "green", "<", "-.",
        build=lambda _: ItemResponse(), grid=_RELATED_ABILITIES, reads_lineage=True,
    ),
    Predictor(
        "rasch_lineage", "Rasch + lineage", ITEM_RESPONSE, "green", ">", ":",
        build=lambda _: ItemResponse(slopes=False), grid=_RELATED_ABILITIES, reads_lineage=True,
    ),
    Predictor(
        "boosting_on_features", "boosting on features", TREES, "sky", "p", "-",
        build=lambda _: BoostedTrees(neighbours=False), grid=_trees, tuning={"ks": (0,)},
        reads_cards=True,
    ),
    Predictor(
        "mf", "MF", FACTORIZATION, "black", "s", (0, (1, 1.5)),
        build=lambda study: MatrixFactorization(rank=study.rank), grid=_factors,
        shown_in=frozenset({CURVES, LEADS, BODY}),
    ),
    Predictor(
        "mf_features", "MF + features", FACTORIZATION_WITH_FEATURES, "orange", "D",
        (0, (4, 1.5, 1, 1.5, 1, 1.5)),
        build=lambda study: MFWithFeatures(rank=study.rank), grid=_factors,
        reads_cards=True, shown_in=frozenset({CURVES, LEADS, BODY}),
    ),
    Predictor(
        "knn", "kNN", COLLABORATIVE, "purple", "P", "-.",
        build=lambda _: KNN(), grid=_neighbours, shown_in=frozenset({CURVES, LEADS, BODY}),
    ),
    Predictor(
        "ncf", "NCF", NETWORK, "sky", "X", (0, (2, 2)),
        build=lambda study: NCF(study.rank, n_cells=study.ncf_cells),
        grid={"n_epochs": (4, 8, 16)}, tuning={"n_splits": 1},
        reads_lineage=True, reads_cards=True, shown_in=frozenset({LEADS, BODY}),
    ),
    Predictor(
        "2pl", "2PL", ITEM_RESPONSE, "sky", "d", (0, (2, 2)),
        build=lambda _: ItemResponse(), grid=_ABILITIES,
    ),
    Predictor(
        "rasch", "Rasch", ITEM_RESPONSE, "sky", "H", (0, (2, 2)),
        build=lambda _: ItemResponse(slopes=False), grid=_ABILITIES,
    ),
    Predictor(
        "item_mean", "item mean", AVERAGE, "grey", "_", "-",
        build=lambda _: ItemMean(), shown_in=frozenset({STRATA}),
    ),
):  # fmt: skip
    register(_predictor)
