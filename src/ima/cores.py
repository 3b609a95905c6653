"""How many threads each of several processes gets."""

from __future__ import annotations

import os


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
