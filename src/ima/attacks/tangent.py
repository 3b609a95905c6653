"""Nearer boundary points: steps along the tangent plane of the decision boundary.

    b = a point at the boundary, g = minus the gradient of the score there
    repeat `steps` times:
        end = as far from x as b, on the shortest way to the tangent plane <g, z - b> = 0:
              x + t * direction(g), clamped to the bounds, t so that the size is that of b
        where `end` is wrong: b = where the way there meets the boundary   # a search on the score
        elsewhere: the next `end` lies half as far from b, by the same gradient

The projection onto the linearised boundary is DeepFool's step (Moosavi-Dezfooli et al., CVPR 2016,
arXiv:1511.04599), taken from x and at a boundary point as in FAB (Croce & Hein, ICML 2020,
arXiv:1907.02044); going back to the boundary on a ray from x is that of the Boundary Attack's
successors (HopSkipJump: Chen et al., IEEE S&P 2020, arXiv:1904.02144), here with true gradients.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ima.attacks.boundary import between, search_boundary
from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model, check_samples, check_steps, no_trace
from ima.attacks.walk import ascent, clamp, forward
from ima.norms import Norm, get_norm, per_sample
from ima.tasks import Task, Tree, check_task, take, targets, tree_map
from ima.tasks.pixels import precise, wide

FILLS = 20
"""Rounds of water filling inside bounds; the size is reached from below."""

Box: TypeAlias = tuple[Tensor, Tensor] | None


def nearer(
    model: Model,
    x: Tensor,
    y: Tree,
    boundary: Tensor,
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    steps: int = 1,
    side: Literal["inside", "outside"] = "outside",
    gradient: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Points at the decision boundary that are nearer to x than those given, never farther.

    model: maps (B, *dims) to outputs that fit the task; it is left as it was.
    x: (B, *dims), floating, inside `bounds`.
    y: the task's targets.
    boundary: (B, *dims), points at the boundary, inside `bounds`, such as `bpgd` finds.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    task: what outputs and targets mean; None: `Classification()`.
    steps: 1 or more; each costs a forward and a backward pass, and four or five forwards.
    side: on which side of the boundary new points lie: just right ("inside") or just wrong.
    gradient: of the score at `boundary`, (B, *dims), times any positive factor a sample; None: it
        is computed.
    scores: of the task at x, (B,); all samples are then taken as right there. None: a forward.

    Returns (B, *dims); what comes no nearer, or is wrong at x, is as it was given.
    Raises ValueError or TypeError as `bpgd`.

    >>> import ima, torch
    >>> model, x = torch.nn.Linear(4, 3), torch.rand(8, 4)
    >>> y = model(x).argmax(1)
    >>> found = ima.bpgd(model, x, y, eps=5.0).x
    >>> far = lambda point: (point - x).norm(dim=1)
    >>> bool((far(nearer(model, x, y, found)) <= far(found)).all())
    True
    """
    norm, task = get_norm(norm), check_task(task)
    check_steps(steps)
    if side not in ("inside", "outside"):
        raise ValueError(f"side is {side!r}; expected 'inside' or 'outside'")
    if boundary.shape != x.shape:
        raise ValueError(
            f"boundary has shape {tuple(boundary.shape)}; expected that of x, {tuple(x.shape)}"
        )
    box, y = check_samples(x, bounds), targets(y)

    with no_trace(model, x) as inner:
        return follow(
            inner,
            x,
            y,
            boundary,
            norm=norm,
            box=box,
            task=task,
            steps=steps,
            side=side,
            gradient=gradient,
            scores=scores,
        )


def follow(
    model: Model,
    x: Tensor,
    y: Tree,
    boundary: Tensor,
    *,
    norm: Norm,
    box: Box,
    task: Task,
    steps: int,
    side: Literal["inside", "outside"] = "outside",
    gradient: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """As `nearer`, of what was checked, in a model that was entered; box: the bounds as tensors."""

    def lower(output: Tree, target: Tree) -> Tensor:
        return -task.score(output, target)

    y = tree_map(lambda t: t.clone() if t.is_inference() else t, y)
    x = x.detach().clone()
    # The nearest points, and of each the wrong end of its bracket, which bounds the distance.
    point = boundary.detach().to(x.dtype).clone()
    wrong_end = wide(point).clone()
    far = norm.size(wrong_end - wide(x))
    live = (far > 0) & torch.isfinite(far)
    if scores is None:
        output = forward(model, x)
        live, scores = live & task.correct(output, y), task.score(output, y)
    scores = scores.to(precise(x))
    if gradient is None:
        slope, stale = torch.zeros_like(wrong_end), live.clone()
    else:
        slope, stale = -wide(gradient.detach()), torch.zeros_like(live)
    share = torch.ones_like(far)
    for _ in range(steps):
        (index,) = (live & stale).nonzero(as_tuple=True)
        if len(index):
            leaf, target = wrong_end[index].requires_grad_(), take(y, index)
            slope[index] = wide(ascent(model(leaf), leaf, target, lower)[0])
            stale[index] = False
        (index,) = live.nonzero(as_tuple=True)
        if len(index) == 0:
            break
        start, near, target = wide(x[index]), wrong_end[index], take(y, index)
        noise = _filled(norm.direction(slope[index]), far[index], start, norm, box)
        noise = (near - start).lerp(noise, per_sample(share[index], start))
        end = start + _filled(noise, far[index], start, norm, box)
        usable = torch.isfinite(end.flatten(1)).all(1) & (norm.size(slope[index]) > 0)
        end = torch.where(per_sample(usable, end), end, start)
        seen = as_seen(model, clamp(end, box), start).to(x.dtype)
        output = forward(model, seen)
        wrong = usable & ~task.correct(output, target)
        share[index] = torch.where(wrong, 1, share[index] / 2)
        live[index[~usable]] = False
        if not bool(wrong.any()):
            continue
        at, start, end, target = index[wrong], x[index[wrong]], end[wrong], take(target, wrong)
        ends = scores[at], task.score(take(output, wrong), target)
        bracket = search_boundary(model, start, end, target, ends, task=task, bounds=box)
        low, high = (between(model, start, end, part, box, start) for part in bracket)
        size = norm.size(wide(high) - wide(start))
        closer = size < far[at]
        # Who can come no nearer this way stands as near as this gradient leads.
        live[at[~closer]] = False
        at, low, high = at[closer], low[closer], high[closer]
        point[at], wrong_end[at] = low if side == "inside" else high, wide(high)
        far[at], stale[at] = size[closer], True

    return point


def _filled(noise: Tensor, size: Tensor, x: Tensor, norm: Norm, box: Box) -> Tensor:
    """The noise times the factor with which it is of this size inside the bounds; not clamped.

    Water filling: entries that reach their bound stay there when clamped, and the others go on.
    """
    for _ in range(1 if box is None else FILLS):
        length = norm.size(clamp(x + noise, box) - x)
        factor = torch.where(length > 0, size / torch.where(length > 0, length, 1), 1)
        noise = noise * per_sample(factor, x)
    return noise
