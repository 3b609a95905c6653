"""When a training is over: after its last epoch, or where its margins stand still.

equilibrium: over the last 10 epochs the largest mean margin is at most 2 % above the smallest

The paper's figures of margins call it that: each sample's margin sways around its boundary. It is
read from the run's table of epochs, so a run that is continued ends where it would have ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ima.training.settings import Train

SPAN = 10
"""So many epochs are compared."""

STILL = 0.02
"""What their mean margins may differ by, as a share of the largest."""


def ended(train: Train, rows: Sequence[Mapping[str, float]], done: int) -> bool:
    """Whether a run has no more to do after so many epochs; rows: of its table."""
    if done >= train.epochs or train.stop is None:
        return done == train.epochs
    first = max(train.standard_epochs, done - SPAN)
    margins = [row["margin"] for row in rows[first:done] if "margin" in row]
    return len(margins) == SPAN and max(margins) - min(margins) <= STILL * max(margins)
