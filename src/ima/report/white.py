"""White noise in plain sentences: how many samples a change without any aim flips."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ima.evaluation.results import Results

DRAWS = 100
"""So many are made where the noise's name holds no number."""


def draws(name: str) -> str:
    """What `"white-1"`, `"white-100"` and `"white"` are in a sentence."""
    number = name.partition("-")[2] or str(DRAWS)
    return "one draw" if number == "1" else f"the worst of {number} draws"


def sized(size: float, settings: Mapping[str, str]) -> str:
    """The noise's size such as `±0.05`; what it is a share of where bounds are not one wide.

    settings: of the evaluation, which may hold its bounds.
    """
    plain, bounds = f"±{size:g}", settings.get("bounds", "")
    if bounds in ("", "none"):
        return plain
    low, _, high = bounds.partition(" to ")
    try:
        width = float(high) - float(low)
    except ValueError:  # Every entry has bounds of its own.
        return f"{plain} of the bounds' width"
    if math.isclose(width, 1):
        return plain
    return f"{plain} of the bounds' width (±{size * width:g})"


def told(found: Results) -> str:
    """A line for each kind of white noise; none where none was tried."""
    return "\n".join(
        f"white noise of {sized(size, found.settings)} flips {flipped} of {right} samples that are "
        f"right without it in {draws(name)}"
        for name, (size, flipped, right) in found.white.items()
    )
