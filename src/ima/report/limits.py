"""Limits that were required, and whether they are met: by the lowest number that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ima.evaluation.results import same_radius
from ima.report.entries import PageEntry
from ima.report.leads import Lead
from ima.report.scores import WITHOUT, attacks_of, drawn
from ima.report.sizes import radius_told
from ima.report.words import under


@dataclass(frozen=True)
class Decided:
    """One limit of one network.

    network: its label; eps: the noise radius, 0 for none; least: the quality that was required, 0
    to 1; lead: what there is; under: the attack; open: the 95 % interval holds the limit; notes:
    what else leaves it in doubt.
    """

    network: str
    eps: float
    least: float
    lead: Lead
    under: str
    notes: tuple[str, ...]
    noise: str
    alone: bool

    @property
    def met(self) -> bool:
        """Whether the quality is as high as required; not where nothing was measured."""
        return self.lead.score.mean >= self.least - 1e-9

    @property
    def open(self) -> bool:
        """Whether the 95 % interval holds the limit; None of it is known: no."""
        low, high = self.lead.score.interval
        return low < self.least < high

    @property
    def state(self) -> str:
        """`met`, `missed`, or `not measured`."""
        if math.isnan(self.lead.score.mean):
            return "not measured"
        return "met" if self.met else "missed"

    @property
    def sentence(self) -> str:
        """What was required, what there is, and what leaves it open."""
        score = self.lead.score
        measure = score.measure
        article = "an" if measure.name[0] in "aeiou" else "a"
        whose = "" if self.alone else f" by {self.network}"
        unit = "\u00a0%" if measure.percent else ""
        within = "" if math.isnan(score.interval[0]) else f" (95 % interval {score.within}{unit})"
        said = (
            f"Limit {self.state}{whose}: required is {article} {measure.name} of at least "
            f"{measure.said(self.least)} {self.noise}"
        )
        by = f", under {under(self.under)}" if self.eps else ""
        by += f" and what {self.lead.whence} found too" if self.lead.whence else ""
        said += f"; it is {score.text}{within}{by}." if self.state != "not measured" else "."
        return " ".join([said, *self.notes])


OPEN = "The 95 % interval holds the limit: a test set of this size leaves it open."


def decided(entries: Sequence[PageEntry]) -> list[Decided]:
    """What was required of each network, in the order in which it was stated.

    Raises ValueError for a limit at a size of noise that was not tried.
    """
    return [
        _decide(one, eps, least, len(entries) == 1)
        for one in entries
        for eps, least in dict.fromkeys(
            pair for results in one.main for pair in results.settings.require
        )
    ]


def _decide(entry: PageEntry, eps: float, least: float, alone: bool) -> Decided:
    scores = entry.scores
    keys = (
        [WITHOUT]
        if eps == 0
        else [key for key in scores if key[0] in attacks_of([scores]) and same_radius(key[1], eps)]
    )
    if not keys:
        raise ValueError(
            f"{entry.label} has no results with noise of size {eps:g}, for which a limit is "
            f"required; evaluate it with --eps {eps:g} too"
        )
    found = {key: entry.lead(*key) for key in keys}
    attack, radius = min(keys, key=lambda key: (found[key].score.mean, keys.index(key)))
    lead, settings = found[attack, radius], entry.main[0].settings
    noise = f"with noise of size {radius_told(eps, settings)}"
    made = Decided(
        entry.label, eps, least, lead, attack, (), noise if eps else "without noise", alone
    )
    notes = [OPEN] if made.open else []
    if eps and all(drawn(key[0], [scores]) for key in keys):
        notes.append("The noise was drawn at random; noise that is chosen may break far more.")
    if eps and (raised := sum(len(source.raised) for source in entry.sources)):
        checks = "trust check is" if raised == 1 else "trust checks are"
        notes.append(f"{raised} {checks} raised: the number is probably too high.")
    return replace(made, notes=tuple(notes))
