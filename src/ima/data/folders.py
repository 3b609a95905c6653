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
    try:
        archive = zipfile.ZipFile(root)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{root} is neither a folder nor an undamaged .zip ({error}). {where}"
        ) from error
    with archive:
        yield _one_place(root, classes, list(_in_zip(root, archive, classes)), where)


def _label(folder: str, classes: Sequence[str]) -> int | None:
    def plain(name: str) -> str:
        return name.casefold().replace("_", "-").replace(" ", "-")

    names = [plain(name) for name in classes]
    return names.index(plain(folder)) if plain(folder) in names else None


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def _on_disk(root: Path, classes: Sequence[str]) -> Iterator[Placed]:
    for pattern in ("*", "*/*"):
        for folder in root.glob(pattern):
            label = _label(folder.name, classes)
            if label is None or not folder.is_dir():
                continue
            for file in folder.iterdir():
                if _is_image(file.name):
                    about = file.stat()
                    stamp = f"{about.st_size} {about.st_mtime_ns}"
                    image = ImageFile(label, file.name, stamp, str(file), file.read_bytes)
                    yield folder.parent.relative_to(root).parts, folder.name, image


def _in_zip(root: Path, archive: zipfile.ZipFile, classes: Sequence[str]) -> Iterator[Placed]:
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        label = _label(parts[-2], classes) if len(parts) in (2, 3) else None
        if label is None or entry.is_dir() or not _is_image(parts[-1]):
            continue
        stamp = f"{entry.file_size} {entry.date_time} {entry.CRC}"
        shown = f"{entry.filename} in {root}"
        image = ImageFile(label, parts[-1], stamp, shown, partial(archive.read, entry))
        yield parts[:-2], parts[-2], image


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
