"""A torchvision that imports beside a PyTorch that it was not built for."""

from __future__ import annotations

import sys
from typing import Any

_KEPT: list[Any] = []


def mend_torchvision() -> None:
    """Let torchvision import where torch is built for the CPU only.

    The package registry's torchvision is built for CUDA, and its operators are missing beside a
    CPU torch; its import, and with it that of nnU-Net's trainers and of timm, fails. Declaring the
    two operators that it asks for is enough: networks never call them. Elsewhere nothing is done.
    Call it before whatever imports torchvision is imported.
    """
    import torch

    if torch.version.cuda is not None or "torchvision" in sys.modules:
        return
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        # Operators live as long as the object that declared them.
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
