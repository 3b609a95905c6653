"""`ima evaluate RUN`: what noise breaks a trained run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ima.budget import Budget


def evaluate_run(
    folder: Path,
    which: Sequence[str],
    *,
    eps: Sequence[float] | None,
    attacks: Sequence[str] | None,
    device: str,
    seed: int,
    distances: bool,
    checks: bool,
    strict: bool,
    transfer_from: Path | None,
    budget: Budget | None,
    trust: bool,
    model: str | None,
) -> None:
    """Attack weights of a run; tables are printed, results go into its folder."""
    from ima.budget import OUT_OF_TIME, OutOfTime
    from ima.cli.batches import lines
    from ima.cli.checking import tell
    from ima.environments import data_told
    from ima.report import white
    from ima.report.distances import told
    from ima.report.summary import epoch_told, results_table
    from ima.report.tables import to_text
    from ima.training import evaluating
    from ima.training.checking import check_run, checks_path
    from ima.training.lock import Lock
    from ima.training.run import Run
    from ima.training.trust import said_again

    trusted = trust or said_again(folder, model)
    run = Run.open(folder, trust=trusted)
    other = None if transfer_from is None else Run.open(transfer_from, trust=trusted)
    if other is not None:
        # Refused before there is work to lose.
        other.config()
    doing, verdict = "", None
    with Lock(folder, "evaluate"):
        try:
            for name in which:
                doing = f"{name} weights"
                results = evaluating.evaluate_run(
                    run,
                    name,
                    attacks=attacks,
                    eps=eps,
                    device=device,
                    seed=seed,
                    progress=lines(doing),
                    budget=budget,
                )
                print(f"{run.results(name)}")
                note = "" if name == evaluating.VALIDATION else run.config().note
                notes = filter(None, (note, epoch_told(results)))
                print(to_text(results_table([(name, [results])], " ".join(notes))))
                if noise := white.told(results):
                    print(noise)
            for about in data_told(run.environment()):
                print(f"data: {about}")
            if distances:
                doing = "smallest noise"
                found = evaluating.distances_run(
                    run, device=device, seed=seed, progress=lines(doing), budget=budget
                )
                print(f"{run.distances}")
                print(told(found, run.config().evaluate.eps))
            if checks:
                doing = "checks"
                verdict = check_run(
                    run,
                    "last" if tuple(which) == ("last",) else "best",
                    attacks=attacks,
                    eps=eps,
                    transfer_from=other,
                    device=device,
                    seed=seed,
                    progress=lines(doing, "check"),
                    budget=budget,
                )
        except OutOfTime as stop:
            print(f"ima: {doing}: {stop}", file=sys.stderr)
            sys.exit(OUT_OF_TIME)
        # Not before all are done: a command that was stopped at the last one finds the first
        # finished.
        also = {evaluating.DISTANCES: distances, evaluating.CHECKS: checks}
        evaluating.forget(run, [*which, *(name for name, done in also.items() if done)])
    if verdict is not None:
        tell(verdict, checks_path(run), strict=strict)
