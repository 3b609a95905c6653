"""The wide residual network of Ma & Liang for CIFAR-10, WRN-28-4, and its siblings.

Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016: pre-activation, BatchNorm, no dropout.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ima.networks.normalize import Standardize


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice; a convolved shortcut leaves after the first ReLU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        inner = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return inner + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """See `wide_resnet`."""

    def __init__(self, channels: int, num_classes: int, blocks: int, width: int) -> None:
        super().__init__()
        self.standardize = Standardize()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        layers: list[nn.Module] = []
        before = 16
        for inside, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            layers.append(Block(before, inside, stride))
            layers.extend(Block(inside, inside, 1) for _ in range(blocks - 1))
            before = inside
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, channels, H, W) in [0, 1]."""
        inner = self.blocks(self.stem(self.standardize(x)))
        return self.head(F.relu(self.norm(inner)).mean((2, 3)))


def wide_resnet(channels: int, num_classes: int, *, depth: int = 28, width: int = 4) -> nn.Module:
    """WRN-depth-width: a convolution, three groups of (depth - 4) / 6 blocks, a linear layer.

    depth: convolutions, 6n + 4 with n of at least 1.
    width: how many times as wide as ResNet's, at least 1.

    Input (B, channels, H, W), values in [0, 1], each image standardised inside; output
    (B, num_classes). 16 channels, then 16, 32 and 64 times `width`; strides 1, 2, 2. Convolutions
    start as in the paper: He's normal, by fan out. Raises ValueError for a depth that is not 6n + 4
    with n of at least 1, and for a width below 1.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth is {depth}; expected 6n + 4 with n >= 1, as 10, 16, 22 or 28")
    if width < 1:
        raise ValueError(f"width is {width}; expected at least 1")
    return WideResNet(channels, num_classes, (depth - 4) // 6, width)
