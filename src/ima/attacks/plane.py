"""The nearest point of a plane, inside bounds: where a network's boundary is, seen from one point.

The plane {z: <g, z - x> = rise} is the score's linear model, rise = what it must gain to be 0.
    d(t) = clamp(t * direction(g), low - x, high - x)       # the shortest way to each height
    t = the smallest with <g, d(t)> = rise                  # a concave, piecewise linear equation

After DeepFool (Moosavi-Dezfooli et al., CVPR 2016, Algorithm 1), with bounds: for L2 and
L-infinity alike the nearest point is a clamped multiple of one direction (the conditions of
Karush, Kuhn and Tucker), as in FAB (Croce & Hein, ICML 2020, Eq. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.norms import Norm, per_sample

ROUNDS = 8
"""Newton's steps: each adds the entries that have met a bound."""


def to_plane(
    x: Tensor, g: Tensor, rise: Tensor, norm: Norm, bounds: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The shortest offsets from x with <g, offset> = rise, inside bounds.

    x, g: (B, *dims); rise: (B,), 0 or below where x is on the plane or beyond it; bounds: (low,
    high) as tensors, or None. Returns the offsets, like x, and whether they reach the plane, (B,)
    bool: not where g is 0 or not finite, or where the bounds end before it.
    """
    direction = norm.direction(g)
    zero = torch.zeros_like(x)
    low, high = (zero - torch.inf, zero + torch.inf) if bounds is None else _room(x, bounds)

    def at(t: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(per_sample(t, x) * direction, low), high)

    # Largest entry 1: sums of products neither underflow nor overflow.
    scale = g.abs().flatten(1).amax(1) if g.ndim > 1 else g.abs()
    usable = (scale > 0) & torch.isfinite(scale) & torch.isfinite(rise)
    scale = torch.where(usable, scale, 1)
    g = torch.where(per_sample(usable, g), g / per_sample(scale, g), 0)
    wanted = torch.where(usable, rise / scale, 0).clamp_min(0)
    t = torch.zeros_like(wanted)
    for _ in range(ROUNDS if bounds is not None else 1):
        offset = at(t)
        free = torch.where(direction > 0, offset < high, (direction < 0) & (offset > low))
        slope = _dot(g * free, direction)
        lacking = wanted - _dot(g, offset)
        step = torch.where(slope > 0, lacking / torch.where(slope > 0, slope, 1), 0)
        t = t + step.clamp_min(0)
    offset = at(t)
    reached = usable & (_dot(g, offset) >= wanted * (1 - 1e-3))
    return offset, reached


def _room(x: Tensor, bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return (bounds[0] - x).clamp_max(0), (bounds[1] - x).clamp_min(0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    return product.flatten(1).sum(1) if product.ndim > 1 else product
