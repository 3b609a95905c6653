"""Whether a run's data set is the one that it began with: margins belong to samples by place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ima.data import Part, Splits
from ima.data.split import stratified
from ima.training.build import load_splits
from ima.training.run import Run
from ima.training.same import check_config, check_same_samples, known_origin, samples

TRACED = 64
"""So many samples of a part tell whether it is the same."""

_SLACK = 0.02
"""By so much the means of an image may differ that is stored as JPEG, or resized, elsewhere."""


def splits_of(run: Run) -> Splits:
    """The run's data set; ValueError where other samples stand where those were that it began with.

    Or where its config is another one. Margins and figures belong to samples by their place.
    """
    config = run.config()
    told = known_origin(run)
    if told is not None:
        check_config(run, told, config)
    splits, known = load_splits(config), run.environment().get("trace")
    now = trace(splits)
    if known is not None and not same_samples(known, now):
        had, has = (f"{first[0]:.0f} and {first[1]:.0f}" for first in (known[0], now[0]))
        place = f"data.path {config.data.path}" if config.data.path else "the data's folder"
        raise ValueError(
            f"{run.folder} was begun on other samples, or on these in another order ({had} to "
            f"train and validate on, now {has}): {place} holds other files since; put the old ones "
            "back, or begin a new run with --out"
        )
    if told is not None:
        check_same_samples(run, told, samples(splits))
    return splits


def trace(splits: Splits) -> list[tuple[float, float]]:
    """Label and mean of some training and validation samples, evenly spread, to know them again.

    First the number of samples of either part. Of targets that are no labels their mean. Nothing of
    the test part: training does not look at it.
    """
    found = [(float(len(splits.train)), float(len(splits.val)))]
    for part in (splits.train, splits.val):
        at = torch.linspace(0, len(part) - 1, min(TRACED, len(part))).round().long()
        images, targets = part[at]
        means = images.flatten(1).double().mean(1)
        told = targets.double().reshape(len(targets), -1).mean(1)
        found += zip(told.tolist(), means.tolist(), strict=True)
    return found


def same_samples(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> bool:
    """Whether two traces are of the same samples; stored or resized otherwise they still are."""
    return len(one) == len(other) and all(
        label == again and abs(mean - seen) <= _SLACK
        for (label, mean), (again, seen) in zip(one, other, strict=True)
    )


def choose(part: Part, samples: int | None, seed: int = 0) -> NDArray[np.int64]:
    """Positions in a part: of all samples if None, or of so many, with classes in proportion."""
    if samples is None or samples >= len(part):
        return np.arange(len(part))
    # Where targets are no classes, every sample is of one kind.
    kinds = part.targets.numpy() if part.labels else np.zeros(len(part), dtype=np.int64)
    return np.flatnonzero(stratified(kinds, samples, seed))
