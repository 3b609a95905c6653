"""What tables hold: measured qualities, and rows and columns of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ima.measures import ABSENT, ACCURACY, Measure


@dataclass(frozen=True)
class Average:
    """One measured quality, as the mean over seeds.

    mean: 0..1, higher is better; NaN when it was not measured.
    std: standard deviation over the seeds, 0..1 too; None when unknown.
    n: number of seeds; from 2 on, std is shown.
    measure: how it is written; small: what is said below it where there is room, how sure it is.
    """

    mean: float
    std: float | None = None
    n: int = 1
    measure: Measure = ACCURACY
    small: str = ""

    def __post_init__(self) -> None:
        if not (math.isnan(self.mean) or 0 <= self.mean <= 1):
            raise ValueError(
                f"Average.mean is {self.mean!r}, expected a share between 0 and 1, "
                "or NaN when absent; divide percentages by 100"
            )
        if self.std is not None and not (math.isnan(self.std) or 0 <= self.std <= 1):
            raise ValueError(f"Average.std is {self.std!r}, expected a share from 0 to 1 or None")
        if self.n < 0 or (self.n == 0 and not self.absent):
            raise ValueError(f"Average.n is {self.n!r}, expected the number of seeds, 1 or more")

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
    def shown(self) -> str:
        """The mean as shown."""
        return self.measure.write(self.mean)

    @property
    def beside(self) -> str:
        """What stands behind the mean: the standard deviation, where there is one."""
        return "" if self.spread is None else f" ± {self.measure.write(self.spread)}"

    def __str__(self) -> str:
        return self.shown + self.beside


Cell: TypeAlias = str | Average


@dataclass(frozen=True)
class Table:
    """Named columns and rows of cells; the first cell of a row is its label.

    columns: distinct names, the labels' column first.
    rows: at least one, each as long as `columns`.
    caption: one or two sentences, without markup.
    blocks: where a wide table may be folded: for each column but the first the name of its block;
        columns of one block stand together. Empty: one block.
    ranked: whether rows are alike, so that the best value of a column may be set apart.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    blocks: tuple[str, ...] = ()
    ranked: bool = True

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("Table.columns is empty, expected the label column and the values'")
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"Table.columns holds {twice} more than once; give distinct names")
        if self.blocks and len(self.blocks) != len(self.columns) - 1:
            raise ValueError(
                f"Table.blocks has {len(self.blocks)} names, expected {len(self.columns) - 1}: one "
                "for each column but the first"
            )
        if not self.rows:
            raise ValueError("Table.rows is empty, expected one row or more")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table.rows[{number}] has {len(row)} cells, expected {len(self.columns)}: "
                    f"one for each of {list(self.columns)}; Average(float('nan')) is absent"
                )
            if not isinstance(row[0], str):
                raise ValueError(f"Table.rows[{number}] starts with {row[0]!r}, expected a label")

    def measured(self, column: int) -> bool:
        """Whether a column holds measurements rather than text alone."""
        return any(isinstance(row[column], Average) for row in self.rows)

    def numeric(self, column: int) -> bool:
        """Whether a column, but the labels', holds numbers, measured or as text."""
        texts = [cell for row in self.rows if isinstance(cell := row[column], str)]
        return self.measured(column) or (column > 0 and all(map(_is_number, texts)))

    def select(self, columns: Sequence[int]) -> Table:
        """The same rows with some of the columns, the labels' first."""
        return Table(
            tuple(self.columns[column] for column in columns),
            tuple(tuple(row[column] for column in columns) for row in self.rows),
            self.caption,
            tuple(self.blocks[column - 1] for column in columns[1:]) if self.blocks else (),
            self.ranked,
        )

    def best(self) -> frozenset[tuple[int, int]]:
        """The (row, column) of each column's highest value as shown.

        Where two share it the column has no best one, nor has one of unlike rows.
        """
        if not self.ranked:
            return frozenset()
        found: set[tuple[int, int]] = set()
        for column in range(1, len(self.columns)):
            found |= {(number, column) for number in best_of([row[column] for row in self.rows])}
        return frozenset(found)

    def note(self) -> str:
        """What the numbers are, in a sentence; empty for a table without any."""
        cells = [cell for row in self.rows for cell in row if isinstance(cell, Average)]
        if not cells:
            return ""
        seeds = sorted({cell.n for cell in cells if not cell.absent})
        said = ["percent"] if all(cell.measure.percent for cell in cells) else []
        if seeds and seeds[-1] > 1:
            count = f"{seeds[-1]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
            spread = "± standard deviation " if any(cell.beside for cell in cells) else ""
            said.append(f"mean {spread}over {count} seeds")
        note = ", ".join(said)
        if any(cell.absent for cell in cells):
            note += f"{'; ' if note else ''}{ABSENT} not measured"
        return f"{note[:1].upper()}{note[1:]}." if note else ""


def best_of(cells: Sequence[Cell]) -> set[int]:
    """The place of the highest value as shown; none where several share it, or it is alone."""
    averages = {i: cell for i, cell in enumerate(cells) if isinstance(cell, Average)}
    shown = {i: float(cell.shown) for i, cell in averages.items() if not cell.absent}
    top = max(shown.values(), default=0.0)
    found = {i for i, value in shown.items() if value == top}
    return found if len(found) == 1 and len(shown) > 1 else set()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ABSENT
    return True
