"""Recurrent layers on a GPU, which cuDNN differentiates in training mode only.

a pass whose gradient is asked for, through a layer in evaluation mode: by torch's own kernels
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = ("RNN", "LSTM", "GRU")
"""Names of the layers that cuDNN computes; TorchScript keeps the name and not the class."""


def passable(module: Any, run: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """`run`, a pass through `module`, with a graph that can be differentiated in every mode.

    cuDNN's forward pass of a recurrent layer in evaluation mode keeps nothing for a backward pass,
    which then stops with an error. Other layers and other passes stay as they are where a module
    has no such layer; where it has one, passes for a gradient do without cuDNN.
    """
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    layers = [m for m in modules if _recurrent(m)]
    if not layers:
        return run

    def forward(x: Tensor) -> Any:
        still = not all(getattr(layer, "training", False) for layer in layers)
        if not (still and torch.is_grad_enabled() and x.requires_grad):
            return run(x)
        with _without_cudnn():
            return run(x)

    return forward


def _recurrent(module: nn.Module) -> bool:
    name = getattr(module, "original_name", type(module).__name__)
    return isinstance(module, nn.RNNBase) or name in LAYERS


@contextmanager
def _without_cudnn() -> Generator[None]:
    # Not `torch.backends.cudnn.flags`: that sets all other flags to its own defaults as well.
    flags: Any = torch.backends.cudnn
    before = flags.enabled
    flags.enabled = False
    try:
        yield
    finally:
        flags.enabled = before
