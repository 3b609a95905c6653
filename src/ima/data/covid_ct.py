"""SARS-CoV-2 CT-scan: axial chest CT slices of patients with and without COVID-19.

E. Soares, P. Angelov, S. Biaso, M. Higa Froes, D. Kanda Abe, "SARS-CoV-2 CT-scan dataset: A large
dataset of real patients CT scans for SARS-CoV-2 identification", medRxiv 2020,
https://doi.org/10.1101/2020.04.24.20078584. Released at
https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ima.data.base import Part, Splits
from ima.data.cache import Arrays, cached
from ima.data.find import locate
from ima.data.folders import ImageFile, class_folders
from ima.data.split import choose, fingerprints, groups

SOURCE = "Soares et al. 2020, https://doi.org/10.1101/2020.04.24.20078584"
SUMMARY = "2481 chest CT slices, COVID-19 or not, gray, resized to 224x224."
WHERE = (
    "Get it from https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset "
    "(publication: https://doi.org/10.1101/2020.04.24.20078584). Lay it out as two folders of "
    "images, sarscov2-ctscan-dataset/COVID and sarscov2-ctscan-dataset/non-COVID, or keep the .zip "
    "as sarscov2-ctscan-dataset.zip."
)
NOTE = (
    "The data set has no patient ids and many near-identical slices, so a random split puts the "
    "same patients in training and test and measures little about new patients. A 1-nearest-"
    "neighbour rule on 56x56 pixels already gets 95.5 % right."
)

CLASSES = ("non-COVID", "COVID")
TEST, VAL = 200, 30  # of each class; training has the rest
USUAL = (
    "sarscov2-ctscan-dataset",
    "sarscov2-ctscan-dataset.zip",
    "sars-cov-2-ct",
    "sars-cov-2-ct.zip",
    "covid_ct",
    "covid_ct.zip",
)
# Formats that hold pictures as shown on a screen. Pillow's others can start helper programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load the slices as (1, size, size), uint8, class 0 non-COVID and class 1 COVID.

    `path` is a folder, or a .zip, with the folders COVID and non-COVID, directly or one level
    deeper. Images are turned gray and resized to `size` x `size` (224 without one) with Lanczos,
    not keeping the aspect ratio. `seed` and the file names decide the split: 200 test and 30
    validation images of each class, training the rest; equal images are never in two parts.
    Decoded images are kept in the cache folder (IMA_CACHE, else ~/.cache/ima).

    Raises `FileNotFoundError` when there is no such folder, `ValueError` for too few images and for
    one that cannot be decoded, which it names.
    """
    side = 224 if size is None else size
    found = locate("covid_ct", path, usual=USUAL, where=WHERE)
    with class_folders(found, CLASSES, where=WHERE) as files:
        _enough(files, found)
        arrays = cached(
            f"covid_ct-{side}-{_key(files, found)}",
            lambda: _decode_all(files, side),
            fits=lambda stored: _fits(stored, len(files), side),
        )
    images, prints = arrays["images"], [str(text) for text in arrays["prints"]]
    parts = {
        role: Part(
            torch.as_tensor(images[chosen][:, None]),
            torch.tensor([files[position].label for position in chosen]),
        )
        for role, chosen in assign(files, images, prints, seed, found).items()
    }
    return Splits("covid_ct", parts["train"], parts["val"], parts["test"], CLASSES, NOTE)


def _enough(files: Sequence[ImageFile], found: Path) -> None:
    counts = [sum(file.label == label for file in files) for label in range(len(CLASSES))]
    if min(counts) <= TEST + VAL:
        came = " and ".join(f"{n} {name}" for n, name in zip(counts, CLASSES, strict=True))
        raise ValueError(
            f"{found} has {came} images; expected more than {TEST + VAL} of each ({TEST} test, "
            f"{VAL} validation, the rest training). {WHERE}"
        )


def _key(files: Sequence[ImageFile], found: Path) -> str:
    # Pillow's version counts too: resizing may be rounded differently.
    from PIL import __version__

    told = [__version__, str(found.absolute())]
    told += [f"{file.label}/{file.name}/{file.stamp}" for file in files]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=12).hexdigest()


def _fits(stored: Arrays, count: int, side: int) -> bool:
    if set(stored) != {"images", "prints"}:
        return False
    images, prints = stored["images"], stored["prints"]
    return (
        images.shape == (count, side, side)
        and images.dtype == np.uint8
        and prints.shape == (count,)
        and prints.dtype.kind == "U"
    )


def _decode_all(files: Sequence[ImageFile], side: int) -> Arrays:
    from PIL import Image

    Image.init()  # once and here: loading the formats is not made for several threads
    # Threads, because Pillow decodes and resizes outside Python's lock; the order stays.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        decoded = list(pool.map(_decode, files, repeat(side)))
    return {
        "images": np.stack([image for image, _ in decoded]),
        "prints": np.array([fingerprint for _, fingerprint in decoded]),
    }


def _decode(file: ImageFile, side: int) -> tuple[NDArray[np.uint8], str]:
    """The image in gray, (side, side), and a fingerprint of the gray image before resizing."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} holds more than 8 bits a channel")
            if image.mode == "P":
                # Its transparency, if any, would make the direct way warn. The colours are equal.
                gray = image.convert("RGBA").convert("RGB").convert("L")
            else:
                gray = image.convert("RGB").convert("L")
        small = gray.resize((side, side), Image.Resampling.LANCZOS)
    except Exception as error:  # Pillow's formats raise whatever comes, down to SyntaxError
        raise ValueError(
            f"{file.shown} cannot be decoded ({error}); expected an undamaged image of 8 bits a "
            "channel: fetch or save it again"
        ) from error
    told = f"{gray.width}x{gray.height}".encode() + gray.tobytes()
    return np.asarray(small), hashlib.blake2b(told, digest_size=16).hexdigest()


def assign(
    files: Sequence[ImageFile],
    images: NDArray[np.uint8],
    prints: Sequence[str],
    seed: int,
    found: Path,
) -> dict[str, list[int]]:
    """Positions of train, val and test, each ascending; equal images stay together."""

    def rank(group: list[int]) -> bytes:
        # By name, not by position: one file more or less leaves the others where they are.
        first = files[group[0]]
        return hashlib.blake2b(f"{seed}/{CLASSES[first.label]}/{first.name}".encode()).digest()

    joined = groups(list(zip(prints, fingerprints(images), strict=True)))
    roles: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in range(len(CLASSES)):
        # An image that is in both classes has no true label to test on: it stays in training.
        free = [group for group in joined if all(files[at].label == label for at in group)]
        free.sort(key=rank)
        for role, count in (("test", TEST), ("val", VAL)):
            chosen = choose([len(group) for group in free], count)
            if chosen is None:
                raise ValueError(
                    f"{found}: no {count} {CLASSES[label]} images can be set aside for {role} "
                    "without having equal images in two parts; remove duplicates"
                )
            # From the back, so that the positions of the others stay.
            for at in reversed(chosen):
                roles[role] += free.pop(at)
    aside = set(roles["val"]) | set(roles["test"])
    roles["train"] = [at for at in range(len(files)) if at not in aside]
    return {role: sorted(chosen) for role, chosen in roles.items()}
