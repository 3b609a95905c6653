"""HopSkipJump, by decisions alone: what is known is found, for labels and for masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nets import Linear2, cnn, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Segmentation, evaluate
from ima.evaluation.attacks import ATTACKS


@pytest.mark.parametrize("norm", [2, "linf"])
@pytest.mark.parametrize("bounds", [None, (-2.0, 2.0)])
def test_the_distance_of_a_linear_model_is_found_without_a_gradient(norm: Any, bounds: Any) -> None:
    model = Linear2(6)
    x = 4 * torch.rand(30, 6, generator=seeded(1)) - 2
    y, distance = model.labels(x), model.distance(x, 2.0 if norm == 2 else 1.0)
    radii = [float(distance.quantile(q)) * 1.03 for q in (0.3, 0.6)]
    found = evaluate(
        model, TensorDataset(x, y), radii, ["hopskipjump-20"], norm=norm, bounds=bounds
    )
    for eps in radii:
        standing = float((distance > eps).float().mean())
        # Bounds may cut the straight way off.
        missed = found.accuracy("hopskipjump-20", eps) - standing
        assert -1e-6 <= missed < (0.02 if bounds is None else 0.2)


class Steps(nn.Module):
    """A network whose answers are rounded, so that no gradient leads anywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((20 * x).round() / 20)


@pytest.mark.filterwarnings("ignore::ima.evaluation.remarks.Doubt")
def test_it_sees_through_gradients_that_are_gone() -> None:
    x = torch.rand(24, 1, 6, 6, generator=seeded(2))
    inner = cnn()
    model = Steps(inner)
    with torch.no_grad():
        y = model(x).argmax(1)
    data = TensorDataset(x, y)
    found = evaluate(model, data, 0.7, ["pgd-20", "hopskipjump-15"], bounds=(0, 1))
    true = evaluate(inner, data, 0.7, ["pgd-20"], bounds=(0, 1)).accuracy("pgd-20", 0.7)
    assert true < 0.3
    assert found.accuracy("hopskipjump-15", 0.7) < min(0.4, found.accuracy("pgd-20", 0.7) - 0.3)


class Pixels(nn.Module):
    """Foreground where a pixel is above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), x], 1)


def test_of_masks_it_takes_the_dice_below_the_threshold() -> None:
    # Of ten pixels of 0.3 six must change before the Dice falls below 0.6: 2 * 4 / (10 + 4).
    x = torch.full((2, 1, 5, 5), -3.0)
    x[:, 0, :2] = 0.3
    nearest = 0.3 * math.sqrt(6)
    data = TensorDataset(x, (x > 0).long())
    # Which six is a question of combinations: the search comes down from 14, but not all the way.
    radii = [0.95 * nearest, 7.0]
    found = evaluate(Pixels(), data, radii, ["hopskipjump-15"], task=Segmentation())
    assert found.accuracy() == found.accuracy("hopskipjump-15", radii[0]) == 1
    assert found.accuracy("hopskipjump-15", radii[1]) == 0
    lowest = found.of_attack("hopskipjump-15", radii[1])
    assert (lowest["quality"] < 0.6).all() and (lowest["size"] <= radii[1] * (1 + 1e-4)).all()
    assert (lowest["size"] >= nearest).all()


def test_a_sample_does_not_depend_on_its_mates() -> None:
    model, x = cnn(), torch.rand(9, 1, 6, 6, generator=seeded(3))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[4] = (y[4] + 1) % 3
    other = y.clone()
    other[5:] = (other[5:] + 1) % 3
    runs = [
        evaluate(model, TensorDataset(x, labels), [0.2, 0.5], ["hopskipjump-4"], bounds=(0, 1))
        for labels in (y, other)
    ]
    mine, theirs = ([repr(row) for row in run.rows if row.id < 5] for run in runs)
    assert mine == theirs


def test_a_network_that_is_never_wrong_stands() -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0] * 0 + 1, x[:, 0] * 0], 1)

    data = TensorDataset(torch.rand(3, 4), torch.zeros(3, dtype=torch.long))
    found = evaluate(Sure(), data, [1.0], ["hopskipjump-3"])
    assert found.accuracy("hopskipjump-3", 1.0) == 1
    assert ATTACKS["hopskipjump"].kind == "chosen"
