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

Why 0.43. Let a(R) be what a network that is trained at R keeps under noise of R. The area R a(R)
below it is largest where R a'(R) = -a(R): at a(0) / 2 where a falls along a line, at a(0) / e where
it falls like exp(-R); 0.43 is between the two. So the radius needs no unit of the data, and it
cannot run away: a network that answers the same to all inputs is no better than chance, keeps
nothing, and R shrinks. Chance is the quality against the targets of other samples of the batch.
R starts from above, at half the distance to the nearest other sample: a network that first learns
without noise, or with little, ends less robust at the same R (`results/default`).

E(i) is DeepFool's step (Moosavi-Dezfooli et al., CVPR 2016), one in every visit in place of many
in one, inside the bounds. Half the loss is clean, as in Ma & Liang's Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ima.attacks.inputs import Model, no_trace
from ima.attacks.lockstep import processes
from ima.attacks.plane import to_plane
from ima.attacks.walk import Here, Objective, Walked, clamp
from ima.margins import gather_rows
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, batch_size, count, finite
from ima.methods.directions import Directions
from ima.methods.noisy import Box
from ima.norms import Norm, per_sample
from ima.tasks import Tree, given, take
from ima.tasks.pixels import wide

Batch = tuple[Tensor, Tree, Box]
"""x, y and the bounds, as `prepare` gives them."""

KEEP = 0.43
"""The share of what a network knows that it keeps at the radius: sqrt(1/2 1/e)."""

HELD = 10
"""One training sample in so many is held out for a guard..."""

MOST_HELD = 2000
"""...and no more than these."""

LEAST_DROP = 0.005
"""By which losses are measured where none is allowed."""

FEW = 16
"""So many samples of a batch are compared with all of it."""

FAR = 2.0
"""So many radii away at most a boundary is looked for."""

RATE = 2.0
"""How fast the radius follows, an epoch."""


class Radius:
    """R, and what it is steered by: means over about the last epoch.

    num_samples: size of the training set; cap: largest radius, in x's units, or infinite.
    """

    def __init__(self, num_samples: int, cap: float) -> None:
        self.num_samples, self.cap = num_samples, cap
        self.value = self.seen = self.clean = self.noisy = self.chance = self.most = 0.0

    @property
    def kept(self) -> float:
        """The share of what the network knows that it keeps at the radius, 0 to 1."""
        if self.most <= 0:
            return 0.0
        return min(max((self.noisy - self.chance) / self.most, 0.0), 1.0)

    def begin(self, x: Tensor, norm: Norm) -> None:
        """Start at half the median distance of samples x, (B, *dims), to the nearest other one.

        Of the samples of all processes. Beyond it, one sample could be made another. One sample
        alone: its distance to its mean.
        """
        if self.value > 0:
            return
        (x,) = gather_rows(x)
        rows = [norm.size(x - one) for one in x[:FEW]]
        if len(x) == 1:
            rows = [norm.size(x - x.mean())]
        nearest = [float(torch.where(row > 0, row, torch.inf).amin()) for row in rows]
        if found := [distance for distance in nearest if math.isfinite(distance)]:
            self.value = min(median(found) / 2, self.cap)

    def follow(
        self, clean: float, chance: float, noisy: float, samples: float, room: float = 1.0
    ) -> None:
        """Take in a batch: sums of its quality without noise, at chance, with noise; its size.

        room: what a `Guard` lets the radius grow by, -1 to 1.
        """
        if samples == 0:
            return
        # Over half an epoch: the radius must not follow what was long ago.
        self.seen = min(self.seen + samples, max(self.num_samples / 2, samples))
        share = min(samples / self.seen, 1.0)
        self.clean += share * (clean / samples - self.clean)
        self.chance += share * (chance / samples - self.chance)
        self.noisy += share * (noisy / samples - self.noisy)
        # Means of few samples are too noisy to take the highest of.
        known, full = self.clean - self.chance, 2 * self.seen >= self.num_samples
        self.most = max(self.most, known) if full else known
        rise = RATE * min(self.kept - KEEP, room) * min(samples / self.num_samples, 1.0)
        self.value = min(self.value * math.exp(rise), self.cap)

    def state_dict(self) -> dict[str, float]:
        """What to save."""
        names = ("value", "seen", "clean", "noisy", "chance", "most")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        for name in self.state_dict():
            setattr(self, name, float(state[name]))


class Guard:
    """Holds the radius where noise costs more clean quality than it may, on held-out samples.

    drop: what it may cost, 0 to 1; seed: says which samples are held out.
    """

    def __init__(self, num_samples: int, drop: float, seed: int) -> None:
        self.drop = drop
        order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
        self.held = torch.zeros(num_samples, dtype=torch.bool)
        self.held[order[: max(1, min(num_samples // HELD, MOST_HELD))]] = True
        self.count = int(self.held.sum())
        self.seen = self.clean = self.best = 0.0

    def of(self, ids: Tensor) -> Tensor:
        """Which samples of a batch are held out of the loss, (B,) bool."""
        self.held = self.held.to(ids.device)
        return self.held[ids]

    @property
    def cost(self) -> float:
        """How far clean quality lies below its best."""
        return self.best - self.clean

    def room(self, clean: float, samples: float) -> float:
        """Take in a batch's held-out samples, the sum of their quality and their number.

        Returns what the radius may grow by, -1 to 1: below 0 where too much is lost.
        """
        if samples > 0:
            self.seen = min(self.seen + samples, self.count)
            self.clean += samples / self.seen * (clean / samples - self.clean)
            if self.seen == self.count:
                self.best = max(self.best, self.clean)
        return min(max((self.drop - self.cost) / max(self.drop, LEAST_DROP), -1.0), 1.0)

    def state_dict(self) -> dict[str, float]:
        """What to save."""
        return {name: getattr(self, name) for name in ("seen", "clean", "best")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        for name in self.state_dict():
            setattr(self, name, float(state[name]))


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
        with no_trace(model, x) as inner:
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
