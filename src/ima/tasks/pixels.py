"""Counts over pixels, for every sample by itself; all sizes (B, channels, *image)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scale_weights(scales: int) -> list[float]:
    """nnU-Net's weights of the scales of deep supervision: halved at each, 0 for the last."""
    weights = [0.5**i for i in range(scales - 1)]
    return [*(weight / sum(weights) for weight in weights), 0.0]


def dice_of(found: Tensor, truth: Tensor) -> Tensor:
    """Dice of every channel, (B, F), of (B, F, *S) bool; NaN where both are empty."""
    # float32 counts exactly up to 16 million pixels.
    both = (found & truth).flatten(2).sum(2).float()
    sizes = found.flatten(2).sum(2) + truth.flatten(2).sum(2)
    return 2 * both / sizes.float()


def mean_dice(found: Tensor, truth: Tensor) -> Tensor:
    """The mean over the channels that are not empty in both, (B,); NaN where all are."""
    return dice_of(found, truth).nanmean(1)


def count_pixels(logits: Tensor, valid: Tensor | None) -> Tensor:
    """The number of pixels that count, (B,)."""
    if valid is None:
        return torch.full((len(logits),), logits[0, 0].numel(), device=logits.device)
    return valid.flatten(1).sum(1)


def over_pixels(each: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of (B, R or 1, *S) over all entries; over valid pixels, of the sum over R.

    nnU-Net's own loss of regions takes their mean without ignored pixels and their sum with them.
    """
    if valid is None:
        return each.flatten(1).mean(1)
    return (each * valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp_min(1)


def along_classes(classes: Tensor, logits: Tensor) -> Tensor:
    """Classes (C,) as (1, C, 1, ...), to compare with the pixels of an output."""
    return classes.reshape(1, -1, *[1] * (logits.ndim - 2))


def precise(logits: Tensor) -> torch.dtype:
    """float32, or float64 where the logits have it."""
    return torch.promote_types(logits.dtype, torch.float32)


def wide(logits: Tensor) -> Tensor:
    """The logits in float32 where they are shorter."""
    return logits.to(precise(logits))


def binary_entropies(logits: Tensor, truth: Tensor) -> Tensor:
    """The binary cross-entropy of every logit, in nats; 0 where one that is -inf is rightly so."""
    masked = logits.isneginf() & (truth == 0)
    # Torch multiplies it by 0, which is not a number.
    logits = logits.masked_fill(masked, torch.finfo(logits.dtype).min / 4)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
