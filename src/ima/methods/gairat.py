"""GAIRAT: more weight for samples near the boundary.

Zhang et al., "Geometry-aware Instance-reweighted Adversarial Training", ICLR 2021.

x~ = PGD(x, y, eps) from a random start, all steps
kappa = number of its first `steps` iterates that are still right
w = (1 + tanh(lam + 5 * (1 - 2 * kappa / steps))) / 2, divided by its mean over the batch
loss = mean w * Loss(f(x~), y);  all w = 1 before epoch `begin`

kappa counts iterates, as the published code does; the paper speaks of the least number of steps to
a wrong one, which is the same unless a prediction flips back. Differences from the code: L2 as
well as L-infinity; steps of 4 eps / steps; its first weighted epoch, 60 of 120, scales with the
run's length; the weight as sigmoid(2 a), which does not cancel where kappa = steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import Here
from ima.methods.absent import or_absent
from ima.methods.base import Step
from ima.methods.noisy import Noisy
from ima.norms import Norm
from ima.tasks import Task, Tree


class GAIRAT(Noisy):
    """Train on noisy samples; those that the attack breaks sooner get more weight.

    eps: noise radius, in x's units and `norm`, above 0.
    lam: lambda of the published code, finite: the lower, the more of the weight goes to the samples
        that break soonest; far above 0 all weigh the same.
    begin: first epoch with weights, from 0; None: the middle of the run.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps, 1 or more.
    task: what outputs and targets mean; None: `Classification()`.
    seed: seed of the noise.

    The weights of each process's batch have mean 1.
    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Zhang et al., arXiv:2010.01736, Algorithms 1 and 2, the tanh-type weights.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.GAIRAT(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # weights begin in the middle of the run
    """

    def __init__(
        self,
        *,
        eps: float,
        lam: float = -1.0,
        begin: int | None = None,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        if not isinstance(lam, int | float) or not abs(lam) < float("inf"):
            raise ValueError(f"lam is {lam!r}; expected a finite number")
        if begin is not None and (not isinstance(begin, int) or begin < 0):
            raise ValueError(f"begin is {begin!r}; expected a whole number from 0 up, or None")
        self.lam, self.begin = lam, begin

    @property
    def scheduled(self) -> bool:
        """True: weights begin at an epoch, so call end_epoch()."""
        return True

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        task = self.setting.task
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)
        radius = self.full_radius(x)
        kappa = torch.zeros(len(x), device=x.device)

        def count_right(here: Here) -> Tensor:
            still = task.correct(here.output, here.target)
            kappa[here.index] += still
            return torch.zeros_like(still)

        start = self.uniform_start(x, radius, box)
        stride = 4 * radius / self.steps
        walked = self.walk(model, x, y, radius, stride, box, start=start, stop=count_right)
        weights = gairat_weights(kappa, self.steps, self.lam) if self._weighted() else None
        return self.train_on(model, walked.x, y, right, walked.stuck, weights=weights)

    def _weighted(self) -> bool:
        if self.begin is not None:
            return self.epoch >= self.begin
        # The published code's epoch 60 of 120, counted from 1.
        return self.epoch + 1 >= self.epochs / 2


def gairat_weights(kappa: Tensor, steps: int, lam: float) -> Tensor:
    """Weights of mean 1 for samples that were right at `kappa` (B,) of `steps` iterates, (B,)."""
    inner = lam + 5 * (1 - 2 * kappa / steps)
    # (1 + tanh a) / 2 = sigmoid(2 a); normalised as logarithms, so that a batch whose weights all
    # underflow still has mean 1.
    return len(kappa) * F.logsigmoid(2 * inner).softmax(0)
