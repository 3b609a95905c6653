"""The norms that have a name: how files and pages tell of them and measure in them, without torch.

A norm of a user's own may have any other name; nobody here knows how it measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NormName:
    """One norm: its name in files, on pages, and in words; order: p; size: of a difference."""

    name: str
    label: str
    about: str
    order: float
    size: Callable[[Array], float]


def _l1(d: Array) -> float:
    return float(np.abs(d.astype(np.float64)).sum())


def _l2(d: Array) -> float:
    return float(np.sqrt((d.astype(np.float64) ** 2).sum()))


def _largest(d: Array) -> float:
    return float(np.abs(d.astype(np.float64)).max())


NORM_NAMES = (
    NormName("L1", "L₁", "the sum of the sizes of all changes", 1.0, _l1),
    NormName("L2", "L₂", "the root of the summed squares of all changes", 2.0, _l2),
    NormName("Linf", "L∞", "the largest change of a single value", math.inf, _largest),
)


def known_norm(name: str) -> NormName | None:
    """The norm of this name, such as `L2`, `l2`, `2`, `L₂`, `inf`; None for one of a user's own."""
    wanted = name.strip().lower()
    return next(
        (
            row
            for row in NORM_NAMES
            if wanted in (row.name.lower(), row.label.lower(), row.name.lower().removeprefix("l"))
        ),
        None,
    )
