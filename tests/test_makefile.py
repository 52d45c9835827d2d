"""The Makefile and notebooks/run.py, on a checkout with eight notebooks of two cells."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from run import main

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["00_quickstart", "01_crawl", "02_lineage", "03_fit", "04_baselines", "05_cold_start",
         "06_figures", "07_decisions"]  # fmt: skip
FROM_DATA = NAMES[1:]  # the first one needs none
NEEDS = [("01_crawl", "02_lineage"), ("01_crawl", "03_fit"), ("01_crawl", "04_baselines"),
         ("04_baselines", "05_cold_start"), ("05_cold_start", "06_figures"),
         ("01_crawl", "07_decisions")]  # fmt: skip
PARAMETERS = 'run = "simulated"\nsnapshot = "data/simulated"\nseed = 0\nrank = 16  # factors'
SAVE_SNAPSHOT = """
import os, pathlib
folder = pathlib.Path("..", snapshot)  # kernels run in notebooks/
folder.mkdir(parents=True, exist_ok=True)
(folder / "snapshot.json").touch()
pathlib.Path("../figures", run).mkdir(parents=True, exist_ok=True)
print(seed, rank, os.environ["OPENBLAS_NUM_THREADS"], os.environ["PYTHONHASHSEED"])
"""


def write_notebook(path, *sources):
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata.tags = ["parameters"]
    kernel = {"name": "python3", "display_name": "My Python", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def write_checkout(folder):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "notebooks/run.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "lrmf").mkdir()
    (folder / "lrmf" / "__init__.py").touch()
    shutil.copy(ROOT / "lrmf" / "files.py", folder / "lrmf")
    (folder / "params").mkdir()
    for run in ("simulated", "smoke", "hub"):
        common = f"common: {{run: {run}, snapshot: data/{run}, seed: 0}}\n"
        (folder / "params" / f"{run}.yaml").write_text(common)
    (folder / "params" / "snapshot.yaml").write_text("03_fit: {rank: 4}\n")
    for name in NAMES:
        write_notebook(folder / "notebooks" / f"{name}.ipynb", PARAMETERS, SAVE_SNAPSHOT)
    return folder


@pytest.fixture
def checkout(tmp_path):
    return write_checkout(tmp_path / "checkout")


def run(folder, *command, **variables):
    """Run a command without the variables of the make that may have called these tests."""
    hidden = {
        "MAKEFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "MFLAGS",
        "RUN",
        "SNAPSHOT",
        "SEED",
        "PYTHON",
    }
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, text=True
    )


def make(folder, *arguments):
    return run(folder, "make", f"PYTHON={sys.executable}", *arguments)


def planned(folder, *arguments):
    """Notebooks that `make reproduce` would run now."""
    done = make(folder, "-n", "reproduce", *arguments)
    assert done.returncode == 0, done.stderr
    return [name for name in NAMES if f"run.py notebooks/{name}.ipynb" in done.stdout]


def execute(folder, *arguments, **variables):
    return run(folder, sys.executable, "notebooks/run.py", *arguments, **variables)


def outputs(path):
    return [cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells]


def touch(path):
    """Make the file newer than everything else, also on file systems with coarse times."""
    later = max(p.stat().st_mtime for p in path.parents[1].rglob("*")) + 2
    os.utime(path, (later, later))


# ---- Makefile


def test_help_lists_targets_and_variables():
    done = run(ROOT, "make")
    assert done.returncode == 0
    for target in "setup reproduce test test-all lab notebooks crawl bench paper site".split():
        assert f"  make {target} " in done.stdout
    for variable in ("RUN=", "SNAPSHOT=", "SEED=", "PYTHON=", "make clean", "params/$(RUN).yaml"):
        assert variable in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["RUN=smok"], "RUN=smok is unknown"),
        (["RUN=snapshot"], "needs SNAPSHOT=dir"),
        (["RUN=snapshot", "SNAPSHOT=a b$c"], "a b$c/snapshot.json does not exist"),
        (["RUN=snapshot", "SNAPSHOT=nowhere"], "nowhere/snapshot.json does not exist"),
        (["SNAPSHOT=nowhere"], "goes with RUN=snapshot"),
        (["RUN=snapshot", "SNAPSHOT=data/smoke"], "would mix with RUN=smoke"),
    ],
)
def test_bad_variables_are_one_error(checkout, arguments, culprit):
    (checkout / "data" / "smoke").mkdir(parents=True)
    (checkout / "data" / "smoke" / "snapshot.json").touch()
    done = make(checkout, "reproduce", *arguments)
    assert done.returncode == 2
    assert culprit in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_notebook_is_an_error(checkout):
    (checkout / "notebooks" / "04_baselines.ipynb").unlink()
    done = make(checkout, "-n", "reproduce")
    assert done.returncode == 2
    assert "notebooks/04_baselines.ipynb" in done.stderr


def test_snapshot_run_is_named_after_its_directory(checkout):
    (checkout / "elsewhere" / "mine").mkdir(parents=True)
    (checkout / "elsewhere" / "mine" / "snapshot.json").touch()
    done = make(checkout, "-n", "reproduce", "RUN=snapshot", "SNAPSHOT=elsewhere/mine/")
    assert "build/mine/notebooks/06_figures.ipynb --params params/snapshot.yaml" in done.stdout
    assert "-p run 'mine' -p snapshot 'elsewhere/mine/'" in done.stdout


# An interpreter that notes what it is asked of a notebook, a line an argument, and leaves an empty
# output. Calls stand in `order` as they begin.
NOTING = """[ "$1" = notebooks/run.py ] || exit 0
mkdir -p asked "$(dirname "$3")"; echo "$2" >> order
for argument; do printf '%s\\n' "$argument"; done > asked/"$(basename "$2")"
touch "$3\""""
ODD_NAMES = ["My Papers", "it's", "run[1]", "a&b", "100%", "$HOME", "a$$b", "#1", "café 中", "-p"]
ODD_NAMES += ["$(shell touch pwned)", '"quoted"', "back\\slash", "a,b(c", "`date`", "star*?", "a;b"]


def test_a_snapshot_may_have_parameters_of_its_own(checkout):
    for name in ("mine", "other"):
        (checkout / "somewhere" / name).mkdir(parents=True)
        (checkout / "somewhere" / name / "snapshot.json").touch()
    (checkout / "params" / "mine.yaml").write_text("common: {seed: 1}\n")
    for name, parameters in (("mine", "mine"), ("other", "snapshot")):
        done = make(checkout, "-n", "reproduce", "RUN=snapshot", f"SNAPSHOT=somewhere/{name}")
        assert f"--params params/{parameters}.yaml" in done.stdout


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_checkouts_and_snapshots_may_have_any_name(tmp_path, odd):
    checkout = write_checkout(tmp_path / odd / "clone")
    snapshot = checkout / "data" / odd / "snapshot.json"
    snapshot.parent.mkdir(parents=True)
    snapshot.touch()
    fake_python(checkout, "python", NOTING)
    (checkout / "figures" / odd).mkdir(parents=True)
    arguments = ("reproduce", "PYTHON=./python", "RUN=snapshot", f"SNAPSHOT={snapshot.parent}/")
    done = run(checkout, "make", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    order = [Path(line).stem for line in (checkout / "order").read_text().splitlines()]
    assert sorted(order) == NAMES
    for earlier, later in NEEDS:
        assert order.index(earlier) < order.index(later)
    for name in NAMES:
        call = (checkout / "asked" / f"{name}.ipynb").read_text()
        assert call.endswith(f"\n-p\nrun\n{odd}\n-p\nsnapshot\n{snapshot.parent}/\n")
    assert f"figures/{odd} " in done.stdout
    assert not list(tmp_path.rglob("pwned"))

    again = run(checkout, "make", *arguments)
    assert again.returncode == 0 and again.stdout.startswith("Up to date")
    touch(snapshot)
    assert FROM_DATA[0] in run(checkout, "make", "-n", *arguments).stdout


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["it's 100% [a&b] $x #1 é", "-p"])
def test_notebooks_run_in_such_a_checkout(tmp_path, odd):
    checkout = write_checkout(tmp_path / odd)
    (checkout / "notebooks" / "out").mkdir()
    source = "import os\nprint(run, snapshot, os.path.basename(os.getcwd()))"
    write_notebook(checkout / "notebooks" / "03_fit.ipynb", PARAMETERS, source)
    output = checkout / "build" / "out.ipynb"
    options = ["-p", "run", odd, "-p", "snapshot", f"data/{odd}"]
    done = execute(checkout, "notebooks/03_fit.ipynb", str(output), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert outputs(output)[-1][0].text == f"{odd} data/{odd} notebooks\n"


def test_reproduce_runs_what_is_out_of_date(checkout):
    assert planned(checkout, "RUN=smoke") == NAMES
    smoke = ["RUN=smoke", "SEED=7"]
    for folder in ("data", "figures"):
        (checkout / folder / "smoke").mkdir(parents=True)
    (checkout / "data" / "smoke" / "snapshot.json").touch()
    fake_python(checkout, "python", NOTING)
    done = run(checkout, "make", "reproduce", "PYTHON=./python", *smoke)
    assert done.returncode == 0, done.stderr
    assert planned(checkout, *smoke) == []
    assert planned(checkout, "RUN=smoke") == NAMES
    assert planned(checkout, "RUN=smoke", "SEED=8") == NAMES
    (checkout / "figures" / "smoke").rename(checkout / "figures" / "other")
    assert planned(checkout, *smoke) == FROM_DATA
    (checkout / "figures" / "other").rename(checkout / "figures" / "smoke")
    touch(checkout / "notebooks" / "05_cold_start.ipynb")
    assert planned(checkout, *smoke) == NAMES[5:7]  # and what reads from it
    shutil.rmtree(checkout / "data")
    assert planned(checkout, *smoke) == FROM_DATA
    (checkout / "data" / "smoke").mkdir(parents=True)
    (checkout / "data" / "smoke" / "snapshot.json").touch()
    assert planned(checkout, *smoke) == NAMES[5:7]
    touch(checkout / "lrmf" / "__init__.py")
    assert planned(checkout, *smoke) == NAMES


def test_tests_are_lint_unit_tests_and_notebooks_in_the_order_of_their_needs(checkout):
    fake_python(checkout, "python", """echo "$2 $*" >> asked""")
    assert run(checkout, "make", "test-all", "PYTHON=./python").returncode == 0
    asked = (checkout / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("ruff")]
    assert [line for line in asked if "lint_imports" in line]
    assert sum("not slow" in line for line in asked) == 1
    assert asked[-1].endswith("-m slow")
    notebooks = [Path(line).stem for line in asked if "--nbval " in line]
    assert sorted(notebooks) == NAMES
    assert notebooks.index("01_crawl") < notebooks.index("03_fit")
    assert notebooks.index("04_baselines") < notebooks.index("05_cold_start")

    fake_python(checkout, "python", """case "$*" in *03_fit*) exit 1;; esac""")
    assert run(checkout, "make", "test", "PYTHON=./python").returncode == 2


@pytest.mark.slow
def test_reproduce_executes_the_notebooks(checkout):
    done = make(checkout, "reproduce", "RUN=smoke", "SEED=7")
    assert done.returncode == 0, done.stderr
    executed = checkout / "build" / "smoke" / "notebooks"
    assert sorted(p.name for p in executed.iterdir()) == [f"{name}.ipynb" for name in NAMES]
    assert outputs(executed / "03_fit.ipynb")[-1][0].text == "7 16 1 0\n"
    assert planned(checkout, "RUN=smoke", "SEED=7") == []


def test_a_new_crawl_is_studied_anew(checkout):
    snapshot, build = checkout / "data" / "hub" / "snapshot.json", checkout / "build" / "hub"
    for folder in (snapshot.parent, build / "notebooks", checkout / "figures" / "hub"):
        folder.mkdir(parents=True)
    (build / "variables").write_text("seed= snapshot=data/hub\n")
    done = [build / "notebooks" / f"{name}.ipynb" for name in NAMES]
    for path in (snapshot, *done):  # as if they had been made in this order
        path.touch()
        touch(path)
    assert planned(checkout, "RUN=hub") == []
    later = done[-1].stat().st_mtime + 2
    os.utime(snapshot, (later, later))
    assert planned(checkout, "RUN=hub") == FROM_DATA


@pytest.mark.slow
def test_reproduce_stops_at_a_failing_notebook(checkout):
    write_notebook(checkout / "notebooks" / "02_lineage.ipynb", PARAMETERS, "1 / 0")
    done = make(checkout, "reproduce")
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
    executed = checkout / "build" / "simulated" / "notebooks"
    found = {p.name for p in executed.iterdir()}
    assert {"01_crawl.ipynb", "02_lineage.failed.ipynb"} <= found
    assert found.isdisjoint(["02_lineage.ipynb", "06_figures.ipynb"])


def fake_python(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("[ $1 = --version ] && echo Python 3.9.2 && exit; exit 1", "python3 is Python 3.9.2"),
        ('case "$*" in *ensurepip*) exit 1;; esac', "no venv or ensurepip module"),
    ],
)
def test_setup_says_what_is_missing(checkout, script, message):
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        fake_python(checkout / "bin", name, script)
    path = f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = run(checkout, "make", "setup", PATH=path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (checkout / ".venv").exists()


def test_named_interpreter_is_used_as_it_is(checkout):
    done = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv").exists()
    fake_python(checkout, "old", "[ $1 = --version ] && echo Python 3.9.2 && exit; exit 1")
    assert "./old is Python 3.9.2" in run(checkout, "make", "setup", "PYTHON=./old").stderr


# ---- notebooks/run.py


@pytest.mark.parametrize(
    ("params", "overrides", "message"),
    [
        ("03_fit: {rnk: 3}", [], "section 03_fit: no parameter 'rnk'; did you mean 'rank'?"),
        ("common: {sed: 3}", [], "section common: no parameter 'sed'; did you mean 'seed'?"),
        ("03_fitt: {rank: 3}", [], "no notebook '03_fitt'; did you mean '03_fit'?"),
        ("03_fit: {rank: many}", [], "'rank' must be int, got 'many'"),
        ("rank: 3", [], "expected sections"),
        ("03_fit: {rank", [], "not valid YAML"),
        ("", ["-p", "sed", "3"], "no parameter 'sed'; did you mean 'seed'?"),
        ("", ["-p", "seed", "three"], "'seed' must be int, got 'three'"),
    ],
)
def test_bad_parameters_are_errors(checkout, monkeypatch, capsys, params, overrides, message):
    monkeypatch.chdir(checkout)
    Path("params.yaml").write_text(params)
    arguments = ["notebooks/03_fit.ipynb", "out.ipynb", "--params", "params.yaml", *overrides]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(checkout.glob("out*"))


@pytest.mark.slow
def test_overrides_come_after_the_section_after_common(checkout):
    (checkout / "params.yaml").write_text("common: {rank: 1, seed: 1}\n03_fit: {rank: 2}\n")
    arguments = ["--params", "params.yaml", "-p", "seed", "5", "-p", "run", "2024"]
    done = execute(checkout, "notebooks/03_fit.ipynb", "new/out.ipynb", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert outputs(checkout / "new" / "out.ipynb")[-1][0].text == "5 2 1 0\n"
    assert (checkout / "figures" / "2024").is_dir()
    assert [p.name for p in (checkout / "new").iterdir()] == ["out.ipynb"]


@pytest.mark.slow
def test_kernel_is_of_this_interpreter(checkout):
    hijack = checkout / "jupyter" / "kernels" / "python3"
    hijack.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (hijack / "kernel.json").write_text(json.dumps(spec))
    write_notebook(checkout / "which.ipynb", PARAMETERS, "import sys\nprint(sys.executable)")
    done = execute(checkout, "which.ipynb", "out.ipynb", JUPYTER_PATH=str(checkout / "jupyter"))
    assert done.returncode == 0, done.stderr
    assert outputs(checkout / "out.ipynb")[-1][0].text == f"{sys.executable}\n"


@pytest.mark.slow
def test_failed_run_leaves_the_old_output(checkout):
    write_notebook(checkout / "bad.ipynb", PARAMETERS, "print('before')", "raise OSError('disk')")
    (checkout / "out.ipynb").write_text("old")
    done = execute(checkout, "bad.ipynb", "out.ipynb")
    assert done.returncode == 1
    assert "OSError: disk" in done.stderr
    assert (checkout / "out.ipynb").read_text() == "old"
    assert outputs(checkout / "out.failed.ipynb")
    assert sorted(p.name for p in checkout.glob("out*")) == ["out.failed.ipynb", "out.ipynb"]


@pytest.mark.slow
def test_temporary_folders_may_have_long_names(checkout):
    scratch = checkout / ("job-123456/" * 10)
    scratch.mkdir(parents=True)
    done = execute(checkout, "notebooks/03_fit.ipynb", "out.ipynb", TMPDIR=str(scratch))
    assert (done.returncode, done.stderr) == (0, "")
    assert outputs(checkout / "out.ipynb")


def test_misuse_is_one_line(capsys):
    for arguments in (["03_fit.ipynb"], ["03_fit.ipynb", "out.ipynb", "--inplace"], []):
        assert main(arguments) == 2
        done = capsys.readouterr()
        assert (done.out, done.err.count("\n")) == ("", 1)


@pytest.mark.slow
def test_dead_kernel_is_one_message(checkout):
    write_notebook(checkout / "bad.ipynb", PARAMETERS, "import ctypes\nctypes.string_at(0)")
    done = execute(checkout, "bad.ipynb", "out.ipynb")
    assert done.returncode == 1
    assert "bad.ipynb: Kernel died: Fatal Python error: Segmentation fault" in done.stderr
    assert not list(checkout.glob("out*"))


@pytest.mark.slow
def test_refreshing_in_place_is_reproducible(checkout):
    path = checkout / "notebooks" / "03_fit.ipynb"
    versions = []
    for _ in range(2):
        done = execute(checkout, str(path), "--inplace")
        assert done.returncode == 0, done.stderr
        versions.append(path.read_bytes())
    assert versions[0] == versions[1]
    assert outputs(path)[-1][0].text == "0 16 1 0\n"
    saved = nbformat.read(path, as_version=4)
    assert set(saved.metadata) == {"kernelspec", "language_info"}
    assert "version" not in saved.metadata.language_info
    assert [dict(cell.metadata) for cell in saved.cells] == [{"tags": ["parameters"]}, {}]
