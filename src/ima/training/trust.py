"""Whose word a network's import path is: only the user's runs code, never that of an opened file.

The user says it on the command line, in Python, or in a config of their own. A run's folder may be
a stranger's: the path in its config is followed only where the same command says so.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.machinery import PathFinder
from pathlib import Path

from ima.networks import NETWORKS
from ima.training.refusal import ConfigError, read_yaml
from ima.training.settings import Named

Trust = bool | Collection[str]
"""Whether an import path may be followed: any, none, or those that were said again."""


class UntrustedError(ConfigError):
    """A config that names code to run, and nobody said that it may."""


def check_trust(network: Named, trust: Trust) -> None:
    """Raise UntrustedError for a network by import path that is not trusted; imports nothing."""
    name = network.name
    if trust is True or ":" not in name or name in NETWORKS or (trust and name in trust):
        return
    module, _, function = name.partition(":")
    given = ", ".join(f"{key}={value!r}" for key, value in network.options.items())
    raise UntrustedError(
        f"network.name is {name!r}, none of the library's (`ima list networks`): Python would "
        f"import {module} ({_whence(module)}) and call {function}({given}), which can do anything. "
        "If you trust it, say --trust in the same command, or the same path again: "
        f"network.name={name} with `ima train`, --model {name} with `ima evaluate` and `ima "
        "margins`; in Python Run.open(folder, trust=True)"
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
