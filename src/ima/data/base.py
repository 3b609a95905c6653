"""What every data set is once loaded: three parts, and a row in the table."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ima.data.stored import Images

# Of one part, as loaders read it: images (N, C, *dims), uint8 or float32, and labels (N,).
Sample = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)  # comparing tensors gives no bool, so parts compare by identity
class Part(Dataset[tuple[Tensor, Tensor]]):
    """One part of a data set, in memory, or its images in a file.

    `images` (N, C, *dims), uint8 (255 means 1.0) or float32 in [0, 1], or `Stored`; `targets` (N,),
    int64, from 0 up, or with `labels=False` what another task trains on, (N, ...). `part[i]` gives
    `x` (C, *dims), float32 in [0, 1], and `y`, for labels an int64 scalar; `part[[i, j, ...]]`, or
    a tensor of indices, gives a whole batch (B, C, *dims) and (B,) or (B, ...) with one indexing
    operation. What is given is a copy: writing to it leaves the part as it is.

    Raises `TypeError` for other dtypes, `ValueError` for no samples, unequal lengths or values out
    of range, `IndexError` for an index out of range.
    """

    images: Images
    targets: Tensor
    labels: bool = True

    def __post_init__(self) -> None:
        images, targets = self.images, self.targets
        if images.dtype not in (torch.uint8, torch.float32):
            raise TypeError(
                f"images are {images.dtype}, expected uint8 (0 to 255) or float32 in [0, 1]; "
                "convert them first"
            )
        if self.labels and targets.dtype != torch.int64:
            raise TypeError(f"targets are {targets.dtype}, expected int64; convert with .long()")
        if images.ndim < 2 or (targets.ndim != 1 if self.labels else targets.ndim < 1):
            raise ValueError(
                f"images have shape {tuple(images.shape)} and targets {tuple(targets.shape)}, "
                f"expected (N, C, *dims) and {'(N,)' if self.labels else '(N, ...)'}"
            )
        if len(images) != len(targets):
            raise ValueError(
                f"{len(images)} images came with {len(targets)} targets; give one target an image"
            )
        if images.numel() == 0:
            raise ValueError(f"images of shape {tuple(images.shape)} are empty; give at least one")
        if self.labels and int(targets.min()) < 0:
            raise ValueError(
                f"the smallest target is {int(targets.min())}, expected class numbers from 0 up"
            )
        if isinstance(images, Tensor) and images.dtype == torch.float32:
            low, high = float(images.min()), float(images.max())
            if not (low >= 0 and high <= 1):  # written so that NaN fails too
                raise ValueError(
                    f"float images reach from {low} to {high}, expected [0, 1]; divide by the "
                    "largest possible value, or give uint8"
                )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: SupportsIndex | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(index, list) or (isinstance(index, Tensor) and index.ndim > 0):
            chosen = self._positions(index)
            return _as_float(self.images[chosen]), self.targets[chosen]
        try:
            at = operator.index(index)
        except TypeError as error:
            raise TypeError(
                f"cannot index a part with {type(index).__name__}; expected a whole number, a list "
                "of them or an integer tensor (B,)"
            ) from error
        if not -len(self) <= at < len(self):
            raise IndexError(f"index {at} is out of range for a part of {len(self)} samples")
        # clone: one index gives a view, and a view would let the caller write into the part
        return _as_float(self.images[at].clone()), self.targets[at].clone()

    def _positions(self, index: list[int] | Tensor) -> Tensor:
        chosen = torch.as_tensor(index, device=self.targets.device)
        if chosen.numel() == 0:
            chosen = chosen.long()
        # uint8 and bool tensors mean masks to torch; a mask is refused, uint8 taken as numbers.
        if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.ndim != 1:
            raise TypeError(
                f"cannot index a part with {chosen.dtype} values of shape {tuple(chosen.shape)}; "
                "expected whole numbers of shape (B,)"
            )
        return chosen.long()


def _as_float(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in its three parts.

    `classes` holds one name a class number, or one an output of the network; `note` one or two
    sentences that belong beside every table made of this data set (how it was split, what it cannot
    show). `flipped` holds the training samples whose label was flipped on purpose, by id, with
    their true class.

    Raises `ValueError` when a part has targets without a class or samples of another shape.
    """

    name: str
    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    note: str
    flipped: Mapping[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        for role, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            highest = int(part.targets.max()) if part.labels else 0
            if highest >= self.num_classes:
                raise ValueError(
                    f"{self.name}: the {role} part has target {highest}, but there are "
                    f"{self.num_classes} classes {self.classes}; expected 0 to "
                    f"{self.num_classes - 1}"
                )
            if part.images.shape[1:] != self.train.images.shape[1:]:
                raise ValueError(
                    f"{self.name}: samples of the {role} part have shape "
                    f"{tuple(part.images.shape[1:])}, those of training {self.shape}; bring all "
                    "parts to one shape"
                )
            if part.targets.shape[1:] != self.train.targets.shape[1:]:
                raise ValueError(
                    f"{self.name}: targets of the {role} part have shape "
                    f"{tuple(part.targets.shape)}, those of training "
                    f"{tuple(self.train.targets.shape)}; bring all parts to one shape"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Number of channels of a sample."""
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (C, *dims)."""
        return tuple(self.train.images.shape[1:])


@dataclass(frozen=True)
class DataRow:
    """A row of the table of data sets.

    `load(path, size=..., seed=...)` reads it; `source` is the publication, `summary` one sentence,
    `where` says where to get the files and where to put them.
    """

    name: str
    load: Callable[..., Splits]
    source: str
    summary: str
    where: str
