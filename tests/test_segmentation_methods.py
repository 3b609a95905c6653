"""Every training method with the task Segmentation: labels, regions, several scales, volumes."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nets import redraw, seeded
from torch import Tensor, nn
from torch.nn import functional as F

from ima.methods import METHODS, CurriculumAT, Method
from ima.tasks import Segmentation

SAMPLES, EPS, DELTA = 6, 3.0, 0.5
SETTINGS: dict[str, Any] = {
    "num_samples": SAMPLES, "eps": EPS, "delta": DELTA, "norm": 2, "bounds": None, "steps": 3
}  # fmt: skip
IGNORE = 7

DEFINED = [name for name, row in METHODS.items() if row.segmentation]
each_defined_method = pytest.mark.parametrize("name", DEFINED)


def build(name: str, **change: Any) -> Method:
    wanted = {**SETTINGS, **change}
    kind = METHODS[name].method
    taken = inspect.signature(kind).parameters
    method = kind(**{key: value for key, value in wanted.items() if key in taken})
    if isinstance(method, CurriculumAT):
        # Its first epochs have no noise.
        method.lesson.strength = 2
    return method


# ---------------------------------------------------------------------------- problems


class Convolutions(nn.Module):
    """Two convolutions; with `deep` a second head at half the resolution, as a list of two."""

    def __init__(self, channels: int, dims: int = 2, *, deep: bool = False) -> None:
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.body = conv(1, 8, 3, padding=1)
        self.head, self.low = conv(8, channels, 3, padding=1), conv(8, channels, 1)
        self.pool = (F.avg_pool2d, F.avg_pool3d)[dims - 2]
        self.deep = deep

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.body(x))
        return [self.head(h), self.low(self.pool(h, 2))] if self.deep else self.head(h)


def blobs(dims: int = 2, side: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Z-scored images (B, 1, *S) of bright balls with a brighter core, and labels (B, 1, *S).

    The last sample's truth misses its ball: a network that learns the others has it wrong.
    """
    generator = seeded(seed)
    axes = torch.stack(torch.meshgrid(*[torch.arange(float(side))] * dims, indexing="ij"))
    labels: list[Tensor] = []
    for _ in range(SAMPLES):
        centre = side * (0.4 + 0.2 * torch.rand(dims, generator=generator))
        distance = (axes - centre.reshape(-1, *[1] * dims)).pow(2).sum(0).sqrt()
        here = (distance < side * 0.35).long() + (distance < side * 0.2).long()
        labels.append(here)
    y = torch.stack(labels)[:, None]
    x = y + 0.2 * torch.randn(y.shape, generator=generator)
    y[-1] = 0
    return (x - x.mean()) / x.std(), y


@dataclass(frozen=True)
class Problem:
    """A batch, a network that is half trained on it, and what its outputs mean."""

    model: nn.Module
    x: Tensor
    y: Any
    task: Segmentation

    def loss(self) -> float:
        with torch.no_grad():
            return float(self.task.loss(self.model(self.x), self.y).mean())

    def correct(self) -> int:
        with torch.no_grad():
            return int(self.task.correct(self.model(self.x), self.y).sum())


def half_trained(model: nn.Module, x: Tensor, y: Any, task: Segmentation) -> Problem:
    problem = Problem(redraw(model, seed=3), x, y, task)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(model(x), y).mean().backward()
        optimizer.step()
        # Some samples must be right for noise to be added, and some wrong.
        if problem.correct() >= SAMPLES // 2:
            break
    return problem


def labels_2d() -> Problem:
    x, y = blobs()
    return half_trained(Convolutions(3), x, y, Segmentation())


def labels_without_channel_axis() -> Problem:
    x, y = blobs(seed=1)
    return half_trained(Convolutions(3), x, y[:, 0], Segmentation())


def ignored_pixels() -> Problem:
    x, y = blobs(seed=2)
    y[:, :, :3] = IGNORE
    return half_trained(Convolutions(3), x, y, Segmentation(ignore_label=IGNORE))


def deep_supervision() -> Problem:
    x, y = blobs(seed=3)
    scales = [y.float(), y[..., ::2, ::2].float()]
    task = Segmentation(weights=(2 / 3, 1 / 3))
    return half_trained(Convolutions(3, deep=True), x, scales, task)


def regions() -> Problem:
    x, y = blobs(seed=4)
    # As in nnU-Net: the whole, and its core.
    ones = torch.cat([y > 0, y > 1], 1).float()
    return half_trained(Convolutions(2), x, ones, Segmentation(regions=True))


def one_region() -> Problem:
    x, y = blobs(seed=5)
    return half_trained(Convolutions(1), x, (y > 0).float(), Segmentation(regions=True))


def regions_deep_ignored() -> Problem:
    x, y = blobs(seed=6)
    hidden = torch.zeros_like(y, dtype=torch.bool)
    hidden[:, :, :3] = True
    ones = torch.cat([y > 0, y > 1, hidden], 1).float()
    task = Segmentation(regions=True)
    return half_trained(Convolutions(2, deep=True), x, [ones, ones[..., ::2, ::2]], task)


def volumes() -> Problem:
    x, y = blobs(dims=3, side=8, seed=7)
    return half_trained(Convolutions(3, dims=3), x, y, Segmentation())


PROBLEMS = (
    labels_2d,
    labels_without_channel_axis,
    ignored_pixels,
    deep_supervision,
    regions,
    one_region,
    regions_deep_ignored,
    volumes,
)


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest) -> Problem:
    torch.manual_seed(0)
    return request.param()


@pytest.fixture
def problem(made: Problem) -> Problem:
    return copy.deepcopy(made)


# ---------------------------------------------------------------------------- what must hold


def test_the_problems_hold_right_and_wrong_samples(problem: Problem) -> None:
    assert 0 < problem.correct() < SAMPLES


@each_defined_method
def test_five_steps_train(name: str, problem: Problem) -> None:
    method, model = build(name, task=problem.task), problem.model
    before = problem.loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(5):
        right = problem.correct()
        step = method(model, problem.x, problem.y, torch.arange(SAMPLES))
        assert step.loss.shape == ()
        check_metrics(step.metrics, right)
        assert math.isfinite(float(step.loss.detach()))
        optimizer.zero_grad()
        step.loss.backward()
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        optimizer.step()
        if "margin" in step.metrics:
            margins = method.state_dict()["margins"]["values"]
            assert bool(((margins >= 0) & (margins <= EPS)).all())
    assert problem.loss() < before


def check_metrics(metrics: dict[str, Tensor], right: int) -> None:
    """Counts that fit each other, and numbers in their ranges."""
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    found = {name: float(value) for name, value in metrics.items()}
    assert found["samples"] == SAMPLES
    assert found["correct"] == right
    if "noisy_samples" in found:
        noisy = found["noisy_samples"]
        assert 0 <= found["noisy_correct"] <= noisy <= SAMPLES
        assert 0 <= found["crossed"] <= noisy
        assert 0 <= found["stuck"] <= noisy
    assert 0 <= found.get("margin", 0.0) <= EPS


def test_margins_grow_where_a_sample_is_right_and_stay_where_it_is_wrong(
    problem: Problem,
) -> None:
    with torch.no_grad():
        right = problem.task.correct(problem.model(problem.x), problem.y)
    # So small that no sample can cross, and none is given up.
    small = 1e-4
    method = build("ima", task=problem.task, delta=small)
    method(problem.model, problem.x, problem.y, torch.arange(SAMPLES))
    margins = method.state_dict()["margins"]["values"]
    expected = torch.where(right, 2 * small, small)
    torch.testing.assert_close(margins, expected, check_dtype=False)


@each_defined_method
def test_noise_makes_the_full_resolution_worse(name: str, problem: Problem) -> None:
    if name == "standard":
        return
    seen: list[Tensor] = []
    method = build(name, task=problem.task, eps=5.0, delta=5.0, steps=5)
    hook = problem.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    step = method(problem.model, problem.x, problem.y, torch.arange(SAMPLES))
    hook.remove()
    worst = torch.full((SAMPLES,), -math.inf)
    with torch.no_grad():
        clean = problem.task.objective(problem.model(problem.x), problem.y)
        for x in seen:
            if len(x) == SAMPLES:
                noise = torch.linalg.vector_norm((x - problem.x).flatten(1), dim=1)
                assert float(noise.max()) <= 5.0 * 1.0001
                worst = worst.maximum(problem.task.objective(problem.model(x), problem.y))
    assert float(step.metrics["noisy_samples"]) > 0
    assert bool((worst > clean + 0.05).any())


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if not row.segmentation])
def test_methods_that_need_class_probabilities_refuse(name: str) -> None:
    with pytest.raises(ValueError, match=r"class probabilities.* Segmentation; .*Classification"):
        build(name, task=Segmentation())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda y: y[:, :, :-1], r"\(6, 1, 11, 12\) .*\(6, 1, 12, 12\)"),
        (lambda y: y + 2, "hold 3.*labels 0 to 2"),
        (lambda y: y[:4], r"\(4, 1, 12, 12\)"),
    ],
    ids=["another size", "a label too high", "too few"],
)
@each_defined_method
def test_targets_that_do_not_fit_are_named(
    name: str, change: Callable[[Tensor], Tensor], text: str
) -> None:
    x, y = blobs()
    method = build(name, task=Segmentation())
    with pytest.raises((ValueError, TypeError), match=text):
        method(Convolutions(3), x, change(y), torch.arange(SAMPLES))
