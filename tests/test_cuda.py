"""On a GPU all comes out as on the CPU, but for the order in which floats are added.

Networks and samples are in float64, where rounding hardly ever turns a decision; float32 is
compared where nothing hangs on one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import test_attacks
import test_multilabel
import torch
from nets import cnn, recurrent, redraw, seeded, two_clouds
from on_device import CPU, DEVICE, both, on_device
from test_methods import PLAIN, ROWS, Row
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import IMA, MultiLabel, Segmentation, ddn, evaluate, minimal, pgd, run_checks
from ima.attacks.alma import alma
from ima.evaluation import autoattack, bench, finders
from ima.evaluation.attacks import ATTACKS
from ima.norms import L2, LINF, gaussian, get_norm
from ima.tasks import Task

pytestmark = [*on_device, pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")]

each_norm = pytest.mark.parametrize("norm", [2, math.inf])
BOX = (0.0, 1.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small budgets; and convolutions in float32 as such, not in TF32."""
    for module, names in ((autoattack, ("ITERATIONS", "_QUERIES")), (finders, ("ITERATIONS",))):
        for name in names:
            monkeypatch.setattr(module, name, 8)
    monkeypatch.setattr(bench, "QUERIES", 20)
    monkeypatch.setattr(bench, "DRAWS", 5)
    monkeypatch.setattr(finders, "STEPS", 20)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


# ---------------------------------------------------------------------------- methods


def two_steps(row: Row, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Metrics of two steps, and at the end the weights and all that the method keeps."""
    x, y = two_clouds((1, 6, 6), 3)
    y[::5] = (y[::5] + 1) % 3
    model = cnn(outputs=3, batch_norm=True).to(device, dtype).train()
    x, y, ids = x.to(device, dtype), y.to(device), torch.arange(len(x), device=device)
    method, optimizer = row.build(), torch.optim.SGD(model.parameters(), lr=0.05)
    told: list[dict[str, float]] = []
    for _ in range(2):
        step = method(model, x, y, ids)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        told.append({name: float(value) for name, value in step.metrics.items()})
    return {"told": told, "weights": dict(model.state_dict()), "kept": method.state_dict()}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_a_method_takes_the_same_steps(row: Row) -> None:
    both(lambda device: two_steps(row, device, torch.float64), atol=1e-6)


@pytest.mark.parametrize("row", PLAIN.values(), ids=PLAIN.keys())
def test_a_method_takes_the_same_steps_in_float32(row: Row) -> None:
    def run(device: torch.device) -> Any:
        found = two_steps(row, device, torch.float32)
        return [step["loss"] for step in found["told"]], list(found["weights"].values())

    # A sample that rounding turns changes a loss by a little.
    both(run, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("draw", [L2.random, LINF.random, gaussian])
def test_one_seed_draws_the_same_noise(draw: Callable[..., Tensor]) -> None:
    def run(device: torch.device) -> Tensor:
        like, radius = torch.zeros(5, 3, 4, device=device), torch.linspace(0, 2, 5, device=device)
        source = seeded(3)
        noise = draw(like, source) if draw is gaussian else draw(like, radius, source)
        assert noise.device.type == device.type
        return noise

    both(run)
    # And without a generator, from a source that goes on.
    assert bool(
        (draw(torch.zeros(2, 3), *[torch.ones(2)] * (draw is not gaussian), None) != 0).any()
    )


# ---------------------------------------------------------------------------- attacks


def problem(device: torch.device) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network, samples that it has right but for one, and radii at which some cross."""
    model = cnn(outputs=3).double().eval()
    x = torch.rand(10, 1, 6, 6, generator=seeded(1)).double()
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    eps = 1.5 * test_attacks.radii(model, x, y, 2)
    return model.to(device), x.to(device), y.to(device), eps.to(device)


def _alma(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, **more: Any) -> Any:
    bounds = (torch.zeros_like(x[0]), torch.ones_like(x[0]))
    found = alma(model, x, y, steps=20, radius=0.5, task=PROBLEMS["classes"][0], bounds=bounds)
    return {"x": found}


def _ddn(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, **more: Any) -> Any:
    return ddn(model, x, y, steps=20, radius=eps, **more)


FUNCTIONS: dict[str, Callable[..., Any]] = {**test_attacks.ATTACKS, "ddn": _ddn, "alma": _alma}


@each_norm
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_attack_finds_the_same(name: str, norm: float) -> None:
    def run(device: torch.device) -> dict[str, Any]:
        model, x, y, eps = problem(device)
        more = {"generator": seeded(0)} if name in test_attacks.RANDOM else {}
        eps = eps if norm == 2 else eps / 6
        found = FUNCTIONS[name](model, x, y, eps, norm=norm, bounds=BOX, **more)
        found = found if isinstance(found, dict) else vars(found)
        assert all(value.device == x.device for value in found.values())
        return found

    both(run, atol=1e-6)


# ---------------------------------------------------------------------------- evaluations


def _masks(n: int = 6) -> tuple[nn.Module, TensorDataset]:
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1)]
    model = redraw(nn.Sequential(*layers), 0)
    x = torch.rand(n, 1, 8, 8, generator=seeded(2))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:, 0] = 1 - y[:, 0]
    return model, TensorDataset(x, y)


def _classes() -> tuple[nn.Module, TensorDataset]:
    model, x, y, _ = problem(CPU)
    return model, TensorDataset(x, y)


PROBLEMS: dict[str, tuple[Task, Callable[[], tuple[nn.Module, TensorDataset]], list[float]]] = {
    "classes": (test_attacks.Classification(), _classes, [0.1, 0.4]),
    "masks": (Segmentation(), _masks, [0.3, 1.0]),
    "findings": (MultiLabel(), lambda: test_multilabel.problem(12), [0.05, 0.2]),
}
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def given(name: str, device: torch.device, norm: float) -> tuple[Any, Any, list[float], Any]:
    """Model on the device, data on the CPU, radii, and what all evaluations take."""
    task, build, eps = PROBLEMS[name]
    model, data = build()
    x, y = data.tensors
    eps = [one / (1 if norm == 2 else 5) for one in eps]
    same = {"task": task, "norm": norm, "bounds": BOX, "batch_size": 6}
    return model.double().to(device), TensorDataset(x.double(), y), eps, same


def serving(task: Task, norm: float) -> list[str]:
    """All attacks of the table that serve a task, with few steps."""
    rows = [row for row in ATTACKS.values() if not row.lacks(task, get_norm(norm), BOX)]
    return [row.name if row.steps is None else f"{row.name}-4" for row in rows]


def columns(found: Any) -> dict[str, list[Any]]:
    return {name: list(values.tolist()) for name, values in found.columns.items()}


@each_norm
@each_problem
def test_an_evaluation_gives_the_same_rows(name: str, norm: float) -> None:
    def run(device: torch.device) -> dict[str, list[Any]]:
        model, data, eps, same = given(name, device, norm)
        # The library's attacks compute in float32: they are compared below.
        names = [one for one in serving(PROBLEMS[name][0], norm) if "auto" not in one]
        return columns(evaluate(model, data, eps, names, **same))

    found = both(run, atol=1e-5)
    assert 0 < np.mean(found["quality"]) < 1


@each_norm
@pytest.mark.parametrize("attack", ["autoattack", "autoattack+"])
def test_autoattack_breaks_the_same_samples(attack: str, norm: float) -> None:
    def broken(device: torch.device, eps: float) -> np.ndarray:
        model, data, _, same = given("classes", device, norm)
        return evaluate(model, data, eps, attack, **same).of_attack(attack, eps)["quality"] == 0

    model, data, radii, same = given("classes", CPU, norm)
    distance = minimal(model, data, radii, **same).values
    eps = 1.1 * float(np.median(distance))
    clear = np.abs(distance / eps - 1) > 0.05
    found, expected = (broken(device, eps) for device in (DEVICE, CPU))
    assert clear.sum() > 5 and (found == expected)[clear].all()


@each_norm
@each_problem
def test_minimal_finds_the_same_distances(name: str, norm: float) -> None:
    def run(device: torch.device) -> list[Any]:
        model, data, eps, same = given(name, device, norm)
        return [(row.prediction, row.distance) for row in minimal(model, data, eps, **same).rows]

    # The search ends on a grid of a thousandth of the way.
    both(run, rtol=5e-3, atol=1e-5)


@each_problem
def test_checks_say_the_same(name: str) -> None:
    def run(device: torch.device) -> list[Any]:
        model, data, eps, same = given(name, device, 2)
        del same["batch_size"]
        found = run_checks(model, data, eps, ["pgd-4"], steps=4, transfer=model, **same)
        return [(check.name, check.tripped) for check in found.checks]

    both(run)


# ---------------------------------------------------------------------------- recurrent networks


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks_are_attacked_and_trained(kind: type[nn.RNNBase]) -> None:
    def run(device: torch.device) -> dict[str, Any]:
        model = recurrent(kind).double().to(device)
        x = torch.rand(8, 6, 4, generator=seeded(0)).double().to(device)
        with torch.no_grad():
            y = model.eval()(x).argmax(1)
        data = TensorDataset(x, y)
        found = {
            "attacked": vars(pgd(model, x, y, 0.5, steps=5)),
            "evaluated": columns(evaluate(model, data, [0.2, 0.6], ["pgd-5"], bounds=BOX)),
            "nearest": [asdict(row) for row in minimal(model, data, [0.3], bounds=BOX).rows],
        }
        # Dropout between the layers draws on the device: none, to compare.
        model.layer.dropout = 0.0
        method = IMA(num_samples=8, bounds=BOX)
        method(model.train(), x, y, torch.arange(8, device=device)).loss.backward()
        found["slopes"] = [p.grad for p in model.parameters()]
        return found | {"margins": method.margins.values}

    both(run, rtol=5e-3, atol=1e-5)
