"""How far two distributions over classes are apart."""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over dimension 1 of logits (B, classes, ...), its gradient exact.

    Plain log-softmax loses the largest logit's term from a margin of 17 on in float32: what is left
    is none for one logit, and points elsewhere for more. Here that term is minus all the others'.
    """
    return (logits - logits.amax(1, keepdim=True)).log_softmax(1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats over dimension 1 of two log-probabilities, (B, classes, ...) each.

    Values and gradients are finite also at probabilities of exactly 0, the logits -inf included.
    """
    # exp(p) * (p - q), not p.exp() * log(...): a probability of exactly 0 keeps its gradient. The
    # difference of two -inf is NaN, and 0 times it too.
    low = torch.finfo(p.dtype).min / 4
    return (p.exp() * (p.clamp_min(low) - q.clamp_min(low))).sum(1)
