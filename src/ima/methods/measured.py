"""IMA with measured margins: no radius and no growth to set, and two gradients a step.

E(i) = margin, d(i) = direction of the nearest boundary point, R = one radius for all samples

z = x + min(E(i), 2 R) d(i);  g = gradient of the score at z
E(i), d(i) = length and direction of the way from x to the plane <g, . - z> + score(z) = 0
x' = R-ball(z - R direction(g));  x~ = R-ball(x' + R direction(gradient of the loss at x'))
loss = mean of (Loss(f(x), y) + Loss(f(x~), y)) / 2
kept = (quality at x~ - chance) / (the most that quality at x was ever above chance)
R = R exp(2 (kept - 0.43) batch / num_samples)

A sample that is wrong has no margin: its z is half of R away. In a sample's first visit, and in
every visit where x changes (`augmented`), d is the direction of the score's gradient at x; where x
changes, x~ = x'.

How R is steered, and why by 0.43, stands in `ima.methods.radius`.

E(i) is DeepFool's step (Moosavi-Dezfooli et al., CVPR 2016), one in every visit in place of many
in one, inside the bounds. Half the loss is clean, as in Ma & Liang's Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ima.attacks.inputs import Model, no_trace
from ima.attacks.lockstep import processes
from ima.attacks.plane import to_plane
from ima.attacks.walk import Here, Objective, Walked, clamp
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, batch_size, count, finite
from ima.methods.directions import Directions
from ima.methods.noisy import Box
from ima.methods.radius import Guard, Radius
from ima.norms import per_sample
from ima.tasks import Tree, given, take
from ima.tasks.pixels import wide

Batch = tuple[Tensor, Tree, Box]
"""x, y and the bounds, as `prepare` gives them."""

FAR = 2.0
"""So many radii away at most a boundary is looked for."""


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    x: the noisy samples; margins, stuck: (B,); offsets: to the nearest boundary point, like x.
    """

    x: Tensor
    margins: Tensor
    offsets: Tensor
    stuck: Tensor


class Measured:
    """The state and the step of `IMA(variant="measured")`.

    num_samples: size of the training set; cap: largest radius, in x's units, or infinite;
    augmented: whether x changes from visit to visit; clean_drop: see `IMA`; seed: of the choice
    of samples that are held out for it.
    """

    def __init__(
        self, num_samples: int, cap: float, *, augmented: bool, clean_drop: float | None, seed: int
    ) -> None:
        self.radius = Radius(num_samples, cap)
        self.guard = None if clean_drop is None else Guard(num_samples, clean_drop, seed)
        self.directions = None if augmented else Directions(num_samples)

    def state_dict(self) -> dict[str, Any]:
        """What to save beside the margins."""
        known = {} if self.directions is None else self.directions.state_dict()
        guard = {} if self.guard is None else self.guard.state_dict()
        return {"radius": self.radius.state_dict(), "directions": known, "guard": guard}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; ValueError where it is of other samples."""
        self.radius.load_state_dict(state["radius"])
        if self.guard is not None and state["guard"]:
            self.guard.load_state_dict(state["guard"])
        if self.directions is not None:
            self.directions.load_state_dict(state["directions"])

    def step(self, method: Adaptive, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. Updates margins and radius."""
        task = method.setting.task
        x, y, box = method.prepare(x, y, ids)
        before = method.margins.of(ids, x)
        if self.directions is not None and not self.directions.fits(x):
            self.directions = None

        output = method.outputs(model, x, y)
        clean, right = task.loss(output, y), task.correct(output, y)
        walk = self._walk(method, model, (x, y, box), ids, before, right)
        noisy_output = method.outputs(model, walk.x)
        held = torch.zeros_like(right) if self.guard is None else self.guard.of(ids.to(x.device))
        each = torch.where(held, 0, (clean + task.loss(noisy_output, y)) / 2)
        loss = each.sum() / (~held).sum().clamp_min(1)
        # They exchange margins, whatever the model is.
        finite(loss, everywhere=processes() > 1)

        still = task.correct(noisy_output, y)
        margins = torch.where(right, walk.margins, 0)
        method.update(method.margins, ids, margins)
        here = 0 if method.absent else len(ids)
        if self.directions is not None:
            self.directions.update(ids[:here], walk.offsets[:here], method.setting.norm)
        *sums, held_clean, held_count = _summed(
            _qualities(task, output, noisy_output, y, held)[:, :here].sum(1)
        )
        room = 1.0 if self.guard is None else self.guard.room(held_clean, held_count)
        self.radius.follow(*sums, room=room)
        metrics = {
            "samples": batch_size(x),
            "correct": count(right),
            "loss": loss.detach(),
            "noisy_samples": batch_size(x),
            "noisy_correct": count(still),
            "crossed": count(right & ~still),
            "stuck": count(walk.stuck),
            "margin": before.mean(),
            "growing": count(margins > before),
            "radius": torch.full_like(loss.detach(), self.radius.value),
            "kept": torch.full_like(loss.detach(), self.radius.kept),
        }
        if self.guard is not None:
            metrics["held_clean"] = torch.full_like(loss.detach(), self.guard.clean)
            metrics["clean_cost"] = torch.full_like(loss.detach(), self.guard.cost)
        return Step(loss, metrics)

    def _walk(
        self,
        method: Adaptive,
        model: nn.Module,
        batch: Batch,
        ids: Tensor,
        margins: Tensor,
        right: Tensor,
    ) -> Walk:
        x, y, box = batch
        norm, points = method.setting.norm, wide(x.detach())
        self.radius.begin(points[: 0 if method.absent else len(x)], norm)
        radius = method.full_radius(x).fill_(self.radius.value)
        with method.outputs.reach.seen(model), no_trace(model, x) as inner:
            direction, known = torch.zeros_like(points), torch.zeros_like(right)
            if self.directions is not None:
                direction, known = self.directions.of(ids, points)
            margins = margins.to(radius.dtype)
            far = torch.minimum(torch.where(margins > 0, margins, radius / 2), FAR * radius)
            far = torch.where(right, far, radius / 2)
            start = clamp(points + per_sample(far, points) * direction, box)
            (new,) = (~known).nonzero(as_tuple=True)
            if len(new):
                some, length = (x[new], take(y, new)), far[new]
                start[new] = wide(
                    method.walk(
                        inner, *some, length, length, box, steps=1, objective=_lower(method)
                    ).x
                )
            near = _plane(method, inner, batch, radius, start)
            walked = near.walked
            if method.steps > 1:
                walked = method.walk(
                    inner, x, y, radius, radius, box, steps=method.steps - 1, start=walked.x
                )
        found = torch.where(near.reached, norm.size(near.offset) * near.ahead, margins)
        stuck = near.walked.stuck | walked.stuck
        return Walk(walked.x, found.to(margins.dtype), near.offset, stuck)


@dataclass(frozen=True)
class Near:
    """The plane of the score at some points, and a step from them down the score.

    offset: from x to the plane, like x; reached: whether it can be, inside the bounds; ahead:
    whether x lies before it: where it lies beyond, only the direction of the offset counts.
    """

    walked: Walked
    offset: Tensor
    reached: Tensor
    ahead: Tensor


def _lower(method: Adaptive) -> Objective:
    """What is raised to lower the score: minus its smooth form."""
    margin = given(method.setting.task, "soft_margin")
    return lambda output, target: -margin(output, target)


def _plane(method: Adaptive, model: Model, batch: Batch, radius: Tensor, start: Tensor) -> Near:
    (x, y, box), task = batch, method.setting.task
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def read(here: Here) -> Tensor:
        gradient, factor = here.rise
        gradient = per_sample(factor, gradient) * gradient
        score = task.score(here.output, here.target).to(gradient.dtype)
        rise = score + (gradient * here.offset).flatten(1).sum(1)
        offset, reached = to_plane(wide(x), gradient, rise.abs(), method.setting.norm, box)
        found.append((offset, reached, rise > 0))
        return torch.zeros_like(rise, dtype=torch.bool)

    walked = method.walk(
        model, x, y, radius, radius, box, steps=1, start=start, objective=_lower(method), stop=read
    )
    return Near(walked, *found[0])


def _qualities(task: Any, output: Tree, noisy: Tree, y: Tree, held: Tensor) -> Tensor:
    """Quality without noise, at chance, with noise, and 1, of every sample, (6, B).

    Then quality without noise and 1 of those that are held out.
    """
    quality = given(task, "quality")
    with torch.no_grad():
        clean, at_noise = quality(output, y).double(), quality(noisy, y).double()
        # With one sample there is no other: nothing counts as chance.
        other = torch.arange(len(clean), device=clean.device).roll(1)
        chance = quality(output, take(y, other)).double() * (len(clean) > 1)
    return torch.stack(
        [clean, chance, at_noise, torch.ones_like(clean), clean * held, held.double()]
    )


def _summed(sums: Tensor) -> list[float]:
    """The sums over all processes."""
    if processes() > 1:
        dist.all_reduce(sums)
    return sums.tolist()
