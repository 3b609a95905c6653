"""What a process gets of the machine: threads, and memory that it keeps."""

from __future__ import annotations

import ctypes
import os

_TRIM, _MMAP = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""

_BLOCKS = (1 << 28, 1 << 25)
"""Bytes up to which a block is kept; older versions of glibc take no more than the second."""


def cores() -> int:
    """The cores that this process may use: fewer than the machine has in many job queues."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(jobs: int) -> int:
    """For each of `jobs` processes an equal share of the cores, at most OMP_NUM_THREADS."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // jobs)
    return min(share, int(asked)) if asked.isdigit() and int(asked) else share


def keep_freed() -> bool:
    """Let this process keep the memory that it frees, for its next need; whether it can.

    glibc gives large blocks back to the system, and the next pass through a network gets its
    activations anew, page by page, each filled with zeros first. What a user set stays.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # elsewhere than on Linux
        return False
    return any(tell(_MMAP, size) for size in _BLOCKS) and bool(tell(_TRIM, (1 << 31) - 1))
