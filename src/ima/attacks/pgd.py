"""PGD: projected gradient ascent on the loss inside a ball (Madry et al., ICLR 2018).

point = x, or uniform in the ball
repeat: point = clamp(x + project(point + step_size * direction(gradient) - x))
"""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from ima.attacks.inputs import Bounds, Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, Here, Objective, forward, into, walk
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
    """The first wrong point of the walk, or the last point where there is none.

    x: (B, *dims) floating, inside `bounds`; y: the task's targets; eps: a number or (B,), in x's
    units and `norm`; step_size: likewise, 2.5 * eps / steps if None; random_start: uniform in the
    ball, drawn from `generator`; objective(output, target) -> (B,): what the walk raises, the
    task's if None; stop: `"never"` walks all steps whatever happens and returns the last point.

    Returns `Attacked`: `crossed` where the returned point is wrong; `correct` is False where the
    clean sample is. The model is left as it was.
    Raises ValueError or TypeError for inputs outside bounds, wrong shapes, labels out of range.
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
            start = into(wide(x) + norm.random(wide(x), radius, generator), box)

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
