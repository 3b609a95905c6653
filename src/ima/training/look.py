"""How a network that is hardened is judged: on which samples, and under which noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate  # pyright: ignore[reportUnknownVariableType]

from ima.attacks import ddn
from ima.attacks.inputs import Bounds
from ima.attacks.walk import eval_forward
from ima.evaluation.batches import device_of
from ima.evaluation.evaluate import evaluate
from ima.evaluation.remarks import said_beside
from ima.evaluation.results import Results
from ima.evaluation.settings import VALIDATION
from ima.norms import Norm
from ima.tasks import Task, Tree, tree_map
from ima.training.held import Judged

ATTACK = "pgd-10"
"""What looks at the network."""

SIZES = (0.5, 1.0, 2.0)
"""Sizes of noise, in medians of the smallest that breaks the network as it came."""

FEW = 64
"""So many samples tell that median."""


@dataclass(frozen=True, eq=False)
class Look:
    """How a network is judged: on what, and what its outputs mean."""

    judged: Judged
    norm: Norm
    bounds: Bounds
    task: Task
    classes: tuple[str, ...] | None
    seed: int

    def radii(self, network: nn.Module) -> tuple[float, ...]:
        """Sizes of noise to try, from the smallest noise that breaks the network.

        Raises ValueError where it has no sample right: no noise has to be small for it.
        """
        data: Any = self.judged.data
        items = [data[at] for at in range(min(FEW, len(data)))]
        x = torch.stack([x for x, _ in items])
        y: Tree = default_collate([y for _, y in items])
        place = device_of(network)
        x, y = x.to(place), tree_map(lambda t: t.to(place), y)
        self.task.check(eval_forward(network, x), y)
        scale = max(float(self.norm.size((x - x.mean(0)).double()).mean()) / 10, 1e-6)
        norm, task, bounds = self.norm, self.task, self.bounds
        found = ddn(network, x, y, steps=50, radius=scale, norm=norm, task=task, bounds=bounds)
        known = found.distance[found.correct & (found.distance > 0)]
        if not len(known):
            raise ValueError(
                f"the network has none of {len(x)} held-out samples right that noise could make "
                "wrong, so nothing tells how large noise is to be; train it first"
            )
        return tuple(float(f"{size * float(known.median()):.2g}") for size in SIZES)

    def __call__(self, network: nn.Module, radii: tuple[float, ...]) -> Results:
        """The network's quality without noise and under it."""
        with said_beside():
            found = evaluate(
                network,
                self.judged.data,
                radii,
                ATTACK,
                norm=self.norm,
                bounds=self.bounds,
                task=self.task,
                seed=self.seed,
                names=self.judged.names,
                classes=self.classes,
            )
        return Results(found.columns, found.settings.but(part=VALIDATION))


def line_of(found: Results) -> str:
    """The mean qualities in one line."""
    write = found.settings.measure.said
    levels = (f"{write(found.mean(ATTACK, eps))} at {eps:g}" for eps in found.eps)
    return f"{write(found.mean())} without noise, {', '.join(levels)}".replace("\u00a0", " ")
