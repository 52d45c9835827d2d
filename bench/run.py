"""Measure the solver of LRMF against its peers: python -m bench.run [--quick] (or make bench).

Every measurement is a process of its own (`bench.worker`) on matrices drawn once; rounds over all
solvers and problems are interleaved. Results: bench/results (see bench/README.md).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

from lrmf.files import write_text

from .figure import draw_figure
from .peers import CORES, SOLVERS
from .problems import Spec, save_problem
from .report import write_report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NEEDS = {
    "Adam, full batch": "torch",
    "Adam, mini-batch": "torch",
    "cmfrec": "cmfrec",
    "implicit": "implicit",
}
BLAS_THREADS = {"TruncatedSVD": CORES, "NMF": CORES}  # the others thread by themselves
SLACK = 5e-4  # nats of held-out log-loss that count as equal
AGAIN_BELOW = 40.0  # CPU seconds; a longer run is not repeated


@dataclass(frozen=True)
class Plan:
    """What to measure, with bounds in CPU seconds per problem."""

    problems: list
    bounds: dict
    scaling: list  # (axis, what varies, Spec)
    rounds: int
    minutes: float


def full_plan():
    paper = {"n_models": 2_934, "n_items": 21_606}
    problems = [
        Spec("full", **paper),
        Spec("sparse", **paper, density=0.05),
        Spec("large", n_models=100_000, n_items=21_606, density=0.01),
    ]
    bounds = {"full": 100.0, "sparse": 40.0, "large": 40.0}
    scaling = [("models", n, cost_spec(n, 21_606, 0.01)) for n in (10_000, 20_000, 50_000, 100_000)]
    for density, kind in ((1.0, "full"), (0.05, "5%")):
        for m in (2_700, 5_400, 10_800, 21_606):
            scaling.append((f"items, {kind}", m, cost_spec(2_934, m, density)))
        for rank in (4, 8, 16, 32, 64):
            scaling.append((f"rank, {kind}", rank, cost_spec(2_934, 21_606, density, rank)))
    for kind, densities in (
        ("sparse", (0.01, 0.02, 0.04, 0.079)),
        ("dense", (0.081, 0.25, 0.5, 1.0)),
    ):
        for density in densities:
            scaling.append((f"density, {kind}", density, cost_spec(2_934, 21_606, density)))
    return Plan(problems, bounds, scaling, rounds=3, minutes=24)


def cost_spec(n_models, n_items, density, rank=8):
    """A problem whose sweeps are timed, next to nothing being held out."""
    return Spec("", n_models, n_items, density, rank, n_test=500, n_validation=500)


def quick_plan():
    held = {"n_test": 20_000, "n_validation": 10_000}
    problems = [
        Spec("full", 600, 4_000, **held),
        Spec("sparse", 1_500, 4_000, 0.05, **held),
    ]
    scaling = [("models", n, cost_spec(n, 4_000, 0.05)) for n in (1_000, 2_000, 4_000)]
    return Plan(problems, {"full": 2.0, "sparse": 2.0}, scaling, rounds=1, minutes=1.5)


def main(arguments=None):
    """Run the plan and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small problems, about a minute")
    parser.add_argument("--out", type=Path, help="results and figure; default: see bench/README.md")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "bench", help="matrices")
    parser.add_argument("--redraw", action="store_true", help="the figure, nothing measured")
    parser.add_argument("--resume", action="store_true", help="go on with a run cut short")
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    options = parser.parse_args(arguments)
    plan = quick_plan() if options.quick else full_plan()
    data = options.data / ("quick" if options.quick else "paper")
    out = options.out or (data / "results" if options.quick else HERE / "results")
    figures = out if options.out or options.quick else ROOT / "figures" / "bench"
    if not options.redraw:
        bench = Bench(plan, data, options.solvers)
        if options.resume:
            vars(bench).update(json.loads((data / "measured.json").read_text()))
        bench.run()
        write_report(bench, out)
    draw_figure(out, {spec.name: spec.n_observed for spec in plan.problems}, figures)
    print(f"Written: {os.path.relpath(figures if options.redraw else out)}")


class Bench:
    """The measurements of a plan, as they come in.

    Attributes
    ----------
    runs, checkpoints, scaling : list of dict
    targets : dict of problem, what `bench.worker.reference` reports
    environment : dict
    """

    def __init__(self, plan, data, solvers):
        self.plan, self.data = plan, data
        missing = {peer for peer in solvers if peer in NEEDS and not find_spec(NEEDS[peer])}
        self.solvers = [solver for solver in solvers if solver not in missing]
        for peer in sorted(missing):
            print(f"skipped: {peer} ({NEEDS[peer]} is not installed)")
        self.runs, self.checkpoints, self.scaling, self.targets = [], [], [], {}
        self.slack = SLACK
        self.environment = describe_machine() | {"skipped": sorted(missing), "left_out": []}
        self._until = monotonic() + 60 * plan.minutes

    def run(self):
        """All rounds, then the scaling."""
        measure("compile", "-", bound=600)  # fills the cache, if need be
        if self.plan.rounds > 1 and "compile_cpu" not in self.environment:
            with tempfile.TemporaryDirectory() as empty:
                report = measure("compile", "-", bound=600, NUMBA_CACHE_DIR=empty)
            self.environment |= {"compile_cpu": report["cpu"], "compile_wall": report["wall"]}
        self._folders = {s.name: save_problem(s, self.data) for s in self.plan.problems}
        for name in [name for name in self._folders if name not in self.targets]:
            folder = self._folders[name]
            self.targets[name] = measure("reference", folder, bound=900)
        for number in range(self.plan.rounds):
            for spec in self.plan.problems:
                for solver in self.solvers:
                    self._measure(number, spec.name, solver)
            self._measure_scaling(number)

    def _save(self):
        """Keep what is measured so far: --resume goes on with a run cut short."""
        names = ("runs", "checkpoints", "scaling", "targets", "environment")
        measured = json.dumps({name: getattr(self, name) for name in names})
        write_text(self.data / "measured.json", measured)

    def _measure(self, number, name, solver):
        former = [r for r in self.runs if (r["problem"], r["solver"]) == (name, solver)]
        if any(run["round"] == number or run["fit_cpu"] > AGAIN_BELOW for run in former):
            return
        if number and monotonic() > self._until:
            return
        target, bound = self.targets[name], self.plan.bounds[name]
        try:
            report = measure(
                solver,
                self._folders[name],
                bound=bound,
                loss=target["loss"] + SLACK,
                objective=target["objective"] * (1 + 5e-4),
            )
        except RuntimeError as error:
            print(f"left out: {error}", flush=True)
            self.environment["left_out"].append(str(error))
            return
        row = {"round": number, "problem": name, "solver": solver}
        self.checkpoints += [row | point for point in report.pop("checkpoints", [])]
        self.runs.append(row | {"bound": bound} | report)
        print(f"round {number}: {name}, {solver}: {report['process_cpu']:.1f} s CPU", flush=True)
        self._save()

    def _measure_scaling(self, number):
        done = {(row["round"], row["axis"], row["value"]) for row in self.scaling}
        for axis, value, spec in self.plan.scaling:
            if (number, axis, value) in done:
                continue
            if number and monotonic() > self._until:
                return
            report = measure("scaling", json.dumps(asdict(spec)), bound=600)
            self.scaling.append({"round": number, "axis": axis, "value": value} | report)
            self._save()


def measure(solver, problem, *, bound, loss=0.0, objective=0.0, **variables):
    """What a `bench.worker` reports, and its memory as seen from outside."""
    threads = {"OPENBLAS": BLAS_THREADS.get(solver, 1), "MKL": CORES, "OMP": CORES, "NUMBA": CORES}
    environment = os.environ | {f"{name}_NUM_THREADS": str(n) for name, n in threads.items()}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE"} | variables
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "bench.worker", solver, str(problem), str(out)]
        command += ["--bound", str(bound), "--loss", str(loss), "--objective", str(objective)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        peak, deadline = 0.0, monotonic() + 4 * bound + 300
        while process.poll() is None:
            peak = max(peak, own_megabytes(process.pid))
            if monotonic() > deadline:
                process.kill()
            sleep(0.02)
        if process.returncode:
            name = Path(problem).name
            raise RuntimeError(f"{solver} on {name} ended with status {process.returncode}")
        return json.loads(out.read_text()) | {"peak_mb": peak}


def own_megabytes(pid):
    """Resident memory that is not backed by a file, where Linux tells."""
    try:
        with open(f"/proc/{pid}/status") as status:
            lines = [line.split() for line in status if line.startswith("RssAnon")]
    except OSError:
        return 0.0
    return int(lines[0][1]) * 1.024e-3 if lines else 0.0


def describe_machine():
    """Processor, cores and versions: what the numbers depend on."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((x.split(":")[1].strip() for x in lines if "model name" in x), processor)
    packages = ["numpy", "scipy", "numba", "scikit-learn", *sorted(set(NEEDS.values()))]
    versions = {p: version(p) for p in packages if find_spec(p.replace("scikit-learn", "sklearn"))}
    machine = {"processor": processor, "cores": os.cpu_count(), "cores_used": CORES}
    return machine | {"python": platform.python_version(), "versions": versions}


if __name__ == "__main__":
    main()
