"""What the second reading found: random outputs, unequal cases, squeezed outputs, one side of 0."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import seeded
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ima
from ima import Classification, Segmentation, evaluate, minimal
from ima.attacks.tangent import nearer
from ima.data import load
from ima.evaluation import autoattack, bench, finders, watch
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.remarks import Doubt
from ima.evaluation.results import Results
from ima.evaluation.statistics import effective, mean_interval, share_interval
from ima.methods import Method
from ima.tasks import Task


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        *((finders, "ITERATIONS"), (finders, "STEPS"), (autoattack, "ITERATIONS")),
        *((autoattack, "_QUERIES"), (bench, "QUERIES")),
    ):
        monkeypatch.setattr(module, name, 10)


class Around(nn.Module):
    """A network whose outputs go through `after`."""

    def __init__(self, inner: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.after = inner, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(x))


class Noisy(nn.Module):
    """A network that looks at its input through noise."""

    def __init__(self, inner: nn.Module, noise: float) -> None:
        super().__init__()
        self.inner, self.noise = inner, noise

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.noise * torch.randn_like(x))


class Remembers(nn.Module):
    """A network whose output moves a little from pass to pass, without any noise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passes = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.inner(x + 0.01 * math.sin(self.passes))


def half(size: int = 4) -> nn.Linear:
    """Class 1 where the first entry is above 0.5."""
    layer = nn.Linear(size, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 0] = torch.tensor([-10.0, 10.0])
        layer.bias.copy_(torch.tensor([5.0, -5.0]))
    return layer


def halves(n: int = 30) -> TensorDataset:
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0.5).long())


# 1. Outputs that differ from pass to pass.


def masks() -> tuple[nn.Module, TensorDataset, Task]:
    net = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-10.0, 10.0]).reshape(2, 1, 1, 1))
        net.get_parameter("bias").copy_(torch.tensor([5.0, -5.0]))
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return net, TensorDataset(x, (x[:, 0] > 0.5).long()), Segmentation()


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("kind", [lambda net: Noisy(net, 0.01), Remembers])
@pytest.mark.parametrize("problem", ["labels", "masks"])
def test_random_outputs_do_not_make_a_network_robust(
    problem: str, kind: Callable[[nn.Module], nn.Module], norm: float
) -> None:
    net, data, task = (half(), halves(), Classification()) if problem == "labels" else masks()
    told: dict[str, Any] = {"norm": norm, "bounds": (0, 1), "task": task}
    torch.manual_seed(0)
    plain = minimal(net, data, 0.2, **told)
    assert plain.settings.remarks == ()
    with pytest.warns(Doubt, match="two passes over the same samples give different outputs"):
        found = minimal(kind(net), data, 0.2, **told)
    lost = sum(math.isnan(row.distance) for row in found.rows)
    assert lost == sum(math.isnan(row.distance) for row in plain.rows)
    assert 0.5 * plain.median() < found.median() < 1.5 * plain.median()


def test_a_point_that_is_right_again_stays_where_it_was_seen_wrong() -> None:
    # Wrong at every other pass, beyond 0.5: nothing but a second look finds out.
    class Every(nn.Module):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            return half()(x - 0.1 * (self.passes % 2))

    with pytest.warns(Doubt, match="two passes"):
        found = minimal(Every(), halves(), 0.2, bounds=(0, 1))
    assert all(row.distance < 0.75 for row in found.rows)


def test_random_outputs_are_remarked_everywhere() -> None:
    net, data = Noisy(half(), 0.05), halves()
    with pytest.warns(Doubt, match="every figure is of one draw"):
        assert evaluate(net, data, 0.1, "ifgsm-2", bounds=(0, 1)).settings.remarks
    with pytest.warns(Doubt, match="every figure is of one draw"):
        found = run_checks(net, data, 0.1, bounds=(0, 1), steps=2)
    assert any(check.name == "deterministic" and check.tripped for check in found.checks)
    quiet = evaluate(nn.Sequential(half(), nn.Dropout(0.5)), data, 0.1, "ifgsm-2", bounds=(0, 1))
    assert quiet.settings.remarks == ()


# 2. Cases of several sizes.

SIZES = {
    "one large": [100, *[5] * 9],
    "two large": [200, 100, *[5] * 18],
    "three": [40, 10, 10],
    "two": [39, 1],
    "mixed": [30, 20, 10, 10, 5, 5, 5, 3, 2, 2, 1, 1],
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("alike", [0.999, 0.3, 0.001])
def test_intervals_of_shares_hold_the_truth(name: str, alike: float) -> None:
    sizes, rng, truth, runs, held = SIZES[name], np.random.default_rng(1), 0.7, 400, 0
    # Nearly 0 or 1, or nearly the same for all cases, where samples of one are alike or not.
    spread = (1 - alike) / alike
    for _ in range(runs):
        shares = rng.beta(truth * spread, (1 - truth) * spread, len(sizes))
        cases = [(int(rng.binomial(n, p)), n) for n, p in zip(sizes, shares, strict=True)]
        n = sum(sizes)
        share = sum(right for right, _ in cases) / n
        low, high = share_interval(share, n, effective(cases))
        held += low <= truth <= high
    # Of two cases alone much less can be known.
    assert held / runs > (0.75 if len(sizes) < 4 else 0.9)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("spread", [0.1, 0.0])
def test_intervals_of_dice_hold_the_truth(name: str, spread: float) -> None:
    sizes, rng, runs, held = SIZES[name], np.random.default_rng(1), 400, 0
    cases = np.repeat([f"case {i}" for i in range(len(sizes))], sizes)
    for _ in range(runs):
        each = np.repeat(spread * rng.standard_normal(len(sizes)), sizes)
        values = 0.5 + each + 0.03 * rng.standard_normal(len(cases))
        low, high = mean_interval(values[:, None], cases)
        held += low <= 0.5 <= high
    # Too narrow for few cases, as it says.
    assert held / runs > {"three": 0.75, "two": 0.65}.get(name, 0.88)


def test_cases_of_one_size_are_worth_what_they_were() -> None:
    # The ratio estimator alone, as before: C / (C - 1) * sum of squares / n^2.
    cases = [(4, 5), (5, 5), (1, 5), (3, 5)]
    share = 13 / 20
    squares = sum((right - share * n) ** 2 for right, n in cases)
    assert effective(cases) == pytest.approx(share * (1 - share) / (4 / 3 * squares / 400))
    assert effective([(5, 5)] * 7) == 7
    # Where all are alike by chance, a large case is worth no more than itself.
    assert effective([(100, 100), *[(5, 5)] * 9]) == pytest.approx(145**2 / (100**2 + 9 * 25))
    assert effective([(0, 39), (0, 1)]) < 1.1


# 3. Outputs without a batch where one sample is left.


def squeezed(inner: nn.Module, *dims: int) -> nn.Module:
    return Around(inner, lambda z: z.squeeze(*dims))


def problem(name: str) -> tuple[nn.Module, Tensor, Tensor, Task]:
    torch.manual_seed(1)
    if name in ("masks", "regions"):
        net, x = nn.Conv2d(1, 2, 3, padding=1), torch.rand(6, 1, 5, 5) - 0.5
        y = net(x).argmax(1) if name == "masks" else (net(x) > 0).float()
        return net, x, y, Segmentation(regions=name == "regions")
    net, x = nn.Linear(4, 1 if name == "one logit" else 3), torch.rand(11, 4) - 0.5
    y = Classification().predict(net(x))
    y[::5] = (y[::5] + 1) % (2 if name == "one logit" else 3)
    return net, x, y, Classification()


PROBLEMS = ("classes", "one logit", "masks", "regions")

METHODS: dict[str, Callable[[Task, int], Method]] = {
    "standard": lambda task, _: ima.Standard(task=task),
    "sat": lambda task, _: ima.SAT(eps=0.3, task=task),
    "ima": lambda task, n: ima.IMA(num_samples=n, eps=0.3, delta=0.1, task=task),
    "released": lambda task, n: ima.IMA(
        num_samples=n, eps=0.3, delta=0.1, task=task, variant="released"
    ),
    "dat": lambda task, _: ima.DAT(eps=0.3, task=task),
    "fat": lambda task, _: ima.FAT(eps=0.3, task=task),
    "iaat": lambda task, n: ima.IAAT(num_samples=n, eps=0.3, task=task),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dims", [(), (0,)])
def test_squeezed_outputs_are_measured_as_others(name: str, dims: tuple[int, ...]) -> None:
    net, x, y, task = problem(name)
    other, data = squeezed(net, *dims), TensorDataset(x, y)
    attacks = ["pgd-3", "ifgsm-2", "hopskipjump-2"]
    attacks += ["autoattack"] if isinstance(task, Classification) else []
    told: dict[str, Any] = {"task": task, "bounds": (-1, 1), "batch_size": 5}
    both = [
        (
            [row.distance for row in minimal(model, data, 0.2, **told).rows],
            [evaluate(model, data, [0.1, 0.3], attacks, **told).mean(a, 0.3) for a in attacks],
            ima.bpgd(model, x, y, 0.3, task=task).x.tolist(),
            ima.ddn(model, x, y, task=task, steps=5).x.tolist(),
        )
        for model in (net, other)
    ]
    np.testing.assert_equal(both[1], both[0])


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", METHODS)
def test_squeezed_outputs_are_trained_as_others(name: str, method: str) -> None:
    net, x, y, task = problem(name)
    losses: list[list[float]] = []
    for model in (net, squeezed(net)):
        step = METHODS[method](task, len(x))
        # The last batch is one sample alone, too.
        parts = torch.arange(len(x)).split(5)
        losses.append([float(step(model, x[at], y[at], at).loss.detach()) for at in parts])
    assert losses[0] == losses[1]


def test_an_output_whose_samples_are_not_in_the_first_dimension_is_refused() -> None:
    net, x, y, _ = problem("classes")
    for after in (lambda z: z.T, lambda z: z.mean(0), lambda z: z.reshape(-1)):
        bad = Around(net, after)
        for call in (
            lambda bad=bad: evaluate(bad, TensorDataset(x, y), 0.1, "pgd-2"),
            lambda bad=bad: ima.pgd(bad, x, y, 0.1),
            lambda bad=bad: ima.SAT(eps=0.1)(bad, x, y, torch.arange(11)),
        ):
            with pytest.raises(ValueError, match=r"for \d+ samples; expected the samples in the"):
                call()


def test_masks_never_broadcast_against_another_truth() -> None:
    task = Segmentation(regions=True)
    with pytest.raises(ValueError, match="expected as many dimensions"):
        task.loss(torch.rand(1, 5, 5), torch.ones(1, 1, 5, 5))


# 4. Outputs on one side of 0.


def mse() -> nn.Module:
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.8, 0.0, 0.0, 0.0]]))
        layer.bias.fill_(0.1)
    return layer


SIDES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "trained by mse": (mse, "above 0"),
    "first entry": (lambda: Around(nn.Identity(), lambda x: x[:, :1]), "above 0"),
    "log of a sigmoid": (
        lambda: Around(nn.Identity(), lambda x: nn.functional.logsigmoid(9 * x[:, :1] - 4.5)),
        "0 or below",
    ),
    "per cent": (
        lambda: Around(nn.Identity(), lambda x: 100 * torch.sigmoid(9 * x[:, :1] - 4.5)),
        "above 0",
    ),
}


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("size", [1, 16])
def test_outputs_on_one_side_of_0_are_remarked(name: str, size: int) -> None:
    make, side = SIDES[name]
    with pytest.warns(Doubt, match=f"all outputs are {side}, so that every decision"):
        found = evaluate(make(), halves(), 0.05, "ifgsm-2", bounds=(0, 1), batch_size=size)
    assert len(found.settings.remarks) == 1
    with pytest.warns(Doubt, match=f"all outputs are {side}"):
        minimal(make(), halves(), 0.05, bounds=(0, 1), batch_size=size)
    with pytest.warns(Doubt, match=f"all outputs are {side}"):
        run_checks(make(), halves(), 0.05, bounds=(0, 1), steps=2)


def clamped(layer: nn.Module) -> nn.Module:
    return Around(layer, lambda z: (z / 4 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("call", [evaluate, minimal, run_checks])
@pytest.mark.parametrize("kind", ["one", "regions", "findings"])
def test_a_clamp_makes_a_probability_of_a_linear_output(kind: str, call: Any) -> None:
    x, _ = halves().tensors
    if kind == "one":
        layer, y, task = nn.Linear(4, 1), (x[:, 0] > 0.5).long(), None
    elif kind == "findings":
        layer, y, task = nn.Linear(4, 4), (x > 0.5).long(), ima.MultiLabel()
    else:
        x = x.reshape(-1, 1, 2, 2)
        layer, y, task = nn.Conv2d(1, 1, 1), (x > 0.5).float(), Segmentation(regions=True)
    with torch.no_grad():
        rows = torch.eye(*layer.weight.flatten(1).shape)
        layer.weight.copy_(10 * rows.reshape(layer.weight.shape))
        layer.get_parameter("bias").fill_(-5)
    data = TensorDataset(x, y)
    with pytest.raises(ValueError, match=r"probabilit.*decisions at 0\.5 fit the labels better"):
        call(clamped(layer), data, 0.1, bounds=(0, 1), task=task)
    honest = Around(layer, lambda z: z.clamp(-20, 20))
    found = call(honest, data, 0.1, bounds=(0, 1), task=task)
    assert found.settings.remarks == ()


def test_what_is_clamped_below_is_not_said_to_be_decided_alike() -> None:
    # Few are between 0 and 1, so that decisions at 0 and at 0.5 fit the labels alike.
    net = Around(half(), lambda z: (1000 * z[:, 1:]).clamp(0, 1))
    x, _ = halves().tensors
    data = TensorDataset(x, (net(x)[:, 0] > 0.5).long())
    with pytest.warns(Doubt, match="samples lie between 0 and 1; if they are probabilities"):
        evaluate(net, data, 0.01, "ifgsm-2", bounds=(0, 1))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_checks_see_a_softmax_in_half_precision(dtype: torch.dtype, back: bool) -> None:
    def half_softmax(z: Tensor) -> Tensor:
        p = (7 * z).to(dtype).softmax(1)
        return p.float() if back else p

    net = Around(nn.Linear(4, 9), half_softmax)
    x, _ = halves(40).tensors
    data = TensorDataset(x, net(x).argmax(1))
    with pytest.warns(Doubt, match="sum to 1, as after a softmax"):
        found = run_checks(net, data, 0.01, bounds=(0, 1), steps=2)
    tripped = {check.name: check.tripped for check in found.checks}
    assert tripped["probabilities"] and not tripped["deterministic"]


def test_honest_logits_in_half_precision_sum_to_anything() -> None:
    net = Around(nn.Linear(4, 200), lambda z: (z.sigmoid().bfloat16() / 80).tanh())
    x, _ = halves(40).tensors
    assert not bool(watch.sums_to_one(net(x)).any())


def test_a_batch_norm_of_one_sample_is_explained_as_such() -> None:
    net = Around(half(), lambda z: nn.functional.batch_norm(z, None, None, training=True))
    with pytest.raises(ValueError, match="BatchNorm layer takes its statistics from the batch"):
        evaluate(net, halves(), 0.1, "ifgsm-2", bounds=(0, 1), batch_size=1)


def test_regions_on_one_side_of_0_are_remarked() -> None:
    x = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    data, task = TensorDataset(x, (x > 0.5).float()), Segmentation(regions=True)
    net = Around(nn.Identity(), lambda x: nn.functional.logsigmoid(9 * x - 4.5))
    with pytest.warns(Doubt, match=r"all outputs are 0 or below.*foreground"):
        evaluate(net, data, 0.05, "ifgsm-2", bounds=(0, 1), task=task)


def test_honest_networks_have_no_remark_on_sides() -> None:
    constant = nn.Linear(4, 1)
    with torch.no_grad():
        constant.weight.copy_(torch.tensor([[0.0, 0.01, 0.01, 0.01]]))
        constant.bias.fill_(-2)
    for net in (constant, Around(nn.Identity(), lambda x: x[:, :1] - 0.5)):
        found = evaluate(net, halves(), 0.05, "ifgsm-2", bounds=(0, 1))
        assert found.settings.remarks == ()
    # One kind of labels alone says nothing.
    x, _ = halves().tensors
    ones = TensorDataset(x, torch.ones(len(x), dtype=torch.long))
    assert evaluate(mse(), ones, 0.05, "ifgsm-2", bounds=(0, 1)).settings.remarks == ()


# 5. Another default dtype.


@contextmanager
def default(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("bounds", [(0, 1), None])
@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_default_dtype_changes_nothing(
    name: str, norm: float, bounds: tuple[float, float] | None, dtype: torch.dtype
) -> None:
    net, x, y, task = problem(name)
    net, x = net.to(dtype), (x + 0.5).to(dtype)
    y = task.predict(net(x).float())
    y = y.float() if name == "regions" else y
    data = TensorDataset(x, y)
    attacks = ["pgd-2", "ifgsm-2", "hopskipjump-2", "noise-3", "white-3"]
    if isinstance(task, Classification) and bounds and dtype != torch.float16:
        attacks += ["autoattack", "autoattack+"]

    def measured() -> Any:
        found = evaluate(net, data, 0.1, attacks, norm=norm, bounds=bounds, task=task)
        near = minimal(net, data, 0.1, norm=norm, bounds=bounds, task=task)
        ddn = ima.ddn(net, x, y, steps=5, norm=norm, bounds=bounds, task=task)
        return (
            [found.columns[column].tolist() for column in ("quality", "size")],
            [row.distance for row in near.rows],
            ddn.x.tolist(),
            str(ddn.x.dtype),
        )

    expected = measured()
    with default(torch.float64):
        np.testing.assert_equal(measured(), expected)


def test_checks_run_under_another_default_dtype() -> None:
    with default(torch.float64):
        for dtype in (torch.float64, torch.float32):
            x, y = halves().tensors
            found = run_checks(
                half().to(dtype),
                TensorDataset(x.to(dtype), y),
                0.1,
                norm=math.inf,
                bounds=(0, 1),
                steps=2,
            )
            assert not any(check.tripped for check in found.checks if check.name == "black-box")


# 6. One sample taken for a batch.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["classes", "masks", "regions"])
@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_one_sample_is_no_batch(kind: str, name: str, method: str) -> None:
    net, x, y, task = problem(name)
    samples = ima.Indexed(TensorDataset(x, y))
    a, b, i = next(iter(DataLoader(samples, batch_size=None)))
    step = METHODS[method](task, len(x))
    with pytest.raises(ValueError, match="one sample came without a batch"):
        step(net, a, b, i if kind == "number" else torch.tensor(i))


@pytest.mark.parametrize("method", METHODS)
def test_samples_targets_and_ids_are_as_many(method: str) -> None:
    net, x, y, task = problem("classes")
    step = METHODS[method](task, len(x))
    with pytest.raises(ValueError, match="5 ids came with 11 samples"):
        step(net, x, y, torch.arange(5))
    with pytest.raises(ValueError, match="5 targets came with 11 samples"):
        step(net, x, y[:5], torch.arange(11))


@pytest.mark.parametrize("method", ["standard", "sat", "dat", "fat"])
def test_a_convolution_that_takes_a_sample_for_a_batch_is_seen(method: str) -> None:
    # Regions (R, H, W) of an image (C, H, W), C = R: read as a batch of signals, all fits.
    net, x = nn.Conv2d(2, 2, 3, padding=1), torch.rand(2, 5, 5)
    task, none = Segmentation(regions=True), torch.arange(2)
    with pytest.raises(ValueError, match="for one sample without a batch"):
        METHODS[method](task, 2)(net, x, (x > 0.5).float(), none)
    step = METHODS[method](task, 2)(net, x[None], (x > 0.5).float()[None], none[:1])
    assert math.isfinite(float(step.loss.detach()))


LACKING = r"of shape \(4, 6, 6\).*samples of shape \(6, 6\) lack the dimension of channels"
FORMS: dict[str, Any] = {
    "data set": TensorDataset,
    "samples": lambda x, y: list(zip(x, y, strict=True)),
    "batches": lambda x, y: [(x, y)],
}


def flat_images(channels: int, kind: str) -> tuple[nn.Module, Tensor, Tensor, Any]:
    """Images (4, 6, 6) without channels, and a network that takes them with `channels`."""
    x, layer = torch.rand(4, 6, 6, generator=seeded(0)), nn.Conv2d(channels, 2, 1)
    if kind == "masks":
        return layer, x, (x > 0.5).long(), Segmentation()
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(72, 2)), x, torch.arange(4) % 2, None


@pytest.mark.parametrize("kind", ["classes", "masks"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [evaluate, minimal, run_checks])
def test_samples_without_channels_are_told_what_to_do(call: Any, form: str, kind: str) -> None:
    net, x, y, task = flat_images(1, kind)
    with pytest.raises(ValueError, match=LACKING):
        call(net, FORMS[form](x, y), 0.1, task=task)


ATTACKS: dict[str, Callable[..., Any]] = {
    "pgd": lambda net, x, y, task: ima.pgd(net, x, y, 0.1, task=task),
    "ifgsm": lambda net, x, y, task: ima.ifgsm(net, x, y, 0.1, task=task),
    "bpgd": lambda net, x, y, task: ima.bpgd(net, x, y, 0.1, task=task),
    "ddn": lambda net, x, y, task: ima.ddn(net, x, y, task=task),
    "nearer": lambda net, x, y, task: nearer(net, x, y, x, task=task),
    "trades": lambda net, x, y, task: ima.TRADES(eps=0.1, task=task)(net, x, y, torch.arange(4)),
}


@pytest.mark.parametrize("kind", ["classes", "masks"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_without_channels_are_told_what_to_do(name: str, kind: str) -> None:
    net, x, y, task = flat_images(1, kind)
    with pytest.raises(ValueError, match=LACKING):
        ATTACKS[name](net, x, y, task)
    net, x, y, task = flat_images(3, kind)
    with pytest.raises(RuntimeError, match=r"stops at samples of shape \(1, 6, 6\): Given"):
        ATTACKS[name](net, x[:, None], y, task)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_refuses_one_sample_without_a_batch(name: str) -> None:
    net, x, task = nn.Conv2d(4, 4, 1), torch.rand(4, 5, 5), Segmentation(regions=True)
    with pytest.raises(ValueError, match="for one sample without a batch"):
        ATTACKS[name](net, x, (x > 0.5).float(), task)


class Unsqueezing(nn.Module):
    """Takes images without channels, as an honest network may."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.reshape(-1, 1, *x.shape[-2:]))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_network_that_adds_the_channels_itself_is_taken(size: int) -> None:
    x, task = torch.rand(size, 5, 5), Segmentation()
    y = (x > 0.5).long()
    found = ima.pgd(Unsqueezing(), x, y, 0.1, steps=2, task=task)
    assert found.x.shape == x.shape
    data = TensorDataset(x, y)
    assert len(evaluate(Unsqueezing(), data, 0.1, "ifgsm-2", task=task).rows) == 2 * size
    step = ima.Standard(task=task)(Unsqueezing(), x, y, torch.arange(size))
    assert math.isfinite(float(step.loss.detach()))


class Leading(nn.Module):
    """Takes features behind any leading dimensions, with a weight of three, as KANs do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 4, 5, generator=seeded(1)) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(
            "...ig,oig->...o", (5 * x[..., None] - torch.arange(5)).cos(), self.weight
        )


class Quadratic(nn.Bilinear):
    """A bilinear layer of a sample with itself."""

    def __init__(self) -> None:
        super().__init__(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x)


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("kind", [Leading, Quadratic])
def test_a_network_of_any_leading_dimensions_is_taken(
    kind: Callable[[], nn.Module], size: int
) -> None:
    net, x = kind(), torch.rand(size, 4, generator=seeded(0))
    y = net(x).argmax(1)
    assert torch.isfinite(ima.ddn(net, x, y).x).all()
    assert evaluate(net, TensorDataset(x, y), 0.1, "ifgsm-2").accuracy() == 1.0
    assert len(minimal(net, TensorDataset(x, y), 0.1).rows) == size
    step = ima.TRADES(eps=0.1, steps=2)(net, x, y, torch.arange(size))
    assert math.isfinite(float(step.loss.detach()))


def test_no_pass_is_made_to_explain_an_error_that_is_another() -> None:
    passes: list[int] = []
    net, (x, y) = half(), halves(8).tensors
    net.register_forward_hook(lambda *_: passes.append(1))
    ima.ddn(net, x, y, steps=3)
    assert len(passes) == 4
    with pytest.raises(ValueError, match="label 5"):
        ima.ddn(net, x, y + 5, steps=3)


@pytest.mark.parametrize("method", ["standard", "sat", "ima"])
@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_training_without_channels_is_told_what_to_do(kind: str, method: str) -> None:
    net, x, y, task = flat_images(1, kind)
    with pytest.raises(ValueError, match=LACKING):
        METHODS[method](task, 4)(net, x, y, torch.arange(4))


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_a_network_that_stops_is_quoted_with_the_shape_of_the_batch(kind: str) -> None:
    net, x, y, task = flat_images(3, kind)
    said = r"the network stops at samples of shape \(6, 6\): Given groups=1"
    with pytest.raises(RuntimeError, match=said):
        evaluate(net, TensorDataset(x, y), 0.1, ["pgd-1"], task=task)


# 7. Paths as text.


def test_paths_may_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net, data = half(), halves(12)
    found = evaluate(net, data, 0.1, "ifgsm-2", bounds=(0, 1), partial="p")
    again = evaluate(net, data, 0.1, "ifgsm-2", bounds=(0, 1), partial="p")
    assert found.columns["quality"].tolist() == again.columns["quality"].tolist()
    found.to_csv("r.csv")
    assert Results.from_csv("r.csv").mean() == found.mean()
    near = minimal(net, data, 0.1, bounds=(0, 1), partial="d.part")
    near.to_csv("d.csv")
    assert Distances.from_csv("d.csv").rows == near.rows
    checks = run_checks(net, data, 0.1, bounds=(0, 1), steps=2, partial="c.part")
    checks.to_json("c.json")
    assert Checks.from_json("c.json") == checks


# 9 and 10. Files, data and words.


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((4, 4), value, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root: Path) -> Path:
    for label in range(2):
        for i in range(8):
            image(root / f"class{label}" / f"{i}.png", 16 * i + label)
    return root


def zipped(root: Path, **more: bytes) -> Path:
    made = root.with_suffix(".zip")
    with zipfile.ZipFile(made, "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, str(file.relative_to(root)))
        for name, content in more.items():
            archive.writestr(name, content)
    return made


@pytest.mark.parametrize("archived", [False, True])
def test_images_in_hidden_folders_are_counted(archived: bool, tmp_path: Path) -> None:
    root = folder(tmp_path / "x")
    for place in (".class2/a.png", "class0/.thumbnails/a.png", "__MACOSX/class0/b.png"):
        image(root / place, 200)
    found = load("folder", path=zipped(root) if archived else root)
    assert "3 images in hidden folders were left out: .class2, __MACOSX/class0, class0/.thumb" in (
        found.note
    )
    assert str(tmp_path) not in found.note


def test_a_path_out_of_an_archive_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "x")
    raw = (root / "class0" / "1.png").read_bytes()
    with pytest.raises(ValueError, match=r"\.\./class0/b\.png, which lies outside of it"):
        load("folder", path=zipped(root, **{"../class0/b.png": raw}))


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "it is empty"), (b"words", "it holds no picture of a format")]
)
def test_a_file_without_a_picture_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "x")
    (root / "class1" / "9.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"9\.png cannot be decoded \({said}") as error:
        load("folder", path=root)
    assert "BytesIO" not in str(error.value)


def test_items_without_numbers_are_told() -> None:
    class Labelled:
        """As a pandas Series with an index of its own."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, key: object) -> object:
            raise KeyError(key)

        def __iter__(self) -> Iterator[object]:
            return iter([])

    data: Any = Labelled()
    with pytest.raises(ValueError, match=r"item 0 cannot be read: 0; .*list\(data\)"):
        evaluate(half(), data, 0.1)


def test_an_array_of_samples_is_told_from_one_of_numbers() -> None:
    samples = np.empty(3, dtype=object)
    samples[:] = [(torch.rand(4), 0)] * 3
    with pytest.raises(TypeError, match=r"an array of 3 objects; .*list\(data\)"):
        evaluate(half(), samples, 0.1)


@pytest.mark.parametrize(("low", "high", "middle"), [(0.1, 0.9, "0.5"), (-1, 1, "0")])
def test_smoothed_masks_are_told_what_to_do(low: float, high: float, middle: str) -> None:
    logits, hot = torch.rand(2, 2, 3, 3), torch.tensor([low, high]).repeat(2, 9).reshape(2, 2, 3, 3)
    with pytest.raises(ValueError, match=rf"pass \(y > {middle}\)\.float\(\)"):
        Segmentation(regions=True).check(logits, hot)
    with pytest.raises(ValueError, match=rf"pass y\.argmax\(1\); .*\(y > {middle}\)\.float\(\)"):
        Segmentation().check(logits, hot)


def test_cases_may_be_a_method() -> None:
    from ima.training.foreign import cases_of

    class Own(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def cases(self) -> list[str]:
            return ["a", "b"]

    assert cases_of(Own(), None) == ["a", "b"]
    assert cases_of(DataLoader(Own()), None) == ["a", "b"]
