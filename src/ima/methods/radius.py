"""The radius that finds itself: R of IMA with measured margins, and what may hold it.

R = half the distance to the nearest other sample, at first
kept = (quality under noise of R - chance) / (the most that quality without was ever above chance)
R = R exp(2 (kept - 0.43) batch / num_samples)          # after each batch
with a guard: R shrinks where held-out samples lose more than `drop`, beyond their standard error

Why 0.43. Let a(R) be what a network that is trained at R keeps under noise of R. The area R a(R)
below it is largest where R a'(R) = -a(R): at a(0) / 2 where a falls along a line, at a(0) / e where
it falls like exp(-R); 0.43 is between the two. So the radius needs no unit of the data, and it
cannot run away: a network that answers the same to all inputs is no better than chance, keeps
nothing, and R shrinks. Chance is the quality against the targets of other samples of the batch.
R starts from above, at half the distance to the nearest other sample: a network that first learns
without noise, or with little, ends less robust at the same R (`results/default`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ima.margins import gather_rows
from ima.norms import Norm

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

RATE = 2.0
"""How fast the radius follows, an epoch."""


class Radius:
    """R, and what it is steered by: means over the last half of an epoch.

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

    @property
    def doubt(self) -> float:
        """The standard error of the best quality: so much of a cost may be chance."""
        return math.sqrt(max(self.best * (1 - self.best), 1 / self.count) / self.count)

    def room(self, clean: float, samples: float) -> float:
        """Take in a batch's held-out samples, the sum of their quality and their number.

        Returns what the radius may grow by, -1 to 1: below 0 where too much is lost.
        """
        if samples > 0:
            self.seen = min(self.seen + samples, self.count)
            self.clean += samples / self.seen * (clean / samples - self.clean)
            if self.seen == self.count:
                self.best = max(self.best, self.clean)
        allowed = self.drop + self.doubt if self.drop > 0 else 0.0
        return min(max((allowed - self.cost) / max(allowed, LEAST_DROP), -1.0), 1.0)

    def state_dict(self) -> dict[str, float]:
        """What to save."""
        return {name: getattr(self, name) for name in ("seen", "clean", "best")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        for name in self.state_dict():
            setattr(self, name, float(state[name]))
