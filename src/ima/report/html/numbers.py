"""Shares with their uncertainty, and how numbers and names are written on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ima.evaluation.distances import Distances
from ima.evaluation.results import CLEAN, Results, aimed, mean_and_std, wilson
from ima.report.style import norm_name

WORST = "worst case"
"""The attack of which an evaluation says that any attack broke a sample."""

MOST = 3
"""So many radii are spoken of."""

ABBREVIATIONS = ("pgd", "ifgsm", "ddn", "fab")


@dataclass(frozen=True)
class Score:
    """An accuracy, 0..1: mean and standard deviation over seeds, each measured on n samples."""

    share: float
    std: float | None
    n: int
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval for n samples; seeds share the samples, so they do not narrow it."""
        return wilson(self.share, self.n)

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {100 * self.std:.1f}"
        return f"{100 * self.share:.1f}{spread}"


Scores: TypeAlias = Mapping[tuple[str, float], Score]
"""By attack and noise radius; clean at radius 0."""


def scores(seeds: Sequence[Results]) -> Scores:
    """The accuracies of one method, from one pass over its rows."""
    found: dict[tuple[str, float], list[tuple[int, int]]] = {}
    for results in seeds:
        counts: dict[tuple[str, float], list[int]] = {}
        for row in results.rows:
            count = counts.setdefault((row.attack, row.eps), [0, 0])
            count[0] += not row.broken
            count[1] += 1
        for key, (standing, n) in counts.items():
            found.setdefault(key, []).append((standing, n))
    made: dict[tuple[str, float], Score] = {}
    for key, counted in found.items():
        mean, std = mean_and_std(standing / n for standing, n in counted)
        made[key] = Score(mean, std, min(n for _, n in counted), len(counted))
    return made


def attacks_of(all_scores: Sequence[Scores]) -> list[str]:
    """The attacks that ran, in their order, without clean and white noise."""
    return list(dict.fromkeys(attack for s in all_scores for attack, _ in s if aimed(attack)))


def radii_of(all_scores: Sequence[Scores]) -> list[float]:
    """The noise radii, ascending."""
    return sorted({eps for s in all_scores for attack, eps in s if aimed(attack)})


def few(radii: Sequence[float]) -> list[float]:
    """Those radii that are spoken of: all, or the ends and one between."""
    if len(radii) <= MOST:
        return list(radii)
    return [radii[0], radii[len(radii) // 2], radii[-1]]


def headline(all_scores: Sequence[Scores]) -> str:
    """The attack that the sentences are about: the worst case, or the only one; "" for none."""
    attacks = attacks_of(all_scores)
    return WORST if WORST in attacks else next(iter(attacks), "")


def percent(share: float) -> str:
    """A share in percent, with a space that does not break."""
    return f"{100 * share:.1f}\u00a0%"


def interval(score: Score) -> str:
    """The 95 % interval in percent."""
    low, high = score.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def attack_name(attack: str) -> str:
    """An attack as people write it."""
    if attack == CLEAN:
        return "without noise"
    known = {"autoattack": "AutoAttack", "square": "Square", "ddn-margin": "DDN on the margin"}
    short = attack.partition("-")[0] in ABBREVIATIONS
    return known.get(attack, attack.upper() if short else attack)


def enough(found: Distances, share: float) -> float:
    """The size of noise by which this share of all samples is wrong; infinite if never."""
    values = np.sort(found.values)
    return float(values[max(0, math.ceil(share * len(values)) - 1)])


def named(norm: str) -> str:
    """The norm, and what it means."""
    about = {
        "L₂": "the root of the summed squares of all changes",
        "L∞": "the largest change of a single value",
    }
    name = norm_name(norm)
    return f"{name} ({about[name]})" if name in about else name


def listed(names: Sequence[str]) -> str:
    """Names in a row, as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
