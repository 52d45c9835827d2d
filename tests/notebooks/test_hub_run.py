"""RUN=hub: the first notebook crawls a local Hub, and all six study what it found."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from hub_server import serve
from hub_world import add_details, make_world
from test_pipeline import NOTEBOOKS, ROOT, outputs_of

from lrmf.data.snapshot import load_snapshot

pytestmark = pytest.mark.slow  # kernels run whole notebooks

TOKEN = "hf_" + "s3cr3t" * 5
TASKS = {
    "leaderboard_ifeval": 40,
    "leaderboard_bbh_snarks": 30,
    "leaderboard_math_algebra_hard": 30,
}
QUICK = {
    "03_fit": {"rank": 4},
    "04_baselines": {
        "n_seeds": 1,
        "n_folds": 2,
        "ablation_folds": 2,
        "rank": 4,
        "densities": [0.3],
        "n_boot": 50,
        "n_jobs": 1,
    },
    "05_cold_start": {"shots": [1, 3], "strengths": [0, 3], "n_boot": 50, "n_jobs": 1},
}


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the notebooks need, and how to run commands there on a local Hub."""
    for part in ("lrmf", "notebooks", "params"):
        shutil.copytree(ROOT / part, tmp_path / part)
    world = make_world(60, seed=1)
    add_details(world, TASKS)
    with serve(world.hub) as served:
        environment = os.environ | {"HF_ENDPOINT": served.url, "HF_TOKEN": TOKEN}
        environment |= {"PYTHONPATH": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}

        def run(*command):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        yield tmp_path, run


def execute(run, name):
    options = [f"executed/{name}.ipynb", "--params", "params/hub.yaml"]
    for parameter, value in QUICK.get(name, {}).items():
        options += ["-p", parameter, str(value)]
    run("notebooks/run.py", f"notebooks/{name}.ipynb", *options)


def test_the_whole_study_on_a_crawl(checkout):
    folder, run = checkout
    for name in NOTEBOOKS:
        execute(run, name)
    snapshot = load_snapshot(folder / "data" / "hub")
    assert (snapshot.source, snapshot.n_models, snapshot.n_items) == ("hub", 60, 6)
    zero_shot = pd.read_csv(folder / "build" / "hub" / "zero_shot.csv")
    assert zero_shot.query("predictor == 'LRMF' and metric == 'mae'")["value"].notna().all()
    assert len(list((folder / "figures" / "hub").glob("*.pdf"))) > 10
    for name, output in outputs_of(folder):
        assert output.get("name") != "stderr", (name, output["text"])
    parts = ("data", "build", "figures", "executed")
    files = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_single_answers_that_were_crawled_are_what_is_studied(checkout):
    folder, run = checkout
    run("-m", "lrmf", "crawl", "data/hub", "--instances")
    execute(run, "01_crawl")
    snapshot = load_snapshot(folder / "data" / "hub")
    assert snapshot.is_binary and snapshot.n_items == sum(TASKS.values())
    benchmarks = pd.read_csv(folder / "build" / "hub" / "benchmarks.csv")
    assert benchmarks["n_items"].tolist() == list(TASKS.values())
