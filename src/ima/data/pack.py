"""The CT images as one small file, for machines that data has to be carried to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from ima.data.covid_ct import CLASSES, SIDE, USUAL, WHERE, assign, check_enough
from ima.data.find import locate
from ima.data.layout import class_layout
from ima.data.pictures import decode
from ima.extras import need
from ima.files import whole

QUALITY = 95
"""Of the training images' JPEG: with it all 2481 slices at 224x224 stay below 60 MiB."""

_SMALLEST = 8
"""Pixels of a side: less is no picture, and no network takes it."""


def pack_covid_ct(
    target: Path,
    *,
    path: str | Path | None = None,
    size: int = SIDE,
    quality: int = QUALITY,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> tuple[int, float]:
    """Write the slices, gray, `size` x `size`, into a .zip that `covid_ct` loads.

    Validation and test images of the split `seed` are stored as they are (lossless WebP); training
    images as JPEG, whose changes may be larger than the smallest noise radius. path: as of the
    loader. tell: is told which files beside the images are left out. Names stay, so the split is
    that of the originals. Returns the number of images and the mean L2 size of what JPEG changed in
    training images, for values in [0, 1]. The file appears whole or not at all, and is the same for
    the same images.
    Raises `ValueError` for a quality outside 1 to 100, a size below 8, a target that is a folder,
    too few images and images that cannot be decoded, `FileNotFoundError` where the data set is
    missing, `OSError` where the file cannot be written.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; expected 1 to 100")
    if size < _SMALLEST:
        raise ValueError(f"the size is {size}; expected at least {_SMALLEST} pixels")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name the file to write: {target / 'covid_ct.zip'}")
    found = locate("covid_ct", path, usual=USUAL, where=WHERE)
    with class_layout(found, where=WHERE, classes=CLASSES) as layout:
        files = layout.files
        if layout.aside and tell is not None:
            tell(layout.aside)
        check_enough(files, found)
        decoded = [decode(file, size, gray=True) for file in files]
        images, prints = np.stack([image for image, _ in decoded]), [text for _, text in decoded]
        training = set(assign(files, images, prints, seed, found)["train"])
        changes: list[float] = []
        with whole(target) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
            for at, file in enumerate(files):
                gray = images[at, 0]
                stem = f"{CLASSES[file.label]}/{PurePath(file.name).stem}"
                if at in training:
                    name, stored = f"{stem}.jpg", _encode(gray, "JPEG", quality=quality)
                    changes.append(_change(gray, stored))
                else:
                    name, stored = f"{stem}.webp", _encode(gray, "WEBP", lossless=True, method=4)
                # A fixed date: the same images make the same file.
                archive.writestr(zipfile.ZipInfo(name), stored)
    return len(files), float(np.mean(changes))


def _encode(gray: NDArray[np.uint8], form: str, **options: int) -> bytes:
    need("data")
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(gray).save(stored, form, **options)
    return stored.getvalue()


def _change(gray: NDArray[np.uint8], stored: bytes) -> float:
    from PIL import Image

    with Image.open(io.BytesIO(stored)) as image:
        back = np.asarray(image.convert("L")).astype(np.float64)
    return float(np.linalg.norm((back - gray) / 255))
