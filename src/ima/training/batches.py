"""Which samples make up a batch: a permutation of each epoch, shared by all processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for every epoch, so that a resumed run repeats what it would have done."""
    return (seed * 1_000_003 + epoch * 7_919 + 1) % 2**63


def batch_seed(seed: int, epoch: int, number: int) -> int:
    """A seed of its own for batch `number` of an epoch, the same in every process."""
    return (epoch_seed(seed, epoch) * 1_000_003 + number) % 2**63


def batches(
    samples: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> Iterator[Tensor]:
    """The ids of every batch of one epoch, (batch,) int64 each, for this process.

    Every sample comes once; with several processes a batch that does not divide is padded with its
    own samples, and split so that the processes' batches together are the batch of one process.
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    order = torch.randperm(samples, generator=generator)
    for start in range(0, samples, batch_size):
        whole = order[start : start + batch_size]
        # Padded with samples of the same batch: margins merge proposals within a batch only.
        missing = -len(whole) % world
        whole = torch.cat([whole, whole[torch.arange(missing) % len(whole)]])
        yield whole[rank::world]
