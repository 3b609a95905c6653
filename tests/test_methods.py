"""All training methods through one set of problems, and what each of them computes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from nets import Heads, Line, Pixels, Strip, Trees, cnn, mlp, seeded, two_clouds
from torch import Tensor, nn

from ima import (
    ATES,
    FAT,
    GAIRAT,
    IAAT,
    IMA,
    MART,
    MMA,
    SAT,
    TRADES,
    Classification,
    CurriculumAT,
    CustomizedAT,
    Method,
    Noisy,
    Standard,
    Step,
)
from ima.methods import METHODS, MethodRow, outputs
from ima.tasks import Task

# Two or three epochs are too few for margins to reach their cap, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")

SETTINGS: dict[str, Any] = {
    "num_samples": 60, "eps": 0.2, "delta": 0.05, "norm": 2, "bounds": (0, 1), "steps": 3
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method as the tests build it: its class, and settings beside the common ones."""

    method: Callable[..., Method]
    more: dict[str, Any]

    @property
    def passes(self) -> int:
        """Training passes a step."""
        return 2 if self.method in (SAT, IMA, TRADES, MART, MMA) else 1

    @property
    def segments(self) -> bool:
        return next(r.segmentation for r in METHODS.values() if r.method is self.method)

    @property
    def spares(self) -> bool:
        """Whether samples that are wrong without noise get none."""
        return self.method is MMA or (self.method is IMA and self.more.get("delta", 1) is not None)

    def takes(self, name: str) -> bool:
        return name in inspect.signature(self.method).parameters

    def build(self, **change: Any) -> Method:
        wanted = {**SETTINGS, **self.more, **change}
        method = self.method(**{name: v for name, v in wanted.items() if self.takes(name)})
        if isinstance(method, CurriculumAT):
            # Its first epochs have no noise.
            method.lesson.strength = 2
        return method


ROWS = {name: Row(row.method, {}) for name, row in METHODS.items()} | {
    "ima, augmented": Row(IMA, {"augmented": True}),
    "ima, random start": Row(IMA, {"random_start": 1.0}),
    "ima, as released": Row(IMA, {"variant": "released"}),
    "ima, measured": Row(IMA, {"delta": None}),
    "ima, measured, augmented": Row(IMA, {"delta": None, "augmented": True}),
    "ima, measured, Linf": Row(IMA, {"delta": None, "norm": math.inf, "eps": 0.02}),
    "fat, tau 1": Row(FAT, {"tau": 1}),
    "gairat, weighted": Row(GAIRAT, {"begin": 0}),
    "customized, mix": Row(CustomizedAT, {"loss": "mix"}),
    "ima, Linf": Row(IMA, {"norm": math.inf, "eps": 0.02, "delta": 0.005}),
}
each_method = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
each_noisy_method = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.takes("eps")]
)


PLAIN = {name: ROWS[name] for name in METHODS}
each_plain_method = pytest.mark.parametrize("row", PLAIN.values(), ids=PLAIN.keys())
each_plain_noisy_method = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in PLAIN.items() if row.takes("eps")]
)
each_plain_method_with_margins = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in PLAIN.items() if row.takes("num_samples")]
)


def train(
    method: Method,
    model: nn.Module,
    x: Tensor,
    y: Any,
    *,
    steps: int = 20,
) -> list[float]:
    """Full-batch training; the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses: list[float] = []
    for epoch in range(steps):
        step = method(model, x, y, torch.arange(len(x)))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.end_epoch(epoch, steps)
        losses.append(float(step.metrics["loss"]))
    return losses


def clean_loss(model: nn.Module, x: Tensor, y: Any, task: Any = None) -> float:
    task = Classification() if task is None else task
    with torch.no_grad():
        return float(task.loss(model(x), y).mean())


def grads(model: nn.Module) -> list[Tensor]:
    found = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in found)
    return [g.clone() for g in found if g is not None]


# ---------------------------------------------------------------------------- problems


@dataclass(frozen=True)
class Problem:
    """Two to ten separable clouds, a network for them, and the shape of its output."""

    shape: tuple[int, ...]
    classes: int
    model: Callable[[], nn.Module]


class Squeezed(nn.Module):
    """One logit a sample, shape (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp((6,), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0]


PROBLEMS = {
    "one logit (B, 1)": Problem((6,), 2, lambda: mlp((6,), 1)),
    "one logit (B,)": Problem((6,), 2, Squeezed),
    "two classes": Problem((6,), 2, lambda: mlp((6,), 2)),
    "three classes": Problem((6,), 3, lambda: mlp((6,), 3)),
    "ten classes": Problem((12,), 10, lambda: mlp((12,), 10)),
    "series": Problem((1, 8), 2, lambda: cnn(dims=1, outputs=2)),
    "images": Problem((3, 6, 6), 3, lambda: cnn(channels=3, outputs=3)),
    "images, batch norm": Problem((1, 6, 6), 2, lambda: cnn(outputs=2, batch_norm=True)),
    "volumes": Problem((1, 4, 4, 4), 2, lambda: cnn(dims=3, outputs=2)),
    "volumes, batch norm": Problem((2, 4, 4, 4), 2, lambda: cnn(
        dims=3, channels=2, outputs=2, batch_norm=True)),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
@each_method
def test_training_lowers_the_loss(row: Row, problem: Problem) -> None:
    x, y = two_clouds(problem.shape, problem.classes, per_class=4 if problem.classes > 3 else 6)
    model = problem.model().train()
    before = clean_loss(model, x, y)
    # Customized AT's own radii and labels take longer to settle.
    losses = train(row.build(), model, x, y, steps=60 if row.method is CustomizedAT else 20)
    assert all(math.isfinite(loss) for loss in losses)
    # Noise and labels of some methods change as they train: what must fall is the clean loss. Soft
    # labels keep it up where all is learnt.
    learnt = bool(Classification().correct(model(x), y).all())
    assert clean_loss(model, x, y) < 0.8 * before or (row.method is CustomizedAT and learnt)


class Pair(nn.Module):
    """A network of one logit z as one of two, 0 and z."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return torch.cat([torch.zeros_like(z), z], 1)


@each_method
def test_one_logit_trains_as_the_pair_of_zero_and_it(row: Row) -> None:
    x, y = two_clouds((6,), 2)
    x, y = x.double(), y.clone()
    y[::4] = 1 - y[::4]
    one = mlp((6,), 1).double()
    two = Pair(copy.deepcopy(one))
    steps = [row.build()(model, x, y, torch.arange(len(x))) for model in (one, two)]
    for name, value in steps[0].metrics.items():
        assert float(value) == pytest.approx(float(steps[1].metrics[name]), rel=1e-6), name
    for step in steps:
        step.loss.backward()
    for first, second in zip(grads(one), grads(two), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)


@each_method
def test_a_small_segmentation_is_learnt(row: Row) -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    x = torch.rand(8, 1, 6, 6, generator=seeded(0))
    y = (x[:, 0] > 0.5).long()
    if not row.segments:
        with pytest.raises(ValueError, match=r"class probabilities.* Pixels"):
            row.build(task=Pixels())
        return
    before = clean_loss(model, x, y, Pixels())
    train(row.build(task=Pixels()), model, x, y)
    assert clean_loss(model, x, y, Pixels()) < 0.8 * before


@pytest.mark.parametrize("kind", ["list", "dict"])
@each_method
def test_outputs_and_targets_may_be_trees(row: Row, kind: str) -> None:
    x, y = two_clouds((6,), 3)
    target: Any = {"main": y, "aux": y} if kind == "dict" else [y, y]
    task = Trees() if kind == "dict" else Trees(0, 1)
    if not row.segments or row.method is TRADES:
        with pytest.raises(ValueError, match="Trees"):
            row.build(task=task)
        return
    model = Heads((6,), kind)
    before = clean_loss(model, x, target, task)
    train(row.build(task=task), model, x, target)
    assert clean_loss(model, x, target, task) < 0.8 * before


@each_method
def test_training_inside_bfloat16_autocast_lowers_the_loss(row: Row) -> None:
    x, y = two_clouds((1, 6, 6), 2)
    model, method = cnn(outputs=2, batch_norm=True).train(), row.build()
    before = clean_loss(model, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        first = method(model, x, y, torch.arange(len(x)))
    assert first.loss.dtype == torch.float32
    first.loss.backward()
    assert all(float(g.abs().sum()) > 0 for g in grads(model)[-2:])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for number in range(12):
        optimizer.step()
        method.end_epoch(number, 12)
        with torch.autocast("cpu", torch.bfloat16):
            step = method(model, x, y, torch.arange(len(x)))
        optimizer.zero_grad()
        step.loss.backward()
    assert clean_loss(model, x, y) < 0.8 * before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@each_method
def test_fabric_may_wrap_the_model_in_any_precision(
    row: Row, precision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    x, y = two_clouds((6,), 2)
    inner = mlp((6,), 2)
    seen: set[torch.dtype] = set()
    inner[1].register_forward_hook(lambda _module, _args, out: seen.add(out.dtype))
    model = fabric.setup_module(inner)
    step = row.build()(model, x, y, torch.arange(len(x)))
    fabric.backward(step.loss)
    assert bool(torch.isfinite(step.loss))
    # The walk judges samples in the precision in which the network is trained.
    assert seen == {torch.float32 if precision == "32-true" else torch.bfloat16}


# ---------------------------------------------------------------------------- what is trained on


class Recording(nn.DataParallel):
    """Keeps what the training passes see: attacks run on the module inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        self.seen.append(x.detach().clone())
        return self.module(x)


def training_faults(row: Row) -> set[str]:
    """What is wrong with the noise that the training passes of a method see."""
    x, _ = two_clouds((6,), 2)
    low, high = x.amin(0) - 0.01, x.amax(0) + 0.01
    model = Recording(mlp((6,), 2)).train()
    # All samples are right, so that every method attacks them.
    y = mlp((6,), 2)(x).argmax(1)
    row.build(bounds=(low, high))(model, x, y, torch.arange(len(x)))
    assert len(model.seen) == row.passes
    seen = torch.stack(model.seen)
    order, eps = row.more.get("norm", 2), row.more.get("eps", SETTINGS["eps"])
    size = torch.linalg.vector_norm(seen - x, order, dim=2)
    # A curriculum leaves some samples without noise.
    least = 0.25 if row.method is CurriculumAT else 1.0
    found = {
        "clean": float((size.amax(0) > 0.001 * eps).float().mean()) < least,
        "outside the ball": float(size.max()) > eps * 1.00001,
        "outside the bounds": not bool(((seen >= low) & (seen <= high)).all()),
    }
    return {name for name, fault in found.items() if fault}


@each_noisy_method
def test_training_passes_see_noise_inside_the_ball_and_the_bounds(row: Row) -> None:
    assert training_faults(row) == set()


SABOTAGE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clean": lambda _, x: x,
    "outside the ball": lambda at, x: x + 1.5 * SETTINGS["eps"] * F.normalize(at - x, dim=1),
    "outside the bounds": lambda at, x: torch.where(at == x, at, at + 5),
}


@pytest.mark.parametrize("fault", SABOTAGE)
@each_noisy_method
def test_a_method_that_trains_on_something_else_is_noticed(
    row: Row, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = two_clouds((6,), 2)
    monkeypatch.setattr(outputs, "call", lambda model, at: model(SABOTAGE[fault](at, x)))
    assert fault in training_faults(row)


# ---------------------------------------------------------------------------- hard batches


def settle(model: nn.Module, x: Tensor) -> None:
    """Make running statistics those of the batch: both modes then agree on who is right."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model(x)
    for norm in norms:
        norm.momentum = 0.1


@pytest.mark.parametrize("right", [0, 1])
@each_method
def test_a_batch_with_few_correct_samples_trains_a_batch_norm_network(row: Row, right: int) -> None:
    model = cnn(batch_norm=True).train()
    x = torch.rand(6, 1, 6, 6, generator=seeded(0))
    settle(model, x)
    y = (copy.deepcopy(model)(x).argmax(1) + 1) % 3
    assert torch.equal(copy.deepcopy(model).eval()(x).argmax(1), (y - 1) % 3)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.mul_(1.001)
    y[:right] = (y[:right] + 2) % 3
    before = copy.deepcopy(model)
    step = row.build()(model, x, y, torch.arange(6))
    assert int(step.metrics["correct"]) == right
    step.loss.backward()
    assert any(float(g.abs().sum()) > 0 for g in grads(model))
    for (name, old), new in zip(before.named_buffers(), model.buffers(), strict=True):
        assert bool(torch.isfinite(new).all())
        assert not torch.equal(old, new), name


@pytest.mark.parametrize("problem", ["one logit (B,)", "ten classes", "volumes"])
@each_method
def test_a_batch_without_a_right_sample_trains_on_what_the_method_says(
    row: Row, problem: str
) -> None:
    given = PROBLEMS[problem]
    x, _ = two_clouds(given.shape, given.classes, per_class=2)
    model = given.model().train()
    y = (Classification().predict(model(x)) + 1) % given.classes
    step = row.build()(model, x, y, torch.arange(len(x)))
    assert int(step.metrics["correct"]) == 0
    step.loss.backward()
    assert any(float(g.abs().sum()) > 0 for g in grads(model))
    if row.spares:
        # They leave wrong samples without noise; of these the released code has half the loss.
        share = 0.5 if row.more.get("variant") == "released" else 1.0
        clean = clean_loss(model, x, y)
        assert float(step.loss.detach()) == pytest.approx(share * clean, rel=1e-5)


@each_method
def test_the_number_of_training_passes_does_not_depend_on_the_batch(row: Row) -> None:
    # Processes that train together would wait for each other otherwise.
    x = torch.rand(6, 6, generator=seeded(0))
    right = mlp((6,)).train()(x).argmax(1)
    passes = set()
    for y in (right, (right + 1) % 3, torch.where(torch.arange(6) < 2, right, (right + 1) % 3)):
        model = Counting(mlp((6,)))
        row.build()(model, x, y, torch.arange(6))
        passes.add(model.passes)
    assert len(passes) == 1


@each_noisy_method
def test_every_pass_sees_samples_inside_the_bounds_and_the_ball(row: Row) -> None:
    x, _ = two_clouds((6,), 2)
    low, high = x.amin(0) - 0.01, x.amax(0) + 0.01
    # Alone in its batch, a sample is known whatever part of the batch an attack walks on.
    for i in range(4):
        seen: list[Tensor] = []
        model = mlp((6,), 2)
        y = model(x).argmax(1)
        model.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach()))
        method = row.build(eps=0.5, delta=0.5, bounds=(low, high))
        method(model, x[i : i + 1], y[i : i + 1], torch.tensor([i]))
        points = torch.cat(seen)
        assert bool(((points >= low) & (points <= high)).all())
        order = row.more.get("norm", 2)
        assert float(torch.linalg.vector_norm(points - x[i], order, dim=1).max()) <= 0.5 * 1.00001
        assert len(points.unique(dim=0)) > 1


@each_method
def test_a_batch_of_one_trains(row: Row) -> None:
    for shape, model in (((6,), mlp((6,), 2)), ((1, 6, 6), cnn(outputs=2, batch_norm=True))):
        x, y = two_clouds(shape, 2, per_class=1)
        method = row.build()
        for i in (0, 1):
            step = method(model, x[i : i + 1], y[i : i + 1], torch.tensor([i]))
            step.loss.backward()
            assert int(step.metrics["samples"]) == 1
        grads(model)


@each_method
def test_gradients_accumulate_over_batches(row: Row) -> None:
    model = mlp((6,), 2).double()
    x, y = two_clouds((6,), 2)
    x = x.double()
    halves = [torch.arange(8), torch.arange(8, 16)]
    alone: list[list[Tensor]] = []
    for ids in halves:
        model.zero_grad()
        row.build()(model, x[ids], y[ids], ids).loss.backward()
        alone.append(grads(model))
    model.zero_grad()
    method = row.build()
    for i, ids in enumerate(halves):
        # A fresh noise for each half: the one that it had alone.
        step = (row.build() if i else method)(model, x[ids], y[ids], ids)
        step.loss.backward()
    for total, first, second in zip(grads(model), *alone, strict=True):
        torch.testing.assert_close(total, first + second)


@each_method
def test_the_optimiser_and_the_model_are_left_to_the_user(row: Row) -> None:
    model = cnn(outputs=2, batch_norm=True).train()
    model[1].eval()
    x, y = two_clouds((1, 6, 6), 2)
    flags = [m.training for m in model.modules()]
    weights = [p.detach().clone() for p in model.parameters()]
    state = torch.random.get_rng_state()
    copies = x.clone(), y.clone()
    step = row.build()(model, x, y, torch.arange(len(x)))
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert step.loss.requires_grad


class Counting(nn.DataParallel):
    """A wrapper that counts the passes that go through it."""

    passes = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.passes += 1
        return self.module(*args, **kwargs)


@each_method
def test_training_passes_go_through_the_wrapper_and_attacks_do_not(row: Row) -> None:
    x, y = two_clouds((6,), 2)
    plain, wrapper = mlp((6,), 2), Counting(mlp((6,), 2))
    expected = row.build()(plain, x, y, torch.arange(len(x)))
    step = row.build()(wrapper, x, y, torch.arange(len(x)))
    assert torch.equal(step.loss, expected.loss)
    assert 1 <= wrapper.passes <= 3


# ---------------------------------------------------------------------------- save and continue


@each_method
def test_a_saved_run_continues_bit_equal(row: Row) -> None:
    x, y = two_clouds((1, 6, 6), 3)

    def fresh() -> tuple[Method, nn.Module, torch.optim.Optimizer]:
        model = cnn(batch_norm=True).train()
        return row.build(), model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def batch(method: Method, model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        ids = torch.randperm(len(x), generator=seeded(n))[:9]
        step = method(model, x[ids], y[ids], ids)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        if n % 2:
            method.end_epoch(n // 2, 4)

    first = fresh()
    for n in range(3):
        batch(*first, n)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    second = fresh()
    file.seek(0)
    # Plain tensors and numbers only: nothing is executed when they are read.
    for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    for n in range(3, 7):
        batch(*first, n)
        batch(*second, n)
    for one, other in zip(first, second, strict=True):
        assert_same(one.state_dict(), other.state_dict())


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@each_method
def test_the_state_is_a_copy(row: Row) -> None:
    x, y = two_clouds((6,), 2)
    model, method = mlp((6,), 2), row.build()
    state = method.state_dict()
    kept = copy.deepcopy(state)
    method(model, x, y, torch.arange(len(x)))
    method.end_epoch(0, 2)
    assert_same(state, kept)
    method.load_state_dict(state)
    method(model, x, y, torch.arange(len(x)))
    assert_same(state, kept)


@each_plain_method_with_margins
def test_the_state_of_another_training_set_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match="60"):
        row.build().load_state_dict(row.build(num_samples=59).state_dict())


def test_the_state_of_another_method_is_refused_before_anything_changes() -> None:
    one = {name: row.build() for name, row in ROWS.items()}
    kinds = {name: getattr(m, "kind", "without a state") for name, m in one.items()}
    assert kinds["ima"] != kinds["ima, as released"]
    for name, method in one.items():
        kept = copy.deepcopy(method.state_dict())
        for other, theirs in one.items():
            if kinds[other] != kinds[name]:
                with pytest.raises(
                    ValueError, match=r"this state was saved by .*, but this is .*; build"
                ):
                    method.load_state_dict(theirs.state_dict())
        assert_same(method.state_dict(), kept)
        # States of earlier versions do not name their method.
        method.load_state_dict({key: value for key, value in kept.items() if key != "method"})
        assert_same(method.state_dict(), kept)


@pytest.mark.parametrize(
    ("epoch", "epochs", "error"), [(0, 0, ValueError), (-1, 5, ValueError), (1.0, 5.0, TypeError)]
)
def test_an_epoch_that_cannot_be_is_refused(epoch: Any, epochs: Any, error: type) -> None:
    for row in ROWS.values():
        if "noise" in row.build().state_dict():
            with pytest.raises(error, match="expected"):
                row.build().end_epoch(epoch, epochs)


# ---------------------------------------------------------------------------- metrics


@each_method
def test_metrics_are_detached_scalar_tensors(row: Row, device: torch.device) -> None:
    x, y = (part.to(device) for part in two_clouds((6,), 2))
    model = mlp((6,), 2).to(device)
    # Ids stay on the host, where a loader makes them.
    step = row.build()(model, x, y, torch.arange(len(x)))
    assert isinstance(step, Step)
    assert step.loss.shape == ()
    for name, value in step.metrics.items():
        assert isinstance(value, Tensor), name
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert value.device == x.device, name
    assert int(step.metrics["samples"]) == len(x)
    assert int(step.metrics["correct"]) == int((model(x).argmax(1) == y).sum())
    assert torch.equal(step.metrics["loss"], step.loss.detach())
    assert {"samples", "correct", "loss"} <= step.metrics.keys()


@each_noisy_method
def test_noisy_methods_count_what_the_noise_did(row: Row) -> None:
    x, y = two_clouds((6,), 2)
    step = row.build()(mlp((6,), 2), x, y, torch.arange(len(x)))
    count = {name: int(value) for name, value in step.metrics.items()}
    assert 0 <= count["noisy_correct"] <= count["noisy_samples"] <= count["samples"]
    assert 0 <= count["crossed"] <= count["noisy_samples"]
    assert 0 <= count["stuck"] <= count["noisy_samples"]


STUCK = {IMA: 2, MMA: 2, FAT: 2, ATES: 2, CurriculumAT: 2}
"""These leave the wrong sample alone, or, the last, one chunk clean."""


@each_noisy_method
def test_a_zero_gradient_is_counted_as_stuck(row: Row) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias + 0 * x.sum(1, keepdim=True)

    step = row.build()(Flat(), torch.rand(3, 2), torch.tensor([0, 0, 1]), torch.arange(3))
    patient = row.more.get("tau", 0) > 0
    attacked = STUCK.get(row.method, 3) if row.method is not IMA or row.spares else 3
    expected = 3 if patient else attacked
    assert int(step.metrics["stuck"]) == expected


# ---------------------------------------------------------------------------- errors


class Breaks(nn.Module):
    """Gives NaN for all samples, for one of a full batch, or for one in the second pass only."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.net, self.where, self.passes = mlp((6,), 2), where, 0

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        self.passes += self.training
        if self.where == "everywhere":
            return z * math.nan
        if len(z) == 12 and (self.where == "in one sample" or self.passes == 2):
            return torch.cat([z[:1] * math.nan, z[1:]])
        return z


@pytest.mark.parametrize(
    ("row", "where"),
    [
        pytest.param(row, where, id=f"{name}-{where}")
        for name, row in ROWS.items()
        for where in ("everywhere", "in one sample", "in the noisy pass")
        # Where the walk too runs in training mode, `Breaks` cannot tell the passes apart.
        if where != "in the noisy pass" or "variant" not in row.more
    ],
)
def test_an_output_that_is_not_a_number_stops_the_step(row: Row, where: str) -> None:
    x, y = two_clouds((6,), 2)
    y[:12] = mlp((6,), 2)(x[:12]).argmax(1)
    method, model = row.build(), Breaks(where)
    before = copy.deepcopy(method.state_dict())
    if where == "in the noisy pass" and row.passes == 1:
        method(model, x[:12], y[:12], torch.arange(12))
        assert model.passes == 1
        return
    with pytest.raises(FloatingPointError, match="nan"):
        method(model, x[:12], y[:12], torch.arange(12))
    if row.takes("num_samples"):
        assert_same(method.state_dict().get("margins"), before.get("margins"))


GOOD_X, GOOD_Y = torch.rand(4, 6, generator=seeded(0)), torch.tensor([0, 1, 2, 0])


@each_plain_method
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"y": torch.tensor([0, 1, 3, 0])}, ValueError, "label 3"),
        ({"y": torch.tensor([0, 1, -1, 0])}, ValueError, "label -1"),
        ({"y": GOOD_Y.float()}, TypeError, "float32"),
        ({"y": GOOD_Y[:3]}, ValueError, "3 targets"),
        ({"y": GOOD_Y.tolist()}, TypeError, "list"),
        ({"model": lambda x: torch.zeros(len(x) + 1, 3)}, ValueError, r"\(5, 3\)"),
        ({"model": lambda x: torch.zeros(len(x), 3, 2)}, ValueError, r"\(4, 3, 2\)"),
        ({"model": lambda x: [torch.zeros(len(x), 3)]}, TypeError, "list"),
        ({"model": lambda _: None}, TypeError, "NoneType"),
    ],
)
def test_labels_and_outputs_that_do_not_fit_are_named(
    row: Row, change: dict[str, Any], error: type[Exception], text: str
) -> None:
    fine: dict[str, Any] = {"model": mlp((6,), 3), "x": GOOD_X, "y": GOOD_Y}
    method = row.build()
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(error, match=text):
        method(*{**fine, **change}.values(), torch.arange(4))
    assert_same(method.state_dict(), before)


@each_plain_noisy_method
@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (GOOD_X + 1, ValueError, r"\(0, 1\)"),
        (GOOD_X - 1, ValueError, r"\(0, 1\)"),
        (GOOD_X * math.nan, ValueError, "(?i)nan"),
        ((GOOD_X * 255).byte(), TypeError, "uint8"),
        (GOOD_X[:0], ValueError, r"\(0, 6\)"),
    ],
)
def test_inputs_outside_the_bounds_are_named(
    row: Row, x: Tensor, error: type[Exception], text: str
) -> None:
    method = row.build()
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(error, match=text):
        method(mlp((6,), 3), x, GOOD_Y[: len(x)], torch.arange(len(x)))
    assert_same(method.state_dict(), before)


@each_plain_method_with_margins
@pytest.mark.parametrize(
    ("ids", "error", "text"),
    [
        (torch.tensor([0, 1, 2, 60]), ValueError, "id 60 .*0 to 59"),
        (torch.tensor([0, 1, 2, -1]), ValueError, "id -1 "),
        (torch.arange(3), ValueError, "3 ids .*4 samples"),
        (torch.arange(8), ValueError, "8 ids .*4 samples"),
        (torch.arange(4)[:, None], ValueError, r"\(4, 1\)"),
        (torch.arange(4).float(), TypeError, "float32"),
        (torch.ones(4, dtype=torch.bool), TypeError, "bool"),
        ([0, 1, 2, 3], TypeError, "list"),
        (None, TypeError, "ids .*NoneType"),
    ],
)
def test_ids_that_do_not_fit_are_named(
    row: Row, ids: Any, error: type[Exception], text: str
) -> None:
    model, method = mlp((6,), 3, batch_norm=True).train(), row.build()
    before, weights = copy.deepcopy(method.state_dict()), copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=text):
        method(model, GOOD_X, GOOD_Y, ids)
    assert_same(method.state_dict(), before)
    assert_same(model.state_dict(), weights)


WRONG: list[tuple[str, Any]] = [
    *(("eps", value) for value in (0, -1.0, math.inf, math.nan, "3", None)),
    *(("steps", value) for value in (0, -1, 2.5, True, "20", None)),
    *(("norm", value) for value in (3, "l1", None)),
    *(("delta", value) for value in (0, -0.1, math.inf, math.nan, "1", None, 0.5)),
    *(("num_samples", value) for value in (0, -3, 2.5, "60", None)),
    *(("random_start", value) for value in (-0.1, 1.5, math.nan, "1")),
    ("side", "outside"),
    ("misclassified", "drop"),
    ("noisy_loss", "none"),
    ("variant", "journal"),
    *(("beta", value) for value in (0, -1.0, math.nan, "6")),
    *(("lam", value) for value in (math.inf, math.nan, "5")),
    *(("tau", value) for value in (-1, 0.5, True, "static")),
    *(("omega", value) for value in (-0.001, math.nan, "0")),
    *(("begin", value) for value in (-1, 0.8, "now")),
    *(("eps_min", value) for value in (0, -1.0, math.nan, 0.3)),
    *(("initial", value) for value in (-2.0, 1.5)),
    *(("gamma", value) for value in (0, -1.0, math.nan)),
    *(("eta", value) for value in (0, -1.0, math.nan)),
    *(("c_max", value) for value in (0, -1.0, math.nan)),
    *(("loss", value) for value in ("cw", None)),
    *(("threshold", value) for value in (0, -0.5, math.nan)),
    *(("patience", value) for value in (0, -1)),
]


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        pytest.param(row, name, value, id=f"{method}-{name}-{value!r}")
        for method, row in PLAIN.items()
        for name, value in WRONG
        if row.takes(name)
        and (name != "random_start" or row.method is IMA)
        # IMA without them has its own.
        and not (row.method is IMA and name in ("steps", "delta") and value is None)
    ],
)
def test_a_wrong_setting_is_named(row: Row, name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        row.build(**{name: value})


# ---------------------------------------------------------------------------- numbers by hand


def ce(share: float) -> float:
    """Cross-entropy of label 0 on `Line` at x = share."""
    z = [a + share * (b - a) for a, b in zip(Line.z, Line.z_noisy, strict=True)]
    return math.log(sum(map(math.exp, z))) - z[0]


def zeros(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(count, 1, dtype=torch.float64),
        torch.zeros(count, dtype=torch.long),
        torch.arange(count),
    )


def test_the_line_has_the_losses_of_the_example() -> None:
    assert ce(0) == pytest.approx(0.4401896986, abs=1e-9)
    assert ce(1) == pytest.approx(1.5146749655, abs=1e-9)


def test_standard_is_the_mean_loss_on_clean_samples() -> None:
    step = Standard()(Line(), *zeros(3))
    assert float(step.loss.detach()) == pytest.approx(0.4401896986, abs=1e-9)


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("steps", [4, 20])
def test_sat_is_the_mean_of_clean_and_noisy_loss(norm: float, steps: int) -> None:
    step = SAT(eps=1.0, norm=norm, steps=steps)(Line(), *zeros(3))
    assert float(step.loss.detach()) == pytest.approx(0.9774323320, abs=1e-9)
    assert int(step.metrics["crossed"]) == 3
    # Steps of 4 * eps / K: one of three reaches beyond the ball, one of eight reaches half.
    step = SAT(eps=1.0, norm=norm, steps=8)(Line(), *zeros(1))
    assert float(step.loss.detach()) == pytest.approx(0.9774323320, abs=1e-9)


def test_sat_adds_noise_to_misclassified_samples_too() -> None:
    x, _, ids = zeros(2)
    y = torch.tensor([0, 3])
    step = SAT(eps=1.0)(Line(), x, y, ids)
    clean = [ce(0), math.log(sum(map(math.exp, Line.z))) - Line.z[3]]
    # The loss of label 3 is logsumexp + 1; it falls along x until 0.5 or so, hence the other way.
    back = [a - (b - a) for a, b in zip(Line.z, Line.z_noisy, strict=True)]
    noisy = [ce(1), math.log(sum(map(math.exp, back))) - back[3]]
    assert float(step.loss.detach()) == pytest.approx((sum(clean) + sum(noisy)) / 4, abs=1e-9)
    assert int(step.metrics["noisy_samples"]) == 2


def hand(method: IMA, margins: list[float], y: list[int]) -> Step:
    """One step on `Line` with these margins; the boundary of label 0 is 0.5 away."""
    x, _, ids = zeros(len(y))
    method.margins.update(ids, torch.tensor(margins))
    return method(Line(), x, torch.tensor(y), ids)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("norm", [2, math.inf])
def test_ima_walks_to_the_margin_or_to_the_boundary(norm: float, augmented: bool) -> None:
    method = IMA(num_samples=4, eps=1.0, delta=0.1, norm=norm, augmented=augmented)
    step = hand(method, [0.25, 1.0, 0.4, 0.95], [0, 0, 1, 0])
    clean = [ce(0), ce(0), math.log(sum(map(math.exp, Line.z))) - Line.z[1], ce(0)]
    noisy = [ce(0.25), ce(0.5), clean[2], ce(0.5)]
    assert float(step.loss.detach()) == pytest.approx((sum(clean) + sum(noisy)) / 8, abs=2e-3)
    # Grown; halfway back to the boundary; left alone; halfway back.
    expected = [0.35, 0.75, 0.4, 0.725]
    assert method.margins.values.tolist() == pytest.approx(expected, abs=1e-3)
    count = {name: float(value) for name, value in step.metrics.items()}
    assert count["samples"] == 4
    assert count["correct"] == 3
    assert count["noisy_samples"] == 3
    assert count["noisy_correct"] == 3
    assert count["crossed"] == 2
    assert count["stuck"] == 0
    assert count["margin"] == pytest.approx((0.25 + 1.0 + 0.4 + 0.95) / 4)


def test_ima_counts_crossed_samples_only_if_asked() -> None:
    method = IMA(num_samples=4, eps=1.0, delta=0.1, noisy_loss="crossed")
    step = hand(method, [0.25, 1.0, 0.4, 0.95], [0, 0, 1, 0])
    wrong = math.log(sum(map(math.exp, Line.z))) - Line.z[1]
    total = 3 * ce(0) + wrong + 2 * ce(0.5)
    assert float(step.loss.detach()) == pytest.approx(total / 8, abs=2e-3)


def test_ima_halves_the_margin_of_a_misclassified_sample_if_asked() -> None:
    method = IMA(num_samples=2, eps=1.0, delta=0.1, misclassified="halve")
    hand(method, [0.25, 0.4], [0, 1])
    assert method.margins.values.tolist() == pytest.approx([0.35, 0.2])


@pytest.mark.parametrize(("side", "sign"), [("inside", 1), ("middle", -1)])
def test_ima_keeps_the_noisy_sample_on_the_side_asked_for(side: Any, sign: int) -> None:
    # At a margin of 0.95 the boundary is off the search's grid, so the middle is on either side.
    x, y, ids = zeros(1)
    method = IMA(num_samples=1, eps=1.0, delta=0.1, side=side)
    method.margins.update(ids, torch.tensor([0.95]))
    step = method(Line(), x, y, ids)
    assert int(step.metrics["crossed"]) == 1
    assert float(method.margins.values) == pytest.approx((0.5 + 0.95) / 2, abs=2e-4)
    if sign == 1:
        assert int(step.metrics["noisy_correct"]) == 1
        assert float(step.loss.detach()) < (ce(0) + ce(0.5)) / 2


def test_ima_margins_start_at_delta_and_end_at_the_cap() -> None:
    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([9.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([-0.01 * x.sum(1), 0.01 * x.sum(1)], 1) + self.bias

    method = IMA(num_samples=2, eps=0.35, delta=0.1)
    assert method.margins.values.tolist() == pytest.approx([0.1, 0.1])
    seen = []
    for _ in range(4):
        method(Sure(), torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]))
        seen.append(float(method.margins.values[1]))
    assert seen == pytest.approx([0.2, 0.3, 0.35, 0.35])
    assert float(method.margins.values[0]) == pytest.approx(0.1)
    method.delta = 0.01
    method(Sure(), torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))
    assert float(method.margins.values[0]) == pytest.approx(0.11)


def test_an_id_that_occurs_twice_keeps_its_smallest_proposal() -> None:
    method = IMA(num_samples=3, eps=1.0, delta=0.1)
    method.margins.update(torch.arange(3), torch.tensor([0.8, 0.25, 0.25]))
    x = torch.tensor([[0.0], [-1.0], [0.0]], dtype=torch.float64)
    # Id 0: the first crosses and proposes 0.65, the second does not and proposes 0.9.
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        method.margins.update(torch.arange(3), torch.tensor([0.8, 0.25, 0.25]))
        ids = torch.tensor([0, 0, 2])[order]
        method(Line(), x[order], torch.zeros(3, dtype=torch.long), ids)
        assert method.margins.values.tolist() == pytest.approx([0.65, 0.25, 0.35], abs=1e-3)


def test_margins_grow_by_delta_whatever_the_precision_of_the_samples() -> None:
    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([9.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([-x.sum(1), x.sum(1)], 1) * 0.01 + self.bias.to(x.dtype)

    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        method = IMA(num_samples=1, eps=3.0, delta=0.005, steps=1)
        for _ in range(50):
            method(Sure(), torch.zeros(1, 2, dtype=dtype), torch.tensor([0]), torch.tensor([0]))
        assert float(method.margins.values) == pytest.approx(0.255, rel=1e-3), dtype
        grown = CustomizedAT(num_samples=1, eps=3.0, eta=0.005, steps=1)
        adapted = IAAT(num_samples=1, eps=3.0, initial=0.7, gamma=0.05, steps=1)
        adapted.margins.values.fill_(1.0)
        adapted.end_epoch(50, 110)
        for method_ in (grown, adapted):
            for _ in range(60):
                x = torch.zeros(1, 2, dtype=dtype)
                method_(Sure(), x, torch.tensor([0]), torch.tensor([0]))
        assert float(grown.margins.values) == pytest.approx(0.3, rel=1e-3), dtype
        assert float(adapted.margins.values) == pytest.approx(1.3, rel=1e-3), dtype


def test_a_sample_that_is_wrong_in_evaluation_mode_counts_as_misclassified() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            z = torch.stack([1 - x[:, 0], x[:, 0]], 1) + self.bias
            return z if self.training else z.flip(1)

    method = IMA(num_samples=1, eps=1.0, delta=0.1)
    step = method(Moody(), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]))
    assert int(step.metrics["correct"]) == 1
    assert int(step.metrics["noisy_samples"]) == 0
    assert float(step.loss.detach()) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(method.margins.values) == pytest.approx(0.1)


def test_the_random_start_is_seeded_for_every_epoch() -> None:
    x, y = two_clouds((6,), 2)
    model, ids = mlp((6,), 2), torch.arange(len(x))

    def losses(method: IMA, epochs: list[int]) -> list[float]:
        found = []
        for epoch in epochs:
            method.margins.update(ids, torch.full((len(x),), 0.1))
            found.append(float(method(model, x, y, ids).loss.detach()))
            method.end_epoch(epoch, 4)
        return found

    def fresh(seed: int) -> IMA:
        return IMA(num_samples=60, eps=0.2, delta=0.05, steps=1, random_start=1.0, seed=seed)

    whole = losses(fresh(0), [0, 1, 2])
    assert len(set(whole)) == 3
    assert losses(fresh(0), [0, 1, 2]) == whole
    assert losses(fresh(1), [0, 1, 2]) != whole
    # An epoch's noise does not depend on what was drawn before it.
    late = fresh(0)
    late.end_epoch(1, 4)
    assert losses(late, [2]) == whole[2:]


# ---------------------------------------------------------------------------- IMA as released


@pytest.mark.parametrize(("crossing", "crossed"), [("last", 0), ("any", 1)])
def test_whether_the_way_or_its_end_decides(crossing: str, crossed: int) -> None:
    method = IMA(num_samples=1, eps=1.0, delta=0.1, steps=10, augmented=True)
    method.choices = dataclasses.replace(method.choices, crossing=crossing)
    method.margins.values[:] = 0.8
    x = torch.zeros(1, 1, dtype=torch.float64)
    step = method(Strip(), x, torch.zeros(1, dtype=torch.long), torch.arange(1))
    assert int(step.metrics["crossed"]) == crossed
    # The released code's average leaves a margin whose whole length was walked as it is.
    assert float(method.margins.values) == pytest.approx(0.9 if crossing == "last" else 0.8)


def test_margins_may_wait_for_the_end_of_the_epoch() -> None:
    x, y = two_clouds((6,), 2)
    ids = torch.randperm(len(x), generator=seeded(0))
    found = {}
    for update in ("step", "epoch"):
        method = IMA(num_samples=len(x), eps=1.0, delta=0.2)
        method.choices = dataclasses.replace(method.choices, update=update)
        model = mlp((6,), 2)
        for part in ids.split(5):
            method(model, x[part], y[part], part)
            if update == "epoch":
                assert method.margins.values.tolist() == [pytest.approx(0.2)] * len(x)
        method.end_epoch(0, 2)
        found[update] = method.margins.values
    assert torch.equal(found["step"], found["epoch"])
    assert len(found["step"].unique()) > 1


def test_the_visits_of_an_epoch_add_up_at_its_end() -> None:
    method = IMA(num_samples=1, eps=1.0, delta=0.1)
    method.choices = dataclasses.replace(method.choices, update="epoch")
    x, ids = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0])
    # Right and never wrong within the margin, twice; then wrong.
    for label in (0, 0, 1):
        method(Strip(), x, torch.tensor([label]), ids)
        assert float(method.margins.values) == pytest.approx(0.1)
    method.end_epoch(0, 2)
    assert float(method.margins.values) == pytest.approx(0.3)


@pytest.mark.parametrize(("variant", "passes"), [("paper", 2), ("released", None)])
def test_the_released_code_moves_running_statistics_as_it_attacks(
    variant: Any, passes: int | None
) -> None:
    x, y = two_clouds((1, 6, 6), 2)
    model = cnn(outputs=2, batch_norm=True).train()
    method = IMA(num_samples=len(x), eps=0.2, delta=0.05, steps=5, variant=variant)
    method(model, x, y, torch.arange(len(x)))
    counts = {int(b) for name, b in model.named_buffers() if name.endswith("tracked")}
    assert counts == {passes} if passes else min(counts) >= 7  # clean, five steps, noisy


def test_what_the_released_variant_is() -> None:
    method = IMA(num_samples=3, eps=1.0, delta=0.1, variant="released")
    assert method.algorithm == 3
    assert method.setting.task == Classification(walk="margin")
    segments = IMA(
        num_samples=3, eps=1.0, delta=0.1, variant="released", task=Pixels(), augmented=True
    )
    assert segments.algorithm == 2
    assert segments.choices.noisy_loss == "all"
    assert IMA(num_samples=3, eps=1.0, delta=0.1, augmented=True, task=Pixels()).algorithm == 3
    ct = IMA(num_samples=3, eps=1.0, delta=0.1, variant="released", side="inside")
    assert dataclasses.replace(method.choices, side="inside") == ct.choices
    assert IMA(num_samples=3, eps=1.0, delta=0.1).algorithm == 2


# --- A loop that forgets to end its epochs --------------------------------------------------------

SCHEDULED = ["fat", "gairat", "dat", "ates", "iaat", "curriculum", "ima, as released"]


@pytest.mark.parametrize("name", ROWS)
def test_a_schedule_that_nobody_moves_is_told_once(name: str) -> None:
    method, model = ROWS[name].build(), mlp((4,), 2).train()
    x, y = torch.rand(6, 4, generator=seeded(0)), torch.tensor([0, 1, 0, 1, 0, 1])
    ids = torch.arange(6)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(12):
            for part in (ids[:4], ids[4:]):
                method(model, x[part], y[part], part)
    expected = name in SCHEDULED or ROWS[name].method is GAIRAT
    assert len(told) == expected
    assert all("method.end_epoch(epoch, epochs)" in str(one.message) for one in told)


class Fixed(Noisy):
    """Noise of a radius that nobody sets."""

    def __init__(self, task: Task | None = None) -> None:
        super().__init__(eps=0.1, norm=2, bounds=(0, 1), steps=2, task=task, seed=0)


def passes_on(**options: Any) -> Method:
    return SAT(eps=0.1, **options)


def sized(radius: float = 0.1, norm: Any = 2) -> Method:
    return SAT(eps=radius, norm=norm)


@pytest.mark.parametrize(
    ("method", "rule"),
    [(Fixed, "mean"), (passes_on, "mean"), (sized, "mean"), (Standard, "clean")],
)
def test_a_method_of_ones_own_that_attacks_is_picked_by_both_accuracies(
    method: Any, rule: str
) -> None:
    assert MethodRow("mine:it", method, "-", "").picks == rule


class Careless(Noisy):
    """A user's method that has no walk, and says nothing of it."""

    def __call__(self, model: Any, x: Any, y: Any, ids: Any) -> Any:
        x, y, _ = self.prepare(x, y, ids)
        return self.train_on(model, x, y, self.right(model, x, y), None)  # type: ignore[arg-type]


def test_a_method_that_gives_no_flags_is_told() -> None:
    method = Careless(eps=0.1, norm=2, bounds=None, steps=1, task=None, seed=0)
    with pytest.raises(TypeError, match=r"count a NoneType; expected flags, \(B,\) bool"):
        method(nn.Linear(2, 2), torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), torch.arange(4))
