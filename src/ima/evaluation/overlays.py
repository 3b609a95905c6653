"""Slices under noise for pictures: collected during an evaluation, kept beside its record.

Those with the largest foreground, each from another case, with their noise of every radius.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ima.evaluation.partial import key_of, read_beside
from ima.evaluation.segment_batch import SegmentExample
from ima.files import write_arrays

COUNT = 6

OUTSIDE = 255
"""The label of ignored pixels, and of those outside an image that is smaller than others."""

COLUMNS = ("id", "case", "slice", "eps", "attack", "pixels", "dice_clean", "dice_noisy")
IMAGES = ("clean", "noisy")
LABELS = ("truth", "predicted_clean", "predicted_noisy")

Picture = dict[str, Any]
"""One sample at one radius: `COLUMNS` as numbers or strings, `IMAGES` and `LABELS` as (H, W)."""


class Overlays:
    """The `COUNT` samples with the largest foreground, each from another case, at every radius.

    attack: whose noise is kept; ignore_label: of the truth; record: the evaluation's, see
    `partial`. In a file beside it lie the samples of the batches that it holds; they count only as
    long as the record's settings and `data` are the same. Of a volume the slice with the largest
    foreground is kept, with its number; of several channels the first.
    """

    def __init__(
        self, attack: str, record: Path, data: str, *, ignore_label: int | None = None
    ) -> None:
        self.attack, self.record, self.data = attack, record, data
        self.ignore_label = ignore_label
        self.beside = record.with_name(record.name + ".npz")
        self.old = read_beside(self.beside, _kept)
        self.new: list[Picture] = []

    def keep(self, example: SegmentExample) -> None:
        """Take one sample under one attack; `evaluate_segmentation` calls it."""
        images = example.clean.ndim in (3, 4)
        if images and example.attack == self.attack and example.pixels > 0:
            self.new.append(_picture(example, self.ignore_label))

    def save(self) -> None:
        """Write the largest so far, before the batch is recorded."""
        found = self.all()
        if self.new and found:
            write_arrays(self.beside, {**_arrays(found), "key": np.array(self._key())})
        kept = {picture["id"] for picture in found}
        self.new = [picture for picture in self.new if picture["id"] in kept]

    def all(self) -> list[Picture]:
        """The largest of the batches that were finished before, and of those since, by id."""
        key, old = self.old
        again = {(p["id"], p["eps"]) for p in self.new}
        kept = [p for p in old if (p["id"], p["eps"]) not in again]
        return _largest([*(kept if key == self._key() else []), *self.new])

    def write(self, path: Path, classes: Sequence[str], trainer: str) -> None:
        """Write them to `path`, with the classes' names; no file where there are none."""
        path.unlink(missing_ok=True)
        if found := self.all():
            named = {"classes": np.array(classes), "trainer": np.array(trainer)}
            write_arrays(path, {**_arrays(found), **named})

    def _key(self) -> str:
        return key_of(self.record) + self.data


def _largest(pictures: Sequence[Picture]) -> list[Picture]:
    """Those of the samples with the most foreground, one a case; the first of equal ones."""
    order = sorted(pictures, key=lambda p: (-p["pixels"], p["id"]))
    best: dict[str, int] = {}
    for picture in order:
        best.setdefault(picture["case"], picture["id"])
    ids = list(best.values())[:COUNT]
    return sorted((p for p in pictures if p["id"] in ids), key=lambda p: (p["id"], p["eps"]))


def _picture(example: SegmentExample, ignore_label: int | None) -> Picture:
    before, after = _labels(example.predicted_clean), _labels(example.predicted_noisy)
    truth = _truth(example, ignore_label)
    clean, noisy = (image[0].float().cpu().numpy() for image in (example.clean, example.noisy))
    at, images = example.slice, [clean, noisy, truth, before, after]
    if clean.ndim == 3:
        at = int(((truth != 0) & (truth != OUTSIDE)).sum((1, 2)).argmax())
        images = [image[at] for image in images]
    columns = {name: getattr(example, name) for name in COLUMNS}
    return {**columns, "slice": at, **dict(zip((*IMAGES, *LABELS), images, strict=True))}


def _labels(found: Tensor) -> NDArray[np.uint8]:
    """Labels as they are; of regions (R, *S) the number of the last, from 1, that a pixel is in."""
    labels = found.to(torch.uint8)
    if found.dtype == torch.bool:
        labels = torch.zeros_like(labels[0])
        for number, region in enumerate(found, start=1):
            labels[region] = number
    return labels.cpu().numpy()


def _truth(example: SegmentExample, ignore_label: int | None) -> NDArray[np.uint8]:
    truth, like = example.truth, example.predicted_clean
    if like.dtype == torch.bool:
        labels = _labels(truth[: len(like)].bool())
        labels[truth[len(like) :].bool().any(0).cpu().numpy()] = OUTSIDE
        return labels
    truth = truth.reshape(like.shape)
    ignored = None if ignore_label is None else (truth == ignore_label).cpu().numpy()
    labels = _labels(truth)
    if ignored is not None:
        labels[ignored] = OUTSIDE
    return labels


def _arrays(pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
    columns = {name: np.array([p[name] for p in pictures]) for name in COLUMNS}
    images = {name: _padded([p[name] for p in pictures], np.nan) for name in IMAGES}
    labels = {name: _padded([p[name] for p in pictures], OUTSIDE) for name in LABELS}
    return {**columns, **images, **labels}


def _padded(images: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Images of several sizes as one array (n, H, W), at its upper left."""
    high, wide = (max(image.shape[axis] for image in images) for axis in (0, 1))
    found = np.full((len(images), high, wide), value, dtype=images[0].dtype)
    for row, image in zip(found, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return found


def _kept(found: Mapping[str, Any]) -> tuple[str, list[Picture]]:
    columns = [found[name].tolist() for name in COLUMNS]
    pictures: list[Picture] = []
    for number, values in enumerate(zip(*columns, strict=True)):
        inside = np.isfinite(found["clean"][number])
        cut = np.ix_(inside.any(1), inside.any(0))
        images = {name: found[name][number][cut] for name in (*IMAGES, *LABELS)}
        pictures.append({**dict(zip(COLUMNS, values, strict=True)), **images})
    return str(found["key"]), pictures
