"""Commands in processes of their own, side by side, that end with this one whatever ends it.

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
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO, TypeVar

from ima.parent import PARENT, PATIENCE

T = TypeVar("T")

LOOK = 0.5
"""Seconds between two looks for a signal."""

STOPS = [
    number
    for number in signal.Signals
    if number.name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGBREAK")
]
"""Signals that end a process."""

DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
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


def side_by_side(
    tasks: Sequence[Callable[[], T]],
    *,
    jobs: int,
    halt: threading.Event,
    done: Callable[[int, T], None] | None = None,
) -> list[T]:
    """What the tasks return, `jobs` at a time, each in a thread; they must look at `halt`.

    done: is told the number and the result of each as it ends. Raises what a task raises, and
    KeyboardInterrupt, or SystemExit with 128 + its number, for a signal that would end this
    process; `halt` is set then, and what runs has ended.
    """
    with _heeding(halt) as heed, ThreadPoolExecutor(jobs) as pool:
        try:
            running = [pool.submit(task) for task in tasks]
            left = {future: number for number, future in enumerate(running)}
            while left:
                # A signal that another thread is given, or that comes just before a wait, does not
                # end that wait.
                heed()
                for future in wait(left, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    number, result = left.pop(future), future.result()
                    if done is not None:
                        done(number, result)
        except BaseException:
            # The pool would wait for what runs, and then do the rest.
            halt.set()
            raise
    return [future.result() for future in running]


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
def _heeding(halt: threading.Event) -> Generator[Callable[[], None]]:
    """Let signals that would end this process at once set `halt`, and be raised by what it yields.

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

    main = threading.current_thread() is threading.main_thread()
    # Those that are ignored, as under nohup, or handled by the program around this one, stay so.
    before = {n: signal.getsignal(n) for n in STOPS if main}
    ours = {n: old for n, old in before.items() if old in DEFAULTS}
    for number in ours:
        signal.signal(number, note)
    try:
        yield heed
        heed()
    finally:
        for number, old in ours.items():
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
    for number in ours:
        signal.signal(number, end)
    _MINDED.extend(ours)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
            _MINDED.remove(number)


_MINDED: list[int] = []
"""The signals that `ending_workers` minds now."""


def _as_usual() -> None:
    for number in _MINDED:
        signal.signal(number, signal.SIG_DFL)


# A pool ends its forked workers by SIGTERM and waits for them. One that minded it as this process
# does might never come to it, where the signal comes just before it waits for work.
os.register_at_fork(after_in_child=_as_usual)
