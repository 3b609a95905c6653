"""How the numbers came about: attacks, samples, versions and the config as run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import yaml

from ima.environments import data_told
from ima.evaluation.remarks import REMARKS
from ima.evaluation.results import (
    CLASSES,
    CLEAN,
    EPOCH,
    FILE,
    NETWORK,
    PICKED,
    PICKED_OLD,
    Results,
)
from ima.report.html.blocks import Block, Code, Grid, Prose
from ima.report.html.numbers import WORST, attack_name, attacks_of, named
from ima.report.html.scrub import scrub
from ima.report.html.verdict import Judged

PLACE = ("ima", "commit", "python", "torch", "numpy", "device", "processor", "cores", "threads")
ABSENT = "–"

APART = (
    NETWORK,
    FILE,
    CLASSES,
    EPOCH,
    PICKED,
    REMARKS,
    "samples",
    "part",
    "seed",
    "seconds",
    "bounds",
)
"""Settings of an evaluation that the page shows elsewhere, or that nobody reads."""

Told: TypeAlias = tuple[str, Sequence[Mapping[str, Any]]]
"""A network's label, and what each of its seeds says of itself."""


def how_measured(judged: Sequence[Judged]) -> tuple[Block, ...]:
    """Sentences, what the attacks did, where networks come from, and configs folded away."""
    first = judged[0].entry.main[0]
    attacks = attacks_of([one.scores for one in judged])
    text = f"Noise is measured in {named(first.norm)} over all values of a sample, in their units."
    if WORST in attacks:
        text += " “Worst case” counts a sample as wrong when any of the attacks breaks it."
    blocks: list[Block] = [Prose(text)]
    note = next(
        (str(one.entry.config["note"]) for one in judged if one.entry.config.get("note")), ""
    )
    kept = (told for one in judged for s in one.entry.sources for told in data_told(s.environment))
    notes = dict.fromkeys(one for one in (note, *kept) if one)
    if notes:
        blocks.append(Prose(f"About the data: {' '.join(notes)}"))
    told = [results.settings for one in judged for results in one.entry.main]
    ran = dict.fromkeys((attack_name(a), one[a]) for a in attacks for one in told if a in one)
    if ran:
        blocks.append(Grid("What the attacks ran", ("attack", "what it ran"), tuple(ran), False))
    blocks += _epochs(judged)
    blocks.append(_evaluations(judged))
    trained = [(one.entry.label, [s.environment for s in one.entry.sources]) for one in judged]
    blocks += _grid("Where it was trained", PLACE, trained)
    rest = [(one.entry.label, [_rest(r) for r in one.entry.main]) for one in judged]
    keys = dict.fromkeys(key for _, found in rest for one in found for key in one)
    blocks += _grid("What was evaluated, and where", tuple(keys), rest)
    for one in judged:
        if one.entry.config:
            text = yaml.safe_dump(dict(one.entry.config), sort_keys=False, allow_unicode=True)
            blocks.append(Code(f"Config of {one.entry.label}", text))
    return tuple(blocks)


def _evaluations(judged: Sequence[Judged]) -> Grid:
    rows = tuple(
        (
            one.entry.label,
            _each(str(s.seed) for s in one.entry.sources if s.seed is not None),
            _each(_samples(r, one.scores[CLEAN, 0.0].n) for r in one.entry.main),
            _each(r.settings.get("bounds", "") for r in one.entry.main),
            _each(r.settings.get("seed", "") for r in one.entry.main),
        )
        for one in judged
    )
    samples = f"{judged[0].part} samples"
    columns = ("network", "training seeds", samples, "bounds", "seed of the attacks")
    return Grid("How it was evaluated", columns, rows, False)


def _epochs(judged: Sequence[Judged]) -> tuple[Grid, ...]:
    """Which rule picked which epoch, a row a network; nothing where none is of picked weights."""
    rows = tuple(
        (
            one.entry.label,
            _each(r.settings.get(EPOCH, "") for r in one.entry.main),
            _each(r.settings.get(PICKED, old) for r in one.entry.main),
        )
        for one in judged
        if one.entry.which == "best"
        for old in [PICKED_OLD if one.entry.config else ""]
    )
    if all(picked == ABSENT for _, _, picked in rows):
        return ()
    columns = ("network", "epoch", "picked on validation by")
    return (Grid("Which epoch was evaluated", columns, rows, False),)


def _samples(results: Results, n: int) -> str:
    """How many of how many samples; those that are all are no share."""
    had, of, total = results.settings.get("samples", str(n)).partition(" of ")
    return had if had == total else had + of + total


def _rest(results: Results) -> dict[str, str]:
    """What else an evaluation says of itself: of a network from elsewhere, what was loaded."""
    known = {*results.attacks, *results.white, *APART}
    return {key: str(scrub(one)) for key, one in results.settings.items() if key not in known}


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
