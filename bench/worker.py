"""One measurement in a process of its own; `bench.run` calls it."""

import argparse
import json
import os
import warnings
from time import perf_counter, process_time

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from lrmf import LRMF

from .objective import log_loss, logits
from .peers import CORES, SOLVERS, warm_up
from .problems import Spec, draw_problem, load_problem
from .watch import Watch

SWEEPS = 4  # more of the longer of two fits, whose difference is the cost of sweeps


def main(arguments=None):
    """Write a report as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("solver")
    parser.add_argument("problem", help="a folder; for scaling a Spec as JSON")
    parser.add_argument("out")
    parser.add_argument("--bound", type=float, default=600.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--objective", type=float, default=0.0)
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    special = {"compile": compilation, "reference": reference, "scaling": sweep_cost}
    report = special.get(options.solver, solve)(options) | {"load": load}
    with open(options.out, "w") as file:
        json.dump(report, file)


def solve(options):
    """Checkpoints and whole-fit times."""
    problem = load_problem(options.problem)
    watch = Watch(
        problem,
        bound=options.bound,
        target_loss=options.loss,
        target_objective=options.objective,
    )
    steps = SOLVERS[options.solver](problem, watch)
    report = next(steps)
    if "fit_cpu" not in report:
        for _ in steps:
            pass
        last = watch.checkpoints[-1]
        report = {"fit_cpu": last["cpu"], "fit_wall": last["wall"]}
    for _ in steps:
        pass
    return report | {"checkpoints": watch.checkpoints, "process_cpu": process_time()}


def compilation(options):
    """Seconds that the first fits, dense and sparse, take with an empty cache."""
    began = process_time(), perf_counter()
    for density in (1.0, 0.05):
        warm_up(density, {"rank": 8, "n_threads": CORES})
    return {"cpu": process_time() - began[0], "wall": perf_counter() - began[1]}


def reference(options):
    """The best objective known: LRMF until nothing moves; and the held-out loss where it stops."""
    problem = load_problem(options.problem)
    parameters = problem.spec.penalties | {"rank": problem.spec.rank, "n_threads": CORES}
    model = LRMF(**parameters).fit(problem.responses, problem.lineage)
    items = np.column_stack([model.item_factors_, model.item_intercept_])
    loss = log_loss(logits(model.states_, items, problem.test), problem.test.answers)
    truth = problem.test
    chance = np.log(np.where(truth.answers == 1, truth.probability, 1 - truth.probability))
    integrated = np.nan
    if problem.responses.size < 10**8:
        integrated = forecast_loss(model, problem.test)
    best = quietly(LRMF(**parameters | {"max_sweeps": 60, "tolerance": 1e-7}), problem)
    objective = min(best.stats_["objective"])
    losses = {"loss": loss, "truth": -chance.mean(), "integrated_loss": integrated}
    return {name: float(loss) for name, loss in losses.items()} | {"objective": float(objective)}


def forecast_loss(model, cells, *, block=256):
    """Held-out log-loss of `predict_proba`, which integrates over what a fit leaves uncertain."""
    probability = np.empty(cells.rows.size)
    for top in range(0, model.n_models_, block):
        here = (cells.rows >= top) & (cells.rows < top + block)
        rows = np.arange(top, min(top + block, model.n_models_))
        forecast = model.predict_proba(rows)
        probability[here] = forecast[cells.rows[here] - top, cells.columns[here]]
    return -np.log(np.where(cells.answers == 1, probability, 1 - probability)).mean()


def sweep_cost(options):
    """CPU and wall seconds per sweep: two fits' difference, median of three pairs."""
    spec = Spec(**json.loads(options.problem))
    problem = draw_problem(spec)
    parameters = spec.penalties | {"rank": spec.rank, "n_threads": CORES, "tolerance": 0.0}
    warm_up(spec.density, parameters)
    costs = []
    for _ in range(3):
        marks = [(process_time(), perf_counter())]
        for sweeps in (1, 1 + SWEEPS):
            quietly(LRMF(**parameters | {"max_sweeps": sweeps}), problem)
            marks.append((process_time(), perf_counter()))
        (cpu, wall), (more_cpu, more_wall) = np.diff(marks, axis=0)
        costs.append(((more_cpu - cpu) / SWEEPS, (more_wall - wall) / SWEEPS))
    cpu, wall = np.median(costs, axis=0)
    return {"cpu_per_sweep": float(cpu), "wall_per_sweep": float(wall)}


def quietly(model, problem):
    """Fit without a warning that the sweeps asked for do not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(problem.responses, problem.lineage)


if __name__ == "__main__":
    main()
