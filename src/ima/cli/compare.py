"""`ima compare CONFIG`: several methods on one data set, one table, pictures."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ima.cli.streams import as_json, aside


def compare(
    config: str,
    /,
    *overrides: str,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    jobs: int | None = None,
    launcher: Literal["local", "slurm"] | None = None,
    resources: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    device: str = "auto",
    time_budget: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
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
        How many runs at a time; here they share the cores. Default: 1, with --launcher slurm all.
    launcher:
        Run each training and test as a job of submitit: local, on this machine, or slurm. A job
        that Slurm takes back is queued again and continues; folders must be on a shared disk.
    resources:
        Of each job, in submitit's words: timeout_min=240 cpus_per_task=4 gpus_per_node=1
        slurm_partition=NAME.
    device:
        cpu, cuda, mps or auto.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop in time, with exit code 75; the same command continues. Each
        call does at least one batch.
    trust:
        Run the code of what a config in a run's folder names as module:name. A config of your own
        may always name methods, networks, data and a task of your own.
    dry_run:
        Print every run, its folder and how long its training may take, by a trial of three batches;
        train nothing.
    json:
        Print what the tables hold as JSON, for programs, and nothing else: the page of `ima
        report`, with its remarks.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    budget = None if time_budget is None else Budget.parse(time_budget)
    from ima.evaluation.results import Results
    from ima.report.comparison import Compared, Frame, write_comparison
    from ima.report.entries import PageEntry
    from ima.report.html.jsonform import page_data
    from ima.report.sources import read_source
    from ima.training.build import check_buildable
    from ima.training.compare import Candidate, make_runs, plan_runs
    from ima.training.config import load_config, warnings
    from ima.training.launch import make_launcher
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
    from ima.training.trial import told, trials

    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1")
    started = make_launcher(launcher, resources or ())
    chosen_seeds = list(dict.fromkeys(seeds or [0]))
    refuse_rows_own(overrides)
    loaded = load_config(config, overrides, trust)
    folder = Path("runs") / loaded.name if out is None else out
    plans = plan_runs(loaded, chosen_seeds, folder, check_buildable, write=not dry_run)
    with aside(json):
        for one in plans:
            for candidate in one.candidates:
                for warning in warnings(candidate.runs[0].config()):
                    print(f"note: {one.label}: {warning}")
    if dry_run:
        found = trials(plans, device)
        with aside(json):
            print("\n".join(told(found)))
        if json:
            print(as_json([asdict(one) for one in found]))
        return
    try:
        with aside(json):
            every = sum(len(one.runs) for plan in plans for one in plan.candidates)
            many = jobs or (every if launcher == "slurm" else 1)
            make_runs(plans, jobs=many, device=device, budget=budget, launcher=started)
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
    with aside(json):
        print("\n" + write_comparison(folder, entries, frame))
        print(f"{folder / 'table.md'}: the tables with their pictures")
    if json:
        shown = {p.title(): p.chosen().runs for p in plans if not p.chosen().diverged()}
        pages = [
            PageEntry(name, tuple(read_source(r.folder) for r in runs))
            for name, runs in shown.items()
        ]
        print(as_json({**page_data(pages), "folder": str(folder), "remarks": remarks}))
