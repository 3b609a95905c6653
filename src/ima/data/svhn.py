"""SVHN, cropped digits (format 2): house numbers in street pictures, 32x32 colour pixels.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural Images with
Unsupervised Feature Learning", NIPS Workshop on Deep Learning and Unsupervised Feature Learning
2011, http://ufldl.stanford.edu/housenumbers/.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ima.data.base import Sample, Splits
from ima.data.find import check_size, locate, missing
from ima.data.held_out import published
from ima.extras import need
from ima.memory import TooLargeError, check_memory

SOURCE = "Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers/"
SUMMARY = "99289 digits from house numbers in street pictures, 32x32 colour pixels."
WHERE = (
    "Get train_32x32.mat and test_32x32.mat (format 2, cropped digits) with `ima data get svhn`, "
    "or from http://ufldl.stanford.edu/housenumbers/ (for "
    "non-commercial use only), and put them in the folder svhn."
)
FILES = ("train_32x32.mat", "test_32x32.mat")
# svhn-cropped last: `ima data subset` makes it, so it may hold the subset and no .mat file.
USUAL = ("svhn", "SVHN", "svhn-cropped")
_HEAD = 128
"""Bytes of a .mat file before its variables."""

PACKED = 15
"""The number of a variable that is compressed."""

_NOTE = (
    "Validation digits were picked at random: others of the same house number can be in training."
)


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load the digits as (3, 32, 32), uint8; class 0 is digit 0.

    `path` is the folder with train_32x32.mat and test_32x32.mat. Test is the test file. Of the
    training file 10 % are held out for validation, by `seed`, with classes in proportion; training
    images that are equal to a validation or test image are left out.

    Raises `FileNotFoundError` when a file is absent, `ValueError` for damaged files, other arrays,
    labels other than 1 to 10 (in the files 10 is digit 0), and for a size other than 32.
    """
    check_size("svhn", size, 32)
    found = find_files(path)
    train, test = read_files(found)
    digits = [str(digit) for digit in range(10)]
    splits = published("svhn", train, test, digits, seed=seed, source=found)
    return replace(splits, note=f"{splits.note} {_NOTE}")


def find_files(path: str | Path | None = None) -> Path:
    """Where the files are: `path`, else the first of the usual places.

    Raises `FileNotFoundError` when there is none.
    """
    return locate("svhn", path, usual=USUAL, where=WHERE)


def read_files(found: Path, names: Sequence[str] = FILES) -> list[Sample]:
    """The files `names` of the folder `found`, one after the other.

    Of each the images (N, 3, 32, 32), uint8, and labels (N,), 0 to 9, in their stored order.
    Raises `FileNotFoundError` when one is absent, `ValueError` for damaged files and where `found`
    is no folder.
    """
    if not found.is_dir():
        raise ValueError(f"{found} is a file; expected the folder with {' and '.join(names)}")
    absent = [found / name for name in names if not (found / name).is_file()]
    if absent:
        raise missing("svhn", absent, where=WHERE)
    return [_read(found / name) for name in names]


def _read(file: Path) -> Sample:
    """Images (N, 3, 32, 32), uint8, and labels (N,), 0 to 9."""
    need("data")
    # Here and not above: other data sets need not wait for it.
    from scipy.io import loadmat  # pyright: ignore[reportMissingTypeStubs]

    try:
        raw = file.read_bytes()
        check_memory(str(file), _unpacked(raw), len(raw))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns of some damages and goes on
            stored = cast("Any", loadmat(io.BytesIO(raw), variable_names=["X", "y"]))
    except TooLargeError:
        raise
    except Exception as error:  # scipy raises whatever comes on damaged bytes
        raise ValueError(
            f"{file} cannot be read ({error}); expected an undamaged .mat file as published: fetch "
            "it again"
        ) from error
    for key in ("X", "y"):
        if key not in stored:
            raise ValueError(f"{file} has no {key!r}; expected images 'X' and labels 'y'. {WHERE}")
    images: NDArray[Any] = stored["X"]
    labels: NDArray[Any] = stored["y"]
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4:
        raise ValueError(
            f"'X' of {file} is {images.dtype} of shape {images.shape}; expected uint8 of "
            "(32, 32, 3, N)"
        )
    count = images.shape[3]
    if count == 0 or labels.shape != (count, 1) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"'y' of {file} is {labels.dtype} of shape {labels.shape}; expected whole numbers of "
            f"({count}, 1), one for each image"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 1 or high > 10:
        raise ValueError(
            f"'y' of {file} reaches from {low} to {high}; expected 1 to 10, where 10 is digit 0. "
            "Converted files, with 0 for digit 0, are loaded as data set 'arrays'"
        )
    first = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return first, labels[:, 0].astype(np.int64) % 10


def _unpacked(raw: bytes) -> int:
    """How many bytes the variables of a .mat file say that they have, packed ones unpacked."""
    at, count = _HEAD, 0
    while at + 8 <= len(raw):
        kind, length = struct.unpack_from("<II", raw, at)
        first = raw[at + 8 : at + 8 + min(length, 1 << 10)]
        if kind == PACKED:
            inner = zlib.decompressobj().decompress(first, 8)
            count += struct.unpack("<II", inner)[1] if len(inner) == 8 else 0
        else:
            count += min(length, len(raw))
        at += 8 + length
    return count
