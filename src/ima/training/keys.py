"""Every key of a config with its type, default and meaning, from the models themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ima.networks.imported import ARGUMENTS
from ima.training.config import PROVIDED
from ima.training.config_errors import parameters
from ima.training.settings import Comparison, Config, Strict

REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """One key: its name with dots, what it takes, what it is without being set, what it means."""

    name: str
    kind: str
    default: str
    meaning: str


def config_keys() -> list[Key]:
    """The keys of a config, those of the rows of a comparison under `compare.N`."""
    return [*_of_model(Config, ""), *_of_model(Comparison, "compare.N.")]


def option_keys(function: Any) -> list[Key]:
    """The options of a method, network or task: its arguments but those that are set for it."""
    told = meanings(inspect.getdoc(function) or "")
    return [
        Key(
            name,
            _shown(one.annotation),
            REQUIRED if one.default is one.empty else _value(one.default),
            told.get(name, ""),
        )
        for name, one in parameters(function).items()
        if name not in (*PROVIDED, *ARGUMENTS)
    ]


def _of_model(model: type[BaseModel], place: str) -> Iterator[Key]:
    told = meanings(inspect.getdoc(model) or "")
    for name, one in model.model_fields.items():
        kind = one.annotation
        if inspect.isclass(kind) and issubclass(kind, Strict):
            yield from _of_model(kind, f"{place}{name}.")
            continue
        if model is Config and name == "compare":
            continue
        default = REQUIRED if one.is_required() else _value(one.get_default())
        yield Key(f"{place}{name}", _shown(kind), default, told.get(name, ""))


def meanings(doc: str) -> dict[str, str]:
    """What a docstring says of each name, as `name: what it is`, after a full stop or semicolon."""
    text = " ".join(doc.partition("\n\n>>>")[0].split())
    found = list(re.finditer(r"(?:^|(?<=[.;] )|(?<=\) ))(\w+(?:, \w+)*): ", text))
    ends = [one.start() for one in found[1:]] + [len(text)]
    told: dict[str, str] = {}
    for one, end in zip(found, ends, strict=True):
        meaning = text[one.end() : end].strip()
        for name in one[1].split(", "):
            told[name] = meaning.partition(" Raises ")[0].rstrip(" .;")
    return told


def _shown(kind: Any) -> str:
    """A type as people write it."""
    if isinstance(kind, str):
        return kind.replace("None", "null")
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    inner = [one for one in get_args(kind) if not _is_note(one)]
    if get_origin(kind) in (tuple, list):
        return f"list of {_shown(inner[0])}"
    if get_origin(kind) is dict:
        return "key: value"
    if type(None) in inner:
        return " or ".join([_shown(one) for one in inner if one is not type(None)] + ["null"])
    if inner:
        return _shown(inner[0])
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}
    name = getattr(kind, "__name__", str(kind))
    return {"Named": "name, with options beside it"}.get(name, names.get(name, name))


def _is_note(one: Any) -> bool:
    return one is Ellipsis or not (inspect.isclass(one) or get_origin(one) is not None)


def _value(value: Any) -> str:
    if value is PydanticUndefined or value is None:
        return "null"
    if isinstance(value, BaseModel):
        return str(value.model_dump().get("name", ""))
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
