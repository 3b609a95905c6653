"""Small random segmentation problems in every form that networks and loaders give them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from nets import seeded
from torch import Tensor
from twins import segmentation_twin as twin

from ima.tasks import Segmentation

SHAPES = {1: (12,), 2: (4, 4), 3: (2, 4, 2)}
IGNORE = 9


@dataclass(frozen=True)
class Problem:
    """A batch as a network and a loader would give it, and the task that reads it."""

    output: Any
    target: Any
    regions: bool
    ignore: bool

    @property
    def ignore_label(self) -> int | None:
        return IGNORE if self.ignore and not self.regions else None

    def task(self, **more: Any) -> Segmentation:
        return Segmentation(regions=self.regions, ignore_label=self.ignore_label, **more)

    @property
    def how(self) -> dict[str, Any]:
        return {"regions": self.regions, "ignore_label": self.ignore_label}


@dataclass(frozen=True)
class Form:
    """What a problem looks like: its sizes, what stands in its targets, how it is packed."""

    dims: int = 2
    channels: int = 3
    samples: int = 3
    regions: bool = False
    ignore: bool = False
    scales: int = 0
    packed: Callable[[list[Any]], Any] = list
    dtype: torch.dtype = torch.int64
    channel_axis: bool = True
    confidence: float = 2.0
    seed: int = 0

    def make(self) -> Problem:
        generator = seeded(self.seed)
        pairs = [self.level(k, generator) for k in range(max(1, self.scales))]
        outputs, targets = ([pair[i] for pair in pairs] for i in (0, 1))
        if not self.scales:
            return Problem(outputs[0], targets[0], self.regions, self.ignore)
        return Problem(self.packed(outputs), self.packed(targets), self.regions, self.ignore)

    def level(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits that lean to the truth, and a truth in which some classes do not occur."""
        shape = tuple(max(1, side // 2**k) for side in SHAPES[self.dims])
        noise = torch.randn(
            self.samples, self.channels, *shape, generator=generator, dtype=torch.float64
        )
        truths: list[Tensor] = []
        for _ in range(self.samples):
            # Each sample has its own share of every class, or none of it.
            share = torch.rand(self.channels, generator=generator)
            share = share * (torch.rand(self.channels, generator=generator) > 0.3)
            if self.regions:
                draws = torch.rand(self.channels, *shape, generator=generator)
                truths.append(draws < share.reshape(-1, *[1] * len(shape)))
            else:
                drawn = torch.multinomial(
                    share + 1e-9, math.prod(shape), replacement=True, generator=generator
                )
                truths.append(drawn.reshape(1, *shape))
        truth = torch.stack(truths)
        here = (
            truth
            if self.regions
            else torch.arange(self.channels).reshape(1, -1, *[1] * len(shape)) == truth
        )
        output = noise + self.confidence * (2.0 * here - 1)
        if self.ignore:
            # From no pixel of a sample to all of them.
            limit = torch.rand(self.samples, generator=generator) * 1.5 - 0.25
            draws = torch.rand(self.samples, 1, *shape, generator=generator)
            hidden = draws < limit.reshape(-1, 1, *[1] * len(shape))
            truth = (
                torch.cat([truth, hidden], 1) if self.regions else truth.masked_fill(hidden, IGNORE)
            )
        if not self.regions and not self.channel_axis:
            truth = truth[:, 0]
        return output, truth.to(self.dtype)


forms = st.builds(
    Form,
    dims=st.sampled_from([1, 2, 3]),
    channels=st.integers(2, 4),
    samples=st.integers(1, 3),
    regions=st.booleans(),
    ignore=st.booleans(),
    scales=st.sampled_from([0, 0, 2, 3]),
    packed=st.sampled_from([list, tuple]),
    dtype=st.sampled_from([torch.int64, torch.int16, torch.float32]),
    channel_axis=st.booleans(),
    confidence=st.sampled_from([0.0, 1.0, 2.0, 4.0]),
    seed=st.integers(0, 10**6),
)


def values_and_gradient(
    loss: Callable[[Any, Any], Tensor], output: Any, target: Any
) -> tuple[Tensor, list[Tensor]]:
    """The losses of all samples, and the gradient of a weighted sum of them at every scale."""
    leaves = [z.detach().clone().requires_grad_() for z in twin.scales(output)]
    values = loss(leaves[0] if isinstance(output, Tensor) else type(output)(leaves), target)
    weights = torch.arange(1, len(values) + 1, dtype=values.dtype)
    grads = torch.autograd.grad((weights * values).sum(), leaves, allow_unused=True)
    return values.detach(), [
        torch.zeros_like(z) if g is None else g for z, g in zip(leaves, grads, strict=True)
    ]
