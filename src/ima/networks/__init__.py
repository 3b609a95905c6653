"""Networks, one file an architecture, and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from ima.networks.imported import import_builder
from ima.networks.mlp import mlp
from ima.networks.paper_cnn import paper_cnn
from ima.networks.resnet18_in import resnet18_in
from ima.networks.small_cnn import small_cnn
from ima.networks.small_resnet import small_resnet
from ima.networks.wide_resnet import wide_resnet


@dataclass(frozen=True)
class NetworkRow:
    """One network: name in configs, `build(channels, num_classes, **options)`, one sentence."""

    name: str
    build: Callable[..., nn.Module]
    paper: str
    summary: str


NETWORKS = {
    row.name: row
    for row in (
        NetworkRow("small_cnn", small_cnn, "-", "Three convolutions, for 8x8 pixels and more."),
        NetworkRow(
            "small_resnet",
            small_resnet,
            "after Ma & Liang, 3.4",
            "Three residual blocks with InstanceNorm, for 32x32 to 128x128 pixels.",
        ),
        NetworkRow(
            "paper_cnn", paper_cnn, "Ma & Liang, 3.3", "Seven convolutions, for 32x32 pixels."
        ),
        NetworkRow(
            "wide_resnet",
            wide_resnet,
            "Zagoruyko & Komodakis, BMVC 2016",
            "WRN-28-4, or of another depth and width, with BatchNorm, for 32x32 pixels.",
        ),
        NetworkRow(
            "resnet18_in",
            resnet18_in,
            "Ma & Liang, 3.4",
            "ResNet-18 with InstanceNorm, for 224x224 pixels.",
        ),
        NetworkRow("mlp", mlp, "-", "A multilayer perceptron, for vectors."),
    )
}


def find_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a network in the table, or of one named by its import path, `module:function`.

    To be called with (channels, num_classes, **options); its signature names the options. Raises
    ValueError for a name that is neither, naming the nearest, and for what cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name].build
    if ":" in name:
        return import_builder(name)
    near = get_close_matches(name, NETWORKS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown network {name!r}{hint} Known: {', '.join(NETWORKS)}, or 'module:function'"
    )


def build(name: str, channels: int, num_classes: int, **options: Any) -> nn.Module:
    """A network by its name or import path, for so many channels and classes.

    Raises ValueError as `find_builder` does, and for options that an imported network does not
    take.
    """
    return find_builder(name)(channels, num_classes, **options)
