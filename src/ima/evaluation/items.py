"""One item of a user's data: (x, y) as a tuple or a dict, of a batch, of one sample, or of several.

(x, y, ...), {"image": x, "label": y, ...}     one batch or one sample
[(x, y), (x, y), ...]                          several samples
((x, x, ...), (y, y, ...))                     several samples, as two lists
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate  # pyright: ignore[reportUnknownVariableType]

from ima.evaluation.reading import as_tensor
from ima.tasks import Tree, targets

Keys: TypeAlias = tuple[str, str]
"""Where x and y are in items that are dicts."""


@dataclass(frozen=True)
class ItemPart:
    """One batch: x (B, *dims), targets y, and what names the samples' cases, None if not asked."""

    x: Tensor
    y: Tree
    cases: tuple[str | int, ...] | None


def pair(item: Any, keys: Keys) -> tuple[Tensor, Tree]:
    """Samples x and targets y of a batch or of one sample; TypeError where it holds none."""
    x, y = map(as_tensor, _raw(item, keys))
    if not isinstance(x, Tensor):
        raise TypeError(
            f"the data gave a {type(x).__name__} of {len(x)} as x; expected one tensor: for a "
            "network of several inputs put them into one, along the channels"
        )
    return x, targets(y)


def mates(item: Any, keys: Keys, case: str | int | None = None) -> ItemPart:
    """A batch as it came, or as a list of samples."""
    if several(item, keys):
        return batch_of(unzipped(item), keys, case)
    x, y = pair(item, keys)
    return ItemPart(x, y, None if case is None else tuple(_case(item, case, len(x), keys)))


def batch_of(samples: Sequence[Any], keys: Keys, case: str | int | None) -> ItemPart:
    """Samples as one batch; ValueError where they have several shapes."""
    pairs = [pair(sample, keys) for sample in samples]
    try:
        x, y = default_collate(pairs)
    except RuntimeError as error:
        raise ValueError(
            f"the samples do not fit into one batch ({error}); bring them to one size, or pass a "
            "list of batches, each of one size"
        ) from error
    cases = None
    if case is not None:
        cases = tuple(name for sample in samples for name in _case(sample, case, None, keys))
    return ItemPart(x, y, cases)


def several(item: Any, keys: Keys) -> bool:
    """Whether an item holds whole samples, as loaders whose collate function makes lists give."""
    if not isinstance(item, list | tuple) or not item:
        return False
    return zipped(item) or all(_paired(one, keys) for one in item)


def zipped(item: Any) -> bool:
    """Whether it is (all x, all y) as two lists, rather than two pairs.

    Raises ValueError where it may be either.
    """
    if len(item) != 2 or not all(isinstance(one, list | tuple) for one in item):
        return False
    xs, ys = item
    if len(xs) != len(ys) or len(xs) < 2 or not all(map(_array, xs)):
        return False
    alike = len({(tuple(x.shape), str(x.dtype)) for x in xs}) == 1
    if not alike or not _array(ys[0]):
        return alike
    if (ys[0].ndim, str(ys[0].dtype)) != (xs[0].ndim, str(xs[0].dtype)):
        # No two x of one data set differ so.
        return True
    if isinstance(item, tuple):
        raise ValueError(
            "the data gave two lists of tensors of one kind, which may be two pairs (x, y), or "
            "all x and all y: give a list of pairs, or collate them into tensors"
        )
    return False


def unzipped(item: Any) -> list[Any]:
    """The samples of an item that holds several."""
    return list(zip(*item, strict=True)) if zipped(item) else list(item)


def case_name(case: Any) -> str | int:
    """The name of a case, text or a whole number; TypeError for what is none."""
    if isinstance(case, bool) or not isinstance(case, str | Integral) or case == "":
        raise TypeError(
            f"the case of a sample is {_shown(case)}; expected a name, or a whole number, such as "
            "a patient's"
        )
    return str(case) if isinstance(case, str) else int(case)


def _raw(item: Any, keys: Keys) -> tuple[Any, Any]:
    if isinstance(item, Mapping) and set(keys) <= item.keys():
        return item[keys[0]], item[keys[1]]
    if isinstance(item, str | Mapping) or not isinstance(item, list | tuple) or len(item) < 2:
        came = f"a dict with {list(item)}" if isinstance(item, Mapping) else type(item).__name__
        raise TypeError(
            f"the data gave {came}; expected (x, y), or a dict with the keys {keys}: pass a data "
            "set, or an iterable of batches, of these"
        )
    return item[0], item[1]


def _case(item: Any, case: str | int, count: int | None, keys: Keys) -> list[str | int]:
    """The names of the cases of `count` samples, or of one sample if None."""
    own = dict(enumerate(keys)) | dict(enumerate(keys, -len(item)))
    taken = case in keys if isinstance(item, Mapping) else case in own
    if taken:
        what = "samples x" if case in (keys[0], 0, -len(item)) else "targets y"
        raise ValueError(
            f"the cases are to be at {case!r}, but there are the {what}; give the data one more "
            "value for every sample, the name of its case, and say where it is, or pass a list of "
            "names"
        )
    try:
        found = item[case]
    except (KeyError, IndexError, TypeError) as error:
        has = list(item) if isinstance(item, Mapping) else f"{len(item)} values"
        raise ValueError(
            f"the cases are to be at {case!r} of every sample, but one holds {has}; say another "
            "key or place"
        ) from error
    if count is None:
        found = [found]
    listed: list[Any] = found.tolist() if isinstance(found, Tensor | np.ndarray) else list(found)
    if isinstance(found, str) or len(listed) != (1 if count is None else count):
        raise ValueError(
            f"the cases at {case!r} are {len(listed)} for {count} samples; expected one for each"
        )
    return [case_name(_scalar(one)) for one in listed]


def _scalar(value: Any) -> Any:
    """What a tensor or an array of one value holds."""
    return value.item() if _array(value) and value.ndim == 0 else value


def _shown(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)


def _paired(item: Any, keys: Keys) -> bool:
    if isinstance(item, Mapping):
        return set(keys) <= item.keys()
    return isinstance(item, list | tuple) and len(item) > 1 and _array(item[0])


def _array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)
