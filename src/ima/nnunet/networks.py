"""Whose network a checkpoint holds: the trainer that builds it, and what tells it from others.

Two networks can have the same weights and differ in what lies between them: an activation, a
connection. So a checkpoint names the class that builds its network, and keeps a digest of all
layers and what the network answers to one fixed sample.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ima.nnunet.environment import EXTERNAL

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

PLAIN = "nnUNetTrainer"
"""The trainer whose network is that of the plans."""

OWN_TRAINER = re.compile(r"nnUNetTrainer(STD|SAT\d*|IMA)")
"""This library's trainers, which build the same network."""

BUILDS = "build_network_architecture"

STRUCTURE, ANSWERS = "layers", "answers"
"""What a checkpoint keeps of its network."""

OTHER_LAYERS = "it has other layers"
OTHER_ANSWERS = "with the same weights it answers otherwise"
"""How a network differs from another."""

KEPT = 64
"""So many numbers of the answer are kept."""

_SLACK = 0.05
"""By so much of the largest number answers may differ: devices round, and some do so coarsely."""


def refuse_cascade(configuration: str, stage: ConfigurationManager) -> None:
    """Raise ValueError for the second stage of a cascade."""
    if stage.previous_stage_name is not None:
        raise ValueError(
            f"{configuration} is the second stage of a cascade, whose input holds labels beside "
            "the image; noise is defined on images alone: expected 2d, 3d_fullres or 3d_lowres"
        )


def builder_of(trainer: type[Any]) -> str:
    """The name of the trainer that builds this one's network, as a checkpoint should give it.

    One of nnU-Net's own where they do, so that nnU-Net needs nothing else to predict; otherwise
    the trainer's own name, which nnU-Net finds where it found it for the training.
    """
    definer = next(kind for kind in trainer.__mro__ if BUILDS in vars(kind))
    own = definer.__module__.partition(".")[0] == "nnunetv2"
    return (
        definer.__name__
        if own and isinstance(vars(definer)[BUILDS], staticmethod)
        else (trainer.__name__)
    )


def network_told(trainer: type[Any]) -> list[str]:
    """What a training with a network of its own should know, a line each."""
    builder = builder_of(trainer)
    if builder == PLAIN:
        return []
    return [
        f"network: that of {builder}; who predicts with it needs the file that defines it, as here"
    ]


def check_network(trainer: nnUNetTrainer) -> None:
    """Raise ValueError where the network of an initialised trainer is not the one it builds.

    nnU-Net would predict with the one that it builds: with the trained weights, but with another
    network than the trained one.
    """
    kind, network = type(trainer), cast("nn.Module", trainer.network)
    trained = bare(network)
    if not isinstance(inspect.getattr_static(kind, BUILDS), staticmethod | classmethod):
        raise ValueError(
            f"{kind.__name__} has a {BUILDS} of its objects; expected a @staticmethod, because "
            "nnU-Net asks the class for the network when it predicts"
        )
    channels = int(trainer.num_input_channels or 0)
    with torch.random.fork_rng(devices=[]):
        fresh = build_network(
            kind,
            trainer.plans_manager,
            trainer.configuration_manager,
            channels,
            trainer.label_manager.num_segmentation_heads,
            deep_supervision=trainer.enable_deep_supervision,
        )
    patch = trainer.configuration_manager.patch_size
    found = OTHER_LAYERS if structure(fresh) != structure(trained) else None
    if found is None:
        fresh.to(trainer.device).load_state_dict(trained.state_dict())
        found = difference(fresh, portrait(trained, channels, patch), channels, patch)
    if found is not None:
        raise ValueError(
            f"the network of {kind.__name__} is not the one that its {BUILDS} builds: {found} than "
            f"the one that is trained; nnU-Net calls nothing but {BUILDS} to predict, so it would "
            "predict with another network. Move the change of the network into it"
        )


def find_builder(name: str) -> type[Any]:
    """The class of a trainer, as nnU-Net looks for it; ValueError where it is not found."""
    from ima.torchvision_compat import mend_torchvision

    mend_torchvision()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    searched = os.environ.get(EXTERNAL) or "not set"
    try:
        # It tells step by step where it looks.
        with redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise ValueError(
            f"the network was built by the trainer {name}, which is found neither in nnU-Net nor "
            f"in the folders of {EXTERNAL} ({searched}); set it to the folder of the file that "
            f"defines {name}: without it nobody knows what lies between the weights ({error!r})"
        ) from error


def build_network(
    trainer: type[Any],
    plans: PlansManager,
    stage: ConfigurationManager,
    channels: int,
    heads: int,
    *,
    deep_supervision: bool = False,
) -> nn.Module:
    """The network as the trainer builds it, by nnU-Net's signature of today or the one before."""
    make = getattr(trainer, BUILDS)
    if "plans_manager" in inspect.signature(make).parameters:
        return make(plans, stage, channels, heads, enable_deep_supervision=deep_supervision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(
            stage.network_arch_class_name,
            stage.network_arch_init_kwargs,
            stage.network_arch_init_kwargs_req_import,
            channels,
            heads,
            enable_deep_supervision=deep_supervision,
        )


def bare(network: nn.Module) -> nn.Module:
    """The network without what DDP and torch.compile put around it."""
    inner: Any = network
    if isinstance(inner, DistributedDataParallel):
        inner = inner.module
    # By its name: a network of a user's own may have a part called `module`.
    return inner._orig_mod if type(inner).__name__ == "OptimizedModule" else inner


def structure(network: nn.Module) -> str:
    """A digest of all layers: their names, kinds and settings, not their weights."""
    # Several processes turn batch norm into its synchronised kind, and a layer that is named twice
    # into two.
    lines = [
        f"{name} {re.sub(r'^(Sync)?BatchNorm([123]d)?$', 'BatchNorm', type(layer).__qualname__)} "
        f"{layer.extra_repr()}"
        for name, layer in bare(network).named_modules(remove_duplicate=False)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def traced_answers(network: nn.Module, channels: int, patch: Sequence[int]) -> Tensor:
    """Some of what the network answers to one fixed patch; the network is afterwards as before."""
    network = bare(network)
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    waves = torch.arange(channels * math.prod(patch), dtype=torch.float32).mul(0.37).sin()
    modes = [(layer, layer.training) for layer in network.modules()]
    cards = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=cards):
            output: Any = network.eval()(waves.reshape(1, channels, *patch).to(device))
    finally:
        for layer, mode in modes:
            layer.training = mode
    # In deep supervision the whole resolution comes first.
    while isinstance(output, list | tuple):
        output = output[0]
    flat = output.detach().flatten().float().cpu()
    return flat[torch.linspace(0, len(flat) - 1, min(KEPT, len(flat))).long()]


def takes(network: nn.Module, channels: int, size: Sequence[int]) -> bool:
    """Whether a network in evaluation mode takes samples of this size, and gives as large ones."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output: Any = network.eval()(torch.zeros(1, channels, *size))
    except Exception:
        return False
    return isinstance(output, Tensor) and tuple(output.shape[2:]) == tuple(size)


def portrait(network: nn.Module, channels: int, patch: Sequence[int]) -> dict[str, Any]:
    """What a checkpoint keeps of its network, see `check_portrait`."""
    try:
        given = traced_answers(network, channels, patch)
    except Exception:
        # A training must not end for a record of it.
        given = torch.empty(0)
    return {STRUCTURE: structure(network), ANSWERS: given}


def difference(
    network: nn.Module, kept: Mapping[str, Any], channels: int, patch: Sequence[int]
) -> str | None:
    """In what a network differs from the one whose portrait was kept; None where it is the same."""
    if kept.get(STRUCTURE, structure(network)) != structure(network):
        return OTHER_LAYERS
    known = kept.get(ANSWERS)
    if known is None or len(known) == 0 or not bool(torch.isfinite(known).all()):
        return None
    now = traced_answers(network, channels, patch)
    near = len(now) == len(known) and bool(
        ((now - known).abs() <= _SLACK * known.abs().max() + 1e-6).all()
    )
    return None if near else OTHER_ANSWERS


def check_portrait(
    network: nn.Module, kept: Mapping[str, Any], channels: int, patch: Sequence[int], where: str
) -> None:
    """Raise ValueError for a network with other layers or other answers than the one that was kept.

    where: names checkpoint and trainer in the message.
    """
    found = difference(network, kept, channels, patch)
    if found is not None:
        raise ValueError(
            f"{where}: {found} than the one that was trained; use it with the file that defined "
            f"its trainer in training; a trainer changes its network in {BUILDS}, because nnU-Net "
            "too calls nothing else to predict"
        )
