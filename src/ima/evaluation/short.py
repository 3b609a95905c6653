"""Gradients in bfloat16, where that is faster: what is broken is still decided in full precision.

trial: time a gradient on the first batch in both precisions, in turn
short if that is at least 1.15 times as fast, and the directions agree
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ima.attacks.entering import Network
from ima.attacks.inputs import Model
from ima.attacks.walk import ascent
from ima.tasks import Task, Tree, objective_of

Precision: TypeAlias = Literal["float32", "bfloat16", "auto"]

PRECISIONS = ("float32", "bfloat16", "auto")

GAIN = 1.15
"""So many times as fast must it be."""

ALIKE = 0.9
"""The least cosine between the gradients in both, in the median over samples."""

_ROUNDS, _SECONDS = 3, 1.0


def shortened(model: Model) -> Model:
    """The model, as `no_trace` gives it, with gradient passes in bfloat16.

    A network in another precision than float32 stays as it is.
    """
    if isinstance(model, Network) and model.taken == torch.float32:
        return replace(model, short=torch.bfloat16)
    return model


def pays(model: Model, x: Tensor, y: Tree, task: Task) -> bool:
    """Whether gradients in bfloat16 are faster here, and point where those in float32 do.

    model: as `no_trace` gives it.
    """
    short = shortened(model)
    if short is model:
        return False
    taken: dict[bool, list[float]] = {False: [], True: []}
    found = dict[bool, Tensor]()
    begun = time.monotonic()
    for turn in range(_ROUNDS + 1):
        for which, network in ((False, model), (True, short)):
            started = time.perf_counter()
            leaf = x.detach().clone().requires_grad_()
            try:
                found[which], _ = ascent(network(leaf), leaf, y, objective_of(task))
            except RuntimeError:  # An operation that bfloat16 lacks on this device.
                if which:
                    return False
                raise
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            # The first round warms up.
            if turn:
                taken[which].append(time.perf_counter() - started)
        if turn and time.monotonic() - begun > _SECONDS:
            break
    alike = cosine_similarity(found[False].flatten(1), found[True].flatten(1))
    faster = median(taken[False]) >= GAIN * median(taken[True])
    return faster and bool(alike.median() >= ALIKE)


def check_precision(precision: str) -> None:
    """Raise ValueError for none of the names."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
