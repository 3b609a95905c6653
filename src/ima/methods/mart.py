"""MART: more weight for samples that are misclassified already.

Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR
2020.

p, q = softmax f(x), softmax f(x~), x~ by PGD on cross-entropy from x + 0.001 * normal
boosted = -log q_y - log(1 - max q_k over k != y)
loss = mean boosted + lam * mean KL(p || q) * (1 - p_y)

Differences from the published code: L2 as well as L-infinity; steps of 4 eps / steps; logarithms
of sums of exponentials in place of its constants (1.0001, 1e-12), which keeps all gradients finite
also at probabilities of exactly 0 and 1 and changes the loss by about 1e-4 of itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.methods.absent import or_absent
from ima.methods.base import Step, positive
from ima.methods.noisy import Noisy, classes_only, step_of
from ima.norms import Norm
from ima.tasks import Task, Tree
from ima.tasks.divergence import kl


class MART(Noisy):
    """Train on noisy samples; those with an unsure clean prediction get more weight.

    eps: noise radius, in x's units and `norm`, above 0.
    lam: weight of the second term (lambda in the paper), above 0.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps, 1 or more.
    task: `Classification()`, also if None.
    seed: seed of the noise.

    Raises ValueError for values outside these ranges, and for another task.
    Source: Wang et al., ICLR 2020, the MART objective and Algorithm 1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.MART(eps=0.1, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    """

    def __init__(
        self,
        *,
        eps: float,
        lam: float = 5.0,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        positive(lam=lam)
        self.lam = lam
        self.task = classes_only(self.setting.task, "MART")

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. ids are not used."""
        task = self.task
        x, y, box = self.prepare(x, y, ids)
        radius = self.full_radius(x)
        right = self.right(model, x, y)
        start = self.gaussian_start(x, box)
        walked = self.walk(model, x, y, radius, 4 * radius / self.steps, box, start=start)
        output, noisy = (self.outputs(model, at, y) for at in (x, walked.x))
        loss = mart_loss(task.logits(output), task.logits(noisy), y, self.lam)
        return step_of(
            loss,
            right,
            task.correct(noisy, y),
            walked.stuck,
            everywhere=self._everywhere(model),
        )


def mart_loss(clean: Tensor, noisy: Tensor, y: Tensor, lam: float) -> Tensor:
    """MART's loss of clean and noisy logits, (B, classes) each, a scalar."""
    p, q = clean.log_softmax(1), noisy.log_softmax(1)
    true = y.long()[:, None]
    # Above -inf, so that the rival is another class also where all others have probability 0.
    others = q.detach().clamp_min(torch.finfo(q.dtype).min)
    rival = others.scatter(1, true, -torch.inf).argmax(1, keepdim=True)
    # log(1 - q_k) as a logarithm of the others' sum: exact also where q_k rounds to 1.
    without_rival = q.scatter(1, rival, -torch.inf).logsumexp(1)
    boosted = -q.gather(1, true)[:, 0] - without_rival
    unsure = -torch.expm1(p.gather(1, true)[:, 0])
    return boosted.mean() + lam * (kl(p, q) * unsure).mean()
