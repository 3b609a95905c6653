"""Samples under noise for pictures: collected during an evaluation, kept beside its record.

Of tasks whose predictions are words the first samples, under every attack; of tasks that label
pixels the slices with the largest foreground, each from another case, under the strongest attack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ima.evaluation.attacks import find_attack
from ima.evaluation.batch import Example
from ima.evaluation.decisions import values
from ima.evaluation.partial import PICTURES, key_of, read_beside
from ima.evaluation.results import WORST
from ima.evaluation.share import ALONE, Share, all_files
from ima.evaluation.values import from_cell, to_cell
from ima.files import write_arrays
from ima.tasks import Task, full, given, tree_map
from ima.tasks.pixels import wide

LIMIT = 200
"""So many samples are kept whose predictions are words."""

MEMORY = 128_000_000
"""So many bytes of them are kept at most."""

_FEW = 8
"""So many are kept, however large."""

LAST = 10**9
"""The batch of samples whose batch is not over."""

COUNT = 6
"""So many slices are kept."""

OUTSIDE = 255
"""The label of ignored pixels, and of those outside an image that is smaller than others."""

Picture: TypeAlias = dict[str, Any]
"""One sample under one attack: numbers, text and images by name."""


class Pictures(ABC):
    """The pictures of an evaluation.

    record: the evaluation's, see `partial`. In a file beside it lie the pictures of the batches
    that it holds; they count only as long as the record's settings and `data` are the same. share:
    of the process that collects; each has a file of its own, as the record has.
    """

    name: ClassVar[str]
    """Of the file that is left at the end, beside the results."""

    def __init__(self, record: Path, data: str, share: Share) -> None:
        self.record, self.data, self.share = share.file(record), data, share
        self.known = [
            read_beside(file, lambda f: (str(f["key"]), self.read(f)))
            for file in all_files(record, PICTURES)
        ]
        self.old: list[Picture] = []
        self.begun = False
        self.new: list[Picture] = []

    @abstractmethod
    def keep(self, example: Example) -> None:
        """Take one sample under one attack; `evaluate` calls it."""

    @abstractmethod
    def arrays(self, pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
        """Pictures as the arrays of a file."""

    @abstractmethod
    def read(self, found: Mapping[str, Any]) -> list[Picture]:
        """The pictures of such a file."""

    def picked(self, pictures: list[Picture]) -> list[Picture]:
        """Those that are worth to be kept."""
        return pictures

    def final(self, arrays: dict[str, Any], classes: Sequence[str], label: str) -> dict[str, Any]:
        """The arrays of the file that is left."""
        return arrays

    def begin(self) -> None:
        """Drop those of another record; not before evaluation has begun its own."""
        if not self.begun:
            key = self._key()
            self.old = _once(chain(*(pictures for of, pictures in self.known if of == key)))
            self.begun, self.known = True, []

    def save(self, batch: int) -> None:
        """Write them, before batch number `batch` is recorded."""
        self.new = [{**picture, "batch": batch} for picture in self.new]
        found = self.all()
        if self.new and found:
            write_arrays(_beside(self.record), {**self.arrays(found), "key": np.array(self._key())})
        self.old, self.new = found, []

    def all(self) -> list[Picture]:
        """Those of the batches that were finished before, and of those since."""
        self.begin()
        return self.picked(_once([*self.new, *self.old]))

    def join(self) -> None:
        """Take those of all processes; all of them must come here."""
        self.old, self.new = _once(chain(*self.share.gather(self.all()))), []

    def write(self, folder: Path, classes: Sequence[str], label: str) -> None:
        """Leave them in a folder; no file where there are none. label: of the network."""
        path = folder / self.name
        path.unlink(missing_ok=True)
        if found := self.all():
            write_arrays(path, self.final(self.arrays(found), classes, label))

    def _key(self) -> str:
        return key_of(self.record) + self.data


class Worded(Pictures):
    """Samples whose predictions are words, each under all attacks.

    tries: attacks and radii for each sample; words: of a value and the names of classes.
    """

    name = "examples.npz"

    def __init__(
        self,
        record: Path,
        data: str,
        tries: int,
        words: Callable[[Any, Sequence[str]], str],
        share: Share = ALONE,
    ) -> None:
        self.tries, self.words = tries, words
        self.ids = set[int]()
        super().__init__(record, data, share)

    def begin(self) -> None:
        """Drop those of another record; count the samples of this one."""
        if not self.begun:
            super().begin()
            self.ids = {picture["id"] for picture in self.old}

    def keep(self, example: Example) -> None:
        """Take one sample under one attack, if it is among the first."""
        self.begin()
        if example.id not in self.ids and len(self.ids) >= self._room(wide(example.clean).nbytes):
            return
        # Samples of several sizes stand in no one array: the first size is kept.
        earlier = [*self.old[:1], *self.new[:1]]
        if earlier and earlier[0]["clean"].shape != tuple(example.clean.shape):
            return
        self.ids.add(example.id)
        trees = {
            "label": example.target,
            "prediction": example.predicted,
            "clean_prediction": example.predicted_clean,
        }
        # Each as a batch of one.
        ones = {name: tree_map(lambda tensor: tensor[None], tree) for name, tree in trees.items()}
        cells = {name: to_cell(values(one, 1)[0]) for name, one in ones.items()}
        # NumPy has no bfloat16.
        images = {name: wide(getattr(example, name)).numpy() for name in ("clean", "noisy")}
        own = {name: getattr(example, name) for name in ("id", "attack", "eps", "quality")}
        self.new.append({**own, "clean_quality": example.quality_clean, **cells, **images})

    def picked(self, pictures: list[Picture]) -> list[Picture]:
        """Those of the first samples, in the order of the batches."""
        pictures = sorted(pictures, key=lambda picture: picture.get("batch", LAST))
        if not pictures:
            return []
        first = pictures[0]["clean"]
        ids = list(dict.fromkeys(picture["id"] for picture in pictures))
        kept = set(ids[: self._room(first.nbytes)])
        return [p for p in pictures if p["id"] in kept and p["clean"].shape == first.shape]

    def _room(self, image: int) -> int:
        """How many samples are kept whose image takes so many bytes."""
        return min(LIMIT, max(_FEW, MEMORY // max(1, 2 * image * max(1, self.tries))))

    def arrays(self, pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
        """Pictures as the arrays of a file, a row each."""
        return {name: np.array([picture[name] for picture in pictures]) for name in pictures[0]}

    def read(self, found: Mapping[str, Any]) -> list[Picture]:
        """The pictures of such a file."""
        images = {name: list(found[name]) for name in ("clean", "noisy")}
        names = [name for name in found if name not in ("key", *images)]
        columns = {name: found[name].tolist() for name in names} | images
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def final(self, arrays: dict[str, Any], classes: Sequence[str], label: str) -> dict[str, Any]:
        """The arrays, labels and predictions in words."""
        said = {
            name: np.array([self.words(from_cell(cell), classes) for cell in arrays[name].tolist()])
            for name in ("label", "prediction", "clean_prediction")
        }
        return {name: found for name, found in {**arrays, **said}.items() if name != "batch"}


class Labelled(Pictures):
    """Slices with labels: those with the largest foreground, each from another case.

    attack: whose noise is kept; ignore_label: of the truth. Of a volume the slice with the largest
    foreground is kept, with its number; of several channels the first.
    """

    name = "overlays.npz"

    COLUMNS = ("id", "case", "slice", "eps", "attack", "pixels", "dice_clean", "dice_noisy")
    IMAGES = ("clean", "noisy")
    LABELS = ("truth", "predicted_clean", "predicted_noisy")

    def __init__(
        self,
        record: Path,
        data: str,
        attack: str,
        ignore_label: int | None,
        share: Share = ALONE,
    ) -> None:
        self.attack, self.ignore_label = attack, ignore_label
        super().__init__(record, data, share)

    def keep(self, example: Example) -> None:
        """Take one sample, if it is under the attack that is shown."""
        images = example.clean.ndim in (3, 4)
        if images and example.attack == self.attack and example.weight > 0:
            self.new.append(self._picture(example))

    def picked(self, pictures: list[Picture]) -> list[Picture]:
        """Those of the samples with the most foreground, one a case; the first of equal ones."""
        order = sorted(pictures, key=lambda p: (-p["pixels"], p["id"]))
        best: dict[str, int] = {}
        for picture in order:
            best.setdefault(picture["case"], picture["id"])
        ids = list(best.values())[:COUNT]
        return sorted((p for p in pictures if p["id"] in ids), key=lambda p: (p["id"], p["eps"]))

    def arrays(self, pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
        """Pictures as the arrays of a file, padded to one size."""
        columns = {name: np.array([p[name] for p in pictures]) for name in self.COLUMNS}
        images = {name: _padded([p[name] for p in pictures], np.nan) for name in self.IMAGES}
        labels = {name: _padded([p[name] for p in pictures], OUTSIDE) for name in self.LABELS}
        return {**columns, **images, **labels}

    def read(self, found: Mapping[str, Any]) -> list[Picture]:
        """The pictures of such a file, without padding."""
        columns = [found[name].tolist() for name in self.COLUMNS]
        pictures: list[Picture] = []
        for number, row in enumerate(zip(*columns, strict=True)):
            inside = np.isfinite(found["clean"][number])
            cut = np.ix_(inside.any(1), inside.any(0))
            images = {name: found[name][number][cut] for name in (*self.IMAGES, *self.LABELS)}
            pictures.append({**dict(zip(self.COLUMNS, row, strict=True)), **images})
        return pictures

    def final(self, arrays: dict[str, Any], classes: Sequence[str], label: str) -> dict[str, Any]:
        """The arrays, with the classes' names."""
        return {**arrays, "classes": np.array(classes), "trainer": np.array(label)}

    def _picture(self, example: Example) -> Picture:
        before, after = _labels(example.predicted_clean), _labels(example.predicted)
        truth = self._truth(example)
        clean, noisy = (image[0].float().numpy() for image in (example.clean, example.noisy))
        at, images = example.slice, [clean, noisy, truth, before, after]
        if clean.ndim == 3:
            at = int(((truth != 0) & (truth != OUTSIDE)).sum((1, 2)).argmax())
            images = [image[at] for image in images]
        return {
            "id": example.id,
            "case": example.case or str(example.id),
            "slice": at,
            "eps": example.eps,
            "attack": example.attack,
            "pixels": example.weight,
            "dice_clean": example.quality_clean,
            "dice_noisy": example.quality,
            **dict(zip((*self.IMAGES, *self.LABELS), images, strict=True)),
        }

    def _truth(self, example: Example) -> NDArray[np.uint8]:
        truth, like = full(example.target), example.predicted_clean
        if like.dtype == torch.bool:
            labels = _labels(truth[: len(like)].bool())
            labels[truth[len(like) :].bool().any(0).numpy()] = OUTSIDE
            return labels
        if truth.ndim == like.ndim + 1 and len(truth) > 1:
            truth = truth.to(torch.uint8).argmax(0)
        truth = truth.reshape(like.shape)
        labels = _labels(truth)
        if self.ignore_label is not None:
            labels[(truth == self.ignore_label).numpy()] = OUTSIDE
        return labels


def collector(
    task: Task,
    record: Path,
    data: str,
    attacks: Sequence[str],
    radii: Sequence[float],
    share: Share = ALONE,
) -> Pictures:
    """What collects the pictures of an evaluation of this task.

    data: a digest of the samples, so that pictures of others are not taken for theirs.
    """
    aimed = [name for name in attacks if find_attack(name)[0].amplitude is None]
    if given(task, "drawn") == "labels":
        strongest = WORST if len(aimed) > 1 else next(iter(aimed), "")
        return Labelled(record, data, strongest, getattr(task, "ignore_label", None), share)
    return Worded(record, data, len(aimed) * len(radii), given(task, "words"), share)


def _once(pictures: Iterable[Picture]) -> list[Picture]:
    """Of those of one sample under one attack the first."""
    found: dict[tuple[Any, ...], Picture] = {}
    for picture in pictures:
        found.setdefault((picture["id"], picture["attack"], picture["eps"]), picture)
    return list(found.values())


def _beside(record: Path) -> Path:
    return record.with_name(record.name + PICTURES)


def _labels(found: Tensor) -> NDArray[np.uint8]:
    """Labels as they are; of regions (R, *S) the number of the last, from 1, that a pixel is in."""
    labels = found.to(torch.uint8)
    if found.dtype == torch.bool:
        labels = torch.zeros_like(labels[0])
        for number, region in enumerate(found, start=1):
            labels[region] = number
    return labels.numpy()


def _padded(images: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Images of several sizes as one array (n, H, W), at its upper left."""
    high, wide_ = (max(image.shape[axis] for image in images) for axis in (0, 1))
    found = np.full((len(images), high, wide_), value, dtype=images[0].dtype)
    for row, image in zip(found, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return found
