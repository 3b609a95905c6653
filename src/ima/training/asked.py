"""Whether results answer what is asked for, so that an evaluation need not be made again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ima.evaluation.results import FILE, Results, same_radius
from ima.evaluation.segmentation_results import WORST, SegmentationResults
from ima.files import digest


def answers(
    found: Results | SegmentationResults,
    weights: Path,
    attacks: Collection[str],
    eps: Collection[float],
    samples: int | None,
    **wanted: str,
) -> bool:
    """Whether results are of these weights, attacks and radii, on so many samples, all if None.

    wanted: settings; results from before one of these, or the samples, was recorded pass.
    """
    told = found.settings
    pairs = ((found.eps, eps), (eps, found.eps))
    return (
        told.get(FILE) == digest(weights)
        and set(found.attacks) - {WORST} == set(attacks)
        # One that is named twice counts once.
        and all(any(same_radius(a, b) for b in there) for here, there in pairs for a in here)
        and _covers(told.get("samples", ""), samples)
        and all(told.get(name, value) == value for name, value in wanted.items())
    )


def _covers(told: str, asked: int | None) -> bool:
    """Whether so many samples were evaluated; told: such as `70 of 1263`, or `70` of as many."""
    count, _, whole = told.partition(" of ")
    whole = whole or count
    if not (count.isdecimal() and whole.isdecimal()):
        return not told
    return int(count) == (int(whole) if asked is None else min(asked, int(whole)))
