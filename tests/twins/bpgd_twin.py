"""Slow, plain reference of IMA training, one sample at a time, for comparison in tests.

Follows Ma & Liang, "Increasing-Margin Adversarial (IMA) Training to Improve Adversarial
Robustness of Neural Networks", Algorithms 1 to 3, for softmax classification with
cross-entropy. It shares no code with the library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Bounds = tuple[float, float] | None
Side = Literal["inside", "middle"]


@dataclass
class TwinResult:
    """What the attack made of a batch."""

    x: Tensor  # (B, *dims), the points found
    crossed: list[bool]  # the walk met the boundary
    correct: list[bool]  # the clean sample is classified correctly in evaluation mode


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _is_right(model: nn.Module, x: Tensor, y: int) -> bool:
    with torch.no_grad():
        return int(model(x[None])[0].argmax()) == y


def _gradient(model: nn.Module, x: Tensor, y: int) -> Tensor:
    """Gradient of the cross-entropy with respect to one sample."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        loss = cross_entropy(model(x[None]), torch.tensor([y], device=x.device))
        return torch.autograd.grad(loss, x)[0]


def _length(v: Tensor, norm: float) -> float:
    return float(torch.linalg.vector_norm(v, norm))


def _step(
    model: nn.Module,
    x: Tensor,
    y: int,
    clean: Tensor,
    radius: float,
    size: float,
    norm: float,
    bounds: Bounds,
) -> Tensor:
    """One ascent step from x: move, project onto the ball around clean, clamp."""
    gradient = _gradient(model, x, y)
    largest = gradient.abs().max()
    if largest == 0:
        return x
    if norm == 2:
        scaled = gradient / largest
        direction = scaled / torch.linalg.vector_norm(scaled)
    else:
        direction = gradient.sign()

    offset = x + size * direction - clean
    if norm == 2:
        length = _length(offset, 2)
        if length > radius:
            offset = offset * (radius / length)
    else:
        offset = offset.clamp(-radius, radius)

    moved = clean + offset
    return moved if bounds is None else moved.clamp(bounds[0], bounds[1])


def _search(model: nn.Module, right: Tensor, wrong: Tensor, y: int, side: Side) -> Tensor:
    """Ten halvings of the segment between a right and a wrong point."""
    for _ in range(10):
        middle = (right + wrong) / 2
        if _is_right(model, middle, y):
            right = middle
        else:
            wrong = middle
    return right if side == "inside" else (right + wrong) / 2


def _walk_until_crossed(
    model: nn.Module,
    clean: Tensor,
    y: int,
    radius: float,
    norm: float,
    bounds: Bounds,
    steps: int,
    side: Side,
) -> tuple[Tensor, bool]:
    """Algorithm 2: stop at the first wrong iterate, search between it and the one before."""
    x = clean
    for _ in range(steps):
        before = x
        x = _step(model, before, y, clean, radius, 4 * radius / steps, norm, bounds)
        if not _is_right(model, x, y):
            return _search(model, before, x, y, side), True
    return x, False


def _walk_all_steps(
    model: nn.Module,
    clean: Tensor,
    y: int,
    radius: float,
    norm: float,
    bounds: Bounds,
    steps: int,
    side: Side,
) -> tuple[Tensor, bool]:
    """Algorithm 3: take every step, then search between the clean sample and the last iterate."""
    x = clean
    for _ in range(steps):
        x = _step(model, x, y, clean, radius, 4 * radius / steps, norm, bounds)
    if not _is_right(model, x, y):
        return _search(model, clean, x, y, side), True
    return x, False


def bpgd_twin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    *,
    norm: float,
    bounds: Bounds = None,
    steps: int = 20,
    algorithm: Literal[2, 3] = 2,
    side: Side = "inside",
) -> TwinResult:
    """Push every sample towards the boundary within its own radius eps[i] (Algorithm 2 or 3).

    A sample that is wrong to begin with comes back unchanged.
    """
    assert norm in (2, math.inf)
    assert algorithm in (2, 3)
    assert side in ("inside", "middle")
    walk = {2: _walk_until_crossed, 3: _walk_all_steps}[algorithm]
    found = x.detach().clone()
    crossed: list[bool] = []
    correct: list[bool] = []
    with _evaluation_mode(model):
        for i in range(len(x)):
            clean, label, radius = x[i].detach(), int(y[i]), float(eps[i])
            right, met = _is_right(model, clean, label), False
            if right:
                found[i], met = walk(model, clean, label, radius, norm, bounds, steps, side)
            crossed.append(met)
            correct.append(right)
    return TwinResult(found, crossed, correct)


def ima_step_twin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Tensor,
    *,
    eps: float,
    delta: float,
    norm: float,
    bounds: Bounds = None,
    steps: int = 20,
    algorithm: Literal[2, 3] = 2,
    side: Side = "inside",
    misclassified: Literal["keep", "halve"] = "keep",
    noisy_loss: Literal["all", "crossed"] = "all",
) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 1: the loss, with its graph, and the margins of these samples after it.

    The model is in training mode when called, and margins[i] belongs to sample i alone.
    """
    assert misclassified in ("keep", "halve")
    assert noisy_loss in ("all", "crossed")
    logits = model(x)
    clean_loss = cross_entropy(logits, y, reduction="none")
    gated = [i for i in range(len(x)) if int(logits[i].argmax()) == int(y[i])]

    result = bpgd_twin(
        model,
        x[gated],
        y[gated],
        margins[gated],
        norm=norm,
        bounds=bounds,
        steps=steps,
        algorithm=algorithm,
        side=side,
    )
    noisy = x.detach().clone()
    attacked = [False] * len(x)
    crossed = [False] * len(x)
    for k, i in enumerate(gated):
        noisy[i], attacked[i], crossed[i] = result.x[k], result.correct[k], result.crossed[k]

    noisy_losses = cross_entropy(model(noisy), y, reduction="none")
    total = clean_loss.new_zeros(())
    new_margins = margins.detach().clone()
    for i in range(len(x)):
        if noisy_loss == "all":
            second = noisy_losses[i] if attacked[i] else clean_loss[i]
        else:
            second = noisy_losses[i] if crossed[i] else 0.0
        total = total + (clean_loss[i] + second) / 2

        margin = float(margins[i])
        if crossed[i]:
            margin = (_length(noisy[i] - x[i].detach(), norm) + margin) / 2
        elif attacked[i]:
            margin = margin + delta
        elif misclassified == "halve":
            margin = margin / 2
        new_margins[i] = min(max(margin, 0.0), eps)
    return total / len(x), new_margins
