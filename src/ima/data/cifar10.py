"""CIFAR-10: 60000 colour images of 32x32 pixels in ten classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University
of Toronto, 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ima.data.base import Sample, Splits
from ima.data.batch_pickle import WIDTH, read_batch
from ima.data.find import check_size, locate, missing
from ima.data.held_out import published
from ima.memory import TooLargeError, check_memory

SOURCE = "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html"
SUMMARY = "60000 colour images of 32x32 pixels, ten classes of animals and vehicles."
WHERE = (
    "Get it with `ima data get cifar10`, or from https://www.cs.toronto.edu/~kriz/cifar.html (the "
    "python or the binary version), and keep the .tar.gz, or the folder in it, as "
    "cifar10/cifar-10-python.tar.gz, cifar10/cifar-10-batches-py, or the same with binary and bin."
)
_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
# cifar-10 last: `ima data subset` makes it, so it may hold the subset and no batches.
USUAL = ("cifar10", "cifar-10-batches-py", "cifar-10-batches-bin", *ARCHIVES, "cifar-10")
# The batches, training first; in the binary version with .bin at the end.
STEMS = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load the images as (3, 32, 32), uint8.

    `path` is the .tar.gz as published, in its python or its binary version, or a folder with its
    files, or one with the archive or that folder in it. Test is the test batch. Of the five
    training batches 10 % are held out for validation, by `seed`, with classes in proportion;
    training images that are equal to a validation or test image are left out. A batch may hold any
    number of images.

    Raises `FileNotFoundError` when there are no batches or not all six, `ValueError` for damaged
    files and for a size other than 32. A python batch, though a pickle, cannot execute anything.
    """
    check_size("cifar10", size, 32)
    found = find_files(path)
    *batches, test = read_files(found)
    train = tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return published("cifar10", (train[0], train[1]), test, _CLASSES, seed=seed, source=found)


def find_files(path: str | Path | None = None) -> Path:
    """Where the batches are: `path`, else the first of the usual places.

    Raises `FileNotFoundError` when there is none.
    """
    return locate("cifar10", path, usual=USUAL, where=WHERE)


def read_files(found: Path) -> list[Sample]:
    """All batches of the folder or .tar.gz `found`, in the order of `STEMS`.

    Of each the images (N, 3, 32, 32), uint8, and labels (N,), 0 to 9, in their stored order.
    Raises `FileNotFoundError` when one is absent from a folder, `ValueError` for damaged files.
    """
    return _in_folder(found) if found.is_dir() else _in_archive(found)


def _read_binary(raw: bytes, shown: str) -> Sample:
    """Images and labels of one binary batch: rows of a label byte and 3072 bytes of pixels."""
    if len(raw) == 0 or len(raw) % (1 + WIDTH):
        raise ValueError(
            f"{shown} has {len(raw)} bytes; expected rows of {1 + WIDTH} bytes, a label and "
            f"{WIDTH} pixel values: fetch it again"
        )
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 1 + WIDTH)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise ValueError(
            f"{shown} has the label {labels.max()}; expected 0 to 9, in rows of {1 + WIDTH} bytes"
        )
    return np.array(rows[:, 1:], order="C").reshape(-1, 3, 32, 32), labels


@dataclass(frozen=True)
class _Version:
    """One of the two published versions: its files, training first, and how to read one."""

    files: tuple[str, ...]
    read: Callable[[bytes, str], Sample]


_VERSIONS = (
    _Version(STEMS, read_batch),
    _Version(tuple(f"{stem}.bin" for stem in STEMS), _read_binary),
)


def _in_folder(found: Path) -> list[Sample]:
    """All batches, training first, of the folder, or of the one folder or archive in it."""
    places = [found, *sorted(path for path in found.iterdir() if path.is_dir())]
    sets = [(place, version) for place in places for version in _VERSIONS]
    absent = {
        chosen: [chosen[0] / name for name in chosen[1].files if not (chosen[0] / name).is_file()]
        for chosen in sets
    }
    whole = [chosen for chosen in sets if not absent[chosen]]
    if whole:
        here = [chosen for chosen in whole if chosen[0] == found]
        if len(whole) > 1 and not here:
            names = ", ".join(str(place) for place, _ in whole)
            raise ValueError(f"{found} holds several sets of batches ({names}); name one of them")
        place, version = (here or whole)[0]
        return [
            version.read((place / name).read_bytes(), str(place / name)) for name in version.files
        ]
    for archive in ARCHIVES:
        if (found / archive).is_file():
            return _in_archive(found / archive)
    nearest = min(sets, key=lambda chosen: len(absent[chosen]))
    raise missing("cifar10", absent[nearest], where=WHERE)


def _in_archive(found: Path) -> list[Sample]:
    """All batches, training first, of a .tar.gz; nothing of it is unpacked to disk."""
    wanted = {name for version in _VERSIONS for name in version.files}
    held: dict[str, bytes] = {}
    need = 0
    try:
        with gzip.open(found) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                handle = archive.extractfile(member) if name in wanted else None
                if handle is not None:
                    need += member.size
                    check_memory(str(found), need, found.stat().st_size)
                if handle is not None:
                    held[name] = handle.read()
            while unzipped.read(1 << 20):  # to its end, where the checksum is
                pass
    except TooLargeError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise ValueError(
            f"{found} cannot be read ({error}); expected an undamaged .tar.gz of CIFAR-10, python "
            f"or binary version. {WHERE}"
        ) from error
    for version in _VERSIONS:
        if held.keys() >= set(version.files):
            return [version.read(held[name], f"{name} in {found}") for name in version.files]
    raise ValueError(
        f"{found} holds of CIFAR-10's batches only {', '.join(sorted(held)) or 'none'}; expected "
        f"{STEMS[0]} to {STEMS[4]} and {STEMS[5]}. {WHERE}"
    )
