"""From what runs left behind to the page: which sections there are, and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ima.evaluation.distances import NONE
from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN
from ima.report import summary
from ima.report.html import charts
from ima.report.html.accuracy import accuracy_tables
from ima.report.html.blocks import Block, Chart, Grid, Page, Prose, Section
from ima.report.html.checks import checks_of, left_out
from ima.report.html.classes import class_tables
from ima.report.html.doubts import doubts, said
from ima.report.html.entries import Entry, data_name
from ima.report.html.numbers import (
    attack_name,
    attacks_of,
    drawn,
    enough,
    headline,
    percent,
    radii_of,
    scores,
)
from ima.report.html.pictures import strips
from ima.report.html.provenance import how_measured
from ima.report.html.verdict import Judged, sentences, tiles
from ima.report.style import norm_name

ROWS = 12
"""So many epochs stand in the table under a picture of margins."""

NO_PICTURES = (
    "The attacked samples are no images of one or three channels with values from 0 to 1, or noise "
    "broke none of those kept."
)


def build(entries: Sequence[Entry]) -> Page:
    """The page of some networks, the same on every call."""
    judged = [Judged(entry, scores(entry.main)) for entry in entries]
    for one in judged:
        if (CLEAN, 0.0) not in one.scores:
            raise ValueError(f"the results of {one.entry.label} hold no clean pass")
    sections = [
        Section("accuracy", "Accuracy with and without noise", _accuracy(judged)),
        Section("checks", "Trust checks", _checks(entries)),
        Section("examples", "Samples with noise", _examples(judged)),
        Section("distances", "Smallest noise that breaks a sample", _distances(entries)),
        Section("margins", "Margins in training", _margins(entries)),
        Section("method", "How this was measured", how_measured(judged)),
    ]
    return Page(
        _title(entries),
        sentences(judged),
        tiles(judged),
        tuple(section for section in sections if section.blocks),
    )


def _checks(entries: Sequence[Entry]) -> tuple[Block, ...]:
    found = [
        (e.label + (f", seed {s.seed}" if len(e.sources) > 1 else ""), s, e.which)
        for e in entries
        for s in e.sources
    ]
    others = tuple(
        left_out(label, s.checks, which)
        for label, s, which in found
        if s.checks is not None and s.own_checks is None
    )
    if others and all(s.own_checks is None for _, s, _ in found):
        return others
    return (*checks_of([(label, s.own_checks) for label, s, _ in found]), *others)


def _title(entries: Sequence[Entry]) -> str:
    data = {data_name(e.config) for e in entries} - {""}
    on = f" on {data.pop()}" if len(data) == 1 else ""
    who = entries[0].label if len(entries) == 1 else f"{len(entries)} networks"
    return f"What noise breaks {who}{on}"


def _accuracy(judged: Sequence[Judged]) -> tuple[Block, ...]:
    norm = judged[0].entry.main[0].norm
    all_scores = [one.scores for one in judged]
    blocks: list[Block] = []
    if radii_of(all_scores):
        blocks.append(_curves(judged, norm))
    remarks = said(doubts([one.entry for one in judged]))
    return (*remarks, *blocks, *accuracy_tables(judged), *class_tables(judged))


def _curves(judged: Sequence[Judged], norm: str) -> Chart:
    all_scores = [one.scores for one in judged]
    radii = [0.0, *radii_of(all_scores)]
    if len(judged) == 1:
        drawn = [(attack_name(a), judged[0].scores, a) for a in attacks_of(all_scores)]
        what = "one line an attack"
    else:
        attack = headline(all_scores)
        drawn = [(one.entry.label, one.scores, attack) for one in judged]
        what = f"one line a network, under {attack_name(attack)}"
    lines: list[charts.Line] = []
    rows: list[tuple[str, ...]] = []
    for label, of_one, attack in drawn:
        keys = [(attack if eps else CLEAN, eps) for eps in radii]
        known = [(key[1], of_one[key]) for key in keys if key in of_one]
        ends = [score.interval for _, score in known]
        lines.append(
            charts.Line(
                label,
                np.array([eps for eps, _ in known]),
                np.array([100 * score.share for _, score in known]),
                np.array([100 * low for low, _ in ends]),
                np.array([100 * high for _, high in ends]),
            )
        )
        rows.append((label, *(percent(of_one[k].share) if k in of_one else "–" for k in keys)))
    columns = ("", *("clean" if not eps else f"ε = {eps:g}" for eps in radii))
    title = "Accuracy over the size of the noise"
    about = f"Noise in {norm_name(norm)}, {what}; upright strokes are 95 % intervals. " + " ".join(
        f"{label}: from {row[0]} to {row[-1]}." for label, *row in rows
    )
    return Chart(title, about, charts.over_noise(lines, norm), Grid(title, columns, tuple(rows)))


def _examples(judged: Sequence[Judged]) -> tuple[Block, ...]:
    found = [
        (one.entry.label, next((s.examples for s in one.entry.sources if s.examples), {}))
        for one in judged
    ]
    if not any(arrays for _, arrays in found):
        return ()
    attacks = attacks_of([one.scores for one in judged])
    chosen = (a for a in attacks if not drawn(a, attacks))
    attack = next(chosen, next(iter(attacks), ""))
    shown = strips(found, attack, judged[0].entry.main[0].norm)
    if not shown:
        return (Prose(NO_PICTURES),)
    text = (
        f"Test samples that are right without noise, under {attack_name(attack)}. The noise is "
        "multiplied by the factor above it; middle gray is no change. A blue frame and ✓ stand "
        "for a right prediction, an orange one and ✗ for a wrong one. "
    )
    return (Prose(text.strip()), *shown)


def _distances(entries: Sequence[Entry]) -> tuple[Block, ...]:
    known = [(i, e.label, e.sources[0].distances) for i, e in enumerate(entries)]
    found = [(label, distances) for _, label, distances in known if distances is not None]
    if not found:
        return ()
    finite = [d.values[np.isfinite(d.values)] for _, d in found]
    end = max((float(np.quantile(v, 0.98)) for v in finite if v.size), default=0.0) * 1.05
    if end <= 0:
        return (Prose("No noise was found that breaks a sample that is right without it."),)
    # A network has one colour in all pictures.
    lines = [
        charts.Line(label, *charts.steps_of(d.values, end), look=place)
        for place, label, d in known
        if d is not None
    ]
    norm = found[0][1].norm
    shares = (0.1, 0.25, 0.5, 0.75, 0.9)
    rows = tuple(
        (
            label,
            str(len(d.values)),
            percent(d.accuracy(0.0)),
            *(_size(enough(d, s)) for s in shares),
        )
        for label, d in found
    )
    columns = (
        "",
        "samples",
        "right without noise",
        *(f"{100 * s:.0f}\u00a0% wrong at" for s in shares),
    )
    title = "Accuracy by the smallest noise found for each sample"
    about = (
        f"Noise in {norm_name(norm)}: a sample counts as right at ε where no noise of at most "
        "that size was found that makes it wrong. "
        + " ".join(f"{row[0]}: half of all are wrong at {row[5]}." for row in rows)
    )
    grid = Grid(f"Sizes of noise ({norm_name(norm)}) that suffice", columns, rows)
    remarks = united((label if len(entries) > 1 else "", d.remarks) for label, d in found)
    blocks: list[Block] = [
        *said(remarks),
        Chart(title, about, charts.over_noise(lines, norm, steps=True, end=end), grid),
    ]
    for label, d in found:
        made = [row.attack for row in d.rows]
        names = sorted(set(made) - {CLEAN, NONE})
        counts = ", ".join(f"{attack_name(name)} for {made.count(name)}" for name in names)
        missing = f"; none was found for {made.count(NONE)}" if NONE in made else ""
        left = f". Left out: {d.settings['left out']}" if "left out" in d.settings else ""
        blocks.append(Prose(f"{label}: the smallest noise came from {counts}{missing}{left}."))
    return tuple(blocks)


def _at_cap(share: float, cap: float) -> str:
    if share == 0:
        return f"none has come near the cap of {cap:g}"
    return f"{percent(share)} of the samples are in the last bin below the cap of {cap:g}"


def _size(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "not found"


def _margins(entries: Sequence[Entry]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for entry in entries:
        source = next((s for s in entry.sources if s.margins), None)
        if source is None:
            continue
        try:
            history = summary.margin_history(source.margins)
        except (KeyError, ValueError) as error:
            raise ValueError(f"the margins of {entry.label} are damaged: {error}") from error
        norm = entry.main[0].norm
        medians, shares = history.medians(), history.shares()
        cap = float(history.edges[-1])
        last, seed = history.last(), f", seed {source.seed}" if len(entry.sources) > 1 else ""
        title = f"{entry.label}: margins of the training samples by epoch{seed}"
        about = (
            f"How many training samples have which margin, in {norm_name(norm)}; at the right the "
            f"last epoch. The median margin is {medians[last]:.3g} after epoch "
            f"{history.epochs[last]:g}; {_at_cap(float(shares[last, -1]), cap)}."
        )
        picked = np.unique(np.linspace(0, last, min(ROWS, last + 1)).round().astype(int))
        rows = tuple(
            (f"{history.epochs[i]:g}", f"{medians[i]:.3g}", percent(float(shares[i, -1])))
            for i in picked
        )
        grid = Grid(
            f"{entry.label}: margins, {len(rows)} of {len(history.epochs)} epochs",
            ("epoch", f"median ({norm_name(norm)})", "in the last bin"),
            rows,
        )
        blocks.append(Chart(title, about, charts.margins(history, norm), grid))
    return tuple(blocks)
