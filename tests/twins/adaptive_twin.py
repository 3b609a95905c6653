"""Slow, plain reference of the methods that treat every sample at its own pace, for tests.

ATES and DAT stop each sample by a criterion; MMA, IAAT and customized training keep a radius for
each. The conventions are those of `methods_twin`. It shares no code with the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from twins.methods_twin import (
    Ball,
    Bounds,
    Loss,
    attack_all,
    ce_of,
    climb,
    evaluation_mode,
    gradient,
    is_right,
    logits_at,
    others,
    take,
)


def ates_gap(
    epoch: int, epochs: int, initial: float, final: float, begin: float = 0.3, end: float = 0.7
) -> float:
    """The gap rises linearly between two shares of the run; epoch counts from 0."""
    first, last = begin * epochs, end * epochs
    risen = min(max(epoch - first + 1, 0.0), last - first) / (last - first)
    return initial + (final - initial) * risen


def difficulty(z: Tensor, y: int) -> float:
    """Psi, in [-1, 1]: the largest other probability minus that of y."""
    p = softmax(z, 0)
    return float(others(p, y).max() - p[y])


def ates(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    gap: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    unit: Tensor | None,
) -> Tensor:
    """Noisy cross-entropy; a sample stops at its first iterate that is difficult enough."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        point, label = ball.start(take(unit, i)), int(y[i])
        for _ in range(steps):
            if difficulty(logits_at(model, point), label) > gap:
                return point
            point = ball.step(point, gradient(model, point, ce_of(label)), 4 * eps / steps)
        return point

    return cross_entropy(model(attack_all(model, x, attack)), y)


def dat_threshold(epoch: int, epochs: int, c_max: float, share: float = 100 / 120) -> float:
    """The threshold falls linearly to 0 over a share of the run; epoch counts from 0."""
    return max(c_max - epoch * c_max / (share * epochs), 0.0)


def fosc(g: Tensor, offset: Tensor, eps: float, norm: float) -> float:
    """First-order stationarity: 0 where no step inside the ball raises the loss."""
    dual = 1 if norm == math.inf else 2
    return float(eps * torch.linalg.vector_norm(g.flatten(), dual) - (offset * g).sum())


def dat(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    threshold: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    unit: Tensor | None,
) -> Tensor:
    """Noisy cross-entropy; after its first step a sample stops once its FOSC is small enough."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        point = ball.start(take(unit, i))
        for k in range(steps):
            g = gradient(model, point, ce_of(int(y[i])))
            if k > 0 and fosc(g, point - ball.clean, eps, norm) <= threshold:
                return point
            point = ball.step(point, g, 2.5 * eps / steps)
        return point

    return cross_entropy(model(attack_all(model, x, attack)), y)


def slm(z: Tensor, y: int) -> Tensor:
    """Soft logit margin: negative where the probability of y is above one half."""
    return others(z, y).logsumexp(0) - z[y]


def mma_bisection(slm: Callable[[float], float], first: float, prev: float, high: float) -> float:
    """Ten halvings of [0, high], of which prev is the first probe, with margin first."""
    low, e, margin = 0.0, prev, first
    for _ in range(10):
        if margin < 0:
            low = max(low, e)
        else:
            high = min(high, e)
        e = (low + high) / 2
        margin = slm(e)
    return e


def mma(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    eps_min: float,
    stored: Tensor,
    steps: int,
    norm: float,
    bounds: Bounds,
    unit: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Right samples train on their own boundary, if nearer than eps; the clean loss is a third."""
    z = model(x)
    mixed, new_stored, counts = x.detach().clone(), torch.zeros_like(stored), torch.ones(len(x))

    def attack(i: int) -> tuple[Tensor, float]:
        label, prev, high = int(y[i]), max(eps_min, float(stored[i])), 1.05 * eps
        assert prev <= high
        ball = Ball(x[i].detach(), prev, norm, bounds)
        start, size = ball.start(take(unit, i)), 2.5 * prev / steps
        far = climb(model, ball, start, lambda z: slm(z, label), steps, size)
        u = (far - ball.clean) / prev

        def margin(point: Tensor) -> float:
            return float(slm(logits_at(model, point), label))

        def at(e: float) -> Tensor:
            return ball.clamp(ball.clean + e * u)

        e = mma_bisection(lambda e: margin(at(e)), margin(far), prev, high)
        return at(e), e

    with evaluation_mode(model):
        for i in range(len(x)):
            if slm(z[i], int(y[i])) < 0:
                mixed[i], e = attack(i)
                new_stored[i], counts[i] = e, e < eps

    losses = cross_entropy(model(mixed), y, reduction="none")
    return (2 * (counts.to(losses) * losses).mean() + cross_entropy(z, y)) / 3, new_stored


def iaat_warm(epoch: int, epochs: int) -> bool:
    """Whether all radii are one: in the first 10 of 110 epochs; epoch counts from 0.

    In other runs the same share, to the nearest epoch, and the first epoch in any case.
    """
    return epoch == 0 or 110 * (epoch + 1) <= 10 * epochs + 55


def iaat(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    prev: Tensor,
    warm: bool,
    eps0: float,
    gamma: float,
    alpha_min: float,
    beta: float,
    cap: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    units: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Noisy cross-entropy in radii that grow while the attack fails and shrink otherwise.

    units are for the attacks with prev, with prev + gamma, and with the new radius.
    """
    new_eps = prev.detach().clone()

    def attack(i: int, radius: float, unit: Tensor) -> Tensor:
        ball = Ball(x[i].detach(), radius, norm, bounds)
        size = max(2 * radius / steps, alpha_min)
        return climb(model, ball, ball.start(unit[i]), ce_of(int(y[i])), steps, size)

    def survives(i: int, radius: float, unit: Tensor) -> bool:
        return is_right(model, attack(i, radius, unit), int(y[i]))

    with evaluation_mode(model):
        for i in range(len(x)):
            old, right = float(prev[i]), is_right(model, x[i].detach(), int(y[i]))
            if warm:
                eps = eps0 if right else 0.0
            else:
                if survives(i, old + gamma, units[1]):
                    proposal = old + gamma
                elif survives(i, old, units[0]):
                    proposal = old
                else:
                    proposal = old - gamma
                proposal = max(proposal, 0.0) if right else 0.0
                eps = beta * proposal + (1 - beta) * old
            new_eps[i] = min(max(eps, 0.0), cap)

    noisy = attack_all(model, x, lambda i: attack(i, float(new_eps[i]), units[2]))
    return cross_entropy(model(noisy), y), new_eps


def customized(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps_max: float,
    eta: float,
    c: float,
    current: Tensor,
    steps: int,
    norm: float,
    bounds: Bounds,
    loss: Literal["ce", "mix"],
    draws: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Noisy loss with labels softened in step with radii that grow while the attack fails.

    draws are two Dirichlet samples (B, C): for the attack's labels, for those of the loss.
    """
    new_eps = current.detach().clone()

    def loss_of(i: int, eps: float, draw: Tensor) -> Loss:
        label = c * eps * draw[i]
        label[int(y[i])] += 1 - c * eps

        def value(z: Tensor) -> Tensor:
            soft = -(label * log_softmax(z, 0)).sum()
            if loss == "ce":
                return soft
            lead = others(z, int(y[i])).max() - z[int(y[i])]
            return soft + lead.clamp(min=-10)

        return value

    def attack(i: int) -> Tensor:
        old = float(current[i])
        radius = min(old + eta, eps_max)
        ball = Ball(x[i].detach(), radius, norm, bounds)
        raised = loss_of(i, old, draws[0])
        noisy = climb(model, ball, ball.clean, raised, steps, 2.5 * radius / steps)
        if is_right(model, noisy, int(y[i])):
            new_eps[i] = radius
        return noisy

    z = model(attack_all(model, x, attack))
    losses = [loss_of(i, float(new_eps[i]), draws[1])(z[i]) for i in range(len(x))]
    return torch.stack(losses).mean(), new_eps
