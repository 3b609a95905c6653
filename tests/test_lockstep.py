"""Sharded models: two processes whose samples need different numbers of passes train as one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nets import cnn, seeded
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from ima.methods import METHODS, CurriculumAT

WORLD = 2
SHAPE = (1, 6, 6)
STEPS = 2
BATCH = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "ima": {"delta": 0.4},
    "gairat": {"begin": 0},
    "fat": {"tau": 0},
}


def network() -> nn.Sequential:
    return cnn(outputs=3).double().train()


def samples(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one process, with their ids; the fresh network is wrong on all of process 1's."""
    x = torch.rand(STEPS * BATCH, *SHAPE, generator=seeded(rank)).double()
    y = cnn(outputs=3).double().eval()(x).argmax(1)
    return x, (y + rank) % 3, torch.arange(len(x)) + rank * len(x)


def build(name: str, **more: Any) -> Any:
    row = METHODS[name]
    options: dict[str, Any] = (
        {} if name == "standard" else {"eps": 1.5, "steps": 4, "bounds": (0, 1)}
    )
    if name in ("ima", "mma", "iaat", "customized"):
        options["num_samples"] = WORLD * STEPS * BATCH
    method = row.method(**options | OPTIONS.get(name, {}) | more)
    if isinstance(method, CurriculumAT):
        method.lesson.strength = 2
    return method


def train(model: nn.Module, methods: list[Any], ranks: list[int]) -> list[float]:
    """Losses of every step; those of several processes are averaged, as FSDP does it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(STEPS):
        parts = []
        for method, rank in zip(methods, ranks, strict=True):
            x, y, ids = (t[step * BATCH : (step + 1) * BATCH] for t in samples(rank))
            parts.append(method(model, x, y, ids).loss)
        loss = torch.stack(parts).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def sharded2() -> nn.Module:
    model = network()
    fully_shard(model[0])
    fully_shard(model[2])
    return fully_shard(model)


def sharded1() -> nn.Module:
    return FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)


def whole(model: nn.Module) -> list[Tensor]:
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model):
            return [p.detach().clone() for p in model.parameters()]
    return [p.full_tensor().detach() for p in model.parameters()]  # pyright: ignore


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    found: dict[str, Any] = {}
    for name in METHODS:
        for kind, shard in (("fsdp2", sharded2), ("fsdp1", sharded1)):
            model = shard()
            losses = train(model, [build(name)], [rank])
            found[f"{name} {kind}"] = {"losses": losses, "weights": whole(model)}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("sharded")
    mp.spawn(work, (str(folder),), nprocs=WORLD)
    files = [io.BytesIO((folder / f"{rank}.pt").read_bytes()) for rank in range(WORLD)]
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.parametrize("kind", ["fsdp2", "fsdp1"])
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_with_a_sharded_model_train_as_one(
    ranks: list[dict[str, Any]], name: str, kind: str
) -> None:
    model = network()
    losses = train(model, [build(name), build(name)], [0, 1])
    found = [rank[f"{name} {kind}"] for rank in ranks]
    mean = torch.tensor([f["losses"] for f in found]).mean(0)
    torch.testing.assert_close(mean, torch.tensor(losses), rtol=1e-6, atol=1e-6)
    for f in found:
        for one, other in zip(f["weights"], model.parameters(), strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=0, atol=1e-6)
