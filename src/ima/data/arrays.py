"""Your own images in one .npz file, in the layout of MedMNIST.

J. Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8.

What the file must hold, and how images and volumes are told apart, is said in `npz.py`.
"""

from pathlib import Path

import numpy as np

from ima.data.base import Sample, Splits
from ima.data.download import DOWNLOADS
from ima.data.find import locate, missing
from ima.data.held_out import as_part, three_parts
from ima.data.npz import read_classes, read_parts
from ima.data.subset import SUBSETS

SOURCE = "the layout of MedMNIST v2, Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8"
SUMMARY = "Any .npz file in MedMNIST's layout: gray or colour images or volumes with class labels."
WHERE = (
    "MedMNIST's files are at https://medmnist.com; your own are made with numpy.savez(file, "
    "train_images=..., train_labels=..., val_images=..., val_labels=..., test_images=..., "
    "test_labels=...), images channels last, labels from 0 up."
)


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load an .npz file; `path` is the file, or a folder with exactly one.

    Samples are (C, H, W) or (C, D, H, W), uint8 or float32 in [0, 1]; classes are named as the
    file's `classes` says, or "0", "1", ... Training images that are equal, pixel by pixel, to a
    validation or test image are left out of training. A file without validation has 10 % of its
    training images held out for it, by `seed`, with classes in proportion; the test part is never
    touched.

    Raises `ValueError`, naming file and key, for arrays that are absent, damaged, empty, of another
    layout or out of range, for a class without training images, and for a `size` that differs from
    the stored one; `FileNotFoundError` when there is no file.
    """
    file = _find(path)
    train, val, test = read_parts(file, where=WHERE)
    if size is not None and train[0].shape[2:] != (size,) * (train[0].ndim - 2):
        raise ValueError(
            f"{file} has images of {train[0].shape[2:]} pixels, which are used as they are, got "
            f"size {size}; leave data.size out"
        )

    train, val, test, note = three_parts(
        train, val, test, seed=seed, source=file, training=f"'train_images' of {file}"
    )
    highest = max(int(labels.max()) for _, labels in (train, val, test))
    _every_class(train, highest, file)
    return Splits(
        name=file.stem,
        train=as_part(train),
        val=as_part(val),
        test=as_part(test),
        classes=read_classes(file, highest + 1),
        note=note,
    )


def _every_class(train: Sample, highest: int, file: Path) -> None:
    absent = [str(number) for number in np.setdiff1d(np.arange(highest + 1), train[1])]
    if absent:
        more = ", ..." if len(absent) > 8 else ""
        raise ValueError(
            f"{file} has no image to train on of class {', '.join(absent[:8])}{more}, of 0 to "
            f"{highest}; expected class numbers without gaps, and of each some images in "
            "'train_images' that are in no other part"
        )


def _find(path: str | Path | None) -> Path:
    found = locate("arrays", path, usual=(".",), where=_where(path))
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


def _where(path: str | Path | None) -> str:
    """The command that makes or fetches the file that is missing, where there is one."""
    name = None if path is None else Path(path).name
    for row in SUBSETS.values():
        if name == Path(row.place).name:
            return (
                f"Make it with `ima data subset {row.name}`, from the published files, which "
                f"`ima data get {row.name}` fetches."
            )
    for row in DOWNLOADS.values():
        if row.loader == "arrays" and name in [original.name for original in row.files]:
            return f"Get it with `ima data get {row.name}`."
    return WHERE
