"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """A path beside `path` to write to, which takes its place at the end.

    After an error `path` is as it was. The folder is made where it is missing. Of several processes
    that write the same file, the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with the same line ends everywhere, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed .npz, whole or not at all."""
    # Through a handle: numpy adds an ending to names that do not have its own.
    with whole(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def digest(path: Path) -> str:
    """A digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
