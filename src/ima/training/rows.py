"""The rows of a comparison: a config's `compare` entries, spread out over what they sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ima.training.config_errors import ConfigError, ConfigModel, validate
from ima.training.settings import Comparison, Config, Named


@dataclass(frozen=True)
class Row:
    """One row of a comparison's table.

    place: of its entry in the config; label: of the entry; swept: its values of swept options;
    tuned: options that validation picks; differs: where it leaves the shared recipe, such as
    `{"train.epochs": 50}`; candidates: the config of each combination of tuned values.
    """

    place: str
    label: str
    swept: Mapping[str, float]
    tuned: tuple[str, ...]
    differs: Mapping[str, Any]
    candidates: tuple[Config, ...]

    def title(self, tuned: Mapping[str, Any] | None = None) -> str:
        """The label with the values of swept options, and of tuned ones where they are known."""
        values = {**self.swept, **(tuned or {})}
        named = ", ".join(f"{key} {value:g}" for key, value in values.items())
        return f"{self.label} ({named})" if named else self.label


def refuse_rows_own(overrides: Sequence[str]) -> None:
    """Raise ConfigError for overrides of what no row takes from the config: method and seed."""
    for override in overrides:
        key = override.partition("=")[0]
        if key.partition(".")[0] == "method":
            raise ConfigError(
                f"{override}: every row of a comparison has a method of its own; change the rows, "
                "as in compare='[{label: SAT, method: {name: sat, eps: 2.0}}]', or in a file"
            )
        if key == "train.seed":
            raise ConfigError(f"{override}: a comparison takes its seeds from --seeds")


def rows(config: Config) -> list[Row]:
    """The rows of the config's comparison.

    Raises ConfigError for labels that are not distinct, for an option without values to try, and
    for a recipe of its own that is none.
    """
    _distinct([row.label for row in config.compare])
    found = [row for number in range(len(config.compare)) for row in _of(config, number)]
    _distinct([row.title() for row in found])
    return found


def _of(config: Config, number: int) -> Iterator[Row]:
    entry, place = config.compare[number], f"compare.{number}"
    for kind, options in (("tune", entry.tune), ("sweep", entry.sweep)):
        for key, values in options.items():
            if not values:
                raise ConfigError(f"{place}.{kind}.{key} is empty; expected values to try")
            if len(set(values)) < len(values):
                raise ConfigError(f"{place}.{kind}.{key} is {[*values]}; expected each value once")
    if both := entry.tune.keys() & entry.sweep.keys():
        raise ConfigError(
            f"{place}: {sorted(both)[0]!r} stands under tune and under sweep; expected either"
        )
    recipe, differs = _recipe(config, entry, place)
    for swept in _combinations(entry.sweep):
        candidates = tuple(
            recipe.model_copy(update={"method": _with(entry.method, {**swept, **tuned})})
            for tuned in _combinations(entry.tune)
        )
        yield Row(place, entry.label, swept, tuple(entry.tune), differs, candidates)


def _recipe(config: Config, entry: Comparison, place: str) -> tuple[Config, dict[str, Any]]:
    """The config with the entry's own recipe, and what differs from the shared one."""
    if "seed" in entry.train:
        raise ConfigError(f"{place}.train.seed: a comparison takes its seeds from --seeds")
    train, trains = _changed(config.train, entry.train, f"{place}.train")
    optimizer, steps = _changed(config.optimizer, entry.optimizer, f"{place}.optimizer")
    differs = {
        **{f"train.{key}": value for key, value in trains.items()},
        **{f"optimizer.{key}": value for key, value in steps.items()},
    }
    alone = config.model_copy(update={"train": train, "optimizer": optimizer, "compare": ()})
    return alone, differs


def _changed(
    group: ConfigModel, changes: Mapping[str, Any], place: str
) -> tuple[ConfigModel, dict[str, Any]]:
    changed = validate(type(group), {**group.model_dump(), **changes}, place)
    differs = {
        key: getattr(changed, key)
        for key in type(group).model_fields
        if getattr(changed, key) != getattr(group, key)
    }
    return changed, differs


def _combinations(options: Mapping[str, Sequence[float]]) -> Iterator[dict[str, float]]:
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def _with(method: Named, options: Mapping[str, Any]) -> Named:
    return Named(name=method.name, **{**method.options, **options})


def _distinct(labels: Sequence[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"compare: two rows have the label {label!r}; expected distinct ones")
