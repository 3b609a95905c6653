"""The reference of all keys of a config, made from its models and from what options are for.

What a key means stands in the docstring of its model, method, network or task: `key: words`.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ima.imported import nearest, types_of
from ima.methods import METHODS
from ima.networks import NETWORKS
from ima.networks.imported import ARGUMENTS
from ima.tasks import TASKS
from ima.training.config import PROVIDED
from ima.training.config_errors import HIDING, parameters
from ima.training.settings import Config, Named

TABLES: Mapping[str, tuple[str, Mapping[str, Callable[..., Any]], Collection[str]]] = {
    "method": ("methods", {name: row.method for name, row in METHODS.items()}, PROVIDED),
    "network": ("networks", {name: row.build for name, row in NETWORKS.items()}, ARGUMENTS),
    "task": ("tasks", {name: row.task for name, row in TASKS.items()}, ()),
}
"""Groups of keys whose options are those of a row of a table: the list, the rows, what is set."""

REQUIRED = "required"

_PYTHONS = {"None": None, "True": True, "False": False}

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any"}

_LIMITS = {"ge": "at least {:g}", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}


@dataclass(frozen=True)
class Key:
    """A key of a config.

    name: with dots, such as `train.epochs`; of: whose option it is, such as `sat`, empty for all;
    kind: what values it takes, in words; default: as YAML, or `required`; about: what it means.
    """

    name: str
    of: str
    kind: str
    default: str
    about: str


def find_keys(what: str = "", model: type[BaseModel] = Config) -> list[Key]:
    """The keys of a model; what: of one group or key, or the options of a method, network or task.

    Raises ValueError for a name that is none of them.
    """
    found = list(_of_model(model, ""))
    groups = [key.name.rpartition(".")[0] for key in found]
    known = dict.fromkeys([*groups, *(key.name for key in found), *(key.of for key in found)])
    if what and what not in known:
        names = [name for name in known if name]
        raise ValueError(f"no key or group of keys is called {what!r}.{nearest(what, names)}")
    return [
        key
        for key in found
        if not what or what in (key.name, key.of) or key.name.startswith(f"{what}.")
    ]


def _of_model(model: type[BaseModel], before: str) -> Iterator[Key]:
    words = described(model.model_fields, model.__doc__ or "")
    for name, field in model.model_fields.items():
        inner, many = _model_in(field.annotation)
        key = before + name
        if inner is Named and not before:
            yield from _of_table(key, field)
        elif inner is None or inner is Named:
            kind = "mapping" if inner is Named else _kind(field.annotation, field.metadata)
            yield Key(key, "", kind, _default(field), words.get(name, ""))
        else:
            yield from _of_model(inner, f"{key}.{'N.' if many else ''}")


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a key holds, and whether it holds several."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, False
    inner = [one for one in get_args(annotation) if inspect.isclass(one)]
    found = next((one for one in inner if issubclass(one, BaseModel)), None)
    return found, get_origin(annotation) is tuple


def _of_table(key: str, field: FieldInfo) -> Iterator[Key]:
    listed, table, provided = TABLES[key]
    default = REQUIRED if field.is_required() else json.dumps(field.get_default().name)
    about = f"a name of `ima list {listed}`, or module:name of your own"
    yield Key(f"{key}.name", "", "text", default, about)
    for row, function in table.items():
        hints, words = types_of(function), described(parameters(function), function.__doc__ or "")
        for name, parameter in parameters(function).items():
            if name in provided or parameter.kind in HIDING:
                continue
            missing = parameter.default is inspect.Parameter.empty
            default = REQUIRED if missing else json.dumps(parameter.default)
            kind, about = _kind(hints.get(name, Any)), _yaml(words.get(name, ""))
            yield Key(f"{key}.{name}", row, kind, default, about)


def described(names: Collection[str], text: str) -> dict[str, str]:
    """What a docstring says of some names, as `name: words` or `name, name: words`."""
    one = "|".join(map(re.escape, names)) or "$^"
    heads = list(re.finditer(rf"(?:^|[.;]|\n)\s*((?:{one})(?:, (?:{one}))*):\s", text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    found: dict[str, str] = {}
    for head, end in zip(heads, ends, strict=False):
        said = " ".join(text[head.end() : end].partition("\n\n")[0].split()).rstrip(".;")
        found |= dict.fromkeys(head[1].split(", "), said)
    return found


def _yaml(text: str) -> str:
    """What a docstring says of Python's values, of YAML's."""
    return re.sub(r"\b(None|True|False)\b", lambda word: json.dumps(_PYTHONS[word[1]]), text)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    return json.dumps(value, ensure_ascii=False)


def _kind(annotation: Any, marks: Collection[Any] = ()) -> str:
    """A type in words; marks: limits of its numbers."""
    origin, within = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return _either([json.dumps(one) for one in within])
    if origin in (Union, types.UnionType):
        return _either(sorted((_kind(one, marks) for one in within), key="null".__ne__))
    if hasattr(annotation, "__metadata__"):
        more = [m for one in annotation.__metadata__ for m in getattr(one, "metadata", [one])]
        return _kind(within[0], more)
    if origin is tuple:
        return f"list of {_kind(within[0])}"
    if origin is dict:
        return f"mapping to {_kind(within[1])}"
    said = [
        words.format(getattr(one, name))
        for one in (marks if annotation in (int, float) else ())
        for name, words in _LIMITS.items()
        if getattr(one, name, None) is not None
    ]
    return ", ".join([_WORDS.get(annotation, "any"), *said])


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
