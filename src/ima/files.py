"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

_IN_THE_WAY = "a {} is in the way: move it, or name another place"
_FULL = "make room on the disk, or name a place on another one"
_ADVICE = {
    errno.EEXIST: _IN_THE_WAY.format("file"),
    errno.ENOTDIR: _IN_THE_WAY.format("file"),
    errno.EISDIR: _IN_THE_WAY.format("folder"),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}
"""What to do where a place cannot be written to, by the system's number of the error."""


def unwritable(place: Path, error: OSError) -> OSError:
    """The error for a place that cannot be written to: its class kept, what to do said."""
    advice = _ADVICE.get(error.errno or 0, "name a place that you may write to")
    return type(error)(f"{place} cannot be written ({error.strerror or error}); {advice}")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises an OSError of the system's kind, such as PermissionError, that says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """A path beside `path` to write to, which takes its place at the end.

    After an error `path` is as it was. The folder is made where it is missing. Of several processes
    that write the same file, the last one wins. A folder that cannot be written to, and a full
    disk, raise an OSError of the system's kind that says what to do.
    """
    make_folder(path.parent)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        # What else is done meanwhile, such as reading, has errors of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename == str(beside):
            raise unwritable(path, error) from error
        raise
    finally:
        # Where nothing can be written, nothing can be deleted either; the error above says so.
        with suppress(OSError):
            beside.unlink()


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
