"""Folds give the same numbers in this process, in two processes, and on a Dask cluster."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
from joblib import delayed

from lrmf.evaluation import parallel
from lrmf.evaluation.parallel import CLUSTER, workers

SCRIPT = """
    import sys
    import numpy as np
    import pandas as pd
    sys.path.insert(0, "tests")
    from draws import draw_answers, random_lineage
    from lrmf import LRMF, Forecaster
    from lrmf.baselines.averages import LineageMean
    from lrmf.baselines.tuned import Tuned
    from lrmf.evaluation.evaluate import evaluate
    from lrmf.evaluation.splits import zero_shot

    def results(n_jobs):
        lineage = random_lineage(60, seed=1)
        answers, _ = draw_answers(lineage, 30, seed=1)
        items = pd.DataFrame({"item_id": range(30), "benchmark": "all", "n_trials": 1})
        average = Tuned(LineageMean(), {"shrinkage": (0.1, 1.0)})
        predictors = {"Forecaster": Forecaster(), "LRMF": LRMF(2), "average": average}
        splits = zero_shot(answers, lineage, n_folds=3)
        models = pd.DataFrame({"model_id": lineage.node_ids[:60], "params_b": range(1, 61)})
        frame, forecasts = evaluate(
            predictors, splits, lineage, items=items, models=models, truth=answers, n_jobs=n_jobs
        )
        return pd.concat([frame, forecasts])
"""
CLUSTER_OF_TWO = """
    if __name__ == "__main__":
        import os
        from distributed import LocalCluster
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            host="127.0.0.1",
        ) as cluster:
            os.environ["LRMF_DASK"] = cluster.scheduler_address
            results(1).to_csv(sys.argv[1], index=False)
"""
HERE = """
    if __name__ == "__main__":
        alone = results(1)
        pd.testing.assert_frame_equal(alone, results(2))
        alone.to_csv(sys.argv[1], index=False)
"""


def run(tmp_path, body):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(body))
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    command = [sys.executable, str(script), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(out)


@pytest.mark.slow
def test_two_processes_and_a_cluster_of_two_give_the_numbers_of_one_process(tmp_path):
    pytest.importorskip("distributed")
    pd.testing.assert_frame_equal(run(tmp_path, HERE), run(tmp_path, CLUSTER_OF_TWO))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv(CLUSTER, "nonsense://127.0.0.1:1")
    with pytest.raises(ValueError, match="LRMF_DASK=nonsense"), workers(1):
        pass


def test_a_single_task_runs_here_and_an_empty_list_is_none():
    assert parallel.run([delayed(os.getpid)()], 2) == [os.getpid()]
    assert parallel.run([], 2) == []


@pytest.mark.slow  # processes have to fill 300 MB, and are looked at once a second
def test_a_process_that_is_replaced_loses_nothing_and_warns_of_nothing(recwarn):
    def hoard(number):
        time.sleep(0.6)
        sys.__dict__.setdefault("hoarded", []).append(np.ones(25_000_000))
        return number, os.getpid()

    numbers, processes = zip(*parallel.run([delayed(hoard)(n) for n in range(10)], 2), strict=True)
    assert numbers == tuple(range(10)) and len(set(processes)) > 2
    assert not recwarn.list
