"""What a file would take in memory, asked before it is taken."""

from __future__ import annotations

import os
from contextlib import suppress

FREE = 1 << 30
"""Bytes that any file may become."""

RATIO = 100
"""How many times its own size a file may become beyond: images and tables stay far below."""


def check_memory(what: str, need: int, stored: int, *, advice: str) -> None:
    """Raise ValueError where a file would become too large in memory.

    need: bytes in memory; stored: bytes of the file. Refused is what this machine does not have,
    and a file that becomes a multiple of itself, as one made to fill the memory does.
    """
    has = _physical()
    if need > FREE and need > RATIO * stored:
        raise ValueError(
            f"{what}: {size(stored)} would become {size(need)} in memory, {need // max(stored, 1)} "
            f"times as much, as no usual file does; {advice}"
        )
    if has is not None and need > has:
        raise ValueError(
            f"{what}: {size(stored)} would become {size(need)} in memory, and this machine has "
            f"{size(has)}; {advice}"
        )


def size(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.4g} GB"


def _physical() -> int | None:
    """All memory of the machine, where the system tells it."""
    with suppress(AttributeError, ValueError, OSError):  # as on Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
