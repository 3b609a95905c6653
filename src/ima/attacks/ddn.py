"""DDN: the smallest noise that makes a sample wrong (Rony et al., CVPR 2019, arXiv:1811.09600).

d = 0, size = radius
repeat: d = d + radius * (cosine from 1 to 0.01) * direction(gradient)
        size = 0.95 * size where the point was wrong, else 1.05 * size
        d = clamp(size * d / |d|)
keep the smallest d whose point was wrong

The paper's radius is 1; its rounding to 256 levels is left out. In L-infinity the same steps are
taken with that norm's direction and size: entries that keep pulling one way settle at +-size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, Objective, ascent, clamp, detached, forward
from ima.norms import Norm, get_norm, per_sample
from ima.tasks import (
    Task,
    Tree,
    check_fit,
    check_task,
    objective_of,
    output_map,
    targets,
    tree_map,
)
from ima.tasks.pixels import wide

SHRINK = 0.05
"""By this share the size falls after a wrong point, and grows after a right one."""

LAST = 0.01
"""The last step, as a share of the first."""


@dataclass(frozen=True)
class Nearest(Attacked):
    """What a minimal-norm attack returns, in the order of the batch.

    x: (B, *dims), the nearest wrong points found; the clean sample where none was found.
    crossed: (B,) bool, a wrong point was found.
    correct: (B,) bool, the model was right at the clean x.
    stuck: (B,) bool, as in `Attacked`.
    distance: (B,), size of the noise found, in x's units: 0 where the clean sample is wrong, NaN
        where none was found.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> found = ima.ddn(model, x, y)
    >>> median = found.distance.nanmedian()  # NaN: no noise found
    """

    distance: Tensor


def ddn(
    model: Model,
    x: Tensor,
    y: Tree,
    *,
    steps: int = 100,
    radius: float | Tensor = 1.0,
    norm: Norm | float | str = 2,
    task: Task | None = None,
    bounds: Bounds = None,
    objective: Objective | None = None,
) -> Nearest:
    """DDN: the smallest noise found that makes a sample wrong.

    model: maps (B, *dims) to outputs that fit the task; it is left as it was.
    x: (B, *dims), floating, inside `bounds`.
    y: the task's targets, such as (B,) integer labels.
    steps: 1 or more.
    radius: first size of noise and step, a number or (B,), in x's units and `norm`, above 0; 100
        steps reach sizes from radius / 170 to 130 * radius.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    task: what outputs and targets mean; None: `Classification()`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    objective: objective(output, target) -> (B,), what the walk raises; None: the task's.

    Returns `Nearest`; a sample without a gradient at x stays there.
    Raises ValueError or TypeError for x outside bounds, wrong shapes, labels out of range.
    Source: Rony et al., CVPR 2019, arXiv:1811.09600, Algorithm 1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> found = ima.ddn(model, x, y)
    >>> bool((found.distance[~found.correct] == 0).all())
    True
    """
    norm, task = get_norm(norm), check_task(task)
    objective = objective_of(task) if objective is None else objective
    check_steps(steps)
    box, first = check_samples(x, bounds), check_radius(radius, x, "radius")
    if not bool((first > 0).all()):
        raise ValueError(f"radius has entries of 0: {first.tolist()[:8]}; expected above 0")

    y = targets(y)
    with no_trace(model, x) as model:
        y = tree_map(lambda t: t.clone() if t.is_inference() else t, y)
        given, x = x.dtype, wide(x.detach().clone())
        nearest, distance = x.clone(), torch.full_like(first, torch.inf)
        correct = torch.ones(len(x), dtype=torch.bool, device=x.device)
        stuck = torch.zeros_like(correct)
        size, largest = first, _farthest(x, norm, box)
        point = seen = x

        def keep(wrong: Tensor) -> None:
            far = norm.size(seen - x)
            closer = wrong & (far < distance)
            nearest[closer], distance[closer] = seen[closer], far[closer]

        for step in range(steps):
            leaf = seen.detach().requires_grad_()
            output = model(leaf)
            there = output_map(detached, output)
            if step == 0:
                check_fit(task, there, y, len(x))
                correct = task.correct(there, y)
            wrong = ~task.correct(there, y)
            keep(wrong)
            direction = norm.direction(ascent(output, leaf, y, objective)[0])
            stuck |= norm.size(direction) == 0
            share = LAST + (1 - LAST) * (1 + math.cos(math.pi * step / steps)) / 2
            moved = point - x + per_sample(share * first, x) * direction
            # A `where` of two numbers would have the default dtype, whatever x's is.
            size = torch.where(wrong, (1 - SHRINK) * size, (1 + SHRINK) * size)
            size = torch.minimum(size, largest)
            length = norm.size(moved)
            scale = size / torch.where(length > 0, length, 1)
            point = clamp(x + per_sample(scale, x) * moved, box)
            seen = as_seen(model, point, x)
        keep(~task.correct(forward(model, seen), y))
    found = torch.isfinite(distance)
    distance = torch.where(found, distance, torch.nan)
    return Nearest(nearest.to(given), found, correct, stuck, distance)


def _farthest(x: Tensor, norm: Norm, box: tuple[Tensor, Tensor] | None) -> Tensor:
    """The largest noise that the bounds permit, (B,)."""
    if box is None:
        return torch.full_like(norm.size(x), torch.inf)
    return norm.size(torch.maximum(x - box[0], box[1] - x))
