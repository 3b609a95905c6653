"""Nearer boundary points: exact where the truth is known, and never worse than what was given."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from nets import cnn, seeded
from torch import Tensor, nn

from ima import Classification, MultiLabel, Segmentation
from ima.attacks.alma import alma
from ima.attacks.tangent import nearer
from ima.norms import get_norm
from ima.tasks import Task

NORMS = [2, "Linf"]


class Plane(nn.Module):
    """Class 1 where w x > w 0.5: half of the unit box."""

    w = torch.tensor([3.0, -2.0, 1.0, 0.5, -0.1, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        z = (x - 0.5) @ self.w.to(x.dtype)
        return torch.stack([-z, z], 1)


class Round(nn.Module):
    """Class 0 inside the ball of radius 1 around the origin."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.square().sum(1) - 1
        return torch.stack([-z, z], 1)


class Masks(nn.Module):
    """Foreground where a smoothed image is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        z = 8 * (nn.functional.avg_pool2d(x, 3, 1, 1) - 0.5)
        return torch.cat([-z, z], 1)


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def said(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x).argmax(1)


def far(point: Tensor, x: Tensor, norm: float | str) -> Tensor:
    return get_norm(norm).size(point - x)


@torch.no_grad()
def meeting(model: nn.Module, x: Tensor, y: Tensor, task: Task, *, wrong: bool = True) -> Tensor:
    """Points just beyond the boundary, or just before it, on the way to drawn points."""
    ones, generator = (-1, *(1,) * (x.ndim - 1)), seeded(3)
    outside, missing = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for _ in range(2000):
        drawn = torch.rand(x.shape, generator=generator)
        take = missing & ~task.correct(model(drawn), y)
        outside[take], missing = drawn[take], missing & ~take
    assert not missing.any()
    low, high = torch.zeros(len(x)), torch.ones(len(x))
    for _ in range(14):
        middle = (low + high) / 2
        right = task.correct(model(x.lerp(outside, middle.reshape(ones))), y)
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return x.lerp(outside, (high if wrong else low).reshape(ones))


def distance(x: Tensor, norm: float | str, low: float, high: float) -> Tensor:
    """Of the plane from x inside the bounds: the noise whose direction is clipped, by bisection."""
    w, gap = Plane.w, ((x - 0.5) @ Plane.w)[:, None]
    direction = -gap.sign() * (w.sign() if norm == "Linf" else w)
    shortest, longest = torch.zeros_like(gap), torch.full_like(gap, 100.0)
    for _ in range(60):
        middle = (shortest + longest) / 2
        there = ((x + middle * direction).clamp(low, high) - 0.5) @ w
        crossed = there[:, None] * gap <= 0
        shortest = torch.where(crossed, shortest, middle)
        longest = torch.where(crossed, middle, longest)
    return far((x + longest * direction).clamp(low, high), x, norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", ["inside", "outside"])
@pytest.mark.parametrize("bounds", [None, (0, 1), (torch.zeros(6), torch.ones(6))])
def test_one_step_is_exact_for_a_linear_model(norm: float | str, side: Any, bounds: Any) -> None:
    # Many entries lie on a bound already.
    model, x = Plane(), (1.6 * points(60, 6) - 0.3).clamp(0, 1)
    y = said(model, x)
    given = meeting(model, x, y, Classification(), wrong=side == "outside")
    found = nearer(model, x, y, given, norm=norm, side=side, bounds=bounds)
    true = distance(x, norm, *((0, 1) if bounds else (-100, 100)))
    before, after = far(given, x, norm), far(found, x, norm)
    assert (before / true).median() > 1.2
    # The search ends in a cell of a 1024th of the way, which clamping may shorten.
    slack = before / (300 if bounds else 1000) + 1e-6
    assert ((after - true).abs() <= slack).all()
    moved = (found != given).any(1)
    assert moved.float().mean() > 0.9
    assert ((said(model, found) == y)[moved] == (side == "inside")).all()
    if bounds:
        assert found.min() >= 0 and found.max() <= 1
        straight = distance(x, norm, -100, 100)
        assert (true > 1.01 * straight).sum() >= 3  # The bounds matter.


@pytest.mark.parametrize("norm", NORMS)
def test_each_step_comes_nearer_to_a_curved_boundary(norm: float | str) -> None:
    x = points(30, 5) / 3
    y = said(model := Round(), x)
    given = meeting(model, x, y, Classification())
    found = [nearer(model, x, y, given, norm=norm, steps=steps) for steps in (1, 2, 3, 12)]
    sizes = [far(point, x, norm) for point in (given, *found)]
    medians = [float(size.median()) for size in sizes]
    # In Linf the ball's gradient has the same signs all over the box: one step says all.
    assert medians == sorted(medians, reverse=True)
    assert len(set(medians)) == (5 if norm == 2 else 2)
    assert all((b <= a).all() for a, b in pairwise(sizes))
    if norm == 2:
        true = 1 - x.norm(dim=1)
        assert (sizes[-1] >= true - 1e-6).all()
        assert (sizes[3] / true).median() < 1.02 < 1.1 < (sizes[0] / true).median()
        assert (sizes[-1] / true).max() < 1.02


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_nothing_is_farther_outside_or_moved_by_its_mates(norm: float | str, side: Any) -> None:
    model = cnn(seed=3, channels=2)
    x = points(12, 2, 6, 6, seed=1)
    y = said(model, x)
    given = meeting(model, x, y, Classification(), wrong=side == "outside")
    # Not at the boundary, wrong without noise, and nowhere at all.
    given[0], y[1], given[2] = points(2, 6, 6, seed=9), (y[1] + 1) % 3, x[2]
    model.train()
    found = nearer(model, x, y, given, norm=norm, side=side, bounds=(0, 1), steps=3)
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert found.min() >= 0 and found.max() <= 1
    assert (far(found, x, norm) <= far(given, x, norm) + 1e-7).all()
    assert torch.equal(found[1:3], given[1:3])
    moved = (found != given).flatten(1).any(1)
    assert moved[3:].float().mean() > 0.5
    assert ((said(model, found) == y)[moved] == (side == "inside")).all()
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = nearer(
            model, x[one], y[one], given[one], norm=norm, side=side, bounds=(0, 1), steps=3
        )
        torch.testing.assert_close(alone, found[one], atol=1e-4, rtol=1e-4)


def test_what_is_known_already_is_not_computed_again() -> None:
    model, x = Plane(), points(20, 6)
    y, passes = said(model, x), []
    given = meeting(model, x, y, Classification())
    model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    slow = nearer(model, x, y, given, bounds=(0, 1))
    assert passes[0] is False and passes.count(True) == 1
    before = len(passes)
    passes.clear()
    with torch.no_grad():
        scores = Classification().score(model(x), y)
    slope = (2 * y - 1)[:, None] * Plane.w * points(20, 1)
    passes.clear()
    fast = nearer(model, x, y, given, bounds=(0, 1), gradient=slope, scores=scores)
    assert len(passes) == before - 2 and True not in passes
    torch.testing.assert_close(fast, slow)


def test_findings_of_several_labels() -> None:
    class Findings(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(x - 0.5) @ Plane.w, x[:, 5] + 0.2], 1)

    model, x = Findings(), points(30, 6)
    with torch.no_grad():
        y = (model(x) > 0).long()
    given = meeting(model, x, y, MultiLabel())
    found = nearer(model, x, y, given, task=MultiLabel(), steps=2, bounds=(0, 1))
    # The second finding cannot be broken inside the bounds.
    true = distance(x, 2, 0, 1)
    assert (far(given, x, 2) / true).median() > 1.2
    assert ((far(found, x, 2) - true).abs() <= far(given, x, 2) / 500).all()
    assert not MultiLabel().correct(model(found), y).any()


@pytest.mark.parametrize("norm", NORMS)
def test_masks_come_nearer_to_their_threshold(norm: float | str) -> None:
    task, model, x = Segmentation(), Masks(), points(6, 1, 8, 8)
    y = said(model, x)
    given = meeting(model, x, y, task)
    found = nearer(model, x, y, given, norm=norm, task=task, bounds=(0, 1), steps=3)
    ratio = far(found, x, norm) / far(given, x, norm)
    assert ratio.max() <= 1 and ratio.median() < 0.7
    assert not task.correct(model(found), y).any()


def test_half_precision_and_gradients_that_lead_nowhere() -> None:
    model, x = Plane(), points(20, 6).bfloat16()
    y = said(model, x)
    given = meeting(model, x.float(), y, Classification()).bfloat16()
    found = nearer(model, x, y, given, bounds=(0, 1))
    assert found.dtype == torch.bfloat16 and (said(model, found) == y).logical_not().any()
    assert (far(found.float(), x.float(), 2) <= far(given.float(), x.float(), 2)).all()
    for slope in (torch.zeros_like(x), torch.full_like(x, torch.nan)):
        assert torch.equal(nearer(model, x, y, given, gradient=slope, steps=2), given)


def test_what_does_not_fit_is_refused() -> None:
    model, x = Plane(), points(2, 6)
    y = said(model, x)
    with pytest.raises(ValueError, match=r"boundary has shape \(2, 5\); expected that of x"):
        nearer(model, x, y, x[:, :5])
    wrong: Any = "middle"
    with pytest.raises(ValueError, match="side is 'middle'"):
        nearer(model, x, y, x, side=wrong)


# --- ALMA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.1, 1.0])
@pytest.mark.parametrize("scale", [1, 500])
def test_alma_finds_the_distance_of_a_linear_model(radius: float, scale: float) -> None:
    class Scaled(Plane):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / scale)

    x = points(40, 6)
    model, y = Scaled(), said(Plane(), x)
    box = (torch.zeros(()), torch.full((), float(scale)))
    how: Any = {"steps": 100, "radius": radius * scale, "task": Classification(), "bounds": box}
    found = alma(model, scale * x, y, **how)
    assert (said(model, found) != y).all() and found.min() >= 0 and found.max() <= scale
    ratio = far(found, scale * x, 2) / scale / distance(x, 2, 0, 1)
    assert ratio.min() > 1 - 1e-4 and ratio.median() < 1.02 and ratio.quantile(0.9) < 1.1


def test_alma_leaves_no_trace_and_samples_are_apart() -> None:
    model, x = cnn(seed=3, channels=3), points(6, 3, 6, 6, seed=3)
    y = said(model, x)
    model.train()
    how: Any = {"steps": 30, "radius": 0.3, "task": Classification(), "bounds": None}
    found = alma(model, x, y, **how)
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    for i in range(len(x)):
        alone = alma(model, x[i : i + 1], y[i : i + 1], **how)
        torch.testing.assert_close(alone, found[i : i + 1], atol=1e-3, rtol=1e-3)


def test_alma_that_finds_nothing_returns_the_clean_samples() -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] * 0 + torch.tensor([1.0, 0.0])

    x, y = points(3, 4), torch.zeros(3, dtype=torch.long)
    found = alma(Deaf(), x, y, steps=5, radius=1.0, task=Classification(), bounds=None)
    assert torch.equal(found, x)
