"""Customized adversarial training: each sample its radius and label.

Cheng, Lei, Chen, Dhillon, Hsieh, "CAT: Customized Adversarial Training for Improved Robustness",
IJCAI 2022. The short name, CAT, is that of `curriculum.py` too.

soft(E) = (1 - c * E) * onehot(y) + c * E * D, D ~ Dirichlet(1, ..., 1)
new = min(E(i) + eta, eps)
x~ = PGD on the soft label's loss within new, from x, K steps of 2.5 * new / K
E(i) = new if x~ is still right
loss = mean of the soft label's loss of f(x~), with the new E(i) and a fresh D

In the first author's code E(i) grows where the attack succeeds; in a re-implementation by others
where it fails, as here. Differences from the latter: L2 as well as L-infinity (eta and c scale with
eps by its ratios, 0.005 and 10 * 8/255 to 8/255); a PGD whose steps build on each other, where its
every step starts at x; steps that scale with the radius, not of 2/255; x~ is judged in evaluation
mode; the margin of `loss="mix"` is of logits, not of probabilities.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import eval_forward
from ima.margins import Margins
from ima.methods.absent import or_absent
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, one_of, positive
from ima.methods.noisy import classes_only
from ima.norms import Norm
from ima.tasks import Task, Tree
from ima.tasks.divergence import log_probabilities

ETA = 0.005 * 255 / 8
"""Growth of a radius at a visit, as a share of eps."""

SOFTEST = 10 * 8 / 255
"""c * eps: the share of the label that is random at the largest radius."""

KAPPA = 10.0
"""How far the margin term pushes logits apart."""

MASKED = 1e3
"""A logit so far below the largest is masked on purpose, by -inf, -1e4 or another such number."""


class CustomizedAT(Adaptive):
    """Train on noisy samples, each with its own radius and a label that is softer at larger radii.

    num_samples: size of the training set, 1 or more; ids are 0 to num_samples - 1.
    eps: largest radius, in x's units and `norm`, above 0.
    eta: how much a radius grows per visit, in x's units and `norm`, above 0; None: 0.16 * eps.
    loss: "ce", cross-entropy; "mix" adds the margin to the next class, down to -10.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: attack steps, 1 or more.
    task: `Classification()`, also if None.
    seed: seed of the noise, and of the soft labels.

    Raises ValueError for values outside these ranges, and for another task.
    Source: Cheng, Lei, Chen, Dhillon, Hsieh, arXiv:2002.06789, Algorithm 1.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.CustomizedAT(num_samples=8, eps=0.3, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    """

    def __init__(
        self,
        *,
        num_samples: int,
        eps: float,
        eta: float | None = None,
        loss: Literal["ce", "mix"] = "ce",
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        self.eta = ETA * eps if eta is None else eta
        positive(eta=self.eta)
        one_of("loss", loss, ("ce", "mix"))
        self.loss = loss
        self.softness = SOFTEST / eps
        self.task = classes_only(self.setting.task, "Customized adversarial training")
        self.margins = Margins(num_samples, initial=0.0, cap=eps)

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. Updates the margins."""
        x, y, box = self.prepare(x, y, ids)
        old = self._radii(ids, x)
        output = eval_forward(model, x)
        self.task.check(output, y)
        tried = (old + self.eta).clamp_max(self.eps)
        walked = self.walk(
            model,
            x,
            [self._soften(output, y, old), y],
            tried,
            2.5 * tried / self.steps,
            box,
            objective=self._losses,
        )
        held = self.task.correct(eval_forward(model, walked.x), y)
        new = torch.where(held, tried, old)
        label = self._soften(output, y, new)
        step = self.train_on(
            model,
            walked.x,
            y,
            self.task.correct(output, y),
            walked.stuck,
            each=lambda noisy: self._losses(noisy, [label, y]),
            margin=old.mean(),
        )
        self.update(self.margins, ids, new)
        return step

    def _soften(self, output: Tree, y: Tensor, radius: Tensor) -> Tensor:
        logits = self.task.logits(output)
        draw = dirichlet(logits, self.generator)
        masked = logits < logits.amax(1, keepdim=True) - MASKED
        if bool(masked.any()):
            # A class that is masked has no share, or the loss would be infinite, or huge.
            draw = torch.where(masked, 0, draw)
            draw = draw / draw.sum(1, keepdim=True)
        return soft_labels(y, draw, self.softness * radius)

    def _losses(self, output: Tree, target: Tree) -> Tensor:
        label, y = target
        logits = self.task.logits(output)
        label = label.to(logits.dtype)
        # Nothing times minus infinity is nothing.
        soft = -torch.where(label == 0, 0, label * log_probabilities(logits)).sum(1)
        if self.loss == "ce":
            return soft
        return soft + (-self.task.score(output, y)).clamp_min(-KAPPA)


def soft_labels(y: Tensor, draw: Tensor, share: Tensor) -> Tensor:
    """The label with `share` (B,) of it given to `draw`, (B, classes)."""
    share = share.to(draw.dtype)[:, None]
    hard = torch.zeros_like(draw).scatter(1, y.long()[:, None], 1.0)
    return (1 - share) * hard + share * draw


def dirichlet(like: Tensor, generator: Generator) -> Tensor:
    """Draws from Dirichlet(1, ..., 1) of the shape (B, classes) of `like`."""
    uniform = torch.rand(like.shape, generator=generator, device=generator.device)
    # Exponential draws divided by their sum; 1 - u is never 0.
    draws = -torch.log1p(-uniform)
    return (draws / draws.sum(1, keepdim=True)).to(like.device, like.dtype)
