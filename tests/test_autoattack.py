"""AutoAttack: the right parts run, on any classifier, and nothing counts that is not true."""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nets import Linear2, cnn, mlp, seeded
from own_norms import summed
from pyautoattack import AutoAttack, checks
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Segmentation, evaluate
from ima.evaluation import autoattack as module
from ima.evaluation.attacks import find_attack
from ima.evaluation.autoattack import attack_parts, describe_parts
from ima.evaluation.lifted import layout
from ima.evaluation.results import Results
from ima.norms import L2, LINF, Norm, get_norm

CE, DLR, T, MARGIN, FAB, SQUARE = "apgd-ce", "apgd-dlr", "apgd-t", "apgd-margin", "fab-t", "square"

# --- Its losses -----------------------------------------------------------------------------------


def test_its_losses_by_hand() -> None:
    # Two samples of class 0, with class 1 as the target of the targeted loss.
    z = torch.tensor([[2, 1, 0, -1], [0.5, 1.5, 0, -1]], dtype=torch.float64)
    y = torch.zeros(2, dtype=torch.long)
    plain = APGDAttack(lambda x: x, eps=1.0, device="cpu").dlr_loss(z, y)
    assert plain.tolist() == pytest.approx([-0.5, 2 / 3], rel=1e-9)
    attack = APGDAttack_targeted(lambda x: x, eps=1.0, device="cpu")
    attack.y_target = y + 1
    assert attack.dlr_loss_targeted(z, y).tolist() == pytest.approx([-0.4, 0.5], rel=1e-9)


# --- What runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "plain", "plus"),
    [
        (2, (CE, SQUARE), (CE, SQUARE, MARGIN, FAB)),
        (3, (CE, DLR, FAB, SQUARE), (CE, DLR, FAB, SQUARE, MARGIN)),
        (4, (CE, T, FAB, SQUARE), (CE, T, FAB, SQUARE, MARGIN)),
        (10, (CE, T, FAB, SQUARE), (CE, T, FAB, SQUARE, MARGIN)),
        (1000, (CE, T, FAB, SQUARE), (CE, T, FAB, SQUARE, MARGIN)),
    ],
)
def test_the_number_of_classes_decides_the_parts(
    classes: int, plain: tuple[str, ...], plus: tuple[str, ...]
) -> None:
    assert attack_parts("autoattack", classes) == plain
    assert attack_parts("autoattack+", classes) == plus


@pytest.mark.parametrize(
    ("shape", "norm", "expected"),
    [
        ((3, 32, 32), L2, (3, 32, 32)),
        ((1, 224, 224), L2, (1, 224, 224)),
        ((1, 2, 3), LINF, (1, 2, 3)),
        ((36,), L2, (1, 6, 6)),
        ((50,), L2, (1, 5, 10)),
        ((49,), LINF, (1, 7, 7)),
        ((7,), LINF, (1, 1, 7)),
        ((2, 64), L2, (2, 8, 8)),
        ((2, 3, 8, 8), L2, (6, 8, 8)),
        # The library's tiles of 2 do not fit into 12 or 14 pixels; other shapes of that size do.
        ((1, 12, 12), L2, (1, 9, 16)),
        ((1, 12, 12), LINF, (1, 12, 12)),
        ((1, 14, 14), L2, (1, 7, 28)),
        # Square's L2 noise needs five rows and five columns.
        ((7,), L2, None),
        ((1, 4, 4), L2, None),
        ((), L2, None),
    ],
)
def test_square_gets_a_layout_that_it_can_attack(
    shape: tuple[int, ...], norm: Norm, expected: tuple[int, int, int] | None
) -> None:
    assert layout(shape, norm) == expected
    if expected is None:
        assert SQUARE not in attack_parts("autoattack+", 2, shape, norm)
        assert "left out, samples too small: square" in describe_parts("autoattack", 2, shape, norm)
    else:
        assert describe_parts("autoattack", 2, shape, norm) == "apgd-ce, square"


def test_autoattack_takes_no_number_of_steps() -> None:
    for name in ("autoattack", "autoattack+"):
        row, steps = find_attack(name)
        assert (row.name, row.label, steps) == (name, name, 0)
        with pytest.raises(ValueError, match=r"unknown attack.*autoattack"):
            find_attack(f"{name}-100")
    assert find_attack("pgd")[0].label == "pgd-100"


def test_budgets_are_read_when_an_attack_begins(short: None) -> None:
    budgets = {SQUARE: ("n_queries", 40), CE: ("n_iter", 12), FAB: ("n_iter", 12)}
    for part, (name, budget) in budgets.items():
        lifted: Any = lambda x: x  # noqa: E731
        lifted.classes = 3
        assert getattr(module._BUILD[part](lifted, eps=0.1), name) == budget


# --- Every kind of classifier ---------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets that are enough for small nets."""
    monkeypatch.setattr(module, "ITERATIONS", 12)
    monkeypatch.setattr(module, "_QUERIES", 40)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What was built in the library: the part's name and the attack."""
    built: list[tuple[str, Any]] = []

    def recorded(name: str, build: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            built.append((name, build(*args, **options)))
            return built[-1][1]

        return wrapped

    table = {name: recorded(name, build) for name, build in module._BUILD.items()}
    monkeypatch.setattr(module, "_BUILD", table)
    return built


def said(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        z = model.eval()(x)
        return (z.reshape(-1) > 0).long() if z.ndim == 1 or z.shape[1] == 1 else z.argmax(1)


class Logit(nn.Module):
    """One logit without a dimension for it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).reshape(-1)


CASES: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "one logit": (mlp((8,), 1), (8,), 2),
    "one logit, flat": (Logit(mlp((8,), 1)), (8,), 2),
    "vectors, two classes": (mlp((30,), 2), (30,), 2),
    "images, three classes": (cnn(), (1, 6, 6), 3),
    "images, five classes": (cnn(outputs=5, batch_norm=True), (1, 6, 6), 5),
    "images, twelve classes": (cnn(channels=3, outputs=12), (3, 6, 6), 12),
    "images in channels last": (
        cnn(channels=3).to(memory_format=torch.channels_last),
        (3, 6, 6),
        3,
    ),
    "volumes": (cnn(dims=3), (1, 6, 6, 6), 3),
    "signals": (cnn(dims=1, channels=2), (2, 15), 3),
    "100 classes": (mlp((25,), 100), (25,), 100),
    "double precision": (mlp((8,), 4).double(), (8,), 4),
}
WIDTHS = {"one logit": (-2.0, 6.0), "volumes": (torch.tensor(0.0), torch.tensor(1.0))}


@pytest.mark.parametrize("norm", [2, "linf"])
@pytest.mark.parametrize("case", CASES)
def test_every_classifier_is_attacked(
    case: str, norm: float | str, short: None, ran: list[tuple[str, Any]]
) -> None:
    model, shape, classes = CASES[case]
    bounds = WIDTHS.get(case, (0.0, 1.0))
    x = torch.rand(9, *shape, generator=seeded(3)).to(next(model.parameters()).dtype)
    y = said(model, x)
    y[0] = (y[0] + 1) % classes
    eps = [0.02, 0.6] if norm == 2 else [0.004, 0.1]
    kept: list[Any] = []
    results = evaluate(
        model,
        TensorDataset(x, y),
        eps,
        ["autoattack", "autoattack+"],
        norm=norm,
        bounds=bounds,
        keep=kept.append,
    )
    for name in ("autoattack", "autoattack+"):
        expected = attack_parts(name, classes, shape, get_norm(norm))
        assert results.settings.attacks[name].split("; ")[0] == ", ".join(expected)
        assert results.accuracy(name, eps[0]) >= results.accuracy(name, eps[1])
    assert results.accuracy("autoattack+", eps[1]) <= results.accuracy("autoattack", eps[1])
    assert results.accuracy("autoattack+", eps[1]) < results.accuracy()
    # All parts ran at the small radius, which leaves samples standing, in their order.
    count = len(attack_parts("autoattack", classes, shape, get_norm(norm)))
    assert tuple(name for name, _ in ran[:count]) == attack_parts(
        "autoattack", classes, shape, get_norm(norm)
    )
    width = float(bounds[1] - bounds[0])
    for name, attack in ran:
        assert attack.eps in {e / width for e in eps}
        if name in (T, FAB):
            assert attack.n_target_classes == min(9, classes - 1)
        if name != SQUARE:
            assert attack.n_iter == 12 and attack.n_restarts == 1
    size = get_norm(norm).size
    for e in kept:
        away = float(size((e.noisy - e.clean)[None]))
        assert away <= e.eps * (1 + 1e-5) + 1e-6
        assert bounds[0] <= float(e.noisy.min()) and float(e.noisy.max()) <= bounds[1]
        assert int(said(model, e.noisy[None])) == int(e.predicted)
    for row in results.rows:
        assert row.broken == (row.more["prediction"] != row.more["label"])
        assert row.attack == "clean" or math.isnan(row.size) != row.broken


# --- What is known --------------------------------------------------------------------------------


def linear(dims: int, norm: float | str, one_logit: bool) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A linear model, samples far from the bounds (-20, 20), labels and distances."""
    model = Linear2(dims, one_logit=one_logit)
    x = 4 * torch.rand(60, dims, generator=seeded(5)) - 2
    return model, x, model.labels(x), model.distance(x, 2.0 if norm == 2 else 1.0)


@pytest.mark.parametrize("norm", [2, "linf"])
@pytest.mark.parametrize("one_logit", [False, True])
@pytest.mark.parametrize("name", ["autoattack", "autoattack+"])
def test_a_linear_model_loses_exactly_the_samples_within_the_radius(
    norm: float | str, one_logit: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUERIES", 20)
    model, x, y, distance = linear(30, norm, one_logit)
    radii = [float(distance.quantile(q)) * 1.0001 for q in (0.25, 0.5, 0.75)]
    assert all(float((distance / radius - 1).abs().min()) > 2e-5 for radius in radii)
    results = evaluate(model, TensorDataset(x, y), radii, [name], norm=norm, bounds=(-20, 20))
    for radius in radii:
        broken = results.broken(name, radius)
        assert [broken[i] for i in range(60)] == (distance < radius).tolist()
    for row in results.rows:
        if row.attack == name and row.broken:
            assert float(distance[row.id]) * (1 - 1e-4) <= row.size <= row.eps * (1 + 1e-5)


@pytest.mark.parametrize("part", [CE, MARGIN, FAB])
@pytest.mark.parametrize("norm", [2, "linf"])
def test_each_gradient_part_alone_finds_what_is_there(
    part: str, norm: float | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STANDARD", {2: (part,)})
    model, x, y, distance = linear(30, norm, False)
    # FAB comes within a percent of the boundary: a radius in the widest gap between distances.
    middle = distance.sort().values[20:40]
    at = int((middle[1:] / middle[:-1]).argmax())
    radius = float(middle[at : at + 2].mean())
    assert float((distance / radius - 1).abs().min()) > 0.01
    results = evaluate(
        model, TensorDataset(x, y), radius, "autoattack", norm=norm, bounds=(-20, 20)
    )
    broken = results.broken("autoattack", radius)
    assert [broken[i] for i in range(60)] == (distance < radius).tolist()


def test_a_scale_of_bounds_changes_nothing(short: None) -> None:
    class Scaled(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x + 3) / 8)

    model = cnn()
    x = torch.rand(12, 1, 6, 6, generator=seeded(2))
    y = said(model, x)
    plain = evaluate(model, TensorDataset(x, y), [0.25], "autoattack", bounds=(0, 1))
    low = torch.full((1, 1, 6), -3.0)
    scaled = evaluate(
        Scaled(model), TensorDataset(8 * x - 3, y), [2.0], "autoattack", bounds=(low, low + 8)
    )
    assert plain.broken("autoattack", 0.25) == scaled.broken("autoattack", 2.0)
    assert 0 < plain.accuracy("autoattack", 0.25) < 1


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network that knows the digits, and test samples of them."""
    from ima.data import load
    from ima.networks.small_cnn import small_cnn

    torch.manual_seed(0)
    splits = load("digits")
    model = small_cnn(1, 10, width=8)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    x, y = splits.train[torch.arange(len(splits.train))]
    for _ in range(12):
        for ids in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[ids]), y[ids]).backward()
            optimizer.step()
    return model.eval(), *splits.test[torch.arange(32)]


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_it_agrees_with_the_library(
    norm: str, digits: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = digits
    eps = 0.6 if norm == "L2" else 0.1
    # It would switch off whatever traces the tests, and it is not what is compared.
    monkeypatch.setattr(checks, "check_dynamic", lambda *_, **__: None)
    monkeypatch.setattr(module, "_QUERIES", 100)
    options: dict[str, Any] = {"norm": norm, "eps": eps, "seed": 0, "version": "standard"}
    library: Any = AutoAttack(model, **options)
    library.square.n_queries = 100
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    noisy, _ = library.run_standard_evaluation(x, y, batch_size=len(x))
    expected = said(model, noisy) == y
    results = evaluate(model, TensorDataset(x, y), eps, "autoattack", norm=norm, bounds=(0, 1))
    found = results.broken("autoattack", eps)
    assert 0.1 < float(expected.float().mean()) < 0.9
    assert abs(results.accuracy("autoattack", eps) - float(expected.float().mean())) <= 0.005
    assert [not found[i] for i in range(len(x))] == expected.tolist()


# --- Nothing on trust -----------------------------------------------------------------------------


class Liar:
    """Says of every image that it found something."""

    def __init__(self, lie: Callable[[Tensor], Tensor]) -> None:
        self.lie = lie

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        return self.lie(x)


LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda x: torch.full_like(x, math.nan),
    "infinity": lambda x: torch.full_like(x, math.inf),
    "one NaN": lambda x: x.clone().index_fill_(3, torch.tensor(0), math.nan),
    "nothing": lambda x: x,
    "outside the bounds": lambda x: x + 1000 * (x - 0.5).sign(),
    "outside the ball": lambda x: torch.rand(x.shape, generator=seeded(1)),
    "nearly in the ball": lambda x: (
        x + 1.01 / 40 * math.sqrt(x[0].numel()) * torch.randn(x.shape, generator=seeded(1)).sign()
    ),
}


@pytest.mark.parametrize("norm", [2, "linf"])
@pytest.mark.parametrize("lie", LIES)
def test_an_attack_that_lies_breaks_nothing_beyond_the_radius(
    lie: str, norm: float | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {name: lambda *_, **__: Liar(LIES[lie]) for name in module._BUILD}
    monkeypatch.setattr(module, "_BUILD", table)
    model, x, y, distance = linear(30, norm, False)
    radius = float(distance.median()) * 1.0001
    results = evaluate(
        model, TensorDataset(x, y), radius, "autoattack", norm=norm, bounds=(-20, 20)
    )
    broken = results.broken("autoattack", radius)
    assert not any(broken[i] for i in range(60) if float(distance[i]) >= radius)
    for row in results.rows:
        if row.broken:
            assert float(distance[row.id]) * (1 - 1e-4) <= row.size <= radius * (1 + 1e-5)
    if lie in ("NaN", "infinity", "one NaN", "nothing"):
        assert not any(broken.values())


def test_noise_outside_the_bounds_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Edge(nn.Module):
        """Class 1 begins beyond the bounds (0, 1), within the ball."""

        def forward(self, x: Tensor) -> Tensor:
            return 100 * (x.mean(1) - 1.0001)

    table = {name: lambda *_, **__: Liar(lambda x: x + 0.5) for name in (CE, SQUARE)}
    monkeypatch.setattr(module, "_BUILD", table)
    data = TensorDataset(torch.full((5, 30), 0.9), torch.zeros(5, dtype=torch.long))
    for norm, eps in (("linf", 0.5), ("L2", 5.0)):
        narrow = evaluate(Edge(), data, eps, "autoattack", norm=norm, bounds=(0, 1))
        assert narrow.accuracy() == narrow.accuracy("autoattack", eps) == 1
        wide = evaluate(Edge(), data, eps, "autoattack", norm=norm, bounds=(0, 2))
        assert wide.accuracy("autoattack", eps) == 0


# --- What it leaves behind ------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_it_leaves_no_trace(
    fails: bool,
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(torch.rand(4, 1, 6, 6)).sum().backward()
    if fails:
        monkeypatch.setattr(module, "brought_in", lambda *_: 1 / 0)
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    wanted = [p.requires_grad for p in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    trace = sys.gettrace()
    data = TensorDataset(torch.rand(12, 1, 6, 6, generator=seeded(0)), torch.arange(12) % 3)

    with torch.inference_mode():
        if fails:
            with pytest.raises(ZeroDivisionError):
                evaluate(model, data, [0.01, 0.1], "autoattack+", bounds=(0, 1))
        else:
            evaluate(model, data, [0.01, 0.1], "autoattack+", bounds=(0, 1))

    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for parameter, old in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(parameter.grad, old)
    assert wanted == [p.requires_grad for p in model.parameters()]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert sys.gettrace() is trace
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_same_seed_gives_the_same_rows_whatever_ran_before(short: None) -> None:
    x = torch.rand(10, 1, 6, 6, generator=seeded(0))
    data = TensorDataset(x, said(cnn(), x))

    def rows(*attacks: str, seed: int = 3) -> list[str]:
        found: Results = evaluate(cnn(), data, [0.1, 0.3], attacks, bounds=(0, 1), seed=seed)
        return [repr(row) for row in found.rows if row.attack == "autoattack"]

    first = rows("autoattack")
    torch.manual_seed(1234)
    assert rows("pgd-3", "autoattack") == first
    assert rows("autoattack", seed=4) != first


def test_outputs_that_the_model_still_uses_are_not_written_to(short: None) -> None:
    class Cached(nn.Module):
        """Returns views of a tensor that it keeps."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = mlp((30,), 3), torch.zeros(1)

        def forward(self, x: Tensor) -> Tensor:
            assert bool(torch.isfinite(self.last).all())
            self.last = self.body(x)
            return self.last[:, :]

    model = Cached()
    x = torch.rand(6, 30, generator=seeded(0))
    evaluate(model, TensorDataset(x, said(model, x)), [0.01], "autoattack", bounds=(0, 1))
    assert bool(torch.isfinite(model.last).all())


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (None, "needs bounds"),
        ((-math.inf, math.inf), "finite width"),
        ((torch.zeros(8), torch.arange(1.0, 9.0)), "one finite width"),
    ],
)
@pytest.mark.parametrize("name", ["autoattack", "autoattack+"])
def test_data_without_one_range_is_refused(bounds: Any, words: str, name: str) -> None:
    x = torch.rand(4, 8, generator=seeded(0))
    data = TensorDataset(x, said(mlp((8,)), x))
    with pytest.raises(ValueError, match=words):
        evaluate(mlp((8,)), data, [0.1], ["pgd-2", name], bounds=bounds)


@pytest.mark.parametrize("name", ["autoattack", "autoattack+"])
def test_norms_that_the_library_does_not_know_are_refused(name: str) -> None:
    x = torch.rand(4, 8, generator=seeded(0))
    data, asked = TensorDataset(x, said(mlp((8,)), x)), {"norm": summed("mine"), "bounds": (0, 1)}
    with pytest.raises(ValueError, match=r"knows noise in L1, L2, Linf, not in the norm 'mine'"):
        evaluate(mlp((8,)), data, [0.1], ["pgd-2", name], **asked)


def test_other_tasks_are_refused() -> None:
    from nets import Pixels

    x, y = torch.rand(2, 1, 6, 6), torch.zeros(2, 6, 6, dtype=torch.long)
    worked: list[int] = []
    for task in (Pixels(), Segmentation()):
        for name in ("autoattack", "autoattack+"):
            with pytest.raises(ValueError, match=rf"^{re.escape(name)} cannot .*classifiers, but"):
                evaluate(
                    *(nn.Conv2d(1, 2, 1), TensorDataset(x, y), 0.1, ["pgd-1", name]),
                    task=task,
                    bounds=(0, 1),
                    progress=lambda *call: worked.append(call[0]),
                )
    assert not worked
