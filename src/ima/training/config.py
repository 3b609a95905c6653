"""Typed configs: a YAML file and overrides such as `method.delta=0.05`; errors name the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ima.data import find_loader
from ima.evaluation.attacks import find_attack
from ima.margins import Margins
from ima.methods import Method, find_method
from ima.methods.ima import unreached
from ima.networks import NETWORKS, find_builder
from ima.networks.imported import ARGUMENTS
from ima.plain_yaml import YamlError
from ima.plain_yaml import parse as parse_yaml
from ima.tasks import Task, check_task, find_task
from ima.training.config_errors import (
    ConfigError,
    ask,
    check_numbers,
    check_options,
    find_config,
    parameters,
    read_yaml,
    validate,
)
from ima.training.rows import rows
from ima.training.settings import Config, Named, Train
from ima.training.trust import Trust, UntrustedError, check_trust, import_paths

METHOD = ("__call__", "end_epoch", "state_dict", "load_state_dict")
"""What a method must have."""

PROVIDED = ("num_samples", "norm", "bounds", "augmented", "task", "seed")
"""Arguments of a method that the trainer sets; a config cannot."""


def load_config(source: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> Config:
    """The config in a YAML file, or one that comes with the library, by its name.

    overrides: `key=value` with dots for nesting; values are YAML. trust: whether a config in
    the folder of a run may name something by its import path; a file of one's own may anyway.
    Raises ConfigError for anything that cannot be run, FileNotFoundError for a missing file.
    """
    path = find_config(source)
    values = read_yaml(path)
    said: dict[str, Any] = {}
    for override in overrides:
        _override(values, override)
        _override(said, override)
    # What a file of the user's own says, and what the command line says itself.
    own = trust or not _of_a_run(path)
    try:
        return parse_config(values, trust=own or {name for _, name, _ in import_paths(said)})
    except UntrustedError as error:
        raise UntrustedError(f"{path}: {error}") from error


def _of_a_run(path: Path) -> bool:
    """Whether a file is the config in a run's folder, which may be a stranger's."""
    left = ("environment.json", "metrics.csv", "state.safetensors", "best.safetensors")
    return path.name == "config.yaml" and any((path.parent / name).exists() for name in left)


def parse_config(values: Mapping[str, Any], *, trust: Trust = True) -> Config:
    """A config from nested values. Raises ConfigError, which names every key at fault.

    trust: which import paths may be followed.
    """
    check_numbers(values)
    config = validate(Config, values)
    check_trust(config.model_dump(), trust)
    ask("data.name", find_loader, config.data.name)
    task = build_task(config)
    builder = ask("network.name", find_builder, config.network.name)
    options = check_options("network", builder, config.network, ARGUMENTS)
    for key, value in options.items():
        # Widths and depths; an imported network may mean anything.
        if config.network.name in NETWORKS and isinstance(value, int) and value < 1:
            raise ConfigError(f"network.{key}: is {value}; expected at least 1")
    make_method("method", config.method, num_samples=1, task=task)
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
            make_method(f"{row.place}.method", candidate.method, num_samples=1, task=task)
            _check_epochs(f"{row.place}.train", candidate.train)
    return config


def build_task(config: Config) -> Task | None:
    """What the network's outputs mean; None where the config says nothing of it.

    Then it is classification, in which a method may make choices of its own.
    """
    if config.task == Config.model_fields["task"].default:
        return None
    constructor = ask("task.name", find_task, config.task.name).task
    options = check_options("task", constructor, config.task, ())
    return ask("task", lambda: check_task(constructor(**options)))


def method_options(config: Config, **provided: Any) -> dict[str, Any]:
    """The arguments of the config's method: its options, and those of `provided` that it takes."""
    return _options("method", config.method, provided)[1]


def make_method(place: str, method: Named, **provided: Any) -> Method:
    """A method with its options, and with those of the `PROVIDED` arguments that it takes.

    place: its key, for errors. Raises ConfigError for options that do not fit, for a task that it
    does not serve, and for what is no method.
    """
    constructor, options = _options(place, method, provided)
    if provided.get("task") is not None and "task" not in options:
        raise ConfigError(
            f"{place}: {method.name} takes no task, so it serves the default one, classification"
        )
    made = ask(place, partial(constructor, **options))
    lacks = [name for name in METHOD if not callable(getattr(made, name, None))]
    if lacks:
        raise ConfigError(
            f"{place}: {method.name} made an object of type {type(made).__name__}, which has no "
            f"{', '.join(lacks)}; expected a method, see ima.Method, or ima.Noisy to build on"
        )
    return made


def _options(
    place: str, method: Named, provided: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A method's class, and all its arguments."""
    constructor = ask(f"{place}.name", find_method, method.name).method
    options = check_options(place, constructor, method, PROVIDED)
    taken = parameters(constructor)
    return constructor, {**{k: v for k, v in provided.items() if k in taken}, **options}


def warnings(config: Config) -> list[str]:
    """What can be run, but hardly as meant."""
    options = method_options(config)
    epochs = config.train.epochs - config.train.standard_epochs
    said = unreached(options.get("eps"), options.get("delta"), epochs, "method.")
    return [said] if said else []


def _check_epochs(place: str, train: Train) -> None:
    if train.standard_epochs >= train.epochs:
        raise ConfigError(
            f"{place}.standard_epochs is {train.standard_epochs}; expected less than "
            f"{place}.epochs, {train.epochs}: the method trains in what is left of them"
        )


def check_stop(place: str, config: Config) -> None:
    """Raise ConfigError where the config's run cannot end before its last epoch as it is told to.

    place: of its `train`, for the error.
    """
    stop = config.train.stop
    if stop is None:
        return
    method = make_method(place, config.method, num_samples=1, task=build_task(config))
    if not isinstance(getattr(method, "margins", None), Margins):
        raise ConfigError(
            f"{place}.stop is {stop!r}, and {config.method.name} keeps no margins; leave it out, "
            "set it in the rows of methods with margins, or train by one, such as ima"
        )
    if config.optimizer.schedule == "cosine":
        raise ConfigError(
            f"{place}.stop is {stop!r}, and optimizer.schedule is 'cosine', whose rate is low at "
            "the last epoch only; expected 'constant' or 'steps'"
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
