"""Sample ids for streams, whose samples have names and no numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


class SampleIds:
    """The id of every sample of a stream, by its name, which methods with margins need.

    names: of all training samples, each once: texts such as file names, or whole numbers.

    Ids go by the sorted names: whoever reads the samples, in whatever order, in whatever epoch,
    process or session, finds the same ids, as long as the names are the same. Where samples have
    numbers already, `ima.Indexed` is simpler.
    Raises ValueError for no names, and for a name that comes twice; TypeError for other kinds.

    >>> import ima
    >>> ids = ima.SampleIds(["cat/2.jpg", "cat/1.jpg", "dog/1.jpg"])
    >>> len(ids), ids(["dog/1.jpg", "cat/1.jpg"])
    (3, tensor([2, 0]))
    """

    def __init__(self, names: Iterable[str] | Iterable[int]) -> None:
        found = list(names)
        if not found:
            raise ValueError("there are no names; expected that of every training sample")
        kinds = {_kind(name) for name in found}
        if len(kinds) > 1 or kinds == {"other"}:
            strange = next((name for name in found if _kind(name) == "other"), found[-1])
            raise TypeError(
                f"names hold {strange!r}, a {type(strange).__name__}; expected all texts, or all "
                "whole numbers"
            )
        self.names = np.sort(np.array(found))
        (twice,) = (self.names[1:] == self.names[:-1]).nonzero()
        if len(twice):
            raise ValueError(
                f"the name {self.names[twice[0]].item()!r} comes twice; expected another for every "
                "sample, such as the path within the archive"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, names: Sequence[str] | Sequence[int] | Tensor) -> Tensor:
        """The ids of a batch, (B,) int64; ValueError for a name that is not among the samples'."""
        asked = names.cpu().numpy() if isinstance(names, Tensor) else np.array(list(names))
        places = np.minimum(np.searchsorted(self.names, asked), len(self.names) - 1)
        (unknown,) = (self.names[places] != asked).nonzero()
        if len(unknown):
            raise ValueError(
                f"{asked[unknown[0]].item()!r} is no name of the {len(self)} training samples; "
                "expected a name as SampleIds was given"
            )
        return torch.from_numpy(places.astype(np.int64))


def _kind(name: object) -> str:
    if isinstance(name, str):
        return "text"
    whole = isinstance(name, int | np.integer) and not isinstance(name, bool)
    return "number" if whole else "other"
