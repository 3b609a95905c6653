"""Image files in a folder or in a .zip."""

import io
import os
import zipfile
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO

from ima.memory import human_size

# The parts of a path below the root.
Parts = tuple[str, ...]

_DEEPEST = 5  # on disk: one folder around all, part, class, one that is too much, file

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
        raise ValueError(
            f"it has {human_size(count)}; expected an image of at most {human_size(MOST_BYTES)}"
        )
    return read()


def parts_of(entry: zipfile.ZipInfo) -> Parts:
    """The folders and the name of an archive's entry; some programs write backslashes."""
    return PurePosixPath(entry.filename.replace("\\", "/")).parts


@dataclass(frozen=True)
class FolderTree:
    """What lies in a folder or a .zip, by the parts of the paths below it.

    paths: of folders too, though a .zip need not list them; files: of files, hidden ones included;
    `read(path, label)` gives the file as an image of a class.
    """

    paths: Collection[Parts]
    files: Collection[Parts]
    read: Callable[[Parts, int], ImageFile]


@contextmanager
def opened_folder(root: Path, *, where: str) -> Generator[FolderTree, None, None]:
    """What lies in `root`, a folder or a .zip, while it is open; of a folder `_DEEPEST` levels.

    Raises `ValueError` for a damaged .zip, and one that holds a file twice, `PermissionError` for a
    folder that may not be read: a search would leave it out.
    """
    if root.is_dir():
        # A folder named by mistake may hold a disk.
        patterns = ("/".join("*" * depth) for depth in range(1, _DEEPEST + 1))
        found = {p.relative_to(root).parts: p for pattern in patterns for p in root.glob(pattern)}
        for folder in (root, *(path for path in found.values() if path.is_dir())):
            if not os.access(folder, os.R_OK | os.X_OK):
                raise PermissionError(f"{folder} may not be read; its images would be left out")
        # Of hidden ones only files: editors leave links to nothing.
        files = [
            parts
            for parts, path in found.items()
            if path.is_file() or not (is_hidden(path.name) or path.is_dir())
        ]
        yield FolderTree(found, files, lambda parts, label: on_disk(found[parts], label))
        return
    try:
        archive = zipfile.ZipFile(root)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{root} is neither a folder nor an undamaged .zip ({error}). {where}"
        ) from error
    with archive:
        entries: dict[Parts, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            parts = parts_of(entry)
            if ".." in parts:
                raise ValueError(
                    f"{root} holds {entry.filename}, which lies outside of it; expected paths "
                    "within: pack the folder itself again"
                )
            if parts in entries and not entry.is_dir():
                raise ValueError(
                    f"{root} holds {entry.filename} twice; expected each file once: pack it again"
                )
            entries[parts] = entry
        files = [parts for parts, entry in entries.items() if not entry.is_dir()]
        yield FolderTree(entries, files, lambda parts, n: in_zip(root, archive, entries[parts], n))


JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
"""What systems put into folders, in lower case."""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken: not hidden, with the suffix of a picture."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that nobody put there as data."""
    return name.startswith(".") or name == "__MACOSX" or name.casefold() in JUNK
