"""The tables of what noise leaves: one network in detail, or several beside each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from ima.evaluation.remarks import capital
from ima.evaluation.results import CLEAN
from ima.measures import ABSENT, Measure
from ima.report.cells import Average, Cell, best_of
from ima.report.classes import sensitivity
from ima.report.entries import PageEntry
from ima.report.html.blocks import Grid, PageBlock, Prose, Two
from ima.report.scores import (
    WITHOUT,
    flipped,
    headline,
    lacking,
    part_scores,
    radial,
    radii_told,
    scores,
)
from ima.report.sources import WEIGHTS
from ima.report.style import norm_name
from ima.report.summary import (
    MOST_CLASSES,
    Rows,
    class_table,
    column_of,
    counts,
    notes,
    score_columns,
    unit_told,
)
from ima.report.words import attack_name, draws, sized, told_cases

WIDEST = 7
"""So many columns of numbers fit beside each other."""

TITLES = {
    "best": "Weights of the epoch that validation picked",
    "last": "Weights of the last epoch",
    "results": "All results",
}


def score_tables(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    """A table for each set of weights, the main one first, then what they mean."""
    # Networks are compared by their main weights, whichever these are.
    made = _table(entries, entry_rows(entries), {one.which for one in entries})
    for which in dict.fromkeys(w for one in entries for w in one.sources[0].results):
        others = [(one.label, one.results(which)) for one in entries if which != one.which]
        others = [(label, seeds) for label, seeds in others if seeds]
        if others:
            made += _table(entries, others, [which])
    return (*made, Prose(_note(entries)), *_white(entries))


def class_tables(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
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
    table = class_table(entry_rows(entries), MOST_CLASSES, keys, page=True)
    if table is None:
        return ()
    cells = tuple(tuple(map(_two, row)) for row in table.rows)
    grid = Grid(table.caption, table.columns, cells)
    if len({name for one in entries for r in one.main for name in r.classes}) != 2 or (
        measure.column or not measure.binary
    ):
        return (grid,)
    said = [sensitivity(one.main, keys) for one in entries]
    if all(said):
        named = zip(entries, said, strict=True)
        return (grid, *(Prose(f"{one.label}: {text}") for one, text in named))
    said = "Of two classes, the accuracy of one is the sensitivity, of the other the specificity."
    return (grid, Prose(f"{said} Say which one is looked for with `--positive NAME`."))


def _two(cell: Cell, best: bool = False) -> str | Two:
    """A table's cell on a page."""
    return cell if isinstance(cell, str) else Two(str(cell), cell.small, best)


def entry_rows(entries: Sequence[PageEntry]) -> Rows:
    """The networks as tables take them."""
    return [(one.label, one.main) for one in entries]


def measure_of(entries: Sequence[PageEntry]) -> Measure:
    """What the networks of a page were measured by."""
    return entries[0].main[0].settings.measure


def _table(entries: Sequence[PageEntry], rows: Rows, weights: Collection[str]) -> list[Grid]:
    which = next(iter(weights)) if len(weights) == 1 else ""
    # Only a run tells that these are all results of it.
    known = which in WEIGHTS or (which and any(one.config for one in entries))
    measure, norm = measure_of(entries), norm_name(entries[0].main[0].norm)
    what = f"{measure.title} ({measure.short})" if measure.short else measure.name
    title = f"{TITLES[which]}: " if known else "" if measure.short else f"{capital(measure.name)}: "
    caption = f"{title}{what}{unit_told(measure)}, noise in {norm}"
    return [_of_one(rows, caption)] if len(entries) == 1 else _of_many(rows, caption)


def _of_one(rows: Rows, caption: str) -> Grid:
    ((_, seeds),) = rows
    of_one, results = scores(seeds), seeds[0]
    measure = results.settings.measure
    parted = measure.over == "parts" and 1 < len(results.classes) <= WIDEST
    parts = results.classes if parted else ()
    whole = (f"all {measure.parts}",) if "present" in results.columns else ()
    lines: list[tuple[str, ...]] = []
    # What white noise flips has a table of its own.
    for key in [WITHOUT, *radial([of_one])] if measure.binary else of_one:
        one, said = of_one[key], lacking(of_one[key], of_one)
        name = attack_name(CLEAN) if key == WITHOUT else column_of(key, rows, page=True)
        line = [f"{name} ({said})" if said else name, str(one), one.within, str(one.n)]
        of_parts = part_scores(seeds, *key) if parts else {}
        line += [str(of_parts.get(part, ABSENT)) for part in parts]
        lines.append((*line, *(measure.write(one.whole) for _ in whole)))
    head = measure.short or measure.name
    columns = ("noise", head, "95 % interval", "n", *parts, *(f"{head}, {w}" for w in whole))
    return Grid(caption, columns, tuple(lines))


def _of_many(rows: Rows, caption: str) -> list[Grid]:
    """Networks in rows; several tables, each of whole attacks, where one would be too wide."""
    found = [(label, scores(seeds)) for label, seeds in rows]
    clean, *others = score_columns(found, rows, page=True)
    parts = [[clean]]
    for _, columns in groupby(sorted(others, key=lambda c: c.block != ""), lambda c: c.block):
        new = list(columns)
        if len(parts[-1]) > 1 and len(parts[-1]) + len(new) > WIDEST:
            parts.append([clean])
        parts[-1] += new
    counts = [str(of_one[WITHOUT].n) if WITHOUT in of_one else "0" for _, of_one in found]
    grids: list[Grid] = []
    for number, part in enumerate(parts):
        cells = [_column(column.cells) for column in part]
        lines = zip([label for label, _ in found], counts, *cells, strict=True)
        said = f"{caption} (continued)" if number else caption
        heads = ("network", "n", *(column.head for column in part))
        grids.append(Grid(said, heads, tuple(lines)))
    return grids


def _column(cells: Sequence[Average]) -> list[str | Two]:
    best = best_of(cells)
    return [ABSENT if c.absent else _two(c, number in best) for number, c in enumerate(cells)]


def _note(entries: Sequence[PageEntry]) -> str:
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
    said = [
        "A sample that is wrong without noise counts as wrong under every attack. Intervals: 95 %, "
        "Wilson; they say how much a test set of this size leaves open."
        if measure.binary
        else f"n = {counts(entry_rows(entries))}. Intervals: 95 %, from how much the cases differ; "
        "too narrow for few cases."
    ]
    return " ".join([*notes(entry_rows(entries)), *said]) + spread + " " + told_cases(results)


def _white(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
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
            cells = [ABSENT if s is None else Two(str(s), s.within) for s in found.values()]
            rows.append((one.label, right, *cells))
    caption = (
        f"White noise, uniform in {' or '.join(sizes)} on every entry: percent that become wrong, "
        "of the n samples that are right without it"
    )
    columns = ("network", "n", *(f"in {draws(name)}" for name in names))
    return (Grid(caption, columns, tuple(rows)),)
