"""Networks, one file an architecture, and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from torch import nn

from ima.networks.small_cnn import small_cnn
from ima.networks.small_resnet import small_resnet


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
    )
}


def find_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a network in the table, or of one named by its import path, `module:function`.

    Raises ValueError for a name that is neither, naming the nearest; ImportError's text names the
    module that could not be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name].build
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            builder = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"network {name!r} cannot be imported: {error}") from error
        return builder
    near = get_close_matches(name, NETWORKS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown network {name!r}{hint} Known: {', '.join(NETWORKS)}, or 'module:function'"
    )
