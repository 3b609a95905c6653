"""Noise without any aim: how often a random change alone turns a right answer into a wrong one.

repeat `draws` times: a random point near x, clamped to the bounds; is the model wrong there?

White noise, uniform on every entry, is that of the paper's introduction (Ma & Liang); noise in the
ball is what an attack of the same radius must at least equal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model, check_radius, check_samples, check_steps, no_trace
from ima.attacks.walk import Attacked, forward, into
from ima.evaluation.setting import Setting
from ima.norms import LINF, per_sample
from ima.tasks import Task, Tree, targets
from ima.tasks.pixels import wide

AMPLITUDE = 0.05
"""Of the paper's white noise, for pixels from 0 to 1."""

DRAWS = 100

WHITE_NOISE = ("white-1", f"white-{DRAWS}")
"""The white noise of an evaluation, as names of attacks: one draw, and the worst of many."""


def white_noise(
    model: Model, x: Tensor, y: Tree, amplitude: float, draws: int, setting: Setting
) -> Attacked:
    """The first wrong one of `draws` points, uniform in +-amplitude on every entry.

    As a row of the attacks. amplitude: at least 0, a share of the width of the bounds, or in x's
    units where there are none. The noise depends on the generator's seed alone, not on what was
    drawn before: the only draw of one is the first of many.
    Raises ValueError or TypeError for inputs outside bounds, wrong shapes, labels out of range.
    """
    draw, box = white(x, amplitude, setting), check_samples(x, setting.bounds)
    return _first_wrong(model, x, y, lambda: wide(x) + draw(), draws, setting.task, box)


def white(x: Tensor, amplitude: float, setting: Setting) -> Callable[[], Tensor]:
    """A function that draws the noise of `white_noise`, (B, *dims); raises ValueError likewise."""
    box = check_samples(x, setting.bounds)
    reach = torch.as_tensor(amplitude if box is None else amplitude * (box[1] - box[0]))
    if not bool((reach >= 0).all() & torch.isfinite(reach).all()):
        raise ValueError(
            f"amplitude is {amplitude!r} within the bounds {setting.bounds!r}; expected a number "
            "of at least 0, and bounds that are finite"
        )
    source = Generator().manual_seed(setting.generator.initial_seed())

    x = wide(x)
    return lambda: LINF.random(x, x.new_ones(len(x)), source) * reach


def noise_in_ball(
    model: Model, x: Tensor, y: Tree, eps: float, draws: int, setting: Setting
) -> Attacked:
    """The first wrong one of `draws` points, uniform in the ball; as a row of the attacks."""
    box, radius = check_samples(x, setting.bounds), check_radius(eps, x)

    def draw() -> Tensor:
        return wide(x) + setting.norm.random(wide(x), radius, setting.generator)

    return _first_wrong(model, x, y, draw, draws, setting.task, box)


def _first_wrong(
    model: Model,
    x: Tensor,
    y: Tree,
    draw: Callable[[], Tensor],
    draws: int,
    task: Task,
    box: tuple[Tensor, Tensor] | None,
) -> Attacked:
    check_steps(draws)
    y = targets(y)
    with no_trace(model, x) as inner:
        output = forward(inner, x)
        task.check(output, y)
        correct = task.correct(output, y)
        found, ever = x.clone(), torch.zeros_like(correct)
        for _ in range(draws):
            noisy = as_seen(inner, into(draw(), box), wide(x)).to(x.dtype)
            wrong = ~task.correct(forward(inner, noisy), y)
            found = torch.where(per_sample(wrong & ~ever, x), noisy, found)
            ever = ever | wrong
    return Attacked(found, ever, correct, torch.zeros_like(correct))
