"""A multilayer perceptron, for samples that are vectors."""

from __future__ import annotations

from torch import Tensor, nn


class Vectors(nn.Module):
    """Brings vectors of `channels` entries from [0, 1] to [-2, 2], and refuses other samples."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels) to the same shape."""
        if x.shape[1:] != (self.channels,):
            raise ValueError(
                f"samples have shape {tuple(x.shape)}; expected (B, {self.channels}): mlp takes "
                "vectors, see `ima list networks` for others"
            )
        return 4 * x - 2


def mlp(channels: int, num_classes: int, *, width: int = 64, depth: int = 3) -> nn.Module:
    """Hidden layers with SiLU, and one linear layer.

    width: units of a hidden layer, at least 1.
    depth: how many hidden layers, at least 1.

    Input (B, channels), values in [0, 1]; output (B, num_classes). SiLU, because its decision
    boundaries are smooth; no normalisation layer: samples never meet. Raises ValueError for
    other values, and in the forward pass for samples of another shape.
    """
    for name, value in (("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    layers: list[nn.Module] = [Vectors(channels)]
    for number in range(depth):
        layers += [nn.Linear(width if number else channels, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
