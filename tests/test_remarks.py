"""What a network returns: remarks on the figures, and refusals where decisions would be wrong."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Results, Segmentation, evaluate, minimal
from ima.attacks import bpgd, ddn, ifgsm, pgd
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.mates import meet
from ima.evaluation.remarks import Doubt
from ima.evaluation.settings import Settings
from ima.methods import METHODS
from ima.tasks import Classification

SIGMOID = "probability and no logit"


class Around(nn.Module):
    """A network whose outputs go through `after`, within `context`."""

    def __init__(
        self,
        inner: nn.Module,
        after: Callable[[Tensor], Tensor] = lambda z: z,
        context: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.after, self.context = inner, after, context

    def forward(self, x: Tensor) -> Tensor:
        if self.context is None:
            return self.after(self.inner(x))
        with self.context():
            return self.after(self.inner(x))


def line(outputs: int = 1) -> nn.Linear:
    """Class 1 where x is above 0.5."""
    layer = nn.Linear(1, outputs)
    with torch.no_grad():
        slopes = {1: [10.0], 2: [-5.0, 5.0], 3: [-5.0, 5.0, 0.0]}[outputs]
        layer.weight.copy_(torch.tensor(slopes)[:, None])
        layer.bias.copy_(torch.tensor({1: [-5.0], 2: [2.5, -2.5], 3: [2.5, -2.5, -9.0]}[outputs]))
    return layer


X, Y = torch.tensor([[0.2], [0.8]]), torch.tensor([0, 1])
TWO = TensorDataset(X, Y)


def sigmoid_by_hand(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


SQUASHED: dict[str, nn.Module] = {
    "a sigmoid": nn.Sequential(line(), nn.Sigmoid()),
    "as (B,)": Around(line(), lambda z: z.sigmoid()[:, 0]),
    "a hard sigmoid": nn.Sequential(line(), nn.Hardsigmoid()),
    "clamped": Around(line(), lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6)),
    "by hand": Around(line(), sigmoid_by_hand),
    "one column of a softmax": Around(line(2), lambda z: z.softmax(1)[:, 1:]),
    "without a graph": Around(line(), torch.sigmoid, torch.no_grad),
    "in inference mode": Around(line(), torch.sigmoid, torch.inference_mode),
    "averaged": Around(line(), lambda z: torch.stack((z.sigmoid(), (z * 2).sigmoid())).mean(0)),
}

CALLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "evaluate": lambda m, d: evaluate(m, d, 0.4, ["pgd-3", "noise-3"], bounds=(0, 1)),
    "clean": lambda m, d: evaluate(m, d, [], [], bounds=(0, 1)),
    "without bounds": lambda m, d: evaluate(m, d, 0.4, ["ifgsm-3"], norm="linf"),
    "minimal": lambda m, d: minimal(m, d, 0.4),
    "checks": lambda m, d: run_checks(m, d, 0.4, bounds=(0, 1), steps=3),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SQUASHED)
def test_one_output_that_is_a_probability_is_refused(name: str, call: str) -> None:
    with pytest.raises(ValueError, match=rf"{SIGMOID}.*torch\.logit"):
        CALLS[call](SQUASHED[name], TWO)


def test_it_is_refused_over_all_batches_and_after_a_resume(tmp_path: Path) -> None:
    data = [(X, Y), (X.flip(0), Y.flip(0))]
    model = SQUASHED["by hand"]
    for _ in range(2):
        with pytest.raises(ValueError, match="all 4 samples"):
            evaluate(model, data, 0.4, ["pgd-3"], bounds=(0, 1), partial=tmp_path / "part")


def steady(x: Tensor) -> Tensor:
    """Logits of 0.25 to 0.75, without any layer that a graph could show."""
    return 0.25 + 0.5 * x.flatten(1).mean(1, keepdim=True).clamp(0, 1)


HONEST: dict[str, tuple[nn.Module, Tensor]] = {
    "logits": (line(), Y),
    "always class 1, by a linear layer": (
        Around(nn.Linear(1, 1), lambda z: 0 * z + 0.3),
        Y * 0 + 1,
    ),
    "outputs of exactly 0": (Around(nn.Identity(), lambda x: 0 * x), Y),
    "bounded logits that fit no better at 0.5": (Around(nn.Identity(), steady), Y * 0 + 1),
    "bounded logits of tanh": (Around(line(), torch.tanh), Y),
    "a probability minus a threshold": (Around(line(), lambda z: z.sigmoid() - 0.5), Y),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_logits_are_not_refused(name: str) -> None:
    model, y = HONEST[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        evaluate(model, TensorDataset(X, y), 0.1, ["noise-3"], bounds=(0, 1))


def test_a_layer_whose_logits_lie_between_0_and_1_is_no_sigmoid() -> None:
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    x = torch.linspace(0.1, 0.9, 20)[:, None]
    # Labels that it knows nothing of; of others, see `test_second_reading`.
    found = evaluate(layer, TensorDataset(x, torch.arange(20) % 2), 0.05, ["pgd-3"])
    assert found.remarks == () and found.accuracy() == 0.5
    with pytest.warns(Doubt, match="all outputs are above 0"):
        found = evaluate(layer, TensorDataset(x, (x[:, 0] > 0.5).long()), 0.05, ["pgd-3"])
    assert "sigmoid" not in found.remarks[0] and found.accuracy() == 0.5


@pytest.mark.parametrize(
    ("after", "outputs", "said"),
    [
        (lambda z: z.softmax(1), 2, "sum to 1, as after a softmax"),
        (lambda z: z.softmax(1), 3, "sum to 1, as after a softmax"),
        (lambda z: torch.cat((1 - z.sigmoid(), z.sigmoid()), 1), 1, "sum to 1, as after a softmax"),
        (torch.sigmoid, 3, "as after a sigmoid"),
        (lambda z: z.log_softmax(1), 2, ""),
        (lambda z: z, 3, ""),
    ],
)
@pytest.mark.parametrize("call", ["evaluate", "minimal", "checks"])
def test_probabilities_of_classes_are_remarked(
    after: Callable[[Tensor], Tensor], outputs: int, said: str, call: str
) -> None:
    model = Around(line(outputs), after)
    data = TensorDataset(X.repeat(4, 1), Y.repeat(4))
    if not said:
        assert CALLS[call](model, data).remarks == ()
        return
    with pytest.warns(Doubt, match=said) as caught:
        found = CALLS[call](model, data)
    assert len(caught) == 1
    assert [said in one for one in found.remarks] == [True]


# --- Segmentation ---------------------------------------------------------------------------------

BRIGHT = torch.full((4, 1, 8, 8), -1.0)
BRIGHT[..., 2:6, 2:6] = 1.0
MASKS = (BRIGHT > 0).float()


def pixels() -> nn.Conv2d:
    """Foreground where the image is bright."""
    layer = nn.Conv2d(1, 1, 1)
    nn.init.constant_(layer.weight, 4.0)
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize("after", [torch.sigmoid, sigmoid_by_hand])
def test_regions_through_a_sigmoid_are_refused(after: Callable[[Tensor], Tensor]) -> None:
    task, data = Segmentation(regions=True), TensorDataset(BRIGHT, MASKS)
    assert evaluate(pixels(), data, 0.5, ["pgd-2"], task=task).adi() == 1
    with pytest.raises(ValueError, match=r"probabilities of regions.*foreground.*torch\.logit"):
        evaluate(Around(pixels(), after), data, 0.5, ["pgd-2"], task=task)
    with pytest.raises(ValueError, match="probabilities of regions"):
        run_checks(Around(pixels(), after), data, 0.5, task=task, steps=2)


def two_channels() -> nn.Module:
    return Around(pixels(), lambda z: torch.cat((-z, z), 1))


def test_a_softmax_of_labels_is_remarked(tmp_path: Path) -> None:
    data = TensorDataset(BRIGHT, MASKS[:, 0].long())
    model = Around(two_channels(), lambda z: z.softmax(1))
    with pytest.warns(Doubt, match="sum to 1"):
        found = evaluate(model, data, 0.5, ["pgd-2"], task=Segmentation())
    found.to_csv(tmp_path / "results.csv")
    assert Results.from_csv(tmp_path / "results.csv").remarks == found.remarks
    assert evaluate(two_channels(), data, 0.5, ["pgd-2"], task=Segmentation()).remarks == ()


# --- No gradient ----------------------------------------------------------------------------------


class Rounding(torch.autograd.Function):
    """Rounds, and gives no gradient at all rather than one of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return (255 * x).round() / 255

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> None:  # noqa: ARG004
        return None


BLIND: dict[str, nn.Module] = {
    "no gradient given": nn.Sequential(Around(nn.Identity(), Rounding.apply), line(2)),
    "no_grad": Around(line(2), context=torch.no_grad),
    "inference_mode": Around(line(2), context=torch.inference_mode),
    "detach": Around(line(2), lambda z: z.detach()),
    "detached inputs": nn.Sequential(Around(nn.Identity(), lambda x: x.detach()), line(2)),
    "rounding": Around(line(2), torch.round),
    "one output": Around(line(), context=torch.inference_mode),
}
STILL = "no attack that follows gradients could move 2 of 2 samples"


@pytest.mark.parametrize("name", BLIND)
def test_no_gradient_is_said_and_stops_nothing(name: str) -> None:
    model = BLIND[name]
    # Random noise finds what no gradient leads to, and Square too.
    for attacks, right in ((["pgd-3"], 1), (["ifgsm-3"], 1), (["pgd-3", "noise-60"], None)):
        with pytest.warns(Doubt, match=STILL):
            found = evaluate(model, TWO, 0.4, attacks, bounds=(0, 1))
        assert right is None or name == "rounding" or found.accuracy(attacks[0], 0.4) == right
        assert len(found.remarks) == 1 and found.accuracy() == 1
    with pytest.warns(Doubt, match=STILL):
        assert minimal(model, TWO, 0.4, bounds=(0, 1)).remarks
    data = TensorDataset(X.repeat(3, 1), Y.repeat(3))
    with pytest.warns(Doubt, match="of 6 samples"):
        found = run_checks(model, data, 0.4, bounds=(0, 1), steps=3)
    assert "gradients" in found.tripped


def steep() -> nn.Linear:
    """Class 1 where the first of two entries is above 0.5; saturated by a clamp away from it."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-60.0, 0.0], [60.0, 0.0]]))
        layer.bias.copy_(torch.tensor([30.0, -30.0]))
    return layer


PARTLY: dict[str, nn.Module] = {
    "clamp": Around(steep(), lambda z: z.clamp(-10, 10)),
    "detach": nn.Sequential(
        Around(nn.Identity(), lambda x: torch.where(x[:, 1:] < 0.8, x.detach(), x)), steep()
    ),
}


def pairs(n: int = 60) -> TensorDataset:
    x = torch.rand(n, 2, generator=seeded(0))
    return TensorDataset(x, (x[:, 0] > 0.5).long())


@pytest.mark.parametrize("name", PARTLY)
def test_no_gradient_for_most_samples_is_said(name: str, tmp_path: Path) -> None:
    model, data, said = PARTLY[name], pairs(), r"could move (3|4|5)\d of \d\d samples"
    for attack, eps, size in (
        ("pgd-3", [0.02], 256),
        ("pgd-3", [0.02, 0.4], 7),
        ("ifgsm-2", [0.02], 256),
        ("autoattack", [0.02], 256),
    ):
        with pytest.warns(Doubt, match=said):
            evaluate(model, data, eps, [attack], norm="linf", bounds=(0, 1), batch_size=size)
    with pytest.warns(Doubt, match=said):
        minimal(model, data, 0.02, bounds=(0, 1))
    assert evaluate(steep(), data, 0.02, ["pgd-3", "autoattack"], bounds=(0, 1)).remarks == ()


def test_a_loss_that_saturates_for_some_samples_is_said() -> None:
    data, steeper = pairs(), Around(steep(), lambda z: 10 * z)
    with pytest.warns(Doubt, match=r"could move (4|5)\d of \d\d samples"):
        evaluate(steeper, data, 0.001, ["autoattack"], norm="linf", bounds=(0, 1))
    found = evaluate(steeper, data, 0.001, ["autoattack", "pgd-2"], norm="linf", bounds=(0, 1))
    assert found.remarks == ()


def test_a_gradient_that_a_few_samples_lack_is_no_matter_for_a_remark() -> None:
    x = torch.rand(300, 2, generator=seeded(0))
    x[:2, 1] = 2

    def without(x: Tensor) -> Tensor:
        return torch.where(x[:, 1:] > 1, x.detach(), x)

    model = nn.Sequential(Around(nn.Identity(), without), steep())
    y = (x[:, 0] > 0.5).long()
    assert evaluate(model, TensorDataset(x, y), 0.02, ["pgd-2"]).remarks == ()
    with pytest.warns(Doubt, match="could move 2 of 40 samples"):
        evaluate(model, TensorDataset(x[:40], y[:40]), 0.02, ["pgd-2"])


def test_honest_networks_have_no_remark_on_gradients() -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 1, 8, 8)
    # Constant images, and ones on which the first layer's units are all off.
    x[:6], x[6:12] = 0, 1
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    small = nn.Sequential(*layers, nn.Linear(36, 3))
    y = torch.cat([small(x[:30]).argmax(1), torch.arange(10) % 3])
    for attack in ("pgd-3", "ifgsm-3"):
        found = evaluate(small, TensorDataset(x, y), [0.05, 1.0], [attack], bounds=(0, 1))
        assert found.remarks == () and found.accuracy() > 0.5

    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), nn.InstanceNorm2d(b, affine=True), nn.LeakyReLU()]

    shrink, grow = nn.MaxPool2d(2), nn.ConvTranspose2d(4, 4, 2, 2)
    net = nn.Sequential(*block(1, 4), shrink, *block(4, 4), grow, *block(4, 4), nn.Conv2d(4, 2, 1))
    for regions in (False, True):
        truth = (net(x) > 0).float() if regions else net(x).argmax(1)
        truth[:3] = 0
        task = Segmentation(regions=regions)
        for attack in ("pgd-2", "ensemble-2"):
            found = evaluate(net, TensorDataset(x, truth), 0.1, [attack], task=task, batch_size=10)
            assert found.remarks == ()


def test_empty_images_may_leave_all_units_off() -> None:
    torch.manual_seed(0)
    x, layer = torch.rand(20, 1, 6, 6), nn.Conv2d(1, 4, 3, bias=False)
    x[:8], layer.weight.data = 0, layer.weight.data.abs()
    net = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    data = TensorDataset(x, net(x).argmax(1))
    for attack in ("ifgsm-2", "pgd-2"):
        assert evaluate(net, data, 0.05, [attack], bounds=(0, 1)).remarks == ()


@pytest.mark.parametrize("blank", [4, 8])
def test_samples_without_a_valid_pixel_are_no_fault_of_the_network(blank: int) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(8, 1, 6, 6), torch.zeros(8, 6, 6).long()
    y[:, :3], y[:blank] = 1, 255
    net, task = nn.Conv2d(1, 2, 3, padding=1), Segmentation(ignore_label=255)
    assert evaluate(net, TensorDataset(x, y), 0.1, ["pgd-2"], task=task).remarks == ()


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("call", [evaluate, minimal, run_checks])
def test_outputs_that_are_no_numbers_to_compare_are_named(call: Any, dtype: torch.dtype) -> None:
    model = Around(line(2), lambda z: z.to(dtype))
    with pytest.raises(TypeError, match=f"the model returned {dtype}; expected floating-point"):
        call(model, TWO, 0.4, bounds=(0, 1))


@pytest.mark.parametrize("call", [evaluate, minimal, run_checks])
def test_a_function_is_no_network(call: Any) -> None:
    with pytest.raises(TypeError, match=r"model is a function; expected a torch\.nn\.Module"):
        call(lambda x: line(2)(x), TWO, 0.4)


def test_noise_alone_says_nothing_of_gradients() -> None:
    assert evaluate(BLIND["no_grad"], TWO, 0.4, ["noise-3"], bounds=(0, 1)).remarks == ()


def test_autoattack_breaks_a_network_in_inference_mode() -> None:
    x = X.reshape(2, 1, 1, 1).expand(2, 1, 6, 6).contiguous()
    inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), line(2))
    data = TensorDataset(x, Y)
    with pytest.warns(Doubt, match=STILL):
        found = evaluate(
            Around(inner, context=torch.inference_mode),
            data,
            0.4,
            ["autoattack"],
            norm="linf",
            bounds=(0, 1),
        )
    assert found.accuracy("autoattack", 0.4) == 0


@pytest.mark.parametrize(
    "attack", [pgd, ifgsm, bpgd, lambda m, x, y, eps: ddn(m, x, y, radius=eps)]
)
@pytest.mark.parametrize("name", BLIND)
def test_attacks_stay_where_no_gradient_is(attack: Any, name: str) -> None:
    found = attack(BLIND[name], X, Y, 0.4)
    assert torch.equal(found.x, X) and bool(found.stuck.all()) and not bool(found.crossed.any())


def make(name: str) -> Any:
    options: dict[str, Any] = {"eps": 0.1, "steps": 2}
    options |= {"delta": 0.05} if name == "ima" else {}
    options |= {"num_samples": 4} if name in ("ima", "mma", "iaat", "customized") else {}
    return METHODS[name].method(**({} if name == "standard" else options))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("blind", ["no_grad", "inference_mode", "detach"])
def test_no_method_trains_without_a_graph(name: str, blind: str) -> None:
    with pytest.raises(ValueError, match=r"no graph.*no_grad"):
        make(name)(BLIND[blind].train(), X, Y, torch.arange(2))


@pytest.mark.parametrize("name", METHODS)
def test_methods_warn_once_of_probabilities(name: str) -> None:
    method, model = make(name), Around(line(2), lambda z: z.softmax(1))
    with pytest.warns(UserWarning, match="as probabilities do"):
        method(model.train(), X, Y, torch.arange(2))
    # Warnings are errors here: it is said once.
    method(model, X, Y, torch.arange(2))


def test_values_tell_where_the_graph_does_not() -> None:
    method, model = make("standard"), Around(line(), sigmoid_by_hand)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(7):
            method(model.train(), X, Y, torch.arange(2))
    with pytest.warns(UserWarning, match="lie between 0 and 1 in all of 8"):
        method(model, X, Y, torch.arange(2))
    method(model, X, Y, torch.arange(2))


# --- Not finite under noise -----------------------------------------------------------------------

VALUES = {
    "nan": lambda z: torch.full_like(z, torch.nan),
    "one nan": lambda z: z.index_fill(1, torch.tensor([z.shape[1] - 1]), torch.nan),
    "inf": lambda z: z.index_fill(1, torch.tensor([0]), torch.inf),
    "-inf": lambda z: torch.full_like(z, -torch.inf),
}


class Fragile(nn.Module):
    """Finite on the data, whose first entry is a tenth, and not a number beside them."""

    def __init__(self, classes: int, value: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(36, classes))
        # What it walks along reaches the first entry.
        nn.init.constant_(self.inner[1].weight[0, :1], 1.0)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        z = 3 * self.inner(x)
        first = 10 * x.flatten(1)[:, :1]
        return torch.where((first - first.round()).abs() < 1e-3, z, VALUES[self.value](z))


def fragile(classes: int, value: str) -> tuple[nn.Module, TensorDataset]:
    torch.manual_seed(0)
    model, x = Fragile(classes, value), torch.rand(6, 1, 6, 6, generator=seeded(0))
    x[:, 0, 0, 0] = (10 * x[:, 0, 0, 0]).round() / 10
    with torch.no_grad():
        output = model(x)
    y = output.argmax(1) if classes > 1 else (output[:, 0] > 0).long()
    return model, TensorDataset(x, y)


@pytest.mark.parametrize("norm", [2, "linf"])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("classes", [1, 3])
def test_not_finite_counts_as_broken_everywhere(
    classes: int, value: str, norm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (("autoattack", "ITERATIONS"), ("autoattack", "_QUERIES")):
        monkeypatch.setattr(f"ima.evaluation.{module}.{name}", 20)
    monkeypatch.setattr("ima.evaluation.bench.QUERIES", 20)
    model, data = fragile(classes, value)
    for attack in ("pgd-3", "ifgsm-3", "noise-3", "white-3", "autoattack", "autoattack+"):
        with pytest.warns(Doubt, match="outputs were not finite for [1-6] noisy sample"):
            found = evaluate(model, data, 0.05, [attack], norm=norm, bounds=(0, 1))
        assert found.accuracy() == 1, attack
        assert not any(not row.broken for row in found.rows if row.attack == attack), attack
        assert not any("gradients" in remark for remark in found.remarks), attack
    with pytest.warns(Doubt, match="not finite"):
        near = minimal(model, data, 0.05, norm=norm, bounds=(0, 1))
    assert near.accuracy(0.05) == 0
    with pytest.warns(Doubt, match="not finite"):
        checked = run_checks(model, data, 0.05, ["autoattack"], norm=norm, bounds=(0, 1), steps=3)
    assert checked.tripped == ()
    x, y = data.tensors
    assert bool(bpgd(model, x, y, 0.05, norm=norm, bounds=(0, 1), steps=3).crossed.all())
    assert bool(ddn(model, x, y, radius=0.05, norm=norm, bounds=(0, 1), steps=3).crossed.all())


@pytest.mark.parametrize("attack", ["pgd-2", "ifgsm-2", "ensemble-2", "noise-2", "white-2"])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite_is_a_dice_of_0(attack: str, regions: bool, value: float) -> None:
    def torn(z: Tensor) -> Tensor:
        return z.masked_fill(
            (z.abs() - 4).abs().flatten(1).amax(1)[:, None, None, None] > 1e-3, value
        )

    inner = pixels() if regions else two_channels()
    data = TensorDataset(BRIGHT, MASKS if regions else MASKS[:, 0].long())
    with pytest.warns(Doubt, match="not finite for 4 noisy samples"):
        found = evaluate(
            Around(inner, torn), data, 0.1, [attack], task=Segmentation(regions=regions)
        )
    noisy = [row for row in found.rows if row.attack == attack]
    assert found.adi() == 1 and [row.quality for row in noisy] == [0.0] * 4
    (part,) = (name for name in found.columns if name.startswith("dice_"))
    assert [row.more[part] for row in noisy] == [0.0] * 4


def test_masked_logits_are_decisions() -> None:
    task, y = Classification(), torch.tensor([1, 1, 1, 1])
    inf, nan = torch.inf, torch.nan
    output = torch.tensor([[-inf, 2.0], [-inf, -inf], [0.0, inf], [nan, 1.0]])
    assert task.correct(output, y).tolist() == [True, False, False, False]
    assert (
        task.correct(torch.tensor([[3.0], [inf], [nan], [-inf]]), y).tolist()
        == [True] + [False] * 3
    )


# --- Batch mates ----------------------------------------------------------------------------------


def batch_norm(tracked: bool, spatial: bool = True) -> nn.Module:
    torch.manual_seed(1)
    if spatial:
        head: list[nn.Module] = [nn.Conv2d(1, 4, 3)]
        head += [nn.BatchNorm2d(4, track_running_stats=tracked), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*head, nn.Linear(64, 3)).eval()
    layer = nn.BatchNorm1d(8, track_running_stats=tracked)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), layer, nn.Linear(8, 3)).eval()


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = batch_norm(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(0, keepdim=True))


class Training(nn.Module):
    """BatchNorm that its own forward pass puts into training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.inner = nn.BatchNorm2d(1), batch_norm(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.bn.train()(x))


MIXED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no running statistics": (lambda: batch_norm(False), 'layer "1" has track_running_stats=False'),
    "centred on the batch": (Centred, "depends on the other samples of its batch"),
    "left in training mode": (Training, '"bn" puts itself into training mode'),
}


def images(n: int = 12) -> TensorDataset:
    return TensorDataset(torch.rand(n, 1, 6, 6, generator=seeded(0)), torch.arange(n) % 3)


@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize("name", MIXED)
def test_dependence_on_batch_mates_is_said(name: str, size: int) -> None:
    build, said = MIXED[name]
    with pytest.warns(Doubt, match=re.escape(said)):
        found = evaluate(build(), images(), 0.1, ["pgd-2"], bounds=(0, 1), batch_size=size)
    assert "batch size" in found.remarks[0]


def test_minimal_and_the_checks_say_it_too() -> None:
    model, data = batch_norm(False), images()
    data = TensorDataset(data.tensors[0], model(data.tensors[0]).argmax(1).detach())
    with pytest.warns(Doubt, match="track_running_stats"):
        assert minimal(model, data, 0.1).remarks
    with pytest.warns(Doubt, match="track_running_stats"):
        found = run_checks(model, data, 0.1, steps=2)
    assert "batch-mates" in found.tripped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spatial", [True, False])
def test_rounding_is_no_dependence(dtype: torch.dtype, spatial: bool) -> None:
    model = batch_norm(True, spatial).to(dtype)
    met = meet(model, images(40).tensors[0].to(dtype))
    assert not met.dependent and not met.random and met.sentence() == ""
    mixed = meet(batch_norm(False).to(dtype), images(40).tensors[0].to(dtype))
    assert mixed.dependent


def test_short_floats_inside_are_no_dependence() -> None:
    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = batch_norm(True)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x).float()

    assert meet(Short(), images(40).tensors[0]).tolerated > 0.05


def test_chance_is_no_dependence() -> None:
    class Drops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x.flatten(1), 0.5, training=True)

    met = meet(Drops(), images().tensors[0])
    assert met.random and not met.dependent


@pytest.mark.parametrize("name", ["ima", "dat", "sat"])
def test_a_sample_alone_in_batch_norm_names_the_layer(name: str) -> None:
    x, y = images(4).tensors
    method, model = make(name), batch_norm(False, spatial=False)
    if name == "ima":
        # One sample is right.
        said = model.train()(x).argmax(1).detach()
        y = (said + 1) % 3
        y[0] = said[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name == "ima":
            with pytest.raises(ValueError, match=r'layer "2" has track_running_stats=False.*alone'):
                method(model, x, y, torch.arange(4))
        else:
            with pytest.raises(ValueError, match=r'layer "2".*GroupNorm'):
                method(model.train(), x[:1], y[:1], torch.arange(1))
    assert sum("track_running_stats" in str(one.message) for one in caught) <= 1


def test_training_without_attacks_says_nothing_of_them() -> None:
    x, y = images(4).tensors
    METHODS["standard"].method()(batch_norm(False, spatial=False), x, y, torch.arange(4))


def test_an_evaluation_of_a_sample_alone_names_the_layer() -> None:
    model, data = batch_norm(False, spatial=False), images(3)
    with pytest.raises(ValueError, match=r'layer "2" has track_running_stats=False.*alone'):
        evaluate(model, data, 0.1, ["pgd-2"], batch_size=1)
    with pytest.warns(Doubt, match="left alone stops the work"):
        evaluate(model, data, [], [])


# --- Where remarks are kept and shown -------------------------------------------------------------


@pytest.fixture(scope="module")
def doubtful() -> Results:
    with pytest.warns(Doubt):
        return evaluate(BLIND["no_grad"], TWO, 0.4, ["pgd-3"], bounds=(0, 1))


def test_files_carry_remarks_and_old_ones_have_none(tmp_path: Path, doubtful: Results) -> None:
    doubtful.to_csv(tmp_path / "results.csv")
    again = Results.from_csv(tmp_path / "results.csv")
    assert again.remarks == doubtful.remarks != ()
    beside = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert beside["settings"]["remarks"] == list(again.remarks)
    assert again.settings.remarks == again.remarks
    assert Settings().remarks == () and Results.of([], Settings(norm="L2")).remarks == ()
    with pytest.warns(Doubt):
        found = minimal(BLIND["no_grad"], TWO, 0.4)
    found.to_csv(tmp_path / "distances.csv")
    assert Distances.from_csv(tmp_path / "distances.csv").remarks == found.remarks
    checks = Checks(doubtful.settings, ())
    checks.to_json(tmp_path / "checks.json")
    assert Checks.from_json(tmp_path / "checks.json").remarks == doubtful.remarks


def test_a_stopped_evaluation_keeps_what_it_saw(tmp_path: Path, doubtful: Results) -> None:
    data, path = [(X, Y), (X, Y), (X, Y)], tmp_path / "part"

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    call: dict[str, Any] = {"bounds": (0, 1), "partial": path}
    with pytest.raises(KeyboardInterrupt):
        evaluate(BLIND["no_grad"], data, 0.4, ["pgd-3"], progress=stop, **call)
    with pytest.warns(Doubt, match="6 of 6"):
        evaluate(BLIND["no_grad"], data, 0.4, ["pgd-3"], **call)
    # Batches of the earlier formats lack it: they are done again.
    lines = path.read_text().split("\n")
    assert "under way, 5" in lines[0]
    for number in (1, 2, 3, 4):
        old = [
            lines[0].replace("way, 5", f"way, {number}"),
            *(line.partition(', "counts"')[0] + "}" for line in lines[1:-1]),
            "",
        ]
        path.write_text("\n".join(old))
        with pytest.warns(Doubt, match="6 of 6"):
            evaluate(BLIND["no_grad"], data, 0.4, ["pgd-3"], **call)


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_every_page_shows_them_first(form: str, tmp_path: Path, doubtful: Results) -> None:
    path = tmp_path / f"page.{form}"
    doubtful.to_html(path)
    text = " ".join(re.sub(r"<[^>]+>|\\", "", path.read_text(encoding="utf-8")).split())
    assert text.count("Remark: " + STILL) >= 2
    assert text.index(STILL) < text.index("is right on")
    assert json.dumps(STILL)[1:-1] in text and '["no attack' not in text
    if form == "html":
        assert "in doubt, see the remark" in text


def test_tables_say_them_too(doubtful: Results) -> None:
    from ima.report.summary import results_table
    from ima.report.tables import to_latex, to_markdown, to_text
    from ima.report.words import distances_told as told

    plain = Results(doubtful.columns, Settings(norm="L2"))
    table = results_table([("one", [doubtful]), ("two", [plain])], "")
    for form in (to_text, to_markdown, to_latex):
        text = " ".join(form(table).split())
        assert "Remark on one: " + STILL in text and "Remark on two" not in text
    with pytest.warns(Doubt):
        found = minimal(BLIND["no_grad"], TWO, 0.4)
    assert "Remark: " + STILL in told(found, [0.4])


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_segmentation_pages_and_tables_show_them(form: str, tmp_path: Path) -> None:
    from ima.report.summary import results_table

    data = TensorDataset(BRIGHT, MASKS[:, 0].long())
    model = Around(two_channels(), lambda z: z.softmax(1))
    with pytest.warns(Doubt):
        found = evaluate(model, data, 0.5, ["pgd-2"], task=Segmentation())
    path = tmp_path / f"page.{form}"
    found.to_html(path)
    text = " ".join(re.sub(r"<[^>]+>|\\", "", path.read_text(encoding="utf-8")).split())
    assert text.count("Remark: the outputs of all 4 samples") >= 2
    assert text.index("Remark: ") < text.index("was tested on")
    assert "Remark: the outputs of all 4 samples" in results_table([("net", [found])]).caption


def test_the_command_line_refuses_with_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_cli import call

    code = (
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "def sig(): return nn.Sequential(nn.Linear(1, 1), nn.Sigmoid())\n"
        "def soft(): return nn.Sequential(nn.Linear(1, 2), nn.Softmax(1))\n"
        "def data(): return TensorDataset(torch.rand(9, 1), torch.arange(9) % 2)\n"
    )
    (tmp_path / "remarked.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def said(name: str, layer: nn.Module) -> Any:
        torch.save({f"0.{k}": v for k, v in layer.state_dict().items()}, f"{name}.pt")
        words = ["--model", f"remarked:{name}", "--data", "remarked:data", "--eps", "0.1"]
        words += ["--attacks", "pgd-2", "--device", "cpu"]
        return call("evaluate", f"{name}.pt", *words)

    refused = said("sig", nn.Linear(1, 1))
    assert refused.code not in (0, None) and SIGMOID in refused.err
    assert not (tmp_path / "sig.pt-evaluation" / "results.csv").exists()
    remarked = said("soft", nn.Linear(1, 2))
    assert remarked.code == 0 and "Remark: the outputs of all 9 samples" in remarked.out
    assert "Doubt" not in remarked.err


class Rows(nn.Module):
    """Only the first samples of a batch are served."""

    def __init__(self, served: int) -> None:
        super().__init__()
        self.inner, self.served = nn.Linear(4, 2), served

    def forward(self, x: Tensor) -> Tensor:
        served = (torch.arange(len(x)) < self.served)[:, None]
        return torch.where(served, self.inner(x), torch.tensor([0.1, 0.0]))


@pytest.mark.parametrize("served", [4, 16, 24, 40, 58])
def test_company_that_matters_in_large_batches_alone_is_said(served: int) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(60, 4), torch.arange(60) % 2)
    with pytest.warns(Doubt, match="depends on the other samples"):
        evaluate(Rows(served), data, 0.1, ["pgd-1"], bounds=(0, 1))
    whole = evaluate(Rows(60), data, 0.1, ["pgd-1"], bounds=(0, 1))
    assert not any("depends on the other samples" in remark for remark in whole.remarks)


@pytest.mark.parametrize("batch_size", [16, 24, 48])
def test_batch_statistics_are_said_though_the_first_slices_are_empty(batch_size: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(48, 1, 8, 8)
    y = (x[:, 0] > 0.5).long()
    x[:16], y[:16] = 0, 0
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Conv2d(1, 2, 1))
    data, options = TensorDataset(x, y), {"task": Segmentation(), "bounds": (0, 1)}
    with pytest.warns(Doubt, match=r"depends on the other samples.*BatchNorm layer"):
        evaluate(model, data, 0.5, ["pgd-1"], batch_size=batch_size, **options)


class Ranged(nn.Module):
    """Centred on the batch where `centred`; refuses what lies outside [0, 1]."""

    def __init__(self, *, centred: bool) -> None:
        super().__init__()
        self.inner, self.centred = nn.Linear(4, 2), centred

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x < 0) | (x > 1)).any()):
            raise AssertionError("values lie outside [0, 1]")
        return self.inner(x - x.mean() if self.centred else x)


@pytest.mark.parametrize("batch_size", [1, 8, 12, 48])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_company_is_told_by_the_first_samples_that_are_not_alike(
    batch_size: int, value: float
) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(48, 4), torch.arange(48) % 2
    x[:16] = value
    data = TensorDataset(x, y)
    with pytest.warns(Doubt, match="depends on the other samples"):
        evaluate(Ranged(centred=True), data, 0.1, ["pgd-1"], bounds=(0, 1), batch_size=batch_size)
    model = Ranged(centred=False)
    assert not evaluate(model, data, 0.1, ["pgd-1"], bounds=(0, 1), batch_size=batch_size).remarks
    with pytest.warns(Doubt, match="depends on the other samples"):
        run_checks(Ranged(centred=True), data, 0.1, bounds=(0, 1), steps=1)
