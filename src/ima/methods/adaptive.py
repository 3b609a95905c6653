"""What methods share that keep one number for every training sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ima.attacks.lockstep import processes
from ima.margins import Margins
from ima.methods.noisy import Noisy
from ima.tasks.pixels import precise


class Adaptive(Noisy):
    """Base of the methods that keep one number for every training sample."""

    margins: Margins

    def _radii(self, ids: Tensor, x: Tensor) -> Tensor:
        """The margins of a batch, in x's precision or a higher one: small growth must not round."""
        return self.margins.of(ids, x).to(precise(x))

    def update(self, margins: Margins, ids: Tensor, proposals: Tensor) -> None:
        """Set the margins of a batch; every process must come here."""
        ids = ids.to(proposals.device)
        count = 0 if self.absent else len(ids)
        margins.update(ids[:count], proposals[:count])

    def _everywhere(self, model: nn.Module) -> bool:
        # They exchange margins, whatever the model is.
        return processes() > 1

    def state_dict(self) -> dict[str, Any]:
        """The margins, and where schedules and noise stand."""
        return {"margins": self.margins.state_dict(), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved margins; ValueError when they belong to another training set."""
        self._claim(state)
        self.margins.load_state_dict(state["margins"])
        super().load_state_dict(state)
