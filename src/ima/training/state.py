"""Everything that changes while a run trains, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ima.methods import Method
from ima.training.checkpoint import load_state, save_state
from ima.training.epoch_progress import EpochProgress, restored, shares
from ima.training.same import ORIGIN

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Best:
    """The epoch that validation picks: by score, then clean accuracy, then the later one.

    picks: the row of `ima.training.picking.RULES` that makes the score; "mean" in states from
    before there were several.
    """

    epoch: int = -1
    score: float = -1.0
    clean: float = -1.0
    picks: str = "mean"

    def improved(self, epoch: int, score: float, clean: float) -> bool:
        """Whether this epoch is better; then it is the best from now on."""
        if (score, clean) < (self.score, self.clean):
            return False
        self.epoch, self.score, self.clean = epoch, score, clean
        return True


@dataclass
class State:
    """What a run trains. model: the bare one; wrapped: what Fabric made of it, for training.

    origin: with which config and samples, see `ima.training.same`.
    """

    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    method: Method
    best: Best = field(default_factory=Best)
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def chosen(self) -> nn.Module:
        """The weights that are validated and kept."""
        return self.model if self.average is None else self.average.module

    def share_statistics(self) -> None:
        """Give all processes the first one's running statistics, which are those that are saved.

        DDP does so in a training pass only, and some methods look at the samples before it.
        """
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)

    def save(
        self, path: Path, fabric: Fabric, epoch: int, progress: EpochProgress | None = None
    ) -> None:
        """Write what a resumed run needs. epoch: the last whole one; progress: the one under way.

        With an epoch under way, every process must call it; the first one writes.
        """
        kept = None if progress is None else shares(progress, self.method, fabric)
        if not fabric.is_global_zero:
            return
        save_state(
            path,
            {
                "epoch": epoch,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "method": self.method.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "best": vars(self.best),
                "average": None if self.average is None else self.average.state_dict(),
                "amid": kept,
                ORIGIN: self.origin,
            },
        )

    def load(self, path: Path, fabric: Fabric) -> tuple[int, EpochProgress]:
        """Continue from what `save` wrote: the next epoch, and how far it has come."""
        state = load_state(path)
        try:
            self._take(state, fabric)
            # Absent in states from before runs could stop within an epoch.
            kept, epoch = state.get("amid"), int(state["epoch"]) + 1
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} does not fit the run's config, or is damaged ({type(error).__name__}: "
                f"{error}); put both back as they were, or begin a new run with --out"
            ) from error
        return epoch, EpochProgress() if kept is None else restored(kept, self.method, fabric)

    def _take(self, state: Mapping[str, Any], fabric: Fabric) -> None:
        self.model.load_state_dict(state["model"])
        groups = (state["optimizer"]["param_groups"], self.optimizer.state_dict()["param_groups"])
        # PyTorch takes another optimiser's state without a word; versions of one differ by more.
        had, has = ({"betas", "momentum"} & set(found[0]) for found in groups)
        if had != has:
            raise ValueError(f"its optimizer has {min(had)}, the config's has {min(has)}")
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.best = Best(**state["best"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        if (self.average is None) != (state["average"] is None):
            raise ValueError("it has averaged weights and the config none, or the other way around")
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def epochs_done(state: Mapping[str, Any], folder: Path) -> str:
    """How far a saved state has trained, such as "6", or "6 and part of 7" where it was stopped.

    Raises FileNotFoundError before the first epoch is done.
    """
    done = int(state["epoch"]) + 1
    if done < 1:
        raise FileNotFoundError(
            f"{folder} has no finished epoch; train it first: ima train --resume {folder}"
        )
    # Absent in states from before runs could stop within an epoch.
    return str(done) if state.get("amid") is None else f"{done} and part of {done + 1}"
