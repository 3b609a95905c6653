"""Slow, plain reference of segmentation losses and Dice: loops over samples, classes and pixels.

Outputs and targets as nnU-Net has them, at one scale or a list of scales, full resolution first.
Labels: logits (B, C, *S), C classes with 0 the background, and labels (B, *S) or (B, 1, *S).
Regions: logits (B, R, *S), one sigmoid a channel, and ones and zeros (B, R, *S), or (B, R + 1, *S)
whose last channel marks ignored pixels. It shares no code with the library; the arithmetic is in
double precision and keeps the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMOOTH = 1e-5
FEW = 0.001

Scales = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Pixel:
    """The logits at one pixel that counts, and what is true there: a flag a class or region."""

    z: list[Tensor]
    truth: list[bool]


Sample = list[Pixel]


def scales(tree: Scales) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else list(tree)


def read(
    output: Scales, target: Scales, *, regions: bool, ignore_label: int | None, scale: int = 0
) -> list[Sample]:
    """Every sample of a batch, without its ignored pixels."""
    z, y = scales(output)[scale].double(), scales(target)[scale]
    samples: list[Sample] = []
    for i in range(z.shape[0]):
        logits = z[i].flatten(1)
        channels, pixels = logits.shape
        flat = y[i].reshape(-1, pixels)
        sample: Sample = []
        for n in range(pixels):
            there = [float(v) for v in flat[:, n]]
            if regions:
                if len(there) == channels + 1 and there[channels] == 1:
                    continue
                truth = [there[r] == 1 for r in range(channels)]
            else:
                (label,) = there
                if ignore_label is not None and label == ignore_label:
                    continue
                truth = [label == c for c in range(channels)]
                assert sum(truth) == 1, f"label {label} with {channels} classes"
            sample.append(Pixel([logits[c, n] for c in range(channels)], truth))
        samples.append(sample)
    return samples


def number(value: Tensor) -> float:
    return float(value.detach())


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z)) if number(z) > 0 else torch.exp(z) / (1 + torch.exp(z))


def log_sum_exp(z: list[Tensor]) -> Tensor:
    largest = max(number(v) for v in z)
    total = z[0].new_zeros(())
    for v in z:
        total = total + torch.exp(v - largest)
    return torch.log(total) + largest


def probabilities(pixel: Pixel, *, regions: bool) -> list[Tensor]:
    if regions:
        return [sigmoid(v) for v in pixel.z]
    all_of_them = log_sum_exp(pixel.z)
    return [torch.exp(v - all_of_them) for v in pixel.z]


def surprise(pixel: Pixel, *, regions: bool) -> Tensor:
    """Minus the log probability of the truth; of regions their sum."""
    if regions:
        total = pixel.z[0].new_zeros(())
        for v, here in zip(pixel.z, pixel.truth, strict=True):
            # -log sigmoid(v) = log(1 + exp(-v)), written so that it never overflows.
            signed = -v if here else v
            total = total + log_sum_exp([signed.new_zeros(()), signed])
        return total
    return log_sum_exp(pixel.z) - pixel.z[pixel.truth.index(True)]


def cross_entropy_of(
    sample: Sample, channels: int, *, regions: bool, marked: bool
) -> Tensor | None:
    """The mean over the pixels; None where there is no pixel, and no cross-entropy.

    nnU-Net's mean over regions is taken where no channel marks ignored pixels, and only there.
    """
    if not sample:
        return None
    total = sample[0].z[0].new_zeros(())
    for pixel in sample:
        total = total + surprise(pixel, regions=regions)
    return total / (len(sample) * (channels if regions and not marked else 1))


def soft_dice_of(sample: Sample, channels: int, *, regions: bool, zero: Tensor) -> Tensor:
    """The mean over foreground classes or regions, absent ones too, with nnU-Net's smooth term."""
    first = 0 if regions else 1
    total = zero
    for c in range(first, channels):
        both, predicted, true = zero, zero, 0
        for pixel in sample:
            p = probabilities(pixel, regions=regions)[c]
            predicted = predicted + p
            if pixel.truth[c]:
                both, true = both + p, true + 1
        total = total + (2 * both + SMOOTH) / (predicted + true + SMOOTH)
    return total / (channels - first)


def deep_weights(count: int) -> list[float]:
    """nnU-Net's weights of the scales: halved each time, 0 for the smallest, with sum 1."""
    if count == 1:
        return [1.0]
    raw = [1 / 2**k for k in range(count - 1)] + [0.0]
    return [w / sum(raw) for w in raw]


def parts(
    output: Scales,
    target: Scales,
    *,
    regions: bool = False,
    ignore_label: int | None = None,
    scale: int = 0,
) -> tuple[list[Tensor], list[Tensor]]:
    """(cross-entropy, soft Dice) of every sample at one scale."""
    z, y = scales(output)[scale].double(), scales(target)[scale]
    channels = z.shape[1]
    marked = regions and y.shape[1] == channels + 1
    # Zero with a graph: a sample whose pixels are all ignored has a gradient of zeros.
    zero = 0 * z.sum()
    entropies: list[Tensor] = []
    dices: list[Tensor] = []
    for sample in read(output, target, regions=regions, ignore_label=ignore_label, scale=scale):
        entropy = cross_entropy_of(sample, channels, regions=regions, marked=marked)
        entropies.append(zero if entropy is None else entropy)
        dices.append(soft_dice_of(sample, channels, regions=regions, zero=zero))
    return entropies, dices


def loss(
    output: Scales,
    target: Scales,
    *,
    regions: bool = False,
    ignore_label: int | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Cross-entropy minus soft Dice, (B,), summed over the scales with their weights."""
    factors = deep_weights(len(scales(output))) if weights is None else list(weights)
    total: list[Tensor] = []
    for scale, factor in enumerate(factors):
        if factor == 0:
            continue
        entropies, dices = parts(
            output, target, regions=regions, ignore_label=ignore_label, scale=scale
        )
        for i, (entropy, dice_) in enumerate(zip(entropies, dices, strict=True)):
            term = factor * (entropy - dice_)
            if i == len(total):
                total.append(term)
            else:
                total[i] = total[i] + term
    return torch.stack(total)


def hard(pixel: Pixel, *, regions: bool) -> list[bool]:
    """What is predicted at a pixel: a flag a class or region."""
    values = [number(v) for v in pixel.z]
    if regions:
        return [v > 0 for v in values]
    best = values.index(max(values))
    return [c == best for c in range(len(values))]


def dice_per_class(
    output: Scales, target: Scales, *, regions: bool = False, ignore_label: int | None = None
) -> Tensor:
    """(B, C - 1), or (B, R): on hard predictions; NaN where absent from truth and prediction."""
    rows: list[list[float]] = []
    first = 0 if regions else 1
    channels = scales(output)[0].shape[1]
    for sample in read(output, target, regions=regions, ignore_label=ignore_label):
        row: list[float] = []
        for c in range(first, channels):
            both = predicted = true = 0
            for pixel in sample:
                said = hard(pixel, regions=regions)[c]
                both += said and pixel.truth[c]
                predicted += said
                true += pixel.truth[c]
            row.append(2 * both / (predicted + true) if predicted + true else math.nan)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), channels - first)


def has_foreground(sample: Sample, *, regions: bool) -> bool:
    return any(any(pixel.truth if regions else pixel.truth[1:]) for pixel in sample)


def dice(
    output: Scales, target: Scales, *, regions: bool = False, ignore_label: int | None = None
) -> Tensor:
    """(B,): the mean over classes present in truth or prediction; 1 where there is none.

    A class that is in the prediction alone has a Dice of 0, so a sample without foreground in its
    truth has 1 or 0.
    """
    values: list[float] = []
    for row in dice_per_class(output, target, regions=regions, ignore_label=ignore_label):
        present = [float(v) for v in row if not math.isnan(float(v))]
        values.append(sum(present) / len(present) if present else 1.0)
    return torch.tensor(values, dtype=torch.float64)


def correct(
    output: Scales,
    target: Scales,
    *,
    threshold: float = 0.6,
    regions: bool = False,
    ignore_label: int | None = None,
) -> Tensor:
    """(B,) bool: Dice above the threshold; without foreground in truth, next to none predicted."""
    logits = scales(output)[0]
    samples = read(output, target, regions=regions, ignore_label=ignore_label)
    dices = dice(output, target, regions=regions, ignore_label=ignore_label)
    flags: list[bool] = []
    for i, sample in enumerate(samples):
        if any(math.isnan(number(v)) for v in logits[i].flatten()):
            flags.append(False)
        elif has_foreground(sample, regions=regions):
            flags.append(float(dices[i]) > threshold)
        else:
            said = 0
            for pixel in sample:
                flat = hard(pixel, regions=regions)
                said += any(flat if regions else flat[1:])
            # No pixel at all is no foreground predicted.
            flags.append(said == 0 or said / len(sample) < FEW)
    return torch.tensor(flags)


def divergence(clean: Tensor, noisy: Tensor) -> Tensor:
    """(B,): KL(clean || noisy) of the softmax, the mean over the pixels."""
    values: list[Tensor] = []
    for z, z_noisy in zip(clean.double(), noisy.double(), strict=True):
        total = z.new_zeros(())
        pixels = z.flatten(1).shape[1]
        for n in range(pixels):
            ours, theirs = list(z.flatten(1)[:, n]), list(z_noisy.flatten(1)[:, n])
            for a, b in zip(ours, theirs, strict=True):
                log_p, log_q = a - log_sum_exp(ours), b - log_sum_exp(theirs)
                total = total + torch.exp(log_p) * (log_p - log_q)
        values.append(total / pixels)
    return torch.stack(values)
