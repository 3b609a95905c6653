"""What a method says where something was forgotten: another norm or eps, ids, training mode."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import ima
from ima.doubt import Doubt

N = 8
X, Y, IDS = torch.rand(N, 4), torch.arange(N) % 3, torch.arange(N)

PAPER: dict[str, Any] = {"eps": 0.5, "delta": 0.1}
OTHERS: dict[str, Any] = {"mma": ima.MMA, "iaat": ima.IAAT, "customized": ima.CustomizedAT}

WITH_MARGINS: dict[str, Any] = {
    "ima": partial(ima.IMA, num_samples=N),
    "paper": partial(ima.IMA, num_samples=N, **PAPER),
    **{name: partial(method, num_samples=N, eps=0.5) for name, method in OTHERS.items()},
}


def linear() -> nn.Module:
    return nn.Linear(4, 3)


# --- States ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_MARGINS)
def test_margins_of_another_norm_are_refused_and_nothing_is_loaded(name: str) -> None:
    saved, other = WITH_MARGINS[name](norm=2), WITH_MARGINS[name](norm="linf")
    saved.margins.update(IDS, torch.full((N,), 0.3))
    before = other.margins.values.clone()
    with pytest.raises(ValueError, match=r"measured in L2, but this \w+ measures noise in L"):
        other.load_state_dict(saved.state_dict())
    assert torch.equal(other.margins.values, before)


@pytest.mark.parametrize("name", WITH_MARGINS)
def test_the_same_settings_load_without_a_word(name: str) -> None:
    saved, again = WITH_MARGINS[name](), WITH_MARGINS[name]()
    saved.margins.update(IDS, torch.full((N,), 0.3))
    again.load_state_dict(saved.state_dict())
    assert torch.equal(again.margins.values, saved.margins.values)


@pytest.mark.parametrize("name", [name for name in WITH_MARGINS if name != "ima"])
def test_another_eps_is_named_and_the_margins_go_on_within_it(name: str) -> None:
    saved, other = WITH_MARGINS[name](), WITH_MARGINS[name](eps=0.25)
    saved.margins.update(IDS, torch.full((N,), 0.4))
    with pytest.warns(Doubt, match=r"with eps 0\.5, and now 0\.25: its margins go on"):
        other.load_state_dict(saved.state_dict())
    assert float(other.margins.values.max()) == pytest.approx(other.margins.cap)


def test_another_delta_is_named() -> None:
    with pytest.warns(Doubt, match=r"delta 0\.1, and now 0\.2"):
        WITH_MARGINS["paper"](delta=0.2).load_state_dict(WITH_MARGINS["paper"]().state_dict())


def test_states_from_before_say_nothing_of_their_units_and_load() -> None:
    saved, again = WITH_MARGINS["paper"](), WITH_MARGINS["paper"](norm="linf")
    state = saved.state_dict()
    del state["units"]
    again.load_state_dict(state)


# --- Ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_MARGINS)
def test_absent_ids_name_indexed(name: str) -> None:
    method = WITH_MARGINS[name]()
    with pytest.raises(TypeError, match=r"ids are NoneType; .*DataLoader\(ima\.Indexed\(train_set"):
        method(linear(), X, Y)
    with pytest.raises(TypeError, match=r"ids are list; .*ima\.Indexed"):
        method(linear(), X, Y, list(range(N)))


def test_methods_without_margins_need_no_ids() -> None:
    step: Any = ima.SAT(eps=0.1, steps=2)
    assert torch.isfinite(step(linear(), X, Y).loss)


# --- Modes ----------------------------------------------------------------------------------------

WAITING: dict[str, Any] = {
    "BatchNorm1d": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
    "Dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)),
}


@pytest.mark.parametrize("kind", WAITING)
@pytest.mark.parametrize("method", [lambda: ima.IMA(num_samples=N), ima.Standard])
def test_evaluation_mode_is_named_once(kind: str, method: Any) -> None:
    model, step = WAITING[kind]().eval(), method()
    with pytest.warns(
        Doubt, match=rf"evaluation mode, where \d \({kind}\) does not do.*\.train\(\)"
    ):
        step(model, X, Y, IDS)
    step(model, X, Y, IDS)


def frozen() -> nn.Module:
    model = WAITING["BatchNorm1d"]()
    model[1].requires_grad_(False)
    return model.eval()


def partly() -> nn.Module:
    model = WAITING["BatchNorm1d"]().train()
    model[1].eval()
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: linear().eval(),
        lambda: nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.0), nn.Linear(4, 3)).eval(),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Identity()).eval(),
        frozen,
        partly,
        lambda: WAITING["Dropout"]().train(),
    ],
)
def test_honest_modes_are_not_warned_of(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ima.IMA(num_samples=N)(model(), X, Y, IDS)
