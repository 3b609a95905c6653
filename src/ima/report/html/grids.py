"""The tables of what noise leaves: one network in detail, or several beside each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from ima.evaluation.results import CLEAN
from ima.measures import ABSENT, Measure
from ima.report.entries import Entry
from ima.report.html.blocks import Block, Grid, Prose, Two
from ima.report.scores import (
    WITHOUT,
    Key,
    Score,
    Scores,
    average,
    flipped,
    headline,
    keys_of,
    kind_of,
    lacking,
    radial,
    radii_told,
    scores,
)
from ima.report.sources import WEIGHTS
from ima.report.style import norm_name
from ima.report.summary import (
    AVERAGED,
    MOST,
    class_lines,
    column_of,
    lowest,
    noise_told,
)
from ima.report.words import attack_name, capital, convention, counted, draws, sized, told_cases

WIDEST = 7
"""So many columns of numbers fit beside each other."""

TITLES = {
    "best": "Weights of the epoch that validation picked",
    "last": "Weights of the last epoch",
    "results": "All results",
}

Found = Sequence[tuple[str, Scores]]


def tables(entries: Sequence[Entry]) -> tuple[Block, ...]:
    """A table for each set of weights, the main one first, then what they mean."""
    first = [(one.label, one.scores) for one in entries]
    made: list[Block] = []
    # Networks are compared by their main weights, whichever these are.
    main = dict.fromkeys(one.which for one in entries)
    made += _table(entries, first, main)
    for which in dict.fromkeys(w for one in entries for w in one.sources[0].results):
        others = [(e.label, scores(e.results(which))) for e in entries if which != e.which]
        others = [(label, of_one) for label, of_one in others if of_one]
        if others:
            made += _table(entries, others, [which])
    return (*made, Prose(_note(entries)), *_white(entries))


def class_tables(entries: Sequence[Entry]) -> tuple[Block, ...]:
    """A table with a line for each class of each network; nothing for data of one class.

    A sentence where labels are no classes, as with a task of a user's own they can be.
    """
    measure = measure_of(entries)
    if not any(results.classes for one in entries for results in one.main):
        text = f"The labels are no classes: there is no {measure.name} by class."
        return (Prose(text),) if measure.binary else ()
    all_scores = [one.scores for one in entries]
    attack = headline(all_scores)
    keys = [WITHOUT, *((attack, eps) for eps in radii_told(all_scores, attack))]
    lines, names = class_lines([(one.label, one.main) for one in entries], keys)
    if len(names) < 2:
        return ()
    rows = tuple(
        (label, str(n), *(ABSENT if one is None else Two(str(one), one.within) for one in cells))
        for label, n, cells, _ in lowest(lines, MOST)
    )
    caption = f"{capital(measure.name)} by {measure.part}{_unit(measure)}{_noise(entries, attack)}"
    caption += f": the {MOST} lowest of {len(lines)}" if len(lines) > MOST else ""
    columns = (measure.part, "n", *(_head(key, entries) for key in keys))
    grid = Grid(caption, columns, rows)
    if len(names) > 2 or measure.column or not measure.binary:
        return (grid,)
    said = "Of two classes, the accuracy of one is the sensitivity, of the other the specificity."
    return (grid, Prose(said))


def measure_of(entries: Sequence[Entry]) -> Measure:
    """What the networks of a page were measured by."""
    return entries[0].main[0].settings.measure


def _unit(measure: Measure) -> str:
    return " in percent" if measure.percent else ", 0 to 1"


def _noise(entries: Sequence[Entry], attack: str = CLEAN) -> str:
    return f", noise in {norm_name(entries[0].main[0].norm)}" if attack else ""


def _table(entries: Sequence[Entry], found: Found, weights: Collection[str]) -> list[Grid]:
    which = next(iter(weights)) if len(weights) == 1 else ""
    # Only a run tells that these are all results of it.
    known = which in WEIGHTS or (which and any(one.config for one in entries))
    measure = measure_of(entries)
    title = TITLES[which] if known else capital(measure.name)
    caption = f"{title}: {_called(measure)}{_unit(measure)}{_noise(entries)}"
    return (_of_one if len(entries) == 1 else _of_many)(entries, found, caption)


def _called(measure: Measure) -> str:
    return f"{measure.title} ({measure.short})" if measure.short else measure.name


def _shown(found: Found, measure: Measure) -> list[Key]:
    all_scores = [of_one for _, of_one in found]
    # What white noise flips has a table of its own.
    return [WITHOUT, *radial(all_scores)] if measure.binary else keys_of(all_scores)


def _of_one(entries: Sequence[Entry], found: Found, caption: str) -> list[Grid]:
    ((_, of_one),) = found
    measure, results = measure_of(entries), entries[0].main[0]
    parted = measure.over == "parts" and 1 < len(results.classes) <= WIDEST
    parts = results.classes if parted else ()
    whole = (f"all {measure.parts}",) if "present" in results.columns else ()
    rows: list[tuple[str, ...]] = []
    for key in _shown(found, measure):
        one = of_one[key]
        name = _head(key, entries) if key != WITHOUT else attack_name(CLEAN)
        said = lacking(one, of_one)
        row = [f"{name} ({said})" if said else name, str(one), one.within, str(one.n)]
        if parts:
            lines, _ = class_lines([("", entries[0].main)], [key])
            by_name = {label: str(cell) for label, _, (cell,), _ in lines}
            row += [by_name.get(part, ABSENT) for part in parts]
        rows.append((*row, *(measure.write(one.whole) for _ in whole)))
    head = measure.short or measure.name
    columns = ("noise", head, "95 % interval", "n", *parts, *(f"{head}, {w}" for w in whole))
    return [Grid(caption, columns, tuple(rows))]


def _of_many(entries: Sequence[Entry], found: Found, caption: str) -> list[Grid]:
    """Networks in rows; several tables, each of whole attacks, where one would be too wide."""
    measure = measure_of(entries)
    all_scores = [of_one for _, of_one in found]
    keys = _shown(found, measure)[1:]
    first: list[tuple[str, list[str | Two]]] = [("clean", _column(found, WITHOUT))]
    if "present" in entries[0].main[0].columns:
        whole = [of_one[WITHOUT].whole if WITHOUT in of_one else None for of_one in all_scores]
        first.append((f"clean, all {measure.parts}", _best(whole, measure)))
    parts: list[list[tuple[str, list[str | Two]]]] = [first]
    for _, of_attack in groupby(keys, key=lambda key: key[0]):
        new = [(_head(key, entries), _column(found, key)) for key in of_attack]
        if len(parts[-1]) > 1 and len(parts[-1]) + len(new) > WIDEST:
            parts.append(first[:1])
        parts[-1] = [*parts[-1], *new]
    if not measure.binary:
        means = [average(of_one, all_scores) for of_one in all_scores]
        parts[-1].append(("average", _best(means, measure)))
    grids: list[Grid] = []
    for number, part in enumerate(parts):
        n = [str(of_one[WITHOUT].n) if WITHOUT in of_one else "0" for of_one in all_scores]
        cells = zip(*(column for _, column in part), strict=True)
        labels = [label for label, _ in found]
        rows = tuple((label, m, *row) for label, m, row in zip(labels, n, cells, strict=True))
        said = f"{caption} (continued)" if number else caption
        grids.append(Grid(said, ("network", "n", *(head for head, _ in part)), rows))
    return grids


def _column(found: Found, key: Key) -> list[str | Two]:
    """What noise leaves of each network, the highest number as the best unless all are alike."""
    cells: list[str | Two] = []
    known = {of_one[key].shown for _, of_one in found if key in of_one} - {ABSENT}
    top = max(known, key=float) if len(known) > 1 else ""
    for _, of_one in found:
        one = of_one.get(key)
        small = "" if one is None else ", ".join(filter(None, [one.within, lacking(one, of_one)]))
        cells.append(ABSENT if one is None else Two(str(one), small, one.shown == top))
    return cells


def _best(values: Sequence[float | None], measure: Measure) -> list[str | Two]:
    shown = [ABSENT if value is None else measure.write(value) for value in values]
    known = set(shown) - {ABSENT}
    top = max(known, key=float) if len(known) > 1 else ""
    return [Two(text, "", text == top) for text in shown]


def _head(key: Key, entries: Sequence[Entry]) -> str:
    attack, _ = key
    if attack == CLEAN:
        return CLEAN
    return column_of(key, [(one.label, one.main) for one in entries]).replace(
        attack, attack_name(attack), 1
    )


def _note(entries: Sequence[Entry]) -> str:
    measure, results = measure_of(entries), [r for one in entries for r in one.main]
    several = max(one.seeds for entry in entries for one in entry.scores.values()) > 1
    alike = all(one.count.isdigit() for one in entries)
    number = "number of samples, which all seeds share" if alike else "smallest number of samples"
    spread = (
        " ± is the standard deviation over seeds; the interval is that of the mean for the "
        f"{number}."
        if several
        else ""
    )
    said: list[str] = []
    if measure.binary:
        said.append(
            "A sample that is wrong without noise counts as wrong under every attack. Intervals: "
            "95 %, Wilson; they say how much a test set of this size leaves open."
        )
    else:
        if measure.defined:
            said.append(f"{measure.defined}.")
        if text := convention(results[0]):
            said.append(f"The convention: {text}.")
        if "present" in results[0].columns:
            said.append(
                f"“All {measure.parts}” counts only samples whose truth holds every {measure.part}."
            )
        if len(entries) > 1:
            said.append(f"“Average” is {AVERAGED}.")
        said += noise_told([(one.label, one.main) for one in entries])
        if any(kind_of(a, [one.scores]) == "drawn" for one in entries for a, _ in one.scores):
            said.append(
                f"“noise” is the lowest {measure.name} of so many random points of at most that "
                "size."
            )
        said.append(
            f"n = {' or '.join(dict.fromkeys(map(counted, results)))}. Intervals: 95 %, from how "
            "much the cases differ; too narrow for few cases."
        )
    return " ".join([*said]) + spread + " " + told_cases(results)


def _white(entries: Sequence[Entry]) -> tuple[Block, ...]:
    """What white noise flips, a row a network; nothing where none was tried, or nothing flips."""
    every = [results for one in entries for results in one.main]
    names = dict.fromkeys(name for results in every for name in results.white)
    if not names or not measure_of(entries).binary:
        return ()
    sizes = dict.fromkeys(sized(r.amplitude(name), r.settings) for r in every for name in r.white)
    rows: list[tuple[str | Two, ...]] = []
    for one in entries:
        found = {name: flipped(one.main, name) for name in names}
        having = [r.flips(name) for r in one.main for name in r.white]
        if having:
            right = str(min(map(len, having)))
            rows.append((one.label, right, *(_flips(score) for score in found.values())))
    caption = (
        f"White noise, uniform in {' or '.join(sizes)} on every entry: percent that become wrong, "
        "of the n samples that are right without it"
    )
    columns = ("network", "n", *(f"in {draws(name)}" for name in names))
    return (Grid(caption, columns, tuple(rows)),)


def _flips(one: Score | None) -> str | Two:
    return ABSENT if one is None else Two(str(one), one.within)
