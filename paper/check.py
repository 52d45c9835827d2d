"""Check the claims: ``make check-claims`` (``python -m paper.check``), in under two minutes.

Recomputes what is cheap, the zero-shot accuracy of LRMF and of the averages on the simulated Hub at
paper scale, from nothing; recomputes the verdicts from the committed frames; and compares README,
docs/claims.md, figures/claims.json and the comparisons in the paper with them. Ends with status 1
at any deviation.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd

from lrmf import LRMF, Lineage, load_snapshot
from lrmf.baselines.registry import all_baselines
from lrmf.data.response_kinds import kind_of
from lrmf.evaluation import splits
from lrmf.evaluation.evaluate import evaluate
from lrmf.report.claims import assess_claims
from lrmf.report.tables import read_frame
from lrmf.simulation.simulate import write_simulated
from notebooks.run import declared_parameters

from . import sentences
from .readme import FOLDERS, ROOT, documents

TOLERANCE = {"pearson": 0.002, "mae": 0.02}  # of r, and of points: processors round differently
CHEAP = ("item mean", "lineage average, 1 hop", "lineage average, multi-hop")
FRAMES = {  # arguments of `assess_claims` among the files of a run
    "zero_shot": "zero_shot", "random_holdout": "random_holdout", "few_shot": "few_shot",
    "variants": "ablation", "ingredients": "ingredients", "gains": "lineage_gain",
    "intervals": "calibration", "dates": "later_models",
    "release": "as_at_release", "within": "within_families", "extrapolation": "extrapolation",
}  # fmt: skip


def recomputed(folder: Path) -> pd.DataFrame:
    """r and MAE by predictor on a simulated Hub made in `folder`, as notebook 04 makes them."""
    settings = declared_parameters(ROOT / "notebooks" / "04_baselines.ipynb")
    write_simulated(folder, seed=settings["seed"])
    data = load_snapshot(folder)
    lineage = Lineage.from_edges(data.lineage, data.models["model_id"])
    known = all_baselines(kind_of(data.responses), rank=settings["rank"], tuned=False)
    predictors = {name: known[name] for name in CHEAP}
    predictors["LRMF"] = LRMF(settings["rank"], settings["lineage_strength"])
    results, _ = evaluate(
        predictors,
        splits.zero_shot(data.responses, lineage, n_folds=settings["n_folds"]),
        lineage, items=data.items, truth=data.responses, models=data.models,
    )  # fmt: skip
    return results[results["benchmark"] == "all"]


def deviations(found: pd.DataFrame, committed: pd.DataFrame):
    """Sentences about recomputed values that are not the committed ones."""
    committed = committed[committed["benchmark"] == "all"]
    committed = committed.set_index(["predictor", "metric"])["value"]
    for row in found.itertuples():
        if row.metric in TOLERANCE:
            expected = committed[row.predictor, row.metric]
            if not abs(row.value - expected) <= TOLERANCE[row.metric]:
                yield (
                    f"{row.predictor}, {row.metric}: recomputed {row.value:.4f}, "
                    f"committed {expected:.4f}"
                )


def wrong_verdicts(run: Path):
    """Sentences about committed verdicts that the committed frames of a run do not give."""
    frames = {name: read_frame(run, file) for name, file in FRAMES.items()}
    found = assess_claims(pd.DataFrame(), **frames).set_index("setting", append=True)
    claims = read_frame(run / "tables", "claims").set_index(["claim", "setting"])["verdict"]
    for key, verdict in found["verdict"].items():
        if claims.get(key) != verdict:
            yield f"{run.name}, {': '.join(key)}: {claims.get(key)!r}, the frames say {verdict!r}"


def stale_documents(root: Path = ROOT):
    """Documents that do not say what the committed results say."""
    for path, text in documents(root).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{path.relative_to(root)} differs from the results; run python -m paper.readme"


def main() -> int:
    """Print every deviation; 0 if there is none."""
    wrong = [*stale_documents(), *sentences.contradictions(ROOT, sentences.checks())]
    runs = sorted({"simulated", *FOLDERS.values()})
    for folder in runs:
        wrong += wrong_verdicts(ROOT / "figures" / folder)
    with tempfile.TemporaryDirectory() as folder:
        found = recomputed(Path(folder) / "simulated")
    wrong += deviations(found, read_frame(ROOT / "figures" / "simulated", "zero_shot"))
    for sentence in wrong:
        print(f"deviation: {sentence}", file=sys.stderr)
    checked = len(found[found["metric"].isin(TOLERANCE)])
    print(f"{checked} values recomputed, {len(runs)} runs compared, {len(wrong)} deviations")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
