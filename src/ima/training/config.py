"""Typed configs: a YAML file and overrides such as `method.delta=0.05`; errors name the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from ima.data import DATASETS
from ima.evaluation.attacks import find_attack
from ima.methods import METHODS
from ima.networks import NETWORKS, find_builder
from ima.networks.imported import ARGUMENTS
from ima.plain_yaml import YamlError
from ima.plain_yaml import parse as parse_yaml
from ima.training.refusal import (
    ConfigError,
    ask,
    check_name,
    check_numbers,
    check_options,
    nearest,
    parameters,
    read_yaml,
    validate,
)
from ima.training.rows import rows
from ima.training.settings import Comparison, Config, Evaluate, Named, Optimizer, Train
from ima.training.trust import Trust, UntrustedError, check_trust

__all__ = [
    "Comparison",
    "Config",
    "ConfigError",
    "Evaluate",
    "Named",
    "Optimizer",
    "Train",
    "load_config",
    "method_options",
    "packaged",
    "parse",
    "warnings",
]

PROVIDED = ("num_samples", "norm", "bounds", "augmented", "task", "seed")
"""Arguments of a method that the trainer sets; a config cannot."""


def packaged() -> dict[str, Path]:
    """The configs that come with the library, by name."""
    folder = Path(str(resources.files("ima") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(source: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> Config:
    """The config in a YAML file, or one that comes with the library, by its name.

    overrides: `key=value` with dots for nesting; values are YAML. trust: whether a config in
    the folder of a run may name a network by its import path; a file of one's own may anyway.
    Raises ConfigError for anything that cannot be run, FileNotFoundError for a missing file.
    """
    path = Path(source)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"{str(source)[:80]!r} names no config file ({told})") from error
    if path.is_dir():
        raise ConfigError(
            f"{str(source)!r} is a folder; name a config file, or continue a run with "
            f"--resume {source}"
        )
    if not there:
        known = packaged()
        if str(source) not in known:
            hint = nearest(path.stem, known)
            raise FileNotFoundError(
                f"there is no config file {str(source)!r}, and none of that name comes with the "
                f"library.{hint} Those that come with it: {', '.join(known)}"
            )
        path = known[str(source)]
    values = read_yaml(path)
    written = _network(values)
    for override in overrides:
        _override(values, override)
    # What the command line says itself, and what a file of the user's own says.
    own = trust or not _of_a_run(path) or _network(values) != written or _said(overrides, written)
    try:
        return parse(values, trust=own)
    except UntrustedError as error:
        raise UntrustedError(f"{path}: {error}") from error


def _of_a_run(path: Path) -> bool:
    """Whether a file is the config in a run's folder, which may be a stranger's."""
    left = ("environment.json", "metrics.csv", "state.safetensors", "best.safetensors")
    return path.name == "config.yaml" and any((path.parent / name).exists() for name in left)


def _network(values: Mapping[str, Any]) -> object:
    network = values.get("network")
    return network.get("name") if isinstance(network, dict) else network


def _said(overrides: Sequence[str], name: object) -> bool:
    """Whether the overrides say a network's name again."""
    again: dict[str, Any] = {}
    for override in overrides:
        _override(again, override)
    return name is not None and _network(again) == name


def parse(values: Mapping[str, Any], *, trust: Trust = True) -> Config:
    """A config from nested values. Raises ConfigError, which names every key at fault.

    trust: which networks by import path may be imported.
    """
    check_numbers(values)
    config = validate(Config, values)
    check_name("data.name", config.data.name, DATASETS)
    check_trust(config.network, trust)
    builder = ask("network.name", find_builder, config.network.name)
    options = check_options("network", builder, config.network, ARGUMENTS)
    for key, value in options.items():
        # Widths and depths; an imported network may mean anything.
        if config.network.name in NETWORKS and isinstance(value, int) and value < 1:
            raise ConfigError(f"network.{key}: is {value}; expected at least 1")
    _check_method("method", config.method)
    for name in (*config.evaluate.attacks, *config.evaluate.attacks_on("last")):
        row, _ = ask("evaluate.attacks", find_attack, name)
        if row.amplitude is not None:
            raise ConfigError(
                f"evaluate.attacks has {name!r}, whose noise has one size of its own, none of "
                "evaluate.eps; leave it out: `ima evaluate` measures it beside every attack"
            )
    _check_epochs("train", config.train)
    for row in rows(config):
        for candidate in row.candidates:
            _check_method(f"{row.place}.method", candidate.method)
            _check_epochs(f"{row.place}.train", candidate.train)
    return config


def method_options(config: Config, **provided: Any) -> dict[str, Any]:
    """The arguments of the config's method: its options, and those of `provided` that it takes."""
    constructor = METHODS[config.method.name].method
    taken = parameters(constructor)
    options = check_options("method", constructor, config.method, PROVIDED)
    return {**{k: v for k, v in provided.items() if k in taken}, **options}


def warnings(config: Config) -> list[str]:
    """What can be run, but hardly as meant."""
    options = method_options(config)
    epochs = config.train.epochs - config.train.standard_epochs
    if {"eps", "delta"} <= options.keys() and options["delta"] * epochs < options["eps"]:
        return [
            f"in {epochs} epoch{'s' * (epochs > 1)} a margin grows to "
            f"{options['delta'] * epochs:g} at most, below method.eps = {options['eps']:g}; raise "
            f"method.delta to {options['eps'] / epochs:g} or train longer"
        ]
    return []


def _check_method(place: str, method: Named) -> None:
    check_name(f"{place}.name", method.name, METHODS)
    constructor = METHODS[method.name].method
    options = check_options(place, constructor, method, PROVIDED)
    if "num_samples" in parameters(constructor):
        options["num_samples"] = 1
    ask(place, partial(constructor, **options))


def _check_epochs(place: str, train: Train) -> None:
    if train.standard_epochs >= train.epochs:
        raise ConfigError(
            f"{place}.standard_epochs is {train.standard_epochs}; expected less than "
            f"{place}.epochs, {train.epochs}: the method trains in what is left of them"
        )


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is no override; expected key=value, as in method.eps=2")
    *parents, last = key.split(".")
    here: Any = values
    for parent in parents:
        here = here.setdefault(parent, {}) if isinstance(here, dict) else here
        if not isinstance(here, dict):
            raise ConfigError(f"{key}: {parent!r} is not a group of keys")
    try:
        here[last] = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{key}: the value {text[:80]!r} is not YAML: {error}") from error
