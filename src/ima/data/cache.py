"""Arrays that are slow to make, kept between runs."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.files import read_arrays, whole

Arrays = Mapping[str, NDArray[Any]]


def cache_root() -> Path:
    """The cache folder: the environment variable IMA_CACHE, else ~/.cache/ima."""
    return Path(os.environ.get("IMA_CACHE") or "~/.cache/ima").expanduser()


def cached(name: str, build: Callable[[], Arrays], *, fits: Callable[[Arrays], bool]) -> Arrays:
    """The arrays stored under `name`, else those of `build()`, which are then stored.

    Stored arrays that cannot be read, or that `fits` refuses, are made anew. A folder that cannot
    be written to only means that nothing is kept.
    """
    file = cache_root() / f"{name}.npz"
    stored = _read(file)
    if stored is not None and fits(stored):
        return stored
    made = build()
    with suppress(OSError), whole(file) as beside, beside.open("wb") as out:
        # Not compressed: reading back has to be faster than decoding the images.
        np.savez(out, **made)  # pyright: ignore[reportArgumentType]
    return made


def _read(file: Path) -> Arrays | None:
    # Absent, truncated, unreadable, no archive at all: always the same answer, make it anew.
    with suppress(Exception):
        return read_arrays(file)
    return None
