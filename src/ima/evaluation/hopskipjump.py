"""HopSkipJump: a search along the boundary that asks for decisions only (Chen et al., S&P 2020).

point = a wrong one, far away
repeat: point = where the way from x to it meets the boundary
        direction = mean of random directions, each with the sign of the decision there
        point = point + distance / sqrt(step) * direction, halved until it is wrong

It needs no gradient, so that it tells whether gradients mislead; for masks wrong means a Dice at
or below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from ima.attacks.boundary import CELLS
from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model
from ima.attacks.walk import clamp, forward
from ima.evaluation.lowest import Lowest
from ima.evaluation.setting import Setting
from ima.norms import gaussian, per_sample
from ima.tasks import Tree, take
from ima.tasks.pixels import wide

_QUERIES = 50
"""Random directions of the first step; sqrt(step) times as many of later ones."""

TRIES = 20
"""Random points that are tried for a first wrong one, and halvings of a step."""

Wrong = Callable[[Tensor, Tensor], Tensor]
"""wrong(index, points) -> (n,) bool: whether the samples `index` are wrong at these points."""


def hopskipjump(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    """The nearest point that is found in so many steps, as a row of the attacks.

    A sample is left as soon as a wrong point lies within eps.
    """
    clean, norm, box = wide(x), setting.norm, setting.box

    def seen(index: Tensor, points: Tensor) -> Tensor:
        return as_seen(model, clamp(points, box), clean[index])

    def wrong(index: Tensor, points: Tensor) -> Tensor:
        found = forward(model, seen(index, points).to(x.dtype))
        return ~setting.task.correct(found, take(y, index))

    # Each phase has a source of its own: a sample's noise does not depend on its mates.
    seed = setting.generator.initial_seed()
    first, later = (Generator().manual_seed(seed + phase) for phase in (0, 1))
    point, index = _first(clean, lowest.left, wrong, box, first)
    dims = max(1, math.prod(x.shape[1:]))
    reach = max(0.01, math.sqrt(dims) / CELLS)
    for step in range(1, steps + 2 if len(index) else 1):
        point[index] = _bisected(clean[index], point[index], index, wrong)
        far = norm.size(point[index] - clean[index])
        near = index[far <= eps]
        if len(near):
            inside = seen(near, point[near]).to(x.dtype)
            lowest.look(near, inside, forward(model, inside), take(y, near))
        index, far = index[far > eps], far[far > eps]
        if len(index) == 0 or step > steps:
            return
        here = point[index]
        queries = round(_QUERIES * math.sqrt(step))
        draw = partial(_directions, clean, index, later)
        rise = _estimate(here, index, per_sample(reach * far, here), queries, wrong, draw)
        direction, stride = norm.direction(rise), far / math.sqrt(step)
        for _ in range(TRIES):
            moved = clamp(here + per_sample(stride, here) * direction, box)
            still = wrong(index, moved)
            point[index[still]] = moved[still]
            stride = torch.where(still, 0, stride / 2)
            if bool(still.all()):
                break


def _first(
    x: Tensor,
    index: Tensor,
    wrong: Wrong,
    box: tuple[Tensor, Tensor] | None,
    source: Generator,
) -> tuple[Tensor, Tensor]:
    """A wrong point for each of the samples `index` for which one is found: points, and whose."""
    point, left = x.clone(), index
    for k in range(TRIES):
        if len(left) == 0:
            break
        noise = gaussian(x, source)[left]
        if box is None:
            # Ever farther, from a hundredth of the largest entry on.
            size = x[left].flatten(1).abs().amax(1) if x.ndim > 1 else x[left].abs()
            start = x[left] + per_sample(0.01 * 2.0**k * size.clamp_min(1e-3), x) * noise
        else:
            # Uniform within the bounds.
            share = 0.5 * (1 + torch.erf(noise / math.sqrt(2)))
            start = box[0] + (box[1] - box[0]) * share
        found = wrong(left, start)
        point[left[found]] = start[found]
        left = left[~found]
    return point, index[~torch.isin(index, left)]


def _bisected(x: Tensor, point: Tensor, index: Tensor, wrong: Wrong) -> Tensor:
    """The wrong ends of the last brackets on the ways from x to wrong points, by halvings."""
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(round(math.log2(CELLS))):
        middle = (low + high) / 2
        there = wrong(index, x + per_sample(middle, x) * (point - x))
        low, high = torch.where(there, low, middle), torch.where(there, middle, high)
    return x + per_sample(high, x) * (point - x)


def _directions(x: Tensor, index: Tensor, source: Generator) -> Tensor:
    """Random directions of the samples `index`, of about length 1; drawn for the whole batch."""
    return gaussian(x, source)[index] / math.sqrt(max(1, math.prod(x.shape[1:])))


def _estimate(
    point: Tensor,
    index: Tensor,
    reach: Tensor,
    queries: int,
    wrong: Wrong,
    draw: Callable[[], Tensor],
) -> Tensor:
    """The direction in which decisions turn wrong, like `point`."""
    signed, plain = torch.zeros_like(point), torch.zeros_like(point)
    signs = point.new_zeros(len(point))
    for _ in range(queries):
        direction = draw()
        sign = 2 * wrong(index, point + reach * direction).to(point.dtype) - 1
        signed += per_sample(sign, point) * direction
        signs, plain = signs + sign, plain + direction
    # The mean sign is taken out (the paper's Eq. 16): the point lies beside the boundary.
    return signed - per_sample(signs / queries, point) * plain
