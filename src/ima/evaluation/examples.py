"""Attacked samples for pictures: collected during an evaluation, kept beside its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ima.evaluation.one_batch import Example
from ima.evaluation.partial import key_of, read_beside
from ima.evaluation.values import Value, from_cell, to_cell
from ima.files import write_arrays
from ima.tasks.pixels import wide

NUMBERS = ("id", "eps", "label", "prediction", "clean_prediction")


MEMORY = 128_000_000
"""So many bytes of samples are kept at most."""

FEW = 8
"""So many samples are kept, however large."""


class Examples:
    """All attacks on the samples with ids below `limit`, so that pictures show one under several.

    tries: attacks and radii for each sample; of large ones fewer are kept than `limit`, see
    `MEMORY`. record: the evaluation's, see `partial`. With it, in the file `beside`, lie the
    examples of the batches that it holds; they count only as long as record and data are the same.
    """

    def __init__(self, limit: int, tries: int, record: Path, data: str) -> None:
        self.limit, self.tries, self.record, self.data = limit, tries, record, data
        self.new: list[Example] = []
        self.beside = record.with_name(record.name + ".npz")
        self.old = read_beside(self.beside, _kept)
        self.saved = 0

    def keep(self, example: Example) -> None:
        """Take one example; `evaluate` calls it."""
        size = (example.clean.nbytes + example.noisy.nbytes) * max(1, self.tries)
        if example.id >= min(self.limit, max(FEW, MEMORY // max(1, size))):
            return
        # Samples of several sizes stand in no one array: the first size is kept.
        earlier = self.new[:1] or (self.old[1][:1] if self.old[0] == self._key() else [])
        if earlier and earlier[0].clean.shape != example.clean.shape:
            return
        self.new.append(example)

    def save(self) -> None:
        """Write what is new, before the batch is recorded."""
        if len(self.new) > self.saved:
            write_arrays(self.beside, {**_arrays(self.all()), "key": np.array(self._key())})
            self.saved = len(self.new)

    def all(self) -> list[Example]:
        """The examples of the batches that were finished before, and of those since."""
        key, old = self.old
        again = {(e.id, e.attack, e.eps) for e in self.new}
        kept = [e for e in old if (e.id, e.attack, e.eps) not in again]
        return [*(kept if key == self._key() else []), *self.new]

    def write(self, path: Path, ids: NDArray[np.int64], classes: Sequence[str]) -> None:
        """Write all, with `ids[id]` for id, to `path`; no file where there are none."""
        path.unlink(missing_ok=True)
        found = self.all()
        if found:
            arrays = _arrays(found)
            arrays["id"] = ids[arrays["id"]]
            write_arrays(path, {**arrays, "classes": np.array(classes)})

    def _key(self) -> str:
        return key_of(self.record) + self.data


def _arrays(examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    columns = {name: _column([getattr(e, name) for e in examples]) for name in NUMBERS}
    # NumPy has no bfloat16.
    pairs = {n: [wide(getattr(e, n)).numpy() for e in examples] for n in ("clean", "noisy")}
    images = {name: np.stack(found) for name, found in pairs.items()}
    return {"attack": np.array([e.attack for e in examples]), **columns, **images}


def _column(found: Sequence[Value]) -> NDArray[Any]:
    """Numbers as they are; labels and predictions that are none as text."""
    plain = all(isinstance(one, int | float) for one in found)
    return np.array(found if plain else [to_cell(one) for one in found])


def _kept(found: Mapping[str, Any]) -> tuple[str, list[Example]]:
    clean, noisy = (torch.from_numpy(found[name]) for name in ("clean", "noisy"))
    columns = [found[n].tolist() for n in ("id", "attack", "eps")]
    # What is no number was written as text.
    columns += [[from_cell(str(one)) for one in found[n].tolist()] for n in NUMBERS[2:]]
    rows = zip(*columns, clean, noisy, strict=True)
    return str(found["key"]), [Example(*row) for row in rows]
