"""Input normalisation as part of the model, so that noise keeps the units of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std, for samples of any rank (B, channels, *dims).

    mean, std: numbers, or one number a channel; std above 0. Both are buffers: they are saved with
    the weights. Raises ValueError for others, and at the call for another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            given = torch.as_tensor(value, dtype=torch.float32).clone()
            if given.dim() > 1 or given.numel() == 0 or not bool(given.isfinite().all()):
                raise ValueError(
                    f"{name} is {value!r}; expected a finite number, or one for each channel"
                )
            self.register_buffer(name, given)
        if bool((self.std <= 0).any()):
            raise ValueError(f"std is {std!r}; expected numbers above 0")
        lengths = {len(value) for value in (self.mean, self.std) if value.dim() == 1}
        if len(lengths) > 1:
            raise ValueError(
                f"mean is {mean!r} and std is {std!r}; expected as many numbers in one as in the "
                "other"
            )
        self.channels = next(iter(lengths), None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *dims) to the same shape."""
        if self.channels is None:
            return (x - self.mean) / self.std
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"samples have shape {tuple(x.shape)}; expected (B, {self.channels}, ...), since "
                f"mean and std are given for {self.channels} channels"
            )
        mean, std = (
            value.view(-1, *[1] * (x.dim() - 2)) if value.dim() else value
            for value in (self.mean, self.std)
        )
        return (x - mean) / std


class Standardize(nn.Module):
    """Every sample brought to mean 0 and deviation 1, over all of its channels and pixels.

    The deviation is that of the population, floored at 1/sqrt(numel of a sample): a constant sample
    becomes 0, with a finite gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, *dims) to the same shape; ValueError for a tensor without dims."""
        if x.dim() < 2:
            raise ValueError(f"samples have shape {tuple(x.shape)}; expected (B, *dims)")
        dims = tuple(range(1, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        # Floored below the root, whose slope at 0 is infinite.
        variance = centred.square().mean(dims, keepdim=True).clamp(min=1 / math.prod(x.shape[1:]))
        return centred * variance.rsqrt()
