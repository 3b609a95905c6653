"""IMA with margins that are measured: the truth where it is known, units, the radius, restarts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import IMA, Segmentation, minimal
from ima.attacks.plane import to_plane
from ima.methods.radius import KEEP, Guard, Radius
from ima.norms import L2, LINF, Norm

BOUNDS = (0.0, 1.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


class Ball(nn.Module):
    """Right (label 0) inside a circle of radius 1 around the origin: the distance is 1 - |x|."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (1 - x.square().sum(1))
        return torch.stack([score, torch.zeros_like(score)], 1)


def visits(method: IMA, model: nn.Module, x: Tensor, y: Tensor, times: int) -> Tensor:
    """The margins after so many visits of a network that stays as it is."""
    for _ in range(times):
        method(model, x, y, torch.arange(len(x)))
    return method.margins.values


# ---------------------------------------------------------------------------- the plane


def slow_plane(x: Tensor, g: Tensor, rise: float, norm: Norm, bounds: Any) -> float:
    """The length of the shortest way, by bisection over the radius of the best corner or arc."""
    low, high = 0.0, 100.0
    room = (torch.full_like(x, -math.inf), torch.full_like(x, math.inf))
    if bounds is not None:
        room = (bounds[0] - x, bounds[1] - x)
    for _ in range(80):
        middle = (low + high) / 2
        offset = torch.minimum(torch.maximum(middle * norm.direction(g[None])[0], room[0]), room[1])
        low, high = (low, middle) if float((g * offset).sum()) >= rise else (middle, high)
    end = torch.minimum(torch.maximum(high * norm.direction(g[None])[0], room[0]), room[1])
    return float(norm.size(end[None]))


@pytest.mark.parametrize("norm", [L2, LINF], ids=lambda norm: norm.name)
@pytest.mark.parametrize("bounds", [None, BOUNDS])
def test_the_way_to_a_plane_is_the_shortest_inside_the_bounds(norm: Norm, bounds: Any) -> None:
    x, g = draw(64, 3, 4).double(), torch.randn(64, 3, 4, generator=seeded(1)).double()
    x[::2] = x[::2].round()  # half of them lie on the bounds
    box = None if bounds is None else tuple(torch.tensor(b).double() for b in bounds)
    rise = 0.7 * draw(64, seed=2).double()
    offset, reached = to_plane(x, g, rise, norm, box)  # pyright: ignore[reportArgumentType]
    assert bool(reached.all())
    assert torch.allclose((g * offset).flatten(1).sum(1), rise, rtol=1e-6)
    if bounds is not None:
        assert bool(((x + offset >= -1e-12) & (x + offset <= 1 + 1e-12)).all())
    twin = [slow_plane(*one, norm, bounds) for one in zip(x, g, rise.tolist(), strict=True)]
    assert torch.allclose(norm.size(offset), torch.tensor(twin).double(), rtol=1e-6)


def test_infinite_bounds_are_none() -> None:
    x, g, rise = draw(20, 6), torch.randn(20, 6, generator=seeded(1)), draw(20, seed=2)
    box = (torch.tensor(-torch.inf), torch.tensor(torch.inf))
    for norm in (L2, LINF):
        free, within = to_plane(x, g, rise, norm, None), to_plane(x, g, rise, norm, box)
        torch.testing.assert_close(free, within)


def test_a_plane_out_of_the_bounds_or_without_a_gradient_is_not_reached() -> None:
    x = torch.full((3, 2), 0.5)
    g = torch.tensor([[1.0, 1.0], [0.0, 0.0], [math.nan, 1.0]])
    box = (torch.tensor(0.0), torch.tensor(1.0))
    offset, reached = to_plane(x, g, torch.tensor([1.5, 0.1, 0.1]), L2, box)
    assert reached.tolist() == [False, False, False]
    assert torch.isfinite(offset).all()
    # Beyond the plane already: no way at all.
    offset, reached = to_plane(x[:1], g[:1], torch.tensor([-1.0]), L2, box)
    assert reached.tolist() == [True]
    assert offset.tolist() == [[0.0, 0.0]]


# ---------------------------------------------------------------------------- margins


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("bounds", [None, BOUNDS])
def test_margins_of_a_linear_network_are_exact(norm: float, bounds: Any, augmented: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(5, 2), draw(40, 5)
    y = model(x).argmax(1)
    y[::8] = (y[::8] + 1) % 2
    method = IMA(num_samples=40, norm=norm, bounds=bounds, augmented=augmented)
    margins = visits(method, model, x, y, 3)
    found = minimal(model, TensorDataset(x, y), 50.0, norm=norm, bounds=bounds)
    truth = torch.from_numpy(found.values)
    assert bool((margins[::8] == 0).all())
    reached = torch.isfinite(truth) & (truth > 0)
    assert int(reached.sum()) > 10
    assert torch.allclose(margins[reached].double(), truth[reached], rtol=0.01)


def test_margins_find_the_nearest_point_of_a_curved_boundary() -> None:
    x = torch.tensor([[0.3, 0.1], [0.0, 0.5], [-0.6, 0.2], [0.9, 0.0], [1.5, 0.0]])
    method = IMA(num_samples=5, eps=2.0)
    margins = torch.zeros(5)
    for _ in range(20):
        assert method.measured is not None
        method.measured.radius.value = 0.6
        margins = visits(method, Ball(), x, torch.zeros(5, dtype=torch.long), 1)
    truth = (1 - x.norm(dim=1)).clamp_min(0)
    assert torch.allclose(margins, truth, atol=0.01)


def test_margins_do_not_depend_on_the_rest_of_the_batch() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)), draw(12, 5)
    y = model(x).argmax(1)
    together, alone = (IMA(num_samples=12, bounds=BOUNDS) for _ in range(2))
    assert together.measured is not None
    assert alone.measured is not None
    for _ in range(4):
        radius = together.measured.radius.value
        together(model, x, y, torch.arange(12))
        for i in range(12):
            alone.measured.radius.value = radius or together.measured.radius.value
            alone(model, x[i : i + 1], y[i : i + 1], torch.tensor([i]))
        # What the batch says of the radius itself is not compared.
    assert torch.allclose(alone.margins.values, together.margins.values, rtol=0.05, atol=1e-4)


def test_the_unit_of_the_data_does_not_matter() -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module, unit: float) -> None:
            super().__init__()
            self.inner, self.unit = inner, unit

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x / self.unit)

    torch.manual_seed(0)
    inner, x = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)), draw(32, 5)
    y = (x[:, 0] > 0.5).long()
    found: list[tuple[float, float]] = []
    for unit in (1.0, 2000.0):
        model = Scaled(copy.deepcopy(inner), unit)
        method = IMA(num_samples=32, bounds=(0.0, unit))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(40):
            step = method(model, unit * x, y, torch.arange(32))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        found.append(
            (float(step.metrics["radius"]) / unit, float(method.margins.values.mean()) / unit)
        )
    assert found[0] == pytest.approx(found[1], rel=0.02)


# ---------------------------------------------------------------------------- the radius


def test_the_radius_starts_at_half_the_distance_to_the_nearest_sample() -> None:
    radius = Radius(4, math.inf)
    radius.begin(torch.tensor([[0.0, 0.0], [0.0, 3.0], [0.0, 3.0], [4.0, 0.0]]), L2)
    assert radius.value == pytest.approx(1.5)
    capped = Radius(4, 0.2)
    capped.begin(torch.tensor([[0.0, 0.0], [0.0, 3.0]]), LINF)
    assert capped.value == pytest.approx(0.2)


def test_the_radius_grows_while_more_is_kept_and_shrinks_while_less() -> None:
    for noisy, grows in ((0.9, True), (0.2, False)):
        radius = Radius(100, math.inf)
        radius.value = 1.0
        for _ in range(10):
            radius.follow(9.0, 1.0, 10 * noisy, 10)  # 80 % of the samples are more than chance
        assert radius.kept == pytest.approx((noisy - 0.1) / 0.8)
        assert (radius.value > 1) == grows
    steady = Radius(100, math.inf)
    steady.value = 1.0
    steady.follow(9.0, 1.0, 1 + 8 * KEEP, 10)
    assert steady.value == pytest.approx(1.0)


def test_the_radius_does_not_run_away_with_a_network_that_gives_one_answer() -> None:
    # Three of four samples are of the larger class: right under any noise, and knowing nothing.
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias + 1e-6 * x[:, :2]

    x, y = draw(64, 4), (torch.arange(64) % 4 == 0).long()
    method = IMA(num_samples=64, bounds=BOUNDS)
    first = float(method(Constant(), x, y, torch.arange(64)).metrics["radius"])
    for _ in range(20):
        step = method(Constant(), x, y, torch.arange(64)[torch.randperm(64, generator=seeded(0))])
    assert float(step.metrics["kept"]) == 0
    assert float(step.metrics["radius"]) < 0.1 * first


def test_a_guard_holds_one_sample_in_ten_out_and_watches_them() -> None:
    guard = Guard(50, 0.02, seed=0)
    assert int(guard.held.sum()) == guard.count == 5
    assert guard.room(2.0, 3) == 1  # not all were seen
    assert guard.room(2.0, 2) == 1
    assert (guard.clean, guard.best) == (pytest.approx(0.8), pytest.approx(0.8))
    # With five samples a quality of 0.8 is in doubt by 0.2: a cost counts from 0.22 on.
    assert guard.doubt == pytest.approx(0.2)
    guard.clean = 0.8 - 0.11
    assert guard.room(0.0, 0) == pytest.approx(0.5)
    guard.clean = 0.8 - 0.45
    assert guard.room(0.0, 0) == -1


def test_a_guard_takes_no_noise_of_few_samples_for_a_cost() -> None:
    guard = Guard(900, 0.02, seed=0)
    many = Guard(20_000, 0.02, seed=0)
    assert (guard.count, many.count) == (90, 2000)
    for each in (guard, many):
        each.room(0.99 * each.count, each.count)
        each.clean = 0.96
    # Three points are more than two; of 90 samples that may be chance, of 2000 not.
    assert guard.room(0.0, 0) > 0 > many.room(0.0, 0)


def test_samples_that_are_held_out_have_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2), draw(30, 4)
    y = torch.arange(30) % 2
    method = IMA(num_samples=30, bounds=BOUNDS, clean_drop=0.01)
    assert method.measured is not None
    assert method.measured.guard is not None
    held = method.measured.guard.held
    grads: list[Tensor] = []
    for labels in (y, torch.where(held, 1 - y, y)):
        model.zero_grad()
        method = IMA(num_samples=30, bounds=BOUNDS, clean_drop=0.01)
        step = method(model, x, labels, torch.arange(30))
        step.loss.backward()
        assert model.weight.grad is not None
        grads.append(model.weight.grad.clone())
    assert torch.equal(*grads)
    # A batch of them alone trains on nothing.
    step = method(model, x[held], y[held], held.nonzero()[:, 0])
    assert float(step.loss.detach()) == 0
    step.loss.backward()


def test_no_clean_accuracy_to_lose_ends_without_noise() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 2), draw(60, 6)
    # Noise of a third of the width costs accuracy.
    y = (x[:, 0] > 0.5).long()
    radii: list[float] = []
    for drop in (0.0, 1.0):
        method = IMA(num_samples=60, bounds=BOUNDS, clean_drop=drop)
        model = nn.Linear(6, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(60):
            step = method(model, x, y, torch.arange(60))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        radii.append(float(step.metrics["radius"]))
    assert radii[0] < 0.7 * radii[1]


def test_noise_stays_below_eps_where_it_is_given() -> None:
    method = IMA(num_samples=8, eps=0.05, norm=math.inf, bounds=BOUNDS)
    model, x = nn.Linear(4, 2), draw(8, 4)
    step = method(model, x, torch.zeros(8, dtype=torch.long), torch.arange(8))
    assert float(step.metrics["radius"]) <= 0.05
    assert float(method.margins.values.max()) <= 0.05 + 1e-7


# ---------------------------------------------------------------------------- restarts, options


@pytest.mark.parametrize("augmented", [False, True])
def test_a_restart_in_the_middle_goes_on_to_the_bit(augmented: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 3), draw(24, 6)
    y = torch.arange(24) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(method: IMA, model: nn.Module, optimizer: Any, batches: range) -> None:
        for number in batches:
            ids = torch.arange(8) + 8 * (number % 3)
            step = method(model, x[ids], y[ids], ids)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()

    method = IMA(num_samples=24, bounds=BOUNDS, augmented=augmented)
    train(method, model, optimizer, range(5))
    kept = copy.deepcopy((method.state_dict(), model.state_dict()))
    train(method, model, optimizer, range(5, 11))
    again, other = IMA(num_samples=24, bounds=BOUNDS, augmented=augmented), nn.Linear(6, 3)
    again.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    train(again, other, torch.optim.SGD(other.parameters(), lr=0.1), range(5, 11))
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(again.margins.values, method.margins.values)


def test_states_of_the_variants_are_told_apart() -> None:
    paper, measured = IMA(num_samples=2, eps=1.0, delta=0.1), IMA(num_samples=2)
    with pytest.raises(ValueError, match=r"saved by IMA, but this is IMA \(measured\)"):
        measured.load_state_dict(paper.state_dict())
    with pytest.raises(ValueError, match=r"saved by IMA \(measured\), but this is IMA"):
        paper.load_state_dict(measured.state_dict())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variant": "measured", "delta": 0.1, "eps": 1.0}, "delta is 0.1, and variant='measured'"),
        ({"side": "middle"}, "side is 'middle', and variant='measured' has no use"),
        ({"variant": "paper"}, "eps is None.*needs eps and delta"),
        ({"variant": "paper", "eps": 1.0}, "delta is None.*needs eps and delta"),
        ({"delta": 0.1}, "eps is None"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"clean_drop": 1.5}, "clean_drop is 1.5; expected a share"),
        ({"clean_drop": 0.1, "eps": 1.0, "delta": 0.1}, "clean_drop is 0.1, which needs margins"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        IMA(num_samples=2, **options)


def test_a_sample_of_another_shape_is_named_with_what_to_do() -> None:
    method, model = (
        IMA(num_samples=4),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2)),
    )
    y = torch.tensor([0, 1])
    method(model, draw(2, 1, 6, 6), y, torch.arange(2))
    with pytest.raises(ValueError, match="pass augmented=True"):
        method(model, draw(2, 1, 8, 8), y, torch.arange(2))


def test_segmentation_keeps_a_share_of_its_dice() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(1, 2, 3, padding=1)
    x = draw(12, 1, 8, 8)
    y = (x[:, 0] > 0.5).long()
    method = IMA(num_samples=12, bounds=BOUNDS, task=Segmentation())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        step = method(model, x, y, torch.arange(12))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
    assert 0.2 < float(step.metrics["kept"]) < 0.8
    assert float(step.metrics["margin"]) > 0
