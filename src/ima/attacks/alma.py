"""ALMA: the smallest noise in L2 by an augmented Lagrangian (Rony et al., ICCV 2021, ALMA-L2).

d = 0, mu = rho = 1; c = score / score at x                         # wrong where c < 0
repeat: gradient = that of |d| + P(c, rho, mu) in d                 # P2; without |d| at first
        d = clamp(d - lr * momentum(gradient / root mean square))   # lr falls once wrong
        mu = average of mu and dP/dc; rho = 1.2 * rho where c has not fallen by 5 % in 10 steps
keep the smallest d whose point was wrong

arXiv:2011.11857, Algorithm 1. P2 (Birgin et al., 2005): mu c + mu rho c^2 + rho^2 c^3 / 6 for
c > 0, else mu c / (1 - rho c). The paper's c is a ratio of logits, which only classes have; here
|d| is in units of the radius, so that lengths have no unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model, no_trace
from ima.attacks.walk import ascent, clamp, detached
from ima.norms import L2, per_sample
from ima.tasks import Task, Tree, output_map, tree_map
from ima.tasks.pixels import precise, wide

AVERAGE = 0.5
"""Share of the past in multiplier, mean square and momentum; for some 100 steps."""

FIRST, LAST = 0.3, 0.01
"""The first step, in radii; the last step, as a share of the first."""

CHECKED = 10
"""Steps between looks at whether c falls."""


def alma(
    model: Model,
    x: Tensor,
    y: Tree,
    *,
    steps: int,
    radius: float,
    task: Task,
    bounds: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The nearest wrong points found, (B, *dims); x where none was found.

    x: (B, *dims), of which the model is right; radius: about as large as distances are, above 0.
    """
    with no_trace(model, x) as model:
        y = tree_map(lambda t: t.clone() if t.is_inference() else t, y)
        given, x = x.dtype, wide(x.detach().clone())
        nearest, noise = x.clone(), torch.zeros_like(x)
        smallest = torch.full_like(L2.size(x), torch.inf)
        mu, rho = torch.ones_like(smallest), torch.ones_like(smallest)
        first_wrong = torch.full_like(smallest, steps)
        clean = checked = rate = mu
        square, momentum = torch.ones_like(x), torch.zeros_like(x)
        for step in range(steps):
            seen = as_seen(model, clamp(x + noise, bounds), x)
            leaf = seen.detach().requires_grad_()
            output = model(leaf)
            there = output_map(detached, output)
            wrong, score = ~task.correct(there, y), task.score(there, y).to(precise(x))
            size = L2.size(seen - x)
            closer = wrong & (size < smallest)
            nearest[closer], smallest[closer] = seen[closer], size[closer]
            first_wrong = torch.where(wrong, first_wrong.clamp(max=step), first_wrong)
            if step == 0:
                clean = torch.where(score > 0, score, 1)
            c = score / clean
            if step:
                mu = (AVERAGE * mu + (1 - AVERAGE) * _slope(c, rho, mu)).clamp(1e-6, 1e12)
            if step % CHECKED == CHECKED - 1:
                stuck = (first_wrong == steps) & ~(c < 0.95 * checked)
                rho, checked = torch.where(stuck, 1.2 * rho, rho), c
            gradient, factor = ascent(output, leaf, y, task.score)
            pull = radius * _slope(c, rho, mu) * factor.to(clean.dtype) / clean
            gradient = per_sample(pull, x) * wide(gradient)
            if step:
                gradient = gradient + L2.direction(seen - x)
            else:
                # RMSprop's first mean square is nearly 1.
                length = L2.size(gradient)
                rate = FIRST * radius / torch.where(length > 0, length, 1)
            square = AVERAGE * square + (1 - AVERAGE) * gradient.square()
            momentum = AVERAGE * momentum + gradient / (square.sqrt() + 1e-8)
            share = (step - first_wrong).clamp_min(0) / (steps - first_wrong).clamp_min(1)
            noise = noise - per_sample(rate * LAST**share, x) * momentum
            noise = clamp(x + noise, bounds) - x
    return nearest.to(given)


def _slope(c: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """dP/dc of P2, (B,)."""
    outside = mu + 2 * mu * rho * c + (rho * c).square() / 2
    return torch.where(c >= 0, outside, mu / (1 - rho * c.clamp(max=0)).square())
