"""Curriculum adversarial training: attacks of growing length.

Cai, Du, Liu, Song, "Curriculum Adversarial Training", IJCAI 2018. The paper's short name, CAT, is
that of `customized.py` too.

split the batch in order into k + 1 chunks
chunk j gets PGD from a random start, j steps of 2 * eps / j
loss = mean Loss(f(x~), y)
after an epoch: k += 1, up to `steps`, if the accuracy on x~ is above `threshold`, or has not
improved for `patience` epochs

Chunk 0 stays clean. Differences from the published code: L2 as well as L-infinity; attacks in
evaluation mode; no random factor in the step, no quantised inputs; the accuracy is that of
training, so no weights are reloaded and no validation part is needed; epochs without progress are
enough, while the code asks for a training accuracy above 0.9 too, and their number scales with the
run's length; a batch smaller than k + 1 gets k steps, and is not skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import Here
from ima.methods.absent import or_absent
from ima.methods.base import Step, positive
from ima.methods.noisy import Noisy
from ima.norms import Norm, per_sample
from ima.tasks import Task, Tree
from ima.tasks.pixels import wide

_PATIENCE = 10 / 300
"""The published code's 10 epochs without progress, as a share of its longest run."""


@dataclass
class Lesson:
    """Where the curriculum stands.

    strength: steps of the strongest attack now.
    best: highest accuracy at this strength so far.
    stale: epochs since then.
    right: right noisy samples of the current epoch.
    seen: samples of the current epoch.
    """

    strength: int = 0
    best: float = 0.0
    stale: int = 0
    right: float = 0.0
    seen: float = 0.0


class CurriculumAT(Noisy):
    """Train on a mixture of attacks with 0 to k steps; k grows as training succeeds.

    eps: noise radius, in x's units and `norm`, above 0.
    threshold: accuracy on noisy samples above which k grows, above 0, at most 1.
    patience: epochs without progress after which k grows too, above 0; None: a thirtieth of all.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: largest k, 1 or more.
    task: what outputs and targets mean; None: `Classification()`.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Cai, Du, Liu, Song, arXiv:1805.04807, Algorithm 1, with batch mixing.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.CurriculumAT(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # k may grow
    """

    def __init__(
        self,
        *,
        eps: float,
        threshold: float = 0.95,
        patience: int | None = None,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        positive(threshold=threshold, patience=1 if patience is None else patience)
        if threshold > 1:
            raise ValueError(f"threshold is {threshold}; expected an accuracy, at most 1")
        self.threshold, self.patience = threshold, patience
        self.lesson = Lesson()

    @property
    def scheduled(self) -> bool:
        """True: k grows at the end of an epoch, so call end_epoch()."""
        return True

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)
        radius = self.full_radius(x)
        strength = self.lesson.strength
        quota = chunks(len(x), strength).to(x.device)
        attacked = per_sample(quota > 0, x)
        start = torch.where(attacked, self.uniform_start(x, radius, box), wide(x))

        def done(here: Here) -> Tensor:
            return here.step >= quota[here.index]

        walked = self.walk(
            model,
            x,
            y,
            radius,
            2 * radius / quota.clamp_min(1),
            box,
            steps=strength,
            start=start,
            stop=done,
        )
        step = self.train_on(model, walked.x, y, right, walked.stuck)
        if not self.absent:
            self.lesson.right += float(step.metrics["noisy_correct"])
            self.lesson.seen += len(x)
        return step

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Tell the method that an epoch is over; see `Method`. k grows if the epoch allows it."""
        super().end_epoch(epoch, epochs)
        lesson = self.lesson
        accuracy = _everywhere(lesson.right) / max(1.0, _everywhere(lesson.seen))
        lesson.right = lesson.seen = 0.0
        lesson.stale = 0 if accuracy > lesson.best else lesson.stale + 1
        lesson.best = max(accuracy, lesson.best)
        patience = max(1, round(_PATIENCE * epochs)) if self.patience is None else self.patience
        ready = accuracy > self.threshold or lesson.stale >= patience
        if ready and lesson.strength < self.steps:
            self.lesson = Lesson(lesson.strength + 1)

    def state_dict(self) -> dict[str, Any]:
        """What to save: where the curriculum stands, and the state of the noise."""
        return {"lesson": asdict(self.lesson), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; ValueError for another method's."""
        super().load_state_dict(state)
        self.lesson = Lesson(**state["lesson"])


def chunks(samples: int, strength: int) -> Tensor:
    """How many steps each sample of a batch is attacked with, (samples,) int64, in order."""
    size = samples // (strength + 1)
    if size == 0:
        return torch.full((samples,), strength)
    return (torch.arange(samples) // size).clamp_max(strength)


def _everywhere(value: float) -> float:
    """The sum over all processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return float(sum(found))
