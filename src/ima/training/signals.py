"""Signals that stop a run wait until its files are whole."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

from ima.training.processes import STOPS, handling


@contextmanager
def held_back() -> Generator[None]:
    """Hold back the signals that end a process until the files of an epoch are written."""
    held: list[int] = []
    try:
        with handling(STOPS, lambda number, _: held.append(number)):
            yield
    finally:
        for number in held:
            signal.raise_signal(number)
