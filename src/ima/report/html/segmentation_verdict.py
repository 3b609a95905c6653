"""The verdict on segmentation networks: how far noise takes the Dice down, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN
from ima.evaluation.segmentation_results import WORST
from ima.report.html.blocks import Tile
from ima.report.html.doubts import doubted
from ima.report.html.numbers import attack_name, listed
from ima.report.segmented import (
    Score,
    Scores,
    Segmented,
    aimed,
    count,
    headline,
    keys_of,
    radii,
    scores,
    shown,
)
from ima.report.style import norm_name

MOST = 3
"""So many radii are spoken of."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A network with the Dice indices that the page is about."""

    run: Segmented
    scores: Scores

    @staticmethod
    def of(run: Segmented) -> Seen:
        """The network of an evaluation."""
        return Seen(run, scores(run.results))

    def at(self, attack: str, eps: float) -> float | None:
        """ADI at a radius, where it was measured."""
        found = self.scores.get((attack, eps) if eps else (CLEAN, 0.0))
        return None if found is None or math.isnan(found.adi) else found.adi


def sentences(seen: Sequence[Seen]) -> str:
    """The paragraph."""
    all_scores = [one.scores for one in seen]
    attack = headline(all_scores)
    # First: it is said of all that follows.
    parts = doubts(seen)
    parts.append(_of_one(seen[0], attack) if len(seen) == 1 else _of_many(seen, attack))
    if attack:
        names = dict.fromkeys(a for a, _ in keys_of(all_scores) if aimed(a) and a != WORST)
        which = f" by {listed([attack_name(name) for name in names])}" if names else ""
        parts.append(
            f"The noise was found{which}; a stronger attack may find more, so the Dice with noise "
            "are upper bounds."
        )
    else:
        parts.append("No attack was run: this says nothing about noise chosen against a network.")
    return " ".join(parts)


def doubts(seen: Sequence[Seen]) -> list[str]:
    """What leaves the Dice in doubt, as sentences."""
    return united(
        (one.run.label if len(seen) > 1 else "", file.remarks)
        for one in seen
        for file in (one.run.results, one.run.checks)
        if file is not None
    )


def tiles(seen: Sequence[Seen]) -> tuple[Tile, ...]:
    """The most important numbers of one network."""
    if len(seen) > 1:
        return ()
    one = seen[0]
    attack = headline([one.scores])
    unit = norm_name(one.run.results.norm)
    keys = [(CLEAN, 0.0), *((attack, eps) for eps in _few(radii([one.scores], attack)))]
    found = tuple(
        Tile(
            shown(one.scores[key].adi),
            f"mean Dice with noise of size {key[1]:g} ({unit})"
            if key[1]
            else "mean Dice without noise",
            f"95 % interval {interval(one.scores[key])}",
        )
        for key in keys
        if key in one.scores
    )
    return doubted(found, doubts(seen))


def interval(score: Score) -> str:
    """The 95 % interval in words; what it lacks where there is none."""
    low, high = score.interval
    return "needs two cases" if math.isnan(low) else f"{shown(low)} to {shown(high)}"


def _of_one(one: Seen, attack: str) -> str:
    results = one.run.results
    label, n = one.run.label, count(results)
    clean = one.at(CLEAN, 0.0)
    if clean is None:
        return f"{label} was tested on {n}; no class occurs in them, so there is no mean Dice."
    name = label[:1].upper() + label[1:]
    said = [f"{name} was tested on {n}. Without noise its mean Dice (ADI) is {shown(clean, 2)}."]
    unit = norm_name(results.norm)
    found = [
        (eps, shown(adi, 2))
        for eps in _few(radii([one.scores], attack))
        if (adi := one.at(attack, eps)) is not None
    ]
    if found:
        (first, to), *more = found
        said.append(
            f"Noise of size {first:g} ({unit}), chosen against the network, "
            + _taken(shown(clean, 2), to)
            + "".join(f"; noise of size {eps:g}, to {low}" for eps, low in more)
            + "."
        )
    return " ".join(said)


def _taken(before: str, after: str) -> str:
    same = f"leaves the mean Dice at {before}"
    return same if before == after else f"takes the mean Dice from {before} to {after}"


def _of_many(seen: Sequence[Seen], attack: str) -> str:
    results = seen[0].run.results
    said = [f"{len(seen)} networks, compared on {count(results)}."]
    clean = [(one.run.label, adi) for one in seen if (adi := one.at(CLEAN, 0.0)) is not None]
    if not clean:
        return f"{said[0]} No class occurs in them, so there is no mean Dice."
    said.append(f"Without noise, the mean Dice (ADI) is {_span(clean, len(seen))}.")
    unit = norm_name(results.norm)
    for eps in _few(radii([one.scores for one in seen], attack)):
        found = [(one.run.label, adi) for one in seen if (adi := one.at(attack, eps)) is not None]
        if found:
            lacking = [one.run.label for one in seen if (attack, eps) not in one.scores]
            said.append(
                f"Noise of size {eps:g} ({unit}), chosen against each network, leaves a "
                f"mean Dice of {_span(found, len(seen))}{_unmeasured(lacking)}."
            )
    return " ".join(said)


def _unmeasured(labels: Sequence[str]) -> str:
    verb = "was" if len(labels) == 1 else "were"
    return f"; {listed(labels)} {verb} not measured so" if labels else ""


def _span(found: Sequence[tuple[str, float]], networks: int) -> str:
    """The lowest and the highest, with whose they are; one number where they look the same.

    networks: how many there are, with those that have no number.
    """
    best, least = max(found, key=lambda one: one[1]), min(found, key=lambda one: one[1])
    high, low = shown(best[1], 2), shown(least[1], 2)
    if high == low:
        whose = "each of them" if len(found) == networks else listed([label for label, _ in found])
        return f"{high} with {whose}"
    if len(found) > 2:
        return f"between {low} with {least[0]} and {high} with {best[0]}"
    return f"{high} with {best[0]} and {low} with {least[0]}"


def _few(known: Sequence[float]) -> list[float]:
    return list(known) if len(known) <= MOST else [known[0], known[len(known) // 2], known[-1]]
