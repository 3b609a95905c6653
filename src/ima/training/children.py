"""Runs of a comparison, each command in a process of its own that ends with this one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path

from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.cores import threads
from ima.training.processes import PROGRAM, run, side_by_side
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

    Every command gets the time that is left when it starts; none but the first is started when it
    is over.
    Raises RuntimeError with the last lines of the commands that failed, after the others have
    ended; OutOfTime where some were stopped for time; SystemExit with 128 + the number of a signal
    that ends this process. Whatever ends it ends the commands too.
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
    halt = threading.Event()

    def one(item: Work) -> End:
        if halt.is_set():
            return End.STOPPED
        limit: list[str] = []
        if budget is not None:
            # Training can stop within an epoch; what an evaluation loses is a whole batch.
            least = LEAST if item.words[0] == "train" else max(LEAST, budget.untimed())
            if not budget.admits(least):
                return End.STOPPED
            # The first one is started in any case, and does a batch at least.
            budget.did()
            limit = ["--time-budget", f"{max(1, int(budget.left()))}s"]
        command = [*PROGRAM, *item.words, "--device", device, *limit]
        # What another command on this run still prints, after a SIGKILL of its parent, goes to the
        # old file.
        item.log.unlink(missing_ok=True)
        with item.log.open("w", encoding="utf-8") as log:
            code = run(command, stdout=log, env=environ, halt=halt)
        if item.words[0] == "train" and item.run.diverged.exists():
            # It would diverge again: that is its result.
            return End.DONE
        return {0: End.DONE, OUT_OF_TIME: End.STOPPED}.get(code, End.FAILED)

    counted = 0

    def tell(number: int, end: End) -> None:
        nonlocal counted
        if end is End.DONE:
            counted += 1
            report(str(work[number].run.folder), counted, len(work))

    ends = side_by_side([partial(one, item) for item in work], jobs=jobs, halt=halt, done=tell)
    failed = [item for item, end in zip(work, ends, strict=True) if end is End.FAILED]
    if failed:
        raise RuntimeError("\n".join(map(_failure, failed)))
    if End.STOPPED in ends:
        what = work[0].words[0]
        raise OutOfTime(f"the time is up: `ima {what}` is done for {counted} of {len(work)} runs")


def _failure(item: Work) -> str:
    tail = item.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return f"{item.run.folder} failed, see {item.log}:\n  " + "\n  ".join(tail)
