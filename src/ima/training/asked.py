"""Whether results answer what is asked for, so that an evaluation need not be made again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ima.evaluation.results import WORST, Results, same_radius
from ima.files import file_digest


def answers_what_was_asked(
    found: Results,
    weights: Path,
    attacks: Collection[str],
    eps: Collection[float],
    samples: int | None,
    seed: int,
) -> bool:
    """Whether results are of these weights, attacks, radii and seed, on so many samples.

    samples: all if None. Results from before seed or samples were recorded pass.
    """
    told, pairs = found.settings, ((found.eps, eps), (eps, found.eps))
    return (
        told.file == file_digest(weights)
        and set(found.attacks) - {WORST} == set(attacks)
        # One that is named twice counts once.
        and all(any(same_radius(a, b) for b in there) for here, there in pairs for a in here)
        and told.covers(samples) is not False
        and told.seed in (None, seed)
    )
