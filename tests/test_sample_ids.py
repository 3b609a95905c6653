"""Ids of streamed samples: the same whoever reads them, in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import mlp, seeded
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ima import IMA, SampleIds

COUNT = 48

X = torch.rand(COUNT, 6, generator=seeded(0))
NAMES = [f"shard{i % 5}/{i:03}.jpg" for i in range(COUNT)]


class Stream(IterableDataset[dict[str, Any]]):
    """Samples with names, spread over workers, shuffled otherwise in every epoch."""

    def __init__(self, targets: Tensor) -> None:
        self.targets, self.epoch = targets, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        mine = list(range(COUNT)) if info is None else list(range(info.id, COUNT, info.num_workers))
        random.Random(self.epoch).shuffle(mine)
        for i in mine:
            yield {"__key__": NAMES[i], "image": X[i], "label": self.targets[i]}


def margins(ids: Any, workers: int) -> Tensor:
    """Every sample's margin after two epochs of a network that does not learn, by its number.

    ids(batch, seen): of the samples; seen: how many came before in this epoch.
    """
    net = mlp((6,))
    stream = Stream(net(X).argmax(1))
    method = IMA(num_samples=COUNT, eps=2.0, delta=0.3, steps=5, variant="paper")
    for epoch in range(2):
        stream.epoch, seen = epoch, 0
        for batch in DataLoader(stream, 7, num_workers=workers):
            method(net, batch["image"], batch["label"], ids(batch, seen))
            seen += len(batch["label"])
    return method.margins.values


def expected() -> Tensor:
    """The same, read in order by one process; in the order of the sorted names."""
    net = mlp((6,))
    y = net(X).argmax(1)
    method = IMA(num_samples=COUNT, eps=2.0, delta=0.3, steps=5, variant="paper")
    order = torch.tensor(sorted(range(COUNT), key=NAMES.__getitem__))
    for _ in range(2):
        for ids in torch.arange(COUNT).split(7):
            method(net, X[order[ids]], y[order[ids]], ids)
    return method.margins.values


@pytest.mark.parametrize("workers", [0, 2])
def test_margins_belong_to_the_samples_of_a_shuffled_stream(workers: int) -> None:
    known = SampleIds(reversed(NAMES))
    found = margins(lambda batch, _: known(batch["__key__"]), workers)
    assert found.unique().numel() > 5
    torch.testing.assert_close(found, expected())


def test_numbers_by_arrival_would_mix_them_up() -> None:
    def arrived(batch: dict[str, Any], seen: int) -> Tensor:
        return torch.arange(seen, seen + len(batch["label"]))

    assert not torch.allclose(margins(arrived, 2), expected())


@given(st.sets(st.text(min_size=1), min_size=1), st.randoms())
def test_ids_are_all_numbers_once_whatever_the_order(names: set[str], source: Any) -> None:
    # NumPy drops zeros at the end of a text.
    names = {name.rstrip("\0") or "a" for name in names}
    one, other = sorted(names), sorted(names)
    source.shuffle(one)
    source.shuffle(other)
    ids = SampleIds(one)
    assert sorted(ids(one).tolist()) == list(range(len(ids)))
    assert torch.equal(SampleIds(other)(one), ids(one))


def test_whole_numbers_are_names_too() -> None:
    ids = SampleIds([70, 10, 40])
    assert ids(torch.tensor([40, 70])).tolist() == [1, 2]
    assert ids(np.array([10])).tolist() == [0]
    assert ids([]).tolist() == []


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        ([], ValueError, "no names"),
        (["a", "b", "a"], ValueError, "'a' comes twice"),
        (["a", 1], TypeError, "all texts, or all whole numbers"),
        ([1.5, 2.5], TypeError, "1.5, a float"),
        ([True, False], TypeError, "True, a bool"),
    ],
)
def test_what_cannot_be_names(names: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        SampleIds(names)


@pytest.mark.parametrize("unknown", ["0", "b", "zz"])
def test_an_unknown_name_is_said(unknown: str) -> None:
    with pytest.raises(ValueError, match=f"'{unknown}' is no name of the 2 training samples"):
        SampleIds(["a", "c"])(["a", unknown])
