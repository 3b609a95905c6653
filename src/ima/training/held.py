"""The samples that a network is hardened on, and those held out, by which it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ima.data.split import stratified
from ima.evaluation.batches import indexable, refuse_data
from ima.evaluation.items import ItemPart, Keys, batch_of, pair, several
from ima.evaluation.naming import Names, Naming
from ima.tasks import Tree, leaves

SHARE = 5
"""One sample in so many is held out..."""

MOST = 500
"""...and no more than these."""

FEW = 16
"""So many samples are read twice, to see whether they change."""


@dataclass(frozen=True, eq=False)
class Samples(Dataset[tuple[Tensor, Tree]]):
    """Some samples of a data set, by their places in it, each read when it is asked for."""

    data: Any
    places: tuple[int, ...]
    keys: Keys

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tree]:
        return pair(self.data[self.places[index]], self.keys)

    def batch(self, ids: Sequence[int]) -> ItemPart:
        """Samples as one batch."""
        return batch_of([self.data[self.places[id_]] for id_ in ids], self.keys, None)

    def changes(self) -> bool:
        """Whether a sample is another one each time it is read, as random crops make it."""
        few = range(min(FEW, len(self)))
        return any(not torch.equal(self[at][0], self[at][0]) for at in few)


@dataclass(frozen=True, eq=False)
class Judged:
    """The samples that decide, read once, so that each is the same whenever it is looked at.

    own: whether they were split off from the data that the network is trained on.
    """

    data: Dataset[Any]
    names: Sequence[tuple[str, int]] | None
    own: bool
    count: int


def split(
    data: Any, held_out: Any, names: Names | None, keys: Keys, seed: int
) -> tuple[Samples, Judged]:
    """What is trained on, and what is held out: one sample in five where `held_out` is None.

    Classes stay in proportion where targets are labels; samples of one case stay together.
    Raises TypeError for data that have no number of samples, ValueError for too few of them.
    """
    named = _indexable("data" if held_out is None else "held_out", data, held_out, keys)
    naming = Naming.of(None, names)
    found: list[str | int] = []
    targets: list[Tree] = []
    for at in range(len(named)):
        # All are read before any work: a sample that cannot be is better known now.
        part = batch_of([named[at]], keys, naming.key)
        targets.append(part.y)
        found += part.cases or ()
    cases = naming.names if naming.key is None else Naming.of(None, found).names
    if cases is not None and len(cases) != len(named):
        raise ValueError(
            f"names are {len(cases)} for {len(named)} samples; expected one for every sample"
        )
    own = held_out is None
    held = np.ones(len(named), dtype=np.bool_)
    if own or len(named) > MOST:
        held = _held(targets, None if cases is None else [case for case, _ in cases], seed, own=own)
    kept, aside = (tuple(np.flatnonzero(mask).tolist()) for mask in (~held, held))
    some = None if cases is None else [cases[at] for at in aside]
    train = Samples(data, kept if own else tuple(range(len(data))), keys)
    return train, _judged(Samples(named, aside, keys), some, own=own)


def _judged(samples: Samples, names: Sequence[tuple[str, int]] | None, *, own: bool) -> Judged:
    read = [samples[at] for at in range(len(samples))]
    # As a data set: a list of pairs may be taken for batches.
    data = Subset(read, range(len(read)))  # pyright: ignore[reportArgumentType]
    return Judged(data, names, own, len(read))


def _held(
    targets: Sequence[Tree], cases: Sequence[str] | None, seed: int, *, own: bool
) -> NDArray[np.bool_]:
    """Which samples are held out, (N,) bool. own: of those that are trained on."""
    n = len(targets)
    count = min(MOST, max(1, n // SHARE) if own else n)
    if cases is None:
        label = all(len(leaves(y)) == 1 and _label(leaves(y)[0]) for y in targets)
        kinds = [int(leaves(y)[0]) if label else 0 for y in targets]
        if n < 2:
            raise ValueError(f"data are {n} sample; expected several, of which one is held out")
        return stratified(np.array(kinds), count, seed)
    names = sorted(set(cases))
    if len(names) < 2:
        if not own:
            return np.ones(n, dtype=np.bool_)
        raise ValueError(
            f"all samples are of one case, {names[0]!r}, so that none can be held out; pass "
            "held_out=, of other cases"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    held = np.zeros(n, dtype=np.bool_)
    for at in order[:-1]:
        held |= np.array([case == names[at] for case in cases])
        if held.sum() >= count:
            break
    return held


def _label(y: Tensor) -> bool:
    return y.numel() == 1 and not (y.is_floating_point() or y.is_complex())


def _indexable(what: str, data: Any, held_out: Any, keys: Keys) -> Any:
    """The data that are split or judged by; TypeError or ValueError where a loop cannot use it."""
    for name, one in (("data", data), *((("held_out", held_out),) if what != "data" else ())):
        if isinstance(one, DataLoader):
            raise TypeError(
                f"{name} is a DataLoader; expected a data set, whose samples have numbers: pass "
                "loader.dataset"
            )
        refuse_data(one)
        if not indexable(one):
            raise TypeError(
                f"{name} is a {type(one).__name__}; expected a data set with __getitem__ and "
                "__len__: each training sample keeps a margin, and some are held out"
            )
        if len(one) == 0:
            raise ValueError(f"{name} is empty; expected samples (x, y)")
        if several(one[0], keys):
            raise ValueError(
                f"an item of {name} holds several samples; expected one sample (x, y) each"
            )
    return data if what == "data" else held_out
