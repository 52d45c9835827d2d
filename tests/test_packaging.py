"""pyproject.toml, requirements.lock, environment.yml and CITATION.cff say the same."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.11", "3.12", "3.13"]
PYPI_NAMES = {  # of the packages that conda-forge names otherwise
    "huggingface_hub": "huggingface-hub",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project):
    """The locked groups: the dependencies themselves, notebooks and dev."""
    groups = [project["dependencies"]]
    groups += [project["optional-dependencies"][group] for group in ("notebooks", "dev")]
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, sum(groups, []))}


@pytest.fixture(scope="module")
def lock_lines():
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


@pytest.fixture(scope="module")
def locked(lock_lines):
    """Version by name; a package has one version on all Pythons."""
    pins = [Requirement(line.split("--hash")[0]) for line in lock_lines]
    versions = {pin.name: re.fullmatch(r"==([^*,]+)", str(pin.specifier))[1] for pin in pins}
    assert len(versions) == len(pins), "a package is locked twice"
    return versions


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_lock_satisfies_pyproject(requirements, locked):
    for name, specifier in requirements.items():
        assert locked[name] in specifier, name


def test_direct_dependencies_are_locked_on_every_python(requirements, lock_lines):
    unconditional = {
        Requirement(line.split("--hash")[0]).name for line in lock_lines if ";" not in line
    }
    assert set(requirements) <= unconditional


def test_bench_lock_adds_its_group_to_the_lock(locked):
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    lines = (ROOT / "bench" / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if "#" not in line]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(versions[r.name] in r.specifier for r in map(Requirement, group))
    assert not set(versions) & set(locked)


def test_every_locked_file_has_its_hash(lock_lines):
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", line) for line in lock_lines)


def test_lock_names_no_index(lock_lines):
    assert not [line for line in lock_lines if "://" in line or line.startswith("-")]


def test_environment_states_the_locked_versions(environment, requirements, locked):
    pinned = [d for d in environment["dependencies"] if isinstance(d, str) and "=" in d]
    pinned.remove("python >=3.11,<3.14")
    versions = dict(dependency.split("=") for dependency in pinned)
    assert {PYPI_NAMES.get(n, n): v for n, v in versions.items()} == {
        name: locked[name] for name in requirements
    }


def test_environment_installs_the_package_in_place(environment):
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_supported_pythons_agree(project, environment):
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    conda = SpecifierSet(environment["dependencies"][0].removeprefix("python "))
    assert [v for v in ("3.10", *PYTHONS, "3.14") if v in conda] == PYTHONS
    assert "3.10" not in SpecifierSet(project["requires-python"])
    assert all(v in SpecifierSet(project["requires-python"]) for v in PYTHONS)


def test_citation_is_of_this_version(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_every_description_of_the_software_says_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    codemeta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["title"] == zenodo["title"] == codemeta["name"]
    abstract = " ".join(citation["abstract"].split())
    assert abstract == zenodo["description"] == codemeta["description"]
    assert {project["version"]} == {found["version"] for found in (citation, zenodo, codemeta)}
    assert project["license"] == citation["license"] == zenodo["license"]
    assert codemeta["license"].endswith(f"/{project['license']}")
    assert citation["keywords"] == zenodo["keywords"] == codemeta["keywords"]
    names = [author["name"] for author in citation["authors"]]
    assert names == [creator["name"] for creator in zenodo["creators"]]
    assert names == [author["name"] for author in codemeta["author"]]


def test_the_container_takes_the_steps_of_make_setup():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve().is_file()
    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "RUN make setup" in steps and container["postCreateCommand"] == "make setup"
    version = re.search(r"FROM python:(\d+)\.(\d+)", steps)
    assert (3, 11) <= (int(version[1]), int(version[2])) < (3, 14)
