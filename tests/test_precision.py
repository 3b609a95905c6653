"""Samples and networks in every precision: inside the ball, inside the bounds, the same decisions.

Distances are measured in float64, on what attacks return and on what networks see.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from by_hand import lowest_of
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from nets import mlp, seeded, two_clouds
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Segmentation, bpgd, ddn, evaluate, ifgsm, minimal, pgd
from ima.attacks.entering import Network, as_seen
from ima.evaluation import autoattack as library
from ima.evaluation import bench, finders, mates
from ima.evaluation.attacks import find_attack
from ima.evaluation.checks import run_checks
from ima.evaluation.square import square
from ima.methods import METHODS
from ima.norms import get_norm

HALF = [torch.float16, torch.bfloat16]
ALL = [*HALF, torch.float32, torch.float64]
each_half = pytest.mark.parametrize("dtype", HALF)
each_dtype = pytest.mark.parametrize("dtype", ALL)
each_norm = pytest.mark.parametrize("norm", [2, math.inf])

Find = Callable[[nn.Module, Tensor, Tensor, float, float, Any], Tensor]


def row(name: str) -> Find:
    """An attack of the evaluation's table."""

    def run(model: Any, x: Tensor, y: Tensor, eps: float, norm: float, bounds: Any) -> Tensor:
        found, steps = find_attack(name)
        return lowest_of(found.run, model, x, y, eps, steps, norm=norm, bounds=bounds).noisy

    return run


def the_square(model: Any, x: Tensor, y: Tensor, eps: float, norm: float, bounds: Any) -> Tensor:
    return lowest_of(square, model, x, y, eps, 5, norm=norm, bounds=bounds).noisy


def kept(model: Any, x: Tensor, y: Tensor, eps: float, norm: float, bounds: Any) -> Tensor:
    """What `evaluate` says of its noisy samples."""
    found: list[Tensor] = []
    evaluate(
        model,
        TensorDataset(x, y),
        eps,
        ["pgd-3"],
        norm=norm,
        bounds=bounds,
        keep=lambda example: found.append(example.noisy),
    )
    return torch.stack(found)


FIND: dict[str, Find] = {
    "pgd": lambda m, x, y, e, n, b: pgd(m, x, y, e, steps=4, norm=n, bounds=b).x,
    "pgd, random start": lambda m, x, y, e, n, b: (
        pgd(m, x, y, e, steps=3, norm=n, bounds=b, random_start=True, stop="never").x
    ),
    "ifgsm": lambda m, x, y, e, n, b: ifgsm(m, x, y, e, norm=n, bounds=b).x,
    "bpgd 2": lambda m, x, y, e, n, b: bpgd(m, x, y, e, steps=4, norm=n, bounds=b).x,
    "bpgd 3": lambda m, x, y, e, n, b: bpgd(m, x, y, e, algorithm=3, norm=n, bounds=b).x,
    "bpgd, middle": lambda m, x, y, e, n, b: (
        bpgd(m, x, y, e, steps=4, norm=n, bounds=b, side="middle", random_start=1.0).x
    ),
    "table, pgd": row("pgd-3"),
    "noise": row("noise-4"),
    "evaluate": kept,
}
BOUNDED: dict[str, Find] = {
    "autoattack": row("autoattack"),
    "autoattack+": row("autoattack+"),
    "square": the_square,
}
each_find = pytest.mark.parametrize("find", FIND.values(), ids=FIND.keys())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in ((library, ("ITERATIONS", "_QUERIES")), (finders, ("ITERATIONS",))):
        for name in names:
            monkeypatch.setattr(module, name, 3)
    monkeypatch.setattr(bench, "QUERIES", 3)
    monkeypatch.setattr(bench, "DRAWS", 3)
    monkeypatch.setattr(finders, "STEPS", 3)


def problem(
    dtype: torch.dtype, shape: tuple[int, ...] = (12,), seed: int = 0, high: float = 1.0
) -> tuple[nn.Module, Tensor, Tensor]:
    """A network and samples of one precision, in [0, high]."""
    model = mlp(shape, seed=seed).to(dtype).eval()
    x = (high * torch.rand(6, *shape, generator=seeded(seed))).to(dtype)
    # As far as the precision has it: rounding must not lift a sample above its bound.
    x = torch.where(x.double() > high, x.new_zeros(()), x)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def assert_inside(
    noisy: Tensor, x: Tensor, eps: float | Tensor, norm: float, bounds: Any, dtype: torch.dtype
) -> None:
    size = get_norm(norm).size(noisy.double() - x.double())
    # float32's own sum rounds; a shorter precision adds nothing to it.
    floor = 4 * torch.finfo(dtype).eps * math.sqrt(x[0].numel()) if dtype in ALL[2:] else 0.0
    assert bool((size <= torch.as_tensor(eps).double() * (1 + 1e-6) + floor).all())
    if bounds is not None:
        low, high = (
            torch.as_tensor(b, dtype=torch.promote_types(dtype, torch.float32)) for b in bounds
        )
        assert bool(((noisy >= low) & (noisy <= high)).all())


# ---------------------------------------------------------------------------- the ball


@each_dtype
@each_norm
@each_find
@settings(max_examples=4)
@given(
    seed=st.integers(0, 40),
    eps=st.sampled_from([1e-5, 2 / 255, 8 / 255, 0.3, 1.7]),
    high=st.sampled_from([1.0, 1 / 3, None]),
)
def test_noise_stays_in_the_ball_and_the_bounds_in_every_precision(
    find: Find, norm: float, dtype: torch.dtype, seed: int, eps: float, high: float | None
) -> None:
    model, x, y = problem(dtype, seed=seed, high=high or 1.0)
    bounds = None if high is None else (0.0, high)
    noisy = find(model, x, y, eps, norm, bounds)
    assert noisy.dtype == dtype
    assert_inside(noisy, x, eps, norm, bounds, dtype)


@each_half
@each_norm
@pytest.mark.parametrize("find", BOUNDED.values(), ids=BOUNDED.keys())
@pytest.mark.parametrize("eps", [2 / 255, 0.3])
def test_noise_of_the_library_stays_in_the_ball(
    find: Find, norm: float, dtype: torch.dtype, eps: float
) -> None:
    model, x, y = problem(dtype, (1, 5, 5))
    noisy = find(model, x, y, eps, norm, (0, 1 / 3 if x.max() < 1 / 3 else 1))
    assert noisy.dtype == dtype
    assert_inside(noisy, x, eps, norm, (0, 1), dtype)


def test_the_example_of_the_issue_stays_in_its_ball() -> None:
    model, x, y = problem(torch.bfloat16)
    result = pgd(model, x, y, 2 / 255, norm=math.inf, bounds=(0, 1), stop="never")
    far = (result.x.double() - x.double()).abs()
    assert 0 < float(far.max()) <= 2 / 255
    # Noise that the grid can hold is not lost on the way: steps of eps / 40 add up.
    assert float(far[x < 0.25].max()) > 0.8 * 2 / 255


@each_half
@each_norm
def test_a_radius_below_the_spacing_leaves_the_sample_as_it_is(
    norm: float, dtype: torch.dtype
) -> None:
    model, x, y = problem(dtype)
    x = (x.float() / 2 + 0.5).to(dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
    for find in FIND.values():
        assert torch.equal(find(model, x, y, 1e-6, norm, None), x)


@each_half
def test_steps_far_below_the_spacing_add_up(dtype: torch.dtype) -> None:
    model, x, y = problem(dtype)
    few, many = (
        pgd(model, x, y, 0.3, steps=steps, norm=math.inf, stop="never").x for steps in (10, 400)
    )
    reached = [float((noisy.float() - x.float()).abs().mean()) for noisy in (few, many)]
    assert reached[1] > 0.9 * reached[0]


@each_half
@each_norm
def test_ddn_says_how_far_its_point_is(norm: float, dtype: torch.dtype) -> None:
    model, x, y = problem(dtype)
    result = ddn(model, x, y, steps=20, norm=norm, bounds=(0, 1))
    assert bool(result.crossed.any()) and result.x.dtype == dtype
    size = get_norm(norm).size(result.x.double() - x.double())
    torch.testing.assert_close(result.distance[result.crossed].double(), size[result.crossed])
    with torch.no_grad():
        assert torch.equal(model(result.x).argmax(1) != y, result.crossed)


@each_dtype
@pytest.mark.parametrize("name", ["pgd", "ifgsm", "bpgd 2", "bpgd 3"])
def test_a_sample_alone_fares_as_beside_others(name: str, dtype: torch.dtype) -> None:
    find = FIND[name]
    model, x, y = problem(dtype)
    together = find(model, x, y, 0.5, 2, (0, 1))
    for i in range(len(x)):
        alone = find(model, x[i : i + 1], y[i : i + 1], 0.5, 2, (0, 1))
        spacing = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=spacing)


def test_bounds_that_a_precision_cannot_hold_take_samples_that_were_clamped_to_them() -> None:
    model, x, y = problem(torch.bfloat16)
    x = x.clamp(max=1 / 3)
    assert float(x.max()) > 1 / 3
    result = pgd(model, x, y, 0.2, norm=math.inf, bounds=(0, 1 / 3), stop="never")
    assert bool((result.x.double() <= torch.clamp(x.double(), min=1 / 3)).all())
    with pytest.raises(ValueError, match="outside the bounds"):
        pgd(model, x + 0.01, y, 0.2, bounds=(0, 1 / 3))


# ---------------------------------------------------------------------------- what networks see


class Watched(nn.Module):
    """Remembers what came in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.inner(x)


PAIRS = [(a, b) for a in ALL for b in ALL if a != b]


@pytest.mark.parametrize(("given", "taken"), PAIRS)
@each_norm
def test_samples_of_another_precision_than_the_networks(
    norm: float, given: torch.dtype, taken: torch.dtype
) -> None:
    """They are cast on the way in, in the ball as the network sees them."""
    inner, _, _ = problem(taken)
    model = Watched(inner)
    short = min((given, taken), key=lambda d: -torch.finfo(d).eps)
    # Samples that both precisions hold.
    x = problem(torch.bfloat16)[1].to(torch.float16).to(given)
    with torch.no_grad():
        y = inner(x.to(taken)).argmax(1)
    for find in (FIND["pgd"], FIND["bpgd 2"], FIND["noise"]):
        model.seen.clear()
        noisy = find(model, x, y, 8 / 255, norm, (0, 1))
        assert noisy.dtype == given
        assert_inside(noisy, x, 8 / 255, norm, (0, 1), short)
        for seen in model.seen:
            if seen.dtype == taken and len(seen) == len(x):
                assert_inside(seen, x, 8 / 255, norm, (0, 1), short)


@each_norm
@pytest.mark.parametrize("taken", HALF)
def test_samples_that_a_half_network_cannot_hold_give_it_points_in_their_ball(
    norm: float, taken: torch.dtype
) -> None:
    model = Watched(problem(taken)[0])
    x = torch.rand(6, 12, generator=seeded(4))
    with torch.no_grad():
        y = model(x.to(taken)).argmax(1)
    noisy = pgd(model, x, y, 0.3, steps=5, norm=norm, bounds=(0, 1), stop="never").x
    assert_inside(noisy, x, 0.3, norm, (0, 1), torch.float32)
    # What moved is on the grid, so that the network sees it as it is.
    assert torch.equal(noisy[noisy != x].to(taken).float(), noisy[noisy != x])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_double_samples_give_a_float_network_what_float_samples_give(dtype: torch.dtype) -> None:
    model, x, y = problem(torch.float32)
    data = TensorDataset(x.to(torch.bfloat16).to(dtype), y)
    found = evaluate(model, data, [0.1, 0.5], ["pgd-5", "ifgsm-3"], bounds=(0, 1))
    plain = TensorDataset(x.to(torch.bfloat16).float(), y)
    expected = evaluate(model, plain, [0.1, 0.5], ["pgd-5", "ifgsm-3"], bounds=(0, 1))
    assert [row.broken for row in found.rows] == [row.broken for row in expected.rows]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "bf16-mixed"])
def test_noise_for_a_network_of_fabrics_is_in_the_ball_as_the_module_sees_it(
    precision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = Watched(mlp((12,)))
    model = Fabric(accelerator="cpu", devices=1, precision=precision).setup_module(inner)
    x = problem(torch.bfloat16)[1].float()
    with torch.no_grad():
        y = model(x).argmax(1)
    inner.seen.clear()
    noisy = pgd(model, x, y, 8 / 255, steps=5, norm=math.inf, bounds=(0, 1)).x
    assert noisy.dtype == torch.float32
    for seen in inner.seen:
        if len(seen) == len(x):
            assert_inside(seen, x, 8 / 255, math.inf, (0, 1), torch.float32)


@each_half
@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.floats(-4, 4, width=32), st.floats(-0.125, 0.125, width=32)),
        min_size=1,
        max_size=20,
    )
)
def test_rounding_ends_between_the_point_and_the_sample(
    dtype: torch.dtype, pairs: list[tuple[float, float]]
) -> None:
    network = Network(nn.Identity(), dtype, dtype)
    x, d = (torch.tensor(part) for part in zip(*pairs, strict=True))
    on_grid = x.to(dtype).float()
    point = on_grid + d
    seen = as_seen(network, point, on_grid)
    assert torch.equal(seen.to(dtype).float(), seen)
    assert bool(((seen - on_grid).abs() <= (point - on_grid).abs()).all())
    assert bool(((seen - on_grid) * d >= 0).all())
    # And it is the nearest of those: less than a spacing is lost.
    spacing = torch.finfo(dtype).eps * torch.maximum(point.abs(), on_grid.abs())
    assert bool(((point - seen).abs() <= spacing.clamp_min(1e-7)).all())


def test_tf32_may_be_set_by_torch_s_newer_names() -> None:
    flags: Any = torch.backends.cuda.matmul
    if not hasattr(flags, "fp32_precision"):
        pytest.skip("this torch has no newer names")
    before = flags.fp32_precision
    try:
        # The older names stop with an error now.
        flags.fp32_precision = "tf32"
        assert mates._tf32()
    finally:
        flags.fp32_precision = before


# ---------------------------------------------------------------------------- other entrances


@each_dtype
@each_norm
def test_minimal_and_checks_take_every_precision(norm: float, dtype: torch.dtype) -> None:
    model, x, y = problem(dtype, (1, 5, 5))
    data = TensorDataset(x, y)
    found = minimal(model, data, [0.3], norm=norm, bounds=(0, 1))
    expected = minimal(model.float(), TensorDataset(x.float(), y), [0.3], norm=norm, bounds=(0, 1))
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert one.distance == pytest.approx(other.distance, rel=0.2, abs=0.02)
    checks = run_checks(model.to(dtype), data, [0.1], norm=norm, bounds=(0, 1), steps=2)
    assert len(checks.checks) > 5


@each_half
@pytest.mark.parametrize("name", METHODS)
def test_methods_take_half_precision(name: str, dtype: torch.dtype) -> None:
    kind: Any = METHODS[name].method
    x, y = two_clouds((6,), 2)
    more = {"num_samples": 60, "eps": 0.2, "delta": 0.05, "bounds": (0, 1), "steps": 3}
    takes = inspect.signature(kind).parameters
    losses: list[float] = []
    for kept_in, weights in ((dtype, dtype), (dtype, torch.float32), (torch.float32, dtype)):
        method = kind(**{k: v for k, v in more.items() if k in takes})
        model = Watched(mlp((6,), 2).to(weights)).train()
        step = method(model, x.to(kept_in), y, torch.arange(len(x)))
        step.loss.backward()
        assert {seen.dtype for seen in model.seen} <= {weights, kept_in}
        for seen in model.seen:
            if len(seen) == len(x):
                size = (seen.double() - x.to(kept_in).double()).flatten(1).norm(dim=1)
                rounds = 0.0 if kept_in == dtype else 2 * torch.finfo(dtype).eps
                assert float(size.max()) <= 1.06 * 0.2 + rounds
        losses.append(float(step.loss.detach()))
    assert losses == pytest.approx([losses[0]] * 3, rel=0.1, abs=0.02)


@each_half
@pytest.mark.parametrize("norm", [2, math.inf])
def test_segmentation_in_half_precision(norm: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(1, 2, 3, padding=1).to(dtype)
    x = torch.rand(4, 1, 8, 8, generator=seeded(0)).to(dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
    noisy: list[Tensor] = []
    found = evaluate(
        model,
        TensorDataset(x, y),
        [2 / 255, 0.3],
        ["pgd-3", "ifgsm-2", "ensemble-2", "noise-2", "white-2"],
        task=Segmentation(),
        norm=norm,
        bounds=(0, 1),
        keep=lambda example: noisy.append(example) or None,
    )
    assert all(0 <= row.quality <= 1 for row in found.rows)
    for example in noisy:
        assert example.noisy.dtype == dtype
        assert_inside(example.noisy[None], example.clean[None], example.eps, norm, (0, 1), dtype)
