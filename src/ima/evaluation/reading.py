"""Whether an item (x, y) of a user's data is one sample, or a batch of them.

a target that is a number, or of another length than x: a sample
else ask the network: does it take x as a batch, or x as one sample, with targets that fit?
both: layers of torch take samples without a batch too, but no batch of batches
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ima.attacks.reading import CanCheck, fits
from ima.tasks import Classification, Tree, leaves, tree_map

_FEW = 2
"""So many samples of what may be a batch are looked at."""


@dataclass(frozen=True)
class Reader:
    """What reads items as batches or samples: the network, and the task that it solves."""

    model: nn.Module
    task: CanCheck

    def is_sample(self, x: Tensor, y: Tree, *, otherwise: bool | None = None) -> bool:
        """Whether x is one sample (*dims), rather than a batch (B, *dims).

        otherwise: the answer where both may be; ValueError if None.
        """
        told = by_shape(x, y)
        if told is None and isinstance(self.task, Classification) and _labels(y):
            told = False
        return self._asked(x, y, otherwise) if told is None else told

    def _asked(self, x: Tensor, y: Tree, otherwise: bool | None) -> bool:
        few, one = (tree_map(lambda t: t[:_FEW], y), tree_map(lambda t: t[None], y))
        fit = partial(fits, self.model, self.task)
        as_batch, as_sample = fit(x[:_FEW], few), fit(x[None], one)
        if as_batch != as_sample:
            return as_sample > as_batch
        within = fit(x[None, None], tree_map(lambda t: t[None], one))
        if as_batch == 0:
            # Neither; a sample may lack its channels: what comes after says what is wrong.
            return bool(otherwise) or within > 0
        if within == 0:
            return True
        if as_batch < 2 or otherwise is not None or x.shape[:2] == (1, 1):
            return bool(otherwise)
        shape, truth = tuple(x.shape), tuple(leaves(y)[0].shape)
        raise ValueError(
            f"the data's first item has x of shape {shape} and y of shape {truth}: it may be one "
            f"sample, or a batch of {len(x)}, each of shape {shape[1:]}, and the network takes "
            "both; say which: for samples pass a data set, such as TensorDataset(x, y), or "
            "DataLoader(samples, batch_size=16); for batches the DataLoader that makes them, or "
            "TensorDataset(torch.cat(all x), torch.cat(all y))"
        )


def by_shape(x: Tensor, y: Tree) -> bool | None:
    """True for a sample, False for a batch, None where the shapes leave it open."""
    if x.ndim == 0 or any(leaf.ndim == 0 or len(leaf) != len(x) for leaf in leaves(y)):
        return True
    return None


def sample_shapes(x: Tensor, y: Tree) -> list[tuple[int, ...]]:
    """The shapes that a sample of this item may have: those of a batch's first."""
    return [tuple(x.shape)] if by_shape(x, y) else [tuple(x.shape[1:]), tuple(x.shape)]


def _labels(y: Any) -> bool:
    """Whether y is a class for each of several samples, and cannot be one-hot for one."""
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or len(y) < 2:
        return False
    return not (bool(((y == 0) | (y == 1)).all()) and int(y.long().sum()) == 1)


def as_tensor(value: Any) -> Tree:
    """Arrays, numbers and lists of numbers as tensors, without subclasses; lists of these too."""
    if isinstance(value, Tensor):
        return value.as_subclass(Tensor).detach()
    if isinstance(value, dict):
        return {key: as_tensor(one) for key, one in value.items()}
    if isinstance(value, list | tuple) and not (value and all(map(_number, value))):
        return [as_tensor(one) for one in value]
    try:
        if isinstance(value, np.ndarray):
            # torch takes none that are reversed, and warns of those that are read-only.
            value = np.require(value, requirements=("C", "W"))
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the data gave a {type(value).__name__} as x or y; expected tensors, arrays or "
            "numbers: turn images and words into them first"
        ) from error


def _number(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (
        hasattr(value, "dtype") and getattr(value, "ndim", None) == 0
    )
