"""White noise in plain sentences: how many samples a change without any aim flips."""

from __future__ import annotations

from ima.evaluation.results import Results


def draws(name: str) -> str:
    """What `"white-1"` and `"white-100"` are in a sentence."""
    number = name.rpartition("-")[2]
    return "one draw" if number == "1" else f"the worst of {number} draws"


def told(found: Results) -> str:
    """A line for each kind of white noise; none where none was tried."""
    return "\n".join(
        f"white noise of ±{size:g} flips {flipped} of {right} samples that are right without it "
        f"in {draws(name)}"
        for name, (size, flipped, right) in found.white.items()
    )
