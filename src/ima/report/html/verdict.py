"""The verdict: what noise breaks, in a paragraph of plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ima.evaluation.distances import Distances
from ima.evaluation.results import CLEAN, TEST
from ima.report.html.blocks import Tile
from ima.report.html.doubts import doubted, doubts
from ima.report.html.entries import Entry
from ima.report.html.numbers import (
    WORST,
    Score,
    Scores,
    attack_name,
    attacks_of,
    drawn,
    headline,
    interval,
    lacking,
    listed,
    percent,
    radii_told,
)
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

    @property
    def part(self) -> str:
        """The part of the data that it was evaluated on, such as `test`."""
        return self.entry.main[0].settings.get("part", TEST)

    @property
    def count(self) -> str:
        """How many samples it was evaluated on, such as `540`; the ends where seeds differ."""
        counts = sorted({len(results.broken(CLEAN, 0.0)) for results in self.entry.main})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    def lacking(self, score: Score) -> str:
        """In brackets of how many seeds a score is, where it is not of all."""
        said = lacking(score, self.scores)
        return f" ({said})" if said else ""


def sentences(judged: Sequence[Judged]) -> str:
    """The paragraph."""
    all_scores = [one.scores for one in judged]
    attack = headline(all_scores)
    # First: it is said of all that follows.
    parts = doubts([one.entry for one in judged])
    parts.append(_of_one(judged[0], attack) if len(judged) == 1 else _of_many(judged, attack))
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
    noise = "random noise" if drawn(attack, attacks_of([one.scores])) else "noise"
    keys = [(CLEAN, 0.0), *((attack, eps) for eps in radii_told([one.scores], attack))]
    found = tuple(
        Tile(
            percent(one.scores[key].share),
            f"right with {noise} of size {key[1]:g} ({unit})" if key[1] else "right without noise",
            f"95 % interval {interval(one.scores[key])}{one.lacking(one.scores[key])}",
        )
        for key in keys
        if key in one.scores
    )
    return doubted(found, doubts([one.entry]))


def _noise(eps: float, unit: str, all_scores: Sequence[Scores], attack: str, whom: str) -> str:
    """The noise as the subject of a sentence."""
    if drawn(attack, attacks_of(all_scores)):
        return f"Random noise of size {eps:g} ({unit})"
    return f"Noise of size {eps:g} ({unit}), chosen against {whom},"


def _of_one(one: Judged, attack: str) -> str:
    clean = one.scores[CLEAN, 0.0]
    seeds = f", mean of {clean.seeds} seeds" if clean.seeds > 1 else ""
    said = [
        f"{_capital(one.entry.label)} is right on {percent(one.clean)} of {one.count} {one.part} "
        f"samples without noise (95 % interval {interval(clean)}\u00a0%{seeds})."
    ]
    unit = norm_name(one.entry.main[0].norm)
    found = [
        (eps, one.scores[attack, eps])
        for eps in radii_told([one.scores], attack)
        if one.scores[attack, eps].clean > 0
    ]
    # Of those that were right with the same seeds: others may not have been attacked so.
    broken = [
        (eps, percent(1 - score.share / score.clean), one.lacking(score)) for eps, score in found
    ]
    if broken:
        (first, share, note), *more = broken
        noise = _noise(first, unit, [one.scores], attack, "the network")
        said.append(
            f"{noise} breaks {share} of those that were right{note}"
            + "".join(f"; noise of size {eps:g} breaks {share}{note}" for eps, share, note in more)
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
        for eps in radii_told([one.scores], attack)
        if (found := distances.accuracy(eps)) < one.scores[attack, eps].share - VISIBLE
    ]
    # The distances are those of one seed.
    if not fewer or len(one.entry.sources) > 1:
        return ""
    return (
        "The search for each sample's smallest noise leaves fewer right than the attacks did: "
        f"{listed(fewer)}."
    )


def _of_many(judged: Sequence[Judged], attack: str) -> str:
    best, least = _ends([(one.entry.label, one.clean) for one in judged])
    span = (
        f"is {percent(best[1])} with each of them"
        if percent(best[1]) == percent(least[1])
        else f"is between {percent(least[1])} with {least[0]} and {percent(best[1])} with {best[0]}"
    )
    said = [f"{len(judged)} networks, {_compared(judged)}. Without noise, accuracy {span}."]
    unit = norm_name(judged[0].entry.main[0].norm)
    all_scores = [one.scores for one in judged]
    for eps in radii_told(all_scores, attack):
        noise = _noise(eps, unit, all_scores, attack, "each network")
        said.append(f"{noise} {_leaves(judged, (attack, eps))}.")
    return " ".join(said)


def _compared(judged: Sequence[Judged]) -> str:
    """On how many samples, and with how many seeds."""
    part, counts = judged[0].part, [one.count for one in judged]
    seeds = sorted({one.scores[CLEAN, 0.0].seeds for one in judged})
    each = f", {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds each"
    on = (
        f"compared on {counts[0]} {part} samples"
        if len(set(counts)) == 1
        else f"evaluated on different numbers of {part} samples: "
        + listed([f"{one.count} with {one.entry.label}" for one in judged])
    )
    return on + (each if seeds[-1] > 1 else "")


def _leaves(judged: Sequence[Judged], key: tuple[str, float]) -> str:
    """What noise leaves right of the networks that it was tried on, and which those are."""
    tried = [(one, one.scores[key]) for one in judged if key in one.scores]
    named = [(one.entry.label + one.lacking(score), score.share) for one, score in tried]
    best, least = _ends(named)
    missing = [one.entry.label for one in judged if key not in one.scores]
    others = f"; it was not tried on {listed(missing)}" if missing else ""
    known = missing or any(one.lacking(score) for one, score in tried)
    them = f"with {listed([label for label, _ in named])}" if known else "with each of them"
    if best[1] < 0.01:
        few = f"less than 1\u00a0% {them}" if known else "none of them above 1\u00a0%"
        return f"leaves {few}{others}"
    if percent(best[1]) == percent(least[1]):
        return f"leaves {percent(best[1])} {them}{others}"
    return (
        f"leaves {percent(best[1])} with {best[0]} and {percent(least[1])} with {least[0]}{others}"
    )


def _caution(all_scores: Sequence[Scores], attack: str) -> str:
    if drawn(attack, attacks_of(all_scores)):
        return (
            "This noise was drawn at random, not chosen against a network; noise that is may break "
            "far more, so the accuracies with noise are upper bounds."
        )
    names = attacks_of(all_scores) if attack == WORST else [attack]
    ran = [attack_name(name) for name in names if name != WORST]
    which = f" by {listed(ran)}" if ran else ""
    return (
        f"The noise was found{which}; a stronger attack may find more, so the accuracies with "
        "noise are upper bounds."
    )


def _checked(entries: Sequence[Entry]) -> str:
    sources = [s for entry in entries for s in entry.sources]
    checked = [s.own_checks for s in sources if s.own_checks is not None]
    found = [check for checks in checked for check in checks.checks]
    if not found:
        others = any(s.checks is not None for s in sources)
        return f"No trust checks were run{' on these weights' if others else ''}."
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
