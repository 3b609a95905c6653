"""nnU-Net's test cases as samples: preprocessed as in training, slice by slice.

for each case: nnU-Net's own preprocessor (transpose, crop, normalise, resample)
    2-D: a sample is a slice (channels, H, W) along the first axis
    3-D: a sample is the whole case, or its central patch where it is larger than one
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ima.evaluation.partial import batch_mark
from ima.nnunet.trained import Trained

BATCH = 32
"""Slices that the network sees at once, all of one case."""

RAW = "nnUNet_raw"
"""nnU-Net's variable for the folder of raw data sets."""

WHOLE = -1
"""The slice of a sample that is a volume."""

OWN_TEST = "imagesTs of the data set"
"""Where the cases lie where no other folders were named."""


class Cases:
    """The batches (x, y) of a trained network's test cases; no batch holds two cases.

    x: (n, channels, *S), normalised; y: labels (n, *S), or regions (n, R, *S) with one more channel
    for ignored voxels where there is such a label.

    total: samples that there would be without `samples`; digest: of all images and labels; where:
    they lie, in words without paths; aside: cases that have images and no labels, "" for none.
    """

    def __init__(
        self,
        trained: Trained,
        images: Path | None = None,
        labels: Path | None = None,
        samples: int | None = None,
    ) -> None:
        """Find the cases, and count their samples.

        images, labels: folders, imagesTs and labelsTs of the raw data set if None; samples: so many
        only, spread evenly. Raises FileNotFoundError for missing folders and files, and ValueError
        for files that cannot be read or do not fit.
        """
        if samples is not None and samples < 1:
            raise ValueError(f"samples is {samples}; expected a number of at least 1")
        self.trained = trained
        self.flat = len(trained.patch) == 2
        self.where = OWN_TEST
        if images is not None and labels is not None:
            self.where = f"images in {images.resolve().name}, labels in {labels.resolve().name}"
        self.files, without = _files(trained, images, labels)
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        self.aside = f"{', '.join(without[:3])}{more}"
        self.channels = len(trained.dataset_json["channel_names"])
        self.preprocessor: Any = trained.stage.preprocessor_class(verbose=False)
        counts: list[int] = []
        marks: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        for case in self.files:
            x, y = self._samples(case)
            counts.append(len(x))
            self.shapes[case] = tuple(x.shape[1:])
            marks.append(batch_mark(x, y))
        self.total, self.digest = sum(counts), " ".join(marks)
        chosen = _spread(self.total, samples)
        ends = np.cumsum(counts)
        self.chosen = {
            case: chosen[(chosen >= end - count) & (chosen < end)] - (end - count)
            for case, count, end in zip(self.files, counts, ends.tolist(), strict=True)
        }

    @property
    def names(self) -> list[tuple[str, int]]:
        """Case and slice of every sample."""
        return [
            (case, at if self.flat else WHOLE)
            for case, numbers in self.chosen.items()
            for at in numbers.tolist()
        ]

    def alike(self) -> Cases:
        """Those samples alone that have the most frequent shape."""
        counts = Counter[tuple[int, ...]]()
        for case, numbers in self.chosen.items():
            counts[self.shapes[case]] += len(numbers)
        ((usual, _),) = counts.most_common(1)
        some = copy(self)
        some.chosen = {c: of for c, of in self.chosen.items() if self.shapes[c] == usual}
        return some

    def __len__(self) -> int:
        """How many batches there are."""
        return sum(-(-len(numbers) // BATCH) for numbers in self.chosen.values())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for case, numbers in self.chosen.items():
            if len(numbers) == 0:
                continue
            x, y = self._samples(case)
            for start in range(0, len(numbers), BATCH):
                at = torch.from_numpy(numbers[start : start + BATCH])
                yield x[at], y[at]

    def _samples(self, case: str) -> tuple[Tensor, Tensor]:
        """All samples of a case: (n, channels, *S) and their truth."""
        channels, label, trained = *self.files[case], self.trained
        try:
            data, seg, _ = self.preprocessor.run_case(
                [str(path) for path in channels],
                str(label),
                trained.plans,
                trained.stage,
                dict(trained.dataset_json),
            )
        except Exception as error:
            self._check_channels(case)
            raise ValueError(
                f"case {case} cannot be preprocessed as in training: {error!r}; expected images "
                f"and labels like those of {trained.dataset}, as in {label}"
            ) from error
        if len(data) != self.channels or len(seg) != 1:
            self._check_channels(case)
        # Voxels that nnU-Net marks as outside of the body are background, as in training.
        image, truth = np.asarray(data, np.float32), np.maximum(np.asarray(seg)[0], 0)
        if self.flat:
            image = image.transpose(1, 0, 2, 3)
        else:
            middle = tuple(
                slice((side - patch) // 2, (side - patch) // 2 + patch)
                if side > patch
                else slice(None)
                for side, patch in zip(truth.shape, trained.patch, strict=True)
            )
            image, truth = image[(None, slice(None), *middle)], truth[(None, *middle)]
        found = torch.from_numpy(truth.astype(np.int64))
        x = torch.from_numpy(np.ascontiguousarray(image))
        return x, self._regions(found, case)

    def _check_channels(self, case: str) -> None:
        """Raise where nnU-Net's reader finds other channels in a case's files than are expected.

        FileNotFoundError where a file is missing, else ValueError: one file may hold several, as a
        picture in colour does.
        """
        files, label = self.files[case]
        reader: Any = self.trained.plans.image_reader_writer_class()
        try:
            found = len(reader.read_images([str(path) for path in files])[0])
            layers = len(reader.read_seg(str(label))[0])
        except Exception:
            return
        if found < self.channels and len(files) < self.channels:
            ending, names = str(self.trained.dataset_json["file_ending"]), {f.name for f in files}
            wanted = [f"{case}_{channel:04d}{ending}" for channel in range(self.channels)]
            absent = [name for name in wanted if name not in names]
            if absent[0] == wanted[0] or any(len(f) > 1 for f, _ in self.files.values()):
                raise FileNotFoundError(f"{label} has no image {files[0].parent / absent[0]}")
            # Where every case has one file, either all channels belong into it or all lack files.
            raise ValueError(
                f"case {case} has {found} channel{'s' * (found > 1)} in {wanted[0]}, the data set "
                f"has {self.channels}: expected one image with all of them, or also "
                f"{', '.join(absent)}"
            )
        for what, number, expected in (("channels", found, self.channels), ("labels", layers, 1)):
            if number != expected:
                raise ValueError(
                    f"case {case} has {number} {what} in {', '.join(f.name for f in files)} and "
                    f"{label.name}, as {type(reader).__name__} reads them; expected {expected}"
                )

    def _regions(self, truth: Tensor, case: str) -> Tensor:
        """Labels (n, *S) as the task's targets; ValueError for unknown ones."""
        labels = self.trained.labels
        known = [*labels.all_labels, *([labels.ignore_label] if labels.has_ignore_label else [])]
        strange = ~torch.isin(truth, torch.tensor(known))
        if bool(strange.any()):
            raise ValueError(
                f"case {case} holds the label {int(truth[strange][0])}; the network knows "
                f"{', '.join(map(str, known))}"
            )
        if not labels.has_regions:
            return truth
        regions: list[Any] = list(labels.all_regions or ())
        if labels.has_ignore_label:
            regions.append(labels.ignore_label)
        members = [torch.isin(truth, torch.tensor(np.atleast_1d(region))) for region in regions]
        return torch.stack(members, 1)


def _files(
    trained: Trained, images: Path | None, labels: Path | None
) -> tuple[dict[str, tuple[list[Path], Path]], list[str]]:
    """By case the files of its channels, and of its labels; and the cases without labels."""
    images, labels = _folders(trained, images, labels)
    description = trained.dataset_json
    ending = str(description["file_ending"])
    # As nnU-Net gathers them: its reader knows how many channels a file holds.
    beside: dict[str, list[Path]] = {}
    for path in sorted(images.glob(f"*{ending}")):
        numbered = re.fullmatch(r"(.*)_\d{4}", path.name.removesuffix(ending))
        if numbered is not None:
            beside.setdefault(numbered[1], []).append(path)
    found: dict[str, tuple[list[Path], Path]] = {}
    for label in sorted(labels.glob(f"*{ending}")):
        case = label.name.removesuffix(ending)
        if case not in beside:
            raise FileNotFoundError(f"{label} has no image {images / f'{case}_0000{ending}'}")
        found[case] = beside[case], label
    if not found:
        raise FileNotFoundError(
            f"{labels} holds no labels (*{ending}); there is nothing to test on"
        )
    return found, sorted(beside.keys() - found.keys())


def _folders(trained: Trained, images: Path | None, labels: Path | None) -> tuple[Path, Path]:
    if (images is None) != (labels is None):
        raise ValueError("images and labels belong together; say both --images and --labels")
    if images is None or labels is None:
        raw = os.environ.get(RAW)
        if raw is None:
            raise ValueError(
                f"{RAW} is not set, so the test cases are not known; set it to the folder of "
                f"{trained.dataset}, or say --images FOLDER --labels FOLDER"
            )
        images, labels = (Path(raw) / trained.dataset / name for name in ("imagesTs", "labelsTs"))
    for folder in (images, labels):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}; test cases need images and labels: say --images "
                "FOLDER --labels FOLDER, in nnU-Net's file names"
            )
    return images, labels


def _spread(total: int, samples: int | None) -> NDArray[np.int64]:
    """So many of the numbers below `total`, evenly spread."""
    if samples is None or samples >= total:
        return np.arange(total)
    return ((np.arange(samples) + 0.5) * total / samples).astype(np.int64)
