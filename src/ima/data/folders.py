"""Image files in one folder a class, on disk or in a .zip."""

import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ima.data.find import missing

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)


@dataclass(frozen=True)
class ImageFile:
    """One image file.

    `label` is the class number, `name` the file name without folders, `stamp` changes when the file
    does (size and time), `shown` is how errors name it, `read()` gives its bytes.
    """

    label: int
    name: str
    stamp: str
    shown: str
    read: Callable[[], bytes]


def on_disk(file: Path, label: int) -> ImageFile:
    """An image file in a folder."""
    about = file.stat()
    stamp = f"{about.st_size} {about.st_mtime_ns}"
    return ImageFile(label, file.name, stamp, str(file), file.read_bytes)


def in_zip(root: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, label: int) -> ImageFile:
    """An image file in the open archive `root`."""
    stamp = f"{entry.file_size} {entry.date_time} {entry.CRC}"
    name, shown = PurePosixPath(entry.filename).name, f"{entry.filename} in {root}"
    return ImageFile(label, name, stamp, shown, partial(archive.read, entry))


def open_zip(root: Path, *, where: str) -> zipfile.ZipFile:
    """The archive `root`; ValueError when it is none, or a damaged one."""
    try:
        return zipfile.ZipFile(root)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{root} is neither a folder nor an undamaged .zip ({error}). {where}"
        ) from error


# A class folder's parent and its own name, as parts of the path below the root, and one file in it.
Placed = tuple[tuple[str, ...], str, ImageFile]


@contextmanager
def class_folders(
    root: Path, classes: Sequence[str], *, where: str
) -> Generator[list[ImageFile], None, None]:
    """The image files of the class folders in `root`, sorted by class and name, while it is open.

    `root` is a folder or a .zip; the class folders lie in it or in one folder below, their names in
    any letter case. Hidden files and files without an image's suffix are left out.

    Raises `FileNotFoundError` when not all classes have a folder, `ValueError` when there are
    several places that have, and for a damaged .zip.
    """
    if root.is_dir():
        yield _one_place(root, classes, list(_on_disk(root, classes)), where)
        return
    with open_zip(root, where=where) as archive:
        yield _one_place(root, classes, list(_in_zip(root, archive, classes)), where)


def _label(folder: str, classes: Sequence[str]) -> int | None:
    def plain(name: str) -> str:
        return name.casefold().replace("_", "-").replace(" ", "-")

    names = [plain(name) for name in classes]
    return names.index(plain(folder)) if plain(folder) in names else None


def is_image(name: str) -> bool:
    """Whether a file of this name is taken: not hidden, with the suffix of a picture."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def _on_disk(root: Path, classes: Sequence[str]) -> Iterator[Placed]:
    for pattern in ("*", "*/*"):
        for folder in root.glob(pattern):
            label = _label(folder.name, classes)
            if label is None or not folder.is_dir():
                continue
            for file in folder.iterdir():
                if is_image(file.name):
                    parent = folder.parent.relative_to(root).parts
                    yield parent, folder.name, on_disk(file, label)


def _in_zip(root: Path, archive: zipfile.ZipFile, classes: Sequence[str]) -> Iterator[Placed]:
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        label = _label(parts[-2], classes) if len(parts) in (2, 3) else None
        if label is None or entry.is_dir() or not is_image(parts[-1]):
            continue
        yield parts[:-2], parts[-2], in_zip(root, archive, entry, label)


def _one_place(
    root: Path, classes: Sequence[str], placed: Sequence[Placed], where: str
) -> list[ImageFile]:
    files: dict[tuple[str, ...], list[ImageFile]] = {}
    folders: dict[tuple[str, ...], set[str]] = {}
    for parent, folder, file in placed:
        files.setdefault(parent, []).append(file)
        folders.setdefault(parent, set()).add(folder)
    whole = [
        parent
        for parent, inside in files.items()
        if {file.label for file in inside} == set(range(len(classes)))
    ]
    # Folders directly in the root come before those of a folder below.
    places = [()] if () in whole else sorted(whole)
    if not places:
        raise missing(f"folders {' and '.join(classes)}", [root, root / "*"], where=where)
    if len(places) > 1 or len(folders[places[0]]) > len(classes):
        names = ", ".join(
            str(root.joinpath(*place, folder)) for place in places for folder in folders[place]
        )
        raise ValueError(
            f"{root} has the folders of the {len(classes)} classes more than once ({names}); "
            "expected one folder a class: point data.path at the right ones"
        )
    return sorted(files[places[0]], key=lambda file: (file.label, file.name))
