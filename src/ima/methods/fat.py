"""FAT, friendly adversarial training: stop the attack soon after the boundary.

Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", ICML 2020.

t = tau for every sample; x~ = uniform in the ball
repeat `steps` times: where x~ is wrong: stop the sample if t = 0, else t -= 1
                      x~ = project(x~ + 4 * eps / steps * direction(gradient) + omega * normal)
loss = mean Loss(f(x~), y)

With tau = 0 a sample stops at its first *wrong* point, as the published code does (Ma & Liang
describe the last right one). Differences from that code: L2 as well as L-infinity; steps of
4 eps / steps; the batch stays in its order; `tau="dynamic"` scales its cuts (50 and 90 of 120
epochs) to the run's length.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import Here
from ima.methods.absent import or_absent
from ima.methods.base import Step
from ima.methods.noisy import Noisy
from ima.norms import Norm, gaussian
from ima.tasks import Task, Tree
from ima.tasks.pixels import wide

CUTS = (50 / 120, 90 / 120)
"""Shares of the run after which the dynamic tau grows from 0 to 1, and to 2."""


class FAT(Noisy):
    """Train on noisy samples just beyond the boundary: the attack stops soon after it succeeds.

    eps: largest noise radius, in x's units and `norm`, above 0.
    tau: steps to go on after a sample is wrong, 0 or more; "dynamic": 0, 1, then 2 over the run.
    omega: standard deviation of random noise in every step, in x's units, 0 or more.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps at most, 1 or more.
    task: what outputs and targets mean; None: `Classification()`.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Zhang et al., ICML 2020, arXiv:2002.11242, Algorithms 1 and 2.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.FAT(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # tau="dynamic" may grow
    """

    def __init__(
        self,
        *,
        eps: float,
        tau: int | Literal["dynamic"] = "dynamic",
        omega: float = 0.001,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        if tau != "dynamic" and (not isinstance(tau, int) or isinstance(tau, bool) or tau < 0):
            raise ValueError(f"tau is {tau!r}; expected a whole number from 0 up, or 'dynamic'")
        if not isinstance(omega, int | float) or not 0 <= omega < float("inf"):
            raise ValueError(f"omega is {omega!r}; expected a finite number from 0 up")
        self.tau, self.omega = tau, omega

    @property
    def scheduled(self) -> bool:
        """True with tau="dynamic": tau grows over the run, so call end_epoch()."""
        return self.tau == "dynamic"

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        task = self.setting.task
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)
        radius = self.full_radius(x)
        tau = dynamic_tau(self.epoch, self.epochs) if isinstance(self.tau, str) else self.tau
        visits = torch.full((len(x),), tau, device=x.device)

        def friendly(here: Here) -> Tensor:
            wrong = ~task.correct(here.output, here.target)
            left = visits[here.index]
            visits[here.index] = left - wrong.long()
            return wrong & (left == 0)

        def jitter(step: int, index: Tensor) -> Tensor:
            # Drawn for the whole batch: a sample's noise must not depend on who has stopped.
            return self.omega * gaussian(wide(x), self.generator)[index]

        start = self.uniform_start(x, radius, box)
        walked = self.walk(
            model,
            x,
            y,
            radius,
            4 * radius / self.steps,
            box,
            start=start,
            stop=friendly,
            jitter=jitter if self.omega else None,
        )
        return self.train_on(model, walked.x, y, right, walked.stuck)


def dynamic_tau(epoch: int, epochs: int) -> int:
    """Tau in epoch number `epoch` (from 0) of `epochs`."""
    return sum(epoch + 1 > cut * epochs for cut in CUTS)
