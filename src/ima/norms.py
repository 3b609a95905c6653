"""The two norms of the library, as rows of functions: size, direction, projection, random point.

Every function treats its first dimension as the batch and all others as one vector, so samples
of any rank work: `(B, *dims)`, and `(B,)` as vectors of length one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ima.norm_names import known_norm


@dataclass(frozen=True)
class Norm:
    """A norm on samples `(B, *dims)`, as the functions that an attack needs.

    name: as written in tables: "L2", "Linf", or a name of your own.
    order: p, such as 2.0 or `math.inf`.
    dual: q with 1/p + 1/q = 1.
    size(d) -> (B,): the norm of every sample.
    direction(g) -> like g: the step of length 1 that raises `<g, d>` the most, finite for the
        smallest and the largest gradients; 0 where g is exactly 0.
    project(d, radius) -> like d: d moved into the ball of `radius`, a (B,) tensor; 0 for radius 0.
    random(like, radius, generator) -> like `like`: drawn uniformly from the ball of `radius`.

    `ima.L2` and `ima.LINF` are ready.
    Raises ValueError for an empty name, and for a known norm's name with another order.

    >>> import ima, torch
    >>> d = torch.tensor([[3.0, 4.0]])
    >>> ima.L2.size(d), ima.LINF.size(d)
    (tensor([5.]), tensor([4.]))
    >>> ima.L2.project(d, torch.tensor([1.0]))
    tensor([[0.6000, 0.8000]])
    """

    name: str
    order: float
    dual: float
    size: Callable[[Tensor], Tensor]
    direction: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Tensor], Tensor]
    random: Callable[[Tensor, Tensor, Generator | None], Tensor]

    def __post_init__(self) -> None:
        # Tables and pages know a norm by its name alone.
        known = known_norm(self.name)
        if not self.name.strip() or (known is not None and known.order != self.order):
            expected = "a name" if known is None else f"order {known.order:g}, or another name"
            raise ValueError(
                f"a norm has the name {self.name!r} and the order {self.order!r}; expected "
                f"{expected}"
            )


def get_norm(norm: Norm | float | str) -> Norm:
    """The norm that a user names.

    norm: 2, "l2", float("inf"), "linf", or a `Norm`, which is returned as it is.

    Raises ValueError for any other name.
    """
    if isinstance(norm, Norm):
        return norm
    for row in (L2, LINF):
        if norm == row.order or str(norm).lower() in (row.name.lower(), str(row.order)):
            return row
    if str(norm) == "2":
        return L2
    raise ValueError(f"norm is {norm!r}; expected 2, 'l2', float('inf') or 'linf'")


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`values` of shape (B,) shaped (B, 1, ..., 1), to broadcast against samples `like`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def gaussian(like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of `like`'s shape, dtype and device; never the global random state."""
    return _draw(like, generator, normal=True)


def _vectors(d: Tensor) -> Tensor:
    return d.flatten(1) if d.ndim > 1 else d.unsqueeze(1)


def _largest(d: Tensor) -> Tensor:
    return _vectors(d).abs().amax(1)


def _unit_scale(g: Tensor) -> Tensor:
    # Squares of float32 entries below 1e-19 underflow and above 1e19 overflow: a gradient is
    # brought to largest entry 1 before its L2 norm is taken.
    # A gradient that is not finite has no direction, like a zero one: over infinity it is 0, or no
    # number, which is cheaper to put right than to choose for every entry.
    largest = per_sample(_largest(g), g)
    usable = (largest > 0) & torch.isfinite(largest)
    return (g / torch.where(usable, largest, torch.inf)).nan_to_num_(nan=0.0)


def _l2_size(d: Tensor) -> Tensor:
    return torch.linalg.vector_norm(_vectors(d), dim=1)


def _l2_direction(g: Tensor) -> Tensor:
    g = _unit_scale(g)
    length = _l2_size(g)
    return g / per_sample(torch.where(length > 0, length, torch.ones_like(length)), g)


def _l2_project(d: Tensor, radius: Tensor) -> Tensor:
    size = _l2_size(d)
    factor = torch.where(size > radius, radius / torch.where(size > 0, size, 1), 1.0)
    factor = torch.where(radius > 0, factor, 0)
    return d * per_sample(factor.to(d.dtype), d)


def _draw(like: Tensor, generator: Generator | None, *, normal: bool) -> Tensor:
    # A generator draws on its own device, so one seed gives the same noise on every device.
    source = _DEFAULT if generator is None else generator
    draw = torch.randn if normal else torch.rand
    noise = draw(like.shape, generator=source, device=source.device, dtype=torch.float32)
    return noise.to(like.device, like.dtype)


def _l2_random(like: Tensor, radius: Tensor, generator: Generator | None) -> Tensor:
    unit = _l2_direction(_draw(like, generator, normal=True))
    length = _draw(like.flatten(1)[:, 0] if like.ndim > 1 else like, generator, normal=False)
    dims = max(1, math.prod(like.shape[1:]))
    return unit * per_sample(radius * length.pow(1 / dims), like).to(like.dtype)


def _linf_direction(g: Tensor) -> Tensor:
    return torch.sign(_unit_scale(g))


def _linf_project(d: Tensor, radius: Tensor) -> Tensor:
    bound = per_sample(radius.to(d.dtype), d)
    return torch.maximum(torch.minimum(d, bound), -bound)


def _linf_random(like: Tensor, radius: Tensor, generator: Generator | None) -> Tensor:
    return (2 * _draw(like, generator, normal=False) - 1) * per_sample(radius, like).to(like.dtype)


# Noise never comes from the global random state, which attacks leave as it was: without a generator
# of the caller's, draws follow each other here, the same in every process that starts.
_DEFAULT = Generator().manual_seed(0)

L2 = Norm("L2", 2.0, 2.0, _l2_size, _l2_direction, _l2_project, _l2_random)
LINF = Norm("Linf", math.inf, 1.0, _largest, _linf_direction, _linf_project, _linf_random)
