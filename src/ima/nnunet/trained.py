"""A trained nnU-Net as a folder: its network, built from the plans, with the weights of a fold.

No code is unpickled: the checkpoint may hold tensors, numbers and strings only, and the network's
class must be one of nnU-Net's architectures. A trainer is looked up where it builds a network of
its own, by name, among nnU-Net's and those in the user's folders of nnUNet_extTrainer.
"""

from __future__ import annotations

import math
import pydoc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ima.files import file_digest, read_json
from ima.nnunet.networks import (
    OWN_TRAINER,
    PLAIN,
    build_network,
    builder_of,
    check_portrait,
    find_builder,
    refuse_cascade,
    takes,
)
from ima.tasks import Segmentation

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )

_NUMBERS = (np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_)
"""The kinds of numbers that nnU-Net's own log of a training holds."""

ARCHITECTURES = "dynamic_network_architectures."
LAYERS = (ARCHITECTURES, "torch.nn.")
"""Where a plan's network, and what it is built of, may come from."""


class Padded(nn.Module):
    """A network that sees every sample within zeros, as nnU-Net pads; its output is cut back.

    A side is padded to at least `least`, and to a multiple of `multiple`, the same on both ends
    (one more at the far one). So noise on a sample lives on the image alone.
    """

    def __init__(self, network: nn.Module, least: Sequence[int], multiple: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.least, self.multiple = tuple(least), tuple(multiple)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, *S) of samples (B, channels, *S)."""
        size = x.shape[2:]
        wanted = [
            math.ceil(max(side, least) / step) * step
            for side, least, step in zip(size, self.least, self.multiple, strict=True)
        ]
        before = [(whole - side) // 2 for whole, side in zip(wanted, size, strict=True)]
        pads: list[int] = []
        for whole, side, low in reversed(list(zip(wanted, size, before, strict=True))):
            pads += [low, whole - side - low]
        inner = [slice(low, low + side) for low, side in zip(before, size, strict=True)]
        return self.network(F.pad(x, pads))[(..., *inner)]


@dataclass(frozen=True, eq=False)
class Trained:
    """One fold of a trained nnU-Net.

    folder: the fold's; trainer: its name; configuration: such as `"2d"`; which: `"final"` or
    `"best"` weights; weights: the network's state_dict; digest: of the checkpoint's file; builder:
    the trainer that builds the network; kept: what the checkpoint keeps of it, see `portrait`.
    """

    folder: Path
    trainer: str
    configuration: str
    which: str
    plans: PlansManager
    dataset_json: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    digest: str
    builder: str = PLAIN
    kept: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def open(
        folder: Path, fold: str | None = None, which: Literal["final", "best"] = "final"
    ) -> Trained:
        """Read a folder such as `Dataset004_Hippocampus/nnUNetTrainerIMA__nnUNetPlans__2d`.

        folder: also that of a fold in it; fold: `"0"` or `"all"`, the only one if None.
        Raises FileNotFoundError for what is not there, and ValueError for damaged files, for a
        checkpoint that would execute code, and for the second stage of a cascade.
        """
        from ima.nnunet.environment import check_version

        check_version()
        path = _fold(folder, fold, which) / f"checkpoint_{which}.pth"
        plans = _json(path.parent.parent / "plans.json")
        dataset_json = _json(path.parent.parent / "dataset.json")
        # Before it is read: results of weights that are replaced meanwhile count as old.
        of_file = file_digest(path)
        checkpoint = _checkpoint(path)
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        try:
            manager = PlansManager(plans)
            configuration = str(checkpoint["init_args"]["configuration"])
            stage = manager.get_configuration(configuration)
            weights = {_plain(name): value for name, value in checkpoint["network_weights"].items()}
            ours = checkpoint.get("ima")
            trainer = (
                path.parent.parent.name.partition("__")[0] if ours is None else ours["trainer"]
            )
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{path} and the plans.json above it are no trained nnU-Net: {error!r}"
            ) from error
        refuse_cascade(configuration, stage)
        return Trained(
            path.parent,
            str(trainer),
            configuration,
            which,
            manager,
            dataset_json,
            weights,
            of_file,
            _builder(checkpoint),
            {} if ours is None else ours.get("network", {}),
        )

    @property
    def dataset(self) -> str:
        """The data set's name, such as `Dataset004_Hippocampus`."""
        return self.plans.dataset_name

    @property
    def stage(self) -> ConfigurationManager:
        """The plan of this configuration."""
        return self.plans.get_configuration(self.configuration)

    @property
    def patch(self) -> tuple[int, ...]:
        """The size of a patch in training, two numbers or three."""
        return tuple(int(side) for side in self.stage.patch_size)

    @property
    def labels(self) -> LabelManager:
        """What the labels mean, in nnU-Net's own words."""
        return self.plans.get_label_manager(dict(self.dataset_json))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the foreground classes or regions, in the order of the outputs."""
        named = self.dataset_json["labels"]
        if self.labels.has_regions:
            return tuple(n for n in named if n not in ("background", "ignore"))
        foreground = {int(label): n for n, label in named.items() if n != "ignore"}
        return tuple(foreground[label] for label in sorted(foreground) if label > 0)

    def task(self) -> Segmentation:
        """What the outputs mean."""
        regions = self.labels.has_regions
        return Segmentation(
            regions=regions, ignore_label=None if regions else self.labels.ignore_label
        )

    def network(self) -> Padded:
        """The network with its weights, in evaluation mode, without deep supervision."""
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        stage = self.stage
        name, options = stage.network_arch_class_name, dict(stage.network_arch_init_kwargs)
        imported = list(stage.network_arch_init_kwargs_req_import)
        _ours(name, ARCHITECTURES)
        for key in imported:
            if options.get(key) is not None:
                _ours(options[key], LAYERS)
        channels = determine_num_input_channels(self.plans, stage, dict(self.dataset_json))
        heads = self.labels.num_segmentation_heads
        trainer = None if self.builder == PLAIN else find_builder(self.builder)
        if trainer is None or builder_of(trainer) == PLAIN:
            network = get_network_from_plans(
                name, options, imported, channels, heads, allow_init=False, deep_supervision=False
            )
        else:
            network = build_network(trainer, self.plans, stage, channels, heads)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {self.folder} do not fit the network of its plans; {self.trainer} "
                f"may build another one: {error}"
            ) from error
        check_portrait(
            network,
            self.kept,
            channels,
            self.patch,
            f"the network that {self.builder} builds is not that of {self.folder}",
        )
        total = np.prod(np.array(options.get("strides", [self.patch]), dtype=int), axis=0)
        strides = np.broadcast_to(total, len(self.patch)).tolist()
        if not takes(network, channels, [p + s for p, s in zip(self.patch, strides, strict=True)]):
            # One of a trainer's own may halve its input more often than the plans say.
            strides = self.patch
        return Padded(network, self.patch, strides).eval()


def _builder(checkpoint: Mapping[str, Any]) -> str:
    """The trainer whose network it is."""
    ours = checkpoint.get("ima")
    if ours is None or "network" in ours:
        return str(checkpoint.get("trainer_name", PLAIN))
    # Such files said that the network was nnU-Net's, whoever built it.
    trainer = str(ours["trainer"])
    return PLAIN if OWN_TRAINER.fullmatch(trainer) else trainer


def _fold(folder: Path, fold: str | None, which: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; expected one such as "
            "nnUNet_results/Dataset004_Hippocampus/nnUNetTrainerIMA__nnUNetPlans__2d"
        )
    own = (folder / f"checkpoint_{which}.pth").is_file() and fold in (None, _number(folder))
    if own:
        return folder
    found = {
        _number(path.parent): path.parent for path in folder.glob(f"fold_*/checkpoint_{which}.pth")
    }
    if fold is None and len(found) > 1:
        raise ValueError(f"{folder} holds folds {', '.join(sorted(found))}; say --fold")
    if not found or (fold is not None and fold not in found):
        held = f"it holds folds {', '.join(sorted(found))}" if found else "it holds none"
        hint = (
            "; a training that is not finished has --weights best"
            if which == "final" and any(folder.rglob("checkpoint_best.pth"))
            else ""
        )
        wanted = "fold_*" if fold is None else f"fold_{fold}"
        raise FileNotFoundError(
            f"there is no {wanted}/checkpoint_{which}.pth in {folder} ({held}){hint}"
        )
    return next(iter(found.values())) if fold is None else found[fold]


def _number(folder: Path) -> str:
    return folder.name.removeprefix("fold_")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}; expected nnU-Net's results folder as it "
            "left it"
        )
    return read_json(path)


def _checkpoint(path: Path) -> dict[str, Any]:
    from numpy._core.multiarray import scalar  # pyright: ignore[reportPrivateImportUsage]

    # A number of numpy is a function, a kind and bytes; files of numpy 1 name another module.
    known: list[Any] = [
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in _NUMBERS),
    ]
    try:
        with torch.serialization.safe_globals(known):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, numbers and strings: loading it could "
            "execute code, so it is refused. Use a checkpoint as nnU-Net wrote it"
        ) from error
    if not isinstance(found, dict) or not {"network_weights", "init_args"} <= found.keys():
        raise ValueError(f"{path} is no checkpoint of nnU-Net; expected network_weights in it")
    return found


def _ours(name: Any, where: str | tuple[str, ...]) -> None:
    """Raise ValueError unless a plan's name is that of a module's class from where it should be."""
    found = pydoc.locate(name) if isinstance(name, str) and name.startswith(where) else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(
            f"plans.json names {name!r} as part of the network; expected a layer of torch.nn or an "
            f"architecture of nnU-Net ({ARCHITECTURES}*)"
        )


def _plain(name: str) -> str:
    """A weight's name without what DDP and torch.compile put before it."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")
