"""What each ingredient of the Forecaster is worth: ``python -m bench.ablation SNAPSHOT [...]``.

Zero-shot forecasts by cross-validation and, where the snapshot has dates, of models later than
three cutoffs, each ingredient left out in turn (everything is learned anew), or boosted trees
averaged in. The differences to the whole Forecaster are paired, their 95% intervals resample
families. Tables go to ``bench/results/ablation_<name of the snapshot>.csv``.

Where a second evaluator has added models to a leaderboard (the column evaluated_by), these are
forecast from the models of the first, and nothing else is measured.
"""

import argparse
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from lrmf import Forecaster, Lineage, load_snapshot
from lrmf.baselines.boosting import BoostedTrees
from lrmf.data.features import model_dates
from lrmf.data.response_kinds import ANSWERS, kind_of
from lrmf.data.responses import benchmark_scores, observed
from lrmf.evaluation import splits
from lrmf.evaluation.bootstrap import bootstrap
from lrmf.evaluation.evaluate import evaluate, parents_mean
from lrmf.forecaster import covariance, state_prior

RESULTS = Path(__file__).parent / "results"
QUANTILES = 0.6, 0.7, 0.8  # of the dates, where a snapshot is cut
TREES = 0.25  # weight of boosted trees in the average

# Parameters of the Forecaster, terms of the covariance, and names replaced in `state_prior`.
LEFT_OUT = {
    "lineage": ({"use_lineage": False}, (), {}),
    "cards": ({"use_cards": False}, (), {}),
    "names": ({"use_names": False}, (), {}),
    "near-duplicates": ({"use_near_duplicates": False}, (), {}),
    "same base": ({}, ("base",), {}),
    "linear terms": ({}, ("size, linear", "date, linear", "size and date, linear"), {}),
    "draw to the parents": ({}, (), {"_REACHES": (0.0,)}),
}
WHOLE = "Forecaster"


class Without(Forecaster):
    """The Forecaster with everything learned in the absence of one ingredient."""

    def __init__(self, part, seed=0):
        self.part = part
        super().__init__(**LEFT_OUT[part][0], seed=seed)

    @classmethod
    def _get_param_names(cls):
        return ["part", "seed"]

    def fit(self, *data, **tables):
        _, terms, replaced = LEFT_OUT[self.part]
        rest = {name: value for name, value in covariance.DEFAULTS.items() if name not in terms}
        with ExitStack() as stack:
            stack.enter_context(patch.dict(covariance.DEFAULTS, rest, clear=True))
            for name, value in replaced.items():
                stack.enter_context(patch.object(state_prior, name, value))
            return super().fit(*data, **tables)


def protocols(snapshot, lineage, n_folds):
    """Name and splits of each protocol."""
    with suppress(ValueError):  # no second evaluator
        yield "evaluated by others", splits.evaluated_by_others(snapshot.responses, snapshot.models)
        return
    yield "cross-validation", islice(splits.zero_shot(snapshot.responses, lineage), n_folds)
    dates = model_dates(snapshot.models, observed(snapshot.responses).any(axis=1))
    if dates.notna().sum() < 100:
        return
    for split in splits.date_split(
        snapshot.responses, snapshot.models, quantiles=QUANTILES, lineage=lineage
    ):
        yield f"later than {split.label['cutoff']}", [split]


def with_trees(forecasts):
    """The Forecaster's forecasts with the trees' averaged in."""
    by_name = dict(list(forecasts.groupby("predictor", sort=False)))
    whole, trees = by_name[WHOLE], by_name["boosted trees"].reset_index(drop=True)
    mixed = whole.reset_index(drop=True).assign(predictor=f"{WHOLE} + {TREES:g} boosted trees")
    mixed["predicted"] = (1 - TREES) * mixed["predicted"] + TREES * trees["predicted"]
    return pd.concat([forecasts, mixed], ignore_index=True)


def main(arguments=None):
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation")
    parser.add_argument("--parts", nargs="*", choices=LEFT_OUT, default=list(LEFT_OUT))
    parser.add_argument("--no-trees", action="store_true", help="leave boosted trees out")
    options = parser.parse_args(arguments)
    snapshot = load_snapshot(options.snapshot)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    predictors = {WHOLE: Forecaster()}
    for part in options.parts:
        if part != "near-duplicates" or kind_of(snapshot.responses) is ANSWERS:
            predictors[f"without {part}"] = Without(part)
    if not options.no_trees:
        predictors["boosted trees"] = BoostedTrees()
    tables = []
    for name, parts in protocols(snapshot, lineage, options.folds):
        _, forecasts = evaluate(
            predictors, parts, lineage,
            items=snapshot.items, truth=snapshot.responses, models=snapshot.models,
        )  # fmt: skip
        if not options.no_trees:
            forecasts = with_trees(forecasts)
        if "fold" in forecasts:
            whole = forecasts[forecasts["predictor"] == WHOLE]
            scores = benchmark_scores(snapshot.responses, snapshot.items)
            forecasts = pd.concat([forecasts, parents_mean(whole, lineage, scores)])
        table = bootstrap(forecasts, reference=WHOLE).assign(protocol=name)
        tables.append(table[["protocol", *table.columns[:-1]]])
        print(tables[-1].round(4).to_string(index=False), flush=True)
    RESULTS.mkdir(exist_ok=True)
    place = RESULTS / f"ablation_{options.snapshot.resolve().name}.csv"
    pd.concat(tables).to_csv(place, index=False, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()
