"""IMA, SAT, TRADES and PGD as a textbook would write them: plain PyTorch, one loop each.

What the library's steps are measured against. L2, values in [0, 1], labels; no checks, no options.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def move(x: Tensor, point: Tensor, gradient: Tensor, size: Tensor, radius: Tensor) -> Tensor:
    """One step along the gradient, back into the ball around x and into [0, 1]."""
    wide = (-1, *[1] * (x.ndim - 1))
    unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(wide)
    noise = point + size.view(wide) * unit - x
    far = noise.flatten(1).norm(dim=1).clamp_min(1e-12)
    return (x + (radius / far).clamp_max(1).view(wide) * noise).clamp(0, 1)


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, steps: int, size: Tensor, start: Tensor
) -> Tensor:
    """PGD on cross-entropy: every sample takes every step."""
    point = start
    for _ in range(steps):
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), y, reduction="sum"), point)
        point = move(x, point.detach(), gradient, size, radius)
    return point


def sat(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """A step of standard adversarial training: its loss."""
    radius = torch.full((len(x),), eps)
    clean = F.cross_entropy(model(x), y)
    model.eval()
    noisy = pgd(model, x, y, radius, steps, 4 * radius / steps, x)
    model.train()
    return (clean + F.cross_entropy(model(noisy), y)) / 2


def trades(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """A step of TRADES: its loss."""
    radius = torch.full((len(x),), eps)
    model.eval()
    with torch.no_grad():
        clean = model(x).softmax(1)
    point = x + 1e-3 * torch.randn_like(x)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        apart = F.kl_div(model(point).log_softmax(1), clean, reduction="sum")
        (gradient,) = torch.autograd.grad(apart, point)
        point = move(x, point.detach(), gradient, 2 * radius / steps, radius)
    model.train()
    output = model(x)
    apart = F.kl_div(model(point).log_softmax(1), output.softmax(1), reduction="batchmean")
    return F.cross_entropy(output, y) + 6 * apart


def ima(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Tensor,
    delta: float,
    steps: int,
    algorithm: int,
) -> tuple[Tensor, Tensor]:
    """A step of IMA (Algorithm 1, by Algorithm 2 or 3): its loss, and the new margins."""
    output = model(x)
    clean, right = F.cross_entropy(output, y, reduction="none"), output.argmax(1) == y
    model.eval()
    point, before, size = x.clone(), x.clone(), 4 * margins / steps
    active = right.nonzero()[:, 0]
    for _ in range(steps if len(active) else 0):
        leaf = point[active].requires_grad_()
        scores = model(leaf)
        loss = F.cross_entropy(scores, y[active], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        walks = (scores.argmax(1) == y[active]) | (algorithm == 3)
        active, leaf, gradient = active[walks], leaf.detach()[walks], gradient[walks]
        if len(active) == 0:
            break
        before[active] = leaf
        point[active] = move(x[active], leaf, gradient, size[active], margins[active])
    with torch.no_grad():
        crossed = right.clone()
        if len(active):
            crossed[active] = model(point[active]).argmax(1) != y[active]
        at = crossed.nonzero()[:, 0]
        low, high = (before if algorithm == 2 else x)[at], point[at]
        for _ in range(10 if len(at) else 0):
            middle = (low + high) / 2
            inside = (model(middle).argmax(1) == y[at]).view(-1, *[1] * (x.ndim - 1))
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        point[at] = low
    model.train()
    noisy = F.cross_entropy(model(point), y, reduction="none")
    far = (point - x).flatten(1).norm(dim=1)
    grown = torch.where(crossed, (far + margins) / 2, margins + delta)
    loss = (clean + torch.where(right, noisy, clean)).mean() / 2
    return loss, torch.where(right, grown, margins)
