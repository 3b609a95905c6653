"""Classification: one label a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ima.tasks.divergence import kl, log_probabilities
from ima.tasks.task import Decision, Task
from ima.tasks.trees import Tree, described
from ima.tasks.usable import usable


@dataclass(frozen=True)
class Classification(Task):
    """One label a sample.

    walk: what attacks raise: "loss" (cross-entropy) or "margin" (logsumexp of the other logits
        minus the true one). Both follow the margin's gradient, which does not vanish.

    Outputs (B, classes) go through softmax; one logit, (B,) or (B, 1), through a sigmoid. Targets
    are integers of shape (B,), in 0..classes-1 (0 or 1 for one logit).
    Raises ValueError for another walk.

    >>> import ima, torch
    >>> task = ima.Classification()
    >>> logits, y = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]]), torch.tensor([0, 1])
    >>> task.correct(logits, y), task.score(logits, y)
    (tensor([ True, False]), tensor([ 1., -2.]))
    """

    walk: Literal["loss", "margin"] = "loss"

    def __post_init__(self) -> None:
        if self.walk not in ("loss", "margin"):
            raise ValueError(f"walk is {self.walk!r}; expected 'loss' or 'margin'")

    def check(self, output: Tree, target: Tree) -> None:
        """Raise ValueError or TypeError if output and target do not fit together."""
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the model returned {described(output)}; classification expects logits as one "
                "tensor of shape (batch, classes): wrap the model so that it returns them"
            )
        if not output.is_floating_point():
            raise TypeError(f"the model returned {output.dtype}; expected floating-point logits")
        if not isinstance(target, Tensor) or _real(target) or target.ndim != 1:
            came = (
                type(target).__name__
                if not isinstance(target, Tensor)
                else f"one {target.dtype} of shape ()"
                if target.ndim == 0
                else f"{target.dtype} of shape {tuple(target.shape[1:])} a sample"
            )
            raise TypeError(
                f"targets are {came}; expected integer class labels of shape (batch,)"
                + _made(output, target)
            )
        if output.ndim not in (1, 2) or len(output) != len(target) or output.numel() == 0:
            raise ValueError(
                f"the model returned shape {tuple(output.shape)} for {len(target)} targets; "
                f"expected ({len(target)}, classes), or ({len(target)}, 1) for one logit"
            )
        classes = self.classes(output, target)
        # Wide first: compared with a number of classes that it cannot hold, int8 wraps around.
        target = target.long()
        wrong = (target < 0) | (target >= classes)
        if bool(wrong.any()):
            where = int(wrong.nonzero()[0])
            from_one = int(target.min()) > 0 and int(target.max()) == classes
            raise ValueError(
                f"label {int(target[where])} (sample {where} of the batch) is out of range; the "
                f"model's output has {classes} classes, so labels must be 0 to {classes - 1}"
                + (": they seem to count from 1, pass y - 1" if from_one else "")
            )

    def loss(self, output: Tree, target: Tree) -> Tensor:
        """Cross-entropy of every sample, (B,), in nats."""
        return F.cross_entropy(self.logits(output), target.long(), reduction="none")

    def objective(self, output: Tree, target: Tree) -> Tensor:
        """What an attack raises, (B,): `loss` or the soft margin, see `walk`.

        Cross-entropy is softplus of the soft margin. In this form its gradient keeps all its
        terms for confident samples; log-softmax loses the true logit's from a margin of 17 on.
        """
        margin = -self.soft_margin(output, target)
        if self.walk == "margin":
            return margin
        # The loss's value with the margin's gradient: a positive multiple that never underflows.
        return margin + (F.softplus(margin) - margin).detach()

    def correct(self, output: Tree, target: Tree) -> Tensor:
        """Whether the largest logit is the true one, (B,) bool; False if not `usable`."""
        return (self.logits(output).argmax(1) == target) & usable(output)

    def usable(self, output: Tree) -> Tensor:
        """Whether an output allows a decision, (B,) bool: no NaN, no +inf, not all of it -inf."""
        return usable(output)

    def score(self, output: Tree, target: Tree) -> Tensor:
        """True logit minus the largest other, (B,); NaN where a logit is."""
        logits = self.logits(output)
        return _true(logits, target) - _without(logits, target).amax(1)

    def predict(self, output: Tree) -> Tensor:
        """The class of the largest logit, (B,) int64."""
        return self.logits(output).argmax(1)

    def decision(self, output: Tree) -> Decision:
        """How it is decided on such outputs."""
        if not isinstance(output, Tensor):
            return ""
        return "one" if output.ndim == 1 or output.shape[1] == 1 else "classes"

    def truths(self, output: Tree, target: Tree) -> Tensor:
        """What the decision of one logit at 0 should be, (B, 1) or (B,) bool."""
        return target.bool().reshape(output.shape)

    def classes(self, output: Tree, target: Tree) -> int:
        """How many classes there are."""
        return 2 if output.ndim == 1 or output.shape[1] == 1 else output.shape[1]

    def logits(self, output: Tree) -> Tensor:
        """The logits, (B, classes); one logit z as the pair (0, z)."""
        # Softmax of the pair is the sigmoid. Half precision is widened, so that decisions are
        # taken in float32.
        output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
        if output.ndim == 1 or output.shape[1] == 1:
            z = output.reshape(-1)
            return torch.stack((torch.zeros_like(z), z), 1)
        return output

    def soft_margin(self, output: Tree, target: Tree) -> Tensor:
        """True logit minus logsumexp of the others, (B,): the log odds of the true class."""
        logits = self.logits(output)
        return _true(logits, target) - _without(logits, target).logsumexp(1)

    def columns(self, output: Tree, target: Tree) -> dict[str, Tree]:
        """Label, prediction, and the probability that the network gives to its prediction."""
        confidence = self.logits(output).softmax(1).amax(1)
        return {**super().columns(output, target), "confidence": confidence}

    def divergence(self, clean: Tree, noisy: Tree, target: Tree = None) -> Tensor:
        """KL(p || q) of the class probabilities of two outputs, (B,), in nats; no target needed."""
        return kl(*(log_probabilities(self.logits(output)) for output in (clean, noisy)))


def _real(target: Tensor) -> bool:
    return target.is_floating_point() or target.is_complex()


def _made(output: Tensor, target: object) -> str:
    """How to make labels of such targets, if that is clear."""
    if not isinstance(target, Tensor) or target.ndim == 0:
        return ""
    if target.numel() == len(output):
        return ": pass y.reshape(-1).long()"
    y = "y" if target.ndim == 2 else "y.flatten(1)"
    rows = target.flatten(1) if target.ndim > 1 else target[:, None]
    # No image of 0 and 1: one dimension besides those of size 1.
    narrow = rows.shape[1] == target.shape[-1]
    if not narrow or not bool(((rows == 0) | (rows == 1)).all()):
        return ""
    findings = "for several findings a sample pass task=MultiLabel(), or --task multilabel"
    findings += "" if target.ndim == 2 else f", with {y}"
    one_hot = bool((rows.sum(1) == 1).all())
    return f": if they are one-hot, pass {y}.argmax(1); {findings}" if one_hot else f": {findings}"


def _without(logits: Tensor, target: Tensor) -> Tensor:
    return logits.scatter(1, target.long()[:, None], -torch.inf)


def _true(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target.long()[:, None])[:, 0]
