"""A small residual network with InstanceNorm, for images of 32x32 to 128x128 pixels.

The small sibling of the ResNet-18 with InstanceNorm of Ma & Liang, 3.4: one block a stage, a
quarter of the channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ima.networks.residual import Block


class SmallResNet(nn.Module):
    """See `small_resnet`."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 5, 2, 2, bias=False)
        self.norm = nn.InstanceNorm2d(width, affine=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, channels, H, W) in [0, 1]."""
        # At 16 pixels one number a channel is left at the end: InstanceNorm would make it 0.
        if x.dim() != 4 or min(x.shape[2:]) < 17:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; small_resnet expects (B, channels, H, W) "
                "with H, W of at least 17: enlarge them, or take another network"
            )
        stem = self.pool(F.relu(self.norm(self.stem((x - 0.5) / 0.5))))
        return self.head(self.blocks(stem).mean((2, 3)))


def small_resnet(channels: int, num_classes: int, *, width: int = 16) -> nn.Module:
    """Stem of stride 2, max-pool, three residual blocks with affine InstanceNorm, linear layer.

    width: channels of the stem, at least 1.

    Input (B, channels, H, W) with H, W of at least 17, values in [0, 1], brought to [-1, 1]
    inside; output (B, num_classes). The model raises ValueError for smaller images.
    """
    if width < 1:
        raise ValueError(f"width is {width}; expected at least 1")
    return SmallResNet(channels, num_classes, width)
