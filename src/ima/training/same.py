"""Whether a run that continues is the one that was begun: its config, and all its samples.

The state says both: every setting that decides what is trained, and of every training and
validation sample a digest of its bytes, its label, and what it looks like from afar.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ima.data import Part, Splits
from ima.data.stored import row_digests
from ima.methods import find_method
from ima.networks import find_builder
from ima.tasks import Classification, find_task
from ima.training.checkpoint import peek_state, run_of
from ima.training.config_errors import ConfigError, parameters
from ima.training.run import Run
from ima.training.settings import Config, Named
from ima.training.tensor_file import CheckpointError

ORIGIN = "origin"
"""The name in a state of what is told here."""

_FREE = ("name", "note", "log", "compare", "data.path", "train.epochs", "train.stop")
"""Settings that may change between a stop and going on; and so may `evaluate`, all but the middle
radius, which picks the epoch."""

MIDDLE = "evaluate.eps (the middle one)"

_SLACK = 0.02
"""By so much an image that is stored as JPEG, or resized, elsewhere may differ seen from afar."""

_AT_ONCE = 256
"""So many images are read together."""

_SIDE = 4
"""An image from afar: so many cells along each side, each with its mean over all channels."""


def run_origin(config: Config, splits: Splits) -> dict[str, Any]:
    """What a state tells of the run's config and samples."""
    return {"config": fixed_settings(config), "samples": samples(splits)}


_SAMPLES: WeakKeyDictionary[Splits, dict[str, dict[str, Tensor]]] = WeakKeyDictionary()


def samples(splits: Splits) -> dict[str, dict[str, Tensor]]:
    """What a state tells of the samples, by part; made once of every loaded data set."""
    if splits not in _SAMPLES:
        _SAMPLES[splits] = {"train": _samples(splits.train), "val": _samples(splits.val)}
    return _SAMPLES[splits]


def known_origin(run: Run) -> Mapping[str, Any] | None:
    """What the run's state tells; None without a state, and in states of earlier versions."""
    return peek_state(run.state, ORIGIN, None) if run.state.exists() else None


def unknown_origin(run: Run) -> list[str]:
    """What is to be said of a run whose state does not tell its origin; empty for others."""
    if not run.state.exists() or known_origin(run) is not None:
        return []
    return [
        f"{run.state} is of an earlier version, which did not keep what the run was begun with: "
        "nobody can tell whether config and data are still the same"
    ]


def check_config(run: Run, known: Mapping[str, Any], config: Config) -> None:
    """Raise ConfigError where a setting is not the one that the run was begun with."""
    then, now = known["config"], fixed_settings(config)
    keys = [key for key in {**then, **now} if _differs(key, then, now)]
    if keys:
        changes = [f"{key} was {_shown(then, key)} and is {_shown(now, key)}" for key in keys]
        raise ConfigError(
            f"{run.folder / 'config.yaml'} is not the config that the run was begun with: "
            f"{', '.join(changes)}. Put the old values back, or begin a new run with --out"
        )


def check_same_samples(run: Run, known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError where a sample is not the one that the run was begun with.

    now: as `origin` tells the samples. Images that are all stored otherwise, as JPEG or resized,
    pass where they look the same.
    """
    for role, what in (("train", "training"), ("val", "validation")):
        then, here = known["samples"][role], now[role]
        total = len(then["labels"])
        if len(here["labels"]) != total:
            difference = f"it had {total} {what} images, and there are {len(here['labels'])} now"
        elif wrong := _places(then["labels"] != here["labels"]):
            difference = f"the labels of {_of(wrong, total)} {what} images differ"
        elif (other := _places(then["bytes"] != here["bytes"])) and not _stored_otherwise(
            then, here, other
        ):
            difference = f"the {what} images differ, {_of(other, total)} of them"
        else:
            continue
        path = run.config().data.path
        place = f"data.path {path}" if path else "the data's folder"
        raise ValueError(
            f"{run.folder} was begun on other samples: {difference}. {place} holds other files "
            "since; put the old ones back, or begin a new run with --out"
        )


def data_mark(config: Config, splits: Splits) -> str:
    """What a file of weights tells of the run that wrote it: its settings and training labels."""
    # Not of the images, which may be stored otherwise elsewhere.
    labels = splits.train.targets.detach().cpu().contiguous().numpy().tobytes()
    told = {"config": fixed_settings(config), "labels": hashlib.sha256(labels).hexdigest()}
    return json.dumps(told, sort_keys=True, default=str)


def check_weights(path: Path, config: Config, splits: Splits) -> None:
    """Raise CheckpointError for weights that another run wrote than the one with this config.

    Those that do not tell, as of earlier versions and from elsewhere, pass.
    """
    told = run_of(path)
    if not told:
        return
    try:
        then, now = json.loads(told), json.loads(data_mark(config, splits))
        one, other = dict(then["config"]), dict(now["config"])
        keys = [key for key in {**one, **other} if _differs(key, one, other)]
        labels = then["labels"] != now["labels"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: what it tells of its run cannot be read; train again"
        ) from error
    changes = [f"{key} was {_shown(one, key)} and is {_shown(other, key)} here" for key in keys]
    changes += ["it was trained on other labels"] if labels else []
    if changes:
        raise CheckpointError(
            f"{path} holds weights of another run: {', '.join(changes)}. Put the run's own back, "
            "or evaluate these as weights from elsewhere, with --model and --data"
        )


def fixed_settings(config: Config) -> dict[str, Any]:
    """Every setting that decides what is trained, by its whole name, defaults included."""
    dumped: dict[str, Any] = config.model_dump(mode="json")
    middle = config.evaluate.middle
    del dumped["evaluate"]
    dumped["method"] = _resolved(config.method, find_method(config.method.name).method)
    dumped["network"] = _resolved(config.network, find_builder(config.network.name))
    dumped["task"] = _resolved(config.task, find_task(config.task.name).task)
    if dumped["task"] == _resolved(Named(name="classification"), Classification):
        # As in runs of versions that knew no other.
        del dumped["task"]
    found = {key: value for key, value in _flat(dumped).items() if key not in _FREE}
    return {**found, MIDDLE: middle}


def _resolved(named: Named, function: Any) -> dict[str, Any]:
    """A name with all its options, those at their defaults too."""
    plain = (bool, int, float, str, list, tuple, type(None))
    defaults = {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters(function).items()
        if isinstance(p.default, plain)
    }
    found = {**defaults, **named.options}
    meant = getattr(function, "meant", None)
    return {**(found if meant is None else meant(found)), "name": named.name}


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            found |= _flat(value, name)
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _differs(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if then.get(key) == now.get(key):
        return False
    if key in then and key in now:
        return True
    # A setting that the version of then did not know decides nothing that is new, but an option
    # may be one that the config did not have.
    return key in then or key.startswith(("network.", "method.", "task."))


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not given"


def _samples(part: Part) -> dict[str, Tensor]:
    """Labels (N,), digests of the images' bytes (N,), and the images from afar (N, cells).

    Of targets that are no labels, their digests stand in their place.
    """
    targets = part.targets.detach().cpu().clone()
    return {
        "labels": targets if part.labels else row_digests(targets),
        "bytes": row_digests(part.images),
        "afar": _all_afar(part),
    }


def _all_afar(part: Part) -> Tensor:
    # In one block from the start: small ones between large images would keep their memory apart.
    first = _afar(part[[0]][0])
    found = first.new_empty((len(part), first.shape[1]))
    for ids in torch.arange(len(part)).split(_AT_ONCE):
        found[ids] = _afar(part[ids][0])
    return found


def _afar(images: Tensor) -> Tensor:
    """Images (B, C, *dims) as means of cells, (B, cells)."""
    if images.ndim < 3:
        return images.flatten(1).half().cpu()
    pool = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
    grey = images.float().mean(1, keepdim=True)
    if images.ndim not in pool:
        return grey.flatten(1).mean(1, keepdim=True).half().cpu()
    return pool[images.ndim](grey, _SIDE).flatten(1).half().cpu()


def _stored_otherwise(
    then: Mapping[str, Tensor], here: Mapping[str, Tensor], other: list[int]
) -> bool:
    """Whether images that differ in their bytes are the same ones: then most do, by little."""
    one, two = then["afar"].float(), here["afar"].float()
    # Of a few that differ someone has exchanged them, or touched them.
    if 2 * len(other) <= len(one) or one.shape != two.shape:
        return False
    return bool(((one - two).abs() <= _SLACK).all())


def _places(differs: Tensor) -> list[int]:
    return [int(i) for i in differs.nonzero().flatten()]


def _of(places: list[int], total: int) -> str:
    return f"{len(places)} of {total} (the first is number {places[0]})"
