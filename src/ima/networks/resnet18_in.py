"""ResNet-18 with InstanceNorm, as of Ma & Liang, 3.4, for CT slices.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with an InstanceNorm that has
weights in place of every BatchNorm, those of the shortcuts too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ima.networks.normalize import Normalize
from ima.networks.residual import Block


class ResNet18IN(nn.Module):
    """See `resnet18_in`."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(0.5, 0.5)
        self.stem = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.norm = nn.InstanceNorm2d(64, affine=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        before = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(before, width, stride), Block(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, channels, H, W) in [0, 1]."""
        # At 32 pixels one number a channel is left at the end: InstanceNorm would make it 0.
        if x.dim() != 4 or min(x.shape[2:]) < 33:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; resnet18_in expects (B, channels, H, W) with "
                "H, W of at least 33: enlarge them, or take another network"
            )
        stem = self.pool(F.relu(self.norm(self.stem(self.normalize(x)))))
        return self.head(self.blocks(stem).mean((2, 3)))


def resnet18_in(channels: int, num_classes: int) -> nn.Module:
    """Stem 7x7 of stride 2, max-pool, eight residual blocks with affine InstanceNorm, linear layer.

    Made for (B, 1, 224, 224); input (B, channels, H, W) with H, W of at least 33, values in [0, 1],
    brought to [-1, 1] inside; output (B, num_classes). Convolutions start by He's normal, fan out.
    The model raises ValueError for smaller images.
    """
    return ResNet18IN(channels, num_classes)
