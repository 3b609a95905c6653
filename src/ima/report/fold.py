"""Wide tables, folded: blocks of columns one below the other, each with the rows' labels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from ima.report.cells import Table


def fold(table: Table, fits: Callable[[Table], bool]) -> list[Table]:
    """The table in parts that fit; itself, where it does.

    A part holds one block of columns, or as much of it as fits; never less than one column of
    values. Columns of the unnamed block, "", stand in front of the first named one.
    """
    if fits(table) or len(table.columns) < 3:
        return [table]
    names = table.blocks or ("",) * (len(table.columns) - 1)
    first = next((name for name in names if name), "")
    blocks = groupby(range(1, len(table.columns)), lambda column: names[column - 1] or first)
    parts: list[Table] = []
    for _, columns in blocks:
        here: list[int] = []
        for column in columns:
            if here and not fits(table.select([0, *here, column])):
                parts.append(table.select([0, *here]))
                here = []
            here.append(column)
        parts.append(table.select([0, *here]))
    return parts
