"""d(i): for every training sample the direction in which its nearest boundary point was last seen.

In half precision, as one block of num_samples samples; across processes and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ima.margins import gather_rows
from ima.norms import Norm, per_sample

LIMIT = 2**30
"""Bytes that all directions may take together; larger data sets keep none."""


class Directions:
    """One direction of length 1 for every training sample, found by the sample's id.

    num_samples: size of the training set. Nothing is kept before the first batch says how large a
    sample is.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.values: Tensor | None = None
        self.known = torch.zeros(num_samples, dtype=torch.bool)

    def fits(self, x: Tensor) -> bool:
        """Whether directions of samples like those of x, (B, *dims), are kept at all."""
        return self.num_samples * x[:1].numel() * 2 <= LIMIT

    def of(self, ids: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The directions of a batch, like `like`, and which are known, (B,) bool."""
        if self.values is None:
            return torch.zeros_like(like), torch.zeros(len(ids), dtype=torch.bool).to(like.device)
        self._move(like.device)
        if self.values.shape[1:] != like.shape[1:]:
            came, had = tuple(like.shape[1:]), tuple(self.values.shape[1:])
            raise ValueError(
                f"samples have shape {came}, and had {had} before; expected one shape: pass "
                "augmented=True where samples change"
            )
        ids = ids.to(like.device)
        return self.values[ids].to(like.dtype), self.known[ids]

    def update(self, ids: Tensor, offsets: Tensor, norm: Norm) -> None:
        """Keep the directions of the offsets that are not 0; every process must come here.

        ids: (B,); offsets: (B, *dims), or none at all.
        """
        self._move(offsets.device)
        size = norm.size(offsets)
        unit = offsets / per_sample(torch.where(size > 0, size, 1), offsets)
        ids, unit, moved = gather_rows(ids.to(offsets.device), unit, size > 0)
        if self.values is None:
            shape = (self.num_samples, *offsets.shape[1:])
            self.values = torch.zeros(shape, dtype=torch.float16, device=offsets.device)
        (rows,) = moved.nonzero(as_tuple=True)
        # The last of several with one id counts, on every device.
        ids, rows = _last(ids[rows], rows)
        self.values[ids] = unit[rows].to(self.values.dtype)
        self.known[ids] = True

    def _move(self, device: torch.device) -> None:
        self.known = self.known.to(device)
        self.values = None if self.values is None else self.values.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        """The directions on the CPU; nothing before the first batch."""
        if self.values is None:
            return {}
        return {"values": self.values.cpu().clone(), "known": self.known.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue with saved directions; ValueError if they are of other samples."""
        if not state:
            self.values, self.known = None, torch.zeros_like(self.known)
            return
        if len(state["known"]) != self.num_samples:
            raise ValueError(
                f"the saved state holds directions of {len(state['known'])} samples, but this "
                f"training set has {self.num_samples}; load it with the data set of its training"
            )
        self.values, self.known = state["values"].clone(), state["known"].clone()


def _last(ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Every id once, with the last of its rows."""
    unique, place = torch.unique(ids, return_inverse=True)
    last = torch.zeros_like(unique).scatter_reduce_(0, place, rows, "amax", include_self=False)
    return unique, last
