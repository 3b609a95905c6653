"""The verdict: what noise breaks, in a paragraph of plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ima.evaluation.distances import Distances
from ima.evaluation.results import CLEAN
from ima.report.html.blocks import Tile
from ima.report.html.numbers import (
    WORST,
    Scores,
    attack_name,
    attacks_of,
    few,
    headline,
    interval,
    listed,
    percent,
    radii_of,
)
from ima.report.html.sources import Entry
from ima.report.style import norm_name

VISIBLE = 0.005
"""Shares that are nearer to each other are not told apart in words."""


@dataclass(frozen=True)
class Judged:
    """An entry with the accuracies that the page is about."""

    entry: Entry
    scores: Scores

    @property
    def clean(self) -> float:
        """Accuracy without noise."""
        return self.scores[CLEAN, 0.0].share

    def at(self, attack: str, eps: float) -> float | None:
        """Accuracy at a radius, where it was measured."""
        found = self.scores.get((attack, eps))
        return None if found is None else found.share


def sentences(judged: Sequence[Judged]) -> str:
    """The paragraph."""
    all_scores = [one.scores for one in judged]
    attack = headline(all_scores)
    parts = [_of_one(judged[0], attack) if len(judged) == 1 else _of_many(judged, attack)]
    if attack:
        parts.append(_caution(all_scores, attack))
    parts.append(_checked([one.entry for one in judged]))
    return " ".join(part for part in parts if part)


def tiles(judged: Sequence[Judged]) -> tuple[Tile, ...]:
    """The most important numbers of one network."""
    if len(judged) > 1:
        return ()
    one = judged[0]
    attack = headline([one.scores])
    unit = norm_name(one.entry.main[0].norm)
    keys = [(CLEAN, 0.0), *((attack, eps) for eps in few(radii_of([one.scores])))]
    return tuple(
        Tile(
            percent(one.scores[key].share),
            f"right with noise of size {key[1]:g} ({unit})" if key[1] else "right without noise",
            f"95 % interval {interval(one.scores[key])}",
        )
        for key in keys
        if key in one.scores
    )


def _of_one(one: Judged, attack: str) -> str:
    clean = one.scores[CLEAN, 0.0]
    seeds = f", mean of {clean.seeds} seeds" if clean.seeds > 1 else ""
    said = [
        f"{_capital(one.entry.label)} is right on {percent(one.clean)} of {clean.n} test samples "
        f"without noise (95 % interval {interval(clean)}\u00a0%{seeds})."
    ]
    unit = norm_name(one.entry.main[0].norm)
    broken = [
        (eps, 1 - share / one.clean)
        for eps in few(radii_of([one.scores]))
        if one.clean > 0 and (share := one.at(attack, eps)) is not None
    ]
    if broken:
        first, *more = broken
        said.append(
            f"Noise of size {first[0]:g} ({unit}), chosen against the network, breaks "
            f"{percent(first[1])} of those that were right"
            + "".join(f"; noise of size {eps:g} breaks {percent(share)}" for eps, share in more)
            + "."
        )
    distances = next((s.distances for s in one.entry.sources if s.distances), None)
    if distances is not None:
        half = distances.median()
        if math.isfinite(half):
            said.append(f"Noise of size {half:.3g} is enough to break half of them.")
        said.append(_nearer(one, attack, distances))
    return " ".join(filter(None, said))


def _nearer(one: Judged, attack: str, distances: Distances) -> str:
    """Where the search for the smallest noise broke more than the attacks did, how much."""
    fewer = [
        f"{percent(found)} at {eps:g}"
        for eps in few(radii_of([one.scores]))
        if (share := one.at(attack, eps)) is not None
        and (found := distances.accuracy(eps)) < share - VISIBLE
    ]
    # The distances are those of one seed.
    if not fewer or len(one.entry.sources) > 1:
        return ""
    return (
        "The search for each sample's smallest noise leaves fewer right than the attacks did: "
        f"{listed(fewer)}."
    )


def _of_many(judged: Sequence[Judged], attack: str) -> str:
    clean = judged[0].scores[CLEAN, 0.0]
    seeds = f", {clean.seeds} seeds each" if clean.seeds > 1 else ""
    best, least = _ends([(one.entry.label, one.clean) for one in judged])
    span = (
        f"is {percent(best[1])} with each of them"
        if percent(best[1]) == percent(least[1])
        else f"is between {percent(least[1])} with {least[0]} and {percent(best[1])} with {best[0]}"
    )
    said = [
        f"{len(judged)} networks, compared on {clean.n} test samples{seeds}. Without noise, "
        f"accuracy {span}."
    ]
    unit = norm_name(judged[0].entry.main[0].norm)
    for eps in few(radii_of([one.scores for one in judged])):
        found = [
            (one.entry.label, share) for one in judged if (share := one.at(attack, eps)) is not None
        ]
        if not found:
            continue
        best, least = _ends(found)
        noise = f"Noise of size {eps:g} ({unit}), chosen against each network,"
        if best[1] < 0.01:
            said.append(f"{noise} leaves none of them above 1\u00a0%.")
        elif percent(best[1]) == percent(least[1]):
            said.append(f"{noise} leaves {percent(best[1])} with each of them.")
        else:
            said.append(
                f"{noise} leaves {percent(best[1])} with {best[0]} and {percent(least[1])} with "
                f"{least[0]}."
            )
    return " ".join(said)


def _caution(all_scores: Sequence[Scores], attack: str) -> str:
    ran = [attack_name(name) for name in attacks_of(all_scores) if name != WORST]
    which = f"by {listed(ran)}" if ran else ""
    return (
        f"The noise was found {which}; a stronger attack may find more, so the accuracies with "
        "noise are upper bounds."
    )


def _checked(entries: Sequence[Entry]) -> str:
    sources = [s for entry in entries for s in entry.sources]
    found = [check for s in sources if s.checks is not None for check in s.checks.checks]
    if not found:
        return "No trust checks were run."
    raised = [check for check in found if check.tripped]
    ran = [check for check in found if check.tripped is not None]
    if raised:
        whose: dict[str, dict[str, None]] = {}
        for entry in entries:
            for source in entry.sources:
                for title in source.raised:
                    whose.setdefault(title, {})[entry.label] = None
        titles = [
            f"{title}, with {listed(list(labels))}" if len(entries) > 1 else title
            for title, labels in whose.items()
        ]
        verb = "is" if len(raised) == 1 else "are"
        return (
            f"{len(raised)} of {len(ran)} trust checks {verb} raised ({'; '.join(titles)}): the "
            "accuracies with noise are probably too high. What to do stands under Trust checks."
        )
    return f"None of the {len(ran)} trust checks that ran is raised." if ran else ""


def _ends(found: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], tuple[str, float]]:
    return max(found, key=lambda one: one[1]), min(found, key=lambda one: one[1])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
