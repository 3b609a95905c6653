"""Tasks of a user's own, whose labels are no classes: one a kind, with a network and data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from nets import seeded
from torch import Tensor, nn
from torch.utils.data import Dataset


class Base:
    def check(self, output: Any, target: Any) -> None:
        """Anything goes."""

    def objective(self, output: Any, target: Any) -> Tensor:
        return self.loss(output, target)

    def loss(self, output: Any, target: Any) -> Tensor:
        return -self.score(output, target)

    def correct(self, output: Any, target: Any) -> Tensor:
        return self.score(output, target) > 0

    def score(self, output: Any, target: Any) -> Tensor:
        raise NotImplementedError


class Within(Base):
    """Regression: right within a tolerance; targets (B,) floats."""

    def score(self, output: Any, target: Any) -> Tensor:
        return 0.3 - (output[:, 0] - target).abs()

    def predict(self, output: Any) -> Tensor:
        return output[:, 0]


class Tags(Base):
    """Several labels a sample: right where all are; targets (B, K) zeros and ones."""

    def loss(self, output: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target.float(), reduction="none").sum(1)

    def score(self, output: Any, target: Any) -> Tensor:
        return (output * (2.0 * target - 1)).amin(1)

    def predict(self, output: Any) -> Tensor:
        return output > 0


class Ordinal(Base):
    """Ordered grades, from one logit a step: right within the same grade; targets (B,) integers."""

    def score(self, output: Any, target: Any) -> Tensor:
        above = torch.arange(output.shape[1]) < target[:, None]
        return torch.where(above, output, -output).amin(1)

    def predict(self, output: Any) -> Tensor:
        return (output > 0).sum(1)


class Box(Base):
    """Detection: a box and whether there is one; outputs and targets are dicts of tensors."""

    def score(self, output: Any, target: Any) -> Tensor:
        far = (output["box"] - target["box"]).abs().amax(1)
        sign = 2.0 * target["there"] - 1
        return torch.minimum(0.5 - far, sign * output["logit"])

    def predict(self, output: Any) -> Any:
        return {"box": output["box"], "there": output["logit"] > 0}


class Map(Base):
    """One number a pixel: targets (B, H, W) floats."""

    def score(self, output: Any, target: Any) -> Tensor:
        return 0.4 - (output[:, 0] - target).abs().flatten(1).amax(1)

    def predict(self, output: Any) -> Tensor:
        return output[:, 0]


class Heads(nn.Module):
    """A dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        output = self.inner(x)
        return {"box": output[:, :4], "logit": output[:, 4]}


class Grades(nn.Module):
    """Logits of three steps, each higher up than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) - torch.tensor([-0.1, 0.1, 0.3])


@dataclass(frozen=True)
class Case:
    """A task with a network that is right on most of its samples; classes: labels are some."""

    task: Any
    network: Callable[[], nn.Module]
    targets: Callable[[Any], Any]
    classes: bool = False


def _flat(outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))


OWN_TASKS = {
    "regression": Case(Within(), _flat(1), lambda o: o[:, 0].round(decimals=1)),
    "tags": Case(Tags(), _flat(3), lambda o: (o > 0).long()),
    "tags as truth values": Case(Tags(), _flat(3), lambda o: o > 0),
    "ordinal": Case(Ordinal(), Grades, lambda o: (o > 0).sum(1), classes=True),
    "detection": Case(
        Box(), Heads, lambda o: {"box": o["box"].round(decimals=1), "there": o["logit"] > 0}
    ),
    "map": Case(Map(), lambda: nn.Conv2d(1, 1, 1), lambda o: o[:, 0].round(decimals=1)),
}


class Samples(Dataset[Any]):
    """Samples and targets, whatever targets are."""

    def __init__(self, x: Tensor, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> Any:
        if isinstance(self.y, dict):
            return self.x[at], {key: value[at] for key, value in self.y.items()}
        return self.x[at], self.y[at]


def problem(name: str, n: int = 24) -> tuple[nn.Module, Samples, Any]:
    """Network, data and task; the first sample is wrong without noise."""
    case = OWN_TASKS[name]
    torch.manual_seed(3)
    network = case.network()
    x = torch.rand(n, 1, 4, 4, generator=seeded(0))
    with torch.no_grad():
        y = case.targets(network(x))
    for part in y.values() if isinstance(y, dict) else [y]:
        part[0] = ~part[0] if part.dtype == torch.bool else 1 - part[0]
    if name == "regression":
        y[0] += 9
    return network, Samples(x, y), case.task
