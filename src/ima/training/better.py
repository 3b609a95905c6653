"""Whether a network has become better: decided on the same samples before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.results import CLEAN, Results
from ima.evaluation.statistics import mean_interval

WORDS = (
    "better means that the mean {name} over no noise and the {levels} sizes of noise rose, on the "
    "same held-out samples, by more than the 95 % interval of the paired differences leaves open"
)
DROP = ", and that without noise it fell by no more than {:g} points"

NOTHING = "nothing better was found, and the network stays as it was"

_SLACK = 1e-9
"""What sums of floating-point numbers may miss."""


@dataclass(frozen=True)
class Gain:
    """What changed.

    mean, low, high: of the mean over all levels, and its 95 % interval; drop: how far the quality
    without noise fell; allowed: by how much it may fall, None for any.
    """

    mean: float
    low: float
    high: float
    drop: float
    allowed: float | None

    @property
    def kept(self) -> bool:
        """Whether the quality without noise fell by no more than it may."""
        return self.allowed is None or self.drop <= self.allowed + _SLACK

    @property
    def better(self) -> bool:
        """Whether the network is better."""
        return self.kept and self.low > _SLACK

    @property
    def order(self) -> tuple[bool, float]:
        """Of several the highest is the best."""
        return self.kept, self.mean


def gain(before: Results, after: Results, allowed: float | None) -> Gain:
    """What changed from one to the other, which are of the same samples, attacks and radii."""
    was, now = _levels(before), _levels(after)
    each = (now - was).mean(1)
    clean = before.of_attack()
    own = np.where(clean["case"] == "", clean["id"].astype(str), clean["case"])
    # Differences lie in -1 to 1, and intervals are of what lies in 0 to 1.
    low, high = mean_interval((each[:, None] + 1) / 2, own)
    drop = float((was[:, 0] - now[:, 0]).mean())
    return Gain(float(each.mean()), 2 * low - 1, 2 * high - 1, drop, allowed)


def told(found: Gain, before: Results) -> str:
    """What was decided, and by what, in two sentences."""
    measure = before.settings.measure
    name = f"mean {measure.name} over no noise and {len(before.eps)} sizes of noise"
    low, mean, high = (f"{100 * value:+.1f}" for value in (found.low, found.mean, found.high))
    changed = (
        f"the {name} changed by {mean} points (95 % interval {low} to {high}), and that without "
        f"noise by {-100 * found.drop:+.1f}"
    )
    words = WORDS.format(name=measure.name, levels=len(before.eps))
    words += "" if found.allowed is None else DROP.format(100 * found.allowed)
    return f"{'better' if found.better else NOTHING}: {changed}; {words}"


def _levels(results: Results) -> NDArray[np.float64]:
    """The quality of every sample without noise and at each radius, (N, 1 + R)."""
    (attack,) = results.attacks
    places = [results.at(CLEAN), *(results.at(attack, eps) for eps in results.eps)]
    quality: NDArray[Any] = results.columns["quality"]
    return np.stack([quality[at] for at in places], 1)
