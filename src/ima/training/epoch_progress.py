"""How far an epoch has come: what a run that stops in the middle of one must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from ima.methods import Method

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MEANS = ("loss", "margin", "radius", "kept", "held_clean", "clean_cost")
"""Metrics that are means over a batch; all others are counts."""


@dataclass
class EpochProgress:
    """An epoch under way, in one process.

    batches: that are done; seconds: that they took; sums: of their metrics, on the device; random:
    torch's random states after them, empty at the start of an epoch.
    """

    batches: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    random: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def add(self, metrics: Mapping[str, Tensor], samples: int, seconds: float) -> None:
        """Count one more batch."""
        for name, value in metrics.items():
            weight = samples if name in MEANS else 1
            old = self.sums.get(name, torch.zeros((), device=value.device))
            self.sums[name] = old + value * weight
        self.batches += 1
        self.seconds += seconds

    def begin(self, seed: int, device: torch.device) -> None:
        """Set torch's random state: to the epoch's seed, or where the epoch was left."""
        torch.manual_seed(seed)
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random and device.type == "cuda":
            torch.cuda.set_rng_state(self.random["cuda"], device)


def shares(progress: EpochProgress, method: Method, fabric: Fabric) -> list[dict[str, Any]]:
    """What every process must keep of the epoch, by rank; every process must call it.

    The first one's method stands elsewhere in the state.
    """
    random = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(fabric.device)
    mine = {
        "batches": progress.batches,
        "seconds": progress.seconds,
        "sums": {name: value.cpu() for name, value in progress.sums.items()},
        "random": random,
        "method": method.state_dict() if fabric.global_rank else None,
    }
    if fabric.world_size == 1:
        return [mine]
    found: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(found, mine)
    return found


def restored(saved: Sequence[Mapping[str, Any]], method: Method, fabric: Fabric) -> EpochProgress:
    """The epoch under way from what `shares` kept, in this process.

    Raises ValueError where another number of processes kept it.
    """
    if len(saved) != fabric.world_size:
        raise ValueError(
            f"the run was stopped in the middle of an epoch with {len(saved)} processes, and "
            f"continues with {fabric.world_size}; continue it with --devices {len(saved)}"
        )
    mine = saved[fabric.global_rank]
    if mine["method"] is not None:
        method.load_state_dict(mine["method"])
    sums = {name: value.to(fabric.device) for name, value in mine["sums"].items()}
    return EpochProgress(mine["batches"], mine["seconds"], sums, mine["random"])


def summary(sums: Mapping[str, float]) -> dict[str, float]:
    """An epoch's sums as means and shares, for metrics.csv."""
    samples, noisy = sums["samples"], sums.get("noisy_samples", 0.0)
    row = {"loss": sums["loss"] / samples, "train_accuracy": sums["correct"] / samples}
    if "noisy_samples" in sums:
        shares = {"train_noisy_accuracy": "noisy_correct", "crossed": "crossed", "stuck": "stuck"}
        row |= {name: sums[of] / max(noisy, 1) for name, of in shares.items()}
    row |= {name: sums[name] / samples for name in (*MEANS[1:], "growing") if name in sums}
    return row
