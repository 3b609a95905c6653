"""What the comparison methods compute, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import Line, Linear2, mlp, seeded
from torch import Tensor, nn

from ima import (
    ATES,
    FAT,
    GAIRAT,
    IAAT,
    MART,
    MMA,
    TRADES,
    Classification,
    CurriculumAT,
    CustomizedAT,
)
from ima.methods import METHODS
from ima.methods.ates import difficulty, gap
from ima.methods.curriculum import chunks
from ima.methods.customized import dirichlet, soft_labels
from ima.methods.dat import fosc, threshold
from ima.methods.fat import dynamic_tau
from ima.methods.gairat import gairat_weights
from ima.methods.iaat import adapted
from ima.methods.mart import mart_loss
from ima.methods.mma import bisect
from ima.norms import L2, LINF

TASK = Classification()
Z = torch.tensor([Line.z], dtype=torch.float64)
Z_NOISY = torch.tensor([Line.z_noisy], dtype=torch.float64)
Y = torch.tensor([0])


def near(value: float | Tensor, rel: float = 1e-8) -> Any:
    return pytest.approx(float(value), rel=rel)


def test_divergence_and_trades_loss() -> None:
    kl = TASK.divergence(Z, Z_NOISY)
    assert float(kl) == near(0.4219152477)
    assert float(TASK.divergence(Z_NOISY, Z)) == near(0.3945426878)
    assert float(TASK.loss(Z, Y) + 6 * kl) == near(2.9716811849)


def test_trades_reaches_the_loss_of_the_example() -> None:
    # At eps 1 the walk ends at x = 1 or x = -1, as its tiny start leads it.
    behind = float(TASK.loss(Z, Y) + 6 * TASK.divergence(Z, 2 * Z - Z_NOISY))
    reached: set[float] = set()
    for seed in range(8):
        method = TRADES(eps=1.0, beta=6.0, steps=20, seed=seed)
        step = method(Line(), torch.zeros(1, 1, dtype=torch.float64), Y, torch.tensor([0]))
        loss = float(step.loss.detach())
        reached |= {end for end in (2.9716811849, behind) if loss == near(end)}
    assert reached == {2.9716811849, behind}


def test_mart_loss() -> None:
    assert float(mart_loss(Z, Z_NOISY, Y, 5.0)) == near(3.1764093419)
    assert float(mart_loss(Z, Z_NOISY, Y, 0.0)) == near(2.4252193257)
    weighted = mart_loss(Z, Z_NOISY, Y, 1.0) - mart_loss(Z, Z_NOISY, Y, 0.0)
    assert float(weighted / TASK.divergence(Z, Z_NOISY)) == near(0.3560857401)
    # With two classes the boosted term is twice the cross-entropy.
    clean, noisy = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.9]])
    boosted = mart_loss(clean, clean, Y, 5.0)
    assert float(boosted) == near(2 * TASK.loss(clean, Y), 1e-6)
    assert float(mart_loss(clean, noisy, Y, 1e-9)) == near(2 * TASK.loss(noisy, Y), 1e-6)


@pytest.mark.parametrize("large", [200.0, 1e4])
@pytest.mark.parametrize("wrong_side", ["clean", "noisy", "both"])
def test_probabilities_of_exactly_zero_give_finite_gradients(large: float, wrong_side: str) -> None:
    far, near_ = torch.tensor([[-large, large, 0.0]]), torch.tensor([[0.3, 0.1, 0.2]])
    clean = (far if wrong_side != "noisy" else near_).clone().requires_grad_()
    noisy = (far if wrong_side != "clean" else near_).clone().requires_grad_()
    assert float(far.softmax(1).min()) == 0
    for loss in (mart_loss(clean, noisy, Y, 5.0), TASK.divergence(clean, noisy).sum()):
        for gradient in torch.autograd.grad(loss, (clean, noisy)):
            assert bool(torch.isfinite(gradient).all())
        assert math.isfinite(float(loss.detach()))


@pytest.mark.parametrize("masked", ["clean", "noisy", "both"])
def test_a_class_that_a_model_rules_out_counts_as_a_probability_of_zero(masked: str) -> None:
    ruled_out = torch.tensor([[0.3, 0.1, -math.inf]])
    clean = torch.tensor([[0.5, 0.1, -200.0]]) if masked == "noisy" else ruled_out
    noisy = torch.tensor([[0.1, 0.4, -200.0]]) if masked == "clean" else 2 * ruled_out
    rest = TASK.divergence(clean[:, :2], noisy[:, :2])
    assert float(TASK.divergence(clean, noisy)) == near(float(rest), 1e-6)
    clean, noisy = clean.clone().requires_grad_(), noisy.clone().requires_grad_()
    for loss in (mart_loss(clean, noisy, Y, 5.0), TASK.divergence(clean, noisy).sum()):
        for gradient in torch.autograd.grad(loss, (clean, noisy)):
            assert bool(torch.isfinite(gradient).all())
        assert math.isfinite(float(loss.detach()))


def test_mart_of_a_prediction_without_doubt() -> None:
    for y, lead in ((0, [5.0, -math.inf]), (1, [-math.inf, 5.0])):
        logits = torch.tensor([lead], requires_grad=True)
        loss = mart_loss(logits, logits, torch.tensor([y]), 5.0)
        assert float(loss.detach()) == 0
        assert bool(torch.isfinite(torch.autograd.grad(loss, logits)[0]).all())


SURE = {
    "one logit": ([[20.0], [-20.0]], [[20.5], [-21.0]]),
    "two logits": ([[0.0, 20.0], [21.0, 0.5]], [[0.3, 20.5], [20.0, 0.1]]),
    "three logits": ([[20.0, 0.0, 0.5], [-1.0, 21.0, 0.0]], [[20.5, 0.1, 0.2], [-1.2, 20.0, 0.3]]),
}
"""Logits of two samples without and with noise, the true class (1, 0 or 0, 1) far ahead."""


@pytest.mark.parametrize("kind", SURE)
def test_the_slope_of_a_confident_prediction_keeps_all_its_terms(kind: str) -> None:
    # From a margin of 17 on float32 holds no probability between that of the true class and 1.
    slopes = []
    custom = CustomizedAT(num_samples=2, eps=1.0)
    for dtype in (torch.float32, torch.float64):
        clean, noisy = (torch.tensor(z, dtype=dtype).requires_grad_() for z in SURE[kind])
        y = TASK.predict(clean)
        hard = torch.eye(2 if kind == "one logit" else noisy.shape[1])[y]
        both = TASK.divergence(clean.detach(), noisy), custom._losses(noisy, [hard, y])
        slopes += [torch.autograd.grad(raised.sum(), noisy)[0].double() for raised in both]
    for narrow, wide in zip(slopes[:2], slopes[2:], strict=True):
        assert bool((wide != 0).all())
        torch.testing.assert_close(narrow / wide, torch.ones_like(wide), rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("kind", [TRADES, MART])
def test_a_step_with_probabilities_of_exactly_zero_is_finite(kind: Any, norm: float) -> None:
    method = kind(eps=0.1, norm=norm)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        model[1].weight.mul_(1e4)
    x = torch.rand(8, 6, generator=seeded(0))
    y = torch.arange(8) % 3
    assert bool((model(x).softmax(1) == 0).any())
    method(model, x, y, torch.arange(8)).loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_soft_margins() -> None:
    assert float(-TASK.soft_margin(Z, Y)) == near(-0.5923940356)
    assert float(-TASK.soft_margin(Z_NOISY, Y)) == near(1.2663678998)
    unsure = torch.tensor([[1, 0.9, 0.8, 0.7]], dtype=torch.float64)
    assert float(-TASK.soft_margin(unsure, Y)) == near(0.9019428482)
    assert float(TASK.score(unsure, Y)) == near(0.1)
    assert float(unsure.softmax(1)[0, 0]) == pytest.approx(0.2887, abs=5e-5)
    assert bool(TASK.correct(unsure, Y))
    method = MMA(num_samples=1, eps=3.0)
    step = method(_Always(unsure), torch.zeros(1, 1, dtype=torch.float64), Y, torch.tensor([0]))
    assert int(step.metrics["noisy_samples"]) == 0  # right, and yet wrong for MMA


class _Always(nn.Module):
    """The same logits wherever it is asked."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.z + 0 * x.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("boundary", "first", "found"),
    [
        (1.3, 0.5, 1.299658203125),
        (1.3, 2.0, 1.298828125),
        (math.inf, 0.5, 3.147412109375),
        (0.2, 0.5, 0.19970703125),
    ],
)
def test_mma_bisection(boundary: float, first: float, found: float) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), x - min(boundary, 1e6)], 1)

    x, along = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    radius = torch.tensor([first], dtype=torch.float64)
    e = bisect(model, TASK, x, Y, along, first * along, radius, 3.15, None)
    assert float(e) == found


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("smallest", [1 / 6, 1 / 20])
@pytest.mark.parametrize(("random_start", "most"), [(True, 0.03), (False, 0.005)])
def test_mma_margins_of_a_linear_classifier_are_its_distances(
    norm: float, smallest: float, random_start: bool, most: float
) -> None:
    # MMA's own settings: a random start, 20 steps of 2.5 / 20 of the previous margin, and a
    # smallest radius of a sixth of the largest; with a smaller one the walk has farther to go.
    dims, count = 24, 60
    model = Linear2(dims, seed=1)
    x = 0.3 * torch.randn(count, dims, generator=seeded(2))
    y = model.labels(x)
    distance = model.distance(x, 2.0 if norm == 2 else 1.0)
    eps = float(distance.max()) * 1.1
    settings = {"eps": eps, "eps_min": smallest * eps, "norm": norm}
    method = MMA(num_samples=count, random_start=random_start, **settings)
    for _ in range(6):
        method(model, x, y, torch.arange(count))
    error = (method.margins.values - distance).abs().mean() / distance.mean()
    assert float(error) < most


def test_mma_leaves_out_samples_beyond_its_limit_but_counts_them() -> None:
    model = Linear2(4, seed=3)
    x = torch.randn(2, 4, generator=seeded(1))
    y = model.labels(x)
    distance = model.distance(x, 2.0)
    eps = float(distance.min() + distance.max()) / 2  # one nearer, one beyond
    method = MMA(num_samples=2, eps=eps, eps_min=eps / 10, random_start=False, steps=40)
    step = method(model, x, y, torch.arange(2))
    clean = TASK.loss(model(x), y)
    # On the boundary the two probabilities are a half: the loss there is log 2.
    expected = 2 / 3 * math.log(2) / 2 + float(clean.detach().mean()) / 3
    assert float(step.loss.detach()) == near(expected, 5e-3)
    assert int(step.metrics["crossed"]) == 1


def test_difficulty_and_gap_of_ates() -> None:
    assert float(difficulty(TASK, Z, Y)) == near(-0.4070314418)
    assert float(difficulty(TASK, Z_NOISY, Y)) == near(0.3778151928)
    gaps = [gap(e, 100, 0.0, 0.4, 0.3, 0.7) for e in (0, 29, 30, 49, 69, 99)]
    assert gaps == pytest.approx([0, 0, 0.01, 0.2, 0.4, 0.4])


def test_ates_with_the_widest_gap_takes_all_steps_and_with_the_least_none() -> None:
    x, y = torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    losses = {}
    for level in (-1.0, 0.0, 1.0):
        method = ATES(eps=1.0, initial=level, final=level, steps=10)
        losses[level] = float(method(Line(), x, y, torch.arange(3)).loss.detach())
    assert losses[-1.0] < losses[0.0] < losses[1.0]
    assert losses[1.0] == near(1.5146749655)  # the whole way: x = 1


def test_gairat_weights() -> None:
    kappa = torch.tensor([0, 5, 10, 20], dtype=torch.float64)
    weights = gairat_weights(kappa, 20, -1.0)
    expected = torch.tensor([1.93036895, 1.83943637, 0.23018281, 1.1864503e-5]).double()
    torch.testing.assert_close(weights, expected, rtol=1e-7, atol=0)
    # In float32 (1 + tanh) / 2 has lost 8e-4 of the last weight.
    single = gairat_weights(kappa.float(), 20, -1.0)
    torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=0)


@given(
    kappa=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    lam=st.floats(-200, 200),
)
def test_gairat_weights_have_mean_one(kappa: list[int], lam: float) -> None:
    weights = gairat_weights(torch.tensor(kappa), 20, lam)
    assert float(weights.mean()) == near(1.0, 1e-5)
    assert bool((weights >= 0).all())


SEQUENCE = "TTTFTFFFFF"
"""Whether the iterates x^0 ... x^9 are right."""


class _Played(nn.Module):
    """Right or wrong as the sequence says, at its n-th walking pass; logits follow x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.ones(1)), -2

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return torch.cat([-x, x], 1) * self.scale
        self.calls += 1  # the first pass is at the clean sample, before the walk
        right = self.calls < 0 or SEQUENCE[self.calls] == "T"
        # The gradient leads up in x, whatever the decision.
        level = 5.0 if right else -5.0
        return torch.cat([level - 1e-3 * x, 1e-3 * x], 1)


class _Plain(FAT):
    """From the clean sample, in ten steps of a tenth of eps."""

    def uniform_start(self, x: Tensor, radius: Tensor, box: Any) -> Tensor:
        return x

    def walk(self, *args: Any, **more: Any) -> Any:
        model, x, y, radius, stride, box = args
        return super().walk(model, x, y, radius, stride / 4, box, **more)


@pytest.mark.parametrize(("tau", "stops"), list(enumerate([3, 5, 6, 7, 8, 9, 10, 10])))
def test_fat_stops_at_the_right_iterate(tau: int, stops: int) -> None:
    method = _Plain(eps=1.0, tau=tau, omega=0.0, steps=10)
    model, trained = _Played().double(), []
    model.register_forward_pre_hook(
        lambda m, args: trained.append(float(args[0].detach())) if m.training else None
    )
    method(model, torch.zeros(1, 1, dtype=torch.float64), Y, torch.tensor([0]))
    assert trained == [near(0.1 * stops)]


def test_gairat_counts_right_iterates(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []

    def weights(kappa: Tensor, steps: int, lam: float) -> Tensor:
        counted.append(float(kappa))
        return gairat_weights(kappa, steps, lam)

    monkeypatch.setattr("ima.methods.gairat.gairat_weights", weights)
    method = GAIRAT(eps=1.0, begin=0, steps=10)
    method(_Played().double(), torch.zeros(1, 1, dtype=torch.float64), Y, torch.tensor([0]))
    assert counted == [4]  # by the first crossing it would be 3


def test_dynamic_tau_of_fat() -> None:
    assert [dynamic_tau(e, 120) for e in (0, 49, 50, 89, 90, 119)] == [0, 0, 1, 1, 2, 2]
    assert [sum(dynamic_tau(e, n) == 0 for e in range(n)) for n in (300, 60, 100)] == [125, 25, 41]
    assert [sum(dynamic_tau(e, n) < 2 for e in range(n)) for n in (300, 60, 100)] == [225, 45, 75]


def test_schedules_stand_at_their_start_in_the_first_epoch() -> None:
    x, y, ids = torch.rand(4, 6, generator=seeded(0)), torch.tensor([0, 1, 2, 0]), torch.arange(4)
    for method, same in (
        (FAT(eps=0.5, tau="dynamic"), FAT(eps=0.5, tau=0)),
        (GAIRAT(eps=0.5), GAIRAT(eps=0.5, begin=9)),
        (ATES(eps=0.5), ATES(eps=0.5, final=0.0)),
    ):
        model = mlp((6,), 3)
        one, other = method(model, x, y, ids), same(model, x, y, ids)
        assert float(one.metrics["loss"]) == float(other.metrics["loss"])


def test_fosc_and_threshold_of_dat() -> None:
    g, d = torch.tensor([[3.0, -4.0, 0.0]]), torch.tensor([[0.1, -0.2, 0.05]])
    assert float(fosc(g, d, 0.3, LINF)) == near(1.0, 1e-6)
    assert float(fosc(g, d, 0.5, L2)) == near(1.4, 1e-6)
    levels = [threshold(e, 120, 0.5) for e in (0, 50, 99, 100)]
    assert levels == pytest.approx([0.5, 0.25, 0.005, 0.0])


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_fosc_is_not_negative_inside_the_ball(g: list[float], d: list[float]) -> None:
    gradient, offset = torch.tensor([g]).double(), torch.tensor([d]).double()
    for norm in (L2, LINF):
        eps = float(norm.size(offset)) + 0.1
        assert float(fosc(gradient, offset, eps, norm)) >= -1e-9


def test_iaat_rule() -> None:
    previous, yes, no = torch.tensor([2.0]), torch.tensor([True]), torch.tensor([False])
    for right, held, more, expected in (
        (yes, yes, yes, 2.05),
        (yes, yes, no, 2.0),
        (yes, no, no, 1.95),
        (no, yes, yes, 1.8),
        (yes, no, yes, 2.05),  # the larger radius decides, whatever the smaller one does
    ):
        assert float(adapted(previous, right, held, more, 0.5, 0.1)) == near(expected, 1e-6)


def test_iaat_warms_up_with_one_radius() -> None:
    model = Linear2(4, seed=3)
    x = torch.randn(6, 4, generator=seeded(1))
    y = model.labels(x)
    y[0] = 1 - y[0]
    method = IAAT(num_samples=6, eps=4.0, initial=1.0)
    method(model, x, y, torch.arange(6))
    assert method.margins.values.tolist() == [0, 1, 1, 1, 1, 1]


def test_chunks_of_the_curriculum() -> None:
    assert chunks(10, 0).tolist() == [0] * 10
    assert chunks(10, 3).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert chunks(3, 5).tolist() == [5, 5, 5]


def test_the_curriculum_grows_with_success_and_with_patience() -> None:
    method = CurriculumAT(eps=1.0, steps=3, threshold=0.9, patience=2)
    strengths = []
    for right in (50, 60, 60, 55, 95, 10, 10, 5, 99, 99):
        method.lesson.right, method.lesson.seen = right, 100
        method.end_epoch(len(strengths), 10)
        strengths.append(method.lesson.strength)
    #     best, better, stale 1, stale 2: up, above 0.9: up, ...; never beyond `steps`
    assert strengths == [0, 0, 0, 1, 2, 2, 2, 3, 3, 3]


def test_soft_labels_of_customized_training() -> None:
    draw = torch.tensor([[0.1, 0.2, 0.7]])
    label = soft_labels(torch.tensor([2]), draw, torch.tensor([10 * 0.01]))
    torch.testing.assert_close(label, torch.tensor([[0.01, 0.02, 0.9 + 0.1 * 0.7]]))
    draws = dirichlet(torch.empty(4000, 3), seeded(0))
    torch.testing.assert_close(draws.sum(1), torch.ones(4000))
    torch.testing.assert_close(draws.mean(0), torch.full((3,), 1 / 3), rtol=0.03, atol=0)
    # Dirichlet(1, 1, 1) has variance 1 / 18 in every entry.
    torch.testing.assert_close(draws.var(0), torch.full((3,), 1 / 18), rtol=0.08, atol=0)


def test_customized_radii_grow_to_the_boundary_and_no_further() -> None:
    model = Linear2(8, seed=5)
    x = torch.randn(20, 8, generator=seeded(1))
    y = model.labels(x)
    distance = model.distance(x, 2.0)
    eta = float(distance.mean()) / 20
    method = CustomizedAT(num_samples=20, eps=float(distance.max()) * 2, eta=eta)
    # Without random labels: those of unsure samples may lead away from the boundary.
    method.softness = 0.0
    for _ in range(80):
        method(model, x, y, torch.arange(20))
    gap_ = distance - method.margins.values
    assert float(gap_.min()) > -1e-4
    assert float(gap_.max()) <= eta * 1.001


def test_the_readme_lists_every_method() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    for row in METHODS.values():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{row.name}` |")]
        assert row.summary.rstrip(".").lower() in line.lower()
        assert (row.paper in line) or row.paper == "-"
        assert line.endswith("| yes |") == row.segmentation
