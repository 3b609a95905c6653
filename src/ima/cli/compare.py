"""`ima compare CONFIG`: several methods on one data set, one table, pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from ima.training.settings import Config


def compare(
    config: str,
    /,
    *overrides: str,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    jobs: int = 1,
    device: str = "auto",
    time_budget: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train and test the methods of a config under one recipe, and make one table.

    Parameters
    ----------
    config:
        A YAML file with `compare` rows, or the name of a config of the library.
    overrides:
        Changes to the config, such as `train.epochs=20`. Give them before --seeds.
    seeds:
        Seeds of the training; several give mean and standard deviation. Default: 0.
    out:
        The folder for runs, table and pictures. Default: `runs/NAME`.
    jobs:
        How many runs at a time; they share the cores.
    device:
        cpu, cuda, mps or auto.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop in time, with exit code 75; the same command continues. Each
        call does at least one batch.
    trust:
        Run the code of what a config in a run's folder names as module:name. A config of your own
        may always name methods, networks, data and a task of your own.
    dry_run:
        Only say which runs there would be, in which folders, how far they are, and about how long
        the trainings take, from a trial step of each method.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    budget = None if time_budget is None else Budget.parse(time_budget)
    from ima.evaluation.results import Results
    from ima.report.comparison import Compared, Frame, write_comparison
    from ima.training.build import check_buildable
    from ima.training.compare import Candidate, make_runs, plan_runs
    from ima.training.config import load_config, warnings
    from ima.training.origin import (
        about_data,
        attack_lines,
        comparable,
        epochs_picked,
        made_by,
        recipes,
        seconds,
        untimed,
    )
    from ima.training.rows import refuse_rows_own

    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1")
    chosen_seeds = list(dict.fromkeys(seeds or [0]))
    refuse_rows_own(overrides)
    loaded = load_config(config, overrides, trust)
    folder = Path("runs") / loaded.name if out is None else out
    if dry_run:
        tell_runs(loaded, chosen_seeds, folder, device, jobs)
        return
    plans = plan_runs(loaded, chosen_seeds, folder, check_buildable)
    for one in plans:
        for candidate in one.candidates:
            for warning in warnings(candidate.runs[0].config()):
                print(f"note: {one.label}: {warning}")
    try:
        make_runs(plans, jobs=jobs, device=device, budget=budget)
        if budget is not None and budget.worked and budget.over():
            raise OutOfTime("the time is up: all runs are done, the tables are not written")
    except OutOfTime as stop:
        print(f"ima: {stop}; the same command continues", file=sys.stderr)
        sys.exit(OUT_OF_TIME)

    def results(chosen: Candidate, which: str) -> list[Results]:
        if chosen.diverged():
            return []
        return [Results.from_csv(run.results(which)) for run in chosen.runs]

    entries = [
        Compared(
            p.title(),
            results(p.chosen(), "best"),
            results(p.chosen(), "last"),
            p.chosen().runs[0].read_margins(),
            p.chosen().runs[0].examples,
            method=p.row.label,
            swept=p.row.swept,
            seconds=seconds(p.chosen()),
        )
        for p in plans
    ]
    remarks = [
        *about_data(plans),
        *(p.remark() for p in plans if p.tuned or p.chosen().diverged()),
        *attack_lines(one for entry in entries for one in entry.best),
        *epochs_picked(plans),
        *recipes(plans),
        *untimed(plans),
        made_by(plans, loaded, chosen_seeds, overrides, config),
    ]
    # A note tells of the config as it was written.
    changed = f"Changed here: {', '.join(overrides)}." if overrides and loaded.note else ""
    frame = Frame(
        loaded.name,
        f"{loaded.note} {changed}".strip(),
        loaded.evaluate.attacks[0],
        remarks,
        comparable(plans) or "",
        next((p.title() for p in plans if p.chosen().method.name == "standard"), ""),
    )
    print("\n" + write_comparison(folder, entries, frame))
    print(f"{folder / 'table.md'}: the tables with their pictures")


def tell_runs(config: Config, seeds: Sequence[int], folder: Path, device: str, jobs: int) -> None:
    """Print what `--dry-run` asks for."""
    from ima.cli.batches import told
    from ima.training.dry_run import foresee_runs

    seconds = 0.0
    for one in foresee_runs(config, seeds, folder, device):
        left = f", about {told(one.seconds)} of training" if one.seconds else ""
        print(f"{one.folder}  {one.label}  {one.state}{left}", flush=True)
        seconds += one.seconds
    print(f"about {told(seconds / jobs)} of training with --jobs {jobs}; evaluations come after it")
