"""From what runs left behind to the page: which sections there are, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ima.evaluation.distances import NONE
from ima.evaluation.remarks import capital, united
from ima.evaluation.results import CLEAN
from ima.measures import ABSENT, ACCURACY
from ima.report.entries import PageEntry, data_name
from ima.report.html import charts
from ima.report.html.blocks import Chart, Grid, LimitItem, Page, PageBlock, Prose, Section
from ima.report.html.checks import checks_of, left_out
from ima.report.html.grids import class_tables, measure_of, score_tables
from ima.report.html.identity import identity_of, title_of
from ima.report.html.provenance import how_measured
from ima.report.html.slices import slices_of
from ima.report.html.strips import strips_of
from ima.report.html.verdict import found_less, led, remarks_on, tiles, verdict_of
from ima.report.limits import decided
from ima.report.scores import SHARES, WITHOUT, attacks_of, enough, headline, radii_of
from ima.report.scrub import scrub
from ima.report.series import margin_history
from ima.report.sizes import size_rows
from ima.report.style import norm_name
from ima.report.words import attack_name, under

ROWS = 12
"""So many epochs stand in the table under a picture of margins."""


def build_page(entries: Sequence[PageEntry]) -> Page:
    """The page of some networks, the same on every call."""
    name = capital(measure_of(entries).name)
    sections = [
        Section("accuracy", f"{name} with and without noise", _accuracy(entries)),
        Section("checks", "Trust checks", _checks(entries)),
        Section("examples", "Samples with noise", strips_of(entries)),
        Section("slices", "Slices with noise", slices_of(entries)),
        Section("distances", "Smallest noise that breaks a sample", _distances(entries)),
        Section("margins", "Margins in training", _margins(entries)),
        Section("method", "How this was measured", how_measured(entries)),
    ]
    return Page(
        title_of(entries) or _title(entries),
        identity_of(entries),
        tuple(LimitItem(one.state, one.sentence) for one in decided(entries)),
        verdict_of(entries),
        tiles(entries),
        tuple(section for section in sections if section.blocks),
    )


def _checks(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    found = [(entry.named(s), s, entry.which) for entry in entries for s in entry.sources]
    others = tuple(
        left_out(label, s.checks, which)
        for label, s, which in found
        if s.checks is not None and s.own_checks is None
    )
    if others and all(s.own_checks is None for _, s, _ in found):
        return others
    own = [(label, s.own_checks) for label, s, _ in found]
    return (*checks_of(own, measure_of(entries)), *others)


def _title(entries: Sequence[PageEntry]) -> str:
    told = {
        re.sub(r"^Dataset\d+_", "", scrub(r.settings.data)) for one in entries for r in one.main
    }
    # What a function of a user's own gives has no name for readers.
    named = {re.sub(r"^Dataset\d+_", "", name) for name in told if ":" not in name}
    data = ({data_name(one.config) for one in entries} - {""}) or named - {""}
    on = f" on {data.pop()}" if len(data) == 1 else ""
    who = entries[0].label if len(entries) == 1 else f"{len(entries)} networks"
    return f"What noise breaks {who}{on}"


def _accuracy(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    curves = (_curves(entries),) if radii_of([one.scores for one in entries]) else ()
    return (
        *map(Prose, remarks_on(entries)),
        *curves,
        *sizes_of(entries),
        *score_tables(entries),
        *class_tables(entries),
    )


def _curves(entries: Sequence[PageEntry]) -> Chart:
    all_scores, measure = [one.scores for one in entries], measure_of(entries)
    norm = entries[0].main[0].norm
    attack = headline(all_scores)
    if len(entries) == 1:
        (one,), first = entries, ("lowest found", led(entries[0], attack), attack)
        drawn = [(attack_name(a), one.scores, a) for a in attacks_of(all_scores)]
        # What more was found than by the attack goes before all attacks.
        drawn = [first, *drawn] if first[1] != one.scores else drawn
        what, radii = "one line an attack", radii_of(all_scores)
    else:
        drawn = [(one.label, led(one, attack), attack) for one in entries]
        what, radii = f"one line a network, under {under(attack)}", radii_of(all_scores, attack)
    lines: list[charts.Line] = []
    rows: list[tuple[str, ...]] = []
    for label, of_one, attack in drawn:
        keys = [WITHOUT, *((attack, eps) for eps in radii)]
        known = [(key[1], of_one[key]) for key in keys if key in of_one]
        ends = np.array([score.interval for _, score in known]).T
        means = np.array([score.mean for _, score in known])
        lines.append(charts.Line(label, np.array([eps for eps, _ in known]), means, *ends))
        told = (of_one[k].measure.said(of_one[k].mean, 3) if k in of_one else ABSENT for k in keys)
        rows.append((label, *told))
    columns = ("", "clean", *(f"ε = {eps:g}" for eps in radii))
    title = f"{measure.title} over the size of the noise"
    about = f"Noise in {norm_name(norm)}, {what}; upright strokes are 95 % intervals. " + " ".join(
        f"{label}: from {row[0]} to {row[-1]}." for label, *row in rows
    )
    about += found_less(entries, attack)
    svg = charts.over_noise(lines, norm, measure)
    return Chart(title, about, svg, Grid(title, columns, tuple(rows)))


def sizes_of(entries: Sequence[PageEntry]) -> tuple[Grid, ...]:
    """What the radii are for a single value, for a reader who thinks in grey levels or units."""
    settings, radii = entries[0].main[0].settings, radii_of([one.scores for one in entries])
    heads, rows = size_rows(radii, settings)
    if not rows or len(heads) < 3:
        return ()
    told = "How large the noise is for a single value of a sample, at most"
    return (Grid(f"{told} (size in {norm_name(settings.norm)})", heads, rows),)


def _distances(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
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
    rows = tuple(
        (
            label,
            str(len(d.values)),
            ACCURACY.said(d.accuracy(0.0)),
            *(f"{e:.3g}" if np.isfinite(e := enough(d, s)) else "not found" for s in SHARES),
        )
        for label, d in found
    )
    columns = (
        "",
        "samples",
        "right without noise",
        *(f"{100 * s:.0f}\u00a0% wrong at" for s in SHARES),
    )
    title = "Accuracy by the smallest noise found for each sample"
    about = (
        f"Noise in {norm_name(norm)}: a sample counts as right at ε where no noise of at most "
        "that size was found that makes it wrong. "
        + " ".join(f"{row[0]}: half of all are wrong at {row[5]}." for row in rows)
    )
    grid = Grid(f"Sizes of noise ({norm_name(norm)}) that suffice", columns, rows)
    remarks = united((label if len(entries) > 1 else "", d.remarks) for label, d in found)
    blocks: list[PageBlock] = [
        *map(Prose, remarks),
        Chart(title, about, charts.over_noise(lines, norm, steps=True, end=end), grid),
    ]
    for label, d in found:
        made = [row.attack for row in d.rows]
        names = sorted(set(made) - {CLEAN, NONE})
        counts = ", ".join(f"{attack_name(name)} for {made.count(name)}" for name in names)
        missing = f"; none was found for {made.count(NONE)}" if NONE in made else ""
        left = f". Left out: {'; '.join(d.settings.left_out)}" if d.settings.left_out else ""
        blocks.append(Prose(f"{label}: the smallest noise came from {counts}{missing}{left}."))
    return tuple(blocks)


def _at_cap(share: float, cap: float) -> str:
    if not np.isfinite(cap):
        return "they have no cap"
    if share == 0:
        return f"none has come near the cap of {cap:g}"
    return f"{ACCURACY.said(share)} of the samples are in the last bin below the cap of {cap:g}"


def _margins(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    blocks: list[PageBlock] = []
    for entry in entries:
        source = next((s for s in entry.sources if s.margins), None)
        if source is None:
            continue
        try:
            history = margin_history(source.margins)
        except (KeyError, ValueError) as error:
            raise ValueError(f"the margins of {entry.label} are damaged: {error}") from error
        norm = entry.main[0].norm
        medians, shares = history.medians(), history.shares()
        cap = history.ceiling
        last, seed = history.last(), entry.named(source).removeprefix(entry.label)
        title = f"{entry.label}: margins of the training samples by epoch{seed}"
        about = (
            f"How many training samples have which margin, in {norm_name(norm)}; at the right the "
            f"last epoch. The median margin is {medians[last]:.3g} after epoch "
            f"{history.epochs[last]:g}; {_at_cap(float(shares[last, -1]), cap)}."
        )
        picked = np.unique(np.linspace(0, last, min(ROWS, last + 1)).round().astype(int))
        rows = tuple(
            (f"{history.epochs[i]:g}", f"{medians[i]:.3g}", ACCURACY.said(float(shares[i, -1])))
            for i in picked
        )
        grid = Grid(
            f"{entry.label}: margins, {len(rows)} of {len(history.epochs)} epochs",
            ("epoch", f"median ({norm_name(norm)})", "in the last bin"),
            rows,
        )
        blocks.append(Chart(title, about, charts.margins_svg(history, norm), grid))
    return tuple(blocks)
