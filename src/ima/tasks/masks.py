"""What masks mean: labels as one-hot, or regions; and what speaks against how they are taken."""

from __future__ import annotations

import warnings

import torch.nn.functional as F
from torch import Tensor

from ima.tasks.pixels import binary_entropies, precise, wide
from ima.tasks.trees import Tree, described

CLEARER = 0.1
"""By so large a share of the pixels the largest output must fit better to be spoken of.

And one output at least must, as a region's logit, say less than how often the region is there: a
network that was trained with a sigmoid a region, however poor, says more.
"""

_SLACK = 1.1
"""So many times the entropy of its share an output's cross-entropy may be, of a few samples."""


def one_hot(masks: Tensor) -> bool:
    """Whether every pixel of masks (B, K, *S), K at least 2, is in exactly one channel."""
    return _apart(masks) and bool((masks != 0).any(1).all())


def _apart(masks: Tensor) -> bool:
    """Whether no pixel of masks (B, K, *S), K at least 2, is in more than one channel."""
    if masks.ndim < 3 or masks.shape[1] < 2:
        return False
    there = masks != 0
    return bool(((masks == 1) | ~there).all()) and bool((there.sum(1) <= 1).all())


def about_masks(logits: Tensor, masks: Tensor, *, regions: bool) -> str:
    """How these masks are taken, in words, where that may be doubted; empty elsewhere.

    Warns where they look like another thing than they are taken for.
    """
    if masks.ndim != logits.ndim or not _apart(masks):
        return ""
    whole = one_hot(masks)
    if not regions:
        return "one-hot, taken as labels: the largest output decides"
    channels = logits.shape[1]
    if masks.shape[1] == channels + 1:
        if not whole:
            return ""
        doubt = (
            f"masks have {channels + 1} channels for {channels} of the output, and every pixel is "
            "in exactly one; the last is taken for pixels to ignore: if the first is the "
            "background, leave it out, y[:, 1:]"
        )
    else:
        # A pixel in none of the masks, as one to ignore, fits no largest output.
        fits = masks.gather(1, logits.argmax(1, keepdim=True)) != 0
        largest = float(fits.float().mean())
        above = float(((logits > 0) == masks.bool()).all(1).float().mean())
        if largest - above < CLEARER or _says_something(logits, masks):
            return ""
        doubt = (
            f"{'every pixel is in exactly' if whole else 'no pixel is in more than'} one of the "
            "masks, and the network's largest output fits "
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
    wrong = binary_entropies(wide(logits), truth)
    share = truth.transpose(0, 1).flatten(1).mean(1)
    known = F.binary_cross_entropy(share, share, reduction="none")
    return bool((wrong.transpose(0, 1).flatten(1).mean(1) <= _SLACK * known + 1e-6).all())


def check_masks(logits: Tree, target: Tree, *, regions: bool, ignore_label: int | None) -> None:
    """Raise ValueError or TypeError where logits and masks of one scale do not fit together."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        came = logits.dtype if isinstance(logits, Tensor) else described(logits)
        raise TypeError(
            f"the model returned {came}; segmentation expects floating-point logits of shape "
            "(batch, classes, *image), or a list of them: wrap the model so that it returns "
            "these"
        )
    if not isinstance(target, Tensor):
        raise TypeError(f"targets are {type(target).__name__}; expected tensors of labels")
    if logits.ndim < 3 or logits.numel() == 0:
        raise ValueError(
            f"the model returned shape {tuple(logits.shape)}; segmentation expects "
            "(batch, classes, *image)"
        )
    channels = logits.shape[1]
    if not regions and channels < 2:
        raise ValueError(
            "the model returned one channel; labels need one for the background too: for a "
            "single foreground through a sigmoid pass Segmentation(regions=True)"
        )
    batch, image = len(logits), tuple(logits.shape[2:])
    fits = (
        [(batch, channels, *image), (batch, channels + 1, *image)]
        if regions
        else [(batch, *image), (batch, 1, *image)]
    )
    if not regions and tuple(target.shape) == (batch, channels, *image):
        _check_one_hot(target, ignore_label)
        return
    if tuple(target.shape) not in fits:
        hot = "" if regions else f", or one-hot {(batch, channels, *image)}"
        if not regions and tuple(target.shape) == (batch, channels + 1, *image):
            hot += (
                ": if the last channel marks pixels to ignore, pass "
                "torch.where(y[:, -1] > 0, 255, y[:, :-1].argmax(1)) and ignore_label=255; if "
                "the first is a background that the model has no channel for, "
                "Segmentation(regions=True) and y[:, 1:]"
            )
        raise ValueError(
            f"targets have shape {tuple(target.shape)} for an output of {tuple(logits.shape)}; "
            f"expected {fits[0]} or {fits[1]}{hot}"
        )
    wrong = (target != 0) & (target != 1) if regions else _strange(target, channels, ignore_label)
    if bool(wrong.any()):
        kind = "0 or 1" if regions else f"labels 0 to {channels - 1}"
        kind += _scaled(target, channels, regions)
        raise ValueError(
            f"targets hold {float(target[wrong][0]):g}; the model's output has {channels} "
            f"channels, so expected {kind}"
            + ("" if ignore_label is None else f", or {ignore_label} to ignore")
        )


def _strange(target: Tensor, classes: int, ignore_label: int | None) -> Tensor:
    # Wide first: uint8 compared with -1 is compared with 255.
    labels = target.long()
    wrong = (labels < 0) | (labels >= classes) | (target != labels)
    return wrong if ignore_label is None else wrong & (labels != ignore_label)


def _check_one_hot(target: Tensor, ignore_label: int | None) -> None:
    """Raise ValueError unless every pixel is 1 in one channel and 0 in the others."""
    if bool(target.isnan().any()):
        raise ValueError("targets hold nan; expected one-hot masks of 0 and 1, or labels")
    there = target != 0
    strange, counts = bool((there & (target != 1)).any()), there.sum(1)
    if not strange and bool((counts == 1).all()):
        return
    listed = sorted(set(counts.flatten().tolist()))[:3]
    if not strange and ignore_label is not None and listed == [0, 1]:
        advice = (
            "to ignore the pixels in no channel, pass labels: "
            f"torch.where(y.sum(1) == 0, {ignore_label}, y.argmax(1))"
        )
    elif strange:
        middle = (float(target.min()) + float(target.max())) / 2
        advice = (
            "of smoothed or scaled one-hot masks pass y.argmax(1); of regions that overlap "
            f"(y > {middle:g}).float() and Segmentation(regions=True), --regions on the command "
            "line"
        )
    else:
        advice = (
            "for regions that overlap or leave pixels out pass Segmentation(regions=True), on the "
            "command line --regions; for pixels to ignore pass labels, and their ignore_label"
        )
    raise ValueError(
        f"targets have shape {tuple(target.shape)}, a channel for each of the model's, but not "
        f"every pixel is 1 in one of them and 0 in the others (pixels in {listed} channels, "
        f"values up to {float(target.max()):g}); {advice}"
    )


def _scaled(target: Tensor, channels: int, regions: bool) -> str:
    """What may be meant by values that no target has."""
    found = {float(value) for value in target.unique()[: channels + 3]}
    if found <= {0.0, 255.0}:
        other = "" if regions else "; where it marks pixels to ignore, ignore_label=255"
        return f": where 255 marks the foreground, pass (y > 0){other}"
    low, high = float(target.min()), float(target.max())
    if regions and low >= -1 and high <= 1:
        return f": of smoothed or scaled masks pass (y > {(low + high) / 2:g}).float()"
    if not regions and found == {float(label) for label in range(1, channels + 1)}:
        return ": they seem to count from 1, pass y - 1"
    return ""
