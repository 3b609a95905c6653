"""Commands of a comparison, each in a process of its own that ends with this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.training.launch import Launcher
from ima.training.processes import PROGRAM, heeding, run
from ima.training.run import JOBS

ChildReport = Callable[[str, int, int], None]
"""Is told (name, done, total) as work is done."""


def print_done(name: str, done: int, total: int) -> None:
    """How far the work is, as a line of text."""
    print(f"[{done}/{total}] {name}", flush=True)


_LEAST = 2.0
"""Seconds below which nothing is started any more."""

_LOOK = 0.5
"""Seconds between two looks for a signal."""

TAIL, FEW = 8, 3
"""So many last lines of a log, and so many names, stand in messages."""


@dataclass(frozen=True)
class Work:
    """A command of this library.

    name: in messages; words: after `ima`; log: what it prints, anew each time; environ: variables
    of its own; done: nothing remains of it; ended: whether its exit code means that it is done;
    timed: it takes --time-budget, and stops itself; renewed: for others, tells what they would
    continue from; begin: called with it before it starts.
    """

    name: str
    words: tuple[str, ...]
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    done: bool = False
    ended: Callable[[int], bool] = lambda code: code == 0
    timed: bool = True
    renewed: Callable[[], object] = lambda: None
    begin: Callable[[Work], None] = lambda _: None


class End(Enum):
    """How a command ended."""

    DONE = auto()
    STOPPED = auto()
    FAILED = auto()


def work_off(
    chains: Sequence[Sequence[Work]],
    *,
    jobs: int,
    environ: Mapping[str, str],
    budget: Budget | None,
    report: ChildReport = print_done,
    launcher: Launcher | None = None,
) -> None:
    """Do chains of work, `jobs` at a time, each up to the first piece that does not end well.

    environ: the variables of all; launcher: starts them as jobs, and a job whose own time is up in
    another. Every command gets the time that is left when it starts; none but the first is started
    when it is over.
    Raises RuntimeError with the last lines of the commands that failed, after the others have
    ended; OutOfTime where some were stopped for time; SystemExit with 128 + the number of a signal
    that ends this process. Whatever ends it ends the commands too.
    """
    left = [[item for item in chain if not item.done] for chain in chains]
    left = [chain for chain in left if chain]
    if not left:
        return
    halt, counted = threading.Event(), 0
    shared = {**environ, JOBS: str(min(jobs, len(left)))}

    def follow(chain: Sequence[Work]) -> tuple[Work, End]:
        for item in chain:
            if (end := _one(item, shared, budget, halt, launcher)) is not End.DONE:
                return item, end
        return chain[-1], End.DONE

    with heeding(halt) as heed, ThreadPoolExecutor(jobs) as pool:
        try:
            running = [pool.submit(follow, chain) for chain in left]
            waiting = {*running}
            while waiting:
                # A signal that another thread is given, or that comes just before a wait, does not
                # end that wait.
                heed()
                ended, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
                for item, end in (future.result() for future in ended):
                    if end is End.DONE:
                        counted += 1
                        report(item.name, counted, len(left))
        except BaseException:
            # The pool would wait for what runs, and then do the rest.
            halt.set()
            raise
    ends = [future.result() for future in running]
    if failed := [item for item, end in ends if end is End.FAILED]:
        raise RuntimeError("\n".join(map(_failure, failed)))
    if stopped := [item.name for item, end in ends if end is End.STOPPED]:
        more = f" and {len(stopped) - FEW} more" if len(stopped) > FEW else ""
        raise OutOfTime(
            f"the time is up at {', '.join(stopped[:FEW])}{more}: {counted} of {len(left)} are done"
        )


def _one(
    item: Work,
    environ: Mapping[str, str],
    budget: Budget | None,
    halt: threading.Event,
    launcher: Launcher | None,
) -> End:
    first, before = False, item.renewed()
    # Training can stop within an epoch; what an evaluation loses is a whole batch.
    untimed = budget.untimed() if budget is not None and item.words[0] == "evaluate" else 0.0
    if halt.is_set() or (budget is not None and not budget.admits(max(_LEAST, untimed))):
        return End.STOPPED
    if budget is not None:
        # The first one is started in any case, and does a batch at least.
        first = not budget.worked
        budget.did()

    def over() -> bool:
        """Whether to end it for time; the first one when it has left something to continue from."""
        late = not item.timed and budget is not None and budget.over()
        return late and not (first and item.renewed() == before)

    item.log.parent.mkdir(parents=True, exist_ok=True)
    item.begin(item)
    # What another command of this name still prints, after a SIGKILL of its parent, goes to the
    # old file.
    item.log.unlink(missing_ok=True)
    with item.log.open("w", encoding="utf-8") as log:
        while True:
            left = [] if budget is None else [budget.left()]
            left += [] if launcher is None else [launcher.limit]
            limit = ["--time-budget", f"{max(1, int(min(left)))}s"] if item.timed and left else []
            command, own = [*PROGRAM, *item.words, *limit], {**environ, **item.environ}
            code = (launcher or run)(command, stdout=log, env=own, halt=halt, over=over)
            # A job's time was up, and not this command's: it goes on in another.
            again = launcher is not None and code == OUT_OF_TIME and not halt.is_set()
            if not again or (budget is not None and not budget.admits(_LEAST)):
                break
    if item.ended(code):
        return End.DONE
    return End.STOPPED if code == OUT_OF_TIME or halt.is_set() or over() else End.FAILED


def _failure(item: Work) -> str:
    tail = item.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    return f"{item.name} failed, see {item.log}:\n  " + "\n  ".join(tail)
