"""Check what an evaluation of a trained run says; what is found stays in its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ima.budget import Budget
from ima.evaluation.by_batch import within
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.remarks import said_beside
from ima.training.build import BOUNDS
from ima.training.evaluating import CHECKS, load_subject, part
from ima.training.run import Run


def checks_path(run: Run) -> Path:
    """Where the checks of a run lie."""
    return run.results(CHECKS).with_suffix(".json")


@said_beside()
def check_run(
    run: Run,
    which: str = "best",
    *,
    attacks: Sequence[str] | None = None,
    eps: Sequence[float] | None = None,
    transfer_from: Run | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Checks:
    """Run the checks on the `"best"` or the `"last"` weights of a run and write them.

    attacks, eps: of the evaluation that is checked, the config's if None; transfer_from: another
    run on the same data, whose noise is tried on this one; progress: of `run_checks`. What attacks
    found stays in the folder, so that the same call continues checks that were stopped;
    `evaluating.forget` deletes it. Raises FileNotFoundError before a run's first epoch is done;
    otherwise as `run_checks`.
    """
    subject = load_subject(run, which, device)
    config = subject.config
    other = None if transfer_from is None else load_subject(transfer_from, "best", device)
    found = run_checks(
        subject.model,
        subject.part,
        config.evaluate.eps if eps is None else eps,
        config.evaluate.attacks_on(which) if attacks is None else attacks,
        norm=config.norm,
        bounds=BOUNDS,
        transfer=None if other is None else other.model,
        seed=seed,
        progress=progress,
        partial=part(run, CHECKS),
        budget=budget,
    )
    found = replace(found, settings={**found.settings, "bounds": within(BOUNDS), "weights": which})
    found.to_json(checks_path(run))
    return found
