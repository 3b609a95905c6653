"""The library against a slow, plain reference that was written from the paper alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import cnn, seeded
from torch import Tensor, nn
from twins.bpgd_twin import bpgd_twin, ima_step_twin
from twins.released_twin import released_step_twin

from ima import IMA, Classification, bpgd
from ima.norms import get_norm

# Two or three epochs are too few for margins to reach their cap, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")

BATCH = 12
NETS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda seed: cnn(seed=seed),
    "batch norm": lambda seed: cnn(seed=seed, batch_norm=True),
    "tanh, two classes": lambda seed: cnn(seed=seed, outputs=2, activation=nn.Tanh),
    "batch norm, many classes": lambda seed: cnn(
        seed=seed, outputs=10, channels=3, batch_norm=True, activation=nn.GELU
    ),
}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
each_norm = pytest.mark.parametrize("norm", [2, math.inf], ids=["L2", "Linf"])
each_algorithm = pytest.mark.parametrize("algorithm", [2, 3])


def problem(
    model: nn.Module, seed: int, norm: float, batch: int = BATCH
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples in [0, 1], labels of which most are what the model says, and radii around the
    first-order distance to the boundary, so that some samples cross and some do not."""
    like = next(model.parameters())
    generator = seeded(100 + seed)
    x = torch.rand(batch, like.shape[1], 6, 6, generator=generator).to(like.dtype)
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    y = z.argmax(1)
    score = Classification().score(z, y)
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    for m, training in flags:
        m.training = training
    dual = torch.linalg.vector_norm(slope.flatten(1), get_norm(norm).dual, dim=1)
    share = 0.4 + 1.7 * torch.rand(batch, generator=generator).to(like.dtype)
    y[:2] = (y[:2] + 1) % z.shape[1]
    return x, y, share * score.detach() / dual


def assert_same_gradients(model: nn.Module, twin: nn.Module) -> None:
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@each_net
@each_algorithm
@each_norm
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)], ids=["free", "bounded"])
@pytest.mark.parametrize("side", ["inside", "middle"])
def test_bpgd_is_its_twin_in_float64(
    net: Callable[[int], nn.Module], algorithm: Any, norm: float, bounds: Any, side: Any
) -> None:
    crossed = 0
    for seed in (0, 1) if side == "inside" else (2,):
        model = net(seed).double().train()
        x, y, eps = problem(model, seed, norm)
        settings: dict[str, Any] = {
            "norm": norm, "bounds": bounds, "algorithm": algorithm, "side": side
        }  # fmt: skip
        ours = bpgd(model, x, y, eps, **settings)
        twin = bpgd_twin(model, x, y, eps, **settings)
        assert ours.correct.tolist() == twin.correct
        assert ours.crossed.tolist() == twin.crossed
        torch.testing.assert_close(ours.x, twin.x, rtol=0, atol=1e-6)
        crossed += sum(twin.crossed)
    assert crossed >= 3


@each_norm
@pytest.mark.parametrize("steps", [1, 5])
def test_bpgd_is_its_twin_for_any_number_of_steps(norm: float, steps: int) -> None:
    model = NETS["batch norm"](3).double()
    x, y, eps = problem(model, 3, norm)
    for algorithm in (2, 3):
        ours = bpgd(model, x, y, eps, norm=norm, steps=steps, algorithm=algorithm)
        twin = bpgd_twin(model, x, y, eps, norm=norm, steps=steps, algorithm=algorithm)
        assert ours.crossed.tolist() == twin.crossed
        torch.testing.assert_close(ours.x, twin.x, rtol=0, atol=1e-6)


@each_algorithm
@each_norm
def test_bpgd_and_its_twin_agree_on_99_percent_in_float32(algorithm: Any, norm: float) -> None:
    agree: list[bool] = []
    for seed, net in enumerate(NETS.values()):
        model = net(10 + seed)
        x, y, eps = problem(model, 10 + seed, norm, batch=26)
        ours = bpgd(model, x, y, eps, norm=norm, bounds=(0, 1), algorithm=algorithm)
        twin = bpgd_twin(model, x, y, eps, norm=norm, bounds=(0, 1), algorithm=algorithm)
        apart = get_norm(norm).size(ours.x - twin.x)
        # One cell of the search is 2**-10 of the radius (Algorithm 3), a fifth of it (2).
        same = (ours.crossed == torch.tensor(twin.crossed)) & (apart <= 1.1 * 2**-10 * eps + 1e-6)
        agree += same.tolist()
    assert len(agree) == 104
    assert sum(agree) >= 0.99 * len(agree) - 0.05


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "halve": {"misclassified": "halve"},
    "crossed": {"noisy_loss": "crossed"},
    "halve, crossed, middle": {
        "misclassified": "halve", "noisy_loss": "crossed", "side": "middle"
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("net", ["relu", "batch norm"])
@each_algorithm
@each_norm
def test_an_ima_step_is_its_twins(
    variant: dict[str, Any], net: str, algorithm: Any, norm: float
) -> None:
    seed = 20
    model = NETS[net](seed).double().train()
    twin = copy.deepcopy(model)
    x, y, distance = problem(model, seed, norm, batch=20)
    # Every second label is what the model says in training mode, which may differ.
    y[2::2] = copy.deepcopy(model)(x).argmax(1)[2::2]
    cap = float(distance.max()) * 0.95
    delta = float(distance.mean()) * 0.1
    settings: dict[str, Any] = {"eps": cap, "delta": delta, "norm": norm, "bounds": (0, 1)}
    method = IMA(num_samples=50, augmented=algorithm == 3, steps=10, **settings, **variant)
    ids = torch.randperm(50, generator=seeded(0))[:20]
    method.margins.update(ids, distance)
    before = method.margins.values.clone()

    step = method(model, x, y, ids)
    loss, margins = ima_step_twin(
        twin, x, y, before[ids].double(), algorithm=algorithm, steps=10, **settings, **variant
    )
    torch.testing.assert_close(step.loss, loss, rtol=0, atol=1e-9)
    torch.testing.assert_close(method.margins.values[ids].double(), margins, rtol=1e-6, atol=1e-7)
    others = torch.ones(50, dtype=torch.bool)
    others[ids] = False
    assert torch.equal(method.margins.values[others], before[others])

    step.loss.backward()
    loss.backward()
    assert_same_gradients(model, twin)
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)

    # The batch holds every kind of sample, so that every branch was compared.
    counts = {name: int(step.metrics[name]) for name in ("correct", "noisy_samples", "crossed")}
    assert 0 < counts["crossed"] < counts["noisy_samples"] <= counts["correct"] < 20
    if net == "batch norm":
        assert counts["noisy_samples"] < counts["correct"]


@pytest.mark.parametrize("net", ["relu", "tanh, two classes"])
@each_norm
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)], ids=["free", "bounded"])
def test_a_step_as_released_is_its_twins(net: str, norm: float, bounds: Any) -> None:
    seen: set[str] = set()
    for seed in (30, 31):
        model = NETS[net](seed).double().train()
        twin = copy.deepcopy(model)
        x, y, distance = problem(model, seed, norm, batch=20)
        settings: dict[str, Any] = {
            "eps": float(distance.max()) * 0.95,
            "delta": float(distance.mean()) * 0.1,
            "norm": norm,
            "bounds": bounds,
            "steps": 10,
        }
        method = IMA(num_samples=50, variant="released", seed=seed, **settings)
        ids = torch.randperm(50, generator=seeded(0))[:20]
        for table in (method.margins, method.next):
            table.update(ids, distance)
        before = method.margins.values.clone()
        # The noise that the method will draw, for the samples that it will attack.
        generator, unit = torch.Generator(), torch.zeros_like(x)
        generator.set_state(method.generator.get_state())
        right = copy.deepcopy(model)(x).argmax(1) == y
        ones = torch.ones(int(right.sum()), dtype=x.dtype)
        unit[right] = get_norm(norm).random(x[right], ones, generator)

        step = method(model, x, y, ids)
        loss, margins, what = released_step_twin(
            twin, x, y, before[ids].double(), unit=unit, **settings
        )
        torch.testing.assert_close(step.loss, loss, rtol=0, atol=1e-9)
        assert torch.equal(method.margins.values, before)
        method.end_epoch(0, 10)
        found = method.margins.values[ids].double()
        torch.testing.assert_close(found, margins, rtol=1e-6, atol=1e-7)
        step.loss.backward()
        loss.backward()
        assert_same_gradients(model, twin)
        assert int(step.metrics["crossed"]) == sum(one in ("crossed", "back") for one in what)
        seen |= set(what)
    assert {"wrong", "inside", "crossed"} <= seen
