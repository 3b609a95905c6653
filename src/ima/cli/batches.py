"""How an evaluation shows that it goes on: a line for every batch, where there are several."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ima.budget import silent


def lines(doing: str, unit: str = "batch") -> Callable[[int, int], None]:
    """A `progress` that writes such as `best weights: batch 2 of 7` to the standard error."""

    def line(done: int, total: int) -> None:
        if total != 1:
            of = f" of {total}" if total else ""
            print(f"{doing}: {unit} {done}{of}", file=sys.stderr, flush=True)

    return line


def unsaid(doing: str, unit: str = "batch") -> Callable[[int, int], None]:
    """The same of a process that says nothing."""
    return silent
