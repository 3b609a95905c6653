"""Standard training: the mean loss on clean samples.

STD in Ma & Liang, IMA training, Computer Methods and Programs in Biomedicine, 2023.

loss = mean Loss(f(x), y)
"""

from __future__ import annotations

from torch import Tensor, nn

from ima.attacks.inputs import Bounds, communicates
from ima.methods.absent import or_absent
from ima.methods.base import Stateless, Step, arrived, batch_size, count, finite
from ima.methods.outputs import Outputs
from ima.tasks import Task, Tree, check_task


class Standard(Stateless):
    """Train on clean samples only.

    task: what outputs and targets mean; None: `Classification()`.

    Raises TypeError for a task that is none.
    Source: Ma & Liang, IMA training, 2023, the method STD.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> step = ima.Standard()(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> int(step.metrics["samples"])
    8
    """

    def __init__(self, *, task: Task | None = None) -> None:
        self.task: Task = check_task(task)
        self.outputs = Outputs(self.task, attacks=False)
        self.bounds: Bounds = None

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        x, y = arrived(x, y, ids)
        output = self.outputs(model, x, y)
        loss = finite(self.task.loss(output, y).mean(), everywhere=communicates(model))
        metrics = {
            "samples": batch_size(x),
            "correct": count(self.task.correct(output, y)),
            "loss": loss.detach(),
        }
        return Step(loss, metrics)
