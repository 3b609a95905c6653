"""How long a run was to train, each time that its config said another number of epochs.

Rates that fall along a curve follow the number of epochs: after a change the curve is none that
either number alone would give, which is said beside the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ima.training.build import learning_rate
from ima.training.checkpoint import peek_state
from ima.training.run import Run
from ima.training.same import known_origin
from ima.training.settings import Config

LENGTHS = "lengths"
"""The name in what a state tells of its origin."""


def lengths(run: Run, config: Config, method: Any) -> list[list[int]]:
    """After how many begun epochs the run was to have which number of them, the config's last.

    Without the changes that changed nothing.
    """
    epochs = config.train.epochs
    if not run.state.exists():
        return [[0, epochs]]
    done = (
        int(peek_state(run.state, "epoch")) + 1 + (peek_state(run.state, "amid", None) is not None)
    )
    known = (known_origin(run) or {}).get(LENGTHS)
    # Runs of earlier versions do not tell; and nothing was trained under what came after `done`.
    found = [pair for pair in known or [] if pair[0] < done] or [[0, epochs]]
    start, had = found[-1]
    if had != epochs and _followed(config, method, done, had, epochs):
        return [*found, [done, epochs]]
    return [*found[:-1], [start, epochs]]


def describe_lengths(found: Sequence[Sequence[int]], config: Config, method: Any) -> str:
    """What a change of the number of epochs did to the epochs before it; "" for nothing."""
    sentences: list[str] = []
    for (_, had), (done, has) in pairwise(found):
        what = " and ".join(_followed(config, method, done, had, has))
        changed, kind = ("lengthened", "shorter") if has > had else ("shortened", "longer")
        first = "epoch" if done == 1 else f"{done} epochs"
        sentences.append(
            f"Begun for {had} epochs and {changed} to {has}: {what} of the first {first} followed "
            f"the {kind} schedule."
        )
    return " ".join(sentences)


def _followed(config: Config, method: Any, done: int, had: int, has: int) -> list[str]:
    """What in the first epochs would have been otherwise with the other number of epochs."""
    rates = (
        [learning_rate(config.optimizer, epoch, epochs) for epoch in range(done)]
        for epochs in (had, has)
    )
    what = ["the learning rates"] if next(rates) != next(rates) else []
    if getattr(method, "scheduled", False) and done > config.train.standard_epochs:
        what.append("what the method changes with the epochs")
    return what
