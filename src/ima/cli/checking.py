"""Checks on the command line: what tripped, and the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ima.evaluation.checks_results import Checks

TRIPPED = 3
"""Exit code of `--strict` where a check tripped."""

STATES = {True: "TRIPPED:", False: "ok: no sign that", None: "unknown: whether"}
"""What goes before a check's title, a clause, on the command line."""


def tell(found: Checks, path: Path, *, strict: bool) -> None:
    """Print every check, and what to do about those that tripped; exit where `strict` says so."""
    from ima.evaluation.remarks import REMARKS, united

    print(f"{path}")
    for name, value in found.settings.items():
        if name != REMARKS:
            print(f"  {name}: {value}")
    for remark in united([("", found.remarks)]):
        print(remark)
    for check in found.checks:
        print(
            f"{STATES[check.tripped]} {check.title[:1].lower()}{check.title[1:]}. {check.sentence}"
        )
        if check.tripped:
            print(f"  {check.means}\n  {check.do}")
    if strict and found.tripped:
        print(f"ima: checks tripped: {', '.join(found.tripped)}", file=sys.stderr)
        sys.exit(TRIPPED)
