"""Signals that stop a run wait until its files are whole."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

from ima.training.processes import STOPS


@contextmanager
def held_back() -> Generator[None]:
    """Hold back the signals that end a process until the files of an epoch are written."""
    held: list[int] = []
    try:
        old = {number: signal.signal(number, lambda n, _: held.append(n)) for number in STOPS}
    except ValueError:  # Not the main thread: no signal arrives here.
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)
