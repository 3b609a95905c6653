"""Runs of a comparison, each command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.training.run import JOBS, Run

Report = Callable[[str, int, int], None]
"""Is told (folder, done, total) as work is done."""

LEAST = 2.0
"""Seconds below which nothing is started any more."""


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
    ended; OutOfTime where some were stopped for time.
    """
    if not work:
        return
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        JOBS: str(min(jobs, len(work))),
    }

    def one(item: Work) -> End:
        limit: list[str] = []
        if budget is not None:
            left = budget.left()
            if left < LEAST:
                return End.STOPPED
            limit = ["--time-budget", f"{int(left)}s"]
        command = [sys.executable, "-m", "ima", *item.words, "--device", device, *limit]
        with item.log.open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environ)
        return {0: End.DONE, OUT_OF_TIME: End.STOPPED}.get(done.returncode, End.FAILED)

    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(one, item) for item in work]
        whose, done = dict(zip(running, work, strict=True)), 0
        for future in as_completed(running):
            if future.result() is End.DONE:
                done += 1
                report(str(whose[future].run.folder), done, len(work))
    ends = [future.result() for future in running]
    failed = [item for item, end in zip(work, ends, strict=True) if end is End.FAILED]
    if failed:
        raise RuntimeError("\n".join(map(_failure, failed)))
    if End.STOPPED in ends:
        what = work[0].words[0]
        raise OutOfTime(f"the time is up: `ima {what}` is done for {done} of {len(work)} runs")


def _failure(item: Work) -> str:
    tail = item.log.read_text().splitlines()[-5:]
    return f"{item.run.folder} failed, see {item.log}:\n  " + "\n  ".join(tail)
