"""The nearest point of a plane, inside bounds: where a network's boundary is, seen from one point.

The plane {z: <g, z - x> = rise} is the score's linear model, rise = what it must gain to be 0.
    d(t) = clamp(t * direction(g), low - x, high - x)       # the shortest way to each height
    t = the smallest with <g, d(t)> = rise                  # concave, piecewise linear: Newton

After DeepFool (Moosavi-Dezfooli et al., CVPR 2016, Algorithm 1), with bounds: for L2 and
L-infinity alike the nearest point is a clamped multiple of one direction (the conditions of
Karush, Kuhn and Tucker), as in FAB (Croce & Hein, ICML 2020, Eq. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.norms import Norm, per_sample

ROUNDS = 20
"""Newton's steps at most: each adds the entries that have met a bound."""

TINY, CLOSE = 1e-6, 1e-3
"""Shares by which a step no longer counts, and a height is reached."""


def to_plane(
    x: Tensor, g: Tensor, rise: Tensor, norm: Norm, bounds: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The shortest offsets from x with <g, offset> = rise, inside bounds.

    x, g: (B, *dims); rise: (B,), 0 or below where x is on the plane or beyond it; bounds: (low,
    high) as tensors, or None. Returns the offsets, like x, and whether they reach the plane, (B,)
    bool: not where g is 0 or not finite, or where the bounds end before it.
    """
    direction = norm.direction(g)
    # Largest entry 1: sums of products neither underflow nor overflow.
    scale = _vectors(g).abs().amax(1)
    usable = (scale > 0) & torch.isfinite(scale) & torch.isfinite(rise)
    scale = torch.where(usable, scale, 1)
    wanted = torch.where(usable, rise / scale, 0).clamp_min(0)
    gain = _vectors(g.div(per_sample(scale, g)).mul_(direction))
    if bounds is None:
        t = wanted / gain.sum(1).clamp_min(torch.finfo(gain.dtype).tiny)
        return direction * per_sample(torch.where(usable, t, 0), x), usable
    # When every entry meets its bound; those that do not move never gain.
    room = torch.where(direction > 0, bounds[1], bounds[0]).sub_(x)
    ends = _vectors(room.div_(direction).nan_to_num_(0.0, torch.inf).clamp_min_(0))
    t, lacking = torch.zeros_like(wanted), wanted
    for _ in range(ROUNDS):
        lacking = wanted - (gain * torch.minimum(ends, t[:, None])).nan_to_num_().sum(1)
        slope = (gain * (ends > t[:, None])).nan_to_num_().sum(1)
        step = torch.where(slope > 0, lacking / torch.where(slope > 0, slope, 1), 0)
        t = t + step.clamp_min(0)
        if not bool((step > TINY * t).any()):
            break
    reached = usable & (lacking <= CLOSE * wanted)
    far = torch.minimum(ends, t[:, None]).reshape(x.shape)
    return (direction * far).nan_to_num_(), reached


def _vectors(d: Tensor) -> Tensor:
    return d.flatten(1) if d.ndim > 1 else d.unsqueeze(1)
