"""Your own images in one .npz file, in the layout of MedMNIST.

J. Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8.

What the file must hold, and how images and volumes are told apart, is said in `npz.py`.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ima.data.base import Part, Splits
from ima.data.find import locate, missing
from ima.data.npz import Sample, read_parts
from ima.data.split import fingerprints, stratified

SOURCE = "the layout of MedMNIST v2, Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8"
SUMMARY = "Any .npz file in MedMNIST's layout: gray or colour images or volumes with class labels."
WHERE = (
    "MedMNIST's files are at https://medmnist.com; your own are made with numpy.savez(file, "
    "train_images=..., train_labels=..., val_images=..., val_labels=..., test_images=..., "
    "test_labels=...), images channels last, labels from 0 up."
)


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load an .npz file; `path` is the file, or a folder with exactly one.

    Samples are (C, H, W) or (C, D, H, W), uint8 or float32 in [0, 1]; classes are named "0", "1",
    ... Training images that are equal, pixel by pixel, to a validation or test image are left out
    of training. A file without validation has 10 % of its training images held out for it, by
    `seed`, with classes in proportion; the test part is never touched.

    Raises `ValueError`, naming file and key, for arrays that are absent, damaged, empty, of another
    layout or out of range, and for a `size` that differs from the stored one;
    `FileNotFoundError` when there is no file.
    """
    file = _find(path)
    train, val, test = read_parts(file, where=WHERE)
    if size is not None and train[0].shape[2:] != (size,) * (train[0].ndim - 2):
        raise ValueError(
            f"{file} has images of {train[0].shape[2:]} pixels, which are used as they are, got "
            f"size {size}; leave data.size out"
        )

    # First the test part, so that a validation part held out of training has none of it either.
    kept = _without(file, train, test)
    hidden = len(train[0]) - len(kept[0])
    note = f"Split as stored in {file.name}."
    if val is None:
        kept, val = _hold_out(file, kept, seed)
        note = (
            f"{file.name} has no validation part: {len(val[0])} training images (10 %) were held "
            f"out with seed {seed}."
        )
    train = _without(file, kept, val)
    hidden += len(kept[0]) - len(train[0])
    if hidden:
        note += f" {hidden} training images that are also in validation or test were left out."
    both = len(val[0]) - int(_apart(val, test).sum())
    if both:
        note += f" {both} validation images are also in test."

    highest = max(int(labels.max()) for _, labels in (train, val, test))
    return Splits(
        name=file.stem,
        train=_part(train),
        val=_part(val),
        test=_part(test),
        classes=tuple(str(number) for number in range(highest + 1)),
        note=note,
    )


def _find(path: str | Path | None) -> Path:
    found = locate("arrays", path, usual=(".",), where=WHERE)
    if not found.is_dir():
        return found
    files = sorted(found.glob("*.npz")) or sorted(found.glob("*/*.npz"))
    if not files:
        raise missing("arrays", [found / "*.npz", found / "*" / "*.npz"], where=WHERE)
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(found)) for file in files[:8])
        raise ValueError(
            f"{found} holds {len(files)} .npz files ({names}{', ...' if len(files) > 8 else ''}); "
            "name one with data.path=..."
        )
    return files[0]


def _apart(samples: Sample, others: Sample) -> NDArray[np.bool_]:
    """True (N,) for images that are not among the others, pixel by pixel."""
    known = set(fingerprints(others[0]))
    return np.array(
        [fingerprint not in known for fingerprint in fingerprints(samples[0])], dtype=np.bool_
    )


def _without(file: Path, train: Sample, others: Sample) -> Sample:
    kept = _apart(train, others)
    if not kept.any():
        raise ValueError(
            f"every image of 'train_images' of {file} is also in validation or test; expected "
            "training images of their own"
        )
    return train if kept.all() else (train[0][kept], train[1][kept])


def _hold_out(file: Path, train: Sample, seed: int) -> tuple[Sample, Sample]:
    images, labels = train
    if len(labels) < 2:
        raise ValueError(
            f"{file} has no 'val_images' and only {len(labels)} training image to take some from; "
            "expected at least 2"
        )
    held = stratified(labels, max(1, round(len(labels) / 10)), seed)
    return (images[~held], labels[~held]), (images[held], labels[held])


def _part(sample: Sample) -> Part:
    return Part(torch.as_tensor(sample[0]), torch.as_tensor(sample[1]))
