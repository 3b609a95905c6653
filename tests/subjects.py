"""What a run's commands measure, in one call each, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ima.budget import Budget, Progress, silent
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.results import Results
from ima.evaluation.subject import check_subject, evaluate_subject, measure_distances
from ima.training.evaluating import run_subject
from ima.training.run import Run

Tell = Callable[[int, int], None]


def evaluate_run(
    run: Run,
    which: str,
    *,
    attacks: Sequence[str] | None = None,
    eps: Sequence[float] | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Tell = silent,
    budget: Budget | None = None,
) -> Results:
    """The rows of a run's weights, written into its folder."""
    subject = run_subject(run, which, device)
    return evaluate_subject(subject, eps, attacks, seed=seed, progress=Progress(progress, budget))


def distances_run(
    run: Run, *, device: str = "cpu", progress: Tell = silent, budget: Budget | None = None
) -> Distances:
    """The smallest noise on a run's best weights, written into its folder."""
    told = Progress(progress, budget)
    return measure_distances(run_subject(run, "best", device), progress=told)


def check_run(
    run: Run, which: str = "best", *, transfer_from: Run | None = None, device: str = "cpu"
) -> Checks:
    """The checks on a run's weights, written into its folder."""
    other = None if transfer_from is None else run_subject(transfer_from, "best", device).model
    return check_subject(run_subject(run, which, device), transfer=other)


def evaluate_trained(
    trained: Any,
    eps: Sequence[float] | None = None,
    attacks: Sequence[str] | None = None,
    *,
    progress: Tell = silent,
    budget: Budget | None = None,
    **options: Any,
) -> tuple[Results, Path]:
    """The rows of a trained nnU-Net, and the folder that they were written to."""
    from ima.nnunet.evaluating import nnunet_subject

    subject = nnunet_subject(trained, eps, attacks, device="cpu", **options)
    return evaluate_subject(subject, progress=Progress(progress, budget)), subject.folder
