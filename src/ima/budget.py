"""A time budget: how long a command may take before it stops where it can continue."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

OUT_OF_TIME = 75
"""Exit code of a command that stopped for time and can be continued (EX_TEMPFAIL)."""


LONGEST = 10**9
"""Seconds that no budget has."""

SHORT = 60.0
"""Seconds that are taken to be enough for what has never been timed."""


class OutOfTime(RuntimeError):  # noqa: N818  # it is no error: nothing went wrong
    """The time is up; the text says what is kept and how to continue."""


class Budget:
    """So many seconds, from the moment it is made, and at least one piece of work.

    worked: whether something was done since. Until then everything is admitted, so that the same
    command, given often enough, comes to its end whatever its start takes.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"a time budget is {seconds} s; expected a finite time above 0")
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.worked = False

    @staticmethod
    def parse(text: str) -> Budget:
        """The budget that a person writes: `90` or `90s` (seconds), `9m`, `1h30m`.

        Raises ValueError for anything else, and for no time at all.
        """
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
        hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 3
        total = 3600 * hours + 60 * minutes + seconds
        if not 0 < total < LONGEST:
            raise ValueError(f"a time budget is {text!r}; expected such as 90, 540s, 9m or 1h30m")
        return Budget(total)

    def left(self) -> float:
        """Seconds that are left; negative afterwards."""
        return self.end - time.monotonic()

    def untimed(self) -> float:
        """Seconds that must be left to begin what has never been timed: a minute, or a fifth."""
        return min(SHORT, 0.2 * self.seconds)

    def admits(self, seconds: float = 0.0) -> bool:
        """Whether to begin what may take so long: it fits, or nothing was done yet."""
        return not self.worked or self.left() >= max(seconds, 0.0)

    def did(self) -> None:
        """Note that a piece of work is done."""
        self.worked = True

    def over(self) -> bool:
        """Whether the time is up."""
        return self.left() <= 0


def silent(done: int, total: int) -> None:
    """Tell nothing."""


@dataclass(frozen=True)
class Progress:
    """What long work tells on the way, and when it must stop.

    tell: called with (done, total), total 0 where unknown; budget: None for as long as it takes.
    """

    tell: Callable[[int, int], None] = silent
    budget: Budget | None = None
