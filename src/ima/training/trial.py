"""How long a comparison will train, by three batches of each method in a folder that is deleted.

seconds of a run = epochs that are left * (batches * seconds of the third + seconds of a validation)
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from ima.budget import how_long
from ima.training.build import build_fabric, build_model
from ima.training.compare import RunPlan, finished
from ima.training.loop import fit
from ima.training.run import Run
from ima.training.samples import splits_of
from ima.training.settings import Config, Named
from ima.training.validating import validate_epoch

BATCHES = 3
"""Of a trial; the first ones take longer than others."""


@dataclass(frozen=True)
class Trial:
    """A run of a comparison: its row, its folder, how far it is, and what is left to train.

    state: `"new"`, `"unfinished"`, `"done"` or `"diverged"`; epoch, epochs: how many are done, of
    how many; seconds: of training and validation that are left, by a trial.
    """

    row: str
    folder: str
    seed: int
    state: str
    epoch: int
    epochs: int
    seconds: float


class _Enough(Exception):  # noqa: N818  # it is no error
    """The trial is over."""


class _Watch:
    """Takes the time of the last batch of a trial; of an epoch that has fewer, the mean."""

    def __init__(self) -> None:
        self.seconds, self.begun, self.total = 0.0, monotonic(), 1

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Any]) -> None:
        for value in sums.values():
            float(value)  # Waits for the device.
        self.seconds, self.total = monotonic() - self.begun, total
        if done == BATCHES:
            raise _Enough
        self.begun = monotonic()

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        raise _Enough


def trials(plans: Sequence[RunPlan], device: str) -> list[Trial]:
    """Every run of a comparison with the time that is left; writes nothing into their folders."""

    @cache
    def seconds(text: str) -> float:
        return _epoch(Config.model_validate_json(text), device)

    return list(_trials(plans, lambda config: seconds(config.model_dump_json())))


def _trials(plans: Sequence[RunPlan], seconds: Any) -> Iterator[Trial]:
    seen = set[Path]()
    for plan in plans:
        for run in (run for candidate in plan.candidates for run in candidate.runs):
            if run.folder in seen:
                continue
            seen.add(run.folder)
            config, done = run.config(), len(run.epochs())
            state = "unfinished" if run.state.exists() else "new"
            state = "done" if finished(run) else "diverged" if run.diverged.exists() else state
            left = range(done, config.train.epochs if state in ("new", "unfinished") else done)
            # A seed changes no time, nor how many epochs there are.
            train = config.train.model_copy(update={"seed": 0, "standard_epochs": 0, "stop": None})
            own = config.model_copy(update={"train": train, "log": ()})
            clean = own.model_copy(update={"method": Named(name="standard")})
            warm = config.train.standard_epochs
            took = sum(seconds(clean if epoch < warm else own) for epoch in left)
            yield Trial(
                plan.label,
                str(run.folder),
                config.train.seed,
                state,
                done,
                config.train.epochs,
                took,
            )


def _epoch(config: Config, device: str) -> float:
    """Seconds of an epoch of a config, and of a validation after it."""
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.planned(Path(folder) / "trial", config)
        with contextlib.suppress(_Enough):
            fit(run, watcher=watch, device=device)
        splits, fabric = splits_of(run), build_fabric(device)
    model = fabric.to_device(build_model(config, splits)).eval()
    few = min(config.evaluate.batch_size, len(splits.val))
    images, targets = splits.val[torch.arange(few)]
    part = replace(splits.val, images=images, targets=targets)
    begun = monotonic()
    validate_epoch(fabric, model, part, config)
    validation = (monotonic() - begun) * len(splits.val) / few
    return watch.total * watch.seconds + validation


def told(found: Sequence[Trial]) -> Iterator[str]:
    """The runs in lines of text, and all together."""
    for one in found:
        state = f"epoch {one.epoch}/{one.epochs}" if one.state == "unfinished" else one.state
        left = f", about {how_long(one.seconds)}" if one.seconds else ""
        yield f"{one.folder}  {one.row}, seed {one.seed}: {state}{left}"
    total = sum(one.seconds for one in found)
    yield (
        f"{len(found)} runs, about {how_long(total)} of training and validation, one run at a time "
        f"(from {BATCHES} batches of each method; later ones may take more or less). Attacks on "
        "the test part come on top."
    )
