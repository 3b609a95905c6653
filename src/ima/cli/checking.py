"""Checks on the command line: what tripped, and the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ima.evaluation.checks_results import Checks

TRIPPED = 3
"""Exit code of `--strict` where a check tripped."""

_STATES = {True: "TRIPPED:", False: "ok: no sign that", None: "unknown: whether"}
"""What goes before a check's title, a clause, on the command line."""


def tell(found: Checks, path: Path, *, strict: bool) -> bool:
    """Print every check, and what to do about those that tripped; whether `strict` is not met."""
    from ima.evaluation.remarks import united

    print(f"{path}")
    for name, value in _made(found).items():
        if value:
            print(f"  {name}: {value}")
    for remark in united([("", found.remarks)]):
        print(remark)
    for check in found.checks:
        print(
            f"{_STATES[check.tripped]} {check.title[:1].lower()}{check.title[1:]}. {check.sentence}"
        )
        if check.tripped:
            print(f"  {check.means}\n  {check.do}")
    if strict and found.tripped:
        print(f"ima: checks tripped: {', '.join(found.tripped)}", file=sys.stderr)
    return strict and bool(found.tripped)


def _made(found: Checks) -> dict[str, str]:
    """How they were made, in words; empty where that is not known."""
    from ima.evaluation.checks_results import in_words
    from ima.report.words import about

    told = found.settings
    counted = told.right is not None and bool(told.total)
    return {
        "network": told.network,
        "samples": f"{told.samples} of the {told.right} that the model has right",
        "clean accuracy": in_words(told.right or 0, told.total or 1) if counted else "",
        "norm": told.norm,
        "bounds": told.bounds_told,
        "eps": ", ".join(f"{eps:g}" for eps in told.eps),
        "attacks": ", ".join(told.attacks),
        "seed": "" if told.seed is None else str(told.seed),
        "weights": told.weights,
        **about(told),
    }
