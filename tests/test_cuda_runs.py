"""What runs on a GPU only, or otherwise there: mixed precision, compilers, processes, a trainer."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tiny_nnunet as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nets import cnn, recurrent, seeded, two_clouds
from on_device import CPU, DEVICE, close, cuda_only, on_device
from test_methods import PLAIN, Row, clean_loss
from test_nnunet_trainers import SHORT
from test_shared_evaluation import attacked, rows
from test_training import Watch, new
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

from ima import IMA, evaluate
from ima.cores import keep_freed
from ima.training.loop import fit

pytestmark = [*on_device, pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")]

BOX = (0, 1)


def problem(classes: int = 3) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A fresh network on the device in training mode, samples, labels and ids."""
    x, y = two_clouds((1, 6, 6), classes)
    model = cnn(outputs=classes, batch_norm=True).to(DEVICE).train()
    return model, x.to(DEVICE), y.to(DEVICE), torch.arange(len(x), device=DEVICE)


# ---------------------------------------------------------------------------- mixed precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("row", PLAIN.values(), ids=PLAIN.keys())
def test_a_method_trains_in_mixed_precision(row: Row, dtype: torch.dtype) -> None:
    model, x, y, ids = problem(2)
    method, optimizer = row.build(), torch.optim.Adam(model.parameters(), lr=0.03)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=dtype == torch.float16)
    before = clean_loss(model, x, y)
    for epoch in range(15):
        with torch.autocast(DEVICE.type, dtype):
            step = method(model, x, y, ids)
        assert bool(torch.isfinite(step.loss))
        optimizer.zero_grad()
        scaler.scale(step.loss).backward()
        scaler.step(optimizer)
        scaler.update()
        method.end_epoch(epoch, 15)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert clean_loss(model, x, y) < before


@pytest.mark.parametrize(("network", "eps"), [("cnn", 0.15), ("lstm", 0.5)])
def test_gradients_in_bfloat16_break_what_float32_finds_broken(network: str, eps: float) -> None:
    model = (cnn(outputs=3) if network == "cnn" else recurrent()).to(DEVICE).eval()
    x = torch.rand(40, *((1, 6, 6) if network == "cnn" else (6, 4)), generator=seeded(5))
    with torch.no_grad():
        y = model(x.to(DEVICE)).argmax(1).cpu()
    noisy: dict[int, tuple[Tensor, bool]] = {}

    def keep(example: Any) -> None:
        noisy[example.id] = (example.noisy, example.quality == 0)

    found, full = (
        evaluate(model, TensorDataset(x, y), eps, "pgd-10", bounds=BOX, precision=one, **more)
        for one, more in (("bfloat16", {"keep": keep}), ("float32", {}))
    )
    assert 0 < full.accuracy("pgd-10", eps) < 1
    assert found.accuracy("pgd-10", eps) == pytest.approx(full.accuracy("pgd-10", eps), abs=0.1)
    for i, (point, broken) in noisy.items():
        with torch.no_grad():
            logits = model(point[None].to(DEVICE))[0].cpu()
        # But for a point so near that another batch rounds it over.
        sure = float((logits.topk(2).values @ torch.tensor([1.0, -1.0])).abs()) > 1e-4
        assert not sure or broken == (int(logits.argmax()) != int(y[i]))


# ---------------------------------------------------------------------------- compilers


def _compiler() -> bool:
    needs = importlib.util.find_spec("triton") is not None if DEVICE.type == "cuda" else True
    return needs and any(map(shutil.which, ("c++", "g++", "clang++")))


@pytest.mark.skipif(not _compiler(), reason="torch.compile finds no compiler here")
def test_a_compiled_network_fares_as_it_is() -> None:
    plain, x, y, ids = problem()
    found: list[Any] = []
    for compiled in (False, True):
        # What compilers warn of is not ours.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = torch.compile(deepcopy(plain)) if compiled else deepcopy(plain)
            method = IMA(num_samples=len(x), bounds=BOX)
            step = method(model, x, y, ids)
            step.loss.backward()
            data = TensorDataset(x.cpu(), y.cpu())
            results = evaluate(model.eval(), data, [0.2, 0.6], "pgd-5", bounds=BOX)
        slopes = [p.grad for p in model.parameters()]
        told = {name: float(value) for name, value in step.metrics.items()}
        found.append([told, slopes, method.margins.values, results.columns["quality"].tolist()])
    close(found[1], found[0], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------- processes

WORLD = 2


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    backend, device = "gloo", DEVICE
    if DEVICE.type == "cuda":
        backend, device = "nccl", torch.device("cuda", rank)
        torch.cuda.set_device(device)
    meet = f"file://{folder}/meet"
    dist.init_process_group(backend, init_method=meet, rank=rank, world_size=WORLD)
    found: dict[str, Any] = {"rows": rows(attacked(device, distributed=True))}
    x, y = (part.to(device) for part in two_clouds((1, 6, 6), 3))
    model = cnn(outputs=3).to(device).train()
    inner = DistributedDataParallel(model, device_ids=[rank] if backend == "nccl" else None)
    method = IMA(num_samples=len(x), bounds=BOX, clean_drop=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        ids = torch.arange(rank, len(x), WORLD, device=device)
        step = method(inner, x[ids], y[ids], ids)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
    found |= {"weights": [p.detach().cpu() for p in model.parameters()]}
    found |= {"margins": method.margins.values.cpu(), "radius": method.state_dict()["radius"]}
    dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.skipif(
    DEVICE.type == "cuda" and torch.cuda.device_count() < WORLD, reason="nccl needs two GPUs"
)
def test_two_processes_evaluate_and_train_as_one(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=WORLD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["rows"] == second["rows"] == rows(attacked(DEVICE))
    close(second, first, rtol=0, atol=0)
    assert bool((first["margins"] > 0).any())


# ---------------------------------------------------------------------------- training


def test_a_run_trains_stops_and_continues(tmp_path: Path) -> None:
    keep_freed()
    run, whole = new(tmp_path / "stopped"), new(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(run, watcher=Watch(after=0), init=None, device=DEVICE.type)
    for one in (run, whole):
        fit(one, watcher=Watch(), init=None, device=DEVICE.type)
    losses = [[row["loss"] for row in one.epochs()] for one in (run, whole)]
    # cuDNN adds in any order.
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnU-Net is not installed")
def test_nnunet_trains_an_epoch(tmp_path: Path) -> None:
    trainer = "nnUNetTrainerIMAPaper"
    folders = tiny.Folders(tmp_path)
    tiny.make_raw(folders.raw, cases=5, test_cases=0)
    tiny.plan(folders, "2d")
    few = {**SHORT, "IMA_EPOCHS": "1", "IMA_ITERATIONS": "2", "nnUNet_compile": "f"}
    done = tiny.train(folders, trainer, device=DEVICE.type, **few)
    assert "Epoch 0" in done.stdout
    final = folders.trained(trainer) / "fold_0" / "checkpoint_final.pth"
    state = torch.load(final, weights_only=True, map_location=CPU)["ima"]["method"]
    assert bool((state["margins"]["values"] > float(SHORT["IMA_DELTA"])).any())


# ---------------------------------------------------------------------------- waiting

MOST = 30
"""Times that a step of IMA waits for the GPU, at most, whatever the batch and the network.

Its own lines ask 15 times: for what is wrong with a batch, how many samples still walk, which way
they went, and for the radius; PyTorch's sorting and picking may ask more than once a line.
"""


def waits(run: Any) -> int:
    """How often a call makes the CPU wait for the GPU, copies from the CPU's memory included."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA" in str(one.message) for one in said)


@cuda_only
def test_a_step_seldom_waits_for_the_gpu() -> None:
    found: list[int] = []
    for count in (30, 300):
        model, x, y, _ = problem()
        x, y = x.repeat(count // 30, 1, 1, 1), y.repeat(count // 30)
        ids = torch.arange(len(x), device=DEVICE)
        method = IMA(num_samples=len(x), bounds=BOX)

        def step() -> None:
            method(model, x, y, ids).loss.backward()  # noqa: B023

        step()
        found.append(waits(step))
    assert max(found) <= MOST
