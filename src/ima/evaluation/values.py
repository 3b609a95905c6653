"""A label or a prediction as a cell of a file: a class is a whole number, others are JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

Value: TypeAlias = "int | float | list[Any] | dict[str, Any]"
"""One sample's label or prediction: a class, a number, or lists and dicts of numbers."""


def to_cell(value: Value) -> str:
    """The value as text that `from_cell` reads back."""
    return json.dumps(value)


def from_cell(text: str) -> Value:
    """The value of a cell; ValueError for what is none."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a label or prediction is {text[:60]!r}") from error
    if isinstance(found, bool) or not _numbers(found):
        raise ValueError(f"a label or prediction is {text[:60]!r}")
    return found


def check_kind(what: str, found: Iterable[Value]) -> None:
    """Raise ValueError where a column holds values of several kinds, such as 1 and 1.5."""
    kinds = sorted({type(one).__name__ for one in found})
    if len(kinds) > 1:
        raise ValueError(f"the {what}s are of several kinds: {', '.join(kinds)}")


def _numbers(found: Any) -> bool:
    if isinstance(found, dict):
        return all(map(_numbers, found.values()))
    if isinstance(found, list):
        return all(map(_numbers, found))
    return isinstance(found, int | float)
