"""The lowest quality that was found for every sample, and the walks that look for a lower one.

lowest = the clean sample, or the noisy one of a smaller radius
repeat: walk up an objective inside the ball; at every point: lower quality? keep the point
        (of points of one quality the one with the lower score)

A walk goes on whatever it finds, until the quality is 0: for a label that is the first wrong
point. Samples never influence each other: noise is drawn for the whole batch, also for those that
are at 0 already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model
from ima.attacks.walk import Here, Objective, clamp, forward, walk
from ima.evaluation.setting import Setting
from ima.evaluation.short import shortened
from ima.tasks import Tree, take
from ima.tasks.pixels import wide

Judge = Callable[[Tree, Tree], Tensor]
"""judge(output, target) -> (n,) float: a quality, or a score."""


class Lowest:
    """The noisy samples (B, *dims) of the lowest quality (B,) that were looked at so far.

    It starts with points whose quality is known; only what is lower takes their place. binary: a
    quality is 0 or 1, so that on the way nothing but a 0 is of interest.
    """

    def __init__(
        self, noisy: Tensor, quality: Tensor, judge: Judge, score: Judge, *, binary: bool
    ) -> None:
        self.noisy, self.quality = noisy.clone(), quality.float().clone()
        self.score = torch.full_like(self.quality, torch.inf)
        self.judge, self.judge_score, self.binary = judge, score, binary
        self.start = self.left

    @property
    def left(self) -> Tensor:
        """The samples whose quality can still fall, as indices."""
        return (self.quality > 0).nonzero(as_tuple=True)[0]

    def look(
        self, index: Tensor, noisy: Tensor, output: Tree, target: Tree, *, last: bool = True
    ) -> Tensor:
        """Look at points of the samples `index`; their quality, (n,). last: of a walk."""
        quality, before = self.judge(output, target).float(), self.quality[index]
        lower = quality < before
        if last or not self.binary:
            # No number is the lowest: the second look at where a walk ended speaks of it.
            score = self.judge_score(output, target).float().nan_to_num(nan=-torch.inf)
            lower = lower | ((quality == before) & (score < self.score[index]))
            self.score[index[lower]] = score[lower]
        elif bool(lower.any()):
            self.score[index[lower]] = -torch.inf
        at = index[lower]
        self.noisy[at], self.quality[at] = noisy[lower].to(self.noisy.dtype), quality[lower]
        return quality


def climb(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    eps: float,
    steps: int,
    setting: Setting,
    objectives: Sequence[Objective],
) -> None:
    """PGD with every objective, from x and from a random point; every point counts."""
    for objective in objectives:
        noise = setting.norm.random(wide(x), radius(eps, x), setting.generator)
        for start in (None, noise):
            walk_from(model, x, y, lowest, start, eps, steps, 10 * eps / steps, objective, setting)


def walk_from(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    noise: Tensor | None,
    eps: float,
    steps: int,
    step_size: float,
    objective: Objective,
    setting: Setting,
    *,
    last: bool = False,
) -> None:
    """Walk from x + noise, and look at every point, or at the last alone."""
    left = lowest.left
    if len(left) == 0:
        return
    x, y, box = x[left], take(y, left), setting.box

    def look(here: Here) -> Tensor:
        index, noisy = left[here.index], wide(x)[here.index] + here.offset
        if not setting.short:
            return lowest.look(index, noisy, here.output, here.target, last=False) == 0
        # What a short pass takes for wrong, a full one decides.
        broken = lowest.judge(here.output, here.target) == 0
        (at,) = broken.nonzero(as_tuple=True)
        if len(at):
            output, target = forward(model, noisy[at].to(x.dtype)), take(here.target, at)
            broken[at] = lowest.look(index[at], noisy[at], output, target, last=False) == 0
        return broken

    walked = walk(
        shortened(model) if setting.short else model,
        x,
        y,
        radius(eps, x),
        steps=steps,
        step_size=radius(step_size, x),
        norm=setting.norm,
        task=setting.task,
        bounds=box,
        start=None if noise is None else clamp(wide(x) + noise[left], box),
        objective=objective,
        stop=None if last else look,
    )
    lowest.look(left, walked.x, forward(model, walked.x), y)


def draw(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    draws: int,
    noise: Callable[[], Tensor],
    setting: Setting,
) -> None:
    """Look at x with noise, so many times."""
    for _ in range(draws):
        noisy, left = as_seen(model, clamp(wide(x) + noise(), setting.box), wide(x)), lowest.left
        if len(left) == 0:
            return
        lowest.look(left, noisy[left], forward(model, noisy[left]), take(y, left))


def radius(eps: float, x: Tensor) -> Tensor:
    """One radius for every sample, (B,); the number was checked before."""
    wider = wide(x[:0])
    return torch.full((len(x),), eps, dtype=wider.dtype, device=x.device)
