"""Tables of measured qualities, written as plain text, Markdown, CSV and LaTeX.

A table holds 0..1; the text forms show it as its measure says, such as percent, CSV as it is.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Sequence

from ima.report.cells import Average, Table
from ima.report.fold import fold

WIDTH = 88
"""Characters to which a caption is folded in plain text."""

WIDEST = 100
"""Characters beyond which a table is folded in plain text."""

MOST_COLUMNS = 8
"""Columns of values beyond which a table is folded in Markdown."""

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


def to_text(table: Table) -> str:
    """The table as aligned plain text: caption, header, rule, rows.

    Where it is wider than 100 characters, its blocks of columns stand one below the other.
    """

    def fits(part: Table) -> bool:
        return max(map(_width, _plain(part))) <= WIDEST

    heading = [textwrap.fill(line, WIDTH) for line in _heading(table, _one_line)]
    parts: list[str] = []
    for part in fold(table, fits):
        lines = _plain(part)
        rule = "-" * max(map(_width, lines))
        parts.append("\n".join([lines[0], rule, *lines[1:]]) + "\n")
    return "\n".join([*heading, "\n".join(parts)])


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, the best value of a column in bold.

    With more than 8 columns of values, its blocks of columns stand one below the other.
    """

    def fits(part: Table) -> bool:
        return len(part.columns) - 1 <= MOST_COLUMNS

    parts: list[str] = []
    for part in fold(table, fits):
        texts = [[_markdown(name) for name in part.columns]]
        texts += _cells(part, _markdown, lambda text: f"**{text}**")
        head, *body = [f"| {line} |" for line in _aligned(part, texts, " | ")]
        rule = "|".join("---:" if part.numeric(column) else ":---" for column in _range(part))
        parts.append("\n".join([head, f"|{rule}|", *body]) + "\n")
    return "\n".join([*_heading(table, _markdown), "\n".join(parts)])


def to_csv(table: Table) -> str:
    """The table as CSV with 0..1: `<column> mean` and `<column> std`, empty if absent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for column, name in enumerate(table.columns):
        header += [f"{name} mean", f"{name} std"] if table.measured(column) else [name]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for column, cell in enumerate(row):
            if isinstance(cell, Average):
                line.append("" if cell.absent else repr(float(cell.mean)))
                line.append("" if cell.spread is None else repr(float(cell.spread)))
            else:
                line += [cell, ""] if table.measured(column) else [cell]
        writer.writerow(line)
    return out.getvalue()


def to_latex(table: Table) -> str:
    """The table as a LaTeX float with booktabs rules, the best value of a column in bold.

    Behind each value, in parentheses, how sure it is: its 95 % interval.
    """
    texts = [[_latex(name) for name in table.columns]]
    texts += _cells(table, _latex, lambda text: rf"\textbf{{{text}}}")
    for line, row in zip(texts[1:], table.rows, strict=True):
        small = [
            cell.small if isinstance(cell, Average) and not cell.absent else "" for cell in row
        ]
        line[:] = [
            rf"{text} {{\scriptsize ({_latex(said)})}}" if said else text
            for text, said in zip(line, small, strict=True)
        ]
    sure = (
        [r"In parentheses: 95\,\% intervals."]
        if r"\scriptsize" in "".join(map("".join, texts))
        else []
    )
    head, *body = [f"    {line} \\\\" for line in _aligned(table, texts, " & ")]
    columns = "".join("r" if table.numeric(column) else "l" for column in _range(table))
    caption = " ".join(line for line in [*_heading(table, _latex), *sure] if line)
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


def _plain(table: Table) -> list[str]:
    """The lines of a table in plain text: the header and the rows."""
    texts = [[_one_line(name) for name in table.columns]]
    texts += [[""] * len(table.columns) for _ in table.rows]
    for column in range(len(table.columns)):
        cells = [row[column] for row in table.rows]
        means = [cell.shown if isinstance(cell, Average) else _one_line(cell) for cell in cells]
        spreads = [cell.beside if isinstance(cell, Average) else "" for cell in cells]
        # Means stay under means where only some cells have a deviation.
        wide = max(map(len, spreads))
        for number, (mean, spread) in enumerate(zip(means, spreads, strict=True), start=1):
            texts[number][column] = mean + (
                f" ± {spread[3:]:>{wide - 3}}" if spread else " " * wide
            )
    return _aligned(table, texts)


def _width(text: str) -> int:
    """Counted in terminal cells, which for Chinese or Japanese are two a character."""
    from rich.cells import cell_len

    return cell_len(text)


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
    widths = [max(_width(row[column]) for row in texts) for column in _range(table)]
    lines: list[str] = []
    for row in texts:
        parts: list[str] = []
        for column, text in enumerate(row):
            pad = " " * (widths[column] - _width(text))
            parts.append(pad + text if table.numeric(column) else text + pad)
        lines.append(between.join(parts).rstrip())
    return lines
