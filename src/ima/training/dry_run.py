"""What a comparison would do: its runs, how far each is, and how long the trainings may take.

the time: of a few steps of each row's method on real batches, times the steps that are left
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ima.data import Splits
from ima.training.build import build_fabric, build_method, build_model, load_splits
from ima.training.compare import finished, slug
from ima.training.rows import rows
from ima.training.run import Run
from ima.training.settings import Config

_STEPS = 2
"""So many steps are timed, after one that warms up."""


@dataclass(frozen=True)
class Foreseen:
    """One run of a comparison. done: epochs that are trained; seconds: of those that are left."""

    label: str
    folder: Path
    done: int
    epochs: int
    seconds: float

    @property
    def state(self) -> str:
        """How far it is, in words."""
        if self.done >= self.epochs:
            return "trained"
        return f"{self.done} of {self.epochs} epochs" if self.done else "not begun"


def foresee_runs(
    config: Config, seeds: Sequence[int], folder: Path, device: str
) -> Iterator[Foreseen]:
    """Every run of the comparison, in the order of the rows; nothing is written.

    Raises ConfigError for what cannot be run, and what data sets raise that are missing.
    """
    splits: Splits | None = None
    for row in rows(config):
        for candidate in row.candidates:
            splits = load_splits(candidate) if splits is None else splits
            step = math.nan
            for seed in seeds:
                place = folder / slug(candidate.method, row.differs) / f"seed{seed}"
                done = _done(place, candidate)
                epochs = candidate.train.epochs
                if done < epochs and math.isnan(step):
                    step = seconds_of_step(candidate, splits, device)
                steps = math.ceil(len(splits.train) / candidate.train.batch_size)
                left = step * steps * (epochs - done) if done < epochs else 0.0
                yield Foreseen(_title(row.title(), candidate, row.tuned), place, done, epochs, left)


def seconds_of_step(config: Config, splits: Splits, device: str) -> float:
    """How long a step of the config's method takes on a batch of its data."""
    fabric = build_fabric(device)
    torch.manual_seed(0)
    model = fabric.to_device(build_model(config, splits)).train()
    method = build_method(config, len(splits.train), augmented=bool(config.data.augment))
    taken: list[float] = []
    for number in range(_STEPS + 1):
        size = min(config.train.batch_size, len(splits.train))
        ids = (torch.arange(size) + number * size) % len(splits.train)
        x, y = fabric.to_device(splits.train[ids])
        begun = time.perf_counter()
        step = method(model, x, y, ids.to(fabric.device))
        step.loss.backward()
        # Reading a number waits for the device.
        step.loss.item()
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def _done(place: Path, config: Config) -> int:
    if not (place / "config.yaml").exists():
        return 0
    run = Run.open(place, trust=True)
    return config.train.epochs if finished(run) else len(run.epochs())


def _title(label: str, config: Config, tuned: Sequence[str]) -> str:
    options = config.method.options
    tried = ", ".join(f"{key} {options[key]:g}" for key in tuned)
    return f"{label}: {tried}" if tried else label
