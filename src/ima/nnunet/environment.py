"""What nnU-Net needs around it: a version that finds trainers, and a torchvision that imports."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

MINIMUM = (2, 8)
"""The first nnU-Net that looks for trainers in the folders of `nnUNet_extTrainer`."""

INSTALL = "pip install '.[nnunet]', in the folder that holds this library's pyproject.toml"
"""How nnU-Net gets installed, in the words of every message."""

_KEPT: list[Any] = []


def check_version() -> None:
    """Raise RuntimeError unless an nnU-Net is installed that finds trainers outside itself."""
    try:
        version = metadata.version("nnunetv2")
    except metadata.PackageNotFoundError as error:
        raise RuntimeError(f"nnU-Net is not installed; expected: {INSTALL}") from error
    if _numbers(version) < MINIMUM:
        raise RuntimeError(
            f"nnU-Net {version} is installed; it does not look for trainers outside itself "
            f"(nnUNet_extTrainer), which {'.'.join(map(str, MINIMUM))} is the first to do: "
            f"{INSTALL}"
        )


def external_folder() -> Path:
    """The folder to name in `nnUNet_extTrainer`: it holds one small module with the trainers."""
    return Path(__file__).resolve().parent / "external"


def mend_torchvision() -> None:
    """Let torchvision import where torch is built for the CPU only.

    The package registry's torchvision is built for CUDA, and its operators are missing beside a
    CPU torch; its import, and with it nnU-Net's search for trainers, fails. Declaring the two
    operators that it asks for is enough: nnU-Net never calls them. Elsewhere nothing is done.
    Call it before nnU-Net is imported.
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


def _numbers(version: str) -> tuple[int, ...]:
    # "2.8rc1" counts as 2.8.
    return tuple(int(found) for found in re.findall(r"(?:^|\.)(\d+)", version)[:2])
