"""E(i): one margin a training sample, across processes and restarts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class Margins:
    """One margin (a float32 number) for every training sample, found by the sample's id.

    num_samples: size of the training set, 1 or more; ids are 0 to num_samples - 1.
    initial: where every margin starts, in x's units.
    cap: largest margin, in x's units, or infinite; margins stay in [0, cap].

    The margins live on the device of the ids that were asked for last. In a run of several
    processes every process collects the proposals of all, so all hold the same margins.
    Raises ValueError for num_samples below 1.
    Source: Ma & Liang, IMA training, 2023, E(i) in Algorithm 1.

    >>> import ima, torch
    >>> margins = ima.Margins(3, initial=0.1, cap=1.0)
    >>> margins.update(torch.tensor([0, 2]), torch.tensor([0.5, 7.0]))
    >>> margins[torch.tensor([0, 1, 2])]
    tensor([0.5000, 0.1000, 1.0000])
    """

    def __init__(self, num_samples: int, *, initial: float, cap: float) -> None:
        if not isinstance(num_samples, Integral) or num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; expected at least one training sample")
        self.cap = cap
        self.values = torch.full((int(num_samples),), min(initial, cap), dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """A copy of the margins of `ids`, (B,); TypeError or ValueError for unusable ids."""
        self._check(ids)
        self.values = self.values.to(ids.device)
        return self.values[ids.long()]

    def of(self, ids: Tensor, x: Tensor) -> Tensor:
        """A copy of the margins of a batch, (B,), on the device of x.

        ids: (B,) integers.
        x: (B, *dims).

        Raises TypeError or ValueError for unusable ids, or more or fewer ids than samples.
        """
        if not isinstance(ids, Tensor):
            self._check(ids)
        if len(ids) != len(x):
            raise ValueError(f"{len(ids)} ids came with {len(x)} samples; expected one for each")
        return self[ids.to(x.device)]

    def update(self, ids: Tensor, proposals: Tensor) -> None:
        """Set the margins of some samples; every process must call it, also without any ids.

        ids: (B,) integers. If an id comes more than once, here or in another process, the smallest
            proposal wins, so neither order nor number of processes matters.
        proposals: (B,), the new margins, which are clipped to [0, cap].
        """
        self._check(ids)
        if proposals.shape != ids.shape:
            raise ValueError(f"{len(proposals)} proposals came with {len(ids)} ids")
        ids = ids.detach().long()
        proposals = proposals.detach().float().nan_to_num(nan=0.0).clamp(0, self.cap)
        self.values = self.values.to(ids.device)
        ids, proposals = gather_rows(ids, proposals)
        self.values.scatter_reduce_(0, ids, proposals, "amin", include_self=False)

    def histogram(self, bins: int) -> tuple[list[float], list[int], float]:
        """A histogram of the margins over [0, cap], and their median.

        bins: how many, 1 or more.

        Returns the bins' edges (bins + 1 numbers), the counts (bins numbers) and the median.
        """
        values = self.values.cpu()
        # Without a cap, up to a power of two: later bins are earlier ones halved or joined.
        largest = float(values.max()) or 1.0
        top = self.cap if math.isfinite(self.cap) else 2.0 ** math.ceil(math.log2(largest))
        counts = torch.histc(values, bins, 0.0, top)
        edges: list[float] = torch.linspace(0, top, bins + 1).tolist()
        return edges, [int(count) for count in counts], float(np.median(values.numpy()))

    def state_dict(self) -> dict[str, Tensor]:
        """The margins on the CPU."""
        return {"values": self.values.detach().cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue with saved margins; ValueError if they are of another number of samples."""
        values = state["values"]
        if values.shape != self.values.shape:
            raise ValueError(
                f"the saved state holds margins of {len(values)} samples, but this training set "
                f"has {len(self)}; load it with the data set that it was trained on"
            )
        self.values = values.detach().float().clamp(0, self.cap).to(self.values.device)

    def _check(self, ids: Tensor) -> None:
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
            came = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(
                f"ids are {came}; expected a tensor of integers, which samples these are: wrap the "
                "training set, DataLoader(ima.Indexed(train_set), ...), whose batches are (x, y, "
                "ids), and pass these on"
            )
        if ids.ndim != 1:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; expected (batch,)")
        ids = ids.long()
        wrong = (ids < 0) | (ids >= len(self))
        if bool(wrong.any()):
            raise ValueError(
                f"id {int(ids[wrong][0])} is out of range; num_samples is {len(self)}, so ids must "
                f"be 0 to {len(self) - 1}: pass num_samples=len(train_set)"
            )


def gather_rows(*columns: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of the processes.

    columns: (B, ...) each, alike in all processes but for B.
    """
    first = columns[0]
    if not (dist.is_available() and dist.is_initialized()) or _world() == 1:
        return columns
    # Batches may differ in length between processes: all are padded to the longest.
    sizes = [torch.zeros(1, dtype=torch.long, device=first.device) for _ in range(_world())]
    dist.all_gather(sizes, torch.tensor([len(first)], device=first.device))
    lengths = [int(size) for size in sizes]
    found: list[Tensor] = []
    for column in columns:
        sent = column.byte() if column.dtype == torch.bool else column
        mine = sent.new_zeros((max(lengths), *sent.shape[1:]))
        mine[: len(sent)] = sent
        parts = [torch.empty_like(mine) for _ in lengths]
        dist.all_gather(parts, mine)
        rows = torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])
        found.append(rows.to(column.dtype))
    return tuple(found)


def _world() -> int:
    return dist.get_world_size()
