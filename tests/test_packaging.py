"""The wheel and the sdist: what is in them, what they ask for, and that they work by themselves."""

from __future__ import annotations

import ast
import contextlib
import email
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, metadata
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import ima
from ima.extras import EXTRAS

packaging = pytest.importorskip("packaging.requirements", reason="packaging comes with pytest")
HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
CORE = {"torch", "numpy", "safetensors", "filelock", "pydantic", "pyyaml"}
MODULES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "lightning-fabric": "lightning_fabric",
    "pytorch-lightning": "pytorch_lightning",
    "mlflow-skinny": "mlflow",
}
"""Modules that are not called after their package."""


def names(requirements: list[str]) -> set[str]:
    return {packaging.Requirement(one).name.lower() for one in requirements}


def wanted(name: str) -> set[str]:
    """The packages of an extra; those of the extras that it names too."""
    found = set[str]()
    for one in PROJECT["optional-dependencies"][name]:
        asked = packaging.Requirement(one)
        inner = (
            set[str]().union(*map(wanted, asked.extras)) if asked.name == "ima" else {asked.name}
        )
        found |= {package.lower() for package in inner}
    return found


# --- What pyproject.toml says ---------------------------------------------------------------------


def test_the_core_is_light_and_extras_are_what_errors_name() -> None:
    assert names(PROJECT["dependencies"]) == CORE
    for extra, modules in EXTRAS.items():
        own = {
            name for name in wanted(extra) if extra in ("cli", "data") or name not in wanted("cli")
        }
        assert {MODULES.get(name, name) for name in own} == set(modules), extra


def test_all_and_dev_hold_every_extra() -> None:
    # Services of others are asked for one by one.
    every = set[str]().union(
        *(wanted(extra) for extra in EXTRAS if extra not in ("mlflow", "wandb"))
    )
    assert wanted("all") == every
    assert every <= wanted("dev")


def test_the_version_stands_in_one_place() -> None:
    assert ima.__version__ == PROJECT["version"]
    assert yaml.safe_load((HOME / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    source = (HOME / "src" / "ima" / "__init__.py").read_text()
    assert PROJECT["version"] not in source


def test_what_is_imported_at_the_top_of_a_file_is_of_the_core() -> None:
    """Of the floors below the command line and the pages, which need extras."""
    light = {*sys.stdlib_module_names, "ima", "torch", "numpy", "safetensors", "filelock"}
    light |= {"pydantic", "pydantic_core", "yaml"}
    for path in sorted((HOME / "src" / "ima").rglob("*.py")):
        part = path.relative_to(HOME / "src" / "ima").parts[0]
        if part in ("cli", "nnunet", "report") or path.name == "equilibrium.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {one.partition(".")[0] for one in found} <= light, f"{path}: {found}"


def test_sources_are_of_the_oldest_python_that_is_named() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    said = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    assert oldest in said and said == {f"3.{minor}" for minor in range(11, 15)}
    version = tuple(map(int, oldest.split(".")))
    for path in (HOME / "src").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(version[0], version[1]))


# --- What else installs it ------------------------------------------------------------------------


def test_the_release_tries_every_python_with_the_smoke_test() -> None:
    flow = yaml.safe_load((HOME / ".github" / "workflows" / "release.yml").read_text())
    said = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    jobs = flow["jobs"]
    assert set(jobs["try"]["strategy"]["matrix"]["python"]) == said
    assert [jobs[name].get("needs") for name in ("build", "try", "publish")] == [
        None,
        "build",
        "try",
    ]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    paths = {
        word for run in runs for word in run.split() if re.fullmatch(r"[\w/]+\.(py|txt)", word)
    }
    assert "tests/smoke.py" in paths and all((HOME / path).is_file() for path in paths)
    assert {e.strip("[]") for e in jobs["try"]["strategy"]["matrix"]["extras"]} <= {
        "",
        *EXTRAS,
        "all",
    }


def test_the_steps_of_the_dockerfile_build_what_they_install(tmp_path: Path) -> None:
    lines = (HOME / "Dockerfile").read_text().splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    ignored = (HOME / ".dockerignore").read_text().splitlines()
    installed: list[str] = []
    for word, rest in steps:
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                # All but what is named is kept out of the build.
                assert f"!{source}" in ignored
                there = tmp_path / (target if target != "./" else source)
                copy = shutil.copytree if (HOME / source).is_dir() else shutil.copy
                copy(HOME / source, there)
        elif word == "RUN":
            command, *words = shlex.split(rest)
            assert command == "pip" and words[0] == "install"
            assert (tmp_path / words[words.index("-c") + 1]).is_file()
            installed.append(words[-1])
    assert installed[0] == "torch"  # before what would bring its build for GPUs
    extras = packaging.Requirement(installed[1].replace(".", "ima", 1)).extras
    assert extras <= EXTRAS.keys()
    told = {step[0]: step[1] for step in steps}
    assert json.loads(told["ENTRYPOINT"]) == [*PROJECT["scripts"]]
    assert told["FROM"].startswith("python:3.")
    pytest.importorskip("hatchling", reason="hatchling builds the wheel, see ima[dev]")
    build(tmp_path, "wheel", tmp_path / "dist")
    assert (wheel(tmp_path / "dist")).stat().st_size > 300_000


# --- The files that are built ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and a wheel that was built from its files alone."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel, see ima[dev]")
    folder = tmp_path_factory.mktemp("dist")
    build(HOME, "sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    build(next((folder / "unpacked").iterdir()), "wheel", folder)
    return folder


def build(source: Path, target: str, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def wheel(folder: Path) -> Path:
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(wheel(built)) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
        told = email.message_from_bytes(
            archive.read(next(name for name in inside if name.endswith("METADATA")))
        )
        entry = archive.read(next(n for n in inside if n.endswith("entry_points.txt"))).decode()
    ours = subprocess.run(["git", "ls-files", "src"], cwd=HOME, capture_output=True, text=True)
    if ours.returncode == 0 and ours.stdout:
        tracked = {line.removeprefix("src/") for line in ours.stdout.splitlines()}
        assert {name for name in inside if name.startswith("ima/")} >= tracked
    assert {name.partition("/")[0] for name in inside} == {
        "ima",
        f"ima-{PROJECT['version']}.dist-info",
    }
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert told["Version"] == PROJECT["version"] and told["Requires-Python"] == ">=3.11"
    asked = [one for one in told.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert names(asked) == CORE
    assert set(told.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert "ima = ima.__main__:main" in entry


def test_the_sdist_is_small_and_holds_what_the_smoke_test_needs(built: Path) -> None:
    archive = next(built.glob("*.tar.gz"))
    assert archive.stat().st_size < 3_000_000
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/smoke.py", "constraints.txt"} <= inside
    assert not any(name.startswith("results") for name in inside)


def closure(requirements: set[str]) -> Iterator[str]:
    """Those packages, and all that they ask for, as far as they are installed here."""
    seen, left = set[str](), sorted(requirements)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            asked = map(packaging.Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue
        yield name
        left += [
            one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})
        ]


def place(packages: set[str], folder: Path) -> None:
    """Lay the files of installed packages, and of what they ask for, into another environment."""
    for name in closure(packages):
        found = distribution(name)
        tops = {Path(file).parts[0] for file in found.files or []} - {"..", "__pycache__"}
        for top in tops:
            there = Path(str(found.locate_file(top)))
            if there.exists() and not (folder / top).exists():
                (folder / top).symlink_to(there)


@pytest.mark.parametrize("extras", [(), ("cli",)], ids=["core", "cli"])
def test_the_wheel_works_in_an_empty_environment(
    extras: tuple[str, ...], built: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--quiet", str(wheel(built))],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    place(set[str](CORE).union(*map(wanted, extras)), packages)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "-W", "error", str(HOME / "tests" / "smoke.py")],
        cwd=tmp_path, env={**clean, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    missing = [extra for extra in EXTRAS if extra not in extras]
    assert f"missing: {missing}" in done.stdout
    assert (tmp_path / "env" / "bin" / "ima").is_file()


def test_what_is_pinned_runs_on_the_first_release_of_the_oldest_python() -> None:
    """Some packages leave out 3.11.0 to 3.11.4; Debian 12 has 3.11.2."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    tried = 0
    for line in (HOME / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, is_pin, _ = line.partition("==")
        with contextlib.suppress(PackageNotFoundError):
            needed = metadata(name)["Requires-Python"] if is_pin else None
            tried += needed is not None
            assert needed is None or oldest in SpecifierSet(needed), f"{line} needs {needed}"
    assert tried > 20
