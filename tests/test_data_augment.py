"""Augmentation: every sample is a shifted or mirrored self, the same in every process and again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training import Watch as Watcher
from test_training import assert_equal_runs, new, npz, torchrun, train
from torch import Generator, Tensor

from ima.budget import Budget, OutOfTime
from ima.data import load
from ima.data.augment import AUGMENTATIONS, PAD, augment, augment_share
from ima.methods import IMA, METHODS, Standard
from ima.training.batches import batch_seed, batches
from ima.training.checkpoint import load_state
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.loop import fit
from ima.training.run import Run

SHAPES = [(3, 8), (1, 5, 6), (3, 4, 9), (2, 3, 4, 5)]


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shifted(image: Tensor, shift: tuple[int, ...]) -> Tensor:
    """The slow twin of crop: pixel by pixel, zero beyond the edge. image: (C, *dims)."""
    out = torch.zeros_like(image)
    dims = image.shape[1:]
    for place in torch.cartesian_prod(*map(torch.arange, dims)).reshape(-1, len(dims)).tolist():
        source = [p + s for p, s in zip(place, shift, strict=True)]
        if all(0 <= s < n for s, n in zip(source, dims, strict=True)):
            out[(slice(None), *place)] = image[(slice(None), *source)]
    return out


def shifts(dims: int) -> list[tuple[int, ...]]:
    each = torch.arange(-PAD, PAD + 1)
    return [tuple(s) for s in torch.cartesian_prod(*[each] * dims).reshape(-1, dims).tolist()]


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_crop_is_one_of_the_shifts_and_each_is_as_likely(
    shape: tuple[int, ...], device: torch.device
) -> None:
    image = torch.rand(shape) + 0.1
    known = {shifted(image, s).numpy().tobytes(): s for s in shifts(len(shape) - 1)}
    every = {s[0] for s in known.values()}
    count = 900
    x = image.expand(count, *shape).to(device)
    out = augment(x, ["crop"], generator())
    assert out.shape == x.shape
    assert out.device.type == device.type
    seen = [known[sample.cpu().numpy().tobytes()] for sample in out]
    for dim in range(len(shape) - 1):
        # Where images are smaller than a shift, shifts can look alike; the first is not so.
        values = [s[dim] for s in seen]
        assert min(values) < 0 < max(values)
    if shape == (3, 8):
        counts = torch.tensor([sum(s[0] == value for s in seen) for value in sorted(every)])
        assert ((counts - count / 9).abs() < 5 * (count / 9) ** 0.5).all()
    assert torch.equal(x.cpu(), image.expand(count, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_of_a_volume_moves_all_channels_together(shape: tuple[int, ...]) -> None:
    x = torch.rand(6, *shape) + 0.1
    row = AUGMENTATIONS["crop"]
    drawn = row.draw(6, len(shape) - 1, generator(3))
    expected = [shifted(x[i], tuple((drawn[i] - PAD).tolist())) for i in range(6)]
    assert torch.equal(augment(x, ["crop"], generator(3)), torch.stack(expected))
    assert len(set(map(tuple, drawn.tolist()))) > 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flip_mirrors_the_last_dimension_half_of_the_time(shape: tuple[int, ...]) -> None:
    x = torch.rand(400, *shape)
    out = augment(x, ["flip"], generator())
    mirrored = torch.tensor([torch.equal(o, i.flip(-1)) for o, i in zip(out, x, strict=True)])
    same = torch.tensor([torch.equal(o, i) for o, i in zip(out, x, strict=True)])
    assert (mirrored ^ same).all()
    assert abs(int(mirrored.sum()) - 200) < 60


def test_augmentations_follow_each_other_and_depend_on_the_generator_only() -> None:
    x = torch.rand(5, 3, 8, 8)
    both = augment(x, ["crop", "flip"], generator(1))
    one = generator(1)
    assert torch.equal(both, augment(augment(x, ["crop"], one), ["flip"], one))
    torch.manual_seed(5)
    assert torch.equal(both, augment(x, ["crop", "flip"], generator(1)))
    assert not torch.equal(both, augment(x, ["crop", "flip"], generator(2)))
    assert augment(x, [], generator()) is x
    assert augment(x.mul(255).byte(), ["crop", "flip"], generator()).dtype == torch.uint8
    assert augment(x[:0], ["crop", "flip"], generator()).shape == (0, 3, 8, 8)


def test_what_cannot_be_augmented_is_told() -> None:
    with pytest.raises(ValueError, match="unknown augmentation 'mirror'; there are: crop, flip"):
        augment(torch.rand(2, 1, 4), ["mirror"], generator())
    with pytest.raises(ValueError, match=r"shape \(2, 4\) cannot be augmented by 'crop'"):
        augment(torch.rand(2, 4), ["crop"], generator())


@given(
    samples=st.integers(1, 25),
    size=st.integers(1, 9),
    world=st.integers(2, 4),
    epoch=st.integers(0, 3),
)
def test_every_sample_gets_the_same_noise_whatever_the_number_of_processes(
    samples: int, size: int, world: int, epoch: int
) -> None:
    images = torch.rand(samples, 1, 6, 7, generator=generator())

    def seen(rank: int, world: int) -> list[tuple[Tensor, Tensor]]:
        order = batches(samples, size, seed=2, epoch=epoch, rank=rank, world=world)
        return [
            (
                ids,
                augment_share(
                    images[ids],
                    ["crop", "flip"],
                    seed=batch_seed(2, epoch, number),
                    rank=rank,
                    world=world,
                    batch=min(size, samples - number * size),
                ),
            )
            for number, ids in enumerate(order)
        ]

    alone = {int(i): x for ids, batch in seen(0, 1) for i, x in zip(ids, batch, strict=True)}
    assert len(alone) == samples
    for rank in range(world):
        for ids, batch in seen(rank, world):
            for i, x in zip(ids, batch, strict=True):
                assert torch.equal(x, alone[int(i)])


def test_every_batch_of_every_epoch_and_seed_has_a_seed_of_its_own() -> None:
    seeds = {batch_seed(s, e, n) for s in range(4) for e in range(30) for n in range(50)}
    assert len(seeds) == 4 * 30 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- In training ----------------------------------------------------------------------------------

AUGMENT = "data.augment=[crop, flip]"


def record(monkeypatch: pytest.MonkeyPatch, method: type[Any]) -> list[tuple[Tensor, Tensor, Any]]:
    """Every training batch's samples and ids, and the method object."""
    seen: list[tuple[Tensor, Tensor, Any]] = []

    class Recorded(method):
        def __call__(self, model: Any, x: Tensor, y: Any, ids: Tensor) -> Any:
            seen.append((x.clone(), ids.clone(), self))
            return super().__call__(model, x, y, ids)

    name = method.__name__.lower()
    Recorded.__init__.__annotations__ = method.__init__.__annotations__
    monkeypatch.setitem(METHODS, name, replace(METHODS[name], method=Recorded))
    return seen


def test_training_sees_changed_images_of_the_right_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record(monkeypatch, Standard)
    train(new(tmp_path / "run", AUGMENT, method="standard", epochs=2))
    data = load("digits").train
    kept = 0
    epochs: list[dict[int, Tensor]] = [{}, {}]
    for number, (x, ids, _) in enumerate(seen):
        epochs[number // 4].update(zip(ids.tolist(), x, strict=True))
    assert [len(epoch) for epoch in epochs] == [len(data)] * 2
    for i in range(0, len(data), 9):
        image = data[i][0]
        possible = [shifted(flat, s) for s in shifts(2) for flat in (image, image.flip(-1))]
        for epoch in epochs:
            assert any(torch.equal(epoch[i], other) for other in possible)
            kept += torch.equal(epoch[i], image)
    assert kept < 20  # of 200, on average less than two
    changed = sum(not torch.equal(epochs[0][i], epochs[1][i]) for i in range(len(data)))
    assert changed > 0.9 * len(data)


@pytest.mark.parametrize(("override", "algorithm"), [(AUGMENT, 3), ("data.augment=[]", 2)])
def test_margins_of_images_that_change_are_found_by_algorithm_3(
    override: str, algorithm: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record(monkeypatch, IMA)
    train(new(tmp_path / "run", override, method="ima", epochs=1))
    assert {method.algorithm for _, _, method in seen} == {algorithm}


def test_a_stopped_run_with_augmentation_continues_to_the_bit(tmp_path: Path) -> None:
    whole = train(new(tmp_path / "whole", AUGMENT, epochs=3))
    for name, watcher in (("after", Watcher(after=0)), ("amid", Watcher(amid=(1, 2)))):
        stopped = new(tmp_path / name, AUGMENT, epochs=3)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, watcher=watcher)
        assert_equal_runs(whole, train(stopped))
    plain = train(new(tmp_path / "plain", epochs=3))
    assert [row["loss"] for row in plain.epochs()] != [row["loss"] for row in whole.epochs()]


class Spent(Watcher, Budget):
    """A budget that ends with the second batch of the second epoch."""

    def __init__(self) -> None:
        Watcher.__init__(self)
        Budget.__init__(self, 1000)

    def left(self) -> float:
        return -1.0 if (1, 2) in [batch[:2] for batch in self.batches] else 1000.0


def test_a_run_out_of_time_amid_an_epoch_goes_on_with_the_same_noise(tmp_path: Path) -> None:
    whole = train(new(tmp_path / "whole", AUGMENT, epochs=2))
    stopped, spent = new(tmp_path / "stopped", AUGMENT, epochs=2), Spent()
    with pytest.raises(OutOfTime, match="after 2 of 4 batches"):
        fit(stopped, watcher=spent, device="cpu", budget=spent)
    rest = Watcher()
    train(stopped, watcher=rest)
    assert [batch[:2] for batch in rest.batches] == [(1, 3), (1, 4)]
    assert_equal_runs(whole, stopped)


def test_two_processes_train_on_the_changed_images_of_one(tmp_path: Path) -> None:
    path = npz(tmp_path / "data.npz", 250)
    data = f"data={{name: arrays, path: '{path}', augment: [crop, flip]}}"
    sgd = "optimizer={name: sgd, lr: 0.1, momentum: 0.5}"
    alone = new(tmp_path / "alone", data, sgd, "train.batch_size=64", method="standard", epochs=2)
    train(alone)
    (tmp_path / "recipe.yaml").write_text(alone.config().to_yaml())
    code, out, errors = torchrun(
        tmp_path, "train", "recipe.yaml", "--out", "pair", "--device", "cpu", "--devices", "2"
    )
    assert code == 0, out + errors
    one, two = load_state(alone.state), load_state(Run.open(tmp_path / "pair").state)
    torch.testing.assert_close(two["model"], one["model"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[crop, crop]", r"data.augment: .*expected each name once"),
        ("[mirror]", r"data.augment.0: is 'mirror'; input should be 'crop' or 'flip'"),
        ("crop", r"data.augment: is 'crop'"),
    ],
)
def test_a_config_takes_known_names_once(value: str, told: str) -> None:
    assert load_config("digits").data.augment == ()
    assert load_config("digits", ["data.augment=[flip]"]).data.augment == ("flip",)
    with pytest.raises(ConfigError, match=told):
        load_config("digits", [f"data.augment={value}"])
