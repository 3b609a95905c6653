"""DAT, dynamic adversarial training: attacks that converge further as training goes on.

Wang et al., "On the Convergence and Robustness of Adversarial Training", ICML 2019.

FOSC(x~) = eps * |g|_q - <x~ - x, g>, g the loss's gradient at x~: 0 at a stationary point
x~ = uniform in the ball
repeat `steps` times: a sample that has moved and has FOSC <= c_t stands still; others take a step
loss = mean Loss(f(x~), y);  c_t falls from c_max to 0 over the first 5/6 of the run

q is the dual norm; steps are 2.5 eps / steps, which is the published code's eps / 4 for ten.
Differences from that code: L2 as well as L-infinity; the offset is measured from the clean sample,
the ball's centre, not from the random start; no weighting of losses by themselves; the threshold's
fall, over 100 of 120 epochs, scales with the run's length. FOSC has the units of the loss: a c_max
for L-infinity says little about L2. A sample whose loss float32 rounds to 0 (a margin above 17) has
converged by that measure, and hardly moves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import Here
from ima.methods.absent import or_absent
from ima.methods.base import Step, positive
from ima.methods.noisy import Noisy
from ima.norms import Norm
from ima.tasks import Task, Tree

SHARE = 100 / 120
"""The share of the run in which the threshold falls to 0."""


class DAT(Noisy):
    """Train on noisy samples whose attack stops once it has converged; the criterion tightens.

    eps: noise radius, in x's units and `norm`, above 0.
    c_max: the first threshold of the criterion (FOSC), in the loss's units, above 0; falls to 0.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps at most, 1 or more.
    task: what outputs and targets mean; None: `Classification()`.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Wang et al., ICML 2019 (arXiv:2112.08304), FOSC and Algorithm 1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.DAT(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # the threshold falls
    """

    def __init__(
        self,
        *,
        eps: float,
        c_max: float = 0.5,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        positive(c_max=c_max)
        self.c_max = c_max

    @property
    def scheduled(self) -> bool:
        """True: the threshold falls from epoch to epoch, so call end_epoch()."""
        return True

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        setting = self.setting
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)
        radius = self.full_radius(x)
        limit = threshold(self.epoch, self.epochs, self.c_max)

        def converged(here: Here) -> Tensor:
            if here.step == 0:
                return torch.zeros_like(here.index, dtype=torch.bool)
            gradient, factor = here.rise
            return factor * fosc(gradient, here.offset, self.eps, setting.norm) <= limit

        walked = self.walk(
            model,
            x,
            y,
            radius,
            2.5 * radius / self.steps,
            box,
            start=self.uniform_start(x, radius, box),
            # The loss itself: the scale of its gradient is what FOSC measures.
            objective=setting.task.loss,
            stop=converged,
        )
        return self.train_on(model, walked.x, y, right, walked.stuck)


def fosc(gradient: Tensor, offset: Tensor, eps: float, norm: Norm) -> Tensor:
    """The first-order stationary condition at x + offset, (B,), for samples (B, *dims)."""
    flat = gradient.reshape(len(gradient), -1)
    longest = torch.linalg.vector_norm(flat, norm.dual, dim=1)
    return eps * longest - (flat * offset.reshape(len(offset), -1)).sum(1)


def threshold(epoch: int, epochs: int, c_max: float) -> float:
    """c_t in epoch number `epoch` (from 0) of `epochs`."""
    return max(c_max - epoch * c_max / (SHARE * epochs), 0.0)
