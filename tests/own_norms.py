"""A norm of a user's own: the sum of all changes, under whatever name."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ima import Norm


def summed(name: str) -> Norm:
    """The L1 norm, called so."""
    return Norm(name, 1.0, math.inf, _size, _direction, _project, _random)


def _size(d: Tensor) -> Tensor:
    return d.flatten(1).abs().sum(1)


def _direction(g: Tensor) -> Tensor:
    flat = g.flatten(1)
    at = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign()).view_as(g)


def _project(d: Tensor, radius: Tensor) -> Tensor:
    # Onto the ball: every entry shrinks by the same, down to zero.
    flat = d.flatten(1)
    falling = flat.abs().sort(1, descending=True).values
    shrink = (falling.cumsum(1) - radius[:, None]) / torch.arange(1, flat.shape[1] + 1)
    kept = (falling > shrink).sum(1, keepdim=True).clamp(min=1)
    by = shrink.gather(1, kept - 1).clamp(min=0)
    return (flat.sign() * (flat.abs() - by).clamp(min=0)).view_as(d)


def _random(like: Tensor, radius: Tensor, generator: Generator | None) -> Tensor:
    flat = like.flatten(1)
    sizes = -torch.rand(flat.shape, generator=generator).clamp(min=1e-9).log()
    signs = 2.0 * torch.randint(0, 2, flat.shape, generator=generator) - 1
    return (signs * sizes / sizes.sum(1, keepdim=True) * radius[:, None]).view_as(like)
