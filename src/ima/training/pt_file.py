"""`.pt` files of any age, read without executing anything: what is in them, tensors unread."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ima.inert_pickle import MadeObject, PickleError, PickleRule, read_pickle
from ima.training.stored import Storage, rules, storage_type

MAGIC = 0x1950A86A20F9469CFC6C
"""What PyTorch's files begin with that are no .zip."""

DAMAGED = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError),
    *(OverflowError, MemoryError, NotImplementedError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file raises: zipfile's, zlib's and torch's errors too."""

_HEADER = 30
"""Bytes before the name of a file in a .zip."""

_ALIGNED = 64

_OTHERS = {
    "constants.pkl": "a TorchScript archive, which holds code: where you trust it, load it with "
    "torch.jit.load",
    "archive_format": "an exported program (torch.export): where you trust it, load it with "
    "torch.export.load",
    "weights.h5": "a Keras model: this library takes networks of PyTorch",
    ".npy": "an .npz of numpy's: put its arrays into the network in Python",
    ".safetensors": "a .zip around weights: unpack it",
}
"""Files in a .zip that tell what it is, and in words what that is."""


@contextmanager
def opened_pt(path: Path) -> Generator[Any]:
    """What the file holds, while it is open: dicts, lists, numbers, texts, `Stored` and `Made`.

    Raises PickleError for a damaged file, and one that names what can only do harm.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"
        file.seek(0)
        if not packed:
            yield _stream(file, nested=True)
            return
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise PickleError(f"it is damaged ({error})") from error
        with archive:
            yield _archive(archive, path.stat().st_size)


def _archive(archive: zipfile.ZipFile, size: int) -> Any:
    """The content of a .zip as PyTorch makes them since version 1.6."""
    names = archive.namelist()
    parts = {part for name in names for part in (name, *PurePosixPath(name).parts)}
    for sign, words in _OTHERS.items():
        if any(part == sign or part.endswith(sign) for part in parts):
            raise PickleError(f"it is {words}")
    (pickle, *more) = [name for name in names if name.rpartition("/")[2] == "data.pkl"] or [""]
    if not pickle or more:
        raise PickleError("it is a .zip without data.pkl, so none that torch.save made")
    for info in archive.infolist():
        # PyTorch never compresses: whoever did can make 4 MB of 4 GB.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise PickleError(
                f"{info.filename} in it is compressed, to {info.compress_size} from "
                f"{info.file_size} bytes, which torch.save never does: save it again"
            )
    folder = pickle.removesuffix("data.pkl")
    # The last one is kept: many tensors may be views of one row of numbers.
    read = lru_cache(1)(lambda name: bytearray(archive.read(name)))
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise PickleError("its numbers have their bytes in the order of another kind of machine")

    def persistent(told: Any) -> Any:
        kind, dtype, key, _, numel = told if isinstance(told, tuple) else (None,) * 5
        if kind != "storage" or not isinstance(key, str) or type(numel) is not int:
            return MadeObject("persistent", told)
        name = f"{folder}data/{key}"
        held = archive.getinfo(name).file_size
        return _storage(dtype, numel, held, lambda: read(name), lambda: name)

    with archive.open(pickle) as stream:
        return read_pickle(io.BytesIO(stream.read()), _rules(nested=True), persistent)


def _stream(file: IO[bytes], *, nested: bool) -> Any:
    """The content of a pickle: a plain one, or PyTorch's of before version 1.6."""
    found: dict[str, list[int]] = {}
    types: dict[str, Any] = {}

    @lru_cache(1)
    def numbers(key: str) -> bytearray:
        start, length = found[key]
        file.seek(start)
        return bytearray(file.read(length))

    def persistent(told: Any) -> Any:
        if not isinstance(told, tuple) or len(told) < 5 or told[0] != "storage":
            return MadeObject("persistent", told)
        _, dtype, key, _, numel, *view = told
        types[key] = storage_type(dtype)
        where = (lambda: found[key][0]) if nested else None
        storage = _storage(dtype, numel, None, lambda: numbers(key), where)
        if view and view[0] is not None:
            return replace(storage, numel=view[0][2], at=view[0][1])
        return storage

    first = read_pickle(file, _rules(nested=nested), persistent)
    if first != MAGIC:
        return first
    if read_pickle(file, {}) != 1001:
        raise PickleError("it is of an unknown version of PyTorch's format")
    if read_pickle(file, {}).get("little_endian") is False:
        raise PickleError("its numbers have their bytes in the order of another kind of machine")
    content = read_pickle(file, _rules(nested=nested), persistent)
    keys = read_pickle(file, {})
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        length = count * types[key].itemsize
        if count < 0 or place + 8 + length > size:
            raise PickleError("it is damaged: it ends within its numbers")
        found[key] = [place + 8, length]
        place += 8 + length
    return content


def _rules(*, nested: bool) -> dict[str, PickleRule]:
    def inner(raw: Any) -> Any:
        if not nested or not isinstance(raw, bytes | bytearray):
            return MadeObject("torch.Storage", raw)
        return _stream(io.BytesIO(raw), nested=False)

    return rules(inner)


def _storage(dtype: Any, numel: Any, held: int | None, read: Any, where: Any) -> Storage:
    kind = storage_type(dtype)
    if type(numel) is not int or numel < 0:
        raise PickleError("it is damaged: a tensor's number of values is none")
    if held is not None and numel * kind.itemsize > held:
        raise PickleError(f"it is damaged: {held} bytes stand where {numel} numbers should")
    return Storage(kind, numel, read, where=where)


def write_pt(path: Path, raws: Mapping[str | int, bytearray], out: Path) -> None:
    """Write a copy of a file in which the bytes of some storages are others.

    raws: by `Storage.where`, each as long as it was. All else is as in the file, to the byte.
    """
    if not zipfile.is_zipfile(path):
        content = bytearray(path.read_bytes())
        for place, raw in raws.items():
            content[int(place) : int(place) + len(raw)] = raw
        out.write_bytes(content)
        return
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as copy:
        for info in archive.infolist():
            assert copy.fp is not None
            begin = copy.fp.tell() + _HEADER + len(info.filename.encode())
            entry = zipfile.ZipInfo(info.filename, info.date_time)
            # As torch.save does: numbers begin at multiples of 64, which mmap=True needs.
            padding = -(begin + 4) % _ALIGNED
            entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            copy.writestr(entry, raws.get(info.filename) or archive.read(info.filename))
