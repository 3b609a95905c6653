"""What a file would take in memory, asked before it is taken."""

from __future__ import annotations

import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np

_FREE = 1 << 30
"""Bytes that any file may become."""

RATIO = 100
"""How many times its own size a file may become beyond: images and tables stay far below."""

ADVICE = "if it is yours, store less in it, or without compression"


class TooLargeError(ValueError):
    """A file that would become too large in memory."""


def check_memory(
    what: str, need: int, stored: int, *, advice: str = ADVICE, folder: Path | None = None
) -> None:
    """Raise TooLargeError where a file would become too large in memory, or in a folder.

    need: bytes that it becomes; stored: bytes of the file; folder: where it goes, memory if None.
    Refused is what this machine does not have, and a file that becomes a multiple of itself, as one
    made to fill the memory does.
    """
    has, where = (_physical(), "memory") if folder is None else (_room(folder), str(folder))
    if need > _FREE and need > RATIO * stored:
        raise TooLargeError(
            f"{what}: {human_size(stored)} would become {human_size(need)} in {where}, "
            f"{need // max(stored, 1)} times as much, as no usual file does; {advice}"
        )
    if has is not None and need > has:
        raise TooLargeError(
            f"{what}: {human_size(stored)} would become {human_size(need)} in {where}, "
            f"and this machine has {human_size(has)}{'' if folder is None else ' left there'}; "
            f"{advice}"
        )


def check_npz(path: Path, names: Collection[str] | None = None) -> None:
    """Raise TooLargeError where the arrays of an .npz, or those of the names, are too large.

    Files that are no .npz, or damaged, are left to whoever reads them.
    """
    need = stored = 0
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if names is None or info.filename.removesuffix(".npy") in names:
                need += max(info.file_size, _promised(archive, info))
                stored += info.compress_size
    check_memory(str(path), need, stored)


def _promised(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """How many bytes an array's head says that it has: numpy makes room for them first."""
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(file)
            return math.prod(shape) * dtype.itemsize
    except (ValueError, LookupError, OSError, EOFError, RuntimeError, zlib.error, SyntaxError):
        return 0


def human_size(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _room(folder: Path) -> int | None:
    """What is free on the disk of a folder, which need not be there yet."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    with suppress(OSError):
        return None if there is None else shutil.disk_usage(there).free
    return None


def _physical() -> int | None:
    """All memory of the machine, where the system tells it."""
    with suppress(AttributeError, ValueError, OSError):  # as on Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
