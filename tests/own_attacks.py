"""Attacks of a user's own, as `ima evaluate --attacks own_attacks:corner` imports them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ima.attacks.walk import forward
from ima.evaluation.attacks import AttackRow


def corner(model: Any, x: Tensor, y: Tensor, eps: float, steps: int = 3) -> Tensor:
    """The same noise on every entry, of either sign."""
    size = eps / x[0].numel() ** 0.5
    noisy = x + size
    for _ in range(steps):
        wrong = forward(model, noisy).argmax(1) != y
        noisy[~wrong] = x[~wrong] - size
    return noisy


def beyond(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """Far outside of every ball."""
    return x + 100


def misshapen(model: Any, x: Tensor, y: Tensor) -> Any:
    """No points at all."""
    return x[:, :1]


def _none(*args: Any) -> None:
    """Looks at nothing."""


ROW = AttackRow("nothing", _none, None, "-", "Nothing.", lambda *_: "it serves nobody")
NUMBER = 3
