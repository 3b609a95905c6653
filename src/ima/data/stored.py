"""Images in a file: what does not fit into memory is read when it is asked for.

the file holds image after image, uint8; a part knows which of them are its own
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ima.files import read_arrays, write_arrays
from ima.files import whole as whole_file

IN_MEMORY = 1 << 30
"""Decoded images of more bytes stay in a file."""


_AT_ONCE = 256
"""So many are read together where all are asked for."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Images (N, C, H, W), uint8, of which those that are asked for are read.

    file: image after image, each of shape `whole` (K, H, W); places: (N,) int64, which of them;
    channels: so many of the K, the first ones.

    `images[i]` is one image, `images[ids]`, an integer tensor (B,), are several, both tensors of
    their own. What holds it can be pickled: each process opens the file for itself.
    """

    file: Path
    places: NDArray[np.int64]
    whole: tuple[int, int, int]
    channels: int

    dtype = torch.uint8
    ndim = 4

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), self.channels, *self.whole[1:]))

    def numel(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    def take(self, chosen: NDArray[Any]) -> Stored:
        """Some of the images: numbers or a mask, (N,) bool."""
        return Stored(self.file, self.places[chosen], self.whole, self.channels)

    def __getitem__(self, index: int | Tensor) -> Tensor:
        if not isinstance(index, Tensor):
            return torch.from_numpy(self._read([int(self.places[index])])[0])
        return torch.from_numpy(self._read(self.places[index.cpu().numpy()].tolist()))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._read(self.places[start : start + _AT_ONCE].tolist())

    def _read(self, places: Sequence[int]) -> NDArray[np.uint8]:
        length = math.prod(self.whole)
        found = np.empty((len(places), length), dtype=np.uint8)
        try:
            # For each batch anew: a process that was forked would move the place of another.
            with self.file.open("rb", buffering=0) as file:
                for row, place in zip(found, places, strict=True):
                    file.seek(place * length)
                    if file.readinto(cast("Any", row)) != length:
                        raise ValueError("it was cut")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.file} cannot be read while it is in use ({error}); start again, which "
                "makes it anew"
            ) from error
        images = found.reshape(len(places), *self.whole)[:, : self.channels]
        return np.ascontiguousarray(images)


def opened(file: Path, count: int) -> tuple[Stored, list[str]] | None:
    """All images of a file that `write` has written, and their fingerprints; None without one."""
    with suppress(Exception):  # Absent, cut, of another kind: always the same answer.
        told = read_arrays(_beside(file))
        whole = (int(told["whole"][0]), int(told["whole"][1]), int(told["whole"][2]))
        prints = [str(one) for one in told["prints"]]
        if len(prints) == count and file.stat().st_size == count * math.prod(whole):
            stored = Stored(file, np.arange(count), whole, int(told["channels"]))
            return stored, prints
    return None


def write(file: Path, images: Iterable[tuple[NDArray[np.uint8], str, int]]) -> None:
    """Write images, each with its fingerprint and how many of its channels differ, to `file`.

    images: of one shape, (K, H, W), K being kept; channels: the most of all are read.
    Raises OSError where there is no room.
    """
    whole: tuple[int, ...] = ()
    prints, channels = list[str](), 1
    with whole_file(file) as beside, beside.open("wb") as out:
        for image, print_, own in images:
            whole, channels = image.shape, max(channels, own)
            prints.append(print_)
            out.write(np.ascontiguousarray(image).data)
    # Written last: it says that all is there.
    arrays = {"prints": np.array(prints), "whole": np.array(whole), "channels": np.array(channels)}
    write_arrays(_beside(file), arrays)


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.npz")


Images: TypeAlias = Tensor | Stored
"""Of a part: in memory, or in a file."""


def chosen_of(images: Any, chosen: NDArray[Any]) -> Any:
    """Some images, numbers or a mask, of an array, a tensor, or a file."""
    return images.take(chosen) if isinstance(images, Stored) else images[chosen]


def bytes_or_digests(images: Images) -> Tensor:
    """What a digest of all images is made of: themselves, or of each in a file a digest."""
    return row_digests(images) if isinstance(images, Stored) else images


def row_digests(images: Any) -> Tensor:
    """A digest of the bytes of each of N images or other tensors, (N,), int64."""
    rows = images if isinstance(images, Stored) else images.detach().cpu().contiguous()
    found = [hashlib.blake2b(_bytes(row), digest_size=8).digest() for row in rows]
    whole = [int.from_bytes(digest, "little", signed=True) for digest in found]
    return torch.tensor(whole, dtype=torch.int64)


def _bytes(row: Any) -> bytes:
    tensor = torch.as_tensor(row)
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
