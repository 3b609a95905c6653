"""A whole table in one command: its commands in their order, each in a process of its own.

    prepare the data -> plan -> for every row: train, attack -> table and pictures

What is done is skipped, so the same command continues one that was stopped.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from importlib.metadata import version
from typing import Any

from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.files import read_json, write_text
from ima.nnunet.experiment import Experiment, Place
from ima.nnunet.settings import CONFIG, KEYS
from ima.nnunet.steps import Step, attack, exports, plan, prepare, train
from ima.training.processes import PROGRAM, run, side_by_side
from ima.training.run import JOBS, environment

LEAST = 2.0
"""Seconds below which nothing is started any more."""


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
    runner.work_off([first])
    # Rows stand in the order of their cost; what takes longest begins first.
    runner.work_off(chains[::-1])
    if budget is not None and budget.worked and budget.over():
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
        tasks = [partial(self._chain, chain) for chain in chains]
        ends = side_by_side(tasks, jobs=self.place.jobs, halt=self.halt)
        failed = [what for what, end in ends if end is End.FAILED]
        if failed:
            raise RuntimeError("\n".join(map(self._failure, failed)))
        stopped = [what for what, end in ends if end is End.STOPPED]
        if stopped:
            raise OutOfTime(f"the time is up at {', '.join(stopped)}; what is finished is kept")

    def _chain(self, makers: Sequence[Made]) -> tuple[str, End]:
        """Do steps up to the first that does not end well; the last one's name and end."""
        what = ""
        for make in makers:
            step = make()
            what = step.what
            if step.done:
                continue
            if self.halt.is_set() or (self.budget is not None and not self.budget.admits(LEAST)):
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
        over = _Over(step, self.budget)
        limit: list[str] = []
        if step.timed and self.budget is not None:
            limit = ["--time-budget", f"{max(1, int(self.budget.left()))}s"]
        # What a row is told stands in the experiment alone, not in the caller's environment.
        ours = {CONFIG, *(key.variable for key in KEYS.values())}
        environ = {name: value for name, value in os.environ.items() if name not in ours}
        with log.open("a", encoding="utf-8") as out:
            code = run(
                [*PROGRAM, *step.words, *limit],
                stdout=out,
                env={**environ, **step.environ, JOBS: str(self.place.jobs)},
                halt=self.halt,
                over=over,
            )
        if self.halt.is_set() or over.ended:
            return End.STOPPED
        return {0: End.DONE, OUT_OF_TIME: End.STOPPED}.get(code, End.FAILED)

    def _failure(self, what: str) -> str:
        log = self.place.log(what)
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return f"{what} failed, see {log}:\n  " + "\n  ".join(tail)


class _Over:
    """Whether to end a step for time. ended: whether it was.

    One that stops itself is left alone. The first of a call, which may be all that there is time
    for, is ended when it has left something to continue from: a training its next checkpoint,
    others what they are for.
    """

    def __init__(self, step: Step, budget: Budget | None) -> None:
        self.step, self.budget, self.ended = step, budget, False
        self.first, self.before = budget is not None and not budget.worked, step.renewed()
        if budget is not None:
            budget.did()

    def __call__(self) -> bool:
        over = self.budget is not None and not self.step.timed and self.budget.over()
        if over and self.first:
            over = self.step.renewed() != self.before
        self.ended = over
        return over


def _record(place: Place, step: Step) -> None:
    """Add with what and where a network is trained, for the page."""
    file = place.log(step.what).with_suffix(".json")
    made = _made(place, step.what)
    write_text(file, json.dumps([*made, environment(place.device)], indent=2) + "\n")


def _made(place: Place, what: str) -> list[dict[str, Any]]:
    file = place.log(what).with_suffix(".json")
    return read_json(file, list) if file.exists() else []


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
