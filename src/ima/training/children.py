"""Runs of a comparison, each command in a process of its own that ends with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import FrameType
from typing import TextIO

from ima.budget import OUT_OF_TIME, WHOLE, Budget, OutOfTime
from ima.cores import threads
from ima.training.run import JOBS, Run

Report = Callable[[str, int, int], None]
"""Is told (folder, done, total) as work is done."""

LEAST = 2.0
"""Seconds below which nothing is started any more."""

PATIENCE = 10.0
"""Seconds that a command has to end before it is killed."""

LOOK = 0.5
"""Seconds between two looks for a signal."""

STOPS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP", "SIGINT")]
"""Signals that end a process."""

DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
"""How Python handles them where nobody has said otherwise."""


@dataclass(frozen=True)
class Work:
    """What is to be done to a run: the words of an `ima` command."""

    run: Run
    words: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the command prints."""
        return self.run.folder / f"{self.words[0]}.log"


class End(Enum):
    """How a command ended."""

    DONE = auto()
    STOPPED = auto()
    FAILED = auto()


def work_off(
    work: Sequence[Work], *, jobs: int, device: str, budget: Budget | None, report: Report
) -> None:
    """Do all of it, `jobs` at a time, each with an equal share of the cores.

    Every command gets the time that is left when it starts; none is started when it is over.
    Raises RuntimeError with the last lines of the commands that failed, after the others have
    ended; OutOfTime where some were stopped for time; SystemExit with 128 + the number of a signal
    that ends this process. Whatever ends it but SIGKILL ends the commands first.
    """
    if not work:
        return
    each = str(threads(jobs))
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": each,
        "MKL_NUM_THREADS": each,
        JOBS: str(min(jobs, len(work))),
    }
    if budget is not None:
        environ[WHOLE] = str(budget.whole)
    halt = threading.Event()

    def one(item: Work) -> End:
        if halt.is_set():
            return End.STOPPED
        limit: list[str] = []
        if budget is not None:
            left = budget.left()
            # Training can stop within an epoch; what an evaluation loses is a whole batch.
            if left < (LEAST if item.words[0] == "train" else max(LEAST, budget.untimed())):
                return End.STOPPED
            limit = ["--time-budget", f"{int(left)}s"]
        command = [sys.executable, "-m", "ima", *item.words, "--device", device, *limit]
        # What another command on this run still prints, after a SIGKILL of its parent, goes to the
        # old file.
        item.log.unlink(missing_ok=True)
        with item.log.open("w") as log:
            code = run(command, stdout=log, env=environ, halt=halt)
        if item.words[0] == "train" and item.run.diverged.exists():
            # It would diverge again: that is its result.
            return End.DONE
        return {0: End.DONE, OUT_OF_TIME: End.STOPPED}.get(code, End.FAILED)

    with _heeding(halt) as heed, ThreadPoolExecutor(jobs) as pool:
        try:
            running = [pool.submit(one, item) for item in work]
            whose, done = dict(zip(running, work, strict=True)), 0
            while whose:
                # A signal that another thread is given, or that comes just before a wait, does not
                # end that wait.
                heed()
                for future in wait(whose, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    item = whose.pop(future)
                    if future.result() is End.DONE:
                        done += 1
                        report(str(item.run.folder), done, len(work))
        except BaseException:
            # The pool would wait for what runs, and then do the rest.
            halt.set()
            raise
    ends = [future.result() for future in running]
    failed = [item for item, end in zip(work, ends, strict=True) if end is End.FAILED]
    if failed:
        raise RuntimeError("\n".join(map(_failure, failed)))
    if End.STOPPED in ends:
        what = work[0].words[0]
        raise OutOfTime(f"the time is up: `ima {what}` is done for {done} of {len(work)} runs")


def run(
    command: Sequence[str], *, stdout: TextIO, env: Mapping[str, str], halt: threading.Event
) -> int:
    """Run a command to its end, which is made to come when `halt` is set; its exit code."""
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.STDOUT, env=env)
    try:
        while process.poll() is None:
            if halt.wait(0.1):
                break
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    for end in (process.terminate, process.kill):
        if process.poll() is not None:
            return
        end()
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


def _failure(item: Work) -> str:
    tail = item.log.read_text(errors="replace").splitlines()[-5:]
    return f"{item.run.folder} failed, see {item.log}:\n  " + "\n  ".join(tail)
