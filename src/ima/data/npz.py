"""Reading and checking .npz files in MedMNIST's layout.

The file holds `train_images`, `train_labels`, `test_images`, `test_labels` and, if there is one,
`val_images`, `val_labels`; where classes have names, `classes`, a text for each. Labels are whole
numbers from 0 up, (N,) or (N, 1), each of which the training part has. Images are uint8, or floats
in [0, 1], channels last:

    (N, H, W)                           gray images
    (N, H, W, 1), (N, H, W, 3)          gray and colour images: of four dimensions, a last one of 1
                                        or 3 is always channels
    (N, D, H, W), W neither 1 nor 3     gray volumes: every other array of four dimensions
    (N, D, H, W, 1), (N, D, H, W, 3)    gray and colour volumes
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.data.base import Sample
from ima.files import read_arrays

_ROLES = ("train", "val", "test")
_CHANNELS = (1, 3)
MOST_CLASSES = 65536  # beyond, labels are not class numbers, and a list of names fills the memory


def read_parts(file: Path, *, where: str) -> tuple[Sample, Sample | None, Sample]:
    """Training, validation (None without one) and test part of an .npz file, channels first.

    Raises `ValueError`, naming file and key, for what is absent, damaged, empty, of another layout
    or out of range; `where` is appended when arrays are absent.
    """
    names = [f"{role}_{kind}" for role in _ROLES for kind in ("images", "labels")]
    stored = read_arrays(file, names)
    train, val, test = (_sample(file, stored, role, where) for role in _ROLES)
    if train is None or test is None:
        raise ValueError(
            f"{file} has no '{'train' if train is None else 'test'}_images', only "
            f"{', '.join(stored) or 'none of the arrays expected'}. {where}"
        )
    for role, other in (("val", val), ("test", test)):
        if other is not None:
            _same_layout(file, train[0], other[0], role)
    return train, val, test


def read_classes(file: Path, count: int) -> tuple[str, ...]:
    """The names of so many classes: those in `classes`, or their numbers; ValueError for others."""
    stored = read_arrays(file, ["classes"]).get("classes")
    if stored is None or stored.dtype.kind != "U":
        return tuple(map(str, range(count)))
    # Of the last ones there may be no sample.
    names = tuple(map(str, stored.reshape(-1)[:count].tolist()))
    if len(set(names)) < count:
        raise ValueError(
            f"'classes' of {file} holds {', '.join(names)}; expected {count} different names, in "
            "the order of the labels' numbers"
        )
    return names


def _sample(file: Path, stored: Mapping[str, NDArray[Any]], role: str, where: str) -> Sample | None:
    """Images (N, C, *dims) and labels (N,) of one part, checked; None when it is not there."""
    images_key, labels_key = f"{role}_images", f"{role}_labels"
    if images_key not in stored and labels_key not in stored:
        return None
    for key, other in ((images_key, labels_key), (labels_key, images_key)):
        if key not in stored:
            raise ValueError(f"{file} has {other!r} but no {key!r}; store both. {where}")
    images = _images(f"{images_key!r} of {file}", stored[images_key])
    labels = _labels(f"{labels_key!r} of {file}", stored[labels_key])
    if len(images) != len(labels):
        raise ValueError(
            f"{file} has {len(images)} {images_key!r} but {len(labels)} {labels_key!r}; "
            "expected one label an image"
        )
    return images, labels


def _images(what: str, images: NDArray[Any]) -> NDArray[Any]:
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{what} is {images.dtype}; expected uint8, or floats in [0, 1]")
    if images.size == 0:
        raise ValueError(f"{what} is empty, of shape {images.shape}; expected at least one image")
    if images.dtype.kind == "f":
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise ValueError(
                f"{what} reaches from {low} to {high}; expected [0, 1]: divide by the largest "
                "possible value, or store uint8"
            )
        images = images.astype(np.float32)
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] not in _CHANNELS):
        if images.ndim == 4 and images.shape[1] in _CHANNELS:
            # By the rule a volume of 1 or 3 slices, in truth nearly always channels first.
            raise ValueError(
                f"{what} has shape {images.shape}, which looks like channels first; store channels "
                f"last, (N, H, W, C), or, for real volumes of {images.shape[1]} slices, "
                "(N, D, H, W, 1)"
            )
        return images[:, None]
    if images.ndim in (4, 5) and images.shape[-1] in _CHANNELS:
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    raise ValueError(
        f"{what} has shape {images.shape}; expected (N, H, W), (N, H, W, C), (N, D, H, W) or "
        "(N, D, H, W, C) with C 1 or 3"
    )


def _labels(what: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{what} has shape {labels.shape}, so several labels a sample; expected one class "
            "number a sample, (N,) or (N, 1)"
        )
    if labels.ndim not in (1, 2) or labels.size == 0:
        raise ValueError(f"{what} has shape {labels.shape}; expected (N,) or (N, 1), not empty")
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what} is {labels.dtype}; expected whole class numbers from 0 up, of an integer type"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= MOST_CLASSES:
        raise ValueError(
            f"{what} reaches from {low} to {high}; expected class numbers from 0 up, without gaps"
        )
    return labels.reshape(-1).astype(np.int64)


def _same_layout(file: Path, ours: NDArray[Any], theirs: NDArray[Any], role: str) -> None:
    if ours.shape[1:] != theirs.shape[1:] or ours.dtype != theirs.dtype:
        raise ValueError(
            f"'{role}_images' of {file} holds {theirs.dtype} samples of shape {theirs.shape[1:]}, "
            f"'train_images' {ours.dtype} of {ours.shape[1:]} (channels first); expected the same"
        )
