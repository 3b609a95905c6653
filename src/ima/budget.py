"""A time budget: how long a command may take before it stops where it can continue."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

OUT_OF_TIME = 75
"""Exit code of a command that stopped for time and can be continued (EX_TEMPFAIL)."""


_LONGEST = 10**9
"""Seconds that no budget has."""

_SHORT = 60.0
"""Seconds that are taken to be enough for what has never been timed."""


def how_long(seconds: float) -> str:
    """A time in the unit that suits it: `0.5 s`, `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


class OutOfTime(RuntimeError):  # noqa: N818  # it is no error: nothing went wrong
    """The time is up. The text says what is kept and how to continue.

    >>> import ima
    >>> try:
    ...     raise ima.OutOfTime("3 of 7 batches are saved; the same call continues")
    ... except ima.OutOfTime as stop:
    ...     print(stop)
    3 of 7 batches are saved; the same call continues
    """


class Budget:
    """How long work may take, counted from when this is made; at least one piece of work is done.

    seconds: finite, above 0.

    `worked` says whether a piece of work was done. Until then `admits` says yes to everything, so
    the same command, given often enough, always comes to its end.
    Raises ValueError for seconds outside the range.

    >>> import ima
    >>> budget = ima.Budget.parse("9m")
    >>> budget.admits(600)  # nothing was done yet
    True
    >>> budget.did()
    >>> budget.admits(600)
    False
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"a time budget is {seconds} s; expected a finite time above 0")
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.worked = False

    @staticmethod
    def parse(text: str) -> Budget:
        """The budget that a person writes.

        text: such as 90 or 90s (seconds), 9m or 1h30m.

        Raises ValueError for anything else, and for 0.
        """
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
        hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 3
        total = 3600 * hours + 60 * minutes + seconds
        if not 0 < total < _LONGEST:
            raise ValueError(f"a time budget is {text!r}; expected such as 90, 540s, 9m or 1h30m")
        return Budget(total)

    def left(self) -> float:
        """Seconds that are left; negative when the time is up."""
        return self.end - time.monotonic()

    def untimed(self) -> float:
        """Seconds that must be left to begin work of unknown length: 60 or a fifth of all."""
        return min(_SHORT, 0.2 * self.seconds)

    def admits(self, seconds: float = 0.0) -> bool:
        """Whether to begin a piece of work: it fits, or nothing was done yet.

        seconds: how long it may take.
        """
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

    @staticmethod
    def of(tell: Callable[[int, int], None] | None, budget: Budget | None) -> Progress:
        """Of what users pass, where None is nothing to tell."""
        return Progress(silent if tell is None else tell, budget)
