"""The command line `lrmf`: ask, next, plan, explore, simulate, crawl, import, fit, predict.

Exit codes: 0 done, 1 data or files cannot be used, 2 the options cannot, 130 interrupted. Outputs
appear complete or not at all, and their places are tried before the long work.
"""

import io
import json
import math
import os
import re
import signal
import sys
import warnings
from contextlib import redirect_stdout
from functools import partial, reduce
from pathlib import Path

import click

from .files import OutputError, check_place, check_space, output

SEED = 0
_MOST_LISTED = 20  # files that could not be read


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # What would go to a closed stream must not land in other files.
    sys.stdout, sys.stderr = (
        stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr)
    )
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters of names
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once")
            # Ctrl-C in the middle of an import leaves its file to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
            # Commands print when their work is done, so nothing is lost by printing it here, where
            # a failure to print is told from a failure of the command.
            with redirect_stdout(io.StringIO()) as printed:
                code = _run(sys.argv[1:] if argv is None else argv)
        print(printed.getvalue(), end="", flush=True)
        return code
    except OSError as error:
        # Exiting would flush standard output and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141  # the reader has seen enough, as in `lrmf validate ... | head -1`
        return _fail(f"standard output: cannot be written ({error.strerror or error})", 1)


def _run(argv: list[str]) -> int:
    defaults = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, default in defaults.items():
            if default is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, signal.default_int_handler)
        # `program.main` would turn errors into messages, and Ctrl-C into an exit, of its own.
        with program.make_context("lrmf", list(argv)) as context:
            program.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        # An option at the end without its value has no context.
        command = error.ctx.command_path if error.ctx else f"lrmf {argv[0]}"
        return _fail(f"{message}; see {command} --help", 2)
    # A ValueError, such as SnapshotError, is how the modules refuse data.
    except (OutputError, OSError, ValueError) as error:
        return _fail(str(error), 1)
    except MemoryError:
        return _fail("out of memory; use a larger machine or a smaller snapshot", 1)
    except KeyboardInterrupt as interruption:
        # If it came in an exec (of a dataclass, say), Python would still die of it at its exit;
        # a completed exec clears that mark.
        exec("")
        return _fail(str(interruption) or "interrupted, nothing was written", 130)
    finally:
        for number, default in defaults.items():
            signal.signal(number, default)
    return 0


def _fail(message: str, code: int) -> int:
    _say(f"error: {message}")
    return code


def _say(message: str) -> None:
    print(f"lrmf: {message}", file=sys.stderr)


def _say_on_terminal(message: str) -> None:
    if sys.stderr.isatty():
        _say(message)


# ---- options


class _Command(click.Command):
    """A command whose repeatable options also take several values after one name."""

    def parse_args(self, context, args):
        several = {p.opts[0] for p in self.params if getattr(p, "multiple", False)}
        expanded, option = [], None
        for argument in args:
            if argument.startswith("-"):
                name = argument.partition("=")[0]
                option = name if name in several else None
            elif option and expanded[-1] != option:
                expanded.append(option)
            expanded.append(argument)
        context.allow_extra_args = True
        if rest := super().parse_args(context, expanded):
            context.fail(f"{rest[0]!r} belongs to no option; put values with spaces in quotes")
        return rest


class _Number(click.FloatRange):
    """A number in a range, which NaN is not."""

    name = "number"

    def convert(self, value, parameter, context):
        number = super().convert(value, parameter, context)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", parameter, context)
        return number


def _show_version(context: click.Context, _, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import distributions

        installed = [package.version for package in distributions(name="lrmf")]
        print("lrmf", installed[0] if installed else "(not installed)")
        context.exit()


def _ids_in(_, __, path: Path | None) -> list[str] | None:
    """One id a line; empty lines and what follows # are skipped."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
        lines = content.decode(json.detect_encoding(content)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "is not a text file, one id a line")
        raise click.BadParameter(f"{path}: {reason}") from error
    # A # within an id is that of a link.
    ids = [re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in lines]
    if not (ids := list(filter(None, ids))):
        raise click.BadParameter(f"{path}: holds no id; write one org/name a line")
    return ids


_POSITIVE = _Number(0, 1e9, min_open=True)


def _ids(_, __, texts: tuple[str, ...]) -> list[str]:
    """Ids between spaces, commas or both."""
    given = [named for text in texts if (named := text.strip(" ,"))]
    ids = [part.strip() for text in given for part in text.split(",")]
    if not all(ids) or (texts and not ids):
        raise click.BadParameter(f"{','.join(texts)!r} names no model between two commas")
    return ids


def _benchmarks(_, __, texts: tuple[str, ...]) -> list[str] | None:
    """Names between commas, None without any."""
    names = [name for text in texts for part in text.split(",") if (name := part.strip())]
    if texts and not names:
        raise click.BadParameter("names no benchmark")
    return names or None


def _known_scores(_, __, pairs: tuple) -> dict[str, float]:
    """Scores in [0, 1] by benchmark, from BENCHMARK=POINTS."""
    scores = {}
    for pair in pairs:
        name, _, text = pair.rstrip(" ,").rpartition("=")
        try:
            points = float(text)
        except ValueError:
            points = math.nan
        if not name or not 0 <= points <= 100:
            raise click.BadParameter(f"{pair!r} is no BENCHMARK=POINTS with 0 to 100 points")
        name = name.strip()
        if scores.get(name, points / 100) != points / 100:
            raise click.BadParameter(f"{name} has two scores; give one")
        scores[name] = points / 100
    return scores


def _chosen(_, __, texts: tuple[str, ...]) -> list[str] | None:
    """Names between spaces or commas, each a benchmark of the leaderboard."""
    from .data.benchmarks import BENCHMARKS

    names = " ".join(texts).replace(",", " ").split()
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(BENCHMARKS)}")
    if texts and not names:
        raise click.BadParameter("names no benchmark")
    return names or None


_PATH = click.Path(path_type=Path)
_file = partial(click.option, type=_PATH)
_snapshot = click.argument("snapshot", type=_PATH)
_saved_fit = _file("--model", required=True, help="fit to use, from `lrmf fit`")
_saved_or_own_fit = _file(
    "--model",
    show_default="fit this snapshot first",
    help="fit to use, from `lrmf fit` on the same items",
)
_FIT_OPTIONS = (
    click.option("--rank", type=click.IntRange(1, 1024), show_default="16", help="factors at most"),
    click.option(
        "--lineage-strength",
        type=_Number(0, 1e9),
        show_default="10 for answers, 3 for proportions",
        help="how alike relatives are where the items are fitted; 0 is plain factorization",
    ),
    click.option(
        "--cards/--no-cards",
        "use_cards",
        default=None,
        show_default="cards",
        help="use size, architecture, type etc. of the models, or do without",
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**63 - 1), show_default=str(SEED), help="random seed"
    ),
)


def _with(options):
    """Decorator that adds several options to a command."""
    return lambda command: reduce(lambda so_far, option: option(so_far), options[::-1], command)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    no_args_is_help=False,
    help="\b\nlrmf ask --model fit.npz --parents org/a,org/b --name me/x-8b\n\n"
    "How good will a model be? Its benchmark scores, forecast from its family tree, size and name "
    "before anyone has evaluated it, and from a few answers if there are any.",
    epilog="lrmf ask forecasts a model of your own, and lrmf next says what to ask it first. To "
    "try them on simulated models: lrmf simulate demo --models 500 --items 2000; lrmf fit demo "
    "--model fit.npz. A snapshot such as demo is a folder of models, items, lineage and responses; "
    "see data/README.md.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def program() -> None:
    """Forecast language models from their family tree; the help is above, with its layout."""


program.command_class = _Command


# ---- commands


@program.command("simulate")
@click.argument("out", type=_PATH)
@click.option("--models", "n_models", default=2934, help="number of models")
@click.option("--items", "n_items", default=21606, help="number of items")
@click.option("--seed", default=SEED, help="random seed")
def simulate_hub(out: Path, **sizes) -> None:
    """Write a simulated Hub as a snapshot."""
    from .data.snapshot import SnapshotError
    from .simulation.simulate import write_simulated

    _say_on_terminal("simulating {n_models} models x {n_items} items".format_map(sizes))
    try:
        write_simulated(out, **sizes)
    except SnapshotError:
        raise
    except ValueError as error:  # of a parameter, by name
        raise click.UsageError(f"--{str(error).removeprefix('n_')}") from error
    _say_on_terminal(f"wrote {out}")


@program.command()
@click.argument("out", type=_PATH)
@click.option(
    "--source",
    type=click.Choice(["leaderboard", "community"]),
    default="leaderboard",
    help="the Open LLM Leaderboard v2, or Community Evals: results that models state on the Hub",
)
@click.option(
    "--datasets",
    multiple=True,
    metavar="ID...",
    show_default="the Hub's official ones",
    help="benchmark datasets whose Community Evals to collect",
)
@_file("--lineage-of", help="snapshot to add cards and family trees to, instead of new scores")
@click.option(
    "--benchmarks",
    multiple=True,
    callback=_chosen,
    metavar="NAME...",
    show_default="all; with --instances, all but mmlu_pro",
    help="benchmarks to collect",
)
@click.option("--instances", is_flag=True, help="single answers: many gigabytes, see --dry-run")
@_file(
    "--models-from",
    "models",
    callback=_ids_in,
    help="crawl the models in this file, one id a line, instead of the whole leaderboard; those "
    "that are not on it bring their evaluated ancestors along",
)
@click.option("--max-models", type=click.IntRange(1, 10**7), help="crawl only the first models")
@click.option("--resume", is_flag=True, help="go on with an interrupted crawl, with its options")
@click.option("--dry-run", is_flag=True, help="estimate requests, bytes, minutes; write nothing")
@click.option("--workers", type=click.IntRange(1, 64), default=8, help="requests at a time")
def crawl(out: Path, resume: bool, dry_run: bool, workers: int, **options) -> None:
    """Collect scores and lineage, or the lineage of a snapshot, from the Hugging Face Hub."""
    try:
        from . import hub
    except ValueError as error:  # the client reads its settings as it is imported
        given = " or ".join(sorted(name for name in os.environ if name.startswith("HF_")))
        raise ValueError(f"{given} cannot be read ({error}); correct or unset it") from error

    options["datasets"] = list(options["datasets"]) or None
    _check_source(dry_run=dry_run, **options)
    options["client"] = hub.Client(say=_say_above_bar)
    if dry_run:
        for name in ("source", "datasets", "lineage_of"):
            del options[name]
        print(hub.estimate(**options))
        return
    hub.crawl(out, **options, resume=resume, n_workers=workers, say=_say_above_bar)
    snapshot = _describe(out)
    print()
    if n_scores := snapshot.provenance.get("n_scores"):
        n_used = snapshot.provenance["n_scores_used"]
        print(f"scores: {n_used:,} of {n_scores:,} used; score_sources.parquet says of each why")
    n_again = snapshot.provenance["n_failed_files"]
    for key, what in (("statuses", "ids asked for"), ("details_statuses", "details")):
        if counts := snapshot.provenance.get(key):
            print(f"{what}:", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
            n_again += counts["error"]
    unread = hub.unread_files(out)
    for line in unread[:_MOST_LISTED]:
        print(f"not read: {line}")
    if rest := len(unread[_MOST_LISTED:]):
        print(f"not read: {rest:,} more files, see {out / hub.STATUS_FILE}")
    if n_again:
        print(f"{n_again:,} ids or files failed; --resume asks for them again")


def _check_source(*, source, lineage_of, **options) -> None:
    """Refuse options that say nothing about the source of the scores."""
    if lineage_of:
        options["source"] = source == "community"
        unfit, what = options.keys(), "--lineage-of keeps the scores of its snapshot"
    elif source == "community":
        unfit = {"benchmarks", "instances", "dry_run"}
        what = "--source community is chosen by --datasets and --models-from"
    else:
        unfit, what = {"datasets"}, "--datasets belongs to --source community"
    if unfit := [name for name, value in options.items() if value and name in unfit]:
        raise click.UsageError(f"{what}; leave out --{unfit[0].replace('_', '-')}")


@program.command("import")
@click.argument("source", type=click.Choice(["lm-eval", "every-eval-ever", "mteb", "atlas"]))
@click.argument("files", nargs=-1, required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="snapshot to create")
@click.option(
    "--proportions",
    is_flag=True,
    help="take scores where files hold scores and single answers; without it answers come first",
)
def import_(source: str, files: tuple[Path, ...], out: Path, proportions: bool) -> None:
    """Make a snapshot of result files: files, folders and archives (see data/README.md)."""
    from .importers import import_files

    left_out = import_files(source, files, out, proportions=proportions)[1]
    _describe(out)
    for place, reason in left_out:
        _say(f"left out: {place}: {reason}")


def _say_above_bar(message: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"lrmf: {message}", file=sys.stderr)


@program.command()
@_snapshot
def validate(snapshot: Path) -> None:
    """Check a snapshot and summarise it."""
    _describe(snapshot)


@program.command()
@_snapshot
@_file("--model", required=True, help="fit to write (.npz)")
@_file("--stats", help="course of the fit to write (.json)")
@_with(_FIT_OPTIONS)
def fit(snapshot: Path, model: Path, stats: Path | None, **parameters) -> None:
    """Fit the Forecaster to a snapshot and save what it learned."""
    _check_places({"--model": model, "--stats": stats}, _files_of(snapshot))
    data, lineage = _load(snapshot)
    with output(model) as model_file, output(stats) as stats_file:
        from .forecaster.saved_fit import save_fit

        fitted = _fitted(data, lineage, parameters)
        save_fit(model_file, fitted)
        if stats_file:
            counts = {key: getattr(data, key) for key in ("n_models", "n_items", "n_edges")}
            content = {"snapshot": data.name, **counts, "n_nodes": lineage.n_nodes}
            content |= {"parameters": fitted.model_.get_params(), **fitted.stats_}
            text = json.dumps(content, indent=1, default=lambda value: value.tolist())
            stats_file.write(f"{text}\n".encode())
    _say_on_terminal(f"wrote {model}; lrmf predict --model {model} uses it")


@program.command()
@_snapshot
@_file(
    "--out",
    required=True,
    help="forecasts to write (.csv): model_id, benchmark, score (expected accuracy over the whole "
    "benchmark, observed items counted as observed), lower, upper (90% interval), n_observed",
)
@_file(
    "--item-probabilities",
    help="matrix to write as well (.npy): expected responses, float32 (n_models, n_items)",
)
@_saved_or_own_fit
@_with(_FIT_OPTIONS)
def predict(snapshot: Path, out: Path, item_probabilities, model, **parameters) -> None:
    """Forecast every model of a snapshot on every benchmark."""
    if model and (chosen := [name for name, value in parameters.items() if value is not None]):
        names = ", ".join(f"--{name.removeprefix('use_').replace('_', '-')}" for name in chosen)
        raise click.UsageError(f"{names}: settled by the fit in --model; leave one of them out")
    outputs = {"--out": out, "--item-probabilities": item_probabilities}
    _check_places(outputs, [*_files_of(snapshot), model])
    data, lineage = _load(snapshot)
    from .forecaster.export import forecast_notes, forecast_snapshot

    with output(out) as scores_file, output(item_probabilities) as matrix_file:
        if matrix_file:
            check_space(item_probabilities, 4 * data.n_models * data.n_items)
        if model:
            fitted = _loaded(model, data).adapt(data.responses, lineage, models=data.models)
        else:
            fitted = _fitted(data, lineage, parameters)
        scores = forecast_snapshot(fitted, data, matrix_file)
        text = scores.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        scores_file.write(text.encode())
    _say_on_terminal(f"wrote {out}")
    for note in forecast_notes(scores, lineage, fitted):
        _say(f"note: {note}")


@program.command()
@_saved_fit
@click.option(
    "--from",
    "candidates",
    multiple=True,
    callback=_ids,
    metavar="ID,ID,...",
    help="evaluated models to merge, by id or URL",
)
@click.option(
    "--top", type=click.IntRange(2, 2000), show_default="200", help="or so many of the best ones"
)
@click.option("--parents", "n_parents", type=click.IntRange(2, 3), default=2, help="of a merge")
@click.option("--size", type=_POSITIVE, help="of models, in billions")
@click.option("--objective", default="mean", help="benchmark to rank by, or the mean of all")
@_file("--out", help="plans to write as well (.csv), scores as fractions")
def plan(model: Path, candidates, top, out: Path | None, **options) -> None:
    """Rank merges of evaluated models by their expected score."""
    if candidates and top:
        raise click.UsageError("--from and --top: name models or count them, not both")
    _check_places({"--out": out}, [model])
    from .decide.plans import plan_file, plan_text
    from .forecaster.forecaster import Forecaster

    with output(out) as file:
        plans = Forecaster.load(model).plan_merges(candidates or top, top=10**6, **options)
        if file:
            file.write(plan_file(plans))
    print(plan_text(plans))


@program.command()
@_snapshot
@_file("--out", required=True, help="page to write (.html)")
@_saved_or_own_fit
def explore(snapshot: Path, out: Path, model: Path | None) -> None:
    """Write a page to look at families and to forecast models of one's own."""
    _check_places({"--out": out}, [*_files_of(snapshot), model])
    data, lineage = _load(snapshot)
    with output(out) as file:
        from .explorer import explore as page

        fitted = _loaded(model, data) if model else _fitted(data, lineage, {})
        file.write(page(data, fitted).encode())
    _say_on_terminal(f"wrote {out}; open it in a browser, it needs no network")


_NEW_MODEL_OPTIONS = (
    _saved_fit,
    click.option(
        "--parents",
        multiple=True,
        callback=_ids,
        metavar="ID,ID,...",
        help="ids or URLs of the parents: org/a,org/b",
    ),
    click.option(
        "--relation",
        type=click.Choice(["finetune", "merge", "quantized", "adapter"]),
        show_default="merge if there are several parents, else finetune",
    ),
    click.option("--size", type=_POSITIVE, help="billions of parameters"),
    click.option("--name", help="the model's name, which says something, too: me/x-8b-chat"),
    click.option(
        "--score",
        "scores",
        multiple=True,
        callback=_known_scores,
        metavar="BENCHMARK=POINTS...",
        help="scores that are known, in points (0 to 100)",
    ),
    _file(
        "--answers",
        help="answers that are known: a CSV item_id,answer; a results file of lm-eval, or a folder "
        "of its samples",
    ),
)


@program.command()
@_with(_NEW_MODEL_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="for programs; scores in [0, 1]")
def ask(model, as_json: bool, **options) -> None:
    """Forecast one model of your own from its parents, size, name, and what you know of it."""
    from .decide.ask import answer, as_text

    new, notes, relation = _new_model(model, options)
    said = answer(
        new, name=options["name"], parents=options["parents"], relation=relation, notes=notes
    )
    print(json.dumps(said, indent=1) if as_json else as_text(said))


@program.command("next")
@_with(_NEW_MODEL_OPTIONS)
@click.option(
    "--budget",
    type=click.IntRange(1, 10**6),
    show_default="50",
    help="how many answers to ask for; with --cost, what they may cost together",
)
@click.option(
    "--precision",
    type=_POSITIVE,
    help="instead: as many as should bring the average score to within so many points (half of its "
    "90% interval)",
)
@click.option(
    "--benchmarks",
    multiple=True,
    callback=_benchmarks,
    metavar="NAME...",
    show_default="all",
    help="benchmarks whose scores matter",
)
@_file("--cost", help="what answers cost (1 by default): a CSV item_id,cost or task,cost")
@_file("--out", help="questions by task to write, for lm_eval --samples (.json)")
@click.option(
    "--valid",
    is_flag=True,
    help="draw at random with known probabilities, which --out then keeps in a second file, "
    "<out>.draw.csv: intervals from it hold whether or not the forecast is right",
)
@_file("--drawn", help="a <out>.draw.csv of earlier, with --answers: the intervals that hold")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=SEED, help="of --valid")
def next_(model, budget, precision, benchmarks, cost, out, valid, drawn, seed, **options) -> None:
    """Say which answers to collect next: those that say most about the scores."""
    from .decide import next_answers
    from .decide.answers import Questions
    from .decide.ask import as_note

    if budget and precision:
        raise click.UsageError("--budget and --precision: give one of them")
    if precision and benchmarks:
        raise click.UsageError("--precision is of the average score; drop --benchmarks")
    if valid and (precision or benchmarks or cost):
        raise click.UsageError("--valid draws from all benchmarks; it goes with --budget alone")
    if drawn and not options["answers"]:
        raise click.UsageError("--drawn needs the answers to what was drawn: --answers")
    if drawn and (budget or precision or benchmarks or cost or out or valid):
        raise click.UsageError("--drawn draws nothing; it goes with --answers alone")
    outputs = [out, out.with_name(f"{out.name}.draw.csv") if out and valid else None]
    _check_places(dict(zip(("--out", "--out ... --valid"), outputs, strict=True)),
                  [model, cost, drawn, options["answers"]])  # fmt: skip
    costs = next_answers.read_costs(cost) if cost else None
    new, notes, _ = _new_model(model, options)
    questions = Questions(new.forecasts.item_ids_, set(new.forecasts.scores_.names))
    if drawn:
        from .decide import valid as valid_

        print(valid_.as_text(valid_.read_draw(drawn, new), new))
        return
    if valid:
        from .decide import valid as valid_

        drawn = valid_.draw(new, budget or next_answers.BUDGET, seed=seed)
        items = drawn["item_id"].tolist()
    else:
        items = next_answers.choose(
            new, budget=budget, precision=precision and precision / 100, benchmarks=benchmarks,
            cost=next_answers.costs_of(costs, new, questions),
        )  # fmt: skip
    print(next_answers.as_text(new, items, questions, is_drawn=valid))
    for note in notes:
        print(as_note(note))
    if not items:
        return  # an empty plan would be nothing to run
    with output(outputs[0]) as samples, output(outputs[1]) as draw:
        if draw:
            draw.write(drawn.to_csv(index=False, lineterminator="\n").encode())
        if samples:
            samples.write(next_answers.as_samples(new, items, questions).encode())
            print(f"\nWrote {out}: {next_answers.how_to_run(new, out)}")
        elif valid:
            print("\nNote: valid intervals need the probabilities of the draw, which --out keeps.")


def _new_model(model: Path, options: dict) -> tuple:
    from .decide.ask import fold_in, relation_of
    from .forecaster.forecaster import Forecaster

    if not any(options[name] for name in ("parents", "size", "name", "scores", "answers")):
        raise click.UsageError("say something of the model: --parents, --size, --name, --score")
    try:
        relation = relation_of(options["parents"], options["relation"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    fitted = Forecaster.load(model)
    known = {name: options[name] for name in ("size", "name", "scores", "answers")}
    return *fold_in(fitted, options["parents"], relation=relation, **known), relation


# ---- what the commands share


def _loaded(path: Path, snapshot):
    from .forecaster.forecaster import Forecaster
    from .forecaster.saved_fit import check_items

    fitted = Forecaster.load(path)
    check_items(path, fitted, snapshot.items)
    return fitted


def _load(path: Path) -> tuple:
    from .data.lineage import Lineage
    from .data.snapshot import load_snapshot

    snapshot = load_snapshot(path)
    return snapshot, Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])


def _describe(path: Path):
    """Print what is in a snapshot, and return it."""
    from .data.describe import describe

    snapshot, lineage = _load(path)
    print(describe(snapshot, lineage))
    return snapshot


def _fitted(snapshot, lineage, parameters: dict):
    """A forecaster with the parameters that the user chose, fitted."""
    from .forecaster.forecaster import Forecaster

    _say_on_terminal(
        f"fitting {snapshot.n_models} models x {snapshot.n_items} items "
        "(the first run compiles kernels, about 20 s)"
    )
    chosen = {name: value for name, value in parameters.items() if value is not None}
    model = Forecaster(**{"seed": SEED} | chosen)
    return model.fit(snapshot.responses, lineage, items=snapshot.items, models=snapshot.models)


def _files_of(snapshot: Path) -> list[Path]:
    from .data.schema import DATA_FILES, MANIFEST_FILE

    return [snapshot / file for file in (MANIFEST_FILE, *DATA_FILES)]


def _check_places(outputs: dict[str, Path | None], inputs: list[Path | None]) -> None:
    """Refuse outputs that cannot be written, or that would replace an input or each other."""
    taken = [os.path.realpath(path) for path in inputs if path]
    for option, path in outputs.items():
        if path:
            check_place(path)
            if os.path.realpath(path) in taken:
                raise click.UsageError(f"{option} {path}: would replace another of these files")
            taken.append(os.path.realpath(path))
