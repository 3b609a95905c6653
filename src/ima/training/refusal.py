"""Why a config is refused: the key's whole name, what was expected, the nearest valid name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel


def nearest(name: str, known: Iterable[str], write: str = "{!r}") -> str:
    """` Did you mean 'x'?` for the nearest of the known names, or nothing where none is near."""
    near = get_close_matches(name, list(known), 1)
    return f" Did you mean {write.format(near[0])}?" if near else ""


def explain(error: Any, model: type[BaseModel], place: str = "", owner: str = "") -> str:
    """One line for one of pydantic's errors.

    place: the key that the model's fields stand below; owner: whose options they are.
    """
    path = [place, *map(str, error["loc"])] if place else list(map(str, error["loc"]))
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        names = list(_fields_at(model, error["loc"][:-1]))
        hint = nearest(path[-1], names, "'" + ".".join([*path[:-1], "{}"]) + "'")
        known = f" Known{' for ' + owner if owner else ''}: {', '.join(names) or 'no options'}"
        return f"{key}: unknown key.{hint}{known}"
    if error["type"] == "missing":
        return f"{key}: missing; it has no default{' for ' + owner if owner else ''}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{key}: is {error['input']!r}; {message}"


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> Sequence[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        nested = [a for a in (annotation, *typing.get_args(annotation)) if inspect.isclass(a)]
        current = next((a for a in nested if issubclass(a, BaseModel)), current)
    return list(current.model_fields)
