"""What nnU-Net needs around it: a version that finds trainers, and a torchvision that imports."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from ima.torchvision_compat import mend_torchvision as mend_torchvision

EXTERNAL = "nnUNet_extTrainer"
"""The variable in which nnU-Net looks for folders with trainers that are not its own."""

MINIMUM = (2, 8)
"""The first nnU-Net that looks for trainers in the folders of `nnUNet_extTrainer`."""

INSTALL = "pip install 'ima[nnunet]'"
"""How nnU-Net gets installed, in the words of every message."""


def check_version() -> None:
    """Raise RuntimeError unless an nnU-Net is installed that finds trainers outside itself."""
    try:
        version = metadata.version("nnunetv2")
    except metadata.PackageNotFoundError as error:
        raise RuntimeError(f"nnU-Net is not installed; expected: {INSTALL}") from error
    # "2.8rc1" counts as 2.8.
    numbers = re.findall(r"(?:^|\.)(\d+)", version)[:2]
    if tuple(map(int, numbers)) < MINIMUM:
        raise RuntimeError(
            f"nnU-Net {version} is installed; it does not look for trainers outside itself "
            f"(nnUNet_extTrainer), which {'.'.join(map(str, MINIMUM))} is the first to do: "
            f"{INSTALL}"
        )


def external_folder() -> Path:
    """The folder to name in `nnUNet_extTrainer`: it holds one small module with the trainers."""
    return Path(__file__).resolve().parent / "external"
