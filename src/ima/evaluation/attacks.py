"""The attacks of an evaluation: a table of names such as `pgd-100`, with their settings fixed.

A row's function gets samples that still stand and returns what it found; every walk, every
restart and, for PGD, every iterate counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from ima.attacks import ifgsm, pgd
from ima.attacks.inputs import Model
from ima.attacks.walk import Attacked, Objective
from ima.evaluation.autoattack import autoattack
from ima.evaluation.noise import AMPLITUDE, noise_in_ball, white_noise
from ima.evaluation.setting import Setting
from ima.tasks import Tree, objective_of, take

Run = Callable[[Model, Tensor, Tree, float, int, Setting], Attacked]
"""run(model, x, y, eps, steps, setting) -> Attacked."""


@dataclass(frozen=True)
class AttackRow:
    """One attack: name, function, default steps, what its accuracy means in one sentence.

    steps: None where the attack has no such number. whole: made of parts, named by
    `autoattack.parts`, and in need of bounds. amplitude: of noise that has a size of its own, in
    place of eps.
    """

    name: str
    run: Run
    steps: int | None
    paper: str
    summary: str
    whole: bool = False
    amplitude: float | None = None

    @property
    def label(self) -> str:
        """The name as a person writes it, with the default steps: `pgd-100`, `autoattack`."""
        return self.name if self.steps is None else f"{self.name}-{self.steps}"


def _pgd(model: Model, x: Tensor, y: Tree, eps: float, steps: int, setting: Setting) -> Attacked:
    task = setting.task

    def margin(output: Tree, target: Tree) -> Tensor:
        return -task.score(output, target)

    def attempt(objective: Objective, random_start: bool) -> Callable[[Tensor, Tree], Attacked]:
        return lambda x, y: pgd(
            model,
            x,
            y,
            eps,
            steps=steps,
            step_size=10 * eps / steps,
            norm=setting.norm,
            task=task,
            bounds=setting.bounds,
            random_start=random_start,
            objective=objective,
            generator=setting.generator,
        )

    tries = [attempt(o, start) for o in (objective_of(task), margin) for start in (False, True)]
    return worst(tries, x, y)


def _ifgsm(model: Model, x: Tensor, y: Tree, eps: float, steps: int, setting: Setting) -> Attacked:
    task = setting.task
    return ifgsm(model, x, y, eps, steps=steps, norm=setting.norm, task=task, bounds=setting.bounds)


def worst(tries: list[Callable[[Tensor, Tree], Attacked]], x: Tensor, y: Tree) -> Attacked:
    """Run one try after the other, each on the samples that all before left standing."""
    first = tries[0](x, y)
    noisy, crossed, stuck = first.x, first.crossed.clone(), first.stuck.clone()
    for attempt in tries[1:]:
        (left,) = (~crossed).nonzero(as_tuple=True)
        if len(left) == 0:
            break
        result = attempt(x[left], take(y, left))
        noisy[left], crossed[left] = result.x, result.crossed
        stuck[left] |= result.stuck
    return Attacked(noisy, crossed, first.correct, stuck)


ATTACKS = {
    row.name: row
    for row in (
        AttackRow(
            "pgd",
            _pgd,
            100,
            "Madry et al., ICLR 2018",
            "N steps of 10 eps / N, with the loss and with the margin to the next class, each from "
            "the sample and from a random start; any iterate counts.",
        ),
        AttackRow(
            "ifgsm",
            _ifgsm,
            10,
            "Kurakin et al., ICLR 2017, as in Ma & Liang's tables",
            "N steps of eps / 4 from the sample; the last iterate counts.",
        ),
        AttackRow(
            "autoattack",
            autoattack("autoattack"),
            None,
            "Croce & Hein, ICML 2020",
            "APGD, FAB and Square with standard budgets, as far as the number of classes permits: "
            "for two classes APGD and Square, as in the IMA paper.",
            whole=True,
        ),
        AttackRow(
            "autoattack+",
            autoattack("autoattack+"),
            None,
            "Croce & Hein, ICML 2020",
            "AutoAttack, then APGD on the margin, and FAB for two classes too.",
            whole=True,
        ),
        AttackRow(
            "noise",
            noise_in_ball,
            100,
            "-",
            "The worst of N random points, uniform in the ball: what noise does without any aim.",
        ),
        AttackRow(
            "white",
            white_noise,
            100,
            "Ma & Liang, introduction",
            f"White noise: the worst of N draws, uniform in ±{AMPLITUDE:g} of the bounds' width "
            "(in x's units without bounds) on every entry, whatever eps is; ima evaluate runs "
            "white-1 and white-100.",
            amplitude=AMPLITUDE,
        ),
    )
}


def find_attack(name: str) -> tuple[AttackRow, int]:
    """The row and the steps of an attack named `pgd`, `pgd-100`, `autoattack`, ...

    The steps are 0 for an attack that has no such number. Raises ValueError for an unknown name,
    naming the nearest.
    """
    match = re.fullmatch(r"([a-z+]+)(?:-(\d+))?", name)
    if match and match[1] in ATTACKS and match[2] != "0":
        row = ATTACKS[match[1]]
        if row.steps is not None or match[2] is None:
            return row, int(match[2] or row.steps or 0)
    near = get_close_matches(name.partition("-")[0], ATTACKS, 1)
    hint = f"; did you mean {ATTACKS[near[0]].label!r}?" if near else ";"
    known = ", ".join(row.label for row in ATTACKS.values())
    raise ValueError(
        f"unknown attack {name!r}{hint} Known: {known} (where there is a number of steps, any)"
    )
