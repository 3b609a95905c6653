"""A time budget: how long a command may take before it stops where it can continue."""

from __future__ import annotations

import os
import re
import time

OUT_OF_TIME = 75
"""Exit code of a command that stopped for time and can be continued (EX_TEMPFAIL)."""


SHORT = 60.0
"""Seconds that are taken to be enough for what has never been timed."""


WHOLE = "IMA_WHOLE_BUDGET"
"""The environment variable that tells a command of how many seconds it was given the rest."""


class OutOfTime(RuntimeError):  # noqa: N818  # it is no error: nothing went wrong
    """The time is up; the text says what is kept and how to continue."""


class Budget:
    """So many seconds, from the moment it is made.

    whole: all the seconds of which these are the rest; the same if None.
    """

    def __init__(self, seconds: float, whole: float | None = None) -> None:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"a time budget is {seconds} s; expected a finite time above 0")
        self.seconds = seconds
        self.whole = seconds if whole is None else whole
        self.end = time.monotonic() + seconds

    @staticmethod
    def parse(text: str) -> Budget:
        """The budget that a person writes: `90` or `90s` (seconds), `9m`, `1h30m`.

        Raises ValueError for anything else, and for no time at all.
        """
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
        hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 3
        total = 3600 * hours + 60 * minutes + seconds
        if total == 0:
            raise ValueError(f"a time budget is {text!r}; expected such as 90, 540s, 9m or 1h30m")
        return Budget(total, float(os.environ.get(WHOLE, total)))

    def left(self) -> float:
        """Seconds that are left; negative afterwards."""
        return self.end - time.monotonic()

    def untimed(self) -> float:
        """Seconds that must be left to begin what has never been timed: a minute, or a fifth."""
        return min(SHORT, 0.2 * self.seconds)

    def require(self, seconds: float, what: str) -> None:
        """Raise ValueError where what must be done at one go never fits, however often begun."""
        if seconds > self.whole:
            raise ValueError(
                f"{what} takes up to {seconds:.0f} s, more than the time budget of "
                f"{self.whole:.0f} s: the same again would never end; give more time"
            )

    def over(self) -> bool:
        """Whether the time is up."""
        return self.left() <= 0
