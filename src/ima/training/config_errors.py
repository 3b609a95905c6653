"""Why a config is refused: the key's whole name, what was expected, the nearest valid name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from ima.imported import nearest, types_of
from ima.plain_yaml import YamlError, read_mapping
from ima.training.settings import Named, Strict

ConfigModel = TypeVar("ConfigModel", bound=BaseModel)


class ConfigError(ValueError):
    """A config that cannot be run; the text names the key, what was expected, the nearest name."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; ConfigError where it holds none."""
    try:
        return read_mapping(path)
    except YamlError as error:
        raise ConfigError(str(error)) from error


def packaged(kind: str = "") -> dict[str, Path]:
    """The configs that come with the library, by name. kind: `"nnunet"`: its experiments."""
    folder = Path(str(resources.files("ima") / "configs" / kind))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(source: str | Path, kind: str = "") -> Path:
    """A YAML file, or one that comes with the library, by its name; kind: see `packaged`.

    Raises ConfigError for what is no file, FileNotFoundError for one that is missing.
    """
    path, known = Path(source), packaged(kind)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"{str(source)[:80]!r} names no config file ({told})") from error
    if path.is_dir():
        run = (path / "config.yaml").exists()
        hint = f", or continue this run with `ima train --resume {source}`" if run else ""
        raise ConfigError(f"{str(source)!r} is a folder; name a config file{hint}")
    if there:
        return path
    if str(source) not in known:
        raise FileNotFoundError(
            f"there is no config file {str(source)!r}, and none of that name comes with the "
            f"library.{nearest(path.stem, known)} Those that come with it: {', '.join(known)}"
        )
    return known[str(source)]


LARGEST = 3.4028234663852886e38
"""The largest number in float32, in which everything is computed."""

_SMALLEST = 1.1754943508222875e-38
"""The smallest number above 0 that float32 holds in full; below, 1e-46 is 0."""

_WHOLE = 2**32
"""Whole numbers lie below, seeds too."""

_WORDS = ("name", "note", "label", "path", "norm")
"""Keys whose values are no numbers, whatever they look like."""


def check_numbers(values: Any, place: str = "") -> None:
    """Raise ConfigError, with the key, for a number that cannot be computed with."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key not in _WORDS:
                check_numbers(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            check_numbers(value, f"{place}.{number}")
    elif not isinstance(values, bool):
        number = _number(values)
        if isinstance(number, int) and abs(number) >= _WHOLE:
            shown = f"{number:.3g}" if abs(number) < LARGEST else "a number of that size"
            raise ConfigError(f"{place}: is {shown}; expected a number below {_WHOLE}")
        if number is not None and not abs(number) <= LARGEST:
            raise ConfigError(
                f"{place}: is {values!r}; expected a finite number, at most {LARGEST:.3g}, the "
                "largest of float32"
            )
        if number is not None and 0 < abs(number) < _SMALLEST:
            raise ConfigError(
                f"{place}: is {values!r}; expected 0, or a number of at least {_SMALLEST:.3g}, the "
                "smallest of float32"
            )


def _number(value: object) -> int | float | None:
    """What a config's value is as a number; YAML takes 1e308 for a word."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None


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


def validate(
    model: type[ConfigModel], values: Any, place: str = "", owner: str = ""
) -> ConfigModel:
    """The values as a model; ConfigError that names every key at fault, see `explain`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        lines = [explain(e, model, place, owner) for e in found if not _follows(e, found)]
        raise ConfigError("\n".join(lines)) from None


def _follows(error: Any, found: Sequence[Any]) -> bool:
    """Whether a list is too short only because its values are refused, which is told too."""
    at = error["loc"]
    within = (one["loc"] for one in found if len(one["loc"]) > len(at))
    return error["type"] == "too_short" and any(loc[: len(at)] == at for loc in within)


def check_name(place: str, name: str, table: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the table has a row of this name."""
    if name not in table:
        hint = nearest(name, table)
        raise ConfigError(f"{place}: unknown name {name!r}.{hint} Known: {', '.join(table)}")


def ask(place: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; its ValueError or TypeError as a ConfigError with the key."""
    try:
        return function(*arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: {error}") from error


def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or class, by name."""
    return inspect.signature(function).parameters


HIDING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Parameters that name no option."""


def check_options(
    place: str, function: Callable[..., Any], named: Named, provided: Sequence[str]
) -> dict[str, Any]:
    """The options beside a name, checked against the types of the function that they are for.

    provided: parameters that a config cannot set.
    """
    hints = types_of(function)
    fields: dict[str, Any] = {}
    for name, parameter in parameters(function).items():
        if name in provided or parameter.kind in HIDING:
            continue
        required = parameter.default is inspect.Parameter.empty
        fields[name] = (hints.get(name, Any), ... if required else parameter.default)
    model = create_model(f"{named.name}", __base__=Strict, **fields)
    checked = validate(model, named.options, place, named.name)
    return {key: getattr(checked, key) for key in named.options}
