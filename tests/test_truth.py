"""The truth first: on a linear model every margin's distance to the boundary is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ima import IMA


class Linear2(nn.Module):
    """Two classes, linear in the flattened input; does not learn."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, dims, generator=generator))
        self.bias = nn.Parameter(torch.randn(2, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    def distance(self, x: Tensor, q: float) -> Tensor:
        w, b = self.weight[1] - self.weight[0], self.bias[1] - self.bias[0]
        return (x.flatten(1) @ w + b).abs() / torch.linalg.vector_norm(w, q)


@pytest.mark.parametrize("algorithm", [2, 3])
@pytest.mark.parametrize("shape", [(8,), (4, 6), (5, 7, 7)])
@pytest.mark.parametrize(("norm", "dual"), [(2, 2.0), (math.inf, 1.0)])
def test_margins_settle_at_the_distance(
    norm: float, dual: float, shape: tuple[int, ...], algorithm: int
) -> None:
    model = Linear2(math.prod(shape))
    x = torch.randn(60, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
        truth = model.distance(x, dual)
    delta = 0.005 * float(truth.mean())
    method = IMA(
        num_samples=60, eps=2 * float(truth.max()), delta=delta, norm=norm, augmented=algorithm == 3
    )
    for _ in range(math.ceil(float(truth.max()) / delta) + 60):
        method(model, x, y, torch.arange(60))
    error = (method.margins.values - truth).abs().mean() / truth.mean()
    assert error < 0.01
    print(f"{error:.4%}")
