"""ATES: stop the attack when a sample is difficult enough.

Sitawarin, Chakraborty, Wagner, "Improving Adversarial Robustness Through Progressive Hardening",
arXiv:2003.09347v2, 2020.

psi(x) = highest other class probability - true class probability, in [-1, 1]
x~ = uniform in the ball
repeat `steps` times: a sample with psi(x~) > gap stands still; the others take a PGD step
loss = mean CE(f(x~), y);  the gap grows from 0 to 0.4 between 30 % and 70 % of the run

Differences from the author's code: the start is uniform in the ball, and clamped to the bounds;
steps are 4 eps / steps; the schedule (epochs 30 to 70 of 100) scales with the run's length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import Here
from ima.methods.absent import or_absent
from ima.methods.base import Step
from ima.methods.noisy import Noisy, classes_only
from ima.norms import Norm
from ima.tasks import Classification, Task, Tree


class ATES(Noisy):
    """Train on noisy samples whose attack stops once they are difficult enough; the limit grows.

    eps: noise radius, in x's units and `norm`, above 0.
    initial: limit at the start of the run: highest wrong minus true probability, -1 to 1.
    final: limit at the end of the run, -1 to 1.
    begin: share of the run after which the limit starts to grow, 0 to below `end`.
    end: share of the run after which the limit stays, at most 1.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps at most, 1 or more.
    task: `Classification()`, also if None.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, and for another task.
    Source: Sitawarin, Chakraborty, Wagner, arXiv:2003.09347v2, Algorithm 1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.ATES(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> method.end_epoch(0, epochs=10)  # the limit may grow
    """

    def __init__(
        self,
        *,
        eps: float,
        initial: float = 0.0,
        final: float = 0.4,
        begin: float = 0.3,
        end: float = 0.7,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        for name, value in (("initial", initial), ("final", final)):
            if not isinstance(value, int | float) or not -1 <= value <= 1:
                raise ValueError(f"{name} is {value!r}; expected a difference of probabilities")
        shares = isinstance(begin, int | float) and isinstance(end, int | float)
        if not shares or not 0 <= begin < end <= 1:
            raise ValueError(f"begin is {begin!r}, end {end!r}; expected 0 <= begin < end <= 1")
        self.initial, self.final, self.begin, self.end = initial, final, begin, end
        self.task = classes_only(self.setting.task, "ATES")

    @property
    def scheduled(self) -> bool:
        """True: the limit grows with the epoch, so call end_epoch()."""
        return True

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)
        radius = self.full_radius(x)
        limit = gap(self.epoch, self.epochs, self.initial, self.final, self.begin, self.end)

        def difficult(here: Here) -> Tensor:
            return difficulty(self.task, here.output, here.target) > limit

        start = self.uniform_start(x, radius, box)
        stride = 4 * radius / self.steps
        walked = self.walk(model, x, y, radius, stride, box, start=start, stop=difficult)
        return self.train_on(model, walked.x, y, right, walked.stuck)


def difficulty(task: Classification, output: Tree, y: Tensor) -> Tensor:
    """Psi, (B,): the highest other class probability minus the true one."""
    p = task.logits(output).softmax(1)
    true = y.long()[:, None]
    return p.scatter(1, true, -torch.inf).amax(1) - p.gather(1, true)[:, 0]


def gap(epoch: int, epochs: int, initial: float, final: float, begin: float, end: float) -> float:
    """The gap in epoch number `epoch` (from 0) of `epochs`."""
    length = (end - begin) * epochs
    share = min(max(epoch + 1 - begin * epochs, 0.0), length) / length
    return initial + (final - initial) * share
