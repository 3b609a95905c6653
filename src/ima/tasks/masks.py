"""What masks mean: labels as one-hot, or regions; and what speaks against how they are taken."""

from __future__ import annotations

import warnings

import torch.nn.functional as F
from torch import Tensor

from ima.tasks.pixels import precise, wide

CLEARER = 0.1
"""By so large a share of the pixels the largest output must fit better to be spoken of.

And one output at least must, as a region's logit, say less than how often the region is there: a
network that was trained with a sigmoid a region, however poor, says more.
"""

SLACK = 1.1
"""So many times the entropy of its share an output's cross-entropy may be, of a few samples."""


def one_hot(masks: Tensor) -> bool:
    """Whether every pixel of masks (B, K, *S), K at least 2, is in exactly one channel."""
    if masks.ndim < 3 or masks.shape[1] < 2:
        return False
    there = masks != 0
    return bool(((masks == 1) | ~there).all()) and bool((there.sum(1) == 1).all())


def about_masks(logits: Tensor, masks: Tensor, *, regions: bool) -> str:
    """How these masks are taken, in words, where that may be doubted; empty elsewhere.

    Warns where they look like another thing than they are taken for.
    """
    if masks.ndim != logits.ndim or not one_hot(masks):
        return ""
    if not regions:
        return "one-hot, taken as labels: the largest output decides"
    channels = logits.shape[1]
    if masks.shape[1] == channels + 1:
        doubt = (
            f"masks have {channels + 1} channels for {channels} of the output, and every pixel is "
            "in exactly one; the last is taken for pixels to ignore: if the first is the "
            "background, leave it out, y[:, 1:]"
        )
    else:
        truth = masks.argmax(1)
        largest = float((logits.argmax(1) == truth).float().mean())
        above = float(((logits > 0) == masks.bool()).all(1).float().mean())
        if largest - above < CLEARER or _says_something(logits, masks):
            return ""
        doubt = (
            "every pixel is in exactly one of the masks, and the network's largest output fits "
            f"them at {100 * largest:.0f} % of pixels, outputs above 0 at {100 * above:.0f} %: if "
            "it ends in a softmax over classes, pass Segmentation() without regions; if every "
            "output is a region's, with a sigmoid of its own, these figures are right"
        )
    # The caller of `evaluate` knows what was passed.
    warnings.warn(doubt, stacklevel=7)
    return f"taken as regions; but {doubt}"


def _says_something(logits: Tensor, masks: Tensor) -> bool:
    """Whether every output, as a region's logit, tells about as much as the region's share does."""
    truth = masks.to(precise(logits))
    wrong = F.binary_cross_entropy_with_logits(wide(logits), truth, reduction="none")
    share = truth.transpose(0, 1).flatten(1).mean(1)
    known = F.binary_cross_entropy(share, share, reduction="none")
    return bool((wrong.transpose(0, 1).flatten(1).mean(1) <= SLACK * known + 1e-6).all())
