"""Networks, one file an architecture, and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ima.imported import find_row
from ima.networks.imported import own_builder
from ima.networks.mlp import mlp
from ima.networks.paper_cnn import paper_cnn
from ima.networks.resnet18_in import resnet18_in
from ima.networks.small_cnn import small_cnn
from ima.networks.small_resnet import small_resnet
from ima.networks.wide_resnet import wide_resnet


@dataclass(frozen=True)
class NetworkRow:
    """One network: `build(channels, num_classes, **options)`, its source, one sentence."""

    build: Callable[..., nn.Module]
    paper: str
    summary: str

    @property
    def name(self) -> str:
        """Its name in configs: that of the function."""
        return self.build.__name__


NETWORKS = {
    row.name: row
    for row in (
        NetworkRow(small_cnn, "-", "Three convolutions, for 8x8 pixels and more."),
        NetworkRow(
            small_resnet,
            "after Ma & Liang, 3.4",
            "Three residual blocks with InstanceNorm, for 32x32 to 128x128 pixels.",
        ),
        NetworkRow(paper_cnn, "Ma & Liang, 3.3", "Seven convolutions, for 32x32 pixels."),
        NetworkRow(
            wide_resnet,
            "Zagoruyko & Komodakis, BMVC 2016",
            "WRN-28-4, or of another depth and width, with BatchNorm, for 32x32 pixels.",
        ),
        NetworkRow(
            resnet18_in,
            "Ma & Liang, 3.4",
            "ResNet-18 with InstanceNorm, for 224x224 pixels.",
        ),
        NetworkRow(mlp, "-", "A multilayer perceptron, for vectors."),
    )
}


def find_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a network in the table, or of one named by its import path, `module:name`.

    To be called with (channels, num_classes, **options); its signature names the options. Raises
    ValueError for a name that is neither, naming the nearest, and for what cannot be imported.
    """
    builders = {row.name: row.build for row in NETWORKS.values()}
    return find_row("network", name, builders, partial(own_builder, name))


def build(name: str, channels: int, num_classes: int, **options: Any) -> nn.Module:
    """A network by its name or import path, for so many channels and classes.

    Raises ValueError as `find_builder` does, and for options that an imported network does not
    take.
    """
    return find_builder(name)(channels, num_classes, **options)
