"""Whether outputs permit a decision at all."""

from __future__ import annotations

import torch
from torch import Tensor


def usable(logits: Tensor) -> Tensor:
    """Whether the logits of every sample permit a decision, (B,) bool.

    logits: (B,), (B, classes) or (B, classes, *image). Not with NaN, not with +inf, and not where
    all classes (of any pixel) are -inf; some that are -inf are masked on purpose.
    """
    # The largest is NaN where one is.
    highest = logits if logits.ndim == 1 else logits.amax(1)
    found = torch.isfinite(highest)
    return found if found.ndim == 1 else found.flatten(1).all(1)
