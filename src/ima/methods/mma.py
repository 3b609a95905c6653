"""MMA: max-margin adversarial training.

Ding, Sharma, Lui, Huang, "MMA Training: Direct Input Space Margin Maximization through Adversarial
Training", ICLR 2020.

correct = SLM(f(x), y) < 0                     # SLM: logsumexp of the other logits - true logit
u = (PGD on SLM within E(i) - x) / E(i)
e = bisection of SLM(f(x + e * u)) = 0 on [0, 1.05 eps]
L = (sum over correct with e < eps of CE(f(x + e * u), y) + sum over wrong of CE(f(x), y)) / N
loss = 2/3 * L + 1/3 * mean CE(f(x), y)
E(i) = e where correct, 0 elsewhere            # the search begins within max(E(i), eps_min)

SLM < 0 means a probability above 1/2, so this boundary lies inside the decision boundary.
Differences from the published code: the bisection runs in evaluation mode too; x + e * u is clamped
to the bounds, as its probes are; PGD starts uniform in the ball, and the ball comes before the box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model, no_trace
from ima.attacks.walk import clamp, forward
from ima.margins import Margins
from ima.methods.absent import or_absent
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, count, finite, positive
from ima.methods.noisy import Box, classes_only, step_of
from ima.norms import Norm, per_sample
from ima.tasks import Classification, Task, Tree
from ima.tasks.pixels import precise, wide

_ROUNDS = 10
REACH = 1.05
"""The bisection reaches this far beyond eps: a sample that never crosses ends above eps."""


class MMA(Adaptive):
    """Train right samples at their estimated margin, up to eps, and wrong samples without noise.

    num_samples: size of the training set, 1 or more; ids are 0 to num_samples - 1.
    eps: largest margin that is trained (d_max in the paper), in x's units and `norm`, above 0.
    eps_min: smallest search radius, in x's units and `norm`, above 0, at most eps; None: eps / 6.
    random_start: True: the search for a direction starts at a random point of the ball.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: steps of the search for a direction, 1 or more.
    task: `Classification()`, also if None.
    seed: seed of the noise.

    Margins count in multiples of a direction that may be shorter than 1, so they may be too large.
    Raises ValueError for values outside these ranges, and for another task.
    Source: Ding et al., arXiv:1812.02637, Algorithms 1 and 2; eps / 6 is its ratio 0.5 to 3.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.MMA(num_samples=8, eps=0.3, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    """

    def __init__(
        self,
        *,
        num_samples: int,
        eps: float,
        eps_min: float | None = None,
        random_start: bool = True,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        self.eps_min = eps / 6 if eps_min is None else eps_min
        positive(eps_min=self.eps_min)
        if self.eps_min > eps:
            raise ValueError(f"eps_min is {eps_min}, above eps, {eps}; expected at most eps")
        self.random_start = random_start
        self.task = classes_only(self.setting.task, "MMA")
        self.margins = Margins(num_samples, initial=self.eps_min, cap=REACH * eps)

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. Updates the margins."""
        task = self.task
        x, y, box = self.prepare(x, y, ids)
        stored = self.margins.of(ids, x)
        output = self.outputs(model, x, y)
        clean = task.loss(output, y)
        sure = task.soft_margin(output, y) > 0

        noisy, found = x.detach().clone(), torch.zeros_like(stored)
        stuck = torch.zeros_like(sure)
        radius = stored.clamp_min(self.eps_min).to(precise(x))
        # Drawn for the whole batch: a sample's noise must not depend on which others are right.
        start = self.uniform_start(x, radius, box) if self.random_start else x
        (index,) = sure.nonzero(as_tuple=True)
        # Also where there is none to attack: other processes may wait for this one's passes.
        with self.outputs.reach.seen(model), no_trace(model, x):
            if len(index):
                at = self._search(model, x[index], y[index], radius[index], start[index], box)
                noisy[index], found[index], stuck[index] = at
        at_noise = self.outputs(model, noisy)
        losses = task.loss(at_noise, y)
        # Of samples that do not count too.
        finite(losses.sum(), everywhere=self._everywhere(model))
        hard = torch.where(~sure | (found < self.eps), losses, 0).mean()
        step = step_of(
            2 / 3 * hard + 1 / 3 * clean.mean(),
            task.correct(output, y),
            sure & task.correct(at_noise, y),
            stuck,
            everywhere=self._everywhere(model),
            noisy_samples=count(sure),
            crossed=count(sure & (found < self.eps)),
            margin=stored.mean(),
        )
        self.update(self.margins, ids, found)
        return step

    def _search(
        self, model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, start: Tensor, box: Box
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The points at the estimated boundary, their margins, and where a walk was stuck."""
        task = self.task
        walked = self.walk(
            model,
            x,
            y,
            radius,
            2.5 * radius / self.steps,
            box,
            start=start,
            objective=self.outputs.fitting(
                lambda output, target: -task.soft_margin(output, target)
            ),
        )
        given, first, x = x.dtype, wide(walked.x), wide(x)
        along = (first - x) / per_sample(radius, x)
        with no_trace(model, x.to(given)) as inner:
            margins = bisect(inner, task, x, y, along, first, radius, REACH * self.eps, box)
            found = as_seen(inner, clamp(x + per_sample(margins, x) * along, box), x)
        return found.to(given), margins.float(), walked.stuck


def bisect(
    model: Model,
    task: Classification,
    x: Tensor,
    y: Tensor,
    along: Tensor,
    first: Tensor,
    radius: Tensor,
    reach: float,
    box: Box,
) -> Tensor:
    """Where SLM turns positive on x + e * along, e in [0, reach]: the last midpoint of ten, (B,).

    first: (B, *dims), the point that is probed first, which stands for e = radius (B,).
    """
    low, high, e = torch.zeros_like(radius), torch.full_like(radius, reach), radius
    probe = first
    for _ in range(_ROUNDS):
        inside = task.soft_margin(forward(model, probe), y) > 0
        low = torch.where(inside, torch.maximum(low, e), low)
        high = torch.where(inside, high, torch.minimum(high, e))
        e = (low + high) / 2
        probe = as_seen(model, clamp(x + per_sample(e, x) * along, box), x)
    return e
