"""Attacks: they leave no trace, stay where they are allowed, and treat every sample alone."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Heads, Line, Trees, balance, cnn, mlp, redraw, seeded
from torch import Tensor, nn

from ima import Attacked, Classification, bpgd, ifgsm, pgd
from ima.attacks.boundary import CELLS, search_boundary
from ima.attacks.inputs import check_samples
from ima.norms import get_norm

Attack = Callable[..., Attacked]


def _pgd(*args: Any, **more: Any) -> Attacked:
    return pgd(*args, **{"steps": 7, **more})


def _pgd_all_steps(*args: Any, **more: Any) -> Attacked:
    return pgd(*args, **{"steps": 7, "stop": "never", **more})


def _pgd_from_a_random_start(*args: Any, **more: Any) -> Attacked:
    return pgd(*args, **{"steps": 7, "random_start": True, **more})


def _bpgd_2(*args: Any, **more: Any) -> Attacked:
    return bpgd(*args, **{"steps": 7, "algorithm": 2, **more})


def _bpgd_3(*args: Any, **more: Any) -> Attacked:
    return bpgd(*args, **{"steps": 7, "algorithm": 3, **more})


def _bpgd_2_from_a_random_start(*args: Any, **more: Any) -> Attacked:
    return bpgd(*args, **{"steps": 7, "algorithm": 2, "random_start": 0.7, **more})


def _bpgd_3_from_a_random_start(*args: Any, **more: Any) -> Attacked:
    return bpgd(*args, **{"steps": 7, "algorithm": 3, "random_start": 0.7, **more})


STILL: dict[str, Attack] = {
    "pgd": _pgd,
    "pgd, all steps": _pgd_all_steps,
    "ifgsm": ifgsm,
    "bpgd 2": _bpgd_2,
    "bpgd 3": _bpgd_3,
}
RANDOM: dict[str, Attack] = {
    "pgd, random start": _pgd_from_a_random_start,
    "bpgd 2, random start": _bpgd_2_from_a_random_start,
    "bpgd 3, random start": _bpgd_3_from_a_random_start,
}
ATTACKS = STILL | RANDOM
BOUNDARY = (_bpgd_2, _bpgd_3, _bpgd_2_from_a_random_start, _bpgd_3_from_a_random_start)
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
each_still_attack = pytest.mark.parametrize("attack", STILL.values(), ids=STILL.keys())
each_random_attack = pytest.mark.parametrize("attack", RANDOM.values(), ids=RANDOM.keys())
each_norm = pytest.mark.parametrize("norm", [2, math.inf])


def radii(model: nn.Module, x: Tensor, y: Tensor, norm: float) -> Tensor:
    """First-order distances to the boundary: at these radii about half of the samples cross."""
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    leaf = x.detach().clone().requires_grad_()
    score = Classification().score(model(leaf), y)
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    for m, training in flags:
        m.training = training
    dual = torch.linalg.vector_norm(slope.flatten(1), get_norm(norm).dual, dim=1)
    return score.detach().abs() / dual


def says(model: nn.Module, x: Tensor) -> Tensor:
    """The model's decisions in evaluation mode, one sample at a time."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(x[i : i + 1]).argmax(1) for i in range(len(x))])


# ---------------------------------------------------------------------------- no trace


class Noisy(nn.Module):
    """All that could keep a trace: batch norm, dropout, mixed flags, gradients, random draws.

    raise_at: the forward pass, from 1, that raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5)
        )
        self.frozen = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.3))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 25, 3))
        self.passes = self.raise_at = 0
        redraw(self, 0)
        balance(self, (1, 5, 5), self.head[1], 0)
        self.train()
        self.frozen.eval()
        self.body[3].eval()
        self.frozen[1].train()
        for i, parameter in enumerate(self.parameters()):
            if i % 2:
                parameter.grad = torch.full_like(parameter, 0.5)
        self.head[1].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.raise_at:
            raise KeyError("the model broke")
        torch.rand(3, device=x.device)
        return self.head(self.frozen(self.body(x)))


def trace(model: nn.Module, *tensors: Tensor) -> list[Any]:
    """All state that an attack could change, as values that compare."""
    return [
        [(name, m.training) for name, m in model.named_modules()],
        {name: value.tolist() for name, value in model.state_dict().items()},
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [(t.tolist(), t.requires_grad, t.grad) for t in tensors],
        torch.random.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_anomaly_enabled(),
    ]


def problem() -> tuple[Noisy, Tensor, Tensor, Tensor]:
    model = Noisy()
    x = torch.rand(6, 1, 5, 5, generator=seeded(1))
    y = says(model, x)
    y[0] = (y[0] + 1) % 3
    return model, x, y, 1.5 * radii(model, x, y, 2)


@each_attack
def test_an_attack_leaves_no_trace(attack: Attack) -> None:
    model, x, y, eps = problem()
    before = trace(model, x, y, eps)
    result = attack(model, x, y, eps, bounds=(0, 1))
    assert bool(result.crossed.any())
    assert trace(model, x, y, eps) == before
    for value in (result.x, result.crossed, result.correct, result.stuck):
        assert not value.requires_grad
    assert result.x.data_ptr() != x.data_ptr()


@each_attack
def test_an_attack_leaves_no_trace_when_the_model_raises(attack: Attack) -> None:
    model, x, y, eps = problem()

    def run() -> None:
        model.passes = 0
        more = {"generator": seeded(0)} if attack in RANDOM.values() else {}
        attack(model, x, y, eps, **more)

    run()
    passes = model.passes
    before = trace(model, x, y, eps)
    for raise_at in {1, 2, 4, passes - 1, passes}:
        model.raise_at = raise_at
        with pytest.raises(KeyError, match="the model broke"):
            run()
        assert trace(model, x, y, eps) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@each_still_attack
def test_the_callers_gradient_mode_makes_no_difference(
    attack: Attack, context: Callable[[], Any]
) -> None:
    model, x, y, eps = problem()
    expected = attack(model, x, y, eps)
    with context():
        before = trace(model, x, y, eps)
        result = attack(model, x, y, eps)
        assert trace(model, x, y, eps) == before
    assert torch.equal(result.x, expected.x)
    assert torch.equal(result.crossed, expected.crossed)


@each_still_attack
def test_samples_and_labels_may_be_made_in_inference_mode(attack: Attack) -> None:
    model, x, y, eps = problem()
    expected = attack(model, x, y, eps, bounds=(0, 1))
    with torch.inference_mode():
        result = attack(model, x.clone(), y.clone(), eps.clone(), bounds=(0, 1))
    assert torch.equal(result.x, expected.x)
    outside = attack(model, result.x, y, eps, bounds=(0, 1))
    assert outside.x.shape == x.shape


@each_attack
def test_an_attack_inside_autocast_leaves_training_its_gradients(attack: Attack) -> None:
    model = mlp((8,))
    x = torch.randn(4, 8, generator=seeded(0))
    y = says(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        before = trace(model, x, y)
        result = attack(model, x, y, 0.5)
        assert trace(model, x, y) == before
        model(result.x).float().sum().backward()
    assert result.x.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


@each_attack
def test_samples_that_require_gradients_gain_none(attack: Attack) -> None:
    model = mlp((8,))
    x = torch.randn(4, 8, generator=seeded(0), requires_grad=True)
    eps = torch.full((4,), 0.5, requires_grad=True)
    result = attack(model, x, says(model, x.detach()), eps)
    assert x.grad is None
    assert eps.grad is None
    assert not result.x.requires_grad


@each_attack
def test_an_attack_runs_where_its_samples_are(attack: Attack, device: torch.device) -> None:
    model, x, y, eps = problem()
    model = model.double()
    more = {"generator": seeded(0)} if attack in RANDOM.values() else {}
    expected = attack(model, x.double(), y, eps.double(), bounds=(0, 1), **more)
    model, x, y = model.to(device), x.to(device).double(), y.to(device)
    state = torch.cuda.get_rng_state() if device.type == "cuda" else None
    more = {"generator": seeded(0)} if attack in RANDOM.values() else {}
    # Radii and bounds may be on the host.
    result = attack(model, x, y, eps.double(), bounds=(torch.zeros(5), torch.ones(())), **more)
    for value in (result.x, result.crossed, result.correct, result.stuck):
        assert value.device == x.device
    torch.testing.assert_close(result.x.cpu(), expected.x, rtol=0, atol=1e-6)
    assert torch.equal(result.crossed.cpu(), expected.crossed)
    if state is not None:
        assert torch.equal(torch.cuda.get_rng_state(), state)


# ---------------------------------------------------------------------------- random starts


@each_random_attack
def test_two_random_starts_differ_and_a_generator_repeats_them(attack: Attack) -> None:
    model = mlp((8,))
    x = torch.randn(4, 8, generator=seeded(0))
    y = says(model, x)
    first, second = (attack(model, x, y, 0.01) for _ in range(2))
    assert not torch.equal(first.x, second.x)
    first, second = (attack(model, x, y, 0.01, generator=seeded(5)) for _ in range(2))
    assert torch.equal(first.x, second.x)
    generator = seeded(5)
    again, other = (attack(model, x, y, 0.01, generator=generator) for _ in range(2))
    assert torch.equal(again.x, first.x)
    assert not torch.equal(other.x, first.x)


@each_still_attack
def test_without_a_random_start_an_attack_repeats_itself(attack: Attack) -> None:
    model, x, y, eps = problem()
    first, second = (attack(model, x, y, eps) for _ in range(2))
    assert torch.equal(first.x, second.x)


# ---------------------------------------------------------------------------- invariants


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    batch: int
    seed: int
    eps: list[float] = field(repr=True)
    norm: float
    box: str
    batch_norm: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    batch = draw(st.integers(1, 4))
    eps = draw(
        st.lists(st.sampled_from([0.0, 1e-3, 0.1, 0.5, 2.0]), min_size=batch, max_size=batch)
    )
    return Case(
        shape, batch, draw(st.integers(0, 50)), eps, draw(st.sampled_from([2, math.inf])),
        draw(st.sampled_from(["none", "numbers", "tensors"])), draw(st.booleans()),
    )  # fmt: skip


def build(case: Case, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor, Tensor, Any]:
    model = mlp(case.shape, seed=case.seed, batch_norm=case.batch_norm).to(dtype).train()
    generator = seeded(case.seed)
    x = torch.rand(case.batch, *case.shape, generator=generator).to(dtype)
    bounds: Any = None
    if case.box == "numbers":
        bounds = (-0.3, 1.1)
    if case.box == "tensors":
        low = -torch.rand(case.shape[-1], generator=generator).to(dtype)
        bounds = (low, torch.ones(case.shape, dtype=dtype) * 1.2)
    y = says(model, x)
    if case.seed % 3 == 0:
        y[-1] = (y[-1] + 1) % 3
    return model, x, y, torch.tensor(case.eps, dtype=dtype), bounds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_attack
@settings(max_examples=25)
@given(case=cases())
def test_every_result_is_in_its_ball_and_in_its_bounds(
    attack: Attack, dtype: torch.dtype, case: Case
) -> None:
    model, x, y, eps, bounds = build(case, dtype)
    result = attack(model, x, y, eps, norm=case.norm, bounds=bounds)
    assert result.x.shape == x.shape
    assert result.x.dtype == dtype
    for flags in (result.crossed, result.correct, result.stuck):
        assert flags.shape == (case.batch,)
        assert flags.dtype == torch.bool
    assert bool(torch.isfinite(result.x).all())
    size = get_norm(case.norm).size(result.x.double() - x.double())
    # Adding noise to x rounds at x's own precision, which is the floor for the smallest radii.
    floor = 4 * torch.finfo(dtype).eps * math.sqrt(x[0].numel())
    assert bool((size <= eps.double() * (1 + 1e-5) + floor * (eps > 0)).all())
    if bounds is not None:
        low, high = (torch.as_tensor(b, dtype=dtype) for b in bounds)
        assert bool(((result.x >= low) & (result.x <= high)).all())
    assert torch.equal(result.correct, says(model, x) == y)
    unchanged = (eps == 0) | (~result.correct & (attack in BOUNDARY))
    assert torch.equal(result.x[unchanged], x[unchanged])


@each_still_attack
@settings(max_examples=25)
@given(case=cases())
def test_a_sample_alone_fares_as_in_its_batch(attack: Attack, case: Case) -> None:
    model, x, y, eps, bounds = build(case, torch.float64)
    whole = attack(model, x, y, eps, norm=case.norm, bounds=bounds)
    for i in range(case.batch):
        one = slice(i, i + 1)
        alone = attack(model, x[one], y[one], eps[one], norm=case.norm, bounds=bounds)
        torch.testing.assert_close(alone.x, whole.x[one], rtol=0, atol=1e-9)
        for name in ("crossed", "correct", "stuck"):
            assert torch.equal(getattr(alone, name), getattr(whole, name)[one])


@each_norm
@pytest.mark.parametrize("algorithm", [2, 3])
def test_bpgd_ends_on_the_correct_side_or_the_wrong_one_as_asked(
    algorithm: Any, norm: float
) -> None:
    model = cnn(batch_norm=True).double()
    x = torch.rand(24, 1, 6, 6, generator=seeded(0)).double()
    y = says(model, x)
    y[:3] = (y[:3] + 1) % 3
    eps = radii(model, x, y, norm) * torch.tensor([0.7, 1.4]).repeat(12)
    result = bpgd(model, x, y, eps, norm=norm, algorithm=algorithm)
    assert result.correct.tolist() == [False] * 3 + [True] * 21
    assert 5 < int(result.crossed.sum()) < 21
    assert not result.crossed[:3].any()
    assert torch.equal(result.x[:3], x[:3])
    assert torch.equal(says(model, result.x[3:]), y[3:])
    # A little farther along the last bracket the model is wrong.
    middle = bpgd(model, x, y, eps, norm=norm, algorithm=algorithm, side="middle")
    assert torch.equal(middle.crossed, result.crossed)
    farther = 2 * middle.x - result.x
    crossed = result.crossed
    assert bool((says(model, farther[crossed]) != y[crossed]).all())
    assert torch.equal(middle.x[~crossed], result.x[~crossed])


@each_norm
def test_pgd_crosses_exactly_where_the_returned_point_is_wrong(norm: float) -> None:
    model = cnn(batch_norm=True).double()
    x = torch.rand(24, 1, 6, 6, generator=seeded(0)).double()
    y = says(model, x)
    y[:3] = (y[:3] + 1) % 3
    eps = radii(model, x, y, norm) * torch.tensor([0.7, 1.1]).repeat(12)
    for attack in (_pgd, _pgd_all_steps, _pgd_from_a_random_start, ifgsm):
        result = attack(model, x, y, eps, norm=norm)
        assert torch.equal(result.crossed, says(model, result.x) != y)
        assert torch.equal(result.correct, says(model, x) == y)
        assert 3 < int(result.crossed.sum()) < 24
    # A sample that is wrong already needs no noise.
    assert torch.equal(_pgd(model, x, y, eps, norm=norm).x[:3], x[:3])


@each_norm
def test_ifgsm_takes_steps_of_a_quarter_and_keeps_the_last_point(norm: float) -> None:
    model = Line()
    x, y = torch.zeros(2, 1), torch.tensor([0, 0])
    for steps, reached in ((1, 0.25), (3, 0.75), (10, 1.0)):
        result = ifgsm(model, x, y, torch.tensor([1.0, 0.4]), steps=steps, norm=norm)
        torch.testing.assert_close(result.x, torch.tensor([[reached], [0.4 * reached]]))
        assert result.crossed.tolist() == [reached > 0.5, False]


class Island(nn.Module):
    """Wrong only between 0.5 and 0.7; the true logit keeps falling along the way."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        wrong = 5 * ((x > 0.5) & (x < 0.7)).float()
        return torch.stack([1 - 0.1 * x, wrong], 1)


def test_a_walk_that_came_back_did_not_cross_in_algorithm_3() -> None:
    x, y = torch.zeros(1, 1), torch.tensor([0])
    third = bpgd(Island(), x, y, 1.0, algorithm=3)
    assert not third.crossed.any()
    assert float(third.x) == pytest.approx(1.0)
    second = bpgd(Island(), x, y, 1.0, algorithm=2)
    assert second.crossed.all()
    assert float(second.x) == pytest.approx(0.5, abs=0.2 * 2**-10 + 1e-6)


def test_algorithm_3_walks_all_steps_from_a_random_start_that_is_wrong() -> None:
    x, y = torch.zeros(64, 1), torch.zeros(64, dtype=torch.long)
    more: dict[str, Any] = {"random_start": 1.0, "steps": 20}
    third = bpgd(Island(), x, y, 1.0, algorithm=3, generator=seeded(0), **more)
    assert not third.crossed.any()
    torch.testing.assert_close(third.x, torch.ones(64, 1))
    second = bpgd(Island(), x, y, 1.0, algorithm=2, generator=seeded(0), **more)
    assert int(second.crossed.sum()) > 0


@pytest.mark.parametrize("algorithm", [2, 3])
def test_a_random_start_that_is_wrong_is_searched_back_to_the_clean_sample(algorithm: Any) -> None:
    class Edge(nn.Module):
        # Wrong from a distance of 0.05 on, in every direction.
        def forward(self, x: Tensor) -> Tensor:
            far = x.flatten(1).abs().amax(1) - 0.05
            return torch.stack([-far, far], 1)

    x = torch.zeros(64, 6, dtype=torch.float64)
    y = torch.zeros(64, dtype=torch.long)
    result = bpgd(
        Edge(), x, y, 1.0, norm=math.inf, algorithm=algorithm, random_start=1.0, generator=seeded(0)
    )
    assert bool(result.crossed.all())
    largest = result.x.abs().amax(1)
    assert bool((largest < 0.05).all())
    assert bool((largest > 0.05 - 2**-10).all())


# ---------------------------------------------------------------------------- hard models


@each_attack
def test_a_zero_gradient_is_counted_as_stuck(attack: Attack) -> None:
    class Flat(nn.Module):
        # Samples below zero have no gradient; the others do.
        def forward(self, x: Tensor) -> Tensor:
            fall = torch.relu(x.flatten(1).sum(1))
            return torch.stack([1 + 0 * fall, fall - 10], 1)

    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-2.0, 0.0]])
    result = attack(Flat(), x, torch.zeros(3, dtype=torch.long), 0.25)
    assert result.stuck.tolist() == [True, False, True]
    assert not result.crossed.any()
    if attack in STILL.values():
        assert torch.equal(result.x[[0, 2]], x[[0, 2]])
        assert not torch.equal(result.x[1], x[1])


@each_attack
def test_a_model_without_a_graph_leaves_every_sample_stuck(attack: Attack) -> None:
    net = mlp((4,))

    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x)

    x = torch.randn(3, 4, generator=seeded(0))
    assert attack(model, x, says(net, x), 0.01).stuck.all()


@pytest.mark.parametrize(
    ("walk", "scale"),
    [("loss", 10), ("margin", 10), ("margin", 1e3), ("margin", 1e6), ("loss", 1e3)],
)
@each_still_attack
def test_a_confident_model_is_walked_as_an_unsure_one_is(
    attack: Attack, walk: Any, scale: float
) -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.net, self.factor = mlp((8,), outputs=2), factor

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * self.net(x)

    # With two classes the direction does not depend on the scale of the logits.
    x = torch.randn(12, 8, generator=seeded(0))
    y = says(Scaled(1), x)
    eps = 1.2 * radii(Scaled(1), x, y, 2)
    plain = attack(Scaled(1), x, y, eps, task=Classification(walk=walk))
    sure = attack(Scaled(scale), x, y, eps, task=Classification(walk=walk))
    assert not sure.stuck.any()
    assert torch.equal(sure.crossed, plain.crossed)
    torch.testing.assert_close(sure.x, plain.x, rtol=0, atol=5e-3)


def test_a_compiled_network_with_a_part_called_module_is_attacked() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = mlp((4,))

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    x = torch.randn(3, 4, generator=seeded(0))
    y = says(Outer(), x)
    found = pgd(torch.compile(Outer(), backend="eager"), x, y, 0.3)
    assert torch.equal(found.x, pgd(Outer(), x, y, 0.3).x)


@each_still_attack
def test_an_output_that_is_not_a_number_counts_as_wrong(attack: Attack) -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = torch.stack([1 - x[:, 0], 0 * x[:, 0]], 1)
            return torch.where(x > 0.3, math.nan, z)

    x = torch.tensor([[0.0], [0.5]])
    result = attack(Breaks(), x, torch.tensor([0, 0]), torch.tensor([0.6, 0.2]))
    assert result.correct.tolist() == [True, False]
    assert bool(result.crossed[0])
    assert bool(torch.isfinite(result.x).all())


@each_attack
def test_bfloat16_autocast_attacks_in_the_precision_of_the_caller(attack: Attack) -> None:
    model = cnn(batch_norm=True)
    seen: set[torch.dtype] = set()
    model[0].register_forward_hook(lambda _module, _args, out: seen.add(out.dtype))
    x = torch.rand(8, 1, 6, 6, generator=seeded(0))
    y = says(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        result = attack(model, x, y, 3 * radii(model, x, y, 2), bounds=(0, 1))
    assert torch.bfloat16 in seen
    assert result.x.dtype == torch.float32
    assert bool(torch.isfinite(result.x).all())
    assert bool(result.crossed.any())


@pytest.mark.timeout(5)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_attack
def test_samples_may_be_half_precision(attack: Attack, dtype: torch.dtype) -> None:
    model = mlp((8,)).to(dtype)
    x = torch.rand(8, 8, generator=seeded(0)).to(dtype)
    y = says(model, x)
    result = attack(model, x, y, 2.0, bounds=(0, 1))
    assert result.x.dtype == dtype
    assert bool(torch.isfinite(result.x).all())
    assert bool(result.crossed.any())


# ---------------------------------------------------------------------------- trees, wrappers


@each_still_attack
@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "dict with the decision"])
def test_outputs_and_targets_may_be_trees(kind: str, attack: Attack) -> None:
    keys = ("main", "aux") if kind.startswith("dict") else (0, 1)
    model, task = Heads((8,), kind).double(), Trees(*keys)
    x = torch.randn(10, 8, generator=seeded(0)).double()
    main, aux = says(model.first, x), says(model.second, x)
    y: Any = {"main": main, "aux": aux} if kind.startswith("dict") else [main, aux]
    eps = 1.3 * radii(model.first, x, main, 2)
    result = attack(model, x, y, eps, task=task)
    assert int(result.crossed.sum()) > 0
    inside = result.x[~result.crossed]
    assert torch.equal(says(model.first, inside), main[~result.crossed])
    assert bool((torch.linalg.vector_norm(result.x - x, dim=1) <= eps * (1 + 1e-9)).all())
    for i in range(0, 10, 3):
        one: Any = (
            {k: v[i : i + 1] for k, v in y.items()}
            if isinstance(y, dict)
            else [v[i : i + 1] for v in y]
        )
        alone = attack(model, x[i : i + 1], one, eps[i : i + 1], task=task)
        torch.testing.assert_close(alone.x, result.x[i : i + 1], rtol=0, atol=1e-9)


class Forbidden(nn.DataParallel):
    def forward(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("an attack ran through the wrapper")


class Compiled(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("an attack ran through the wrapper")


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parallel": Forbidden,
    "compiled": Compiled,
    "both": lambda model: Forbidden(Compiled(model)),
    "both, the other way": lambda model: Compiled(Forbidden(model)),
}


@each_still_attack
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_an_attack_runs_on_the_module_inside_a_wrapper(
    wrap: Callable[[nn.Module], nn.Module], attack: Attack
) -> None:
    model, x, y, eps = problem()
    expected = attack(model, x, y, eps)
    wrapper = wrap(model)
    before = trace(wrapper, x, y)
    assert torch.equal(attack(wrapper, x, y, eps).x, expected.x)
    assert trace(wrapper, x, y) == before


@each_still_attack
def test_a_model_may_be_any_callable(attack: Attack) -> None:
    model, x, y, eps = problem()
    model.eval()
    expected = attack(model, x, y, eps)
    assert torch.equal(attack(lambda x: model(x), x, y, eps).x, expected.x)


# ---------------------------------------------------------------------------- what comes in

X = torch.rand(3, 4, generator=seeded(0))
Y = torch.tensor([0, 1, 2])

COMMON: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": (X * 255).to(torch.uint8)}, TypeError, "uint8"),
    ({"x": X.long()}, TypeError, "int64"),
    ({"x": X.numpy()}, TypeError, "ndarray"),
    ({"x": X.tolist()}, TypeError, "list"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, r"\(0, 4\)"),
    ({"x": X[:, :0]}, ValueError, r"\(3, 0\)"),
    ({"x": torch.tensor(0.5)}, ValueError, r"\(\)"),
    ({"x": X + math.nan}, ValueError, "NaN"),
    ({"x": X + math.inf}, ValueError, "infinite"),
    ({"x": X + math.nan, "bounds": (0, 1)}, ValueError, "(?i)nan"),
    ({"x": X + 1, "bounds": (0, 1)}, ValueError, r"\(0, 1\)"),
    ({"x": X - 0.5, "bounds": (0, 1)}, ValueError, r"\(0, 1\)"),
    ({"x": X - 0.5, "bounds": (0, math.inf)}, ValueError, r"\(0, inf\)"),
    ({"bounds": (1, 0)}, ValueError, r"\(1, 0\)"),
    ({"bounds": (1, 1)}, ValueError, r"\(1, 1\)"),
    ({"bounds": (0, math.nan)}, ValueError, "nan"),
    ({"bounds": (0,)}, ValueError, r"\(0,\)"),
    ({"bounds": (0, 1, 2)}, ValueError, "pair"),
    ({"bounds": 1}, ValueError, "1"),
    ({"bounds": "01"}, ValueError, "01"),
    ({"bounds": (0, torch.ones(3))}, ValueError, r"\(3,\)"),
    ({"bounds": (0, torch.ones(3, 4))}, ValueError, r"\(3, 4\)"),
    ({"y": Y.float()}, TypeError, "float32"),
    ({"y": torch.tensor([0, 1, 3])}, ValueError, "label 3"),
    ({"y": torch.tensor([0, -1, 2])}, ValueError, "label -1"),
    ({"y": Y[:2]}, ValueError, "2 targets"),
    ({"y": torch.cat([Y, Y])}, ValueError, "6 targets"),
    ({"y": Y[:, None]}, TypeError, r"\(1,\) a sample"),
    ({"y": [0, 1, 2]}, TypeError, "list"),
    ({"y": None}, TypeError, "NoneType"),
    ({"eps": -0.1}, ValueError, "eps .*negative"),
    ({"eps": math.nan}, ValueError, "eps .*nan"),
    ({"eps": math.inf}, ValueError, "eps .*inf"),
    ({"eps": torch.tensor([0.1, -0.1, 0.1])}, ValueError, "eps .*-0.1"),
    ({"eps": torch.ones(2)}, ValueError, r"eps .*\(2,\)"),
    ({"eps": torch.ones(3, 1)}, ValueError, r"eps .*\(3, 1\)"),
    ({"eps": "0.1"}, TypeError, "eps .*0.1"),
    ({"eps": None}, TypeError, "eps .*None"),
    ({"norm": 3}, ValueError, "norm is 3"),
    ({"norm": "l1"}, ValueError, "norm is 'l1'"),
    ({"steps": 0}, ValueError, "steps is 0"),
    ({"steps": 2.5}, ValueError, "steps is 2.5"),
    ({"steps": True}, ValueError, "steps is True"),
    ({"model": lambda x: torch.zeros(len(x) + 1, 3)}, ValueError, r"\(4, 3\)"),
    ({"model": lambda x: torch.zeros(len(x), 3, 2)}, ValueError, r"\(3, 3, 2\)"),
    ({"model": lambda x: [torch.zeros(len(x), 3)]}, TypeError, "list"),
    ({"model": lambda _: None}, TypeError, "NoneType"),
    ({"model": lambda x: torch.zeros(len(x), 3).long()}, TypeError, "int64"),
]
OF_BPGD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"algorithm": 1}, ValueError, "algorithm is 1"),
    ({"algorithm": "2"}, ValueError, "algorithm is '2'"),
    ({"side": "outside"}, ValueError, "side is 'outside'"),
    ({"random_start": -0.5}, ValueError, "random_start is -0.5"),
    ({"random_start": 2.0}, ValueError, "random_start is 2.0"),
    ({"random_start": math.nan}, ValueError, "random_start is nan"),
]
OF_PGD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"stop": "first"}, ValueError, "stop is 'first'"),
    ({"step_size": -1.0}, ValueError, "step_size"),
    ({"step_size": torch.ones(2)}, ValueError, "step_size"),
]


@pytest.mark.parametrize(
    ("attack", "change", "error", "text"),
    [
        *((pgd, *row) for row in COMMON + OF_PGD),
        *((ifgsm, *row) for row in COMMON),
        *((bpgd, *row) for row in COMMON + OF_BPGD),
    ],
)
def test_what_does_not_fit_is_named(
    attack: Attack, change: dict[str, Any], error: type[Exception], text: str
) -> None:
    fine: dict[str, Any] = {"model": mlp((4,)), "x": X, "y": Y, "eps": 0.1}
    given_ = {**fine, **change}
    args = [given_.pop(name) for name in ("model", "x", "y", "eps")]
    state = torch.random.get_rng_state()
    with pytest.raises(error, match=text):
        attack(*args, **given_)
    assert torch.equal(torch.random.get_rng_state(), state)


@each_attack
def test_rounding_at_the_bounds_is_accepted(attack: Attack) -> None:
    model = mlp((4,))
    x = torch.tensor([[0.0, 1.0, -1e-7, 1 + 1e-6]])
    result = attack(model, x, says(model, x), 0.3, bounds=(0, 1))
    assert bool(torch.isfinite(result.x).all())


@each_attack
def test_bounds_may_differ_from_entry_to_entry(attack: Attack) -> None:
    model = cnn(channels=2)
    low = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1)
    high = low + torch.tensor([0.5, 3.0]).reshape(2, 1, 1)
    x = low + (high - low) * torch.rand(5, 2, 4, 4, generator=seeded(0))
    result = attack(model, x, says(model, x), 5.0, bounds=(low, high))
    assert bool(((result.x >= low) & (result.x <= high)).all())
    assert not torch.equal(result.x, x)


@each_attack
def test_one_number_and_one_radius_a_sample_are_the_same(attack: Attack) -> None:
    model, x, y, _ = problem()
    more = {"generator": seeded(0)} if attack in RANDOM.values() else {}
    first = attack(model, x, y, 0.5, **more)
    more = {"generator": seeded(0)} if attack in RANDOM.values() else {}
    second = attack(model, x, y, torch.full((6,), 0.5), **more)
    assert torch.equal(first.x, second.x)


# ---------------------------------------------------------------------------- the search

CURVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "line": lambda t, root: root - t,
    "cubic": lambda t, root: root**3 - t**3,
    "exponential": lambda t, root: torch.exp(-3 * t) - torch.exp(-3 * root),
    "soft step": lambda t, root: torch.tanh(6 * (root - t)),
    "wave": lambda t, root: torch.cos(1.5 * t) - torch.cos(1.5 * root),
}
ROUGH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "step": lambda t, root: torch.where(t < root, 1.0, -1.0).to(t.dtype),
    "lopsided step": lambda t, root: torch.where(t < root, 1e6, -1e-6).to(t.dtype),
    "steep": lambda t, root: torch.tanh(500 * (root - t)),
    "flat": lambda t, root: (root - t) ** 9,
    "not a number": lambda t, _: torch.full_like(t, math.nan),
    "not a number where wrong": lambda t, root: torch.where(t < root, root - t, math.nan),
    "infinite": lambda t, root: torch.where(t < root, math.inf, -math.inf).to(t.dtype),
    "of the wrong sign": lambda t, root: t - root,
    "zero": lambda t, _: torch.zeros_like(t),
}


@dataclass(frozen=True)
class Given:
    """The model's output holds (score, correct); targets are ignored."""

    def check(self, output: Tensor, target: Tensor) -> None:
        pass

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return -output[:, 0]

    def objective(self, output: Tensor, target: Tensor) -> Tensor:
        return -output[:, 0]

    def correct(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 1] > 0

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0]

    def predict(self, output: Tensor) -> Tensor:
        return output[:, 1]


def hunt(
    curve: Callable[[Tensor, Tensor], Tensor], roots: Tensor, reach: float = 3.0
) -> tuple[Tensor, Tensor, int]:
    """The search on segments [0, reach] that meet the boundary at share `roots`, and its passes."""
    passes = 0

    def model(x: Tensor) -> Tensor:
        # The second entry carries the sample's root, so that any selection of samples works.
        nonlocal passes
        passes += 1
        t, root = x[:, 0] / reach, x[:, 1]
        return torch.stack([curve(t, root), (t < root).to(t.dtype)], 1)

    inside = torch.stack([torch.zeros_like(roots), roots], 1)
    outside = torch.stack([torch.full_like(roots, reach), roots], 1)
    scores = (model(inside)[:, 0], model(outside)[:, 0])
    passes = 0
    y = torch.zeros(len(roots), dtype=torch.long)
    low, high = search_boundary(model, inside, outside, y, scores, task=Given(), bounds=None)
    return low, high, passes


def bisect(roots: Tensor) -> tuple[Tensor, Tensor]:
    """Ten halvings."""
    low, high = torch.zeros_like(roots), torch.ones_like(roots)
    for _ in range(10):
        middle = (low + high) / 2
        right = middle < roots
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return low, high


# A little off the grid: at a grid point the two sides may round differently.
ROOTS = torch.linspace(0.0007, 0.9993, 61, dtype=torch.float64)


@pytest.mark.parametrize("curve", (CURVES | ROUGH).values(), ids=(CURVES | ROUGH).keys())
def test_the_search_ends_in_the_cell_that_bisection_finds(
    curve: Callable[[Tensor, Tensor], Tensor],
) -> None:
    low, high, passes = hunt(curve, ROOTS)
    expected = bisect(ROOTS)
    assert torch.equal(low, expected[0])
    assert torch.equal(high, expected[1])
    assert bool((high - low == 1 / CELLS).all())
    assert bool(((low < ROOTS) & (high >= ROOTS)).all())
    # Ten halvings are always enough: whatever the score says, it must not cost much more.
    assert passes <= 12


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_the_search_needs_fewer_passes_than_bisection_on_smooth_scores(
    curve: Callable[[Tensor, Tensor], Tensor],
) -> None:
    passes = [hunt(curve, ROOTS[i : i + 1])[2] for i in range(len(ROOTS))]
    assert sum(passes) / len(passes) < 9
    assert hunt(curve, ROOTS)[2] == max(passes)


def test_the_search_treats_every_segment_alone() -> None:
    low, _, _ = hunt(CURVES["wave"], ROOTS)
    for i in range(0, len(ROOTS), 7):
        alone, _, _ = hunt(CURVES["wave"], ROOTS[i : i + 1])
        assert torch.equal(alone, low[i : i + 1])


@pytest.mark.timeout(5)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_search_ends_in_every_precision(dtype: torch.dtype) -> None:
    roots = torch.linspace(0.05, 0.95, 7, dtype=dtype)
    low, high, passes = hunt(ROUGH["step"], roots)
    assert passes <= 12
    assert bool(((high - low).double() <= 1 / CELLS + 1e-9).all())
    assert bool((low < high).all())


@pytest.mark.parametrize("seed", range(10))
def test_any_scores_end_in_a_cell_with_a_right_and_a_wrong_end(seed: int) -> None:
    # Right and wrong at random, whatever the score says: the boundary is met many times.
    generator = seeded(seed)
    right = torch.rand(CELLS + 1, generator=generator) < 0.5
    right[0], right[-1] = True, False
    table = torch.randn(CELLS + 1, generator=generator, dtype=torch.float64)
    table[0], table[-1] = 1, -1

    def model(x: Tensor) -> Tensor:
        cell = (x[:, 0] * CELLS).round().long()
        return torch.stack([table[cell], right[cell].double()], 1)

    ends = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    low, high = search_boundary(
        model, *ends, torch.tensor([0]), (table[:1], table[-1:]), task=Given(), bounds=None
    )
    cells = [round(float(end) * CELLS) for end in (low, high)]
    assert cells[1] - cells[0] == 1
    assert bool(right[cells[0]])
    assert not bool(right[cells[1]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_inputs_that_are_not_finite_are_refused(
    value: float, dtype: torch.dtype, bounds: tuple[float, float] | None
) -> None:
    x = torch.full((3, 2, 4), 0.5, dtype=dtype)
    check_samples(x, bounds)
    x[1, 1, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_samples(x, bounds)
