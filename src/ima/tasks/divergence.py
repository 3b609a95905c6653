"""How far two distributions over classes are apart."""

from __future__ import annotations

import torch
from torch import Tensor


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats over dimension 1 of two log-probabilities, (B, classes, ...) each.

    Values and gradients are finite also at probabilities of exactly 0, the logits -inf included.
    """
    # exp(p) * (p - q), not p.exp() * log(...): a probability of exactly 0 keeps its gradient. The
    # difference of two -inf is NaN, and 0 times it too.
    low = torch.finfo(p.dtype).min / 4
    return (p.exp() * (p.clamp_min(low) - q.clamp_min(low))).sum(1)
