"""Whose word an import path is: only the user's runs code, never that of an opened file.

The user says it on the command line, in Python, or in a config of their own. A run's folder may be
a stranger's: the paths in its config are followed only where the same command says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ima.training.config_errors import ConfigError, read_yaml

_KEYS = ("data", "task", "network", "method")
"""The parts of a config that may name something of a user's own."""

AGAIN = tuple(f"{key}.name" for key in _KEYS)
"""The settings of a run that `ima train --resume` may be told again, so that their code may run."""

Trust = bool | Collection[str]
"""Whether import paths may be followed: any, none, or those that were said again."""


class UntrustedError(ConfigError):
    """A config that names code to run, and nobody said that it may."""


def import_paths(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every import path in a config's values: its key, itself, and the options beside it."""
    groups = {key: values.get(key) for key in _KEYS}
    for number, row in enumerate(_list(values.get("compare"))):
        groups[f"compare.{number}.method"] = _dict(row).get("method")
    for key, group in groups.items():
        options = dict(_dict(group))
        name = str(options.pop("name", ""))
        if ":" in name:
            yield f"{key}.name", name, options
    for key in ("attacks", "last_attacks"):
        for name in _list(_dict(values.get("evaluate")).get(key)):
            if ":" in str(name):
                yield f"evaluate.{key}", str(name), {}


def check_trust(values: Mapping[str, Any], trust: Trust) -> None:
    """Raise UntrustedError for an import path that is not trusted; imports nothing."""
    for key, path, options in import_paths(values):
        if trust is True or (trust and path in trust):
            continue
        module, _, function = path.partition(":")
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        again = f", or the same path again: {key}={path} with `ima train`" if key in AGAIN else ""
        if key == "network.name":
            again += f", --model {path} with `ima evaluate` and `ima margins`"
        raise UntrustedError(
            f"{key} is {path!r}, none of the library's (see `ima list`): Python would import "
            f"{module} ({_whence(module)}) and call {function}({given}), which can do anything. If "
            f"you trust it, say --trust in the same command{again}; in Python Run.open(folder, "
            "trust=True)"
        )


def said_again(folder: Path, model: str | None) -> tuple[str, ...]:
    """The network that `--model` says again for the run in a folder.

    Raises UntrustedError where the run's config names another one.
    """
    if model is None:
        return ()
    network = read_yaml(folder / "config.yaml").get("network")
    name = network.get("name") if isinstance(network, dict) else network
    if name != model:
        raise UntrustedError(
            f"--model is {model!r}, and the config in {folder} names {name!r}; say the same, or "
            "leave it out"
        )
    return (model,)


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _whence(module: str) -> str:
    """Where a module's package lies, found without importing anything."""
    top = module.partition(".")[0]
    try:
        spec = PathFinder.find_spec(top)
    except (ImportError, ValueError, OSError):
        spec = None
    if spec is None:
        return "which is not found now"
    places = list(spec.submodule_search_locations or [])
    return f"from {spec.origin or (places[0] if places else 'an unknown place')}"
