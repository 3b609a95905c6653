"""Evaluate a trained run on its test or validation part; the results stay in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.budget import Budget
from ima.data import Part, load
from ima.data.split import stratified
from ima.evaluation.evaluate import evaluate
from ima.evaluation.examples import Examples
from ima.evaluation.partial import mark
from ima.evaluation.results import Results
from ima.training.build import BOUNDS, build_fabric, build_model, load_into
from ima.training.checkpoint import load_weights
from ima.training.run import Run

VALIDATION = "validation"
"""The name of results on the validation part."""

EXAMPLES = 200
"""So many attacked samples are kept for pictures."""


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
    validation its first attack at the middle radius. Finished batches stay in the folder too, so
    that the same call continues an evaluation that was stopped; `forget` deletes them.
    Raises FileNotFoundError before the run's first epoch is done; otherwise as
    `ima.evaluation.evaluate`.
    """
    config = run.config()
    fabric = build_fabric(device)
    splits = load(
        config.data.name, path=config.data.path, size=config.data.size, seed=config.data.seed
    )
    tuning = which == VALIDATION
    weights = run.weights("best" if tuning else which)
    if not weights.exists():
        raise FileNotFoundError(
            f"{run.folder} holds no {weights.stem} weights yet; train it first: "
            f"ima train --resume {run.folder}"
        )
    model = build_model(config, splits)
    load_into(model, load_weights(weights), weights)
    test = splits.val if tuning else splits.test
    total, chosen = len(test), _chosen(None if tuning else config.evaluate.samples, test)
    if len(chosen) < total:
        test = Part(test.images[chosen], test.targets[chosen])
    if eps is None:
        eps = [config.evaluate.middle] if tuning else config.evaluate.eps
    if attacks is None:
        attacks = config.evaluate.attacks[:1] if tuning else config.evaluate.attacks_on(which)
    record = part(run, which)
    examples = Examples(EXAMPLES, record, mark(test.images, test.targets))

    def after_batch(done: int, total: int) -> None:
        examples.save()
        if progress is not None:
            progress(done, total)

    results = evaluate(
        fabric.to_device(model),
        test,
        eps,
        attacks,
        norm=config.norm,
        bounds=BOUNDS,
        batch_size=config.evaluate.batch_size,
        seed=seed,
        keep=examples.keep if which == "best" else None,
        progress=after_batch,
        partial=record,
        budget=budget,
    )
    rows = tuple(replace(row, id=int(chosen[row.id])) for row in results.rows)
    settings = {**results.settings, "samples": f"{len(chosen)} of {total}"}
    results = Results(rows, results.norm, settings)
    results.to_csv(run.results(which))
    if which == "best":
        examples.write(run.examples, chosen, splits.classes)
    return results


def part(run: Run, which: str) -> Path:
    """The finished batches of an evaluation under way."""
    return run.results(which).with_suffix(".part")


def forget(run: Run, which: Iterable[str]) -> None:
    """Delete the finished batches of evaluations that are done."""
    for name in which:
        record = part(run, name)
        for path in (record, record.with_name(record.name + ".npz")):
            path.unlink(missing_ok=True)


def _chosen(samples: int | None, test: Part) -> NDArray[np.int64]:
    """Positions in the test part: all, or so many samples, the same for every run."""
    if samples is None or samples >= len(test):
        return np.arange(len(test))
    return np.flatnonzero(stratified(test.targets.numpy(), samples, seed=0))
