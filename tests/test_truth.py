"""The truth first: on a linear model every margin's distance to the boundary is known."""

from __future__ import annotations

import math

import pytest
import torch
from nets import Linear2, seeded
from torch import Tensor

from ima import IMA, bpgd, pgd
from ima.norms import get_norm

NORMS = [(2, 2.0), (math.inf, 1.0)]
SHAPES = [(8,), (4, 6), (5, 7, 7)]


def samples(batch: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(batch, *shape, generator=seeded(1))


@pytest.mark.parametrize("algorithm", [2, 3])
@pytest.mark.parametrize(
    ("shape", "one_logit"), [*((shape, False) for shape in SHAPES), ((4, 6), True)]
)
@pytest.mark.parametrize(("norm", "dual"), NORMS)
def test_margins_settle_at_the_distance(
    norm: float, dual: float, shape: tuple[int, ...], one_logit: bool, algorithm: int
) -> None:
    model = Linear2(math.prod(shape), one_logit=one_logit)
    x, ids = samples(60, shape), torch.arange(60)
    y, truth = model.labels(x), model.distance(x, dual)
    delta = 0.005 * float(truth.mean())
    method = IMA(
        num_samples=60, eps=2 * float(truth.max()), delta=delta, norm=norm, augmented=algorithm == 3
    )
    # Large growth brings every margin near its distance, small growth lets it settle there.
    method.delta = 20 * delta
    for _ in range(math.ceil(float(truth.max()) / method.delta) + 2):
        method(model, x, y, ids)
    method.delta = delta
    for _ in range(12):
        method(model, x, y, ids)
    error = (method.margins.values - truth).abs().mean() / truth.mean()
    assert error < 0.01


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "dual"), NORMS)
@pytest.mark.parametrize("attack", ["bpgd-2", "bpgd-3", "pgd", "pgd-margin"])
def test_samples_nearer_than_eps_cross_and_no_others(
    attack: str, norm: float, dual: float, shape: tuple[int, ...], batch: int
) -> None:
    model = Linear2(math.prod(shape)).double()
    x = samples(batch, shape).double()
    y, truth = model.labels(x), model.distance(x, dual)
    for factor in (0.53, 0.999, 1.001, 1.73, 3.9):
        # Every second sample gets the opposite radius, so that a batch is mixed.
        eps = truth * torch.tensor([factor, 1 / factor]).double().repeat(batch)[:batch]
        if attack.startswith("bpgd"):
            result = bpgd(model, x, y, eps, norm=norm, algorithm=2 if attack[-1] == "2" else 3)
        else:
            result = pgd(model, x, y, eps, norm=norm, steps=20)
        assert result.correct.all()
        assert result.crossed.tolist() == (truth < eps).tolist()
        size = get_norm(norm).size(result.x - x)
        assert bool((size <= eps * (1 + 1e-5)).all())
        near = (size / truth)[result.crossed]
        if attack.startswith("bpgd"):
            # The correct end of a bracket 2**-10 as wide as a step, or as the radius.
            assert bool(((near <= 1 + 1e-4) & (near >= 1 - 4 * 2**-10 - 1e-4)).all())
            assert model.labels(result.x).tolist() == y.tolist()
        else:
            step = (2.5 * eps / 20 / truth)[result.crossed]
            assert bool(((near >= 1 - 1e-4) & (near <= 1 + step + 1e-4)).all())


@pytest.mark.parametrize(("norm", "dual"), NORMS)
@pytest.mark.parametrize("algorithm", [2, 3])
def test_the_middle_of_the_bracket_is_within_half_a_cell(
    algorithm: int, norm: float, dual: float
) -> None:
    model = Linear2(24).double()
    x = samples(16, (4, 6)).double()
    y, truth = model.labels(x), model.distance(x, dual)
    eps = 1.9 * truth
    result = bpgd(model, x, y, eps, norm=norm, algorithm=2 if algorithm == 2 else 3, side="middle")
    assert bool(result.crossed.all())
    length = 4 * eps / 20 if algorithm == 2 else eps
    error = (get_norm(norm).size(result.x - x) - truth).abs()
    assert bool((error <= length * 2**-11 * (1 + 1e-6)).all())
