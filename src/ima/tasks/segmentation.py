"""Segmentation: one label, or several overlapping regions, a pixel or voxel.

nnU-Net's loss (Isensee et al., Nature Methods 2021), for every sample by itself; correct where the
Dice of the hard prediction is above a threshold (Ma & Liang, IMA training, 3.5).

loss = cross-entropy - mean over foreground classes of soft Dice       # over all scales
correct = mean of Dice over classes in truth or prediction > threshold  # at full resolution
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ima.measures import DICE, Measure
from ima.tasks.divergence import kl, log_probabilities
from ima.tasks.masks import about_masks, check_masks
from ima.tasks.pixels import (
    along_classes,
    binary_entropies,
    count_pixels,
    dice_of,
    mean_dice,
    over_pixels,
    precise,
    scale_weights,
    wide,
)
from ima.tasks.task import Decision, Task
from ima.tasks.trees import Tree, full
from ima.tasks.usable import usable

SMOOTH = 1e-5
"""nnU-Net's: added to numerator and denominator of soft Dice."""

_EMPTY = 1e-3
"""Share of its pixels below which a sample without foreground may be predicted foreground.

The paper asks for a Dice above a threshold, which a sample without foreground cannot have.
"""

EMPTY_SAMPLES = (
    "a class counts for a sample where it occurs in the truth or in the prediction; a sample "
    "without foreground in both counts for no class, one with predicted foreground only counts "
    "with 0 for every class predicted"
)
"""The convention of the average Dice index, in words."""

Truth: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""Labels (B, *S) or regions as one-hot; one-hot foreground (B, F, *S); valid pixels (B, 1, *S)."""


@dataclass(frozen=True)
class Segmentation(Task):
    """Labels or regions for every pixel, in any number of spatial dimensions.

    threshold: a sample is correct if its Dice is above this, 0 to below 1.
    regions: True: each channel is one region through a sigmoid, also a single channel.
    ignore_label: pixels with this label do not count; None: all count.
    weights: weight of each scale's loss, 0 or more; None: 1, 1/2, 1/4, ... with 0 for the last,
        scaled to sum 1, as in nnU-Net.
    walk: what attacks raise at full resolution: "loss", "cross_entropy", "dice" (minus soft Dice).

    Outputs are logits (B, C, *S), background first, through softmax; or a list, full resolution
    first (deep supervision). Targets are labels, (B, *S) or (B, 1, *S), or one-hot, (B, C, *S),
    every pixel in one channel; or a list, one a scale. Regions: targets are one-hot, (B, R, *S),
    or (B, R + 1, *S) with pixels to ignore in the last channel, as in nnU-Net.
    Raises ValueError for values outside these ranges.
    Source: Isensee et al., Nature Methods 2021 (loss); Ma & Liang, IMA training, 3.5 (correct).

    >>> import ima, torch
    >>> task, y = ima.Segmentation(), torch.tensor([[[0, 0, 1, 1]]])
    >>> logits = torch.nn.functional.one_hot(y, 2).movedim(-1, 1).float()
    >>> task.correct(logits, y), task.dice(logits, y)
    (tensor([True]), tensor([1.]))
    """

    threshold: float = 0.6
    regions: bool = False
    ignore_label: int | None = None
    weights: tuple[float, ...] | None = None
    walk: Literal["loss", "dice", "cross_entropy"] = "loss"
    drawn: ClassVar[Literal["words", "labels"]] = "labels"

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float) or not 0 <= self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold!r}; expected a Dice, 0 to below 1")
        if self.walk not in ("loss", "dice", "cross_entropy"):
            raise ValueError(f"walk is {self.walk!r}; expected 'loss', 'dice' or 'cross_entropy'")
        if self.regions and self.ignore_label is not None:
            raise ValueError(
                "ignore_label does not go with regions; mark ignored pixels in one more channel "
                "of the targets"
            )
        if self.weights is not None and (
            not self.weights or min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf")
        ):
            raise ValueError(f"weights are {self.weights!r}; expected numbers of at least 0")

    def check(self, output: Tree, target: Tree) -> None:
        """Raise ValueError or TypeError if output and target do not fit together."""
        outputs = list(output) if isinstance(output, list | tuple) else [output]
        targets = list(target) if isinstance(target, list | tuple) else [target]
        if isinstance(output, list | tuple) and len(outputs) != len(targets):
            raise ValueError(
                f"the model returned {len(outputs)} scales for {len(targets)} targets; expected "
                "one target for every scale, or full resolution alone: wrap the model so that it "
                "returns that"
            )
        if self.weights is not None and len(outputs) not in (1, len(self.weights)):
            raise ValueError(
                f"the model returned {len(outputs)} scales; weights has {len(self.weights)}"
            )
        for logits, truth in zip(outputs, targets, strict=False):
            check_masks(logits, truth, regions=self.regions, ignore_label=self.ignore_label)

    def labels(self, output: Tree, target: Tree) -> Tree:
        """The targets, one-hot ones as labels (B, *S); regions as they are."""
        if isinstance(target, list | tuple):
            return [self.labels(full(output), one) for one in target]
        return _labels(full(output), target) if not self.regions else target

    def loss(self, output: Tree, target: Tree) -> Tensor:
        """Cross-entropy minus soft Dice of every sample, (B,), summed over weighted scales.

        On one sample this is nnU-Net's loss with `batch_dice` off.
        """
        if not isinstance(output, list | tuple) or len(output) == 1:
            return self._loss(full(output), full(target))
        weights = scale_weights(len(output)) if self.weights is None else self.weights
        parts = [
            weight * self._loss(logits, truth)
            for weight, logits, truth in zip(weights, output, target, strict=True)
            if weight > 0
        ]
        return torch.stack(parts).sum(0)

    def objective(self, output: Tree, target: Tree) -> Tensor:
        """What an attack raises, (B,): the loss at full resolution or a part of it, see `walk`.

        Cross-entropy as softplus of the margin to the other classes: its gradient keeps all its
        terms where pixels are confident; log-softmax loses the true logit's from a margin of 17 on.
        """
        logits, truth = wide(full(output)), self._truth(full(output), full(target))
        if self.walk == "dice":
            return -self._soft_dice(logits, truth)
        labels, _, valid = truth
        if self.regions:
            each = F.softplus((1 - 2 * labels) * logits)
        else:
            true = logits.gather(1, labels[:, None])
            others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1, keepdim=True)
            each = F.softplus(others - true)
        entropy = over_pixels(each, valid)
        return entropy if self.walk == "cross_entropy" else entropy - self._soft_dice(logits, truth)

    def correct(self, output: Tree, target: Tree) -> Tensor:
        """Whether the Dice of the prediction is above the threshold, (B,) bool.

        False where the output is not `usable`. A sample without foreground has no Dice: it is
        correct if less than 0.1 % of its pixels are predicted as foreground.
        """
        logits, (_, truth, valid) = full(output), self._truth(full(output), full(target))
        found = self._found(logits, valid)
        empty = ~truth.flatten(1).any(1)
        # Where every pixel is ignored nothing can be wrong.
        allowed = (_EMPTY * count_pixels(logits, valid)).clamp_min(_EMPTY)
        few = found.any(1).flatten(1).sum(1) < allowed
        right = torch.where(empty, few, mean_dice(found, truth) > self.threshold)
        return right & self.usable(output)

    def usable(self, output: Tree) -> Tensor:
        """Whether an output allows a decision, (B,) bool: no NaN, no +inf, not all of it -inf."""
        logits = full(output)
        # A pixel that is in no region has -inf in all of them.
        return usable(logits.flatten(1) if self.regions else logits)

    def score(self, output: Tree, target: Tree) -> Tensor:
        """Soft Dice minus the threshold, (B,): continuous, positive where correct.

        A class that is not in the truth counts as far as it is predicted, at most one pixel.
        Without foreground in the truth: how far the soft share of foreground is below what is
        allowed, divided by what is allowed.
        """
        logits, (_, truth, valid) = wide(full(output)), self._truth(full(output), full(target))
        soft = self._probabilities(logits)
        if valid is not None:
            soft = soft * valid
        there = truth.flatten(2).any(2)
        both, predicted = (soft * truth).flatten(2).sum(2), soft.flatten(2).sum(2)
        dice = 2 * both / (predicted + truth.flatten(2).sum(2)).clamp_min(SMOOTH)
        weight = torch.where(there, 1.0, predicted.clamp(max=1))
        share = (dice * there).sum(1) / weight.sum(1).clamp_min(SMOOTH)
        allowed = _EMPTY * count_pixels(logits, valid).clamp_min(1)
        foreground = (soft.amax(1) if self.regions else soft.sum(1)).flatten(1).sum(1)
        return torch.where(there.any(1), share - self.threshold, 1 - foreground / allowed)

    def predict(self, output: Tree) -> Tensor:
        """The label of every pixel, (B, *S) int64; or whether it is in each region, (B, R, *S)."""
        logits = full(output)
        return logits > 0 if self.regions else logits.argmax(1)

    def dice(self, output: Tree, target: Tree) -> Tensor:
        """The Dice of every sample's prediction, (B,), 0 to 1; 0 where `usable` is not.

        The mean over the foreground classes that are in truth or prediction: a class in neither
        has no Dice. A sample without foreground has 1 where none is predicted, and 0 elsewhere.
        """
        logits, (_, truth, valid) = full(output), self._truth(full(output), full(target))
        mean = mean_dice(self._found(logits, valid), truth).nan_to_num(nan=1.0)
        return torch.where(self.usable(output), mean, 0.0)

    @property
    def measure(self) -> Measure:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The words of the Dice; a sample at the threshold is broken too."""
        return replace(DICE, threshold=math.nextafter(self.threshold, 1))

    def quality(self, output: Tree, target: Tree) -> Tensor:
        """The Dice of every sample, (B,); see `dice`."""
        return self.dice(output, target).float()

    def parts(self, output: Tree, target: Tree) -> Tensor:
        """The Dice of every foreground class, (B, F); 0 where `usable` is not, NaN in neither."""
        each = self.dice_per_class(output, target)
        return torch.where(~self.usable(output)[:, None] & ~each.isnan(), 0.0, each)

    def columns(self, output: Tree, target: Tree) -> dict[str, Tree]:
        """Pixels of foreground in the truth, and how many foreground classes it holds."""
        truth = self.foreground(output, target).flatten(2)
        return {"pixels": truth.any(1).sum(1), "present": truth.any(2).sum(1)}

    def climbs(self) -> list[Callable[[Tree, Tree], Tensor]]:
        """What PGD raises: the objective alone, as training does."""
        return [self.objective]

    def decision(self, output: Tree) -> Decision:
        """How it is decided on such outputs."""
        return "regions" if self.regions else "labels"

    def truths(self, output: Tree, target: Tree) -> Tensor:
        """What the decision of every region at 0 should be, (B, R, *S) bool."""
        return self.foreground(output, target)

    def classes(self, output: Tree, target: Tree) -> int:
        """How many foreground classes, or regions, there are."""
        return full(output).shape[1] - (not self.regions)

    def about(self, output: Tree, target: Tree) -> dict[str, str]:
        """How one-hot masks are taken, and what counts in a sample without foreground."""
        masks = about_masks(full(output), full(target), regions=self.regions)
        return {"empty slices": EMPTY_SAMPLES, **({"masks": masks} if masks else {})}

    def dice_per_class(self, output: Tree, target: Tree) -> Tensor:
        """The Dice of every foreground class or region, (B, F); NaN where in neither.

        Source: Ma & Liang, Eq. 14, of which this is the summand.
        """
        logits, (_, truth, valid) = full(output), self._truth(full(output), full(target))
        return dice_of(self._found(logits, valid), truth)

    def foreground(self, output: Tree, target: Tree) -> Tensor:
        """Which valid pixels of the truth are of each foreground class, (B, F, *S) bool."""
        return self._truth(full(output), full(target))[1]

    def divergence(self, clean: Tree, noisy: Tree, target: Tree = None) -> Tensor:
        """KL(p || q) of two outputs' pixels at full resolution, (B,), their mean in nats.

        target: of pixels that it says to ignore none counts; without it all do.
        """
        p, q = wide(full(clean)), wide(full(noisy))
        valid = None if target is None else self._truth(p, full(target))[2]
        if self.regions:
            # A region z is the pair (0, z) of classes.
            p, q = (torch.stack((torch.zeros_like(z), z), 1) for z in (p, q))
        each = kl(log_probabilities(p), log_probabilities(q))
        return over_pixels(each.mean(1, keepdim=True) if self.regions else each[:, None], valid)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, truth = wide(logits), self._truth(logits, target)
        return self._cross_entropy(logits, truth) - self._soft_dice(logits, truth)

    def _cross_entropy(self, logits: Tensor, truth: Truth) -> Tensor:
        labels, _, valid = truth
        if self.regions:
            each = binary_entropies(logits, labels)
        else:
            each = F.cross_entropy(logits, labels, reduction="none")[:, None]
        return over_pixels(each, valid)

    def _soft_dice(self, logits: Tensor, truth: Truth) -> Tensor:
        _, there, valid = truth
        soft = self._probabilities(logits)
        if valid is not None:
            soft = soft * valid
        both = (soft * there).flatten(2).sum(2)
        sizes = soft.flatten(2).sum(2) + there.flatten(2).sum(2)
        return ((2 * both + SMOOTH) / (sizes + SMOOTH).clamp_min(1e-8)).mean(1)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Of the foreground classes or regions, (B, F, *S)."""
        return logits.sigmoid() if self.regions else logits.softmax(1)[:, 1:]

    def _found(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        """Which valid pixels are predicted as each foreground class or region, (B, F, *S) bool."""
        if self.regions:
            found = logits > 0
        else:
            classes = torch.arange(1, logits.shape[1], device=logits.device)
            found = logits.argmax(1)[:, None] == along_classes(classes, logits)
        return found if valid is None else found & valid

    def _truth(self, logits: Tensor, target: Tensor) -> Truth:
        if self.regions:
            if target.ndim != logits.ndim:
                # They would broadcast to another truth.
                raise ValueError(
                    f"the model returned shape {tuple(logits.shape)} for targets of "
                    f"{tuple(target.shape)}; expected as many dimensions: does it squeeze?"
                )
            regions = logits.shape[1]
            valid = None if target.shape[1] == regions else ~target[:, regions:].bool()
            there = target[:, :regions].bool()
            labels = there.to(precise(logits))
            return labels, there if valid is None else there & valid, valid
        labels = _labels(logits, target).reshape(len(target), *logits.shape[2:]).long()
        valid = None
        if self.ignore_label is not None:
            valid = (labels != self.ignore_label)[:, None]
            labels = torch.where(valid[:, 0], labels, 0)
        classes = torch.arange(1, logits.shape[1], device=logits.device)
        return labels, labels[:, None] == along_classes(classes, logits), valid


def _labels(logits: Tensor, target: Tensor) -> Tensor:
    """One-hot targets of the output's shape as labels (B, *S); others as they are."""
    # An image as large as there are channels may look so too, but has a dimension less.
    if target.ndim != logits.ndim or target.shape[1] == 1:
        return target
    return target.to(torch.uint8).argmax(1)
