"""Whether the gradients of a training method's attacks reach its samples.

absent (x is not in the graph): said at the next training pass, which refuses one without any graph
zero or not finite in all walks since the first, before and after the weights moved: said when an
epoch ends; where none ever ends, after 100 walks
one sample reached once: nothing is looked at any more
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ima.doubt import Doubt

LONG = 100
"""So many walks without a gradient are said where no epoch ends."""

HEARS: ContextVar[Callable[[Tensor | None], None] | None] = ContextVar("hears", default=None)
"""Who is told of every gradient at the samples of a walk, None for one that is absent."""


class Reach:
    """What one method has seen of its gradients, until one reached a sample."""

    def __init__(self) -> None:
        self.done, self.absent = False, False
        self.flags: list[Tensor] = []
        self.walks = 0
        # Of all weights at these walks, one number each: whether an optimiser moved them.
        self.sums: set[tuple[float, ...]] = set()

    @contextmanager
    def seen(self, model: Any) -> Generator[None]:
        """Within are walks of this model: their gradients are looked at."""
        if self.done or HEARS.get() == self._hear:
            yield
            return
        self.flags = []
        token = HEARS.set(self._hear)
        try:
            yield
        finally:
            HEARS.reset(token)
        self._judge(model)

    def _hear(self, gradient: Tensor | None) -> None:
        self.absent |= gradient is None
        if gradient is not None:
            largest = gradient.reshape(len(gradient), -1).abs().amax(1)
            self.flags.append(((largest > 0) & torch.isfinite(largest)).any())

    def _judge(self, model: Any) -> None:
        if self.flags and bool(torch.stack(self.flags).any()):
            self.done = True
        elif self.flags:
            self.walks += 1
            self.sums.add(_sums(model))
            if self.walks >= LONG:
                self._zero()

    def trained(self) -> None:
        """A training pass with a graph was made."""
        if self.absent and not self.done:
            self._say("does not depend on x", "torch.no_grad(), detach()")

    def end_epoch(self) -> None:
        """An epoch is over."""
        # Before the first step a last layer of zeros is honest: it lets no gradient through.
        if not self.done and len(self.sums) > 1:
            self._zero()

    def _zero(self) -> None:
        self._say(
            f"had a gradient at x that is exactly zero or not finite in all {self.walks} attacks",
            "rounding, thresholds, quantisation, outputs so large that the loss is flat",
        )

    def _say(self, what: str, causes: str) -> None:
        self.done = True
        warnings.warn(
            f"attacks follow no gradient: what they raise {what} ({causes}), so the samples have "
            "no noise, or no more than a random start. Let gradients reach the model's input, or "
            "train without attacks",
            Doubt,
            stacklevel=6,
        )


def _sums(model: Any) -> tuple[float, ...]:
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    # A sharded one's own part: for a sum of all parts processes would wait for each other.
    parts = (getattr(w, "_local_tensor", w).detach() for w in weights if w.requires_grad)
    return tuple(part.abs().sum(dtype=torch.float64).item() for part in parts)
