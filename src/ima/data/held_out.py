"""A published training and test part as three parts: validation comes out of training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ima.data.base import Part, Sample, Splits
from ima.data.split import fingerprints, stratified
from ima.data.stored import Stored, chosen_of


def three_parts(
    train: Sample, val: Sample | None, test: Sample, *, seed: int, source: Path, training: str
) -> tuple[Sample, Sample, Sample, str]:
    """Training, validation and test part with no training image in the others, and what was done.

    Without `val`, 10 % of the training images are held out for it, by `seed`, with classes in
    proportion. Training images that are equal, pixel by pixel, to a validation or test image are
    left out, and validation images that are equal to a test image. The test part stays as it is.
    `source` and `training` are how notes and errors name the data set and its training images.

    Raises `ValueError` when no training or no validation image is left.
    """
    # First the test part, so that a validation part held out of training has none of it either.
    kept = _without(train, test, training)
    hidden = len(train[0]) - len(kept[0])
    note = f"Split as stored in {source.name}."
    if val is None:
        kept, val = _hold_out(kept, seed, training)
        note = (
            f"{source.name} has no validation part: {len(val[0])} training images (10 %) were held "
            f"out with seed {seed}."
        )
    # Validation picks epochs and radii: what is tested must not take part.
    both = len(val[0])
    val = _without(val, test, f"the validation part of {source.name}")
    both -= len(val[0])
    train = _without(kept, val, training)
    hidden += len(kept[0]) - len(train[0])
    if hidden:
        note += f" {hidden} training images that are also in validation or test were left out."
    if both:
        note += f" {both} validation images that are also in test were left out."
    return train, val, test, note


def published(
    name: str, train: Sample, test: Sample, classes: Sequence[str], *, seed: int, source: Path
) -> Splits:
    """The splits of a data set that is published as training and test part.

    Raises `ValueError` when a class has no training image, or none besides those for validation.
    """
    what = f"the training part of {source}"
    _every_class(train, classes, what)
    train, val, test, note = three_parts(train, None, test, seed=seed, source=source, training=what)
    _every_class(train, classes, f"{what}, less its validation images,")
    return Splits(name, as_part(train), as_part(val), as_part(test), tuple(classes), note)


def as_part(sample: Sample) -> Part:
    """A part of arrays."""
    images, labels = sample
    kept = images if isinstance(images, Stored) else torch.as_tensor(images)
    return Part(kept, torch.as_tensor(labels))


def _every_class(train: Sample, classes: Sequence[str], what: str) -> None:
    counts = np.bincount(train[1], minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        raise ValueError(
            f"{what} has no image of {', '.join(absent)}; expected some of each of the "
            f"{len(classes)} classes: fetch the files again"
        )


def _without(train: Sample, others: Sample, training: str) -> Sample:
    known = set(fingerprints(others[0]))
    kept = np.array([one not in known for one in fingerprints(train[0])], dtype=np.bool_)
    if not kept.any():
        raise ValueError(
            f"every image of {training} is also in another part; expected images of its own"
        )
    return train if kept.all() else (chosen_of(train[0], kept), train[1][kept])


def _hold_out(train: Sample, seed: int, training: str) -> tuple[Sample, Sample]:
    images, labels = train
    if len(labels) < 2:
        raise ValueError(
            f"there is no validation part, and {training} has only {len(labels)} image to take "
            "some from; expected at least 2"
        )
    held = stratified(labels, max(1, round(len(labels) / 10)), seed)
    return (chosen_of(images, ~held), labels[~held]), (chosen_of(images, held), labels[held])
