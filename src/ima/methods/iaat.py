"""IAAT: one radius a sample that grows while the attack fails.

Balaji, Goldstein, Hoffman, "Instance adaptive adversarial training: Improved accuracy tradeoffs in
neural nets", arXiv:1910.08051, 2019.

c = x is right;  prev = E(i);  a, b = right after PGD within prev, within prev + gamma
s = c * max(0, prev + gamma if b, else prev if a, else prev - gamma)
E(i) = beta * s + (1 - beta) * prev            # first epochs: E(i) = initial * c
x~ = PGD within E(i);  loss = mean Loss(f(x~), y)

Each PGD: random start, steps of max(2 * radius / steps, 2/8 * initial). Differences from the
published code: L2 as well as L-infinity, with its ratios (initial 8, gamma 1.9, least step 2); all
attacks in evaluation mode; its first 10 of 110 epochs scale with the run's length; E(i) is at most
eps, as Ma & Liang set one eps for all methods.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds, no_trace
from ima.attacks.walk import Walked
from ima.margins import Margins
from ima.methods.absent import or_absent
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, positive
from ima.methods.noisy import Box
from ima.norms import Norm
from ima.tasks import Task, Tree, take

GAMMA, LEAST = 1.9 / 8, 2 / 8
"""The published code's growth and least step, as shares of its initial radius."""

WARM_UP = 10 / 110
"""The share of the run in which all radii are the initial one."""


class IAAT(Adaptive):
    """Train on noisy samples, each with its own radius, which grows while attacks fail.

    num_samples: size of the training set, 1 or more; ids are 0 to num_samples - 1.
    eps: largest radius, in x's units and `norm`, above 0.
    initial: radius in the first 10 / 110 of the run, above 0, at most eps; None: eps / 4.
    gamma: how far beyond its radius a sample is tried, above 0; None: 1.9 / 8 * initial.
    beta: weight of the new radius in the running mean, above 0, at most 1.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps, 1 or more.
    task: what outputs and targets mean; None: `Classification()`.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Balaji, Goldstein, Hoffman, arXiv:1910.08051, Algorithms 1 and 2.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.IAAT(num_samples=8, eps=0.3, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # after the first epochs radii grow
    """

    def __init__(
        self,
        *,
        num_samples: int,
        eps: float,
        initial: float | None = None,
        gamma: float | None = None,
        beta: float = 0.1,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        self.initial = eps / 4 if initial is None else initial
        self.gamma = GAMMA * self.initial if gamma is None else gamma
        positive(initial=self.initial, gamma=self.gamma, beta=beta)
        if self.initial > eps or beta > 1:
            raise ValueError(
                f"initial is {self.initial} and beta {beta}; expected initial of at most eps, "
                f"{eps}, and beta of at most 1"
            )
        self.beta = beta
        self.margins = Margins(num_samples, initial=0.0, cap=eps)

    @property
    def scheduled(self) -> bool:
        """True: the first epochs use one shared radius, so call end_epoch()."""
        return True

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. Updates the margins."""
        x, y, box = self.prepare(x, y, ids)
        previous = self._radii(ids, x)
        right = self.right(model, x, y)
        if self._warm():
            radius = self.initial * right.to(previous.dtype)
        else:
            more = previous + self.gamma
            # Drawn for the whole batch: a sample's noise must not depend on which others need it.
            near, far = self.uniform_start(x, previous, box), self.uniform_start(x, more, box)
            held_more = self.right(model, self._attack(model, x, y, more, far, box).x, y)
            held = held_more.clone()
            # Where the larger radius held, the smaller one decides nothing.
            (left,) = (~held_more).nonzero(as_tuple=True)
            # Also where there is none: other processes may wait for this one's passes.
            with no_trace(model, x):
                if len(left):
                    target = take(y, left)
                    nearer = self._attack(model, x[left], target, previous[left], near[left], box)
                    held[left] = self.right(model, nearer.x, target)
            radius = adapted(previous, right, held, held_more, self.gamma, self.beta)
        radius = radius.clamp(0, self.eps)
        walked = self._attack(model, x, y, radius, self.uniform_start(x, radius, box), box)
        step = self.train_on(model, walked.x, y, right, walked.stuck, margin=previous.mean())
        self.update(self.margins, ids, radius)
        return step

    def _warm(self) -> bool:
        return self.epoch < max(1, round(WARM_UP * self.epochs))

    def _attack(
        self, model: nn.Module, x: Tensor, y: Tree, radius: Tensor, start: Tensor, box: Box
    ) -> Walked:
        stride = (2 * radius / self.steps).clamp_min(LEAST * self.initial)
        return self.walk(model, x, y, radius, stride, box, start=start)


def adapted(
    previous: Tensor, right: Tensor, held: Tensor, held_more: Tensor, gamma: float, beta: float
) -> Tensor:
    """The next radius of every sample, (B,).

    right, held, held_more: (B,) bool, the model is right without noise, under the attack within
    the previous radius, and within gamma more.
    """
    wanted = torch.where(held, previous, previous - gamma)
    wanted = torch.where(held_more, previous + gamma, wanted)
    wanted = torch.where(right, wanted, 0).clamp_min(0)
    return beta * wanted + (1 - beta) * previous
