"""From measurements to tables."""

import json

import numpy as np
import pandas as pd

from lrmf.files import write_text

WITHIN = 1e-3  # of the best objective known, relatively


def write_report(bench, folder):
    """All CSV files, summary.md and environment.json of a `bench.run.Bench`, after its run."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = pd.DataFrame(bench.checkpoints)
    targets = find_targets(bench.targets, checkpoints, slack=bench.slack)
    runs = reach_targets(pd.DataFrame(bench.runs), checkpoints, targets)
    summary = summarise(runs, targets)
    scaling = pd.DataFrame(bench.scaling)
    exponents = fit_exponents(scaling)
    frames = {"checkpoints": checkpoints, "runs": runs, "summary": summary, "scaling": scaling}
    frames |= {"exponents": exponents, "targets": targets.reset_index()}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    write_text(folder / "environment.json", json.dumps(bench.environment, indent=2) + "\n")
    write_text(folder / "summary.md", describe(summary, exponents, targets, bench.environment))


def find_targets(references, checkpoints, *, slack):
    """By problem: log-loss of LRMF, log-loss to reach, best objective known."""
    targets = (
        pd.DataFrame(references).T[["truth", "loss", "integrated_loss", "objective"]].astype(float)
    )
    best = checkpoints.groupby("problem")["objective"].min()
    targets["objective"] = targets["objective"].combine(best, np.fmin)
    targets["loss_to_reach"] = targets["loss"] + slack
    targets["objective_to_reach"] = targets["objective"] * (1 + WITHIN)
    return targets.rename_axis("problem")


def reach_targets(runs, checkpoints, targets):
    """Add to each run its last log-loss and the seconds until either target (or NaN)."""
    rows = []
    for key, points in checkpoints.groupby(["round", "problem", "solver"], sort=False):
        target = targets.loc[key[1]]
        row = dict(zip(("round", "problem", "solver"), key, strict=True))
        row |= {"loss": points["loss"].iloc[-1], "objective": points["objective"].iloc[-1]}
        for name in ("loss", "objective"):
            reached = points[points[name] <= target[f"{name}_to_reach"]]
            for clock in ("cpu", "wall"):
                row[f"{clock}_to_{name}"] = reached[clock].iloc[0] if len(reached) else np.nan
        rows.append(row)
    return runs.merge(pd.DataFrame(rows), on=["round", "problem", "solver"])


def summarise(runs, targets):
    """Medians over rounds and ratios to LRMF in the same round, with their spread."""
    ours = runs[runs["solver"] == "LRMF"].set_index(["problem", "round"])
    rows = []
    for (problem, solver), group in runs.groupby(["problem", "solver"], sort=False):
        row = {"problem": problem, "solver": solver, "n_runs": len(group)}
        columns = ["fit_cpu", "fit_wall", "loss", "cpu_to_loss", "cpu_to_objective", "peak_mb"]
        row |= group[[*columns, "load"]].median().to_dict()
        row |= {"cpu_min": group["fit_cpu"].min(), "cpu_max": group["fit_cpu"].max()}
        row["excess"] = group["objective"].median() / targets.loc[problem, "objective"] - 1
        for name in ("cpu_to_loss", "cpu_to_objective"):
            # What was not reached took longer than the run.
            longest = group[name].fillna(group["fit_cpu"])
            base = ours.loc[problem].loc[group["round"], name]
            row[f"ratio_{name[7:]}"] = np.median(longest.to_numpy() / base.to_numpy())
        base = ours.loc[problem].loc[group["round"], "fit_cpu"]
        row["ratio_fit"] = np.median(group["fit_cpu"].to_numpy() / base.to_numpy())
        rows.append(row)
    return pd.DataFrame(rows)


def fit_exponents(scaling):
    """Slope of log CPU seconds per sweep over log value, by axis."""
    rows = []
    for axis, points in scaling.groupby("axis", sort=False):
        median = points.groupby("value")["cpu_per_sweep"].median()
        x, y = np.log(median.index.to_numpy(float)), np.log(median.to_numpy())
        slope = np.polyfit(x, y, 1)[0]
        ends = {"first": median.index[0], "last": median.index[-1]}
        rows.append({"axis": axis, "exponent": slope, "last_step": np.diff(y)[-1] / np.diff(x)[-1]}
                    | ends)  # fmt: skip
    return pd.DataFrame(rows)


def describe(summary, exponents, targets, environment):
    """The summary as Markdown."""
    lines = [f"{environment['processor']}, {environment['cores_used']} of {environment['cores']} "
             f"cores; compilation, once and not counted: "
        f"{environment.get('compile_cpu', np.nan):.0f} s CPU."]  # fmt: skip
    for problem, rows in summary.groupby("problem", sort=False):
        target = targets.loc[problem]
        integrated = f"; LRMF.predict_proba {target['integrated_loss']:.4f}"
        integrated = integrated if np.isfinite(target["integrated_loss"]) else ""
        lines += ["", f"**{problem}**: held-out log-loss of the truth {target['truth']:.4f}, "
                  f"to reach {target['loss_to_reach']:.4f}{integrated}", ""]  # fmt: skip
        lines.append("| solver | runs | CPU s, fit | held-out log-loss | excess objective | CPU s "
                     "to the log-loss | ratio | CPU s to 1e-3 of the optimum | ratio | peak MB "
                     "| load |")  # fmt: skip
        lines.append("|" + "---|" * 11)
        lines += [describe_row(row) for row in rows.to_dict("records")]
    lines += ["", "| cost of a sweep against | from | to | exponent | at the last step |"]
    lines.append("|" + "---|" * 5)
    for row in exponents.to_dict("records"):
        lines.append(f"| {row['axis']} | {row['first']:g} | {row['last']:g} "
                     f"| {row['exponent']:.2f} | {row['last_step']:.2f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def describe_row(row):
    """One solver's line in the Markdown table."""
    spread = f" ({row['cpu_min']:.2f} to {row['cpu_max']:.2f})" if row["n_runs"] > 1 else ""
    cells = [row["solver"], f"{row['n_runs']}", f"{row['fit_cpu']:.2f}{spread}"]
    cells.append(f"{row['loss']:.4f}")
    same = not np.isnan(row["excess"])
    cells.append(f"{max(row['excess'], 0):.0e}" if same else "-")
    for name in ("loss", "objective"):
        if name == "objective" and not same:
            cells += ["-", "-"]
        elif np.isnan(row[f"cpu_to_{name}"]):
            never = f"> {row['fit_cpu']:.0f}" if same else "never"
            bound = f"> {row[f'ratio_{name}']:.3g}" if same else "-"
            cells += [never, "-" if np.isnan(row[f"ratio_{name}"]) else bound]
        else:
            cells += [f"{row[f'cpu_to_{name}']:.2f}", f"{row[f'ratio_{name}']:.3g}"]
    cells += [f"{row['peak_mb']:.0f}", f"{row['load']:.1f}"]
    return "| " + " | ".join(cells) + " |"
