"""What a config describes, as objects: model, optimiser, learning rate."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ima.data import Splits, load
from ima.data.flip import flip_labels
from ima.methods import METHODS, Method
from ima.networks import find_builder
from ima.networks.imported import ARGUMENTS
from ima.training.config import Config, Optimizer, method_options
from ima.training.refusal import check_options
from ima.training.run import Run

BOUNDS = (0.0, 1.0)
"""Of all data sets here: images in [0, 1]."""

TRACED = 64
"""So many samples of a part tell whether it is the same."""

SLACK = 0.02
"""By so much the means of an image may differ that is stored as JPEG, or resized, elsewhere."""


def build_fabric(
    device: str, *, devices: int = 1, nodes: int = 1, precision: Any = "32-true"
) -> Fabric:
    """Lightning Fabric on a device; ValueError that says which there are."""
    try:
        return Fabric(accelerator=device, devices=devices, num_nodes=nodes, precision=precision)
    except Exception as error:
        raise ValueError(
            f"device {device!r} with --devices {devices} cannot be used: {error}"
        ) from error


def asked(devices: int) -> dict[str, int]:
    """Devices and nodes of a training: what `torchrun` says, where it started this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {"devices": devices}
    local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    return {"devices": local, "nodes": world // local}


def describe(device: torch.device) -> str:
    """A device with the name of its kind, where it has one: `cuda:0 (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def load_splits(config: Config) -> Splits:
    """The config's data set, with the training labels flipped that `data.flip` asks for."""
    data = config.data
    splits = load(data.name, path=data.path, size=data.size, seed=data.seed)
    return flip_labels(splits, data.flip, data.seed) if data.flip else splits


def splits_of(run: Run) -> Splits:
    """The run's data set; ValueError where other samples stand where those were that it began with.

    Margins and figures belong to samples by their place.
    """
    config = run.config()
    splits, known = load_splits(config), run.environment().get("trace")
    now = trace(splits)
    if known is not None and not same_samples(known, now):
        had, has = (f"{first[0]:.0f} and {first[1]:.0f}" for first in (known[0], now[0]))
        place = f"data.path {config.data.path}" if config.data.path else "the data's folder"
        raise ValueError(
            f"{run.folder} was begun on other samples, or on these in another order ({had} to "
            f"train and validate on, now {has}): {place} holds other files since; put the old ones "
            "back, or begin a new run with --out"
        )
    return splits


def trace(splits: Splits) -> list[tuple[float, float]]:
    """Label and mean of some training and validation samples, evenly spread, to know them again.

    First the number of samples of either part. Nothing of the test part: training does not look
    at it.
    """
    found = [(float(len(splits.train)), float(len(splits.val)))]
    for part in (splits.train, splits.val):
        at = torch.linspace(0, len(part) - 1, min(TRACED, len(part))).round().long()
        means = part.images[at].flatten(1).double().mean(1)
        found += zip(part.targets[at].double().tolist(), means.tolist(), strict=True)
    return found


def same_samples(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> bool:
    """Whether two traces are of the same samples; stored or resized otherwise they still are."""
    return len(one) == len(other) and all(
        label == again and abs(mean - seen) <= SLACK
        for (label, mean), (again, seen) in zip(one, other, strict=True)
    )


def build_method(config: Config, num_samples: int, *, augmented: bool) -> Method:
    """The config's method for a training part of so many samples."""
    options = method_options(
        config,
        num_samples=num_samples,
        norm=config.norm,
        bounds=BOUNDS,
        seed=config.train.seed,
        augmented=augmented,
    )
    return METHODS[config.method.name].method(**options)


def build_model(config: Config, splits: Splits) -> nn.Module:
    """The config's network for the data set's channels and classes."""
    builder = find_builder(config.network.name)
    options = check_options("network", builder, config.network, ARGUMENTS)
    return builder(splits.channels, splits.num_classes, **options)


def build_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimiser over all parameters."""
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=config.momentum, **shared)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(model.parameters(), **shared)


def learning_rate(config: Optimizer, epoch: int, epochs: int) -> float:
    """The learning rate of epoch number `epoch` of `epochs`."""
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
    if config.schedule == "steps":
        return config.lr * config.gamma ** sum(epoch >= m for m in config.milestones)
    return config.lr


def load_into(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load weights into a model; ValueError that names the first difference."""
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit this network: {error}") from error
