"""A whole table in one command: its commands in their order, each in a process of its own.

    prepare the data -> plan -> for every row: train, attack -> table and pictures

What is done is skipped, so the same command continues one that was stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

from ima.budget import OUT_OF_TIME, WHOLE, Budget, OutOfTime
from ima.files import write_text
from ima.nnunet.experiment import Experiment, Place
from ima.nnunet.settings import CONFIG, KEYS
from ima.nnunet.steps import Step, attack, exports, plan, prepare, train
from ima.training.run import JOBS, environment

PROGRAM = (sys.executable, "-m", "ima")
"""How a command of this library is called."""

LEAST = 2.0
"""Seconds below which nothing is started any more."""

PATIENCE = 10.0
"""Seconds that a command has to end before it is killed."""


class End(Enum):
    """How a command ended."""

    DONE = auto()
    STOPPED = auto()
    FAILED = auto()


Made = Callable[[], Step]
"""A step as things stand when it is its turn."""


def remaining(place: Place) -> str:
    """The commands that remain of an experiment, as a shell would run them."""
    first, chains = _steps(place)
    steps = [make() for makers in [first, *chains] for make in makers]
    left = [step.shown() for step in steps if not step.done]
    return "\n".join([exports(place), *(left or ["# nothing remains but the table"])])


def conduct(place: Place, *, budget: Budget | None = None) -> None:
    """Do what remains of an experiment, but for its page.

    Raises `FileNotFoundError` where the data are not there, `ConfigError` where the folder holds
    another experiment, `RuntimeError` with the last lines of the commands that failed, after the
    others have ended, and `OutOfTime` when the budget is spent.
    """
    first, chains = _steps(place)
    prepare(place)  # Says so if the data are not there, before anything is made.
    place.begin()
    runner = _Runner(place, budget)
    print(exports(place), flush=True)
    with runner.stops():
        runner.work_off([first])
        # Rows stand in the order of their cost; what takes longest begins first.
        runner.work_off(chains[::-1])
    if budget is not None and budget.over():
        raise OutOfTime("the time is up: all is done but the table")


def _steps(place: Place) -> tuple[list[Made], list[list[Made]]]:
    """What comes first, and what every row then needs, in this order."""
    first: list[Made] = [partial(prepare, place), partial(plan, place)]
    return first, [
        [partial(train, place, row), partial(attack, place, row)] for row in place.experiment.rows
    ]


class _Runner:
    """Runs steps, each in a process of its own, within a budget."""

    def __init__(self, place: Place, budget: Budget | None) -> None:
        self.place = place
        self.budget = budget
        self.halt = threading.Event()

    def work_off(self, chains: Sequence[Sequence[Made]]) -> None:
        """Do chains of steps, so many at a time as the place says; see `conduct` for the errors."""
        with ThreadPoolExecutor(self.place.jobs) as pool:
            try:
                ends = list(pool.map(self._chain, chains))
            except BaseException:
                self.halt.set()
                raise
        failed = [what for what, end in ends if end is End.FAILED]
        if failed:
            raise RuntimeError("\n".join(map(self._failure, failed)))
        stopped = [what for what, end in ends if end is End.STOPPED]
        if stopped:
            raise OutOfTime(f"the time is up at {', '.join(stopped)}; what is finished is kept")

    @contextmanager
    def stops(self) -> Generator[None]:
        """On SIGTERM no command goes on behind our back: end them, then end."""

        def end(number: int, frame: FrameType | None) -> NoReturn:
            self.halt.set()
            sys.exit(128 + number)

        try:
            before = signal.signal(signal.SIGTERM, end)
        except ValueError:  # Not the main thread: no signal arrives here.
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _chain(self, makers: Sequence[Made]) -> tuple[str, End]:
        """Do steps up to the first that does not end well; the last one's name and end."""
        what = ""
        for make in makers:
            step = make()
            what = step.what
            if step.done:
                continue
            if self.halt.is_set() or (self.budget is not None and self.budget.left() < LEAST):
                return what, End.STOPPED
            print(f"{step.shown()}\n  log: {self.place.log(what)}", flush=True)
            end = self._one(step)
            if end is End.DONE and not make().done:
                end = End.FAILED
            if end is not End.DONE:
                return what, end
        return what, End.DONE

    def _one(self, step: Step) -> End:
        log = self.place.log(step.what)
        log.parent.mkdir(parents=True, exist_ok=True)
        if step.trains:
            _record(self.place, step)
        limit: list[str] = []
        if step.timed and self.budget is not None:
            limit = ["--time-budget", f"{int(self.budget.left())}s"]
        # What a row is told stands in the experiment alone, not in the caller's environment.
        ours = {CONFIG, *(key.variable for key in KEYS.values())}
        environ = {name: value for name, value in os.environ.items() if name not in ours}
        if self.budget is not None:
            environ[WHOLE] = str(self.budget.whole)
        with log.open("a") as out:
            process = subprocess.Popen(
                [*PROGRAM, *step.words, *limit],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**environ, **step.environ, JOBS: str(self.place.jobs)},
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    over = self.budget is not None and self.budget.over()
                    if self.halt.wait(0.2) or (over and not step.timed):
                        return End.STOPPED
            finally:
                _end(process)
        return {0: End.DONE, OUT_OF_TIME: End.STOPPED}.get(process.returncode, End.FAILED)

    def _failure(self, what: str) -> str:
        log = self.place.log(what)
        tail = log.read_text(errors="replace").splitlines()[-8:]
        return f"{what} failed, see {log}:\n  " + "\n  ".join(tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command, if it runs, together with the processes that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue


def _record(place: Place, step: Step) -> None:
    """Add with what and where a network is trained, for the page."""
    file = place.log(step.what).with_suffix(".json")
    made = _made(place, step.what)
    write_text(file, json.dumps([*made, environment(place.device)], indent=2) + "\n")


def _made(place: Place, what: str) -> list[dict[str, Any]]:
    file = place.log(what).with_suffix(".json")
    return json.loads(file.read_text()) if file.exists() else []


def provenance(place: Place) -> str:
    """Commit and machine of the trainings behind a table, in one paragraph."""
    one, split = place.experiment, place.task.split
    found = [made for row in one.rows for made in _made(place, train(place, row).what)]

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(made.get(key)) for made in found)) or "unknown"

    return (
        f"Networks trained by nnU-Net {version('nnunetv2')} ({one.configuration}) at commit "
        f"{each('commit')}, ima {each('ima')}, torch {each('torch')}, Python {each('python')}, "
        f"{each('device')} with {each('cores')} cores. All rows share the plans, batches of "
        f"{one.batch_size}, {one.epochs} epochs of {one.iterations} iterations{_first(one)} and "
        f"the case split of seed {place.seed} ({one.train_cases or split[0]} for training, "
        f"{split[1]} for validation, {split[2]} for test); weights of the last epoch."
    )


def _first(one: Experiment) -> str:
    return f" (the first {one.standard_epochs} without noise)" if one.standard_epochs else ""
