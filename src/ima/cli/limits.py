"""What is stated on the command line, and the exit code of a limit that is missed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from ima.report.entries import PageEntry

MISSED = 4
"""Exit code where a limit of `--require` is missed."""

STATED = Parameter(name="*", consume_multiple=True, negative="", show_default=False)
"""How what is stated is read: each of it an option of its own."""


def tell_limits(entries: Sequence[PageEntry]) -> bool:
    """Print whether limits are met, if there are some; whether one is missed."""
    from ima.report.limits import decided

    found = decided(entries)
    for one in found:
        print(one.sentence)
    return any(not one.met for one in found)


def decide(entries: Sequence[PageEntry]) -> None:
    """The same, and exit where one is missed."""
    if tell_limits(entries):
        print("ima: a limit is missed", file=sys.stderr)
        sys.exit(MISSED)
