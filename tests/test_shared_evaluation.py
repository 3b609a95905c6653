"""Several processes evaluate one data set: the rows of one, whoever stops on the way."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nets import seeded
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ima import Budget, OutOfTime, Segmentation, evaluate, minimal
from ima.cli.processes import started
from ima.evaluation.results import Results
from ima.training.build import build_fabric

WORLDS = (2, 4)

EPS, ATTACKS = (0.1, 0.3), ("pgd-4", "ifgsm-4")


class Stops(nn.Module):
    """A network that fails on the sample of this value, under attack only."""

    def __init__(self, net: nn.Module, value: float) -> None:
        super().__init__()
        self.net, self.value = net, value

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and bool((x[:, 0] == self.value).any()):
            raise ValueError("the fan has stopped")
        return self.net(x)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


def samples() -> TensorDataset:
    x = torch.rand(47, 6, generator=seeded(0))
    y = network()(x).argmax(1)
    y[::5] = (y[::5] + 1) % 3
    return TensorDataset(x, y)


def masks() -> TensorDataset:
    x = torch.rand(11, 1, 8, 8, generator=seeded(1))
    return TensorDataset(x, (x[:, 0] > 0.5).long())


def pixels() -> nn.Module:
    net = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-4.0, 4.0]).reshape(2, 1, 1, 1))
        net.bias.copy_(torch.tensor([2.0, -2.0]))
    return net


def attacked(device: torch.device | str = "cpu", **options: Any) -> Results:
    model = network().to(device)
    return evaluate(model, samples(), EPS, ATTACKS, bounds=(0, 1), batch_size=8, **options)


def several(**options: Any) -> dict[str, Any]:
    """Every kind of evaluation, as rows."""
    names = [f"p{i // 3}" for i in range(11)]
    loader = DataLoader(samples(), batch_size=10, shuffle=True)
    return {
        "attacked": rows(attacked(**options)),
        "one batch": rows(evaluate(network(), samples(), 0.2, "pgd-3", **options)),
        "loader": rows(evaluate(network(), loader, 0.2, "pgd-3", **options)),
        "masks": rows(
            evaluate(
                pixels(),
                masks(),
                0.5,
                ["pgd-3"],
                task=Segmentation(),
                batch_size=2,
                names=names,
                **options,
            )
        ),
        "distances": [
            repr(row)
            for row in minimal(
                network(), samples(), 0.2, bounds=(0, 1), batch_size=16, **options
            ).rows
        ],
    }


def rows(found: Results) -> list[str]:
    return [*map(repr, found.rows), found.settings.data_sha256, str(found.settings.samples)]


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    place = Path(folder)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    found: dict[str, Any] = several(distributed=True)
    kept: list[int] = []
    attacked(distributed=True, keep=lambda example: kept.append(example.id))
    found["kept"] = sorted(set(kept))
    record = place / "record.part"
    late = Budget(1e-9)
    with pytest.raises(OutOfTime, match="the same again to continue"):
        attacked(distributed=True, partial=record, budget=late)
    dist.barrier()
    found["files"] = sorted(path.name for path in place.glob("record.part*"))
    dist.barrier()
    seen: list[int] = []
    found["continued"] = rows(
        attacked(distributed=True, partial=record, progress=lambda n, _: seen.append(n))
    )
    found["files after"] = sorted(path.name for path in place.glob("record.part*"))
    broken = partial(evaluate, Stops(network(), float(samples().tensors[0][9, 0])), samples())
    try:
        broken(0.2, "pgd-3", bounds=(0, 1), batch_size=8, distributed=True)
    except (ValueError, RuntimeError) as error:
        found["stopped"] = f"{type(error).__name__}: {error}"
    sampler = DistributedSampler(samples(), world, rank, shuffle=False)
    try:
        loader = DataLoader(samples(), batch_size=8, sampler=sampler)
        evaluate(network(), loader, 0.2, "pgd-3", distributed=True)
    except ValueError as error:
        found["other data"] = str(error)
    torch.save(found, place / f"{rank}.pt")
    # A process that ends with its group open can abort: threads of the group still run.
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of the processes found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (request.param, str(folder)), nprocs=request.param)
    found = [(folder / f"{rank}.pt").read_bytes() for rank in range(request.param)]
    return [torch.load(io.BytesIO(one), weights_only=True) for one in found]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return several()


@pytest.mark.parametrize("kind", ["attacked", "one batch", "loader", "masks", "distances"])
def test_all_processes_get_the_rows_of_one(
    ranks: list[Any], alone: dict[str, Any], kind: str
) -> None:
    for found in ranks:
        assert found[kind] == alone[kind]


def test_each_process_attacks_its_own_samples(ranks: list[Any]) -> None:
    # Batches of 8 of 47 samples; those that are wrong anyway are not attacked.
    mine = [set(found["kept"]) for found in ranks]
    assert all(mine)
    for rank, ids in enumerate(mine):
        assert all((i // 8) % len(ranks) == rank for i in ids)


def test_processes_whose_time_is_up_continue(ranks: list[Any], alone: dict[str, Any]) -> None:
    numbered = [f"record.part.{rank}" for rank in range(1, len(ranks))]
    for found in ranks:
        assert found["files"] == ["record.part", *numbered]
        assert found["continued"] == alone["attacked"]
        assert found["files after"] == ["record.part"]


def test_the_error_of_one_is_the_error_of_all(ranks: list[Any]) -> None:
    # Sample 9 lies in batch 1, of process 1.
    assert ranks[1]["stopped"] == "ValueError: the fan has stopped"
    for rank, found in enumerate(ranks):
        if rank != 1:
            assert found["stopped"] == "RuntimeError: process 1 stopped: the fan has stopped"


def test_other_data_in_every_process_is_refused(ranks: list[Any]) -> None:
    for found in ranks:
        assert "the processes have read different data" in found["other data"]


def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    whole = attacked()
    with pytest.raises(OutOfTime):
        attacked(partial=tmp_path / "a.part", budget=Budget(1e-9))
    # As if the second of two had done one batch more.
    record = (tmp_path / "a.part").read_text().splitlines(keepends=True)
    attacked(partial=tmp_path / "b.part")
    second = (tmp_path / "b.part").read_text().splitlines(keepends=True)
    (tmp_path / "a.part.1").write_text(record[0] + second[2])
    worked: list[float] = []

    def work_on(example: Any) -> None:
        worked.append(example.id)

    found = attacked(partial=tmp_path / "a.part", keep=work_on)
    assert rows(found) == rows(whole)
    assert min(worked) >= 16
    assert [path.name for path in tmp_path.glob("a.part*")] == ["a.part"]


def test_one_process_needs_no_group() -> None:
    assert rows(attacked(distributed=True)) == rows(attacked())


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, (0, 1, 0)),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (0, 1, 0)),
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"},
            (2, 4, 0),
        ),
    ],
    ids=["alone", "torchrun", "sbatch", "srun"],
)
def test_who_started_how_many(environment: dict[str, str], wanted: tuple[int, int, int]) -> None:
    assert started(environment) == wanted


OTHERS = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))

def images():
    x = torch.rand(600, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, network()(x).argmax(1))
"""


def test_the_command_line_in_two_processes(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(OTHERS)
    exec(OTHERS, names := dict[str, Any]())
    command = ["evaluate", "net.pt", "--model", "others:network", "--data", "others:images"]
    command += ["--eps", "0.05", "0.1", "--attacks", "pgd-3", "--bounds", "0", "1", "--distances"]
    found: dict[str, dict[str, bytes]] = {}
    said: dict[str, list[str]] = {}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for name, launcher in (("one", []), ("two", two)):
        place = tmp_path / name
        place.mkdir()
        torch.save(names["network"]().state_dict(), place / "net.pt")
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "ima", *command],
            cwd=place,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said[name] = done.stdout.splitlines()
        files = sorted(path for path in place.rglob("*.*") if path.suffix in (".csv", ".npz"))
        found[name] = {path.name: comparable(path) for path in files}
        assert not list(place.rglob("*.part*"))
    assert len(found["one"]) == 3
    assert found["two"] == found["one"]
    assert said["two"] == said["one"]


def comparable(path: Path) -> bytes:
    """What a file holds, without how long it took."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return b"".join(arrays[key].tobytes() for key in arrays)
    return re.sub(rb'"seconds": *[0-9.]+', b"", path.read_bytes())


def test_a_machine_of_a_cluster_is_not_told_to_use_srun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    # A warning is an error here.
    assert build_fabric("cpu").device.type == "cpu"
