"""Segmentation under attack: Dice that is known by hand is found, and every row keeps its word."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import cnn, redraw, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Classification, Results, evaluate
from ima.evaluation.batch import Example
from ima.evaluation.pictures import COUNT, Labelled, Pictures, collector
from ima.evaluation.remarks import Doubt
from ima.evaluation.results import BASE, CLEAN, WORST, Row
from ima.evaluation.settings import Settings
from ima.measures import DICE
from ima.tasks import Segmentation, full

ATTACKS = ("pgd-6", "ifgsm-4", "ensemble-4", "noise-3")


class PixelByPixel(nn.Module):
    """Foreground where a pixel is above 0: the noise that changes a pixel is the pixel itself."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), self.scale * x], 1)


class OneChannel(PixelByPixel):
    """The same through a sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class Scales(nn.Module):
    """Deep supervision: the full resolution and every second pixel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> list[Tensor]:
        z = self.inner(x)
        return [z, z[..., ::2, ::2]]


def conv(dims: int, outputs: int = 3, channels: int = 1, seed: int = 0) -> nn.Module:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    net = nn.Sequential(kind(channels, 6, 3, padding=1), nn.ReLU(), kind(6, outputs, 3, padding=1))
    return redraw(net, seed, scale=2.0)


def rows_of(results: Results, attack: str, eps: float) -> dict[int, Row]:
    return {row.id: row for row in results.rows if (row.attack, row.eps) == (attack, eps)}


def parts_of(row: Row) -> list[float]:
    """The Dice of every class."""
    return [dice for name, dice in row.more.items() if name.startswith("dice_")]


def plain(results: Results) -> list[str]:
    """The rows as text, in which NaN equals NaN."""
    return [repr(row) for row in results.rows]


# --- What is known --------------------------------------------------------------------------------


def flipped(x: Tensor, eps: float) -> float:
    """The lowest Dice that L-infinity noise below eps can leave of a right prediction."""
    foreground = x > 0
    lost = int((foreground & (x < eps)).sum())
    gained = int((~foreground & (x > -eps)).sum())
    truth = int(foreground.sum())
    return 2 * (truth - lost) / (2 * truth - lost + gained)


@pytest.mark.parametrize("attack", ["pgd-12", "ifgsm-8", "ensemble-12"])
@pytest.mark.parametrize("regions", [False, True])
def test_linf_noise_changes_every_pixel_within_its_reach(attack: str, regions: bool) -> None:
    x = torch.randn(6, 1, 5, 5, generator=seeded(3))
    y = (x > 0).long()
    model = OneChannel() if regions else PixelByPixel()
    radii = [0.11, 0.37, 0.83, 5.0]
    assert min(float((x.abs() - eps).abs().min()) for eps in radii) > 1e-4
    found = evaluate(
        model,
        TensorDataset(x, y),
        radii,
        [attack],
        norm="linf",
        task=Segmentation(regions=regions),
    )
    assert found.adi() == 1
    for eps in radii:
        for i, row in rows_of(found, attack, eps).items():
            assert row.quality == pytest.approx(flipped(x[i], eps), abs=1e-6)
    assert found.adi(attack, 5.0) == 0


def lowest_l2(x: Tensor, eps: float) -> float:
    """The lowest Dice that L2 noise of at most eps can leave: the nearest pixels change."""
    inside = np.sort(x[x > 0].numpy() ** 2)
    outside = np.sort(x[x <= 0].numpy() ** 2)
    best = 1.0
    for lost, gained in itertools.product(range(len(inside) + 1), range(len(outside) + 1)):
        if math.sqrt(inside[:lost].sum() + outside[:gained].sum()) < eps:
            best = min(best, 2 * (len(inside) - lost) / (2 * len(inside) - lost + gained))
    return best


def test_l2_noise_never_beats_what_is_possible_and_comes_near() -> None:
    x = torch.randn(12, 1, 4, 4, generator=seeded(5))
    radii, attacks = [0.3, 0.8, 1.5], ["pgd-40", "ensemble-40", "ifgsm-10", "noise-50"]
    found = evaluate(
        PixelByPixel(), TensorDataset(x, (x > 0).long()), radii, attacks, task=Segmentation()
    )
    gaps: list[float] = []
    for eps in radii:
        for attack in (*attacks, WORST):
            for i, row in rows_of(found, attack, eps).items():
                assert row.quality >= lowest_l2(x[i], eps) - 1e-6
                assert row.size <= eps * (1 + 1e-4) or (math.isnan(row.size) and row.quality == 1)
        gaps += [r.quality - lowest_l2(x[i], eps) for i, r in rows_of(found, WORST, eps).items()]
    # Which pixels are the nearest is a question of combinations, which no gradient answers.
    assert np.mean(gaps) < 0.13
    # Noise with an aim is well below noise without one.
    assert found.adi("pgd-40", 0.8) < found.adi("noise-50", 0.8) - 0.05


BY_HAND = torch.tensor(
    [[1, 1, 1, 0.1], [-1, -1, -1, -0.2], [-1, -1, -1, -1], [-1, -1, -1, -1]]
).reshape(1, 1, 4, 4)


@pytest.mark.parametrize("attack", ["pgd-10", "ifgsm-10", "ensemble-10"])
def test_dice_by_hand(attack: str) -> None:
    # One of four is lost: 2*3 / (3 + 4). Then one more is found: 2*3 / (4 + 4). Then all changes.
    expected = {0.15: 6 / 7, 0.3: 6 / 8, 1.5: 0.0}
    data = [(BY_HAND, (BY_HAND > 0).long())]
    found = evaluate(
        PixelByPixel(),
        data,
        list(expected),
        [attack, "white-1", "white-50"],
        norm="linf",
        task=Segmentation(),
    )
    for eps, dice in expected.items():
        (row,) = rows_of(found, attack, eps).values()
        assert row.quality == pytest.approx(dice)
        assert row.more == {"pixels": 4, "present": 1, "dice_class 1": row.quality}
        assert (row.case, row.slice) == ("", -1)
        assert found.adi(attack, eps) == found.mean(attack, eps) == row.quality
    # White noise of 0.05 reaches no pixel, and is no attack with a radius.
    assert found.white == ("white-1", "white-50")
    assert [found.adi(name, None) for name in found.white] == [1, 1]
    assert found.attacks == (attack,) and found.eps == tuple(expected)


def test_white_noise_is_uniform_to_its_amplitude_and_worse_the_more_is_drawn() -> None:
    generator = seeded(8)
    x = torch.where(torch.rand(40, 1, 4, 4, generator=generator) < 0.5, 0.04, -0.04)
    data = TensorDataset(x, (x > 0).long())
    options: dict[str, Any] = {"task": Segmentation(), "batch_size": 40}
    found = evaluate(PixelByPixel(), data, (), ["white-1", "white-20"], **options)
    # A pixel of 0.04 changes where the draw is beyond it: (0.05 - 0.04) / 0.1 of all draws.
    p = (x > 0).double().flatten(1).mean(1)
    wrong = 0.1
    expected = 2 * p * (1 - wrong) / (p + p * (1 - wrong) + (1 - p) * wrong)
    once = found.adi("white-1", 0.05)
    assert once == pytest.approx(float(expected.mean()), abs=0.03)
    assert found.adi("white-20", 0.05) < once - 0.05
    assert [found.amplitude(name) for name in found.white] == [0.05, 0.05]
    assert all(
        rows_of(found, "white-20", 0.05)[i].quality <= row.quality
        for i, row in rows_of(found, "white-1", 0.05).items()
    )
    within = evaluate(PixelByPixel(), data, (), ["white-20"], bounds=(-0.1, 0.1), **options)
    # Bounds that are 0.2 wide make it a fifth: 0.01 reaches no pixel.
    assert within.adi("white-20", 0.05) == 1


# --- Rows keep their word -------------------------------------------------------------------------


def labels_of(shape: Sequence[int], classes: int, seed: int = 1) -> Tensor:
    return torch.randint(0, classes, tuple(shape), generator=seeded(seed))


CASES: dict[str, tuple[nn.Module, tuple[int, ...], Segmentation, dict[str, Any]]] = {
    "signals": (conv(1), (1, 12), Segmentation(), {}),
    "images": (conv(2), (1, 8, 7), Segmentation(), {}),
    "two channels, within bounds": (
        conv(2, channels=2),
        (2, 6, 6),
        Segmentation(),
        {"bounds": (0.0, 1.0)},
    ),
    "linf": (conv(2), (1, 6, 6), Segmentation(walk="dice"), {"norm": "linf"}),
    "volumes": (conv(3), (1, 4, 5, 6), Segmentation(), {}),
    "regions": (conv(2, outputs=2), (1, 6, 6), Segmentation(regions=True), {}),
    "ignored pixels": (conv(2), (1, 6, 6), Segmentation(ignore_label=3), {}),
    "deep supervision": (Scales(conv(2)), (1, 8, 8), Segmentation(), {}),
}
RADII = (0.1, 0.4, 1.2)


def problem(case: str, count: int = 7) -> tuple[nn.Module, Any, Segmentation, dict[str, Any]]:
    """A model, batches of at most 4, task and options."""
    model, shape, task, options = CASES[case]
    x = torch.rand(count, *shape, generator=seeded(2))
    y: Any = labels_of((count, *shape[1:]), 4 if task.ignore_label else 3)
    y[-1] = 0
    if task.regions:
        # The last channel marks pixels that do not count.
        y = torch.stack([y > 0, y == 2, labels_of(y.shape, 9, seed=4) == 0], 1).float()
    pairs = [(x[i : i + 4], y[i : i + 4]) for i in range(0, count, 4)]
    if case == "deep supervision":
        pairs = [(x, [y, y[..., ::2, ::2]]) for x, y in pairs]
    return model, pairs, task, options


@pytest.mark.parametrize("case", CASES)
def test_every_row_keeps_what_its_columns_promise(case: str) -> None:
    model, data, task, options = problem(case)
    kept: dict[tuple[int, str, float], Example] = {}

    def keep(example: Example) -> None:
        kept[example.id, example.attack, example.eps] = example

    found = evaluate(model, data, RADII, ATTACKS, task=task, keep=keep, **options)
    assert found.attacks == (*ATTACKS, WORST) and found.eps == RADII
    low, high = options.get("bounds") or (-math.inf, math.inf)
    clean = rows_of(found, "clean", 0.0)
    assert [row.quality for row in clean.values()] != [1.0] * 7
    drops = 0
    for attack, eps in itertools.product(found.attacks, RADII):
        rows = rows_of(found, attack, eps)
        assert list(rows) == list(range(7))
        smaller = clean if eps == RADII[0] else rows_of(found, attack, RADII[RADII.index(eps) - 1])
        for i, row in rows.items():
            example = kept[i, attack, eps]
            assert row.quality <= smaller[i].quality
            drops += row.quality < smaller[i].quality
            noise = (example.noisy - example.clean).double().flatten()
            size = noise.abs().max() if options.get("norm") == "linf" else noise.norm()
            assert float(size) <= eps * (1 + 1e-4)
            if row.quality < clean[i].quality:
                assert row.size == pytest.approx(float(size), rel=1e-4, abs=1e-6)
                assert row.size <= eps * (1 + 1e-4)
            else:
                # There is no noise that lowered it.
                assert row.size == 0 if row.quality == 0 else math.isnan(row.size)
            assert float(example.noisy.min()) >= low and float(example.noisy.max()) <= high
            # Alone, not in its batch.
            truth: Any = full(example.target)[None]
            target = [truth, truth[..., ::2, ::2]] if case == "deep supervision" else truth
            with torch.no_grad():
                output = model(example.noisy[None])
            assert row.quality == pytest.approx(float(task.dice(output, target)), abs=1e-5)
            assert row.quality == example.quality
            assert example.quality_clean == clean[i].quality
            assert row.broken == (row.quality <= task.threshold)
            known = [d for d in parts_of(row) if not math.isnan(d)]
            assert row.quality == pytest.approx(np.mean(known) if known else 1.0, abs=1e-6)
            assert torch.equal(task.predict(output)[0], example.predicted)
    assert drops > 10
    for eps in RADII:
        each = [rows_of(found, a, eps) for a in ATTACKS]
        for i, row in rows_of(found, WORST, eps).items():
            assert row.quality == min(rows[i].quality for rows in each)
            if row.quality < clean[i].quality:
                equal = [rows[i].size for rows in each if rows[i].quality == row.quality]
                assert row.size == min(equal)
    # Without foreground in the truth.
    assert clean[6].more["pixels"] == clean[6].more["present"] == 0


def test_pixels_and_classes_of_the_truth_are_counted() -> None:
    model, data, _, _ = problem("ignored pixels")
    y = torch.cat([y for _, y in data])
    found = evaluate(model, data, (), (), task=Segmentation(ignore_label=3))
    for row in found.rows:
        mine = y[row.id]
        assert row.more["pixels"] == int(((mine == 1) | (mine == 2)).sum())
        assert row.more["present"] == len({1, 2} & set(mine.flatten().tolist()))
    model, data, task, _ = problem("regions")
    y = torch.cat([y for _, y in data]).bool()
    found = evaluate(model, data, (), (), task=task)
    valid = ~y[:, 2]
    foreground = ((y[:, 0] | y[:, 1]) & valid).sum((1, 2))
    assert found.columns["pixels"].tolist() == foreground.tolist()
    assert found.columns["present"].tolist() == [
        int((y[i, 0] & valid[i]).any()) + int((y[i, 1] & valid[i]).any()) for i in range(7)
    ]


def test_a_sample_does_not_depend_on_its_mates() -> None:
    model, task = conv(2), Segmentation()
    x = torch.rand(4, 1, 6, 6, generator=seeded(2))
    y = labels_of((4, 6, 6), 3)
    easy = torch.zeros_like(y[1:])
    with torch.no_grad():
        right = model(x[1:]).argmax(1)
    attacks = [*ATTACKS, "white-3"]
    runs = [
        evaluate(model, [(x[:n], torch.cat([y[:1], mates])[:n])], RADII, attacks, task=task)
        # Mates of Dice 0, mates of Dice 1, and other ones: noise is drawn for all of them.
        for n, mates in ((4, easy), (4, right), (4, y[1:]))
    ]
    alone = [[row for row in run.rows if row.id == 0] for run in runs]
    assert len(alone[0]) == 1 + 1 + 3 * 5
    for other in alone[1:]:
        for mine, theirs in zip(alone[0], other, strict=True):
            assert (mine.attack, mine.eps, mine.quality) == (
                theirs.attack,
                theirs.eps,
                theirs.quality,
            )


def test_dicts_as_monai_gives_them() -> None:
    x = torch.rand(5, 1, 6, 6, generator=seeded(2))
    y = labels_of((5, 1, 6, 6), 3)
    dicts = [{"image": x[i], "label": y[i]} for i in range(5)]
    pairs = evaluate(conv(2), TensorDataset(x, y), 0.4, ["pgd-3"], task=Segmentation())
    found = evaluate(conv(2), dicts, 0.4, ["pgd-3"], task=Segmentation())
    assert plain(found) == plain(pairs)
    renamed = [{"a": d["image"], "b": d["label"]} for d in dicts]
    found = evaluate(conv(2), renamed, 0.4, ["pgd-3"], task=Segmentation(), keys=("a", "b"))
    assert plain(found) == plain(pairs)


def test_a_sample_without_foreground() -> None:
    x = torch.full((1, 1, 4, 4), -1.0)
    x[0, 0, 0, 0] = -0.2
    found = evaluate(
        PixelByPixel(),
        [(x, torch.zeros(1, 4, 4))],
        [0.1, 0.3],
        ["pgd-5"],
        norm="linf",
        task=Segmentation(),
    )
    assert [row.quality for row in found.rows] == [1, 1, 0]
    # None predicted: it counts for no class. One predicted: with 0.
    assert math.isnan(found.adi()) and math.isnan(found.adi("pgd-5", 0.1))
    assert found.adi("pgd-5", 0.3) == 0
    assert math.isnan(found.adi_all_classes("pgd-5", 0.3))
    assert "counts for no class" in found.settings.about["empty slices"]


# --- What cannot be stated ------------------------------------------------------------------------


class Broken(nn.Module):
    """NaN where the noise takes a pixel above `limit`, everywhere if it is below all."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        z = torch.cat([torch.zeros_like(x), x], 1)
        return torch.where((x > self.limit).flatten(1).any(1)[:, None, None, None], torch.nan, z)


def test_an_output_that_is_not_finite_is_refused() -> None:
    data = [(BY_HAND, (BY_HAND > 0).long())]
    with pytest.raises(FloatingPointError, match="not finite on batch of samples 0 to 0"):
        evaluate(Broken(-5.0), data, 0.3, task=Segmentation())


def test_noise_that_breaks_the_output_leaves_a_dice_of_zero() -> None:
    data = [(BY_HAND, (BY_HAND > 0).long())]
    with pytest.warns(Doubt, match="not finite for 1 noisy sample"):
        found = evaluate(Broken(1.02), data, 0.4, ["noise-20"], norm="linf", task=Segmentation())
    assert (found.adi(), found.adi("noise-20", 0.4)) == (1, 0)
    assert found.per_class("noise-20", 0.4) == (0.0,)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"attacks": ["autoattack"]},
            "autoattack cannot run here: .*classifiers.*Segmentation.*use pgd-100",
        ),
        ({"attacks": ["ensembl-3"]}, "did you mean 'ensemble-100'"),
        ({"attacks": ["pgd-0"]}, "unknown attack 'pgd-0'"),
        ({"eps": [0.0]}, "above 0"),
        ({"data": []}, "empty"),
        ({"bounds": (0.0, 0.5)}, "outside the bounds"),
        ({"bounds": (-math.inf, math.inf), "attacks": ["white-2"]}, "bounds that are finite"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], text: str) -> None:
    options = {"data": [(BY_HAND, (BY_HAND > 0).long())], "eps": 0.3, "task": Segmentation()}
    with pytest.raises(ValueError, match=text):
        evaluate(PixelByPixel(), **{**options, **arguments})


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="targets hold 2"):
        evaluate(PixelByPixel(), [(BY_HAND, torch.full((1, 4, 4), 2))], 0.3, task=Segmentation())
    data, task = [(BY_HAND, (BY_HAND > 0).long())], Segmentation()
    with pytest.raises(ValueError, match=r"\['a', 'b'\]; the task has 1 .*without the background"):
        evaluate(PixelByPixel(), data, 0.3, task=task, classes=("a", "b"))


ONE_HOT = torch.cat([1 - (BY_HAND > 0).float(), (BY_HAND > 0).float()], 1)


HOLES = ONE_HOT * (torch.arange(4) > 0)

WITH_IGNORED = torch.cat([HOLES, 1 - HOLES.sum(1, keepdim=True)], 1)


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.uint8, torch.bool])
def test_one_hot_masks_are_labels(kind: torch.dtype, tmp_path: Path) -> None:
    labels = [(BY_HAND, (BY_HAND > 0).long())]
    hot = [(BY_HAND, ONE_HOT.to(kind))]
    task, shown = Segmentation(), list[Example]()
    expected = evaluate(PixelByPixel(), labels, 0.4, ATTACKS, task=task)
    found = evaluate(PixelByPixel(), hot, 0.4, ATTACKS, task=task, keep=shown.append)
    assert plain(found) == plain(expected)
    assert found.settings.about["masks"].startswith("one-hot, taken as labels")
    for attack, name in (("noise-3", "hot"), (WORST, "last")):
        pictures = Labelled(tmp_path / name, "", attack, None)
        for example in shown:
            pictures.keep(example)
        (picture,) = pictures.all()
        assert picture["truth"].tolist() == (BY_HAND[0, 0] > 0).long().tolist()
    deep = [(BY_HAND, [ONE_HOT.to(kind), ONE_HOT[..., ::2, ::2].to(kind)])]
    assert evaluate(Scales(PixelByPixel()), deep, 0.4, task=task).adi() == expected.adi()
    logits = PixelByPixel()(BY_HAND)
    for name in ("loss", "objective", "score", "correct", "dice", "dice_per_class"):
        of = getattr(task, name)
        assert torch.equal(of(logits, ONE_HOT.to(kind)), of(logits, (BY_HAND[:, 0] > 0).long()))


@pytest.mark.parametrize(
    ("masks", "task", "words"),
    [
        (0 * ONE_HOT, Segmentation(), r"pixels in \[0\] channels.*regions=True"),
        (HOLES, Segmentation(), r"\[0, 1\] channels.*regions=True.*ignore_label"),
        (HOLES, Segmentation(ignore_label=9), r"\[0, 1\].*torch.where\(y.sum\(1\) == 0, 9, y"),
        (math.nan * ONE_HOT, Segmentation(), r"^targets hold nan; .*labels$"),
        (math.nan * ONE_HOT, Segmentation(regions=True), r"targets hold nan; .*expected 0 or 1$"),
        (math.nan * ONE_HOT[:, 0], Segmentation(), "targets hold nan; .*labels 0 to 1$"),
        (
            WITH_IGNORED,
            Segmentation(),
            r"or one-hot \(1, 2, 4, 4\): .*ignore_label=255; .*y\[:, 1:",
        ),
        (WITH_IGNORED[:, :, :2], Segmentation(), r"or one-hot \(1, 2, 4, 4\)$"),
        (255 * ONE_HOT, Segmentation(), r"values up to 255"),
        (255 * ONE_HOT[:, 1:], Segmentation(), r"pass \(y > 0\); .*ignore_label=255"),
        (255 * ONE_HOT, Segmentation(regions=True), r"pass \(y > 0\)$"),
    ],
)
def test_masks_that_are_no_labels_are_refused(
    masks: Tensor, task: Segmentation, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(PixelByPixel(), [(BY_HAND, masks)], 0.4, ["ifgsm-1"], task=task)


def test_the_advice_on_ignored_pixels_is_right() -> None:
    logits = PixelByPixel()(BY_HAND)
    labels = (BY_HAND[:, 0] > 0).long()
    labels[..., 0] = 255
    task = Segmentation(ignore_label=255)
    first = torch.where(HOLES.sum(1) == 0, 255, HOLES.argmax(1))
    y = WITH_IGNORED
    second = torch.where(y[:, -1] > 0, 255, y[:, :-1].argmax(1))
    assert torch.equal(first, labels) and torch.equal(second, labels)
    task.check(logits, first)


def trained(
    loss: Any, steps: int, groups: int, shift: float = 0.0, seed: int = 0
) -> tuple[nn.Module, TensorDataset]:
    """A network of three outputs a pixel, and one-hot masks that cover the image."""
    labels = torch.zeros(12, 16, 16, dtype=torch.long)
    labels[:, 3:8, 3:8], labels[:, 9:14, 6:12] = 1, 2
    masks = F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    x = masks + 0.5 * torch.randn(masks.shape, generator=seeded(seed))
    model = redraw(nn.Conv2d(3, 3, 1, groups=groups), seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), masks).backward()
        optimizer.step()
    with torch.no_grad():
        model.bias.add_(shift)
    return model, TensorDataset(x, masks)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("steps", [40, 300])
@pytest.mark.parametrize("holes", [0, 2])
def test_a_poor_network_of_regions_is_no_softmax(steps: int, seed: int, holes: int) -> None:
    # Its regions cover the image, and it finds many of their pixels by the largest output only.
    model, data = trained(F.binary_cross_entropy_with_logits, steps, 3, seed=seed)
    x, masks = data.tensors
    largest = (model(x).argmax(1) == masks.argmax(1)).float().mean()
    assert largest > ((model(x) > 0) == masks.bool()).all(1).float().mean() + 0.1
    masks[..., :holes] = 0
    found = evaluate(model, data, 0.1, ["ifgsm-1"], task=Segmentation(regions=True))
    assert "masks" not in found.settings.about


@pytest.mark.parametrize("holes", [0, 2])
@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_a_softmax_network_of_any_height_is_spoken_of(shift: float, holes: int) -> None:
    model, data = trained(F.cross_entropy, 30, 1, shift)
    # Pixels in none of the masks, as those to ignore, do not hide it.
    data.tensors[1][..., :holes] = 0
    words = "no pixel is in more than one" if holes else "every pixel is in exactly one"
    with pytest.warns(UserWarning, match=f"^{words}.*if it ends in a softmax over classes"):
        evaluate(model, data, 0.1, ["ifgsm-1"], task=Segmentation(regions=True))


def test_one_hot_masks_of_a_softmax_network_are_no_regions() -> None:
    data, task = [(BY_HAND, ONE_HOT)], Segmentation(regions=True)
    with pytest.warns(UserWarning, match=r"if it ends in a softmax.*without regions"):
        found = evaluate(PixelByPixel(), data, 0.4, ["ifgsm-1"], task=task)
    assert "ends in a softmax" in found.settings.about["masks"]
    with pytest.warns(UserWarning, match=r"2 channels for 1 of the output.*y\[:, 1:\]"):
        evaluate(OneChannel(), data, 0.4, ["ifgsm-1"], task=task)


# --- Stopped and continued ------------------------------------------------------------------------


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("case", ["images", "deep supervision", "regions", "labels"])
def test_a_killed_evaluation_continues_to_the_same_result(case: str, tmp_path: Path) -> None:
    model, data, task, _ = problem("images" if case == "labels" else case, 12)
    attacks = [*ATTACKS, "white-2"]
    if case == "labels":
        model, task = cnn(), Classification()
        data = [(x, model.eval()(x).argmax(1).detach()) for x, _ in data]
        attacks.remove("ensemble-4")
    record = tmp_path / "record"
    names = [(f"case {i // 2}", i % 2) for i in range(12)]

    def go(until: int | None = None, record: Path = record) -> tuple[Results, Pictures]:
        overlays = collector(task, record, "data", attacks, RADII)

        def progress(done: int, total: int) -> None:
            overlays.save(1)
            if done == until:
                raise KilledError

        found = evaluate(
            model,
            data,
            RADII,
            attacks,
            task=task,
            names=names,
            keep=overlays.keep,
            progress=progress,
            partial=record,
        )
        return found, overlays

    whole, pictures = go(record=tmp_path / "other")
    with pytest.raises(KilledError):
        go(until=2)
    # As if killed within a line.
    with record.open("a") as file:
        file.write('{"mark": "ab')
    found, again = go()
    assert plain(found) == plain(whole)
    for overlays, name in ((pictures, "a"), (again, "b")):
        (tmp_path / name).mkdir()
        overlays.write(tmp_path / name, found.classes, "trainer")
    words = case == "labels"
    assert pictures.name == ("examples.npz" if words else "overlays.npz")
    written = [tmp_path / name / pictures.name for name in ("a", "b")]
    with np.load(written[0]) as a, np.load(written[1]) as b:
        assert a.files == b.files
        # The six largest slices under the worst case; all samples that are tried under the three.
        assert len(a["id"]) > 12 + 8 if words else len(a["id"]) == 3 * COUNT
        assert set(a["attack"].tolist()) == ({*attacks} - {"white-2"} if words else {WORST})
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    # Other weights, and nothing of the record is used.
    other = conv(2, seed=9) if case == "images" else None
    if other is not None:
        fresh = evaluate(other, data, RADII, ATTACKS, task=task)
        assert plain(evaluate(other, data, RADII, ATTACKS, task=task, partial=record)) == plain(
            fresh
        )


# --- Rows as a file, and the indices that follow --------------------------------------------------


def row(id_: int, case: str, per_class: Sequence[float], present: int = 2) -> Row:
    known = [d for d in per_class if not math.isnan(d)]
    dice = float(np.mean(known)) if known else 1.0
    parts = {f"dice_{name}": d for name, d in zip(NAMES, per_class, strict=False)}
    more = {"pixels": 5, "present": present, **parts}
    return Row(id_, CLEAN, 0.0, dice, 0.0, "clean", case, id_, more=more)


def of(rows: Sequence[Row], classes: Sequence[str]) -> Results:
    return Results.of(rows, Settings(norm="L2", measure=DICE, classes=tuple(classes)))


NAN = math.nan
NAMES = ("one", "two")


def test_the_average_dice_index_by_hand() -> None:
    rows = (
        row(0, "a", (0.5, 0.9)),
        row(1, "a", (0.7, NAN), present=1),
        row(2, "b", (NAN, NAN), present=0),
        # Predicted, but in the truth nowhere.
        row(3, "b", (0.0, NAN), present=0),
        row(4, "b", (0.8, 0.6)),
    )
    found = of(rows, NAMES)
    assert found.per_class() == pytest.approx((2.0 / 4, 1.5 / 2))
    assert found.counts() == (4, 2)
    assert found.adi() == found.mean() == pytest.approx((0.5 + 0.75) / 2)
    assert found.adi_all_classes() == pytest.approx(((0.5 + 0.8) / 2 + (0.9 + 0.6) / 2) / 2)
    assert math.isnan(found.adi("pgd-3", 1.0))
    assert found.cases == ("a", "b")


def test_the_interval_is_that_of_a_mean_over_cases() -> None:
    dice = np.random.default_rng(0).uniform(0.2, 0.9, 9)
    single = [row(i, str(i), (d,)) for i, d in enumerate(dice)]
    found = of(single, NAMES[:1])
    half = 1.96 * dice.std(ddof=1) / 3
    assert found.interval() == pytest.approx((dice.mean() - half, dice.mean() + half))
    # The same slice five times is no more evidence than once.
    many = [replace(one, id=5 * one.id + k) for one in single for k in range(5)]
    repeated = of(many, NAMES[:1])
    assert repeated.interval() == pytest.approx(found.interval())
    lone = of([replace(r, case="a") for r in single], NAMES[:1])
    assert all(map(math.isnan, lone.interval()))


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    model, data, task, _ = problem("images")
    names = [(f'case, {i} "é"', i) for i in range(7)]
    attacks, classes = [*ATTACKS, "white-2"], ("left, upper", "b")
    found = evaluate(model, data, RADII, attacks, task=task, names=names, classes=classes)
    path = tmp_path / "new" / "results_x.csv"
    found.to_csv(path)
    again = Results.from_csv(path)
    assert plain(again) == plain(found)
    assert (again.classes, again.norm) == (found.classes, found.norm)
    assert again.settings.classes == classes
    assert again.settings == found.settings
    header = path.read_text(encoding="utf-8").splitlines()[0]
    assert header == ",".join([*BASE, "pixels", "present", '"dice_left, upper"', "dice_b"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["results_x.csv", "results_x.json"]


# --- Slices for pictures --------------------------------------------------------------------------


def example(id_: int, case: str, pixels: int, size: tuple[int, ...], **more: Any) -> Example:
    truth = torch.zeros(size, dtype=torch.int64)
    truth.view(-1)[:pixels] = 1
    image = torch.full((2, *size), float(id_))
    values: dict[str, Any] = {
        "clean": image,
        "noisy": image + 0.5,
        "target": truth,
        "predicted_clean": truth,
        "predicted": 2 * truth,
    }
    return Example(
        id_, case, id_, "pgd-3", 1.0, pixels, quality_clean=1.0, quality=0.0, **{**values, **more}
    )


def test_the_largest_slices_of_different_cases_are_kept(tmp_path: Path) -> None:
    overlays = Labelled(tmp_path / "r", "", "pgd-3", None)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 9, 60).tolist()
    for start in range(0, 60, 7):
        for i in range(start, min(60, start + 7)):
            case = f"case {i // 6}"
            overlays.keep(example(i, case, pixels[i], (3, 4 + i // 6)))
            overlays.keep(replace(example(i, case, 9, (3, 4 + i // 6)), attack="other"))
        overlays.save(1)
    best = {c: max(range(6 * c, 6 * c + 6), key=lambda i: (pixels[i], -i)) for c in range(10)}
    wanted = sorted(sorted(best.values(), key=lambda i: (-pixels[i], i))[:COUNT])
    overlays.write(tmp_path, ("a", "b"), "nnUNetTrainerX")
    with np.load(tmp_path / "overlays.npz", allow_pickle=False) as found:
        assert found["id"].tolist() == wanted and COUNT == 6
        assert found["classes"].tolist() == ["a", "b"] and str(found["trainer"]) == "nnUNetTrainerX"
        wide = 4 + max(wanted) // 6
        assert found["clean"].shape == (6, 3, wide) and found["clean"].dtype == np.float32
        for at, i in enumerate(wanted):
            own = 4 + i // 6
            assert (found["clean"][at, :, :own] == i).all() and (
                found["noisy"][at, :, :own] == i + 0.5
            ).all()
            assert np.isnan(found["clean"][at, :, own:]).all()
            assert (found["truth"][at, :, own:] == 255).all()
            assert (found["truth"][at, :, :own] == 1).sum() == pixels[i]
            assert (found["predicted_noisy"][at, :, :own] == 2).sum() == pixels[i]


def test_volumes_regions_and_ignored_pixels_as_pictures(tmp_path: Path) -> None:
    overlays = Labelled(tmp_path / "r", "", "pgd-3", 3)
    volume = torch.zeros(4, 2, 3, dtype=torch.int64)
    volume[2, :, :2] = 1
    volume[1, 0, 0] = 2
    volume[2, 1, 2] = 3
    overlays.keep(example(0, "a", 5, (4, 2, 3), target=volume))
    regions = torch.zeros(3, 2, 3)
    regions[0, :, :2] = 1
    regions[1, 0, 0] = 1
    regions[2, 1, 2] = 1
    predicted = torch.zeros(2, 2, 3, dtype=torch.bool)
    predicted[0, 0] = predicted[1, 0, 1] = True
    overlays.keep(
        example(
            1,
            "b",
            4,
            (2, 3),
            target=regions,
            predicted_clean=predicted,
            predicted=~predicted,
        )
    )
    overlays.write(tmp_path, ("a", "b"), "")
    with np.load(tmp_path / "overlays.npz", allow_pickle=False) as found:
        assert found["slice"].tolist() == [2, 1]
        assert found["truth"][0].tolist() == [[1, 1, 0], [1, 1, 255]]
        assert found["truth"][1].tolist() == [[2, 1, 0], [1, 1, 255]]
        assert found["predicted_clean"][1].tolist() == [[1, 2, 1], [0, 0, 0]]
        assert found["predicted_noisy"][1].tolist() == [[2, 0, 2], [2, 2, 2]]


def test_no_file_where_nothing_is_foreground(tmp_path: Path) -> None:
    overlays = Labelled(tmp_path / "r", "", "pgd-3", None)
    overlays.keep(example(0, "a", 0, (2, 2)))
    overlays.save(1)
    (tmp_path / "overlays.npz").write_bytes(b"of an earlier evaluation")
    overlays.write(tmp_path, ("a",), "")
    assert list(tmp_path.iterdir()) == []
