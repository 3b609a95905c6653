"""Which slices nnU-Net draws, and one integer for each of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import accumulate
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor


class SliceLoader(nnUNetDataLoader):
    """nnU-Net's loader, which also says which slice of each case it drew.

    A batch has one more key, `slices`: (B,) int64, the place along the case's first axis after
    nnU-Net's transpose; 0 where patches are 3-D.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._drawn: list[int] = []

    def get_bbox(self, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """The corners of a patch, as nnU-Net draws them; their first entry is remembered."""
        lower, upper = super().get_bbox(*args, **kwargs)
        self._drawn.append(int(lower[0]) if self.patch_size_was_2d else 0)
        return lower, upper

    def generate_train_batch(self) -> dict[str, Any]:
        """nnU-Net's batch and `slices`; RuntimeError where they cannot be told."""
        self._drawn = []
        batch: dict[str, Any] = super().generate_train_batch()
        slices = np.array(self._drawn, dtype=np.int64)
        if len(slices) != len(batch["keys"]) or (slices < 0).any():
            raise RuntimeError(
                f"nnU-Net drew {len(slices)} patches for {len(batch['keys'])} cases; this nnU-Net "
                "loads its data in another way than 2.8, for which the trainers are written"
            )
        return {**batch, "slices": slices}


@contextmanager
def slices_told() -> Generator[None]:
    """Within: nnU-Net's trainers build `SliceLoader`s."""
    home = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    with patch.object(home, "nnUNetDataLoader", SliceLoader):
        yield


@dataclass(frozen=True)
class Ids:
    """One integer, 0 to len - 1, for every slice of every case; or for every case in 3-D.

    cases: names; slices: how many of each have an id, all 1 in 3-D.
    """

    cases: tuple[str, ...]
    slices: tuple[int, ...]
    _first: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = accumulate(self.slices, initial=0)
        object.__setattr__(self, "_first", dict(zip(self.cases, starts, strict=False)))

    @staticmethod
    def of(dataset: Any, cases: Iterable[str], *, flat: bool) -> Ids:
        """The ids of the cases of one of nnU-Net's preprocessed data sets; flat: 2-D patches.

        Raises FileNotFoundError for a case that is not preprocessed.
        """
        names = sorted(map(str, cases))
        counts: list[int] = []
        for name in names:
            try:
                shape = dataset.load_case(name)[0].shape
            except (OSError, RuntimeError) as error:
                raise FileNotFoundError(
                    f"the split names the case {name!r}, which is not preprocessed (or damaged) in "
                    f"{dataset.source_folder}; plan and preprocess again, or correct "
                    "splits_final.json"
                ) from error
            counts.append(int(shape[1]) if flat else 1)
        return Ids(tuple(names), tuple(counts))

    def __len__(self) -> int:
        return sum(self.slices)

    def __call__(self, cases: Sequence[str], slices: Sequence[int]) -> Tensor:
        """The ids, (B,) int64, of drawn slices; KeyError for a case that is none of these."""
        first = [self._first[str(case)] for case in cases]
        return torch.tensor([a + int(b) for a, b in zip(first, slices, strict=True)])
