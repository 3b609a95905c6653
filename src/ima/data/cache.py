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


def in_cache(name: str, *, fits: Callable[[Arrays], bool]) -> Arrays | None:
    """The arrays stored under `name`; None where they cannot be read, or `fits` refuses them."""
    stored = _read(cache_root() / f"{name}.npz")
    return stored if stored is not None and fits(stored) else None


def cache(name: str, arrays: Arrays) -> None:
    """Store arrays under `name`; in a folder that cannot be written to nothing is kept."""
    with suppress(OSError), whole(cache_root() / f"{name}.npz") as beside, beside.open("wb") as out:
        # Not compressed: reading back has to be faster than decoding the images.
        np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]


def _read(file: Path) -> Arrays | None:
    # Absent, truncated, unreadable, no archive at all: always the same answer, make it anew.
    with suppress(Exception):
        return read_arrays(file)
    return None
