"""Training methods whose attacks follow no gradient: what they say, and where they say nothing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from nets import seeded
from test_methods import ROWS, Row, each_noisy_method
from torch import Tensor, nn

from ima import IMA, SAT, Doubt, Method, MultiLabel, Noisy, Segmentation
from ima.attacks import reach
from ima.methods import Standard

pytestmark = pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")

NO_GRADIENT = "attacks follow no gradient"


class Behind(nn.Module):
    """A linear network behind what lets no gradient through, or does not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.kind == "no_grad":
            with torch.no_grad():
                x = self.first(x).relu()
            return self.last(x)
        if self.kind == "no graph in evaluation mode" and not self.training:
            with torch.no_grad():
                return self.last(self.first(x).relu())
        if self.kind == "detach":
            return self.last(self.first(x).detach().relu())
        if self.kind == "round":
            x = (x * 255).round() / 255
        if self.kind == "sign":
            x = x.sub(0.5).sign()
        if self.kind == "bytes":
            x = (x * 255).byte().float() / 255
        return self.last(self.first(x).relu())


def data(n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 6, generator=seeded(3))
    return x, (x.sum(1) * 7).long() % 3


def own_loop(
    method: Method,
    model: nn.Module,
    *,
    epochs: int = 1,
    end: bool = True,
    lr: float = 0.05,
    every: int = 1,
    batch: int = 8,
) -> None:
    """A loop of a user's own; every: batches between steps of the optimiser."""
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for epoch in range(epochs):
        for i, ids in enumerate(torch.arange(len(x)).split(batch)):
            model.train()
            method(model, x[ids], y[ids], ids).loss.backward()
            if (i + 1) % every == 0:
                optimizer.step()
                optimizer.zero_grad()
        if end:
            method.end_epoch(epoch, epochs)


def behind(kind: str, row: Row | None = None) -> Behind:
    torch.manual_seed(0)
    model = Behind(kind)
    if row is not None and row.spares:
        # Right and sure on most samples, so that there is something to attack.
        with torch.no_grad():
            model.last.weight.zero_()
            model.last.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
            model.last.weight += 0.01 * torch.randn(3, 8, generator=seeded(0))
    return model


@pytest.mark.parametrize("kind", ["no_grad", "detach", "bytes", "no graph in evaluation mode"])
@each_noisy_method
def test_a_network_that_x_does_not_reach_is_said_at_once(row: Row, kind: str) -> None:
    if kind.startswith("no graph") and row.more.get("variant") == "released":
        pytest.skip("it attacks in training mode")
    x, y = data()
    method = row.build(num_samples=24)
    with pytest.warns(Doubt, match=NO_GRADIENT + r".*does not depend on x.*no_grad") as said:
        method(behind(kind, row), x, y, torch.arange(24)).loss.backward()
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        own_loop(method, behind(kind, row), epochs=2)


@pytest.mark.parametrize("kind", ["round", "sign"])
@each_noisy_method
def test_gradients_that_are_zero_all_epoch_are_said_once_at_its_end(row: Row, kind: str) -> None:
    method = row.build(num_samples=24)
    model = behind(kind, row)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        own_loop(method, model, end=False)
    with pytest.warns(Doubt, match=NO_GRADIENT + ".*exactly zero.*in all") as said:
        method.end_epoch(0, 10)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        own_loop(method, model, epochs=2)


def test_a_loop_that_ends_no_epoch_is_told_after_many_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "LONG", 5)
    with pytest.warns(Doubt, match=NO_GRADIENT):
        own_loop(SAT(eps=0.1), behind("round"), epochs=2, end=False)


@each_noisy_method
def test_an_honest_network_is_never_told(row: Row) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        own_loop(row.build(num_samples=24), behind("", row), epochs=3)


def heads_of_zeros(method: Method, **more: Any) -> None:
    model = behind("")
    nn.init.zeros_(model.last.weight)
    own_loop(method, model, **more)


@pytest.mark.parametrize("name", ["sat", "iaat", "ima, measured", "gairat"])
@pytest.mark.parametrize(
    "loop",
    [
        {},
        {"every": 3, "epochs": 3},
        {"batch": 24, "epochs": 3},
        {"lr": 0.0, "epochs": 2},
    ],
    ids=["zero at the start", "gradients added up", "one batch an epoch", "no step yet"],
)
def test_a_last_layer_that_begins_at_zero_is_honest(name: str, loop: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        heads_of_zeros(ROWS[name].build(num_samples=24), **loop)


def test_a_batch_whose_gradient_is_zero_is_honest() -> None:
    x, y = data()
    model = behind("")
    method = SAT(eps=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        for at in (x - 50, x - 50, x, x - 50, x - 50):
            with torch.no_grad():
                # Dead units far from the data.
                model.first.weight.abs_()
            method(model, at, y, torch.arange(24)).loss.backward()
            optimizer.step()
            method.end_epoch(0, 1) if at is x else None
        method.end_epoch(0, 2)


def test_masks_that_ask_for_nothing_are_honest() -> None:
    model = nn.Conv2d(1, 2, 1)
    x, y = torch.rand(4, 1, 4, 4), torch.full((4, 4, 4), 255)
    method = SAT(eps=0.1, task=Segmentation(ignore_label=255))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        for epoch in range(2):
            for labels in (y, y % 2):
                method(model, x, labels, torch.arange(4)).loss.backward()
                optimizer.step()
            method.end_epoch(epoch, 2)


class Plain(Noisy):
    """A method of a user's own."""

    def __call__(self, model: nn.Module, x: Tensor, y: Any, ids: Tensor) -> Any:
        x, y, box = self.prepare(x, y, ids)
        right, radius = self.right(model, x, y), self.full_radius(x)
        walked = self.walk(model, x, y, radius, radius / self.steps, box)
        return self.train_on(model, walked.x, y, right, walked.stuck)


def test_a_method_of_ones_own_and_other_tasks_say_it_too() -> None:
    x, y = data()
    own = Plain(eps=0.1, norm=2, bounds=(0, 1), steps=2, task=None, seed=0)
    with pytest.warns(Doubt, match=NO_GRADIENT):
        own(behind("detach"), x, y, torch.arange(24))
    several = SAT(eps=0.1, task=MultiLabel())
    with pytest.warns(Doubt, match=NO_GRADIENT):
        several(behind("no_grad"), x, torch.eye(3)[y], torch.arange(24))


def test_half_precision_and_gradients_that_are_no_numbers() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            # At 0 the slope of the root is infinite, and times 0 no number.
            return self.last(x + (0 * x).sqrt())

    method = SAT(eps=0.1, bounds=(0, 1))
    with pytest.warns(Doubt, match=NO_GRADIENT + ".*not finite"):
        own_loop(method, Root())
    model, (x, y) = behind("").bfloat16(), data()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        SAT(eps=0.1)(model, x.bfloat16(), y, torch.arange(24)).loss.backward()


def test_standard_training_attacks_nothing_and_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        own_loop(Standard(), behind("no_grad"), epochs=2)


def test_nothing_is_looked_at_once_a_gradient_came() -> None:
    x, y = data()
    method = IMA(num_samples=24, bounds=(0, 1))
    method(behind(""), x, y, torch.arange(24))
    assert method.outputs.reach.done
    assert reach.HEARS.get() is None
