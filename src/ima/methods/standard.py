"""Standard training: the mean loss on clean samples.

STD in Ma & Liang, IMA training, Computer Methods and Programs in Biomedicine, 2023.

loss = mean Loss(f(x), y)
"""

from __future__ import annotations

from torch import Tensor, nn

from ima.attacks.inputs import Bounds, communicates
from ima.methods.absent import or_absent
from ima.methods.base import Stateless, Step, arrived, count, finite, size
from ima.methods.outputs import Outputs
from ima.tasks import Task, Tree, check_task


class Standard(Stateless):
    """Train on clean samples only.

    task: what the outputs mean, classification if None. Source: Ma & Liang, STD.
    """

    def __init__(self, *, task: Task | None = None) -> None:
        self.task: Task = check_task(task)
        self.outputs = Outputs(self.task, attacks=False)
        self.bounds: Bounds = None

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets; ids are not used.

        Raises ValueError for outputs and targets that do not fit, FloatingPointError for NaN.
        """
        x, y = arrived(x, y)
        output = self.outputs(model, x, y)
        loss = finite(self.task.loss(output, y).mean(), everywhere=communicates(model))
        metrics = {
            "samples": size(x),
            "correct": count(self.task.correct(output, y)),
            "loss": loss.detach(),
        }
        return Step(loss, metrics)
