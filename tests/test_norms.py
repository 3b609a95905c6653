"""The norms: size, direction, projection, random point, for samples of any rank."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import seeded
from own_norms import summed
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from ima import evaluate, minimal
from ima.norm_names import known_norm
from ima.norms import L2, LINF, Norm, get_norm, per_sample

SHAPES = [(3,), (3, 5), (2, 3, 4), (2, 3, 4, 2), (2, 1, 3, 2, 2)]
NORMS = [pytest.param(norm, id=norm.name) for norm in (L2, LINF)]


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "norm"),
    [(2, L2), (2.0, L2), ("2", L2), ("l2", L2), ("L2", L2), (L2, L2), (math.inf, LINF),
     ("linf", LINF), ("Linf", LINF), ("LINF", LINF), ("inf", LINF), (LINF, LINF)],
)  # fmt: skip
def test_a_norm_is_found_by_every_name(name: Any, norm: Norm) -> None:
    assert get_norm(name) is norm


@pytest.mark.parametrize("name", [1, 3, 0, -math.inf, math.nan, "l1", "", None, "L3"])
def test_an_unknown_norm_is_named_in_the_error(name: Any) -> None:
    with pytest.raises(ValueError, match="expected 2") as error:
        get_norm(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_size_is_the_norm_of_the_flattened_sample(norm: Norm, shape: tuple[int, ...]) -> None:
    d = draw(shape)
    vectors = d.numpy().reshape(len(d), -1)
    expected = np.linalg.norm(vectors, norm.order, axis=1)
    assert norm.size(d).shape == (shape[0],)
    np.testing.assert_allclose(norm.size(d).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_direction_is_a_unit_step_that_gains_the_dual_norm(
    norm: Norm, shape: tuple[int, ...]
) -> None:
    g = draw(shape)
    step = norm.direction(g)
    assert step.shape == g.shape
    assert step.dtype == g.dtype
    torch.testing.assert_close(norm.size(step), torch.ones(shape[0], dtype=g.dtype))
    gain = (g * step).reshape(shape[0], -1).sum(1)
    dual = np.linalg.norm(g.numpy().reshape(shape[0], -1), norm.dual, axis=1)
    np.testing.assert_allclose(gain.numpy(), dual, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-19, 1.0, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("norm", NORMS)
def test_direction_has_full_length_for_tiny_and_huge_gradients(norm: Norm, size: float) -> None:
    g = torch.tensor([[size, -size, 0.0, size]], dtype=torch.float32)
    step = norm.direction(g)
    assert bool(torch.isfinite(step).all())
    torch.testing.assert_close(norm.size(step), torch.ones(1))
    torch.testing.assert_close(torch.sign(step), torch.sign(g))


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_has_no_direction_and_harms_no_other(norm: Norm) -> None:
    g = torch.stack([torch.zeros(3, 2), torch.ones(3, 2)])
    step = norm.direction(g)
    assert step[0].eq(0).all()
    assert torch.equal(step[1:], norm.direction(g[1:]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_that_is_not_finite_gives_a_finite_step(norm: Norm, bad: float) -> None:
    step = norm.direction(torch.tensor([[bad, 1.0], [3.0, 4.0]]))
    assert bool(torch.isfinite(step).all())
    torch.testing.assert_close(norm.size(step)[1], torch.tensor(1.0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point_of_the_ball(norm: Norm, shape: tuple[int, ...]) -> None:
    d = draw(shape)
    sizes = norm.size(d)
    radius = sizes * torch.linspace(0.4, 1.3, shape[0], dtype=d.dtype)
    near = norm.project(d, radius)
    assert bool((norm.size(near) <= radius * (1 + 1e-12)).all())
    inside = sizes <= radius
    assert torch.equal(near[inside], d[inside])
    torch.testing.assert_close(norm.project(near, radius), near)
    for seed in range(5):
        other = norm.project(draw(shape, 10 + seed), radius)
        assert bool((L2.size(d - other) >= L2.size(d - near) * (1 - 1e-12)).all())


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-10, 1.0, 1e10])
@pytest.mark.parametrize("norm", NORMS)
def test_radius_zero_gives_zero(norm: Norm, size: float) -> None:
    d = size * torch.ones(2, 3, 2)
    assert norm.project(d, torch.zeros(2)).eq(0).all()


@given(
    st.sampled_from([L2, LINF]),
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=4),
    st.floats(1e-6, 1e6),
    st.integers(0, 99),
)
def test_projection_stays_in_the_ball_in_float32(
    norm: Norm, radii: list[float], size: float, seed: int
) -> None:
    radius = torch.tensor(radii)
    d = (size * draw((len(radii), 3, 4), seed)).float()
    near = norm.project(d, radius)
    assert bool(torch.isfinite(near).all())
    assert bool((norm.size(near.double()) <= radius.double() * (1 + 1e-5)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_a_random_point_is_inside_its_own_ball(
    norm: Norm, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    like = torch.zeros(shape, dtype=dtype)
    radius = torch.arange(shape[0], dtype=dtype)
    point = norm.random(like, radius, seeded(3))
    assert point.shape == shape
    assert point.dtype == dtype
    assert bool((norm.size(point) <= radius * (1 + 1e-6)).all())
    assert bool((norm.size(point)[1:] > 0).all())
    assert bool((norm.size(point)[0] == 0).all())


@pytest.mark.parametrize("dims", [1, 2, 3, 12])
@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball_evenly(norm: Norm, dims: int) -> None:
    n = 20_000
    points = norm.random(torch.zeros(n, dims), torch.full((n,), 2.0), seeded(0))
    # The share within a radius r of the ball of radius 2 is (r / 2) ** dims.
    for share in (0.1, 0.5, 0.9):
        within = norm.size(points) <= 2 * share ** (1 / dims)
        assert abs(float(within.float().mean()) - share) < 0.02
    assert float(points.mean(0).abs().max()) < 0.05


@pytest.mark.parametrize("norm", NORMS)
def test_random_repeats_with_a_generator_and_differs_without(norm: Norm) -> None:
    like, radius = torch.zeros(2, 3), torch.ones(2)
    state = torch.random.get_rng_state()
    assert torch.equal(norm.random(like, radius, seeded(1)), norm.random(like, radius, seeded(1)))
    generator = seeded(1)
    first, second = (norm.random(like, radius, generator) for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (norm.random(like, radius, None) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("shape", SHAPES)
def test_per_sample_broadcasts_over_every_rank(shape: tuple[int, ...]) -> None:
    values = torch.arange(shape[0])
    product = per_sample(values, torch.ones(shape)) * torch.ones(shape)
    assert product.shape == shape
    assert product.reshape(shape[0], -1)[:, 0].tolist() == values.tolist()


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "size"),
    [("L1", "L₁", 7.0), ("l1", "L₁", 7.0), ("L2", "L₂", 5.0), ("2", "L₂", 5.0), ("L∞", "L∞", 4.0),
     ("Linf", "L∞", 4.0), ("inf", "L∞", 4.0)],
)  # fmt: skip
def test_a_name_tells_how_to_measure(name: str, label: str, size: float) -> None:
    known = known_norm(name)
    assert known is not None
    assert (known.label, known.size(np.array([[3.0, 0.0], [0.0, -4.0]]))) == (label, size)


@pytest.mark.parametrize("name", ["mine", "L1.5", "L", "", "Mahalanobis", "L12"])
def test_any_other_name_is_of_a_users_own(name: str) -> None:
    assert known_norm(name) is None


@pytest.mark.parametrize("name", ["Linf", "l2", "2", "L₂", "", " "])
def test_a_name_of_another_norm_or_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the name {name!r} and the order 1.0; expected"):
        summed(name)
    assert replace(summed("mine"), name="L1").name == "L1"


@pytest.mark.parametrize("name", ["L1", "mine"])
def test_a_norm_of_a_users_own_gives_its_own_distances(name: str) -> None:
    # Of a linear model: the distance of the logits over the largest weight.
    model = nn.Linear(6, 2)
    weights = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.5, -1.0])
    with torch.no_grad():
        model.weight.copy_(torch.stack([weights, torch.zeros(6)]))
        model.bias.zero_()
    x = torch.rand(24, 6, generator=Generator().manual_seed(1))
    y = model(x).argmax(1)
    true = (x @ weights).abs() / 2
    data, norm = TensorDataset(x, y), summed(name)
    bounds = (-9, 9)
    found = minimal(model, data, [0.05, 0.3, 1.0], norm=norm, bounds=bounds)
    assert found.norm == name
    assert ("fab" in found.settings.attacks) == (name == "L1")
    left_out = [reason.partition(" ")[0] for reason in found.settings.left_out]
    assert left_out == (["alma"] if name == "L1" else ["alma", "fab"])
    values = torch.tensor(found.values)
    assert (values >= true - 1e-6).all()
    assert (values - true).max() < 0.02
    results = evaluate(model, data, [0.1, 0.4], ["pgd-20", "ifgsm-10"], norm=norm, bounds=bounds)
    assert results.norm == name
    for eps in (0.1, 0.4):
        assert results.accuracy("pgd-20", eps) == pytest.approx(float((true > eps).float().mean()))
    for row in results.rows:
        assert math.isnan(row.size) or row.size <= row.eps + 1e-6
