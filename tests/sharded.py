"""What each of two processes does with a sharded model; their samples need unequal passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nets import cnn, seeded
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.data import TensorDataset

from ima import Classification, evaluate
from ima.attacks import bpgd, pgd
from ima.attacks.inputs import in_company
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
    """A method with few steps; more: of its arguments."""
    row = METHODS[name]
    options: dict[str, Any] = (
        {} if name == "standard" else {"eps": 1.5, "steps": 4, "bounds": (0, 1)}
    )
    if name in ("ima", "mma", "iaat", "customized"):
        options["num_samples"] = 20
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
    fully_shard(model)
    return model


def sharded1() -> nn.Module:
    return FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)


def gathered(tensor: Any) -> Tensor:
    """All of a sharded tensor."""
    return tensor.full_tensor().detach()


def whole(model: nn.Module) -> list[Tensor]:
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model):
            return [p.detach().clone() for p in model.parameters()]
    return [gathered(p) for p in model.parameters()]


CASES = {f"{name} fsdp2": (name, sharded2, {}) for name in METHODS} | {
    f"{name} fsdp1": (name, sharded1, {}) for name in ("standard", "sat", "ima", "trades", "mma")
}
CASES["ima released fsdp2"] = ("ima", sharded2, {"variant": "released"})


def attacked(rank: int, model: nn.Module) -> dict[str, Any]:
    """What attacks and evaluations give of process `rank`, whose data has a length of its own."""
    x, y, _ = samples(0)
    x, y = (t[: len(x) - 2 * rank] for t in (x, y))
    data = TensorDataset(x, y)
    walked = pgd(model, x, y, torch.linspace(0, 2, len(x)).double(), steps=4, bounds=(0, 1))
    found = evaluate(model, data, [0.5, 1.5], ["pgd-3"], bounds=(0, 1), batch_size=2)
    return {
        "pgd": walked.x,
        "evaluate": [(row.broken, row.size) for row in found.rows],
        "gradients": [p.grad is not None for p in model.parameters()],
    }


def told(function: Callable[[], Any]) -> str:
    try:
        return f"no error: {function()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def failing(rank: int) -> str:
    """One process comes to an error amid an attack."""

    def objective(output: Any, target: Any) -> Tensor:
        if rank == 1:
            raise ArithmeticError("no objective")
        return Classification().objective(output, target)

    x, y, _ = samples(0)
    model = sharded2()
    return told(lambda: pgd(model, x, y, 1.0, steps=4, objective=objective))


def idle(rank: int) -> list[str]:
    """Process 1 has no samples to evaluate, or to attack."""
    x, y, _ = samples(0)
    data = TensorDataset(x[: 2 - 2 * rank], y[: 2 - 2 * rank])
    attack = in_company(lambda model: None if rank else pgd(model, x, y, 1.0, steps=2))
    model = sharded2()
    return [told(lambda: evaluate(model, data, 1.0, ["pgd-3"])), told(lambda: attack(model))]


def absent(rank: int) -> list[Tensor]:
    """The whole gradients of a step for which process 0 has no samples."""
    x, y, ids = (t[: BATCH * rank] for t in samples(0))
    model = sharded2()
    build("ima")(model, x, y, ids).loss.backward()
    return [gathered(p.grad) for p in model.parameters()]


def passes(rank: int) -> int:
    """How many passes have moved running statistics; attacks in training mode move them too."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(32, 3)).double().train()
    fully_shard(model)
    x, _, ids = samples(0)
    with torch.no_grad():
        logits = model(x)
    y = logits.argmin(1) if rank else logits.argmax(1)
    build("ima", variant="released")(model, x, y, ids)
    return int(model.get_buffer("0.1.num_batches_tracked"))


class DeepSpeedEngine(nn.Module):
    """By its name one that no attack can use."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


def refused() -> list[str]:
    x, y, _ = samples(0)
    synchronised = nn.Sequential(nn.SyncBatchNorm(1), network()).double().train()
    return [
        told(lambda: pgd(DeepSpeedEngine(), x, y, 1.0)),
        told(lambda: pgd(nn.Sequential(synchronised), x, y, 1.0, steps=1).x.shape),
        told(lambda: bpgd(synchronised, x, y, 1.0, mode="train")),
    ]


def found(rank: int) -> dict[str, Any]:
    """What process `rank` finds, all cases after each other."""
    trained = {}
    for case, (name, shard, more) in CASES.items():
        model = shard()
        losses = train(model, [build(name, **more)], [rank])
        trained[case] = {"losses": losses, "weights": whole(model)}
    return trained | {
        "attacked": attacked(rank, sharded2().eval()),
        "failing": failing(rank),
        "idle": idle(rank),
        "absent": absent(rank),
        "passes": passes(rank),
        "refused": refused(),
    }
