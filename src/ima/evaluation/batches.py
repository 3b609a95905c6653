"""What `evaluate` takes as data, as batches (x, y).

data set, list of samples, or stream of samples: batches of one size, in their order
loader, list of batches, or any iterable of batches: as they come
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from ima.evaluation.items import ItemPart, Keys, batch_of, mates, pair, several, unzipped, zipped
from ima.evaluation.partial import batch_mark
from ima.evaluation.reading import Reader
from ima.tasks import Tree

_EMPTY = "the data set is empty; there is nothing to evaluate"


class Batches:
    """A user's data as batches, each time it is iterated over.

    total: batches, 0 where unknown; ordered: whether samples come in the data set's order. A
    loader that shuffles is read in order.
    reader: tells samples from batches; case: where an item says its case: a key of dicts, or a
    place in tuples.

    Raises TypeError for what is no such data, ValueError for an item that may be either, and on the
    way for data that is empty.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        keys: Keys,
        reader: Reader,
        case: str | int | None = None,
    ) -> None:
        refuse_data(data)
        data = _in_order(data) if isinstance(data, DataLoader) else data
        self.keys, self.case, self.batch_size, self.reader = keys, case, batch_size, reader
        self.data, self.again = data, indexable(data)
        if self.again:
            start = list(islice(self._items(), 1))
        else:
            # A generator gives its first item once.
            self.iterator = iter(data)
            start = list(islice(self.iterator, max(1, _workers(data))))
            _told_apart(start, data, keys)
            self.iterator = chain(start, self.iterator)
        self.kind = self._kind(start[0], reader) if start else "none"
        size, step = _length(data), batch_size if self.kind == "samples" else 1
        self.total = -(-size // step)
        self.ordered = not isinstance(data, DataLoader) or _sequential(data)

    def _kind(self, first: Any, reader: Reader) -> str:
        if isinstance(self.data, DataLoader) and self.data.batch_sampler is not None:
            return "batches"
        if several(first, self.keys):
            return "batches"
        # A data set gives samples, whatever else they may look like.
        otherwise = None if isinstance(self.data, list | tuple) or not self.again else True
        sample = reader.is_sample(*pair(first, self.keys), otherwise=otherwise)
        return "samples" if sample else "batches"

    def samples(self) -> int | None:
        """How many there are, None where only reading them all would tell."""
        data: Any = self.data
        if self.kind == "samples" and (self.again or _length(data)):
            return _length(data)
        if self.again:
            return sum(len(mates(item, self.keys).x) for item in self._items())
        known = isinstance(data, DataLoader) and type(data.batch_sampler) is BatchSampler
        if not known or isinstance(data.dataset, IterableDataset):
            return None
        size, step = _length(data.sampler), data.batch_size or 1
        return size // step * step if data.drop_last else size

    def __iter__(self) -> Iterator[ItemPart]:
        items = self._items() if self.again else self.iterator
        came = 0
        for batch in self._batches(items):
            came += 1
            yield batch
        if not came:
            raise ValueError(
                f"{_EMPTY} (what was read before and gives its samples once, such as a generator, "
                "is empty too)"
            )
        # Each worker of a stream's loader rounds its own number up.
        if self.total and came != self.total and _workers(self.data) < 2:
            warnings.warn(
                f"the data said that they have {self.total} batches and gave {came}; the figures "
                "are of the samples that came",
                stacklevel=4,
            )

    def _items(self) -> Iterator[Any]:
        size = _length(self.data)
        for i in range(size):
            yield _item(self.data, i)

    def _batches(self, items: Iterable[Any]) -> Iterator[ItemPart]:
        if self.kind != "samples":
            for item in items:
                yield mates(item, self.keys, self.case)
            return
        items = iter(items)
        while some := list(islice(items, self.batch_size)):
            yield batch_of(some, self.keys, self.case)


def _item(data: Any, i: int) -> Any:
    try:
        return data[i]
    except LookupError as error:
        # A pandas Series takes labels of its own, not numbers.
        raise ValueError(
            f"the data say that they hold {len(data)} items, but item {i} cannot be read: "
            f"{error or type(error).__name__}; correct __len__ or __getitem__, or pass a list of "
            "the samples, list(data)"
        ) from error


def first_batch(data: Any, keys: Keys) -> tuple[Tensor, Tree]:
    """The first item of data that can be read again, as `pair`; of several in a list the first."""
    refuse_data(data)
    data = _in_order(data) if isinstance(data, DataLoader) else data
    first = _item(data, 0) if indexable(data) and len(data) else next(iter(data), None)
    if first is None:
        raise ValueError(_EMPTY)
    while several(first, keys):
        first = unzipped(first)[0]
    return pair(first, keys)


def few(data: Any, keys: Keys, count: int) -> list[tuple[Tensor, Tree]]:
    """The first items of data that can be read again: `count`, one where they are not indexed."""
    if not indexable(data):
        return [first_batch(data, keys)]
    items = (_item(data, i) for i in range(min(count, len(data))))
    return [(part.x, part.y) for part in (mates(item, keys) for item in items)]


def refuse_data(data: Any) -> None:
    """Raise TypeError for what is no data set, and no iterable of batches."""
    wanted = "expected a data set of (x, y), or an iterable of batches (x, y)"
    if isinstance(data, np.ndarray) and data.dtype == object:
        raise TypeError(
            f"data is an array of {len(data)} objects; {wanted}: where each is a sample (x, y), "
            "list(data)"
        )
    if isinstance(data, Tensor | np.ndarray):
        raise TypeError(
            f"data is one {type(data).__name__} of shape {tuple(data.shape)}, without targets; "
            f"{wanted}: TensorDataset(x, y)"
        )
    if isinstance(data, Mapping):
        raise TypeError(
            f"data is a dict with the keys {list(data)}; {wanted}: of whole tensors make "
            "TensorDataset(x, y), of several data sets pass one"
        )
    if isinstance(data, list | tuple) and data:
        if isinstance(data[0], Tensor | np.ndarray):
            raise TypeError(
                f"data is a {type(data).__name__} of {len(data)} tensors; {wanted}: of all samples "
                "x and all targets y make TensorDataset(x, y)"
            )
        if zipped(data):
            raise TypeError(
                f"data is a list of {len(data[0])} samples and one of their targets; {wanted}: "
                "list(zip(x, y)) makes pairs of them"
            )
    readable = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    if isinstance(data, str | bytes | Path) or not readable:
        raise TypeError(f"data is a {type(data).__name__}; {wanted}")


def device_of(model: nn.Module) -> torch.device | None:
    """The device of a model's weights; None, which moves nothing, for a model without.

    Raises TypeError for what is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a torch.nn.Module: a function can be "
            "called in the forward of one"
        )
    state = (*model.parameters(), *model.buffers())
    return state[0].device if state else None


def indexable(data: Any) -> bool:
    """Whether it has a length, and items that can be asked for by number."""
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        return False
    return _says(data)


def _in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The loader; where it shuffles all of a data set, one that reads it in order."""
    sampler, size = loader.sampler, loader.batch_size
    shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement
    if not shuffles or type(loader.batch_sampler) not in (BatchSampler, type(None)):
        return loader
    if _length(sampler) != _length(loader.dataset):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=Generator(),
    )


def _sequential(loader: DataLoader[Any]) -> bool:
    if isinstance(loader.dataset, IterableDataset):
        return True
    plain = type(loader.batch_sampler) in (BatchSampler, type(None))
    return plain and isinstance(loader.sampler, SequentialSampler | list | tuple | range)


def _length(data: Any) -> int:
    """Its length, 0 where it has none: a loader over a stream defines one that raises."""
    return len(data) if _says(data) else 0


def _says(data: Any) -> bool:
    """Whether it says how long it is."""
    try:
        len(data)
    except Exception:  # Whatever a stream of a user's raises that has none.
        return False
    return True


def _workers(data: Any) -> int:
    """How many processes read a stream: each reads all of it that does not ask which it is."""
    if isinstance(data, DataLoader) and isinstance(data.dataset, IterableDataset):
        return data.num_workers
    return 0


def _told_apart(start: Sequence[Any], data: Any, keys: Keys) -> None:
    """Raise ValueError where every worker gives the same batch: all samples would count twice."""
    if _workers(data) < 2 or len(start) < _workers(data):
        return
    parts = [mates(item, keys) for item in start]
    if len({batch_mark(part.x, part.y) for part in parts}) == 1:
        raise ValueError(
            f"the loader's {_workers(data)} workers all read the whole stream, so that every "
            "sample would count several times; split it by torch.utils.data.get_worker_info, or "
            "take num_workers=0"
        )
