"""How an evaluation shows that it goes on: a line for every batch, where there are several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ima.budget import how_long, silent

if TYPE_CHECKING:
    from ima.evaluation.subject import Subject

LONG = 30.0
"""Seconds; what takes less is not announced."""


def lines(doing: str, unit: str = "batch") -> Callable[[int, int], None]:
    """A `progress` that writes such as `best weights: batch 2 of 7, 3 min left` to stderr."""
    seen: list[tuple[float, int]] = []

    def line(done: int, total: int) -> None:
        seen.append((time.monotonic(), done))
        if total == 1:
            return
        of, left = f" of {total}" if total else "", ""
        (begun, first), (now, _) = seen[0], seen[-1]
        # The first may have been on record; batches take as long as those before.
        if total > done > first:
            seconds = (now - begun) / (done - first) * (total - done)
            left = f", {how_long(seconds)} left" if seconds >= 1 else ""
        print(f"{doing}: {unit} {done}{of}{left}", file=sys.stderr, flush=True)

    return line


def announce(doing: str, subject: Subject, eps: Any, attacks: Any) -> None:
    """Say how long the attacks take at most, where that is more than half a minute."""
    from ima.evaluation.foresee import foresee

    seconds = foresee(subject, tuple(eps or subject.eps), tuple(attacks or subject.attacks))
    if seconds > LONG:
        print(f"{doing}: at most {how_long(seconds)} of attacks", file=sys.stderr, flush=True)


def unsaid(doing: str, unit: str = "batch") -> Callable[[int, int], None]:
    """The same of a process that says nothing."""
    return silent
