"""Accuracy on the validation part, which picks the best epoch."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import nn

from ima.attacks import pgd
from ima.attacks.walk import eval_forward
from ima.budget import Budget, OutOfTime
from ima.data import Part
from ima.norms import get_norm
from ima.tasks import check_task
from ima.training.build import BOUNDS
from ima.training.config import build_task
from ima.training.settings import Config

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def validate_epoch(
    fabric: Fabric, model: nn.Module, part: Part, config: Config, budget: Budget | None = None
) -> tuple[float, float]:
    """Which share is correct, and correct under PGD-10 at the middle noise radius.

    Every process computes them all. With a budget, OutOfTime where a batch may not fit into it,
    judged by the slowest so far.
    """
    task = check_task(build_task(config))
    clean = noisy = 0
    slowest = 0.0
    for ids in torch.arange(len(part)).split(config.evaluate.batch_size):
        if budget is not None and not fabric.broadcast(budget.left() > slowest):
            raise OutOfTime(
                "the time is up: a validation needs more than is left; it comes first the next time"
            )
        begun = monotonic()
        x, y = fabric.to_device(part[ids])
        with fabric.autocast():
            right = task.correct(eval_forward(model, x), y)
            attacked = pgd(
                model,
                x,
                y,
                config.evaluate.middle,
                steps=10,
                norm=get_norm(config.norm),
                task=task,
                bounds=BOUNDS,
            )
        clean += int(right.sum())
        noisy += int((right & ~attacked.crossed).sum())
        slowest = max(slowest, monotonic() - begun)
    return clean / len(part), noisy / len(part)
