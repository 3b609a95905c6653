"""A command that was started by another one of this library ends when that one is gone.

The starter holds the writing end of the pipe that is the command's standard input, and whatever
ends the starter, SIGKILL too, closes it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

PARENT = "IMA_PARENT"
"""The environment variable that tells a command that its standard input is such a pipe."""

_LOOK = 1.0
"""Seconds between two looks at who the parent is."""

PATIENCE = 10.0
"""Seconds that a command has to end by itself before it is killed."""


def watch_parent() -> None:
    """End as by SIGTERM when whoever started this process is gone, where it asked for that."""
    # Taken out: what this process starts has another parent.
    if os.environ.pop(PARENT, None) is not None:
        threading.Thread(target=_wait, args=(_closed,), name="parent", daemon=True).start()
    # Further processes of a training are started by its first one, in which Fabric does not ask.
    elif os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        first = partial(_orphaned, os.getppid())
        threading.Thread(target=_wait, args=(first,), name="parent", daemon=True).start()


def _closed() -> None:
    """Return when standard input is closed."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass


def _orphaned(parent: int) -> None:
    """Return when the parent is another one."""
    while os.getppid() == parent:
        time.sleep(_LOOK)


def _wait(until: Callable[[], None]) -> None:
    until()
    _end(signal.SIGTERM)
    time.sleep(PATIENCE)
    _end(getattr(signal, "SIGKILL", signal.SIGTERM))


def _end(number: int) -> None:
    """Send a signal to this process, and to those that it started where it leads their group."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), number)
    else:
        os.kill(os.getpid(), number)
