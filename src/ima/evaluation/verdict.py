"""What leaves the figures of an evaluation in doubt, from what was seen of its network."""

from __future__ import annotations

import math

from ima.evaluation.mates import Met
from ima.evaluation.watch import Counts
from ima.tasks.ends import End
from ima.tasks.task import Decision

_APART = 1.0
"""By so many standard deviations the outputs of two labels differ where they tell them apart."""

_LEAST = 3
"""Of fewer labels of one kind nothing is said."""

_FEW = 8
"""Fewer outputs may lie between 0 and 1 by chance."""

_SEVERAL, _SHARE = 2, 0.01
"""So many samples, and so many of all, may not move before it is said."""


def verdict(counts: Counts, kind: Decision, met: Met) -> tuple[str, ...]:
    """The remarks on an evaluation; ValueError where its decisions are wrong.

    met: what was seen before the first batch.
    """
    found = [met.sentence(), _probabilities(counts, kind, met.end) or _one_sided(counts, kind)]
    few = counts.still < max(_SEVERAL, _SHARE * counts.attacked) and counts.still < counts.attacked
    if counts.still and not few:
        found.append(
            f"no attack that follows gradients could move {counts.still} of {counts.attacked} "
            "samples: the gradient is exactly zero or absent (rounding, thresholds, torch.no_grad, "
            "torch.inference_mode or detach inside the model, or saturated outputs); their "
            "accuracy under such attacks says nothing"
        )
    if counts.broken:
        samples = "sample" if counts.broken == 1 else "samples"
        found.append(
            f"outputs were not finite for {counts.broken} noisy {samples}; they count as broken"
        )
    return tuple(filter(None, found))


def refuse_end(kind: Decision, end: End) -> None:
    """Raise ValueError where it is sure from the start that decisions would be wrong."""
    if kind in ("one", "regions") and end == "probability":
        raise ValueError(_refusal(kind, "it is computed by a sigmoid or softmax"))


def _probabilities(counts: Counts, kind: Decision, end: End) -> str:
    if not kind or end == "linear" or counts.beyond or not counts.samples:
        return ""
    n = f"the outputs of all {counts.samples} samples" if counts.samples > 1 else "the output"
    if kind in ("one", "regions"):
        better = counts.at_half > counts.at_zero
        if counts.low and counts.high and better:
            seen = f"{n} lie between 0 and 1, and decisions at 0.5 fit the labels better"
            raise ValueError(_refusal(kind, seen))
        if not counts.above or counts.samples < _FEW:
            return ""
        alike = "" if counts.below else ", so that all are decided alike, as a logit above 0 is"
        return (
            f"{n} lie between 0 and 1{alike}; if they are probabilities, these figures are wrong: "
            "give the model without its last sigmoid, or wrap it: logits = torch.logit(p)"
        )
    advice = (
        "attacks may be far too weak: give the model without its last {0}, or wrap it: logits = "
        "torch.{1}(p)"
    )
    if not counts.uneven:
        return (
            f"{n} lie between 0 and 1 and sum to 1, as after a softmax; the losses expect logits, "
            "so gradients are small and " + advice.format("softmax", "log")
        )
    if end != "probability" and counts.samples < _FEW:
        return ""
    return (
        f"{n} lie between 0 and 1, as after a sigmoid; the losses expect logits, so gradients are "
        "small and " + advice.format("sigmoid", "logit")
    )


def _one_sided(counts: Counts, kind: Decision) -> str:
    """Where all decisions at 0 are alike: whether the outputs tell the labels apart elsewhere."""
    n, m = counts.ones, counts.zeros
    if bool(counts.above) == bool(counts.below) or n < _LEAST or m < _LEAST:
        return ""
    mean, other = counts.ones_sum / n, counts.zeros_sum / m
    spread = counts.ones_squares - n * mean**2 + counts.zeros_squares - m * other**2
    if mean - other <= _APART * math.sqrt(max(0.0, spread) / (n + m - 2)):
        return ""
    side, told = ("above 0", "true") if counts.above else ("0 or below", "false")
    what = "label 1" if kind == "one" else "foreground"
    return (
        f"all outputs are {side}, so that every decision is {told}, while labels are of both kinds "
        f"and the outputs tell them apart (mean {mean:.5g} for {what}, {other:.5g} elsewhere); a "
        "logit is decided at 0: if the network was trained to be decided elsewhere, as at 0.5, or "
        "gives probabilities or their logarithm, these figures are wrong; give its logits, or "
        "subtract that value from its output"
    )


def _refusal(kind: Decision, seen: str) -> str:
    what = (
        "the model's only output is a probability and no logit"
        if kind == "one"
        else "the model's outputs are probabilities of regions or findings, and no logits"
    )
    wrong = (
        "every sample counts as class 1" if kind == "one" else "each counts as foreground, or there"
    )
    return (
        f"{what} ({seen}); a logit is decided at 0, so {wrong}. Give the model without its last "
        "sigmoid, or wrap it: logits = torch.logit(p)"
    )
