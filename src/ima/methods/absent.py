"""A training step of a process whose part of the batch is empty.

run the step on two made-up samples, with running statistics held still
loss = 0 * its loss;  every metric 0;  no margin changes

The other processes wait for this one in passes of the model (buffers, gradients, FSDP's parameters)
and where margins are exchanged: it must do whatever they do. DDP and FSDP average gradients over
all processes, and this one's are 0: with one of two processes empty the step is half as long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ima.attacks.inputs import Bounds
from ima.attacks.lockstep import evaluating, processes
from ima.methods.base import Step
from ima.tasks import Tree, tree_map

MADE_UP = 2
"""Samples that stand in for none: batch statistics of a single one may not exist."""


class Takes(Protocol):
    """A method that may get no samples. absent: whether it has none in this step."""

    absent: bool

    @property
    def bounds(self) -> Bounds:
        """(low, high) of x's entries, or None."""
        ...


Call = TypeVar("Call", bound=Callable[..., Step])


def or_absent(call: Call) -> Call:
    """A method's `__call__`, which in a run of several processes takes a batch without samples.

    Without ids too: methods that need some say how to get them.
    """

    @wraps(call)
    def step(method: Takes, model: nn.Module, x: Tensor, y: Tree, ids: Any = None) -> Step:
        if processes() == 1 or not isinstance(x, Tensor) or x.ndim == 0 or len(x) > 0:
            return call(method, model, x, y, ids)
        x, y = _made_up(x, method.bounds), tree_map(_zeros, y)
        with _standing_aside(method, model):
            done = call(method, model, x, y, torch.zeros(MADE_UP, dtype=torch.long))
        metrics = {name: torch.zeros_like(value) for name, value in done.metrics.items()}
        return Step(0 * done.loss, metrics)

    return cast("Call", step)


@contextmanager
def _standing_aside(method: Takes, model: nn.Module) -> Generator[None]:
    if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise ValueError(
            "this process got a batch without samples, and the model has SyncBatchNorm, whose "
            "statistics would count made-up samples; give every process at least one sample, for "
            "example with drop_last=True"
        )
    method.absent = True
    try:
        with evaluating(model, _NormBase):
            yield
    finally:
        method.absent = False


def _made_up(x: Tensor, bounds: Bounds) -> Tensor:
    # Not constant: networks that standardise each image divide by its deviation.
    shape = (MADE_UP, *x.shape[1:])
    u = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(x.device, x.dtype)
    if bounds is None:
        return u
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in bounds)
    within = torch.isfinite(high - low)
    return torch.where(within, low + u * (high - low), u.clamp(low, high))


def _zeros(target: Tensor) -> Tensor:
    return target.new_zeros((MADE_UP, *target.shape[1:]))
