"""Tables of measured shares, written as plain text, Markdown, CSV and LaTeX.

A table holds shares in 0..1; the text forms show percent with one decimal, CSV keeps the shares.
"""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.cells import cell_len

ABSENT = "–"

WIDTH = 88
"""Characters to which a caption is folded in plain text."""

# LaTeX reads "[" or "*" after the "\\" of the row before as an option of that row: braces stop it.
_LATEX = str.maketrans(
    {
        **{char: "\\" + char for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "*": "{*}",
        '"': r"\textquotedbl{}",
        "–": "--",
        "—": "---",
        "±": r"$\pm$",
        "×": r"$\times$",
        "∞": r"$\infty$",
        "₂": "$_2$",
        "ε": r"$\varepsilon$",
        "Δ": r"$\Delta$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "→": r"$\rightarrow$",
        "·": r"$\cdot$",
    }
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$&#])")


@dataclass(frozen=True)
class Measure:
    """One measured share, as the mean over seeds.

    mean: 0..1, higher is better; NaN when it was not measured.
    std: standard deviation over the seeds, a share too; None when unknown.
    n: number of seeds; from 2 on, std is shown.
    """

    mean: float
    std: float | None = None
    n: int = 1

    def __post_init__(self) -> None:
        if not (math.isnan(self.mean) or 0 <= self.mean <= 1):
            raise ValueError(
                f"Measure.mean is {self.mean!r}, expected a share between 0 and 1, "
                "or NaN when absent; divide percentages by 100"
            )
        if self.std is not None and not (math.isnan(self.std) or 0 <= self.std <= 1):
            raise ValueError(f"Measure.std is {self.std!r}, expected a share from 0 to 1 or None")
        if self.n < 0 or (self.n == 0 and not self.absent):
            raise ValueError(f"Measure.n is {self.n!r}, expected the number of seeds, 1 or more")

    @property
    def absent(self) -> bool:
        """Whether nothing was measured."""
        return math.isnan(self.mean)

    @property
    def spread(self) -> float | None:
        """The standard deviation where it means something, that is for two seeds or more."""
        if self.absent or self.n < 2 or self.std is None or math.isnan(self.std):
            return None
        return self.std

    @property
    def percent(self) -> str:
        """The mean in percent, as shown."""
        return ABSENT if self.absent else f"{100 * self.mean:.1f}"

    def __str__(self) -> str:
        return self.percent if self.spread is None else f"{self.percent} ± {100 * self.spread:.1f}"


Cell: TypeAlias = str | Measure


@dataclass(frozen=True)
class Table:
    """Named columns and rows of cells; the first cell of a row is its label.

    columns: distinct names, the labels' column first.
    rows: at least one, each as long as `columns`.
    caption: one or two sentences, without markup.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("Table.columns is empty, expected the label column and the values'")
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"Table.columns holds {twice} more than once; give distinct names")
        if not self.rows:
            raise ValueError("Table.rows is empty, expected one row or more")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table.rows[{number}] has {len(row)} cells, expected {len(self.columns)}: "
                    f"one for each of {list(self.columns)}; Measure(float('nan')) is absent"
                )
            if not isinstance(row[0], str):
                raise ValueError(f"Table.rows[{number}] starts with {row[0]!r}, expected a label")

    def measured(self, column: int) -> bool:
        """Whether a column holds measurements rather than text alone."""
        return any(isinstance(row[column], Measure) for row in self.rows)

    def best(self) -> frozenset[tuple[int, int]]:
        """The (row, column) of each column's highest value as shown, ties included.

        A column whose shown values are all equal has no best one.
        """
        found: set[tuple[int, int]] = set()
        for column in range(1, len(self.columns)):
            shown = {
                number: float(cell.percent)
                for number, row in enumerate(self.rows)
                if isinstance(cell := row[column], Measure) and not cell.absent
            }
            if len(set(shown.values())) > 1:
                top = max(shown.values())
                found |= {(number, column) for number, value in shown.items() if value == top}
        return frozenset(found)

    def note(self) -> str:
        """What the numbers are, in a sentence; empty for a table without any."""
        cells = [cell for row in self.rows for cell in row if isinstance(cell, Measure)]
        if not cells:
            return ""
        seeds = sorted({cell.n for cell in cells if not cell.absent})
        spread = any(cell.spread is not None for cell in cells)
        note = "Percent"
        if seeds and seeds[-1] > 1:
            count = f"{seeds[-1]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
            note += f", mean {'± standard deviation ' if spread else ''}over {count} seeds"
        if any(cell.absent for cell in cells):
            note += f"; {ABSENT} not measured"
        return note + "."


def to_text(table: Table) -> str:
    """The table as aligned plain text: caption, header, rule, rows."""
    texts = [[_one_line(name) for name in table.columns]]
    texts += [[""] * len(table.columns) for _ in table.rows]
    for column in range(len(table.columns)):
        cells = [row[column] for row in table.rows]
        means = [cell.percent if isinstance(cell, Measure) else _one_line(cell) for cell in cells]
        spreads = [
            f" ± {100 * cell.spread:.1f}"
            if isinstance(cell, Measure) and cell.spread is not None
            else ""
            for cell in cells
        ]
        # Means stay under means where only some cells have a deviation.
        wide = max(map(len, spreads))
        for number, (mean, spread) in enumerate(zip(means, spreads, strict=True), start=1):
            texts[number][column] = mean + (
                f" ± {spread[3:]:>{wide - 3}}" if spread else " " * wide
            )
    lines = _aligned(table, texts)
    rule = "-" * max(map(cell_len, lines))
    heading = [textwrap.fill(line, WIDTH) for line in _heading(table, _one_line)]
    return "\n".join([*heading, lines[0], rule, *lines[1:]]) + "\n"


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, the best value of a column in bold."""
    texts = [[_markdown(name) for name in table.columns]]
    texts += _cells(table, _markdown, lambda text: f"**{text}**")
    head, *body = [f"| {line} |" for line in _aligned(table, texts, " | ")]
    rule = "|".join("---:" if table.measured(column) else ":---" for column in _range(table))
    return "\n".join([*_heading(table, _markdown), head, f"|{rule}|", *body]) + "\n"


def to_csv(table: Table) -> str:
    """The table as CSV with shares in 0..1: `<column> mean` and `<column> std`, empty if absent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for column, name in enumerate(table.columns):
        header += [f"{name} mean", f"{name} std"] if table.measured(column) else [name]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for column, cell in enumerate(row):
            if isinstance(cell, Measure):
                line.append("" if cell.absent else repr(float(cell.mean)))
                line.append("" if cell.spread is None else repr(float(cell.spread)))
            else:
                line += [cell, ""] if table.measured(column) else [cell]
        writer.writerow(line)
    return out.getvalue()


def to_latex(table: Table) -> str:
    """The table as a LaTeX float with booktabs rules, the best value of a column in bold."""
    texts = [[_latex(name) for name in table.columns]]
    texts += _cells(table, _latex, lambda text: rf"\textbf{{{text}}}")
    head, *body = [f"    {line} \\\\" for line in _aligned(table, texts, " & ")]
    columns = "".join("r" if table.measured(column) else "l" for column in _range(table))
    caption = " ".join(line for line in _heading(table, _latex) if line)
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            *[r"    \toprule", head, r"    \midrule", *body, r"    \bottomrule"],
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _range(table: Table) -> range:
    return range(len(table.columns))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _latex(text: str) -> str:
    return _one_line(text).translate(_LATEX)


def _cells(
    table: Table, escape: Callable[[str], str], bold: Callable[[str], str]
) -> list[list[str]]:
    best = table.best()
    return [
        [
            bold(escape(str(cell))) if (number, column) in best else escape(str(cell))
            for column, cell in enumerate(row)
        ]
        for number, row in enumerate(table.rows)
    ]


def _heading(table: Table, escape: Callable[[str], str]) -> list[str]:
    parts = [escape(part) for part in (table.caption, table.note()) if part.strip()]
    return [" ".join(parts), ""] if parts else []


def _aligned(table: Table, texts: Sequence[Sequence[str]], between: str = "  ") -> list[str]:
    """Pad every column to its widest cell: numbers to the right, text to the left."""
    widths = [max(cell_len(row[column]) for row in texts) for column in _range(table)]
    lines: list[str] = []
    for row in texts:
        parts: list[str] = []
        for column, text in enumerate(row):
            # Counted in terminal cells, which for Chinese or Japanese are two a character.
            pad = " " * (widths[column] - cell_len(text))
            parts.append(pad + text if table.measured(column) else text + pad)
        lines.append(between.join(parts).rstrip())
    return lines
