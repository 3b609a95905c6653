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
from ima.methods.base import Setting, Stateless, Step, arrived, positive
from ima.methods.noisy import report
from ima.methods.outputs import Outputs
from ima.norms import Norm
from ima.tasks import Task, Tree


class SAT(Stateless):
    """Train on clean samples and on samples with noise of one fixed radius.

    eps: the radius, in x's units and `norm`, above 0; steps: of PGD, at least 1; bounds: of x's
    entries; task: what the outputs mean, classification if None.
    Raises ValueError for values outside these ranges. Source: Ma & Liang, Eqs. 4 and 5.
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
        self.setting = Setting.of(norm, bounds, task)
        self.outputs = Outputs(self.setting.task)

    @property
    def bounds(self) -> Bounds:
        """Of x's entries."""
        return self.setting.bounds

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets; ids are not used.

        Raises ValueError for inputs outside bounds, and for outputs and targets that do not fit;
        FloatingPointError for NaN.
        """
        setting = self.setting
        x, y = arrived(x, y)
        box, radius = check_samples(x, setting.bounds), check_radius(self.eps, x)
        output = self.outputs(model, x, y)
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
        )
        noisy_output = self.outputs(model, walked.x, y)
        clean, noisy = setting.task.loss(output, y), setting.task.loss(noisy_output, y)
        right, still = setting.task.correct(output, y), setting.task.correct(noisy_output, y)
        loss = (clean.mean() + noisy.mean()) / 2
        return report(loss, right, still, walked.stuck, everywhere=communicates(model))
