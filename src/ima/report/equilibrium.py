"""The equilibrium in the plane: decision regions, margins beside distances, both in numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ima.files import write_text
from ima.report import figures, style
from ima.report.cells import ABSENT, Average, Cell, Table
from ima.report.plane_panels import draw_estimates, draw_key, draw_numbers, draw_regions
from ima.report.portrait import Errors, Portrait
from ima.report.tables import to_markdown, to_text

PANEL, BETWEEN, LEFT, RIGHT = 3.05, 0.22, 0.72, 0.3  # inches: a panel and what is beside it
TOP, MIDDLE, BOTTOM, CHART = 1.1, 1.0, 0.62, 3.3  # inches: above panels, below, below charts
APART = CHART + 0.85


@dataclass(frozen=True)
class Number:
    """One number of a method's errors: what it is about, its name, and how it is written."""

    about: str
    name: str
    value: Callable[[Errors], float | None]
    form: str

    def write(self, errors: Errors) -> str:
        """The number as text."""
        value = self.value(errors)
        return ABSENT if value is None else self.form.format(value)


OWN, TRUE, BOTH = "Margin to own boundary", "Margin to true boundary", "Own boundary to true one"

SHORT = {OWN: "own", TRUE: "true", BOTH: "boundaries"}
"""In the table's columns, which have no room for more."""

NUMBERS = (
    Number(OWN, "error", lambda e: e.own and e.own.size, "{:.4f}"),
    Number(OWN, "bias", lambda e: e.own and e.own.bias, "{:+.4f}"),
    Number(OWN, "too large", lambda e: e.own and e.own.over, "{:.1%}"),
    Number(TRUE, "error", lambda e: e.true and e.true.size, "{:.4f}"),
    Number(TRUE, "bias", lambda e: e.true and e.true.bias, "{:+.4f}"),
    Number(BOTH, "error", lambda e: e.boundary and e.boundary.size, "{:.4f}"),
)

EXPLAINED = (
    "Distances are in the units of the square, whose side is 1. Margin: the noise radius of a "
    "training sample, E(i) as the method keeps it, or the one radius of SAT. Own: margin against "
    "the distance to the network's own boundary; true: against that to the true boundary; "
    "boundaries: the own one's distance against the true one's; of the training samples that the "
    "network has right. Error: mean absolute difference; bias: mean difference, above 0 where "
    "margins are over-estimated; too large: share of margins more than 0.001 above the distance. "
    "Clean: test samples right; area: share of the square right."
)


BELOW = """Of samples that the network has right. Error: mean absolute
difference; bias: mean difference, above 0 where too large;
too large: by more than 0.001."""


def equilibrium_table(portraits: Sequence[Portrait], note: str) -> Table:
    """One row a method, as `EXPLAINED` says; weights of the last epoch, one seed."""
    rows: list[tuple[Cell, ...]] = []
    for portrait in portraits:
        errors = portrait.errors()
        shares = (Average(portrait.clean), Average(1 - portrait.area))
        count = f"{int(portrait.right.sum())} of {len(portrait.x)}"
        rows.append((portrait.title, *shares, count, *(number.write(errors) for number in NUMBERS)))
    columns = (
        "method",
        "clean",
        "area",
        "samples",
        *(f"{SHORT[n.about]}: {n.name}" for n in NUMBERS),
    )
    return Table(columns, tuple(rows), f"{note} {EXPLAINED}".strip())


def numbers(portraits: Sequence[Portrait]) -> str:
    """The same as CSV, in full precision; empty where there is no number."""
    out = io.StringIO()
    names = [f"{SHORT[n.about]}: {n.name}" for n in NUMBERS]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "clean", "area", "right", "samples", *names])
    for portrait in portraits:
        found = [number.value(portrait.errors()) for number in NUMBERS]
        counts = [int(portrait.right.sum()), len(portrait.x)]
        writer.writerow([portrait.title, portrait.clean, 1 - portrait.area, *counts, *found])
    return out.getvalue()


def picture(portraits: Sequence[Portrait]) -> Figure:
    """Decision regions above; below margins over distances, and the errors in numbers.

    Raises ValueError without portraits.
    """
    if not portraits:
        raise ValueError("portraits is empty, expected one Portrait or more")
    with style.styled():
        # Below there are two charts and a table, which need as much room as four panels.
        shown = max(4, len(portraits))
        wide = LEFT + shown * PANEL + (shown - 1) * BETWEEN + RIGHT
        floor = BOTTOM + CHART + MIDDLE
        figure = Figure(figsize=(wide, floor + PANEL + TOP))
        draw_key(figure, LEFT)
        heading = {"weight": "bold", "size": style.TITLE, "va": "baseline"}
        small = {"size": style.SMALL, "va": "baseline", "color": style.SOFT}
        for number, portrait in enumerate(portraits):
            left = LEFT + number * (PANEL + BETWEEN)
            draw_regions(
                style.add_axes(figure, left, floor, PANEL, PANEL), portrait, named=not number
            )
            style.draw_text(figure, left, floor + PANEL + 0.31, portrait.title, **heading)
            told = f"clean {portrait.clean:.1%}, area wrong {portrait.area:.1%}"
            style.draw_text(figure, left, floor + PANEL + 0.11, told, **small)
        for number, (against, name) in enumerate((("own", "the network's"), ("true", "the true"))):
            left = LEFT + number * APART
            axes = style.add_axes(figure, left, BOTTOM, CHART, CHART)
            draw_estimates(axes, portraits, against, f"Distance to {name} boundary")
            style.draw_text(
                figure, left, BOTTOM + CHART + 0.14, f"Against {name} boundary", **heading
            )
        groups: dict[str, dict[str, list[str]]] = {}
        for number in NUMBERS:
            texts = [number.write(portrait.errors()) for portrait in portraits]
            groups.setdefault(number.about, {})[number.name] = texts
        left, top = LEFT + 2 * APART - 0.1, BOTTOM + CHART + 0.14
        names = [portrait.label for portrait in portraits]
        draw_numbers(figure, left, top, wide - left - RIGHT, names, groups, BELOW)
    return figure


def write_equilibrium(
    folder: Path, portraits: Sequence[Portrait], note: str, remarks: Sequence[str]
) -> str:
    """Write equilibrium.md, .csv, .png and .svg; returns the table as plain text."""
    table, figure = equilibrium_table(portraits, note), picture(portraits)
    figures.save_all(folder, {"equilibrium": figure})
    page = ["# equilibrium\n", "![Decision regions, margins, distances](equilibrium.png)\n"]
    page += [to_markdown(table), *(f"{remark}\n" for remark in remarks)]
    write_text(folder / "equilibrium.csv", numbers(portraits))
    write_text(folder / "equilibrium.md", "\n".join(page))
    return to_text(table)
