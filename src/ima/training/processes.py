"""Commands in processes of their own that end with this one, whatever ends it.

A signal to this process ends them first; they notice by themselves when it is killed outright.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from ima.parent import PARENT, PATIENCE

STOPS = [
    number
    for number in signal.Signals
    if number.name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGBREAK")
]
"""Signals that end a process."""

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
"""How Python handles them where nobody has said otherwise."""


PROGRAM = (sys.executable, "-m", "ima")
"""How a command of this library is called."""


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """A command's variables, and what tells it of this process."""
    told = {**env, PARENT: str(os.getpid()), "PYTHONIOENCODING": "utf-8"}
    if sys.path[:1] not in ([""], [str(Path.cwd())]):
        # `python -m` would look for every module in the working folder first, which may be a
        # stranger's; it does so only where this process does.
        told["PYTHONSAFEPATH"] = "1"
    return told


def run(
    command: Sequence[str],
    *,
    stdout: TextIO,
    env: Mapping[str, str],
    halt: threading.Event,
    over: Callable[[], bool] = lambda: False,
) -> int:
    """Run a command to its end, which is made to come when `halt` is set or `over`; its exit code.

    It leads a process group, which is ended with it.
    """
    process = subprocess.Popen(
        command,
        # Its other end closes with this process.
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=_environment(env),
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            if halt.wait(0.1) or over():
                break
    finally:
        _end(process)
        if process.stdin is not None:
            process.stdin.close()
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command, if it runs, together with the processes that it started."""
    for end in ("SIGTERM", "SIGKILL"):
        if process.poll() is not None:
            return
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.Signals[end])
        else:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def heeding(halt: threading.Event) -> Generator[Callable[[], None]]:
    """Let signals that would end this process at once set `halt`, and be raised by what it yields.

    KeyboardInterrupt, or SystemExit with 128 + the number; at the end too, if none was raised.
    Raised where they come they could leave a lock of the pool's taken, for which its threads wait.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        halt.set()

    def heed() -> None:
        if signal.SIGINT in came:
            raise KeyboardInterrupt
        if came:
            sys.exit(128 + came[0])

    # Those that are ignored, as under nohup, or handled by the program around this one, stay so.
    with handling([number for number in STOPS if signal.getsignal(number) in _DEFAULTS], note):
        yield heed
        heed()


@contextmanager
def handling(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Generator[None]:
    """Within: signals are handled so; none arrives in other threads than the main one."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if main}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def ending_workers() -> Generator[None]:
    """Let signals that end this process at once end its worker processes first.

    Ctrl-C is an exception, after which Python ends them by itself.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        for worker in multiprocessing.active_children() if os.getpid() == owner else ():
            worker.kill()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    main = threading.current_thread() is threading.main_thread()
    ours = [n for n in STOPS if main and signal.getsignal(n) is signal.SIG_DFL]
    _MINDED.extend(ours)
    try:
        with handling(ours, end):
            yield
    finally:
        for number in ours:
            _MINDED.remove(number)


_MINDED: list[int] = []
"""The signals that `ending_workers` minds now."""


def _as_usual() -> None:
    for number in _MINDED:
        signal.signal(number, signal.SIG_DFL)


# A pool ends its forked workers by SIGTERM and waits for them. One that minded it as this process
# does might never come to it, where the signal comes just before it waits for work.
os.register_at_fork(after_in_child=_as_usual)
