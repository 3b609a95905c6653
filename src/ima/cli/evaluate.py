"""`ima evaluate RUN`: what noise breaks a trained run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def evaluate(
    run: Path,
    /,
    *,
    attacks: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    eps: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    checkpoint: Literal["best", "last", "both", "validation"] = "both",
    device: str = "auto",
    seed: int = 0,
    time_budget: str | None = None,
) -> None:
    """Attack a trained run on its test part and write the results into its folder.

    Finished batches are kept: after a stop, the same command continues.

    Parameters
    ----------
    run:
        The run's folder.
    attacks:
        Such as pgd-100 (see `ima list attacks`); the config's if not given.
    eps:
        Noise radii; the config's if not given.
    checkpoint:
        The weights of the epoch that validation picked, of the last one, or both; or the picked
        weights on the validation part, by which comparisons pick tuned options.
    device:
        cpu, cuda, mps or auto.
    seed:
        Of the attacks' random starts.
    time_budget:
        Such as 540s, 9m or 1h30m: stop, with exit code 75, before a batch that may not fit in; the
        same command continues.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    # First, so that what the imports below take counts too.
    budget = None if time_budget is None else Budget.parse(time_budget)
    from ima.report.summary import results_table
    from ima.report.tables import to_text
    from ima.training.evaluating import evaluate_run, forget
    from ima.training.run import Run

    opened = Run.open(run)
    which = ("best", "last") if checkpoint == "both" else (checkpoint,)
    for name in which:
        try:
            results = evaluate_run(
                opened, name, attacks=attacks, eps=eps, device=device, seed=seed, budget=budget
            )
        except OutOfTime as stop:
            print(f"ima: {name} weights: {stop}", file=sys.stderr)
            sys.exit(OUT_OF_TIME)
        print(f"{opened.results(name)}")
        print(to_text(results_table([(name, [results])], opened.config().note)))
    # Not before all are done: a command that was stopped at the last one finds the first finished.
    forget(opened, which)
