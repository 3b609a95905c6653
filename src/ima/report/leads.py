"""The lowest quality that all evidence beside a network leaves it at a size of noise, and whence.

For each sample: the lowest under any noise of at most that size, whatever found it: another attack,
white noise, the search for the smallest noise. Then what raised trust checks broke beside these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.results import CLEAN, WORST, Results, same_radius
from ima.evaluation.statistics import wilson
from ima.report.scores import RADII, WITHOUT, Measured, Score, score
from ima.report.words import attack_name, listed

if TYPE_CHECKING:
    from ima.evaluation.checks_results import Checks
    from ima.report.sources import Source

SEARCH = "the search for the smallest noise"

_ONLY = re.compile(r"only (?P<name>.+) breaks, at (?P<eps>\S+)")
"""How a check's evidence names what it broke beside the attack."""


@dataclass(frozen=True)
class Lead:
    """What is left at a size of noise; whence: what found less than the attack, empty for none."""

    score: Score
    whence: str = ""


def lead_of(own: Score, sources: Sequence[Source], which: str, attack: str, eps: float) -> Lead:
    """The lowest that is known of networks at this radius, where the attack was tried on them.

    own: what that attack leaves; sources: one for each seed; which: of their weights.
    """
    if (attack, eps) == WITHOUT:
        return Lead(own)
    tried = [s for s in sources if which in s.results and len(s.results[which].at(attack, eps))]
    names: dict[str, None] = {}
    rows = [_lowest(one, which, attack, eps, names) for one in tried]
    lowest, lead = score(rows), Lead(own)
    if names and lowest.mean < own.mean:
        found = replace(lowest, kind=own.kind, clean=own.clean, whole=own.whole)
        lead = Lead(found, listed(list(names)))
    checks = sources[0].own_checks
    if len(sources) > 1 or checks is None or not own.measure.binary:
        return lead
    beside = [
        Lead(replace(own, mean=own.clean * share, interval=_times(own.clean, share, n), n=n), said)
        for share, n, said in _checked(checks, eps)
    ]
    return min([lead, *beside], key=lambda one: one.score.mean)


def _times(clean: float, share: float, n: int) -> tuple[float, float]:
    low, high = wilson(share, n)
    return clean * low, clean * high


def _lowest(
    source: Source, which: str, attack: str, eps: float, names: dict[str, None]
) -> Measured:
    """For each sample the row with the lowest quality; names: takes what found less."""
    results = source.results[which]
    own = results.at(attack, eps)
    places = _places(results, own, eps)
    for place in places[places != own].tolist():
        names[_named(results, place, eps)] = None
    values = np.array(
        results.parts(places)
        if results.settings.measure.over == "parts"
        else results.columns["quality"][places][:, None]
    )
    if source.distances is not None and which == source.which and results.settings.measure.binary:
        # A point on the ball's surface is in the ball, however its size was rounded.
        found = {row.id for row in source.distances.rows if row.distance <= eps * (1 + 1e-6)}
        broken = np.isin(results.columns["id"][places], list(found)) & (values[:, 0] > 0)
        values[broken] = 0
        if broken.any():
            names[SEARCH] = None
    return results, places, values


def _places(results: Results, own: NDArray[Any], eps: float) -> NDArray[np.intp]:
    """For each of these rows that of its sample with the lowest quality; itself where none is."""
    columns = results.columns
    ids, quality = columns["id"], columns["quality"]
    within = columns["size"] <= eps * (1 + 1e-6)
    within |= (np.abs(columns["eps"] - eps) <= 1e-5 * eps) & np.isin(columns["kind"], RADII)
    rows = np.flatnonzero(within & (columns["attack"] != CLEAN))
    # The worst case names no attack: one that is as low goes before.
    order = np.lexsort((columns["attack"][rows] == WORST, quality[rows]))
    rows = rows[order]
    known, first = np.unique(ids[rows], return_index=True)
    lowest = dict(zip(known.tolist(), rows[first].tolist(), strict=True))
    others = np.array([lowest.get(ids[place], place) for place in own.tolist()], dtype=np.intp)
    return np.where(quality[others] < quality[own], others, own)


def _named(results: Results, place: int, eps: float) -> str:
    """What found the noise of a row."""
    columns = results.columns
    attack, size = str(columns["attack"][place]), float(columns["eps"][place])
    if columns["kind"][place] == "white":
        return "white noise"
    return attack_name(attack) + ("" if same_radius(size, eps) else f" with size {size:g}")


def _checked(checks: Checks, eps: float) -> Iterator[tuple[float, int, str]]:
    """What raised checks leave of the samples that are right: share, samples, and in words."""
    for check in checks.checks:
        for key, new in check.evidence.items() if check.tripped else ():
            told = _ONLY.fullmatch(key)
            if told is None or not same_radius(float(told["eps"]), eps):
                continue
            at = f", at {told['eps']}"
            against = (k for k in check.evidence if k.startswith("accuracy under "))
            base = next((check.evidence[k] for k in against if k.endswith(at)), None)
            if base is not None and base["n"]:
                left = (base["count"] - new["count"]) / base["n"]
                yield max(0.0, left), base["n"], f"the trust check with {told['name']}"
