"""Where data sets lie on this machine."""

import difflib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Row = TypeVar("Row")


def data_root() -> Path:
    """The folder that holds data sets: the environment variable IMA_DATA, else ./data."""
    return Path(os.environ.get("IMA_DATA") or "data").expanduser()


def locate(name: str, path: str | Path | None, *, usual: Sequence[str], where: str) -> Path:
    """The first place that exists: `path`, else one of the `usual` names in `data_root()`.

    A relative `path` is looked for from the working folder, then from `data_root()`, so that one
    config works on several machines. An empty folder is taken where no other place exists. Raises
    `FileNotFoundError` that lists the places and repeats `where`.
    """
    if path is None:
        tried = [data_root() / entry for entry in usual]
    else:
        given = Path(path).expanduser()
        tried = [given] if given.is_absolute() else [given, data_root() / given]
    there = [candidate for candidate in tried if candidate.exists()]
    if not there:
        raise missing(name, tried, where=where)
    return next((candidate for candidate in there if not _empty(candidate)), there[0])


def _empty(place: Path) -> bool:
    # One that may not be read counts as full: reading it says why.
    with suppress(OSError):
        return place.is_dir() and not any(place.iterdir())
    return False


def check_size(name: str, size: int | None, side: int) -> None:
    """Raise ValueError where images of a data set that has one size are wanted in another."""
    if size not in (None, side):
        raise ValueError(
            f"data set {name!r} has {side}x{side} images, got size {size}; leave data.size out"
        )


def row_of(table: Mapping[str, Row], name: str, what: str) -> Row:
    """The row of a table; ValueError, with the nearest name, where there is none. what: it is."""
    if name not in table:
        nearest = difflib.get_close_matches(name.casefold(), table, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no {what} is known for {name!r}; did you mean {nearest!r}? There are: "
            f"{', '.join(table)}"
        )
    return table[name]


def missing(name: str, tried: Sequence[Path], *, where: str) -> FileNotFoundError:
    """The error for a data set that was not found at any of the places `tried`."""
    places = "".join(f"\n  {place.absolute()}" for place in tried)
    return FileNotFoundError(
        f"data set {name!r} was not found. Looked for:{places}\n{where}\n"
        "Then point to it with data.path=... (in `ima data` with --path), or set the environment "
        "variable IMA_DATA to the folder that holds it "
        f"(now {os.environ.get('IMA_DATA') or 'not set, so ./data is used'})."
    )
