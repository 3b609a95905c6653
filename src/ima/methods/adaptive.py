"""What methods share that keep one number for every training sample."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ima.attacks.lockstep import processes
from ima.doubt import Doubt
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
        """The margins and what they are measured in; where schedules and noise stand."""
        margins, units = self.margins.state_dict(), self._units()
        return {"margins": margins, "units": units, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved margins.

        ValueError where they belong to another training set, or are measured in another norm; a
        `Doubt` where `eps` or `delta` was another one: those may be changed on the way.
        """
        self._claim(state)
        self._compare(state.get("units", {}))
        self.margins.load_state_dict(state["margins"])
        super().load_state_dict(state)

    def _units(self) -> dict[str, Any]:
        delta = getattr(self, "delta", None)
        return {"norm": self.setting.norm.name, "eps": self.eps, "delta": delta}

    def _compare(self, saved: Mapping[str, Any]) -> None:
        """Raise or warn where a state was saved with other settings; earlier ones do not say."""
        own = self._units()
        other = {name: had for name, had in saved.items() if had != own[name]}
        if "norm" in other:
            raise ValueError(
                f"the saved margins are measured in {other['norm']}, but this "
                f"{type(self).__name__} measures noise in {own['norm']}, where they mean nothing; "
                "build it with the same norm before loading, or begin with new margins"
            )
        if other:
            told = " and ".join(f"{name} {had}, and now {own[name]}" for name, had in other.items())
            warnings.warn(
                f"the saved state is of a {type(self).__name__} with {told}: its margins go on "
                "from where they are, within the new eps. If that is not meant, build it with the "
                "same options",
                Doubt,
                stacklevel=3,
            )
