"""Execute one notebook through papermill: what `make reproduce` and `make notebooks` call.

    python notebooks/run.py notebooks/03_fit.ipynb build/smoke/notebooks/03_fit.ipynb \
        --params params/smoke.yaml -p seed 1
    python notebooks/run.py notebooks/03_fit.ipynb --inplace

Parameters come from the sections `common` and `03_fit` of the YAML file, then from `-p`. A name
that the notebook's cell tagged `parameters` does not have, or a value of another type, is an error.
"""

import ast
import difflib
import os
import signal
import sys
import tempfile
from pathlib import Path

import click
import nbformat
import papermill
import yaml
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from papermill.exceptions import PapermillExecutionError, strip_color

from lrmf.files import OutputError, write_bytes

ROOT = Path(__file__).resolve().parents[1]
# Threads that wait must not spin: the processes of an evaluation share the cores.
PINNED = dict.fromkeys(
    ["BLIS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"
) | {"PYTHONHASHSEED": "0", "PYTHONFAULTHANDLER": "1", "OMP_WAIT_POLICY": "passive"}
KERNEL_LOG = "kernel.log"
LONGEST_SOCKET = 100  # bytes of a path that sockets may have on every system


class ParameterError(ValueError):
    """A parameter that no notebook has, or a value that it cannot take."""


class OwnKernelManager(AsyncKernelManager):
    """Start the kernel of this very interpreter, whatever kernelspecs the user has installed.

    It talks through sockets in the folder of its IPython profile, as no port is free for sure, or
    through ports if that path is too long for sockets. It logs there: what a kernel says when it is
    stopped is noise unless it died.
    """

    def __init__(self, **kwargs):
        self._profile = Path(os.environ["IPYTHONDIR"])
        connection = self._profile / "kernel.json"
        has_room = len(os.fsencode(connection)) < LONGEST_SOCKET
        super().__init__(
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(connection),
            transport="ipc" if has_room else "tcp",
            **kwargs,
        )

    async def start_kernel(self, **kwargs):
        """Start the kernel with its stderr in a file."""
        with open(self._profile / KERNEL_LOG, "wb") as log:
            await super().start_kernel(stderr=log, **kwargs)


def main(arguments=None) -> int:
    """Run the command line; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        return run_notebook.main(arguments, prog_name="run.py", standalone_mode=False)
    except click.UsageError as error:
        print(f"run.py: {error.format_message()}", file=sys.stderr)
        return 2


@click.command()
@click.argument("notebook")
@click.argument("output", required=False)
@click.option("--inplace", is_flag=True, help="refresh the notebook itself")
@click.option("--params", metavar="FILE", help="YAML file of parameters")
@click.option("-p", "overrides", nargs=2, multiple=True, metavar="NAME VALUE", help="one parameter")
def run_notebook(notebook, output, inplace, params, overrides) -> int:
    """Execute NOTEBOOK with parameters; the executed copy goes to OUTPUT."""
    if bool(output) == inplace:
        raise click.UsageError("give an output path or --inplace")
    if inplace and (params or overrides):
        raise click.UsageError("--inplace runs the default parameters; drop --params and -p")
    try:
        parameters = {} if inplace else resolve_parameters(notebook, params, overrides)
        execute(notebook, output or notebook, parameters)
    except (OutputError, OSError, ValueError, yaml.YAMLError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except (PapermillExecutionError, RuntimeError) as error:
        print(f"{notebook}: {_describe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{notebook}: interrupted", file=sys.stderr)
        return 130
    return 0


def resolve_parameters(notebook, params=None, overrides=()) -> dict:
    """Values for the notebook: `common`, then its section of the file, then the overrides."""
    declared = declared_parameters(notebook)
    values = {}
    if params is not None:
        sections = _load_sections(params, Path(notebook))
        for section in ("common", Path(notebook).stem):
            for name, value in (sections.get(section) or {}).items():
                values[name] = _checked(name, value, declared, f"{params}, section {section}")
    for name, text in overrides:
        value = text if isinstance(declared.get(name), str) else yaml.safe_load(text)
        values[name] = _checked(name, value, declared, f"-p {name} {text}")
    return values


def declared_parameters(notebook) -> dict:
    """Names and default values in the notebook's cell tagged `parameters`."""
    inspected = papermill.inspect_notebook(str(notebook))
    try:
        return {name: ast.literal_eval(entry["default"]) for name, entry in inspected.items()}
    except (SyntaxError, ValueError):
        raise ParameterError(
            f"{notebook}: the cell tagged 'parameters' may hold plain values only"
        ) from None


def execute(notebook, output, parameters):
    """Run the notebook in its folder; the output appears only when all cells passed.

    In place, metadata that changes from run to run is left out. A failed run is kept beside the
    output as `<name>.failed.ipynb`.
    """
    notebook, output = Path(notebook), Path(output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        draft = Path(profile, "draft.ipynb")
        try:
            executed = _run_cells(notebook, draft, parameters, profile)
        except PapermillExecutionError:
            write_bytes(failed, draft.read_bytes())
            raise
        if output == notebook.resolve():
            nbformat.write(without_volatile_metadata(executed), draft)
        write_bytes(output, draft.read_bytes())


def isolate(profile):
    """Keep thread counts, hash seeds and a user's own IPython files from changing results."""
    os.environ.update(PINNED, IPYTHONDIR=str(profile))
    os.environ.pop("MPLBACKEND", None)


def _load_sections(params, notebook) -> dict:
    try:
        sections = yaml.safe_load(Path(params).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{params}: not valid YAML: {error}") from None
    if not isinstance(sections, dict) or not all(
        isinstance(section, dict | None) for section in sections.values()
    ):
        raise ParameterError(f"{params}: expected sections, e.g. 'common: {{seed: 0}}'")
    known = ["common", *sorted(path.stem for path in notebook.parent.glob("*.ipynb"))]
    for section in sections:
        if section not in known:
            raise ParameterError(f"{params}: no notebook {section!r}{_nearest(section, known)}")
    return sections


def _checked(name, value, declared, where):
    if name not in declared:
        raise ParameterError(f"{where}: no parameter {name!r}{_nearest(name, declared)}")
    expected = type(declared[name])
    if expected is float and type(value) is int:
        return float(value)
    if declared[name] is not None and type(value) is not expected:
        raise ParameterError(f"{where}: {name!r} must be {expected.__name__}, got {value!r}")
    if expected is list and declared[name]:
        kinds = (str,) if isinstance(declared[name][0], str) else (int, float)
        if wrong := [entry for entry in value if not isinstance(entry, kinds)]:
            kind = "texts" if str in kinds else "numbers"
            raise ParameterError(f"{where}: {name!r} must hold {kind}, got {wrong[0]!r}")
    return value


def _nearest(name, known) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def _run_cells(notebook, draft, parameters, profile):
    isolate(profile)
    try:
        return papermill.execute_notebook(
            str(notebook.resolve()),
            str(draft),
            parameters,
            kernel_name="python3",
            kernel_manager_class=OwnKernelManager,
            coalesce_streams=True,
            progress_bar=sys.stderr.isatty(),
            cwd=str(ROOT / "notebooks"),
        )
    except RuntimeError as error:
        log = Path(profile, KERNEL_LOG).read_text(errors="replace").strip()
        reason = log or "it left no message; most likely memory ran out"
        raise RuntimeError(f"{error}: {reason}") from error


def without_volatile_metadata(notebook):
    notebook.metadata.pop("papermill", None)
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.language_info.pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
    return notebook


def _describe(error) -> str:
    if isinstance(error, RuntimeError):
        return str(error)
    traceback = strip_color("\n".join(error.traceback)).splitlines()
    return "\n".join([f"cell In [{error.exec_count}] failed", *traceback[-12:]])


if __name__ == "__main__":
    sys.exit(main())
