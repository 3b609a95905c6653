"""A small convolutional network for any gray or colour image of 8x8 pixels and more."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Pool(nn.Module):
    """Averages features to 4x4; those that are 4x4 pass as they are, which saves time."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 4, 4)."""
        return x if x.shape[-2:] == (4, 4) else F.adaptive_avg_pool2d(x, 4)


def small_cnn(channels: int, num_classes: int, *, width: int = 32) -> nn.Module:
    """Three 3x3 convolutions, the second of stride 2, averaged to 4x4, and one linear layer.

    width: channels of the first convolution, at least 1.

    Input (B, channels, H, W) with H, W of at least 8, values in [0, 1]; output (B, num_classes).
    No normalisation layer: samples never meet.
    """
    if width < 1:
        raise ValueError(f"width is {width}; expected at least 1")
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.LeakyReLU(),
        Pool(),
        nn.Flatten(),
        nn.Linear(32 * width, num_classes),
    )
