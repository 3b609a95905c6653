"""Standard training: the mean loss on clean samples.

STD in Ma & Liang, IMA training, Computer Methods and Programs in Biomedicine, 2023.

loss = mean Loss(f(x), y)
"""

from __future__ import annotations

from torch import Tensor, nn

from ima.methods.base import Stateless, Step, count, finite, size
from ima.methods.outputs import Outputs
from ima.tasks import Classification, Task, Tree, plain


class Standard(Stateless):
    """Train on clean samples only.

    task: what the outputs mean, classification if None. Source: Ma & Liang, STD.
    """

    def __init__(self, *, task: Task | None = None) -> None:
        self.task: Task = Classification() if task is None else task
        self.outputs = Outputs(self.task)

    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets; ids are not used.

        Raises ValueError for outputs and targets that do not fit, FloatingPointError for NaN.
        """
        x, y = plain(x), plain(y)
        output = self.outputs(model, x, y)
        self.task.check(output, y)
        loss = finite(self.task.loss(output, y).mean())
        metrics = {
            "samples": size(x),
            "correct": count(self.task.correct(output, y)),
            "loss": loss.detach(),
        }
        return Step(loss, metrics)
