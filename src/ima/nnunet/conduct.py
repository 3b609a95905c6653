"""A whole table in one command: its commands in their order, each in a process of its own.

    prepare the data -> plan -> for every row: train, attack -> table and pictures

What is done is skipped, so the same command continues one that was stopped.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version

from ima.budget import Budget, OutOfTime
from ima.nnunet.experiment import Experiment, Place
from ima.nnunet.settings import CONFIG, KEYS
from ima.nnunet.steps import (
    attack,
    exports,
    plan_steps,
    preparation,
    recorded,
    shown,
    train_network,
)
from ima.training.children import Work, work_off
from ima.training.origin import made_at


def remaining(place: Place) -> str:
    """The commands that remain of an experiment, as a shell would run them."""
    chains = [[preparation(place), plan_steps(place)], *_rows(place)]
    left = [shown(step) for chain in chains for step in chain if not step.done]
    return "\n".join([exports(place), *(left or ["# nothing remains but the table"])])


def conduct(place: Place, *, budget: Budget | None = None) -> None:
    """Do what remains of an experiment, but for its page.

    Raises `FileNotFoundError` where the data are not there, `ConfigError` where the folder holds
    another experiment, `RuntimeError` with the last lines of the commands that failed, after the
    others have ended, and `OutOfTime` when the budget is spent.
    """
    first = [preparation(place), plan_steps(place)]  # Says if the data are not there, before all.
    place.begin()
    # What a row is told stands in the experiment alone, not in the caller's environment.
    ours = {CONFIG, *(key.variable for key in KEYS.values())}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    do = partial(work_off, jobs=place.jobs, environ=environ, budget=budget)
    print(exports(place), flush=True)
    do([first])
    # Rows stand in the order of their cost; what takes longest begins first.
    do(_rows(place)[::-1])
    if budget is not None and budget.worked and budget.over():
        raise OutOfTime("the time is up: all is done but the table")


def _rows(place: Place) -> list[list[Work]]:
    return [[train_network(place, row), attack(place, row)] for row in place.experiment.rows]


def provenance(place: Place) -> str:
    """Commit and machine of the trainings behind a table, in one paragraph."""
    one, split = place.experiment, place.task.split
    found = [made for row in one.rows for made in recorded(place, train_network(place, row).name)]
    return (
        f"Networks trained by nnU-Net {version('nnunetv2')} ({one.configuration}) at "
        f"{made_at(found)}. All rows share the plans, batches of "
        f"{one.batch_size}, {one.epochs} epochs of {one.iterations} iterations{_first(one)} and "
        f"the case split of seed {place.seed} ({one.train_cases or split[0]} for training, "
        f"{split[1]} for validation, {split[2]} for test); weights of the last epoch."
    )


def _first(one: Experiment) -> str:
    return f" (the first {one.standard_epochs} without noise)" if one.standard_epochs else ""
