"""Which epoch validation picks: one rule for methods with noise, one for training without."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ima.methods import find_method
from ima.training.checkpoint import peek_state
from ima.training.run import Run
from ima.training.settings import Config
from ima.training.tensor_file import CheckpointError

ATTACK = "PGD-10"
"""The attack that picks epochs."""


@dataclass(frozen=True)
class PickRule:
    """What validation picks by, of two accuracies in 0..1: the higher score wins.

    words: what it is called, with a place for the noise; score: of clean accuracy and accuracy
    under this noise.
    """

    words: str
    score: Callable[[float, float], float]

    def describe(self, noise: str) -> str:
        """What it is called, with the noise, such as `pgd-10 at 1`, where it looks at any."""
        return self.words.format(noise)


RULES: Mapping[str, PickRule] = {
    "mean": PickRule(
        "the geometric mean of clean accuracy and accuracy under {}",
        lambda clean, noisy: math.sqrt(clean * noisy),
    ),
    # Noise takes what it takes: with the mean, a network that is good at nothing yet would win.
    "clean": PickRule("clean accuracy", lambda clean, _: clean),
}
"""The rules by their names in the table of methods."""


def rule_name(config: Config) -> str:
    """The name of the rule by which a new run of this config picks its epoch."""
    return find_method(config.method.name).picks


def rule(config: Config) -> PickRule:
    """The rule by which validation compares runs of this config's method."""
    return RULES[rule_name(config)]


def picked(run: Run) -> dict[str, str]:
    """`epoch` of the best weights and what `picked` it, in words; empty where no state tells.

    A run that was begun under another rule keeps that.
    """
    try:
        best: Mapping[str, Any] = peek_state(run.state, "best")
        done = peek_state(run.state, "epoch") + 1
    except CheckpointError:
        return {}
    config = run.config()
    words = RULES[best.get("picks", "mean")].describe(f"{ATTACK} at {config.evaluate.middle:g}")
    return {"epoch": f"{best['epoch'] + 1} of {done}", "picked": words}
