"""Image files in one folder a class, on disk or in a .zip."""

import io
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO

from ima.data.find import missing
from ima.memory import size

SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif"),
        *(".tif", ".tiff", ".webp", ".avif", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".tga", ".icb", ".vda", ".vst"),
    )
)
"""Of the formats that are read, see `pictures.FORMATS`."""

MOST_BYTES = 1 << 29
"""Of one image file: more than the largest picture that is read has uncompressed."""


@dataclass(frozen=True)
class ImageFile:
    """One image file.

    `label` is the class number, `name` the file name without folders, `stamp` changes when the file
    does (size and time), `shown` is how errors name it, `read()` gives its bytes, `opened()` a
    stream of them; `size` is their number.
    """

    label: int
    name: str
    stamp: str
    shown: str
    read: Callable[[], bytes]
    opened: Callable[[], IO[bytes]] = io.BytesIO
    size: int = 0


def on_disk(file: Path, label: int) -> ImageFile:
    """An image file in a folder; ValueError for what is no file."""
    try:
        about = file.stat()
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({error.strerror}); a link to nothing? Put the file there, or "
            "take the link away"
        ) from error
    if not S_ISREG(about.st_mode):
        raise ValueError(f"{file} is no file; expected image files only")
    stamp = f"{about.st_size} {about.st_mtime_ns}"
    read = partial(_bounded, str(file), about.st_size, file.read_bytes)
    opened = partial(file.open, "rb")
    return ImageFile(label, file.name, stamp, str(file), read, opened, about.st_size)


def in_zip(root: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, label: int) -> ImageFile:
    """An image file in the open archive `root`."""
    stamp = f"{entry.file_size} {entry.date_time} {entry.CRC}"
    name, shown = parts_of(entry)[-1], f"{entry.filename} in {root}"
    read = partial(_bounded, shown, entry.file_size, partial(archive.read, entry))
    opened = partial(archive.open, entry)
    return ImageFile(label, name, stamp, shown, read, opened, entry.compress_size)


def _bounded(shown: str, count: int, read: Callable[[], bytes]) -> bytes:
    if count > MOST_BYTES:
        raise ValueError(f"it has {size(count)}; expected an image of at most {size(MOST_BYTES)}")
    return read()


def parts_of(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of an archive's entry; some programs write backslashes."""
    return PurePosixPath(entry.filename.replace("\\", "/")).parts


def entries_of(root: Path, archive: zipfile.ZipFile) -> dict[tuple[str, ...], zipfile.ZipInfo]:
    """The entries of an archive by folders and name; ValueError where one is there twice."""
    entries: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        parts = parts_of(entry)
        if parts in entries and not entry.is_dir():
            raise ValueError(
                f"{root} holds {entry.filename} twice; expected each file once: pack it again"
            )
        entries[parts] = entry
    return entries


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


@dataclass(frozen=True)
class ClassFolders:
    """The images of the class folders, sorted by class and name, and what lies beside them."""

    images: list[ImageFile]
    aside: list[ImageFile]


@contextmanager
def class_folders(
    root: Path, classes: Sequence[str], *, where: str
) -> Generator[ClassFolders, None, None]:
    """The files of the class folders in `root`, while it is open.

    `root` is a folder or a .zip; the class folders lie in it or in one folder below, their names in
    any letter case. Hidden files count as lying beside.

    Raises `FileNotFoundError` when not all classes have a folder, `ValueError` when there are
    several places that have, for images in a folder within one, and for a damaged .zip.
    """
    if root.is_dir():
        placed = _on_disk(root, classes)
        yield _one_place(root, classes, list(placed), where, partial(_deeper_on_disk, root))
        return
    with open_zip(root, where=where) as archive:
        entries = entries_of(root, archive)
        placed = _in_zip(root, archive, entries, classes)
        yield _one_place(root, classes, list(placed), where, partial(_deeper_in_zip, entries))


def _label(folder: str, classes: Sequence[str]) -> int | None:
    def plain(name: str) -> str:
        return name.casefold().replace("_", "-").replace(" ", "-")

    names = [plain(name) for name in classes]
    return names.index(plain(folder)) if plain(folder) in names else None


JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
"""What systems put into folders, in lower case."""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken: not hidden, with the suffix of a picture."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is, by its name, one that nobody put there as data."""
    return name.startswith(".") or name == "__MACOSX" or name.casefold() in JUNK


def of_hidden(name: str, read: Callable[[], ImageFile]) -> Iterator[ImageFile]:
    """A file beside the images; of hidden ones none where it is no file, as editors' locks are."""
    with suppress(ValueError) if is_hidden(name) else nullcontext():
        yield read()


def _on_disk(root: Path, classes: Sequence[str]) -> Iterator[Placed]:
    for pattern in ("*", "*/*"):
        for folder in root.glob(pattern):
            label = _label(folder.name, classes)
            if label is None or not folder.is_dir():
                continue
            for file in folder.iterdir():
                parent = folder.parent.relative_to(root).parts
                if not file.is_dir():
                    for found in of_hidden(file.name, partial(on_disk, file, label)):
                        yield parent, folder.name, found


def _in_zip(
    root: Path,
    archive: zipfile.ZipFile,
    entries: Mapping[tuple[str, ...], zipfile.ZipInfo],
    classes: Sequence[str],
) -> Iterator[Placed]:
    for parts, entry in entries.items():
        label = _label(parts[-2], classes) if len(parts) in (2, 3) else None
        if label is None or entry.is_dir() or any(map(is_hidden, parts[:-1])):
            continue
        yield parts[:-2], parts[-2], in_zip(root, archive, entry, label)


def _deeper_on_disk(root: Path, folder: tuple[str, ...]) -> str | None:
    """An image in a folder within a class folder, None where there is none."""
    for pattern in ("*/*", "*/*/*"):
        for file in root.joinpath(*folder).glob(pattern):
            below = file.relative_to(root).parts
            if is_image(file.name) and file.is_file() and not any(map(is_hidden, below)):
                return str(file)
    return None


def _deeper_in_zip(
    entries: Mapping[tuple[str, ...], zipfile.ZipInfo], folder: tuple[str, ...]
) -> str | None:
    for parts, entry in entries.items():
        inside = parts[: len(folder)] == folder and len(parts) > len(folder) + 1
        if inside and is_image(parts[-1]) and not any(map(is_hidden, parts)):
            return entry.filename
    return None


def _one_place(
    root: Path,
    classes: Sequence[str],
    placed: Sequence[Placed],
    where: str,
    deeper: Callable[[tuple[str, ...]], str | None],
) -> ClassFolders:
    files: dict[tuple[str, ...], list[ImageFile]] = {}
    beside: dict[tuple[str, ...], list[ImageFile]] = {}
    folders: dict[tuple[str, ...], set[str]] = {}
    for parent, folder, file in placed:
        image = is_image(file.name)
        (files if image else beside).setdefault(parent, []).append(file)
        if image:
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
    place = places[0]
    if len(places) > 1 or len(folders[place]) > len(classes):
        names = ", ".join(
            str(root.joinpath(*place, folder)) for place in places for folder in folders[place]
        )
        raise ValueError(
            f"{root} has the folders of the {len(classes)} classes more than once ({names}); "
            "expected one folder a class: point data.path at the right ones"
        )
    for folder in sorted(folders[place]):
        if (inner := deeper((*place, folder))) is not None:
            raise ValueError(
                f"{root} has the image {inner} in a folder inside a class folder; expected the "
                "images directly in it"
            )
    return ClassFolders(
        sorted(files[place], key=lambda file: (file.label, file.name)), beside.get(place, [])
    )
