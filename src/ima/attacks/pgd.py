"""PGD: projected gradient ascent on the loss inside a ball (Madry et al., ICLR 2018).

point = x, or uniform in the ball
repeat: point = clamp(x + project(point + step_size * direction(gradient) - x))
"""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from ima.attacks.inputs import Bounds, Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, Here, Objective, clamp, forward, walk
from ima.norms import Norm, get_norm
from ima.tasks import Task, Tree, check_fit, check_task, take, targets
from ima.tasks.pixels import wide


def pgd(
    model: Model,
    x: Tensor,
    y: Tree,
    eps: float | Tensor,
    *,
    steps: int = 100,
    step_size: float | Tensor | None = None,
    norm: Norm | float | str = 2,
    task: Task | None = None,
    bounds: Bounds = None,
    random_start: bool = False,
    objective: Objective | None = None,
    stop: Literal["wrong", "never"] = "wrong",
    generator: Generator | None = None,
) -> Attacked:
    """PGD: the first wrong point of a walk up the loss, or its last point if none is wrong.

    model: maps (B, *dims) to outputs that fit the task; it is left as it was.
    x: (B, *dims), floating, inside `bounds`.
    y: the task's targets, such as (B,) integer labels.
    eps: noise radius, a number or (B,), in x's units and `norm`, 0 or more.
    steps: 1 or more.
    step_size: a number or (B,), in x's units and `norm`; None: 2.5 * eps / steps.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    task: what outputs and targets mean; None: `Classification()`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    random_start: True: start at a random point of the ball, not at x.
    objective: objective(output, target) -> (B,), what the walk raises; None: the task's.
    stop: "wrong" stops a sample at its first wrong point; "never" takes all steps.
    generator: source of the random start; None: a fixed source of the library's own.

    Returns `Attacked`; `crossed` where the returned point is wrong.
    Raises ValueError or TypeError for x outside bounds, wrong shapes, labels out of range.
    Source: Madry et al., ICLR 2018, Section 2.1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> found = ima.pgd(model, x, y, eps=0.5, bounds=(0, 1))
    >>> bool(((found.x - x).norm(dim=1) <= 0.5001).all())
    True
    """
    norm, task = get_norm(norm), check_task(task)
    check_steps(steps)
    if stop not in ("wrong", "never"):
        raise ValueError(f"stop is {stop!r}; expected 'wrong' or 'never'")
    box, radius = check_samples(x, bounds), check_radius(eps, x)
    y = targets(y)
    stride = 2.5 * radius / steps if step_size is None else check_radius(step_size, x, "step_size")

    with no_trace(model, x) as model:
        x = x.detach().clone()
        output = forward(model, x)
        check_fit(task, output, y, len(x))
        correct = task.correct(output, y)
        start = x
        if random_start:
            start = clamp(wide(x) + norm.random(wide(x), radius, generator), box)

        def wrong(here: Here) -> Tensor:
            return ~task.correct(here.output, here.target)

        walked = walk(
            model,
            x,
            y,
            radius,
            steps=steps,
            step_size=stride,
            norm=norm,
            task=task,
            bounds=box,
            start=start,
            objective=objective,
            stop=wrong if stop == "wrong" else None,
        )
        crossed = walked.stopped_at < steps
        (left,) = (~crossed).nonzero(as_tuple=True)
        if len(left):
            crossed[left] = ~task.correct(forward(model, walked.x[left]), take(y, left))
    return Attacked(walked.x, crossed, correct, walked.stuck)
