"""Slow, plain reference of the comparison methods, one sample at a time, for tests.

Here: what all of them need, and SAT, TRADES, MART, FAT, GAIRAT and curriculum training. ATES, DAT,
MMA, IAAT and customized training are in `adaptive_twin`. Softmax classification: logits (B, C),
labels int64 (B,). The model is in training mode when called; attacks run in evaluation mode, and
before the forwards of the loss where a method does not need one of these first. All randomness
is an argument. It shares no code with the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

Bounds = tuple[float, float] | None
Loss = Callable[[Tensor], Tensor]  # of the logits (C,) of one sample


@contextmanager
def evaluation_mode(model: nn.Module) -> Generator[None]:
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def logits_at(model: nn.Module, point: Tensor) -> Tensor:
    with torch.no_grad():
        return model(point[None])[0]


def is_right(model: nn.Module, point: Tensor, y: int) -> bool:
    return int(logits_at(model, point).argmax()) == y


def gradient(model: nn.Module, point: Tensor, loss: Loss) -> Tensor:
    with torch.enable_grad():
        point = point.detach().clone().requires_grad_()
        return torch.autograd.grad(loss(model(point[None])[0]), point)[0]


def others(z: Tensor, y: int) -> Tensor:
    """The logits, or probabilities, of all classes but y."""
    return torch.cat([z[:y], z[y + 1 :]])


def ce_of(y: int) -> Loss:
    return lambda z: cross_entropy(z[None], torch.tensor([y], device=z.device))


def kl(z: Tensor, z_noisy: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, p from z and q from z_noisy."""
    log_p, log_q = log_softmax(z, -1), log_softmax(z_noisy, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class Ball:
    """Where the attack on one sample may go."""

    clean: Tensor
    radius: float
    norm: float
    bounds: Bounds

    def clamp(self, point: Tensor) -> Tensor:
        return point if self.bounds is None else point.clamp(self.bounds[0], self.bounds[1])

    def project(self, point: Tensor) -> Tensor:
        offset = point - self.clean
        if self.norm == math.inf:
            return self.clean + offset.clamp(-self.radius, self.radius)
        length = float(torch.linalg.vector_norm(offset))
        if length > self.radius:
            offset = offset * (self.radius / length)
        return self.clean + offset

    def direction(self, g: Tensor) -> Tensor:
        if self.norm == math.inf:
            return g.sign()
        scaled = g / g.abs().max()
        return scaled / torch.linalg.vector_norm(scaled)

    def start(self, unit: Tensor | None) -> Tensor:
        """A random point of the ball; unit is a point of the unit ball, None starts at clean."""
        return self.clean if unit is None else self.clamp(self.clean + self.radius * unit)

    def tiny_start(self, normal: Tensor) -> Tensor:
        """Not projected: it may lie outside a very small ball."""
        return self.clamp(self.clean + 0.001 * normal)

    def step(self, point: Tensor, g: Tensor, size: float) -> Tensor:
        """Move, project onto the ball, clamp; a zero gradient moves nothing."""
        if not g.any():
            return point
        return self.clamp(self.project(point + size * self.direction(g)))


def climb(
    model: nn.Module, ball: Ball, point: Tensor, loss: Loss, steps: int, size: float
) -> Tensor:
    """All the steps of plain PGD; the last iterate."""
    for _ in range(steps):
        point = ball.step(point, gradient(model, point, loss), size)
    return point


def attack_all(model: nn.Module, x: Tensor, attack: Callable[[int], Tensor]) -> Tensor:
    """The batch of attack(0), attack(1), ... found in evaluation mode."""
    with evaluation_mode(model):
        return torch.stack([attack(i).detach() for i in range(len(x))])


def take(units: Tensor | None, i: int) -> Tensor | None:
    return None if units is None else units[i]


def sat(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int, norm: float, bounds: Bounds
) -> Tensor:
    """Half the clean and half the noisy cross-entropy."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        return climb(model, ball, ball.clean, ce_of(int(y[i])), steps, 4 * eps / steps)

    # The clean pass first, as in IMA: the attack then finds its running statistics.
    clean = cross_entropy(model(x), y)
    noisy = attack_all(model, x, attack)
    return (clean + cross_entropy(model(noisy), y)) / 2


def trades(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    beta: float,
    normal: Tensor,
) -> Tensor:
    """Clean cross-entropy plus beta times the divergence of the noisy from the clean output."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        fixed = logits_at(model, ball.clean)
        start = ball.tiny_start(normal[i])
        return climb(model, ball, start, lambda z: kl(fixed, z), steps, 2 * eps / steps)

    noisy = attack_all(model, x, attack)
    z = model(x)
    z_noisy = model(noisy)
    return cross_entropy(z, y) + beta * kl(z, z_noisy).mean()


def mart(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    lam: float,
    normal: Tensor,
) -> Tensor:
    """Boosted cross-entropy of the noisy sample, plus a divergence weighted by 1 - p_y."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        start = ball.tiny_start(normal[i])
        return climb(model, ball, start, ce_of(int(y[i])), steps, 4 * eps / steps)

    noisy = attack_all(model, x, attack)
    z = model(x)
    z_noisy = model(noisy)
    total = z.new_zeros(())
    for i in range(len(x)):
        label, p = int(y[i]), softmax(z[i], 0)
        rival = max(
            (k for k in range(z.shape[1]) if k != label),
            key=lambda k: float(z_noisy[i, k].detach()),
        )
        log_not_rival = others(z_noisy[i], rival).logsumexp(0) - z_noisy[i].logsumexp(0)
        boosted = ce_of(label)(z_noisy[i]) - log_not_rival
        total = total + boosted + lam * kl(z[i], z_noisy[i]) * others(p, label).sum()
    return total / len(x)


def fat_tau(epoch: int, epochs: int) -> int:
    """0 to 5/12 of the run, 1 to 3/4, then 2; epoch counts from 0."""
    if 12 * (epoch + 1) <= 5 * epochs:
        return 0
    return 1 if 4 * (epoch + 1) <= 3 * epochs else 2


def fat(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    tau: int,
    unit: Tensor | None,
    omega: float,
    jitter: Sequence[Tensor],
) -> Tensor:
    """Noisy cross-entropy; a sample stops at its wrong iterate number tau + 1."""

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        point, left = ball.start(take(unit, i)), tau
        for k in range(steps):
            if not is_right(model, point, int(y[i])):
                if left == 0:
                    return point
                left -= 1
            g = gradient(model, point, ce_of(int(y[i])))
            # The noise comes also where there is no gradient to follow.
            moved = point + 4 * eps / steps * ball.direction(g) if g.any() else point
            point = ball.clamp(ball.project(moved + omega * jitter[k][i]))
        return point

    return cross_entropy(model(attack_all(model, x, attack)), y)


def gairat_weights(kappa: Tensor, steps: int, lam: float) -> Tensor:
    """Weights (B,), mean 1, from kappa (B,), the numbers of iterates still right."""
    weights = torch.sigmoid(2 * (lam + 5 * (1 - 2 * kappa.double() / steps)))
    return weights * len(weights) / weights.sum()


def gairat_weighted(epoch: int, epochs: int, begin: int | None = None) -> bool:
    """Whether samples have weights: from epoch number 60 of 120 on, counted from 1, or from begin.

    epoch and begin count from 0.
    """
    return 120 * (epoch + 1) >= 60 * epochs if begin is None else epoch >= begin


def gairat(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    norm: float,
    bounds: Bounds,
    lam: float,
    weighted: bool,
    unit: Tensor | None,
) -> Tensor:
    """Noisy cross-entropy, weighted by how soon the attack succeeds."""
    kappa = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def attack(i: int) -> Tensor:
        ball = Ball(x[i].detach(), eps, norm, bounds)
        point, label = ball.start(take(unit, i)), int(y[i])
        for _ in range(steps):
            kappa[i] += is_right(model, point, label)
            point = ball.step(point, gradient(model, point, ce_of(label)), 4 * eps / steps)
        return point

    losses = cross_entropy(model(attack_all(model, x, attack)), y, reduction="none")
    if weighted:
        losses = gairat_weights(kappa, steps, lam).to(losses) * losses
    return losses.mean()


def curriculum(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    strength: int,
    norm: float,
    bounds: Bounds,
    unit: Tensor | None,
) -> Tensor:
    """Cross-entropy of a batch in strength + 1 chunks, chunk j attacked with j steps."""
    size = len(x) // (strength + 1)

    def attack(i: int) -> Tensor:
        chunk = min(i // size, strength) if size else strength
        ball = Ball(x[i].detach(), eps, norm, bounds)
        if chunk == 0:
            return ball.clean
        start = ball.start(take(unit, i))
        return climb(model, ball, start, ce_of(int(y[i])), chunk, 2 * eps / chunk)

    return cross_entropy(model(attack_all(model, x, attack)), y)
