"""Minimal distances in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ima.evaluation.distances import NONE, Distances
from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN
from ima.report.style import norm_name


def told(found: Distances, levels: Sequence[float]) -> str:
    """The median distance, accuracy at the levels, and what is in doubt, as lines of text."""
    norm, right = norm_name(found.norm), sum(row.attack != CLEAN for row in found.rows)
    median = found.median()
    middle = "none found for half of them" if math.isinf(median) else f"{median:.4g}"
    lines = [
        f"smallest noise found ({norm}), upper bounds, {found.settings.get('attacks', '')}",
        f"median of the {right} samples that are right without noise: {middle}",
        f"right without noise: {found.accuracy():.1%} of {len(found.rows)}",
        *(
            f"right, and no noise up to {level:g} found: {found.accuracy(level):.1%}"
            for level in levels
        ),
    ]
    missing = sum(row.attack == NONE for row in found.rows)
    if missing:
        lines.append(f"no noise found for {missing} samples: gradients may be of no use here")
    if "left out" in found.settings:
        lines.append(f"left out: {found.settings['left out']}")
    return "\n".join([*lines, *united([("", found.remarks)])])
