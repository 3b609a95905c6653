"""IMA: increasing-margin adversarial training (Ma & Liang, Algorithm 1).

z = f(x), L0 = Loss(z, y)                           # training mode
where z is right: x~, crossed = BPGD(x, y, E(i)), L1 = Loss(f(x~), y);  elsewhere L1 = L0
loss = mean of (L0 + L1) / 2
where z is right: E(i) += delta if not crossed, else E(i) = (|x~ - x| + E(i)) / 2
E is clipped to [0, eps]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ima.attacks.bpgd import bpgd
from ima.attacks.inputs import Bounds, check_samples, check_steps
from ima.margins import Margins
from ima.methods.base import Setting, Step, count, finite, one_of, positive, size
from ima.norms import Norm
from ima.tasks import Task, Tree, plain, take


class IMA:
    """Train on clean samples and on samples at their own margin, which grows while it may.

    num_samples: of the training set; ids are 0..num_samples-1. eps: largest margin (the paper's
    epsilon_train) and delta: growth a visit, both in x's units and `norm`, above 0. bounds: of
    x's entries. steps: of the walk, at least 1. augmented: whether a sample's image changes from
    visit to visit; walks by Algorithm 3 instead of 2. task: classification if None.

    side, misclassified, noisy_loss, random_start: where the paper and its released code differ
    (defaults: the paper, made precise). side: keep the noisy sample on the correct side, or at
    the bracket's middle. misclassified: a margin stays, or is halved, when its sample is wrong.
    noisy_loss: of all correct samples, or of those that crossed only (then a misclassified
    sample's clean loss counts half). random_start: radius of a random start as a share of the
    margin; seed: of its noise.

    Raises ValueError for values outside these ranges. Source: Ma & Liang, Algorithms 1 to 3.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        eps: float,
        delta: float,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int = 20,
        augmented: bool = False,
        task: Task | None = None,
        side: Literal["inside", "middle"] = "inside",
        misclassified: Literal["keep", "halve"] = "keep",
        noisy_loss: Literal["all", "crossed"] = "all",
        random_start: float = 0.0,
        seed: int = 0,
    ) -> None:
        positive(eps=eps, delta=delta)
        check_steps(steps)
        one_of("side", side, ("inside", "middle"))
        one_of("misclassified", misclassified, ("keep", "halve"))
        one_of("noisy_loss", noisy_loss, ("all", "crossed"))
        if not isinstance(random_start, int | float) or not 0 <= random_start <= 1:
            raise ValueError(f"random_start is {random_start!r}; expected a share, 0 to 1")
        if delta > eps:
            raise ValueError(f"delta is {delta}, above eps, {eps}; expected at most eps")
        self.margins = Margins(num_samples, initial=delta, cap=eps)
        self.delta, self.steps, self.seed = delta, steps, seed
        self.algorithm: Literal[2, 3] = 3 if augmented else 2
        self.side: Literal["inside", "middle"] = side
        self.misclassified, self.noisy_loss = misclassified, noisy_loss
        self.random_start = random_start
        self.setting = Setting.of(norm, bounds, task)
        self.generator = Generator().manual_seed(_noise_seed(seed, 0))

    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets, ids: (B,) integers.

        Updates the margins. Every process of a distributed run must call it equally often.
        Raises ValueError or TypeError for ids, labels and inputs out of range, and for outputs of
        a wrong shape; FloatingPointError for NaN. Nothing is updated then.
        """
        task, norm = self.setting.task, self.setting.norm
        if not isinstance(ids, Tensor):
            raise TypeError(f"ids are {type(ids).__name__}; expected a tensor of integers")
        if len(ids) != len(x):
            raise ValueError(f"{len(ids)} ids came with {len(x)} samples; expected one for each")
        x, y = plain(x), plain(y)
        check_samples(x, self.setting.bounds)
        margins = self.margins[ids.to(x.device)]

        output = model(x)
        task.check(output, y)
        clean = task.loss(output, y)
        right = task.correct(output, y)

        noisy, attacked = x.detach().clone(), torch.zeros_like(right)
        crossed, stuck = torch.zeros_like(right), torch.zeros_like(right)
        (index,) = right.nonzero(as_tuple=True)
        if len(index):
            result = bpgd(
                model,
                x[index],
                take(y, index),
                margins[index],
                norm=norm,
                task=task,
                bounds=self.setting.bounds,
                steps=self.steps,
                algorithm=self.algorithm,
                side=self.side,
                random_start=self.random_start,
                generator=self.generator,
            )
            noisy[index], attacked[index] = result.x, result.correct
            crossed[index], stuck[index] = result.crossed, result.stuck

        # One pass over the whole batch: batch statistics need company, and processes must agree
        # on the number of passes.
        noisy_output = model(noisy)
        at_noise = task.loss(noisy_output, y)
        if self.noisy_loss == "all":
            second = torch.where(attacked, at_noise, clean)
        else:
            second = torch.where(crossed, at_noise, torch.zeros_like(at_noise))
        loss = finite(((clean + second) / 2).mean())
        finite(at_noise.sum())

        reached = (norm.size(noisy - x).to(margins.dtype) + margins) / 2
        missed = margins / 2 if self.misclassified == "halve" else margins
        moved = torch.where(crossed, reached, margins + self.delta)
        self.margins.update(ids.to(x.device), torch.where(attacked, moved, missed))

        metrics = {
            "samples": size(x),
            "correct": count(right),
            "loss": loss.detach(),
            "noisy_samples": count(attacked),
            "noisy_correct": count(task.correct(noisy_output, y) & attacked),
            "crossed": count(crossed),
            "stuck": count(stuck),
            "margin": margins.mean(),
        }
        return Step(loss, metrics)

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Seed the random start's noise for the next epoch, so that a resumed run repeats it."""
        self.generator.manual_seed(_noise_seed(self.seed, epoch + 1))

    def state_dict(self) -> dict[str, Any]:
        """The margins and the state of the noise."""
        return {"margins": self.margins.state_dict(), "noise": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved margins; ValueError when they belong to another training set."""
        self.margins.load_state_dict(state["margins"])
        self.generator.set_state(state["noise"].cpu())


def _noise_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63
