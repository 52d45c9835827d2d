"""`make check-claims` finds what does not agree."""

import pandas as pd

from paper import check
from paper.readme import FOLDERS, ROOT


def test_deviations_beyond_the_tolerance_are_named():
    committed = pd.DataFrame(
        {"predictor": "LRMF", "benchmark": "all", "metric": ["pearson", "mae"], "value": [0.7, 5.0]}
    )
    assert not list(check.deviations(committed, committed))
    shifted = committed.assign(value=[0.7019, 5.03])
    [sentence] = check.deviations(shifted, committed)
    assert "LRMF, mae" in sentence and "5.03" in sentence and "5.00" in sentence
    [sentence] = check.deviations(committed.assign(value=[float("nan"), 5.0]), committed)
    assert "pearson" in sentence


def test_a_verdict_that_the_frames_do_not_give_is_found(tmp_path):
    run = ROOT / "figures" / FOLDERS["v2"]
    assert not list(check.wrong_verdicts(run))
    copy = tmp_path / "v2"
    (copy / "tables").mkdir(parents=True)
    for path in run.glob("*.csv"):
        (copy / path.name).write_bytes(path.read_bytes())
    text = (run / "tables" / "claims.csv").read_text().replace("kept", "too wide", 1)
    (copy / "tables" / "claims.csv").write_text(text)
    [sentence] = check.wrong_verdicts(copy)
    assert "90% intervals" in sentence
