"""The attacks on segmentation networks: what they look for is the lowest Dice, not one flip.

lowest = the clean sample, or the noisy one of a smaller radius
repeat: walk up an objective inside the ball; at every point: lower Dice? keep the point
        (a tie between two points goes to the lower soft Dice)

A walk goes on whatever it finds, until Dice is 0. Samples never influence each other: noise is
drawn for the whole batch, also for those that are at 0 already.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model, check_radius, check_samples, no_trace
from ima.attacks.walk import Here, Objective, forward, into, walk
from ima.evaluation.noise import AMPLITUDE, white
from ima.evaluation.setting import Setting
from ima.tasks import Segmentation, Tree, take
from ima.tasks.pixels import wide


class Lowest:
    """The noisy samples (B, *dims) of the lowest Dice (B,) that were looked at so far.

    It starts with points whose Dice is known; only a lower Dice takes their place.
    """

    def __init__(self, noisy: Tensor, dice: Tensor, task: Segmentation) -> None:
        self.noisy, self.dice, self.task = noisy.clone(), dice.float().clone(), task
        self.score = torch.full_like(self.dice, -torch.inf)

    @property
    def left(self) -> Tensor:
        """The samples whose Dice can still fall, as indices."""
        return (self.dice > 0).nonzero(as_tuple=True)[0]

    def look(self, index: Tensor, noisy: Tensor, output: Tree, target: Tree) -> Tensor:
        """Look at points of the samples `index`; their Dice, (n,)."""
        dice = self.task.dice(output, target).float()
        score = self.task.score(output, target).float()
        before = self.dice[index]
        lower = (dice < before) | ((dice == before) & (score < self.score[index]))
        at = index[lower]
        self.noisy[at], self.dice[at] = noisy[lower].to(self.noisy.dtype), dice[lower]
        self.score[at] = score[lower]
        return dice


Run = Callable[[Model, Tensor, Tree, Lowest, float, int, Setting], None]
"""run(model, x, y, lowest, eps, steps, setting): looks at points in the ball around x."""


@dataclass(frozen=True)
class SegmentAttack:
    """One attack: name, function, default steps, what its Dice means in one sentence.

    amplitude: of white noise, which has no radius; None for all others.
    """

    name: str
    run: Run
    steps: int
    paper: str
    summary: str
    amplitude: float | None = None

    @property
    def label(self) -> str:
        """The name as a person writes it, with the default steps: `pgd-100`."""
        return f"{self.name}-{self.steps}"


def _pgd(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    _climb(model, x, y, lowest, eps, steps, setting, [setting.task.objective])


def _ensemble(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    walks = ("dice", "cross_entropy", "loss")
    objectives = [replace(lowest.task, walk=name).objective for name in walks]
    _climb(model, x, y, lowest, eps, steps, setting, objectives)


def _ifgsm(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    objective = setting.task.objective
    _walk(model, x, y, lowest, None, eps, steps, eps / 4, objective, setting, last=True)


def _noise(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, draws: int, setting: Setting
) -> None:
    radius = check_radius(eps, x)
    _draw(
        model,
        x,
        y,
        lowest,
        draws,
        lambda: setting.norm.random(wide(x), radius, setting.generator),
        setting,
    )


def _white(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, draws: int, setting: Setting
) -> None:
    _draw(model, x, y, lowest, draws, white(x, eps, setting), setting)


def _climb(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    eps: float,
    steps: int,
    setting: Setting,
    objectives: list[Objective],
) -> None:
    """PGD with every objective, from x and from a random point; every point counts."""
    radius, step_size = check_radius(eps, x), 10 * eps / steps
    for objective in objectives:
        noise = setting.norm.random(wide(x), radius, setting.generator)
        for start in (None, noise):
            _walk(model, x, y, lowest, start, eps, steps, step_size, objective, setting)


def _walk(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    start: Tensor | None,
    eps: float,
    steps: int,
    step_size: float,
    objective: Objective,
    setting: Setting,
    *,
    last: bool = False,
) -> None:
    """Walk from x + start, and look at every point, or at the last alone."""
    left = lowest.left
    if len(left) == 0:
        return
    x, y = x[left], take(y, left)
    box = check_samples(x, setting.bounds)

    def look(here: Here) -> Tensor:
        noisy = wide(x)[here.index] + here.offset
        return lowest.look(left[here.index], noisy, here.output, here.target) == 0

    with no_trace(model, x) as inner:
        walked = walk(
            inner,
            x,
            y,
            check_radius(eps, x),
            steps=steps,
            step_size=check_radius(step_size, x, "step_size"),
            norm=setting.norm,
            task=setting.task,
            bounds=box,
            start=None if start is None else into(wide(x) + start[left], box),
            objective=objective,
            stop=None if last else look,
        )
        lowest.look(left, walked.x, forward(inner, walked.x), y)


def _draw(
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    draws: int,
    noise: Callable[[], Tensor],
    setting: Setting,
) -> None:
    """Look at x with noise, so many times."""
    box = check_samples(x, setting.bounds)
    with no_trace(model, x) as inner:
        for _ in range(draws):
            noisy, left = as_seen(inner, into(wide(x) + noise(), box), wide(x)), lowest.left
            if len(left) == 0:
                return
            lowest.look(left, noisy[left], forward(inner, noisy[left]), take(y, left))


SEGMENT_ATTACKS = {
    row.name: row
    for row in (
        SegmentAttack(
            "pgd",
            _pgd,
            100,
            "Madry et al., ICLR 2018",
            "N steps of 10 eps / N up the training loss, from the sample and from a random start; "
            "the point of lowest Dice counts.",
        ),
        SegmentAttack(
            "ifgsm",
            _ifgsm,
            10,
            "Kurakin et al., ICLR 2017, as in Ma & Liang's tables",
            "N steps of eps / 4 from the sample; the last point counts.",
        ),
        SegmentAttack(
            "ensemble",
            _ensemble,
            100,
            "-",
            "pgd-N with Dice, with cross-entropy and with both; the point of lowest Dice counts.",
        ),
        SegmentAttack(
            "noise",
            _noise,
            100,
            "-",
            "The worst of N random points, uniform in the ball: what noise does without any aim.",
        ),
        SegmentAttack(
            "white",
            _white,
            100,
            "Ma & Liang, introduction",
            f"The worst of N draws, uniform in ±{AMPLITUDE:g} on every entry (times the bounds' "
            "width, where there are bounds); white-1 is one draw.",
            AMPLITUDE,
        ),
    )
}


def find_segment_attack(name: str) -> tuple[SegmentAttack, int]:
    """The row and the steps of an attack named `pgd`, `pgd-100`, ...

    Raises ValueError for an unknown name, naming the nearest.
    """
    match = re.fullmatch(r"([a-z]+)(?:-(\d+))?", name)
    if match and match[1] in SEGMENT_ATTACKS and match[2] != "0":
        row = SEGMENT_ATTACKS[match[1]]
        return row, int(match[2] or row.steps)
    near = get_close_matches(name.partition("-")[0], SEGMENT_ATTACKS, 1)
    hint = f"; did you mean {SEGMENT_ATTACKS[near[0]].label!r}?" if near else ";"
    known = ", ".join(row.label for row in SEGMENT_ATTACKS.values())
    raise ValueError(
        f"unknown attack {name!r} for segmentation{hint} Known: {known} (with any number of steps)"
    )
