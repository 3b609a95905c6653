"""Which image of a folder or .zip is of which class, and of which part if the folders say so.

    cats/1.png  dogs/1.png                      classes only
    train/cats/1.png  test/dogs/1.png  ...      parts, the same classes in each; val is optional

Both also one folder deeper, as .zip files often are. On disk, only four levels are looked at.
"""

import os
import zipfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ima.data import aside
from ima.data.folders import (
    ImageFile,
    entries_of,
    in_zip,
    is_hidden,
    is_image,
    of_hidden,
    on_disk,
    open_zip,
)

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of the parts' folders, in any letter case."""

DEEPEST = 4  # on disk: one folder around all, part, class, file; a .zip lists everything anyway

# The parts of a path below the root.
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Images by part, class and name; the part of each (None: not said); the classes.

    aside: a sentence on the files beside the images, "" where there are none.
    """

    files: list[ImageFile]
    roles: list[str | None]
    classes: tuple[str, ...]
    aside: str


@contextmanager
def class_layout(root: Path, *, where: str) -> Generator[Layout, None, None]:
    """The images of the class folders in `root`, a folder or a .zip, while it is open.

    Classes are the folders' names, sorted. Hidden files are left out, and on disk what lies below
    the fourth level; files without an image's suffix are left out and told. Raises `ValueError` for
    every other layout than the two above, down to one image in the wrong place, and for images
    without an image's suffix or with a hidden file's name: an image that is silently left out would
    change the data set.
    """
    if root.is_dir():
        found = {path.relative_to(root).parts: path for path in _below(root)}
        images = {parts for parts, path in found.items() if not path.is_dir()}
        _check_open(root, [path for parts, path in found.items() if parts not in images])
        yield _layout(root, found, images, lambda parts, n: on_disk(found[parts], n), where)
        return
    with open_zip(root, where=where) as archive:
        entries = entries_of(root, archive)
        images = {parts for parts, entry in entries.items() if not entry.is_dir()}
        read = _reader(root, archive, entries)
        yield _layout(root, entries, images, read, where)


def _below(root: Path) -> Iterable[Path]:
    """What lies in a folder, `DEEPEST` levels down: a folder named by mistake may hold a disk."""
    for depth in range(1, DEEPEST + 1):
        yield from root.glob("/".join("*" * depth))


def _check_open(root: Path, folders: Iterable[Path]) -> None:
    """Raise PermissionError for a folder that may not be read: a search would leave it out."""
    for folder in (root, *folders):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(f"{folder} may not be read; its images would be left out")


def _reader(
    root: Path, archive: zipfile.ZipFile, entries: dict[Parts, zipfile.ZipInfo]
) -> Callable[[Parts, int], ImageFile]:
    return lambda parts, label: in_zip(root, archive, entries[parts], label)


def _layout(
    root: Path,
    paths: Iterable[Parts],
    files: set[Parts],
    read: Callable[[Parts, int], ImageFile],
    where: str,
) -> Layout:
    there = {parts for parts in paths if parts and not any(map(is_hidden, parts[:-1]))}
    shown = {parts for parts in there if not is_hidden(parts[-1])}
    images = {parts for parts in shown & files if is_image(parts[-1])}
    # A .zip need not list its folders: every path tells those above it.
    folders = {parts[:i] for parts in shown for i in range(1, len(parts))} | (shown - files)
    beside = [
        file
        for parts in sorted((there & files) - images)
        for file in of_hidden(parts[-1], partial(read, parts, 0))
    ]
    others = aside.told(root, beside)
    try:
        placed, classes = place(images, folders)
    except ValueError as error:
        words = f" {others}" if others else ""
        raise ValueError(f"{root} {error}.{words} {where}") from error
    ordered = sorted(placed, key=lambda parts: (*placed[parts], parts))
    return Layout(
        files=[read(parts, placed[parts][1]) for parts in ordered],
        roles=[placed[parts][0] or None for parts in ordered],
        classes=classes,
        aside=others,
    )


def place(
    images: set[Parts], folders: set[Parts]
) -> tuple[dict[Parts, tuple[str, int]], tuple[str, ...]]:
    """The part ("" without parts) and class number of every image, and the classes.

    Raises `ValueError` that tells what the root holds instead.
    """
    around = _around(images, folders)
    tops = sorted({parts[len(around)] for parts in folders if len(parts) > len(around)})
    inner = {parts[: len(around) + 1] for parts in folders if len(parts) == len(around) + 2}
    named = [top for top in tops if top.casefold() in PARTS and (*around, top) in inner]
    roles: dict[Parts, str] = {(*around, top): PARTS[top.casefold()] for top in named}
    roles = roles or {around: ""}
    if named:
        twice = sorted(roles.values())
        if not {"train", "test"} <= set(twice) or len(set(twice)) < len(twice):
            raise ValueError(
                f"has the folders {', '.join(named)}; expected train and test, perhaps val, once"
            )
    classes = {
        base: {parts[-1] for parts in folders if parts[:-1] == base and len(parts) == len(base) + 1}
        for base in roles
    }
    known = tuple(sorted(set().union(*classes.values())))
    if len(known) < 2:
        below = f" in {around[0]}" if around else ""
        raise ValueError(
            f"has class folders {list(known)}{below}; expected at least two, with images"
        )
    placed: dict[Parts, tuple[str, int]] = {}
    for parts in images:
        base = parts[:-2]
        if len(parts) < 2 or base not in roles:
            raise ValueError(
                f"has the image {'/'.join(parts)} outside the class folders; expected "
                f"{'train/CLASS/' if named else 'CLASS/'}FILE for every image"
            )
        placed[parts] = (roles[base], known.index(parts[-2]))
    for parts in sorted(folders):
        if any(parts[:-2] == base and len(parts) == len(base) + 2 for base in roles):
            raise ValueError(
                f"has the folder {'/'.join(parts)} inside a class folder; expected the images "
                "directly in it"
            )
    for base, role in roles.items():
        present = {label for where, label in placed.values() if where == role}
        absent = [name for number, name in enumerate(known) if number not in present]
        if absent:
            raise ValueError(
                f"has no image of class {', '.join(absent)}{f' in {base[-1]}' if role else ''}; "
                f"expected some of each of the classes {', '.join(known)}"
            )
    return placed, known


def _around(images: set[Parts], folders: set[Parts]) -> Parts:
    """The one folder around all, () where there is none."""
    tops = {parts[0] for parts in folders}
    if len(tops) != 1 or any(len(parts) == 1 for parts in images):
        return ()
    (top,) = tops
    return () if top.casefold() in PARTS else (top,)
