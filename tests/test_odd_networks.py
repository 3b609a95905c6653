"""Networks, data and surroundings that strangers bring, through every entrance.

The truth is what a plain network that computes the same gives.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint as checkpointing
from nets import ODD, ODD_SHAPE, Checkpointed, Masked, Odd, Renormalised, plain_net, redraw, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import MultiLabel, Segmentation, bpgd, ddn, evaluate, ifgsm, minimal, pgd
from ima.attacks.walk import eval_forward
from ima.evaluation import autoattack as library
from ima.evaluation import bench, finders
from ima.evaluation.checks import run_checks
from ima.evaluation.partial import fingerprint
from ima.methods import METHODS
from ima.training.build import copyable

BOX = (0.0, 1.0)
EPS = [0.1, 0.5]

warnings_of_jit = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
pytestmark = [warnings_of_jit]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "ITERATIONS", 3)
    monkeypatch.setattr(library, "_QUERIES", 4)
    monkeypatch.setattr(finders, "ITERATIONS", 3)
    monkeypatch.setattr(finders, "STEPS", 3)
    monkeypatch.setattr(bench, "QUERIES", 4)
    monkeypatch.setattr(bench, "DRAWS", 3)
    monkeypatch.setattr(bench, "_MORE", 2)


def samples() -> Tensor:
    return torch.rand(10, *ODD_SHAPE, generator=seeded(1))


Entrance = Callable[[nn.Module, Any, Any], list[Any]]
"""What comes out, as numbers."""


def _attack(attack: Callable[..., Any], *args: Any, **more: Any) -> Entrance:
    def run(model: nn.Module, x: Any, y: Any) -> list[Any]:
        result = attack(model, x, y, *args, **more)
        return [*result.x.double().flatten().tolist(), *result.crossed.tolist()]

    return run


def _values(rows: Sequence[Any]) -> list[Any]:
    """All that rows say, those of `more` one by one."""
    listed = [dataclasses.asdict(row) for row in rows]
    flat = [{**row.pop("more", {}), **row} for row in listed]
    return [value for row in flat for value in row.values()]


def _evaluated(model: nn.Module, x: Any, y: Any) -> list[Any]:
    names = ["pgd-4", "ifgsm-3", "noise-3", "white-2", "autoattack", "autoattack+"]
    found = evaluate(model, TensorDataset(x, y), EPS, names, bounds=BOX)
    return _values(found.rows)


def _briefly(model: nn.Module, x: Any, y: Any) -> list[Any]:
    found = evaluate(model, TensorDataset(x, y), EPS, ["pgd-3", "noise-2"], bounds=BOX)
    return _values(found.rows)


def _minimal(model: nn.Module, x: Any, y: Any) -> list[Any]:
    found = minimal(model, TensorDataset(x, y), EPS, bounds=BOX)
    return [v for row in found.rows for v in (row.prediction, row.distance)]


def _checked(model: nn.Module, x: Any, y: Any) -> list[Any]:
    more: dict[str, Any] = {"bounds": BOX, "steps": 2, "transfer": model}
    return [one.tripped for one in run_checks(model, TensorDataset(x, y), 0.3, **more).checks]


def _method(name: str) -> Entrance:
    def run(model: nn.Module, x: Any, y: Any) -> list[Any]:
        kind: Any = METHODS[name].method
        more = {"num_samples": 60, "eps": 0.4, "delta": 0.1, "bounds": BOX, "steps": 3}
        takes = inspect.signature(kind).parameters
        method = kind(**{k: v for k, v in more.items() if k in takes})
        if name == "curriculum":
            method.lesson.strength = 2
        if not isinstance(model, torch.jit.ScriptModule) or model.state_dict():
            model.train()
        step = method(model, x, y, torch.arange(len(x)))
        if step.loss.requires_grad:
            step.loss.backward()
        slopes = [p.grad for p in model.parameters() if p.grad is not None]
        return [float(step.loss.detach()), *(float(g.double().abs().sum()) for g in slopes[-2:])]

    return run


ATTACKS: dict[str, Entrance] = {
    "pgd": _attack(pgd, 0.3, steps=4, bounds=BOX),
    "ifgsm": _attack(ifgsm, 0.03, norm=math.inf),
    "bpgd": _attack(bpgd, 1.0, bounds=BOX, steps=5),
    "ddn": _attack(ddn, steps=6),
}
JUDGES: dict[str, Entrance] = {"evaluate": _evaluated, "minimal": _minimal, "checks": _checked}
TRAININGS: dict[str, Entrance] = {name: _method(name) for name in METHODS}
ALL = ATTACKS | JUDGES | TRAININGS
SOME = {name: ALL[name] for name in ("pgd", "bpgd", "ima", "trades", "customized")}


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, float):
            assert one == pytest.approx(other, rel=2e-3, abs=2e-4, nan_ok=True)
        else:
            assert one == other


def labels(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return eval_forward(model, x).argmax(1)


@pytest.mark.parametrize("row", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("entrance", ALL.values(), ids=ALL.keys())
def test_an_odd_network_fares_as_a_plain_one(entrance: Entrance, row: Odd) -> None:
    odd, plain, x = row.build(), row.plain(), samples()
    y = labels(plain, x)
    mine = x.clone()
    if entrance is TRAININGS["customized"] and isinstance(odd, Masked):
        pytest.skip("classes that are masked have no share in its labels")
    if entrance in TRAININGS.values() and not row.trains:
        if not any(p.requires_grad for p in odd.parameters()):
            with pytest.raises(ValueError, match="no graph"):
                entrance(odd, mine, y)
            return
        if isinstance(odd, Renormalised):
            pytest.skip("each pass in training mode moves its estimate")
    found = entrance(odd, mine, y)
    same(found, entrance(plain, x.clone(), y))
    assert torch.equal(mine, x)
    if entrance not in TRAININGS.values():
        assert all(p.grad is None for p in odd.parameters())
    assert "apply" not in vars(checkpointing.CheckpointFunction)


def test_an_attack_leaves_the_gradients_of_checkpointed_parameters(device: torch.device) -> None:
    model, x = Checkpointed().to(device), samples().to(device)
    fired: list[Any] = []
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
        parameter.register_post_accumulate_grad_hook(fired.append)
    y = labels(model, x)
    for entrance in (*ATTACKS.values(), *JUDGES.values()):
        entrance(model, x, y)
    assert not fired
    assert all(bool((p.grad == 0.5).all()) for p in model.parameters() if p.grad is not None)
    # And training is what it was: reentrant, through `backward`.
    model(x).sum().backward()
    assert fired


def test_checkpoints_are_reentrant_again_when_a_model_raises() -> None:
    class Breaks(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("the model broke")

    with pytest.raises(KeyError, match="the model broke"):
        pgd(Breaks(), samples(), torch.zeros(10, dtype=torch.long), 0.1)
    assert "apply" not in vars(checkpointing.CheckpointFunction)


def test_a_reentrant_checkpoint_that_others_imported_by_name() -> None:
    taken = checkpointing.CheckpointFunction

    class Imports(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            return taken.apply(self.net, True, x)

    x = samples()
    y = labels(plain_net(), x)
    for entrance in ATTACKS.values():
        same(entrance(Imports(), x, y), entrance(plain_net(), x, y))


def test_one_checkpoint_may_hold_another() -> None:
    x = samples()
    y = labels(plain_net(), x)
    for entrance in ATTACKS.values():
        same(entrance(Checkpointed(nested=True), x, y), entrance(plain_net(), x, y))


# ---------------------------------------------------------------------------- outputs


Named = namedtuple("Named", "logits aux")


@dataclass
class Bundle:
    logits: Tensor


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As Hugging Face's."""


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a tuple": (lambda z: (z, z), "returned tuple"),
    "a list": (lambda z: [z, z], "returned list"),
    "a namedtuple": (lambda z: Named(z, None), "returned Named"),
    "a dict": (lambda z: {"out": z, "aux": z}, "returned dict with the keys out"),
    "a ModelOutput": (
        lambda z: ModelOutput(logits=z, loss=None),
        "returned ModelOutput with the key",
    ),
    "a dataclass": (Bundle, "returned Bundle"),
    "nothing": (lambda _: None, "returned NoneType"),
    "an array": (lambda z: z.detach().numpy(), "returned ndarray"),
    "a scalar": (lambda z: z.mean(), r"returned shape \(\)"),
    "maps of one pixel": (lambda z: z[:, :, None, None], r"returned shape \((4|10), 3, 1, 1\)"),
    "decisions": (lambda z: z.argmax(1), "returned torch.int64"),
}


class Answers(nn.Module):
    """Returns something else than logits, always or in training mode."""

    def __init__(self, answer: Callable[[Tensor], Any], *, always: bool) -> None:
        super().__init__()
        self.net, self.answer, self.always = plain_net(), answer, always

    def forward(self, x: Tensor) -> Any:
        z = self.net(x)
        return self.answer(z) if self.always or self.training else z


@pytest.mark.parametrize(("answer", "told"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_what_a_model_returns_in_place_of_logits_is_named(answer: Any, told: str) -> None:
    x = samples()
    y = labels(plain_net(), x)
    for name, entrance in ALL.items():
        for always in (False, True):
            model = Answers(answer, always=always)
            if not always and name not in TRAININGS:
                entrance(model, x, y)
                continue
            # The type itself, where the tree's parts are not looked at first.
            with pytest.raises((TypeError, ValueError), match=f"the model {told}") as raised:
                entrance(model, x, y)
            if not always and raised.type is TypeError:
                assert str(raised.value).startswith("in training mode, the model returned")


@pytest.mark.parametrize(("answer", "told"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_what_a_model_returns_in_evaluation_mode_only_is_named_too(answer: Any, told: str) -> None:
    class Turned(Answers):
        def forward(self, x: Tensor) -> Any:
            z = self.net(x)
            return z if self.training else self.answer(z)

    x = samples()
    # Some of them right: MMA attacks no others.
    y = labels(plain_net(), x)
    for name in TRAININGS:
        if name != "standard":
            with pytest.raises((TypeError, ValueError), match=r"^the model returned"):
                TRAININGS[name](Turned(answer, always=False), x, y)


def test_outputs_that_are_no_dense_tensors_are_named() -> None:
    x = samples()
    y = labels(plain_net(), x)
    for entrance in ALL.values():
        with pytest.raises(TypeError, match=r"model returned a tensor of layout torch.sparse_coo"):
            entrance(Answers(Tensor.to_sparse, always=True), x, y)


@pytest.mark.parametrize("name", [row.name for row in METHODS.values() if row.segmentation])
def test_segmentation_names_a_dict_of_heads(name: str) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Any:
            z = self.net(x)
            return OrderedDict(out=z, aux=z) if self.training else z

    kind: Any = METHODS[name].method
    more = {"num_samples": 60, "eps": 0.4, "delta": 0.1, "steps": 2, "task": Segmentation()}
    takes = inspect.signature(kind).parameters
    method = kind(**{k: v for k, v in more.items() if k in takes})
    x = samples()
    with pytest.raises(TypeError, match="in training mode, the model returned OrderedDict with"):
        method(Heads().train(), x, torch.zeros(10, 5, 5).long(), torch.arange(10))


@pytest.mark.parametrize("call", [evaluate, minimal, run_checks])
def test_evaluations_of_masks_name_a_dict_of_heads(call: Any) -> None:
    class Heads(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return OrderedDict(out=super().forward(x))

    data = TensorDataset(samples(), torch.zeros(10, 5, 5).long())
    with pytest.raises(TypeError, match="the model returned dict with the keys out"):
        call(Heads(1, 2, 1), data, 0.1, task=Segmentation())


# ---------------------------------------------------------------------------- masked logits


@pytest.mark.parametrize("value", [-math.inf, torch.finfo(torch.float32).min, -1e9, -1e4])
def test_masked_classes_have_no_share_in_soft_labels(value: float) -> None:
    x = samples()
    model = Masked(value)
    (loss, *slopes) = TRAININGS["customized"](model, x, labels(model, x))
    assert 0 < loss < 10
    assert all(math.isfinite(slope) and slope > 0 for slope in slopes)


@pytest.mark.parametrize("name", [row.name for row in METHODS.values() if row.segmentation])
@pytest.mark.parametrize("regions", [False, True])
def test_masked_regions_and_findings_train_as_those_of_a_very_low_logit(
    name: str, regions: bool
) -> None:
    class Masks(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.net, self.value = redraw(nn.Conv2d(1, 3, 3), 2), value

        def forward(self, x: Tensor) -> Tensor:
            z = self.net(x)
            z = z if regions else z.mean((2, 3))
            return z.masked_fill(self.here.reshape(1, 3, *[1] * (z.ndim - 2)), self.value)

        here = torch.tensor([False, True, False])

    x = samples()
    found: list[list[float]] = []
    for value in (-math.inf, -1e4):
        model = Masks(value).train()
        kind: Any = METHODS[name].method
        task = Segmentation(regions=True) if regions else MultiLabel()
        more = {"num_samples": 10, "eps": 0.1, "delta": 0.1, "steps": 2, "task": task}
        takes = inspect.signature(kind).parameters
        method = kind(**{k: v for k, v in more.items() if k in takes})
        y = (model(x) > 0).float()
        step = method(model, x, y, torch.arange(10))
        step.loss.backward()
        found.append(
            [float(step.loss.detach()), *(float(p.grad.abs().sum()) for p in model.parameters())]
        )
    assert found[0] == pytest.approx(found[1])
    assert all(math.isfinite(value) for value in found[0])
    # Where the truth says that a masked one is there, no loss is finite.
    with pytest.raises(FloatingPointError, match="the training loss is"):
        method(Masks(-math.inf).train(), x, torch.ones_like(y), torch.arange(10))


def test_an_output_that_decides_nothing_is_refused() -> None:
    x = samples()
    y = torch.zeros(10, dtype=torch.long)

    class Constant(nn.Module):
        def __init__(self, *values: float) -> None:
            super().__init__()
            self.register_buffer("values", torch.tensor(values))

        def forward(self, x: Tensor) -> Tensor:
            return self.values + 0 * x.flatten(1)[:, :1]

    for values in ((-math.inf, -math.inf), (math.inf, 0.0), (math.nan, -math.inf)):
        for judge in JUDGES.values():
            with pytest.raises(FloatingPointError, match="not finite"):
                judge(Constant(*values), x, y)


# ---------------------------------------------------------------------------- data


SIGNED = [torch.int8, torch.int16, torch.int32]
KINDS = [*SIGNED, torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", KINDS)
def test_labels_may_be_integers_of_any_kind(dtype: torch.dtype) -> None:
    x = samples()
    y = labels(plain_net(), x)
    for entrance in (*SOME.values(), _briefly):
        same(entrance(plain_net(), x, y.to(dtype)), entrance(plain_net(), x, y))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.float32])
@pytest.mark.parametrize("regions", [False, True])
def test_masks_may_be_integers_of_any_kind(dtype: torch.dtype, regions: bool) -> None:
    model = nn.Conv2d(1, 2, 3, padding=1)
    x, task = samples(), Segmentation(regions=regions)
    z = model(x).detach()
    y = (z > 0).long() if regions else z.argmax(1)
    found, expected = (
        evaluate(model, TensorDataset(x, masks), EPS, ["pgd-2", "noise-2"], task=task)
        for masks in (y.to(dtype), y)
    )
    assert [row.quality for row in found.rows] == [row.quality for row in expected.rows]
    method = METHODS["ima"].method(num_samples=10, eps=0.4, delta=0.1, steps=2, task=task)
    assert bool(torch.isfinite(method(model, x, y.to(dtype), torch.arange(10)).loss))


def test_arrays_and_lists_are_named() -> None:
    x = samples()
    y = labels(plain_net(), x)
    for name, entrance in ALL.items():
        if name in JUDGES:
            continue
        for other in (x.numpy(), x.tolist()):
            with pytest.raises(TypeError, match=f"x is a {type(other).__name__}; expected a tens"):
                entrance(plain_net(), other, y)
        for other in (y.numpy(), y.tolist()):
            with pytest.raises(TypeError, match=f"y is a {type(other).__name__}; expected a tens"):
                entrance(plain_net(), x, other)
        if name != "standard":
            with pytest.raises(TypeError, match=r"x has dtype torch.uint8.*x / 255"):
                entrance(plain_net(), (255 * x).byte(), y)


def test_batches_of_arrays_are_evaluated() -> None:
    x = samples()
    y = labels(plain_net(), x)
    batches = [(x[i : i + 5].numpy(), y[i : i + 5].numpy().astype(np.uint16)) for i in (0, 5)]
    for judge in (evaluate, minimal):
        more: dict[str, Any] = {"attacks": ["pgd-3"]} if judge is evaluate else {}
        found = judge(plain_net(), iter(batches), EPS, bounds=BOX, **more)
        expected = judge(plain_net(), TensorDataset(x, y), EPS, bounds=BOX, batch_size=5, **more)
        same(
            _values(found.rows),
            _values(expected.rows),
        )


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "strided": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "requiring gradients": lambda x: x.clone().requires_grad_(),
    "part of another": lambda x: torch.cat([x, x])[10:],
}


@pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_samples_may_lie_in_memory_as_they_like(lay: Callable[[Tensor], Tensor]) -> None:
    x = samples()
    y = labels(plain_net(), x)
    row = ODD["changes its input in place"]
    for entrance in (*SOME.values(), _briefly):
        mine = lay(x)
        same(entrance(row.build(), mine, y), entrance(row.plain(), x.clone(), y))
        assert torch.equal(mine, x)


# ---------------------------------------------------------------------------- surroundings


@contextmanager
def _autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, _autocast])
@pytest.mark.parametrize("name", ["changes its input in place", "reentrant checkpoints"])
def test_surroundings_change_nothing(name: str, around: Callable[[], Any]) -> None:
    x, row = samples(), ODD[name]
    odd, plain = row.build(), row.plain()
    y = labels(plain, x)
    for entrance in (*ATTACKS.values(), _briefly):
        mine, expected = x.clone(), entrance(plain, x.clone(), y)
        with around():
            found = entrance(odd, mine, y)
        if around is not _autocast:
            same(found, expected)
        assert torch.equal(mine, x)


def test_float64_samples_within_autocast() -> None:
    x = samples()
    y = labels(plain_net(), x)
    for entrance in ALL.values():
        with torch.autocast("cpu", torch.bfloat16):
            entrance(plain_net(), x.double(), y)


# ---------------------------------------------------------------------------- copies, digests


@pytest.mark.parametrize("kind", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_networks_with_old_hooks_can_be_copied(kind: Callable[..., Any]) -> None:
    x = samples()
    for before in (lambda _: None, lambda model: model.train()(x).sum().backward()):
        model = Renormalised(kind)
        before(model)
        copy = deepcopy(copyable(model))
        assert torch.equal(eval_forward(copy, x), eval_forward(model, x))
        model.train()(x).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_frozen_networks_have_digests_of_their_own() -> None:
    def frozen(seed: int) -> nn.Module:
        net = plain_net()
        net[0].weight.data += seed
        return torch.jit.freeze(torch.jit.script(net))

    assert fingerprint(frozen(0)) == fingerprint(frozen(0))
    assert fingerprint(frozen(0)) != fingerprint(frozen(1))
