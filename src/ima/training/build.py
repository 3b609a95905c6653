"""What a config describes, as objects: model, optimiser, learning rate."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ima.attacks.lockstep import processes
from ima.attacks.walk import eval_forward
from ima.data import Splits, load
from ima.data.flip import flip_labels
from ima.evaluation.attacks import find_attacks
from ima.extras import need
from ima.methods import Method
from ima.networks import NETWORKS, find_builder
from ima.networks.imported import ARGUMENTS
from ima.norms import get_norm
from ima.tasks import Task, check_fit, check_task
from ima.training.config import build_task, make_method
from ima.training.config_errors import check_options
from ima.training.settings import Config, Optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BOUNDS = (0.0, 1.0)
"""Of all data sets here: images in [0, 1]."""


def build_fabric(
    device: str, *, devices: int = 1, nodes: int = 1, precision: Any = "32-true"
) -> Fabric:
    """Lightning Fabric on a device; ValueError that says which there are."""
    need("cli")
    from lightning_fabric import Fabric

    which: Any = devices
    if devices == 1 and processes() > 1 and device in ("auto", "cuda", "gpu"):
        # Each of the processes that share an evaluation has one of its own.
        which = [torch.cuda.current_device()] if torch.cuda.is_available() else devices
    try:
        with warnings.catch_warnings():
            # Whether a command runs under Slurm is for the user to say: see `ima.training.launch`.
            warnings.filterwarnings("ignore", "The `srun` command is available")
            return Fabric(accelerator=device, devices=which, num_nodes=nodes, precision=precision)
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


def describe_device(device: torch.device) -> str:
    """A device with the name of its kind, where it has one: `cuda:0 (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def load_splits(config: Config) -> Splits:
    """The config's data set, with the training labels flipped that `data.flip` asks for."""
    data = config.data
    splits = load(data.name, path=data.path, size=data.size, seed=data.seed)
    if data.augment and splits.train.targets.ndim > 2:
        raise ValueError(
            f"data.augment is {', '.join(data.augment)}, which changes the images and not their "
            f"targets of shape {tuple(splits.train.targets.shape[1:])}; leave it out"
        )
    return flip_labels(splits, data.flip, data.seed) if data.flip else splits


def build_method(config: Config, num_samples: int, *, augmented: bool) -> Method:
    """The config's method for a training part of so many samples."""
    return make_method(
        "method",
        config.method,
        num_samples=num_samples,
        norm=config.norm,
        bounds=BOUNDS,
        seed=config.train.seed,
        augmented=augmented,
        task=build_task(config),
    )


def build_model(config: Config, splits: Splits) -> nn.Module:
    """The config's network for the data set's channels and classes."""
    builder = find_builder(config.network.name)
    options = check_options("network", builder, config.network, ARGUMENTS)
    try:
        return builder(splits.channels, splits.num_classes, **options)
    except Exception as error:  # Whatever code of others raises.
        raise ValueError(
            f"network {config.network.name!r} cannot be built for {splits.channels} channels and "
            f"{splits.num_classes} classes with the options {options}: {error}"
        ) from error


def check_buildable(config: Config) -> None:
    """Raise ValueError or FileNotFoundError where data are missing or the network is none.

    Or where an attack of the test part cannot run.
    """
    splits, task, norm = load_splits(config), check_task(build_task(config)), get_norm(config.norm)
    for which in ("best", "last"):
        find_attacks(config.evaluate.attacks_on(which), task, norm, BOUNDS)
    # What others' code raises stands in the log of the run.
    if config.network.name in NETWORKS:
        build_model(config, splits)


def copyable(model: nn.Module) -> nn.Module:
    """The model, fit to be copied: without graphs on what hooks left in it.

    The old `weight_norm` and `spectral_norm` keep a weight that is computed, and of which nothing
    copies; the next pass computes it anew.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                vars(module)[name] = value.detach()
    return model


def check_fits(fabric: Fabric, model: nn.Module, task: Task, name: str, splits: Splits) -> None:
    """Raise ValueError where the network cannot take a training image, or has too few outputs."""
    # On the device of the training, where the network goes anyway.
    model, (x, y) = fabric.to_device(model), fabric.to_device(splits.train[[0]])
    if splits.train.labels:
        y.fill_(int(splits.train.targets.max()))
    try:
        check_fit(task, eval_forward(model, x), y, len(x))
    except Exception as error:  # whatever a network or a task of a user's own raises
        raise ValueError(
            f"network {name!r} cannot take samples of shape {splits.shape} and tell "
            f"{splits.num_classes} classes apart: {error}. Take one that does (`ima list "
            "networks`), or resize images with data.size"
        ) from error


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
