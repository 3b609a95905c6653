"""Rows as columns on disk: a CSV that any program reads, and a JSON beside it that says the rest.

results.csv    a line a row, a column a name
results.json   format, settings, kinds of columns, digest of the CSV

The JSON is written last: without it the CSV is not there. Files of the formats before it, whose
settings are the first line of the CSV, are read too; see `earlier`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ima.evaluation import earlier
from ima.evaluation.settings import Settings
from ima.evaluation.values import from_cell, to_cell
from ima.files import read_json, unwritable, whole, write_text

Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""By name, one value a row: numbers, text, or what `Value` says."""

R = TypeVar("R")

FORMAT = 3
"""Of the files that are written; the formats before had no number."""


@dataclass(frozen=True)
class Kind:
    """How one kind of values stands in a cell."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]
    dtype: Any


def _float(text: str) -> float:
    return float(text) if text else float("nan")


FILES: Mapping[str, Kind] = {
    "int": Kind(str, int, np.int64),
    "float": Kind(lambda value: "" if value != value else repr(value), _float, np.float64),
    "text": Kind(str, str, np.str_),
    "value": Kind(to_cell, from_cell, object),
}

LETTERS = {"i": "int", "u": "int", "b": "int", "f": "float", "U": "text", "O": "value"}
"""By the letters of NumPy's kinds."""


def beside(path: Path) -> Path:
    """Where what a CSV does not hold lies."""
    return path.with_suffix(".json")


def there(path: Path) -> bool:
    """Whether rows lie at a path, whole."""
    return path.is_file() and (beside(path).is_file() or earlier.is_earlier(path))


def write_results(path: Path, columns: Columns, settings: Settings) -> None:
    """Write rows; both files appear whole, the one that says that all is done last."""
    kinds = {name: LETTERS[column.dtype.kind] for name, column in columns.items()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    listed = [map(FILES[kind].write, columns[name].tolist()) for name, kind in kinds.items()]
    writer.writerows(zip(*listed, strict=True))
    text = out.getvalue()
    told = {
        "format": FORMAT,
        "columns": kinds,
        "digest": _digest(text.encode()),
        "settings": json.loads(settings.model_dump_json(exclude_defaults=True)),
    }
    try:
        beside(path).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    with whole(path) as place:
        place.write_bytes(text.encode())
    write_text(beside(path), json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_results(path: Path, what: str, again: str) -> tuple[dict[str, NDArray[Any]], Settings]:
    """The columns and settings of a file; ValueError for any other file.

    what: the file holds, such as `"results"`; again: how to make it again, in words.
    """
    try:
        if earlier.is_earlier(path):
            found, settings = earlier.read_earlier(path)
            return {name: to_column(values) for name, values in found.items()}, settings
        return _read(path)
    except (ValueError, ValidationError, LookupError, TypeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            why = "it is no text in UTF-8"
        elif isinstance(error, ValidationError):
            why = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]
            )
        else:
            why = str(error)
        raise ValueError(f"{path} is no file of {what}, or damaged ({why}); {again}") from error


def to_column(values: list[Any]) -> NDArray[Any]:
    """Values as a column: numbers or text, or objects where they are neither."""
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return np.array(values, dtype=np.str_)
    if kinds == {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float}:
        return np.array(values, dtype=np.float64)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def columns_of(rows: Sequence[Any], kind: type[Any]) -> dict[str, NDArray[Any]]:
    """Rows of a dataclass as columns."""
    return {one.name: to_column([getattr(row, one.name) for row in rows]) for one in fields(kind)}


def read_rows(path: Path, kind: type[R], what: str, again: str) -> tuple[list[R], Settings]:
    """The rows of a file as a dataclass, and its settings; as `read_results`."""
    columns, settings = read_results(path, what, again)
    names = [one.name for one in fields(kind)]  # pyright: ignore[reportArgumentType]
    if set(names) != set(columns):
        raise ValueError(f"{path} holds no {what}: its columns are {', '.join(columns)}; {again}")
    listed = [columns[name].tolist() for name in names]
    return [kind(*values) for values in zip(*listed, strict=True)], settings


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], Settings]:
    raw = path.read_bytes()
    if not beside(path).is_file():
        raise ValueError(f"{beside(path).name}, which belongs beside it, is not there")
    told = read_json(beside(path))
    if told.get("format") != FORMAT:
        raise ValueError(
            f"{beside(path).name} has the format {told.get('format')!r}; this version reads up to "
            f"{FORMAT}"
        )
    if told["digest"] != _digest(raw):
        raise ValueError(f"its bytes are not those that {beside(path).name} tells of")
    header, *records = list(csv.reader(io.StringIO(raw.decode("utf-8"))))
    kinds = {str(name): FILES[kind] for name, kind in told["columns"].items()}
    if header != list(kinds) or any(len(record) != len(kinds) for record in records):
        raise ValueError(f"its columns are {', '.join(header)[:80]!r}")
    found: dict[str, NDArray[Any]] = {}
    cells_of = zip(*records, strict=True) if records else [()] * len(kinds)
    for (name, kind), cells in zip(kinds.items(), cells_of, strict=True):
        values = list(map(kind.read, cells))
        found[name] = to_column(values).astype(kind.dtype)
    return found, Settings(**told["settings"])


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
