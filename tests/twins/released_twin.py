"""Slow, plain reference of one training step of IMA as its authors' released code does it.

Variant "released", for softmax classification with cross-entropy, one sample at a time:
Algorithm 1 with Algorithm 3, a random start, a walk that climbs the margin of the logits, the
middle of the final bracket, a noisy loss of the crossed samples only, margins that change at
the end of the epoch. It shares no code with the library, nor with the other twins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Bounds = tuple[float, float] | None


def _length(v: Tensor, norm: float) -> float:
    return float(torch.linalg.vector_norm(v, norm))


def _clamp(x: Tensor, bounds: Bounds) -> Tensor:
    return x if bounds is None else x.clamp(bounds[0], bounds[1])


def _is_right(model: nn.Module, x: Tensor, y: int) -> bool:
    with torch.no_grad():
        return int(model(x[None])[0].argmax()) == y


def _gradient(model: nn.Module, x: Tensor, y: int) -> Tensor:
    """Gradient, for one sample, of the logsumexp of the other logits minus the true logit."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = model(x[None])[0]
        others = torch.cat((logits[:y], logits[y + 1 :]))
        climbed = torch.logsumexp(others, 0) - logits[y]
        return torch.autograd.grad(climbed, x)[0]


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
    """One step from x: move, project onto the ball around the clean sample, clamp."""
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
    return _clamp(clean + offset, bounds)


def _middle_of_bracket(model: nn.Module, right: Tensor, wrong: Tensor, y: int) -> Tensor:
    """Ten halvings between a right and a wrong point, then the middle of what is left."""
    for _ in range(10):
        middle = (right + wrong) / 2
        if _is_right(model, middle, y):
            right = middle
        else:
            wrong = middle
    return (right + wrong) / 2


def _attack(
    model: nn.Module,
    clean: Tensor,
    y: int,
    start: Tensor,
    radius: float,
    norm: float,
    bounds: Bounds,
    steps: int,
) -> tuple[Tensor, str]:
    """Algorithm 3 from start: the point found for one right sample, and what happened to it."""
    point = start
    was_wrong = False
    for _ in range(steps):
        if not _is_right(model, point, y):
            was_wrong = True
        point = _step(model, point, y, clean, radius, 4 * radius / steps, norm, bounds)
    if not _is_right(model, point, y):
        return _middle_of_bracket(model, clean, point, y), "crossed"
    if was_wrong:
        return point, "back"
    return point, "inside"


def released_step_twin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    margins: Tensor,
    *,
    eps: float,
    delta: float,
    norm: float,
    unit: Tensor,
    bounds: Bounds = None,
    steps: int = 20,
) -> tuple[Tensor, Tensor, list[str]]:
    """One step: its loss, the margins after the epoch, and what happened to every sample.

    The loss has its graph. margins[i] belongs to sample i alone, which comes once in the epoch,
    and the margins returned are those that hold after the end of the epoch. unit[i] is a point
    of the unit ball of the norm, for the start at x[i] + margins[i] * unit[i]; the rows of
    samples that are not attacked are not read. What happened is one of

    - "wrong": misclassified, not attacked;
    - "inside": right all the way, not crossed;
    - "crossed": wrong at the end of the walk;
    - "back": wrong on the way (the start included) and right at the end, which counts as crossed.

    The model is in training mode when called, and stays in it for the attack too: it must have
    no BatchNorm, no dropout and nothing else by which the two modes differ, or by which the
    samples of a batch depend on each other, so that the mode of the attack does not matter.
    """
    assert norm in (2, math.inf)
    logits = model(x)
    clean_losses = cross_entropy(logits, y, reduction="none")

    noisy = x.detach().clone()
    happened: list[str] = []
    for i in range(len(x)):
        clean, label, margin = x[i].detach(), int(y[i]), float(margins[i])
        what = "wrong"
        if int(logits[i].argmax()) == label:
            start = _clamp(clean + margin * unit[i], bounds)
            noisy[i], what = _attack(model, clean, label, start, margin, norm, bounds, steps)
        happened.append(what)

    noisy_losses = cross_entropy(model(noisy), y, reduction="none")
    total = clean_losses.new_zeros(())
    new_margins = margins.detach().clone()
    for i, what in enumerate(happened):
        margin = float(margins[i])
        if what in ("crossed", "back"):
            total = total + (clean_losses[i] + noisy_losses[i]) / 2
            margin = (_length(noisy[i] - x[i].detach(), norm) + margin) / 2
        else:
            total = total + clean_losses[i] / 2
            if what == "inside":
                margin = margin + delta
        new_margins[i] = min(max(margin, 0.0), eps)
    return total / len(x), new_margins, happened
