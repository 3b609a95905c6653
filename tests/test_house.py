"""The house itself: which of its files import which, without a circle and without an arrow up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ima

HOME = Path(ima.__file__).parent

FLOORS = (
    ("cli",),
    ("report",),
    ("nnunet",),
    ("training",),
    ("evaluation",),
    ("data", "networks"),
    ("methods",),
    ("attacks",),
    ("margins", "tasks", "norms"),
)
"""Folders and files of the house from top to bottom; what is in none of them may be used by all."""


def module_of(path: Path) -> str:
    parts = path.relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """The files of the house that a file imports, wherever in it; not for types alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typed:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in modules else node.module)
    # The package itself only names its parts.
    return found & modules - {"ima"}


def arrows() -> dict[str, set[str]]:
    paths = {module_of(path): path for path in HOME.rglob("*.py")}
    return {name: imports_of(path, set(paths)) - {name} for name, path in paths.items()}


def circle(found: dict[str, set[str]]) -> list[str]:
    """The files of one circle, empty where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(found[name]):
            if ring := walk(other, [*way, name]):
                return ring
        done.add(name)
        return []

    return next((ring for name in sorted(found) if (ring := walk(name, []))), [])


def floor(module: str) -> int | None:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(FLOORS) if part in names), None)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(arrows()) == []


def test_no_arrow_points_up() -> None:
    up = [
        f"{name} imports {other}"
        for name, others in sorted(arrows().items())
        for other in sorted(others)
        if (here := floor(name)) is not None and (there := floor(other)) is not None
        if there < here
    ]
    assert up == []


def test_the_search_finds_circles() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("folder", [name for names in FLOORS for name in names])
def test_the_floors_are_there(folder: str) -> None:
    assert (HOME / folder).is_dir() or (HOME / f"{folder}.py").is_file()
