"""One computation on the CPU and on the device that is tested: `IMA_TEST_DEVICE`, or CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

CPU, DEVICE = torch.device("cpu"), torch.device(os.environ.get("IMA_TEST_DEVICE", "cuda"))
"""With `cpu` all runs everywhere: it shows that the tests are right, not that a GPU is."""


def _there() -> bool:
    return DEVICE.type == "cpu" or torch.get_device_module(DEVICE.type).is_available()


on_device = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _there(), reason=f"this machine has no {DEVICE.type} device"),
]
cuda_only = pytest.mark.skipif(DEVICE.type != "cuda", reason="only CUDA can tell")


def both(run: Callable[[torch.device], Any], *, rtol: float = 1e-6, atol: float = 1e-7) -> Any:
    """What `run` gives on the device, which must be what it gives on the CPU but for float order.

    The defaults are for float64: what it rounds hardly ever turns a decision.
    """
    found = run(DEVICE)
    close(found, run(CPU), rtol=rtol, atol=atol)
    return found


def close(found: Any, expected: Any, *, rtol: float, atol: float) -> None:
    """Compare trees: tensors and floats with a tolerance, all else exactly."""
    within = {"rtol": rtol, "atol": atol}
    if isinstance(expected, Mapping):
        assert list(found) == list(expected)
        for name, value in expected.items():
            close(found[name], value, **within)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other, **within)
    elif isinstance(expected, Tensor | float):
        pair = (torch.as_tensor(one).detach().cpu() for one in (found, expected))
        torch.testing.assert_close(*pair, equal_nan=True, **within)
    else:
        assert found == expected
