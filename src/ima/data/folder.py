"""Your own image files, one folder a class, on disk or in a .zip.

The two layouts (with parts and without) are said in `layout.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.data.base import Sample, Splits
from ima.data.find import locate
from ima.data.held_out import as_part, three_parts
from ima.data.layout import Layout, class_layout
from ima.data.pictures import Pictures, decode, pictures
from ima.data.split import assign, fingerprints
from ima.data.stored import chosen_of

SOURCE = "your own"
SUMMARY = "Any folder or .zip of images, one folder a class, gray or colour."
WHERE = (
    "Name your folder or .zip with data.path=... (without it, images and images.zip are looked "
    "for). Lay it out as CLASS/FILE, one folder a class, or as train/CLASS/FILE, val/CLASS/FILE "
    "(optional) and test/CLASS/FILE; PNG, JPEG, JPEG 2000, BMP, GIF, TIFF, WEBP, AVIF, PPM or TGA "
    "of 8 bits a channel. "
    "No data at hand? https://medmnist.com has some, see data set 'arrays'."
)
_USUAL = ("images", "images.zip")
TEST, VAL = 20, 10  # per cent of each class; training has the rest


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load the images as uint8, (1, H, W) when all are gray in every pixel, else (3, H, W).

    `path` is a folder or a .zip, see `layout.py`; classes are the folder names, sorted. Images are
    resized to `size` x `size` with Lanczos, not keeping the aspect ratio; without a size they must
    all have one size and stay as they are. Parts in the layout are kept, except that training
    images equal to a validation or test image are left out, and that 10 % of training become
    validation where there is none. Without parts, `seed` and the file names decide: of each class
    20 % test and 10 % validation, training the rest, equal images in one part. Decoded images are
    kept in the cache folder (IMA_CACHE, else ~/.cache/ima); those of more than 1 GiB stay there and
    are read batch by batch.

    Files beside the images are told in the note. Raises `FileNotFoundError` when there is no such
    folder, `ValueError` for another layout, a class with too few images, images of several sizes,
    one that cannot be decoded, and one whose name is that of a hidden file or does not end as an
    image's.
    """
    found = locate("folder", path, usual=_USUAL, where=WHERE)
    with class_layout(found, where=WHERE) as layout:
        images, prints = pictures(
            "folder", layout.files, found, size, lambda file: decode(file, size, gray=False)
        )
    labels = np.array([file.label for file in layout.files], dtype=np.int64)
    if layout.roles[0] is None:
        train, val, test, note = _at_random(found, layout, images, prints, labels, seed)
    else:
        train, val, test, note = _as_stored(found, layout, images, labels, seed)
    name = found.name if found.is_dir() else found.stem
    note = f"{note} {layout.aside}".strip()
    return Splits(name, as_part(train), as_part(val), as_part(test), layout.classes, note)


def _as_stored(
    found: Path,
    layout: Layout,
    images: Pictures,
    labels: NDArray[np.int64],
    seed: int,
) -> tuple[Sample, Sample, Sample, str]:
    def part(role: str) -> Sample:
        chosen = np.array([own == role for own in layout.roles])
        return chosen_of(images, chosen), labels[chosen]

    train, val, test, note = three_parts(
        part("train"),
        part("val") if "val" in layout.roles else None,
        part("test"),
        seed=seed,
        source=found,
        training=f"the training part of {found}",
    )
    absent = [name for at, name in enumerate(layout.classes) if at not in train[1]]
    if absent:
        raise ValueError(
            f"{found} has no training image of {', '.join(absent)} that is not also in validation "
            "or test; expected some of each class"
        )
    return train, val, test, note


def _at_random(
    found: Path,
    layout: Layout,
    images: Pictures,
    prints: Sequence[str],
    labels: NDArray[np.int64],
    seed: int,
) -> tuple[Sample, Sample, Sample, str]:
    counts = [int(count) for count in np.bincount(labels, minlength=len(layout.classes))]
    if min(counts) < 3:
        raise ValueError(
            f"{found} has {min(counts)} images of class {layout.classes[counts.index(min(counts))]}"
            "; expected at least 3 of each class, one for each part"
        )
    wanted = {
        role: [max(1, (count * share + 50) // 100) for count in counts]
        for role, share in (("test", TEST), ("val", VAL))
    }
    try:
        roles = assign(
            [file.label for file in layout.files],
            [file.name for file in layout.files],
            list(zip(prints, fingerprints(images), strict=True)),
            wanted,
            classes=layout.classes,
            seed=seed,
        )
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from error
    train, val, test = (
        (chosen_of(images, np.array(roles[role])), labels[roles[role]])
        for role in ("train", "val", "test")
    )
    note = (
        f"Random split with seed {seed}: {TEST} % test and {VAL} % validation of each class, equal "
        "images in one part. File names do not tell what images have in common: several images of "
        "one patient or object can be in training and in test."
    )
    return train, val, test, note
