"""A digest of the data that are evaluated, sample by sample as they come, and how large they are.

SHA-256 over, for each sample in order: its id, then kind, shape and bytes of the image and of each
target. It does not depend on how samples lie in batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ima.tasks import Tree, leaves


class DataDigest:
    """The digest of the samples so far.

    entries: how many values the smallest and the largest sample hold; None before the first.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.entries: tuple[int, int] | None = None

    def add(self, ids: Sequence[int], x: Tensor, y: Tree) -> None:
        """Take a batch: ids of its samples, x (B, *dims), targets y."""
        size = x[0].numel()
        low, high = self.entries or (size, size)
        self.entries = min(low, size), max(high, size)
        parts = [list(_rows(leaf)) for leaf in (x, *leaves(y))]
        for id_, *rows in zip(ids, *parts, strict=True):
            self._sha.update(f"{id_}\n".encode())
            for row in rows:
                self._sha.update(row)

    def hex(self) -> str:
        """The digest in hexadecimal digits."""
        return self._sha.hexdigest()


def _rows(tensor: Tensor) -> Iterator[bytes]:
    """For each sample of (B, *dims) what it is, and its bytes."""
    head = f"{tensor.dtype} {tuple(tensor.shape[1:])}\n".encode()
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
    for row in flat.view(torch.uint8).numpy():
        yield head + row.tobytes()
