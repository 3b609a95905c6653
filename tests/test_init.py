"""The package's own names: every one is there, for people, for `*` and for type checkers."""

from __future__ import annotations

import ast
import tomllib
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest

import ima

PUBLIC = sorted(set(ima.__all__) - {"__version__"})


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_what_its_module_calls_so(name: str) -> None:
    found = getattr(ima, name)
    home = getattr(found, "__module__", None)
    if home is not None and getattr(found, "__name__", None) == name:
        assert getattr(import_module(home), name) is found


def test_star_gives_every_public_name_and_dir_shows_it() -> None:
    given: dict[str, object] = {}
    exec("from ima import *", given)
    assert given.keys() - {"__builtins__"} == set(ima.__all__)
    assert set(ima.__all__) <= set(dir(ima))
    assert len(set(ima.__all__)) == len(ima.__all__)


def test_what_evaluate_takes_and_gives_can_be_had_from_the_package() -> None:
    assert {"Budget", "Checks", "OutOfTime", "run_checks", "evaluate", "Results"} <= set(PUBLIC)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="'ima' has no attribute 'evaluates'"):
        _ = ima.evaluates  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    stub = Path(str(ima.__file__)).with_suffix(".pyi")
    seen = {
        alias.asname: node.module
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        # Without `as`, an import is no name of a typed package's own.
        if alias.asname == alias.name
    }
    assert seen == ima._HOMES
    assert {"Noisy", "walk"} <= seen.keys()


def test_the_wheel_says_that_the_package_is_typed() -> None:
    assert (files("ima") / "py.typed").is_file()
    config = Path(__file__).parents[1] / "pyproject.toml"
    # The whole folder goes into the wheel.
    wheel = tomllib.loads(config.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/ima"]}
