"""Evaluate a trained run on its test or validation part; the results stay in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ima.budget import Budget
from ima.data import Part
from ima.data.split import stratified
from ima.evaluation.distances import Distances
from ima.evaluation.evaluate import evaluate
from ima.evaluation.examples import Examples
from ima.evaluation.minimal import minimal
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.partial import discard, mark
from ima.evaluation.remarks import said_beside
from ima.evaluation.results import FILE, Results
from ima.files import digest
from ima.training.build import BOUNDS, build_fabric, build_model, load_into
from ima.training.checkpoint import load_weights
from ima.training.config import Config
from ima.training.picking import picked
from ima.training.run import Run
from ima.training.same import check_weights
from ima.training.samples import splits_of

VALIDATION = "validation"
"""The name of results on the validation part."""

DISTANCES = "distances"
"""The name of minimal distances, among the names of results."""

CHECKS = "checks"
"""The name of the checks, among the names of results."""

EXAMPLES = 200
"""So many attacked samples are kept for pictures."""


@said_beside()
def evaluate_run(
    run: Run,
    which: str,
    *,
    attacks: Sequence[str] | None = None,
    eps: Sequence[float] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Results:
    """Attack weights of a run and write the rows into its folder.

    which: `"best"` or `"last"` weights, on the test part; `"validation"`: the best weights on the
    validation part, by which tuned options are picked. attacks, eps: the config's if None; on
    validation its first attack at the middle radius. White noise comes with any attack on the test
    part. Finished batches stay in the folder too, so that the same call continues an evaluation
    that was stopped; `forget` deletes them. Raises FileNotFoundError before the run's first epoch
    is done; otherwise as `ima.evaluation.evaluate`.
    """
    tuning = which == VALIDATION
    asked = run.config().evaluate
    subject = load_subject(run, "best" if tuning else which, device, validation=tuning)
    config, test, chosen = subject.config, subject.part, subject.chosen
    if eps is None:
        eps = [asked.middle] if tuning else asked.eps
    if attacks is None:
        attacks = asked.attacks[:1] if tuning else asked.attacks_on(which)
    if attacks and not tuning:
        attacks = [*attacks, *WHITE_NOISE]
    record = part(run, which)
    samples = mark(test.images, test.targets)
    examples = Examples(EXAMPLES, len(attacks) * len(eps), record, samples)

    def after_batch(done: int, total: int) -> None:
        examples.save()
        if progress is not None:
            progress(done, total)

    results = evaluate(
        subject.model,
        test,
        eps,
        attacks,
        norm=config.norm,
        bounds=BOUNDS,
        batch_size=asked.batch_size,
        seed=seed,
        keep=examples.keep if which == "best" else None,
        progress=after_batch,
        partial=record,
        budget=budget,
    )
    rows = tuple(replace(row, id=int(chosen[row.id])) for row in results.rows)
    settings = {**results.settings, "samples": subject.counted(), FILE: subject.file}
    if which != "last":
        settings |= picked(run)
    if tuning:
        settings["part"] = VALIDATION
    results = Results(rows, results.norm, settings)
    if which == "best":
        examples.write(run.examples, chosen, subject.classes)
    # Written last: it says that all is done.
    results.to_csv(run.results(which))
    return results


@said_beside()
def distances_run(
    run: Run,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Distances:
    """Find the smallest noise that makes the best weights wrong on each test sample.

    Written to `run.distances`. PGD looks at the radii of the config; what is finished stays, and
    what is raised, as of `evaluate_run`.
    """
    subject = load_subject(run, "best", device)
    config, chosen = subject.config, subject.chosen
    found = minimal(
        subject.model,
        subject.part,
        config.evaluate.eps,
        norm=config.norm,
        bounds=BOUNDS,
        batch_size=config.evaluate.batch_size,
        seed=seed,
        progress=progress,
        partial=part(run, DISTANCES),
        budget=budget,
    )
    rows = tuple(replace(row, id=int(chosen[row.id])) for row in found.rows)
    settings = {**found.settings, "samples": subject.counted(), "weights": "best"}
    found = Distances(rows, found.norm, settings)
    found.to_csv(run.distances)
    return found


@dataclass(frozen=True, eq=False)
class Subject:
    """A run's model on the device, and the samples that it is judged by.

    file: a digest of the file of weights; chosen: (N,), the samples' places in the whole part of
    `total` samples.
    """

    config: Config
    model: nn.Module
    file: str
    part: Part
    chosen: NDArray[np.int64]
    total: int
    classes: tuple[str, ...]

    def counted(self) -> str:
        """How many samples of how many, such as `540 of 540`."""
        return f"{len(self.chosen)} of {self.total}"


def load_subject(run: Run, which: str, device: str, *, validation: bool = False) -> Subject:
    """The `"best"` or `"last"` weights of a run, and the samples that its config asks for.

    validation: all of the validation part, instead of test samples. Raises FileNotFoundError
    before the run's first epoch is done.
    """
    config, fabric = run.config(), build_fabric(device)
    splits = splits_of(run)
    weights = run.weights(which)
    if not weights.exists():
        raise FileNotFoundError(
            f"{run.folder} holds no {weights.stem} weights yet ({weights.name}); train it first: "
            f"ima train --resume {run.folder}"
        )
    model = build_model(config, splits)
    # Before it is read: results of weights that are replaced meanwhile count as old.
    file = digest(weights)
    check_weights(weights, config, splits)
    load_into(model, load_weights(weights), weights)
    whole = splits.val if validation else splits.test
    chosen = _chosen(None if validation else config.evaluate.samples, whole)
    kept = whole
    if len(chosen) < len(whole):
        kept = Part(whole.images[chosen], whole.targets[chosen])
    ready = fabric.to_device(model)
    return Subject(config, ready, file, kept, chosen, len(whole), splits.classes)


def part(run: Run, which: str) -> Path:
    """The finished batches of an evaluation under way."""
    return run.results(which).with_suffix(".part")


def forget(run: Run, which: Iterable[str]) -> None:
    """Delete the finished batches of evaluations that are done."""
    for name in which:
        discard(part(run, name))


def _chosen(samples: int | None, test: Part) -> NDArray[np.int64]:
    """Positions in the test part: all, or so many samples, the same for every run."""
    if samples is None or samples >= len(test):
        return np.arange(len(test))
    return np.flatnonzero(stratified(test.targets.numpy(), samples, seed=0))
