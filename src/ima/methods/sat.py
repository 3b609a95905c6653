"""SAT: standard adversarial training, as Ma & Liang compare with it.

Ma & Liang, IMA training, Computer Methods and Programs in Biomedicine, 2023, Eqs. 4 and 5; after
Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    x~ = PGD(x, y, eps), the same eps for every sample, also for misclassified ones
    loss = (mean Loss(f(x), y) + mean Loss(f(x~), y)) / 2

The paper says neither how long a step of its SAT is nor where it starts: here 4 * eps / steps, from
the clean sample, as in IMA's walk. The attack runs in evaluation mode. (Madry's adversarial
training has no clean term.)
"""

from __future__ import annotations

from torch import Tensor, nn

from ima.attacks.inputs import Bounds, check_radius, check_samples, check_steps, communicates
from ima.attacks.walk import walk
from ima.methods.absent import or_absent
from ima.methods.base import NoiseSetting, Stateless, Step, arrived, positive
from ima.methods.noisy import step_of
from ima.methods.outputs import Outputs
from ima.norms import Norm
from ima.tasks import Task, Tree, objective_of


class SAT(Stateless):
    """Train on clean samples, and on samples with noise of one fixed radius.

    eps: noise radius, in x's units and `norm`, above 0.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: PGD steps, 1 or more, each of length 4 * eps / steps.
    task: what outputs and targets mean; None: `Classification()`.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Ma & Liang, IMA training, 2023, Eqs. 4 and 5.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.SAT(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> int(step.metrics["noisy_samples"])
    8
    """

    def __init__(
        self,
        *,
        eps: float,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
    ) -> None:
        positive(eps=eps)
        check_steps(steps)
        self.eps, self.steps = eps, steps
        self.setting = NoiseSetting.of(norm, bounds, task)
        self.outputs = Outputs(self.setting.task)

    @property
    def bounds(self) -> Bounds:
        """(low, high) of x's entries, or None."""
        return self.setting.bounds

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Warn where no gradient reached x; this method does not depend on the epoch."""
        self.outputs.reach.end_epoch()

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        setting = self.setting
        x, y = arrived(x, y, ids)
        box, radius = check_samples(x, setting.bounds), check_radius(self.eps, x)
        output = self.outputs(model, x, y)
        with self.outputs.reach.seen(model):
            walked = walk(
                model,
                x,
                y,
                radius,
                steps=self.steps,
                step_size=4 * radius / self.steps,
                norm=setting.norm,
                task=setting.task,
                bounds=box,
                objective=self.outputs.fitting(objective_of(setting.task)),
            )
        noisy_output = self.outputs(model, walked.x, y)
        clean, noisy = setting.task.loss(output, y), setting.task.loss(noisy_output, y)
        right, still = setting.task.correct(output, y), setting.task.correct(noisy_output, y)
        loss = (clean.mean() + noisy.mean()) / 2
        return step_of(loss, right, still, walked.stuck, everywhere=communicates(model))
