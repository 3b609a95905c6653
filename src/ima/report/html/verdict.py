"""The verdict: what noise breaks, in a paragraph of plain sentences.

The sums are here; `prose` has the words of each kind of measure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN, WORST
from ima.report.classes import calibration, never_right, sensitivity
from ima.report.entries import PageEntry
from ima.report.html.blocks import Tile
from ima.report.html.prose import words_of
from ima.report.leads import Lead
from ima.report.scores import (
    WITHOUT,
    Score,
    Scores,
    attacks_of,
    drawn,
    headline,
    lacking,
    radii_told,
    seeds_of,
)
from ima.report.sizes import radius_told, with_short
from ima.report.words import attack_name, listed, under, unit_of


def verdict_of(entries: Sequence[PageEntry]) -> tuple[str, ...]:
    """The paragraphs: what noise breaks, of which classes, and how far that is to be trusted."""
    all_scores = [one.scores for one in entries]
    attack = headline(all_scores)
    # First: it is said of all that follows.
    parts = remarks_on(entries)
    parts.append(_of_one(entries[0], attack) if len(entries) == 1 else _of_many(entries, attack))
    doubts = [_caution(entries, attack), _checked(entries)]
    found = (parts, _of_classes(entries, attack), doubts)
    return tuple(text for part in found if (text := " ".join(filter(None, part))))


def tiles(entries: Sequence[PageEntry]) -> tuple[Tile, ...]:
    """The most important numbers of one network."""
    if len(entries) > 1:
        return ()
    one = entries[0]
    measure = one.main[0].settings.measure
    attack = headline([one.scores])
    settings = one.main[0].settings
    noise = "random noise" if drawn(attack, [one.scores]) else "noise"
    doubt = "; in doubt, see the remark" if remarks_on(entries) else ""
    found: list[Tile] = []
    for key in [WITHOUT, *((attack, eps) for eps in radii_told([one.scores], attack))]:
        if key in one.scores:
            lead = one.lead(*key)
            score = lead.score
            where = (
                f"with {noise} of size {radius_told(key[1], settings)}"
                if key[1]
                else "without noise"
            )
            small = f"95 % interval {score.within}{_lacking(score, one)}{doubt}"
            small += f"; counting what {lead.whence} found" if lead.whence else ""
            found.append(Tile(score.text, f"{words_of(measure).tile} {where}", small))
    return tuple(found)


def led(one: PageEntry, attack: str) -> Scores:
    """What is left, under this attack the lowest that all evidence leaves."""
    return {key: one.lead(*key).score if key[0] == attack else s for key, s in one.scores.items()}


def found_less(entries: Sequence[PageEntry], attack: str) -> str:
    """What leaves less than the attack and stands in its place, behind a sentence; or nothing."""
    told = [
        f"{f'{one.label}, ' if len(entries) > 1 else ''}{lead.whence} at {key[1]:g}"
        for one in entries
        for key in one.scores
        if key[0] == attack and (lead := one.lead(*key)).whence
    ]
    if not told:
        return ""
    return f" The numbers count what was found beside {under(attack)}: {listed(told)}."


def remarks_on(entries: Sequence[PageEntry]) -> list[str]:
    """The remarks on all files of the entries, as sentences, each once."""
    return united(
        (entry.label if len(entries) > 1 else "", file.remarks)
        for entry in entries
        for source in entry.sources
        for file in (*source.results.values(), source.distances, source.own_checks)
        if file is not None
    )


def _lacking(score: Score, one: PageEntry) -> str:
    """In brackets of how many seeds a score is, where it is not of all."""
    told = lacking(score, one.scores)
    return f" ({told})" if told else ""


def _noise(size: str, all_scores: Sequence[Scores], attack: str, whom: str) -> str:
    """The noise as the subject of a sentence."""
    if drawn(attack, all_scores):
        return f"Random noise of size {size}"
    return f"Noise of size {size}, chosen against {whom},"


def _of_one(one: PageEntry, attack: str) -> str:
    words = words_of(one.main[0].settings.measure)
    parts = [words.clean(one)]
    radii = radii_told([one.scores], attack)
    tried = [(eps, one.lead(attack, eps)) for eps in radii if (attack, eps) in one.scores]
    tried = [(eps, lead) for eps, lead in tried if lead.score.clean > 0]
    settings = one.main[0].settings
    found = [
        (with_short(eps, settings), lead.score, _lacking(lead.score, one) + _whence(lead))
        for eps, lead in tried
    ]
    if found:
        size = radius_told(tried[0][0], settings)
        noise = _noise(size, [one.scores], attack, "the network")
        parts.append(f"{noise} {words.taken(found)}.")
    parts += words.smallest(one, attack)
    return " ".join(parts)


def _of_classes(entries: Sequence[PageEntry], attack: str) -> list[str]:
    """Sensitivity, classes that are never right, and how sure one network is."""
    if len(entries) > 1:
        named = [(one.label, never_right(one.main, [WITHOUT])) for one in entries]
        return [f"With {label}: {text}" for label, told in named for text in told]
    (one,) = entries
    radii = radii_told([one.scores], attack)
    keys = [WITHOUT, *((attack, eps) for eps in radii[-1:] if (attack, eps) in one.scores)]
    seeds = [results for results in one.main if all(len(results.at(*key)) for key in keys)]
    if not seeds:
        return []
    return [sensitivity(seeds, keys), *never_right(seeds, keys), calibration(seeds, keys)]


def _whence(lead: Lead) -> str:
    return f" (counting what {lead.whence} found)" if lead.whence else ""


def _of_many(entries: Sequence[PageEntry], attack: str) -> str:
    measure = entries[0].main[0].settings.measure
    words = words_of(measure)
    known = [(e.label, e.scores[WITHOUT]) for e in entries if e.scores[WITHOUT].mean >= 0]
    parts = [f"{len(entries)} networks, {_compared(entries)}."]
    if not known:
        return f"{parts[0]} {words.nothing}"
    parts.append(
        f"Without noise, {words.subject} is {words.span(known, len(known) == len(entries))}."
    )
    settings = entries[0].main[0].settings
    all_scores = [one.scores for one in entries]
    for eps in radii_told(all_scores, attack):
        leads = [(one, one.lead(attack, eps)) for one in entries if (attack, eps) in one.scores]
        tried = [(one, lead.score) for one, lead in leads]
        found = [
            (e.label + _lacking(lead.score, e) + _whence(lead), lead.score)
            for e, lead in leads
            if lead.score.mean >= 0
        ]
        if found:
            noise = _noise(radius_told(eps, settings), all_scores, attack, "each network")
            missing = [one.label for one in entries if (attack, eps) not in one.scores]
            everyone = len(found) == len(entries) and not any(_lacking(s, e) for e, s in tried)
            left = words.left(found, everyone)
            others = f"; it was not tried on {listed(missing)}" if missing else ""
            parts.append(f"{noise} leaves {left}{others}.")
    return " ".join(parts)


def _compared(entries: Sequence[PageEntry]) -> str:
    """On how many samples, and with how many seeds."""
    unit, counts = unit_of(entries[0].main[0]), [one.count for one in entries]
    seeds = sorted({seeds_of(one.scores) for one in entries})
    each = f", {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds each"
    on = (
        f"compared on {words_of(entries[0].main[0].settings.measure).tested(entries[0])}"
        if len(set(counts)) == 1
        else f"evaluated on different numbers of {unit}: "
        + listed([f"{one.count} with {one.label}" for one in entries])
    )
    return on + (each if seeds[-1] > 1 else "")


def _caution(entries: Sequence[PageEntry], attack: str) -> str:
    all_scores = [one.scores for one in entries]
    name = entries[0].main[0].settings.measure.name
    if not attack:
        return "No attack was run: this says nothing about noise chosen against a network."
    if drawn(attack, all_scores):
        return (
            "This noise was drawn at random, not chosen against a network; noise that is may break "
            f"far more, so the {name} with noise is an upper bound."
        )
    names = attacks_of(all_scores) if attack == WORST else [attack]
    ran = [attack_name(name) for name in names if name not in (CLEAN, WORST)]
    which = f" by {listed(ran)}" if ran else ""
    return (
        f"The noise was found{which}; a stronger attack may find more, so the {name} with noise "
        "is an upper bound."
    )


def _checked(entries: Sequence[PageEntry]) -> str:
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
        name = entries[0].main[0].settings.measure.name
        return (
            f"{len(raised)} of {len(ran)} trust checks {verb} raised ({'; '.join(titles)}): the "
            f"{name} with noise is probably too high. What to do stands under Trust checks."
        )
    return f"None of the {len(ran)} trust checks that ran is raised." if ran else ""
