"""The bench measures what it says: problems, the shared objective, targets and ratios, costs."""

import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from draws import objective, objective_gradient

from bench import cost, run
from bench.figure import LOOKS, draw
from bench.objective import Objective, count, log_loss, logits, start
from bench.problems import Spec, draw_problem, load_problem, save_problem
from bench.report import describe, find_targets, fit_exponents, reach_targets, summarise
from bench.watch import Watch, calibrated_loss
from lrmf import LRMF
from lrmf.data.responses import MISSING

SMALL = {"n_test": 300, "n_validation": 200, "rank": 3}
SPECS = [Spec("dense", 60, 300, **SMALL), Spec("sparse", 300, 600, 0.05, **SMALL)]


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.name)
def problem(request):
    return draw_problem(request.param)


def fitted(problem, **parameters):
    spec = problem.spec
    model = LRMF(rank=spec.rank, **spec.penalties, **parameters)
    model.fit(problem.responses, problem.lineage)
    items = np.column_stack([model.item_factors_, model.item_intercept_]).astype(float)
    return model, items


def test_problem_is_what_its_spec_says(problem):
    spec = problem.spec
    cells = [problem.test, problem.validation]
    assert [part.rows.size for part in cells] == [spec.n_test, spec.n_validation]
    for part in cells:
        assert (problem.responses[part.rows, part.columns] == MISSING).all()
        assert abs(part.answers.mean() - part.probability.mean()) < 0.1
    assert (problem.responses != MISSING).sum() == pytest.approx(spec.n_observed, rel=0.05)
    lineage = problem.lineage
    assert lineage.n_models == spec.n_models
    assert lineage.n_nodes > spec.n_models
    assert len(lineage.edges) == pytest.approx(1.26 * spec.n_models, rel=0.1)


def test_same_spec_same_problem_also_from_disk(problem, tmp_path):
    folder = save_problem(problem.spec, tmp_path)
    stored = load_problem(folder)
    np.testing.assert_array_equal(stored.responses, problem.responses)
    np.testing.assert_array_equal(stored.test.rows, problem.test.rows)
    np.testing.assert_array_equal(stored.validation.answers, problem.validation.answers)
    assert (stored.lineage.laplacian != problem.lineage.laplacian).nnz == 0
    other = draw_problem(Spec(**vars(problem.spec) | {"seed": 1}))
    assert (other.responses != problem.responses).any()


def test_too_many_held_out_cells_are_refused():
    with pytest.raises(ValueError, match="held-out cells"):
        draw_problem(Spec("tiny", 10, 20))


@pytest.mark.slow
def test_objective_and_gradient_are_those_of_dense_algebra(problem):
    spec, rng = problem.spec, np.random.default_rng(0)
    states = rng.standard_normal((problem.lineage.n_nodes, spec.rank + 1))
    items = rng.standard_normal((spec.n_items, spec.rank + 1))
    named = {"strength": spec.lineage_strength, "ridge": spec.node_ridge}
    named |= {"item_ridge": spec.item_ridge, "intercept_ridge": spec.intercept_ridge}
    laplacian = problem.lineage.laplacian
    value, by_states, by_items = Objective(problem)(states, items)
    expected = objective(states, items, problem.responses, laplacian, **named)
    assert value == pytest.approx(expected, rel=1e-6)
    gradients = objective_gradient(states, items, problem.responses, laplacian, **named)
    for got, wanted in zip((by_states, by_items), gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_objective_and_start_are_those_of_lrmf(problem):
    model, items = fitted(problem)
    value, by_states, by_items = Objective(problem)(model.states_, items)
    assert value == pytest.approx(model.stats_["objective"][-1], rel=1e-6)
    assert Objective(problem)(*start(problem))[0] == pytest.approx(
        model.stats_["objective"][0], rel=0.01
    )
    assert max(np.abs(by_states).max(), np.abs(by_items).max()) < 0.01 * value


def test_counts_and_calibration(problem):
    answers = problem.responses
    for axis in (0, 1):
        correct, observed = count(problem, axis=axis)
        np.testing.assert_array_equal(correct, (answers == 1).sum(axis=axis))
        np.testing.assert_array_equal(observed, (answers != MISSING).sum(axis=axis))
    model, items = fitted(problem)
    plain = log_loss(logits(model.states_, items, problem.test), problem.test.answers)
    calibrated = calibrated_loss(
        problem,
        lambda rows, columns: 7 + 3 * np.einsum(
            "ck,ck->c", model.model_factors_[rows], model.item_factors_[columns]
        ),
    )  # fmt: skip
    assert calibrated < plain + 0.05


def test_watch_stops_at_the_bound_or_at_both_targets(problem):
    states, items = start(problem)
    value = Objective(problem)(states, items)[0]
    with Watch(problem, bound=0.0) as watch:
        assert not watch.checkpoint(states, items)
    with Watch(problem, bound=1e9, target_loss=10, target_objective=value * 0.9) as watch:
        assert watch.checkpoint(states, items)
    with Watch(problem, bound=1e9, target_loss=10, target_objective=value * 1.1) as watch:
        assert not watch.checkpoint(states, items)
    assert watch.checkpoints[0]["objective"] == pytest.approx(value)


def test_ratios_compare_times_to_equal_quality():
    columns = ["round", "problem", "solver", "cpu", "wall", "loss", "objective"]
    points = [
        (0, "p", "LRMF", 1.0, 1.0, 0.6, 120.0), (0, "p", "LRMF", 2.0, 1.5, 0.5, 100.0),
        (0, "p", "L-BFGS", 5.0, 5.0, 0.6, 110.0), (0, "p", "L-BFGS", 9.0, 8.0, 0.5, 100.05),
        (0, "p", "NMF", 4.0, 4.0, 0.55, np.nan),
    ]  # fmt: skip
    checkpoints = pd.DataFrame(points, columns=columns)
    runs = checkpoints.groupby(["round", "problem", "solver"], sort=False).last().reset_index()
    runs = runs[["round", "problem", "solver"]].assign(
        fit_cpu=[2.5, 9.0, 4.0], fit_wall=1.0, peak_mb=1.0, load=1.0
    )
    reference = {"truth": 0.4, "loss": 0.5, "integrated_loss": 0.49, "objective": 100.0}
    targets = find_targets({"p": reference}, checkpoints, slack=1e-3)
    summary = summarise(reach_targets(runs, checkpoints, targets), targets).set_index("solver")
    assert summary.loc["L-BFGS", "cpu_to_loss"] == 9
    assert summary.loc["L-BFGS", "ratio_loss"] == summary.loc["L-BFGS", "ratio_objective"] == 4.5
    assert np.isnan(summary.loc["NMF", "cpu_to_loss"])
    scaling = pd.DataFrame({"axis": "models", "value": [1, 2, 4], "cpu_per_sweep": [1.0, 2.0, 4.0]})
    exponents = fit_exponents(scaling)
    assert exponents["exponent"].item() == pytest.approx(1)
    machine = {"processor": "any", "cores": 2, "cores_used": 2}
    text = describe(summary.reset_index(), exponents, targets, machine)
    assert "| NMF | 1 | 4.00 | 0.5500 | - | never | - | - | - |" in text


@pytest.mark.slow
def test_the_figure_is_drawn_from_the_tables_and_leaves_them_alone(tmp_path):
    committed = sorted((run.HERE / "results").iterdir())
    for path in committed:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with plt.rc_context():
        run.main(["--redraw", "--out", str(tmp_path), "--data", str(tmp_path / "nothing")])
    plt.close("all")
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in committed)
    drawn = {path.name for path in tmp_path.iterdir()} - {path.name for path in committed}
    assert drawn == {"solver.pdf", "solver.png"}


def test_a_bound_is_drawn_open_at_the_seconds_of_the_fit():
    names = ("checkpoints", "summary", "scaling", "exponents", "targets")
    tables = {name: pd.read_csv(run.HERE / "results" / f"{name}.csv") for name in names}
    sizes = {spec.name: spec.n_observed for spec in run.full_plan().problems}
    figure = draw(**tables, sizes=sizes)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "observed answers"]
    open_points = {
        (line.get_color(), seconds) for axes in panels for line in axes.get_lines()
        if line.get_markerfacecolor() == "white" for seconds in line.get_ydata()
    }  # fmt: skip
    bounds = tables["summary"].query("cpu_to_loss.isna()")
    assert len(bounds) > 12
    assert open_points == {(LOOKS[row.solver]["color"], row.fit_cpu) for row in bounds.itertuples()}
    plt.close(figure)


def test_a_run_cut_short_goes_on_and_a_failure_is_named(tmp_path, monkeypatch):
    asked = []

    def measure(solver, problem, **options):
        asked.append(solver)
        if solver == "NMF":
            raise RuntimeError("NMF on dense ended with status -9")
        point = {"cpu": 1.0, "wall": 1.0, "loss": 0.5, "objective": 1.0}
        fitted = {"fit_cpu": 1.0, "process_cpu": 2.0, "checkpoints": [point]}
        target = {"loss": 0.5, "objective": 1.0}
        return {"reference": target, "scaling": {"cpu_per_sweep": 0.1}}.get(solver, fitted)

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "save_problem", lambda spec, root: tmp_path)
    scaling = [("items", 10, SPECS[0])]
    plan = run.Plan([SPECS[0]], {"dense": 1.0}, scaling, rounds=1, minutes=0)
    bench = run.Bench(plan, tmp_path, ["LRMF", "NMF"])
    bench.run()
    assert asked == ["compile", "reference", "LRMF", "NMF", "scaling"]
    assert bench.environment["left_out"] == ["NMF on dense ended with status -9"]
    again = run.Bench(plan, tmp_path, ["LRMF", "L-BFGS"])
    vars(again).update(json.loads((tmp_path / "measured.json").read_text()))
    asked.clear()
    again.run()
    assert asked == ["compile", "L-BFGS"]
    assert [row["solver"] for row in again.runs] == ["LRMF", "L-BFGS"]


def test_cost_counts_the_processes_below_a_command_and_ends_with_its_status():
    below = "held = b'1' * 150_000_000; import time; time.sleep(1)"
    above = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}]); exit(3)"
    status, seconds, peak = cost.measure([sys.executable, "-c", above], seconds=0.05)
    assert status == 3
    assert seconds >= 1
    assert 150e6 < peak < 300e6


def test_cost_says_what_it_measured_or_why_it_could_not():
    def said(*command):
        whole = [sys.executable, "-m", "bench.cost", *command]
        done = subprocess.run(whole, cwd=run.ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    status, out, err = said("echo", "made")
    assert (status, out) == (0, "made\n")
    assert err.startswith("0 min ") and " GB: echo made" in err
    assert said("no-such-command")[0] == 1
    assert "bench.cost: no-such-command did not start" in said("no-such-command")[2]
    assert "usage" in said()[2]
