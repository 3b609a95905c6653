"""Multi-label classification: several findings a sample, each there or not.

loss = mean over findings of binary cross-entropy
correct = every finding is right
quality = 1 where it is correct, or the share of findings that are right

One logit a finding, as for the 14 findings of chest X-rays (Rajpurkar et al., CheXNet, 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ima.measures import Measure
from ima.tasks.divergence import kl, log_probabilities
from ima.tasks.pixels import binary_entropies, wide
from ima.tasks.task import Decision, Task
from ima.tasks.trees import Tree, described
from ima.tasks.usable import usable

MEASURES = {
    "all": Measure("accuracy", "Accuracy", part="finding", column="right_"),
    "share": Measure(
        "share of findings right",
        "Findings right",
        threshold=1.0,
        binary=False,
        part="finding",
        column="right_",
    ),
}
"""The words of what counts: samples that are right as a whole, or the share of their findings."""


@dataclass(frozen=True)
class MultiLabel(Task):
    """Several findings a sample, each by a logit of its own through a sigmoid.

    count: what the quality of a sample is. `"all"`: 1 if every finding is right, else 0.
        `"share"`: the share of its findings that are right.

    Outputs are logits (B, K); a finding is there if its logit is above 0. Targets are 0 or 1 (or
    bool) of the same shape. A sample is correct if every finding is right, whatever counts.
    Raises ValueError for another `count`.

    >>> import ima, torch
    >>> task, y = ima.MultiLabel(), torch.tensor([[1, 0, 1]])
    >>> task.correct(torch.tensor([[2.0, -1.0, -0.5]]), y)
    tensor([False])
    >>> ima.MultiLabel("share").quality(torch.tensor([[2.0, -1.0, -0.5]]), y)
    tensor([0.6667])
    """

    count: Literal["all", "share"] = "all"

    def __post_init__(self) -> None:
        if self.count not in MEASURES:
            raise ValueError(f"count is {self.count!r}; expected 'all' or 'share'")

    @property
    def measure(self) -> Measure:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The words of what counts."""
        return MEASURES[self.count]

    def check(self, output: Tree, target: Tree) -> None:
        """Raise ValueError or TypeError if output and target do not fit together."""
        if not isinstance(output, Tensor) or not output.is_floating_point():
            came = output.dtype if isinstance(output, Tensor) else described(output)
            raise TypeError(
                f"the model returned {came}; several labels a sample need floating-point logits of "
                "shape (batch, findings): wrap the model so that it returns them"
            )
        if not isinstance(target, Tensor):
            raise TypeError(f"targets are {type(target).__name__}; expected a tensor of 0 and 1")
        if output.ndim != 2 or output.numel() == 0 or target.shape != output.shape:
            raise ValueError(
                f"the model returned shape {tuple(output.shape)} for targets of shape "
                f"{tuple(target.shape)}; expected (batch, findings) of both"
            )
        strange = (target != 0) & (target != 1)
        if bool(strange.any()):
            raise ValueError(
                f"targets hold {float(target[strange][0]):g}; expected 0 or 1 for every finding"
            )

    def loss(self, output: Tree, target: Tree) -> Tensor:
        """Mean binary cross-entropy over the findings of every sample, (B,), in nats."""
        logits = wide(output)
        return binary_entropies(logits, target.to(logits)).mean(1)

    def objective(self, output: Tree, target: Tree) -> Tensor:
        """What an attack raises, (B,): the loss, its gradient exact for confident findings."""
        return F.softplus(-_margins(output, target)).mean(1)

    def correct(self, output: Tree, target: Tree) -> Tensor:
        """Whether every finding is right, (B,) bool; never where `usable` is not."""
        return _right(output, target).all(1) & self.usable(output)

    def score(self, output: Tree, target: Tree) -> Tensor:
        """The least sure finding's logit towards the truth, (B,): positive where correct."""
        return _margins(output, target).amin(1)

    def predict(self, output: Tree) -> Tensor:
        """Whether every finding is there, (B, K), 0 or 1."""
        return (output > 0).long()

    def divergence(self, clean: Tree, noisy: Tree, target: Tree = None) -> Tensor:
        """KL(p || q) of two outputs, mean over the findings, (B,), in nats; no target needed."""
        # A finding z is the pair (0, z) of classes.
        pairs = (torch.stack((torch.zeros_like(z), z), 1) for z in (wide(clean), wide(noisy)))
        return kl(*map(log_probabilities, pairs)).mean(1)

    def quality(self, output: Tree, target: Tree) -> Tensor:
        """How good every output is, (B,), 0 to 1: see `count`."""
        if self.count == "all":
            return self.correct(output, target).float()
        return torch.where(self.usable(output), self.parts(output, target).mean(1), 0.0)

    def parts(self, output: Tree, target: Tree) -> Tensor:
        """Whether every finding is right, (B, K), 0 or 1."""
        return (_right(output, target) & self.usable(output)[:, None]).float()

    def usable(self, output: Tree) -> Tensor:
        """Whether outputs permit a decision, (B,) bool: no NaN, no +inf."""
        return usable(output.flatten(1)) & ~output.isposinf().any(1)

    def decision(self, output: Tree) -> Decision:
        """How it is decided on such outputs: each logit at 0."""
        return "regions"

    def truths(self, output: Tree, target: Tree) -> Tensor:
        """What the decision of every logit at 0 should be, (B, K) bool."""
        return target.bool()

    def classes(self, output: Tree, target: Tree) -> int:
        """How many findings there are."""
        return output.shape[1]

    def columns(self, output: Tree, target: Tree) -> dict[str, Tree]:
        """Label, prediction, and the mean probability that the network gives to what it decides."""
        confidence = torch.sigmoid(wide(output).abs()).mean(1)
        return {**super().columns(output, target), "confidence": confidence}

    def words(self, value: Any, classes: Sequence[str]) -> str:
        """The findings of a label or prediction by their names."""
        there = [name for name, found in zip(classes, value, strict=True) if found]
        return " + ".join(there) or "none"


def _margins(output: Tensor, target: Tensor) -> Tensor:
    """Every finding's logit towards the truth, (B, K)."""
    logits = wide(output)
    return (2 * target.to(logits) - 1) * logits


def _right(output: Tensor, target: Tensor) -> Tensor:
    return (output > 0) == target.bool()
