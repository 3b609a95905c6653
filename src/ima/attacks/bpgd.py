"""BPGD: walk to the decision boundary and stop just before it.

Ma & Liang, IMA training, Algorithms 2 and 3 (Section 2.2, and 2.6 for augmented data).

    Algorithm 2                                  Algorithm 3
    walk PGD steps of 4 * eps / steps;           walk all steps;
    at the first wrong point stop and            if the last point is wrong, search
    search between it and the one before.        between it and x.

A sample that never crosses returns the walk's last point.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from ima.attacks.boundary import between, search_boundary
from ima.attacks.inputs import Bounds, Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, Here, clamp, forward, walk
from ima.norms import Norm, get_norm, per_sample
from ima.tasks import Task, Tree, check_fit, check_task, take, targets
from ima.tasks.pixels import precise, wide


def bpgd(
    model: Model,
    x: Tensor,
    y: Tree,
    eps: float | Tensor,
    *,
    norm: Norm | float | str = 2,
    task: Task | None = None,
    bounds: Bounds = None,
    steps: int = 20,
    algorithm: Literal[2, 3] = 2,
    side: Literal["inside", "middle"] = "inside",
    random_start: float = 0.0,
    generator: Generator | None = None,
    crossing: Literal["last", "any"] = "last",
    mode: Literal["eval", "train"] = "eval",
) -> Attacked:
    """BPGD: noisy samples just before the decision boundary, or eps away if it is farther.

    model: maps (B, *dims) to outputs that fit the task; it is left as it was.
    x: (B, *dims), floating, inside `bounds`.
    y: the task's targets, such as (B,) integer labels.
    eps: noise radius, a number or (B,), in x's units and `norm`, 0 or more.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    task: what outputs and targets mean; None: `Classification()`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: 1 or more, each of length 4 * eps / steps.
    algorithm: 2 stops at the first wrong point; 3 takes all steps (augmented data).
    side: "inside": the right end of the bracket around the boundary; "middle": its middle.
    random_start: radius of a random start as a share of eps, 0 to 1; 0: start at x.
    generator: source of the random start; None: a fixed source of the library's own.
    crossing: with algorithm 3, a sample crossed if the "last" point is wrong, or if "any" is.
    mode: "eval" attacks in evaluation mode; "train" leaves the modes of the modules as they are.

    Returns `Attacked`; `crossed` where the walk met the boundary, on whichever side of it the
    returned point is. A sample that is wrong at x comes back unchanged, with `correct` False.
    Raises ValueError or TypeError for x outside bounds, wrong shapes, labels out of range.
    Source: Ma & Liang, IMA training, 2023, Algorithms 2 and 3.

    >>> import ima, torch
    >>> model, x = torch.nn.Linear(4, 3), torch.rand(8, 4)
    >>> y = model(x).argmax(1)
    >>> found = ima.bpgd(model, x, y, eps=5.0)
    >>> bool((model(found.x).argmax(1) == y).all())
    True
    """
    norm, task = get_norm(norm), check_task(task)
    check_steps(steps)
    if algorithm not in (2, 3):
        raise ValueError(f"algorithm is {algorithm!r}; expected 2 or 3")
    if side not in ("inside", "middle"):
        raise ValueError(f"side is {side!r}; expected 'inside' or 'middle'")
    box, radius = check_samples(x, bounds), check_radius(eps, x)
    y = targets(y)
    if not isinstance(random_start, int | float) or not 0 <= random_start <= 1:
        raise ValueError(f"random_start is {random_start!r}; expected a share, 0 to 1")

    with no_trace(model, x, mode) as model:
        x = x.detach().clone()
        start, correct = None, torch.ones(len(x), dtype=torch.bool, device=x.device)
        clean_score = score = last_score = torch.zeros(len(x), dtype=precise(x), device=x.device)
        if random_start:
            start = clamp(wide(x) + norm.random(wide(x), random_start * radius, generator), box)
            output = forward(model, x)
            check_fit(task, output, y, len(x))
            correct = task.correct(output, y)
            clean_score = task.score(output, y).to(precise(x))
        score, last_score = clean_score.clone(), clean_score.clone()
        wrong_once = torch.zeros_like(correct)

        def stop(here: Here) -> Tensor:
            output, target, index = here.output, here.target, here.index
            if here.step == 0:
                check_fit(task, output, target, len(index))
            right = task.correct(output, target)
            last_score[index] = score[index]
            score[index] = task.score(output, target).to(precise(x))
            wrong_once[index] |= ~right
            if here.step > 0:
                return torch.zeros_like(right) if algorithm == 3 else ~right
            if start is None:
                correct[index] = right
                clean_score.copy_(score)
            return ~correct[index] | (~right & (algorithm == 2))

        walked = walk(
            model,
            x,
            y,
            radius,
            steps=steps,
            step_size=4 * radius / steps,
            norm=norm,
            task=task,
            bounds=box,
            start=start,
            stop=stop,
            mode=mode,
        )

        crossed = correct & (walked.stopped_at < steps)
        (left,) = (walked.stopped_at == steps).nonzero(as_tuple=True)
        if len(left):
            output, target = forward(model, walked.x[left]), take(y, left)
            crossed[left] = ~task.correct(output, target)
            last_score[left] = score[left]
            score[left] = task.score(output, target).to(precise(x))

        noisy = torch.where(per_sample(correct, x), walked.x, x)
        (index,) = crossed.nonzero(as_tuple=True)
        if len(index):
            first, outside = (x if algorithm == 3 else walked.before)[index], walked.x[index]
            first_score = (clean_score if algorithm == 3 else last_score)[index]
            low, high = search_boundary(
                model,
                first,
                outside,
                take(y, index),
                (first_score, score[index]),
                task=task,
                bounds=box,
                x=x[index],
            )
            share = low if side == "inside" else (low + high) / 2
            noisy[index] = between(model, first, outside, share, box, x[index])
        if crossing == "any":
            crossed |= correct & wrong_once
    return Attacked(noisy, crossed, correct, walked.stuck)
