"""Trainers as users write them, in a folder for nnUNet_extTrainer: with networks of their own."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import (
    nnUNetTrainerBN,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (  # noqa: E501
    nnUNetTrainerNoDeepSupervision,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from ima.nnunet.trainers import nnUNetTrainerIMAPaper, nnUNetTrainerSAT, nnUNetTrainerSTD

plain = nnUNetTrainer.build_network_architecture


def swap(network: nn.Module) -> nn.Module:
    """Another activation: the weights are the same."""
    for layer in [*network.modules()]:
        for name, inner in [*layer.named_children()]:
            if isinstance(inner, nn.LeakyReLU):
                setattr(layer, name, nn.SiLU())
    return network


class Mine(nnUNetTrainerIMAPaper):
    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return swap(
            nnUNetTrainerIMAPaper.build_network_architecture(
                plans_manager,
                configuration_manager,
                num_input_channels,
                num_output_channels,
                enable_deep_supervision,
            )
        )


class Grandchild(Mine):
    """Its network is its parent's."""


class Swapped:
    """No trainer itself."""

    @staticmethod
    def build_network_architecture(plans_manager: Any, *rest: Any, **options: Any) -> nn.Module:
        return swap(plain(plans_manager, *rest, **options))


class Mixed(Swapped, nnUNetTrainerSAT):
    """Its network is the mixin's."""


class OldWay(nnUNetTrainerSTD):
    """The signature of before nnU-Net 2.7."""

    @staticmethod
    def build_network_architecture(
        architecture_class_name: str,
        arch_init_kwargs: dict[str, Any],
        arch_init_kwargs_req_import: list[str],
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return swap(
            get_network_from_plans(
                architecture_class_name,
                arch_init_kwargs,
                arch_init_kwargs_req_import,
                num_input_channels,
                num_output_channels,
                deep_supervision=enable_deep_supervision,
            )
        )


class Bent(nn.Module):
    """The same weights and layers, other answers."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.decoder = inner, inner.decoder

    def forward(self, x: Tensor) -> Any:
        return self.inner(torch.tanh(x))


class Functional(nnUNetTrainerSAT):
    @staticmethod
    def build_network_architecture(plans_manager: Any, *rest: Any, **options: Any) -> nn.Module:
        return Bent(plain(plans_manager, *rest, **options))


class BatchNormed(nnUNetTrainerIMAPaper, nnUNetTrainerBN):
    """Its network is one of nnU-Net's own variants."""


class Shallow(nnUNetTrainerIMAPaper, nnUNetTrainerNoDeepSupervision):
    """Its network is nnU-Net's, without deep supervision."""


class Longer(nnUNetTrainerIMAPaper):
    """Its network is nnU-Net's."""


class Late(nnUNetTrainerSTD):
    """Changes its network where nnU-Net does not look."""

    def initialize(self) -> None:
        super().initialize()
        swap(self.network)


class LateAnswers(nnUNetTrainerSAT):
    """The same, with other answers of the same layers."""

    def initialize(self) -> None:
        super().initialize()
        network: Any = self.network
        network.encoder.register_forward_pre_hook(lambda _, given: torch.tanh(given[0]))


class LateLayers(nnUNetTrainerIMAPaper):
    """The same, with another network altogether."""

    def initialize(self) -> None:
        super().initialize()
        self.network = Bent(self.network)


class LateStart(nnUNetTrainerSTD):
    """Changes its network where the training begins."""

    def on_train_start(self) -> None:
        super().on_train_start()
        swap(self.network)


class OfAnObject(nnUNetTrainerSTD):
    """nnU-Net asks the class for the network, not an object of it."""

    def build_network_architecture(self, plans_manager: Any, *rest: Any, **options: Any) -> Any:
        return swap(plain(plans_manager, *rest, **options))


class Theirs(nnUNetTrainer):
    """No trainer of this library."""

    @staticmethod
    def build_network_architecture(plans_manager: Any, *rest: Any, **options: Any) -> nn.Module:
        return swap(plain(plans_manager, *rest, **options))
