"""How a quality is spoken of: samples are right or wrong, or it falls by degrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ima.evaluation.remarks import capital
from ima.measures import Measure
from ima.report.entries import PageEntry
from ima.report.scores import WITHOUT, Score, radii_told
from ima.report.sizes import with_short
from ima.report.words import called, counted, listed

VISIBLE = 0.005
"""Shares that are nearer to each other are not told apart in words."""

LabelledScores: TypeAlias = Sequence[tuple[str, Score]]
"""Labels and what is left of these networks."""


def _seeds(score: Score) -> str:
    return f", mean of {score.seeds} seeds" if score.seeds > 1 else ""


def _ends(found: LabelledScores) -> tuple[tuple[str, str], tuple[str, str]]:
    """Whose is the highest and the lowest, and how both are told."""
    best, least = max(found, key=lambda one: one[1].mean), min(found, key=lambda one: one[1].mean)
    return (best[0], best[1].text), (least[0], least[1].text)


def _whose(found: LabelledScores, everyone: bool) -> str:
    return "each of them" if everyone else listed([label for label, _ in found])


@dataclass(frozen=True)
class Right:
    """Samples are right or wrong, and noise breaks them.

    tile: what stands over a number; nothing: what is said where there is none; subject: the
    quality as the subject of a sentence.
    """

    measure: Measure
    tile: str
    nothing: str
    subject: str

    def tested(self, one: PageEntry) -> str:
        """On how many samples."""
        return f"{one.count} {one.part} samples"

    def clean(self, one: PageEntry) -> str:
        """What is right without noise."""
        score = one.scores[WITHOUT]
        unit = "\u00a0%" if self.measure.percent else ""
        return (
            f"{capital(one.label)} is right on {score.text} of {self.tested(one)} without noise "
            f"(95 % interval {score.within}{unit}{_seeds(score)})."
        )

    def taken(self, found: Sequence[tuple[str, Score, str]]) -> str:
        """What noise breaks, by its size."""
        # Of those that were right with the same seeds: others may not have been attacked so.
        broken = [(eps, self.measure.said(1 - s.mean / s.clean), note) for eps, s, note in found]
        (_, share, note), *more = broken
        return f"breaks {share} of those that were right{note}" + "".join(
            f"; noise of size {eps} breaks {share}{note}" for eps, share, note in more
        )

    def smallest(self, one: PageEntry, attack: str) -> list[str]:
        """How small the noise is that suffices, and where this breaks more than the attacks did."""
        distances = next((s.distances for s in one.sources if s.distances), None)
        if distances is None:
            return []
        half, told = distances.median(), list[str]()
        if math.isfinite(half):
            size = with_short(half, one.main[0].settings)
            told.append(f"Noise of size {size} is enough to break half of them.")
        fewer = [
            f"{self.measure.said(found)} at {eps:g}"
            for eps in radii_told([one.scores], attack)
            if (found := distances.accuracy(eps)) < one.scores[attack, eps].mean - VISIBLE
        ]
        # The distances are those of one seed.
        if fewer and len(one.sources) == 1:
            told.append(
                "The search for each sample's smallest noise leaves fewer right than the attacks "
                f"did: {listed(fewer)}."
            )
        return told

    def span(self, found: LabelledScores, everyone: bool) -> str:
        """The lowest and the highest; everyone: these are all networks, with all seeds."""
        (best, high), (least, low) = _ends(found)
        if high == low:
            return f"{high} with {_whose(found, everyone)}"
        return f"between {low} with {least} and {high} with {best}"

    def left(self, found: LabelledScores, everyone: bool) -> str:
        """What noise leaves right."""
        (best, high), (least, low) = _ends(found)
        whose = _whose(found, everyone)
        if max(score.mean for _, score in found) < 0.01:
            few = self.measure.said(0.01).replace(".0", "")
            return f"none of them above {few}" if everyone else f"less than {few} with {whose}"
        if high == low:
            return f"{high} with {whose}"
        return f"{high} with {best} and {low} with {least}"


@dataclass(frozen=True)
class Graded(Right):
    """A quality that noise takes down by degrees."""

    def tested(self, one: PageEntry) -> str:
        """On how many samples."""
        return counted(one.main[0])

    def clean(self, one: PageEntry) -> str:
        """What there is without noise."""
        score, tested = one.scores[WITHOUT], f"{capital(one.label)} was tested on"
        tested = f"{tested} {self.tested(one)}"
        if math.isnan(score.mean):
            return f"{tested}; {self.nothing[:1].lower()}{self.nothing[1:]}"
        within = "" if math.isnan(score.interval[0]) else f" (95 % interval {score.within}"
        within += f"{_seeds(score)})" if within else ""
        return f"{tested}. Without noise its {called(self.measure)} is {score.text}{within}."

    def taken(self, found: Sequence[tuple[str, Score, str]]) -> str:
        """How far noise takes it down, by its size."""
        name = self.measure.name
        (_, first, note), *more = found
        before = self.measure.said(first.clean)
        same = f"leaves the {name} at {before}"
        to = f"takes the {name} from {before} to {first.text}" if before != first.text else same
        return f"{to}{note}" + "".join(
            f"; noise of size {eps}, to {score.text}{note}" for eps, score, note in more
        )

    def span(self, found: LabelledScores, everyone: bool) -> str:
        """The lowest and the highest, with whose they are."""
        (best, high), (least, low) = _ends(found)
        if high != low and len(found) < 3:
            return f"{high} with {best} and {low} with {least}"
        return super().span(found, everyone)

    def left(self, found: LabelledScores, everyone: bool) -> str:
        """What noise leaves of it."""
        article = "an" if self.measure.name[0] in "aeiou" else "a"
        return f"{article} {self.measure.name} of {self.span(found, everyone)}"


def words_of(measure: Measure) -> Right:
    """How this quality is spoken of."""
    if measure.binary:
        return Right(measure, "right", "None of them was measured.", measure.name)
    nothing = f"No {measure.part} occurs in them, so there is no {measure.name}."
    return Graded(measure, measure.name, nothing, f"the {called(measure)}")
