"""The command line `lrmf`: simulate, crawl, validate, fit, predict.

Exit codes: 0 done, 1 data or files cannot be used, 2 the options cannot, 130 interrupted. Outputs
appear complete or not at all, and their places are tried before the long work.
"""

import argparse
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from .files import OutputError, check_place, output

SEED = 0
_FIT_OPTIONS = {
    "rank": "--rank",
    "lineage_strength": "--lineage-strength",
    "use_features": "--features",
    "seed": "--seed",
}
_SUSPECTS = 20  # parents whose spelling is looked at
_BLOCK = 256  # models forecast between two steps of the progress bar


class UsageError(Exception):
    """Options that are not legal or do not go together."""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code; --help and malformed options raise SystemExit."""
    try:
        try:
            arguments = _parser().parse_args(argv)
            with warnings.catch_warnings():
                warnings.simplefilter("once")
                # Ctrl-C in the middle of an import leaves its file to the garbage collector.
                warnings.simplefilter("ignore", ResourceWarning)
                warnings.showwarning = _show_warning
                return _run(arguments)
        finally:
            print(end="", flush=True)
    except OSError as error:
        # Standard output: other files name themselves. Exiting would flush it and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141  # the reader has seen enough, as in `lrmf validate ... | head -1`
        return _fail(f"standard output: cannot be written ({error.strerror or error})", 1)


def _run(arguments: argparse.Namespace) -> int:
    try:
        arguments.command(arguments)
    except UsageError as error:
        return _fail(str(error), 2)
    # A ValueError, such as SnapshotError, is how the modules refuse data.
    except (OutputError, ValueError) as error:
        return _fail(str(error), 1)
    except MemoryError:
        return _fail("out of memory; use a larger machine or a smaller snapshot", 1)
    except KeyboardInterrupt as interruption:
        # If it came in an exec (of a dataclass, say), Python would still die of it at its exit;
        # a completed exec clears that mark.
        exec("")
        return _fail(str(interruption) or "interrupted, nothing was written", 130)
    return 0


def _fail(message: str, code: int) -> int:
    _say(f"error: {message}")
    return code


def _show_warning(message, *_) -> None:
    _say(f"warning: {message}")


def _say(message: str) -> None:
    print(f"lrmf: {message}", file=sys.stderr)


def _say_on_terminal(message: str) -> None:
    if sys.stderr.isatty():
        _say(message)


def _simulate(arguments: argparse.Namespace) -> None:
    from .data.snapshot import SnapshotError
    from .simulation.simulate import write_simulated

    n_models, n_items = arguments.models, arguments.items
    _say_on_terminal(f"simulating {n_models} models x {n_items} items")
    try:
        write_simulated(arguments.out, n_models=n_models, n_items=n_items, seed=arguments.seed)
    except SnapshotError:
        raise
    except ValueError as error:  # of a parameter, by name
        raise UsageError(f"--{str(error).removeprefix('n_')}") from error
    _say_on_terminal(f"wrote {arguments.out}")


def _crawl(arguments: argparse.Namespace) -> None:
    from . import hub

    options = {
        "benchmarks": arguments.benchmarks,
        "instances": arguments.instances,
        "models": _ids_in(arguments.models_from),
        "max_models": arguments.max_models,
        "client": hub.Client(say=_say_above_bar),
    }
    if arguments.dry_run:
        print(hub.estimate(**options))
        return
    resume, n_workers = arguments.resume, arguments.workers
    hub.crawl(arguments.out, **options, resume=resume, n_workers=n_workers, say=_say_above_bar)
    snapshot, lineage = _load(arguments.out)
    from .data.describe import describe

    print(describe(snapshot, lineage))
    n_failed = snapshot.provenance["n_failed_files"]
    print()
    for key, what in (("statuses", "ids asked for"), ("details_statuses", "details")):
        if counts := snapshot.provenance.get(key):
            print(f"{what}:", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
            n_failed += counts["error"]
    if n_failed:
        print(f"{n_failed:,} ids or files failed; --resume asks for them again")


def _say_above_bar(message: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"lrmf: {message}", file=sys.stderr)


def _ids_in(path: Path | None) -> list[str] | None:
    """One id a line; empty lines and those that begin with # are skipped."""
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(f"--models-from {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--models-from {path}: is not a text file, one id a line") from error
    ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        raise UsageError(f"--models-from {path}: holds no id; write one org/name a line")
    return ids


def _validate(arguments: argparse.Namespace) -> None:
    from .data.describe import describe

    print(describe(*_load(arguments.snapshot)))


def _fit(arguments: argparse.Namespace) -> None:
    _check_places(arguments, outputs=("model", "stats"))
    snapshot, lineage = _load(arguments.snapshot)
    with output(arguments.model) as model_file, output(arguments.stats) as stats_file:
        from .forecaster.saved_fit import save_fit

        model = _fitted(snapshot, lineage, arguments)
        save_fit(model_file, model)
        if stats_file:
            counts = {key: getattr(snapshot, key) for key in ("n_models", "n_items", "n_edges")}
            stats = {"snapshot": snapshot.name, **counts, "n_nodes": lineage.n_nodes}
            stats |= {"parameters": model.model_.get_params(), **model.stats_}
            text = json.dumps(stats, indent=1, default=lambda value: value.tolist())
            stats_file.write(f"{text}\n".encode())
    _say_on_terminal(f"wrote {arguments.model}; lrmf predict --model {arguments.model} uses it")


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.model and (given := _given(arguments)):
        options = ", ".join(_FIT_OPTIONS[name] for name in given)
        raise UsageError(
            f"{options}: settled by the fit in --model; leave out the one or the other"
        )
    _check_places(arguments, outputs=("out", "item_probabilities"), inputs=("model",))
    snapshot, lineage = _load(arguments.snapshot)
    matrix = arguments.item_probabilities
    with output(arguments.out) as scores_file, output(matrix) as matrix_file:
        if matrix:
            _check_space(matrix, 4 * snapshot.n_models * snapshot.n_items)
        model = (_adapted if arguments.model else _fitted)(snapshot, lineage, arguments)
        scores = _forecast(model, snapshot, matrix_file)
        text = scores.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        scores_file.write(text.encode())
    _say_on_terminal(f"wrote {arguments.out}")
    _report_isolated(scores, lineage, with_features=model.reads_cards)
    _report_misspelt_parents(scores, lineage)


def _load(path: Path) -> tuple:
    from .data.lineage import Lineage
    from .data.snapshot import load_snapshot

    snapshot = load_snapshot(path)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


def _given(arguments: argparse.Namespace) -> dict:
    """The parameters of the fit that the user chose."""
    chosen = {name: getattr(arguments, name) for name in _FIT_OPTIONS}
    return {name: value for name, value in chosen.items() if value is not None}


def _fitted(snapshot, lineage, arguments: argparse.Namespace):
    from .forecaster.forecaster import Forecaster

    _say_on_terminal(
        f"fitting {snapshot.n_models} models x {snapshot.n_items} items "
        "(the first run compiles kernels, about 20 s)"
    )
    model = Forecaster(**{"seed": SEED} | _given(arguments))
    return model.fit(snapshot.responses, lineage, items=snapshot.items, models=snapshot.models)


def _adapted(snapshot, lineage, arguments: argparse.Namespace):
    from .forecaster.saved_fit import load_fit

    model = load_fit(arguments.model, snapshot.items)
    _say_on_terminal(f"solving for {snapshot.n_models} models")
    return model.adapt(snapshot.responses, lineage, models=snapshot.models)


def _forecast(model, snapshot, matrix_file):
    """Scores of all models x benchmarks; the items' probabilities go to the file, if any."""
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    if matrix_file:
        # Rows are appended, since a memory map turns a full disk into a bus error.
        header = {"descr": "<f4", "fortran_order": False, "shape": snapshot.responses.shape}
        np.lib.format.write_array_header_1_0(matrix_file, header)
    blocks = []
    starts = range(0, snapshot.n_models, _BLOCK)
    for start in tqdm(starts, desc="forecasting", unit="block", disable=None, leave=False):
        rows = np.arange(start, min(start + _BLOCK, snapshot.n_models))
        blocks.append(model.predict_scores(rows))
        if matrix_file:
            matrix_file.write(np.ascontiguousarray(model.predict_proba(rows), "<f4").data)
    scores = pd.concat(blocks, ignore_index=True)
    model_ids = snapshot.models["model_id"].to_numpy()
    scores.insert(0, "model_id", model_ids[scores.pop("row")])
    return scores


def _report_isolated(scores, lineage, *, with_features: bool) -> None:
    """Name the models of which neither answers nor relatives say anything."""
    import numpy as np

    if not lineage.n_edges:
        _say("note: the snapshot has no lineage, so models are forecast without their relatives")
    n_observed = scores.groupby("model_id", sort=False)["n_observed"].sum()
    evaluated = np.zeros(lineage.n_nodes, dtype=bool)
    evaluated[: lineage.n_models] = n_observed > 0
    isolated = n_observed.index[lineage.hops_to(evaluated)[: lineage.n_models] < 0]
    if len(isolated):
        basis = "their features" if with_features else "item means"
        names = ", ".join(isolated[:3]) + (", ..." if len(isolated) > 3 else "")
        _say(
            f"note: {len(isolated)} of {lineage.n_models} models have neither answers nor an "
            f"evaluated relative and are forecast from {basis}: {names}"
        )


def _report_misspelt_parents(scores, lineage) -> None:
    """Name parents of models without answers that no other line mentions, but for a spelling."""
    from difflib import get_close_matches

    n_observed = scores.groupby("model_id", sort=False)["n_observed"].sum()
    known = list(n_observed.index)
    edges = lineage.edges[["parent", "child"]]
    mentions = edges.stack().value_counts()
    is_suspect = edges["child"].map(n_observed).eq(0) & ~edges["parent"].isin(known)
    is_suspect &= edges["parent"].map(mentions).eq(1)
    for parent, child in edges[is_suspect].head(_SUSPECTS).itertuples(index=False):
        for close in get_close_matches(parent, known, n=1, cutoff=0.9):
            _say(f"note: the parent {parent} of {child} is not known; did you mean {close}?")


def _check_places(arguments: argparse.Namespace, *, outputs: tuple, inputs: tuple = ()) -> None:
    """Refuse outputs that cannot be written, or that would replace an input or each other."""
    from .data.schema import DATA_FILES, MANIFEST_FILE

    taken = [arguments.snapshot / file for file in (MANIFEST_FILE, *DATA_FILES)]
    taken += [getattr(arguments, name) for name in inputs if getattr(arguments, name)]
    for name in outputs:
        if path := getattr(arguments, name):
            check_place(path)
            if path.resolve() in [other.resolve() for other in taken]:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} {path}: would replace another file of this command")
            taken.append(path)


def _check_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        needs, has = f"{n_bytes / 1e9:.1f} GB", f"{free / 1e9:.1f} GB"
        raise OutputError(f"{path}: needs {needs}, its disk has {has} left; choose another folder")


class _Parser(argparse.ArgumentParser):
    """Ends with one line instead of the whole usage, and guesses no options."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """Looks the version up when asked: that takes as long as everything else in --help."""

    def __init__(self, **options):
        super().__init__(**options, nargs=0)

    def __call__(self, parser, namespace, values, option_string=None):
        from importlib.metadata import PackageNotFoundError, version

        try:
            print("lrmf", version("lrmf"))
        except PackageNotFoundError:
            print("lrmf, not installed")
        parser.exit()


def _parser() -> _Parser:
    parser = _Parser(
        prog="lrmf",
        description="Forecast language models' benchmark scores from their family tree.",
        epilog="A snapshot is a folder of models, items, lineage and responses; see data/README.md."
        " To forecast a model of your own, add it to the models and responses and its parents to"
        " the lineage, and write the new snapshot with lrmf.save_snapshot.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _add_simulate(commands)
    _add_crawl(commands)
    _add_snapshot(_command(commands, "validate", _validate, "check a snapshot and summarise it"))
    _add_fit(commands)
    _add_predict(commands)
    return parser


def _add_simulate(commands) -> None:
    command = _command(commands, "simulate", _simulate, "write a simulated Hub as a snapshot")
    command.add_argument("out", metavar="OUT", type=Path, help="folder to create")
    for option, default in (("models", 2934), ("items", 21606), ("seed", 0)):
        what = "random seed" if option == "seed" else f"number of {option}"
        command.add_argument(
            f"--{option}",
            metavar="N",
            type=int,
            default=default,
            help=f"{what} (default: {default})",
        )


def _add_crawl(commands) -> None:
    summary = "collect the Open LLM Leaderboard and its models' lineage from the Hugging Face Hub"
    command = _command(commands, "crawl", _crawl, summary)
    command.add_argument(
        "out", metavar="OUT", type=Path, help="folder to create or bring up to date"
    )
    names = ("ifeval", "bbh", "math", "gpqa", "musr", "mmlu_pro")
    text = "benchmarks to collect (default: all; with --instances, all but mmlu_pro)"
    command.add_argument("--benchmarks", metavar="NAME", nargs="+", choices=names, help=text)
    text = "answers to single questions instead of scores: many gigabytes, see --dry-run first"
    command.add_argument("--instances", action="store_true", help=text)
    text = (
        "crawl the models in this file, one id a line, instead of the whole leaderboard; those "
        "that are not on it bring their evaluated ancestors along"
    )
    _add_file(command, "--models-from", text)
    text = "crawl only the first N models"
    whole = _number(int, 1, 10**7)
    command.add_argument("--max-models", metavar="N", type=whole, help=text)
    text = (
        "go on with an interrupted crawl, with its options, without asking again for what it has "
        "fetched"
    )
    command.add_argument("--resume", action="store_true", help=text)
    text = "say how many requests, bytes and minutes the crawl would take, and write nothing"
    command.add_argument("--dry-run", action="store_true", help=text)
    text = "requests under way at a time (default: 8)"
    command.add_argument("--workers", metavar="N", type=_number(int, 1, 64), default=8, help=text)


def _add_fit(commands) -> None:
    command = _command(commands, "fit", _fit, "fit LRMF to a snapshot and save what it learned")
    _add_snapshot(command)
    _add_file(command, "--model", "fit to write (.npz)", required=True)
    _add_file(command, "--stats", "course of the fit to write (.json)")
    _add_fit_options(command)


def _add_predict(commands) -> None:
    summary = "forecast every model of a snapshot on every benchmark"
    command = _command(commands, "predict", _predict, summary)
    _add_snapshot(command)
    columns = (
        "forecasts to write (.csv): model_id, benchmark, score (expected accuracy over the whole "
        "benchmark, observed items counted as observed), lower, upper (90%% interval), n_observed"
    )
    _add_file(command, "--out", columns, required=True)
    matrix = "matrix to write as well (.npy): expected responses, float32 (n_models, n_items)"
    _add_file(command, "--item-probabilities", matrix)
    source = "fit to use, from `lrmf fit` on the same items (default: fit this snapshot first)"
    _add_file(command, "--model", source)
    _add_fit_options(command)


def _command(commands, name: str, run: Callable, summary: str) -> _Parser:
    description = summary[0].upper() + summary[1:] + "."
    command = commands.add_parser(name, help=summary, description=description)
    command.set_defaults(command=run)
    return command


def _add_snapshot(command: _Parser) -> None:
    command.add_argument("snapshot", metavar="SNAPSHOT", type=Path, help="folder of the snapshot")


def _add_file(command: _Parser, option: str, summary: str, *, required: bool = False) -> None:
    command.add_argument(option, metavar="FILE", type=Path, required=required, help=summary)


def _add_fit_options(command: _Parser) -> None:
    options = command.add_argument_group("the fit")
    options.add_argument(
        "--rank",
        metavar="N",
        type=_number(int, 1, 1024),
        help="number of factors (default: 16, or the number of items if that is less)",
    )
    options.add_argument(
        "--lineage-strength",
        metavar="X",
        type=_number(float, 0, 1e9),
        help="how much relatives are alike; 0 is plain matrix factorization "
        "(default: chosen by cross-validation)",
    )
    options.add_argument(
        "--features",
        dest="use_features",
        action=argparse.BooleanOptionalAction,
        help="use size, architecture, type etc. of the models, or do without "
        "(default: as far as cross-validation says that they help)",
    )
    options.add_argument(
        "--seed",
        metavar="N",
        type=_number(int, 0, 2**63 - 1),
        help=f"random seed (default: {SEED})",
    )


def _number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """Parser of a number in a range."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} from {low} to {high:g}, got {text!r}")
        return value

    return parse
