"""From results to tables and curves: pure functions of the rows that an evaluation wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ima.evaluation.remarks import capital, united
from ima.evaluation.results import CLEAN, WORST, Results
from ima.measures import Measure
from ima.report.cells import Average, Cell, Table
from ima.report.entries import check_comparable
from ima.report.scores import (
    WITHOUT,
    NoiseKey,
    Score,
    Scores,
    Seeds,
    average,
    keys_of,
    lacking,
    noise_kind,
    part_scores,
    scores,
    seeds_of,
)
from ima.report.style import norm_name
from ima.report.words import attack_name, convention, counted, sized

Rows = Sequence[tuple[str, Seeds]]
"""Labels, and the results of each network, one for each seed; none where training diverged."""

NamedScores = Sequence[tuple[str, Scores]]

ALL, AVERAGE = "clean, all {}", "average"
"""Columns: over samples that hold every part, and the mean of others."""

AVERAGED = "over clean and all attacks at all radii, without the worst case and noise that is drawn"

MOST_CLASSES = 24
"""So many lines are shown by class; where there are more, those that noise breaks most."""


def tables_of(rows: Rows, note: str = "") -> list[Table]:
    """The main table, and that of the classes where there are several, whatever the measure.

    note: on the data, for the caption. Raises ValueError for results that do not belong together.
    """
    by_class = class_table(rows, MOST_CLASSES)
    return [results_table(rows, note), *([] if by_class is None else [by_class])]


def results_table(rows: Rows, note: str = "") -> Table:
    """One row a network: what is left without noise, and under each attack at each radius.

    A row without results, of a training that diverged, is absent; so is what not all seeds have.
    Where samples tell how many parts they hold, `clean, all classes` counts those with every one;
    where qualities are no shares of right ones, `average` is the mean of clean and of all attacks.
    """
    check_rows(rows)
    first, found = _first(rows), [(label, scores(seeds)) for label, seeds in rows]
    columns = score_columns(found, rows)
    lines = zip(*(column.cells for column in columns), strict=True)
    body = tuple((label, *cells) for (label, _), cells in zip(rows, lines, strict=True))
    blocks = [column.block for column in columns]
    # The average stands with the last attack.
    blocks[-1] = blocks[-1] or blocks[-2:][0]
    where = f"Noise in {norm_name(first.norm)}, n = {counts(rows)}."
    caption = " ".join(filter(None, [where, *notes(rows), note, *row_remarks(rows)]))
    return Table(("method", *(c.head for c in columns)), body, caption, tuple(blocks))


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, the attack that it belongs to, a cell for each network."""

    head: str
    block: str
    cells: Sequence[Average]


def score_columns(found: NamedScores, rows: Rows, *, page: bool = False) -> list[Column]:
    """Clean, each attack at each radius, and the means where there are some.

    rows: whose scores these are; page: heads as people write them, and no cell is absent because
    some seeds lack it.
    """
    first, all_scores = _first(rows), [of_one for _, of_one in found]
    measure = first.settings.measure
    columns: list[Column] = []
    for key in keys_of(all_scores):
        # What white noise flips is told apart.
        if measure.binary and noise_kind(key[0], all_scores) == "white":
            continue
        cells = [cell_of(of_one.get(key), of_one, measure, page=page) for of_one in all_scores]
        block = key[0] if key != WITHOUT else ""
        columns.append(Column(column_of(key, rows, page=page), block, cells))
    if "present" in first.columns:
        whole = [of_one[WITHOUT].whole if WITHOUT in of_one else math.nan for of_one in all_scores]
        cells = [Average(value, measure=measure) for value in whole]
        columns.insert(1, Column(ALL.format(measure.parts), "", cells))
    if not measure.binary:
        known = [of_one for of_one in all_scores if of_one]
        cells = [Average(average(of_one, known), measure=measure) for of_one in all_scores]
        columns.append(Column(AVERAGE, "", cells))
    return columns


def class_table(
    rows: Rows, most: int | None = None, keys: Sequence[NoiseKey] = (), *, page: bool = False
) -> Table | None:
    """A line for each class, or part, of each network; None where there are fewer than two.

    most: so many lines, those that noise breaks most; keys: attacks and radii, all if empty; page:
    as in `score_columns`.
    """
    check_rows(rows)
    first, known = _first(rows), [(label, seeds) for label, seeds in rows if seeds]
    measure, all_scores = first.settings.measure, [scores(seeds) for _, seeds in known]
    keys = keys or [k for k in keys_of(all_scores) if noise_kind(k[0], all_scores) != "white"]
    names: dict[str, None] = {}
    lines: list[tuple[Cell, ...]] = []
    for (label, seeds), of_one in zip(known, all_scores, strict=True):
        found = [part_scores(seeds, *key) for key in keys]
        for name, clean in found[0].items():
            names[name] = None
            who = f"{label}: {name}" if len(rows) > 1 else name
            cells = [cell_of(of_key.get(name), of_one, measure, page=page) for of_key in found]
            lines.append((who, str(clean.n), *cells))
    if len(names) < 2:
        return None
    total = len(lines)
    if most is not None and total > most:
        lines = sorted(lines, key=lambda line: sum(c.mean for c in _known(line)))[:most]
    noise = f", noise in {norm_name(first.norm)}" if len(keys) > 1 else ""
    caption = f"{capital(measure.name)} by {measure.part}{unit_told(measure)}{noise}"
    caption += f": the {len(lines)} lowest of {total}" if len(lines) < total else ""
    heads = (measure.part, "n", *(column_of(key, rows, page=page) for key in keys))
    blocks = ("", "", *(attack for attack, _ in keys[1:]))
    said = caption if page else " ".join([f"{caption}.", *row_remarks(rows)])
    # Classes are not rivals.
    return Table(heads, tuple(lines), said, blocks, ranked=False)


def _known(line: Sequence[Cell]) -> list[Average]:
    return [cell for cell in line if isinstance(cell, Average) and not cell.absent]


def cell_of(one: Score | None, of_one: Scores, measure: Measure, *, page: bool) -> Average:
    """A table's cell; absent where it was not measured, for a page only if by no seed."""
    if one is None or (one.seeds < seeds_of(of_one) and not page):
        return Average(math.nan, measure=measure)
    small = ", ".join(filter(None, [one.within, lacking(one, of_one)]))
    return Average(one.mean, one.std, one.seeds, one.measure, small)


def column_of(key: NoiseKey, rows: Rows, *, page: bool = False) -> str:
    """An attack and its radius, or the amplitudes of white noise, as a table's column."""
    attack, eps = key
    every = [results for _, seeds in rows for results in seeds]
    sizes = dict.fromkeys(sized(eps, r.settings) for r in every if attack in r.white)
    name = attack_name(attack) if page and eps else attack
    return f"{name} at {' or '.join(sizes) or f'{eps:g}'}" if eps else name


def unit_told(measure: Measure) -> str:
    """The unit of a table, behind what it shows."""
    return " in percent" if measure.percent else ", 0 to 1"


def counts(rows: Rows) -> str:
    """How many samples were tested, such as `540 test samples`."""
    return " or ".join(dict.fromkeys(counted(r) for _, seeds in rows for r in seeds))


def notes(rows: Rows) -> list[str]:
    """What the numbers are where they are no shares of right samples, as sentences."""
    first, results = _first(rows), [r for _, seeds in rows for r in seeds]
    measure, said = first.settings.measure, list[str]()
    if measure.defined:
        said.append(f"{measure.defined}.")
    if text := convention(first):
        said.append(f"Convention: {text}.")
    if "present" in first.columns:
        all_parts = ALL.format(measure.parts)
        said.append(f"“{all_parts}” counts only samples whose truth holds every {measure.part}.")
    if measure.binary:
        return said
    said.append(f"“{AVERAGE}” is {AVERAGED}.")
    if any(WORST in r.attacks for r in results):
        parts = f"; its average over {measure.parts} may lie a little above one attack's"
        said.append(
            "The worst case takes for each sample the attack that leaves the lowest "
            f"{measure.name} of the sample{parts if measure.over == 'parts' else ''}."
        )
    if any("drawn" in r.columns["kind"] for r in results):
        said.append(
            f"“noise” is the lowest {measure.name} of so many random points of at most that size."
        )
    if any(r.white for r in results):
        said.append("White noise is uniform in ± the amplitude named, the worst of so many draws.")
    return said


def row_remarks(rows: Rows) -> list[str]:
    """What leaves the figures in doubt, as sentences."""
    return united(
        (label if len(rows) > 1 else "", r.remarks) for label, seeds in rows for r in seeds
    )


def check_rows(rows: Rows) -> None:
    """Raise ValueError for results that do not belong into one table."""
    if not any(seeds for _, seeds in rows):
        raise ValueError("runs is empty, expected one evaluation or more")
    labels = [label for label, _ in rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"several runs are labelled {twice}; give distinct labels")
    found = [(label, results) for label, seeds in rows for results in seeds]
    for label, results in found:
        if not len(results.at(CLEAN)):
            raise ValueError(f"the results of {label} hold no clean pass; evaluate again")
    check_comparable([(label, results, {}) for label, results in found])


def times_table(rows: Sequence[tuple[str, Sequence[float]]], standard: str, caption: str) -> Table:
    """One row a method: the median of its epochs' seconds, and how often that of `standard`.

    standard: a row's label, or empty for no such column.
    """
    medians = {label: float(np.median(seconds)) for label, seconds in rows}
    lines: list[tuple[Cell, ...]] = []
    for label, median in medians.items():
        ratio = (f"{median / medians[standard]:.1f}",) if standard else ()
        lines.append((label, _three_digits(median), *ratio))
    against = (f"times {standard}",) if standard else ()
    return Table(("method", "seconds per epoch", *against), tuple(lines), caption)


def _three_digits(value: float) -> str:
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, decimals)}f}"


def _first(rows: Rows) -> Results:
    return next(results for _, seeds in rows for results in seeds)
