"""From evaluations of segmentation networks to the page: its sections, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ima.evaluation.results import CLEAN, is_white
from ima.evaluation.segmentation_results import WORST
from ima.report.cases import told_cases
from ima.report.cells import ABSENT
from ima.report.html import charts, sources
from ima.report.html.blocks import Block, Chart, Grid, Page, Prose, Section, Two
from ima.report.html.checks import checks_of, scrubbed
from ima.report.html.doubts import said
from ima.report.html.numbers import attack_name, named
from ima.report.html.scrub import scrub
from ima.report.html.segmentation_verdict import Seen, doubts, interval, sentences, tiles
from ima.report.html.slices import overlays
from ima.report.segmentation import (
    ALL,
    APART,
    AVERAGE,
    AVERAGED,
    DEFINED,
    PICKED,
    average,
    of_width,
    size,
    under,
    white_told,
)
from ima.report.segmented import (
    Key,
    Segmented,
    aimed,
    checked,
    count,
    empties,
    find,
    headline,
    keys_of,
    labelled,
    radii,
    shown,
)
from ima.report.style import norm_name

NO_CHECKS = (
    "No trust checks were run. They look for signs that attacks were weaker than they could be; a "
    "network that is given by its weights has them with `ima evaluate WEIGHTS ... --checks`."
)
CHECKED = (
    "Each check looks for a sign that the Dice with noise is too high to be true. A sample counts "
    "as right where its Dice is above 0.6, and as broken where noise takes it below."
)

Line: TypeAlias = tuple[str, Callable[[Seen], tuple[float, str]]]
"""A kind of noise, and from a network its value there and how sure that is."""


def read(paths: Sequence[Path]) -> list[Segmented]:
    """The segmentation networks in these folders and files; none where all are of another kind.

    Raises ValueError where both kinds are there, and for damaged files.
    """
    found = {path: find(path) for path in paths}
    if not any(found.values()):
        return []
    other = [path for path, files in found.items() if not files or sources.holds(path)]
    if other:
        first = next(path for path, files in found.items() if files)
        raise ValueError(
            f"{first} holds an evaluation of a segmentation network and {other[0]} does not, or "
            "one of classification as well; make a page for each kind, and name only its folders"
        )
    files = dict.fromkeys(file.resolve() for each in found.values() for file in each)
    return labelled([Segmented.open(file) for file in files])


def build(runs: Sequence[Segmented]) -> Page:
    """The page of some segmentation networks, the same on every call."""
    checked([run.run for run in runs])
    seen = [Seen.of(run) for run in runs]
    first = runs[0].results
    data = re.sub(r"^Dataset\d+_", "", first.settings.get("dataset", ""))
    who = runs[0].label if len(runs) == 1 else f"{len(runs)} segmentation networks"
    sections = [
        Section("accuracy", "Dice with and without noise", _dice(seen)),
        Section("checks", "Trust checks", _checks(runs)),
        Section("slices", "Slices with noise", overlays(runs)),
        Section("method", "How this was measured", _how(seen)),
    ]
    return Page(
        f"What noise breaks {who}{f' on {data}' if data else ''}",
        sentences(seen),
        tiles(seen),
        tuple(section for section in sections if section.blocks),
    )


def _checks(runs: Sequence[Segmented]) -> tuple[Block, ...]:
    found = [(run.label, None if run.checks is None else scrubbed(run.checks)) for run in runs]
    return checks_of(found, NO_CHECKS, CHECKED)


def _dice(seen: Sequence[Seen]) -> tuple[Block, ...]:
    first = seen[0].run.results
    blocks: list[Block] = []
    if headline([one.scores for one in seen]):
        blocks.append(_curves(seen))
    blocks += [_of_one(seen[0])] if len(seen) == 1 else _of_many(seen)
    attacks = {attack for one in seen for attack, _ in one.scores}
    text = (
        f"{DEFINED}. The convention: {empties(first)}. “All classes” counts only samples whose "
        "truth holds every foreground class. Intervals: 95 %, from how much the cases differ, as "
        "slices of one case are alike; too narrow for few cases. "
        + told_cases([one.run.results for one in seen])
    )
    if len(seen) > 1:
        text += f" “Average” is {AVERAGED}."
    if WORST in attacks:
        text += f" {PICKED}"
    if any(attack.startswith("noise-") for attack in attacks):
        text += " “noise” is the lowest Dice of so many random points of at most that size."
    if any(map(is_white, attacks)):
        text += f" {white_told([one.run.run for one in seen])}"
    return (*said(doubts(seen)), *blocks, Prose(text))


def _curves(seen: Sequence[Seen]) -> Chart:
    all_scores = [one.scores for one in seen]
    norm = norm_name(seen[0].run.results.norm)
    if len(seen) == 1:
        attacks = list(dict.fromkeys(a for a, _ in keys_of(all_scores) if aimed(a)))
        drawn = [(attack_name(attack), seen[0], attack) for attack in attacks]
        what, eps = "one line an attack", sorted({e for a in attacks for e in radii(all_scores, a)})
    else:
        attack = headline(all_scores)
        drawn = [(one.run.label, one, attack) for one in seen]
        what, eps = f"one line a network, under {under(attack)}", radii(all_scores, attack)
    lines: list[charts.Line] = []
    rows: list[tuple[str, ...]] = []
    for label, one, attack in drawn:
        keys: list[Key] = [(attack if e else CLEAN, e) for e in (0.0, *eps)]
        known = [(key[1], one.scores[key]) for key in keys if key in one.scores]
        lines.append(
            charts.Line(
                label,
                np.array([e for e, _ in known]),
                np.array([score.adi for _, score in known]),
                np.array([score.interval[0] for _, score in known]),
                np.array([score.interval[1] for _, score in known]),
            )
        )
        cells = (shown(one.scores[k].adi) if k in one.scores else "–" for k in keys)
        rows.append((label, *cells))
    columns = ("", "clean", *(f"ε = {e:g}" for e in eps))
    title = "Average Dice index over the size of the noise"
    about = f"Noise in {norm}, {what}; upright strokes are 95 % intervals. " + " ".join(
        f"{label}: from {row[0]} to {row[-1]}." for label, *row in rows
    )
    svg = charts.over_noise(lines, seen[0].run.results.norm, what="Average Dice index", top=1)
    return Chart(title, about, svg, Grid(title, columns, tuple(rows)))


def _of_one(one: Seen) -> Grid:
    classes = one.run.results.classes
    several = classes if len(classes) > 1 else ()
    width = of_width([one.run.run])
    rows = tuple(
        (
            _name(key, width),
            Two(shown(score.adi), interval(score)),
            *(shown(value) for value in score.per_class[: len(several)]),
            shown(score.all_classes),
        )
        for key, score in one.scores.items()
    )
    norm, n = norm_name(one.run.results.norm), count(one.run.results)
    return Grid(
        f"Average Dice index (ADI), 0 to 1, with 95 % intervals; noise in {norm}, n = {n}",
        ("noise", "ADI", *several, "ADI, all classes"),
        rows,
    )


def _of_many(seen: Sequence[Seen]) -> list[Block]:
    """Networks in columns: there are more kinds of noise than a page is wide."""
    first = seen[0].run.results
    keys = keys_of([one.scores for one in seen])
    width = of_width([one.run.run for one in seen])
    clean, *noisy = [_line(key, width) for key in keys]
    lines: list[Line] = [
        clean,
        (ALL, lambda one: (one.scores[CLEAN, 0.0].all_classes, "")),
        *noisy,
        (AVERAGE, lambda one: (average(one.scores, keys), "")),
    ]
    norm, n = norm_name(first.norm), count(first)
    caption = f"Average Dice index (ADI), 0 to 1, with 95 % intervals; noise in {norm}, n = {n}"
    blocks: list[Block] = [_beside(seen, caption, lines)]
    if len(first.classes) > 1:
        attack = headline([one.scores for one in seen])
        lines = [
            (f"{name}, {_name(key, width)}", _line(key, width, number)[1])
            for number, name in enumerate(first.classes)
            for key in keys
            if key[0] in (CLEAN, attack)
        ]
        blocks.append(_beside(seen, f"Mean Dice of each class; noise in {norm}", lines))
    return blocks


def _line(key: Key, width: str, number: int | None = None) -> Line:
    """A kind of noise: of each network its ADI, or the mean Dice of one class."""

    def value(one: Seen) -> tuple[float, str]:
        score = one.scores.get(key)
        if score is None:
            return np.nan, ""
        return (score.adi, interval(score)) if number is None else (score.per_class[number], "")

    return _name(key, width), value


def _beside(seen: Sequence[Seen], caption: str, lines: Sequence[Line]) -> Grid:
    """Networks in columns; the highest value of a line is its best, unless all are the same."""
    rows: list[tuple[str | Two, ...]] = []
    for name, value in lines:
        found = [value(one) for one in seen]
        known = {shown(number) for number, _ in found} - {ABSENT}
        top = max(known, key=float) if len(known) > 1 else ""
        cells = (Two(shown(number), small, shown(number) == top) for number, small in found)
        rows.append((name, *cells))
    return Grid(caption, ("noise", *(one.run.label for one in seen)), tuple(rows))


def _name(key: Key, width: str) -> str:
    attack = key[0]
    return CLEAN if attack == CLEAN else f"{attack_name(attack)} at {size(key, width)}"


def _how(seen: Sequence[Seen]) -> tuple[Block, ...]:
    """What the noise is, what was evaluated, and with which settings."""
    first = seen[0].run.results
    text = f"Noise is measured in {named(first.norm)}, in the units of the samples."
    attacks = [attack for attack, _ in keys_of([one.scores for one in seen])]
    if WORST in attacks:
        text += (
            " “Worst case” is, for each sample, the lowest Dice that any of the attacks left at "
            "that size of noise."
        )
    keys = [
        key
        for key in dict.fromkeys(key for one in seen for key in one.run.results.settings)
        if key not in APART
    ]
    rows = [("samples", *(count(one.run.results) for one in seen))]
    rows += [
        (key, *(str(scrub(one.run.results.settings.get(key, ABSENT))) for one in seen))
        for key in keys
    ]
    same = tuple(row[:2] for row in rows if len(set(row[1:])) == 1)
    apart = tuple(row for row in rows if len(set(row[1:])) > 1)
    heads = ("", *(one.run.label for one in seen))
    alike = heads if len(seen) == 1 else ("", "all networks")
    blocks: list[Block] = [Prose(text)]
    if apart:
        blocks.append(Grid("What differs between the networks", heads, apart, False))
    title = "How it was evaluated" if len(seen) == 1 else "How all were evaluated"
    return (*blocks, Grid(title, alike, same, False))
