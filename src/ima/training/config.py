"""Typed configs: a YAML file and overrides such as `method.delta=0.05`; errors name the key."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from ima.data import DATASETS
from ima.evaluation.attacks import find_attack
from ima.methods import METHODS
from ima.networks import find_builder
from ima.norms import get_norm
from ima.training.refusal import explain, nearest

PROVIDED = ("num_samples", "norm", "bounds", "augmented", "task", "seed")
"""Arguments of a method that the trainer sets; a config cannot."""


class Strict(BaseModel):
    """Immutable, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Named(BaseModel):
    """A row of a table by its name, with options for it beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


class Data(Strict):
    """Which data set. path: its folder or file; size: side of the images in pixels; seed: split."""

    name: str
    path: str | None = None
    size: int | None = Field(None, ge=8)
    seed: int = Field(0, ge=0)


class Optimizer(Strict):
    """The optimiser, and how its learning rate falls. milestones: epochs after which steps drop."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)


class Train(Strict):
    """The loop.

    standard_epochs: of the epochs, how many at the start train by the clean loss only;
    ema: decay per step of averaged weights, none if null.
    """

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=1)
    standard_epochs: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"


class Evaluate(Strict):
    """The attacks on the test part, and the noise radii. The middle radius selects epochs."""

    attacks: tuple[str, ...] = Field(("pgd-100", "ifgsm-10"), min_length=1)
    eps: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    batch_size: int = Field(256, ge=1)

    @property
    def middle(self) -> float:
        """The middle noise radius (the lower of two)."""
        return sorted(self.eps)[(len(self.eps) - 1) // 2]


class Comparison(Strict):
    """One row of `ima compare`. tune: values to try for options of the method, by validation."""

    label: str
    method: Named
    tune: dict[str, tuple[float, ...]] = {}


def _norm_name(value: object) -> object:
    return get_norm(value).name if isinstance(value, int | float | str) else value


class Config(Strict):
    """One run, or with `compare` several that differ in the method only.

    name: of the experiment; norm: of all noise, L2 or Linf; bounds: of the inputs.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    note: str = ""
    norm: Annotated[Literal["L2", "Linf"], BeforeValidator(_norm_name)] = "L2"
    data: Data
    network: Named
    method: Named
    optimizer: Optimizer = Field(default_factory=Optimizer.model_validate({}).model_copy)
    train: Train = Field(default_factory=Train.model_validate({}).model_copy)
    evaluate: Evaluate
    compare: Annotated[tuple[Comparison, ...], AfterValidator(tuple)] = ()

    def to_yaml(self) -> str:
        """The whole config, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class ConfigError(ValueError):
    """A config that cannot be run; the text names the key, what was expected, the nearest name."""


def packaged() -> dict[str, Path]:
    """The configs that come with the library, by name."""
    folder = Path(str(resources.files("ima") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file, or one that comes with the library, by its name.

    overrides: `key=value` with dots for nesting; values are YAML.
    Raises ConfigError for anything that cannot be run, FileNotFoundError for a missing file.
    """
    path = Path(source)
    if path.is_dir():
        raise ConfigError(
            f"{str(source)!r} is a folder; name a config file, or continue a run with "
            f"--resume {source}"
        )
    if not path.exists():
        known = packaged()
        if str(source) not in known:
            hint = nearest(path.stem, known)
            raise FileNotFoundError(
                f"there is no config file {str(source)!r}, and none of that name comes with the "
                f"library.{hint} Those that come with it: {', '.join(known)}"
            )
        path = known[str(source)]
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; expected keys and values")
    for override in overrides:
        _override(values, override)
    return parse(values)


def parse(values: Mapping[str, Any]) -> Config:
    """A config from nested values. Raises ConfigError, which names every key at fault."""
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e, Config) for e in error.errors())) from None
    _check_name("data.name", config.data.name, DATASETS)
    builder = _ask("network.name", find_builder, config.network.name)
    _options("network", builder, config.network, ("channels", "num_classes"))
    for place, method in _methods(config):
        _check_name(f"{place}.name", method.name, METHODS)
        constructor = METHODS[method.name].method
        options = _options(place, constructor, method, PROVIDED)
        if "num_samples" in _parameters(constructor):
            options["num_samples"] = 1
        _ask(place, partial(constructor, **options))
    for name in config.evaluate.attacks:
        _ask("evaluate.attacks", find_attack, name)
    if config.train.standard_epochs > config.train.epochs:
        raise ConfigError(
            f"train.standard_epochs is {config.train.standard_epochs}; expected at most "
            f"train.epochs, {config.train.epochs}"
        )
    return config


def method_options(config: Config, **provided: Any) -> dict[str, Any]:
    """The arguments of the config's method: its options, and those of `provided` that it takes."""
    constructor = METHODS[config.method.name].method
    taken = _parameters(constructor)
    options = _options("method", constructor, config.method, PROVIDED)
    return {**{k: v for k, v in provided.items() if k in taken}, **options}


def warnings(config: Config) -> list[str]:
    """What can be run, but hardly as meant."""
    options = config.method.options
    epochs = config.train.epochs - config.train.standard_epochs
    if {"eps", "delta"} <= options.keys() and options["delta"] * epochs < options["eps"]:
        return [
            f"in {epochs} epochs a margin grows to {options['delta'] * epochs:g} at most, below "
            f"method.eps = {options['eps']:g}; raise method.delta to {options['eps'] / epochs:g} "
            "or train longer"
        ]
    return []


def _methods(config: Config) -> list[tuple[str, Named]]:
    found = [("method", config.method)]
    labels = [row.label for row in config.compare]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"compare: two rows have the label {label!r}; expected distinct ones")
    for number, row in enumerate(config.compare):
        place = f"compare.{number}.method"
        if not row.tune:
            found.append((place, row.method))
            continue
        for key, values in row.tune.items():
            if not values:
                raise ConfigError(f"compare.{number}.tune.{key} is empty; expected values to try")
        for chosen in itertools.product(*row.tune.values()):
            tuned = {**row.method.options, **dict(zip(row.tune, chosen, strict=True))}
            found.append((place, Named(name=row.method.name, **tuned)))
    return found


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _options(
    place: str, function: Callable[..., Any], named: Named, provided: Sequence[str]
) -> dict[str, Any]:
    """The options beside a name, checked against the types of the function that they are for."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    fields: dict[str, Any] = {}
    for name, parameter in _parameters(function).items():
        if name in provided or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        required = parameter.default is inspect.Parameter.empty
        fields[name] = (hints.get(name, Any), ... if required else parameter.default)
    model = create_model(f"{named.name}", __config__=Strict.model_config, **fields)
    try:
        checked = model.model_validate(named.options)
    except ValidationError as error:
        lines = [explain(e, model, place, named.name) for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    return {key: getattr(checked, key) for key in named.options}


def _check_name(place: str, name: str, table: Mapping[str, Any]) -> None:
    if name not in table:
        hint = nearest(name, table)
        raise ConfigError(f"{place}: unknown name {name!r}.{hint} Known: {', '.join(table)}")


def _ask(place: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: {error}") from error


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
        here[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: the value {text!r} is not YAML: {error}") from error
