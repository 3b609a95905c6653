"""What a process gets of the machine: the memory that it frees is its own until it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ima.cores import keep_freed

SCRIPT = """\
import resource, sys
import numpy as np
from ima.cores import keep_freed

told = keep_freed() if sys.argv[1] == "keep" else False
for _ in range(3):
    np.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(5_000_000)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(asked: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed` said, and how many pages came from the system in ten rounds of 40 MB."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, asked],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    told, count = done.stdout.split()
    return told, int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    told, count = pages("keep")
    if told == "False":
        pytest.skip("this C library has no mallopt")
    assert count < 100
    assert pages("no")[1] > count


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert keep_freed() is False
