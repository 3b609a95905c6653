"""Attacks that look for the smallest noise: the table behind `minimal`.

Each returns one point a sample, which it saw wrong, or the sample itself: `minimal` looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ima.attacks import ddn
from ima.attacks.alma import alma
from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model
from ima.attacks.walk import Objective, forward
from ima.evaluation.attacks import Lacks
from ima.evaluation.autoattack import ITERATIONS, TARGETS, free_fab
from ima.evaluation.lifted import (
    Broken,
    Lifted,
    in_library,
    in_library_state,
    plain_layout,
    unit_box,
)
from ima.evaluation.lowest import Lowest, climb
from ima.evaluation.setting import Setting
from ima.extras import lacking
from ima.norm_names import known_norm
from ima.norms import L2, Norm, per_sample
from ima.tasks import Classification, Task, Tree, objective_of
from ima.tasks.checked import check_standing, is_own
from ima.tasks.pixels import precise, wide

STEPS = 100

Find = Callable[[Model, Tensor, Tree, Tensor, Sequence[float], Setting], Tensor]
"""find(model, x, y, known, radii, setting) -> like x: points seen wrong; x where there is none.

known: (B,), the smallest size found before, infinite where there is none.
"""


@dataclass(frozen=True)
class Finder:
    """One attack; lacks: why it cannot run, or nothing."""

    name: str
    find: Find
    lacks: Lacks = lambda *_: ""


def _ddn(
    model: Model,
    x: Tensor,
    y: Tree,
    known: Tensor,
    radii: Sequence[float],
    setting: Setting,
    *,
    margin: bool = False,
) -> Tensor:
    objective = both(setting.task)[1] if margin else None
    same: dict[str, Any] = {"norm": setting.norm, "task": setting.task, "bounds": setting.box}
    return ddn(model, x, y, radius=_middle(radii), objective=objective, **same).x


def _alma(
    model: Model, x: Tensor, y: Tree, known: Tensor, radii: Sequence[float], setting: Setting
) -> Tensor:
    task, bounds = setting.task, setting.box
    return alma(model, x, y, steps=STEPS, radius=_middle(radii), task=task, bounds=bounds)


def _alma_lacks(task: Task, norm: Norm, bounds: Bounds) -> str:
    return "" if norm.name == L2.name else "L2 only"


def _middle(radii: Sequence[float]) -> float:
    return radii[(len(radii) - 1) // 2]


def _fab(
    model: Model, x: Tensor, y: Tree, known: Tensor, radii: Sequence[float], setting: Setting
) -> Tensor:
    task, norm = setting.task, setting.norm
    assert isinstance(task, Classification)
    low, width = unit_box(setting.box)
    classes = task.logits(forward(model, x[:1])).shape[1]
    shape = tuple(x.shape[1:])
    broken = Broken(wide(x), norm)
    lifted = Lifted(model, shape, plain_layout(shape), low, width, precise(x), classes, broken)
    nearest, size = x.clone(), torch.full_like(known, torch.inf)
    with in_library_state():
        fab = free_fab(lifted, norm=in_library(norm), n_iter=ITERATIONS)
    for target in range(2, min(TARGETS, classes - 1) + 2):
        fab.target_class = target
        # One run itself: its `perturb` keeps points within a radius only.
        with in_library_state():
            run = fab.attack_single_run(lifted.up(wide(x)), y, is_targeted=True)
        point = as_seen(model, lifted.down(run.detach()), wide(x))
        wrong = ~task.correct(forward(model, point), y)
        far = torch.where(wrong, norm.size(point - wide(x)).to(size.dtype), torch.inf)
        closer = far < size
        nearest[closer], size[closer] = point[closer].to(x.dtype), far[closer]
    return torch.where(per_sample(broken.far < size, x), broken.points.to(x.dtype), nearest)


def _fab_lacks(task: Task, norm: Norm, bounds: Bounds) -> str:
    if not isinstance(task, Classification):
        return "classification only"
    if told := lacking("autoattack"):
        return f"the authors' code is {told}"
    if bounds is None:
        return "needs bounds"
    if known_norm(norm.name) is None:
        return "L1, L2 and Linf only"
    low, high = (torch.as_tensor(bound) for bound in bounds)
    try:
        unit_box((low, high))
    except ValueError:
        return "needs bounds of one finite width"
    return ""


def _pgd(
    model: Model, x: Tensor, y: Tree, known: Tensor, radii: Sequence[float], setting: Setting
) -> Tensor:
    task = setting.task
    # What is looked for is wrong, not low: a mask is so at its threshold.
    lowest = Lowest(x, torch.ones_like(known), task.correct, task.score, binary=True)
    wrong = torch.zeros_like(known, dtype=torch.bool)
    for radius in radii:
        lowest.quality[(known <= radius) & (lowest.quality > 0)] = 0
        left = lowest.left
        climb(model, x, y, lowest, radius, STEPS, setting, both(task))
        wrong[left] = lowest.quality[left] == 0
    if is_own(task):
        check_standing(task, forward(model, lowest.noisy), y, ~wrong)
    return torch.where(per_sample(wrong, x), lowest.noisy, x)


def both(task: Task) -> list[Objective]:
    """What to raise where any wrong point counts: the objective, and minus the score."""
    return [objective_of(task), lambda output, target: -task.score(output, target)]


FINDERS = (
    Finder("ddn", _ddn),
    Finder("ddn-margin", partial(_ddn, margin=True)),
    Finder("alma", _alma, _alma_lacks),
    Finder("fab", _fab, _fab_lacks),
    Finder(f"pgd-{STEPS}", _pgd),
)
