"""BatchNorm that takes its statistics from the batch at hand, so that samples meet in it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import (
    _BatchNorm,  # pyright: ignore[reportPrivateUsage]  # the base of all of them
)

TORCH_SAYS = "Expected more than 1 value per channel"
"""How torch's own error begins where a batch has one value a channel."""


def without_statistics(model: Any) -> list[str]:
    """The names of the BatchNorm layers that keep no running statistics."""
    if not isinstance(model, nn.Module):
        return []
    # Names as the user gave them: within what an evaluation watches through.
    model = getattr(model, "watched", model)
    return [
        name or type(layer).__name__
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is None
    ]


def list_layers(layers: list[str]) -> str:
    """Such as `BatchNorm layer "bn1" has track_running_stats=False`."""
    few = ", ".join(f'"{name}"' for name in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    one = len(layers) == 1
    return (
        f"BatchNorm layer{'' if one else 's'} {few}{more} {'has' if one else 'have'} "
        "track_running_stats=False"
    )


@contextmanager
def told_apart(model: Any) -> Generator[None]:
    """Within: torch's error of a BatchNorm with one value a channel says which layer, and why."""
    try:
        yield
    except ValueError as error:
        if TORCH_SAYS not in str(error) or not isinstance(model, nn.Module):
            raise
        raise ValueError(_lonely(without_statistics(model))) from error


def _lonely(layers: list[str]) -> str:
    if not layers:
        return (
            "a BatchNorm layer takes its statistics from the batch, and one sample came alone, "
            "with one value a channel: in training leave out a last batch of one sample "
            "(drop_last=True), for evaluation let the layer use running statistics"
        )
    return (
        f"{list_layers(layers)}: it takes its statistics from the batch, and one sample came "
        "alone, with one value a channel, as when all other samples of a batch are done. Give the "
        "layer running statistics (track_running_stats=True), or use GroupNorm or LayerNorm, which "
        "look at each sample by itself"
    )
