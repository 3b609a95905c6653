"""The small subsets of CIFAR-10 and SVHN that the small experiments use, one .npz file each.

They are cut from the published files by position alone, so that everybody's are the same. The
files have MedMNIST's layout, which data set `arrays` loads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.data import cifar10, svhn
from ima.data.base import Sample
from ima.data.find import data_root, row_of
from ima.files import read_arrays, write_arrays

ByteArrays = dict[str, NDArray[np.uint8]]

_BATCH = 1000  # images of each of CIFAR-10's batches
# SVHN's digits are in the order of the street pictures: these are cuts between two pictures
# (after 344, 395 and 499 of them), so that no picture is in two parts.
VAL_FROM, TEST_FROM, TEST_TO = 750, 851, 1083


@dataclass(frozen=True)
class Stretch:
    """The images from position `start` up to, and without, `stop` of a published file."""

    file: str
    start: int
    stop: int


@dataclass(frozen=True)
class SubsetRow:
    """A row of the table of subsets.

    `find(path)` and `read(found)` give the published files, images and labels by file name; `parts`
    the stretches of "train", "val" and "test". `place`, below `data_root()`, is where the packaged
    `configs` look for it. `digest` is the SHA-256 of the arrays that the published results were
    measured on, see `digest`.
    """

    name: str
    find: Callable[[str | Path | None], Path]
    read: Callable[[Path], Mapping[str, Sample]]
    parts: Mapping[str, tuple[Stretch, ...]]
    place: str
    configs: tuple[str, ...]
    digest: str


def _read_svhn(found: Path) -> dict[str, Sample]:
    # The published test file has no part in it, and need not be there.
    names = svhn.FILES[:1]
    return dict(zip(names, svhn.read_files(found, names), strict=True))


SUBSETS: dict[str, SubsetRow] = {
    row.name: row
    for row in (
        SubsetRow(
            "cifar10",
            cifar10.find_files,
            lambda found: dict(zip(cifar10.STEMS, cifar10.read_files(found), strict=True)),
            {
                "train": tuple(Stretch(stem, 0, _BATCH) for stem in cifar10.STEMS[:4]),
                "val": (Stretch(cifar10.STEMS[4], 0, _BATCH),),
                "test": (Stretch(cifar10.STEMS[5], 0, _BATCH),),
            },
            "cifar-10/cifar10_subset.npz",
            ("table1_small", "table4_small", "fig7_small"),
            "a5de402bc66d088d02c7338d28fa4a1977b9069d0ff04f288d070e3e2970eab6",
        ),
        SubsetRow(
            "svhn",
            svhn.find_files,
            _read_svhn,
            {
                "train": (Stretch(svhn.FILES[0], 0, VAL_FROM),),
                "val": (Stretch(svhn.FILES[0], VAL_FROM, TEST_FROM),),
                "test": (Stretch(svhn.FILES[0], TEST_FROM, TEST_TO),),
            },
            "svhn-cropped/svhn_subset.npz",
            ("table2_small", "fig6_small"),
            "132c068dee1726d393fd6dee3dce132eeb16038ffbd39544230c692a4a470f4f",
        ),
    )
}


@dataclass(frozen=True)
class MadeSubset:
    """What `make` did: the file, its number of images by part, and how it compares.

    `kept` says that an equal file was there, which stays as it is; `known` that images and labels
    are, bit by bit, those that the published results were measured on.
    """

    file: Path
    counts: Mapping[str, int]
    kept: bool
    known: bool


def make_subset(name: str, path: str | Path | None = None) -> MadeSubset:
    """Cut the subset `name` of `SUBSETS` and write it to where the packaged configs look for it.

    `path` is the published files, as of the loader of that name, and looked for in its usual places
    if not given. The file appears whole or not at all; an equal one that is there is kept.

    Raises `ValueError` for an unknown name, damaged or too short files, and a different file in the
    place; `FileNotFoundError` where the published files are missing, `OSError` where the subset
    cannot be written.
    """
    row = row_of(SUBSETS, name, "subset")
    arrays = cut(row, path)
    file = data_root() / row.place
    kept = file.exists()
    if not kept:
        _write(file, arrays)
    elif not _holds(file, arrays):
        raise ValueError(
            f"{file} is there, but does not hold the images and labels that the subset of {name} "
            "would have; it is left as it is. Move it away to have the subset in its place"
        )
    counts = {role: len(arrays[f"{role}_labels"]) for role in row.parts}
    return MadeSubset(file, counts, kept=kept, known=arrays_digest(arrays) == row.digest)


def cut(row: SubsetRow, path: str | Path | None = None) -> ByteArrays:
    """The arrays of a subset, each part's images (N, H, W, C) and labels (N, 1), uint8.

    Raises `ValueError` for published files that are damaged or have too few images,
    `FileNotFoundError` where they are missing.
    """
    found = row.find(path)
    files = row.read(found)
    every = [stretch for stretches in row.parts.values() for stretch in stretches]
    for stretch in sorted(every, key=lambda one: -one.stop):  # so that it says how many in all
        count = len(files[stretch.file][1])
        if count < stretch.stop:
            raise ValueError(
                f"{stretch.file} of {found} has {count} images; the subset needs at least "
                f"{stretch.stop}. Get the published files with `ima data get {row.name}`, and name "
                "their place with --path if this one is found first"
            )
    arrays: ByteArrays = {}
    for role, stretches in row.parts.items():
        taken = [(files[stretch.file], slice(stretch.start, stretch.stop)) for stretch in stretches]
        images = np.concatenate([sample[0][which] for sample, which in taken])
        labels = np.concatenate([sample[1][which] for sample, which in taken])
        arrays[f"{role}_images"] = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        arrays[f"{role}_labels"] = labels.astype(np.uint8)[:, None]
    return arrays


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the arrays' names, types, shapes and bytes; equal for equal arrays alone.

    A file's own checksum would also depend on the version of the compression.
    """
    summed = hashlib.sha256()
    for key in sorted(arrays):
        summed.update(f"{key} {arrays[key].dtype} {arrays[key].shape}\n".encode())
        summed.update(arrays[key].tobytes())
    return summed.hexdigest()


def _holds(file: Path, arrays: ByteArrays) -> bool:
    # A folder, a damaged file, something else: always the same answer, it is not ours.
    with suppress(Exception):
        return arrays_digest(read_arrays(file)) == arrays_digest(arrays)
    return False


def _write(file: Path, arrays: ByteArrays) -> None:
    try:
        write_arrays(file, arrays)
    except OSError as error:
        raise OSError(
            f"{file} cannot be written ({error.__cause__ or error}). Set IMA_DATA to a folder that "
            "can, and name the published files with --path"
        ) from error
