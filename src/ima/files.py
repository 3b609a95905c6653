"""Files that appear whole or not at all, are read whole or refused by name, and their digests."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import reprlib
import sys
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.memory import check_npz

_IN_THE_WAY = "a {} is in the way: move it, or name another place"
_FULL = "make room on the disk, or name a place on another one"
_ADVICE = {
    errno.EEXIST: _IN_THE_WAY.format("file"),
    errno.ENOTDIR: _IN_THE_WAY.format("file"),
    errno.EISDIR: _IN_THE_WAY.format("folder"),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}
"""What to do where a place cannot be written to, by the system's number of the error."""


def unwritable(place: Path, error: OSError) -> OSError:
    """The error for a place that cannot be written to: its class kept, what to do said."""
    advice = _ADVICE.get(error.errno or 0, "name a place that you may write to")
    return type(error)(f"{place} cannot be written ({error.strerror or error}); {advice}")


def folder_name(text: str) -> str:
    """A text as the name of a folder, on any system."""
    return text.translate({ord("/"): "_", ord(":"): "_", ord(" "): ""})


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises an OSError of the system's kind, such as PermissionError, that says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine, in the names of files that are not whole: others may write to the same folder."""

_UNFINISHED = re.compile(r".+?\.(?:(?P<host>[0-9a-f]{8})\.)?(?P<process>\d+)\.part")


def sweep(folder: Path, name: str = "") -> None:
    """Delete what processes of this machine that were killed in the middle of writing left.

    folder: where, but not below it; name: of the file that they wrote, any if empty.
    """
    # Where a process cannot be asked for without ending it, nothing is deleted.
    if sys.platform == "win32":
        return
    for path in folder.glob(f"{glob.escape(name)}*.part"):
        found = _UNFINISHED.fullmatch(path.name)
        # Versions before this one did not write the machine.
        if found and (found["host"] or _HOST) == _HOST and not _runs(int(found["process"])):
            with suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    # 0 would ask for all of this group.
    return process > 0


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """A path beside `path` to write to, which takes its place at the end.

    After an error `path` is as it was. The folder is made where it is missing. Of several processes
    that write the same file, the last one wins. A folder that cannot be written to, and a full
    disk, raise an OSError of the system's kind that says what to do.
    """
    make_folder(path.parent)
    sweep(path.parent, path.name)
    beside = path.with_name(f"{path.name}.{_HOST}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        # What else is done meanwhile, such as reading, has errors of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename == str(beside):
            raise unwritable(path, error) from error
        raise
    finally:
        # Where nothing can be written, nothing can be deleted either; the error above says so.
        with suppress(OSError):
            beside.unlink()


def read_json(path: Path, kind: Any = dict, shown: str = "") -> Any:
    """What a JSON file holds; ValueError, with the file's name, for other files.

    kind: what it must be: dict, list, or what a `pydantic.TypeAdapter` takes, such as a model;
    shown: how errors name the file.
    """
    shown = shown or str(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} is damaged, or no text in JSON: {error}") from error
    top = kind if kind in (dict, list) else object
    if not isinstance(found, top):
        raise ValueError(
            f"{shown} is damaged: it holds {type(found).__name__}, expected {top.__name__}"
        )
    if top is object:
        # Here and not above: many files need it not.
        from pydantic import TypeAdapter, ValidationError

        try:
            TypeAdapter(kind).validate_python(found, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "it"
            message = re.sub(" or instance of .*", "", first["msg"][0].lower() + first["msg"][1:])
            raise ValueError(
                f"{shown} is damaged: {where} is {reprlib.repr(first['input'])}; {message}"
            ) from error
    return found


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with the same line ends everywhere, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed .npz, whole or not at all."""
    # Through a handle: numpy adds an ending to names that do not have its own.
    with whole(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz, pickles refused; ValueError, with the file's name, for other files.

    names: of those that are read where they are there; all if None. The ValueError of `check_npz`
    for a file that would fill the memory.
    """
    check_npz(path, names)
    found: dict[str, NDArray[Any]] = {}
    name = ""
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with path.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it is a single array")
            with loaded as file:
                for name in file.files:
                    if names is None or name in names:
                        found[name] = file[name]
    except Exception as error:  # numpy, zipfile and zlib raise many kinds
        if isinstance(error, OSError) and error.filename is not None:
            raise
        what = f"{name!r} of {path}" if name else str(path)
        raise ValueError(
            f"{what} is damaged, or no .npz of arrays of numbers: it cannot be read ({error}); "
            "fetch or save it again"
        ) from error
    return found


def file_digest(path: Path) -> str:
    """A digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
