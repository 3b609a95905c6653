"""Tables of one row of numbers an epoch, metrics.csv and margins.csv, read without torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

EPOCH = "epoch"


def read_epochs(path: Path, needed: Sequence[str] = ()) -> list[dict[str, float]]:
    """The rows of such a table, without what is blank in them; none where there is no file.

    needed: columns that every row must have, besides `epoch`. Raises ValueError that names the
    file, and the line at fault, for any other file.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        header, *records = list(csv.reader(text.splitlines())) or [[]]
    except UnicodeDecodeError as error:
        raise ValueError(_damaged(path, "it is no text in UTF-8")) from error
    except (ValueError, csv.Error) as error:
        raise ValueError(_damaged(path, f"it holds no table: {error}")) from error
    if not header:
        raise ValueError(_damaged(path, "it holds no table: it is empty"))
    missing = [name for name in (EPOCH, *needed) if name not in header]
    if missing or len(set(header)) < len(header):
        what = f"lacks the columns {', '.join(missing)}" if missing else "has a column twice"
        raise ValueError(_damaged(path, f"its first line {what}"))
    rows: list[dict[str, float]] = []
    for number, record in enumerate(records, start=2):
        try:
            if len(record) != len(header):
                raise ValueError(f"{len(record)} values for {len(header)} columns")
            row = {name: float(value) for name, value in zip(header, record, strict=True) if value}
            if not (row.get(EPOCH, -1.0) >= 0 and row[EPOCH].is_integer()):
                raise ValueError("its epoch is no whole number")
            if rows and row[EPOCH] <= rows[-1][EPOCH]:
                raise ValueError("its epoch does not follow the one before")
            if absent := [name for name in needed if name not in row]:
                raise ValueError(f"it has no {absent[0]}")
        except ValueError as error:
            raise ValueError(_damaged(path, f"line {number}: {error}")) from error
        rows.append(row)
    # A last line that was cut may still be numbers.
    if text and not text.endswith("\n"):
        raise ValueError(_damaged(path, "its last line was cut"))
    return rows


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} is damaged: {what}. Put back a whole one; without the file a run still continues, "
        "and what the table told of the epochs before is lost"
    )
