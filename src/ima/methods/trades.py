"""TRADES: clean loss, and how far noise moves the prediction.

Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.

x~ = x + 0.001 * normal
repeat: x~ = project(x~ + 2 * eps / steps * direction(gradient of KL(p(x) || p(x~))))
loss = mean CE(f(x), y) + beta * mean KL(p(x) || p(x~))

The attack never sees the label, beyond which pixels of a segmentation to ignore. Differences from
the published code: the step 2 eps / steps of its L2 branch serves both norms; the ball comes before
the box in L2 too; a sample whose gradient is zero stays where it is, where that branch takes a
random step; two training passes, not three.
"""

from __future__ import annotations

from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import eval_forward
from ima.methods.absent import or_absent
from ima.methods.base import Step, positive
from ima.methods.noisy import Noisy, step_of
from ima.norms import Norm
from ima.tasks import Compares, Task, Tree


class TRADES(Noisy):
    """Train on clean samples, and keep the prediction under noise close to the clean prediction.

    eps: noise radius, in x's units and `norm`, above 0.
    beta: weight of the divergence (1 / lambda in the paper), above 0.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps, 1 or more.
    task: what outputs and targets mean, with a `divergence`; None: `Classification()`.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, and for a task without `divergence`.
    Source: Zhang et al., arXiv:1901.08573, Algorithm 1, with the KL divergence.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.TRADES(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    """

    def __init__(
        self,
        *,
        eps: float,
        beta: float = 6.0,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        positive(beta=beta)
        self.beta = beta
        if not isinstance(self.setting.task, Compares):
            raise ValueError(
                f"TRADES compares two outputs, but the task {type(self.setting.task).__name__} "
                "has no `divergence(clean, noisy, target) -> (B,)`; give it one, or use another "
                "method"
            )
        self.divergence = self.setting.task.divergence

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        task = self.setting.task
        x, y, box = self.prepare(x, y, ids)
        radius = self.full_radius(x)
        fixed = eval_forward(model, x)
        task.check(fixed, y)
        walked = self.walk(
            model,
            x,
            [fixed, y],
            radius,
            2 * radius / self.steps,
            box,
            start=self.gaussian_start(x, box),
            objective=lambda noisy, known: self.divergence(known[0], noisy, known[1]),
        )
        output, noisy = (self.outputs(model, at, y) for at in (x, walked.x))
        clean = task.loss(output, y).mean()
        loss = clean + self.beta * self.divergence(output, noisy, y).mean()
        return step_of(
            loss,
            task.correct(output, y),
            task.correct(noisy, y),
            walked.stuck,
            everywhere=self._everywhere(model),
        )
