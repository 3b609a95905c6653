"""What is shipped: one version, files that exist, steps that are those of the README."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import ima

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_version() -> None:
    assert ima.__version__ == version("ima") == PROJECT["version"]
    done = subprocess.run(
        [sys.executable, "-m", "ima", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == PROJECT["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"]
    assert not re.search(r'__version__ = "', (ROOT / "src/ima/__init__.py").read_text())


def test_a_copy_that_was_never_installed_says_so(tmp_path: Path) -> None:
    (tmp_path / "ima").symlink_to(ROOT / "src" / "ima")
    script = "import sys; sys.path[:0] = sys.argv[1:]; import ima; print(ima.__version__)"
    # Without site-packages nothing is installed.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "unknown", done.stderr


def test_the_extra_of_all_names_what_users_want() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    names = set(re.findall(r"\w+", everything.partition("[")[2]))
    assert names == set(PROJECT["optional-dependencies"]) - {"all", "dev", "bench"}


def test_every_dependency_stands_in_the_constraints() -> None:
    pins = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["docs"]]
    names = {re.split(r"[>=<\[]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names <= pins


@pytest.mark.parametrize("step", ["COPY", "RUN"])
def test_the_steps_of_the_docker_file(step: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    found = [line.removeprefix(f"{step} ") for line in text.splitlines() if line.startswith(step)]
    assert found
    for line in found:
        words = shlex.split(line)
        if step == "COPY":
            assert all((ROOT / name).exists() for name in words[:-1])
        else:
            assert words[:2] == ["pip", "install"]
            assert words[-1] == "."
            # What pip builds from: all that pyproject.toml names is copied before.
            assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= set(
                re.findall(r"\S+", text)
            )


def test_the_release_tries_every_python_that_is_promised() -> None:
    flow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    tried = flow["jobs"]["smoke"]["strategy"]["matrix"]["python"]
    assert f">={tried[0]}" == PROJECT["requires-python"]
    assert flow["jobs"]["publish"]["needs"] == "smoke"
