"""Noise without any aim: how often a random change alone turns a right answer into a wrong one.

repeat `draws` times: a random point near x, clamped to the bounds; is the model wrong there?

White noise, uniform on every entry, is that of the paper's introduction (Ma & Liang); noise in the
ball is what an attack of the same radius must at least equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ima.attacks.inputs import Bounds, Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, forward, into
from ima.evaluation.setting import Setting
from ima.norms import LINF, per_sample
from ima.tasks import Classification, Task, Tree

AMPLITUDE = 0.05
"""Of the paper's white noise, for pixels from 0 to 1."""

DRAWS = 100


@dataclass(frozen=True)
class Flips:
    """Which samples noise flips, in the order of the batch.

    correct: (B,) bool, right without noise; once, ever: (B,) bool, right without noise, and wrong
    in the first draw, in any of them.
    """

    correct: Tensor
    once: Tensor
    ever: Tensor


def white_noise(
    model: Model,
    x: Tensor,
    y: Tree,
    *,
    amplitude: float = AMPLITUDE,
    draws: int = DRAWS,
    task: Task | None = None,
    bounds: Bounds = None,
    generator: Generator | None = None,
) -> Flips:
    """Which correct samples flip under noise that is uniform in +-amplitude on every entry.

    x: (B, *dims) floating, inside `bounds`; y: the task's targets; amplitude: at least 0, a share
    of the width of the bounds, or in x's units where there are none. Noisy samples are clamped to
    the bounds. The model is left as it was.
    Raises ValueError or TypeError for inputs outside bounds, wrong shapes, labels out of range.
    """
    box = check_samples(x, bounds)
    reach = amplitude if box is None else amplitude * (box[1] - box[0])
    if not bool((torch.as_tensor(reach) >= 0).all() & torch.isfinite(torch.as_tensor(reach)).all()):
        raise ValueError(
            f"amplitude is {amplitude!r} within the bounds {bounds!r}; expected a number of at "
            "least 0, and bounds that are finite"
        )

    def draw() -> Tensor:
        return x + LINF.random(x, x.new_ones(len(x)), generator) * reach

    task = Classification() if task is None else task
    _, wrong, correct = _flips(model, x, y, draw, draws, task, box)
    return Flips(correct, wrong[0] & correct, wrong[1] & correct)


def noise_in_ball(
    model: Model, x: Tensor, y: Tree, eps: float, draws: int, setting: Setting
) -> Attacked:
    """The first wrong one of `draws` points, uniform in the ball; as a row of the attacks."""
    box, radius = check_samples(x, setting.bounds), check_radius(eps, x)

    def draw() -> Tensor:
        return x + setting.norm.random(x, radius, setting.generator)

    noisy, wrong, correct = _flips(model, x, y, draw, draws, setting.task, box)
    return Attacked(noisy, wrong[1], correct, torch.zeros_like(correct))


def _flips(
    model: Model,
    x: Tensor,
    y: Tree,
    draw: Callable[[], Tensor],
    draws: int,
    task: Task,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """The first wrong points, who was wrong in the first draw and in any, who is right at x."""
    check_steps(draws)
    with no_trace(model, x) as inner:
        output = forward(inner, x)
        task.check(output, y)
        correct = task.correct(output, y)
        found, first, ever = x.clone(), torch.zeros_like(correct), torch.zeros_like(correct)
        for number in range(draws):
            noisy = into(draw(), box)
            wrong = ~task.correct(forward(inner, noisy), y)
            found = torch.where(per_sample(wrong & ~ever, x), noisy, found)
            ever = ever | wrong
            first = wrong if number == 0 else first
    return found, (first, ever), correct
