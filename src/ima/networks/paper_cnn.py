"""The convolutional network of Ma & Liang, 3.3, for SVHN.

The paper gives neither the slope of the leaky ReLU nor whether InstanceNorm has weights: here
PyTorch's slope, 0.01, and weights.
"""

from __future__ import annotations

from torch import Tensor, nn


def _conv(channels: int, width: int, stride: int, *, normed: bool = True) -> list[nn.Module]:
    norm = [nn.InstanceNorm2d(width, affine=True)] if normed else []
    return [nn.Conv2d(channels, width, 3, stride, 1), *norm, nn.LeakyReLU()]


class PaperCNN(nn.Module):
    """See `paper_cnn`."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_conv(channels, 32, 1, normed=False),
            *_conv(32, 32, 2),
            *_conv(32, 64, 1),
            *_conv(64, 64, 2),
            *_conv(64, 128, 1),
            *_conv(128, 128, 2),
            nn.Conv2d(128, 256, 4),
            nn.Flatten(),
            nn.LayerNorm(256),
            nn.LeakyReLU(),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, channels, 32, 32) in [0, 1]."""
        if x.dim() != 4 or x.shape[2:] != (32, 32):
            raise ValueError(
                f"images have shape {tuple(x.shape)}; paper_cnn expects (B, channels, 32, 32): "
                "resize them, or take another network"
            )
        return self.layers(x)


def paper_cnn(channels: int, num_classes: int) -> nn.Module:
    """Seven convolutions, three of stride 2, with InstanceNorm and a LayerNorm, one linear layer.

    Input (B, channels, 32, 32), values in [0, 1]; output (B, num_classes). The model raises
    ValueError for images of another size.
    """
    return PaperCNN(channels, num_classes)
