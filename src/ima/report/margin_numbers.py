"""What margins are worth: against the smallest noise found, and as a search for wrong labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.estimates import Estimates
from ima.report.inputs import Array

TOLERANCE = 0.01
"""Margins within this share of the distance count as neither too large nor too small."""


@dataclass(frozen=True)
class MarginErrors:
    """Margins over the smallest noise found, of `count` samples, `capped` of them at the cap.

    ratio: the median of margin / distance; over, under: shares of margins that are too large, too
    small, by more than `TOLERANCE`; rank: Spearman's rank correlation, NaN where either is
    constant. All four are of margins below the cap, and NaN where there are none: one at the cap
    is too small by rule where its sample withstands more. capped_over: the share of those at the
    cap that are too large, NaN where there are none. wrong, missing: samples measured but left
    out, because they are wrong without noise, or because no noise was found.
    """

    count: int
    ratio: float
    over: float
    under: float
    rank: float
    capped: int
    capped_over: float
    wrong: int
    missing: int

    @property
    def free(self) -> int:
        """How many margins are below the cap."""
        return self.count - self.capped

    @staticmethod
    def of(estimates: Estimates) -> MarginErrors | None:
        """None where no pair of a margin and a distance is known."""
        margins, distances = estimates.pairs()
        if not len(margins):
            return None
        ratio = margins / distances
        free = margins < estimates.cap
        measured = [row for row in estimates.rows if row.attack]
        wrong = sum(row.label != row.prediction for row in measured)
        return MarginErrors(
            count=len(margins),
            ratio=float(np.median(ratio[free])) if free.any() else float("nan"),
            over=_share(ratio[free] > 1 + TOLERANCE),
            under=_share(ratio[free] < 1 - TOLERANCE),
            rank=_rank_correlation(margins[free], distances[free]),
            capped=int((~free).sum()),
            capped_over=_share(ratio[~free] > 1 + TOLERANCE),
            wrong=wrong,
            missing=len(measured) - wrong - len(margins),
        )


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _rank_correlation(one: Array, other: Array) -> float:
    from scipy.stats import rankdata

    if not len(one):
        return float("nan")
    ranks = [rankdata(one), rankdata(other)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def hits(margins: Array, flipped: NDArray[np.bool_]) -> Array:
    """How many of the k smallest margins belong to flipped samples, for k from 0 to N: (N + 1,).

    Among equal margins no order is better than another: the mean over all orders counts.
    """
    values, group = np.unique(margins, return_inverse=True)
    sizes = np.bincount(group, minlength=len(values))
    shares = np.bincount(group, weights=flipped, minlength=len(values)) / sizes
    return np.concatenate([[0.0], np.cumsum(np.repeat(shares, sizes))])


def precision(estimates: Estimates) -> Array:
    """The share of flipped samples among the k smallest margins, for k from 1 to N: (N,)."""
    found = hits(estimates.margins, estimates.flipped)[1:]
    return found / np.arange(1, len(found) + 1)
