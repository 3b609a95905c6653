"""Shares with their uncertainty, and how numbers and names are written on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ima.evaluation.distances import Distances
from ima.evaluation.results import (
    CLEAN,
    Results,
    Row,
    aimed,
    mean_and_std,
    worth,
)
from ima.evaluation.results import (
    interval as interval_of,
)
from ima.norm_names import known_norm

WORST = "worst case"
"""The attack of which an evaluation says that any attack broke a sample."""

MOST = 3
"""So many radii are spoken of."""

ABBREVIATIONS = ("pgd", "ifgsm", "ddn", "fab")


@dataclass(frozen=True)
class Score:
    """An accuracy, 0..1: mean and standard deviation over seeds, each measured on n samples.

    clean: the mean accuracy of these same seeds without noise, NaN where nobody needs it. worth:
    how many independent samples they are worth, by their cases; n where None.
    """

    share: float
    std: float | None
    n: int
    seeds: int
    clean: float = math.nan
    worth: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval for n samples; seeds share the samples, so they do not narrow it."""
        return interval_of(self.share, self.n, self.worth)

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {100 * self.std:.1f}"
        return f"{100 * self.share:.1f}{spread}"


Scores: TypeAlias = Mapping[tuple[str, float], Score]
"""By attack and noise radius; clean at radius 0."""


def scores(seeds: Sequence[Results]) -> Scores:
    """The accuracies of one method, from one pass over its rows."""
    found: dict[tuple[str, float], list[tuple[list[Row], float]]] = {}
    for results in seeds:
        groups: dict[tuple[str, float], list[Row]] = {}
        for row in results.rows:
            groups.setdefault((row.attack, row.eps), []).append(row)
        rows = groups.get((CLEAN, 0.0), [])
        clean = _standing(rows) / len(rows) if rows else math.nan
        for key, of_key in groups.items():
            found.setdefault(key, []).append((of_key, clean))
    made: dict[tuple[str, float], Score] = {}
    for key, of_seeds in found.items():
        clean, _ = mean_and_std(of_seed for _, of_seed in of_seeds)
        made[key] = replace(score([rows for rows, _ in of_seeds]), clean=clean)
    return made


def score(seeds: Sequence[Sequence[Row]]) -> Score:
    """The share of rows that stand, mean over seeds, each with at least one row."""
    mean, std = mean_and_std(_standing(rows) / len(rows) for rows in seeds)
    samples = [worth(rows) for rows in seeds]
    known = [one for one in samples if one is not None]
    least = min(known) if len(known) == len(samples) else None
    return Score(mean, std, min(map(len, seeds)), len(seeds), worth=least)


def _standing(rows: Sequence[Row]) -> int:
    return sum(not row.broken for row in rows)


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


def drawn(attack: str, attacks: Sequence[str]) -> bool:
    """Whether an attack's noise is drawn at random, not chosen against a network.

    attacks: all that ran; the worst case of draws is a draw.
    """
    parts = [one for one in attacks if one != WORST] if attack == WORST else [attack]
    return bool(parts) and all(part.partition("-")[0] == "noise" for part in parts)


def whole(of_one: Scores) -> set[tuple[str, float]]:
    """The attacks and radii that every seed has; the worst case where every seed has its parts."""
    seeds = _seeds(of_one)
    noisy = [(key, score.seeds == seeds) for key, score in of_one.items() if aimed(key[0])]
    # The worst case of some attacks is no mean with the worst case of others.
    missed = {eps for (_, eps), full in noisy if not full}
    return {key for key, full in noisy if full and (key[0] != WORST or key[1] not in missed)}


def headline(all_scores: Sequence[Scores]) -> str:
    """The attack that the sentences are about; "" for none.

    The worst case, or the first that was chosen against the networks: of those that every seed of
    every network has, if there are such.
    """
    attacks = attacks_of(all_scores)
    chosen = [attack for attack in attacks if not drawn(attack, attacks)] or attacks
    order = sorted(chosen, key=lambda attack: attack != WORST)
    common = [{attack for attack, _ in whole(of_one)} for of_one in all_scores]
    alike = len({frozenset(attacks_of([of_one])) for of_one in all_scores}) == 1
    shared = [a for a in order if all(a in one for one in common) and (alike or a != WORST)]
    return next(iter([*shared, *order]), "")


def radii_told(all_scores: Sequence[Scores], attack: str) -> list[float]:
    """The few radii of an attack that are spoken of: those that every seed of a network has.

    Where no seeds have one in common, any.
    """
    full = {eps for of_one in all_scores for name, eps in whole(of_one) if name == attack}
    some = {eps for of_one in all_scores for name, eps in of_one if name == attack}
    return few(sorted(full or some))


def lacking(score: Score, of_one: Scores) -> str:
    """Of how many seeds a score is, such as `1 of 2 seeds, n = 540`; "" where it is of all."""
    seeds = _seeds(of_one)
    return "" if score.seeds == seeds else f"{score.seeds} of {seeds} seeds, n = {score.n}"


def _seeds(of_one: Scores) -> int:
    return max((score.seeds for score in of_one.values()), default=0)


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
    known = known_norm(norm)
    if known is None:
        return f"{norm} (a norm of the user's own; sizes in it are those of the evaluation)"
    return f"{known.label} ({known.about})"


def listed(names: Sequence[str]) -> str:
    """Names in a row, as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
