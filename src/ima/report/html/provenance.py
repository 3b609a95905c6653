"""How the numbers came about: attacks, samples, versions and the config as run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import yaml

from ima.environments import data_told
from ima.evaluation.results import WORST
from ima.measures import ABSENT
from ima.report.entries import PageEntry
from ima.report.html.blocks import Code, Grid, PageBlock, Prose
from ima.report.html.identity import HOW, told_digests
from ima.report.scores import attacks_of
from ima.report.words import about, attack_name, counted, norm_told

PLACE = ("ima", "commit", "python", "torch", "numpy", "device", "processor", "cores", "threads")

PICKED_OLD = "the geometric mean of clean accuracy and accuracy under PGD-10"
"""What picked the epochs of runs that do not say it: there was one rule then."""

Told: TypeAlias = tuple[str, Sequence[Mapping[str, Any]]]
"""A network's label, and what each of its seeds says of itself."""


def how_measured(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    """Sentences, what the attacks did, where networks come from, and configs folded away."""
    first = entries[0].main[0]
    attacks = attacks_of([one.scores for one in entries])
    text = (
        f"Noise is measured in {norm_told(first.norm)} over all values of a sample, in their units."
    )
    if WORST in attacks:
        measure = first.settings.measure
        text += (
            " “Worst case” counts a sample as wrong when any of the attacks breaks it."
            if measure.binary
            else f" “Worst case” is, for each sample, the lowest {measure.name} that any of the "
            "attacks left at that size of noise."
        )
    blocks: list[PageBlock] = [Prose(text)]
    note = next((str(one.config["note"]) for one in entries if one.config.get("note")), "")
    kept = (told for one in entries for s in one.sources for told in data_told(s.environment))
    notes = dict.fromkeys(one for one in (note, *kept) if one)
    if notes:
        blocks.append(Prose(f"About the data: {' '.join(notes)}"))
    told = [results.settings.attacks for one in entries for results in one.main]
    ran = dict.fromkeys((attack_name(a), one[a]) for a in attacks for one in told if one.get(a))
    if ran:
        blocks.append(Grid("What the attacks ran", ("attack", "what it ran"), tuple(ran), False))
    blocks += _epochs(entries)
    blocks += [_evaluations(entries), *([Prose(HOW)] if told_digests(entries) else [])]
    trained = [(one.label, [s.environment for s in one.sources]) for one in entries]
    blocks += _grid("Where it was trained", PLACE, trained)
    rest = [(one.label, [about(r.settings) for r in one.main]) for one in entries]
    keys = dict.fromkeys(key for _, found in rest for one in found for key in one)
    blocks += _grid("What was evaluated, and where", tuple(keys), rest)
    for one in entries:
        if one.config:
            text = yaml.safe_dump(dict(one.config), sort_keys=False, allow_unicode=True)
            blocks.append(Code(f"Config of {one.label}", text))
    return tuple(blocks)


def _evaluations(entries: Sequence[PageEntry]) -> Grid:
    rows = tuple(
        (
            one.label,
            _each(str(s.seed) for s in one.sources if s.seed is not None),
            _each(map(counted, one.main)),
            _each(r.settings.bounds_told for r in one.main),
            _each("" if r.settings.seed is None else str(r.settings.seed) for r in one.main),
        )
        for one in entries
    )
    columns = ("network", "training seeds", "samples", "bounds", "seed of the attacks")
    return Grid("How it was evaluated", columns, rows, False)


def _epochs(entries: Sequence[PageEntry]) -> tuple[Grid, ...]:
    """Which rule picked which epoch, a row a network; nothing where none is of picked weights."""
    rows = tuple(
        (
            one.label,
            _each(r.settings.epoch for r in one.main),
            _each(r.settings.picked or (PICKED_OLD if one.config else "") for r in one.main),
        )
        for one in entries
        if one.which == "best"
    )
    if all(picked == ABSENT for _, _, picked in rows):
        return ()
    columns = ("network", "epoch", "picked on validation by")
    return (Grid("Which epoch was evaluated", columns, rows, False),)


def _grid(title: str, keys: Sequence[str], found: Sequence[Told]) -> tuple[Grid, ...]:
    """A column for every network, or one where they are alike; nothing where nothing is said."""

    def row(key: str) -> tuple[str, ...]:
        cells = [[str(one[key]) for one in each if one.get(key) is not None] for _, each in found]
        return key, *map(_each, cells)

    said = map(row, keys)
    rows = [row for row in said if set(row[1:]) != {ABSENT}]
    if not rows:
        return ()
    same = all(len(set(row[1:])) == 1 for row in rows)
    whole = found[0][0] if len(found) == 1 else "all networks"
    columns = ("", whole) if same else ("", *(label for label, _ in found))
    return (Grid(title, columns, tuple(r[:2] if same else r for r in rows), False),)


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, values))) or ABSENT
