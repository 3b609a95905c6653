"""Data as people have them: samples and batches are told apart, or refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

from ima import Indexed, Results, Segmentation, evaluate, minimal
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_table import CHECKS


class Stream(IterableDataset[Any]):
    """Items that come one after the other, without a length."""

    def __init__(self, items: Any) -> None:
        self.items = list(items)

    def __iter__(self) -> Any:
        return iter(self.items)


class Counted(Stream):
    """The same, which says how many there are."""

    def __init__(self, items: Any, said: int) -> None:
        super().__init__(items)
        self.said = said

    def __len__(self) -> int:
        return self.said


class Silent(Stream):
    """A stream that raises where it is asked for its length."""

    def __len__(self) -> int:
        raise RuntimeError("unknown")


class MapStyle:
    """A data set without a base class, which may say that it is longer than it is."""

    def __init__(self, items: Any, said: int | None = None) -> None:
        self.items = list(items)
        self.said = len(self.items) if said is None else said

    def __len__(self) -> int:
        return self.said

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def identity(dims: int, channels: int, outputs: int | None = None) -> nn.Module:
    """A convolution that passes its channels on, by which a pixel above 0 is foreground."""
    outputs = channels if outputs is None else outputs
    net = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](channels, outputs, 1)
    with torch.no_grad():
        net.weight.zero_()
        for k in range(channels):
            net.weight[outputs - channels + k, k] = 1.0
        net.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    return net


def masks(channels: int, *side: int, n: int = 4) -> tuple[Tensor, Tensor]:
    """Samples, and regions that are nearly those that the network sees."""
    x = torch.rand(n, channels, *side, generator=torch.Generator().manual_seed(3)) - 0.5
    y = (x > 0).float()
    y[..., :2] = 0
    return x, y


def pairs(x: Tensor, y: Any) -> list[Any]:
    return list(zip(x, y, strict=True))


def n_of(x: Tensor) -> int:
    return len(x)


def dicts(x: Tensor, y: Any) -> list[Any]:
    return [{"image": a, "label": b, "path": None} for a, b in zip(x, y, strict=True)]


KINDS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "list of samples": pairs,
    "tuple of samples": lambda x, y: tuple(pairs(x, y)),
    "list of lists": lambda x, y: [list(one) for one in pairs(x, y)],
    "list of dicts": dicts,
    "arrays": lambda x, y: pairs(x.numpy(), y.numpy()),
    "with something more": lambda x, y: [(a, b, {"p": None}) for a, b in pairs(x, y)],
    "with ids": lambda x, y: Indexed(pairs(x, y)),
    "own class": lambda x, y: MapStyle(pairs(x, y)),
    "own class of batches": lambda x, y: MapStyle(zip(x.split(2), y.split(2), strict=True)),
    "part of a list": lambda x, y: Subset(pairs(x, y), range(len(x))),
    "several data sets": lambda x, y: ConcatDataset(
        [TensorDataset(x[:1], y[:1]), TensorDataset(x[1:], y[1:])]
    ),
    "generator of samples": lambda x, y: (one for one in pairs(x, y)),
    "stream of samples": lambda x, y: Stream(pairs(x, y)),
    "stream that hides its length": lambda x, y: Silent(pairs(x, y)),
    "stream with a length": lambda x, y: Counted(pairs(x, y), len(x)),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=3),
    "loader of samples": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=None),
    "loader of a stream": lambda x, y: DataLoader(Stream(pairs(x, y)), batch_size=3),
    "loader of a stream of samples": lambda x, y: DataLoader(Stream(pairs(x, y)), batch_size=None),
    "loader of lists": lambda x, y: DataLoader(dicts(x, y), batch_size=3, collate_fn=list),
    "loader that shuffles": lambda x, y: DataLoader(
        TensorDataset(x, y), batch_size=3, shuffle=True
    ),
    "list of batches": lambda x, y: list(zip(x.split(2), y.split(2), strict=True)),
    "list of one batch": lambda x, y: [(x, y)],
    "batches of arrays": lambda x, y: [(x.numpy(), y.numpy())],
    "lists of samples": lambda x, y: [dicts(x[:2], y[:2]), dicts(x[2:], y[2:])],
}

PROBLEMS: dict[str, tuple[nn.Module, Tensor, Tensor, Segmentation]] = {}
for name, dims, channels in (
    ("one region", 2, 1),
    ("as many regions as channels and samples", 2, 4),
    ("volumes, as many regions as samples", 3, 4),
    ("signals", 1, 1),
):
    shape = (6, 5, 4)[:dims]
    PROBLEMS[name] = (
        identity(dims, channels),
        *masks(channels, *shape),
        Segmentation(regions=True),
    )
X, Y = masks(1, 6, 5)
PROBLEMS |= {
    "labels": (identity(2, 1, 2), X, Y[:, 0].long(), Segmentation()),
    "labels with a channel": (identity(2, 1, 2), X, Y, Segmentation()),
    "one-hot labels": (identity(2, 1, 2), X, torch.cat([1 - Y, Y], 1), Segmentation()),
}


def figures(found: Results) -> list[tuple[int, str, float]]:
    return [(row.id, row.attack, round(row.quality, 6)) for row in found.rows]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_batches_are_told_apart(kind: str, problem: str) -> None:
    model, x, y, task = PROBLEMS[problem]
    expected = evaluate(model, TensorDataset(x, y), 0.3, ["ifgsm-2"], task=task, bounds=(-1, 1))
    assert 0.4 < expected.adi() < 1
    found = evaluate(model, KINDS[kind](x, y), 0.3, ["ifgsm-2"], task=task, bounds=(-1, 1))
    assert figures(found) == figures(expected)


LABELS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "numbers": lambda x, y: [(a, int(b)) for a, b in pairs(x, y)],
    "numpy numbers": lambda x, y: [(a.numpy(), np.int64(b)) for a, b in pairs(x, y)],
    "plain Python": lambda x, y: [(a.tolist(), int(b)) for a, b in pairs(x, y)],
    "lists of labels": lambda x, y: [(x[:5], y[:5].tolist()), (x[5:], y[5:].tolist())],
    "as many as features": lambda x, y: list(zip(x.split(3), y.split(3), strict=True)),
    "Hugging Face": lambda x, y: [{"image": a, "label": int(b)} for a, b in pairs(x, y)],
    "stream": lambda x, y: Stream((a, int(b)) for a, b in pairs(x, y)),
    "shuffled": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True),
}


def linear() -> nn.Module:
    net = nn.Linear(3, 3)
    with torch.no_grad():
        net.weight.copy_(5 * torch.eye(3))
        net.bias.zero_()
    return net


def vectors(n: int = 9) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    return x, x.argmax(1)


@pytest.mark.parametrize("kind", [*LABELS, *KINDS])
def test_labels_of_samples_and_of_batches_are_told_apart(kind: str) -> None:
    x, y = vectors()
    y[0] = (y[0] + 1) % 3
    data = {**KINDS, **LABELS}[kind]
    expected = evaluate(linear(), TensorDataset(x, y), 0.3, ["ifgsm-2"])
    found = evaluate(linear(), data(x, y), 0.3, ["ifgsm-2"])
    assert expected.accuracy() == 8 / 9 and 0 < expected.accuracy("ifgsm-2", 0.3) < 8 / 9
    assert [row.broken for row in found.rows] == [row.broken for row in expected.rows]
    clean = found.of_attack()
    assert (clean["id"].tolist(), clean["label"].tolist()) == (list(range(9)), y.tolist())


@pytest.mark.parametrize("kind", ["list of samples", "loader of a stream"])
def test_smallest_noise_is_found_on_data_of_every_kind(kind: str) -> None:
    x, y = vectors(4)
    expected = minimal(linear(), TensorDataset(x, y), 0.3)
    found = minimal(linear(), KINDS[kind](x, y), 0.3, ids=[7, 5, 3, 1])
    assert [row.id for row in found.rows] == [7, 5, 3, 1]
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3)


@pytest.mark.parametrize("kind", ["list of samples", "loader of a stream", "stream of samples"])
def test_the_checks_read_data_alike(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = {name: row for name, row in CHECKS.items() if name == "gradients"}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    model, x, y, task = PROBLEMS["one region"]
    both = [
        run_checks(model, data, 0.3, task=task, steps=2)
        for data in (TensorDataset(x, y), KINDS[kind](x, y))
    ]
    assert both[0] == both[1]
    settings = both[0].settings
    assert (settings.samples, settings.right, settings.total) == (4, 4, 4)


class Anything(nn.Module):
    """Takes what it is given, of whatever shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_may_be_either_is_refused_with_both_readings() -> None:
    x, y = masks(4, 6, 5)
    task = Segmentation(regions=True)
    for data in (pairs(x, y), [(x, y)], (one for one in pairs(x, y))):
        with pytest.raises(ValueError, match=r"one sample, or a batch of 4.*TensorDataset") as said:
            evaluate(Anything(), data, 0.3, ["ifgsm-2"], task=task)
        assert "DataLoader(samples, batch_size=16)" in str(said.value)
    found = [
        evaluate(Anything(), data, 0.3, ["ifgsm-2"], task=task)
        for data in (
            TensorDataset(x, y),
            MapStyle(pairs(x, y)),
            DataLoader(pairs(x, y), batch_size=16),  # pyright: ignore[reportArgumentType]
        )
    ]
    assert figures(found[0]) == figures(found[1]) == figures(found[2])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((X, Y), r"tuple of 2 tensors.*TensorDataset\(x, y\)"),
        ([X, Y], r"list of 2 tensors.*TensorDataset\(x, y\)"),
        ((X.numpy(), Y.numpy()), "tuple of 2 tensors"),
        ((list(X), list(Y[:, 0])), r"list\(zip\(x, y\)\)"),
        (X, r"one Tensor of shape \(4, 1, 6, 5\), without targets"),
        (X.numpy(), "one ndarray"),
        ({"image": X, "label": Y}, r"dict with the keys \['image', 'label'\]"),
        ("digits", "data is a str"),
        (3, "data is a int"),
        ([([X, X], Y)], "several inputs"),
        ([(X[0], "a word")], "a str as x or y"),
    ],
)
def test_what_are_no_data_are_refused_with_what_to_pass(data: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        evaluate(identity(2, 1, 2), data, 0.3, ["ifgsm-2"], task=Segmentation())


@pytest.mark.parametrize("batched", [True, False])
def test_two_items_of_several_sizes_are_no_two_lists(batched: bool) -> None:
    model, x, y, task = PROBLEMS["one region"]
    first, second = (x, y), (x[:, :, :3], y[:, :, :3])
    data = [first, second] if batched else [*pairs(*first)[:1], *pairs(*second)[:1]]
    found = evaluate(model, data, 0.3, ["ifgsm-2"], task=task, batch_size=1)
    assert len(found.at()) == (8 if batched else 2)


def test_two_lists_that_may_be_pairs_are_refused() -> None:
    model, x, y, task = PROBLEMS["one region"]
    with pytest.raises(ValueError, match="two pairs"):
        evaluate(model, (list(x), list(y)), 0.3, ["ifgsm-2"], task=task)
    x, y = X, Y[:, 0].long()
    zipped = DataLoader(
        TensorDataset(x, y), batch_size=2, collate_fn=lambda mates: tuple(zip(*mates, strict=True))
    )
    found = evaluate(identity(2, 1, 2), zipped, 0.3, ["ifgsm-2"], task=Segmentation())
    expected = evaluate(
        identity(2, 1, 2), TensorDataset(x, y), 0.3, ["ifgsm-2"], task=Segmentation()
    )
    assert figures(found) == figures(expected)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (nn.functional.one_hot(torch.arange(9) % 3, 3), r"y.argmax\(1\)"),
        (nn.functional.one_hot(torch.arange(9) % 3, 3).float(), r"y.argmax\(1\)"),
        (torch.arange(9)[:, None] % 3, r"y.reshape\(-1\).long\(\)"),
        (torch.arange(9).float() % 3, r"y.reshape\(-1\).long\(\)"),
    ],
)
@pytest.mark.parametrize("batched", [True, False])
def test_labels_in_other_forms_are_refused_with_what_makes_them(
    y: Tensor, words: str, batched: bool
) -> None:
    x, _ = vectors()
    with pytest.raises(TypeError, match=words):
        evaluate(linear(), TensorDataset(x, y) if batched else pairs(x, y), 0.3, ["ifgsm-2"])


def test_labels_that_count_from_1_are_said() -> None:
    x, y = vectors()
    with pytest.raises(ValueError, match=r"count from 1, pass y - 1"):
        evaluate(linear(), TensorDataset(x, y + 1), 0.3, ["ifgsm-2"])
    with pytest.raises(ValueError, match=r"count from 1, pass y - 1"):
        evaluate(
            identity(2, 1, 2), TensorDataset(X, Y[:, 0] + 1), 0.3, ["ifgsm-2"], task=Segmentation()
        )
    # Of which one less would be out of range too.
    with pytest.raises(ValueError, match=r"so labels must be 0 to 2$"):
        evaluate(linear(), TensorDataset(x, y + 7), 0.3, ["ifgsm-2"])


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("wrap", [TensorDataset, lambda x, y: DataLoader(pairs(x, y), n_of(x))])
def test_samples_without_channels_are_not_taken_for_a_sample_without_a_batch(
    wrap: Any, n: int
) -> None:
    x, y = masks(1, 6, 5, n=n)
    task = Segmentation(regions=True)
    with pytest.raises(ValueError, match=r"lack the dimension of channels, which x\[:, None\]"):
        evaluate(identity(2, n), wrap(x[:, 0], y[:, 0]), 0.3, ["ifgsm-2"], task=task)
    # In a list a sample has what the network takes.
    one = [(x[0, 0], y[0, 0])] if n == 1 else [(x[:, 0], y[:, 0])]
    if n > 1:
        found = evaluate(identity(2, n), one, 0.3, ["ifgsm-2"], task=task)
        assert len(found.at()) == 1
    else:
        with pytest.raises(ValueError, match="lack the dimension of channels"):
            evaluate(identity(2, 1), one, 0.3, ["ifgsm-2"], task=task)


# --- Lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize(("said", "given"), [(60, 6), (20, 2)])
def test_a_length_that_is_wrong_is_said(loader: bool, said: int, given: int) -> None:
    x, y = vectors(40)
    data: Any = Counted(pairs(x, y), said)
    calls: list[tuple[int, int]] = []
    with pytest.warns(UserWarning, match="batches|IterableDataset") as warned:
        found = evaluate(
            linear(),
            DataLoader(data, batch_size=10) if loader else data,
            0.3,
            ["ifgsm-2"],
            batch_size=10,
            progress=lambda done, total: calls.append((done, total)),
        )
    assert any(f"have {given} batches and gave 4" in str(one.message) for one in warned)
    assert len(found.broken("clean", 0.0)) == 40
    assert all(done <= total or total == 0 for done, total in calls)


def test_a_data_set_that_says_it_is_longer_is_named() -> None:
    data = MapStyle(pairs(*vectors(40)), said=50)
    with pytest.raises(ValueError, match="hold 50 items, but item 40 cannot be read"):
        evaluate(linear(), data, 0.3, ["ifgsm-2"])


@pytest.mark.parametrize(
    "data", [Stream([]), DataLoader(Stream([])), Counted([], 0), (), MapStyle([])]
)
@pytest.mark.parametrize("entrance", [evaluate, minimal, run_checks])
def test_nothing_is_said_to_be_empty(data: Any, entrance: Any) -> None:
    with pytest.raises(ValueError, match="the data set is empty"):
        entrance(linear(), data, 0.3)


@pytest.mark.parametrize("entrance", [evaluate, minimal, run_checks])
def test_samples_that_are_no_floats_are_said_before_the_network_sees_them(entrance: Any) -> None:
    images = torch.randint(256, (4, 6, 6)).byte()
    for x in (images, torch.arange(4)):
        with pytest.raises(TypeError, match=r"x has dtype .*: scale it, for example x / 255"):
            entrance(nn.Conv2d(1, 2, 1), TensorDataset(x, torch.arange(4)), 0.1)


def test_workers_that_all_read_the_whole_stream_are_refused() -> None:
    loader = DataLoader(Stream(pairs(*vectors(8))), batch_size=4, num_workers=2)
    with pytest.raises(ValueError, match=r"2 workers all read the whole stream.*num_workers=0"):
        evaluate(linear(), loader, 0.3, ["ifgsm-2"])


def test_an_order_that_is_drawn_is_not_that_of_ids() -> None:
    data = TensorDataset(*vectors())
    loader = DataLoader(data, sampler=RandomSampler(data, replacement=True))
    with pytest.raises(ValueError, match="an order of its own"):
        evaluate(linear(), loader, 0.3, ["ifgsm-2"], ids=range(9))
