"""What is installed beside the core: by which extra, told where it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "cli": ("cyclopts", "rich", "lightning_fabric", "matplotlib", "jinja2", "PIL", "scipy"),
    "data": ("sklearn", "scipy", "PIL"),
    "autoattack": ("pyautoattack",),
    "nnunet": ("nnunetv2",),
    "slurm": ("submitit",),
    "tune": ("optuna",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "pytorch_lightning"),
    "wandb": ("wandb", "pytorch_lightning"),
}
"""Modules by the extra of pyproject.toml that brings them."""


def lacking(extra: str) -> str:
    """Whether modules of an extra are missing, and how to get them; empty where none are."""
    absent = [name for name in EXTRAS[extra] if find_spec(name) is None]
    return f"not installed ({', '.join(absent)}): pip install 'ima[{extra}]'" if absent else ""


def need(extra: str) -> None:
    """Raise ImportError, which says how to get them, where modules of an extra are missing."""
    if told := lacking(extra):
        raise ImportError(f"this needs what is {told}")
