"""What `evaluate` takes as data, as batches (x, y)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import (
    DataLoader,
    default_collate,  # pyright: ignore[reportUnknownVariableType]
)

from ima.tasks import plain, targets


def batches(data: Any, batch_size: int) -> Any:
    """An iterable of batches: of a data set, in its order; batches stay as they are."""
    first: Any = data[0] if isinstance(data, list | tuple) and data else None
    if _is_batch(first):
        return data
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        samples: Any = data
        # A generator of its own: a loader without one draws from the global random state.
        own = Generator()
        loader = DataLoader(samples, batch_size=batch_size, generator=own, collate_fn=_together)
        return loader if len(samples) else ()
    return data


def pair(batch: Any, keys: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Samples x and labels y of a batch; TypeError where it holds none."""
    if isinstance(batch, dict) and set(keys) <= batch.keys():
        return _samples(batch[keys[0]]), _targets(batch[keys[1]])
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        came = f"a dict with {list(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise TypeError(
            f"the data gave {came}; expected (x, y), or a dict with the keys {keys}: pass a data "
            "set, or an iterable of batches, of these"
        )
    return _samples(batch[0]), _targets(batch[1])


def device_of(model: nn.Module) -> torch.device | None:
    """The device of a model's weights; None, which moves nothing, for a model without."""
    state = (*model.parameters(), *model.buffers())
    return state[0].device if state else None


def _samples(x: Any) -> Tensor:
    if isinstance(x, np.ndarray):
        return torch.as_tensor(x)
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; expected a tensor of samples (B, *dims)")
    return plain(x).detach()


def _targets(y: Any) -> Any:
    return targets(torch.as_tensor(y) if isinstance(y, np.ndarray) else y)


def _together(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except RuntimeError as error:
        raise ValueError(
            f"the samples do not fit into one batch ({error}); bring them to one size, or pass a "
            "list of batches, each of one size"
        ) from error


def _is_batch(item: Any) -> bool:
    """Whether an item of a list holds a label for each of several samples."""
    labels = item[1] if isinstance(item, list | tuple) and len(item) > 1 else None
    if isinstance(labels, list | tuple) and labels:
        labels = labels[0]  # Of several scales, as deep supervision has them.
    return isinstance(labels, Tensor) and labels.ndim > 0
