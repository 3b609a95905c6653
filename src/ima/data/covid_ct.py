"""SARS-CoV-2 CT-scan: axial chest CT slices of patients with and without COVID-19.

E. Soares, P. Angelov, S. Biaso, M. Higa Froes, D. Kanda Abe, "SARS-CoV-2 CT-scan dataset: A large
dataset of real patients CT scans for SARS-CoV-2 identification", medRxiv 2020,
https://doi.org/10.1101/2020.04.24.20078584. Released at
https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from ima.data import split
from ima.data.base import Splits
from ima.data.find import locate
from ima.data.folders import ImageFile
from ima.data.held_out import as_part
from ima.data.layout import class_layout
from ima.data.pictures import Pictures, decode, pictures
from ima.data.split import fingerprints
from ima.data.stored import chosen_of

SOURCE = "Soares et al. 2020, https://doi.org/10.1101/2020.04.24.20078584"
SUMMARY = "2481 chest CT slices, COVID-19 or not, gray, resized to 224x224."
WHERE = (
    "Get it from https://www.kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset "
    "(publication: https://doi.org/10.1101/2020.04.24.20078584). Lay it out as two folders of "
    "images, sarscov2-ctscan-dataset/COVID and sarscov2-ctscan-dataset/non-COVID, or keep the .zip "
    "as sarscov2-ctscan-dataset.zip."
)
_NOTE = (
    "The data set has no patient ids and many near-identical slices, so a random split puts the "
    "same patients in training and test and measures little about new patients. A 1-nearest-"
    "neighbour rule on 56x56 pixels already gets 95.5 % right."
)

LOSSY = "stored as JPEG, which may change them by more than the smallest noise radius."
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
SIDE = 224

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
    side = SIDE if size is None else size
    found = locate("covid_ct", path, usual=USUAL, where=WHERE)
    with class_layout(found, where=WHERE, classes=CLASSES) as layout:
        files = layout.files
        check_enough(files, found)
        images, prints = pictures(
            "covid_ct", files, found, side, lambda file: decode(file, side, gray=True)
        )
    roles = assign(files, images, prints, seed, found)
    parts = {
        role: as_part(
            (
                chosen_of(images, np.array(chosen)),
                np.array([files[position].label for position in chosen]),
            )
        )
        for role, chosen in roles.items()
    }
    note = " ".join(part for part in (_NOTE, _lossy(files, roles), layout.aside) if part)
    return Splits("covid_ct", parts["train"], parts["val"], parts["test"], CLASSES, note)


def _lossy(files: Sequence[ImageFile], roles: Mapping[str, Sequence[int]]) -> str:
    """Which images are stored as JPEG, "" for none: the published ones are not."""
    jpeg = [PurePath(file.name).suffix.lower() in JPEG for file in files]
    held = [*roles["val"], *roles["test"]]
    training, others = (sum(jpeg[at] for at in part) for part in (roles["train"], held))
    if training + others == 0:
        return ""
    if training == len(roles["train"]) and others == 0:
        return f"Training images are {LOSSY}"
    # As with a pack that was made for another split.
    return (
        f"{training} of {len(roles['train'])} training images and {others} of {len(held)} "
        f"validation and test images are {LOSSY}"
    )


def check_enough(files: Sequence[ImageFile], found: Path) -> None:
    """Raise ValueError where a class has too few images for the three parts."""
    counts = [sum(file.label == label for file in files) for label in range(len(CLASSES))]
    if min(counts) <= TEST + VAL:
        came = " and ".join(f"{n} {name}" for n, name in zip(counts, CLASSES, strict=True))
        raise ValueError(
            f"{found} has {came} images; expected more than {TEST + VAL} of each ({TEST} test, "
            f"{VAL} validation, the rest training). {WHERE}"
        )


def assign(
    files: Sequence[ImageFile],
    images: Pictures,
    prints: Sequence[str],
    seed: int,
    found: Path,
) -> dict[str, list[int]]:
    """Positions of train, val and test, each ascending; equal images stay together."""
    wanted = {"test": [TEST] * len(CLASSES), "val": [VAL] * len(CLASSES)}
    tokens = list(zip(prints, fingerprints(images), strict=True))
    labels = [file.label for file in files]
    # With the published ending: slices that are packed as JPEG go to the same parts.
    names = [PurePath(file.name).with_suffix(".png").name for file in files]
    try:
        return split.assign(labels, names, tokens, wanted, classes=CLASSES, seed=seed)
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from error
