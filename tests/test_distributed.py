"""Two processes hold the same margins, and train as one process does."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sharded
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nets import cnn, redraw, seeded
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from ima import IMA, Margins, Segmentation
from ima.methods import METHODS
from ima.training.stopping import stopping_together

WORLD = 2
SHAPE = (1, 6, 6)
SAMPLES = 15  # odd, so that the sampler repeats an id


HELD = [0, 4, 5, 9, 12]
"""The samples of the one process of two that has any."""


@dataclass(frozen=True)
class Case:
    """How two processes train: ids of every process at every step, and the network."""

    batch_norm: bool
    steps: list[list[list[int]]]
    augmented: bool = False
    wrapped: bool = True
    measured: bool = False


def sampled(batch: int, epochs: int) -> list[list[list[int]]]:
    """Batches as torch's sampler deals them out: shuffled, and padded by repeating ids."""
    steps: list[list[list[int]]] = []
    for epoch in range(epochs):
        dealt = []
        for rank in range(WORLD):
            sampler = DistributedSampler(range(SAMPLES), num_replicas=WORLD, rank=rank, seed=3)
            sampler.set_epoch(epoch)
            dealt.append(list(sampler))
        starts = range(0, len(dealt[0]), batch)
        steps.extend([ids[start : start + batch] for ids in dealt] for start in starts)
    return steps


CASES = {
    "plain": Case(False, sampled(4, 3)),
    "repeated ids": Case(False, sampled(8, 4)),
    "augmented": Case(False, sampled(4, 2), augmented=True),
    "batch norm": Case(True, sampled(4, 2)),
    "bare model": Case(False, sampled(4, 1), wrapped=False),
    "measured": Case(False, sampled(4, 3), measured=True),
    "measured, augmented": Case(False, sampled(4, 3), augmented=True, measured=True),
    "measured, unequal": Case(
        False, [[[0, 1, 2, 3, 4], [5]], [[6], [7, 8, 9]], [[2, 2, 5], [5, 2]]], measured=True
    ),
    "unequal": Case(False, [[[0, 1, 2, 3, 4], [5]], [[6], [7, 8, 9]], [[2, 2, 5], [5, 2]]]),
}


def network(case: Case) -> nn.Module:
    return cnn(outputs=3, batch_norm=case.batch_norm).double().train()


def data() -> tuple[Tensor, Tensor]:
    """Samples and labels; the fresh network is right on most, so that margins move at once."""
    x = torch.rand(SAMPLES, *SHAPE, generator=seeded(0)).double()
    y = cnn(outputs=3).double().eval()(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3
    return x, y


def build(case: Case) -> IMA:
    if case.measured:
        return IMA(num_samples=SAMPLES, bounds=(0, 1), augmented=case.augmented)
    return IMA(
        num_samples=SAMPLES, eps=2.0, delta=0.4, bounds=(0, 1), steps=5, augmented=case.augmented
    )


def train(case: Case, model: nn.Module, batches: list[list[int]]) -> dict[str, Any]:
    """The margins after every step, and the parameters at the end."""
    x, y = data()
    method = build(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    margins, crossed = [], 0
    for ids in batches:
        step = method(model, x[ids], y[ids], torch.tensor(ids))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        margins.append(method.margins.values.clone())
        crossed += int(step.metrics["crossed"])
    return {
        "margins": margins,
        "weights": [p.detach().clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "crossed": crossed,
    }


def uneven_update(rank: int) -> list[float]:
    """Process 0 names ids 1, 1 and 3, process 1 names id 3, then nobody but process 1 any."""
    margins = Margins(5, initial=0.5, cap=2.0)
    ids, proposals = ([1, 1, 3], [1.0, 0.75, 1.5]) if rank == 0 else ([3], [0.25])
    margins.update(torch.tensor(ids), torch.tensor(proposals))
    ids, proposals = ([], []) if rank == 0 else ([4, 0], [9.0, -9.0])
    margins.update(torch.tensor(ids, dtype=torch.long), torch.tensor(proposals))
    return margins.values.tolist()


class Spoiling(nn.Module):
    """NaN in one process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.inner, self.spoils = network(CASES["plain"]), rank == 1

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (float("nan") if self.spoils else 1.0)


def one_step(method: Any, model: nn.Module, ids: list[int]) -> dict[str, Any]:
    """Gradients, buffers, metrics and margins of one step."""
    x, y = data()
    step = method(model, x[ids], y[ids], torch.tensor(ids, dtype=torch.long))
    model.zero_grad()
    step.loss.backward()
    return {
        "gradients": [p.grad.clone() for p in model.parameters() if p.grad is not None],
        "buffers": [b.clone() for b in model.buffers()],
        "metrics": {key: float(value) for key, value in step.metrics.items()},
        "loss": float(step.loss.detach()),
        "margins": method.margins.values.clone() if hasattr(method, "margins") else None,
    }


def segmented(rank: int, name: str) -> dict[str, Any]:
    """As `one_step` of a segmentation with two scales, for which process 0 has no samples."""

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = redraw(nn.Conv2d(1, 2, 3, padding=1), 0).double()

        def forward(self, x: Tensor) -> list[Tensor]:
            z = self.inner(x)
            return [z, z[..., ::2, ::2]]

    x = torch.rand(4, 1, 8, 8, generator=seeded(2)).double()
    x, y = x[: 4 * rank], (x > 0.5).long()[: 4 * rank, 0]
    model = Scales()
    wrapper = DistributedDataParallel(model) if dist.is_initialized() else model
    method = sharded.build(name, task=Segmentation(threshold=0.1))
    step = method(wrapper, x, [y, y[..., ::2, ::2]], torch.arange(len(x)))
    step.loss.backward()
    (gradient,) = (p.grad for p in model.parameters() if p.ndim > 1)
    return {"gradient": gradient, "samples": float(step.metrics["samples"])}


def spoilt(name: str, rank: int) -> str:
    x, y = data()
    ids = torch.arange(3) + 3 * rank
    try:
        sharded.build(name)(DistributedDataParallel(Spoiling(rank)), x[ids], y[ids], ids)
    except FloatingPointError as error:
        return str(error)
    return "no error"


def stopped(rank: int) -> str:
    """How each process stops when the disk of the first is full, and the other one waits for it."""
    launched = SimpleNamespace(launcher=None)
    fabric: Any = SimpleNamespace(world_size=WORLD, global_rank=rank, strategy=launched)
    try:
        with stopping_together(fabric):
            if rank == 0:
                raise OSError("the disk is full")
            dist.all_reduce(torch.zeros(3))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    found: dict[str, Any] = {"uneven update": uneven_update(rank)}
    for name, case in CASES.items():
        model = network(case)
        wrapper = DistributedDataParallel(model) if case.wrapped else model
        try:
            found[name] = train(case, wrapper, [step[rank] for step in case.steps])
        except RuntimeError as error:
            found[name] = str(error)
    for name in METHODS:
        for empty in range(WORLD):
            wrapper = DistributedDataParallel(network(CASES["batch norm"]))
            ids = [] if rank == empty else HELD
            found[f"{name}, {empty} empty"] = one_step(sharded.build(name), wrapper, ids)
        found[f"{name}, spoilt"] = spoilt(name, rank)
        if METHODS[name].segmentation:
            found[f"{name}, segmented"] = segmented(rank, name)
    found["sharded"] = sharded.found(rank)
    # The last, because nobody exchanges anything afterwards.
    found["stopped"] = stopped(rank)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found, all cases after each other in one start."""
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=WORLD)
    found = []
    for rank in range(WORLD):
        file = io.BytesIO((folder / f"{rank}.pt").read_bytes())
        found.append(torch.load(file, weights_only=True))
    return found


@pytest.mark.parametrize("name", CASES)
def test_all_processes_hold_equal_margins_after_every_step(
    ranks: list[dict[str, Any]], name: str
) -> None:
    first, second = (found[name] for found in ranks)
    assert not isinstance(first, str), first
    assert len(first["margins"]) == len(CASES[name].steps)
    for one, other in zip(first["margins"], second["margins"], strict=True):
        assert torch.equal(one, other)
    assert len(first["margins"][-1].unique()) > 2
    assert first["crossed"] + second["crossed"] > 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.wrapped])
def test_all_processes_hold_equal_parameters(ranks: list[dict[str, Any]], name: str) -> None:
    first, second = (found[name] for found in ranks)
    assert not isinstance(first, str), first
    for one, other in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(one, other)
    for value in (*first["weights"], *first["buffers"], *second["buffers"]):
        assert bool(torch.isfinite(value).all())


@pytest.mark.parametrize("name", ["plain", "repeated ids", "augmented"])
def test_two_processes_train_as_one_does_with_their_batches_together(
    ranks: list[dict[str, Any]], name: str
) -> None:
    case, found = CASES[name], ranks[0][name]
    assert not isinstance(found, str), found
    together = [[i for ids in step for i in ids] for step in case.steps]
    assert any(len(set(ids)) < len(ids) for ids in together) == (name == "repeated ids")
    alone = train(case, network(case), together)
    for one, other in zip(alone["margins"], found["margins"], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for one, other in zip(alone["weights"], found["weights"], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_smallest_proposal_wins_across_processes(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["uneven update"] == [0.0, 0.75, 0.5, 0.25, 2.0]


@pytest.mark.parametrize("empty", range(WORLD))
@pytest.mark.parametrize("name", METHODS)
def test_a_process_without_samples_takes_part_in_a_step(
    ranks: list[dict[str, Any]], name: str, empty: int
) -> None:
    found = [rank[f"{name}, {empty} empty"] for rank in ranks]
    alone = one_step(sharded.build(name), network(CASES["batch norm"]), HELD)
    for process in found:
        # The mean over processes, of which one gives nothing.
        torch.testing.assert_close(
            process["gradients"], [g / WORLD for g in alone["gradients"]], rtol=1e-9, atol=1e-12
        )
        if alone["margins"] is not None:
            torch.testing.assert_close(process["margins"], alone["margins"])
    assert found[1 - empty]["metrics"] == pytest.approx(alone["metrics"])
    assert found[empty]["loss"] == 0
    assert set(found[empty]["metrics"]) == set(alone["metrics"])
    assert not any(found[empty]["metrics"].values())


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.segmentation])
def test_a_process_without_samples_takes_part_in_a_step_of_segmentation(
    ranks: list[dict[str, Any]], name: str
) -> None:
    alone = segmented(1, name)
    for rank, samples in enumerate((0, 4)):
        found = ranks[rank][f"{name}, segmented"]
        torch.testing.assert_close(found["gradient"], alone["gradient"] / WORLD)
        assert found["samples"] == samples


@pytest.mark.parametrize("name", METHODS)
def test_made_up_samples_move_no_running_statistics(ranks: list[dict[str, Any]], name: str) -> None:
    before = list(network(CASES["batch norm"]).buffers())
    for one, other in zip(ranks[0][f"{name}, 0 empty"]["buffers"], before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_in_one_process_stops_all(
    ranks: list[dict[str, Any]], name: str
) -> None:
    for rank in ranks:
        assert "the training loss is nan in process 1 of 2" in rank[f"{name}, spoilt"]


@pytest.mark.parametrize("name", METHODS)
def test_one_process_alone_refuses_a_batch_without_samples(name: str) -> None:
    x, y = data()
    with pytest.raises((ValueError, TypeError), match=r"shape \(0, |at least one sample"):
        sharded.build(name)(network(CASES["plain"]), x[:0], y[:0], torch.arange(0))


def test_where_one_process_stops_the_others_stop_and_say_why(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["stopped"] == "OSError: the disk is full"
    assert ranks[1]["stopped"] == "RuntimeError: process 0 stopped: the disk is full"


# --- Models that FSDP shards ---


@pytest.mark.parametrize("case", sharded.CASES)
def test_two_processes_with_a_sharded_model_train_as_one(
    ranks: list[dict[str, Any]], case: str
) -> None:
    name, _, more = sharded.CASES[case]
    model = sharded.network()
    losses = sharded.train(
        model, [sharded.build(name, **more), sharded.build(name, **more)], [0, 1]
    )
    found = [rank["sharded"][case] for rank in ranks]
    mean = torch.tensor([f["losses"] for f in found]).mean(0)
    torch.testing.assert_close(mean, torch.tensor(losses), rtol=1e-6, atol=1e-6)
    for f in found:
        for one, other in zip(f["weights"], model.parameters(), strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", range(WORLD))
def test_attacks_on_a_sharded_model_find_what_they_find_on_the_whole_one(
    ranks: list[dict[str, Any]], rank: int
) -> None:
    alone, found = (
        sharded.attacked(rank, sharded.network().eval()),
        ranks[rank]["sharded"]["attacked"],
    )
    torch.testing.assert_close(found["pgd"], alone["pgd"], rtol=0, atol=1e-9)
    for one, other in zip(found["evaluate"], alone["evaluate"], strict=True):
        assert one == pytest.approx(other, nan_ok=True)
    assert not any(found["gradients"])


def test_an_error_in_one_process_amid_an_attack_ends_that_of_all(
    ranks: list[dict[str, Any]],
) -> None:
    assert ranks[1]["sharded"]["failing"] == "ArithmeticError: no objective"
    assert ranks[0]["sharded"]["failing"].startswith(
        "RuntimeError: another process stopped with an error"
    )


def test_a_process_without_any_samples_to_attack_is_refused_in_all(
    ranks: list[dict[str, Any]],
) -> None:
    (ours, both), (theirs, again) = (rank["sharded"]["idle"] for rank in ranks)
    assert ours.startswith("RuntimeError: another process stopped with an error")
    assert theirs.startswith("ValueError: the data set is empty")
    assert both == again
    assert both.startswith("ValueError: one process has no samples at all")


def test_a_process_without_samples_takes_part_with_a_sharded_model(
    ranks: list[dict[str, Any]],
) -> None:
    model = sharded.network()
    x, y, ids = (t[: sharded.BATCH] for t in sharded.samples(0))
    sharded.build("ima")(model, x, y, ids).loss.backward()
    for rank in ranks:
        for one, other in zip(rank["sharded"]["absent"], model.parameters(), strict=True):
            assert other.grad is not None
            torch.testing.assert_close(one, other.grad / WORLD, rtol=0, atol=1e-9)


def test_passes_for_others_move_no_running_statistics(ranks: list[dict[str, Any]]) -> None:
    # The one that finds the labels, and the two of training.
    assert ranks[0]["sharded"]["passes"] > 3
    assert ranks[1]["sharded"]["passes"] == 3


def test_what_waits_in_every_pass_is_refused_by_name(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        engine, still, training = rank["sharded"]["refused"]
        assert engine.startswith("ValueError: the model is in DeepSpeedEngine")
        assert still.startswith("no error")
        assert "SyncBatchNorm" in training and "variant='paper'" in training
